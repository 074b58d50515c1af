/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a binding adds to its profile, and what it is narrowed to (judge.h). Never lifts `never` or a
 * deny.
 */
#include "shared/policy/judge.h"

#include <string.h>

#include "shared/policy/overlay.h"

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
		v->below = e.flags & OVERLAY_BELOW ? e.name.n_labels : 0;
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
void judge_binding(struct judge *j, const struct level *l, const struct policy_match *m, unsigned n)
{
	if (!j->bound || j->f->binding->overlay_len == 0)
		return;
	if (j->out->action == ACTION_DENY && m)
		extend(j, l, m, n);
	if (j->out->action == ACTION_ALLOW)
		narrow(j);
}

/* Does the binding add anything that takes this protocol on the port? */
bool binding_has_port(const struct judge *j, unsigned proto)
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
