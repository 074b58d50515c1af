/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries about hosts that lint knows (hosts/known.txt, and the presets): resolvers, stores, services
 * that many share, registries without their companions. Must never change the model, and never warn of
 * what a preset lists.
 */
#include <string.h>

#include "shared/compile/draft.h"
#include "shared/compile/lint.h"

/* ---- the table ---------------------------------------------------------------------------------- */

enum host_kind { HOST_SHARED, HOST_RESOLVER, HOST_ECH, HOST_STORE, HOST_PRESET };

struct host {
	const uint8_t *wire;
	const char *text;
	const char *what; /* what goes out; of HOST_PRESET: the preset */
	size_t n;
	enum host_kind kind;
	bool companion; /* HOST_PRESET: of the level `default`, else `strict` */
};

/* A name that is a host, or has hosts below it. */
struct known {
	const uint8_t *wire;
	size_t n;
	uint32_t self, below; /* host plus one; 0: none. Not HOST_SHARED below */
	uint32_t preset;      /* the first HOST_PRESET of this name, plus one */
};

enum { FILTER_BITS = 1 << 15, N_KNOWN = 1 << 11 };

struct known_hosts {
	struct host *v;
	size_t n, cap;
	struct known slots[N_KNOWN]; /* by hash; .wire NULL: free */
	size_t used;
	uint64_t filter[FILTER_BITS / 64]; /* by length and first octets: most names end here */
};

/* Names in the arena have slack octets behind them. */
static uint32_t filter_bit(const uint8_t *wire, size_t n)
{
	uint64_t head;
	memcpy(&head, wire, sizeof(head));
	if (n < 8)
		head &= (UINT64_C(1) << 8 * n) - 1;
	return (uint32_t)((head ^ n) * UINT64_C(0x9e3779b97f4a7c15) >> 49);
}

static uint64_t hash_of(const uint8_t *wire, size_t n)
{
	uint64_t h = 0xcbf29ce484222325u;
	for (size_t i = 0; i < n; i++)
		h = (h ^ wire[i]) * 0x100000001b3u;
	return h ^ h >> 29;
}

/* The slot of a name, or a free one. */
static struct known *slot_of(struct known_hosts *k, const uint8_t *wire, size_t n)
{
	size_t at = hash_of(wire, n) % N_KNOWN;
	while (k->slots[at].wire &&
	       (k->slots[at].n != n || memcmp(k->slots[at].wire, wire, n) != 0))
		at = (at + 1) % N_KNOWN;
	return &k->slots[at];
}

static const struct known *find(const struct known_hosts *k, const uint8_t *wire, size_t n)
{
	uint32_t bit = filter_bit(wire, n);
	if (n == 0 || !(k->filter[bit / 64] >> bit % 64 & 1))
		return NULL;
	const struct known *s = slot_of((struct known_hosts *)k, wire, n);
	return s->wire ? s : NULL;
}

/* NULL if the data outgrow the table: a build that has such data fails its tests. */
static struct known *enter(struct known_hosts *k, const uint8_t *wire, size_t n)
{
	struct known *s = slot_of(k, wire, n);
	if (s->wire)
		return s;
	if (k->used >= N_KNOWN / 2)
		return NULL;
	uint32_t bit = filter_bit(wire, n);
	k->filter[bit / 64] |= UINT64_C(1) << bit % 64;
	k->used++;
	*s = (struct known){ .wire = wire, .n = n };
	return s;
}

static void add_host(struct build *b, struct known_hosts *k, const char *text, enum host_kind kind,
		     const char *what, bool companion)
{
	struct name name;
	if (name_from_text(&name, text, strlen(text)) != NAME_OK)
		return;
	uint8_t *wire = arena_get(b->a, name.len);
	memcpy(wire, name.wire, name.len);
	k->v = arena_grow(b->a, k->v, k->n, &k->cap, sizeof(*k->v));
	k->v[k->n++] = (struct host){ wire, text, what, name.len, kind, companion };
	struct known *s = enter(k, wire, name.len);
	if (!s)
		return;
	if (kind == HOST_PRESET) {
		s->preset = s->preset ? s->preset : (uint32_t)k->n;
		return;
	}
	s->self = s->self ? s->self : (uint32_t)k->n;
	for (size_t at = wire[0] + 1u; kind != HOST_SHARED && at < name.len; at += wire[at] + 1u) {
		s = enter(k, wire + at, name.len - at);
		if (s)
			s->below = s->below ? s->below : (uint32_t)k->n;
	}
}

