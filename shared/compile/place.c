/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts names into the hash table of policy.bin: tag lines, records, gate (format.h). Linear in the
 * number of names; never places a name where policy_find() would not look.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/layout.h"
#include "shared/policy/hash.h"

enum {
	NAMES_PER_LINE = 14, /* of 19 slots: the rest is room for uneven lines */
	GATE_BITS = 10,      /* per suffix of two labels */
	MAX_SEEDS = 64,
	AHEAD = 8 /* names to fetch before their turn */
};

/* A name with all its rules: [at .. at + n) of the sorted placed[]. */
struct record {
	uint32_t at;
	uint32_t n;
};

/* ---- hashing ---- */

struct hashes {
	uint64_t whole;
	uint64_t suffix; /* of the last two labels, if there are two */
	unsigned labels;
};

static struct hashes hash_name(uint64_t seed, const uint8_t *wire, size_t len)
{
	uint8_t off[NAME_MAX_LABELS];
	struct hashes h = { .whole = seed };
	unsigned n = 0;
	for (size_t at = 0; at < len; at += 1 + (size_t)wire[at])
		off[n++] = (uint8_t)at;
	h.labels = n;
	for (unsigned d = 1; d <= n; d++) {
		unsigned at = off[n - d];
		h.whole = hash_label(h.whole, wire + at + 1, wire[at]);
		if (d == 2)
			h.suffix = h.whole;
	}
	return h;
}

/* ---- sorting by home line: a counting sort, then each line's few names by insertion ---- */

/* By hash first: that is at hand, while each name is somewhere else in memory. */
static int compare(const struct placed *a, const struct placed *b)
{
	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	int c = memcmp(a->wire, b->wire, a->len);
	if (c)
		return c;
	if (a->rule != b->rule)
		return a->rule < b->rule ? -1 : 1;
	return a->line < b->line ? -1 : a->line > b->line;
}

static bool same_name(const struct placed *a, const struct placed *b)
{
	return a->hash == b->hash && a->len == b->len && memcmp(a->wire, b->wire, a->len) == 0;
}

static int compare_void(const void *a, const void *b)
{
	return compare(a, b);
}

static void sort_bucket(struct placed *v, size_t n)
{
	if (n > 64) { /* many rules of one name */
		qsort(v, n, sizeof(*v), compare_void);
		return;
	}
	for (size_t i = 1; i < n; i++) {
		struct placed x = v[i];
		size_t k = i;
		for (; k > 0 && compare(&x, &v[k - 1]) < 0; k--)
			v[k] = v[k - 1];
		v[k] = x;
	}
}

/*
 * placed[] sorted by home line among n_lines, equal names together, into *other, which then becomes the old
 * place; returns how many distinct.
 */
static size_t sort_by_line(struct tables *t, struct placed **other, size_t n_lines)
{
	uint32_t *start = arena_array(&t->scratch, n_lines + 1, sizeof(*start));
	struct placed *spare = *other;
	size_t distinct = 0;
	for (size_t i = 0; i < t->n_placed; i++) {
		struct placed *p = &t->placed[i];
		p->home = (uint32_t)hash_scale(p->hash, n_lines);
		start[p->home + 1]++;
	}
	for (size_t l = 0; l < n_lines; l++)
		start[l + 1] += start[l];
	for (size_t i = 0; i < t->n_placed; i++)
		spare[start[t->placed[i].home]++] = t->placed[i];
	for (size_t l = 0, at = 0; l < n_lines; at = start[l++]) {
		sort_bucket(spare + at, start[l] - at);
		for (size_t i = at; i < start[l]; i++)
			distinct += i == at || !same_name(&spare[i - 1], &spare[i]);
	}
	*other = t->placed;
	t->placed = spare;
	return distinct;
}

/* ---- gate ---- */

/*
 * About how many distinct values there are, for a size only: the bits that they set among 16 for each. A
 * thirty-second too few at worst. Of `names`, not of n, which counts what stands twice: that must not matter.
 */
static size_t count_distinct(struct tables *t, const uint64_t *v, size_t n, size_t names)
{
	size_t count = 0, bits = (16 * names | 63) + 1;
	uint64_t *set = arena_array(&t->scratch, bits / 64, sizeof(*set));
	for (size_t i = 0; i < n; i++) {
		size_t k = hash_scale(v[i], bits);
		uint64_t bit = UINT64_C(1) << (k % 64);
		count += !(set[k / 64] & bit);
		set[k / 64] |= bit;
	}
	return count + count / 32;
}

