/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model as tables in the form of policy.bin (format.h). The order of everything that is meaning
 * comes from what it says, not from where it stands, so that a reordered policy means the same bytes.
 * Never looks at the input again, never fails on what the model holds but by size.
 */
#include "shared/compile/layout.h"

#include <assert.h>

#include <stdlib.h>
#include <string.h>

/* What layout needs of the model beside the tables. */
struct layout {
	const struct model *m;
	struct tables *t;
	uint32_t *layer_of;   /* model layer -> layer in the file */
	uint32_t *first_rule; /* entry -> first rule; a list may have two: exact, then below */
	const struct terms *last_terms;
	struct fmt_rule_info last_info;
	uint32_t *pattern; /* entry -> its pattern in info_strings */
};

/* ---- order ---- */

struct named {
	uint32_t kind;
	const char *name;
	uint32_t index;
};

static int by_kind_and_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void layout_layers(struct layout *o)
{
	const struct model *m = o->m;
	struct tables *t = o->t;
	struct named *v = arena_array(&t->arena, m->n_layers, sizeof(*v));
	for (uint32_t i = 0; i < m->n_layers; i++)
		v[i] = (struct named){ m->layers[i].kind, m->layers[i].name, i };
	qsort(v, m->n_layers, sizeof(*v), by_kind_and_name);
	t->layers = arena_array(&t->arena, m->n_layers, sizeof(*t->layers));
	t->n_layers = m->n_layers;
	o->layer_of = arena_array(&t->arena, m->n_layers, sizeof(*o->layer_of));
	for (uint32_t i = 0; i < m->n_layers; i++) {
		o->layer_of[v[i].index] = i;
		t->layers[i] = (struct fmt_layer){ .kind = v[i].kind,
						   .name = pool_text(&t->strings, v[i].name),
						   .https = FMT_NONE,
						   .http = FMT_NONE };
	}
}

/* ---- rules ---- */

static uint32_t put_ports(struct tables *t, const struct port_range *v, uint32_t n)
{
	uint32_t *w = arena_array(&t->arena, n + 1, sizeof(*w));
	w[0] = n;
	for (uint32_t i = 0; i < n; i++)
		w[i + 1] = (uint32_t)v[i].lo | (uint32_t)v[i].hi << 16;
	return (uint32_t)(pool_put(&t->ports, w, (n + 1) * sizeof(*w)) / 4);
}

static size_t http_size(const struct terms *e)
{
	size_t n = 2;
	for (uint32_t i = 0; i < e->n_http; i++) {
		n += 4;
		for (uint32_t k = 0; k < e->http[i].n_methods; k++)
			n += 1 + strlen(e->http[i].methods[k]);
		for (uint32_t k = 0; k < e->http[i].n_paths; k++)
			n += 3 + (size_t)e->http[i].paths[k].len;
	}
	return n;
}

static uint8_t *put16(uint8_t *b, size_t v)
{
	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
	return b + 2;
}

static uint8_t *put_http_rule(uint8_t *b, const struct http_rule *h)
{
	b = put16(b, h->n_methods);
	b = put16(b, h->n_paths);
	for (uint32_t k = 0; k < h->n_methods; k++) {
		size_t n = strlen(h->methods[k]);
		*b++ = (uint8_t)n;
		memcpy(b, h->methods[k], n);
		b += n;
	}
	for (uint32_t k = 0; k < h->n_paths; k++) {
		*b++ = h->paths[k].prefix;
		b = put16(b, h->paths[k].len);
		memcpy(b, h->paths[k].text, h->paths[k].len);
		b += h->paths[k].len;
	}
	return b;
}

static uint32_t put_http(struct tables *t, const struct terms *e)
{
	size_t size = http_size(e);
	uint8_t *bytes = arena_get(&t->arena, size), *b = put16(bytes, e->n_http);
	for (uint32_t i = 0; i < e->n_http; i++)
		b = put_http_rule(b, &e->http[i]);
	return (uint32_t)pool_put(&t->http, bytes, size);
}

