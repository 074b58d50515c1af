/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lint of the policy as a whole: environments, resolvers, profiles that nobody gets, sources, limits,
 * and what is written beside entries. Must never change the model.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/draft.h"
#include "shared/compile/lint.h"

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
		lint_say(b, e->pos, LINT_ENVIRONMENT, "",
			 "profile \"%s\" sees this entry and admits only the environment %s; the "
			 "entry says %s",
			 d->p.name, join(b, allowed), *env ? env : "none");
	}
}

void check_environments(struct build *b)
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

void check_zones(struct build *b)
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
			lint_say(b, v[i].r->pos, LINT_RESOLVER, "",
				 "the zone %s has other servers at %s:%u", v[i].zone,
				 diags_file_name(b->d, v[i - 1].r->pos.file), v[i - 1].r->pos.line);
}

/* ---- zones that nothing is asked in ------------------------------------------------------------- */

struct asked {
	const char *const *zones; /* canonical text, sorted, no duplicates */
	bool *used;
	size_t n;
};

static int compare_texts(const void *x, const void *y)
{
	return strcmp(*(const char *const *)x, *(const char *const *)y);
}

static struct asked all_zones(struct build *b)
{
	size_t n = 0, out = 0;
	for (size_t i = 0; i < b->n_drafts; i++)
		for (size_t j = 0; j < b->drafts[i].n_resolvers; j++)
			n += b->drafts[i].resolvers[j].n_zones;
	const char **v = arena_array(b->a, n + 1, sizeof(*v));
	n = 0;
	for (size_t i = 0; i < b->n_drafts; i++)
		for (size_t j = 0; j < b->drafts[i].n_resolvers; j++)
			for (uint32_t k = 0; k < b->drafts[i].resolvers[j].n_zones; k++)
				v[n++] = b->drafts[i].resolvers[j].zones[k];
	qsort(v, n, sizeof(*v), compare_texts);
	for (size_t i = 0; i < n; i++)
		if (!out || strcmp(v[i], v[out - 1]) != 0)
			v[out++] = v[i];
	return (struct asked){ v, arena_array(b->a, out + 1, sizeof(bool)), out };
}

static bool ends_with(const char *s, const char *zone)
{
	size_t n = strlen(s), m = strlen(zone);
	return n >= m && strcmp(s + n - m, zone) == 0 && (n == m || s[n - m - 1] == '.');
}

/* Marks the zones that a name stands in, and those that stand below a wildcard. */
static void ask(struct asked *z, const uint8_t *wire, size_t n, bool below)
{
	char text[NAME_TEXT_SIZE];
	uint8_t rooted[NAME_MAX_WIRE + 1] = { 0 };
	struct name name;
	memcpy(rooted, wire, n);
	if (name_from_wire(&name, rooted, n + 1, NULL) != NAME_OK)
		return;
	name_to_text(&name, text);
	for (const char *s = text; s; s = strchr(s, '.') ? strchr(s, '.') + 1 : NULL) {
		const char *const *at =
			bsearch(&s, z->zones, z->n, sizeof(*z->zones), compare_texts);
		if (at)
			z->used[at - z->zones] = true;
	}
	for (size_t i = 0; below && i < z->n; i++)
		z->used[i] = z->used[i] || ends_with(z->zones[i], text);
}

static void ask_entry(struct asked *z, const struct entry *e)
{
	if (e->deny || e->kind == ENTRY_CIDR)
		return;
	if (e->kind != ENTRY_LIST) {
		ask(z, e->wire, e->wire_len, e->kind == ENTRY_BELOW);
		return;
	}
	const uint8_t *p = e->list->bytes;
	for (size_t i = 0; i < e->list->n; i++, p += p[1] + 2u)
		ask(z, p + 2, p[1], p[0]);
}

static bool has_additions(const struct build *b)
{
	for (size_t i = 0; i < b->n_entries; i++)
		if (b->entries[i].terms->addition)
			return true;
	return false;
}

