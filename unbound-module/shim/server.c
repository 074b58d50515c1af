/* SPDX-License-Identifier: Apache-2.0 */
/* Threads, signals and listening sockets of cx-dns; see server.h. Never looks into a message. */
#include "unbound-module/shim/server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/host/say.h"

enum { BACKLOG = 1024, RECEIVE_BUFFER = 4 << 20 };

static const double drain_s = 3;
static const double drain_look_s = 0.02;

struct thread {
	struct server *server;
	pthread_t id;
	struct shim shim;
	ev_async wake;
	ev_timer look; /* while draining: is there anything left to wait for? */
	atomic_bool stop, kill;
	double drained_by;
};

struct server {
	struct shim_options *o;
	struct ev_loop *loop;
	struct thread *threads;
	unsigned n_started;
	ev_signal term, intr, hup;
	ev_async ended; /* a thread has */
	atomic_uint n_running;
	bool stopping;
};

/* ---- sockets ---- */

static bool set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

static int open_bound(const struct endpoint *e, int type)
{
	bool v6 = e->ss.ss_family == AF_INET6;
	int fd = socket(e->ss.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (set(fd, SOL_SOCKET, SO_REUSEADDR, 1) && set(fd, SOL_SOCKET, SO_REUSEPORT, 1) &&
	    (!v6 || set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) &&
	    bind(fd, (const struct sockaddr *)&e->ss, e->len) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Answers leave from where questions went, and nobody can make us believe in a smaller path. */
static bool open_udp(struct shim_sockets *s, const struct endpoint *e)
{
	s->udp = open_bound(e, SOCK_DGRAM);
	if (s->udp < 0)
		return false;
	(void)set(s->udp, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
	if (e->ss.ss_family == AF_INET6)
		return set(s->udp, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) &&
		       set(s->udp, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_OMIT);
	return set(s->udp, IPPROTO_IP, IP_PKTINFO, 1) &&
	       set(s->udp, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
}

static bool open_tcp(struct shim_sockets *s, const struct endpoint *e)
{
	s->tcp = open_bound(e, SOCK_STREAM);
	return s->tcp >= 0 && listen(s->tcp, BACKLOG) == 0;
}

/* SO_REUSEPORT would let a second program of ours share the port in silence: looked for before. */
static bool is_free(const struct endpoint *e)
{
	int fd = socket(e->ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 &&
		  (e->ss.ss_family != AF_INET6 || set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) &&
		  bind(fd, (const struct sockaddr *)&e->ss, e->len) == 0;
	int error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return ok;
}

void server_close(const struct shim_options *o, struct shim_sockets *s)
{
	for (unsigned i = 0; i < o->threads * o->n_listeners; i++) {
		if (s[i].udp >= 0)
			close(s[i].udp);
		if (s[i].tcp >= 0)
			close(s[i].tcp);
		s[i].udp = s[i].tcp = -1;
	}
}

bool server_open(const struct shim_options *o, struct shim_sockets *out, char *why)
{
	unsigned n = o->threads * o->n_listeners;
	bool ok = true;
	for (unsigned i = 0; i < n; i++)
		out[i] = (struct shim_sockets){ -1, -1 };
	for (unsigned i = 0; i < o->n_listeners && ok; i++)
		ok = is_free(&o->listen[i]);
	for (unsigned i = 0; i < n && ok; i++)
		ok = open_udp(&out[i], &o->listen[i % o->n_listeners]) &&
		     open_tcp(&out[i], &o->listen[i % o->n_listeners]);
	if (ok)
		return true;
	snprintf(why, SERVER_WHY, "%s", strerror(errno));
	server_close(o, out);
	return false;
}

/* ---- threads ---- */

static void on_look(struct ev_loop *loop, ev_timer *w, int events)
{
	struct thread *t = w->data;
	if (desk_open(t->shim.desk) == 0 || ev_now(loop) >= t->drained_by)
		ev_break(loop, EVBREAK_ALL);
}

static void on_wake(struct ev_loop *loop, ev_async *w, int events)
{
	struct thread *t = w->data;
	if (atomic_load(&t->kill)) {
		ev_break(loop, EVBREAK_ALL);
	} else if (atomic_load(&t->stop) && !ev_is_active(&t->look)) {
		tcp_drain(t->shim.tcp);
		t->drained_by = ev_now(loop) + drain_s;
		ev_timer_start(loop, &t->look);
	}
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	ev_run(t->shim.loop, 0);
	tcp_free(t->shim.tcp);
	t->shim.tcp = NULL;
	udp_free(t->shim.udp);
	t->shim.udp = NULL;
	atomic_fetch_sub(&t->server->n_running, 1);
	ev_async_send(t->server->loop, &t->server->ended);
	return NULL;
}

static bool thread_init(struct thread *t, struct server *s, const struct shim_sockets *sockets)
{
	struct shim *h = &t->shim;
	t->server = s;
	h->o = s->o;
	h->loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!h->loop)
		return false;
	h->judge = decide_thread_new(s->o->decider);
	h->desk = h->judge ? desk_new(h) : NULL;
	h->udp = h->desk ? udp_new(h, sockets) : NULL;
	h->tcp = h->udp ? tcp_new(h, sockets) : NULL;
	ev_async_init(&t->wake, on_wake);
	ev_timer_init(&t->look, on_look, 0, drain_look_s);
	t->wake.data = t->look.data = t;
	ev_async_start(h->loop, &t->wake);
	return h->tcp != NULL;
}

/* From where the thread ran, or where it could not start. */
static void thread_fini(struct thread *t)
{
	struct shim *h = &t->shim;
	tcp_free(h->tcp);
	desk_free(h->desk);
	udp_free(h->udp);
	if (h->judge)
		decide_thread_free(h->judge);
	if (h->loop)
		ev_loop_destroy(h->loop);
}

/* The signals stay with the calling thread. */
static bool threads_start(struct server *s, const struct shim_sockets *sockets)
{
	sigset_t all, old;
	bool ok = true;
	s->threads = calloc(s->o->threads, sizeof(*s->threads));
	if (!s->threads)
		return false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 0; i < s->o->threads && ok; i++) {
		struct thread *t = &s->threads[i];
		atomic_fetch_add(&s->n_running, 1);
		ok = thread_init(t, s, sockets + (size_t)i * s->o->n_listeners) &&
		     pthread_create(&t->id, NULL, thread_main, t) == 0;
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
		ev_async_send(s->threads[i].shim.loop, &s->threads[i].wake);
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

/* ---- signals ---- */

/* The first signal drains, a second one ends at once. */
static void on_end(struct ev_loop *loop, ev_signal *w, int events)
{
	struct server *s = w->data;
	say(DECIDE_NOTICE, s->stopping ? "ending" : "draining", "signal=%d", w->signum);
	threads_stop(s, s->stopping);
	s->stopping = true;
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

bool server_run(struct shim_options *o, const struct shim_sockets *sockets)
{
	struct server s = { .o = o };
	s.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (!s.loop) {
		say(DECIDE_ERR, "start-failed", "what=loop");
		return false;
	}
	watch_signals(&s);
	bool ok = threads_start(&s, sockets);
	if (ok) {
		say(DECIDE_NOTICE, "ready", "threads=%u listeners=%u", o->threads, o->n_listeners);
		ev_run(s.loop, 0);
	} else {
		say(DECIDE_ERR, "start-failed", "what=threads");
	}
	threads_stop(&s, true);
	threads_join(&s);
	ev_loop_destroy(s.loop);
	return ok;
}
