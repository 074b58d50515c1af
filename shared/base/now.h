/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time of one event, read once by the program and passed in: pure code never looks at a clock.
 * Intervals, TTLs and limits use boot_ns only; wall_s serves dates in the policy and log lines.
 */
#ifndef CX_NOW_H
#define CX_NOW_H

#include <stdint.h>

struct now {
	uint64_t boot_ns; /* CLOCK_BOOTTIME, nanoseconds */
	int64_t wall_ns;  /* CLOCK_REALTIME, nanoseconds since 1970-01-01 UTC */
};

#endif
