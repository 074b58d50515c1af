/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE decision (verdict.h): a pure function of policy, question and facts. Never logs, never looks at
 * a clock, never changes anything.
 */
#include "shared/policy/judge.h"

static const char *const reason_texts[] = {
#define X(name, text) [REASON_##name] = text,
	REASONS(X)
#undef X
};

const char *reason_text(enum reason r)
{
	return (size_t)r < REASON_COUNT ? reason_texts[r] : "internal-error";
}

const char *layer_text(enum layer l)
{
	static const char *const text[] = { "dns", "tls", "http", "connect", "tcp" };
	return (size_t)l < sizeof(text) / sizeof(text[0]) ? text[l] : "";
}

const char *next_text(enum next n)
{
	static const char *const text[] = { "", "tls", "http", "raw" };
	return (size_t)n < sizeof(text) / sizeof(text[0]) ? text[n] : "";
}

/* ---- which entry decides ---- */

static struct level level_of(const struct policy_match *m)
{
	return (struct level){ m->set, m->rec, m->exact ? RULE_EXACT : RULE_BELOW, m->depth };
}

/* What a level says: the best rule by (outcome, rank, rule number, which is the order of pattern). */
struct finding {
	bool any;           /* some rule is there */
	enum reason reason; /* ALLOWED, DENIED_ENTRY, or what is missing */
	enum next next;
	bool lifted; /* one of the rules with this outcome may resolve to private addresses */
	uint32_t rule;
	int64_t rank;
};

static void consider(struct finding *b, enum reason reason, enum next next, uint32_t rule,
		     int64_t rank, const struct policy *p)
{
	bool lifts = p->rules[rule].flags & RULE_PRIVATE;
	/*
	 * A deny wins; else an allow; else the rule that got furthest. Among equals the profile's own
	 * entry first, then in the order of `extends`, then of the file.
	 */
	int64_t score = reason == REASON_DENIED_ENTRY ? 1000 : (int64_t)reason;
	int64_t have = !b->any ? -1 : b->reason == REASON_DENIED_ENTRY ? 1000 : (int64_t)b->reason;
	bool earlier = b->any &&
		       (rank < b->rank || (rank == b->rank &&
					   p->rule_info[rule].order < p->rule_info[b->rule].order));
	/* of several ways that a CONNECT allows: raw, else a hello, else requests */
	static const uint8_t strength[] = { [NEXT_HTTP] = 1, [NEXT_TLS] = 2, [NEXT_RAW] = 3 };
	bool stronger = b->any && score == have && strength[next] > strength[b->next];
	bool weaker = b->any && score == have && strength[next] < strength[b->next];
	if (score < have || weaker)
		return;
	if (score == have &&
	    !stronger) { /* which one is reported must not change what is permitted */
		b->lifted |= lifts;
		lifts = b->lifted;
		if (!earlier)
			return;
	}
	*b = (struct finding){ true, reason, next, lifts, rule, rank };
}

static struct finding judge_level(const struct judge *j, const struct level *l, bool no_presets,
				  uint32_t *expired_rule)
{
	struct finding best = { .rule = FMT_NONE };
	struct walk w = walk_set(j, l->set, l->kind);
	for (uint32_t i; (i = walk_next(&w)) != FMT_NONE;) {
		const struct fmt_rule *r = &j->p->rules[i];
		enum next next = NEXT_NONE;
		if (r->flags & RULE_DENY) {
			if (j->profile) /* a deny of one profile is not the gateway's own */
				consider(&best, REASON_DENIED_ENTRY, next, i, w.rank, j->p);
			continue;
		}
		if (no_presets && r->flags & RULE_PRESET)
			continue;
		if (expired(j, r)) {
			if (*expired_rule == FMT_NONE)
				*expired_rule = i;
			continue;
		}
		enum reason reason = judge_rule(j, r, &next);
		consider(&best, reason, next, i, w.rank, j->p);
	}
	return best;
}

