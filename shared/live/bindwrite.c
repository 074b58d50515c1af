/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the table of bindings (bindwrite.h). After every single store the table is one that readers
 * can use; what a killed writer left half done is completed by the next one.
 */
#include "shared/live/bindwrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/live/bindfile.h"

#define LOCK_FILE "bindings.lock"

enum { LOCK_TABLE = 0, LOCK_ADDRS = 4096, LOCK_ADDR_COUNT = 1 << 20 };

/*
 * For the test suite; no build that is shipped defines it: the process ends at the point that CX_FAULT
 * names, as if it had been killed there.
 */
#ifdef CX_TEST_FAULTS
#include <signal.h>
void bind_fault(const char *point)
{
	const char *at = getenv("CX_FAULT");
	if (at && strcmp(at, point) == 0)
		raise(SIGKILL);
}
#endif

struct bind_writer {
	struct bind_table t;
	int lock;
};

static bool refuse(char *why, const char *what)
{
	snprintf(why, BIND_WHY_SIZE, "%s", what);
	return false;
}

/* ---- locks ---- */

static bool set_lock(struct bind_writer *w, off_t at, short type)
{
	struct flock f = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
	int rc;
	do
		rc = fcntl(w->lock, F_OFD_SETLKW, &f);
	while (rc != 0 && errno == EINTR);
	return rc == 0;
}

static off_t lock_of(const struct prefix *p)
{
	return LOCK_ADDRS + bind_hash_addr(&p->a, p->len) % LOCK_ADDR_COUNT;
}

bool bind_lock_addrs(struct bind_writer *w, const struct prefix *v, unsigned n)
{
	off_t a = lock_of(&v[0]), b = n > 1 ? lock_of(&v[1]) : a;
	if (!set_lock(w, a < b ? a : b, F_WRLCK))
		return false;
	if (a == b || set_lock(w, a < b ? b : a, F_WRLCK))
		return true;
	bind_unlock_addrs(w, v, n);
	return false;
}

void bind_unlock_addrs(struct bind_writer *w, const struct prefix *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		set_lock(w, lock_of(&v[i]), F_UNLCK);
}

static void repair(struct bind_writer *w);

bool bind_lock_table(struct bind_writer *w)
{
	if (!set_lock(w, LOCK_TABLE, F_WRLCK))
		return false;
	if (w->t.map != MAP_FAILED && w->t.map->h.dirty)
		repair(w);
	return true;
}

void bind_unlock_table(struct bind_writer *w)
{
	set_lock(w, LOCK_TABLE, F_UNLCK);
}

/* ---- the index ---- */

static uint32_t slot_value(uint32_t row, uint32_t kind)
{
	return 1 + (row << 2 | kind);
}

static void put_slot(struct bind_image *m, uint32_t at, uint32_t v)
{
	atomic_fetch_add_explicit(&m->h.index_version, 1, memory_order_acq_rel);
	atomic_store_explicit(&m->index[at], v, memory_order_release);
	atomic_fetch_add_explicit(&m->h.index_version, 1, memory_order_acq_rel);
}

static uint32_t get_slot(const struct bind_image *m, uint32_t at)
{
	return atomic_load_explicit(&m->index[at], memory_order_relaxed);
}

/* Where the entry that a slot holds would best stand. */
static uint32_t home_of(const struct bind_image *m, uint32_t v)
{
	struct bind_row r;
	uint32_t kind = (v - 1) & 3;
	if (!bind_load(m, ((v - 1) >> 2) % BIND_ROWS, &r))
		return 0;
	return kind == BIND_KIND_TASK ? bind_hash_task(r.task)
				      : bind_hash_addr(&r.addrs[kind & 1].a, r.addrs[kind & 1].len);
}

static void index_add(struct bind_image *m, uint32_t home, uint32_t v)
{
	uint32_t at = home;
	while (get_slot(m, at) != 0 && get_slot(m, at) != v)
		at = (at + 1) % BIND_SLOTS;
	if (get_slot(m, at) != v)
		put_slot(m, at, v);
}

/*
 * Empties a slot. What stands behind it and would be cut off moves up, each copied before its old
 * place is given to the next: at no time is an entry not to be found.
 */
static void index_close_gap(struct bind_image *m, uint32_t gap)
{
	for (uint32_t at = (gap + 1) % BIND_SLOTS;; at = (at + 1) % BIND_SLOTS) {
		uint32_t v = get_slot(m, at);
		if (v == 0)
			break;
		uint32_t home = home_of(m, v);
		uint32_t need = (at - home) % BIND_SLOTS, have = (at - gap) % BIND_SLOTS;
		if (need < have)
			continue;
		put_slot(m, gap, v);
		gap = at;
	}
	put_slot(m, gap, 0);
}

