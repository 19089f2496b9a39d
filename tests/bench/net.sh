#!/bin/bash
# SPDX-License-Identifier: MIT
# net.sh - the network of a machinen guest beside that of QEMU's own user network
# under TCG, in one run: the same kernel, init and server in both.  One root file
# system with nothing but the server, on loopback.  Prints a table, no verdict.
set -eu
cd "$(dirname "$0")/../.."
O=${O:-build}
bin=$O/bin home=${MACHINEN_HOME:-$HOME/.machinen}
assets=${MACHINEN_ASSETS_DIR:-$home/base/current}
dir=$(mktemp -d "${TMPDIR:-/tmp}/machinen-bench.XXXXXX")
vm=''
. tests/bench/qemu-peer
finish() {
	[ -z "$vm" ] || "$bin/machinen" stop --force "$vm" >/dev/null || true
	peer_stop
	rm -rf "$dir"
}
trap finish EXIT

mkdir -p "$dir/root"/{etc,proc,sys,dev,run,tmp}
cp "$O/tests/bench/net_guest" "$dir/root/server"
tar -C "$dir/root" -cf "$dir/root.tar" .

# prints "into out-of requests requests32"
in_machinen() {
	local port
	vm=$("$bin/machinen" boot -d -p 0:7000 "$dir/root.tar" -- /server)
	port=$("$bin/machinen" port ls "$vm" --json | jq '.ports[0].host_port')
	"$O/tests/bench/bench_net" "$port"
	"$bin/machinen" stop --force "$vm" >/dev/null
	vm=
}

in_qemu() {
	local port
	port=$(peer_free_port)
	mke2fs -q -t ext4 -d "$dir/root" "$dir/root.ext4" 64M >/dev/null
	peer_initrd "$dir/initrd" '{"root":{"serial":"root"},"cmd":{"argv":["/server"]}}'
	peer_start qemu 512 "$dir/initrd" \
		-drive "id=root,file=$dir/root.ext4,format=raw,if=none" \
		-device virtio-blk-pci,drive=root,serial=root \
		-netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:7000" \
		-device virtio-net-pci,netdev=net
	# its forwards refuse what comes before the guest listens
	for _ in {1..40}; do
		if timeout 30 "$O/tests/bench/bench_net" "$port" 2>/dev/null; then return; fi
		kill -0 "$peer" || break
		sleep 0.2
	done
	cat "$dir/qemu.qemu" "$dir/qemu.console" >&2
	return 1
}

row() { printf '%-34s %10s %10s %8s\n' "$@"; }

in_machinen >"$dir/ours"
read -r -a ours <"$dir/ours"
theirs=(- - - -)
if peer_have; then
	in_qemu >"$dir/all" || echo "QEMU gave up: what it managed is shown"
	tail -n 1 "$dir/all" >"$dir/theirs"
	read -r -a theirs <"$dir/theirs" || true
fi
accel=$("$bin/machinen" --version)
row "$accel" machinen 'QEMU TCG' ratio
names=('host to guest, MB/s' 'guest to host, MB/s' 'requests/s, 1 connection'
	'requests/s, 32 connections')
for i in 0 1 2 3; do
	row "${names[i]}" "${ours[i]}" "${theirs[i]:--}" \
		"$(awk -v a="${ours[i]}" -v b="${theirs[i]:--}" 'BEGIN { if (b > 0) printf "%.1f", a / b; else print "-" }')"
done
