/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of an answer a client may see (gate.h). Never keeps a record, never looks at a message: it is
 * shown records one by one.
 */
#include "shared/dns/gate.h"

#include <string.h>

#include "shared/base/bytes.h"

enum {
	TYPE_A = 1,
	TYPE_CNAME = 5,
	TYPE_AAAA = 28,
	TYPE_DNAME = 39,
	TYPE_SVCB = 64,
	TYPE_HTTPS = 65
};

/* Parameters of HTTPS and SVCB records (RFC 9460). */
enum { KEY_MANDATORY = 0, KEY_IPV4HINT = 4, KEY_ECH = 5, KEY_IPV6HINT = 6 };

/* ---- the question ---- */

bool gate_open(struct gate *g, struct decide_thread *t, const struct question *q, struct now now,
	       struct decision *d)
{
	memset(g, 0, offsetof(struct gate, pins));
	g->t = t;
	g->q = q;
	g->d = d;
	g->removed_for = REASON_ALLOWED;
	g->p = decide_begin(t, q, now, d, &g->f);
	g->was = d->v;
	g->ttl_s = UINT32_MAX;
	g->at = q->name;
	g->filters = d->v.action == ACTION_ALLOW && !d->v.unpoliced;
	return d->v.unpoliced || d->v.action == ACTION_ALLOW;
}

bool gate_ask(struct decide_thread *t, const struct question *q, struct now now, struct decision *d)
{
	decide_ask(t, q, now, d);
	return d->v.unpoliced || d->v.action == ACTION_ALLOW;
}

bool gate_charge(struct gate *g, bool tentative)
{
	decide_charge(g->t, g->q, g->p, g->f.now, tentative, g->d);
	g->was = g->d->v;
	return g->d->v.unpoliced || g->d->v.action == ACTION_ALLOW;
}

/* ---- addresses ---- */

/* The gateway's own look-ups see every address: what may be used is judged for the client they are for. */
static bool may_see(struct gate *g, const struct addr *a)
{
	if (g->d->v.any_profile)
		return true;
	enum reason r = verdict_address(g->p, g->d->v.profile, a, g->d->v.lifted, &g->f);
	if (r == REASON_ALLOWED)
		return true;
	if (r < g->removed_for)
		g->removed_for = r;
	return false;
}

static bool no_aaaa(const struct gate *g)
{
	return !g->d->v.any_profile && verdict_no_aaaa(g->p, g->d->v.profile);
}

static void note_pin(struct gate *g, const struct addr *a)
{
	if (g->on_chain && g->n_pins < GATE_MAX_PINS)
		g->pins[g->n_pins++] = *a;
}

static enum gate_fate judge_address(struct gate *g, uint16_t type, const uint8_t *data, size_t n)
{
	struct addr a;
	if (n != (type == TYPE_A ? 4u : 16u)) {
		g->removed_for = REASON_ADDRESS;
		return GATE_DROP;
	}
	a = type == TYPE_A ? addr_from_v4(data) : addr_from_v6(data);
	if (!may_see(g, &a))
		return GATE_DROP;
	if (type == g->q->qtype)
		note_pin(g, &a);
	return GATE_KEEP;
}

/* ---- aliases ---- */

/* An alias whose target cannot be read leads nowhere that we know: refused, too. */
static void refuse_alias(struct gate *g, enum reason r, uint32_t rule, uint32_t rec)
{
	bool observe = verdict_observes(g->p, g->d->v.profile) && r == REASON_DENIED_ENTRY;
	if (g->d->v.action != ACTION_ALLOW || (observe && g->d->v.observed))
		return;
	g->d->v.reason = REASON_DENIED_ENTRY;
	g->d->v.observed = observe;
	g->d->v.rule = rule;
	g->d->v.rec = rec;
	if (!observe)
		g->d->v.action = ACTION_DENY;
}

static void judge_alias(struct gate *g, uint16_t type, const uint8_t *data, size_t n, size_t *used)
{
	struct name target;
	uint32_t rule = UINT32_MAX, rec = UINT32_MAX;
	enum reason r = REASON_NEVER;
	*used = 0;
	if (name_from_wire(&target, data, n, used) == NAME_OK) {
		r = verdict_alias(g->p, g->d->v.profile, &target, &g->f, &rule, &rec);
		if (type == TYPE_CNAME && g->on_chain) {
			g->alias = target;
			g->at = &g->alias;
		}
	}
	if (r != REASON_ALLOWED)
		refuse_alias(g, r, rule, rec);
}

/* ---- HTTPS and SVCB ---- */

/* One parameter on its way: what becomes of it. */
struct param {
	uint16_t key;
	const uint8_t *value;
	size_t n;
};

/* The addresses of a hint that may be seen, into w; returns how many. */
static unsigned filter_hint(struct gate *g, const struct param *p, struct writer *w)
{
	size_t size = p->key == KEY_IPV4HINT ? 4 : 16;
	unsigned kept = 0;
	for (size_t i = 0; i + size <= p->n; i += size) {
		const uint8_t *b = p->value + i;
		struct addr a = size == 4 ? addr_from_v4(b) : addr_from_v6(b);
		if (!may_see(g, &a))
			continue;
		wr_bytes(w, b, size);
		kept++;
	}
	return kept;
}