static void index_remove(struct bind_image *m, uint32_t home, uint32_t v)
{
	for (uint32_t at = home; get_slot(m, at) != 0; at = (at + 1) % BIND_SLOTS)
		if (get_slot(m, at) == v) {
			index_close_gap(m, at);
			return;
		}
}

/* ---- rows ---- */

/* Fills the body that does not hold, and then lets it hold. */
static void store(struct bind_image *m, uint32_t row, const struct bind_row *r)
{
	struct bind_stored *s = &m->rows[row];
	uint64_t w[BIND_BODY_WORDS] = { 0 };
	uint64_t v = atomic_load_explicit(&s->version, memory_order_relaxed);
	memcpy(w, r, offsetof(struct bind_row, overlay) + r->overlay_len);
	for (unsigned i = 0; i < BIND_BODY_WORDS; i++)
		atomic_store_explicit(&s->body[(v + 1) & 1][i], w[i], memory_order_release);
	atomic_store_explicit(&s->version, v + 1, memory_order_release);
}

static bool is_used(const struct bind_image *m, uint32_t row)
{
	return m->h.used[row / 64] >> (row % 64) & 1;
}

static void set_used(struct bind_image *m, uint32_t row, bool used)
{
	uint64_t bit = UINT64_C(1) << (row % 64);
	if (is_used(m, row) == used)
		return;
	m->h.used[row / 64] ^= bit;
	m->h.used_count += used ? 1 : (uint64_t)-1;
}

static void count_lens(struct bind_image *m, const struct bind_row *r, int by)
{
	for (unsigned i = 0; i < r->n_addrs; i++) {
		uint8_t len = r->addrs[i].len <= 128 ? r->addrs[i].len : 128;
		uint64_t bit = UINT64_C(1) << (len % 64);
		m->h.len_count[len] += (uint32_t)by;
		if (m->h.len_count[len])
			atomic_fetch_or_explicit(&m->h.lens[len / 64], bit, memory_order_release);
		else
			atomic_fetch_and_explicit(&m->h.lens[len / 64], ~bit, memory_order_release);
	}
}

static void index_row(struct bind_image *m, uint32_t row, const struct bind_row *r)
{
	for (uint32_t i = 0; i < r->n_addrs; i++)
		index_add(m, bind_hash_addr(&r->addrs[i].a, r->addrs[i].len), slot_value(row, i));
	index_add(m, bind_hash_task(r->task), slot_value(row, BIND_KIND_TASK));
}

static uint32_t free_row(const struct bind_image *m)
{
	for (uint32_t i = 0; i < BIND_ROWS / 64; i++)
		if (~m->h.used[i])
			return 64 * i + (uint32_t)__builtin_ctzll(~m->h.used[i]);
	return BIND_NO_ROW;
}

/* A change that takes several stores: if it is not ended, the next writer repairs. */
static void begin(struct bind_image *m)
{
	atomic_store(&m->h.dirty, 1);
}

static void end(struct bind_image *m)
{
	atomic_store(&m->h.dirty, 0);
}

uint32_t bind_add(struct bind_writer *w, const struct bind_row *r)
{
	struct bind_image *m = w->t.map;
	uint32_t row = free_row(m);
	if (row == BIND_NO_ROW)
		return BIND_NO_ROW;
	/* in force only when every way to find it is there */
	struct bind_row early = *r;
	early.state = BIND_LEAVING;
	begin(m);
	set_used(m, row, true);
	store(m, row, &early);
	bind_fault("row-stored");
	count_lens(m, r, 1);
	index_row(m, row, r);
	bind_fault("row-indexed");
	store(m, row, r);
	end(m);
	return row;
}

void bind_update(struct bind_writer *w, uint32_t row, const struct bind_row *r)
{
	store(w->t.map, row, r);
}

void bind_remove(struct bind_writer *w, uint32_t row)
{
	struct bind_image *m = w->t.map;
	struct bind_row r, gone = { .state = BIND_FREE };
	if (!is_used(m, row) || !bind_load(m, row, &r))
		return;
	struct bind_row left = r;
	left.state = BIND_FREE; /* nobody finds it, the index can still be walked */
	begin(m);
	store(m, row, &left);
	bind_fault("row-retired");
	for (uint32_t i = 0; i < r.n_addrs; i++)
		index_remove(m, bind_hash_addr(&r.addrs[i].a, r.addrs[i].len), slot_value(row, i));
	index_remove(m, bind_hash_task(r.task), slot_value(row, BIND_KIND_TASK));
	bind_fault("row-unindexed");
	count_lens(m, &r, -1);
	store(m, row, &gone);
	set_used(m, row, false);
	end(m);
}

/* ---- looking things up ---- */

