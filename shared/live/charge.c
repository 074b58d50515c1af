/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What questions cost (charge.h). Never looks at a clock, never permits what the verdict denied.
 */
#include "shared/live/charge.h"

#include <string.h>

#include "shared/policy/hash.h"

/* What a cell is about; the number is part of its key. */
enum what {
	WHAT_SOURCE,  /* clocks: one of enum clock each */
	WHAT_BEYOND,  /* the same, of who is over his limit; the last one: written down until */
	WHAT_ENTRY,   /* a rule: clocks likewise */
	WHAT_NAMES,   /* below a wildcard: names, octets */
	WHAT_BUDGET,  /* a rule's own dns_names and dns_octets */
	WHAT_NAME,    /* a name: asked for until */
	WHAT_FAILURES /* below a wildcard, or of a name: look-ups without an answer */
};

enum clock { CLOCK_FIRST, CLOCK_SECOND, CLOCK_THIRD, CLOCK_SAID = CLOCK_THIRD };

enum { FAILURES_AT_ONCE = 4, FAILURE_S = 5, MAX_RETRY_S = 86400 };

struct bill {
	const struct charge_tables *t;
	const struct policy *p;
	const struct question *q;
	struct verdict *v;
	uint64_t generation;
	uint64_t now_ns;
	struct charge out;
	bool full;
	bool fresh; /* the name is new below its wildcard */
	bool tentative;
};

/* What a clock is about. */
struct thing {
	enum what what;
	unsigned labels; /* of the name's end that it is about; 0: none */
	uint64_t detail;
};

/*
 * Hashed from a seed of the table's own: who could find names of the same hash would have them all for
 * the price of one.
 */
static struct limit_key key_in(const struct limits *l, const struct bill *b, struct thing x)
{
	const struct name *n = b->q->name;
	uint64_t h = limit_seed(l) ^ x.detail;
	for (unsigned i = n ? n->n_labels : 0; x.labels > 0 && i-- > 0; x.labels--)
		h = hash_label(h, n->wire + n->off[i] + 1, n->wire[n->off[i]]);
	return (struct limit_key){ b->q->src, b->generation,
				   x.what == WHAT_SOURCE ? 0
							 : hash_mix(h, 2 * (uint64_t)x.what + 1) };
}

static uint64_t rule_word(const struct policy *p, uint32_t rule)
{
	char id[13];
	uint64_t w[2] = { 0 };
	policy_rule_id(p, rule, id);
	memcpy(w, id, 12);
	return w[0] ^ w[1] << 29;
}

/* ---- one limit ---- */

static void note(struct bill *b, enum limit_kind k, uint64_t wait_ns)
{
	uint64_t s = wait_ns / 1000000000 + 1;
	b->full |= wait_ns == LIMIT_FULL;
	b->out.limited = true;
	b->out.kind = k;
	b->out.retry_after_s = (uint32_t)(s < MAX_RETRY_S ? s : MAX_RETRY_S);
	if (wait_ns == LIMIT_FULL)
		b->out.retry_after_s = 1;
}

/* Where the others' clock stands. */
static uint64_t others_clock(const struct bill *b, struct thing x, enum clock c)
{
	uint64_t most = 0;
	for (unsigned i = 0; i < CHARGE_OTHERS; i++) {
		const struct limits *l = b->t->others[i];
		if (!l)
			continue;
		const struct limit_key k = key_in(l, b, x);
		uint64_t at = limit_clock(l, &k, c);
		if (at > most)
			most = at;
	}
	return most;
}

/* False, and noted, if that is too much. */
static bool pay(struct bill *b, struct thing x, enum clock c, enum limit_kind k, struct rate r,
		uint64_t cost)
{
	if (r.amount == 0)
		return true;
	const struct limit_pace pace = limit_pace(r.amount, r.period_s, r.burst);
	const struct limit_key key = key_in(b->t->own, b, x);
	uint64_t floor_ns = x.what == WHAT_NAMES ? others_clock(b, x, c) : 0;
	uint64_t wait = limit_charge(b->t->own, &key, c, &pace, cost, floor_ns, b->now_ns);
	if (wait)
		note(b, k, wait);
	return wait == 0;
}

/* ---- the source ---- */

static enum limit_kind kind_of(const struct question *q)
{
	return q->layer == LAYER_DNS    ? LIMIT_DNS
	       : q->layer == LAYER_HTTP ? LIMIT_REQUESTS
					: LIMIT_CONNECTIONS;
}

