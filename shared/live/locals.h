/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of this host, for the rule that no connection ever goes to the gateway itself. The
 * housekeeping thread reads them from the kernel; each hot thread keeps a copy of its own, taken when
 * they changed, so that deciding needs no lock.
 */
#ifndef CX_LOCALS_H
#define CX_LOCALS_H

#include <stdbool.h>

#include "shared/policy/verdict.h"

struct locals;
struct locals_copy;

/* Reads the addresses once. NULL if there is no memory or the kernel does not tell. */
struct locals *locals_new(void);
/* All copies must have been freed. */
void locals_free(struct locals *l);

/* Reads them again; false on failure (the old ones stay). One thread at a time. */
bool locals_refresh(struct locals *l);

/* A thread's copy, up to date. NULL if there is no memory. */
struct locals_copy *locals_copy_new(struct locals *l);
void locals_copy_free(struct locals_copy *c);

/*
 * The addresses, sorted; valid until the next call on the same copy. Takes over a change if that needs
 * no waiting, else at the next call.
 */
struct addr_set locals_get(struct locals_copy *c);

#endif
