/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-dns: the resolver shim before an unmodified Unbound. Options, privileges, and the order in which
 * things start; never serves with more privileges than it was told to keep.
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
#include "shared/policy/features.h"
#include "unbound-module/shim/server.h"

enum { EXIT_OK = 0, EXIT_USAGE = 2, EXIT_SYSTEM = 3 };

enum { MAX_DEFAULT_THREADS = 4, MAX_FILES = 65536, DEFAULT_CONNS = 16, DEFAULT_IDLE_S = 10 };

struct options {
	const char *policy, *runtime, *audit, *pubkey, *audience, *user;
	bool denied_only;
	bool has_upstream;
	unsigned max_open; /* 0: the default */
	uint64_t min_serial;
};

static const char usage_text[] =
	"Usage: cx-dns [options] -l ADDR:PORT --upstream ADDR@PORT\n"
	"Answers what a policy allows from the resolver behind it. See cx-dns(8).\n"
	"\n"
	"  -p FILE               compiled policy (/var/lib/cx/policy.bin)\n"
	"  -l ADDR:PORT          listen there, UDP and TCP; [ADDR6]:PORT; may be repeated\n"
	"  --upstream ADDR@PORT  the resolver that is asked\n"
	"  --proxy-v2            tell it each client's address (PROXY protocol, version 2)\n"
	"  -t THREADS            threads that serve (one a CPU, at most 4)\n"
	"  -r DIR                runtime directory (/run/cx)\n"
	"  -a FILE               audit log (/var/log/cx/audit-dns.jsonl); - standard error, '' "
	"none\n"
	"  --audit-only denied   leave what was allowed out of the audit log\n"
	"  -K FILE               require policies signed by this Ed25519 public key (PEM)\n"
	"  --min-serial N        refuse policies with a lower serial, also at the start\n"
	"  --audience NAMES      what this host is: refuse policies that name other audiences "
	"only\n"
	"  --max-open N          questions of one client at the upstream at once (100)\n"
	"  --max-tcp N           TCP connections of one client (16)\n"
	"  --tcp-idle SECONDS    close TCP connections that do nothing for so long (10)\n"
	"  -u USER               give up root for this user once the sockets are open\n"
	"  --help, --version\n"
	"\n"
	"SIGHUP re-reads the policy, SIGTERM drains. Exit: 0 ended, 2 usage, 3 system.\n";

static int usage(const char *what, const char *arg)
{
	fprintf(stderr, "cx-dns: %s%s%s\nTry 'cx-dns --help'.\n", what, arg ? ": " : "",
		arg ? arg : "");
	return EXIT_USAGE;
}

static bool parse_number(uint64_t *out, const char *s, uint64_t least, uint64_t most)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno != 0 || v < least || v > most)
		return false;
	*out = v;
	return true;
}

static unsigned default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > MAX_DEFAULT_THREADS ? MAX_DEFAULT_THREADS : (unsigned)n;
}

static bool add_listener(struct shim_options *so, const char *s)
{
	return so->n_listeners < SHIM_MAX_LISTENERS &&
	       endpoint_from_listen(&so->listen[so->n_listeners++], s);
}

enum {
	OPT_UPSTREAM = 256,
	OPT_PROXY,
	OPT_AUDIT_ONLY,
	OPT_SERIAL,
	OPT_AUDIENCE,
	OPT_OPEN,
	OPT_TCP,
	OPT_IDLE
};

/* True: taken. False: the value is not one. */
static bool take_option(struct options *o, struct shim_options *so, int c, const char *value)
{
	uint64_t n;
	switch (c) {
	case 'p':
		o->policy = value;
		return true;
	case 'l':
		return add_listener(so, value);
	case 't':
		return parse_number(&n, value, 1, SHIM_MAX_THREADS) && (so->threads = (unsigned)n);
	case 'r':
		o->runtime = value;
		return true;
	case 'a':
		o->audit = value;
		return true;
	case 'K':
		o->pubkey = value;
		return true;
	case 'u':
		o->user = value;
		return true;
	case OPT_UPSTREAM:
		return o->has_upstream = endpoint_from_server(&so->upstream, value);
	case OPT_PROXY:
		return so->proxy_v2 = true;
	case OPT_AUDIT_ONLY:
		return o->denied_only = strcmp(value, "denied") == 0;
	case OPT_SERIAL:
		return parse_number(&o->min_serial, value, 0, UINT64_MAX);
	case OPT_AUDIENCE:
		o->audience = value;
		return true;
	case OPT_OPEN:
		return parse_number(&n, value, 1, 4096) && (o->max_open = (unsigned)n);
	case OPT_TCP:
		return parse_number(&n, value, 1, 1024) && (so->max_conns = (unsigned)n);
	default:
		return parse_number(&n, value, 1, 3600) && (so->tcp_idle_s = (double)n) > 0;
	}
}

