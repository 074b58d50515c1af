/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stub: messages, well-formed and hostile, and look-ups against a resolver of our own that stands
 * in the same loop on a loopback port.
 */
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <ev.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "spoa-agent/resolve.h"

/* ---- messages ---- */

enum { QR = 0x8180, TC = 0x0200, NXDOMAIN = 3, SERVFAIL = 2 };

static uint8_t msg[4096];
static struct writer w;

static void put_name(const char *text)
{
	struct name n = name_of(text);
	wr_bytes(&w, n.wire, n.len);
	wr_u8(&w, 0);
}

static void head(uint16_t id, uint16_t flags, unsigned an, unsigned ns)
{
	w = wr_init(msg, sizeof(msg));
	wr_be16(&w, id);
	wr_be16(&w, flags);
	wr_be16(&w, 1);
	wr_be16(&w, (uint16_t)an);
	wr_be16(&w, (uint16_t)ns);
	wr_be16(&w, 0);
}

static void question(const char *name, uint16_t type)
{
	put_name(name);
	wr_be16(&w, type);
	wr_be16(&w, 1);
}

static void rr(const char *owner, uint16_t type, uint32_t ttl, const void *data, size_t n)
{
	if (owner)
		put_name(owner);
	else
		wr_be16(&w, 0xc00c); /* the question's name */
	wr_be16(&w, type);
	wr_be16(&w, 1);
	wr_be32(&w, ttl);
	wr_be16(&w, (uint16_t)n);
	wr_bytes(&w, data, n);
}

static void rr_name(const char *owner, uint16_t type, uint32_t ttl, const char *target)
{
	struct name n = name_of(target);
	uint8_t data[NAME_MAX_WIRE + 1];
	memcpy(data, n.wire, n.len);
	data[n.len] = 0;
	rr(owner, type, ttl, data, n.len + 1u);
}

static enum dns_result read_msg(struct dns_answer *a, const char *name, uint16_t type)
{
	struct name n = name_of(name);
	assert_false(w.bad);
	uint8_t *exact = malloc(w.len ? w.len : 1);
	memcpy(exact, msg, w.len);
	enum dns_result e = dns_read(a, exact, w.len, 7, &n, type);
	free(exact);
	return e;
}

static void query_form(void **state)
{
	uint8_t q[DNS_QUERY_SIZE];
	struct name n = name_of("a.example");
	size_t len = dns_query(q, 0x1234, &n, DNS_AAAA);
	static const uint8_t want[] = "\x12\x34\1\0\0\1\0\0\0\0\0\1\1a\7example\0\0\x1c\0\1"
				      "\0\0\x29\x04\xd0\0\0\0\0\0";
	assert_int_equal(len, sizeof(want));
	assert_memory_equal(q, want, len);
}

static void addresses(void **state)
{
	struct dns_answer a;
	struct addr want = addr_of("192.0.2.1");
	head(7, QR, 2, 0);
	question("a.example", DNS_A);
	rr(NULL, DNS_A, 60, "\xc0\0\2\1", 4);
	rr("A.Example", DNS_A, 30, "\xc0\0\2\2", 4);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_ANSWERED);
	assert_int_equal(a.n, 2);
	assert_int_equal(a.ttl_s, 30);
	assert_true(addr_cmp(&a.v[0], &want) == 0);
}

/* An address counts at the end of the chain of aliases only, and the resolver's word is enough. */
static void aliases(void **state)
{
	struct dns_answer a;
	struct addr want = addr_of("192.0.2.7");
	head(7, QR, 5, 0);
	question("a.example", DNS_A);
	rr_name(NULL, 5, 100, "b.example");
	rr("evil.example", DNS_A, 60, "\xc0\0\2\6", 4);
	rr_name("b.example", 5, 50, "c.example");
	rr("b.example", DNS_A, 1, "\xc0\0\2\5", 4);
	rr("c.example", DNS_A, 60, "\xc0\0\2\7", 4);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_ANSWERED);
	assert_int_equal(a.n, 1);
	assert_int_equal(a.ttl_s, 50);
	assert_true(addr_cmp(&a.v[0], &want) == 0);
	assert_int_equal(a.chain_len, 22);
	assert_memory_equal(a.chain, "\1b\7example\0\1c\7example", 22);
	head(7, QR, 2, 0); /* a loop */
	question("a.example", DNS_A);
	rr_name("a.example", 5, 100, "b.example");
	rr_name("b.example", 5, 100, "a.example");
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_ANSWERED);
	assert_int_equal(a.n, 0);
	head(7, QR, 70, 0); /* more aliases than anybody keeps in mind */
	question("a.example", DNS_A);
	for (unsigned i = 0; i < 70; i++)
		rr_name(i % 2 ? "b.example" : "a.example", 5, 100,
			i % 2 ? "a.example" : "b.example");
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_FAILED);
}

