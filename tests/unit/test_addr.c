/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and prefixes: text both ways, containment, and what may be a destination. */
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static void reads_and_writes_text(void **state)
{
	static const char *const same[] = {
		"0.0.0.0",
		"192.0.2.1",
		"255.255.255.255",
		"::",
		"::1",
		"2001:db8::1",
		"fe80::1",
		"1:2:3:4:5:6:7:8",
		"2001:db8:0:1::",
		"64:ff9b::192.0.2.1",
		"2001:db8::1:0:0:1",
	};
	for (size_t i = 0; i < COUNT(same); i++) {
		char text[ADDR_TEXT_SIZE];
		struct addr a = addr_of(same[i]);
		size_t n = addr_to_text(&a, text);
		assert_int_equal(n, strlen(text));
		if (strchr(same[i], '.') && strchr(same[i], ':'))
			continue; /* dotted tails are read, not written */
		assert_string_equal(text, same[i]);
	}
}

static void writes_rfc_5952(void **state)
{
	static const char *const pairs[][2] = {
		{ "2001:0DB8:0000:0000:0000:0000:0000:0001", "2001:db8::1" },
		{ "2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1" },
		{ "2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1" },
		{ "0:0:0:0:0:0:0:0", "::" },
		{ "ABCD::EF", "abcd::ef" },
		{ "2001:0:0:1:0:0:0:1", "2001:0:0:1::1" },
	};
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[ADDR_TEXT_SIZE];
		struct addr a = addr_of(pairs[i][0]);
		addr_to_text(&a, text);
		assert_string_equal(text, pairs[i][1]);
	}
}

static void mapped_is_ipv4(void **state)
{
	char text[ADDR_TEXT_SIZE];
	struct addr a = addr_of("::ffff:192.0.2.1"), b = addr_of("192.0.2.1");
	assert_int_equal(addr_cmp(&a, &b), 0);
	assert_true(addr_is_v4(&a));
	addr_to_text(&a, text);
	assert_string_equal(text, "192.0.2.1");
	struct addr c = addr_of("::192.0.2.1");
	assert_false(addr_is_v4(&c));
}

static void refuses_text(void **state)
{
	static const char *const bad[] = {
		"",
		"1",
		"1.2.3",
		"1.2.3.4.5",
		"01.2.3.4",
		"1.2.3.04",
		"256.1.1.1",
		"1.2.3.-4",
		" 1.2.3.4",
		"1.2.3.4 ",
		"0x1.2.3.4",
		"1.2.3.4/32",
		"[::1]",
		"::1%eth0",
		"::1%1",
		":::",
		"1:2:3:4:5:6:7",
		"1:2:3:4:5:6:7:8:9",
		"12345::",
		"::1.2.3",
		"::ffff:1.2.3.04",
		"g::",
		"2130706433",
		"example.com",
		"::1::",
		"1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb",
	};
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct addr a;
		if (addr_from_text(&a, bad[i], strlen(bad[i])))
			fail_msg("taken: %s", bad[i]);
	}
	struct addr a;
	assert_false(addr_from_text(&a, "1.2.3.4\0", 8));
	assert_true(addr_from_text(&a, "1.2.3.45", 7)); /* the length counts, not a NUL */
	struct addr b = addr_of("1.2.3.4");
	assert_int_equal(addr_cmp(&a, &b), 0);
}

static void reads_sockaddrs(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(53) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(5353) };
	struct sockaddr un = { .sa_family = AF_UNIX };
	struct addr a, b;
	uint16_t port;
	inet_pton(AF_INET, "192.0.2.1", &in.sin_addr);
	inet_pton(AF_INET6, "::ffff:192.0.2.1", &in6.sin6_addr);
	assert_true(addr_from_sockaddr(&a, &port, (void *)&in, sizeof(in)));
	assert_int_equal(port, 53);
	assert_true(addr_from_sockaddr(&b, &port, (void *)&in6, sizeof(in6)));
	assert_int_equal(port, 5353);
	assert_int_equal(addr_cmp(&a, &b), 0);
	assert_true(addr_from_sockaddr(&a, NULL, (void *)&in, sizeof(in)));
	assert_false(addr_from_sockaddr(&a, NULL, &un, sizeof(un)));
	assert_false(addr_from_sockaddr(&a, NULL, (void *)&in, sizeof(in) - 1));
	assert_false(addr_from_sockaddr(&a, NULL, (void *)&in6, sizeof(in)));
}