static uint32_t put_limits(struct tables *t, const struct limits *l)
{
	const struct limit *from[] = {
#define X(field, key, octets, dflt) &l->field,
		LIMITS(X)
#undef X
	};
	struct fmt_limits f = { 0 };
	static_assert(sizeof(from) / sizeof(from[0]) == FMT_LIMIT_KINDS, "the kinds of policy.h");
	for (unsigned k = 0; k < FMT_LIMIT_KINDS; k++)
		if (from[k]->set)
			f.kind[k] = (struct fmt_rate){ .amount = from[k]->amount,
						       .burst = from[k]->burst,
						       .period_s = from[k]->period_s };
	return (uint32_t)(pool_put(&t->limits, &f, sizeof(f)) / sizeof(f));
}

static uint16_t rule_flags(const struct entry *e, unsigned kind)
{
	unsigned f = kind;
	f |= e->deny ? RULE_DENY : 0;
	f |= e->preset ? RULE_PRESET : 0;
	f |= e->terms->private_ok ? RULE_PRIVATE : 0;
	f |= e->terms->unseen ? RULE_UNSEEN : 0;
	f |= e->terms->limits ? RULE_LIMITED : 0;
	return (uint16_t)f;
}

static struct fmt_rule make_rule(struct layout *o, const struct entry *e, unsigned kind)
{
	const struct terms *x = e->terms;
	struct fmt_rule r = {
		.layer = o->layer_of[e->layer],
		.flags = rule_flags(e, kind),
		.protocols = e->deny ? 0 : x->protocols,
		.upgrades = x->upgrades,
		.ports = x->n_ports ? put_ports(o->t, x->ports, x->n_ports) : FMT_NONE,
		.http = x->n_http ? put_http(o->t, x) : FMT_NONE,
		.expires = x->expires,
	};
	memcpy(r.id, e->id, sizeof(r.id));
	return r;
}

/* What an entry's terms say; the last ones are kept, for most entries share theirs with the one before. */
static const struct fmt_rule_info *terms_info(struct layout *o, const struct terms *x)
{
	struct pool *s = &o->t->info_strings;
	if (o->last_terms == x)
		return &o->last_info;
	o->last_terms = x;
	o->last_info = (struct fmt_rule_info){
		.owner = pool_text(s, x->owner),
		.reason = pool_text(s, x->reason),
		.data = pool_text(s, x->data),
		.if_unreachable = pool_text(s, x->if_unreachable),
		.environment = pool_text(s, x->environment),
		.added = pool_text(s, x->added),
		.review_by = pool_text(s, x->review_by),
		.labels = pool_text(s, x->labels),
		.out = pool_text(s, x->out),
	};
	return &o->last_info;
}

static struct fmt_rule_info make_info(struct layout *o, const struct entry *e)
{
	struct pool *s = &o->t->info_strings;
	struct fmt_rule_info info = *terms_info(o, e->terms);
	info.file = pool_text(s, o->m->files[e->pos.file]);
	info.line = e->pos.line;
	info.col = e->pos.col;
	info.order = e->order;
	info.pattern = o->pattern[e->order];
	return info;
}

/* Patterns that were put in lately, by hash: most that are equal stand near each other. */
enum { RECENT = 1 << 14 };

struct recent {
	uint32_t hash, at;
};

/*
 * In the order of the policy, which is that of memory. A million patterns are mostly all different, and
 * a table of all of them would cost more than what it saves.
 */
static void layout_patterns(struct layout *o)
{
	const struct model *m = o->m;
	struct pool *s = &o->t->info_strings;
	struct recent *recent = arena_array(&o->t->scratch, RECENT, sizeof(*recent));
	o->pattern = arena_array(&o->t->arena, m->n_entries + (size_t)1, sizeof(*o->pattern));
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const char *text = m->entries[i].pattern;
		size_t n = strlen(text) + 1;
		uint32_t hash = (uint32_t)pool_hash(text, n) | 1;
		struct recent *r = &recent[hash / 2 % RECENT];
		if (r->hash != hash || strcmp((const char *)s->bytes + r->at, text) != 0)
			*r = (struct recent){ hash, (uint32_t)pool_append(s, text, n) };
		o->pattern[i] = r->at;
	}
}

