# SPDX-License-Identifier: MIT
# guest only
# The kernel changes its own text under a load: probes, tracers, static keys.
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || mount -t debugfs d /sys/kernel/debug
T=/sys/kernel/tracing
[ -d $T/events ] || T=/sys/kernel/debug/tracing
[ -d $T/events ] || { echo "no tracefs"; exit 1; }
( while :; do sha256sum /usr/bin/perl; ls -lR /etc >/dev/null; true | cat; done ) >/tmp/sums 2>/dev/null &
load=$!
k=0
while [ $k -lt 12 ]; do
	k=$((k + 1))
	echo 1 >/proc/sys/kernel/sched_schedstats 2>/dev/null
	echo 1 >$T/events/sched/enable
	echo 1 >$T/events/syscalls/enable 2>/dev/null
	echo 0 >$T/events/syscalls/enable 2>/dev/null
	echo 0 >$T/events/sched/enable
	echo 0 >/proc/sys/kernel/sched_schedstats 2>/dev/null
	if [ -e $T/kprobe_events ]; then
		echo "p:long_p __x64_sys_getppid" >>$T/kprobe_events
		echo "r:long_r __x64_sys_getppid" >>$T/kprobe_events
		echo 1 >$T/events/kprobes/enable
		perl -e 'for (1 .. 1000) { syscall(110) == getppid() or die } '
		echo 0 >$T/events/kprobes/enable
		n=$(awk '$1 == "long_p" { print $2 }' $T/kprobe_profile)
		echo >$T/kprobe_events
		[ "$n" -ge 1000 ] || { echo "probe seen $n times"; exit 1; }
	fi
	if grep -qw function $T/available_tracers; then
		echo function >$T/current_tracer
		true | cat
		echo nop >$T/current_tracer
		echo function_graph >$T/current_tracer 2>/dev/null
		true | cat
		echo nop >$T/current_tracer
	fi
done
kill $load
wait 2>/dev/null
dmesg 2>/dev/null | grep -E 'BUG|Oops|WARNING|Call Trace|general protection' && exit 1
[ "$(sort -u /tmp/sums | wc -l)" = 1 ] && [ "$(wc -l </tmp/sums)" -gt 3 ] || { sort /tmp/sums | uniq -c; exit 1; }
{ cat $T/available_tracers; ls $T/kprobe_events; wc -l </tmp/sums; } >&2
echo ok
