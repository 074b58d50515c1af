/* SPDX-License-Identifier: Apache-2.0 */
/* A compiled policy read back as a whole (walk.h). Must never trust a file that was not checked. */
#include "shared/compile/walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/features.h"

/* ---- which names a rule lists ---- */

/* Calls for each pair of a name and a rule; with v NULL only counts. */
static uint64_t collect_record(const struct policy *p, uint32_t rec, uint8_t len,
			       struct walk_name *v, uint64_t n)
{
	uint32_t value;
	memcpy(&value, p->blob + rec, 4);
	const uint32_t *set = p->sets + (value & FMT_SET_MASK);
	for (uint32_t k = 0; k < set[0]; k++, n++)
		if (v)
			v[n] = (struct walk_name){ set[2 + 2 * k], rec, len };
	return n;
}

static uint64_t collect(const struct policy *p, struct walk_name *v)
{
	uint64_t n = 0;
	for (uint64_t i = 0; i < p->n_lines; i++) {
		uint32_t rec = p->lines[i].base;
		for (unsigned k = 0; k < p->lines[i].count; k++) {
			n = collect_record(p, rec, p->lines[i].len[k], v, n);
			rec += 4 + (uint32_t)p->lines[i].len[k];
		}
	}
	return n;
}

static int by_rule_and_name(const void *a, const void *b, void *arg)
{
	const struct walk_name *x = a, *y = b;
	const struct policy *p = arg;
	if (x->rule != y->rule)
		return x->rule < y->rule ? -1 : 1;
	int c = memcmp(p->blob + x->rec + 4, p->blob + y->rec + 4,
		       x->len < y->len ? x->len : y->len);
	return c ? c : (x->len > y->len) - (x->len < y->len);
}

static void index_names(struct walk *w)
{
	const struct policy *p = w->p;
	uint64_t n = collect(p, NULL);
	struct walk_name *v = arena_array(&w->arena, n + 1, sizeof(*v));
	uint64_t *first = arena_array(&w->arena, p->n_rules + (size_t)1, sizeof(*first));
	collect(p, v);
	qsort_r(v, n, sizeof(*v), by_rule_and_name, (void *)(uintptr_t)p);
	for (uint64_t i = 0; i < n; i++)
		first[v[i].rule + 1]++;
	for (uint32_t r = 0; r < p->n_rules; r++)
		first[r + 1] += first[r];
	w->names = v;
	w->first_name = first;
}

static void index_cidrs(struct walk *w)
{
	const struct policy *p = w->p;
	uint32_t *v = arena_array(&w->arena, p->n_rules + (size_t)1, sizeof(*v));
	memset(v, 0xff, p->n_rules * sizeof(*v));
	for (uint32_t i = 0; i < p->n_cidrs; i++) {
		const uint32_t *set = p->sets + p->cidrs[i].set;
		for (uint32_t k = 0; k < set[0]; k++)
			v[set[2 + 2 * k]] = i;
	}
	w->cidr = v;
}

static int by_place(const void *a, const void *b, void *arg)
{
	const struct policy *p = arg;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	const struct fmt_rule *r = &p->rules[x], *s = &p->rules[y];
	if (r->layer != s->layer)
		return r->layer < s->layer ? -1 : 1;
	if (p->rule_info[x].order != p->rule_info[y].order)
		return p->rule_info[x].order < p->rule_info[y].order ? -1 : 1;
	return x < y ? -1 : x > y;
}

static void index_rules(struct walk *w)
{
	const struct policy *p = w->p;
	uint32_t *v = arena_array(&w->arena, p->n_rules + (size_t)1, sizeof(*v));
	uint32_t *at = arena_array(&w->arena, p->n_layers + (size_t)1, sizeof(*at));
	for (uint32_t i = 0; i < p->n_rules; i++) {
		v[i] = i;
		at[p->rules[i].layer + 1]++;
	}
	for (uint32_t i = 0; i < p->n_layers; i++)
		at[i + 1] += at[i];
	qsort_r(v, p->n_rules, sizeof(*v), by_place, (void *)(uintptr_t)p);
	w->order = v;
	w->layer_at = at;
}

/* Texts go out as they are: nothing in them may act on a terminal or end a line unseen. */
static bool texts_are_clean(const struct policy *p, const char *s, const struct fmt_text *v,
			    uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		for (const char *c = s + v[i].text; *c; c++)
			if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f)
				return false;
	return p->n_profiles > 0;
}

static bool is_clean(const struct policy *p)
{
	return texts_are_clean(p, p->term_strings, p->terms, p->n_terms) &&
	       texts_are_clean(p, p->info_strings, p->notes, p->n_notes);
}

static void index_all(struct walk *w)
{
	index_names(w);
	index_cidrs(w);
	index_rules(w);
}

/* ---- opening ---- */

static const struct policy_trust any = { .features = UINT64_MAX, .any_owner = true };