/* The kinds of rules that an entry makes, as RULE_* flags. */
static unsigned entry_kinds(const struct entry *e)
{
	unsigned kinds = 0;
	switch ((enum entry_kind)e->kind) {
	case ENTRY_EXACT:
		return RULE_EXACT;
	case ENTRY_BELOW:
		return RULE_BELOW;
	case ENTRY_CIDR:
		return RULE_CIDR;
	case ENTRY_LIST:
		break;
	}
	const uint8_t *b = e->list->bytes;
	for (size_t i = 0; i < e->list->n && kinds != (RULE_EXACT | RULE_BELOW); i++) {
		kinds |= b[0] ? RULE_BELOW : RULE_EXACT;
		b += 2 + (size_t)b[1];
	}
	return kinds;
}

/* A rule on its way to its place: small, for there may be millions to sort. */
struct draft {
	uint32_t layer;
	uint32_t entry;
	uint8_t id[RULE_ID_SIZE];
	uint8_t kind; /* RULE_EXACT, RULE_BELOW or RULE_CIDR */
};

static int by_limit(const struct limit *a, const struct limit *b)
{
	if (a->amount != b->amount)
		return a->amount < b->amount ? -1 : 1;
	if (a->burst != b->burst)
		return a->burst < b->burst ? -1 : 1;
	return (a->period_s > b->period_s) - (a->period_s < b->period_s);
}

/* Of two rules of which both have limits, or none. */
static int by_limits(const struct limits *a, const struct limits *b)
{
	int c = 0;
	if (!a || !b || a == b)
		return 0;
#define X(field, key, octets, dflt) c = c ? c : by_limit(&a->field, &b->field);
	LIMITS(X)
#undef X
	return c;
}

/*
 * By what the rule says: the id covers pattern, ports, protocols and http rules, the rest is compared
 * here. Rules that mean the same are ordered by place, which makes no difference to the meaning.
 */
static int by_meaning(const void *a, const void *b, void *entries)
{
	const struct draft *x = a, *y = b;
	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	int c = memcmp(x->id, y->id, sizeof(x->id));
	if (c)
		return c;
	const struct entry *e = (const struct entry *)entries + x->entry;
	const struct entry *f = (const struct entry *)entries + y->entry;
	unsigned flags = rule_flags(e, x->kind), other = rule_flags(f, y->kind);
	if (flags != other)
		return flags < other ? -1 : 1;
	if (e->terms->upgrades != f->terms->upgrades)
		return e->terms->upgrades < f->terms->upgrades ? -1 : 1;
	if (e->terms->expires != f->terms->expires)
		return e->terms->expires < f->terms->expires ? -1 : 1;
	c = by_limits(e->terms->limits, f->terms->limits);
	if (c)
		return c;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

/* How many leading bits of an id sort first; the few that share them are compared. */
enum { ID_BUCKETS = 1 << 16, FEW_RULES = 1 << 12 };

static uint32_t layer_key(const struct draft *d)
{
	return d->layer;
}

static uint32_t id_key(const struct draft *d)
{
	return (uint32_t)d->id[0] << 8 | d->id[1];
}

/* from[0..n) to to[], by key below `keys`, those of one key in the order they had. */
static void count_sort(const struct draft *from, struct draft *to, size_t n, uint32_t *start,
		       size_t keys, uint32_t (*key)(const struct draft *d))
{
	memset(start, 0, (keys + 1) * sizeof(*start));
	for (size_t i = 0; i < n; i++)
		start[key(&from[i]) + 1]++;
	for (size_t k = 0; k < keys; k++)
		start[k + 1] += start[k];
	for (size_t i = 0; i < n; i++)
		to[start[key(&from[i])]++] = from[i];
}

/* The rules of one layer from d[0..n) to to[0..n): many by the first bits of their ids, then these few. */
static void sort_layer(struct layout *o, const struct draft *d, struct draft *to, size_t n,
		       uint32_t *start)
{
	void *entries = (void *)o->m->entries;
	if (n < FEW_RULES) {
		memcpy(to, d, n * sizeof(*d));
		qsort_r(to, n, sizeof(*d), by_meaning, entries);
		return;
	}
	count_sort(d, to, n, start, ID_BUCKETS, id_key);
	for (size_t at = 0, end; at < n; at = end) {
		for (end = at + 1; end < n && id_key(&to[end]) == id_key(&to[at]); end++)
			;
		if (end - at > 1)
			qsort_r(to + at, end - at, sizeof(*d), by_meaning, entries);
	}
}

/* d[0..n), with a spare of the same size, by layer and then by what they say; returns where they are. */
static struct draft *sort_rules(struct layout *o, struct draft *d, struct draft *spare, size_t n)
{
	size_t keys = o->m->n_layers > ID_BUCKETS ? o->m->n_layers : ID_BUCKETS;
	uint32_t *start = arena_array(&o->t->scratch, keys + 1, sizeof(*start));
	bool one = true;
	for (size_t i = 1; i < n && one; i++)
		one = d[i].layer == d[0].layer;
	if (one) {
		sort_layer(o, d, spare, n, start);
		return spare;
	}
	count_sort(d, spare, n, start, o->m->n_layers, layer_key);
	for (size_t at = 0, end; at < n; at = end) {
		for (end = at + 1; end < n && spare[end].layer == spare[at].layer; end++)
			;
		sort_layer(o, spare + at, d + at, end - at, start);
	}
	return d;
}

/* All rules, sorted; a list may make two. */
static struct draft *draft_rules(struct layout *o, size_t *n_rules)
{
	static const unsigned kinds[] = { RULE_EXACT, RULE_BELOW, RULE_CIDR };
	const struct model *m = o->m;
	size_t lists = 0, n = 0;
	for (uint32_t i = 0; i < m->n_entries; i++)
		lists += m->entries[i].kind == ENTRY_LIST;
	struct draft *d = arena_array(&o->t->scratch, m->n_entries + lists + 1, sizeof(*d));
	struct draft *spare = arena_array(&o->t->scratch, m->n_entries + lists + 1, sizeof(*d));
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct entry *e = &m->entries[i];
		unsigned made = entry_kinds(e);
		for (unsigned k = 0; k < 3; k++) {
			if (!(made & kinds[k]))
				continue;
			d[n] = (struct draft){ .layer = o->layer_of[e->layer],
					       .entry = i,
					       .kind = (uint8_t)kinds[k] };
			memcpy(d[n++].id, e->id, sizeof(e->id));
		}
	}
	*n_rules = n;
	return sort_rules(o, d, spare, n);
}

