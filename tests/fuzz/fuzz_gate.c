/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: arbitrary records as an answer, for clients of several profiles: per record an octet of
 * section, two of type, two of length, then data. What the gate lets through must itself pass it
 * unchanged, and be no longer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/bytes.h"
#include "shared/dns/gate.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct decide_thread *thread;

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
	if (!thread) {
		fprintf(stderr, "no policy in %s\n", path);
		abort();
	}
	return 0;
}

static void show(struct gate *g, struct reader *r)
{
	static uint8_t out[65535], again[65535];
	enum gate_section s = (enum gate_section)(rd_u8(r) % 3);
	uint16_t type = rd_be16(r);
	size_t n = rd_be16(r), out_n = 0, again_n = 0;
	n = n < r->left ? n : r->left;
	const uint8_t *data = rd_take(r, n);
	if (!data)
		return;
	enum gate_fate fate = gate_record(g, s, type, data, n, out, &out_n);
	if (gate_record(g, s, type, data, n, NULL, &again_n) != fate)
		abort();
	if (fate != GATE_CHANGED)
		return;
	if (out_n >= n || gate_record(g, s, type, out, out_n, again, &again_n) != GATE_KEEP)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t types[] = { 1, 28, 64, 65 };
	static const char *const sources[] = { "10.9.0.1", "10.9.1.1", "10.9.2.1", "127.0.0.1" };
	struct reader r = rd_init(data, size);
	struct decision d;
	struct gate g;
	struct name n;
	uint8_t head = rd_u8(&r);
	struct question q = { .layer = LAYER_DNS, .name = &n, .qtype = types[head >> 2 & 3] };
	const char *src = sources[head & 3];
	if (name_from_text(&n, "a.example.com", 13) != NAME_OK ||
	    !addr_from_text(&q.src, src, strlen(src)))
		abort();
	bool passes = gate_open(&g, thread, &q, decide_now(), &d);
	while (passes && r.left > 0 && !r.bad)
		show(&g, &r);
	gate_close(&g);
	return 0;
}
