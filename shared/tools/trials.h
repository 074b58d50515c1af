/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tests:` of a policy, asked of the bytes that are about to be written. Must never open a file or ask
 * anything but verdict().
 */
#ifndef CX_TRIALS_H
#define CX_TRIALS_H

#include "shared/compile/compile.h"

struct trials {
	uint32_t passed, failed;
	uint32_t reached, entries; /* with coverage: of the operator's own entries */
};

/*
 * Runs the tests of m against bytes[0..len), what m was laid out as; each failure is an error at the
 * test's line. With coverage, a note for each entry that decided no test. False if the bytes are not
 * a policy, which is said, too.
 */
bool trials_run(const struct model *m, const uint8_t *bytes, size_t len, int64_t now_s,
		bool coverage, struct trials *out);

#endif
