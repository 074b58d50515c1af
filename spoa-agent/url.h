/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an HTTP request says about where it goes: the Host field, the request target and the
 * authority of a CONNECT (RFC 9110, 9112), read strictly. What one server might read differently from another is refused. No
 * allocation, no policy; results borrow the caller's bytes.
 */
#ifndef CX_URL_H
#define CX_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"

enum url_err {
	URL_OK,
	URL_MALFORMED,  /* not a request target at all */
	URL_IP_LITERAL, /* an address in some spelling where a name should stand */
	URL_BAD_NAME    /* anything else that is not NAME or NAME:PORT */
};

struct authority {
	struct name name;
	uint16_t port; /* 0: none given */
};

/*
 * NAME or NAME:PORT. No user information, list, blank, escape or empty port; a port is 1 to 65535
 * without leading zeroes. *out is undefined unless URL_OK.
 */
enum url_err authority_parse(struct authority *out, const char *s, size_t n);

/* Where a CONNECT wants to go: a name, or an address. */
struct endpoint {
	bool literal;     /* addr is set, else name */
	struct addr addr; /* never an IPv4-mapped spelling of one */
	struct name name;
	uint16_t port; /* 1 to 65535 */
};

/*
 * NAME:PORT, as authority_parse() reads it, or ADDRESS:PORT in the address's canonical spelling
 * (RFC 5952, IPv6 in brackets, no zone); every other spelling is URL_IP_LITERAL. The port is always
 * there. *out is undefined unless URL_OK.
 */
enum url_err endpoint_parse(struct endpoint *out, const char *s, size_t n);

struct target {
	bool absolute; /* absolute-form: authority is set */
	struct authority authority;
	const char *path; /* with query; "/" where absolute-form has none; "*" for OPTIONS * */
	size_t path_len;
};

/*
 * origin-form, absolute-form with the scheme http, or * for OPTIONS. Only printable ASCII, no
 * fragment. The authority-form of CONNECT is malformed. *out is undefined unless URL_OK.
 */
enum url_err target_parse(struct target *out, const char *method, size_t method_len, const char *s,
			  size_t n);

/* A method: 1 to 32 token characters. */
bool method_ok(const char *s, size_t n);

#endif
