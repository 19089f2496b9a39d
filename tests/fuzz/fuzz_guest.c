// SPDX-License-Identifier: MIT
/*
 * fuzz_guest.c - the guest's parsers on mutated input: requests, users, tar
 * records, module files, and whole connections of garbage frames to a running
 * agent, which must still answer afterwards.  FUZZ_RUNS and FUZZ_SEED may be
 * set; the seed is printed.  Made for SAN=address,undefined.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../lib/agent_peer.h"
#include "base/util.h"
#include "guest/doc.h"
#include "guest/tar.h"
#include "guest/user.h"

struct rng {
	uint64_t s;
};

static uint32_t rnd(struct rng *r, uint32_t below)
{
	r->s = r->s * 6364136223846793005ull + 1442695040888963407ull;
	return (r->s >> 33) % below;
}

static unsigned runs(void)
{
	const char *s = getenv("FUZZ_RUNS");

	return s ? strtoul(s, NULL, 10) : 20000;
}

static struct rng seed(void)
{
	const char *s = getenv("FUZZ_SEED");
	struct rng r = { s ? strtoull(s, NULL, 10) : (uint64_t)time(NULL) };

	print_message("# FUZZ_SEED=%llu\n", (unsigned long long)r.s);
	return r;
}

/* A copy on the heap, exactly as long, with a few bytes wrong; cut at times. */
static char *mutate(struct rng *r, const char *text, size_t *len)
{
	static const char odd[] = "{}[]\",:\\u0=\n 9";
	size_t n = *len;
	char *copy = malloc(n + 1);

	memcpy(copy, text, n);
	for (unsigned i = rnd(r, 6); n && i; i--)
		copy[rnd(r, n)] = rnd(r, 2) ? odd[rnd(r, sizeof(odd))] :
					      (char)rnd(r, 256);
	if (n && !rnd(r, 4))
		n = rnd(r, n);
	copy = realloc(copy, n + 1);
	copy[n] = '\0';
	*len = n;
	return copy;
}

static void requests(void **state)
{
	static const char text[] =
		"{\"op\":\"exec\",\"argv\":[\"a\",\"\\u00e9\\ud83d\\ude00\"],"
		"\"env\":[\"A=1\"],\"tty\":{\"rows\":24,\"cols\":-80},\"x\":true,"
		"\"y\":null,\"z\":[[],{},[1,2,[3]]]}";
	struct rng r = seed();

	for (unsigned i = 0; i < runs(); i++) {
		size_t len = sizeof(text) - 1;
		char *copy = mutate(&r, text, &len);
		struct doc d;

		if (!doc_parse(&d, copy, len)) {
			free(doc_strv(&d, doc_get(&d, DOC_ROOT, "argv")));
			doc_int(&d, doc_get(&d, doc_get(&d, DOC_ROOT, "tty"),
					    "cols"), 0);
		}
		doc_done(&d);
		free(copy);
	}
}

static void users(void **state)
{
	static const char text[] = "root:x:0:0:r:/root:/bin/sh\nweb:x:33:33::/:\n"
				   "log:x:4:web,root\n:::::\n";
	struct rng r = seed();

	for (unsigned i = 0; i < runs(); i++) {
		size_t len = sizeof(text) - 1;
		char *copy = mutate(&r, text, &len);
		struct user u;

		user_lookup(&u, rnd(&r, 2) ? "web:log" : "33", copy, copy);
		assert_true(u.nr_groups <= USER_GROUPS_MAX);
		free(copy);
	}
}

static void tar_records(void **state)
{
	static const char text[] = "13 path=abcd\n20 mtime=1234.567890\n6 a=b\n";
	struct rng r = seed();

	for (unsigned i = 0; i < runs(); i++) {
		size_t len = sizeof(text) - 1;
		char *copy = mutate(&r, text, &len);
		const char *p = copy;
		struct tar_record rec;
		uint64_t v;
		bool bad;

		while (tar_record_next(&p, copy + len, &rec, &bad))
			assert_true(rec.value + rec.value_len < copy + len);
		if (len >= 12)
			tar_number(copy, 12, &v);
		free(copy);
	}
}

/* Frames of every type in any order, some garbled; the agent must live. */
static void connections(void **state)
{
	static const char *const first[] = {
		"{\"op\":\"exec\",\"argv\":[\"cat\"]}", "{\"op\":\"stats\"}",
		"{\"op\":\"exec\",\"shell\":\"true\",\"tty\":{}}", "{\"op\":7}",
		"{\"op\":\"put\",\"path\":\"/dev/null/x\"}", "[",
	};
	struct rng r = seed();
	struct peer_agent a;
	struct peer_result res;

	peer_start(&a, NULL);
	for (unsigned i = 0; i < runs() / 100; i++) {
		uint8_t junk[512];
		int fd = peer_connect(&a);

		if (rnd(&r, 8)) {
			const char *req = first[rnd(&r, ARRAY_LEN(first))];

			peer_send(fd, AGENT_REQ, req, strlen(req));
		}
		for (unsigned n = rnd(&r, 8); n; n--) {
			size_t len = rnd(&r, sizeof(junk));

			for (size_t k = 0; k < len; k++)
				junk[k] = rnd(&r, 256);
			if (rnd(&r, 6))
				peer_send(fd, 1 + rnd(&r, AGENT_CREDIT), junk,
					  len);
			else if (send(fd, junk, len, MSG_NOSIGNAL) < 0)
				break;
		}
		close(fd);
	}
	peer_collect(peer_request(&a, "{\"op\":\"exec\",\"argv\":[\"echo\",\"up\"]}"),
		     NULL, 0, &res);
	assert_string_equal(res.out.data, "up\n");
	peer_result_done(&res);
	peer_stop(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(users),
		cmocka_unit_test(tar_records),
		cmocka_unit_test(connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
