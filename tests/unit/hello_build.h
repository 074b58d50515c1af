/* SPDX-License-Identifier: Apache-2.0 */
/* Builds ClientHellos, honest and dishonest, piece by piece. Tests only. */
#ifndef CX_HELLO_BUILD_H
#define CX_HELLO_BUILD_H

#include <string.h>

#include "shared/base/bytes.h"

struct hello_build {
	uint8_t ext[8192];
	size_t n_ext;
	uint16_t version;         /* 0x0303 */
	uint8_t record_version;   /* minor: 1 */
	size_t session;           /* octets: 32 */
	size_t suites;            /* octets: 4 */
	bool no_extensions;       /* not even their length */
	int record_off, body_off; /* added to the lengths that record and message claim */
	int ext_off;
	uint8_t compression[4];
	size_t n_compression;
};

static inline struct hello_build hello_new(void)
{
	return (struct hello_build){ .version = 0x0303,
				     .record_version = 1,
				     .session = 32,
				     .suites = 4,
				     .n_compression = 1 };
}

static inline void hello_ext(struct hello_build *b, uint16_t type, const void *p, size_t n)
{
	struct writer w = wr_init(b->ext + b->n_ext, sizeof(b->ext) - b->n_ext);
	wr_be16(&w, type);
	wr_be16(&w, (uint16_t)n);
	wr_bytes(&w, p, n);
	b->n_ext += w.len;
}

static inline void hello_sni_raw(struct hello_build *b, const void *name, size_t n)
{
	uint8_t buf[1024];
	struct writer w = wr_init(buf, sizeof(buf));
	wr_be16(&w, (uint16_t)(n + 3));
	wr_u8(&w, 0);
	wr_be16(&w, (uint16_t)n);
	wr_bytes(&w, name, n);
	hello_ext(b, 0, buf, w.len);
}

static inline void hello_sni(struct hello_build *b, const char *name)
{
	hello_sni_raw(b, name, strlen(name));
}

static inline void hello_usual(struct hello_build *b)
{
	hello_ext(b, 10, "\0\2\0\x1d", 4);
	hello_ext(b, 13, "\0\4\4\3\x08\4", 6);
	hello_ext(b, 43, "\2\3\4", 3);
}

/* Everything behind the record's head. */
static inline size_t hello_message(const struct hello_build *b, uint8_t *out, size_t cap)
{
	uint8_t body[12000];
	struct writer w = wr_init(body, sizeof(body));
	wr_be16(&w, b->version);
	for (unsigned i = 0; i < 32; i++)
		wr_u8(&w, (uint8_t)i);
	wr_u8(&w, (uint8_t)b->session);
	for (size_t i = 0; i < b->session; i++)
		wr_u8(&w, 0x55);
	wr_be16(&w, (uint16_t)b->suites);
	for (size_t i = 0; i < b->suites; i++)
		wr_u8(&w, i % 2 ? 1 : 0x13);
	wr_u8(&w, (uint8_t)b->n_compression);
	wr_bytes(&w, b->compression, b->n_compression);
	if (!b->no_extensions) {
		wr_be16(&w, (uint16_t)((int)b->n_ext + b->ext_off));
		wr_bytes(&w, b->ext, b->n_ext);
	}
	struct writer o = wr_init(out, cap);
	uint32_t len = (uint32_t)((int)w.len + b->body_off);
	wr_be32(&o, (uint32_t)1 << 24 | len);
	wr_bytes(&o, body, w.len);
	return o.bad ? 0 : o.len;
}

static inline size_t hello_record(const struct hello_build *b, uint8_t *out, size_t cap)
{
	uint8_t msg[12100];
	size_t n = hello_message(b, msg, sizeof(msg));
	struct writer w = wr_init(out, cap);
	wr_u8(&w, 22);
	wr_u8(&w, 3);
	wr_u8(&w, b->record_version);
	wr_be16(&w, (uint16_t)((int)n + b->record_off));
	wr_bytes(&w, msg, n);
	return w.bad ? 0 : w.len;
}

#endif
