/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials against the entries of the profiles that may use them: the proxy puts one into a request
 * that it can read, and sends that on over TLS, so a host that is open to https alone never gets one.
 * Must never change the model, and never see a value.
 */
#include <string.h>

#include "shared/compile/draft.h"
#include "shared/compile/lint.h"

/* How a profile lets its clients to a host. */
struct way {
	bool listed; /* and not denied */
	bool http;   /* in requests that can be read */
};

/* ---- the entries that decide about a name ------------------------------------------------------- */

/* Does an entry count: false if it ends the matter, being a deny. */
static bool take(struct way *w, const struct entry *e)
{
	w->listed = w->listed || !e->deny;
	w->http = w->http || (!e->deny && e->terms->protocols & PROTO_HTTP);
	return !e->deny;
}

static bool holds(const struct name_list *list, const uint8_t *wire, size_t n, bool below)
{
	const uint8_t *p = list->bytes;
	for (size_t i = 0; i < list->n; i++, p += p[1] + 2u)
		if (p[0] == below && p[1] == n && memcmp(p + 2, wire, n) == 0)
			return true;
	return false;
}

/* Entries of one layer about just this name, or about names below it. False: one denies. */
static bool take_layer(const struct lookup *l, uint32_t layer, const uint8_t *wire, size_t n,
		       bool below, struct way *w)
{
	const struct entry *v = l->b->entries;
	const struct entry *e = entry_about(l, layer, below ? ENTRY_BELOW : ENTRY_EXACT, wire, n);
	for (; e; e = l->next[e->order] ? &v[l->next[e->order] - 1] : NULL)
		if (!take(w, e))
			return false;
	for (size_t i = 0; l->n_lists && i < l->b->n_entries; i++)
		if (v[i].kind == ENTRY_LIST && v[i].layer == layer &&
		    holds(v[i].list, wire, n, below) && !take(w, &v[i]))
			return false;
	return true;
}

/* The longest match over all layers decides, as in a verdict. */
static struct way way_to(const struct lookup *l, const struct profile *p, const struct name *host)
{
	const uint8_t *wire = host->wire;
	size_t n = host->len;
	struct way w = { 0 };
	for (size_t at = 0; at < n && !w.listed; at += wire[at] + 1u)
		for (uint32_t i = 0; i < p->n_sees; i++)
			if (!take_layer(l, p->sees[i], wire + at, n - at, at > 0, &w))
				return (struct way){ 0 };
	return w;
}

/* ---- each credential ---------------------------------------------------------------------------- */

static void check_host(struct build *b, const struct lookup *l, const struct credential *c,
		       const struct profile *p, const char *host)
{
	struct name name;
	if (name_from_text(&name, host, strlen(host)) != NAME_OK)
		return;
	struct way w = way_to(l, p, &name);
	if (!w.listed)
		lint_say_some(b, c->pos, LINT_UNUSED_CREDENTIAL, c->lift,
			      "the credential \"%s\" is for %s, which the profile \"%s\" does not "
			      "list",
			      c->name, host, p->name);
	else if (!w.http && c->read_only && !c->unseen)
		diag_error(b->d, c->pos, "unseen",
			   "the credential \"%s\" is read-only, but TLS hides the requests of the "
			   "profile \"%s\" to %s, which its entries open for https alone; let them "
			   "permit http as well, or write unseen: allow",
			   c->name, p->name, host);
	else if (!w.http)
		lint_say_some(
			b, c->pos, LINT_UNUSED_CREDENTIAL, c->lift,
			"the credential \"%s\" is put into requests over http, and the profile "
			"\"%s\" opens %s for https alone",
			c->name, p->name, host);
}

static bool is_proxy_auth(const struct build *b, const char *name)
{
	for (size_t i = 0; i < b->n_drafts; i++)
		if (strcmp(b->drafts[i].p.proxy.auth, name) == 0)
			return true;
	return false;
}

static bool names_it(const struct profile *p, const char *name)
{
	for (uint32_t i = 0; i < p->n_credentials; i++)
		if (strcmp(p->credentials[i], name) == 0)
			return true;
	return false;
}

static void check_credential(struct build *b, const struct lookup *l, const struct credential *c)
{
	bool named = false;
	if (is_proxy_auth(b, c->name))
		return;
	if (c->n_hosts == 0) {
		lint_say(b, c->pos, LINT_UNUSED_CREDENTIAL, c->lift,
			 "the credential \"%s\" has no `hosts`: it is sent nowhere", c->name);
		return;
	}
	for (size_t i = 0; i < b->n_drafts; i++) {
		const struct profile *p = &b->drafts[i].p;
		if (!names_it(p, c->name))
			continue;
		named = true;
		for (uint32_t j = 0; j < c->n_hosts; j++)
			check_host(b, l, c, p, c->hosts[j]);
	}
	if (!named)
		lint_say(b, c->pos, LINT_UNUSED_CREDENTIAL, c->lift,
			 "no profile names the credential \"%s\": it is sent nowhere", c->name);
}

void check_credentials(struct build *b, const struct lookup *l)
{
	for (uint32_t i = 0; i < b->m->n_credentials; i++)
		check_credential(b, l, &b->m->credentials[i]);
}
