/* SPDX-License-Identifier: Apache-2.0 */
/* Two policies compared (diff.h). Must never call a change the same, or a widening anything else. */
#include "shared/compile/diff.h"

#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/dump.h"

enum effect { EFFECT_NONE, EFFECT_NARROWED, EFFECT_WIDENED };

struct change {
	const char *where; /* "network", "profile x", "never", "preset:x", "policy" */
	const char
		*what; /* added, removed, widened, narrowed, changed, limits, presets, owner ... */
	const char *subject; /* the entry; "" if it is about the whole */
	const char *detail;
	enum effect effect;
};

/* A name or prefix of a layer, and one rule about it. */
struct item {
	const uint8_t *key; /* wire form, or 16 octets of an address */
	uint32_t rule;
	uint8_t len;  /* of the key; of a prefix: its length */
	uint8_t kind; /* RULE_EXACT, RULE_BELOW, RULE_CIDR */
};

struct side {
	struct walk w;
	const char **terms; /* [n_rules] what each rule says, made when asked for */
	uint32_t *seen_by;  /* [n_layers] how many profiles see it */
};

struct diff {
	struct side a, b; /* old, new */
	struct arena arena;
	struct change *v;
	size_t n, cap;
	const char *where;
	bool meant;       /* some change is more than what is written beside rules */
	uint32_t told[2]; /* the last pair of rules whose owners were compared */
};

static void add(struct diff *d, const char *what, const char *subject, enum effect e,
		const char *detail)
{
	d->v = arena_grow(&d->arena, d->v, d->n, &d->cap, sizeof(*d->v));
	d->v[d->n++] = (struct change){ d->where, what, subject, detail, e };
	d->meant = d->meant || e != EFFECT_NONE;
}

static const char *keep(struct diff *d, struct out *o)
{
	const char *s = arena_text(&d->arena, out_get(o), o->n);
	out_fini(o);
	return s;
}

static const char *from_to(struct diff *d, const char *from, const char *to)
{
	return arena_printf(&d->arena, "%s -> %s", *from ? from : "(none)", *to ? to : "(none)");
}

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
	return s->terms[rule] = keep(d, &o);
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

static unsigned compare_limits(struct diff *d, const char *a, const char *b)
{
	struct limits x = limits_of(d, a), y = limits_of(d, b);
	unsigned e = 0;
#define X(field, key, octets, dflt) e |= compare_limit(&x.field, &y.field);
	LIMITS(X)
#undef X
	return e;
}

static enum effect worst(unsigned effects)
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
		add(d, texts[i].what, subject, EFFECT_NONE, from_to(d, s, t));
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
	add(d, added ? "added" : "removed", subject_of(d, s, i),
	    added != deny ? EFFECT_WIDENED : EFFECT_NARROWED, shown(terms_of(d, s, i->rule)));
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
	add(d, what, subject_of(d, &d->b, b), worst(e), from_to(d, shown(x), shown(y)));
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

static void compare_entries(struct diff *d, uint32_t old, uint32_t new)
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

/* ---- profiles ---- */

static bool sees_name(struct diff *d, struct side *s, uint32_t profile, uint32_t kind,
		      const char *name)
{
	uint32_t n;
	const uint32_t *v = walk_sees(&s->w, profile, &n);
	(void)d;
	for (uint32_t i = 1; i < n; i++)
		if (s->w.p->layers[v[i]].kind == kind &&
		    strcmp(walk_layer_name(&s->w, v[i]), name) == 0)
			return true;
	return false;
}

/* Layers that `have` sees and `other` does not. */
static void compare_sees(struct diff *d, struct side *have, uint32_t profile, struct side *other,
			 uint32_t theirs, bool added)
{
	uint32_t n;
	const uint32_t *v = walk_sees(&have->w, profile, &n);
	for (uint32_t i = 1; i < n; i++) {
		uint32_t kind = have->w.p->layers[v[i]].kind;
		const char *name = walk_layer_name(&have->w, v[i]);
		if (sees_name(d, other, theirs, kind, name))
			continue;
		add(d, kind == LAYER_KIND_PRESET ? "presets" : "extends", name,
		    added ? EFFECT_WIDENED : EFFECT_NARROWED, added ? "added" : "removed");
	}
}

static const char *qtypes_of(struct diff *d, const struct side *s, const struct fmt_profile *f)
{
	struct out o = { 0 };
	const uint16_t *q = s->w.p->qtypes + f->qtypes;
	for (uint16_t i = 1; i <= q[0]; i++) {
		out_text(&o, i > 1 ? " " : "");
		out_qtype(&o, q[i]);
	}
	return keep(d, &o);
}

