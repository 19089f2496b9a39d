# SPDX-License-Identifier: MIT
# lib.sh - tests of commands without a machine: tests/tool/fakevmm stands in for
# machinen-vmm, and a base of nothing for the real one.
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"
export MACHINEN_VMM=$PWD/$O/tests/tool/fakevmm
export MACHINEN_ASSETS_DIR=$scratch/base
mkdir -p "$scratch/base/modules" "$scratch/root/bin"
: >"$scratch/base/vmlinuz"
echo '{"schema_version":1,"version":"test","kernel":"0","files":{}}' \
	>"$scratch/base/manifest.json"
tar -C "$scratch/root" -cf "$scratch/base/base.tar" .
zstd -q "$scratch/base/base.tar" -o "$scratch/base/base.tar.zst"

left_behind() { # what is in the registry beside its own files
	find "$MACHINEN_HOME/vms" -mindepth 1 ! -name .lock ! -path '*/vms/names'
}
