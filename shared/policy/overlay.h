/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a binding says beside its profile: names that its task may reach as well (within the ceiling
 * that the policy sets), and names that it is narrowed to. Packed, one entry behind the other, so
 * that it fits into a row of fixed size. Never allocates, never decides.
 *
 * Packed form: u8 flags, u8 protocols, u8 number of port ranges, u8 length of the name, the ranges as
 * u16 low, u16 high (big-endian), the name in canonical wire form without root label.
 */
#ifndef CX_OVERLAY_H
#define CX_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/bytes.h"
#include "shared/base/name.h"

enum { OVERLAY_MAX_PORTS = 8, OVERLAY_WHY_SIZE = 128, OVERLAY_TEXT_SIZE = 512 };

enum overlay_flag {
	OVERLAY_BELOW = 1, /* names below it, not itself */
	OVERLAY_ONLY = 2   /* narrows; else it adds */
};

struct overlay_ports {
	uint16_t lo, hi;
};

struct overlay_entry {
	uint8_t flags;
	uint8_t protocols; /* enum fmt_protocol, at least one */
	uint8_t n_ports;   /* 0: 443 for https, 80 for http */
	struct overlay_ports ports[OVERLAY_MAX_PORTS];
	struct name name;
};

/*
 * From text: NAME or *.NAME, then optionally :PORT[-PORT][,...], then optionally /PROTOCOL[+PROTOCOL]
 * with https, http and (only where it narrows) tcp. Without protocols: https and http. False with one
 * sentence in why.
 */
bool overlay_from_text(struct overlay_entry *out, const char *s, bool only,
		       char why[OVERLAY_WHY_SIZE]);

/* The entry as overlay_from_text() takes it. */
void overlay_to_text(const struct overlay_entry *e, char out[OVERLAY_TEXT_SIZE]);

void overlay_put(struct writer *w, const struct overlay_entry *e);
/* The next entry; false at the end, and where the bytes are not an entry (then r->bad). */
bool overlay_next(struct reader *r, struct overlay_entry *out);

/* Is the name one that the entry is about? */
bool overlay_matches(const struct overlay_entry *e, const struct name *n);
/* Does it permit this protocol (enum fmt_protocol) on the port? */
bool overlay_permits(const struct overlay_entry *e, unsigned protocol, uint16_t port);

#endif
