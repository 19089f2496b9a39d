// SPDX-License-Identifier: MIT
// Programs for a compiler at run time, each with a number that any engine must print.
'use strict';
let h = 0;
const mix = v => { h = Math.imul(h ^ (v | 0), 0x9e3779b1); h ^= h >>> 15; };

// shapes that change under compiled code: it is thrown away and made again
class A { constructor(x) { this.x = x; } get() { return this.x; } }
class B extends A { get() { return this.x + 1; } }
function poly(o) { return o.get(); }
for (let k = 0; k < 400000; k++)
	mix(poly(k < 150000 ? new A(k) : k % 3 ? new B(k) : { get: () => k * 2 }));
function add(a, b) { return a + b; }
for (let k = 0; k < 200000; k++) mix(add(k, k) ^ (k % 50000 === 49999 ? add('1', k) : add(k, 0.5)));

// functions made of text
for (let k = 0; k < 3000; k++) {
	const f = new Function('a', 'b', `let s = ${k}; for (let i = 0; i < a; i++) s = (s * ${k | 1} + b) | 0; return s;`);
	mix(f(30, k)); mix(f(300, k + 1));
}

// typed arrays of each kind
for (const T of [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array,
	Uint32Array, Float32Array, Float64Array]) {
	const a = new T(4096);
	for (let r = 0; r < 30; r++)
		for (let k = 0; k < a.length; k++) a[k] = a[(k * 7) & 4095] * 3 + k - r;
	for (const v of a) mix(v);
}

// numbers
let d = 0;
for (let k = 1; k < 300000; k++) { d += Math.sqrt(k) / (1 + Math.abs(Math.sin(k))); if (k % 1000 === 0) mix(d * 1000); }
let b = 1n;
for (let k = 1n; k < 400n; k++) b = b * k + (b >> 3n);
mix(Number(b & 0x7fffffffn));

// regular expressions, compiled too
const text = Array.from({ length: 3000 }, (_, k) => `key${k % 97}=${(k * 7919) % 1009}; name-${k.toString(36)}@x${k % 7}.org`).join('\n');
for (const re of [/key(\d+)=(\d+)/g, /([a-z]+)-(\w+)@x[0-3]\.org/g, /(?<=\=)\d{3}(?=;)/g, /^(?:(?!key1).)*$/gm,
	/(\w)\1/g, /[^\W_]{4,}?\b/gu]) {
	let n = 0;
	for (let r = 0; r < 3; r++) for (const m of text.matchAll(re)) { n++; mix(m.index + m[0].length); }
	mix(n);
}

// JSON, maps, sorting, exceptions, generators
const o = JSON.parse(JSON.stringify(Array.from({ length: 20000 }, (_, k) => ({ k, s: 'v' + k, n: [k, { z: k / 3 }] }))));
for (const e of o) mix(e.n[1].z * 300);
const m = new Map();
for (let k = 0; k < 200000; k++) { const q = 'k' + (k * 31) % 5003; m.set(q, (m.get(q) || 0) + k); }
for (const v of [...m.values()].sort((x, y) => y - x)) mix(v);
function thrower(k) { if (k % 5 === 0) throw new RangeError('no ' + k); return k; }
for (let k = 0; k < 30000; k++) { try { mix(thrower(k)); } catch (e) { mix(e.message.length); } finally { mix(1); } }
function* gen(n) { for (let k = 0; k < n; k++) mix((yield k * k) || 7); }
{ const g = gen(50000); let r = g.next(); while (!r.done) r = g.next(r.value & 255); }
function deep(n) { return n ? deep(n - 1) + 1 : 0; }
mix(deep(5000));
try { (function f() { f(); })(); } catch (e) { mix(e instanceof RangeError ? 11 : 12); }

// WebAssembly: sum of a loop with i32, i64 and f64, and a trap
if (typeof WebAssembly !== 'undefined') {
	const code = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 6, 1, 0x60, 1, 0x7f, 1, 0x7f, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1,
		0x66, 0, 0, 0x0a, 0x2e, 1, 0x2c, 1, 1, 0x7f, 3, 0x40, 0x20, 0, 0x41, 4, 0x6c, 0x20, 1, 0x36, 2, 0, 0x20, 0, 0x41, 4, 0x6c,
		0x28, 2, 0, 0x20, 0, 0x6c, 0x20, 1, 0x6a, 0x21, 1, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b, 0x20, 1, 0x0b]);
	try {
		const f = new WebAssembly.Instance(new WebAssembly.Module(code)).exports.f;
		for (let k = 1; k < 3000; k++) mix(f(k));
		try { f(0x10000000); } catch (e) { mix(e instanceof WebAssembly.RuntimeError ? 21 : 22); }
	} catch (e) { mix(e.message.length); console.log(e.message); }
}
const c = require('crypto');
for (const a of ['md5', 'sha1', 'sha256', 'sha512']) mix(c.createHash(a).update(text).digest().readInt32LE(0));
console.log(h >>> 0);