static void nothing(void **state)
{
	static const uint8_t soa[] = "\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\5";
	struct dns_answer a;
	head(7, QR | NXDOMAIN, 0, 1);
	question("a.example", DNS_A);
	rr("example", 6, 60, soa, 22);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_ANSWERED);
	assert_int_equal(a.n, 0);
	assert_int_equal(a.ttl_s, 5);
	head(7, QR | NXDOMAIN, 1, 0); /* an address that NXDOMAIN contradicts */
	question("a.example", DNS_A);
	rr(NULL, DNS_A, 60, "\xc0\0\2\1", 4);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_ANSWERED);
	assert_int_equal(a.n, 0);
}

static void failures(void **state)
{
	struct dns_answer a;
	static const uint16_t codes[] = { 1, SERVFAIL, 4, 5, 9, 15 };
	for (size_t i = 0; i < COUNT(codes); i++) {
		head(7, QR | codes[i], 0, 0);
		question("a.example", DNS_A);
		assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_FAILED);
	}
	head(7, QR | TC, 0, 0);
	question("a.example", DNS_A);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_TRUNCATED);
	head(7, QR, 3, 0); /* fewer records than announced */
	question("a.example", DNS_A);
	rr(NULL, DNS_A, 60, "\xc0\0\2\1", 4);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_FAILED);
}

static void foreign(void **state)
{
	struct dns_answer a;
	static const struct {
		uint16_t id, flags, type;
		const char *name;
	} t[] = { { 8, QR, DNS_A, "a.example" },
		  { 7, 0x0100, DNS_A, "a.example" },
		  { 7, QR | 0x2800, DNS_A, "a.example" },
		  { 7, QR, DNS_AAAA, "a.example" },
		  { 7, QR, DNS_A, "b.example" } };
	for (size_t i = 0; i < COUNT(t); i++) {
		head(t[i].id, t[i].flags, 1, 0);
		question(t[i].name, t[i].type);
		rr(NULL, DNS_A, 60, "\xc0\0\2\1", 4);
		assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_FOREIGN);
	}
	head(7, QR, 0, 0);
	question("a.example", DNS_A);
	msg[5] = 2;
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_FOREIGN);
}

static void wrong_records(void **state)
{
	struct dns_answer a;
	head(7, QR, 4, 0);
	question("a.example", DNS_A);
	rr(NULL, DNS_A, 60, "\xc0\0\2", 3);
	rr(NULL, DNS_A, 60, "\xc0\0\2\1\1", 5);
	rr(NULL, DNS_AAAA, 60, "0123456789abcdef", 16);
	rr(NULL, DNS_A, UINT32_MAX, "\xc0\0\2\1", 4);
	assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_ANSWERED);
	assert_int_equal(a.n, 1);
	assert_int_equal(a.ttl_s, 0);
}

/* Pointers only go backwards: forwards, to themselves and in circles is the end. */
static void pointers(void **state)
{
	static const char *const tails[] = { "\xc0\x1b", "\xc0\x1d", "\xc0\xff", "\xff\xff",
					     "\x40",     "\x80",     "\xc0" };
	for (size_t i = 0; i < COUNT(tails); i++) {
		struct dns_answer a;
		head(7, QR, 1, 0);
		question("a.example", DNS_A); /* ends at 27 = 0x1b */
		wr_bytes(&w, tails[i], strlen(tails[i]));
		wr_bytes(&w, "\0\1\0\1\0\0\0\1\0\4\1\2\3\4", 14);
		assert_int_equal(read_msg(&a, "a.example", DNS_A), DNS_FAILED);
	}
}