/* -1: go on; else the exit status. */
static int parse(struct options *o, struct shim_options *so, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "upstream", required_argument, NULL, OPT_UPSTREAM },
		{ "proxy-v2", no_argument, NULL, OPT_PROXY },
		{ "audit-only", required_argument, NULL, OPT_AUDIT_ONLY },
		{ "min-serial", required_argument, NULL, OPT_SERIAL },
		{ "audience", required_argument, NULL, OPT_AUDIENCE },
		{ "max-open", required_argument, NULL, OPT_OPEN },
		{ "max-tcp", required_argument, NULL, OPT_TCP },
		{ "tcp-idle", required_argument, NULL, OPT_IDLE },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 }
	};
	opterr = 0;
	for (int c; (c = getopt_long(argc, argv, "+:p:l:t:r:a:K:u:", longs, NULL)) != -1;) {
		if (c == 'h') {
			fputs(usage_text, stdout);
			return EXIT_OK;
		}
		if (c == 'V') {
			puts("cx-dns " CX_VERSION);
			return EXIT_OK;
		}
		if (c == ':')
			return usage("an option lacks its value", argv[optind - 1]);
		if (c == '?')
			return usage("unknown option", argv[optind - 1]);
		if (!take_option(o, so, c, optarg))
			return usage("not a value of its option", optarg);
	}
	if (optind < argc)
		return usage("unexpected argument", argv[optind]);
	if (so->n_listeners == 0)
		return usage("nowhere to listen: -l ADDR:PORT", NULL);
	if (!o->has_upstream)
		return usage("nobody to ask: --upstream ADDR@PORT", NULL);
	return -1;
}

static int serve(const struct options *o, struct shim_options *so, const struct shim_sockets *s)
{
	const struct decider_options d = {
		.component = "dns",
		.policy_path = o->policy,
		.runtime_dir = o->runtime,
		.pins_write = "dns",
		.max_lookups = o->max_open,
		.audit_path = o->audit[0] ? o->audit : NULL,
		.audit_denied_only = o->denied_only,
		.pubkey_path = o->pubkey,
		.audience = o->audience,
		.min_serial = o->min_serial,
		.features = FEATURES_ENFORCED,
		.log = say_for_decider,
	};
	bool ok = false;
	so->subjects = subjects_new();
	so->decider = so->subjects ? decider_start(&d) : NULL;
	if (so->decider)
		ok = server_run(so, s);
	else
		say(DECIDE_ERR, "start-failed", "what=decider");
	decider_stop(so->decider);
	subjects_free(so->subjects);
	if (ok)
		say(DECIDE_NOTICE, "ended", "%s", "");
	return ok ? EXIT_OK : EXIT_SYSTEM;
}

static int start(const struct options *o, struct shim_options *so)
{
	static struct shim_sockets sockets[SHIM_MAX_THREADS * SHIM_MAX_LISTENERS];
	const struct passwd *pw = o->user ? getpwnam(o->user) : NULL;
	char why[SERVER_WHY];
	int rc = EXIT_SYSTEM;
	if (o->user && !pw)
		return usage("no such user", o->user);
	privilege_raise_files(MAX_FILES);
	if (!server_open(so, sockets, why)) {
		say(DECIDE_ERR, "listen-failed", "error=\"%s\"", why);
		return EXIT_SYSTEM;
	}
	if (privilege_drop(pw))
		rc = serve(o, so, sockets);
	else
		say(DECIDE_ERR, "start-failed", "what=privileges error=\"%s\"", strerror(errno));
	server_close(so, sockets);
	return rc;
}

int main(int argc, char **argv)
{
	static struct shim_options so = { .max_conns = DEFAULT_CONNS,
					  .tcp_idle_s = DEFAULT_IDLE_S };
	struct options o = { .policy = "/var/lib/cx/policy.bin",
			     .runtime = "/run/cx",
			     .audit = "/var/log/cx/audit-dns.jsonl" };
	so.threads = default_threads();
	int rc = parse(&o, &so, argc, argv);
	if (rc >= 0)
		return rc;
	signal(SIGPIPE, SIG_IGN);
	return start(&o, &so);
}
