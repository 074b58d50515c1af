/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From NOTIFY to ACK; see worker.h. Never sends a client where it wanted to go: a name is looked up
 * here, and the verdict picks the address.
 */
#include "spoa-agent/worker.h"

#include <stdlib.h>
#include <string.h>

#include "shared/live/stream.h"
#include "spoa-agent/answer.h"
#include "spoa-agent/secret.h"

enum { SOURCES = 1024, MAX_CANDIDATES = 64 };

/* Addresses that a name has, in the order in which they are preferred. */
struct candidates {
	struct addr v[MAX_CANDIDATES];
	unsigned n;
	const struct resolved *r; /* where aliases led; NULL: judged when they were pinned */
};

struct worker {
	struct decider *decider;
	struct streams *streams;
	struct decide_thread *judge;
	struct resolver *resolver;
	const char *secrets;
	struct pending *pending;
	unsigned n_pending;
	uint16_t per_source[SOURCES]; /* pending answers, by a hash: sources may share a count */
};

/* A NOTIFY whose name is being looked up. */
struct pending {
	struct resolve_waiter wait; /* first: the resolver hands it back */
	struct session_hold hold;
	struct worker *w;
	struct pending *next, **link;
	struct request req;
	char text[]; /* of req */
};

/* Where the answer goes. */
struct reply {
	struct session *s; /* NULL: by the hold */
	uint64_t stream, frame;
	struct session_hold *hold;
};

/* What is allowed now can be found and judged again later. */
static void note_stream(struct worker *w, const struct request *req, const struct decision *d,
			const struct addr *addr, struct now now)
{
	const struct question *q = &req->q;
	struct stream s = { .layer = q->layer,
			    .src = q->src,
			    .dst = req->at,
			    .src_port = req->src_port,
			    .dst_port = req->at_port,
			    .port = q->port,
			    .has_to = addr != NULL,
			    .generation = d->generation,
			    .since_ns = now.boot_ns,
			    .ech = q->ech,
			    .named = q->layer == LAYER_TCP && q->name,
			    .method = q->method,
			    .path = q->path,
			    .upgrade = q->upgrade,
			    .method_len = q->method_len,
			    .path_len = q->path_len,
			    .upgrade_len = q->upgrade_len };
	if (addr)
		s.to = *addr;
	s.n_names = 1;
	s.names = q->name ? q->name : decide_pinned(w->judge, &s.n_names);
	memcpy(s.rule, d->rule, sizeof(s.rule));
	streams_put(w->streams, &s);
}

/*
 * What the proxy has to be told. Without it there is no way out; and only HAProxy itself may hear it,
 * whoever else can ask this agent.
 */
static void read_auth(struct worker *w, const struct reply *to, struct decision *d,
		      char auth[SECRET_BASIC_SIZE])
{
	const struct session *s = to->s ? to->s : to->hold->session;
	auth[0] = '\0';
	if (d->v.action != ACTION_ALLOW || !d->upstream_auth[0])
		return;
	if (s && s->trusted && w->secrets && secret_basic(w->secrets, d->upstream_auth, auth))
		return;
	answer_fail(d);
	d->v.reason = REASON_CREDENTIAL;
}

static void finish(struct worker *w, const struct reply *to, const struct request *req,
		   struct decision *d, const struct addr *addr, struct now now)
{
	uint8_t actions[ANSWER_SIZE];
	char auth[SECRET_BASIC_SIZE];
	read_auth(w, to, d, auth);
	size_t n = answer_write(actions, req, d, addr, auth);
	explicit_bzero(auth, sizeof(auth));
	if (d->v.action == ACTION_ALLOW && (addr || d->v.by_name) && w->streams && req->src_port)
		note_stream(w, req, d, addr, now);
	decide_record(w->judge, &req->q, now, d, req->id, req->id_len);
	if (to->s)
		session_ack(to->s, to->stream, to->frame, actions, n);
	else
		session_hold_ack(to->hold, actions, n);
}

static void fail(struct worker *w, const struct reply *to, const struct request *req,
		 struct decision *d, struct now now)
{
	answer_fail(d);
	finish(w, to, req, d, NULL, now);
}

