/* SPDX-License-Identifier: MIT */
/*
 * config.h - /machinen-config.json of an image: what runs when nothing is named.
 *
 *	{ "schema_version": 1,
 *	  "cmd": ["/opt/app", "--serve"],	or a string for the shell
 *	  "env": { "WHO": "you" },		or ["WHO=you"]
 *	  "cwd": "/srv" }
 *
 * All fields are optional.  Part of an image, hence hostile: unknown fields,
 * wrong types, relative directories and bad variable names are refused.
 */
#ifndef IMAGE_CONFIG_H
#define IMAGE_CONFIG_H

#include <stddef.h>

struct buf;
struct err;

#define IMAGE_CONFIG_MAX (256u << 10)	/* bytes of the file */

struct image_config {
	char **cmd;	/* NULL-terminated; NULL: none */
	char **env;	/* "KEY=VALUE", NULL-terminated; NULL: none */
	char *cwd;	/* NULL: none */
};

int image_config_parse(struct image_config *c, const char *text, size_t len,
		       struct err *err);
/* Appends it as JSON; fields that are not set are left out. */
int image_config_print(const struct image_config *c, struct buf *out);
void image_config_done(struct image_config *c);

#endif
