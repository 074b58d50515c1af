/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that grows, and the forms in which strings go into other languages: YAML, JSON. A string can
 * never end what it stands in.
 *
 * Ownership: out_fini() frees. Threads: one. Errors: out of memory ends the program (arena.h).
 */
#ifndef CX_OUT_H
#define CX_OUT_H

#include <stddef.h>
#include <stdint.h>

#include "shared/base/addr.h"
#include "shared/compile/compile.h"

struct out {
	char *p; /* NUL-terminated once something was put; NULL before */
	size_t n, cap;
};

void out_fini(struct out *o);
void out_bytes(struct out *o, const char *s, size_t n);
void out_text(struct out *o, const char *s);
void out_printf(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What was put, or "". */
const char *out_get(const struct out *o);

/* One scalar of YAML, right in block and flow: plain where nobody could read it otherwise. */
void out_yaml(struct out *o, const char *s, size_t n);
/* One JSON string with its quotes. */
void out_json(struct out *o, const char *s, size_t n);
/* As [a, b]; each an out_yaml(). */
void out_yaml_list(struct out *o, const char *const *v, uint32_t n);
/* "key=value\n" lines as {key: value}. */
void out_yaml_labels(struct out *o, const char *lines);

void out_prefix(struct out *o, const struct prefix *p);
/* As {connections: 50/s burst 100, ...}; those that are set. */
void out_limits(struct out *o, const struct limits *l);
/* YYYY-MM-DDTHH:MM:SSZ */
void out_time(struct out *o, int64_t s);
/* A, AAAA, ... or TYPE65. */
void out_qtype(struct out *o, uint16_t type);

#endif
