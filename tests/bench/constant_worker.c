/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's worker without its work: every NOTIFY gets the same allow. Linked in place of
 * spoa-agent/worker.c it makes an agent that shows what the protocol and the sockets alone cost. Never
 * to be used for anything else.
 */
#include "spoa-agent/worker.h"

#include <stdlib.h>

#include "spoa-agent/answer.h"

struct worker {
	size_t n;
	uint8_t actions[ANSWER_SIZE];
};

struct worker *worker_new(struct ev_loop *loop, struct decider *d, struct streams *streams,
			  const struct resolver_options *o, const char *secrets)
{
	static const uint8_t v4[4] = { 198, 51, 100, 1 };
	struct addr to = addr_from_v4(v4);
	struct worker *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	struct writer out = wr_init(w->actions, sizeof(w->actions));
	spop_set_string(&out, "reason", "allowed");
	spop_set_string(&out, "rule", "0123456789ab");
	spop_set_addr(&out, "addr", &to);
	spop_set_string(&out, "upstream", "direct");
	spop_set_u32(&out, "port", 443);
	spop_set_string(&out, "name", "constant.example");
	spop_set_u32(&out, "concurrent", INT32_MAX);
	spop_set_string(&out, "rate", "52428800");
	spop_set_string(&out, "verdict", "allow");
	w->n = out.len;
	return w;
}

void worker_free(struct worker *w)
{
	free(w);
}

bool worker_ready(const struct worker *w)
{
	return true;
}

void worker_notify(struct worker *w, struct session *s, const struct spop_frame *f)
{
	session_ack(s, f->stream, f->frame, w->actions, w->n);
}
