/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML as the policy language takes it: mappings, sequences and scalars, each with its place. No
 * anchors, aliases, tags or merge keys; no duplicate keys; at most YAML_MAX_DEPTH levels.
 *
 * Ownership: nodes live in the arena. Threads: one thread. Errors: diagnostics; where the YAML itself
 * does not parse, the first one only.
 */
#ifndef CX_YAML_H
#define CX_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/compile/arena.h"
#include "shared/compile/diag.h"

enum { YAML_MAX_DEPTH = 32 };

enum node_type { NODE_SCALAR, NODE_SEQ, NODE_MAP };

struct node {
	struct pos pos;
	uint32_t n; /* octets of the text; items; pairs */
	uint8_t type;
	bool plain; /* a scalar without quotes */
	union {
		const char *text;         /* NUL-terminated, holds no NUL */
		const struct node *first; /* items; keys and values in turn */
	};
	const struct node *next;
};

/*
 * Parses the n octets of a file. True and the documents of the stream, linked by `next`, in *docs
 * (NULL: none); false if the text is not acceptable as a whole.
 */
bool yaml_parse(struct arena *a, struct diags *d, uint32_t file, const char *text, size_t n,
		const struct node **docs);

/* A plain scalar that stands for nothing: empty, ~ or null. */
bool node_is_null(const struct node *n);

/* "a string", "a list", "a mapping", "nothing", for messages. */
const char *node_what(const struct node *n);

/* For each key and value of a mapping. */
#define node_for_each_pair(k, v, map)                                                              \
	for (const struct node *k = (map)->first, *v = k ? k->next : NULL; k && v;                 \
	     k = v->next, v = k ? k->next : NULL)

#define node_for_each(item, seq)                                                                   \
	for (const struct node *item = (seq)->first; item; item = item->next)

#endif
