/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE decision (verdict.h): a pure function of policy, question and facts. Never logs, never looks at
 * a clock, never changes anything.
 */
#include "shared/policy/verdict.h"

#include <string.h>

#include "shared/policy/hash.h"
#include "shared/policy/image.h"
#include "shared/policy/overlay.h"

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

/* ---- which rules there are ---- */

/* The rank of a layer for the profile, or -1 where it does not see it. */
static int64_t layer_rank(const struct judge *j, uint32_t layer)
{
	if (!j->profile)
		return 0;
	const struct fmt_sees *s = j->p->sees + j->profile->sees;
	uint32_t lo = 0, hi = j->profile->n_sees;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (s[mid].layer == layer)
			return s[mid].rank;
		if (s[mid].layer < layer)
			lo = mid + 1;
		else
			hi = mid;
	}
	return -1;
}

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

static struct walk walk_set(const struct judge *j, uint32_t set, uint32_t kind)
{
	const uint32_t *s = j->p->sets + set;
	struct walk w = { .j = j, .pairs = s + 1, .n = s[0], .kind = kind };
	w.by_layer = j->profile && j->profile->n_sees < w.n / 4;
	return w;
}

/* The first pair at or behind `from` whose layer is not below `layer`. */
static uint32_t seek_layer(const struct walk *w, uint32_t from, uint32_t layer)
{
	uint32_t lo = from, hi = w->n;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (w->pairs[2 * mid] < layer)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Moves to the next pair that the profile sees; false at the end. */
static bool walk_seen(struct walk *w)
{
	const struct judge *j = w->j;
	if (!w->by_layer) {
		for (; w->at < w->n; w->at++) {
			uint32_t layer = w->pairs[2 * w->at];
			w->rank = layer == 0 ? -1 : layer_rank(j, layer);
			if (w->rank >= 0)
				return true;
		}
		return false;
	}
	const struct fmt_sees *s = j->p->sees + j->profile->sees;
	while (w->see < j->profile->n_sees) {
		w->at = seek_layer(w, w->at, s[w->see].layer);
		if (w->at < w->n && w->pairs[2 * w->at] == s[w->see].layer) {
			w->rank = s[w->see].rank;
			return true;
		}
		w->see++;
	}
	return false;
}

/* The next rule of the kind, FMT_NONE at the end. Rules of `never` (layer 0) are not among them. */
static uint32_t walk_next(struct walk *w)
{
	while (walk_seen(w)) {
		uint32_t rule = w->pairs[2 * w->at++ + 1];
		if (w->j->p->rules[rule].flags & w->kind)
			return rule;
	}
	return FMT_NONE;
}

/* A rule of `never` in the set: layer 0 sorts first. */
static uint32_t never_rule(const struct policy *p, uint32_t set, uint32_t kind)
{
	const uint32_t *s = p->sets + set;
	for (uint32_t i = 0; i < s[0] && s[1 + 2 * i] == 0; i++)
		if (p->rules[s[2 + 2 * i]].flags & kind)
			return s[2 + 2 * i];
	return FMT_NONE;
}

/* ---- what one rule permits ---- */

static bool ports_contain(const struct policy *p, uint32_t list, uint16_t port)
{
	const uint32_t *l = p->ports + list;
	for (uint32_t i = 1; i <= l[0]; i++)
		if (port >= (l[i] & 0xffff) && port <= l[i] >> 16)
			return true;
	return false;
}

static bool rule_has_port(const struct judge *j, const struct fmt_rule *r, unsigned proto)
{
	if (r->ports != FMT_NONE)
		return ports_contain(j->p, r->ports, j->q->port);
	return (proto == PROTO_HTTPS && j->q->port == 443) ||
	       (proto == PROTO_HTTP && j->q->port == 80);
}

static size_t path_length(const struct question *q)
{
	const char *mark = q->path_len ? memchr(q->path, '?', q->path_len) : NULL;
	return mark ? (size_t)(mark - q->path) : q->path_len;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * A path that another parser might read as a different one: dot segments, empty segments, backslash,
 * parameters, encoded separators or dots, an octet that does not belong into a path.
 */
static bool path_is_ambiguous(const char *s, size_t n)
{
	if (n == 0 || s[0] != '/')
		return true;
	size_t segment = 1; /* where the open segment starts */
	for (size_t i = 1; i <= n; i++) {
		if (i == n || s[i] == '/') {
			size_t len = i - segment;
			bool last = i == n;
			if (len == 0 && !last)
				return true;
			if (len > 0 && s[segment] == '.' &&
			    (len == 1 || (len == 2 && s[segment + 1] == '.')))
				return true;
			segment = i + 1;
			continue;
		}
		unsigned char c = (unsigned char)s[i];
		if (c <= 0x20 || c >= 0x7f || c == '\\' || c == ';' || c == '#')
			return true;
		if (c != '%')
			continue;
		if (n - i < 3 || hex_value(s[i + 1]) < 0 || hex_value(s[i + 2]) < 0)
			return true;
		int v = hex_value(s[i + 1]) * 16 + hex_value(s[i + 2]);
		if (v == '/' || v == '\\' || v == '.' || v == 0 || v == ';' || v == '%')
			return true;
	}
	return false;
}

static unsigned get16(const uint8_t *b)
{
	return b[0] | (unsigned)b[1] << 8;
}

/* Looks through one http rule at b, *end behind it. Which of method and path it takes. */
static void match_http_rule(const uint8_t *b, const struct question *q, bool *method, bool *path,
			    const uint8_t **end)
{
	unsigned methods = get16(b), paths = get16(b + 2);
	size_t len = path_length(q);
	b += 4;
	*method = methods == 0;
	*path = paths == 0;
	for (; methods > 0; methods--, b += 1 + b[0])
		if (b[0] == q->method_len && memcmp(b + 1, q->method, b[0]) == 0)
			*method = true;
	for (; paths > 0; paths--, b += 3 + get16(b + 1)) {
		size_t n = get16(b + 1);
		bool prefix = b[0];
		if ((prefix ? n <= len : n == len) && memcmp(b + 3, q->path, n) == 0)
			*path = true;
	}
	*end = b;
}

/* Do any of the rule's http rules name paths? */
static bool http_names_paths(const uint8_t *b)
{
	unsigned n = get16(b);
	b += 2;
	for (; n > 0; n--) {
		unsigned methods = get16(b), paths = get16(b + 2);
		if (paths)
			return true;
		b += 4;
		for (; methods > 0; methods--)
			b += 1 + b[0];
	}
	return false;
}

static enum reason judge_http(const struct judge *j, const struct fmt_rule *r)
{
	const struct question *q = j->q;
	if (r->http == FMT_NONE)
		return REASON_ALLOWED;
	const uint8_t *b = j->p->http + r->http;
	bool usable = !http_names_paths(b) || !path_is_ambiguous(q->path, path_length(q));
	bool any_method = false;
	unsigned n = get16(b);
	b += 2;
	for (; n > 0; n--) {
		bool method, path;
		match_http_rule(b, q, &method, &path, &b);
		any_method |= method;
		if (method && path && usable)
			return REASON_ALLOWED;
	}
	return any_method ? REASON_PATH : REASON_METHOD;
}

static bool equals_ignore_case(const char *a, size_t n, const char *lower)
{
	if (n != strlen(lower))
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = a[i];
		if (c >= 'A' && c <= 'Z')
			c = (char)(c + 32);
		if (c != lower[i])
			return false;
	}
	return true;
}

/* Upgrades only where the entry lists them, and never together with http rules. */
static bool upgrade_permitted(const struct question *q, const struct fmt_rule *r)
{
	if (!q->upgrade || q->upgrade_len == 0)
		return true;
	return r->upgrades & UPGRADE_WEBSOCKET && r->http == FMT_NONE &&
	       equals_ignore_case(q->upgrade, q->upgrade_len, "websocket");
}

static bool expired(const struct judge *j, const struct fmt_rule *r)
{
	return r->expires != 0 && j->now_s >= r->expires;
}

/* What is wrong with a listed, unexpired rule for one way of using it; ALLOWED if nothing. */
static enum reason judge_protocol(const struct judge *j, const struct fmt_rule *r, unsigned proto)
{
	bool request = proto == PROTO_HTTP && j->q->layer == LAYER_HTTP;
	if (!(r->protocols & proto) || (request && !upgrade_permitted(j->q, r)))
		return REASON_PROTOCOL;
	if (!rule_has_port(j, r, proto))
		return REASON_PORT;
	return request ? judge_http(j, r) : REASON_ALLOWED;
}

/* What a CONNECT to this rule's name leads to; NEXT_NONE and *why if nothing does. */
static enum next judge_connect(const struct judge *j, const struct fmt_rule *r, enum reason *why)
{
	static const struct {
		unsigned proto;
		enum next next;
	} ways[] = { { PROTO_TCP, NEXT_RAW },
		     { PROTO_HTTPS, NEXT_TLS },
		     { PROTO_HTTP, NEXT_HTTP } };
	*why = REASON_PROTOCOL;
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		enum reason r1 = judge_protocol(j, r, ways[i].proto);
		if (r1 == REASON_ALLOWED)
			return ways[i].next;
		if (r1 > *why)
			*why = r1;
	}
	return NEXT_NONE;
}

