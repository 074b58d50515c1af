/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing run of octets in which equal pieces are stored once: the strings, port lists and rule sets
 * of a policy. The same pieces in the same order give the same octets.
 *
 * Ownership: init/fini, the octets belong to the pool. Threads: one. Errors: out of memory ends the
 * program, as with arena.h.
 */
#ifndef CX_POOL_H
#define CX_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool_slot;

struct pool {
	uint8_t *bytes;
	size_t len, cap;
	struct pool_slot *slots; /* open addressing, at most half full */
	size_t n_slots, n_used;
};

void pool_init(struct pool *p);
void pool_fini(struct pool *p);

/* A hash of octets, the same on every machine. */
uint64_t pool_hash(const void *piece, size_t n);

/* Where the piece stands: an offset in octets. n may be 0. */
size_t pool_put(struct pool *p, const void *piece, size_t n);

/* The same for a piece that no other equals and none will: it is not looked for. */
size_t pool_append(struct pool *p, const void *piece, size_t n);

/* The string with its NUL; call with "" first so that offset 0 is the empty one. */
uint32_t pool_text(struct pool *p, const char *s);

#endif
