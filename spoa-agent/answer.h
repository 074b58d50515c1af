/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between SPOP and the decision: the arguments of a NOTIFY become a question, a decision becomes the
 * variables of an ACK. Translates and decides nothing; what it cannot read becomes a flaw, and a flaw
 * is a deny. No allocation, no I/O.
 */
#ifndef CX_ANSWER_H
#define CX_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/name.h"
#include "shared/live/decide.h"
#include "shared/policy/verdict.h"
#include "spoa-agent/spop.h"

enum {
	ANSWER_MAX_ID = 128, /* octets of the connection's id that are kept for the log */
	ANSWER_SIZE = 1792   /* room for every answer: names are at most 253 octets of text */
};

/* Must not be moved: q.name points into it. Texts of q, and id, borrow the frame. */
struct request {
	struct question q;
	struct name name;
	bool has_bind;     /* the connection carries a generation already */
	uint16_t src_port; /* of the client; 0: not told */
	struct addr at;    /* where the client connected to, which q.dst and q.port may not be */
	uint16_t at_port;
	const char *id; /* NULL: none */
	size_t id_len;
};

/*
 * The payload of a NOTIFY: exactly one message (cx-tls, cx-http, cx-tcp, cx-connect, cx-tunnel-tls,
 * cx-tunnel-tcp), each argument at most once. Anything else is FLAW_INTERNAL. `out` is always a complete question.
 */
void request_read(struct request *out, struct reader payload);

/* Octets that request_copy() needs for the texts. */
size_t request_text_size(const struct request *r);
/* As `from`, with its texts in `text`: outlives the frame. */
void request_copy(struct request *out, const struct request *from, char *text);

/*
 * The actions of the ACK, into buf of ANSWER_SIZE; returns their length. `to` is the address to
 * connect to, NULL: none; an allow without one where there must be one becomes internal-error, in
 * *d too. `auth` is what the proxy that d names wants to be told, "": nothing.
 */
size_t answer_write(uint8_t *buf, const struct request *r, struct decision *d,
		    const struct addr *to, const char *auth);

/* A decision that says internal-error, for what failed before or after the judge. */
void answer_fail(struct decision *d);

/* What an HTTP client is to see; 0: nothing was refused. */
unsigned answer_status(const struct verdict *v);

#endif
