/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a model that no table of the file holds, as canonical YAML (format.h, SEC_TERMS and
 * SEC_NOTES): the same meaning gives the same text, whatever the order it was written in. Never leaves
 * out what could let more through.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/layout.h"
#include "shared/compile/out.h"

struct texts_of {
	struct tables *t;
	const struct model *m;
	struct out o; /* one text at a time */
};

/* The text in x->o as a term; none if it is empty. */
static void put_term(struct texts_of *x, enum fmt_text_kind kind, uint32_t index, bool even_empty)
{
	struct tables *t = x->t;
	if (x->o.n == 0 && !even_empty)
		return;
	t->terms = arena_grow(&t->arena, t->terms, t->n_terms, &t->cap_terms, sizeof(*t->terms));
	t->terms[t->n_terms++] =
		(struct fmt_text){ kind, index, pool_text(&t->term_strings, out_get(&x->o)), 0 };
	x->o.n = 0;
	if (x->o.p)
		x->o.p[0] = '\0';
}

static void put_note(struct texts_of *x, enum fmt_text_kind kind, uint32_t index, const char *text)
{
	struct tables *t = x->t;
	t->notes = arena_grow(&t->arena, t->notes, t->n_notes, &t->cap_notes, sizeof(*t->notes));
	t->notes[t->n_notes++] =
		(struct fmt_text){ kind, index, pool_text(&t->info_strings, text), 0 };
}

static void pair(struct out *o, const char **sep, const char *key, const char *value)
{
	if (!*value)
		return;
	out_printf(o, "%s%s: ", *sep, key);
	out_yaml(o, value, strlen(value));
	*sep = ", ";
}

/* Lines in the order of their octets, each once. */
static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_sorted(struct out *o, const char **lines, size_t n)
{
	if (n)
		qsort(lines, n, sizeof(*lines), by_text);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || strcmp(lines[i], lines[i - 1]) != 0)
			out_text(o, lines[i]);
}

/* As [a, b] in the order of their octets: for lists whose order means nothing. */
static void put_set(struct texts_of *x, struct out *o, const char *const *v, uint32_t n)
{
	const char **sorted = arena_array(&x->t->arena, n + (size_t)1, sizeof(*sorted));
	if (n) {
		memcpy(sorted, v, n * sizeof(*v));
		qsort(sorted, n, sizeof(*sorted), by_text);
	}
	out_yaml_list(o, sorted, n);
}

static const char *kept(struct texts_of *x, struct out *o)
{
	const char *s = arena_text(&x->t->arena, out_get(o), o->n);
	out_fini(o);
	return s;
}

/* ---- the policy as a whole ---- */

static void put_credential(struct texts_of *x, const struct credential *c)
{
	struct out *o = &x->o;
	const char *sep = "";
	bool limited = false;
	out_text(o, "  ");
	out_yaml(o, c->name, strlen(c->name));
	out_text(o, ": {");
	pair(o, &sep, "source", c->source);
	pair(o, &sep, "scope", c->scope);
	if (c->read_only)
		pair(o, &sep, "permissions", "read-only");
	if (c->n_hosts) {
		out_printf(o, "%shosts: ", sep);
		put_set(x, o, c->hosts, c->n_hosts);
		sep = ", ";
	}
	pair(o, &sep, "header", c->header);
#define X(field, key, octets, dflt) limited = limited || c->limits.field.set;
	LIMITS(X)
#undef X
	if (limited) {
		out_printf(o, "%slimits: ", sep);
		out_limits(o, &c->limits);
	}
	out_text(o, "}\n");
}

static const char *service_line(struct texts_of *x, const struct mesh_service *s)
{
	struct out o = { 0 };
	const char *sep = ", ";
	out_text(&o, "    ");
	out_yaml(&o, s->name, strlen(s->name));
	out_text(&o, ": {host: ");
	out_yaml(&o, s->host, strlen(s->host));
	out_printf(&o, ", port: %u", s->port);
	pair(&o, &sep, "principal", s->principal);
	if (*s->labels) {
		out_text(&o, ", labels: ");
		out_yaml_labels(&o, s->labels);
	}
	out_text(&o, "}\n");
	return kept(x, &o);
}

