/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that a policy consists of: read whole, named, and kept below the main file's directory.
 * Must never follow a policy's words out of that directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/compile/build.h"

uint32_t add_file(struct build *b, const char *shown, const char *kept)
{
	uint32_t i = diags_file(b->d, arena_text(b->a, shown, strlen(shown)));
	if (i != b->n_files)
		return i;
	b->files = arena_grow(b->a, b->files, b->n_files, &b->cap_files, sizeof(*b->files));
	b->files[b->n_files++] = arena_text(b->a, kept, strlen(kept));
	return i;
}

/* Everything up to the end, at most max octets; NULL with errno (EFBIG: it is longer). */
static char *read_fd(int fd, size_t hint, size_t max, size_t *n)
{
	size_t cap = hint + 1, len = 0;
	char *text = malloc(cap);
	while (text) {
		ssize_t got = read(fd, text + len, cap - len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0) {
			*n = len;
			return text;
		}
		if (got < 0 || len + (size_t)got > max) {
			int why = got < 0 ? errno : EFBIG;
			free(text);
			errno = why;
			return NULL;
		}
		len += (size_t)got;
		if (len == cap) {
			char *more = realloc(text, cap * 2);
			if (!more)
				break;
			text = more;
			cap *= 2;
		}
	}
	free(text);
	errno = ENOMEM;
	return NULL;
}

static char *read_path(const char *path, size_t max, size_t *n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return NULL;
	struct stat st;
	char *text = NULL;
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		errno = EISDIR;
	else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max)
		errno = EFBIG;
	else
		text = read_fd(fd, S_ISREG(st.st_mode) ? (size_t)st.st_size : 65536, max, n);
	int why = errno;
	close(fd);
	errno = why;
	return text;
}

bool read_whole(struct build *b, const char *path, struct pos at, size_t max, char **text,
		size_t *n)
{
	*text = read_path(path, max, n);
	if (*text)
		return true;
	int why = errno;
	if (why == EFBIG)
		diag_error(b->d, at, "too-large", "%.200s is larger than %zu MiB", path, max >> 20);
	else
		diag_error(b->d, at, "file", "%.200s: %s", path, strerror(why));
	errno = why;
	return false;
}

const char *path_below(struct build *b, const char *written, struct pos at)
{
	char real[PATH_MAX];
	size_t n = strlen(b->dir);
	if (!*written) {
		diag_error(b->d, at, "file", "the path is empty");
		return NULL;
	}
	const char *joined =
		written[0] == '/' ? written : arena_printf(b->a, "%s/%s", b->dir, written);
	if (!realpath(joined, real)) {
		diag_error(b->d, at, "file", "%.200s: %s", written, strerror(errno));
		return NULL;
	}
	if (strncmp(real, b->dir, n) != 0 || (real[n] != '/' && n > 1)) {
		diag_error(b->d, at, "file",
			   "%.200s lies outside the main file's directory (after symbolic links)",
			   written);
		return NULL;
	}
	struct stat st;
	if (stat(real, &st) != 0 || !S_ISREG(st.st_mode)) {
		diag_error(b->d, at, "file", "%.200s is not a regular file", written);
		return NULL;
	}
	return arena_text(b->a, real, strlen(real));
}
