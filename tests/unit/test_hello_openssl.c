/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our reading of a ClientHello against that of a real server, OpenSSL's: over tens of thousands of
 * mutated and re-cut hellos (HELLO_SCALE in the environment: so many times more, from other seeds),
 * whenever the server sees a name, we saw the same one or refused.
 */
#include "tests/unit/unit.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "shared/base/bytes.h"
#include "spoa-agent/hello.h"

static uint8_t base[4096];
static size_t base_len;
static SSL_CTX *server;
static unsigned scale = 1;
static unsigned long total, agreed, refusals;

/* What the server made of the bytes. */
static struct {
	bool asked; /* it got as far as choosing by name */
	bool has_name;
	char name[512];
} seen;

static int on_name(SSL *ssl, int *alert, void *arg)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	seen.asked = true;
	seen.has_name = name != NULL;
	if (name)
		snprintf(seen.name, sizeof(seen.name), "%s", name);
	return SSL_TLSEXT_ERR_ALERT_FATAL; /* the rest of the handshake does not matter */
}

/* A hello as OpenSSL's own client sends it. */
static void make_hello(const char *name)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	SSL_set_bio(ssl, in, out);
	SSL_set_tlsext_host_name(ssl, name);
	SSL_connect(ssl);
	int n = BIO_read(out, base, sizeof(base));
	assert_true(n > 100);
	base_len = (size_t)n;
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static int setup(void **state)
{
	const char *s = getenv("HELLO_SCALE");
	if (s)
		scale = (unsigned)strtoul(s, NULL, 10);
	server = SSL_CTX_new(TLS_server_method());
	SSL_CTX_set_min_proto_version(server, TLS1_VERSION);
	SSL_CTX_set_security_level(server, 0);
	SSL_CTX_set_tlsext_servername_callback(server, on_name);
	make_hello("allowed.example");
	return server ? 0 : -1;
}

static int teardown(void **state)
{
	SSL_CTX_free(server);
	print_message("%lu hellos: the same name in %lu, refused where the server saw one %lu\n",
		      total, agreed, refusals);
	return 0;
}

static void ask_server(const uint8_t *p, size_t n)
{
	memset(&seen, 0, sizeof(seen));
	SSL *ssl = SSL_new(server);
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	BIO_write(in, p, (int)n);
	SSL_set_bio(ssl, in, out);
	SSL_accept(ssl);
	SSL_free(ssl);
	ERR_clear_error();
}

struct tally {
	unsigned both, refused, silent;
};

static void compare(const uint8_t *p, size_t n, struct tally *t)
{
	struct hello h;
	struct name ours, theirs;
	ask_server(p, n);
	total++;
	if (!seen.asked || !seen.has_name) {
		t->silent++;
		return;
	}
	if (hello_parse(&h, p, n) != HELLO_OK || !h.sni ||
	    name_from_text(&ours, (const char *)h.sni, h.sni_len) != NAME_OK) {
		t->refused++;
		refusals++;
		return;
	}
	if (name_from_text(&theirs, seen.name, strlen(seen.name)) != NAME_OK ||
	    !name_equal(&ours, &theirs))
		fail_msg("the server sees \"%s\" where we see \"%.*s\"", seen.name, (int)h.sni_len,
			 (const char *)h.sni);
	t->both++;
	agreed++;
}

static void unchanged(void **state)
{
	struct tally t = { 0 };
	compare(base, base_len, &t);
	assert_true(t.both == 1);
	assert_string_equal(seen.name, "allowed.example");
}

static void changed_octets(void **state)
{
	uint8_t b[sizeof(base)];
	struct tally t = { 0 };
	uint64_t seed = 11;
	for (unsigned i = 0; i < 20000 * scale; i++) {
		memcpy(b, base, base_len);
		for (unsigned k = next_random(&seed) % 3; k < 3; k++) {
			size_t at = next_random(&seed) % base_len;
			if (next_random(&seed) % 2)
				b[at] = (uint8_t)next_random(&seed);
			else
				b[at] = (uint8_t)(b[at] + 1 - 2 * (next_random(&seed) % 2));
		}
		compare(b, base_len, &t);
	}
	assert_true(t.both > 1000);
}

/* ---- structure: the hello taken apart, and put together in another way ---- */

enum { BEFORE_EXTENSIONS = 5 + 4 + 2 + 32, MAX_PARTS = 32 };

struct parts {
	uint8_t head[512]; /* of the message: version to compression */
	size_t head_len;
	struct {
		uint8_t b[1024];
		size_t n;
	} ext[MAX_PARTS];
	unsigned n;
};