static void put_policy(struct texts_of *x)
{
	const struct model *m = x->m;
	if (m->n_credentials)
		out_text(&x->o, "credentials:\n");
	for (uint32_t i = 0; i < m->n_credentials; i++)
		put_credential(x, &m->credentials[i]);
	const char **lines = arena_array(&x->t->arena, m->n_services + (size_t)1, sizeof(*lines));
	for (uint32_t i = 0; i < m->n_services; i++)
		lines[i] = service_line(x, &m->services[i]);
	if (m->n_services)
		out_text(&x->o, "mesh:\n  services:\n");
	put_sorted(&x->o, lines, m->n_services);
	put_term(x, TERM_POLICY, 0, false);
}

/* ---- AuthorizationPolicy ---- */

static void put_strings(struct out *o, const char **sep, const char *key, const char *const *v,
			uint32_t n)
{
	if (n == 0)
		return;
	out_printf(o, "%s%s: ", *sep, key);
	out_yaml_list(o, v, n);
	*sep = ", ";
}

static void put_authz_rule(struct out *o, const struct authz_rule *r)
{
	const char *sep = "", *part = "";
	out_text(o, "    - {");
	if (r->n_methods || r->n_paths) {
		out_text(o, "to: [{operation: {");
		put_strings(o, &sep, "methods", r->methods, r->n_methods);
		put_strings(o, &sep, "paths", r->paths, r->n_paths);
		out_text(o, "}}]");
		part = ", ";
	}
	if (r->n_principals) {
		sep = "";
		out_printf(o, "%sfrom: [{source: {", part);
		put_strings(o, &sep, "principals", r->principals, r->n_principals);
		out_text(o, "}}]");
	}
	out_text(o, "}\n");
}

static const char *authz_text(struct texts_of *x, const struct authz *a)
{
	struct out o = { 0 };
	out_text(&o, "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n");
	if (*a->name) {
		out_text(&o, "metadata: {name: ");
		out_yaml(&o, a->name, strlen(a->name));
		out_text(&o, "}\n");
	}
	out_text(&o, "spec:\n");
	if (*a->match_labels) {
		out_text(&o, "  selector: {matchLabels: ");
		out_yaml_labels(&o, a->match_labels);
		out_text(&o, "}\n");
	}
	out_printf(&o, "  action: %s\n  rules:%s\n", a->deny ? "DENY" : "ALLOW",
		   a->n_rules ? "" : " []");
	for (uint32_t i = 0; i < a->n_rules; i++)
		put_authz_rule(&o, &a->rules[i]);
	return kept(x, &o);
}

static void put_documents(struct texts_of *x)
{
	const struct model *m = x->m;
	const char **docs = arena_array(&x->t->arena, m->n_authz + (size_t)1, sizeof(*docs));
	for (uint32_t i = 0; i < m->n_authz; i++)
		docs[i] = authz_text(x, &m->authz[i]);
	if (m->n_authz)
		qsort(docs, m->n_authz, sizeof(*docs), by_text);
	for (uint32_t i = 0; i < m->n_authz; i++) {
		out_text(&x->o, docs[i]);
		put_term(x, TERM_DOCUMENT, i, false);
	}
}

/* ---- profiles ---- */

static void put_profile_limits(struct texts_of *x, uint32_t i)
{
	out_text(&x->o, "limits: ");
	out_limits(&x->o, &x->m->profiles[i].limits);
	out_text(&x->o, "\n");
	put_term(x, TERM_LIMITS, i, false);
}

static int by_prefix(const void *a, const void *b)
{
	const struct prefix *x = a, *y = b;
	int c = addr_cmp(&x->a, &y->a);
	return c ? c : (x->len > y->len) - (x->len < y->len);
}

static void put_private_ranges(struct texts_of *x, const struct profile *p)
{
	struct prefix *v = arena_array(&x->t->arena, p->n_private_ranges + (size_t)1, sizeof(*v));
	if (p->n_private_ranges == 0)
		return;
	memcpy(v, p->private_ranges, p->n_private_ranges * sizeof(*v));
	qsort(v, p->n_private_ranges, sizeof(*v), by_prefix);
	for (uint32_t k = 0; k < p->n_private_ranges; k++) {
		out_text(&x->o, k ? ", \"" : "private_ranges: [\"");
		out_prefix(&x->o, &v[k]);
		out_text(&x->o, "\"");
	}
	out_text(&x->o, "]\n");
}

