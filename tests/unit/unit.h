/* SPDX-License-Identifier: Apache-2.0 */
/* What every unit test needs: cmocka with its prerequisites, and a few helpers. Tests only. */
#ifndef CX_UNIT_H
#define CX_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static inline struct addr addr_of(const char *text)
{
	struct addr a;
	if (!addr_from_text(&a, text, strlen(text)))
		fail_msg("not an address: %s", text);
	return a;
}

static inline struct name name_of(const char *text)
{
	struct name n;
	if (name_from_text(&n, text, strlen(text)) != NAME_OK)
		fail_msg("not a name: %s", text);
	return n;
}

/* A generator with a fixed seed: the same numbers in every run. */
static inline uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	uint64_t z = *state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

#endif
