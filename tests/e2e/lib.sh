# SPDX-License-Identifier: MIT
# lib.sh - what test scripts share; sourced first.
#
# A script gets a machinen home of its own, with the installed base (installed once,
# in the user's own home) and a cache shared by all; prints TAP; leaves no VM.
#
#	ok "what holds" test...		runs the test; "ok N - what holds" or "not ok"
#	run command...			output in $out and $err, status in $status
#	is WHAT GOT WANTED		two strings are the same
#	like WHAT TEXT PATTERN		an extended regular expression matches
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
O=${O:-build}
export PATH="$PWD/$O/bin:$PATH"
unset MACHINEN_LOG MACHINEN_ACCEL NO_COLOR
[ -z "${BACKEND:-}" ] || export MACHINEN_ACCEL=$BACKEND
export MACHINEN_SANDBOX=strict		# a system call that nobody declared ends the VM
tap_n=0 tap_failed=0 out='' err='' status=0

scratch=$(mktemp -d "${TMPDIR:-/tmp}/machinen-test.XXXXXX")
user_home=${MACHINEN_HOME:-$HOME/.machinen}
export MACHINEN_HOME=$scratch/home

cleanup() {
	local pid
	for pid in "$MACHINEN_HOME"/vms/[0-9]*; do
		[ -e "$pid" ] && machinen stop --force "${pid##*/}" >/dev/null 2>&1
	done
	rm -rf "$scratch"
}
trap cleanup EXIT

tap() { # result name
	tap_n=$((tap_n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $tap_n - $2"
	else
		echo "not ok $tap_n - $2"
		tap_failed=1
	fi
}

diag() { sed 's/^/# /'; }

ok() {
	local name=$1
	shift
	"$@"
	tap $? "$name"
}

run() {
	"$@" >"$scratch/out" 2>"$scratch/err" </dev/null
	status=$?
	out=$(<"$scratch/out")
	err=$(<"$scratch/err")
}

# run, with this function's stdin
run_in() {
	"$@" >"$scratch/out" 2>"$scratch/err"
	status=$?
	out=$(<"$scratch/out")
	err=$(<"$scratch/err")
}

is() {
	if [ "$2" = "$3" ]; then
		tap 0 "$1"
	else
		tap 1 "$1"
		printf 'got:    %s\nwanted: %s\n' "$2" "$3" | diag
	fi
}

like() {
	if [[ $2 =~ $3 ]]; then
		tap 0 "$1"
	else
		tap 1 "$1"
		printf 'got:    %s\nwanted: %s\n' "$2" "$3" | diag
	fi
}

# The base, from where the user has it; installed there when it is not.
need_base() {
	if [ -z "${MACHINEN_ASSETS_DIR:-}" ]; then
		MACHINEN_HOME=$user_home machinen install >/dev/null 2>"$scratch/err" || {
			diag <"$scratch/err"
			echo "not ok 1 - machinen install"
			exit 1
		}
		export MACHINEN_ASSETS_DIR=$user_home/base/current
	fi
	mkdir -p "$MACHINEN_HOME" "$user_home/cache"
	ln -s "$user_home/cache" "$MACHINEN_HOME/cache"
}

# Does KVM run guests here?  $reason is what doctor says of it.  In the lab it does,
# but a loaded host makes it slower than doctor waits.
kvm_works() {
	run machinen doctor --json
	reason=$(jq -r '.findings[] | select(.check == "kvm").what' <<<"$out")
	[ "$(jq -r '.findings[] | select(.check == "kvm").level' <<<"$out")" = ok ] && return
	[ "${BACKEND:-}" = kvm ] && eventually 60 doctor_likes_kvm
}
doctor_likes_kvm() {
	reason=$(machinen doctor --json | jq -r '.findings[] | select(.check == "kvm").what')
	[ "$reason" = "KVM runs guests" ]
}

# The VMM with that pid has ended; a zombie has, too.
vm_gone() {
	local state
	state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 0
	[ -z "$state" ] || [ "$state" = Z ]
}

# Waits until a command succeeds; the only place that tries again.
eventually() { # seconds command...
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || return 1
		sleep 0.05
	done
}

# The last line of every script.
finish() {
	echo "1..$tap_n"
	exit $tap_failed
}
