/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks a policy image once, completely, so that lookups need not doubt it: the header, where the
 * sections lie, the digest, the demanded features, the signature; check_records.c does what stands in
 * the sections. Never trusts a length before comparing it with what is there; never changes the image.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/policy/features.h"
#include "shared/policy/image.h"
void image_explain(char *why, const char *fmt, ...)
{
	va_list ap;
	if (!why)
		return;
	va_start(ap, fmt);
	vsnprintf(why, POLICY_WHY_SIZE, fmt, ap);
	va_end(ap);
}

/* ---- header and digest ---- */

static bool digest_matches(const struct policy *p)
{
	static const uint8_t zero[32];
	const size_t at = offsetof(struct fmt_header, file_digest);
	uint8_t md[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
		  EVP_DigestUpdate(ctx, p->base, at) == 1 &&
		  EVP_DigestUpdate(ctx, zero, sizeof(zero)) == 1 &&
		  EVP_DigestUpdate(ctx, p->base + at + 32, p->h->content_size - at - 32) == 1 &&
		  EVP_DigestFinal_ex(ctx, md, &n) == 1 && n == 32;
	EVP_MD_CTX_free(ctx);
	return ok && CRYPTO_memcmp(md, p->h->file_digest, 32) == 0;
}

static bool signature_matches(const struct policy *p, const uint8_t *key)
{
	uint8_t msg[sizeof(FMT_SIGN_CONTEXT) + 32];
	const struct fmt_signature *s = (const void *)(p->base + p->h->content_size);
	memcpy(msg, FMT_SIGN_CONTEXT, sizeof(FMT_SIGN_CONTEXT));
	memcpy(msg + sizeof(FMT_SIGN_CONTEXT), p->h->file_digest, 32);
	EVP_PKEY *k = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key, 32);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = k && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, k) == 1 &&
		  EVP_DigestVerify(ctx, s->sig, sizeof(s->sig), msg, sizeof(msg)) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(k);
	return ok;
}

static enum policy_err check_header(struct policy *p, const struct policy_trust *t, char *why)
{
	if (p->size == 0)
		return POLICY_ERR_EMPTY;
	if (p->size < sizeof(struct fmt_header)) {
		image_explain(why, "%zu octets, fewer than a header", p->size);
		return POLICY_ERR_TRUNCATED;
	}
	const struct fmt_header *h = p->h = (const void *)p->base;
	if (memcmp(h->magic, FMT_MAGIC, sizeof(h->magic)) != 0)
		return POLICY_ERR_MAGIC;
	if (h->endian != FMT_ENDIAN)
		return POLICY_ERR_ENDIAN;
	if (h->version != FMT_VERSION) {
		image_explain(why, "format %u, this program reads %u", h->version, FMT_VERSION);
		return POLICY_ERR_VERSION;
	}
	if (h->content_size < sizeof(*h) || h->content_size % 8) {
		image_explain(why, "content size %llu", (unsigned long long)h->content_size);
		return POLICY_ERR_LAYOUT;
	}
	uint64_t rest = p->size - sizeof(*h);
	if (h->content_size - sizeof(*h) > rest) {
		image_explain(why, "%zu octets of %llu", p->size,
			      (unsigned long long)h->content_size);
		return POLICY_ERR_TRUNCATED;
	}
	uint64_t tail = p->size - h->content_size;
	if (tail != 0 && tail != sizeof(struct fmt_signature)) {
		image_explain(why, "%llu octets behind the end", (unsigned long long)tail);
		return POLICY_ERR_LAYOUT;
	}
	if (!digest_matches(p))
		return POLICY_ERR_DIGEST;
	for (unsigned b = 0; b < 64; b++)
		if (h->required >> b & 1 & ~(t->features >> b)) {
			image_explain(why, "it needs \"%s\" (feature %u)", feature_text(b), b);
			return POLICY_ERR_FEATURE;
		}
	if (tail && memcmp(p->base + h->content_size, FMT_SIGN_MAGIC, 8) != 0) {
		image_explain(why, "unknown signature block");
		return POLICY_ERR_LAYOUT;
	}
	if (t->public_key && tail == 0)
		return POLICY_ERR_UNSIGNED;
	if (t->public_key && !signature_matches(p, t->public_key))
		return POLICY_ERR_SIGNATURE;
	if (h->serial < t->min_serial) {
		image_explain(why, "serial %llu, at least %llu is needed",
			      (unsigned long long)h->serial, (unsigned long long)t->min_serial);
		return POLICY_ERR_SERIAL;
	}
	return POLICY_OK;
}

