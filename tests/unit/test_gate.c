/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the gate makes of answers, record by record: addresses, hints, encrypted hellos, aliases; and
 * what it makes of records that nobody would write but to get past it.
 */
#include "tests/unit/fixture.h"

#include <unistd.h>

#include "shared/dns/gate.h"
#include "shared/policy/features.h"

enum { A = 1, CNAME = 5, TXT = 16, AAAA = 28, DNAME = 39, SVCB = 64, HTTPS = 65 };

static char dir[] = "/tmp/cx-gate.XXXXXX", path[64];
static struct decider *decider;
static struct decide_thread *thread;

static int setup(void **state)
{
	struct bytes d = fixture('d');
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	write_bytes(path, d.p, d.n);
	free(d.p);
	struct decider_options o = { .component = "test",
				     .policy_path = path,
				     .features = UINT64_MAX };
	decider = decider_start(&o);
	thread = decider ? decide_thread_new(decider) : NULL;
	return thread ? 0 : -1;
}

static int teardown(void **state)
{
	decide_thread_free(thread);
	decider_stop(decider);
	unlink(path);
	return rmdir(dir);
}

/* One question, open. */
struct asked {
	struct gate g;
	struct question q;
	struct name n;
	struct decision d;
	bool passes;
};

static void ask(struct asked *k, const char *src, const char *name, uint16_t type)
{
	k->n = name_of(name);
	k->q = question_about(LAYER_DNS, src, &k->n, 0);
	k->q.qtype = type;
	k->passes = gate_open(&k->g, thread, &k->q, decide_now(), &k->d);
}

static enum gate_fate show(struct asked *k, enum gate_section s, uint16_t type, const void *p,
			   size_t n)
{
	uint8_t out[512];
	size_t out_n = 0;
	assert_true(n <= sizeof(out));
	return gate_record(&k->g, s, type, p, n, out, &out_n);
}

static enum gate_fate show_address(struct asked *k, enum gate_section s, const char *text)
{
	struct addr a = addr_of(text);
	bool v4 = addr_is_v4(&a) && !strchr(text, ':');
	return show(k, s, v4 ? A : AAAA, v4 ? a.b + 12 : a.b, v4 ? 4 : 16);
}

static size_t wire_of(const char *text, uint8_t wire[NAME_MAX_WIRE + 1])
{
	struct name n = name_of(text);
	memcpy(wire, n.wire, n.len);
	wire[n.len] = 0;
	return (size_t)n.len + 1;
}

static enum gate_fate show_alias(struct asked *k, uint16_t type, const char *target)
{
	uint8_t wire[NAME_MAX_WIRE + 1];
	size_t n = wire_of(target, wire);
	return show(k, GATE_ANSWER, type, wire, n);
}

static void expect_close(struct asked *k, bool passes, enum reason reason)
{
	assert_int_equal(gate_close(&k->g), passes);
	if (k->d.v.reason != reason)
		fail_msg("%s instead of %s", reason_text(k->d.v.reason), reason_text(reason));
	assert_int_equal(k->d.v.action, passes ? ACTION_ALLOW : ACTION_DENY);
}

