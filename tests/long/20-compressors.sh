# SPDX-License-Identifier: MIT
# what compressors make of 24 MB, and back; digests by several ways
cd /tmp
{
	cat $(ls /usr/lib/python3.11/*.py | head -n 150) /usr/bin/perl
	head -c 4000000 /dev/zero
	head -c 8000000 /dev/zero | openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0
} >data
for c in "gzip -6n" "bzip2 -9" "xz -2" "zstd -9 -q" "zstd --ultra -20 -q --no-progress"; do
	$c -c <data >packed
	sha256sum <packed
	${c%% *} -dc <packed | cmp - data && echo "$c"
done
for d in md5 sha1 sha256 sha512 sha3-256 blake2b512 sm3; do openssl dgst -$d <data; done
sha256sum <data; sha512sum <data; b2sum <data; cksum <data
perl -MDigest::SHA=sha256_hex,sha512_hex -e 'local $/; $_ = <>; print sha256_hex($_), sha512_hex($_), "\n"' data
python3 -c 'import zlib, sys, hashlib
d = open("data", "rb").read()
print(zlib.crc32(d), zlib.adler32(d), hashlib.blake2s(d).hexdigest(), hashlib.sha3_512(d).hexdigest())'
