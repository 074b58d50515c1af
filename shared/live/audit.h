/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log: one JSON object a line for every verdict, written off the data path. Hot threads
 * put events into rings of their own and never wait; the housekeeping thread turns them into lines
 * and appends whole lines per write. A full ring or a failing disk drops events and counts them.
 * Schema: docs/audit.md.
 */
#ifndef CX_AUDIT_H
#define CX_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/base/name.h"
#include "shared/policy/verdict.h"

struct audit;      /* one per process */
struct audit_ring; /* one per hot thread */

/* What a hot thread knows; copied into the ring. Pointers are borrowed for the call. */
struct audit_event {
	int64_t wall_ns;
	enum layer layer;
	enum action action;
	enum reason reason;
	bool observed;
	struct addr src;
	uint64_t generation;     /* 0: none */
	const char *task;        /* "" */
	const struct name *name; /* NULL: none */
	uint16_t qtype;
	uint16_t port;
	bool has_dst;
	struct addr dst;
	const char *profile;
	const char *rule;   /* 12 hex digits or "" */
	const char *owner;  /* "" */
	const char *origin; /* "preset:npm", "policy.yaml:12" or "" */
	const char *revision;
	const char *policy; /* digest */
	const char *method; /* not NUL-terminated */
	size_t method_len;
	const char *path; /* not NUL-terminated; cut at 256 octets, the query left out */
	size_t path_len;
	const char *id; /* the connection or request id of the proxy; not NUL-terminated */
	size_t id_len;
};

/*
 * component: "unbound", "spoa", "dns". path: file to append to, "-" for standard error, NULL:
 * events are counted but not written. The file is opened at the first drain and again after it was
 * moved (log rotation). NULL if there is no memory.
 */
struct audit *audit_new(const char *component, const char *path);
/* Drains what is there. Rings must have been freed. */
void audit_free(struct audit *a);

struct audit_ring *audit_ring_new(struct audit *a);
/* Any thread; what is in the ring is still drained. */
void audit_ring_free(struct audit_ring *r);

/* Never waits. False if the event was dropped. */
bool audit_put(struct audit_ring *r, const struct audit_event *e);

/*
 * Writes what the rings hold; returns the number of lines written. One thread at a time. On an
 * error of the file, *err (may be NULL) is errno, else 0.
 */
size_t audit_drain(struct audit *a, int *err);

uint64_t audit_dropped(const struct audit *a);

#endif
