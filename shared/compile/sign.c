/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ed25519 signatures of compiled policies (sign.h). Must never show a private key, and never sign what
 * it did not check.
 */
#include "shared/compile/sign.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/features.h"
#include "shared/policy/format.h"
#include "shared/policy/policy.h"

static int no_passphrase(char *buf, int size, int rwflag, void *u)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)u;
	return 0;
}

static EVP_PKEY *read_private_key(const char *path, char *err, size_t size)
{
	FILE *f = fopen(path, "re");
	if (!f) {
		snprintf(err, size, "%s: %s", path, strerror(errno));
		return NULL;
	}
	EVP_PKEY *k = PEM_read_PrivateKey(f, NULL, no_passphrase, NULL);
	fclose(f);
	if (k && EVP_PKEY_get_id(k) == EVP_PKEY_ED25519)
		return k;
	EVP_PKEY_free(k);
	snprintf(err, size, "%s: not an Ed25519 private key in PEM form without a passphrase",
		 path);
	return NULL;
}

/* What is signed, as format.h says. */
static void make_message(uint8_t msg[sizeof(FMT_SIGN_CONTEXT) + 32], const uint8_t *bytes)
{
	const struct fmt_header *h = (const void *)bytes;
	memcpy(msg, FMT_SIGN_CONTEXT, sizeof(FMT_SIGN_CONTEXT));
	memcpy(msg + sizeof(FMT_SIGN_CONTEXT), h->file_digest, sizeof(h->file_digest));
}

static bool make_signature(EVP_PKEY *k, const uint8_t *bytes, struct fmt_signature *out)
{
	uint8_t msg[sizeof(FMT_SIGN_CONTEXT) + 32];
	size_t n = sizeof(out->sig);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	make_message(msg, bytes);
	bool ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, k) == 1 &&
		  EVP_DigestSign(ctx, out->sig, &n, msg, sizeof(msg)) == 1 && n == sizeof(out->sig);
	EVP_MD_CTX_free(ctx);
	memcpy(out->magic, FMT_SIGN_MAGIC, sizeof(out->magic));
	return ok;
}

bool policy_sign(const char *key_path, uint8_t **bytes, size_t *len, char *err, size_t size)
{
	struct fmt_signature s = { 0 };
	EVP_PKEY *k = read_private_key(key_path, err, size);
	if (!k)
		return false;
	bool ok = make_signature(k, *bytes, &s);
	EVP_PKEY_free(k);
	uint8_t *more = ok ? realloc(*bytes, *len + sizeof(s)) : NULL;
	if (!more) {
		snprintf(err, size, "%s: cannot sign with this key", key_path);
		return false;
	}
	memcpy(more + *len, &s, sizeof(s));
	*bytes = more;
	*len += sizeof(s);
	return true;
}

static void print_hex(FILE *to, const uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(to, "%02x", b[i]);
}

/* One line; the policy's texts come from its compiler, which lets no control character through. */
static void print_signed(FILE *to, const char *path, const struct policy *p)
{
	struct policy_info i;
	policy_info(p, &i);
	fprintf(to, "%s: signed, serial %llu, revision \"%s\", audience", path,
		(unsigned long long)i.serial, i.revision);
	for (const char *s = i.audience; *s; s += strcspn(s, "\n"), s += *s == '\n')
		fprintf(to, " %.*s", (int)strcspn(s, "\n"), s);
	fprintf(to, "%s, digest ", *i.audience ? "" : " any");
	print_hex(to, i.file_digest, 32);
	fprintf(to, "\n");
}

bool policy_verify(const char *key_path, const char *path, FILE *to, char *err, size_t size)
{
	uint8_t key[POLICY_KEY_SIZE];
	char why[POLICY_WHY_SIZE];
	struct policy *p = NULL;
	if (!policy_key_read(key_path, key, why)) {
		snprintf(err, size, "%s: %s", key_path, why);
		return false;
	}
	const struct policy_trust trust = { .features = UINT64_MAX,
					    .public_key = key,
					    .any_owner = true };
	enum policy_err e = policy_open(&p, path, &trust, why);
	if (e != POLICY_OK) {
		snprintf(err, size, "%s: %s%s%s", path, policy_strerror(e), *why ? ": " : "", why);
		return false;
	}
	print_signed(to, path, p);
	policy_close(p);
	return true;
}
