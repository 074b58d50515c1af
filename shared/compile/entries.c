/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of allowlists, deny lists and `never` -> struct entry. Must never let an entry permit more
 * than its text says.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/lint.h"

/* An entry while it is read. */
struct raw {
	const struct place *at;
	struct terms terms;
	const struct node *domain, *cidr, *list, *ports, *protocols, *http, *upgrade, *expires;
	const struct node *private, *limits, *unseen;
};

/* ---- keys --------------------------------------------------------------------------------------- */

static void keep_node(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	*(const struct node **)to = v;
}

static void read_port_item(struct build *b, const struct node *v, struct port_range *out,
			   uint32_t *n)
{
	uint64_t lo, hi;
	if (!want_text(b, v, "a port"))
		return;
	const char *dash = strchr(v->text, '-');
	if (!dash || dash == v->text || !dash[1] || strchr(dash + 1, '-')) {
		if (!read_uint(b, v, "a port", 1, 65535, &lo))
			return;
		out[(*n)++] = (struct port_range){ (uint16_t)lo, (uint16_t)lo };
		return;
	}
	struct node from = *v, to = *v;
	from.text = arena_text(b->a, v->text, (size_t)(dash - v->text));
	to.text = dash + 1;
	if (!read_uint(b, &from, "a port", 1, 65535, &lo) ||
	    !read_uint(b, &to, "a port", 1, 65535, &hi))
		return;
	if (lo > hi) {
		diag_error(b->d, v->pos, "bad-value", "the range of ports \"%.40s\" is upside down",
			   v->text);
		return;
	}
	out[(*n)++] = (struct port_range){ (uint16_t)lo, (uint16_t)hi };
}

static int compare_ports(const void *x, const void *y)
{
	const struct port_range *a = x, *b = y;
	return a->lo != b->lo ? (a->lo < b->lo ? -1 : 1) : (a->hi > b->hi) - (a->hi < b->hi);
}

static uint32_t merge_ports(struct port_range *v, uint32_t n)
{
	uint32_t out = 0;
	qsort(v, n, sizeof(*v), compare_ports);
	for (uint32_t i = 0; i < n; i++) {
		if (out && v[i].lo <= (uint32_t)v[out - 1].hi + 1) {
			if (v[i].hi > v[out - 1].hi)
				v[out - 1].hi = v[i].hi;
		} else {
			v[out++] = v[i];
		}
	}
	return out;
}

static void read_ports(struct build *b, const struct node *v, struct terms *t)
{
	if (v->type == NODE_SEQ && v->n == 0) {
		diag_error(b->d, v->pos, "bad-value", "an empty list of ports permits nothing");
		return;
	}
	if (v->type == NODE_MAP) {
		want_seq(b, v, "ports");
		return;
	}
	struct port_range *ports =
		arena_array(b->a, v->type == NODE_SEQ ? v->n : 1, sizeof(*ports));
	uint32_t n = 0;
	if (v->type == NODE_SCALAR)
		read_port_item(b, v, ports, &n);
	else
		node_for_each(item, v) read_port_item(b, item, ports, &n);
	t->n_ports = merge_ports(ports, n);
	t->ports = ports;
}

static void read_protocols(struct build *b, const struct node *v, struct terms *t)
{
	static const char *const words[] = { "https", "http", "tcp" };
	static const uint8_t bits[] = { PROTO_HTTPS, PROTO_HTTP, PROTO_TCP };
	if (!want_seq(b, v, "protocols"))
		return;
	if (v->n == 0)
		diag_error(b->d, v->pos, "bad-value", "an empty list of protocols permits nothing");
	node_for_each(item, v)
	{
		int i = read_word(b, item, "a protocol", words, 3);
		if (i >= 0)
			t->protocols |= bits[i];
	}
}

static void read_upgrades(struct build *b, const struct node *v, struct terms *t)
{
	static const char *const words[] = { "websocket" };
	if (!want_seq(b, v, "upgrade"))
		return;
	node_for_each(item, v)
	{
		if (read_word(b, item, "an upgrade", words, 1) == 0)
			t->upgrades |= UPGRADE_WEBSOCKET;
	}
	if (t->upgrades)
		use_feature(b, FEATURE_BIT_UPGRADE, v->pos);
}

/* ---- lint marks --------------------------------------------------------------------------------- */

struct lint_mark {
	struct texts allow;
	const char *why;
};