static enum reason judge_rule(const struct judge *j, const struct fmt_rule *r, enum next *next)
{
	enum reason why = REASON_ALLOWED;
	*next = NEXT_NONE;
	switch (j->q->layer) {
	case LAYER_DNS:
		return REASON_ALLOWED;
	case LAYER_TLS:
		return judge_protocol(j, r, PROTO_HTTPS);
	case LAYER_HTTP:
		return judge_protocol(j, r, PROTO_HTTP);
	case LAYER_CONNECT:
		if (!j->q->name) {
			*next = NEXT_RAW;
			return judge_protocol(j, r, PROTO_TCP);
		}
		*next = judge_connect(j, r, &why);
		return *next == NEXT_NONE ? why : REASON_ALLOWED;
	case LAYER_TCP:
		*next = NEXT_RAW;
		return judge_protocol(j, r, PROTO_TCP);
	}
	return REASON_INTERNAL_ERROR;
}

/* ---- which entry decides ---- */

/* A place where rules may match: a name record, or a cidr. Longest first. */
struct level {
	uint32_t set;
	uint32_t rec;
	uint32_t kind;
};

static struct level level_of(const struct policy_match *m)
{
	return (struct level){ m->set, m->rec, m->exact ? RULE_EXACT : RULE_BELOW };
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

/* Does the operator deny this name or address at any length, for this profile? */
static uint32_t operator_deny(const struct judge *j, const struct level *l, unsigned n)
{
	if (!j->profile)
		return FMT_NONE;
	for (unsigned k = 0; k < n; k++) {
		struct walk w = walk_set(j, l[k].set, l[k].kind);
		for (uint32_t i; (i = walk_next(&w)) != FMT_NONE;)
			if (j->p->rules[i].flags & RULE_DENY)
				return i;
	}
	return FMT_NONE;
}

static void settle(struct judge *j, enum reason reason, uint32_t rule, uint32_t rec)
{
	j->out->reason = reason;
	j->out->rule = rule;
	j->out->rec = rec;
	j->out->action = reason == REASON_ALLOWED ? ACTION_ALLOW : ACTION_DENY;
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
		return;
	}
	settle(j, gone != FMT_NONE ? REASON_EXPIRED : REASON_NOT_LISTED, gone, gone_rec);
}

