/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages: what is taken for a question and what is answered to anything else; names and their
 * pointers; data with names in it; and what a client gets of an upstream's answer.
 */
#include "tests/unit/fixture.h"

#include <unistd.h>

#include "shared/base/bytes.h"
#include "shared/dns/reply.h"

enum { A = 1, NS = 2, CNAME = 5, MX = 15, OPT = 41, RRSIG = 46, HTTPS = 65 };

static char dir[] = "/tmp/cx-wire.XXXXXX", path[64];
static struct decider *decider;
static struct decide_thread *thread;
static struct reply_room *room;

static int setup(void **state)
{
	struct bytes d = fixture('d');
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	write_bytes(path, d.p, d.n);
	free(d.p);
	struct decider_options o = { .component = "test",
				     .policy_path = path,
				     .features = UINT64_MAX };
	decider = decider_start(&o);
	thread = decider ? decide_thread_new(decider) : NULL;
	room = reply_room_new();
	return thread && room ? 0 : -1;
}

static int teardown(void **state)
{
	reply_room_free(room);
	decide_thread_free(thread);
	decider_stop(decider);
	unlink(path);
	return rmdir(dir);
}

/* ---- writing messages ---- */

struct message {
	uint8_t p[WIRE_MAX];
	struct writer w;
};

static void begin(struct message *m, unsigned flags, unsigned qd, unsigned an, unsigned ns,
		  unsigned ar)
{
	m->w = wr_init(m->p, sizeof(m->p));
	wr_be16(&m->w, 0x1234);
	wr_be16(&m->w, (uint16_t)flags);
	wr_be16(&m->w, (uint16_t)qd);
	wr_be16(&m->w, (uint16_t)an);
	wr_be16(&m->w, (uint16_t)ns);
	wr_be16(&m->w, (uint16_t)ar);
}

/* wire: a name as it is to stand there, with its root or a pointer. */
static void put(struct message *m, const char *wire, size_t n)
{
	wr_bytes(&m->w, wire, n);
}

static void question(struct message *m, unsigned type)
{
	put(m, "\1A\7Example\3com", 15);
	wr_be16(&m->w, (uint16_t)type);
	wr_be16(&m->w, 1);
}

static void record(struct message *m, const char *owner, size_t owner_n, unsigned type,
		   const char *data, size_t n)
{
	put(m, owner, owner_n);
	wr_be16(&m->w, (uint16_t)type);
	wr_be16(&m->w, 1);
	wr_be32(&m->w, 300);
	wr_be16(&m->w, (uint16_t)n);
	put(m, data, n);
}

static void opt(struct message *m, unsigned size, unsigned version, bool dnssec,
		const char *options, size_t n)
{
	put(m, "", 1);
	wr_be16(&m->w, OPT);
	wr_be16(&m->w, (uint16_t)size);
	wr_be16(&m->w, (uint16_t)version);
	wr_be16(&m->w, dnssec ? 0x8000 : 0);
	wr_be16(&m->w, (uint16_t)n);
	put(m, options, n);
}

/* ---- questions ---- */

static int read_query(struct message *m, struct wire_query *q)
{
	int rcode = -2;
	assert_false(m->w.bad);
	bool ok = wire_query_read(q, m->p, m->w.len, &rcode);
	return ok ? rcode + 100 : rcode;
}

static void questions(void **state)
{
	static struct message m;
	struct wire_query q;
	begin(&m, WIRE_RD | WIRE_CD, 1, 0, 0, 1);
	question(&m, A);
	opt(&m, 4096, 0, true, "\0\12\0\2xx", 6);
	assert_int_equal(read_query(&m, &q), 100);
	assert_int_equal(q.id, 0x1234);
	assert_int_equal(q.qname_len, 15);
	assert_memory_equal(q.qname, "\1A\7Example\3com", 15);
	assert_true(q.opt.present && q.opt.dnssec_ok && q.opt.udp_size == 4096);
	begin(&m, WIRE_RD, 1, 0, 0, 0);
	question(&m, 255);
	assert_int_equal(read_query(&m, &q), 100);
	assert_false(q.opt.present);
}

