/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `network` and `profiles` -> drafts -> profiles with their lists of layers. Must never let a profile
 * see more than its own entries, its ancestors' and its presets'.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"

enum { MAX_EXTENDS_DEPTH = 64, NEVER_LAYER = 0 };

/* ---- finding them ------------------------------------------------------------------------------- */

static bool is_profile_name(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
		    !(s[i] >= '0' && s[i] <= '9') && !strchr("-_.", s[i]))
			return false;
	return n > 0 && n <= 64;
}

static int compare_drafts(const void *a, const void *b)
{
	return strcmp(((const struct draft *)a)->p.name, ((const struct draft *)b)->p.name);
}

static int compare_name(const void *name, const void *d)
{
	return strcmp(name, ((const struct draft *)d)->p.name);
}

static struct draft *draft_named(const struct build *b, const char *name)
{
	return bsearch(name, b->drafts, b->n_drafts, sizeof(*b->drafts), compare_name);
}

static size_t count_profiles(const struct build *b)
{
	size_t n = 1;
	for (size_t i = 0; i < b->n_inputs; i++)
		for (const struct node *doc = b->inputs[i].docs; doc; doc = doc->next) {
			const struct node *v = map_get(doc, "profiles");
			n += v && v->type == NODE_MAP ? v->n : 0;
		}
	return n;
}

static void draft_init(struct draft *d, const char *name, struct pos at)
{
	*d = (struct draft){ .p = { .pos = at, .name = name, .aaaa = true } };
	d->p.deny_ttl_s = MODEL_DEFAULT_DENY_TTL_S;
	d->p.proxy = (struct proxy){ "", "", "", "" };
}

static void add_drafts(struct build *b, const struct node *profiles)
{
	node_for_each_pair(k, v, profiles)
	{
		if (strcmp(k->text, "default") == 0)
			diag_error(b->d, k->pos, "bad-profile",
				   "the profile \"default\" is written as `network`");
		else if (!is_profile_name(k->text))
			diag_error(
				b->d, k->pos, "bad-profile",
				"a profile's name has 1 to 64 of a-z A-Z 0-9 - _ . and no others");
		else
			draft_init(&b->drafts[b->n_drafts++], k->text, k->pos);
	}
}

/* The same name twice (of two files; within one the key is a duplicate and said already). */
static void merge_drafts(struct build *b)
{
	size_t out = 0;
	qsort(b->drafts, b->n_drafts, sizeof(*b->drafts), compare_drafts);
	for (size_t i = 0; i < b->n_drafts; i++) {
		if (out && strcmp(b->drafts[out - 1].p.name, b->drafts[i].p.name) == 0) {
			struct pos x = b->drafts[out - 1].p.pos, y = b->drafts[i].p.pos;
			if (x.file != y.file)
				diag_error(b->d, y, "duplicate-key",
					   "profile \"%s\" stands also at %s:%u",
					   b->drafts[i].p.name, diags_file_name(b->d, x.file),
					   x.line);
			continue;
		}
		b->drafts[out++] = b->drafts[i];
	}
	b->n_drafts = out;
	for (size_t i = 0; i < out; i++)
		b->drafts[i].p.layer = (uint32_t)i + 1;
}

void find_profiles(struct build *b)
{
	b->drafts = arena_array(b->a, count_profiles(b), sizeof(*b->drafts));
	draft_init(&b->drafts[b->n_drafts++], "default", b->root_at);
	for (size_t i = 0; i < b->n_inputs; i++)
		for (const struct node *doc = b->inputs[i].docs; doc; doc = doc->next) {
			const struct node *v = map_get(doc, "profiles");
			if (v && v->type == NODE_MAP)
				add_drafts(b, v);
		}
	merge_drafts(b);
}

static const char *draft_name(const void *table, size_t i)
{
	return ((const struct draft *)table)[i].p.name;
}