static void build_gate(struct tables *t, const uint64_t *suffix, size_t n, size_t names)
{
	t->n_gate = count_distinct(t, suffix, n, names) * GATE_BITS / 64 + 1;
	t->gate = arena_array(&t->arena, t->n_gate, sizeof(*t->gate));
	for (size_t i = 0; i < n; i++)
		t->gate[hash_scale(suffix[i], t->n_gate)] |= hash_gate_mask(suffix[i]);
}

static void hash_all(struct tables *t, uint64_t *suffix, size_t *n_suffix)
{
	*n_suffix = 0;
	t->depths[0] = t->depths[1] = 0;
	for (size_t i = 0; i < t->n_placed; i++) {
		struct placed *p = &t->placed[i];
		struct hashes h = hash_name(t->seed, p->wire, p->len);
		p->hash = h.whole;
		t->depths[h.labels / 64] |= UINT64_C(1) << (h.labels % 64);
		if (h.labels >= 2)
			suffix[(*n_suffix)++] = h.suffix;
	}
}

/* ---- lines ---- */

static size_t group(const struct tables *t, struct record *r)
{
	size_t n = 0;
	for (size_t i = 0; i < t->n_placed; i++) {
		if (i && same_name(&t->placed[i - 1], &t->placed[i])) {
			r[n - 1].n++;
			continue;
		}
		r[n++] = (struct record){ .at = (uint32_t)i, .n = 1 };
	}
	return n;
}

/*
 * Which record stands in which slot: slot_of[line * 19 + i] = record + 1. Each line takes its own
 * names first; the rest go to one of the FMT_MAX_SPILL lines behind it. False if that has no room.
 */
static bool assign(struct tables *t, const struct record *r, size_t n, uint32_t *slots)
{
	for (size_t i = 0; i < n; i++) {
		size_t home = t->placed[r[i].at].home;
		struct fmt_line *l = &t->lines[home];
		if (l->count < FMT_LINE_SLOTS)
			slots[home * FMT_LINE_SLOTS + l->count++] = (uint32_t)i + 1;
	}
	size_t in_line = 0;
	for (size_t i = 0, last = 0; i < n; i++) {
		size_t home = t->placed[r[i].at].home;
		in_line = i && last == home ? in_line + 1 : 0;
		last = home;
		if (in_line < FMT_LINE_SLOTS)
			continue;
		unsigned k = 1;
		for (; k <= FMT_MAX_SPILL && k < t->n_lines; k++) {
			size_t at = (home + k) % t->n_lines;
			struct fmt_line *l = &t->lines[at];
			if (l->count == FMT_LINE_SLOTS)
				continue;
			slots[at * FMT_LINE_SLOTS + l->count++] = (uint32_t)i + 1;
			if (k > t->lines[home].spill)
				t->lines[home].spill = (uint8_t)k;
			break;
		}
		if (k > FMT_MAX_SPILL || k >= t->n_lines)
			return false;
	}
	return true;
}

/* What the filling of lines needs: room for pairs, and the rule sets of one rule each. */
struct filler {
	uint32_t *pairs;
	size_t cap;
	struct brief *brief; /* by rule */
};

/* Of each rule what a million names ask for: small, since they ask in no order. */
struct brief {
	uint32_t single; /* the set of this rule alone, plus one; 0: none yet */
	uint32_t layer, kinds;
};

static uint32_t kinds_of(const struct fmt_rule *r)
{
	return (r->flags & RULE_EXACT ? FMT_EXACT : 0) | (r->flags & RULE_BELOW ? FMT_BELOW : 0);
}

/* Most names have one rule, and most rules one name or a list of them. */
static uint32_t single_set(struct tables *t, struct filler *f, uint32_t rule)
{
	struct brief *b = &f->brief[rule];
	const uint32_t set[] = { 1, b->layer, rule };
	if (!b->single)
		b->single = (uint32_t)(pool_append(&t->sets, set, sizeof(set)) / 4) + 1;
	return b->single - 1;
}

/* The rule set of a record, and which kinds it holds. */
static uint32_t record_value(struct tables *t, const struct record *r, struct filler *f)
{
	uint32_t n = 0, flags = 0;
	if (r->n == 1) {
		uint32_t rule = t->placed[r->at].rule;
		return single_set(t, f, rule) | f->brief[rule].kinds;
	}
	if (2 * (size_t)r->n > f->cap) {
		f->cap = 4 * (size_t)r->n;
		f->pairs = arena_array(&t->scratch, f->cap, sizeof(*f->pairs));
	}
	for (uint32_t i = 0; i < r->n; i++) {
		uint32_t rule = t->placed[r->at + i].rule;
		if (n && f->pairs[2 * n - 1] == rule)
			continue; /* a list that names it twice */
		flags |= f->brief[rule].kinds;
		f->pairs[2 * n] = f->brief[rule].layer;
		f->pairs[2 * n + 1] = rule;
		n++;
	}
	return (n == 1 ? single_set(t, f, f->pairs[1]) : tables_set(t, f->pairs, n)) | flags;
}

