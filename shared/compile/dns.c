/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What profiles say of DNS answers, as tables of policy.bin (layout.h). Never looks at limits or at
 * what servers are to be asked: only at what a client may be answered.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/base/name.h"
#include "shared/compile/layout.h"
#include "shared/policy/hash.h"

static int by_range(const void *a, const void *b)
{
	const struct fmt_prefix *x = a, *y = b;
	int c = memcmp(x->addr, y->addr, sizeof(x->addr));
	return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Sorted: in which order they are written means nothing. */
static uint32_t put_ranges(struct tables *t, const struct profile *p)
{
	uint32_t at = (uint32_t)t->n_ranges;
	for (uint32_t i = 0; i < p->n_private_ranges; i++) {
		struct fmt_prefix *to = &t->ranges[t->n_ranges++];
		memcpy(to->addr, p->private_ranges[i].a.b, sizeof(to->addr));
		to->len = p->private_ranges[i].len;
	}
	if (p->n_private_ranges)
		qsort(t->ranges + at, p->n_private_ranges, sizeof(*t->ranges), by_range);
	return at;
}

static void put_profiles(struct tables *t, const struct model *m)
{
	size_t n = 0;
	for (uint32_t i = 0; i < m->n_profiles; i++)
		n += m->profiles[i].n_private_ranges;
	t->ranges = arena_array(&t->arena, n + 1, sizeof(*t->ranges));
	t->dns = arena_array(&t->arena, m->n_profiles, sizeof(*t->dns));
	for (uint32_t i = 0; i < m->n_profiles; i++) {
		const struct profile *p = &m->profiles[i];
		uint32_t flags = (p->aaaa ? 0 : (uint32_t)DNS_NO_AAAA) |
				 (p->ancestors_nodata ? (uint32_t)DNS_ANCESTORS_NODATA : 0);
		if (flags || p->n_private_ranges)
			t->dns[t->n_dns++] = (struct fmt_dns){ .profile = i,
							       .flags = flags,
							       .ranges = put_ranges(t, p),
							       .n_ranges = p->n_private_ranges };
	}
}

/* ---- zones with resolvers of their own ---- */

struct owned_zone {
	const char *name;
	uint32_t profile;
};

static int by_zone(const void *a, const void *b)
{
	const struct owned_zone *x = a, *y = b;
	int c = strcmp(x->name, y->name);
	return c ? c : (x->profile > y->profile) - (x->profile < y->profile);
}

/* All profiles' zones, sorted; returns how many. */
static size_t collect_zones(struct tables *t, const struct model *m, struct owned_zone **out)
{
	size_t n = 0, k = 0;
	for (uint32_t i = 0; i < m->n_profiles; i++)
		for (uint32_t r = 0; r < m->profiles[i].n_resolvers; r++)
			n += m->profiles[i].resolvers[r].n_zones;
	struct owned_zone *v = arena_array(&t->arena, n + 1, sizeof(*v));
	for (uint32_t i = 0; i < m->n_profiles; i++)
		for (uint32_t r = 0; r < m->profiles[i].n_resolvers; r++)
			for (uint32_t z = 0; z < m->profiles[i].resolvers[r].n_zones; z++)
				v[k++] = (struct owned_zone){ m->profiles[i].resolvers[r].zones[z],
							      i };
	if (n)
		qsort(v, n, sizeof(*v), by_zone);
	*out = v;
	return n;
}

static void put_zones(struct tables *t, const struct model *m)
{
	struct owned_zone *v;
	size_t n = collect_zones(t, m, &v);
	uint32_t *set = arena_array(&t->arena, n + 1, sizeof(*set));
	t->zones = arena_array(&t->arena, n + 1, sizeof(*t->zones));
	for (size_t i = 0, end; i < n; i = end) {
		uint32_t k = 0;
		for (end = i; end < n && strcmp(v[end].name, v[i].name) == 0; end++)
			if (k == 0 || set[k] != v[end].profile)
				set[++k] = v[end].profile;
		set[0] = k;
		t->zones[t->n_zones++] = (struct fmt_zone){
			.name = pool_text(&t->strings, v[i].name),
			.owners = (uint32_t)(pool_put(&t->bindsets, set,
						      (k + (size_t)1) * sizeof(*set)) /
					     4),
		};
	}
}

void tables_dns(struct tables *t, const struct model *m)
{
	put_profiles(t, m);
	put_zones(t, m);
}

/* ---- names above listed ones ---- */

static int by_hash(const void *a, const void *b)
{
	const struct fmt_ancestor *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->layer > y->layer) - (x->layer < y->layer);
}

/* All names above one that is listed: below a wildcard, its own, too. */
static void put_above(struct tables *t, const struct placed *p, const struct fmt_rule *r)
{
	uint8_t off[NAME_MAX_LABELS] = { 0 };
	unsigned n = 0;
	uint64_t h = t->seed;
	for (size_t at = 0; at < p->len; at += 1 + (size_t)p->wire[at])
		off[n++] = (uint8_t)at;
	unsigned last = r->flags & RULE_BELOW ? n : n - 1;
	for (unsigned d = 1; d <= last; d++) {
		unsigned at = off[n - d];
		h = hash_label(h, p->wire + at + 1, p->wire[at]);
		t->ancestors = arena_grow(&t->arena, t->ancestors, t->n_ancestors,
					  &t->cap_ancestors, sizeof(*t->ancestors));
		t->ancestors[t->n_ancestors++] =
			(struct fmt_ancestor){ .hash = h, .layer = r->layer };
	}
}

void tables_ancestors(struct tables *t)
{
	bool wanted = false;
	size_t n = 0;
	for (size_t i = 0; i < t->n_dns; i++)
		wanted |= (t->dns[i].flags & DNS_ANCESTORS_NODATA) != 0;
	for (size_t i = 0; wanted && i < t->n_placed; i++) {
		const struct fmt_rule *r = &t->rules[t->placed[i].rule];
		if (!(r->flags & RULE_DENY) && t->placed[i].len)
			put_above(t, &t->placed[i], r);
	}
	if (t->n_ancestors)
		qsort(t->ancestors, t->n_ancestors, sizeof(*t->ancestors), by_hash);
	for (size_t i = 0; i < t->n_ancestors; i++)
		if (n == 0 || by_hash(&t->ancestors[i], &t->ancestors[n - 1]) != 0)
			t->ancestors[n++] = t->ancestors[i];
	t->n_ancestors = n;
}
