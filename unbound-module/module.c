/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module that Unbound loads: turns Unbound's queries into questions, and decisions into answers.
 * The only file that sees Unbound's headers. Must never decide anything itself, and where anything
 * about the host program is in doubt it refuses every client and says so.
 *
 * One client, one query state, one verdict: `unique_mesh` keeps identical queries of two clients
 * apart, operate() judges a state when it starts. What is cached never gets there, so either
 *   - the reply_cache callback's veto is honoured (our change to Unbound): the callback lets a cached
 *     answer pass for a client that may have it, and sends every other query to operate(); or
 *   - it is not: then queries work on a message cache of our own, which the worker does not know, so
 *     that nothing is ever answered without operate().
 * Which of the two is found out at start by calling the callbacks.
 *
 * An answer is judged once more when it is there, record by record (shared/dns/gate.h). What a cache
 * holds is never touched: a cached answer of which a client may see only a part is vetoed, too, and
 * comes back through operate() as a copy in the query's own memory, out of which the parts are taken.
 *
 * Threads: init() and deinit() run in the main thread while there are no workers. operate() and the
 * callbacks run in the workers at once; what they share is written before the workers start, or is
 * atomic. The hot path takes no lock of ours.
 */
#include "config.h"

#include "daemon/daemon.h"
#include "daemon/worker.h"
#include "dynlibmod/dynlibmod.h"
#include "services/cache/dns.h"
#include "services/localzone.h"
#include "services/mesh.h"
#include "services/view.h"
#include "sldns/rrdef.h"
#include "util/config_file.h"
#include "util/data/dname.h"
#include "util/data/msgreply.h"
#include "util/data/packed_rrset.h"
#include "util/log.h"
#include "util/module.h"
#include "util/net_help.h"
#include "util/netevent.h"
#include "util/regional.h"
#include "util/storage/slabhash.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "shared/base/name.h"
#include "shared/dns/answer.h"
#include "shared/dns/gate.h"
#include "shared/live/decide.h"
#include "shared/policy/features.h"
#include "unbound-module/buildid.h"

#define EXPORT __attribute__((visibility("default")))

/* The build id of the Unbound that this module is made for. Without one it serves nowhere. */
#ifndef CX_UNBOUND_BUILD_ID
#define CX_UNBOUND_BUILD_ID ""
#endif

/*
 * For the test suite; no build that is shipped defines them. It proves that it would see a leak with
 * CX_TEST_STOCK_CACHE, which leaves cached answers as Unbound gives them, and CX_TEST_SHARED_FLIGHT,
 * which leaves identical queries in flight together. CX_TEST_OWN_CACHE takes our own cache although
 * the veto is honoured, for sanitizer builds of which there is only one.
 */
#ifdef CX_TEST_STOCK_CACHE
enum { TEST_STOCK_CACHE = 1 };
#else
enum { TEST_STOCK_CACHE = 0 };
#endif
#ifdef CX_TEST_SHARED_FLIGHT
enum { TEST_SHARED_FLIGHT = 1 };
#else
enum { TEST_SHARED_FLIGHT = 0 };
#endif
#ifdef CX_TEST_OWN_CACHE
enum { TEST_OWN_CACHE = 1 };
#else
enum { TEST_OWN_CACHE = 0 };
#endif

/* What a worker thread owns. Lives until deinit(): query states point into it to their end. */
struct thread_state {
	struct thread_state *next;
	struct decide_thread *decide;
	bool checked;          /* the layout, at the thread's first query */
	struct module_env env; /* the worker's, with our message cache in place of the shared one */
};

static struct {
	bool running;
	int id;
	struct decider *decider; /* NULL: could not be started, every client is refused */
	struct slabhash *cache;  /* our message cache; NULL: the veto is honoured */
	bool no_cached_answers;  /* even with the veto: another module may change its mind later */
	unsigned generation;     /* of init(); thread states of earlier ones are gone */
	pthread_mutex_t lock;    /* threads; taken once per thread */
	struct thread_state *threads;
	atomic_bool doubted;
	atomic_bool foreign_entries; /* the shared message cache answered though it must be empty */
	atomic_bool foreign_told;
} cx = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool probing; /* init() only: callbacks veto and do nothing else */

static __thread __attribute__((tls_model("initial-exec"))) struct {
	struct thread_state *state;
	unsigned generation;
} here;

EXPORT int init(struct module_env *env, int id);
EXPORT void deinit(struct module_env *env, int id);
EXPORT void operate(struct module_qstate *q, enum module_ev ev, int id, struct outbound_entry *out);
EXPORT void inform_super(struct module_qstate *q, int id, struct module_qstate *super);
EXPORT void clear(struct module_qstate *q, int id);
EXPORT size_t get_mem(struct module_env *env, int id);

/* ---- doubts ---- */

/* From now on every client is refused. Says why, once. */
static void doubt(const char *what, const char *detail)
{
	if (!atomic_exchange(&cx.doubted, true))
		log_err("cx: refusing-all why=\"%s%s%s\"", what, *detail ? ": " : "", detail);
}

/*
 * Does the running Unbound look like the one we were compiled for? The build id says so already; this
 * is the second opinion, on the very pointers that we are about to follow.
 */
static bool layout_holds(const struct module_qstate *q, int id)
{
	if (!q->mesh_info || &q->mesh_info->s != q || !q->env || !q->env->mesh)
		return false;
	const struct module_env *base = q->env->mesh->env;
	if (!base || base->mesh != q->env->mesh || !base->worker || &base->worker->env != base)
		return false;
	const struct daemon *d = base->worker->daemon;
	if (!d || base->cfg != d->cfg)
		return false;
	const struct dynlibmod_env *de = base->modinfo[id];
	if (!de || de->func_operate != operate)
		return false;
	return base->unique_mesh == !TEST_SHARED_FLIGHT;
}