static void addresses_are_removed(void **state)
{
	static const struct {
		const char *src, *name, *address;
		enum gate_fate fate;
		enum reason reason;
	} cases[] = {
		{ "10.9.0.1", "a.example.com", "198.51.100.1", GATE_KEEP, REASON_ALLOWED },
		{ "10.9.0.1", "a.example.com", "2001:db8::1", GATE_KEEP, REASON_ALLOWED },
		{ "10.9.0.1", "a.example.com", "10.2.0.1", GATE_DROP, REASON_PRIVATE_ADDRESS },
		{ "10.9.0.1", "a.example.com", "fd12::1", GATE_DROP, REASON_PRIVATE_ADDRESS },
		{ "10.9.0.1", "a.example.com", "127.0.0.1", GATE_DROP, REASON_ADDRESS },
		{ "10.9.0.1", "a.example.com", "169.254.169.254", GATE_DROP, REASON_ADDRESS },
		{ "10.9.0.1", "a.example.com", "64:ff9b::a9fe:a9fe", GATE_DROP, REASON_ADDRESS },
		{ "10.9.0.1", "a.example.com", "::ffff:10.0.0.1", GATE_DROP,
		  REASON_PRIVATE_ADDRESS },
		{ "10.9.0.1", "a.example.com", "203.0.113.5", GATE_DROP, REASON_ADDRESS },
		{ "10.9.0.1", "a.example.com", "198.51.100.200", GATE_DROP, REASON_ADDRESS },
		{ "10.9.0.1", "a.example.com", "10.9.1.7", GATE_DROP, REASON_ADDRESS },
		{ "10.9.0.1", "in.example.org", "10.2.0.1", GATE_KEEP, REASON_ALLOWED },
		{ "10.9.0.1", "in.example.org", "169.254.169.254", GATE_DROP, REASON_ADDRESS },
		{ "10.9.1.1", "a.example.com", "10.2.0.1", GATE_KEEP, REASON_ALLOWED },
		{ "10.9.1.1", "a.example.com", "10.3.0.1", GATE_DROP, REASON_PRIVATE_ADDRESS },
		{ "10.9.1.1", "a.example.com", "198.51.100.200", GATE_KEEP, REASON_ALLOWED },
		/* the name is in a zone with resolvers of the profile's own */
		{ "10.9.1.1", "a.corp.example", "172.16.0.1", GATE_KEEP, REASON_ALLOWED },
		{ "10.9.1.1", "a.corp.example", "127.0.0.1", GATE_DROP, REASON_ADDRESS },
		/* observed or not, such an address is none */
		{ "10.9.2.1", "nowhere.test", "10.3.0.1", GATE_DROP, REASON_PRIVATE_ADDRESS },
		{ "10.9.2.1", "nowhere.test", "198.51.100.1", GATE_KEEP, REASON_NOT_LISTED },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct asked k;
		bool v6 = strchr(cases[i].address, ':') != NULL;
		ask(&k, cases[i].src, cases[i].name, v6 ? AAAA : A);
		assert_true(k.passes);
		if (show_address(&k, GATE_ANSWER, cases[i].address) != cases[i].fate)
			fail_msg("%s for %s", cases[i].address, cases[i].src);
		expect_close(&k, cases[i].fate == GATE_KEEP, cases[i].reason);
	}
}

static void an_answer_is_empty_only_if_nothing_is_left(void **state)
{
	struct asked k;
	ask(&k, "10.9.0.1", "a.example.com", A);
	assert_int_equal(show_address(&k, GATE_ANSWER, "10.0.0.1"), GATE_DROP);
	assert_int_equal(show_address(&k, GATE_ANSWER, "198.51.100.1"), GATE_KEEP);
	expect_close(&k, true, REASON_ALLOWED);
	assert_true(k.g.changed);
	ask(&k, "10.9.0.1", "a.example.com", A);
	assert_int_equal(show_address(&k, GATE_ANSWER, "10.0.0.1"), GATE_DROP);
	assert_int_equal(show_address(&k, GATE_ANSWER, "127.0.0.1"), GATE_DROP);
	expect_close(&k, false, REASON_ADDRESS);
	/* what stands beside it does not make it empty, and is removed all the same */
	ask(&k, "10.9.0.1", "a.example.com", 33);
	assert_int_equal(show_address(&k, GATE_ADDITIONAL, "10.0.0.1"), GATE_DROP);
	expect_close(&k, true, REASON_ALLOWED);
	/* no answer at all is not an empty one */
	ask(&k, "10.9.0.1", "a.example.com", A);
	expect_close(&k, true, REASON_ALLOWED);
	/* an address of the wrong length is none */
	ask(&k, "10.9.0.1", "a.example.com", A);
	assert_int_equal(show(&k, GATE_ANSWER, A, "\1\2\3", 3), GATE_DROP);
	expect_close(&k, false, REASON_ADDRESS);
}

