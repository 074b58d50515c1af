/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE decision. verdict() is pure: (policy, question, facts) -> verdict. The module, cx-dns, the
 * agent, `cxctl explain` and the tests call this and nothing else decides.
 *
 * What it means is written in cx-policy.yaml(5). No allocation, no clock, no I/O; any thread.
 */
#ifndef CX_VERDICT_H
#define CX_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"
#include "shared/base/now.h"
#include "shared/policy/policy.h"

/* Why. Exactly one per verdict: the first of this list that holds. X(NAME, "text") */
#define REASONS(X)                                                                                 \
	X(NO_POLICY, "no-policy")                                                                  \
	X(UNKNOWN_SOURCE, "unknown-source")                                                        \
	X(NO_BINDING, "no-binding")                                                                \
	X(STALE_BINDING, "stale-binding")                                                          \
	X(NO_PROFILE, "no-profile")                                                                \
	X(MALFORMED, "malformed")                                                                  \
	X(IP_LITERAL, "ip-literal")                                                                \
	X(BAD_NAME, "bad-name")                                                                    \
	X(NO_SNI, "no-sni")                                                                        \
	X(ECH, "ech")                                                                              \
	X(NAME_MISMATCH, "name-mismatch")                                                          \
	X(NEVER, "never")                                                                          \
	X(DENIED_ENTRY, "denied-entry")                                                            \
	X(NOT_LISTED, "not-listed")                                                                \
	X(EXPIRED, "expired")                                                                      \
	X(PROTOCOL, "protocol")                                                                    \
	X(PORT, "port")                                                                            \
	X(METHOD, "method")                                                                        \
	X(PATH, "path")                                                                            \
	X(PRINCIPAL, "principal")                                                                  \
	X(QUERY_TYPE, "query-type")                                                                \
	X(ADDRESS, "address")                                                                      \
	X(PRIVATE_ADDRESS, "private-address")                                                      \
	X(UNRESOLVED, "unresolved")                                                                \
	X(UPSTREAM, "upstream")                                                                    \
	X(RATE_LIMIT, "rate-limit")                                                                \
	X(CREDENTIAL, "credential")                                                                \
	X(INTERNAL_ERROR, "internal-error")                                                        \
	X(ALLOWED, "allowed")

enum reason {
#define X(name, text) REASON_##name,
	REASONS(X)
#undef X
		REASON_COUNT
};

const char *reason_text(enum reason r);

enum layer { LAYER_DNS, LAYER_TLS, LAYER_HTTP, LAYER_CONNECT, LAYER_TCP };

const char *layer_text(enum layer l);

/* What a parser found wrong, judged at its place in the order of reasons. */
enum question_flaw {
	FLAW_NONE,
	FLAW_MALFORMED,
	FLAW_IP_LITERAL,
	FLAW_BAD_NAME,
	FLAW_NO_SNI,
	FLAW_NAME_MISMATCH,
	FLAW_INTERNAL /* an argument is missing, no memory ...: internal-error, whatever else holds
		       */
};

/*
 * One question. By layer:
 *   DNS      name, qtype (qclass is IN, else flaw MALFORMED)
 *   TLS      name (SNI), port, ech; resolved
 *   HTTP     name (Host), port, method, path, upgrade; resolved
 *   CONNECT  name and port, or (has_dst) dst and port
 *   TCP      dst and port; facts.pinned. Or name and port, what a CONNECT to a name carries raw;
 *            resolved
 * Pointers are borrowed for the call.
 */
struct question {
	enum layer layer;
	enum question_flaw flaw;
	struct addr src;
	const struct name *name; /* NULL: none */
	uint16_t qtype;
	uint16_t port;
	bool has_dst;
	struct addr dst; /* where the client wanted to go: never where it is sent */
	bool ech;        /* the hello carries an ECH extension */
	const char *method;
	size_t method_len;
	const char *path; /* as sent, with query */
	size_t path_len;
	/*
	 * The generation that an earlier verdict on the same connection was given for, where the
	 * host carries it along: another one by now is a deny.
	 */
	bool has_generation;
	uint64_t generation;
	bool opens;          /* HTTP: the first request of its connection */
	bool paid;           /* TLS, TCP: inside a CONNECT that was charged as the connection */
	const char *upgrade; /* the Upgrade field, "" or NULL: none */
	size_t upgrade_len;
	/*
	 * The addresses that the name resolved to, of which the verdict picks the first that may be
	 * used. NULL: not looked up yet, the verdict is about the name alone. Zero of them:
	 * unresolved.
	 */
	const struct addr *resolved;
	unsigned n_resolved;
	/* Where aliases led on the way there: names in wire form with root, one behind another. */
	const uint8_t *aliases[2];
	size_t aliases_len[2];
};