/* ---- threads ---- */

static struct thread_state *new_thread_state(void)
{
	struct thread_state *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->decide = cx.decider ? decide_thread_new(cx.decider) : NULL;
	pthread_mutex_lock(&cx.lock);
	t->next = cx.threads;
	cx.threads = t;
	pthread_mutex_unlock(&cx.lock);
	return t;
}

/* This thread's state, or NULL if there is no memory. */
static struct thread_state *thread_state(void)
{
	if (here.generation != cx.generation || !here.state) {
		here.state = new_thread_state();
		here.generation = cx.generation;
	}
	return here.state;
}

static void free_thread_states(void)
{
	while (cx.threads) {
		struct thread_state *t = cx.threads;

		cx.threads = t->next;
		if (t->decide)
			decide_thread_free(t->decide);
		free(t);
	}
}

/* ---- questions ---- */

/* One client's query on its way through the decision. */
struct hearing {
	struct thread_state *t;
	struct question q;
	struct name name;
	struct now now;
	struct decision d;
};

static void ask(struct hearing *h, struct thread_state *t, const struct query_info *qi,
		const struct comm_reply *from)
{
	h->t = t;
	h->q = (struct question){ .layer = LAYER_DNS, .qtype = qi->qtype };
	if (name_from_wire(&h->name, qi->qname, qi->qname_len, NULL) == NAME_OK)
		h->q.name = &h->name;
	if (!h->q.name || qi->qclass != LDNS_RR_CLASS_IN)
		h->q.flaw = FLAW_MALFORMED;
	if (!addr_from_sockaddr(&h->q.src, NULL, (const struct sockaddr *)&from->client_addr,
				from->client_addrlen))
		h->q.flaw = FLAW_INTERNAL;
}

/* Opens the gate; false if the question does not pass. close_hearing() is due in either case. */
static bool open_hearing(struct hearing *h, struct gate *g)
{
	if (atomic_load_explicit(&cx.doubted, memory_order_relaxed))
		h->q.flaw = FLAW_INTERNAL;
	if (h->t && h->t->decide) {
		h->now = decide_now();
		return gate_open(g, h->t->decide, &h->q, h->now, &h->d);
	}
	memset(&h->d, 0, sizeof(h->d));
	h->d.v.action = ACTION_DENY;
	h->d.v.reason = REASON_NO_POLICY;
	return false;
}

static bool close_hearing(struct hearing *h, struct gate *g)
{
	return h->t && h->t->decide ? gate_close(g) : false;
}

/* Judges the question alone, and lets the client pay for it. */
static bool hear(struct hearing *h)
{
	struct gate g;

	open_hearing(h, &g);
	if (h->t && h->t->decide)
		gate_charge(&g, false);
	return close_hearing(h, &g);
}

/* Writes the verdict down. Exactly once per query of a client. */
static void record(struct hearing *h)
{
	if (h->t && h->t->decide && !h->d.v.unpoliced)
		decide_record(h->t->decide, &h->q, h->now, &h->d, NULL, 0);
}

/*
 * What q->minfo points to, from operate(new) on: the one client of a query, and what became of its
 * question. In the query's memory.
 */
struct visit {
	struct hearing h;
	struct answer refusal; /* if refused */
	bool refused;
	bool looking; /* a look-up is under way for it: */
	struct lookup lookup;
	bool answered; /* judged with its answer, and written down */
};

/* ---- answers ---- */

/* One record as an rrset in the query's memory, or NULL. The name is borrowed. */
static struct ub_packed_rrset_key *make_rrset(struct regional *r, uint8_t *name, size_t name_len,
					      uint16_t type, const uint8_t *rdata, size_t n,
					      time_t ttl)
{
	struct ub_packed_rrset_key *k = regional_alloc_zero(r, sizeof(*k));
	struct packed_rrset_data *d = regional_alloc_zero(r, sizeof(*d));
	uint8_t *rr = regional_alloc(r, n + 2);

	if (!k || !d || !rr)
		return NULL;
	d->rr_len = regional_alloc_zero(r, sizeof(*d->rr_len));
	d->rr_data = regional_alloc_zero(r, sizeof(*d->rr_data));
	d->rr_ttl = regional_alloc_zero(r, sizeof(*d->rr_ttl));
	if (!d->rr_len || !d->rr_data || !d->rr_ttl)
		return NULL;
	rr[0] = (uint8_t)(n >> 8);
	rr[1] = (uint8_t)n;
	memcpy(rr + 2, rdata, n);
	d->rr_len[0] = n + 2;
	d->rr_data[0] = rr;
	d->rr_ttl[0] = ttl;
	d->ttl = ttl;
	d->count = 1;
	d->trust = rrset_trust_ultimate;
	d->security = sec_status_insecure;
	k->entry.key = k;
	k->entry.data = d;
	k->rk.dname = name;
	k->rk.dname_len = name_len;
	k->rk.type = htons(type);
	k->rk.rrset_class = htons(LDNS_RR_CLASS_IN);
	return k;
}

/*
 * The record of a refusal. The SOA of an NXDOMAIN belongs to the name above: a zone of that very name
 * would contradict it. A NODATA's belongs to the name itself.
 */
static struct ub_packed_rrset_key *make_record(struct module_qstate *q, const struct answer *a)
{
	uint8_t rdata[ANSWER_RDATA_SIZE];
	uint8_t *name = q->qinfo.qname;
	size_t len = q->qinfo.qname_len;

	if (a->form == ANSWER_HINFO)
		return make_rrset(q->region, name, len, LDNS_RR_TYPE_HINFO, rdata,
				  answer_hinfo(rdata), a->ttl_s);
	if (a->form == ANSWER_NXDOMAIN)
		dname_remove_label(&name, &len);
	return make_rrset(q->region, name, len, LDNS_RR_TYPE_SOA, rdata,
			  answer_soa(rdata, a->ttl_s), a->ttl_s);
}

