/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `network` and `profiles` -> drafts: their names first, then their keys. Must never take one
 * profile's key for another's.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/draft.h"

/* ---- finding them ------------------------------------------------------------------------------- */

static bool is_profile_name(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
		    !(s[i] >= '0' && s[i] <= '9') && !strchr("-_.", s[i]))
			return false;
	return n > 0 && n <= 64;
}

static int compare_drafts(const void *a, const void *b)
{
	return strcmp(((const struct draft *)a)->p.name, ((const struct draft *)b)->p.name);
}

static int compare_name(const void *name, const void *d)
{
	return strcmp(name, ((const struct draft *)d)->p.name);
}

struct draft *draft_named(const struct build *b, const char *name)
{
	return bsearch(name, b->drafts, b->n_drafts, sizeof(*b->drafts), compare_name);
}

static size_t count_profiles(const struct build *b)
{
	size_t n = 1;
	for (size_t i = 0; i < b->n_inputs; i++)
		for (const struct node *doc = b->inputs[i].docs; doc; doc = doc->next) {
			const struct node *v = map_get(doc, "profiles");
			n += v && v->type == NODE_MAP ? v->n : 0;
		}
	return n;
}

static void draft_init(struct draft *d, const char *name, struct pos at)
{
	*d = (struct draft){ .p = { .pos = at, .name = name, .aaaa = true }, .lift = "" };
	d->p.deny_ttl_s = MODEL_DEFAULT_DENY_TTL_S;
	d->p.proxy = (struct proxy){ "", "", "", "", 0, NULL, false };
}

static void add_drafts(struct build *b, const struct node *profiles)
{
	node_for_each_pair(k, v, profiles)
	{
		if (strcmp(k->text, "default") == 0)
			diag_error(b->d, k->pos, "bad-profile",
				   "the profile \"default\" is written as `network`");
		else if (!is_profile_name(k->text))
			diag_error(
				b->d, k->pos, "bad-profile",
				"a profile's name has 1 to 64 of a-z A-Z 0-9 - _ . and no others");
		else
			draft_init(&b->drafts[b->n_drafts++], k->text, k->pos);
	}
}

/* The same name twice (of two files; within one the key is a duplicate and said already). */
static void merge_drafts(struct build *b)
{
	size_t out = 0;
	qsort(b->drafts, b->n_drafts, sizeof(*b->drafts), compare_drafts);
	for (size_t i = 0; i < b->n_drafts; i++) {
		if (out && strcmp(b->drafts[out - 1].p.name, b->drafts[i].p.name) == 0) {
			struct pos x = b->drafts[out - 1].p.pos, y = b->drafts[i].p.pos;
			if (x.file != y.file)
				diag_error(b->d, y, "duplicate-key",
					   "profile \"%s\" stands also at %s:%u",
					   b->drafts[i].p.name, diags_file_name(b->d, x.file),
					   x.line);
			continue;
		}
		b->drafts[out++] = b->drafts[i];
	}
	b->n_drafts = out;
	for (size_t i = 0; i < out; i++)
		b->drafts[i].p.layer = (uint32_t)i + 1;
}

void find_profiles(struct build *b)
{
	b->drafts = arena_array(b->a, count_profiles(b), sizeof(*b->drafts));
	draft_init(&b->drafts[b->n_drafts++], "default", b->root_at);
	for (size_t i = 0; i < b->n_inputs; i++)
		for (const struct node *doc = b->inputs[i].docs; doc; doc = doc->next) {
			const struct node *v = map_get(doc, "profiles");
			if (v && v->type == NODE_MAP)
				add_drafts(b, v);
		}
	merge_drafts(b);
}

static const char *draft_name(const void *table, size_t i)
{
	return ((const struct draft *)table)[i].p.name;
}

int find_profile(struct build *b, const struct node *name)
{
	if (!want_text(b, name, "a profile"))
		return -1;
	struct draft *d = draft_named(b, name->text);
	if (d)
		return (int)(d - b->drafts);
	size_t n = b->n_drafts < 1000 ? b->n_drafts : 0;
	const char *near = nearest(name->text, draft_name, b->drafts, n);
	diag_error(b->d, name->pos, "unknown-profile", "there is no profile \"%.60s\"%s%s%s",
		   name->text, near ? "; did you mean \"" : "", near ? near : "",
		   near ? "\"?" : "");
	return -1;
}

/* ---- keys --------------------------------------------------------------------------------------- */

static void keep(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	*(const struct node **)to = v;
}

static void read_allowlist(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const struct draft *d = to;
	const struct place at = { .layer = d->p.layer };
	read_entries(b, v, k->text, &at);
}

static void read_deny(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const struct draft *d = to;
	const struct place at = { .layer = d->p.layer, .deny = true };
	read_entries(b, v, k->text, &at);
}

void read_additions(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const struct draft *d = to;
	const struct place at = { .layer = d->p.layer, .additions = true };
	read_entries(b, v, k->text, &at);
}

