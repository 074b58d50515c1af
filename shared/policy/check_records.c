/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in the sections of a policy image: every offset, order and count of every record, so that
 * lookups need not doubt them. Runs when the sections are known to lie inside the image; never changes
 * it.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/policy/features.h"
#include "shared/policy/image.h"

struct check {
	struct policy *p;
	char *why;
	uint64_t *sets_at; /* bit i: a rule set starts at word i */
	uint64_t
		*ports_at; /* likewise for SEC_PORTS, SEC_QTYPES, SEC_BINDSETS, SEC_HTTP (octets) */
	uint64_t *qtypes_at;
	uint64_t *bindsets_at;
	uint64_t *http_at;
};

static bool bit_get(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i % 64) & 1;
}

static void bit_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= UINT64_C(1) << (i % 64);
}

static const struct fmt_section *section_entry(const struct policy *p, uint32_t id)
{
	const struct fmt_section *s = (const void *)(p->base + sizeof(*p->h));
	for (uint32_t i = 0; i < p->h->n_sections; i++)
		if (s[i].id == id)
			return &s[i];
	return NULL;
}

static uint32_t section_count(const struct policy *p, uint32_t id)
{
	const struct fmt_section *s = section_entry(p, id);
	return s ? s->count : 0;
}

/* ---- the records ---- */

static bool strings_ok(const char *s, uint64_t size)
{
	return size > 0 && s[0] == '\0' && s[size - 1] == '\0';
}

/* Lists of u32 "n, then n x width words": marks where each starts. */
static bool mark_lists(uint64_t *at, const uint32_t *w, uint64_t n_words, unsigned width)
{
	for (uint64_t i = 0; i < n_words;) {
		uint64_t n = w[i];
		bit_set(at, i);
		if (n > (n_words - i - 1) / width)
			return false;
		i += 1 + n * width;
	}
	return true;
}

static bool sets_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (!mark_lists(c->sets_at, p->sets, p->n_sets, 2))
		return false;
	for (uint64_t i = 0; i < p->n_sets;) {
		uint32_t n = p->sets[i];
		const uint32_t *pair = p->sets + i + 1;
		if (n == 0)
			return false;
		for (uint32_t k = 0; k < n; k++, pair += 2) {
			if (pair[1] >= p->n_rules || p->rules[pair[1]].layer != pair[0])
				return false;
			if (k &&
			    (pair[0] < pair[-2] || (pair[0] == pair[-2] && pair[1] <= pair[-1])))
				return false;
		}
		i += 1 + 2 * (uint64_t)n;
	}
	return true;
}

static bool ports_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (!mark_lists(c->ports_at, p->ports, p->n_ports, 1))
		return false;
	for (uint64_t i = 0; i < p->n_ports; i += 1 + (uint64_t)p->ports[i]) {
		uint32_t above = 0; /* the least port that the next range may start with */
		if (p->ports[i] == 0)
			return false;
		for (uint32_t k = 1; k <= p->ports[i]; k++) {
			uint32_t lo = p->ports[i + k] & 0xffff, hi = p->ports[i + k] >> 16;
			if (lo == 0 || lo < above || hi < lo)
				return false;
			above = hi + 1;
		}
	}
	return true;
}

static bool qtypes_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint64_t i = 0; i < p->n_qtypes;) {
		uint64_t n = p->qtypes[i];
		bit_set(c->qtypes_at, i);
		if (n > p->n_qtypes - i - 1)
			return false;
		for (uint64_t k = 2; k <= n; k++)
			if (p->qtypes[i + k] <= p->qtypes[i + k - 1])
				return false;
		i += 1 + n;
	}
	return true;
}

static uint64_t get16(const uint8_t *b)
{
	return (uint64_t)b[0] | (uint64_t)b[1] << 8;
}

/* One http rule at *at: moves *at behind it. */
static bool http_rule_ok(const struct policy *p, uint64_t *at)
{
	if (p->http_size - *at < 4)
		return false;
	uint64_t methods = get16(p->http + *at), paths = get16(p->http + *at + 2);
	*at += 4;
	for (; methods > 0; methods--) {
		uint64_t left = p->http_size - *at;
		if (left < 1 || p->http[*at] == 0 || p->http[*at] > left - 1)
			return false;
		for (uint64_t i = 1; i <= p->http[*at]; i++)
			if (p->http[*at + i] <= 0x20 || p->http[*at + i] >= 0x7f)
				return false;
		*at += 1 + (uint64_t)p->http[*at];
	}
	for (; paths > 0; paths--) {
		uint64_t left = p->http_size - *at;
		if (left < 3 || p->http[*at] > 1 || get16(p->http + *at + 1) > left - 3)
			return false;
		*at += 3 + get16(p->http + *at + 1);
	}
	return true;
}

