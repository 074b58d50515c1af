/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One evaluation of verdict() as its parts see it: the question, the rules that there are (seen.c),
 * what one rule permits (permit.c), what a binding changes (task.c), what a profile says of DNS
 * (zone.c), where a connection may go (destination.c), and the order of it all (verdict.c). Private to
 * shared/policy; nothing here is to be called by who wants a verdict.
 */
#ifndef CX_JUDGE_H
#define CX_JUDGE_H

#include "shared/policy/image.h"
#include "shared/policy/verdict.h"

/* One evaluation: what is asked, of whom, and the outcome so far. */
struct judge {
	const struct policy *p;
	const struct question *q;
	const struct facts *f;
	const struct fmt_profile *profile; /* NULL: the gateway's own look-up, any profile */
	int64_t now_s;
	bool lifted; /* private addresses are permitted by what decided */
	bool bound;  /* the profile comes from f->binding */
	struct verdict *out;
};

void settle(struct judge *j, enum reason reason, uint32_t rule, uint32_t rec);
/* The entries that list q->name, and what the binding says to it. */
void judge_name(struct judge *j);

/* ---- seen.c ---- */

/* A place where rules may match: a name record, or a cidr. Longest first. */
struct level {
	uint32_t set;
	uint32_t rec;
	uint32_t kind;
	uint8_t depth; /* labels of the record's name; 0: a cidr */
};

enum { MAX_CIDR_LEVELS = 129 };

/* The levels of an address. */
unsigned cidr_levels(const struct policy *p, const struct addr *a,
		     struct level out[MAX_CIDR_LEVELS]);
/* The rank of a layer for the profile, or -1 where it does not see it. */
int64_t layer_rank(const struct judge *j, uint32_t layer);

/*
 * The rules of a set, as the profile sees them. A set may hold the rules of 50,000 layers and a
 * profile may see thousands: the shorter side is walked, the longer one searched.
 */
struct walk {
	const struct judge *j;
	const uint32_t *pairs; /* (layer, rule), sorted */
	uint32_t n;
	uint32_t at;   /* next pair */
	uint32_t see;  /* next layer of the profile, when that side is walked */
	uint32_t kind; /* RULE_EXACT, RULE_BELOW or RULE_CIDR */
	bool by_layer; /* the profile's side is walked */
	int64_t rank;  /* of the rule returned last */
};

struct walk walk_set(const struct judge *j, uint32_t set, uint32_t kind);
/* The next rule of the kind, FMT_NONE at the end. Rules of `never` (layer 0) are not among them. */
uint32_t walk_next(struct walk *w);
/* A rule of `never` in the set, or FMT_NONE. */
uint32_t never_rule(const struct policy *p, uint32_t set, uint32_t kind);
/* Does the operator deny this name or address at any length, for this profile? The rule, or FMT_NONE. */
uint32_t operator_deny(const struct judge *j, const struct level *l, unsigned n);

/* ---- permit.c ---- */

bool ports_contain(const struct policy *p, uint32_t list, uint16_t port);
bool expired(const struct judge *j, const struct fmt_rule *r);
/* What is wrong with a listed, unexpired rule; ALLOWED if nothing. *next: what to expect. */
enum reason judge_rule(const struct judge *j, const struct fmt_rule *r, enum next *next);

/* ---- upstream.c ---- */

/* Which proxy an allowed connection goes by; a: the address that it goes to, NULL: not known. */
void judge_upstream(struct judge *j, const struct addr *a);
/* Is it the host of somebody's proxy? The gateway itself has to look it up. */
bool is_upstream_host(const struct policy *p, const struct name *n);

/* ---- task.c ---- */

/* What the binding says to a name (m: its records) or raw address (m NULL) after the entries. */
void judge_binding(struct judge *j, const struct level *l, const struct policy_match *m,
		   unsigned n);
/* Does the binding add anything that takes this protocol on the port? */
bool binding_has_port(const struct judge *j, unsigned proto);

/* ---- zone.c ---- */

enum zone_of { ZONE_NONE, ZONE_OWN, ZONE_FOREIGN };

/* Whose resolvers are asked for the name: the deepest zone that holds it says so. */
enum zone_of zone_of(const struct policy *p, uint32_t profile, const struct name *n);
bool in_private_ranges(const struct policy *p, uint32_t profile, const struct addr *a);

#endif
