/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The top of the model stage: files and documents in, a checked model out (compile.h). Must never hand
 * on a model without having looked at every key of every document.
 */
#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/compile/lint.h"

/* ---- keys of the document ----------------------------------------------------------------------- */

static void read_version(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	b->has_version = true;
	if (!want_text(b, v, k->text) || strcmp(v->text, "1") == 0)
		return;
	diag_error(b->d, v->pos, "version",
		   "version \"%.40s\" is not known; this compiler reads version 1", v->text);
}

static void read_serial(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	read_uint(b, v, k->text, 1, INT64_MAX, &b->m->serial);
}

static void read_revision(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	read_text(b, k, v, &b->m->revision);
}

static void read_presets_version(struct build *b, const struct node *k, const struct node *v,
				 void *to)
{
	(void)to;
	b->has_presets_version = true;
	if (!want_text(b, v, k->text) || strcmp(v->text, presets_version) == 0)
		return;
	diag_error(b->d, v->pos, "presets-version",
		   "this compiler has the presets of version %s, not \"%.40s\"", presets_version,
		   v->text);
}

static void read_audience(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct texts t = { 0 };
	(void)to;
	read_texts(b, k, v, &t);
	b->m->audience = t.v;
	b->m->n_audience = t.n;
	if (t.n)
		use_feature(b, FEATURE_BIT_AUDIENCE, k->pos);
}

static void read_require(struct build *b, const struct node *k, const struct node *v, void *to)
{
	/* read before everything else: require_first() */
	(void)b;
	(void)k;
	(void)v;
	(void)to;
}

static void read_never(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct place at = { .layer = 0, .deny = true, .never = true };
	(void)to;
	read_entries(b, v, k->text, &at);
}

static void read_network_key(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)k;
	(void)to;
	read_network(b, v);
}

static void read_profiles_key(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)k;
	(void)to;
	read_profiles(b, v);
}

static void skip(struct build *b, const struct node *k, const struct node *v, void *to)
{
	/* read before everything else: read_includes() */
	(void)b;
	(void)k;
	(void)v;
	(void)to;
}

static const struct key root_keys[] = {
	{ "version", read_version, 0 },
	{ "revision", read_revision, 0 },
	{ "serial", read_serial, 0 },
	{ "presets_version", read_presets_version, 0 },
	{ "audience", read_audience, 0 },
	{ "include", skip, 0 },
	{ "require", read_require, 0 },
	{ "network", read_network_key, 0 },
	{ "never", read_never, 0 },
	{ "profiles", read_profiles_key, 0 },
	{ "sources", read_sources, 0 },
	{ "unlisted_sources", read_unlisted, 0 },
	{ "resolver_clients", read_resolver_clients, 0 },
	{ "credentials", read_credentials, 0 },
	{ "mesh", read_mesh, 0 },
	{ "tests", read_tests, 0 },
};

/* ---- several files ------------------------------------------------------------------------------ */