void read_lint(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "allow", read_texts, offsetof(struct lint_mark, allow) },
		{ "why", read_text, offsetof(struct lint_mark, why) },
	};
	const char *codes[N_LINTS];
	size_t n = 0;
	struct lint_mark mark = { .why = "" };
	while (lint_liftable(n)) {
		codes[n] = lint_liftable(n);
		n++;
	}
	if (!read_map(b, v, k->text, KEYS(keys), &mark))
		return;
	if (!*mark.why)
		diag_error(b->d, k->pos, "missing-key",
			   "lint needs `why`: the reason why the finding is fine");
	const struct node *list = map_get(v, "allow");
	const char *all = " ";
	if (list && list->type == NODE_SEQ) {
		node_for_each(item, list)
		{
			int i = read_word(b, item, "a code that can be lifted", codes, n);
			if (i >= 0)
				all = arena_printf(b->a, "%s%s ", all, codes[i]);
		}
	}
	*(const char **)to = all;
}

static void read_environment(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "staging", "production", "internal" };
	int i = read_word(b, v, k->text, words, 3);
	if (i >= 0)
		*(const char **)to = words[i];
}

#define TERM(field) offsetof(struct raw, terms.field)
#define NODE(field) offsetof(struct raw, field)

static const struct key entry_keys[] = {
	{ "domain", keep_node, NODE(domain) },
	{ "cidr", keep_node, NODE(cidr) },
	{ "list", keep_node, NODE(list) },
	{ "ports", keep_node, NODE(ports) },
	{ "protocols", keep_node, NODE(protocols) },
	{ "http", keep_node, NODE(http) },
	{ "upgrade", keep_node, NODE(upgrade) },
	{ "expires", keep_node, NODE(expires) },
	{ "private", keep_node, NODE(private) },
	{ "limits", keep_node, NODE(limits) },
	{ "unseen", keep_node, NODE(unseen) },
	{ "owner", read_text, TERM(owner) },
	{ "reason", read_text, TERM(reason) },
	{ "data", read_text, TERM(data) },
	{ "if_unreachable", read_text, TERM(if_unreachable) },
	{ "environment", read_environment, TERM(environment) },
	{ "added", read_date, TERM(added) },
	{ "review_by", read_date, TERM(review_by) },
	{ "labels", read_labels, TERM(labels) },
	{ "lint", read_lint, TERM(lint_allow) },
};

/* ---- what fits together ------------------------------------------------------------------------- */

static void read_unseen(struct build *b, const struct node *v, struct terms *t)
{
	static const char *const words[] = { "allow", "deny" };
	t->unseen = read_word(b, v, "unseen", words, 2) == 0;
}

/* The keys that only an allow entry can have. */
static void read_permits(struct build *b, const struct raw *r, struct terms *t)
{
	static const struct node key_private = { .text = "private" },
				 key_expires = { .text = "expires" };
	if (r->ports)
		read_ports(b, r->ports, t);
	if (r->protocols)
		read_protocols(b, r->protocols, t);
	if (r->http)
		read_http_rules(b, r->http, t);
	if (r->upgrade)
		read_upgrades(b, r->upgrade, t);
	if (r->unseen)
		read_unseen(b, r->unseen, t);
	if (r->private)
		read_bool(b, &key_private, r->private, &t->private_ok);
	if (r->expires)
		read_time(b, &key_expires, r->expires, &t->expires);
	if (r->limits) {
		struct node key = { .text = "limits", .pos = r->limits->pos };
		read_limits_at(b, &key, r->limits, &t->limits);
	}
}

static void refuse_permits(struct build *b, const struct raw *r)
{
	const struct node *const v[] = { r->ports,  r->protocols, r->http,    r->upgrade,
					 r->unseen, r->private,   r->expires, r->limits };
	static const char *const names[] = { "ports",  "protocols", "http",    "upgrade",
					     "unseen", "private",   "expires", "limits" };
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		if (v[i])
			diag_error(b->d, v[i]->pos, "bad-value",
				   "an entry that denies cannot have `%s`: it denies the name or "
				   "address as a whole",
				   names[i]);
}

static bool has_port(const struct terms *t, uint16_t port)
{
	for (uint32_t i = 0; i < t->n_ports; i++)
		if (t->ports[i].lo <= port && port <= t->ports[i].hi)
			return true;
	return false;
}

