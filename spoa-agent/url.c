/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host, request target and CONNECT authority; see url.h. Never repairs what it reads.
 */
#include "spoa-agent/url.h"

#include <string.h>
#include <strings.h>

#include "shared/base/addr.h"

enum { MAX_METHOD = 32 };

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* [address], [address%zone] or [vX.future], with a port or not. */
static enum url_err judge_brackets(const char *s, size_t n)
{
	const char *end = memchr(s, ']', n);
	if (!end)
		return URL_BAD_NAME;
	const char *in = s + 1;
	size_t len = (size_t)(end - in);
	const char *zone = memchr(in, '%', len);
	struct addr a;
	if (addr_from_text(&a, in, zone ? (size_t)(zone - in) : len))
		return URL_IP_LITERAL;
	if (len > 2 && (in[0] == 'v' || in[0] == 'V') && is_hex(in[1]))
		return URL_IP_LITERAL;
	return URL_BAD_NAME;
}

static bool parse_port(uint16_t *out, const char *s, size_t n)
{
	uint32_t v = 0;
	if (n == 0 || n > 5 || s[0] == '0')
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_digit(s[i]))
			return false;
		v = v * 10 + (uint32_t)(s[i] - '0');
	}
	if (v > UINT16_MAX)
		return false;
	*out = (uint16_t)v;
	return true;
}

static enum url_err name_part(struct name *out, const char *s, size_t n)
{
	switch (name_from_text(out, s, n)) {
	case NAME_OK:
		return URL_OK;
	case NAME_IP_LITERAL:
		return URL_IP_LITERAL;
	default:
		return URL_BAD_NAME;
	}
}

enum url_err authority_parse(struct authority *out, const char *s, size_t n)
{
	if (n == 0)
		return URL_BAD_NAME;
	if (s[0] == '[')
		return judge_brackets(s, n);
	const char *colon = memchr(s, ':', n);
	if (!colon) {
		out->port = 0;
		return name_part(&out->name, s, n);
	}
	size_t at = (size_t)(colon - s);
	size_t rest = n - at - 1;
	struct addr a;
	if (memchr(colon + 1, ':', rest))
		return addr_from_text(&a, s, n) ? URL_IP_LITERAL : URL_BAD_NAME;
	enum url_err e = name_part(&out->name, s, at);
	if (e != URL_OK)
		return e;
	return parse_port(&out->port, colon + 1, rest) ? URL_OK : URL_BAD_NAME;
}

/* The canonical spelling of an address, and no other. */
static bool canonical_address(struct addr *out, const char *s, size_t n)
{
	char text[ADDR_TEXT_SIZE];
	return addr_from_text(out, s, n) && addr_to_text(out, text) == n && memcmp(text, s, n) == 0;
}

/* [IPv6]:PORT or IPv4:PORT; n_host counts the brackets. */
static bool parse_address(struct endpoint *out, const char *s, size_t n_host)
{
	bool brackets = n_host > 2 && s[0] == '[' && s[n_host - 1] == ']';
	if (brackets)
		return canonical_address(&out->addr, s + 1, n_host - 2) && !addr_is_v4(&out->addr);
	return canonical_address(&out->addr, s, n_host) && addr_is_v4(&out->addr);
}

enum url_err endpoint_parse(struct endpoint *out, const char *s, size_t n)
{
	struct authority au;
	const char *colon = n ? memrchr(s, ':', n) : NULL;
	size_t at = colon ? (size_t)(colon - s) : 0;
	out->literal = colon && parse_address(out, s, at);
	if (out->literal)
		return parse_port(&out->port, colon + 1, n - at - 1) ? URL_OK : URL_BAD_NAME;
	enum url_err e = authority_parse(&au, s, n);
	if (e != URL_OK)
		return e;
	out->name = au.name;
	out->port = au.port;
	return au.port ? URL_OK : URL_BAD_NAME;
}

bool method_ok(const char *s, size_t n)
{
	if (n == 0 || n > MAX_METHOD)
		return false;
	for (size_t i = 0; i < n; i++) {
		bool alnum = is_digit(s[i]) || ((s[i] | 0x20) >= 'a' && (s[i] | 0x20) <= 'z');
		if (!alnum && (s[i] == 0 || !strchr("!#$%&'*+-.^_`|~", s[i])))
			return false;
	}
	return true;
}

/* Printable ASCII without blank, and no fragment, which no client sends. */
static bool octets_ok(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] > '~' || s[i] == '#')
			return false;
	return true;
}

static enum url_err parse_absolute(struct target *out, const char *s, size_t n)
{
	static const char scheme[] = "http://";
	enum { SCHEME = sizeof(scheme) - 1 };
	if (n < SCHEME || strncasecmp(s, scheme, SCHEME) != 0)
		return URL_MALFORMED;
	const char *at = s + SCHEME;
	size_t left = n - SCHEME, len = 0;
	while (len < left && at[len] != '/' && at[len] != '?')
		len++;
	out->absolute = true;
	out->path = at + len;
	out->path_len = left - len;
	if (out->path_len == 0) {
		out->path = "/";
		out->path_len = 1;
	} else if (out->path[0] == '?') {
		return URL_MALFORMED; /* an empty path before a query: servers differ on it */
	}
	return authority_parse(&out->authority, at, len);
}

enum url_err target_parse(struct target *out, const char *method, size_t method_len, const char *s,
			  size_t n)
{
	if (n == 0 || !octets_ok(s, n))
		return URL_MALFORMED;
	bool star = n == 1 && s[0] == '*' && method_len == 7 && memcmp(method, "OPTIONS", 7) == 0;
	if (s[0] != '/' && !star)
		return parse_absolute(out, s, n);
	out->absolute = false;
	out->path = s;
	out->path_len = n;
	return URL_OK;
}
