/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of pins: whose they are, how long they hold, what happens when there are too many, what a
 * restart or a killed writer leaves, and that a reader never sees half of a pin.
 */
#include "tests/unit/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/live/pin.h"

static char dir[] = "/tmp/cx-pin.XXXXXX", pins_dir[64], path[80];
static char why[PIN_WHY_SIZE];

#define S_NS(s) ((uint64_t)(s)*UINT64_C(1000000000))

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(pins_dir, sizeof(pins_dir), "%s/" PIN_DIR, dir);
	snprintf(path, sizeof(path), "%s/test", pins_dir);
	return mkdir(pins_dir, 0755);
}

static int teardown(void **state)
{
	unlink(path);
	rmdir(pins_dir);
	return rmdir(dir);
}

static int fresh(void **state)
{
	unlink(path);
	return 0;
}

static struct pin_subject subject(const char *src, uint64_t generation)
{
	return (struct pin_subject){ addr_of(src), generation };
}

static bool pin(struct pins *p, const struct pin_subject *s, const char *name, const char *addr,
		uint32_t ttl_s, uint64_t now_s)
{
	struct name n = name_of(name);
	struct addr a = addr_of(addr);
	return pins_put(p, s, &n, &a, 1, ttl_s, S_NS(now_s));
}

static unsigned names_at(const struct pins *p, const struct pin_subject *s, const char *addr,
			 uint64_t now_s)
{
	struct name out[8];
	struct addr a = addr_of(addr);
	return pins_names(p, s, &a, S_NS(now_s), out, 8);
}

static unsigned addrs_of(const struct pins *p, const struct pin_subject *s, const char *name,
			 uint64_t now_s)
{
	struct addr out[2 * PIN_ADDRS];
	struct name n = name_of(name);
	return pins_addrs(p, s, &n, S_NS(now_s), out, 2 * PIN_ADDRS);
}

static void a_pin_is_its_subjects_alone(void **state)
{
	struct pins *w = pins_create(dir, "test", why), *r = pins_open(dir, "test", why);
	struct pin_subject a = subject("10.9.0.1", 0), b = subject("10.9.0.2", 0),
			   next = subject("10.9.0.1", 7);
	struct name out[4], want = name_of("git.example.org");
	struct addr to = addr_of("192.0.2.1");
	assert_non_null(w);
	assert_non_null(r);
	assert_int_equal(names_at(r, &a, "192.0.2.1", 100), 0);
	assert_true(pin(w, &a, "git.example.org", "192.0.2.1", 60, 100));
	assert_int_equal(pins_names(r, &a, &to, S_NS(100), out, 4), 1);
	assert_true(name_equal(&out[0], &want));
	assert_int_equal(names_at(r, &a, "192.0.2.2", 100), 0);
	assert_int_equal(names_at(r, &b, "192.0.2.1", 100), 0);
	assert_int_equal(names_at(r, &next, "192.0.2.1", 100), 0);
	assert_int_equal(addrs_of(r, &a, "git.example.org", 100), 1);
	assert_int_equal(addrs_of(r, &b, "git.example.org", 100), 0);
	assert_int_equal(addrs_of(r, &a, "example.org", 100), 0);
	/* both families, and a second name at the same address */
	assert_true(pin(w, &a, "git.example.org", "2001:db8::1", 60, 100));
	assert_true(pin(w, &a, "www.example.org", "192.0.2.1", 60, 100));
	assert_int_equal(addrs_of(r, &a, "git.example.org", 100), 2);
	assert_int_equal(names_at(r, &a, "192.0.2.1", 100), 2);
	assert_int_equal(names_at(r, &a, "2001:db8::1", 100), 1);
	pins_close(r);
	pins_close(w);
}

