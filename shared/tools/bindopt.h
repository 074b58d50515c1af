/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the subcommands about bindings share: options and JSON lines into orders, results into lines.
 * Private to bindcmd.c and bindings.c. Threads: one thread. Texts in orders are copied.
 */
#ifndef CX_BINDOPT_H
#define CX_BINDOPT_H

#include <json-c/json.h>

#include "shared/tools/binding.h"

struct options {
	struct binding_options host;
	struct binding_order order;
	const char *group;
	bool batch, json;
};

int bindopt_usage(const char *what, const char *arg);
int bindopt_parse(struct options *o, int argc, char **argv);
struct binding_host *bindopt_open_host(const struct options *o);
int bindopt_flushed(int rc);
void bindopt_put_text(struct json_object *o, const char *key, const char *value);
void bindopt_put_number(struct json_object *o, const char *key, uint64_t value);
bool bindopt_print_line(struct json_object *o);
bool bindopt_read_order(struct binding_order *o, struct json_object *in, char *why);
const char *bindopt_missing_of_bind(const struct binding_order *o);

#endif
