/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.bin -> YAML (dump.h). Must never print anything that compiles to a policy that permits more,
 * and never let a string of the file become syntax.
 */
#include "shared/compile/dump.h"

#include <stdlib.h>
#include <string.h>

struct dump {
	struct walk w;
	struct out o;
	FILE *to;
};

static void flush(struct dump *d)
{
	fwrite(out_get(&d->o), 1, d->o.n, d->to);
	d->o.n = 0;
}

static const char *text_of(const struct dump *d, uint32_t off)
{
	return walk_info(&d->w, off);
}

/* ---- entries ---- */

static uint16_t get16(const uint8_t *b)
{
	return (uint16_t)(b[0] | b[1] << 8);
}

static const uint8_t *put_methods(struct out *o, const uint8_t *b, unsigned n)
{
	out_text(o, n ? "methods: [" : "");
	for (unsigned i = 0; i < n; i++, b += 1 + b[0]) {
		out_text(o, i ? ", " : "");
		out_yaml(o, (const char *)b + 1, b[0]);
	}
	out_text(o, n ? "]" : "");
	return b;
}

static const uint8_t *put_paths(struct out *o, const uint8_t *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++, b += 3 + get16(b + 1)) {
		struct out path = { 0 };
		out_bytes(&path, (const char *)b + 3, get16(b + 1));
		out_text(&path, b[0] ? "*" : "");
		out_text(o, i ? ", " : "paths: [");
		out_yaml(o, out_get(&path), path.n);
		out_fini(&path);
	}
	out_text(o, n ? "]" : "");
	return b;
}

void dump_http(struct out *o, const struct walk *w, uint32_t at)
{
	const uint8_t *b = w->p->http + at;
	unsigned n = get16(b);
	b += 2;
	out_text(o, "[");
	for (unsigned i = 0; i < n; i++) {
		unsigned methods = get16(b), paths = get16(b + 2);
		out_text(o, i ? ", {" : "{");
		b = put_methods(o, b + 4, methods);
		out_text(o, methods && paths ? ", " : "");
		b = put_paths(o, b, paths);
		out_text(o, "}");
	}
	out_text(o, "]");
}

static void put_ports(struct out *o, const char *sep, const uint32_t *w)
{
	out_printf(o, "%sports: [", sep);
	for (uint32_t i = 1; i <= w[0]; i++) {
		unsigned lo = w[i] & 0xffff, hi = w[i] >> 16;
		out_printf(o, lo == hi ? "%s%u" : "%s\"%u-%u\"", i > 1 ? ", " : "", lo, hi);
	}
	out_text(o, "]");
}

static void put_protocols(struct out *o, const char *before, unsigned bits)
{
	static const char *const names[] = { "https", "http", "tcp" };
	const char *sep = "";
	out_printf(o, "%sprotocols: [", before);
	for (unsigned i = 0; i < 3; i++)
		if (bits & 1u << i) {
			out_printf(o, "%s%s", sep, names[i]);
			sep = ", ";
		}
	out_text(o, "]");
}

void dump_terms(struct out *o, const struct walk *w, uint32_t rule, const char *sep)
{
	const struct policy *p = w->p;
	const struct fmt_rule *r = &p->rules[rule];
	const char *limits = walk_term(w, TERM_RULE_LIMITS, rule);
	if (r->flags & RULE_DENY)
		return;
	if (r->ports != FMT_NONE)
		put_ports(o, sep, p->ports + r->ports);
	unsigned usual =
		r->flags & RULE_CIDR ? (unsigned)PROTO_TCP : (unsigned)(PROTO_HTTPS | PROTO_HTTP);
	if (r->protocols != usual)
		put_protocols(o, sep, r->protocols);
	if (r->http != FMT_NONE) {
		out_printf(o, "%shttp: ", sep);
		dump_http(o, w, r->http);
	}
	if (r->flags & RULE_UNSEEN)
		out_printf(o, "%sunseen: allow", sep);
	if (r->upgrades)
		out_printf(o, "%supgrade: [websocket]", sep);
	if (r->flags & RULE_PRIVATE && !walk_term(w, TERM_RULE_ADDITION, rule))
		out_printf(o, "%sprivate: true", sep);
	if (r->expires) {
		out_printf(o, "%sexpires: \"", sep);
		out_time(o, r->expires);
		out_text(o, "\"");
	}
	if (limits)
		out_printf(o, "%s%.*s", sep, (int)strcspn(limits, "\n"), limits);
}

