/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The little of DNS messages (RFC 1035, 6891) that a stub needs which asks one trusted resolver for
 * addresses. No I/O, no allocation. What comes back is taken as a whole: the resolver followed the
 * aliases, judged the chain and answered, and asking it again for an alias' target would be another
 * question, about a name that nobody listed.
 */
#ifndef CX_DNS_H
#define CX_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"

enum {
	DNS_A = 1,
	DNS_AAAA = 28,
	DNS_QUERY_SIZE = 12 + NAME_MAX_WIRE + 1 + 4 + 11,
	DNS_UDP_SIZE = 1232,
	DNS_MAX_ADDRS = 16,
	DNS_CHAIN_SIZE = 640 /* octets of aliases; with more of them an answer is a failure */
};

struct dns_answer {
	uint8_t n;      /* 0: no such name, or no such address */
	uint32_t ttl_s; /* the least in the chain; of the SOA if there is no address; 0: unknown */
	struct addr v[DNS_MAX_ADDRS];
	uint16_t chain_len;
	uint8_t chain[DNS_CHAIN_SIZE]; /* the targets of the aliases, in wire form with root */
};

enum dns_result {
	DNS_FOREIGN,   /* not the answer to this question: wait on */
	DNS_ANSWERED,  /* *out is filled */
	DNS_TRUNCATED, /* ask over TCP */
	DNS_FAILED     /* the resolver could not or would not say */
};

/* A recursive question with EDNS; buf holds DNS_QUERY_SIZE. Returns its length. */
size_t dns_query(uint8_t *buf, uint16_t id, const struct name *n, uint16_t type);

/*
 * Only addresses at the end of the chain of CNAMEs that starts at n are taken, in the order of the
 * message. *out is untouched unless DNS_ANSWERED.
 */
enum dns_result dns_read(struct dns_answer *out, const uint8_t *p, size_t len, uint16_t id,
			 const struct name *n, uint16_t type);

#endif
