// SPDX-License-Identifier: MIT
// Work for a compiler at run time that patches its code: classes that come late, null checks
// by fault, locks, exceptions, threads, collections.
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Hot {
	static int h = 0;
	static void mix(long v) { h = (h ^ (int) (v ^ v >>> 32)) * 0x9e3779b1; h ^= h >>> 15; }
	interface Shape { double area(int k); }
	static class Sq implements Shape { public double area(int k) { return k * k; } }
	static class Ci implements Shape { public double area(int k) { return k * 3.25; } }
	static class Tr implements Shape { public double area(int k) { return k / 2.0; } }
	static class Box { int v; Box(int v) { this.v = v; } }
	static int read(Box b) { return b.v; }

	static long work(int seed) {
		long s = seed;
		for (int k = 0; k < 3000000; k++) s = s * 6364136223846793005L + (s >>> 17) + k;
		return s;
	}
	public static void main(String[] a) throws Exception {
		Shape[] shapes = { new Sq(), new Sq(), new Sq(), new Ci(), new Tr() };
		for (int k = 0; k < 3000000; k++)
			mix((long) shapes[k < 1000000 ? 0 : k < 2000000 ? k & 3 : k % 5].area(k));
		int nulls = 0;
		for (int k = 0; k < 400000; k++) {
			try { mix(read(k % 1000 == 999 || k > 390000 && k % 2 == 0 ? null : new Box(k))); }
			catch (NullPointerException e) { nulls++; }
		}
		int[] arr = new int[1000];
		for (int k = 0; k < 2000000; k++) {
			try { arr[k % 1001] += k; } catch (ArrayIndexOutOfBoundsException e) { nulls++; }
			if (k % 4001 == 0) try { mix(k / (k % 7)); } catch (ArithmeticException e) { nulls++; }
		}
		mix(nulls);
		mix(Arrays.stream(arr).sum());
		Map<String, Integer> m = new HashMap<>();
		for (int k = 0; k < 500000; k++) m.merge("k" + k * 31 % 5003, k, Integer::sum);
		for (String k : new TreeSet<>(m.keySet())) mix(m.get(k));
		mix(IntStream.range(0, 200000).mapToObj(Integer::toString).filter(x -> x.matches(".*[13]7.*"))
			.collect(Collectors.joining()).hashCode());
		double d = 0;
		for (int k = 1; k < 2000000; k++) d += Math.sqrt(k) * Math.sin(k) / Math.log(k + 1);
		mix((long) (d * 1000));
		ExecutorService pool = Executors.newFixedThreadPool(4);
		List<Future<Long>> f = new ArrayList<>();
		for (int k = 0; k < 16; k++) { final int n = k; f.add(pool.submit(() -> work(n))); }
		for (Future<Long> x : f) mix(x.get());
		int[] count = { 0 };
		Object lock = new Object();
		Thread[] t = new Thread[4];
		for (int k = 0; k < 4; k++) {
			t[k] = new Thread(() -> { for (int n = 0; n < 200000; n++) synchronized (lock) { count[0]++; } });
			t[k].start();
		}
		for (Thread x : t) x.join();
		mix(count[0]);
		List<byte[]> keep = new ArrayList<>();
		for (int k = 0; k < 200000; k++) { byte[] b = new byte[k % 3000]; if (k % 50 == 0) keep.add(b); if (keep.size() > 200) keep.clear(); }
		mix(keep.size());
		pool.shutdown();
		System.out.println(h);
	}
}
