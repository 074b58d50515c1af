/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of pins (pin.h). Never believes a row that does not say itself whose it is; never gives a
 * row away that still holds.
 */
#include "shared/live/pin.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/live/bindfile.h"
#include "shared/policy/hash.h"

#define PIN_MAGIC "CXPINS01"

enum {
	WAYS = 8, /* places where a subject may be */
	SETS = PIN_SUBJECTS / WAYS,
	ROW_WAYS = 4, /* places of a name among the subject's rows */
	NAME_WORDS = 32
};

/* All words are atomic: they may change under a reader, who then finds another version. */
struct stored_row {
	_Atomic uint64_t version; /* odd: being written */
	_Atomic uint64_t key;     /* hash of name and family */
	_Atomic uint64_t meta;    /* octets of the name | addresses << 8 | IPv6 << 16 */
	_Atomic uint64_t src[2];
	_Atomic uint64_t generation;
	_Atomic uint64_t zero[2];
	_Atomic uint64_t name[NAME_WORDS];
	_Atomic uint64_t addrs[PIN_ADDRS][3]; /* address, and until when in ns */
	_Atomic uint64_t zero2[2];
};

static_assert(sizeof(struct stored_row) == 768, "row layout");

/* Where a subject's rows are; a hint only, the rows know better. */
struct stored_subject {
	_Atomic uint64_t src[2];
	_Atomic uint64_t generation;
	_Atomic uint64_t until_ns; /* no row of it holds longer */
};

struct image {
	char magic[8];
	uint32_t subjects, rows, row_size, zero;
	uint64_t seed;
	char boot_id[BIND_BOOT_ID_SIZE];
	_Alignas(4096) struct stored_subject subject[PIN_SUBJECTS];
	_Alignas(4096) struct stored_row row[PIN_SUBJECTS][PIN_ROWS];
};

struct pins {
	struct image *map;
	int fd; /* writer: holds the lock; else -1 */
	dev_t dev;
	ino_t ino;
	_Atomic uint64_t refused;
	atomic_flag busy[SETS]; /* writer: a thread is at this set */
};

/* One row, copied out. */
struct row {
	uint64_t src[2];
	uint64_t generation;
	struct name name;
	bool v6;
	unsigned n;
	struct {
		struct addr a;
		uint64_t until_ns;
	} v[PIN_ADDRS];
};

/*
 * ---- words ----
 * Acquire and release on each, so that what is read between two looks at a version lies between them
 * in time, too, and what is written behind an odd version is not seen before it.
 */

static uint64_t get(const _Atomic uint64_t *w)
{
	return atomic_load_explicit(w, memory_order_acquire);
}

static void put(_Atomic uint64_t *w, uint64_t v)
{
	atomic_store_explicit(w, v, memory_order_release);
}

static void addr_words(const struct addr *a, uint64_t w[2])
{
	memcpy(w, a->b, sizeof(a->b));
}

static bool same_subject(const _Atomic uint64_t src[2], const _Atomic uint64_t *generation,
			 const struct pin_subject *s)
{
	uint64_t w[2];
	addr_words(&s->src, w);
	return get(&src[0]) == w[0] && get(&src[1]) == w[1] && get(generation) == s->generation;
}

/* The set of a subject: all addresses of an IPv6 /64 have the same one. */
static unsigned set_of(const struct pins *p, const struct pin_subject *s)
{
	uint64_t w[2];
	addr_words(&s->src, w);
	uint64_t h = hash_mix(p->map->seed ^ w[0], 0xd6e8feb86659fd93ull);
	if (addr_is_v4(&s->src))
		h = hash_mix(h ^ w[1], 0xa0761d6478bd642full);
	return (unsigned)hash_scale(h, SETS);
}

static uint64_t key_of(const struct pins *p, const struct name *n, bool v6)
{
	uint64_t h = p->map->seed;
	for (unsigned i = n->n_labels; i-- > 0;)
		h = hash_label(h, n->wire + n->off[i] + 1, n->wire[n->off[i]]);
	return h ^ (uint64_t)v6 << 63;
}

/* The first of the places that a name may have among a subject's rows. */
static unsigned place_of(uint64_t key)
{
	return (unsigned)(key >> 8) % (PIN_ROWS / ROW_WAYS) * ROW_WAYS;
}