int find_profile(struct build *b, const struct node *name)
{
	if (!want_text(b, name, "a profile"))
		return -1;
	struct draft *d = draft_named(b, name->text);
	if (d)
		return (int)(d - b->drafts);
	size_t n = b->n_drafts < 1000 ? b->n_drafts : 0;
	const char *near = nearest(name->text, draft_name, b->drafts, n);
	diag_error(b->d, name->pos, "unknown-profile", "there is no profile \"%.60s\"%s%s%s",
		   name->text, near ? "; did you mean \"" : "", near ? near : "",
		   near ? "\"?" : "");
	return -1;
}

/* ---- keys --------------------------------------------------------------------------------------- */

static void keep(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	*(const struct node **)to = v;
}

static void read_allowlist(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const struct draft *d = to;
	const struct place at = { .layer = d->p.layer };
	read_entries(b, v, k->text, &at);
}

static void read_deny(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const struct draft *d = to;
	const struct place at = { .layer = d->p.layer, .deny = true };
	read_entries(b, v, k->text, &at);
}

static void read_additions(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const struct draft *d = to;
	const struct place at = { .layer = d->p.layer, .additions = true };
	read_entries(b, v, k->text, &at);
}

static void read_mode(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "enforce", "observe" };
	struct draft *d = to;
	d->p.observe = read_word(b, v, k->text, words, 2) == 1;
	if (d->p.observe)
		use_feature(b, FEATURE_BIT_OBSERVE, k->pos);
}

static void read_profile_limits(struct build *b, const struct node *k, const struct node *v,
				void *to)
{
	read_limits(b, k, v, &((struct draft *)to)->p.limits);
}

static void read_staging_only(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const staging[] = { "staging" };
	struct draft *d = to;
	bool only = false;
	read_bool(b, k, v, &only);
	if (!only)
		return;
	if (d->has_environments)
		diag_error(b->d, k->pos, "bad-value",
			   "staging_only is environments: [staging]; write one of them");
	d->allowed_environments = (struct texts){ staging, 1 };
	d->has_environments = true;
}

static void read_environments(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "staging", "production", "internal" };
	struct draft *d = to;
	if (!want_seq(b, v, k->text))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		int i = read_word(b, item, "an environment", words, 3);
		if (i >= 0)
			list[n++] = words[i];
	}
	if (d->has_environments)
		diag_error(b->d, k->pos, "bad-value",
			   "staging_only is environments: [staging]; write one of them");
	d->has_environments = true;
	d->allowed_environments = (struct texts){ list, n };
}

static void read_credential_names(struct build *b, const struct node *k, const struct node *v,
				  void *to)
{
	struct draft *d = to;
	struct texts t = { 0 };
	read_texts(b, k, v, &t);
	d->p.credentials = t.v;
	d->p.n_credentials = t.n;
	if (t.n)
		use_feature(b, FEATURE_BIT_CREDENTIALS, k->pos);
}

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

/* A AAAA CNAME HTTPS SVCB SRV PTR, sorted */
static const uint16_t default_qtypes[] = { 1, 5, 12, 28, 33, 64, 65 };

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

static void read_resolvers(struct build *b, const struct node *k, const struct node *v, void *to)
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

static void read_dns(struct build *b, const struct node *k, const struct node *v, void *to)
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

/* ---- tls, proxy, tasks -------------------------------------------------------------------------- */

static void read_ech(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "deny", "allow" };
	struct draft *d = to;
	d->p.ech_allow = read_word(b, v, k->text, words, 2) == 1;
	d->set |= SET_ECH;
	if (d->p.ech_allow)
		use_feature(b, FEATURE_BIT_ECH_ALLOW, k->pos);
}

static void read_tls(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = { { "ech", read_ech, 0 } };
	read_map(b, v, k->text, KEYS(keys), to);
}

