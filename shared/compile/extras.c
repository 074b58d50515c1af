/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials and mesh services: read, checked and kept. Must never accept what it could not express
 * faithfully.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"
#include "shared/compile/draft.h"

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

static void read_unseen(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "allow", "deny" };
	*(bool *)to = read_word(b, v, k->text, words, 2) == 0;
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
		{ "unseen", read_unseen, offsetof(struct credential, unseen) },
		{ "lint", read_lint, offsetof(struct credential, lift) },
	};
	(void)to;
	if (!want_map(b, v, k->text))
		return;
	node_for_each_pair(name, value, v)
	{
		struct credential c = { .pos = name->pos,
					.name = name->text,
					.source = "",
					.scope = "",
					.header = "",
					.lift = "" };
		if (!is_credential_name(name->text))
			diag_error(
				b->d, name->pos, "bad-value",
				"a credential's name has 1 to 64 of A-Z a-z 0-9 _ - and no others");
		if (!read_map(b, value, "a credential", KEYS(keys), &c))
			continue;
		if (!map_get(value, "source") || !map_get(value, "scope"))
			diag_error(b->d, name->pos, "missing-key",
				   "a credential needs `source` and `scope`");
		/* those of the gateway itself are what `proxy` enforces */
		if (strcmp(c.scope, "gateway") != 0 || c.n_hosts)
			use_feature(b, FEATURE_BIT_CREDENTIALS, k->pos);
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

static void unknown_credential(struct build *b, const struct profile *p, const char *name)
{
	diag_error(b->d, p->pos, "unknown-credential",
		   "profile \"%s\" names the credential \"%.64s\", "
		   "which `credentials` does not have",
		   p->name, name);
}

static void check_proxy_auth(struct build *b, const struct profile *p)
{
	for (size_t i = 0; i < b->n_credentials; i++)
		if (strcmp(b->credentials[i].name, p->proxy.auth) == 0 &&
		    strcmp(b->credentials[i].scope, "gateway") != 0)
			diag_error(
				b->d, p->pos, "proxy-auth",
				"profile \"%s\": the credential of a proxy has `scope: gateway`, "
				"which \"%s\" has not",
				p->name, p->proxy.auth);
}

static void check_names(struct build *b)
{
	for (size_t i = 0; i < b->n_drafts; i++) {
		const struct profile *p = &b->drafts[i].p;
		for (uint32_t j = 0; j < p->n_credentials; j++)
			if (!has_credential(b, p->credentials[j]))
				unknown_credential(b, p, p->credentials[j]);
		if (*p->proxy.auth && !has_credential(b, p->proxy.auth))
			unknown_credential(b, p, p->proxy.auth);
		check_proxy_auth(b, p);
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

/* ---- together ----------------------------------------------------------------------------------- */

void finish_extras(struct build *b)
{
	check_names(b);
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
