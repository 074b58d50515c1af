/* SPDX-License-Identifier: Apache-2.0 */
/* The strict ClientHello parser: what it takes, and everything that it must not take. */
#include "tests/unit/unit.h"

#include "spoa-agent/hello.h"
#include "tests/unit/hello_build.h"

static uint8_t buf[16384];

static enum hello_result parse(const struct hello_build *b, struct hello *h)
{
	size_t n = hello_record(b, buf, sizeof(buf));
	assert_true(n > 0);
	return hello_parse(h, buf, n);
}

static struct hello_build usual(void)
{
	struct hello_build b = hello_new();
	hello_sni(&b, "a.example");
	hello_usual(&b);
	return b;
}

static void expect_malformed(const struct hello_build *b)
{
	struct hello h;
	assert_int_equal(parse(b, &h), HELLO_MALFORMED);
}

static void takes_a_hello(void **state)
{
	struct hello_build b = usual();
	struct hello h;
	assert_int_equal(parse(&b, &h), HELLO_OK);
	assert_int_equal(h.sni_len, 9);
	assert_memory_equal(h.sni, "a.example", 9);
	assert_false(h.ech);
	assert_false(h.early_data);
}

static void takes_a_big_hello(void **state)
{
	static const uint8_t share[1800];
	struct hello_build b = usual();
	struct hello h;
	hello_ext(&b, 51, share, sizeof(share));
	assert_int_equal(parse(&b, &h), HELLO_OK);
}

static void no_sni(void **state)
{
	struct hello_build b = hello_new();
	struct hello h;
	hello_usual(&b);
	assert_int_equal(parse(&b, &h), HELLO_OK);
	assert_null(h.sni);
	b = hello_new();
	b.no_extensions = true;
	assert_int_equal(parse(&b, &h), HELLO_OK);
	assert_null(h.sni);
}

static void flags_ech(void **state)
{
	static const uint16_t types[] = { 0xfe0d, 0xfe08, 0xfe0a, 0xffce };
	for (size_t i = 0; i < COUNT(types); i++) {
		struct hello_build b = usual();
		struct hello h;
		hello_ext(&b, types[i], "x", 1);
		assert_int_equal(parse(&b, &h), HELLO_OK);
		assert_true(h.ech);
	}
}

/* Every beginning of a hello is incomplete, nothing else. */
static void every_cut_is_incomplete(void **state)
{
	struct hello_build b = usual();
	struct hello h;
	size_t n = hello_record(&b, buf, sizeof(buf));
	for (size_t i = 0; i < n; i++) {
		uint8_t *exact = malloc(i ? i : 1);
		memcpy(exact, buf, i);
		assert_int_equal(hello_parse(&h, exact, i), HELLO_INCOMPLETE);
		free(exact);
	}
}

static void two_sni_extensions(void **state)
{
	struct hello_build b = usual();
	hello_sni(&b, "b.example");
	expect_malformed(&b);
	b = usual();
	hello_sni(&b, "a.example");
	expect_malformed(&b);
}

static void any_duplicate_extension(void **state)
{
	struct hello_build b = usual();
	hello_ext(&b, 0xfafa, "", 0);
	hello_ext(&b, 0xfafa, "", 0);
	expect_malformed(&b);
}

static void too_many_extensions(void **state)
{
	struct hello_build b = usual();
	for (unsigned i = 0; i < 200; i++)
		hello_ext(&b, (uint16_t)(0x1000 + i), "", 0);
	expect_malformed(&b);
}

static void two_host_names(void **state)
{
	static const char lists[][24] = {
		"\0\x10\0\0\5a.tld\0\0\5b.tld", /* two host_names */
		"\0\x10\0\0\5a.tld\1\0\5b.tld", /* a second name of another type */
		"\0\x10\1\0\5a.tld\0\0\5b.tld", /* another type first */
	};
	for (size_t i = 0; i < COUNT(lists); i++) {
		struct hello_build b = hello_new();
		hello_ext(&b, 0, lists[i], 18);
		hello_usual(&b);
		expect_malformed(&b);
	}
}

