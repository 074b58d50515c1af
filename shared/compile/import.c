/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of other programs -> a fragment of a policy (import.h). Must never widen what it imports unsaid. */
#include "shared/compile/import.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/compile/build.h"
#include "shared/compile/out.h"

enum { MAX_WORDS = 256, MAX_LINE = 1 << 16, MAX_ECHO = 80 };

struct found {
	const char *name; /* canonical */
	uint32_t acl;     /* index into acls; of a plain list 0 */
	uint32_t line;
	bool below;
};

struct acl {
	const char *name, *type;
	uint32_t line;
	bool allowed, denied, commented;
};

struct import {
	struct arena arena;
	struct build b; /* for check_wildcard() only */
	struct diags *d;
	const char *path;
	uint32_t line;
	struct found *v;
	size_t n, cap;
	struct acl *acls;
	size_t n_acls, cap_acls;
	struct out losses; /* lines of text */
	uint32_t n_losses;
	bool has_access;
};

/* ---- what is lost ---- */

/* Printable ASCII, cut: it goes into a comment and onto a terminal. */
static const char *echo(struct import *x, const char *s)
{
	size_t n = strlen(s), keep = n < MAX_ECHO ? n : MAX_ECHO;
	char *copy = arena_printf(&x->arena, "%.*s%s", (int)keep, s, n > keep ? "..." : "");
	for (char *c = copy; *c; c++)
		if (*c < 0x20 || *c >= 0x7f)
			*c = '?';
	return copy;
}

static void lose(struct import *x, const char *what, const char *why)
{
	out_printf(&x->losses, "%u: \"%s\": %s\n", x->line, echo(x, what), why);
	x->n_losses++;
}

/* ---- names ---- */

static void add(struct import *x, uint32_t acl, const struct name *n, bool below)
{
	char buf[NAME_TEXT_SIZE];
	x->v = arena_grow(&x->arena, x->v, x->n, &x->cap, sizeof(*x->v));
	x->v[x->n++] = (struct found){ arena_text(&x->arena, buf, name_to_text(n, buf)), acl,
				       x->line, below };
}

/* A wildcard that the language refuses is not handed on. */
static bool may_cover(struct import *x, const struct name *n)
{
	unsigned before = diags_errors(x->d);
	check_wildcard(&x->b, (struct pos){ 0 }, n, "");
	return diags_errors(x->d) == before;
}

enum covers { COVERS_NAME = 1, COVERS_BELOW = 2 };

static void add_name(struct import *x, uint32_t acl, const char *s, size_t len, unsigned covers)
{
	struct name n;
	const char *shown = arena_text(&x->arena, s, len);
	enum name_err e = name_from_text(&n, s, len);
	if (e != NAME_OK) {
		for (size_t i = 0; i < len; i++)
			if ((unsigned char)s[i] >= 0x80) {
				lose(x, shown, "write the xn-- form of this name");
				return;
			}
		lose(x, shown, name_strerror(e));
		return;
	}
	if (covers & COVERS_NAME)
		add(x, acl, &n, false);
	if (!(covers & COVERS_BELOW))
		return;
	if (may_cover(x, &n))
		add(x, acl, &n, true);
	else
		lose(x, shown, "all names below it: that would list the domains of strangers");
}

/* .x is x and all below it; x is x alone. */
static void add_dotted(struct import *x, uint32_t acl, const char *s)
{
	if (s[0] == '.')
		add_name(x, acl, s + 1, strlen(s + 1), COVERS_NAME | COVERS_BELOW);
	else if (strchr(s, '*'))
		lose(x, s, "Squid has no * in dstdomain: this never matched");
	else
		add_name(x, acl, s, strlen(s), COVERS_NAME);
}

/* ---- regular expressions: those that say no more than a name does ---- */

/* x\.y$ without any other special character, into a name. */
static bool plain_of(const char *s, char *to, size_t size)
{
	size_t n = 0;
	for (; *s && strcmp(s, "$") != 0; s++) {
		if (s[0] == '\\' && s[1] == '.')
			s++;
		else if (strchr(".[](){}|?*+^$\\", *s))
			return false;
		if (n + 1 >= size)
			return false;
		to[n++] = *s;
	}
	to[n] = '\0';
	return *s == '$' && n > 0;
}

