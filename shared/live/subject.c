/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of what subjects have open; see subject.h. Never grows. */
#include "shared/live/subject.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { PLACES = 65536, KINDS = 2, ROWS = 2 };

struct subjects {
	uint64_t secret[ROWS + 1];
	atomic_uint count[KINDS][ROWS][PLACES];
};

struct subjects *subjects_new(void)
{
	struct subjects *s = calloc(1, sizeof(*s));
	if (s && getrandom(s->secret, sizeof(s->secret), 0) != (ssize_t)sizeof(s->secret)) {
		free(s);
		return NULL;
	}
	return s;
}

void subjects_free(struct subjects *s)
{
	free(s);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * UINT64_C(0x9fb21c651e98df25);
	return h ^ h >> 32;
}

static void places(struct subjects *s, enum subject_kind k, const struct subject *who,
		   atomic_uint *out[ROWS])
{
	uint64_t part[2];
	memcpy(part, who->src.b, sizeof(part));
	if (!addr_is_v4(&who->src))
		part[1] = 0;
	for (unsigned i = 0; i < ROWS; i++) {
		uint64_t h = mix(mix(mix(s->secret[i], part[0]), part[1]), who->generation);
		h = mix(h, s->secret[ROWS]);
		out[i] = &s->count[k][i][h >> 48];
	}
}

bool subject_take(struct subjects *s, enum subject_kind k, const struct subject *who, unsigned max)
{
	atomic_uint *at[ROWS];
	unsigned least = UINT32_MAX;
	places(s, k, who, at);
	for (unsigned i = 0; i < ROWS; i++) {
		unsigned had = atomic_fetch_add_explicit(at[i], 1, memory_order_relaxed);
		least = had < least ? had : least;
	}
	if (least < max)
		return true;
	subject_give(s, k, who);
	return false;
}

void subject_give(struct subjects *s, enum subject_kind k, const struct subject *who)
{
	atomic_uint *at[ROWS];
	places(s, k, who, at);
	for (unsigned i = 0; i < ROWS; i++)
		atomic_fetch_sub_explicit(at[i], 1, memory_order_relaxed);
}
