/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `sources`, `unlisted_sources` and `resolver_clients` -> clients, one table of prefixes. Must never
 * give one prefix to two.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/lint.h"

static struct client *add_client(struct build *b, struct pos at, const struct prefix *p,
				 enum source_to to)
{
	b->clients =
		arena_grow(b->a, b->clients, b->n_clients, &b->cap_clients, sizeof(*b->clients));
	struct client *c = &b->clients[b->n_clients++];
	*c = (struct client){ .pos = at, .prefix = *p, .to = to, .lift = "" };
	return c;
}

static bool covers_all(const struct prefix *p)
{
	return p->len == 0 || (p->len == 96 && prefix_is_v4(p));
}

static int compare_u32(const void *x, const void *y)
{
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
	return (a > b) - (a < b);
}

static void read_bind(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct client *c = to;
	if (!want_seq(b, v, k->text))
		return;
	if (v->n == 0)
		diag_error(b->d, v->pos, "bad-value",
			   "an empty list of profiles: nothing could be bound here");
	uint32_t *list = arena_array(b->a, v->n + 1, sizeof(*list)), n = 0, out = 0;
	node_for_each(item, v)
	{
		int i = find_profile(b, item);
		if (i >= 0)
			list[n++] = (uint32_t)i;
	}
	qsort(list, n, sizeof(*list), compare_u32);
	for (uint32_t i = 0; i < n; i++)
		if (!out || list[i] != list[out - 1])
			list[out++] = list[i];
	c->bind = list;
	c->n_bind = out;
	c->to = TO_BIND;
	use_feature(b, FEATURE_BIT_BINDINGS, k->pos);
}

static void read_placed(struct build *b, const struct node *k, const struct node *v, void *to)
{
	int i = find_profile(b, v);
	(void)k;
	((struct client *)to)->profile = i < 0 ? 0 : (uint32_t)i;
}

static const struct key source_keys[] = {
	{ "bind", read_bind, 0 },
	{ "profile", read_placed, 0 },
	{ "lint", read_lint, offsetof(struct client, lift) },
};

void read_sources(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	b->has_sources = true;
	if (!want_map(b, v, k->text))
		return;
	node_for_each_pair(name, value, v)
	{
		struct prefix p;
		struct client c = { .pos = name->pos, .to = TO_PROFILE, .lift = "" };
		if (value->type == NODE_MAP) {
			read_map(b, value, "a source", KEYS(source_keys), &c);
			if (!map_get(value, "bind") == !map_get(value, "profile"))
				diag_error(b->d, value->pos, "missing-key",
					   "a source needs either `profile` or `bind`");
		} else {
			int i = find_profile(b, value);
			c.profile = i < 0 ? 0 : (uint32_t)i;
		}
		if (!read_prefix(b, name, &p))
			continue;
		c.prefix = p;
		c.owned = !covers_all(&p);
		*add_client(b, name->pos, &p, c.to) = c;
	}
}

static void read_prefix_list(struct build *b, const struct node *k, const struct node *v,
			     enum source_to to)
{
	if (!want_seq(b, v, k->text))
		return;
	node_for_each(item, v)
	{
		struct prefix p;
		if (read_prefix(b, item, &p))
			add_client(b, item->pos, &p, to);
	}
}

static void read_ignore(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	read_prefix_list(b, k, v, TO_IGNORE);
	if (v->type == NODE_SEQ && v->n)
		use_feature(b, FEATURE_BIT_IGNORE, k->pos);
}

void read_unlisted(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "deny" };
	static const struct key keys[] = { { "ignore", read_ignore, 0 } };
	if (v->type == NODE_MAP)
		read_map(b, v, k->text, KEYS(keys), to);
	else
		read_word(b, v, k->text, words, 1);
}

void read_resolver_clients(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	b->has_resolver_clients = true;
	read_prefix_list(b, k, v, TO_RESOLVER);
}

/* ---- what is left out --------------------------------------------------------------------------- */

static void default_sources(struct build *b)
{
	static const char *const all[] = { "0.0.0.0/0", "::/0" };
	struct pos at = b->root_at;
	lint_say(b, at, LINT_OPEN_SOURCES, "",
		 "no `sources`: every client gets the profile \"default\"; write sources: {} "
		 "for nobody");
	for (size_t i = 0; i < 2; i++) {
		struct prefix p;
		if (prefix_from_text(&p, all[i], strlen(all[i])) != PREFIX_OK)
			continue;
		/* a prefix of this length that the policy names itself keeps its meaning */
		bool taken = false;
		for (size_t j = 0; j < b->n_clients && !taken; j++)
			taken = b->clients[j].prefix.len == p.len &&
				addr_cmp(&b->clients[j].prefix.a, &p.a) == 0;
		if (!taken)
			add_client(b, at, &p, TO_PROFILE)->profile = b->m->default_profile;
	}
}

static void default_resolver_clients(struct build *b)
{
	static const char *const loopback[] = { "127.0.0.1/32", "::1/128" };
	for (size_t i = 0; i < 2; i++) {
		struct prefix p;
		if (prefix_from_text(&p, loopback[i], strlen(loopback[i])) == PREFIX_OK)
			add_client(b, (struct pos){ b->root_at.file, 0, 0 }, &p, TO_RESOLVER);
	}
}

static int compare_clients(const void *x, const void *y)
{
	const struct client *a = x, *b = y;
	int c = addr_cmp(&a->prefix.a, &b->prefix.a);
	if (c)
		return c;
	if (a->prefix.len != b->prefix.len)
		return a->prefix.len < b->prefix.len ? -1 : 1;
	if (a->pos.file != b->pos.file)
		return a->pos.file < b->pos.file ? -1 : 1;
	if (a->pos.line != b->pos.line)
		return a->pos.line < b->pos.line ? -1 : 1;
	return a->pos.col < b->pos.col ? -1 : a->pos.col > b->pos.col;
}

static void report_twice(struct build *b, const struct client *first, const struct client *second)
{
	char text[PREFIX_TEXT_SIZE];
	prefix_to_text(&second->prefix, text);
	if (first->pos.line == 0)
		diag_error(b->d, second->pos, "duplicate-prefix",
			   "%s stands in resolver_clients by default; write resolver_clients to "
			   "change that",
			   text);
	else
		diag_error(b->d, second->pos, "duplicate-prefix", "%s stands twice, first at %s:%u",
			   text, diags_file_name(b->d, first->pos.file), first->pos.line);
}

void finish_clients(struct build *b)
{
	size_t out = 0;
	if (!b->has_sources)
		default_sources(b);
	if (!b->has_resolver_clients)
		default_resolver_clients(b);
	if (b->n_clients) /* of none there is no array */
		qsort(b->clients, b->n_clients, sizeof(*b->clients), compare_clients);
	for (size_t i = 0; i < b->n_clients; i++) {
		struct client *prev = out ? &b->clients[out - 1] : NULL;
		if (prev && prev->prefix.len == b->clients[i].prefix.len &&
		    addr_cmp(&prev->prefix.a, &b->clients[i].prefix.a) == 0)
			report_twice(b, prev, &b->clients[i]);
		else
			b->clients[out++] = b->clients[i];
	}
	b->m->clients = b->clients;
	b->m->n_clients = (uint32_t)out;
}
