/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to clients; see reply.h. Never lets a record through that the gate was not shown, never
 * passes on an EDNS option but the reason of a failure (RFC 8914).
 */
#include "shared/dns/reply.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/bytes.h"

enum { OPTION_EDE = 15, DNSSEC_OK = 0x8000, POINTER = 0xc000 };
enum { MAX_REASONS = 256 }; /* octets of upstream's reasons that are passed on */

/* ---- pieces of a message ---- */

void asked_from(struct asked *out, const struct wire_query *q, bool over_tcp)
{
	size_t limit = q->opt.present ? q->opt.udp_size : REPLY_UDP_MIN;
	out->id = q->id;
	out->flags = q->flags;
	out->qtype = q->qtype;
	out->qclass = q->qclass;
	out->edns = q->opt.present;
	out->dnssec_ok = q->opt.dnssec_ok;
	out->qname_len = q->qname_len;
	memcpy(out->qname, q->qname, q->qname_len);
	limit = limit < REPLY_UDP_MIN ? REPLY_UDP_MIN : limit;
	limit = limit > REPLY_UDP_MAX ? REPLY_UDP_MAX : limit;
	out->limit = over_tcp ? WIRE_MAX : (uint16_t)limit;
}

static void put_head(struct writer *w, uint16_t id, unsigned flags, const uint16_t counts[4])
{
	wr_be16(w, id);
	wr_be16(w, (uint16_t)flags);
	for (unsigned i = 0; i < 4; i++)
		wr_be16(w, counts[i]);
}

static void put_question(struct writer *w, const struct asked *q)
{
	wr_bytes(w, q->qname, q->qname_len);
	wr_be16(w, q->qtype);
	wr_be16(w, q->qclass);
}

/* Ours, with options (n octets of them) and the upper bits of the rcode. */
static void put_opt(struct writer *w, const struct asked *q, unsigned rcode, const uint8_t *options,
		    size_t n)
{
	if (!q->edns)
		return;
	wr_u8(w, 0);
	wr_be16(w, WIRE_TYPE_OPT);
	wr_be16(w, REPLY_UDP_MAX);
	wr_u8(w, (uint8_t)(rcode >> 4));
	wr_u8(w, 0);
	wr_be16(w, q->dnssec_ok ? DNSSEC_OK : 0);
	wr_be16(w, (uint16_t)n);
	if (n > 0)
		wr_bytes(w, options, n);
}

static void put_opt_ede(struct writer *w, const struct asked *q, unsigned rcode,
			const struct answer *a)
{
	uint8_t content[ANSWER_EDE_SIZE], option[4 + ANSWER_EDE_SIZE];
	struct writer o = wr_init(option, sizeof(option));
	if (a && q->edns) {
		size_t n = answer_ede(content, a);
		wr_be16(&o, OPTION_EDE);
		wr_be16(&o, (uint16_t)n);
		wr_bytes(&o, content, n);
	}
	put_opt(w, q, rcode, option, o.len);
}

/* Flags of an answer of our own: what the client set stays. */
static unsigned own_flags(const struct asked *q, unsigned rcode)
{
	return WIRE_QR | (q->flags & (WIRE_RD | WIRE_CD)) | WIRE_RA | (rcode & WIRE_RCODE);
}

/* ---- without an upstream ---- */

size_t reply_error(uint8_t buf[REPLY_ERROR_SIZE], const uint8_t head[4], int rcode)
{
	unsigned flags = (unsigned)head[2] << 8 | head[3];
	struct writer w = wr_init(buf, REPLY_ERROR_SIZE);
	put_head(&w, (uint16_t)(head[0] << 8 | head[1]),
		 WIRE_QR | (flags & (WIRE_OPCODE | WIRE_RD | WIRE_CD)) | (unsigned)rcode,
		 (uint16_t[4]){ 0 });
	return w.len;
}

size_t reply_rcode(uint8_t *buf, size_t cap, const struct asked *q, int rcode,
		   const struct answer *ede)
{
	struct writer w = wr_init(buf, cap);
	put_head(&w, q->id, own_flags(q, (unsigned)rcode), (uint16_t[4]){ 1, 0, 0, q->edns });
	put_question(&w, q);
	put_opt_ede(&w, q, (unsigned)rcode, ede);
	return w.bad ? 0 : w.len;
}

