/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of two policies about the same names and prefixes, compared. Must never call a widening
 * anything else.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/changes.h"
#include "shared/compile/dump.h"

/* A name or prefix of a layer, and one rule about it. */
struct item {
	const uint8_t *key; /* wire form, or 16 octets of an address */
	uint32_t rule;
	uint8_t len;  /* of the key; of a prefix: its length */
	uint8_t kind; /* RULE_EXACT, RULE_BELOW, RULE_CIDR */
};

/* ---- what a rule says ---- */

static const char *terms_of(struct diff *d, struct side *s, uint32_t rule)
{
	struct out o = { 0 };
	if (s->terms[rule])
		return s->terms[rule];
	if (s->w.p->rules[rule].flags & RULE_DENY)
		out_text(&o, ", deny");
	dump_terms(&o, &s->w, rule, ", ");
	if (walk_term(&s->w, TERM_RULE_ADDITION, rule))
		out_text(&o, ", through custom_resolvers");
	return s->terms[rule] = change_keep(d, &o);
}

static const char *shown(const char *terms)
{
	return *terms ? terms + 2 : "https on 443, http on 80";
}

static const char *subject_of(struct diff *d, const struct side *s, const struct item *i)
{
	char buf[NAME_TEXT_SIZE];
	struct name name;
	uint8_t wire[NAME_MAX_WIRE + 1] = { 0 };
	if (i->kind == RULE_CIDR) {
		struct prefix p = walk_prefix(&s->w, i->rule);
		return arena_text(&d->arena, buf, prefix_to_text(&p, buf));
	}
	memcpy(wire, i->key, i->len);
	if (name_from_wire(&name, wire, i->len + (size_t)1, NULL) != NAME_OK)
		return "?";
	name_to_text(&name, buf);
	return arena_printf(&d->arena, "%s%s", i->kind == RULE_BELOW ? "*." : "", buf);
}

/* ---- limits ---- */

static void take_limit(struct limits *out, const char *key, size_t n, const char *value)
{
#define X(field, name, octets, dflt)                                                               \
	if (strlen(name) == n && strncmp(name, key, n) == 0)                                       \
		(void)parse_limit(value, octets, strcmp(name, "concurrent") == 0, &out->field);
	LIMITS(X)
#undef X
}

/* From "limits: {key: value, key: value}"; NULL: none. */
static struct limits limits_of(struct diff *d, const char *text)
{
	struct limits l = { 0 };
	const char *s = text ? strchr(text, '{') : NULL;
	while (s && *s && *s != '}') {
		s += strspn(s, "{, ");
		size_t key = strcspn(s, ":}"), all = strcspn(s, ",}");
		if (s[key] != ':' || key + 2 > all)
			break;
		take_limit(&l, s, key, arena_text(&d->arena, s + key + 2, all - key - 2));
		s += all;
	}
	return l;
}

static unsigned compare_limit(const struct limit *a, const struct limit *b)
{
	if (!a->set || !b->set)
		return a->set == b->set ? EFFECT_NONE
		       : a->set         ? 1u << EFFECT_WIDENED
					: 1u << EFFECT_NARROWED;
	__extension__ typedef unsigned __int128 u128;
	u128 x = (u128)a->amount * (b->period_s ? b->period_s : 1);
	u128 y = (u128)b->amount * (a->period_s ? a->period_s : 1);
	unsigned e = x < y || a->burst < b->burst ? 1u << EFFECT_WIDENED : 0;
	return e | (x > y || a->burst > b->burst ? 1u << EFFECT_NARROWED : 0);
}

unsigned compare_limits(struct diff *d, const char *a, const char *b)
{
	struct limits x = limits_of(d, a), y = limits_of(d, b);
	unsigned e = 0;
#define X(field, key, octets, dflt) e |= compare_limit(&x.field, &y.field);
	LIMITS(X)
#undef X
	return e;
}

enum effect worst_effect(unsigned effects)
{
	return effects & 1u << EFFECT_WIDENED    ? EFFECT_WIDENED
	       : effects & 1u << EFFECT_NARROWED ? EFFECT_NARROWED
						 : EFFECT_NONE;
}

/* ---- two rules about one subject ---- */

struct ports {
	const uint32_t *v;
	uint32_t n;
};

static struct ports ports_of(const struct side *s, const struct fmt_rule *r, uint32_t *usual,
			     unsigned bit)
{
	const struct policy *p = s->w.p;
	if (!(r->protocols & bit))
		return (struct ports){ NULL, 0 };
	if (r->ports != FMT_NONE)
		return (struct ports){ p->ports + r->ports + 1, p->ports[r->ports] };
	*usual = bit == PROTO_HTTPS ? 443u | 443u << 16 : 80u | 80u << 16;
	return (struct ports){ usual, bit == PROTO_TCP ? 0 : 1 };
}

/* Is every range of a inside one of b? Ranges of a rule are merged, so that none spans two. */
static bool ports_within(struct ports a, struct ports b)
{
	for (uint32_t i = 0; i < a.n; i++) {
		bool in = false;
		for (uint32_t k = 0; k < b.n && !in; k++)
			in = (a.v[i] & 0xffff) >= (b.v[k] & 0xffff) && a.v[i] >> 16 <= b.v[k] >> 16;
		if (!in)
			return false;
	}
	return true;
}

