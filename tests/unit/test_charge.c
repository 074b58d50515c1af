/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What questions cost: which limit each layer counts in, names below wildcards, entries, who is over his limit
 * and who is far beyond, observe, and budgets that two plugins share. The tests own the clock.
 */
#include "tests/unit/fixture.h"

#include "shared/live/charge.h"

static struct policy *policy;
static char why[LIMIT_WHY_SIZE];

#define S_NS(s) ((uint64_t)((s)*1e9))

/* Everything that a case needs; the tables are new in each. */
struct bench {
	struct charge_tables t;
	struct charge_counts counts;
	struct verdict v;
	struct charge c;
};

static int setup(void **state)
{
	static const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	char path[512];
	const char *build = getenv("CX_BUILD");
	snprintf(path, sizeof(path), "%s/unit/policy-e.bin", build ? build : "build");
	return policy_open(&policy, path, &trust, NULL) == POLICY_OK ? 0 : -1;
}

static int teardown(void **state)
{
	policy_close(policy);
	return 0;
}

static struct limits *table(void)
{
	struct limits *l = limits_create(NULL, "test", 4096, why);
	assert_non_null(l);
	return l;
}

static struct bench *begin(void)
{
	static struct bench b;
	memset(&b, 0, sizeof(b));
	b.t.own = table();
	return &b;
}

static void end(struct bench *b)
{
	limits_close(b->t.own);
}

/* One question, judged and charged. */
static enum reason ask_q(struct bench *b, const struct question *q, double at_s)
{
	const struct facts f = { .now = { .boot_ns = S_NS(at_s), .wall_ns = 1763683200000000000 } };
	verdict(policy, q, &f, &b->v);
	b->c = charge_question(&b->t, &b->counts, policy, q, 0, &f.now, false, &b->v);
	return b->v.reason;
}

static enum reason ask(struct bench *b, enum layer layer, const char *src, const char *name,
		       double at_s)
{
	struct name n = name_of(name);
	const struct question q = question_about(layer, src, &n, layer == LAYER_HTTP ? 80 : 443);
	return ask_q(b, &q, at_s);
}

static void test_source(void **state)
{
	static const struct {
		enum layer layer;
		unsigned at_once;
	} v[] = { { LAYER_DNS, 10 }, { LAYER_TLS, 4 }, { LAYER_HTTP, 3 }, { LAYER_CONNECT, 4 } };
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct bench *b = begin();
		for (unsigned k = 0; k < v[i].at_once; k++)
			assert_int_equal(ask(b, v[i].layer, "10.9.0.1", "a.example.com", 50),
					 REASON_ALLOWED);
		assert_int_equal(ask(b, v[i].layer, "10.9.0.1", "a.example.com", 50),
				 REASON_RATE_LIMIT);
		assert_int_equal(b->v.action, ACTION_DENY);
		assert_true(b->c.limited && !b->c.dropped);
		assert_int_equal(b->c.retry_after_s, 1);
		/* another client, and another layer of this one, are not concerned */
		assert_int_equal(ask(b, v[i].layer, "10.9.0.2", "a.example.com", 50),
				 REASON_ALLOWED);
		assert_int_equal(ask(b, v[i].layer == LAYER_DNS ? LAYER_TLS : LAYER_DNS, "10.9.0.1",
				     "a.example.com", 50),
				 REASON_ALLOWED);
		/* and it passes */
		assert_int_equal(ask(b, v[i].layer, "10.9.0.1", "a.example.com", 50.4),
				 REASON_ALLOWED);
		end(b);
	}
}

/* Denied questions are paid for, and keep their reason; far beyond the limit there is no answer. */
static void test_denied(void **state)
{
	struct bench *b = begin();
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "no.example.com", 9),
				 REASON_NOT_LISTED);
		assert_false(b->c.limited);
	}
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "a.example.com", 9), REASON_RATE_LIMIT);
	assert_false(b->c.dropped);
	for (unsigned i = 0; i < 9; i++) {
		assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "no.example.com", 9),
				 REASON_NOT_LISTED);
		assert_false(b->c.dropped);
	}
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "no.example.com", 9), REASON_NOT_LISTED);
	assert_true(b->c.dropped && b->c.quiet);
	assert_int_equal(atomic_load(&b->counts.dropped[LAYER_DNS]), 1);
	/* nobody knows it, and it has the default's limits all the same */
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(ask(b, LAYER_DNS, "192.0.2.1", "a.example.com", 9),
				 REASON_UNKNOWN_SOURCE);
	assert_false(b->c.dropped);
	(void)ask(b, LAYER_DNS, "192.0.2.1", "a.example.com", 9);
	assert_true(b->c.dropped);
	end(b);
}