/* http://HOST:PORT and nothing else: no user (that is `auth`), no path. */
static void read_proxy_url(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct name name;
	struct addr a;
	uint64_t port;
	if (!want_text(b, v, k->text))
		return;
	const char *host = strncmp(v->text, "http://", 7) == 0 ? v->text + 7 : NULL;
	const char *colon = host ? strrchr(host, ':') : NULL;
	if (!colon || strcspn(host, "/@?# ") != strlen(host)) {
		diag_error(b->d, v->pos, "bad-value",
			   "a proxy is written as http://HOST:PORT, not \"%.100s\"", v->text);
		return;
	}
	struct node digits = *v;
	digits.text = colon + 1;
	size_t n = (size_t)(colon - host);
	bool literal = (!memchr(host, ':', n) && addr_from_text(&a, host, n)) ||
		       (n > 2 && host[0] == '[' && host[n - 1] == ']' &&
			addr_from_text(&a, host + 1, n - 2));
	if (!literal && memchr(host, ':', n)) {
		diag_error(b->d, v->pos, "bad-value",
			   "an IPv6 address of a proxy stands in brackets: "
			   "http://[2001:db8::1]:3128, not \"%.100s\"",
			   v->text);
		return;
	}
	if (!read_uint(b, &digits, "the port of a proxy", 1, 65535, &port))
		return;
	if (literal || parse_name(b, v->pos, host, n, &name, NULL))
		*(const char **)to = v->text;
}

static void read_proxy(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "http", read_proxy_url, offsetof(struct proxy, http) },
		{ "https", read_proxy_url, offsetof(struct proxy, https) },
		{ "no_proxy", read_text, offsetof(struct proxy, no_proxy) },
		{ "auth", read_text, offsetof(struct proxy, auth) },
	};
	struct draft *d = to;
	if (!read_map(b, v, k->text, KEYS(keys), &d->p.proxy))
		return;
	d->set |= map_get(v, "http") ? SET_PROXY_HTTP : 0;
	d->set |= map_get(v, "https") ? SET_PROXY_HTTPS : 0;
	d->set |= map_get(v, "no_proxy") ? SET_NO_PROXY : 0;
	d->set |= map_get(v, "auth") ? SET_PROXY_AUTH : 0;
	if (v->n)
		use_feature(b, FEATURE_BIT_PROXY, k->pos);
}

static void read_tasks_entries(struct build *b, const struct node *k, const struct node *v,
			       void *to)
{
	uint64_t n;
	if (read_uint(b, v, k->text, 0, 4096, &n))
		((struct draft *)to)->p.tasks_entries = (uint32_t)n;
}

static void read_max_ttl(struct build *b, const struct node *k, const struct node *v, void *to)
{
	read_duration(b, v, k->text, 30 * 86400, &((struct draft *)to)->p.tasks_max_ttl_s);
}

/* Names, wildcards and "preset:NAME"; read_ceiling() reads them once it is known which presets are used. */
static void read_within(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct draft *d = to;
	struct texts t = { 0 };
	read_texts(b, k, v, &t);
	if (v->type == NODE_SEQ)
		d->within = v;
	d->p.tasks_within = t.v;
	d->p.n_tasks_within = t.n;
}

static void read_tasks(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "entries", read_tasks_entries, 0 },
		{ "within", read_within, 0 },
		{ "max_ttl", read_max_ttl, 0 },
	};
	read_map(b, v, k->text, KEYS(keys), to);
	use_feature(b, FEATURE_BIT_TASKS, k->pos);
}

static const struct key profile_keys[] = {
	{ "extends", keep, offsetof(struct draft, extends) },
	{ "presets", keep, offsetof(struct draft, presets) },
	{ "mode", read_mode, 0 },
	{ "environments", read_environments, 0 },
	{ "staging_only", read_staging_only, 0 },
	{ "allowlist", read_allowlist, 0 },
	{ "deny", read_deny, 0 },
	{ "dns", read_dns, 0 },
	{ "tls", read_tls, 0 },
	{ "limits", read_profile_limits, 0 },
	{ "proxy", read_proxy, 0 },
	{ "resolvers", read_resolvers, 0 },
	{ "credentials", read_credential_names, 0 },
	{ "tasks", read_tasks, 0 },
	{ "allowlist_additions", read_additions, 0 },
};

