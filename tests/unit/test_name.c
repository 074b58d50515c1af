/* SPDX-License-Identifier: Apache-2.0 */
/* Names: from text, from the wire, back to text; every border of length, every octet. */
#include "tests/unit/unit.h"

static void reads_text(void **state)
{
	struct name n = name_of("Api.Example.COM");
	static const uint8_t wire[] = "\3api\7example\3com";
	assert_int_equal(n.n_labels, 3);
	assert_int_equal(n.len, sizeof(wire) - 1);
	assert_memory_equal(n.wire, wire, n.len);
	assert_int_equal(n.off[0], 0);
	assert_int_equal(n.off[1], 4);
	assert_int_equal(n.off[2], 12);
	assert_int_equal(n.off[3], n.len);
	for (unsigned i = 0; i < NAME_PAD; i++)
		assert_int_equal(n.wire[n.len + i], 0);
}

static void refuses_text(void **state)
{
	static const struct {
		const char *text;
		enum name_err err;
	} cases[] = {
		{ "", NAME_EMPTY },
		{ ".", NAME_EMPTY },
		{ "..", NAME_EMPTY_LABEL },
		{ "a..b", NAME_EMPTY_LABEL },
		{ ".a", NAME_EMPTY_LABEL },
		{ "a.b..", NAME_EMPTY_LABEL },
		{ "a b", NAME_BAD_OCTET },
		{ "a/b", NAME_BAD_OCTET },
		{ "a\\b", NAME_BAD_OCTET },
		{ "a@b", NAME_BAD_OCTET },
		{ "a%2eb", NAME_BAD_OCTET },
		{ "*.example.com", NAME_BAD_OCTET },
		{ "b\303\274cher.example", NAME_BAD_OCTET },
		{ "a\n.example", NAME_BAD_OCTET },
		{ "\377", NAME_BAD_OCTET },
		{ "[::1]", NAME_IP_LITERAL },
		{ "::1", NAME_IP_LITERAL },
		{ "a:443", NAME_IP_LITERAL },
		{ "127.0.0.1", NAME_IP_LITERAL },
		{ "127.1", NAME_IP_LITERAL },
		{ "2130706433", NAME_IP_LITERAL },
		{ "0x7f000001", NAME_IP_LITERAL },
		{ "0X7F.1", NAME_IP_LITERAL },
		{ "0x7f", NAME_IP_LITERAL },
		{ "example.com.0x", NAME_IP_LITERAL },
		{ "0251.0376", NAME_IP_LITERAL },
		{ "a.example.1.", NAME_IP_LITERAL },
		{ "a.example.0xAF", NAME_IP_LITERAL },
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct name n;
		enum name_err e = name_from_text(&n, cases[i].text, strlen(cases[i].text));
		if (e != cases[i].err)
			fail_msg("\"%s\": %s", cases[i].text, name_strerror(e));
	}
}

static void nul_inside_text_is_refused(void **state)
{
	struct name n;
	assert_int_equal(name_from_text(&n, "a\0b.example", 11), NAME_BAD_OCTET);
	assert_int_equal(name_from_text(&n, "a.example\0", 10), NAME_BAD_OCTET);
}

static void near_literals_are_names(void **state)
{
	static const char *const names[] = { "1a",
					     "0xg",
					     "x0",
					     "1.2.3.4a",
					     "1e100",
					     "0x.a",
					     "a-1",
					     "1-1",
					     "_1",
					     "1.0x1.a",
					     "xn--bcher-kva.example",
					     "3com" };
	for (size_t i = 0; i < COUNT(names); i++)
		(void)name_of(names[i]);
}

/* Every octet, alone in a label behind a letter. */
static void every_octet(void **state)
{
	for (unsigned c = 0; c < 256; c++) {
		char text[] = { 'a', (char)c, '.', 'b' };
		struct name n;
		enum name_err e = name_from_text(&n, text, sizeof(text));
		bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || c == '-' || c == '_';
		if (c == '.')
			assert_int_equal(e, NAME_EMPTY_LABEL);
		else if (c == ':') /* nothing but hex, dots and a colon */
			assert_int_equal(e, NAME_IP_LITERAL);
		else
			assert_int_equal(e, ok ? NAME_OK : NAME_BAD_OCTET);
	}
}

static void label_length(void **state)
{
	char text[80];
	struct name n;
	memset(text, 'a', sizeof(text));
	assert_int_equal(name_from_text(&n, text, 63), NAME_OK);
	assert_int_equal(n.wire[0], 63);
	assert_int_equal(name_from_text(&n, text, 64), NAME_LONG_LABEL);
	text[63] = '.';
	assert_int_equal(name_from_text(&n, text, 70), NAME_OK);
	assert_int_equal(n.n_labels, 2);
}

