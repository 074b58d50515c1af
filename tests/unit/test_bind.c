/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of bindings: who reads sees each row wholly old or wholly new, who writes finds what it
 * wrote, and a file that cannot be trusted is no table.
 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/live/bindfile.h"
#include "shared/live/bindwrite.h"

static char dir[] = "/tmp/cx-bind.XXXXXX";
static char path[64], lock_path[64];

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/bindings", dir);
	snprintf(lock_path, sizeof(lock_path), "%s/bindings.lock", dir);
	return 0;
}

static int clear(void **state)
{
	unlink(path);
	unlink(lock_path);
	return 0;
}

static int teardown(void **state)
{
	clear(state);
	return rmdir(dir);
}

static struct bind_writer *writer(void)
{
	char why[BIND_WHY_SIZE];
	struct bind_writer *w = bind_writer_open(dir, (gid_t)-1, why);
	if (!w)
		fail_msg("%s", why);
	assert_true(bind_lock_table(w));
	return w;
}

static struct prefix prefix_of(const char *text)
{
	struct prefix p;
	assert_int_equal(prefix_from_text(&p, text, strlen(text)), PREFIX_OK);
	return p;
}

static struct bind_row row_of(const char *addr, const char *task, uint64_t generation)
{
	struct bind_row r = { .state = BIND_BOUND, .generation = generation, .n_addrs = 1 };
	r.addrs[0] = prefix_of(addr);
	snprintf(r.task, sizeof(r.task), "%s", task);
	snprintf(r.profile, sizeof(r.profile), "ci");
	snprintf(r.ifname, sizeof(r.ifname), "tap0");
	return r;
}

static bool find(struct bind_writer *w, const char *addr, uint64_t now, struct bind_row *out)
{
	struct addr a = addr_of(addr);
	return bind_find(bind_writer_table(w), &a, now, out);
}

static void finds_what_was_bound(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row r = row_of("10.9.0.1", "t1", 7), got;
	r.n_addrs = 2;
	r.addrs[1] = prefix_of("fd00:9:1::/64");
	r.overlay_len = 11;
	memcpy(r.overlay, "hello world", 11);
	uint32_t at = bind_add(w, &r);
	assert_int_not_equal(at, BIND_NO_ROW);
	assert_int_equal(bind_count(w), 1);
	assert_true(find(w, "10.9.0.1", 1, &got));
	assert_int_equal(got.generation, 7);
	assert_string_equal(got.task, "t1");
	assert_int_equal(got.overlay_len, 11);
	assert_memory_equal(got.overlay, "hello world", 11);
	assert_true(find(w, "fd00:9:1::42", 1, &got));
	assert_false(find(w, "fd00:9:2::42", 1, &got));
	assert_false(find(w, "10.9.0.2", 1, &got));
	assert_int_equal(bind_row_of_task(w, "t1", &got), at);
	assert_int_equal(bind_row_of_task(w, "t2", &got), BIND_NO_ROW);

	struct prefix p = prefix_of("fd00:9:1::7");
	assert_int_equal(bind_row_overlapping(w, &p, &got), at);
	p = prefix_of("fd00:9::/48");
	assert_int_equal(bind_row_overlapping(w, &p, &got), BIND_NO_ROW);
	p = prefix_of("fd00:9::/32");
	assert_int_equal(bind_row_overlapping(w, &p, &got), at);
	p = prefix_of("10.9.0.2");
	assert_int_equal(bind_row_overlapping(w, &p, &got), BIND_NO_ROW);

	bind_remove(w, at);
	assert_int_equal(bind_count(w), 0);
	assert_false(find(w, "10.9.0.1", 1, &got));
	assert_false(find(w, "fd00:9:1::42", 1, &got));
	assert_int_equal(bind_row_of_task(w, "t1", &got), BIND_NO_ROW);
	bind_writer_close(w);
}

