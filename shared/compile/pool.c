/* SPDX-License-Identifier: Apache-2.0 */
/* Octets in which equal pieces are stored once (pool.h). Never gives two places for one piece. */
#include "shared/compile/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/hash.h"

struct pool_slot {
	uint64_t hash;
	uint32_t at;
	uint32_t n_plus_1; /* 0: free */
};

static _Noreturn void no_memory(void)
{
	fputs("cx-policyc: out of memory\n", stderr);
	exit(3);
}

void pool_init(struct pool *p)
{
	*p = (struct pool){ .n_slots = 64 };
	p->slots = calloc(p->n_slots, sizeof(*p->slots));
	if (!p->slots)
		no_memory();
}

void pool_fini(struct pool *p)
{
	free(p->bytes);
	free(p->slots);
	*p = (struct pool){ 0 };
}

uint64_t pool_hash(const void *piece, size_t n)
{
	const uint8_t *s = piece;
	uint64_t h = n * 0x9e3779b97f4a7c15ull, w;
	for (; n >= 8; n -= 8, s += 8) {
		memcpy(&w, s, 8);
		h = hash_mix(h ^ w, 0xd6e8feb86659fd93ull) + 1;
	}
	w = 0;
	if (n)
		memcpy(&w, s, n);
	return hash_mix(h ^ w, 0xa0761d6478bd642full);
}

static void grow_slots(struct pool *p)
{
	size_t n = p->n_slots * 2;
	struct pool_slot *to = calloc(n, sizeof(*to));
	if (!to)
		no_memory();
	for (size_t i = 0; i < p->n_slots; i++) {
		if (!p->slots[i].n_plus_1)
			continue;
		size_t k = p->slots[i].hash & (n - 1);
		while (to[k].n_plus_1)
			k = (k + 1) & (n - 1);
		to[k] = p->slots[i];
	}
	free(p->slots);
	p->slots = to;
	p->n_slots = n;
}

size_t pool_append(struct pool *p, const void *piece, size_t n)
{
	size_t at = p->len;
	if (n > UINT32_MAX - at) { /* offsets have 32 bits */
		fputs("cx-policyc: the policy is too large for the file format\n", stderr);
		exit(3);
	}
	if (n > p->cap - p->len) {
		size_t cap = p->cap ? p->cap : 1024;
		while (n > cap - p->len)
			cap *= 2;
		p->bytes = realloc(p->bytes, cap);
		if (!p->bytes)
			no_memory();
		p->cap = cap;
	}
	if (n)
		memcpy(p->bytes + p->len, piece, n);
	p->len += n;
	return at;
}

size_t pool_put(struct pool *p, const void *piece, size_t n)
{
	uint64_t h = pool_hash(piece, n);
	size_t k = h & (p->n_slots - 1);
	for (; p->slots[k].n_plus_1; k = (k + 1) & (p->n_slots - 1)) {
		const struct pool_slot *s = &p->slots[k];
		if (s->hash == h && s->n_plus_1 == (uint64_t)n + 1 &&
		    (n == 0 || memcmp(p->bytes + s->at, piece, n) == 0))
			return s->at;
	}
	size_t at = pool_append(p, piece, n);
	p->slots[k] = (struct pool_slot){ h, (uint32_t)at, (uint32_t)n + 1 };
	if (++p->n_used * 2 > p->n_slots)
		grow_slots(p);
	return at;
}

uint32_t pool_text(struct pool *p, const char *s)
{
	if (!*s && p->len)
		return 0; /* the first of all */
	return (uint32_t)pool_put(p, s, strlen(s) + 1);
}