/* A whole message with its one record, in the query's memory; NULL if there is none. */
static struct dns_msg *make_message(struct module_qstate *q, const struct answer *a)
{
	struct {
		struct dns_msg msg;
		struct reply_info rep;
		struct ub_packed_rrset_key *rrset;
	} *m = regional_alloc_zero(q->region, sizeof(*m));

	if (!m)
		return NULL;
	m->rrset = make_record(q, a);
	if (!m->rrset)
		return NULL;
	m->rep.flags = BIT_QR | BIT_RA;
	if (a->form == ANSWER_NXDOMAIN)
		m->rep.flags |= LDNS_RCODE_NXDOMAIN;
	m->rep.qdcount = 1;
	m->rep.ttl = a->ttl_s;
	m->rep.prefetch_ttl = a->ttl_s;
	m->rep.serve_expired_ttl = a->ttl_s;
	/* not "unchecked", which Unbound with a validator turns into SERVFAIL */
	m->rep.security = sec_status_insecure;
	m->rep.an_numrrsets = a->form == ANSWER_HINFO;
	m->rep.ns_numrrsets = a->form != ANSWER_HINFO;
	m->rep.rrset_count = 1;
	m->rep.rrsets = &m->rrset;
	m->msg.qinfo = q->qinfo;
	m->msg.rep = &m->rep;
	return &m->msg;
}

static void add_ede(struct edns_option **list, const struct answer *a, struct regional *r)
{
	uint8_t ede[ANSWER_EDE_SIZE];

	/* without it the answer is still right */
	(void)edns_opt_list_append(list, LDNS_EDNS_EDE, answer_ede(ede, a), ede, r);
}

/* Ends a query with a failure that says nothing about the name. */
static void fail(struct module_qstate *q, int id)
{
	q->return_msg = NULL;
	q->return_rcode = LDNS_RCODE_SERVFAIL;
	q->no_cache_lookup = 1; /* or an expired answer would be served instead of the failure */
	q->ext_state[id] = module_finished;
}

static struct answer refusal_of(const struct module_qstate *q, const struct hearing *h)
{
	return answer_for(&h->d, q->qinfo.qtype, q->qinfo.qclass == LDNS_RR_CLASS_IN);
}

static void refuse(struct module_qstate *q, int id, struct visit *v)
{
	struct answer *a = &v->refusal;

	fail(q, id);
	*a = refusal_of(q, &v->h);
	v->refused = v->answered = true;
	if (a->form == ANSWER_SERVFAIL)
		return; /* on_servfail() adds the reason */
	add_ede(&q->edns_opts_front_out, a, q->region);
	if (a->form == ANSWER_REFUSED) {
		q->return_rcode = LDNS_RCODE_REFUSED;
		return;
	}
	q->return_msg = make_message(q, a);
	if (q->return_msg)
		q->return_rcode = LDNS_RCODE_NOERROR;
}

/* ---- answers: record by record ---- */

static enum gate_section section_of(const struct reply_info *rep, size_t i)
{
	if (i < rep->an_numrrsets)
		return GATE_ANSWER;
	return i < rep->an_numrrsets + rep->ns_numrrsets ? GATE_AUTHORITY : GATE_ADDITIONAL;
}

/* The data behind its length, which stands before it in two octets. */
static enum gate_fate judge_rr(struct gate *g, enum gate_section s,
			       const struct ub_packed_rrset_key *k, size_t i, uint8_t *out,
			       size_t *out_n)
{
	const struct packed_rrset_data *d = k->entry.data;
	size_t n = d->rr_len[i] < 2 ? 0 : d->rr_len[i] - 2;

	return gate_record(g, s, ntohs(k->rk.type), d->rr_data[i] + 2, n, out, out_n);
}

/* Sets in the cache say until when they hold, in s since 1970; copies for a query, how long. */
static void show_owner(struct gate *g, enum gate_section s, const struct ub_packed_rrset_key *k,
		       time_t since)
{
	const struct packed_rrset_data *d = k->entry.data;
	time_t ttl = d->ttl > since ? d->ttl - since : 0;

	gate_owner(g, s, k->rk.dname, k->rk.dname_len, ttl > INT32_MAX ? INT32_MAX : (uint32_t)ttl);
}

/* Only looks, at what is in the cache: how the gate closes is what counts. */
static void look_at(struct gate *g, const struct reply_info *rep)
{
	size_t n;

	for (size_t i = 0; i < rep->rrset_count; i++) {
		const struct packed_rrset_data *d = rep->rrsets[i]->entry.data;

		show_owner(g, section_of(rep, i), rep->rrsets[i], g->f.now.wall_ns / 1000000000);
		for (size_t k = 0; k < d->count; k++)
			judge_rr(g, section_of(rep, i), rep->rrsets[i], k, NULL, &n);
	}
}

/* Room for a copy of a set without its signatures, and with the same names; or NULL. */
static struct ub_packed_rrset_key *empty_copy(struct regional *r,
					      const struct ub_packed_rrset_key *of)
{
	const struct packed_rrset_data *from = of->entry.data;
	struct ub_packed_rrset_key *k = regional_alloc_init(r, of, sizeof(*of));
	struct packed_rrset_data *d = regional_alloc_init(r, from, sizeof(*from));

	if (!k || !d)
		return NULL;
	d->rr_len = regional_alloc_zero(r, from->count * sizeof(*d->rr_len));
	d->rr_data = regional_alloc_zero(r, from->count * sizeof(*d->rr_data));
	d->rr_ttl = regional_alloc_zero(r, from->count * sizeof(*d->rr_ttl));
	if (!d->rr_len || !d->rr_data || !d->rr_ttl)
		return NULL;
	d->count = 0;
	d->rrsig_count = 0;
	d->security = sec_status_insecure;
	k->entry.key = k;
	k->entry.data = d;
	return k;
}

