#!/bin/bash
# SPDX-License-Identifier: MIT
# The guest's network: its set-up, policy, load, abuse.  All on the loopback.
. "$(dirname "$0")/lib.sh"
need_base

# A host server on a free port, in $server_port: says "hello", then nothing.  It lets
# go of what it holds when it has no descriptor for another one.
server() {
	local to=$scratch/server.$RANDOM
	perl -MIO::Socket::INET -e '
		$| = 1;
		$s = IO::Socket::INET->new(Listen => 1024, LocalAddr => "127.0.0.1") or die;
		print $s->sockport, "\n";
		while (1) {
			$c = $s->accept or @all = (), next;
			print $c "hello\n"; $c->flush; push @all, $c }
	' >"$to" &
	server_pid=$!
	eventually 10 test -s "$to"
	server_port=$(<"$to")
}

# A guest's echo server on port 7, a process for each connection.
echo_server='use IO::Socket::INET; $SIG{CHLD} = "IGNORE";
	$s = IO::Socket::INET->new(Listen => 128, LocalPort => 7, ReuseAddr => 1) or die;
	while ($c = $s->accept) {
		if (!fork) { while (sysread $c, $d, 65536) {
			for ($n = 0; $n < length $d; $n += $w) {
				$w = syswrite($c, $d, length($d) - $n, $n) or exit } } exit }
		close $c }'

# connections bytes: all at once, each through the echo; prints how many came back whole
echoes() {
	perl -MIO::Socket::INET -e '
		($port, $nr, $len) = @ARGV;
		for $i (1 .. $nr) { next if fork; $SIG{ALRM} = sub { exit 1 }; alarm 240;
			srand $i; $data = pack "N*", map { rand 2**32 } 1 .. $len / 4;
			$s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or exit 1;
			if (!fork) { print $s $data; $s->flush; shutdown $s, 1; exit }
			local $/; $back = <$s>; wait; exit($back ne $data) }
		while (wait > 0) { $good += !$? } print $good + 0' "$echo_port" "$1" "$2"
}

run machinen boot --timeout 300 -- sh -c 'cat /etc/resolv.conf
	for i in 1 2 3 4 5 6; do # the kernel tells a link that came up within a second
		ip -br addr show eth0 | grep UP && break; sleep 0.5; done
	ping -c 1 -W 5 10.0.2.2 >/dev/null && echo ping4
	ping -c 1 -W 5 fec0::2 >/dev/null && echo ping6'
like "resolver" "$out" 'nameserver 10\.0\.2\.3'
like "link and addresses" "$out" 'eth0 +UP +10\.0\.2\.15/24 fec0::15/64'
like "ping" "$out" $'ping4\nping6'
run machinen boot --timeout 300 --no-net -- sh -c 'ls /sys/class/net'
is "--no-net: loopback alone" "$out" lo

server
run machinen boot -d --timeout 300 --name net --net-host-loopback -p 0:7 -- perl -e "$echo_server"
is "boot" "$status$err" 0
echo_port=$(machinen port ls net --json | jq '.ports[0].host_port')
fetch="exec 3<>/dev/tcp/10.0.2.2/$server_port && head -n 1 <&3"
run machinen exec net -- bash -c "$fetch"
is "--net-host-loopback" "$out" hello

is "100 MB through 32 connections" "$(echoes 32 3200000)" 32

# Frames of any content, of this guest's address and of others
run machinen exec net --timeout 120 -- perl -e '
	socket $s, 17, 3, 0x0300 or die; srand 1;
	open $f, "/sys/class/net/eth0/ifindex"; $to = pack "S n i S C C a8", 17, 3, <$f>, 0, 0, 6, "";
	for (1 .. 20000) {
		$f = pack "C*", map { rand 256 } 1 .. 14 + rand 200;
		substr $f, 0, 12, "\x52\x55\x0a\0\2\2\x52\x54\0\1\2\3" if rand > .1;
		substr $f, 12, 2, pack "n", (0x800, 0x86dd, 0x806)[rand 3] if rand > .1;
		substr $f, 14, 2, "E\0" if rand > .5;
		substr $f, 23, 1, pack "C", (1, 6, 17, 58)[rand 4] if rand > .3 && length $f > 60;
		substr $f, 26, 8, "\x0a\0\2\x0f\x0a\0\2\2" if rand > .3 && length $f > 60;
		send $s, $f, 0, $to }
	print "sent"'
is "garbage frames" "$out$status" sent0
is "and the network goes on" "$(echoes 4 100000)" 4

# A sibling: a socket that was open goes on, forwards are its own
udp_echo='use IO::Socket::INET; $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1") or die;
	$| = 1; print $s->sockport, "\n"; while (defined($a = $s->recv($d, 99))) { $s->send("echo $d", 0, $a) }'
perl -e "$udp_echo" >"$scratch/udp" &
udp_pid=$!
eventually 10 test -s "$scratch/udp"
# the guest's end: a question and its answer each time /run/go is read
machinen exec net -- perl -MIO::Socket::INET -e 'system "mkfifo", "/run/go", "/run/said"; exit if fork;
	close STDOUT; close STDERR; close STDIN; use IO::Select;
	$s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "10.0.2.2:$ARGV[0]") or die;
	while (1) { open $f, "<", "/run/go"; <$f>; close $f; open $f, ">", "/run/said";
		for (1 .. 20) { $s->send("hi"); next if !IO::Select->new($s)->can_read(.5);
			if (defined $s->recv($d, 99)) { print $f "$d\n"; last } }
		close $f }' "$(<"$scratch/udp")"