/* A question that can be given back, but not answered. */
static void refused_questions(void **state)
{
	static struct message m;
	static const struct {
		unsigned type;
		int rcode;
	} t[] = { { 0, RCODE_FORMERR },   { OPT, RCODE_FORMERR },  { 250, RCODE_FORMERR },
		  { 249, RCODE_FORMERR }, { 252, RCODE_REFUSED },  { 251, RCODE_REFUSED },
		  { 253, RCODE_FORMERR }, { 255, RCODE_NOERROR },  { 256, RCODE_NOERROR },
		  { 65, RCODE_NOERROR },  { 65535, RCODE_NOERROR } };
	struct wire_query q;
	for (size_t i = 0; i < COUNT(t); i++) {
		begin(&m, WIRE_RD, 1, 0, 0, 0);
		question(&m, t[i].type);
		assert_int_equal(read_query(&m, &q), 100 + t[i].rcode);
	}
	begin(&m, WIRE_RD, 1, 0, 0, 1);
	question(&m, A);
	opt(&m, 512, 1, false, "", 0);
	assert_int_equal(read_query(&m, &q), 100 + RCODE_BADVERS);
}

/* Never an answer to an answer, nor to what is no message. */
static void not_questions(void **state)
{
	static struct message m;
	struct wire_query q;
	begin(&m, WIRE_QR | WIRE_RD, 1, 0, 0, 0);
	question(&m, A);
	assert_int_equal(read_query(&m, &q), -1);
	for (size_t n = 0; n < WIRE_HEAD; n++) {
		begin(&m, WIRE_RD, 1, 0, 0, 0);
		m.w.len = n;
		assert_int_equal(read_query(&m, &q), -1);
	}
	for (unsigned opcode = 1; opcode < 16; opcode++) {
		begin(&m, opcode << 11, 1, 0, 0, 0);
		question(&m, A);
		assert_int_equal(read_query(&m, &q), RCODE_NOTIMP);
	}
}

static void malformed_questions(void **state)
{
	static struct message m;
	struct wire_query q;
	for (unsigned qd = 0; qd < 4; qd += qd == 0 ? 2 : 1) {
		begin(&m, WIRE_RD, qd, 0, 0, 0);
		for (unsigned i = 0; i < qd; i++)
			question(&m, A);
		assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	}
	begin(&m, WIRE_RD, 1, 0, 0, 0);
	question(&m, A);
	put(&m, "", 1); /* behind it */
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	for (size_t n = WIRE_HEAD; n < WIRE_HEAD + 19; n++) { /* cut anywhere */
		m.w.len = n;
		assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	}
	begin(&m, WIRE_RD | WIRE_TC, 1, 0, 0, 0);
	question(&m, A);
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	begin(&m, WIRE_RD, 1, 1, 0, 0);
	question(&m, A);
	record(&m, "\300\14", 2, A, "\1\2\3\4", 4);
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	begin(&m, WIRE_RD, 1, 0, 0, 0);
	put(&m, "\300\14\0\1\0\1", 6); /* a name that points to itself */
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	begin(&m, WIRE_RD, 1, 0, 0, 2);
	question(&m, A);
	opt(&m, 512, 0, false, "", 0);
	opt(&m, 512, 0, false, "", 0);
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
	begin(&m, WIRE_RD, 1, 0, 0, 1);
	question(&m, A);
	opt(&m, 512, 0, false, "\0\12\0\3xx", 6); /* an option longer than all of them */
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
}

/* 255 octets are a name, 256 are none; 63 are a label, 64 are none. */
static void long_names(void **state)
{
	static struct message m;
	struct wire_query q;
	char label[64];
	memset(label, 'x', sizeof(label));
	for (unsigned last = 60; last < 63; last++) {
		begin(&m, WIRE_RD, 1, 0, 0, 0);
		for (unsigned i = 0; i < 4; i++) {
			label[0] = (char)(i < 3 ? 63 : last);
			put(&m, label, 1u + (uint8_t)label[0]);
		}
		put(&m, "\0\0\1\0\1", 5);
		assert_int_equal(read_query(&m, &q), last < 62 ? 100 : RCODE_FORMERR);
	}
	begin(&m, WIRE_RD, 1, 0, 0, 0);
	put(&m, "\100", 1);
	put(&m, label, 64);
	put(&m, "\0\0\1\0\1", 5);
	assert_int_equal(read_query(&m, &q), RCODE_FORMERR);
}

/* ---- names ---- */

