/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a connection may go at all: the never-destinations and private space (verdict.h). The only place
 * that says so.
 */
#include "shared/policy/judge.h"

#include <string.h>

static bool is_local(const struct facts *f, const struct addr *a)
{
	size_t lo = 0, hi = f->locals.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = addr_cmp(&f->locals.v[mid], a);
		if (c == 0)
			return true;
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static struct prefix owned_prefix(const struct policy *p, uint32_t i)
{
	struct prefix pre = { .len = (uint8_t)p->owned[i].len };
	memcpy(pre.a.b, p->owned[i].addr, 16);
	return pre;
}

/* Does one of the `sources` prefixes hold it? OWNED is disjoint, IPv6 before IPv4, by address. */
static bool is_owned(const struct policy *p, const struct addr *a)
{
	bool v4 = addr_is_v4(a);
	uint32_t lo = 0, hi = p->n_owned; /* the first prefix that starts behind a */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		struct prefix pre = owned_prefix(p, mid);
		bool behind =
			prefix_is_v4(&pre) != v4 ? prefix_is_v4(&pre) : addr_cmp(&pre.a, a) > 0;
		if (behind)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == 0)
		return false;
	struct prefix pre = owned_prefix(p, lo - 1);
	return prefix_contains(&pre, a);
}

/* Is it a cidr that `never` holds or that this profile denies? */
static bool is_denied_cidr(const struct policy *p, uint32_t profile, const struct addr *a,
			   const struct facts *f)
{
	struct level l[MAX_CIDR_LEVELS];
	unsigned n = cidr_levels(p, a, l);
	for (unsigned k = 0; k < n; k++)
		if (never_rule(p, l[k].set, RULE_CIDR) != FMT_NONE)
			return true;
	if (profile >= p->n_profiles)
		return false;
	struct judge j = { .p = p,
			   .profile = &p->profiles[profile],
			   .now_s = f->now.wall_ns / 1000000000 };
	for (unsigned k = 0; k < n; k++) {
		/* longest first: an allow that is longer than the deny lifts it */
		struct walk w = walk_set(&j, l[k].set, RULE_CIDR);
		bool allow = false;
		for (uint32_t i; (i = walk_next(&w)) != FMT_NONE;) {
			if (p->rules[i].flags & RULE_DENY)
				return true;
			allow |= !expired(&j, &p->rules[i]);
		}
		if (allow)
			return false;
	}
	return false;
}

static enum reason judge_plain_address(const struct policy *p, uint32_t profile,
				       const struct addr *a, bool lifted, const struct facts *f)
{
	enum addr_class c = addr_class(a);
	if (c == ADDR_NEVER || is_local(f, a) || is_owned(p, a) || is_denied_cidr(p, profile, a, f))
		return REASON_ADDRESS;
	if (c == ADDR_PRIVATE && !lifted && !in_private_ranges(p, profile, a))
		return REASON_PRIVATE_ADDRESS;
	return REASON_ALLOWED;
}

enum reason verdict_address(const struct policy *p, uint32_t profile, const struct addr *a,
			    bool lifted, const struct facts *f)
{
	struct addr in[ADDR_MAX_EMBEDDED];
	enum reason worst = judge_plain_address(p, profile, a, lifted, f);
	unsigned n = addr_embedded(a, in);
	for (unsigned i = 0; i < n && worst != REASON_ADDRESS; i++) {
		enum reason r = judge_plain_address(p, profile, &in[i], lifted, f);
		if (r == REASON_ADDRESS || worst == REASON_ALLOWED)
			worst = r;
	}
	return worst;
}
