/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers of single values: texts, numbers, dates, durations, limits, prefixes. Must never guess: what
 * is not written as the manual says is an error.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"

int compare_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* ---- texts -------------------------------------------------------------------------------------- */

bool want_text(struct build *b, const struct node *v, const char *what)
{
	if (v->type == NODE_SCALAR && !node_is_null(v))
		return true;
	diag_error(b->d, v->pos, "type", "%s must be a single value, not %s", what, node_what(v));
	return false;
}

/*
 * The octets of a character that acts on what shows a text instead of standing in it: C1 controls,
 * separators of lines, marks of direction (which let a text read other than it is). 0: none.
 */
static size_t hidden_mark(const unsigned char *s)
{
	if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0)
		return 2;
	if (s[0] == 0xe2 && s[1] == 0x80 &&
	    (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xa8 && s[2] <= 0xae)))
		return 3;
	if (s[0] == 0xe2 && s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9)
		return 3;
	return s[0] == 0xef && s[1] == 0xbb && s[2] == 0xbf ? 3 : 0;
}

/* A copy on one line, or NULL with a message. */
static const char *one_line(struct build *b, const struct node *v)
{
	size_t n = v->n;
	while (n > 0 && (v->text[n - 1] == '\n' || v->text[n - 1] == ' '))
		n--;
	char *s = arena_text(b->a, v->text, n);
	for (char *c = s; *c; c++) {
		if (*c == '\n' || *c == '\t')
			*c = ' ';
		if ((unsigned char)*c < 0x20 || *c == 0x7f) {
			diag_error(b->d, v->pos, "bad-text", "control character 0x%02x in a text",
				   (unsigned char)*c);
			return NULL;
		}
		size_t mark = hidden_mark((const unsigned char *)c);
		if (mark) {
			diag_error(b->d, v->pos, "bad-text",
				   "a text holds \"%.*s\", which changes how the rest is shown",
				   (int)mark, c);
			return NULL;
		}
	}
	return s;
}

void read_text(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (!want_text(b, v, k->text))
		return;
	const char *s = one_line(b, v);
	if (s)
		*(const char **)to = s;
}

void read_texts(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct texts *out = to;
	if (!want_seq(b, v, k->text))
		return;
	const char **list = arena_array(b->a, v->n + 1, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		const char *s = want_text(b, item, k->text) ? one_line(b, item) : NULL;
		if (s)
			list[n++] = s;
	}
	*out = (struct texts){ list, n };
}

void read_bool(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (v->type == NODE_SCALAR && v->plain && strcmp(v->text, "true") == 0)
		*(bool *)to = true;
	else if (v->type == NODE_SCALAR && v->plain && strcmp(v->text, "false") == 0)
		*(bool *)to = false;
	else
		diag_error(b->d, v->pos, "type", "%s must be true or false%s%.40s%s", k->text,
			   v->type == NODE_SCALAR ? ", not \"" : "",
			   v->type == NODE_SCALAR ? v->text : "",
			   v->type != NODE_SCALAR ? ""
			   : v->plain             ? "\""
						  : "\" in quotes");
}

static const char *word_at(const void *table, size_t i)
{
	return ((const char *const *)table)[i];
}

int read_word(struct build *b, const struct node *v, const char *what, const char *const *words,
	      size_t n)
{
	if (!want_text(b, v, what))
		return -1;
	char all[256] = "";
	for (size_t i = 0; i < n; i++) {
		if (strcmp(words[i], v->text) == 0)
			return (int)i;
		size_t len = strlen(all);
		snprintf(all + len, sizeof(all) - len, "%s%s", i ? i + 1 == n ? " or " : ", " : "",
			 words[i]);
	}
	const char *near = nearest(v->text, word_at, words, n);
	diag_error(b->d, v->pos, "bad-value", "%s must be %s, not \"%.60s\"%s%s%s", what, all,
		   v->text, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	return -1;
}

static bool is_label_key(const char *s)
{
	for (; *s; s++)
		if (*s == '=' || (unsigned char)*s <= 0x20 || *s == 0x7f)
			return false;
	return true;
}

void read_labels(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (!want_map(b, v, k->text))
		return;
	const char **lines = arena_array(b->a, v->n + 1, sizeof(*lines));
	size_t n = 0, len = 0;
	node_for_each_pair(key, value, v)
	{
		const char *s = want_text(b, value, key->text) ? one_line(b, value) : NULL;
		if (!is_label_key(key->text) || !*key->text) {
			diag_error(b->d, key->pos, "bad-value",
				   "a label's key must not be empty or hold \"=\", spaces or "
				   "control characters");
			continue;
		}
		if (!s)
			continue;
		lines[n] = arena_printf(b->a, "%s=%s\n", key->text, s);
		len += strlen(lines[n++]);
	}
	qsort(lines, n, sizeof(*lines), compare_text);
	char *all = arena_get(b->a, len + 1), *at = all;
	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, lines[i]);
	*(const char **)to = all;
}

