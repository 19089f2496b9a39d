// SPDX-License-Identifier: MIT
/*
 * spec.c - the spec and the launch document as JSON.
 *
 * A spec comes from our own library, but also from a bundle that somebody else
 * made: every field is checked as input from outside, and nothing past the
 * checks here is checked again.  Unknown fields are ignored, so that an older VMM
 * reads what a newer library added without meaning.
 */
#include "proto/spec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/util.h"

#define ROLE_MAX 64

static const char *const accel_names[] = {
	[SPEC_ACCEL_AUTO] = "auto", [SPEC_ACCEL_KVM] = "kvm",
	[SPEC_ACCEL_SOFT] = "soft",
};
static const char *const engine_names[] = {
	[SPEC_ENGINE_AUTO] = "auto", [SPEC_ENGINE_INTERP] = "interp",
	[SPEC_ENGINE_JIT] = "jit",
};

const char *spec_accel_name(enum spec_accel accel)
{
	return (unsigned)accel < ARRAY_LEN(accel_names) ? accel_names[accel] : "";
}

void spec_init(struct spec *s)
{
	*s = (struct spec){ .memory_mib = 512, .cpus = 1, .vsock_cid = 3,
			    .mac = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 } };
}

static void free_list(char **list)
{
	for (char **p = list; p && *p; p++)
		free(*p);
	free(list);
}

void spec_done(struct spec *s)
{
	if (!s)
		return;
	free(s->name);
	free(s->cpu_model);
	free(s->cmdline);
	for (unsigned i = 0; i < s->nr_disks; i++)
		free(s->disk[i].id);
	for (unsigned i = 0; i < s->nr_fs; i++) {
		free(s->fs[i].id);
		free(s->fs[i].guest);
	}
	for (unsigned i = 0; i < s->nr_ports; i++)
		free(s->port[i].host_addr);
	free_list(s->net_allow);
	*s = (struct spec){ .name = NULL };
}

/* ---- checks of single values ---- */

static void bad(struct err *err, const char *what, const char *value)
{
	if (err && !err->num)
		err_set(err, EINVAL, "%s: \"%.100s\" is not acceptable", what, value);
}

/* A copy; an error already recorded is kept, and gives a copy all the same. */
static char *copy(const char *s, struct err *err)
{
	char *p = strdup(s);

	if (!p && err && !err->num)
		err_set(err, ENOMEM, "out of memory");
	return p;
}

