/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AuthorizationPolicy documents -> struct authz. Must never accept what it could not express faithfully.
 */
#include <string.h>

#include "shared/compile/lint.h"

/* Keys that mean something we could not keep: an error that says so. */
static void refuse_key(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)v;
	(void)to;
	diag_error(b->d, k->pos, "not-expressible",
		   "`%s` of an AuthorizationPolicy cannot be expressed here", k->text);
}

static void skip_key(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	(void)v;
	(void)to;
}

static void read_patterns(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct texts *out = to;
	read_texts(b, k, v, out);
	if (v->type == NODE_SEQ && v->n == 0)
		diag_error(b->d, v->pos, "not-expressible",
			   "an empty list of %s; leave it out for any", k->text);
	for (uint32_t i = 0; i < out->n; i++) {
		const char *s = out->v[i], *star = strchr(s, '*');
		size_t n = strlen(s);
		if (n == 0 || (star && strchr(star + 1, '*')) ||
		    (star && star != s && star != s + n - 1))
			diag_error(b->d, v->pos, "not-expressible",
				   "\"%.60s\": only exact texts, x*, *x and * can be expressed", s);
	}
}

struct authz_part {
	struct texts methods, paths, principals;
};

static const struct key operation_keys[] = {
	{ "methods", read_patterns, offsetof(struct authz_part, methods) },
	{ "paths", read_patterns, offsetof(struct authz_part, paths) },
	{ "hosts", refuse_key, 0 },
	{ "ports", refuse_key, 0 },
	{ "notHosts", refuse_key, 0 },
	{ "notPorts", refuse_key, 0 },
	{ "notMethods", refuse_key, 0 },
	{ "notPaths", refuse_key, 0 },
};

static const struct key peer_keys[] = {
	{ "principals", read_patterns, offsetof(struct authz_part, principals) },
	{ "requestPrincipals", refuse_key, 0 },
	{ "namespaces", refuse_key, 0 },
	{ "ipBlocks", refuse_key, 0 },
	{ "remoteIpBlocks", refuse_key, 0 },
	{ "serviceAccounts", refuse_key, 0 },
	{ "notPrincipals", refuse_key, 0 },
	{ "notRequestPrincipals", refuse_key, 0 },
	{ "notNamespaces", refuse_key, 0 },
	{ "notIpBlocks", refuse_key, 0 },
	{ "notRemoteIpBlocks", refuse_key, 0 },
};

static void read_operation(struct build *b, const struct node *k, const struct node *v, void *to)
{
	read_map(b, v, k->text, KEYS(operation_keys), to);
}

static void read_peer(struct build *b, const struct node *k, const struct node *v, void *to)
{
	read_map(b, v, k->text, KEYS(peer_keys), to);
}

struct authz_parts {
	struct authz_part *v;
	uint32_t n;
};

static void read_parts(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key to_keys[] = { { "operation", read_operation, 0 } };
	static const struct key from_keys[] = { { "source", read_peer, 0 } };
	struct authz_parts *out = to;
	bool is_to = strcmp(k->text, "to") == 0;
	if (!want_seq(b, v, k->text))
		return;
	if (v->n == 0)
		diag_error(b->d, v->pos, "not-expressible", "an empty list; leave `%s` out for any",
			   k->text);
	out->v = arena_array(b->a, v->n + 1, sizeof(*out->v));
	node_for_each(item, v) if (read_map(b, item, k->text, is_to ? to_keys : from_keys, 1,
					    &out->v[out->n])) out->n++;
}

struct authz_raw {
	struct authz_parts to, from;
};

/* Each `to` with each `from`: a rule holds if any of both match. */
static void cross(struct build *b, struct authz *a, const struct authz_raw *r, size_t *cap,
		  struct authz_rule **rules)
{
	static const struct authz_part any;
	uint32_t n_to = r->to.n ? r->to.n : 1, n_from = r->from.n ? r->from.n : 1;
	for (uint32_t i = 0; i < n_to; i++)
		for (uint32_t j = 0; j < n_from; j++) {
			const struct authz_part *t = r->to.n ? &r->to.v[i] : &any;
			const struct authz_part *f = r->from.n ? &r->from.v[j] : &any;
			*rules = arena_grow(b->a, *rules, a->n_rules, cap, sizeof(**rules));
			(*rules)[a->n_rules++] =
				(struct authz_rule){ t->methods.n, t->paths.n, f->principals.n,
						     t->methods.v, t->paths.v, f->principals.v };
		}
}

enum { MAX_AUTHZ_RULES = 4096 };

