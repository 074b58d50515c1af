/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommand of cxctl that ends connections: takes its own arguments, argv[0] its name. */
#ifndef CX_CUTCMD_H
#define CX_CUTCMD_H

int run_cut(int argc, char **argv);

#endif
