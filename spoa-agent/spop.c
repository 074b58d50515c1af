/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SPOP 2.0 on the wire; see spop.h. Never trusts a length: each is read at full width and compared
 * with what is left before anything is touched.
 */
#include "spoa-agent/spop.h"

#include <string.h>

const char *spop_strerror(enum spop_code c)
{
	switch (c) {
	case SPOP_NORMAL:
		return "normal";
	case SPOP_TIMEOUT:
		return "a timeout occurred";
	case SPOP_TOO_BIG:
		return "frame is too big";
	case SPOP_INVALID:
		return "invalid frame received";
	case SPOP_NO_VERSION:
		return "version value not found";
	case SPOP_NO_FRAME_SIZE:
		return "max-frame-size value not found";
	case SPOP_NO_CAPABILITIES:
		return "capabilities value not found";
	case SPOP_BAD_VERSION:
		return "unsupported version";
	case SPOP_BAD_FRAME_SIZE:
		return "max-frame-size too big or too small";
	case SPOP_FRAGMENTED:
		return "payload fragmentation is not supported";
	case SPOP_RESOURCE:
		return "resource allocation error";
	case SPOP_NOT_READY:
		return "no policy is in force";
	case SPOP_UNKNOWN:
		break;
	}
	return "unknown error";
}

/* The first octet holds the value below 240; from there on 4 bits, then groups of 7. */
uint64_t spop_varint(struct reader *r)
{
	uint64_t v = rd_u8(r);
	if (v < 240)
		return v;
	for (unsigned shift = 4; shift < 64; shift += 7) {
		uint64_t c = rd_u8(r);
		if (r->bad || (shift > 57 && c >> (64 - shift)))
			break;
		uint64_t part = c << shift;
		if (part > UINT64_MAX - v)
			break;
		v += part;
		if (c < 128)
			return v;
	}
	r->bad = true;
	return 0;
}

struct spop_bytes spop_string(struct reader *r)
{
	uint64_t n = spop_varint(r);
	if (r->bad || n > r->left) {
		r->bad = true;
		return (struct spop_bytes){ 0 };
	}
	return (struct spop_bytes){ .p = rd_take(r, (size_t)n), .n = (size_t)n };
}

static struct spop_bytes take(struct reader *r, size_t n)
{
	const uint8_t *p = rd_take(r, n);
	return (struct spop_bytes){ .p = p, .n = p ? n : 0 };
}

struct spop_value spop_value(struct reader *r)
{
	uint8_t head = rd_u8(r);
	struct spop_value v = { .type = SPOP_NULL };
	switch (head & 0x0f) {
	case SPOP_NULL:
		break;
	case SPOP_BOOL:
		v.u = head >> 4 & 1;
		break;
	case SPOP_INT32:
	case SPOP_UINT32:
	case SPOP_INT64:
	case SPOP_UINT64:
		v.u = spop_varint(r);
		break;
	case SPOP_IPV4:
		v.bytes = take(r, 4);
		break;
	case SPOP_IPV6:
		v.bytes = take(r, 16);
		break;
	case SPOP_STRING:
	case SPOP_BINARY:
		v.bytes = spop_string(r);
		break;
	default:
		r->bad = true;
	}
	if (r->bad)
		return (struct spop_value){ .type = SPOP_NULL };
	v.type = head & 0x0f;
	return v;
}

bool spop_is(struct spop_bytes s, const char *literal)
{
	size_t n = strlen(literal);
	return s.p && s.n == n && memcmp(s.p, literal, n) == 0;
}

bool spop_as_uint(const struct spop_value *v, uint64_t max, uint64_t *out)
{
	bool is_signed = v->type == SPOP_INT32 || v->type == SPOP_INT64;
	if (!is_signed && v->type != SPOP_UINT32 && v->type != SPOP_UINT64)
		return false;
	if (v->type == SPOP_UINT32 && v->u > UINT32_MAX)
		return false;
	if (v->type == SPOP_INT32 && v->u > INT32_MAX)
		return false;
	if (v->type == SPOP_INT64 && v->u > INT64_MAX)
		return false;
	if (v->u > max)
		return false;
	*out = v->u;
	return true;
}