static void add_regex(struct import *x, uint32_t acl, const char *s)
{
	static const struct {
		const char *head;
		unsigned covers;
	} forms[] = { { "(^|\\.)", COVERS_NAME | COVERS_BELOW },
		      { "(|.*\\.)", COVERS_NAME | COVERS_BELOW },
		      { "^(.*\\.)?", COVERS_NAME | COVERS_BELOW },
		      { "^.*\\.", COVERS_BELOW },
		      { "^", COVERS_NAME },
		      { "\\.", COVERS_BELOW } };
	char name[NAME_MAX_TEXT + 2];
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		size_t n = strlen(forms[i].head);
		if (strncmp(s, forms[i].head, n) == 0 && plain_of(s + n, name, sizeof(name))) {
			add_name(x, acl, name, strlen(name), forms[i].covers);
			return;
		}
	}
	lose(x, s, "a regular expression that is more than a name and what is below it");
}

/* ---- squid.conf ---- */

static uint32_t acl_index(const struct import *x, const char *name)
{
	for (size_t i = 0; i < x->n_acls; i++)
		if (strcasecmp(x->acls[i].name, name) == 0)
			return (uint32_t)i;
	return UINT32_MAX;
}

static uint32_t add_acl(struct import *x, const char *name, const char *type)
{
	uint32_t i = acl_index(x, name);
	if (i != UINT32_MAX)
		return i;
	x->acls = arena_grow(&x->arena, x->acls, x->n_acls, &x->cap_acls, sizeof(*x->acls));
	x->acls[x->n_acls] = (struct acl){ .name = arena_text(&x->arena, name, strlen(name)),
					   .type = arena_text(&x->arena, type, strlen(type)),
					   .line = x->line };
	return (uint32_t)x->n_acls++;
}

static bool is_about_names(const char *type)
{
	return strcmp(type, "dstdomain") == 0 || strcmp(type, "dstdom_regex") == 0 ||
	       strcmp(type, "ssl::server_name") == 0 || strcmp(type, "ssl::server_name_regex") == 0;
}

static void take_acl(struct import *x, char *const *w, unsigned n)
{
	if (n < 3) {
		lose(x, "acl", "an acl without a type");
		return;
	}
	uint32_t acl = add_acl(x, w[1], w[2]);
	if (strcmp(x->acls[acl].type, w[2]) != 0) {
		lose(x, w[1], "this acl has two types");
		return;
	}
	if (!is_about_names(w[2])) {
		if (strcmp(w[2], "dst") == 0)
			lose(x, w[1],
			     "address ranges: a cidr entry needs the ports, which Squid keeps "
			     "elsewhere");
		return;
	}
	bool regex = strstr(w[2], "regex") != NULL;
	for (unsigned i = 3; i < n; i++) {
		if (w[i][0] == '-')
			continue; /* -i, -n: names have no case, and are never looked up backwards */
		if (w[i][0] == '"')
			lose(x, w[i], "names of another file: import that file itself");
		else if (regex)
			add_regex(x, acl, w[i]);
		else
			add_dotted(x, acl, w[i]);
	}
}

static bool is_all(const char *word)
{
	return strcmp(word, "all") == 0;
}

/* A condition beside the names: who asks is what `sources` say, all else changes what is permitted. */
static bool is_about_clients(const struct import *x, const char *word)
{
	uint32_t i = acl_index(x, word);
	return is_all(word) || strcmp(word, "localhost") == 0 || strcmp(word, "localnet") == 0 ||
	       (i != UINT32_MAX &&
		(strcmp(x->acls[i].type, "src") == 0 || strcmp(x->acls[i].type, "srcdomain") == 0));
}