static struct prefix prefix_of(const char *text)
{
	struct prefix p;
	if (prefix_from_text(&p, text, strlen(text)) != PREFIX_OK)
		fail_msg("not a prefix: %s", text);
	return p;
}

static void reads_prefixes(void **state)
{
	static const struct {
		const char *text;
		enum prefix_err err;
		const char *back;
	} cases[] = {
		{ "192.0.2.0/24", PREFIX_OK, "192.0.2.0/24" },
		{ "192.0.2.1", PREFIX_OK, "192.0.2.1/32" },
		{ "0.0.0.0/0", PREFIX_OK, "0.0.0.0/0" },
		{ "2001:db8::/32", PREFIX_OK, "2001:db8::/32" },
		{ "::1", PREFIX_OK, "::1/128" },
		{ "::/0", PREFIX_OK, "::/0" },
		{ "::ffff:192.0.2.0/120", PREFIX_OK, "192.0.2.0/24" },
		{ "192.0.2.1/24", PREFIX_HOST_BITS, "192.0.2.0/24" },
		{ "192.0.2.3/31", PREFIX_HOST_BITS, "192.0.2.2/31" },
		{ "2001:db8::1/64", PREFIX_HOST_BITS, "2001:db8::/64" },
		{ "192.0.2.0/33", PREFIX_BAD_LEN, NULL },
		{ "::/129", PREFIX_BAD_LEN, NULL },
		{ "192.0.2.0/", PREFIX_BAD_LEN, NULL },
		{ "192.0.2.0/-1", PREFIX_BAD_LEN, NULL },
		{ "192.0.2.0/024", PREFIX_BAD_LEN, NULL },
		{ "192.0.2.0/24 ", PREFIX_BAD_LEN, NULL },
		{ "192.0.2.0/4294967320", PREFIX_BAD_LEN, NULL },
		{ "192.0.2/24", PREFIX_BAD, NULL },
		{ "/24", PREFIX_BAD, NULL },
		{ "", PREFIX_BAD, NULL },
		{ "example.com/24", PREFIX_BAD, NULL },
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct prefix p;
		char text[PREFIX_TEXT_SIZE];
		enum prefix_err e = prefix_from_text(&p, cases[i].text, strlen(cases[i].text));
		if (e != cases[i].err)
			fail_msg("%s: %d", cases[i].text, (int)e);
		if (!cases[i].back)
			continue;
		prefix_to_text(&p, text);
		assert_string_equal(text, cases[i].back);
	}
}

static void contains(void **state)
{
	static const struct {
		const char *prefix, *addr;
		bool in;
	} cases[] = {
		{ "192.0.2.0/24", "192.0.2.0", true },
		{ "192.0.2.0/24", "192.0.2.255", true },
		{ "192.0.2.0/24", "192.0.3.0", false },
		{ "192.0.2.0/24", "192.0.1.255", false },
		{ "192.0.2.128/25", "192.0.2.127", false },
		{ "192.0.2.128/25", "192.0.2.128", true },
		{ "192.0.2.7/32", "192.0.2.7", true },
		{ "192.0.2.7/32", "192.0.2.6", false },
		{ "0.0.0.0/0", "255.1.2.3", true },
		{ "0.0.0.0/0", "2001:db8::1", false },
		{ "0.0.0.0/0", "::", false },
		{ "::/0", "2001:db8::1", true },
		{ "::/0", "192.0.2.1", false },
		{ "::/64", "::ffff:192.0.2.1", false },
		{ "::/80", "192.0.2.1", false },
		{ "::/80", "::1", true },
		{ "2001:db8::/33", "2001:db8:8000::", false },
		{ "2001:db8::/33", "2001:db8:7fff::1", true },
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct prefix p = prefix_of(cases[i].prefix);
		struct addr a = addr_of(cases[i].addr);
		if (prefix_contains(&p, &a) != cases[i].in)
			fail_msg("%s in %s", cases[i].addr, cases[i].prefix);
	}
}

/* Each bit of an address decides about every prefix that is longer than its place. */
static void every_bit_counts(void **state)
{
	for (unsigned len = 0; len <= 128; len++)
		for (unsigned bit = 0; bit < 128; bit++) {
			struct prefix p = { .len = (uint8_t)len };
			struct addr a = { { 0 } };
			a.b[bit / 8] = (uint8_t)(0x80 >> bit % 8);
			assert_int_equal(prefix_contains(&p, &a), bit >= len);
		}
}

