/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy of a running process under threads: while readers borrow and judge, the file is replaced,
 * removed, truncated and overwritten in place. Every judgement is wholly one policy's.
 */
#include "tests/unit/fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "shared/policy/features.h"
#include "shared/policy/slot.h"

static char dir[] = "/tmp/cx-slot.XXXXXX";
static char path[64];
static struct bytes a, b;
static const struct policy_trust trust = { .features = FEATURES_ENFORCED };

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	a = fixture('a');
	b = fixture('b');
	return 0;
}

static int teardown(void **state)
{
	free(a.p);
	free(b.p);
	unlink(path);
	return rmdir(dir);
}

static enum slot_event poll_slot(struct slot *s)
{
	enum policy_err err;
	char why[POLICY_WHY_SIZE];
	return slot_poll(s, false, &err, why);
}

static char revision_in_force(struct slot_reader *r)
{
	struct policy_info i;
	const struct policy *p = slot_borrow(r);
	if (p)
		policy_info(p, &i);
	char c = p ? i.revision[0] : '-';
	slot_release(r);
	return c;
}

static void takes_a_changed_file(void **state)
{
	struct slot *s = slot_new(path, &trust);
	struct slot_reader *r = slot_reader_new(s);
	enum policy_err err;
	char why[POLICY_WHY_SIZE];
	assert_int_equal(revision_in_force(r), '-');
	replace_bytes(path, a.p, a.n);
	assert_int_equal(poll_slot(s), SLOT_LOADED);
	assert_int_equal(revision_in_force(r), 'a');
	assert_int_equal(poll_slot(s), SLOT_SAME);
	replace_bytes(path, b.p, b.n);
	assert_int_equal(revision_in_force(r), 'a');
	assert_int_equal(poll_slot(s), SLOT_LOADED);
	assert_int_equal(revision_in_force(r), 'b');
	assert_int_equal(slot_poll(s, true, &err, why), SLOT_SAME); /* forced, nothing new */
	replace_bytes(path, b.p, b.n);
	assert_int_equal(poll_slot(s), SLOT_SAME); /* another file, the same policy */
	slot_reader_free(r);
	slot_free(s);
}

/* What is borrowed stays whole although the file is cut, overwritten and removed under it. */
static void a_borrow_outlives_the_file(void **state)
{
	struct slot *s = slot_new(path, &trust);
	struct slot_reader *r = slot_reader_new(s), *other = slot_reader_new(s);
	struct name n = name_of("a.example.com");
	struct question q = question_about(LAYER_TLS, "10.9.0.1", &n, 443);
	struct facts f = { .now = { .wall_ns = INT64_C(1795262400000000000) } };
	struct verdict v;
	replace_bytes(path, a.p, a.n);
	assert_int_equal(poll_slot(s), SLOT_LOADED);
	const struct policy *p = slot_borrow(r);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (size_t at = 0; at + 16 <= a.n; at += 16)
		assert_int_equal(pwrite(fd, "################", 16, (off_t)at), 16);
	verdict(p, &q, &f, &v);
	assert_int_equal(v.action, ACTION_ALLOW);
	assert_int_equal(ftruncate(fd, 0), 0);
	verdict(p, &q, &f, &v);
	assert_int_equal(v.action, ACTION_ALLOW);
	assert_int_equal(poll_slot(s), SLOT_REFUSED);
	close(fd);
	unlink(path);
	for (unsigned i = 0; i < 10; i++) {
		replace_bytes(path, i % 2 ? a.p : b.p, i % 2 ? a.n : b.n);
		assert_int_equal(poll_slot(s), SLOT_LOADED);
	}
	assert_int_equal(revision_in_force(other), 'a');
	verdict(p, &q, &f, &v);
	assert_int_equal(v.action, ACTION_ALLOW);
	slot_release(r);
	slot_reader_free(r);
	slot_reader_free(other);
	slot_free(s);
}

/* ---- threads ---- */

enum { READERS = 4, SWAPS = 400 };

struct shared {
	struct slot *slot;
	_Atomic bool stop;
	_Atomic uint64_t seen_a, seen_b, wrong, none;
};

