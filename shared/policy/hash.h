/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of a canonical name, folded label by label from the root, so that the hashes of all its
 * suffixes fall out on the way. Not keyed: names are compared in full after a tag match, so
 * collisions cost time only, and the writer picks another seed when a line overflows. Pure.
 */
#ifndef CX_HASH_H
#define CX_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t hash_mix(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 u128;
	u128 m = (u128)a * b;
	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* The n lowest octets of a word, n in 0..8. */
static inline uint64_t hash_low(uint64_t w, size_t n)
{
	return n >= 8 ? w : w & ((1ull << (8 * n)) - 1);
}

/*
 * h extended by the label at `label` (its n octets, without the length octet). Reads in words: up
 * to 7 octets behind the label must be readable (struct name pads for this).
 */
static inline uint64_t hash_label(uint64_t h, const uint8_t *label, size_t n)
{
	uint64_t w;
	h ^= n * 0x9e3779b97f4a7c15ull;
	while (n > 8) {
		memcpy(&w, label, 8);
		h = hash_mix(h ^ w, 0xd6e8feb86659fd93ull);
		label += 8;
		n -= 8;
	}
	memcpy(&w, label, 8);
	return hash_mix(h ^ hash_low(w, n), 0xa0761d6478bd642full) + 0x2545f4914f6cdd1dull;
}

/* A slot in 0..n-1 from the high bits; n > 0. */
static inline uint64_t hash_scale(uint64_t h, uint64_t n)
{
	__extension__ typedef unsigned __int128 u128;
	return (uint64_t)(((u128)h * n) >> 64);
}

/* Bits that the slot does not depend on much. */
static inline uint16_t hash_tag(uint64_t h)
{
	return (uint16_t)h;
}

/* Four bits of a gate word. */
static inline uint64_t hash_gate_mask(uint64_t h)
{
	return 1ull << (h & 63) | 1ull << (h >> 6 & 63) | 1ull << (h >> 12 & 63) |
	       1ull << (h >> 18 & 63);
}

#endif
