/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary octets as policy.bin, with a digest that fits, checked and then asked everything.
 * Whatever is accepted must be safe to use.
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/image.h"
#include "tests/unit/exercise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy as the mapping would be: aligned, and not one octet longer. */
static uint8_t *aligned_copy(const uint8_t *data, size_t size)
{
	void *p = NULL;
	if (posix_memalign(&p, 4096, size ? size : 1) != 0)
		abort();
	memcpy(p, data, size);
	return p;
}

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
	const struct policy_trust trust = { .features = UINT64_MAX };
	struct policy p = { .size = size };
	char why[POLICY_WHY_SIZE] = "";
	uint8_t *copy = aligned_copy(data, size);
	fix_digest(copy, size);
	p.base = copy;
	if (image_check(&p, &trust, why) == POLICY_OK)
		exercise_policy(&p);
	free(copy);
	return 0;
}
