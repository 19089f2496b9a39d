/* SPDX-License-Identifier: MIT */
/* lostpage.h - the end of a VM whose bundle is taken away under it; process.c's. */
#ifndef VMM_LOSTPAGE_H
#define VMM_LOSTPAGE_H

struct mem;

/* From here on a page of RAM that the bundle's file has not ends the process with that
 * reason in exit_fd (borrowed; -1: nowhere), which nobody else writes any more. */
void lostpage_watch(const struct mem *mem, int exit_fd);

#endif