static void classes(void **state)
{
	static const struct {
		const char *addr;
		enum addr_class class;
	} cases[] = {
		/* public, at the borders of what is not */
		{ "1.0.0.0", ADDR_PUBLIC },
		{ "9.255.255.255", ADDR_PUBLIC },
		{ "11.0.0.0", ADDR_PUBLIC },
		{ "100.63.255.255", ADDR_PUBLIC },
		{ "100.128.0.0", ADDR_PUBLIC },
		{ "126.255.255.255", ADDR_PUBLIC },
		{ "128.0.0.0", ADDR_PUBLIC },
		{ "169.253.255.255", ADDR_PUBLIC },
		{ "169.255.0.0", ADDR_PUBLIC },
		{ "172.15.255.255", ADDR_PUBLIC },
		{ "172.32.0.0", ADDR_PUBLIC },
		{ "192.167.255.255", ADDR_PUBLIC },
		{ "192.169.0.0", ADDR_PUBLIC },
		{ "223.255.255.255", ADDR_PUBLIC },
		{ "168.63.129.15", ADDR_PUBLIC },
		{ "2001:db8::1", ADDR_PUBLIC },
		{ "2600::", ADDR_PUBLIC },
		{ "fbff::1", ADDR_PUBLIC },
		{ "fe7f::1", ADDR_PUBLIC },
		{ "64:ff9b::192.0.2.1", ADDR_PUBLIC },
		{ "2002:c000:201::1", ADDR_PUBLIC },
		/* private */
		{ "10.0.0.0", ADDR_PRIVATE },
		{ "10.255.255.255", ADDR_PRIVATE },
		{ "100.64.0.0", ADDR_PRIVATE },
		{ "100.127.255.255", ADDR_PRIVATE },
		{ "172.16.0.0", ADDR_PRIVATE },
		{ "172.31.255.255", ADDR_PRIVATE },
		{ "192.168.0.0", ADDR_PRIVATE },
		{ "192.168.255.255", ADDR_PRIVATE },
		{ "fc00::", ADDR_PRIVATE },
		{ "fdff:ffff::1", ADDR_PRIVATE },
		{ "fd00:ec2::253", ADDR_PRIVATE },
		{ "::ffff:10.0.0.1", ADDR_PRIVATE },
		{ "::10.0.0.1", ADDR_PRIVATE },
		{ "64:ff9b::10.0.0.1", ADDR_PRIVATE },
		{ "2002:a00:1::1", ADDR_PRIVATE },
		{ "2001:db8::5efe:10.0.0.1", ADDR_PRIVATE },
		{ "2001:db8::200:5efe:10.0.0.1", ADDR_PRIVATE },
		/* Teredo: the server 192.0.2.1, the client ~10.0.0.1 */
		{ "2001:0:c000:201:0:0:f5ff:fffe", ADDR_PRIVATE },
		/* Teredo: the server 10.0.0.1, the client ~192.0.2.1 */
		{ "2001:0:a00:1:0:0:3fff:fdfe", ADDR_PRIVATE },
		/* never */
		{ "0.0.0.0", ADDR_NEVER },
		{ "0.255.255.255", ADDR_NEVER },
		{ "127.0.0.1", ADDR_NEVER },
		{ "127.255.255.255", ADDR_NEVER },
		{ "169.254.0.0", ADDR_NEVER },
		{ "169.254.169.254", ADDR_NEVER },
		{ "168.63.129.16", ADDR_NEVER },
		{ "100.100.100.200", ADDR_NEVER },
		{ "224.0.0.1", ADDR_NEVER },
		{ "240.0.0.0", ADDR_NEVER },
		{ "255.255.255.255", ADDR_NEVER },
		{ "::", ADDR_NEVER },
		{ "::1", ADDR_NEVER },
		{ "fe80::1", ADDR_NEVER },
		{ "febf:ffff::1", ADDR_NEVER },
		{ "fec0::1", ADDR_NEVER },
		{ "feff::1", ADDR_NEVER },
		{ "ff00::", ADDR_NEVER },
		{ "ff02::fb", ADDR_NEVER },
		{ "fd00:ec2::254", ADDR_NEVER },
		{ "::ffff:127.0.0.1", ADDR_NEVER },
		{ "::ffff:0.0.0.0", ADDR_NEVER },
		{ "::127.0.0.1", ADDR_NEVER },
		{ "::ffff:0:127.0.0.1", ADDR_NEVER },
		{ "64:ff9b::169.254.169.254", ADDR_NEVER },
		{ "64:ff9b::127.0.0.1", ADDR_NEVER },
		{ "64:ff9b:1::a00:1", ADDR_NEVER },
		{ "64:ff9b:1:7f00:0:100::", ADDR_NEVER },
		{ "2002:a9fe:a9fe::", ADDR_NEVER },
		{ "2002:7f00:1::1", ADDR_NEVER },
		{ "2001:db8::5efe:127.0.0.1", ADDR_NEVER },
		{ "2001:db8::200:5efe:169.254.169.254", ADDR_NEVER },
		{ "2001:0:c000:201:0:0:5601:5601", ADDR_NEVER },
		{ "2001:0:7f00:1:0:0:3fff:fdfe", ADDR_NEVER },
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct addr a = addr_of(cases[i].addr);
		if (addr_class(&a) != cases[i].class)
			fail_msg("%s: %d", cases[i].addr, (int)addr_class(&a));
	}
}

