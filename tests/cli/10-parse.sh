#!/bin/bash
# SPDX-License-Identifier: MIT
# Usage errors: code, text, exit status; help; --json errors.
. "$(dirname "$0")/lib.sh"

usage() { # name code arguments...
	local name=$1 code=$2
	shift 2
	run machinen "$@"
	is "$name: exit status" "$status" 2
	like "$name: code" "$err" "^machinen: \($code\): "
}
usage "unknown command" PARSE_COMMAND_UNKNOWN nonsense
usage "unknown flag" PARSE_FLAG_UNKNOWN boot --nonsense
usage "missing value" PARSE_FLAG_MISSING_VALUE boot --name
usage "missing value before --" PARSE_FLAG_MISSING_VALUE boot --name -- true
usage "given twice" PARSE_FLAG_DUPLICATE boot --name a --name b
usage "no number" PARSE_FLAG_MALFORMED boot --cpus many
usage "no choice" PARSE_FLAG_MALFORMED boot --accel turbo
usage "no size" PARSE_FLAG_MALFORMED boot --disk-size 10X
usage "argument missing" PARSE_ARGUMENT_MISSING exec -- true
usage "command missing" PARSE_ARGUMENT_MISSING exec web
usage "argument too many" PARSE_ARGUMENT_EXTRA exec web true
usage "value for a switch" PARSE_FLAG_MALFORMED list --json=yes
usage "port shape" BOOT_PORT_FORWARD_INVALID boot -p 80 -- true
usage "port number" PARSE_PORT_INVALID boot -p 80:x -- true
usage "port number" PARSE_PORT_INVALID boot -p 99999:1 -- true
usage "guest port 0" PARSE_PORT_INVALID boot -p 1:0 -- true
usage "port address" BOOT_PORT_FORWARD_INVALID boot -p localhost:80:80 -- true
usage "port address" BOOT_PORT_FORWARD_INVALID boot -p '[::1:80:80' -- true
usage "port address" BOOT_PORT_FORWARD_INVALID boot -p 1.2.3:80:80 -- true
usage "port verb" PARSE_COMMAND_UNKNOWN port sub web 1:2

run machinen exec web ls
like "points at --" "$err" 'put -- before the command'
run machinen lst
like "suggests a command" "$err" 'did you mean list'
run machinen boot --detch
like "suggests a flag" "$err" 'did you mean --detach'
run machinen list --json --nonsense
is "JSON error: exit status" "$status" 2
is "JSON error: document" "$(jq -r '[.schema_version, .ok, .error.code] | @tsv' <<<"$out")" \
	$'1\tfalse\tPARSE_FLAG_UNKNOWN'
is "JSON error: nothing else" "$err" ""

for c in $(machinen agent-context | jq -r '.commands[].name'); do
	run machinen "$c" --help
	is "$c --help" "$status" 0
	run machinen help "$c"
	like "help $c" "$out" "^Usage: machinen $c"
done
run machinen --version
like "--version" "$out" '^machinen [0-9]+\.[0-9]+'
run machinen
like "no command" "$out" 'Commands:'
finish
