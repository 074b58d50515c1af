/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the table of bindings (bind.h). Never writes, never waits, never trusts a number unchecked. */
#include "shared/live/bind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/live/bindfile.h"

enum { MAX_TRIES = 256 };

/* ---- rows ---- */

static void load_words(const struct bind_stored *s, unsigned which, unsigned from, unsigned to,
		       uint64_t *out)
{
	/* acquire, so that the version is not read before them the second time */
	for (unsigned i = from; i < to; i++)
		out[i] = atomic_load_explicit(&s->body[which][i], memory_order_acquire);
}

static void end_texts(struct bind_row *r)
{
	r->task[BIND_TASK_SIZE - 1] = '\0';
	r->profile[BIND_PROFILE_SIZE - 1] = '\0';
	r->ifname[BIND_IF_SIZE - 1] = '\0';
	if (r->n_addrs > BIND_ADDRS)
		r->n_addrs = 0;
}

bool bind_load(const struct bind_image *m, uint32_t row, struct bind_row *out)
{
	const struct bind_stored *s = &m->rows[row];
	const unsigned head = (offsetof(struct bind_row, overlay) + 7) / 8;
	union {
		uint64_t w[BIND_BODY_WORDS];
		struct bind_row r;
	} u;
	for (unsigned try = 0; try < MAX_TRIES; try++) {
		uint64_t v = atomic_load_explicit(&s->version, memory_order_acquire);
		load_words(s, v & 1, 0, head, u.w);
		size_t n = u.r.overlay_len;
		if (n > BIND_OVERLAY_SIZE)
			n = BIND_OVERLAY_SIZE;
		unsigned end = (unsigned)((offsetof(struct bind_row, overlay) + n + 7) / 8);
		load_words(s, v & 1, head, end, u.w);
		if (atomic_load_explicit(&s->version, memory_order_relaxed) != v)
			continue;
		memcpy(out, &u.r, offsetof(struct bind_row, overlay) + n);
		out->overlay_len = (uint16_t)n;
		end_texts(out);
		return true;
	}
	return false;
}

/* ---- finding ---- */

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint32_t bind_hash_addr(const struct addr *a, uint8_t len)
{
	uint64_t w[2];
	memcpy(w, a->b, sizeof(w));
	return (uint32_t)(mix(mix(w[0] + len) ^ w[1]) >> 32) % BIND_SLOTS;
}

uint32_t bind_hash_task(const char *task)
{
	uint64_t h = 0x7461736b;
	for (; *task; task++)
		h = mix(h ^ (uint8_t)*task);
	return (uint32_t)(h >> 32) % BIND_SLOTS;
}

struct addr bind_mask(const struct addr *a, uint8_t len)
{
	struct addr out = *a;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = len > 8 * i ? len - 8u * i : 0;
		if (keep < 8)
			out.b[i] &= (uint8_t)(0xff00u >> keep);
	}
	return out;
}

/* Is it in force, and about this address? */
static bool row_holds(const struct bind_row *r, const struct addr *a, uint8_t len, uint64_t boot_ns)
{
	if (r->state != BIND_BOUND || r->generation == 0 ||
	    (r->deadline_ns && boot_ns >= r->deadline_ns))
		return false;
	for (unsigned i = 0; i < r->n_addrs; i++)
		if (r->addrs[i].len == len && addr_cmp(&r->addrs[i].a, a) == 0)
			return true;
	return false;
}

static bool probe(const struct bind_image *m, const struct addr *a, uint8_t len, uint64_t boot_ns,
		  struct bind_row *out)
{
	uint32_t at = bind_hash_addr(a, len);
	for (uint32_t n = 0; n < BIND_SLOTS; n++, at = (at + 1) % BIND_SLOTS) {
		uint32_t v = atomic_load_explicit(&m->index[at], memory_order_acquire);
		if (v == 0)
			return false;
		uint32_t row = (v - 1) >> 2;
		if (((v - 1) & 3) >= BIND_KIND_TASK || row >= BIND_ROWS)
			continue;
		if (bind_load(m, row, out) && row_holds(out, a, len, boot_ns))
			return true;
	}
	return false;
}

/* While the writer moves the index about, an entry may be passed by: a miss counts if nothing moved. */
static bool find_prefix(const struct bind_image *m, const struct addr *a, uint8_t len,
			uint64_t boot_ns, struct bind_row *out)
{
	struct addr masked = bind_mask(a, len);
	for (unsigned try = 0; try < MAX_TRIES; try++) {
		uint64_t v = atomic_load_explicit(&m->h.index_version, memory_order_acquire);
		if (probe(m, &masked, len, boot_ns, out))
			return true;
		if (atomic_load_explicit(&m->h.index_version, memory_order_relaxed) == v)
			return false;
	}
	return false;
}