enum { AHEAD = 8 };

static void add_rule_limits(struct tables *t, uint32_t rule, const struct limits *l)
{
	t->rule_limits = arena_grow(&t->arena, t->rule_limits, t->n_rule_limits,
				    &t->cap_rule_limits, sizeof(*t->rule_limits));
	t->rule_limits[t->n_rule_limits++] =
		(struct fmt_rule_limits){ .rule = rule, .limits = put_limits(t, l) };
}

static void layout_rules(struct layout *o)
{
	const struct model *m = o->m;
	struct tables *t = o->t;
	size_t n;
	const struct draft *d = draft_rules(o, &n);
	t->rules = arena_array(&t->arena, n + 1, sizeof(*t->rules));
	t->rule_info = arena_array(&t->arena, n + 1, sizeof(*t->rule_info));
	t->rule_file = arena_array(&t->arena, n + 1, sizeof(*t->rule_file));
	t->n_rules = n;
	o->first_rule = arena_array(&t->arena, 2 * (size_t)m->n_entries + 1, sizeof(uint32_t));
	for (size_t i = 0; i < n; i++) {
		const struct entry *e = &m->entries[d[i].entry];
		unsigned kind = d[i].kind;
		if (i + AHEAD < n) /* entries are anywhere in memory, in this order */
			__builtin_prefetch(&m->entries[d[i + AHEAD].entry]);
		t->rules[i] = make_rule(o, e, kind);
		if (e->terms->limits)
			add_rule_limits(o->t, (uint32_t)i, e->terms->limits);
		t->rule_info[i] = make_info(o, e);
		if (e->kind == ENTRY_LIST)
			t->rule_file[i] = pool_text(&t->info_strings, m->files[e->list->file]);
		o->first_rule[2 * (size_t)d[i].entry + (kind == RULE_BELOW)] = (uint32_t)i;
	}
}

/* The rule of an entry for a kind of match. */
static uint32_t rule_of(const struct layout *o, uint32_t entry, bool below)
{
	return o->first_rule[2 * (size_t)entry + below];
}

/* ---- which ports a layer may use ---- */

struct ranges {
	struct port_range *v;
	size_t n, cap;
};

static void add_range(struct layout *o, struct ranges *r, struct port_range x)
{
	r->v = arena_grow(&o->t->arena, r->v, r->n, &r->cap, sizeof(*r->v));
	r->v[r->n++] = x;
}

