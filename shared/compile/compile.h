/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiler on one page: policy.yaml -> model -> policy.bin. Never linked into a plugin, never
 * writes anything before everything is known to be right.
 *
 * The stages, in order (compile_policy() runs the first three):
 *
 *   yaml.c     text -> a tree of nodes with positions; hostile YAML ends here
 *   model.c    tree -> struct model: keys, types, names, profiles resolved, lists and presets read
 *              (with entries.c names.c list.c presets.c profiles.c sources.c extras.c; keys.c
 *              values.c files.c serve them all, and build.h is what they share)
 *              (with entries.c names.c list.c presets.c profiles.c sources.c extras.c; keys.c values.c
 *              files.c serve them all, build.h is what they share)
 *   lint.c     the model as a whole: duplicates, shadowed entries, public suffixes, dates
 *   layout.c   model -> tables in the form of format.h
 *   write.c    tables -> the bytes of the file, with its digests
 *   file.c     bytes -> a file, replaced at once or not at all
 *
 * All findings of the first three go to one struct diags. The model is complete and consistent only
 * if there is no error among them; the later stages must not be run otherwise.
 *
 * Ownership: the model owns all that it points to, until model_free(). Strings are NUL-terminated
 * UTF-8 and "" where the policy says nothing, never NULL. Threads: one thread.
 */
#ifndef CX_COMPILE_H
#define CX_COMPILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"
#include "shared/compile/arena.h"
#include "shared/compile/diag.h"
#include "shared/policy/features.h"
#include "shared/policy/format.h"

enum {
	RULE_ID_SIZE = 6,
	MODEL_DEFAULT_DENY_TTL_S = 5,
	MODEL_MAX_YAML = 64 << 20,  /* octets of a YAML file */
	MODEL_MAX_LIST = 0x7fffffff /* octets of a list file */
};

/* ---- entries ------------------------------------------------------------------------------------
 */

enum entry_kind {
	ENTRY_EXACT, /* the name itself */
	ENTRY_BELOW, /* names below it, by one label or more, not itself */
	ENTRY_CIDR,  /* addresses */
	ENTRY_LIST   /* the names and wildcards of a file: together one rule */
};

struct port_range {
	uint16_t lo, hi; /* both included, 1-65535, lo <= hi */
};

/* A string that begins (prefix) or equals what it is compared with. */
struct path_rule {
	const char *text; /* without the trailing * */
	uint16_t len;
	bool prefix;
};

struct http_rule {
	uint32_t n_methods; /* 0: any */
	uint32_t n_paths;   /* 0: any */
	const char *const
		*methods; /* sorted, no duplicates, each 1-32 octets of token characters */
	const struct path_rule *paths; /* sorted by text then prefix, no duplicates */
};

/* N per period, in events or octets; period_s 0: at a time. */
struct limit {
	bool set;
	uint64_t amount;
	uint64_t burst;
	uint32_t period_s;
};

/* X(field, "key", octets instead of events, what the default of a source is or NULL) */
#define LIMITS(X)                                                                                  \
	X(connections, "connections", false, "50/s burst 100")                                     \
	X(requests, "requests", false, "1200/min")                                                 \
	X(concurrent, "concurrent", false, "256")                                                  \
	X(dns, "dns", false, "100/s")                                                              \
	X(dns_names, "dns_names", false, "60/min")                                                 \
	X(dns_octets, "dns_octets", true, "4KiB/min")                                              \
	X(bandwidth, "bandwidth", true, "50MiB/s")                                                 \
	X(upload, "upload", true, NULL)

struct limits {
#define X(field, key, octets, dflt) struct limit field;
	LIMITS(X)
#undef X
};

/*
 * What an entry permits and what is written beside it. Entries without keys of their own share one.
 */
struct terms {
	uint8_t protocols; /* enum fmt_protocol; never 0 in an allow entry, 0 in a deny entry */
	uint8_t upgrades;  /* enum fmt_upgrade */
	bool private_ok;
	bool unseen;      /* http rules also where the path cannot be seen */
	bool addition;    /* of allowlist_additions: resolves through custom_resolvers */
	uint32_t n_ports; /* 0: 443 for https, 80 for http */
	uint32_t n_http;  /* 0: any method and path */
	const struct port_range *ports; /* sorted, disjoint, not adjacent */
	const struct http_rule *http;   /* in the order written, or canonical: see rule_id() */
	int64_t expires;                /* seconds since 1970, 0: never */
	const struct limits *limits;    /* NULL: none */
	/* provenance */
	const char *owner, *reason, *data, *if_unreachable, *environment;
	const char *added, *review_by; /* YYYY-MM-DD as written */
	const char *labels;            /* "key=value\n" each, sorted */
	const char *out;               /* presets: none | token | relay */
	const char *lint_allow;        /* codes, each behind a space and followed by one; "" */
};