static void lives(void **state)
{
	struct pins *w = pins_create(dir, "test", why);
	struct pin_subject a = subject("10.9.0.1", 0);
	pin(w, &a, "zero.example", "192.0.2.1", 0, 100);
	pin(w, &a, "hour.example", "192.0.2.2", UINT32_MAX, 100);
	uint64_t least = 100 + PIN_TTL_MIN_S + PIN_GRACE_S,
		 most = 100 + PIN_TTL_MAX_S + PIN_GRACE_S;
	assert_int_equal(names_at(w, &a, "192.0.2.1", least - 1), 1);
	assert_int_equal(names_at(w, &a, "192.0.2.1", least), 0);
	assert_int_equal(names_at(w, &a, "192.0.2.2", most - 1), 1);
	assert_int_equal(names_at(w, &a, "192.0.2.2", most), 0);
	/* what a name had before holds to its time, and no longer */
	pin(w, &a, "moves.example", "192.0.2.3", 60, 100);
	pin(w, &a, "moves.example", "192.0.2.4", 300, 150);
	assert_int_equal(addrs_of(w, &a, "moves.example", 150), 2);
	assert_int_equal(addrs_of(w, &a, "moves.example", 100 + 60 + PIN_GRACE_S), 1);
	for (unsigned i = 1; i < 60; i++) {
		char text[32];
		snprintf(text, sizeof(text), "192.0.2.%u", i + 10);
		pin(w, &a, "many.example", text, 60, 200 + i);
	}
	assert_int_equal(addrs_of(w, &a, "many.example", 260), PIN_ADDRS);
	assert_int_equal(names_at(w, &a, "192.0.2.69", 260), 1); /* the newest are there */
	assert_int_equal(names_at(w, &a, "192.0.2.20", 260), 0);
	pins_close(w);
}

static void a_subject_pushes_out_only_its_own(void **state)
{
	struct pins *w = pins_create(dir, "test", why);
	struct pin_subject quiet = subject("10.9.0.1", 0), noisy = subject("10.9.0.2", 0);
	pin(w, &quiet, "kept.example", "192.0.2.1", 600, 100);
	for (unsigned i = 0; i < 20000; i++) {
		char name[32];
		snprintf(name, sizeof(name), "n%u.example", i);
		assert_true(pin(w, &noisy, name, "192.0.2.9", 600, 101));
	}
	assert_int_equal(names_at(w, &quiet, "192.0.2.1", 102), 1);
	assert_int_equal(addrs_of(w, &noisy, "n19999.example", 102), 1);
	/* every subject that there can be; none loses what it has */
	unsigned held = 0, refused = 0;
	for (unsigned i = 0; i < 8 * PIN_SUBJECTS; i++) {
		char src[32];
		snprintf(src, sizeof(src), "172.16.%u.%u", i >> 8 & 255, i & 255);
		struct pin_subject s = subject(src, 1 + (i >> 16));
		bool ok = pin(w, &s, "x.example", "192.0.2.7", 600, 103);
		assert_int_equal(names_at(w, &s, "192.0.2.7", 104), ok);
		held += ok;
		refused += !ok;
	}
	assert_true(held > PIN_SUBJECTS * 9 / 10 && held < PIN_SUBJECTS);
	assert_int_equal(pins_refused(w), refused);
	assert_int_equal(names_at(w, &quiet, "192.0.2.1", 104), 1);
	/* places are free again when nothing in them holds */
	struct pin_subject late = subject("10.9.7.7", 0);
	assert_true(pin(w, &late, "x.example", "192.0.2.7", 600, 5000));
	assert_int_equal(names_at(w, &late, "192.0.2.7", 5000), 1);
	pins_close(w);
}

static void a_prefix_has_few_places(void **state)
{
	struct pins *w = pins_create(dir, "test", why);
	unsigned held = 0;
	for (unsigned i = 0; i < 1000; i++) {
		char src[48];
		snprintf(src, sizeof(src), "2001:db8:9:1::%x", i);
		struct pin_subject s = subject(src, 0);
		held += pin(w, &s, "x.example", "192.0.2.7", 600, 100);
	}
	assert_int_equal(held, 8);
	pins_close(w);
}

static void restarts(void **state)
{
	struct pin_subject a = subject("10.9.0.1", 0);
	struct pins *w = pins_create(dir, "test", why), *r = pins_open(dir, "test", why);
	pin(w, &a, "git.example.org", "192.0.2.1", 60, 100);
	assert_null(pins_create(dir, "test", why)); /* one writer at a time */
	pins_close(w);
	assert_int_equal(names_at(r, &a, "192.0.2.1", 101), 1);
	w = pins_create(dir, "test", why);
	assert_non_null(w);
	assert_int_equal(names_at(w, &a, "192.0.2.1", 101), 1);
	pin(w, &a, "new.example.org", "192.0.2.2", 60, 101);
	assert_int_equal(names_at(r, &a, "192.0.2.2", 101), 1);
	assert_true(pins_is_current(r, dir, "test"));
	pins_close(w);
	/* another boot's: replaced by an empty one, and the reader notices */
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "deadbeef", 8, 32), 8);
	close(fd);
	assert_null(pins_open(dir, "test", why));
	w = pins_create(dir, "test", why);
	assert_non_null(w);
	assert_int_equal(names_at(w, &a, "192.0.2.1", 101), 0);
	assert_false(pins_is_current(r, dir, "test"));
	pins_close(w);
	pins_close(r);
}

