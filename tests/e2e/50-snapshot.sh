#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshot, restore, fork: a counter in the guest's memory goes on in all of them,
# and none of them sees what the others do.
. "$(dirname "$0")/lib.sh"
need_base
elsewhere=$scratch/elsewhere
bundle=$scratch/c.snap

cat >"$scratch/counter.pl" <<'PERL'
use IO::Socket::INET;
open my $r, "<", "/dev/urandom"; sysread $r, my $seen, 16;
my $n = 0;
my $s = IO::Socket::INET->new(LocalPort => 3000, Listen => 16, ReuseAddr => 1) or die;
while (my $c = $s->accept) {
	while (my $l = <$c>) { last if $l =~ /^\r?\n$/ }
	$n++;
	print $c "HTTP/1.0 200 OK\r\nContent-Length: ", length("$n\n"), "\r\n\r\n$n\n";
	close $c;
}
PERL

count() { machinen exec "$1" -- curl -s localhost:3000; }
in_vm() { machinen exec "$1" -- sh -c "$2"; }
away() { # command... in another machinen home
	MACHINEN_HOME=$elsewhere "$@"
}
stop_away() {
	local pid
	for pid in "$elsewhere"/vms/[0-9]*; do
		[ -e "$pid" ] && away machinen stop --force "${pid##*/}" >/dev/null 2>&1
	done
	cleanup
}
trap stop_away EXIT
uptime_of() { machinen exec "$1" -- cut -d' ' -f1 /proc/uptime; }
holds() { awk "BEGIN { exit !($1) }"; }		# an expression of awk's
clock_near() { # command that prints the guest's date
	local before guest
	before=$(date +%s.%N)
	guest=$("$@" date +%s.%N)
	holds "$guest > $before - 0.2 && $guest < $(date +%s.%N) + 0.2" ||
		! echo "# guest $guest, host $before"
}

machinen boot -d --timeout 300 --name counter --memory 512 -- \
	sh -c 'mkfifo /run/end; read said </run/end; echo "main: $said"; exit 9' >/dev/null
machinen cp "$scratch/counter.pl" counter:/root/counter.pl
in_vm counter 'setsid perl /root/counter.pl </dev/null >/dev/null 2>&1 &'
eventually 30 count counter
first=$(count counter)
in_vm counter 'echo source >/root/f'		# not flushed: it must travel all the same

# fork, while a command of the source runs
machinen exec counter -- sh -c 'echo begins; sleep 1; echo ends; exit 7' >"$scratch/running" &
running=$!
eventually 10 grep -q begins "$scratch/running"
before=$(uptime_of counter) wall=$EPOCHREALTIME
run machinen fork counter --new-name b --detach --json
after=$(uptime_of b)
ok "monotonic time goes on in the fork" holds \
	"$after >= $before && $after - $before < $EPOCHREALTIME - $wall + 0.3"
wait $running
is "a running exec carries on in the source" "$? $(paste -sd' ' "$scratch/running")" \
	"7 begins ends"
ok "the clock of the fork" clock_near machinen exec b --
is "fork" "$status" 0
is "fork --json: name" "$(jq -r .name <<<"$out")" b
is "fork --json: phases" "$(jq '.phases.pause > 0 and .phases.thaw > 0' <<<"$out")" true
is "the counter goes on in the fork" "$(count b)" $((first + 1))
is "and in the source" "$(count counter)" $((first + 1))
in_vm b 'echo b >>/root/f; sync'
in_vm counter 'echo counter >>/root/f; sync'
is "disk of the fork" "$(in_vm b 'echo $(cat /root/f)')" "source b"
is "disk of the source" "$(in_vm counter 'echo $(cat /root/f)')" "source counter"
is "host name of the fork" "$(machinen exec b -- hostname)" b
like "list" "$(machinen ls)" ' b .* counter'
for i in 1 2 3 4 5; do
	machinen fork counter --new-name "fan$i" -d >/dev/null &
done
wait
fan='' seen=''
for i in 1 2 3 4 5; do
	seen+=" $(in_vm "fan$i" "head -c16 /dev/urandom | od -An -tx8 | tr -d ' '")"
	fan+=" $(count "fan$i")"
	machinen stop --force "fan$i" >/dev/null
done
n=$((first + 2))
is "five forks at once, all count" "$fan" " $n $n $n $n $n"
is "five draws of random bytes" "$(tr ' ' '\n' <<<"$seen" | sort -u | grep -c '^[0-9a-f]\{32\}$')" 5
joined() { # home name command...: it is there, then is told to end
	local home=$1 name=$2 pid
	shift 2
	MACHINEN_HOME=$home "$@" >"$scratch/joined" 2>&1 </dev/null &
	pid=$!
	MACHINEN_HOME=$home eventually 10 machinen exec "$name" -- \
		sh -c 'sleep 0.3; echo it ends >/run/end'		# the join is not to be seen
	wait $pid
	echo "$? $(cat "$scratch/joined")"
}
is "a foreground fork ends as the main command does" \
	"$(joined "$MACHINEN_HOME" fg machinen fork counter --new-name fg)" "9 main: it ends"
run machinen fork b -d
like "a fork of a fork, its name" "$out" '^b/[0-9]+$'
is "it counts" "$(count "$out")" $((first + 2))
machinen stop --force "$out" >/dev/null
run machinen fork counter --new-name b -d
like "a name that is taken" "$err" REGISTRY_NAME_IN_USE

