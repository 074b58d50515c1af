/* SPDX-License-Identifier: Apache-2.0 */
/* The SPOP state machine: handshakes, frames whole and in pieces, what must end a connection. */
#include "tests/unit/unit.h"

#include "spoa-agent/session.h"

/* The owner of a session: answers at once, or holds. */
static struct fixture {
	struct session s;
	struct session_hold holds[SESSION_MAX_HOLDS + 8];
	unsigned n_holds;
	unsigned notifies, refused, wakes;
	bool not_ready, hold;
} fx;

static bool op_ready(void *arg)
{
	return !fx.not_ready;
}

static void op_notify(void *arg, struct session *s, const struct spop_frame *f)
{
	assert_ptr_equal(s, &fx.s);
	fx.notifies++;
	if (fx.hold && fx.n_holds < COUNT(fx.holds) &&
	    session_hold_add(s, &fx.holds[fx.n_holds], f->stream, f->frame)) {
		fx.n_holds++;
		return;
	}
	fx.refused += fx.hold;
	session_ack(s, f->stream, f->frame, "\1\3\2\1x\0", 6);
}

static void op_wake(void *arg, struct session *s)
{
	fx.wakes++;
}

static const struct session_ops ops = { op_ready, op_notify, op_wake };

static int setup(void **state)
{
	memset(&fx, 0, sizeof(fx));
	session_init(&fx.s, &ops, NULL);
	return 0;
}

static int teardown(void **state)
{
	session_fini(&fx.s);
	return 0;
}

/* ---- what the peer says ---- */

static uint8_t buf[40000];
static struct writer w;

static struct spop_mark begin(enum spop_type type, uint64_t stream, uint64_t frame)
{
	w = wr_init(buf, sizeof(buf));
	return spop_begin(&w, type, stream, frame);
}

static void feed(const uint8_t *p, size_t n)
{
	while (n > 0) {
		size_t room;
		uint8_t *to = session_room(&fx.s, &room);
		if (room == 0)
			return;
		size_t k = n < room ? n : room;
		memcpy(to, p, k);
		session_input(&fx.s, k);
		p += k;
		n -= k;
	}
}

static void send_frame(struct spop_mark m)
{
	spop_end(&w, m);
	assert_false(w.bad);
	feed(buf, w.len);
}

struct hello_items {
	const char *versions, *capabilities;
	int64_t size; /* negative: left out */
	bool healthcheck;
};

static const struct hello_items good = { "2.0", "pipelining,async", 16380, false };

static void write_hello(const struct hello_items *h)
{
	if (h->versions)
		spop_put_kv_string(&w, "supported-versions", h->versions);
	if (h->size >= 0)
		spop_put_kv_u32(&w, "max-frame-size", (uint32_t)h->size);
	if (h->capabilities)
		spop_put_kv_string(&w, "capabilities", h->capabilities);
	if (h->healthcheck) {
		spop_put_string(&w, "healthcheck");
		wr_u8(&w, 0x11);
	}
	spop_put_kv_string(&w, "engine-id", "an id");
}

static void send_hello(const struct hello_items *h)
{
	struct spop_mark m = begin(SPOP_HAPROXY_HELLO, 0, 0);
	write_hello(h);
	send_frame(m);
}

static void send_notify(uint64_t stream, uint64_t frame)
{
	struct spop_mark m = begin(SPOP_NOTIFY, stream, frame);
	spop_put_string(&w, "m");
	wr_u8(&w, 0);
	send_frame(m);
}

/* ---- what it hears ---- */

/* Takes the next frame from the output; false if there is none. */
static bool next_frame(struct spop_frame *f)
{
	static uint8_t copy[4096];
	size_t n;
	const uint8_t *p = session_output(&fx.s, &n);
	if (n < 4)
		return false;
	struct reader r = rd_init(p, n);
	uint32_t len = rd_be32(&r);
	assert_true(len <= r.left && len <= sizeof(copy));
	memcpy(copy, r.p, len);
	session_sent(&fx.s, 4 + len);
	assert_true(spop_frame_read(f, copy, len));
	assert_int_equal(f->flags, SPOP_FIN);
	return true;
}

