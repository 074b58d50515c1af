/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the compiler criticises in a policy that it could compile: one table of codes, and what the
 * checks share. Private to shared/compile.
 *
 * A finding that LIFTED allows can be lifted by `lint: {allow: [code], why: ...}` where it stands: on
 * the entry, the profile, the credential or the source. Each code has a pair under tests/golden and an
 * example in cx-policy.yaml(5). Codes are stable: scripts rely on them.
 *
 * Threads: one thread.
 */
#ifndef CX_LINT_H
#define CX_LINT_H

#include "shared/compile/build.h"

/* X(NAME, "code", severity, may it be lifted?); a code that begins with "date-" is never an error */
#define LINTS(X)                                                                                   \
	X(BROAD_WILDCARD, "broad-wildcard", DIAG_WARNING, true)                                    \
	X(COMPANION_MISSING, "companion-missing", DIAG_WARNING, true)                              \
	X(DATE_EXPIRED, "date-expired", DIAG_WARNING, true)                                        \
	X(DATE_REVIEW, "date-review", DIAG_WARNING, true)                                          \
	X(DATES_REVERSED, "dates-reversed", DIAG_WARNING, true)                                    \
	X(DEAD_LIMIT, "dead-limit", DIAG_WARNING, true)                                            \
	X(DENY_LIFTED, "deny-lifted", DIAG_ERROR, true)                                            \
	X(DUPLICATE, "duplicate", DIAG_WARNING, true)                                              \
	X(ECH_NAME, "ech-name", DIAG_WARNING, true)                                                \
	X(EMPTY_LIST, "empty-list", DIAG_WARNING, true)                                            \
	X(ENVIRONMENT, "environment", DIAG_ERROR, false)                                           \
	X(MISSING_OWNER, "missing-owner", DIAG_WARNING, true)                                      \
	X(MISSING_REASON, "missing-reason", DIAG_WARNING, true)                                    \
	X(NARROWER, "narrower", DIAG_WARNING, true)                                                \
	X(NEVER_DESTINATION, "never-destination", DIAG_WARNING, true)                              \
	X(OPEN_RESOLVER, "open-resolver", DIAG_WARNING, true)                                      \
	X(OPEN_SOURCES, "open-sources", DIAG_WARNING, false)                                       \
	X(OPEN_STORE, "open-store", DIAG_WARNING, true)                                            \
	X(OVERLAPPING_SOURCES, "overlapping-sources", DIAG_WARNING, true)                          \
	X(PRIVATE_SUFFIX, "private-suffix", DIAG_ERROR, true)                                      \
	X(PUBLIC_SUFFIX, "public-suffix", DIAG_ERROR, false)                                       \
	X(REDUNDANT, "redundant", DIAG_WARNING, true)                                              \
	X(RESOLVER, "resolver", DIAG_ERROR, false)                                                 \
	X(SELECTS_NOTHING, "selects-nothing", DIAG_WARNING, false)                                 \
	X(SHADOWED, "shadowed", DIAG_WARNING, true)                                                \
	X(UNKNOWN_SUFFIX, "unknown-suffix", DIAG_ERROR, true)                                      \
	X(UNREACHABLE, "unreachable", DIAG_WARNING, true)                                          \
	X(UNREACHABLE_PROFILE, "unreachable-profile", DIAG_WARNING, true)                          \
	X(UNUSED_CREDENTIAL, "unused-credential", DIAG_WARNING, true)                              \
	X(UNUSED_RESOLVER, "unused-resolver", DIAG_WARNING, true)                                  \
	X(WILDCARD_TCP, "wildcard-tcp", DIAG_WARNING, true)

enum lint_code {
#define X(name, code, severity, lifts) LINT_##name,
	LINTS(X)
#undef X
		N_LINTS
};

const char *lint_code_text(enum lint_code c);

/* The codes that can be lifted, in the order of the table; NULL behind the last. */
const char *lint_liftable(size_t i);

/*
 * Reports a finding, unless `lift` (what stands in `lint.allow`: each code behind a space and followed
 * by one, "" for none) lifts it. True if it was reported.
 */
bool lint_say(struct build *b, struct pos at, enum lint_code c, const char *lift, const char *fmt,
	      ...) __attribute__((format(printf, 5, 6)));

/*
 * The same for what a policy may have thousands of: after MAX_ALIKE of a code one line says that there
 * are more, and the rest is not shown.
 */
enum { MAX_ALIKE = 20 };
bool lint_say_some(struct build *b, struct pos at, enum lint_code c, const char *lift,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* ---- entries by what they are about (lint.c) ---------------------------------------------------- */

struct lookup {
	const struct build *b;
	uint32_t *slots; /* entry plus one; 0: free */
	uint32_t *next;  /* by entry: another one with the same subject, plus one */
	size_t mask;
	size_t n_below; /* wildcards that allow */
	size_t n_denies;
	size_t n_never;
	size_t n_lists;
};

/* The first entry of a layer about wire[0..n), of a kind of names; the others follow by next[]. */
const struct entry *entry_about(const struct lookup *l, uint32_t layer, enum entry_kind kind,
				const uint8_t *wire, size_t n);

/* The nearest wildcard of the layer above a name (not at it) that denies or not; NULL: none. */
const struct entry *wildcard_above(const struct lookup *l, uint32_t layer, const uint8_t *wire,
				   size_t n, bool deny);

/* ---- hosts that lint knows (lint_hosts.c) ------------------------------------------------------- */

/* Warns of a wildcard right below a service that many share. */
void check_shared(struct build *b, struct pos at, const uint8_t *wire, size_t n, const char *lift);

/* Warns of an allow entry, or of the names of its list, that list a known host. */
void check_hosts(struct build *b, const struct lookup *l, const struct entry *e);

/* Hosts of presets that an entry lists without those that belong to them. */
void check_companions(struct build *b, const struct lookup *l);

/* ---- credentials (lint_credentials.c) ----------------------------------------------------------- */

void check_credentials(struct build *b, const struct lookup *l);

/* ---- the policy as a whole (lint_policy.c) ------------------------------------------------------ */

void check_environments(struct build *b);
void check_zones(struct build *b);
void check_used_zones(struct build *b);
void check_reachable(struct build *b);
void check_overlaps(struct build *b);
void check_limits(struct build *b);
void check_provenance(struct build *b);

#endif