static bool qtypes_within(const uint16_t *a, const uint16_t *b)
{
	for (uint16_t i = 1, k = 1; i <= a[0]; i++) {
		while (k <= b[0] && b[k] < a[i])
			k++;
		if (k > b[0] || b[k] != a[i])
			return false;
	}
	return true;
}

static void compare_flags(struct diff *d, const struct fmt_profile *x, const struct fmt_profile *y)
{
	static const struct {
		unsigned bit;
		const char *what, *off, *on;
	} flags[] = { { PROFILE_OBSERVE, "mode", "enforce", "observe" },
		      { PROFILE_ECH_ALLOW, "tls.ech", "deny", "allow" } };
	for (size_t i = 0; i < 2; i++)
		if ((x->flags ^ y->flags) & flags[i].bit) {
			bool on = y->flags & flags[i].bit;
			add(d, flags[i].what, "", on ? EFFECT_WIDENED : EFFECT_NARROWED,
			    on ? from_to(d, flags[i].off, flags[i].on)
			       : from_to(d, flags[i].on, flags[i].off));
		}
	if (x->deny_ttl_s != y->deny_ttl_s) {
		add(d, "dns.deny_ttl", "", EFFECT_NONE,
		    arena_printf(&d->arena, "%us -> %us", x->deny_ttl_s, y->deny_ttl_s));
		d->meant = true;
	}
	const uint16_t *p = d->a.w.p->qtypes + x->qtypes, *q = d->b.w.p->qtypes + y->qtypes;
	bool less = qtypes_within(q, p), more = qtypes_within(p, q);
	if (!less || !more)
		add(d, "dns.query_types", "", less ? EFFECT_NARROWED : EFFECT_WIDENED,
		    from_to(d, qtypes_of(d, &d->a, x), qtypes_of(d, &d->b, y)));
}

/* A text without its key and without line feeds. */
static const char *flat(struct diff *d, const char *text)
{
	char *s = arena_text(&d->arena, text ? text : "", text ? strlen(text) : 0);
	size_t n = strlen(s);
	while (n && s[n - 1] == '\n')
		s[--n] = '\0';
	for (char *c = s; *c; c++)
		*c = *c == '\n' ? ' ' : *c;
	return s;
}

static void compare_texts(struct diff *d, uint32_t old, uint32_t new)
{
	static const struct {
		enum fmt_text_kind kind;
		const char *what;
		bool ordered; /* absent is less than present */
	} kinds[] = { { TERM_DNS, "dns", true },
		      { TERM_RESOLVERS, "resolvers", false },
		      { TERM_PROXY, "proxy", false },
		      { TERM_CREDENTIALS, "credentials", true },
		      { TERM_TASKS, "tasks", true } };
	const char *x = walk_term(&d->a.w, TERM_LIMITS, old),
		   *y = walk_term(&d->b.w, TERM_LIMITS, new);
	if (strcmp(x ? x : "", y ? y : "") != 0)
		add(d, "limits", "", worst(compare_limits(d, x, y)),
		    from_to(d, flat(d, x), flat(d, y)));
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		x = walk_term(&d->a.w, kinds[i].kind, old);
		y = walk_term(&d->b.w, kinds[i].kind, new);
		if (strcmp(x ? x : "", y ? y : "") == 0)
			continue;
		enum effect e = !kinds[i].ordered ? EFFECT_NONE
				: y               ? EFFECT_WIDENED
						  : EFFECT_NARROWED;
		add(d, kinds[i].what, "", e, from_to(d, flat(d, x), flat(d, y)));
		d->meant = true;
	}
}

static void set_where(struct diff *d, const char *kind, const char *name)
{
	bool network = strcmp(kind, "profile ") == 0 && strcmp(name, "default") == 0;
	d->where = network ? "network" : arena_printf(&d->arena, "%s%s", kind, name);
}

static void compare_profile(struct diff *d, uint32_t old, uint32_t new)
{
	const struct side *s = new == FMT_NONE ? &d->a : &d->b;
	uint32_t i = new == FMT_NONE ? old : new;
	set_where(d, "profile ", s->w.p->strings + s->w.p->profiles[i].name);
	if (old == FMT_NONE || new == FMT_NONE)
		add(d, new == FMT_NONE ? "removed" : "added", "",
		    new == FMT_NONE ? EFFECT_NARROWED : EFFECT_WIDENED, "the profile");
	if (old != FMT_NONE && new != FMT_NONE) {
		compare_flags(d, &d->a.w.p->profiles[old], &d->b.w.p->profiles[new]);
		compare_sees(d, &d->b, new, &d->a, old, true);
		compare_sees(d, &d->a, old, &d->b, new, false);
		compare_texts(d, old, new);
	}
	compare_entries(d, old == FMT_NONE ? FMT_NONE : walk_own_layer(&d->a.w, old),
			new == FMT_NONE ? FMT_NONE : walk_own_layer(&d->b.w, new));
}