static bool http_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint64_t at = 0; at < p->http_size;) {
		bit_set(c->http_at, at);
		if (p->http_size - at < 2)
			return false;
		uint64_t n = get16(p->http + at);
		at += 2;
		if (n == 0)
			return false;
		for (; n > 0; n--)
			if (!http_rule_ok(p, &at))
				return false;
	}
	return true;
}

/* Is i the start of a list (or FMT_NONE, where that may stand)? */
static bool list_ref(const uint64_t *at, uint64_t n, uint32_t i, bool none)
{
	return (none && i == FMT_NONE) || (i < n && bit_get(at, i));
}

static bool rules_ok(const struct check *c)
{
	const struct policy *p = c->p;
	const unsigned kinds = RULE_EXACT | RULE_BELOW | RULE_CIDR;
	const unsigned known =
		kinds | RULE_DENY | RULE_PRIVATE | RULE_UNSEEN | RULE_PRESET | RULE_LIMITED;
	for (uint32_t i = 0; i < p->n_rules; i++) {
		const struct fmt_rule *r = &p->rules[i];
		unsigned kind = r->flags & kinds;
		if (r->layer >= p->n_layers || r->flags & ~known || !kind || kind & (kind - 1))
			return false;
		if (r->layer == 0 && !(r->flags & RULE_DENY))
			return false;
		if (r->protocols & ~(PROTO_HTTPS | PROTO_HTTP | PROTO_TCP) ||
		    r->upgrades & ~UPGRADE_WEBSOCKET || r->expires < 0)
			return false;
		if (!list_ref(c->ports_at, p->n_ports, r->ports, true) ||
		    !list_ref(c->http_at, p->http_size, r->http, true))
			return false;
	}
	return true;
}

static bool layers_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (p->n_layers == 0 || p->layers[0].kind != LAYER_KIND_NEVER)
		return false;
	for (uint32_t i = 0; i < p->n_layers; i++) {
		const struct fmt_layer *l = &p->layers[i];
		if (l->kind > LAYER_KIND_TASKS || (i > 0 && l->kind == LAYER_KIND_NEVER))
			return false;
		if (l->name >= p->strings_size ||
		    !list_ref(c->ports_at, p->n_ports, l->https, true) ||
		    !list_ref(c->ports_at, p->n_ports, l->http, true))
			return false;
	}
	return true;
}

static bool sees_ok(const struct policy *p, const struct fmt_profile *f)
{
	if (f->n_sees > p->n_sees || f->sees > p->n_sees - f->n_sees)
		return false;
	const struct fmt_sees *s = p->sees + f->sees;
	for (uint32_t k = 0; k < f->n_sees; k++) {
		if (s[k].layer == 0 || s[k].layer >= p->n_layers || s[k].rank >= f->n_sees)
			return false;
		if (k && s[k].layer <= s[k - 1].layer)
			return false;
	}
	return true;
}

static bool profiles_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (p->n_profiles == 0 || p->n_profiles > SRC_INDEX_MASK ||
	    p->h->default_profile >= p->n_profiles || p->h->unlisted > SRC_IGNORE)
		return false;
	for (uint32_t i = 0; i < p->n_profiles; i++) {
		const struct fmt_profile *f = &p->profiles[i];
		if (f->name >= p->strings_size || !sees_ok(p, f) ||
		    f->flags & ~(PROFILE_OBSERVE | PROFILE_ECH_ALLOW) || f->limits >= p->n_limits ||
		    !list_ref(c->qtypes_at, p->n_qtypes, f->qtypes, false))
			return false;
		if (i && strcmp(p->strings + f[-1].name, p->strings + f->name) >= 0)
			return false;
	}
	return true;
}

static bool rate_ok(const struct fmt_rate *r)
{
	if (r->amount == 0)
		return r->burst == 0 && r->period_s == 0;
	return r->burst > 0 && r->amount >> FMT_MAX_RATE_BITS == 0 &&
	       r->burst >> FMT_MAX_RATE_BITS == 0 && r->period_s <= FMT_MAX_PERIOD_S;
}

