/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two policies compared in the words of who reviews the change: by profile what was added, removed,
 * widened, narrowed, and limits, presets, owners. Either side is YAML or a compiled policy.
 *
 * What cannot be ordered (a credential's hosts, a mesh rule) counts as widened: a change that only looks
 * harmless must not pass `--fail-on widened`.
 *
 * Threads: one thread. Out of memory ends the program (arena.h).
 */
#ifndef CX_DIFF_H
#define CX_DIFF_H

#include <stdio.h>

#include "shared/compile/compile.h"

struct diff_options {
	enum diag_format format;
	bool only_widened; /* DIFF_DIFFER only if something was widened */
};

enum diff_result { DIFF_SAME, DIFF_DIFFER, DIFF_CANNOT = 4 };

/* Prints the changes to `to`; why nothing can be compared goes to standard error. */
enum diff_result policy_diff(const char *old_path, const char *new_path,
			     const struct compile_options *c, const struct diff_options *o,
			     FILE *to);

#endif