static void note_lines(struct tables *t, const struct record *r, size_t rec)
{
	for (uint32_t i = 0; i < r->n; i++) {
		const struct placed *p = &t->placed[r->at + i];
		if (!p->line || (i && p[-1].rule == p->rule))
			continue;
		t->name_info[t->n_name_info++] = (struct fmt_name_info){
			.rec = (uint32_t)rec,
			.rule = p->rule,
			.file = t->rule_file[p->rule],
			.line = p->line,
		};
	}
}

static void fill_line(struct tables *t, struct fmt_line *l, const struct record *r,
		      const uint32_t *slots, struct filler *f)
{
	l->base = (uint32_t)t->blob_size;
	for (unsigned i = 0; i < l->count; i++) {
		const struct record *rec = &r[slots[i] - 1];
		const struct placed *p = &t->placed[rec->at];
		if (rec->at + AHEAD < t->n_placed) { /* the next ones: their names are anywhere */
			__builtin_prefetch(p[AHEAD].wire);
			__builtin_prefetch(&f->brief[p[AHEAD].rule]);
		}
		uint32_t value = record_value(t, rec, f);
		l->tag[i] = hash_tag(p->hash);
		l->len[i] = p->len;
		note_lines(t, rec, t->blob_size);
		memcpy(t->blob + t->blob_size, &value, 4);
		memcpy(t->blob + t->blob_size + 4, p->wire, p->len);
		t->blob_size += 4 + (size_t)p->len;
	}
}

static int fill(struct tables *t, const struct record *r, size_t n, const uint32_t *slots)
{
	struct filler f = { .pairs = NULL };
	size_t size = 0;
	for (size_t i = 0; i < n; i++)
		size += 4 + (size_t)t->placed[r[i].at].len;
	if (size > UINT32_MAX)
		return -1;
	t->blob = arena_get(&t->arena, size);
	t->name_info = arena_array(&t->arena, t->n_placed, sizeof(*t->name_info));
	f.brief = arena_array(&t->scratch, t->n_rules, sizeof(*f.brief));
	for (size_t i = 0; i < t->n_rules; i++)
		f.brief[i] = (struct brief){ 0, t->rules[i].layer, kinds_of(&t->rules[i]) };
	for (size_t i = 0; i < t->n_lines; i++)
		fill_line(t, &t->lines[i], r, slots + i * FMT_LINE_SLOTS, &f);
	return t->sets.len / 4 > FMT_SET_MASK ? -1 : 0;
}

/* With one seed: 1 placed, 0 a line spilled too far. */
static int place_with_seed(struct tables *t, struct placed **spare, struct record *r,
			   size_t *n_records, uint32_t **slots)
{
	uint64_t *suffix = arena_array(&t->scratch, t->n_placed + 1, sizeof(*suffix));
	size_t n_suffix;
	hash_all(t, suffix, &n_suffix);
	size_t lines = t->n_placed / NAMES_PER_LINE + 2;
	size_t distinct = sort_by_line(t, spare, lines);
	if (distinct / NAMES_PER_LINE + 2 != lines) {
		lines = distinct / NAMES_PER_LINE + 2;
		sort_by_line(t, spare, lines);
	}
	t->n_lines = lines;
	t->lines = arena_array(&t->arena, lines, sizeof(*t->lines));
	*slots = arena_array(&t->scratch, lines * FMT_LINE_SLOTS, sizeof(**slots));
	*n_records = group(t, r);
	if (!assign(t, r, *n_records, *slots))
		return 0;
	build_gate(t, suffix, n_suffix, *n_records);
	return 1;
}

static int place(struct tables *t)
{
	struct placed *spare = arena_array(&t->scratch, t->n_placed + 1, sizeof(*spare));
	struct record *r = arena_array(&t->scratch, t->n_placed + 1, sizeof(*r));
	uint32_t *slots;
	size_t n;
	if (t->n_placed >= UINT32_MAX / 2)
		return -1;
	for (t->seed = 1; t->seed <= MAX_SEEDS; t->seed++)
		if (place_with_seed(t, &spare, r, &n, &slots))
			return fill(t, r, n, slots);
	return -1;
}

int tables_place(struct tables *t)
{
	int rc = place(t);
	if (rc == 0)
		tables_ancestors(t);
	t->placed = NULL;
	t->n_placed = 0;
	arena_fini(&t->scratch);
	return rc;
}