say='echo >/run/go; cat /run/said'
run machinen exec net --timeout 60 -- sh -c "$say"
is "a UDP socket" "$out" "echo hi"
run machinen fork net --new-name sibling -d -p 0:7
is "fork -p" "$status$err" 0
run machinen exec sibling --timeout 60 -- sh -c "$say"
is "goes on in the sibling" "$out" "echo hi"
run machinen exec sibling --timeout 60 -- sh -c 'ping -c 1 -W 5 10.0.2.2 >/dev/null && echo ping4
	ping -c 1 -W 5 fec0::2 >/dev/null && echo ping6'
is "ping in the sibling" "$out" $'ping4\nping6'
# a host without ICMP for this user: no answer, and nothing worse
run machinen exec sibling -- ping -c 1 -W 1 10.0.2.77
like "ping that may lead nowhere" "$out" '1 packets transmitted'
run machinen exec sibling --timeout 60 -- bash -c "$fetch"
is "the sibling's connections" "$out" hello
source_port=$echo_port
echo_port=$(machinen port ls sibling --json | jq '.ports[0].host_port')
ok "a port of its own" [ "$echo_port" != "$source_port" ]
is "which leads to its server" "$(echoes 2 100000)" 2
machinen stop sibling >/dev/null
echo_port=$source_port
is "and the source's to the source's" "$(echoes 2 100000)" 2
kill "$udp_pid"

# More than the NAT opens for one guest
run machinen exec net --timeout 240 -- bash -c 'ulimit -n 20000; exec perl -MSocket -e "
	for (1 .. 10000) { socket my \$s, 2, 1 | 2048, 0 or die;
		connect \$s, pack_sockaddr_in('"$server_port"', inet_aton q(10.0.2.2)); push @all, \$s }
	print scalar @all"'
is "ten thousand connections" "$out$status" 100000
ok "and the network goes on" eventually 60 machinen exec net --timeout 5 -- bash -c "$fetch"
ok "the log says so" grep -q 'connections; no more' <(machinen logs --vmm net)
machinen stop net >/dev/null

# More than the VMM has descriptors for, from outside: a forward's clients wait
run bash -c 'ulimit -n 512; machinen boot -d --timeout 300 --name few -p 0:80 -- perl -MIO::Socket::INET \
	-e "\$s = IO::Socket::INET->new(Listen => 999, LocalPort => 80) or die; sleep 1000"'
is "boot with few descriptors" "$status$err" 0
ok "its server" eventually 20 machinen exec few -- bash -c 'exec 3<>/dev/tcp/127.0.0.1/80'
perl -MSocket -e 'for (1 .. 600) { socket my $s, 2, 1 | 2048, 0 or die;
	connect $s, pack_sockaddr_in($ARGV[0], inet_aton "127.0.0.1"); push @all, $s }
	close STDOUT; sleep 1000' "$(machinen port ls few --json | jq '.ports[0].host_port')" >"$scratch/flood" &
flood_pid=$!
held() { [ "$(ls "/proc/$(machinen ls --json | jq '.vms[0].pid')/fd" | wc -l)" -gt 256 ]; }
ok "a flood arrives" eventually 20 held
run machinen exec few --timeout 60 -- echo on
is "and the VM goes on" "$out" on
kill "$flood_pid"
machinen stop few >/dev/null

run machinen boot -d --timeout 300 --name shut -- sleep 1000
run machinen exec shut -- bash -c "$fetch"
ok "the host's loopback is not reached" [ "$status" != 0 ]
machinen stop shut >/dev/null

run machinen boot -d --timeout 300 --name rules --net-host-loopback \
	--net-allow "10.0.2.2:$server_port" --net-allow allowed.invalid -- sleep 1000
run machinen exec rules -- bash -c "$fetch"
is "a rule allows" "$out" hello
run machinen exec rules -- bash -c 'exec 3<>/dev/tcp/192.0.2.1/80'
like "the rest is refused" "$err" 'refused'
run machinen exec rules -- getent hosts refused.invalid
ok "and so are other names" [ "$status" = 2 ]
run machinen fork rules --new-name rules2 -d
run machinen exec rules2 -- bash -c "$fetch"
is "a sibling has the same rules" "$out" hello
run machinen exec rules2 -- bash -c 'exec 3<>/dev/tcp/192.0.2.1/80'
like "and no others" "$err" 'refused'
machinen stop rules2 >/dev/null
run machinen logs --vmm rules
like "TCP in the log" "$out" 'refused: TCP to 192\.0\.2\.1 port 80'
like "DNS in the log" "$out" 'refused: DNS for refused\.invalid'
ok "allowed things are not" [ "${out/allowed.invalid/}" = "$out" ]
machinen stop rules >/dev/null

run machinen boot --timeout 300 --net-allow 10.0.2.3 -- bash -c 'exec 3<>/dev/tcp/192.0.2.1/80'
like "said where a VM's log goes with the VM" "$err" 'machinen: network: refused: TCP to 192\.0\.2\.1 port 80$'
run machinen boot --timeout 300 -- bash -c "$fetch"
like "the host's loopback is called so" "$err" "refused: TCP to 10\.0\.2\.2 port $server_port, which is the host's loopback"

run machinen boot -p "$server_port:1" -- true
like "a busy port of another program" "$err" "BOOT_PORT_FORWARD_IN_USE.*perl \(pid $server_pid\)"
run machinen boot --net-allow 'a b' -- true
like "no rule" "$err" 'PARSE_FLAG_MALFORMED.*a b'
kill "$server_pid"
finish
