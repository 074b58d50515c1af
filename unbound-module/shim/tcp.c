/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients' connections (RFC 7766): many questions on one, answered in any order. Each has a buffer of
 * fixed size for a question, and a bound for answers that its client does not read. Never keeps a
 * connection that does nothing, nor more than its share for one subject.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/host/say.h"
#include "unbound-module/shim/shim.h"

enum {
	MAX_CONNS = 1024, /* of a thread */
	MAX_HELD = 32,    /* questions of a connection that wait for answers */
	IN_SIZE = 2 + 4096,
	MAX_UNREAD = 256 * 1024, /* octets of answers that the client does not take */
	ACCEPT_BURST = 16,
	READ_BURST = 8
};

static const double sweep_s = 0.5;
static const double message_s = 5; /* from the first octet of a question to its last */
static const double unread_s = 10; /* answers must be taken within this */
static const double accept_pause_s = 0.2;

/* What did not go out at once: the length before it. */
struct unread {
	struct unread *next;
	size_t at, n;
	uint8_t b[];
};

struct conn {
	struct tcp *of;
	struct conn *next, *prev;
	int fd;
	ev_io rd, wr;
	struct origin from;
	struct hold *held;
	unsigned n_held;
	bool eof, dead;
	double last;  /* something whole was read or written */
	double since; /* the first octet of the question in the buffer */
	struct unread *first, **end;
	size_t unread; /* octets */
	size_t in_n;
	uint8_t in[IN_SIZE];
};

struct door {
	struct tcp *of;
	ev_io io;
};

struct tcp {
	struct shim *t;
	struct door doors[SHIM_MAX_LISTENERS];
	ev_timer sweep, pause;
	struct conn *conns;
	unsigned n_conns;
	bool draining;
	bool starved;
};

/* ---- connections ---- */

static struct subject subject_of(const struct conn *c)
{
	return (struct subject){ .src = c->from.src };
}

static void conn_close(struct conn *c)
{
	struct tcp *t = c->of;
	struct subject who = subject_of(c);
	ev_io_stop(t->t->loop, &c->rd);
	ev_io_stop(t->t->loop, &c->wr);
	close(c->fd);
	while (c->held) {
		struct hold *h = c->held;
		c->held = h->next;
		desk_forget(h);
	}
	while (c->first) {
		struct unread *u = c->first;
		c->first = u->next;
		free(u);
	}
	if (c->prev)
		c->prev->next = c->next;
	else
		t->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	t->n_conns--;
	subject_give(t->t->o->subjects, SUBJECT_CONNECTIONS, &who);
	free(c);
}

/* Does it still wait for something, or somebody for it? */
static bool is_busy(const struct conn *c)
{
	return c->n_held > 0 || c->first;
}

void tcp_hold(struct conn *c, struct hold *h)
{
	h->next = c->held;
	h->link = &c->held;
	if (h->next)
		h->next->link = &h->next;
	c->held = h;
	c->n_held++;
}

void tcp_release(struct conn *c, struct hold *h)
{
	*h->link = h->next;
	if (h->next)
		h->next->link = h->link;
	c->n_held--;
	/* there may be questions in the buffer that had no room */
	ev_feed_event(c->of->t->loop, &c->wr, EV_WRITE);
}

/* Brings the watchers in line; not for one that is dead. */
static void settle(struct conn *c)
{
	struct ev_loop *loop = c->of->t->loop;
	bool read = !c->eof && !c->first && c->n_held < MAX_HELD;
	if (read)
		ev_io_start(loop, &c->rd);
	else
		ev_io_stop(loop, &c->rd);
	if (c->first)
		ev_io_start(loop, &c->wr);
	else
		ev_io_stop(loop, &c->wr);
}

/* May be called from anywhere: the connection is only marked, and closed from its own event. */
static void condemn(struct conn *c)
{
	c->dead = true;
	ev_feed_event(c->of->t->loop, &c->wr, EV_WRITE);
}

/* ---- out ---- */

static void keep(struct conn *c, const uint8_t *head, const uint8_t *msg, size_t n, size_t sent)
{
	struct unread *u = c->unread + n + 2 <= MAX_UNREAD ? malloc(sizeof(*u) + n + 2) : NULL;
	if (!u) {
		condemn(c);
		return;
	}
	u->next = NULL;
	u->at = sent;
	u->n = n + 2;
	memcpy(u->b, head, 2);
	memcpy(u->b + 2, msg, n);
	*c->end = u;
	c->end = &u->next;
	c->unread += u->n;
}

