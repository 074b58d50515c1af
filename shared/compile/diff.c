/* SPDX-License-Identifier: Apache-2.0 */
/* Two policies compared (diff.h). Must never call a change the same, or a widening anything else. */
#include "shared/compile/diff.h"

#include <stdlib.h>
#include <string.h>

#include "shared/compile/changes.h"

/* ---- changes ------------------------------------------------------------------------------------ */

void change_add(struct diff *d, const char *what, const char *subject, enum effect e,
		const char *detail)
{
	d->v = arena_grow(&d->arena, d->v, d->n, &d->cap, sizeof(*d->v));
	d->v[d->n++] = (struct change){ d->where, what, subject, detail, e };
	d->meant = d->meant || e != EFFECT_NONE;
}

const char *change_keep(struct diff *d, struct out *o)
{
	const char *s = arena_text(&d->arena, out_get(o), o->n);
	out_fini(o);
	return s;
}

const char *change_from_to(struct diff *d, const char *from, const char *to)
{
	return arena_printf(&d->arena, "%s -> %s", *from ? from : "(none)", *to ? to : "(none)");
}

size_t change_count(const struct diff *d, enum effect e)
{
	size_t n = 0;
	for (size_t i = 0; i < d->n; i++)
		n += d->v[i].effect == e;
	return n;
}

/* ---- profiles ---- */

static bool sees_name(struct diff *d, struct side *s, uint32_t profile, uint32_t kind,
		      const char *name)
{
	uint32_t n;
	const uint32_t *v = walk_sees(&s->w, profile, &n);
	(void)d;
	for (uint32_t i = 1; i < n; i++)
		if (s->w.p->layers[v[i]].kind == kind &&
		    strcmp(walk_layer_name(&s->w, v[i]), name) == 0)
			return true;
	return false;
}

/* Layers that `have` sees and `other` does not. */
static void compare_sees(struct diff *d, struct side *have, uint32_t profile, struct side *other,
			 uint32_t theirs, bool added)
{
	uint32_t n;
	const uint32_t *v = walk_sees(&have->w, profile, &n);
	for (uint32_t i = 1; i < n; i++) {
		uint32_t kind = have->w.p->layers[v[i]].kind;
		const char *name = walk_layer_name(&have->w, v[i]);
		if (sees_name(d, other, theirs, kind, name))
			continue;
		change_add(d, kind == LAYER_KIND_PRESET ? "presets" : "extends", name,
			   added ? EFFECT_WIDENED : EFFECT_NARROWED, added ? "added" : "removed");
	}
}

static const char *qtypes_of(struct diff *d, const struct side *s, const struct fmt_profile *f)
{
	struct out o = { 0 };
	const uint16_t *q = s->w.p->qtypes + f->qtypes;
	for (uint16_t i = 1; i <= q[0]; i++) {
		out_text(&o, i > 1 ? " " : "");
		out_qtype(&o, q[i]);
	}
	return change_keep(d, &o);
}

static bool qtypes_within(const uint16_t *a, const uint16_t *b)
{
	for (uint16_t i = 1, k = 1; i <= a[0]; i++) {
		while (k <= b[0] && b[k] < a[i])
			k++;
		if (k > b[0] || b[k] != a[i])
			return false;
	}
	return true;
}

static void compare_flags(struct diff *d, const struct fmt_profile *x, const struct fmt_profile *y)
{
	static const struct {
		unsigned bit;
		const char *what, *off, *on;
	} flags[] = { { PROFILE_OBSERVE, "mode", "enforce", "observe" },
		      { PROFILE_ECH_ALLOW, "tls.ech", "deny", "allow" } };
	for (size_t i = 0; i < 2; i++)
		if ((x->flags ^ y->flags) & flags[i].bit) {
			bool on = y->flags & flags[i].bit;
			change_add(d, flags[i].what, "", on ? EFFECT_WIDENED : EFFECT_NARROWED,
				   on ? change_from_to(d, flags[i].off, flags[i].on)
				      : change_from_to(d, flags[i].on, flags[i].off));
		}
	if (x->deny_ttl_s != y->deny_ttl_s) {
		change_add(d, "dns.deny_ttl", "", EFFECT_NONE,
			   arena_printf(&d->arena, "%us -> %us", x->deny_ttl_s, y->deny_ttl_s));
		d->meant = true;
	}
	const uint16_t *p = d->a.w.p->qtypes + x->qtypes, *q = d->b.w.p->qtypes + y->qtypes;
	bool less = qtypes_within(q, p), more = qtypes_within(p, q);
	if (!less || !more)
		change_add(d, "dns.query_types", "", less ? EFFECT_NARROWED : EFFECT_WIDENED,
			   change_from_to(d, qtypes_of(d, &d->a, x), qtypes_of(d, &d->b, y)));
}