/* The subject's index, or PIN_SUBJECTS. */
static unsigned find_subject(const struct pins *p, const struct pin_subject *s)
{
	unsigned first = set_of(p, s) * WAYS;
	for (unsigned i = first; i < first + WAYS; i++)
		if (same_subject(p->map->subject[i].src, &p->map->subject[i].generation, s))
			return i;
	return PIN_SUBJECTS;
}

/* ---- rows ---- */

static bool unpack(struct row *out, uint64_t meta, const uint64_t name[NAME_WORDS])
{
	uint8_t wire[NAME_WORDS * 8 + 1] = { 0 };
	unsigned len = meta & 0xff;
	memcpy(wire, name, NAME_WORDS * 8);
	wire[len] = 0;
	out->n = meta >> 8 & 0xff;
	out->v6 = meta >> 16 & 1;
	return len <= NAME_MAX_WIRE && out->n <= PIN_ADDRS &&
	       name_from_wire(&out->name, wire, len + 1, NULL) == NAME_OK && out->name.len == len;
}

/* A copy of the row if it is the subject's and was not written meanwhile. */
static bool load_row(const struct stored_row *r, const struct pin_subject *s, struct row *out)
{
	uint64_t name[NAME_WORDS];
	uint64_t version = atomic_load_explicit(&r->version, memory_order_acquire);
	if (version & 1 || version == 0 || !same_subject(r->src, &r->generation, s))
		return false;
	uint64_t meta = get(&r->meta);
	for (unsigned i = 0; i < NAME_WORDS; i++)
		name[i] = get(&r->name[i]);
	for (unsigned i = 0; i < PIN_ADDRS; i++) {
		uint64_t w[2] = { get(&r->addrs[i][0]), get(&r->addrs[i][1]) };
		memcpy(out->v[i].a.b, w, sizeof(w));
		out->v[i].until_ns = get(&r->addrs[i][2]);
	}
	return get(&r->version) == version && unpack(out, meta, name);
}

/* Until when some address of the row holds. */
static uint64_t row_until(const struct stored_row *r)
{
	uint64_t until = 0;
	unsigned n = get(&r->meta) >> 8 & 0xff;
	for (unsigned i = 0; i < n && i < PIN_ADDRS; i++)
		if (get(&r->addrs[i][2]) > until)
			until = get(&r->addrs[i][2]);
	return until;
}

static void store_row(struct stored_row *r, const struct pin_subject *s, uint64_t key,
		      const struct row *from)
{
	uint64_t w[NAME_WORDS] = { 0 }, version = get(&r->version) | 1;
	put(&r->version, version);
	addr_words(&s->src, w);
	put(&r->src[0], w[0]);
	put(&r->src[1], w[1]);
	put(&r->generation, s->generation);
	put(&r->key, key);
	put(&r->meta, (uint64_t)from->name.len | (uint64_t)from->n << 8 | (uint64_t)from->v6 << 16);
	memset(w, 0, sizeof(w));
	memcpy(w, from->name.wire, from->name.len);
	for (unsigned i = 0; i < NAME_WORDS; i++)
		put(&r->name[i], w[i]);
	for (unsigned i = 0; i < from->n; i++) {
		addr_words(&from->v[i].a, w);
		put(&r->addrs[i][0], w[0]);
		put(&r->addrs[i][1], w[1]);
		put(&r->addrs[i][2], from->v[i].until_ns);
	}
	atomic_store_explicit(&r->version, version + 1, memory_order_release);
}

/* ---- writing ---- */

static void lock_set(struct pins *p, unsigned set)
{
	while (atomic_flag_test_and_set_explicit(&p->busy[set], memory_order_acquire))
		sched_yield();
}

static void unlock_set(struct pins *p, unsigned set)
{
	atomic_flag_clear_explicit(&p->busy[set], memory_order_release);
}

/*
 * Room for a subject's rows, before anything is written to them: on a file system that is full, writing
 * to a hole of the file would be the end of the resolver.
 */
static bool has_room(const struct pins *p, unsigned subject)
{
	off_t at = (off_t)(offsetof(struct image, row) + subject * sizeof(p->map->row[0]));
	return posix_fallocate(p->fd, at, sizeof(p->map->row[0])) == 0;
}

