/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are no policy: each is refused with a reason, leaves what the caller has untouched, and
 * none crashes the reader, not even one whose digest fits.
 */
#include "tests/unit/exercise.h"
#include "tests/unit/fixture.h"

#include <fcntl.h>
#include <signal.h>

#include "shared/policy/features.h"
#include "shared/policy/slot.h"

static char dir[] = "/tmp/cx-bad.XXXXXX";
static char path[64];
static struct bytes good;

static const struct policy_trust trust = { .features = FEATURES_ENFORCED };

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/policy.bin", dir);
	good = fixture('a');
	return 0;
}

static int teardown(void **state)
{
	free(good.p);
	unlink(path);
	return rmdir(dir);
}

/* Opens the file, which must fail, and gives the error; there must be words for it. */
static enum policy_err refused(void)
{
	struct policy *const untouched = (void *)(uintptr_t)0x5a5a5a5a;
	struct policy *p = untouched;
	char why[POLICY_WHY_SIZE];
	memset(why, 'x', sizeof(why));
	enum policy_err e = policy_open(&p, path, &trust, why);
	assert_true(e != POLICY_OK);
	assert_ptr_equal(p, untouched);
	assert_true(strlen(policy_strerror(e)) > 3);
	assert_non_null(memchr(why, '\0', sizeof(why)));
	assert_null(strchr(why, '\n'));
	return e;
}

/* The good bytes, to be changed; write them with put(). */
static uint8_t *copy_of_good(void)
{
	uint8_t *p = malloc(good.n + 64);
	memcpy(p, good.p, good.n);
	return p;
}

static enum policy_err refused_bytes(const uint8_t *p, size_t n)
{
	write_bytes(path, p, n);
	return refused();
}

static void the_good_file_opens(void **state)
{
	struct policy *p = NULL;
	struct policy_info i;
	char why[POLICY_WHY_SIZE];
	write_bytes(path, good.p, good.n);
	assert_int_equal(policy_open(&p, path, &trust, why), POLICY_OK);
	policy_info(p, &i);
	assert_string_equal(i.revision, "a");
	assert_int_equal(i.serial, 7);
	assert_int_equal(i.size, good.n);
	assert_int_equal(strlen(i.digest), 12);
	exercise_policy(p);
	policy_close(p);
}

static void missing(void **state)
{
	unlink(path);
	assert_int_equal(refused(), POLICY_ERR_SYSTEM);
}

static void empty(void **state)
{
	assert_int_equal(refused_bytes((const uint8_t *)"", 0), POLICY_ERR_EMPTY);
}

static void wrong_magic(void **state)
{
	uint8_t *p = copy_of_good();
	memset(p, 'N', 8);
	fix_digest(p, good.n);
	assert_int_equal(refused_bytes(p, good.n), POLICY_ERR_MAGIC);
	free(p);
	static const char yaml[] = "version: 1\nnetwork: {presets: [default]}\n";
	assert_true(refused_bytes((const uint8_t *)yaml, sizeof(yaml) - 1) != POLICY_OK);
	char *text = malloc(4096);
	memset(text, 'a', 4096);
	assert_int_equal(refused_bytes((const uint8_t *)text, 4096), POLICY_ERR_MAGIC);
	memset(text, 0, 4096);
	assert_int_equal(refused_bytes((const uint8_t *)text, 4096), POLICY_ERR_MAGIC);
	free(text);
}

static void other_version(void **state)
{
	uint8_t *p = copy_of_good();
	for (uint32_t v = 0; v < 4; v++) {
		uint32_t version = v == FMT_VERSION ? 77 : v;
		memcpy(p + offsetof(struct fmt_header, version), &version, 4);
		fix_digest(p, good.n);
		assert_int_equal(refused_bytes(p, good.n), POLICY_ERR_VERSION);
	}
	free(p);
}

static void other_byte_order(void **state)
{
	uint8_t *p = copy_of_good();
	const uint32_t swapped = 0x04030201;
	memcpy(p + offsetof(struct fmt_header, endian), &swapped, 4);
	fix_digest(p, good.n);
	assert_int_equal(refused_bytes(p, good.n), POLICY_ERR_ENDIAN);
	free(p);
}

static void truncated_at_every_64th(void **state)
{
	for (size_t k = 1; k < 64; k++) {
		enum policy_err e = refused_bytes(good.p, good.n * k / 64);
		assert_true(e == POLICY_ERR_TRUNCATED);
	}
}

static void truncated_by_an_octet(void **state)
{
	for (size_t cut = 1; cut <= 300 && cut < good.n; cut++)
		assert_int_equal(refused_bytes(good.p, good.n - cut), POLICY_ERR_TRUNCATED);
	for (size_t n = 1; n <= sizeof(struct fmt_header) + 32; n++)
		assert_int_equal(refused_bytes(good.p, n), POLICY_ERR_TRUNCATED);
}

