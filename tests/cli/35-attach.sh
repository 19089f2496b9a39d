#!/bin/bash
# SPDX-License-Identifier: MIT
# attach, and other commands on a terminal: a pty types and looks.
. "$(dirname "$0")/lib.sh"

play() { # command... <script; 24 lines of 80
	"$O/tests/tool/ptyplay" 24 80 "$@" >/dev/null 2>"$scratch/err"
	status=$?
	[ $status = 99 ] && diag <"$scratch/err"
}

run machinen boot -d --name web -- sleep 1000
attach=(machinen attach web --shell 'PS1="> " exec bash --norc --noprofile -i')

play "${attach[@]}" <<-'S'
	mode raw
	expect >
	send echo $((20+3))typed\r
	expect 23typed
	send stty size\r
	expect 24 80
	resize 31 99
	send stty size\r
	expect 31 99
	send exit 4\r
	mode cooked
S
is "typing, resize, exit's status" "$status" 4

play "${attach[@]}" <<-'S'
	expect >
	send sh -c 'echo re""ady; exec sleep 1000'\r
	expect ready
	send \x03
	expect >
	send echo it was $?\r
	expect it was 130
	expect >
	send (exit 5)\r
	expect >
	send \x04
	mode cooked
S
is "Ctrl-C goes to the guest, Ctrl-D ends" "$status" 5

play "${attach[@]}" <<-'S'
	expect >
	send echo re""ady; cat\r
	expect ready
	send one\x1dtwo\r
	expect one\x1dtwo
	send \x1d
	send x\x1d
	send y\x1d\x1d
	expect left; the VM runs on
	mode cooked
S
is "Ctrl-] Ctrl-] leaves" "$status" 0

play machinen attach web --shell \
	"trap 'echo gone >$scratch/hup; exit' HUP; echo ready; while :; do sleep 0.05; done" <<-S
	expect ready
	hangup
S
ok "a terminal that hangs up is SIGHUP in the guest" eventually 10 test -s "$scratch/hup"
is "and ends attach" "$status" 129
play machinen attach web --shell "trap '' HUP; echo ready; sleep 1000" <<-S
	expect ready
	hangup
S
is "also of a command that does not mind" "$status" 129

play machinen attach web --tail 3 --shell 'echo sh""ell' <<-'S'
	expect fake kernel
	expect shell
S
is "--tail prints the console first" "$status" 0
play machinen attach nope <<-'S'
	expect REGISTRY_VM_NOT_FOUND
S
is "no such VM" "$status" 1

play machinen exec --tty web -- sh -c 'stty size; echo $TERM; read x; echo "<$x>"; exit 6' <<-'S'
	expect 24 80
	send a b\r
	expect <a b>
S
is "exec --tty" "$status" 6
play machinen exec web -- sh -c 'trap "exit 7" INT; echo ready; while :; do sleep 0.05; done' <<-'S'
	expect ready
	send \x03
S
is "Ctrl-C of exec without a terminal" "$status" 7
play machinen repl web <<-'S'
	expect web> 
	send echo $((1+1))two\r
	expect 2two
	send false\r
	expect (status 1)
	expect web> 
	send \x04
S
is "repl on a terminal" "$status" 1
play machinen boot -- sh -c 'stty size; test -t 2 && echo te""rm; read x; exit 8' <<-'S'
	expect 24 80
	expect term
	send \r
	mode cooked
S
is "boot gives CMD the terminal" "$status" 8
play machinen boot --name hup -- sh -c 'echo re""ady; sleep 1000' <<-'S'
	expect ready
	hangup
S
ok "a foreground VM dies with the terminal" eventually 10 \
	sh -c 'machinen ls | grep -q hup && exit 1 || exit 0'
machinen boot -d --name a/very/long/name/that/needs/a/lot/of/room/on/the/line -- sleep 1000 >/dev/null
"$O/tests/tool/ptyplay" 24 50 machinen ls </dev/null 2>&1 | tr -d '\r' >"$scratch/narrow"
ok "list fits a narrow terminal" test "$(wc -L <"$scratch/narrow")" -le 50
machinen stop web a/very/long/name/that/needs/a/lot/of/room/on/the/line >/dev/null
is "nothing left" "$(left_behind)" ""
finish