static void expect_disconnect(enum spop_code code)
{
	struct spop_frame f = { 0 };
	uint64_t u = 0;
	assert_true(next_frame(&f));
	assert_int_equal(f.type, SPOP_AGENT_DISCONNECT);
	assert_true(f.stream == 0 && f.frame == 0);
	assert_true(spop_is(spop_string(&f.payload), "status-code"));
	struct spop_value v = spop_value(&f.payload);
	assert_true(spop_as_uint(&v, 1000, &u));
	assert_int_equal(u, code);
	assert_int_equal(fx.s.state, SESSION_CLOSING);
	assert_true(session_finished(&fx.s));
	size_t room;
	session_room(&fx.s, &room);
	assert_int_equal(room, 0);
}

static void expect_hello(uint32_t size)
{
	struct spop_frame f = { 0 };
	struct spop_bytes s;
	uint64_t u;
	assert_true(next_frame(&f));
	assert_int_equal(f.type, SPOP_AGENT_HELLO);
	assert_true(f.stream == 0 && f.frame == 0);
	assert_true(spop_is(spop_string(&f.payload), "version"));
	struct spop_value v = spop_value(&f.payload);
	assert_true(spop_as_bytes(&v, &s) && spop_is(s, "2.0"));
	assert_true(spop_is(spop_string(&f.payload), "max-frame-size"));
	v = spop_value(&f.payload);
	assert_true(spop_as_uint(&v, UINT32_MAX, &u));
	assert_int_equal(u, size);
	assert_true(spop_is(spop_string(&f.payload), "capabilities"));
	v = spop_value(&f.payload);
	assert_true(spop_as_bytes(&v, &s) && spop_is(s, "pipelining"));
	assert_true(rd_done(&f.payload));
}

static void expect_ack(uint64_t stream, uint64_t frame)
{
	struct spop_frame f = { 0 };
	assert_true(next_frame(&f));
	assert_int_equal(f.type, SPOP_ACK);
	assert_true(f.stream == stream && f.frame == frame);
}

static void shake_hands(void)
{
	send_hello(&good);
	expect_hello(SPOP_MAX_FRAME);
	assert_int_equal(fx.s.state, SESSION_RUNNING);
}

/* ---- cases ---- */

static void hello(void **state)
{
	shake_hands();
	send_notify(7, 3);
	expect_ack(7, 3);
}

static void hello_of_each_haproxy(void **state)
{
	static const struct hello_items t[] = {
		{ "2.0", "pipelining,async", 16380, false }, /* 2.6, 3.0 */
		{ "2.0", "pipelining", 16380, false },       /* 3.2 */
		{ "1.0, 2.0", "", 256, false },
		{ " 2.5 ,1.0", "fragmentation", 1 << 20, false },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		teardown(NULL);
		setup(NULL);
		send_hello(&t[i]);
		expect_hello(t[i].size < SPOP_MAX_FRAME ? (uint32_t)t[i].size : SPOP_MAX_FRAME);
		assert_int_equal(fx.s.state, SESSION_RUNNING);
	}
}

static void hello_refused(void **state)
{
	static const struct {
		struct hello_items h;
		enum spop_code code;
	} t[] = {
		{ { NULL, "", 16380, false }, SPOP_NO_VERSION },
		{ { "1.0", "", 16380, false }, SPOP_BAD_VERSION },
		{ { "", "", 16380, false }, SPOP_BAD_VERSION },
		{ { "12.0", "", 16380, false }, SPOP_BAD_VERSION },
		{ { "2", "", 16380, false }, SPOP_BAD_VERSION },
		{ { "1.2.0", "", 16380, false }, SPOP_BAD_VERSION },
		{ { "2.0", "", -1, false }, SPOP_NO_FRAME_SIZE },
		{ { "2.0", "", 255, false }, SPOP_BAD_FRAME_SIZE },
		{ { "2.0", "", 0, false }, SPOP_BAD_FRAME_SIZE },
		{ { "2.0", NULL, 16380, false }, SPOP_NO_CAPABILITIES },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		teardown(NULL);
		setup(NULL);
		send_hello(&t[i].h);
		expect_disconnect(t[i].code);
	}
}

