#!/bin/bash
# SPDX-License-Identifier: MIT
# list, inspect, logs, pause, resume, stop, gc: text, JSON, effects.
. "$(dirname "$0")/lib.sh"

run machinen list
is "empty list" "$out" "(no running VMs)"
run machinen list --json
is "empty JSON list" "$(jq -c . <<<"$out")" '{"schema_version":1,"ok":true,"vms":[]}'

run machinen boot -d --json --name a/b -- sh -c 'echo line one; echo line two; sleep 1000'
pid=$(jq .pid <<<"$out")
is "boot --json" "$(jq -r .name <<<"$out")" a/b
machinen boot -d -- sleep 1000 >"$scratch/unnamed"
run machinen ls
like "list has a head" "$out" '^PID +NAME +UP +MEM +PORTS +FORKED-FROM'
like "list has the VM" "$out" "$pid +a/b "
run machinen ps --json
is "two VMs" "$(jq '.vms | length' <<<"$out")" 2
is "fields" "$(jq -r ".vms[] | select(.pid == $pid) | [.name, .state, .accel, (.uptime_ms >= 0), (.memory.ceiling_mib >= 512), .forked_from] | @tsv" <<<"$out")" \
	$'a/b\trunning\tsoft\ttrue\ttrue\t'
run machinen pause a/b
is "pause" "$status" 0
is "paused" "$(machinen inspect a/b --json | jq -r .state)" paused
machinen resume "$pid"
is "running again" "$(machinen inspect "$pid" --json | jq -r .state)" running
is "kept private" "$(stat -c %a "$MACHINEN_HOME/vms/$pid")" 700
is "sockets kept private" "$(stat -c %a "$MACHINEN_HOME/vms/$pid"/{control,agent} | sort -u)" 600

ok "CMD's output is in the log" eventually 5 sh -c 'machinen logs a/b | grep -q "line two"'
run machinen logs a/b --tail 1
is "logs --tail 1" "$out" "line two"
run machinen logs -n2 a/b
is "logs -n2" "$out" $'line one\nline two'
machinen logs -f a/b >"$scratch/follow" &
follower=$!
ok "logs -f prints what is there" eventually 5 grep -q 'line two' "$scratch/follow"

run machinen stop --dry-run a/b --json
is "stop --dry-run" "$(jq -r '.results[0].outcome' <<<"$out")" would_stop
is "it runs still" "$(machinen list --json | jq '.vms | length')" 2
run machinen boot --name a/b -- true
like "name in use" "$err" "REGISTRY_NAME_IN_USE.*$pid"
run machinen stop a/b "$(cat "$scratch/unnamed")" --json
is "stop: outcomes" "$(jq -r '[.results[].outcome] | @tsv' <<<"$out")" $'stopped\tstopped'
is "stop leaves nothing" "$(left_behind)" ""
wait $follower
is "logs -f ends with the VM" $? 0
run machinen stop a/b
is "stop of nothing fails" "$status" 1
run machinen stop a/b --json
is "stop of nothing, JSON" "$(jq -r '[.ok, .error.code] | @tsv' <<<"$out")" \
	$'false\tREGISTRY_VM_NOT_FOUND'

FAKEVMM=stubborn machinen boot -d --name mule -- sleep 1000 >/dev/null
pid=$(machinen inspect mule --json | jq .pid)
run machinen stop --force mule
ok "stop --force" vm_gone "$pid"

machinen boot -d --name dead -- sleep 1000 >/dev/null
pid=$(machinen inspect dead --json | jq .pid)
kill -9 "$pid"
eventually 5 vm_gone "$pid"
run machinen gc --dry-run
like "gc --dry-run tells" "$out" "would remove .*/vms/$pid"
ok "and removes nothing" test -d "$MACHINEN_HOME/vms/$pid"
run machinen gc --json
is "gc --json" "$(jq -r '[.ok, .removed[0].what] | @tsv' <<<"$out")" $'true\tvm'
is "gc leaves nothing" "$(left_behind)" ""
run machinen gc
is "nothing to do" "$out" "nothing to remove"

# Many at once under one name: exactly one wins.
for i in $(seq 12); do
	machinen boot -d --name race -- sleep 1000 >"$scratch/race.$i" 2>&1 &
done
wait $(jobs -p)
is "one of twelve wins" "$(grep -lx race "$scratch"/race.* | wc -l)" 1
is "the others are told" "$(grep -l REGISTRY_NAME_IN_USE "$scratch"/race.* | wc -l)" 11
machinen stop race >/dev/null
is "losers leave nothing" "$(left_behind)" ""
finish
