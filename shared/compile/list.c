/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of names, one a line -> struct name_list. Made for millions of lines: reads in pieces, keeps
 * each name in as many octets as it has, calls no library for plain ASCII. Must never block on a file
 * that is not a regular one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/compile/lint.h"

enum { PIECE = 1 << 20, MAX_LINE = 4096, MAX_REPORTS = 20 };

struct reader_of_list {
	struct build *b;
	struct name_list *list;
	uint8_t *bytes;
	size_t n_bytes, cap_bytes;
	uint32_t *lines;
	size_t n, cap;
	uint32_t line;
	bool allow;
	const char *lift;
	unsigned reports; /* errors so far: a wrong file must not print a million lines */
	bool bad;
};

/* ---- one line ----------------------------------------------------------------------------------- */

static void stop(struct reader_of_list *r, const char *why)
{
	r->bad = true;
	diag_error(r->b->d, (struct pos){ r->list->file, r->line, r->line ? 1 : 0 }, "bad-list",
		   "%s", why);
}

static bool room(struct reader_of_list *r)
{
	if (r->cap_bytes - r->n_bytes < NAME_MAX_WIRE + 2 + ARENA_SLACK) {
		size_t cap = r->cap_bytes ? r->cap_bytes + r->cap_bytes / 2 : 65536;
		uint8_t *p = realloc(r->bytes, cap);
		if (!p)
			return false;
		r->bytes = p;
		r->cap_bytes = cap;
	}
	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap + r->cap / 2 : 4096;
		uint32_t *p = realloc(r->lines, cap * sizeof(*p));
		if (!p)
			return false;
		r->lines = p;
		r->cap = cap;
	}
	return true;
}

/*
 * The plain case: a canonical name from ASCII, straight into place. Returns its wire length, or 0 for
 * everything that is not plainly right: parse_name() looks at that again and says what is wrong.
 */
static size_t fast_name(uint8_t *wire, const char *s, size_t n)
{
	size_t start = 0;
	if (n == 0 || n > NAME_MAX_TEXT)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '.') {
			if (i == start || i - start > NAME_MAX_LABEL)
				return 0;
			wire[start] = (uint8_t)(i - start);
			start = i + 1;
			continue;
		}
		uint8_t c = name_octet[(uint8_t)s[i]];
		if (!c)
			return 0;
		wire[i + 1] = c;
	}
	/* a last label that begins with a digit may be an address in some spelling */
	if (n == start || n - start > NAME_MAX_LABEL || wire[start + 1] <= '9')
		return 0;
	wire[start] = (uint8_t)(n - start);
	return n + 1;
}

static void count_report(struct reader_of_list *r)
{
	if (++r->reports == MAX_REPORTS)
		diag_error(r->b->d, (struct pos){ r->list->file, r->line, 1 }, "bad-list",
			   "too many errors; those of the lines below are not shown");
}

static bool add_odd_name(struct reader_of_list *r, const char *s, size_t n, uint8_t *to,
			 size_t *len)
{
	struct name name;
	struct pos at = { r->list->file, r->line, 1 };
	bool below;
	if (r->reports >= MAX_REPORTS)
		return false;
	if (!parse_name(r->b, at, s, n, &name, &below)) {
		count_report(r);
		return false;
	}
	to[0] = below;
	memcpy(to + 2, name.wire, name.len);
	*len = name.len;
	return true;
}

static void check_list_wildcard(struct reader_of_list *r, const uint8_t *wire, size_t len)
{
	struct name n;
	uint8_t rooted[NAME_MAX_WIRE + 1];
	memcpy(rooted, wire, len);
	rooted[len] = 0;
	if (name_from_wire(&n, rooted, len + 1, NULL) != NAME_OK)
		return;
	unsigned before = diags_errors(r->b->d);
	if (r->reports < MAX_REPORTS)
		check_wildcard(r->b, (struct pos){ r->list->file, r->line, 1 }, &n, r->lift);
	if (diags_errors(r->b->d) != before)
		count_report(r);
}

