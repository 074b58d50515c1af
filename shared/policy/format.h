/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.bin: the compiled policy as it lies in the file. Written by shared/compile, checked once
 * by check.c, read by policy.c; nobody else includes this.
 *
 * Little-endian throughout (a reader on another byte order refuses the file). The file is one
 * header, a section table, sections (each 8-byte aligned, in ascending id, no overlap, zero padding
 * between), and an optional signature block behind `content_size`. Only offsets and indices, no
 * pointers, so the file is mapped as it is. The same input gives the same bytes.
 *
 * Two SHA-256 digests: `file_digest` over bytes [0, content_size) with that field taken as zero;
 * `meaning_digest` over, for each section with FMT_MEANING in ascending id: id (u32), count (u32),
 * size (u64), bytes. Provenance and metadata are not meaning.
 *
 * Compatibility: a reader takes FMT_VERSION and the one before. A bit of `required` that the reader
 * does not enforce: refused. An unknown section without FMT_MUST: skipped.
 */
#ifndef CX_FORMAT_H
#define CX_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "policy.bin is read in place: little-endian machines only"
#endif

#define FMT_MAGIC "CXPOLICY" /* 8 octets, no NUL */

enum {
	FMT_VERSION = 1,
	FMT_ENDIAN = 0x01020304,
	FMT_MAX_SECTIONS = 64,
	FMT_NONE = 0xffffffff /* "no index" in every u32 index field */
};

struct fmt_header {
	char magic[8];
	uint32_t version;
	uint32_t endian;
	uint64_t content_size; /* all but the signature block */
	uint64_t required;     /* FEATURE_* of features.h that a reader must enforce */
	uint64_t serial;
	uint64_t hash_seed;
	uint64_t
		depths[2]; /* bit d: some entry has d labels; bit 0 unused (the root is no entry) */
	uint32_t n_sections;
	uint32_t default_profile; /* index into PROFILES */
	uint32_t unlisted;        /* SRC_* value of a source that no prefix holds: SRC_NONE */
	uint32_t reserved;
	uint8_t meaning_digest[32];
	uint8_t file_digest[32];
	uint8_t zero[112];
};

static_assert(offsetof(struct fmt_header, content_size) == 16, "header layout");
static_assert(offsetof(struct fmt_header, hash_seed) == 40, "header layout");
static_assert(offsetof(struct fmt_header, n_sections) == 64, "header layout");
static_assert(offsetof(struct fmt_header, meaning_digest) == 80, "header layout");
static_assert(offsetof(struct fmt_header, file_digest) == 112, "header layout");
static_assert(sizeof(struct fmt_header) == 256, "header size");

enum fmt_section_flag {
	FMT_MEANING = 1, /* part of the meaning digest */
	FMT_MUST = 2     /* a reader that does not know the id refuses the file */
};

struct fmt_section {
	uint32_t id;
	uint32_t flags;
	uint64_t off; /* from the start of the file */
	uint64_t size;
	uint32_t count; /* records, where the section is an array */
	uint32_t reserved;
};

static_assert(sizeof(struct fmt_section) == 32, "section table layout");

