// SPDX-License-Identifier: MIT
/*
 * worker.c - operations on the guest's files, each in a process of its own.
 *
 * They may block for as long as a disk or a FIFO likes, fail, or be killed, and
 * nothing but their own connection notices.  put and write answer when all is
 * on its way to the disk; a failure answers at once and then reads the rest of
 * what the host sends, so that the host's writes do not fail before it has read
 * the reason.
 */
#include "guest/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/boot.h"
#include "guest/guest.h"
#include "guest/spawn.h"

#define WORKER_SECRETS "/run/machinen/secrets"

static void write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		p += n;
		len -= n;
	}
}

static void read_all(struct worker *w, void *data, size_t len)
{
	char *p = data;

	if (w->early.len) {
		size_t n = MIN(len, w->early.len);

		memcpy(p, w->early.data, n);
		buf_drop(&w->early, n);
		p += n;
		len -= n;
	}
	while (len) {
		ssize_t n = read(w->fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		p += n;
		len -= n;
	}
}

/* The next DATA frame; false at EOF. */
static bool next_frame(struct worker *w)
{
	uint8_t head[AGENT_HEAD];
	enum agent_frame type;

	if (w->ended)
		return false;
	read_all(w, head, sizeof(head));
	if (!agent_head_get(head, &type, &w->len) ||
	    (type != AGENT_DATA && type != AGENT_EOF))
		_exit(1);
	read_all(w, w->frame, w->len);
	w->at = 0;
	w->ended = type == AGENT_EOF;
	return !w->ended;
}

size_t worker_read(struct worker *w, void *data, size_t len)
{
	size_t done = 0;

	while (done < len && (w->at < w->len || next_frame(w))) {
		size_t n = MIN(len - done, (size_t)(w->len - w->at));

		memcpy((char *)data + done, w->frame + w->at, n);
		w->at += n;
		done += n;
	}
	return done;
}

void worker_flush(struct worker *w)
{
	if (!w->fill)
		return;
	agent_head_put(w->chunk, AGENT_DATA, w->fill);
	write_all(w->fd, w->chunk, AGENT_HEAD + w->fill);
	w->fill = 0;
}

void worker_write(struct worker *w, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		size_t n = MIN(len, (size_t)(WORKER_CHUNK - w->fill));

		memcpy(w->chunk + AGENT_HEAD + w->fill, p, n);
		w->fill += n;
		p += n;
		len -= n;
		if (w->fill == WORKER_CHUNK)
			worker_flush(w);
	}
}

static void send_frame(struct worker *w, enum agent_frame type,
		       const char *text)
{
	uint8_t head[AGENT_HEAD];

	agent_head_put(head, type, strlen(text));
	write_all(w->fd, head, sizeof(head));
	write_all(w->fd, text, strlen(text));
}

void worker_ok(struct worker *w, const char *json)
{
	w->answered = true;
	send_frame(w, AGENT_OK, json);
}

int worker_fail(struct worker *w, int error, const char *what)
{
	if (!w->failed[0])
		snprintf(w->failed, sizeof(w->failed), "%.190s", what);
	return error < 0 ? error : -error;
}

/* Text as the inside of a JSON string; what is not printable ASCII becomes '?'. */
static void json_text(char *out, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 2 < size; text++) {
		if (*text == '"' || *text == '\\')
			out[n++] = '\\';
		out[n++] = *text >= ' ' && *text < 127 ? *text : '?';
	}
	out[n] = '\0';
}

static void send_failure(struct worker *w, int error)
{
	char what[2 * sizeof(w->failed)], json[sizeof(what) + 128];

	json_text(what, sizeof(what), w->failed);
	snprintf(json, sizeof(json), "{\"errno\":%d,\"message\":\"%s%s%s\"}",
		 error, what, what[0] ? ": " : "", strerror(error));
	send_frame(w, AGENT_FAIL, json);
}

static const char *text_of(const struct doc *d, const char *key)
{
	return doc_str(d, doc_get(d, DOC_ROOT, key));
}

static bool flag_of(const struct doc *d, const char *key)
{
	return doc_bool(d, doc_get(d, DOC_ROOT, key), false);
}