/* ---- what a binding adds, and what it is narrowed to ---- */

/* Does the rule permit all that the entry would? */
static bool rule_covers(const struct policy *p, const struct fmt_rule *r,
			const struct overlay_entry *e)
{
	if (r->flags & RULE_DENY || r->http != FMT_NONE || e->protocols & ~r->protocols)
		return false;
	if (r->ports == FMT_NONE) {
		for (unsigned i = 0; i < e->n_ports; i++) {
			const struct overlay_ports *o = &e->ports[i];
			bool https = o->lo == 443 && e->protocols == PROTO_HTTPS;
			bool http = o->lo == 80 && e->protocols == PROTO_HTTP;
			if (o->hi != o->lo || (!https && !http))
				return false;
		}
		return true;
	}
	if (e->n_ports == 0)
		return (!(e->protocols & PROTO_HTTPS) || ports_contain(p, r->ports, 443)) &&
		       (!(e->protocols & PROTO_HTTP) || ports_contain(p, r->ports, 80));
	for (unsigned i = 0; i < e->n_ports; i++)
		for (uint32_t port = e->ports[i].lo; port <= e->ports[i].hi; port++)
			if (!ports_contain(p, r->ports, (uint16_t)port))
				return false;
	return true;
}

static bool layer_covers(const struct policy *p, uint32_t layer, const struct policy_match *m,
			 const struct overlay_entry *e, int64_t now_s)
{
	const uint32_t *set = p->sets + m->set;
	uint32_t kind = m->exact ? RULE_EXACT : RULE_BELOW;
	for (uint32_t i = 0; i < set[0]; i++) {
		const struct fmt_rule *r = &p->rules[set[2 + 2 * i]];
		if (set[1 + 2 * i] == layer && r->flags & kind && rule_covers(p, r, e) &&
		    (r->expires == 0 || now_s < r->expires))
			return true;
	}
	return false;
}

