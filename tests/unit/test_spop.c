/* SPDX-License-Identifier: Apache-2.0 */
/* SPOP on the wire: varints, typed data and frames, well-formed and hostile. */
#include "tests/unit/unit.h"

#include "spoa-agent/spop.h"

static uint64_t round_trip(uint64_t v, size_t *len)
{
	uint8_t b[16];
	struct writer w = wr_init(b, sizeof(b));
	spop_put_varint(&w, v);
	assert_false(w.bad);
	*len = w.len;
	struct reader r = rd_init(b, w.len);
	uint64_t got = spop_varint(&r);
	assert_true(rd_done(&r));
	return got;
}

static void varint_borders(void **state)
{
	static const struct {
		uint64_t v;
		size_t len;
	} t[] = { { 0, 1 },
		  { 239, 1 },
		  { 240, 2 },
		  { 2287, 2 },
		  { 2288, 3 },
		  { 264431, 3 },
		  { 264432, 4 },
		  { 33818863, 4 },
		  { 33818864, 5 },
		  { UINT32_MAX, 5 },
		  { UINT64_C(4328786159), 5 },
		  { UINT64_C(4328786160), 6 },
		  { INT64_MAX, 10 },
		  { UINT64_MAX, 10 } };
	for (size_t i = 0; i < COUNT(t); i++) {
		size_t len;
		assert_true(round_trip(t[i].v, &len) == t[i].v);
		assert_int_equal(len, t[i].len);
	}
}

static void varint_any(void **state)
{
	uint64_t seed = 1;
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t v = next_random(&seed) >> (next_random(&seed) % 64);
		size_t len;
		assert_true(round_trip(v, &len) == v);
	}
}

/* A varint that does not end, or is wider than 64 bits, is refused and yields 0. */
static void varint_endless(void **state)
{
	uint8_t b[64];
	for (size_t n = 0; n <= sizeof(b); n++) {
		memset(b, 0xff, sizeof(b));
		struct reader r = rd_init(b, n);
		assert_true(spop_varint(&r) == 0);
		assert_true(r.bad);
	}
	static const uint8_t wide[][11] = {
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f },
		{ 0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10 },
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f },
		{ 0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0 },
	};
	for (size_t i = 0; i < COUNT(wide); i++) {
		struct reader r = rd_init(wide[i], sizeof(wide[i]));
		assert_true(spop_varint(&r) == 0);
		assert_true(r.bad);
	}
}

/* Lengths are compared at full width: no wrap-around, nothing read beyond the end. */
static void strings(void **state)
{
	uint8_t b[32];
	struct writer w = wr_init(b, sizeof(b));
	spop_put_string(&w, "abc");
	struct reader r = rd_init(b, w.len);
	struct spop_bytes s = spop_string(&r);
	assert_true(spop_is(s, "abc"));
	assert_false(spop_is(s, "ab"));
	assert_false(spop_is(s, "abcd"));
	r = rd_init(b, w.len - 1);
	s = spop_string(&r);
	assert_null(s.p);
	assert_true(r.bad);

	static const uint64_t lengths[] = { 4,          UINT32_MAX,     UINT64_C(1) << 32,
					    UINT64_MAX, UINT64_MAX - 1, INT64_MAX };
	for (size_t i = 0; i < COUNT(lengths); i++) {
		w = wr_init(b, sizeof(b));
		spop_put_varint(&w, lengths[i]);
		wr_bytes(&w, "abc", 3);
		r = rd_init(b, w.len);
		assert_null(spop_string(&r).p);
		assert_true(r.bad);
	}
	assert_false(spop_is((struct spop_bytes){ 0 }, ""));
}

static struct spop_value value_of(const void *p, size_t n, bool *bad)
{
	struct reader r = rd_init(p, n);
	struct spop_value v = spop_value(&r);
	*bad = r.bad;
	return v;
}

