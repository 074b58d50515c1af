/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one rule permits of a question, all other rules apart (judge.h). Never compares rules.
 */
#include "shared/policy/judge.h"

#include <string.h>

bool ports_contain(const struct policy *p, uint32_t list, uint16_t port)
{
	const uint32_t *l = p->ports + list;
	for (uint32_t i = 1; i <= l[0]; i++)
		if (port >= (l[i] & 0xffff) && port <= l[i] >> 16)
			return true;
	return false;
}

static bool rule_has_port(const struct judge *j, const struct fmt_rule *r, unsigned proto)
{
	if (r->ports != FMT_NONE)
		return ports_contain(j->p, r->ports, j->q->port);
	return (proto == PROTO_HTTPS && j->q->port == 443) ||
	       (proto == PROTO_HTTP && j->q->port == 80);
}

static size_t path_length(const struct question *q)
{
	const char *mark = q->path_len ? memchr(q->path, '?', q->path_len) : NULL;
	return mark ? (size_t)(mark - q->path) : q->path_len;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * A path that another parser might read as a different one: dot segments, empty segments, backslash,
 * parameters, encoded separators or dots, an octet that does not belong into a path.
 */
static bool path_is_ambiguous(const char *s, size_t n)
{
	if (n == 0 || s[0] != '/')
		return true;
	size_t segment = 1; /* where the open segment starts */
	for (size_t i = 1; i <= n; i++) {
		if (i == n || s[i] == '/') {
			size_t len = i - segment;
			bool last = i == n;
			if (len == 0 && !last)
				return true;
			if (len > 0 && s[segment] == '.' &&
			    (len == 1 || (len == 2 && s[segment + 1] == '.')))
				return true;
			segment = i + 1;
			continue;
		}
		unsigned char c = (unsigned char)s[i];
		if (c <= 0x20 || c >= 0x7f || c == '\\' || c == ';' || c == '#')
			return true;
		if (c != '%')
			continue;
		if (n - i < 3 || hex_value(s[i + 1]) < 0 || hex_value(s[i + 2]) < 0)
			return true;
		int v = hex_value(s[i + 1]) * 16 + hex_value(s[i + 2]);
		if (v == '/' || v == '\\' || v == '.' || v == 0 || v == ';' || v == '%')
			return true;
	}
	return false;
}

static unsigned get16(const uint8_t *b)
{
	return b[0] | (unsigned)b[1] << 8;
}

/* Looks through one http rule at b, *end behind it. Which of method and path it takes. */
static void match_http_rule(const uint8_t *b, const struct question *q, bool *method, bool *path,
			    const uint8_t **end)
{
	unsigned methods = get16(b), paths = get16(b + 2);
	size_t len = path_length(q);
	b += 4;
	*method = methods == 0;
	*path = paths == 0;
	for (; methods > 0; methods--, b += 1 + b[0])
		if (b[0] == q->method_len && memcmp(b + 1, q->method, b[0]) == 0)
			*method = true;
	for (; paths > 0; paths--, b += 3 + get16(b + 1)) {
		size_t n = get16(b + 1);
		bool prefix = b[0];
		if ((prefix ? n <= len : n == len) && memcmp(b + 3, q->path, n) == 0)
			*path = true;
	}
	*end = b;
}

/* Do any of the rule's http rules name paths? */
static bool http_names_paths(const uint8_t *b)
{
	unsigned n = get16(b);
	b += 2;
	for (; n > 0; n--) {
		unsigned methods = get16(b), paths = get16(b + 2);
		if (paths)
			return true;
		b += 4;
		for (; methods > 0; methods--)
			b += 1 + b[0];
	}
	return false;
}

static enum reason judge_http(const struct judge *j, const struct fmt_rule *r)
{
	const struct question *q = j->q;
	if (r->http == FMT_NONE)
		return REASON_ALLOWED;
	const uint8_t *b = j->p->http + r->http;
	bool usable = !http_names_paths(b) || !path_is_ambiguous(q->path, path_length(q));
	bool any_method = false;
	unsigned n = get16(b);
	b += 2;
	for (; n > 0; n--) {
		bool method, path;
		match_http_rule(b, q, &method, &path, &b);
		any_method |= method;
		if (method && path && usable)
			return REASON_ALLOWED;
	}
	return any_method ? REASON_PATH : REASON_METHOD;
}

static bool equals_ignore_case(const char *a, size_t n, const char *lower)
{
	if (n != strlen(lower))
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = a[i];
		if (c >= 'A' && c <= 'Z')
			c = (char)(c + 32);
		if (c != lower[i])
			return false;
	}
	return true;
}

/* Upgrades only where the entry lists them, and never together with http rules. */
static bool upgrade_permitted(const struct question *q, const struct fmt_rule *r)
{
	if (!q->upgrade || q->upgrade_len == 0)
		return true;
	return r->upgrades & UPGRADE_WEBSOCKET && r->http == FMT_NONE &&
	       equals_ignore_case(q->upgrade, q->upgrade_len, "websocket");
}

bool expired(const struct judge *j, const struct fmt_rule *r)
{
	return r->expires != 0 && j->now_s >= r->expires;
}

/* What is wrong with a listed, unexpired rule for one way of using it; ALLOWED if nothing. */
static enum reason judge_protocol(const struct judge *j, const struct fmt_rule *r, unsigned proto)
{
	bool request = proto == PROTO_HTTP && j->q->layer == LAYER_HTTP;
	if (!(r->protocols & proto) || (request && !upgrade_permitted(j->q, r)))
		return REASON_PROTOCOL;
	if (!rule_has_port(j, r, proto))
		return REASON_PORT;
	return request ? judge_http(j, r) : REASON_ALLOWED;
}

/* What a CONNECT to this rule's name leads to; NEXT_NONE and *why if nothing does. */
static enum next judge_connect(const struct judge *j, const struct fmt_rule *r, enum reason *why)
{
	static const struct {
		unsigned proto;
		enum next next;
	} ways[] = { { PROTO_TCP, NEXT_RAW },
		     { PROTO_HTTPS, NEXT_TLS },
		     { PROTO_HTTP, NEXT_HTTP } };
	*why = REASON_PROTOCOL;
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		enum reason r1 = judge_protocol(j, r, ways[i].proto);
		if (r1 == REASON_ALLOWED)
			return ways[i].next;
		if (r1 > *why)
			*why = r1;
	}
	return NEXT_NONE;
}

enum reason judge_rule(const struct judge *j, const struct fmt_rule *r, enum next *next)
{
	enum reason why = REASON_ALLOWED;
	*next = NEXT_NONE;
	switch (j->q->layer) {
	case LAYER_DNS:
		return REASON_ALLOWED;
	case LAYER_TLS:
		return judge_protocol(j, r, PROTO_HTTPS);
	case LAYER_HTTP:
		return judge_protocol(j, r, PROTO_HTTP);
	case LAYER_CONNECT:
		if (!j->q->name) {
			*next = NEXT_RAW;
			return judge_protocol(j, r, PROTO_TCP);
		}
		*next = judge_connect(j, r, &why);
		return *next == NEXT_NONE ? why : REASON_ALLOWED;
	case LAYER_TCP:
		*next = NEXT_RAW;
		return judge_protocol(j, r, PROTO_TCP);
	}
	return REASON_INTERNAL_ERROR;
}
