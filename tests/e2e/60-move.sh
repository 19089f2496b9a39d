#!/bin/bash
# SPDX-License-Identifier: MIT
# Moves between CPU backends: KVM, the software CPU, KVM again, by bundles and by
# fork, under a program that computes in registers (guest/mover.c) and a counter.
# Without KVM all of it happens on the software CPU.
. "$(dirname "$0")/lib.sh"
need_base
in_vm() { machinen exec "$1" -- sh -c "$2"; }
backend_of() { machinen inspect "$1" --json | jq -r .accel; }

# Bundles move within CPU models of the same features; portable is the same everywhere.
kvm=soft
kvm_works && kvm=kvm

# --accel
if [ $kvm = soft ]; then
	like "doctor says in a line why KVM is not used" "$reason" '^KVM cannot run guests here: .+$'
	run machinen boot --accel kvm -- true
	like "--accel kvm is refused" "$err" BOOT_ACCEL_UNAVAILABLE
	ok "with that reason" grep -qF "${reason#*: }" <<<"$err"
else
	is "doctor says that KVM works" "$reason" "KVM runs guests"
fi
run machinen boot -d --timeout 300 --name m --memory 512 --accel $kvm -- sleep infinity
is "boot" "$status$err" 0
is "on that backend" "$(backend_of m)" $kvm
[ -s "$MACHINEN_HOME/kvm-verdict" ]
tap $? "what the probe found is kept"
is "for nobody else to write" "$(stat -c %a "$MACHINEN_HOME/kvm-verdict")" 600

# rounds NAME: what the program says; it goes on when that grows
rounds() { in_vm "$1" 'echo $(cat /root/rounds)'; }
went_on() { # name rounds
	local now
	now=$(rounds "$1")
	[[ $now =~ ^[0-9]+$ ]] && ((now > $2))
}
computes() { # what name: three looks at it, some rounds apart
	local n i
	for i in 1 2 3; do
		n=$(rounds "$2")
		[[ $n =~ ^[0-9]+$ ]] && eventually 60 went_on "$2" "$n" || {
			tap 1 "$1"
			rounds "$2" | diag
			return
		}
	done
	tap 0 "$1"
}
machinen cp "$O/tests/guest/mover" m:/root/mover
in_vm m 'setsid /root/mover /root/rounds </dev/null >/dev/null 2>&1 &'
eventually 30 went_on m 0
in_vm m 'exec 9>/root/count; setsid sh -c "i=0; while :; do i=\$((i + 1)); echo \$i >&9; sleep 0.02; done" </dev/null >/dev/null 2>&1 &'
count() { in_vm "$1" 'tail -n 1 /root/count'; }

computes "$kvm: the program computes" m
from=m
hop=0
for to in soft $kvm; do
	hop=$((hop + 1))
	before=$(rounds $from) counted=$(count $from) was=$(backend_of $from)
	[[ $before =~ ^[0-9]+$ ]] || before=0	# it says what is wrong: told already
	run machinen snapshot $from "$scratch/hop$hop"
	is "snapshot on $was" "$status$err" 0
	run machinen restore "$scratch/hop$hop" -d --name "m$hop" --accel $to --timeout 120
	is "restore on $to" "$status$err" 0
	from=m$hop
	is "it runs on $to" "$(backend_of $from)" $to
	ok "$to: the program went on" went_on $from $((before - 1))
	computes "$to: and computes right" $from
	now=$(count $from)
	ok "$to: the counter goes on" test "$now" -ge "$counted"
	is "$to: without a gap" "$(in_vm $from 'seq $(tail -n 1 /root/count) | cmp - /root/count 2>&1 | head -n 1 | grep -v EOF')" ""
done
run machinen fork $from -d --new-name forked
is "fork" "$status$err" 0
is "has the source's backend" "$(backend_of forked)" $kvm
computes "the fork computes" forked
computes "and so does its source" $from
finish
