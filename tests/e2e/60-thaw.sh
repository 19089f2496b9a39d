#!/bin/bash
# SPDX-License-Identifier: MIT
# What a guest notices when it wakes in another VM: the right time, other randomness,
# another name on the network, its listening sockets but not the source's connections.
# Chains and fans of forks, and what happens at the same time.
. "$(dirname "$0")/lib.sh"
need_base

in_vm() { machinen exec "$1" -- sh -c "$2"; }
holds() { awk "BEGIN { exit !($1) }"; }

# Everything is in one guest program, so that one boot is enough:
#	random	asked getrandom before the snapshot, draws again at each request
#	talk	a connection to the host, made before the snapshot, that counts
#	listen	answers on port 3000
cat >"$scratch/past.pl" <<'PERL'
use IO::Socket::INET;
use IO::Select;
sub draw { my $b = "\0" x 16; syscall(318, $b, 16, 0) == 16 or die; unpack "H*", $b }
my ($port) = @ARGV;
my $before = draw();
my $out = IO::Socket::INET->new("10.0.2.2:$port") or die "no connection: $!";
my $in = IO::Socket::INET->new(LocalPort => 3000, Listen => 16, ReuseAddr => 1) or die;
my %say = (
	random => sub { draw() },
	talk => sub {
		print $out "more\n"; $out->flush;
		my $l = IO::Select->new($out)->can_read(5) ? <$out> : "nothing\n";
		defined $l ? $l : "closed $!\n";
	},
);
$SIG{PIPE} = "IGNORE";
open my $f, ">", "/run/past"; print $f "ready\n"; close $f;
while (my $c = $in->accept) {
	my $l = <$c>; chomp $l;
	print $c $say{$l} ? $say{$l}->() : "?", "\n";
	close $c;
}
PERL
cat >"$scratch/host.pl" <<'PERL'
# Numbers the lines of each connection.
use IO::Socket::INET;
use IO::Select;
my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 16) or die;
$| = 1; print $s->sockport, "\n";
my ($sel, %n) = (IO::Select->new($s));
while (1) {
	for my $c ($sel->can_read) {
		if ($c == $s) { my $new = $s->accept; $sel->add($new); next }
		my $l;
		unless (sysread $c, $l, 100) { $sel->remove($c); close $c; next }
		syswrite $c, "line " . ++$n{$c} . "\n";
	}
}
PERL
perl "$scratch/host.pl" >"$scratch/port" &
host=$!
# the VMs, then the server, then the files
trap 'kill $host; cleanup' EXIT
eventually 10 test -s "$scratch/port"
ask() { # vm what
	machinen exec "$1" -- perl -MIO::Socket::INET -e '
		my $s = IO::Socket::INET->new("localhost:3000") or die;
		print $s "'"$2"'\n"; print <$s>' | head -1
}

machinen boot -d --timeout 300 --name src --memory 512 --net-host-loopback -- \
	sleep 100000 >/dev/null
machinen cp "$scratch/past.pl" src:/root/past.pl
in_vm src "setsid perl /root/past.pl $(<"$scratch/port") </dev/null >/run/said 2>&1 &"
ok "the guest is prepared" eventually 20 machinen exec src -- test -e /run/past
is "a connection to the host" "$(ask src talk)" "line 1"

# the clock: as far from the host's as is known, by asking in between
clock_off() { # vm: milliseconds, at most
	local before guest
	before=$EPOCHREALTIME
	guest=$(machinen exec "$1" -- date +%s.%N)
	awk "BEGIN { lo = $guest - $EPOCHREALTIME; hi = $guest - $before
		print int(1000 * (lo > 0 ? lo : hi < 0 ? -hi : 0)) }"
}
# two clocks at one moment
clocks() { machinen exec "$1" -- perl -MTime::HiRes=clock_gettime,CLOCK_MONOTONIC,CLOCK_REALTIME \
	-e 'printf "%.6f %.6f\n", clock_gettime(CLOCK_MONOTONIC), clock_gettime(CLOCK_REALTIME)'; }
