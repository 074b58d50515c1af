/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clocks of limit.h, without their file (limitfile.c). Never waits, never gives away a place that
 * holds a clock in the future but as limit.h says.
 */
#include "shared/live/limit.h"

#include <stdatomic.h>

#include "shared/live/limitfile.h"
#include "shared/policy/hash.h"

enum { WAYS = LIMIT_BUCKET, PLACES = 2 * WAYS };

/* Where a key may be: two buckets, and the word that says it is there. */
struct spot {
	struct limit_cell *bucket[2];
	uint64_t key;
};

static uint64_t get(const _Atomic uint64_t *w)
{
	return atomic_load_explicit(w, memory_order_relaxed);
}

/* ---- keys ---- */

/* The subject in two words, and its prefix in one. */
static void subject_words(const struct limit_key *k, uint64_t w[2], uint64_t *prefix)
{
	uint64_t a[2];
	memcpy(a, k->src.b, sizeof(a));
	if (k->generation) {
		w[0] = w[1] = *prefix = k->generation;
	} else if (addr_is_v4(&k->src)) {
		w[0] = a[1];
		w[1] = 4;
		*prefix = a[1] & UINT64_C(0x00ffffffffffffff); /* little-endian: the last octet */
	} else {
		w[0] = a[0];
		w[1] = 6;
		*prefix = a[0] & UINT64_C(0x0000ffffffffffff);
	}
}

/* The key's low 16 bits tell the prefix, the others the whole key; never 0. */
static struct spot spot_of(const struct limits *l, const struct limit_key *k)
{
	const uint64_t *seed = l->map->seed;
	uint64_t w[2], prefix;
	subject_words(k, w, &prefix);
	uint64_t a = hash_mix(w[0] ^ seed[0], w[1] ^ seed[1]);
	uint64_t h = hash_mix(a ^ seed[2], k->what ^ seed[3]);
	uint64_t g = hash_mix(h ^ seed[1], seed[0] | 1);
	uint64_t tag = hash_mix(prefix ^ seed[2], seed[3] | 1);
	uint64_t mask = l->buckets - 1;
	return (struct spot){ { &l->map->cell[(h >> 32 & mask) * WAYS],
				&l->map->cell[(h & mask) * WAYS] },
			      (g & ~UINT64_C(0xffff)) | UINT64_C(1) << 63 | (tag & 0xffff) };
}

static struct limit_cell *place(const struct spot *s, unsigned i)
{
	return &s->bucket[i / WAYS][i % WAYS];
}

static struct limit_cell *find(const struct spot *s)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (get(&place(s, i)->key) == s->key)
			return place(s, i);
	return NULL;
}

/* ---- newcomers ---- */

/* When the last of its clocks will be in the past. */
static uint64_t cell_until(const struct limit_cell *c)
{
	uint64_t until = 0;
	for (unsigned i = 0; i < LIMIT_CLOCKS; i++)
		if (get(&c->clock[i]) > until)
			until = get(&c->clock[i]);
	return until;
}

static bool same_prefix(uint64_t a, uint64_t b)
{
	return (a & 0xffff) == (b & 0xffff);
}

static unsigned count_prefix(const struct spot *s, uint64_t key)
{
	unsigned n = 0;
	for (unsigned i = 0; i < PLACES; i++)
		n += same_prefix(get(&place(s, i)->key), key);
	return n;
}

/*
 * Of the prefix that holds most of these places, the cell that would be free first; NULL if the newcomer's
 * own prefix holds nearly as many.
 */
static struct limit_cell *take_from_most(const struct spot *s)
{
	unsigned most = count_prefix(s, s->key) + 1;
	struct limit_cell *victim = NULL;
	for (unsigned i = 0; i < PLACES; i++) {
		struct limit_cell *c = place(s, i);
		unsigned n = count_prefix(s, get(&c->key));
		if (same_prefix(get(&c->key), s->key) || n < most || n < 2)
			continue;
		if (n > most || !victim || cell_until(c) < cell_until(victim))
			victim = c;
		most = n;
	}
	return victim;
}

static unsigned count_free(const struct spot *s, unsigned bucket, uint64_t now_ns)
{
	unsigned n = 0;
	for (unsigned i = 0; i < WAYS; i++)
		n += cell_until(&s->bucket[bucket][i]) <= now_ns;
	return n;
}

