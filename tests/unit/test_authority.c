/* SPDX-License-Identifier: Apache-2.0 */
/* Host fields and request targets, as clients and attackers write them. */
#include "tests/unit/unit.h"

#include "spoa-agent/url.h"

static enum url_err host(const char *s, struct authority *a)
{
	return authority_parse(a, s, strlen(s));
}

static void names_and_ports(void **state)
{
	static const struct {
		const char *text, *name;
		uint16_t port;
	} t[] = { { "a.example", "a.example", 0 },
		  { "A.Example.", "a.example", 0 },
		  { "a.example:80", "a.example", 80 },
		  { "a.example.:80", "a.example", 80 },
		  { "a.example:65535", "a.example", 65535 },
		  { "a.example:1", "a.example", 1 },
		  { "localhost", "localhost", 0 },
		  { "_x.a-b.example:8080", "_x.a-b.example", 8080 },
		  { "1.2.3.example", "1.2.3.example", 0 } };
	for (size_t i = 0; i < COUNT(t); i++) {
		struct authority a;
		struct name want = name_of(t[i].name);
		assert_int_equal(host(t[i].text, &a), URL_OK);
		assert_true(name_equal(&a.name, &want));
		assert_int_equal(a.port, t[i].port);
	}
}

static void literals(void **state)
{
	static const char *const t[] = {
		"127.0.0.1",
		"127.0.0.1:80",
		"127.0.0.1.",
		"127.1",
		"2852039166",
		"2852039166:80",
		"0xa9fea9fe",
		"0x7f.1",
		"0251.0376.0251.0376",
		"0251.254.169.254",
		"0X7F000001",
		"1.2.3.4.5",
		"[::1]",
		"[::1]:80",
		"[fe80::1%25eth0]",
		"[fe80::1%eth0]:80",
		"[::ffff:10.0.0.1]",
		"::1",
		"2001:db8::1",
		"::ffff:10.0.0.1",
		"[v1.fe80::a]",
		"999.999.999.999",
	};
	struct authority a;
	for (size_t i = 0; i < COUNT(t); i++)
		if (host(t[i], &a) != URL_IP_LITERAL)
			fail_msg("%s is not taken for an address", t[i]);
}

static void no_names(void **state)
{
	static const char *const t[] = {
		"",
		".",
		":",
		":80",
		"a.example:",
		"a.example:0",
		"a.example:00",
		"a.example:080",
		"a.example:65536",
		"a.example:99999",
		"a.example:100000",
		"a.example:4294967376",
		"a.example:+80",
		"a.example:-1",
		"a.example: 80",
		"a.example:80 ",
		"a.example:8a",
		"a.example:80:80",
		"a.example:443:22",
		"a.example,b.example",
		"a.example, b.example",
		"a.example b.example",
		" a.example",
		"a.example\t",
		"user@a.example",
		"user:pw@a.example",
		"a.example@evil.example:443",
		"a.example/evil",
		"a.example?x",
		"a.example#x",
		"a\\b.example",
		"allowed%2eevil",
		"a..example",
		".a.example",
		"a.example..",
		"*.example",
		"[name]",
		"[",
		"[]",
		"[]:80",
		"[::1",
		"[x::1]",
		"a.exa\xc3\xa4mple",
		"a.example\x80",
		"\"a.example\"",
		"x:y:z",
	};
	struct authority a;
	for (size_t i = 0; i < COUNT(t); i++)
		if (host(t[i], &a) != URL_BAD_NAME)
			fail_msg("%s is not refused", t[i]);
	assert_int_equal(authority_parse(&a, "a.exam\0ple", 10), URL_BAD_NAME);
	assert_int_equal(authority_parse(&a, "a.example\0", 10), URL_BAD_NAME);
}

static void long_names(void **state)
{
	char s[512];
	struct authority a;
	for (size_t n = 240; n < 300; n++) {
		memset(s, 'a', sizeof(s));
		for (size_t i = 50; i < n; i += 50)
			s[i] = '.';
		if (s[n - 1] == '.')
			s[n - 1] = 'a';
		assert_int_equal(authority_parse(&a, s, n), n <= 253 ? URL_OK : URL_BAD_NAME);
	}
	memset(s, 'a', sizeof(s));
	assert_int_equal(authority_parse(&a, s, 63), URL_OK);
	assert_int_equal(authority_parse(&a, s, 64), URL_BAD_NAME);
}

