/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops, threads and sockets; see server.h. Never reads from a connection whose answers are not taken,
 * and never spins where descriptors run out.
 */
#include "spoa-agent/server.h"

#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/host/say.h"
#include "spoa-agent/session.h"
#include "spoa-agent/worker.h"

/* A mailbox has room for all connections there may be: a burst of them waits, and none is turned away. */
enum { MAILBOX = SERVER_MAX_CONNS, ACCEPT_BURST = 64, READ_BURST = 16 };

static const double hello_s = 10; /* a connection must say HELLO within this */
static const double linger_s = 1; /* a peer may read our goodbye for this long */
static const double drain_s = 5;  /* outstanding answers are waited for this long */
static const double accept_pause_s = 0.2;

struct thread {
	struct server *server;
	pthread_t id;
	struct ev_loop *loop;
	ev_async wake;
	ev_timer drain_timer;
	struct worker *worker;
	struct conn *conns;
	atomic_uint n_conns;
	atomic_bool stop; /* drain */
	atomic_bool kill; /* do not wait */
	bool draining;
	pthread_mutex_t lock; /* of the mailbox */
	int mailbox[MAILBOX];
	unsigned n_mail;
};

struct conn {
	struct thread *t;
	int fd;
	bool shut; /* our side is closed; what comes is thrown away */
	ev_io rd, wr;
	ev_timer timer;
	struct conn *next, *prev;
	struct session s;
};

struct acceptor {
	struct server *server;
	ev_io io;
};

struct server {
	const struct server_options *o;
	struct ev_loop *loop;
	struct thread *threads;
	unsigned n_started;
	unsigned turn;
	struct acceptor acceptors[SERVER_MAX_LISTENERS];
	ev_timer pause;
	ev_signal term, intr, hup;
	ev_async ended; /* a thread has */
	atomic_uint n_running;
	bool starved; /* no descriptors: said once */
	bool full;
	bool stopping;
};

/* ---- connections --------------------------------------------------------------------------- */

static void conn_close(struct conn *c)
{
	struct thread *t = c->t;
	ev_io_stop(t->loop, &c->rd);
	ev_io_stop(t->loop, &c->wr);
	ev_timer_stop(t->loop, &c->timer);
	session_fini(&c->s);
	close(c->fd);
	if (c->prev)
		c->prev->next = c->next;
	else
		t->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	atomic_fetch_sub(&t->n_conns, 1);
	free(c);
	if (t->draining && !t->conns)
		ev_break(t->loop, EVBREAK_ALL);
}

/* False: the connection is broken. */
static bool flush(struct conn *c)
{
	size_t n;
	for (const uint8_t *p; (p = session_output(&c->s, &n)) != NULL;) {
		ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		session_sent(&c->s, (size_t)sent);
	}
	return true;
}

static void watch(struct ev_loop *loop, ev_io *io, bool on)
{
	if (on)
		ev_io_start(loop, io);
	else
		ev_io_stop(loop, io);
}

static void restart_timer(struct conn *c, double s)
{
	ev_timer_stop(c->t->loop, &c->timer);
	ev_timer_set(&c->timer, s, 0);
	ev_timer_start(c->t->loop, &c->timer);
}

/*
 * Our goodbye is out: the peer gets the time to read it, because closing a socket with unread input
 * may take it away from it.
 */
static void start_linger(struct conn *c)
{
	c->shut = true;
	shutdown(c->fd, SHUT_WR);
	restart_timer(c, linger_s);
}

/* Brings the watchers in line with what the session wants; the connection may be gone afterwards. */
static void settle(struct conn *c)
{
	struct ev_loop *loop = c->t->loop;
	size_t room, out, before;
	do {
		if (!flush(c)) {
			conn_close(c);
			return;
		}
		before = c->s.in_len;
		session_input(&c->s, 0); /* what stood back while the output was full */
	} while (c->s.in_len != before);
	if (session_finished(&c->s) && (c->s.state == SESSION_DEAD || c->s.eof)) {
		conn_close(c);
		return;
	}
	session_output(&c->s, &out);
	if (!c->shut && c->s.state == SESSION_CLOSING) {
		if (out == 0)
			start_linger(c);
		else if (!ev_is_active(&c->timer))
			restart_timer(c, linger_s);
	} else if (c->s.state == SESSION_RUNNING) {
		ev_timer_stop(loop, &c->timer);
	}
	session_room(&c->s, &room);
	watch(loop, &c->rd, room > 0 || (c->shut && !c->s.eof));
	watch(loop, &c->wr, out > 0);
}

