/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection from HAProxy as a state machine: bytes in, bytes out. Does the HELLO handshake, cuts
 * the stream into frames, hands every NOTIFY to its owner and carries the ACKs back. Never does I/O,
 * never decides, never waits.
 *
 * A NOTIFY is answered at once (session_ack() from within `notify`) or later: then a hold keeps its
 * place. Holds are memory of the owner; session_fini() cuts them loose, so that an answer which comes
 * after the connection's end finds no session.
 *
 * Threads: a session and its holds belong to one thread. Allocation: the output buffer only.
 */
#ifndef CX_SESSION_H
#define CX_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spoa-agent/spop.h"

enum {
	SESSION_IN_SIZE = 32768,  /* at least one whole frame */
	SESSION_OUT_SOFT = 65536, /* above this no further input is taken */
	SESSION_MAX_ACK = 2048,   /* the greatest frame that is ever written */
	SESSION_MAX_HOLDS = 4096, /* answers that one connection may be waiting for */
	SESSION_HOLD_BUCKETS = 256
};

struct session;

struct session_hold {
	struct session *session; /* NULL: the connection is gone */
	uint64_t stream, frame;
	struct session_hold *next, **link;
};

struct session_ops {
	/* Is a policy in force? Health checks fail without. */
	bool (*ready)(void *arg);
	/* Must call session_ack() now, or session_hold_add() and session_ack() later. */
	void (*notify)(void *arg, struct session *s, const struct spop_frame *f);
	/* There is output, or a reason to close, that no session_input() of the caller gave rise to. */
	void (*wake)(void *arg, struct session *s);
};

enum session_state {
	SESSION_HELLO, /* nothing was agreed yet */
	SESSION_RUNNING,
	SESSION_CLOSING, /* takes no input; closes when its output is out */
	SESSION_DEAD     /* no memory: close now */
};

struct session {
	const struct session_ops *ops;
	void *arg;
	enum session_state state;
	enum spop_code code; /* what a disconnect said */
	bool draining;       /* say goodbye when no answer is outstanding */
	bool eof;
	bool trusted; /* its owner says that who connected may be told secrets */
	uint32_t max_frame;
	unsigned n_holds;
	struct session_hold *holds[SESSION_HOLD_BUCKETS];
	size_t in_len;
	uint8_t *out;
	size_t out_at, out_len, out_cap;
	uint8_t in[SESSION_IN_SIZE];
};

void session_init(struct session *s, const struct session_ops *ops, void *arg);
void session_fini(struct session *s);

/* Where to put the next bytes; *n is 0 while no input is wanted. */
uint8_t *session_room(struct session *s, size_t *n);
/* n bytes were put there. With 0: goes on with what was left when the output was full. */
void session_input(struct session *s, size_t n);
/* The peer will send nothing more. */
void session_eof(struct session *s);
/* Agent-side end: an AGENT-DISCONNECT as soon as every answer is given. */
void session_drain(struct session *s);

const uint8_t *session_output(const struct session *s, size_t *n);
void session_sent(struct session *s, size_t n);
/* Everything is said: close the socket. */
bool session_finished(const struct session *s);

/* False, and nothing is held: too many, or these ids are held already. */
bool session_hold_add(struct session *s, struct session_hold *h, uint64_t stream, uint64_t frame);
void session_hold_remove(struct session_hold *h);

/* `actions` is the payload of an ACK. */
void session_ack(struct session *s, uint64_t stream, uint64_t frame, const void *actions, size_t n);
/* For a hold: removes it, and answers if its session lives. */
void session_hold_ack(struct session_hold *h, const void *actions, size_t n);

#endif
