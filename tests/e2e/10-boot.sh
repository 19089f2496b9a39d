#!/bin/bash
# SPDX-License-Identifier: MIT
# A stock kernel and a Debian base: foreground boots.
. "$(dirname "$0")/lib.sh"
need_base
boot() { run machinen boot --timeout 300 "$@"; }

boot -- uname -sr
is "exit status 0" "$status" 0
like "the guest's kernel, not the host's" "$out" '^Linux .*cloud-amd64$'
boot -- sh -c 'echo out; echo err >&2; exit 7'
is "exit status 7" "$status" 7
is "stdout" "$out" out
is "stderr" "$err" err
want=$(tar --zstd -xOf "$MACHINEN_ASSETS_DIR/base.tar.zst" ./usr/bin/bash | sha256sum | cut -d' ' -f1)
boot --env A='x y' --cwd /usr -- sh -c 'dpkg -l | grep -c ^ii; sha256sum </usr/bin/bash; perl -e "print 2**0.5, qq(\n)"; echo "$A"; pwd; cat /proc/1/comm; id -u'
mapfile -t line <<<"$out"
like "dpkg -l" "${line[0]}" '^[0-9]{2,}$'
is "sha256sum of bash" "${line[1]%% *}" "$want"
is "floating point" "${line[2]}" 1.4142135623731
is "environment" "${line[3]}" "x y"
is "directory" "${line[4]}" /usr
is "PID 1 is ours" "${line[5]}" init
is "root" "${line[6]}" 0
boot --cpu host -- sed -n 's/^model name.*: //p' /proc/cpuinfo
is "--cpu host shows the host's CPU" "$out" "$(sed -n '/^model name/ { s/.*: //p; q }' /proc/cpuinfo)"
run machinen boot --kernel /none -- true
is "no kernel: status" "$status" 1
like "no kernel: code" "$err" '^machinen: \(BOOT_KERNEL_NOT_FOUND\)'
boot -- sh -c 'echo c >/proc/sysrq-trigger; sleep 100'
is "a panic ends the VM" "$status" 1
is "nothing left behind" "$(find "$MACHINEN_HOME/vms" -mindepth 1 ! -name .lock ! -name names)" ""
finish
