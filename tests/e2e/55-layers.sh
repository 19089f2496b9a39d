#!/bin/bash
# SPDX-License-Identifier: MIT
# A VM that is forked and snapshotted again and again: its chains of disk layers stay
# short, and whoever stands on the old ones - bundles, siblings - is not disturbed.
. "$(dirname "$0")/lib.sh"
need_base
rounds=${ROUNDS:-20}

in_vm() { machinen exec "$1" -- sh -c "$2"; }
said() { in_vm "$1" 'echo $(cat /root/said)'; }
said_until() { seq -s' ' 1 "$1"; }
# files of layers in a VM's directory
layers() { find "$MACHINEN_HOME/vms/$1" -name 'root.*.layer' | wc -l; }

machinen boot -d --timeout 300 --name src --memory 512 -- sleep 100000 >/dev/null
pid=$(machinen inspect src --json | jq .pid)
most=0 failed=''
for ((i = 1; i <= rounds; i++)); do
	# new bytes, old bytes changed, bytes given back
	in_vm src "echo $i >>/root/said; head -c 300000 /dev/urandom >/root/r$((i % 3))
		md5sum /root/r? >/root/sums; rm -f /root/gone; head -c 99999 /dev/zero >/root/gone; sync"
	if ((i % 5 == 0)); then
		machinen snapshot src "$scratch/b$i" --keep-alive >/dev/null || failed+=" snapshot-$i"
	else
		machinen fork src --new-name "f$i" -d >/dev/null || failed+=" fork-$i"
	fi
	[ $i = 3 ] || machinen stop --force "f$i" >/dev/null 2>&1
	n=$(layers "$pid")
	((n > most)) && most=$n
done
is "$rounds forks and snapshots of one VM" "$failed" ""
ok "never many layers at once (the most: $most)" test "$most" -le 14
is "the source has what it wrote" "$(said src)" "$(said_until "$rounds")"
ok "every byte of it" machinen exec src -- md5sum --quiet -c /root/sums
in_vm src 'echo 3 >/proc/sys/vm/drop_caches'
ok "also from the disk" machinen exec src -- md5sum --quiet -c /root/sums
is "a sibling from before has what it had" "$(said f3)" "1 2 3"
in_vm f3 'echo f3 >>/root/said; sync; echo 3 >/proc/sys/vm/drop_caches'
machinen stop --force src >/dev/null
ok "and goes on without the source" machinen exec f3 -- md5sum --quiet -c /root/sums
is "in files of its own" "$(said f3)" "1 2 3 f3"
for i in 5 "$rounds"; do
	machinen restore "$scratch/b$i" -d --name "r$i" >/dev/null
	in_vm "r$i" 'echo 3 >/proc/sys/vm/drop_caches'
	is "the bundle of round $i" "$(said "r$i")" "$(said_until "$i")"
	ok "every byte of it" machinen exec "r$i" -- md5sum --quiet -c /root/sums
	run machinen inspect "$scratch/b$i" --verify
	is "as it was written" "$status" 0
done
finish
