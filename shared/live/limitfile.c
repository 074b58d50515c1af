/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files behind limit.h: made, judged and mapped. Never writes into a file that another user may have
 * made, never takes one of another boot or format.
 */
#include "shared/live/limitfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/live/bindfile.h"

static_assert((int)LIMIT_BOOT_ID == (int)BIND_BOOT_ID_SIZE, "one id of a boot");

static void explain(char *why, const char *text)
{
	snprintf(why, LIMIT_WHY_SIZE, "%s", text);
}

static bool is_ours(uid_t u)
{
	return u == 0 || u == geteuid();
}

static size_t image_size(size_t cells)
{
	return sizeof(struct limit_image) + cells * sizeof(struct limit_cell);
}

/* ---- images ---- */

static bool cells_ok(size_t cells)
{
	return cells >= LIMIT_BUCKET && cells <= LIMIT_MAX_CELLS && (cells & (cells - 1)) == 0;
}

static bool fill_header(struct limit_image *m, size_t cells)
{
	if (getrandom(m->seed, sizeof(m->seed), 0) != sizeof(m->seed) || !bind_boot_id(m->boot_id))
		return false;
	m->cells = (uint32_t)cells;
	m->cell_size = sizeof(struct limit_cell);
	memcpy(m->magic, LIMIT_MAGIC, sizeof(m->magic));
	return true;
}

static bool image_ok(const struct limit_image *m, size_t size)
{
	char id[LIMIT_BOOT_ID];
	return bind_boot_id(id) && memcmp(m->magic, LIMIT_MAGIC, sizeof(m->magic)) == 0 &&
	       cells_ok(m->cells) && m->cell_size == sizeof(struct limit_cell) &&
	       image_size(m->cells) == size && memcmp(m->boot_id, id, sizeof(id)) == 0;
}

static struct limits *map_image(int fd, size_t size, bool write, char *why)
{
	struct limits *l = calloc(1, sizeof(*l));
	void *m = MAP_FAILED;
	if (l)
		m = mmap(NULL, size, PROT_READ | (write ? PROT_WRITE : 0),
			 MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (m == MAP_FAILED) {
		explain(why, strerror(errno));
		free(l);
		return NULL;
	}
	l->map = m;
	l->size = size;
	return l;
}

void limits_close(struct limits *l)
{
	if (!l)
		return;
	munmap(l->map, l->size);
	free(l);
}

/* ---- directories ---- */

static bool dir_ok(int d, struct stat *st)
{
	return fstat(d, st) == 0 && S_ISDIR(st->st_mode) && !(st->st_mode & 022);
}

static int open_in(int above, const char *name, bool make)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int d = openat(above, name, flags);
	if (d < 0 && errno == ENOENT && make && mkdirat(above, name, 0755) == 0)
		d = openat(above, name, flags);
	return d;
}

/* RUNTIME/limits/WRITER, and whose it is. What is above the last is root's or ours. -1: with a reason. */
static int open_dir(const char *runtime_dir, const char *writer, bool make, struct stat *st,
		    char *why)
{
	const char *const path[] = { runtime_dir, LIMIT_DIR, writer };
	int d = AT_FDCWD;
	for (unsigned i = 0; i < 3; i++) {
		int below = i == 0 ? open(path[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC)
				   : open_in(d, path[i], make);
		int e = errno;
		if (d >= 0)
			close(d);
		d = below;
		if (d < 0) {
			explain(why, strerror(e));
			return -1;
		}
		if (!dir_ok(d, st) || (i < 2 && !is_ours(st->st_uid))) {
			explain(why, "others may write into the directory");
			close(d);
			return -1;
		}
	}
	return d;
}

/* ---- files ---- */

static bool file_ok(int fd, const struct stat *dir, struct stat *st)
{
	return fstat(fd, st) == 0 && S_ISREG(st->st_mode) && !(st->st_mode & 022) &&
	       (is_ours(st->st_uid) || st->st_uid == dir->st_uid) &&
	       (uint64_t)st->st_size > sizeof(struct limit_image) &&
	       (uint64_t)st->st_size <= image_size(LIMIT_MAX_CELLS);
}

/* The file as it is, if it can be used; NULL with a reason. */
static struct limits *take_file(int d, const struct stat *dir, bool write, char *why)
{
	struct stat st;
	struct limits *l = NULL;
	int fd = openat(d, LIMIT_FILE,
			(write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK |
				O_NOCTTY);
	if (fd < 0) {
		explain(why, strerror(errno));
		return NULL;
	}
	if (!file_ok(fd, dir, &st))
		explain(why, "the file is not to be trusted, or of another format");
	else
		l = map_image(fd, (size_t)st.st_size, write, why);
	close(fd);
	if (l && !image_ok(l->map, l->size)) {
		explain(why, "the file is of another boot or format");
		limits_close(l);
		return NULL;
	}
	if (l) {
		l->buckets = l->map->cells / LIMIT_BUCKET;
		l->in_file = true;
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	return l;
}

/* A new file beside, filled, then in its place: whoever opens it sees the old one or a whole one. */
static bool make_file(int d, size_t cells, char *why)
{
	static const char temp[] = LIMIT_FILE ".new";
	(void)unlinkat(d, temp, 0);
	int fd = openat(d, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	/* with its blocks: writing to a hole where the file system is full would end the process */
	bool ok = fd >= 0 && (errno = posix_fallocate(fd, 0, (off_t)image_size(cells))) == 0;
	struct limits *l = ok ? map_image(fd, image_size(cells), true, why) : NULL;
	ok = l && fill_header(l->map, cells) && renameat(d, temp, d, LIMIT_FILE) == 0;
	if (!ok)
		explain(why, strerror(errno));
	limits_close(l);
	if (fd >= 0)
		close(fd);
	return ok;
}

static struct limits *in_memory(size_t cells, char *why)
{
	struct limits *l = map_image(-1, image_size(cells), true, why);
	if (l && !fill_header(l->map, cells)) {
		explain(why, "no random numbers");
		limits_close(l);
		return NULL;
	}
	if (l)
		l->buckets = cells / LIMIT_BUCKET;
	return l;
}

struct limits *limits_create(const char *runtime_dir, const char *writer, size_t cells, char *why)
{
	struct stat dir;
	if (!cells_ok(cells)) {
		explain(why, "not a number of cells");
		return NULL;
	}
	if (!runtime_dir)
		return in_memory(cells, why);
	int d = open_dir(runtime_dir, writer, true, &dir, why);
	if (d < 0)
		return NULL;
	/* two that start at once make one file */
	(void)flock(d, LOCK_EX);
	struct limits *l = take_file(d, &dir, true, why);
	if (!l && make_file(d, cells, why))
		l = take_file(d, &dir, true, why);
	close(d);
	if (l)
		why[0] = '\0'; /* why the one before could not be used does not matter */
	return l;
}

struct limits *limits_open(const char *runtime_dir, const char *writer, char *why)
{
	struct stat dir;
	int d = open_dir(runtime_dir, writer, false, &dir, why);
	if (d < 0)
		return NULL;
	struct limits *l = take_file(d, &dir, false, why);
	close(d);
	return l;
}

bool limits_is_current(const struct limits *l, const char *runtime_dir, const char *writer)
{
	char path[512];
	struct stat st;
	int n = snprintf(path, sizeof(path), "%s/%s/%s/%s", runtime_dir, LIMIT_DIR, writer,
			 LIMIT_FILE);
	return l->in_file && n > 0 && (size_t)n < sizeof(path) && lstat(path, &st) == 0 &&
	       st.st_dev == l->dev && st.st_ino == l->ino;
}
