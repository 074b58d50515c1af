/* SPDX-License-Identifier: Apache-2.0 */
/* The clients of a policy as sets of nftables. Must never put a prefix into a set that it is not in. */
#include "shared/compile/emit.h"

#include <string.h>

#include "shared/compile/layout.h"

enum set { SET_NONE, SET_SOURCES, SET_IGNORED, SET_RESOLVERS };

/* Clients that are bound at run time are sources like those that stand fast. */
static enum set set_of(uint32_t value)
{
	if (value & SRC_KIND_MASK)
		return SET_SOURCES;
	return value == SRC_IGNORE ? SET_IGNORED : value == SRC_RESOLVER ? SET_RESOLVERS : SET_NONE;
}

static struct addr start_of(const struct tables *t, bool v4, size_t i)
{
	uint8_t b[16];
	uint64_t hi = v4 ? (uint64_t)t->src4[i].start << 32 : t->src6[i].start_hi;
	uint64_t lo = v4 ? 0 : t->src6[i].start_lo;
	for (unsigned k = 0; k < 8; k++) {
		b[k] = (uint8_t)(hi >> (56 - 8 * k));
		b[8 + k] = (uint8_t)(lo >> (56 - 8 * k));
	}
	return v4 ? addr_from_v4(b) : addr_from_v6(b);
}

static struct addr before(struct addr a)
{
	for (unsigned i = 16; i-- > 0;)
		if (a.b[i]-- != 0)
			break;
	return a;
}

static void put_range(struct out *o, const struct addr *from, const struct addr *to)
{
	char buf[ADDR_TEXT_SIZE];
	out_bytes(o, buf, addr_to_text(from, buf));
	if (addr_cmp(from, to) == 0)
		return;
	out_text(o, "-");
	out_bytes(o, buf, addr_to_text(to, buf));
}

/*
 * The addresses of a set as ranges: the longest prefix has decided already, so that one inside another
 * of a different kind is left out of it. Neighbours of one set become one range, as nft demands.
 */
static void put_elements(struct out *o, const struct tables *t, enum set set, bool v4,
			 const char *name)
{
	const uint8_t highest4[4] = { 255, 255, 255, 255 };
	struct addr highest;
	size_t n = v4 ? t->n_src4 : t->n_src6;
	bool any = false;
	memset(&highest, 0xff, sizeof(highest));
	if (v4)
		highest = addr_from_v4(highest4);
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i; end < n; end++)
			if (set_of(v4 ? t->src4[end].value : t->src6[end].value) != set)
				break;
		if (end == i) {
			end = i + 1;
			continue;
		}
		struct addr from = start_of(t, v4, i),
			    to = end < n ? before(start_of(t, v4, end)) : highest;
		out_printf(o, any ? ",\n\t" : "add element inet cx %s {\n\t", name);
		put_range(o, &from, &to);
		any = true;
	}
	out_text(o, any ? "\n}\n" : "");
}

static void put_sets(struct out *o, const struct tables *t)
{
	static const struct {
		const char *name;
		enum set set;
	} sets[] = { { "cx_sources", SET_SOURCES },
		     { "cx_ignored", SET_IGNORED },
		     { "cx_resolvers", SET_RESOLVERS } };
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		for (unsigned v6 = 0; v6 < 2; v6++) {
			char name[32];
			snprintf(name, sizeof(name), "%s%u", sets[i].name, v6 ? 6u : 4u);
			out_printf(o, "add set inet cx %s { type ipv%u_addr; flags interval; }\n",
				   name, v6 ? 6u : 4u);
			out_printf(o, "flush set inet cx %s\n", name);
			put_elements(o, t, sets[i].set, !v6, name);
		}
}

void emit_nftables(const struct model *m, struct out *o)
{
	struct tables t = { 0 };
	arena_init(&t.arena);
	pool_init(&t.bindsets);
	tables_sources(&t, m);
	out_text(o, "#!/usr/sbin/nft -f\n"
		    "# Made by cx-policyc --emit nftables: the clients of the policy, in one "
		    "transaction.\n"
		    "add table inet cx\n");
	put_sets(o, &t);
	pool_fini(&t.bindsets);
	arena_fini(&t.arena);
}
