/* SPDX-License-Identifier: Apache-2.0 */
/* `cxctl check-haproxy`: mistakes in a HAProxy configuration that open the gate. */
#ifndef CX_HAPROXYCHECK_H
#define CX_HAPROXYCHECK_H

/* Exit status: 0 nothing found, 1 found something, 2 usage, 3 a file cannot be read. */
int run_check_haproxy(int argc, char **argv);

#endif