static bool is_asked(const struct asked *z, const char *zone)
{
	const char *const *at = bsearch(&zone, z->zones, z->n, sizeof(*z->zones), compare_texts);
	return at && z->used[at - z->zones];
}

/* Of a draft's resolvers those that it says itself: what it inherits is reported where it stands. */
static void check_resolver(struct build *b, const struct draft *d, const struct resolver *r,
			   const struct asked *z, bool additions)
{
	if (r->n_zones == 0 && !additions)
		lint_say(b, r->pos, LINT_UNUSED_RESOLVER, d->lift,
			 "custom_resolvers without allowlist_additions are asked nothing");
	for (uint32_t k = 0; k < r->n_zones; k++)
		if (!is_asked(z, r->zones[k]))
			lint_say(b, r->pos, LINT_UNUSED_RESOLVER, d->lift,
				 "no entry lists a name in the zone %s: its servers are asked "
				 "nothing",
				 r->zones[k]);
}

void check_used_zones(struct build *b)
{
	bool any = false;
	for (size_t i = 0; i < b->n_drafts; i++)
		any = any || b->drafts[i].n_resolvers;
	if (!any)
		return;
	struct asked z = all_zones(b);
	for (size_t i = 0; z.n && i < b->n_entries; i++)
		ask_entry(&z, &b->entries[i]);
	bool additions = has_additions(b);
	for (size_t i = 0; i < b->n_drafts; i++) {
		const struct draft *d = &b->drafts[i];
		for (size_t j = 0; j < d->n_own_resolvers; j++)
			check_resolver(b, d, &d->resolvers[j], &z, additions);
	}
}

/* ---- profiles that nobody gets ------------------------------------------------------------------ */

static void reach(struct build *b, bool *reached, uint32_t *todo, size_t *n, uint32_t profile)
{
	(void)b;
	if (!reached[profile])
		todo[(*n)++] = profile;
	reached[profile] = true;
}

void check_reachable(struct build *b)
{
	size_t n = 0;
	bool *reached = arena_array(b->a, b->n_drafts, sizeof(*reached)), any = false;
	uint32_t *todo = arena_array(b->a, b->n_drafts, sizeof(*todo));
	for (uint32_t i = 0; i < b->m->n_clients; i++) {
		const struct client *c = &b->m->clients[i];
		any = any || c->to == TO_PROFILE || c->to == TO_BIND;
		if (c->to == TO_PROFILE)
			reach(b, reached, todo, &n, c->profile);
		for (uint32_t j = 0; c->to == TO_BIND && j < c->n_bind; j++)
			reach(b, reached, todo, &n, c->bind[j]);
	}
	while (n) {
		const struct draft *d = &b->drafts[todo[--n]];
		for (uint32_t j = 0; j < d->n_parents; j++)
			reach(b, reached, todo, &n, d->parents[j]);
	}
	for (size_t i = 0; any && i < b->n_drafts; i++) {
		const struct draft *d = &b->drafts[i];
		bool is_default = i == b->m->default_profile;
		if (reached[i] || (is_default && !d->said))
			continue;
		lint_say_some(
			b, d->p.pos, LINT_UNREACHABLE_PROFILE, d->lift,
			"no source has the profile \"%s\", and no profile that one has extends "
			"it: nobody gets it",
			d->p.name);
	}
}

/* ---- sources ------------------------------------------------------------------------------------ */

__extension__ typedef unsigned __int128 u128;

/* How many addresses, of a prefix that is longer than /0. */
static u128 size_of(const struct client *c)
{
	return (u128)1 << (128 - c->prefix.len);
}

static bool same_target(const struct client *x, const struct client *y)
{
	if (x->to != y->to || (x->to == TO_PROFILE && x->profile != y->profile))
		return false;
	return x->to != TO_BIND || (x->n_bind == y->n_bind &&
				    memcmp(x->bind, y->bind, x->n_bind * sizeof(*x->bind)) == 0);
}

