/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `cxctl check-haproxy`: reads HAProxy configurations and SPOE files as text, line by line, and reports
 * what is known to open the gate. It is no parser of HAProxy's language (`haproxy -c` is) and proves
 * nothing: it must never say that a file is safe, only that it found none of these mistakes.
 */
#include "shared/tools/haproxycheck.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_FINE, EXIT_FOUND, EXIT_USAGE, EXIT_SYSTEM };
enum { LINE_SIZE = 8192, NAME_SIZE = 128, MAX_SECTIONS = 512 };
enum kind { KIND_OTHER, KIND_DEFAULTS, KIND_FRONTEND, KIND_BACKEND, KIND_SPOE_MESSAGE };

struct section {
	enum kind kind;
	char name[NAME_SIZE];
	char route[NAME_SIZE]; /* the last backend that it names */
	const char *file;
	unsigned line, any_line; /* of the section; of a server at 0.0.0.0 */
	bool http, spop, never_reuse, spop_check, delay, asks, asked, allows, sets_dst,
		content_asks;
	unsigned asks_line;
};

struct check {
	const char *file;
	unsigned line;
	char text[LINE_SIZE];
	struct section sections[MAX_SECTIONS];
	unsigned n;
	struct section *s; /* the one that is read, NULL before the first */
	unsigned found;
	bool unreadable;
};

static void report_at(struct check *c, const char *file, unsigned line, size_t col,
		      const char *code, const char *why)
{
	printf("%s:%u:%zu: error: %s [%s]\n", file, line, col, why, code);
	c->found++;
}

static void report(struct check *c, const char *at, const char *code, const char *why)
{
	report_at(c, c->file, c->line, (size_t)(at - c->text) + 1, code, why);
}

/* The text at `s` starts with this word. */
static bool word(const char *s, const char *w)
{
	size_t n = strlen(w);
	return strncmp(s, w, n) == 0 && (s[n] == '\0' || s[n] == ' ' || s[n] == '\t');
}

static const char *skip_blank(const char *s)
{
	return s + strspn(s, " \t");
}

static void copy_word(char to[NAME_SIZE], const char *s)
{
	snprintf(to, NAME_SIZE, "%.*s", (int)strcspn(s, " \t"), s);
}

/* Is it one of the actions that refuse? */
static bool refuses(const char *s)
{
	return strstr(s, " reject") || strstr(s, " deny") || strstr(s, "silent-drop");
}

/* ---- one line ---- */

static void check_tests(struct check *c, const char *s)
{
	const char *at = strstr(s, "cx.verdict) -m str deny");
	if (at)
		report(c, at, "deny-test",
		       "asks for `deny`: where the agent says nothing, this passes; refuse unless "
		       "it is "
		       "`allow`");
	at = strstr(s, "cx.error)");
	if (at && refuses(s) && strncmp(s, "log-format", 10) != 0)
		report(c, at, "error-test",
		       "asks for an error: an empty answer is none; refuse unless the verdict is "
		       "`allow`");
	for (at = strstr(s, "sess.cx."); at; at = strstr(at + 1, "sess.cx."))
		if (strncmp(at, "sess.cx.bind", 12) != 0)
			report(c, at, "sess-scope",
			       "an answer in scope sess serves the next request of the connection, "
			       "too; "
			       "use txn");
	at = strstr(s, "_cur gt");
	at = at ? at : strstr(s, "_rate gt");
	if (at && refuses(s) && strstr(s, " if "))
		report(c, at, "refuse-if-over",
		       "a full table has no entry to be over: write it as reject unless under");
}

static void check_names(struct check *c, const char *s)
{
	for (const char *at = strstr(s, "hdr(host"); at; at = strstr(at + 1, "hdr(host"))
		if (at == s || (at[-1] != 'f' && at[-1] != '_'))
			report(c, at, "hdr-host",
			       "takes the last of several names in one Host field; use "
			       "req.fhdr(host)");
	const char *sni = strstr(s, "req.ssl_sni");
	if (!sni || strncmp(s, "log-format", 10) == 0)
		return;
	if (c->s && c->s->kind == KIND_SPOE_MESSAGE && strstr(s, "hello="))
		return;
	report(c, sni, "sni-alone",
	       "HAProxy's reading of the name can differ from the server's; the agent needs the "
	       "hello "
	       "(req.payload(0,0)) and its answer decides");
}

