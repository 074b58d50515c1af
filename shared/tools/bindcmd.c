/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cxctl bind, rebind, unbind: options and JSON lines into orders (binding.h), results into lines and
 * exit statuses. Decides nothing.
 */
#include "shared/tools/bindcmd.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/tools/binding.h"
#include "shared/tools/bindopt.h"

#define DEFAULT_POLICY "/var/lib/cx/policy.bin"
#define DEFAULT_DIR    "/run/cx"
#define DEFAULT_GROUP  "cx"

enum { MAX_TTL_S = 315360000, MAX_WAIT_MS = 3600000, MAX_LINE = 65536 };

int bindopt_usage(const char *what, const char *arg)
{
	fprintf(stderr, "cxctl: %s%s%s\nTry 'cxctl --help'.\n", what, arg ? ": " : "",
		arg ? arg : "");
	return BINDING_USAGE;
}

/* ---- times ---- */

/* 500ms, 90s, 10m, 2h, 1d, in milliseconds. */
static bool parse_duration(const char *s, uint64_t max_ms, uint64_t *out)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 }
	};
	char *end;
	errno = 0;
	if (*s < '0' || *s > '9')
		return false;
	unsigned long long v = strtoull(s, &end, 10);
	for (size_t i = 0; errno == 0 && i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].unit) == 0 && v <= max_ms / units[i].ms) {
			*out = v * units[i].ms;
			return true;
		}
	return false;
}

static bool set_ttl(struct binding_order *o, const char *s, char why[BINDING_WHY_SIZE])
{
	uint64_t ms;
	if (!parse_duration(s, MAX_TTL_S * UINT64_C(1000), &ms) || ms < 1000) {
		snprintf(why, BINDING_WHY_SIZE, "not a time such as 90s, 10m or 2h: %.100s", s);
		return false;
	}
	o->has_ttl = true;
	o->ttl_s = ms / 1000;
	return true;
}

/* ---- options ---- */

enum {
	OPT_ONLY = 256,
	OPT_ADD,
	OPT_TTL,
	OPT_TASK,
	OPT_PROFILE,
	OPT_IF,
	OPT_BATCH,
	OPT_CUT,
	OPT_WAIT,
	OPT_JSON,
	OPT_NO_NFT,
	OPT_GROUP,
	OPT_HELP
};