/*
 * The subject's index, newly given if it must be; PIN_SUBJECTS: all places hold pins of others, or there
 * is no room for its rows.
 */
static unsigned claim_subject(struct pins *p, const struct pin_subject *s, uint64_t now_ns)
{
	unsigned first = set_of(p, s) * WAYS, i = find_subject(p, s);
	uint64_t w[2];
	if (i < PIN_SUBJECTS)
		return i;
	for (i = first; i < first + WAYS; i++)
		if (get(&p->map->subject[i].until_ns) <= now_ns)
			break;
	if (i == first + WAYS || !has_room(p, i))
		return PIN_SUBJECTS;
	addr_words(&s->src, w);
	put(&p->map->subject[i].src[0], w[0]);
	put(&p->map->subject[i].src[1], w[1]);
	put(&p->map->subject[i].generation, s->generation);
	return i;
}

/* The row of the name, or else the one of its places that will be missed least. */
static struct stored_row *claim_row(struct pins *p, unsigned subject, const struct pin_subject *s,
				    uint64_t key, const struct name *n, bool v6, struct row *old,
				    bool *same)
{
	struct stored_row *rows = &p->map->row[subject][place_of(key)], *best = NULL;
	uint64_t best_until = 0;
	*same = false;
	for (unsigned i = 0; i < ROW_WAYS; i++) {
		struct stored_row *r = &rows[i];
		bool mine = same_subject(r->src, &r->generation, s) && !(get(&r->version) & 1);
		uint64_t until = mine ? row_until(r) : 0;
		if (mine && get(&r->key) == key && load_row(r, s, old) && old->v6 == v6 &&
		    name_equal(&old->name, n)) {
			*same = true;
			return r;
		}
		if (!best || until < best_until) {
			best = r;
			best_until = until;
		}
	}
	return best;
}

static bool has_addr(const struct row *r, const struct addr *a, uint64_t until_ns)
{
	for (unsigned i = 0; i < r->n; i++)
		if (addr_cmp(&r->v[i].a, a) == 0 && r->v[i].until_ns >= until_ns)
			return true;
	return false;
}

static void add_addr(struct row *r, const struct addr *a, uint64_t until_ns)
{
	for (unsigned i = 0; i < r->n; i++)
		if (addr_cmp(&r->v[i].a, a) == 0)
			return;
	if (r->n == PIN_ADDRS)
		return;
	r->v[r->n].a = *a;
	r->v[r->n++].until_ns = until_ns;
}

static uint64_t life_ns(uint32_t ttl_s)
{
	uint64_t s = ttl_s < PIN_TTL_MIN_S   ? PIN_TTL_MIN_S
		     : ttl_s > PIN_TTL_MAX_S ? PIN_TTL_MAX_S
					     : ttl_s;
	return (s + PIN_GRACE_S) * UINT64_C(1000000000);
}

/* What was there to its time, unless it is nearly what shall be: then nothing is written. */
static bool merge(struct row *to, const struct row *old, bool same, const struct addr *v,
		  unsigned n, uint64_t life, uint64_t now_ns)
{
	bool enough = same;
	for (unsigned i = 0; i < n && enough; i++)
		enough = has_addr(old, &v[i], now_ns + life - life / 8);
	if (enough)
		return false;
	for (unsigned i = 0; i < n; i++)
		add_addr(to, &v[i], now_ns + life);
	for (unsigned i = 0; same && i < old->n; i++)
		if (old->v[i].until_ns > now_ns)
			add_addr(to, &old->v[i].a, old->v[i].until_ns);
	return true;
}

bool pins_put(struct pins *p, const struct pin_subject *s, const struct name *n,
	      const struct addr *v, unsigned n_addrs, uint32_t ttl_s, uint64_t now_ns)
{
	if (n_addrs == 0)
		return true;
	bool v6 = !addr_is_v4(&v[0]), same;
	struct row old, row = { .name = *n, .v6 = v6 };
	unsigned set = set_of(p, s);
	uint64_t key = key_of(p, n, v6), life = life_ns(ttl_s);
	lock_set(p, set);
	unsigned i = claim_subject(p, s, now_ns);
	if (i < PIN_SUBJECTS) {
		struct stored_row *r = claim_row(p, i, s, key, n, v6, &old, &same);
		_Atomic uint64_t *until = &p->map->subject[i].until_ns;
		if (merge(&row, &old, same, v, n_addrs, life, now_ns)) {
			if (get(until) < now_ns + life)
				put(until, now_ns + life);
			store_row(r, s, key, &row);
		}
	} else {
		atomic_fetch_add_explicit(&p->refused, 1, memory_order_relaxed);
	}
	unlock_set(p, set);
	return i < PIN_SUBJECTS;
}

