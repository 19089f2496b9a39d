/* SPDX-License-Identifier: MIT */
/* holder.h - who holds a host port.  For src/lib only. */
#ifndef LIB_HOLDER_H
#define LIB_HOLDER_H

#include <stdbool.h>

struct spec_port;

#define HOLDER_TEXT 320

/*
 * "VM NAME (pid N)", "PROGRAM (pid N)", or "a process of user N" where the process
 * is hidden from us.  False: nobody does (any more).
 */
bool holder_find(const struct spec_port *port, char text[HOLDER_TEXT]);

#endif