void settle(struct judge *j, enum reason reason, uint32_t rule, uint32_t rec)
{
	j->out->reason = reason;
	j->out->rule = rule;
	j->out->rec = rec;
	j->out->action = reason == REASON_ALLOWED ? ACTION_ALLOW : ACTION_DENY;
}

/* All rules of the level that permit it in the way that it is permitted, and have limits. */
static void note_limits(struct judge *j, const struct level *l, bool no_presets)
{
	struct verdict *v = j->out;
	struct walk w = walk_set(j, l->set, l->kind);
	for (uint32_t i; (i = walk_next(&w)) != FMT_NONE && v->n_limited < VERDICT_MAX_LIMITED;) {
		const struct fmt_rule *r = &j->p->rules[i];
		enum next next = NEXT_NONE;
		if (!(r->flags & RULE_LIMITED) || r->flags & RULE_DENY || expired(j, r) ||
		    (no_presets && r->flags & RULE_PRESET))
			continue;
		if (judge_rule(j, r, &next) == REASON_ALLOWED && next == v->next)
			v->limited[v->n_limited++] = i;
	}
}

/*
 * `never` first, then the longest level where a rule is there. A preset's rules are not there where the
 * operator denies the name at whatever length.
 */
static void judge_levels(struct judge *j, const struct level *l, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		uint32_t i = never_rule(j->p, l[k].set, l[k].kind);
		if (i != FMT_NONE) {
			settle(j, REASON_NEVER, i, l[k].rec);
			return;
		}
	}
	uint32_t deny = n ? operator_deny(j, l, n) : FMT_NONE;
	uint32_t gone = FMT_NONE, gone_rec = UINT32_MAX;
	for (unsigned k = 0; k < n; k++) {
		bool none = gone == FMT_NONE;
		struct finding b = judge_level(j, &l[k], deny != FMT_NONE, &gone);
		if (none && gone != FMT_NONE)
			gone_rec = l[k].rec;
		if (!b.any)
			continue;
		settle(j, b.reason, b.rule, l[k].rec);
		j->lifted = b.lifted;
		j->out->next = b.reason == REASON_ALLOWED ? b.next : NEXT_NONE;
		j->out->below = l[k].kind == RULE_BELOW ? l[k].depth : 0;
		if (b.reason == REASON_ALLOWED && j->p->n_rule_limits > 0)
			note_limits(j, &l[k], deny != FMT_NONE);
		return;
	}
	settle(j, gone != FMT_NONE ? REASON_EXPIRED : REASON_NOT_LISTED, gone, gone_rec);
}

/* ---- names ---- */

void judge_name(struct judge *j)
{
	struct policy_match m[POLICY_MAX_MATCHES];
	struct level l[POLICY_MAX_MATCHES];
	unsigned n = policy_find(j->p, j->q->name, m);
	for (unsigned i = 0; i < n; i++)
		l[i] = level_of(&m[i]);
	judge_levels(j, l, n);
	judge_binding(j, l, m, n);
}

/* ---- what it resolved to ---- */

/* The first alias on the way that leads to where the name must not lead; ALLOWED: none. */
static enum reason judge_aliases(const struct judge *j, uint32_t *rule, uint32_t *rec)
{
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *p = j->q->aliases[i];
		size_t left = j->q->aliases_len[i], used = 0;
		for (; p && left > 0; p += used, left -= used) {
			struct name target;
			if (name_from_wire(&target, p, left, &used) != NAME_OK)
				return REASON_NEVER;
			enum reason r =
				verdict_alias(j->p, j->out->profile, &target, j->f, rule, rec);
			if (r != REASON_ALLOWED)
				return r;
		}
	}
	return REASON_ALLOWED;
}