static enum clock clock_of(enum limit_kind k)
{
	return k == LIMIT_CONNECTIONS || k == LIMIT_DNS_OCTETS ? CLOCK_SECOND
	       : k == LIMIT_DNS                                ? CLOCK_THIRD
							       : CLOCK_FIRST;
}

/* The profile that says what the source may do: of who has none, the default one. */
static uint32_t paying_profile(const struct bill *b)
{
	return b->v->profile != UINT32_MAX ? b->v->profile : policy_default_profile(b->p);
}

static bool pay_kind(struct bill *b, enum limit_kind k)
{
	struct rate r = policy_limit(b->p, paying_profile(b), k);
	enum clock c = clock_of(k), beyond = c == CLOCK_THIRD ? CLOCK_FIRST : c;
	if (pay(b, (struct thing){ .what = WHAT_SOURCE }, c, k, r, 1))
		return true;
	if (b->tentative)
		return false;
	struct charge first = b->out;
	b->out.dropped =
		!pay(b, (struct thing){ .what = WHAT_BEYOND }, beyond, k, r, 1) && !b->full;
	b->out.retry_after_s = first.retry_after_s;
	return false;
}

static bool pay_source(struct bill *b)
{
	if (b->q->paid)
		return true;
	if (b->q->layer == LAYER_HTTP && b->q->opens && !pay_kind(b, LIMIT_CONNECTIONS))
		return false;
	return pay_kind(b, kind_of(b->q));
}

/* ---- names below a wildcard ---- */

/* Did the subject ask for the name lately, here or of another plugin? */
static bool known_name(const struct bill *b, struct thing name)
{
	const struct limit_key k = key_in(b->t->own, b, name);
	return others_clock(b, name, CLOCK_FIRST) > b->now_ns ||
	       limit_clock(b->t->own, &k, CLOCK_FIRST) > b->now_ns;
}

static void keep_name(const struct bill *b, struct thing name, uint32_t keep_s)
{
	const struct limit_key k = key_in(b->t->own, b, name);
	(void)limit_mark(b->t->own, &k, CLOCK_FIRST, b->now_ns + keep_s * UINT64_C(1000000000),
			 b->now_ns);
}

/* What the wildcard does not say: the labels in front of it. */
static uint64_t octets_below(const struct name *n, uint8_t below)
{
	return below < n->n_labels ? n->off[n->n_labels - below] : n->len;
}

/* False if the name is one too many below its wildcard. */
static bool pay_names(struct bill *b)
{
	const struct name *n = b->q->name;
	const struct verdict *v = b->v;
	if (b->q->layer == LAYER_TCP || b->q->layer == LAYER_CONNECT || !n || v->below == 0)
		return true;
	const struct thing name = { WHAT_NAME, n->n_labels, 0 },
			   wildcard = { WHAT_NAMES, v->below, 0 };
	struct rate names = policy_limit(b->p, v->profile, LIMIT_DNS_NAMES),
		    octets = policy_limit(b->p, v->profile, LIMIT_DNS_OCTETS);
	if (known_name(b, name))
		return true;
	if (!pay(b, wildcard, CLOCK_FIRST, LIMIT_DNS_NAMES, names, 1) ||
	    !pay(b, wildcard, CLOCK_SECOND, LIMIT_DNS_OCTETS, octets, octets_below(n, v->below)))
		return false;
	b->fresh = true;
	keep_name(b, name, names.period_s ? names.period_s : CHARGE_KEEP_S);
	return true;
}

/* ---- entries ---- */

static bool pay_entry(struct bill *b, uint32_t rule, enum limit_kind k, enum what what,
		      uint64_t cost)
{
	const struct thing x = { what, 0, rule_word(b->p, rule) };
	return pay(b, x, clock_of(k), k, policy_rule_limit(b->p, rule, k), cost);
}

static bool pay_entries(struct bill *b)
{
	const struct verdict *v = b->v;
	bool opens = b->q->layer == LAYER_HTTP && b->q->opens;
	for (unsigned i = 0; i < v->n_limited; i++) {
		uint32_t r = v->limited[i];
		if ((opens && !pay_entry(b, r, LIMIT_CONNECTIONS, WHAT_ENTRY, 1)) ||
		    (!b->q->paid && !pay_entry(b, r, kind_of(b->q), WHAT_ENTRY, 1)))
			return false;
		if (b->fresh && (!pay_entry(b, r, LIMIT_DNS_NAMES, WHAT_BUDGET, 1) ||
				 !pay_entry(b, r, LIMIT_DNS_OCTETS, WHAT_BUDGET,
					    octets_below(b->q->name, v->below))))
			return false;
	}
	return true;
}