void read_network(struct build *b, const struct node *v)
{
	struct draft *d = draft_named(b, "default");
	d->p.pos = v->pos;
	read_map(b, v, "network", KEYS(profile_keys), d);
}

void read_profiles(struct build *b, const struct node *v)
{
	if (!want_map(b, v, "profiles"))
		return;
	node_for_each_pair(k, value, v)
	{
		struct draft *d = draft_named(b, k->text);
		/* a second one of that name is reported already, and not read over the first */
		if (d && d->p.pos.file == k->pos.file && d->p.pos.line == k->pos.line &&
		    d->p.pos.col == k->pos.col)
			read_map(b, value, "a profile", KEYS(profile_keys), d);
	}
}

/* ---- extends ------------------------------------------------------------------------------------ */

static void find_parents(struct build *b, struct draft *d)
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
static size_t parents_first(struct build *b, uint32_t *order)
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

/* ---- layers ------------------------------------------------------------------------------------- */

struct layers {
	uint32_t *v;
	size_t n, cap;
	uint32_t *mark; /* by layer: the draft that has it already, plus one */
};

static void see(struct build *b, struct layers *l, uint32_t layer, uint32_t who)
{
	if (l->mark[layer] == who)
		return;
	l->mark[layer] = who;
	l->v = arena_grow(b->a, l->v, l->n, &l->cap, sizeof(*l->v));
	l->v[l->n++] = layer;
}

static bool is_preset_layer(const struct build *b, uint32_t layer)
{
	return layer > b->n_drafts;
}

/* Own first, then the parents' as they see them (depth-first), presets behind all of these. */
static void flatten(struct build *b, struct draft *d, uint32_t *mark)
{
	struct layers l = { .mark = mark };
	uint32_t who = (uint32_t)(d - b->drafts) + 1;
	see(b, &l, d->p.layer, who);
	for (unsigned presets = 0; presets < 2; presets++) {
		for (uint32_t i = 0; presets && i < d->n_own_presets; i++)
			see(b, &l, preset_layer(b, d->own_presets[i]), who);
		for (uint32_t i = 0; i < d->n_parents; i++) {
			const struct profile *from = &b->drafts[d->parents[i]].p;
			for (uint32_t j = 0; j < from->n_sees; j++)
				if (is_preset_layer(b, from->sees[j]) == presets)
					see(b, &l, from->sees[j], who);
		}
	}
	d->p.sees = l.v;
	d->p.n_sees = (uint32_t)l.n;
}

uint32_t preset_layer(const struct build *b, size_t preset)
{
	return (uint32_t)b->n_drafts + 1 + b->preset_rank[preset];
}

static void note_default_preset(struct build *b, struct pos at, int preset)
{
	char hosts[DIAG_MAX_TEXT - 200] = "";
	size_t len = 0;
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct entry *e = &b->entries[i];
		if (e->layer != preset_layer(b, (size_t)preset) || len + 64 > sizeof(hosts))
			continue;
		len += (size_t)snprintf(hosts + len, sizeof(hosts) - len, "%s%.60s", len ? " " : "",
					e->pattern);
	}
	diag(b->d, at, DIAG_NOTE, "default-preset",
	     "no `presets`: the preset \"default\" is in force, which lists %s", hosts);
}

static void find_presets(struct build *b, struct draft *d)
{
	if (!d->presets || !want_seq(b, d->presets, "presets"))
		return;
	d->own_presets = arena_array(b->a, d->presets->n + 1, sizeof(*d->own_presets));
	node_for_each(item, d->presets)
	{
		int i = find_preset(b, item);
		if (i >= 0)
			d->own_presets[d->n_own_presets++] = (uint32_t)i;
	}
}