void tcp_send(struct conn *c, const uint8_t *msg, size_t n)
{
	uint8_t head[2] = { (uint8_t)(n >> 8), (uint8_t)n };
	struct iovec v[2] = { { head, 2 }, { (uint8_t *)msg, n } };
	const struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	ssize_t sent = 0;
	if (c->dead)
		return;
	if (!c->first) {
		do
			sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
		while (sent < 0 && errno == EINTR);
	}
	if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
		condemn(c);
		return;
	}
	c->last = ev_now(c->of->t->loop);
	if (sent < (ssize_t)n + 2)
		keep(c, head, msg, n, sent < 0 ? 0 : (size_t)sent);
	/* the reading side may go on, the writing side may have to start: its event looks after it */
	ev_feed_event(c->of->t->loop, &c->wr, EV_WRITE);
}

/* False: the connection is broken. */
static bool flush(struct conn *c)
{
	while (c->first) {
		struct unread *u = c->first;
		ssize_t n = send(c->fd, u->b + u->at, u->n - u->at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		u->at += (size_t)n;
		c->last = ev_now(c->of->t->loop);
		if (u->at < u->n)
			continue;
		c->unread -= u->n;
		c->first = u->next;
		if (!c->first)
			c->end = &c->first;
		free(u);
	}
	return true;
}

/* ---- in ---- */

/* The questions that are in the buffer whole, as far as there is room for them. */
static void ask(struct conn *c)
{
	struct shim *t = c->of->t;
	struct now now = decide_now();
	size_t at = 0;
	while (!c->dead && !c->first && c->n_held < MAX_HELD && c->in_n - at >= 2) {
		size_t n = (size_t)c->in[at] << 8 | c->in[at + 1];
		if (n < WIRE_HEAD || n > IN_SIZE - 2) {
			condemn(c);
			return;
		}
		if (c->in_n - at - 2 < n)
			break;
		desk_ask(t->desk, &c->from, c->in + at + 2, n, now);
		at += 2 + n;
		c->last = c->since = ev_now(t->loop);
	}
	c->in_n -= at;
	if (at > 0)
		memmove(c->in, c->in + at, c->in_n);
}

/* False: the connection is broken. */
static bool fill(struct conn *c)
{
	for (unsigned i = 0; i < READ_BURST && c->in_n < IN_SIZE; i++) {
		ssize_t n = recv(c->fd, c->in + c->in_n, IN_SIZE - c->in_n, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		if (n == 0) {
			c->eof = true;
			return true;
		}
		if (c->in_n == 0)
			c->since = ev_now(c->of->t->loop);
		c->in_n += (size_t)n;
	}
	return true;
}

/* What a connection does next; it may be gone afterwards. */
static void go_on(struct conn *c, bool readable)
{
	if (c->dead || !flush(c) || (readable && !fill(c))) {
		conn_close(c);
		return;
	}
	ask(c);
	if (c->dead || (c->eof && !is_busy(c)) || (c->of->draining && !is_busy(c)))
		conn_close(c);
	else
		settle(c);
}

static void on_readable(struct ev_loop *loop, ev_io *w, int events)
{
	go_on(w->data, true);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
	go_on(w->data, false);
}

/* ---- accepting ---- */

/* The one that has been idle for longest makes room. */
static bool evict(struct tcp *t)
{
	struct conn *oldest = NULL;
	for (struct conn *c = t->conns; c; c = c->next)
		if (!is_busy(c) && (!oldest || c->last < oldest->last))
			oldest = c;
	if (oldest)
		conn_close(oldest);
	return oldest != NULL;
}

static bool may_enter(struct tcp *t, const struct subject *who)
{
	struct shim_options *o = t->t->o;
	if (!subject_take(o->subjects, SUBJECT_CONNECTIONS, who, o->max_conns))
		return false;
	if (t->n_conns < MAX_CONNS || evict(t))
		return true;
	subject_give(o->subjects, SUBJECT_CONNECTIONS, who);
	if (!atomic_exchange(&o->crowded, true))
		say(DECIDE_WARNING, "connections-refused", "limit=%d", MAX_CONNS);
	return false;
}

static struct conn *conn_new(struct tcp *t, int fd, const struct origin *from)
{
	struct conn *c = malloc(sizeof(*c)); /* the buffer stays untouched until used */
	struct subject who = { .src = from->src };
	int one = 1;
	if (!c || !may_enter(t, &who)) {
		free(c);
		return NULL;
	}
	memset(c, 0, offsetof(struct conn, in));
	c->of = t;
	c->fd = fd;
	c->from = *from;
	c->from.conn = c;
	c->end = &c->first;
	c->last = c->since = ev_now(t->t->loop);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ev_io_init(&c->rd, on_readable, fd, EV_READ);
	ev_io_init(&c->wr, on_writable, fd, EV_WRITE);
	c->rd.data = c->wr.data = c;
	c->next = t->conns;
	if (c->next)
		c->next->prev = c;
	t->conns = c;
	t->n_conns++;
	ev_io_start(t->t->loop, &c->rd);
	return c;
}

/* For PROXYv2: where the client connected to. */
static void note_local(int fd, struct origin *o)
{
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);
	if (getsockname(fd, (struct sockaddr *)&ss, &n) == 0)
		addr_from_sockaddr(&o->dst, &o->dst_port, (struct sockaddr *)&ss, n);
}

static void doors_watch(struct tcp *t, bool on)
{
	for (unsigned i = 0; i < t->t->o->n_listeners; i++) {
		if (on)
			ev_io_start(t->t->loop, &t->doors[i].io);
		else
			ev_io_stop(t->t->loop, &t->doors[i].io);
	}
}

static void on_pause_over(struct ev_loop *loop, ev_timer *w, int events)
{
	struct tcp *t = w->data;
	if (!t->draining)
		doors_watch(t, true);
}

/* Without descriptors, accepting has a rest instead of spinning. */
static void accept_failed(struct tcp *t)
{
	if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return;
	if (!t->starved)
		say(DECIDE_ERR, "accept-failed", "error=\"%s\"", strerror(errno));
	t->starved = true;
	doors_watch(t, false);
	ev_timer_stop(t->t->loop, &t->pause);
	ev_timer_set(&t->pause, accept_pause_s, 0);
	ev_timer_start(t->t->loop, &t->pause);
}

static void on_door(struct ev_loop *loop, ev_io *io, int events)
{
	struct door *door = io->data;
	for (unsigned i = 0; i < ACCEPT_BURST; i++) {
		struct sockaddr_storage ss;
		socklen_t n = sizeof(ss);
		struct origin o = { 0 };
		int fd = accept4(io->fd, (struct sockaddr *)&ss, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			accept_failed(door->of);
			return;
		}
		note_local(fd, &o);
		if (!addr_from_sockaddr(&o.src, &o.src_port, (struct sockaddr *)&ss, n) ||
		    !conn_new(door->of, fd, &o))
			close(fd);
	}
}

/* ---- time ---- */

static bool is_over(const struct conn *c, double now)
{
	if (c->first)
		return now - c->last >= unread_s;
	if (c->n_held > 0)
		return false; /* the desk has its own time for these */
	if (c->in_n > 0 && now - c->since >= message_s)
		return true;
	return now - c->last >= c->of->t->o->tcp_idle_s;
}

static void on_sweep(struct ev_loop *loop, ev_timer *w, int events)
{
	struct tcp *t = w->data;
	double now = ev_now(loop);
	for (struct conn *c = t->conns, *next; c; c = next) {
		next = c->next;
		if (is_over(c, now))
			conn_close(c);
	}
}

/* ---- life ---- */

struct tcp *tcp_new(struct shim *s, const struct shim_sockets *sockets)
{
	struct tcp *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->t = s;
	for (unsigned i = 0; i < s->o->n_listeners; i++) {
		t->doors[i] = (struct door){ .of = t };
		ev_io_init(&t->doors[i].io, on_door, sockets[i].tcp, EV_READ);
		t->doors[i].io.data = &t->doors[i];
	}
	doors_watch(t, true);
	ev_timer_init(&t->sweep, on_sweep, sweep_s, sweep_s);
	ev_timer_init(&t->pause, on_pause_over, accept_pause_s, 0);
	t->sweep.data = t->pause.data = t;
	ev_timer_start(s->loop, &t->sweep);
	return t;
}

void tcp_drain(struct tcp *t)
{
	t->draining = true;
	doors_watch(t, false);
	for (struct conn *c = t->conns, *next; c; c = next) {
		next = c->next;
		if (!is_busy(c))
			conn_close(c);
	}
}

void tcp_free(struct tcp *t)
{
	if (!t)
		return;
	doors_watch(t, false);
	ev_timer_stop(t->t->loop, &t->sweep);
	ev_timer_stop(t->t->loop, &t->pause);
	while (t->conns)
		conn_close(t->conns);
	free(t);
}