static const struct option longs[] = {
	{ "only", required_argument, NULL, OPT_ONLY },
	{ "add", required_argument, NULL, OPT_ADD },
	{ "ttl", required_argument, NULL, OPT_TTL },
	{ "task", required_argument, NULL, OPT_TASK },
	{ "profile", required_argument, NULL, OPT_PROFILE },
	{ "if", required_argument, NULL, OPT_IF },
	{ "batch", no_argument, NULL, OPT_BATCH },
	{ "cut", no_argument, NULL, OPT_CUT },
	{ "wait", required_argument, NULL, OPT_WAIT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "no-nft", no_argument, NULL, OPT_NO_NFT },
	{ "group", required_argument, NULL, OPT_GROUP },
	{ "policy", required_argument, NULL, 'p' },
	{ "runtime", required_argument, NULL, 'r' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static const char help_text[] =
	"usage: cxctl bind ADDR[,ADDR6/LEN] --if LINK --task ID --profile NAME\n"
	"                  [--only ENTRY]... [--add ENTRY]... [--ttl TIME]\n"
	"       cxctl bind --batch        orders as JSON lines, an answer to each\n"
	"       cxctl rebind --task ID [--profile NAME] [--only ENTRY]... [--add ENTRY]...\n"
	"                  [--ttl TIME] [--cut]\n"
	"       cxctl unbind --task ID [--wait TIME]\n"
	"       cxctl bindings list | sync FILE | expire | restore | init  [--json]\n"
	"\n"
	"Gives an address to a task, and takes it back so that nothing of it reaches the next "
	"one.\n"
	"\n"
	"  ENTRY                  NAME or *.NAME, then :PORT[-PORT],... and /PROTOCOL+... if need "
	"be\n"
	"      --cut              rebind: end what the task has open\n"
	"      --wait TIME        how long to wait for its connections to end (1s)\n"
	"      --no-nft           leave the nftables sets alone\n"
	"  -p, --policy FILE      the compiled policy (" DEFAULT_POLICY ")\n"
	"  -r, --runtime DIR      where the bindings are (" DEFAULT_DIR ")\n"
	"      --group NAME       who may read a table that is made now (" DEFAULT_GROUP ")\n"
	"  -h, --help             this text\n"
	"\n"
	"Exit: 0 in force (unbind: the address may be given away), 1 the policy refuses, 2 usage,\n"
	"3 system, or the table is full (nothing changed), 4 bound to another task.\n";

/* One option that says something about the binding; false with one sentence. */
static bool order_option(struct binding_order *o, int c, const char *value, char *why)
{
	switch (c) {
	case OPT_ONLY:
	case OPT_ADD:
		return binding_add_entry(o, value, c == OPT_ONLY, why);
	case OPT_TTL:
		return set_ttl(o, value, why);
	case OPT_TASK:
		return binding_set_task(o, value, why);
	case OPT_PROFILE:
		return binding_set_profile(o, value, why);
	case OPT_IF:
		return binding_set_ifname(o, value, why);
	case OPT_WAIT:
		if (parse_duration(value, MAX_WAIT_MS, &o->wait_ms))
			return true;
		snprintf(why, BINDING_WHY_SIZE, "not a time such as 500ms or 2s: %.100s", value);
		return false;
	default:
		snprintf(why, BINDING_WHY_SIZE, "unknown option, or its argument is missing");
		return false;
	}
}

static void set_group(struct options *o)
{
	const struct group *g = getgrnam(o->group);
	o->host.gid = g ? g->gr_gid : (gid_t)-1;
}

/* -1: go on; else the exit status. */
int bindopt_parse(struct options *o, int argc, char **argv)
{
	char why[BINDING_WHY_SIZE];
	*o = (struct options){ .host = { .dir = DEFAULT_DIR, .policy = DEFAULT_POLICY },
			       .order = { .wait_ms = BINDING_DEFAULT_WAIT_MS },
			       .group = DEFAULT_GROUP };
	for (int c; (c = getopt_long(argc, argv, "p:r:h", longs, NULL)) != -1;) {
		switch (c) {
		case 'p':
			o->host.policy = optarg;
			break;
		case 'r':
			o->host.dir = optarg;
			break;
		case 'h':
			fputs(help_text, stdout);
			return BINDING_OK;
		case OPT_BATCH:
			o->batch = true;
			break;
		case OPT_CUT:
			o->order.cut = true;
			break;
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_NO_NFT:
			o->host.no_nft = true;
			break;
		case OPT_GROUP:
			o->group = optarg;
			break;
		default:
			if (!order_option(&o->order, c, optarg, why))
				return bindopt_usage(why, NULL);
		}
	}
	set_group(o);
	return -1;
}

struct binding_host *bindopt_open_host(const struct options *o)
{
	char why[BINDING_WHY_SIZE];
	struct binding_host *h = binding_open(&o->host, why);
	if (!h)
		fprintf(stderr, "cxctl: %s\n", why);
	return h;
}

static int say_result(enum binding_code rc, const struct binding_result *r)
{
	if (rc != BINDING_OK)
		fprintf(stderr, "cxctl: %s\n", r->why);
	return rc;
}

int bindopt_flushed(int rc)
{
	if (fflush(stdout) == 0)
		return rc;
	fprintf(stderr, "cxctl: standard output: %s\n", strerror(errno));
	return BINDING_SYSTEM;
}

/* ---- JSON ---- */

void bindopt_put_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

void bindopt_put_number(struct json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)value));
}

static void put_bool(struct json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

bool bindopt_print_line(struct json_object *o)
{
	bool ok = puts(json_object_to_json_string_ext(
			  o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) >= 0;
	json_object_put(o);
	return ok && fflush(stdout) == 0;
}

/* The text of a member, "" if it is not there; NULL if it is not a text. */
static const char *text_of(struct json_object *o, const char *key)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, key, &v) || !v)
		return "";
	if (json_object_get_type(v) != json_type_string)
		return NULL;
	const char *s = json_object_get_string(v);
	return strlen(s) == (size_t)json_object_get_string_len(v) ? s : NULL;
}

static bool read_text(struct binding_order *o, struct json_object *in, const char *key, int option,
		      char *why)
{
	const char *s = text_of(in, key);
	if (!s) {
		snprintf(why, BINDING_WHY_SIZE, "%s is not a text", key);
		return false;
	}
	return !*s || order_option(o, option, s, why);
}