/* `network` without `presets` has the preset `default`. */
static int default_preset(struct build *b, struct draft *d)
{
	static const struct node name = { .type = NODE_SCALAR, .n = 7, .text = "default" };
	if (d->presets)
		return -1;
	int i = find_preset(b, &name);
	if (i < 0)
		return -1;
	d->own_presets = arena_array(b->a, 1, sizeof(*d->own_presets));
	d->own_presets[d->n_own_presets++] = (uint32_t)i;
	return i;
}

static size_t n_presets(void)
{
	size_t n = 0;
	while (preset_at(n))
		n++;
	return n;
}

/* ---- what bindings may add: layers that no profile sees ---- */

/* Is the item "preset:NAME"? */
static bool is_preset_item(const struct node *item, struct node *name)
{
	if (item->type != NODE_SCALAR || strncmp(item->text, "preset:", 7) != 0)
		return false;
	*name = *item;
	name->text += 7;
	name->n -= 7;
	return true;
}

static void mark_presets_within(struct build *b, const struct draft *d)
{
	struct node name;
	if (!d->within)
		return;
	node_for_each(item, d->within)
	{
		int i = is_preset_item(item, &name) ? find_preset(b, &name) : -1;
		if (i >= 0)
			b->preset_used[i] = true;
	}
}

static void add_within(struct build *b, struct draft *d, uint32_t layer)
{
	uint32_t *v = arena_array(b->a, d->within->n + (size_t)2, sizeof(*v)),
		 n = d->p.n_tasks_layers;
	if (n)
		memcpy(v, d->p.tasks_layers, n * sizeof(*v));
	for (uint32_t i = 0; i < n; i++)
		if (v[i] == layer)
			return;
	v[n++] = layer;
	d->p.tasks_layers = v;
	d->p.n_tasks_layers = n;
}

/* The entries of `within` that stand there themselves, as a layer of their own. */
static void read_ceiling(struct build *b, struct draft *d, uint32_t layer)
{
	const struct place at = { .layer = layer, .ceiling = true };
	node_for_each(item, d->within)
	{
		struct node name, one = *item;
		struct node list = { .pos = item->pos, .type = NODE_SEQ, .n = 1, .first = &one };
		one.next = NULL;
		if (item->type != NODE_SCALAR)
			continue; /* read_within() said so */
		if (!is_preset_item(item, &name)) {
			read_entries(b, &list, "within", &at);
			continue;
		}
		int i = preset_index(name.text);
		if (i >= 0)
			add_within(b, d, preset_layer(b, (size_t)i));
	}
	add_within(b, d, layer);
}

static uint32_t task_layer(const struct build *b, uint32_t rank)
{
	return (uint32_t)b->n_drafts + 1 + b->n_preset_layers + rank;
}

static void read_ceilings(struct build *b)
{
	for (size_t i = 0; i < b->n_drafts; i++)
		if (b->drafts[i].within)
			read_ceiling(b, &b->drafts[i], task_layer(b, b->n_task_layers++));
}

/* Presets that nobody uses leave no trace: a new one in the compiler changes no compiled policy. */
static void read_used_presets(struct build *b)
{
	size_t n = n_presets();
	b->preset_used = arena_array(b->a, n + 1, sizeof(*b->preset_used));
	b->preset_rank = arena_array(b->a, n + 1, sizeof(*b->preset_rank));
	for (size_t i = 0; i < b->n_drafts; i++)
		for (uint32_t j = 0; j < b->drafts[i].n_own_presets; j++)
			b->preset_used[b->drafts[i].own_presets[j]] = true;
	for (size_t i = 0; i < b->n_drafts; i++)
		mark_presets_within(b, &b->drafts[i]);
	for (size_t i = 0; i < n; i++)
		if (b->preset_used[i])
			b->preset_rank[i] = b->n_preset_layers++;
	for (size_t i = 0; i < n; i++)
		if (b->preset_used[i])
			read_preset(b, i, preset_layer(b, i));
}

/* ---- into the model ----------------------------------------------------------------------------- */

