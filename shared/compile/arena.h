/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is given out in pieces and freed at once. Pieces are zeroed, aligned to 8, and at
 * least ARENA_SLACK octets behind each piece are readable. Nothing is ever freed alone.
 *
 * Threads: one thread. Errors: arena_get() and what is built on it end the program with a message
 * and status 3 when memory runs out: the compiler has nothing to save then, and writes nothing.
 */
#ifndef CX_ARENA_H
#define CX_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { ARENA_SLACK = 16 };

struct arena_block;

struct arena {
	struct arena_block *blocks;
	uint8_t *at;
	size_t left;
	size_t total; /* of the blocks that small pieces come from */
};

void arena_init(struct arena *a);
void arena_fini(struct arena *a);
void *arena_get(struct arena *a, size_t size);
void *arena_array(struct arena *a, size_t n, size_t size);
/* A copy, NUL-terminated. */
char *arena_text(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Room for one more in a growing array: returns the array, maybe moved, with at least n + 1 places
 * of which the first n are kept. *cap is kept by the caller, 0 and NULL at first.
 */
void *arena_grow(struct arena *a, void *v, size_t n, size_t *cap, size_t size);

#endif
