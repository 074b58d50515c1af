/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One secret from a file; see secret.h. Never logs one, and leaves none behind in memory of its own.
 */
#include "spoa-agent/secret.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_name(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= 'A' && s[i] <= 'Z') &&
		    !(s[i] >= '0' && s[i] <= '9') && s[i] != '_' && s[i] != '-')
			return false;
	return n > 0 && n <= 64;
}

static int open_secret(const char *dir, const char *name)
{
	char path[PATH_MAX];
	struct stat st;
	int n = snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (!is_name(name) || n < 0 || (size_t)n >= sizeof(path))
		return -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & (S_IWGRP | S_IRWXO)) &&
	    (st.st_uid == 0 || st.st_uid == geteuid()))
		return fd;
	close(fd);
	return -1;
}

/* user:password; what a field's value cannot carry, or a line that goes on, is none. */
static size_t usable(const char *s, size_t n)
{
	while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r'))
		n--;
	for (size_t i = 0; i < n; i++)
		if (s[i] < ' ' || s[i] > '~')
			return 0;
	return n > SECRET_MAX || !memchr(s, ':', n) ? 0 : n;
}

static void base64(char *to, const char *from, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = 0;
		size_t left = n - i < 3 ? n - i : 3;
		for (size_t k = 0; k < 3; k++)
			v = v << 8 | (k < left ? (uint8_t)from[i + k] : 0);
		for (size_t k = 0; k < 4; k++)
			*to++ = k > left ? '=' : digits[v >> (18 - 6 * k) & 63];
	}
	*to = '\0';
}

bool secret_basic(const char *dir, const char *name, char out[SECRET_BASIC_SIZE])
{
	char text[SECRET_MAX + 16];
	out[0] = '\0';
	int fd = open_secret(dir, name);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, text, sizeof(text));
	close(fd);
	size_t n = got > 0 ? usable(text, (size_t)got) : 0;
	if (n > 0) {
		memcpy(out, "Basic ", 6);
		base64(out + 6, text, n);
	}
	explicit_bzero(text, sizeof(text));
	return n > 0;
}
