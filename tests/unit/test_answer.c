/* SPDX-License-Identifier: Apache-2.0 */
/* From NOTIFY arguments to a question, and from a decision to variables. */
#include "tests/unit/unit.h"

#include "spoa-agent/answer.h"
#include "tests/unit/hello_build.h"

static uint8_t buf[16384], hello[8192];
static size_t hello_len;
static struct writer w;
static struct request req;

/* ---- building messages ---- */

static void start(const char *message, unsigned n_args)
{
	w = wr_init(buf, sizeof(buf));
	spop_put_string(&w, message);
	wr_u8(&w, (uint8_t)n_args);
}

static void put_null(const char *key)
{
	spop_put_string(&w, key);
	wr_u8(&w, SPOP_NULL);
}

static void put_addr(const char *key, const char *text)
{
	struct addr a = addr_of(text);
	bool v4 = addr_is_v4(&a);
	spop_put_string(&w, key);
	wr_u8(&w, v4 ? SPOP_IPV4 : SPOP_IPV6);
	wr_bytes(&w, v4 ? a.b + 12 : a.b, v4 ? 4 : 16);
}

static void put_int(const char *key, uint64_t v)
{
	spop_put_string(&w, key);
	wr_u8(&w, SPOP_INT64);
	spop_put_varint(&w, v);
}

static void put_binary(const char *key, const void *p, size_t n)
{
	spop_put_string(&w, key);
	wr_u8(&w, SPOP_BINARY);
	spop_put_varint(&w, n);
	wr_bytes(&w, p, n);
}

static void put_text(const char *key, const char *s)
{
	if (s)
		spop_put_kv_string(&w, key, s);
	else
		put_null(key);
}

static void ends(void)
{
	put_addr("src", "10.0.0.7");
	put_addr("dst", "192.0.2.9");
	put_int("dport", 443);
}

static const struct question *read_it(void)
{
	assert_false(w.bad);
	uint8_t *exact = malloc(w.len); /* so that a sanitizer sees a read beyond it */
	memcpy(exact, buf, w.len);
	struct request tmp;
	request_read(&tmp, rd_init(exact, w.len));
	static char text[32768];
	assert_true(request_text_size(&tmp) <= sizeof(text));
	request_copy(&req, &tmp, text);
	free(exact);
	return &req.q;
}

static void make_hello(const char *sni)
{
	struct hello_build b = hello_new();
	if (sni)
		hello_sni(&b, sni);
	hello_usual(&b);
	hello_len = hello_record(&b, hello, sizeof(hello));
}

static const struct question *tls(const char *in_hello, const char *sni)
{
	make_hello(in_hello);
	start("cx-tls", 6);
	ends();
	put_binary("hello", hello, hello_len);
	put_text("sni", sni);
	put_text("id", "c-1");
	return read_it();
}

static const struct question *http(const char *method, const char *url, const char *host)
{
	start("cx-http", 7);
	put_addr("src", "10.0.0.7");
	put_addr("dst", "2001:db8::9");
	put_int("dport", 80);
	put_text("method", method);
	put_text("url", url);
	put_text("host", host);
	put_null("upgrade");
	return read_it();
}

/* ---- questions ---- */

static void tls_question(void **state)
{
	const struct question *q = tls("A.Example.", "a.example");
	struct name want = name_of("a.example");
	struct addr src = addr_of("10.0.0.7"), dst = addr_of("192.0.2.9");
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->layer, LAYER_TLS);
	assert_true(q->name && name_equal(q->name, &want));
	assert_true(q->has_dst && addr_cmp(&q->dst, &dst) == 0 && addr_cmp(&q->src, &src) == 0);
	assert_int_equal(q->port, 443);
	assert_null(q->resolved);
	assert_int_equal(req.id_len, 3);
	assert_memory_equal(req.id, "c-1", 3);
}