static bool is_main_only(const char *key)
{
	static const char *const keys[] = {
		"version", "revision", "serial",           "presets_version",  "audience",
		"include", "require",  "unlisted_sources", "resolver_clients", "never"
	};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

static bool may_set(const struct input *in, const char *path)
{
	for (uint32_t i = 0; i < in->n_may; i++)
		if (fnmatch(in->may[i], path, 0) == 0)
			return true;
	return false;
}

/* What another file than the main one may say at all, and what its `may` lets it say. */
static void check_rights(struct build *b, const struct input *in, const struct node *doc)
{
	if (doc->type != NODE_MAP)
		return;
	node_for_each_pair(k, v, doc)
	{
		if (is_main_only(k->text)) {
			diag_error(b->d, k->pos, "main-only", "`%s` stands in the main file only",
				   k->text);
			continue;
		}
		if (!in->may || may_set(in, k->text))
			continue;
		if (v->type != NODE_MAP) {
			diag_error(b->d, k->pos, "may", "this file may not set `%.100s`", k->text);
			continue;
		}
		node_for_each_pair(
			k2, v2, v) if (!may_set(in, arena_printf(b->a, "%s.%s", k->text, k2->text)))
			diag_error(b->d, k2->pos, "may", "this file may not set `%.100s.%.100s`",
				   k->text, k2->text);
	}
}

static bool is_united(const char *key)
{
	return strcmp(key, "allowlist") == 0 || strcmp(key, "deny") == 0 ||
	       strcmp(key, "allowlist_additions") == 0;
}

/* A key of `network`, a credential or a service that two files set. */
static void check_twice(struct build *b, const struct node *first, const struct node *second,
			bool network)
{
	node_for_each_pair(k, v, second)
	{
		const struct node *have = map_get(first, k->text);
		if (have && !(network && is_united(k->text)))
			diag_error(b->d, k->pos, "duplicate-key", "`%.100s` is set also at %s:%u",
				   k->text, diags_file_name(b->d, have->pos.file), have->pos.line);
	}
}

static void check_files(struct build *b, const char *key)
{
	for (size_t i = 0; i < b->n_inputs; i++)
		for (size_t j = i + 1; j < b->n_inputs; j++) {
			const struct node *x = b->inputs[i].policy, *y = b->inputs[j].policy;
			const struct node *vx = x ? map_get(x, key) : NULL,
					  *vy = y ? map_get(y, key) : NULL;
			if (vx && vy && vx->type == NODE_MAP && vy->type == NODE_MAP)
				check_twice(b, vx, vy, strcmp(key, "network") == 0);
		}
}

static bool is_kubernetes(const struct node *doc)
{
	return map_get(doc, "apiVersion") || map_get(doc, "kind");
}

/* One policy document a file, and any number of AuthorizationPolicy documents. */
static void sort_documents(struct build *b, struct input *in)
{
	for (const struct node *doc = in->docs; doc; doc = doc->next) {
		if (is_kubernetes(doc))
			continue;
		if (in->policy)
			diag_error(b->d, doc->pos, "documents",
				   "a second policy document in one file; only AuthorizationPolicy "
				   "documents may follow");
		else
			in->policy = doc;
	}
	if (!in->policy && (in->main || !in->docs))
		diag_error(b->d, (struct pos){ in->file, 0, 0 }, "empty",
			   "the file holds no policy");
}

/* The same file under whatever name: a cycle, or a pattern that matches too much. */
static bool is_read_already(struct build *b, const char *path, const char *shown, struct pos at)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return false; /* reading it says why */
	for (size_t i = 0; i < b->n_seen; i++) {
		if (b->seen[i].dev != st.st_dev || b->seen[i].ino != st.st_ino)
			continue;
		diag_error(b->d, at, "included-twice", "%.200s is read already, as %.200s", shown,
			   b->seen[i].shown);
		return true;
	}
	b->seen = arena_grow(b->a, b->seen, b->n_seen, &b->cap_seen, sizeof(*b->seen));
	b->seen[b->n_seen++] = (struct seen_file){ st.st_dev, st.st_ino, shown };
	return false;
}

static bool add_input(struct build *b, const char *path, const char *shown, const char *kept,
		      struct pos at, const struct texts *may)
{
	char *text;
	size_t n;
	struct input in = { .main = b->n_inputs == 0 };
	if (is_read_already(b, path, shown, at))
		return true;
	in.file = add_file(b, shown, kept);
	if (at.line == 0)
		at.file = in.file;
	if (!read_whole(b, path, at, MODEL_MAX_YAML, &text, &n))
		return false;
	bool fine = yaml_parse(b->a, b->d, in.file, text, n, &in.docs);
	free(text);
	if (!fine)
		return true;
	if (may) {
		in.may = may->v ? may->v : (const char *const *)"";
		in.n_may = may->n;
	}
	sort_documents(b, &in);
	b->inputs = arena_grow(b->a, b->inputs, b->n_inputs, &b->cap_inputs, sizeof(*b->inputs));
	b->inputs[b->n_inputs++] = in;
	return true;
}

static void include_one(struct build *b, const char *written, struct pos at,
			const struct texts *may)
{
	const char *real = path_below(b, written, at);
	if (real)
		add_input(b, real, arena_printf(b->a, "%s%s", b->dir_text, written), written, at,
			  may);
}