/* Input after our goodbye is thrown away. True: the end of it. */
static bool discard(struct conn *c)
{
	char trash[4096];
	for (unsigned i = 0; i < READ_BURST; i++) {
		ssize_t n = recv(c->fd, trash, sizeof(trash), 0);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return true;
		if (n < 0)
			break;
	}
	return false;
}

static void on_readable(struct ev_loop *loop, ev_io *w, int events)
{
	struct conn *c = w->data;
	size_t room;
	if (c->shut) {
		if (discard(c))
			conn_close(c);
		return;
	}
	uint8_t *p = session_room(&c->s, &room);
	if (room > 0) {
		ssize_t n = recv(c->fd, p, room, 0);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			conn_close(c);
			return;
		}
		if (n == 0)
			session_eof(&c->s);
		else if (n > 0)
			session_input(&c->s, (size_t)n);
	}
	settle(c);
}

static void on_writable(struct ev_loop *loop, ev_io *w, int events)
{
	settle(w->data);
}

/* No HELLO in time, or a peer that does not take our goodbye. */
static void on_conn_timer(struct ev_loop *loop, ev_timer *t, int events)
{
	conn_close(t->data);
}

static bool op_ready(void *arg)
{
	struct conn *c = arg;
	return worker_ready(c->t->worker);
}

static void op_notify(void *arg, struct session *s, const struct spop_frame *f)
{
	struct conn *c = arg;
	worker_notify(c->t->worker, s, f);
}

/* May be called from anywhere in this thread: only marks the connection for its loop. */
static void op_wake(void *arg, struct session *s)
{
	struct conn *c = arg;
	ev_feed_event(c->t->loop, &c->wr, EV_WRITE);
}

static const struct session_ops ops = { op_ready, op_notify, op_wake };

/* On a unix socket, and of this user. */
static bool is_peer(int fd, uid_t user)
{
	struct ucred who;
	socklen_t n = sizeof(who);
	struct sockaddr_storage at = { .ss_family = AF_UNSPEC };
	socklen_t at_len = sizeof(at);
	if (user == (uid_t)-1 || getsockname(fd, (struct sockaddr *)&at, &at_len) < 0 ||
	    at.ss_family != AF_UNIX)
		return false;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && n == sizeof(who) &&
	       who.uid == user;
}

static void conn_open(struct thread *t, int fd)
{
	struct conn *c = malloc(sizeof(*c)); /* the session's buffer stays untouched until used */
	int one = 1;
	if (!c) {
		close(fd);
		atomic_fetch_sub(&t->n_conns, 1);
		return;
	}
	c->t = t;
	c->fd = fd;
	c->shut = false;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on unix sockets */
	session_init(&c->s, &ops, c);
	c->s.trusted = is_peer(fd, t->server->o->peer);
	ev_io_init(&c->rd, on_readable, fd, EV_READ);
	ev_io_init(&c->wr, on_writable, fd, EV_WRITE);
	ev_timer_init(&c->timer, on_conn_timer, hello_s, 0);
	c->rd.data = c->wr.data = c->timer.data = c;
	c->next = t->conns;
	c->prev = NULL;
	if (c->next)
		c->next->prev = c;
	t->conns = c;
	ev_io_start(t->loop, &c->rd);
	ev_timer_start(t->loop, &c->timer);
	if (t->draining)
		session_drain(&c->s);
}

/* ---- threads ------------------------------------------------------------------------------- */

static void start_drain(struct thread *t)
{
	t->draining = true;
	for (struct conn *c = t->conns; c; c = c->next)
		session_drain(&c->s);
	ev_timer_start(t->loop, &t->drain_timer);
	if (!t->conns)
		ev_break(t->loop, EVBREAK_ALL);
}

