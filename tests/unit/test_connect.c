/* SPDX-License-Identifier: Apache-2.0 */
/* CONNECT, what is inside one, and requests to a proxy: arguments to question, decision to variables. */
#include "tests/unit/unit.h"

#include "spoa-agent/answer.h"
#include "tests/unit/hello_build.h"

static uint8_t buf[16384], hello[8192];
static struct writer w;
static struct request req;

static void start(const char *message, unsigned n_args)
{
	w = wr_init(buf, sizeof(buf));
	spop_put_string(&w, message);
	wr_u8(&w, (uint8_t)n_args);
}

static void put_addr(const char *key, const char *text)
{
	struct addr a = addr_of(text);
	spop_put_string(&w, key);
	wr_u8(&w, SPOP_IPV4);
	wr_bytes(&w, a.b + 12, 4);
}

static void put_text(const char *key, const char *s)
{
	if (s) {
		spop_put_kv_string(&w, key, s);
		return;
	}
	spop_put_string(&w, key);
	wr_u8(&w, SPOP_NULL);
}

/* Towards the proxy itself, whose port 3128 is never the one that is judged. */
static void put_ends(void)
{
	put_addr("src", "10.0.0.7");
	put_addr("dst", "10.0.0.1");
	spop_put_string(&w, "dport");
	wr_u8(&w, SPOP_INT64);
	spop_put_varint(&w, 3128);
}

static const struct question *read_it(void)
{
	assert_false(w.bad);
	request_read(&req, rd_init(buf, w.len));
	return &req.q;
}

static const struct question *connect_to(const char *authority)
{
	start("cx-connect", 2);
	put_addr("src", "10.0.0.7");
	put_text("authority", authority);
	return read_it();
}

static const struct question *tunnel_tls(const char *authority, const char *in_hello)
{
	struct hello_build b = hello_new();
	hello_sni(&b, in_hello);
	hello_usual(&b);
	size_t n = hello_record(&b, hello, sizeof(hello));
	start("cx-tunnel-tls", 6);
	put_ends();
	spop_put_string(&w, "hello");
	wr_u8(&w, SPOP_BINARY);
	spop_put_varint(&w, n);
	wr_bytes(&w, hello, n);
	put_text("sni", in_hello);
	put_text("authority", authority);
	return read_it();
}

static const struct question *tunnel_tcp(const char *authority)
{
	start("cx-tunnel-tcp", 4);
	put_ends();
	put_text("authority", authority);
	return read_it();
}

static const struct question *http(const char *url, const char *host, const char *authority,
				   const char *form)
{
	start("cx-http", 8);
	put_ends();
	put_text("method", "GET");
	put_text("url", url);
	put_text("host", host);
	put_text("authority", authority);
	put_text("form", form);
	return read_it();
}

static void connects(void **state)
{
	const struct question *q = connect_to("A.Example.:443");
	struct name want = name_of("a.example");
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->layer, LAYER_CONNECT);
	assert_true(q->name && name_equal(q->name, &want) && !q->has_dst);
	assert_int_equal(q->port, 443);
	q = connect_to("192.0.2.7:22");
	struct addr dst = addr_of("192.0.2.7");
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_true(q->has_dst && !q->name && addr_cmp(&q->dst, &dst) == 0);
	assert_int_equal(connect_to("a@b:443")->flaw, FLAW_BAD_NAME);
	assert_int_equal(connect_to("127.1:443")->flaw, FLAW_IP_LITERAL);
	assert_int_equal(connect_to("a.example")->flaw, FLAW_BAD_NAME);
	assert_int_equal(connect_to(NULL)->flaw, FLAW_INTERNAL);
	start("cx-connect", 1);
	put_text("authority", "a.example:443");
	assert_int_equal(read_it()->flaw, FLAW_INTERNAL);
}

static void inner_hellos(void **state)
{
	const struct question *q = tunnel_tls("a.example:8443", "A.Example");
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->layer, LAYER_TLS);
	assert_int_equal(q->port, 8443);
	assert_int_equal(tunnel_tls("b.example:443", "a.example")->flaw, FLAW_NAME_MISMATCH);
	assert_int_equal(tunnel_tls("192.0.2.7:443", "a.example")->flaw, FLAW_NAME_MISMATCH);
	assert_int_equal(tunnel_tls("a.example:0443", "a.example")->flaw, FLAW_BAD_NAME);
	assert_int_equal(tunnel_tls(NULL, "a.example")->flaw, FLAW_INTERNAL);
}

