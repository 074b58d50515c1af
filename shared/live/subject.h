/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much each subject has open at once: questions that wait for the upstream, and TCP connections.
 * One table for all threads, fixed in size. Two counters a subject, placed by a secret hash, of which
 * the lower one counts: a subject is held to what another one does only where both are shared.
 *
 * Any thread; no locks.
 */
#ifndef CX_SUBJECT_H
#define CX_SUBJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/base/addr.h"

struct subjects;

enum subject_kind { SUBJECT_QUESTIONS, SUBJECT_CONNECTIONS };

struct subject {
	struct addr src;     /* IPv6: the /64 counts */
	uint64_t generation; /* 0: none */
};

/* NULL: no memory or no randomness. */
struct subjects *subjects_new(void);
void subjects_free(struct subjects *s);

/* False: it has `max` of them already. */
bool subject_take(struct subjects *s, enum subject_kind k, const struct subject *who, unsigned max);
/* Gives back what was taken, once. */
void subject_give(struct subjects *s, enum subject_kind k, const struct subject *who);

#endif