/* The same with a header that admits it: then the sections do not fit. */
static void truncated_with_a_fitting_header(void **state)
{
	uint8_t *p = copy_of_good();
	for (size_t k = 0; k < 64; k++) {
		uint64_t n = sizeof(struct fmt_header) +
			     (good.n - sizeof(struct fmt_header)) * k / 64 / 8 * 8;
		memcpy(p, good.p, good.n);
		memcpy(p + offsetof(struct fmt_header, content_size), &n, 8);
		fix_digest(p, n);
		assert_int_equal(refused_bytes(p, n), POLICY_ERR_LAYOUT);
	}
	free(p);
}

static void something_behind_the_end(void **state)
{
	uint8_t *p = copy_of_good();
	memset(p + good.n, 0, 64);
	assert_true(refused_bytes(p, good.n + 1) != POLICY_OK);
	assert_true(refused_bytes(p, good.n + 64) != POLICY_OK);
	free(p);
}

static void every_bit_of_the_header(void **state)
{
	uint8_t *p = copy_of_good();
	for (size_t bit = 0; bit < sizeof(struct fmt_header) * 8; bit++) {
		p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		(void)refused_bytes(p, good.n);
		p[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_memory_equal(p, good.p, good.n);
	free(p);
}

/* One bit of each octet of the file: the digest covers all of it. */
static void a_bit_of_every_octet(void **state)
{
	uint8_t *p = copy_of_good();
	for (size_t at = 0; at < good.n; at++) {
		uint8_t bit = (uint8_t)(1 << at % 8);
		p[at] ^= bit;
		(void)refused_bytes(p, good.n);
		p[at] ^= bit;
	}
	free(p);
}

static void wrong_digest(void **state)
{
	uint8_t *p = copy_of_good();
	memset(p + offsetof(struct fmt_header, file_digest), 0, 32);
	assert_int_equal(refused_bytes(p, good.n), POLICY_ERR_DIGEST);
	memcpy(p, good.p, good.n);
	p[good.n - 1] ^= 1;
	assert_int_equal(refused_bytes(p, good.n), POLICY_ERR_DIGEST);
	free(p);
}

static void unknown_feature(void **state)
{
	uint8_t *p = copy_of_good();
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t required;
		if (FEATURES_ENFORCED >> bit & 1)
			continue;
		memcpy(p, good.p, good.n);
		memcpy(&required, p + offsetof(struct fmt_header, required), 8);
		required |= UINT64_C(1) << bit;
		memcpy(p + offsetof(struct fmt_header, required), &required, 8);
		fix_digest(p, good.n);
		assert_int_equal(refused_bytes(p, good.n), POLICY_ERR_FEATURE);
	}
	free(p);
}

static void a_serial_too_low(void **state)
{
	struct policy *p = NULL;
	struct policy_trust t = trust;
	write_bytes(path, good.p, good.n);
	t.min_serial = 8;
	assert_int_equal(policy_open(&p, path, &t, NULL), POLICY_ERR_SERIAL);
	t.min_serial = 7;
	assert_int_equal(policy_open(&p, path, &t, NULL), POLICY_OK);
	policy_close(p);
}

static void not_signed(void **state)
{
	static const uint8_t key[32] = { 1 };
	struct policy *p = NULL;
	struct policy_trust t = trust;
	write_bytes(path, good.p, good.n);
	t.public_key = key;
	assert_int_equal(policy_open(&p, path, &t, NULL), POLICY_ERR_UNSIGNED);
}

static void writable_by_others(void **state)
{
	static const mode_t bad[] = { 0664, 0646, 0666, 0622, 0602, 0620, 0777 };
	write_bytes(path, good.p, good.n);
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(chmod(path, bad[i]), 0);
		assert_int_equal(refused(), POLICY_ERR_UNTRUSTED);
	}
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(refused(), POLICY_ERR_UNTRUSTED);
	assert_int_equal(chmod(dir, 0770), 0);
	assert_int_equal(refused(), POLICY_ERR_UNTRUSTED);
	assert_int_equal(chmod(dir, 0700), 0);
}

static void owned_by_another(void **state)
{
	write_bytes(path, good.p, good.n);
	if (geteuid() != 0) /* nobody else can give a file away; the suite runs as root */
		fail_msg("run as root");
	assert_int_equal(chown(path, 65534, 65534), 0);
	assert_int_equal(refused(), POLICY_ERR_UNTRUSTED);
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(chown(dir, 65534, 65534), 0);
	assert_int_equal(refused(), POLICY_ERR_UNTRUSTED);
	assert_int_equal(chown(dir, 0, 0), 0);
}

static void not_a_regular_file(void **state)
{
	unlink(path);
	assert_int_equal(mkdir(path, 0755), 0);
	(void)refused();
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_int_equal(refused(), POLICY_ERR_UNTRUSTED);
	unlink(path);
	assert_int_equal(symlink("/dev/zero", path), 0);
	(void)refused();
	unlink(path);
	assert_int_equal(symlink(path, path), 0);
	assert_int_equal(refused(), POLICY_ERR_SYSTEM);
	unlink(path);
}