static void server_name_lengths(void **state)
{
	static const struct {
		const char *p;
		size_t n;
	} t[] = {
		{ "", 0 },                   /* nothing */
		{ "\0", 1 },                 /* half a length */
		{ "\0\0", 2 },               /* an empty list */
		{ "\0\1\0", 3 },             /* a type alone */
		{ "\0\3\0\0\0", 5 },         /* an empty name */
		{ "\0\x08\0\0\6a.tld", 10 }, /* the name overruns the list */
		{ "\0\x09\0\0\5a.tld", 10 }, /* the list overruns the extension */
		{ "\0\x08\0\0\4a.tld", 10 }, /* an octet behind the name */
		{ "\0\x07\0\0\4a.tld", 10 }, /* an octet behind the list */
		{ "\0\x08\1\0\5a.tld", 10 }, /* not a host_name */
		{ "\0\x08\0\xff\xff"
		  "a.tld",
		  10 }, /* 65535 octets */
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		struct hello_build b = hello_new();
		hello_ext(&b, 0, t[i].p, t[i].n);
		hello_usual(&b);
		expect_malformed(&b);
	}
}

static void outer_lengths(void **state)
{
	for (int off = -40; off <= 40; off++) {
		if (off == 0)
			continue;
		struct hello_build b = usual();
		struct hello h;
		b.body_off = off;
		expect_malformed(&b);
		b = usual();
		b.ext_off = off;
		expect_malformed(&b);
		b = usual();
		b.record_off = off;
		assert_int_not_equal(parse(&b, &h), HELLO_OK);
	}
}

static void field_sizes(void **state)
{
	struct hello h;
	struct hello_build b = usual();
	b.session = 0;
	assert_int_equal(parse(&b, &h), HELLO_OK);
	b.session = 33;
	expect_malformed(&b);
	b = usual();
	b.suites = 0;
	expect_malformed(&b);
	b.suites = 3;
	expect_malformed(&b);
	b = usual();
	b.n_compression = 0;
	expect_malformed(&b);
	b.n_compression = 2;
	b.compression[0] = 1;
	assert_int_equal(parse(&b, &h), HELLO_OK);
	b.compression[1] = 1;
	expect_malformed(&b);
}

static void versions(void **state)
{
	static const uint16_t bad[] = { 0, 0x0002, 0x0200, 0x0300, 0x0304, 0x0403, 0xfefd };
	struct hello h;
	struct hello_build b = usual();
	for (uint16_t v = 0x0301; v <= 0x0303; v++) {
		b.version = v;
		b.record_version = (uint8_t)v;
		assert_int_equal(parse(&b, &h), HELLO_OK);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		b = usual();
		b.version = bad[i];
		expect_malformed(&b);
	}
	b = usual();
	b.record_version = 0;
	expect_malformed(&b);
	b.record_version = 4;
	expect_malformed(&b);
}

static void pre_shared_key_is_last(void **state)
{
	struct hello h;
	struct hello_build b = usual();
	hello_ext(&b, 41, "x", 1);
	assert_int_equal(parse(&b, &h), HELLO_OK);
	hello_ext(&b, 21, "x", 1);
	expect_malformed(&b);
}

/* One message over two records: what a careless reader sees between them is not what it says. */
static void two_records(void **state)
{
	struct hello_build b = usual();
	uint8_t msg[1024];
	struct hello h;
	size_t n = hello_message(&b, msg, sizeof(msg));
	for (size_t cut = 1; cut < n; cut++) {
		struct writer w = wr_init(buf, sizeof(buf));
		wr_bytes(&w, "\x16\3\1", 3);
		wr_be16(&w, (uint16_t)cut);
		wr_bytes(&w, msg, cut);
		wr_bytes(&w, "\x16\3\1", 3);
		wr_be16(&w, (uint16_t)(n - cut));
		wr_bytes(&w, msg + cut, n - cut);
		assert_int_equal(hello_parse(&h, buf, w.len), HELLO_MALFORMED);
	}
}

static void two_messages_in_a_record(void **state)
{
	struct hello_build b = usual();
	uint8_t msg[1024];
	struct hello h;
	size_t n = hello_message(&b, msg, sizeof(msg));
	struct writer w = wr_init(buf, sizeof(buf));
	wr_bytes(&w, "\x16\3\1", 3);
	wr_be16(&w, (uint16_t)(2 * n));
	wr_bytes(&w, msg, n);
	wr_bytes(&w, msg, n);
	assert_int_equal(hello_parse(&h, buf, w.len), HELLO_MALFORMED);
}

static enum hello_result with_tail(bool early, const void *tail, size_t n)
{
	struct hello_build b = usual();
	struct hello h;
	if (early)
		hello_ext(&b, 42, "", 0);
	size_t len = hello_record(&b, buf, sizeof(buf));
	memcpy(buf + len, tail, n);
	return hello_parse(&h, buf, len + n);
}