static void only_what_is_in_force_is_found(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row r = row_of("10.9.0.1", "t1", 7), got;
	r.deadline_ns = 100;
	uint32_t at = bind_add(w, &r);
	assert_true(find(w, "10.9.0.1", 99, &got));
	assert_false(find(w, "10.9.0.1", 100, &got));
	r.deadline_ns = 0;
	r.state = BIND_LEAVING;
	bind_update(w, at, &r);
	assert_false(find(w, "10.9.0.1", 1, &got));
	assert_int_equal(bind_row_of_task(w, "t1", &got), at);
	bind_writer_close(w);
}

static void the_longest_prefix_counts(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row wide = row_of("fd00:9::/48", "wide", 1),
			narrow = row_of("fd00:9::5", "narrow", 2);
	struct bind_row got;
	bind_add(w, &wide);
	uint32_t at = bind_add(w, &narrow);
	assert_true(find(w, "fd00:9::5", 1, &got));
	assert_string_equal(got.task, "narrow");
	assert_true(find(w, "fd00:9::6", 1, &got));
	assert_string_equal(got.task, "wide");
	bind_remove(w, at);
	assert_true(find(w, "fd00:9::5", 1, &got));
	assert_string_equal(got.task, "wide");
	assert_false(find(w, "10.9.0.1", 1, &got));
	bind_writer_close(w);
}

static void a_generation_comes_once(void **state)
{
	struct bind_writer *w = writer();
	uint64_t a = bind_next_generation(w), b = bind_next_generation(w);
	assert_true(b > a && a > 0);
	bind_writer_close(w);
	/* the table is lost; the clock may stand anywhere */
	assert_int_equal(unlink(path), 0);
	w = writer();
	assert_true(bind_next_generation(w) > b);
	struct bind_image *m = bind_writer_table(w)->map;
	uint64_t far = UINT64_C(1) << 50;
	atomic_store(&m->h.next_generation, far);
	assert_int_equal(bind_next_generation(w), far);
	bind_writer_close(w);
	unlink(path);
	w = writer();
	assert_true(bind_next_generation(w) > far);
	bind_writer_close(w);
}

static void fills_up_and_says_so(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row got;
	char addr[32], task[32];
	for (unsigned i = 0; i < BIND_ROWS; i++) {
		snprintf(addr, sizeof(addr), "10.%u.%u.%u", 1 + (i >> 16), i >> 8 & 255, i & 255);
		snprintf(task, sizeof(task), "task-%u", i);
		struct bind_row r = row_of(addr, task, i + 1);
		assert_int_equal(bind_add(w, &r), i);
	}
	struct bind_row more = row_of("10.200.0.1", "more", 1);
	assert_int_equal(bind_add(w, &more), BIND_NO_ROW);
	assert_int_equal(bind_count(w), BIND_ROWS);
	assert_true(find(w, "10.1.77.8", 1, &got));
	assert_int_equal(got.generation, 77 * 256 + 8 + 1);
	assert_false(find(w, "10.200.0.1", 1, &got));
	/* every other one goes: the others are found as before */
	for (uint32_t i = 0; i < BIND_ROWS; i += 2)
		bind_remove(w, i);
	for (unsigned i = 0; i < BIND_ROWS; i++) {
		snprintf(addr, sizeof(addr), "10.1.%u.%u", i >> 8 & 255, i & 255);
		assert_int_equal(find(w, addr, 1, &got), i % 2);
	}
	assert_int_equal(bind_add(w, &more), 0);
	bind_writer_close(w);
}

/* ---- files ---- */

static struct bind_table *open_table(char *why)
{
	return bind_open(dir, why);
}

static void distrusts(const char *what)
{
	char why[BIND_WHY_SIZE] = "";
	struct bind_table *t = open_table(why);
	if (t)
		fail_msg("opened: %s", what);
	assert_string_not_equal(why, "");
}

static void trusts(void)
{
	char why[BIND_WHY_SIZE] = "";
	struct bind_table *t = open_table(why);
	if (!t)
		fail_msg("%s", why);
	assert_true(bind_is_current(t, dir));
	bind_close(t);
}

static void poke(off_t at, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, p, n, at), n);
	close(fd);
}