enum fmt_section_id {
	SEC_GATE = 1, /* u64[]: see policy lookup below */
	SEC_LINES,    /* struct fmt_line[], 64-byte aligned */
	SEC_BLOB,     /* name records */
	SEC_RULESETS, /* u32[]: n, then n pairs (layer, rule), sorted; referred to by index of n */
	SEC_RULES,    /* struct fmt_rule[] */
	SEC_PORTS,    /* u32[]: n, then n x (lo | hi << 16), sorted, disjoint; by index of n */
	SEC_HTTP,     /* bytes: http rules, see below; by offset */
	SEC_LAYERS,   /* struct fmt_layer[]; layer 0 is `never` */
	SEC_SEES,     /* struct fmt_sees[]: the layers of each profile, sorted by layer */
	SEC_PROFILES, /* struct fmt_profile[], sorted by name */
	SEC_QTYPES,   /* u16[]: n, then n types, sorted; by index of n */
	SEC_SRC4,     /* struct fmt_src4[]: first starts at 0, ascending */
	SEC_SRC4_TOP, /* u32[65537] or absent: [i] = range that holds i << 16; last: n - 1 */
	SEC_SRC6,     /* struct fmt_src6[]: first starts at ::, ascending */
	SEC_BINDSETS, /* u32[]: n, then n profile indices, sorted; by index of n */
	SEC_CIDRS,    /* struct fmt_cidr[], sorted by length (longest first), then address */
	SEC_OWNED,   /* struct fmt_prefix[]: `sources` prefixes, disjoint, IPv6 first, by address */
	SEC_STRINGS, /* NUL-terminated, offset 0 is "": profile and layer names */
	SEC_TERMS,   /* struct fmt_text[], sorted by (kind, index), or absent: see below */
	SEC_TERM_STRINGS, /* NUL-terminated, offset 0 is ""; there if SEC_TERMS is */
	SEC_TASKS,     /* struct fmt_task[], sorted by profile, or absent: what bindings may add */
	SEC_WITHIN,    /* u32[]: the layers that fmt_task refers to; absent with SEC_TASKS */
	SEC_DNS = 24,  /* struct fmt_dns[], sorted by profile, or absent: see below */
	SEC_RANGES,    /* struct fmt_prefix[]: private ranges that fmt_dns refers to, or absent */
	SEC_ZONES,     /* struct fmt_zone[], sorted by name (strcmp), or absent */
	SEC_ANCESTORS, /* struct fmt_ancestor[], sorted by (hash, layer), or absent */
	SEC_LIMITS,    /* struct fmt_limits[]: what profiles and rules refer to */
	SEC_RULE_LIMITS,    /* struct fmt_rule_limits[], sorted by rule, or absent */
	SEC_RULE_INFO = 32, /* struct fmt_rule_info[], parallel to RULES: provenance */
	SEC_NAME_INFO,      /* struct fmt_name_info[], sorted by (rec, rule): lines of lists */
	SEC_INFO_STRINGS, /* NUL-terminated, offset 0 is "": files, patterns, owners, reasons ... */
	SEC_INFO,         /* struct fmt_info: revision and so on */
	SEC_NOTES,        /* struct fmt_text[] with text in INFO_STRINGS, or absent: no meaning */
	SEC_PROXIES = 40, /* struct fmt_proxy[], sorted by profile, or absent */
	SEC_DIRECT        /* struct fmt_direct[]: what fmt_proxy refers to, or absent */
};

/*
 * Name lookup. hash(name) folds the labels from the root (hash.h). A name's record lies in line
 * scale(hash, n_lines), or in one of the `spill` following lines (cyclic). Within a line, tag[i] is
 * hash_tag(hash) and len[i] the length of the name; records lie in BLOB from `base` on, in order,
 * each 4 + len[i] bytes: u32 value, then the name in canonical wire form without root.
 * value = ruleset index | FMT_EXACT | FMT_BELOW: which kinds of rules the set holds.
 *
 * Gate: one u64 per slot, slot = scale(hash2, n), where hash2 is the hash of the last two labels;
 * all bits of gate_mask(hash2) set if an entry of two or more labels ends in these two. Absent: no
 * entry of two or more labels can match.
 */
enum {
	FMT_LINE_SLOTS = 19,
	FMT_MAX_SPILL = 16 /* lines; the writer picks another seed rather than spill further */
};

#define FMT_EXACT    0x80000000u
#define FMT_BELOW    0x40000000u
#define FMT_SET_MASK 0x3fffffffu

struct fmt_line {
	uint32_t base;
	uint8_t count;
	uint8_t spill;
	uint16_t tag[FMT_LINE_SLOTS];
	uint8_t len[FMT_LINE_SLOTS];
	uint8_t zero;
};

static_assert(sizeof(struct fmt_line) == 64, "a line is a cache line");

enum fmt_rule_flag {
	RULE_DENY = 1,
	RULE_EXACT = 2,    /* the name itself */
	RULE_BELOW = 4,    /* names below it */
	RULE_CIDR = 8,     /* in CIDRS, not in BLOB */
	RULE_PRIVATE = 16, /* may resolve to private addresses */
	RULE_UNSEEN = 32,  /* `unseen: allow`: http rules hold where the path can be seen only */
	RULE_PRESET = 64,  /* stands in a preset */
	RULE_LIMITED = 128 /* it has limits of its own: in RULE_LIMITS */
};

enum fmt_protocol { PROTO_HTTPS = 1, PROTO_HTTP = 2, PROTO_TCP = 4 };
enum fmt_upgrade { UPGRADE_WEBSOCKET = 1 };

struct fmt_rule {
	uint32_t layer;
	uint16_t flags;
	uint8_t protocols;
	uint8_t upgrades;
	uint32_t ports;  /* index into PORTS, FMT_NONE: 443 for https, 80 for http */
	uint32_t http;   /* offset into HTTP, FMT_NONE: any method and path */
	int64_t expires; /* seconds since 1970, 0: never; from then on the rule is not there */
	uint8_t id[6];
	uint8_t zero[2];
};

static_assert(sizeof(struct fmt_rule) == 32, "rule layout");

