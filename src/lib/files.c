// SPDX-License-Identifier: MIT
/*
 * files.c - files and directories into and out of a VM, over the agent.
 *
 * While data goes in, the agent may say no: so before each frame the connection
 * is looked at.  It reads on after that, so a sender never hangs.
 */
#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"
#include "lib/agent_client.h"
#include "lib/copy.h"
#include "lib/vm.h"

#define BLOCK 65536

struct stream {
	int fd;				/* owned */
	const struct mn_copy *cfg;	/* for progress */
	uint64_t done;
	bool ended;			/* EOF came */
	struct err *err;
	char data[AGENT_FRAME_MAX];
};

static int progress(struct stream *s, size_t n)
{
	s->done += n;
	return lib_progress(s->cfg->event, s->cfg->event_arg, "copying", s->done, 0);
}

/* The agent's refusal, when there is one to read. */
static int look_for_fail(struct stream *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	if (poll(&p, 1, 0) <= 0)
		return 0;
	return agent_answer(s->fd, NULL, ERR_FILES_GUEST_NOT_FOUND, s->err);
}

static int send_data(struct stream *s, const void *data, size_t len)
{
	int ret = look_for_fail(s);

	for (size_t at = 0; !ret && at < len; ) {
		size_t n = MIN(len - at, (size_t)BLOCK);

		ret = agent_send(s->fd, AGENT_DATA, (const char *)data + at, n);
		if (ret)
			err_code(s->err, ERR_EXEC_AGENT_UNAVAILABLE, -ret,
				 "the VM went away while it was copied to");
		at += n;
	}
	return ret ? ret : progress(s, len);
}

static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t len)
{
	struct stream *s = arg;
	int ret = send_data(s, data, len);

	if (!ret)
		return (la_ssize_t)len;
	if (!s->err->num)
		err_set(s->err, -ret, "stopped");
	archive_set_error(a, -ret, "%s", err_message(s->err));
	return -1;
}

/* The next DATA frame: its length, 0 at EOF, -errno. */
static ssize_t receive(struct stream *s)
{
	enum agent_frame type;
	uint32_t len;
	int ret;

	if (s->ended)
		return 0;
	ret = agent_recv(s->fd, &type, s->data, &len);
	if (ret <= 0)
		return err_code(s->err, ERR_EXEC_AGENT_UNAVAILABLE, ECONNRESET,
				"the VM went away while it was copied from");
	if (type == AGENT_FAIL)
		return agent_fail(s->data, len, ERR_FILES_GUEST_NOT_FOUND, s->err);
	if (type != AGENT_DATA && type != AGENT_EOF)
		return err_code(s->err, ERR_EXEC_PROTOCOL, EPROTO,
				"the guest agent sent an unexpected frame %d", type);
	s->ended = type == AGENT_EOF;
	ret = s->ended ? 0 : progress(s, len);
	return ret ? ret : s->ended ? 0 : (ssize_t)len;
}

static la_ssize_t on_read(struct archive *a, void *arg, const void **data)
{
	struct stream *s = arg;
	ssize_t n;

	do
		n = receive(s);
	while (!n && !s->ended);
	*data = s->data;
	if (n >= 0)
		return n;
	if (!s->err->num)
		err_set(s->err, (int)-n, "stopped");
	archive_set_error(a, (int)-n, "%s", err_message(s->err));
	return -1;
}

static int open_stream(struct mn_vm *vm, struct stream **out, const struct mn_copy *cfg,
		       json_t *req, json_t **answer, struct err *err)
{
	struct stream *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	s->cfg = cfg;
	s->err = err;
	s->fd = agent_connect(vm->dir, vm->pidfd, 0, err);
	ret = s->fd < 0 ? s->fd : agent_send_json(s->fd, req);
	if (!ret && answer)
		ret = agent_answer(s->fd, answer, ERR_FILES_GUEST_NOT_FOUND, err);
	if (ret && !err->num)
		err_code(err, ERR_EXEC_AGENT_UNAVAILABLE, -ret,
			 "cannot send to the guest agent");
	json_decref(req);
	if (ret) {
		io_close(s->fd);
		free(s);
		return ret;
	}
	*out = s;
	return 0;
}

