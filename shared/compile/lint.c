/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy as a whole: entries that repeat, contradict or hide each other, dates that have passed,
 * environments. Must never change the model.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/draft.h"

/* ---- entries by what they are about ------------------------------------------------------------- */

struct lookup {
	const struct build *b;
	uint32_t *slots; /* entry plus one; 0: free */
	uint32_t *next;  /* by entry: another one with the same subject, plus one */
	size_t mask;
	size_t n_below; /* wildcards that allow */
	size_t n_denies;
	size_t n_never;
};

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

static uint64_t hash_of(const struct subject *s)
{
	uint64_t h = 0xcbf29ce484222325u ^ ((uint64_t)s->layer << 8 | s->kind);
	const uint8_t *p = s->bytes;
	for (size_t i = 0; i < s->n; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h ^ h >> 29;
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

/* ---- duplicates and contradictions -------------------------------------------------------------- */

static bool lifted(const struct entry *e, const char *code)
{
	return is_lifted(e->terms->lint_allow, code);
}

static void compare_twins(struct build *b, const struct entry *old, const struct entry *e)
{
	const char *file = diags_file_name(b->d, old->pos.file);
	if (old->deny != e->deny) {
		const struct entry *allow = e->deny ? old : e;
		const struct entry *deny = e->deny ? e : old;
		if (!lifted(allow, "shadowed"))
			diag_warning(b->d, allow->pos, "shadowed",
				     "\"%.100s\" is denied at %s:%u: this entry permits nothing",
				     allow->pattern, diags_file_name(b->d, deny->pos.file),
				     deny->pos.line);
	} else if (memcmp(old->id, e->id, RULE_ID_SIZE) == 0 && !lifted(e, "duplicate")) {
		diag_warning(b->d, e->pos, "duplicate", "\"%.100s\" stands already at %s:%u",
			     e->pattern, file, old->pos.line);
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
static const struct entry *wildcard_above(const struct lookup *l, uint32_t layer,
					  const uint8_t *wire, size_t n, bool deny)
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

static void check_narrower(struct build *b, const struct lookup *l, const struct entry *e)
{
	if (!l->n_below || e->kind != ENTRY_EXACT || lifted(e, "narrower"))
		return;
	const struct entry *w = wildcard_above(l, e->layer, e->wire, e->wire_len, false);
	if (w && permits_less(e->terms, w->terms))
		diag_warning(b->d, e->pos, "narrower",
			     "\"%.100s\" permits less than \"%.100s\" (line %u), which it replaces "
			     "for this name",
			     e->pattern, w->pattern, w->pos.line);
}

/* An allow that opens what a deny of the same profile closes. */
static bool check_lifted_deny(struct build *b, const struct lookup *l, const struct entry *e,
			      struct pos at, const uint8_t *wire, size_t n)
{
	if (!l->n_denies || lifted(e, "deny-lifted"))
		return false;
	const struct entry *deny = wildcard_above(l, e->layer, wire, n, true);
	if (!deny || lifted(deny, "deny-lifted"))
		return false;
	diag_error(b->d, at, "deny-lifted",
		   "this lifts the deny of \"%.100s\" (line %u); if that is meant, say so: "
		   "lint: {allow: [deny-lifted], why: ...}",
		   deny->pattern, deny->pos.line);
	return true;
}

static void check_never(struct build *b, const struct lookup *l, const struct entry *e)
{
	if (!l->n_never || lifted(e, "shadowed"))
		return;
	const struct entry *never = wildcard_above(l, 0, e->wire, e->wire_len, true);
	struct subject same = { 0, e->kind, e->wire_len, e->wire };
	uint32_t i = *slot_of(l, &same);
	if (!never && i)
		never = &b->entries[i - 1];
	if (never)
		diag_warning(b->d, e->pos, "shadowed",
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
		check_narrower(b, l, e);
		check_lifted_deny(b, l, e, e->pos, e->wire, e->wire_len);
		check_never(b, l, e);
	}
}

/* ---- dates -------------------------------------------------------------------------------------- */

/* Codes that begin with "date-" are never made errors: a build must not break because time goes by. */
static void check_dates(struct build *b, const struct entry *e)
{
	int64_t when, now = b->o->now_s;
	const struct terms *t = e->terms;
	if (t->expires && t->expires <= now)
		diag_warning(b->d, e->pos, "date-expired",
			     "the entry has expired: it permits nothing");
	if (*t->review_by && time_from_text(t->review_by, strlen(t->review_by), false, &when) &&
	    when <= now)
		diag_warning(b->d, e->pos, "date-review", "the entry was to be reviewed by %s",
			     t->review_by);
}

/* ---- environments ------------------------------------------------------------------------------- */

struct by_layer {
	uint32_t *start; /* [layers + 1] */
	uint32_t *entry;
};

static void sort_by_layer(struct build *b, struct by_layer *s)
{
	uint32_t n = b->m->n_layers;
	s->start = arena_array(b->a, n + 2, sizeof(*s->start));
	s->entry = arena_array(b->a, b->n_entries + 1, sizeof(*s->entry));
	for (size_t i = 0; i < b->n_entries; i++)
		s->start[b->entries[i].layer + 2]++;
	for (uint32_t i = 0; i < n; i++)
		s->start[i + 2] += s->start[i + 1];
	for (size_t i = 0; i < b->n_entries; i++)
		s->entry[s->start[b->entries[i].layer + 1]++] = (uint32_t)i;
}

static bool is_among(const struct texts *t, const char *s)
{
	for (uint32_t i = 0; i < t->n; i++)
		if (strcmp(t->v[i], s) == 0)
			return true;
	return false;
}

static const char *join(struct build *b, const struct texts *t)
{
	const char *s = t->n ? t->v[0] : "none";
	for (uint32_t i = 1; i < t->n; i++)
		s = arena_printf(b->a, "%s, %s", s, t->v[i]);
	return s;
}

static void check_layer_environments(struct build *b, const struct draft *d,
				     const struct texts *allowed, const struct by_layer *s,
				     uint32_t layer)
{
	for (uint32_t i = s->start[layer]; i < s->start[layer + 1]; i++) {
		const struct entry *e = &b->entries[s->entry[i]];
		const char *env = e->terms->environment;
		if (e->deny || is_among(allowed, env))
			continue;
		diag_error(b->d, e->pos, "environment",
			   "profile \"%s\" sees this entry and admits only the environment %s; the "
			   "entry says %s",
			   d->p.name, join(b, allowed), *env ? env : "none");
	}
}

static void check_environments(struct build *b)
{
	struct by_layer s = { 0 };
	for (size_t i = 0; i < b->n_drafts; i++) {
		const struct draft *d = &b->drafts[i];
		if (d->n_bound_by && !s.start)
			sort_by_layer(b, &s);
		for (uint32_t j = 0; j < d->n_bound_by; j++)
			for (uint32_t k = 0; k < d->p.n_sees; k++)
				if (b->m->layers[d->p.sees[k]].kind == LAYER_KIND_PROFILE)
					check_layer_environments(
						b, d,
						&b->drafts[d->bound_by[j]].allowed_environments, &s,
						d->p.sees[k]);
	}
}

/* ---- resolvers ---------------------------------------------------------------------------------- */

/* "a profile that sees two resolvers for one zone" is ambiguous; different profiles likewise. */
struct zone {
	const char *zone;
	const struct resolver *r;
};

static int compare_zones(const void *x, const void *y)
{
	const struct zone *a = x, *b = y;
	int c = strcmp(a->zone, b->zone);
	if (c)
		return c;
	if (a->r->pos.file != b->r->pos.file)
		return a->r->pos.file < b->r->pos.file ? -1 : 1;
	if (a->r->pos.line != b->r->pos.line)
		return a->r->pos.line < b->r->pos.line ? -1 : 1;
	return a->r->pos.col < b->r->pos.col ? -1 : a->r->pos.col > b->r->pos.col;
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

static void check_zones(struct build *b)
{
	size_t n = 0, at = 0;
	for (size_t i = 0; i < b->n_drafts; i++)
		for (size_t j = 0; j < b->drafts[i].n_resolvers; j++)
			n += b->drafts[i].resolvers[j].n_zones;
	if (n == 0)
		return;
	struct zone *v = arena_array(b->a, n, sizeof(*v));
	for (size_t i = 0; i < b->n_drafts; i++)
		for (size_t j = 0; j < b->drafts[i].n_resolvers; j++)
			for (uint32_t k = 0; k < b->drafts[i].resolvers[j].n_zones; k++)
				v[at++] = (struct zone){ b->drafts[i].resolvers[j].zones[k],
							 &b->drafts[i].resolvers[j] };
	qsort(v, n, sizeof(*v), compare_zones);
	for (size_t i = 1; i < n; i++)
		if (strcmp(v[i].zone, v[i - 1].zone) == 0 && !same_servers(v[i].r, v[i - 1].r))
			diag_error(b->d, v[i].r->pos, "resolver",
				   "the zone %s has other servers at %s:%u", v[i].zone,
				   diags_file_name(b->d, v[i - 1].r->pos.file),
				   v[i - 1].r->pos.line);
}

/* ---- all ---------------------------------------------------------------------------------------- */

void lint(struct build *b)
{
	struct lookup l;
	lookup_init(&l, b);
	for (size_t i = 0; i < b->n_entries; i++)
		add_to_lookup(&l, b, (uint32_t)i);
	bool suffixes = l.n_below || l.n_denies || l.n_never;
	for (size_t i = 0; i < b->n_entries; i++) {
		if (suffixes)
			check_entry(b, &l, &b->entries[i]);
		if (b->entries[i].terms != &b->plain_allow)
			check_dates(b, &b->entries[i]);
	}
	check_environments(b);
	check_zones(b);
}
