/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compiled policy as a policy again: compiling what is printed gives the same meaning digest. What
 * governs only a compile (tests, require, environments, comments) is not in the file and so not printed.
 *
 * Threads: one thread. Errors: false and a line in err (size octets).
 */
#ifndef CX_DUMP_H
#define CX_DUMP_H

#include <stdio.h>

#include "shared/compile/out.h"
#include "shared/compile/walk.h"

bool policy_dump(const char *path, FILE *to, char *err, size_t size);
/* The same of malloc'd bytes, which it frees. */
bool policy_dump_bytes(uint8_t *bytes, size_t len, FILE *to, char *err, size_t size);

/* What a rule permits, as keys of an entry, each behind sep: ", ports: [443], protocols: [https]". */
void dump_terms(struct out *o, const struct walk *w, uint32_t rule, const char *sep);

/* http rules at an offset of SEC_HTTP, as [{methods: [GET], paths: [...]}, ...]. */
void dump_http(struct out *o, const struct walk *w, uint32_t at);

#endif
