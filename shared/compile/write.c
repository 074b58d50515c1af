/* SPDX-License-Identifier: Apache-2.0 */
/* The tables as the bytes of policy.bin, with both digests. Never writes a file. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shared/compile/layout.h"

struct piece {
	uint32_t id;
	uint32_t flags;
	const void *data;
	size_t size;
	size_t record; /* octets, for count */
};

enum { MAX_PIECES = 40 };

static size_t align_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static size_t alignment(uint32_t id)
{
	return id == SEC_LINES ? 64 : 8;
}

static unsigned list_pieces(const struct tables *t, struct piece v[MAX_PIECES])
{
	const uint32_t m = FMT_MEANING | FMT_MUST;
	unsigned n = 0;
#define ARRAY(id, flags, a, count)                                                                 \
	v[n++] = (struct piece){ id, flags, a, (count) * sizeof(*(a)), sizeof(*(a)) }
#define POOL(id, flags, p, rec)                                                                    \
	v[n++] = (struct piece)                                                                    \
	{                                                                                          \
		id, flags, (p).bytes, (p).len, rec                                                 \
	}
	ARRAY(SEC_GATE, m, t->gate, t->n_gate);
	ARRAY(SEC_LINES, m, t->lines, t->n_lines);
	ARRAY(SEC_BLOB, m, t->blob, t->blob_size);
	POOL(SEC_RULESETS, m, t->sets, 4);
	ARRAY(SEC_RULES, m, t->rules, t->n_rules);
	POOL(SEC_PORTS, m, t->ports, 4);
	POOL(SEC_HTTP, m, t->http, 1);
	ARRAY(SEC_LAYERS, m, t->layers, t->n_layers);
	ARRAY(SEC_SEES, m, t->sees, t->n_sees);
	ARRAY(SEC_PROFILES, m, t->profiles, t->n_profiles);
	POOL(SEC_QTYPES, m, t->qtypes, 2);
	ARRAY(SEC_SRC4, m, t->src4, t->n_src4);
	if (t->src4_top)
		ARRAY(SEC_SRC4_TOP, m, t->src4_top, (size_t)65537);
	ARRAY(SEC_SRC6, m, t->src6, t->n_src6);
	POOL(SEC_BINDSETS, m, t->bindsets, 4);
	ARRAY(SEC_CIDRS, m, t->cidrs, t->n_cidrs);
	ARRAY(SEC_OWNED, m, t->owned, t->n_owned);
	POOL(SEC_STRINGS, m, t->strings, 1);
	if (t->n_terms) {
		ARRAY(SEC_TERMS, FMT_MEANING, t->terms, t->n_terms);
		POOL(SEC_TERM_STRINGS, FMT_MEANING, t->term_strings, 1);
	}
	if (t->n_tasks) {
		ARRAY(SEC_TASKS, m, t->tasks, t->n_tasks);
		ARRAY(SEC_WITHIN, m, t->within, t->n_within);
	}
	if (t->n_dns)
		ARRAY(SEC_DNS, m, t->dns, t->n_dns);
	if (t->n_ranges)
		ARRAY(SEC_RANGES, m, t->ranges, t->n_ranges);
	if (t->n_zones)
		ARRAY(SEC_ZONES, m, t->zones, t->n_zones);
	if (t->n_ancestors)
		ARRAY(SEC_ANCESTORS, m, t->ancestors, t->n_ancestors);
	POOL(SEC_LIMITS, m, t->limits, sizeof(struct fmt_limits));
	if (t->n_rule_limits)
		ARRAY(SEC_RULE_LIMITS, m, t->rule_limits, t->n_rule_limits);
	ARRAY(SEC_RULE_INFO, 0, t->rule_info, t->n_rules);
	ARRAY(SEC_NAME_INFO, 0, t->name_info, t->n_name_info);
	POOL(SEC_INFO_STRINGS, 0, t->info_strings, 1);
	ARRAY(SEC_INFO, 0, &t->info, (size_t)1);
	ARRAY(SEC_NOTES, 0, t->notes, t->n_notes);
	if (t->n_proxies)
		ARRAY(SEC_PROXIES, m, t->proxies, t->n_proxies);
	if (t->n_direct)
		ARRAY(SEC_DIRECT, m, t->direct, t->n_direct);
#undef ARRAY
#undef POOL
	return n;
}

/* FMT_MEANING sections in ascending id: id, count, size, bytes. */
static bool meaning_digest(const uint8_t *base, const struct fmt_section *s, unsigned n,
			   uint8_t out[32])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
	for (unsigned i = 0; ok && i < n; i++) {
		if (!(s[i].flags & FMT_MEANING))
			continue;
		ok = EVP_DigestUpdate(ctx, &s[i].id, 4) == 1 &&
		     EVP_DigestUpdate(ctx, &s[i].count, 4) == 1 &&
		     EVP_DigestUpdate(ctx, &s[i].size, 8) == 1 &&
		     EVP_DigestUpdate(ctx, base + s[i].off, s[i].size) == 1;
	}
	ok = ok && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* Not zeroed. A large file in huge pages, if there are any. */
static uint8_t *room_for(size_t size)
{
	enum { HUGE_PAGE = 2 << 20 };
	void *b = NULL;
	if (size < 2 * HUGE_PAGE)
		return malloc(size);
	if (posix_memalign(&b, HUGE_PAGE, size) != 0)
		return NULL;
	(void)madvise(b, size, MADV_HUGEPAGE);
	return b;
}

int tables_write(const struct tables *t, uint64_t required, uint8_t **bytes, size_t *len)
{
	struct piece v[MAX_PIECES];
	struct fmt_section *s;
	unsigned n = list_pieces(t, v);
	size_t first = sizeof(struct fmt_header) + n * sizeof(*s), size = first;
	for (unsigned i = 0; i < n; i++)
		size = align_up(size, alignment(v[i].id)) + v[i].size;
	size = align_up(size, 8);
	uint8_t *b = room_for(size);
	if (!b)
		return -1;
	memset(b, 0, first);
	struct fmt_header *h = (void *)b;
	s = (void *)(b + sizeof(*h));
	for (unsigned i = 0; i < n; i++) {
		size_t at = align_up(first, alignment(v[i].id));
		s[i] = (struct fmt_section){ .id = v[i].id,
					     .flags = v[i].flags,
					     .off = at,
					     .size = v[i].size,
					     .count = (uint32_t)(v[i].size / v[i].record) };
		memset(b + first, 0, at - first);
		if (v[i].size)
			memcpy(b + at, v[i].data, v[i].size);
		first = at + v[i].size;
	}
	memset(b + first, 0, size - first);
	memcpy(h->magic, FMT_MAGIC, sizeof(h->magic));
	h->version = FMT_VERSION;
	h->endian = FMT_ENDIAN;
	h->content_size = size;
	h->required = required;
	h->serial = t->serial;
	h->hash_seed = t->seed;
	memcpy(h->depths, t->depths, sizeof(h->depths));
	h->n_sections = n;
	h->default_profile = t->default_profile;
	h->unlisted = SRC_NONE;
	/* the file digest last: it covers the other one, and is itself still zero */
	uint8_t digest[32];
	if (!meaning_digest(b, s, n, h->meaning_digest) ||
	    EVP_Digest(b, size, digest, NULL, EVP_sha256(), NULL) != 1) {
		free(b);
		return -1;
	}
	memcpy(h->file_digest, digest, sizeof(digest));
	*bytes = b;
	*len = size;
	return 0;
}
