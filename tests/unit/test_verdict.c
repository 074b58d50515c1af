/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The edges of the decision that no case file can ask: flaws that parsers report, missing parts, names
 * with any octet, 127 labels, the choice among resolved addresses. The rules themselves: tests/verdict.
 */
#include "tests/unit/exercise.h"
#include "tests/unit/fixture.h"

#include "shared/policy/features.h"

static struct policy *policy;
static const struct facts facts = { .now = { .wall_ns = INT64_C(1795262400000000000) } };

static int setup(void **state)
{
	char dir[] = "/tmp/cx-verdict.XXXXXX", path[64];
	struct bytes b = fixture('a');
	const struct policy_trust trust = { .features = FEATURES_ENFORCED };
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	write_bytes(path, b.p, b.n);
	free(b.p);
	enum policy_err e = policy_open(&policy, path, &trust, NULL);
	unlink(path);
	rmdir(dir);
	return e == POLICY_OK ? 0 : -1;
}

static int teardown(void **state)
{
	policy_close(policy);
	return 0;
}

static struct verdict judge(const struct question *q)
{
	struct verdict v;
	memset(&v, 0xa5, sizeof(v));
	verdict(policy, q, &facts, &v);
	return v;
}

static void expect(const struct question *q, enum action action, enum reason reason)
{
	struct verdict v = judge(q);
	if (v.reason != reason)
		fail_msg("%s instead of %s", reason_text(v.reason), reason_text(reason));
	assert_int_equal(v.action, action);
}

static void no_policy_denies_everything(void **state)
{
	struct name n = name_of("a.example.com");
	for (int layer = LAYER_DNS; layer <= LAYER_TCP; layer++) {
		struct question q = question_about((enum layer)layer, "10.9.0.1", &n, 443);
		struct verdict v;
		memset(&v, 0xa5, sizeof(v));
		verdict(NULL, &q, &facts, &v);
		assert_int_equal(v.action, ACTION_DENY);
		assert_int_equal(v.reason, REASON_NO_POLICY);
		assert_int_equal(v.next, NEXT_NONE);
		assert_false(v.observed);
		assert_false(v.unpoliced);
		assert_true(v.rule == UINT32_MAX);
	}
}

static void flaws(void **state)
{
	static const struct {
		enum question_flaw flaw;
		enum reason reason;
	} cases[] = {
		{ FLAW_NONE, REASON_ALLOWED },
		{ FLAW_MALFORMED, REASON_MALFORMED },
		{ FLAW_IP_LITERAL, REASON_IP_LITERAL },
		{ FLAW_BAD_NAME, REASON_BAD_NAME },
		{ FLAW_NO_SNI, REASON_NO_SNI },
		{ FLAW_NAME_MISMATCH, REASON_NAME_MISMATCH },
		{ FLAW_INTERNAL, REASON_INTERNAL_ERROR },
	};
	static const enum layer layers[] = { LAYER_TLS, LAYER_HTTP, LAYER_DNS };
	struct name n = name_of("a.example.com");
	for (size_t l = 0; l < COUNT(layers); l++)
		for (size_t i = 0; i < COUNT(cases); i++) {
			unsigned port = layers[l] == LAYER_HTTP ? 80 : 443;
			struct question q =
				question_about(layers[l], "10.9.0.1", &n, (uint16_t)port);
			q.flaw = cases[i].flaw;
			expect(&q, q.flaw ? ACTION_DENY : ACTION_ALLOW, cases[i].reason);
			q.src = addr_of("192.0.2.1"); /* nobody learns anything */
			if (q.flaw != FLAW_INTERNAL)
				expect(&q, ACTION_DENY, REASON_UNKNOWN_SOURCE);
			q.src = addr_of("10.9.2.1"); /* nor does observing help */
			if (q.flaw)
				expect(&q, ACTION_DENY, cases[i].reason);
		}
}

