/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: which connections of clients the agent has allowed, and what for, so that they can be judged
 * again when the policy changes and ended if it no longer allows them. A table in a file of fixed size,
 * DIR/0 to DIR/7: one agent writes one file, `cxctl cut` reads them all. Only remembers: it never decides
 * and never ends anything.
 *
 * A stream is known by the client's end of the connection and by where the client wanted to go. A row
 * whose connection is gone is marked by the reader, who knows the sockets of the host; its place is
 * then free. Where a set is full, its oldest row goes and is counted: HAProxy's maxconn keeps the
 * connections far below the places.
 *
 * Writing: any thread of the one process that holds the file's lock. The file outlives its writer, as
 * the connections do. A row carries a checksum that is written last: a writer that dies in the middle
 * leaves a row that nobody believes, and a reader needs no lock.
 *
 * Reading: with read(2), never mapped, since a writer less trusted than the reader could cut the file
 * short. All fields of a row that was read are in range.
 *
 * The directory must belong to root or to the writer, and the one above to root or the writer as well.
 */
#ifndef CX_STREAM_H
#define CX_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/policy/verdict.h"

#define STREAM_DIR "streams" /* in the runtime directory */

enum {
	STREAM_ROWS = 16384,
	STREAM_FILES = 8, /* agents that may run at once */
	STREAM_NAMES = 8, /* that one destination may be pinned to */
	STREAM_TEXT_SIZE = 520,
	STREAM_RULE_SIZE = 13,
	STREAM_WHY_SIZE = 160
};

struct streams;

/* One allowed connection. Pointers are borrowed. */
struct stream {
	enum layer layer; /* TLS, HTTP or TCP */
	struct addr src, dst;
	uint16_t src_port, dst_port; /* dst_port: the port that the client connected to */
	uint16_t port;               /* the port that was judged, and connected to */
	bool has_to;
	struct addr to; /* the address connected to */
	uint64_t generation;
	uint64_t since_ns; /* CLOCK_BOOTTIME */
	bool ech;
	bool named;                  /* TCP: names[0] is what a CONNECT named, not what DNS said */
	char rule[STREAM_RULE_SIZE]; /* that allowed it */
	unsigned n_names; /* TLS, HTTP, named: 1; else the names the destination is pinned to */
	const struct name *names;
	bool cut_short; /* HTTP: method, path or upgrade did not fit, and there are none */
	const char *method, *path, *upgrade;
	size_t method_len, path_len, upgrade_len;
};

/*
 * For writing: takes the first of the files that nobody has, and makes it where it is missing. NULL
 * and one sentence in why (STREAM_WHY_SIZE) if that cannot be.
 */
struct streams *streams_create(const char *runtime_dir, char *why);
void streams_close(struct streams *s);

/* Names and texts that do not fit are left out. False: a row of another stream had to go. */
bool streams_put(struct streams *s, const struct stream *r);

/* All rows of all files, read at once. */
struct stream_view;

/* NULL and one sentence in why. A directory that is not there is an empty view. */
struct stream_view *stream_view_open(const char *runtime_dir, char *why);
void stream_view_close(struct stream_view *v);
/* Reads the files again. False with one sentence in why; what was read is then empty. */
bool stream_view_read(struct stream_view *v, char *why);

/* Places 0 to stream_view_size() - 1. */
size_t stream_view_size(const struct stream_view *v);
/*
 * The row at a place, its names in the caller's memory; its texts live as long as the view is not read
 * again. False: there is none.
 */
bool stream_view_get(const struct stream_view *v, size_t at, struct stream *out,
		     struct name names[STREAM_NAMES]);
/* A number that tells this row from whatever else comes to stand at this place. */
uint64_t stream_view_id(const struct stream_view *v, size_t at);
/* Is a newer row of the same client's address and port in the view? */
bool stream_view_is_older(const struct stream_view *v, size_t at);
/* The row's connection is gone: its place is free, unless it was written anew meanwhile. */
void stream_view_mark_gone(struct stream_view *v, size_t at);

#endif