static void bad_files(void **state)
{
	assert_null(pins_open(dir, "test", why)); /* missing */
	write_bytes(path, "short", 5);
	assert_null(pins_open(dir, "test", why));
	struct pins *w = pins_create(dir, "test", why);
	assert_non_null(w);
	pins_close(w);
	assert_int_equal(chmod(path, 0666), 0);
	assert_null(pins_open(dir, "test", why));
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(chmod(pins_dir, 0777), 0);
	assert_null(pins_open(dir, "test", why));
	assert_null(pins_create(dir, "test", why));
	assert_int_equal(chmod(pins_dir, 0755), 0);
	unlink(path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_null(pins_open(dir, "test", why));
	assert_null(pins_create(dir, "test", why));
}

/* Whatever octets stand in the rows: no crash, and no pin for whom nothing was written. */
static void damaged_rows(void **state)
{
	struct pins *w = pins_create(dir, "test", why);
	struct pin_subject a = subject("10.9.0.1", 0);
	uint64_t x = 88172645463325252u;
	pin(w, &a, "git.example.org", "192.0.2.1", 60, 100);
	pins_close(w);
	int fd = open(path, O_RDWR);
	off_t used[64] = { 0 };
	unsigned n_used = 0;
	/* only where something stands, or the file would fill the disk */
	for (off_t at = 4096; n_used < 64 && (at = lseek(fd, at, SEEK_DATA)) >= 0; at += 4096)
		used[n_used++] = at;
	assert_true(n_used > 0);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 200; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			off_t at = used[x % n_used] + (off_t)((x >> 32) % 4088);
			assert_int_equal(pwrite(fd, &x, 8, at), 8);
		}
		struct pins *r = pins_open(dir, "test", why);
		assert_non_null(r);
		struct name out[8];
		struct addr to = addr_of("192.0.2.1");
		struct pin_subject other = subject("10.9.0.3", 0);
		(void)pins_names(r, &a, &to, S_NS(100), out, 8);
		assert_int_equal(names_at(r, &other, "192.0.2.1", 100), 0);
		pins_close(r);
	}
	close(fd);
}

/* ---- a writer and readers at once ---- */

struct race {
	struct pins *w;
	_Atomic bool stop;
	_Atomic unsigned seen;
};

/* Pins only pairs that belong together: name i at an address that says i. */
static void *write_pairs(void *arg)
{
	struct race *k = arg;
	struct pin_subject s = subject("10.9.0.1", 0);
	for (unsigned i = 0; !atomic_load(&k->stop); i++) {
		char name[64];
		struct addr v[2] = { addr_of("192.0.2.0"), addr_of("198.51.100.0") };
		v[0].b[15] = v[1].b[15] = (uint8_t)(i % 251);
		snprintf(name, sizeof(name), "a-rather-long-name-%u.example", i % 251);
		struct name n = name_of(name);
		pins_put(k->w, &s, &n, v, 2, 60, S_NS(100 + i / 251));
	}
	return NULL;
}

static void no_half_pins(void **state)
{
	struct race k = { .w = pins_create(dir, "test", why) };
	struct pins *r = pins_open(dir, "test", why);
	struct pin_subject s = subject("10.9.0.1", 0);
	pthread_t t[2];
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, write_pairs, &k), 0);
	unsigned found = 0;
	for (unsigned i = 0; i < 200000 && found < 5000; i++) {
		struct name out[4];
		char want[64];
		struct addr a = addr_of(i % 2 ? "192.0.2.0" : "198.51.100.0");
		a.b[15] = (uint8_t)(i % 251);
		unsigned n = pins_names(r, &s, &a, S_NS(100), out, 4);
		snprintf(want, sizeof(want), "a-rather-long-name-%u.example", i % 251);
		struct name expected = name_of(want);
		for (unsigned j = 0; j < n; j++)
			assert_true(name_equal(&out[j], &expected));
		found += n;
	}
	atomic_store(&k.stop, true);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_true(found > 0);
	pins_close(r);
	pins_close(k.w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_pin_is_its_subjects_alone, fresh),
		cmocka_unit_test_teardown(lives, fresh),
		cmocka_unit_test_teardown(a_subject_pushes_out_only_its_own, fresh),
		cmocka_unit_test_teardown(a_prefix_has_few_places, fresh),
		cmocka_unit_test_teardown(restarts, fresh),
		cmocka_unit_test_teardown(bad_files, fresh),
		cmocka_unit_test_teardown(damaged_rows, fresh),
		cmocka_unit_test_teardown(no_half_pins, fresh),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
