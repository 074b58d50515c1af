/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cxctl: the operator's tool. One table of subcommands; each parses its own options. Never decides:
 * it asks the same verdict() as the plugins.
 */
#include <stdio.h>
#include <string.h>

#include "shared/tools/bindcmd.h"
#include "shared/tools/cutcmd.h"
#include "shared/tools/explain.h"
#include "shared/tools/haproxycheck.h"

enum { EXIT_OK, EXIT_USAGE = 2 };

struct subcommand {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *synopsis;
};

static int usage(const char *fmt, const char *arg)
{
	fputs("cxctl: ", stderr);
	fprintf(stderr, fmt, arg); /* the formats are literals of this file */
	fputs("\nTry 'cxctl --help'.\n", stderr);
	return EXIT_USAGE;
}

static const struct subcommand subcommands[] = {
	{ "explain", run_explain, "what the policy answers a client, and which entry decides" },
	{ "bind", run_bind, "gives an address to a task" },
	{ "rebind", run_rebind, "changes what a task may reach while it runs" },
	{ "unbind", run_unbind, "takes an address back, with all that is open on it" },
	{ "bindings", run_bindings, "all bindings: list, sync FILE, expire, restore, init" },
	{ "cut", run_cut, "ends connections, on demand or when the policy changes" },
	{ "check-haproxy", run_check_haproxy,
	  "mistakes in a HAProxy configuration that open the gate" },
};

static int help(FILE *to)
{
	fputs("usage: cxctl SUBCOMMAND ...\n\n", to);
	for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
		fprintf(to, "  %-14s %s\n", subcommands[i].name, subcommands[i].synopsis);
	fputs("\n'cxctl SUBCOMMAND --help' says more; cxctl --version tells the version.\n", to);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return help(stdout);
	if (strcmp(argv[1], "--version") == 0) {
		puts("cxctl " CX_VERSION);
		return EXIT_OK;
	}
	for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
		if (strcmp(argv[1], subcommands[i].name) == 0)
			return subcommands[i].run(argc - 1, argv + 1);
	return usage("unknown subcommand: %s", argv[1]);
}
