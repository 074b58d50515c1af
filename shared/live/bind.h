/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subjects: which task holds an address now. A table in a mapped file of fixed size, written by cxctl
 * and read by the plugins.
 *
 * A subject is (address, generation). A generation is a number that is used once on a host: the next
 * task on the same address is another subject, and nothing that was kept for the first one (a query
 * in flight, a connection's remembered generation) fits it. Generation 0 is what `sources` places.
 *
 * Reading: any number of threads of any number of processes, without locks and without waiting. A row
 * is read wholly old or wholly new: it has two bodies and a version that says which one holds; a
 * writer fills the other one and then moves the version on. A writer that was killed anywhere leaves
 * every row as it was before or as it was meant to be.
 *
 * Writing: bindwrite.h.
 *
 * The file is trusted only if it is a regular file of exactly this size, owned by root (or the
 * reader), not writable by others, in a directory of which the same holds, and made since the machine
 * started (boot id). Else there is no table, and every address that needs a binding is denied.
 */
#ifndef CX_BIND_H
#define CX_BIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"

#define BIND_FILE "bindings" /* in the runtime directory */

enum {
	BIND_ROWS = 65536,
	BIND_ADDRS = 2,      /* of one task */
	BIND_TASK_SIZE = 65, /* with NUL */
	BIND_PROFILE_SIZE = 65,
	BIND_IF_SIZE = 16,
	BIND_OVERLAY_SIZE = 1824,
	BIND_PATH_SIZE = 512,
	BIND_WHY_SIZE = 160
};

enum bind_state {
	BIND_FREE,
	BIND_BOUND,
	BIND_LEAVING /* its generation is retired; the address is not free for another task yet */
};

/* One row, copied out. Texts are NUL-terminated. */
struct bind_row {
	uint64_t generation;
	uint64_t deadline_ns; /* CLOCK_BOOTTIME; 0: none */
	uint32_t state;
	uint16_t overlay_len;
	uint8_t n_addrs;
	uint8_t zero;
	struct prefix addrs[BIND_ADDRS];
	char task[BIND_TASK_SIZE];
	char profile[BIND_PROFILE_SIZE];
	char ifname[BIND_IF_SIZE];
	uint8_t overlay[BIND_OVERLAY_SIZE]; /* shared/policy/overlay.h */
};

struct bind_table;

/*
 * Maps DIR/bindings for reading. NULL, and one sentence in why (BIND_WHY_SIZE), if it is not there or
 * not to be trusted.
 */
struct bind_table *bind_open(const char *dir, char *why);
void bind_close(struct bind_table *t);
/* Is what stands at the path still this table? False once it was removed or replaced. */
bool bind_is_current(const struct bind_table *t, const char *dir);

/* The binding of an address in force at boot_ns (CLOCK_BOOTTIME), longest prefix first. */
bool bind_find(const struct bind_table *t, const struct addr *a, uint64_t boot_ns,
	       struct bind_row *out);

#endif
