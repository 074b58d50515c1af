/* SPDX-License-Identifier: Apache-2.0 */
/* IP addresses and prefixes (addr.h). Never allocates, never resolves a name. */
#include "shared/base/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

struct addr addr_from_v4(const uint8_t v4[4])
{
	struct addr a;
	memcpy(a.b, mapped, sizeof(mapped));
	memcpy(a.b + 12, v4, 4);
	return a;
}

struct addr addr_from_v6(const uint8_t v6[16])
{
	struct addr a;
	memcpy(a.b, v6, 16);
	return a;
}

bool addr_from_sockaddr(struct addr *out, uint16_t *port, const struct sockaddr *sa, socklen_t len)
{
	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
		uint8_t v4[4];
		memcpy(v4, &in->sin_addr, 4);
		*out = addr_from_v4(v4);
		if (port)
			*port = ntohs(in->sin_port);
		return true;
	}
	if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
		*out = addr_from_v6(in6->sin6_addr.s6_addr);
		if (port)
			*port = ntohs(in6->sin6_port);
		return true;
	}
	return false;
}

bool addr_from_text(struct addr *out, const char *s, size_t n)
{
	char buf[ADDR_TEXT_SIZE];
	uint8_t raw[16];
	if (n == 0 || n >= sizeof(buf) || memchr(s, '\0', n))
		return false;
	memcpy(buf, s, n);
	buf[n] = '\0';
	/* inet_pton() takes dotted quads in decimal without leading zeroes only, and no zones */
	if (inet_pton(AF_INET, buf, raw) == 1)
		*out = addr_from_v4(raw);
	else if (inet_pton(AF_INET6, buf, raw) == 1)
		*out = addr_from_v6(raw);
	else
		return false;
	return true;
}

bool addr_is_v4(const struct addr *a)
{
	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

static size_t octet_to_text(uint8_t v, char *buf)
{
	size_t n = 0;
	if (v >= 100)
		buf[n++] = (char)('0' + v / 100);
	if (v >= 10)
		buf[n++] = (char)('0' + v / 10 % 10);
	buf[n++] = (char)('0' + v % 10);
	return n;
}

/* inet_ntop() would go through printf, which every line of the audit log would pay for. */
static size_t v4_to_text(const uint8_t b[4], char *buf)
{
	size_t n = 0;
	for (unsigned i = 0; i < 4; i++) {
		if (i)
			buf[n++] = '.';
		n += octet_to_text(b[i], buf + n);
	}
	buf[n] = '\0';
	return n;
}

size_t addr_to_text(const struct addr *a, char *buf)
{
	if (addr_is_v4(a))
		return v4_to_text(a->b + 12, buf);
	if (!inet_ntop(AF_INET6, a->b, buf, ADDR_TEXT_SIZE))
		buf[0] = '\0';
	return strlen(buf);
}

int addr_cmp(const struct addr *a, const struct addr *b)
{
	return memcmp(a->b, b->b, sizeof(a->b));
}

/* Clears the bits behind len; true if any was set. */
static bool clear_host_bits(struct addr *a, unsigned len)
{
	bool any = false;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = len > 8 * i ? len - 8 * i : 0;
		uint8_t mask = keep >= 8 ? 0xff : (uint8_t)(0xff00u >> keep);
		any |= (a->b[i] & (uint8_t)~mask) != 0;
		a->b[i] &= mask;
	}
	return any;
}

static bool parse_len(unsigned *out, const char *s, size_t n)
{
	if (n == 0 || n > 3 || (n > 1 && s[0] == '0'))
		return false;
	unsigned v = 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (unsigned)(s[i] - '0');
	}
	*out = v;
	return true;
}

enum prefix_err prefix_from_text(struct prefix *out, const char *s, size_t n)
{
	const char *slash = memchr(s, '/', n);
	size_t an = slash ? (size_t)(slash - s) : n;
	struct addr a;
	if (!addr_from_text(&a, s, an))
		return PREFIX_BAD;
	bool quad = !memchr(s, ':', an);
	unsigned len = quad ? 32 : 128;
	if (slash && !parse_len(&len, slash + 1, n - an - 1))
		return PREFIX_BAD_LEN;
	if (len > (quad ? 32u : 128u))
		return PREFIX_BAD_LEN;
	if (quad)
		len += 96;
	out->a = a;
	out->len = (uint8_t)len;
	return clear_host_bits(&out->a, len) ? PREFIX_HOST_BITS : PREFIX_OK;
}

bool prefix_is_v4(const struct prefix *p)
{
	return p->len >= 96 && addr_is_v4(&p->a);
}

size_t prefix_to_text(const struct prefix *p, char *buf)
{
	size_t n = addr_to_text(&p->a, buf);
	unsigned len = prefix_is_v4(p) ? p->len - 96u : p->len;
	return n + (size_t)snprintf(buf + n, PREFIX_TEXT_SIZE - n, "/%u", len);
}

static bool bits_equal(const uint8_t *a, const uint8_t *b, unsigned n)
{
	if (memcmp(a, b, n / 8) != 0)
		return false;
	uint8_t mask = (uint8_t)(0xff00u >> (n % 8));
	return n % 8 == 0 || ((a[n / 8] ^ b[n / 8]) & mask) == 0;
}

