#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages that building and testing need; does nothing, in
# well under a second, when all are there.  Needs root only to install.
# `deps.sh bench` also those of the benchmarks' other columns and rows, `deps.sh lab`
# those of tests/lab.
set -eu

packages="
gcc make pkg-config musl-tools
libslirp-dev libglib2.0-dev libarchive-dev libext2fs-dev comerr-dev
libzstd-dev libjansson-dev libssl-dev libseccomp-dev libzydis-dev
liblz4-dev zlib1g-dev liblzma-dev libcmocka-dev
mmdebstrap e2fsprogs cpio zstd xz-utils jq binutils busybox-static
curl perl procps iproute2
"
case ${1:-} in
bench) packages="$packages qemu-system-x86 python3-minimal nodejs" ;;
lab) packages="$packages qemu-system-x86 kmod" ;;
esac

missing=
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null |
		grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "deps: these packages are missing, install them as root:$missing" >&2
		exit 1
	}
	sudo=sudo
fi
echo "deps: installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ $sudo apt-get update && $sudo apt-get install -y --no-install-recommends $missing; } \
	>"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
