/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the upstream; see upstream.h. Never takes an answer for a question that did not go out
 * on that very socket, never sends two questions with the same id on one.
 */
#include "unbound-module/shim/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "unbound-module/shim/link.h"

enum {
	SOCKETS = 16,
	BUCKETS = 4096,
	BATCH = 32,      /* datagrams a call */
	READ_ROUNDS = 4, /* calls an event */
	PORT_USES =
		8192, /* questions until a socket gets another port, less than half of it at random */
	RANDOMS = 256,
	RECEIVE_BUFFER = 1 << 20
};

/* A connected socket; its port is the kernel's choice. */
struct sock {
	struct upstream *of;
	int fd;
	ev_io io;
	unsigned open; /* exchanges */
	unsigned uses_left;
	unsigned n_unsent;
	struct exchange *unsent[BATCH];
};

struct upstream {
	struct shim *t;
	upstream_done *done;
	struct links *links;
	ev_prepare flush;
	struct exchange *buckets[BUCKETS];
	struct sock socks[SOCKETS];
	double last;
	bool refused;
	unsigned n_randoms;
	uint16_t randoms[RANDOMS];
	struct mmsghdr msgs[BATCH];
	struct iovec iovs[BATCH];
	uint8_t in[BATCH][UPSTREAM_UDP_SIZE];
};

/* Without randomness there are no questions: getrandom() does not fail once it worked. */
static uint16_t random16(struct upstream *u)
{
	if (u->n_randoms == 0) {
		if (getrandom(u->randoms, sizeof(u->randoms), 0) != (ssize_t)sizeof(u->randoms))
			abort();
		u->n_randoms = RANDOMS;
	}
	return u->randoms[--u->n_randoms];
}

/* ---- sockets ---- */

static void on_sock(struct ev_loop *loop, ev_io *io, int events);

static bool sock_open(struct sock *s)
{
	const struct endpoint *e = &s->of->t->o->upstream;
	int size = RECEIVE_BUFFER;
	s->fd = socket(e->ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return false;
	(void)setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (connect(s->fd, (const struct sockaddr *)&e->ss, e->len) != 0) {
		close(s->fd);
		s->fd = -1;
		return false;
	}
	s->uses_left = PORT_USES / 2 + random16(s->of) % (PORT_USES / 2);
	ev_io_init(&s->io, on_sock, s->fd, EV_READ);
	s->io.data = s;
	ev_io_start(s->of->t->loop, &s->io);
	return true;
}

static void sock_close(struct sock *s)
{
	if (s->fd < 0)
		return;
	ev_io_stop(s->of->t->loop, &s->io);
	close(s->fd);
	s->fd = -1;
}

/* A used-up socket is asked no more, and opened anew when nothing is open on it. */
static bool sock_is_fresh(struct sock *s)
{
	if (s->fd >= 0 && s->uses_left > 0)
		return true;
	if (s->open > 0)
		return false;
	sock_close(s);
	return sock_open(s);
}

/* One at random; the next that can be used. */
static struct sock *pick_sock(struct upstream *u)
{
	unsigned first = random16(u) % SOCKETS;
	for (unsigned i = 0; i < SOCKETS; i++) {
		struct sock *s = &u->socks[(first + i) % SOCKETS];
		if (sock_is_fresh(s))
			return s;
	}
	/* all of them wait to be replaced: better an old port than none */
	return u->socks[first].fd >= 0 ? &u->socks[first] : NULL;
}

/* ---- sending ---- */

static void sock_flush(struct sock *s)
{
	struct mmsghdr msgs[BATCH];
	struct iovec iovs[BATCH];
	unsigned n = 0;
	memset(msgs, 0, sizeof(msgs));
	for (unsigned i = 0; i < s->n_unsent; i++) {
		struct exchange *x = s->unsent[i];
		if (!x)
			continue;
		x->unsent = false;
		iovs[n] = (struct iovec){ x->wire, x->wire_n };
		msgs[n].msg_hdr.msg_iov = &iovs[n];
		msgs[n++].msg_hdr.msg_iovlen = 1;
	}
	s->n_unsent = 0;
	for (unsigned at = 0; at < n;) {
		int sent = sendmmsg(s->fd, msgs + at, n - at, 0);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == ECONNREFUSED)
			s->of->refused = true;
		/* the one that fails is asked again later, or was lost as any datagram may be */
		at += sent > 0 ? (unsigned)sent : 1;
	}
}

static void on_flush(struct ev_loop *loop, ev_prepare *w, int events)
{
	struct upstream *u = w->data;
	for (unsigned i = 0; i < SOCKETS; i++)
		if (u->socks[i].n_unsent > 0)
			sock_flush(&u->socks[i]);
}

static void enqueue(struct upstream *u, struct exchange *x)
{
	struct sock *s = &u->socks[x->sock];
	if (s->n_unsent == BATCH)
		sock_flush(s);
	s->unsent[s->n_unsent++] = x;
	x->unsent = true;
}

static void dequeue(struct upstream *u, struct exchange *x)
{
	struct sock *s = &u->socks[x->sock];
	for (unsigned i = 0; i < s->n_unsent && x->unsent; i++)
		if (s->unsent[i] == x)
			s->unsent[i] = NULL;
	x->unsent = false;
}

/* ---- ids ---- */

static struct exchange *find(const struct upstream *u, unsigned sock, uint16_t id)
{
	for (struct exchange *x = u->buckets[id % BUCKETS]; x; x = x->next)
		if (x->id == id && x->sock == sock)
			return x;
	return NULL;
}

