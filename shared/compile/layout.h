/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of a policy between the model and the file: what layout.c and place.c build and write.c
 * puts out. In the form of format.h throughout.
 */
#ifndef CX_LAYOUT_H
#define CX_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/compile/compile.h"
#include "shared/compile/pool.h"
#include "shared/policy/format.h"

/* One name of one rule, before equal names are brought together. */
struct placed {
	uint64_t hash;       /* of the whole name */
	const uint8_t *wire; /* canonical, without root label */
	uint32_t rule;
	uint32_t line; /* of the list it stands in, 0: not from a list */
	uint32_t home; /* the line of the table that it hashes to */
	uint8_t len;
};

struct tables {
	struct arena arena;

	struct arena scratch; /* placed, and what tables_place() needs: freed by it */
	struct placed *placed;
	size_t n_placed;

	uint64_t seed;
	uint64_t depths[2];
	uint64_t *gate;
	size_t n_gate;
	struct fmt_line *lines;
	size_t n_lines;
	uint8_t *blob;
	size_t blob_size;

	struct pool sets;  /* u32 */
	struct pool ports; /* u32 */
	struct pool http;
	struct pool qtypes;   /* u16 */
	struct pool bindsets; /* u32 */
	struct pool limits;   /* struct fmt_limits */
	struct pool strings;
	struct pool info_strings;
	struct pool term_strings;

	struct fmt_rule *rules;
	struct fmt_rule_info *rule_info;
	uint32_t *rule_file; /* of each rule: the list's file as a string, for name_info */
	size_t n_rules;
	struct fmt_layer *layers;
	size_t n_layers;
	struct fmt_sees *sees;
	size_t n_sees;
	struct fmt_profile *profiles;
	size_t n_profiles;
	uint32_t default_profile;
	struct fmt_src4 *src4;
	size_t n_src4;
	uint32_t *src4_top; /* 65537, or NULL */
	struct fmt_src6 *src6;
	size_t n_src6;
	struct fmt_cidr *cidrs;
	size_t n_cidrs;
	struct fmt_prefix *owned;
	size_t n_owned;
	struct fmt_task *tasks;
	size_t n_tasks;
	uint32_t *within;
	size_t n_within;
	struct fmt_dns *dns;
	size_t n_dns;
	struct fmt_prefix *ranges;
	size_t n_ranges;
	struct fmt_zone *zones;
	size_t n_zones;
	struct fmt_proxy *proxies;
	size_t n_proxies;
	struct fmt_direct *direct;
	size_t n_direct;
	struct fmt_ancestor *ancestors;
	size_t n_ancestors, cap_ancestors;
	struct fmt_rule_limits *rule_limits;
	size_t n_rule_limits, cap_rule_limits;
	struct fmt_name_info *name_info;
	size_t n_name_info;
	struct fmt_info info;
	struct fmt_text *terms;
	size_t n_terms, cap_terms;
	struct fmt_text *notes;
	size_t n_notes, cap_notes;
	uint64_t serial;
};

/* The rule set of n pairs (layer, rule), which are sorted here; an index into SEC_RULESETS. */
uint32_t tables_set(struct tables *t, uint32_t *pairs, uint32_t n);

/* flatten.c: the model's clients to src4, src6 and owned. */
void tables_sources(struct tables *t, const struct model *m);

/*
 * terms.c: what no other table holds, as canonical YAML. first_rule: of each entry, as layout.c keeps
 * it.
 */
void tables_texts(struct tables *t, const struct model *m, const uint32_t *first_rule);

/* dns.c: what profiles say of DNS answers. */
void tables_dns(struct tables *t, const struct model *m);
void tables_proxies(struct tables *t, const struct model *m);

/*
 * dns.c: the names above listed ones, if a profile wants to know them. tables_place() calls it when the
 * hash seed is known.
 */
void tables_ancestors(struct tables *t);

/*
 * place.c: t->placed to gate, lines, blob and name_info; then the scratch memory is gone. 0, or -1 if it
 * does not fit the format.
 */
int tables_place(struct tables *t);

/* write.c: the bytes of the file, malloc'd. 0, or -1 if there is no memory. */
int tables_write(const struct tables *t, uint64_t required, uint8_t **bytes, size_t *len);

#endif
