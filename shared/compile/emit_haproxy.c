/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstream proxies and mesh services as backends of HAProxy, and a map that finds them. Must never make
 * a backend that speaks to a service without verifying it.
 */
#include "shared/compile/emit.h"

#include <stdlib.h>
#include <string.h>

struct upstream {
	const char *host; /* canonical; IPv6 in brackets */
	unsigned port;
	bool literal;
	struct pos at;
};

struct upstreams {
	const struct model *m;
	struct arena arena;
	struct upstream *v;
	size_t n, cap;
};

static bool parse_port(const char *s, unsigned *port)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);
	if (*s < '1' || *s > '9' || *end || v > 65535)
		return false;
	*port = (unsigned)v;
	return true;
}

/* http://HOST:PORT taken apart again, into the one form of each host. */
static bool parse_proxy(struct upstreams *u, const char *url, struct upstream *out)
{
	char buf[NAME_TEXT_SIZE];
	struct addr a;
	struct name name;
	const char *host = strncmp(url, "http://", 7) == 0 ? url + 7 : "";
	const char *colon = strrchr(host, ':');
	size_t n = colon ? (size_t)(colon - host) : 0;
	bool brackets = n > 2 && host[0] == '[' && host[n - 1] == ']';
	if (!colon || !parse_port(colon + 1, &out->port))
		return false;
	out->literal = addr_from_text(&a, host + brackets, n - 2 * (size_t)brackets);
	if (out->literal) {
		size_t len = addr_to_text(&a, buf);
		out->host =
			arena_printf(&u->arena, addr_is_v4(&a) ? "%.*s" : "[%.*s]", (int)len, buf);
		return true;
	}
	if (name_from_text(&name, host, n) != NAME_OK)
		return false;
	out->host = arena_text(&u->arena, buf, name_to_text(&name, buf));
	return true;
}

static void add_proxy(struct upstreams *u, const struct profile *p, const char *url)
{
	struct upstream x = { .at = p->pos };
	if (!*url)
		return;
	if (!parse_proxy(u, url, &x)) {
		diag_error(u->m->diags, p->pos, "emit",
			   "the proxy \"%.100s\" cannot be written into a configuration "
			   "(a host with other letters than a-z is written in its xn-- form)",
			   url);
		return;
	}
	for (size_t i = 0; i < u->n; i++)
		if (u->v[i].port == x.port && strcmp(u->v[i].host, x.host) == 0)
			return;
	u->v = arena_grow(&u->arena, u->v, u->n, &u->cap, sizeof(*u->v));
	u->v[u->n++] = x;
}

static int by_host(const void *a, const void *b)
{
	const struct upstream *x = a, *y = b;
	int c = strcmp(x->host, y->host);
	return c ? c : (x->port > y->port) - (x->port < y->port);
}

static void collect(struct upstreams *u)
{
	for (uint32_t i = 0; i < u->m->n_profiles; i++) {
		add_proxy(u, &u->m->profiles[i], u->m->profiles[i].proxy.http);
		add_proxy(u, &u->m->profiles[i], u->m->profiles[i].proxy.https);
	}
	if (u->n)
		qsort(u->v, u->n, sizeof(*u->v), by_host);
}

/* HAProxy's names of backends have no brackets: an IPv6 address goes without. */
static void put_backend_name(struct out *o, const struct upstream *x)
{
	out_text(o, "cx-upstream-");
	for (const char *s = x->host; *s; s++)
		if (*s != '[' && *s != ']')
			out_bytes(o, s, 1);
	out_printf(o, ":%u", x->port);
}

static void put_upstream(struct out *o, const struct upstreams *u, const struct upstream *x)
{
	const char *host = emit_word(u->m, x->at, "the proxy", x->host);
	out_text(o, "\nbackend ");
	put_backend_name(o, x);
	out_text(o, "\n\tmode tcp\n\ttimeout connect 5s\n\ttimeout server 1h\n");
	out_printf(o, "\tserver upstream %s:%u%s\n", host, x->port,
		   x->literal ? "" : " resolvers cx-emitted init-addr none");
}

static bool is_service_name(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
		    !(s[i] >= '0' && s[i] <= '9') && !strchr("-_.", s[i]))
			return false;
	return n > 0 && n <= 64;
}

static const char *service_name(const struct model *m, const struct mesh_service *s)
{
	if (is_service_name(s->name))
		return s->name;
	diag_error(m->diags, s->pos, "emit",
		   "the service's name \"%.60s\" has other letters than a-z A-Z 0-9 - _ .",
		   s->name);
	return "";
}

static void put_service(struct out *o, const struct model *m, const struct mesh_service *s)
{
	const char *host = emit_word(m, s->pos, "the host", s->host);
	out_printf(
		o,
		"\nbackend cx-mesh-%s\n\tmode http\n\ttimeout connect 5s\n\ttimeout server 60s\n",
		service_name(m, s));
	out_printf(
		o,
		"\tserver service %s:%u resolvers cx-emitted init-addr none ssl verify required "
		"verifyhost %s "
		"sni str(%s) ca-file \"${CX_MESH_DIR}/ca.pem\" crt \"${CX_MESH_DIR}/client.pem\"\n",
		host, s->port, host, host);
}

static int by_service(const void *a, const void *b)
{
	const struct mesh_service *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

static const struct mesh_service **services(struct upstreams *u)
{
	const struct model *m = u->m;
	const struct mesh_service **v =
		arena_array(&u->arena, m->n_services + (size_t)1, sizeof(*v));
	for (uint32_t i = 0; i < m->n_services; i++)
		v[i] = &m->services[i];
	if (m->n_services)
		qsort(v, m->n_services, sizeof(*v), by_service);
	return v;
}

void emit_haproxy(const struct model *m, struct out *o)
{
	struct upstreams u = { .m = m };
	collect(&u);
	const struct mesh_service **v = services(&u);
	out_text(o, "# Made by cx-policyc --emit haproxy: give it to haproxy with a further -f. "
		    "Which backend a\n"
		    "# HOST:PORT has is in the map that --emit haproxy-map prints.\n"
		    "global\n"
		    "\tpresetenv CX_RESOLVER 127.0.0.1:5335\n"
		    "\tpresetenv CX_MESH_DIR /etc/cx/mesh\n"
		    "\nresolvers cx-emitted\n"
		    "\tnameserver gateway \"${CX_RESOLVER}\"\n"
		    "\thold valid 10s\n");
	for (size_t i = 0; i < u.n; i++)
		put_upstream(o, &u, &u.v[i]);
	for (uint32_t i = 0; i < m->n_services; i++)
		put_service(o, m, v[i]);
	arena_fini(&u.arena);
}

void emit_haproxy_map(const struct model *m, struct out *o)
{
	struct upstreams u = { .m = m };
	collect(&u);
	const struct mesh_service **v = services(&u);
	for (size_t i = 0; i < u.n; i++) {
		out_printf(o, "%s:%u ", emit_word(m, u.v[i].at, "the proxy", u.v[i].host),
			   u.v[i].port);
		put_backend_name(o, &u.v[i]);
		out_text(o, "\n");
	}
	for (uint32_t i = 0; i < m->n_services; i++)
		out_printf(o, "%s:%u cx-mesh-%s\n", emit_word(m, v[i]->pos, "the host", v[i]->host),
			   v[i]->port, service_name(m, v[i]));
	arena_fini(&u.arena);
}