static void put_lifts(struct out *o, const char *before, const char *codes)
{
	const char *sep = "";
	out_printf(o, "%slint: {allow: [", before);
	for (const char *s = codes; *s;) {
		size_t n = strcspn(s, " ");
		if (n) {
			out_text(o, sep);
			out_yaml(o, s, n);
			sep = ", ";
		}
		s += n + (s[n] != '\0');
	}
	out_text(o, "], why: \"lifted in the policy that was compiled\"}");
}

static void put_metadata(struct dump *d, uint32_t rule, const char *sep)
{
	const struct fmt_rule_info *i = &d->w.p->rule_info[rule];
	const struct {
		const char *key;
		uint32_t off;
	} texts[] = { { "owner", i->owner },
		      { "reason", i->reason },
		      { "data", i->data },
		      { "if_unreachable", i->if_unreachable },
		      { "environment", i->environment },
		      { "added", i->added },
		      { "review_by", i->review_by } };
	for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++) {
		const char *s = text_of(d, texts[k].off);
		if (!*s)
			continue;
		out_printf(&d->o, "%s%s: ", sep, texts[k].key);
		out_yaml(&d->o, s, strlen(s));
	}
	if (*text_of(d, i->labels)) {
		out_printf(&d->o, "%slabels: ", sep);
		out_yaml_labels(&d->o, text_of(d, i->labels));
	}
	const char *lifts = walk_note(&d->w, NOTE_LIFTS, rule);
	if (lifts)
		put_lifts(&d->o, sep, lifts);
}

/* Where the entry stood, as a comment. A file name that could end it is left out. */
static void put_place(struct dump *d, uint32_t rule)
{
	const struct fmt_rule_info *i = &d->w.p->rule_info[rule];
	const char *file = text_of(d, i->file);
	for (const char *s = file; *s; s++)
		if ((unsigned char)*s < 0x21 || (unsigned char)*s >= 0x7f)
			file = "?";
	out_printf(&d->o, "  # %s:%u\n", file, i->line);
}

static void put_name(struct out *o, const struct walk *w, const struct walk_name *n)
{
	char buf[NAME_TEXT_SIZE + 2] = "*.";
	bool below = w->p->rules[n->rule].flags & RULE_BELOW;
	size_t len = walk_name_text(w, n, buf + 2);
	if (below)
		out_yaml(o, buf, len + 2);
	else
		out_yaml(o, buf + 2, len);
}

static void put_subject(struct dump *d, uint32_t rule)
{
	if (d->w.p->rules[rule].flags & RULE_CIDR) {
		struct prefix p = walk_prefix(&d->w, rule);
		out_text(&d->o, "cidr: \"");
		out_prefix(&d->o, &p);
		out_text(&d->o, "\"");
		return;
	}
	out_text(&d->o, "domain: ");
	put_name(&d->o, &d->w, &d->w.names[d->w.first_name[rule]]);
}

static void put_single(struct dump *d, const char *indent, uint32_t rule)
{
	size_t start = d->o.n;
	out_printf(&d->o, "%s- {", indent);
	put_subject(d, rule);
	size_t end = d->o.n;
	dump_terms(&d->o, &d->w, rule, ", ");
	put_metadata(d, rule, ", ");
	bool plain = d->o.n == end && !(d->w.p->rules[rule].flags & RULE_CIDR);
	if (plain) {
		d->o.n = start;
		out_printf(&d->o, "%s- ", indent);
		put_name(&d->o, &d->w, &d->w.names[d->w.first_name[rule]]);
	} else {
		out_text(&d->o, "}");
	}
	put_place(d, rule);
}