static void missing_parts_deny(void **state)
{
	struct question q = question_about(LAYER_TLS, "10.9.0.1", NULL, 443);
	expect(&q, ACTION_DENY, REASON_INTERNAL_ERROR);
	q.layer = LAYER_HTTP;
	expect(&q, ACTION_DENY, REASON_INTERNAL_ERROR);
	q.layer = LAYER_DNS;
	expect(&q, ACTION_DENY, REASON_INTERNAL_ERROR);
	q.layer = LAYER_TCP;
	expect(&q, ACTION_DENY, REASON_INTERNAL_ERROR);
	q.layer = LAYER_CONNECT;
	expect(&q, ACTION_DENY, REASON_INTERNAL_ERROR);
	q.layer = (enum layer)77;
	struct name n = name_of("a.example.com");
	q.name = &n;
	assert_int_equal(judge(&q).action, ACTION_DENY);
}

/* A request without method or path, where a rule names them. */
static void missing_method_and_path(void **state)
{
	struct name n = name_of("api.example.org");
	struct question q = question_about(LAYER_HTTP, "10.9.0.1", &n, 80);
	q.path = "/health";
	q.path_len = 7;
	expect(&q, ACTION_ALLOW, REASON_ALLOWED);
	q.method = NULL;
	q.method_len = 0;
	expect(&q, ACTION_DENY, REASON_METHOD);
	q.method = "GET";
	q.method_len = 3;
	q.path = NULL;
	q.path_len = 0;
	expect(&q, ACTION_DENY, REASON_PATH);
	q.path = "*"; /* OPTIONS * */
	q.path_len = 1;
	expect(&q, ACTION_DENY, REASON_PATH);
	q.path = "health";
	q.path_len = 6;
	expect(&q, ACTION_DENY, REASON_PATH);
	q.path = "?/health";
	q.path_len = 8;
	expect(&q, ACTION_DENY, REASON_PATH);
	q.path = "/v2/%2";
	q.path_len = 6;
	expect(&q, ACTION_DENY, REASON_PATH);
	q.path = "/v2/%";
	q.path_len = 5;
	expect(&q, ACTION_DENY, REASON_PATH);
}

/* Every octet in a path under a rule: controls, spaces and 8-bit octets never pass. */
static void every_octet_of_a_path(void **state)
{
	struct name n = name_of("api.example.org");
	for (unsigned c = 0; c < 256; c++) {
		char path[] = { '/', 'v', '2', '/', (char)c, 'x' };
		struct question q = question_about(LAYER_HTTP, "10.9.0.1", &n, 80);
		q.path = path;
		q.path_len = sizeof(path);
		bool bad = c <= 0x20 || c >= 0x7f || c == '\\' || c == ';' || c == '#' ||
			   c == '%' || c == '/';
		expect(&q, bad ? ACTION_DENY : ACTION_ALLOW, bad ? REASON_PATH : REASON_ALLOWED);
	}
}

static void names_with_any_octet(void **state)
{
	for (unsigned c = 0; c < 256; c++) {
		uint8_t wire[] = { 2,   'x', (uint8_t)c, 7, 'e', 'x', 'a', 'm',
				   'p', 'l', 'e',        3, 'n', 'e', 't', 0 };
		struct name n;
		assert_int_equal(name_from_wire(&n, wire, sizeof(wire), NULL), NAME_OK);
		struct question q = question_about(LAYER_DNS, "10.9.0.1", &n, 0);
		bool host = name_check_host(&n) == NAME_OK;
		expect(&q, host ? ACTION_ALLOW : ACTION_DENY,
		       host ? REASON_ALLOWED : REASON_BAD_NAME);
	}
}

static void the_root(void **state)
{
	struct name n;
	assert_int_equal(name_from_wire(&n, (const uint8_t *)"", 1, NULL), NAME_OK);
	struct question q = question_about(LAYER_DNS, "10.9.0.1", &n, 0);
	expect(&q, ACTION_DENY, REASON_BAD_NAME);
}