static void tls_flaws(void **state)
{
	static const struct {
		const char *hello, *sni;
		enum question_flaw flaw;
	} t[] = {
		{ "a.example", "a.example", FLAW_NONE },
		{ "a.example", "A.EXAMPLE.", FLAW_NONE },
		{ "a.example", "b.example", FLAW_NAME_MISMATCH },
		{ "a.example", "a.example\x01", FLAW_NAME_MISMATCH },
		{ "a.example", "", FLAW_NAME_MISMATCH },
		{ "a.example", "a.exampl", FLAW_NAME_MISMATCH },
		{ "a.example", NULL, FLAW_NO_SNI },
		{ NULL, NULL, FLAW_NO_SNI },
		{ NULL, "a.example", FLAW_NO_SNI },
		{ "127.0.0.1", "127.0.0.1", FLAW_IP_LITERAL },
		{ "127.1", "127.1", FLAW_IP_LITERAL },
		{ "2852039166", NULL, FLAW_IP_LITERAL },
		{ "[::1]", "[::1]", FLAW_IP_LITERAL },
		{ "a_b.example", "a_b.example", FLAW_NONE },
		{ "a..example", "a..example", FLAW_BAD_NAME },
		{ "a b.example", "a b.example", FLAW_BAD_NAME },
		{ "a.example:443", "a.example:443", FLAW_BAD_NAME },
		{ ".", ".", FLAW_BAD_NAME },
		{ "*.example", "*.example", FLAW_BAD_NAME },
		{ "\xff.example", "\xff.example", FLAW_BAD_NAME },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		const struct question *q = tls(t[i].hello, t[i].sni);
		if (q->flaw != t[i].flaw)
			fail_msg("%s / %s: %d", t[i].hello, t[i].sni, q->flaw);
	}
}

static void tls_nul(void **state)
{
	struct hello_build b = hello_new();
	hello_sni_raw(&b, "a.example\0.evil", 15);
	hello_usual(&b);
	hello_len = hello_record(&b, hello, sizeof(hello));
	start("cx-tls", 5);
	ends();
	put_binary("hello", hello, hello_len);
	put_text("sni", "a.example");
	assert_int_equal(read_it()->flaw, FLAW_BAD_NAME);
}

static void tls_bad_hellos(void **state)
{
	make_hello("a.example");
	static const char *const other[] = { "", "GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n" };
	for (size_t n = 0; n < hello_len; n += 7) {
		start("cx-tls", 5);
		ends();
		put_binary("hello", hello, n);
		put_text("sni", "a.example");
		assert_int_equal(read_it()->flaw, FLAW_MALFORMED);
	}
	for (size_t i = 0; i < COUNT(other); i++) {
		start("cx-tls", 5);
		ends();
		put_binary("hello", other[i], strlen(other[i]));
		put_null("sni");
		assert_int_equal(read_it()->flaw, FLAW_MALFORMED);
	}
}

static void tls_ech(void **state)
{
	struct hello_build b = hello_new();
	hello_sni(&b, "a.example");
	hello_ext(&b, 0xfe0d, "x", 1);
	hello_len = hello_record(&b, hello, sizeof(hello));
	start("cx-tls", 5);
	ends();
	put_binary("hello", hello, hello_len);
	put_text("sni", "a.example");
	assert_true(read_it()->ech);
	assert_false(tls("a.example", "a.example")->ech);
}

static void http_question(void **state)
{
	const struct question *q = http("GET", "/a?b", "A.example.:80");
	struct name want = name_of("a.example");
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->layer, LAYER_HTTP);
	assert_true(q->name && name_equal(q->name, &want));
	assert_int_equal(q->method_len, 3);
	assert_memory_equal(q->method, "GET", 3);
	assert_int_equal(q->path_len, 4);
	assert_memory_equal(q->path, "/a?b", 4);
	assert_null(q->upgrade);
	assert_null(req.id);
}