# snapshot
run machinen snapshot counter "$bundle" --dry-run
is "snapshot --dry-run" "$status" 0
ok "changes nothing" test ! -e "$bundle"
run machinen snapshot counter "$bundle.keep" --keep-alive
is "snapshot --keep-alive" "$status" 0
is "the source goes on" "$(count counter)" $((first + 2))
run machinen snapshot counter "$bundle.keep"
like "OUTDIR is not empty" "$err" SNAPSHOT_DUMP_FAILED
is "the source went on" "$(count counter)" $((first + 3))
mkdir "$bundle"
in_vm counter 'up() { cut -d" " -f1 /proc/uptime; }
	(trap "" HUP; up >/root/t0; sleep 5; up >/root/t1) </dev/null >/dev/null 2>&1 &
	until [ -s /root/t0 ]; do sleep 0.05; done'
run machinen snapshot counter "$bundle" --json
is "snapshot into an empty directory" "$status" 0
is "it stopped" "$(jq -r .stopped <<<"$out")" true
like "the source is gone" "$(machinen exec counter -- true 2>&1)" REGISTRY_VM_NOT_FOUND
is "nothing half-made is left" "$(find "$scratch" -maxdepth 1 -name '.*partial*')" ""
run machinen inspect "$bundle" --verify --json
is "inspect --verify" "$(jq -r '.verified, .source.name' <<<"$out" | paste -sd' ')" "true counter"

# restore, elsewhere, three at once
for i in 1 2 3; do
	MACHINEN_ASSETS_DIR='' away machinen restore "$bundle" -d --name "r$i" >/dev/null &
done
wait
for i in 1 2 3; do
	is "r$i goes on" "$(away count "r$i")" $((first + 4))
	is "r$i has the disk" "$(away in_vm "r$i" "echo r$i >>/root/f; sync; echo \$(cat /root/f)")" \
		"source counter r$i"
done
random() { away in_vm "$1" 'head -c16 /dev/urandom | od -An -tx8'; }
ok "random bytes differ" test "$(random r1)" != "$(random r2)"
mac() { away in_vm "$1" 'cat /sys/class/net/eth0/address'; }
ok "MAC addresses differ" test "$(mac r1)" != "$(mac r2)"
is "host names differ" "$(away machinen exec r3 -- hostname)" r3
ok "the clock is right" clock_near away machinen exec r1 --
away machinen exec r1 -- touch /root/only-r1
ok "disks are separate" test "$(away in_vm r2 'ls /root/only-r1 2>&1 | grep -c cannot')" = 1
run away machinen restore "$bundle.keep" -d
like "default name" "$out" '^counter/[0-9]+$'
is "an older bundle counts from where it was" "$(away count "$out")" $((first + 2))

is "a foreground restore likewise" \
	"$(joined "$elsewhere" fg machinen restore "$bundle" --name fg)" "9 main: it ends"

run away machinen restore "$bundle" -d --name served -p 0:3000
port=$(away machinen inspect served --json | jq -r '.ports[0].host_port')
ok "a server that only waits is reached" eventually 10 curl -s -m 2 -o /dev/null "localhost:$port"
# this one was restored seconds after the snapshot, of which its sleep knows nothing
ok "a sleep goes on after the restore" eventually 8 away machinen exec served -- test -s /root/t1
slept=$(away in_vm served 'echo $(cat /root/t1) - $(cat /root/t0)')
ok "and lasts as long as it should" holds "$slept >= 4.98 && $slept < 5 + 0.6 * ${TEST_SLOW:-1}"

# refusals
cp -r "$bundle.keep" "$scratch/bad"
jq '.format_version = 99' "$bundle.keep/meta.json" >"$scratch/bad/meta.json"
run machinen restore "$scratch/bad" -d --json
is "another version" "$(jq -r .error.code <<<"$out")" SNAPSHOT_VERSION
jq '.memory_mib = 99' "$bundle.keep/meta.json" >"$scratch/bad/meta.json"
run machinen restore "$scratch/bad" -d
like "a changed meta.json" "$err" SNAPSHOT_DAMAGED
cp "$bundle.keep/meta.json" "$scratch/bad/meta.json"
printf x | dd of="$scratch/bad/state" bs=1 seek=300 conv=notrunc 2>/dev/null
run machinen restore "$scratch/bad" -d
like "a changed state" "$err" 'SNAPSHOT_DAMAGED.*file state'
cp "$bundle.keep/state" "$scratch/bad/state"
printf x | dd of="$scratch/bad/memory" bs=1 seek=16777216 conv=notrunc 2>/dev/null
run machinen inspect "$scratch/bad" --verify
like "changed memory, by inspect --verify" "$err" SNAPSHOT_DAMAGED
truncate -s 4096 "$scratch/bad/memory"
run machinen restore "$scratch/bad" -d
like "memory cut short" "$err" 'SNAPSHOT_DAMAGED.*file memory'
run machinen restore "$scratch/nothing" -d
like "no bundle" "$err" BOOT_SNAPSHOT_NOT_FOUND
is "nothing of them runs" "$(machinen ls --json | jq '[.vms[].name] | length')" 1
finish