static void the_deepest_name(void **state)
{
	char text[254];
	for (size_t i = 0; i < 242; i++)
		text[i] = i % 2 ? '.' : 'a';
	strcpy(text + 242, "example.net");
	struct name n = name_of(text);
	assert_int_equal(n.n_labels, 123);
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	expect(&q, ACTION_ALLOW, REASON_ALLOWED);
	strcpy(text + 242, "example.org");
	n = name_of(text);
	expect(&q, ACTION_DENY, REASON_NOT_LISTED);
}

static void find_gives_the_deepest_first(void **state)
{
	struct name n = name_of("x.secret.example.net");
	struct policy_match m[POLICY_MAX_MATCHES];
	unsigned found = policy_find(policy, &n, m);
	assert_int_equal(found, 2);
	assert_int_equal(m[0].depth, 3);
	assert_int_equal(m[1].depth, 2);
	assert_false(m[0].exact);
	n = name_of("a.example.com");
	assert_int_equal(policy_find(policy, &n, m), 1);
	assert_true(m[0].exact);
	assert_int_equal(m[0].depth, 3);
	n = name_of("x.a.example.com"); /* its parent has no rule for names below it */
	assert_int_equal(policy_find(policy, &n, m), 0);
	n = name_of("example.net"); /* nor has this one for itself */
	assert_int_equal(policy_find(policy, &n, m), 0);
}

static void picks_the_first_address_that_may_be_used(void **state)
{
	struct name n = name_of("a.example.com");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct addr r[] = { addr_of("127.0.0.1"), addr_of("10.0.0.1"), addr_of("203.0.113.1"),
			    addr_of("192.0.2.1"), addr_of("192.0.2.2") };
	q.resolved = r;
	q.n_resolved = COUNT(r);
	assert_int_equal(judge(&q).action, ACTION_ALLOW);
	assert_int_equal(judge(&q).addr, 3);
	q.n_resolved = 3;
	expect(&q, ACTION_DENY, REASON_ADDRESS); /* the first reason in the list */
	q.resolved = r + 1;
	q.n_resolved = 1;
	expect(&q, ACTION_DENY, REASON_PRIVATE_ADDRESS);
	q.n_resolved = 0;
	expect(&q, ACTION_DENY, REASON_UNRESOLVED);
}

static void aliases_lead_to_no_denied_name(void **state)
{
	struct name n = name_of("a.example.com");
	struct addr to = addr_of("192.0.2.1");
	static const struct {
		const char *src;
		const char *chain;
		size_t len;
		enum reason reason;
	} cases[] = {
#define CHAIN(s) s, sizeof(s)
		{ "10.9.0.1", CHAIN("\1x\4test"), REASON_ALLOWED },
		{ "10.9.0.1", CHAIN("\1x\4test\0\1y\4prod\7example\3net"), REASON_DENIED_ENTRY },
		{ "10.9.0.1", CHAIN("\1y\6secret\7example\3net\0\1x\4test"), REASON_DENIED_ENTRY },
		{ "10.9.0.1", CHAIN("\6secret\7example\3net"), REASON_ALLOWED },
		{ "10.9.0.1", "\77x", 2, REASON_DENIED_ENTRY },
#undef CHAIN
	};
	for (size_t i = 0; i < COUNT(cases); i++)
		for (unsigned half = 0; half < 2; half++) {
			struct question q = question_about(LAYER_TLS, cases[i].src, &n, 443);
			q.resolved = &to;
			q.n_resolved = 1;
			q.aliases[half] = (const uint8_t *)cases[i].chain;
			q.aliases_len[half] = cases[i].len;
			bool allowed = cases[i].reason == REASON_ALLOWED;
			expect(&q, allowed ? ACTION_ALLOW : ACTION_DENY, cases[i].reason);
		}
}

