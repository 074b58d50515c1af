/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: which addresses DNS gave out for which name, to whom, until when. A table in a mapped file of
 * fixed size, DIR/WRITER: one resolver (the module or cx-dns) writes it, the agent reads it. Where
 * there is no table, or none that can be trusted, nothing is pinned.
 *
 * A pin belongs to a subject, (address, generation): what one client was told says nothing about
 * another, and nothing about the next task on the same address. Each subject has rows of its own, and
 * when these are full its own oldest ones go; nobody's rows are ever taken from him while he has a pin
 * that holds. If there is no place for a further subject, or the
 * file system has no room for its rows, its pins are refused and counted. Addresses
 * of one IPv6 /64 share eight places.
 *
 * Reading: any number of threads and processes, without locks. A row is read wholly or not at all: it
 * carries a version that is odd while it is written, and says itself whose it is. A writer that dies
 * in the middle leaves a row that nobody takes for a pin.
 *
 * Writing: any thread of the one process that holds the file's lock. A pin survives a restart of
 * either side; the file of an earlier boot, or of another format, is replaced.
 *
 * Times are CLOCK_BOOTTIME and passed in. The file is trusted if it is a regular file of exactly the
 * right size, nobody but its owner may write it, and the owner is root, the reader, or whom the
 * directory belongs to; the directory above DIR must be root's or the reader's.
 */
#ifndef CX_PIN_H
#define CX_PIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"

#define PIN_DIR "pins" /* in the runtime directory */

enum {
	PIN_SUBJECTS = 2048,
	PIN_ROWS = 128,     /* of a subject: a name and a family each */
	PIN_ADDRS = 18,     /* of a row */
	PIN_TTL_MIN_S = 30, /* a pin holds at least, and at most, so long ... */
	PIN_TTL_MAX_S = 3600,
	PIN_GRACE_S = 60, /* ... and so much longer for connections that are on their way */
	PIN_WHY_SIZE = 160
};

struct pins;

struct pin_subject {
	struct addr src;
	uint64_t generation; /* 0: placed by `sources` */
};

/*
 * For writing: makes the file where it is not there. NULL and one sentence in why (PIN_WHY_SIZE) if
 * that cannot be, or another process has the lock. runtime_dir is the directory above DIR.
 */
struct pins *pins_create(const char *runtime_dir, const char *writer, char *why);
/* For reading. NULL, likewise. */
struct pins *pins_open(const char *runtime_dir, const char *writer, char *why);
void pins_close(struct pins *p);
/* Is what stands at the path still this table? */
bool pins_is_current(const struct pins *p, const char *runtime_dir, const char *writer);

/*
 * Pins addresses of one family. Those that the name had before stay to their time, the newest first.
 * False: refused, there is no place for the subject.
 */
bool pins_put(struct pins *p, const struct pin_subject *s, const struct name *n,
	      const struct addr *v, unsigned n_addrs, uint32_t ttl_s, uint64_t now_ns);
/* How many were refused so far. */
uint64_t pins_refused(const struct pins *p);

/* The names that the address is pinned to for the subject; at most max. */
unsigned pins_names(const struct pins *p, const struct pin_subject *s, const struct addr *a,
		    uint64_t now_ns, struct name *out, unsigned max);
/* The addresses pinned to the name for the subject, newest first; at most max. */
unsigned pins_addrs(const struct pins *p, const struct pin_subject *s, const struct name *n,
		    uint64_t now_ns, struct addr *out, unsigned max);

#endif
