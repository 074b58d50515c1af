/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary octets as the first flight of a TLS client. What is accepted must name
 * something inside the octets; what is cut must never be taken for more than incomplete.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/base/name.h"
#include "spoa-agent/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size, const struct hello *h)
{
	struct name n;
	if (!h->sni)
		return;
	if (h->sni_len == 0 || h->sni < data || h->sni + h->sni_len > data + size)
		abort();
	(void)name_from_text(&n, (const char *)h->sni, h->sni_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hello h, again;
	enum hello_result e = hello_parse(&h, data, size);
	if (e != HELLO_OK)
		return 0;
	check(data, size, &h);
	/* Every beginning up to the end of the record is incomplete, no other name. */
	size_t record = 5 + ((size_t)data[3] << 8 | data[4]);
	for (size_t n = record; n-- > 0 && record - n < 64;)
		if (hello_parse(&again, data, n) != HELLO_INCOMPLETE)
			abort();
	if (hello_parse(&again, data, record) != HELLO_OK || again.sni != h.sni)
		abort();
	return 0;
}
