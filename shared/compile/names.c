/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names as people write them -> canonical names; wildcards against the public suffix list. Must never
 * accept a name that DNS, TLS and HTTP could read in two ways.
 */
#include <idn2.h>
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"

/* ---- from text ---------------------------------------------------------------------------------- */

static bool is_ascii(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] >= 0x80)
			return false;
	return true;
}

/* What somebody who wrote this probably wanted, or NULL. */
static const char *name_hint(const char *s, size_t n)
{
	struct prefix p;
	enum prefix_err e = prefix_from_text(&p, s, n);
	if (e == PREFIX_OK || e == PREFIX_HOST_BITS)
		return "an address is written as {cidr: ..., ports: [...]}";
	if (memmem(s, n, "://", 3))
		return "write the host alone; `protocols`, `ports` and `http` are keys of the "
		       "entry";
	if (memchr(s, '/', n))
		return "write the host alone; paths stand under `http`";
	if (memchr(s, ':', n))
		return "write the host alone; ports stand under `ports`";
	if (memchr(s, '@', n))
		return "write the host alone, without a user";
	if (memchr(s, '*', n))
		return "* may stand only as the whole first label: \"*.example.com\"";
	return NULL;
}

static bool bad_name(struct build *b, struct pos at, const char *s, size_t n, const char *why)
{
	const char *hint = name_hint(s, n);
	diag_error(b->d, at, "bad-name", "\"%.*s\" is not a host name: %s%s%s",
		   (int)(n < 260 ? n : 260), s, why, hint ? "; " : "", hint ? hint : "");
	return false;
}

/* Non-ASCII text by IDNA 2008 (with the mappings of UTS 46, non-transitional). */
static bool parse_idn(struct build *b, struct pos at, const char *s, size_t n, struct name *out)
{
	char *copy = arena_text(b->a, s, n), *ascii = NULL;
	int rc = idn2_to_ascii_8z(copy, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	if (rc != IDN2_OK)
		return bad_name(b, at, s, n, idn2_strerror(rc));
	enum name_err e = name_from_text(out, ascii, strlen(ascii));
	idn2_free(ascii);
	return e == NAME_OK || bad_name(b, at, s, n, name_strerror(e));
}

bool parse_name(struct build *b, struct pos at, const char *s, size_t n, struct name *out,
		bool *below)
{
	const char *whole = s;
	size_t whole_n = n;
	if (below)
		*below = false;
	if (n == 1 && s[0] == '*') {
		diag_error(b->d, at, "bad-name", "\"*\" alone would list every name");
		return false;
	}
	if (below && n > 2 && s[0] == '*' && s[1] == '.') {
		*below = true;
		s += 2;
		n -= 2;
	}
	if (!is_ascii(s, n))
		return parse_idn(b, at, s, n, out);
	enum name_err e = name_from_text(out, s, n);
	return e == NAME_OK || bad_name(b, at, whole, whole_n, name_strerror(e));
}

/* ---- wildcards ---------------------------------------------------------------------------------- */

bool is_lifted(const char *lift, const char *code)
{
	size_t n = strlen(code);
	for (const char *s = strstr(lift, code); s; s = strstr(s + 1, code))
		if (s > lift && s[-1] == ' ' && s[n] == ' ')
			return true;
	return false;
}

/*
 * Domains below which anybody can have a host by asking for one, as far as the public suffix list does
 * not say so itself. A wildcard over one of them lists strangers.
 */
static const char *const shared_clouds[] = {
	"akamai.net",       "akamaiedge.net",        "akamaihd.net",       "amazonaws.com",
	"amazonaws.com.cn", "appspot.com",           "azure.com",          "azure.net",
	"azureedge.net",    "azurefd.net",           "azurewebsites.net",  "cdn.cloudflare.net",
	"cloudapp.net",     "cloudflare.net",        "cloudfront.net",     "digitaloceanspaces.com",
	"edgekey.net",      "edgesuite.net",         "fastly.net",         "fastlylb.net",
	"googleapis.com",   "googleusercontent.com", "herokuapp.com",      "myqcloud.com",
	"oraclecloud.com",  "sharepoint.com",        "trafficmanager.net", "windows.net",
};

static bool is_shared_cloud(const char *text)
{
	for (size_t i = 0; i < sizeof(shared_clouds) / sizeof(shared_clouds[0]); i++)
		if (strcmp(shared_clouds[i], text) == 0)
			return true;
	return false;
}

/* Is the name, or every name right below it, a public suffix of this section of the list? */
static bool is_suffix(const struct build *b, const char *text, int section)
{
	char child[NAME_MAX_TEXT + 8];
	snprintf(child, sizeof(child), "x.%.253s", text);
	section |= PSL_TYPE_NO_STAR_RULE;
	return psl_is_public_suffix2(b->psl, text, section) ||
	       psl_is_public_suffix2(b->psl, child, section);
}

enum { MAX_SUFFIX_LABELS = 6 }; /* the longest rules of the list have five */

void check_wildcard(struct build *b, struct pos at, const struct name *n, const char *lift)
{
	char text[NAME_TEXT_SIZE];
	if (n->n_labels > MAX_SUFFIX_LABELS)
		return;
	name_to_text(n, text);
	if (is_suffix(b, text, PSL_TYPE_ICANN)) {
		diag_error(
			b->d, at, "public-suffix",
			"\"*.%s\" covers a public suffix: it would list the domains of strangers",
			text);
	} else if (n->n_labels == 1) {
		if (!is_lifted(lift, "unknown-suffix"))
			diag_error(b->d, at, "unknown-suffix",
				   "\"*.%s\" covers a whole top-level domain that the public "
				   "suffix list "
				   "does not know; if it is yours, say so: lint: {allow: "
				   "[unknown-suffix], why: ...}",
				   text);
	} else if (is_suffix(b, text, PSL_TYPE_PRIVATE)) {
		if (!is_lifted(lift, "private-suffix"))
			diag_error(b->d, at, "private-suffix",
				   "below \"*.%s\" anybody can have a host by asking for one; if "
				   "that is "
				   "meant, say so: lint: {allow: [private-suffix], why: ...}",
				   text);
	} else if (is_shared_cloud(text) && !is_lifted(lift, "broad-wildcard")) {
		diag_warning(b->d, at, "broad-wildcard",
			     "\"*.%s\" covers hosts of every customer of a shared service", text);
	}
}