static void the_gateways_addresses_are_no_destination(void **state)
{
	struct name n = name_of("a.example.com");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct addr locals[] = { addr_of("192.0.2.1"), addr_of("192.0.2.3"), addr_of("192.0.2.9") };
	struct facts f = facts;
	f.locals = (struct addr_set){ locals, COUNT(locals) };
	for (unsigned i = 0; i < 12; i++) {
		struct addr to = addr_of("192.0.2.0");
		struct verdict v;
		to.b[15] = (uint8_t)i;
		q.resolved = &to;
		q.n_resolved = 1;
		verdict(policy, &q, &f, &v);
		bool local = i == 1 || i == 3 || i == 9;
		assert_int_equal(v.reason, local ? REASON_ADDRESS : REASON_ALLOWED);
	}
}

static void sources(void **state)
{
	struct name n = name_of("nothing.test");
	struct question q = question_about(LAYER_DNS, "10.8.7.6", &n, 0);
	struct verdict v = judge(&q);
	assert_int_equal(v.action, ACTION_ALLOW);
	assert_true(v.unpoliced);
	q.src = addr_of("127.0.0.1");
	v = judge(&q);
	assert_true(v.any_profile);
	assert_int_equal(v.reason, REASON_NOT_LISTED);
	q.src = addr_of("10.9.1.7");
	v = judge(&q);
	assert_string_equal(policy_profile_name(policy, v.profile), "team");
	assert_false(v.any_profile);
	assert_string_equal(policy_profile_name(policy, UINT32_MAX), "");
}

static void ech(void **state)
{
	struct name n = name_of("a.example.com");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	q.ech = true;
	expect(&q, ACTION_DENY, REASON_ECH);
	q.src = addr_of("10.9.1.1");
	expect(&q, ACTION_ALLOW, REASON_ALLOWED);
	q.flaw = FLAW_NO_SNI;
	expect(&q, ACTION_DENY, REASON_NO_SNI);
}

static void describes_its_rule(void **state)
{
	struct name n = name_of("x.example.net");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct verdict v = judge(&q);
	struct rule_info i;
	char id[13];
	assert_true(policy_rule_info(policy, v.rule, v.rec, &i));
	assert_string_equal(i.pattern, "*.example.net");
	assert_string_equal(i.owner, "build-team");
	assert_string_equal(i.reason, "package mirror");
	assert_string_equal(i.layer, "default");
	assert_int_equal(i.line, 9);
	assert_false(i.deny);
	policy_rule_id(policy, v.rule, id);
	assert_string_equal(i.id, id);
	assert_int_equal(strlen(id), 12);
	assert_false(policy_rule_info(policy, UINT32_MAX, UINT32_MAX, &i));
	policy_rule_id(policy, UINT32_MAX, id);
	assert_string_equal(id, "");
}

static void texts(void **state)
{
	for (int i = 0; i < REASON_COUNT; i++)
		for (int k = 0; k < i; k++)
			assert_string_not_equal(reason_text((enum reason)i),
						reason_text((enum reason)k));
	assert_string_equal(reason_text(REASON_NOT_LISTED), "not-listed");
	assert_string_equal(reason_text(REASON_COUNT), "internal-error");
	assert_string_equal(layer_text(LAYER_CONNECT), "connect");
	assert_string_equal(layer_text((enum layer)99), "");
	assert_string_equal(next_text(NEXT_RAW), "raw");
	assert_string_equal(next_text((enum next)99), "");
}

static void everything_once(void **state)
{
	exercise_policy(policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_policy_denies_everything),
		cmocka_unit_test(flaws),
		cmocka_unit_test(missing_parts_deny),
		cmocka_unit_test(missing_method_and_path),
		cmocka_unit_test(every_octet_of_a_path),
		cmocka_unit_test(names_with_any_octet),
		cmocka_unit_test(the_root),
		cmocka_unit_test(the_deepest_name),
		cmocka_unit_test(find_gives_the_deepest_first),
		cmocka_unit_test(picks_the_first_address_that_may_be_used),
		cmocka_unit_test(aliases_lead_to_no_denied_name),
		cmocka_unit_test(the_gateways_addresses_are_no_destination),
		cmocka_unit_test(sources),
		cmocka_unit_test(ech),
		cmocka_unit_test(describes_its_rule),
		cmocka_unit_test(texts),
		cmocka_unit_test(everything_once),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
