/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The build id of the running program: the linker's fingerprint of exactly this binary. Any thread.
 */
#ifndef CX_BUILDID_H
#define CX_BUILDID_H

#include <stddef.h>

enum { BUILDID_TEXT_SIZE = 129 };

/*
 * Writes the build id of the main program (not of the object that this code stands in) as lower-case
 * hex digits and NUL; "" if it has none. Returns the number of digits.
 */
size_t buildid_of_program(char buf[BUILDID_TEXT_SIZE]);

#endif