/* The set as the gate lets it through, itself where that is all of it. NULL: no memory. */
static struct ub_packed_rrset_key *filter_set(struct gate *g, enum gate_section s,
					      struct regional *r, struct ub_packed_rrset_key *set)
{
	const struct packed_rrset_data *from = set->entry.data;
	struct ub_packed_rrset_key *k = empty_copy(r, set);
	struct packed_rrset_data *d;
	bool same = true;

	if (!k)
		return NULL;
	d = k->entry.data;
	show_owner(g, s, set, 0);
	for (size_t i = 0; i < from->count; i++) {
		uint8_t *room = regional_alloc(r, from->rr_len[i] + 2);
		size_t n = 0;
		enum gate_fate fate;

		if (!room)
			return NULL;
		fate = judge_rr(g, s, set, i, room + 2, &n);
		same &= fate == GATE_KEEP;
		if (fate == GATE_DROP)
			continue;
		room[0] = (uint8_t)(n >> 8);
		room[1] = (uint8_t)n;
		d->rr_data[d->count] = fate == GATE_KEEP ? from->rr_data[i] : room;
		d->rr_len[d->count] = fate == GATE_KEEP ? from->rr_len[i] : n + 2;
		d->rr_ttl[d->count++] = from->rr_ttl[i];
	}
	return same ? set : k;
}

/*
 * The answer as the gate lets it through; NULL: no memory. What is left out has no signature any
 * more, so that the answer is not "secure" either.
 */
static struct reply_info *filter_reply(struct gate *g, struct regional *r,
				       const struct reply_info *from)
{
	struct reply_info *rep = regional_alloc_zero(r, sizeof(*rep));
	size_t n[3] = { 0 }, total = 0;

	if (!rep)
		return NULL;
	/* a reply in a region is shorter than its type: it ends where the references would begin */
	memcpy(rep, from, offsetof(struct reply_info, ref));
	rep->rrsets = regional_alloc_zero(r, (from->rrset_count + 1) * sizeof(*rep->rrsets));
	if (!rep->rrsets)
		return NULL;
	for (size_t i = 0; i < from->rrset_count; i++) {
		enum gate_section s = section_of(from, i);
		struct ub_packed_rrset_key *k = filter_set(g, s, r, from->rrsets[i]);

		if (!k)
			return NULL;
		if (k != from->rrsets[i] && rep->security == sec_status_secure)
			rep->security = sec_status_insecure;
		if (k != from->rrsets[i] && ((struct packed_rrset_data *)k->entry.data)->count == 0)
			continue;
		rep->rrsets[total++] = k;
		n[s]++;
	}
	rep->an_numrrsets = n[GATE_ANSWER];
	rep->ns_numrrsets = n[GATE_AUTHORITY];
	rep->ar_numrrsets = n[GATE_ADDITIONAL];
	rep->rrset_count = total;
	return rep;
}

/*
 * Judges the answer of a query that passed, and writes the outcome down. The policy may have changed
 * since the question: *rep, if there is one, becomes what the client may see now. False if nothing
 * of it: then v->h.d says why.
 */
static bool judge_answer(struct module_qstate *q, struct visit *v, struct reply_info **rep)
{
	struct gate g;
	struct reply_info *seen = NULL;
	bool passes = open_hearing(&v->h, &g), no_memory = false;

	if (passes && rep) {
		seen = filter_reply(&g, q->region, *rep);
		no_memory = !seen;
	}
	passes = close_hearing(&v->h, &g);
	if (passes && no_memory) {
		v->h.d.v.action = ACTION_DENY;
		v->h.d.v.reason = REASON_INTERNAL_ERROR;
		v->h.d.v.observed = false;
		passes = false;
	}
	record(&v->h);
	v->answered = true;
	if (passes && seen && g.changed)
		*rep = seen;
	return passes;
}

static void end_lookup(struct visit *v, bool answered)
{
	if (v->looking)
		decide_lookup_end(v->h.t->decide, &v->h.q, &v->lookup, answered);
	v->looking = false;
}

/* Did anybody answer, be it that there is nothing? */
static bool was_answered(const struct module_qstate *q)
{
	return q->return_rcode == LDNS_RCODE_NOERROR && q->return_msg && q->return_msg->rep &&
	       FLAGS_GET_RCODE(q->return_msg->rep->flags) != LDNS_RCODE_SERVFAIL;
}

/* The end of a query's way: its answer, if there is one, is in q->return_msg. */
static void finish(struct module_qstate *q, int id)
{
	struct visit *v = q->minfo[id];
	struct reply_info *rep;

	q->ext_state[id] = module_finished;
	if (v)
		end_lookup(v, was_answered(q));
	if (!v || v->answered)
		return;
	rep = q->return_msg ? q->return_msg->rep : NULL;
	if (!judge_answer(q, v, rep ? &rep : NULL)) {
		refuse(q, id, v);
		/*
		 * If the address has been given to another task meanwhile, nobody gets an answer: a
		 * refusal would still be a packet of the old task's to the new one.
		 */
		q->is_drop = v->h.d.v.reason == REASON_STALE_BINDING ||
			     v->h.d.v.reason == REASON_NO_BINDING;
	} else if (rep && rep != q->return_msg->rep) {
		struct dns_msg *m = regional_alloc_init(q->region, q->return_msg, sizeof(*m));

		if (!m) {
			fail(q, id);
			return;
		}
		m->rep = rep;
		q->return_msg = m;
	}
}

/* ---- cached answers: the worker is about to send one ---- */