/* Names of the rules of one list, as lines. */
static void put_list_names(struct dump *d, const char *indent, const uint32_t *rules, uint32_t n)
{
	char buf[NAME_TEXT_SIZE];
	for (uint32_t i = 0; i < n; i++) {
		bool below = d->w.p->rules[rules[i]].flags & RULE_BELOW;
		for (uint64_t k = d->w.first_name[rules[i]]; k < d->w.first_name[rules[i] + 1];
		     k++) {
			size_t len = walk_name_text(&d->w, &d->w.names[k], buf);
			out_printf(&d->o, "%s      %s", indent, below ? "*." : "");
			out_bytes(&d->o, buf, len);
			out_text(&d->o, "\n");
			if (d->o.n > 1 << 16)
				flush(d);
		}
	}
}

/* A list: its names as a block, one a line, so that a million of them stay readable. */
static void put_list(struct dump *d, const char *indent, const uint32_t *rules, uint32_t n)
{
	const char *pattern = text_of(d, d->w.p->rule_info[rules[0]].pattern);
	struct out sep = { 0 };
	out_printf(&sep, "\n%s  ", indent);
	out_printf(&d->o, "%s- list:\n%s    path: ", indent, indent);
	out_yaml(&d->o, pattern + 5, strlen(pattern + 5));
	out_printf(&d->o, "\n%s    names: |\n", indent);
	put_list_names(d, indent, rules, n);
	d->o.n--; /* the line feed: each key begins with one */
	dump_terms(&d->o, &d->w, rules[0], out_get(&sep));
	put_metadata(d, rules[0], out_get(&sep));
	out_text(&d->o, "\n");
	out_fini(&sep);
}

enum part { PART_ALLOW, PART_ADDITIONS, PART_DENY };

static enum part part_of(const struct dump *d, uint32_t rule)
{
	if (d->w.p->rules[rule].flags & RULE_DENY)
		return PART_DENY;
	return walk_term(&d->w, TERM_RULE_ADDITION, rule) ? PART_ADDITIONS : PART_ALLOW;
}

/* The entries of a layer that belong to one list of the language, below `key`. */
static bool put_entries(struct dump *d, const char *key, const char *indent, uint32_t layer,
			enum part part)
{
	const struct walk *w = &d->w;
	bool any = false;
	for (uint32_t i = w->layer_at[layer], n; i < w->layer_at[layer + 1]; i += n) {
		const uint32_t *rules = w->order + i;
		uint32_t place = w->p->rule_info[rules[0]].order;
		for (n = 1; i + n < w->layer_at[layer + 1]; n++)
			if (w->p->rule_info[rules[n]].order != place)
				break;
		if (part_of(d, rules[0]) != part || !walk_has_subject(w, rules[0]))
			continue;
		if (!any)
			out_text(&d->o, key);
		any = true;
		if (walk_is_list(w, rules[0]))
			put_list(d, indent, rules, n);
		else
			put_single(d, indent, rules[0]);
		flush(d);
	}
	return any;
}

/* ---- profiles ---- */

/* The lines of a text, each behind the indent. */
static void put_block(struct out *o, const char *indent, const char *text)
{
	for (const char *s = text; *s; s += strcspn(s, "\n"), s += *s == '\n')
		out_printf(o, "%s%.*s\n", indent, (int)strcspn(s, "\n"), s);
}

struct family {
	const uint32_t *parents; /* profiles that it extends directly */
	uint32_t n_parents;
	const uint32_t *presets; /* layers of its presets, all of them */
	uint32_t n_presets;
};

