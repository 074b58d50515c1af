/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cxctl cut: options into orders (cut.h), what was ended into lines and exit statuses. With --follow it
 * stays and keeps connections in line with the policy in force. Decides nothing.
 */
#include "shared/tools/cutcmd.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/policy/features.h"
#include "shared/tools/binding.h"
#include "shared/tools/cut.h"

enum { EXIT_OK, EXIT_USAGE = 2, EXIT_SYSTEM };
enum { TICK_MS = 200, SWEEP_TICKS = 5, RULE_HEX = 12 };

struct options {
	struct cut_options cut;
	uint8_t key[POLICY_KEY_SIZE];
	const char *pubkey, *task, *source, *entry;
	bool follow, json;
};

static const char help_text[] =
	"usage: cxctl cut --task ID | --source ADDR[/LEN] | --entry ENTRY [--json]\n"
	"       cxctl cut --follow [-K FILE] [--min-serial N] [--audience NAMES]\n"
	"\n"
	"Ends connections of clients, on both sides of HAProxy.\n"
	"\n"
	"      --task ID          all of a task, which stays bound\n"
	"      --source PREFIX    all of the clients in the prefix\n"
	"      --entry ENTRY      those that were allowed by an entry: the rule's id as in the\n"
	"                         audit log, NAME, *.NAME, or an address or range\n"
	"      --follow           stay, and end within seconds what the policy in force no\n"
	"                         longer allows; nothing else\n"
	"      --json             one JSON object\n"
	"  -p, --policy FILE      the compiled policy (/var/lib/cx/policy.bin)\n"
	"  -r, --runtime DIR      where the streams are (/run/cx)\n"
	"  -K, --key FILE         take policies signed by this Ed25519 public key only (PEM)\n"
	"      --min-serial N     refuse policies with a lower serial\n"
	"      --audience NAMES   what this host is\n"
	"  -h, --help             this text\n"
	"\n"
	"Exit: 0 done, also if there was none, 2 usage, 3 system.\n";

static int usage(const char *what, const char *arg)
{
	fprintf(stderr, "cxctl: %s%s%s\nTry 'cxctl cut --help'.\n", what, arg ? ": " : "",
		arg ? arg : "");
	return EXIT_USAGE;
}

static int fails(const char *why)
{
	fprintf(stderr, "cxctl: %s\n", why);
	return EXIT_SYSTEM;
}

static bool parse_serial(struct options *o, const char *s)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(s, &end, 10);
	o->cut.trust.min_serial = v;
	return *s >= '0' && *s <= '9' && !*end && errno == 0;
}

/* -1: go on; else the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = { { "task", required_argument, NULL, 't' },
					       { "source", required_argument, NULL, 's' },
					       { "entry", required_argument, NULL, 'e' },
					       { "follow", no_argument, NULL, 'f' },
					       { "json", no_argument, NULL, 'j' },
					       { "policy", required_argument, NULL, 'p' },
					       { "runtime", required_argument, NULL, 'r' },
					       { "key", required_argument, NULL, 'K' },
					       { "min-serial", required_argument, NULL, 'S' },
					       { "audience", required_argument, NULL, 'A' },
					       { "help", no_argument, NULL, 'h' },
					       { 0 } };
	for (int c; (c = getopt_long(argc, argv, "p:r:K:h", longs, NULL)) != -1;) {
		if (c == 't')
			o->task = optarg;
		else if (c == 's')
			o->source = optarg;
		else if (c == 'e')
			o->entry = optarg;
		else if (c == 'f')
			o->follow = true;
		else if (c == 'j')
			o->json = true;
		else if (c == 'p')
			o->cut.policy = optarg;
		else if (c == 'r')
			o->cut.runtime_dir = optarg;
		else if (c == 'K')
			o->pubkey = optarg;
		else if (c == 'A')
			o->cut.trust.audience = optarg;
		else if (c == 'S' && !parse_serial(o, optarg))
			return usage("not a serial", optarg);
		else if (c == '?')
			return usage("unknown option, or its argument is missing", NULL);
		else if (c == 'h') {
			fputs(help_text, stdout);
			return EXIT_OK;
		}
	}
	if (optind < argc)
		return usage("unexpected argument", argv[optind]);
	if (!o->task + !o->source + !o->entry + !o->follow != 3)
		return usage("cut needs one of --task, --source, --entry and --follow", NULL);
	return -1;
}

/* ---- what an entry is ---- */