static void hello_of_wrong_types(void **state)
{
	struct spop_mark m = begin(SPOP_HAPROXY_HELLO, 0, 0);
	spop_put_kv_u32(&w, "supported-versions", 2);
	spop_put_kv_string(&w, "max-frame-size", "16380");
	spop_put_kv_u32(&w, "capabilities", 1);
	send_frame(m);
	expect_disconnect(SPOP_NO_VERSION);
}

static void health_checks(void **state)
{
	static const struct hello_items check = { "2.0", "", 16380, true };
	send_hello(&check);
	expect_hello(SPOP_MAX_FRAME);
	assert_true(session_finished(&fx.s));
	teardown(NULL);
	setup(NULL);
	fx.not_ready = true;
	send_hello(&check);
	expect_disconnect(SPOP_NOT_READY);
	teardown(NULL);
	setup(NULL);
	fx.not_ready = true; /* a real connection is taken: each question is denied on its own */
	send_hello(&good);
	expect_hello(SPOP_MAX_FRAME);
}

static void byte_by_byte(void **state)
{
	struct spop_mark m = begin(SPOP_HAPROXY_HELLO, 0, 0);
	write_hello(&good);
	spop_end(&w, m);
	m = spop_begin(&w, SPOP_NOTIFY, 1, 1);
	spop_put_string(&w, "m");
	wr_u8(&w, 0);
	spop_end(&w, m);
	for (size_t i = 0; i < w.len; i++)
		feed(buf + i, 1);
	expect_hello(SPOP_MAX_FRAME);
	expect_ack(1, 1);
	assert_int_equal(fx.s.in_len, 0);
}

static void many_in_one_piece(void **state)
{
	shake_hands();
	w = wr_init(buf, sizeof(buf));
	for (unsigned i = 0; i < 1000; i++) {
		struct spop_mark m = spop_begin(&w, SPOP_NOTIFY, i, 1);
		spop_put_string(&w, "m");
		wr_u8(&w, 0);
		spop_end(&w, m);
	}
	assert_false(w.bad);
	feed(buf, w.len);
	for (unsigned i = 0; i < 1000; i++)
		expect_ack(i, 1);
}

static void feed_length(uint32_t len)
{
	w = wr_init(buf, sizeof(buf));
	wr_be32(&w, len);
	feed(buf, w.len);
}

static void frame_sizes(void **state)
{
	static const uint32_t big[] = { SPOP_MAX_FRAME + 1, 1u << 31, UINT32_MAX };
	for (size_t i = 0; i < COUNT(big); i++) {
		teardown(NULL);
		setup(NULL);
		shake_hands();
		feed_length(big[i]);
		expect_disconnect(SPOP_TOO_BIG);
	}
	for (uint32_t n = 0; n < 7; n++) {
		teardown(NULL);
		setup(NULL);
		shake_hands();
		feed_length(n);
		feed((const uint8_t *)"\3\0\0\0\1\1\1", n);
		expect_disconnect(SPOP_INVALID);
	}
}

static void the_greatest_frame(void **state)
{
	static uint8_t zeros[SPOP_MAX_FRAME];
	shake_hands();
	struct spop_mark m = begin(SPOP_NOTIFY, 1, 1);
	wr_bytes(&w, zeros, SPOP_MAX_FRAME - 7);
	send_frame(m);
	expect_ack(1, 1);
}

/* What the peer offered as its greatest frame binds it too. */
static void a_small_peer(void **state)
{
	static const struct hello_items small = { "2.0", "", 256, false };
	static uint8_t zeros[512];
	send_hello(&small);
	expect_hello(256);
	struct spop_frame f = { 0 };
	session_ack(&fx.s, 9, 9, zeros, sizeof(zeros));
	assert_true(next_frame(&f));
	assert_true(f.stream == 9 && f.payload.left == 0); /* no verdict: refused */
	feed_length(257);
	expect_disconnect(SPOP_TOO_BIG);
}

static void feed_raw_frame(uint8_t type, uint32_t flags, uint64_t stream, uint64_t frame)
{
	w = wr_init(buf, sizeof(buf));
	wr_be32(&w, 7);
	wr_u8(&w, type);
	wr_be32(&w, flags);
	spop_put_varint(&w, stream);
	spop_put_varint(&w, frame);
	feed(buf, w.len);
}

