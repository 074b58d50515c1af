/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of allowed connections (stream.h). Never believes a row whose checksum is wrong or whose
 * lengths do not add up.
 */
#include "shared/live/stream.h"

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
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "shared/live/bindfile.h"
#include "shared/policy/hash.h"

#define STREAM_MAGIC "CXSTRM01"

enum {
	WAYS = 16,
	SETS = STREAM_ROWS / WAYS,
	FLAG_ECH = 1,
	FLAG_TO = 2,
	FLAG_CUT = 4,
	FLAG_NAMED = 8
};

/* The text holds n_names names in wire form with root, then method, path and upgrade. */
struct body {
	uint64_t since_ns;
	uint64_t generation;
	uint8_t src[16], dst[16], to[16];
	uint16_t src_port, dst_port, port;
	uint16_t text_len, method_len, path_len, upgrade_len;
	uint8_t layer, flags, n_names, zero[3];
	char rule[STREAM_RULE_SIZE];
	uint8_t text[STREAM_TEXT_SIZE];
};

struct row {
	_Atomic uint64_t sum;  /* of the body as far as the text goes; 0: free, or being written */
	_Atomic uint64_t gone; /* the sum of a row whose connection is over */
	struct body body;
};

static_assert(sizeof(struct row) == 640, "row layout");

struct image {
	char magic[8];
	uint32_t rows, row_size;
	uint64_t seed;
	char boot_id[BIND_BOOT_ID_SIZE];
	_Alignas(4096) struct row row[STREAM_ROWS];
};

struct streams {
	struct image *map;
	int fd; /* holds the lock */
	atomic_flag busy[SETS];
};

static void explain(char *why, const char *text)
{
	snprintf(why, STREAM_WHY_SIZE, "%s", text);
}

/* Never 0. */
static uint64_t body_sum(const struct body *b)
{
	size_t n = offsetof(struct body, text) + b->text_len;
	const uint8_t *p = (const uint8_t *)b;
	uint64_t h = n, w;
	for (; n >= 8; n -= 8, p += 8) {
		memcpy(&w, p, 8);
		h = hash_mix(h ^ w, 0xd6e8feb86659fd93ull);
	}
	w = 0;
	memcpy(&w, p, n);
	return hash_mix(h ^ w, 0xa0761d6478bd642full) | 1;
}

/* ---- writing ---- */

static unsigned set_of(uint64_t seed, const uint8_t src[16], uint16_t port)
{
	uint64_t w[2];
	memcpy(w, src, sizeof(w));
	uint64_t h = hash_mix(seed ^ w[0], 0xd6e8feb86659fd93ull);
	h = hash_mix(h ^ w[1], 0xa0761d6478bd642full);
	return (unsigned)hash_scale(hash_mix(h ^ port, 0x9e3779b97f4a7c15ull), SETS);
}

static bool put_text(struct writer *w, uint16_t *len, const char *s, size_t n)
{
	if (n > w->cap - w->len)
		return false;
	if (n > 0)
		wr_bytes(w, s, n);
	*len = (uint16_t)n;
	return true;
}

static void fill_text(struct body *b, const struct stream *r)
{
	struct writer w = wr_init(b->text, sizeof(b->text));
	for (unsigned i = 0; i < r->n_names && i < STREAM_NAMES; i++) {
		if (r->names[i].len + 1u > w.cap - w.len)
			break;
		wr_bytes(&w, r->names[i].wire, r->names[i].len);
		wr_u8(&w, 0);
		b->n_names++;
	}
	size_t names = w.len;
	if (!put_text(&w, &b->method_len, r->method, r->method_len) ||
	    !put_text(&w, &b->path_len, r->path, r->path_len) ||
	    !put_text(&w, &b->upgrade_len, r->upgrade, r->upgrade_len)) {
		b->method_len = b->path_len = b->upgrade_len = 0;
		b->flags |= FLAG_CUT;
		w.len = names;
	}
	b->text_len = (uint16_t)w.len;
}

static void fill(struct body *b, const struct stream *r)
{
	memset(b, 0, offsetof(struct body, text));
	b->since_ns = r->since_ns;
	b->generation = r->generation;
	memcpy(b->src, r->src.b, sizeof(b->src));
	memcpy(b->dst, r->dst.b, sizeof(b->dst));
	memcpy(b->to, r->to.b, sizeof(b->to));
	b->src_port = r->src_port;
	b->dst_port = r->dst_port;
	b->port = r->port;
	b->layer = (uint8_t)r->layer;
	b->flags = (uint8_t)((r->ech ? FLAG_ECH : 0) | (r->has_to ? FLAG_TO : 0) |
			     (r->named ? FLAG_NAMED : 0));
	memcpy(b->rule, r->rule, sizeof(b->rule) - 1);
	fill_text(b, r);
}