static void read_rules(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "to", read_parts, offsetof(struct authz_raw, to) },
		{ "from", read_parts, offsetof(struct authz_raw, from) },
		{ "when", refuse_key, 0 },
	};
	struct authz *a = to;
	struct authz_rule *rules = NULL;
	size_t cap = 0;
	if (node_is_null(v) || !want_seq(b, v, k->text))
		return;
	node_for_each(item, v)
	{
		struct authz_raw r = { 0 };
		if (!read_map(b, item, "a rule", KEYS(keys), &r))
			continue;
		if ((uint64_t)a->n_rules + (uint64_t)r.to.n * r.from.n > MAX_AUTHZ_RULES) {
			diag_error(b->d, item->pos, "too-large", "more than %d rules",
				   MAX_AUTHZ_RULES);
			return;
		}
		cross(b, a, &r, &cap, &rules);
	}
	a->rules = rules;
}

static void read_action(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "ALLOW", "DENY" };
	((struct authz *)to)->deny = read_word(b, v, k->text, words, 2) == 1;
}

static void read_match_labels(struct build *b, const struct node *k, const struct node *v, void *to)
{
	read_labels(b, k, v, &((struct authz *)to)->match_labels);
}

static void read_selector(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = { { "matchLabels", read_match_labels, 0 } };
	read_map(b, v, k->text, KEYS(keys), to);
}

static void read_spec(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "selector", read_selector, 0 }, { "action", read_action, 0 },
		{ "rules", read_rules, 0 },       { "targetRef", refuse_key, 0 },
		{ "targetRefs", refuse_key, 0 },  { "provider", refuse_key, 0 },
	};
	read_map(b, v, k->text, KEYS(keys), to);
}

static void read_metadata(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "name", read_text, offsetof(struct authz, name) },
		{ "namespace", skip_key, 0 },
		{ "labels", skip_key, 0 },
		{ "annotations", skip_key, 0 },
	};
	read_map(b, v, k->text, KEYS(keys), to);
}

static void read_kind(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "AuthorizationPolicy" };
	(void)to;
	read_word(b, v, k->text, words, 1);
}

static void read_api_version(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "security.istio.io/v1", "security.istio.io/v1beta1" };
	(void)to;
	read_word(b, v, k->text, words, 2);
}

static bool has_line(const char *lines, const char *line, size_t n)
{
	for (const char *s = lines; *s; s += strcspn(s, "\n") + 1)
		if (strcspn(s, "\n") == n && strncmp(s, line, n) == 0)
			return true;
	return false;
}

/* Has the service all labels that the policy selects? */
static bool selects(const struct authz *a, const struct mesh_service *s)
{
	for (const char *l = a->match_labels; *l;) {
		size_t n = strcspn(l, "\n");
		if (!has_line(s->labels, l, n))
			return false;
		l += n + 1;
	}
	return true;
}

void check_selectors(struct build *b)
{
	for (size_t i = 0; i < b->n_authz; i++) {
		bool any = false;
		for (size_t j = 0; j < b->n_services; j++)
			any = any || selects(&b->authz[i], &b->services[j]);
		if (!any)
			lint_say(b, b->authz[i].pos, LINT_SELECTS_NOTHING, "",
				 "this AuthorizationPolicy selects none of `mesh.services`: it "
				 "has no effect");
	}
}

void read_authorization(struct build *b, const struct node *doc)
{
	static const struct key keys[] = {
		{ "apiVersion", read_api_version, 0 },
		{ "kind", read_kind, 0 },
		{ "metadata", read_metadata, 0 },
		{ "spec", read_spec, 0 },
	};
	struct authz a = { .pos = doc->pos, .name = "", .match_labels = "" };
	const struct node *kind = map_get(doc, "kind");
	if (kind && kind->type == NODE_SCALAR && strcmp(kind->text, "AuthorizationPolicy") != 0) {
		diag_error(b->d, kind->pos, "not-expressible",
			   "only documents of the kind AuthorizationPolicy can stand beside a "
			   "policy, not \"%.60s\"",
			   kind->text);
		return;
	}
	if (!read_map(b, doc, "an AuthorizationPolicy", KEYS(keys), &a))
		return;
	if (!map_get(doc, "apiVersion") || !map_get(doc, "kind"))
		diag_error(b->d, doc->pos, "missing-key",
			   "a Kubernetes document needs `apiVersion` and `kind`");
	b->authz = arena_grow(b->a, b->authz, b->n_authz, &b->cap_authz, sizeof(*b->authz));
	b->authz[b->n_authz++] = a;
	use_feature(b, FEATURE_BIT_AUTHORIZATION, doc->pos);
}