read -r mono0 wall0 <<<"$(clocks src)"
in_vm src '(trap "" HUP; s=$(cut -d" " -f1 /proc/uptime); sleep 3
	echo "$(cut -d" " -f1 /proc/uptime) - $s" >/root/slept) </dev/null >/dev/null 2>&1 &'
machinen exec src -- sh -c 'echo begins; sleep 2; echo ends; exit 7' >"$scratch/running" &
running=$!
eventually 10 grep -q begins "$scratch/running"
# somebody outside is connected to the guest's server, which waits for what he says
machinen port add src 0:3000 >"$scratch/forward"
exec 5<>"/dev/tcp/127.0.0.1/$(sed 's/.*:\([0-9]*\) ->.*/\1/' "$scratch/forward")"
from_outside() { in_vm "$1" 'grep -c ":0BB8 .* 01 " /proc/net/tcp'; }
ok "a connection from outside" eventually 10 eval '[ "$(from_outside src)" = 1 ]'

machinen snapshot src "$scratch/b" --keep-alive >/dev/null
machinen fork src --new-name one -d >/dev/null &
machinen fork src --new-name two -d >/dev/null &
wait %3 %4
machinen restore "$scratch/b" --name back -d >/dev/null

wait $running
is "a running exec carries on in the source" "$? $(paste -sd' ' "$scratch/running")" "7 begins ends"
for vm in one back; do
	is "and is closed in $vm" "$(in_vm $vm 'pgrep -fc "[e]cho begins; sleep 2"')" 0
	ok "the clock of $vm is within 50 ms" test "$(clock_off $vm)" -le 50
	read -r mono wall <<<"$(clocks $vm)"
	# the time in which it was no VM is missing in the one, but not in the other
	ok "monotonic time of $vm is continuous" holds \
		"$mono > $mono0 && $mono - $mono0 < $wall - $wall0 + 0.05"
done
for vm in one two back; do
	is "nobody from outside is connected to $vm" "$(from_outside $vm)" 0
done
echo random >&5
read -r -t 10 answer <&5
like "who is connected to the source goes on" "$answer" '^[0-9a-f]{32}$'
exec 5>&-
is "random bytes all differ" "$(for vm in src one two back; do
	ask $vm random; in_vm $vm 'head -c16 /dev/urandom | od -An -tx8'; done | sort -u | wc -l)" 8
is "host names" "$(for vm in src one two back; do machinen exec $vm -- hostname; done | paste -sd' ')" \
	"src one two back"
is "MACs all differ" "$(for vm in src one two back; do
	in_vm $vm 'cat /sys/class/net/eth0/address'; done | sort -u | wc -l)" 4
is "the connection carries on in the source" "$(ask src talk)" "line 2"
for vm in one two back; do
	like "and is reset in $vm" "$(ask $vm talk)" '^closed'
done
is "and still carries on" "$(ask src talk)" "line 3"
for vm in src one back; do
	ok "a sleep in $vm wakes" eventually 8 machinen exec $vm -- test -s /root/slept
	slept=$(in_vm $vm 'cat /root/slept')
	ok "after its time ($vm: $slept)" holds "$slept >= 2.98 && $slept < 3 + 0.6 * ${TEST_SLOW:-1}"
done

# one that is held up on its way: whose connection the thaw has reset takes the
# processor, but for moments
machinen exec src -- chrt -f 50 perl -MTime::HiRes=clock_gettime,CLOCK_MONOTONIC,usleep -e '
	sub now { clock_gettime(CLOCK_MONOTONIC) }
	$SIG{HUP} = sub {
		for (1..7) { my $end = now() + 0.06; 1 while now() < $end; usleep 500 }
		exit;
	};
	$| = 1; print "waits\n"; sleep 1 while 1' >"$scratch/waits" 2>&1 &
hog=$!
eventually 10 grep -q waits "$scratch/waits"
for i in 1 2 3; do
	machinen fork src --new-name late$i -d >/dev/null
	ok "the clock of one that was held up is within 50 ms ($i)" test "$(clock_off late$i)" -le 50
	machinen stop --force late$i >/dev/null
done
kill $hog