static void only_a_trusted_file_is_a_table(void **state)
{
	char id[BIND_BOOT_ID_SIZE];
	distrusts("missing");
	bind_writer_close(writer());
	trusts();
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);

	chmod(path, 0620);
	distrusts("group may write");
	chmod(path, 0602);
	distrusts("others may write");
	chmod(path, 0640);
	trusts();
	chmod(dir, 0777);
	distrusts("directory");
	chmod(dir, 0700);

	poke(offsetof(struct bind_header, boot_id), "00000000-0000-0000-0000-000000000000", 36);
	distrusts("another boot");
	assert_true(bind_boot_id(id));
	poke(offsetof(struct bind_header, boot_id), id, sizeof(id));
	trusts();
	poke(0, "CXBIND02", 8);
	distrusts("another version");
	poke(0, BIND_MAGIC, 8);

	assert_int_equal(truncate(path, 4096), 0);
	distrusts("short");
	unlink(path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	distrusts("symbolic link");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	distrusts("FIFO");
	if (geteuid() == 0) {
		unlink(path);
		bind_writer_close(writer());
		assert_int_equal(chown(path, 65534, (gid_t)-1), 0);
		distrusts("another owner");
	}
}

static void a_new_boot_begins_empty(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row r = row_of("10.9.0.1", "t1", 7), got;
	bind_add(w, &r);
	bind_writer_close(w);
	poke(offsetof(struct bind_header, boot_id), "00000000-0000-0000-0000-000000000000", 36);
	struct stat before, after;
	assert_int_equal(stat(path, &before), 0);
	w = writer();
	assert_int_equal(stat(path, &after), 0);
	assert_true(before.st_ino != after.st_ino);
	assert_int_equal(bind_count(w), 0);
	assert_false(find(w, "10.9.0.1", 1, &got));
	bind_writer_close(w);
}

/* ---- at once ---- */

static _Atomic bool stop;

/* All fields of a row say the same number. */
static void fill_row(struct bind_row *r, uint64_t v)
{
	r->generation = v;
	snprintf(r->profile, sizeof(r->profile), "p%llu", (unsigned long long)v);
	r->overlay_len = (uint16_t)(100 + v % 1000);
	memset(r->overlay, (int)(v & 0xff), r->overlay_len);
}

static void *read_on(void *arg)
{
	const struct bind_table *t = arg;
	struct bind_row r;
	char want[BIND_PROFILE_SIZE];
	uintptr_t bad = 0;
	while (!atomic_load(&stop)) {
		struct addr changing = addr_of("10.9.0.1"), staying = addr_of("10.9.0.2");
		if (!bind_find(t, &changing, 1, &r)) {
			bad++;
			continue;
		}
		snprintf(want, sizeof(want), "p%llu", (unsigned long long)r.generation);
		bad += strcmp(want, r.profile) != 0 || r.overlay_len != 100 + r.generation % 1000;
		for (unsigned i = 0; i < r.overlay_len; i++)
			bad += r.overlay[i] != (r.generation & 0xff);
		bad += !bind_find(t, &staying, 1, &r);
	}
	return (void *)bad;
}

/* Readers see no mixture, and nobody's row goes missing while neighbours come and go. */
static void rows_are_whole_while_written(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row r = row_of("10.9.0.1", "changing", 1), s = row_of("10.9.0.2", "staying", 1);
	fill_row(&r, 1);
	uint32_t at = bind_add(w, &r);
	bind_add(w, &s);
	pthread_t threads[2];
	atomic_store(&stop, false);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_on,
						(void *)(uintptr_t)bind_writer_table(w)),
				 0);
	char addr[32], task[32];
	for (uint64_t v = 2; v < 3000; v++) {
		fill_row(&r, v);
		bind_update(w, at, &r);
		snprintf(addr, sizeof(addr), "10.9.1.%u", (unsigned)(v % 200));
		snprintf(task, sizeof(task), "t%u", (unsigned)(v % 200));
		struct bind_row other = row_of(addr, task, v), got;
		uint32_t there = bind_row_of_task(w, task, &got);
		if (there != BIND_NO_ROW)
			bind_remove(w, there);
		else
			bind_add(w, &other);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++) {
		void *bad;
		pthread_join(threads[i], &bad);
		assert_int_equal((uintptr_t)bad, 0);
	}
	bind_writer_close(w);
}