static unsigned compare_ports(const struct diff *d, const struct fmt_rule *x,
			      const struct fmt_rule *y)
{
	unsigned e = 0;
	for (unsigned bit = 1; bit <= PROTO_TCP; bit <<= 1) {
		uint32_t usual_x, usual_y;
		struct ports a = ports_of(&d->a, x, &usual_x, bit),
			     b = ports_of(&d->b, y, &usual_y, bit);
		e |= ports_within(b, a) ? 0 : 1u << EFFECT_WIDENED;
		e |= ports_within(a, b) ? 0 : 1u << EFFECT_NARROWED;
	}
	return e;
}

/* The http part of a rule's text: what cannot be told from its rules alone is taken as widened. */
static unsigned compare_http(const struct diff *d, const struct fmt_rule *x,
			     const struct fmt_rule *y)
{
	if (x->http == FMT_NONE || y->http == FMT_NONE)
		return x->http == y->http
			       ? 0
			       : 1u << (y->http == FMT_NONE ? EFFECT_WIDENED : EFFECT_NARROWED);
	struct out a = { 0 }, b = { 0 };
	dump_http(&a, &d->a.w, x->http);
	dump_http(&b, &d->b.w, y->http);
	/* rules added or taken away at the end can be told; the rest may go both ways */
	bool same = strcmp(out_get(&a), out_get(&b)) == 0;
	bool more = strlen(out_get(&b)) > strlen(out_get(&a));
	bool starts = more && strncmp(out_get(&a), out_get(&b), a.n - 1) == 0 &&
		      out_get(&b)[a.n - 1] == ',';
	bool ends = !more && !same && strncmp(out_get(&a), out_get(&b), b.n - 1) == 0 &&
		    out_get(&a)[b.n - 1] == ',';
	out_fini(&a);
	out_fini(&b);
	if (same)
		return 0;
	return starts ? 1u << EFFECT_WIDENED
	       : ends ? 1u << EFFECT_NARROWED
		      : 1u << EFFECT_WIDENED | 1u << EFFECT_NARROWED;
}

static unsigned compare_flag(unsigned x, unsigned y)
{
	return (y & ~x ? 1u << EFFECT_WIDENED : 0) | (x & ~y ? 1u << EFFECT_NARROWED : 0);
}

static unsigned compare_rules(struct diff *d, uint32_t old, uint32_t new)
{
	const struct fmt_rule *x = &d->a.w.p->rules[old], *y = &d->b.w.p->rules[new];
	const unsigned flags = RULE_PRIVATE | RULE_UNSEEN;
	if ((x->flags ^ y->flags) & RULE_DENY)
		return 1u << (x->flags & RULE_DENY ? EFFECT_WIDENED : EFFECT_NARROWED);
	if (x->flags & RULE_DENY)
		return 0;
	unsigned e = compare_ports(d, x, y) | compare_http(d, x, y) |
		     compare_flag(x->upgrades, y->upgrades) |
		     compare_flag(x->flags & flags, y->flags & flags);
	int64_t until_x = x->expires ? x->expires : INT64_MAX,
		until_y = y->expires ? y->expires : INT64_MAX;
	if (until_x != until_y)
		e |= 1u << (until_y > until_x ? EFFECT_WIDENED : EFFECT_NARROWED);
	e |= compare_limits(d, walk_term(&d->a.w, TERM_RULE_LIMITS, old),
			    walk_term(&d->b.w, TERM_RULE_LIMITS, new));
	if (!walk_term(&d->a.w, TERM_RULE_ADDITION, old) !=
	    !walk_term(&d->b.w, TERM_RULE_ADDITION, new))
		e |= 1u << EFFECT_WIDENED; /* another resolver answers */
	return e;
}

/* ---- what is written beside rules ---- */

static void compare_owner(struct diff *d, const struct item *a, const struct item *b)
{
	const struct fmt_rule_info *x = &d->a.w.p->rule_info[a->rule],
				   *y = &d->b.w.p->rule_info[b->rule];
	const struct {
		const char *what;
		uint32_t a, b;
	} texts[] = { { "owner", x->owner, y->owner },
		      { "reason", x->reason, y->reason },
		      { "data", x->data, y->data },
		      { "if_unreachable", x->if_unreachable, y->if_unreachable },
		      { "environment", x->environment, y->environment },
		      { "added on", x->added, y->added },
		      { "review_by", x->review_by, y->review_by },
		      { "labels", x->labels, y->labels },
		      { "lets out", x->out, y->out } };
	if (d->told[0] == a->rule && d->told[1] == b->rule)
		return;
	d->told[0] = a->rule;
	d->told[1] = b->rule;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *s = walk_info(&d->a.w, texts[i].a), *t = walk_info(&d->b.w, texts[i].b);
		if (strcmp(s, t) == 0)
			continue;
		const char *subject = walk_is_list(&d->b.w, b->rule)
					      ? walk_info(&d->b.w, y->pattern)
					      : subject_of(d, &d->b, b);
		change_add(d, texts[i].what, subject, EFFECT_NONE, change_from_to(d, s, t));
	}
}

