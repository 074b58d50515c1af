/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that do not fit into a datagram; see link.h. Never keeps a connection for a second question:
 * with PROXYv2 it speaks for one client.
 */
#include "unbound-module/shim/link.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/base/bytes.h"

enum { LINKS = 16, LINKS_PER_SUBJECT = 4 };

struct link {
	struct links *of;
	struct exchange *x; /* NULL: free */
	int fd;
	ev_io io;
	size_t out_at, out_n, in_n;
	uint8_t out[UPSTREAM_WIRE];
	uint8_t *in; /* 2 + WIRE_MAX, from the first use on */
};

struct links {
	struct shim *t;
	upstream_done *done;
	struct exchange *first, **last; /* those that wait */
	struct link all[LINKS];
};

size_t proxy_header(uint8_t *out, const struct origin *o, bool stream)
{
	/* the signature; version 2, for somebody else */
	static const uint8_t start[] = "\r\n\r\n\0\r\nQUIT\n\x21";
	struct writer w = wr_init(out, UPSTREAM_PROXY);
	bool v4 = addr_is_v4(&o->src) && addr_is_v4(&o->dst);
	size_t skip = v4 ? 12 : 0;
	wr_bytes(&w, start, sizeof(start) - 1);
	wr_u8(&w, (uint8_t)((v4 ? 0x10 : 0x20) | (stream ? 1 : 2)));
	wr_be16(&w, (uint16_t)(2 * (16 - skip) + 4));
	wr_bytes(&w, o->src.b + skip, 16 - skip);
	wr_bytes(&w, o->dst.b + skip, 16 - skip);
	wr_be16(&w, o->src_port);
	wr_be16(&w, o->dst_port);
	return w.len;
}

static void start_waiting(struct links *l);

static void link_close(struct link *k)
{
	ev_io_stop(k->of->t->loop, &k->io);
	close(k->fd);
	k->fd = -1;
	k->x->tcp = NULL;
	k->x = NULL;
}

/* The exchange is over; whoever waits may have the place. */
static void link_end(struct link *k, enum upstream_event ev, size_t n)
{
	struct links *l = k->of;
	struct exchange *x = k->x;
	link_close(k);
	l->done(x, ev, k->in + 2, n);
	start_waiting(l);
}

/* 1: all of it is there; 0: not yet; -1: the connection is of no use. */
static int link_read(struct link *k)
{
	size_t want = 2;
	if (k->in_n >= 2)
		want = 2u + ((size_t)k->in[0] << 8 | k->in[1]);
	while (k->in_n < want) {
		ssize_t n = recv(k->fd, k->in + k->in_n, want - k->in_n, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n <= 0)
			return -1;
		k->in_n += (size_t)n;
		if (k->in_n == 2)
			want = 2u + ((size_t)k->in[0] << 8 | k->in[1]);
	}
	return want > 2 ? 1 : -1;
}

static bool link_write(struct link *k)
{
	while (k->out_at < k->out_n) {
		ssize_t n = send(k->fd, k->out + k->out_at, k->out_n - k->out_at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		k->out_at += (size_t)n;
	}
	ev_io_stop(k->of->t->loop, &k->io);
	ev_io_set(&k->io, k->fd, EV_READ);
	ev_io_start(k->of->t->loop, &k->io);
	return true;
}

static void on_link(struct ev_loop *loop, ev_io *io, int events)
{
	struct link *k = io->data;
	const struct exchange *x = k->x;
	int rc = 0;
	if (k->out_at < k->out_n && !link_write(k))
		rc = -1;
	else if (k->out_at == k->out_n)
		rc = link_read(k);
	if (rc == 0)
		return;
	size_t n = rc > 0 ? k->in_n - 2 : 0;
	bool good = rc > 0 && wire_is_answer(k->in + 2, n, x->id, x->wire + x->proxy_n + WIRE_HEAD,
					     x->qname_len, x->qtype);
	link_end(k, good ? UPSTREAM_ANSWER : UPSTREAM_FAILED, n);
}

static bool link_open(struct link *k)
{
	const struct endpoint *e = &k->of->t->o->upstream;
	int one = 1;
	if (!k->in)
		k->in = malloc(2 + WIRE_MAX);
	if (!k->in)
		return false;
	k->fd = socket(e->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (k->fd < 0)
		return false;
	(void)setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(k->fd, (const struct sockaddr *)&e->ss, e->len) == 0 || errno == EINPROGRESS)
		return true;
	close(k->fd);
	k->fd = -1;
	return false;
}

/* The header for a connection stands in the exchange's place for that of a datagram. */
static void link_start(struct link *k, struct exchange *x)
{
	struct writer w = wr_init(k->out, sizeof(k->out));
	size_t n = (size_t)x->wire_n - x->proxy_n;
	wr_bytes(&w, x->wire, x->proxy_n);
	wr_be16(&w, (uint16_t)n);
	wr_bytes(&w, x->wire + x->proxy_n, n);
	k->x = x;
	x->tcp = k;
	k->out_at = k->in_n = 0;
	k->out_n = w.len;
	ev_io_init(&k->io, on_link, k->fd, EV_WRITE);
	k->io.data = k;
	ev_io_start(k->of->t->loop, &k->io);
}

static struct link *find_free(struct links *l, uint64_t subject)
{
	struct link *found = NULL;
	unsigned same = 0;
	for (unsigned i = 0; i < LINKS; i++) {
		if (!l->all[i].x)
			found = &l->all[i];
		else
			same += l->all[i].x->subject == subject;
	}
	return same < LINKS_PER_SUBJECT ? found : NULL;
}

static void unlink_waiting(struct links *l, struct exchange *x)
{
	for (struct exchange **at = &l->first; *at; at = &(*at)->wait_next) {
		if (*at != x)
			continue;
		*at = x->wait_next;
		if (l->last == &x->wait_next)
			l->last = at;
		break;
	}
	x->waits = false;
}

/* Of those that wait, the first that may go on. */
static void start_waiting(struct links *l)
{
	struct exchange *next;
	for (struct exchange *x = l->first; x; x = next) {
		struct link *k = find_free(l, x->subject);
		next = x->wait_next;
		if (!k)
			continue;
		if (!link_open(k))
			return; /* its time will run out, unless there are descriptors again */
		unlink_waiting(l, x);
		link_start(k, x);
	}
}

void links_ask(struct links *l, struct exchange *x, const struct origin *from)
{
	uint8_t head[UPSTREAM_PROXY];
	if (x->proxy_n > 0) {
		/* as long as the datagram's */
		x->proxy_n = (uint16_t)proxy_header(head, from, true);
		memcpy(x->wire, head, x->proxy_n);
	}
	x->wait_next = NULL;
	x->waits = true;
	*l->last = x;
	l->last = &x->wait_next;
	start_waiting(l);
}

void links_cancel(struct links *l, struct exchange *x)
{
	if (x->waits)
		unlink_waiting(l, x);
	if (!x->tcp)
		return;
	link_close(x->tcp);
	start_waiting(l);
}

struct links *links_new(struct shim *t, upstream_done *done)
{
	struct links *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->t = t;
	l->done = done;
	l->last = &l->first;
	for (unsigned i = 0; i < LINKS; i++)
		l->all[i] = (struct link){ .of = l, .fd = -1 };
	return l;
}

void links_free(struct links *l)
{
	if (!l)
		return;
	for (unsigned i = 0; i < LINKS; i++) {
		if (l->all[i].x)
			link_close(&l->all[i]);
		free(l->all[i].in);
	}
	free(l);
}