static void pointers(void **state)
{
	static struct message m;
	uint8_t name[WIRE_NAME];
	begin(&m, WIRE_QR, 1, 0, 0, 0);
	question(&m, A);
	size_t first = m.w.len;
	put(&m, "\1b\300\16", 4);
	size_t second = m.w.len;
	put(&m, "\1c", 2);
	wr_be16(&m.w, (uint16_t)(0xc000 | first));
	assert_int_equal(wire_name(m.p, m.w.len, second, name), 17);
	assert_memory_equal(name, "\1c\1b\7Example\3com", 17);
	static const char *const bad[] = { "\300\43", "\300\77",    "\300\0",
					   "\200\14", "\1x\300\43", "\377\377" };
	for (size_t i = 0; i < COUNT(bad); i++) {
		m.w.len = second;
		put(&m, bad[i], strlen(bad[i]) + (bad[i][1] == 0));
		assert_int_equal(wire_name(m.p, m.w.len, second, name), 0);
	}
	/* back to a piece that runs into the one that points there */
	m.w.len = second;
	put(&m, "\1d\1e", 4);
	wr_be16(&m.w, (uint16_t)(0xc000 | second));
	assert_int_equal(wire_name(m.p, m.w.len, second + 2, name), 0);
	assert_int_equal(wire_name(m.p, m.w.len, m.w.len, name), 0);
}

/* A chain of pointers, each one step back: read to its end, or refused when the name is too long. */
static void pointer_chains(void **state)
{
	static struct message m;
	uint8_t name[WIRE_NAME];
	begin(&m, WIRE_QR, 1, 0, 0, 0);
	put(&m, "", 1);
	size_t before = WIRE_HEAD;
	for (unsigned i = 1; i < 4000; i++) {
		size_t at = m.w.len;
		put(&m, "\1x", 2);
		wr_be16(&m.w, (uint16_t)(0xc000 | before));
		assert_int_equal(wire_name(m.p, m.w.len, at, name), i <= 127 ? 2 * i + 1 : 0);
		before = at;
	}
}

/* ---- data ---- */

static void data_of_types(void **state)
{
	static struct message m;
	static struct wire_record records[WIRE_MAX_RECORDS];
	struct wire_answer a = { .records = records };
	uint8_t out[128];
	begin(&m, WIRE_QR, 1, 6, 0, 0);
	question(&m, A);
	record(&m, "\300\14", 2, MX, "\0\5\1m\300\16", 6);
	record(&m, "\300\14", 2, MX, "\0\5\1m\300\16x", 7); /* more behind it */
	record(&m, "\300\14", 2, MX, "\0\5\1m\300", 5);     /* half a pointer */
	record(&m, "\300\14", 2, A, "\1\2\3\4", 4);
	record(&m, "\300\14", 2, 65280, "\300\14", 2); /* unknown: as it stands */
	record(&m, "\300\14", 2, RRSIG, "\0\1\15\3\0\0\1\54\0\0\0\0\0\0\0\0\0\1\300\16sig", 23);
	assert_true(wire_answer_read(&a, m.p, m.w.len));
	assert_int_equal(wire_data(&a, &records[0], out, sizeof(out)), 17);
	assert_memory_equal(out, "\0\5\1m\7Example\3com", 17);
	assert_int_equal(wire_data(&a, &records[0], out, 16), -1);
	assert_int_equal(wire_data(&a, &records[1], out, sizeof(out)), -1);
	assert_int_equal(wire_data(&a, &records[2], out, sizeof(out)), -1);
	assert_int_equal(wire_data(&a, &records[3], out, sizeof(out)), 4);
	assert_int_equal(wire_data(&a, &records[4], out, sizeof(out)), 2);
	assert_int_equal(wire_data(&a, &records[5], out, sizeof(out)), 18 + 13 + 3);
}

/* ---- whose answer it is ---- */

static void answers_to(void **state)
{
	static struct message m;
	const uint8_t *name = (const uint8_t *)"\1a\7example\3com";
	begin(&m, WIRE_QR, 1, 0, 0, 0);
	question(&m, A);
	assert_true(wire_is_answer(m.p, m.w.len, 0x1234, name, 15, A));
	assert_false(wire_is_answer(m.p, m.w.len, 0x1235, name, 15, A));
	assert_false(wire_is_answer(m.p, m.w.len, 0x1234, name, 15, NS));
	assert_false(wire_is_answer(m.p, m.w.len, 0x1234, name + 2, 13, A));
	for (size_t n = 0; n < m.w.len; n++)
		assert_false(wire_is_answer(m.p, n, 0x1234, name, 15, A));
	m.p[m.w.len - 1] = 3; /* class CH */
	assert_false(wire_is_answer(m.p, m.w.len, 0x1234, name, 15, A));
	begin(&m, WIRE_RD, 1, 0, 0, 0);
	question(&m, A);
	assert_false(wire_is_answer(m.p, m.w.len, 0x1234, name, 15, A));
}

