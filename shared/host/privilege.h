/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a daemon keeps of its rights: descriptors as many as it may have, and no more privileges than
 * its user. To be called before there are threads.
 */
#ifndef CX_PRIVILEGE_H
#define CX_PRIVILEGE_H

#include <stdbool.h>

struct passwd;

/* Raises the soft limit of open files towards n, as far as the hard one goes. */
void privilege_raise_files(unsigned n);
/*
 * Becomes the user for good (NULL: stays who it is), and from then on execve() gains nothing. False:
 * errno says why; the process must end.
 */
bool privilege_drop(const struct passwd *pw);

#endif