static void aliases_are_judged(void **state)
{
	static const struct {
		const char *src, *target;
		bool passes, observed;
	} cases[] = {
		{ "10.9.0.1", "anything.test", true, false },
		{ "10.9.0.1", "x.never.example", false, false },
		{ "10.9.0.1", "never.example", true, false },
		{ "10.9.0.1", "x.shut.example", false, false },
		{ "10.9.1.1", "x.shut.example", true, false },
		{ "10.9.0.1", "x.corp.example", false, false },
		{ "10.9.0.1", "corp.example", false, false },
		{ "10.9.0.1", "xcorp.example", true, false },
		{ "10.9.1.1", "x.y.corp.example", true, false },
		{ "10.9.2.1", "x.shut.example", true, true },
		{ "10.9.2.1", "x.corp.example", true, true },
		{ "10.9.2.1", "x.never.example", false, false },
		{ "127.0.0.1", "x.never.example", false, false },
		{ "127.0.0.1", "x.shut.example", true, false },
		{ "10.8.0.1", "x.never.example", true, false },
	};
	static const uint16_t types[] = { CNAME, DNAME };
	for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		struct asked k;
		ask(&k, cases[i / 2].src, "a.example.com", A);
		assert_int_equal(show_alias(&k, types[i % 2], cases[i / 2].target), GATE_KEEP);
		assert_int_equal(show_address(&k, GATE_ANSWER, "198.51.100.1"), GATE_KEEP);
		if (gate_close(&k.g) != cases[i / 2].passes)
			fail_msg("%s for %s", cases[i / 2].target, cases[i / 2].src);
		assert_int_equal(k.d.v.observed, cases[i / 2].observed);
		if (!cases[i / 2].passes || cases[i / 2].observed)
			assert_int_equal(k.d.v.reason, REASON_DENIED_ENTRY);
	}
	/* a target that is not a name */
	struct asked k;
	ask(&k, "10.9.0.1", "a.example.com", A);
	show(&k, GATE_ANSWER, CNAME, "\300\14", 2);
	expect_close(&k, false, REASON_DENIED_ENTRY);
}

static void ask_https(struct asked *k, const char *src)
{
	ask(k, src, "a.example.com", HTTPS);
	assert_true(k->passes);
}

/* Shows priority 1, target ".", and these parameters; the result is in out. */
static enum gate_fate service(struct asked *k, const char *params, size_t n, uint8_t *out,
			      size_t *out_n)
{
	uint8_t data[256] = { 0, 1, 0 };
	memcpy(data + 3, params, n);
	return gate_record(&k->g, GATE_ANSWER, HTTPS, data, n + 3, out, out_n);
}

#define PARAMS(s) s, sizeof(s) - 1
#define ALPN      "\0\1\0\3\2h2"
#define V4_GOOD   "\0\4\0\4\306\63\144\1"
#define V4_BOTH   "\0\4\0\10\12\3\0\1\306\63\144\1"
#define V4_BAD    "\0\4\0\4\12\3\0\1"
#define ECH_KEY   "\0\5\0\4abcd"
#define V6_GOOD   "\0\6\0\20\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1"

static void services_are_trimmed(void **state)
{
	static const struct {
		const char *src, *in;
		size_t in_n;
		const char *out;
		size_t out_n;
	} cases[] = {
		{ "10.9.0.1", PARAMS(ALPN), PARAMS(ALPN) },
		{ "10.9.0.1", PARAMS(ALPN V4_GOOD V6_GOOD), PARAMS(ALPN V4_GOOD V6_GOOD) },
		{ "10.9.0.1", PARAMS(ALPN V4_BOTH ECH_KEY), PARAMS(ALPN V4_GOOD) },
		{ "10.9.0.1", PARAMS(V4_BAD V6_GOOD), PARAMS(V6_GOOD) },
		{ "10.9.1.1", PARAMS(ALPN V4_BAD ECH_KEY V6_GOOD), PARAMS(ALPN ECH_KEY) },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct asked k;
		uint8_t out[256];
		size_t n = 0;
		ask_https(&k, cases[i].src);
		enum gate_fate fate = service(&k, cases[i].in, cases[i].in_n, out, &n);
		bool same = cases[i].in_n == cases[i].out_n;
		assert_int_equal(fate, same ? GATE_KEEP : GATE_CHANGED);
		assert_int_equal(n, cases[i].out_n + 3);
		assert_memory_equal(out + 3, cases[i].out, cases[i].out_n);
		/* without room for the result the fate is the same */
		assert_int_equal(service(&k, cases[i].in, cases[i].in_n, NULL, &n), fate);
		expect_close(&k, true, REASON_ALLOWED);
	}
}

