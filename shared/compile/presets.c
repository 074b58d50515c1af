/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in presets: data files of presets/, embedded at build time -> entries of a layer. Must
 * never list a wildcard.
 */
#include <string.h>

#include "shared/compile/build.h"

/* How far a host belongs to what a preset is for. */
enum level {
	LEVEL_STRICT,  /* the registry or service itself */
	LEVEL_DEFAULT, /* companions without which the usual client fails */
	LEVEL_FULL     /* what else belongs to it; stores that many share among them */
};

static const char *const level_words[] = { "strict", "default", "full" };
static const char *const out_words[] = { "none", "token", "relay" };

/* One item of `hosts`: labels of one registrable domain. */
struct group {
	struct pos pos;
	const struct node *domain, *labels;
	int level, out;
	uint8_t protocols;
	const char *reason;
};

struct preset {
	const struct node *name, *about; /* for people who read the file */
	const struct node *hosts;
	const struct node *from;
	int level;
};

static const char *preset_name(const void *table, size_t i)
{
	(void)table;
	return preset_at(i)->name;
}

static size_t preset_count(void)
{
	size_t n = 0;
	while (preset_at(n))
		n++;
	return n;
}

int preset_index(const char *name)
{
	for (size_t i = 0; preset_at(i); i++)
		if (strcmp(preset_at(i)->name, name) == 0)
			return (int)i;
	return -1;
}

int find_preset(struct build *b, const struct node *name)
{
	if (!want_text(b, name, "a preset"))
		return -1;
	int i = preset_index(name->text);
	if (i >= 0)
		return i;
	const char *near = nearest(name->text, preset_name, NULL, preset_count());
	diag_error(b->d, name->pos, "unknown-preset", "there is no preset \"%.60s\"%s%s%s",
		   name->text, near ? "; did you mean \"" : " (see --list-presets)",
		   near ? near : "", near ? "\"?" : "");
	return -1;
}

/* ---- the data files ----------------------------------------------------------------------------- */

static void read_level(struct build *b, const struct node *k, const struct node *v, void *to)
{
	*(int *)to = read_word(b, v, k->text, level_words, 3);
}

static void read_out(struct build *b, const struct node *k, const struct node *v, void *to)
{
	*(int *)to = read_word(b, v, k->text, out_words, 3);
}

static void read_plain_http(struct build *b, const struct node *k, const struct node *v, void *to)
{
	bool also = false;
	read_bool(b, k, v, &also);
	*(uint8_t *)to = also ? PROTO_HTTPS | PROTO_HTTP : PROTO_HTTPS;
}

static void keep_value(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	*(const struct node **)to = v;
}

/* The domain is the one key with a dot; the others are of the table. */
static bool read_group(struct build *b, const struct node *v, struct group *g)
{
	static const struct key keys[] = {
		{ "level", read_level, offsetof(struct group, level) },
		{ "out", read_out, offsetof(struct group, out) },
		{ "reason", read_text, offsetof(struct group, reason) },
		{ "http", read_plain_http, offsetof(struct group, protocols) },
	};
	*g = (struct group){ v->pos, NULL, NULL, LEVEL_FULL, 0, PROTO_HTTPS, "" };
	if (!want_map(b, v, "a group of hosts"))
		return false;
	node_for_each_pair(k, value, v)
	{
		size_t i = 0;
		while (i < sizeof(keys) / sizeof(keys[0]) && strcmp(keys[i].name, k->text) != 0)
			i++;
		if (i < sizeof(keys) / sizeof(keys[0])) {
			keys[i].read(b, k, value, (char *)g + keys[i].off);
		} else {
			g->domain = k;
			g->labels = value;
		}
	}
	return g->domain && want_seq(b, g->labels, "the labels of a domain") && g->level >= 0 &&
	       g->out >= 0;
}

