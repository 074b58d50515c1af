/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cxctl bind, rebind, unbind and bindings: options and JSON lines into orders (binding.h), results
 * into lines and exit statuses. Decides nothing.
 */
#include "shared/tools/bindcmd.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/overlay.h"
#include "shared/tools/binding.h"

#define DEFAULT_POLICY "/var/lib/cx/policy.bin"
#define DEFAULT_DIR    "/run/cx"
#define DEFAULT_GROUP  "cx"

enum { MAX_TTL_S = 315360000, MAX_WAIT_MS = 3600000, MAX_LINE = 65536 };

struct options {
	struct binding_options host;
	struct binding_order order;
	const char *group;
	bool batch, json;
};

static int usage(const char *what, const char *arg)
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
static int parse(struct options *o, int argc, char **argv)
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
				return usage(why, NULL);
		}
	}
	set_group(o);
	return -1;
}

static struct binding_host *open_host(const struct options *o)
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

static int flushed(int rc)
{
	if (fflush(stdout) == 0)
		return rc;
	fprintf(stderr, "cxctl: standard output: %s\n", strerror(errno));
	return BINDING_SYSTEM;
}

/* ---- JSON ---- */

static void put_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void put_number(struct json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_int64((int64_t)value));
}

static void put_bool(struct json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

static bool print_line(struct json_object *o)
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

static bool read_order(struct binding_order *o, struct json_object *in, char *why)
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

static const char *missing_of_bind(const struct binding_order *o)
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
	const char *missing = strcmp(op, "bind") == 0 ? missing_of_bind(o)
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
	put_text(o, "op", op);
	put_text(o, "task", task);
	if (rc != BINDING_OK) {
		put_number(o, "code", rc);
		put_text(o, "error", r->why);
		return o;
	}
	if (r->generation)
		put_number(o, "generation", r->generation);
	if (strcmp(op, "unbind") == 0)
		put_bool(o, "found", r->found);
	put_number(o, "sockets", r->sockets);
	put_number(o, "flows", r->flows);
	return o;
}

static int print_result(const struct options *o, const char *op, enum binding_code rc,
			const struct binding_result *r)
{
	if (o->json) {
		if (!print_line(result_object(op, o->order.task, rc, r)))
			return BINDING_SYSTEM;
		return rc;
	}
	if (rc == BINDING_OK && strcmp(op, "unbind") == 0 && !r->found)
		printf("unbind task=%s: it was not bound\n", o->order.task);
	else if (rc == BINDING_OK)
		printf("%s task=%s generation=%llu sockets=%u flows=%u\n", op, o->order.task,
		       (unsigned long long)r->generation, r->sockets, r->flows);
	return flushed(say_result(rc, r));
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
	else if (read_order(&o, in, r.why))
		rc = carry_out(h, op ? op : "", &o, &r);
	struct json_object *out = result_object(op ? op : "", o.task, rc, &r);
	if (in && json_object_is_type(in, json_type_object) &&
	    json_object_object_get_ex(in, "id", &id))
		json_object_object_add(out, "id", json_object_get(id));
	bool ok = print_line(out);
	json_object_put(in);
	return ok;
}

/* Until the orders end. A failed order does not end the batch; a lost answer does. */
static int run_batch(const struct options *o)
{
	struct binding_host *h = open_host(o);
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
	struct binding_host *h = open_host(o);
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
	int rc = parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	if (o.batch)
		return optind == argc ? run_batch(&o) : usage("--batch goes alone", NULL);
	if (optind != argc - 1)
		return usage("bind needs one ADDR[,ADDR6/LEN]", NULL);
	if (!binding_set_addrs(&o.order, argv[optind], why))
		return usage(why, NULL);
	const char *missing = missing_of_bind(&o.order);
	return missing ? usage(missing, NULL) : run_one(&o, "bind");
}

