/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, sockets and the verdict brought together (cut.h). Never ends a connection for want of an
 * answer: without a policy, or where the kernel does not tell, everything stays as it is.
 */
#include "shared/tools/cut.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/live/bind.h"
#include "shared/live/locals.h"
#include "shared/tools/netlink.h"

/* What is known of a row since it was first seen. */
struct seen {
	uint64_t row;
	uint64_t cookie; /* of its socket: another one later is another connection; 0: none yet */
	bool client;     /* a policy in force said that the source is a client */
};

struct cutter {
	char *dir;
	struct slot *slot;
	struct slot_reader *reader;
	struct bind_table *bindings;
	struct locals *locals;
	struct locals_copy *copy;
	struct netlink *netlink;
	struct stream_view *view;
	struct seen *seen;
	struct netlink_socket *sockets; /* sorted by their other end */
	size_t n_sockets;
};

static bool fails(char *why, const char *what, int err)
{
	snprintf(why, CUT_WHY_SIZE, "%s: %s", what, strerror(err));
	return false;
}

static bool open_parts(struct cutter *c, const struct cut_options *o, char *why)
{
	c->dir = strdup(o->runtime_dir);
	c->slot = slot_new(o->policy, &o->trust);
	c->reader = c->slot ? slot_reader_new(c->slot) : NULL;
	c->locals = locals_new();
	c->copy = c->locals ? locals_copy_new(c->locals) : NULL;
	c->netlink = netlink_open();
	if (!c->dir || !c->reader || !c->copy || !c->netlink)
		return fails(why, "start", errno);
	c->view = stream_view_open(o->runtime_dir, why);
	if (!c->view)
		return false;
	c->seen = calloc(stream_view_size(c->view), sizeof(*c->seen));
	return c->seen || fails(why, "start", errno);
}

struct cutter *cutter_open(const struct cut_options *o, char why[CUT_WHY_SIZE])
{
	struct cutter *c = calloc(1, sizeof(*c));
	if (c && open_parts(c, o, why))
		return c;
	if (!c)
		fails(why, "start", errno);
	cutter_close(c);
	return NULL;
}

void cutter_close(struct cutter *c)
{
	if (!c)
		return;
	bind_close(c->bindings);
	stream_view_close(c->view);
	netlink_close(c->netlink);
	locals_copy_free(c->copy);
	locals_free(c->locals);
	slot_reader_free(c->reader);
	slot_free(c->slot);
	free(c->sockets);
	free(c->seen);
	free(c->dir);
	free(c);
}

enum slot_event cutter_poll(struct cutter *c, char *digest, char why[CUT_WHY_SIZE])
{
	enum policy_err err;
	char detail[POLICY_WHY_SIZE] = "";
	enum slot_event e = slot_poll(c->slot, false, &err, detail);
	if (e == SLOT_REFUSED)
		snprintf(why, CUT_WHY_SIZE, "%s%s%s", policy_strerror(err), *detail ? ": " : "",
			 detail);
	const struct policy *p = slot_borrow(c->reader);
	digest[0] = '\0';
	if (p) {
		struct policy_info i;
		policy_info(p, &i);
		snprintf(digest, 13, "%s", i.digest);
	}
	slot_release(c->reader);
	return e;
}

bool cutter_ready(struct cutter *c)
{
	bool ready = slot_borrow(c->reader) != NULL;
	slot_release(c->reader);
	return ready;
}

/* ---- sockets ---- */

static int compare_ends(const struct addr *a, uint16_t a_port, const struct addr *b,
			uint16_t b_port)
{
	int c = addr_cmp(a, b);
	return c ? c : (int)a_port - (int)b_port;
}

static int by_peer(const void *a, const void *b)
{
	const struct netlink_socket *x = a, *y = b;
	return compare_ends(&x->peer, x->peer_port, &y->peer, y->peer_port);
}

static bool read_sockets(struct cutter *c, char *why)
{
	free(c->sockets);
	c->sockets = NULL;
	c->n_sockets = 0;
	ssize_t n = netlink_sockets(c->netlink, &c->sockets);
	if (n < 0)
		return fails(why, "the kernel does not tell its sockets", (int)-n);
	c->n_sockets = (size_t)n;
	if (n > 0)
		qsort(c->sockets, c->n_sockets, sizeof(*c->sockets), by_peer);
	return true;
}