/*
 * The SOA of an NXDOMAIN belongs to the name above: a zone of that very name would contradict it. A
 * NODATA's belongs to the name itself.
 */
static void put_record(struct writer *w, const struct asked *q, const struct answer *a)
{
	uint8_t data[ANSWER_RDATA_SIZE];
	bool hinfo = a->form == ANSWER_HINFO;
	size_t n = hinfo ? answer_hinfo(data) : answer_soa(data, a->ttl_s);
	size_t skip = a->form == ANSWER_NXDOMAIN && q->qname_len > 1 ? 1u + q->qname[0] : 0;
	wr_be16(w, (uint16_t)(POINTER | (WIRE_HEAD + skip)));
	wr_be16(w, hinfo ? WIRE_TYPE_HINFO : WIRE_TYPE_SOA);
	wr_be16(w, WIRE_CLASS_IN);
	wr_be32(w, a->ttl_s);
	wr_be16(w, (uint16_t)n);
	wr_bytes(w, data, n);
}

size_t reply_refusal(uint8_t *buf, size_t cap, const struct asked *q, const struct answer *a)
{
	struct writer w = wr_init(buf, cap);
	bool hinfo = a->form == ANSWER_HINFO;
	if (a->form == ANSWER_REFUSED)
		return reply_rcode(buf, cap, q, RCODE_REFUSED, a);
	if (a->form == ANSWER_SERVFAIL)
		return reply_rcode(buf, cap, q, RCODE_SERVFAIL, a);
	put_head(&w, q->id,
		 own_flags(q, a->form == ANSWER_NXDOMAIN ? RCODE_NXDOMAIN : RCODE_NOERROR),
		 (uint16_t[4]){ 1, hinfo, !hinfo, q->edns });
	put_question(&w, q);
	put_record(&w, q, a);
	put_opt_ede(&w, q, 0, a);
	return w.bad ? 0 : w.len;
}

size_t reply_truncated(uint8_t *buf, size_t cap, const struct asked *q, uint16_t flags)
{
	struct writer w = wr_init(buf, cap);
	put_head(&w, q->id, own_flags(q, flags & WIRE_RCODE) | WIRE_TC,
		 (uint16_t[4]){ 1, 0, 0, q->edns });
	put_question(&w, q);
	put_opt(&w, q, 0, NULL, 0);
	return w.bad ? 0 : w.len;
}

/* ---- an upstream's answer ---- */

enum { MAX_KNOWN = 32 };

/* What became of a record. */
struct shown {
	uint64_t owner; /* its hash */
	uint32_t out;   /* where the data to send stands in the arena */
	uint16_t out_n;
	uint8_t fate;
};

struct reply_room {
	struct wire_answer m;
	struct wire_record records[WIRE_MAX_RECORDS];
	struct shown shown[WIRE_MAX_RECORDS];
	size_t used; /* octets of the arena */
	/* data that is not sent as it stands in the message; a shortened record is never longer */
	uint8_t arena[WIRE_MAX];
	uint8_t data[2 * WIRE_MAX]; /* of the record that is shown, names uncompressed */
};

struct reply_room *reply_room_new(void)
{
	return malloc(sizeof(struct reply_room));
}

void reply_room_free(struct reply_room *r)
{
	free(r);
}

bool reply_read(struct reply_room *r, const uint8_t *p, size_t n)
{
	r->m.records = r->records;
	r->used = 0;
	return wire_answer_read(&r->m, p, n);
}

/* One owner after the other: the sets of an answer, and their signatures, stand together. */
static bool show_owner(struct reply_room *r, struct gate *g, unsigned i, uint64_t *hash)
{
	const struct wire_record *rr = &r->records[i];
	uint8_t owner[WIRE_NAME];
	size_t n = wire_name(r->m.p, r->m.n, rr->owner, owner);
	if (n == 0)
		return false;
	*hash = wire_name_hash(owner, n);
	gate_owner(g, (enum gate_section)rr->section, owner, n, rr->ttl_s);
	return true;
}