static void many_addresses(void **state)
{
	struct dns_answer a;
	head(7, QR, 100, 0);
	question("a.example", DNS_AAAA);
	for (unsigned i = 0; i < 100; i++)
		rr(NULL, DNS_AAAA, 60, "0123456789abcdef", 16);
	assert_int_equal(read_msg(&a, "a.example", DNS_AAAA), DNS_ANSWERED);
	assert_int_equal(a.n, DNS_MAX_ADDRS);
}

static void mutated_messages(void **state)
{
	uint64_t seed = 3;
	for (unsigned i = 0; i < 100000; i++) {
		struct dns_answer a = { .n = 0 };
		head(7, QR, 3, 1);
		question("a.example", DNS_A);
		rr_name(NULL, 5, 100, "b.example");
		rr("b.example", DNS_A, 60, "\xc0\0\2\6", 4);
		rr(NULL, DNS_A, 60, "\xc0\0\2\6", 4);
		rr(NULL, 6, 60, "0123456789abcdef", 16);
		for (unsigned k = 0; k < 4; k++)
			msg[12 + next_random(&seed) % (w.len - 12)] = (uint8_t)next_random(&seed);
		w.len -= next_random(&seed) % 4;
		read_msg(&a, "a.example", DNS_A);
		assert_true(a.n <= DNS_MAX_ADDRS);
	}
}

/* ---- look-ups ---- */

static struct fixture {
	struct ev_loop *loop;
	struct resolver *r;
	struct resolver_options o;
	int udp, tcp;
	ev_io udp_io, tcp_io;
	unsigned questions, tcp_questions;
	bool silent, silent_v6, fail, truncate, foreign_first;
	uint32_t ttl;
} fx;

static void make_reply(const uint8_t *q, size_t n, bool over_tcp)
{
	struct name name;
	size_t used;
	assert_int_equal(name_from_wire(&name, q + 12, n - 12, &used), NAME_OK);
	uint16_t type = (uint16_t)(q[12 + used] << 8 | q[13 + used]);
	char text[NAME_TEXT_SIZE];
	name_to_text(&name, text);
	bool tc = fx.truncate && !over_tcp;
	head((uint16_t)(q[0] << 8 | q[1]),
	     (uint16_t)(QR | (tc ? TC : 0) | (fx.fail ? SERVFAIL : 0)), tc || fx.fail ? 0 : 1, 0);
	question(text, type);
	if (tc || fx.fail)
		return;
	if (type == DNS_A)
		rr(NULL, DNS_A, fx.ttl, "\xc6\x33\x64\1", 4);
	else
		rr(NULL, DNS_AAAA, fx.ttl, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
}

static void on_question(struct ev_loop *loop, ev_io *io, int events)
{
	uint8_t q[512];
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(io->fd, q, sizeof(q), 0, (struct sockaddr *)&from, &len);
	if (n < 17)
		return;
	fx.questions++;
	bool v6 = q[n - 14] == DNS_AAAA; /* the type, before class and OPT */
	if (fx.silent || (fx.silent_v6 && v6))
		return;
	make_reply(q, (size_t)n, false);
	if (fx.foreign_first) {
		msg[0] ^= 1;
		sendto(io->fd, msg, w.len, 0, (struct sockaddr *)&from, len);
		msg[0] ^= 1;
	}
	sendto(io->fd, msg, w.len, 0, (struct sockaddr *)&from, len);
}

/* One question a connection, in one piece each way: enough for a stub on loopback. */
static void on_tcp_question(struct ev_loop *loop, ev_io *io, int events)
{
	uint8_t q[512], size[2];
	int fd = accept(io->fd, NULL, NULL);
	ssize_t n = recv(fd, q, sizeof(q), 0);
	assert_true(n > 19);
	fx.tcp_questions++;
	make_reply(q + 2, (size_t)n - 2, true);
	size[0] = (uint8_t)(w.len >> 8);
	size[1] = (uint8_t)w.len;
	send(fd, size, 2, MSG_NOSIGNAL);
	send(fd, msg, w.len, MSG_NOSIGNAL);
	close(fd);
}

static int setup(void **state)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	memset(&fx, 0, sizeof(fx));
	fx.ttl = 60;
	fx.loop = ev_loop_new(0);
	fx.tcp = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fx.tcp, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fx.tcp, 8), 0);
	getsockname(fx.tcp, (struct sockaddr *)&a, &len);
	fx.udp = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(bind(fx.udp, (struct sockaddr *)&a, sizeof(a)), 0);
	ev_io_init(&fx.udp_io, on_question, fx.udp, EV_READ);
	ev_io_init(&fx.tcp_io, on_tcp_question, fx.tcp, EV_READ);
	ev_io_start(fx.loop, &fx.udp_io);
	ev_io_start(fx.loop, &fx.tcp_io);
	char server[64];
	snprintf(server, sizeof(server), "127.0.0.1@%u", ntohs(a.sin_port));
	fx.o = (struct resolver_options){ .deadline_s = 0.6, .max_in_flight = 4, .cache_names = 8 };
	assert_true(resolver_server(&fx.o, server));
	fx.r = resolver_new(fx.loop, &fx.o);
	assert_non_null(fx.r);
	return 0;
}