/* [kind what], then a host a line; # is a comment. */
static void read_known(struct build *b, struct known_hosts *k)
{
	static const char *const kinds[] = { "shared ", "resolver ", "ech ", "store " };
	enum host_kind kind = HOST_SHARED;
	const char *what = "";
	for (const char *s = known_hosts_text; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		size_t n = strcspn(s, "\n");
		if (n == 0 || *s == '#')
			continue;
		if (*s != '[') {
			add_host(b, k, arena_text(b->a, s, n), kind, what, false);
			continue;
		}
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			size_t len = strlen(kinds[i]);
			if (strncmp(s + 1, kinds[i], len) != 0)
				continue;
			kind = (enum host_kind)i;
			what = arena_text(b->a, s + 1 + len, n - len - 2);
		}
	}
}

static void take_preset_host(struct build *b, void *to, const char *preset, const char *host,
			     bool companion)
{
	add_host(b, to, host, HOST_PRESET, preset, companion);
}

static const struct known_hosts *known(struct build *b)
{
	if (b->known)
		return b->known;
	struct known_hosts *k = arena_get(b->a, sizeof(*k));
	read_known(b, k);
	b->known = k;
	return k;
}

/* ---- shared services, resolvers, stores --------------------------------------------------------- */

void check_shared(struct build *b, struct pos at, const uint8_t *wire, size_t n, const char *lift)
{
	const struct known_hosts *k = known(b);
	uint8_t padded[NAME_MAX_WIRE + ARENA_SLACK] = { 0 };
	char text[NAME_TEXT_SIZE];
	memcpy(padded, wire, n);
	const struct known *s = find(k, padded, n);
	struct name name;
	if (!s || !s->self || k->v[s->self - 1].kind != HOST_SHARED ||
	    name_from_wire(&name, padded, n + 1, NULL) != NAME_OK)
		return;
	name_to_text(&name, text);
	lint_say(b, at, LINT_BROAD_WILDCARD, lift, "\"*.%s\" covers %s", text,
		 k->v[s->self - 1].what);
}

static void say_host(struct build *b, struct pos at, const struct host *h, const char *lift,
		     bool below)
{
	static const enum lint_code codes[] = { [HOST_RESOLVER] = LINT_OPEN_RESOLVER,
						[HOST_ECH] = LINT_ECH_NAME,
						[HOST_STORE] = LINT_OPEN_STORE };
	const char *covers = below ? "this covers " : "", *which = below ? ", which" : "";
	if (h->kind == HOST_RESOLVER)
		lint_say_some(b, at, codes[h->kind], lift, "%s%s%s resolves names over HTTPS: %s",
			      covers, h->text, which, h->what);
	else if (h->kind == HOST_ECH)
		lint_say_some(b, at, codes[h->kind], lift,
			      "%s%s%s is the outer name of encrypted hellos: %s", covers, h->text,
			      which, h->what);
	else if (h->kind == HOST_STORE)
		lint_say_some(b, at, codes[h->kind], lift, "%s%s%s takes what a guest sends: %s",
			      covers, h->text, which, h->what);
}

/* Does the layer deny the host itself? */
static bool denies(const struct lookup *l, uint32_t layer, const struct host *h)
{
	const struct entry *e = entry_about(l, layer, ENTRY_EXACT, h->wire, h->n);
	for (; e; e = l->next[e->order] ? &l->b->entries[l->next[e->order] - 1] : NULL)
		if (e->deny)
			return true;
	return false;
}

static void check_name(struct build *b, const struct lookup *l, const struct entry *e,
		       struct pos at, const uint8_t *wire, size_t n, bool below)
{
	const struct known_hosts *k = b->known;
	const struct known *s = find(k, wire, n);
	uint32_t i = !s ? 0 : below ? s->below : s->self;
	if (below && s && s->self && k->v[s->self - 1].kind == HOST_SHARED)
		return; /* check_shared() said so, and more */
	if (i && k->v[i - 1].kind != HOST_SHARED && !denies(l, e->layer, &k->v[i - 1]))
		say_host(b, at, &k->v[i - 1], e->terms->lint_allow, below);
}