static void take_access(struct import *x, char *const *w, unsigned n)
{
	bool allow = n > 1 && strcmp(w[1], "allow") == 0, clean = true;
	uint32_t names = UINT32_MAX;
	unsigned name_acls = 0;
	x->has_access = true;
	for (unsigned i = 2; i < n; i++) {
		uint32_t acl = acl_index(x, w[i]);
		if (acl != UINT32_MAX && is_about_names(x->acls[acl].type)) {
			names = acl;
			name_acls++;
		} else if (is_about_clients(x, w[i])) {
			if (!is_all(w[i]))
				lose(x, w[i], "who may ask: say so in `sources`");
		} else {
			clean = false;
		}
	}
	if (name_acls == 0) {
		if (allow)
			lose(x, "http_access allow",
			     "a rule that names no names: everything is denied that is not listed");
		else if (!(n == 3 && is_all(w[2])))
			lose(x, "http_access deny", "a rule that names no names");
		return;
	}
	if (name_acls > 1)
		clean = false;
	if (clean && allow)
		x->acls[names].allowed = true;
	else if (clean)
		x->acls[names].denied = true;
	else if (allow)
		x->acls[names].commented = true;
	if (!clean)
		lose(x, x->acls[names].name,
		     allow ? "allowed under conditions that cannot be kept: its names are comments"
			   : "denied under conditions that cannot be kept");
	if (clean && !allow)
		lose(x, x->acls[names].name, "the order of rules: here the longest match decides");
}

static void take_squid(struct import *x, char *const *w, unsigned n, bool conf)
{
	if (strcmp(w[0], "acl") == 0) {
		take_acl(x, w, n);
	} else if (strcmp(w[0], "http_access") == 0) {
		take_access(x, w, n);
	} else if (conf) {
		lose(x, w[0], "a directive that is about no names");
	} else {
		for (unsigned i = 0; i < n; i++)
			add_dotted(x, 0, w[i]);
	}
}

/* ---- plain lists ---- */

static bool is_address(const char *s)
{
	struct addr a;
	return addr_from_text(&a, s, strlen(s));
}

static void take_pattern(struct import *x, const char *s)
{
	size_t n = strlen(s);
	if (strncmp(s, "||", 2) == 0 && n > 3 && s[n - 1] == '^')
		add_name(x, 0, s + 2, n - 3, COVERS_NAME | COVERS_BELOW);
	else if (strncmp(s, "*.", 2) == 0)
		add_name(x, 0, s + 2, n - 2, COVERS_BELOW);
	else if (s[0] == '.')
		add_name(x, 0, s + 1, n - 1, COVERS_NAME | COVERS_BELOW);
	else if (strpbrk(s, "*/^$|!@"))
		lose(x, s, "a pattern that is more than a name and what is below it");
	else
		add_name(x, 0, s, n, COVERS_NAME);
}

static void take_list(struct import *x, char *const *w, unsigned n)
{
	if (w[0][0] == '!')
		return; /* a comment of filter lists */
	if (is_address(w[0]) && n > 1) {
		for (unsigned i = 1; i < n; i++)
			take_pattern(x, w[i]);
		return;
	}
	take_pattern(x, w[0]);
	if (n > 1)
		lose(x, w[1], "what follows the first word of a line");
}

/* ---- the file ---- */

/* The words of a line, which it cuts; what follows # is a comment. */
static unsigned split(char *line, char **w)
{
	unsigned n = 0;
	for (char *s = line + strspn(line, " \t\r\n"); *s && *s != '#' && n < MAX_WORDS;) {
		size_t len = strcspn(s, " \t\r\n");
		w[n++] = s;
		if (!s[len])
			break;
		s[len] = '\0';
		s += len + 1;
		s += strspn(s, " \t\r\n");
	}
	return n;
}

/* Does the file speak squid.conf, or is it a list for one ACL? */
static bool is_conf(FILE *f, char *line)
{
	char *w[MAX_WORDS];
	bool conf = false;
	while (!conf && fgets(line, MAX_LINE, f)) {
		unsigned n = split(line, w);
		conf = n && (strcmp(w[0], "acl") == 0 || strcmp(w[0], "http_access") == 0);
	}
	rewind(f);
	return conf;
}

static void read_lines(struct import *x, FILE *f, enum import_kind kind, char *line)
{
	char *w[MAX_WORDS];
	bool conf = kind == IMPORT_SQUID && is_conf(f, line);
	if (!conf)
		add_acl(x, "list", "dstdomain");
	while (fgets(line, MAX_LINE, f)) {
		x->line++;
		size_t got = strlen(line);
		if (got == MAX_LINE - 1 && line[got - 1] != '\n') {
			lose(x, line, "a line of more than 65535 octets, in pieces");
			continue;
		}
		unsigned n = split(line, w);
		if (n == MAX_WORDS)
			lose(x, w[0], "more than 256 words in a line");
		if (n && kind == IMPORT_SQUID)
			take_squid(x, w, n, conf);
		else if (n)
			take_list(x, w, n);
	}
}