static void close_stream(struct stream *s)
{
	close(s->fd);
	free(s);
}

/* After the data: the agent says whether it is through. */
static int finish_put(struct stream *s)
{
	int ret = agent_send(s->fd, AGENT_EOF, "", 0);

	if (ret)
		return err_code(s->err, ERR_EXEC_AGENT_UNAVAILABLE, -ret,
				"the VM went away while it was copied to");
	return agent_answer(s->fd, NULL, ERR_FILES_GUEST_NOT_FOUND, s->err);
}

/* --- directories ---------------------------------------------------------- */

/* What lies at host goes where the request (stolen) says. */
static int put(struct mn_vm *vm, const char *host, json_t *req,
	       const struct mn_copy *cfg, struct err *err)
{
	struct archive *a;
	struct stream *s;
	int ret = open_stream(vm, &s, cfg, req, NULL, err);

	if (ret)
		return ret;
	a = archive_write_new();
	if (!a || archive_write_set_format_pax(a) < ARCHIVE_WARN ||
	    archive_write_set_options(a, "hdrcharset=BINARY,xattrheader=SCHILY") <
	    ARCHIVE_WARN ||	/* names are bytes, whatever the locale */
	    archive_write_set_bytes_in_last_block(a, 1) < ARCHIVE_WARN ||
	    archive_write_set_bytes_per_block(a, BLOCK) < ARCHIVE_WARN ||
	    archive_write_open(a, s, NULL, on_write, NULL) < ARCHIVE_WARN)
		ret = err_set(err, ENOMEM, "out of memory");
	if (!ret)
		ret = copy_pack(a, host, err);
	archive_write_free(a);
	if (!ret)
		ret = finish_put(s);
	close_stream(s);
	return ret;
}

/* A link that is named means what it points to, as with cp. */
static int host_path(const char *host, char full[PATH_MAX], struct err *err)
{
	return realpath(host, full) ? 0 :
	       err_code(err, ERR_FILES_HOST_NOT_FOUND, errno, "%s: %s", host,
			strerror(errno));
}

static int push(struct mn_vm *vm, const char *host, const char *guest,
		const struct mn_copy *cfg, struct err *err)
{
	char full[PATH_MAX], copy[PATH_MAX];
	int ret = host_path(host, full, err);

	if (ret)
		return ret;
	memcpy(copy, full, sizeof(copy));
	return put(vm, full, json_pack("{s:s, s:s, s:s, s:b}", "op", "put", "path", guest,
				       "name", basename(copy), "parents", cfg->parents),
		   cfg, err);
}

int copy_mount(struct mn_vm *vm, const char *host, const char *guest,
	       const struct mn_copy *cfg, struct err *err)
{
	char full[PATH_MAX];
	int ret = host_path(host, full, err);

	return ret ? ret : put(vm, full, json_pack("{s:s, s:s, s:b, s:b}", "op", "put",
						   "path", guest, "parents", 1, "empty", 1),
			       cfg, err);
}

