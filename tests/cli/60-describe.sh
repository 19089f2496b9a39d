#!/bin/bash
# SPDX-License-Identifier: MIT
# agent-context, completion, feedback, doctor, manual pages: all say the same.
. "$(dirname "$0")/lib.sh"

machinen agent-context >"$scratch/context"
is "agent-context is JSON" "$(jq -r .schema_version "$scratch/context")" 1

# Every flag described is one the parser knows, and the other way round.
bad=
while IFS=$'\t' read -r c flag value; do
	help=$(machinen "$c" --help)
	[[ $help == *"--$flag"* ]] || bad+=" help:$c--$flag"
	case $value in
	true)
		got=$(machinen "$c" "--$flag" -- 2>&1)
		[[ $got == *PARSE_FLAG_UNKNOWN* ]] && bad+=" unknown:$c--$flag"
		;;
	esac
done < <(jq -r '.commands[] | .name as $c | .flags[] | [$c, .name, .takes_value] | @tsv' "$scratch/context")
is "flags are those of the parser" "$bad" ""
codes=$(sed -n 's/^\tX(\([A-Z_]*\),.*/\1/p' src/base/codes.h)
is "error codes are those of the table" "$(jq -r '.error_codes[].code' "$scratch/context")" "$codes"
ok "the header lists the same codes" scripts/gen-codes --check

ok "manual pages are those of the tables" scripts/gen-man --check

complete() { # words...
	bash -c 'source <(machinen completion bash); COMP_WORDS=(machinen "$@"); COMP_CWORD=$#; _machinen; echo "${COMPREPLY[*]}"' _ "$@"
}
is "completes commands" "$(complete ins)" "inspect install"
is "completes flags" "$(complete boot --det)" "--detach"
is "completes choices" "$(complete boot --accel s)" "soft"
machinen boot -d --name web/one -- sleep 1000 >/dev/null
is "completes running VMs" "$(complete exec we)" "web/one"
is "completes them for every target" "$(complete stop web)" "web/one"
for s in bash zsh fish; do
	run machinen completion $s
	like "completion $s" "$out" '__complete'
done
machinen stop web/one >/dev/null

run machinen feedback 'it "works"'
is "feedback" "$status" 0
run machinen feedback --list
is "feedback --list" "$out" 'it "works"'
is "feedback.jsonl" "$(jq -r .text "$MACHINEN_HOME/feedback.jsonl")" 'it "works"'
mkdir "$scratch/bin"
printf '#!/bin/sh\nprintf "%%s\\n" "$@" >"%s/curl"\n' "$scratch" >"$scratch/bin/curl"
chmod +x "$scratch/bin/curl"
run env PATH="$scratch/bin:$PATH" MACHINEN_FEEDBACK_ENDPOINT=http://here/x \
	machinen feedback again --json
is "feedback --json" "$(jq -r '[.schema_version, .ok, .sent] | @tsv' <<<"$out")" $'1\ttrue\ttrue'
is "goes to the endpoint" "$(tail -n 1 "$scratch/curl")" http://here/x
is "as JSON" "$(grep '^{' "$scratch/curl" | jq -r .text)" again
printf '#!/bin/sh\nexit 7\n' >"$scratch/bin/curl"
run env PATH="$scratch/bin:$PATH" MACHINEN_FEEDBACK_ENDPOINT=http://here/x machinen feedback third
is "an endpoint that is away: the note is kept" "$status $(machinen feedback --list | tail -n 1)" "0 third"
like "and it is said" "$err" 'could not be sent to http://here/x'
is "feedback --list --json" "$(machinen feedback --list --json | jq -c '[.ok, (.notes | length)]')" '[true,3]'
run machinen doctor --json
is "doctor --json" "$(jq -r '[.schema_version, .ok] | @tsv' <<<"$out")" $'1\ttrue'
MACHINEN_ASSETS_DIR=/none run machinen doctor
is "doctor fails without a base" "$status" 1
like "doctor says what to do" "$out" 'machinen install'
finish