/* ---- the fragment ---- */

static int by_name(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	int c = strcmp(x->name, y->name);
	if (c)
		return c;
	if (x->below != y->below)
		return x->below - y->below;
	return x->line < y->line ? -1 : x->line > y->line;
}

enum part { PART_ALLOW, PART_DENY, PART_COMMENT };

static bool stands_in(const struct import *x, const struct found *f, enum part part)
{
	const struct acl *a = &x->acls[f->acl];
	bool used = a->allowed || a->denied || a->commented;
	switch (part) {
	case PART_ALLOW:
		return x->has_access ? a->allowed : true;
	case PART_DENY:
		return x->has_access && a->denied;
	default:
		return x->has_access && !a->allowed && (a->commented || !used);
	}
}

static size_t put_part(struct import *x, enum part part, const char *key, FILE *to)
{
	static const char *const before[] = { "", "", "# " };
	const struct found *last = NULL;
	size_t n = 0;
	for (size_t i = 0; i < x->n; i++) {
		const struct found *f = &x->v[i];
		if (!stands_in(x, f, part) ||
		    (last && last->below == f->below && strcmp(last->name, f->name) == 0))
			continue;
		if (n++ == 0)
			fputs(key, to);
		last = f;
		fprintf(to, f->below ? "%s    - \"*.%s\"\n" : "%s    - \"%s\"\n", before[part],
			f->name);
	}
	return n;
}

static void put_fragment(struct import *x, FILE *to)
{
	if (x->n)
		qsort(x->v, x->n, sizeof(*x->v), by_name);
	fprintf(to, "# Imported from %s by cx-policyc " CX_VERSION ".\n", echo(x, x->path));
	fputs("# Each name is allowed for https on 443 and http on 80; other ports are said per "
	      "entry.\n",
	      to);
	if (x->n_losses)
		fprintf(to, "# Not kept (%u), by line:\n", x->n_losses);
	for (const char *s = out_get(&x->losses); *s; s += strcspn(s, "\n"), s += *s == '\n')
		fprintf(to, "#   %.*s\n", (int)strcspn(s, "\n"), s);
	fputs("network:\n", to);
	if (put_part(x, PART_ALLOW, "  allowlist:\n", to) == 0)
		fputs("  allowlist: []\n", to);
	put_part(x, PART_DENY, "  deny:\n", to);
	put_part(x, PART_COMMENT,
		 "# names of ACLs that no rule allows, or only under conditions that were not "
		 "kept:\n",
		 to);
}

bool import_find(const char *word, enum import_kind *kind)
{
	*kind = strcmp(word, "squid") == 0 ? IMPORT_SQUID : IMPORT_LIST;
	return *kind == IMPORT_SQUID || strcmp(word, "list") == 0;
}

int policy_import(enum import_kind kind, const char *path, FILE *to, FILE *report)
{
	struct import x = { .path = path, .d = diags_new() };
	FILE *f = fopen(path, "re");
	char *line = malloc(MAX_LINE);
	int rc = f && line && x.d ? 0 : -1, why = errno;
	if (rc == 0) {
		x.b = (struct build){ .a = &x.arena, .d = x.d, .psl = psl_builtin() };
		read_lines(&x, f, kind, line);
		why = errno;
		rc = ferror(f) ? -1 : 0;
	}
	if (rc == 0) {
		put_fragment(&x, to);
		for (const char *s = out_get(&x.losses); *s; s += strcspn(s, "\n"), s += *s == '\n')
			fprintf(report, "%s:%.*s\n", path, (int)strcspn(s, "\n"), s);
		fprintf(report, "%zu names read, %u not kept\n", x.n, x.n_losses);
	}
	if (f)
		fclose(f);
	free(line);
	out_fini(&x.losses);
	diags_free(x.d);
	arena_fini(&x.arena);
	errno = why;
	return rc;
}
