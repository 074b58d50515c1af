/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads DNS messages; see wire.h. Never follows a pointer that does not lead backwards, never believes
 * a count.
 */
#include "shared/dns/wire.h"

#include <string.h>

#include "shared/base/bytes.h"

enum { MAX_LABEL = 63, POINTER = 0xc0 };

static uint8_t lower(uint8_t c)
{
	return (uint8_t)(c | (uint8_t)((uint8_t)(c - 'A') < 26) << 5);
}

bool wire_name_equal(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
	if (an != bn)
		return false;
	for (size_t i = 0; i < an; i++)
		if (lower(a[i]) != lower(b[i]))
			return false;
	return true;
}

uint64_t wire_name_hash(const uint8_t *wire, size_t n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < n; i++)
		h = (h ^ lower(wire[i])) * UINT64_C(0x100000001b3);
	return h;
}

/* ---- names ---- */

/*
 * Reads the name at the cursor of a message and moves behind its first piece. w takes it uncompressed.
 */
static void read_name(const uint8_t *p, size_t n, struct reader *r, struct writer *w)
{
	struct reader at = *r;
	size_t piece = n - at.left; /* where the piece that is read starts */
	bool jumped = false;
	for (uint8_t len; (len = rd_u8(&at)) != 0 && !at.bad && !w->bad;) {
		if (len <= MAX_LABEL) {
			const uint8_t *label = rd_take(&at, len);
			wr_u8(w, len);
			if (label)
				wr_bytes(w, label, len);
			continue;
		}
		size_t to = (size_t)(len & MAX_LABEL) << 8 | rd_u8(&at);
		if (len < POINTER || at.bad || to < WIRE_HEAD || to >= piece) {
			r->bad = true;
			return;
		}
		if (!jumped)
			*r = at;
		jumped = true;
		at = rd_init(p + to, piece - to); /* what it leads to ends before it */
		piece = to;
	}
	wr_u8(w, 0);
	if (!jumped)
		*r = at;
	r->bad |= at.bad || w->bad;
}

size_t wire_name(const uint8_t *p, size_t n, size_t at, uint8_t out[WIRE_NAME])
{
	struct writer w = wr_init(out, WIRE_NAME);
	if (at >= n)
		return 0;
	struct reader r = rd_init(p + at, n - at);
	read_name(p, n, &r, &w);
	return r.bad ? 0 : w.len;
}

/* Over a name without looking where its pointer leads: wire_name() does, before it is used. */
static void skip_name(struct reader *r)
{
	size_t len = 0;
	for (uint8_t c; (c = rd_u8(r)) != 0 && !r->bad;) {
		if (c >= POINTER) {
			rd_u8(r);
			return;
		}
		len += 1u + c;
		if (c > MAX_LABEL || len >= WIRE_NAME) {
			r->bad = true;
			return;
		}
		rd_skip(r, c);
	}
}

/* ---- OPT ---- */

/* The cursor stands behind the type; at is the offset of the data that follows. */
static void read_opt(const uint8_t *p, struct reader *r, size_t owner, struct wire_opt *out,
		     size_t total)
{
	if (out->present || p[owner] != 0) { /* one at most, and of the root (RFC 6891 6.1.1) */
		r->bad = true;
		return;
	}
	out->udp_size = rd_be16(r);
	out->rcode = rd_u8(r);
	out->version = rd_u8(r);
	out->dnssec_ok = rd_be16(r) & 0x8000;
	out->n_options = rd_be16(r);
	out->options = (uint32_t)(total - r->left);
	struct reader o = rd_sub(r, out->n_options);
	while (!o.bad && o.left > 0) {
		rd_be16(&o);
		rd_skip(&o, rd_be16(&o));
	}
	r->bad |= o.bad;
	out->present = true;
}

/* ---- questions ---- */

/* A question's name has nothing before it to point to. */
static bool read_question(struct reader *r, struct wire_query *out)
{
	const uint8_t *start = r->p;
	size_t left = r->left;
	for (uint8_t c; (c = rd_u8(r)) != 0 && !r->bad;) {
		if (c > MAX_LABEL)
			return false;
		rd_skip(r, c);
	}
	size_t len = left - r->left;
	if (r->bad || len > WIRE_NAME)
		return false;
	out->qname = start;
	out->qname_len = (uint16_t)len;
	out->qtype = rd_be16(r);
	out->qclass = rd_be16(r);
	return !r->bad;
}