static void services_that_cannot_be_trimmed_go(void **state)
{
	static const struct {
		const char *in;
		size_t in_n;
	} cases[] = {
		{ PARAMS("\0\0\0\2\0\4" V4_BAD) },  /* mandatory, and it may not be seen */
		{ PARAMS("\0\0\0\2\0\5" ECH_KEY) }, /* likewise */
		{ PARAMS("\0\4\0\5\1\2\3\4\5") },   /* a hint of no whole number of addresses */
		{ PARAMS("\0\4\0\10\1\2\3\4") },    /* longer than the record */
		{ PARAMS("\0\4\0") },               /* cut */
		{ PARAMS(ALPN ALPN) },              /* twice */
		{ PARAMS(ECH_KEY V4_GOOD) },        /* in the wrong order */
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct asked k;
		uint8_t out[256];
		size_t n = 0;
		ask_https(&k, "10.9.0.1");
		if (service(&k, cases[i].in, cases[i].in_n, out, &n) != GATE_DROP)
			fail_msg("case %zu", i);
		assert_false(gate_close(&k.g));
	}
	struct asked k;
	ask_https(&k, "10.9.0.1");
	assert_int_equal(show(&k, GATE_ANSWER, HTTPS, "", 0), GATE_DROP);
	assert_int_equal(show(&k, GATE_ANSWER, HTTPS, "\0\1", 2), GATE_DROP);
	gate_close(&k.g);
}

static void service_targets_are_aliases(void **state)
{
	uint8_t data[NAME_MAX_WIRE + 3] = { 0, 0 };
	struct asked k;
	size_t n = wire_of("x.never.example", data + 2) + 2;
	ask_https(&k, "10.9.0.1");
	show(&k, GATE_ANSWER, HTTPS, data, n);
	expect_close(&k, false, REASON_DENIED_ENTRY);
	ask(&k, "10.9.0.1", "a.example.com", SVCB);
	data[1] = 1;
	show(&k, GATE_ADDITIONAL, SVCB, data, n);
	expect_close(&k, false, REASON_DENIED_ENTRY);
}

static void types_and_ancestors(void **state)
{
	struct asked k;
	ask(&k, "10.9.1.1", "a.example.com", AAAA);
	assert_false(k.passes);
	expect_close(&k, false, REASON_QUERY_TYPE);
	ask(&k, "10.9.0.1", "a.example.com", TXT);
	expect_close(&k, false, REASON_QUERY_TYPE);
	static const struct {
		const char *src, *name;
		bool ancestor;
	} cases[] = {
		{ "10.9.0.1", "example.com", true },      { "10.9.0.1", "com", true },
		{ "10.9.0.1", "b.c.example.net", true },  { "10.9.0.1", "c.example.net", true },
		{ "10.9.0.1", "x.c.example.net", false }, { "10.9.0.1", "corp.example", false },
		{ "10.9.1.1", "example.com", false },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ask(&k, cases[i].src, cases[i].name, A);
		assert_false(k.passes);
		if (k.d.ancestor != cases[i].ancestor)
			fail_msg("%s for %s", cases[i].name, cases[i].src);
		gate_close(&k.g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_removed),
		cmocka_unit_test(an_answer_is_empty_only_if_nothing_is_left),
		cmocka_unit_test(aliases_are_judged),
		cmocka_unit_test(services_are_trimmed),
		cmocka_unit_test(services_that_cannot_be_trimmed_go),
		cmocka_unit_test(service_targets_are_aliases),
		cmocka_unit_test(types_and_ancestors),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
