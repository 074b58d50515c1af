/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a policy may demand of the plugins that enforce it: one bit each in the header of
 * policy.bin. The compiler sets the bit of every construct that a policy uses; a plugin refuses a
 * file with a bit that it does not enforce, and keeps the policy it has.
 *
 * X(bit, NAME, "the construct, as a diagnostic names it")
 */
#ifndef CX_FEATURES_H
#define CX_FEATURES_H

#include <stdint.h>

#define FEATURES(X)                                                                                \
	X(0, LIMITS, "limits")                                                                     \
	X(1, CREDENTIALS, "credentials")                                                           \
	X(2, MESH, "mesh")                                                                         \
	X(3, PROXY, "proxy")                                                                       \
	X(4, HTTP_RULES, "http")                                                                   \
	X(5, BINDINGS, "bind")                                                                     \
	X(6, RESOLVERS, "resolvers")                                                               \
	X(7, OBSERVE, "mode: observe")                                                             \
	X(8, PRIVATE_RANGES, "dns.private_ranges")                                                 \
	X(9, ANCESTORS, "dns.ancestors: nodata")                                                   \
	X(10, AAAA, "dns.aaaa: false")                                                             \
	X(11, UPGRADE, "upgrade")                                                                  \
	X(12, PINS, "protocols: [tcp] for a name")                                                 \
	X(13, TASKS, "tasks")                                                                      \
	X(14, AUTHORIZATION, "AuthorizationPolicy")                                                \
	X(15, IGNORE, "unlisted_sources: ignore")                                                  \
	X(16, AUDIENCE, "audience")                                                                \
	X(17, ECH_ALLOW, "tls.ech: allow")                                                         \
	X(18, TRAFFIC, "limits.upload, or concurrent or bandwidth of an entry")

enum feature {
#define X(bit, name, text) FEATURE_BIT_##name = bit,
	FEATURES(X)
#undef X
};

#define FEATURE(name) (UINT64_C(1) << FEATURE_BIT_##name)

/* What the module and the agent of this version both enforce. */
#define FEATURES_ENFORCED                                                                          \
	(FEATURE(LIMITS) | FEATURE(HTTP_RULES) | FEATURE(IGNORE) | FEATURE(ECH_ALLOW) |            \
	 FEATURE(AUDIENCE) | FEATURE(BINDINGS) | FEATURE(TASKS) | FEATURE(PRIVATE_RANGES) |        \
	 FEATURE(ANCESTORS) | FEATURE(AAAA) | FEATURE(RESOLVERS) | FEATURE(PINS) | FEATURE(PROXY))

/* The construct behind a bit, or "unknown". */
const char *feature_text(unsigned bit);

#endif