/* ---- what the client gets ---- */

struct reply {
	uint8_t p[WIRE_MAX];
	size_t n;
	bool passes, whole;
	struct wire_answer a;
	struct wire_record records[WIRE_MAX_RECORDS];
};

static struct asked asked_for(unsigned type, bool edns, unsigned limit)
{
	struct asked a = { .id = 7,
			   .flags = WIRE_RD,
			   .qtype = (uint16_t)type,
			   .qclass = 1,
			   .edns = edns,
			   .limit = (uint16_t)limit,
			   .qname_len = 15 };
	memcpy(a.qname, "\1A\7exAmple\3com", 15);
	return a;
}

/* The answer m to the client 10.9.0.1 (profile plain), who asked for a.example.com. */
static void pass(struct reply *r, struct message *m, const struct asked *a)
{
	struct name n = name_of("a.example.com");
	struct question q = question_about(LAYER_DNS, "10.9.0.1", &n, 0);
	struct decision d;
	struct gate g;
	q.qtype = a->qtype;
	assert_true(reply_read(room, m->p, m->w.len));
	assert_true(gate_open(&g, thread, &q, decide_now(), &d));
	r->whole = reply_show(room, &g);
	r->passes = gate_close(&g);
	r->n = r->whole && r->passes ? reply_pass(room, &g, a, r->p, sizeof(r->p)) : 0;
	if (r->n == 0)
		return;
	r->a.records = r->records;
	assert_true(wire_answer_read(&r->a, r->p, r->n));
	assert_int_equal(r->a.id, a->id);
	assert_memory_equal(r->p + WIRE_HEAD, a->qname, a->qname_len);
	assert_int_equal(r->a.opt.present, a->edns);
}

static void unchanged_answer(void **state)
{
	static struct message m;
	static struct reply r;
	struct asked a = asked_for(A, true, REPLY_UDP_MAX);
	begin(&m, WIRE_QR | WIRE_RA | WIRE_AD, 1, 2, 0, 1);
	question(&m, A);
	record(&m, "\300\14", 2, CNAME, "\1b\300\16", 4);
	record(&m, "\300\53", 2, A, "\306\63\144\1", 4);
	opt(&m, 1232, 0, false, "\0\12\0\2xx\0\17\0\3\0\6y", 13);
	pass(&r, &m, &a);
	assert_int_equal(r.a.n_records, 2);
	assert_true(r.a.flags & WIRE_AD);
	/* of upstream's options the reason alone is left */
	assert_int_equal(r.a.opt.n_options, 7);
	assert_memory_equal(r.p + r.a.opt.options, "\0\17\0\3\0\6y", 7);
	a.edns = false;
	pass(&r, &m, &a);
	assert_int_equal(r.n, m.w.len - 11 - 13);
}

static void changed_answer(void **state)
{
	static struct message m;
	static struct reply r;
	struct asked a = asked_for(A, true, REPLY_UDP_MAX);
	uint8_t name[WIRE_NAME];
	begin(&m, WIRE_QR | WIRE_RA | WIRE_AD, 1, 5, 1, 1);
	question(&m, A);
	record(&m, "\300\14", 2, CNAME, "\1b\300\16", 4);
	record(&m, "\300\53", 2, A, "\306\63\144\1", 4);
	record(&m, "\300\53", 2, A, "\12\0\0\1", 4);
	record(&m, "\300\53", 2, RRSIG, "\0\1\15\3\0\0\1\54\0\0\0\0\0\0\0\0\0\1\0sig", 22);
	record(&m, "\300\14", 2, RRSIG, "\0\5\15\3\0\0\1\54\0\0\0\0\0\0\0\0\0\1\0sig", 22);
	record(&m, "\300\16", 2, NS, "\2ns\300\16", 5);
	record(&m, "\2ns\300\16", 5, A, "\177\0\0\1", 4);
	pass(&r, &m, &a);
	/* the private address is gone with the signature over its set; that of the alias is there */
	assert_int_equal(r.a.n_records, 4);
	assert_false(r.a.flags & WIRE_AD);
	assert_int_equal(r.records[0].type, CNAME);
	assert_int_equal(r.records[1].type, A);
	assert_int_equal(r.records[2].type, RRSIG);
	assert_int_equal(r.records[3].type, NS);
	assert_int_equal(wire_name(r.p, r.n, r.records[1].owner, name), 15);
	assert_memory_equal(name, "\1b\7Example\3com", 15);
	assert_int_equal(wire_name(r.p, r.n, r.records[3].owner, name), 13);
}

