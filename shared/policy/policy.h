/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compiled policy, opened for reading. policy_open() copies the file into a sealed memfd,
 * verifies the copy, and maps it read-only: whatever happens to the file afterwards changes no
 * verdict.
 *
 * Lifetime: from policy_open() to policy_close(); immutable in between.
 * Threads: everything here may be called from any number of threads at once, without locks.
 * Allocation: policy_open() only. Errors: a closed enum; results are untouched on failure.
 */
#ifndef CX_POLICY_H
#define CX_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"

struct policy;

enum policy_err {
	POLICY_OK,
	POLICY_ERR_SYSTEM,    /* errno says why */
	POLICY_ERR_UNTRUSTED, /* not a regular file, wrong owner, or writable by others (or its
				 directory) */
	POLICY_ERR_EMPTY,
	POLICY_ERR_TRUNCATED,
	POLICY_ERR_MAGIC,
	POLICY_ERR_VERSION,
	POLICY_ERR_ENDIAN,
	POLICY_ERR_FEATURE, /* it demands what this program does not enforce */
	POLICY_ERR_DIGEST,
	POLICY_ERR_LAYOUT, /* an offset, count or order is wrong */
	POLICY_ERR_UNSIGNED,
	POLICY_ERR_SIGNATURE,
	POLICY_ERR_SERIAL, /* lower than the least accepted */
	POLICY_ERR_TOO_BIG,
	POLICY_ERR_AUDIENCE /* it is for other hosts */
};

const char *policy_strerror(enum policy_err e);

/* What the caller insists on. Zero-initialised: nothing but the checks that always hold. */
struct policy_trust {
	uint64_t features;         /* FEATURE_* that the caller enforces */
	uint64_t min_serial;       /* refuse less */
	const uint8_t *public_key; /* Ed25519, 32 octets: refuse what it did not sign; NULL: any */
	const char *audience;      /* what this host is, words with commas or spaces between: refuse
				      a policy that names an audience, and none of these; NULL: any */
	bool any_owner;            /* tools only: skip the owner and mode checks */
};

enum { POLICY_WHY_SIZE = 160, POLICY_KEY_SIZE = 32 };

/*
 * Reads an Ed25519 public key (PEM, RFC 8410) for struct policy_trust; the file must be as trustworthy
 * as a policy. False with one line in why (POLICY_WHY_SIZE, may be NULL), and key untouched.
 */
bool policy_key_read(const char *path, uint8_t key[POLICY_KEY_SIZE], char *why);

/*
 * Opens `path`. On failure *out is untouched and why (POLICY_WHY_SIZE octets, may be NULL) holds
 * one line with the detail: the section, the feature, the mode.
 */
enum policy_err policy_open(struct policy **out, const char *path, const struct policy_trust *trust,
			    char *why);
void policy_close(struct policy *p);

/* Facts about the file; strings live as long as the policy. */
struct policy_info {
	const char *revision;
	const char *presets_version;
	const char *audience; /* one a line, "": for every host */
	const char
		*digest; /* first 12 hex digits of the file digest: names it in logs and events */
	const uint8_t *file_digest;    /* 32 octets */
	const uint8_t *meaning_digest; /* 32 octets */
	uint64_t serial;
	uint64_t required;
	uint64_t n_names;
	uint64_t size;
};

void policy_info(const struct policy *p, struct policy_info *out);

/* One name record that matches a question: the name itself or an ancestor. */
struct policy_match {
	uint32_t set;  /* index into the rule sets */
	uint32_t rec;  /* where its record lies, for provenance */
	uint8_t depth; /* labels of the record's name */
	bool exact; /* it is the name itself: exact rules of the set apply; else the below rules */
};

enum { POLICY_MAX_MATCHES = NAME_MAX_LABELS };

/*
 * The records that match a name, deepest first; returns how many. An exact record of the name
 * itself comes before its ancestors. Records that hold no rule of the kind that applies are left
 * out.
 */
unsigned policy_find(const struct policy *p, const struct name *n,
		     struct policy_match out[POLICY_MAX_MATCHES]);

