// SPDX-License-Identifier: MIT
/*
 * net_guest.c - the guest's side of bench_net: a server on port 7000, a process
 * for each connection.  The first byte says what the connection is for:
 *
 *	'i'	takes all there is, then answers one byte
 *	'o'	sends until the other side has enough
 *	'r'	answers each 64 bytes with 64 bytes
 *	'x'	runs a line in the shell and answers with its status, a digit
 *
 * Static, against musl: it is all that the benchmark's root file system has.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a line that does not fit, what fits. */
static void command(int fd)
{
	char line[512], status;
	size_t n = 0;
	int ret;

	while (n < sizeof(line) - 1 && read(fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	line[n] = '\0';
	signal(SIGCHLD, SIG_DFL);	/* or there is no status */
	ret = system(line);
	status = ret < 0 || !WIFEXITED(ret) || WEXITSTATUS(ret) > 9 ? '9'
								    : '0' + WEXITSTATUS(ret);
	if (write(fd, &status, 1) != 1)
		return;
}

static void serve(int fd)
{
	static char buf[1 << 16];
	int one = 1;
	ssize_t n = read(fd, buf, 1);
	char kind = buf[0];

	if (n != 1)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (write(fd, "k", 1) != 1)
		return;
	if (kind == 'x')
		command(fd);
	while (kind == 'o' && write(fd, buf, sizeof(buf)) > 0)
		;
	while (kind == 'i' && (n = read(fd, buf, sizeof(buf))) > 0)
		;
	while (kind == 'r' && (n = recv(fd, buf, 64, MSG_WAITALL)) == 64)
		if (write(fd, buf, 64) != 64)
			return;
	if (kind == 'i' && !n && write(fd, "k", 1) != 1)
		return;
}

int main(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(7000) };
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1, fd;

	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (s < 0 || bind(s, (struct sockaddr *)&any, sizeof(any)) || listen(s, 128))
		return 1;
	while ((fd = accept(s, NULL, NULL)) >= 0) {
		if (!fork()) {
			close(s);
			serve(fd);
			exit(0);
		}
		close(fd);
	}
	return 1;
}