# a fork of a fork of a fork; each its own files
file() { in_vm "$1" 'echo $(cat /root/f)'; }
add() { in_vm "$1" "echo $1 >>/root/f"; }
add src
for pair in "src c1" "c1 c2" "c2 c3"; do
	read -r from to <<<"$pair"
	machinen fork "$from" --new-name "$to" -d >/dev/null
	add "$to"
	add "$from"
done
is "a chain of forks: files of the first" "$(file src)" "src src"
is "of its child" "$(file c1)" "src c1 c1"
is "of the grandchild" "$(file c2)" "src c1 c2 c2"
is "of the last" "$(file c3)" "src c1 c2 c3"
machinen stop --force c1 >/dev/null
machinen stop --force c2 >/dev/null
is "the last one without those between" "$(add c3; file c3)" "src c1 c2 c3 c3"
# a snapshot of a fork, a fork of what was restored from it, a bundle of that
machinen snapshot c3 "$scratch/b2" >/dev/null
machinen restore "$scratch/b2" --name r1 -d >/dev/null
machinen fork r1 --new-name r2 -d >/dev/null
add r2
machinen snapshot r2 "$scratch/b3" >/dev/null
rm -rf "$scratch/b2"
machinen restore "$scratch/b3" --name r3 -d >/dev/null
add r3
is "a bundle of a fork of a bundle of a fork" "$(file r3)" "src c1 c2 c3 c3 r2 r3"
is "it does not change its parent" "$(file r1)" "src c1 c2 c3 c3"
is "lineage" "$(machinen inspect "$scratch/b3" --json | jq -r '[.lineage[].event] | join(" ")')" \
	"fork fork fork snapshot fork snapshot"
for vm in one two back r1 r3; do
	machinen stop --force $vm >/dev/null
done

# at the same time
for i in $(seq 20); do
	machinen fork src --new-name "fan$i" -d >/dev/null 2>"$scratch/fan$i.err" &
	fans[i]=$!
done
bad=''
for i in $(seq 20); do
	wait "${fans[i]}" || bad+=" $i: $(head -1 "$scratch/fan$i.err")"
done
is "twenty children at once" "$bad" ""
for i in $(seq 20); do
	add "fan$i" 2>/dev/null && [ "$(file "fan$i")" = "src src fan$i" ] || bad+=" $i"
done
is "each has files of its own" "$bad$(file src)" "src src"
for i in $(seq 20); do
	machinen stop --force "fan$i" >/dev/null &
done
wait $(jobs -p | grep -vx $host)
machinen snapshot src "$scratch/s1" --keep-alive >/dev/null 2>"$scratch/e1" &
one=$!
machinen snapshot src "$scratch/s2" --keep-alive >/dev/null 2>"$scratch/e2" &
two=$!
machinen fork src --new-name meanwhile -d >/dev/null
is "a fork during a snapshot" "$?" 0
is "and it answers" "$(file meanwhile)" "src src"
wait $one; one=$?
wait $two; two=$?
ok "of two snapshots at once one is made, or both" test $((one + two)) -le 1
for i in 1 2; do
	[ -e "$scratch/s$i" ] || like "the other says why" "$(<"$scratch/e$i")" \
		'machinen: \(SNAPSHOT_DUMP_FAILED\).*being written'
done
in_vm src 'head -c 150000000 /dev/urandom >/dev/shm/much'
machinen snapshot src "$scratch/s3" --keep-alive >/dev/null 2>"$scratch/err" &
shot=$!
eventually 10 eval "ls -A $scratch | grep -q 'partial'"
machinen stop --force src >/dev/null
wait $shot
status=$?
[ $status = 0 ] || like "a VM stopped during its snapshot" "$(<"$scratch/err")" '\(SNAPSHOT_DUMP_FAILED\).*no snapshot was made'
is "no half of a bundle" "$status$(ls "$scratch/s3" 2>/dev/null | grep -c meta.json)" "$([ $status = 0 ] && echo 01 || echo "${status}0")"
is "nothing beside it" "$(ls -A "$scratch" | grep -c partial)" 0
finish
