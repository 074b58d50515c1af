/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cxctl explain: what the policy answers a client, and which entry decides. Never decides: it asks the
 * same verdict() as the plugins, with the binding that they would find.
 */
#include "shared/tools/explain.h"

#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/live/bind.h"
#include "shared/policy/overlay.h"
#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"
#include "shared/tools/target.h"

enum { EXIT_ALLOW, EXIT_DENY, EXIT_USAGE, EXIT_SYSTEM };

#define DEFAULT_POLICY "/var/lib/cx/policy.bin"
#define DEFAULT_DIR    "/run/cx"

enum { MAX_RESOLVED = 64 };

struct explain {
	const char *policy;
	const char *source;
	const char *target;
	const char *method;
	bool json;
	struct now now;
	struct addr resolved[MAX_RESOLVED];
	unsigned n_resolved;
	bool has_resolved;
	const char *dir; /* where the bindings are */
	/* of a source that is bound at run time */
	bool wants_binding, bound;
	struct bind_row row;
	char why_unbound[BIND_WHY_SIZE];
};

static const char explain_help[] =
	"usage: cxctl explain [-p FILE] --source IP TARGET [options]\n"
	"\n"
	"Says what the policy answers a client, and which entry decides.\n"
	"\n"
	"TARGET is one of\n"
	"  dns:NAME[/TYPE]   https://HOST[:PORT]   http://HOST[:PORT]/PATH\n"
	"  connect:HOST:PORT   tcp:IP:PORT\n"
	"\n"
	"  -p, --policy FILE      the compiled policy (" DEFAULT_POLICY ")\n"
	"  -s, --source IP        the client's address\n"
	"  -m, --method METHOD    of an http target (GET)\n"
	"  -r, --resolved IP,...  what the name resolves to: may the connection go there?\n"
	"  -R, --runtime-dir DIR  where the bindings are (" DEFAULT_DIR ")\n"
	"      --now TIME         the clock for expiry: YYYY-MM-DD[THH:MM:SSZ] or seconds since "
	"1970\n"
	"      --json             one JSON object\n"
	"  -h, --help             this text\n"
	"\n"
	"Exit: 0 allowed (for connect and tcp: a further look decides), 1 denied, 2 usage, 3 "
	"system.\n";

static int usage(const char *fmt, const char *arg)
{
	fputs("cxctl: ", stderr);
	fprintf(stderr, fmt, arg); /* the formats are literals of this file */
	fputs("\nTry 'cxctl --help'.\n", stderr);
	return EXIT_USAGE;
}

static bool parse_time(const char *s, int64_t *wall_ns)
{
	static const char *const forms[] = { "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ" };
	char *end;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (*s && !*end && errno == 0 && v >= 0 && v < 9000000000) {
		*wall_ns = v * 1000000000;
		return true;
	}
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = { 0 };
		const char *rest = strptime(s, forms[i], &tm);
		if (rest && !*rest) {
			*wall_ns = (int64_t)timegm(&tm) * 1000000000;
			return true;
		}
	}
	return false;
}

static bool parse_resolved(struct explain *e, const char *s)
{
	e->has_resolved = true;
	while (*s) {
		size_t n = strcspn(s, ",");
		if (e->n_resolved == MAX_RESOLVED ||
		    !addr_from_text(&e->resolved[e->n_resolved], s, n))
			return false;
		e->n_resolved++;
		s += n + (s[n] == ',');
	}
	return true;
}

/* -1: go on; else the exit status. */
static int explain_options(struct explain *e, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "policy", required_argument, NULL, 'p' },
		{ "source", required_argument, NULL, 's' },
		{ "method", required_argument, NULL, 'm' },
		{ "resolved", required_argument, NULL, 'r' },
		{ "runtime-dir", required_argument, NULL, 'R' },
		{ "now", required_argument, NULL, 'N' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;
	while ((c = getopt_long(argc, argv, "p:s:m:r:R:h", longs, NULL)) != -1) {
		switch (c) {
		case 'p':
			e->policy = optarg;
			break;
		case 's':
			e->source = optarg;
			break;
		case 'm':
			e->method = optarg;
			break;
		case 'r':
			if (!parse_resolved(e, optarg))
				return usage("--resolved: not a list of addresses: %s", optarg);
			break;
		case 'R':
			e->dir = optarg;
			break;
		case 'N':
			if (!parse_time(optarg, &e->now.wall_ns))
				return usage("--now: not a time: %s", optarg);
			break;
		case 'j':
			e->json = true;
			break;
		case 'h':
			fputs(explain_help, stdout);
			return EXIT_ALLOW;
		default:
			return usage("%s", "unknown option, or its argument is missing");
		}
	}
	if (!e->source)
		return usage("%s", "explain needs --source IP");
	if (optind != argc - 1)
		return usage("%s", "explain needs one TARGET");
	e->target = argv[optind];
	return -1;
}