static int make_parents(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];

	if (!slash || slash == path)
		return 0;
	if ((size_t)(slash - path) >= sizeof(dir))
		return -ENAMETOOLONG;
	memcpy(dir, path, slash - path);
	dir[slash - path] = '\0';
	return mounts_mkdir(dir);
}

static int copy_in(struct worker *w, int fd)
{
	char data[WORKER_CHUNK];
	size_t n;

	while ((n = worker_read(w, data, sizeof(data)))) {
		for (size_t at = 0; at < n; ) {
			ssize_t k = write(fd, data + at, n - at);

			if (k < 0 && errno != EINTR)
				return -errno;
			at += k > 0 ? k : 0;
		}
	}
	return 0;
}

static int op_write(struct worker *w, const struct doc *d)
{
	const char *path = text_of(d, "path");
	int64_t mode = doc_int(d, doc_get(d, DOC_ROOT, "mode"), -1);
	int r = path ? 0 : -EINVAL, fd;

	if (!r && flag_of(d, "parents"))
		r = make_parents(path);
	if (r)
		return worker_fail(w, r, path ? path : "path");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY |
		  (flag_of(d, "append") ? O_APPEND : O_TRUNC),
		  mode < 0 ? 0644 : mode & 07777);
	if (fd < 0)
		return worker_fail(w, errno, path);
	if (mode >= 0 && fchmod(fd, mode & 07777))
		r = -errno;
	if (!r)
		r = copy_in(w, fd);
	if (close(fd) && !r)
		r = -errno;
	if (r)
		return worker_fail(w, r, path);
	worker_ok(w, "{}");
	return 0;
}

static int op_read(struct worker *w, const struct doc *d)
{
	const char *path = text_of(d, "path");
	char data[WORKER_CHUNK], json[96];
	struct stat st;
	ssize_t n;
	int fd;

	if (!path)
		return worker_fail(w, EINVAL, "path");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st))
		return worker_fail(w, errno, path);
	if (S_ISDIR(st.st_mode))
		return worker_fail(w, EISDIR, path);
	snprintf(json, sizeof(json), "{\"size\":%lld,\"mode\":%u}",
		 (long long)st.st_size, (unsigned)st.st_mode & 07777);
	worker_ok(w, json);
	while ((n = read(fd, data, sizeof(data))) > 0)
		worker_write(w, data, n);
	return n < 0 ? worker_fail(w, errno, path) : 0;
}

static const char *type_name(mode_t mode)
{
	return S_ISDIR(mode) ? "dir" : S_ISREG(mode) ? "file" :
	       S_ISLNK(mode) ? "link" : "other";
}

static int op_get(struct worker *w, const struct doc *d)
{
	const char *path = text_of(d, "path");
	char json[64];
	struct stat st;

	if (!path || lstat(path, &st))
		return worker_fail(w, path ? errno : EINVAL, path ? path : "path");
	snprintf(json, sizeof(json), "{\"type\":\"%s\"}", type_name(st.st_mode));
	worker_ok(w, json);
	return tar_write(w, path);
}

/*
 * Where a copy to path goes: into it when it is a directory, unless what is
 * copied is "contents" only; else it becomes path.
 */
static int put_target(struct worker *w, const struct doc *d, char *out,
		      size_t size)
{
	const char *path = text_of(d, "path"), *name = text_of(d, "name");
	char real[PATH_MAX];
	bool below = false;
	struct stat st;
	int n;

	if (!path || !*path || (name && (!*name || strchr(name, '/') ||
	    !strcmp(name, ".") || !strcmp(name, ".."))))
		return worker_fail(w, EINVAL, "path");
	if (!stat(path, &st) && realpath(path, real)) {
		below = S_ISDIR(st.st_mode) && name;
		path = real;	/* through a link, as cp does */
	} else if (flag_of(d, "parents") && make_parents(path)) {
		return worker_fail(w, errno, path);
	}
	n = below ? snprintf(out, size, "%s/%s", path, name) :
		    snprintf(out, size, "%s", path);
	return n < (int)size ? 0 : worker_fail(w, ENAMETOOLONG, path);
}

