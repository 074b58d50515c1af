/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks an opened policy everything that can be asked, for files that were damaged on purpose: whatever
 * such a file says, no look-up may crash, hang or read outside it. Tests only.
 */
#ifndef CX_EXERCISE_H
#define CX_EXERCISE_H

#include <string.h>

#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"

static inline void exercise_rule(const struct policy *p, uint32_t rule, uint32_t rec)
{
	struct rule_info r;
	char id[13];
	policy_rule_id(p, rule, id);
	if (policy_rule_info(p, rule, rec, &r))
		(void)(strlen(r.file) + strlen(r.pattern) + strlen(r.layer) + strlen(r.owner) +
		       strlen(r.reason) + strlen(r.labels) + strlen(r.out));
}

static inline void exercise_question(const struct policy *p, struct question *q,
				     const struct facts *f)
{
	struct verdict v;
	for (int layer = LAYER_DNS; layer <= LAYER_TCP; layer++) {
		q->layer = (enum layer)layer;
		q->has_dst = layer == LAYER_TCP;
		verdict(p, q, f, &v);
		exercise_rule(p, v.rule, v.rec);
		(void)strlen(policy_profile_name(p, v.profile));
		(void)policy_deny_ttl_s(p, v.profile);
	}
}

static inline void exercise_policy(const struct policy *p)
{
	static const char *const names[] = { "a.example.com",
					     "x.example.net",
					     "y.secret.example.net",
					     "z.prod.example.net",
					     "api.example.org",
					     "ws.example.org",
					     "in.example.org",
					     "old.example.org",
					     "b.example.com",
					     "nothing.test",
					     "com" };
	static const char *const sources[] = { "10.9.0.1", "10.9.1.1",       "10.9.2.1",
					       "10.8.0.1", "127.0.0.1",      "2001:db8:9::1",
					       "::",       "255.255.255.255" };
	static const char *const targets[] = { "198.51.100.1",  "198.51.100.200", "203.0.113.1",
					       "2001:db8:5::1", "10.0.0.1",       "127.0.0.1" };
	struct facts f = { .now = { .wall_ns = INT64_C(1795262400000000000) } };
	struct policy_info info;
	struct addr to[6];
	memset(to, 0, sizeof(to));
	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++)
		addr_from_text(&to[i], targets[i], strlen(targets[i]));
	policy_info(p, &info);
	(void)(strlen(info.revision) + strlen(info.presets_version));
	for (uint32_t i = 0; i < 40; i++)
		exercise_rule(p, i, UINT32_MAX);
	for (size_t s = 0; s < sizeof(sources) / sizeof(sources[0]); s++) {
		struct addr src;
		addr_from_text(&src, sources[s], strlen(sources[s]));
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			struct name n;
			name_from_text(&n, names[i], strlen(names[i]));
			struct question q = { .src = src,
					      .name = &n,
					      .qtype = 1,
					      .port = i % 2 ? 80 : 443,
					      .method = "GET",
					      .method_len = 3,
					      .path = "/v2/x",
					      .path_len = 5,
					      .dst = to[i % 6],
					      .resolved = i % 3 ? to : NULL,
					      .n_resolved = 6 };
			exercise_question(p, &q, &f);
		}
	}
}

#endif
