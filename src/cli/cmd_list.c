// SPDX-License-Identifier: MIT
/* cmd_list.c - machinen list */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"

#define COLUMNS 6
#define CELL	300

struct opts {
	bool json, names;
};

struct row {
	char cell[COLUMNS][CELL];
};

struct table {
	struct row *rows;	/* owned */
	size_t nr;
	json_t *vms;		/* with --json */
	bool names;
};

static void format_ports(const struct mn_status *st, char *to, size_t size)
{
	size_t n = 0;

	*to = '\0';
	for (unsigned i = 0; i < st->nr_ports && n < size; i++) {
		const struct mn_port *p = &st->port[i];
		char host[PORT_TEXT];

		n += (size_t)snprintf(to + n, size - n, "%s%s->%u%s", i ? "," : "",
				      port_host(p, host), p->guest_port,
				      p->udp ? "/udp" : "");
	}
}

static int add_row(const struct mn_status *st, void *arg)
{
	struct table *t = arg;
	char rss[32], ceiling[32];
	struct row *r, *rows;

	if (t->names) {
		if (st->name[0])
			puts(st->name);
		else
			printf("%d\n", st->pid);
		return 0;
	}
	rows = realloc(t->rows, (t->nr + 1) * sizeof(*rows));
	if (!rows)
		return -1;
	t->rows = rows;
	r = &rows[t->nr++];
	out_bytes(rss, sizeof(rss), st->rss_bytes);
	out_bytes(ceiling, sizeof(ceiling), st->ceiling_mib << 20);
	snprintf(r->cell[0], CELL, "%d", st->pid);
	snprintf(r->cell[1], CELL, "%s", st->name[0] ? st->name : "-");
	out_duration(r->cell[2], CELL, st->uptime_ms);
	snprintf(r->cell[3], CELL, "%s/%s", rss, ceiling);
	format_ports(st, r->cell[4], CELL);
	if (!st->nr_ports)
		strcpy(r->cell[4], "-");
	snprintf(r->cell[5], CELL, "%s", st->forked_from[0] ? st->forked_from : "-");
	if (strcmp(st->state, "running"))
		snprintf(r->cell[2] + strlen(r->cell[2]), CELL - strlen(r->cell[2]),
			 " %s", st->state);
	return 0;
}

static int add_json(const struct mn_status *st, void *arg)
{
	struct table *t = arg;
	json_t *ports = json_array();

	for (unsigned i = 0; i < st->nr_ports; i++) {
		const struct mn_port *p = &st->port[i];

		json_array_append_new(ports, json_pack("{s:s, s:i, s:i, s:s}",
			"host_addr", p->host_addr, "host_port", p->host_port,
			"guest_port", p->guest_port, "proto", p->udp ? "udp" : "tcp"));
	}
	return json_array_append_new(t->vms, json_pack(
		"{s:i, s:s?, s:I, s:I, s:s?, s:s, s:{s:I, s:I}, s:o, s:s?}",
		"pid", (int)st->pid, "name", st->name[0] ? st->name : NULL,
		"started_at", (json_int_t)st->started_at_ms,
		"uptime_ms", (json_int_t)st->uptime_ms,
		"accel", st->accel[0] ? st->accel : NULL, "state", st->state,
		"memory", "rss_bytes", (json_int_t)st->rss_bytes,
		"ceiling_mib", (json_int_t)st->ceiling_mib, "ports", ports,
		"forked_from", st->forked_from[0] ? st->forked_from : NULL));
}

static void widths_of(const struct table *t, const char *const *head,
		      unsigned w[COLUMNS])
{
	unsigned total = 2 * (COLUMNS - 1), limit = out_width(), widest = 0;

	for (unsigned c = 0; c < COLUMNS; c++) {
		w[c] = (unsigned)strlen(head[c]);
		for (size_t i = 0; i < t->nr; i++)
			if (strlen(t->rows[i].cell[c]) > w[c])
				w[c] = (unsigned)strlen(t->rows[i].cell[c]);
		total += w[c];
	}
	/* the widest column gives way on a narrow terminal */
	while (limit && total > limit) {
		widest = 0;
		for (unsigned c = 1; c < COLUMNS; c++)
			widest = w[c] > w[widest] ? c : widest;
		if (w[widest] <= 4)
			break;
		w[widest]--;
		total--;
	}
}

static void print_cells(const char *cell, unsigned width, bool last)
{
	int n = (int)strlen(cell);

	if (n <= (int)width)
		printf(last ? "%s\n" : "%s%*s", cell, last ? 0 : (int)width - n + 2, "");
	else
		printf("%.*s~%s", (int)width - 1, cell, last ? "\n" : "  ");
}

static void print_table(const struct table *t)
{
	static const char *const head[COLUMNS] = {
		"PID", "NAME", "UP", "MEM", "PORTS", "FORKED-FROM",
	};
	unsigned w[COLUMNS];

	if (!t->nr) {
		puts("(no running VMs)");
		return;
	}
	widths_of(t, head, w);
	for (unsigned c = 0; c < COLUMNS; c++)
		print_cells(head[c], w[c], c == COLUMNS - 1);
	for (size_t i = 0; i < t->nr; i++)
		for (unsigned c = 0; c < COLUMNS; c++)
			print_cells(t->rows[i].cell[c], w[c], c == COLUMNS - 1);
}

static int run(const void *v)
{
	const struct opts *o = v;
	struct table t = { .names = o->names };
	struct mn_error err = { .code = MN_OK };
	int ret;

	if (o->json)
		t.vms = json_array();
	ret = mn_list(!o->names, o->json ? add_json : add_row, &t, &err);
	if (ret) {
		json_decref(t.vms);
		free(t.rows);
		return out_error(&err, o->json);
	}
	if (o->json)
		return out_json(json_pack("{s:b, s:o}", "ok", 1, "vms", t.vms));
	if (!o->names)
		print_table(&t);
	free(t.rows);
	return 0;
}

const struct cmd cmd_list = {
	.opt = {
		.name = "list",
		.alias = { "ls", "ps" },
		.summary = "Show the running VMs",
		.json = "ok, vms[pid, name, started_at (ms), uptime_ms, accel, state, memory{rss_bytes, ceiling_mib}, ports[host_addr, host_port, guest_port, proto], forked_from]",
		.opts = (const struct opt[]){
			CMD_OPT_JSON(struct opts),
			{ .name = "names", .kind = OPT_SWITCH,
			  .offset = offsetof(struct opts, names),
			  .help = "only what names them, one a line" },
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