static bool wants_v6(const struct request *req)
{
	return req->q.has_dst && !addr_is_v4(&req->q.dst);
}

/* The client's own choice first, where it is one of the name's: so it can try one after another. */
static void prefer_choice(struct candidates *c, const struct request *req)
{
	for (unsigned i = 1; req->q.has_dst && i < c->n; i++) {
		if (addr_cmp(&c->v[i], &req->q.dst) != 0)
			continue;
		memmove(c->v + 1, c->v, i * sizeof(*c->v));
		c->v[0] = req->q.dst;
		return;
	}
}

/* What DNS gave to this very client. */
static void pinned_candidates(struct worker *w, const struct request *req, struct now now,
			      struct candidates *c)
{
	struct addr v[MAX_CANDIDATES];
	unsigned n = decide_addrs(w->judge, &req->q, now, v, MAX_CANDIDATES);
	c->n = 0;
	c->r = NULL;
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < n; i++)
			if (addr_is_v4(&v[i]) == (wants_v6(req) == (round == 1)))
				c->v[c->n++] = v[i];
	prefer_choice(c, req);
}

static void resolved_candidates(const struct request *req, const struct resolved *r,
				struct candidates *c)
{
	_Static_assert((int)RESOLVE_MAX_ADDRS <= (int)MAX_CANDIDATES, "room for all");
	c->n = resolved_list(r, wants_v6(req), c->v);
	c->r = r;
	prefer_choice(c, req);
}

/*
 * Judges with addresses. Unless `final`, only an allow is an answer: false otherwise. The question
 * is the caller's again afterwards, without them. An answer is charged for, unless that is `paid`.
 */
static bool judge_addresses(struct worker *w, const struct reply *to, struct request *req,
			    const struct candidates *c, struct now now, bool final, bool paid)
{
	struct decision d;
	struct facts f;
	req->q.resolved = c->v;
	req->q.n_resolved = c->n;
	if (c->r) {
		req->q.aliases[0] = c->r->v4.a.chain;
		req->q.aliases_len[0] = c->r->v4.a.chain_len;
		req->q.aliases[1] = c->r->v6.a.chain;
		req->q.aliases_len[1] = c->r->v6.a.chain_len;
	}
	const struct policy *p = decide_begin(w->judge, &req->q, now, &d, &f);
	bool answers = final || d.v.action == ACTION_ALLOW;
	if (answers && !paid)
		decide_charge(w->judge, &req->q, p, now, false, &d);
	decide_end(w->judge);
	bool allowed = d.v.action == ACTION_ALLOW;
	const struct addr *addr = allowed && d.v.addr < req->q.n_resolved ? &c->v[d.v.addr] : NULL;
	if (answers)
		finish(w, to, req, &d, addr, now);
	req->q.resolved = NULL;
	req->q.n_resolved = 0;
	req->q.aliases_len[0] = req->q.aliases_len[1] = 0;
	return answers;
}

/* ---- waiting for a look-up ----------------------------------------------------------------- */

static uint16_t *source_count(struct worker *w, const struct addr *a)
{
	uint64_t h = 0;
	for (unsigned i = 0; i < sizeof(a->b); i++)
		h = (h ^ a->b[i]) * UINT64_C(0x9fb21c651e98df25);
	return &w->per_source[(h >> 32) % SOURCES];
}

static void pending_free(struct pending *p)
{
	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
	p->w->n_pending--;
	(*source_count(p->w, &p->req.q.src))--;
	free(p);
}

/* With one family there, an answer needs no more if an address of it may be used. */
static bool on_resolved(struct resolve_waiter *wait, const struct resolved *r, bool final)
{
	struct pending *p = (struct pending *)wait;
	const struct resolve_half *first = wants_v6(&p->req) ? &r->v6 : &r->v4;
	if (!final && (!first->done || first->a.n == 0))
		return false;
	struct reply to = { .hold = &p->hold };
	struct candidates c;
	resolved_candidates(&p->req, r, &c);
	if (!judge_addresses(p->w, &to, &p->req, &c, decide_now(), final, true))
		return false;
	pending_free(p);
	return true;
}

