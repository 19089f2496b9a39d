# SPDX-License-Identifier: MIT
# the interpreter's own tests, and how each ends
cd /tmp
for t in test_math test_float test_complex test_struct test_re test_json test_zlib test_hashlib \
	test_long test_int test_bytes test_array test_memoryview test_mmap test_signal test_faulthandler \
	test_threading test_thread test_threadsignals test_subprocess test_ctypes test_decimal test_fork1 test_wait4 \
	test_statistics test_random test_sort test_set test_dict test_unicode test_format test_generators \
	test_exceptions test_pickle test_bigmem test_bz2 test_lzma test_select test_itertools; do
	timeout 400 python3 -m test -j0 -q $t >"$t.log" 2>&1
	s=$?
	echo $t $s
	[ $s = 0 ] || tail -n 40 $t.log >&2
done