static int judge_cached(struct query_info *qi, const struct reply_info *rep,
			const struct comm_reply *from)
{
	struct hearing h;
	struct gate g;

	if (cx.cache) {
		/* Our veto is not honoured, and nothing should have been there to send. */
		atomic_store(&cx.foreign_entries, true);
		return 0;
	}
	if (TEST_STOCK_CACHE)
		return 1;
	if (cx.no_cached_answers || !from)
		return 0;
	ask(&h, thread_state(), qi, from);
	if (open_hearing(&h, &g) && rep)
		look_at(&g, rep);
	/* who may have it as it is pays here; everybody else in operate() */
	if (h.t && h.t->decide && g.d->v.action == ACTION_ALLOW && !g.changed)
		gate_charge(&g, true);
	if (!close_hearing(&h, &g) || g.changed)
		return 0; /* operate() judges again, refuses or filters, and writes it down */
	record(&h);
	return 1;
}

static int on_reply_cache(struct query_info *qi, struct module_qstate *q, struct reply_info *rep,
			  int rcode, struct edns_data *edns, struct edns_option **out,
			  struct comm_reply *from, struct regional *region, struct timeval *start,
			  int id, void *arg)
{
	return probing ? 0 : judge_cached(qi, rep, from);
}

/*
 * A query's answer is about to be sent. All have been judged by then but one kind: an expired answer
 * that Unbound takes from its cache when the client has waited for long. It is a copy in the query's
 * memory.
 */
static int on_reply(struct query_info *qi, struct module_qstate *q, struct reply_info *rep,
		    int rcode, struct edns_data *edns, struct edns_option **out,
		    struct comm_reply *from, struct regional *region, struct timeval *start, int id,
		    void *arg)
{
	struct visit *v = q ? q->minfo[id] : NULL;
	struct reply_info *seen = rep;
	struct dns_msg *m;

	if (probing || !v || v->answered)
		return 1;
	if (judge_answer(q, v, rep ? &seen : NULL)) {
		if (rep)
			*rep = *seen;
		return 1;
	}
	v->refused = true;
	v->refusal = refusal_of(q, &v->h);
	if (!rep)
		return 1;
	add_ede(out, &v->refusal, region);
	m = v->refusal.form > ANSWER_HINFO ? NULL : make_message(q, &v->refusal);
	if (m) {
		*rep = *m->rep;
		return 1;
	}
	rep->an_numrrsets = rep->ns_numrrsets = rep->ar_numrrsets = rep->rrset_count = 0;
	rep->flags = BIT_QR | BIT_RA |
		     (v->refusal.form == ANSWER_REFUSED ? LDNS_RCODE_REFUSED : LDNS_RCODE_SERVFAIL);
	return 1;
}

/*
 * Three occasions: a cached failure, with its reply_info and without a query state, like a cached
 * answer; the end of a query that we refused, to which the reason is added; any other failure.
 */
static int on_servfail(struct query_info *qi, struct module_qstate *q, struct reply_info *rep,
		       int rcode, struct edns_data *edns, struct edns_option **out,
		       struct comm_reply *from, struct regional *region, struct timeval *start,
		       int id, void *arg)
{
	const struct visit *v;

	if (probing)
		return 0;
	if (!q)
		return rep ? judge_cached(qi, NULL, from) : 1;
	v = q->minfo[id];
	if (v && v->refused)
		add_ede(out, &v->refusal, region);
	return 1;
}

/*
 * Are the callbacks' results acted on? Asks the very functions that the workers call. As the first
 * module we have the only callbacks there are yet.
 */
static bool veto_is_honoured(struct module_env *env, int id)
{
	struct edns_data edns;
	int cache, servfail;

	if (id != 0)
		return false;
	memset(&edns, 0, sizeof(edns));
	probing = true;
	cache = inplace_cb_reply_cache_call(env, NULL, NULL, NULL, 0, &edns, NULL, NULL, NULL);
	servfail = inplace_cb_reply_servfail_call(env, NULL, NULL, NULL, LDNS_RCODE_SERVFAIL, &edns,
						  NULL, NULL, NULL);
	probing = false;
	return !cache && !servfail;
}

/* ---- queries ---- */

/* Lets this query, and every one that it starts, work on our message cache. */
static void take_own_cache(struct module_qstate *q, struct thread_state *t)
{
	struct module_env *base = q->env->mesh->env;

	if (atomic_load_explicit(&cx.foreign_entries, memory_order_relaxed) &&
	    atomic_exchange(&cx.foreign_entries, false)) {
		slabhash_clear(base->msg_cache);
		if (!atomic_exchange(&cx.foreign_told, true))
			log_err("cx: shared-cache-used why=\"entries were loaded into the message "
				"cache from outside; they are dropped, never use load_cache "
				"here\"");
	}
	t->env = *base;
	t->env.msg_cache = cx.cache;
	q->env = &t->env;
}

/* False if the client may have no more look-ups now, or none below this name. */
static bool begin_lookup(struct visit *v)
{
	v->looking = decide_lookup_begin(v->h.t->decide, &v->h.q, v->h.now, &v->h.d, &v->lookup);
	return v->looking;
}

/* Judges the one client of a query. True if the query goes on. */
static bool police(struct module_qstate *q, int id, struct thread_state *t)
{
	const struct mesh_reply *r = q->mesh_info->reply_list;
	struct visit *v = regional_alloc_zero(q->region, sizeof(*v));

	if (!v) {
		fail(q, id);
		return false;
	}
	q->minfo[id] = v;
	if (!TEST_SHARED_FLIGHT && (r->next || q->mesh_info->unique != q->mesh_info))
		doubt("a query is shared by several clients", "");
	ask(&v->h, t, &q->qinfo, &r->query_reply);
	if (hear(&v->h) && begin_lookup(v)) {
		/* the answer is for this very subject */
		v->h.q.has_generation = true;
		v->h.q.generation = v->h.d.generation;
		return true;
	}
	record(&v->h);
	refuse(q, id, v);
	q->is_drop = v->h.d.dropped;
	return false;
}

