/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mapped policy.bin as the read side sees it: typed views into the image, each checked by
 * image_check() before anything else looks at them. Private to shared/policy.
 */
#ifndef CX_IMAGE_H
#define CX_IMAGE_H

#include <stdint.h>
#include <sys/stat.h>

#include "shared/policy/format.h"
#include "shared/policy/policy.h"

struct policy {
	const uint8_t *base;
	size_t size;
	const struct fmt_header *h;

	const uint64_t *gate;
	uint64_t n_gate;
	const struct fmt_line *lines;
	uint64_t n_lines;
	const uint8_t *blob;
	uint64_t blob_size;
	unsigned max_depth; /* highest bit of h->depths */

	const uint32_t *sets;
	uint64_t n_sets; /* in words */
	const struct fmt_rule *rules;
	uint32_t n_rules;
	const uint32_t *ports;
	uint64_t n_ports; /* in words */
	const uint8_t *http;
	uint64_t http_size;
	const struct fmt_layer *layers;
	uint32_t n_layers;
	const struct fmt_sees *sees;
	uint32_t n_sees;
	const struct fmt_profile *profiles;
	uint32_t n_profiles;
	const uint16_t *qtypes;
	uint64_t n_qtypes; /* in half-words */
	const struct fmt_src4 *src4;
	uint32_t n_src4;
	const uint32_t *src4_top; /* NULL: absent */
	const struct fmt_src6 *src6;
	uint32_t n_src6;
	const uint32_t *bindsets;
	uint64_t n_bindsets; /* in words */
	const struct fmt_cidr *cidrs;
	uint32_t n_cidrs;
	const struct fmt_prefix *owned;
	uint32_t n_owned;
	const struct fmt_task *tasks; /* NULL: absent */
	uint32_t n_tasks;
	const uint32_t *within;
	uint32_t n_within;
	const struct fmt_dns *dns;
	uint32_t n_dns;
	const struct fmt_prefix *ranges;
	uint32_t n_ranges;
	const struct fmt_zone *zones;
	uint32_t n_zones;
	const struct fmt_ancestor *ancestors;
	uint32_t n_ancestors;
	const struct fmt_limits *limits;
	uint32_t n_limits;
	const struct fmt_rule_limits *rule_limits;
	uint32_t n_rule_limits;
	const struct fmt_proxy *proxies;
	uint32_t n_proxies;
	const struct fmt_direct *direct;
	uint32_t n_direct;
	const char *strings;
	uint64_t strings_size;

	const struct fmt_text *terms;
	uint32_t n_terms;
	const char *term_strings;
	uint64_t term_strings_size;

	const struct fmt_rule_info *rule_info;
	const struct fmt_name_info *name_info;
	uint32_t n_name_info;
	const char *info_strings;
	uint64_t info_strings_size;
	const struct fmt_info *info;
	const struct fmt_text *notes;
	uint32_t n_notes;

	uint64_t n_names;
	char digest[13];
};

/*
 * Checks base[0..size) and fills the views: structure, every offset, order and count, the digest,
 * the features and, with a key, the signature. p->base and p->size are set by the caller. No
 * allocation is sized by a field that was not compared with the file's size.
 */
enum policy_err image_check(struct policy *p, const struct policy_trust *trust, char *why);

/* The part of it that looks into the sections, whose views are set (check_records.c). */
enum policy_err image_check_records(struct policy *p, char *why);

/* Writes to why[POLICY_WHY_SIZE], unless that is NULL. */
void image_explain(char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What bindings to the profile may add, or NULL. */
const struct fmt_task *image_task(const struct policy *p, uint32_t profile);

/*
 * Opens a file that only root or this user can have written: the directory first, then the file in it,
 * each judged by what was really opened. *fd becomes the caller's.
 */
enum policy_err image_open_trusted(int *fd, struct stat *st, const char *path, bool any_owner,
				   char *why);

#endif
