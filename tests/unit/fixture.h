/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiled policies that unit tests open (build/unit/policy-a.bin and -b.bin, made of the YAML files
 * here), and a private directory to put files into. Tests only.
 */
#ifndef CX_FIXTURE_H
#define CX_FIXTURE_H

#include "tests/unit/unit.h"

#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/policy/format.h"
#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"

struct bytes {
	uint8_t *p;
	size_t n;
};

/* The whole of a file, malloc'd. */
static inline struct bytes read_bytes(const char *path)
{
	struct stat st = { .st_size = 0 };
	FILE *f = fopen(path, "rb");
	if (!f || fstat(fileno(f), &st) != 0)
		fail_msg("cannot read %s (is CX_BUILD right?)", path);
	struct bytes b = { malloc((size_t)st.st_size + 1), (size_t)st.st_size };
	if (fread(b.p, 1, b.n, f) != b.n)
		fail_msg("cannot read %s", path);
	fclose(f);
	return b;
}

/* The compiled form of policy-LETTER.yaml. */
static inline struct bytes fixture(char letter)
{
	const char *build = getenv("CX_BUILD");
	char path[512];
	snprintf(path, sizeof(path), "%s/unit/policy-%c.bin", build ? build : "build", letter);
	return read_bytes(path);
}

/* Replaces or makes a file with these bytes, mode 0644. */
static inline void write_bytes(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(p, 1, n, f) != n || fclose(f) != 0)
		fail_msg("cannot write %s", path);
	assert_int_equal(chmod(path, 0644), 0);
}

/* The same by rename: readers see the old file or the new one. */
static inline void replace_bytes(const char *path, const void *p, size_t n)
{
	char temp[600];
	snprintf(temp, sizeof(temp), "%s.new", path);
	write_bytes(temp, p, n);
	assert_int_equal(rename(temp, path), 0);
}

/* Makes the file digest fit the bytes, so that what stands behind it is looked at. */
static inline void fix_digest(uint8_t *p, size_t n)
{
	struct fmt_header h;
	unsigned len = 0;
	if (n < sizeof(h))
		return;
	memcpy(&h, p, sizeof(h));
	if (h.content_size > n || h.content_size < sizeof(h))
		return;
	memset(p + offsetof(struct fmt_header, file_digest), 0, 32);
	if (EVP_Digest(p, h.content_size, h.file_digest, &len, EVP_sha256(), NULL) == 1)
		memcpy(p + offsetof(struct fmt_header, file_digest), h.file_digest, 32);
}

static inline struct question question_about(enum layer layer, const char *src,
					     const struct name *name, uint16_t port)
{
	return (struct question){ .layer = layer,
				  .src = addr_of(src),
				  .name = name,
				  .qtype = 1,
				  .port = port,
				  .method = "GET",
				  .method_len = 3,
				  .path = "/",
				  .path_len = 1 };
}

#endif
