/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of a name, asked from the gateway's own resolver, in the event loop of one thread.
 * Only looks up; which address may be used is the verdict's to say. Memory is fixed: a bounded cache,
 * a bounded number of look-ups in flight, one per name however many wait for it.
 *
 * Threads: a resolver belongs to the thread of its loop.
 */
#ifndef CX_RESOLVE_H
#define CX_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"
#include "spoa-agent/dns.h"

struct ev_loop;
struct resolver;

enum { RESOLVE_MAX_ADDRS = 2 * DNS_MAX_ADDRS };

/* One of the two look-ups of a name. */
struct resolve_half {
	bool done;
	bool failed; /* done, but the resolver gave no answer */
	struct dns_answer a;
};

struct resolved {
	struct resolve_half v4, v6;
};

struct resolver_options {
	struct sockaddr_storage server;
	socklen_t server_len;
	double deadline_s;      /* then a look-up ends with what is there */
	unsigned max_in_flight; /* names */
	unsigned cache_names;   /* rounded up to a multiple of 8 */
};

/* ADDR, ADDR@PORT; 53 without a port. False: it is not that. */
bool resolver_server(struct resolver_options *o, const char *text);

/* The caller's memory, from resolver_wait() until `ready` returned true or resolve_cancel(). */
struct resolve_waiter {
	/*
	 * A half is there, or (final) nothing more will come. True: the waiter has what it needs and
	 * is forgotten, as it is after final. Must not start or cancel other waits.
	 */
	bool (*ready)(struct resolve_waiter *w, const struct resolved *r, bool final);
	struct resolve_waiter *next, **link;
};

/* Options are copied. NULL: no memory. */
struct resolver *resolver_new(struct ev_loop *loop, const struct resolver_options *o);
/* There must be no waiters. */
void resolver_free(struct resolver *r);

/* What the cache holds, or NULL. Valid until the next call on r. */
const struct resolved *resolver_known(struct resolver *r, const struct name *n);
/*
 * Starts a look-up, or joins the one in flight: w->ready will be called, from the loop. False: too
 * many look-ups, or no descriptor; nothing was started.
 */
bool resolver_wait(struct resolver *r, const struct name *n, struct resolve_waiter *w);
void resolve_cancel(struct resolve_waiter *w);

/* Both families' addresses, the preferred one first; returns how many. */
unsigned resolved_list(const struct resolved *r, bool v6_first, struct addr out[RESOLVE_MAX_ADDRS]);

struct resolver_stats {
	uint64_t hits, misses, joined, refused, failures;
	unsigned in_flight;
};

void resolver_stats(const struct resolver *r, struct resolver_stats *out);

#endif
