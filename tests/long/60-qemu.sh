# SPDX-License-Identifier: MIT
# a translator in the guest, which writes code all the time
cd /tmp
head -c 300000 /usr/bin/perl >data
q=qemu-x86_64-static
$q /usr/bin/openssl dgst -sha256 data
$q /usr/bin/gzip -9nc data | sha256sum
$q /usr/bin/python3 -c 'print(sum(k * k % 7 for k in range(100000)), 2.0 ** 0.5, "%.17g" % (1 / 3), len(str(3 ** 5000)))'
$q /usr/bin/perl -e 'my $s = join ",", map { $_ * 37 % 1009 } 1 .. 5000; my $n = 0; $n += $1 while $s =~ /(\d+),\d*5/g; print "$n\n"'
$q /bin/sh -c 'i=0; while [ $i -lt 30 ]; do i=$((i + 1)); echo $i; done' | cksum
$q -one-insn-per-tb /bin/echo done 2>/dev/null || $q -singlestep /bin/echo done
