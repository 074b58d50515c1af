/* SPDX-License-Identifier: Apache-2.0 */
/* The packed entries of a binding (overlay.h). Never reads behind what it was given. */
#include "shared/policy/overlay.h"

#include <stdio.h>
#include <string.h>

#include "shared/policy/format.h"

static bool refuse(char *why, const char *what)
{
	snprintf(why, OVERLAY_WHY_SIZE, "%s", what);
	return false;
}

static bool read_port(const char **s, uint16_t *out)
{
	unsigned v = 0;
	const char *at = *s;
	for (; *at >= '0' && *at <= '9' && v <= UINT16_MAX; at++)
		v = v * 10 + (unsigned)(*at - '0');
	if (at == *s || v == 0 || v > UINT16_MAX)
		return false;
	*s = at;
	*out = (uint16_t)v;
	return true;
}

/* PORT[-PORT][,...] up to a slash or the end. */
static bool read_ports(struct overlay_entry *e, const char **s)
{
	for (;;) {
		struct overlay_ports *p = &e->ports[e->n_ports];
		if (e->n_ports == OVERLAY_MAX_PORTS || !read_port(s, &p->lo))
			return false;
		p->hi = p->lo;
		if (**s == '-') {
			(*s)++;
			if (!read_port(s, &p->hi) || p->hi < p->lo)
				return false;
		}
		e->n_ports++;
		if (**s != ',')
			return **s == '/' || **s == '\0';
		(*s)++;
	}
}

static bool read_protocols(struct overlay_entry *e, const char *s)
{
	static const struct {
		const char *text;
		uint8_t bit;
	} known[] = { { "https", PROTO_HTTPS }, { "http", PROTO_HTTP }, { "tcp", PROTO_TCP } };
	for (;;) {
		size_t n = strcspn(s, "+"), i = 0;
		while (i < 3 && (strlen(known[i].text) != n || memcmp(known[i].text, s, n) != 0))
			i++;
		if (i == 3)
			return false;
		e->protocols |= known[i].bit;
		if (!s[n])
			return true;
		s += n + 1;
	}
}

bool overlay_from_text(struct overlay_entry *out, const char *s, bool only,
		       char why[OVERLAY_WHY_SIZE])
{
	struct overlay_entry e = { .flags = only ? OVERLAY_ONLY : 0 };
	if (strncmp(s, "*.", 2) == 0) {
		e.flags |= OVERLAY_BELOW;
		s += 2;
	}
	size_t n = strcspn(s, ":/");
	enum name_err err = name_from_text(&e.name, s, n);
	if (err != NAME_OK)
		return refuse(why, name_strerror(err));
	s += n;
	if (*s == ':') {
		s++;
		if (!read_ports(&e, &s))
			return refuse(why, "not a list of at most 8 ports or ranges of ports");
	}
	if (*s == '/') {
		if (!read_protocols(&e, s + 1))
			return refuse(why, "not a list of protocols (https, http, tcp)");
	} else {
		e.protocols = PROTO_HTTPS | PROTO_HTTP;
	}
	if (e.protocols & PROTO_TCP && (!only || e.n_ports == 0))
		return refuse(why, only ? "tcp needs ports" : "tcp cannot be added to a binding");
	*out = e;
	return true;
}

void overlay_put(struct writer *w, const struct overlay_entry *e)
{
	wr_u8(w, e->flags);
	wr_u8(w, e->protocols);
	wr_u8(w, e->n_ports);
	wr_u8(w, e->name.len);
	for (unsigned i = 0; i < e->n_ports; i++) {
		wr_be16(w, e->ports[i].lo);
		wr_be16(w, e->ports[i].hi);
	}
	wr_bytes(w, e->name.wire, e->name.len);
}

bool overlay_next(struct reader *r, struct overlay_entry *out)
{
	uint8_t wire[NAME_MAX_WIRE + 1];
	if (r->bad || r->left == 0)
		return false;
	out->flags = rd_u8(r);
	out->protocols = rd_u8(r);
	out->n_ports = rd_u8(r);
	size_t len = rd_u8(r), used = 0;
	if (out->n_ports > OVERLAY_MAX_PORTS || len > NAME_MAX_WIRE)
		r->bad = true;
	for (unsigned i = 0; !r->bad && i < out->n_ports; i++) {
		out->ports[i].lo = rd_be16(r);
		out->ports[i].hi = rd_be16(r);
	}
	const uint8_t *name = rd_take(r, len);
	if (!name)
		return false;
	memcpy(wire, name, len);
	wire[len] = 0;
	if (name_from_wire(&out->name, wire, len + 1, &used) != NAME_OK || used != len + 1)
		r->bad = true;
	return !r->bad;
}

bool overlay_matches(const struct overlay_entry *e, const struct name *n)
{
	return e->flags & OVERLAY_BELOW ? name_is_below(n, &e->name) : name_equal(n, &e->name);
}

bool overlay_permits(const struct overlay_entry *e, unsigned protocol, uint16_t port)
{
	if (!(e->protocols & protocol))
		return false;
	for (unsigned i = 0; i < e->n_ports; i++)
		if (port >= e->ports[i].lo && port <= e->ports[i].hi)
			return true;
	return e->n_ports == 0 &&
	       ((protocol == PROTO_HTTPS && port == 443) || (protocol == PROTO_HTTP && port == 80));
}

void overlay_to_text(const struct overlay_entry *e, char out[OVERLAY_TEXT_SIZE])
{
	const size_t size = OVERLAY_TEXT_SIZE;
	static const char *const protocols[] = { "https", "http", "tcp" };
	char name[NAME_TEXT_SIZE];
	name_to_text(&e->name, name);
	size_t n =
		(size_t)snprintf(out, size, "%s%.253s", e->flags & OVERLAY_BELOW ? "*." : "", name);
	for (unsigned i = 0; i < e->n_ports; i++) {
		n += (size_t)snprintf(out + n, size - n, "%c%u", i ? ',' : ':', e->ports[i].lo);
		if (e->ports[i].hi != e->ports[i].lo)
			n += (size_t)snprintf(out + n, size - n, "-%u", e->ports[i].hi);
	}
	for (unsigned i = 0, k = 0; i < 3; i++)
		if (e->protocols & 1u << i)
			n += (size_t)snprintf(out + n, size - n, "%c%s", k++ ? '+' : '/',
					      protocols[i]);
}
