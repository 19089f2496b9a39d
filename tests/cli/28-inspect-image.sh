#!/bin/bash
# SPDX-License-Identifier: MIT
# inspect IMAGE: what it says, before and after its disk is prepared.
. "$(dirname "$0")/lib.sh"

mkdir -p "$scratch/i/bin"
echo x >"$scratch/i/bin/x"
echo '{"cmd": ["/bin/x", "a b"], "env": {"A": "1"}, "cwd": "/bin"}' >"$scratch/i/machinen-config.json"
tar -C "$scratch/i" -cf "$scratch/i.tar" .
cd "$scratch" || exit 1
run machinen inspect i.tar --json
is "exit status" "$status" 0
is "its hash" "$(jq -r .sha256 <<<"$out")" "$(sha256sum <i.tar | cut -d' ' -f1)"
is "its size" "$(jq .bytes <<<"$out")" "$(stat -c %s i.tar)"
is "entries" "$(jq .entries <<<"$out")" 4
is "what it bakes in" "$(jq -c .config <<<"$out")" '{"cmd":["/bin/x","a b"],"env":["A=1"],"cwd":"/bin"}'
is "not cached" "$(jq .cached <<<"$out")" false
is "and looking leaves nothing" "$(find "$MACHINEN_HOME/cache" -name 'disk-*')" ""
machinen boot i.tar -- true
is "cached" "$(machinen inspect ./i.tar --json | jq .cached)" true
like "as text" "$(machinen inspect i.tar)" $'\nsha256 +[0-9a-f]{64}\ncached +yes\ncmd +/bin/x\n +a b\nenv +A=1\ncwd +/bin$'
head -c 1500 i.tar >bad.tar
run machinen inspect bad.tar
is "damaged: exit status" "$status" 1
like "damaged: code" "$err" '^machinen: \(BOOT_IMAGE_INVALID\): '
run machinen inspect ./none.tar
like "no such image" "$err" '^machinen: \(BOOT_IMAGE_NOT_FOUND\): '
run machinen inspect none
like "neither VM nor image" "$err" '^machinen: \(REGISTRY_VM_NOT_FOUND\): '
machinen boot -d --name i.tar -- sleep inf >/dev/null 2>&1
is "a VM of that name" "$(cd / && machinen inspect i.tar --json | jq -r .kind)" vm
finish
