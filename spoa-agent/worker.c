/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From NOTIFY to ACK; see worker.h. Never sends a client where it wanted to go: a name is looked up
 * here, and the verdict picks the address.
 */
#include "spoa-agent/worker.h"

#include <stdlib.h>
#include <string.h>

#include "spoa-agent/answer.h"

enum { SOURCES = 1024 };

struct worker {
	struct decider *decider;
	struct decide_thread *judge;
	struct resolver *resolver;
	struct pending *pending;
	struct worker_stats stats;
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

static void finish(struct worker *w, const struct reply *to, const struct request *req,
		   struct decision *d, const struct addr *addr, struct now now)
{
	uint8_t actions[ANSWER_SIZE];
	size_t n = answer_write(actions, req, d, addr);
	decide_record(w->judge, &req->q, now, d, req->id, req->id_len);
	if (to->s)
		session_ack(to->s, to->stream, to->frame, actions, n);
	else
		session_hold_ack(to->hold, actions, n);
	w->stats.answered++;
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

/*
 * Judges with addresses. Unless `final`, only an allow is an answer: false otherwise. The question
 * is the caller's again afterwards, without them.
 */
static bool judge_addresses(struct worker *w, const struct reply *to, struct request *req,
			    const struct resolved *r, bool final)
{
	struct addr list[RESOLVE_MAX_ADDRS];
	struct decision d;
	struct now now = decide_now();
	req->q.resolved = list;
	req->q.n_resolved = resolved_list(r, wants_v6(req), list);
	req->q.aliases[0] = r->v4.a.chain;
	req->q.aliases_len[0] = r->v4.a.chain_len;
	req->q.aliases[1] = r->v6.a.chain;
	req->q.aliases_len[1] = r->v6.a.chain_len;
	decide_judge(w->judge, &req->q, now, &d);
	bool allowed = d.v.action == ACTION_ALLOW;
	const struct addr *addr = allowed && d.v.addr < req->q.n_resolved ? &list[d.v.addr] : NULL;
	if (allowed || final)
		finish(w, to, req, &d, addr, now);
	req->q.resolved = NULL;
	req->q.n_resolved = 0;
	req->q.aliases_len[0] = req->q.aliases_len[1] = 0;
	return allowed || final;
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
	p->w->stats.pending--;
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
	if (!judge_addresses(p->w, &to, &p->req, r, final))
		return false;
	pending_free(p);
	return true;
}

static struct pending *pending_new(struct worker *w, const struct request *req)
{
	uint16_t *count = source_count(w, &req->q.src);
	if (w->stats.pending >= WORKER_MAX_PENDING || *count >= WORKER_MAX_PER_SOURCE)
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
	w->stats.pending++;
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

/* A name is looked up only after the policy has allowed it. */
/* The answer that comes later is for this subject, and nobody else who holds the address by then. */
static const struct request *keep_subject(struct request *req, const struct decision *d)
{
	req->q.has_generation = true;
	req->q.generation = d->generation;
	return req;
}

void worker_notify(struct worker *w, struct session *s, const struct spop_frame *f)
{
	struct reply to = { .s = s, .stream = f->stream, .frame = f->frame };
	struct request req;
	struct decision d;
	w->stats.notifies++;
	request_read(&req, f->payload);
	bool named = has_name(&req);
	const struct resolved *known = named ? resolver_known(w->resolver, req.q.name) : NULL;
	if (known) {
		judge_addresses(w, &to, &req, known, true);
		return;
	}
	struct now now = decide_now();
	decide_judge(w->judge, &req.q, now, &d);
	if (!named || d.v.action != ACTION_ALLOW)
		finish(w, &to, &req, &d, req.q.has_dst ? &req.q.dst : NULL, now);
	else if (!wait_for_addresses(w, &to, keep_subject(&req, &d)))
		fail(w, &to, &req, &d, now);
}

bool worker_ready(const struct worker *w)
{
	return decider_ready(w->decider);
}

void worker_stats(const struct worker *w, struct worker_stats *out)
{
	*out = w->stats;
}

struct worker *worker_new(struct ev_loop *loop, struct decider *d, const struct resolver_options *o)
{
	struct worker *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->decider = d;
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
