/* SPDX-License-Identifier: Apache-2.0 */
/* cxctl explain. Returns the exit status: 0 allowed, 1 denied, 2 usage, 3 system. */
#ifndef CX_EXPLAIN_H
#define CX_EXPLAIN_H

int run_explain(int argc, char **argv);

#endif