static void endpoints(void **state)
{
	static const struct {
		const char *text;
		enum url_err err;
		const char *name; /* or the address */
		uint16_t port;
	} t[] = {
		{ "a.example:443", URL_OK, "a.example", 443 },
		{ "A.Example.:1", URL_OK, "a.example", 1 },
		{ "192.0.2.7:65535", URL_OK, "192.0.2.7", 65535 },
		{ "[2001:db8::7]:22", URL_OK, "2001:db8::7", 22 },
		{ "a.example", URL_BAD_NAME, NULL, 0 },
		{ "a.example:", URL_BAD_NAME, NULL, 0 },
		{ "a.example:0", URL_BAD_NAME, NULL, 0 },
		{ "a.example:0443", URL_BAD_NAME, NULL, 0 },
		{ "a.example:65536", URL_BAD_NAME, NULL, 0 },
		{ "a.example:443:22", URL_BAD_NAME, NULL, 0 },
		{ "a.example:22@evil.example:443", URL_BAD_NAME, NULL, 0 },
		{ "a.example@evil.example:443", URL_BAD_NAME, NULL, 0 },
		{ "a.example%2eevil:443", URL_BAD_NAME, NULL, 0 },
		{ "a.example%3a22:443", URL_BAD_NAME, NULL, 0 },
		{ "a.example/x:443", URL_BAD_NAME, NULL, 0 },
		{ "http://a.example:443", URL_BAD_NAME, NULL, 0 },
		{ "a.example, b.example:443", URL_BAD_NAME, NULL, 0 },
		{ " a.example:443", URL_BAD_NAME, NULL, 0 },
		{ "a.example:443 ", URL_BAD_NAME, NULL, 0 },
		{ "*:443", URL_BAD_NAME, NULL, 0 },
		{ ":443", URL_BAD_NAME, NULL, 0 },
		{ "", URL_BAD_NAME, NULL, 0 },
		{ "[name]:443", URL_BAD_NAME, NULL, 0 },
		{ "192.0.2.7", URL_IP_LITERAL, NULL, 0 },
		{ "192.0.2.7:0443", URL_BAD_NAME, NULL, 0 },
		{ "192.0.2.7.:443", URL_IP_LITERAL, NULL, 0 },
		{ "192.0.2.07:443", URL_IP_LITERAL, NULL, 0 },
		{ "2852039166:443", URL_IP_LITERAL, NULL, 0 },
		{ "0251.0376.0251.0376:443", URL_IP_LITERAL, NULL, 0 },
		{ "0x7f.1:443", URL_IP_LITERAL, NULL, 0 },
		{ "127.1:443", URL_IP_LITERAL, NULL, 0 },
		{ "[192.0.2.7]:443", URL_IP_LITERAL, NULL, 0 },
		{ "[::ffff:10.0.0.1]:443", URL_IP_LITERAL, NULL, 0 },
		{ "[2001:db8:0::7]:443", URL_IP_LITERAL, NULL, 0 },
		{ "[2001:DB8::7]:443", URL_IP_LITERAL, NULL, 0 },
		{ "[fe80::1%eth0]:443", URL_IP_LITERAL, NULL, 0 },
		{ "[fe80::1%25eth0]:443", URL_IP_LITERAL, NULL, 0 },
		{ "[v1.x]:443", URL_IP_LITERAL, NULL, 0 },
		{ "2001:db8::7:443", URL_IP_LITERAL, NULL, 0 },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		struct endpoint e;
		enum url_err err = endpoint_parse(&e, t[i].text, strlen(t[i].text));
		if (err != t[i].err)
			fail_msg("%s: %d", t[i].text, err);
		if (err != URL_OK)
			continue;
		char text[NAME_TEXT_SIZE];
		size_t n = e.literal ? addr_to_text(&e.addr, text) : name_to_text(&e.name, text);
		text[n] = '\0';
		assert_string_equal(text, t[i].name);
		assert_int_equal(e.port, t[i].port);
	}
	struct endpoint e;
	assert_int_equal(endpoint_parse(&e, "a.exam\0ple:443", 14), URL_BAD_NAME);
	assert_int_equal(endpoint_parse(&e, "192.0.2.7\0:443", 14), URL_BAD_NAME);
}