bool prefix_contains(const struct prefix *p, const struct addr *a)
{
	if (p->len < 96 && addr_is_v4(a))
		return false;
	return bits_equal(p->a.b, a->b, p->len);
}

/* ---- what an address may be used for ---- */

struct range4 {
	uint32_t net;
	uint8_t len;
};

struct range6 {
	uint8_t net[16];
	uint8_t len;
};

#define V4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

static const struct range4 never4[] = {
	{ V4(0, 0, 0, 0), 8 },          { V4(127, 0, 0, 0), 8 },
	{ V4(169, 254, 0, 0), 16 },     /* link-local; most clouds' metadata services */
	{ V4(224, 0, 0, 0), 3 },        /* multicast, reserved, broadcast */
	{ V4(168, 63, 129, 16), 32 },   /* Azure's wire server */
	{ V4(100, 100, 100, 200), 32 }, /* Alibaba Cloud's metadata service */
	{ V4(192, 0, 0, 192), 32 },     /* Oracle Cloud's metadata service */
};

static const struct range4 private4[] = {
	{ V4(10, 0, 0, 0), 8 },
	{ V4(172, 16, 0, 0), 12 },
	{ V4(192, 168, 0, 0), 16 },
	{ V4(100, 64, 0, 0), 10 },
};

static const struct range6 never6[] = {
	{ { 0 }, 128 },         /* :: */
	{ { [15] = 1 }, 128 },  /* ::1 */
	{ { 0xfe, 0x80 }, 10 }, /* link-local */
	{ { 0xfe, 0xc0 }, 10 }, /* site-local, deprecated */
	{ { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 },
	  48 },          /* local-use NAT64 (RFC 8215): any length inside */
	{ { 0xff }, 8 }, /* multicast */
	{ { 0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54 }, 128 }, /* AWS's metadata service */
	{ { 0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54 }, 128 }, /* Google Cloud's */
};

static const struct range6 private6[] = { { { 0xfc }, 7 } };

static bool in4(const struct range4 *r, size_t n, uint32_t v)
{
	for (size_t i = 0; i < n; i++)
		if ((v ^ r[i].net) >> (32 - r[i].len) == 0)
			return true;
	return false;
}

static bool in6(const struct range6 *r, size_t n, const uint8_t *b)
{
	for (size_t i = 0; i < n; i++)
		if (bits_equal(r[i].net, b, r[i].len))
			return true;
	return false;
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static enum addr_class class4(const uint8_t *b)
{
	uint32_t v = V4(b[0], b[1], b[2], b[3]);
	if (in4(never4, COUNT(never4), v))
		return ADDR_NEVER;
	return in4(private4, COUNT(private4), v) ? ADDR_PRIVATE : ADDR_PUBLIC;
}

static enum addr_class class6(const uint8_t *b)
{
	if (in6(never6, COUNT(never6), b))
		return ADDR_NEVER;
	return in6(private6, COUNT(private6), b) ? ADDR_PRIVATE : ADDR_PUBLIC;
}

static bool starts(const struct addr *a, const uint8_t *p, size_t n)
{
	return memcmp(a->b, p, n) == 0;
}

unsigned addr_embedded(const struct addr *a, struct addr out[ADDR_MAX_EMBEDDED])
{
	static const uint8_t zero12[12];
	static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
	static const uint8_t six_to_four[2] = { 0x20, 0x02 };
	static const uint8_t teredo[4] = { 0x20, 0x01, 0x00, 0x00 };
	static const uint8_t translated[12] = {
		[8] = 0xff, [9] = 0xff
	}; /* RFC 2765 ::ffff:0:a.b.c.d */
	const uint8_t *b = a->b;
	unsigned n = 0;
	if (addr_is_v4(a))
		return 0;
	if (starts(a, zero12, 12) || starts(a, nat64, 12) || starts(a, translated, 12))
		out[n++] = addr_from_v4(b + 12);
	if (starts(a, six_to_four, 2))
		out[n++] = addr_from_v4(b + 2);
	if (starts(a, teredo, 4)) {
		const uint8_t client[4] = { (uint8_t)~b[12], (uint8_t)~b[13], (uint8_t)~b[14],
					    (uint8_t)~b[15] };
		out[n++] = addr_from_v4(b + 4);
		out[n++] = addr_from_v4(client);
	}
	/* ISATAP: interface identifier [02]00:5efe:a.b.c.d, under any prefix */
	if ((b[8] & 0xfd) == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe &&
	    n < ADDR_MAX_EMBEDDED)
		out[n++] = addr_from_v4(b + 12);
	return n;
}

enum addr_class addr_class(const struct addr *a)
{
	if (addr_is_v4(a))
		return class4(a->b + 12);
	struct addr in[ADDR_MAX_EMBEDDED];
	unsigned n = addr_embedded(a, in);
	enum addr_class worst = class6(a->b);
	for (unsigned i = 0; i < n; i++) {
		enum addr_class c = class4(in[i].b + 12);
		if (c > worst)
			worst = c;
	}
	return worst;
}
