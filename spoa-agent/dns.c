/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions and answers of a stub; see dns.h. Never follows a pointer that does not go backwards,
 * never takes an address from an owner outside the chain.
 */
#include "spoa-agent/dns.h"

#include <string.h>

#include "shared/base/bytes.h"

enum {
	FLAG_QR = 0x8000,
	FLAG_TC = 0x0200,
	FLAG_RD = 0x0100,
	MASK_OPCODE = 0x7800,
	MASK_RCODE = 0x000f,
	RCODE_NOERROR = 0,
	RCODE_NXDOMAIN = 3,
	CLASS_IN = 1,
	TYPE_CNAME = 5,
	TYPE_SOA = 6,
	TYPE_OPT = 41,
	HEAD = 12
};

size_t dns_query(uint8_t *buf, uint16_t id, const struct name *n, uint16_t type)
{
	struct writer w = wr_init(buf, DNS_QUERY_SIZE);
	wr_be16(&w, id);
	wr_be16(&w, FLAG_RD);
	wr_be16(&w, 1);
	wr_be32(&w, 0);
	wr_be16(&w, 1);
	wr_bytes(&w, n->wire, n->len);
	wr_u8(&w, 0);
	wr_be16(&w, type);
	wr_be16(&w, CLASS_IN);
	wr_u8(&w, 0);
	wr_be16(&w, TYPE_OPT);
	wr_be16(&w, DNS_UDP_SIZE);
	wr_be32(&w, 0);
	wr_be16(&w, 0);
	return w.bad ? 0 : w.len;
}

struct message {
	const uint8_t *p;
	size_t len;
};

/*
 * A name that may be compressed. Each pointer must point before the piece in which it stands, so that
 * the walk ends; the cursor moves behind the first piece.
 */
static void read_name(const struct message *m, struct reader *r, struct name *out)
{
	uint8_t wire[NAME_MAX_WIRE + 1];
	struct writer w = wr_init(wire, sizeof(wire));
	struct reader at = *r;
	size_t piece = m->len - at.left;
	bool jumped = false;
	for (uint8_t n; (n = rd_u8(&at)) != 0 && !at.bad && !w.bad;) {
		if (n < 64) {
			const uint8_t *label = rd_take(&at, n);
			wr_u8(&w, n);
			if (label)
				wr_bytes(&w, label, n);
			continue;
		}
		size_t to = (size_t)(n & 0x3f) << 8 | rd_u8(&at);
		if (n < 0xc0 || at.bad || to >= piece) {
			r->bad = true;
			return;
		}
		if (!jumped)
			*r = at;
		jumped = true;
		piece = to;
		at = rd_init(m->p + to, m->len - to);
	}
	wr_u8(&w, 0);
	if (!jumped)
		*r = at;
	if (at.bad || w.bad || name_from_wire(out, wire, w.len, NULL) != NAME_OK)
		r->bad = true;
}

struct record {
	struct name owner;
	uint16_t type, class;
	uint32_t ttl_s;
	struct reader data;
};

static void read_record(const struct message *m, struct reader *r, struct record *out)
{
	read_name(m, r, &out->owner);
	out->type = rd_be16(r);
	out->class = rd_be16(r);
	out->ttl_s = rd_be32(r);
	if (out->ttl_s > INT32_MAX) /* RFC 2181 section 8 */
		out->ttl_s = 0;
	out->data = rd_sub(r, rd_be16(r));
}

static void lower_ttl(struct dns_answer *a, bool *any, uint32_t ttl_s)
{
	if (!*any || ttl_s < a->ttl_s)
		a->ttl_s = ttl_s;
	*any = true;
}

static void take_address(struct dns_answer *a, const struct record *rr)
{
	if (a->n == DNS_MAX_ADDRS)
		return;
	if (rr->type == DNS_A && rr->data.left == 4)
		a->v[a->n++] = addr_from_v4(rr->data.p);
	else if (rr->type == DNS_AAAA && rr->data.left == 16)
		a->v[a->n++] = addr_from_v6(rr->data.p);
}

/* The data of a CNAME may be compressed: it is read in place. */
static bool follow(const struct message *m, const struct record *rr, struct name *at)
{
	size_t off = (size_t)(rr->data.p - m->p);
	struct reader r = rd_init(m->p + off, m->len - off);
	read_name(m, &r, at);
	return !r.bad;
}

static bool note_alias(struct dns_answer *a, const struct name *target)
{
	struct writer w = { .p = a->chain, .cap = sizeof(a->chain), .len = a->chain_len };
	wr_bytes(&w, target->wire, target->len);
	wr_u8(&w, 0);
	if (!w.bad)
		a->chain_len = (uint16_t)w.len;
	return !w.bad;
}

static bool read_answers(const struct message *m, struct reader *r, unsigned count,
			 const struct name *n, uint16_t type, struct dns_answer *out)
{
	struct name at = *n;
	bool any = false;
	for (unsigned i = 0; i < count; i++) {
		struct record rr;
		read_record(m, r, &rr);
		if (r->bad)
			return false;
		if (rr.class != CLASS_IN || !name_equal(&rr.owner, &at))
			continue;
		if (rr.type == type)
			take_address(out, &rr);
		else if (rr.type != TYPE_CNAME || !follow(m, &rr, &at))
			continue;
		else if (!note_alias(out, &at))
			return false;
		lower_ttl(out, &any, rr.ttl_s);
	}
	return true;
}

/* How long "nothing" holds (RFC 2308 section 5). */
static void read_negative_ttl(const struct message *m, struct reader *r, unsigned count,
			      struct dns_answer *out)
{
	out->ttl_s = 0;
	for (unsigned i = 0; i < count && !r->bad; i++) {
		struct record rr;
		read_record(m, r, &rr);
		if (r->bad || rr.type != TYPE_SOA || rr.data.left < 4)
			continue;
		rd_skip(&rr.data, rr.data.left - 4);
		uint32_t minimum = rd_be32(&rr.data);
		out->ttl_s = rr.ttl_s < minimum ? rr.ttl_s : minimum;
	}
}

static bool is_question(const struct message *m, struct reader *r, const struct name *n,
			uint16_t type)
{
	struct name asked;
	read_name(m, r, &asked);
	uint16_t asked_type = rd_be16(r), asked_class = rd_be16(r);
	return !r->bad && name_equal(&asked, n) && asked_type == type && asked_class == CLASS_IN;
}

enum dns_result dns_read(struct dns_answer *out, const uint8_t *p, size_t len, uint16_t id,
			 const struct name *n, uint16_t type)
{
	struct message m = { .p = p, .len = len };
	struct reader r = rd_init(p, len);
	uint16_t got = rd_be16(&r), flags = rd_be16(&r);
	unsigned questions = rd_be16(&r), answers = rd_be16(&r), authority = rd_be16(&r);
	rd_be16(&r);
	if (r.bad || got != id || !(flags & FLAG_QR) || flags & MASK_OPCODE || questions != 1)
		return DNS_FOREIGN;
	if (!is_question(&m, &r, n, type))
		return DNS_FOREIGN;
	if (flags & FLAG_TC)
		return DNS_TRUNCATED;
	unsigned rcode = flags & MASK_RCODE;
	if (rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN)
		return DNS_FAILED;
	struct dns_answer a = { .n = 0 };
	if (!read_answers(&m, &r, answers, n, type, &a))
		return DNS_FAILED;
	if (rcode == RCODE_NXDOMAIN)
		a.n = 0;
	if (a.n == 0)
		read_negative_ttl(&m, &r, authority, &a);
	*out = a;
	return DNS_ANSWERED;
}
