#!/bin/bash
# SPDX-License-Identifier: MIT
# snapshot, fork and restore of a real guest whose Nth call fails, or that are killed or
# interrupted there, in the command, in the VM's process and in what that forks: the
# source goes on with all that it had, and a bundle is whole or not there.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/lib.sh"
need_base
export "${fault_env[0]}" LD_PRELOAD="$PWD/$O/tests/fault/libfault.so"
out_dir=$scratch/bundles
mkdir "$out_dir"

# Its past: something in memory, and on the disk.
remembers() { [ "$(timeout 30 machinen exec "$1" -- cat /dev/shm/f /root/f 2>/dev/null)" = "$past" ]; }
revive() { # the source, if it is gone
	remembers src && return
	machinen stop --force src >/dev/null 2>&1
	machinen restore "$scratch/good" -d --name src >/dev/null
}
none_but() { # VMs run beside the source
	eventually 5 vmms_are $((1 + $1)) || complain "$(vmms) VMs run"
	machinen gc >/dev/null
	[ "$(machinen list --json | jq '.vms | length')" = $((1 + $1)) ] || complain "the registry disagrees"
}
whole_or_nothing() {
	if [ -e "$out_dir/b" ]; then
		machinen inspect --verify "$out_dir/b" >/dev/null 2>"$scratch/why" ||
			complain "half a bundle: $(<"$scratch/why")"
	else
		[ "$status" != 0 ] || complain "no bundle"
	fi
	# only who was killed may leave something
	[ "$status" = 137 ] || [ -z "$(ls -A "$out_dir" | grep partial)" ] || complain "left over"
	rm -rf "$out_dir/b"
}
try_snapshot() {
	faulty snapshot src "$out_dir/b" --keep-alive
	ended_well 0 1 130 137
	whole_or_nothing
	remembers src || complain "the source does not go on"
	none_but 0
}
try_last() { # the source stops with the bundle, and not without
	faulty snapshot src "$out_dir/b"
	ended_well 0 1 130 137
	# killed between the two the source goes on, which is as good
	[ -e "$out_dir/b" ] || remembers src || complain "neither source nor bundle"
	[ "$status" != 0 ] || ! remembers src || complain "it goes on"
	whole_or_nothing
	revive
}
try_dying() { # the VM itself ends
	faulty snapshot src "$out_dir/b" --keep-alive
	ended_well 0 1
	whole_or_nothing
	revive
	none_but 0
}
try_fork() {
	faulty fork src --new-name new -d
	ended_well 0 1 130 137
	[ "$status" != 0 ] || remembers new || complain "the new VM does not answer"
	remembers src || complain "the source does not go on"
	machinen stop --force new >/dev/null 2>&1
	none_but 0
}
try_restore() {
	faulty restore "$scratch/good" --name new -d
	ended_well 0 1 130 137
	[ "$status" != 0 ] || remembers new || complain "the new VM does not answer"
	machinen stop --force new >/dev/null 2>&1
	none_but 0
}

machinen boot -d --timeout 300 --name src --memory 512 -- sleep 100000 >/dev/null
machinen exec src -- sh -c 'echo memory >/dev/shm/f; echo disk >/root/f'
past=$'memory\ndisk'
machinen snapshot src "$scratch/good" --keep-alive >/dev/null
ok "the source is prepared" remembers src

sweep "snapshot: the command is killed" 8 "cli all @ kill" try_snapshot
sweep "snapshot: it is interrupted" 8 "cli all @ int" try_snapshot
sweep "snapshot: a call of it fails" 8 "cli all @ EIO" try_snapshot
sweep "snapshot: the disk is full for it" 5 "cli space @ ENOSPC" try_snapshot
sweep "snapshot: the writer is killed" 5 "child all @ kill" try_snapshot
sweep "snapshot: a call of the writer fails" 5 "child all @ EIO" try_snapshot
sweep "snapshot: the disk is full for the writer" 5 "child space @ ENOSPC" try_snapshot
sweep "snapshot: a call of the VM fails" 8 "vmm all @ EIO" try_snapshot
sweep "snapshot: the VM is killed" 5 "vmm all @ kill" try_dying
sweep "snapshot that stops the VM: the command is killed" 8 "cli all @ kill" try_last
sweep "snapshot that stops the VM: a call of it fails" 6 "cli all @ EIO" try_last
sweep "fork: the command is killed" 8 "cli all @ kill" try_fork
sweep "fork: it is interrupted" 8 "cli all @ int" try_fork
sweep "fork: a call of it fails" 8 "cli all @ EIO" try_fork
sweep "fork: a call of the source fails" 8 "vmm all @ EIO" try_fork
sweep "fork: a call of the new VM fails" 5 "child all @ EIO" try_fork
sweep "fork: the new VM is killed" 5 "child all @ kill" try_fork
sweep "restore: the command is killed" 8 "cli all @ kill" try_restore
sweep "restore: it is interrupted" 8 "cli all @ int" try_restore
sweep "restore: a call of it fails" 8 "cli all @ EIO" try_restore
finish