/* Whom a source address belongs to. */
enum source_kind { SOURCE_NONE, SOURCE_IGNORE, SOURCE_RESOLVER, SOURCE_PROFILE, SOURCE_BIND };

struct source {
	enum source_kind kind;
	uint32_t index; /* profile, or bind set */
};

struct source policy_source(const struct policy *p, const struct addr *a);

/* Does any source need a binding? */
bool policy_has_bindings(const struct policy *p);
/* The profile of that name, or UINT32_MAX. */
uint32_t policy_find_profile(const struct policy *p, const char *name);
/* May an address of this bind set (struct source) be bound to the profile? */
bool policy_may_bind(const struct policy *p, uint32_t bindset, uint32_t profile);

/* What bindings to a profile may add; all zero where the policy says nothing. */
struct task_limits {
	uint32_t entries;
	uint32_t max_ttl_s; /* 0: no limit */
};

struct task_limits policy_task_limits(const struct policy *p, uint32_t profile);

/* The profile `default`. */
uint32_t policy_default_profile(const struct policy *p);

/* X(NAME, "key"): what a limit counts, in the order of the file. */
#define LIMIT_KINDS(X)                                                                             \
	X(CONNECTIONS, "connections")                                                              \
	X(REQUESTS, "requests")                                                                    \
	X(CONCURRENT, "concurrent")                                                                \
	X(DNS, "dns")                                                                              \
	X(DNS_NAMES, "dns_names")                                                                  \
	X(DNS_OCTETS, "dns_octets")                                                                \
	X(BANDWIDTH, "bandwidth")                                                                  \
	X(UPLOAD, "upload")

enum limit_kind {
#define X(name, key) LIMIT_##name,
	LIMIT_KINDS(X)
#undef X
		LIMIT_KIND_COUNT
};

/* The key in the language; "" out of range. */
const char *limit_text(enum limit_kind k);

/* `amount` in a period, of which at most `burst` at once. */
struct rate {
	uint64_t amount; /* events or octets, below 2^62; 0: no limit, and all else is 0 */
	uint64_t burst;
	uint32_t period_s; /* 0: so many at a time */
};

/* What a subject of this profile may do, over all entries. */
struct rate policy_limit(const struct policy *p, uint32_t profile, enum limit_kind k);
/* What a subject may do by this rule; no limit where it has none of its own. */
struct rate policy_rule_limit(const struct policy *p, uint32_t rule, enum limit_kind k);

/* The profile's name, or "" for an index out of range. */
const char *policy_profile_name(const struct policy *p, uint32_t profile);
/* How long a refusal may be kept, in seconds. */
uint32_t policy_deny_ttl_s(const struct policy *p, uint32_t profile);

/* A corporate proxy, as struct verdict says. Strings live as long as the policy. */
struct proxy_info {
	const char *endpoint; /* canonical HOST:PORT, IPv6 in brackets */
	const char *auth;     /* the credential that it wants, "": none */
};

/* False if there is no such proxy, and *out is untouched. */
bool policy_upstream(const struct policy *p, uint32_t upstream, struct proxy_info *out);

/* Where a rule comes from. Strings live as long as the policy; "" where the policy says nothing. */
struct rule_info {
	char id[13]; /* 12 hex digits and NUL */
	bool preset;
	bool deny;
	uint32_t line, col;
	const char *file;
	const char *pattern;
	const char *layer; /* the profile or preset it stands in; "never" */
	const char *owner, *reason, *data, *if_unreachable, *environment, *added, *review_by,
		*labels, *out;
};

/*
 * Describes a rule; rec (of policy_match, or UINT32_MAX) sharpens file:line to the line of a list.
 * False if there is no such rule, and *out is untouched.
 */
bool policy_rule_info(const struct policy *p, uint32_t rule, uint32_t rec, struct rule_info *out);

/* Only the rule's id, as 12 hex digits and NUL; "" if there is no such rule. */
void policy_rule_id(const struct policy *p, uint32_t rule, char out[13]);

#endif