/* ---- numbers ------------------------------------------------------------------------------------ */

/* Decimal digits at *s, without sign, up to max; moves *s behind them. */
static bool take_uint(const char **s, uint64_t max, uint64_t *out)
{
	const char *p = *s;
	uint64_t v = 0;
	if (*p < '0' || *p > '9' || (*p == '0' && p[1] >= '0' && p[1] <= '9'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		unsigned digit = (unsigned)(*p - '0');
		if (v > (max - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*s = p;
	*out = v;
	return true;
}

bool read_uint(struct build *b, const struct node *v, const char *what, uint64_t min, uint64_t max,
	       uint64_t *out)
{
	uint64_t n = 0;
	if (!want_text(b, v, what))
		return false;
	const char *s = v->text;
	if (!take_uint(&s, max, &n) || *s || n < min) {
		diag_error(b->d, v->pos, "bad-value",
			   "%s must be a number from %llu to %llu, not \"%.40s\"", what,
			   (unsigned long long)min, (unsigned long long)max, v->text);
		return false;
	}
	*out = n;
	return true;
}

bool read_duration(struct build *b, const struct node *v, const char *what, uint32_t max_s,
		   uint32_t *out)
{
	if (!want_text(b, v, what))
		return false;
	const char *s = v->text;
	uint64_t n = 0, unit = 0;
	if (take_uint(&s, UINT32_MAX, &n) && *s && !s[1])
		unit = *s == 's' ? 1 : *s == 'm' ? 60 : *s == 'h' ? 3600 : *s == 'd' ? 86400 : 0;
	if (!unit || n * unit > max_s) {
		diag_error(
			b->d, v->pos, "bad-value",
			"%s must be a time such as 5s, 10m, 2h or 7d, at most %us, not \"%.40s\"",
			what, max_s, v->text);
		return false;
	}
	*out = (uint32_t)(n * unit);
	return true;
}

/* ---- dates -------------------------------------------------------------------------------------- */

static bool digits(const char *s, unsigned n, int *out)
{
	*out = 0;
	for (unsigned i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		*out = *out * 10 + (s[i] - '0');
	}
	return true;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar. */
static int64_t days_of(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t m = month <= 2 ? month + 9 : month - 3; /* from March */
	return y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719468;
}

static bool parse_date(const char *s, int64_t *days)
{
	static const int length[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int y, m, d;
	if (!digits(s, 4, &y) || s[4] != '-' || !digits(s + 5, 2, &m) || s[7] != '-' ||
	    !digits(s + 8, 2, &d))
		return false;
	if (y < 1970 || m < 1 || m > 12)
		return false;
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	if (d < 1 || d > length[m - 1] + (m == 2 && leap))
		return false;
	*days = days_of(y, m, d);
	return true;
}

bool time_from_text(const char *s, size_t n, bool with_clock, int64_t *out)
{
	int64_t days = 0;
	int h = 0, m = 0, sec = 0;
	if (n < 10 || !parse_date(s, &days))
		return false;
	if (n != 10) {
		if (!with_clock || n != 20 || (s[10] != 'T' && s[10] != 't') || s[13] != ':' ||
		    s[16] != ':' || (s[19] != 'Z' && s[19] != 'z'))
			return false;
		if (!digits(s + 11, 2, &h) || !digits(s + 14, 2, &m) || !digits(s + 17, 2, &sec) ||
		    h > 23 || m > 59 || sec > 59)
			return false;
	}
	*out = days * 86400 + h * 3600 + m * 60 + sec;
	return true;
}

void read_date(struct build *b, const struct node *k, const struct node *v, void *to)
{
	int64_t when;
	if (!want_text(b, v, k->text))
		return;
	if (time_from_text(v->text, v->n, false, &when))
		*(const char **)to = v->text;
	else
		diag_error(b->d, v->pos, "bad-date", "%s must be a date, YYYY-MM-DD, not \"%.40s\"",
			   k->text, v->text);
}

void read_time(struct build *b, const struct node *k, const struct node *v, void *to)
{
	int64_t when;
	if (!want_text(b, v, k->text))
		return;
	if (!time_from_text(v->text, v->n, true, &when) || when == 0)
		diag_error(b->d, v->pos, "bad-date",
			   "%s must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, not \"%.40s\"", k->text,
			   v->text);
	else
		*(int64_t *)to = when;
}

/* ---- limits ------------------------------------------------------------------------------------- */

static bool take_amount(const char **s, bool octets, uint64_t *out)
{
	static const struct {
		const char *name;
		uint64_t n;
	} unit[] = { { "KiB", 1024 }, { "MiB", 1048576 }, { "GiB", 1073741824 },
		     { "KB", 1000 },  { "MB", 1000000 },  { "GB", 1000000000 },
		     { "B", 1 } };
	if (!take_uint(s, UINT32_MAX, out))
		return false;
	for (size_t i = 0; octets && i < sizeof(unit) / sizeof(unit[0]); i++) {
		size_t n = strlen(unit[i].name);
		if (strncmp(*s, unit[i].name, n) == 0) {
			*s += n;
			*out *= unit[i].n;
			break;
		}
	}
	return *out > 0;
}

static bool take_period(const char **s, uint32_t *out)
{
	static const struct {
		const char *name;
		uint32_t s;
	} period[] = { { "/s", 1 }, { "/min", 60 }, { "/h", 3600 }, { "/day", 86400 } };
	for (size_t i = 0; i < sizeof(period) / sizeof(period[0]); i++) {
		size_t n = strlen(period[i].name);
		if (strncmp(*s, period[i].name, n) == 0 && ((*s)[n] == '\0' || (*s)[n] == ' ')) {
			*s += n;
			*out = period[i].s;
			return true;
		}
	}
	return false;
}

bool parse_limit(const char *s, bool octets, bool concurrent, struct limit *out)
{
	struct limit l = { .set = true };
	if (!take_amount(&s, octets, &l.amount))
		return false;
	l.burst = l.amount;
	if (!concurrent) {
		if (!take_period(&s, &l.period_s))
			return false;
		if (strncmp(s, " burst ", 7) == 0) {
			s += 7;
			if (!take_amount(&s, octets, &l.burst))
				return false;
		}
	}
	if (*s)
		return false;
	*out = l;
	return true;
}

static void read_limit(struct build *b, const struct node *k, const struct node *v, bool octets,
		       struct limit *out)
{
	bool concurrent = strcmp(k->text, "concurrent") == 0;
	if (!want_text(b, v, k->text) || parse_limit(v->text, octets, concurrent, out))
		return;
	diag_error(b->d, v->pos, "bad-limit", "%s must be written as %s, not \"%.40s\"", k->text,
		   concurrent ? "a number"
		   : octets   ? "20MiB/day or 4KiB/min burst 8KiB"
			      : "10/s, 600/min, 1000/h or 5/day, or 20/s burst 40",
		   v->text);
}

#define X(field, key, octets, dflt)                                                                \
	static void limit_##field(struct build *b, const struct node *k, const struct node *v,     \
				  void *to)                                                        \
	{                                                                                          \
		read_limit(b, k, v, octets, to);                                                   \
	}
LIMITS(X)
#undef X

void read_limits(struct build *b, const struct node *k, const struct node *v, void *to)
{
	static const struct key keys[] = {
#define X(field, key, octets, dflt) { key, limit_##field, offsetof(struct limits, field) },
		LIMITS(X)
#undef X
	};
	if (!read_map(b, v, "limits", KEYS(keys), to) || !v->n)
		return;
	use_feature(b, FEATURE_BIT_LIMITS, k->pos);
	if (((struct limits *)to)->upload.set)
		use_feature(b, FEATURE_BIT_TRAFFIC, k->pos);
}

void read_limits_at(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct limits *l = arena_get(b->a, sizeof(*l));
	read_limits(b, k, v, l);
	if (l->concurrent.set || l->bandwidth.set)
		use_feature(b, FEATURE_BIT_TRAFFIC, k->pos);
	*(const struct limits **)to = l;
}

/* ---- prefixes ----------------------------------------------------------------------------------- */

bool read_prefix(struct build *b, const struct node *v, struct prefix *out)
{
	char text[PREFIX_TEXT_SIZE];
	struct prefix p = { 0 };
	if (!want_text(b, v, "a prefix"))
		return false;
	switch (prefix_from_text(&p, v->text, v->n)) {
	case PREFIX_OK:
		*out = p;
		return true;
	case PREFIX_HOST_BITS:
		prefix_to_text(&p, text);
		diag_error(b->d, v->pos, "bad-prefix",
			   "\"%.60s\" has bits set behind its length; did you mean %s?", v->text,
			   text);
		return false;
	case PREFIX_BAD_LEN:
		diag_error(b->d, v->pos, "bad-prefix",
			   "the length of the prefix \"%.60s\" is out of range", v->text);
		return false;
	default:
		diag_error(b->d, v->pos, "bad-prefix",
			   "\"%.60s\" is not an address or prefix such as 192.0.2.0/24 or "
			   "2001:db8::/32",
			   v->text);
		return false;
	}
}