/* A name below the entry's, so that its ancestors are found: wildcards at the name itself among them. */
static bool name_below(struct name *out, const struct name *n)
{
	uint8_t wire[NAME_MAX_WIRE + 3] = { 1, 'x' };
	memcpy(wire + 2, n->wire, n->len);
	wire[2 + n->len] = 0;
	return name_from_wire(out, wire, (size_t)n->len + 3, NULL) == NAME_OK;
}

bool verdict_may_add(const struct policy *p, uint32_t profile, const struct overlay_entry *e,
		     const struct now *now)
{
	struct policy_match m[POLICY_MAX_MATCHES];
	struct name below;
	const struct fmt_task *t = image_task(p, profile);
	bool wild = e->flags & OVERLAY_BELOW;
	if (!t || (wild && !name_below(&below, &e->name)))
		return false;
	unsigned n = policy_find(p, wild ? &below : &e->name, m);
	for (unsigned i = 0; i < n; i++) {
		if (wild && m[i].exact)
			continue;
		for (uint32_t k = 0; k < t->n_within; k++)
			if (layer_covers(p, p->within[t->within + k], &m[i], e,
					 now->wall_ns / 1000000000))
				return true;
	}
	return false;
}

/* What an entry of the binding says to the question; as judge_rule() does for a rule. */
static enum reason judge_overlay(const struct judge *j, const struct overlay_entry *e,
				 enum next *next)
{
	const struct question *q = j->q;
	*next = NEXT_NONE;
	switch (q->layer) {
	case LAYER_DNS:
		return REASON_ALLOWED;
	case LAYER_TLS:
		return overlay_permits(e, PROTO_HTTPS, q->port) ? REASON_ALLOWED : REASON_PORT;
	case LAYER_HTTP:
		if (q->upgrade && q->upgrade_len)
			return REASON_PROTOCOL;
		return overlay_permits(e, PROTO_HTTP, q->port) ? REASON_ALLOWED : REASON_PORT;
	case LAYER_CONNECT:
	case LAYER_TCP:
		*next = overlay_permits(e, PROTO_TCP, q->port)     ? NEXT_RAW
			: overlay_permits(e, PROTO_HTTPS, q->port) ? NEXT_TLS
			: overlay_permits(e, PROTO_HTTP, q->port)  ? NEXT_HTTP
								   : NEXT_NONE;
		return *next == NEXT_NONE ? REASON_PORT : REASON_ALLOWED;
	}
	return REASON_INTERNAL_ERROR;
}

/* How many labels the name has that decided; 0: none did. */
static unsigned decided_depth(const struct judge *j, const struct policy_match *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (j->out->rec != UINT32_MAX && m[i].rec == j->out->rec)
			return m[i].depth;
	return 0;
}

/*
 * A name that the profile does not list may be listed by the binding, as long as the policy in force
 * lets bindings add it. Never lifts `never` or a deny, at whatever length they stand.
 */
static void extend(struct judge *j, const struct level *l, const struct policy_match *m, unsigned n)
{
	const struct binding *b = j->f->binding;
	struct verdict *v = j->out;
	struct overlay_entry e;
	enum next next;
	if (v->reason != REASON_NOT_LISTED && v->reason != REASON_EXPIRED &&
	    v->reason != REASON_PROTOCOL && v->reason != REASON_PORT)
		return;
	unsigned depth = v->reason == REASON_EXPIRED ? 0 : decided_depth(j, m, n);
	if (operator_deny(j, l, n) != FMT_NONE)
		return;
	struct reader r = rd_init(b->overlay, b->overlay_len);
	for (uint32_t left = policy_task_limits(j->p, v->profile).entries; left > 0;) {
		if (!overlay_next(&r, &e))
			return;
		if (e.flags & OVERLAY_ONLY)
			continue;
		left--;
		if (!overlay_matches(&e, j->q->name) || e.name.n_labels < depth ||
		    judge_overlay(j, &e, &next) != REASON_ALLOWED ||
		    !verdict_may_add(j->p, v->profile, &e, &j->f->now))
			continue;
		settle(j, REASON_ALLOWED, FMT_NONE, UINT32_MAX);
		j->lifted = false; /* private addresses are never added */
		v->next = next;
		v->added = true;
		return;
	}
}