/* A prefix right inside another one. Longest prefix wins, so that most of this is plain and meant. */
static void check_nested(struct build *b, const struct client *outer, const struct client *c)
{
	char in[PREFIX_TEXT_SIZE], out[PREFIX_TEXT_SIZE];
	prefix_to_text(&c->prefix, in);
	prefix_to_text(&outer->prefix, out);
	if (outer->owned && same_target(outer, c))
		lint_say(b, c->pos, LINT_OVERLAPPING_SOURCES, c->lift,
			 "%s lies in %s (line %u) and says the same", in, out, outer->pos.line);
	else if (outer->to == TO_BIND && c->to == TO_PROFILE)
		lint_say(b, c->pos, LINT_OVERLAPPING_SOURCES, c->lift,
			 "%s lies in %s (line %u), whose addresses are bound at run time: what is "
			 "bound to one of these is not looked at",
			 in, out, outer->pos.line);
	else if ((outer->to == TO_BIND || outer->to == TO_PROFILE) && outer->owned &&
		 c->to == TO_IGNORE)
		lint_say(b, c->pos, LINT_OVERLAPPING_SOURCES, c->lift,
			 "%s lies in %s (line %u): DNS for these clients is not policed", in, out,
			 outer->pos.line);
}

static void check_hidden(struct build *b, const struct client *c, u128 inside)
{
	char text[PREFIX_TEXT_SIZE];
	if ((c->to != TO_PROFILE && c->to != TO_BIND) || c->prefix.len == 0 || inside < size_of(c))
		return;
	prefix_to_text(&c->prefix, text);
	lint_say(b, c->pos, LINT_OVERLAPPING_SOURCES, c->lift,
		 "longer prefixes decide every address of %s: no client has this one", text);
}

/* The clients are sorted, so that those around one are the open ones before it. */
void check_overlaps(struct build *b)
{
	const struct client *open[129];
	u128 inside[129];
	size_t depth = 0;
	for (uint32_t i = 0; i <= b->m->n_clients; i++) {
		const struct client *c = i < b->m->n_clients ? &b->m->clients[i] : NULL;
		while (depth && (!c || !prefix_contains(&open[depth - 1]->prefix, &c->prefix.a))) {
			depth--;
			check_hidden(b, open[depth], inside[depth]);
		}
		if (!c)
			break;
		if (depth) {
			check_nested(b, open[depth - 1], c);
			inside[depth - 1] += c->prefix.len ? size_of(c) : 0;
		}
		open[depth] = c;
		inside[depth++] = 0;
	}
}

/* ---- limits ------------------------------------------------------------------------------------- */

/* Does a limit on the source always come before that of the entry? */
static bool comes_first(const struct limit *source, const struct limit *entry)
{
	if (!source->set)
		return false;
	u128 x = (u128)source->amount * (entry->period_s ? entry->period_s : 1);
	u128 y = (u128)entry->amount * (source->period_s ? source->period_s : 1);
	return x <= y && source->burst <= entry->burst;
}

/* Which profiles see each layer. */
struct seers {
	const uint32_t *start; /* [layers + 1] */
	const uint32_t *profile;
};

static struct seers seers_of_layers(struct build *b)
{
	size_t n = 0;
	for (size_t i = 0; i < b->n_drafts; i++)
		n += b->drafts[i].p.n_sees;
	uint32_t *start = arena_array(b->a, b->m->n_layers + (size_t)3, sizeof(*start));
	uint32_t *profile = arena_array(b->a, n + 1, sizeof(*profile));
	for (size_t i = 0; i < b->n_drafts; i++)
		for (uint32_t j = 0; j < b->drafts[i].p.n_sees; j++)
			start[b->drafts[i].p.sees[j] + 2]++;
	for (uint32_t i = 0; i < b->m->n_layers; i++)
		start[i + 2] += start[i + 1];
	for (size_t i = 0; i < b->n_drafts; i++)
		for (uint32_t j = 0; j < b->drafts[i].p.n_sees; j++)
			profile[start[b->drafts[i].p.sees[j] + 1]++] = (uint32_t)i;
	return (struct seers){ start, profile };
}

