// SPDX-License-Identifier: MIT
/*
 * ctl.c - the client's side of the control socket, and the packets of both.
 */
#include "proto/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/util.h"

/*
 * A path too long for sun_path is reached through a descriptor of its directory:
 * the registry may lie anywhere.
 */
static int make_addr(struct sockaddr_un *sa, const char *path, int *dir)
{
	const char *slash = strrchr(path, '/');
	char parent[4096];

	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) < sizeof(sa->sun_path)) {
		memcpy(sa->sun_path, path, strlen(path) + 1);
		return 0;
	}
	if (!slash || (size_t)(slash - path) >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, slash - path);
	parent[slash - path] = '\0';
	*dir = open(*parent ? parent : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir < 0)
		return -errno;
	if (snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s",
		     *dir, slash + 1) >= (int)sizeof(sa->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

int ctl_connect(const char *path, struct err *err)
{
	cleanup(io_closep) int dir = -1;
	struct sockaddr_un sa;
	int fd, ret = make_addr(&sa, path, &dir);

	if (ret)
		return err_set(err, -ret, "cannot reach %s", path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, errno, "cannot make a socket");
	if (!connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return fd;
	ret = err_set(err, errno, "cannot connect to %s: %s", path, strerror(errno));
	io_close(fd);
	return ret;
}

int ctl_send(int fd, const json_t *doc, const int *fds, unsigned nr_fds,
	     struct err *err)
{
	struct buf b = BUF_INIT;
	ssize_t n = -ENOMEM;

	json_print_compact(doc, &b);
	if (!b.oom)
		n = b.len > CTL_MAX ? -EMSGSIZE :
		    io_send_fds(fd, b.data, b.len, fds, nr_fds);
	buf_done(&b);
	if (n < 0)
		return err_set(err, -n, "cannot send on the control socket: %s",
			       strerror(-n));
	return 0;
}

int ctl_recv(int fd, json_t **doc, int *fds, unsigned *nr_fds, struct err *err)
{
	unsigned none = 0, *nr = nr_fds ? nr_fds : &none;
	char *data = malloc(CTL_MAX + 1);	/* one more: to notice a longer one */
	ssize_t n;

	*doc = NULL;
	if (!data) {
		*nr = 0;
		return err_set(err, ENOMEM, "out of memory");
	}
	n = io_recv_fds(fd, data, CTL_MAX + 1, fds, nr);
	if (n > 0 && n <= CTL_MAX)
		*doc = json_parse(data, n, err);
	free(data);
	if (n > 0 && *doc)
		return 1;
	while (*nr)
		io_close(fds[--*nr]);
	if (n < 0)
		return err_set(err, -n, "cannot receive on the control socket: %s",
			       strerror(-n));
	if (n > CTL_MAX)
		return err_set(err, EMSGSIZE, "control packet too long");
	return n ? -EINVAL : 0;
}

/* The error of an answer; causes are joined as they were. */
int ctl_answer_error(const json_t *answer, struct err *err)
{
	const json_t *e = json_object_get(answer, "error");
	const char *code = json_str_opt(e, "code", "", NULL);
	const char *message = json_str_opt(e, "message", "refused", NULL);
	int num = json_int_opt(e, "errno", 1, 4095, EIO, NULL);
	json_t *causes = json_arr_opt(e, "causes", NULL);
	int ret = 0;

	for (size_t i = json_array_size(causes); i > 0; i--) {
		const char *cause = json_string_value(json_array_get(causes, i - 1));

		if (cause && !ret)
			ret = err_set(err, num, "%s", cause);
		else if (cause)
			err_wrap(err, ret, "%s", cause);
	}
	if (!ret)
		return err_code(err, err_code_parse(code), num ? num : EIO, "%s", message);
	return err_wrap_code(err, err_code_parse(code), ret, "%s", message);
}

int ctl_call(int fd, const json_t *req, const int *fds, unsigned nr_fds,
	     void (*progress)(const json_t *p, void *arg), void *arg,
	     json_t **answer, struct err *err)
{
	int ret = ctl_send(fd, req, fds, nr_fds, err);
	json_t *doc = NULL;

	if (answer)
		*answer = NULL;
	while (!ret) {
		json_t *p;

		ret = ctl_recv(fd, &doc, NULL, NULL, err);
		if (ret <= 0)
			return ret ? ret : err_set(err, EPIPE, "the VM went away");
		p = json_object_get(doc, "progress");
		if (!p)
			break;
		if (progress)
			progress(p, arg);
		json_decref(doc);
		ret = 0;
	}
	if (ret < 0)
		return ret;
	ret = json_is_true(json_object_get(doc, "ok")) ? 0 : ctl_answer_error(doc, err);
	if (!ret && answer)
		*answer = json_incref(doc);
	json_decref(doc);
	return ret;
}

json_t *ctl_error(const struct err *err)
{
	json_t *causes = json_array();

	for (unsigned i = 0; err_cause(err, i); i++)
		json_array_append_new(causes, json_text(err_cause(err, i)));
	return json_pack("{s:b, s:{s:s, s:o, s:i, s:o}}", "ok", 0, "error",
			 "code", err_code_name(err->code), "message", json_text(err_message(err)),
			 "errno", err->num, "causes", causes);
}
