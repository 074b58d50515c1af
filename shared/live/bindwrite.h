/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the table of bindings. Only cxctl does; never linked into a plugin.
 *
 * Locks are of the open file DIR/bindings.lock (OFD locks), and end with the process however it ends:
 * one for the table, held for single changes, and one for each address, held by who binds or unbinds
 * it from the first step to the last. Address locks are taken before the table's, lowest first.
 */
#ifndef CX_BINDWRITE_H
#define CX_BINDWRITE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/live/bind.h"

struct bind_writer;

/* For the test suite: the process is killed at the point that CX_FAULT names. */
#ifdef CX_TEST_FAULTS
void bind_fault(const char *point);
#else
static inline void bind_fault(const char *point)
{
	(void)point;
}
#endif

enum { BIND_NO_ROW = 0xffffffff };

/*
 * Opens the table in DIR, and makes it if it is missing, of another boot or of another version; gid:
 * the group that may read a new one, (gid_t)-1: nobody but the owner. NULL with one sentence in why.
 */
struct bind_writer *bind_writer_open(const char *dir, gid_t gid, char why[BIND_WHY_SIZE]);
void bind_writer_close(struct bind_writer *w);
/* The same table for reading, as a plugin would; valid until bind_writer_close(). */
const struct bind_table *bind_writer_table(const struct bind_writer *w);

/* Waits until nobody else binds or unbinds these addresses. False: errno. */
bool bind_lock_addrs(struct bind_writer *w, const struct prefix *v, unsigned n);
void bind_unlock_addrs(struct bind_writer *w, const struct prefix *v, unsigned n);
bool bind_lock_table(struct bind_writer *w);
void bind_unlock_table(struct bind_writer *w);

/* Everything below: with the table's lock held. */

/* The row of a task, or of exactly this prefix; BIND_NO_ROW. Expired and leaving ones too. */
uint32_t bind_row_of_task(struct bind_writer *w, const char *task, struct bind_row *out);
uint32_t bind_row_of_prefix(struct bind_writer *w, const struct prefix *p, struct bind_row *out);
/* A row that holds one of the prefix's addresses, or an address of it; BIND_NO_ROW. */
uint32_t bind_row_overlapping(struct bind_writer *w, const struct prefix *p, struct bind_row *out);
/* Calls back for each row that is not free, until it says false. */
void bind_each(struct bind_writer *w,
	       bool (*each)(void *arg, uint32_t row, const struct bind_row *r), void *arg);
/* A number that was never used before on this host. */
uint64_t bind_next_generation(struct bind_writer *w);
/* Adds a row; BIND_NO_ROW if the table is full. */
uint32_t bind_add(struct bind_writer *w, const struct bind_row *r);
/* Replaces all of a row but its addresses and its task. */
void bind_update(struct bind_writer *w, uint32_t row, const struct bind_row *r);
void bind_remove(struct bind_writer *w, uint32_t row);
/* Rows that are not free. */
uint32_t bind_count(const struct bind_writer *w);

#endif