static int run_by_task(int argc, char **argv, const char *op)
{
	struct options o;
	int rc = parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	if (optind != argc)
		return usage("unexpected argument", argv[optind]);
	if (!*o.order.task)
		return usage("a task is needed (--task)", NULL);
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

/* ---- bindings ---- */

static const char *state_text(const struct bind_row *r, uint64_t now_ns)
{
	if (r->state == BIND_LEAVING)
		return "leaving";
	return r->deadline_ns && now_ns >= r->deadline_ns ? "expired" : "bound";
}

static void addrs_text(const struct bind_row *r, char out[2 * PREFIX_TEXT_SIZE + 2])
{
	size_t n = 0;
	for (unsigned i = 0; i < r->n_addrs; i++) {
		if (i)
			out[n++] = ',';
		bool whole = r->addrs[i].len == 128;
		n += whole ? addr_to_text(&r->addrs[i].a, out + n)
			   : prefix_to_text(&r->addrs[i], out + n);
	}
	out[n] = '\0';
}

/* An entry as it would be given to --add or --only. */
static void entry_text(const struct overlay_entry *e, char *out, size_t size)
{
	static const char *const protocols[] = { "https", "http", "tcp" };
	char name[NAME_TEXT_SIZE];
	name_to_text(&e->name, name);
	size_t n =
		(size_t)snprintf(out, size, "%s%.253s", e->flags & OVERLAY_BELOW ? "*." : "", name);
	for (unsigned i = 0; i < e->n_ports; i++) {
		n += (size_t)snprintf(out + n, size - n, "%c%u", i ? ',' : ':', e->ports[i].lo);
		if (e->ports[i].hi != e->ports[i].lo)
			n += (size_t)snprintf(out + n, size - n, "-%u", e->ports[i].hi);
	}
	for (unsigned i = 0, k = 0; i < 3; i++)
		if (e->protocols & 1u << i)
			n += (size_t)snprintf(out + n, size - n, "%c%s", k++ ? '+' : '/',
					      protocols[i]);
}

static void put_entries(struct json_object *o, const struct bind_row *row)
{
	struct reader r = rd_init(row->overlay, row->overlay_len);
	struct json_object *add = json_object_new_array(), *only = json_object_new_array();
	struct overlay_entry e;
	char text[512];
	while (overlay_next(&r, &e)) {
		entry_text(&e, text, sizeof(text));
		json_object_array_add(e.flags & OVERLAY_ONLY ? only : add,
				      json_object_new_string(text));
	}
	json_object_object_add(o, "add", add);
	json_object_object_add(o, "only", only);
}

struct listing {
	bool json;
	bool failed;
	uint64_t now_ns;
};

static bool list_row(void *arg, uint32_t at, const struct bind_row *r)
{
	struct listing *l = arg;
	char addrs[2 * PREFIX_TEXT_SIZE + 2];
	addrs_text(r, addrs);
	uint64_t left = r->deadline_ns > l->now_ns ? (r->deadline_ns - l->now_ns) / 1000000000 : 0;
	if (!l->json) {
		printf("%s if=%s task=%s profile=%s generation=%llu state=%s", addrs, r->ifname,
		       r->task, r->profile, (unsigned long long)r->generation,
		       state_text(r, l->now_ns));
		if (r->deadline_ns)
			printf(" left=%llus", (unsigned long long)left);
		putchar('\n');
		return true;
	}
	struct json_object *o = json_object_new_object();
	put_text(o, "address", addrs);
	put_text(o, "if", r->ifname);
	put_text(o, "task", r->task);
	put_text(o, "profile", r->profile);
	put_number(o, "generation", r->generation);
	put_text(o, "state", state_text(r, l->now_ns));
	if (r->deadline_ns)
		put_number(o, "left_s", left);
	put_entries(o, r);
	l->failed = !print_line(o);
	return !l->failed;
}

static int list(struct binding_host *h, const struct options *o)
{
	struct listing l = { .json = o->json, .now_ns = binding_now_ns() };
	if (!bind_lock_table(binding_writer(h)))
		return BINDING_SYSTEM;
	bind_each(binding_writer(h), list_row, &l);
	bind_unlock_table(binding_writer(h));
	return flushed(l.failed ? BINDING_SYSTEM : BINDING_OK);
}

/* The tasks of rows that a condition picks. */
struct picked {
	char (*v)[BIND_TASK_SIZE];
	size_t n, cap;
	bool no_memory;
	bool (*pick)(void *arg, const struct bind_row *r);
	void *arg;
};

static bool pick_row(void *arg, uint32_t at, const struct bind_row *r)
{
	struct picked *p = arg;
	if (!p->pick(p->arg, r))
		return true;
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 64;
		void *v = realloc(p->v, cap * sizeof(*p->v));
		p->no_memory = !v;
		if (!v)
			return false;
		p->v = v;
		p->cap = cap;
	}
	memcpy(p->v[p->n++], r->task, BIND_TASK_SIZE);
	return true;
}