static void take_name(struct reader_of_list *r, const char *s, size_t n)
{
	if (!room(r)) {
		stop(r, "out of memory");
		return;
	}
	uint8_t *to = r->bytes + r->n_bytes;
	bool below = n > 2 && s[0] == '*' && s[1] == '.';
	size_t skip = below ? 2 : 0;
	size_t plain = s[n - 1] == '.' && n > skip ? n - 1 : n;
	size_t len = fast_name(to + 2, s + skip, plain - skip);
	to[0] = below;
	if (len == 0 && !add_odd_name(r, s, n, to, &len))
		return;
	to[1] = (uint8_t)len;
	if (to[0] && r->allow)
		check_list_wildcard(r, to + 2, len);
	r->n_bytes += len + 2;
	r->lines[r->n++] = r->line;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* A name, wildcard or comment; a comment may follow a name. */
static void take_line(struct reader_of_list *r, const char *s, size_t n)
{
	r->line++;
	while (n && is_space(*s)) {
		s++;
		n--;
	}
	if (n == 0 || *s == '#')
		return;
	size_t len = 0;
	while (len < n && !is_space(s[len]) && s[len] != '#')
		len++;
	size_t i = len;
	while (i < n && is_space(s[i]))
		i++;
	if (i < n && s[i] != '#') {
		if (r->reports >= MAX_REPORTS)
			return;
		diag_error(r->b->d, (struct pos){ r->list->file, r->line, (uint32_t)i + 1 },
			   "bad-list",
			   "one name or wildcard a line; what follows it must be a # comment");
		count_report(r);
		return;
	}
	take_name(r, s, len);
}

/* ---- the file ----------------------------------------------------------------------------------- */

/* Takes all whole lines of buf[0..n); returns how many octets they had. */
static size_t take_lines(struct reader_of_list *r, const char *buf, size_t n)
{
	size_t at = 0;
	while (!r->bad) {
		const char *end = memchr(buf + at, '\n', n - at);
		if (!end)
			break;
		size_t len = (size_t)(end - buf) - at;
		take_line(r, buf + at, len);
		at += len + 1;
	}
	return at;
}

static void read_lines(struct reader_of_list *r, int fd, char *buf)
{
	size_t have = 0;
	uint64_t total = 0;
	while (!r->bad) {
		ssize_t got = read(fd, buf + have, PIECE - have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			stop(r, strerror(errno));
			return;
		}
		total += (uint64_t)got;
		if (total > MODEL_MAX_LIST) {
			stop(r, "the list is larger than 2 GiB");
			return;
		}
		if (total == (uint64_t)got && got >= 3 && memcmp(buf, "\xef\xbb\xbf", 3) == 0)
			memcpy(buf, "   ", 3);
		have += (size_t)got;
		size_t used = take_lines(r, buf, have);
		have -= used;
		memmove(buf, buf + used, have);
		if (got == 0 || have > MAX_LINE)
			break;
	}
	if (have > MAX_LINE && !r->bad) {
		r->line++;
		stop(r, "a line is longer than 4096 octets");
	} else if (have && !r->bad)
		take_line(r, buf, have);
}

static void finish(struct reader_of_list *r)
{
	struct build *b = r->b;
	if (r->bytes)
		memset(r->bytes + r->n_bytes, 0, ARENA_SLACK);
	own(b, r->bytes);
	own(b, r->lines);
	r->list->bytes = r->bytes;
	r->list->n_bytes = r->n_bytes;
	r->list->lines = r->lines;
	r->list->n = r->n;
}

bool read_name_list(struct build *b, const struct node *path, bool allow, const char *lift,
		    const struct name_list **out)
{
	const char *real = path_below(b, path->text, path->pos);
	if (!real)
		return false;
	int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	char *buf = malloc(PIECE);
	if (fd < 0 || !buf || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		diag_error(b->d, path->pos, "file", "%.200s: cannot be read", path->text);
		if (fd >= 0)
			close(fd);
		free(buf);
		return false;
	}
	struct name_list *list = arena_get(b->a, sizeof(*list));
	list->path = path->text;
	list->file = add_file(b, arena_printf(b->a, "%s%s", b->dir_text, path->text), path->text);
	struct reader_of_list r = { .b = b, .list = list, .allow = allow, .lift = lift };
	read_lines(&r, fd, buf);
	close(fd);
	free(buf);
	finish(&r);
	if (r.n == 0 && !r.bad && !r.reports)
		lint_say(b, path->pos, LINT_EMPTY_LIST, lift, "%.200s lists no name", path->text);
	*out = list;
	return !r.bad;
}

/* ---- in the policy itself ----------------------------------------------------------------------- */

struct raw_list {
	const char *path;
	const struct node *names;
};

static void keep_names(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (want_text(b, v, k->text))
		*(const struct node **)to = v;
}

bool read_inline_list(struct build *b, const struct node *v, bool allow, const char *lift,
		      const struct name_list **out)
{
	static const struct key keys[] = {
		{ "path", read_text, offsetof(struct raw_list, path) },
		{ "names", keep_names, offsetof(struct raw_list, names) },
	};
	struct raw_list raw = { 0 };
	if (!read_map(b, v, "a list", KEYS(keys), &raw))
		return false;
	if (!raw.path || !*raw.path || !raw.names) {
		diag_error(b->d, v->pos, "missing-key",
			   "a list in the policy itself needs `path` and `names`");
		return false;
	}
	struct name_list *list = arena_get(b->a, sizeof(*list));
	*list = (struct name_list){ .path = raw.path, .file = raw.names->pos.file };
	/* the lines of the block begin below the key */
	struct reader_of_list r = {
		.b = b, .list = list, .allow = allow, .lift = lift, .line = raw.names->pos.line
	};
	size_t used = take_lines(&r, raw.names->text, raw.names->n);
	if (used < raw.names->n && !r.bad)
		take_line(&r, raw.names->text + used, raw.names->n - used);
	finish(&r);
	if (r.n == 0 && !r.bad && !r.reports)
		lint_say(b, v->pos, LINT_EMPTY_LIST, lift, "%.200s lists no name", raw.path);
	*out = list;
	return !r.bad;
}
