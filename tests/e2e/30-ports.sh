#!/bin/bash
# SPDX-License-Identifier: MIT
# Port forwards: from the start, and of a running VM.
. "$(dirname "$0")/lib.sh"
need_base
server='use IO::Socket::INET; $s = IO::Socket::INET->new(Listen => 9, LocalPort => 80, ReuseAddr => 1) or die;
	while ($c = $s->accept) { print $c "hello\n"; close $c }'
run machinen boot -d --timeout 300 --name srv -p 0:80 -- perl -e "$server"
is "boot -p" "$status$err" 0
port=$(machinen port ls srv --json | jq '.ports[0].host_port')
like "port 0 became a number" "$port" '^[1-9][0-9]*$'
fetch() { exec 3<>"/dev/tcp/127.0.0.1/$1" && head -n1 <&3; }
is "reaches the guest" "$(fetch "$port")" hello
run machinen port add srv 0:80 --json
more=$(jq .port.host_port <<<"$out")
is "port add" "$(fetch "$more")" hello
run machinen port rm srv "$more"
is "port rm" "$status" 0
is "one is left" "$(machinen ps --json | jq '.vms[0].ports | length')" 1
run machinen boot --timeout 300 -p "$port:1" -- true
like "a busy port, and who holds it" "$err" 'BOOT_PORT_FORWARD_IN_USE.*VM srv'
machinen stop srv >/dev/null

# Datagrams, and the other family.  Echo servers on both.
server='use IO::Socket::IP; $SIG{CHLD} = "IGNORE";
	sub udp { fork and return; $u = IO::Socket::IP->new(Type => 2, Proto => "udp", LocalHost => $_[0],
			LocalPort => 53) or die;
		while (1) { $u->send("echo $d", 0, $from) if defined($from = $u->recv($d, 2000)) } }
	udp("10.0.2.15"); udp("fec0::15");
	$s = IO::Socket::IP->new(Listen => 9, LocalHost => "::", LocalPort => 80, ReuseAddr => 1) or die;
	while ($c = $s->accept) { print $c "hello\n"; close $c }'
# A question every 300 ms until there is an answer: datagrams do get lost, and the
# server may not be there yet.  A connected socket hears its own peer alone.
ask='use IO::Socket::IP; use IO::Select;
	$s = IO::Socket::IP->new(Type => 2, Proto => "udp", PeerHost => $ARGV[0], PeerPort => $ARGV[1]) or die;
	for (1 .. 100) { $s->send("hi"); next if !IO::Select->new($s)->can_read(.3);
		if (defined $s->recv($d, 99)) { print $d; last } }'
hello6='use IO::Socket::IP; $s = IO::Socket::IP->new(PeerHost => "::1", PeerPort => $ARGV[0]) or die; print <$s>'
host_port() { machinen port ls udp --json | jq ".ports[$1].host_port"; }
run machinen boot -d --timeout 300 --name udp -p 0:53/udp -- perl -e "$server"
is "boot -p …/udp" "$status$err" 0
is "a datagram and its answer" "$(perl -e "$ask" 127.0.0.1 "$(host_port 0)")" "echo hi"
run machinen port add udp 0:53/udp
like "two for one port of the guest" "$err" BOOT_PORT_FORWARD_CONFLICT
run machinen port add udp '[::1]:0:53/udp'
like "port add with IPv6" "$out" '^\[::1\]:[1-9][0-9]* -> 53/udp$'
is "a datagram over IPv6" "$(perl -e "$ask" ::1 "$(host_port 1)")" "echo hi"
run machinen port add udp '[::1]:0:80'
is "a connection over IPv6" "$(perl -e "$hello6" "$(host_port 2)")" hello
run machinen port rm udp "$(host_port 0)"
ok "rm without /udp means TCP" [ "$status" = 1 ]
run machinen port rm udp "$(host_port 0)/udp"
is "rm of a UDP forward" "$status" 0
machinen stop udp >/dev/null
finish