/* Where a copy goes: into a directory that is there, else under its own name. */
static int destination(const char *host, const char *guest, int *dir,
		       char name[NAME_MAX + 1], struct err *err)
{
	char parent[PATH_MAX], last[PATH_MAX];
	struct stat st;

	snprintf(parent, sizeof(parent), "%s", host);
	snprintf(last, sizeof(last), "%s", host);
	if (!stat(host, &st) && S_ISDIR(st.st_mode)) {
		snprintf(last, sizeof(last), "%s", guest);
		snprintf(name, NAME_MAX + 1, "%s", basename(last));
		*dir = open(host, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else {
		snprintf(name, NAME_MAX + 1, "%s", basename(last));
		*dir = open(dirname(parent), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (*dir < 0)
		return err_code(err, ERR_FILES_HOST_NOT_FOUND, errno, "%s: %s", host,
				strerror(errno));
	if (!strcmp(name, "/") || !strcmp(name, ".") || !strcmp(name, ".."))
		strcpy(name, "rootfs");
	return 0;
}

static int pull(struct mn_vm *vm, const char *guest, const char *host,
		const struct mn_copy *cfg, struct err *err)
{
	cleanup(io_closep) int dir = -1;
	cleanup(json_putp) json_t *answer = NULL;
	char name[NAME_MAX + 1];
	struct archive *a;
	struct stream *s;
	int ret = destination(host, guest, &dir, name, err);

	if (ret)
		return ret;
	ret = open_stream(vm, &s, cfg, json_pack("{s:s, s:s}", "op", "get", "path",
						 guest), &answer, err);
	if (ret)
		return ret;
	a = archive_read_new();
	if (!a || archive_read_support_format_tar(a) < ARCHIVE_WARN ||
	    archive_read_open(a, s, NULL, on_read, NULL) < ARCHIVE_WARN)
		ret = err->num ? -err->num : err_set(err, EPROTO, "the guest sent no tar stream");
	if (!ret)
		ret = copy_unpack(a, dir, name, err);
	archive_read_free(a);
	close_stream(s);
	return ret;
}

static int with_config(struct mn_vm *vm, const char *from, const char *to,
		       const struct mn_copy *cfg, struct mn_error *err,
		       int (*run)(struct mn_vm *vm, const char *from, const char *to,
				  const struct mn_copy *cfg, struct err *err))
{
	struct mn_copy own = { .size = sizeof(own) };
	struct err e = ERR_INIT;
	int ret = cfg ? lib_config(&own, sizeof(own), cfg, &e) : 0;

	return lib_return(err, &e, ret ? ret : run(vm, from, to, &own, &e));
}

int mn_push(struct mn_vm *vm, const char *host, const char *guest,
	    const struct mn_copy *cfg, struct mn_error *err)
{
	return with_config(vm, host, guest, cfg, err, push);
}

int mn_pull(struct mn_vm *vm, const char *guest, const char *host,
	    const struct mn_copy *cfg, struct mn_error *err)
{
	return with_config(vm, guest, host, cfg, err, pull);
}

/* --- single files --------------------------------------------------------- */

int mn_write_file(struct mn_vm *vm, const char *guest, const void *data, size_t len,
		  unsigned mode, bool append, struct mn_error *err)
{
	struct mn_copy none = { .size = sizeof(none) };
	struct err e = ERR_INIT;
	struct stream *s;
	int ret = open_stream(vm, &s, &none, json_pack("{s:s, s:s, s:i, s:b, s:b}",
			"op", "write", "path", guest, "mode", mode ? (int)mode : 0644,
			"append", append, "parents", 1), NULL, &e);

	if (!ret) {
		ret = send_data(s, data, len);
		if (!ret)
			ret = finish_put(s);
		close_stream(s);
	}
	return lib_return(err, &e, ret);
}

static int read_file(struct mn_vm *vm, const char *guest, void **data, size_t *len,
		     struct err *err)
{
	struct mn_copy none = { .size = sizeof(none) };
	cleanup(json_putp) json_t *answer = NULL;
	struct buf b = BUF_INIT;
	struct stream *s;
	ssize_t n;
	int ret = open_stream(vm, &s, &none, json_pack("{s:s, s:s}", "op", "read",
						       "path", guest), &answer, err);

	if (ret)
		return ret;
	while ((n = receive(s)) > 0 || (!n && !s->ended))
		buf_add(&b, s->data, (size_t)n);
	close_stream(s);
	*len = b.len;
	if (n >= 0)
		*data = buf_steal(&b);
	if (n >= 0 && !*data)
		n = err_set(err, ENOMEM, "out of memory");
	buf_done(&b);
	return (int)n;
}

int mn_read_file(struct mn_vm *vm, const char *guest, void **data, size_t *len,
		 struct mn_error *err)
{
	struct err e = ERR_INIT;

	*data = NULL;
	return lib_return(err, &e, read_file(vm, guest, data, len, &e));
}