static void wrong_frames(void **state)
{
	static const struct {
		uint8_t type;
		uint32_t flags;
		enum spop_code code;
	} t[] = {
		{ SPOP_NOTIFY, 0, SPOP_FRAGMENTED },
		{ SPOP_NOTIFY, SPOP_ABORT, SPOP_FRAGMENTED },
		{ SPOP_NOTIFY, SPOP_FIN | SPOP_ABORT, SPOP_INVALID },
		{ SPOP_NOTIFY, SPOP_FIN | 4, SPOP_INVALID },
		{ SPOP_NOTIFY, UINT32_MAX, SPOP_INVALID },
		{ SPOP_UNSET, SPOP_FIN, SPOP_FRAGMENTED },
		{ SPOP_UNSET, 0, SPOP_FRAGMENTED },
		{ SPOP_HAPROXY_HELLO, SPOP_FIN, SPOP_INVALID }, /* a second one */
		{ SPOP_AGENT_HELLO, SPOP_FIN, SPOP_INVALID },
		{ SPOP_AGENT_DISCONNECT, SPOP_FIN, SPOP_INVALID },
		{ SPOP_ACK, SPOP_FIN, SPOP_INVALID },
		{ SPOP_HAPROXY_DISCONNECT, SPOP_FIN, SPOP_NORMAL },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		teardown(NULL);
		setup(NULL);
		shake_hands();
		feed_raw_frame(t[i].type, t[i].flags, 1, 1);
		expect_disconnect(t[i].code);
		assert_int_equal(fx.notifies, 0);
	}
}

static void unknown_types_are_skipped(void **state)
{
	shake_hands();
	for (unsigned type = 4; type < 256; type++)
		if (type < SPOP_AGENT_HELLO || type > SPOP_ACK)
			feed_raw_frame((uint8_t)type, SPOP_FIN, 1, 1);
	assert_int_equal(fx.s.state, SESSION_RUNNING);
	send_notify(1, 1);
	expect_ack(1, 1);
}

static void before_the_hello(void **state)
{
	static const uint8_t types[] = { SPOP_NOTIFY, 4, 99, 255 };
	for (size_t i = 0; i < COUNT(types); i++) {
		teardown(NULL);
		setup(NULL);
		feed_raw_frame(types[i], SPOP_FIN, 1, 1);
		expect_disconnect(SPOP_INVALID);
		assert_int_equal(fx.notifies, 0);
	}
	teardown(NULL);
	setup(NULL);
	struct spop_mark m = begin(SPOP_HAPROXY_HELLO, 1, 0);
	write_hello(&good);
	send_frame(m);
	expect_disconnect(SPOP_INVALID);
}

static void endless_ids(void **state)
{
	static uint8_t ff[64];
	memset(ff, 0xff, sizeof(ff));
	shake_hands();
	feed_length(sizeof(ff));
	feed((const uint8_t *)"\3\0\0\0\1", 5);
	feed(ff, sizeof(ff) - 5);
	expect_disconnect(SPOP_INVALID);
}

/* Answers come in any order; each finds its place. */
static void holds(void **state)
{
	fx.hold = true;
	shake_hands();
	for (unsigned i = 0; i < 100; i++)
		send_notify(i, i % 3);
	assert_int_equal(fx.n_holds, 100);
	for (unsigned k = 0; k < 100; k++) {
		unsigned i = k * 37 % 100;
		session_hold_ack(&fx.holds[i], "", 0);
		expect_ack(i, i % 3);
	}
	assert_int_equal(fx.s.n_holds, 0);
	assert_int_equal(fx.wakes, 100);
}

static void duplicate_ids(void **state)
{
	fx.hold = true;
	shake_hands();
	send_notify(1, 1);
	send_notify(1, 2);
	send_notify(2, 1);
	assert_int_equal(fx.n_holds, 3);
	send_notify(1, 2);
	expect_disconnect(SPOP_INVALID);
	assert_int_equal(fx.notifies, 3);
	session_hold_ack(&fx.holds[0], "", 0); /* too late: no bytes */
	size_t n;
	session_output(&fx.s, &n);
	assert_int_equal(n, 0);
}

