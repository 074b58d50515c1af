/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials, mesh services, AuthorizationPolicy documents and tests: read, checked and kept. Must
 * never accept what it could not express faithfully.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/policy/verdict.h"

/* ---- credentials -------------------------------------------------------------------------------- */

static void read_source_word(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "vault", "file", "systemd" };
	int i = read_word(b, v, k->text, words, 3);
	if (i >= 0)
		*(const char **)to = words[i];
}

static void read_scope(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "task", "gateway" };
	int i = read_word(b, v, k->text, words, 2);
	if (i >= 0)
		*(const char **)to = words[i];
}

static void read_permissions(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "read-only", "read-write" };
	*(bool *)to = read_word(b, v, k->text, words, 2) == 0;
}

static bool is_header(const char *s)
{
	size_t n = strcspn(s, ":");
	if (n == 0 || s[n] != ':' || !strstr(s + n, "{value}"))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
		    !(s[i] >= '0' && s[i] <= '9') && !strchr("-_", s[i]))
			return false;
	return true;
}

static void read_header(struct build *b, const struct node *k, const struct node *v, void *to)
{
	const char *s = "";
	read_text(b, k, v, &s);
	if (is_header(s))
		*(const char **)to = s;
	else if (*s)
		diag_error(b->d, v->pos, "bad-value",
			   "a header is written as \"Name: text with {value}\", not \"%.60s\"", s);
}

static void read_hosts(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct credential *c = to;
	struct name name;
	char text[NAME_TEXT_SIZE];
	if (!want_seq(b, v, k->text))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		if (want_text(b, item, "a host") &&
		    parse_name(b, item->pos, item->text, item->n, &name, NULL))
			list[n++] = arena_text(b->a, text, name_to_text(&name, text));
	}
	c->hosts = list;
	c->n_hosts = n;
}

static bool is_credential_name(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'A' && s[i] <= 'Z') && !(s[i] >= 'a' && s[i] <= 'z') && s[i] != '_' &&
		    !(s[i] >= '0' && s[i] <= '9') && s[i] != '-')
			return false;
	return n > 0 && n <= 64;
}

void read_credentials(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "source", read_source_word, offsetof(struct credential, source) },
		{ "scope", read_scope, offsetof(struct credential, scope) },
		{ "permissions", read_permissions, offsetof(struct credential, read_only) },
		{ "hosts", read_hosts, 0 },
		{ "header", read_header, offsetof(struct credential, header) },
		{ "limits", read_limits, offsetof(struct credential, limits) },
	};
	(void)to;
	if (!want_map(b, v, k->text))
		return;
	if (v->n)
		use_feature(b, FEATURE_BIT_CREDENTIALS, k->pos);
	node_for_each_pair(name, value, v)
	{
		struct credential c = { .pos = name->pos,
					.name = name->text,
					.source = "",
					.scope = "",
					.header = "" };
		if (!is_credential_name(name->text))
			diag_error(
				b->d, name->pos, "bad-value",
				"a credential's name has 1 to 64 of A-Z a-z 0-9 _ - and no others");
		if (!read_map(b, value, "a credential", KEYS(keys), &c))
			continue;
		if (!map_get(value, "source") || !map_get(value, "scope"))
			diag_error(b->d, name->pos, "missing-key",
				   "a credential needs `source` and `scope`");
		b->credentials = arena_grow(b->a, b->credentials, b->n_credentials,
					    &b->cap_credentials, sizeof(*b->credentials));
		b->credentials[b->n_credentials++] = c;
	}
}

static int compare_credentials(const void *x, const void *y)
{
	return strcmp(((const struct credential *)x)->name, ((const struct credential *)y)->name);
}

static bool has_credential(const struct build *b, const char *name)
{
	for (size_t i = 0; i < b->n_credentials; i++)
		if (strcmp(b->credentials[i].name, name) == 0)
			return true;
	return false;
}

static bool is_proxy_auth(const struct build *b, const char *name)
{
	for (size_t i = 0; i < b->n_drafts; i++)
		if (strcmp(b->drafts[i].p.proxy.auth, name) == 0)
			return true;
	return false;
}