static const char *action_text(const struct verdict *v)
{
	switch (v->action) {
	case ACTION_ALLOW:
		return "allow";
	case ACTION_NEXT:
		return "next";
	case ACTION_DENY:
		break;
	}
	return "deny";
}

/* ---- who asks ---- */

/* The binding of a source that `sources` leaves to cxctl bind. */
static void find_binding(struct explain *e, const struct policy *p, const struct addr *src)
{
	e->wants_binding = policy_has_bindings(p) && policy_source(p, src).kind == SOURCE_BIND;
	if (!e->wants_binding)
		return;
	struct bind_table *t = bind_open(e->dir, e->why_unbound);
	e->bound = t && bind_find(t, src, e->now.boot_ns, &e->row);
	if (t && !e->bound)
		snprintf(e->why_unbound, sizeof(e->why_unbound), "nothing is bound to it");
	if (t)
		bind_close(t);
}

/* The entries that a binding adds, or (narrows) that it is narrowed to. */
static void print_entries(const struct explain *e, bool narrows)
{
	struct reader r = rd_init(e->row.overlay, e->row.overlay_len);
	struct overlay_entry entry;
	char text[OVERLAY_TEXT_SIZE];
	bool first = true;
	while (overlay_next(&r, &entry)) {
		if (!(entry.flags & OVERLAY_ONLY) == narrows)
			continue;
		overlay_to_text(&entry, text);
		printf("%s%s", first ? (narrows ? "only:     " : "adds:     ") : " ", text);
		first = false;
	}
	fputs(first ? "" : "\n", stdout);
}

static void print_binding(const struct explain *e)
{
	if (!e->wants_binding)
		return;
	if (!e->bound) {
		printf("binding:  none in %s: %s; see cxctl bind, and --runtime-dir\n", e->dir,
		       e->why_unbound);
		return;
	}
	printf("task:     %s (generation %llu)\n", e->row.task,
	       (unsigned long long)e->row.generation);
	print_entries(e, false);
	print_entries(e, true);
}

/* ---- what is said ---- */

static void print_text(const struct policy *p, const struct verdict *v, const struct explain *e)
{
	struct rule_info r;
	struct policy_info pi;
	policy_info(p, &pi);
	printf("verdict:  %s%s%s%s\n", action_text(v), v->next ? ", expecting " : "",
	       next_text(v->next), v->observed ? " (observed: would be denied)" : "");
	printf("reason:   %s\n", reason_text(v->reason));
	if (v->unpoliced)
		puts("profile:  none: DNS of this source passes unpoliced");
	else if (v->any_profile)
		puts("profile:  any (the gateway's own look-ups)");
	else
		printf("profile:  %s\n",
		       v->profile == UINT32_MAX ? "none" : policy_profile_name(p, v->profile));
	print_binding(e);
	if (v->action == ACTION_ALLOW && e->has_resolved) {
		char text[ADDR_TEXT_SIZE];
		addr_to_text(&e->resolved[v->addr], text);
		printf("address:  %s\n", text);
	}
	if (policy_rule_info(p, v->rule, v->rec, &r)) {
		printf("entry:    %s%s (in %s)\n", r.deny ? "deny " : "", r.pattern, r.layer);
		printf("rule:     %s\n", r.id);
		printf("at:       %s:%u\n", r.file, r.line);
		if (*r.owner)
			printf("owner:    %s\n", r.owner);
		if (*r.reason)
			printf("why:      %s\n", r.reason);
	} else if (v->added) {
		puts("entry:    one that the binding adds");
	} else {
		puts("entry:    none");
	}
	printf("policy:   %s%s%s\n", pi.digest, *pi.revision ? " revision " : "", pi.revision);
}

static void put_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static void put_entries(struct json_object *o, const char *key, const struct bind_row *row,
			bool narrows)
{
	struct reader r = rd_init(row->overlay, row->overlay_len);
	struct json_object *v = json_object_new_array();
	struct overlay_entry entry;
	char text[OVERLAY_TEXT_SIZE];
	while (overlay_next(&r, &entry)) {
		overlay_to_text(&entry, text);
		if (!(entry.flags & OVERLAY_ONLY) != narrows)
			json_object_array_add(v, json_object_new_string(text));
	}
	json_object_object_add(o, key, v);
}

