/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of cx-probe as the kernel takes them. */
#ifndef CX_PROBENET_H
#define CX_PROBENET_H

#include <sys/socket.h>

#include "shared/base/addr.h"

/* Fills *ss; returns its length. */
socklen_t probe_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ss);

#endif