static int teardown(void **state)
{
	resolver_free(fx.r);
	close(fx.udp);
	close(fx.tcp);
	ev_loop_destroy(fx.loop);
	return 0;
}

struct wait {
	struct resolve_waiter w;
	unsigned calls;
	bool final, early; /* takes the first half */
	struct resolved got;
};

static unsigned unfinished;

static bool on_ready(struct resolve_waiter *rw, const struct resolved *r, bool final)
{
	struct wait *x = (struct wait *)rw;
	x->calls++;
	x->final = final;
	x->got = *r;
	if (!final && !(x->early && r->v4.done))
		return false;
	unfinished--;
	return true;
}

static void run_until_done(void)
{
	while (unfinished > 0)
		ev_run(fx.loop, EVRUN_ONCE);
}

static bool start_wait(struct wait *x, const char *name)
{
	struct name n = name_of(name);
	memset(x, 0, sizeof(*x));
	x->w.ready = on_ready;
	if (!resolver_wait(fx.r, &n, &x->w))
		return false;
	unfinished++;
	return true;
}

static const struct resolved *known(const char *name)
{
	struct name n = name_of(name);
	return resolver_known(fx.r, &n);
}

static void looks_up(void **state)
{
	struct wait x;
	struct addr list[RESOLVE_MAX_ADDRS], v4 = addr_of("198.51.100.1"),
					     v6 = addr_of("2001:db8::1");
	assert_null(known("a.example"));
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_true(x.final);
	assert_int_equal(resolved_list(&x.got, false, list), 2);
	assert_true(addr_cmp(&list[0], &v4) == 0 && addr_cmp(&list[1], &v6) == 0);
	assert_int_equal(resolved_list(&x.got, true, list), 2);
	assert_true(addr_cmp(&list[0], &v6) == 0 && addr_cmp(&list[1], &v4) == 0);
	assert_non_null(known("a.example"));
	assert_null(known("b.example"));
	assert_int_equal(fx.questions, 2);
}

static void ttl_zero_is_short(void **state)
{
	struct wait x;
	fx.ttl = 0;
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_non_null(known("a.example"));
	usleep(1100000);
	assert_null(known("a.example"));
}

static void one_look_up_for_many(void **state)
{
	struct wait x[50];
	for (size_t i = 0; i < COUNT(x); i++)
		assert_true(start_wait(&x[i], "a.example"));
	run_until_done();
	assert_int_equal(fx.questions, 2);
	for (size_t i = 0; i < COUNT(x); i++)
		assert_true(x[i].got.v4.a.n == 1 && x[i].got.v6.a.n == 1);
	struct resolver_stats s;
	resolver_stats(fx.r, &s);
	assert_true(s.misses == 1 && s.joined == 49 && s.in_flight == 0);
}

static void first_half_is_enough(void **state)
{
	struct wait x, y;
	fx.silent_v6 = true;
	assert_true(start_wait(&x, "a.example"));
	x.early = true;
	assert_true(start_wait(&y, "a.example"));
	while (unfinished > 1)
		ev_run(fx.loop, EVRUN_ONCE);
	assert_true(!x.final && x.got.v4.a.n == 1 && !x.got.v6.done);
	run_until_done(); /* the other waits for the deadline */
	assert_true(y.final && y.got.v6.failed && y.got.v4.a.n == 1);
}

