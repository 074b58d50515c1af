/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending connections: what the agent allowed (shared/live/stream.h) is judged again by the policy, the
 * bindings and the addresses of now, and the client's socket of what is no longer allowed is destroyed;
 * HAProxy then closes the other side by itself. Never decides: verdict() does. Never touches a socket
 * whose other end is not a client that the policy names.
 *
 * Threads: a struct cutter belongs to one.
 */
#ifndef CX_CUT_H
#define CX_CUT_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/live/stream.h"
#include "shared/policy/policy.h"
#include "shared/policy/slot.h"

struct cutter;

enum { CUT_WHY_SIZE = 256 };

struct cut_options {
	const char *policy;
	const char *runtime_dir;
	struct policy_trust trust;
};

/* NULL with one sentence in why. Root, or CAP_NET_ADMIN, is needed to destroy sockets. */
struct cutter *cutter_open(const struct cut_options *o, char why[CUT_WHY_SIZE]);
void cutter_close(struct cutter *c);

/* Looks for a changed policy, as slot_poll() does; *digest (13 octets) is that of the one in force. */
enum slot_event cutter_poll(struct cutter *c, char *digest, char why[CUT_WHY_SIZE]);
/* Is a policy in force? Without one nothing is judged. */
bool cutter_ready(struct cutter *c);

/*
 * Says of a stream whether it must end. v is what the policy says of it now. NULL in cut_sweep():
 * ends what the policy denies.
 */
typedef bool cut_pick(void *arg, const struct stream *s, const struct verdict *v);
/* Told of each connection that was ended. */
typedef void cut_tell(void *arg, const struct stream *s, const struct verdict *v);

/* One look at all streams. Returns how many connections were ended; -1 with one sentence in why. */
int cut_sweep(struct cutter *c, cut_pick *pick, cut_tell *tell, void *arg, char why[CUT_WHY_SIZE]);
/* Ends every connection of the clients in a prefix, whether the agent knows of it or not. */
int cut_source(struct cutter *c, const struct prefix *p, char why[CUT_WHY_SIZE]);

#endif
