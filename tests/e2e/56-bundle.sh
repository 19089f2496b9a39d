#!/bin/bash
# SPDX-License-Identifier: MIT
# What a bundle says of itself and why it cannot be resumed here; what a restored or
# forked VM may have of its own.
. "$(dirname "$0")/lib.sh"
need_base
bundle=$scratch/b
image=$(readlink -f "$MACHINEN_ASSETS_DIR")/base.tar.zst
in_vm() { machinen exec "$1" -- sh -c "$2"; }
refused() { # what, code, command...
	local what=$1 code=$2
	shift 2
	run "$@"
	like "$what" "$status $err" "^1 machinen: \($code\): "
}
digest() { # makes meta.json on stdin match its digest again
	local doc
	doc=$(jq -cS 'del(.digest)')
	jq --arg d "$(printf %s "$doc" | sha256sum | cut -d' ' -f1)" '.digest = $d' <<<"$doc"
}

mkdir -p "$scratch/copied/sub" "$scratch/shared"
echo one >"$scratch/copied/a"
echo two >"$scratch/copied/sub/b"
machinen boot -d --timeout 300 --name src --memory 512 --env V=boot -- sleep 100000 >/dev/null
run machinen inspect src --json
is "a VM's kernel and image" "$(jq -r '.kernel.sha256, .image_sha256' <<<"$out")" \
	"$(jq -r '.files.vmlinuz.sha256, .files["base.tar.zst"].sha256' "$MACHINEN_ASSETS_DIR/manifest.json")"
is "its kernel's version" "$(jq -r .kernel.version <<<"$out")" "$(machinen exec src -- uname -r)"

# fork --mount: the sibling alone
run machinen fork src --new-name m -d --mount "$scratch/copied:/mnt/new"
is "fork --mount" "$status $err" "0 "
is "the sibling has it" "$(in_vm m 'cat /mnt/new/a /mnt/new/sub/b')" $'one\ntwo'
in_vm m 'echo three >/mnt/new/a'
is "its writes stay its own" "$(cat "$scratch/copied/a")" one
is "the source has nothing" "$(in_vm src 'ls /mnt')" ""
in_vm src 'mkdir /mnt/full; echo mine >/mnt/full/x'
refused "over what is there" BOOT_MOUNT_INVALID \
	machinen fork src --new-name n -d --mount "$scratch/copied:/mnt/full"
refused "no such directory" BOOT_MOUNT_HOST_NOT_FOUND \
	machinen fork src --new-name n -d --mount "$scratch/none:/mnt/n"
refused "not below /mnt/" MOUNT_PATH_INVALID \
	machinen fork src --new-name n -d --mount "$scratch/copied:/etc/n"
refused "fork --out-dir, a name in use" REGISTRY_NAME_IN_USE \
	machinen fork src --new-name m -d --out-dir "$scratch/taken"
ok "no bundle is written" [ ! -e "$scratch/taken" ]
is "nothing is left of them" "$(machinen ls --json | jq -r '[.vms[].name] | sort | join(" ")')" "m src"

# the new VM's own
run machinen fork src --new-name k -d --env V=fork --env W=2 --cwd /var --memory 512 \
	--image "$image" --out-dir "$bundle"
is "fork --out-dir --env --cwd --memory --image" "$status $err" "0 "
is "environment and directory of what begins in it" "$(in_vm k 'echo $V $W; pwd')" $'fork 2\n/var'
is "and in the source" "$(in_vm src 'echo $V $W; pwd')" $'boot\n/'
is "it says whose it is" "$(machinen inspect k --json | jq -r '.forked_from, .image')" "src"$'\n'"$image"
run machinen restore "$bundle" -d --name r --env V=restore --cwd /usr --image "$image"
is "restore --env --cwd --image" "$(in_vm r 'echo $V $W; pwd')" $'restore\n/usr'
refused "restore --image of another" BOOT_IMAGE_INVALID \
	machinen restore "$bundle" -d --image "$scratch/copied/a"
refused "restore --image of none" BOOT_IMAGE_NOT_FOUND \
	machinen restore "$bundle" -d --image "$scratch/none"
refused "restore --memory" BOOT_MEMORY_INVALID machinen restore "$bundle" -d --memory 1024
case $(machinen inspect src --json | jq -r .accel) in soft) other=kvm ;; *) other=soft ;; esac
refused "fork --accel of another backend" BOOT_ACCEL_UNAVAILABLE \
	machinen fork src -d --accel $other
run env MACHINEN_ACCEL=$other machinen fork src -d --new-name own
is "the environment's is for VMs made from nothing" "$status $err" "0 "
machinen stop --force own >/dev/null

# where a bundle may be
ln -s nowhere "$scratch/nowhere"
run machinen snapshot src "$scratch/nowhere" --keep-alive --json
is "a link to nowhere, and why in JSON" \
	"$(jq -r '.error | .code, .causes[0]' <<<"$out")" \
	"SNAPSHOT_DUMP_FAILED"$'\n'"$scratch/nowhere is a link to nowhere"
