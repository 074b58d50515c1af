/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SPOP 2.0: frames and typed data over a cursor. Knows the wire and nothing else: no I/O, no policy,
 * no allocation.
 *
 * Everything read here is foreign. Reading is sticky (bytes.h): after a failure every call yields
 * zeroes, and the cursor's `bad` tells. Strings and values borrow the bytes of the frame.
 */
#ifndef CX_SPOP_H
#define CX_SPOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/bytes.h"

enum spop_type {
	SPOP_UNSET = 0,
	SPOP_HAPROXY_HELLO = 1,
	SPOP_HAPROXY_DISCONNECT = 2,
	SPOP_NOTIFY = 3,
	SPOP_AGENT_HELLO = 101,
	SPOP_AGENT_DISCONNECT = 102,
	SPOP_ACK = 103
};

enum spop_flag { SPOP_FIN = 1, SPOP_ABORT = 2 };

/* What an AGENT-DISCONNECT says. */
enum spop_code {
	SPOP_NORMAL = 0,
	SPOP_TIMEOUT = 2,
	SPOP_TOO_BIG = 3,
	SPOP_INVALID = 4,
	SPOP_NO_VERSION = 5,
	SPOP_NO_FRAME_SIZE = 6,
	SPOP_NO_CAPABILITIES = 7,
	SPOP_BAD_VERSION = 8,
	SPOP_BAD_FRAME_SIZE = 9,
	SPOP_FRAGMENTED = 10,
	SPOP_RESOURCE = 13,
	SPOP_UNKNOWN = 99,
	SPOP_NOT_READY = 100 /* ours: no policy is in force */
};

const char *spop_strerror(enum spop_code c);

enum {
	SPOP_MIN_FRAME = 256,   /* the least a peer may offer as its greatest frame */
	SPOP_MAX_FRAME = 16380, /* the greatest frame that we take, without its length */
	SPOP_MAX_VARINT = 10
};

enum spop_data {
	SPOP_NULL = 0,
	SPOP_BOOL = 1,
	SPOP_INT32 = 2,
	SPOP_UINT32 = 3,
	SPOP_INT64 = 4,
	SPOP_UINT64 = 5,
	SPOP_IPV4 = 6,
	SPOP_IPV6 = 7,
	SPOP_STRING = 8,
	SPOP_BINARY = 9
};

struct spop_bytes {
	const uint8_t *p; /* NULL after a failure */
	size_t n;
};

struct spop_value {
	enum spop_data type;
	uint64_t u;              /* bool and integers; signed ones in two's complement */
	struct spop_bytes bytes; /* IPv4, IPv6, string, binary */
};

struct spop_frame {
	uint8_t type;
	uint32_t flags;
	uint64_t stream;
	uint64_t frame;
	struct reader payload;
};

/* n octets behind the length field. False: too short, or an id that does not end. */
bool spop_frame_read(struct spop_frame *out, const uint8_t *p, size_t n);

uint64_t spop_varint(struct reader *r);
struct spop_bytes spop_string(struct reader *r);
struct spop_value spop_value(struct reader *r);

/* Is the string this literal? */
bool spop_is(struct spop_bytes s, const char *literal);

/* Conversions are total: false where type or range do not fit. */
bool spop_as_uint(const struct spop_value *v, uint64_t max, uint64_t *out);
bool spop_as_addr(const struct spop_value *v, struct addr *out);
/* A string, or binary data. */
bool spop_as_bytes(const struct spop_value *v, struct spop_bytes *out);

/* Writing. A frame is begun, filled, and ended: that writes its length. */
struct spop_mark {
	size_t at;
};

struct spop_mark spop_begin(struct writer *w, enum spop_type type, uint64_t stream, uint64_t frame);
void spop_end(struct writer *w, struct spop_mark m);

void spop_put_varint(struct writer *w, uint64_t v);
void spop_put_string(struct writer *w, const char *s);
void spop_put_kv_string(struct writer *w, const char *key, const char *s);
void spop_put_kv_u32(struct writer *w, const char *key, uint32_t v);

/* Actions of an ACK: set a variable of the transaction. */
void spop_set_string(struct writer *w, const char *var, const char *s);
void spop_set_u32(struct writer *w, const char *var, uint32_t v);
/* The same of the session: it stays for all of the connection. */
void spop_set_sess_u64(struct writer *w, const char *var, uint64_t v);
void spop_set_addr(struct writer *w, const char *var, const struct addr *a);

#endif