static void check_http(struct build *b, const struct raw *r, const struct terms *t)
{
	if (r->http && !(t->protocols & (PROTO_HTTP | PROTO_HTTPS)))
		diag_error(b->d, r->http->pos, "bad-value", "http rules need the protocol http");
	else if (r->http && (t->protocols & PROTO_HTTPS) && !t->unseen)
		diag_error(b->d, r->http->pos, "unseen",
			   "http rules cannot be applied where TLS hides the request; write "
			   "protocols: [http], "
			   "or unseen: allow to let https through unjudged");
	if (r->unseen && !r->http)
		diag_error(b->d, r->unseen->pos, "bad-value",
			   "unseen says something only beside http rules");
	if (t->upgrades && r->http)
		diag_error(b->d, r->upgrade->pos, "bad-value",
			   "an upgraded connection is not judged by http rules: an entry cannot "
			   "have both");
	if (t->upgrades && !(t->protocols & (PROTO_HTTP | PROTO_HTTPS)))
		diag_error(b->d, r->upgrade->pos, "bad-value",
			   "upgrade needs the protocol http or https");
}

static void check_tcp(struct build *b, struct pos at, const struct raw *r, const struct terms *t)
{
	if (!(t->protocols & PROTO_TCP))
		return;
	if (!r->ports)
		diag_error(b->d, at, "missing-key", "protocol tcp needs `ports`");
	else if (has_port(t, 80) || has_port(t, 443))
		diag_error(b->d, r->ports->pos, "bad-value",
			   "ports 80 and 443 cannot be raw tcp: they are judged as http and https");
}

/* ---- kinds of entries --------------------------------------------------------------------------- */

struct entry *add_entry(struct build *b)
{
	b->entries =
		arena_grow(b->a, b->entries, b->n_entries, &b->cap_entries, sizeof(*b->entries));
	struct entry *e = &b->entries[b->n_entries];
	*e = (struct entry){ .order = (uint32_t)b->n_entries };
	b->n_entries++;
	return e;
}

static struct entry *place_entry(struct build *b, const struct place *at, struct pos pos,
				 enum entry_kind kind, const char *pattern, const struct terms *t)
{
	struct entry *e = add_entry(b);
	e->pos = pos;
	e->layer = at->layer;
	e->kind = (uint8_t)kind;
	e->deny = at->deny;
	e->preset = at->preset;
	e->pattern = pattern;
	e->terms = t;
	return e;
}

static void add_name(struct build *b, const struct place *at, const struct node *v,
		     const struct terms *t)
{
	struct name n;
	bool below;
	if (!want_text(b, v, "a name or wildcard") ||
	    !parse_name(b, v->pos, v->text, v->n, &n, &below))
		return;
	if (below && !at->deny)
		check_wildcard(b, v->pos, &n, t->lint_allow);
	struct entry *e = place_entry(b, at, v->pos, below ? ENTRY_BELOW : ENTRY_EXACT, v->text, t);
	uint8_t *wire = arena_get(b->a, n.len);
	memcpy(wire, n.wire, n.len);
	e->wire = wire;
	e->wire_len = n.len;
	if (t->protocols & PROTO_TCP)
		use_feature(b, FEATURE_BIT_PINS, v->pos);
}

/* Is the text an address or a prefix, where a name should stand? */
static void check_cidr(struct build *b, const struct node *v, const struct prefix *p,
		       const struct terms *t)
{
	enum addr_class c = addr_class(&p->a);
	if (c == ADDR_NEVER)
		lint_say(b, v->pos, LINT_NEVER_DESTINATION, t->lint_allow,
			 "%s is never a destination, whatever is listed", v->text);
	else if (c == ADDR_PRIVATE && !t->private_ok)
		lint_say(b, v->pos, LINT_UNREACHABLE, t->lint_allow,
			 "%s is private address space; without private: true the entry permits "
			 "nothing",
			 v->text);
}

static void add_cidr(struct build *b, const struct raw *r, const struct node *v, struct terms *t)
{
	struct prefix p;
	if (!r->at->deny && !r->ports)
		diag_error(b->d, v->pos, "missing-key", "a cidr entry needs `ports`");
	if (!r->at->deny && r->protocols && t->protocols != PROTO_TCP)
		diag_error(b->d, r->protocols->pos, "bad-value",
			   "a cidr entry can have the protocol tcp only");
	if (!read_prefix(b, v, &p))
		return;
	if (p.len == 0 || (p.len == 96 && prefix_is_v4(&p))) {
		diag_error(b->d, v->pos, "bad-prefix", "%.60s would list every address", v->text);
		return;
	}
	if (!r->at->deny)
		check_cidr(b, v, &p, t);
	struct prefix *copy = arena_get(b->a, sizeof(*copy));
	*copy = p;
	place_entry(b, r->at, v->pos, ENTRY_CIDR, v->text, t)->prefix = copy;
}