static void http_flaws(void **state)
{
	static const struct {
		const char *method, *url, *host;
		enum question_flaw flaw;
	} t[] = {
		{ "GET", "/", "a.example", FLAW_NONE },
		{ "OPTIONS", "*", "a.example", FLAW_NONE },
		{ "GET", "http://a.example/", "a.example", FLAW_NONE },
		{ "GET", "http://a.example:80/", "a.example", FLAW_NONE },
		{ "GET", "http://a.example/", "A.EXAMPLE.:80", FLAW_NONE },
		{ "GET", "/", "a.example:81", FLAW_NAME_MISMATCH },
		{ "GET", "/", "a.example:22", FLAW_NAME_MISMATCH },
		{ "GET", "http://a.example:22/", "a.example", FLAW_NAME_MISMATCH },
		{ "GET", "http://evil.example/", "a.example", FLAW_NAME_MISMATCH },
		{ "GET", "http://evil.a.example/", "a.example", FLAW_NAME_MISMATCH },
		{ "GET", "/", NULL, FLAW_BAD_NAME },
		{ "GET", "/", "", FLAW_BAD_NAME },
		{ "GET", "/", "a.example,evil", FLAW_BAD_NAME },
		{ "GET", "/", "a.example/evil", FLAW_BAD_NAME },
		{ "GET", "/", "u@a.example", FLAW_BAD_NAME },
		{ "GET", "/", "[name]", FLAW_BAD_NAME },
		{ "GET", "/", "[::1]:80", FLAW_IP_LITERAL },
		{ "GET", "/", "0x7f.1", FLAW_IP_LITERAL },
		{ "GET", "http://127.0.0.1/", "a.example", FLAW_IP_LITERAL },
		{ "GET", "http://u@a.example/", "a.example", FLAW_BAD_NAME },
		{ "GET", "https://a.example/", "a.example", FLAW_MALFORMED },
		{ "GET", "a.example:80", "a.example", FLAW_MALFORMED },
		{ "CONNECT", "a.example:80", "a.example:80", FLAW_MALFORMED },
		{ "GET", "*", "a.example", FLAW_MALFORMED },
		{ "GET", "/ x", "a.example", FLAW_MALFORMED },
		{ "G T", "/", "a.example", FLAW_MALFORMED },
		{ "", "/", "a.example", FLAW_MALFORMED },
		{ "GET", "", "127.0.0.1", FLAW_MALFORMED },
		{ NULL, "/", "a.example", FLAW_INTERNAL },
		{ "GET", NULL, "a.example", FLAW_INTERNAL },
		{ NULL, NULL, NULL, FLAW_INTERNAL },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		const struct question *q = http(t[i].method, t[i].url, t[i].host);
		if (q->flaw != t[i].flaw)
			fail_msg("%s %s %s: %d", t[i].method, t[i].url, t[i].host, q->flaw);
	}
}

static void http_upgrade(void **state)
{
	start("cx-http", 8);
	ends();
	put_text("method", "GET");
	put_text("url", "/");
	put_text("host", "a.example");
	put_text("upgrade", "websocket");
	const struct question *q = read_it();
	assert_int_equal(q->flaw, FLAW_INTERNAL); /* eight are announced, seven stand there */
	buf[8] = 7;
	q = read_it();
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->upgrade_len, 9);
	assert_memory_equal(q->upgrade, "websocket", 9);
}

static void tcp_question(void **state)
{
	start("cx-tcp", 3);
	ends();
	const struct question *q = read_it();
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->layer, LAYER_TCP);
	assert_null(q->name);
	assert_int_equal(q->port, 443);
}

static void ends_wrong(void **state)
{
	for (unsigned i = 0; i < 9; i++) {
		start("cx-tcp", 3);
		if (i == 0)
			put_null("src");
		else if (i == 1)
			put_text("src", "10.0.0.7");
		else
			put_addr("src", "10.0.0.7");
		if (i == 2)
			put_null("dst");
		else
			put_addr("dst", "192.0.2.9");
		if (i == 3)
			put_null("dport");
		else if (i == 4)
			put_text("dport", "443");
		else
			put_int("dport", i == 5 ? 0 : i == 6 ? 65536 : i == 7 ? UINT64_MAX : 443);
		assert_int_equal(read_it()->flaw, i == 8 ? FLAW_NONE : FLAW_INTERNAL);
	}
	start("cx-tcp", 0);
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
}

static void odd_messages(void **state)
{
	start("cx-nothing", 3);
	ends();
	const struct question *q = read_it();
	struct addr src = addr_of("10.0.0.7");
	assert_int_equal(q->flaw, FLAW_INTERNAL);
	assert_true(addr_cmp(&q->src, &src) == 0); /* for the log */
	start("", 0);
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
	w = wr_init(buf, sizeof(buf)); /* an empty payload */
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
	start("cx-tcp", 3); /* something behind the message */
	ends();
	wr_u8(&w, 0);
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
	start("cx-tcp", 3); /* a second message */
	ends();
	spop_put_string(&w, "cx-tcp");
	wr_u8(&w, 3);
	ends();
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
	start("cx-tcp", 4); /* an argument twice */
	ends();
	put_int("dport", 22);
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
	start("cx-tcp", 4); /* one that is not known is skipped */
	ends();
	put_text("from-the-future", "x");
	assert_int_equal(read_it()->flaw, FLAW_NONE);
	start("cx-tcp", 255);
	ends();
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
}

static void every_cut(void **state)
{
	tls("a.example", "a.example");
	size_t whole = w.len;
	for (size_t n = 0; n < whole; n++) {
		w.len = n;
		assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
	}
}