/* A text without its key and without line feeds. */
static const char *flat(struct diff *d, const char *text)
{
	char *s = arena_text(&d->arena, text ? text : "", text ? strlen(text) : 0);
	size_t n = strlen(s);
	while (n && s[n - 1] == '\n')
		s[--n] = '\0';
	for (char *c = s; *c; c++)
		*c = *c == '\n' ? ' ' : *c;
	return s;
}

static void compare_texts(struct diff *d, uint32_t old, uint32_t new)
{
	static const struct {
		enum fmt_text_kind kind;
		const char *what;
		bool ordered; /* absent is less than present */
	} kinds[] = { { TERM_DNS, "dns", true },
		      { TERM_RESOLVERS, "resolvers", false },
		      { TERM_PROXY, "proxy", false },
		      { TERM_CREDENTIALS, "credentials", true },
		      { TERM_TASKS, "tasks", true } };
	const char *x = walk_term(&d->a.w, TERM_LIMITS, old),
		   *y = walk_term(&d->b.w, TERM_LIMITS, new);
	if (strcmp(x ? x : "", y ? y : "") != 0)
		change_add(d, "limits", "", worst_effect(compare_limits(d, x, y)),
			   change_from_to(d, flat(d, x), flat(d, y)));
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		x = walk_term(&d->a.w, kinds[i].kind, old);
		y = walk_term(&d->b.w, kinds[i].kind, new);
		if (strcmp(x ? x : "", y ? y : "") == 0)
			continue;
		enum effect e = !kinds[i].ordered ? EFFECT_NONE
				: y               ? EFFECT_WIDENED
						  : EFFECT_NARROWED;
		change_add(d, kinds[i].what, "", e, change_from_to(d, flat(d, x), flat(d, y)));
		d->meant = true;
	}
}

static void set_where(struct diff *d, const char *kind, const char *name)
{
	bool network = strcmp(kind, "profile ") == 0 && strcmp(name, "default") == 0;
	d->where = network ? "network" : arena_printf(&d->arena, "%s%s", kind, name);
}

static void compare_profile(struct diff *d, uint32_t old, uint32_t new)
{
	const struct side *s = new == FMT_NONE ? &d->a : &d->b;
	uint32_t i = new == FMT_NONE ? old : new;
	set_where(d, "profile ", s->w.p->strings + s->w.p->profiles[i].name);
	if (old == FMT_NONE || new == FMT_NONE)
		change_add(d, new == FMT_NONE ? "removed" : "added", "",
			   new == FMT_NONE ? EFFECT_NARROWED : EFFECT_WIDENED, "the profile");
	if (old != FMT_NONE && new != FMT_NONE) {
		compare_flags(d, &d->a.w.p->profiles[old], &d->b.w.p->profiles[new]);
		compare_sees(d, &d->b, new, &d->a, old, true);
		compare_sees(d, &d->a, old, &d->b, new, false);
		compare_texts(d, old, new);
	}
	compare_entries(d, old == FMT_NONE ? FMT_NONE : walk_own_layer(&d->a.w, old),
			new == FMT_NONE ? FMT_NONE : walk_own_layer(&d->b.w, new));
}