static void values(void **state)
{
	bool bad;
	uint64_t u;
	struct addr a;
	struct spop_bytes s;
	struct spop_value v = value_of("\x00", 1, &bad);
	assert_int_equal(v.type, SPOP_NULL);
	assert_false(bad);
	v = value_of("\x11", 1, &bad);
	assert_true(v.type == SPOP_BOOL && v.u == 1);
	v = value_of("\x01", 1, &bad);
	assert_true(v.type == SPOP_BOOL && v.u == 0);
	v = value_of("\x04\x50", 2, &bad);
	assert_true(spop_as_uint(&v, 65535, &u) && u == 80);
	assert_false(spop_as_uint(&v, 79, &u));
	assert_false(spop_as_addr(&v, &a));
	assert_false(spop_as_bytes(&v, &s));
	v = value_of("\x06\xc0\x00\x02\x01", 5, &bad);
	struct addr want = addr_of("192.0.2.1");
	assert_true(spop_as_addr(&v, &a) && addr_cmp(&a, &want) == 0);
	assert_false(spop_as_uint(&v, UINT64_MAX, &u));
	v = value_of("\x07\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 17, &bad);
	want = addr_of("2001:db8::1");
	assert_true(spop_as_addr(&v, &a) && addr_cmp(&a, &want) == 0);
	v = value_of("\x08\x02hi", 4, &bad);
	assert_true(spop_as_bytes(&v, &s) && spop_is(s, "hi"));
	v = value_of("\x09\x02hi", 4, &bad);
	assert_true(spop_as_bytes(&v, &s) && spop_is(s, "hi"));
	assert_false(spop_as_addr(&v, &a));
}

static void values_cut_or_unknown(void **state)
{
	static const uint8_t whole[] = { 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	bool bad;
	for (size_t n = 0; n < sizeof(whole); n++) {
		assert_int_equal(value_of(whole, n, &bad).type, SPOP_NULL);
		assert_true(bad);
	}
	assert_int_equal(value_of("\x06\x01\x02\x03", 4, &bad).type, SPOP_NULL);
	assert_true(bad);
	for (unsigned t = 10; t < 16; t++) {
		uint8_t b[] = { (uint8_t)t, 1, 1, 1, 1 };
		assert_int_equal(value_of(b, sizeof(b), &bad).type, SPOP_NULL);
		assert_true(bad);
	}
}

/* Negative numbers and numbers beyond their type are no ports. */
static void integers_out_of_range(void **state)
{
	static const uint8_t types[] = { SPOP_INT32, SPOP_UINT32, SPOP_INT64 };
	uint8_t b[16];
	bool bad;
	uint64_t u = 7;
	for (size_t i = 0; i < COUNT(types); i++) {
		struct writer w = wr_init(b, sizeof(b));
		wr_u8(&w, types[i]);
		spop_put_varint(&w, UINT64_MAX);
		struct spop_value v = value_of(b, w.len, &bad);
		assert_false(bad);
		assert_false(spop_as_uint(&v, UINT64_MAX, &u));
	}
	struct spop_value v = { .type = SPOP_UINT32, .u = UINT64_C(1) << 32 };
	assert_false(spop_as_uint(&v, UINT64_MAX, &u));
	v = (struct spop_value){ .type = SPOP_BOOL, .u = 1 };
	assert_false(spop_as_uint(&v, 1, &u));
	v = (struct spop_value){ .type = SPOP_UINT64, .u = UINT64_MAX };
	assert_true(spop_as_uint(&v, UINT64_MAX, &u) && u == UINT64_MAX);
}

static void frames(void **state)
{
	uint8_t b[256];
	struct writer w = wr_init(b, sizeof(b));
	struct spop_mark m = spop_begin(&w, SPOP_ACK, 300, UINT64_MAX);
	spop_set_u32(&w, "status", 403);
	spop_end(&w, m);
	assert_false(w.bad);
	struct reader r = rd_init(b, w.len);
	uint32_t len = rd_be32(&r);
	assert_int_equal(len, w.len - 4);
	struct spop_frame f;
	assert_true(spop_frame_read(&f, b + 4, len));
	assert_int_equal(f.type, SPOP_ACK);
	assert_int_equal(f.flags, SPOP_FIN);
	assert_true(f.stream == 300 && f.frame == UINT64_MAX);
	rd_skip(&f.payload, 3);
	assert_true(spop_is(spop_string(&f.payload), "status"));
	struct spop_value v = spop_value(&f.payload);
	uint64_t u;
	assert_true(spop_as_uint(&v, 1000, &u) && u == 403 && rd_done(&f.payload));
	for (size_t n = 0; n < 7; n++)
		assert_false(spop_frame_read(&f, b + 4, n));
}

static void addresses_written(void **state)
{
	static const struct {
		const char *text;
		uint8_t type;
		size_t len;
	} t[] = { { "192.0.2.7", SPOP_IPV4, 4 }, { "2001:db8::7", SPOP_IPV6, 16 } };
	for (size_t i = 0; i < COUNT(t); i++) {
		uint8_t b[64];
		struct addr a = addr_of(t[i].text), got;
		struct writer w = wr_init(b, sizeof(b));
		spop_set_addr(&w, "addr", &a);
		struct reader r = rd_init(b, w.len);
		rd_skip(&r, 3);
		assert_true(spop_is(spop_string(&r), "addr"));
		assert_int_equal(*r.p, t[i].type);
		struct spop_value v = spop_value(&r);
		assert_true(spop_as_addr(&v, &got) && addr_cmp(&a, &got) == 0 && rd_done(&r));
		assert_int_equal(v.bytes.n, t[i].len);
	}
}

/* What does not fit marks the writer and writes nothing beyond it. */
static void no_room(void **state)
{
	for (size_t cap = 0; cap < 32; cap++) {
		uint8_t b[40];
		memset(b, 0xaa, sizeof(b));
		struct writer w = wr_init(b, cap);
		struct spop_mark m = spop_begin(&w, SPOP_ACK, 1, 1);
		spop_set_string(&w, "verdict", "a value that is too long for it");
		spop_end(&w, m);
		assert_true(w.bad);
		for (size_t i = cap; i < sizeof(b); i++)
			assert_int_equal(b[i], 0xaa);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(varint_borders),
		cmocka_unit_test(varint_any),
		cmocka_unit_test(varint_endless),
		cmocka_unit_test(strings),
		cmocka_unit_test(values),
		cmocka_unit_test(values_cut_or_unknown),
		cmocka_unit_test(integers_out_of_range),
		cmocka_unit_test(frames),
		cmocka_unit_test(addresses_written),
		cmocka_unit_test(no_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