static int by_low(const void *a, const void *b)
{
	const struct port_range *x = a, *y = b;
	return x->lo != y->lo ? (x->lo < y->lo ? -1 : 1) : (x->hi > y->hi) - (x->hi < y->hi);
}

/* Keeps it short while it grows: layers of 100,000 entries mostly repeat one range. */
static void add_once(struct layout *o, struct ranges *r, struct port_range x)
{
	for (size_t i = 0; i < r->n && i < 16; i++)
		if (x.lo >= r->v[i].lo && x.hi <= r->v[i].hi)
			return;
	add_range(o, r, x);
}

static uint32_t put_union(struct layout *o, struct ranges *r)
{
	size_t n = 0;
	if (r->n == 0)
		return FMT_NONE;
	qsort(r->v, r->n, sizeof(*r->v), by_low);
	for (size_t i = 1; i < r->n; i++) {
		if (r->v[i].lo <= (uint32_t)r->v[n].hi + 1) {
			if (r->v[i].hi > r->v[n].hi)
				r->v[n].hi = r->v[i].hi;
		} else {
			r->v[++n] = r->v[i];
		}
	}
	return put_ports(o->t, r->v, (uint32_t)n + 1);
}

static void collect_ports(struct layout *o, struct ranges *https, struct ranges *http)
{
	for (uint32_t i = 0; i < o->m->n_entries; i++) {
		const struct entry *e = &o->m->entries[i];
		const struct terms *x = e->terms;
		uint32_t layer = o->layer_of[e->layer];
		if (e->deny)
			continue;
		if (x->protocols & PROTO_HTTPS && !x->n_ports)
			add_once(o, &https[layer], (struct port_range){ 443, 443 });
		if (x->protocols & PROTO_HTTP && !x->n_ports)
			add_once(o, &http[layer], (struct port_range){ 80, 80 });
		for (uint32_t k = 0; k < x->n_ports; k++) {
			if (x->protocols & PROTO_HTTPS)
				add_once(o, &https[layer], x->ports[k]);
			if (x->protocols & PROTO_HTTP)
				add_once(o, &http[layer], x->ports[k]);
		}
	}
}

static void layout_layer_ports(struct layout *o)
{
	struct tables *t = o->t;
	struct ranges *https = arena_array(&t->arena, t->n_layers, sizeof(*https));
	struct ranges *http = arena_array(&t->arena, t->n_layers, sizeof(*http));
	collect_ports(o, https, http);
	for (size_t i = 0; i < t->n_layers; i++) {
		t->layers[i].https = put_union(o, &https[i]);
		t->layers[i].http = put_union(o, &http[i]);
	}
}

/* ---- names ---- */

static size_t count_names(const struct model *m)
{
	size_t n = 0;
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct entry *e = &m->entries[i];
		n += e->kind == ENTRY_LIST ? e->list->n : e->kind != ENTRY_CIDR;
	}
	return n;
}

static void place_list(struct layout *o, uint32_t entry)
{
	const struct name_list *l = o->m->entries[entry].list;
	const uint8_t *b = l->bytes;
	for (size_t i = 0; i < l->n; i++, b += 2 + (size_t)b[1])
		o->t->placed[o->t->n_placed++] =
			(struct placed){ .wire = b + 2,
					 .len = b[1],
					 .rule = rule_of(o, entry, b[0] != 0),
					 .line = l->lines[i] };
}

static void layout_names(struct layout *o)
{
	struct tables *t = o->t;
	t->placed = arena_array(&t->scratch, count_names(o->m) + 1, sizeof(*t->placed));
	for (uint32_t i = 0; i < o->m->n_entries; i++) {
		const struct entry *e = &o->m->entries[i];
		if (e->kind == ENTRY_LIST)
			place_list(o, i);
		else if (e->kind != ENTRY_CIDR)
			t->placed[t->n_placed++] =
				(struct placed){ .wire = e->wire,
						 .len = e->wire_len,
						 .rule = rule_of(o, i, e->kind == ENTRY_BELOW) };
	}
}

static int by_pair(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	if (x[0] != y[0])
		return x[0] < y[0] ? -1 : 1;
	return x[1] < y[1] ? -1 : x[1] > y[1];
}

