#!/bin/bash
# SPDX-License-Identifier: MIT
# The library as others use it: its symbols, its header alone, an installed copy.
. "$(dirname "$0")/lib.sh"

bad=$(nm -D --defined-only "$O/lib/libmachinen.so" | awk '$2 != "A" { print $3 }' |
	sed 's/@.*//' | grep -v '^mn_')
is "the shared library shows mn_* alone" "$bad" ""
missing=
for f in $(grep -oE '\bmn_[a-z_]+\(' include/machinen.h | tr -d '(' | sort -u); do
	nm -D --defined-only "$O/lib/libmachinen.so" | grep -q " $f@" || missing+=" $f"
done
is "and all that the header declares" "$missing" ""
echo '#include "machinen.h"' >"$scratch/alone.c"
ok "the header compiles alone, as C11" gcc -std=c11 -pedantic -Wall -Werror -Iinclude -c \
	-o "$scratch/alone.o" "$scratch/alone.c"
[ -n "$(command -v g++)" ] && ok "and as C++" g++ -x c++ -Wall -Werror -Iinclude -c \
	-o "$scratch/alone.o" "$scratch/alone.c"
run "$O/examples/boot_exec"
is "the example runs" "$status" 0
like "and prints a kernel" "$out" '^Linux '

tool=$O/tests/tool/libtool
machinen boot -d --name lib -- sleep 1000 >/dev/null
run "$tool" memory lib
like "memory of a VM" "$out" '^rss [1-9][0-9]*.ceiling [1-9][0-9]{8,}$'
run "$tool" secrets lib A=1 none
like "secrets: a value is needed" "$err" '^SECRETS_VALUE_INVALID: a secret is KEY=VALUE'
run "$tool" secrets lib A=$'hush\nB=2'
like "secrets: one line" "$err" '^SECRETS_VALUE_INVALID'
ok "and the value is not told" test "${err#*hush}" = "$err"
run "$tool" secrets lib 'A-B=1'
like "secrets: a key for shells" "$err" '^SECRETS_VALUE_INVALID'
machinen stop lib >/dev/null

ok "make install" make -s install O="$O" DESTDIR="$scratch/dest" PREFIX=/usr >/dev/null
run env -u MACHINEN_VMM "$scratch/dest/usr/bin/mn" doctor
like "an installed copy finds its VMM" "$out" 'libexec/machinen/machinen-vmm'
ok "manual pages" test -s "$scratch/dest/usr/share/man/man1/machinen.1"
finish