static void on_wake(struct ev_loop *loop, ev_async *w, int events)
{
	struct thread *t = w->data;
	int fds[MAILBOX];
	pthread_mutex_lock(&t->lock);
	unsigned n = t->n_mail;
	memcpy(fds, t->mailbox, n * sizeof(*fds));
	t->n_mail = 0;
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < n; i++)
		conn_open(t, fds[i]);
	if (atomic_load(&t->kill))
		ev_break(loop, EVBREAK_ALL);
	else if (atomic_load(&t->stop) && !t->draining)
		start_drain(t);
}

static void on_drain_over(struct ev_loop *loop, ev_timer *t, int events)
{
	ev_break(loop, EVBREAK_ALL);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	ev_run(t->loop, 0);
	for (struct conn *c = t->conns, *next; c; c = next) {
		next = c->next;
		conn_close(c);
	}
	atomic_fetch_sub(&t->server->n_running, 1);
	ev_async_send(t->server->loop, &t->server->ended);
	return NULL;
}

static bool thread_init(struct thread *t, struct server *s)
{
	const struct server_options *o = s->o;
	t->server = s;
	pthread_mutex_init(&t->lock, NULL);
	t->loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!t->loop)
		return false;
	t->worker = worker_new(t->loop, o->decider, o->streams, &o->resolver, o->secrets);
	if (!t->worker)
		return false;
	ev_async_init(&t->wake, on_wake);
	ev_timer_init(&t->drain_timer, on_drain_over, drain_s, 0);
	t->wake.data = t;
	ev_async_start(t->loop, &t->wake);
	return true;
}

static void thread_fini(struct thread *t)
{
	for (unsigned i = 0; i < t->n_mail; i++)
		close(t->mailbox[i]);
	worker_free(t->worker);
	if (t->loop)
		ev_loop_destroy(t->loop);
	pthread_mutex_destroy(&t->lock);
}