/* Two processes write at once: nothing is lost, no generation comes twice. */
static void two_writers_take_turns(void **state)
{
	enum { EACH = 300 };
	bind_writer_close(writer());
	pid_t child[2];
	for (unsigned k = 0; k < 2; k++) {
		child[k] = fork();
		if (child[k])
			continue;
		char why[BIND_WHY_SIZE], addr[32], task[32];
		struct bind_writer *w = bind_writer_open(dir, (gid_t)-1, why);
		for (unsigned i = 0; w && i < EACH; i++) {
			if (!bind_lock_table(w))
				_exit(1);
			snprintf(addr, sizeof(addr), "10.%u.%u.%u", k, i >> 8, i & 255);
			snprintf(task, sizeof(task), "%u-%u", k, i);
			struct bind_row r = row_of(addr, task, bind_next_generation(w));
			if (bind_add(w, &r) == BIND_NO_ROW)
				_exit(1);
			bind_unlock_table(w);
		}
		_exit(w ? 0 : 1);
	}
	for (unsigned k = 0; k < 2; k++) {
		int status = 1;
		assert_int_equal(waitpid(child[k], &status, 0), child[k]);
		assert_int_equal(status, 0);
	}
	struct bind_writer *w = writer();
	struct bind_row r;
	uint64_t sum = 0, least = UINT64_MAX, most = 0;
	char task[32];
	assert_int_equal(bind_count(w), 2 * EACH);
	for (unsigned i = 0; i < 2 * EACH; i++) {
		snprintf(task, sizeof(task), "%u-%u", i / EACH, i % EACH);
		assert_int_not_equal(bind_row_of_task(w, task, &r), BIND_NO_ROW);
		sum += r.generation;
		least = r.generation < least ? r.generation : least;
		most = r.generation > most ? r.generation : most;
	}
	assert_int_equal(most - least, 2 * EACH - 1);
	assert_int_equal(sum, (least + most) * EACH);
	bind_writer_close(w);
}

/* What a writer that was killed may leave is put right by the next one. */
static void repairs_what_was_half_done(void **state)
{
	struct bind_writer *w = writer();
	struct bind_row a = row_of("10.9.0.1", "a", 1), b = row_of("10.9.0.2", "b", 2), got;
	uint32_t at_a = bind_add(w, &a), at_b = bind_add(w, &b);
	struct bind_image *m = bind_writer_table(w)->map;
	m->h.dirty = 1;
	/* a lost its place in the index; b was being removed; a stray slot stands about */
	for (uint32_t i = 0; i < BIND_SLOTS; i++)
		if (atomic_load(&m->index[i]) == 1 + (at_a << 2))
			atomic_store(&m->index[i], 0);
	b.state = BIND_FREE;
	bind_update(w, at_b, &b);
	atomic_store(&m->index[12345], 1 + (777u << 2));
	m->h.used_count = 99;
	bind_unlock_table(w);
	assert_true(bind_lock_table(w));
	assert_int_equal(m->h.dirty, 0);
	assert_true(find(w, "10.9.0.1", 1, &got));
	assert_false(find(w, "10.9.0.2", 1, &got));
	assert_int_equal(bind_row_of_task(w, "b", &got), BIND_NO_ROW);
	assert_int_equal(bind_count(w), 1);
	assert_int_equal(atomic_load(&m->index[12345]), 0);
	bind_writer_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(finds_what_was_bound, clear),
		cmocka_unit_test_teardown(only_what_is_in_force_is_found, clear),
		cmocka_unit_test_teardown(the_longest_prefix_counts, clear),
		cmocka_unit_test_teardown(a_generation_comes_once, clear),
		cmocka_unit_test_teardown(fills_up_and_says_so, clear),
		cmocka_unit_test_teardown(only_a_trusted_file_is_a_table, clear),
		cmocka_unit_test_teardown(a_new_boot_begins_empty, clear),
		cmocka_unit_test_teardown(rows_are_whole_while_written, clear),
		cmocka_unit_test_teardown(two_writers_take_turns, clear),
		cmocka_unit_test_teardown(repairs_what_was_half_done, clear),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