/* Being over costs nothing where the question is asked again; passing does. */
static void test_tentative(void **state)
{
	struct bench *b = begin();
	struct name n = name_of("a.example.com");
	const struct facts f = { .now = { .boot_ns = S_NS(9), .wall_ns = 1 } };
	const struct question q = question_about(LAYER_DNS, "10.9.0.1", &n, 0);
	for (unsigned i = 0; i < 50; i++) {
		verdict(policy, &q, &f, &b->v);
		b->c = charge_question(&b->t, &b->counts, policy, &q, 0, &f.now, true, &b->v);
		assert_int_equal(b->v.reason, i < 10 ? REASON_ALLOWED : REASON_RATE_LIMIT);
		assert_false(b->c.dropped);
	}
	assert_int_equal(atomic_load(&b->counts.limited[LAYER_DNS][LIMIT_DNS]), 0);
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "a.example.com", 9), REASON_RATE_LIMIT);
	assert_false(b->c.dropped || b->c.quiet);
	end(b);
}

static void test_said_once(void **state)
{
	struct bench *b = begin();
	unsigned said = 0;
	for (double at = 100; at < 220; at += 0.05) {
		enum reason r = ask(b, LAYER_DNS, "10.9.0.1", "a.example.com", at);
		said += r == REASON_RATE_LIMIT && !b->c.quiet;
	}
	assert_in_range(said, 2, 3);
	assert_true(atomic_load(&b->counts.limited[LAYER_DNS][LIMIT_DNS]) > 1000);
	end(b);
}

/* Different names below a wildcard: five a minute, the same one again for nothing. */
static void test_names(void **state)
{
	struct bench *b = begin();
	char text[64];
	for (unsigned i = 0; i < 5; i++) {
		snprintf(text, sizeof(text), "n%u.wild.example.net", i);
		assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", text, 10 + i), REASON_ALLOWED);
	}
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "n5.wild.example.net", 16),
			 REASON_RATE_LIMIT);
	assert_int_equal(b->c.kind, LIMIT_DNS_NAMES);
	assert_in_range(b->c.retry_after_s, 1, 12);
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "n3.wild.example.net", 17), REASON_ALLOWED);
	/* a hello is a message as well */
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.1", "n6.wild.example.net", 18),
			 REASON_RATE_LIMIT);
	assert_int_equal(ask(b, LAYER_HTTP, "10.9.0.1", "n6.wild.example.net", 18),
			 REASON_RATE_LIMIT);
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.1", "n3.wild.example.net", 18), REASON_ALLOWED);
	/* another wildcard, and what is listed itself */
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "n1.tight.example.net", 19), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "a.example.com", 19), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.2", "n5.wild.example.net", 19), REASON_ALLOWED);
	end(b);
}

/* Forty octets in front of the wildcard, the lengths of labels among them. */
static void test_octets(void **state)
{
	struct bench *b = begin();
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "abcdefghijklmnopqrs.wild.example.net", 9),
			 REASON_ALLOWED); /* 20 */
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "abcdefghi.abcdefghi.wild.example.net", 9),
			 REASON_ALLOWED); /* 20 */
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "x.wild.example.net", 9), REASON_RATE_LIMIT);
	assert_int_equal(b->c.kind, LIMIT_DNS_OCTETS);
	end(b);
}

static void test_entries(void **state)
{
	struct bench *b = begin();
	assert_int_equal(ask(b, LAYER_HTTP, "10.9.0.1", "b.example.com", 9), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_HTTP, "10.9.0.1", "b.example.com", 12), REASON_RATE_LIMIT);
	assert_in_range(b->c.retry_after_s, 50, 60);
	assert_int_equal(ask(b, LAYER_HTTP, "10.9.0.1", "a.example.com", 12), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.1", "b.example.com", 12), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.1", "b.example.com", 12), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.1", "b.example.com", 13), REASON_RATE_LIMIT);
	/* an entry's own budget of names */
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "1.tight.example.net", 20), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "2.tight.example.net", 20), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_DNS, "10.9.0.1", "3.tight.example.net", 20),
			 REASON_RATE_LIMIT);
	end(b);
}

/* An entry's limit is noted, the source's holds. */
static void test_observe(void **state)
{
	struct bench *b = begin();
	assert_int_equal(ask(b, LAYER_HTTP, "10.8.0.1", "b.example.com", 9), REASON_ALLOWED);
	assert_int_equal(ask(b, LAYER_HTTP, "10.8.0.1", "b.example.com", 9), REASON_RATE_LIMIT);
	assert_int_equal(b->v.action, ACTION_ALLOW);
	assert_true(b->v.observed && !b->c.quiet);
	for (unsigned i = 0; i < 10; i++)
		(void)ask(b, LAYER_DNS, "10.8.0.1", "b.example.com", 9);
	assert_int_equal(ask(b, LAYER_DNS, "10.8.0.1", "b.example.com", 9), REASON_RATE_LIMIT);
	assert_int_equal(b->v.action, ACTION_DENY);
	assert_false(b->v.observed);
	end(b);
}