/* A binding that names what its task may use permits nothing else. */
static void narrow(struct judge *j)
{
	const struct binding *b = j->f->binding;
	struct verdict *v = j->out;
	struct overlay_entry e;
	enum next next;
	bool narrowed = false;
	struct reader r = rd_init(b->overlay, b->overlay_len);
	while (overlay_next(&r, &e)) {
		if (!(e.flags & OVERLAY_ONLY))
			continue;
		narrowed = true;
		if (!j->q->name || !overlay_matches(&e, j->q->name) ||
		    judge_overlay(j, &e, &next) != REASON_ALLOWED)
			continue;
		if (v->next == NEXT_NONE || next == NEXT_RAW || next == v->next)
			return;
	}
	if (!narrowed && !r.bad)
		return;
	settle(j, REASON_NOT_LISTED, FMT_NONE, UINT32_MAX);
	v->next = NEXT_NONE;
	v->added = false;
}

/* What the binding says to a name or raw address that the profile's entries have been asked about. */
static void judge_binding(struct judge *j, const struct level *l, const struct policy_match *m,
			  unsigned n)
{
	if (!j->bound || j->f->binding->overlay_len == 0)
		return;
	if (j->out->action == ACTION_DENY && m)
		extend(j, l, m, n);
	if (j->out->action == ACTION_ALLOW)
		narrow(j);
}

/* Does the binding add anything that takes this protocol on the port? */
static bool binding_has_port(const struct judge *j, unsigned proto)
{
	struct overlay_entry e;
	if (!j->bound)
		return false;
	struct reader r = rd_init(j->f->binding->overlay, j->f->binding->overlay_len);
	while (overlay_next(&r, &e))
		if (!(e.flags & OVERLAY_ONLY) && overlay_permits(&e, proto, j->q->port))
			return true;
	return false;
}

/* ---- names, cidrs ---- */

static void judge_name(struct judge *j)
{
	struct policy_match m[POLICY_MAX_MATCHES];
	struct level l[POLICY_MAX_MATCHES];
	unsigned n = policy_find(j->p, j->q->name, m);
	for (unsigned i = 0; i < n; i++)
		l[i] = level_of(&m[i]);
	judge_levels(j, l, n);
	judge_binding(j, l, m, n);
}