/* ---- the entries of a layer ---- */

static int compare_keys(const struct item *x, const struct item *y)
{
	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	size_t n = x->kind == RULE_CIDR ? 16 : x->len < y->len ? x->len : y->len;
	int c = memcmp(x->key, y->key, n);
	return c ? c : (x->len > y->len) - (x->len < y->len);
}

static int by_key(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	int c = compare_keys(x, y);
	return c ? c : (x->rule > y->rule) - (x->rule < y->rule);
}

static struct item *items_of(struct diff *d, struct side *s, uint32_t layer, size_t *n)
{
	const struct walk *w = &s->w;
	const struct policy *p = w->p;
	struct item *v = NULL;
	size_t most = 0;
	*n = 0;
	if (layer == FMT_NONE)
		return NULL;
	for (uint32_t i = w->layer_at[layer]; i < w->layer_at[layer + 1]; i++)
		most += 1 + (w->first_name[w->order[i] + 1] - w->first_name[w->order[i]]);
	v = arena_array(&d->arena, most + 1, sizeof(*v));
	for (uint32_t i = w->layer_at[layer]; i < w->layer_at[layer + 1]; i++) {
		uint32_t r = w->order[i];
		uint8_t kind = p->rules[r].flags & (RULE_EXACT | RULE_BELOW | RULE_CIDR);
		if (kind == RULE_CIDR && w->cidr[r] != FMT_NONE)
			v[(*n)++] = (struct item){ p->cidrs[w->cidr[r]].addr, r,
						   (uint8_t)p->cidrs[w->cidr[r]].len, kind };
		for (uint64_t k = w->first_name[r]; kind != RULE_CIDR && k < w->first_name[r + 1];
		     k++)
			v[(*n)++] = (struct item){ p->blob + w->names[k].rec + 4, r,
						   w->names[k].len, kind };
	}
	qsort(v, *n, sizeof(*v), by_key);
	return v;
}

static void add_item(struct diff *d, struct side *s, const struct item *i, bool added)
{
	bool deny = s->w.p->rules[i->rule].flags & RULE_DENY;
	change_add(d, added ? "added" : "removed", subject_of(d, s, i),
		   added != deny ? EFFECT_WIDENED : EFFECT_NARROWED,
		   shown(terms_of(d, s, i->rule)));
}

static bool says(struct diff *d, struct side *s, const struct item *v, size_t n, const char *terms)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(terms_of(d, s, v[i].rule), terms) == 0)
			return true;
	return false;
}

static void compare_one(struct diff *d, const struct item *a, const struct item *b)
{
	const char *x = terms_of(d, &d->a, a->rule), *y = terms_of(d, &d->b, b->rule);
	compare_owner(d, a, b);
	if (strcmp(x, y) == 0)
		return;
	unsigned e = compare_rules(d, a->rule, b->rule);
	const char *what = e == 1u << EFFECT_WIDENED    ? "widened"
			   : e == 1u << EFFECT_NARROWED ? "narrowed"
							: "changed";
	d->meant = true;
	change_add(d, what, subject_of(d, &d->b, b), worst_effect(e),
		   change_from_to(d, shown(x), shown(y)));
}

/* The rules about one subject on both sides; mostly one each. */
static void compare_groups(struct diff *d, const struct item *a, size_t na, const struct item *b,
			   size_t nb)
{
	if (na == 1 && nb == 1) {
		compare_one(d, a, b);
		return;
	}
	for (size_t i = 0; i < nb; i++)
		if (!says(d, &d->a, a, na, terms_of(d, &d->b, b[i].rule)))
			add_item(d, &d->b, &b[i], true);
	for (size_t i = 0; i < na; i++)
		if (!says(d, &d->b, b, nb, terms_of(d, &d->a, a[i].rule)))
			add_item(d, &d->a, &a[i], false);
}

static size_t group(const struct item *v, size_t n)
{
	size_t k = n > 0;
	while (k < n && compare_keys(&v[0], &v[k]) == 0)
		k++;
	return k;
}

void compare_entries(struct diff *d, uint32_t old, uint32_t new)
{
	size_t na, nb;
	const struct item *a = items_of(d, &d->a, old, &na), *b = items_of(d, &d->b, new, &nb);
	d->told[0] = d->told[1] = FMT_NONE;
	while (na || nb) {
		size_t ga = group(a, na), gb = group(b, nb);
		int c = !na ? 1 : !nb ? -1 : compare_keys(a, b);
		if (c == 0)
			compare_groups(d, a, ga, b, gb);
		for (size_t i = 0; c < 0 && i < ga; i++)
			add_item(d, &d->a, &a[i], false);
		for (size_t i = 0; c > 0 && i < gb; i++)
			add_item(d, &d->b, &b[i], true);
		a += c <= 0 ? ga : 0;
		na -= c <= 0 ? ga : 0;
		b += c >= 0 ? gb : 0;
		nb -= c >= 0 ? gb : 0;
	}
}
