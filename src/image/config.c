// SPDX-License-Identifier: MIT
/* config.c - /machinen-config.json of an image; see config.h. */
#include "image/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/util.h"

#define WORDS_MAX 4096u

static void free_words(char **words)
{
	for (char **w = words; w && *w; w++)
		free(*w);
	free(words);
}

void image_config_done(struct image_config *c)
{
	free_words(c->cmd);
	free_words(c->env);
	free(c->cwd);
	*c = (struct image_config){ .cmd = NULL };
}

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory");
}

static int parse_words(char ***out, const json_t *arr, const char *key,
		       struct err *err)
{
	size_t n = json_array_size(arr);
	char **words;

	if (n > WORDS_MAX)
		return err_set(err, EINVAL, "%s has more than %u words", key,
			       WORDS_MAX);
	words = calloc(n + 1, sizeof(*words));
	if (!words)
		return no_memory(err);
	*out = words;
	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_array_get(arr, i));

		if (!s)
			return err_set(err, EINVAL, "%s[%zu] is not a string",
				       key, i);
		words[i] = strdup(s);
		if (!words[i])
			return no_memory(err);
	}
	return 0;
}

static int parse_cmd(struct image_config *c, const json_t *j, struct err *err)
{
	const char *shell = json_string_value(j);
	int ret;

	if (shell) {
		c->cmd = calloc(4, sizeof(*c->cmd));
		if (!c->cmd)
			return no_memory(err);
		c->cmd[0] = strdup("/bin/sh");
		c->cmd[1] = strdup("-c");
		c->cmd[2] = strdup(shell);
		return c->cmd[0] && c->cmd[1] && c->cmd[2] ? 0 : no_memory(err);
	}
	if (!json_is_array(j))
		return err_set(err, EINVAL, "cmd is neither a list of strings "
			       "nor a string");
	ret = parse_words(&c->cmd, j, "cmd", err);
	if (!ret && (!c->cmd[0] || !*c->cmd[0]))
		ret = err_set(err, EINVAL, "cmd is empty");
	return ret;
}

static bool good_name(const char *name, size_t len)
{
	if (!len || (*name >= '0' && *name <= '9'))
		return false;
	for (; len; name++, len--)
		if (!(*name == '_' || (*name >= '0' && *name <= '9') ||
		      (*name >= 'A' && *name <= 'Z') ||
		      (*name >= 'a' && *name <= 'z')))
			return false;
	return true;
}

static int check_env(char **env, struct err *err)
{
	for (; *env; env++) {
		const char *eq = strchr(*env, '=');

		if (!eq || !good_name(*env, eq - *env))
			return err_set(err, EINVAL, "env: '%.64s' is not "
				       "NAME=VALUE", *env);
	}
	return 0;
}

static int parse_env(struct image_config *c, json_t *j, struct err *err)
{
	size_t n = 0;
	const char *key;
	json_t *v;

	if (json_is_array(j)) {
		int ret = parse_words(&c->env, j, "env", err);

		return ret ? ret : check_env(c->env, err);
	}
	if (!json_is_object(j) || json_object_size(j) > WORDS_MAX)
		return err_set(err, EINVAL, "env is neither an object nor a "
			       "list, or too long");
	c->env = calloc(json_object_size(j) + 1, sizeof(*c->env));
	if (!c->env)
		return no_memory(err);
	json_object_foreach(j, key, v) {
		if (!json_is_string(v))
			return err_set(err, EINVAL, "env.%.64s is not a string",
				       key);
		if (asprintf(&c->env[n], "%s=%s", key, json_string_value(v)) < 0) {
			c->env[n] = NULL;
			return no_memory(err);
		}
		n++;
	}
	return check_env(c->env, err);
}

static int parse_cwd(struct image_config *c, const json_t *j, struct err *err)
{
	const char *s = json_string_value(j);

	if (!s || *s != '/' || strlen(s) > 4095)
		return err_set(err, EINVAL, "cwd is not an absolute path");
	c->cwd = strdup(s);
	return c->cwd ? 0 : no_memory(err);
}

static int parse_field(struct image_config *c, const char *key, json_t *v,
		       struct err *err)
{
	if (!strcmp(key, "cmd"))
		return parse_cmd(c, v, err);
	if (!strcmp(key, "env"))
		return parse_env(c, v, err);
	if (!strcmp(key, "cwd"))
		return parse_cwd(c, v, err);
	if (strcmp(key, "schema_version"))
		return err_set(err, EINVAL, "unknown field '%.64s'", key);
	if (!json_is_integer(v) || json_integer_value(v) != 1)
		return err_set(err, EINVAL, "schema_version is not 1");
	return 0;
}

int image_config_parse(struct image_config *c, const char *text, size_t len,
		       struct err *err)
{
	cleanup(json_putp) json_t *j = json_parse(text, len, err);
	const char *key;
	json_t *v;
	int ret = 0;

	*c = (struct image_config){ .cmd = NULL };
	if (!j)
		return err_wrap(err, -EINVAL, "not JSON");
	if (!json_is_object(j))
		return err_set(err, EINVAL, "not a JSON object");
	json_object_foreach(j, key, v) {
		ret = parse_field(c, key, v, err);
		if (ret)
			break;
	}
	if (ret)
		image_config_done(c);
	return ret;
}

static json_t *words_json(char **words)
{
	json_t *a = json_array();

	for (; a && *words; words++)
		if (json_array_append_new(a, json_string(*words))) {
			json_decref(a);
			return NULL;
		}
	return a;
}

int image_config_print(const struct image_config *c, struct buf *out)
{
	cleanup(json_putp) json_t *j = json_object();
	int bad = 0;

	if (!j)
		return -ENOMEM;
	bad |= json_object_set_new(j, "schema_version", json_integer(1));
	if (c->cmd)
		bad |= json_object_set_new(j, "cmd", words_json(c->cmd));
	if (c->env)
		bad |= json_object_set_new(j, "env", words_json(c->env));
	if (c->cwd)
		bad |= json_object_set_new(j, "cwd", json_string(c->cwd));
	if (bad)
		return -ENOMEM;
	json_print(j, out);
	return out->oom ? -ENOMEM : 0;
}
