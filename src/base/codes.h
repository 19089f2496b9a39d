/* SPDX-License-Identifier: MIT */
/*
 * codes.h - the one table of user-visible error codes.
 *
 * X(code, retryable, what it means).  The public header, the manual page and
 * `machinen agent-context` are generated from or checked against this table;
 * no code is spelled anywhere else.
 */
#ifndef BASE_CODES_H
#define BASE_CODES_H

#include <stdbool.h>

#define ERR_CODES(X) \
	X(BOOT_VMM_MISSING, 0, "the machinen-vmm program was not found") \
	X(BOOT_IMAGE_NOT_FOUND, 0, "no such image") \
	X(BOOT_IMAGE_INVALID, 0, "the image is damaged or not acceptable") \
	X(BOOT_SNAPSHOT_NOT_FOUND, 0, "no such bundle") \
	X(BOOT_KERNEL_NOT_FOUND, 0, "no such kernel, or not a Linux kernel") \
	X(BOOT_CMD_MISSING, 0, "no command was given and none is baked in") \
	X(BOOT_CWD_INVALID, 0, "the working directory is not usable") \
	X(BOOT_MOUNT_INVALID, 0, "a mount is not acceptable") \
	X(BOOT_MOUNT_HOST_NOT_FOUND, 0, "the host side of a mount is absent") \
	X(BOOT_LIVE_MOUNT_OVERRIDE_UNKNOWN, 0, "the bundle has no such live mount") \
	X(BOOT_PORT_FORWARD_INVALID, 0, "a port forward is not acceptable") \
	X(BOOT_PORT_FORWARD_CONFLICT, 0, "two port forwards are in each other's way") \
	X(BOOT_PORT_FORWARD_IN_USE, 0, "a host port is taken") \
	X(BOOT_ACCEL_UNAVAILABLE, 0, "the CPU backend asked for does not work here") \
	X(BOOT_MEMORY_INVALID, 0, "the memory size is not acceptable") \
	X(BOOT_TIMEOUT, 1, "the guest was not ready in time") \
	X(BOOT_READINESS_FAILED, 0, "the guest ended before it was ready") \
	X(FORK_MEMORY_BACKPRESSURE, 1, "too little free memory to fork") \
	X(EXEC_AGENT_UNAVAILABLE, 1, "the guest agent does not answer") \
	X(EXEC_TIMEOUT, 1, "the command did not end in time") \
	X(EXEC_NONZERO_EXIT, 0, "the command failed") \
	X(EXEC_PROTOCOL, 0, "the guest agent sent something unexpected") \
	X(SNAPSHOT_DUMP_FAILED, 0, "the snapshot could not be written") \
	X(SNAPSHOT_TIMEOUT, 1, "the snapshot was not written in time") \
	X(SNAPSHOT_DAMAGED, 0, "the bundle is damaged") \
	X(SNAPSHOT_VERSION, 0, "the bundle has an unknown format version") \
	X(SNAPSHOT_ARCH_MISMATCH, 0, "the bundle is for another architecture") \
	X(SNAPSHOT_CPU_MISMATCH, 0, "this host lacks CPU features of the bundle") \
	X(PROVISION_BASE_NOT_FOUND, 0, "there is no base; run machinen install") \
	X(PROVISION_INSTALL_HOOK_FAILED, 0, "a bake step failed") \
	X(PROVISION_DISK_TOO_SMALL, 0, "the disk is too small for its content") \
	X(REGISTRY_VM_NOT_FOUND, 0, "no such VM") \
	X(REGISTRY_NAME_IN_USE, 0, "a running VM has that name") \
	X(REGISTRY_NAME_INVALID, 0, "not a usable VM name") \
	X(FILES_HOST_NOT_FOUND, 0, "no such file on the host") \
	X(FILES_GUEST_NOT_FOUND, 0, "no such file in the guest") \
	X(MOUNT_PATH_INVALID, 0, "not a usable path") \
	X(MOUNT_PATH_ESCAPE, 0, "the path leads out of its directory") \
	X(SECRETS_VALUE_INVALID, 0, "not a usable secret") \
	X(INSTALL_FAILED, 1, "kernel or base could not be installed") \
	X(HOST_NO_SPACE, 0, "a host file system is full") \
	X(HOST_FAILED, 0, "the host refused a system call or a file") \
	X(PARSE_COMMAND_UNKNOWN, 0, "no such command") \
	X(PARSE_FLAG_UNKNOWN, 0, "no such flag") \
	X(PARSE_FLAG_MISSING_VALUE, 0, "the flag needs a value") \
	X(PARSE_FLAG_DUPLICATE, 0, "the flag may be given once") \
	X(PARSE_FLAG_MALFORMED, 0, "the flag's value is not acceptable") \
	X(PARSE_PORT_INVALID, 0, "not a port number") \
	X(PARSE_ARGUMENT_MISSING, 0, "an argument is missing") \
	X(PARSE_ARGUMENT_EXTRA, 0, "an argument too many")

enum err_code {
	ERR_NONE,
#define X(code, retryable, text) ERR_##code,
	ERR_CODES(X)
#undef X
	ERR_NR_CODES
};

/* Borrowed strings of static life; "" for ERR_NONE and out of range. */
const char *err_code_name(enum err_code code);
const char *err_code_text(enum err_code code);
bool err_code_retryable(enum err_code code);
/* ERR_NONE when unknown. */
enum err_code err_code_parse(const char *name);

#endif
