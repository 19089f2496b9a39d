# SPDX-License-Identifier: MIT
# ciphers by the instructions made for them and without; keys, signatures
cd /tmp
head -c 3000000 /dev/zero | openssl enc -chacha20 -K 01 -iv 0 2>/dev/null >data
k=000102030405060708090a0b0c0d0e0f
for cap in "" '~0x200000200000000:~0x0' '~0x200000000000000:~0x20' '~0x1000000000000000:~0x20000020'; do
	if [ -n "$cap" ]; then export OPENSSL_ia32cap=$cap; fi
	for c in aes-128-cbc aes-256-cbc aes-128-ctr aes-256-ctr aes-128-cfb aes-192-ofb \
		camellia-128-cbc aria-128-ctr chacha20 sm4-ctr; do
		openssl enc -$c -K $k -iv $k <data 2>/dev/null | sha256sum
		openssl enc -$c -K $k -iv $k <data 2>/dev/null | openssl enc -d -$c -K $k -iv $k 2>/dev/null | cmp - data
	done
	for m in sha1 sha224 sha256 sha384 sha512 sha3-384; do openssl dgst -$m -hmac key <data; done
	for a in "RSA -pkeyopt rsa_keygen_bits:2048" "EC -pkeyopt ec_paramgen_curve:P-256" \
		"EC -pkeyopt ec_paramgen_curve:P-384"; do
		openssl genpkey -algorithm $a -out key 2>/dev/null
		openssl pkey -in key -pubout -out pub
		openssl dgst -sha256 -sign key -out sig data
		openssl dgst -sha256 -verify pub -signature sig data
	done
	for a in ED25519 ED448; do
		openssl genpkey -algorithm $a -out key
		head -c 1000 data >part
		openssl pkeyutl -sign -inkey key -rawin -in part -out sig
		openssl pkeyutl -verify -inkey key -rawin -in part -sigfile sig
	done
done
