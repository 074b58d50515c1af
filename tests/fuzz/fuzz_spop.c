/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary octets as what HAProxy sends, in pieces, through the session to the reading of
 * arguments and the writing of answers, some of them late. Every NOTIFY is answered or the connection
 * ends.
 */
#include <stdlib.h>
#include <string.h>

#include "spoa-agent/answer.h"
#include "spoa-agent/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HOLDS = 8 };

static struct session_hold holds[HOLDS];
static unsigned n_holds, notifies, answered;

static bool op_ready(void *arg)
{
	return true;
}

static void op_wake(void *arg, struct session *s)
{
}

static void op_notify(void *arg, struct session *s, const struct spop_frame *f)
{
	uint8_t actions[ANSWER_SIZE];
	struct request r, copy;
	struct decision d = { .v = { .action = ACTION_ALLOW, .reason = REASON_ALLOWED } };
	notifies++;
	request_read(&r, f->payload);
	size_t n = request_text_size(&r);
	char *text = malloc(n ? n : 1);
	request_copy(&copy, &r, text);
	if (copy.q.layer == LAYER_TCP)
		d.v.next = NEXT_RAW;
	size_t len = answer_write(actions, &copy, &d, copy.q.has_dst ? &copy.q.dst : NULL, "");
	if (len == 0 || (copy.q.flaw != FLAW_NONE && d.v.action != ACTION_DENY))
		abort();
	free(text);
	if (n_holds < HOLDS && f->stream % 2 &&
	    session_hold_add(s, &holds[n_holds], f->stream, f->frame)) {
		n_holds++;
		return;
	}
	session_ack(s, f->stream, f->frame, actions, len);
	answered++;
}

static const struct session_ops ops = { op_ready, op_notify, op_wake };

/* Takes what is there to send, and counts the ACKs. */
static void take_output(struct session *s, unsigned *acks)
{
	size_t n;
	const uint8_t *p = session_output(s, &n);
	for (size_t at = 0; at < n;) {
		struct reader r = rd_init(p + at, n - at);
		uint32_t len = rd_be32(&r);
		struct spop_frame f;
		if (r.bad || len > r.left || !spop_frame_read(&f, r.p, len))
			abort();
		*acks += f.type == SPOP_ACK;
		at += 4 + (size_t)len;
	}
	session_sent(s, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session s;
	unsigned acks = 0;
	size_t step = size ? 1 + data[0] : 1;
	n_holds = notifies = answered = 0;
	session_init(&s, &ops, NULL);
	for (size_t at = 0; at < size; at += step) {
		size_t room, n = size - at < step ? size - at : step;
		uint8_t *to = session_room(&s, &room);
		if (room < n)
			break;
		memcpy(to, data + at, n);
		session_input(&s, n);
		take_output(&s, &acks);
	}
	for (unsigned i = 0; i < n_holds; i++)
		session_hold_ack(&holds[i], "", 0);
	bool running = s.state == SESSION_RUNNING;
	take_output(&s, &acks);
	if (s.n_holds || answered + n_holds != notifies || (running && acks != notifies))
		abort();
	session_fini(&s);
	return 0;
}
