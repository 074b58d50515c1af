/* SPDX-License-Identifier: Apache-2.0 */
/* Memory given out in pieces and freed at once (arena.h). Must never hand out unzeroed octets. */
#include "shared/compile/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Pieces from MAP_SIZE on are mapped: they grow in place, and come zeroed without being touched. An
 * arena that has got large is given large blocks; these are asked for in huge pages, since millions of
 * small ones cost more than what is done with them.
 */
enum { BLOCK_SIZE = 256 << 10, LARGE_BLOCK = 4 << 20, MAP_SIZE = 1 << 20, HUGE_SIZE = 4 << 20 };

struct arena_block {
	struct arena_block *next, *prev;
	size_t mapped; /* octets in all, 0: not mapped but allocated */
	uint64_t align;
	uint8_t bytes[];
};

static _Noreturn void no_memory(void)
{
	fputs("cx-policyc: out of memory\n", stderr);
	exit(3);
}

void arena_init(struct arena *a)
{
	*a = (struct arena){ 0 };
}

void arena_fini(struct arena *a)
{
	for (struct arena_block *b = a->blocks, *next; b; b = next) {
		next = b->next;
		if (b->mapped)
			munmap(b, b->mapped);
		else
			free(b);
	}
	arena_init(a);
}

static size_t block_size(size_t size)
{
	if (size > SIZE_MAX / 2 - sizeof(struct arena_block) - ARENA_SLACK)
		no_memory();
	return sizeof(struct arena_block) + size + ARENA_SLACK;
}

static struct arena_block *block_new(struct arena *a, size_t size)
{
	size_t all = block_size(size);
	bool map = size >= MAP_SIZE;
	struct arena_block *b =
		map ? mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
		    : calloc(1, all);
	if (!b || b == MAP_FAILED)
		no_memory();
	if (all >= HUGE_SIZE)
		(void)madvise(b, all, MADV_HUGEPAGE); /* or as it comes */
	b->mapped = map ? all : 0;
	b->next = a->blocks;
	if (b->next)
		b->next->prev = b;
	a->blocks = b;
	return b;
}

/* The block of a mapped piece, with more room; it may move. */
static void *block_grow(struct arena *a, void *piece, size_t size)
{
	struct arena_block *b = (void *)((uint8_t *)piece - offsetof(struct arena_block, bytes));
	size_t all = block_size(size);
	b = mremap(b, b->mapped, all, MREMAP_MAYMOVE);
	if (b == MAP_FAILED)
		no_memory();
	b->mapped = all;
	if (b->next)
		b->next->prev = b;
	if (b->prev)
		b->prev->next = b;
	else
		a->blocks = b;
	return b->bytes;
}

void *arena_get(struct arena *a, size_t size)
{
	if (size > SIZE_MAX / 2)
		no_memory();
	size = (size + 7) & ~(size_t)7;
	/* a big piece gets a block of its own, and the open block stays open */
	if (size > BLOCK_SIZE / 4)
		return block_new(a, size)->bytes;
	if (size > a->left) {
		a->left = a->total < LARGE_BLOCK ? BLOCK_SIZE : LARGE_BLOCK;
		a->at = block_new(a, a->left)->bytes;
		a->total += a->left;
	}
	void *p = a->at;
	a->at += size;
	a->left -= size;
	return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
	if (size && n > SIZE_MAX / 2 / size)
		no_memory();
	return arena_get(a, n * size);
}

char *arena_text(struct arena *a, const char *s, size_t n)
{
	char *p = arena_get(a, n + 1);
	if (n)
		memcpy(p, s, n);
	return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		no_memory();
	char *p = arena_get(a, (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return p;
}

void *arena_grow(struct arena *a, void *v, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return v;
	size_t more = *cap ? *cap * 2 : 8;
	if (size && more > SIZE_MAX / 4 / size)
		no_memory();
	if (*cap * size >= MAP_SIZE) {
		*cap = more;
		return block_grow(a, v, more * size);
	}
	void *p = arena_array(a, more, size);
	if (n)
		memcpy(p, v, n * size);
	*cap = more;
	return p;
}