/* Picks the first address that may be used; if none, the reason that stands first in the list. */
static void judge_resolved(struct judge *j)
{
	const struct question *q = j->q;
	struct verdict *v = j->out;
	enum reason why = REASON_UNRESOLVED;
	uint32_t rule = FMT_NONE, rec = UINT32_MAX;
	enum reason alias = judge_aliases(j, &rule, &rec);
	bool observing =
		alias == REASON_DENIED_ENTRY && j->profile && j->profile->flags & PROFILE_OBSERVE;
	if (alias != REASON_ALLOWED && !observing) {
		settle(j, REASON_DENIED_ENTRY, rule, rec);
		v->observed = false;
		v->next = NEXT_NONE;
		return;
	}
	if (observing && !v->observed) {
		v->reason = REASON_DENIED_ENTRY;
		v->rule = rule;
		v->rec = rec;
		v->observed = true;
	}
	for (unsigned i = 0; i < q->n_resolved; i++) {
		enum reason r = verdict_address(j->p, v->profile, &q->resolved[i], j->lifted, j->f);
		if (r == REASON_ALLOWED) {
			v->addr = i;
			return;
		}
		if (why == REASON_UNRESOLVED || r < why)
			why = r;
	}
	v->action = ACTION_DENY;
	v->reason = why;
	v->observed = false;
	v->next = NEXT_NONE;
}

/* ---- by layer ---- */

static bool type_listed(const struct policy *p, uint32_t list, uint16_t type)
{
	const uint16_t *t = p->qtypes + list;
	for (unsigned i = 1; i <= t[0]; i++)
		if (t[i] == type)
			return true;
	return false;
}

enum { TYPE_A = 1, TYPE_AAAA = 28 };

static bool type_permitted(const struct judge *j)
{
	if (!j->profile)
		return j->q->qtype == TYPE_A || j->q->qtype == TYPE_AAAA;
	if (j->q->qtype == TYPE_AAAA && verdict_no_aaaa(j->p, j->out->profile))
		return false;
	return type_listed(j->p, j->profile->qtypes, j->q->qtype);
}

/* Is it about an address, not a name? */
static bool by_destination(const struct question *q)
{
	return (q->layer == LAYER_TCP || q->layer == LAYER_CONNECT) && !q->name;
}

static enum reason judge_flaw(const struct question *q)
{
	switch (q->flaw) {
	case FLAW_NONE:
		break;
	case FLAW_MALFORMED:
		return REASON_MALFORMED;
	case FLAW_IP_LITERAL:
		return REASON_IP_LITERAL;
	case FLAW_BAD_NAME:
		return REASON_BAD_NAME;
	case FLAW_NO_SNI:
		return REASON_NO_SNI;
	case FLAW_NAME_MISMATCH:
		return REASON_NAME_MISMATCH;
	case FLAW_INTERNAL:
		return REASON_INTERNAL_ERROR;
	}
	if (by_destination(q))
		return q->has_dst ? REASON_ALLOWED : REASON_INTERNAL_ERROR;
	if (!q->name)
		return REASON_INTERNAL_ERROR;
	switch (name_check_host(q->name)) {
	case NAME_OK:
		return REASON_ALLOWED;
	case NAME_IP_LITERAL:
		return REASON_IP_LITERAL;
	default:
		return REASON_BAD_NAME;
	}
}

/* Does any allow entry of the profile take this protocol on the port? */
static bool profile_has_port(const struct judge *j, unsigned proto)
{
	const struct fmt_sees *s = j->p->sees + j->profile->sees;
	for (uint32_t i = 0; i < j->profile->n_sees; i++) {
		const struct fmt_layer *l = &j->p->layers[s[i].layer];
		uint32_t list = proto == PROTO_HTTPS ? l->https : l->http;
		if (list != FMT_NONE && ports_contain(j->p, list, j->q->port))
			return true;
	}
	return binding_has_port(j, proto);
}

/* Does an entry for one of the names that the destination is pinned to permit it? */
static bool judge_pinned(struct judge *j)
{
	for (unsigned i = 0; i < j->f->n_pinned; i++) {
		struct question q = *j->q;
		struct verdict v = *j->out;
		struct judge name = *j;
		q.name = &j->f->pinned[i];
		name.q = &q;
		name.out = &v;
		name.lifted = false;
		judge_name(&name);
		if (v.action != ACTION_ALLOW || v.next != NEXT_RAW)
			continue;
		if (zone_of(j->p, v.profile, q.name) == ZONE_OWN)
			name.lifted = true;
		*j->out = v;
		j->lifted = name.lifted;
		return true;
	}
	return false;
}

