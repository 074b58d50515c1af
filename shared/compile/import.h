/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of other programs as a fragment of a policy. What a list's dialect means is kept; what cannot be
 * kept is said, in comments of the fragment and in the report, and never guessed: the fragment permits
 * no more than the list did, but for what the report names as dropped.
 *
 * Threads: one thread. Out of memory ends the program (arena.h).
 */
#ifndef CX_IMPORT_H
#define CX_IMPORT_H

#include <stdbool.h>
#include <stdio.h>

enum import_kind {
	IMPORT_SQUID, /* squid.conf with acl and http_access lines, or a file of a dstdomain ACL */
	IMPORT_LIST   /* a name a line: plain, *.x, .x, ||x^ or a hosts file */
};

bool import_find(const char *word, enum import_kind *kind);

/* 0, or -1 with errno if the file cannot be read. */
int policy_import(enum import_kind kind, const char *path, FILE *to, FILE *report);

#endif
