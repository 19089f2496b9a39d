# SPDX-License-Identifier: MIT
# other compilers at run time: LuaJIT, PyPy, PHP
cd /tmp
luajit -e '
local bit = require "bit"
local h = 0
local function mix(v) h = bit.tobit(bit.bxor(h, v) * 31 + bit.rshift(h, 7)) end
for r = 1, 40 do
	local t = {}
	for k = 1, 20000 do t[k] = (k * 7919 + r) % 10007 end
	table.sort(t)
	for k = 1, #t, 97 do mix(t[k]) end
	local s = {}
	for k = 1, 2000 do s[#s + 1] = string.format("%d:%x:%.3f", k, k * r, k / r) end
	for w in table.concat(s, " "):gmatch("(%x+):") do mix(#w + tonumber(w, 16) % 65536) end
	for k = 1, 300 do mix(loadstring("local a = ... return a * " .. k .. " + " .. r)(k)) end
end
local ffi = require "ffi"
ffi.cdef "int abs(int); double sqrt(double);"
local a = ffi.new("int32_t[4096]")
for r = 1, 300 do for k = 0, 4095 do a[k] = a[(k * 5 + 1) % 4096] + k * r; end end
for k = 0, 4095 do mix(a[k]) end
for k = 1, 100000 do mix(ffi.C.abs(-k)) end
print(h)'
cat >t.py <<'E'
import re, hashlib, json
h = 0
def mix(v):
    global h
    h = ((h ^ (v & 0xffffffff)) * 0x9e3779b1 + (h >> 11)) & 0xffffffff
class P:
    def __init__(self, x): self.x = x
    def f(self, k): return self.x * k
class Q(P):
    def f(self, k): return self.x + k
for k in range(300000):
    o = P(k) if k % 7000 < 6000 else Q(k)
    mix(o.f(k & 255))
d = {}
for k in range(200000):
    d['k%d' % (k * 31 % 5003)] = d.get('k%d' % (k % 5003), 0) + k
for k in sorted(d): mix(d[k])
for m in re.finditer(r'(\d+)=(\w+?)(\d)\b', ' '.join('%d=v%d' % (k, k * 7) for k in range(30000))): mix(m.start() + len(m.group(2)))
x = 0.0
for k in range(1, 500000): x = x * 0.999 + (k ** 0.5) / 3
mix(int(x * 1e6))
b = 1
for k in range(1, 600): b = b * k + (b >> 5)
mix(b)
for k in range(2000):
    e = {}
    exec('def f(a):\n s = %d\n for i in range(a): s = (s * %d + i) & 0xffff\n return s' % (k, k | 1), e)
    mix(e['f'](40))
mix(int(hashlib.sha256(json.dumps(d, sort_keys=True).encode()).hexdigest()[:8], 16))
print(h)
E
pypy3 t.py
python3 t.py
cat >t.php <<'E'
<?php
$h = 0;
function mix($v) { global $h; $h = (($h ^ ($v & 0xffffffff)) * 31 + ($h >> 7)) & 0xffffffff; }
function fib($n) { return $n < 2 ? $n : fib($n - 1) + fib($n - 2); }
mix(fib(24));
for ($r = 0; $r < 20; $r++) {
	$a = [];
	for ($k = 0; $k < 20000; $k++) $a[] = ($k * 7919 + $r) % 10007;
	sort($a);
	foreach ($a as $k => $v) if ($k % 97 == 0) mix($v);
	$x = 0.0;
	for ($k = 1; $k < 50000; $k++) $x = $x * 0.99 + sqrt($k) / 3;
	mix((int)($x * 1e6));
	preg_match_all('/(\w+)-(\d+?)(\d)\b/', implode(' ', array_map(fn($k) => "n$k-" . $k * 7, range(1, 3000))), $m);
	foreach ($m[2] as $s) mix(strlen($s) + (int)$s);
}
echo $h, "\n";
E
php t.php
php -d opcache.enable_cli=1 -d opcache.jit_buffer_size=32M -d opcache.jit=tracing t.php
php -d opcache.enable_cli=1 -d opcache.jit_buffer_size=32M -d opcache.jit=function t.php
perl /mnt/work.pl 2>/dev/null | tail -n 1
