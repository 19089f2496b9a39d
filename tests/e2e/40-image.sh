#!/bin/bash
# SPDX-License-Identifier: MIT
# Images in and out: bake, what is baked in, copy mounts, a foreign root file system.
. "$(dirname "$0")/lib.sh"
need_base
cd "$scratch" || exit 1
boot() { run machinen boot --timeout 300 "$@"; }
bake() { run machinen bake --timeout 300 "$@"; }
cache() { (cd "$user_home/cache" && echo disk-*) }

printf '#!/bin/sh\necho "hello, $WHO, from $PWD"\n' >hello.sh
bake --copy ./hello.sh:/opt/hello.sh --run 'chmod +x /opt/hello.sh; echo "for $WHO"' \
	--env WHO=you --cwd /opt --out hello.tar -- /opt/hello.sh
is "bake" "$status" 0
is "output of steps" "$out" "for you"
like "steps are counted" "$err" $'\[1/2\] copy ./hello.sh:/opt/hello.sh\n\[2/2\] run chmod'
is "nothing of ours in it" "$(tar -tf hello.tar | grep -cxE '(init|lost\+found)/?')" 0
is "its disk is prepared" "$(machinen inspect hello.tar --json | jq .cached)" true
disks=$(cache)
MACHINEN_LOG=phase boot hello.tar
is "runs what is baked in" "$out" "hello, you, from /opt"
is "without building a disk" "$(cache)" "$disks"
ms=$(sed -n 's/.*phase disk \([0-9]*\).*/\1/p' <<<"$err")
ok "work for the disk under 50 ms: $ms ms" test "$ms" -lt 50
boot hello.tar --env WHO=me --cwd /usr -- sh -c 'echo $WHO; pwd'
is "environment, directory and command win" "$out" $'me\n/usr'

printf '# steps\nrun echo one >/one\ncopy hello.sh:/two\nrun cat /one \\\n  >/three\nenv B=2\n' >steps
bake --from hello.tar --run 'test ! -e /one' -f steps --run 'grep -q one /three' --env WHO=them --out second.tar
is "steps in the order given, on an own image" "$status$err" "0$(printf '[%d/5] %s\n' \
	1 'run test ! -e /one' 2 'run echo one >/one' 3 'copy hello.sh:/two' \
	4 'run cat /one   >/three' 5 'run grep -q one /three')"
is "its defaults" "$(machinen inspect second.tar --json | jq -c .config)" \
	'{"cmd":["/opt/hello.sh"],"env":["WHO=them","B=2"],"cwd":"/opt"}'
is "owners and modes" "$(tar --numeric-owner -tvf second.tar | grep -E 'opt/hello.sh$' | cut -c1-14)" '-rwxr-xr-x 0/0'

printf 'old' >x.tar.gz
bake --run 'true' --run 'echo why >&2; exit 4' --run 'true' --out x.tar.gz
is "a step fails: status" "$status" 1
like "a step fails: code, step and status" "$err" 'PROVISION_INSTALL_HOOK_FAILED\): step 2 of 3 .*status 4'
like "a step fails: what it said" "$err" 'caused by: .*why'
is "a step fails: nothing is written" "$(cat x.tar.gz; ls -A | grep -c tmp)" old0

mkdir -p data/sub
echo host >data/f
chown 1234:5678 data/f 2>/dev/null
chmod 640 data/f
before=$(cd data && find . -printf '%p %m %U %G %s %T@\n' | sort)
boot --mount ./data:/mnt/data --mount data/sub:/mnt/a/b -- sh -c \
	'touch /mnt/data/x /mnt/a/b/y; echo guest >/mnt/data/f; stat -c "%a %u %g" /mnt/data/f; ls -A /mnt/data /mnt/a/b'
is "copy mounts" "$out" "$(stat -c '%a %u %g' data/f; printf '/mnt/a/b:\ny\n\n/mnt/data:\nf\nsub\nx')"
is "the host's directory is untouched" "$(cd data && find . -printf '%p %m %U %G %s %T@\n' | sort)" "$before"

# copy mounts belong to the VM: a fork and a bundle have them, with what was written
machinen boot -d --timeout 300 --name one --mount ./data:/mnt/data -- sleep infinity >/dev/null
machinen exec one -- sh -c 'echo new >/mnt/data/new'
run machinen fork one -d --name two
is "fork with a copy mount" "$status" 0
run machinen exec two -- sh -c 'cat /mnt/data/new; echo two >/mnt/data/new'
is "the fork has it" "$out" new
is "and its own" "$(machinen exec one -- cat /mnt/data/new)" new
run machinen snapshot one "$scratch/bundle"
run machinen restore "$scratch/bundle" -d --name three
is "restore with a copy mount" "$status" 0
is "the bundle has it" "$(machinen exec three -- cat /mnt/data/new)" new
is "the host has not" "$(ls data)" $'f\nsub'
machinen stop --force two three >/dev/null

# a root file system with nothing of Debian's or ours: one static program and links
mkdir -p hand/bin
cp "$(command -v busybox)" hand/bin/busybox
for name in sh cat touch; do
	ln -s busybox "hand/bin/$name"
done
tar -C hand --owner 0 --group 0 -cJf hand.tar.xz .
boot hand.tar.xz --disk-size 3G -- sh -c 'cat /proc/1/comm; busybox df -m / | busybox awk "END { print \$2 }"; touch /x; exit 5'
is "a foreign image: status" "$status" 5
like "a foreign image, its disk grown" "$out" $'^init\n(28|29|30)[0-9][0-9]$'
bake --from hand.tar.xz --run 'touch /made' --out own.tar.zst
is "bakes, too" "$status" 0
bake --from hand.tar.xz --run 'touch /made' --out again.tar.zst
is "the same steps give the same bytes" "$(sha256sum <own.tar.zst)" "$(sha256sum <again.tar.zst)"
boot hand.tar.xz --disk-size 300M -- sh -c 'busybox df -m / | busybox awk "END { print \$2 }"'
like "a small disk" "$out" '^2..$'
boot hand.tar.xz --disk-size 100M -- true
like "too small a disk" "$err" '^machinen: \(PROVISION_DISK_TOO_SMALL\)'
tar -C hand -cf - . | head -c 100000 >cut.tar
boot cut.tar -- true
like "a damaged image" "$err" '^machinen: \(BOOT_IMAGE_INVALID\)'
like "and which entry" "$err" 'busybox'
rm -f "$scratch"/*.tar*
is "nothing left" "$(find "$MACHINEN_HOME/vms" -mindepth 1 ! -name .lock ! -name names)" ""
finish
