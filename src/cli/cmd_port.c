// SPDX-License-Identifier: MIT
/* cmd_port.c - machinen port add, rm and ls */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"

struct opts {
	const char *verb, *target, *port;
	bool json;
};

static json_t *describe(const struct mn_port *p)
{
	return json_pack("{s:s, s:i, s:i, s:s}", "host_addr",
			 *p->host_addr ? p->host_addr : "127.0.0.1", "host_port",
			 p->host_port, "guest_port", p->guest_port, "proto",
			 p->udp ? "udp" : "tcp");
}

static void print(const struct mn_port *p)
{
	char host[PORT_TEXT];

	printf("%s -> %u/%s\n", port_host(p, host), p->guest_port, p->udp ? "udp" : "tcp");
}

static int list(struct mn_vm *vm, const struct opts *o, struct mn_error *err)
{
	MN_CONFIG(struct mn_status, st);
	json_t *ports;
	int ret = mn_vm_status(vm, true, &st, err);

	if (ret)
		return ret;
	ports = json_array();
	for (unsigned i = 0; i < st.nr_ports; i++) {
		json_array_append_new(ports, describe(&st.port[i]));
		if (!o->json)
			print(&st.port[i]);
	}
	if (o->json)
		return out_json(json_pack("{s:b, s:o}", "ok", 1, "ports", ports));
	json_decref(ports);
	return 0;
}

static int change(struct mn_vm *vm, const struct opts *o, struct mn_port *p,
		  struct mn_error *err)
{
	int ret = *o->verb == 'a' ? mn_port_add(vm, p, err) : mn_port_rm(vm, p, err);

	if (ret)
		return ret;
	if (o->json)
		return out_json(json_pack("{s:b, s:o}", "ok", 1, "port", describe(p)));
	if (*o->verb == 'a')
		print(p);
	return 0;
}

/* rm takes HOST alone as well: what it leads to does not matter. */
static int parse(const struct opts *o, struct mn_port *p)
{
	char word[128];

	if (*o->verb == 'r' && !strchr(o->port, ':')) {
		size_t n = strcspn(o->port, "/");

		snprintf(word, sizeof(word), "%.*s:1%s", (int)n, o->port, o->port + n);
		return port_parse(word, p, o->json);
	}
	return port_parse(o->port, p, o->json);
}

static int run(const void *v)
{
	struct mn_error err = { .code = MN_OK };
	struct mn_port port = { .host_port = 0 };
	const struct opts *o = v;
	bool ls = !strcmp(o->verb, "ls");
	struct mn_vm *vm;
	int ret;

	if (!ls && strcmp(o->verb, "add") && strcmp(o->verb, "rm"))
		return out_usage_error(MN_PARSE_COMMAND_UNKNOWN, o->json,
				       "no port command \"%s\"; there is add, rm and ls", o->verb);
	if (ls != !o->port)
		return out_usage_error(ls ? MN_PARSE_ARGUMENT_EXTRA : MN_PARSE_ARGUMENT_MISSING,
				       o->json, "port %s takes %s", o->verb,
				       ls ? "TARGET alone" : "TARGET and [ADDR:]HOST:GUEST");
	ret = ls ? 0 : parse(o, &port);
	if (ret)
		return ret;
	ret = mn_vm_open(o->target, &vm, &err);
	if (!ret)
		ret = ls ? list(vm, o, &err) : change(vm, o, &port, &err);
	mn_vm_free(vm);
	return ret ? out_error(&err, o->json) : 0;
}

#define OFF(field) .offset = offsetof(struct opts, field)

const struct cmd cmd_port = {
	.opt = {
		.name = "port",
		.summary = "Forward ports of a running VM",
		.examples = "  machinen port add web 8080:80\n"
			    "  machinen port ls web\n"
			    "  machinen port rm web 8080",
		.json = "ok; ls: ports[host_addr, host_port, guest_port, proto]; add, rm: port{...}",
		.args = (const struct opt_arg[]){
			{ .name = "add|rm|ls", OFF(verb), .help = "what to do",
			  .words = OPT_WORDS_CHOICE },
			CMD_ARG_TARGET(struct opts),
			{ .name = "PORT", .optional = true, OFF(port),
			  .help = "[ADDR:]HOST:GUEST[/tcp|udp]; for rm HOST[/udp] is enough" },
			{ .name = NULL },
		},
		.opts = (const struct opt[]){
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
