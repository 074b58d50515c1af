/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-spoa: the agent beside HAProxy. Options, privileges, and the order in which things start; never
 * serves with more privileges than it was told to keep.
 */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/host/privilege.h"
#include "shared/host/say.h"
#include "shared/live/decide.h"
#include "shared/policy/features.h"
#include "spoa-agent/listen.h"
#include "spoa-agent/server.h"

enum { EXIT_OK = 0, EXIT_USAGE = 2, EXIT_SYSTEM = 3 };

enum {
	MAX_DEFAULT_THREADS = 4,
	MAX_FILES = 65536,
	IN_FLIGHT_PER_THREAD = 1024,
	CACHE_PER_THREAD = 2048,
	SPEC_SIZE = 128
};

static const double resolve_deadline_s = 3;

struct options {
	const char *policy, *runtime, *audit, *pubkey, *audience, *resolver, *user;
	const char *secrets, *peer;
	const char *listen[SERVER_MAX_LISTENERS];
	unsigned n_listen;
	unsigned threads;
	uint64_t min_serial;
	bool takeover;
	char default_listen[SPEC_SIZE];
};

static const char usage_text[] =
	"Usage: cx-spoa [options]\n"
	"The agent that tells HAProxy (SPOE) what a policy allows. See cx-spoa(8).\n"
	"\n"
	"  -p FILE               compiled policy (/var/lib/cx/policy.bin)\n"
	"  -l unix:PATH          listen on a unix socket (unix:RUNTIME_DIR/spoa.sock)\n"
	"  -l tcp:ADDR:PORT      listen on TCP; may be repeated, as may unix:\n"
	"  -t THREADS            threads that carry connections (one a CPU, at most 4)\n"
	"  -r DIR                runtime directory (/run/cx)\n"
	"  -a FILE               audit log (/var/log/cx/audit.jsonl); - standard error, '' none\n"
	"  -K FILE               require policies signed by this Ed25519 public key (PEM)\n"
	"  --min-serial N        refuse policies with a lower serial, also at the start\n"
	"  --audience NAMES      what this host is: refuse policies that name other audiences "
	"only\n"
	"  --resolver ADDR@PORT  the gateway's resolver for names (127.0.0.1@5335)\n"
	"  --takeover            take a unix socket over from an agent that listens there\n"
	"  --secrets DIR         the gateway's own secrets, one file each (/etc/cx/secrets)\n"
	"  --peer USER           HAProxy's user, who alone may be told them (haproxy)\n"
	"  -u USER               give up root for this user once the sockets are open\n"
	"  --help, --version\n"
	"\n"
	"SIGHUP re-reads the policy, SIGTERM drains. Exit: 0 ended, 2 usage, 3 system.\n";

static int usage(const char *what, const char *arg)
{
	fprintf(stderr, "cx-spoa: %s%s%s\nTry 'cx-spoa --help'.\n", what, arg ? ": " : "",
		arg ? arg : "");
	return EXIT_USAGE;
}

static bool parse_threads(struct options *o, const char *s)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);
	if (*s < '1' || *s > '9' || *end || v > SERVER_MAX_THREADS)
		return false;
	o->threads = (unsigned)v;
	return true;
}

static bool parse_serial(struct options *o, const char *s)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno != 0)
		return false;
	o->min_serial = v;
	return true;
}

static unsigned default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > MAX_DEFAULT_THREADS ? MAX_DEFAULT_THREADS : (unsigned)n;
}