/* a.example.com is policy a's, b.example.com policy b's: one and only one is allowed. */
static void *read_policies(void *arg)
{
	struct shared *sh = arg;
	struct slot_reader *r = slot_reader_new(sh->slot);
	struct name na = name_of("a.example.com"), nb = name_of("b.example.com");
	struct question qa = question_about(LAYER_TLS, "10.9.0.1", &na, 443);
	struct question qb = question_about(LAYER_TLS, "10.9.0.1", &nb, 443);
	struct facts f = { .now = { .wall_ns = INT64_C(1795262400000000000) } };
	while (!atomic_load(&sh->stop)) {
		struct verdict va, vb;
		struct policy_info i;
		const struct policy *p = slot_borrow(r);
		if (!p) {
			atomic_fetch_add(&sh->none, 1);
			slot_release(r);
			continue;
		}
		verdict(p, &qa, &f, &va);
		verdict(p, &qb, &f, &vb);
		policy_info(p, &i);
		bool is_a = i.revision[0] == 'a';
		if ((va.action == ACTION_ALLOW) != is_a || (vb.action == ACTION_ALLOW) == is_a)
			atomic_fetch_add(&sh->wrong, 1);
		atomic_fetch_add(is_a ? &sh->seen_a : &sh->seen_b, 1);
		slot_release(r);
	}
	slot_reader_free(r);
	return NULL;
}

static void damage_in_place(unsigned i)
{
	int fd = open(path, O_RDWR);
	if (fd < 0)
		return;
	if (i % 2)
		assert_int_equal(ftruncate(fd, (off_t)(i % 4096)), 0);
	else
		assert_int_equal(pwrite(fd, "#########", 9, (off_t)(i * 7 % a.n)), 9);
	close(fd);
}

static void readers_and_a_changing_file(void **state)
{
	struct shared sh = { .slot = slot_new(path, &trust) };
	pthread_t t[READERS];
	replace_bytes(path, a.p, a.n);
	assert_int_equal(poll_slot(sh.slot), SLOT_LOADED);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, read_policies, &sh), 0);
	for (unsigned i = 0; i < SWAPS; i++) {
		const struct bytes *x = i % 2 ? &a : &b;
		replace_bytes(path, x->p, x->n);
		(void)poll_slot(sh.slot);
		if (i % 5 == 0) {
			damage_in_place(i);
			(void)poll_slot(sh.slot);
		}
	}
	/* both must have been seen before the readers end */
	for (unsigned i = 0; !atomic_load(&sh.seen_a) || !atomic_load(&sh.seen_b); i++) {
		const struct bytes *x = i % 2 ? &a : &b;
		replace_bytes(path, x->p, x->n);
		(void)poll_slot(sh.slot);
		usleep(1000);
		assert_true(i < 20000);
	}
	atomic_store(&sh.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	slot_free(sh.slot);
	assert_int_equal(atomic_load(&sh.wrong), 0);
	assert_int_equal(atomic_load(&sh.none), 0);
}

/* Readers come and go while policies change. */
static void *come_and_go(void *arg)
{
	struct shared *sh = arg;
	while (!atomic_load(&sh->stop)) {
		struct slot_reader *r = slot_reader_new(sh->slot);
		if (revision_in_force(r) == '-')
			atomic_fetch_add(&sh->none, 1);
		slot_reader_free(r);
	}
	return NULL;
}

static void readers_come_and_go(void **state)
{
	struct shared sh = { .slot = slot_new(path, &trust) };
	pthread_t t[READERS];
	replace_bytes(path, a.p, a.n);
	assert_int_equal(poll_slot(sh.slot), SLOT_LOADED);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, come_and_go, &sh), 0);
	for (unsigned i = 0; i < SWAPS / 2; i++) {
		const struct bytes *x = i % 2 ? &a : &b;
		replace_bytes(path, x->p, x->n);
		assert_int_equal(poll_slot(sh.slot), SLOT_LOADED);
	}
	atomic_store(&sh.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	slot_free(sh.slot);
	assert_int_equal(atomic_load(&sh.none), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_a_changed_file),
		cmocka_unit_test(a_borrow_outlives_the_file),
		cmocka_unit_test(readers_and_a_changing_file),
		cmocka_unit_test(readers_come_and_go),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
