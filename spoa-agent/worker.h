/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one hot thread does with a NOTIFY: question, judge, address, judge again, answer, record. It
 * decides nothing; decide.h does. Every NOTIFY is answered, and recorded once, with its final
 * outcome, even if its connection is gone by then.
 *
 * Threads: a worker belongs to the thread of its loop.
 */
#ifndef CX_WORKER_H
#define CX_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/live/decide.h"
#include "spoa-agent/resolve.h"
#include "spoa-agent/session.h"

struct ev_loop;
struct streams;
struct worker;

enum {
	WORKER_MAX_PENDING = 8192, /* answers that wait for a look-up */
	WORKER_MAX_PER_SOURCE = 256
};

/*
 * NULL: no memory. The decider must outlive the worker, and so must the streams, where what is allowed
 * is noted (NULL: nowhere), and secrets: the directory of the gateway's own (NULL: there is none).
 */
struct worker *worker_new(struct ev_loop *loop, struct decider *d, struct streams *streams,
			  const struct resolver_options *o, const char *secrets);
/* Answers what is pending, with internal-error. */
void worker_free(struct worker *w);

bool worker_ready(const struct worker *w);
void worker_notify(struct worker *w, struct session *s, const struct spop_frame *f);

#endif