static void raw_tunnels(void **state)
{
	const struct question *q = tunnel_tcp("a.example:22");
	assert_int_equal(q->flaw, FLAW_NONE);
	assert_int_equal(q->layer, LAYER_TCP);
	assert_true(q->name && !q->has_dst);
	assert_int_equal(q->port, 22);
	q = tunnel_tcp("192.0.2.7:22");
	struct addr dst = addr_of("192.0.2.7");
	assert_true(!q->name && q->has_dst && addr_cmp(&q->dst, &dst) == 0);
	/* the proxy's own address never takes the place of what the CONNECT says */
	q = tunnel_tcp("nonsense");
	assert_true(q->flaw == FLAW_BAD_NAME && !q->has_dst);
	q = tunnel_tcp(NULL);
	assert_true(q->flaw == FLAW_INTERNAL && !q->has_dst);
}

static void requests(void **state)
{
	static const struct {
		const char *url, *host, *authority, *form;
		enum question_flaw flaw;
		uint16_t port;
	} t[] = {
		/* to a proxy */
		{ "http://a.example/x", "a.example", NULL, "absolute", FLAW_NONE, 80 },
		{ "http://a.example:8000/x", "a.example:8000", NULL, "absolute", FLAW_NONE, 8000 },
		{ "http://a.example:80/", "a.example", NULL, "absolute", FLAW_NONE, 80 },
		{ "/x", "a.example", NULL, "absolute", FLAW_MALFORMED, 3128 },
		{ "http://a.example/", "b.example", NULL, "absolute", FLAW_NAME_MISMATCH, 80 },
		{ "http://a.example:22/", "a.example:80", NULL, "absolute", FLAW_NAME_MISMATCH,
		  22 },
		{ "http://a.example/", "a.example:22", NULL, "absolute", FLAW_NAME_MISMATCH, 80 },
		{ "http://a.example/", NULL, NULL, "absolute", FLAW_BAD_NAME, 80 },
		{ "http://a.example/", "a.example", NULL, "origin", FLAW_INTERNAL, 3128 },
		/* inside a CONNECT */
		{ "/x", "a.example", "a.example:8000", NULL, FLAW_NONE, 8000 },
		{ "/x", "A.example:8000", "a.example:8000", NULL, FLAW_NONE, 8000 },
		{ "http://a.example:8000/x", "a.example", "a.example:8000", NULL, FLAW_NONE, 8000 },
		{ "/x", "b.example", "a.example:8000", NULL, FLAW_NAME_MISMATCH, 8000 },
		{ "/x", "a.example:80", "a.example:8000", NULL, FLAW_NAME_MISMATCH, 8000 },
		{ "http://b.example/x", "a.example", "a.example:80", NULL, FLAW_NAME_MISMATCH, 80 },
		{ "/x", "a.example", "192.0.2.7:80", NULL, FLAW_NAME_MISMATCH, 80 },
		{ "/x", "a.example", "a@b:80", NULL, FLAW_BAD_NAME, 3128 },
		/* neither: then the port of the connection is judged, which is nobody's */
		{ "http://a.example/x", "a.example", NULL, NULL, FLAW_NONE, 3128 },
	};
	for (size_t i = 0; i < COUNT(t); i++) {
		const struct question *q = http(t[i].url, t[i].host, t[i].authority, t[i].form);
		if (q->flaw != t[i].flaw || q->port != t[i].port)
			fail_msg("%zu: flaw %d port %u", i, q->flaw, q->port);
	}
}

static bool says(const uint8_t *p, size_t n, const char *text)
{
	return memmem(p, n, text, strlen(text)) != NULL;
}

static void answers(void **state)
{
	uint8_t out[ANSWER_SIZE];
	struct addr to = addr_of("192.0.2.7");
	struct decision d = { .v = { .action = ACTION_NEXT, .reason = REASON_ALLOWED } };
	connect_to("a.example:22");
	for (int next = NEXT_TLS; next <= NEXT_RAW; next++) {
		d.v.next = (enum next)next;
		size_t n = answer_write(out, &req, &d, NULL, "");
		assert_true(says(out, n, next_text(d.v.next)) && says(out, n, "a.example"));
		assert_int_equal(d.v.action, ACTION_NEXT);
	}
	d.v.action = ACTION_ALLOW; /* a CONNECT alone opens nothing */
	size_t n = answer_write(out, &req, &d, &to, "");
	assert_true(says(out, n, "internal-error") && d.v.action == ACTION_DENY);
	d.v = (struct verdict){ .action = ACTION_ALLOW,
				.reason = REASON_ALLOWED,
				.next = NEXT_RAW };
	tunnel_tcp("a.example:22");
	n = answer_write(out, &req, &d, &to, "");
	assert_true(says(out, n, "allow") && d.v.action == ACTION_ALLOW);
	n = answer_write(out, &req, &d, NULL, ""); /* and nowhere to go is no answer */
	assert_true(says(out, n, "internal-error") && d.v.action == ACTION_DENY);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(connects),    cmocka_unit_test(inner_hellos),
		cmocka_unit_test(raw_tunnels), cmocka_unit_test(requests),
		cmocka_unit_test(answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