/* A first request opens its connection; what is in a CONNECT was paid with it. */
static void test_connections(void **state)
{
	struct bench *b = begin();
	struct name n = name_of("a.example.com");
	struct question q = question_about(LAYER_HTTP, "10.9.0.1", &n, 80);
	q.opens = true;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(ask_q(b, &q, 20 + i * 1e-9),
				 i < 3 ? REASON_ALLOWED : REASON_RATE_LIMIT);
	/* three requests, four connections */
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.1", "a.example.com", 20), REASON_RATE_LIMIT);
	q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	q.paid = true;
	assert_int_equal(ask_q(b, &q, 20), REASON_ALLOWED);
	/* what only says what comes next is not paid for */
	q = (struct question){
		.layer = LAYER_TCP, .src = addr_of("10.9.0.7"), .port = 443, .has_dst = true
	};
	q.dst = addr_of("203.0.113.1");
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(ask_q(b, &q, 30), REASON_ALLOWED);
		assert_int_equal(b->v.action, ACTION_NEXT);
	}
	assert_int_equal(ask(b, LAYER_TLS, "10.9.0.7", "a.example.com", 30), REASON_ALLOWED);
	end(b);
}

/* A resolver and the agent, each with its own table and reading the other's: one budget, and no name twice. */
static void test_two_plugins(void **state)
{
	static struct bench dns, agent;
	char text[64];
	memset(&dns, 0, sizeof(dns));
	memset(&agent, 0, sizeof(agent));
	dns.t.own = table();
	agent.t.own = table();
	dns.t.others[2] = agent.t.own;
	agent.t.others[0] = dns.t.own;
	unsigned passed = 0;
	for (unsigned i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "n%u.wild.example.net", i);
		passed += i % 2 ? ask(&agent, LAYER_TLS, "10.9.0.1", text, 9 + i * 0.3) ==
					  REASON_ALLOWED
				: ask(&dns, LAYER_DNS, "10.9.0.1", text, 9 + i * 0.3) ==
					  REASON_ALLOWED;
	}
	assert_int_equal(passed, 5);
	assert_int_equal(ask(&agent, LAYER_TLS, "10.9.0.1", "n0.wild.example.net", 20),
			 REASON_ALLOWED);
	/* control: who does not look at the other gives as much again */
	agent.t.others[0] = NULL;
	for (unsigned i = 40; i < 60; i++) {
		snprintf(text, sizeof(text), "n%u.wild.example.net", i);
		passed += ask(&agent, LAYER_TLS, "10.9.0.3", text, 9 + i) == REASON_ALLOWED;
		passed += ask(&dns, LAYER_DNS, "10.9.0.4", text, 9 + i) == REASON_ALLOWED;
	}
	assert_true(passed > 10);
	limits_close(dns.t.own);
	limits_close(agent.t.own);
}

static void test_failures(void **state)
{
	struct bench *b = begin();
	struct name n = name_of("x.wild.example.net"), m = name_of("y.wild.example.net"),
		    o = name_of("a.example.com");
	const struct question q = question_about(LAYER_DNS, "10.9.0.1", &n, 0),
			      r = question_about(LAYER_DNS, "10.9.0.1", &m, 0),
			      s = question_about(LAYER_DNS, "10.9.0.2", &n, 0),
			      e = question_about(LAYER_DNS, "10.9.0.1", &o, 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_false(charge_failing(&b->t, &q, 0, 3, S_NS(9)));
		charge_failure(&b->t, &q, 0, 3, S_NS(9));
	}
	assert_true(charge_failing(&b->t, &q, 0, 3, S_NS(9)));
	assert_true(charge_failing(&b->t, &r, 0, 3, S_NS(9)));
	assert_false(charge_failing(&b->t, &s, 0, 3, S_NS(9)));
	assert_false(charge_failing(&b->t, &e, 0, 0, S_NS(9)));
	assert_false(charge_failing(&b->t, &q, 0, 3, S_NS(14.1)));
	end(b);
}

/* A task is one client on all its addresses; the next one on an address begins anew. */
static void test_tasks(void **state)
{
	struct bench *b = begin();
	struct name n = name_of("a.example.com");
	const struct facts f = { .now = { .boot_ns = S_NS(9), .wall_ns = 1 } };
	struct question q = question_about(LAYER_DNS, "10.9.0.1", &n, 0);
	for (unsigned generation = 1; generation <= 2; generation++)
		for (unsigned i = 0; i < 11; i++) {
			q.src = addr_of(i % 2 ? "10.9.0.1" : "2001:db8:9::1");
			verdict(policy, &q, &f, &b->v);
			b->c = charge_question(&b->t, &b->counts, policy, &q, generation, &f.now,
					       false, &b->v);
			assert_int_equal(b->v.reason, i < 10 ? REASON_ALLOWED : REASON_RATE_LIMIT);
		}
	end(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_source),      cmocka_unit_test(test_denied),
		cmocka_unit_test(test_tentative),   cmocka_unit_test(test_said_once),
		cmocka_unit_test(test_names),       cmocka_unit_test(test_octets),
		cmocka_unit_test(test_entries),     cmocka_unit_test(test_observe),
		cmocka_unit_test(test_connections), cmocka_unit_test(test_two_plugins),
		cmocka_unit_test(test_failures),    cmocka_unit_test(test_tasks),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
