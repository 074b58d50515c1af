/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loops of cx-dns: the calling thread takes signals, each further one serves with sockets of
 * its own.
 */
#ifndef CX_SHIM_SERVER_H
#define CX_SHIM_SERVER_H

#include "unbound-module/shim/shim.h"

enum { SERVER_WHY = 160 };

/*
 * Opens the sockets of all listeners for all threads: threads * n_listeners, one thread after the
 * other. False with one line in why; nothing is open then.
 */
bool server_open(const struct shim_options *o, struct shim_sockets *out, char *why);
void server_close(const struct shim_options *o, struct shim_sockets *s);

/*
 * Runs until SIGTERM or SIGINT, which drain, or a second one, which ends at once; SIGHUP re-reads the
 * policy. False: it could not start.
 */
bool server_run(struct shim_options *o, const struct shim_sockets *s);

#endif