static bool holds(const uint32_t *v, uint32_t n, uint32_t x)
{
	for (uint32_t i = 0; i < n; i++)
		if (v[i] == x)
			return true;
	return false;
}

/*
 * What the profile must extend so that it sees what it sees: the profiles among its layers, in order,
 * without those that an earlier one brings along.
 */
static struct family family_of(struct dump *d, uint32_t profile)
{
	struct walk *w = &d->w;
	struct family f = { 0 };
	uint32_t n, n_brought = 0;
	const uint32_t *sees = walk_sees(w, profile, &n);
	uint32_t *parents = arena_array(&w->arena, n + (size_t)1, sizeof(*parents));
	uint32_t *presets = arena_array(&w->arena, n + (size_t)1, sizeof(*presets));
	uint32_t *brought = arena_array(&w->arena, n + (size_t)1, sizeof(*brought));
	for (uint32_t i = 1; i < n; i++) {
		if (w->p->layers[sees[i]].kind == LAYER_KIND_PRESET) {
			presets[f.n_presets++] = sees[i];
			continue;
		}
		if (holds(brought, n_brought, sees[i]))
			continue;
		uint32_t parent = walk_find_profile(w, walk_layer_name(w, sees[i])), m;
		if (parent == FMT_NONE)
			continue;
		parents[f.n_parents++] = parent;
		const uint32_t *theirs = walk_sees(w, parent, &m);
		for (uint32_t k = 0; k < m; k++)
			if (!holds(brought, n_brought, theirs[k]) && holds(sees, n, theirs[k]))
				brought[n_brought++] = theirs[k];
	}
	f.parents = parents;
	f.presets = presets;
	return f;
}

static void put_family(struct dump *d, const char *indent, const struct family *f)
{
	struct out *o = &d->o;
	for (uint32_t i = 0; i < f->n_parents; i++) {
		const char *name = d->w.p->strings + d->w.p->profiles[f->parents[i]].name;
		if (i == 0)
			out_printf(o, "%sextends: [", indent);
		out_text(o, i ? ", " : "");
		out_yaml(o, name, strlen(name));
	}
	out_text(o, f->n_parents ? "]\n" : "");
	out_printf(o, "%spresets: [", indent);
	for (uint32_t i = 0; i < f->n_presets; i++) {
		const char *name = walk_layer_name(&d->w, f->presets[i]);
		name += strncmp(name, "preset:", 7) == 0 ? 7 : 0;
		out_text(o, i ? ", " : "");
		out_yaml(o, name, strlen(name));
	}
	out_text(o, "]\n");
}

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Would the profile have this text without saying anything? */
static bool inherits_text(const struct dump *d, enum fmt_text_kind kind, uint32_t profile,
			  const struct family *f, const char *dflt)
{
	const char *own = walk_term(&d->w, kind, profile);
	for (uint32_t i = 0; i < f->n_parents; i++)
		if (!same_text(walk_term(&d->w, kind, f->parents[i]), own))
			return false;
	return f->n_parents || same_text(own, dflt);
}

/* The limits that a profile has which says nothing. */
static void default_limits(struct out *o)
{
	const char *sep = "";
	out_text(o, "limits: {");
#define X(field, key, octets, dflt)                                                                \
	if (dflt) {                                                                                \
		out_printf(o, "%s" key ": %s", sep, dflt ? dflt : "");                             \
		sep = ", ";                                                                        \
	}
	LIMITS(X)
#undef X
	out_text(o, "}\n");
}

static void put_qtypes(struct dump *d, const char *indent, uint32_t profile)
{
	const uint16_t *q = d->w.p->qtypes + d->w.p->profiles[profile].qtypes;
	out_printf(&d->o, "%s  query_types: [", indent);
	for (uint16_t i = 1; i <= q[0]; i++) {
		out_text(&d->o, i > 1 ? ", " : "");
		out_qtype(&d->o, q[i]);
	}
	out_text(&d->o, "]\n");
}