void check_hosts(struct build *b, const struct lookup *l, const struct entry *e)
{
	if (e->deny || e->preset || e->kind == ENTRY_CIDR)
		return;
	known(b);
	if (e->kind != ENTRY_LIST) {
		check_name(b, l, e, e->pos, e->wire, e->wire_len, e->kind == ENTRY_BELOW);
		return;
	}
	const uint8_t *p = e->list->bytes;
	for (size_t i = 0; i < e->list->n; i++, p += p[1] + 2u) {
		struct pos at = { e->list->file, e->list->lines[i], 1 };
		check_name(b, l, e, at, p + 2, p[1], p[0]);
	}
}

/* ---- companions --------------------------------------------------------------------------------- */

static bool lists_name(const struct entry *e, const uint8_t *wire, size_t n)
{
	const uint8_t *p = e->list->bytes;
	for (size_t i = 0; i < e->list->n; i++, p += p[1] + 2u) {
		if (!p[0] && p[1] == n && memcmp(p + 2, wire, n) == 0)
			return true;
		if (p[0] && p[1] < n && memcmp(p + 2, wire + n - p[1], p[1]) == 0)
			return true;
	}
	return false;
}

/* Does a list of some layer that the profile sees hold the name? */
static bool in_lists(const struct lookup *l, const struct profile *p, const struct host *h)
{
	for (size_t i = 0; l->n_lists && i < l->b->n_entries; i++) {
		const struct entry *e = &l->b->entries[i];
		if (e->kind != ENTRY_LIST || !lists_name(e, h->wire, h->n))
			continue;
		for (uint32_t j = 0; j < p->n_sees; j++)
			if (p->sees[j] == e->layer)
				return true;
	}
	return false;
}

/* Does the profile say anything about the host, be it that it is denied? */
static bool says_something(const struct lookup *l, const struct profile *p, const struct host *h)
{
	for (uint32_t i = 0; i < p->n_sees; i++)
		if (entry_about(l, p->sees[i], ENTRY_EXACT, h->wire, h->n) ||
		    wildcard_above(l, p->sees[i], h->wire, h->n, false) ||
		    wildcard_above(l, p->sees[i], h->wire, h->n, true))
			return true;
	return in_lists(l, p, h);
}

static void check_companions_of(struct build *b, const struct lookup *l, const struct entry *e,
				const char *preset)
{
	const struct known_hosts *k = b->known;
	const struct profile *p = &b->drafts[e->layer - 1].p;
	const char *missing = NULL;
	for (size_t i = 0; i < k->n; i++) {
		const struct host *h = &k->v[i];
		if (h->kind != HOST_PRESET || !h->companion || strcmp(h->what, preset) != 0 ||
		    says_something(l, p, h))
			continue;
		missing = missing ? arena_printf(b->a, "%s, %s", missing, h->text) : h->text;
	}
	if (missing)
		lint_say(
			b, e->pos, LINT_COMPANION_MISSING, e->terms->lint_allow,
			"\"%.100s\" alone is not enough for its usual clients, which also need %s; "
			"presets: [%s] lists them",
			e->pattern, missing, preset);
}

static bool is_own_name(const struct build *b, const struct entry *e)
{
	return e->kind == ENTRY_EXACT && !e->deny && !e->preset && e->layer != 0 &&
	       e->layer <= b->n_drafts;
}

void check_companions(struct build *b, const struct lookup *l)
{
	struct known_hosts *k = (struct known_hosts *)known(b);
	preset_hosts(b, take_preset_host, k);
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct entry *e = &b->entries[i];
		const struct known *s = is_own_name(b, e) ? find(k, e->wire, e->wire_len) : NULL;
		const struct host *h = s && s->preset ? &k->v[s->preset - 1] : NULL;
		if (h && !h->companion)
			check_companions_of(b, l, e, h->what);
	}
}
