/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary octets as policy.bin, with a digest that fits, printed as a policy and compared
 * with a policy. Whatever the check accepts must be safe to read back, and nothing printed may act on a
 * terminal.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/compile/dump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix_digest(uint8_t *p, size_t size)
{
	struct fmt_header h;
	uint8_t md[EVP_MAX_MD_SIZE];
	unsigned n;
	if (size < sizeof(h))
		return;
	memcpy(&h, p, sizeof(h));
	if (h.content_size < sizeof(h) || h.content_size > size)
		return;
	memset(p + offsetof(struct fmt_header, file_digest), 0, 32);
	if (EVP_Digest(p, h.content_size, md, &n, EVP_sha256(), NULL) == 1)
		memcpy(p + offsetof(struct fmt_header, file_digest), md, 32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char err[512], *text = NULL;
	size_t n = 0;
	uint8_t *copy = malloc(size ? size : 1);
	FILE *to = open_memstream(&text, &n);
	if (!copy || !to)
		abort();
	memcpy(copy, data, size);
	fix_digest(copy, size);
	(void)policy_dump_bytes(copy, size, to, err, sizeof(err));
	fclose(to);
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)text[i] < 0x20 && text[i] != '\n') || text[i] == 0x7f)
			abort();
	free(text);
	return 0;
}
