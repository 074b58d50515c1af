/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the one resolver behind us, over UDP and, where an answer is cut, TCP. An answer counts
 * if it comes on the socket that its question went out on, from the upstream's address, with its id
 * and its question; all else is not even looked at. Sockets change their port from time to time; ids
 * are random.
 *
 * Belongs to the thread of its loop.
 */
#ifndef CX_SHIM_UPSTREAM_H
#define CX_SHIM_UPSTREAM_H

#include "unbound-module/shim/shim.h"

enum {
	UPSTREAM_UDP_SIZE = 4096, /* what we say that we take */
	UPSTREAM_PROXY = 52,      /* the longest PROXYv2 header */
	UPSTREAM_WIRE = UPSTREAM_PROXY + 2 + WIRE_HEAD + WIRE_QUESTION + 11
};

/* A question on its way; part of the caller's. */
struct exchange {
	struct exchange *next, **link; /* of those with ids that hash alike */
	struct exchange *wait_next;    /* for a TCP connection */
	uint64_t subject;              /* for fairness among those that wait: whose it is */
	uint16_t id, qtype, qname_len;
	uint16_t proxy_n, wire_n; /* header before the message, both of them together */
	uint8_t sock;
	bool unsent, waits;
	struct link *tcp;
	uint8_t wire[UPSTREAM_WIRE];
};

enum upstream_event {
	UPSTREAM_ANSWER,
	UPSTREAM_CUT,   /* it was too long for UDP; msg is what came */
	UPSTREAM_FAILED /* there will be none: TCP only */
};

/* msg is borrowed for the call, and is an answer to the question. The exchange is over. */
typedef void upstream_done(struct exchange *x, enum upstream_event ev, const uint8_t *msg,
			   size_t n);

/* NULL: no memory, descriptors or randomness. */
struct upstream *upstream_new(struct shim *t, upstream_done *done);
void upstream_free(struct upstream *u);

/* qname: lower-case, uncompressed, with root. flags: RD, CD, AD of the question. */
void upstream_ask(struct upstream *u, struct exchange *x, const struct origin *from,
		  const uint8_t *qname, size_t qname_len, uint16_t qtype, uint16_t flags,
		  bool dnssec_ok);
/* Again over TCP; after UPSTREAM_CUT. */
void upstream_ask_tcp(struct upstream *u, struct exchange *x, const struct origin *from);
/* The same once more over UDP. */
void upstream_again(struct upstream *u, struct exchange *x);
/* There will be no answer. */
void upstream_cancel(struct upstream *u, struct exchange *x);
/* When the last answer came, in the loop's time; 0: never. */
double upstream_last(const struct upstream *u);
/* Did the upstream's host say that nobody is there, and no answer came since? */
bool upstream_refused(const struct upstream *u);

#endif
