/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a client's message: read, judged, refused at once or asked upstream, judged again
 * with its answer, answered and written down, once. Decides nothing itself: the gate does
 * (shared/dns/gate.h), exactly as in the module. A refusal never waits for the upstream.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "shared/host/say.h"
#include "unbound-module/shim/shim.h"
#include "unbound-module/shim/upstream.h"

enum {
	QUERIES = 4096, /* of a thread, at the upstream at once; and one that is being looked at */
	FAILURES = 4096,
	FAILURE_MAX_S = 30
};
enum { EDE_CACHED_ERROR = 13, EDE_NETWORK_ERROR = 23 };

static const double tick_s = 0.1;
static const double retry_s = 1.5;
static const double deadline_s = 5;

struct query {
	struct exchange x; /* first: the upstream hands it back */
	struct hold hold;
	struct desk *of;
	struct query *next, *prev;
	struct origin from;
	struct asked asked;
	struct name name;
	struct question q;
	struct decision d;
	struct now now; /* of the question */
	struct lookup lookup;
	double since;
	bool retried, answered;
};

/* A question that the upstream did not answer, lately (RFC 9520). */
struct failure {
	uint64_t key;
	double until;
	unsigned hold_s;
};

struct desk {
	struct shim *t;
	struct reply_room *room;
	ev_timer tick;
	struct query *unused, *spare;
	struct query *first, *last; /* open, oldest first */
	unsigned n_open;
	uint64_t secret;
	struct failure failures[FAILURES];
	struct query all[QUERIES + 1];
	uint8_t out[WIRE_MAX];
};

/* ---- answers out ---- */

static void send_to(const struct origin *o, const uint8_t *msg, size_t n)
{
	if (n == 0)
		return;
	if (o->conn)
		tcp_send(o->conn, msg, n);
	else
		udp_send(o, msg, n);
}

static void send_refusal(struct desk *d, const struct origin *o, const struct asked *a,
			 const struct decision *why)
{
	struct answer r = answer_for(why, a->qtype, a->qclass == WIRE_CLASS_IN);
	send_to(o, d->out, reply_refusal(d->out, sizeof(d->out), a, &r));
}

static void send_failure(struct desk *d, const struct origin *o, const struct asked *a,
			 uint16_t ede)
{
	const struct answer why = { .ede = ede, .text = "upstream" };
	send_to(o, d->out, reply_rcode(d->out, sizeof(d->out), a, RCODE_SERVFAIL, &why));
}

static void record(struct desk *d, const struct query *q, struct now now)
{
	if (!q->d.v.unpoliced)
		decide_record(d->t->judge, &q->q, now, &q->d, NULL, 0);
}

/* ---- failures ---- */

static struct failure *failure_of(struct desk *d, const struct query *q, uint64_t *key)
{
	uint64_t h = wire_name_hash(q->name.wire, q->name.len) ^ d->secret;
	h = (h + q->q.qtype) * UINT64_C(0x9fb21c651e98df25);
	*key = h ^ h >> 29;
	return &d->failures[*key % FAILURES];
}

static bool failed_lately(struct desk *d, const struct query *q)
{
	uint64_t key;
	const struct failure *f = failure_of(d, q, &key);
	return f->key == key && ev_now(d->t->loop) < f->until;
}

static void note_failure(struct desk *d, const struct query *q)
{
	uint64_t key;
	struct failure *f = failure_of(d, q, &key);
	unsigned hold_s = f->key == key ? 2 * f->hold_s : 1;
	hold_s = hold_s == 0 ? 1 : hold_s > FAILURE_MAX_S ? FAILURE_MAX_S : hold_s;
	*f = (struct failure){ key, ev_now(d->t->loop) + hold_s, hold_s };
}

static void note_success(struct desk *d, const struct query *q)
{
	uint64_t key;
	struct failure *f = failure_of(d, q, &key);
	if (f->key == key)
		f->hold_s = 0;
}

/* ---- the upstream's state, said once ---- */

static void upstream_is(struct desk *d, bool down)
{
	struct shim_options *o = d->t->o;
	if (atomic_load_explicit(&o->upstream_down, memory_order_relaxed) == down ||
	    atomic_exchange(&o->upstream_down, down) == down)
		return;
	if (down)
		say(DECIDE_ERR, "upstream-silent", "refused=%s",
		    upstream_refused(d->t->upstream) ? "yes" : "no");
	else
		say(DECIDE_NOTICE, "upstream-answers", "%s", "");
}

/* ---- open questions ---- */

static void open_query(struct desk *d, struct query *q)
{
	d->spare = d->unused;
	d->unused = d->spare->next;
	q->next = NULL;
	q->prev = d->last;
	if (q->prev)
		q->prev->next = q;
	else
		d->first = q;
	d->last = q;
	d->n_open++;
	q->since = ev_now(d->t->loop);
	q->retried = q->answered = false;
	if (q->from.conn)
		tcp_hold(q->from.conn, &q->hold);
}

