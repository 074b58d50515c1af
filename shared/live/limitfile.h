/* SPDX-License-Identifier: Apache-2.0 */
/* A table of limits as it lies in its file: for limit.c, which uses it, and limitfile.c, which maps it. */
#ifndef CX_LIMITFILE_H
#define CX_LIMITFILE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/live/limit.h"

#define LIMIT_MAGIC "CXLIMIT1"
#define LIMIT_FILE  "table"

enum {
	LIMIT_BUCKET = 4,          /* cells: two cache lines */
	LIMIT_MAX_CELLS = 1 << 26, /* 2 GiB */
	LIMIT_BOOT_ID = 40
};

struct limit_cell {
	_Atomic uint64_t key; /* 0: never used */
	_Atomic uint64_t clock[LIMIT_CLOCKS];
};

static_assert(sizeof(struct limit_cell) == LIMIT_CELL_SIZE, "cell layout");

struct limit_image {
	char magic[8];
	uint32_t cells;
	uint32_t cell_size;
	uint64_t seed[4];
	char boot_id[LIMIT_BOOT_ID];
	_Alignas(4096) struct limit_cell cell[];
};

struct limits {
	struct limit_image *map;
	uint64_t buckets; /* a power of two */
	size_t size;
	bool in_file;
	dev_t dev;
	ino_t ino;
};

#endif