uint32_t bind_row_of_task(struct bind_writer *w, const char *task, struct bind_row *out)
{
	struct bind_image *m = w->t.map;
	uint32_t v;
	for (uint32_t at = bind_hash_task(task); (v = get_slot(m, at)) != 0;
	     at = (at + 1) % BIND_SLOTS)
		if (((v - 1) & 3) == BIND_KIND_TASK && bind_load(m, (v - 1) >> 2, out) &&
		    out->state != BIND_FREE && strcmp(out->task, task) == 0)
			return (v - 1) >> 2;
	return BIND_NO_ROW;
}

uint32_t bind_row_of_prefix(struct bind_writer *w, const struct prefix *p, struct bind_row *out)
{
	struct bind_image *m = w->t.map;
	uint32_t v;
	for (uint32_t at = bind_hash_addr(&p->a, p->len); (v = get_slot(m, at)) != 0;
	     at = (at + 1) % BIND_SLOTS) {
		if (((v - 1) & 3) == BIND_KIND_TASK || !bind_load(m, (v - 1) >> 2, out) ||
		    out->state == BIND_FREE)
			continue;
		for (unsigned i = 0; i < out->n_addrs; i++)
			if (out->addrs[i].len == p->len && addr_cmp(&out->addrs[i].a, &p->a) == 0)
				return (v - 1) >> 2;
	}
	return BIND_NO_ROW;
}

struct overlap {
	const struct prefix *p;
	struct bind_row *out;
	uint32_t row;
};

static bool see_overlap(void *arg, uint32_t row, const struct bind_row *r)
{
	struct overlap *o = arg;
	for (unsigned i = 0; i < r->n_addrs; i++)
		if (prefix_contains(o->p, &r->addrs[i].a) ||
		    prefix_contains(&r->addrs[i], &o->p->a)) {
			o->row = row;
			*o->out = *r;
			return false;
		}
	return true;
}

uint32_t bind_row_overlapping(struct bind_writer *w, const struct prefix *p, struct bind_row *out)
{
	struct bind_image *m = w->t.map;
	struct overlap o = { .p = p, .out = out, .row = BIND_NO_ROW };
	bool shorter = false;
	for (unsigned len = 0; len < 128; len++)
		shorter |= m->h.len_count[len] > 0;
	if (p->len == 128 && !shorter)
		return bind_row_of_prefix(w, p, out);
	if (p->len == 128) {
		for (unsigned len = 129; len-- > 0;) {
			struct prefix q = { bind_mask(&p->a, (uint8_t)len), (uint8_t)len };
			if (m->h.len_count[len] && (!addr_is_v4(&p->a) || len >= 96) &&
			    (o.row = bind_row_of_prefix(w, &q, out)) != BIND_NO_ROW)
				return o.row;
		}
		return BIND_NO_ROW;
	}
	bind_each(w, see_overlap, &o);
	return o.row;
}

void bind_each(struct bind_writer *w,
	       bool (*each)(void *arg, uint32_t row, const struct bind_row *r), void *arg)
{
	struct bind_row r;
	for (uint32_t i = 0; i < BIND_ROWS; i++) {
		if (w->t.map->h.used[i / 64] == 0) {
			i |= 63;
			continue;
		}
		if (is_used(w->t.map, i) && bind_load(w->t.map, i, &r) && r.state != BIND_FREE &&
		    !each(arg, i, &r))
			return;
	}
}

uint32_t bind_count(const struct bind_writer *w)
{
	return (uint32_t)w->t.map->h.used_count;
}

/* ---- generations ---- */

static uint64_t wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The least number that is certainly free: kept in the lock's file too, should the table be removed. */
static uint64_t kept_generation(const struct bind_writer *w)
{
	uint64_t v = 0;
	return pread(w->lock, &v, sizeof(v), 0) == (ssize_t)sizeof(v) ? v : 0;
}

uint64_t bind_next_generation(struct bind_writer *w)
{
	uint64_t g = atomic_load(&w->t.map->h.next_generation), next = g + 1;
	atomic_store(&w->t.map->h.next_generation, next);
	return pwrite(w->lock, &next, sizeof(next), 0) == (ssize_t)sizeof(next) ? g : 0;
}

/* ---- opening ---- */

/* Is it not the first place at which the entry is found, or does it lead to no row? */
static bool is_stray(const struct bind_image *m, uint32_t at, uint32_t v)
{
	uint32_t row = (v - 1) >> 2;
	if (row >= BIND_ROWS || !is_used(m, row))
		return true;
	for (uint32_t i = home_of(m, v); get_slot(m, i) != 0; i = (i + 1) % BIND_SLOTS)
		if (get_slot(m, i) == v)
			return i != at;
	return true;
}

