/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary octets as Host, as CONNECT authority, as request target and as a DNS answer. What is accepted as a
 * name must be one that is written back and read again as the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spoa-agent/dns.h"
#include "spoa-agent/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const struct name *n)
{
	char text[NAME_TEXT_SIZE];
	struct name again;
	size_t len = name_to_text(n, text);
	if (name_from_text(&again, text, len) != NAME_OK || !name_equal(n, &again))
		abort();
	if (strpbrk(text, "/:@,?#[]\\% \t\r\n"))
		abort();
}

static void as_answer(const uint8_t *data, size_t size)
{
	struct dns_answer a;
	struct name n;
	if (size < 2 || name_from_text(&n, "a.example", 9) != NAME_OK)
		return;
	uint16_t id = (uint16_t)(data[0] << 8 | data[1]);
	for (unsigned i = 0; i < 2; i++)
		if (dns_read(&a, data, size, id, &n, i ? DNS_AAAA : DNS_A) == DNS_ANSWERED &&
		    a.n > DNS_MAX_ADDRS)
			abort();
}

/* Written back, an endpoint reads as the same; and an address is spelled in one way only. */
static void as_endpoint(const char *s, size_t size)
{
	struct endpoint e, again;
	char text[NAME_TEXT_SIZE + 16];
	if (endpoint_parse(&e, s, size) != URL_OK)
		return;
	bool brackets = e.literal && !addr_is_v4(&e.addr);
	size_t n = 0;
	if (brackets)
		text[n++] = '[';
	n += e.literal ? addr_to_text(&e.addr, text + n) : name_to_text(&e.name, text);
	n += (size_t)snprintf(text + n, 16, "%s:%u", brackets ? "]" : "", e.port);
	if (endpoint_parse(&again, text, n) != URL_OK || again.literal != e.literal ||
	    again.port != e.port)
		abort();
	if (e.literal ? n != size || memcmp(text, s, n) != 0 : !name_equal(&e.name, &again.name))
		abort();
	if (!e.literal)
		check_name(&e.name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *s = (const char *)data;
	struct authority a;
	struct target t;
	if (authority_parse(&a, s, size) == URL_OK)
		check_name(&a.name);
	as_endpoint(s, size);
	(void)method_ok(s, size);
	if (target_parse(&t, "OPTIONS", 7, s, size) == URL_OK) {
		if (t.path_len == 0 || (t.path[0] != '/' && t.path[0] != '*'))
			abort();
		if (t.absolute)
			check_name(&t.authority.name);
	}
	as_answer(data, size);
	return 0;
}
