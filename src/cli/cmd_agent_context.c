// SPDX-License-Identifier: MIT
/* cmd_agent_context.c - machinen agent-context: all of this program as JSON. */
#include "cli/cmd.h"

struct opts {
	bool json;
};

static const struct {
	const char *name, *meaning;
} variables[] = {
	{ "MACHINEN_HOME", "where everything lives (default ~/.machinen)" },
	{ "MACHINEN_VMM", "another machinen-vmm program" },
	{ "MACHINEN_ASSETS_DIR", "a base from here instead of the cache" },
	{ "MACHINEN_REGISTRY_DIR", "the registry of running VMs" },
	{ "MACHINEN_ACCEL", "default of --accel" },
	{ "MACHINEN_LOG", "diagnostics: area:level,... (all, phase, vm, ...)" },
	{ "MACHINEN_FEEDBACK_ENDPOINT", "where feedback is POSTed to as well" },
	{ "NO_COLOR", "no colours when set" },
};

static const struct {
	int status;
	const char *meaning;
} statuses[] = {
	{ 0, "success" },
	{ 1, "failure; the error is on stderr, or in the JSON document: error{code, message, causes[] where there are some}" },
	{ 2, "wrong usage" },
	{ 126, "the guest's command could not be executed" },
	{ 127, "the guest's command was not found" },
	{ 130, "ended by SIGINT" },
	{ 143, "ended by SIGTERM" },
};

static json_t *all_commands(void)
{
	json_t *list = json_array();

	for (unsigned i = 0; commands[i]; i++)
		if (!commands[i]->opt.hidden)
			json_array_append_new(list, opt_describe(&commands[i]->opt));
	return list;
}

static json_t *all_codes(void)
{
	json_t *list = json_array();

	for (int i = MN_OK + 1; i < MN_NR_CODES; i++)
		json_array_append_new(list, json_pack("{s:s, s:b, s:s}",
			"code", mn_code_name((enum mn_code)i),
			"retryable", mn_code_retryable((enum mn_code)i),
			"meaning", mn_code_text((enum mn_code)i)));
	return list;
}

static int run(const void *v)
{
	json_t *env = json_array(), *exits = json_array();

	for (unsigned i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		json_array_append_new(env, json_pack("{s:s, s:s}", "name",
						     variables[i].name, "meaning",
						     variables[i].meaning));
	for (unsigned i = 0; i < sizeof(statuses) / sizeof(*statuses); i++)
		json_array_append_new(exits, json_pack("{s:i, s:s}", "status",
						       statuses[i].status, "meaning",
						       statuses[i].meaning));
	return out_json(json_pack("{s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:o}",
		"name", "machinen", "version", mn_version(),
		"summary", "freezes, moves and forks running Linux VMs",
		"commands", all_commands(),
		"target", "digits only: the pid of a VM's machinen-vmm; else a registered name",
		"exit_statuses", exits, "error_codes", all_codes(), "environment", env));
}

const struct cmd cmd_agent_context = {
	.opt = {
		.name = "agent-context",
		.summary = "Describe every command, flag and error as JSON",
		.json = "name, version, summary, commands[], target, exit_statuses[], error_codes[], environment[]",
		.opts = (const struct opt[]){
			CMD_OPT_JSON(struct opts),
			{ .name = NULL },
		},
		.size = sizeof(struct opts),
	},
	.run = run,
};
