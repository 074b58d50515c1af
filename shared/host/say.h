/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a daemon to its operator: one line each on standard error, `<priority>event text`, as
 * systemd reads them. Never prints what a peer sent. Any thread.
 */
#ifndef CX_SAY_H
#define CX_SAY_H

#include "shared/live/decide.h"

/* event: a stable id; fmt: key=value ... */
__attribute__((format(printf, 3, 4))) void say(enum decide_priority prio, const char *event,
					       const char *fmt, ...);

/* As decide_log; arg is unused. */
void say_for_decider(void *arg, enum decide_priority prio, const char *event, const char *text);

#endif