/* ---- sections ---- */

/* One row a section: where its view goes, how large a record is, how it is aligned. */
struct section_rule {
	uint32_t id;
	uint32_t record; /* octets */
	uint32_t align;
	uint32_t flags;
	bool optional;
	size_t ptr_at;   /* in struct policy */
	size_t count_at; /* 0: no count kept */
	bool count_is_32;
};

#define VIEW(sec, rec, al, fl, opt, ptr, cnt, is32)                                                \
	{                                                                                          \
		sec, rec, al, fl, opt, offsetof(struct policy, ptr), offsetof(struct policy, cnt), \
			is32                                                                       \
	}
#define MEANING (FMT_MEANING | FMT_MUST)

static const struct section_rule section_rules[] = {
	VIEW(SEC_GATE, 8, 8, MEANING, false, gate, n_gate, false),
	VIEW(SEC_LINES, sizeof(struct fmt_line), 64, MEANING, false, lines, n_lines, false),
	VIEW(SEC_BLOB, 1, 8, MEANING, false, blob, blob_size, false),
	VIEW(SEC_RULESETS, 4, 8, MEANING, false, sets, n_sets, false),
	VIEW(SEC_RULES, sizeof(struct fmt_rule), 8, MEANING, false, rules, n_rules, true),
	VIEW(SEC_PORTS, 4, 8, MEANING, false, ports, n_ports, false),
	VIEW(SEC_HTTP, 1, 8, MEANING, false, http, http_size, false),
	VIEW(SEC_LAYERS, sizeof(struct fmt_layer), 8, MEANING, false, layers, n_layers, true),
	VIEW(SEC_SEES, sizeof(struct fmt_sees), 8, MEANING, false, sees, n_sees, true),
	VIEW(SEC_PROFILES, sizeof(struct fmt_profile), 8, MEANING, false, profiles, n_profiles,
	     true),
	VIEW(SEC_QTYPES, 2, 8, MEANING, false, qtypes, n_qtypes, false),
	VIEW(SEC_SRC4, sizeof(struct fmt_src4), 8, MEANING, false, src4, n_src4, true),
	VIEW(SEC_SRC4_TOP, 4, 8, MEANING, true, src4_top, size, false),
	VIEW(SEC_SRC6, sizeof(struct fmt_src6), 8, MEANING, false, src6, n_src6, true),
	VIEW(SEC_BINDSETS, 4, 8, MEANING, false, bindsets, n_bindsets, false),
	VIEW(SEC_CIDRS, sizeof(struct fmt_cidr), 8, MEANING, false, cidrs, n_cidrs, true),
	VIEW(SEC_OWNED, sizeof(struct fmt_prefix), 8, MEANING, false, owned, n_owned, true),
	VIEW(SEC_STRINGS, 1, 8, MEANING, false, strings, strings_size, false),
	VIEW(SEC_TERMS, sizeof(struct fmt_text), 8, FMT_MEANING, true, terms, n_terms, true),
	VIEW(SEC_TERM_STRINGS, 1, 8, FMT_MEANING, true, term_strings, term_strings_size, false),
	VIEW(SEC_TASKS, sizeof(struct fmt_task), 8, MEANING, true, tasks, n_tasks, true),
	VIEW(SEC_WITHIN, 4, 8, MEANING, true, within, n_within, true),
	VIEW(SEC_DNS, sizeof(struct fmt_dns), 8, MEANING, true, dns, n_dns, true),
	VIEW(SEC_RANGES, sizeof(struct fmt_prefix), 8, MEANING, true, ranges, n_ranges, true),
	VIEW(SEC_ZONES, sizeof(struct fmt_zone), 8, MEANING, true, zones, n_zones, true),
	VIEW(SEC_ANCESTORS, sizeof(struct fmt_ancestor), 8, MEANING, true, ancestors, n_ancestors,
	     true),
	VIEW(SEC_LIMITS, sizeof(struct fmt_limits), 8, MEANING, false, limits, n_limits, true),
	VIEW(SEC_RULE_LIMITS, sizeof(struct fmt_rule_limits), 8, MEANING, true, rule_limits,
	     n_rule_limits, true),
	VIEW(SEC_RULE_INFO, sizeof(struct fmt_rule_info), 8, 0, false, rule_info, size, false),
	VIEW(SEC_NAME_INFO, sizeof(struct fmt_name_info), 8, 0, false, name_info, n_name_info,
	     true),
	VIEW(SEC_INFO_STRINGS, 1, 8, 0, false, info_strings, info_strings_size, false),
	VIEW(SEC_INFO, sizeof(struct fmt_info), 8, 0, false, info, size, false),
	VIEW(SEC_NOTES, sizeof(struct fmt_text), 8, 0, true, notes, n_notes, true),
	VIEW(SEC_PROXIES, sizeof(struct fmt_proxy), 8, MEANING, true, proxies, n_proxies, true),
	VIEW(SEC_DIRECT, sizeof(struct fmt_direct), 8, MEANING, true, direct, n_direct, true),
};

