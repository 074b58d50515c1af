/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IP addresses and prefixes in one form: 16 octets, IPv4 as IPv4-mapped IPv6 (RFC 4291 2.5.5.2), so
 * that ::ffff:192.0.2.1 and 192.0.2.1 are the same address. Never allocates, never resolves.
 */
#ifndef CX_ADDR_H
#define CX_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct addr {
	uint8_t b[16];
};

struct prefix {
	struct addr a; /* host bits are zero */
	uint8_t len;   /* 0-128; an IPv4 prefix of n bits has 96 + n */
};

enum { ADDR_TEXT_SIZE = 46, PREFIX_TEXT_SIZE = 50 };

struct addr addr_from_v4(const uint8_t v4[4]);
struct addr addr_from_v6(const uint8_t v6[16]);

/* False for families other than AF_INET and AF_INET6. port may be NULL. */
bool addr_from_sockaddr(struct addr *out, uint16_t *port, const struct sockaddr *sa, socklen_t len);

/* Dotted quad (four decimal numbers, no leading zero) or RFC 4291 text; no zone, no brackets. */
bool addr_from_text(struct addr *out, const char *s, size_t n);

/* RFC 5952 text; IPv4 as dotted quad. buf holds ADDR_TEXT_SIZE. Returns the length. */
size_t addr_to_text(const struct addr *a, char *buf);

bool addr_is_v4(const struct addr *a);
int addr_cmp(const struct addr *a, const struct addr *b);

enum prefix_err { PREFIX_OK, PREFIX_BAD, PREFIX_BAD_LEN, PREFIX_HOST_BITS };

/*
 * ADDR or ADDR/LEN. A bare address is a prefix of full length. On PREFIX_HOST_BITS *out holds the
 * prefix with the host bits cleared, for a suggestion. ::ffff:a.b.c.d/96+n is the IPv4 prefix; an
 * IPv6 prefix shorter than 96 bits never matches IPv4 (prefix_contains() sees to that).
 */
enum prefix_err prefix_from_text(struct prefix *out, const char *s, size_t n);
size_t prefix_to_text(const struct prefix *p, char *buf);
bool prefix_contains(const struct prefix *p, const struct addr *a);
bool prefix_is_v4(const struct prefix *p);

/* What an address may be used for as a destination. */
enum addr_class {
	ADDR_PUBLIC,
	ADDR_PRIVATE, /* RFC 1918, 100.64.0.0/10, fc00::/7: lifted by `private: true` */
	ADDR_NEVER /* loopback, link-local, multicast, unspecified, metadata services ...: never */
};

/*
 * The worst class of the address itself and of every IPv4 address that it embeds: mapped and
 * compatible (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052, 64:ff9b::/96), 6to4 (RFC 3056),
 * Teredo (RFC 4380, server and client), ISATAP (RFC 5214). Local-use NAT64 (RFC 8215) embeds at a
 * place that only its network knows: never.
 */
enum addr_class addr_class(const struct addr *a);

enum { ADDR_MAX_EMBEDDED = 4 };

/* The IPv4 addresses embedded in a (not a itself if it is IPv4), as mapped; returns how many. */
unsigned addr_embedded(const struct addr *a, struct addr out[ADDR_MAX_EMBEDDED]);

#endif