static void check_groups(struct check *c, const char *s)
{
	struct section *x = c->s;
	const char *at = strstr(s, "send-spoe-group");
	if (strstr(s, "unset-var(txn.cx.verdict)"))
		x->asked = false;
	if (!at)
		return;
	if (x->asked)
		report(c, at, "no-unset-var",
		       "a second question without unset-var(txn.cx.verdict) before it: if it is "
		       "not "
		       "answered, the first answer stands");
	x->asked = x->asks = true;
	x->content_asks |= word(s, "tcp-request");
	if (!x->asks_line)
		x->asks_line = c->line;
}

static bool is_any_server(const char *s)
{
	return word(s, "server") && (strstr(s, " 0.0.0.0") || strstr(s, " *:") ||
				     strstr(s, " [::]:") || strstr(s, " ::"));
}

/* What the end of a section is judged by. */
static void note(struct check *c, const char *s)
{
	struct section *x = c->s;
	if (word(s, "mode")) {
		x->http = word(skip_blank(s + 4), "http");
		x->spop |= word(skip_blank(s + 4), "spop");
	}
	if (word(s, "http-reuse"))
		x->never_reuse = word(skip_blank(s + 10), "never");
	x->spop_check |= strncmp(s, "option spop-check", 17) == 0;
	x->delay |= strncmp(s, "tcp-request inspect-delay", 25) == 0;
	x->allows |= strstr(s, "cx.verdict) -m str allow") || strstr(s, "cx.verdict) -m str next");
	x->sets_dst |= strstr(s, "set-dst ") != NULL;
	if (word(s, "default_backend"))
		copy_word(x->route, skip_blank(s + 15));
	if (is_any_server(s))
		x->any_line = c->line;
}

/* ---- sections ---- */

static struct section *find(struct check *c, enum kind kind, const char *name)
{
	for (unsigned i = c->n; i-- > 0;)
		if (c->sections[i].kind == kind && strcmp(c->sections[i].name, name) == 0)
			return &c->sections[i];
	return NULL;
}

/* defaults NAME: the named ones, or those that stand last above. */
static void inherit(struct check *c, struct section *x, const char *s)
{
	char name[NAME_SIZE] = "";
	const char *from = strstr(s, " from ");
	struct section *d = NULL;
	if (from) {
		copy_word(name, skip_blank(from + 6));
		d = find(c, KIND_DEFAULTS, name);
	} else {
		for (unsigned i = 0; i + 1 < c->n; i++)
			if (c->sections[i].kind == KIND_DEFAULTS && !c->sections[i].name[0])
				d = &c->sections[i];
	}
	if (!d)
		return;
	x->http = d->http;
	x->never_reuse = d->never_reuse;
}

/* Does the line begin a section? */
static bool begin(struct check *c, const char *s)
{
	static const struct {
		const char *word;
		enum kind kind;
	} kinds[] = {
		{ "global", KIND_OTHER },      { "defaults", KIND_DEFAULTS },
		{ "frontend", KIND_FRONTEND }, { "listen", KIND_BACKEND },
		{ "backend", KIND_BACKEND },   { "resolvers", KIND_OTHER },
		{ "peers", KIND_OTHER },       { "cache", KIND_OTHER },
		{ "ring", KIND_OTHER },        { "userlist", KIND_OTHER },
		{ "program", KIND_OTHER },     { "http-errors", KIND_OTHER },
		{ "spoe-agent", KIND_OTHER },  { "spoe-message", KIND_SPOE_MESSAGE },
		{ "spoe-group", KIND_OTHER },  { "log-forward", KIND_OTHER },
		{ "mailers", KIND_OTHER },     { "fcgi-app", KIND_OTHER },
	};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!word(s, kinds[i].word) || c->n == MAX_SECTIONS)
			continue;
		struct section *x = &c->sections[c->n++];
		*x = (struct section){ .kind = kinds[i].kind, .file = c->file, .line = c->line };
		copy_word(x->name, skip_blank(s + strlen(kinds[i].word)));
		if (strcmp(x->name, "from") == 0)
			x->name[0] = '\0';
		if (x->kind != KIND_OTHER && x->kind != KIND_SPOE_MESSAGE)
			inherit(c, x, s);
		c->s = x;
		return true;
	}
	return false;
}