static void behind_the_hello(void **state)
{
	static const struct {
		const char *p;
		size_t n;
		bool ok; /* where early data is offered; else never */
	} t[] = {
		{ "\x14\3\3\0\1\1", 6, true },
		{ "\x14\3\3\0\1\1\x17\3\3\0\2ab", 13, true },
		{ "\x17\3\3\0\2ab\x17\3\3\0\1c", 13, true },
		{ "\x17\3\3\0\2a", 6, true }, /* cut */
		{ "\x17\3\3\0", 4, true },
		{ "\x17", 1, true },
		{ "\x14", 1, true },
		{ "\x14\3\3\0\1", 5, true },
		{ "\x14\3\3\0\1\2", 6, false },
		{ "\x14\3\3\0\2\1\1", 7, false },
		{ "\x14\3\3\0\1\1\x14\3\3\0\1\1", 12, false },
		{ "\x17\3\3\0\1a\x14\3\3\0\1\1", 12, false },
		{ "\x17\3\3\0\0", 5, false },
		{ "\x17\3\3\xff\xff", 5, false },
		{ "\x17\3\1\0\1a", 6, false },
		{ "\x16\3\1\0\1a", 6, false },
		{ "\x16", 1, false },
		{ "\x15\3\3\0\2\1\1", 7, false },
		{ "GET / HTTP/1.1\r\n", 16, false },
		{ "\0", 1, false },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		assert_int_equal(with_tail(false, t[i].p, t[i].n), HELLO_MALFORMED);
		assert_int_equal(with_tail(true, t[i].p, t[i].n),
				 t[i].ok ? HELLO_OK : HELLO_MALFORMED);
	}
	struct hello_build b = usual();
	hello_ext(&b, 42, "x", 1);
	expect_malformed(&b);
}

static void other_protocols(void **state)
{
	static const struct {
		const char *p;
		size_t n;
	} t[] = {
		{ "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 35 },
		{ "SSH-2.0-OpenSSH_9.2p1\r\n", 23 },
		{ "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", 32 },
		{ "\x80\x2e\x01\0\2\0\x15\0\0\0\x10\1\0\x80\3\0\x80\7\0\xc0", 20 }, /* SSLv2 */
		{ "\x16\3\1\0\0", 5 },                                              /* empty */
		{ "\x16\3\1\0\3\1\0\0", 8 },
		{ "\x16\3\1\x40\1\1\0\x3f\xfd", 9 }, /* a record over 2^14 */
		{ "\x16\3\1\0\x64\2\0\0\x60", 9 },   /* a ServerHello */
		{ "\x16\3\1\0\x64\1\0\0\x61", 9 },   /* the message overruns its record */
		{ "\x16\3\1\0\x64\1\1\0\x60", 9 },   /* by 65536 */
		{ "\5\1\0", 3 },
		{ "\0", 1 },
	};
	struct hello h;
	for (size_t i = 0; i < COUNT(t); i++)
		assert_int_equal(hello_parse(&h, (const uint8_t *)t[i].p, t[i].n), HELLO_MALFORMED);
	assert_int_equal(hello_parse(&h, NULL, 0), HELLO_INCOMPLETE);
}

/* Whatever is changed, a name that is given lies inside the bytes, and inside the first record. */
static void mutations_stay_inside(void **state)
{
	uint64_t seed = 42;
	for (unsigned i = 0; i < 200000; i++) {
		struct hello_build b = usual();
		struct hello h;
		size_t n = hello_record(&b, buf, sizeof(buf));
		if (n == 0)
			abort();
		for (unsigned k = next_random(&seed) % 4; k <= 3; k++)
			buf[next_random(&seed) % n] = (uint8_t)next_random(&seed);
		size_t len = n - next_random(&seed) % 3;
		if (hello_parse(&h, buf, len) != HELLO_OK || !h.sni)
			continue;
		assert_true(h.sni >= buf + 9 && h.sni + h.sni_len <= buf + len);
		assert_true(h.sni_len > 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_a_hello),
		cmocka_unit_test(takes_a_big_hello),
		cmocka_unit_test(no_sni),
		cmocka_unit_test(flags_ech),
		cmocka_unit_test(every_cut_is_incomplete),
		cmocka_unit_test(two_sni_extensions),
		cmocka_unit_test(any_duplicate_extension),
		cmocka_unit_test(too_many_extensions),
		cmocka_unit_test(two_host_names),
		cmocka_unit_test(server_name_lengths),
		cmocka_unit_test(outer_lengths),
		cmocka_unit_test(field_sizes),
		cmocka_unit_test(versions),
		cmocka_unit_test(pre_shared_key_is_last),
		cmocka_unit_test(two_records),
		cmocka_unit_test(two_messages_in_a_record),
		cmocka_unit_test(behind_the_hello),
		cmocka_unit_test(other_protocols),
		cmocka_unit_test(mutations_stay_inside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