static bool show_record(struct reply_room *r, struct gate *g, unsigned i)
{
	const struct wire_record *rr = &r->records[i];
	struct shown *s = &r->shown[i];
	size_t out_n = 0;
	if (!show_owner(r, g, i, &s->owner))
		return false;
	long n = wire_data(&r->m, rr, r->data, sizeof(r->data));
	if (n < 0 || n > WIRE_MAX)
		return false;
	/* the room for what it may become is there: no record grows, and all of them fitted once */
	uint8_t *room = r->arena + r->used;
	bool fits = (size_t)n <= sizeof(r->arena) - r->used;
	s->fate = (uint8_t)gate_record(g, (enum gate_section)rr->section, rr->type, r->data,
				       (size_t)n, fits ? room : NULL, &out_n);
	if (s->fate != GATE_CHANGED)
		return true;
	if (!fits)
		return false;
	s->out = (uint32_t)r->used;
	s->out_n = (uint16_t)out_n;
	r->used += out_n;
	return true;
}

bool reply_show(struct reply_room *r, struct gate *g)
{
	for (unsigned i = 0; i < r->m.n_records; i++)
		if (!show_record(r, g, i))
			return false;
	return true;
}

/* ---- written anew ---- */

/* A message on its way, and names in it that further ones may point to. */
struct packer {
	struct writer w;
	struct reply_room *r;
	const struct asked *q;
	unsigned n_known;
	struct {
		uint64_t hash;
		uint16_t at;
	} known[MAX_KNOWN];
	uint16_t counts[4];
};

static void learn(struct packer *p, size_t at, uint64_t hash)
{
	if (at >= 0x4000 || p->n_known == MAX_KNOWN)
		return;
	p->known[p->n_known].hash = hash;
	p->known[p->n_known++].at = (uint16_t)at;
}

/* Where the name stands already, or 0. */
static size_t find_name(struct packer *p, const uint8_t *name, size_t n, uint64_t hash)
{
	uint8_t there[WIRE_NAME];
	for (unsigned i = 0; i < p->n_known; i++) {
		if (p->known[i].hash != hash)
			continue;
		size_t len = wire_name(p->w.p, p->w.len, p->known[i].at, there);
		if (len > 0 && wire_name_equal(there, len, name, n))
			return p->known[i].at;
	}
	return 0;
}

/* Where in the question the name stands, if it is an ancestor of what was asked for, or 0. */
static size_t find_in_question(const struct packer *p, const uint8_t *name, size_t n)
{
	const struct asked *q = p->q;
	size_t at = 0;
	while (q->qname_len - at > n && q->qname[at] != 0)
		at += 1u + q->qname[at];
	if (n < 2 || !wire_name_equal(q->qname + at, q->qname_len - at, name, n))
		return 0;
	return WIRE_HEAD + at;
}

static void put_owner(struct packer *p, uint32_t owner)
{
	uint8_t name[WIRE_NAME];
	size_t n = wire_name(p->r->m.p, p->r->m.n, owner, name);
	uint64_t hash = wire_name_hash(name, n);
	size_t at = find_in_question(p, name, n);
	if (at == 0 && n > 1)
		at = find_name(p, name, n, hash);
	if (at > 0) {
		wr_be16(&p->w, (uint16_t)(POINTER | at));
		return;
	}
	learn(p, p->w.len, hash);
	wr_bytes(&p->w, name, n);
}

/* The data, uncompressed; the name that an alias leads to is likely the next owner. */
static void put_data(struct packer *p, unsigned i)
{
	struct reply_room *r = p->r;
	const struct wire_record *rr = &r->records[i];
	const uint8_t *data = r->data;
	long n;
	if (r->shown[i].fate == GATE_CHANGED) {
		data = r->arena + r->shown[i].out;
		n = r->shown[i].out_n;
	} else {
		n = wire_data(&r->m, rr, r->data, WIRE_MAX);
	}
	if (n < 0) {
		p->w.bad = true;
		return;
	}
	wr_be16(&p->w, (uint16_t)n);
	if (rr->type == WIRE_TYPE_CNAME)
		learn(p, p->w.len, wire_name_hash(data, (size_t)n));
	wr_bytes(&p->w, data, (size_t)n);
}