static void refused_answer(void **state)
{
	static struct message m;
	static struct reply r;
	struct asked a = asked_for(A, true, REPLY_UDP_MAX);
	begin(&m, WIRE_QR | WIRE_RA, 1, 1, 0, 0);
	question(&m, A);
	record(&m, "\300\14", 2, A, "\12\0\0\1", 4);
	pass(&r, &m, &a);
	assert_true(r.whole && !r.passes);
	begin(&m, WIRE_QR | WIRE_RA, 1, 1, 0, 0);
	question(&m, A);
	record(&m, "\300\14", 2, CNAME, "\1x\300\53", 4); /* into itself */
	pass(&r, &m, &a);
	assert_false(r.whole);
}

/* What does not fit is cut to nothing, whole records being no use. */
static void truncated_answer(void **state)
{
	static struct message m;
	static struct reply r;
	struct asked a = asked_for(A, true, REPLY_UDP_MIN);
	begin(&m, WIRE_QR | WIRE_RA, 1, 100, 0, 0);
	question(&m, A);
	for (unsigned i = 0; i < 100; i++) {
		char data[4] = { (char)198, 51, 100, (char)(i + 1) };
		record(&m, "\300\14", 2, A, data, 4);
	}
	pass(&r, &m, &a);
	assert_true(r.a.flags & WIRE_TC);
	assert_int_equal(r.a.n_records, 0);
	a.limit = WIRE_MAX;
	pass(&r, &m, &a);
	assert_false(r.a.flags & WIRE_TC);
	assert_int_equal(r.a.n_records, 100);
}

static void refusals(void **state)
{
	static struct reply r;
	struct asked a = asked_for(A, true, REPLY_UDP_MAX);
	uint8_t name[WIRE_NAME];
	struct answer why = {
		.form = ANSWER_NXDOMAIN, .ede = 15, .text = "not-listed", .ttl_s = 9
	};
	r.a.records = r.records;
	r.n = reply_refusal(r.p, sizeof(r.p), &a, &why);
	assert_true(wire_answer_read(&r.a, r.p, r.n));
	assert_int_equal(r.a.flags, WIRE_QR | WIRE_RD | WIRE_RA | RCODE_NXDOMAIN);
	assert_int_equal(r.a.n_records, 1);
	assert_int_equal(r.records[0].ttl_s, 9);
	assert_int_equal(wire_name(r.p, r.n, r.records[0].owner, name), 13);
	assert_memory_equal(r.p + r.a.opt.options, "\0\17\0\14\0\17not-listed", 16);
	/* whatever room there is: whole, or nothing */
	for (size_t cap = 0; cap < r.n; cap++)
		assert_int_equal(reply_refusal(r.p, cap, &a, &why), 0);
	a.qname_len = 1;
	a.qname[0] = 0;
	r.n = reply_refusal(r.p, sizeof(r.p), &a, &why);
	assert_true(wire_answer_read(&r.a, r.p, r.n));
	assert_int_equal(wire_name(r.p, r.n, r.records[0].owner, name), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(questions),        cmocka_unit_test(refused_questions),
		cmocka_unit_test(not_questions),    cmocka_unit_test(malformed_questions),
		cmocka_unit_test(long_names),       cmocka_unit_test(pointers),
		cmocka_unit_test(pointer_chains),   cmocka_unit_test(data_of_types),
		cmocka_unit_test(answers_to),       cmocka_unit_test(unchanged_answer),
		cmocka_unit_test(changed_answer),   cmocka_unit_test(refused_answer),
		cmocka_unit_test(truncated_answer), cmocka_unit_test(refusals),
	};
	return cmocka_run_group_tests_name("wire", tests, setup, teardown);
}
