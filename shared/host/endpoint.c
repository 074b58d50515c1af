/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses with ports, from a command line; see endpoint.h. Never looks a name up. */
#include "shared/host/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static bool read_port(const char *s, uint16_t *out)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || v == 0 || v > UINT16_MAX)
		return false;
	*out = (uint16_t)v;
	return true;
}

static void fill(struct endpoint *out, const struct addr *a, uint16_t port)
{
	memset(out, 0, sizeof(*out));
	if (addr_is_v4(a)) {
		struct sockaddr_in *in = (struct sockaddr_in *)&out->ss;
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, a->b + 12, 4);
		out->len = sizeof(*in);
		return;
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->ss;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, a->b, 16);
	out->len = sizeof(*in6);
}

bool endpoint_from_listen(struct endpoint *out, const char *s)
{
	bool brackets = s[0] == '[';
	const char *end = brackets ? strchr(s, ']') : strrchr(s, ':');
	struct addr a;
	uint16_t port;
	if (!end || (brackets && end[1] != ':') || !read_port(end + (brackets ? 2 : 1), &port))
		return false;
	s += brackets;
	if (!addr_from_text(&a, s, (size_t)(end - s)) || addr_is_v4(&a) == brackets)
		return false;
	fill(out, &a, port);
	return true;
}

bool endpoint_from_server(struct endpoint *out, const char *s)
{
	const char *at = strchr(s, '@');
	struct addr a;
	uint16_t port = 53;
	if (at && !read_port(at + 1, &port))
		return false;
	if (!addr_from_text(&a, s, at ? (size_t)(at - s) : strlen(s)))
		return false;
	fill(out, &a, port);
	return true;
}
