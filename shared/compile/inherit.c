/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `extends`: the order of profiles, parents before children, and what a child takes over. Must never
 * recurse on the depth of a chain, and never choose between parents that differ.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/draft.h"

enum { MAX_EXTENDS_DEPTH = 64 };

/* ---- extends ------------------------------------------------------------------------------------ */

void find_parents(struct build *b, struct draft *d)
{
	if (!d->extends || !want_seq(b, d->extends, "extends"))
		return;
	d->parents = arena_array(b->a, d->extends->n + 1, sizeof(*d->parents));
	node_for_each(item, d->extends)
	{
		int i = find_profile(b, item);
		if (i >= 0)
			d->parents[d->n_parents++] = (uint32_t)i;
	}
}

/* Of those that wait, what only stands below a cycle, not on one, is not to be blamed for it. */
static void drop_descendants(struct build *b, uint32_t *waits)
{
	size_t n = b->n_drafts, left = 0;
	uint32_t *children = arena_array(b->a, n, sizeof(*children));
	uint32_t *leaves = arena_array(b->a, n, sizeof(*leaves));
	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; waits[i] && j < b->drafts[i].n_parents; j++)
			children[b->drafts[i].parents[j]]++;
	for (size_t i = 0; i < n; i++)
		if (waits[i] && !children[i])
			leaves[left++] = (uint32_t)i;
	while (left) {
		const struct draft *d = &b->drafts[leaves[--left]];
		waits[d - b->drafts] = 0;
		for (uint32_t j = 0; j < d->n_parents; j++)
			if (--children[d->parents[j]] == 0 && waits[d->parents[j]])
				leaves[left++] = d->parents[j];
	}
}

/*
 * The drafts in an order in which parents come before children, into order[]; returns how many there
 * are: fewer than all if some stand on a cycle. No recursion: an operator may have 50,000 profiles.
 */
size_t parents_first(struct build *b, uint32_t *order)
{
	size_t n = b->n_drafts, edges = 0, out = 0;
	uint32_t *waits = arena_array(b->a, n, sizeof(*waits)), *start;
	for (size_t i = 0; i < n; i++) {
		waits[i] = b->drafts[i].n_parents;
		edges += waits[i];
	}
	uint32_t *children = arena_array(b->a, edges + 1, sizeof(*children));
	start = arena_array(b->a, n + 2, sizeof(*start));
	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < b->drafts[i].n_parents; j++)
			start[b->drafts[i].parents[j] + 2]++;
	for (size_t i = 0; i < n; i++)
		start[i + 2] += start[i + 1];
	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < b->drafts[i].n_parents; j++)
			children[start[b->drafts[i].parents[j] + 1]++] = (uint32_t)i;
	for (size_t i = 0; i < n; i++)
		if (waits[i] == 0)
			order[out++] = (uint32_t)i;
	for (size_t at = 0; at < out; at++)
		for (uint32_t c = start[order[at]]; c < start[order[at] + 1]; c++)
			if (--waits[children[c]] == 0)
				order[out++] = children[c];
	drop_descendants(b, waits);
	for (size_t i = 0; out < n && i < n; i++)
		if (waits[i])
			diag_error(b->d, b->drafts[i].extends->pos, "cycle",
				   "profile \"%s\" extends itself, directly or through others",
				   b->drafts[i].p.name);
	return out;
}

/* ---- what a profile inherits -------------------------------------------------------------------- */

static bool same_limit(const struct limit *x, const struct limit *y)
{
	return x->amount == y->amount && x->burst == y->burst && x->period_s == y->period_s;
}

/* Key by key; the key that the parents disagree about and the profile leaves open, or NULL. */
static const char *inherit_limits(struct profile *p, const struct limits *own,
				  const struct profile *from)
{
	const char *differs = NULL;
#define X(field, key, octets, dflt)                                                                \
	if (from->limits.field.set && !own->field.set) {                                           \
		if (!p->limits.field.set)                                                          \
			p->limits.field = from->limits.field;                                      \
		else if (!same_limit(&p->limits.field, &from->limits.field))                       \
			differs = key;                                                             \
	}
	LIMITS(X)
#undef X
	return differs;
}

static void copy_field(struct profile *to, const struct profile *from, enum profile_set field)
{
	switch (field) {
	case SET_ECH:
		to->ech_allow = from->ech_allow;
		break;
	case SET_AAAA:
		to->aaaa = from->aaaa;
		break;
	case SET_ANCESTORS:
		to->ancestors_nodata = from->ancestors_nodata;
		break;
	case SET_DENY_TTL:
		to->deny_ttl_s = from->deny_ttl_s;
		break;
	case SET_QTYPES:
		to->qtypes = from->qtypes;
		to->n_qtypes = from->n_qtypes;
		break;
	case SET_PRIVATE_RANGES:
		to->private_ranges = from->private_ranges;
		to->n_private_ranges = from->n_private_ranges;
		break;
	case SET_PROXY_HTTP:
		to->proxy.http = from->proxy.http;
		break;
	case SET_PROXY_HTTPS:
		to->proxy.https = from->proxy.https;
		break;
	case SET_NO_PROXY:
		to->proxy.no_proxy = from->proxy.no_proxy;
		to->proxy.direct = from->proxy.direct;
		to->proxy.n_direct = from->proxy.n_direct;
		break;
	case SET_PROXY_RESOLVE:
		to->proxy.by_name = from->proxy.by_name;
		break;
	case SET_PROXY_AUTH:
		to->proxy.auth = from->proxy.auth;
		break;
	}
}

