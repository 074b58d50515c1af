/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what the compiler criticises (lint.h), and the checks of entries: those that repeat,
 * contradict or hide each other, dates that have passed. Must never change the model.
 */
#include "shared/compile/lint.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/hash.h"

/* ---- findings ----------------------------------------------------------------------------------- */

static const struct {
	const char *code;
	enum diag_severity severity;
	bool lifts;
} lints[] = {
#define X(name, code, severity, lifts) { code, severity, lifts },
	LINTS(X)
#undef X
};

const char *lint_code_text(enum lint_code c)
{
	return lints[c].code;
}

const char *lint_liftable(size_t i)
{
	for (size_t c = 0; c < N_LINTS; c++)
		if (lints[c].lifts && i-- == 0)
			return lints[c].code;
	return NULL;
}

bool is_lifted(const char *lift, const char *code)
{
	size_t n = strlen(code);
	for (const char *s = strstr(lift, code); s; s = strstr(s + 1, code))
		if (s > lift && s[-1] == ' ' && s[n] == ' ')
			return true;
	return false;
}

static bool lifts(const char *lift, enum lint_code c)
{
	return *lift && lints[c].lifts && is_lifted(lift, lints[c].code);
}

bool lint_say(struct build *b, struct pos at, enum lint_code c, const char *lift, const char *fmt,
	      ...)
{
	va_list ap;
	if (lifts(lift, c))
		return false;
	va_start(ap, fmt);
	diag_va(b->d, at, lints[c].severity, lints[c].code, fmt, ap);
	va_end(ap);
	return true;
}

bool lint_say_some(struct build *b, struct pos at, enum lint_code c, const char *lift,
		   const char *fmt, ...)
{
	va_list ap;
	if (lifts(lift, c) || b->alike[c] > MAX_ALIKE)
		return false;
	if (b->alike[c]++ == MAX_ALIKE) {
		diag(b->d, at, lints[c].severity, lints[c].code,
		     "here and below there are more of these, which are not shown");
		return true;
	}
	va_start(ap, fmt);
	diag_va(b->d, at, lints[c].severity, lints[c].code, fmt, ap);
	va_end(ap);
	return true;
}

/* ---- entries by what they are about ------------------------------------------------------------- */

/* What an entry is about: layer, kind, and the name, prefix or list. */
struct subject {
	uint32_t layer;
	uint8_t kind;
	size_t n;
	const void *bytes;
};

static struct subject subject_of(const struct entry *e)
{
	struct subject s = { e->layer, e->kind, e->wire_len, e->wire };
	if (e->kind == ENTRY_CIDR) {
		s.bytes = e->prefix;
		s.n = sizeof(e->prefix->a) + 1;
	} else if (e->kind == ENTRY_LIST) {
		s.bytes = e->list->path;
		s.n = strlen(e->list->path);
	}
	return s;
}

/* In words: what a subject points to has readable octets behind it. */
static uint64_t hash_of(const struct subject *s)
{
	return hash_label((uint64_t)s->layer << 8 | s->kind, s->bytes, s->n);
}

static bool same_subject(const struct subject *x, const struct subject *y)
{
	return x->layer == y->layer && x->kind == y->kind && x->n == y->n &&
	       memcmp(x->bytes, y->bytes, x->n) == 0;
}

/* The slot of a subject: that of its first entry, or a free one. */
static uint32_t *slot_of(const struct lookup *l, const struct subject *s)
{
	size_t at = hash_of(s) & l->mask;
	for (; l->slots[at]; at = (at + 1) & l->mask) {
		struct subject have = subject_of(&l->b->entries[l->slots[at] - 1]);
		if (same_subject(s, &have))
			break;
	}
	return &l->slots[at];
}

static void lookup_init(struct lookup *l, struct build *b)
{
	size_t n = 16;
	while (n < b->n_entries * 2)
		n *= 2;
	*l = (struct lookup){ .b = b, .mask = n - 1 };
	l->slots = arena_array(b->a, n, sizeof(*l->slots));
	l->next = arena_array(b->a, b->n_entries + 1, sizeof(*l->next));
}

const struct entry *entry_about(const struct lookup *l, uint32_t layer, enum entry_kind kind,
				const uint8_t *wire, size_t n)
{
	struct subject s = { layer, (uint8_t)kind, n, wire };
	uint32_t i = *slot_of(l, &s);
	return i ? &l->b->entries[i - 1] : NULL;
}

/* ---- duplicates and contradictions -------------------------------------------------------------- */

static const char *lift_of(const struct entry *e)
{
	return e->terms->lint_allow;
}

