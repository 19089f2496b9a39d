/* SPDX-License-Identifier: MIT */
/*
 * io.h - descriptors: whole reads and writes, small files, passing
 * descriptors, atomic replacement.  All return 0 or a length, or -errno.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;
struct err;

/* Repeat until all is done.  io_read_full gives less than len only at EOF. */
ssize_t io_read_full(int fd, void *data, size_t len);
int io_write_full(int fd, const void *data, size_t len);
ssize_t io_pread_full(int fd, void *data, size_t len, off_t off);
int io_pwrite_full(int fd, const void *data, size_t len, off_t off);

/* close(2) that keeps errno and ignores negative descriptors. */
void io_close(int fd);
void io_closep(int *fd);	/* for cleanup(io_closep) */
int io_set_nonblock(int fd, bool on);

/* Appends the whole file, at most `max` bytes (-EFBIG past that). */
int io_read_file(int dirfd, const char *path, size_t max, struct buf *out);
/*
 * Replaces or creates path at once: written beside it, renamed.  A reader sees
 * the old content or the new.  mode as in open(2).
 */
int io_write_file(int dirfd, const char *path, const void *data, size_t len,
		  mode_t mode);
/* Makes the directory and what is missing above it; fine when it exists. */
int io_mkdir_all(const char *path, mode_t mode);
/* Removes a file or a directory tree; fine when absent.  Follows no links. */
int io_remove_tree(int dirfd, const char *path);

/*
 * One message of a SOCK_SEQPACKET or SOCK_STREAM Unix socket with descriptors.
 * io_recv_fds stores at most *nr_fds (close-on-exec, owned by the caller), sets
 * *nr_fds to what came, and closes what did not fit.
 */
ssize_t io_send_fds(int sock, const void *data, size_t len,
		    const int *fds, unsigned nr_fds);
ssize_t io_recv_fds(int sock, void *data, size_t len, int *fds,
		    unsigned *nr_fds);

uint64_t io_now_ns(void);	/* CLOCK_MONOTONIC */

#endif
