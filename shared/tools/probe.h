/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of cx-probe share. The probe tries to get out of the place it runs in, and reports
 * what it got: an attempt is a row of the table in probetable.c, a function that carries out rows of
 * its kind, and a judge of the answer. Memory is fixed; every wait has an end; nothing is sent but to
 * targets that the command line or the row names.
 *
 * Threads: none. Attempts run in processes of their own, each with one `struct probe` to read.
 */
#ifndef CX_PROBE_H
#define CX_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"

/* What every answer of a canary holds: who reads it has been outside. */
#define CANARY_TOKEN "cx-canary"

enum verdict {
	PROBE_NOT_TRIED, /* a target, a right or a link is missing; the evidence says which */
	PROBE_HELD,
	PROBE_LEAKED,
	PROBE_WORKS, /* only of rows that must work: what is allowed is reached */
	PROBE_BROKEN
};

enum { EVIDENCE_SIZE = 160 };

struct outcome {
	enum verdict verdict;
	unsigned ms;
	char evidence[EVIDENCE_SIZE]; /* printable ASCII without quotes and backslashes */
};

/* The targets, from the command line or this machine's configuration. */
struct probe {
	const char *allowed; /* a listed name, or NULL */
	const char *refused; /* a name that exists and is not listed */
	struct {
		const char *name; /* as rows call it */
		bool known;
		struct addr addr;
	} target[8];
	unsigned wait_ms; /* for an answer, of each attempt */
};

/* How an answer is read. */
enum judge {
	JUDGE_ANY,   /* any octet at all is a leak */
	JUDGE_TOKEN, /* the canary's token: the attempt may be answered by the listed host */
	JUDGE_HTTP,  /* the token, or an answer that is no refusal */
	JUDGE_PAIR,  /* the token, or two answers that are no refusals */
	JUDGE_OURS,  /* any answer that is not the gateway's own refusal */
	JUDGE_WORKS  /* the reverse: an answer that is no refusal is what should come */
};

/* How a ClientHello is made; `text` of the row is its name, or its octets for HELLO_OCTETS. */
enum shape {
	HELLO_PLAIN,
	HELLO_NO_SNI,
	HELLO_TWO_EXTENSIONS, /* `text`, then the refused name */
	HELLO_TWO_REVERSED,
	HELLO_TWO_NAMES,
	HELLO_LONG_NAME,    /* the name is said to be longer than its extension */
	HELLO_SHORT_RECORD, /* the record is said to be shorter than the message */
	HELLO_TRAILING,     /* another handshake message behind it */
	HELLO_SECOND,       /* another hello behind it, with the refused name */
	HELLO_ECH,
	HELLO_SPLIT,      /* two records; naive readers see `text`, a server the refused name */
	HELLO_SPLIT_PLAIN /* two records, one name */
};

enum { DNS_TCP = 1, DNS_SPLIT = 2 /* the length of a TCP message in segments of its own */ };

/*
 * One attempt. In `text`, %A is the allowed name, %R the refused one, %C the canary's IPv4 address,
 * %0 a NUL; any other octet is itself.
 */
struct attempt {
	const char *id;   /* published: scripts select by it */
	const char *what; /* for people */
	void (*run)(const struct probe *, const struct attempt *, struct outcome *);
	const char *to; /* canary4, canary6, resolver, gateway, neighbour, spoof, or an address */
	uint16_t port;
	uint16_t kind; /* dns: the type; ip: the protocol */
	uint8_t how;   /* dns: DNS_TCP ...; tls: enum shape; ip: as its function says */
	uint8_t judge;
	const char *text;
};

extern const struct attempt probe_attempts[];
extern const size_t probe_n_attempts;

/* ---- carrying out; each fills the outcome ---- */
void probe_dns(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_tls(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_tcp(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_ports(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_udp(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_options(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_ping(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_protocol(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_spoof(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_vlan(const struct probe *p, const struct attempt *a, struct outcome *out);
void probe_arp(const struct probe *p, const struct attempt *a, struct outcome *out);

/* ---- what they use ---- */

/* A row's target. False, and "not tried: ..." in the outcome, if it is not known. */
bool probe_target(const struct probe *p, const char *to, struct addr *addr, struct outcome *out);

/*
 * Expands a row's text into buf; returns its length, or 0 and an outcome of not-tried if a name that
 * it needs was not given or there is no room.
 */
size_t probe_expand(const struct probe *p, const char *text, uint8_t *buf, size_t room,
		    struct outcome *out);

void probe_say(struct outcome *out, enum verdict v, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

uint64_t probe_now_ms(void);

/* What came of an exchange. */
struct answer {
	size_t len;
	bool closed; /* by the other side, in order */
	int error;   /* errno of connect, send or receive; 0: none, or time was up */
	uint8_t data[8192];
};

/*
 * Connects, sends, and collects what comes until the other side closes, is silent after an answer, or
 * the time is up. `pause_at` > 0: so many octets go first and the rest a moment later.
 */
void probe_exchange(const struct probe *p, const struct addr *to, uint16_t port,
		    const uint8_t *data, size_t n, size_t pause_at, struct answer *got);

/* Judges what came over TCP. */
void probe_judge(const struct attempt *a, const struct answer *got, struct outcome *out);

/* True when sock can be read before the deadline (of probe_now_ms()). */
bool probe_readable(int sock, uint64_t deadline_ms);

/* A ClientHello of this shape; returns its length, 0 if there is no room. */
size_t probe_hello(enum shape shape, const char *name, size_t len, const char *refused,
		   uint8_t *buf, size_t room);

/* The canary, to be run outside: answers on these addresses until it is ended. Returns on error only. */
int probe_serve(const char *addresses);

#endif