static void compare_profiles(struct diff *d)
{
	const struct policy *p = d->a.w.p, *q = d->b.w.p;
	uint32_t i = 0, k = 0;
	compare_profile(d, p->h->default_profile, q->h->default_profile);
	while (i < p->n_profiles || k < q->n_profiles) {
		int c = i == p->n_profiles   ? 1
			: k == q->n_profiles ? -1
					     : strcmp(p->strings + p->profiles[i].name,
						      q->strings + q->profiles[k].name);
		bool dflt = (c <= 0 && i == p->h->default_profile) ||
			    (c >= 0 && k == q->h->default_profile);
		if (!dflt)
			compare_profile(d, c <= 0 ? i : FMT_NONE, c >= 0 ? k : FMT_NONE);
		i += c <= 0;
		k += c >= 0;
	}
}

/* ---- presets: only those that both sides use; one that comes or goes is said by the profiles ---- */

static void compare_presets(struct diff *d)
{
	const struct policy *p = d->a.w.p, *q = d->b.w.p;
	for (uint32_t i = 0; i < p->n_layers; i++)
		for (uint32_t k = 0; p->layers[i].kind == LAYER_KIND_PRESET && k < q->n_layers; k++)
			if (q->layers[k].kind == LAYER_KIND_PRESET &&
			    strcmp(walk_layer_name(&d->a.w, i), walk_layer_name(&d->b.w, k)) == 0) {
				set_where(d, "", walk_layer_name(&d->b.w, k));
				compare_entries(d, i, k);
			}
}

/* ---- lines: sources, credentials, services ---- */

static int by_line(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char **lines_of(struct diff *d, const char *text, size_t *n)
{
	size_t most = 1;
	for (const char *s = text ? text : ""; *s; s++)
		most += *s == '\n';
	const char **v = arena_array(&d->arena, most + 1, sizeof(*v));
	*n = 0;
	for (const char *s = text ? text : ""; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		const char *line = s + strspn(s, " ");
		if (strcspn(line, "\n"))
			v[(*n)++] = arena_text(&d->arena, line, strcspn(line, "\n"));
	}
	qsort(v, *n, sizeof(*v), by_line);
	return v;
}

static bool source_prefix(const char *line, struct prefix *out)
{
	size_t n = *line == '"' ? strcspn(line + 1, "\"") : 0;
	return n && prefix_from_text(out, line + 1, n) == PREFIX_OK;
}

/* Does another source take over the addresses of a line that is gone? */
static bool is_covered(const char *line, const char *const *v, size_t n)
{
	struct prefix p, q;
	if (!source_prefix(line, &p))
		return true;
	for (size_t i = 0; i < n; i++)
		if (source_prefix(v[i], &q) && q.len <= p.len && prefix_contains(&q, &p.a))
			return true;
	return false;
}

static void compare_lines(struct diff *d, const char *old, const char *new)
{
	size_t na, nb, i = 0, k = 0;
	const char **a = lines_of(d, old, &na), **b = lines_of(d, new, &nb);
	while (i < na || k < nb) {
		int c = i == na ? 1 : k == nb ? -1 : strcmp(a[i], b[k]);
		if (c < 0)
			add(d, "removed", a[i],
			    is_covered(a[i], b, nb) ? EFFECT_WIDENED : EFFECT_NARROWED, "");
		else if (c > 0)
			add(d, "added", b[k], EFFECT_WIDENED, "");
		i += c <= 0;
		k += c >= 0;
	}
}

static void compare_documents(struct diff *d)
{
	for (uint32_t i = 0;; i++) {
		const char *x = walk_term(&d->a.w, TERM_DOCUMENT, i),
			   *y = walk_term(&d->b.w, TERM_DOCUMENT, i);
		if (!x && !y)
			return;
		if (strcmp(x ? x : "", y ? y : "") != 0)
			add(d, "AuthorizationPolicy", "", EFFECT_WIDENED,
			    from_to(d, flat(d, x), flat(d, y)));
	}
}

/* ---- the policy as a whole ---- */

static void compare_root(struct diff *d)
{
	const struct policy *p = d->a.w.p, *q = d->b.w.p;
	const struct {
		const char *what;
		uint32_t a, b;
	} texts[] = { { "revision", p->info->revision, q->info->revision },
		      { "presets_version", p->info->presets_version, q->info->presets_version },
		      { "audience", p->info->audience, q->info->audience } };
	d->where = "policy";
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *x = walk_info(&d->a.w, texts[i].a), *y = walk_info(&d->b.w, texts[i].b);
		if (strcmp(x, y) != 0)
			add(d, texts[i].what, "", EFFECT_NONE, from_to(d, flat(d, x), flat(d, y)));
	}
	if (p->h->serial != q->h->serial)
		add(d, "serial", "", EFFECT_NONE,
		    arena_printf(&d->arena, "%llu -> %llu", (unsigned long long)p->h->serial,
				 (unsigned long long)q->h->serial));
}

