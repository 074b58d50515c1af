/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `resolvers` and `custom_resolvers` as forward-zones of Unbound. Must never forward a name that no
 * profile sends there, and never fall back to the Internet for one that it does.
 */
#include "shared/compile/emit.h"

#include <stdlib.h>
#include <string.h>

/* A zone and who answers for it. */
struct zone {
	const char *name; /* canonical, without the last dot */
	const struct resolver *by;
};

struct zones {
	const struct model *m;
	struct arena arena;
	struct zone *v;
	size_t n, cap;
	const struct entry **additions;
	uint32_t n_additions;
};

const char *emit_word(const struct model *m, struct pos at, const char *what, const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
		    !(s[i] >= '0' && s[i] <= '9') && !strchr("-_.:[]@", s[i]))
			n = 0;
	if (n > 0 && n < 256)
		return s;
	diag_error(m->diags, at, "emit",
		   "%s \"%.60s\" cannot be written into the configuration of a server", what, s);
	return "";
}

static void add_zone(struct zones *z, const char *name, const struct resolver *by)
{
	z->v = arena_grow(&z->arena, z->v, z->n, &z->cap, sizeof(*z->v));
	z->v[z->n++] = (struct zone){ name, by };
}

static const char *wire_text(struct zones *z, const uint8_t *wire, size_t len)
{
	char buf[NAME_TEXT_SIZE];
	uint8_t rooted[NAME_MAX_WIRE + 1] = { 0 };
	struct name n;
	memcpy(rooted, wire, len);
	if (name_from_wire(&n, rooted, len + 1, NULL) != NAME_OK)
		return "";
	return arena_text(&z->arena, buf, name_to_text(&n, buf));
}

/* The names of allowlist_additions that a profile sees resolve through its custom_resolvers. */
static void add_additions(struct zones *z, const struct profile *p, const struct resolver *by)
{
	for (uint32_t i = 0; i < z->n_additions; i++) {
		const struct entry *e = z->additions[i];
		bool seen = false;
		for (uint32_t k = 0; k < p->n_sees && !seen; k++)
			seen = p->sees[k] == e->layer;
		if (!seen)
			continue;
		if (e->kind != ENTRY_LIST) {
			add_zone(z, wire_text(z, e->wire, e->wire_len), by);
			continue;
		}
		const uint8_t *b = e->list->bytes;
		for (size_t k = 0; k < e->list->n; k++, b += 2 + (size_t)b[1])
			add_zone(z, wire_text(z, b + 2, b[1]), by);
	}
}

static void find_additions(struct zones *z)
{
	const struct model *m = z->m;
	z->additions = arena_array(&z->arena, m->n_entries + (size_t)1, sizeof(*z->additions));
	for (uint32_t i = 0; i < m->n_entries; i++)
		if (m->entries[i].terms->addition && m->entries[i].kind != ENTRY_CIDR)
			z->additions[z->n_additions++] = &m->entries[i];
}

static void collect(struct zones *z)
{
	find_additions(z);
	for (uint32_t i = 0; i < z->m->n_profiles; i++) {
		const struct profile *p = &z->m->profiles[i];
		for (uint32_t k = 0; k < p->n_resolvers; k++) {
			const struct resolver *r = &p->resolvers[k];
			for (uint32_t j = 0; j < r->n_zones; j++)
				add_zone(z, r->zones[j], r);
			if (!*r->name)
				add_additions(z, p, r);
		}
	}
}

static int by_name(const void *a, const void *b)
{
	const struct zone *x = a, *y = b;
	return strcmp(x->name, y->name);
}

static bool same_servers(const struct resolver *x, const struct resolver *y)
{
	if (x->n_servers != y->n_servers)
		return false;
	for (uint32_t i = 0; i < x->n_servers; i++)
		if (strcmp(x->servers[i], y->servers[i]) != 0)
			return false;
	return true;
}

