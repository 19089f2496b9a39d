#!/bin/bash
# SPDX-License-Identifier: MIT
# The daily loop on a real guest: boot -d, exec, logs, pause, stop.
. "$(dirname "$0")/lib.sh"
need_base

run machinen boot -d --timeout 300 --name web --env A=1 -- sh -c 'echo started $A; exec sleep infinity'
is "boot -d" "$status" 0
run machinen ls
like "ls" "$out" ' web '
run machinen exec web -- sh -c 'echo out; echo err >&2; exit 3'
is "exec: status" "$status" 3
is "exec: stdout" "$out" out
is "exec: stderr" "$err" err
head -c 1000000 /dev/urandom >"$scratch/data"
run_in machinen exec web -- sha256sum <"$scratch/data"
is "stdin arrives" "$out" "$(sha256sum <"$scratch/data")"
run machinen exec web --tty -- sh -c 'stty size; test -t 0 && echo terminal'
like "a terminal" "$out" '^24 80.*terminal'
is "host name" "$(machinen exec web -- hostname)" web
pids=() bad=0
for i in $(seq 20); do
	machinen exec web -- sh -c "exit $i" &
	pids+=($!)
done
for i in $(seq 20); do
	wait "${pids[i - 1]}"
	[ $? = "$i" ] || bad=$((bad + 1))
done
is "20 at once" "$bad" 0
like "logs" "$(machinen logs web)" 'started 1'
before=$(machinen exec web -- cut -d' ' -f1 /proc/uptime)
machinen pause web
is "paused" "$(machinen inspect web --json | jq -r .state)" paused
run machinen exec web --timeout 1 -- true
is "nothing runs in a paused VM" "$status" 1
machinen resume web
after=$(machinen exec web -- cut -d' ' -f1 /proc/uptime)
ok "it runs on" test "${after%.*}" -ge "${before%.*}"
run machinen exec web -- kill -9 -1
ok "the agent survives kill -9 -1" eventually 10 machinen list
machinen boot -d --timeout 300 --name two -- sleep infinity >/dev/null
vm=$(machinen inspect two --json | jq .pid)
run machinen stop two
is "stop" "$status" 0
ok "it is gone" vm_gone "$vm"
machinen stop web >/dev/null 2>&1
machinen boot --timeout 300 --name fg -- sleep infinity &
cli=$!
eventually 300 machinen exec fg -- true
vm=$(machinen inspect fg --json | jq .pid)
kill -9 $cli
ok "a foreground VM dies with kill -9 of its CLI" eventually 10 vm_gone "$vm"
machinen list >/dev/null
is "nothing left" "$(find "$MACHINEN_HOME/vms" -mindepth 1 ! -name .lock ! -name names)" ""
finish