static void long_id(void **state)
{
	char id[300];
	memset(id, 'x', sizeof(id) - 1);
	id[sizeof(id) - 1] = 0;
	start("cx-tcp", 4);
	ends();
	put_text("id", id);
	read_it();
	assert_int_equal(req.id_len, ANSWER_MAX_ID);
}

/* ---- answers ---- */

struct vars {
	unsigned n;
	char key[16][16];
	struct spop_value v[16];
};

static struct vars answer(struct decision *d, const struct addr *to)
{
	static uint8_t out[ANSWER_SIZE];
	struct vars vars = { 0 };
	size_t n = answer_write(out, &req, d, to, "");
	assert_true(n > 0);
	for (struct reader r = rd_init(out, n); r.left > 0; vars.n++) {
		const uint8_t *head = rd_take(&r, 3);
		struct spop_bytes key = spop_string(&r);
		/* the generation is the session's, all else the transaction's */
		assert_memory_equal(head, spop_is(key, "bind") ? "\1\3\1" : "\1\3\2", 3);
		assert_true(key.n < 16 && vars.n < 16);
		memcpy(vars.key[vars.n], key.p, key.n);
		vars.v[vars.n] = spop_value(&r);
		assert_false(r.bad);
	}
	return vars;
}

static const struct spop_value *var(const struct vars *v, const char *key)
{
	for (unsigned i = 0; i < v->n; i++)
		if (strcmp(v->key[i], key) == 0)
			return &v->v[i];
	return NULL;
}

static bool is_text(const struct vars *v, const char *key, const char *want)
{
	const struct spop_value *x = var(v, key);
	return x && x->type == SPOP_STRING && spop_is(x->bytes, want);
}

static bool is_number(const struct vars *v, const char *key, uint64_t want)
{
	const struct spop_value *x = var(v, key);
	uint64_t u;
	return x && spop_as_uint(x, UINT32_MAX, &u) && u == want;
}

static struct decision decided(enum action a, enum reason r, enum next n)
{
	return (struct decision){ .v = { .action = a, .reason = r, .next = n },
				  .rule = "0123456789ab" };
}

static void allow(void **state)
{
	struct addr to = addr_of("198.51.100.1"), got;
	tls("A.example", "a.example");
	struct decision d = decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_NONE);
	struct vars v = answer(&d, &to);
	assert_true(is_text(&v, "verdict", "allow"));
	assert_true(is_text(&v, "reason", "allowed"));
	assert_true(is_text(&v, "rule", "0123456789ab"));
	assert_true(is_text(&v, "name", "a.example"));
	assert_true(is_text(&v, "upstream", "direct"));
	assert_true(is_number(&v, "port", 443));
	assert_true(spop_as_addr(var(&v, "addr"), &got) && addr_cmp(&to, &got) == 0);
	assert_null(var(&v, "status"));
	assert_null(var(&v, "next"));
	assert_string_equal(v.key[v.n - 1], "verdict");
	to = addr_of("2001:db8::5");
	v = answer(&d, &to);
	assert_int_equal(var(&v, "addr")->type, SPOP_IPV6);
}

static void generations(void **state)
{
	struct addr to = addr_of("198.51.100.1");
	struct decision d = decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_NONE);
	uint64_t got = 0;
	/* the first question of a connection: the answer says whose it is */
	tls("a.example", "a.example");
	assert_false(req.q.has_generation);
	struct vars v = answer(&d, &to);
	assert_null(var(&v, "bind"));
	d.generation = UINT64_C(1795236592974);
	v = answer(&d, &to);
	assert_true(spop_as_uint(var(&v, "bind"), INT64_MAX, &got) && got == d.generation);
	/* later ones bring it back, and it is not set again, whatever it is by now */
	make_hello("a.example");
	start("cx-tls", 6);
	ends();
	put_binary("hello", hello, hello_len);
	put_text("sni", "a.example");
	put_int("bind", 77);
	const struct question *q = read_it();
	assert_true(q->has_generation);
	assert_int_equal(q->generation, 77);
	assert_int_equal(q->flaw, FLAW_NONE);
	v = answer(&d, &to);
	assert_null(var(&v, "bind"));
	/* null: none yet; anything but a number: no question of ours */
	start("cx-tcp", 4);
	ends();
	put_null("bind");
	assert_false(read_it()->has_generation);
	start("cx-tcp", 4);
	ends();
	put_text("bind", "77");
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
}

