/* SPDX-License-Identifier: Apache-2.0 */
/* The cursor over foreign bytes: it fails once, stays failed, and never leaves its buffer. */
#include "tests/unit/unit.h"

#include "shared/base/bytes.h"

static const uint8_t data[] = { 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08 };

static void reads_big_endian(void **state)
{
	struct reader r = rd_init(data, sizeof(data));
	assert_int_equal(rd_u8(&r), 0x01);
	assert_int_equal(rd_be16(&r), 0x0203);
	assert_int_equal(rd_be24(&r), 0x040506);
	assert_false(rd_done(&r));
	assert_int_equal(rd_be16(&r), 0x0708);
	assert_true(rd_done(&r));
}

static void high_octets_do_not_turn_negative(void **state)
{
	static const uint8_t ff[9] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct reader r = rd_init(ff, sizeof(ff));
	assert_int_equal(rd_be16(&r), 0xffff);
	assert_int_equal(rd_be24(&r), 0xffffff);
	assert_true(rd_be32(&r) == 0xffffffffu);
	assert_true(rd_done(&r));
}

static void fails_once_and_stays_failed(void **state)
{
	struct reader r = rd_init(data, 3);
	assert_int_equal(rd_be32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(rd_u8(&r), 0);
	assert_null(rd_take(&r, 0));
	assert_false(rd_done(&r));
}

static void takes_nothing_at_the_end(void **state)
{
	struct reader r = rd_init(data, 0);
	assert_non_null(rd_take(&r, 0));
	assert_true(rd_done(&r));
	assert_int_equal(rd_u8(&r), 0);
	assert_true(r.bad);
}

static void huge_lengths_are_refused(void **state)
{
	struct reader r = rd_init(data, sizeof(data));
	assert_null(rd_take(&r, SIZE_MAX));
	assert_true(r.bad);
	r = rd_init(data, sizeof(data));
	(void)rd_u8(&r);
	assert_null(rd_take(&r, SIZE_MAX - 1));
	assert_true(r.bad);
}

static void sub_reader_is_bounded(void **state)
{
	struct reader r = rd_init(data, sizeof(data));
	struct reader s = rd_sub(&r, 2);
	assert_int_equal(rd_be16(&s), 0x0102);
	assert_true(rd_done(&s));
	assert_int_equal(rd_u8(&s), 0);
	assert_true(s.bad);
	assert_false(r.bad);
	assert_int_equal(rd_u8(&r), 0x03);
}

static void sub_reader_past_the_end_fails_both(void **state)
{
	struct reader r = rd_init(data, sizeof(data));
	struct reader s = rd_sub(&r, sizeof(data) + 1);
	assert_true(s.bad);
	assert_true(r.bad);
	assert_int_equal(s.left, 0);
	assert_int_equal(rd_u8(&s), 0);
}

static void skips(void **state)
{
	struct reader r = rd_init(data, sizeof(data));
	rd_skip(&r, 7);
	assert_int_equal(rd_u8(&r), 0x08);
	rd_skip(&r, 1);
	assert_true(r.bad);
}

static void every_cut_is_noticed(void **state)
{
	for (size_t n = 0; n < sizeof(data); n++) {
		struct reader r = rd_init(data, n);
		(void)rd_be32(&r);
		(void)rd_be32(&r);
		assert_true(r.bad);
	}
}

static void writes_big_endian(void **state)
{
	uint8_t buf[8];
	struct writer w = wr_init(buf, sizeof(buf));
	wr_u8(&w, 0x01);
	wr_be16(&w, 0x0203);
	wr_be32(&w, 0x04050607);
	wr_u8(&w, 0x08);
	assert_false(w.bad);
	assert_int_equal(w.len, 8);
	assert_memory_equal(buf, data, 8);
}

static void writer_never_passes_its_end(void **state)
{
	uint8_t buf[8];
	memset(buf, 0xee, sizeof(buf));
	struct writer w = wr_init(buf, 3);
	wr_be16(&w, 0x0102);
	wr_be16(&w, 0x0304);
	assert_true(w.bad);
	assert_int_equal(w.len, 2);
	wr_u8(&w, 0x05);
	assert_int_equal(w.len, 2);
	for (size_t i = 2; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0xee);
	assert_null(wr_room(&w, SIZE_MAX));
}

static void writes_nothing_from_nowhere(void **state)
{
	uint8_t buf[1];
	struct writer w = wr_init(buf, sizeof(buf));
	wr_bytes(&w, NULL, 0);
	assert_false(w.bad);
	assert_int_equal(w.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_big_endian),
		cmocka_unit_test(high_octets_do_not_turn_negative),
		cmocka_unit_test(fails_once_and_stays_failed),
		cmocka_unit_test(takes_nothing_at_the_end),
		cmocka_unit_test(huge_lengths_are_refused),
		cmocka_unit_test(sub_reader_is_bounded),
		cmocka_unit_test(sub_reader_past_the_end_fails_both),
		cmocka_unit_test(skips),
		cmocka_unit_test(every_cut_is_noticed),
		cmocka_unit_test(writes_big_endian),
		cmocka_unit_test(writer_never_passes_its_end),
		cmocka_unit_test(writes_nothing_from_nowhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
