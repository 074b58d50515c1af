/* SPDX-License-Identifier: Apache-2.0 */
/* Host names in canonical form (name.h). Never allocates, never reads past what it was given. */
#include "shared/base/name.h"

#include <string.h>

const uint8_t name_octet[256] = {
	['-'] = '-', ['_'] = '_', ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4',
	['5'] = '5', ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9', ['a'] = 'a', ['b'] = 'b',
	['c'] = 'c', ['d'] = 'd', ['e'] = 'e', ['f'] = 'f', ['g'] = 'g', ['h'] = 'h', ['i'] = 'i',
	['j'] = 'j', ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n', ['o'] = 'o', ['p'] = 'p',
	['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't', ['u'] = 'u', ['v'] = 'v', ['w'] = 'w',
	['x'] = 'x', ['y'] = 'y', ['z'] = 'z', ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd',
	['E'] = 'e', ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k',
	['L'] = 'l', ['M'] = 'm', ['N'] = 'n', ['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r',
	['S'] = 's', ['T'] = 't', ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y',
	['Z'] = 'z',
};

static const char *const err_text[] = {
	[NAME_OK] = "fine",
	[NAME_EMPTY] = "the name is empty",
	[NAME_EMPTY_LABEL] = "a label is empty (two dots in a row, or a leading one)",
	[NAME_LONG_LABEL] = "a label is longer than 63 octets",
	[NAME_TOO_LONG] = "the name is longer than 253 octets",
	[NAME_BAD_OCTET] = "a character is not one of a-z 0-9 - _ .",
	[NAME_IP_LITERAL] = "it is an IP address in some spelling, not a name",
	[NAME_TRUNCATED] = "the name does not end where it should",
};

const char *name_strerror(enum name_err e)
{
	return (size_t)e < sizeof(err_text) / sizeof(err_text[0]) ? err_text[e] : "unknown error";
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex(uint8_t c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f');
}

/* Would inet_aton() and its kin take a host that ends in this (lower-case) label for an address? */
static bool label_is_numeric(const uint8_t *s, size_t n)
{
	size_t i = 0;
	bool hex = n >= 2 && s[0] == '0' && s[1] == 'x';
	if (hex)
		i = 2;
	for (; i < n; i++)
		if (hex ? !is_hex(s[i]) : !is_digit(s[i]))
			return false;
	return true;
}

static bool last_label_is_numeric(const struct name *a)
{
	unsigned at = a->off[a->n_labels - 1];
	return label_is_numeric(a->wire + at + 1, a->wire[at]);
}

static void finish(struct name *out, size_t len, unsigned labels)
{
	out->len = (uint8_t)len;
	out->n_labels = (uint8_t)labels;
	out->off[labels] = (uint8_t)len;
	memset(out->wire + len, 0, NAME_PAD);
}

/* Nothing but what an IPv6 address is written with, brackets and zone included, and a colon. */
static bool looks_like_v6(const char *s, size_t n)
{
	bool colon = false;
	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)s[i];
		colon |= c == ':';
		if (c == '%' && colon)
			return true;
		if (c != ':' && c != '.' && c != '[' && c != ']' && !is_hex((uint8_t)(c | 0x20)))
			return false;
	}
	return colon;
}

enum name_err name_from_text(struct name *out, const char *s, size_t n)
{
	if (n > 0 && s[n - 1] == '.')
		n--;
	if (n == 0)
		return NAME_EMPTY;
	enum name_err bad = n > NAME_MAX_TEXT ? NAME_TOO_LONG : NAME_OK;
	size_t len = 0, start = 0; /* start: where the length octet of the open label stands */
	unsigned labels = 0;
	for (size_t i = 0; i <= n && bad == NAME_OK; i++) {
		if (i < n && s[i] != '.') {
			uint8_t c = name_octet[(uint8_t)s[i]];
			if (c)
				out->wire[++len] = c;
			else
				bad = looks_like_v6(s, n) ? NAME_IP_LITERAL : NAME_BAD_OCTET;
			continue;
		}
		size_t label = len - start;
		if (label == 0)
			bad = NAME_EMPTY_LABEL;
		else if (label > NAME_MAX_LABEL)
			bad = NAME_LONG_LABEL;
		out->wire[start] = (uint8_t)label;
		out->off[labels++] = (uint8_t)start;
		start = ++len;
	}
	if (bad != NAME_OK)
		return bad;
	finish(out, len, labels);
	return last_label_is_numeric(out) ? NAME_IP_LITERAL : NAME_OK;
}

static uint8_t lower(uint8_t c)
{
	return (uint8_t)(c | (uint8_t)((uint8_t)(c - 'A') < 26) << 5);
}

enum name_err name_from_wire(struct name *out, const uint8_t *w, size_t n, size_t *used)
{
	size_t at = 0;
	unsigned labels = 0;
	for (;;) {
		if (at >= n)
			return NAME_TRUNCATED;
		size_t label = w[at];
		if (label == 0)
			break;
		if (label > NAME_MAX_LABEL)
			return NAME_TRUNCATED;
		if (label > n - at - 1)
			return NAME_TRUNCATED;
		if (at + 1 + label > NAME_MAX_WIRE)
			return NAME_TOO_LONG;
		out->off[labels++] = (uint8_t)at;
		at += 1 + label;
	}
	for (size_t i = 0; i < at; i++)
		out->wire[i] = lower(w[i]);
	/* a length octet is below 64 and so never an upper-case letter */
	finish(out, at, labels);
	if (used)
		*used = at + 1;
	return NAME_OK;
}

enum name_err name_check_host(const struct name *a)
{
	if (a->n_labels == 0)
		return NAME_EMPTY;
	for (unsigned l = 0; l < a->n_labels; l++)
		for (unsigned i = a->off[l] + 1u; i < a->off[l + 1]; i++)
			if (!name_octet[a->wire[i]])
				return NAME_BAD_OCTET;
	return last_label_is_numeric(a) ? NAME_IP_LITERAL : NAME_OK;
}

static size_t put_octet(char *p, uint8_t c)
{
	if (c > 0x20 && c < 0x7f && c != '.' && c != '\\' && c != '"') {
		p[0] = (char)c;
		return 1;
	}
	p[0] = '\\';
	p[1] = (char)('0' + c / 100);
	p[2] = (char)('0' + c / 10 % 10);
	p[3] = (char)('0' + c % 10);
	return 4;
}

size_t name_to_text(const struct name *a, char *buf)
{
	size_t n = 0;
	if (a->n_labels == 0)
		buf[n++] = '.';
	for (unsigned l = 0; l < a->n_labels; l++) {
		if (l)
			buf[n++] = '.';
		for (unsigned i = a->off[l] + 1u; i < a->off[l + 1]; i++)
			n += put_octet(buf + n, a->wire[i]);
	}
	buf[n] = '\0';
	return n;
}

bool name_equal(const struct name *a, const struct name *b)
{
	return a->len == b->len && memcmp(a->wire, b->wire, a->len) == 0;
}

bool name_is_wire(const struct name *a, const uint8_t *w, size_t n)
{
	uint8_t differ = 0;
	if (n != a->len + 1u || w[a->len] != 0)
		return false;
	if (memcmp(a->wire, w, a->len) == 0)
		return true;
	for (unsigned i = 0; i < a->len; i++)
		differ |= a->wire[i] ^ lower(w[i]);
	return differ == 0;
}

bool name_is_below(const struct name *a, const struct name *b)
{
	if (a->n_labels <= b->n_labels)
		return false;
	size_t at = a->off[a->n_labels - b->n_labels];
	return a->len - at == b->len && memcmp(a->wire + at, b->wire, b->len) == 0;
}