/* What a killed writer may have left: entries without a row, rows without an entry, wrong counts. */
static void repair(struct bind_writer *w)
{
	struct bind_image *m = w->t.map;
	struct bind_row r;
	memset(m->h.len_count, 0, sizeof(m->h.len_count));
	m->h.used_count = 0;
	for (uint32_t i = 0; i < BIND_ROWS; i++) {
		if (!is_used(m, i) || !bind_load(m, i, &r))
			continue;
		m->h.used_count++;
		count_lens(m, &r, 1);
		if (r.state != BIND_FREE)
			index_row(m, i, &r);
	}
	for (uint32_t i = 0; i < BIND_ROWS; i++)
		if (is_used(m, i) && bind_load(m, i, &r) && r.state == BIND_FREE)
			bind_remove(w, i);
	for (uint32_t at = 0; at < BIND_SLOTS;) {
		uint32_t v = get_slot(m, at);
		if (v != 0 && is_stray(m, at, v))
			index_close_gap(m, at);
		else
			at++;
	}
	end(m);
}

static void fill_header(struct bind_writer *w, struct bind_header *h)
{
	memcpy(h->magic, BIND_MAGIC, sizeof(h->magic));
	h->format = BIND_FORMAT;
	h->rows = BIND_ROWS;
	h->slots = BIND_SLOTS;
	h->row_size = sizeof(struct bind_stored);
	uint64_t now = wall_ms(), kept = kept_generation(w);
	atomic_store(&h->next_generation, now > kept ? now : kept);
}

/* Makes a new table beside an old one and puts it in its place. */
static bool create(struct bind_writer *w, const char *dir, gid_t gid, char *why)
{
	char temp[BIND_PATH_SIZE], path[BIND_PATH_SIZE];
	struct bind_header h = { .format = 0 };
	int n = snprintf(temp, sizeof(temp), "%s/.%s.new", dir, BIND_FILE);
	snprintf(path, sizeof(path), "%s/%s", dir, BIND_FILE);
	if (n < 0 || (size_t)n >= sizeof(temp))
		return refuse(why, "the directory's name is too long");
	if (!bind_boot_id(h.boot_id))
		return refuse(why, "the kernel does not tell its boot id");
	fill_header(w, &h);
	unlink(temp);
	int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok = fd >= 0 && ftruncate(fd, sizeof(struct bind_image)) == 0 &&
		  pwrite(fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) &&
		  (gid == (gid_t)-1 || fchown(fd, (uid_t)-1, gid) == 0) &&
		  fchmod(fd, gid == (gid_t)-1 ? 0600 : 0640) == 0 && rename(temp, path) == 0;
	if (!ok)
		refuse(why, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

enum mapped { MAPPED, UNUSABLE, FAILED };

/* UNUSABLE: what stands there may be replaced by a new table. */
static enum mapped map_table(struct bind_writer *w, const char *dir, char *why)
{
	int fd = bind_open_file(dir, O_RDWR, &w->t.dev, &w->t.ino, why);
	if (fd < 0)
		return errno == ENOENT || errno == ELOOP || errno == EINVAL ? UNUSABLE : FAILED;
	w->t.map = mmap(NULL, sizeof(*w->t.map), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (w->t.map == MAP_FAILED) {
		refuse(why, strerror(errno));
		return FAILED;
	}
	if (bind_image_ok(w->t.map, why))
		return MAPPED;
	munmap(w->t.map, sizeof(*w->t.map));
	w->t.map = MAP_FAILED;
	return UNUSABLE;
}

struct bind_writer *bind_writer_open(const char *dir, gid_t gid, char why[BIND_WHY_SIZE])
{
	char path[BIND_PATH_SIZE];
	struct bind_writer *w = calloc(1, sizeof(*w));
	int n = snprintf(path, sizeof(path), "%s/%s", dir, LOCK_FILE);
	if (!w || n < 0 || (size_t)n >= sizeof(path)) {
		refuse(why, w ? "the directory's name is too long" : "no memory");
		free(w);
		return NULL;
	}
	w->t.map = MAP_FAILED;
	w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (w->lock < 0 || !bind_lock_table(w)) {
		refuse(why, strerror(errno));
		bind_writer_close(w);
		return NULL;
	}
	enum mapped m = map_table(w, dir, why);
	if (m == UNUSABLE && create(w, dir, gid, why))
		m = map_table(w, dir, why);
	if (m == MAPPED && w->t.map->h.dirty)
		repair(w);
	bind_unlock_table(w);
	if (m == MAPPED)
		return w;
	bind_writer_close(w);
	return NULL;
}

void bind_writer_close(struct bind_writer *w)
{
	if (!w)
		return;
	if (w->t.map != MAP_FAILED)
		munmap(w->t.map, sizeof(*w->t.map));
	if (w->lock >= 0)
		close(w->lock);
	free(w);
}

const struct bind_table *bind_writer_table(const struct bind_writer *w)
{
	return &w->t;
}
