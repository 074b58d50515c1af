/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client is told instead of the truth: which answer belongs to a reason, and the bytes of the
 * records in it. Pure: no DNS library, no allocation, no I/O; any thread.
 */
#ifndef CX_ANSWER_H
#define CX_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/live/decide.h"

enum answer_form {
	ANSWER_NXDOMAIN, /* with a SOA record, so that it is kept for ttl_s */
	ANSWER_NODATA,   /* likewise */
	ANSWER_HINFO,    /* ANY of a listed name: RFC 8482, section 4.2 */
	ANSWER_REFUSED,
	ANSWER_SERVFAIL
};

struct answer {
	enum answer_form form;
	uint16_t ede;     /* RFC 8914 info code */
	const char *text; /* its extra text: the reason; static */
	uint32_t ttl_s;
};

enum { ANSWER_RDATA_SIZE = 64, ANSWER_EDE_SIZE = 64 };

/* The answer for a refusal: of a question of this type and class. */
struct answer answer_for(const struct decision *d, uint16_t qtype, bool class_in);

/* RDATA of the SOA record of a negative answer; names uncompressed. Returns its length. */
size_t answer_soa(uint8_t buf[ANSWER_RDATA_SIZE], uint32_t ttl_s);
/* RDATA of the HINFO record. Returns its length. */
size_t answer_hinfo(uint8_t buf[ANSWER_RDATA_SIZE]);
/* The content of the EDNS option (RFC 8914). Returns its length. */
size_t answer_ede(uint8_t buf[ANSWER_EDE_SIZE], const struct answer *a);

#endif