static bool limits_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint32_t i = 0; i < p->n_limits; i++)
		for (unsigned k = 0; k < FMT_LIMIT_KINDS; k++)
			if (!rate_ok(&p->limits[i].kind[k]))
				return false;
	for (uint32_t i = 0; i < p->n_rule_limits; i++) {
		const struct fmt_rule_limits *r = &p->rule_limits[i];
		if (r->rule >= p->n_rules || r->limits >= p->n_limits ||
		    !(p->rules[r->rule].flags & RULE_LIMITED) || (i && r->rule <= r[-1].rule))
			return false;
	}
	return true;
}

static bool tasks_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint32_t i = 0; i < p->n_within; i++)
		if (p->within[i] == 0 || p->within[i] >= p->n_layers)
			return false;
	for (uint32_t i = 0; i < p->n_tasks; i++) {
		const struct fmt_task *t = &p->tasks[i];
		if (t->profile >= p->n_profiles || (i && t->profile <= t[-1].profile) ||
		    t->n_within > p->n_within || t->within > p->n_within - t->n_within)
			return false;
	}
	return true;
}

static bool source_value_ok(const struct check *c, uint32_t v)
{
	uint32_t i = v & SRC_INDEX_MASK;
	switch (v & SRC_KIND_MASK) {
	case 0:
		return v <= SRC_RESOLVER;
	case SRC_PROFILE:
		return i < c->p->n_profiles;
	case (uint32_t)SRC_BIND:
		return i < c->p->n_bindsets && bit_get(c->bindsets_at, i);
	default:
		return false;
	}
}

static bool bindsets_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (!mark_lists(c->bindsets_at, p->bindsets, p->n_bindsets, 1))
		return false;
	for (uint64_t i = 0; i < p->n_bindsets; i += 1 + (uint64_t)p->bindsets[i])
		for (uint32_t k = 1; k <= p->bindsets[i]; k++)
			if (p->bindsets[i + k] >= p->n_profiles)
				return false;
	return true;
}

static bool dns_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint32_t i = 0; i < p->n_ranges; i++)
		if (p->ranges[i].len > 128)
			return false;
	for (uint32_t i = 0; i < p->n_dns; i++) {
		const struct fmt_dns *d = &p->dns[i];
		if (d->profile >= p->n_profiles || (i && d->profile <= d[-1].profile) ||
		    d->flags & ~(DNS_NO_AAAA | DNS_ANCESTORS_NODATA) || d->n_ranges > p->n_ranges ||
		    d->ranges > p->n_ranges - d->n_ranges)
			return false;
	}
	for (uint32_t i = 0; i < p->n_zones; i++) {
		const struct fmt_zone *z = &p->zones[i];
		if (z->name >= p->strings_size ||
		    !list_ref(c->bindsets_at, p->n_bindsets, z->owners, false) ||
		    (i && strcmp(p->strings + z[-1].name, p->strings + z->name) >= 0))
			return false;
	}
	for (uint32_t i = 0; i < p->n_ancestors; i++) {
		const struct fmt_ancestor *a = &p->ancestors[i];
		if (a->layer == 0 || a->layer >= p->n_layers ||
		    (i &&
		     (a->hash < a[-1].hash || (a->hash == a[-1].hash && a->layer <= a[-1].layer))))
			return false;
	}
	return true;
}

static bool direct_ok(const struct policy *p)
{
	for (uint32_t i = 0; i < p->n_direct; i++) {
		const struct fmt_direct *d = &p->direct[i];
		if (d->kind > DIRECT_PREFIX || d->len > 128 || d->name >= p->strings_size ||
		    (d->kind == DIRECT_NAME && p->strings[d->name] == '\0'))
			return false;
	}
	return true;
}

static bool proxies_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint32_t i = 0; i < p->n_proxies; i++) {
		const struct fmt_proxy *x = &p->proxies[i];
		if (x->profile >= p->n_profiles || (i && x->profile <= x[-1].profile) ||
		    x->http >= p->strings_size || x->https >= p->strings_size ||
		    x->auth >= p->strings_size || x->flags & ~(uint32_t)PROXY_BY_NAME ||
		    x->n_direct > p->n_direct || x->direct > p->n_direct - x->n_direct)
			return false;
	}
	return direct_ok(p);
}

