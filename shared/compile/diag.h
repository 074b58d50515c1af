/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the compiler has to say about its input, collected in one run, sorted by place and printed
 * at the end. Never stops the run by itself, and never prints before all is collected.
 *
 * Ownership: messages and file names are copied.
 * Threads: one thread. Errors: if memory runs out, the list remembers that it is incomplete, and
 * diags_errors() counts this as an error.
 */
#ifndef CX_DIAG_H
#define CX_DIAG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Where something stands: a file (by index), line and column from 1; line 0: the file as a whole.
 */
struct pos {
	uint32_t file;
	uint32_t line;
	uint32_t col;
};

enum diag_severity { DIAG_NOTE, DIAG_WARNING, DIAG_ERROR };

enum diag_format { DIAG_TEXT, DIAG_JSON, DIAG_GITHUB, DIAG_MARKDOWN };

enum { DIAG_MAX_TEXT = 1024 };

struct diags;

/* NULL if there is no memory. */
struct diags *diags_new(void);
void diags_free(struct diags *d);

/* Names a file and returns its index for struct pos. */
uint32_t diags_file(struct diags *d, const char *name);
const char *diags_file_name(const struct diags *d, uint32_t file);

/*
 * Adds one message. `code` is a short stable word (a string literal): it names the kind of finding
 * for
 * --strict=CODE and `lint: {allow: [CODE]}`. Octets that could break a terminal or a line are
 * escaped.
 */
void diag(struct diags *d, struct pos at, enum diag_severity s, const char *code, const char *fmt,
	  ...) __attribute__((format(printf, 5, 6)));
void diag_va(struct diags *d, struct pos at, enum diag_severity s, const char *code,
	     const char *fmt, va_list ap) __attribute__((format(printf, 5, 0)));
void diag_error(struct diags *d, struct pos at, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void diag_warning(struct diags *d, struct pos at, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/*
 * Turns warnings into errors: those whose code is in the comma-separated list, or all if it is
 * NULL. Warnings whose code begins with "date-" stay: a build must not break because time goes by.
 */
void diags_strict(struct diags *d, const char *codes);

unsigned diags_errors(const struct diags *d);
unsigned diags_warnings(const struct diags *d);

/* Sorts by file, line, column and prints all, in one format. */
void diags_print(struct diags *d, FILE *to, enum diag_format format);

#endif