/* Unbinds what is picked; goes on after a failure, and returns it. */
static int unbind_picked(struct binding_host *h, struct picked *p, uint64_t wait_ms, unsigned *n)
{
	int rc = BINDING_OK;
	if (!bind_lock_table(binding_writer(h)))
		return BINDING_SYSTEM;
	bind_each(binding_writer(h), pick_row, p);
	bind_unlock_table(binding_writer(h));
	if (p->no_memory)
		rc = BINDING_SYSTEM;
	for (size_t i = 0; i < p->n; i++) {
		struct binding_result r;
		enum binding_code one = binding_unbind(h, p->v[i], wait_ms, &r);
		if (one != BINDING_OK) {
			fprintf(stderr, "cxctl: %s: %s\n", p->v[i], r.why);
			rc = one;
		} else {
			*n += 1;
		}
	}
	free(p->v);
	return rc;
}

static bool is_over(void *arg, const struct bind_row *r)
{
	const uint64_t *now_ns = arg;
	return r->state == BIND_LEAVING || (r->deadline_ns && *now_ns >= r->deadline_ns);
}

static int expire(struct binding_host *h, const struct options *o)
{
	uint64_t now_ns = binding_now_ns();
	struct picked p = { .pick = is_over, .arg = &now_ns };
	unsigned n = 0;
	int rc = unbind_picked(h, &p, o->order.wait_ms, &n);
	printf("expired %u\n", n);
	return flushed(rc);
}

static int restore(struct binding_host *h, const struct options *o)
{
	char why[BINDING_WHY_SIZE];
	unsigned n = 0;
	enum binding_code rc = binding_restore(h, &n, why);
	if (rc != BINDING_OK)
		fprintf(stderr, "cxctl: %s\n", why);
	printf("restored %u\n", n);
	return flushed(rc);
}

/* ---- sync ---- */

/* What a file wants: one order a line. */
struct wanted {
	struct binding_order *v;
	size_t n, cap;
};

static int by_task(const void *a, const void *b)
{
	return strcmp(((const struct binding_order *)a)->task,
		      ((const struct binding_order *)b)->task);
}

static const struct binding_order *find_wanted(const struct wanted *w, const char *task)
{
	size_t lo = 0, hi = w->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(w->v[mid].task, task);
		if (c == 0)
			return &w->v[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool read_wanted_line(struct wanted *w, const char *line, char *why)
{
	struct json_object *in = json_tokener_parse(line);
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 64;
		void *v = realloc(w->v, cap * sizeof(*w->v));
		if (v) {
			w->v = v;
			w->cap = cap;
		}
	}
	bool ok = in && w->n < w->cap;
	if (!ok)
		snprintf(why, BINDING_WHY_SIZE, "not JSON");
	ok = ok && read_order(&w->v[w->n], in, why);
	if (ok && missing_of_bind(&w->v[w->n])) {
		snprintf(why, BINDING_WHY_SIZE, "%s", missing_of_bind(&w->v[w->n]));
		ok = false;
	}
	w->n += ok;
	json_object_put(in);
	return ok;
}

/* All lines are read before anything is changed. */
static int read_wanted(struct wanted *w, const char *path)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char *line = NULL, why[BINDING_WHY_SIZE];
	size_t cap = 0, n = 0;
	int rc = BINDING_OK;
	if (!f) {
		fprintf(stderr, "cxctl: %s: %s\n", path, strerror(errno));
		return BINDING_SYSTEM;
	}
	while (rc == BINDING_OK && getline(&line, &cap, f) > 0) {
		n++;
		if (line[strspn(line, " \t\r\n")] && !read_wanted_line(w, line, why)) {
			fprintf(stderr, "cxctl: %s:%zu: %s\n", path, n, why);
			rc = BINDING_USAGE;
		}
	}
	if (rc == BINDING_OK && ferror(f))
		rc = BINDING_SYSTEM;
	free(line);
	if (f != stdin)
		fclose(f);
	if (w->n)
		qsort(w->v, w->n, sizeof(*w->v), by_task);
	for (size_t i = 1; rc == BINDING_OK && i < w->n; i++)
		if (strcmp(w->v[i].task, w->v[i - 1].task) == 0) {
			fprintf(stderr, "cxctl: %s: the task %s stands there twice\n", path,
				w->v[i].task);
			rc = BINDING_USAGE;
		}
	return rc;
}

