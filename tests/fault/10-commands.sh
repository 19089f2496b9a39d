#!/bin/bash
# SPDX-License-Identifier: MIT
# boot, exec, cp, list and stop whose Nth call fails, or that are killed there: an
# error that says what it is, no VM that nobody knows, nothing left, and no VM lost.
# A stand-in takes the VM's place, so that one try takes milliseconds.
. "$(dirname "$0")/../cli/lib.sh"
. "$(dirname "$0")/lib.sh"

settled() { # what is there after a try: so many VMs, and no directory half made
	eventually 5 vmms_are "$1" || complain "$(vmms) VMs run, not $1"
	machinen gc >/dev/null
	[ "$(machinen list --json | jq '.vms | length')" = "$1" ] || complain "the registry disagrees"
	[ -z "$(find "$MACHINEN_HOME/vms" -maxdepth 1 -name '.new*')" ] || complain "unfinished"
}

try_boot() {
	faulty boot -d --name new -- sleep 1000
	ended_well 0 1 137
	if [ "$status" = 0 ]; then
		machinen exec new -- true || complain "it does not answer"
		machinen stop --force new >/dev/null
	elif [ "$status" = 137 ]; then
		# it may have been complete
		machinen stop --force new >/dev/null 2>&1
	fi
	settled 1
}
try_exec() {
	faulty exec web -- sh -c 'echo out; exit 7'
	ended_well 1 7 137
	[ "$status" != 7 ] || [ "$out" = out ] || complain "output: $out"
	settled 1
}
try_cp() {
	faulty cp "$scratch/from" "web:$scratch/to"
	ended_well 0 1 137
	[ "$status" != 0 ] || cmp -s "$scratch/from" "$scratch/to" || complain "another file"
	rm -f "$scratch/to"
	settled 1
}
try_list() {
	faulty list
	ended_well 0 1 137
	settled 1
}
try_stop() {
	[ "$(machinen list --json | jq '.vms | length')" = 1 ] ||
		machinen boot -d --name web -- sleep 1000 >/dev/null
	faulty stop --force web
	ended_well 0 1 137
	[ "$status" != 0 ] || settled 0
}

per_vm=2		# the stand-in and its agent
head -c 300000 /dev/urandom >"$scratch/from"
machinen boot -d --name web -- sleep 1000 >/dev/null
sweep "boot: a call fails" 22 "cli all @ EIO" try_boot
sweep "boot: the disk is full" 10 "cli space @ ENOSPC" try_boot
sweep "boot: killed" 10 "cli all @ kill" try_boot
sweep "exec: a call fails" 12 "cli all @ EIO" try_exec
sweep "cp: a call fails" 8 "cli all @ EMFILE" try_cp
sweep "list: a call fails" 8 "cli all @ EMFILE" try_list
sweep "stop: a call fails" 10 "cli all @ EIO" try_stop
finish
