#!/bin/bash
# SPDX-License-Identifier: MIT
# boot: streams, statuses, errors; what is left after each way to end.
. "$(dirname "$0")/lib.sh"

run machinen boot -- sh -c 'echo out; echo err >&2; exit 7'
is "exit status" "$status" 7
is "stdout" "$out" out
is "stderr" "$err" err
is "nothing left" "$(left_behind)" ""
run machinen boot -- sh -c 'kill -TERM $$'
is "ended by a signal" "$status" 143
run machinen boot -- /no/such/program
is "no such program" "$status" 127
run machinen boot --env A=1 --env B='x y' --cwd / -- sh -c 'echo "$A$B"; pwd'
is "environment" "$out" $'1x y\n/'
run machinen boot -- printf '%s|' -a --b '' 'c d'
is "literal arguments" "$out" '-a|--b||c d|'

fails() { # name code arguments...
	local name=$1 code=$2
	shift 2
	run machinen boot "$@"
	is "$name: exit status" "$status" 1
	like "$name: code" "$err" "^machinen: \($code\): "
	is "$name: nothing left" "$(left_behind)" ""
}
fails "no command" BOOT_CMD_MISSING
fails "no kernel" BOOT_KERNEL_NOT_FOUND --kernel /none -- true
fails "no image" BOOT_IMAGE_NOT_FOUND /none.tar -- true
fails "bad directory" BOOT_CWD_INVALID --cwd etc -- true
fails "little memory" BOOT_MEMORY_INVALID --memory 100 -- true
fails "bad name" REGISTRY_NAME_INVALID --name 123 -- true
fails "bad name" REGISTRY_NAME_INVALID --name a//b -- true
fails "bad name" REGISTRY_NAME_INVALID --name ../x -- true
fails "port twice" BOOT_PORT_FORWARD_CONFLICT -p 80:1 -p 80:2 -- true
fails "port twice, once everywhere" BOOT_PORT_FORWARD_CONFLICT -p 80:1 -p 0.0.0.0:80:2 -- true
fails "port twice, spelled twice" BOOT_PORT_FORWARD_CONFLICT -p '[::1]:80:1' -p '[0:0::1]:80:2' -- true
fails "ports without network" BOOT_PORT_FORWARD_INVALID --no-net -p 80:1 -- true
MACHINEN_VMM=/none fails "no VMM" BOOT_VMM_MISSING -- true
MACHINEN_ASSETS_DIR=/none fails "no base" PROVISION_BASE_NOT_FOUND -- true
FAKEVMM=fail fails "VMM says no" BOOT_ACCEL_UNAVAILABLE -- true
FAKEVMM=die fails "VMM dies" BOOT_READINESS_FAILED -- true
FAKEVMM=mute fails "no agent" BOOT_TIMEOUT --timeout 1 -- true
FAKEVMM=crash fails "guest dies" BOOT_READINESS_FAILED -- true
run env FAKEVMM=mute machinen boot --timeout 1 -- true
like "the console's tail is shown" "$err" 'hello from machinen'

long=$scratch/$(printf 'd%.0s' {1..120})/$(printf 'e%.0s' {1..120})
MACHINEN_HOME=$long run machinen boot -- echo deep
is "a home deeper than a socket's address" "$out" deep

# The CLI dies in every way: the VM goes with it.
for sig in INT TERM HUP KILL; do
	machinen boot --name "by$sig" -- sleep 1000 &
	cli=$!
	eventually 10 machinen exec "by$sig" -- true
	vm=$(machinen list --json | jq ".vms[] | select(.name == \"by$sig\").pid")
	kill -$sig $cli
	wait $cli 2>/dev/null
	ok "VM ends after SIG$sig" eventually 5 vm_gone "$vm"
	machinen list >/dev/null
	is "SIG$sig leaves nothing" "$(left_behind)" ""
done
interrupted() { # signal: sent when the VMM runs
	FAKEVMM=mute machinen boot --name slow -- true 2>"$scratch/err" &
	local cli=$!
	eventually 10 machinen inspect slow
	kill -s "$1" $cli
	wait $cli
	status=$?
}
interrupted TERM
is "SIGTERM while booting: status" "$status" 143
is "and nothing left" "$(left_behind)" ""
is "and no word" "$(<"$scratch/err")" ""
machinen boot --name killed -- sleep 1000 &
cli=$!
eventually 10 machinen exec killed -- true
vm=$(machinen inspect killed --json | jq .pid)
kill -9 $cli
ok "killed with its CLI" eventually 10 vm_gone "$vm"
machinen boot -- true
is "the next boot takes away what it left" "$(left_behind)" ""
finish