static void deadline(void **state)
{
	struct wait x;
	fx.silent = true;
	double t = ev_time();
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_true(ev_time() - t > 0.5);
	assert_true(x.final && x.got.v4.failed && x.got.v6.failed);
	assert_true(fx.questions >= 4);      /* asked more than once */
	assert_non_null(known("a.example")); /* and not again for a moment */
	struct resolver_stats s;
	resolver_stats(fx.r, &s);
	assert_int_equal(s.in_flight, 0);
}

static void failing_server(void **state)
{
	struct wait x;
	fx.fail = true;
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_true(x.got.v4.failed && x.got.v6.failed);
	assert_int_equal(fx.questions, 2);
}

static void foreign_packets(void **state)
{
	struct wait x;
	fx.foreign_first = true;
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_true(x.got.v4.a.n == 1 && x.got.v6.a.n == 1);
}

static void over_tcp(void **state)
{
	struct wait x;
	fx.truncate = true;
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_true(x.got.v4.a.n == 1 && x.got.v6.a.n == 1);
	assert_int_equal(fx.tcp_questions, 2);
}

static void bounded(void **state)
{
	struct wait x[5];
	static const char *const names[] = { "a.x", "b.x", "c.x", "d.x", "e.x" };
	fx.silent = true;
	for (size_t i = 0; i < 5; i++)
		assert_true(start_wait(&x[i], names[i]) == (i < 4));
	run_until_done();
	fx.silent = false;
	assert_true(start_wait(&x[4], "e.x"));
	run_until_done();
	assert_true(x[4].got.v4.a.n == 1);
}

static void cache_is_bounded(void **state)
{
	char name[32];
	struct wait x;
	unsigned there = 0;
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "n%u.example", i);
		assert_true(start_wait(&x, name));
		run_until_done();
		assert_non_null(known(name));
	}
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "n%u.example", i);
		there += known(name) != NULL;
	}
	assert_int_equal(there, 8);
}

static void cancelled(void **state)
{
	struct wait x, y;
	fx.silent = true;
	assert_true(start_wait(&x, "a.example"));
	assert_true(start_wait(&y, "a.example"));
	resolve_cancel(&x.w);
	unfinished--;
	run_until_done();
	assert_true(x.calls == 0 && y.final);
	assert_true(start_wait(&x, "b.example")); /* and one that the end meets */
	resolve_cancel(&x.w);
	unfinished--;
}

static void nobody_listens(void **state)
{
	struct wait x;
	ev_io_stop(fx.loop, &fx.udp_io);
	close(fx.udp);
	assert_true(start_wait(&x, "a.example"));
	run_until_done();
	assert_true(x.final && x.got.v4.failed);
	fx.udp = -1;
}

static void servers(void **state)
{
	static const char *const good[] = { "127.0.0.1", "127.0.0.1@53", "::1@5335", "::1",
					    "192.0.2.1@65535" };
	static const char *const bad[] = {
		"",         "localhost",   "127.0.0.1@",   "127.0.0.1@0",
		"1.2.3@53", "127.0.0.1@x", "::1@65536",    "127.0.0.1@53x",
		"@53",      "[::1]@53",    "127.0.0.1@ 53"
	};
	struct resolver_options o;
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(resolver_server(&o, good[i]));
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(resolver_server(&o, bad[i]));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(query_form),
		cmocka_unit_test(addresses),
		cmocka_unit_test(aliases),
		cmocka_unit_test(nothing),
		cmocka_unit_test(failures),
		cmocka_unit_test(foreign),
		cmocka_unit_test(wrong_records),
		cmocka_unit_test(pointers),
		cmocka_unit_test(many_addresses),
		cmocka_unit_test(mutated_messages),
		cmocka_unit_test(servers),
		CASE(looks_up),
		CASE(ttl_zero_is_short),
		CASE(one_look_up_for_many),
		CASE(first_half_is_enough),
		CASE(deadline),
		CASE(failing_server),
		CASE(foreign_packets),
		CASE(over_tcp),
		CASE(bounded),
		CASE(cache_is_bounded),
		CASE(cancelled),
		CASE(nobody_listens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