static struct pending *pending_new(struct worker *w, const struct request *req)
{
	uint16_t *count = source_count(w, &req->q.src);
	if (w->n_pending >= WORKER_MAX_PENDING || *count >= WORKER_MAX_PER_SOURCE)
		return NULL;
	struct pending *p = malloc(sizeof(*p) + request_text_size(req));
	if (!p)
		return NULL;
	memset(p, 0, offsetof(struct pending, req));
	p->w = w;
	p->wait.ready = on_resolved;
	request_copy(&p->req, req, p->text);
	p->next = w->pending;
	p->link = &w->pending;
	if (p->next)
		p->next->link = &p->next;
	w->pending = p;
	w->n_pending++;
	(*count)++;
	return p;
}

/* False: it cannot wait. */
static bool wait_for_addresses(struct worker *w, const struct reply *to, const struct request *req)
{
	struct pending *p = pending_new(w, req);
	if (!p)
		return false;
	if (session_hold_add(to->s, &p->hold, to->stream, to->frame)) {
		if (resolver_wait(w->resolver, p->req.q.name, &p->wait))
			return true;
		session_hold_remove(&p->hold);
	}
	pending_free(p);
	return false;
}

/* ---- NOTIFY -------------------------------------------------------------------------------- */

static bool has_name(const struct request *req)
{
	return req->q.flaw == FLAW_NONE && req->q.name && req->q.layer != LAYER_CONNECT;
}

/* The answer that comes later is for this subject, and nobody else who holds the address by then. */
static const struct request *keep_subject(struct request *req, const struct decision *d)
{
	req->q.has_generation = true;
	req->q.generation = d->generation;
	return req;
}

/*
 * The address is one that DNS gave to this client, if it holds and may be used; else one that we look up
 * ourselves, which only happens after the policy has allowed the name.
 */
static void answer_named(struct worker *w, const struct reply *to, struct request *req,
			 struct now now)
{
	struct candidates c;
	struct decision d;
	pinned_candidates(w, req, now, &c);
	if (c.n > 0 && judge_addresses(w, to, req, &c, now, false, false))
		return;
	const struct resolved *known = resolver_known(w->resolver, req->q.name);
	if (known) {
		resolved_candidates(req, known, &c);
		judge_addresses(w, to, req, &c, now, true, false);
		return;
	}
	decide_ask(w->judge, &req->q, now, &d);
	if (d.v.action != ACTION_ALLOW || d.v.by_name)
		finish(w, to, req, &d, NULL, now);
	else if (!wait_for_addresses(w, to, keep_subject(req, &d)))
		fail(w, to, req, &d, now);
}

void worker_notify(struct worker *w, struct session *s, const struct spop_frame *f)
{
	struct reply to = { .s = s, .stream = f->stream, .frame = f->frame };
	struct request req;
	struct decision d;
	request_read(&req, f->payload);
	struct now now = decide_now();
	if (has_name(&req)) {
		answer_named(w, &to, &req, now);
		return;
	}
	decide_ask(w->judge, &req.q, now, &d);
	finish(w, &to, &req, &d, req.q.has_dst ? &req.q.dst : NULL, now);
}

bool worker_ready(const struct worker *w)
{
	return decider_ready(w->decider);
}

struct worker *worker_new(struct ev_loop *loop, struct decider *d, struct streams *streams,
			  const struct resolver_options *o, const char *secrets)
{
	struct worker *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->decider = d;
	w->streams = streams;
	w->secrets = secrets;
	w->judge = decide_thread_new(d);
	w->resolver = resolver_new(loop, o);
	if (w->judge && w->resolver)
		return w;
	worker_free(w);
	return NULL;
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	while (w->pending) {
		struct pending *p = w->pending;
		struct reply to = { .hold = &p->hold };
		struct decision d;
		struct now now = decide_now();
		decide_judge(w->judge, &p->req.q, now, &d);
		resolve_cancel(&p->wait);
		fail(w, &to, &p->req, &d, now);
		pending_free(p);
	}
	resolver_free(w->resolver);
	if (w->judge)
		decide_thread_free(w->judge);
	free(w);
}