/* Is the row one that the file does not want, or not there? */
static bool must_go(void *arg, const struct bind_row *r)
{
	const struct binding_order *o = find_wanted(arg, r->task);
	if (!o || r->state != BIND_BOUND || o->n_addrs != r->n_addrs ||
	    strcmp(o->ifname, r->ifname) != 0)
		return true;
	for (unsigned i = 0; i < r->n_addrs; i++)
		if (o->addrs[i].len != r->addrs[i].len ||
		    addr_cmp(&o->addrs[i].a, &r->addrs[i].a) != 0)
			return true;
	return false;
}

struct counts {
	unsigned bound, rebound, unbound, same;
};

static enum binding_code sync_one(struct binding_host *h, const struct binding_order *want,
				  struct counts *c, struct binding_result *r)
{
	struct bind_row row;
	if (!bind_lock_table(binding_writer(h)))
		return BINDING_SYSTEM;
	bool there = bind_row_of_task(binding_writer(h), want->task, &row) != BIND_NO_ROW;
	bind_unlock_table(binding_writer(h));
	enum binding_code rc = BINDING_OK;
	if (there && binding_matches(&row, want)) {
		c->same++;
		return rc;
	}
	struct binding_order o = *want;
	o.has_overlay = true;
	rc = there ? binding_rebind(h, &o, r) : binding_bind(h, &o, r);
	if (rc == BINDING_OK)
		*(there ? &c->rebound : &c->bound) += 1;
	return rc;
}

static int sync_file(struct binding_host *h, const struct options *o, const char *path)
{
	struct wanted w = { .n = 0 };
	struct counts c = { 0 };
	int rc = read_wanted(&w, path);
	struct picked p = { .pick = must_go, .arg = &w };
	if (rc == BINDING_OK)
		rc = unbind_picked(h, &p, o->order.wait_ms, &c.unbound);
	for (size_t i = 0; rc != BINDING_USAGE && i < w.n; i++) {
		struct binding_result r = { .found = false };
		enum binding_code one = sync_one(h, &w.v[i], &c, &r);
		if (one != BINDING_OK) {
			fprintf(stderr, "cxctl: %s: %s\n", w.v[i].task, r.why);
			rc = one;
		}
	}
	free(w.v);
	if (rc != BINDING_USAGE)
		printf("bound=%u rebound=%u unbound=%u unchanged=%u\n", c.bound, c.rebound,
		       c.unbound, c.same);
	return flushed(rc);
}

int run_bindings(int argc, char **argv)
{
	struct options o;
	int rc = parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	const char *what = optind < argc ? argv[optind] : "";
	bool sync = strcmp(what, "sync") == 0;
	if (optind + 1 + sync != argc)
		return usage(sync ? "bindings sync needs one FILE"
				  : "bindings needs list, sync FILE, expire, "
				    "restore or init",
			     NULL);
	struct binding_host *h = open_host(&o);
	if (!h)
		return BINDING_SYSTEM;
	if (strcmp(what, "list") == 0)
		rc = list(h, &o);
	else if (sync)
		rc = sync_file(h, &o, argv[optind + 1]);
	else if (strcmp(what, "expire") == 0)
		rc = expire(h, &o);
	else if (strcmp(what, "restore") == 0)
		rc = restore(h, &o);
	else if (strcmp(what, "init") == 0)
		rc = BINDING_OK; /* opening made the table */
	else
		rc = usage("unknown subcommand of bindings", what);
	binding_close(h);
	return rc;
}
