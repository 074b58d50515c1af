/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages that a client gets from a resolver of our own: refusals, errors, and the answer of an
 * upstream as the gate lets it through. Each carries the question as the client wrote it and an OPT of
 * ours where the client sent one. An answer of which nothing was taken goes on as it came; else it is
 * written anew, without what the gate dropped and without the signatures over that.
 *
 * No allocation, no I/O; any thread. All return the length of a message, 0: it does not fit.
 */
#ifndef CX_REPLY_H
#define CX_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/dns/answer.h"
#include "shared/dns/gate.h"
#include "shared/dns/wire.h"

enum {
	REPLY_UDP_MIN = 512,
	REPLY_UDP_MAX = 1232, /* what we send, and say that we take: no fragments */
	REPLY_ERROR_SIZE = WIRE_HEAD,
	REPLY_SHORT_SIZE = 512 + WIRE_QUESTION /* any refusal */
};

/* A question that waits for its answer. */
struct asked {
	uint16_t id, flags, qtype, qclass;
	bool edns, dnssec_ok;
	uint16_t limit;           /* octets that the answer may have; WIRE_MAX over TCP */
	uint16_t qname_len;       /* with root */
	uint8_t qname[WIRE_NAME]; /* as the client wrote it */
};

/* over_tcp: the answer's length is limited by its form alone. */
void asked_from(struct asked *out, const struct wire_query *q, bool over_tcp);

/* To what has no question: the header alone. */
size_t reply_error(uint8_t buf[REPLY_ERROR_SIZE], const uint8_t head[4], int rcode);
/* An rcode, extended ones too, with the question; ede (may be NULL) says why. */
size_t reply_rcode(uint8_t *buf, size_t cap, const struct asked *q, int rcode,
		   const struct answer *ede);
/* What a refused question is answered. */
size_t reply_refusal(uint8_t *buf, size_t cap, const struct asked *q, const struct answer *a);
/* Nothing but that the answer is too long: the client is to ask over TCP. */
size_t reply_truncated(uint8_t *buf, size_t cap, const struct asked *q, uint16_t flags);

/* Memory for the answer that is being judged; some 350 KiB, one a thread. */
struct reply_room;
struct reply_room *reply_room_new(void); /* NULL: no memory */
void reply_room_free(struct reply_room *r);

/* Reads an upstream's answer. False: malformed. It is borrowed until reply_pass(). */
bool reply_read(struct reply_room *r, const uint8_t *p, size_t n);
/* Shows its records to an open gate that the question has passed. False: a name in it is malformed. */
bool reply_show(struct reply_room *r, struct gate *g);
/* The answer as the (closed) gate lets it through, with TC alone if it is longer than q->limit. */
size_t reply_pass(struct reply_room *r, const struct gate *g, const struct asked *q, uint8_t *buf,
		  size_t cap);

#endif
