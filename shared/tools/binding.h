/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving an address to a task, and taking it back so that nothing of the task reaches the next one:
 * the steps of `cxctl bind`, `rebind` and `unbind`, in an order in which a kill between any two leaves
 * either the old state or the new one, and running the same again completes it.
 *
 * Never decides what a task may reach: it refuses what the policy would not honour, and the plugins
 * judge by the policy in force.
 */
#ifndef CX_BINDING_H
#define CX_BINDING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/live/bindwrite.h"

/* What the exit status says. */
enum binding_code {
	BINDING_OK = 0,
	BINDING_REFUSED = 1, /* by the policy */
	BINDING_USAGE = 2,
	BINDING_SYSTEM = 3, /* or the table is full; a bind has changed nothing */
	BINDING_TAKEN = 4   /* the address, or the task, is bound otherwise */
};

struct binding_host;

struct binding_options {
	const char *dir;    /* runtime directory */
	const char *policy; /* compiled */
	gid_t gid;          /* group of a new table, (gid_t)-1: none */
	bool no_nft;        /* the gateway has other means against forged sources */
};

enum { BINDING_WHY_SIZE = 256, BINDING_DEFAULT_WAIT_MS = 1000 };

/* NULL with one sentence in why. */
struct binding_host *binding_open(const struct binding_options *o, char why[BINDING_WHY_SIZE]);
void binding_close(struct binding_host *h);
struct bind_writer *binding_writer(struct binding_host *h);

/* What is wanted. */
struct binding_order {
	struct prefix addrs[BIND_ADDRS];
	uint8_t n_addrs;
	char ifname[BIND_IF_SIZE];
	char task[BIND_TASK_SIZE];
	char profile[BIND_PROFILE_SIZE]; /* rebind: "" keeps it */
	bool has_ttl;
	uint64_t ttl_s;
	bool has_overlay; /* rebind: replaces what is there */
	uint16_t overlay_len;
	uint8_t overlay[BIND_OVERLAY_SIZE];
	bool cut; /* rebind: end what the task has open */
	uint64_t wait_ms;
};

struct binding_result {
	char why[BINDING_WHY_SIZE]; /* where the code is not BINDING_OK */
	uint64_t generation;
	unsigned sockets, flows; /* that were destroyed and forgotten */
	bool found;              /* unbind: the task was bound */
};

/* Readers of texts; false with one sentence in why. */
bool binding_set_addrs(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE]);
bool binding_set_task(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE]);
bool binding_set_profile(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE]);
bool binding_set_ifname(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE]);
bool binding_add_entry(struct binding_order *o, const char *text, bool only,
		       char why[BINDING_WHY_SIZE]);

enum binding_code binding_bind(struct binding_host *h, const struct binding_order *o,
			       struct binding_result *r);
enum binding_code binding_rebind(struct binding_host *h, const struct binding_order *o,
				 struct binding_result *r);
enum binding_code binding_unbind(struct binding_host *h, const char *task, uint64_t wait_ms,
				 struct binding_result *r);
/* Puts the elements of all bindings back into the nftables sets; *n: how many rows. */
enum binding_code binding_restore(struct binding_host *h, unsigned *n, char why[BINDING_WHY_SIZE]);
/* Is the row what the order says? */
bool binding_matches(const struct bind_row *row, const struct binding_order *o);

uint64_t binding_now_ns(void);

#endif