enum { N_SECTION_RULES = sizeof(section_rules) / sizeof(section_rules[0]) };

static const struct section_rule *section_rule(uint32_t id)
{
	for (unsigned i = 0; i < N_SECTION_RULES; i++)
		if (section_rules[i].id == id)
			return &section_rules[i];
	return NULL;
}

static void set_view(struct policy *p, const struct section_rule *r, const struct fmt_section *s)
{
	const void *view = p->base + s->off;
	memcpy((char *)p + r->ptr_at, &view, sizeof(view));
	if (r->count_at == offsetof(struct policy, size))
		return;
	if (r->count_is_32) {
		memcpy((char *)p + r->count_at, &s->count, sizeof(s->count));
	} else {
		uint64_t n = s->count;
		memcpy((char *)p + r->count_at, &n, sizeof(n));
	}
}

/* The section's own fields; *end is where the one before it ended. */
static bool section_fits(const struct policy *p, const struct fmt_section *s, uint64_t *end)
{
	if (s->off < *end || s->off % 8 || s->off > p->h->content_size)
		return false;
	if (s->size > p->h->content_size - s->off)
		return false;
	*end = s->off + s->size;
	return true;
}

static enum policy_err check_sections(struct policy *p, char *why)
{
	const struct fmt_header *h = p->h;
	uint64_t end = sizeof(*h) + (uint64_t)h->n_sections * sizeof(struct fmt_section);
	if (h->n_sections > FMT_MAX_SECTIONS || end > h->content_size) {
		image_explain(why, "%u sections", h->n_sections);
		return POLICY_ERR_LAYOUT;
	}
	const struct fmt_section *s = (const void *)(p->base + sizeof(*h));
	uint64_t seen = 0;
	for (uint32_t i = 0; i < h->n_sections; i++) {
		const struct section_rule *r = section_rule(s[i].id);
		bool ok = section_fits(p, &s[i], &end) && (i == 0 || s[i].id > s[i - 1].id);
		if (ok && !r && s[i].flags & FMT_MUST) {
			image_explain(why, "section %u is unknown", s[i].id);
			return POLICY_ERR_FEATURE;
		}
		ok = ok && (!r || ((uint64_t)s[i].count * r->record == s[i].size &&
				   s[i].off % r->align == 0 && s[i].flags == r->flags));
		if (!ok) {
			image_explain(why, "section %u (entry %u)", s[i].id, i);
			return POLICY_ERR_LAYOUT;
		}
		if (r) {
			set_view(p, r, &s[i]);
			seen |= UINT64_C(1) << (r - section_rules);
		}
	}
	for (unsigned i = 0; i < N_SECTION_RULES; i++)
		if (!section_rules[i].optional && !(seen >> i & 1)) {
			image_explain(why, "section %u is missing", section_rules[i].id);
			return POLICY_ERR_LAYOUT;
		}
	return POLICY_OK;
}
/* ---- whom it is for ---- */