/*
 * HTTP at an offset, packed, no alignment: u16 n_rules (>= 1), then each rule: u16 n_methods (0:
 * any), u16 n_paths (0: any), methods (u8 length, octets), paths (u8 1 = prefix, u16 length, octets
 * without the trailing *). All little-endian.
 */

/* TASKS: a ceiling for bindings (`tasks.within`), which no profile sees. */
enum fmt_layer_kind { LAYER_KIND_NEVER, LAYER_KIND_PROFILE, LAYER_KIND_PRESET, LAYER_KIND_TASKS };

struct fmt_layer {
	uint32_t kind;
	uint32_t name;  /* offset into STRINGS */
	uint32_t https; /* PORTS: union over its allow entries of protocol https; FMT_NONE: none */
	uint32_t http;  /* likewise http */
};

struct fmt_sees {
	uint32_t layer;
	uint32_t rank; /* 0 = the profile's own layer, then in the order of extends, presets last */
};

enum fmt_profile_flag { PROFILE_OBSERVE = 1, PROFILE_ECH_ALLOW = 2 };

struct fmt_profile {
	uint32_t name; /* offset into STRINGS */
	uint32_t flags;
	uint32_t sees; /* index into SEES of the first of n_sees */
	uint32_t n_sees;
	uint32_t qtypes; /* index into QTYPES */
	uint32_t deny_ttl_s;
	uint32_t limits; /* index into LIMITS */
	uint32_t zero;
};

static_assert(sizeof(struct fmt_profile) == 32, "profile layout");

/* N in a period, of which `burst` at once; by enum limit_kind of policy.h. */
struct fmt_rate {
	uint64_t amount; /* 0: no limit, and all else is 0 */
	uint64_t burst;
	uint32_t period_s; /* 0: at a time */
	uint32_t zero;
};

enum { FMT_LIMIT_KINDS = 8, FMT_MAX_RATE_BITS = 62, FMT_MAX_PERIOD_S = 86400 };

struct fmt_limits {
	struct fmt_rate kind[FMT_LIMIT_KINDS];
};

static_assert(sizeof(struct fmt_limits) == 192, "limits layout");

struct fmt_rule_limits {
	uint32_t rule;
	uint32_t limits; /* index into LIMITS */
};

/* What a binding to the profile may add: names that an allow entry of these layers covers. */
struct fmt_task {
	uint32_t profile;
	uint32_t entries;   /* at most so many */
	uint32_t max_ttl_s; /* a binding lives no longer; 0: no limit */
	uint32_t within;    /* index into WITHIN of the first of n_within */
	uint32_t n_within;
	uint32_t zero;
};

static_assert(sizeof(struct fmt_task) == 24, "task layout");

/* What a profile says of DNS answers, where that is not the default. */
enum fmt_dns_flag {
	DNS_NO_AAAA = 1,         /* AAAA is NODATA, IPv6 hints are removed */
	DNS_ANCESTORS_NODATA = 2 /* names above listed ones are NODATA: see fmt_ancestor */
};

struct fmt_dns {
	uint32_t profile;
	uint32_t flags;
	uint32_t ranges; /* index into RANGES of the first of n_ranges */
	uint32_t n_ranges;
};

static_assert(sizeof(struct fmt_dns) == 16, "dns layout");

/* A zone that some profiles have resolvers for; the others must not be led into it. */
struct fmt_zone {
	uint32_t name;   /* offset into STRINGS: canonical text */
	uint32_t owners; /* index into BINDSETS: these profiles */
};

/* An allow entry of the layer stands below the name with this hash (hash.h, from hash_seed). */
struct fmt_ancestor {
	uint64_t hash;
	uint32_t layer;
	uint32_t zero;
};

static_assert(sizeof(struct fmt_ancestor) == 16, "ancestor layout");

enum fmt_proxy_flag { PROXY_BY_NAME = 1 /* the proxy is given names, and looks them up itself */ };

/* The corporate proxies of a profile. */
struct fmt_proxy {
	uint32_t profile;
	uint32_t http;   /* offset into STRINGS: canonical HOST:PORT, for HTTP; 0: none */
	uint32_t https;  /* for TLS and raw TCP */
	uint32_t auth;   /* offset into STRINGS: the credential, 0: none */
	uint32_t direct; /* index into DIRECT of the first of n_direct */
	uint32_t n_direct;
	uint32_t flags;
	uint32_t zero;
};

static_assert(sizeof(struct fmt_proxy) == 32, "proxy layout");

enum fmt_direct_kind { DIRECT_ALL, DIRECT_NAME, DIRECT_PREFIX };

