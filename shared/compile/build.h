/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the model stage share: the policy while it is being read, the reading of mappings
 * by tables of keys, and the readers of single values. Private to shared/compile.
 *
 * Each reader reports what it finds wrong and leaves its result as it was; reading goes on, so that one
 * run shows all errors. Threads: one thread.
 */
#ifndef CX_BUILD_H
#define CX_BUILD_H

#include <libpsl.h>
#include <sys/types.h>

#include "shared/compile/compile.h"
#include "shared/compile/yaml.h"

struct draft; /* draft.h */

/* What a policy lists as words. */
struct texts {
	const char *const *v;
	uint32_t n;
};

/* ---- one run ------------------------------------------------------------------------------------ */

struct input {
	uint32_t file;
	const struct node *docs;
	const struct node *policy; /* the one among docs that is a policy */
	const char *const *may;    /* patterns of what it may set; NULL: anything */
	uint32_t n_may;
	bool main;
};

/* A YAML file that is part of the policy. */
struct seen_file {
	dev_t dev;
	ino_t ino;
	const char *shown;
};

struct build {
	struct model *m;
	struct arena *a;
	struct diags *d;
	const struct compile_options *o;
	const psl_ctx_t *psl;
	const char *dir;      /* the main file's directory, resolved */
	const char *dir_text; /* as it was written, with a slash behind, or "" */

	const char **files; /* by struct pos.file */
	size_t n_files, cap_files;
	struct input *inputs;
	size_t n_inputs, cap_inputs;
	struct seen_file *seen;
	size_t n_seen, cap_seen;

	struct entry *entries;
	size_t n_entries, cap_entries;
	struct draft *drafts; /* sorted by name */
	size_t n_drafts;
	struct client *clients;
	size_t n_clients, cap_clients;
	struct credential *credentials;
	size_t n_credentials, cap_credentials;
	struct mesh_service *services;
	size_t n_services, cap_services;
	struct authz *authz;
	size_t n_authz, cap_authz;
	struct policy_test *tests;
	size_t n_tests, cap_tests;

	bool *preset_used; /* by number of preset_at() */
	uint32_t *preset_rank;
	uint32_t n_preset_layers, n_task_layers;
	struct terms plain_allow, plain_deny;
	const struct known_hosts *known; /* lint_hosts.c; NULL until it is asked for */
	unsigned *alike; /* by enum lint_code: how many were said by lint_say_some() */
	struct texts require;
	struct pos root_at; /* of the main document */
	bool has_sources, has_resolver_clients, has_version, has_presets_version;
};

/* ---- mappings by tables ------------------------------------------------------------------------- */

/* Reads the value v of key k into `to`. */
typedef void read_fn(struct build *b, const struct node *k, const struct node *v, void *to);

struct key {
	const char *name;
	read_fn *read;
	size_t off; /* added to `to` */
};

#define KEYS(table) (table), sizeof(table) / sizeof((table)[0])

/* Is v a mapping (of at least nothing)? If not, says that `what` must be one. */
bool want_map(struct build *b, const struct node *v, const char *what);
bool want_seq(struct build *b, const struct node *v, const char *what);

/*
 * Reads each key of a mapping as the table says; an unknown one is an error, with the nearest known one
 * as a suggestion. `what` names the mapping in messages. False if v is no mapping.
 */
bool read_map(struct build *b, const struct node *v, const char *what, const struct key *keys,
	      size_t n, void *to);

/* The nearest of n words to s, if it is near enough to be meant; else NULL. */
const char *nearest(const char *s, const char *(*word)(const void *table, size_t i),
		    const void *table, size_t n);

/* The value of a key, or NULL. */
const struct node *map_get(const struct node *map, const char *key);

/* Marks a construct as used, first at this place. */
void use_feature(struct build *b, enum feature f, struct pos at);

/* ---- values ------------------------------------------------------------------------------------- */

/* One line of text; line breaks become spaces, other control characters are errors. */
read_fn read_text;      /* const char ** */
read_fn read_bool;      /* bool *; only true and false */
read_fn read_date;      /* const char **: YYYY-MM-DD */
read_fn read_time;      /* int64_t *: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ as seconds since 1970 */
read_fn read_texts;     /* struct texts *: a list of texts */
read_fn read_labels;    /* const char **: a mapping, as "key=value\n" sorted */
read_fn read_limits;    /* struct limits * */
read_fn read_limits_at; /* const struct limits ** */

/* False, and a message, if v is not a single value with something in it. */
bool want_text(struct build *b, const struct node *v, const char *what);
bool read_uint(struct build *b, const struct node *v, const char *what, uint64_t min, uint64_t max,
	       uint64_t *out);
