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
head -c 20M /dev/urandom >"$scratch/data"
run_in machinen exec web -- sha256sum <"$scratch/data"
is "stdin arrives" "$out" "$(sha256sum <"$scratch/data")"
run machinen exec web --tty -- sh -c 'stty size; test -t 0 && echo terminal'
like "a terminal" "$out" '^24 80.*terminal'
is "host name" "$(machinen exec web -- hostname)" web
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
like "logs" "$(machinen logs web)" 'started 1'
run "$O/tests/tool/libtool" secrets web KEY='a b=c' TOKEN=x
is "secrets are set" "$status$err" 0
run machinen exec web -- sh -c 'echo "$KEY"; cat /run/machinen/secrets; stat -c %a /run/machinen/secrets'
is "secrets: environment and file" "$out" $'a b=c\nKEY=a b=c\nTOKEN=x\n600'
run "$O/tests/tool/libtool" memory web
like "memory as the guest sees it" "$out" 'available [1-9][0-9]{6,}'
"$O/tests/tool/ptyplay" 24 80 machinen attach web >/dev/null 2>"$scratch/err" <<-'S'
	mode raw
	expect #
	send echo $((20+3)) on $TERM in $PWD; tty\r
	expect 23 on
	expect in /root
	expect /dev/pts/
	resize 40 100
	send stty size\r
	expect 40 100
	send sh -c 'echo re""ady; exec sleep 1000'\r
	expect ready
	send \x03
	expect #
	send echo was $?\r
	expect was 130
	send \x1d\x1d
	mode cooked
S
is "attach on a terminal" "$?$(<"$scratch/err")" 0
before=$(machinen exec web -- cut -d' ' -f1 /proc/uptime)
machinen pause web
is "paused" "$(machinen inspect web --json | jq -r .state)" paused
ok "what was interpreted, by cause" jq -e 'if .accel == "soft" then .counters.translator |
	.blocks > 1000 and .interpreted == ([.interpreted_by_cause[]] | add) else true end' \
	<<<"$(machinen inspect web --json)" >/dev/null
run machinen exec web --timeout 1 -- true
is "nothing runs in a paused VM" "$status" 1
machinen resume web
after=$(machinen exec web -- cut -d' ' -f1 /proc/uptime)
ok "it runs on" test "${after%.*}" -ge "${before%.*}"
vm=$(machinen inspect web --json | jq .pid)
run machinen exec web -- sh -c 'trap "" TERM; kill -9 -1; echo alive; exit 5'
is "what kills everything is still heard" "$status $out" "5 alive"
ok "and with CMD the VM ended" eventually 10 vm_gone "$vm"
machinen boot -d --timeout 300 --name two -- sleep infinity >/dev/null
vm=$(machinen inspect two --json | jq .pid)
run machinen stop two
is "stop" "$status" 0
ok "it is gone" vm_gone "$vm"
machinen boot --timeout 300 --name fg -- sleep infinity &
cli=$!
eventually 300 machinen exec fg -- true
vm=$(machinen inspect fg --json | jq .pid)
kill -9 $cli
ok "a foreground VM dies with kill -9 of its CLI" eventually 10 vm_gone "$vm"
machinen list >/dev/null
is "nothing left" "$(find "$MACHINEN_HOME/vms" -mindepth 1 ! -name .lock ! -name names)" ""
finish
