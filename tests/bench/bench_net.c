// SPDX-License-Identifier: MIT
/*
 * bench_net.c - what a guest's network carries:  bench_net PORT
 *
 * Talks to net_guest.c through a port forward and prints four numbers: MB/s into
 * the guest and out of it over one connection, then requests (64 bytes there and
 * back) per second over 1 and over 32 connections.  Each is timed for two seconds
 * or so.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECONDS	    2.0
#define CONNECTIONS 32
#define PIECE	    (1 << 16)

struct client {
	pthread_t thread;
	int fd;
	uint64_t done;		/* requests */
	atomic_bool *stop;	/* borrowed */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* A connection of that kind, served by the guest already. */
static int client(uint16_t port, char kind)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval limit = { .tv_sec = 60 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	char answer;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) ||
	    write(fd, &kind, 1) != 1 || read(fd, &answer, 1) != 1)
		fail("connection to the guest");
	return fd;
}

/* MB/s; the guest's answer counts, so that nothing is left in a buffer. */
static double into(uint16_t port)
{
	static char buf[PIECE];
	int fd = client(port, 'i');
	double start = now(), bytes = 0;

	while (now() - start < SECONDS) {
		ssize_t n = write(fd, buf, sizeof(buf));

		if (n <= 0)
			fail("write");
		bytes += n;
	}
	shutdown(fd, SHUT_WR);
	if (read(fd, buf, 1) != 1)
		fail("read");
	close(fd);
	return bytes / (now() - start) / 1e6;
}

static double out_of(uint16_t port)
{
	static char buf[PIECE];
	int fd = client(port, 'o');
	double start = now(), bytes = 0;

	while (now() - start < SECONDS) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n <= 0)
			fail("read");
		bytes += n;
	}
	close(fd);
	return bytes / (now() - start) / 1e6;
}

static void *ask(void *arg)
{
	struct client *c = arg;
	char buf[64] = "";

	while (!atomic_load(c->stop)) {
		if (write(c->fd, buf, sizeof(buf)) != sizeof(buf) ||
		    recv(c->fd, buf, sizeof(buf), MSG_WAITALL) != sizeof(buf))
			fail("request");
		c->done++;
	}
	return NULL;
}

static double requests(uint16_t port, unsigned nr)
{
	struct client c[CONNECTIONS];
	atomic_bool stop = false;
	double start, total = 0;

	for (unsigned i = 0; i < nr; i++)
		c[i] = (struct client){ .fd = client(port, 'r'), .stop = &stop };
	start = now();
	for (unsigned i = 0; i < nr; i++)
		if (pthread_create(&c[i].thread, NULL, ask, &c[i]))
			fail("thread");
	usleep((useconds_t)(SECONDS * 1e6));
	stop = true;
	for (unsigned i = 0; i < nr; i++) {
		pthread_join(c[i].thread, NULL);
		close(c[i].fd);
		total += (double)c[i].done;
	}
	return total / (now() - start);
}

int main(int argc, char **argv)
{
	uint16_t port = argc == 2 ? (uint16_t)atoi(argv[1]) : 0;

	if (!port) {
		fprintf(stderr, "usage: bench_net PORT\n");
		return 2;
	}
	close(client(port, 'r'));	/* the guest has booted */
	printf("%.1f ", into(port));
	printf("%.1f ", out_of(port));
	printf("%.0f ", requests(port, 1));
	printf("%.0f\n", requests(port, CONNECTIONS));
	return 0;
}