/*
 * Makes a place the newcomer's, in the emptier of the two buckets. A free one needs no cleaning: clocks in the past are as good as none.
 * Another thread may be just as far: then its cell is found.
 */
static struct limit_cell *settle_in(const struct spot *s, uint64_t now_ns)
{
	unsigned first = count_free(s, 0, now_ns) >= count_free(s, 1, now_ns) ? 0 : WAYS;
	for (unsigned i = 0; i < PLACES; i++) {
		struct limit_cell *c = place(s, (first + i) % PLACES);
		uint64_t old = get(&c->key);
		if (old == s->key)
			return c;
		if (cell_until(c) > now_ns)
			continue;
		if (atomic_compare_exchange_strong_explicit(
			    &c->key, &old, s->key, memory_order_relaxed, memory_order_relaxed) ||
		    old == s->key)
			return c;
	}
	struct limit_cell *c = take_from_most(s);
	uint64_t old = c ? get(&c->key) : 0;
	if (!c || !atomic_compare_exchange_strong_explicit(
			  &c->key, &old, s->key, memory_order_relaxed, memory_order_relaxed))
		return NULL;
	for (unsigned i = 0; i < LIMIT_CLOCKS; i++)
		atomic_store_explicit(&c->clock[i], 0, memory_order_relaxed);
	return c;
}

/* ---- clocks ---- */

struct limit_pace limit_pace(uint64_t amount, uint32_t period_s, uint64_t burst)
{
	const double most = 9e18;
	double unit = (double)period_s * 1e9 / (double)amount, ahead = unit * (double)burst;
	return (struct limit_pace){ unit, ahead < most ? (uint64_t)(ahead + 0.5) : (uint64_t)most };
}

uint64_t limit_seed(const struct limits *l)
{
	return l->map->seed[0] ^ l->map->seed[3];
}

static bool move_clock(struct limit_cell *c, unsigned clock, uint64_t *old, uint64_t to)
{
	return atomic_compare_exchange_weak_explicit(&c->clock[clock], old, to,
						     memory_order_relaxed, memory_order_relaxed);
}

uint64_t limit_charge(struct limits *l, const struct limit_key *k, unsigned clock,
		      const struct limit_pace *p, uint64_t cost, uint64_t floor_ns, uint64_t now_ns)
{
	const struct spot s = spot_of(l, k);
	struct limit_cell *c = find(&s);
	if (!c)
		c = settle_in(&s, now_ns);
	if (!c)
		return LIMIT_FULL;
	uint64_t most = p->ahead_ns < UINT64_MAX - now_ns ? now_ns + p->ahead_ns : UINT64_MAX;
	uint64_t least = floor_ns > now_ns ? floor_ns : now_ns, old = get(&c->clock[clock]);
	double price = p->unit_ns * (double)cost + 0.5;
	uint64_t price_ns = price < 9e18 ? (uint64_t)price : UINT64_C(9000000000000000000);
	for (;;) {
		uint64_t from = old > least ? old : least, next = from + price_ns;
		/* used up at a slower pace than the one of now: as much as can be used up now */
		if (old > most) {
			if (move_clock(c, clock, &old, most))
				old = most;
			continue;
		}
		if (next < from || next > most)
			return next < from || price_ns > p->ahead_ns ? LIMIT_FULL - 1 : next - most;
		if (move_clock(c, clock, &old, next))
			return 0;
	}
}

uint64_t limit_clock(const struct limits *l, const struct limit_key *k, unsigned clock)
{
	const struct spot s = spot_of(l, k);
	const struct limit_cell *c = find(&s);
	return c ? get(&c->clock[clock]) : 0;
}

bool limit_mark(struct limits *l, const struct limit_key *k, unsigned clock, uint64_t until_ns,
		uint64_t now_ns)
{
	const struct spot s = spot_of(l, k);
	struct limit_cell *c = find(&s);
	if (!c)
		c = settle_in(&s, now_ns);
	if (!c)
		return true;
	uint64_t old = get(&c->clock[clock]);
	while (old <= now_ns)
		if (move_clock(c, clock, &old, until_ns))
			return true;
	return false;
}