static void take_apart(struct parts *p)
{
	memset(p, 0, sizeof(*p));
	struct reader r = rd_init(base + BEFORE_EXTENSIONS, base_len - BEFORE_EXTENSIONS);
	rd_skip(&r, rd_u8(&r));
	rd_skip(&r, rd_be16(&r));
	rd_skip(&r, rd_u8(&r));
	p->head_len = base_len - r.left - 9;
	memcpy(p->head, base + 9, p->head_len);
	rd_be16(&r);
	while (r.left > 0) {
		const uint8_t *at = r.p;
		rd_skip(&r, 2);
		rd_skip(&r, rd_be16(&r));
		assert_false(r.bad);
		p->ext[p->n].n = (size_t)(r.p - at);
		memcpy(p->ext[p->n].b, at, p->ext[p->n].n);
		p->n++;
	}
}

static void add_sni(struct parts *p, unsigned at, const char *const *names, unsigned n,
		    uint8_t type)
{
	uint8_t list[900];
	struct writer l = wr_init(list, sizeof(list));
	for (unsigned i = 0; i < n; i++) {
		wr_u8(&l, type);
		wr_be16(&l, (uint16_t)strlen(names[i]));
		wr_bytes(&l, names[i], strlen(names[i]));
	}
	for (unsigned i = p->n; i > at; i--)
		p->ext[i] = p->ext[i - 1];
	p->n++;
	struct writer w = wr_init(p->ext[at].b, sizeof(p->ext[at].b));
	wr_be16(&w, 0);
	wr_be16(&w, (uint16_t)(l.len + 2));
	wr_be16(&w, (uint16_t)l.len);
	wr_bytes(&w, list, l.len);
	p->ext[at].n = w.len;
}

static size_t put_together(const struct parts *p, uint8_t *out, size_t cap)
{
	size_t ext = 0;
	for (unsigned i = 0; i < p->n; i++)
		ext += p->ext[i].n;
	struct writer w = wr_init(out, cap);
	wr_be32(&w, (uint32_t)1 << 24 | (uint32_t)(p->head_len + 2 + ext));
	wr_bytes(&w, p->head, p->head_len);
	wr_be16(&w, (uint16_t)ext);
	for (unsigned i = 0; i < p->n; i++)
		wr_bytes(&w, p->ext[i].b, p->ext[i].n);
	assert_false(w.bad);
	return w.len;
}

/* A message over records of the given size, the last one shorter. */
static size_t in_records(const uint8_t *msg, size_t n, size_t size, uint8_t *out, size_t cap)
{
	struct writer w = wr_init(out, cap);
	for (size_t at = 0; at < n; at += size) {
		size_t k = n - at < size ? n - at : size;
		wr_u8(&w, 22);
		wr_be16(&w, 0x0301);
		wr_be16(&w, (uint16_t)k);
		wr_bytes(&w, msg + at, k);
	}
	assert_false(w.bad);
	return w.len;
}

static void another_structure(void **state)
{
	static const char *const names[] = {
		"evil.example", "allowed.example", "ALLOWED.example.", "127.0.0.1", "a..b", ""
	};
	uint8_t msg[8192], b[16384];
	struct tally t = { 0 };
	struct parts p;
	uint64_t seed = 5;
	for (unsigned i = 0; i < 10000 * scale; i++) {
		take_apart(&p);
		unsigned kind = (unsigned)(next_random(&seed) % 4);
		const char *pick[2] = { names[next_random(&seed) % COUNT(names)],
					names[next_random(&seed) % COUNT(names)] };
		unsigned at = (unsigned)(next_random(&seed) % (p.n + 1));
		if (kind == 0) /* a second extension */
			add_sni(&p, at, pick, 1, 0);
		else if (kind ==
			 1) { /* another one in the first one's place, with one or two names */
			for (unsigned k = 0; k < p.n; k++)
				if (p.ext[k].b[0] == 0 && p.ext[k].b[1] == 0)
					p.ext[k].b[1] = 0xfe;
			add_sni(&p, at, pick, 1 + (unsigned)(next_random(&seed) % 2),
				(uint8_t)(next_random(&seed) % 8 == 0));
		} else if (kind == 2) { /* swapped */
			unsigned other = (unsigned)(next_random(&seed) % p.n);
			at = at % p.n;
			struct parts q = p;
			p.ext[at] = q.ext[other];
			p.ext[other] = q.ext[at];
		}
		size_t n = put_together(&p, msg, sizeof(msg));
		size_t size = next_random(&seed) % 2 ? n : 1 + next_random(&seed) % n;
		n = in_records(msg, n, size, b, sizeof(b));
		compare(b, n, &t);
	}
	assert_true(t.both > 500);
	assert_true(t.refused > 500);
}

static void something_behind(void **state)
{
	uint8_t b[sizeof(base) + 64];
	struct tally t = { 0 };
	uint64_t seed = 9;
	for (unsigned i = 0; i < 2000 * scale; i++) {
		memcpy(b, base, base_len);
		size_t n = next_random(&seed) % 64;
		for (size_t k = 0; k < n; k++)
			b[base_len + k] = (uint8_t)next_random(&seed);
		compare(b, base_len + n, &t);
	}
	assert_true(t.refused > 1500);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(unchanged),
		cmocka_unit_test(changed_octets),
		cmocka_unit_test(another_structure),
		cmocka_unit_test(something_behind),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