static void compare_profiles(struct diff *d)
{
	const struct policy *p = d->a.w.p, *q = d->b.w.p;
	uint32_t i = 0, k = 0;
	compare_profile(d, p->h->default_profile, q->h->default_profile);
	while (i < p->n_profiles || k < q->n_profiles) {
		int c = i == p->n_profiles   ? 1
			: k == q->n_profiles ? -1
					     : strcmp(p->strings + p->profiles[i].name,
						      q->strings + q->profiles[k].name);
		bool dflt = (c <= 0 && i == p->h->default_profile) ||
			    (c >= 0 && k == q->h->default_profile);
		if (!dflt)
			compare_profile(d, c <= 0 ? i : FMT_NONE, c >= 0 ? k : FMT_NONE);
		i += c <= 0;
		k += c >= 0;
	}
}

/* ---- presets: only those that both sides use; one that comes or goes is said by the profiles ---- */

static void compare_presets(struct diff *d)
{
	const struct policy *p = d->a.w.p, *q = d->b.w.p;
	for (uint32_t i = 0; i < p->n_layers; i++)
		for (uint32_t k = 0; p->layers[i].kind == LAYER_KIND_PRESET && k < q->n_layers; k++)
			if (q->layers[k].kind == LAYER_KIND_PRESET &&
			    strcmp(walk_layer_name(&d->a.w, i), walk_layer_name(&d->b.w, k)) == 0) {
				set_where(d, "", walk_layer_name(&d->b.w, k));
				compare_entries(d, i, k);
			}
}

/* ---- lines: sources, credentials, services ---- */

static int by_line(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char **lines_of(struct diff *d, const char *text, size_t *n)
{
	size_t most = 1;
	for (const char *s = text ? text : ""; *s; s++)
		most += *s == '\n';
	const char **v = arena_array(&d->arena, most + 1, sizeof(*v));
	*n = 0;
	for (const char *s = text ? text : ""; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		const char *line = s + strspn(s, " ");
		if (strcspn(line, "\n"))
			v[(*n)++] = arena_text(&d->arena, line, strcspn(line, "\n"));
	}
	qsort(v, *n, sizeof(*v), by_line);
	return v;
}

static bool source_prefix(const char *line, struct prefix *out)
{
	size_t n = *line == '"' ? strcspn(line + 1, "\"") : 0;
	return n && prefix_from_text(out, line + 1, n) == PREFIX_OK;
}

/* Does another source take over the addresses of a line that is gone? */
static bool is_covered(const char *line, const char *const *v, size_t n)
{
	struct prefix p, q;
	if (!source_prefix(line, &p))
		return true;
	for (size_t i = 0; i < n; i++)
		if (source_prefix(v[i], &q) && q.len <= p.len && prefix_contains(&q, &p.a))
			return true;
	return false;
}

static void compare_lines(struct diff *d, const char *old, const char *new)
{
	size_t na, nb, i = 0, k = 0;
	const char **a = lines_of(d, old, &na), **b = lines_of(d, new, &nb);
	while (i < na || k < nb) {
		int c = i == na ? 1 : k == nb ? -1 : strcmp(a[i], b[k]);
		if (c < 0)
			change_add(d, "removed", a[i],
				   is_covered(a[i], b, nb) ? EFFECT_WIDENED : EFFECT_NARROWED, "");
		else if (c > 0)
			change_add(d, "added", b[k], EFFECT_WIDENED, "");
		i += c <= 0;
		k += c >= 0;
	}
}

static void compare_documents(struct diff *d)
{
	for (uint32_t i = 0;; i++) {
		const char *x = walk_term(&d->a.w, TERM_DOCUMENT, i),
			   *y = walk_term(&d->b.w, TERM_DOCUMENT, i);
		if (!x && !y)
			return;
		if (strcmp(x ? x : "", y ? y : "") != 0)
			change_add(d, "AuthorizationPolicy", "", EFFECT_WIDENED,
				   change_from_to(d, flat(d, x), flat(d, y)));
	}
}

/* ---- the policy as a whole ---- */

static void compare_root(struct diff *d)
{
	const struct policy *p = d->a.w.p, *q = d->b.w.p;
	const struct {
		const char *what;
		uint32_t a, b;
	} texts[] = { { "revision", p->info->revision, q->info->revision },
		      { "presets_version", p->info->presets_version, q->info->presets_version },
		      { "audience", p->info->audience, q->info->audience } };
	d->where = "policy";
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *x = walk_info(&d->a.w, texts[i].a), *y = walk_info(&d->b.w, texts[i].b);
		if (strcmp(x, y) != 0)
			change_add(d, texts[i].what, "", EFFECT_NONE,
				   change_from_to(d, flat(d, x), flat(d, y)));
	}
	if (p->h->serial != q->h->serial)
		change_add(d, "serial", "", EFFECT_NONE,
			   arena_printf(&d->arena, "%llu -> %llu", (unsigned long long)p->h->serial,
					(unsigned long long)q->h->serial));
}