/* 5s, 10m, 2h, 7d: seconds. */
bool read_duration(struct build *b, const struct node *v, const char *what, uint32_t max_s,
		   uint32_t *out);
/* One of words[n]; returns its index, or -1 with a message. */
int read_word(struct build *b, const struct node *v, const char *what, const char *const *words,
	      size_t n);
bool read_prefix(struct build *b, const struct node *v, struct prefix *out);
bool parse_limit(const char *s, bool octets, bool concurrent, struct limit *out);
int compare_text(const void *a, const void *b); /* of const char *, for qsort */

/* ---- names -------------------------------------------------------------------------------------- */

/*
 * A name, or (if below is not NULL) a wildcard *.name, from UTF-8 text; IDNs become A-labels. False
 * with a message.
 */
bool parse_name(struct build *b, struct pos at, const char *s, size_t n, struct name *out,
		bool *below);

/*
 * Checks an allowed wildcard against the public suffix list and against shared clouds; `lift`: the
 * codes that the entry lifts (struct terms.lint_allow).
 */
void check_wildcard(struct build *b, struct pos at, const struct name *n, const char *lift);

/* `lint` of an entry, a profile, a credential or a source: const char **, as struct terms.lint_allow. */
read_fn read_lint;
/* Is the code among the lifted ones? */
bool is_lifted(const char *lift, const char *code);

/* ---- parts -------------------------------------------------------------------------------------- */

/* What an entry stands under. */
struct place {
	uint32_t layer;
	bool deny;
	bool never;
	bool preset;
	bool ceiling;   /* tasks.within: nothing that a profile sees */
	bool additions; /* allowlist_additions: may be private */
};

/* A list of entries, each a text or a mapping. */
void read_entries(struct build *b, const struct node *list, const char *what,
		  const struct place *at);
struct entry *add_entry(struct build *b);

/* http_rules.c: `http` of an entry. */
void read_http_rules(struct build *b, const struct node *v, struct terms *t);

/* list.c: a file of names; false with a message. */
bool read_name_list(struct build *b, const struct node *path, bool allow, const char *lift,
		    const struct name_list **out);

/* The same from the policy itself: {path: what it is called, names: |, one a line}. */
bool read_inline_list(struct build *b, const struct node *v, bool allow, const char *lift,
		      const struct name_list **out);

/* files.c */
bool read_whole(struct build *b, const char *path, struct pos at, size_t max, char **text,
		size_t *n);
/* A path that the policy names: below the main file's directory. NULL with a message. Allocated. */
const char *path_below(struct build *b, const char *written, struct pos at);
/* Memory outside the arena that the model owns. */
struct owned {
	const struct owned *next;
	void *p;
};

/* Leaves malloc'd memory to the model. */
void own(struct build *b, void *p);
uint32_t add_file(struct build *b, const char *shown, const char *kept);

/* profiles.c, layers.c */
void find_profiles(struct build *b); /* names of all documents: drafts and their layers */
void read_network(struct build *b, const struct node *v);
void read_profiles(struct build *b, const struct node *v);
void resolve_profiles(struct build *b); /* extends, presets, layers; fills the model */
/* The index of a profile, or -1 with a message. */
int find_profile(struct build *b, const struct node *name);

/*
 * Each host that belongs to a preset at the levels strict and default, preset by preset; companion: it
 * is of the level default.
 */
typedef void preset_host_fn(struct build *b, void *to, const char *preset, const char *host,
			    bool companion);
void preset_hosts(struct build *b, preset_host_fn *take, void *to);

/* presets.c: the entries of a preset, as a layer. */
void read_preset(struct build *b, size_t preset, uint32_t layer);
/* The number of a preset, or -1 with a message. */
int find_preset(struct build *b, const struct node *name);
uint32_t preset_layer(const struct build *b, size_t preset);
/* The number of a preset, or -1. */
int preset_index(const char *name);

/* sources.c */
read_fn read_sources, read_unlisted, read_resolver_clients; /* `to` is not used */
void finish_clients(struct build *b);

/* extras.c, tests.c, authz.c */
read_fn read_credentials, read_mesh, read_tests;
void read_authorization(struct build *b, const struct node *doc);
void check_selectors(struct build *b); /* AuthorizationPolicy documents that select no service */
void finish_extras(struct build *b);

/* lint.c */
void lint_all(struct build *b);

/* model.c: the terms of entries that say nothing themselves. */
void set_plain_terms(struct build *b);

#endif