static void default_limits(struct limits *l)
{
#define X(field, key, octets, dflt)                                                                \
	if (!l->field.set && dflt)                                                                 \
		(void)parse_limit(dflt, octets, strcmp(key, "concurrent") == 0, &l->field);
	LIMITS(X)
#undef X
}

static void finish_profile(struct draft *d)
{
	struct profile *p = &d->p;
	default_limits(&p->limits);
	if (!(d->set & SET_QTYPES)) {
		p->qtypes = default_qtypes;
		p->n_qtypes = sizeof(default_qtypes) / sizeof(default_qtypes[0]);
	}
	p->resolvers = d->resolvers;
	p->n_resolvers = (uint32_t)d->n_resolvers;
}

/* Layers: never, the profiles by name, the presets by name. */
static void fill_layers(struct build *b)
{
	size_t n = 1 + b->n_drafts + b->n_preset_layers + b->n_task_layers;
	uint32_t tasks = 0;
	struct rule_layer *l = arena_array(b->a, n, sizeof(*l));
	l[NEVER_LAYER] = (struct rule_layer){ LAYER_KIND_NEVER, "never" };
	for (size_t i = 0; i < b->n_drafts; i++)
		l[i + 1] = (struct rule_layer){ LAYER_KIND_PROFILE, b->drafts[i].p.name };
	for (size_t i = 0; preset_at(i); i++)
		if (b->preset_used[i])
			l[preset_layer(b, i)] =
				(struct rule_layer){ LAYER_KIND_PRESET,
						     arena_printf(b->a, "preset:%s",
								  preset_at(i)->name) };
	for (size_t i = 0; i < b->n_drafts; i++)
		if (b->drafts[i].within)
			l[task_layer(b, tasks++)] =
				(struct rule_layer){ LAYER_KIND_TASKS,
						     arena_printf(b->a, "tasks:%s",
								  b->drafts[i].p.name) };
	b->m->layers = l;
	b->m->n_layers = (uint32_t)n;
}

static void fill_profiles(struct build *b)
{
	struct profile *v = arena_array(b->a, b->n_drafts, sizeof(*v));
	for (size_t i = 0; i < b->n_drafts; i++) {
		finish_profile(&b->drafts[i]);
		v[i] = b->drafts[i].p;
		if (strcmp(v[i].name, "default") == 0)
			b->m->default_profile = (uint32_t)i;
	}
	b->m->profiles = v;
	b->m->n_profiles = (uint32_t)b->n_drafts;
}

static void resolve_one(struct build *b, struct draft *d, uint32_t *mark)
{
	for (uint32_t i = 0; i < d->n_parents; i++) {
		unsigned depth = b->drafts[d->parents[i]].depth + 1;
		d->depth = depth > d->depth ? depth : d->depth;
	}
	if (d->depth > MAX_EXTENDS_DEPTH) {
		diag_error(b->d, d->extends->pos, "cycle",
			   "profiles extend each other more than %d deep", MAX_EXTENDS_DEPTH);
		return;
	}
	inherit_scalars(b, d);
	inherit_all_limits(b, d);
	inherit_lists(b, d);
	inherit_environments(b, d);
	flatten(b, d, mark);
}

void resolve_profiles(struct build *b)
{
	struct draft *dflt = draft_named(b, "default");
	for (size_t i = 0; i < b->n_drafts; i++) {
		find_parents(b, &b->drafts[i]);
		find_presets(b, &b->drafts[i]);
	}
	int noted = default_preset(b, dflt);
	read_used_presets(b);
	read_ceilings(b);
	if (noted >= 0)
		note_default_preset(b, dflt->p.pos, noted);
	uint32_t *order = arena_array(b->a, b->n_drafts, sizeof(*order));
	uint32_t *mark = arena_array(b->a, 1 + b->n_drafts + b->n_preset_layers, sizeof(*mark));
	size_t n = parents_first(b, order);
	for (size_t i = 0; i < n; i++)
		resolve_one(b, &b->drafts[order[i]], mark);
	fill_layers(b);
	fill_profiles(b);
}