static void read_mode(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "enforce", "observe" };
	struct draft *d = to;
	d->p.observe = read_word(b, v, k->text, words, 2) == 1;
	if (d->p.observe)
		use_feature(b, FEATURE_BIT_OBSERVE, k->pos);
}

static void read_profile_limits(struct build *b, const struct node *k, const struct node *v,
				void *to)
{
	read_limits(b, k, v, &((struct draft *)to)->p.limits);
}

static void read_staging_only(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const staging[] = { "staging" };
	struct draft *d = to;
	bool only = false;
	read_bool(b, k, v, &only);
	if (!only)
		return;
	if (d->has_environments)
		diag_error(b->d, k->pos, "bad-value",
			   "staging_only is environments: [staging]; write one of them");
	d->allowed_environments = (struct texts){ staging, 1 };
	d->has_environments = true;
}

static void read_environments(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "staging", "production", "internal" };
	struct draft *d = to;
	if (!want_seq(b, v, k->text))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		int i = read_word(b, item, "an environment", words, 3);
		if (i >= 0)
			list[n++] = words[i];
	}
	if (d->has_environments)
		diag_error(b->d, k->pos, "bad-value",
			   "staging_only is environments: [staging]; write one of them");
	d->has_environments = true;
	d->allowed_environments = (struct texts){ list, n };
}

static void read_credential_names(struct build *b, const struct node *k, const struct node *v,
				  void *to)
{
	struct draft *d = to;
	struct texts t = { 0 };
	read_texts(b, k, v, &t);
	d->p.credentials = t.v;
	d->p.n_credentials = t.n;
	if (t.n)
		use_feature(b, FEATURE_BIT_CREDENTIALS, k->pos);
}

/* ---- tls, tasks -------------------------------------------------------------------------- */

static void read_ech(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "deny", "allow" };
	struct draft *d = to;
	d->p.ech_allow = read_word(b, v, k->text, words, 2) == 1;
	d->set |= SET_ECH;
	if (d->p.ech_allow)
		use_feature(b, FEATURE_BIT_ECH_ALLOW, k->pos);
}

static void read_tls(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = { { "ech", read_ech, 0 } };
	read_map(b, v, k->text, KEYS(keys), to);
}

static void read_tasks_entries(struct build *b, const struct node *k, const struct node *v,
			       void *to)
{
	uint64_t n;
	if (read_uint(b, v, k->text, 0, 4096, &n))
		((struct draft *)to)->p.tasks_entries = (uint32_t)n;
}

static void read_max_ttl(struct build *b, const struct node *k, const struct node *v, void *to)
{
	read_duration(b, v, k->text, 30 * 86400, &((struct draft *)to)->p.tasks_max_ttl_s);
}

/* Names, wildcards and "preset:NAME"; read_ceiling() reads them once it is known which presets are used. */
static void read_within(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct draft *d = to;
	struct texts t = { 0 };
	read_texts(b, k, v, &t);
	if (v->type == NODE_SEQ)
		d->within = v;
	d->p.tasks_within = t.v;
	d->p.n_tasks_within = t.n;
}

static void read_tasks(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "entries", read_tasks_entries, 0 },
		{ "within", read_within, 0 },
		{ "max_ttl", read_max_ttl, 0 },
	};
	read_map(b, v, k->text, KEYS(keys), to);
	use_feature(b, FEATURE_BIT_TASKS, k->pos);
}

static const struct key profile_keys[] = {
	{ "extends", keep, offsetof(struct draft, extends) },
	{ "presets", keep, offsetof(struct draft, presets) },
	{ "mode", read_mode, 0 },
	{ "environments", read_environments, 0 },
	{ "staging_only", read_staging_only, 0 },
	{ "allowlist", read_allowlist, 0 },
	{ "deny", read_deny, 0 },
	{ "dns", read_dns, 0 },
	{ "tls", read_tls, 0 },
	{ "limits", read_profile_limits, 0 },
	{ "proxy", read_proxy, 0 },
	{ "resolvers", read_resolvers, 0 },
	{ "credentials", read_credential_names, 0 },
	{ "tasks", read_tasks, 0 },
	{ "allowlist_additions", read_additions, 0 },
	{ "lint", read_lint, offsetof(struct draft, lift) },
};

void read_network(struct build *b, const struct node *v)
{
	struct draft *d = draft_named(b, "default");
	d->p.pos = v->pos;
	d->said = true;
	read_map(b, v, "network", KEYS(profile_keys), d);
}

void read_profiles(struct build *b, const struct node *v)
{
	if (!want_map(b, v, "profiles"))
		return;
	node_for_each_pair(k, value, v)
	{
		struct draft *d = draft_named(b, k->text);
		/* a second one of that name is reported already, and not read over the first */
		if (d && d->p.pos.file == k->pos.file && d->p.pos.line == k->pos.line &&
		    d->p.pos.col == k->pos.col)
			read_map(b, value, "a profile", KEYS(profile_keys), d);
	}
}