/* Each zone once; two that name different servers cannot both hold. */
static void unite(struct zones *z)
{
	size_t out = 0;
	if (z->n)
		qsort(z->v, z->n, sizeof(*z->v), by_name);
	for (size_t i = 0; i < z->n; i++) {
		const struct zone *last = out ? &z->v[out - 1] : NULL;
		if (!last || strcmp(last->name, z->v[i].name) != 0)
			z->v[out++] = z->v[i];
		else if (!same_servers(last->by, z->v[i].by))
			diag_error(z->m->diags, z->v[i].by->pos, "emit",
				   "%s is asked of other servers elsewhere in the policy, and "
				   "Unbound can ask one set only",
				   z->v[i].name);
	}
	z->n = out;
}

static bool ends_in(const char *name, const char *zone)
{
	size_t n = strlen(name), m = strlen(zone);
	return n >= m && strcmp(name + n - m, zone) == 0 && (n == m || name[n - m - 1] == '.');
}

/* Zones that Unbound answers by itself unless told otherwise (RFC 6303, RFC 6761, RFC 8375). */
static bool is_builtin(const char *name)
{
	static const char *const zones[] = { "in-addr.arpa",  "ip6.arpa",     "home.arpa",
					     "resolver.arpa", "service.arpa", "test",
					     "invalid",       "localhost",    "local",
					     "onion",         "internal" };
	for (size_t i = 0; i < sizeof(zones) / sizeof(zones[0]); i++)
		if (ends_in(name, zones[i]))
			return true;
	return false;
}

static bool is_loopback(const char *server)
{
	return strncmp(server, "127.", 4) == 0 || strcmp(server, "::1") == 0 ||
	       strncmp(server, "::1@", 4) == 0;
}

static void put_server(const struct zones *z, struct out *o)
{
	bool loopback = false;
	out_text(o, "server:\n");
	for (size_t i = 0; i < z->n; i++) {
		const char *name = emit_word(z->m, z->v[i].by->pos, "the zone", z->v[i].name);
		out_printf(o, "    domain-insecure: \"%s.\"\n    private-domain: \"%s.\"\n", name,
			   name);
		if (is_builtin(name))
			out_printf(o, "    local-zone: \"%s.\" transparent\n", name);
		for (uint32_t k = 0; k < z->v[i].by->n_servers; k++)
			loopback = loopback || is_loopback(z->v[i].by->servers[k]);
	}
	if (loopback)
		out_text(o, "    do-not-query-localhost: no\n");
}

static void put_zones(const struct zones *z, struct out *o)
{
	for (size_t i = 0; i < z->n; i++) {
		const struct resolver *r = z->v[i].by;
		out_printf(o, "forward-zone:\n    name: \"%s.\"\n",
			   emit_word(z->m, r->pos, "the zone", z->v[i].name));
		for (uint32_t k = 0; k < r->n_servers; k++)
			out_printf(o, "    forward-addr: %s\n",
				   emit_word(z->m, r->pos, "the server", r->servers[k]));
		out_text(o, "    forward-first: no\n");
	}
}

void emit_unbound_forward(const struct model *m, struct out *o)
{
	struct zones z = { .m = m };
	collect(&z);
	unite(&z);
	out_text(o, "# Made by cx-policyc --emit unbound-forward: include it from unbound.conf.\n"
		    "# These zones are private: nothing outside signs them, and they may hold "
		    "private addresses.\n");
	put_server(&z, o);
	put_zones(&z, o);
	arena_fini(&z.arena);
}

emit_fn *emit_find(const char *kind)
{
	static const struct {
		const char *kind;
		emit_fn *emit;
	} kinds[] = { { "unbound-forward", emit_unbound_forward },
		      { "haproxy", emit_haproxy },
		      { "haproxy-map", emit_haproxy_map },
		      { "nftables", emit_nftables } };
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].kind, kind) == 0)
			return kinds[i].emit;
	return NULL;
}
