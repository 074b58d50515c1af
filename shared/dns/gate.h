/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of an answer a client may see. A resolver (the module, cx-dns) asks gate_open() whether the
 * question may be asked at all, shows each record of the answer to gate_record(), and gate_close()
 * says what is to be sent: the answer, with or without some records, or a refusal. The records come
 * one by one and uncompressed, so that it does not matter how the resolver keeps them; they are never
 * changed in place.
 *
 *   - A and AAAA records, and the address hints of HTTPS and SVCB, to which no connection may go, are
 *     removed wherever they stand; so are `ech`, and IPv6 hints where AAAA is not answered.
 *   - An alias (CNAME, DNAME, HTTPS, SVCB) that leads to a name that is denied makes the whole answer
 *     a refusal.
 *   - If nothing is left of what was asked for, the answer is an empty one.
 *
 * Decides nothing by itself: verdict.h does. No allocation, no I/O.
 *
 * Threads: a gate belongs to one thread; from gate_open() to gate_close() the thread's policy is
 * borrowed, which is to be short: an answer is a second event, and is judged anew.
 */
#ifndef CX_GATE_H
#define CX_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/live/decide.h"

enum gate_section { GATE_ANSWER, GATE_AUTHORITY, GATE_ADDITIONAL };

enum gate_fate {
	GATE_KEEP,
	GATE_DROP,   /* with the signatures over its set */
	GATE_CHANGED /* the caller's buffer holds what to send instead; signatures as with DROP */
};

enum { GATE_MAX_PINS = 18 };

struct gate {
	struct decide_thread *t;
	const struct question *q;
	const struct policy *p;
	struct facts f;
	struct decision *d;
	struct verdict was;       /* on the question */
	bool filters;             /* there is something to look at in answers */
	bool changed;             /* some record was dropped or changed */
	unsigned wanted, removed; /* records of the answer that are of the type asked for */
	enum reason removed_for;  /* the first reason that holds of those removed */
	const struct name
		*at;    /* where the chain of aliases has got to; NULL: no name was asked for */
	bool on_chain;  /* the set shown now stands there */
	uint32_t ttl_s; /* the least on the chain */
	unsigned n_pins;
	/* from here on only what n_pins and `at` say is there */
	struct addr pins[GATE_MAX_PINS];
	struct name alias; /* the one that `at` leads to, behind the question's own name */
};

/*
 * Judges the question and fills *d, which stays the caller's. True if it passes: then the records may
 * be shown. gate_close() is due in either case.
 */
bool gate_open(struct gate *g, struct decide_thread *t, const struct question *q, struct now now,
	       struct decision *d);

/*
 * The records that follow belong to this name (wire form with root) and hold so long. Only addresses
 * at the end of the chain of aliases that starts at the question are pinned; of owners that are not
 * told, none.
 */
void gate_owner(struct gate *g, enum gate_section s, const uint8_t *wire, size_t n, uint32_t ttl_s);

/*
 * One record: its type and its data, names in it uncompressed. For GATE_CHANGED out (n octets) takes
 * the data and *out_n its length, which never grows; out may be NULL where only the fate counts.
 */
enum gate_fate gate_record(struct gate *g, enum gate_section s, uint16_t type, const uint8_t *data,
			   size_t n, uint8_t *out, size_t *out_n);

/*
 * The outcome, and the pins: true, and the answer is to be sent as gate_record() said (g->changed: not as it is);
 * or false, and *d says with what reason to refuse. Returns the policy.
 */
bool gate_close(struct gate *g);

/*
 * Charges the subject for the question, which is due once for each that is answered or looked up: between
 * gate_open() and gate_close(), or by gate_ask(). False: a limit was reached, and *d says so; if
 * d->dropped, no answer is to be sent. tentative: the question will then be asked again, so that being
 * over a limit costs nothing here.
 */
bool gate_charge(struct gate *g, bool tentative);

/*
 * The question alone, as it comes in: judged and charged, without records. If it passes, the answer is
 * judged by gate_open() and so on when it is there. If not, and d->dropped, no answer is to be sent.
 */
bool gate_ask(struct decide_thread *t, const struct question *q, struct now now,
	      struct decision *d);

#endif
