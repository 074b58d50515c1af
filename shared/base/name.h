/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host name in one canonical form, whatever it came from: lower-case DNS wire format (RFC 1035
 * section 3.1) without the root label. Built from text or from the wire, written back as text.
 * Never allocates.
 *
 * Limits: 63 octets a label, 253 octets as text (254 on the wire without the root label), so at
 * most 127 labels. The root itself has len 0 and no labels.
 */
#ifndef CX_NAME_H
#define CX_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NAME_MAX_LABEL = 63,
	NAME_MAX_TEXT = 253,
	NAME_MAX_WIRE = 254,
	NAME_MAX_LABELS = 127,
	NAME_PAD = 16, /* zeroed octets behind the name, so that a hash may read whole words */
	NAME_TEXT_SIZE = 1024 /* room for any name as text, every octet escaped as \ddd, and NUL */
};

struct name {
	uint8_t len;      /* octets in wire[] */
	uint8_t n_labels; /* 0 for the root */
	uint8_t off[NAME_MAX_LABELS +
		    1]; /* where label i (0 = leftmost) starts; off[n_labels] = len */
	uint8_t wire[NAME_MAX_WIRE + NAME_PAD];
};

enum name_err {
	NAME_OK,
	NAME_EMPTY,       /* no octet, or nothing but the root's dot */
	NAME_EMPTY_LABEL, /* two dots in a row, or a leading one */
	NAME_LONG_LABEL,
	NAME_TOO_LONG,
	NAME_BAD_OCTET, /* an octet that is not a-z A-Z 0-9 - _ */
	NAME_IP_LITERAL, /* an address in some spelling: last label all digits or 0x and hex, or IPv6 */
	NAME_TRUNCATED /* wire only: the root label is missing, or a compression pointer */
};

/* What an octet of a host name becomes: itself, lower case, or 0 where it must not stand. */
extern const uint8_t name_octet[256];

/* One lower-case sentence, for people. */
const char *name_strerror(enum name_err e);

/*
 * From text: ASCII, case folded, one trailing dot accepted. Only a-z 0-9 - _ (IDNs must have been
 * converted to A-labels by the caller). *out is undefined unless NAME_OK.
 */
enum name_err name_from_text(struct name *out, const char *s, size_t n);

/*
 * From uncompressed wire format with the root label, as in a question; n is the number of octets
 * available, *used (may be NULL) how many the name took. Any octet is accepted inside a label:
 * NAME_OK with octets outside a-z 0-9 - _ is possible, name_is_host() tells. *out is undefined
 * unless NAME_OK.
 */
enum name_err name_from_wire(struct name *out, const uint8_t *w, size_t n, size_t *used);

/*
 * Is it a name that a policy could list? NAME_OK, NAME_EMPTY (the root), NAME_BAD_OCTET or
 * NAME_IP_LITERAL.
 */
enum name_err name_check_host(const struct name *a);

/*
 * As text without trailing dot ("." for the root), octets outside printable ASCII, and \ . " inside
 * labels, as \ddd. Returns the length; buf holds NAME_TEXT_SIZE octets and is NUL-terminated.
 */
size_t name_to_text(const struct name *a, char *buf);

bool name_equal(const struct name *a, const struct name *b);

/*
 * Is it this name, in uncompressed wire format with the root label and nothing behind it, in whatever
 * case? False for octets that are no name.
 */
bool name_is_wire(const struct name *a, const uint8_t *w, size_t n);

/* Is a below b by one or more labels? */
bool name_is_below(const struct name *a, const struct name *b);

#endif
