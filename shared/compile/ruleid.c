/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rule ids: what an entry permits, in canonical text, hashed. Must never depend on the order of the
 * policy, on descriptive keys, or on anything outside the entry.
 *
 * The text, as cx-policy.yaml(5) defines it, each line ended by a line feed:
 *
 *	cx-rule-1
 *	profile NAME		("never", the profile's name, "preset:NAME")
 *	kind KIND		(exact below cidr list, with "deny-" before it if it denies)
 *	pattern TEXT		(canonical name or prefix; "list:" and the path as written)
 *	ports LIST		(443 or 8000-8010, joined by commas, ascending; "-" if left out)
 *	protocols LIST		(of https,http,tcp in this order, joined by commas; "-" if it denies)
 *	http METHODS PATHS	(one line a rule, lines sorted; joined by commas, sorted; "*": any;
 *				paths each as written, joined by spaces)
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "shared/compile/compile.h"

struct text {
	char *p;
	size_t n, cap;
	bool bad, borrowed; /* p is the caller's; it is copied before it grows */
};

static void put(struct text *t, const char *s, size_t n)
{
	if (t->bad)
		return;
	if (t->cap - t->n < n) {
		size_t cap = (t->cap + n) * 2;
		char *p = realloc(t->borrowed ? NULL : t->p, cap);
		if (!p) {
			t->bad = true;
			return;
		}
		if (t->borrowed)
			memcpy(p, t->p, t->n);
		t->borrowed = false;
		t->p = p;
		t->cap = cap;
	}
	memcpy(t->p + t->n, s, n);
	t->n += n;
}

static void puts_(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

/* A canonical name needs no escapes: the labels, with dots for their lengths. */
static void put_name(struct text *t, const uint8_t *wire, size_t n)
{
	for (size_t at = 0; at < n; at += wire[at] + 1u) {
		if (at)
			put(t, ".", 1);
		put(t, (const char *)wire + at + 1, wire[at]);
	}
}

static void put_pattern(struct text *t, const struct entry *e)
{
	char buf[PREFIX_TEXT_SIZE];
	switch (e->kind) {
	case ENTRY_CIDR:
		prefix_to_text(e->prefix, buf);
		puts_(t, buf);
		return;
	case ENTRY_LIST:
		puts_(t, e->pattern);
		return;
	default:
		put_name(t, e->wire, e->wire_len);
	}
}

static void put_ports(struct text *t, const struct terms *terms)
{
	char buf[16];
	if (terms->n_ports == 0)
		puts_(t, "-");
	for (uint32_t i = 0; i < terms->n_ports; i++) {
		struct port_range r = terms->ports[i];
		snprintf(buf, sizeof(buf), r.lo == r.hi ? "%s%u" : "%s%u-%u", i ? "," : "", r.lo,
			 r.hi);
		puts_(t, buf);
	}
}

static void put_protocols(struct text *t, uint8_t protocols)
{
	static const char *const names[] = { "https", "http", "tcp" };
	bool first = true;
	for (unsigned i = 0; i < 3; i++) {
		if (!(protocols & 1u << i))
			continue;
		puts_(t, first ? "" : ",");
		puts_(t, names[i]);
		first = false;
	}
	puts_(t, first ? "-" : "");
}

static void put_http_rule(struct text *t, const struct http_rule *r)
{
	puts_(t, "http ");
	puts_(t, r->n_methods ? "" : "*");
	for (uint32_t i = 0; i < r->n_methods; i++) {
		puts_(t, i ? "," : "");
		puts_(t, r->methods[i]);
	}
	puts_(t, r->n_paths ? "" : " *");
	for (uint32_t i = 0; i < r->n_paths; i++) {
		puts_(t, " ");
		puts_(t, r->paths[i].text);
		puts_(t, r->paths[i].prefix ? "*" : "");
	}
	put(t, "\n", 2); /* the NUL ends the string for the sort */
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void put_http(struct text *t, const struct terms *terms)
{
	struct text lines = { 0 };
	const char **v = calloc(terms->n_http, sizeof(*v));
	for (uint32_t i = 0; i < terms->n_http; i++)
		put_http_rule(&lines, &terms->http[i]);
	if (!v || lines.bad) {
		t->bad = true;
	} else {
		const char *s = lines.p;
		for (uint32_t i = 0; i < terms->n_http; s += strlen(s) + 1)
			v[i++] = s;
		qsort(v, terms->n_http, sizeof(*v), compare_lines);
		for (uint32_t i = 0; i < terms->n_http; i++)
			puts_(t, v[i]);
	}
	free(v);
	free(lines.p);
}

/* Looking up the digest for each of a million rules would cost more than computing it. */
static bool hash_text(const struct text *t, uint8_t hash[32])
{
	static EVP_MD_CTX *ctx; /* kept for the run: the compiler has one thread */
	if (!ctx) {
		EVP_MD *sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
		ctx = EVP_MD_CTX_new();
		if (!sha256 || !ctx || EVP_DigestInit_ex(ctx, sha256, NULL) != 1)
			return false;
		EVP_MD_free(sha256); /* the context holds it */
	}
	return EVP_DigestInit_ex(ctx, NULL, NULL) == 1 && EVP_DigestUpdate(ctx, t->p, t->n) == 1 &&
	       EVP_DigestFinal_ex(ctx, hash, NULL) == 1;
}

void rule_id(const struct model *m, const struct entry *e, uint8_t id[RULE_ID_SIZE])
{
	static const char *const kinds[] = { "exact", "below", "cidr", "list" };
	char room[1024];
	struct text t = { .p = room, .cap = sizeof(room), .borrowed = true };
	puts_(&t, "cx-rule-1\nprofile ");
	puts_(&t, m->layers[e->layer].name);
	puts_(&t, e->deny ? "\nkind deny-" : "\nkind ");
	puts_(&t, kinds[e->kind]);
	puts_(&t, "\npattern ");
	put_pattern(&t, e);
	puts_(&t, "\nports ");
	put_ports(&t, e->terms);
	puts_(&t, "\nprotocols ");
	put_protocols(&t, e->terms->protocols);
	puts_(&t, "\n");
	if (e->terms->n_http)
		put_http(&t, e->terms);
	uint8_t hash[32];
	if (t.bad || !hash_text(&t, hash)) {
		fputs("cx-policyc: out of memory\n", stderr);
		exit(3);
	}
	if (!t.borrowed)
		free(t.p);
	memcpy(id, hash, RULE_ID_SIZE);
}
