/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names as people write them -> canonical names; wildcards against the public suffix list. Must never
 * accept a name that DNS, TLS and HTTP could read in two ways.
 */
#include <idn2.h>
#include <stdlib.h>
#include <string.h>

#include "shared/compile/lint.h"

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
	if (is_suffix(b, text, PSL_TYPE_ICANN))
		lint_say(b, at, LINT_PUBLIC_SUFFIX, lift,
			 "\"*.%s\" covers a public suffix: it would list the domains of strangers",
			 text);
	else if (n->n_labels == 1)
		lint_say(
			b, at, LINT_UNKNOWN_SUFFIX, lift,
			"\"*.%s\" covers a whole top-level domain that the public suffix list does "
			"not know; if it is yours, say so: lint: {allow: [unknown-suffix], why: "
			"...}",
			text);
	else if (is_suffix(b, text, PSL_TYPE_PRIVATE))
		lint_say(b, at, LINT_PRIVATE_SUFFIX, lift,
			 "below \"*.%s\" anybody can have a host by asking for one; if that is "
			 "meant, say so: lint: {allow: [private-suffix], why: ...}",
			 text);
	else
		check_shared(b, at, n->wire, n->len, lift);
}