static bool read_entries(struct binding_order *o, struct json_object *in, const char *key,
			 bool only, char *why)
{
	struct json_object *v;
	if (!json_object_object_get_ex(in, key, &v) || !v)
		return true;
	o->has_overlay = true;
	if (json_object_get_type(v) != json_type_array) {
		snprintf(why, BINDING_WHY_SIZE, "%s is not a list", key);
		return false;
	}
	for (size_t i = 0; i < json_object_array_length(v); i++) {
		struct json_object *e = json_object_array_get_idx(v, i);
		if (json_object_get_type(e) != json_type_string) {
			snprintf(why, BINDING_WHY_SIZE, "%s is not a list of texts", key);
			return false;
		}
		if (!binding_add_entry(o, json_object_get_string(e), only, why))
			return false;
	}
	return true;
}

static bool known_keys(struct json_object *in, char *why)
{
	static const char *const keys[] = { "op",   "id",  "address", "if",   "task", "profile",
					    "only", "add", "ttl",     "wait", "cut" };
	json_object_object_foreach(in, key, value)
	{
		(void)value;
		size_t i = 0, n = sizeof(keys) / sizeof(keys[0]);
		while (i < n && strcmp(keys[i], key) != 0)
			i++;
		if (i == n) {
			snprintf(why, BINDING_WHY_SIZE, "unknown key %.60s", key);
			return false;
		}
	}
	return true;
}

bool bindopt_read_order(struct binding_order *o, struct json_object *in, char *why)
{
	struct json_object *v;
	*o = (struct binding_order){ .wait_ms = BINDING_DEFAULT_WAIT_MS };
	if (json_object_get_type(in) != json_type_object) {
		snprintf(why, BINDING_WHY_SIZE, "not an object");
		return false;
	}
	const char *addr = text_of(in, "address");
	if (json_object_object_get_ex(in, "cut", &v))
		o->cut = json_object_get_boolean(v);
	if (!addr) {
		snprintf(why, BINDING_WHY_SIZE, "address is not a text");
		return false;
	}
	return known_keys(in, why) && (!*addr || binding_set_addrs(o, addr, why)) &&
	       read_text(o, in, "if", OPT_IF, why) && read_text(o, in, "task", OPT_TASK, why) &&
	       read_text(o, in, "profile", OPT_PROFILE, why) &&
	       read_text(o, in, "ttl", OPT_TTL, why) && read_text(o, in, "wait", OPT_WAIT, why) &&
	       read_entries(o, in, "only", true, why) && read_entries(o, in, "add", false, why);
}

/* ---- what an order needs ---- */

const char *bindopt_missing_of_bind(const struct binding_order *o)
{
	return !o->n_addrs    ? "an address is needed"
	       : !*o->ifname  ? "a link is needed (--if)"
	       : !*o->task    ? "a task is needed (--task)"
	       : !*o->profile ? "a profile is needed (--profile)"
			      : NULL;
}

static enum binding_code carry_out(struct binding_host *h, const char *op,
				   const struct binding_order *o, struct binding_result *r)
{
	const char *missing = strcmp(op, "bind") == 0 ? bindopt_missing_of_bind(o)
			      : !*o->task             ? "a task is needed (--task)"
						      : NULL;
	*r = (struct binding_result){ .found = false };
	if (missing) {
		snprintf(r->why, sizeof(r->why), "%s", missing);
		return BINDING_USAGE;
	}
	if (strcmp(op, "bind") == 0)
		return binding_bind(h, o, r);
	if (strcmp(op, "rebind") == 0)
		return binding_rebind(h, o, r);
	if (strcmp(op, "unbind") == 0)
		return binding_unbind(h, o->task, o->wait_ms, r);
	snprintf(r->why, sizeof(r->why), "op is bind, rebind or unbind");
	return BINDING_USAGE;
}

