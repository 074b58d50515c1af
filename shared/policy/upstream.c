/* SPDX-License-Identifier: Apache-2.0 */
/*
 * By which proxy an allowed connection leaves (judge.h). Says how, and never permits or refuses.
 */
#include "shared/policy/judge.h"

#include <string.h>

static const struct fmt_proxy *profile_proxy(const struct policy *p, uint32_t profile)
{
	uint32_t lo = 0, hi = p->n_proxies;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (p->proxies[mid].profile == profile)
			return &p->proxies[mid];
		if (p->proxies[mid].profile < profile)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* Is the name `zone`, or below it? Both canonical. */
static bool in_zone(const char *name, size_t n, const char *zone)
{
	size_t len = strlen(zone);
	if (len > n || memcmp(name + n - len, zone, len) != 0)
		return false;
	return len == n || name[n - len - 1] == '.';
}

static bool goes_direct(const struct judge *j, const struct fmt_proxy *x, const struct addr *a)
{
	char name[NAME_TEXT_SIZE];
	size_t n = j->q->name ? name_to_text(j->q->name, name) : 0;
	for (uint32_t i = 0; i < x->n_direct; i++) {
		const struct fmt_direct *d = &j->p->direct[x->direct + i];
		struct prefix pre = { .len = (uint8_t)d->len };
		memcpy(pre.a.b, d->addr, sizeof(pre.a.b));
		if (d->port && d->port != j->q->port)
			continue;
		if (d->kind == DIRECT_ALL ||
		    (d->kind == DIRECT_NAME && n && in_zone(name, n, j->p->strings + d->name)) ||
		    (d->kind == DIRECT_PREFIX && a && prefix_contains(&pre, a)))
			return true;
	}
	return false;
}

void judge_upstream(struct judge *j, const struct addr *a)
{
	struct verdict *v = j->out;
	enum layer l = j->q->layer;
	v->upstream = UINT32_MAX;
	v->by_name = false;
	if (v->action != ACTION_ALLOW || !j->profile || l == LAYER_DNS || l == LAYER_CONNECT)
		return;
	const struct fmt_proxy *x = profile_proxy(j->p, v->profile);
	if (!x || (l == LAYER_HTTP ? x->http : x->https) == 0 || goes_direct(j, x, a))
		return;
	v->upstream = (uint32_t)(x - j->p->proxies) << 1 | (l != LAYER_HTTP);
	v->by_name = x->flags & PROXY_BY_NAME && j->q->name;
}

bool policy_upstream(const struct policy *p, uint32_t upstream, struct proxy_info *out)
{
	if (upstream >> 1 >= p->n_proxies)
		return false;
	const struct fmt_proxy *x = &p->proxies[upstream >> 1];
	out->endpoint = p->strings + (upstream & 1 ? x->https : x->http);
	out->auth = p->strings + x->auth;
	return true;
}

static bool is_host(const char *endpoint, const char *name, size_t n)
{
	return n && strncmp(endpoint, name, n) == 0 && endpoint[n] == ':';
}

bool is_upstream_host(const struct policy *p, const struct name *name)
{
	char text[NAME_TEXT_SIZE];
	size_t n = name_to_text(name, text);
	for (uint32_t i = 0; i < p->n_proxies; i++)
		if (is_host(p->strings + p->proxies[i].http, text, n) ||
		    is_host(p->strings + p->proxies[i].https, text, n))
			return true;
	return false;
}