/* Types that stand for something else than data (RFC 6895); ANY is a question that may be asked. */
static int type_rcode(uint16_t t)
{
	if (t == WIRE_TYPE_IXFR || t == WIRE_TYPE_AXFR)
		return RCODE_REFUSED;
	if (t == 0 || t == WIRE_TYPE_OPT || (t >= 128 && t < WIRE_TYPE_ANY))
		return RCODE_FORMERR;
	return RCODE_NOERROR;
}

static bool read_additional(const uint8_t *p, size_t n, struct reader *r, unsigned count,
			    struct wire_opt *opt)
{
	for (unsigned i = 0; i < count && !r->bad; i++) {
		size_t owner = n - r->left;
		skip_name(r);
		uint16_t type = rd_be16(r);
		if (r->bad)
			return false;
		if (type == WIRE_TYPE_OPT) {
			read_opt(p, r, owner, opt, n);
			continue;
		}
		rd_skip(r, 6);
		rd_skip(r, rd_be16(r));
	}
	return rd_done(r);
}

bool wire_query_read(struct wire_query *out, const uint8_t *p, size_t n, int *rcode)
{
	struct reader r = rd_init(p, n);
	struct wire_query q = { .id = rd_be16(&r), .flags = rd_be16(&r) };
	unsigned questions = rd_be16(&r), answers = rd_be16(&r), authority = rd_be16(&r);
	unsigned additional = rd_be16(&r);
	*rcode = -1;
	if (r.bad || q.flags & WIRE_QR)
		return false;
	*rcode = RCODE_NOTIMP;
	if (q.flags & WIRE_OPCODE)
		return false;
	*rcode = RCODE_FORMERR;
	if (q.flags & WIRE_TC || questions != 1 || answers || authority || additional > 1)
		return false;
	if (!read_question(&r, &q) || !read_additional(p, n, &r, additional, &q.opt))
		return false;
	*rcode = q.opt.present && q.opt.version != 0 ? RCODE_BADVERS : type_rcode(q.qtype);
	*out = q;
	return true;
}

/* ---- answers ---- */

bool wire_is_answer(const uint8_t *p, size_t n, uint16_t id, const uint8_t *qname, size_t qname_len,
		    uint16_t qtype)
{
	struct reader r = rd_init(p, n);
	uint16_t got = rd_be16(&r), flags = rd_be16(&r);
	unsigned questions = rd_be16(&r);
	rd_skip(&r, 6);
	if (r.bad || got != id || !(flags & WIRE_QR) || flags & WIRE_OPCODE || questions != 1)
		return false;
	const uint8_t *name = rd_take(&r, qname_len);
	uint16_t type = rd_be16(&r), class = rd_be16(&r);
	return !r.bad && wire_name_equal(name, qname_len, qname, qname_len) && type == qtype &&
	       class == WIRE_CLASS_IN;
}

static void read_record(struct wire_answer *m, struct reader *r, unsigned section)
{
	struct wire_record rr = { .section = (uint8_t)section };
	rr.owner = (uint32_t)(m->n - r->left);
	skip_name(r);
	rr.type = rd_be16(r);
	if (r->bad)
		return;
	if (rr.type == WIRE_TYPE_OPT) {
		m->opt_at = rr.owner;
		r->bad |= section != 2;
		read_opt(m->p, r, rr.owner, &m->opt, m->n);
		m->opt_last = r->left == 0;
		return;
	}
	rr.class = rd_be16(r);
	rr.ttl_s = rd_be32(r);
	if (rr.ttl_s > INT32_MAX)
		rr.ttl_s = 0;
	rr.n = rd_be16(r);
	rr.data = (uint32_t)(m->n - r->left);
	rd_skip(r, rr.n);
	if (!r->bad && m->n_records < WIRE_MAX_RECORDS)
		m->records[m->n_records++] = rr;
	else
		r->bad = true;
}