static bool same_stream(const struct body *a, const struct body *b)
{
	return a->src_port == b->src_port && a->dst_port == b->dst_port &&
	       memcmp(a->src, b->src, sizeof(a->src)) == 0 &&
	       memcmp(a->dst, b->dst, sizeof(a->dst)) == 0;
}

static bool is_free(struct row *r)
{
	uint64_t sum = atomic_load_explicit(&r->sum, memory_order_relaxed);
	return sum == 0 || atomic_load_explicit(&r->gone, memory_order_relaxed) == sum;
}

/* The row of the same stream, else a free one, else the oldest. */
static struct row *claim(struct row *set, const struct body *b, bool *taken)
{
	struct row *best = set;
	bool best_free = false;
	*taken = false;
	for (struct row *r = set; r < set + WAYS; r++) {
		bool is_open = is_free(r);
		if (!is_open && same_stream(&r->body, b))
			return r;
		if (is_open ? !best_free : !best_free && r->body.since_ns < best->body.since_ns)
			best = r;
		best_free |= is_open;
	}
	*taken = !best_free;
	return best;
}

bool streams_put(struct streams *s, const struct stream *r)
{
	struct body b;
	bool taken;
	fill(&b, r);
	uint64_t sum = body_sum(&b);
	unsigned set = set_of(s->map->seed, b.src, b.src_port);
	while (atomic_flag_test_and_set_explicit(&s->busy[set], memory_order_acquire))
		sched_yield();
	struct row *to = claim(&s->map->row[(size_t)set * WAYS], &b, &taken);
	atomic_store_explicit(&to->sum, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memcpy(&to->body, &b, offsetof(struct body, text) + b.text_len);
	atomic_store_explicit(&to->sum, sum, memory_order_release);
	atomic_flag_clear_explicit(&s->busy[set], memory_order_release);
	return !taken;
}

/* ---- files ---- */

static bool is_ours(uid_t u)
{
	return u == 0 || u == geteuid();
}

/* The directory of the files, and whose it is; -1 with errno. */
static int open_dir(const char *runtime_dir, bool make, struct stat *st)
{
	int d = open(runtime_dir, O_PATH | O_DIRECTORY | O_CLOEXEC), dir = -1;
	if (d < 0)
		return -1;
	if (make)
		(void)mkdirat(d, STREAM_DIR, 0755);
	if (fstat(d, st) == 0 && is_ours(st->st_uid) && !(st->st_mode & 022))
		dir = openat(d, STREAM_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	else
		errno = EPERM;
	if (dir >= 0 && (fstat(dir, st) != 0 || st->st_mode & 022)) {
		close(dir);
		errno = EPERM;
		dir = -1;
	}
	int err = errno;
	close(d);
	errno = err;
	return dir;
}

static bool header_ok(const struct image *m)
{
	char id[BIND_BOOT_ID_SIZE];
	return bind_boot_id(id) && memcmp(m->magic, STREAM_MAGIC, 8) == 0 &&
	       m->rows == STREAM_ROWS && m->row_size == sizeof(struct row) &&
	       memcmp(m->boot_id, id, BIND_BOOT_ID_SIZE) == 0;
}

/*
 * The whole file with its blocks: on a file system that is full later, writing to a hole would be the
 * end of the agent.
 */
static bool make_room(int fd)
{
	errno = posix_fallocate(fd, 0, sizeof(struct image));
	return errno == 0 && ftruncate(fd, sizeof(struct image)) == 0;
}

/* Empties the file, unless it is of this boot and form: then what was being written is dropped. */
static bool prepare(int fd, struct image *m)
{
	if (header_ok(m)) {
		for (size_t i = 0; i < STREAM_ROWS; i++) {
			struct row *r = &m->row[i];
			if (r->sum &&
			    (r->body.text_len > STREAM_TEXT_SIZE || body_sum(&r->body) != r->sum))
				r->sum = 0;
		}
		return true;
	}
	if (ftruncate(fd, 0) != 0 || !make_room(fd))
		return false;
	if (getrandom(&m->seed, sizeof(m->seed), 0) != sizeof(m->seed) || !bind_boot_id(m->boot_id))
		return false;
	m->rows = STREAM_ROWS;
	m->row_size = sizeof(struct row);
	memcpy(m->magic, STREAM_MAGIC, sizeof(m->magic));
	return true;
}

static struct image *map_file(int fd)
{
	if (!make_room(fd))
		return NULL;
	struct image *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return NULL;
	if (prepare(fd, m))
		return m;
	munmap(m, sizeof(*m));
	return NULL;
}

/* The first file that nobody has locked; -1 with errno. */
static int take_file(int dir)
{
	int err = EBUSY;
	for (unsigned i = 0; i < STREAM_FILES; i++) {
		const char name[2] = { (char)('0' + i), '\0' };
		int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
		int fd = openat(dir, name, flags, 0640);
		struct stat st;
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_ours(st.st_uid) &&
		    flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		if (fd < 0)
			err = errno;
		else
			close(fd);
	}
	errno = err;
	return -1;
}

struct streams *streams_create(const char *runtime_dir, char *why)
{
	struct stat st;
	struct streams *s = calloc(1, sizeof(*s));
	int dir = s ? open_dir(runtime_dir, true, &st) : -1;
	int fd = dir >= 0 ? take_file(dir) : -1;
	struct image *m = fd >= 0 ? map_file(fd) : NULL;
	if (!m)
		explain(why, strerror(errno));
	if (dir >= 0)
		close(dir);
	if (!m) {
		if (fd >= 0)
			close(fd);
		free(s);
		return NULL;
	}
	s->map = m;
	s->fd = fd;
	for (unsigned i = 0; i < SETS; i++)
		atomic_flag_clear(&s->busy[i]);
	return s;
}

void streams_close(struct streams *s)
{
	if (!s)
		return;
	munmap(s->map, sizeof(*s->map));
	close(s->fd);
	free(s);
}

/* ---- reading ---- */

struct stream_view {
	char *runtime_dir;
	int fd[STREAM_FILES];
	bool has[STREAM_FILES];
	struct image *copy[STREAM_FILES]; /* made when a file is first seen */
};

struct stream_view *stream_view_open(const char *runtime_dir, char *why)
{
	struct stream_view *v = calloc(1, sizeof(*v));
	if (v)
		v->runtime_dir = strdup(runtime_dir);
	if (!v || !v->runtime_dir) {
		explain(why, strerror(errno));
		free(v);
		return NULL;
	}
	for (unsigned i = 0; i < STREAM_FILES; i++)
		v->fd[i] = -1;
	if (stream_view_read(v, why))
		return v;
	stream_view_close(v);
	return NULL;
}

static void forget_files(struct stream_view *v)
{
	for (unsigned i = 0; i < STREAM_FILES; i++) {
		if (v->fd[i] >= 0)
			close(v->fd[i]);
		v->fd[i] = -1;
		v->has[i] = false;
	}
}

void stream_view_close(struct stream_view *v)
{
	if (!v)
		return;
	forget_files(v);
	for (unsigned i = 0; i < STREAM_FILES; i++)
		free(v->copy[i]);
	free(v->runtime_dir);
	free(v);
}

static bool read_whole(int fd, uint8_t *to, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = pread(fd, to + at, n - at, (off_t)at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		at += (size_t)k;
	}
	return true;
}

static bool file_ok(int fd, const struct stat *dir)
{
	struct stat st;
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & 022) &&
	       (is_ours(st.st_uid) || st.st_uid == dir->st_uid) &&
	       st.st_size == sizeof(struct image);
}

/* A file that is missing, or not to be trusted, has no rows. False: no memory. */
static bool read_file(struct stream_view *v, unsigned i, int dir, const struct stat *st)
{
	const char name[2] = { (char)('0' + i), '\0' };
	int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	v->fd[i] = fd;
	if (fd < 0 || !file_ok(fd, st))
		return true;
	if (!v->copy[i])
		v->copy[i] = aligned_alloc(4096, sizeof(struct image));
	if (!v->copy[i])
		return false;
	v->has[i] = read_whole(fd, (uint8_t *)v->copy[i], sizeof(struct image)) &&
		    header_ok(v->copy[i]);
	return true;
}

bool stream_view_read(struct stream_view *v, char *why)
{
	struct stat st;
	forget_files(v);
	int dir = open_dir(v->runtime_dir, false, &st);
	if (dir < 0 && errno == ENOENT)
		return true;
	bool ok = dir >= 0;
	for (unsigned i = 0; ok && i < STREAM_FILES; i++)
		ok = read_file(v, i, dir, &st);
	if (!ok) {
		explain(why, strerror(errno));
		forget_files(v);
	}
	if (dir >= 0)
		close(dir);
	return ok;
}

size_t stream_view_size(const struct stream_view *v)
{
	return (size_t)STREAM_FILES * STREAM_ROWS;
}

/* The row, if it is whole and its connection not known to be gone. */
static const struct row *row_at(const struct stream_view *v, size_t at)
{
	if (!v->has[at / STREAM_ROWS])
		return NULL;
	const struct row *r = &v->copy[at / STREAM_ROWS]->row[at % STREAM_ROWS];
	if (r->sum == 0 || r->gone == r->sum || r->body.text_len > STREAM_TEXT_SIZE ||
	    body_sum(&r->body) != r->sum)
		return NULL;
	return r;
}

uint64_t stream_view_id(const struct stream_view *v, size_t at)
{
	return v->has[at / STREAM_ROWS] ? v->copy[at / STREAM_ROWS]->row[at % STREAM_ROWS].sum : 0;
}

static bool read_names(struct reader *r, const struct body *b, struct stream *out,
		       struct name names[STREAM_NAMES])
{
	out->n_names = 0;
	out->names = names;
	for (unsigned i = 0; i < b->n_names; i++) {
		size_t used;
		if (name_from_wire(&names[i], r->p, r->left, &used) != NAME_OK)
			return false;
		rd_skip(r, used);
		out->n_names++;
	}
	return true;
}

static bool read_text(const struct body *b, struct stream *out, struct name names[STREAM_NAMES])
{
	struct reader r = rd_init(b->text, b->text_len);
	if (b->n_names > STREAM_NAMES || !read_names(&r, b, out, names))
		return false;
	out->method_len = b->method_len;
	out->path_len = b->path_len;
	out->upgrade_len = b->upgrade_len;
	out->method = (const char *)rd_take(&r, b->method_len);
	out->path = (const char *)rd_take(&r, b->path_len);
	out->upgrade = (const char *)rd_take(&r, b->upgrade_len);
	return rd_done(&r);
}

bool stream_view_get(const struct stream_view *v, size_t at, struct stream *out,
		     struct name names[STREAM_NAMES])
{
	const struct row *r = row_at(v, at);
	if (!r)
		return false;
	const struct body *b = &r->body;
	bool layer = b->layer == LAYER_TLS || b->layer == LAYER_HTTP || b->layer == LAYER_TCP;
	if (!layer || !read_text(b, out, names) ||
	    ((b->layer != LAYER_TCP || b->flags & FLAG_NAMED) && out->n_names != 1))
		return false;
	out->layer = (enum layer)b->layer;
	memcpy(out->src.b, b->src, sizeof(b->src));
	memcpy(out->dst.b, b->dst, sizeof(b->dst));
	memcpy(out->to.b, b->to, sizeof(b->to));
	out->src_port = b->src_port;
	out->dst_port = b->dst_port;
	out->port = b->port;
	out->has_to = b->flags & FLAG_TO;
	out->ech = b->flags & FLAG_ECH;
	out->named = b->flags & FLAG_NAMED;
	out->cut_short = b->flags & FLAG_CUT;
	out->generation = b->generation;
	out->since_ns = b->since_ns;
	memcpy(out->rule, b->rule, sizeof(out->rule));
	out->rule[sizeof(out->rule) - 1] = '\0';
	return true;
}

/* Rows of one address and port stand in one set, in each file. */
bool stream_view_is_older(const struct stream_view *v, size_t at)
{
	const struct row *me = row_at(v, at);
	for (unsigned f = 0; me && f < STREAM_FILES; f++) {
		if (!v->has[f])
			continue;
		unsigned set = set_of(v->copy[f]->seed, me->body.src, me->body.src_port);
		for (size_t i = 0; i < WAYS; i++) {
			const struct row *r = row_at(v, (size_t)f * STREAM_ROWS + set * WAYS + i);
			if (r && r->body.since_ns > me->body.since_ns &&
			    r->body.src_port == me->body.src_port &&
			    memcmp(r->body.src, me->body.src, sizeof(r->body.src)) == 0)
				return true;
		}
	}
	return false;
}

void stream_view_mark_gone(struct stream_view *v, size_t at)
{
	const struct row *r = row_at(v, at);
	if (!r)
		return;
	uint64_t sum = r->sum;
	off_t off = (off_t)((const uint8_t *)&r->gone - (const uint8_t *)v->copy[at / STREAM_ROWS]);
	(void)!pwrite(v->fd[at / STREAM_ROWS], &sum, sizeof(sum), off);
}