static void begin(struct module_qstate *q, int id)
{
	struct thread_state *t = thread_state();

	if (t && !t->checked) {
		t->checked = true;
		if (!layout_holds(q, id))
			doubt("the running Unbound is laid out in another way", "");
	}
	if (cx.cache) {
		if (!t) {
			fail(q, id);
			return;
		}
		take_own_cache(q, t);
	}
	/* What a client writes in capitals and small letters goes no further. */
	query_dname_tolower(q->qinfo.qname);
	/* Without a client it is Unbound's own: a name server's address, a key, a prefetch. */
	if (q->mesh_info->reply_list && !q->minfo[id] && !police(q, id, t))
		return;
	q->ext_state[id] = module_wait_module;
}

void operate(struct module_qstate *q, enum module_ev ev, int id, struct outbound_entry *out)
{
	switch (ev) {
	case module_event_new:
	case module_event_pass:
		begin(q, id);
		break;
	case module_event_moddone:
		finish(q, id);
		break;
	default:
		q->ext_state[id] = module_error;
	}
}

void inform_super(struct module_qstate *q, int id, struct module_qstate *super)
{
}

void clear(struct module_qstate *q, int id)
{
	struct visit *v = q ? q->minfo[id] : NULL;

	/* given up before there was an answer */
	if (v && cx.running && here.generation == cx.generation) {
		end_lookup(v, false);
		if (!v->answered)
			record(&v->h);
		v->answered = true;
	}
	if (q)
		q->minfo[id] = NULL;
}

size_t get_mem(struct module_env *env, int id)
{
	return cx.cache ? slabhash_get_mem(cx.cache) : 0;
}

/* ---- what answers before any module: the operator's local zones, auth zones, RPZ ---- */

enum { MAX_ALLOWED_ZONES = 64 };

struct allowed_zones {
	struct name v[MAX_ALLOWED_ZONES];
	unsigned n;
};

/* CX_ALLOW_LOCAL_ZONES: names separated by commas. False if one is not a name. */
static bool read_allowed_zones(struct allowed_zones *a)
{
	const char *s = getenv("CX_ALLOW_LOCAL_ZONES");

	a->n = 0;
	while (s && *s) {
		size_t n = strcspn(s, ",");
		struct name *out = &a->v[a->n];

		if (a->n == MAX_ALLOWED_ZONES)
			return false;
		if (n == 1 && s[0] == '.')
			*out = (struct name){ 0 };
		else if (name_from_text(out, s, n) != NAME_OK)
			return false;
		a->n++;
		s += n + (s[n] == ',');
	}
	return true;
}

static bool is_allowed_zone(const struct allowed_zones *a, const struct name *zone)
{
	for (unsigned i = 0; i < a->n; i++)
		if (name_equal(zone, &a->v[i]) || name_is_below(zone, &a->v[i]))
			return true;
	return false;
}

static bool is_allowed_wire(const struct allowed_zones *a, const uint8_t *wire, size_t len)
{
	struct name n;

	return name_from_wire(&n, wire, len, NULL) == NAME_OK && is_allowed_zone(a, &n);
}

static bool is_allowed_text(const struct allowed_zones *a, const char *text)
{
	struct name n = { 0 };

	if (strcmp(text, ".") != 0 && name_from_text(&n, text, strlen(text)) != NAME_OK)
		return false;
	return is_allowed_zone(a, &n);
}

/* Does a zone of this type answer for names without data of their own? */
static bool zone_type_answers(enum localzone_type t)
{
	switch (t) {
	case local_zone_transparent:
	case local_zone_typetransparent:
	case local_zone_always_transparent:
	case local_zone_inform:
	case local_zone_nodefault:
		return false;
	default:
		return true;
	}
}

static bool same_rrset(const struct ub_packed_rrset_key *a, const struct ub_packed_rrset_key *b)
{
	const struct packed_rrset_data *x = a->entry.data, *y = b->entry.data;

	if (a->rk.type != b->rk.type || x->count != y->count)
		return false;
	for (size_t i = 0; i < x->count; i++)
		if (x->rr_len[i] != y->rr_len[i] ||
		    memcmp(x->rr_data[i], y->rr_data[i], x->rr_len[i]) != 0)
			return false;
	return true;
}

static bool same_data(const struct local_data *a, const struct local_data *b)
{
	const struct local_rrset *x = a->rrsets, *y = b->rrsets;

	if (query_dname_compare(a->name, b->name) != 0)
		return false;
	for (; x && y; x = x->next, y = y->next)
		if (!same_rrset(x->rrset, y->rrset))
			return false;
	return !x && !y;
}

/* Is it one of the zones that Unbound itself puts there, unchanged? */
static bool is_default_zone(struct local_zones *defaults, const struct local_zone *z)
{
	struct local_zone *d = NULL;
	const rbnode_type *x, *y;

	RBTREE_FOR(d, struct local_zone *, &defaults->ztree)
	if (d->dclass == z->dclass && query_dname_compare(d->name, z->name) == 0)
		break;
	if ((rbnode_type *)d == RBTREE_NULL || d->type != z->type || d->data.count != z->data.count)
		return false;
	x = rbtree_first(&d->data);
	y = rbtree_first((rbtree_type *)&z->data);
	for (; x != RBTREE_NULL && y != RBTREE_NULL;
	     x = rbtree_next((rbnode_type *)x), y = rbtree_next((rbnode_type *)y))
		if (!same_data((const struct local_data *)x, (const struct local_data *)y))
			return false;
	return x == y;
}

static bool doubt_name(const char *what, uint8_t *wire)
{
	char text[LDNS_MAX_DOMAINLEN + 1];

	dname_str(wire, text);
	doubt(what, text);
	return true;
}