static void embedded(void **state)
{
	static const struct {
		const char *addr;
		const char *in[2];
	} cases[] = {
		{ "192.0.2.1", { NULL } },
		{ "2001:db8::192.0.2.1", { NULL } },
		{ "::192.0.2.1", { "192.0.2.1" } },
		{ "64:ff9b::192.0.2.1", { "192.0.2.1" } },
		{ "2002:c000:201::7", { "192.0.2.1" } },
		{ "2001:0:c000:201:8000:63bf:3fff:fdd2", { "192.0.2.1", "192.0.2.45" } },
		{ "2001:db8::5efe:192.0.2.1", { "192.0.2.1" } },
		{ "2001:db8::200:5efe:c000:201", { "192.0.2.1" } },
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct addr a = addr_of(cases[i].addr), out[ADDR_MAX_EMBEDDED];
		unsigned n = addr_embedded(&a, out), want = 0;
		for (; want < 2 && cases[i].in[want]; want++) {
			struct addr w = addr_of(cases[i].in[want]);
			assert_true(want < n);
			assert_int_equal(addr_cmp(&out[want], &w), 0);
		}
		assert_int_equal(n, want);
	}
}

/* No embedding of a forbidden address is anything but forbidden. */
static void embeddings_of_what_is_never(void **state)
{
	static const char *const never[] = { "127.0.0.1", "0.0.0.0",         "169.254.169.254",
					     "224.1.1.1", "100.100.100.200", "168.63.129.16" };
	for (size_t i = 0; i < COUNT(never); i++) {
		struct addr v4 = addr_of(never[i]);
		const uint8_t *q = v4.b + 12;
		struct addr forms[] = {
			addr_of("::"),
			addr_of("64:ff9b::"),
			addr_of("::ffff:0:0:0"),
			addr_of("2001:db8::5efe:0:0"),
			addr_of("2600::200:5efe:0:0"),
		};
		for (size_t k = 0; k < COUNT(forms); k++) {
			memcpy(forms[k].b + 12, q, 4);
			assert_int_equal(addr_class(&forms[k]), ADDR_NEVER);
		}
		struct addr six = addr_of("2002::1");
		memcpy(six.b + 2, q, 4);
		assert_int_equal(addr_class(&six), ADDR_NEVER);
		struct addr teredo = addr_of("2001:0:c000:201::");
		for (unsigned b = 0; b < 4; b++)
			teredo.b[12 + b] = (uint8_t)~q[b];
		assert_int_equal(addr_class(&teredo), ADDR_NEVER);
	}
}

static void orders(void **state)
{
	struct addr a = addr_of("192.0.2.1"), b = addr_of("192.0.2.2"), c = addr_of("2001:db8::");
	assert_true(addr_cmp(&a, &b) < 0);
	assert_true(addr_cmp(&b, &a) > 0);
	assert_true(addr_cmp(&b, &c) < 0);
	assert_int_equal(addr_cmp(&a, &a), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_writes_text),
		cmocka_unit_test(writes_rfc_5952),
		cmocka_unit_test(mapped_is_ipv4),
		cmocka_unit_test(refuses_text),
		cmocka_unit_test(reads_sockaddrs),
		cmocka_unit_test(reads_prefixes),
		cmocka_unit_test(contains),
		cmocka_unit_test(every_bit_counts),
		cmocka_unit_test(classes),
		cmocka_unit_test(embedded),
		cmocka_unit_test(embeddings_of_what_is_never),
		cmocka_unit_test(orders),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
