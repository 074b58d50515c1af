/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a judged question costs its subject: the one place where limits are kept, for every plugin. It
 * turns a verdict that would pass into rate-limit where a budget is used up, and decides nothing else.
 *
 *   - The source pays for every question, also for a denied one: `dns`, `connections` or `requests`.
 *   - A name below a wildcard that the subject did not ask for lately costs one of `dns_names`, and its
 *     octets below the wildcard of `dns_octets`; paid before anything is looked up.
 *     A CONNECT is charged as the connection that it asks for, what is in it no more.
 *   - Every entry with limits that permits the question is paid, too.
 *   - Who goes on far beyond the source's limits (by as much again) is not even refused: `dropped`.
 *
 * An entry's limit is only noted under `mode: observe`; the source's hold there as well.
 */
#ifndef CX_CHARGE_H
#define CX_CHARGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/live/limit.h"
#include "shared/policy/verdict.h"

enum {
	CHARGE_OTHERS = 3, /* tables of other writers that are taken into account */
	CHARGE_LAYERS = LAYER_TCP + 1,
	CHARGE_WINDOW_S = 60, /* a subject's rate-limit is written down once in this time */
	CHARGE_KEEP_S = 60    /* a name counts as asked for so long where dns_names has no period */
};

/* Since the start; for metrics. */
struct charge_counts {
	_Atomic uint64_t limited[CHARGE_LAYERS][LIMIT_KIND_COUNT];
	_Atomic uint64_t dropped[CHARGE_LAYERS];
	_Atomic uint64_t full; /* refused because there was no place in the table */
};

/* The tables, borrowed. own NULL: nothing is limited. */
struct charge_tables {
	struct limits *own;
	const struct limits *others[CHARGE_OTHERS];
};

struct charge {
	bool limited;           /* some limit was reached; the verdict says whether that counts */
	enum limit_kind kind;   /* which, if limited */
	uint32_t retry_after_s; /* if limited: 1 .. 86400 */
	bool dropped;           /* give no answer at all */
	bool quiet;             /* it was written down lately: do not again */
};

/*
 * Charges, and changes *v to rate-limit where that is due. p may be NULL: then nothing is charged.
 * tentative: who is over a limit will be asked about again, so that being over costs and counts nothing.
 */
struct charge charge_question(const struct charge_tables *t, struct charge_counts *counts,
			      const struct policy *p, const struct question *q, uint64_t generation,
			      const struct now *now, bool tentative, struct verdict *v);

/* Was a limit of the subject's written down in the last CHARGE_WINDOW_S? Else it counts as done now. */
bool charge_said(const struct charge_tables *t, const struct question *q, uint64_t generation,
		 uint64_t now_ns);

/*
 * A look-up for the subject below the name's wildcard (or of the name itself) brought no answer. Four
 * such at once are forgiven, and then one in five seconds: else charge_failing() says so, and nothing
 * is to be looked up for the subject there.
 */
void charge_failure(const struct charge_tables *t, const struct question *q, uint64_t generation,
		    uint8_t below, uint64_t now_ns);
bool charge_failing(const struct charge_tables *t, const struct question *q, uint64_t generation,
		    uint8_t below, uint64_t now_ns);

#endif
