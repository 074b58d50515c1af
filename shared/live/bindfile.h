/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bindings as they lie in the file: for bind.c, which reads, and bindwrite.c, which writes.
 * Everything that changes is atomic; the file is never truncated and never grows.
 */
#ifndef CX_BINDFILE_H
#define CX_BINDFILE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/live/bind.h"

#define BIND_MAGIC "CXBIND01"

enum {
	BIND_FORMAT = 1,
	BIND_SLOTS = 1 << 19, /* each row takes three at most: two addresses and the task */
	BIND_BODY_WORDS = 255,
	BIND_BOOT_ID_SIZE = 40
};

struct bind_header {
	char magic[8];
	uint32_t format;
	uint32_t rows;
	uint32_t slots;
	uint32_t row_size;
	char boot_id[BIND_BOOT_ID_SIZE];
	_Atomic uint64_t next_generation;
	_Atomic uint64_t index_version; /* moves before every change of the index */
	_Atomic uint64_t lens[3];       /* bit n: some row has a prefix of n bits */
	uint64_t used_count;            /* the rest is the writer's */
	_Atomic uint32_t dirty;         /* a change was begun and not ended */
	uint32_t len_count[129];
	uint64_t used[BIND_ROWS / 64]; /* bit n: row n is not free */
};

struct bind_stored {
	_Atomic uint64_t version; /* its lowest bit says which body holds */
	_Atomic uint64_t body[2][BIND_BODY_WORDS];
	uint64_t zero;
};

static_assert(sizeof(struct bind_stored) == 4096, "a row is a page");
static_assert(sizeof(struct bind_row) <= BIND_BODY_WORDS * 8, "a row's copy fits its body");
static_assert(sizeof(struct bind_row) % 8 == 0, "copied in words");

/* What a slot of the index refers to: 0, or 1 + (row << 2 | kind). Kinds below 2 are addresses. */
enum { BIND_KIND_TASK = 2 };

struct bind_image {
	struct bind_header h;
	_Alignas(4096) _Atomic uint32_t index[BIND_SLOTS];
	_Alignas(4096) struct bind_stored rows[BIND_ROWS];
};

struct bind_table {
	struct bind_image *map;
	dev_t dev;
	ino_t ino;
};

/* Reads a row; false if it kept changing. */
bool bind_load(const struct bind_image *m, uint32_t row, struct bind_row *out);

uint32_t bind_hash_addr(const struct addr *a, uint8_t len);
uint32_t bind_hash_task(const char *task);
struct addr bind_mask(const struct addr *a, uint8_t len);

/* The id that the kernel gave this boot. */
bool bind_boot_id(char out[BIND_BOOT_ID_SIZE]);
/* Opens DIR/bindings and judges it; -1 with a reason, and errno: EINVAL for one not to be trusted. */
int bind_open_file(const char *dir, int flags, dev_t *dev, ino_t *ino, char *why);
/* Is it a table of this format and boot? */
bool bind_image_ok(const struct bind_image *m, char *why);

#endif
