# SPDX-License-Identifier: MIT
# what the compiler makes of our own sources, at several levels
cd /tmp
for f in /mnt/*.i; do
	for o in -O0 -O2 -O3; do
		gcc -std=gnu11 -w $o -fpreprocessed -c "$f" -o out.o && sha256sum <out.o
	done
done
gcc -O2 -static -D_GNU_SOURCE -x c /mnt/hotcode.c -o hot && ./hot 1000 5