refused "too long a name" SNAPSHOT_DUMP_FAILED \
	machinen snapshot src "$scratch/$(printf 'x%.0s' {1..201})" --keep-alive
mkdir "$scratch/place"
ln -s place "$scratch/link"
run machinen snapshot src "$scratch/link" --keep-alive
is "a link to a directory" "$status $err$(ls "$scratch/place/meta.json")" "0 $scratch/place/meta.json"
for verb in "restore $bundle" "fork src"; do
	# shellcheck disable=SC2086
	refused "${verb%% *} --mount-live on what is none" BOOT_LIVE_MOUNT_OVERRIDE_UNKNOWN \
		machinen $verb -d --mount-live "$scratch/shared:/mnt/live"
done

# inspect
run machinen inspect "$bundle" --verify --json
is "restorable here" "$(jq -c '.restorable | .here, .problems' <<<"$out")" $'true\n[]'
is "kernel and image" "$(jq -r '.kernel.sha256, .image_sha256' <<<"$out")" \
	"$(machinen inspect src --json | jq -r '.kernel.sha256, .image_sha256')"
is "memory by kind adds up" "$(jq '.memory | .disk_bytes + .own_bytes == .bytes and
	.zero_bytes + .bytes == 512 * 1048576 and .disk_bytes > 0' <<<"$out")" true
is "so do the parts" "$(jq '([.parts[].on_disk] | add) == .bytes and
	.parts.memory.bytes == 512 * 1048576' <<<"$out")" true
is "lineage" "$(jq -r '.lineage[-1] | .event, .name, .pid' <<<"$out" | paste -sd' ')" \
	"snapshot src $(machinen inspect src --json | jq .pid)"

# no link and no clone leads to another file system: the bundle has copies
if [ "$(stat -c %d /dev/shm)" != "$(stat -c %d "$scratch")" ]; then
	away=$(mktemp -d /dev/shm/machinen-test.XXXXXX)
	trap 'rm -rf "$away"; cleanup' EXIT
	run machinen snapshot m "$away/b"
	is "a bundle on another file system" "$status $err" "0 "
	run machinen inspect "$away/b" --verify --json
	is "nothing of it is shared" "$(jq '.linked, .restorable.here' <<<"$out" | paste -sd' ')" \
		"0 true"
	machinen restore "$away/b" -d --name away >/dev/null
	is "it resumes" "$(in_vm away 'cat /mnt/new/a')" three
	rm -rf "$away"
fi

cp -r "$bundle" "$scratch/bad"
why() { # of $scratch/bad, with a meta.json changed by jq
	jq "$1" "$bundle/meta.json" | digest >"$scratch/bad/meta.json"
	run machinen inspect "$scratch/bad" --json
	jq -r '.restorable | .here, .problems[].code' <<<"$out" | paste -sd' '
}
is "inspect: another format" "$(why '.format_version = 99')" "false SNAPSHOT_VERSION"
is "inspect: another arch" "$(why '.arch = "arm64"')" "false SNAPSHOT_ARCH_MISMATCH"
is "inspect: a live mount" "$(why '.spec.fs = [{id: "live0", guest: "/mnt/live"}]')" \
	"false BOOT_MOUNT_HOST_NOT_FOUND"
refused "restore says so, too" BOOT_MOUNT_HOST_NOT_FOUND machinen restore "$scratch/bad" -d
refused "and that a directory is missing" BOOT_MOUNT_HOST_NOT_FOUND \
	machinen restore "$scratch/bad" -d --mount-live "$scratch/none:/mnt/live:ro"
is "inspect: untouched again" "$(why .)" true
truncate -s 4096 "$scratch/bad/root.1"
is "inspect: damage" "$(why .)" "false SNAPSHOT_DAMAGED"
refused "inspect --verify: damage is an error" SNAPSHOT_DAMAGED \
	machinen inspect "$scratch/bad" --verify
# a host without what the guest was started with
cat >"$scratch/vmm" <<'VMM'
#!/bin/sh
[ "$1 $2" = "--probe $BUNDLE" ] && printf 'kvm no /dev/kvm\nsoft this host (soft) lacks CPU features: avx2\n'
VMM
chmod +x "$scratch/vmm"
BUNDLE=$bundle MACHINEN_VMM=$scratch/vmm run machinen inspect "$bundle" --json
is "inspect: a CPU without a feature" "$(jq -r '.restorable | .here, .problems[0].code,
	.problems[0].message' <<<"$out" | paste -sd' ')" \
	"false SNAPSHOT_CPU_MISMATCH kvm: no /dev/kvm; soft: this host (soft) lacks CPU features: avx2"
BUNDLE=$bundle MACHINEN_VMM=$scratch/vmm run machinen inspect "$bundle"
like "in words" "$out" 'restorable +no: \(SNAPSHOT_CPU_MISMATCH\): .*avx2'
finish
