/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `dns` and `resolvers` of a profile -> its draft. Must never let a server or a zone stand for another
 * than the one that is written.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/draft.h"

/* ---- dns ---------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	uint16_t type;
} qtypes[] = {
	{ "A", 1 },      { "NS", 2 },     { "CNAME", 5 },   { "SOA", 6 },   { "PTR", 12 },
	{ "MX", 15 },    { "TXT", 16 },   { "AAAA", 28 },   { "SRV", 33 },  { "NAPTR", 35 },
	{ "DS", 43 },    { "SSHFP", 44 }, { "DNSKEY", 48 }, { "TLSA", 52 }, { "SVCB", 64 },
	{ "HTTPS", 65 }, { "CAA", 257 },
};

static const char *qtype_name(const void *table, size_t i)
{
	(void)table;
	return qtypes[i].name;
}

static int read_qtype(struct build *b, const struct node *v)
{
	enum { N = sizeof(qtypes) / sizeof(qtypes[0]) };
	uint64_t number;
	if (!want_text(b, v, "a query type"))
		return -1;
	for (size_t i = 0; i < N; i++)
		if (strcmp(qtypes[i].name, v->text) == 0)
			return qtypes[i].type;
	if (strncmp(v->text, "TYPE", 4) == 0) {
		struct node digits = *v;
		digits.text += 4;
		if (!read_uint(b, &digits, "TYPE", 1, 65535, &number))
			return -1;
		if (number < 128 || number > 255)
			return (int)number;
		diag_error(b->d, v->pos, "bad-value",
			   "\"%.40s\" is a question about transfers and the like (RFC 6895), not a "
			   "type of record",
			   v->text);
		return -1;
	}
	const char *near = nearest(v->text, qtype_name, NULL, N);
	diag_error(b->d, v->pos, "bad-value",
		   "\"%.40s\" is not a query type such as A, AAAA, HTTPS or TYPE65%s%s%s", v->text,
		   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	return -1;
}

static int compare_u16(const void *x, const void *y)
{
	return *(const uint16_t *)x - *(const uint16_t *)y;
}

static void read_qtypes(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct draft *d = to;
	if (!want_seq(b, v, k->text))
		return;
	uint16_t *list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0, out = 0;
	node_for_each(item, v)
	{
		int t = read_qtype(b, item);
		if (t >= 0)
			list[n++] = (uint16_t)t;
	}
	qsort(list, n, sizeof(*list), compare_u16);
	for (uint32_t i = 0; i < n; i++)
		if (!out || list[i] != list[out - 1])
			list[out++] = list[i];
	d->p.qtypes = list;
	d->p.n_qtypes = out;
	d->set |= SET_QTYPES;
}

static void read_deny_ttl(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct draft *d = to;
	if (read_duration(b, v, k->text, 3600, &d->p.deny_ttl_s))
		d->set |= SET_DENY_TTL;
}

static void read_ancestors(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "nxdomain", "nodata" };
	struct draft *d = to;
	int i = read_word(b, v, k->text, words, 2);
	d->p.ancestors_nodata = i == 1;
	d->set |= SET_ANCESTORS;
	if (i == 1)
		use_feature(b, FEATURE_BIT_ANCESTORS, k->pos);
}

static void read_aaaa(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct draft *d = to;
	read_bool(b, k, v, &d->p.aaaa);
	d->set |= SET_AAAA;
	if (!d->p.aaaa)
		use_feature(b, FEATURE_BIT_AAAA, k->pos);
}

/* Ranges of private space are as prefixes are: both ends in it, and it does not end in between. */
static bool is_private(const struct prefix *p)
{
	struct addr last = p->a;
	for (unsigned bit = p->len; bit < 128; bit++)
		last.b[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	return addr_class(&p->a) == ADDR_PRIVATE && addr_class(&last) == ADDR_PRIVATE;
}

static void read_private_ranges(struct build *b, const struct node *k, const struct node *v,
				void *to)
{
	struct draft *d = to;
	if (!want_seq(b, v, k->text))
		return;
	struct prefix *list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		if (!read_prefix(b, item, &list[n]))
			continue;
		if (!is_private(&list[n]))
			diag_error(
				b->d, item->pos, "bad-value",
				"%.60s is not in private space (RFC 1918, 100.64.0.0/10, fc00::/7)",
				item->text);
		else
			n++;
	}
	d->p.private_ranges = list;
	d->p.n_private_ranges = n;
	d->set |= SET_PRIVATE_RANGES;
	if (n)
		use_feature(b, FEATURE_BIT_PRIVATE_RANGES, k->pos);
}