static void put_dns(struct texts_of *x, uint32_t i)
{
	const struct profile *p = &x->m->profiles[i];
	if (p->ancestors_nodata)
		out_text(&x->o, "ancestors: nodata\n");
	if (!p->aaaa)
		out_text(&x->o, "aaaa: false\n");
	put_private_ranges(x, p);
	put_term(x, TERM_DNS, i, false);
}

static const char *resolver_line(struct texts_of *x, const struct resolver *r)
{
	struct out o = { 0 };
	if (!*r->name) {
		out_text(&o, "custom_resolvers: ");
		out_yaml_list(&o, r->servers, r->n_servers);
		out_text(&o, "\n");
		return kept(x, &o);
	}
	out_yaml(&o, r->name, strlen(r->name));
	out_text(&o, ": {servers: ");
	out_yaml_list(&o, r->servers, r->n_servers);
	out_text(&o, ", zones: ");
	put_set(x, &o, r->zones, r->n_zones);
	out_text(&o, "}\n");
	return kept(x, &o);
}

static void put_resolvers(struct texts_of *x, uint32_t i)
{
	const struct profile *p = &x->m->profiles[i];
	const char **lines = arena_array(&x->t->arena, p->n_resolvers + (size_t)1, sizeof(*lines));
	for (uint32_t k = 0; k < p->n_resolvers; k++)
		lines[k] = resolver_line(x, &p->resolvers[k]);
	put_sorted(&x->o, lines, p->n_resolvers);
	put_term(x, TERM_RESOLVERS, i, false);
}

static void put_proxy(struct texts_of *x, uint32_t i)
{
	const struct proxy *p = &x->m->profiles[i].proxy;
	const char *sep = "";
	if (!*p->http && !*p->https && !*p->no_proxy && !*p->auth && !p->by_name)
		return;
	out_text(&x->o, "proxy: {");
	pair(&x->o, &sep, "http", p->http);
	pair(&x->o, &sep, "https", p->https);
	pair(&x->o, &sep, "no_proxy", p->no_proxy);
	pair(&x->o, &sep, "auth", p->auth);
	pair(&x->o, &sep, "resolve", p->by_name ? "upstream" : "");
	out_text(&x->o, "}\n");
	put_term(x, TERM_PROXY, i, false);
}

static void put_profile_credentials(struct texts_of *x, uint32_t i)
{
	const struct profile *p = &x->m->profiles[i];
	if (p->n_credentials == 0)
		return;
	out_text(&x->o, "credentials: ");
	put_set(x, &x->o, p->credentials, p->n_credentials);
	out_text(&x->o, "\n");
	put_term(x, TERM_CREDENTIALS, i, false);
}

static void put_tasks(struct texts_of *x, uint32_t i)
{
	const struct profile *p = &x->m->profiles[i];
	if (!p->tasks_entries && !p->tasks_max_ttl_s && !p->n_tasks_within)
		return;
	out_printf(&x->o, "tasks: {entries: %u", p->tasks_entries);
	if (p->n_tasks_within) {
		out_text(&x->o, ", within: ");
		put_set(x, &x->o, p->tasks_within, p->n_tasks_within);
	}
	if (p->tasks_max_ttl_s)
		out_printf(&x->o, ", max_ttl: %us", p->tasks_max_ttl_s);
	out_text(&x->o, "}\n");
	put_term(x, TERM_TASKS, i, false);
}

static void for_profiles(struct texts_of *x, void (*put)(struct texts_of *x, uint32_t i))
{
	for (uint32_t i = 0; i < x->m->n_profiles; i++)
		put(x, i);
}

/* ---- rules ---- */

struct rule_text {
	uint32_t rule;
	const struct terms *terms;
};

static int by_rule(const void *a, const void *b)
{
	const struct rule_text *x = a, *y = b;
	return x->rule < y->rule ? -1 : x->rule > y->rule;
}