/* Is the word s[0..n) one of the lines? */
static bool has_line(const char *lines, const char *s, size_t n)
{
	for (; *lines; lines += strcspn(lines, "\n"), lines += *lines == '\n')
		if (strcspn(lines, "\n") == n && memcmp(lines, s, n) == 0)
			return true;
	return false;
}

/* A policy that names no audience is for every host. */
static enum policy_err check_audience(const struct policy *p, const struct policy_trust *t,
				      char *why)
{
	const char *wanted = p->info_strings + p->info->audience;
	if (!t->audience || !*wanted)
		return POLICY_OK;
	for (const char *s = t->audience; *s;) {
		size_t n = strcspn(s, ", ");
		if (n && has_line(wanted, s, n))
			return POLICY_OK;
		s += n + (s[n] != '\0');
	}
	image_explain(why, "it names %.*s, this host is %.60s", (int)strcspn(wanted, "\n"), wanted,
		      *t->audience ? t->audience : "none");
	return POLICY_ERR_AUDIENCE;
}

static void derive(struct policy *p)
{
	static const char hex[] = "0123456789abcdef";
	for (unsigned i = 0; i < 12; i++) {
		uint8_t b = p->h->file_digest[i / 2];
		p->digest[i] = hex[i % 2 ? b & 15 : b >> 4];
	}
	for (unsigned d = 1; d <= NAME_MAX_LABELS; d++)
		if (p->h->depths[d / 64] >> (d % 64) & 1)
			p->max_depth = d;
}

enum policy_err image_check(struct policy *p, const struct policy_trust *trust, char *why)
{
	if (why)
		why[0] = '\0';
	enum policy_err err = check_header(p, trust, why);
	if (err == POLICY_OK)
		err = check_sections(p, why);
	if (err == POLICY_OK)
		err = image_check_records(p, why);
	if (err == POLICY_OK)
		err = check_audience(p, trust, why);
	if (err == POLICY_OK)
		derive(p);
	return err;
}

/* ---- keys ---- */

bool policy_key_read(const char *path, uint8_t key[POLICY_KEY_SIZE], char *why)
{
	char pem[4096];
	uint8_t raw[POLICY_KEY_SIZE];
	size_t n = sizeof(raw);
	struct stat st;
	int fd = -1;
	if (why)
		why[0] = '\0';
	if (image_open_trusted(&fd, &st, path, false, why) != POLICY_OK)
		return false;
	ssize_t len = read(fd, pem, sizeof(pem));
	close(fd);
	BIO *bio = len > 0 ? BIO_new_mem_buf(pem, (int)len) : NULL;
	EVP_PKEY *k = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
	bool ok = k && EVP_PKEY_get_id(k) == EVP_PKEY_ED25519 &&
		  EVP_PKEY_get_raw_public_key(k, raw, &n) == 1 && n == sizeof(raw);
	EVP_PKEY_free(k);
	BIO_free(bio);
	if (ok)
		memcpy(key, raw, sizeof(raw));
	else
		image_explain(why, "not an Ed25519 public key in PEM form");
	return ok;
}
