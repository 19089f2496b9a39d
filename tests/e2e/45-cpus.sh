#!/bin/bash
# SPDX-License-Identifier: MIT
# A VM of two CPUs: both run, are saved, restored and forked.  One backend has several;
# the other one says that it has not.
. "$(dirname "$0")/lib.sh"
need_base

run machinen boot --accel soft --cpus 2 -- true
like "the software CPU has one" "$status $err" '^1 machinen: \(BOOT_ACCEL_UNAVAILABLE\).*more need KVM'
kvm_works || finish

in_vm() { machinen exec "$1" -- sh -c "$2"; }
counts() { in_vm "$1" 'tail -qn 1 /root/count.0 /root/count.1'; }
# both_grow NAME FROM: each CPU's counter is past what FROM says
both_grow() {
	local now was i
	mapfile -t now < <(counts "$1" 2>&1)
	mapfile -t was <<<"$2"
	for i in 0 1; do
		[[ ${now[i]:-} =~ ^[0-9]+$ ]] && ((now[i] > was[i])) && continue
		printf '%s\n' "${now[@]}" >"$scratch/counts"
		return 1
	done
}
both_go_on() { # what name from
	eventually 60 both_grow "$2" "$3"
	local grew=$?
	tap $grew "$1"
	((grew == 0)) || diag <"$scratch/counts"
}

run machinen boot --accel kvm --cpus 2 --timeout 300 -- nproc
is "boot" "$status $out $err" "0 2 "
run machinen boot -d --accel kvm --cpus 2 --memory 512 --timeout 300 --name two -- sleep infinity
is "boot -d" "$status$err" 0
is "inspect" "$(machinen inspect two --json | jq .cpus)" 2
# a counter held on each, asleep now and then: its timer is that CPU's own
in_vm two 'for c in 0 1; do
	setsid taskset $((1 << c)) sh -c "i=0; while :; do
		i=\$((i + 1)); echo \$i; sleep 0.02; done" >/root/count.$c 2>&1 </dev/null &
	echo $! >/root/pid.$c
done'
both_go_on "each CPU counts" two $'1\n1'
is "on its own" "$(in_vm two 'for c in 0 1; do
	taskset -p $(cat /root/pid.$c); done | sed "s/.*: //"' | paste -sd' ')" "1 2"

before=$(counts two)
run machinen fork two -d --new-name forked
is "fork" "$status$err" 0
is "the fork holds no CPU of the source's" \
	"$(grep -c kvm-vcpu "/proc/$(machinen inspect forked --json | jq .pid)/maps")" 2
both_go_on "both go on in the fork" forked "$before"
both_go_on "and in the source" two "$before"
machinen stop --force forked >/dev/null

before=$(counts two)
run machinen snapshot two "$scratch/two.snap"
is "snapshot" "$status$err" 0
run machinen restore "$scratch/two.snap" -d --accel soft --name none
like "it does not fit into the software CPU" "$status $err" '^1 .*BOOT_ACCEL_UNAVAILABLE'
is "as inspect says" "$(machinen inspect "$scratch/two.snap" --json |
	jq -r '.restorable.backends[] | select(.name == "soft").ok')" false
run machinen restore "$scratch/two.snap" -d --name again --timeout 120
is "restore" "$status$err" 0
both_go_on "both go on after it" again "$before"
is "their clocks agree" "$(in_vm again 'last=0; for i in $(seq 20); do
	now=$(taskset $((1 << i % 2)) cut -d" " -f1 /proc/uptime | tr -d .)
	[ $now -ge $last ] || echo back from $last to $now; last=$now; done')" ""
is "and nothing is stuck" "$(in_vm again 'dmesg | grep -v "default tracing clock" |
	grep -iE "lockup|stall|unstable|hung"')" ""
finish
