/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a daemon listens or asks, as its command line says it. Addresses only: names are never looked
 * up. No allocation, no I/O; any thread.
 */
#ifndef CX_ENDPOINT_H
#define CX_ENDPOINT_H

#include <stdbool.h>
#include <sys/socket.h>

#include "shared/base/addr.h"

struct endpoint {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* ADDR:PORT or [ADDR6]:PORT. False: it is neither, and *out is undefined. */
bool endpoint_from_listen(struct endpoint *out, const char *s);
/* ADDR@PORT or ADDR (port 53), of either family. False, likewise. */
bool endpoint_from_server(struct endpoint *out, const char *s);

#endif