struct entry {
	bool is_rule, is_prefix, wild;
	const char *rule;
	struct prefix prefix;
	struct name name;
};

static bool parse_entry(struct entry *e, const char *s)
{
	size_t n = strlen(s);
	e->is_rule = n == RULE_HEX && strspn(s, "0123456789abcdef") == n;
	e->rule = s;
	if (e->is_rule)
		return true;
	e->is_prefix = prefix_from_text(&e->prefix, s, n) == PREFIX_OK;
	if (e->is_prefix)
		return true;
	e->wild = strncmp(s, "*.", 2) == 0;
	s += e->wild ? 2 : 0;
	return name_from_text(&e->name, s, strlen(s)) == NAME_OK;
}

static bool is_of_entry(void *arg, const struct stream *s, const struct verdict *v)
{
	const struct entry *e = arg;
	if (e->is_rule)
		return strcmp(s->rule, e->rule) == 0;
	if (e->is_prefix)
		return s->has_to && prefix_contains(&e->prefix, &s->to);
	for (unsigned i = 0; i < s->n_names; i++)
		if (e->wild ? name_is_below(&s->names[i], &e->name)
			    : name_equal(&s->names[i], &e->name))
			return true;
	return false;
}

/* ---- once ---- */

static void tell_nobody(void *arg, const struct stream *s, const struct verdict *v)
{
}

/* The addresses of a task; 0: it is not bound. */
static unsigned find_task(const struct options *o, struct prefix out[BIND_ADDRS],
			  char why[CUT_WHY_SIZE])
{
	const struct binding_options b = { .dir = o->cut.runtime_dir,
					   .policy = o->cut.policy,
					   .gid = (gid_t)-1 };
	struct bind_row row;
	unsigned n = 0;
	struct binding_host *h = binding_open(&b, why);
	if (!h)
		return 0;
	snprintf(why, CUT_WHY_SIZE, "the task is not bound");
	if (bind_lock_table(binding_writer(h))) {
		if (bind_row_of_task(binding_writer(h), o->task, &row) != BIND_NO_ROW)
			n = row.n_addrs;
		bind_unlock_table(binding_writer(h));
	}
	for (unsigned i = 0; i < n; i++)
		out[i] = row.addrs[i];
	binding_close(h);
	return n;
}

static int cut_prefixes(struct cutter *c, const struct prefix *v, unsigned n, char *why)
{
	int sum = 0;
	for (unsigned i = 0; i < n && sum >= 0; i++) {
		int k = cut_source(c, &v[i], why);
		sum = k < 0 ? -1 : sum + k;
	}
	return sum;
}

static int cut_now(const struct options *o, struct cutter *c, char *why)
{
	struct prefix v[BIND_ADDRS];
	struct entry e;
	if (o->task) {
		unsigned n = find_task(o, v, why);
		return n ? cut_prefixes(c, v, n, why) : -1;
	}
	if (o->source) {
		(void)prefix_from_text(&v[0], o->source, strlen(o->source));
		return cut_prefixes(c, v, 1, why);
	}
	(void)parse_entry(&e, o->entry);
	return cut_sweep(c, is_of_entry, tell_nobody, &e, why);
}

static int run_once(const struct options *o, struct cutter *c)
{
	char why[CUT_WHY_SIZE] = "", digest[13];
	cutter_poll(c, digest, why);
	if (!cutter_ready(c)) {
		fprintf(stderr, "cxctl: %s: %s\n", o->cut.policy, why);
		return EXIT_SYSTEM;
	}
	int n = cut_now(o, c, why);
	if (n < 0)
		return fails(why);
	printf(o->json ? "{\"ok\":true,\"cut\":%d}\n" : "%d cut\n", n);
	return fflush(stdout) == 0 ? EXIT_OK : fails(strerror(errno));
}

