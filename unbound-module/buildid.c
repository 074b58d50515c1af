/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the build id of the running program from its notes in memory. Must never rely on anything of
 * that program but the ELF format.
 */
#include "unbound-module/buildid.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include "shared/base/bytes.h"

static void put_hex(char *buf, const uint8_t *id, size_t n)
{
	for (size_t i = 0; i < n && 2 * i + 3 <= BUILDID_TEXT_SIZE; i++)
		snprintf(buf + 2 * i, 3, "%02x", id[i]);
}

static uint32_t native32(struct reader *r)
{
	const uint8_t *p = rd_take(r, 4);
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return v;
}

static bool scan_notes(struct reader r, char *buf)
{
	while (r.left && !r.bad) {
		uint32_t namesz = native32(&r);
		uint32_t descsz = native32(&r);
		uint32_t type = native32(&r);
		const uint8_t *name = rd_take(&r, ((size_t)namesz + 3) & ~(size_t)3);
		const uint8_t *desc = rd_take(&r, ((size_t)descsz + 3) & ~(size_t)3);

		if (!name || !desc)
			break;
		if (type == NT_GNU_BUILD_ID && namesz == 4 && !memcmp(name, "GNU", 4)) {
			put_hex(buf, desc, descsz);
			return true;
		}
	}
	return false;
}

/* The first object that is reported is the main program: stop behind it. */
static int visit(struct dl_phdr_info *info, size_t size, void *arg)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type != PT_NOTE)
			continue;
		if (scan_notes(rd_init((const void *)(info->dlpi_addr + ph->p_vaddr), ph->p_memsz),
			       arg))
			break;
	}
	return 1;
}

size_t buildid_of_program(char buf[BUILDID_TEXT_SIZE])
{
	buf[0] = '\0';
	dl_iterate_phdr(visit, buf);
	return strlen(buf);
}
