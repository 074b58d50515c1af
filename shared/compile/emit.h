/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What belongs to the servers, made from a policy: configuration in their own languages. The model was
 * checked; what is printed is checked again here, character by character, and refused if it could be
 * read as anything but a name, an address or a number.
 *
 * Threads: one thread. Errors: an error diagnostic, and what was put into the output is not to be used.
 */
#ifndef CX_EMIT_H
#define CX_EMIT_H

#include "shared/compile/compile.h"
#include "shared/compile/out.h"

typedef void emit_fn(const struct model *m, struct out *o);

/* unbound.conf(5): forward-zones of `resolvers` and `custom_resolvers`. */
emit_fn emit_unbound_forward;
/* Backends for upstream proxies and mesh services; and the map from HOST:PORT to them. */
emit_fn emit_haproxy, emit_haproxy_map;
/* nft(8): sets of the sources, in table inet cx. */
emit_fn emit_nftables;

/* By the name on the command line: unbound-forward, haproxy, haproxy-map, nftables; NULL: none. */
emit_fn *emit_find(const char *kind);

/* The text if it has 1 to 255 of a-z A-Z 0-9 - _ . : [ ] @ only; else an error, and "". */
const char *emit_word(const struct model *m, struct pos at, const char *what, const char *s);

#endif
