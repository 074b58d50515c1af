/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON Schema (2020-12) of the policy language, for editors and for who generates policies. It accepts
 * whatever the compiler accepts; what only the compiler can know (that a profile exists, that a wildcard
 * covers no public suffix) it lets pass.
 *
 * Threads: any. Errors: out of memory ends the program (arena.h).
 */
#ifndef CX_SCHEMA_H
#define CX_SCHEMA_H

#include <stdio.h>

void schema_print(FILE *to);

#endif