/* 127 labels of one octet make 253 octets of text; nothing longer is taken. */
static void name_length(void **state)
{
	char text[300];
	struct name n;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i % 2 ? '.' : 'a';
	assert_int_equal(name_from_text(&n, text, 253), NAME_OK);
	assert_int_equal(n.n_labels, 127);
	assert_int_equal(n.len, 254);
	assert_int_equal(name_from_text(&n, text, 254), NAME_OK); /* a trailing dot */
	assert_int_equal(name_from_text(&n, text, 255), NAME_TOO_LONG);
	assert_int_equal(name_from_text(&n, text, sizeof(text)), NAME_TOO_LONG);
	memset(text, 'a', sizeof(text));
	text[63] = text[127] = text[191] = '.';
	assert_int_equal(name_from_text(&n, text, 253), NAME_OK);
	assert_int_equal(n.len, 254);
	assert_int_equal(name_from_text(&n, text, 254), NAME_TOO_LONG);
}

static void reads_wire(void **state)
{
	static const uint8_t w[] = "\3API\7eXample\3com\0\1\2";
	struct name n, m = name_of("api.example.com");
	size_t used = 99;
	assert_int_equal(name_from_wire(&n, w, sizeof(w) - 1, &used), NAME_OK);
	assert_int_equal(used, 17);
	assert_true(name_equal(&n, &m));
	assert_memory_equal(n.off, m.off, n.n_labels + 1u);
	assert_int_equal(name_from_wire(&n, w, 17, NULL), NAME_OK);
}

static void every_cut_of_wire_is_refused(void **state)
{
	static const uint8_t w[] = "\3api\7example\3com";
	for (size_t i = 0; i < sizeof(w); i++) {
		struct name n;
		uint8_t *copy = malloc(i ? i : 1); /* so that a sanitizer sees a read behind it */
		memcpy(copy, w, i);
		enum name_err e = name_from_wire(&n, copy, i, NULL);
		free(copy);
		assert_int_equal(e, NAME_TRUNCATED);
	}
}

static void compression_is_refused(void **state)
{
	static const uint8_t pointer[] = "\3api\xc0\x0c";
	static const uint8_t reserved[] = "\100aaaaaaa";
	struct name n;
	assert_int_equal(name_from_wire(&n, pointer, sizeof(pointer), NULL), NAME_TRUNCATED);
	assert_int_equal(name_from_wire(&n, reserved, sizeof(reserved), NULL), NAME_TRUNCATED);
}

static void root_on_the_wire(void **state)
{
	static const uint8_t w[] = "\0";
	struct name n;
	size_t used;
	char text[NAME_TEXT_SIZE];
	assert_int_equal(name_from_wire(&n, w, 1, &used), NAME_OK);
	assert_int_equal(used, 1);
	assert_int_equal(n.n_labels, 0);
	assert_int_equal(n.len, 0);
	assert_int_equal(name_check_host(&n), NAME_EMPTY);
	assert_int_equal(name_to_text(&n, text), 1);
	assert_string_equal(text, ".");
}

static void longest_wire(void **state)
{
	uint8_t w[400];
	struct name n;
	for (size_t i = 0; i < sizeof(w); i += 2) {
		w[i] = 1;
		w[i + 1] = 'A';
	}
	w[254] = 0;
	assert_int_equal(name_from_wire(&n, w, sizeof(w), NULL), NAME_OK);
	assert_int_equal(n.n_labels, 127);
	assert_int_equal(n.wire[253], 'a');
	w[254] = 1;
	w[256] = 0;
	assert_int_equal(name_from_wire(&n, w, sizeof(w), NULL), NAME_TOO_LONG);
	memset(w, 'a', sizeof(w));
	w[0] = w[64] = w[128] = 63;
	w[192] = 62;
	w[255] = 0;
	assert_int_equal(name_from_wire(&n, w, sizeof(w), NULL), NAME_TOO_LONG);
	w[192] = 61;
	w[254] = 0;
	assert_int_equal(name_from_wire(&n, w, sizeof(w), NULL), NAME_OK);
	assert_int_equal(n.len, 254);
}

/* Octets that no host name has are kept, refused as a host, and escaped as text. */
static void strange_octets(void **state)
{
	for (unsigned c = 0; c < 256; c++) {
		uint8_t w[] = { 3, 'a', (uint8_t)c, 'b', 1, 'z', 0 };
		struct name n;
		char text[NAME_TEXT_SIZE];
		assert_int_equal(name_from_wire(&n, w, sizeof(w), NULL), NAME_OK);
		bool host = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			    (c >= '0' && c <= '9') || c == '-' || c == '_';
		assert_int_equal(name_check_host(&n), host ? NAME_OK : NAME_BAD_OCTET);
		size_t len = name_to_text(&n, text);
		assert_int_equal(len, strlen(text));
		for (size_t i = 0; i < len; i++)
			assert_true(text[i] > 0x20 && text[i] < 0x7f && text[i] != '"');
		char want[16];
		snprintf(want, sizeof(want), "a\\%03ub.z", c);
		if (!host && (c <= 0x20 || c >= 0x7f || c == '.' || c == '\\' || c == '"'))
			assert_string_equal(text, want);
	}
}