/* A destination without a name: a listed cidr, else (TCP only) what to read first on this port. */
static void judge_destination(struct judge *j)
{
	struct level l[MAX_CIDR_LEVELS];
	struct verdict *v = j->out;
	judge_levels(j, l, cidr_levels(j->p, &j->q->dst, l));
	judge_binding(j, l, NULL, 0);
	if (v->action == ACTION_ALLOW)
		return;
	if (j->q->layer == LAYER_CONNECT) {
		if (v->reason == REASON_NOT_LISTED)
			v->reason = REASON_IP_LITERAL;
		return;
	}
	if (v->reason == REASON_NEVER || v->reason == REASON_DENIED_ENTRY || judge_pinned(j))
		return;
	enum next next = profile_has_port(j, PROTO_HTTPS)  ? NEXT_TLS
			 : profile_has_port(j, PROTO_HTTP) ? NEXT_HTTP
							   : NEXT_NONE;
	if (next != NEXT_NONE) {
		*v = (struct verdict){ .action = ACTION_NEXT,
				       .reason = REASON_ALLOWED,
				       .next = next,
				       .profile = v->profile,
				       .rule = FMT_NONE,
				       .rec = UINT32_MAX,
				       .upstream = UINT32_MAX };
	}
}

/* A raw connection goes where the client says: is that permitted as a destination? */
static void judge_raw_address(struct judge *j)
{
	struct verdict *v = j->out;
	enum reason r = verdict_address(j->p, v->profile, &j->q->dst, j->lifted, j->f);
	if (r == REASON_ALLOWED)
		return;
	settle(j, r, v->rule, v->rec);
	v->observed = false;
	v->next = NEXT_NONE;
}

/*
 * An observing profile passes what is only not listed; whatever else would deny, still does. A raw
 * address stays denied unless it is in a listed range and only the port is wrong: nothing else says
 * where it would lead.
 */
static bool may_observe(const struct judge *j)
{
	if (!j->profile || !(j->profile->flags & PROFILE_OBSERVE))
		return false;
	switch (j->out->reason) {
	case REASON_PORT:
		return true;
	case REASON_NOT_LISTED:
	case REASON_DENIED_ENTRY:
	case REASON_EXPIRED:
	case REASON_PROTOCOL:
	case REASON_METHOD:
	case REASON_PATH:
	case REASON_QUERY_TYPE:
		return j->q->layer != LAYER_TCP && !by_destination(j->q);
	default:
		return false;
	}
}

static void observe(struct judge *j)
{
	struct verdict *v = j->out;
	if (v->action != ACTION_DENY || !may_observe(j))
		return;
	v->observed = true;
	v->action = ACTION_ALLOW;
	if (by_destination(j->q) || j->q->layer == LAYER_TCP)
		v->next = NEXT_RAW;
	else if (j->q->layer == LAYER_CONNECT)
		v->next = j->q->port == 80 ? NEXT_HTTP : NEXT_TLS;
}

static void judge_question(struct judge *j)
{
	const struct question *q = j->q;
	struct verdict *v = j->out;
	enum reason flaw = judge_flaw(q);
	bool ech = q->layer == LAYER_TLS && q->ech && j->profile &&
		   !(j->profile->flags & PROFILE_ECH_ALLOW);
	if (ech && flaw > REASON_ECH)
		flaw = REASON_ECH;
	if (flaw != REASON_ALLOWED) {
		v->reason = flaw;
		return;
	}
	if (by_destination(q)) {
		judge_destination(j);
	} else {
		judge_name(j);
		if (!j->profile && v->reason == REASON_NOT_LISTED &&
		    is_upstream_host(j->p, q->name))
			settle(j, REASON_ALLOWED, FMT_NONE, UINT32_MAX);
		if (j->profile && v->action == ACTION_ALLOW && !j->lifted)
			j->lifted = zone_of(j->p, v->profile, q->name) == ZONE_OWN;
		if (v->action == ACTION_ALLOW && q->layer == LAYER_DNS && !type_permitted(j)) {
			v->action = ACTION_DENY;
			v->reason = REASON_QUERY_TYPE;
		}
	}
	observe(j);
	judge_upstream(j, NULL);
	if (v->action == ACTION_ALLOW && by_destination(q)) {
		judge_raw_address(j);
		judge_upstream(j, &q->dst);
	} else if (v->action == ACTION_ALLOW && q->resolved && !v->by_name) {
		judge_resolved(j);
		judge_upstream(j, q->n_resolved ? &q->resolved[v->addr] : NULL);
	}
	if (v->action == ACTION_ALLOW && q->layer == LAYER_CONNECT)
		v->action = ACTION_NEXT;
}

