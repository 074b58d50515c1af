/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP connections to the upstream: one for each question whose answer was cut, a few at once, and of
 * these only some for one client; the others wait for their turn.
 *
 * Belongs to the thread of its loop.
 */
#ifndef CX_SHIM_LINK_H
#define CX_SHIM_LINK_H

#include "unbound-module/shim/upstream.h"

struct links;

struct links *links_new(struct shim *t, upstream_done *done);
void links_free(struct links *l);
void links_ask(struct links *l, struct exchange *x, const struct origin *from);
void links_cancel(struct links *l, struct exchange *x);

/* The PROXYv2 header for a question; out holds UPSTREAM_PROXY. Returns its length. */
size_t proxy_header(uint8_t *out, const struct origin *o, bool stream);

#endif
