/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of limits that a process uses: its own, and what it reads of the other plugins'. There is
 * always one of its own: without a directory for files it is kept in memory, so that limits hold, but are
 * forgotten when the process ends and not shared with another.
 *
 * Threads: budgets_watch() belongs to one; the rest to any.
 */
#ifndef CX_BUDGET_H
#define CX_BUDGET_H

#include "shared/live/charge.h"

struct budgets;

/* runtime_dir NULL: in memory only. NULL: no memory. */
struct budgets *budgets_new(const char *runtime_dir, const char *writer);
void budgets_free(struct budgets *b);

/*
 * Looks whether the files are still theirs, and makes or opens what is missing. why (LIMIT_WHY_SIZE): why
 * there is no file of our own, or "".
 */
void budgets_watch(struct budgets *b, char *why);

struct charge_tables budgets_tables(const struct budgets *b);
struct charge_counts *budgets_counts(struct budgets *b);

#endif