/* ---- the whole ---- */

static void refuse(struct bill *b, bool entry)
{
	struct verdict *v = b->v;
	bool observes = entry && verdict_observes(b->p, v->profile);
	if (observes) {
		if (!v->observed)
			v->reason = REASON_RATE_LIMIT;
		v->observed = true;
		return;
	}
	v->action = ACTION_DENY;
	v->reason = REASON_RATE_LIMIT;
	v->observed = false;
	v->next = NEXT_NONE;
}

bool charge_said(const struct charge_tables *t, const struct question *q, uint64_t generation,
		 uint64_t now_ns)
{
	const struct bill b = { .q = q, .generation = generation };
	const struct limit_key k = key_in(t->own, &b, (struct thing){ .what = WHAT_BEYOND });
	return !limit_mark(t->own, &k, CLOCK_SAID, now_ns + CHARGE_WINDOW_S * UINT64_C(1000000000),
			   now_ns);
}

static void pay_all(struct bill *b)
{
	bool denied = b->v->action == ACTION_DENY;
	if (!pay_source(b)) {
		if (!denied)
			refuse(b, false);
	} else if (!denied && !pay_names(b)) {
		refuse(b, false);
	} else if (!denied && !pay_entries(b)) {
		refuse(b, true);
	}
}

static void count(struct charge_counts *counts, const struct bill *b)
{
	enum layer l = b->q->layer;
	if ((size_t)l >= CHARGE_LAYERS)
		return;
	if (b->v->reason == REASON_RATE_LIMIT)
		atomic_fetch_add_explicit(&counts->limited[l][b->out.kind], 1,
					  memory_order_relaxed);
	if (b->out.dropped)
		atomic_fetch_add_explicit(&counts->dropped[l], 1, memory_order_relaxed);
	if (b->full)
		atomic_fetch_add_explicit(&counts->full, 1, memory_order_relaxed);
}

struct charge charge_question(const struct charge_tables *t, struct charge_counts *counts,
			      const struct policy *p, const struct question *q, uint64_t generation,
			      const struct now *now, bool tentative, struct verdict *v)
{
	struct bill b = { .t = t,
			  .p = p,
			  .q = q,
			  .v = v,
			  .generation = generation,
			  .tentative = tentative,
			  .now_ns = now->boot_ns };
	/* what only says what comes next is paid when that has come */
	if (!p || !t->own || v->unpoliced || v->any_profile || v->reason == REASON_INTERNAL_ERROR ||
	    (v->action == ACTION_NEXT && q->layer != LAYER_CONNECT))
		return b.out;
	pay_all(&b);
	if (!b.out.limited || tentative)
		return b.out;
	b.out.quiet = v->action == ACTION_DENY &&
		      (b.out.dropped ||
		       (v->reason == REASON_RATE_LIMIT && charge_said(t, q, generation, b.now_ns)));
	count(counts, &b);
	return b.out;
}

/* ---- look-ups that bring nothing ---- */

/* Four at once are forgiven, then one in five seconds. */
static struct limit_pace failure_pace(void)
{
	return limit_pace(1, FAILURE_S, FAILURES_AT_ONCE);
}

static struct limit_key failure_key(const struct charge_tables *t, const struct question *q,
				    uint64_t generation, uint8_t below)
{
	const struct bill b = { .q = q, .generation = generation };
	return key_in(t->own, &b,
		      (struct thing){ WHAT_FAILURES, below ? below : q->name->n_labels, 0 });
}

void charge_failure(const struct charge_tables *t, const struct question *q, uint64_t generation,
		    uint8_t below, uint64_t now_ns)
{
	const struct limit_pace pace = failure_pace();
	if (!t->own || !q->name)
		return;
	const struct limit_key k = failure_key(t, q, generation, below);
	(void)limit_charge(t->own, &k, CLOCK_FIRST, &pace, 1, 0, now_ns);
}

bool charge_failing(const struct charge_tables *t, const struct question *q, uint64_t generation,
		    uint8_t below, uint64_t now_ns)
{
	const struct limit_pace pace = failure_pace();
	if (!t->own || !q->name)
		return false;
	const struct limit_key k = failure_key(t, q, generation, below);
	uint64_t clock = limit_clock(t->own, &k, CLOCK_FIRST);
	return clock > now_ns && clock - now_ns + (uint64_t)pace.unit_ns > pace.ahead_ns;
}
