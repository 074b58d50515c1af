/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands of cxctl that give addresses to tasks: each takes its own arguments, argv[0] its name. */
#ifndef CX_BINDCMD_H
#define CX_BINDCMD_H

int run_bind(int argc, char **argv);
int run_rebind(int argc, char **argv);
int run_unbind(int argc, char **argv);
int run_bindings(int argc, char **argv);

#endif