static void compare_all(struct diff *d)
{
	compare_root(d);
	compare_profiles(d);
	d->where = "never";
	compare_entries(d, 0, 0);
	compare_presets(d);
	d->where = "sources";
	compare_lines(d, walk_note(&d->a.w, NOTE_SOURCES, 0), walk_note(&d->b.w, NOTE_SOURCES, 0));
	d->where = "credentials and services";
	compare_lines(d, walk_term(&d->a.w, TERM_POLICY, 0), walk_term(&d->b.w, TERM_POLICY, 0));
	d->where = "mesh";
	compare_documents(d);
	d->where = "policy";
	if (!d->meant && memcmp(d->a.w.p->h->meaning_digest, d->b.w.p->h->meaning_digest, 32) != 0)
		add(d, "meaning", "", EFFECT_NONE,
		    "it differs in what has no words here: which of equal entries is reported");
}

/* ---- printing ---- */

static const char *const effect_words[] = { "none", "narrowed", "widened" };

static size_t count(const struct diff *d, enum effect e)
{
	size_t n = 0;
	for (size_t i = 0; i < d->n; i++)
		n += d->v[i].effect == e;
	return n;
}

/* How many profiles see the entries that stand here. */
static uint32_t audience_of(const struct diff *d, const char *where)
{
	const char *name = strcmp(where, "network") == 0 ? "default" : where;
	name += strncmp(name, "profile ", 8) == 0 ? 8 : 0;
	for (uint32_t i = 1; i < d->b.w.p->n_layers; i++)
		if (strcmp(walk_layer_name(&d->b.w, i), name) == 0)
			return d->b.seen_by[i];
	return 0;
}

static char sign_of(const struct change *c)
{
	return c->effect == EFFECT_WIDENED ? '+' : c->effect == EFFECT_NARROWED ? '-' : '~';
}

static bool starts_part(const struct diff *d, size_t i)
{
	return i == 0 || strcmp(d->v[i].where, d->v[i - 1].where) != 0;
}

static void put_escaped(struct out *o, const char *s, const char *special)
{
	for (; *s; s++) {
		if (strchr(special, *s))
			out_text(o, "\\");
		out_bytes(o, s, 1);
	}
}

static void print_text(const struct diff *d, struct out *o)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		uint32_t n = starts_part(d, i) ? audience_of(d, c->where) : 0;
		if (starts_part(d, i))
			out_printf(o, "%s", c->where);
		if (n > 1)
			out_printf(o, " (seen by %u profiles)", n);
		out_printf(o, "%s  %c %s%s%s%s%s\n", starts_part(d, i) ? "\n" : "", sign_of(c),
			   c->what, *c->subject ? " " : "", c->subject, *c->detail ? ": " : "",
			   c->detail);
	}
	if (d->n)
		out_printf(o, "%zu changes: %zu widen (+), %zu narrow (-)\n", d->n,
			   count(d, EFFECT_WIDENED), count(d, EFFECT_NARROWED));
}

static void put_member(struct out *o, const char *sep, const char *key, const char *value)
{
	out_printf(o, "%s\"%s\":", sep, key);
	out_json(o, value, strlen(value));
}

static void print_json(const struct diff *d, struct out *o)
{
	out_text(o, "{\"changes\":[");
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		put_member(o, i ? ",\n{" : "\n{", "where", c->where);
		put_member(o, ",", "change", c->what);
		put_member(o, ",", "subject", c->subject);
		put_member(o, ",", "detail", c->detail);
		put_member(o, ",", "effect", effect_words[c->effect]);
		out_text(o, "}");
	}
	out_printf(o, "],\n\"widened\":%zu,\"narrowed\":%zu}\n", count(d, EFFECT_WIDENED),
		   count(d, EFFECT_NARROWED));
}