static void compare_twins(struct build *b, const struct entry *old, const struct entry *e)
{
	const char *file = diags_file_name(b->d, old->pos.file);
	if (old->deny != e->deny) {
		const struct entry *allow = e->deny ? old : e;
		const struct entry *deny = e->deny ? e : old;
		lint_say(b, allow->pos, LINT_SHADOWED, lift_of(allow),
			 "\"%.100s\" is denied at %s:%u: this entry permits nothing",
			 allow->pattern, diags_file_name(b->d, deny->pos.file), deny->pos.line);
	} else if (memcmp(old->id, e->id, RULE_ID_SIZE) == 0) {
		lint_say(b, e->pos, LINT_DUPLICATE, lift_of(e),
			 "\"%.100s\" stands already at %s:%u", e->pattern, file, old->pos.line);
	}
}

static void add_to_lookup(struct lookup *l, struct build *b, uint32_t i)
{
	const struct entry *e = &b->entries[i];
	struct subject s = subject_of(e);
	uint32_t *slot = slot_of(l, &s);
	if (*slot && !e->preset)
		compare_twins(b, &b->entries[*slot - 1], e);
	l->next[i] = *slot;
	*slot = i + 1;
	l->n_lists += e->kind == ENTRY_LIST;
	l->n_below += e->kind == ENTRY_BELOW && !e->deny;
	l->n_denies += e->deny && e->layer != 0;
	l->n_never += e->layer == 0;
}

/* ---- what stands above a name ------------------------------------------------------------------- */

/* An entry of the layer about names below wire[0..n), that denies or not; NULL: none. */
static const struct entry *wildcard_at(const struct lookup *l, uint32_t layer, const uint8_t *wire,
				       size_t n, bool deny)
{
	struct subject s = { layer, ENTRY_BELOW, n, wire };
	for (uint32_t i = *slot_of(l, &s); i; i = l->next[i - 1])
		if (l->b->entries[i - 1].deny == deny)
			return &l->b->entries[i - 1];
	return NULL;
}

/* The nearest wildcard of the layer above a name (not at it). */
const struct entry *wildcard_above(const struct lookup *l, uint32_t layer, const uint8_t *wire,
				   size_t n, bool deny)
{
	for (size_t at = wire[0] + 1u; at < n; at += wire[at] + 1u) {
		const struct entry *e = wildcard_at(l, layer, wire + at, n - at, deny);
		if (e)
			return e;
	}
	return NULL;
}

static bool covers_ports(const struct terms *t, const struct port_range *r)
{
	for (uint32_t i = 0; i < t->n_ports; i++)
		if (t->ports[i].lo <= r->lo && r->hi <= t->ports[i].hi)
			return true;
	return false;
}

/* Does the exact entry refuse what the wildcard above it permits? */
static bool permits_less(const struct terms *exact, const struct terms *wild)
{
	if (wild->protocols & ~exact->protocols || (exact->n_http && !wild->n_http))
		return true;
	if (wild->n_ports == 0)
		return exact->n_ports != 0;
	for (uint32_t i = 0; i < wild->n_ports; i++)
		if (!covers_ports(exact, &wild->ports[i]))
			return true;
	return false;
}

static bool same_ranges(const struct terms *x, const struct terms *y)
{
	return x->n_ports == y->n_ports &&
	       (x->n_ports == 0 || memcmp(x->ports, y->ports, x->n_ports * sizeof(*x->ports)) == 0);
}

/* Does an entry permit just what the other does, as far as can be seen without comparing rules? */
static bool permits_same(const struct terms *x, const struct terms *y)
{
	return x->protocols == y->protocols && x->upgrades == y->upgrades &&
	       x->private_ok == y->private_ok && x->addition == y->addition && !x->n_http &&
	       !y->n_http && !x->limits && !y->limits && x->expires == y->expires &&
	       same_ranges(x, y);
}

/* An exact entry, or a longer wildcard, below a wildcard of the same profile. */
static void check_below(struct build *b, const struct lookup *l, const struct entry *e)
{
	const struct entry *w =
		l->n_below ? wildcard_above(l, e->layer, e->wire, e->wire_len, false) : NULL;
	if (!w)
		return;
	if (permits_less(e->terms, w->terms))
		lint_say(b, e->pos, LINT_NARROWER, lift_of(e),
			 "\"%.100s\" permits less than \"%.100s\" (line %u), which it replaces for "
			 "%s",
			 e->pattern, w->pattern, w->pos.line,
			 e->kind == ENTRY_EXACT ? "this name" : "these names");
	else if (permits_same(e->terms, w->terms) &&
		 !wildcard_above(l, e->layer, e->wire, e->wire_len, true))
		lint_say(b, e->pos, LINT_REDUNDANT, lift_of(e),
			 "\"%.100s\" permits what \"%.100s\" (line %u) permits already", e->pattern,
			 w->pattern, w->pos.line);
}