/*
 * The names of a list file, flat: n records, each u8 below (1: names below it, 0: the name itself),
 * u8 length, then the name in canonical wire form without the root label, in the order of the file.
 * A name may come twice; the first line counts. ARENA_SLACK octets behind the last are readable.
 */
struct name_list {
	const char *path; /* as written in the policy */
	uint32_t file;    /* for struct pos and m->files */
	size_t n;
	const uint8_t *bytes;
	size_t n_bytes;
	const uint32_t *lines; /* [n], from 1 */
};

struct entry {
	struct pos pos;
	uint32_t layer; /* index into m->layers */
	uint32_t order; /* place among all entries, in reading order; unique. The order of the array
			 */
	uint8_t kind;   /* enum entry_kind */
	bool deny;
	bool preset;
	uint8_t id[RULE_ID_SIZE]; /* of the rule, see rule_id() */
	uint8_t wire_len;         /* ENTRY_EXACT, ENTRY_BELOW */
	union {
		const uint8_t
			*wire; /* canonical, without root label; slack octets readable behind */
		const struct prefix *prefix;
		const struct name_list *list;
	};
	const char *
		pattern; /* as written: "*.example.com", "192.0.2.0/24", "list:lists/mirrors.txt" */
	const struct terms *terms;
};

/* ---- layers, profiles, sources ------------------------------------------------------------------
 */

/* A set of entries that profiles see as a whole. Layer 0 is `never` (always there, often empty). */
struct rule_layer {
	enum fmt_layer_kind kind;
	const char *name; /* "never", the profile's name, or "preset:NAME" */
};

/* Where names below a zone are asked for. */
struct resolver {
	struct pos pos;
	const char *name; /* "" for custom_resolvers */
	uint32_t n_servers, n_zones;
	const char *const *servers; /* ADDR or ADDR@PORT, canonical */
	const char *const *zones;   /* canonical text */
};

/* What goes by no proxy: the terms of no_proxy. */
struct direct {
	enum fmt_direct_kind kind;
	struct prefix prefix;
	const char *name; /* canonical text; it and what is below */
	uint16_t port;    /* 0: any */
};

struct proxy {
	const char *http, *https, *no_proxy, *auth;
	uint32_t n_direct;
	const struct direct *direct; /* no_proxy, read */
	bool by_name;                /* resolve: upstream */
};

struct profile {
	struct pos pos;
	const char *name; /* "default" is `network` */
	uint32_t layer;   /* its own */
	uint32_t n_sees;
	const uint32_t
		*sees; /* layers: own first, then those of extends depth-first, presets last */
	bool observe;
	bool ech_allow;
	bool aaaa; /* false: AAAA is NODATA */
	bool ancestors_nodata;
	uint32_t deny_ttl_s;
	uint32_t n_qtypes;
	const uint16_t *qtypes; /* sorted, no duplicates */
	struct limits limits;   /* all set but upload */
	uint32_t n_resolvers;
	const struct resolver *resolvers;
	struct proxy proxy;
	uint32_t n_private_ranges;
	const struct prefix *private_ranges;
	uint32_t n_credentials;
	const char *const *credentials;
	/* what a binding may add */
	uint32_t tasks_entries, tasks_max_ttl_s, n_tasks_within, n_tasks_layers;
	const char *const *tasks_within; /* as written */
	const uint32_t *tasks_layers;    /* the same as layers */
};

/* Whom addresses of a prefix belong to. Longest prefix wins; no prefix stands here twice. */
struct client {
	struct pos pos;
	struct prefix prefix;
	enum source_to { TO_PROFILE, TO_BIND, TO_IGNORE, TO_RESOLVER } to;
	bool owned;       /* a `sources` prefix and not /0: never a destination */
	uint32_t profile; /* TO_PROFILE: index into m->profiles */
	uint32_t
		n_bind; /* TO_BIND: indices into m->profiles, sorted, no duplicates, at least one */
	const uint32_t *bind;
	const char *lift; /* codes that it lifts, as struct terms.lint_allow */
};

/* ---- kept for the parts that enforce them -------------------------------------------------------
 */

struct credential {
	struct pos pos;
	const char *name, *source, *scope, *header;
	const char *lift; /* codes that it lifts, as struct terms.lint_allow */
	bool read_only;
	bool unseen; /* read-only although requests to its hosts cannot be seen */
	uint32_t n_hosts;
	const char *const *hosts; /* canonical text */
	struct limits limits;
};

