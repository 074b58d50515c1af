/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes -> a file, replaced at once or not at all. Must never leave half a policy behind. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/compile/compile.h"

static int failed(const char *what, char *err, size_t size)
{
	snprintf(err, size, "%s: %s", what, strerror(errno));
	return -1;
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(fd, bytes, len < (1u << 30) ? len : 1u << 30);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static mode_t file_mode(void)
{
	mode_t mask = umask(0);
	umask(mask);
	return 0644 & ~mask;
}

static int fill(int fd, const uint8_t *bytes, size_t len, char *err, size_t size)
{
	if (write_all(fd, bytes, len) != 0)
		return failed("write", err, size);
	if (fchmod(fd, file_mode()) != 0)
		return failed("chmod", err, size);
	if (fsync(fd) != 0)
		return failed("fsync", err, size);
	return 0;
}

static int sync_directory(const char *dir, char *err, size_t size)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return failed(dir, err, size);
	int rc =
		fsync(fd) == 0 || errno == EINVAL ? 0 : failed("fsync of the directory", err, size);
	close(fd);
	return rc;
}

int compile_write_file(const char *path, const uint8_t *bytes, size_t len, char *err,
		       size_t err_size)
{
	char temp[PATH_MAX], dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int n = snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1,
			 slash ? path : ".");
	if (slash == path)
		strcpy(dir, "/");
	int m = snprintf(temp, sizeof(temp), "%s.XXXXXX", path);
	if (n >= (int)sizeof(dir) || m >= (int)sizeof(temp)) {
		errno = ENAMETOOLONG;
		return failed(path, err, err_size);
	}
	struct stat st;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		errno = EINVAL;
		snprintf(err, err_size, "%s exists and is not a regular file", path);
		return -1;
	}
	int fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return failed(path, err, err_size);
	int rc = fill(fd, bytes, len, err, err_size);
	if (close(fd) != 0 && rc == 0)
		rc = failed("close", err, err_size);
	if (rc == 0 && rename(temp, path) != 0)
		rc = failed(path, err, err_size);
	if (rc != 0) {
		int why = errno;
		unlink(temp);
		errno = why;
		return rc;
	}
	return sync_directory(dir, err, err_size);
}
