/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cursor over foreign bytes that fails once and stays failed: work after a failure is a no-op
 * that yields zeroes, so a parser reads straight on and asks `bad` once at the end. Never reads or
 * writes outside the buffer it was given, never allocates. Remaining length is compared; no pointer
 * past the end is ever formed.
 *
 * Ownership: the caller owns the buffer, which must outlive the cursor and what rd_take() returns.
 * Threads: a cursor belongs to one thread.
 */
#ifndef CX_BYTES_H
#define CX_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline struct reader rd_init(const void *p, size_t n)
{
	return (struct reader){ .p = p, .left = n };
}

/* The next n bytes, or NULL (and bad) if there are fewer. */
static inline const uint8_t *rd_take(struct reader *r, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	const uint8_t *p = r->p;
	r->p += n;
	r->left -= n;
	return p;
}

static inline void rd_skip(struct reader *r, size_t n)
{
	(void)rd_take(r, n);
}

static inline uint8_t rd_u8(struct reader *r)
{
	const uint8_t *p = rd_take(r, 1);
	return p ? p[0] : 0;
}

static inline uint16_t rd_be16(struct reader *r)
{
	const uint8_t *p = rd_take(r, 2);
	return p ? (uint16_t)(p[0] << 8 | p[1]) : 0;
}

static inline uint32_t rd_be24(struct reader *r)
{
	const uint8_t *p = rd_take(r, 3);
	return p ? (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2] : 0;
}

static inline uint32_t rd_be32(struct reader *r)
{
	const uint8_t *p = rd_take(r, 4);
	return p ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
}

/* A cursor over the next n bytes; bad if there are fewer, and then the outer one is bad too. */
static inline struct reader rd_sub(struct reader *r, size_t n)
{
	const uint8_t *p = rd_take(r, n);
	struct reader sub = { .p = p, .left = p ? n : 0, .bad = !p };
	return sub;
}

/* True if everything was read and nothing failed. */
static inline bool rd_done(const struct reader *r)
{
	return !r->bad && r->left == 0;
}

struct writer {
	uint8_t *p;
	size_t cap;
	size_t len;
	bool bad;
};

static inline struct writer wr_init(void *p, size_t cap)
{
	return (struct writer){ .p = p, .cap = cap };
}

/* Room for n bytes, to be filled by the caller, or NULL (and bad). */
static inline uint8_t *wr_room(struct writer *w, size_t n)
{
	if (w->bad || n > w->cap - w->len) {
		w->bad = true;
		return NULL;
	}
	uint8_t *p = w->p + w->len;
	w->len += n;
	return p;
}

static inline void wr_bytes(struct writer *w, const void *src, size_t n)
{
	uint8_t *p = wr_room(w, n);
	if (p && n)
		memcpy(p, src, n);
}

static inline void wr_u8(struct writer *w, uint8_t v)
{
	wr_bytes(w, &v, 1);
}

static inline void wr_be16(struct writer *w, uint16_t v)
{
	uint8_t b[2] = { (uint8_t)(v >> 8), (uint8_t)v };
	wr_bytes(w, b, sizeof(b));
}

static inline void wr_be32(struct writer *w, uint32_t v)
{
	uint8_t b[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };
	wr_bytes(w, b, sizeof(b));
}

#endif