/* No control characters: the value ends up in logs, sysfs and command lines. */
static bool plain(const char *s, size_t max)
{
	if (strlen(s) > max)
		return false;
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

/* An identifier: part of a role name, a virtio serial (20 bytes), a tag. */
static bool is_id(const char *s)
{
	size_t len = strlen(s);

	return len && len <= SPEC_ID_MAX &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

static char *parse_id(const json_t *o, struct err *err)
{
	const char *id = json_str(o, "id", err);

	if (!is_id(id))
		bad(err, "id", id);
	return copy(id, err);
}

static unsigned parse_enum(const json_t *o, const char *key,
			   const char *const *names, unsigned nr, struct err *err)
{
	const char *v = json_str_opt(o, key, names[0], err);

	for (unsigned i = 0; i < nr; i++)
		if (!strcmp(v, names[i]))
			return i;
	bad(err, key, v);
	return 0;
}

/* Exactly n bytes of hex, with `sep` between them unless it is 0. */
static void parse_hex(const json_t *o, const char *key, char sep, uint8_t *out,
		      unsigned n, struct err *err)
{
	const char *s = json_str_opt(o, key, NULL, err);
	const char *p = s;

	if (!s)
		return;
	for (unsigned i = 0; i < n; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *hi, *lo;

		if (i && sep && *p++ != sep)
			goto refuse;
		hi = *p ? strchr(digits, p[0]) : NULL;
		lo = hi && p[1] ? strchr(digits, p[1]) : NULL;
		if (!lo)
			goto refuse;
		out[i] = (hi - digits) << 4 | (lo - digits);
		p += 2;
	}
	if (!*p)
		return;
refuse:
	bad(err, key, s);
}

/* ---- parsing ---- */

/* A list of at most `max` objects; NULL (an error, or absent) iterates not. */
static json_t *parse_list(const json_t *o, const char *key, size_t max, struct err *err)
{
	json_t *list = json_arr_opt(o, key, err);

	if (json_array_size(list) <= max)
		return list;
	if (!err->num)
		err_set(err, E2BIG, "\"%s\" has more than %zu entries", key, max);
	return NULL;
}

static void parse_disks(struct spec *s, const json_t *o, struct err *err)
{
	json_t *list = parse_list(o, "disks", SPEC_MAX_DISKS, err), *j;
	size_t i;

	json_array_foreach(list, i, j) {
		struct spec_disk *d = &s->disk[s->nr_disks++];

		d->id = parse_id(j, err);
		d->nr_layers = json_int_opt(j, "layers", 1, SPEC_MAX_LAYERS, 1, err);
		d->readonly = json_bool_opt(j, "readonly", false, err);
		d->size = json_int_opt(j, "size", 0, INT64_MAX, 0, err);
		if (d->size % 512)
			bad(err, "disk size, not whole sectors", d->id ? d->id : "");
		for (unsigned k = 0; k + 1 < s->nr_disks && !err->num; k++)
			if (!strcmp(s->disk[k].id, d->id))
				bad(err, "disk id, used twice", d->id);
	}
}

void spec_fs_parse(struct spec *s, const json_t *o, struct err *err)
{
	json_t *list = parse_list(o, "fs", SPEC_MAX_FS, err), *j;
	size_t i;

	json_array_foreach(list, i, j) {
		struct spec_fs *f = &s->fs[s->nr_fs++];
		const char *guest = json_str(j, "guest", err);

		f->id = parse_id(j, err);
		f->guest = copy(guest, err);
		f->readonly = json_bool_opt(j, "readonly", false, err);
		if (guest[0] != '/' || !plain(guest, 4095))
			bad(err, "guest path", guest);
		for (unsigned k = 0; k + 1 < s->nr_fs && !err->num; k++)
			if (!strcmp(s->fs[k].id, f->id))
				bad(err, "fs id, used twice", f->id);
	}
}

static bool is_addr(const char *s)
{
	struct in6_addr a;

	return inet_pton(AF_INET, s, &a) == 1 || inet_pton(AF_INET6, s, &a) == 1;
}

void spec_port_parse(struct spec_port *p, const json_t *j, struct err *err)
{
	const char *addr = json_str_opt(j, "host_addr", "127.0.0.1", err);
	const char *proto = json_str_opt(j, "proto", "tcp", err);

	*p = (struct spec_port){
		.host_addr = copy(addr, err),
		.host_port = json_int_opt(j, "host_port", 0, 65535, 0, err),
		.guest_port = json_int(j, "guest_port", 1, 65535, err),
		.udp = !strcmp(proto, "udp"),
	};
	if (!is_addr(addr))
		bad(err, "host address", addr);
	if (!p->udp && strcmp(proto, "tcp"))
		bad(err, "proto", proto);
}

static void parse_allow(struct spec *s, const json_t *net, struct err *err)
{
	json_t *list = parse_list(net, "allow", SPEC_MAX_ALLOW, err), *j;
	size_t i;

	if (!list)
		return;
	s->net_allow = calloc(json_array_size(list) + 1, sizeof(char *));
	if (!s->net_allow) {
		err_set(err, ENOMEM, "out of memory");
		return;
	}
	json_array_foreach(list, i, j) {
		const char *v = json_is_string(j) ? json_string_value(j) : "";

		if (!*v || !plain(v, 255))
			bad(err, "allow", v);
		s->net_allow[i] = copy(v, err);
		if (!s->net_allow[i])
			return;
	}
}

static void parse_net(struct spec *s, const json_t *o, struct err *err)
{
	json_t *net = json_object_get(o, "net"), *list, *j;
	size_t i;

	if (!net || json_is_null(net))
		return;
	json_obj_opt(o, "net", err);
	s->net = true;
	s->net_host_loopback = json_bool_opt(net, "host_loopback", false, err);
	parse_hex(net, "mac", ':', s->mac, sizeof(s->mac), err);
	if (s->mac[0] & 1)
		bad(err, "mac", "a multicast address");
	list = parse_list(net, "ports", SPEC_MAX_PORTS, err);
	json_array_foreach(list, i, j)
		spec_port_parse(&s->port[s->nr_ports++], j, err);
	parse_allow(s, net, err);
}

static void parse_cpu(struct spec *s, const json_t *o, struct err *err)
{
	const char *model = json_str_opt(o, "cpu_model", "portable", err);

	s->memory_mib = json_int(o, "memory_mib", SPEC_MEMORY_MIN_MIB,
				 SPEC_MEMORY_MAX_MIB, err);
	s->cpus = json_int_opt(o, "cpus", 1, SPEC_MAX_CPUS, 1, err);
	s->accel = parse_enum(o, "accel", accel_names, ARRAY_LEN(accel_names), err);
	s->engine = parse_enum(o, "engine", engine_names, ARRAY_LEN(engine_names), err);
	s->cpu_model = copy(model, err);
	if (strcmp(model, "portable") && strcmp(model, "host"))
		bad(err, "cpu_model", model);
}

static int parse_spec(struct spec *s, const json_t *o, struct err *err)
{
	const char *name = json_is_null(json_object_get(o, "name")) ? NULL :
			   json_str_opt(o, "name", NULL, err);
	const char *cmdline = json_str_opt(o, "cmdline", "", err);

	json_int(o, "schema_version", SPEC_VERSION, SPEC_VERSION, err);
	parse_cpu(s, o, err);
	if (name) {
		s->name = copy(name, err);
		if (!*name || !plain(name, 255))
			bad(err, "name", name);
	}
	s->cmdline = copy(cmdline, err);
	if (!plain(cmdline, SPEC_CMDLINE_MAX - 1))
		bad(err, "cmdline", cmdline);
	s->has_initrd = json_bool_opt(o, "initrd", false, err);
	s->restore = json_bool_opt(o, "restore", false, err);
	parse_disks(s, o, err);
	spec_fs_parse(s, o, err);
	parse_net(s, o, err);
	s->vsock_cid = json_int_opt(o, "vsock_cid", 3, UINT32_MAX - 1, 3, err);
	parse_hex(o, "vmgenid", 0, s->vmgenid, sizeof(s->vmgenid), err);
	return -err->num;
}

static int parse_checked(struct spec *s, const json_t *o, struct err *err)
{
	struct err own = ERR_INIT;
	int ret;

	spec_init(s);
	ret = parse_spec(s, o, &own);
	if (ret) {
		spec_done(s);
		if (err)
			*err = own;
		err_wrap(err, ret, "the VM spec is not acceptable");
	}
	return ret;
}

int spec_parse_json(struct spec *s, const json_t *o, struct err *err)
{
	return parse_checked(s, o, err);
}

int spec_parse(struct spec *s, const char *json, size_t len, struct err *err)
{
	cleanup(json_putp) json_t *o = json_parse(json, len, err);

	spec_init(s);
	return o ? parse_checked(s, o, err) : -EINVAL;
}

/* ---- printing ---- */

/* Text that is not UTF-8 has no JSON form: building then gives NULL throughout. */
static json_t *checked(json_t *j, int bad_parts)
{
	if (!bad_parts)
		return j;
	json_decref(j);
	return NULL;
}

static json_t *hex(const uint8_t *data, unsigned n, char sep)
{
	char text[64], *p = text;

	for (unsigned i = 0; i < n; i++) {
		if (i && sep)
			*p++ = sep;
		p += sprintf(p, "%02x", data[i]);
	}
	return json_string(text);
}

static json_t *print_disks(const struct spec *s)
{
	json_t *list = json_array();
	int lost = 0;

	for (unsigned i = 0; i < s->nr_disks; i++) {
		const struct spec_disk *d = &s->disk[i];

		lost |= json_array_append_new(list, json_pack("{s:s, s:I, s:b, s:I}",
			"id", d->id, "layers", (json_int_t)d->nr_layers,
			"readonly", d->readonly, "size", (json_int_t)d->size));
	}
	return checked(list, lost);
}

json_t *spec_fs_print(const struct spec *s)
{
	json_t *list = json_array();
	int lost = 0;

	for (unsigned i = 0; i < s->nr_fs; i++)
		lost |= json_array_append_new(list, json_pack("{s:s, s:s, s:b}",
			"id", s->fs[i].id, "guest", s->fs[i].guest,
			"readonly", s->fs[i].readonly));
	return checked(list, lost);
}

json_t *spec_port_print(const struct spec_port *p)
{
	return json_pack("{s:s, s:i, s:i, s:s}", "host_addr", p->host_addr,
			 "host_port", p->host_port, "guest_port", p->guest_port,
			 "proto", p->udp ? "udp" : "tcp");
}

static json_t *print_net(const struct spec *s)
{
	json_t *net = json_object(), *ports = json_array(), *allow;
	int lost = 0;

	for (unsigned i = 0; i < s->nr_ports; i++)
		lost |= json_array_append_new(ports, spec_port_print(&s->port[i]));
	lost |= json_object_set_new(net, "mac", hex(s->mac, sizeof(s->mac), ':'));
	lost |= json_object_set_new(net, "ports", ports);
	lost |= json_object_set_new(net, "host_loopback",
				    json_boolean(s->net_host_loopback));
	if (!s->net_allow)
		return checked(net, lost);
	allow = json_array();
	for (char **p = s->net_allow; *p; p++)
		lost |= json_array_append_new(allow, json_string(*p));
	lost |= json_object_set_new(net, "allow", allow);
	return checked(net, lost);
}

json_t *spec_to_json(const struct spec *s)
{
	json_t *o = json_object();
	const struct { const char *key; json_t *value; } field[] = {
		{ "schema_version", json_integer(SPEC_VERSION) },
		{ "name", s->name ? json_string(s->name) : json_null() },
		{ "memory_mib", json_integer(s->memory_mib) },
		{ "cpus", json_integer(s->cpus) },
		{ "accel", json_string(accel_names[s->accel]) },
		{ "engine", json_string(engine_names[s->engine]) },
		{ "cpu_model", json_string(s->cpu_model ? s->cpu_model : "portable") },
		{ "cmdline", json_string(s->cmdline ? s->cmdline : "") },
		{ "initrd", json_boolean(s->has_initrd) },
		{ "restore", json_boolean(s->restore) },
		{ "disks", print_disks(s) },
		{ "fs", spec_fs_print(s) },
		{ "net", s->net ? print_net(s) : json_null() },
		{ "vsock_cid", json_integer(s->vsock_cid) },
		{ "vmgenid", hex(s->vmgenid, sizeof(s->vmgenid), 0) },
	};
	int lost = 0;

	for (unsigned i = 0; i < ARRAY_LEN(field); i++)
		lost |= json_object_set_new(o, field[i].key, field[i].value);
	return checked(o, lost);
}

int spec_print(const struct spec *s, struct buf *out)
{
	cleanup(json_putp) json_t *o = spec_to_json(s);

	if (!o)
		return -EILSEQ;
	json_print(o, out);
	return out->oom ? -ENOMEM : 0;
}

/* ---- the launch document ---- */

static int parse_fds(struct spec_fds *fds, const json_t *o, struct err *err)
{
	const char *role;
	json_t *j;
	int ret = 0;

	if (!json_is_object(o))
		return err_set(err, EINVAL, "the launch document has no \"fds\"");
	json_object_foreach((json_t *)(uintptr_t)o, role, j) {
		json_int_t fd = json_is_integer(j) ? json_integer_value(j) : -1;

		if (fd < 0 || fd > INT32_MAX)
			return err_set(err, EINVAL, "role %.64s: not a descriptor", role);
		ret = spec_fds_add(fds, fd, "%s", role);
		if (ret)
			return err_set(err, -ret, "role %.64s: not acceptable", role);
	}
	return 0;
}

int spec_launch_parse(struct spec *s, struct spec_fds *fds, const char *json,
		      size_t len, struct err *err)
{
	cleanup(json_putp) json_t *o = json_parse(json, len, err);
	struct err own = ERR_INIT;
	int ret = o ? 0 : -EINVAL;

	spec_init(s);
	fds->nr = 0;
	if (!o)
		return ret;
	json_int(o, "schema_version", SPEC_VERSION, SPEC_VERSION, &own);
	ret = -own.num;
	if (!ret)
		ret = parse_checked(s, json_object_get(o, "spec"), &own);
	if (!ret)
		ret = parse_fds(fds, json_object_get(o, "fds"), &own);
	if (!ret)
		return 0;
	spec_done(s);
	spec_fds_done(fds);
	if (err)
		*err = own;
	return ret;
}

int spec_launch_print(const struct spec *s, const struct spec_fds *fds,
		      struct buf *out)
{
	cleanup(json_putp) json_t *o = json_object();
	json_t *roles = json_object();
	int lost = 0;

	for (unsigned i = 0; i < fds->nr; i++)
		lost |= json_object_set_new(roles, fds->fd[i].role,
					    json_integer(fds->fd[i].fd));
	lost |= json_object_set_new(o, "schema_version", json_integer(SPEC_VERSION));
	lost |= json_object_set_new(o, "spec", spec_to_json(s));
	lost |= json_object_set_new(o, "fds", roles);
	if (lost)
		return -EILSEQ;
	json_print(o, out);
	return out->oom ? -ENOMEM : 0;
}

static int find_role(const struct spec_fds *f, const char *role)
{
	for (unsigned i = 0; i < f->nr; i++)
		if (!strcmp(f->fd[i].role, role))
			return i;
	return -ENOENT;
}

int spec_fds_add(struct spec_fds *f, int fd, const char *fmt, ...)
{
	char role[ROLE_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(role, sizeof(role), fmt, ap);
	va_end(ap);
	if (n <= 0 || n >= (int)sizeof(role))
		return -EINVAL;
	if (f->nr == SPEC_MAX_FDS)
		return -E2BIG;
	if (find_role(f, role) >= 0)
		return -EEXIST;
	f->fd[f->nr].role = strdup(role);
	if (!f->fd[f->nr].role)
		return -ENOMEM;
	f->fd[f->nr++].fd = fd;
	return 0;
}

int spec_fds_get(const struct spec_fds *f, const char *fmt, ...)
{
	char role[ROLE_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(role, sizeof(role), fmt, ap);
	va_end(ap);
	if (n <= 0 || n >= (int)sizeof(role))
		return -ENOENT;
	n = find_role(f, role);
	return n < 0 ? n : f->fd[n].fd;
}

void spec_fds_drop(struct spec_fds *f, const char *fmt, ...)
{
	char role[ROLE_MAX];
	va_list ap;
	int i;

	va_start(ap, fmt);
	vsnprintf(role, sizeof(role), fmt, ap);
	va_end(ap);
	i = find_role(f, role);
	if (i < 0)
		return;
	free(f->fd[i].role);
	f->fd[i] = f->fd[--f->nr];
}

void spec_fds_done(struct spec_fds *f)
{
	if (!f)
		return;
	for (unsigned i = 0; i < f->nr; i++)
		free(f->fd[i].role);
	f->nr = 0;
}
