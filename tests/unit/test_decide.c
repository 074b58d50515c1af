/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequence behind every plugin: it starts without a policy and denies, takes one that appears, keeps
 * it when a bad one follows, says each of these once, and records what was decided.
 */
#include "tests/unit/fixture.h"

#include <pthread.h>
#include <time.h>

#include "shared/live/decide.h"
#include "shared/policy/features.h"

static char dir[] = "/tmp/cx-decide.XXXXXX";
static char path[64], audit[64];
static struct bytes a, b;

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	snprintf(audit, sizeof(audit), "%s/audit.jsonl", dir);
	a = fixture('a');
	b = fixture('b');
	return 0;
}

static int teardown(void **state)
{
	free(a.p);
	free(b.p);
	unlink(path);
	unlink(audit);
	return rmdir(dir);
}

static int remove_files(void **state)
{
	unlink(path);
	unlink(audit);
	return 0;
}

/* What the host program was told. */
struct said {
	pthread_mutex_t lock;
	unsigned loaded, refused, restored, other;
	char last[512];
};

static void note(void *arg, enum decide_priority prio, const char *event, const char *text)
{
	struct said *s = arg;
	pthread_mutex_lock(&s->lock);
	if (strcmp(event, "policy-loaded") == 0)
		s->loaded++;
	else if (strcmp(event, "policy-refused") == 0)
		s->refused++;
	else if (strcmp(event, "policy-restored") == 0)
		s->restored++;
	else
		s->other++;
	snprintf(s->last, sizeof(s->last), "%s", text);
	if (strchr(text, '\n'))
		s->other += 1000;
	pthread_mutex_unlock(&s->lock);
}

static unsigned count(struct said *s, const unsigned *which)
{
	pthread_mutex_lock(&s->lock);
	unsigned n = *which;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* Waits, for at most 20 s, until the host was told `n` times. */
static void wait_for(struct said *s, const unsigned *which, unsigned n)
{
	for (unsigned i = 0; i < 20000 && count(s, which) < n; i++)
		usleep(1000);
	assert_int_equal(count(s, which), n);
}

static struct decider *start(struct said *s)
{
	pthread_mutex_init(&s->lock, NULL);
	struct decider_options o = { .component = "spoa",
				     .policy_path = path,
				     .audit_path = audit,
				     .features = FEATURES_ENFORCED,
				     .log = note,
				     .log_arg = s };
	struct decider *d = decider_start(&o);
	assert_non_null(d);
	return d;
}

static struct decision judge(struct decide_thread *t, const char *name)
{
	struct name n = name_of(name);
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct decision d;
	decide_judge(t, &q, decide_now(), &d);
	decide_record(t, &q, decide_now(), &d, "conn-1", 6);
	return d;
}

static void lives_through_changes(void **state)
{
	struct said s = { .loaded = 0 };
	struct decider *d = start(&s);
	struct decide_thread *t = decide_thread_new(d);
	assert_false(decider_ready(d));
	assert_int_equal(count(&s, &s.refused), 1);
	assert_int_equal(judge(t, "a.example.com").v.reason, REASON_NO_POLICY);

	replace_bytes(path, a.p, a.n);
	wait_for(&s, &s.loaded, 1);
	assert_true(decider_ready(d));
	struct decision got = judge(t, "a.example.com");
	assert_int_equal(got.v.action, ACTION_ALLOW);
	assert_string_equal(got.profile, "default");
	assert_int_equal(strlen(got.rule), 12);
	assert_int_equal(strlen(got.policy), 12);
	assert_int_equal(judge(t, "b.example.com").v.reason, REASON_NOT_LISTED);

	replace_bytes(path, "CXPOLICY but not really", 23);
	wait_for(&s, &s.refused, 2);
	assert_int_equal(judge(t, "a.example.com").v.action, ACTION_ALLOW);
	replace_bytes(path, a.p, a.n);
	wait_for(&s, &s.restored, 1);

	replace_bytes(path, b.p, b.n);
	wait_for(&s, &s.loaded, 2);
	assert_int_equal(judge(t, "a.example.com").v.reason, REASON_NOT_LISTED);
	assert_int_equal(judge(t, "b.example.com").v.action, ACTION_ALLOW);

	decider_reload(d);
	decide_thread_free(t);
	decider_stop(d);
	assert_int_equal(s.loaded, 2);
	assert_int_equal(s.refused, 2);
	assert_int_equal(s.other, 0);
}

static void records_what_was_decided(void **state)
{
	struct said s = { .loaded = 0 };
	replace_bytes(path, a.p, a.n);
	struct decider *d = start(&s);
	struct decide_thread *t = decide_thread_new(d);
	assert_true(decider_ready(d)); /* at once: the policy was there */
	for (unsigned i = 0; i < 10; i++)
		(void)judge(t, i % 2 ? "a.example.com" : "evil.example.com");
	decide_thread_free(t);
	decider_stop(d);
	struct bytes log = read_bytes(audit);
	log.p[log.n] = '\0';
	char *text = (char *)log.p;
	unsigned lines = 0, allowed = 0, denied = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		lines++;
		assert_non_null(strstr(line, "\"component\":\"spoa\""));
		assert_non_null(strstr(line, "\"id\":\"conn-1\""));
		assert_non_null(strstr(line, "\"revision\":\"a\""));
		allowed += strstr(line, "\"verdict\":\"allow\"") != NULL;
		denied += strstr(line, "\"reason\":\"not-listed\"") != NULL;
	}
	assert_int_equal(lines, 10);
	assert_int_equal(allowed, 5);
	assert_int_equal(denied, 5);
	free(log.p);
}

static void starts_and_stops(void **state)
{
	replace_bytes(path, a.p, a.n);
	for (unsigned i = 0; i < 20; i++) {
		struct said s = { .loaded = 0 };
		struct decider *d = start(&s);
		struct decide_thread *t[3];
		for (unsigned k = 0; k < 3; k++)
			t[k] = decide_thread_new(d);
		for (unsigned k = 0; k < 3; k++)
			decide_thread_free(t[k]);
		decider_stop(d);
		assert_int_equal(s.loaded, 1);
	}
}

static void a_key_that_cannot_be_read_stops_the_start(void **state)
{
	struct said s = { .loaded = 0 };
	pthread_mutex_init(&s.lock, NULL);
	struct decider_options o = { .component = "spoa",
				     .policy_path = path,
				     .pubkey_path = "/nonexistent/key.pem",
				     .features = FEATURES_ENFORCED,
				     .log = note,
				     .log_arg = &s };
	assert_null(decider_start(&o));
	assert_int_equal(s.other, 1);
}

static void both_clocks_run(void **state)
{
	struct now one = decide_now(), two = decide_now();
	assert_true(one.boot_ns > 0 && two.boot_ns >= one.boot_ns);
	assert_true(one.wall_ns > INT64_C(1700000000000000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(lives_through_changes, remove_files),
		cmocka_unit_test_teardown(records_what_was_decided, remove_files),
		cmocka_unit_test_teardown(starts_and_stops, remove_files),
		cmocka_unit_test(a_key_that_cannot_be_read_stops_the_start),
		cmocka_unit_test(both_clocks_run),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