/* True, and a doubt, if a zone may answer a client before we are asked. */
static bool zone_interferes(struct local_zone *z, const struct allowed_zones *allowed)
{
	struct local_data *d;

	if (is_allowed_wire(allowed, z->name, z->namelen))
		return false;
	if (zone_type_answers(z->type))
		return doubt_name("a local-zone answers before the policy", z->name);
	RBTREE_FOR(d, struct local_data *, &z->data)
	if (d->rrsets && !is_allowed_wire(allowed, d->name, d->namelen))
		return doubt_name("local-data answers before the policy", d->name);
	return false;
}

static bool zones_interfere(struct local_zones *zones, struct local_zones *defaults,
			    const struct allowed_zones *allowed)
{
	struct local_zone *z;

	if (!zones)
		return false;
	RBTREE_FOR(z, struct local_zone *, &zones->ztree)
	if (!is_default_zone(defaults, z) && zone_interferes(z, allowed))
		return true;
	return false;
}

static void find_local_zones(const struct daemon *d, const struct allowed_zones *allowed)
{
	struct config_file plain;
	struct local_zones *defaults = local_zones_create();
	struct view *v;

	memset(&plain, 0, sizeof(plain));
	if (!defaults || !local_zones_apply_cfg(defaults, &plain)) {
		doubt("out of memory", "local zones");
	} else if (!zones_interfere(d->local_zones, defaults, allowed)) {
		RBTREE_FOR(v, struct view *, &d->views->vtree)
		if (zones_interfere(v->local_zones, defaults, allowed))
			break;
	}
	local_zones_delete(defaults);
}

static void find_auth_zones(const struct config_file *cfg, const struct allowed_zones *allowed)
{
	for (const struct config_auth *a = cfg->auths; a; a = a->next) {
		if (!a->name || is_allowed_text(allowed, a->name))
			continue;
		if (a->isrpz)
			doubt("an RPZ answers before the policy", a->name);
		else if (a->for_downstream)
			doubt("an auth-zone answers before the policy", a->name);
	}
}

/* Without the veto, Unbound tells what it knows of delegations to those who may snoop. */
static void find_snoopers(const struct config_str2list *acls)
{
	for (; acls; acls = acls->next)
		if (acls->str2 && strcmp(acls->str2, "allow_snoop") == 0)
			doubt("allow_snoop needs an Unbound that honours the veto", acls->str);
}

/* ---- start and end ---- */

/* The daemon that env belongs to; NULL if it does not look like one. */
static const struct daemon *daemon_of(const struct module_env *env)
{
	const struct daemon *d;

	if (!env->alloc)
		return NULL;
	d = (const struct daemon *)((const char *)env->alloc - offsetof(struct daemon, superalloc));
	return d->env == env && d->cfg == env->cfg ? d : NULL;
}

static void find_doubts(const struct module_env *env, int id)
{
	static struct allowed_zones allowed;
	const struct dynlibmod_env *de = env->modinfo[id];
	const struct daemon *d = daemon_of(env);

	if (!d || !env->cfg->dynlib_file || !env->cfg->dynlib_file->str || !de->fname ||
	    strcmp(env->cfg->dynlib_file->str, de->fname) != 0) {
		doubt("the running Unbound is laid out in another way", "");
		return;
	}
	if (id != 0)
		doubt("dynlib must be the first module in module-config", env->cfg->module_conf);
	if (!read_allowed_zones(&allowed))
		doubt("not a list of names", "CX_ALLOW_LOCAL_ZONES");
	find_local_zones(d, &allowed);
	find_auth_zones(env->cfg, &allowed);
	if (cx.cache) {
		find_snoopers(env->cfg->acls);
		find_snoopers(env->cfg->interface_actions);
	}
}

/*
 * Where Unbound logs to. The housekeeping thread writes there by itself: Unbound's own functions read
 * settings that a reload replaces meanwhile.
 */
static struct {
	bool syslog;
	bool ascii_time;
	char *file;     /* NULL: standard error */
	char *identity; /* NULL: the program's name */
} sink;

static char *copy_if_set(const char *s)
{
	return s && *s ? strdup(s) : NULL;
}

static void note_sink(const struct config_file *cfg)
{
	const char *file = cfg->logfile;
	size_t root = cfg->chrootdir ? strlen(cfg->chrootdir) : 0;
	char *old = sink.identity;

	if (file && root && strncmp(file, cfg->chrootdir, root) == 0)
		file += root;
	free(sink.file);
	sink.file = copy_if_set(file);
	sink.syslog = cfg->use_syslog;
	sink.ascii_time = cfg->log_time_ascii;
	sink.identity = copy_if_set(cfg->log_identity);
	/* syslog() keeps the pointer that it was given, and the old configuration is gone */
	if (sink.syslog && sink.identity)
		openlog(sink.identity, LOG_NDELAY, UB_SYSLOG_FACILITY);
	if (old && (!sink.syslog || sink.identity))
		free(old);
}

/* One line in the form of Unbound's, in one write. */
static void write_line(const char *level, const char *event, const char *text)
{
	char line[1024], when[32] = "";
	time_t now = time(NULL);
	struct tm tm;
	int n, fd = STDERR_FILENO;

	if (!sink.ascii_time || !localtime_r(&now, &tm) ||
	    !strftime(when, sizeof(when), "%b %d %H:%M:%S", &tm))
		snprintf(when, sizeof(when), "[%lld]", (long long)now);
	n = snprintf(line, sizeof(line) - 1, "%s %s[%d:0] %s: cx: %s %s", when,
		     sink.identity ? sink.identity : program_invocation_short_name, (int)getpid(),
		     level, event, text);
	if (n < 0)
		return;
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (sink.file)
		fd = open(sink.file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd < 0)
		return;
	if (write(fd, line, (size_t)n) < 0) {
		/* there is nowhere to say it */
	}
	if (fd != STDERR_FILENO)
		close(fd);
}