/* A pattern below the main file's directory, its matches in the order of their octets. */
static void include_pattern(struct build *b, const struct node *path, const struct texts *may)
{
	glob_t g;
	if (!want_text(b, path, "the path of an include"))
		return;
	if (!strpbrk(path->text, "*?[")) {
		include_one(b, path->text, path->pos, may);
		return;
	}
	if (path->text[0] == '/') {
		diag_error(b->d, path->pos, "file",
			   "a pattern of includes is relative to the main file");
		return;
	}
	size_t skip_n = strlen(b->dir) + 1;
	const char *pattern = arena_printf(b->a, "%s/%s", b->dir, path->text);
	int rc = glob(pattern, 0, NULL, &g);
	if (rc == GLOB_NOMATCH)
		diag_warning(b->d, path->pos, "empty-include", "no file matches %.200s",
			     path->text);
	else if (rc != 0)
		diag_error(b->d, path->pos, "file", "%.200s: cannot be searched", path->text);
	for (size_t i = 0; rc == 0 && i < g.gl_pathc; i++)
		include_one(
			b, arena_text(b->a, g.gl_pathv[i] + skip_n, strlen(g.gl_pathv[i]) - skip_n),
			path->pos, may);
	if (rc == 0)
		globfree(&g);
}

struct raw_include {
	const struct node *path;
	struct texts may;
};

static void keep_path(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	*(const struct node **)to = v;
}

static void read_include(struct build *b, const struct node *item)
{
	static const struct key keys[] = {
		{ "path", keep_path, offsetof(struct raw_include, path) },
		{ "may", read_texts, offsetof(struct raw_include, may) },
	};
	struct raw_include r = { 0 };
	if (item->type != NODE_MAP) {
		include_pattern(b, item, NULL);
		return;
	}
	if (!read_map(b, item, "an include", KEYS(keys), &r))
		return;
	if (!r.path)
		diag_error(b->d, item->pos, "missing-key", "an include needs `path`");
	else
		include_pattern(b, r.path, map_get(item, "may") ? &r.may : NULL);
}

static void read_includes(struct build *b, const struct node *main_doc)
{
	const struct node *v = map_get(main_doc, "include");
	if (!v || !want_seq(b, v, "include"))
		return;
	node_for_each(item, v) read_include(b, item);
}

/* ---- the run ------------------------------------------------------------------------------------ */

static void require_first(struct build *b, const struct node *main_doc)
{
	static const char *const words[] = { "owner",       "reason", "data",      "if_unreachable",
					     "environment", "added",  "review_by", "expires" };
	const struct node *v = map_get(main_doc, "require");
	if (!v || !want_seq(b, v, "require"))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		int i = read_word(b, item, "a key to require", words,
				  sizeof(words) / sizeof(words[0]));
		if (i >= 0)
			list[n++] = words[i];
	}
	b->require = (struct texts){ list, n };
}

static void read_documents(struct build *b, const struct input *in)
{
	if (!in->main && in->policy)
		check_rights(b, in, in->policy);
	if (in->policy)
		read_map(b, in->policy, "a policy", KEYS(root_keys), b);
	for (const struct node *doc = in->docs; doc; doc = doc->next) {
		if (!is_kubernetes(doc))
			continue;
		if (in->may)
			diag_error(b->d, doc->pos, "may",
				   "this file may not hold an AuthorizationPolicy");
		read_authorization(b, doc);
	}
}

static void say_defaults(struct build *b)
{
	if (!b->has_version)
		diag_warning(b->d, b->root_at, "version", "no `version`; write version: 1");
	if (!b->has_presets_version && b->n_preset_layers)
		diag(b->d, b->root_at, DIAG_NOTE, "presets-version",
		     "no `presets_version`: presets are those of this compiler, version %s",
		     presets_version);
}

static void warn_unenforced(struct build *b)
{
	static const char *const words[] = {
#define X(bit, name, text) [bit] = text,
		FEATURES(X)
#undef X
	};
	uint64_t open = b->m->features & ~FEATURES_ENFORCED;
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!(open & UINT64_C(1) << i))
			continue;
		diag_warning(
			b->d, b->m->feature_at[i], "unenforced",
			"`%s` is not enforced by this version: %s", words[i],
			b->o->allow_unenforced
				? "plugins take the policy all the same, and need not keep to this"
				: "its plugins will refuse the policy (see --allow-unenforced)");
	}
}

