#!/bin/bash
# SPDX-License-Identifier: MIT
# cp: trees there and back, destinations, refusals.  The "guest" is a host process
# here, so guest paths are host paths below the scratch directory.
. "$(dirname "$0")/lib.sh"
machinen boot -d --name web -- sleep 1000 >/dev/null
g=$scratch/guest
mkdir -p "$g" "$scratch/dir/a b/c"
cd "$scratch" || exit 1
head -c 3000000 /dev/urandom >dir/big
echo small >"dir/a b/small"
ln dir/big "dir/a b/hard"
ln -s ../big "dir/a b/soft"
ln -s /nowhere dir/dangling
chmod 0640 dir/big
truncate -s 100M dir/sparse
printf x >>dir/sparse
touch -d '2001-02-03 04:05:06.789' "dir/a b/small"

run machinen cp dir "web:$g/copy"
is "in" "$status$err" 0
ok "same content" diff -r --no-dereference dir "$g/copy"
run machinen cp "web:$g/copy" back
is "out" "$status$err" 0
ok "same content again" diff -r --no-dereference dir back
is "modes" "$(stat -c %a back/big)" 640
is "times" "$(stat -c %y 'back/a b/small')" "$(stat -c %y 'dir/a b/small')"
is "hard links" "$(stat -c %h back/big)" 2
ok "holes" test "$(stat -c %b back/sparse)" -lt 20000
run machinen cp dir/big "web:$g/copy"
ok "into a directory that is there" cmp dir/big "$g/copy/big"
run machinen cp "web:$g/copy/a b/small" .
is "one file out, into a directory" "$(cat small)" small
run machinen cp "web:$g/copy" back
ok "into a directory that is there, out" test -f back/copy/big
chmod u+s "$g/copy/big"
machinen cp "web:$g/copy/big" suid
is "no set-id bits from a guest" "$(stat -c %A suid | cut -c4)" -

run machinen cp /none "web:$g"
like "no such host file" "$err" '\(FILES_HOST_NOT_FOUND\)'
run machinen cp "web:$g/none" .
like "no such guest file" "$err" '\(FILES_GUEST_NOT_FOUND\)'
run machinen cp dir "web:$g/x/y/z"
is "no parents" "$status" 1
run machinen cp --parents dir "web:$g/x/y/z"
ok "parents" test -f "$g/x/y/z/big"
run machinen cp dir other
is "no target" "$status" 2
run machinen cp web:/a web:/b
is "two targets" "$status" 2
run machinen cp dir nope:/x
like "no such VM" "$err" 'REGISTRY_VM_NOT_FOUND'
cd / && machinen stop web >/dev/null
finish
