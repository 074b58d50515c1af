/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafts -> profiles with their lists of layers. Must never let a profile see more than its own
 * entries, its ancestors' and its presets'.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/draft.h"

enum { NEVER_LAYER = 0 };

/* A AAAA CNAME HTTPS SVCB SRV PTR, sorted */
static const uint16_t default_qtypes[] = { 1, 5, 12, 28, 33, 64, 65 };

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

/* ---- what bindings may add: layers that no profile sees ------------------------------------------ */

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
		if (inherit(b, &b->drafts[order[i]]))
			flatten(b, &b->drafts[order[i]], mark);
	fill_layers(b);
	fill_profiles(b);
}
