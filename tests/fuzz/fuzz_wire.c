/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: an arbitrary message, as a client's question and as an upstream's answer to one, for
 * clients of several profiles. What is made of an answer must itself be a whole message, be no longer
 * than it may be, and hold nothing that the gate would take out of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/dns/reply.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct decide_thread *thread;
static struct reply_room *room;
static uint8_t out[WIRE_MAX];

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char path[512];
	const char *build = getenv("BUILD");
	snprintf(path, sizeof(path), "%s/unit/policy-d.bin", build ? build : "build");
	struct decider_options o = { .component = "fuzz",
				     .policy_path = path,
				     .features = UINT64_MAX };
	struct decider *d = decider_start(&o);
	thread = d && decider_ready(d) ? decide_thread_new(d) : NULL;
	room = reply_room_new();
	if (!thread || !room) {
		fprintf(stderr, "no policy in %s\n", path);
		abort();
	}
	return 0;
}

static void as_question(const uint8_t *p, size_t n)
{
	struct wire_query q;
	struct asked a;
	int rcode;
	if (!wire_query_read(&q, p, n, &rcode)) {
		must(rcode == -1 || reply_error(out, p, rcode) == WIRE_HEAD);
		return;
	}
	asked_from(&a, &q, false);
	const struct answer refusal = { .form = (enum answer_form)(p[0] % 5), .text = "text" };
	size_t len = rcode ? reply_rcode(out, sizeof(out), &a, rcode, NULL)
			   : reply_refusal(out, sizeof(out), &a, &refusal);
	must(len > 0 && len <= REPLY_SHORT_SIZE && reply_read(room, out, len));
	must(wire_is_answer(out, len, a.id, a.qname, a.qname_len, a.qtype) == (a.qclass == 1));
}

/* One answer before one gate. Returns the length of what the client gets, 0: nothing of it. */
static size_t pass(struct gate *g, const struct question *q, const struct asked *a,
		   const uint8_t *p, size_t n)
{
	struct decision d;
	bool passes = gate_open(g, thread, q, decide_now(), &d);
	bool whole = passes && reply_show(room, g);
	passes = gate_close(g);
	return whole && passes ? reply_pass(room, g, a, out, sizeof(out)) : 0;
}

static void as_answer(const uint8_t *p, size_t n, uint8_t head)
{
	static const char *const sources[] = { "10.9.0.1", "10.9.1.1", "10.9.2.1", "10.8.0.1" };
	static const uint16_t types[] = { 1, 28, 65, 33 };
	static uint8_t seen[WIRE_MAX];
	const char *src = sources[head & 3];
	struct name name;
	struct gate g;
	struct asked a = { .qclass = 1, .edns = head & 64, .qname_len = 15 };
	struct question q = { .layer = LAYER_DNS, .name = &name, .qtype = types[head >> 2 & 3] };
	memcpy(a.qname, "\1A\7Example\3com", 15);
	a.qtype = q.qtype;
	a.limit = head & 16 ? WIRE_MAX : head & 32 ? REPLY_UDP_MAX : REPLY_UDP_MIN;
	must(name_from_wire(&name, a.qname, a.qname_len, NULL) == NAME_OK &&
	     addr_from_text(&q.src, src, strlen(src)));
	if (n < 2 ||
	    !wire_is_answer(p, n, (uint16_t)(p[0] << 8 | p[1]), a.qname, a.qname_len, a.qtype))
		return;
	if (!reply_read(room, p, n))
		return;
	size_t len = pass(&g, &q, &a, p, n);
	if (len == 0)
		return;
	must(len <= a.limit && wire_is_answer(out, len, 0, a.qname, a.qname_len, a.qtype));
	memcpy(seen, out, len);
	must(reply_read(room, seen, len));
	bool cut = seen[2] & 2;
	size_t again = pass(&g, &q, &a, seen, len);
	must(cut || (again == len && !g.changed));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > WIRE_MAX)
		return 0;
	as_question(data + 1, size - 1);
	as_answer(data + 1, size - 1, data[0]);
	return 0;
}
