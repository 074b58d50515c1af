/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures of compiled policies: Ed25519 over the file digest (format.h, FMT_SIGN_*). Keys are PEM
 * files as openssl-genpkey(1) and openssl-pkey(1) write them; a key with a passphrase is refused, as
 * there is nobody to ask.
 *
 * Threads: one thread. Errors: false and one line in err (size octets); results are untouched.
 */
#ifndef CX_SIGN_H
#define CX_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Appends the signature block to the bytes of a policy that has none; *bytes is realloc'd. */
bool policy_sign(const char *key_path, uint8_t **bytes, size_t *len, char *err, size_t size);

/*
 * Checks a policy file completely, and that the key of this public half signed it; prints what is
 * signed on one line. False with err if not.
 */
bool policy_verify(const char *key_path, const char *path, FILE *to, char *err, size_t size);

#endif