static void add_list(struct build *b, const struct raw *r, const struct node *v,
		     const struct terms *t)
{
	const struct name_list *list;
	if (v->type == NODE_MAP ? !read_inline_list(b, v, !r->at->deny, t->lint_allow, &list)
				: !want_text(b, v, "list") ||
					  !read_name_list(b, v, !r->at->deny, t->lint_allow, &list))
		return;
	const char *pattern = arena_printf(b->a, "list:%s", list->path);
	place_entry(b, r->at, v->pos, ENTRY_LIST, pattern, t)->list = list;
	if (t->protocols & PROTO_TCP)
		use_feature(b, FEATURE_BIT_PINS, v->pos);
}

static bool is_required_there(const struct terms *t, const char *key)
{
	static const struct {
		const char *key;
		size_t off;
	} text[] = {
		{ "owner", offsetof(struct terms, owner) },
		{ "reason", offsetof(struct terms, reason) },
		{ "data", offsetof(struct terms, data) },
		{ "if_unreachable", offsetof(struct terms, if_unreachable) },
		{ "environment", offsetof(struct terms, environment) },
		{ "added", offsetof(struct terms, added) },
		{ "review_by", offsetof(struct terms, review_by) },
	};
	if (strcmp(key, "expires") == 0)
		return t->expires != 0;
	for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++)
		if (strcmp(text[i].key, key) == 0)
			return **(const char *const *)((const char *)t + text[i].off) != '\0';
	return true;
}

static void check_required(struct build *b, struct pos at, const struct place *place,
			   const struct terms *t)
{
	if (place->deny || place->preset || place->ceiling)
		return;
	for (uint32_t i = 0; i < b->require.n; i++)
		if (!is_required_there(t, b->require.v[i]))
			diag_error(b->d, at, "missing-key",
				   "the entry lacks `%s`, which this policy requires",
				   b->require.v[i]);
}

/* The one of domain, cidr and list that an entry has; NULL with a message. */
static const struct node *subject(struct build *b, const struct node *v, const struct raw *r)
{
	unsigned n = !!r->domain + !!r->cidr + !!r->list;
	if (n == 1)
		return r->domain ? r->domain : r->cidr ? r->cidr : r->list;
	diag_error(b->d, v->pos, n ? "bad-value" : "missing-key",
		   "an entry needs %s `domain`, `cidr` or `list`", n ? "only one of" : "one of");
	return NULL;
}

static void read_mapping(struct build *b, const struct node *v, const struct place *at)
{
	struct raw r = { .at = at, .terms = b->plain_deny };
	read_map(b, v, "an entry", KEYS(entry_keys), &r);
	const struct node *s = subject(b, v, &r);
	struct terms *t = arena_get(b->a, sizeof(*t));
	*t = r.terms;
	if (at->deny)
		refuse_permits(b, &r);
	else
		read_permits(b, &r, t);
	if (at->additions)
		t->private_ok = t->addition = true;
	if (!at->deny && r.cidr && !r.protocols)
		t->protocols = PROTO_TCP;
	else if (!at->deny && !r.protocols)
		t->protocols = PROTO_HTTPS | PROTO_HTTP;
	if (!at->deny) {
		check_http(b, &r, t);
		if (!r.cidr || r.ports)
			check_tcp(b, v->pos, &r, t);
	}
	check_required(b, s ? s->pos : v->pos, at, t);
	if (!s)
		return;
	if (s == r.domain)
		add_name(b, at, s, t);
	else if (s == r.cidr)
		add_cidr(b, &r, s, t);
	else
		add_list(b, &r, s, t);
}

void read_entries(struct build *b, const struct node *list, const char *what,
		  const struct place *at)
{
	if (!want_seq(b, list, what))
		return;
	const struct terms *plain = at->deny ? &b->plain_deny : &b->plain_allow;
	if (at->additions) {
		struct terms *t = arena_get(b->a, sizeof(*t));
		*t = *plain;
		t->private_ok = t->addition = true;
		plain = t;
	}
	node_for_each(item, list)
	{
		if (item->type == NODE_MAP) {
			read_mapping(b, item, at);
			continue;
		}
		check_required(b, item->pos, at, plain);
		add_name(b, at, item, plain);
	}
}
