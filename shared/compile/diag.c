/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of findings (diag.h): collected, sorted by place, printed as compilers print them, as JSON,
 * as GitHub annotations or as a Markdown table. Must never let an octet of the input break a line.
 */
#include "shared/compile/diag.h"

#include <stdlib.h>
#include <string.h>

struct finding {
	struct pos at;
	enum diag_severity severity;
	const char *code;
	char *text;
	size_t order;
};

struct diags {
	struct finding *v;
	size_t n, cap;
	char **files;
	uint32_t n_files;
	unsigned count[DIAG_ERROR + 1];
	bool incomplete;
};

struct diags *diags_new(void)
{
	return calloc(1, sizeof(struct diags));
}

void diags_free(struct diags *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n; i++)
		free(d->v[i].text);
	for (uint32_t i = 0; i < d->n_files; i++)
		free(d->files[i]);
	free(d->v);
	free(d->files);
	free(d);
}

uint32_t diags_file(struct diags *d, const char *name)
{
	char **files = realloc(d->files, (d->n_files + 1) * sizeof(*files));
	char *copy = strdup(name);
	if (files)
		d->files = files;
	if (!files || !copy) {
		free(copy);
		d->incomplete = true;
		return 0;
	}
	files[d->n_files] = copy;
	return d->n_files++;
}

const char *diags_file_name(const struct diags *d, uint32_t file)
{
	return file < d->n_files ? d->files[file] : "";
}

/* ---- text that cannot break a line or a terminal ------------------------------------------------ */

/* Octets of one well-formed UTF-8 character that may be printed as it is, or 0. */
static size_t printable(const unsigned char *s)
{
	if (s[0] >= 0x20 && s[0] < 0x7f)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	size_t n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* C1 controls, line and paragraph separators, marks that turn the direction of text */
	if (s[0] == 0xc2 && s[1] < 0xa0)
		return 0;
	if (s[0] == 0xe2 && (s[1] == 0x80 || s[1] == 0x81))
		return s[1] == 0x80 && (s[2] < 0x8b || (s[2] > 0x8f && s[2] < 0xa8)) ? 3 : 0;
	return n;
}

static void clean(char *out, size_t size, const char *in)
{
	size_t len = 0;
	for (const unsigned char *s = (const unsigned char *)in; *s && len + 5 < size;) {
		size_t n = printable(s);
		if (n == 0) {
			len += (size_t)snprintf(out + len, size - len, "\\x%02x", *s++);
			continue;
		}
		memcpy(out + len, s, n);
		len += n;
		s += n;
	}
	out[len] = '\0';
}

/* ---- collecting --------------------------------------------------------------------------------- */

static struct finding *finding_new(struct diags *d)
{
	if (d->n == d->cap) {
		size_t cap = d->cap ? 2 * d->cap : 32;
		struct finding *v = realloc(d->v, cap * sizeof(*v));
		if (!v)
			return NULL;
		d->v = v;
		d->cap = cap;
	}
	return &d->v[d->n];
}

void diag_va(struct diags *d, struct pos at, enum diag_severity s, const char *code,
	     const char *fmt, va_list ap)
{
	char raw[DIAG_MAX_TEXT], text[2 * DIAG_MAX_TEXT];
	vsnprintf(raw, sizeof(raw), fmt, ap);
	clean(text, sizeof(text), raw);
	d->count[s]++;
	struct finding *f = finding_new(d);
	char *copy = strdup(text);
	if (!f || !copy) {
		free(copy);
		d->incomplete = true;
		return;
	}
	*f = (struct finding){ at, s, code, copy, d->n };
	d->n++;
}

void diag(struct diags *d, struct pos at, enum diag_severity s, const char *code, const char *fmt,
	  ...)
{
	va_list ap;
	va_start(ap, fmt);
	diag_va(d, at, s, code, fmt, ap);
	va_end(ap);
}

void diag_error(struct diags *d, struct pos at, const char *code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	diag_va(d, at, DIAG_ERROR, code, fmt, ap);
	va_end(ap);
}

void diag_warning(struct diags *d, struct pos at, const char *code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	diag_va(d, at, DIAG_WARNING, code, fmt, ap);
	va_end(ap);
}

static bool in_list(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *s = list; *s;) {
		size_t len = strcspn(s, ",");
		if (len == n && memcmp(s, word, n) == 0)
			return true;
		s += len + (s[len] == ',');
	}
	return false;
}

void diags_strict(struct diags *d, const char *codes)
{
	for (size_t i = 0; i < d->n; i++) {
		struct finding *f = &d->v[i];
		if (f->severity != DIAG_WARNING || strncmp(f->code, "date-", 5) == 0)
			continue;
		if (codes && !in_list(codes, f->code))
			continue;
		f->severity = DIAG_ERROR;
		d->count[DIAG_WARNING]--;
		d->count[DIAG_ERROR]++;
	}
}