static bool src4_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (p->n_src4 == 0 || p->src4[0].start != 0)
		return false;
	for (uint32_t i = 0; i < p->n_src4; i++)
		if ((i && p->src4[i].start <= p->src4[i - 1].start) ||
		    !source_value_ok(c, p->src4[i].value))
			return false;
	if (!p->src4_top)
		return true;
	if (section_count(p, SEC_SRC4_TOP) != 65537 || p->src4_top[65536] != p->n_src4 - 1)
		return false;
	uint32_t at = 0;
	for (uint32_t i = 0; i < 65536; i++) {
		while (at + 1 < p->n_src4 && p->src4[at + 1].start <= i << 16)
			at++;
		if (p->src4_top[i] != at)
			return false;
	}
	return true;
}

static bool src6_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (p->n_src6 == 0 || p->src6[0].start_hi != 0 || p->src6[0].start_lo != 0)
		return false;
	for (uint32_t i = 0; i < p->n_src6; i++) {
		const struct fmt_src6 *s = &p->src6[i];
		if (i && (s->start_hi < s[-1].start_hi ||
			  (s->start_hi == s[-1].start_hi && s->start_lo <= s[-1].start_lo)))
			return false;
		if (!source_value_ok(c, s->value))
			return false;
	}
	return true;
}

static bool prefix_ok(const uint8_t *addr, uint32_t len)
{
	if (len > 128)
		return false;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = len > 8 * i ? len - 8 * i : 0;
		if (keep < 8 && addr[i] & (uint8_t) ~(0xff00u >> keep))
			return false;
	}
	return true;
}

/* Does prefix i of OWNED stand behind the one before it, and outside it? IPv6 before IPv4. */
static bool owned_behind(const struct policy *p, uint32_t i)
{
	struct prefix a = { .len = (uint8_t)p->owned[i - 1].len };
	struct prefix b = { .len = (uint8_t)p->owned[i].len };
	memcpy(a.a.b, p->owned[i - 1].addr, 16);
	memcpy(b.a.b, p->owned[i].addr, 16);
	if (prefix_is_v4(&a) != prefix_is_v4(&b))
		return prefix_is_v4(&b);
	return addr_cmp(&a.a, &b.a) < 0 && !prefix_contains(&a, &b.a);
}

static bool cidrs_ok(const struct check *c)
{
	const struct policy *p = c->p;
	for (uint32_t i = 0; i < p->n_cidrs; i++) {
		const struct fmt_cidr *d = &p->cidrs[i];
		if (!prefix_ok(d->addr, d->len) || d->set >= p->n_sets ||
		    !bit_get(c->sets_at, d->set))
			return false;
		if (i && (d->len > d[-1].len ||
			  (d->len == d[-1].len && memcmp(d->addr, d[-1].addr, 16) <= 0)))
			return false;
	}
	for (uint32_t i = 0; i < p->n_owned; i++)
		if (!prefix_ok(p->owned[i].addr, p->owned[i].len) || (i && !owned_behind(p, i)))
			return false;
	return true;
}

/* The records of one line: inside BLOB, with values that exist. */
static bool line_ok(const struct check *c, const struct fmt_line *l)
{
	const struct policy *p = c->p;
	uint64_t at = l->base;
	if (l->count > FMT_LINE_SLOTS || l->spill > FMT_MAX_SPILL || l->spill >= p->n_lines)
		return false;
	for (unsigned i = 0; i < l->count; i++) {
		uint64_t need = 4 + (uint64_t)l->len[i];
		uint32_t value;
		if (at > p->blob_size || need > p->blob_size - at || l->len[i] > NAME_MAX_WIRE)
			return false;
		memcpy(&value, p->blob + at, 4);
		uint32_t set = value & FMT_SET_MASK;
		if (set >= p->n_sets || !bit_get(c->sets_at, set) ||
		    !(value & (FMT_EXACT | FMT_BELOW)))
			return false;
		at += need;
	}
	return true;
}

static bool names_ok(const struct check *c)
{
	struct policy *p = c->p;
	if (p->n_gate == 0 || p->n_lines == 0 || p->h->depths[0] & 1)
		return false;
	for (uint64_t i = 0; i < p->n_lines; i++) {
		if (!line_ok(c, &p->lines[i]))
			return false;
		p->n_names += p->lines[i].count;
	}
	return true;
}