static void print_markdown(const struct diff *d, struct out *o)
{
	static const char special[] = "\\`*_{}[]<>()#+-.!|~&@:";
	out_printf(o, "**Policy: %zu changes, %zu widen, %zu narrow**\n", d->n,
		   count(d, EFFECT_WIDENED), count(d, EFFECT_NARROWED));
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		if (starts_part(d, i)) {
			out_text(o, "\n### ");
			put_escaped(o, c->where, special);
			out_text(o, "\n\n");
		}
		out_printf(o, "- %s%s%s", c->effect == EFFECT_WIDENED ? "**" : "", c->what,
			   c->effect == EFFECT_WIDENED ? "**" : "");
		out_text(o, *c->subject ? " " : "");
		put_escaped(o, c->subject, special);
		out_text(o, *c->detail ? ": " : "");
		put_escaped(o, c->detail, special);
		out_text(o, "\n");
	}
}

/* A workflow command ends at the line: nothing in it may bring a line of its own. */
static void put_command_text(struct out *o, const char *s)
{
	for (; *s; s++) {
		if (*s == '%' || *s == '\r' || *s == '\n')
			out_printf(o, "%%%02X", (unsigned char)*s);
		else
			out_bytes(o, s, 1);
	}
}

static void print_github(const struct diff *d, struct out *o)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		out_printf(o, "::%s title=policy %s::",
			   c->effect == EFFECT_WIDENED ? "warning" : "notice",
			   c->effect == EFFECT_NONE ? "changed" : effect_words[c->effect]);
		put_command_text(o, c->where);
		out_printf(o, ": %s ", c->what);
		put_command_text(o, c->subject);
		out_text(o, " ");
		put_command_text(o, c->detail);
		out_text(o, "\n");
	}
}

static void print(const struct diff *d, enum diag_format format, FILE *to)
{
	struct out o = { 0 };
	static void (*const forms[])(const struct diff *d, struct out *o) = {
		[DIAG_TEXT] = print_text,
		[DIAG_JSON] = print_json,
		[DIAG_GITHUB] = print_github,
		[DIAG_MARKDOWN] = print_markdown,
	};
	forms[format](d, &o);
	fwrite(out_get(&o), 1, o.n, to);
	out_fini(&o);
}

/* ---- both sides ---- */

static bool is_compiled(const char *path)
{
	char magic[8] = "";
	FILE *f = fopen(path, "re");
	bool yes = f && fread(magic, 1, sizeof(magic), f) == sizeof(magic) &&
		   memcmp(magic, FMT_MAGIC, sizeof(magic)) == 0;
	if (f)
		fclose(f);
	return yes;
}

static bool open_yaml(struct walk *w, const char *path, const struct compile_options *c, char *err,
		      size_t size)
{
	struct diags *d = diags_new();
	uint8_t *bytes = NULL;
	size_t len = 0;
	struct model *m = d ? compile_policy(&path, 1, c, d) : NULL;
	bool ok = m && diags_errors(d) == 0 &&
		  layout_and_write(m, required_features(m, c), &bytes, &len) == 0;
	if (d && !ok)
		diags_print(d, stderr, DIAG_TEXT);
	model_free(m);
	diags_free(d);
	if (ok)
		return walk_bytes(w, bytes, len, err, size);
	snprintf(err, size, "%s: the policy has errors", path);
	return false;
}

static bool open_side(struct side *s, const char *path, const struct compile_options *c)
{
	char err[512];
	bool ok = is_compiled(path) ? walk_open(&s->w, path, err, sizeof(err))
				    : open_yaml(&s->w, path, c, err, sizeof(err));
	if (!ok) {
		fprintf(stderr, "cx-policyc: %s\n", err);
		return false;
	}
	const struct policy *p = s->w.p;
	s->terms = arena_array(&s->w.arena, p->n_rules + (size_t)1, sizeof(*s->terms));
	s->seen_by = arena_array(&s->w.arena, p->n_layers, sizeof(*s->seen_by));
	for (uint32_t i = 0; i < p->n_sees; i++)
		if (p->sees[i].layer < p->n_layers)
			s->seen_by[p->sees[i].layer]++;
	return true;
}

enum diff_result policy_diff(const char *old_path, const char *new_path,
			     const struct compile_options *c, const struct diff_options *o,
			     FILE *to)
{
	struct diff d = { 0 };
	enum diff_result r = DIFF_CANNOT;
	if (!open_side(&d.a, old_path, c))
		return DIFF_CANNOT;
	if (open_side(&d.b, new_path, c)) {
		compare_all(&d);
		print(&d, o->format, to);
		r = (o->only_widened ? count(&d, EFFECT_WIDENED) : d.n) ? DIFF_DIFFER : DIFF_SAME;
		walk_close(&d.b.w);
	}
	walk_close(&d.a.w);
	arena_fini(&d.arena);
	return r;
}
