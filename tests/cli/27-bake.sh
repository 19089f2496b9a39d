#!/bin/bash
# SPDX-License-Identifier: MIT
# bake: what is refused before a VM is made, and that nothing is written then.
. "$(dirname "$0")/lib.sh"

mkdir -p "$scratch/d" "$MACHINEN_HOME/vms"
cd "$scratch/d" || exit 1
fails() { # name code status arguments...
	local name=$1 code=$2 want=$3
	shift 3
	run machinen bake "$@"
	is "$name: exit status" "$status" "$want"
	like "$name: code" "$err" "^machinen: \($code\): "
	is "$name: nothing left" "$(left_behind)$(ls -A)" ""
}
fails "no output" PARSE_ARGUMENT_MISSING 2 --run true
fails "unknown kind of archive" PARSE_FLAG_MALFORMED 1 --run true --out x.zip
fails "no such directory" FILES_HOST_NOT_FOUND 1 --run true --out /none/x.tar
mkdir "$scratch/d.tar"
fails "over a directory" FILES_HOST_NOT_FOUND 1 --run true --out "$scratch/d.tar"
fails "copy without colon" PARSE_FLAG_MALFORMED 2 --copy a --out x.tar
fails "copy of nothing" FILES_HOST_NOT_FOUND 1 --copy /none:/a --out x.tar
fails "copy to a relative path" MOUNT_PATH_INVALID 1 --copy /etc/passwd:a --out x.tar
fails "bad environment" PARSE_FLAG_MALFORMED 1 --env A --out x.tar
fails "bad directory" BOOT_CWD_INVALID 1 --cwd a --out x.tar
fails "no image" BOOT_IMAGE_NOT_FOUND 1 --from /none.tar --out x.tar
fails "no file of steps" FILES_HOST_NOT_FOUND 2 -f /none --out x.tar
printf '# a comment\nrun true\nmake coffee\n' >"$scratch/steps"
fails "bad step in a file" PARSE_FLAG_MALFORMED 2 -f "$scratch/steps" --out x.tar
like "and where" "$err" 'steps:3: "make"'
finish