bool bind_find(const struct bind_table *t, const struct addr *a, uint64_t boot_ns,
	       struct bind_row *out)
{
	const struct bind_image *m = t->map;
	bool v4 = addr_is_v4(a);
	for (unsigned k = 3; k-- > 0;) {
		uint64_t lens = atomic_load_explicit(&m->h.lens[k], memory_order_acquire);
		while (lens) {
			unsigned bit = 63 - (unsigned)__builtin_clzll(lens), len = 64 * k + bit;
			lens &= ~(UINT64_C(1) << bit);
			/* an IPv6 prefix never holds IPv4 */
			if (len > 128 || (v4 && len < 96))
				continue;
			if (find_prefix(m, a, (uint8_t)len, boot_ns, out))
				return true;
		}
	}
	return false;
}

/* ---- the file ---- */

bool bind_boot_id(char out[BIND_BOOT_ID_SIZE])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	memset(out, 0, BIND_BOOT_ID_SIZE);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, out, BIND_BOOT_ID_SIZE - 1);
	close(fd);
	if (n < 36)
		return false;
	memset(out + 36, 0, BIND_BOOT_ID_SIZE - 36);
	return true;
}

static bool refuse(char *why, const char *what)
{
	if (why)
		snprintf(why, BIND_WHY_SIZE, "%s", what);
	return false;
}

static bool trusted(const struct stat *st, char *why)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return refuse(why,
			      "it, or its directory, belongs neither to root nor to this user");
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return refuse(why, "it, or its directory, is writable by others");
	return true;
}

/* The file itself; what was opened is what is judged. */
static bool judge_file(int fd, dev_t *dev, ino_t *ino, char *why)
{
	struct stat st;
	if (fstat(fd, &st) != 0)
		return refuse(why, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse(why, "not a regular file");
	if (!trusted(&st, why))
		return false;
	if (st.st_size != (off_t)sizeof(struct bind_image))
		return refuse(why, "it has not the size of a table of this version");
	*dev = st.st_dev;
	*ino = st.st_ino;
	return true;
}

int bind_open_file(const char *dir, int flags, dev_t *dev, ino_t *ino, char *why)
{
	struct stat st;
	int d = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (d < 0 || fstat(d, &st) != 0) {
		refuse(why, strerror(errno));
		if (d >= 0)
			close(d);
		return -1;
	}
	int fd = -1;
	errno = EINVAL;
	if (trusted(&st, why)) {
		fd = openat(d, BIND_FILE, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
		if (fd < 0)
			refuse(why, strerror(errno));
	}
	int saved = errno;
	close(d);
	errno = saved;
	if (fd >= 0 && !judge_file(fd, dev, ino, why)) {
		close(fd);
		errno = EINVAL;
		return -1;
	}
	return fd;
}

bool bind_image_ok(const struct bind_image *m, char *why)
{
	char id[BIND_BOOT_ID_SIZE];
	if (memcmp(m->h.magic, BIND_MAGIC, sizeof(m->h.magic)) != 0 || m->h.format != BIND_FORMAT ||
	    m->h.rows != BIND_ROWS || m->h.slots != BIND_SLOTS ||
	    m->h.row_size != sizeof(struct bind_stored))
		return refuse(why, "it is not a table of this version");
	if (!bind_boot_id(id) || memcmp(id, m->h.boot_id, sizeof(id)) != 0)
		return refuse(why, "it was made before the machine was started");
	return true;
}

struct bind_table *bind_open(const char *dir, char *why)
{
	struct bind_table *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->map = MAP_FAILED;
	int fd = bind_open_file(dir, O_RDONLY, &t->dev, &t->ino, why);
	if (fd >= 0) {
		t->map = mmap(NULL, sizeof(*t->map), PROT_READ, MAP_SHARED, fd, 0);
		if (t->map == MAP_FAILED)
			refuse(why, strerror(errno));
		close(fd);
	}
	if (t->map != MAP_FAILED && bind_image_ok(t->map, why))
		return t;
	bind_close(t);
	return NULL;
}

void bind_close(struct bind_table *t)
{
	if (!t)
		return;
	if (t->map != MAP_FAILED)
		munmap(t->map, sizeof(*t->map));
	free(t);
}

bool bind_is_current(const struct bind_table *t, const char *dir)
{
	char path[BIND_PATH_SIZE];
	struct stat st;
	int n = snprintf(path, sizeof(path), "%s/%s", dir, BIND_FILE);
	return n > 0 && (size_t)n < sizeof(path) && stat(path, &st) == 0 && st.st_dev == t->dev &&
	       st.st_ino == t->ino;
}