static bool info_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (section_count(p, SEC_RULE_INFO) != p->n_rules || section_count(p, SEC_INFO) != 1 ||
	    !strings_ok(p->info_strings, p->info_strings_size))
		return false;
	for (uint32_t i = 0; i < p->n_rules; i++) {
		const struct fmt_rule_info *r = &p->rule_info[i];
		const uint32_t refs[] = { r->file,        r->pattern, r->owner,
					  r->reason,      r->data,    r->if_unreachable,
					  r->environment, r->added,   r->review_by,
					  r->labels,      r->out };
		for (size_t k = 0; k < sizeof(refs) / sizeof(refs[0]); k++)
			if (refs[k] >= p->info_strings_size)
				return false;
	}
	for (uint32_t i = 0; i < p->n_name_info; i++) {
		const struct fmt_name_info *n = &p->name_info[i];
		if (n->file >= p->info_strings_size || n->rule >= p->n_rules)
			return false;
		if (i && (n->rec < n[-1].rec || (n->rec == n[-1].rec && n->rule <= n[-1].rule)))
			return false;
	}
	return p->info->revision < p->info_strings_size &&
	       p->info->presets_version < p->info_strings_size &&
	       p->info->compiler < p->info_strings_size && p->info->audience < p->info_strings_size;
}

/* How many things there are that a text of this kind may speak about. */
static uint64_t texts_of_kind(const struct policy *p, uint32_t kind)
{
	switch (kind) {
	case TERM_POLICY:
	case NOTE_SOURCES:
		return 1;
	case TERM_DOCUMENT:
		return UINT32_MAX;
	case TERM_RULE_LIMITS:
	case TERM_RULE_ADDITION:
	case NOTE_LIFTS:
		return p->n_rules;
	default:
		return kind >= TERM_LIMITS && kind <= TERM_TASKS ? p->n_profiles : 0;
	}
}

static bool text_list_ok(const struct policy *p, const struct fmt_text *v, uint32_t n,
			 uint64_t strings, bool notes)
{
	for (uint32_t i = 0; i < n; i++) {
		if (v[i].text >= strings || v[i].index >= texts_of_kind(p, v[i].kind) ||
		    (v[i].kind >= NOTE_SOURCES) != notes)
			return false;
		if (i && (v[i].kind < v[i - 1].kind ||
			  (v[i].kind == v[i - 1].kind && v[i].index <= v[i - 1].index)))
			return false;
	}
	return true;
}

static bool texts_ok(const struct check *c)
{
	const struct policy *p = c->p;
	if (p->n_terms && !strings_ok(p->term_strings, p->term_strings_size))
		return false;
	return text_list_ok(p, p->terms, p->n_terms, p->term_strings_size, false) &&
	       text_list_ok(p, p->notes, p->n_notes, p->info_strings_size, true);
}

/* In this order: what comes later refers to what came before. */
static const struct {
	const char *what;
	bool (*ok)(const struct check *c);
} stages[] = {
	{ "ports", ports_ok },        { "http rules", http_ok },   { "rules", rules_ok },
	{ "layers", layers_ok },      { "rule sets", sets_ok },    { "query types", qtypes_ok },
	{ "limits", limits_ok },      { "profiles", profiles_ok }, { "tasks", tasks_ok },
	{ "bind sets", bindsets_ok }, { "proxies", proxies_ok },   { "dns", dns_ok },
	{ "IPv4 sources", src4_ok },  { "IPv6 sources", src6_ok }, { "prefixes", cidrs_ok },
	{ "names", names_ok },        { "provenance", info_ok },   { "texts", texts_ok },
};

static uint64_t *bitmap(uint64_t bits)
{
	return calloc(bits / 64 + 1, sizeof(uint64_t));
}

enum policy_err image_check_records(struct policy *p, char *why)
{
	struct check c = { .p = p,
			   .why = why,
			   .sets_at = bitmap(p->n_sets),
			   .ports_at = bitmap(p->n_ports),
			   .qtypes_at = bitmap(p->n_qtypes),
			   .bindsets_at = bitmap(p->n_bindsets),
			   .http_at = bitmap(p->http_size) };
	enum policy_err err = POLICY_OK;
	if (!c.sets_at || !c.ports_at || !c.qtypes_at || !c.bindsets_at || !c.http_at)
		err = POLICY_ERR_SYSTEM;
	if (err == POLICY_OK && !strings_ok(p->strings, p->strings_size)) {
		image_explain(why, "strings");
		err = POLICY_ERR_LAYOUT;
	}
	for (size_t i = 0; err == POLICY_OK && i < sizeof(stages) / sizeof(stages[0]); i++)
		if (!stages[i].ok(&c)) {
			image_explain(why, "%s", stages[i].what);
			err = POLICY_ERR_LAYOUT;
		}
	free(c.sets_at);
	free(c.ports_at);
	free(c.qtypes_at);
	free(c.bindsets_at);
	free(c.http_at);
	return err;
}
