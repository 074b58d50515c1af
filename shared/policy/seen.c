/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rules a profile sees of those that stand at a name or address (judge.h). Never says what they
 * permit.
 */
#include "shared/policy/judge.h"

#include <string.h>

/* The rank of a layer for the profile, or -1 where it does not see it. */
int64_t layer_rank(const struct judge *j, uint32_t layer)
{
	if (!j->profile)
		return 0;
	const struct fmt_sees *s = j->p->sees + j->profile->sees;
	uint32_t lo = 0, hi = j->profile->n_sees;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (s[mid].layer == layer)
			return s[mid].rank;
		if (s[mid].layer < layer)
			lo = mid + 1;
		else
			hi = mid;
	}
	return -1;
}

struct walk walk_set(const struct judge *j, uint32_t set, uint32_t kind)
{
	const uint32_t *s = j->p->sets + set;
	struct walk w = { .j = j, .pairs = s + 1, .n = s[0], .kind = kind };
	w.by_layer = j->profile && j->profile->n_sees < w.n / 4;
	return w;
}

/* The first pair at or behind `from` whose layer is not below `layer`. */
static uint32_t seek_layer(const struct walk *w, uint32_t from, uint32_t layer)
{
	uint32_t lo = from, hi = w->n;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (w->pairs[2 * mid] < layer)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Moves to the next pair that the profile sees; false at the end. */
static bool walk_seen(struct walk *w)
{
	const struct judge *j = w->j;
	if (!w->by_layer) {
		for (; w->at < w->n; w->at++) {
			uint32_t layer = w->pairs[2 * w->at];
			w->rank = layer == 0 ? -1 : layer_rank(j, layer);
			if (w->rank >= 0)
				return true;
		}
		return false;
	}
	const struct fmt_sees *s = j->p->sees + j->profile->sees;
	while (w->see < j->profile->n_sees) {
		w->at = seek_layer(w, w->at, s[w->see].layer);
		if (w->at < w->n && w->pairs[2 * w->at] == s[w->see].layer) {
			w->rank = s[w->see].rank;
			return true;
		}
		w->see++;
	}
	return false;
}

/* The next rule of the kind, FMT_NONE at the end. Rules of `never` (layer 0) are not among them. */
uint32_t walk_next(struct walk *w)
{
	while (walk_seen(w)) {
		uint32_t rule = w->pairs[2 * w->at++ + 1];
		if (w->j->p->rules[rule].flags & w->kind)
			return rule;
	}
	return FMT_NONE;
}

/* A rule of `never` in the set: layer 0 sorts first. */
uint32_t never_rule(const struct policy *p, uint32_t set, uint32_t kind)
{
	const uint32_t *s = p->sets + set;
	for (uint32_t i = 0; i < s[0] && s[1 + 2 * i] == 0; i++)
		if (p->rules[s[2 + 2 * i]].flags & kind)
			return s[2 + 2 * i];
	return FMT_NONE;
}

/* Does the operator deny this name or address at any length, for this profile? */
uint32_t operator_deny(const struct judge *j, const struct level *l, unsigned n)
{
	if (!j->profile)
		return FMT_NONE;
	for (unsigned k = 0; k < n; k++) {
		struct walk w = walk_set(j, l[k].set, l[k].kind);
		for (uint32_t i; (i = walk_next(&w)) != FMT_NONE;)
			if (j->p->rules[i].flags & RULE_DENY)
				return i;
	}
	return FMT_NONE;
}

/* The cidr of this length that holds a, or NULL. CIDRS is sorted by length, longest first. */
static const struct fmt_cidr *find_cidr(const struct policy *p, uint32_t from, uint32_t to,
					const struct addr *a)
{
	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		const struct fmt_cidr *c = &p->cidrs[mid];
		struct prefix pre = { .len = (uint8_t)c->len };
		memcpy(pre.a.b, c->addr, 16);
		if (prefix_contains(&pre, a))
			return c;
		if (memcmp(c->addr, a->b, 16) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return NULL;
}

unsigned cidr_levels(const struct policy *p, const struct addr *a,
		     struct level out[MAX_CIDR_LEVELS])
{
	unsigned n = 0;
	for (uint32_t from = 0; from < p->n_cidrs;) {
		uint32_t to = from, hi = p->n_cidrs, len = p->cidrs[from].len;
		while (to < hi) { /* the end of this length */
			uint32_t mid = to + (hi - to) / 2;
			if (p->cidrs[mid].len >= len)
				to = mid + 1;
			else
				hi = mid;
		}
		const struct fmt_cidr *c = find_cidr(p, from, to, a);
		if (c)
			out[n++] = (struct level){ c->set, UINT32_MAX, RULE_CIDR, 0 };
		from = to;
	}
	return n;
}