/* What goes by no proxy (`no_proxy`). It says how, and never that something is permitted. */
struct fmt_direct {
	uint8_t addr[16]; /* PREFIX */
	uint32_t len;
	uint32_t name; /* NAME, and names below it: offset into STRINGS, canonical text */
	uint16_t port; /* 0: any */
	uint16_t kind;
	uint32_t zero;
};

static_assert(sizeof(struct fmt_direct) == 32, "direct layout");

/*
 * Behind content_size, outside the digest: Ed25519 (RFC 8032) over FMT_SIGN_CONTEXT, its NUL
 * included, and file_digest.
 */
#define FMT_SIGN_MAGIC   "CXSIGN01"
#define FMT_SIGN_CONTEXT "cx policy.bin"

struct fmt_signature {
	char magic[8];
	uint8_t sig[64];
};

static_assert(sizeof(struct fmt_signature) == 72, "signature layout");

/* A range of source addresses reaches to the next record's start. */
enum fmt_src {
	SRC_NONE = 0,              /* unknown-source */
	SRC_IGNORE = 1,            /* DNS unpoliced, the agent denies */
	SRC_RESOLVER = 2,          /* the gateway's own look-ups */
	SRC_PROFILE = 0x40000000,  /* | profile index: static */
	SRC_BIND = (int)0x80000000 /* | index into BINDSETS: decided at run time */
};
#define SRC_INDEX_MASK 0x3fffffffu
#define SRC_KIND_MASK  0xc0000000u

struct fmt_src4 {
	uint32_t start; /* host byte order */
	uint32_t value;
};

struct fmt_src6 {
	uint64_t start_hi; /* host byte order */
	uint64_t start_lo;
	uint32_t value;
	uint32_t zero;
};

struct fmt_cidr {
	uint8_t addr[16]; /* network order, IPv4 mapped */
	uint32_t len;     /* 0-128 */
	uint32_t set;     /* index into RULESETS */
};

struct fmt_prefix {
	uint8_t addr[16];
	uint32_t len;
	uint32_t zero;
};

/* Strings are offsets into INFO_STRINGS. */
struct fmt_rule_info {
	uint32_t file;
	uint32_t line;
	uint32_t col;
	uint32_t order; /* place among the entries of all files, in reading order */
	uint32_t
		pattern; /* as written: "*.example.com", "192.0.2.0/24", "list:lists/mirrors.txt" */
	uint32_t owner;
	uint32_t reason;
	uint32_t data;
	uint32_t if_unreachable;
	uint32_t environment;
	uint32_t added;
	uint32_t review_by;
	uint32_t labels; /* "key=value\n" each, sorted */
	uint32_t out;    /* presets: none | token | relay */
};

static_assert(sizeof(struct fmt_rule_info) == 56, "rule info layout");

/* A name that a list brought: where it stands. */
struct fmt_name_info {
	uint32_t rec; /* offset into BLOB */
	uint32_t rule;
	uint32_t file;
	uint32_t line;
};

/*
 * What no record above holds, as canonical YAML: keys and values of the policy language, one or more
 * whole lines, to be indented as they stand in a policy. TERMS are meaning, so that a change of a limit
 * is a change of the policy, but nothing to enforce: the constructs set bits of `required`. NOTES serve
 * who reads a policy back: the sources before they were flattened, what an entry lifts of lint.
 */
enum fmt_text_kind {
	TERM_POLICY = 1,    /* index 0: credentials, mesh */
	TERM_DOCUMENT,      /* index from 0: a further document (AuthorizationPolicy) */
	TERM_LIMITS,        /* index: the profile; its limits */
	TERM_DNS,           /* profile: what stands below `dns` and is in no record */
	TERM_RESOLVERS,     /* profile: one line each */
	TERM_PROXY,         /* profile */
	TERM_CREDENTIALS,   /* profile: which it may use */
	TERM_TASKS,         /* profile: what a binding may add */
	TERM_RULE_LIMITS,   /* rule */
	TERM_RULE_ADDITION, /* rule: it stands under allowlist_additions; text "" */
	NOTE_SOURCES = 33,  /* index 0 */
	NOTE_LIFTS          /* rule: codes of lint findings, a space before and behind each */
};

struct fmt_text {
	uint32_t kind;
	uint32_t index;
	uint32_t text;
	uint32_t zero;
};

static_assert(sizeof(struct fmt_text) == 16, "text layout");

struct fmt_info {
	uint32_t revision;
	uint32_t presets_version;
	uint32_t compiler; /* "cx-policyc 0.1.0" */
	uint32_t audience; /* one per line */
};

#endif
