#!/bin/bash
# SPDX-License-Identifier: MIT
# boot --mount: what is refused, and before anything is made.
. "$(dirname "$0")/lib.sh"

mkdir -p "$scratch/d" "$MACHINEN_HOME/vms"
touch "$scratch/f"
fails() { # name code status mounts...
	local name=$1 code=$2 want=$3 args=()
	shift 3
	for m in "$@"; do
		args+=(--mount "$m")
	done
	run machinen boot "${args[@]}" -- true
	is "$name: exit status" "$status" "$want"
	like "$name: code" "$err" "^machinen: \($code\): "
	is "$name: nothing left" "$(left_behind)" ""
}
d=$scratch/d
fails "no colon" BOOT_MOUNT_INVALID 2 data
fails "no guest" BOOT_MOUNT_INVALID 2 "$d:"
fails "twice" BOOT_MOUNT_INVALID 1 "$d:/mnt/a" "$d:/mnt/a"
fails "too many" BOOT_MOUNT_INVALID 1 $(printf "$d:/mnt/%d " {1..16})
fails "no host directory" BOOT_MOUNT_HOST_NOT_FOUND 1 /none:/mnt/a
fails "a file" BOOT_MOUNT_HOST_NOT_FOUND 1 "$scratch/f:/mnt/a"
fails "elsewhere" MOUNT_PATH_INVALID 1 "$d:/etc/a"
fails "relative" MOUNT_PATH_INVALID 1 "$d:mnt/a"
fails "all of /mnt" MOUNT_PATH_INVALID 1 "$d:/mnt/"
fails "out of /mnt" MOUNT_PATH_ESCAPE 1 "$d:/mnt/../etc"
finish
