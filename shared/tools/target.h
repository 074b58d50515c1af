/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person asks about, as text: the targets of `cxctl explain` and of `tests:` in a policy.
 *
 *   dns:NAME[/TYPE]            TYPE: A (left out), AAAA, HTTPS ... or TYPEnnn (RFC 3597)
 *   https://HOST[:PORT]
 *   http://HOST[:PORT]/PATH
 *   connect:HOST:PORT          HOST a name, an IPv4 address or [an IPv6 address]
 *   tcp:IP:PORT
 *
 * Turns text into a question; decides nothing.
 */
#ifndef CX_TARGET_H
#define CX_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/policy/verdict.h"

/* Holds what the question points to: do not copy it after target_parse(). */
struct target {
	struct question q;
	struct name name;
	char path[2048];
};

enum { TARGET_WHY_SIZE = 128 };

/*
 * False with one sentence in why if it is no target. A host that no client could rightly use (an IP
 * literal, a bad octet) is a target all the same: its question carries the flaw, as a parser of the
 * data path would report it. q.src, q.method and q.resolved are the caller's to set; the method of
 * http is GET until then.
 */
bool target_parse(struct target *t, const char *text, char why[TARGET_WHY_SIZE]);

/* A query type by its mnemonic or TYPEnnn. */
bool target_qtype(uint16_t *out, const char *s, size_t n);

#endif
