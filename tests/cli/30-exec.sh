#!/bin/bash
# SPDX-License-Identifier: MIT
# exec, attach, repl: streams, statuses, signals, terminals.
. "$(dirname "$0")/lib.sh"

run machinen boot -d --name web --env A=1 -- sleep 1000
is "detached boot names the VM" "$out" web
run machinen exec web -- sh -c 'echo out; echo err >&2; exit 3'
is "status" "$status" 3
is "stdout" "$out" out
is "stderr" "$err" err
run machinen exec web -- sh -c 'echo $A$B' --env B=1
is "environment of the VM" "$out" 1
run machinen exec --env B=2 web -- sh -c 'echo $A$B'
is "environment of the command" "$out" 12
run machinen exec web --cwd /usr -- pwd
is "directory" "$out" /usr

head -c 30000000 /dev/urandom >"$scratch/data"
want=$(sha256sum <"$scratch/data")
run_in machinen exec web -- sha256sum <"$scratch/data"
is "30 MB of stdin arrive" "$out" "$want"
machinen exec web -- cat <"$scratch/data" >"$scratch/back"
is "30 MB there and back" "$(sha256sum <"$scratch/back")" "$want"
run machinen exec web -- cat
is "empty stdin" "$status" 0
run_in machinen exec web -- true < <(yes)
is "a command that takes no stdin ends" "$status" 0

pids=() bad=0
for i in $(seq 50); do
	machinen exec web -- sh -c "exit $i" &
	pids+=($!)
done
for i in $(seq 50); do
	wait "${pids[i - 1]}"
	[ $? = "$i" ] || bad=$((bad + 1))
done
is "50 at once" "$bad" 0

run machinen exec web --timeout 1 -- sleep 100
is "timeout: status" "$status" 1
like "timeout: code" "$err" 'machinen: \(EXEC_TIMEOUT\)'
run timeout --preserve-status -s INT 1 machinen exec web -- sh -c 'trap "exit 9" INT; while :; do sleep 0.1; done'
is "SIGINT reaches the command" "$status" 9
run machinen exec web -- echo a $'\xff' b
is "a word that cannot be sent: nothing runs" "$status$out" 1
like "and it is said" "$err" 'machinen: \(EXEC_PROTOCOL\): .*UTF-8'
run machinen exec nope -- true
like "no such VM" "$err" 'REGISTRY_VM_NOT_FOUND'
run machinen exec wbe -- true
like "a near name" "$err" 'did you mean "web"'

run machinen exec web -- sh -c 'test -t 0 || echo pipe'
is "no terminal without --tty" "$out" pipe
run_in machinen repl web <<<$'echo one\nfalse\n\necho two; exit 5'
is "repl: output" "$out" $'one\ntwo'
is "repl: last status" "$status" 5
run machinen attach web
is "attach needs a terminal" "$status" 2
machinen stop web >/dev/null
run machinen exec web -- true
like "gone after stop" "$err" 'REGISTRY_VM_NOT_FOUND'
finish