static void read_line(struct check *c)
{
	char *end = c->text + strcspn(c->text, "\r\n");
	*end = '\0';
	const char *s = skip_blank(c->text);
	if (*s == '\0' || *s == '#' || *s == '.' || *s == '[' || begin(c, s) || !c->s)
		return;
	check_tests(c, s);
	check_names(c, s);
	check_groups(c, s);
	note(c, s);
}

static void end_section(struct check *c, const struct section *x)
{
	if (x->asks && !x->allows)
		report_at(
			c, x->file, x->asks_line, 1, "no-allow-test",
			"asks the agent, and no rule of the section refuses unless the verdict is "
			"`allow`");
	if (x->content_asks && !x->delay)
		report_at(c, x->file, x->asks_line, 1, "no-inspect-delay",
			  "a question under tcp-request content needs tcp-request inspect-delay: "
			  "without "
			  "it nobody waits for the answer");
	if (x->spop_check && !x->spop)
		report_at(
			c, x->file, x->line, 1, "agent-mode",
			"the agent's backend needs `mode spop` from HAProxy 3.1 on (.if "
			"version_atleast(3.1)): with `mode tcp` each question opens a connection");
	if (x->kind == KIND_BACKEND && x->http && x->any_line && !x->never_reuse)
		report_at(c, x->file, x->any_line, 1, "http-reuse",
			  "without `http-reuse never` a client's request can travel on another's "
			  "connection");
}

/* Who is sent to a server that stands for the stream's destination must have set that. */
static void check_destinations(struct check *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		const struct section *b = &c->sections[i];
		bool set = b->sets_dst, used = false;
		if (b->kind != KIND_BACKEND || !b->any_line || set)
			continue;
		for (unsigned k = 0; k < c->n; k++) {
			const struct section *f = &c->sections[k];
			if (f->kind != KIND_FRONTEND || strcmp(f->route, b->name) != 0)
				continue;
			used = true;
			if (!f->sets_dst)
				report_at(
					c, f->file, f->line, 1, "no-set-dst",
					"its connections go to 0.0.0.0, which is where the client "
					"wanted to go: set-dst var(txn.cx.addr) is missing");
		}
		if (!used)
			report_at(c, b->file, b->any_line, 1, "no-set-dst",
				  "the server stands for where the client wanted to go, and no "
				  "frontend that is seen here sets that");
	}
}

static void read_file(struct check *c, const char *path)
{
	FILE *f = fopen(path, "re");
	if (!f) {
		fprintf(stderr, "cxctl: %s: %s\n", path, strerror(errno));
		c->unreadable = true;
		return;
	}
	c->file = path;
	c->line = 0;
	c->s = NULL;
	while (fgets(c->text, sizeof(c->text), f)) {
		c->line++;
		if (!strchr(c->text, '\n') && !feof(f)) {
			report(c, c->text, "long-line", "the line is too long to be checked");
			while (fgets(c->text, sizeof(c->text), f) && !strchr(c->text, '\n'))
				;
			continue;
		}
		read_line(c);
	}
	c->unreadable |= ferror(f) != 0;
	fclose(f);
}

static int usage(FILE *to)
{
	fputs("usage: cxctl check-haproxy FILE...\n\n"
	      "Looks for mistakes that open the gate in HAProxy configurations and SPOE files, "
	      "which are\n"
	      "read together, as haproxy does with several -f. See cxctl(1) for what it looks "
	      "for.\n"
	      "Exit: 0 none found, 1 found, 2 usage, 3 a file cannot be read.\n",
	      to);
	return to == stdout ? EXIT_FINE : EXIT_USAGE;
}

int run_check_haproxy(int argc, char **argv)
{
	static struct check c; /* too large for a stack */
	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return usage(stdout);
	if (argc < 2 || argv[1][0] == '-')
		return usage(stderr);
	for (int i = 1; i < argc; i++)
		read_file(&c, argv[i]);
	for (unsigned i = 0; i < c.n; i++)
		end_section(&c, &c.sections[i]);
	check_destinations(&c);
	if (c.n == MAX_SECTIONS)
		report_at(&c, c.file, 1, 1, "too-many", "more sections than can be checked");
	return c.unreadable ? EXIT_SYSTEM : c.found ? EXIT_FOUND : EXIT_FINE;
}