static enum url_err target(const char *method, const char *s, struct target *t)
{
	return target_parse(t, method, strlen(method), s, strlen(s));
}

static void origin_form(void **state)
{
	static const char *const ok[] = {
		"/", "/a/b?c=d", "//x", "/%41", "/?", "/a;b", "/a'b\"<>"
	};
	static const char *const bad[] = { "",      "a",   "?x",   "/ ",  "/a b",         "/\x80",
					   "/\x7f", "/\r", "/a#b", "/\t", "a.example:80", "*x" };
	struct target t;
	for (size_t i = 0; i < COUNT(ok); i++) {
		assert_int_equal(target("GET", ok[i], &t), URL_OK);
		assert_false(t.absolute);
		assert_int_equal(t.path_len, strlen(ok[i]));
		assert_memory_equal(t.path, ok[i], t.path_len);
	}
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(target("GET", bad[i], &t), URL_MALFORMED);
	assert_int_equal(target_parse(&t, "GET", 3, "/a\0b", 4), URL_MALFORMED);
	assert_int_equal(target("OPTIONS", "*", &t), URL_OK);
	assert_int_equal(target("GET", "*", &t), URL_MALFORMED);
	assert_int_equal(target("CONNECT", "a.example:443", &t), URL_MALFORMED);
}

static void absolute_form(void **state)
{
	static const struct {
		const char *text;
		enum url_err err;
		const char *path;
	} t[] = {
		{ "http://a.example/x?y", URL_OK, "/x?y" },
		{ "HTTP://A.EXAMPLE/x", URL_OK, "/x" },
		{ "http://a.example", URL_OK, "/" },
		{ "http://a.example:8080/", URL_OK, "/" },
		{ "http://a.example?x", URL_MALFORMED, NULL },
		{ "https://a.example/", URL_MALFORMED, NULL },
		{ "ftp://a.example/", URL_MALFORMED, NULL },
		{ "http:/a.example/", URL_MALFORMED, NULL },
		{ "http:a.example/", URL_MALFORMED, NULL },
		{ "http://", URL_BAD_NAME, NULL },
		{ "http:///x", URL_BAD_NAME, NULL },
		{ "http://user@a.example/", URL_BAD_NAME, NULL },
		{ "http://user:pw@a.example/", URL_BAD_NAME, NULL },
		{ "http://a.example:22:80/", URL_BAD_NAME, NULL },
		{ "http://a.example:/", URL_BAD_NAME, NULL },
		{ "http://a.example\\@evil.example/", URL_BAD_NAME, NULL },
		{ "http://127.0.0.1/", URL_IP_LITERAL, NULL },
		{ "http://[::1]/", URL_IP_LITERAL, NULL },
		{ "http://2852039166/", URL_IP_LITERAL, NULL },
		{ "http://a.example/#f", URL_MALFORMED, NULL },
	};
	struct name want = name_of("a.example");
	for (size_t i = 0; i < COUNT(t); i++) {
		struct target got;
		enum url_err e = target("GET", t[i].text, &got);
		if (e != t[i].err)
			fail_msg("%s: %d", t[i].text, e);
		if (e != URL_OK)
			continue;
		assert_true(got.absolute && name_equal(&got.authority.name, &want));
		assert_int_equal(got.path_len, strlen(t[i].path));
		assert_memory_equal(got.path, t[i].path, got.path_len);
	}
}

static void methods(void **state)
{
	assert_true(method_ok("GET", 3));
	assert_true(method_ok("M-SEARCH", 8));
	assert_true(method_ok("PROPFIND", 8));
	assert_false(method_ok("", 0));
	assert_false(method_ok("G T", 3));
	assert_false(method_ok("G\0T", 3));
	assert_false(method_ok("G\x80T", 3));
	assert_false(method_ok("GET:", 4));
	assert_false(method_ok("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 33));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_ports), cmocka_unit_test(literals),
		cmocka_unit_test(no_names),        cmocka_unit_test(long_names),
		cmocka_unit_test(origin_form),     cmocka_unit_test(absolute_form),
		cmocka_unit_test(methods),         cmocka_unit_test(endpoints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