static void enter(struct upstream *u, struct exchange *x, unsigned sock)
{
	x->sock = (uint8_t)sock;
	do
		x->id = random16(u);
	while (find(u, sock, x->id));
	x->link = &u->buckets[x->id % BUCKETS];
	x->next = *x->link;
	if (x->next)
		x->next->link = &x->next;
	*x->link = x;
	u->socks[sock].open++;
	if (u->socks[sock].uses_left > 0)
		u->socks[sock].uses_left--;
}

static void leave(struct upstream *u, struct exchange *x)
{
	if (!x->link)
		return;
	if (x->unsent)
		dequeue(u, x);
	*x->link = x->next;
	if (x->next)
		x->next->link = x->link;
	x->link = NULL;
	u->socks[x->sock].open--;
}

/* ---- asking ---- */

static void write_question(struct exchange *x, const uint8_t *qname, uint16_t flags, bool dnssec_ok)
{
	struct writer w = wr_init(x->wire + x->proxy_n, sizeof(x->wire) - x->proxy_n);
	wr_be16(&w, x->id);
	wr_be16(&w, flags & (WIRE_RD | WIRE_CD | WIRE_AD));
	wr_be16(&w, 1);
	wr_be32(&w, 0);
	wr_be16(&w, 1);
	wr_bytes(&w, qname, x->qname_len);
	wr_be16(&w, x->qtype);
	wr_be16(&w, WIRE_CLASS_IN);
	wr_u8(&w, 0);
	wr_be16(&w, WIRE_TYPE_OPT);
	wr_be16(&w, UPSTREAM_UDP_SIZE);
	wr_be16(&w, 0);
	wr_be16(&w, dnssec_ok ? 0x8000 : 0);
	wr_be16(&w, 0);
	x->wire_n = (uint16_t)(x->proxy_n + w.len);
}

void upstream_ask(struct upstream *u, struct exchange *x, const struct origin *from,
		  const uint8_t *qname, size_t qname_len, uint16_t qtype, uint16_t flags,
		  bool dnssec_ok)
{
	struct sock *s = pick_sock(u);
	x->link = NULL;
	x->tcp = NULL;
	x->unsent = x->waits = false;
	x->qname_len = (uint16_t)qname_len;
	x->qtype = qtype;
	x->proxy_n = u->t->o->proxy_v2 ? (uint16_t)proxy_header(x->wire, from, false) : 0;
	x->id = 0;
	if (s)
		enter(u, x, (unsigned)(s - u->socks));
	write_question(x, qname, flags, dnssec_ok);
	if (s) /* else its time runs out */
		enqueue(u, x);
}

void upstream_again(struct upstream *u, struct exchange *x)
{
	if (x->link && !x->unsent)
		enqueue(u, x);
}

void upstream_ask_tcp(struct upstream *u, struct exchange *x, const struct origin *from)
{
	links_ask(u->links, x, from);
}

void upstream_cancel(struct upstream *u, struct exchange *x)
{
	leave(u, x);
	links_cancel(u->links, x);
}

/* ---- answers ---- */

static void take(struct upstream *u, unsigned sock, const uint8_t *msg, size_t n, bool cut)
{
	struct exchange *x = n >= 2 ? find(u, sock, (uint16_t)(msg[0] << 8 | msg[1])) : NULL;
	if (!x || !wire_is_answer(msg, n, x->id, x->wire + x->proxy_n + WIRE_HEAD, x->qname_len,
				  x->qtype))
		return;
	cut |= (msg[2] & WIRE_TC >> 8) != 0;
	leave(u, x);
	u->last = ev_now(u->t->loop);
	u->refused = false;
	u->done(x, cut ? UPSTREAM_CUT : UPSTREAM_ANSWER, msg, n);
}

static void on_sock(struct ev_loop *loop, ev_io *io, int events)
{
	struct sock *s = io->data;
	struct upstream *u = s->of;
	int n = BATCH;
	for (unsigned round = 0; round < READ_ROUNDS && n == BATCH; round++) {
		n = recvmmsg(s->fd, u->msgs, BATCH, 0, NULL);
		if (n < 0 && errno == ECONNREFUSED)
			u->refused = true;
		for (int i = 0; i < n; i++)
			take(u, (unsigned)(s - u->socks), u->in[i], u->msgs[i].msg_len,
			     u->msgs[i].msg_hdr.msg_flags & MSG_TRUNC);
	}
}

double upstream_last(const struct upstream *u)
{
	return u->last;
}

bool upstream_refused(const struct upstream *u)
{
	return u->refused;
}

/* ---- life ---- */

struct upstream *upstream_new(struct shim *t, upstream_done *done)
{
	struct upstream *u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->t = t;
	u->done = done;
	u->links = links_new(t, done);
	for (unsigned i = 0; i < BATCH; i++) {
		u->iovs[i] = (struct iovec){ u->in[i], UPSTREAM_UDP_SIZE };
		u->msgs[i].msg_hdr.msg_iov = &u->iovs[i];
		u->msgs[i].msg_hdr.msg_iovlen = 1;
	}
	bool ok = u->links != NULL;
	for (unsigned i = 0; i < SOCKETS; i++)
		u->socks[i] = (struct sock){ .of = u, .fd = -1 };
	for (unsigned i = 0; i < SOCKETS && ok; i++)
		ok = sock_open(&u->socks[i]);
	ev_prepare_init(&u->flush, on_flush);
	u->flush.data = u;
	ev_prepare_start(t->loop, &u->flush);
	if (ok)
		return u;
	upstream_free(u);
	return NULL;
}

void upstream_free(struct upstream *u)
{
	if (!u)
		return;
	ev_prepare_stop(u->t->loop, &u->flush);
	links_free(u->links);
	for (unsigned i = 0; i < SOCKETS; i++)
		sock_close(&u->socks[i]);
	free(u);
}
