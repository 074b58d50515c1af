/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compiled policy read back as a whole: which names and prefixes each rule lists, and the texts beside
 * the rules and profiles. For --dump, --diff and --emit.
 *
 * Ownership: walk_close() frees all; strings live until then. Threads: one thread. Errors: false and a
 * line in err (size octets); out of memory ends the program.
 */
#ifndef CX_WALK_H
#define CX_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/compile/arena.h"
#include "shared/policy/image.h"

struct walk_name {
	uint32_t rule;
	uint32_t rec; /* its record in BLOB */
	uint8_t len;
};

struct walk {
	const struct policy *p;
	struct arena arena;
	const struct walk_name *names; /* by rule, then name */
	const uint64_t *first_name;    /* [n_rules + 1] */
	const uint32_t *cidr;          /* [n_rules]: index into p->cidrs, FMT_NONE: none */
	const uint32_t *order;         /* [n_rules]: the rules by layer, then place in the policy */
	const uint32_t *layer_at;      /* [n_layers + 1]: where each layer begins in order[] */
	uint8_t *bytes;                /* of a policy that was compiled just now */
	struct policy own;
};

/* Opens a compiled policy, whoever owns it and whatever it demands. */
bool walk_open(struct walk *w, const char *path, char *err, size_t size);
/* Takes the bytes of a policy, malloc'd, also if it fails. */
bool walk_bytes(struct walk *w, uint8_t *bytes, size_t len, char *err, size_t size);
void walk_close(struct walk *w);

/* The name of a record as text; buf holds NAME_TEXT_SIZE. Returns the length. */
size_t walk_name_text(const struct walk *w, const struct walk_name *n, char *buf);
struct prefix walk_prefix(const struct walk *w, uint32_t rule);

const char *walk_layer_name(const struct walk *w, uint32_t layer);
/* The layer of a profile's own rules. */
uint32_t walk_own_layer(const struct walk *w, uint32_t profile);
/* The profile of that name, FMT_NONE: none. */
uint32_t walk_find_profile(const struct walk *w, const char *name);
/* The layers that a profile sees, by rank; *n how many. From the arena. */
const uint32_t *walk_sees(struct walk *w, uint32_t profile, uint32_t *n);

/* The text of a kind about an index, NULL: none. */
const char *walk_term(const struct walk *w, enum fmt_text_kind kind, uint32_t index);
const char *walk_note(const struct walk *w, enum fmt_text_kind kind, uint32_t index);

/* An offset of the rule's provenance as text. */
static inline const char *walk_info(const struct walk *w, uint32_t off)
{
	return w->p->info_strings + off;
}

/* Does any name or prefix lead to the rule? All that the compiler writes has one. */
bool walk_has_subject(const struct walk *w, uint32_t rule);

/* Is the rule one of a list? */
bool walk_is_list(const struct walk *w, uint32_t rule);

#endif
