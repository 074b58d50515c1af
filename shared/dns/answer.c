/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps a reason to the answer that the client gets and writes the records of it. Must never see a
 * host program's types.
 */
#include "shared/dns/answer.h"

#include <string.h>

#include "shared/base/bytes.h"

enum { TYPE_ANY = 255 };
enum { EDE_CACHED_ERROR = 13, EDE_NOT_READY = 14, EDE_BLOCKED = 15, EDE_PROHIBITED = 18 };

struct answer answer_for(const struct decision *d, uint16_t qtype, bool class_in)
{
	struct answer a = { .form = d->ancestor ? ANSWER_NODATA : ANSWER_NXDOMAIN,
			    .ede = EDE_BLOCKED,
			    .text = reason_text(d->v.reason),
			    .ttl_s = d->deny_ttl_s };

	switch (d->v.reason) {
	case REASON_NO_POLICY:
		a.form = ANSWER_SERVFAIL;
		a.ede = EDE_NOT_READY;
		return a;
	case REASON_UNRESOLVED: /* nobody answers there, which says nothing about the name */
		a.form = ANSWER_SERVFAIL;
		a.ede = EDE_CACHED_ERROR;
		return a;
	case REASON_UNKNOWN_SOURCE:
	case REASON_NO_BINDING:
		a.ede = EDE_PROHIBITED;
		break;
	case REASON_QUERY_TYPE:
		a.form = qtype == TYPE_ANY ? ANSWER_HINFO : ANSWER_NODATA;
		break;
	case REASON_ADDRESS:
	case REASON_PRIVATE_ADDRESS:
		a.form = ANSWER_NODATA;
		break;
	case REASON_RATE_LIMIT:
		a.form = ANSWER_REFUSED;
		break;
	default:
		break;
	}
	/* A negative answer speaks about a name in a class; about other classes we know nothing. */
	if (!class_in)
		a.form = ANSWER_REFUSED;
	return a;
}

size_t answer_soa(uint8_t buf[ANSWER_RDATA_SIZE], uint32_t ttl_s)
{
	static const uint8_t mname[] = "\2cx\7invalid";
	static const uint8_t rname[] = "\6nobody\7invalid";
	struct writer w = wr_init(buf, ANSWER_RDATA_SIZE);

	wr_bytes(&w, mname, sizeof(mname));
	wr_bytes(&w, rname, sizeof(rname));
	wr_be32(&w, 1);      /* serial */
	wr_be32(&w, 3600);   /* refresh */
	wr_be32(&w, 1200);   /* retry */
	wr_be32(&w, 604800); /* expire */
	wr_be32(&w, ttl_s);  /* minimum: how long the refusal may be kept (RFC 2308) */
	return w.bad ? 0 : w.len;
}

size_t answer_hinfo(uint8_t buf[ANSWER_RDATA_SIZE])
{
	static const uint8_t rdata[] = "\7RFC8482"; /* and an empty OS: the final zero */

	memcpy(buf, rdata, sizeof(rdata));
	return sizeof(rdata);
}

size_t answer_ede(uint8_t buf[ANSWER_EDE_SIZE], const struct answer *a)
{
	struct writer w = wr_init(buf, ANSWER_EDE_SIZE);
	size_t n = strlen(a->text);

	wr_be16(&w, a->ede);
	wr_bytes(&w, a->text, n < ANSWER_EDE_SIZE - 2 ? n : ANSWER_EDE_SIZE - 2);
	return w.len;
}