bool spop_as_addr(const struct spop_value *v, struct addr *out)
{
	if (v->type == SPOP_IPV4 && v->bytes.n == 4)
		*out = addr_from_v4(v->bytes.p);
	else if (v->type == SPOP_IPV6 && v->bytes.n == 16)
		*out = addr_from_v6(v->bytes.p);
	else
		return false;
	return true;
}

bool spop_as_bytes(const struct spop_value *v, struct spop_bytes *out)
{
	if (v->type != SPOP_STRING && v->type != SPOP_BINARY)
		return false;
	*out = v->bytes;
	return true;
}

bool spop_frame_read(struct spop_frame *out, const uint8_t *p, size_t n)
{
	struct reader r = rd_init(p, n);
	struct spop_frame f = { .type = rd_u8(&r) };
	f.flags = rd_be32(&r);
	f.stream = spop_varint(&r);
	f.frame = spop_varint(&r);
	if (r.bad)
		return false;
	f.payload = r;
	*out = f;
	return true;
}

void spop_put_varint(struct writer *w, uint64_t v)
{
	if (v < 240) {
		wr_u8(w, (uint8_t)v);
		return;
	}
	wr_u8(w, (uint8_t)(v | 0xf0));
	v = (v - 240) >> 4;
	while (v >= 128) {
		wr_u8(w, (uint8_t)(v | 0x80));
		v = (v - 128) >> 7;
	}
	wr_u8(w, (uint8_t)v);
}

void spop_put_string(struct writer *w, const char *s)
{
	size_t n = strlen(s);
	spop_put_varint(w, n);
	wr_bytes(w, s, n);
}

static void put_u32(struct writer *w, uint32_t v)
{
	wr_u8(w, SPOP_UINT32);
	spop_put_varint(w, v);
}

static void put_text(struct writer *w, const char *s)
{
	wr_u8(w, SPOP_STRING);
	spop_put_string(w, s);
}

void spop_put_kv_string(struct writer *w, const char *key, const char *s)
{
	spop_put_string(w, key);
	put_text(w, s);
}

void spop_put_kv_u32(struct writer *w, const char *key, uint32_t v)
{
	spop_put_string(w, key);
	put_u32(w, v);
}

struct spop_mark spop_begin(struct writer *w, enum spop_type type, uint64_t stream, uint64_t frame)
{
	struct spop_mark m = { .at = w->len };
	wr_be32(w, 0);
	wr_u8(w, (uint8_t)type);
	wr_be32(w, SPOP_FIN);
	spop_put_varint(w, stream);
	spop_put_varint(w, frame);
	return m;
}

void spop_end(struct writer *w, struct spop_mark m)
{
	if (w->bad)
		return;
	struct writer head = wr_init(w->p + m.at, 4);
	wr_be32(&head, (uint32_t)(w->len - m.at - 4));
}

static void set_var(struct writer *w, const char *var)
{
	static const uint8_t set_txn[] = { 1, 3, 2 }; /* set-var, 3 arguments, scope transaction */
	wr_bytes(w, set_txn, sizeof(set_txn));
	spop_put_string(w, var);
}

void spop_set_string(struct writer *w, const char *var, const char *s)
{
	set_var(w, var);
	put_text(w, s);
}

void spop_set_u32(struct writer *w, const char *var, uint32_t v)
{
	set_var(w, var);
	put_u32(w, v);
}

void spop_set_sess_u64(struct writer *w, const char *var, uint64_t v)
{
	static const uint8_t set_sess[] = { 1, 3, 1 };
	wr_bytes(w, set_sess, sizeof(set_sess));
	spop_put_string(w, var);
	wr_u8(w, SPOP_UINT64);
	spop_put_varint(w, v);
}

void spop_set_addr(struct writer *w, const char *var, const struct addr *a)
{
	bool v4 = addr_is_v4(a);
	set_var(w, var);
	wr_u8(w, v4 ? SPOP_IPV4 : SPOP_IPV6);
	wr_bytes(w, v4 ? a->b + 12 : a->b, v4 ? 4 : 16);
}