static void compare_all(struct diff *d)
{
	compare_root(d);
	compare_profiles(d);
	d->where = "never";
	compare_entries(d, 0, 0);
	compare_presets(d);
	d->where = "sources";
	compare_lines(d, walk_note(&d->a.w, NOTE_SOURCES, 0), walk_note(&d->b.w, NOTE_SOURCES, 0));
	d->where = "credentials and services";
	compare_lines(d, walk_term(&d->a.w, TERM_POLICY, 0), walk_term(&d->b.w, TERM_POLICY, 0));
	d->where = "mesh";
	compare_documents(d);
	d->where = "policy";
	if (!d->meant && memcmp(d->a.w.p->h->meaning_digest, d->b.w.p->h->meaning_digest, 32) != 0)
		change_add(
			d, "meaning", "", EFFECT_NONE,
			"it differs in what has no words here: which of equal entries is reported");
}

/* ---- both sides ---- */

static bool is_compiled(const char *path)
{
	char magic[8] = "";
	FILE *f = fopen(path, "re");
	bool yes = f && fread(magic, 1, sizeof(magic), f) == sizeof(magic) &&
		   memcmp(magic, FMT_MAGIC, sizeof(magic)) == 0;
	if (f)
		fclose(f);
	return yes;
}

static bool open_yaml(struct walk *w, const char *path, const struct compile_options *c, char *err,
		      size_t size)
{
	struct diags *d = diags_new();
	uint8_t *bytes = NULL;
	size_t len = 0;
	struct model *m = d ? compile_policy(&path, 1, c, d) : NULL;
	bool ok = m && diags_errors(d) == 0 &&
		  layout_and_write(m, required_features(m, c), &bytes, &len) == 0;
	if (d && !ok)
		diags_print(d, stderr, DIAG_TEXT);
	model_free(m);
	diags_free(d);
	if (ok)
		return walk_bytes(w, bytes, len, err, size);
	snprintf(err, size, "%s: the policy has errors", path);
	return false;
}

static bool open_side(struct side *s, const char *path, const struct compile_options *c)
{
	char err[512];
	bool ok = is_compiled(path) ? walk_open(&s->w, path, err, sizeof(err))
				    : open_yaml(&s->w, path, c, err, sizeof(err));
	if (!ok) {
		fprintf(stderr, "cx-policyc: %s\n", err);
		return false;
	}
	const struct policy *p = s->w.p;
	s->terms = arena_array(&s->w.arena, p->n_rules + (size_t)1, sizeof(*s->terms));
	s->seen_by = arena_array(&s->w.arena, p->n_layers, sizeof(*s->seen_by));
	for (uint32_t i = 0; i < p->n_sees; i++)
		if (p->sees[i].layer < p->n_layers)
			s->seen_by[p->sees[i].layer]++;
	return true;
}

enum diff_result policy_diff(const char *old_path, const char *new_path,
			     const struct compile_options *c, const struct diff_options *o,
			     FILE *to)
{
	struct diff d = { 0 };
	enum diff_result r = DIFF_CANNOT;
	if (!open_side(&d.a, old_path, c))
		return DIFF_CANNOT;
	if (open_side(&d.b, new_path, c)) {
		compare_all(&d);
		print_changes(&d, o->format, to);
		r = (o->only_widened ? change_count(&d, EFFECT_WIDENED) : d.n) ? DIFF_DIFFER
									       : DIFF_SAME;
		walk_close(&d.b.w);
	}
	walk_close(&d.a.w);
	arena_fini(&d.arena);
	return r;
}
