/* SPDX-License-Identifier: MIT */
/*
 * kmod.h - kernel modules: which files a guest needs, in which order.  For
 * src/lib only.
 *
 * A package has no modules.dep (depmod writes that on installation), so the
 * dependencies come from where depmod finds them: the .modinfo section of
 * each module.
 */
#ifndef LIB_KMOD_H
#define LIB_KMOD_H

#include <stddef.h>

struct buf;
struct err;

/*
 * Copies the modules that guests need, and what they depend on, from a tree
 * like /lib/modules/RELEASE to the directory `dst`, decompressed, as NAME.ko.
 * dst/modules.dep gets one line each, in an order to load: "NAME.ko: A.ko B.ko".
 */
int kmod_collect(const char *tree, const char *dst, struct err *err);

#endif