/* ---- resolvers ---------------------------------------------------------------------------------- */

/* ADDR or ADDR@PORT, as text in one form; NULL with a message. */
static const char *read_server(struct build *b, const struct node *v)
{
	char text[ADDR_TEXT_SIZE];
	struct addr a;
	uint64_t port = 53;
	if (!want_text(b, v, "a server"))
		return NULL;
	const char *at = strchr(v->text, '@');
	size_t n = at ? (size_t)(at - v->text) : v->n;
	if (!addr_from_text(&a, v->text, n)) {
		diag_error(
			b->d, v->pos, "bad-value",
			"\"%.60s\" is not a server's address such as 10.0.0.53 or 10.0.0.53@5353",
			v->text);
		return NULL;
	}
	if (at) {
		struct node digits = *v;
		digits.text = at + 1;
		if (!read_uint(b, &digits, "the port of a server", 1, 65535, &port))
			return NULL;
	}
	addr_to_text(&a, text);
	return port == 53 ? arena_text(b->a, text, strlen(text))
			  : arena_printf(b->a, "%s@%u", text, (unsigned)port);
}

static void read_servers(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct texts *out = to;
	if (!want_seq(b, v, k->text))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		const char *s = read_server(b, item);
		if (s)
			list[n++] = s;
	}
	*out = (struct texts){ list, n };
}

static void read_zones(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct texts *out = to;
	char text[NAME_TEXT_SIZE];
	struct name name;
	if (!want_seq(b, v, k->text))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		if (!want_text(b, item, "a zone") ||
		    !parse_name(b, item->pos, item->text, item->n, &name, NULL))
			continue;
		list[n++] = arena_text(b->a, text, name_to_text(&name, text));
	}
	*out = (struct texts){ list, n };
}

struct raw_resolver {
	struct texts servers, zones;
};

static void add_resolver(struct build *b, struct draft *d, struct pos at, const char *name,
			 const struct raw_resolver *r)
{
	d->resolvers = arena_grow(b->a, d->resolvers, d->n_resolvers, &d->cap_resolvers,
				  sizeof(*d->resolvers));
	d->resolvers[d->n_resolvers++] =
		(struct resolver){ at, name, r->servers.n, r->zones.n, r->servers.v, r->zones.v };
	use_feature(b, FEATURE_BIT_RESOLVERS, at);
}

/* Left out, or an empty list. */
static bool is_missing(const struct node *map, const char *key)
{
	const struct node *v = map_get(map, key);
	return !v || (v->type == NODE_SEQ && v->n == 0);
}

void read_resolvers(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "servers", read_servers, offsetof(struct raw_resolver, servers) },
		{ "zones", read_zones, offsetof(struct raw_resolver, zones) },
	};
	if (!want_map(b, v, k->text))
		return;
	node_for_each_pair(name, value, v)
	{
		struct raw_resolver r = { 0 };
		if (!read_map(b, value, "a resolver", KEYS(keys), &r))
			continue;
		if (is_missing(value, "servers") || is_missing(value, "zones"))
			diag_error(b->d, name->pos, "missing-key",
				   "a resolver needs `servers` and `zones`");
		else
			add_resolver(b, to, name->pos, name->text, &r);
	}
}

static void read_custom_resolvers(struct build *b, const struct node *k, const struct node *v,
				  void *to)
{
	struct raw_resolver r = { 0 };
	read_servers(b, k, v, &r.servers);
	if (r.servers.n)
		add_resolver(b, to, k->pos, "", &r);
}

void read_dns(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "query_types", read_qtypes, 0 },
		{ "deny_ttl", read_deny_ttl, 0 },
		{ "ancestors", read_ancestors, 0 },
		{ "aaaa", read_aaaa, 0 },
		{ "private_ranges", read_private_ranges, 0 },
		{ "custom_resolvers", read_custom_resolvers, 0 },
		{ "allowlist_additions", read_additions, 0 },
	};
	read_map(b, v, k->text, KEYS(keys), to);
}
