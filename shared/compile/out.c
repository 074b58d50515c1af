/* SPDX-License-Identifier: Apache-2.0 */
/* Growing text and quoting (out.h). Must never let a string out of its quotes. */
#include "shared/compile/out.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static void reserve(struct out *o, size_t n)
{
	if (o->cap - o->n > n)
		return;
	size_t cap = o->cap ? o->cap : 256;
	while (cap - o->n <= n)
		cap *= 2;
	o->p = realloc(o->p, cap);
	if (!o->p) {
		fputs("cx-policyc: out of memory\n", stderr);
		exit(3);
	}
	o->cap = cap;
}

void out_fini(struct out *o)
{
	free(o->p);
	*o = (struct out){ 0 };
}

void out_bytes(struct out *o, const char *s, size_t n)
{
	reserve(o, n);
	memcpy(o->p + o->n, s, n);
	o->n += n;
	o->p[o->n] = '\0';
}

void out_text(struct out *o, const char *s)
{
	out_bytes(o, s, strlen(s));
}

void out_printf(struct out *o, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	reserve(o, (size_t)n);
	va_start(ap, fmt);
	vsnprintf(o->p + o->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	o->n += (size_t)n;
}

const char *out_get(const struct out *o)
{
	return o->p ? o->p : "";
}

/* ---- YAML and JSON ---- */

/* Words that some reader of YAML takes for something else than a string. */
static bool is_word_of_yaml(const char *s, size_t n)
{
	static const char *const words[] = { "true", "false", "null", "yes", "no",
					     "on",   "off",   "y",    "n" };
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strlen(words[i]) == n && strncasecmp(words[i], s, n) == 0)
			return true;
	return false;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_plain(const char *s, size_t n)
{
	if (n == 0 || !is_letter(s[0]) || is_word_of_yaml(s, n))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!is_letter(s[i]) && !(s[i] >= '0' && s[i] <= '9') && !strchr("-_./", s[i]))
			return false;
	return true;
}

/* The octets of a character that some YAML takes for a line break: U+0085, U+2028, U+2029; else 0. */
static unsigned line_break(const char *s, size_t n, unsigned *code)
{
	if (n >= 2 && memcmp(s, "\xc2\x85", 2) == 0) {
		*code = 0x85;
		return 2;
	}
	if (n < 3 || memcmp(s, "\xe2\x80", 2) != 0 || (s[2] != '\xa8' && s[2] != '\xa9'))
		return 0;
	*code = 0x2000 | ((unsigned char)s[2] & 0x3f);
	return 3;
}

/* What both languages share: \" \\ and \uXXXX for what does not print; UTF-8 stays. */
static void put_quoted(struct out *o, const char *s, size_t n)
{
	out_text(o, "\"");
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)s[i];
		unsigned code = c, skip = line_break(s + i, n - i, &code);
		if (skip || c < 0x20 || c == 0x7f) {
			out_printf(o, "\\u%04x", code);
			i += skip ? skip : 1;
			continue;
		}
		out_text(o, c == '"' || c == '\\' ? "\\" : "");
		out_bytes(o, s + i, 1);
		i++;
	}
	out_text(o, "\"");
}

void out_yaml(struct out *o, const char *s, size_t n)
{
	if (is_plain(s, n))
		out_bytes(o, s, n);
	else
		put_quoted(o, s, n);
}

void out_json(struct out *o, const char *s, size_t n)
{
	put_quoted(o, s, n);
}

void out_yaml_list(struct out *o, const char *const *v, uint32_t n)
{
	out_text(o, "[");
	for (uint32_t i = 0; i < n; i++) {
		out_text(o, i ? ", " : "");
		out_yaml(o, v[i], strlen(v[i]));
	}
	out_text(o, "]");
}

void out_yaml_labels(struct out *o, const char *lines)
{
	const char *sep = "";
	out_text(o, "{");
	for (const char *s = lines; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		size_t n = strcspn(s, "\n"), key = strcspn(s, "=");
		if (key >= n)
			continue;
		out_text(o, sep);
		put_quoted(o, s, key);
		out_text(o, ": ");
		put_quoted(o, s + key + 1, n - key - 1);
		sep = ", ";
	}
	out_text(o, "}");
}

/* ---- values ---- */

void out_prefix(struct out *o, const struct prefix *p)
{
	char buf[PREFIX_TEXT_SIZE];
	out_bytes(o, buf, prefix_to_text(p, buf));
}

/* In the largest unit that leaves nothing over: what was written fits 32 bits in some unit. */
static void put_amount(struct out *o, uint64_t n, bool octets)
{
	static const struct {
		const char *name;
		uint64_t n;
	} unit[] = { { "GiB", 1u << 30 }, { "MiB", 1u << 20 },
		     { "KiB", 1u << 10 }, { "GB", 1000000000 },
		     { "MB", 1000000 },   { "KB", 1000 },
		     { "B", 1 } };
	if (!octets) {
		out_printf(o, "%llu", (unsigned long long)n);
		return;
	}
	size_t i = 0;
	while (n % unit[i].n)
		i++;
	out_printf(o, "%llu%s", (unsigned long long)(n / unit[i].n), unit[i].name);
}

static void put_limit(struct out *o, const char *key, const struct limit *l, bool octets,
		      const char **sep)
{
	if (!l->set)
		return;
	out_printf(o, "%s%s: ", *sep, key);
	put_amount(o, l->amount, octets);
	*sep = ", ";
	if (l->period_s == 0)
		return;
	out_text(o, l->period_s == 1      ? "/s"
		    : l->period_s == 60   ? "/min"
		    : l->period_s == 3600 ? "/h"
					  : "/day");
	if (l->burst == l->amount)
		return;
	out_text(o, " burst ");
	put_amount(o, l->burst, octets);
}

void out_limits(struct out *o, const struct limits *l)
{
	const char *sep = "";
	out_text(o, "{");
#define X(field, key, octets, dflt) put_limit(o, key, &l->field, octets, &sep);
	LIMITS(X)
#undef X
	out_text(o, "}");
}

void out_time(struct out *o, int64_t s)
{
	char buf[64];
	struct tm tm;
	time_t t = (time_t)s;
	if (gmtime_r(&t, &tm) && strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm))
		out_text(o, buf);
}

void out_qtype(struct out *o, uint16_t type)
{
	static const struct {
		uint16_t type;
		const char *name;
	} known[] = { { 1, "A" },       { 2, "NS" },     { 5, "CNAME" }, { 6, "SOA" },
		      { 12, "PTR" },    { 15, "MX" },    { 16, "TXT" },  { 28, "AAAA" },
		      { 33, "SRV" },    { 35, "NAPTR" }, { 43, "DS" },   { 44, "SSHFP" },
		      { 48, "DNSKEY" }, { 52, "TLSA" },  { 64, "SVCB" }, { 65, "HTTPS" },
		      { 257, "CAA" } };
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].type == type) {
			out_text(o, known[i].name);
			return;
		}
	out_printf(o, "TYPE%u", type);
}