/* Whatever it holds is given back; what is in it stays readable until the next question. */
static void close_query(struct query *q)
{
	struct desk *d = q->of;
	upstream_cancel(d->t->upstream, &q->x);
	decide_lookup_end(d->t->judge, &q->q, &q->lookup, q->answered);
	if (q->from.conn)
		tcp_release(q->from.conn, &q->hold);
	if (q->prev)
		q->prev->next = q->next;
	else
		d->first = q->next;
	if (q->next)
		q->next->prev = q->prev;
	else
		d->last = q->prev;
	d->n_open--;
	q->next = d->unused;
	d->unused = q;
}

/* No answer came. It is said only to the subject that asked. */
static void fail_query(struct query *q)
{
	struct desk *d = q->of;
	struct origin to = q->from;
	record(d, q, q->now);
	note_failure(d, q);
	close_query(q);
	if (decide_still(d->t->judge, &q->q.src, q->d.generation))
		send_failure(d, &to, &q->asked, EDE_NETWORK_ERROR);
}

void desk_forget(struct hold *h)
{
	struct query *q = (struct query *)((char *)h - offsetof(struct query, hold));
	record(q->of, q, q->now);
	q->from.conn = NULL;
	/* who leaves early has not shown that nobody answers */
	q->answered = ev_now(q->of->t->loop) - q->since < retry_s;
	close_query(q);
}

unsigned desk_open(const struct desk *d)
{
	return d->n_open;
}

/* ---- questions in ---- */

static void refuse(struct desk *d, struct query *q)
{
	record(d, q, q->now);
	if (!q->d.dropped)
		send_refusal(d, &q->from, &q->asked, &q->d);
}

/* All places are taken. */
static void turn_away(struct desk *d, struct query *q)
{
	q->d.v.action = ACTION_DENY;
	q->d.v.reason = REASON_RATE_LIMIT;
	q->d.v.observed = false;
	refuse(d, q);
	if (!atomic_exchange(&d->t->o->crowded, true))
		say(DECIDE_WARNING, "questions-refused", "limit=%d", QUERIES);
}

static void ask_upstream(struct desk *d, struct query *q)
{
	uint8_t wire[WIRE_NAME];
	memcpy(wire, q->name.wire, q->name.len);
	wire[q->name.len] = 0;
	q->x.subject = wire_name_hash(q->q.src.b, sizeof(q->q.src.b)) ^ q->d.generation;
	upstream_ask(d->t->upstream, &q->x, &q->from, wire, q->name.len + 1u, q->q.qtype,
		     q->asked.flags, q->asked.dnssec_ok);
}

/* The question passed: the answer is for this very subject. */
static void forward(struct desk *d, struct query *q)
{
	q->q.has_generation = true;
	q->q.generation = q->d.generation;
	if (failed_lately(d, q)) {
		record(d, q, q->now);
		send_failure(d, &q->from, &q->asked, EDE_CACHED_ERROR);
	} else if (!d->unused) {
		turn_away(d, q);
	} else if (!decide_lookup_begin(d->t->judge, &q->q, q->now, &q->d, &q->lookup)) {
		refuse(d, q);
	} else {
		open_query(d, q);
		ask_upstream(d, q);
	}
}

static void judge(struct desk *d, struct query *q)
{
	bool in = q->asked.qclass == WIRE_CLASS_IN;
	q->q = (struct question){
		.layer = LAYER_DNS, .src = q->from.src, .qtype = q->asked.qtype, .name = &q->name
	};
	if (name_from_wire(&q->name, q->asked.qname, q->asked.qname_len, NULL) != NAME_OK)
		q->q.name = NULL;
	if (!q->q.name || !in)
		q->q.flaw = FLAW_MALFORMED;
	if (gate_ask(d->t->judge, &q->q, q->now, &q->d) && q->q.name && in) {
		forward(d, q);
		return;
	}
	if (q->d.v.unpoliced) /* not ours to judge, and nothing that we could pass on */
		send_to(&q->from, d->out,
			reply_rcode(d->out, sizeof(d->out), &q->asked, RCODE_REFUSED, NULL));
	else
		refuse(d, q);
}

void desk_ask(struct desk *d, const struct origin *from, const uint8_t *msg, size_t n,
	      struct now now)
{
	struct wire_query wq;
	struct query *q = d->spare;
	int rcode;
	if (!wire_query_read(&wq, msg, n, &rcode)) {
		if (rcode >= 0)
			send_to(from, d->out, reply_error(d->out, msg, rcode));
		return;
	}
	asked_from(&q->asked, &wq, from->conn != NULL);
	if (rcode == RCODE_NOERROR && !(wq.flags & WIRE_RD))
		rcode = RCODE_REFUSED; /* nobody may look into the cache */
	if (rcode != RCODE_NOERROR) {
		send_to(from, d->out, reply_rcode(d->out, sizeof(d->out), &q->asked, rcode, NULL));
		return;
	}
	q->from = *from;
	q->now = now;
	judge(d, q);
}

