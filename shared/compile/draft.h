/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A profile while it is read: what it says itself, then what it inherits and sees. Private to the files
 * that read profiles (profiles.c, profile_dns.c, inherit.c, layers.c) and to lint.
 *
 * Everything lives in the model's arena. Threads: one thread.
 */
#ifndef CX_DRAFT_H
#define CX_DRAFT_H

#include "shared/compile/build.h"

enum profile_set {
	SET_ECH = 1,
	SET_AAAA = 2,
	SET_ANCESTORS = 4,
	SET_DENY_TTL = 8,
	SET_QTYPES = 16,
	SET_PRIVATE_RANGES = 32,
	SET_PROXY_HTTP = 64,
	SET_PROXY_HTTPS = 128,
	SET_NO_PROXY = 256,
	SET_PROXY_AUTH = 512,
	SET_PROXY_RESOLVE = 1024
};

struct draft {
	struct profile p;
	unsigned set; /* enum profile_set: what it says itself or inherits */
	const struct node *extends, *presets, *within;
	uint32_t *parents; /* drafts, in the order written */
	uint32_t n_parents;
	uint32_t *own_presets; /* presets by number of preset_at() */
	uint32_t n_own_presets;
	struct texts allowed_environments;
	bool has_environments;
	uint32_t *bound_by; /* drafts whose environments hold here: itself, ancestors */
	uint32_t n_bound_by;
	struct resolver *resolvers;
	size_t n_resolvers, cap_resolvers, n_own_resolvers;
	bool said;        /* it stands in the policy: `network` may be left out */
	unsigned depth;   /* of the chain of extends */
	const char *lift; /* codes that it lifts, as struct terms.lint_allow */
};

/* The draft of this name, or NULL. Once find_profiles() has run. */
struct draft *draft_named(const struct build *b, const char *name);

/* Keys of a profile that stand in files of their own; `to` is the draft. */
read_fn read_additions, read_dns, read_resolvers, read_proxy;

/* The profiles that it names in `extends`, as indices. */
void find_parents(struct build *b, struct draft *d);

/*
 * The drafts in an order in which parents come before children, into order[]; returns how many there
 * are: fewer than all if some stand on a cycle, which is reported.
 */
size_t parents_first(struct build *b, uint32_t *order);

/* Takes over what its parents, who have done so before, leave it; false if the chain is too long. */
bool inherit(struct build *b, struct draft *d);

#endif