static void log_event(void *arg, enum decide_priority prio, const char *event, const char *text)
{
	const char *level = prio <= DECIDE_ERR       ? "error"
			    : prio == DECIDE_WARNING ? "warning"
			    : prio == DECIDE_NOTICE  ? "notice"
						     : "info";

	if (sink.syslog)
		syslog((int)prio, "[%d:0] %s: cx: %s %s", (int)getpid(), level, event, text);
	else
		write_line(level, event, text);
}

static const char *setting(const char *name, const char *otherwise)
{
	const char *s = getenv(name);

	return s && *s ? s : otherwise;
}

static bool read_number(const char *name, uint64_t *out)
{
	const char *s = setting(name, "0");
	uint64_t v = 0;

	for (; *s; s++) {
		if (*s < '0' || *s > '9' || v > (UINT64_MAX - 9) / 10) {
			doubt("not a number", name);
			return false;
		}
		v = v * 10 + (uint64_t)(*s - '0');
	}
	*out = v;
	return true;
}

static void start_decider(void)
{
	uint64_t max_lookups = 0;
	struct decider_options o = {
		.component = "unbound",
		.policy_path = setting("CX_POLICY", "/var/lib/cx/policy.bin"),
		.runtime_dir = setting("CX_RUNTIME_DIR", "/run/cx"),
		.pins_write = "unbound",
		.audit_path = setting("CX_AUDIT", "/var/log/cx/audit.jsonl"),
		.pubkey_path = setting("CX_PUBKEY", NULL),
		.audience = setting("CX_AUDIENCE", NULL),
		.features = FEATURES_ENFORCED,
		.audit_denied_only = !strcmp(setting("CX_AUDIT_ONLY", ""), "denied"),
		.log = log_event,
	};

	if (!strcmp(o.audit_path, "off"))
		o.audit_path = NULL;
	if (read_number("CX_MIN_SERIAL", &o.min_serial) &&
	    read_number("CX_MAX_LOOKUPS", &max_lookups)) {
		o.max_lookups = max_lookups < UINT32_MAX ? (unsigned)max_lookups : UINT32_MAX;
		cx.decider = decider_start(&o);
	}
	if (!cx.decider)
		log_err("cx: no-policy why=\"could not start; every client is refused\"");
}

/*
 * A message cache of the configured size. The shared one stays empty but for what load_cache puts there:
 * without room it keeps one entry in each of its parts, until take_own_cache() hears of it.
 */
static void make_own_cache(const struct module_env *env)
{
	const struct config_file *cfg = env->cfg;

	cx.cache = slabhash_create(cfg->msg_cache_slabs, HASH_DEFAULT_STARTARRAY,
				   cfg->msg_cache_size, msgreply_sizefunc, query_info_compare,
				   query_entry_delete, reply_info_delete, NULL);
	slabhash_clear(env->msg_cache);
	for (size_t i = 0; i < env->msg_cache->size; i++)
		env->msg_cache->array[i]->space_max = 0;
}

static bool register_callbacks(struct module_env *env, int id)
{
	struct dynlibmod_env *de = env->modinfo[id];

	return de->inplace_cb_register_wrapped((void *)on_reply_cache, inplace_cb_reply_cache, NULL,
					       env, id) &&
	       de->inplace_cb_register_wrapped((void *)on_reply, inplace_cb_reply, NULL, env, id) &&
	       de->inplace_cb_register_wrapped((void *)on_servfail, inplace_cb_reply_servfail, NULL,
					       env, id);
}

/*
 * In another program than the one we were compiled for, every field that we touch may be another one:
 * not even refusing is safe, so that Unbound is told not to start.
 */
static bool made_for_this_program(void)
{
	char id[BUILDID_TEXT_SIZE];

	buildid_of_program(id);
	if (*id && strcmp(id, CX_UNBOUND_BUILD_ID) == 0)
		return true;
	log_err("cx: wrong-build why=\"this module is made for the Unbound with build id %s, not "
		"for "
		"%s; refusing to serve\"",
		CX_UNBOUND_BUILD_ID, *id ? id : "one without");
	return false;
}

/* 0 ends Unbound; with anything else it serves, and refuses where we cannot judge. */
int init(struct module_env *env, int id)
{
	if (!made_for_this_program())
		return 0;
	if (cx.running) {
		log_err("cx: wrong-configuration why=\"the module is loaded twice\"");
		return 0;
	}
	cx.running = true;
	cx.id = id;
	cx.generation++;
	cx.no_cached_answers = strstr(env->cfg->module_conf, "respip") != NULL;
	atomic_store(&cx.doubted, false);
	atomic_store(&cx.foreign_entries, false);
	atomic_store(&cx.foreign_told, false);
	if (!register_callbacks(env, id))
		return 0;
	if (!TEST_STOCK_CACHE && (TEST_OWN_CACHE || !veto_is_honoured(env, id))) {
		make_own_cache(env);
		if (!cx.cache)
			return 0;
	}
	env->unique_mesh = !TEST_SHARED_FLIGHT;
	note_sink(env->cfg);
	find_doubts(env, id);
	start_decider();
	log_info("cx: module-started version=%s mode=%s", CX_VERSION,
		 cx.cache ? "own-cache" : "veto");
	return 1;
}

void deinit(struct module_env *env, int id)
{
	struct dynlibmod_env *de = env->modinfo[id];

	if (!cx.running || id != cx.id)
		return;
	if (de->inplace_cb_delete_wrapped) {
		de->inplace_cb_delete_wrapped(env, inplace_cb_reply_cache, id);
		de->inplace_cb_delete_wrapped(env, inplace_cb_reply, id);
		de->inplace_cb_delete_wrapped(env, inplace_cb_reply_servfail, id);
	}
	free_thread_states();
	if (cx.decider)
		decider_stop(cx.decider);
	cx.decider = NULL;
	if (cx.cache)
		slabhash_delete(cx.cache);
	cx.cache = NULL;
	env->unique_mesh = 0;
	cx.running = false;
}
