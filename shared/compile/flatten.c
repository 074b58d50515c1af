/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client prefixes in the form of policy.bin: nested ones flattened into ranges that follow one another,
 * and the list of those that are never destinations. Never drops or merges what differs.
 */
#include <string.h>

#include "shared/compile/layout.h"

/* ---- sources: nested prefixes to ranges that follow one another ---- */

struct range {
	struct addr start;
	uint32_t value;
};

static struct addr last_of(const struct prefix *p)
{
	struct addr a = p->a;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = p->len > 8u * i ? p->len - 8u * i : 0;
		if (keep < 8)
			a.b[i] |= (uint8_t)(0xffu >> keep);
	}
	return a;
}

/* The address behind; false if there is none. */
static bool step(struct addr *a)
{
	for (unsigned i = 16; i-- > 0;)
		if (++a->b[i] != 0)
			return true;
	return false;
}

static uint32_t client_value(struct tables *t, const struct client *c)
{
	switch (c->to) {
	case TO_IGNORE:
		return SRC_IGNORE;
	case TO_RESOLVER:
		return SRC_RESOLVER;
	case TO_PROFILE:
		return SRC_PROFILE | c->profile;
	case TO_BIND:
		break;
	}
	uint32_t *w = arena_array(&t->arena, c->n_bind + (size_t)1, sizeof(*w));
	w[0] = c->n_bind;
	memcpy(w + 1, c->bind, c->n_bind * sizeof(*w));
	size_t at = pool_put(&t->bindsets, w, (c->n_bind + (size_t)1) * sizeof(*w));
	return (uint32_t)SRC_BIND | (uint32_t)(at / 4);
}

static void emit(struct range *v, size_t *n, const struct addr *start, uint32_t value)
{
	if (*n && addr_cmp(&v[*n - 1].start, start) == 0)
		(*n)--; /* nothing lay in it */
	if (*n && v[*n - 1].value == value)
		return;
	v[(*n)++] = (struct range){ *start, value };
}

struct open_prefix {
	struct addr last;
	uint32_t value;
};

/* Ends the prefixes that end before `before` (all, if NULL): what lies around them goes on. */
static void close_prefixes(struct open_prefix *stack, size_t *depth, const struct addr *before,
			   struct range *v, size_t *n)
{
	while (*depth > 1 && (!before || addr_cmp(&stack[*depth - 1].last, before) < 0)) {
		struct addr behind = stack[--*depth].last;
		if (step(&behind))
			emit(v, n, &behind, stack[*depth - 1].value);
	}
}

/* Clients of one family, sorted by address and length, as ranges; the first starts at `lowest`. */
static struct range *flatten(struct tables *t, const struct model *m, bool v4, struct addr lowest,
			     size_t *n)
{
	struct range *v = arena_array(&t->arena, 2 * (size_t)m->n_clients + 2, sizeof(*v));
	struct open_prefix stack[130] = { { .value = SRC_NONE } };
	size_t depth = 1;
	*n = 0;
	emit(v, n, &lowest, SRC_NONE);
	for (uint32_t i = 0; i < m->n_clients; i++) {
		const struct client *c = &m->clients[i];
		if (prefix_is_v4(&c->prefix) != v4)
			continue;
		close_prefixes(stack, &depth, &c->prefix.a, v, n);
		stack[depth++] = (struct open_prefix){ last_of(&c->prefix), client_value(t, c) };
		emit(v, n, &c->prefix.a, stack[depth - 1].value);
	}
	close_prefixes(stack, &depth, NULL, v, n);
	return v;
}

static uint64_t be64(const uint8_t *b)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < 8; i++)
		v = v << 8 | b[i];
	return v;
}

enum { TOP_FROM = 64 }; /* ranges, from which a first-level index pays */

static void index_src4(struct tables *t)
{
	uint32_t at = 0;
	if (t->n_src4 <= TOP_FROM)
		return;
	t->src4_top = arena_array(&t->arena, 65537, sizeof(*t->src4_top));
	for (uint32_t i = 0; i < 65536; i++) {
		while (at + 1 < t->n_src4 && t->src4[at + 1].start <= i << 16)
			at++;
		t->src4_top[i] = at;
	}
	t->src4_top[65536] = (uint32_t)t->n_src4 - 1;
}

static void ranges(struct tables *t, const struct model *m)
{
	const uint8_t zero4[4] = { 0 };
	const struct addr zero6 = { { 0 } };
	size_t n;
	struct range *v = flatten(t, m, true, addr_from_v4(zero4), &n);
	t->src4 = arena_array(&t->arena, n, sizeof(*t->src4));
	for (size_t i = 0; i < n; i++) {
		/* the range behind 255.255.255.255 is IPv6's */
		if (!addr_is_v4(&v[i].start))
			break;
		t->src4[t->n_src4++] =
			(struct fmt_src4){ (uint32_t)be64(v[i].start.b + 8), v[i].value };
	}
	index_src4(t);
	v = flatten(t, m, false, zero6, &n);
	t->src6 = arena_array(&t->arena, n, sizeof(*t->src6));
	t->n_src6 = n;
	for (size_t i = 0; i < n; i++)
		t->src6[i] = (struct fmt_src6){ be64(v[i].start.b), be64(v[i].start.b + 8),
						v[i].value, 0 };
}

/* The prefixes of `sources`, without those inside another: IPv6 first, each family by address. */
static void owned(struct tables *t, const struct model *m)
{
	t->owned = arena_array(&t->arena, m->n_clients + (size_t)1, sizeof(*t->owned));
	for (int v4 = 0; v4 < 2; v4++) {
		const struct prefix *last = NULL;
		for (uint32_t i = 0; i < m->n_clients; i++) {
			const struct client *c = &m->clients[i];
			if (!c->owned || prefix_is_v4(&c->prefix) != (v4 == 1) ||
			    (last && prefix_contains(last, &c->prefix.a)))
				continue;
			last = &c->prefix;
			struct fmt_prefix *p = &t->owned[t->n_owned++];
			memcpy(p->addr, last->a.b, sizeof(p->addr));
			p->len = last->len;
		}
	}
}

void tables_sources(struct tables *t, const struct model *m)
{
	ranges(t, m);
	owned(t, m);
}