uint64_t pins_refused(const struct pins *p)
{
	return get(&p->refused);
}

/* ---- reading ---- */

static bool holds(const struct row *r, const struct addr *a, uint64_t now_ns)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->v[i].until_ns > now_ns && addr_cmp(&r->v[i].a, a) == 0)
			return true;
	return false;
}

unsigned pins_names(const struct pins *p, const struct pin_subject *s, const struct addr *a,
		    uint64_t now_ns, struct name *out, unsigned max)
{
	struct row row;
	unsigned n = 0, i = find_subject(p, s);
	for (unsigned k = 0; i < PIN_SUBJECTS && k < PIN_ROWS && n < max; k++)
		if (load_row(&p->map->row[i][k], s, &row) && holds(&row, a, now_ns))
			out[n++] = row.name;
	return n;
}

unsigned pins_addrs(const struct pins *p, const struct pin_subject *s, const struct name *n,
		    uint64_t now_ns, struct addr *out, unsigned max)
{
	struct row row;
	unsigned count = 0, subject = find_subject(p, s);
	for (unsigned v6 = 0; subject < PIN_SUBJECTS && v6 < 2; v6++) {
		uint64_t key = key_of(p, n, v6);
		const struct stored_row *r = &p->map->row[subject][place_of(key)];
		for (unsigned i = 0; i < ROW_WAYS; i++) {
			if (get(&r[i].key) != key || !load_row(&r[i], s, &row) || row.v6 != v6 ||
			    !name_equal(&row.name, n))
				continue;
			for (unsigned k = 0; k < row.n && count < max; k++)
				if (row.v[k].until_ns > now_ns)
					out[count++] = row.v[k].a;
		}
	}
	return count;
}

/* ---- the file ---- */

static void explain(char *why, const char *text)
{
	snprintf(why, PIN_WHY_SIZE, "%s", text);
}

static bool image_ok(const struct image *m)
{
	char id[BIND_BOOT_ID_SIZE];
	return bind_boot_id(id) && memcmp(m->magic, PIN_MAGIC, 8) == 0 &&
	       m->subjects == PIN_SUBJECTS && m->rows == PIN_ROWS &&
	       m->row_size == sizeof(struct stored_row) &&
	       memcmp(m->boot_id, id, BIND_BOOT_ID_SIZE) == 0;
}

static bool fill_header(struct image *m)
{
	uint64_t seed;
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, &seed, sizeof(seed));
	if (fd >= 0)
		close(fd);
	if (n != sizeof(seed) || !bind_boot_id(m->boot_id))
		return false;
	m->seed = seed;
	m->subjects = PIN_SUBJECTS;
	m->rows = PIN_ROWS;
	m->row_size = sizeof(struct stored_row);
	memcpy(m->magic, PIN_MAGIC, sizeof(m->magic));
	return true;
}

static bool is_ours(uid_t u)
{
	return u == 0 || u == geteuid();
}