struct mesh_service {
	struct pos pos;
	const char *name, *host, *principal, *labels;
	uint16_t port;
};

/* One rule of an AuthorizationPolicy, as far as it can be expressed. Strings: exact, x*, *x, *. */
struct authz_rule {
	uint32_t n_methods, n_paths, n_principals;
	const char *const *methods, *const *paths, *const *principals;
};

struct authz {
	struct pos pos;
	const char *name;
	const char *match_labels; /* "key=value\n" each, sorted */
	bool deny;
	uint32_t n_rules;
	const struct authz_rule *rules;
};

/* One expectation of `tests`. */
struct policy_test {
	struct pos pos;
	const char *name;
	const char *profile; /* "" if by source */
	struct addr source;
	const char *target;
	const char *reason; /* of a deny: a reason, or "any"; "" for an allow */
	bool allow;
};

/* ---- the model ----------------------------------------------------------------------------------
 */

struct model {
	struct arena arena;
	struct diags *diags; /* borrowed; layout and write report "too large" here */

	uint32_t n_files; /* files by struct pos.file; presets stand as "preset:NAME" */
	const char *const *files;

	uint32_t n_entries;
	const struct entry *entries; /* by order */
	uint32_t n_layers;
	const struct rule_layer *layers;
	uint32_t n_profiles;
	const struct profile *profiles; /* sorted by name (strcmp) */
	uint32_t default_profile;
	uint32_t n_clients;
	const struct client *clients; /* sorted by prefix: address, then length */

	uint32_t n_credentials;
	const struct credential *credentials; /* sorted by name */
	uint32_t n_services;
	const struct mesh_service *services;
	uint32_t n_authz;
	const struct authz *authz;
	uint32_t n_tests;
	const struct policy_test *tests;

	const char *revision;
	const char *presets_version;
	uint64_t serial; /* 0: none */
	uint32_t n_audience;
	const char *const *audience;

	const void *owned; /* private: memory outside the arena */

	uint64_t features;         /* FEATURE(x) of every construct that is used */
	struct pos feature_at[64]; /* where it stands first */
};

struct compile_options {
	int64_t now_s;         /* the clock for dates, seconds since 1970 */
	bool allow_unenforced; /* leave out the bits of what is not enforced: required_features() */
};

/*
 * Reads and checks a policy of n >= 1 files; below the directory of the first, the main one, stand
 * lists and includes. Always returns a model, to be freed, unless one of these files cannot be read:
 * then NULL, and errno and a diagnostic say why. See diags_errors(d) before going on.
 */
struct model *compile_policy(const char *const *paths, size_t n, const struct compile_options *o,
			     struct diags *d);
void model_free(struct model *m);

/* The features that a reader of the policy must enforce. */
uint64_t required_features(const struct model *m, const struct compile_options *o);

/*
 * The bytes of policy.bin, malloc'd and the caller's; the same model gives the same bytes. 0, or -1
 * with a diagnostic (no memory, too large) and *bytes and *len untouched. Deterministic.
 */
int layout_and_write(const struct model *m, uint64_t required, uint8_t **bytes, size_t *len);

/*
 * Replaces the file at once: a temporary file beside it, fsync, rename, fsync of the directory.
 * Mode 0644 less umask. 0, or -1 with errno and the old file untouched; err (err_size octets) says
 * what failed.
 */
int compile_write_file(const char *path, const uint8_t *bytes, size_t len, char *err,
		       size_t err_size);

/*
 * The rule's id: the first 6 octets of SHA-256 over its canonical text, which cx-policy.yaml(5)
 * defines. The same after reordering the policy or recompiling it.
 */
void rule_id(const struct model *m, const struct entry *e, uint8_t id[RULE_ID_SIZE]);

/* ---- presets ------------------------------------------------------------------------------------
 */

extern const char presets_version[];

/* What lint knows about single hosts, as hosts/known.txt has it. */
extern const char known_hosts_text[];

/* The presets by number from 0, sorted by name; NULL behind the last. */
struct preset_info {
	const char *name;
	const char *text;
};
const struct preset_info *preset_at(size_t i);

/*
 * Prints the hosts of a preset, one a line: the host, what it lets out (none, token, relay) and why it
 * is there, with tabs between. False if there is no such preset, and nothing is printed.
 */
bool preset_print(const char *name, FILE *to, struct diags *d);

/* YYYY-MM-DD or (with_clock) YYYY-MM-DDTHH:MM:SSZ as seconds since 1970; false if it is neither. */
bool time_from_text(const char *s, size_t n, bool with_clock, int64_t *out);

#endif
