/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast: one clock (GCRA) for each subject and each thing that it is limited in, in fixed memory.
 *
 * A table of cells in a mapped file, DIR/WRITER/table, shared by all processes of one user: two agents
 * side by side count together, and what was used up stays so when a process is started anew. Cells
 * change by compare-and-swap, so that any number of threads of any number of processes gives the same
 * limits as one. A file of another boot or format is replaced by an empty one; without a place for
 * files the table is this process's own.
 *
 * A cell holds three clocks: the time at which the subject will have paid for what it used. A cell
 * whose clocks are all in the past says nothing, and its place is free; there is nothing to sweep.
 * Clocks of another writer's table can be taken into account (limit_clock()), so that a resolver and
 * the agent keep to one budget although neither may write the other's file.
 *
 * Where a cell lies comes from a keyed hash, with a key that is chosen when the file is made. When the
 * places of a newcomer are taken, the source prefix that holds most of them gives one up; if that is
 * the newcomer's own, it is the newcomer who is refused. A prefix is an IPv4 /24, an IPv6 /48, or a
 * bound task.
 *
 * Threads: any. No lock, no allocation but in create, open and close. Times are CLOCK_BOOTTIME in ns,
 * and passed in. Trust in files and directories: as pin.h says.
 */
#ifndef CX_LIMIT_H
#define CX_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"

#define LIMIT_DIR "limits" /* in the runtime directory */

enum {
	LIMIT_CELLS = 1 << 18, /* of a table made by default: 8 MiB */
	LIMIT_CELL_SIZE = 32,
	LIMIT_CLOCKS = 3, /* of a cell */
	LIMIT_WHY_SIZE = 160
};

/* limit_charge(): there is no place for this subject. */
#define LIMIT_FULL UINT64_MAX

struct limits;

/*
 * Whom, and in what. A bound task (generation other than 0) is one subject whatever its addresses; of
 * others an IPv4 address is one, and an IPv6 /64.
 */
struct limit_key {
	struct addr src;
	uint64_t generation;
	uint64_t what; /* 0: the subject as such; else what the caller means by it */
};

/* In ns: what one unit costs, and how far ahead the clock may be. */
struct limit_pace {
	double unit_ns;
	uint64_t ahead_ns;
};

/* `amount` (not 0) units in a period, `burst` of them at once. */
struct limit_pace limit_pace(uint64_t amount, uint32_t period_s, uint64_t burst);

/*
 * For writing; makes what is missing. runtime_dir NULL: a table of this process alone. cells is a power of
 * two, and counts where the file has to be made. NULL and one sentence in why (LIMIT_WHY_SIZE).
 */
struct limits *limits_create(const char *runtime_dir, const char *writer, size_t cells, char *why);
/* For reading another writer's. NULL, likewise. */
struct limits *limits_open(const char *runtime_dir, const char *writer, char *why);
void limits_close(struct limits *l);
/* Is what stands at the path still this table? False for one without a file. */
bool limits_is_current(const struct limits *l, const char *runtime_dir, const char *writer);

/* A number that nobody outside can know, for `what` of keys. */
uint64_t limit_seed(const struct limits *l);

/*
 * Charges `cost` units, unless that is too much now: then nothing is charged, and how many ns to wait
 * is returned. 0: charged. A clock that another pace set further ahead than this one lets it be is put
 * back to that. floor_ns: the clock is taken to be there at least.
 */
uint64_t limit_charge(struct limits *l, const struct limit_key *k, unsigned clock,
		      const struct limit_pace *p, uint64_t cost, uint64_t floor_ns,
		      uint64_t now_ns);

/* What the clock says; 0 if there is none. */
uint64_t limit_clock(const struct limits *l, const struct limit_key *k, unsigned clock);

/*
 * Sets a clock to until_ns. False: it was in the future already, and stays. Where there is no place it
 * is not kept, and the answer is true.
 */
bool limit_mark(struct limits *l, const struct limit_key *k, unsigned clock, uint64_t until_ns,
		uint64_t now_ns);

#endif