/* Lines of a text that none of the parents has. */
static void put_own_lines(struct dump *d, const char *indent, uint32_t profile,
			  const struct family *f, bool custom)
{
	const char *text = walk_term(&d->w, TERM_RESOLVERS, profile);
	bool any = false;
	for (const char *s = text ? text : ""; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		size_t n = strcspn(s, "\n") + 1;
		bool inherited = false;
		if ((strncmp(s, "custom_resolvers: [", 19) == 0) != custom)
			continue;
		for (uint32_t i = 0; i < f->n_parents && !inherited; i++) {
			const char *theirs = walk_term(&d->w, TERM_RESOLVERS, f->parents[i]);
			for (const char *t = theirs ? theirs : ""; *t && !inherited;
			     t += strcspn(t, "\n"), t += *t == '\n')
				inherited = strncmp(s, t, n) == 0;
		}
		if (inherited)
			continue;
		if (!custom && !any)
			out_printf(&d->o, "%sresolvers:\n", indent);
		any = true;
		out_printf(&d->o, "%s  %.*s", indent, (int)n, s);
	}
}

/* Everything that an operator can set is said, so that nothing depends on what parents say. */
static void put_dns(struct dump *d, const char *indent, uint32_t profile, const struct family *f)
{
	const char *term = walk_term(&d->w, TERM_DNS, profile);
	const char *text = term ? term : "";
	out_printf(&d->o, "%sdns:\n", indent);
	put_qtypes(d, indent, profile);
	out_printf(&d->o, "%s  deny_ttl: %us\n", indent, d->w.p->profiles[profile].deny_ttl_s);
	if (!inherits_text(d, TERM_DNS, profile, f, NULL)) {
		out_printf(&d->o, "%s  ancestors: %s\n", indent,
			   strstr(text, "ancestors: nodata\n") ? "nodata" : "nxdomain");
		out_printf(&d->o, "%s  aaaa: %s\n", indent,
			   strstr(text, "aaaa: false\n") ? "false" : "true");
		const char *ranges = strstr(text, "private_ranges: ");
		out_printf(&d->o, "%s  %.*s\n", indent, ranges ? (int)strcspn(ranges, "\n") : 18,
			   ranges ? ranges : "private_ranges: []");
	}
	put_own_lines(d, indent, profile, f, true);
}

static void put_terms_of_profile(struct dump *d, const char *indent, uint32_t profile,
				 const struct family *f)
{
	static const enum fmt_text_kind own[] = { TERM_CREDENTIALS, TERM_TASKS };
	const struct fmt_profile *p = &d->w.p->profiles[profile];
	struct out dflt = { 0 };
	const char *text = walk_term(&d->w, TERM_LIMITS, profile);
	default_limits(&dflt);
	if (text && !inherits_text(d, TERM_LIMITS, profile, f, out_get(&dflt)))
		put_block(&d->o, indent, text);
	out_fini(&dflt);
	if (p->flags & PROFILE_OBSERVE)
		out_printf(&d->o, "%smode: observe\n", indent);
	bool ech = p->flags & PROFILE_ECH_ALLOW, same = f->n_parents || !ech;
	for (uint32_t i = 0; i < f->n_parents; i++)
		same = same && !(d->w.p->profiles[f->parents[i]].flags & PROFILE_ECH_ALLOW) == !ech;
	if (!same)
		out_printf(&d->o, "%stls: {ech: %s}\n", indent, ech ? "allow" : "deny");
	put_dns(d, indent, profile, f);
	put_own_lines(d, indent, profile, f, false);
	text = walk_term(&d->w, TERM_PROXY, profile);
	if (text && !inherits_text(d, TERM_PROXY, profile, f, NULL))
		put_block(&d->o, indent, text);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (walk_term(&d->w, own[i], profile))
			put_block(&d->o, indent, walk_term(&d->w, own[i], profile));
}