/* Writes what is left of a parameter. False if nothing is. */
static bool filter_param(struct gate *g, const struct param *p, struct writer *w)
{
	bool v6 = p->key == KEY_IPV6HINT;
	if (p->key == KEY_ECH && !g->d->v.any_profile && !verdict_ech(g->p, g->d->v.profile))
		return false;
	if (v6 && no_aaaa(g))
		return false;
	struct writer value = *w;
	wr_be16(&value, p->key);
	size_t at = value.len;
	wr_be16(&value, 0);
	if (p->key != KEY_IPV4HINT && !v6)
		wr_bytes(&value, p->value, p->n);
	else if (filter_hint(g, p, &value) == 0)
		return false;
	size_t n = value.len - at - 2;
	if (!value.bad) {
		value.p[at] = (uint8_t)(n >> 8);
		value.p[at + 1] = (uint8_t)n;
	}
	*w = value;
	return true;
}

/* Is the key among those that the record calls mandatory? */
static bool is_mandatory(const struct param *mandatory, uint16_t key)
{
	for (size_t i = 0; i + 2 <= mandatory->n; i += 2)
		if (mandatory->value[i] == key >> 8 && mandatory->value[i + 1] == (key & 0xff))
			return true;
	return false;
}

/*
 * Priority, target, parameters in ascending order. A record that is not well-formed, or that needs a
 * parameter which may not be seen, is dropped.
 */
static enum gate_fate judge_service(struct gate *g, const uint8_t *data, size_t n, uint8_t *out,
				    size_t *out_n)
{
	uint8_t scratch[65535];
	struct reader r = rd_init(data, n);
	struct writer w = wr_init(out ? out : scratch, out ? n : sizeof(scratch));
	struct param mandatory = { .n = 0 };
	int last = -1;
	size_t used;
	rd_be16(&r);
	if (r.bad)
		return GATE_DROP;
	judge_alias(g, TYPE_SVCB, r.p, r.left, &used);
	rd_skip(&r, used);
	wr_bytes(&w, data, 2 + used);
	while (!r.bad && r.left > 0) {
		struct param p = { .key = rd_be16(&r) };
		p.n = rd_be16(&r);
		p.value = rd_take(&r, p.n);
		size_t size = p.key == KEY_IPV4HINT ? 4 : p.key == KEY_IPV6HINT ? 16 : 1;
		if (r.bad || p.key <= last || p.n % size)
			return GATE_DROP;
		last = p.key;
		if (p.key == KEY_MANDATORY)
			mandatory = p;
		if (!filter_param(g, &p, &w) && is_mandatory(&mandatory, p.key))
			return GATE_DROP;
	}
	if (r.bad || w.bad || used == 0)
		return GATE_DROP;
	*out_n = w.len;
	return w.len == n ? GATE_KEEP : GATE_CHANGED;
}

/* ---- records ---- */

static enum gate_fate judge_record(struct gate *g, enum gate_section s, uint16_t type,
				   const uint8_t *data, size_t n, uint8_t *out, size_t *out_n)
{
	size_t used;
	switch (type) {
	case TYPE_A:
		return judge_address(g, type, data, n);
	case TYPE_AAAA:
		return no_aaaa(g) ? GATE_DROP : judge_address(g, type, data, n);
	case TYPE_CNAME:
	case TYPE_DNAME:
		if (s == GATE_ANSWER)
			judge_alias(g, type, data, n, &used);
		return GATE_KEEP;
	case TYPE_SVCB:
	case TYPE_HTTPS:
		return judge_service(g, data, n, out, out_n);
	default:
		return GATE_KEEP;
	}
}

void gate_owner(struct gate *g, enum gate_section s, const uint8_t *wire, size_t n, uint32_t ttl_s)
{
	g->on_chain = g->filters && s == GATE_ANSWER && g->at && name_is_wire(g->at, wire, n);
	if (g->on_chain && ttl_s < g->ttl_s)
		g->ttl_s = ttl_s;
}

enum gate_fate gate_record(struct gate *g, enum gate_section s, uint16_t type, const uint8_t *data,
			   size_t n, uint8_t *out, size_t *out_n)
{
	if (!g->filters)
		return GATE_KEEP;
	enum gate_fate fate = judge_record(g, s, type, data, n, out, out_n);
	bool wanted = s == GATE_ANSWER && type == g->q->qtype;
	g->wanted += wanted;
	g->removed += wanted && fate == GATE_DROP;
	g->changed |= fate != GATE_KEEP;
	return fate;
}

/*
 * A refusal that came to light behind the question itself: of an alias, or because nothing is left. An
 * observing profile passes what the policy does not list, and still no address that must not be
 * reached.
 */
bool gate_close(struct gate *g)
{
	struct verdict *v = &g->d->v;
	if (g->filters && v->action == ACTION_ALLOW && g->wanted > 0 && g->wanted == g->removed) {
		v->action = ACTION_DENY;
		v->observed = false;
		v->reason = g->removed_for < REASON_ALLOWED ? g->removed_for : REASON_QUERY_TYPE;
	}
	if (v->action != g->was.action || v->reason != g->was.reason)
		decide_describe(g->t, g->p, g->d);
	decide_end(g->t);
	if (g->filters && v->action == ACTION_ALLOW && !v->any_profile && g->n_pins > 0)
		decide_pin(g->t, g->q, g->d->generation, g->pins, g->n_pins, g->ttl_s,
			   g->f.now.boot_ns);
	return v->unpoliced || v->action == ACTION_ALLOW;
}