/* The directory of pins, and whose it is; -1 with a reason. */
static int open_dir(const char *runtime_dir, struct stat *st, char *why)
{
	int d = open(runtime_dir, O_PATH | O_DIRECTORY | O_CLOEXEC), pins = -1;
	if (d >= 0 && fstat(d, st) == 0 && is_ours(st->st_uid) && !(st->st_mode & 022))
		pins = openat(d, PIN_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	else if (d >= 0)
		errno = EPERM;
	if (pins < 0 || fstat(pins, st) != 0 || st->st_mode & 022) {
		explain(why, pins < 0 ? strerror(errno) : "others may write into the directory");
		if (pins >= 0)
			close(pins);
		pins = -1;
	}
	if (d >= 0)
		close(d);
	return pins;
}

static bool file_ok(int fd, const struct stat *dir, struct stat *st, char *why)
{
	bool ok = fstat(fd, st) == 0 && S_ISREG(st->st_mode) && !(st->st_mode & 022) &&
		  (is_ours(st->st_uid) || st->st_uid == dir->st_uid);
	if (!ok)
		explain(why, "the file is not to be trusted");
	return ok;
}

static struct pins *map_file(int fd, const struct stat *st, bool write, char *why)
{
	struct pins *p = calloc(1, sizeof(*p));
	void *m = MAP_FAILED;
	if (p)
		m = mmap(NULL, sizeof(struct image), PROT_READ | (write ? PROT_WRITE : 0),
			 MAP_SHARED, fd, 0);
	if (m == MAP_FAILED) {
		explain(why, strerror(errno));
		free(p);
		return NULL;
	}
	p->map = m;
	p->fd = -1;
	p->dev = st->st_dev;
	p->ino = st->st_ino;
	return p;
}

struct pins *pins_open(const char *runtime_dir, const char *writer, char *why)
{
	struct stat dir, st;
	struct pins *p = NULL;
	int d = open_dir(runtime_dir, &dir, why);
	if (d < 0)
		return NULL;
	int fd = openat(d, writer, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		explain(why, strerror(errno));
	else if (file_ok(fd, &dir, &st, why)) {
		if (st.st_size != sizeof(struct image))
			explain(why, "the file has another format");
		else
			p = map_file(fd, &st, false, why);
	}
	if (p && !image_ok(p->map)) {
		explain(why, "the file is of another boot or format");
		pins_close(p);
		p = NULL;
	}
	if (fd >= 0)
		close(fd);
	close(d);
	return p;
}

/* A new file beside, filled, then in its place: a reader sees the old one or a whole one. */
static int make_file(int d, const char *writer, struct stat *st, char *why)
{
	char temp[64];
	snprintf(temp, sizeof(temp), "%.40s.new", writer);
	(void)unlinkat(d, temp, 0);
	int fd = openat(d, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	bool ok = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
		  ftruncate(fd, sizeof(struct image)) == 0 && fstat(fd, st) == 0 &&
		  (errno = posix_fallocate(fd, 0, offsetof(struct image, row))) == 0;
	struct pins *p = ok ? map_file(fd, st, true, why) : NULL;
	ok = p && fill_header(p->map);
	if (p)
		pins_close(p);
	if (ok && renameat(d, temp, d, writer) == 0)
		return fd;
	explain(why, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The file as it is, locked, if it can go on being used; -1 with errno: 0 if it must be replaced. */
static int take_file(int d, const char *writer, const struct stat *dir, struct stat *st, char *why)
{
	int fd = openat(d, writer, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		int e = errno == ENOENT ? 0 : errno;
		explain(why, strerror(errno));
		errno = e;
		return -1;
	}
	int e = 0;
	struct pins *p = NULL;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		explain(why, "another process writes it");
		e = EBUSY;
	} else if (file_ok(fd, dir, st, why) && st->st_size == sizeof(struct image)) {
		p = map_file(fd, st, false, why);
	}
	bool ok = p && image_ok(p->map);
	if (p)
		pins_close(p);
	if (ok)
		return fd;
	close(fd);
	errno = e;
	return -1;
}

struct pins *pins_create(const char *runtime_dir, const char *writer, char *why)
{
	struct stat dir, st;
	int d = open_dir(runtime_dir, &dir, why);
	if (d < 0)
		return NULL;
	int fd = take_file(d, writer, &dir, &st, why);
	if (fd < 0 && errno == 0)
		fd = make_file(d, writer, &st, why);
	close(d);
	if (fd < 0)
		return NULL;
	struct pins *p = map_file(fd, &st, true, why);
	if (!p) {
		close(fd);
		return NULL;
	}
	p->fd = fd;
	for (unsigned i = 0; i < SETS; i++)
		atomic_flag_clear(&p->busy[i]);
	return p;
}

void pins_close(struct pins *p)
{
	if (!p)
		return;
	munmap(p->map, sizeof(*p->map));
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

bool pins_is_current(const struct pins *p, const char *runtime_dir, const char *writer)
{
	char path[512];
	struct stat st;
	int n = snprintf(path, sizeof(path), "%s/%s/%s", runtime_dir, PIN_DIR, writer);
	return n > 0 && (size_t)n < sizeof(path) && lstat(path, &st) == 0 && st.st_dev == p->dev &&
	       st.st_ino == p->ino;
}