bool walk_open(struct walk *w, const char *path, char *err, size_t size)
{
	char why[POLICY_WHY_SIZE];
	struct policy *p = NULL;
	*w = (struct walk){ 0 };
	enum policy_err e = policy_open(&p, path, &any, why);
	if (e != POLICY_OK) {
		snprintf(err, size, "%s: %s%s%s", path, policy_strerror(e), *why ? ": " : "", why);
		return false;
	}
	if (!is_clean(p)) {
		snprintf(err, size, "%s: a text holds control characters", path);
		policy_close(p);
		return false;
	}
	w->p = p;
	index_all(w);
	return true;
}

bool walk_bytes(struct walk *w, uint8_t *bytes, size_t len, char *err, size_t size)
{
	char why[POLICY_WHY_SIZE];
	*w = (struct walk){ .bytes = bytes, .own = { .base = bytes, .size = len } };
	enum policy_err e = image_check(&w->own, &any, why);
	if (e != POLICY_OK || !is_clean(&w->own)) {
		snprintf(err, size, "%s: %s", policy_strerror(e), why);
		free(bytes);
		*w = (struct walk){ 0 };
		return false;
	}
	w->p = &w->own;
	index_all(w);
	return true;
}

void walk_close(struct walk *w)
{
	arena_fini(&w->arena);
	if (w->bytes)
		free(w->bytes);
	else
		policy_close((struct policy *)(uintptr_t)w->p);
	*w = (struct walk){ 0 };
}

/* ---- looking ---- */

size_t walk_name_text(const struct walk *w, const struct walk_name *n, char *buf)
{
	struct name name;
	uint8_t wire[NAME_MAX_WIRE + 1] = { 0 };
	memcpy(wire, w->p->blob + n->rec + 4, n->len);
	buf[0] = '\0';
	return name_from_wire(&name, wire, n->len + (size_t)1, NULL) == NAME_OK
		       ? name_to_text(&name, buf)
		       : 0;
}

struct prefix walk_prefix(const struct walk *w, uint32_t rule)
{
	const struct fmt_cidr *c = &w->p->cidrs[w->cidr[rule]];
	struct prefix p = { .len = (uint8_t)c->len };
	memcpy(p.a.b, c->addr, sizeof(p.a.b));
	return p;
}

const char *walk_layer_name(const struct walk *w, uint32_t layer)
{
	return w->p->strings + w->p->layers[layer].name;
}

uint32_t walk_own_layer(const struct walk *w, uint32_t profile)
{
	const struct fmt_profile *f = &w->p->profiles[profile];
	for (uint32_t i = 0; i < f->n_sees; i++)
		if (w->p->sees[f->sees + i].rank == 0)
			return w->p->sees[f->sees + i].layer;
	return FMT_NONE;
}

uint32_t walk_find_profile(const struct walk *w, const char *name)
{
	uint32_t lo = 0, hi = w->p->n_profiles;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = strcmp(w->p->strings + w->p->profiles[mid].name, name);
		if (c == 0)
			return mid;
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return FMT_NONE;
}

const uint32_t *walk_sees(struct walk *w, uint32_t profile, uint32_t *n)
{
	const struct fmt_profile *f = &w->p->profiles[profile];
	uint32_t *v = arena_array(&w->arena, f->n_sees + (size_t)1, sizeof(*v));
	for (uint32_t i = 0; i < f->n_sees; i++)
		v[w->p->sees[f->sees + i].rank] = w->p->sees[f->sees + i].layer;
	*n = f->n_sees;
	return v;
}

static const struct fmt_text *find_text(const struct fmt_text *v, uint32_t n, uint32_t kind,
					uint32_t index)
{
	uint32_t lo = 0, hi = n;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct fmt_text *t = &v[mid];
		if (t->kind == kind && t->index == index)
			return t;
		if (t->kind < kind || (t->kind == kind && t->index < index))
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

const char *walk_term(const struct walk *w, enum fmt_text_kind kind, uint32_t index)
{
	const struct fmt_text *t = find_text(w->p->terms, w->p->n_terms, kind, index);
	return t ? w->p->term_strings + t->text : NULL;
}

const char *walk_note(const struct walk *w, enum fmt_text_kind kind, uint32_t index)
{
	const struct fmt_text *t = find_text(w->p->notes, w->p->n_notes, kind, index);
	return t ? walk_info(w, t->text) : NULL;
}

bool walk_has_subject(const struct walk *w, uint32_t rule)
{
	return w->p->rules[rule].flags & RULE_CIDR ? w->cidr[rule] != FMT_NONE
						   : w->first_name[rule] < w->first_name[rule + 1];
}

bool walk_is_list(const struct walk *w, uint32_t rule)
{
	return strncmp(walk_info(w, w->p->rule_info[rule].pattern), "list:", 5) == 0;
}
