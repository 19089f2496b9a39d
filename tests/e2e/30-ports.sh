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
finish
