/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limiter: the rate over a long time, the same with one thread, with eight, and with two processes; what a
 * restart leaves; whom a full table refuses; and how much room a source takes. The tests own the clock.
 */
#include "tests/unit/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/live/limit.h"

#define S_NS(s) ((uint64_t)((s)*1e9))

static char dir[] = "/tmp/cx-limit.XXXXXX";
static char why[LIMIT_WHY_SIZE];

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char cmd[128];
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static int fresh(void **state)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/limits/spoa/table", dir);
	unlink(path);
	return 0;
}

static struct limit_key key(const char *src, uint64_t generation, uint64_t what)
{
	return (struct limit_key){ addr_of(src), generation, what };
}

static struct limits *table(size_t cells)
{
	struct limits *l = limits_create(NULL, "test", cells, why);
	assert_non_null(l);
	return l;
}

static struct limits *file_table(void)
{
	struct limits *l = limits_create(dir, "spoa", 4096, why);
	assert_string_equal(l ? "" : why, "");
	return l;
}

/* How many of the charges pass, one every step_ns. */
static unsigned run(struct limits *l, const struct limit_key *k, const struct limit_pace *p,
		    uint64_t from_ns, uint64_t to_ns, uint64_t step_ns)
{
	unsigned n = 0;
	for (uint64_t t = from_ns; t < to_ns; t += step_ns)
		n += limit_charge(l, k, 0, p, 1, 0, t) == 0;
	return n;
}

static void test_burst_then_rate(void **state)
{
	struct limits *l = table(64);
	const struct limit_key k = key("192.0.2.1", 0, 0);
	const struct limit_pace p = limit_pace(20, 1, 40);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(1)), 0);
	uint64_t wait = limit_charge(l, &k, 0, &p, 1, 0, S_NS(1));
	assert_int_equal(wait, S_NS(0.05));
	assert_int_not_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(1) + wait - 1), 0);
	assert_int_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(1) + wait), 0);
	/* a refusal costs nothing, and another clock or thing is another limit */
	assert_int_equal(limit_charge(l, &k, 1, &p, 1, 0, S_NS(1)), 0);
	const struct limit_key other = key("192.0.2.1", 0, 7);
	assert_int_equal(limit_charge(l, &other, 0, &p, 1, 0, S_NS(1)), 0);
	limits_close(l);
}

/* Within one in a hundred, at every rate that the language can say. */
static void test_rate(void **state)
{
	static const struct {
		uint64_t amount;
		uint32_t period_s;
	} v[] = { { 1, 1 },   { 7, 1 },     { 100, 1 },  { 333, 1 },       { 9999, 1 },
		  { 60, 60 }, { 1200, 60 }, { 7, 3600 }, { 100000, 86400 } };
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct limits *l = table(64);
		const struct limit_key k = key("192.0.2.1", 0, 0);
		const struct limit_pace p = limit_pace(v[i].amount, v[i].period_s, 1);
		double unit = v[i].period_s * 1e9 / (double)v[i].amount;
		uint64_t step = (uint64_t)(unit / 7.3), end = (uint64_t)(unit * 5000);
		unsigned n = run(l, &k, &p, S_NS(5), S_NS(5) + end, step);
		/* asked every 1/7.3 of a unit, each grant waits for the next asking */
		assert_in_range(n, 4000, 5050);
		const struct limit_pace q = limit_pace(v[i].amount, v[i].period_s, 10);
		const struct limit_key k2 = key("192.0.2.2", 0, 0);
		n = run(l, &k2, &q, S_NS(5), S_NS(5) + end, step);
		assert_in_range(n, 4960, 5060);
		limits_close(l);
	}
}

static void test_costs(void **state)
{
	struct limits *l = table(64);
	const struct limit_key k = key("2001:db8::1", 0, 0);
	const struct limit_pace p = limit_pace(4096, 60, 4096);
	assert_int_equal(limit_charge(l, &k, 0, &p, 4000, 0, 5), 0);
	assert_int_not_equal(limit_charge(l, &k, 0, &p, 97, 0, 5), 0);
	assert_int_equal(limit_charge(l, &k, 0, &p, 96, 0, 5), 0);
	assert_int_not_equal(limit_charge(l, &k, 0, &p, 4097, 0, S_NS(1e6)), 0);
	/* as much as the language can say overflows nothing */
	const struct limit_pace most = limit_pace(UINT64_C(1) << 61, 86400, UINT64_C(1) << 61);
	assert_int_equal(limit_charge(l, &k, 1, &most, 1, 0, S_NS(1)), 0);
	const struct limit_pace slow = limit_pace(1, 86400, UINT64_C(1) << 61);
	assert_int_equal(limit_charge(l, &k, 2, &slow, 1, 0, S_NS(1)), 0);
	(void)limit_charge(l, &k, 2, &slow, UINT64_MAX, 0, S_NS(1));
	(void)limit_charge(l, &k, 2, &slow, UINT64_MAX, UINT64_MAX, S_NS(1));
	limits_close(l);
}

