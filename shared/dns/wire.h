/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS messages (RFC 1035, 6891) as a resolver in the middle needs them: questions of clients, read
 * strictly, and the records of answers with their names uncompressed. Everything stays where it stands
 * in the message; nothing is allocated, copied or changed but into the caller's buffers. A name's
 * pointers must each lead to a piece that lies wholly before the one in which they stand, behind the
 * header: every walk ends, and no name depends on what stands behind it.
 *
 * Pure; any thread. Offsets count octets from the start of the message.
 */
#ifndef CX_WIRE_H
#define CX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WIRE_HEAD = 12,
	WIRE_MAX = 65535, /* a message */
	WIRE_NAME = 255,  /* a name with its root */
	WIRE_QUESTION = 255 + 4,
	WIRE_MAX_RECORDS = 6000 /* more than fit into a message */
};

enum {
	WIRE_QR = 0x8000,
	WIRE_OPCODE = 0x7800,
	WIRE_AA = 0x0400,
	WIRE_TC = 0x0200,
	WIRE_RD = 0x0100,
	WIRE_RA = 0x0080,
	WIRE_AD = 0x0020,
	WIRE_CD = 0x0010,
	WIRE_RCODE = 0x000f
};

enum {
	RCODE_NOERROR = 0,
	RCODE_FORMERR = 1,
	RCODE_SERVFAIL = 2,
	RCODE_NXDOMAIN = 3,
	RCODE_NOTIMP = 4,
	RCODE_REFUSED = 5,
	RCODE_BADVERS = 16
};

enum { WIRE_CLASS_IN = 1 };

enum {
	WIRE_TYPE_CNAME = 5,
	WIRE_TYPE_SOA = 6,
	WIRE_TYPE_HINFO = 13,
	WIRE_TYPE_OPT = 41,
	WIRE_TYPE_RRSIG = 46,
	WIRE_TYPE_IXFR = 251,
	WIRE_TYPE_AXFR = 252,
	WIRE_TYPE_ANY = 255
};

/* What an OPT record says. */
struct wire_opt {
	bool present;
	bool dnssec_ok;
	uint8_t version;
	uint8_t rcode; /* the upper eight bits */
	uint16_t udp_size;
	uint32_t options; /* where they stand, and how many octets of them */
	uint16_t n_options;
};

/* A question as it came. */
struct wire_query {
	uint16_t id, flags, qtype, qclass;
	uint16_t qname_len;   /* with root */
	const uint8_t *qname; /* in the message, uncompressed, in the client's case */
	struct wire_opt opt;
};

/*
 * Reads what a client sent. True: *out is filled, and *rcode is how it is to be answered:
 * RCODE_NOERROR (it is a question), RCODE_BADVERS, RCODE_REFUSED (a transfer) or RCODE_FORMERR (a type
 * that nobody asks for), with the question. False: there is no question to be given back; *rcode is
 * RCODE_FORMERR or RCODE_NOTIMP, or -1 if nothing may be answered at all (no header, or a response).
 */
bool wire_query_read(struct wire_query *out, const uint8_t *p, size_t n, int *rcode);

/* One record of an answer. */
struct wire_record {
	uint32_t owner, data; /* where they stand */
	uint32_t ttl_s;       /* 0 where the message says more than 31 bits (RFC 2181 section 8) */
	uint16_t type, class, n;
	uint8_t section; /* 0 answer, 1 authority, 2 additional */
};

/* An answer, with its OPT apart from the records. */
struct wire_answer {
	const uint8_t *p;
	size_t n;
	uint16_t id, flags;
	uint32_t question_end;
	struct wire_opt opt;
	uint32_t opt_at; /* where the OPT starts; n if there is none */
	bool opt_last;   /* nothing stands behind it */
	unsigned n_records;
	struct wire_record *records; /* the caller's, WIRE_MAX_RECORDS */
};

/*
 * Is it a response with this id to this question (lower-case, uncompressed)? All else is not for us,
 * whatever it says.
 */
bool wire_is_answer(const uint8_t *p, size_t n, uint16_t id, const uint8_t *qname, size_t qname_len,
		    uint16_t qtype);

/*
 * Reads all of it; records must be set. False: it is not well-formed to its very end. Data is not
 * looked into: wire_data() does that.
 */
bool wire_answer_read(struct wire_answer *out, const uint8_t *p, size_t n);

/* The name at an offset, uncompressed, as it is written. Returns its length with root, 0: malformed. */
size_t wire_name(const uint8_t *p, size_t n, size_t at, uint8_t out[WIRE_NAME]);

/*
 * A record's data with all names of it uncompressed, for the types that RFC 1035 and its kin name; of
 * others as it stands. -1: malformed, or longer than cap.
 */
long wire_data(const struct wire_answer *m, const struct wire_record *r, uint8_t *out, size_t cap);

/* Are two names in wire form the same but for case? */
bool wire_name_equal(const uint8_t *a, size_t an, const uint8_t *b, size_t bn);

/* For a table of names: the same for names that are the same. Not keyed. */
uint64_t wire_name_hash(const uint8_t *wire, size_t n);

#endif
