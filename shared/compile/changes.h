/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of --diff share: both policies, and the changes found so far. Private to diff.c,
 * diff_rules.c and diff_print.c.
 *
 * Changes and their texts live in the arena. Threads: one thread.
 */
#ifndef CX_CHANGES_H
#define CX_CHANGES_H

#include "shared/compile/build.h"
#include "shared/compile/diff.h"
#include "shared/compile/out.h"
#include "shared/compile/walk.h"

enum effect { EFFECT_NONE, EFFECT_NARROWED, EFFECT_WIDENED };

struct change {
	const char *where; /* "network", "profile x", "never", "preset:x", "policy" */
	const char
		*what; /* added, removed, widened, narrowed, changed, limits, presets, owner ... */
	const char *subject; /* the entry; "" if it is about the whole */
	const char *detail;
	enum effect effect;
};

struct side {
	struct walk w;
	const char **terms; /* [n_rules] what each rule says, made when asked for */
	uint32_t *seen_by;  /* [n_layers] how many profiles see it */
};

struct diff {
	struct side a, b; /* old, new */
	struct arena arena;
	struct change *v;
	size_t n, cap;
	const char *where;
	bool meant;       /* some change is more than what is written beside rules */
	uint32_t told[2]; /* the last pair of rules whose owners were compared */
};

/* A change at d->where; subject and detail are kept as they are, not copied. */
void change_add(struct diff *d, const char *what, const char *subject, enum effect e,
		const char *detail);
/* The text of o in the arena; o is done with. */
const char *change_keep(struct diff *d, struct out *o);
/* "from -> to" */
const char *change_from_to(struct diff *d, const char *from, const char *to);
/* How many of the changes have this effect. */
size_t change_count(const struct diff *d, enum effect e);

/* diff_rules.c: the limits of two texts as 1 << effect each; the entries of two layers (FMT_NONE: none). */
unsigned compare_limits(struct diff *d, const char *a, const char *b);
enum effect worst_effect(unsigned effects);
void compare_entries(struct diff *d, uint32_t old, uint32_t new);

/* diff_print.c */
void print_changes(const struct diff *d, enum diag_format format, FILE *to);

#endif