/* An address whose task is decided at run time. False if that already decides. */
static bool judge_bound_source(struct judge *j, uint32_t bindset)
{
	const struct binding *b = j->f->binding;
	struct verdict *v = j->out;
	v->reason = REASON_NO_BINDING;
	if (!b)
		return false;
	v->reason = REASON_STALE_BINDING;
	if (j->q->has_generation && j->q->generation != b->generation)
		return false;
	v->reason = REASON_NO_PROFILE;
	uint32_t profile = policy_find_profile(j->p, b->profile);
	if (profile == UINT32_MAX || !policy_may_bind(j->p, bindset, profile))
		return false;
	v->profile = profile;
	j->profile = &j->p->profiles[profile];
	j->bound = true;
	return true;
}

/* Whom the source belongs to. False if that already decides. */
static bool judge_source(struct judge *j)
{
	struct verdict *v = j->out;
	struct source s = policy_source(j->p, &j->q->src);
	bool dns = j->q->layer == LAYER_DNS;
	v->reason = REASON_UNKNOWN_SOURCE;
	switch (s.kind) {
	case SOURCE_NONE:
		return false;
	case SOURCE_IGNORE:
		if (!dns)
			return false;
		v->action = ACTION_ALLOW;
		v->reason = REASON_ALLOWED;
		v->unpoliced = true;
		return false;
	case SOURCE_RESOLVER:
		v->any_profile = true;
		return dns;
	case SOURCE_BIND:
		return judge_bound_source(j, s.index);
	case SOURCE_PROFILE:
		if (j->q->has_generation && j->q->generation != 0) {
			v->reason = REASON_STALE_BINDING;
			return false;
		}
		v->profile = s.index;
		j->profile = &j->p->profiles[s.index];
		return true;
	}
	return false;
}

/* Everything but whom the question comes from. False if that already decides. */
static bool judge_init(struct judge *j)
{
	*j->out = (struct verdict){ .action = ACTION_DENY,
				    .reason = REASON_NO_POLICY,
				    .profile = UINT32_MAX,
				    .rule = FMT_NONE,
				    .rec = UINT32_MAX,
				    .upstream = UINT32_MAX };
	if (!j->p)
		return false;
	j->now_s = j->f->now.wall_ns / 1000000000;
	if (j->q->flaw != FLAW_INTERNAL)
		return true;
	j->out->reason = REASON_INTERNAL_ERROR;
	return false;
}

void verdict(const struct policy *p, const struct question *q, const struct facts *f,
	     struct verdict *out)
{
	struct judge j = { .p = p, .q = q, .f = f, .out = out };
	if (judge_init(&j) && judge_source(&j))
		judge_question(&j);
	out->lifted = j.lifted && out->action == ACTION_ALLOW;
}

void verdict_in(const struct policy *p, uint32_t profile, const struct question *q,
		const struct facts *f, struct verdict *out)
{
	struct judge j = { .p = p, .q = q, .f = f, .out = out };
	if (!judge_init(&j))
		return;
	out->reason = REASON_NO_PROFILE;
	if (profile >= p->n_profiles)
		return;
	out->profile = profile;
	j.profile = &p->profiles[profile];
	judge_question(&j);
}