static void put_profile(struct dump *d, const char *indent, uint32_t profile)
{
	const struct family f = family_of(d, profile);
	uint32_t layer = walk_own_layer(&d->w, profile);
	struct out key = { 0 }, deeper = { 0 };
	put_family(d, indent, &f);
	put_terms_of_profile(d, indent, profile, &f);
	out_printf(&deeper, "%s  ", indent);
	static const struct {
		const char *key;
		enum part part;
	} parts[] = { { "allowlist", PART_ALLOW },
		      { "allowlist_additions", PART_ADDITIONS },
		      { "deny", PART_DENY } };
	for (size_t i = 0; layer != FMT_NONE && i < 3; i++) {
		key.n = 0;
		out_printf(&key, "%s%s:\n", indent, parts[i].key);
		put_entries(d, out_get(&key), out_get(&deeper), layer, parts[i].part);
	}
	out_fini(&key);
	out_fini(&deeper);
	flush(d);
}

/* ---- the whole ---- */

static void put_root(struct dump *d)
{
	const struct policy *p = d->w.p;
	const char *revision = text_of(d, p->info->revision),
		   *audience = text_of(d, p->info->audience);
	const char *presets = text_of(d, p->info->presets_version);
	struct out *o = &d->o;
	out_printf(o, "version: 1\n");
	if (*revision) {
		out_text(o, "revision: ");
		out_yaml(o, revision, strlen(revision));
		out_text(o, "\n");
	}
	if (p->h->serial)
		out_printf(o, "serial: %llu\n", (unsigned long long)p->h->serial);
	if (*presets) {
		out_text(o, "presets_version: ");
		out_json(o, presets, strlen(presets));
		out_text(o, "\n");
	}
	for (const char *s = audience; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		out_text(o, s == audience ? "audience: [" : ", ");
		out_yaml(o, s, strcspn(s, "\n"));
	}
	out_text(o, *audience ? "]\n" : "");
}

static void put_all(struct dump *d)
{
	const struct policy *p = d->w.p;
	bool any = false;
	put_root(d);
	out_text(&d->o, "network:\n");
	put_profile(d, "  ", p->h->default_profile);
	put_entries(d, "never:\n", "  ", 0, PART_DENY);
	for (uint32_t i = 0; i < p->n_profiles; i++) {
		const char *name = p->strings + p->profiles[i].name;
		if (i == p->h->default_profile)
			continue;
		out_text(&d->o, any ? "  " : "profiles:\n  ");
		any = true;
		out_yaml(&d->o, name, strlen(name));
		out_text(&d->o, ":\n");
		put_profile(d, "    ", i);
	}
	out_text(&d->o, walk_note(&d->w, NOTE_SOURCES, 0));
	const char *policy = walk_term(&d->w, TERM_POLICY, 0);
	out_text(&d->o, policy ? policy : "");
	for (uint32_t i = 0; walk_term(&d->w, TERM_DOCUMENT, i); i++)
		out_printf(&d->o, "---\n%s", walk_term(&d->w, TERM_DOCUMENT, i));
	flush(d);
}

/* The policy that d->w holds, which it closes. */
static bool dump(struct dump *d, const char *what, char *err, size_t size)
{
	bool whole = walk_note(&d->w, NOTE_SOURCES, 0) != NULL;
	if (whole)
		put_all(d);
	else
		snprintf(err, size,
			 "%s: compiled by a version that did not keep the sources as written",
			 what);
	out_fini(&d->o);
	walk_close(&d->w);
	return whole;
}

bool policy_dump(const char *path, FILE *to, char *err, size_t size)
{
	struct dump d = { .to = to };
	return walk_open(&d.w, path, err, size) && dump(&d, path, err, size);
}

bool policy_dump_bytes(uint8_t *bytes, size_t len, FILE *to, char *err, size_t size)
{
	struct dump d = { .to = to };
	return walk_bytes(&d.w, bytes, len, err, size) && dump(&d, "the policy", err, size);
}