/* -1: go on; else the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = { { "resolver", required_argument, NULL, 'R' },
					       { "audience", required_argument, NULL, 'A' },
					       { "takeover", no_argument, NULL, 'T' },
					       { "secrets", required_argument, NULL, 'D' },
					       { "peer", required_argument, NULL, 'P' },
					       { "min-serial", required_argument, NULL, 'S' },
					       { "help", no_argument, NULL, 'h' },
					       { "version", no_argument, NULL, 'V' },
					       { 0 } };
	opterr = 0;
	for (int c; (c = getopt_long(argc, argv, "+:p:l:t:r:a:K:u:", longs, NULL)) != -1;) {
		switch (c) {
		case 'p':
			o->policy = optarg;
			break;
		case 'l':
			if (o->n_listen == SERVER_MAX_LISTENERS)
				return usage("too many listeners", NULL);
			o->listen[o->n_listen++] = optarg;
			break;
		case 't':
			if (!parse_threads(o, optarg))
				return usage("not a number of threads", optarg);
			break;
		case 'r':
			o->runtime = optarg;
			break;
		case 'a':
			o->audit = optarg;
			break;
		case 'K':
			o->pubkey = optarg;
			break;
		case 'S':
			if (!parse_serial(o, optarg))
				return usage("not a serial", optarg);
			break;
		case 'A':
			o->audience = optarg;
			break;
		case 'T':
			o->takeover = true;
			break;
		case 'R':
			o->resolver = optarg;
			break;
		case 'D':
			o->secrets = optarg;
			break;
		case 'P':
			o->peer = optarg;
			break;
		case 'u':
			o->user = optarg;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return EXIT_OK;
		case 'V':
			puts("cx-spoa " CX_VERSION);
			return EXIT_OK;
		case ':':
			return usage("an option lacks its value", argv[optind - 1]);
		default:
			return usage("unknown option", argv[optind - 1]);
		}
	}
	return optind < argc ? usage("unexpected argument", argv[optind]) : -1;
}

static bool default_listener(struct options *o)
{
	if (o->n_listen > 0)
		return true;
	int n = snprintf(o->default_listen, SPEC_SIZE, "unix:%s/spoa.sock", o->runtime);
	o->listen[o->n_listen++] = o->default_listen;
	return n > 0 && n < SPEC_SIZE;
}

static bool listen_failed(struct listener *l, unsigned n, const char *on, const char *why)
{
	say(DECIDE_ERR, "listen-failed", "on=\"%s\" error=\"%s\"", on, why);
	while (n-- > 0)
		listener_close(&l[n]);
	return false;
}

/* What systemd passes, what -l says, and the default if neither says anything. */
static bool open_listeners(struct options *o, const struct passwd *pw, struct listener *l,
			   unsigned *n)
{
	const struct listen_options lo = { .uid = pw ? pw->pw_uid : (uid_t)-1,
					   .gid = pw ? pw->pw_gid : (gid_t)-1,
					   .takeover = o->takeover };
	char why[LISTEN_WHY];
	int passed = listeners_passed(l, SERVER_MAX_LISTENERS - o->n_listen, why);
	if (passed < 0)
		return listen_failed(l, 0, "systemd", why);
	*n = (unsigned)passed;
	if (*n == 0 && !default_listener(o))
		return listen_failed(l, 0, o->runtime, "the directory's name is too long");
	for (unsigned i = 0; i < o->n_listen; i++, (*n)++)
		if (!listener_open(&l[*n], o->listen[i], &lo, why))
			return listen_failed(l, *n, o->listen[i], why);
	return true;
}

static int serve(const struct options *o, struct server_options *so)
{
	const struct decider_options d = {
		.component = "spoa",
		.policy_path = o->policy,
		.runtime_dir = o->runtime,
		.audit_path = o->audit[0] ? o->audit : NULL,
		.pubkey_path = o->pubkey,
		.audience = o->audience,
		.min_serial = o->min_serial,
		.features = FEATURES_ENFORCED,
		.log = say_for_decider,
	};
	so->decider = decider_start(&d);
	if (!so->decider) {
		say(DECIDE_ERR, "start-failed", "what=decider");
		return EXIT_SYSTEM;
	}
	char why[STREAM_WHY_SIZE];
	so->streams = streams_create(o->runtime, why);
	if (!so->streams)
		say(DECIDE_WARNING, "streams-unusable", "dir=\"%s\" error=\"%s\"", o->runtime, why);
	bool ok = server_run(so);
	streams_close(so->streams);
	decider_stop(so->decider);
	say(DECIDE_NOTICE, "ended", "%s", "");
	return ok ? EXIT_OK : EXIT_SYSTEM;
}

static int start(struct options *o, struct server_options *so)
{
	struct listener listeners[SERVER_MAX_LISTENERS];
	const struct passwd *pw = NULL;
	if (o->user) {
		pw = getpwnam(o->user);
		if (!pw)
			return usage("no such user", o->user);
	}
	privilege_raise_files(MAX_FILES);
	if (!open_listeners(o, pw, listeners, &so->n_listeners))
		return EXIT_SYSTEM;
	so->listeners = listeners;
	int rc = EXIT_SYSTEM;
	if (!privilege_drop(pw))
		say(DECIDE_ERR, "start-failed", "what=privileges error=\"%s\"", strerror(errno));
	else
		rc = serve(o, so);
	for (unsigned i = 0; i < so->n_listeners; i++)
		listener_close(&listeners[i]);
	so->listeners = NULL;
	return rc;
}

int main(int argc, char **argv)
{
	struct options o = { .policy = "/var/lib/cx/policy.bin",
			     .runtime = "/run/cx",
			     .audit = "/var/log/cx/audit.jsonl",
			     .resolver = "127.0.0.1@5335",
			     .secrets = "/etc/cx/secrets",
			     .peer = "haproxy",
			     .threads = default_threads() };
	struct server_options so = { .resolver = { .deadline_s = resolve_deadline_s,
						   .max_in_flight = IN_FLIGHT_PER_THREAD,
						   .cache_names = CACHE_PER_THREAD } };
	int rc = parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	if (!resolver_server(&so.resolver, o.resolver))
		return usage("not ADDR@PORT", o.resolver);
	so.threads = o.threads;
	so.secrets = o.secrets;
	const struct passwd *peer = getpwnam(o.peer);
	so.peer = peer ? peer->pw_uid : (uid_t)-1;
	signal(SIGPIPE, SIG_IGN);
	return start(&o, &so);
}