unsigned diags_errors(const struct diags *d)
{
	return d->count[DIAG_ERROR] + (d->incomplete && !d->count[DIAG_ERROR]);
}

unsigned diags_warnings(const struct diags *d)
{
	return d->count[DIAG_WARNING];
}

/* ---- printing ----------------------------------------------------------------------------------- */

static const char *const severity_text[] = { "note", "warning", "error" };

static int compare(const void *x, const void *y)
{
	const struct finding *a = x, *b = y;
	if (a->at.file != b->at.file)
		return a->at.file < b->at.file ? -1 : 1;
	if (a->at.line != b->at.line)
		return a->at.line < b->at.line ? -1 : 1;
	if (a->at.col != b->at.col)
		return a->at.col < b->at.col ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static void print_text(const struct diags *d, const struct finding *f, FILE *to)
{
	char file[DIAG_MAX_TEXT];
	clean(file, sizeof(file), diags_file_name(d, f->at.file));
	fputs(file, to);
	if (f->at.line)
		fprintf(to, ":%u:%u", f->at.line, f->at.col);
	fprintf(to, ": %s: %s [%s]\n", severity_text[f->severity], f->text, f->code);
}

static void print_json_text(const char *s, FILE *to)
{
	putc('"', to);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putc('\\', to);
		putc(*s, to);
	}
	putc('"', to);
}

static void print_json(const struct diags *d, const struct finding *f, FILE *to)
{
	char file[DIAG_MAX_TEXT];
	clean(file, sizeof(file), diags_file_name(d, f->at.file));
	fputs("{\"file\":", to);
	print_json_text(file, to);
	fprintf(to, ",\"line\":%u,\"column\":%u,\"severity\":\"%s\",\"code\":\"%s\",\"message\":",
		f->at.line, f->at.col, severity_text[f->severity], f->code);
	print_json_text(f->text, to);
	putc('}', to);
}

/* GitHub reads %, CR and LF (and, in properties, : and ,) as its own. */
static void print_github_text(const char *s, bool property, FILE *to)
{
	for (; *s; s++) {
		if (*s == '%' || (property && (*s == ':' || *s == ',')))
			fprintf(to, "%%%02X", *s);
		else
			putc(*s, to);
	}
}

static void print_github(const struct diags *d, const struct finding *f, FILE *to)
{
	static const char *const word[] = { "notice", "warning", "error" };
	char file[DIAG_MAX_TEXT];
	clean(file, sizeof(file), diags_file_name(d, f->at.file));
	fprintf(to, "::%s file=", word[f->severity]);
	print_github_text(file, true, to);
	if (f->at.line)
		fprintf(to, ",line=%u,col=%u", f->at.line, f->at.col);
	fprintf(to, ",title=%s::", f->code);
	print_github_text(f->text, false, to);
	putc('\n', to);
}

static void print_cell(const char *s, FILE *to)
{
	for (; *s; s++) {
		if (strchr("|\\`*_<>[]", *s))
			putc('\\', to);
		putc(*s, to);
	}
}

static void print_markdown(const struct diags *d, const struct finding *f, FILE *to)
{
	char file[DIAG_MAX_TEXT];
	clean(file, sizeof(file), diags_file_name(d, f->at.file));
	fputs("| ", to);
	print_cell(file, to);
	fprintf(to, ":%u:%u | %s | %s | ", f->at.line, f->at.col, severity_text[f->severity],
		f->code);
	print_cell(f->text, to);
	fputs(" |\n", to);
}

static void print_all_json(const struct diags *d, FILE *to)
{
	fputs("{\"diagnostics\":[", to);
	for (size_t i = 0; i < d->n; i++) {
		fputs(i ? ",\n " : "\n ", to);
		print_json(d, &d->v[i], to);
	}
	fprintf(to, "%s],\"errors\":%u,\"warnings\":%u}\n", d->n ? "\n" : "", diags_errors(d),
		diags_warnings(d));
}

void diags_print(struct diags *d, FILE *to, enum diag_format format)
{
	static void (*const print[])(const struct diags *, const struct finding *, FILE *) = {
		[DIAG_TEXT] = print_text,
		[DIAG_GITHUB] = print_github,
		[DIAG_MARKDOWN] = print_markdown,
	};
	if (d->n)
		qsort(d->v, d->n, sizeof(*d->v), compare);
	if (format == DIAG_JSON) {
		print_all_json(d, to);
	} else {
		if (format == DIAG_MARKDOWN && d->n)
			fputs("| where | | code | finding |\n|---|---|---|---|\n", to);
		for (size_t i = 0; i < d->n; i++)
			print[format](d, &d->v[i], to);
	}
	if (d->incomplete)
		fputs("cx-policyc: out of memory: the list of findings is not complete\n", stderr);
}