/* A limit that is raised holds at once: what was used up of the old one does not last longer. */
static void test_raised(void **state)
{
	struct limits *l = table(64);
	const struct limit_key k = key("192.0.2.1", 0, 0);
	const struct limit_pace slow = limit_pace(1, 3600, 5), fast = limit_pace(10, 1, 10);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(limit_charge(l, &k, 0, &slow, 1, 0, S_NS(9)), 0);
	assert_int_not_equal(limit_charge(l, &k, 0, &slow, 1, 0, S_NS(9)), 0);
	assert_int_equal(limit_charge(l, &k, 0, &fast, 1, 0, S_NS(9)), S_NS(0.1));
	assert_int_equal(limit_charge(l, &k, 0, &fast, 1, 0, S_NS(9.1)), 0);
	limits_close(l);
}

static void test_subjects(void **state)
{
	struct limits *l = table(1024);
	const struct limit_pace p = limit_pace(1, 1, 1);
	static const struct {
		const char *src;
		uint64_t generation;
		bool fresh;
	} v[] = {
		{ "10.0.0.1", 0, true },
		{ "10.0.0.1", 0, false },
		{ "10.0.0.2", 0, true },
		{ "10.0.0.1", 5, true },  /* the task that has the address now */
		{ "10.0.0.9", 5, false }, /* another address of it */
		{ "10.0.0.1", 6, true },
		{ "2001:db8::1", 0, true },
		{ "2001:db8::ffff", 0, false }, /* the same /64 */
		{ "2001:db8:0:1::1", 0, true },
		{ "2001:db8::1", 5, false },
	};
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		const struct limit_key k = key(v[i].src, v[i].generation, 0);
		assert_int_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(9)) == 0, v[i].fresh);
	}
	limits_close(l);
}

/* ---- together ---- */

enum { THREADS = 8, TRIES = 20000 };

struct crowd {
	struct limits *l;
	atomic_uint passed;
};

static void *press(void *arg)
{
	struct crowd *c = arg;
	const struct limit_key k = key("192.0.2.1", 0, 0);
	const struct limit_pace p = limit_pace(1, 86400, 1000);
	for (unsigned i = 0; i < TRIES; i++)
		if (limit_charge(c->l, &k, 0, &p, 1, 0, S_NS(1)) == 0)
			atomic_fetch_add(&c->passed, 1);
	return NULL;
}

static void test_eight_threads(void **state)
{
	struct crowd c = { .l = table(1024) };
	pthread_t t[THREADS];
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, press, &c), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&c.passed), 1000);
	limits_close(c.l);
}

/* Two processes with a file each has mapped itself: one budget. */
static void test_two_processes(void **state)
{
	int fd[2];
	unsigned theirs;
	assert_int_equal(pipe(fd), 0);
	struct limits *l = file_table();
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct crowd c = { .l = limits_create(dir, "spoa", 4096, why) };
		if (!c.l)
			_exit(1);
		press(&c);
		unsigned n = atomic_load(&c.passed);
		_exit(write(fd[1], &n, sizeof(n)) == sizeof(n) ? 0 : 1);
	}
	struct crowd c = { .l = l };
	press(&c);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(fd[0], &theirs, sizeof(theirs)), sizeof(theirs));
	assert_int_equal(atomic_load(&c.passed) + theirs, 1000);
	close(fd[0]);
	close(fd[1]);
	limits_close(l);
}

static void test_restart(void **state)
{
	const struct limit_key k = key("192.0.2.1", 0, 0);
	const struct limit_pace p = limit_pace(1, 60, 1);
	struct limits *l = file_table();
	assert_int_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(100)), 0);
	limits_close(l);
	l = file_table();
	assert_int_not_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(130)), 0);
	assert_int_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(160)), 0);
	/* read by another plugin, who cannot write it */
	struct limits *r = limits_open(dir, "spoa", why);
	assert_non_null(r);
	assert_int_equal(limit_clock(r, &k, 0), S_NS(220));
	assert_true(limits_is_current(r, dir, "spoa"));
	limits_close(r);
	limits_close(l);
}