uint32_t tables_set(struct tables *t, uint32_t *pairs, uint32_t n)
{
	uint32_t small[1 + 2 * 8];
	uint32_t *w = n <= 8 ? small : arena_array(&t->arena, 1 + 2 * (size_t)n, sizeof(*w));
	if (n > 1)
		qsort(pairs, n, 2 * sizeof(*pairs), by_pair);
	w[0] = n;
	memcpy(w + 1, pairs, 2 * (size_t)n * sizeof(*pairs));
	return (uint32_t)(pool_put(&t->sets, w, (1 + 2 * (size_t)n) * sizeof(*w)) / 4);
}

/* ---- cidrs ---- */

struct cidr_draft {
	struct prefix prefix;
	uint32_t rule;
};

/* Longest first, then by address. */
static int by_prefix(const void *a, const void *b)
{
	const struct cidr_draft *x = a, *y = b;
	if (x->prefix.len != y->prefix.len)
		return x->prefix.len > y->prefix.len ? -1 : 1;
	int c = addr_cmp(&x->prefix.a, &y->prefix.a);
	return c ? c : (x->rule > y->rule) - (x->rule < y->rule);
}

static bool same_prefix(const struct prefix *a, const struct prefix *b)
{
	return a->len == b->len && addr_cmp(&a->a, &b->a) == 0;
}

static void layout_cidrs(struct layout *o)
{
	struct tables *t = o->t;
	const struct model *m = o->m;
	struct cidr_draft *d = arena_array(&t->arena, m->n_entries + (size_t)1, sizeof(*d));
	uint32_t *pairs = arena_array(&t->arena, 2 * (size_t)m->n_entries + 2, sizeof(*pairs));
	size_t n = 0;
	for (uint32_t i = 0; i < m->n_entries; i++)
		if (m->entries[i].kind == ENTRY_CIDR)
			d[n++] = (struct cidr_draft){ *m->entries[i].prefix, rule_of(o, i, false) };
	qsort(d, n, sizeof(*d), by_prefix);
	t->cidrs = arena_array(&t->arena, n + 1, sizeof(*t->cidrs));
	for (size_t i = 0, end; i < n; i = end) {
		uint32_t k = 0;
		for (end = i; end < n && same_prefix(&d[i].prefix, &d[end].prefix); end++, k++) {
			pairs[2 * k] = t->rules[d[end].rule].layer;
			pairs[2 * k + 1] = d[end].rule;
		}
		struct fmt_cidr *c = &t->cidrs[t->n_cidrs++];
		memcpy(c->addr, d[i].prefix.a.b, sizeof(c->addr));
		c->len = d[i].prefix.len;
		c->set = tables_set(t, pairs, k);
	}
}

/* ---- profiles ---- */

static int by_layer(const void *a, const void *b)
{
	const struct fmt_sees *x = a, *y = b;
	return x->layer < y->layer ? -1 : x->layer > y->layer;
}

static uint32_t put_qtypes(struct tables *t, const struct profile *p)
{
	uint16_t *w = arena_array(&t->arena, p->n_qtypes + (size_t)1, sizeof(*w));
	w[0] = (uint16_t)p->n_qtypes;
	memcpy(w + 1, p->qtypes, p->n_qtypes * sizeof(*w));
	return (uint32_t)(pool_put(&t->qtypes, w, (p->n_qtypes + (size_t)1) * sizeof(*w)) / 2);
}

static void layout_profiles(struct layout *o)
{
	const struct model *m = o->m;
	struct tables *t = o->t;
	size_t n_sees = 0;
	for (uint32_t i = 0; i < m->n_profiles; i++)
		n_sees += m->profiles[i].n_sees;
	t->sees = arena_array(&t->arena, n_sees + 1, sizeof(*t->sees));
	t->profiles = arena_array(&t->arena, m->n_profiles, sizeof(*t->profiles));
	t->n_profiles = m->n_profiles;
	t->default_profile = m->default_profile;
	for (uint32_t i = 0; i < m->n_profiles; i++) {
		const struct profile *p = &m->profiles[i];
		struct fmt_sees *s = t->sees + t->n_sees;
		for (uint32_t k = 0; k < p->n_sees; k++)
			s[k] = (struct fmt_sees){ o->layer_of[p->sees[k]], k };
		qsort(s, p->n_sees, sizeof(*s), by_layer);
		t->profiles[i] = (struct fmt_profile){
			.name = pool_text(&t->strings, p->name),
			.flags = (p->observe ? (uint32_t)PROFILE_OBSERVE : 0) |
				 (p->ech_allow ? (uint32_t)PROFILE_ECH_ALLOW : 0),
			.sees = (uint32_t)t->n_sees,
			.n_sees = p->n_sees,
			.qtypes = put_qtypes(t, p),
			.deny_ttl_s = p->deny_ttl_s,
			.limits = put_limits(t, &p->limits),
		};
		t->n_sees += p->n_sees;
	}
}

