/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread of cx-dns: what its parts know of each other. Clients' sockets (udp.c, tcp.c) hand each
 * question to the desk (desk.c), which answers it at once or lets the upstream (upstream.c) have it
 * and answers later. Everything here belongs to the thread of the loop.
 */
#ifndef CX_SHIM_H
#define CX_SHIM_H

#include <ev.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/dns/reply.h"
#include "shared/host/endpoint.h"
#include "shared/live/subject.h"

enum { SHIM_MAX_LISTENERS = 16, SHIM_MAX_THREADS = 64 };

/* For all threads. */
struct shim_options {
	struct endpoint upstream;
	bool proxy_v2;
	unsigned threads, n_listeners;
	struct endpoint listen[SHIM_MAX_LISTENERS];
	unsigned max_conns; /* of a subject */
	double tcp_idle_s;
	struct decider *decider;
	struct subjects *subjects;
	atomic_bool upstream_down; /* as it was said last */
	atomic_bool crowded;       /* no place for a question or connection: said */
};

struct port;
struct conn;
struct upstream;

/* Whom a question came from, and where its answer goes. */
struct origin {
	struct addr src, dst; /* dst: where the client sent it to */
	uint16_t src_port, dst_port;
	struct port *port; /* UDP */
	struct conn *conn; /* TCP, else NULL */
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} peer; /* UDP */
	socklen_t peer_len;
	unsigned ifindex;
};

/* A question that a connection waits for; part of the desk's. */
struct hold {
	struct hold *next, **link;
};

/* The sockets of one listener and one thread, opened before privileges are given up. */
struct shim_sockets {
	int udp, tcp;
};

struct shim {
	struct shim_options *o;
	struct ev_loop *loop;
	struct decide_thread *judge;
	struct desk *desk;
	struct upstream *upstream;
	struct udp *udp;
	struct tcp *tcp;
};

/* ---- udp.c ---- */

/* NULL: no memory. The sockets stay the caller's. */
struct udp *udp_new(struct shim *t, const struct shim_sockets *s);
void udp_free(struct udp *u);
void udp_send(const struct origin *o, const uint8_t *msg, size_t n);

/* ---- tcp.c ---- */

struct tcp *tcp_new(struct shim *s, const struct shim_sockets *sockets);
/* Closes all connections. */
void tcp_free(struct tcp *t);
/* Accepts nobody more, and closes what waits for nothing. */
void tcp_drain(struct tcp *t);
void tcp_send(struct conn *c, const uint8_t *msg, size_t n);
/* The desk holds a question of the connection (and later no more). */
void tcp_hold(struct conn *c, struct hold *h);
void tcp_release(struct conn *c, struct hold *h);

/* ---- desk.c ---- */

struct desk *desk_new(struct shim *t);
/* What is open is written down, and not answered. */
void desk_free(struct desk *d);
/* A message of a client. Answers it now, later or never. */
void desk_ask(struct desk *d, const struct origin *from, const uint8_t *msg, size_t n,
	      struct now now);
/* The connection of a held question is gone; nobody wants the answer. */
void desk_forget(struct hold *h);
/* How many wait for an answer. */
unsigned desk_open(const struct desk *d);

#endif