/* What is no table of this boot and format is replaced by an empty one. */
static void test_damage(void **state)
{
	const struct limit_key k = key("192.0.2.1", 0, 0);
	const struct limit_pace p = limit_pace(1, 60, 1);
	char path[128];
	snprintf(path, sizeof(path), "%s/limits/spoa/table", dir);
	for (unsigned at = 0; at <= 48; at += 48) { /* magic, boot id */
		struct limits *l = file_table();
		(void)limit_charge(l, &k, 0, &p, 1, 0, S_NS(100));
		limits_close(l);
		FILE *f = fopen(path, "r+");
		assert_non_null(f);
		fseek(f, at, SEEK_SET);
		fputc('!', f);
		fclose(f);
		assert_null(limits_open(dir, "spoa", why));
		l = file_table();
		assert_int_equal(limit_charge(l, &k, 0, &p, 1, 0, S_NS(101)), 0);
		limits_close(l);
	}
	assert_int_equal(truncate(path, 5000), 0);
	assert_null(limits_open(dir, "spoa", why));
	assert_int_equal(chmod(path, 0666), 0);
	struct limits *l = file_table();
	assert_non_null(l);
	limits_close(l);
	assert_null(limits_create("/nowhere/at/all", "spoa", 4096, why));
	assert_null(limits_create(NULL, "spoa", 4095, why));
}

/* ---- room ---- */

/* One prefix asks from very many addresses: others find a place, and the prefix itself none. */
static void test_full(void **state)
{
	struct limits *l = table(4096);
	const struct limit_pace p = limit_pace(1, 3600, 1);
	unsigned refused = 0, kept = 0;
	const struct limit_key first = key("198.51.100.7", 0, 0);
	assert_int_equal(limit_charge(l, &first, 0, &p, 1, 0, S_NS(9)), 0);
	for (uint64_t i = 0; i < 100000; i++) {
		const struct limit_key k = key("2001:db8::", 0, i); /* things of one subject */
		refused += limit_charge(l, &k, 0, &p, 1, 0, S_NS(9)) == LIMIT_FULL;
	}
	assert_true(refused > 90000);
	/* who was there before is there still */
	assert_int_not_equal(limit_charge(l, &first, 0, &p, 1, 0, S_NS(10)), 0);
	for (unsigned i = 0; i < 200; i++) {
		char text[32];
		snprintf(text, sizeof(text), "10.%u.0.1", i);
		const struct limit_key k = key(text, 0, 0);
		const uint64_t once = limit_charge(l, &k, 0, &p, 1, 0, S_NS(9));
		const uint64_t twice = limit_charge(l, &k, 0, &p, 1, 0, S_NS(9));
		kept += once == 0 && twice != 0;
	}
	assert_int_equal(kept, 200);
	/* and places come free by themselves */
	const struct limit_key late = key("2001:db8::", 0, UINT64_MAX);
	assert_int_equal(limit_charge(l, &late, 0, &p, 1, 0, S_NS(9 + 3601)), 0);
	limits_close(l);
}

/* A million sources in 64 octets each: hardly one is without a place, and none has another's. */
static void test_million(void **state)
{
	enum { N = 1 << 20 };
	struct limits *l = table(2 * N);
	const struct limit_pace p = limit_pace(1, 3600, 1);
	unsigned refused = 0, again = 0;
	assert_true(2 * LIMIT_CELL_SIZE <= 64);
	for (uint32_t i = 0; i < N; i++) {
		uint8_t b[4] = { 10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };
		const struct limit_key k = { addr_from_v4(b), 0, 0 };
		refused += limit_charge(l, &k, 0, &p, 1, 0, S_NS(9)) != 0;
	}
	for (uint32_t i = 0; i < N; i++) {
		uint8_t b[4] = { 10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };
		const struct limit_key k = { addr_from_v4(b), 0, 0 };
		again += limit_charge(l, &k, 0, &p, 1, 0, S_NS(9)) == 0;
	}
	assert_true(refused < N / 1000);
	assert_true(again < N / 1000);
	limits_close(l);
}

static void test_marks(void **state)
{
	struct limits *l = table(64);
	const struct limit_key k = key("192.0.2.1", 0, 1);
	assert_true(limit_mark(l, &k, 2, S_NS(70), S_NS(10)));
	assert_false(limit_mark(l, &k, 2, S_NS(99), S_NS(69)));
	assert_true(limit_mark(l, &k, 2, S_NS(130), S_NS(70)));
	assert_int_equal(limit_clock(l, &k, 2), S_NS(130));
	/* a clock elsewhere counts as ours */
	const struct limit_pace p = limit_pace(1, 1, 2);
	const struct limit_key q = key("192.0.2.9", 0, 0);
	assert_int_not_equal(limit_charge(l, &q, 0, &p, 1, S_NS(12), S_NS(10)), 0);
	assert_int_equal(limit_charge(l, &q, 0, &p, 1, S_NS(11), S_NS(10)), 0);
	limits_close(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_burst_then_rate),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_costs),
		cmocka_unit_test(test_subjects),
		cmocka_unit_test(test_raised),
		cmocka_unit_test(test_eight_threads),
		cmocka_unit_test_setup(test_two_processes, fresh),
		cmocka_unit_test_setup(test_restart, fresh),
		cmocka_unit_test_setup(test_damage, fresh),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_million),
		cmocka_unit_test(test_marks),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