/* ---- for good ---- */

static volatile sig_atomic_t ending;

static void on_end(int signal)
{
	ending = 1;
}

/* One line on standard error, as systemd reads it. */
__attribute__((format(printf, 3, 4))) static void say(int priority, const char *event,
						      const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "<%d>%s%s%s\n", priority, event, *text ? " " : "", text);
}

static void tell_log(void *arg, const struct stream *s, const struct verdict *v)
{
	char src[ADDR_TEXT_SIZE], to[ADDR_TEXT_SIZE], name[NAME_TEXT_SIZE] = "";
	addr_to_text(&s->src, src);
	addr_to_text(&s->to, to);
	if (s->n_names > 0)
		name_to_text(&s->names[0], name);
	say(5, "connection-cut", "src=%s port=%u name=%.260s to=%s port=%u reason=%s rule=%.12s",
	    src, s->src_port, name, to, s->port, reason_text(v->reason), s->rule);
}

static void say_event(enum slot_event e, const char *digest, const char *why)
{
	if (e == SLOT_LOADED)
		say(5, "policy-loaded", "policy=%s", digest);
	else if (e == SLOT_REFUSED)
		say(3, "policy-refused", "error=\"%s\" in_force=%s", why,
		    *digest ? digest : "none");
	else if (e == SLOT_RESTORED)
		say(5, "policy-restored", "policy=%s", digest);
}

static void sweep(struct cutter *c, bool *failing)
{
	char why[CUT_WHY_SIZE];
	int n = cut_sweep(c, NULL, tell_log, NULL, why);
	if (n < 0 && !*failing)
		say(3, "cut-failing", "error=\"%s\"", why);
	else if (n >= 0 && *failing)
		say(5, "cut-restored", "%s", "");
	*failing = n < 0;
}

static int follow(struct cutter *c)
{
	const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };
	const struct sigaction end = { .sa_handler = on_end };
	char why[CUT_WHY_SIZE], digest[13];
	bool failing = false;
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	say(5, "ready", "%s", "");
	for (unsigned n = 0; !ending; n++) {
		enum slot_event e = cutter_poll(c, digest, why);
		say_event(e, digest, why);
		if (n % SWEEP_TICKS == 0 || e == SLOT_LOADED)
			sweep(c, &failing);
		nanosleep(&tick, NULL);
	}
	say(5, "ended", "%s", "");
	return EXIT_OK;
}

/* The entry and the prefix are understood, before anything is opened. */
static int check(struct options *o)
{
	struct entry e;
	struct prefix p;
	char why[POLICY_WHY_SIZE] = "";
	if (o->source && prefix_from_text(&p, o->source, strlen(o->source)) != PREFIX_OK)
		return usage("not an address or a prefix", o->source);
	if (o->entry && !parse_entry(&e, o->entry))
		return usage("not a rule's id, a name or a range", o->entry);
	if (o->pubkey && !policy_key_read(o->pubkey, o->key, why))
		return fails(why);
	if (o->pubkey)
		o->cut.trust.public_key = o->key;
	return -1;
}

int run_cut(int argc, char **argv)
{
	struct options o = { .cut = { .policy = "/var/lib/cx/policy.bin",
				      .runtime_dir = "/run/cx",
				      .trust = { .features = FEATURES_ENFORCED } } };
	char why[CUT_WHY_SIZE];
	int rc = parse(&o, argc, argv);
	if (rc < 0)
		rc = check(&o);
	if (rc >= 0)
		return rc;
	struct cutter *c = cutter_open(&o.cut, why);
	if (!c)
		return fails(why);
	rc = o.follow ? follow(c) : run_once(&o, c);
	cutter_close(c);
	return rc;
}