static void wire_literals_are_told(void **state)
{
	static const uint8_t quad[] = { 3, '1', '2', '7', 1, '0', 1, '0', 1, '1', 0 };
	struct name n;
	assert_int_equal(name_from_wire(&n, quad, sizeof(quad), NULL), NAME_OK);
	assert_int_equal(name_check_host(&n), NAME_IP_LITERAL);
}

static void text_of_the_longest_name_fits(void **state)
{
	uint8_t w[256];
	struct name n;
	char *text = malloc(NAME_TEXT_SIZE);
	memset(w, 0xff, sizeof(w));
	w[0] = w[64] = w[128] = 63;
	w[192] = 61;
	w[254] = 0;
	assert_int_equal(name_from_wire(&n, w, sizeof(w), NULL), NAME_OK);
	assert_int_equal(name_to_text(&n, text), 250 * 4 + 3);
	free(text);
}

static void compares(void **state)
{
	struct name a = name_of("a.example.com"), b = name_of("A.EXAMPLE.com.");
	struct name c = name_of("b.example.com"), d = name_of("example.com");
	struct name e = name_of("aexample.com"), f = name_of("a.b.example.com");
	assert_true(name_equal(&a, &b));
	assert_false(name_equal(&a, &c));
	assert_false(name_equal(&a, &d));
	assert_true(name_is_below(&a, &d));
	assert_true(name_is_below(&f, &d));
	assert_false(name_is_below(&d, &d));
	assert_false(name_is_below(&d, &a));
	assert_false(name_is_below(&e, &d));
}

/* Text to name to text is the identity on canonical text. */
static void compares_with_wire(void **state)
{
	static const uint8_t other[] = "\3api\7example\3con", upper[] = "\3Api\7eXample\3COM",
			     shorter[] = "\3api\7example", moved[] = "\7example\3api\3com",
			     control[] = "\3api\7exa\015ple\3com";
	struct name n = name_of("api.example.com"), root = { 0 };
	assert_true(name_is_wire(&n, upper, sizeof(upper)));
	assert_false(name_is_wire(&n, upper, sizeof(upper) - 1));
	assert_false(name_is_wire(&n, other, sizeof(other)));
	assert_false(name_is_wire(&n, shorter, sizeof(shorter)));
	assert_false(name_is_wire(&n, moved, sizeof(moved)));
	/* what folding the case by a bit would take for an m */
	assert_false(name_is_wire(&n, control, sizeof(control)));
	assert_false(name_is_wire(&n, upper, 0));
	assert_true(name_is_wire(&root, (const uint8_t *)"", 1));
	assert_false(name_is_wire(&root, (const uint8_t *)"\1a", 1));
	assert_false(name_is_wire(&root, upper, sizeof(upper)));
	/* an end that is none */
	uint8_t open[sizeof(upper)];
	memcpy(open, upper, sizeof(upper));
	open[sizeof(upper) - 1] = 1;
	assert_false(name_is_wire(&n, open, sizeof(open)));
}

static void round_trips(void **state)
{
	uint64_t seed = 1;
	static const char set[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";
	for (unsigned round = 0; round < 2000; round++) {
		char text[NAME_TEXT_SIZE], back[NAME_TEXT_SIZE];
		size_t len = 0;
		unsigned labels = 1 + (unsigned)(next_random(&seed) % 5);
		for (unsigned l = 0; l < labels; l++) {
			size_t n = 1 + next_random(&seed) % 40;
			if (l)
				text[len++] = '.';
			text[len++] = 'x'; /* no literal */
			while (--n > 0)
				text[len++] = set[next_random(&seed) % (sizeof(set) - 1)];
		}
		text[len] = '\0';
		struct name n = name_of(text), m;
		assert_int_equal(name_to_text(&n, back), len);
		assert_string_equal(back, text);
		n.wire[n.len] = 0;
		assert_int_equal(name_from_wire(&m, n.wire, n.len + 1u, NULL), NAME_OK);
		assert_true(name_equal(&n, &m));
	}
}

static void errors_have_words(void **state)
{
	for (int e = NAME_OK; e <= NAME_TRUNCATED; e++)
		assert_true(strlen(name_strerror((enum name_err)e)) > 3);
	assert_non_null(name_strerror((enum name_err)99));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_text),
		cmocka_unit_test(refuses_text),
		cmocka_unit_test(nul_inside_text_is_refused),
		cmocka_unit_test(near_literals_are_names),
		cmocka_unit_test(every_octet),
		cmocka_unit_test(label_length),
		cmocka_unit_test(name_length),
		cmocka_unit_test(reads_wire),
		cmocka_unit_test(every_cut_of_wire_is_refused),
		cmocka_unit_test(compression_is_refused),
		cmocka_unit_test(root_on_the_wire),
		cmocka_unit_test(longest_wire),
		cmocka_unit_test(strange_octets),
		cmocka_unit_test(wire_literals_are_told),
		cmocka_unit_test(text_of_the_longest_name_fits),
		cmocka_unit_test(compares),
		cmocka_unit_test(compares_with_wire),
		cmocka_unit_test(round_trips),
		cmocka_unit_test(errors_have_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
