/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients' datagrams, many a system call, in and out. An answer leaves from the address that the
 * question was sent to. Never waits: what the kernel does not take is lost, as datagrams may be.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "unbound-module/shim/shim.h"

enum {
	BATCH = 64,      /* datagrams a call */
	READ_ROUNDS = 4, /* calls an event: upstream's answers and timers have their turn, too */
	IN_SIZE = 1024   /* no question is longer */
};

union control {
	struct cmsghdr align;
	char room[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* One listening socket, and the answers that are about to leave by it. */
struct port {
	struct udp *of;
	int fd;
	ev_io io;
	struct addr local;
	uint16_t local_port;
	bool v6;
	unsigned n_out;
	struct mmsghdr msgs[BATCH];
	struct iovec iovs[BATCH];
	union control controls[BATCH];
	struct origin to[BATCH];
	uint8_t out[BATCH][REPLY_UDP_MAX];
};

struct udp {
	struct shim *t;
	ev_prepare flush;
	unsigned n_ports;
	struct port *ports;
	struct mmsghdr msgs[BATCH];
	struct iovec iovs[BATCH];
	union control controls[BATCH];
	struct sockaddr_in6 peers[BATCH];
	uint8_t in[BATCH][IN_SIZE];
};

/* ---- out ---- */

/* Says from which address it is to leave. */
static void put_control(struct port *p, unsigned i)
{
	const struct origin *o = &p->to[i];
	struct msghdr *m = &p->msgs[i].msg_hdr;
	m->msg_control = &p->controls[i];
	m->msg_controllen = sizeof(p->controls[i]);
	memset(&p->controls[i], 0, sizeof(p->controls[i]));
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	if (p->v6) {
		struct in6_pktinfo info = { .ipi6_ifindex = o->ifindex };
		memcpy(&info.ipi6_addr, o->dst.b, 16);
		c->cmsg_level = IPPROTO_IPV6;
		c->cmsg_type = IPV6_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(info));
		memcpy(CMSG_DATA(c), &info, sizeof(info));
	} else {
		struct in_pktinfo info = { .ipi_ifindex = 0 };
		memcpy(&info.ipi_spec_dst, o->dst.b + 12, 4);
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(info));
		memcpy(CMSG_DATA(c), &info, sizeof(info));
		m->msg_controllen = CMSG_SPACE(sizeof(info));
	}
}

static void port_flush(struct port *p)
{
	for (unsigned at = 0; at < p->n_out;) {
		int sent = sendmmsg(p->fd, p->msgs + at, p->n_out - at, 0);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		at += sent > 0 ? (unsigned)sent : 1; /* one that cannot be sent holds up no other */
	}
	p->n_out = 0;
}

void udp_send(const struct origin *o, const uint8_t *msg, size_t n)
{
	struct port *p = o->port;
	if (n > REPLY_UDP_MAX)
		return;
	if (p->n_out == BATCH)
		port_flush(p);
	unsigned i = p->n_out++;
	memcpy(p->out[i], msg, n);
	p->to[i] = *o;
	p->iovs[i] = (struct iovec){ p->out[i], n };
	p->msgs[i].msg_hdr = (struct msghdr){ .msg_name = &p->to[i].peer,
					      .msg_namelen = o->peer_len,
					      .msg_iov = &p->iovs[i],
					      .msg_iovlen = 1 };
	put_control(p, i);
}

static void on_flush(struct ev_loop *loop, ev_prepare *w, int events)
{
	struct udp *u = w->data;
	for (unsigned i = 0; i < u->n_ports; i++)
		if (u->ports[i].n_out > 0)
			port_flush(&u->ports[i]);
}

/* ---- in ---- */

static void read_control(struct msghdr *m, struct origin *o)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof(info));
			o->dst = addr_from_v4((const uint8_t *)&info.ipi_addr);
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof(info));
			o->dst = addr_from_v6((const uint8_t *)&info.ipi6_addr);
			if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
				o->ifindex = info.ipi6_ifindex;
		}
	}
}

static void take(struct port *p, struct mmsghdr *m, const struct sockaddr_in6 *peer,
		 const uint8_t *msg, struct now now)
{
	struct msghdr *h = &m->msg_hdr;
	struct origin o = { .port = p, .dst = p->local, .dst_port = p->local_port };
	if (h->msg_namelen > sizeof(o.peer) ||
	    !addr_from_sockaddr(&o.src, &o.src_port, (const struct sockaddr *)peer,
				h->msg_namelen) ||
	    o.src_port == 0)
		return;
	memcpy(&o.peer, peer, h->msg_namelen);
	o.peer_len = h->msg_namelen;
	read_control(h, &o);
	/* one that was cut reads as cut: it has trailing records that are not there */
	desk_ask(p->of->t->desk, &o, msg, m->msg_len, now);
}

static int receive(struct port *p)
{
	struct udp *u = p->of;
	for (unsigned i = 0; i < BATCH; i++)
		u->msgs[i].msg_hdr = (struct msghdr){ .msg_name = &u->peers[i],
						      .msg_namelen = sizeof(u->peers[i]),
						      .msg_iov = &u->iovs[i],
						      .msg_iovlen = 1,
						      .msg_control = &u->controls[i],
						      .msg_controllen = sizeof(u->controls[i]) };
	return recvmmsg(p->fd, u->msgs, BATCH, 0, NULL);
}

static void on_port(struct ev_loop *loop, ev_io *io, int events)
{
	struct port *p = io->data;
	struct udp *u = p->of;
	int n = BATCH;
	for (unsigned round = 0; round < READ_ROUNDS && n == BATCH; round++) {
		n = receive(p);
		struct now now = decide_now();
		for (int i = 0; i < n; i++)
			take(p, &u->msgs[i], &u->peers[i], u->in[i], now);
	}
}

/* ---- life ---- */

static void port_init(struct port *p, struct udp *u, int fd, const struct endpoint *e)
{
	p->of = u;
	p->fd = fd;
	p->v6 = e->ss.ss_family == AF_INET6;
	addr_from_sockaddr(&p->local, &p->local_port, (const struct sockaddr *)&e->ss, e->len);
	ev_io_init(&p->io, on_port, fd, EV_READ);
	p->io.data = p;
	ev_io_start(u->t->loop, &p->io);
}

struct udp *udp_new(struct shim *t, const struct shim_sockets *s)
{
	struct udp *u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->t = t;
	u->ports = calloc(t->o->n_listeners, sizeof(*u->ports));
	if (!u->ports) {
		free(u);
		return NULL;
	}
	u->n_ports = t->o->n_listeners;
	for (unsigned i = 0; i < BATCH; i++)
		u->iovs[i] = (struct iovec){ u->in[i], IN_SIZE };
	for (unsigned i = 0; i < u->n_ports; i++)
		port_init(&u->ports[i], u, s[i].udp, &t->o->listen[i]);
	ev_prepare_init(&u->flush, on_flush);
	u->flush.data = u;
	ev_prepare_start(t->loop, &u->flush);
	return u;
}

void udp_free(struct udp *u)
{
	if (!u)
		return;
	ev_prepare_stop(u->t->loop, &u->flush);
	for (unsigned i = 0; i < u->n_ports; i++) {
		port_flush(&u->ports[i]);
		ev_io_stop(u->t->loop, &u->ports[i].io);
	}
	free(u->ports);
	free(u);
}