static struct json_object *result_object(const char *op, const char *task, enum binding_code rc,
					 const struct binding_result *r)
{
	struct json_object *o = json_object_new_object();
	put_bool(o, "ok", rc == BINDING_OK);
	bindopt_put_text(o, "op", op);
	bindopt_put_text(o, "task", task);
	if (rc != BINDING_OK) {
		bindopt_put_number(o, "code", rc);
		bindopt_put_text(o, "error", r->why);
		return o;
	}
	if (r->generation)
		bindopt_put_number(o, "generation", r->generation);
	if (strcmp(op, "unbind") == 0)
		put_bool(o, "found", r->found);
	bindopt_put_number(o, "sockets", r->sockets);
	bindopt_put_number(o, "flows", r->flows);
	return o;
}

static int print_result(const struct options *o, const char *op, enum binding_code rc,
			const struct binding_result *r)
{
	if (o->json) {
		if (!bindopt_print_line(result_object(op, o->order.task, rc, r)))
			return BINDING_SYSTEM;
		return rc;
	}
	if (rc == BINDING_OK && strcmp(op, "unbind") == 0 && !r->found)
		printf("unbind task=%s: it was not bound\n", o->order.task);
	else if (rc == BINDING_OK)
		printf("%s task=%s generation=%llu sockets=%u flows=%u\n", op, o->order.task,
		       (unsigned long long)r->generation, r->sockets, r->flows);
	return bindopt_flushed(say_result(rc, r));
}

/* ---- bind, rebind, unbind ---- */

/* One line of a batch. False: the answer could not be written. */
static bool answer_line(struct binding_host *h, const char *line)
{
	struct binding_order o;
	struct binding_result r = { .found = false };
	struct json_object *in = json_tokener_parse(line), *id = NULL;
	enum binding_code rc = BINDING_USAGE;
	const char *op = in && json_object_is_type(in, json_type_object) ? text_of(in, "op") : NULL;
	o.task[0] = '\0';
	if (!in)
		snprintf(r.why, sizeof(r.why), "not JSON");
	else if (bindopt_read_order(&o, in, r.why))
		rc = carry_out(h, op ? op : "", &o, &r);
	struct json_object *out = result_object(op ? op : "", o.task, rc, &r);
	if (in && json_object_is_type(in, json_type_object) &&
	    json_object_object_get_ex(in, "id", &id))
		json_object_object_add(out, "id", json_object_get(id));
	bool ok = bindopt_print_line(out);
	json_object_put(in);
	return ok;
}

/* Until the orders end. A failed order does not end the batch; a lost answer does. */
static int run_batch(const struct options *o)
{
	struct binding_host *h = bindopt_open_host(o);
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = BINDING_OK;
	if (!h)
		return BINDING_SYSTEM;
	while (rc == BINDING_OK && (n = getline(&line, &cap, stdin)) > 0) {
		if (line[strspn(line, " \t\r\n")] == '\0')
			continue;
		if (n > MAX_LINE || strlen(line) != (size_t)n)
			line[0] = '\0';
		if (!answer_line(h, line))
			rc = BINDING_SYSTEM;
	}
	free(line);
	binding_close(h);
	return rc;
}

static int run_one(struct options *o, const char *op)
{
	struct binding_result r;
	struct binding_host *h = bindopt_open_host(o);
	if (!h)
		return BINDING_SYSTEM;
	int rc = print_result(o, op, carry_out(h, op, &o->order, &r), &r);
	binding_close(h);
	return rc;
}

int run_bind(int argc, char **argv)
{
	struct options o;
	char why[BINDING_WHY_SIZE];
	int rc = bindopt_parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	if (o.batch)
		return optind == argc ? run_batch(&o) : bindopt_usage("--batch goes alone", NULL);
	if (optind != argc - 1)
		return bindopt_usage("bind needs one ADDR[,ADDR6/LEN]", NULL);
	if (!binding_set_addrs(&o.order, argv[optind], why))
		return bindopt_usage(why, NULL);
	const char *missing = bindopt_missing_of_bind(&o.order);
	return missing ? bindopt_usage(missing, NULL) : run_one(&o, "bind");
}

static int run_by_task(int argc, char **argv, const char *op)
{
	struct options o;
	int rc = bindopt_parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	if (optind != argc)
		return bindopt_usage("unexpected argument", argv[optind]);
	if (!*o.order.task)
		return bindopt_usage("a task is needed (--task)", NULL);
	return run_one(&o, op);
}

int run_rebind(int argc, char **argv)
{
	return run_by_task(argc, argv, "rebind");
}

int run_unbind(int argc, char **argv)
{
	return run_by_task(argc, argv, "unbind");
}
