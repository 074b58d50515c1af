/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets of the gateway itself: one file each in a directory that something else renders. A value is
 * read when it is used, so that a changed one is used at once, and is kept nowhere.
 */
#ifndef CX_SECRET_H
#define CX_SECRET_H

#include <stdbool.h>
#include <stddef.h>

enum {
	SECRET_MAX = 180,       /* octets of "user:password" */
	SECRET_BASIC_SIZE = 256 /* room for the header value of the longest, with NUL */
};

/*
 * DIR/NAME holds user:password in printable ASCII, with a newline behind it or not: as the value of a
 * Proxy-Authorization field (RFC 7617). False, and out is "": there is no such file, it is not a
 * regular one of root's or ours, others than its owner and group may read it or others than its owner
 * write it, or it holds something else. No allocation; blocks as long as a small file takes.
 */
bool secret_basic(const char *dir, const char *name, char out[SECRET_BASIC_SIZE]);

#endif