static void put_binding(struct json_object *o, const struct explain *e)
{
	if (!e->wants_binding)
		return;
	json_object_object_add(o, "bound", json_object_new_boolean(e->bound));
	if (!e->bound) {
		put_text(o, "why_unbound", e->why_unbound);
		return;
	}
	put_text(o, "task", e->row.task);
	json_object_object_add(o, "generation", json_object_new_uint64(e->row.generation));
	put_entries(o, "add", &e->row, false);
	put_entries(o, "only", &e->row, true);
}

static void print_json(const struct policy *p, const struct verdict *v, const struct explain *e)
{
	struct rule_info r;
	struct policy_info pi;
	struct json_object *o = json_object_new_object();
	policy_info(p, &pi);
	put_text(o, "target", e->target);
	put_text(o, "source", e->source);
	put_text(o, "verdict", action_text(v));
	put_text(o, "reason", reason_text(v->reason));
	put_text(o, "next", next_text(v->next));
	put_text(o, "profile", policy_profile_name(p, v->profile));
	put_binding(o, e);
	json_object_object_add(o, "added", json_object_new_boolean(v->added));
	json_object_object_add(o, "observed", json_object_new_boolean(v->observed));
	json_object_object_add(o, "unpoliced", json_object_new_boolean(v->unpoliced));
	json_object_object_add(o, "any_profile", json_object_new_boolean(v->any_profile));
	if (v->action == ACTION_ALLOW && e->has_resolved) {
		char text[ADDR_TEXT_SIZE];
		addr_to_text(&e->resolved[v->addr], text);
		put_text(o, "address", text);
	}
	if (policy_rule_info(p, v->rule, v->rec, &r)) {
		put_text(o, "rule", r.id);
		put_text(o, "entry", r.pattern);
		json_object_object_add(o, "deny", json_object_new_boolean(r.deny));
		put_text(o, "in", r.layer);
		put_text(o, "file", r.file);
		json_object_object_add(o, "line", json_object_new_int64(r.line));
		put_text(o, "owner", r.owner);
		put_text(o, "why", r.reason);
	}
	put_text(o, "policy", pi.digest);
	put_text(o, "revision", pi.revision);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
						       JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static int explain_target(const struct policy *p, struct explain *e)
{
	struct target t;
	struct verdict v;
	struct facts f = { .now = e->now };
	char why[TARGET_WHY_SIZE];
	if (!target_parse(&t, e->target, why)) {
		fprintf(stderr, "cxctl: %s: %s\n", e->target, why);
		return EXIT_USAGE;
	}
	if (!addr_from_text(&t.q.src, e->source, strlen(e->source)))
		return usage("--source: not an address: %s", e->source);
	if (e->method) {
		if (t.q.layer != LAYER_HTTP)
			return usage("%s", "--method goes with an http:// target");
		t.q.method = e->method;
		t.q.method_len = strlen(e->method);
	}
	if (e->has_resolved) {
		t.q.resolved = e->resolved;
		t.q.n_resolved = e->n_resolved;
	}
	find_binding(e, p, &t.q.src);
	const struct binding b = { .generation = e->row.generation,
				   .profile = e->row.profile,
				   .overlay = e->row.overlay,
				   .overlay_len = e->row.overlay_len };
	f.binding = e->bound ? &b : NULL;
	verdict(p, &t.q, &f, &v);
	if (e->json)
		print_json(p, &v, e);
	else
		print_text(p, &v, e);
	return v.action == ACTION_DENY ? EXIT_DENY : EXIT_ALLOW;
}

int run_explain(int argc, char **argv)
{
	struct explain e = { .policy = DEFAULT_POLICY, .dir = DEFAULT_DIR };
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	struct policy *p = NULL;
	struct timespec now;
	char why[POLICY_WHY_SIZE];
	clock_gettime(CLOCK_REALTIME, &now);
	e.now.wall_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	clock_gettime(CLOCK_BOOTTIME, &now);
	e.now.boot_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	int rc = explain_options(&e, argc, argv);
	if (rc >= 0)
		return rc;
	enum policy_err err = policy_open(&p, e.policy, &trust, why);
	if (err != POLICY_OK) {
		fprintf(stderr, "cxctl: %s: %s%s%s\n", e.policy, policy_strerror(err),
			*why ? ": " : "", why);
		return EXIT_SYSTEM;
	}
	rc = explain_target(p, &e);
	policy_close(p);
	if (fflush(stdout) != 0) {
		fprintf(stderr, "cxctl: standard output: %s\n", strerror(errno));
		return EXIT_SYSTEM;
	}
	return rc;
}
