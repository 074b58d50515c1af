/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cxctl asks of the kernel when an address changes hands, over netlink and in process: sockets
 * that are to be destroyed, connection-tracking entries that are to be forgotten, and the nftables
 * sets that say which address sits behind which link. Never decides whose an address is.
 *
 * Threads: a struct netlink belongs to one. Errors: negative errno values.
 */
#ifndef CX_NETLINK_H
#define CX_NETLINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/base/addr.h"

struct netlink;

/* NULL: errno. Root is needed for everything below. */
struct netlink *netlink_open(void);
void netlink_close(struct netlink *n);

/*
 * Destroys every TCP socket of this host whose other end is in the prefix; returns how many there
 * were. Sockets that only wait for their time to run out (TIME_WAIT) are destroyed where the kernel
 * can, and not counted where it cannot.
 */
int netlink_destroy_sockets(struct netlink *n, const struct prefix *p);

/* One TCP socket of this host that neither listens nor merely waits for its time to run out. */
struct netlink_socket {
	struct addr local, peer;
	uint16_t local_port, peer_port;
	uint64_t cookie; /* never used again for another socket */
	uint64_t id[7];  /* the kernel's own words for it */
};

/*
 * All of them, for the caller to free(). Returns how many, or a negative errno. Needs no privilege.
 */
ssize_t netlink_sockets(struct netlink *n, struct netlink_socket **out);
/* Destroys one. 1: it was there; 0: it is gone. */
int netlink_destroy_socket(struct netlink *n, const struct netlink_socket *s);

/* Deletes every connection-tracking entry that an address of the prefix opened; returns how many. */
int netlink_forget_connections(struct netlink *n, const struct prefix *p);

/*
 * Adds `ifname . address` to the set of table inet cx that the prefix belongs to (cx_bound4,
 * cx_bound6, cx_bound6_net), for timeout_ms or (0) until it is deleted. An element that is there
 * already gets the new time-out. Returns 0; -ENOENT: the table or the set is not there.
 */
int netlink_add_bound(struct netlink *n, const char *ifname, const struct prefix *p,
		      uint64_t timeout_ms);
/* Returns 0, also if it was not there. */
int netlink_delete_bound(struct netlink *n, const char *ifname, const struct prefix *p);

#endif