static size_t first_of(const struct cutter *c, const struct stream *s)
{
	size_t lo = 0, hi = c->n_sockets;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct netlink_socket *k = &c->sockets[mid];
		if (compare_ends(&k->peer, k->peer_port, &s->src, s->src_port) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool is_local(const struct addr_set *l, const struct addr *a)
{
	for (size_t i = 0; i < l->n; i++)
		if (addr_cmp(&l->v[i], a) == 0)
			return true;
	return false;
}

/*
 * Is it the client's socket of the stream? With TPROXY its own end is where the client wanted to go.
 * With REDIRECT, and where clients name HAProxy as their proxy, it is an address of the gateway; then
 * the client's end alone says it, and the newest row has it.
 */
static bool is_socket_of(const struct cutter *c, const struct netlink_socket *k, size_t at,
			 const struct stream *s, const struct addr_set *locals)
{
	if (compare_ends(&k->local, k->local_port, &s->dst, s->dst_port) == 0)
		return true;
	return is_local(locals, &k->local) && !stream_view_is_older(c->view, at);
}

enum { MAX_MATCHES = 8 };

static struct seen *seen_of(struct cutter *c, size_t at)
{
	uint64_t row = stream_view_id(c->view, at);
	if (c->seen[at].row != row)
		c->seen[at] = (struct seen){ .row = row };
	return &c->seen[at];
}

/* The sockets of a row; 0: the connection is gone. */
static unsigned find_sockets(struct cutter *c, size_t at, const struct stream *s,
			     const struct addr_set *locals,
			     const struct netlink_socket *out[MAX_MATCHES])
{
	unsigned n = 0;
	for (size_t i = first_of(c, s); i < c->n_sockets && n < MAX_MATCHES; i++) {
		const struct netlink_socket *k = &c->sockets[i];
		if (compare_ends(&k->peer, k->peer_port, &s->src, s->src_port) != 0)
			break;
		if (is_socket_of(c, k, at, s, locals))
			out[n++] = k;
	}
	if (n != 1)
		return n;
	struct seen *seen = seen_of(c, at);
	if (seen->cookie && seen->cookie != out[0]->cookie)
		return 0; /* the same ports, used again by a connection that nothing was asked for */
	seen->cookie = out[0]->cookie;
	return 1;
}

/* ---- judging ---- */

static struct now read_clocks(void)
{
	struct timespec boot, wall;
	clock_gettime(CLOCK_BOOTTIME, &boot);
	clock_gettime(CLOCK_REALTIME, &wall);
	return (struct now){ .boot_ns =
				     (uint64_t)boot.tv_sec * 1000000000u + (uint64_t)boot.tv_nsec,
			     .wall_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec };
}

/* The table of bindings as the plugins would see it. */
static void watch_bindings(struct cutter *c)
{
	char why[BIND_WHY_SIZE];
	if (c->bindings && bind_is_current(c->bindings, c->dir))
		return;
	bind_close(c->bindings);
	c->bindings = bind_open(c->dir, why);
}

static void make_question(struct question *q, const struct stream *s)
{
	*q = (struct question){ .layer = s->layer,
				.src = s->src,
				.has_dst = !s->named,
				.dst = s->layer == LAYER_TCP && !s->named ? s->to : s->dst,
				.port = s->port,
				.ech = s->ech,
				.has_generation = true,
				.generation = s->generation };
	if (s->layer == LAYER_TCP && !s->named)
		return;
	q->name = &s->names[0];
	if (s->has_to) {
		q->resolved = &s->to;
		q->n_resolved = 1;
	}
	if (s->layer == LAYER_HTTP) {
		q->method = s->method_len ? s->method : NULL;
		q->method_len = s->method_len;
		q->path = s->path_len ? s->path : NULL;
		q->path_len = s->path_len;
		q->upgrade = s->upgrade_len ? s->upgrade : NULL;
		q->upgrade_len = s->upgrade_len;
	}
}

/* What the policy says of the stream now. */
static void judge(struct cutter *c, const struct policy *p, const struct stream *s, struct facts *f,
		  struct verdict *v)
{
	struct question q;
	struct bind_row row;
	struct binding b;
	make_question(&q, s);
	bool pinned = s->layer == LAYER_TCP && !s->named;
	f->pinned = pinned ? s->names : NULL;
	f->n_pinned = pinned ? s->n_names : 0;
	f->binding = NULL;
	if (policy_has_bindings(p) && policy_source(p, &s->src).kind == SOURCE_BIND &&
	    c->bindings && bind_find(c->bindings, &s->src, f->now.boot_ns, &row)) {
		b = (struct binding){ .generation = row.generation,
				      .profile = row.profile,
				      .overlay = row.overlay,
				      .overlay_len = row.overlay_len };
		f->binding = &b;
	}
	verdict(p, &q, f, v);
	f->binding = NULL;
}

static bool is_denied(const struct stream *s, const struct verdict *v)
{
	if (v->action == ACTION_ALLOW)
		return false;
	/* a request too long to be remembered was judged when it was made */
	return !s->cut_short || (v->reason != REASON_METHOD && v->reason != REASON_PATH &&
				 v->reason != REASON_MALFORMED);
}

/* ---- the sweep ---- */

struct sweep {
	struct cutter *c;
	const struct policy *p;
	struct facts f;
	cut_pick *pick;
	cut_tell *tell;
	void *arg;
	int n;
	int err; /* of a socket that could not be destroyed */
};

static bool is_client(const struct policy *p, const struct addr *a)
{
	enum source_kind k = policy_source(p, a).kind;
	return k == SOURCE_PROFILE || k == SOURCE_BIND;
}

static bool must_end(struct sweep *w, const struct stream *s, struct verdict *v)
{
	judge(w->c, w->p, s, &w->f, v);
	return w->pick ? w->pick(w->arg, s, v) : is_denied(s, v);
}

/*
 * The rows come from a program that is trusted less than this one. What it names must be, or have been,
 * a client's connection; or one to an address that is not this host's own, which only a proxy has.
 */
static bool may_end(struct sweep *w, size_t at, const struct stream *s,
		    const struct netlink_socket *k)
{
	struct seen *seen = seen_of(w->c, at);
	seen->client |= is_client(w->p, &s->src);
	return seen->client || !is_local(&w->f.locals, &k->local);
}

static void one_row(struct sweep *w, size_t at)
{
	const struct netlink_socket *k[MAX_MATCHES];
	struct stream s;
	struct name names[STREAM_NAMES];
	struct verdict v;
	if (!stream_view_get(w->c->view, at, &s, names))
		return;
	unsigned n = find_sockets(w->c, at, &s, &w->f.locals, k);
	if (n > 0 && (!may_end(w, at, &s, k[0]) || !must_end(w, &s, &v)))
		return;
	bool ended = true;
	for (unsigned i = 0; i < n; i++) {
		int rc = may_end(w, at, &s, k[i]) ? netlink_destroy_socket(w->c->netlink, k[i]) : 0;
		if (rc < 0) {
			w->err = -rc;
			ended = false;
		}
	}
	if (!ended)
		return;
	stream_view_mark_gone(w->c->view, at);
	if (n > 0) {
		w->n++;
		w->tell(w->arg, &s, &v);
	}
}

static bool has_rows(const struct cutter *c)
{
	for (size_t i = 0; i < stream_view_size(c->view); i++)
		if (stream_view_id(c->view, i))
			return true;
	return false;
}

/* The rows are read before the sockets: a row without a socket is then one whose connection is gone. */
int cut_sweep(struct cutter *c, cut_pick *pick, cut_tell *tell, void *arg, char why[CUT_WHY_SIZE])
{
	if (!stream_view_read(c->view, why))
		return -1;
	if (!has_rows(c))
		return 0;
	if (!read_sockets(c, why))
		return -1;
	watch_bindings(c);
	(void)locals_refresh(c->locals);
	struct sweep w = { .c = c, .pick = pick, .tell = tell, .arg = arg };
	w.f.now = read_clocks();
	w.f.locals = locals_get(c->copy);
	w.p = slot_borrow(c->reader);
	for (size_t i = 0; w.p && i < stream_view_size(c->view); i++)
		one_row(&w, i);
	slot_release(c->reader);
	if (w.err)
		fails(why, "a socket cannot be destroyed", w.err);
	return w.err ? -1 : w.n;
}

int cut_source(struct cutter *c, const struct prefix *p, char why[CUT_WHY_SIZE])
{
	int n = 0;
	if (!read_sockets(c, why))
		return -1;
	const struct policy *policy = slot_borrow(c->reader);
	for (size_t i = 0; policy && n >= 0 && i < c->n_sockets; i++) {
		const struct netlink_socket *k = &c->sockets[i];
		if (!prefix_contains(p, &k->peer) || !is_client(policy, &k->peer))
			continue;
		int rc = netlink_destroy_socket(c->netlink, k);
		if (rc < 0)
			fails(why, "a socket cannot be destroyed", -rc);
		n = rc < 0 ? -1 : n + rc;
	}
	slot_release(c->reader);
	return n;
}
