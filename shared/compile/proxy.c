/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `proxy` of a profile: read, and as tables of policy.bin. Never takes a user or password: that is what
 * `auth` names.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/draft.h"
#include "shared/compile/layout.h"

/* http://HOST:PORT and nothing else: no user (that is `auth`), no path. */
static void read_proxy_url(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct name name;
	struct addr a;
	uint64_t port;
	if (!want_text(b, v, k->text))
		return;
	const char *host = strncmp(v->text, "http://", 7) == 0 ? v->text + 7 : NULL;
	const char *colon = host ? strrchr(host, ':') : NULL;
	if (!colon || strcspn(host, "/@?# ") != strlen(host)) {
		diag_error(b->d, v->pos, "bad-value",
			   "a proxy is written as http://HOST:PORT, not \"%.100s\"", v->text);
		return;
	}
	struct node digits = *v;
	digits.text = colon + 1;
	size_t n = (size_t)(colon - host);
	bool literal = (!memchr(host, ':', n) && addr_from_text(&a, host, n)) ||
		       (n > 2 && host[0] == '[' && host[n - 1] == ']' &&
			addr_from_text(&a, host + 1, n - 2));
	if (!literal && memchr(host, ':', n)) {
		diag_error(b->d, v->pos, "bad-value",
			   "an IPv6 address of a proxy stands in brackets: "
			   "http://[2001:db8::1]:3128, not \"%.100s\"",
			   v->text);
		return;
	}
	if (!read_uint(b, &digits, "the port of a proxy", 1, 65535, &port))
		return;
	if (literal) {
		*(const char **)to = v->text;
	} else if (parse_name(b, v->pos, host, n, &name, NULL)) {
		char text[NAME_TEXT_SIZE];
		name_to_text(&name, text);
		*(const char **)to = arena_printf(b->a, "http://%s%s", text, colon);
	}
}

/* ---- no_proxy ---- */

/* ADDRESS[/LEN], or an address with a port: 192.0.2.1:80, [2001:db8::1]:80. */
static bool direct_prefix(struct direct *d, const char *s, size_t n)
{
	bool brackets = n > 2 && s[0] == '[' && s[n - 1] == ']';
	d->kind = DIRECT_PREFIX;
	if (brackets)
		return prefix_from_text(&d->prefix, s + 1, n - 2) == PREFIX_OK;
	return prefix_from_text(&d->prefix, s, n) == PREFIX_OK;
}

/* Cuts :PORT off; false if what stands there is none. */
static bool cut_port(struct direct *d, const char *s, size_t *n)
{
	const char *colon = memrchr(s, ':', *n);
	bool brackets = colon && colon > s && colon[-1] == ']';
	uint32_t port = 0;
	if (!colon || (!brackets && memchr(s, ':', (size_t)(colon - s))))
		return true;
	for (const char *c = colon + 1; c < s + *n; c++) {
		if (*c < '0' || *c > '9' || (port = port * 10 + (uint32_t)(*c - '0')) > UINT16_MAX)
			return false;
	}
	*n = (size_t)(colon - s);
	d->port = (uint16_t)port;
	return port > 0 && colon[1] != '0';
}

static bool direct_term(struct build *b, struct direct *d, struct pos at, const char *s, size_t n)
{
	char text[NAME_TEXT_SIZE];
	struct name name;
	*d = (struct direct){ .kind = DIRECT_ALL, .name = "" };
	if (n == 1 && *s == '*')
		return true;
	if (direct_prefix(d, s, n))
		return true;
	if (!cut_port(d, s, &n)) {
		diag_error(b->d, at, "bad-value", "no_proxy: \"%.*s\" ends in no port", (int)n, s);
		return false;
	}
	if (direct_prefix(d, s, n))
		return true;
	size_t skip = n > 2 && s[0] == '*' && s[1] == '.' ? 2 : n > 1 && s[0] == '.' ? 1 : 0;
	d->kind = DIRECT_NAME;
	if (!parse_name(b, at, s + skip, n - skip, &name, NULL))
		return false;
	d->name = arena_text(b->a, text, name_to_text(&name, text));
	return true;
}

/* Names (each with what is below it), addresses, cidrs, each with a port or not, or *. */
static void read_no_proxy(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct proxy *p = to;
	struct direct *list = NULL, d;
	size_t n = 0, cap = 0;
	if (!want_text(b, v, k->text))
		return;
	p->no_proxy = v->text;
	for (const char *s = v->text; *s;) {
		size_t len = strcspn(s, ", \t");
		if (len && direct_term(b, &d, v->pos, s, len)) {
			list = arena_grow(b->a, list, n, &cap, sizeof(*list));
			list[n++] = d;
		}
		s += len ? len : 1;
	}
	p->direct = list;
	p->n_direct = (uint32_t)n;
}

