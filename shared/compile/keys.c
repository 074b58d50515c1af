/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings read by tables of keys. Must never pass over a key that it does not know. */
#include <ctype.h>
#include <string.h>

#include "shared/compile/build.h"

bool want_map(struct build *b, const struct node *v, const char *what)
{
	if (v->type == NODE_MAP)
		return true;
	diag_error(b->d, v->pos, "type", "%s must be a mapping, not %s%s", what, node_what(v),
		   node_is_null(v) ? "; write {} for none" : "");
	return false;
}

bool want_seq(struct build *b, const struct node *v, const char *what)
{
	if (v->type == NODE_SEQ)
		return true;
	diag_error(b->d, v->pos, "type", "%s must be a list, not %s%s", what, node_what(v),
		   node_is_null(v) ? "; write [] for none" : "");
	return false;
}

enum { MAX_WORD = 40 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;
	return m < c ? m : c;
}

/* Edit distance with exchanges of neighbours; only for words up to MAX_WORD. */
static unsigned distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned row[3][MAX_WORD + 1];
	for (size_t j = 0; j <= nb; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned *now = row[i % 3], *up = row[(i + 2) % 3], *upup = row[(i + 1) % 3];
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned change = up[j - 1] + (a[i - 1] != b[j - 1]);
			now[j] = min3(up[j] + 1, now[j - 1] + 1, change);
			bool swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
			if (swap && upup[j - 2] + 1 < now[j])
				now[j] = upup[j - 2] + 1;
		}
	}
	return row[na % 3][nb];
}

const char *nearest(const char *s, const char *(*word)(const void *table, size_t i),
		    const void *table, size_t n)
{
	const char *best = NULL;
	size_t len = strlen(s);
	unsigned least = len < 4 ? 2 : len < 9 ? 3 : 4; /* one more than is near enough */
	if (len > MAX_WORD)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		const char *w = word(table, i);
		size_t wlen = strlen(w);
		if (wlen > MAX_WORD)
			continue;
		unsigned d = distance(s, len, w, wlen);
		/* half of a word may differ only if it begins as the other does */
		if (d * 2 >= len && tolower((unsigned char)s[0]) != tolower((unsigned char)w[0]))
			continue;
		if (d < least) {
			least = d;
			best = w;
		}
	}
	return best;
}

static const char *key_name(const void *table, size_t i)
{
	return ((const struct key *)table)[i].name;
}

static const struct key *find_key(const struct key *keys, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static void unknown_key(struct build *b, const struct node *k, const char *what,
			const struct key *keys, size_t n)
{
	const char *near = nearest(k->text, key_name, keys, n);
	if (near)
		diag_error(b->d, k->pos, "unknown-key",
			   "unknown key \"%.100s\" in %s; did you mean \"%s\"?", k->text, what,
			   near);
	else
		diag_error(b->d, k->pos, "unknown-key", "unknown key \"%.100s\" in %s", k->text,
			   what);
}

bool read_map(struct build *b, const struct node *v, const char *what, const struct key *keys,
	      size_t n, void *to)
{
	if (!want_map(b, v, what))
		return false;
	node_for_each_pair(key, value, v)
	{
		const struct key *k = find_key(keys, n, key->text);
		if (k)
			k->read(b, key, value, (char *)to + k->off);
		else
			unknown_key(b, key, what, keys, n);
	}
	return true;
}

const struct node *map_get(const struct node *map, const char *key)
{
	if (map->type != NODE_MAP)
		return NULL;
	node_for_each_pair(k, v, map) if (strcmp(k->text, key) == 0) return v;
	return NULL;
}

void use_feature(struct build *b, enum feature f, struct pos at)
{
	uint64_t bit = UINT64_C(1) << f;
	if (!(b->m->features & bit))
		b->m->feature_at[f] = at;
	b->m->features |= bit;
}