static void add_host(struct build *b, const struct group *g, const struct node *label,
		     uint32_t layer, const struct terms *t)
{
	struct name n;
	const char *host = g->domain->text;
	if (strcmp(label->text, "@") != 0)
		host = arena_printf(b->a, "%s.%s", label->text, host);
	if (!parse_name(b, label->pos, host, strlen(host), &n, NULL))
		return;
	uint8_t *wire = arena_get(b->a, n.len);
	memcpy(wire, n.wire, n.len);
	struct entry *e = add_entry(b);
	e->pos = label->pos;
	e->layer = layer;
	e->kind = ENTRY_EXACT;
	e->preset = true;
	e->wire = wire;
	e->wire_len = n.len;
	e->pattern = host;
	e->terms = t;
}

static void add_group(struct build *b, const struct group *g, uint32_t layer)
{
	struct terms *t = arena_get(b->a, sizeof(*t));
	*t = b->plain_allow;
	t->protocols = g->protocols;
	t->reason = g->reason;
	t->out = out_words[g->out];
	node_for_each(label, g->labels) if (want_text(b, label, "a label"))
		add_host(b, g, label, layer, t);
}

static bool parse_preset(struct build *b, size_t i, struct preset *p)
{
	static const struct key keys[] = {
		{ "preset", keep_value, offsetof(struct preset, name) },
		{ "about", keep_value, offsetof(struct preset, about) },
		{ "hosts", keep_value, offsetof(struct preset, hosts) },
		{ "from", keep_value, offsetof(struct preset, from) },
		{ "level", read_level, offsetof(struct preset, level) },
	};
	const struct preset_info *info = preset_at(i);
	const struct node *docs = NULL;
	const char *shown = arena_printf(b->a, "preset:%s", info->name);
	uint32_t file = add_file(b, shown, shown);
	*p = (struct preset){ .level = LEVEL_FULL };
	if (!yaml_parse(b->a, b->d, file, info->text, strlen(info->text), &docs) || !docs)
		return false;
	return read_map(b, docs, "a preset", KEYS(keys), p);
}

static void add_hosts(struct build *b, const struct preset *p, int level, uint32_t layer)
{
	if (!p->hosts || !want_seq(b, p->hosts, "hosts"))
		return;
	node_for_each(item, p->hosts)
	{
		struct group g;
		if (read_group(b, item, &g) && g.level <= level)
			add_group(b, &g, layer);
	}
}

void read_preset(struct build *b, size_t preset, uint32_t layer)
{
	struct preset p, part;
	if (!parse_preset(b, preset, &p))
		return;
	add_hosts(b, &p, p.level, layer);
	if (!p.from || !want_seq(b, p.from, "from"))
		return;
	node_for_each(item, p.from)
	{
		int i = find_preset(b, item);
		if (i >= 0 && parse_preset(b, (size_t)i, &part))
			add_hosts(b, &part, p.level, layer);
	}
}

static void take_group(struct build *b, const struct group *g, const char *preset,
		       preset_host_fn *take, void *to)
{
	node_for_each(label, g->labels)
	{
		const char *host = g->domain->text;
		if (strcmp(label->text, "@") != 0)
			host = arena_printf(b->a, "%s.%s", label->text, host);
		take(b, to, preset, host, g->level == LEVEL_DEFAULT);
	}
}

void preset_hosts(struct build *b, preset_host_fn *take, void *to)
{
	for (size_t i = 0; preset_at(i); i++) {
		struct preset p;
		if (!parse_preset(b, i, &p) || !p.hosts || !want_seq(b, p.hosts, "hosts"))
			continue;
		node_for_each(item, p.hosts)
		{
			struct group g;
			if (read_group(b, item, &g) && g.level != LEVEL_FULL)
				take_group(b, &g, preset_at(i)->name, take, to);
		}
	}
}

/* ---- for people --------------------------------------------------------------------------------- */

bool preset_print(const char *name, FILE *to, struct diags *d)
{
	struct model m = { .diags = d };
	struct build b = { .m = &m, .a = &m.arena, .d = d };
	int i = preset_index(name);
	if (i < 0)
		return false;
	set_plain_terms(&b);
	read_preset(&b, (size_t)i, 0);
	for (size_t j = 0; j < b.n_entries; j++)
		fprintf(to, "%s\t%s\t%s\n", b.entries[j].pattern, b.entries[j].terms->out,
			b.entries[j].terms->reason);
	arena_fini(&m.arena);
	return true;
}