static void read_resolve(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const char *const words[] = { "gateway", "upstream" };
	struct proxy *p = to;
	p->by_name = read_word(b, v, k->text, words, 2) == 1;
	if (p->by_name)
		diag_warning(b->d, v->pos, "upstream-resolves",
			     "the proxy looks names up itself: the addresses that it connects to "
			     "are not "
			     "checked here");
}

void read_proxy(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
		{ "http", read_proxy_url, offsetof(struct proxy, http) },
		{ "https", read_proxy_url, offsetof(struct proxy, https) },
		{ "no_proxy", read_no_proxy, 0 },
		{ "auth", read_text, offsetof(struct proxy, auth) },
		{ "resolve", read_resolve, 0 },
	};
	struct draft *d = to;
	if (!read_map(b, v, k->text, KEYS(keys), &d->p.proxy))
		return;
	d->set |= map_get(v, "http") ? SET_PROXY_HTTP : 0;
	d->set |= map_get(v, "https") ? SET_PROXY_HTTPS : 0;
	d->set |= map_get(v, "no_proxy") ? SET_NO_PROXY : 0;
	d->set |= map_get(v, "auth") ? SET_PROXY_AUTH : 0;
	d->set |= map_get(v, "resolve") ? SET_PROXY_RESOLVE : 0;
	if (v->n)
		use_feature(b, FEATURE_BIT_PROXY, k->pos);
}

/* ---- as tables of policy.bin ---- */

/* The one form of HOST:PORT of http://HOST:PORT, which read_proxy_url() has checked; 0: none. */
static uint32_t put_endpoint(struct tables *t, const char *url)
{
	char text[NAME_TEXT_SIZE];
	struct addr a;
	struct name name;
	if (!*url)
		return 0;
	const char *host = url + sizeof("http://") - 1, *colon = strrchr(host, ':');
	size_t n = (size_t)(colon - host);
	bool brackets = host[0] == '[';
	if (addr_from_text(&a, host + brackets, n - 2 * (size_t)brackets))
		text[addr_to_text(&a, text)] = '\0';
	else if (name_from_text(&name, host, n) == NAME_OK)
		text[name_to_text(&name, text)] = '\0';
	else
		text[0] = '\0';
	brackets = strchr(text, ':') != NULL;
	return pool_text(&t->strings, arena_printf(&t->arena, "%s%s%s%s", brackets ? "[" : "", text,
						   brackets ? "]" : "", colon));
}

static int by_direct(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct fmt_direct));
}

static void put_direct(struct tables *t, const struct proxy *p)
{
	size_t at = t->n_direct;
	for (uint32_t i = 0; i < p->n_direct; i++) {
		const struct direct *d = &p->direct[i];
		struct fmt_direct *to = &t->direct[t->n_direct++];
		*to = (struct fmt_direct){ .kind = (uint16_t)d->kind,
					   .port = d->port,
					   .name = pool_text(&t->strings, d->name) };
		if (d->kind != DIRECT_PREFIX)
			continue;
		memcpy(to->addr, d->prefix.a.b, sizeof(to->addr));
		to->len = d->prefix.len;
	}
	if (p->n_direct)
		qsort(t->direct + at, p->n_direct, sizeof(*t->direct), by_direct);
}

void tables_proxies(struct tables *t, const struct model *m)
{
	size_t n = 0;
	for (uint32_t i = 0; i < m->n_profiles; i++)
		n += m->profiles[i].proxy.n_direct;
	t->direct = arena_array(&t->arena, n + 1, sizeof(*t->direct));
	t->proxies = arena_array(&t->arena, m->n_profiles + (size_t)1, sizeof(*t->proxies));
	for (uint32_t i = 0; i < m->n_profiles; i++) {
		const struct proxy *p = &m->profiles[i].proxy;
		if (!*p->http && !*p->https)
			continue;
		struct fmt_proxy *to = &t->proxies[t->n_proxies++];
		*to = (struct fmt_proxy){ .profile = i,
					  .http = put_endpoint(t, p->http),
					  .https = put_endpoint(t, p->https),
					  .auth = *p->auth ? pool_text(&t->strings, p->auth) : 0,
					  .direct = (uint32_t)t->n_direct,
					  .n_direct = p->n_direct,
					  .flags = p->by_name ? PROXY_BY_NAME : 0 };
		put_direct(t, p);
	}
}