static void unknown_credential(struct build *b, const struct profile *p, const char *name)
{
	diag_error(b->d, p->pos, "unknown-credential",
		   "profile \"%s\" names the credential \"%.64s\", "
		   "which `credentials` does not have",
		   p->name, name);
}

static void check_credentials(struct build *b)
{
	for (size_t i = 0; i < b->n_drafts; i++) {
		const struct profile *p = &b->drafts[i].p;
		for (uint32_t j = 0; j < p->n_credentials; j++)
			if (!has_credential(b, p->credentials[j]))
				unknown_credential(b, p, p->credentials[j]);
		if (*p->proxy.auth && !has_credential(b, p->proxy.auth))
			unknown_credential(b, p, p->proxy.auth);
	}
	for (size_t i = 0; i < b->n_credentials; i++) {
		const struct credential *c = &b->credentials[i];
		if (c->n_hosts == 0 && !is_proxy_auth(b, c->name))
			diag_warning(b->d, c->pos, "unused-credential",
				     "the credential \"%s\" has no `hosts`: it is sent nowhere",
				     c->name);
	}
}

/* ---- mesh --------------------------------------------------------------------------------------- */

static void read_host(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct name name;
	char text[NAME_TEXT_SIZE];
	if (want_text(b, v, k->text) && parse_name(b, v->pos, v->text, v->n, &name, NULL))
		*(const char **)to = arena_text(b->a, text, name_to_text(&name, text));
}

static void read_service_port(struct build *b, const struct node *k, const struct node *v, void *to)
{
	uint64_t n;
	if (read_uint(b, v, k->text, 1, 65535, &n))
		*(uint16_t *)to = (uint16_t)n;
}

static void read_services(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "host", read_host, offsetof(struct mesh_service, host) },
		{ "port", read_service_port, offsetof(struct mesh_service, port) },
		{ "principal", read_text, offsetof(struct mesh_service, principal) },
		{ "labels", read_labels, offsetof(struct mesh_service, labels) },
	};
	(void)to;
	if (!want_map(b, v, k->text))
		return;
	node_for_each_pair(name, value, v)
	{
		struct mesh_service s = { .pos = name->pos,
					  .name = name->text,
					  .host = "",
					  .principal = "",
					  .labels = "" };
		if (!read_map(b, value, "a service", KEYS(keys), &s))
			continue;
		if (!map_get(value, "host") || !map_get(value, "port") ||
		    !map_get(value, "principal"))
			diag_error(b->d, name->pos, "missing-key",
				   "a service needs `host`, `port` and `principal`");
		b->services = arena_grow(b->a, b->services, b->n_services, &b->cap_services,
					 sizeof(*b->services));
		b->services[b->n_services++] = s;
	}
}

void read_mesh(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = { { "services", read_services, 0 } };
	read_map(b, v, k->text, KEYS(keys), to);
	if (v->type == NODE_MAP && v->n)
		use_feature(b, FEATURE_BIT_MESH, k->pos);
}

/* ---- AuthorizationPolicy ------------------------------------------------------------------------ */

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