static void finish_model(struct build *b)
{
	struct model *m = b->m;
	for (size_t i = 0; i < b->n_entries; i++)
		rule_id(m, &b->entries[i], b->entries[i].id);
	m->entries = b->entries;
	m->n_entries = (uint32_t)b->n_entries;
	m->files = b->files;
	m->n_files = (uint32_t)b->n_files;
	m->presets_version = presets_version;
}

static bool set_directory(struct build *b, const char *path)
{
	char real[PATH_MAX];
	const char *slash = strrchr(path, '/');
	b->dir_text = slash ? arena_text(b->a, path, (size_t)(slash - path) + 1) : "";
	if (!realpath(slash ? b->dir_text : ".", real)) {
		diag_error(b->d, (struct pos){ 0 }, "file", "%.200s: %s", path, strerror(errno));
		return false;
	}
	b->dir = arena_text(b->a, real, strlen(real));
	return true;
}

void set_plain_terms(struct build *b)
{
	b->plain_deny = (struct terms){ .owner = "",
					.reason = "",
					.data = "",
					.if_unreachable = "",
					.environment = "",
					.added = "",
					.review_by = "",
					.labels = "",
					.out = "",
					.lint_allow = "" };
	b->plain_allow = b->plain_deny;
	b->plain_allow.protocols = PROTO_HTTPS | PROTO_HTTP;
}

static void build_model(struct build *b)
{
	const struct node *main_doc = b->inputs[0].policy;
	b->root_at = main_doc->pos;
	if (!want_map(b, main_doc, "a policy"))
		return;
	require_first(b, main_doc);
	find_profiles(b);
	for (size_t i = 0; i < b->n_inputs; i++)
		read_documents(b, &b->inputs[i]);
	check_files(b, "network");
	check_files(b, "credentials");
	resolve_profiles(b);
	finish_clients(b);
	finish_extras(b);
	say_defaults(b);
	warn_unenforced(b);
	finish_model(b);
	lint_all(b);
}

/* Reads the main file, what it includes, and the further files of the command line. */
static bool read_inputs(struct build *b, const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *slash = strrchr(paths[i], '/');
		struct pos nowhere = { 0 };
		const char *kept = slash ? slash + 1 : paths[i];
		if (!add_input(b, paths[i], paths[i], kept, nowhere, NULL))
			return false;
		if (i == 0 && b->n_inputs && b->inputs[0].policy &&
		    b->inputs[0].policy->type == NODE_MAP)
			read_includes(b, b->inputs[0].policy);
	}
	return true;
}

static bool prepare(struct build *b, const char *path)
{
	set_plain_terms(b);
	b->psl = psl_builtin();
	if (!b->psl) {
		diag_error(b->d, (struct pos){ 0 }, "system",
			   "libpsl has no built-in public suffix list");
		errno = ENOSYS;
		return false;
	}
	return set_directory(b, path);
}

struct model *compile_policy(const char *const *paths, size_t n, const struct compile_options *o,
			     struct diags *d)
{
	struct model *m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	/* in the model's own memory: entries without terms of their own point to plain_allow, plain_deny */
	struct build *b = arena_get(&m->arena, sizeof(*b));
	*b = (struct build){ .m = m, .a = &m->arena, .d = d, .o = o };
	b->alike = arena_array(b->a, N_LINTS, sizeof(*b->alike));
	m->diags = d;
	m->revision = "";
	m->presets_version = "";
	if (!prepare(b, paths[0]) || !read_inputs(b, paths, n)) {
		int why = errno;
		model_free(m);
		errno = why;
		return NULL;
	}
	if (b->n_inputs && b->inputs[0].main && b->inputs[0].policy)
		build_model(b);
	return m;
}

void own(struct build *b, void *p)
{
	struct owned *o = arena_get(b->a, sizeof(*o));
	*o = (struct owned){ b->m->owned, p };
	b->m->owned = o;
}

void model_free(struct model *m)
{
	if (!m)
		return;
	for (const struct owned *o = m->owned; o; o = o->next)
		free(o->p);
	arena_fini(&m->arena);
	free(m);
}

uint64_t required_features(const struct model *m, const struct compile_options *o)
{
	return o->allow_unenforced ? m->features & FEATURES_ENFORCED : m->features;
}