static bool is_wild(const struct entry *e)
{
	const uint8_t *p = e->kind == ENTRY_LIST ? e->list->bytes : NULL;
	for (size_t i = 0; p && i < e->list->n; i++, p += p[1] + 2u)
		if (p[0])
			return true;
	return e->kind == ENTRY_BELOW;
}

/* Why nothing ever counts against the limit; NULL: something does. */
static const char *never_counts(const struct entry *e, const char *key)
{
	bool dns = strncmp(key, "dns", 3) == 0;
	if (dns && e->kind == ENTRY_CIDR)
		return "addresses are not asked for in DNS";
	if (dns && key[3] && !is_wild(e))
		return "only names below a wildcard count";
	if (strcmp(key, "requests") == 0 && !(e->terms->protocols & PROTO_HTTP))
		return "requests are seen in http only";
	return NULL;
}

static bool never_first(const struct build *b, const struct entry *e, const struct limit *own,
			const struct seers *s, size_t off)
{
	for (uint32_t i = s->start[e->layer]; i < s->start[e->layer + 1]; i++) {
		struct limit source;
		memcpy(&source, (const char *)&b->m->profiles[s->profile[i]].limits + off,
		       sizeof(source));
		if (!comes_first(&source, own))
			return false;
	}
	return s->start[e->layer] < s->start[e->layer + 1];
}

static void check_limit(struct build *b, const struct entry *e, const char *key,
			const struct limit *own, const struct seers *s, size_t off)
{
	const char *why = own->set ? never_counts(e, key) : NULL;
	if (own->set && !why && never_first(b, e, own, s, off))
		why = "that of its profile is reached no later";
	if (why)
		lint_say(b, e->pos, LINT_DEAD_LIMIT, e->terms->lint_allow,
			 "the limit `%s` of this entry never triggers: %s", key, why);
}

void check_limits(struct build *b)
{
	struct seers s = { 0 };
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct entry *e = &b->entries[i];
		if (!e->terms->limits || e->deny)
			continue;
		if (!s.start)
			s = seers_of_layers(b);
#define X(field, key, octets, dflt)                                                                \
	check_limit(b, e, key, &e->terms->limits->field, &s, offsetof(struct limits, field));
		LIMITS(X)
#undef X
	}
}

/* ---- owners and reasons ------------------------------------------------------------------------- */

static bool is_required(const struct build *b, const char *key)
{
	return is_among(&b->require, key);
}

/* An entry that somebody answers for: presets and ceilings have reasons of their own. */
static bool is_answered_for(const struct build *b, const struct entry *e)
{
	return !e->deny && !e->preset && e->layer != 0 && e->layer <= b->n_drafts;
}

/* Where some entries say whose they are and why, those that do not are forgotten ones. */
void check_provenance(struct build *b)
{
	bool owner = false, reason = false;
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct entry *e = &b->entries[i];
		if (!is_answered_for(b, e) || e->terms == &b->plain_allow)
			continue;
		owner = owner || *e->terms->owner;
		reason = reason || *e->terms->reason;
	}
	owner = owner && !is_required(b, "owner");
	reason = reason && !is_required(b, "reason");
	for (size_t i = 0; (owner || reason) && i < b->n_entries; i++) {
		const struct entry *e = &b->entries[i];
		if (!is_answered_for(b, e))
			continue;
		if (owner && !*e->terms->owner)
			lint_say_some(b, e->pos, LINT_MISSING_OWNER, e->terms->lint_allow,
				      "\"%.100s\" has no `owner`, as other entries have",
				      e->pattern);
		if (reason && !*e->terms->reason)
			lint_say_some(b, e->pos, LINT_MISSING_REASON, e->terms->lint_allow,
				      "\"%.100s\" has no `reason`, as other entries have",
				      e->pattern);
	}
}