static void check_selectors(struct build *b)
{
	for (size_t i = 0; i < b->n_authz; i++) {
		bool any = false;
		for (size_t j = 0; j < b->n_services; j++)
			any = any || selects(&b->authz[i], &b->services[j]);
		if (!any)
			diag_warning(b->d, b->authz[i].pos, "selects-nothing",
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

/* ---- tests -------------------------------------------------------------------------------------- */

static bool is_target(const char *s)
{
	static const char *const schemes[] = { "dns:", "https://", "http://", "connect:", "tcp:" };
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t n = strlen(schemes[i]);
		if (strncmp(s, schemes[i], n) == 0)
			return s[n] != '\0' && strcspn(s, " \t\n") == strlen(s);
	}
	return false;
}

static void add_test(struct build *b, const struct policy_test *like, const struct node *target,
		     bool allow, const char *reason)
{
	if (!want_text(b, target, "a target"))
		return;
	if (!is_target(target->text)) {
		diag_error(b->d, target->pos, "bad-value",
			   "\"%.100s\" is not a target: dns:NAME[/TYPE], https://HOST[:PORT], "
			   "http://HOST[:PORT]/PATH, connect:HOST:PORT or tcp:IP:PORT",
			   target->text);
		return;
	}
	b->tests = arena_grow(b->a, b->tests, b->n_tests, &b->cap_tests, sizeof(*b->tests));
	struct policy_test *t = &b->tests[b->n_tests++];
	*t = *like;
	t->pos = target->pos;
	t->target = target->text;
	t->allow = allow;
	t->reason = reason;
}

static void read_test_allow(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (!want_seq(b, v, k->text))
		return;
	node_for_each(item, v) add_test(b, to, item, true, "");
}

static const char *read_reason(struct build *b, const struct node *v)
{
	static const char *const words[] = {
#define X(name, text) text,
		REASONS(X)
#undef X
			"any"
	};
	int i = -1;
	if (!want_text(b, v, "a reason"))
		return NULL;
	for (size_t j = 0; j < sizeof(words) / sizeof(words[0]); j++)
		if (strcmp(words[j], v->text) == 0)
			i = (int)j;
	if (i >= 0 && strcmp(v->text, "allowed") != 0)
		return words[i];
	diag_error(b->d, v->pos, "bad-value",
		   "\"%.60s\" is not a reason of a denial such as not-listed, or any", v->text);
	return NULL;
}

static void read_test_deny(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (v->type == NODE_SEQ) {
		node_for_each(item, v) add_test(b, to, item, false, "any");
		return;
	}
	if (!want_map(b, v, k->text))
		return;
	node_for_each_pair(target, value, v)
	{
		const char *reason = read_reason(b, value);
		if (reason)
			add_test(b, to, target, false, reason);
	}
}

static void read_test_profile(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)k;
	if (find_profile(b, v) >= 0)
		((struct policy_test *)to)->profile = v->text;
}

static void read_test_source(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct policy_test *t = to;
	if (want_text(b, v, k->text) && !addr_from_text(&t->source, v->text, v->n))
		diag_error(b->d, v->pos, "bad-value", "\"%.60s\" is not an address", v->text);
}

/* Who asks comes before what is asked, in whatever order the keys stand. */
static void read_test(struct build *b, const struct node *v)
{
	static const struct key who[] = {
		{ "name", read_text, offsetof(struct policy_test, name) },
		{ "profile", read_test_profile, 0 },
		{ "source", read_test_source, 0 },
		{ "allow", skip_key, 0 },
		{ "deny", skip_key, 0 },
	};
	struct policy_test t = {
		.pos = v->pos, .name = "", .profile = "", .target = "", .reason = ""
	};
	if (!read_map(b, v, "a test", KEYS(who), &t))
		return;
	if (!map_get(v, "profile") == !map_get(v, "source"))
		diag_error(b->d, v->pos, "missing-key",
			   "a test needs either `profile` or `source`");
	node_for_each_pair(k, value, v)
	{
		if (strcmp(k->text, "allow") == 0)
			read_test_allow(b, k, value, &t);
		else if (strcmp(k->text, "deny") == 0)
			read_test_deny(b, k, value, &t);
	}
}

void read_tests(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	if (!want_seq(b, v, k->text))
		return;
	node_for_each(item, v) read_test(b, item);
}

/* ---- together ----------------------------------------------------------------------------------- */

void finish_extras(struct build *b)
{
	check_credentials(b);
	check_selectors(b);
	if (b->n_credentials)
		qsort(b->credentials, b->n_credentials, sizeof(*b->credentials),
		      compare_credentials);
	b->m->credentials = b->credentials;
	b->m->n_credentials = (uint32_t)b->n_credentials;
	b->m->services = b->services;
	b->m->n_services = (uint32_t)b->n_services;
	b->m->authz = b->authz;
	b->m->n_authz = (uint32_t)b->n_authz;
	b->m->tests = b->tests;
	b->m->n_tests = (uint32_t)b->n_tests;
}