/* The signals stay with the calling thread. */
static bool threads_start(struct server *s)
{
	sigset_t all, old;
	sigfillset(&all);
	s->threads = calloc(s->o->threads, sizeof(*s->threads));
	if (!s->threads)
		return false;
	pthread_sigmask(SIG_SETMASK, &all, &old);
	bool ok = true;
	for (unsigned i = 0; i < s->o->threads && ok; i++) {
		struct thread *t = &s->threads[i];
		atomic_fetch_add(&s->n_running, 1);
		ok = thread_init(t, s) && pthread_create(&t->id, NULL, thread_main, t) == 0;
		if (ok) {
			s->n_started++;
		} else {
			atomic_fetch_sub(&s->n_running, 1);
			thread_fini(t);
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

static void threads_stop(struct server *s, bool at_once)
{
	for (unsigned i = 0; i < s->n_started; i++) {
		atomic_store(&s->threads[i].stop, true);
		if (at_once)
			atomic_store(&s->threads[i].kill, true);
		ev_async_send(s->threads[i].loop, &s->threads[i].wake);
	}
}

static void threads_join(struct server *s)
{
	for (unsigned i = 0; i < s->n_started; i++)
		pthread_join(s->threads[i].id, NULL);
	for (unsigned i = 0; i < s->n_started; i++)
		thread_fini(&s->threads[i]);
	free(s->threads);
}

/* ---- accepting ----------------------------------------------------------------------------- */

/* The one with the fewest connections; among equals in turn. */
static struct thread *pick_thread(struct server *s, unsigned *total)
{
	struct thread *best = NULL;
	unsigned least = 0;
	*total = 0;
	for (unsigned i = 0; i < s->n_started; i++) {
		struct thread *t = &s->threads[(s->turn + i) % s->n_started];
		unsigned n = atomic_load(&t->n_conns);
		*total += n;
		if (!best || n < least) {
			best = t;
			least = n;
		}
	}
	s->turn++;
	return best;
}

static void hand_over(struct server *s, int fd)
{
	unsigned total;
	struct thread *t = pick_thread(s, &total);
	bool taken = false;
	if (total < SERVER_MAX_CONNS) {
		pthread_mutex_lock(&t->lock);
		if (t->n_mail < MAILBOX) {
			t->mailbox[t->n_mail++] = fd;
			atomic_fetch_add(&t->n_conns, 1);
			taken = true;
		}
		pthread_mutex_unlock(&t->lock);
	}
	if (taken)
		ev_async_send(t->loop, &t->wake);
	else
		close(fd);
	if (!taken && !s->full)
		say(DECIDE_WARNING, "connections-refused", "limit=%d", SERVER_MAX_CONNS);
	s->full = !taken;
}

static void accept_stop(struct server *s)
{
	for (unsigned i = 0; i < s->o->n_listeners; i++)
		ev_io_stop(s->loop, &s->acceptors[i].io);
}

static void on_pause_over(struct ev_loop *loop, ev_timer *t, int events)
{
	struct server *s = t->data;
	for (unsigned i = 0; i < s->o->n_listeners && !s->stopping; i++)
		ev_io_start(loop, &s->acceptors[i].io);
}

static void accept_failed(struct server *s)
{
	if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return;
	if (!s->starved)
		say(DECIDE_ERR, "accept-failed", "error=\"%s\"", strerror(errno));
	s->starved = true;
	accept_stop(s);
	ev_timer_stop(s->loop, &s->pause);
	ev_timer_set(&s->pause, accept_pause_s, 0);
	ev_timer_start(s->loop, &s->pause);
}

static void on_accept(struct ev_loop *loop, ev_io *w, int events)
{
	struct acceptor *a = w->data;
	for (unsigned i = 0; i < ACCEPT_BURST; i++) {
		int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			accept_failed(a->server);
			return;
		}
		if (a->server->starved)
			say(DECIDE_NOTICE, "accept-resumed", "%s", "");
		a->server->starved = false;
		hand_over(a->server, fd);
	}
}

/* The first signal drains, a second one ends at once. */
static void on_end(struct ev_loop *loop, ev_signal *w, int events)
{
	struct server *s = w->data;
	say(DECIDE_NOTICE, s->stopping ? "ending" : "draining", "signal=%d", w->signum);
	threads_stop(s, s->stopping);
	s->stopping = true;
	accept_stop(s);
	for (unsigned i = 0; i < s->o->n_listeners; i++)
		listener_close(&s->o->listeners[i]);
}

static void on_ended(struct ev_loop *loop, ev_async *w, int events)
{
	struct server *s = w->data;
	if (atomic_load(&s->n_running) == 0)
		ev_break(loop, EVBREAK_ALL);
}

static void on_hup(struct ev_loop *loop, ev_signal *w, int events)
{
	struct server *s = w->data;
	decider_reload(s->o->decider);
}

static void watch_signals(struct server *s)
{
	ev_signal_init(&s->term, on_end, SIGTERM);
	ev_signal_init(&s->intr, on_end, SIGINT);
	ev_signal_init(&s->hup, on_hup, SIGHUP);
	ev_async_init(&s->ended, on_ended);
	s->term.data = s->intr.data = s->hup.data = s->ended.data = s;
	ev_async_start(s->loop, &s->ended);
	ev_signal_start(s->loop, &s->term);
	ev_signal_start(s->loop, &s->intr);
	ev_signal_start(s->loop, &s->hup);
}

static void run(struct server *s)
{
	for (unsigned i = 0; i < s->o->n_listeners; i++) {
		struct acceptor *a = &s->acceptors[i];
		a->server = s;
		ev_io_init(&a->io, on_accept, s->o->listeners[i].fd, EV_READ);
		a->io.data = a;
		ev_io_start(s->loop, &a->io);
	}
	say(DECIDE_NOTICE, "ready", "threads=%u listeners=%u", s->o->threads, s->o->n_listeners);
	ev_run(s->loop, 0);
}

bool server_run(const struct server_options *o)
{
	struct server s = { .o = o };
	s.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!s.loop) {
		say(DECIDE_ERR, "start-failed", "what=loop");
		return false;
	}
	ev_timer_init(&s.pause, on_pause_over, accept_pause_s, 0);
	s.pause.data = &s;
	watch_signals(&s);
	bool ok = threads_start(&s);
	if (ok)
		run(&s);
	else
		say(DECIDE_ERR, "start-failed", "what=threads");
	threads_stop(&s, true);
	threads_join(&s);
	ev_loop_destroy(s.loop);
	return ok;
}