/* An allow that opens what a deny of the same profile closes. */
static bool check_lifted_deny(struct build *b, const struct lookup *l, const struct entry *e,
			      struct pos at, const uint8_t *wire, size_t n)
{
	const struct entry *deny = l->n_denies ? wildcard_above(l, e->layer, wire, n, true) : NULL;
	if (!deny || is_lifted(lift_of(deny), lint_code_text(LINT_DENY_LIFTED)))
		return false;
	return lint_say(b, at, LINT_DENY_LIFTED, lift_of(e),
			"this lifts the deny of \"%.100s\" (line %u); if that is meant, say so: "
			"lint: {allow: [deny-lifted], why: ...}",
			deny->pattern, deny->pos.line);
}

static void check_never(struct build *b, const struct lookup *l, const struct entry *e)
{
	if (!l->n_never)
		return;
	const struct entry *never = wildcard_above(l, 0, e->wire, e->wire_len, true);
	if (!never)
		never = entry_about(l, 0, e->kind, e->wire, e->wire_len);
	if (never)
		lint_say(b, e->pos, LINT_SHADOWED, lift_of(e),
			 "\"%.100s\" of `never` (line %u) beats this entry: it permits nothing",
			 never->pattern, never->pos.line);
}

enum { MAX_LIST_REPORTS = 20 };

static void check_list_names(struct build *b, const struct lookup *l, const struct entry *e)
{
	const uint8_t *p = e->list->bytes;
	unsigned reports = 0;
	if (!l->n_denies)
		return;
	for (size_t i = 0; i < e->list->n && reports < MAX_LIST_REPORTS; i++, p += p[1] + 2u) {
		struct pos at = { e->list->file, e->list->lines[i], 1 };
		reports += check_lifted_deny(b, l, e, at, p + 2, p[1]);
	}
}

static void check_entry(struct build *b, const struct lookup *l, const struct entry *e)
{
	if (e->deny || e->preset)
		return;
	if (e->kind == ENTRY_LIST) {
		check_list_names(b, l, e);
	} else if (e->kind != ENTRY_CIDR) {
		check_below(b, l, e);
		check_lifted_deny(b, l, e, e->pos, e->wire, e->wire_len);
		check_never(b, l, e);
	}
}

/* ---- dates and raw TCP -------------------------------------------------------------------------- */

static bool is_before(const char *date, const char *other)
{
	return *date && *other && strcmp(date, other) < 0;
}

/* Codes that begin with "date-" are never made errors: a build must not break because time goes by. */
static void check_dates(struct build *b, const struct entry *e)
{
	int64_t when, now = b->o->now_s;
	const struct terms *t = e->terms;
	if (t->expires && t->expires <= now)
		lint_say(b, e->pos, LINT_DATE_EXPIRED, lift_of(e),
			 "the entry has expired: it permits nothing");
	if (*t->review_by && time_from_text(t->review_by, strlen(t->review_by), false, &when) &&
	    when <= now)
		lint_say(b, e->pos, LINT_DATE_REVIEW, lift_of(e),
			 "the entry was to be reviewed by %s", t->review_by);
	if (is_before(t->review_by, t->added))
		lint_say(b, e->pos, LINT_DATES_REVERSED, lift_of(e),
			 "the entry was to be reviewed by %s, before it was added (%s)",
			 t->review_by, t->added);
	if (t->expires && *t->added && time_from_text(t->added, strlen(t->added), false, &when) &&
	    t->expires <= when)
		lint_say(b, e->pos, LINT_DATES_REVERSED, lift_of(e),
			 "the entry expires before it was added (%s)", t->added);
}

static bool has_wildcard(const struct entry *e)
{
	const uint8_t *p = e->kind == ENTRY_LIST ? e->list->bytes : NULL;
	for (size_t i = 0; p && i < e->list->n; i++, p += p[1] + 2u)
		if (p[0])
			return true;
	return e->kind == ENTRY_BELOW;
}

static void check_wildcard_tcp(struct build *b, const struct entry *e)
{
	if (!e->deny && e->terms->protocols & PROTO_TCP && has_wildcard(e))
		lint_say(b, e->pos, LINT_WILDCARD_TCP, lift_of(e),
			 "raw TCP to whatever \"%.100s\" resolves to: nothing is read on these "
			 "connections, and whoever answers for the names chooses the addresses",
			 e->pattern);
}

/* ---- all ---------------------------------------------------------------------------------------- */

void lint_all(struct build *b)
{
	struct lookup l;
	lookup_init(&l, b);
	for (size_t i = 0; i < b->n_entries; i++)
		add_to_lookup(&l, b, (uint32_t)i);
	bool suffixes = l.n_below || l.n_denies || l.n_never;
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct entry *e = &b->entries[i];
		if (suffixes)
			check_entry(b, &l, e);
		check_hosts(b, &l, e);
		if (e->terms == &b->plain_allow)
			continue;
		check_dates(b, e);
		check_wildcard_tcp(b, e);
	}
	check_companions(b, &l);
	check_credentials(b, &l);
	check_provenance(b);
	check_limits(b);
	check_environments(b);
	check_zones(b);
	check_used_zones(b);
	check_reachable(b);
	check_overlaps(b);
}
