/* SPDX-License-Identifier: Apache-2.0 */
/* Targets as text (target.h). Never decides, never resolves. */
#include "shared/tools/target.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
	const char *text;
	uint16_t type;
} types[] = {
	{ "A", 1 },      { "NS", 2 },     { "CNAME", 5 }, { "SOA", 6 },     { "NULL", 10 },
	{ "PTR", 12 },   { "MX", 15 },    { "TXT", 16 },  { "AAAA", 28 },   { "SRV", 33 },
	{ "NAPTR", 35 }, { "DS", 43 },    { "TLSA", 52 }, { "DNSKEY", 48 }, { "SVCB", 64 },
	{ "HTTPS", 65 }, { "AXFR", 252 }, { "ANY", 255 }, { "CAA", 257 },
};

static bool fail(char why[TARGET_WHY_SIZE], const char *text)
{
	snprintf(why, TARGET_WHY_SIZE, "%s", text);
	return false;
}

/* Decimal, 0 to 65535, no leading zero. */
static bool number16(uint16_t *out, const char *s, size_t n)
{
	unsigned v = 0;
	if (n == 0 || n > 5 || (n > 1 && s[0] == '0'))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (unsigned)(s[i] - '0');
	}
	if (v > 65535)
		return false;
	*out = (uint16_t)v;
	return true;
}

bool target_qtype(uint16_t *out, const char *s, size_t n)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strlen(types[i].text) == n && strncasecmp(types[i].text, s, n) == 0) {
			*out = types[i].type;
			return true;
		}
	return n > 4 && strncasecmp(s, "TYPE", 4) == 0 && number16(out, s + 4, n - 4);
}

/* The host as a name; what is wrong with it becomes the question's flaw. */
static void set_name(struct target *t, const char *s, size_t n)
{
	switch (name_from_text(&t->name, s, n)) {
	case NAME_OK:
		t->q.name = &t->name;
		break;
	case NAME_IP_LITERAL:
		t->q.flaw = FLAW_IP_LITERAL;
		break;
	default:
		t->q.flaw = FLAW_BAD_NAME;
		break;
	}
}

/* Splits HOST[:PORT]; brackets around an IPv6 address stay with the host. */
static bool split_port(const char *s, size_t n, size_t *host_len, uint16_t *port, bool *has_port)
{
	size_t at = n;
	const char *close = n && s[0] == '[' ? memchr(s, ']', n) : NULL;
	if (close)
		at = (size_t)(close - s) + 1;
	else
		for (size_t i = 0; i < n && at == n; i++)
			if (s[i] == ':')
				at = i;
	*host_len = at;
	*has_port = at < n;
	return at == n || (s[at] == ':' && number16(port, s + at + 1, n - at - 1) && *port != 0);
}

static bool parse_dns(struct target *t, const char *s, char *why)
{
	const char *slash = strrchr(s, '/');
	size_t n = slash ? (size_t)(slash - s) : strlen(s);
	t->q.layer = LAYER_DNS;
	t->q.qtype = 1;
	if (slash && !target_qtype(&t->q.qtype, slash + 1, strlen(slash + 1)))
		return fail(why, "unknown query type");
	set_name(t, s, n);
	return true;
}

static bool parse_url(struct target *t, const char *s, enum layer layer, uint16_t port, char *why)
{
	size_t n = strcspn(s, "/"), host;
	bool has_port;
	t->q.layer = layer;
	t->q.port = port;
	if (!split_port(s, n, &host, &t->q.port, &has_port))
		return fail(why, "the port is not a number from 1 to 65535");
	if (host == 0)
		return fail(why, "there is no host");
	set_name(t, s, host);
	const char *path = s[n] ? s + n : "/";
	if (layer == LAYER_TLS && strcmp(path, "/") != 0)
		return fail(why, "TLS hides the path: leave it out");
	if (strlen(path) >= sizeof(t->path))
		return fail(why, "the path is too long");
	strcpy(t->path, path); /* fits: compared above */
	if (layer == LAYER_HTTP) {
		t->q.path = t->path;
		t->q.path_len = strlen(t->path);
		t->q.method = "GET";
		t->q.method_len = 3;
	}
	return true;
}

/* HOST:PORT where the host may be an address, in brackets if it is IPv6. */
static bool parse_endpoint(struct target *t, const char *s, enum layer layer, char *why)
{
	size_t host;
	bool has_port;
	t->q.layer = layer;
	if (!split_port(s, strlen(s), &host, &t->q.port, &has_port) || !has_port)
		return fail(why, "HOST:PORT is expected, the port a number from 1 to 65535");
	const char *a = s;
	size_t n = host;
	if (n > 2 && s[0] == '[') {
		a++;
		n -= 2;
	}
	t->q.has_dst = addr_from_text(&t->q.dst, a, n) && (a != s || !memchr(a, ':', n));
	if (layer == LAYER_TCP && !t->q.has_dst)
		return fail(why, "tcp: needs an IP address; an IPv6 one in brackets");
	if (!t->q.has_dst)
		set_name(t, s, host);
	return true;
}

bool target_parse(struct target *t, const char *text, char why[TARGET_WHY_SIZE])
{
	memset(t, 0, sizeof(*t));
	if (strncmp(text, "dns:", 4) == 0)
		return parse_dns(t, text + 4, why);
	if (strncmp(text, "https://", 8) == 0)
		return parse_url(t, text + 8, LAYER_TLS, 443, why);
	if (strncmp(text, "http://", 7) == 0)
		return parse_url(t, text + 7, LAYER_HTTP, 80, why);
	if (strncmp(text, "connect:", 8) == 0)
		return parse_endpoint(t, text + 8, LAYER_CONNECT, why);
	if (strncmp(text, "tcp:", 4) == 0)
		return parse_endpoint(t, text + 4, LAYER_TCP, why);
	return fail(why, "a target starts with dns:, https://, http://, connect: or tcp:");
}
