/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The current policy of a running process. One housekeeping thread calls slot_poll(); it opens a
 * changed file and publishes it, or keeps the old one on any error. Hot threads borrow the policy
 * for the length of one event without a lock: a borrow is one hazard pointer, and a replaced policy
 * is closed only when no reader holds it.
 *
 * A missing or bad file at start leaves the slot empty (borrow gives NULL: no-policy). A file that
 * goes missing or bad later keeps the policy in force: nothing opens, nothing is lost.
 */
#ifndef CX_SLOT_H
#define CX_SLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/policy/policy.h"

struct slot;
struct slot_reader;

enum slot_event {
	SLOT_SAME,    /* nothing happened */
	SLOT_LOADED,  /* a policy is in force that was not before */
	SLOT_REFUSED, /* the file changed, and it was not taken; said once per change */
	SLOT_RESTORED /* the file is again the one in force, after a refusal */
};

/*
 * `path` and what `trust` points to are copied. With a public key, a policy whose serial is lower than
 * that of the one in force is refused (POLICY_ERR_SERIAL); who restarts begins at trust->min_serial.
 * NULL if there is no memory. Nothing is opened yet.
 */
struct slot *slot_new(const char *path, const struct policy_trust *trust);

/* All readers must have been freed. */
void slot_free(struct slot *s);

/*
 * Looks at the file, and takes it if it changed (device, inode, size, mtime or ctime). One thread
 * at a time. With SLOT_REFUSED *err and why (POLICY_WHY_SIZE) say why; with SLOT_LOADED why is "".
 * force: look even if nothing seems changed (SIGHUP).
 */
enum slot_event slot_poll(struct slot *s, bool force, enum policy_err *err, char *why);

/* A reader belongs to one thread at a time. NULL if there is no memory. Any thread. */
struct slot_reader *slot_reader_new(struct slot *s);
void slot_reader_free(struct slot_reader *r);

/*
 * The policy in force, or NULL. Valid until slot_release() on the same reader. Borrows do not nest.
 */
const struct policy *slot_borrow(struct slot_reader *r);
void slot_release(struct slot_reader *r);

#endif