/* The rules of the entries that have something to say here, in the order of the rules. */
static struct rule_text *find_rules(struct texts_of *x, const uint32_t *first_rule, size_t *n)
{
	const struct model *m = x->m;
	const struct tables *t = x->t;
	struct rule_text *v = NULL;
	size_t cap = 0;
	*n = 0;
	for (uint32_t i = 0; i < m->n_entries; i++) {
		const struct terms *terms = m->entries[i].terms;
		if (!terms->limits && !terms->addition && !*terms->lint_allow)
			continue;
		for (unsigned below = 0; below < 2; below++) {
			uint32_t r = first_rule[2 * (size_t)i + below];
			bool is_below = r < t->n_rules && t->rules[r].flags & RULE_BELOW;
			if (r >= t->n_rules || t->rule_info[r].order != m->entries[i].order ||
			    is_below != (below == 1))
				continue;
			v = arena_grow(&x->t->arena, v, *n, &cap, sizeof(*v));
			v[(*n)++] = (struct rule_text){ r, terms };
		}
	}
	if (*n)
		qsort(v, *n, sizeof(*v), by_rule);
	return v;
}

static void put_rules(struct texts_of *x, const struct rule_text *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!v[i].terms->limits)
			continue;
		out_text(&x->o, "limits: ");
		out_limits(&x->o, v[i].terms->limits);
		out_text(&x->o, "\n");
		put_term(x, TERM_RULE_LIMITS, v[i].rule, false);
	}
	for (size_t i = 0; i < n; i++)
		if (v[i].terms->addition)
			put_term(x, TERM_RULE_ADDITION, v[i].rule, true);
}

static void put_lifts(struct texts_of *x, const struct rule_text *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (*v[i].terms->lint_allow)
			put_note(x, NOTE_LIFTS, v[i].rule, v[i].terms->lint_allow);
}

/* ---- sources ---- */

static void put_client(struct out *o, const struct model *m, const struct client *c)
{
	out_text(o, "  \"");
	out_prefix(o, &c->prefix);
	out_text(o, "\": ");
	if (c->to == TO_PROFILE) {
		out_yaml(o, m->profiles[c->profile].name, strlen(m->profiles[c->profile].name));
		out_text(o, "\n");
		return;
	}
	out_text(o, "{bind: [");
	for (uint32_t i = 0; i < c->n_bind; i++) {
		out_text(o, i ? ", " : "");
		out_yaml(o, m->profiles[c->bind[i]].name, strlen(m->profiles[c->bind[i]].name));
	}
	out_text(o, "]}\n");
}

static void put_prefixes(struct out *o, const struct model *m, enum source_to to)
{
	const char *sep = "";
	out_text(o, "[");
	for (uint32_t i = 0; i < m->n_clients; i++) {
		if (m->clients[i].to != to)
			continue;
		out_printf(o, "%s\"", sep);
		out_prefix(o, &m->clients[i].prefix);
		out_text(o, "\"");
		sep = ", ";
	}
	out_text(o, "]");
}

static void put_sources(struct texts_of *x)
{
	const struct model *m = x->m;
	struct out *o = &x->o;
	uint32_t n = 0, ignored = 0;
	for (uint32_t i = 0; i < m->n_clients; i++) {
		n += m->clients[i].to == TO_PROFILE || m->clients[i].to == TO_BIND;
		ignored += m->clients[i].to == TO_IGNORE;
	}
	out_text(o, n ? "sources:\n" : "sources: {}\n");
	for (uint32_t i = 0; i < m->n_clients; i++)
		if (m->clients[i].to == TO_PROFILE || m->clients[i].to == TO_BIND)
			put_client(o, m, &m->clients[i]);
	if (ignored) {
		out_text(o, "unlisted_sources: {ignore: ");
		put_prefixes(o, m, TO_IGNORE);
		out_text(o, "}\n");
	} else {
		out_text(o, "unlisted_sources: deny\n");
	}
	out_text(o, "resolver_clients: ");
	put_prefixes(o, m, TO_RESOLVER);
	out_text(o, "\n");
	put_note(x, NOTE_SOURCES, 0, out_get(o));
}

void tables_texts(struct tables *t, const struct model *m, const uint32_t *first_rule)
{
	struct texts_of x = { .t = t, .m = m };
	size_t n;
	/* in the order of the kinds: the table is sorted by them */
	put_policy(&x);
	put_documents(&x);
	for_profiles(&x, put_profile_limits);
	for_profiles(&x, put_dns);
	for_profiles(&x, put_resolvers);
	for_profiles(&x, put_proxy);
	for_profiles(&x, put_profile_credentials);
	for_profiles(&x, put_tasks);
	const struct rule_text *v = find_rules(&x, first_rule, &n);
	put_rules(&x, v, n);
	put_sources(&x);
	put_lifts(&x, v, n);
	out_fini(&x.o);
}