static bool same_ranges(const struct profile *x, const struct profile *y)
{
	if (x->n_private_ranges != y->n_private_ranges)
		return false;
	for (uint32_t i = 0; i < x->n_private_ranges; i++)
		if (x->private_ranges[i].len != y->private_ranges[i].len ||
		    addr_cmp(&x->private_ranges[i].a, &y->private_ranges[i].a) != 0)
			return false;
	return true;
}

static bool same_field(const struct profile *x, const struct profile *y, enum profile_set field)
{
	switch (field) {
	case SET_ECH:
		return x->ech_allow == y->ech_allow;
	case SET_AAAA:
		return x->aaaa == y->aaaa;
	case SET_ANCESTORS:
		return x->ancestors_nodata == y->ancestors_nodata;
	case SET_DENY_TTL:
		return x->deny_ttl_s == y->deny_ttl_s;
	case SET_QTYPES:
		return x->n_qtypes == y->n_qtypes &&
		       memcmp(x->qtypes, y->qtypes, x->n_qtypes * sizeof(*x->qtypes)) == 0;
	case SET_PRIVATE_RANGES:
		return same_ranges(x, y);
	case SET_PROXY_HTTP:
		return strcmp(x->proxy.http, y->proxy.http) == 0;
	case SET_PROXY_HTTPS:
		return strcmp(x->proxy.https, y->proxy.https) == 0;
	case SET_NO_PROXY:
		return strcmp(x->proxy.no_proxy, y->proxy.no_proxy) == 0;
	case SET_PROXY_RESOLVE:
		return x->proxy.by_name == y->proxy.by_name;
	case SET_PROXY_AUTH:
		return strcmp(x->proxy.auth, y->proxy.auth) == 0;
	}
	return true;
}

static const struct {
	enum profile_set bit;
	const char *key;
} scalars[] = {
	{ SET_ECH, "tls.ech" },
	{ SET_AAAA, "dns.aaaa" },
	{ SET_ANCESTORS, "dns.ancestors" },
	{ SET_DENY_TTL, "dns.deny_ttl" },
	{ SET_QTYPES, "dns.query_types" },
	{ SET_PRIVATE_RANGES, "dns.private_ranges" },
	{ SET_PROXY_HTTP, "proxy.http" },
	{ SET_PROXY_HTTPS, "proxy.https" },
	{ SET_NO_PROXY, "proxy.no_proxy" },
	{ SET_PROXY_AUTH, "proxy.auth" },
	{ SET_PROXY_RESOLVE, "proxy.resolve" },
};

static void inherit_scalars(struct build *b, struct draft *d)
{
	unsigned own = d->set;
	for (uint32_t i = 0; i < d->n_parents; i++) {
		const struct draft *from = &b->drafts[d->parents[i]];
		for (size_t j = 0; j < sizeof(scalars) / sizeof(scalars[0]); j++) {
			enum profile_set bit = scalars[j].bit;
			if (!(from->set & bit) || own & bit)
				continue;
			if (!(d->set & bit))
				copy_field(&d->p, &from->p, bit);
			else if (!same_field(&d->p, &from->p, bit))
				diag_error(b->d, d->extends->pos, "inherit",
					   "the parents of \"%s\" differ in %s; say which one "
					   "holds here",
					   d->p.name, scalars[j].key);
			d->set |= bit;
		}
	}
}

static void inherit_all_limits(struct build *b, struct draft *d)
{
	const struct limits own = d->p.limits;
	for (uint32_t i = 0; i < d->n_parents; i++) {
		const char *key = inherit_limits(&d->p, &own, &b->drafts[d->parents[i]].p);
		if (key)
			diag_error(b->d, d->extends->pos, "inherit",
				   "the parents of \"%s\" differ in limits.%s; say which one holds "
				   "here",
				   d->p.name, key);
	}
}

static void inherit_lists(struct build *b, struct draft *d)
{
	d->n_own_resolvers = d->n_resolvers;
	for (uint32_t i = 0; i < d->n_parents; i++) {
		const struct draft *from = &b->drafts[d->parents[i]];
		for (size_t j = 0; j < from->n_resolvers; j++) {
			d->resolvers = arena_grow(b->a, d->resolvers, d->n_resolvers,
						  &d->cap_resolvers, sizeof(*d->resolvers));
			d->resolvers[d->n_resolvers++] = from->resolvers[j];
		}
	}
}

/* What holds for an ancestor's environments holds for the profile. */
static void inherit_environments(struct build *b, struct draft *d)
{
	uint32_t n = d->has_environments;
	for (uint32_t i = 0; i < d->n_parents; i++)
		n += b->drafts[d->parents[i]].n_bound_by;
	d->bound_by = arena_array(b->a, n + 1, sizeof(*d->bound_by));
	if (d->has_environments)
		d->bound_by[d->n_bound_by++] = (uint32_t)(d - b->drafts);
	for (uint32_t i = 0; i < d->n_parents; i++) {
		const struct draft *from = &b->drafts[d->parents[i]];
		for (uint32_t j = 0; j < from->n_bound_by; j++)
			d->bound_by[d->n_bound_by++] = from->bound_by[j];
	}
}

bool inherit(struct build *b, struct draft *d)
{
	for (uint32_t i = 0; i < d->n_parents; i++) {
		unsigned depth = b->drafts[d->parents[i]].depth + 1;
		d->depth = depth > d->depth ? depth : d->depth;
	}
	if (d->depth > MAX_EXTENDS_DEPTH) {
		diag_error(b->d, d->extends->pos, "cycle",
			   "profiles extend each other more than %d deep", MAX_EXTENDS_DEPTH);
		return false;
	}
	inherit_scalars(b, d);
	inherit_all_limits(b, d);
	inherit_lists(b, d);
	inherit_environments(b, d);
	return true;
}