/* The cidr of this length that holds a, or NULL. CIDRS is sorted by length, longest first. */
static const struct fmt_cidr *find_cidr(const struct policy *p, uint32_t from, uint32_t to,
					const struct addr *a)
{
	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		const struct fmt_cidr *c = &p->cidrs[mid];
		struct prefix pre = { .len = (uint8_t)c->len };
		memcpy(pre.a.b, c->addr, 16);
		if (prefix_contains(&pre, a))
			return c;
		if (memcmp(c->addr, a->b, 16) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return NULL;
}

enum { MAX_CIDR_LEVELS = 129 };

static unsigned cidr_levels(const struct policy *p, const struct addr *a,
			    struct level out[MAX_CIDR_LEVELS])
{
	unsigned n = 0;
	for (uint32_t from = 0; from < p->n_cidrs;) {
		uint32_t to = from, hi = p->n_cidrs, len = p->cidrs[from].len;
		while (to < hi) { /* the end of this length */
			uint32_t mid = to + (hi - to) / 2;
			if (p->cidrs[mid].len >= len)
				to = mid + 1;
			else
				hi = mid;
		}
		const struct fmt_cidr *c = find_cidr(p, from, to, a);
		if (c)
			out[n++] = (struct level){ c->set, UINT32_MAX, RULE_CIDR };
		from = to;
	}
	return n;
}

/* ---- what a profile says of DNS ---- */

/* Or NULL: nothing out of the ordinary. */
static const struct fmt_dns *profile_dns(const struct policy *p, uint32_t profile)
{
	uint32_t lo = 0, hi = p->n_dns;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->dns[mid].profile == profile)
			return &p->dns[mid];
		if (p->dns[mid].profile < profile)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool has_dns_flag(const struct policy *p, uint32_t profile, uint32_t flag)
{
	const struct fmt_dns *d = profile_dns(p, profile);
	return d && d->flags & flag;
}

static bool in_private_ranges(const struct policy *p, uint32_t profile, const struct addr *a)
{
	const struct fmt_dns *d = profile_dns(p, profile);
	for (uint32_t i = 0; d && i < d->n_ranges; i++) {
		const struct fmt_prefix *r = &p->ranges[d->ranges + i];
		struct prefix pre = { .len = (uint8_t)r->len };
		memcpy(pre.a.b, r->addr, sizeof(pre.a.b));
		if (prefix_contains(&pre, a))
			return true;
	}
	return false;
}

static const struct fmt_zone *find_zone(const struct policy *p, const char *text)
{
	uint32_t lo = 0, hi = p->n_zones;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = strcmp(p->strings + p->zones[mid].name, text);
		if (c == 0)
			return &p->zones[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool owns(const struct policy *p, const struct fmt_zone *z, uint32_t profile)
{
	const uint32_t *v = p->bindsets + z->owners;
	uint32_t lo = 1, hi = v[0] + 1;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (v[mid] == profile)
			return true;
		if (v[mid] < profile)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

enum zone_of { ZONE_NONE, ZONE_OWN, ZONE_FOREIGN };

/* Whose resolvers are asked for the name: the deepest zone that holds it says so. */
static enum zone_of zone_of(const struct policy *p, uint32_t profile, const struct name *n)
{
	char text[NAME_TEXT_SIZE];
	if (p->n_zones == 0 || n->n_labels == 0)
		return ZONE_NONE;
	name_to_text(n, text);
	for (const char *s = text; s; s = strchr(s, '.')) {
		s += *s == '.';
		const struct fmt_zone *z = find_zone(p, s);
		if (z)
			return owns(p, z, profile) ? ZONE_OWN : ZONE_FOREIGN;
	}
	return ZONE_NONE;
}

bool verdict_observes(const struct policy *p, uint32_t profile)
{
	return profile < p->n_profiles && p->profiles[profile].flags & PROFILE_OBSERVE;
}

bool verdict_no_aaaa(const struct policy *p, uint32_t profile)
{
	return has_dns_flag(p, profile, DNS_NO_AAAA);
}

bool verdict_ech(const struct policy *p, uint32_t profile)
{
	return profile < p->n_profiles && p->profiles[profile].flags & PROFILE_ECH_ALLOW;
}

bool verdict_is_ancestor(const struct policy *p, uint32_t profile, const struct name *n)
{
	if (profile >= p->n_profiles || !has_dns_flag(p, profile, DNS_ANCESTORS_NODATA))
		return false;
	struct judge j = { .p = p, .profile = &p->profiles[profile] };
	uint64_t h = p->h->hash_seed;
	for (unsigned i = n->n_labels; i-- > 0;)
		h = hash_label(h, n->wire + n->off[i] + 1, n->wire[n->off[i]]);
	uint32_t lo = 0, hi = p->n_ancestors; /* the first that is not below h */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->ancestors[mid].hash < h)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < p->n_ancestors && p->ancestors[lo].hash == h; lo++)
		if (layer_rank(&j, p->ancestors[lo].layer) >= 0)
			return true;
	return false;
}

enum reason verdict_alias(const struct policy *p, uint32_t profile, const struct name *target,
			  const struct facts *f, uint32_t *rule, uint32_t *rec)
{
	const struct question q = { .layer = LAYER_DNS, .name = target };
	struct verdict v = { .action = ACTION_DENY };
	struct judge j = { .p = p, .q = &q, .f = f, .out = &v };
	j.now_s = f->now.wall_ns / 1000000000;
	if (profile < p->n_profiles)
		j.profile = &p->profiles[profile];
	judge_name(&j);
	*rule = v.rule;
	*rec = v.rec;
	if (v.reason == REASON_NEVER || v.reason == REASON_DENIED_ENTRY)
		return v.reason;
	*rule = *rec = UINT32_MAX;
	if (j.profile && zone_of(p, profile, target) == ZONE_FOREIGN)
		return REASON_DENIED_ENTRY;
	return REASON_ALLOWED;
}

/* ---- addresses ---- */

static bool is_local(const struct facts *f, const struct addr *a)
{
	size_t lo = 0, hi = f->locals.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = addr_cmp(&f->locals.v[mid], a);
		if (c == 0)
			return true;
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static struct prefix owned_prefix(const struct policy *p, uint32_t i)
{
	struct prefix pre = { .len = (uint8_t)p->owned[i].len };
	memcpy(pre.a.b, p->owned[i].addr, 16);
	return pre;
}

/* Does one of the `sources` prefixes hold it? OWNED is disjoint, IPv6 before IPv4, by address. */
static bool is_owned(const struct policy *p, const struct addr *a)
{
	bool v4 = addr_is_v4(a);
	uint32_t lo = 0, hi = p->n_owned; /* the first prefix that starts behind a */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		struct prefix pre = owned_prefix(p, mid);
		bool behind =
			prefix_is_v4(&pre) != v4 ? prefix_is_v4(&pre) : addr_cmp(&pre.a, a) > 0;
		if (behind)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == 0)
		return false;
	struct prefix pre = owned_prefix(p, lo - 1);
	return prefix_contains(&pre, a);
}

/* Is it a cidr that `never` holds or that this profile denies? */
static bool is_denied_cidr(const struct policy *p, uint32_t profile, const struct addr *a,
			   const struct facts *f)
{
	struct level l[MAX_CIDR_LEVELS];
	unsigned n = cidr_levels(p, a, l);
	for (unsigned k = 0; k < n; k++)
		if (never_rule(p, l[k].set, RULE_CIDR) != FMT_NONE)
			return true;
	if (profile >= p->n_profiles)
		return false;
	struct judge j = { .p = p,
			   .profile = &p->profiles[profile],
			   .now_s = f->now.wall_ns / 1000000000 };
	for (unsigned k = 0; k < n; k++) {
		/* longest first: an allow that is longer than the deny lifts it */
		struct walk w = walk_set(&j, l[k].set, RULE_CIDR);
		bool allow = false;
		for (uint32_t i; (i = walk_next(&w)) != FMT_NONE;) {
			if (p->rules[i].flags & RULE_DENY)
				return true;
			allow |= !expired(&j, &p->rules[i]);
		}
		if (allow)
			return false;
	}
	return false;
}

static enum reason judge_plain_address(const struct policy *p, uint32_t profile,
				       const struct addr *a, bool lifted, const struct facts *f)
{
	enum addr_class c = addr_class(a);
	if (c == ADDR_NEVER || is_local(f, a) || is_owned(p, a) || is_denied_cidr(p, profile, a, f))
		return REASON_ADDRESS;
	if (c == ADDR_PRIVATE && !lifted && !in_private_ranges(p, profile, a))
		return REASON_PRIVATE_ADDRESS;
	return REASON_ALLOWED;
}

enum reason verdict_address(const struct policy *p, uint32_t profile, const struct addr *a,
			    bool lifted, const struct facts *f)
{
	struct addr in[ADDR_MAX_EMBEDDED];
	enum reason worst = judge_plain_address(p, profile, a, lifted, f);
	unsigned n = addr_embedded(a, in);
	for (unsigned i = 0; i < n && worst != REASON_ADDRESS; i++) {
		enum reason r = judge_plain_address(p, profile, &in[i], lifted, f);
		if (r == REASON_ADDRESS || worst == REASON_ALLOWED)
			worst = r;
	}
	return worst;
}

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
	return q->layer == LAYER_TCP || (q->layer == LAYER_CONNECT && !q->name);
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
				       .rec = UINT32_MAX };
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
		return !by_destination(j->q);
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
	if (by_destination(j->q))
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
		if (j->profile && v->action == ACTION_ALLOW && !j->lifted)
			j->lifted = zone_of(j->p, v->profile, q->name) == ZONE_OWN;
		if (v->action == ACTION_ALLOW && q->layer == LAYER_DNS && !type_permitted(j)) {
			v->action = ACTION_DENY;
			v->reason = REASON_QUERY_TYPE;
		}
	}
	observe(j);
	if (v->action == ACTION_ALLOW && by_destination(q))
		judge_raw_address(j);
	else if (v->action == ACTION_ALLOW && q->resolved)
		judge_resolved(j);
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
				    .rec = UINT32_MAX };
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
