# SPDX-License-Identifier: MIT
# lib.sh - tests in which calls fail; sourced after tests/e2e/lib.sh or tests/cli/lib.sh.
# What is preloaded, and why that, is in preload/fault.c.
#
#	arm WHO KIND NTH WHAT		what the next command, or a VM, meets
#	faulty COMMAND...		run machinen with the library preloaded
#	sweep NAME NR ORDER CHECK	for NR places: arm ORDER with the place for @,
#					call CHECK, which complains or is silent
#
# A sweep takes places evenly, from a random first one; FAULT_SEED repeats that and
# FAULT_ALL=1 takes every place.
fault_ctl=$scratch/fault
truncate -s 8192 "$fault_ctl"
fault_env=(FAULT_CTL="$fault_ctl" LD_PRELOAD="$PWD/$O/tests/fault/libfault.so")
RANDOM=${FAULT_SEED:=$$}
echo "# FAULT_SEED=$FAULT_SEED"

# VMs' processes get a name by which they are found, registered or not.
per_vm=1
vmm_name=vmm.$$
ln -s "${MACHINEN_VMM:-$PWD/$O/bin/machinen-vmm}" "$scratch/$vmm_name"
export MACHINEN_VMM=$scratch/$vmm_name
vmms() { # their number, zombies apart; $per_vm processes are one VM
	local n=0 f
	for f in $(grep -slx "$vmm_name" /proc/[0-9]*/comm); do
		vm_gone "$(cut -d/ -f3 <<<"$f")" || n=$((n + 1))
	done
	echo $((n / per_vm))
}
vmms_are() { [ "$(vmms)" = "$1" ]; }

armed=''
arm() {
	armed="$*"
	printf '%s ' "$armed" | dd of="$fault_ctl" bs=256 conv=notrunc,sync 2>/dev/null
	head -c 64 /dev/zero | dd of="$fault_ctl" bs=64 seek=64 conv=notrunc 2>/dev/null
}
disarm() { arm ""; }
seen() { od -An -tu4 -j4096 -N4 "$fault_ctl" | tr -d ' '; }

# With a limit: a command that hangs is one failure, not the end of the test.
faulty() {
	run env "${fault_env[@]}" timeout -s KILL 60 machinen "$@" 2>/dev/null
	nr_seen=$(seen)
	place="$armed in $(dd if="$fault_ctl" bs=8 skip=513 count=4 2>/dev/null | tr -d '\0')"
	disarm
}

complaints=''
complain() {
	complaints+="$place: $*; status $status, $(head -c 300 <<<"$err")"$'\n'
}

places() { # nr of
	local step=$(($2 / $1)) n
	if [ -n "${FAULT_ALL:-}" ] || ((step < 2)); then
		seq "$2"
		return
	fi
	for ((n = RANDOM % step + 1; n <= $2; n += step)); do
		echo "$n"
	done
}

before() { :; }		# for a script to replace: what each try needs, unharmed

sweep() { # name nr order check
	local n total
	before
	arm "${3/@/0}"
	"$4"
	total=$nr_seen
	((total > 0)) || complaints="no such call was seen"$'\n'
	for n in $(places "$2" "$total"); do
		before
		arm "${3/@/$n}"
		"$4"
	done
	is "$1 ($total places)" "$complaints" ""
	complaints=''
}

# What holds for every command whose calls fail.
ended_well() { # allowed statuses
	case " $* " in
	*" $status "*) ;;
	*) complain "the command ended otherwise" ;;
	esac
	[ "$status" != 1 ] || [[ $err =~ ^machinen:\ \([A-Z_]+\):\  ]] ||
		complain "an error without a code"
}
