#!/bin/bash
# SPDX-License-Identifier: MIT
# Bundles that are damaged, foreign or hostile are refused with a code and a reason.
. "$(dirname "$0")/lib.sh"
need_base
good=$scratch/good
bad=$scratch/bad

machinen boot -d --timeout 300 --name src --memory 512 -- sleep 100000 >/dev/null
machinen snapshot src "$good" >/dev/null

# A copy of the bundle in which file $1 is one's own.
spoil() {
	rm -rf "$bad"
	cp -al "$good" "$bad"
	cp --sparse=always "$good/$1" "$bad/$1.own"
	mv -f "$bad/$1.own" "$bad/$1"
}
flip() { # file offset: another byte there
	local was
	was=$(od -An -tu1 -j"$2" -N1 "$bad/$1")
	printf "\\x$(printf %02x $((was ^ 255)))" | dd of="$bad/$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
refused() { # what pattern
	run timeout 60 machinen restore "$bad" -d
	is "$1: refused" "$status" 1
	like "$1: why" "$err" "$2"
	machinen stop --force "$out" >/dev/null 2>&1
}
# somewhere in its data
data_at() { perl -e 'open my $f, "<", shift; print sysseek($f, shift, 3) + 100' "$good/$1" "$2"; }

for f in state sums memory root.0 root.1 meta.json; do
	size=$(stat -c %s "$good/$f")
	spoil $f
	truncate -s $((size / 2)) "$bad/$f"
	refused "$f cut short" "SNAPSHOT_DAMAGED.*$f"
	spoil $f
	truncate -s +1T "$bad/$f" 2>/dev/null || truncate -s +1G "$bad/$f"
	refused "$f far too long" "SNAPSHOT_DAMAGED.*$f"
	rm -f "$bad/$f"
	refused "$f is missing" "SNAPSHOT_DAMAGED.*$f|BOOT_SNAPSHOT_NOT_FOUND.*meta.json"
	ln -s /etc/passwd "$bad/$f"
	refused "$f is a link to elsewhere" "SNAPSHOT_DAMAGED.*$f"
	rm -f "$bad/$f"
	mkfifo "$bad/$f"
	refused "$f is a pipe" "SNAPSHOT_DAMAGED.*$f"
done
for f in state sums meta.json; do
	spoil $f
	flip $f $(($(stat -c %s "$good/$f") / 2))
	refused "a byte of $f" "SNAPSHOT_DAMAGED.*$f"
done
# too large to be read before the guest runs
for f in memory root.0 root.1; do
	spoil $f
	flip $f "$(data_at $f 0)"
	run machinen inspect "$bad" --verify
	like "a byte of $f, by inspect --verify" "$err" "SNAPSHOT_DAMAGED.*$f|SNAPSHOT_DAMAGED.*memory"
done
spoil memory
flip memory "$(data_at memory 16777216)"
name=$(machinen restore "$bad" -d --name harmed 2>"$scratch/err") || name=harmed
ended() { ! machinen exec harmed -- true; }
ok "a VM whose memory is found damaged ends" eventually 30 ended

# One that is taken away under a VM, and under its sibling
spoil memory
machinen restore "$bad" -d --name cut >/dev/null
machinen fork cut -d --new-name cut2 >/dev/null
machinen exec cut2 -- sh -c 'echo begins; sleep 100000' >"$scratch/running" 2>"$scratch/err2" &
waits=$!
eventually 30 grep -q begins "$scratch/running"
truncate -s 1M "$bad/memory"
run machinen exec cut -- find / -xdev -name none
is "a VM whose memory is cut short ends" "$status" 1
ended() { ! machinen exec cut2 -- find / -xdev -name none; }
ok "so does its sibling" eventually 30 ended
wait $waits
like "who waits for a command learns why" "$(<"$scratch/err2")" \
	'EXEC_AGENT_UNAVAILABLE.*crashed.*memory file .* was cut short'

# A meta.json that says something else, with a digest that is right.
spoil meta.json
sealed() { # document: itself with its digest
	local digest
	digest=$(jq -cS 'del(.digest)' <<<"$1" | tr -d '\n' | sha256sum | cut -d' ' -f1)
	jq --arg d "$digest" '.digest = $d' <<<"$1"
}
sealed "$(<"$good/meta.json")" >"$bad/meta.json"
is "the digest can be made" "$(jq -r .digest "$bad/meta.json")" "$(jq -r .digest "$good/meta.json")"
says() { # what pattern program of jq
	sealed "$(jq "$3" "$good/meta.json")" >"$bad/meta.json"
	refused "$1" "$2"
}
says "another version" SNAPSHOT_VERSION '.format_version = 2'
says "no version" SNAPSHOT_VERSION 'del(.format_version)'
says "another format" SNAPSHOT_DAMAGED '.format = "tar"'
says "another architecture" SNAPSHOT_ARCH_MISMATCH '.arch = "aarch64"'
says "no spec" SNAPSHOT_DAMAGED 'del(.spec)'
says "a spec of the wrong kind" SNAPSHOT_DAMAGED '.spec = [1]'
says "other memory" 'SNAPSHOT_DAMAGED|BOOT_' '.spec.memory_mib = 1024'
says "absurd memory" 'SNAPSHOT_DAMAGED|BOOT_' '.spec.memory_mib = 9007199254740991'
says "more CPUs" 'SNAPSHOT_DAMAGED|BOOT_' '.spec.cpus = 4'
says "negative CPUs" SNAPSHOT_DAMAGED '.spec.cpus = -1'
says "other disks" SNAPSHOT_DAMAGED '.spec.disks[0].id = "boot"'
says "no disks" SNAPSHOT_DAMAGED '.spec.disks = []'
says "a disk outside" SNAPSHOT_DAMAGED '.spec.disks[0].id = "../x"'
says "more layers than there are" SNAPSHOT_DAMAGED '.spec.disks[0].layers = 3'
says "no layers" SNAPSHOT_DAMAGED '.spec.disks[0].layers = 0'
says "too many layers" SNAPSHOT_DAMAGED '.spec.disks[0].layers = 100000'
says "layers the wrong way round" SNAPSHOT_DAMAGED \
	'.files |= map(if .name == "root.0" then .name = "root.1" elif .name == "root.1" then .name = "root.0" else . end)'
says "no list of files" SNAPSHOT_DAMAGED 'del(.files)'
says "a file outside" SNAPSHOT_DAMAGED '.files[0].name = "../../etc/passwd"'
says "a file elsewhere" SNAPSHOT_DAMAGED '.files[0].name = "/etc/passwd"'
says "a file of a negative size" SNAPSHOT_DAMAGED '.files[0].size = -1'
says "a million files" SNAPSHOT_DAMAGED '.files = [range(1000000) | {name: "state", size: 1, check: "sums"}]'
says "no network where there was one" 'SNAPSHOT_DAMAGED|BOOT_' '.spec.net = null | .spec |= with_entries(select(.value != null))'
printf '%0100000d' 0 | tr 0 '[' >"$bad/meta.json"
refused "nested deeply" 'SNAPSHOT_DAMAGED.*meta.json'
head -c 100000 /dev/urandom >"$bad/meta.json"
refused "noise" 'SNAPSHOT_DAMAGED.*meta.json'
: >"$bad/meta.json"
refused "empty" 'SNAPSHOT_DAMAGED.*meta.json'
rm -rf "$bad"
mkdir "$bad"
refused "an empty directory" BOOT_SNAPSHOT_NOT_FOUND
is "none of them runs" "$(machinen list --json | jq '.vms | length')" 0
run machinen restore "$good" -d --name again
is "and the good one does" "$status" 0
finish