/* ---- what bindings may add ---- */

static int by_number(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

static void layout_tasks(struct layout *o)
{
	const struct model *m = o->m;
	struct tables *t = o->t;
	size_t n = 0;
	for (uint32_t i = 0; i < m->n_profiles; i++)
		n += m->profiles[i].n_tasks_layers;
	t->tasks = arena_array(&t->arena, m->n_profiles, sizeof(*t->tasks));
	t->within = arena_array(&t->arena, n + 1, sizeof(*t->within));
	for (uint32_t i = 0; i < m->n_profiles; i++) {
		const struct profile *p = &m->profiles[i];
		uint32_t *w = t->within + t->n_within;
		if (!p->tasks_entries && !p->tasks_max_ttl_s && !p->n_tasks_layers)
			continue;
		for (uint32_t k = 0; k < p->n_tasks_layers; k++)
			w[k] = o->layer_of[p->tasks_layers[k]];
		qsort(w, p->n_tasks_layers, sizeof(*w), by_number);
		t->tasks[t->n_tasks++] = (struct fmt_task){ .profile = i,
							    .entries = p->tasks_entries,
							    .max_ttl_s = p->tasks_max_ttl_s,
							    .within = (uint32_t)t->n_within,
							    .n_within = p->n_tasks_layers };
		t->n_within += p->n_tasks_layers;
	}
}

/* ---- all of it ---- */

static void layout_info(struct layout *o)
{
	const struct model *m = o->m;
	struct pool *s = &o->t->info_strings;
	const char *all = "";
	for (uint32_t i = 0; i < m->n_audience; i++)
		all = arena_printf(&o->t->arena, "%s%s\n", all, m->audience[i]);
	o->t->info = (struct fmt_info){ .revision = pool_text(s, m->revision),
					.presets_version = pool_text(s, m->presets_version),
					.compiler = pool_text(s, "cx-policyc " CX_VERSION),
					.audience = pool_text(s, all) };
	o->t->serial = m->serial;
}

static struct pool *const *all_pools(struct tables *t, struct pool *v[10])
{
	v[0] = &t->sets;
	v[1] = &t->ports;
	v[2] = &t->http;
	v[3] = &t->qtypes;
	v[4] = &t->bindsets;
	v[5] = &t->strings;
	v[6] = &t->info_strings;
	v[7] = &t->term_strings;
	v[8] = &t->limits;
	v[9] = NULL;
	return v;
}

int layout_and_write(const struct model *m, uint64_t required, uint8_t **bytes, size_t *len)
{
	struct tables t = { 0 };
	struct layout o = { .m = m, .t = &t };
	struct pool *v[10];
	arena_init(&t.arena);
	arena_init(&t.scratch);
	for (struct pool *const *p = all_pools(&t, v); *p; p++)
		pool_init(*p);
	pool_text(&t.strings, "");
	pool_text(&t.info_strings, "");
	pool_text(&t.term_strings, "");
	layout_layers(&o);
	layout_patterns(&o);
	layout_rules(&o);
	layout_layer_ports(&o);
	layout_profiles(&o);
	layout_tasks(&o);
	tables_sources(&t, m);
	tables_dns(&t, m);
	tables_proxies(&t, m);
	layout_cidrs(&o);
	layout_names(&o);
	layout_info(&o);
	tables_texts(&t, m, o.first_rule);
	int rc = tables_place(&t);
	if (rc == 0)
		rc = tables_write(&t, required, bytes, len);
	if (rc != 0)
		diag_error(m->diags, (struct pos){ 0 }, "too-large",
			   "the policy does not fit the file format (or memory)");
	for (struct pool *const *p = all_pools(&t, v); *p; p++)
		pool_fini(*p);
	arena_fini(&t.arena);
	return rc;
}