bool wire_answer_read(struct wire_answer *out, const uint8_t *p, size_t n)
{
	struct wire_answer m = { .p = p, .n = n, .records = out->records };
	struct reader r = rd_init(p, n);
	uint16_t counts[3];
	m.opt_at = (uint32_t)n;
	m.opt_last = true;
	m.id = rd_be16(&r);
	m.flags = rd_be16(&r);
	unsigned questions = rd_be16(&r);
	for (unsigned s = 0; s < 3; s++)
		counts[s] = rd_be16(&r);
	if (r.bad || questions != 1 || n > WIRE_MAX)
		return false;
	skip_name(&r);
	rd_skip(&r, 4);
	m.question_end = (uint32_t)(n - r.left);
	for (unsigned s = 0; s < 3; s++)
		for (unsigned i = 0; i < counts[s] && !r.bad; i++)
			read_record(&m, &r, s);
	if (!rd_done(&r))
		return false;
	*out = m;
	return true;
}

/* ---- data ---- */

/*
 * Where names stand in the data of a type, as far as they may be compressed (RFC 3597 section 4, and
 * what is met in practice): n a name, a digit so many octets, s a character-string, * the rest.
 */
static const struct layout {
	uint16_t type;
	const char *fields;
} layouts[] = {
	{ 2, "n" },      /* NS */
	{ 3, "n" },      /* MD */
	{ 4, "n" },      /* MF */
	{ 5, "n" },      /* CNAME */
	{ 6, "nn*" },    /* SOA */
	{ 7, "n" },      /* MB */
	{ 8, "n" },      /* MG */
	{ 9, "n" },      /* MR */
	{ 12, "n" },     /* PTR */
	{ 14, "nn" },    /* MINFO */
	{ 15, "2n" },    /* MX */
	{ 17, "nn" },    /* RP */
	{ 18, "2n" },    /* AFSDB */
	{ 21, "2n" },    /* RT */
	{ 24, "99n*" },  /* SIG */
	{ 26, "2nn" },   /* PX */
	{ 30, "n*" },    /* NXT */
	{ 33, "222n" },  /* SRV */
	{ 35, "4sssn" }, /* NAPTR */
	{ 36, "2n" },    /* KX */
	{ 39, "n" },     /* DNAME */
	{ 46, "99n*" },  /* RRSIG */
	{ 47, "n*" },    /* NSEC */
};

static const char *layout_of(uint16_t type)
{
	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		if (layouts[i].type == type)
			return layouts[i].fields;
	return "*";
}

static void copy_octets(struct reader *r, size_t n, struct writer *w)
{
	const uint8_t *b = rd_take(r, n);
	if (b)
		wr_bytes(w, b, n);
}

/* A name within data: its first piece must end there, its pointers may lead out. */
static void copy_name(const struct wire_answer *m, struct reader *r, struct writer *w)
{
	uint8_t name[WIRE_NAME];
	struct writer one = wr_init(name, sizeof(name));
	size_t at = (size_t)(r->p - m->p);
	struct reader whole = rd_init(r->p, m->n - at);
	read_name(m->p, m->n, &whole, &one);
	rd_skip(r, (m->n - at) - whole.left);
	r->bad |= whole.bad;
	wr_bytes(w, name, one.len);
}

static void copy_field(const struct wire_answer *m, char field, struct reader *r, struct writer *w)
{
	if (field == 'n')
		copy_name(m, r, w);
	else if (field == '*')
		copy_octets(r, r->left, w);
	else if (field == 's')
		copy_octets(r, r->left > 0 ? 1u + r->p[0] : 1, w);
	else
		copy_octets(r, (size_t)(field - '0'), w);
}

long wire_data(const struct wire_answer *m, const struct wire_record *rr, uint8_t *out, size_t cap)
{
	struct reader r = rd_init(m->p + rr->data, rr->n);
	struct writer w = wr_init(out, cap);
	if (rr->n == 0) /* no data at all is what it is: UPDATE has it, an answer has not */
		return 0;
	for (const char *f = layout_of(rr->type); *f && !r.bad && !w.bad; f++)
		copy_field(m, *f, &r, &w);
	return rd_done(&r) && !w.bad ? (long)w.len : -1;
}