/* The addresses of the gateway itself, sorted (addr_cmp). */
struct addr_set {
	const struct addr *v;
	size_t n;
};

/*
 * Whom the source address belongs to for now (shared/live/bind.h). The profile is a name, resolved in
 * the policy that judges. Pointers are borrowed for the call.
 */
struct binding {
	uint64_t generation; /* never 0 */
	const char *profile;
	const uint8_t *overlay; /* entries in the form of overlay.h */
	size_t overlay_len;
};

/* What the decision depends on besides policy and question. */
struct facts {
	struct now now;
	struct addr_set locals;
	const struct binding *binding; /* of the source, in force now; NULL: none */
	/* TCP: the names that DNS told this very source, and that the destination is pinned to */
	const struct name *pinned;
	unsigned n_pinned;
};

/* Rules with limits of their own that count for one verdict; more are not charged. */
enum { VERDICT_MAX_LIMITED = 8 };

enum action { ACTION_DENY, ACTION_ALLOW, ACTION_NEXT };
enum next { NEXT_NONE, NEXT_TLS, NEXT_HTTP, NEXT_RAW };

const char *next_text(enum next n); /* "", "tls", "http", "raw" */

struct verdict {
	enum action action;
	enum reason reason;
	enum next next;   /* CONNECT and TCP: what to expect on this port */
	bool observed;    /* passed only because the profile observes; reason says what was wrong */
	bool unpoliced;   /* DNS from a source that the policy ignores */
	bool added;       /* the binding itself lists the name, the profile does not */
	bool any_profile; /* the gateway's own look-up: names of any profile */
	uint32_t profile; /* UINT32_MAX: none */
	uint32_t rule;    /* the rule that decided, UINT32_MAX: none */
	uint32_t rec;     /* for policy_rule_info() */
	bool lifted;      /* what permitted it lets the name resolve to private addresses */
	unsigned addr;    /* index into resolved[], where that was given and action is ALLOW */
	/*
	 * What is to be charged beside the source's own limits: all rules with limits that permit it,
	 * and the wildcard that listed the name, as the labels at its end that it is written on; 0:
	 * none, it is listed itself.
	 */
	uint8_t below;
	uint8_t n_limited;
	uint32_t limited[VERDICT_MAX_LIMITED];
	/*
	 * TLS, HTTP and TCP that is allowed: the proxy to go by (policy_upstream()), UINT32_MAX:
	 * directly. by_name: the proxy is given the name and no address is needed here.
	 */
	uint32_t upstream;
	bool by_name;
};

/* p may be NULL: no-policy. */
void verdict(const struct policy *p, const struct question *q, const struct facts *f,
	     struct verdict *out);

/* The same for one who was placed in a profile by the caller: q->src is not looked at. */
void verdict_in(const struct policy *p, uint32_t profile, const struct question *q,
		const struct facts *f, struct verdict *out);

/*
 * May a connection go to this address? ALLOWED, ADDRESS or PRIVATE_ADDRESS. The one function for
 * never-destinations: fixed ranges and IPv4 embedded in IPv6, the gateway's own addresses,
 * `sources` prefixes, cidrs under `never` or denied for this profile. `lifted`: private space is
 * permitted.
 */
enum reason verdict_address(const struct policy *p, uint32_t profile, const struct addr *a,
			    bool lifted, const struct facts *f);

struct overlay_entry;

/* Does the ceiling of the profile (`tasks.within`) cover what a binding wants to add? */
bool verdict_may_add(const struct policy *p, uint32_t profile, const struct overlay_entry *e,
		     const struct now *now);

/*
 * May the answer to a name that the profile may ask for go on to, or stand at, `target` (CNAME, DNAME,
 * SVCB)? It need not be listed. ALLOWED, or NEVER or DENIED_ENTRY: it is under `never`, the profile
 * denies it, or it is in a zone with resolvers of other profiles only. profile UINT32_MAX (the
 * gateway's own look-ups): `never` alone counts. *rule and *rec, where a rule decided, else
 * UINT32_MAX.
 */
enum reason verdict_alias(const struct policy *p, uint32_t profile, const struct name *target,
			  const struct facts *f, uint32_t *rule, uint32_t *rec);

/* Is what the policy does not list passed, and only noted? */
bool verdict_observes(const struct policy *p, uint32_t profile);
/* Is AAAA not answered for this profile? */
bool verdict_no_aaaa(const struct policy *p, uint32_t profile);
/* May ECH parameters be handed out? */
bool verdict_ech(const struct policy *p, uint32_t profile);
/*
 * Must a refusal of this name leave open that there are names below it (dns.ancestors: nodata), and
 * does the profile list one there?
 */
bool verdict_is_ancestor(const struct policy *p, uint32_t profile, const struct name *n);

#endif
