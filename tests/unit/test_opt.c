// SPDX-License-Identifier: MIT
/* test_opt.c - option tables: parsing, errors, help, description, completion. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/util.h"

struct opts {
	bool verbose, all;
	const char *name, *mode, *target;
	struct opt_list env, files, cmd;
	uint64_t cpus, size;
	struct opt_count tail;
};

#define OFF(f) .offset = offsetof(struct opts, f)

static const struct opt_cmd cmd = {
	.name = "try", .alias = { "t" }, .summary = "Try it",
	.args = (const struct opt_arg[]){
		{ .name = "TARGET", .help = "which", OFF(target), .words = OPT_WORDS_TARGET },
		{ .name = "FILE", .help = "files", OFF(files), .optional = true,
		  .repeat = true, .words = OPT_WORDS_FILE },
		{ .name = NULL },
	},
	.opts = (const struct opt[]){
		{ .name = "verbose", .letter = 'v', .kind = OPT_SWITCH, OFF(verbose), .help = "h" },
		{ .name = "all", .letter = 'a', .kind = OPT_SWITCH, OFF(all), .help = "h" },
		{ .name = "name", .alias = "called", .letter = 'n', .kind = OPT_STRING,
		  OFF(name), .meta = "N", .help = "h" },
		{ .name = "env", .letter = 'e', .kind = OPT_LIST, OFF(env), .meta = "K=V",
		  .help = "h" },
		{ .name = "cpus", .kind = OPT_UINT, OFF(cpus), .meta = "N", .min = 1, .max = 8,
		  .help = "h", .def = "1" },
		{ .name = "size", .kind = OPT_SIZE, OFF(size), .meta = "SIZE", .help = "h" },
		{ .name = "mode", .kind = OPT_CHOICE, OFF(mode), .meta = "fast|slow", .help = "h",
		  .words = OPT_WORDS_CHOICE },
		{ .name = "tail", .kind = OPT_COUNT, OFF(tail), .meta = "N", .help = "h" },
		{ .name = NULL },
	},
	.literal = offsetof(struct opts, cmd) + 1, .literal_meta = "CMD...",
	.size = sizeof(struct opts),
};

static struct opts got;
static struct err error;

#define parse(...) parse_words((const char *[]){ __VA_ARGS__, NULL })
static int parse_words(const char *const *words)
{
	int n = 0;

	while (words[n])
		n++;
	opt_done(&cmd, &got);
	err_clear(&error);
	return opt_parse(&cmd, n, (char *const *)(uintptr_t)words, &got, &error);
}

static void every_spelling(void **state)
{
	assert_int_equal(parse("vm", "--name", "x", "-va", "-e", "A=1", "--env=B=2", "-eC=3"), 0);
	assert_string_equal(got.target, "vm");
	assert_string_equal(got.name, "x");
	assert_true(got.verbose && got.all);
	assert_int_equal(got.env.nr, 3);
	assert_string_equal(got.env.v[1], "B=2");
	assert_string_equal(got.env.v[2], "C=3");
	assert_null(got.env.v[3]);
	assert_int_equal(parse("--called=", "vm", "-n=y"), -EINVAL);
	assert_int_equal(error.code, ERR_PARSE_FLAG_DUPLICATE);
	assert_int_equal(parse("vm", "-n=y"), 0);
	assert_string_equal(got.name, "y");
	assert_int_equal(parse("vm", "--name="), 0);
	assert_string_equal(got.name, "");
}

static void after_dashes_all_is_literal(void **state)
{
	assert_int_equal(parse("vm", "--", "--name", "-v", "--", "x"), 0);
	assert_null(got.name);
	assert_int_equal(got.cmd.nr, 4);
	assert_string_equal(got.cmd.v[2], "--");
	assert_int_equal(parse("vm", "a", "b", "-v", "c"), 0);
	assert_int_equal(got.files.nr, 3);
	assert_int_equal(parse("vm", "-"), 0);
	assert_string_equal(got.files.v[0], "-");
}

static void values(void **state)
{
	assert_int_equal(parse("vm", "--cpus", "8", "--size", "1.5G", "--mode", "slow"), 0);
	assert_int_equal(got.cpus, 8);
	assert_int_equal(got.size, 3 * GIB / 2);
	assert_string_equal(got.mode, "slow");
	assert_int_equal(parse("vm", "--tail"), 0);
	assert_true(got.tail.given && !got.tail.has_value);
	assert_int_equal(parse("--tail", "5", "vm"), 0);
	assert_int_equal(got.tail.value, 5);
	assert_int_equal(parse("--tail", "vm"), 0);
	assert_false(got.tail.has_value);
}

static void refuses(void **state)
{
	static const struct {
		const char *words[4];
		enum err_code code;
	} cases[] = {
		{ { "vm", "--nam", "x" }, ERR_PARSE_FLAG_UNKNOWN },
		{ { "vm", "-x" }, ERR_PARSE_FLAG_UNKNOWN },
		{ { "vm", "--name" }, ERR_PARSE_FLAG_MISSING_VALUE },
		{ { "vm", "--name", "--" }, ERR_PARSE_FLAG_MISSING_VALUE },
		{ { "vm", "--cpus", "9" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--cpus", "0" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--cpus", "-1" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--cpus", "1x" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--cpus", "99999999999999999999" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--size", "1Z" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--size", "99999999999T" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--mode", "fas" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--mode", "" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "vm", "--verbose=1" }, ERR_PARSE_FLAG_MALFORMED },
		{ { "-v" }, ERR_PARSE_ARGUMENT_MISSING },
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(parse_words(cases[i].words), -EINVAL);
		assert_int_equal(error.code, cases[i].code);
	}
	parse("vm", "--nmae", "x");
	assert_non_null(strstr(err_message(&error), "did you mean --name?"));
}

static void sizes(void **state)
{
	uint64_t v;

	assert_true(opt_size("0", &v) && v == 0);
	assert_true(opt_size("17", &v) && v == 17);
	assert_true(opt_size("2KiB", &v) && v == 2048);
	assert_true(opt_size("3mb", &v) && v == 3 * MIB);
	assert_true(opt_size("0.5g", &v) && v == GIB / 2);
	assert_true(opt_size("16777215T", &v));
	assert_false(opt_size("16777216T", &v));
	assert_false(opt_size("-1", &v));
	assert_false(opt_size("", &v));
	assert_false(opt_size("1 G", &v));
}

static void nearest_word(void **state)
{
	static const char *const words[] = { "boot", "exec", "attach", NULL };

	assert_string_equal(opt_nearest("bot", words), "boot");
	assert_string_equal(opt_nearest("atach", words), "attach");
	assert_null(opt_nearest("zzzzz", words));
	assert_null(opt_nearest("x", words));
	assert_int_equal(opt_distance("kitten", "sitting"), 3);
}

static void help_names_everything(void **state)
{
	struct buf b = BUF_INIT;

	opt_help(&cmd, "machinen", &b);
	assert_non_null(strstr(b.data, "Usage: machinen try TARGET [FILE...] [flags] [-- CMD...]"));
	assert_non_null(strstr(b.data, "-n, --name N"));
	assert_non_null(strstr(b.data, "--tail [N]"));
	assert_non_null(strstr(b.data, "(default 1)"));
	for (const char *line = b.data; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		assert_true(strcspn(line, "\n") <= 80);
	}
	buf_done(&b);
	assert_int_equal(parse("vm", "--help"), OPT_HELP);
	assert_int_equal(parse("--help"), OPT_HELP);
}

static void description_is_the_table(void **state)
{
	json_t *j = opt_describe(&cmd), *flags = json_object_get(j, "flags");

	assert_int_equal(json_array_size(flags), 8);
	for (size_t i = 0; i < json_array_size(flags); i++)
		assert_string_equal(json_string_value(json_object_get(
			json_array_get(flags, i), "name")), cmd.opts[i].name);
	assert_int_equal(json_array_size(json_object_get(
		json_array_get(flags, 6), "choices")), 2);
	json_decref(j);
}

#define complete(out, ...) complete_words((const char *[]){ __VA_ARGS__, NULL }, out)
static enum opt_words complete_words(const char *const *words, struct buf *out)
{
	int n = 0;

	while (words[n])
		n++;
	return opt_complete(&cmd, n, (char *const *)(uintptr_t)words, out);
}

static void completes(void **state)
{
	struct buf b = BUF_INIT;

	assert_int_equal(complete(&b, ""), OPT_WORDS_TARGET);
	assert_int_equal(complete(&b, "vm", ""), OPT_WORDS_FILE);
	assert_int_equal(complete(&b, "--name", "x", ""),
			 OPT_WORDS_TARGET);
	assert_int_equal(b.len, 0);
	assert_int_equal(complete(&b, "--mode", "f"),
			 OPT_WORDS_CHOICE);
	assert_string_equal(b.data, "fast\nslow\n");
	buf_clear(&b);
	complete(&b, "--");
	assert_non_null(strstr(b.data, "--verbose\n"));
	assert_int_equal(complete(&b, "vm", "--", "l"),
			 OPT_WORDS_FILE);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_spelling),
		cmocka_unit_test(after_dashes_all_is_literal),
		cmocka_unit_test(values),
		cmocka_unit_test(refuses),
		cmocka_unit_test(sizes),
		cmocka_unit_test(nearest_word),
		cmocka_unit_test(help_names_everything),
		cmocka_unit_test(description_is_the_table),
		cmocka_unit_test(completes),
	};
	int failed = cmocka_run_group_tests_name("opt", tests, NULL, NULL);

	opt_done(&cmd, &got);
	return failed;
}