/* ---- answers in ---- */

/* Judges it with its answer (NULL: without records), and writes it down. */
static bool judge_answer(struct desk *d, struct query *q, bool readable, struct gate *g,
			 bool *whole)
{
	struct now now = decide_now();
	bool passes = gate_open(g, d->t->judge, &q->q, now, &q->d);
	*whole = !passes || (readable && reply_show(d->room, g));
	if (!*whole)
		g->n_pins = 0; /* nothing of it is given out */
	passes = gate_close(g);
	record(d, q, now);
	return passes;
}

/* Of an answer that was cut, the client hears no more than that. */
static size_t compose(struct desk *d, struct query *q, enum upstream_event ev, const uint8_t *msg,
		      size_t n)
{
	struct gate g;
	bool whole, cut = ev == UPSTREAM_CUT, readable = !cut && reply_read(d->room, msg, n);
	bool passes = judge_answer(d, q, readable, &g, &whole);
	enum reason r = q->d.v.reason;
	/* the address is another task's by now: a refusal would still be a packet of the old one's */
	if (!passes && (r == REASON_STALE_BINDING || r == REASON_NO_BINDING))
		return 0;
	if (!passes) {
		struct answer a = answer_for(&q->d, q->asked.qtype, true);
		return reply_refusal(d->out, sizeof(d->out), &q->asked, &a);
	}
	if (cut)
		return reply_truncated(d->out, sizeof(d->out), &q->asked,
				       (uint16_t)(msg[2] << 8 | msg[3]));
	if (!whole)
		return reply_rcode(d->out, sizeof(d->out), &q->asked, RCODE_SERVFAIL, NULL);
	return reply_pass(d->room, &g, &q->asked, d->out, sizeof(d->out));
}

static void on_answer(struct exchange *x, enum upstream_event ev, const uint8_t *msg, size_t n)
{
	struct query *q = (struct query *)x;
	struct desk *d = q->of;
	struct origin to = q->from;
	if (ev == UPSTREAM_FAILED) {
		fail_query(q);
		return;
	}
	upstream_is(d, false);
	note_success(d, q);
	if (ev == UPSTREAM_CUT && q->from.conn) {
		upstream_ask_tcp(d->t->upstream, x, &q->from);
		return;
	}
	q->answered = (msg[3] & WIRE_RCODE) != RCODE_SERVFAIL;
	size_t len = compose(d, q, ev, msg, n);
	close_query(q);
	send_to(&to, d->out, len);
}

/* Oldest first: behind the first that has time left, all have. */
static void on_tick(struct ev_loop *loop, ev_timer *w, int events)
{
	struct desk *d = w->data;
	struct upstream *u = d->t->upstream;
	double now = ev_now(loop);
	struct query *next;
	for (struct query *q = d->first; q && now - q->since >= retry_s; q = next) {
		bool late = now - q->since >= deadline_s;
		bool refused = q->retried && upstream_refused(u);
		next = q->next;
		if (refused || (late && upstream_last(u) < q->since))
			upstream_is(d, true);
		if (late || refused)
			fail_query(q);
		else if (!q->retried)
			upstream_again(u, &q->x);
		q->retried = true;
	}
}

/* ---- life ---- */

struct desk *desk_new(struct shim *t)
{
	struct desk *d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->t = t;
	d->room = reply_room_new();
	for (unsigned i = 0; i < QUERIES; i++) {
		d->all[i].of = d;
		d->all[i].next = d->unused;
		d->unused = &d->all[i];
	}
	d->spare = &d->all[QUERIES];
	d->spare->of = d;
	ev_timer_init(&d->tick, on_tick, tick_s, tick_s);
	d->tick.data = d;
	ev_timer_start(t->loop, &d->tick);
	t->upstream = upstream_new(t, on_answer);
	if (d->room && t->upstream &&
	    getrandom(&d->secret, sizeof(d->secret), 0) == (ssize_t)sizeof(d->secret))
		return d;
	desk_free(d);
	return NULL;
}

void desk_free(struct desk *d)
{
	if (!d)
		return;
	ev_timer_stop(d->t->loop, &d->tick);
	while (d->first) {
		struct query *q = d->first;
		record(d, q, q->now);
		close_query(q);
	}
	upstream_free(d->t->upstream);
	d->t->upstream = NULL;
	reply_room_free(d->room);
	free(d);
}