static void deny(void **state)
{
	static const struct {
		enum reason reason;
		unsigned status;
	} t[] = { { REASON_NOT_LISTED, 403 },     { REASON_NAME_MISMATCH, 421 },
		  { REASON_RATE_LIMIT, 429 },     { REASON_NO_POLICY, 503 },
		  { REASON_UNRESOLVED, 503 },     { REASON_UPSTREAM, 503 },
		  { REASON_INTERNAL_ERROR, 503 }, { REASON_MALFORMED, 403 },
		  { REASON_ADDRESS, 403 },        { REASON_UNKNOWN_SOURCE, 403 } };
	struct addr to = addr_of("198.51.100.1");
	tls("a.example", "a.example");
	for (size_t i = 0; i < COUNT(t); i++) {
		struct decision d = decided(ACTION_DENY, t[i].reason, NEXT_NONE);
		struct vars v = answer(&d, &to);
		assert_true(is_text(&v, "verdict", "deny"));
		assert_true(is_text(&v, "reason", reason_text(t[i].reason)));
		assert_true(is_number(&v, "status", t[i].status));
		assert_true(!var(&v, "addr") && !var(&v, "port") && !var(&v, "name"));
		assert_true(!var(&v, "retry_after") == (t[i].status != 429));
	}
}

/* A combination that no layer may have is an error of ours, and a deny. */
static void unsound(void **state)
{
	struct addr to = addr_of("198.51.100.1");
	struct {
		struct decision d;
		const struct addr *to;
	} t[] = {
		{ decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_NONE), NULL },
		{ decided(ACTION_NEXT, REASON_ALLOWED, NEXT_TLS), &to },
		{ decided((enum action)9, REASON_ALLOWED, NEXT_NONE), &to },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		tls("a.example", "a.example");
		struct vars v = answer(&t[i].d, t[i].to);
		assert_true(is_text(&v, "verdict", "deny"));
		assert_true(is_text(&v, "reason", "internal-error"));
		assert_int_equal(t[i].d.v.action, ACTION_DENY);
		assert_null(var(&v, "addr"));
	}
	tls("a.example", "b.example"); /* a flaw can never be allowed */
	struct decision d = decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_NONE);
	struct vars v = answer(&d, &to);
	assert_true(is_text(&v, "verdict", "deny"));
}

static void tcp_answers(void **state)
{
	start("cx-tcp", 3);
	ends();
	read_it();
	struct decision d = decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_RAW);
	struct vars v = answer(&d, &req.q.dst);
	assert_true(is_text(&v, "verdict", "allow") && is_text(&v, "next", "raw"));
	assert_true(is_number(&v, "port", 443) && var(&v, "addr") && !var(&v, "name"));
	d = decided(ACTION_NEXT, REASON_ALLOWED, NEXT_TLS);
	v = answer(&d, &req.q.dst);
	assert_true(is_text(&v, "verdict", "next") && is_text(&v, "next", "tls"));
	assert_null(var(&v, "addr"));
	d = decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_TLS); /* never without a hello */
	v = answer(&d, &req.q.dst);
	assert_true(is_text(&v, "verdict", "deny"));
	d = decided(ACTION_NEXT, REASON_ALLOWED, NEXT_RAW);
	v = answer(&d, &req.q.dst);
	assert_true(is_text(&v, "verdict", "deny"));
}

static void longest_answer(void **state)
{
	char name[254];
	struct addr to = addr_of("2001:db8::5");
	memset(name, 'a', 253);
	name[253] = 0;
	for (size_t i = 60; i < 253; i += 61)
		name[i] = '.';
	tls(name, name);
	assert_int_equal(req.q.flaw, FLAW_NONE);
	struct decision d = decided(ACTION_ALLOW, REASON_ALLOWED, NEXT_NONE);
	struct vars v = answer(&d, &to);
	assert_true(is_text(&v, "name", name));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(tls_question),   cmocka_unit_test(tls_flaws),
		cmocka_unit_test(tls_nul),        cmocka_unit_test(tls_bad_hellos),
		cmocka_unit_test(tls_ech),        cmocka_unit_test(http_question),
		cmocka_unit_test(http_flaws),     cmocka_unit_test(http_upgrade),
		cmocka_unit_test(tcp_question),   cmocka_unit_test(ends_wrong),
		cmocka_unit_test(odd_messages),   cmocka_unit_test(every_cut),
		cmocka_unit_test(long_id),        cmocka_unit_test(allow),
		cmocka_unit_test(generations),    cmocka_unit_test(deny),
		cmocka_unit_test(unsound),        cmocka_unit_test(tcp_answers),
		cmocka_unit_test(longest_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
