/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loops: the calling thread accepts and takes signals, each further thread carries
 * connections. Moves bytes between sockets and sessions and knows nothing of what they mean.
 */
#ifndef CX_SERVER_H
#define CX_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "shared/live/decide.h"
#include "shared/live/stream.h"
#include "spoa-agent/listen.h"
#include "spoa-agent/resolve.h"

enum { SERVER_MAX_THREADS = 64, SERVER_MAX_LISTENERS = 16, SERVER_MAX_CONNS = 1024 };

struct server_options {
	struct listener *listeners;
	unsigned n_listeners;
	unsigned threads;
	struct resolver_options resolver;
	struct decider *decider;
	struct streams *streams; /* NULL: what is allowed is not noted */
	const char *secrets;     /* the directory of the gateway's own secrets, NULL: none */
	uid_t peer;              /* who may be told them, on a unix socket; -1: nobody */
};

/*
 * Runs until SIGTERM or SIGINT, which drain, or a second one, which ends at once; SIGHUP re-reads the
 * policy. All signals must be blocked but those. Closes the listeners. False: it could not start.
 */
bool server_run(const struct server_options *o);

#endif
