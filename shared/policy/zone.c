/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a profile says of DNS: types, private ranges, resolver zones, ancestors (judge.h). Never looks at
 * entries, but for aliases.
 */
#include "shared/policy/judge.h"

#include <string.h>

#include "shared/policy/hash.h"

/* Or NULL: nothing out of the ordinary. */
static const struct fmt_dns *profile_dns(const struct policy *p, uint32_t profile)
{
	uint32_t lo = 0, hi = p->n_dns;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->dns[mid].profile == profile)
			return &p->dns[mid];
		if (p->dns[mid].profile < profile)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool has_dns_flag(const struct policy *p, uint32_t profile, uint32_t flag)
{
	const struct fmt_dns *d = profile_dns(p, profile);
	return d && d->flags & flag;
}

bool in_private_ranges(const struct policy *p, uint32_t profile, const struct addr *a)
{
	const struct fmt_dns *d = profile_dns(p, profile);
	for (uint32_t i = 0; d && i < d->n_ranges; i++) {
		const struct fmt_prefix *r = &p->ranges[d->ranges + i];
		struct prefix pre = { .len = (uint8_t)r->len };
		memcpy(pre.a.b, r->addr, sizeof(pre.a.b));
		if (prefix_contains(&pre, a))
			return true;
	}
	return false;
}

static const struct fmt_zone *find_zone(const struct policy *p, const char *text)
{
	uint32_t lo = 0, hi = p->n_zones;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = strcmp(p->strings + p->zones[mid].name, text);
		if (c == 0)
			return &p->zones[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool owns(const struct policy *p, const struct fmt_zone *z, uint32_t profile)
{
	const uint32_t *v = p->bindsets + z->owners;
	uint32_t lo = 1, hi = v[0] + 1;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (v[mid] == profile)
			return true;
		if (v[mid] < profile)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

/* Whose resolvers are asked for the name: the deepest zone that holds it says so. */
enum zone_of zone_of(const struct policy *p, uint32_t profile, const struct name *n)
{
	char text[NAME_TEXT_SIZE];
	if (p->n_zones == 0 || n->n_labels == 0)
		return ZONE_NONE;
	name_to_text(n, text);
	for (const char *s = text; s; s = strchr(s, '.')) {
		s += *s == '.';
		const struct fmt_zone *z = find_zone(p, s);
		if (z)
			return owns(p, z, profile) ? ZONE_OWN : ZONE_FOREIGN;
	}
	return ZONE_NONE;
}

bool verdict_observes(const struct policy *p, uint32_t profile)
{
	return profile < p->n_profiles && p->profiles[profile].flags & PROFILE_OBSERVE;
}

bool verdict_no_aaaa(const struct policy *p, uint32_t profile)
{
	return has_dns_flag(p, profile, DNS_NO_AAAA);
}

bool verdict_ech(const struct policy *p, uint32_t profile)
{
	return profile < p->n_profiles && p->profiles[profile].flags & PROFILE_ECH_ALLOW;
}

bool verdict_is_ancestor(const struct policy *p, uint32_t profile, const struct name *n)
{
	if (profile >= p->n_profiles || !has_dns_flag(p, profile, DNS_ANCESTORS_NODATA))
		return false;
	struct judge j = { .p = p, .profile = &p->profiles[profile] };
	uint64_t h = p->h->hash_seed;
	for (unsigned i = n->n_labels; i-- > 0;)
		h = hash_label(h, n->wire + n->off[i] + 1, n->wire[n->off[i]]);
	uint32_t lo = 0, hi = p->n_ancestors; /* the first that is not below h */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->ancestors[mid].hash < h)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < p->n_ancestors && p->ancestors[lo].hash == h; lo++)
		if (layer_rank(&j, p->ancestors[lo].layer) >= 0)
			return true;
	return false;
}

enum reason verdict_alias(const struct policy *p, uint32_t profile, const struct name *target,
			  const struct facts *f, uint32_t *rule, uint32_t *rec)
{
	const struct question q = { .layer = LAYER_DNS, .name = target };
	struct verdict v = { .action = ACTION_DENY };
	struct judge j = { .p = p, .q = &q, .f = f, .out = &v };
	j.now_s = f->now.wall_ns / 1000000000;
	if (profile < p->n_profiles)
		j.profile = &p->profiles[profile];
	judge_name(&j);
	*rule = v.rule;
	*rec = v.rec;
	if (v.reason == REASON_NEVER || v.reason == REASON_DENIED_ENTRY)
		return v.reason;
	*rule = *rec = UINT32_MAX;
	if (j.profile && zone_of(p, profile, target) == ZONE_FOREIGN)
		return REASON_DENIED_ENTRY;
	return REASON_ALLOWED;
}