/* Is it a signature over a set of which something was dropped or changed? */
static bool covers_change(const struct reply_room *r, unsigned i)
{
	const struct wire_record *rr = &r->records[i];
	if (rr->type != WIRE_TYPE_RRSIG || rr->n < 2)
		return false;
	unsigned covered = (unsigned)r->m.p[rr->data] << 8 | r->m.p[rr->data + 1];
	for (unsigned k = 0; k < r->m.n_records; k++)
		if (r->shown[k].fate != GATE_KEEP && r->records[k].type == covered &&
		    r->records[k].section == rr->section && r->shown[k].owner == r->shown[i].owner)
			return true;
	return false;
}

static void put_kept(struct packer *p, unsigned i)
{
	const struct wire_record *rr = &p->r->records[i];
	if (p->r->shown[i].fate == GATE_DROP || covers_change(p->r, i))
		return;
	put_owner(p, rr->owner);
	wr_be16(&p->w, rr->type);
	wr_be16(&p->w, rr->class);
	wr_be32(&p->w, rr->ttl_s);
	put_data(p, i);
	p->counts[1 + rr->section]++;
}

/* Upstream's reasons for a failure; of its other options none. Returns their octets. */
static size_t take_reasons(const struct wire_answer *m, uint8_t out[MAX_REASONS])
{
	struct writer w = wr_init(out, MAX_REASONS);
	struct reader r = rd_init(m->p + m->opt.options, m->opt.n_options);
	while (m->opt.present && r.left > 0 && !r.bad) {
		uint16_t code = rd_be16(&r), n = rd_be16(&r);
		const uint8_t *data = rd_take(&r, n);
		if (!data || code != OPTION_EDE || n + 4u > w.cap - w.len)
			continue;
		wr_be16(&w, code);
		wr_be16(&w, n);
		wr_bytes(&w, data, n);
	}
	return w.len;
}

/* What upstream said, but for whom it was said to; what was altered is not authenticated. */
static unsigned passed_flags(const struct reply_room *r, const struct asked *q, bool changed)
{
	unsigned keep = WIRE_AA | WIRE_RA | WIRE_RCODE | (changed ? 0 : WIRE_AD);
	return WIRE_QR | (r->m.flags & keep) | (q->flags & (WIRE_RD | WIRE_CD));
}

static void pack_anew(struct packer *p, const struct gate *g)
{
	put_head(&p->w, p->q->id, passed_flags(p->r, p->q, g->changed), p->counts);
	put_question(&p->w, p->q);
	learn(p, WIRE_HEAD, wire_name_hash(p->q->qname, p->q->qname_len));
	for (unsigned i = 0; i < p->r->m.n_records && !p->w.bad; i++)
		put_kept(p, i);
}

/* All but upstream's OPT, as it came; pointers stay right, since the question keeps its length. */
static void pack_same(struct packer *p)
{
	const struct wire_answer *m = &p->r->m;
	put_head(&p->w, p->q->id, passed_flags(p->r, p->q, false), p->counts);
	put_question(&p->w, p->q);
	for (unsigned i = 0; i < m->n_records; i++)
		p->counts[1 + p->r->records[i].section]++;
	wr_bytes(&p->w, m->p + p->w.len, m->opt_at - p->w.len);
}

size_t reply_pass(struct reply_room *r, const struct gate *g, const struct asked *q, uint8_t *buf,
		  size_t cap)
{
	struct packer p = { .w = wr_init(buf, cap < q->limit ? cap : q->limit),
			    .r = r,
			    .q = q,
			    .counts = { 1, 0, 0, 0 } };
	uint8_t reasons[MAX_REASONS];
	size_t n = take_reasons(&r->m, reasons);
	bool same = !g->changed && (!r->m.opt.present || r->m.opt_last) &&
		    r->m.question_end == WIRE_HEAD + q->qname_len + 4u;
	if (same)
		pack_same(&p);
	else
		pack_anew(&p, g);
	struct writer before = p.w;
	put_opt(&p.w, q, 0, reasons, n);
	if (p.w.bad && !before.bad) { /* the reasons are the first to go */
		p.w = before;
		put_opt(&p.w, q, 0, NULL, 0);
	}
	if (p.w.bad)
		return reply_truncated(buf, cap, q, r->m.flags);
	p.counts[3] = (uint16_t)(p.counts[3] + q->edns);
	for (unsigned i = 0; i < 4; i++) {
		buf[4 + 2 * i] = (uint8_t)(p.counts[i] >> 8);
		buf[5 + 2 * i] = (uint8_t)p.counts[i];
	}
	return p.w.len;
}