static void too_many_holds(void **state)
{
	fx.hold = true;
	shake_hands();
	for (unsigned i = 0; i < SESSION_MAX_HOLDS + 5; i++)
		send_notify(i, 1);
	assert_int_equal(fx.n_holds, SESSION_MAX_HOLDS);
	assert_int_equal(fx.refused, 5);
	for (unsigned i = 0; i < 5; i++)
		expect_ack(SESSION_MAX_HOLDS + i, 1);
}

static void dies_while_held(void **state)
{
	fx.hold = true;
	shake_hands();
	for (unsigned i = 0; i < 10; i++)
		send_notify(i, 1);
	session_fini(&fx.s);
	for (unsigned i = 0; i < 10; i++) {
		assert_null(fx.holds[i].session);
		session_hold_ack(&fx.holds[i], "x", 1);
		session_hold_remove(&fx.holds[i]);
	}
	assert_int_equal(fx.wakes, 0);
}

static void end_of_input(void **state)
{
	fx.hold = true;
	shake_hands();
	send_notify(1, 1);
	session_eof(&fx.s);
	assert_false(session_finished(&fx.s)); /* the other half may still listen */
	session_hold_ack(&fx.holds[0], "", 0);
	assert_false(session_finished(&fx.s));
	expect_ack(1, 1);
	assert_true(session_finished(&fx.s));
}

static void draining(void **state)
{
	fx.hold = true;
	shake_hands();
	send_notify(1, 1);
	session_drain(&fx.s);
	size_t n;
	session_output(&fx.s, &n);
	assert_int_equal(n, 0);
	send_notify(2, 1); /* still taken */
	session_hold_ack(&fx.holds[0], "", 0);
	expect_ack(1, 1);
	session_hold_ack(&fx.holds[1], "", 0);
	expect_ack(2, 1);
	expect_disconnect(SPOP_NORMAL);
}

/* A peer that does not read its answers is not read from; nothing is lost when it does again. */
static void back_pressure(void **state)
{
	shake_hands();
	unsigned sent = 0;
	size_t room, n;
	struct spop_mark m = begin(SPOP_NOTIFY, 1, 1);
	spop_put_string(&w, "m");
	wr_u8(&w, 0);
	spop_end(&w, m);
	for (;;) {
		uint8_t *to = session_room(&fx.s, &room);
		if (room < w.len)
			break;
		memcpy(to, buf, w.len);
		sent++;
		session_input(&fx.s, w.len);
	}
	session_output(&fx.s, &n);
	assert_in_range(n, SESSION_OUT_SOFT, SESSION_OUT_SOFT + SESSION_MAX_ACK);
	unsigned got = 0;
	for (struct spop_frame f = { 0 }; got < sent; got++) {
		if (!next_frame(&f)) {
			session_input(&fx.s, 0);
			assert_true(next_frame(&f));
		}
		assert_int_equal(f.type, SPOP_ACK);
	}
	assert_int_equal(fx.notifies, sent);
}

/* Random bytes, and mutations of good ones, at worst end the connection. */
static void garbage(void **state)
{
	uint64_t seed = 7;
	for (unsigned i = 0; i < 3000; i++) {
		teardown(NULL);
		setup(NULL);
		fx.hold = i % 2;
		if (i % 3)
			shake_hands();
		struct spop_mark m = begin(SPOP_NOTIFY, i, 1);
		write_hello(&good);
		spop_end(&w, m);
		size_t n = w.len;
		for (unsigned k = 0; k < 8; k++)
			buf[next_random(&seed) % n] = (uint8_t)next_random(&seed);
		feed(buf, n);
		feed(buf, n);
		session_eof(&fx.s);
	}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(hello),
		CASE(hello_of_each_haproxy),
		CASE(hello_refused),
		CASE(hello_of_wrong_types),
		CASE(health_checks),
		CASE(byte_by_byte),
		CASE(many_in_one_piece),
		CASE(frame_sizes),
		CASE(the_greatest_frame),
		CASE(a_small_peer),
		CASE(wrong_frames),
		CASE(unknown_types_are_skipped),
		CASE(before_the_hello),
		CASE(endless_ids),
		CASE(holds),
		CASE(duplicate_ids),
		CASE(too_many_holds),
		CASE(dies_while_held),
		CASE(end_of_input),
		CASE(draining),
		CASE(back_pressure),
		CASE(garbage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