/* Numbers that would make a careless reader allocate or loop without end. */
static void huge_numbers(void **state)
{
	static const size_t fields[] = {
		offsetof(struct fmt_header, content_size),
		offsetof(struct fmt_header, n_sections),
		offsetof(struct fmt_header, default_profile),
		offsetof(struct fmt_header, unlisted),
		offsetof(struct fmt_header, depths),
	};
	uint8_t *p = copy_of_good();
	for (size_t i = 0; i < COUNT(fields); i++) {
		memcpy(p, good.p, good.n);
		memset(p + fields[i], 0xff, 4);
		fix_digest(p, good.n);
		(void)refused_bytes(p, good.n);
	}
	/* every field of every section's entry in the table */
	uint32_t sections;
	memcpy(&sections, good.p + offsetof(struct fmt_header, n_sections), 4);
	for (size_t at = sizeof(struct fmt_header);
	     at < sizeof(struct fmt_header) + sections * sizeof(struct fmt_section); at += 4) {
		memcpy(p, good.p, good.n);
		memset(p + at, 0xff, 4);
		fix_digest(p, good.n);
		write_bytes(path, p, good.n);
		struct policy *q = NULL;
		if (policy_open(&q, path, &trust, NULL) == POLICY_OK) {
			exercise_policy(q);
			policy_close(q);
		}
	}
	free(p);
}

/*
 * Random damage with a digest that fits: what is not noticed must still be safe to use. The alarm is the
 * bound on time.
 */
static void random_damage_never_crashes(void **state)
{
	uint64_t seed = 20261121;
	unsigned opened = 0;
	uint8_t *p = copy_of_good();
	alarm(120);
	for (unsigned round = 0; round < 6000; round++) {
		memcpy(p, good.p, good.n);
		unsigned flips = 1 + (unsigned)(next_random(&seed) % 4);
		for (unsigned i = 0; i < flips; i++) {
			size_t at = next_random(&seed) % good.n;
			if (next_random(&seed) % 2)
				p[at] ^= (uint8_t)(1 << next_random(&seed) % 8);
			else
				p[at] = (uint8_t)next_random(&seed);
		}
		fix_digest(p, good.n);
		write_bytes(path, p, good.n);
		struct policy *q = NULL;
		if (policy_open(&q, path, &trust, NULL) != POLICY_OK)
			continue;
		opened++;
		exercise_policy(q);
		policy_close(q);
	}
	alarm(0);
	assert_true(opened > 0); /* else this looked at nothing */
	free(p);
}

/* A process that has a policy keeps it, whatever takes the file's place. */
static void the_old_policy_stays(void **state)
{
	enum policy_err err;
	char why[POLICY_WHY_SIZE];
	struct slot *s = slot_new(path, &trust);
	struct slot_reader *r = slot_reader_new(s);
	struct policy_info i;
	unlink(path);
	assert_int_equal(slot_poll(s, false, &err, why), SLOT_REFUSED);
	assert_null(slot_borrow(r)); /* nothing opens */
	slot_release(r);
	replace_bytes(path, good.p, good.n);
	assert_int_equal(slot_poll(s, false, &err, why), SLOT_LOADED);
	uint8_t *p = copy_of_good();
	for (size_t k = 0; k < 64; k++) {
		memcpy(p, good.p, good.n);
		p[good.n * k / 64] ^= 0x10;
		replace_bytes(path, p, k % 2 ? good.n : good.n * k / 64);
		assert_int_equal(slot_poll(s, false, &err, why), SLOT_REFUSED);
		assert_true(err != POLICY_OK);
		assert_int_equal(slot_poll(s, false, &err, why), SLOT_SAME); /* said once */
		const struct policy *q = slot_borrow(r);
		assert_non_null(q);
		policy_info(q, &i);
		assert_string_equal(i.revision, "a");
		slot_release(r);
	}
	unlink(path);
	assert_int_equal(slot_poll(s, false, &err, why), SLOT_REFUSED);
	assert_non_null(slot_borrow(r));
	slot_release(r);
	replace_bytes(path, good.p, good.n);
	assert_int_equal(slot_poll(s, false, &err, why), SLOT_RESTORED);
	free(p);
	slot_reader_free(r);
	slot_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_good_file_opens),
		cmocka_unit_test(missing),
		cmocka_unit_test(empty),
		cmocka_unit_test(wrong_magic),
		cmocka_unit_test(other_version),
		cmocka_unit_test(other_byte_order),
		cmocka_unit_test(truncated_at_every_64th),
		cmocka_unit_test(truncated_by_an_octet),
		cmocka_unit_test(truncated_with_a_fitting_header),
		cmocka_unit_test(something_behind_the_end),
		cmocka_unit_test(every_bit_of_the_header),
		cmocka_unit_test(a_bit_of_every_octet),
		cmocka_unit_test(wrong_digest),
		cmocka_unit_test(unknown_feature),
		cmocka_unit_test(a_serial_too_low),
		cmocka_unit_test(not_signed),
		cmocka_unit_test(writable_by_others),
		cmocka_unit_test(owned_by_another),
		cmocka_unit_test(not_a_regular_file),
		cmocka_unit_test(huge_numbers),
		cmocka_unit_test(random_damage_never_crashes),
		cmocka_unit_test(the_old_policy_stays),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