/* Nothing is there, or a directory with nothing in it. */
static bool is_empty(const char *path)
{
	struct dirent *e;
	bool empty = true;
	struct stat st;
	DIR *dir;

	if (lstat(path, &st))
		return errno == ENOENT;
	dir = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
	if (!dir)
		return false;
	while ((e = readdir(dir)))
		empty &= !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	closedir(dir);
	return empty;
}

static int op_put(struct worker *w, const struct doc *d)
{
	char root[PATH_MAX];
	int r = put_target(w, d, root, sizeof(root));

	if (!r && flag_of(d, "empty") && !is_empty(root))
		r = worker_fail(w, ENOTEMPTY, root);
	if (!r)
		r = tar_read(w, root);
	if (!r)
		worker_ok(w, "{}");
	return r;
}

static int op_sync(struct worker *w, const struct doc *d)
{
	sync();
	worker_ok(w, "{}");
	return 0;
}

static int op_mount(struct worker *w, const struct doc *d)
{
	const char *tag = text_of(d, "tag"), *path = text_of(d, "path");
	int r = tag && path ? mounts_live(tag, path, flag_of(d, "ro")) : -EINVAL;

	if (r)
		return worker_fail(w, r, path ? path : "path");
	worker_ok(w, "{}");
	return 0;
}

/* KEY=VALUE lines that only root reads; PID 1 has put them in the environment. */
static int op_secrets(struct worker *w, const struct doc *d)
{
	const char *path = text_of(d, "path");
	char **env = doc_strv(d, doc_get(d, DOC_ROOT, "env"));
	int r, fd;

	path = path ? path : WORKER_SECRETS;
	r = env ? make_parents(path) : -EINVAL;
	if (r)
		return worker_fail(w, r, path);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return worker_fail(w, errno, path);
	for (char **e = env; *e; e++)
		if (dprintf(fd, "%s\n", *e) < 0)
			return worker_fail(w, errno, path);
	worker_ok(w, "{}");
	return 0;
}

static const struct {
	const char *op;
	int (*run)(struct worker *w, const struct doc *d);
	bool sends;		/* DATA to the host, ended by EOF */
} operations[] = {
	{ "write", op_write, false }, { "put", op_put, false },
	{ "read", op_read, true }, { "get", op_get, true },
	{ "sync", op_sync, false }, { "freeze", op_sync, false },
	{ "mount", op_mount, false }, { "secrets", op_secrets, false },
};

static bool takes_data(const char *op)
{
	return !strcmp(op, "put") || !strcmp(op, "write");
}

static _Noreturn void run(struct session *s, const struct doc *d)
{
	const char *op = text_of(d, "op");
	struct worker *w = calloc(1, sizeof(*w));
	int r = -ENOSYS;

	spawn_reset(s->a->g);
	signal(SIGPIPE, SIG_IGN);
	umask(0);
	/*
	 * Of what PID 1 has open a worker keeps only this: another session's
	 * pipe held here would never end for the process at its other side.
	 */
	if (!w || dup2(s->conn.fd, 3) < 0 ||
	    syscall(SYS_close_range, 4u, ~0u, 0u))
		_exit(1);
	w->fd = 3;
	w->early = s->in;
	fcntl(w->fd, F_SETFL, 0);
	for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
		if (strcmp(op, operations[i].op))
			continue;
		r = operations[i].run(w, d);
		worker_flush(w);
		if (!r && operations[i].sends)
			send_frame(w, AGENT_EOF, "");
	}
	if (r) {
		send_failure(w, -r);
		while (takes_data(op) && next_frame(w))
			;
	}
	_exit(r ? 1 : 0);
}

void worker_request(struct session *s, const struct doc *d)
{
	const char *op = text_of(d, "op");
	pid_t pid;

	if (!strcmp(op, "secrets")) {
		char **env = doc_strv(d, doc_get(d, DOC_ROOT, "env"));
		int r = env ? 0 : -EINVAL;

		for (char **e = env; !r && *e; e++)
			r = guest_env_add(&s->a->g->env, *e);
		free(env);
		if (r) {
			session_fail(s, -r, "not an assignment");
			return;
		}
	}
	pid = fork();
	if (!pid)
		run(s, d);
	if (pid < 0)
		session_fail(s, errno, strerror(errno));
	else
		session_close(s);
}
