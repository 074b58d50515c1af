/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-probe: run inside a guest, tries to get out in every way that it knows, and says what held. It
 * reads no policy and trusts no answer of the gateway's. Must never send anything to a target that
 * neither the command line nor a row of the table names.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/tools/probe.h"

enum { EXIT_HELD, EXIT_LEAKED, EXIT_USAGE, EXIT_SYSTEM };
enum { WORKERS = 24, MAX_ONLY = 16, MAX_WAIT_MS = 60000 };

static const char *const verdict_text[] = { "not tried", "held", "LEAKED", "works", "BROKEN" };
static const char *const verdict_json[] = { "not-tried", "held", "leaked", "works", "broken" };

/* ---- targets ---- */

static void set_target(struct probe *p, const char *name, const struct addr *a)
{
	for (size_t i = 0; i < sizeof(p->target) / sizeof(*p->target); i++) {
		if (p->target[i].name && strcmp(p->target[i].name, name) != 0)
			continue;
		p->target[i].name = name;
		p->target[i].known = true;
		p->target[i].addr = *a;
		return;
	}
}

bool probe_target(const struct probe *p, const char *to, struct addr *addr, struct outcome *out)
{
	for (size_t i = 0; i < sizeof(p->target) / sizeof(*p->target); i++) {
		if (!p->target[i].known || strcmp(p->target[i].name, to) != 0)
			continue;
		*addr = p->target[i].addr;
		return true;
	}
	if (addr_from_text(addr, to, strlen(to)))
		return true;
	probe_say(out, PROBE_NOT_TRIED, "no %s is known", to);
	return false;
}

/* The text for one placeholder, or NULL if there is none. */
static const char *placeholder(const struct probe *p, char c, char *canary)
{
	struct outcome none;
	struct addr a;
	if (c == 'A')
		return p->allowed;
	if (c == 'R')
		return p->refused;
	if (c != 'C' || !probe_target(p, "canary4", &a, &none))
		return NULL;
	addr_to_text(&a, canary);
	return canary;
}

size_t probe_expand(const struct probe *p, const char *text, uint8_t *buf, size_t room,
		    struct outcome *out)
{
	char canary[ADDR_TEXT_SIZE];
	size_t n = 0;
	for (const char *t = text; *t; t++) {
		const char *s = t;
		size_t len = 1;
		if (t[0] == '%' && t[1] == '0') {
			s = "";
			t++;
		} else if (t[0] == '%' && strchr("ARC", t[1])) {
			s = placeholder(p, *++t, canary);
			if (!s) {
				probe_say(out, PROBE_NOT_TRIED, "no %s was given",
					  *t == 'A' ? "--allowed name" : "--canary");
				return 0;
			}
			len = strlen(s);
		}
		if (len > room - n) {
			probe_say(out, PROBE_NOT_TRIED, "too long");
			return 0;
		}
		memcpy(buf + n, s, len);
		n += len;
	}
	return n;
}

/* ---- this machine's configuration ---- */

static void find_resolver(struct probe *p)
{
	char line[256], text[64];
	struct addr a;
	FILE *f = fopen("/etc/resolv.conf", "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "nameserver %63[0-9a-fA-F:.]", text) == 1 &&
		    addr_from_text(&a, text, strlen(text))) {
			set_target(p, "resolver", &a);
			break;
		}
	fclose(f);
}

static void find_gateway(struct probe *p)
{
	char line[256];
	FILE *f = fopen("/proc/net/route", "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		char name[64], to[16], via[16];
		if (sscanf(line, "%63s %15s %15s", name, to, via) != 3 ||
		    strcmp(to, "00000000") != 0)
			continue;
		uint32_t raw =
			(uint32_t)strtoul(via, NULL, 16); /* as the kernel has it in memory */
		struct addr a = addr_from_v4((const uint8_t *)&raw);
		set_target(p, "gateway", &a);
		break;
	}
	fclose(f);
}

/* ---- running ---- */

static bool chosen(const char *const *only, unsigned n_only, const struct attempt *a)
{
	for (unsigned i = 0; i < n_only; i++)
		if (fnmatch(only[i], a->id, 0) == 0)
			return true;
	return n_only == 0;
}

static void attempt(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	uint64_t begin = probe_now_ms();
	probe_say(out, PROBE_NOT_TRIED, "the attempt itself failed");
	a->run(p, a, out);
	out->ms = (unsigned)(probe_now_ms() - begin);
}

/* Worker w takes every WORKERS-th attempt; what a worker that dies has not done stays not tried. */
static bool run_all(const struct probe *p, const bool *todo, struct outcome *out)
{
	pid_t pid[WORKERS];
	bool good = true;
	for (unsigned w = 0; w < WORKERS; w++) {
		pid[w] = fork();
		if (pid[w] < 0)
			good = false;
		if (pid[w] != 0)
			continue;
		for (size_t i = w; i < probe_n_attempts; i += WORKERS)
			if (todo[i])
				attempt(p, &probe_attempts[i], &out[i]);
		_exit(0);
	}
	for (unsigned w = 0; w < WORKERS; w++) {
		int status;
		if (pid[w] > 0 && (waitpid(pid[w], &status, 0) != pid[w] || status != 0))
			good = false;
	}
	return good;
}

/* ---- reporting ---- */

static void report_text(const bool *todo, const struct outcome *out)
{
	for (size_t i = 0; i < probe_n_attempts; i++)
		if (todo[i])
			printf("%-9s  %-22s %s: %s (%u ms)\n", verdict_text[out[i].verdict],
			       probe_attempts[i].id, probe_attempts[i].what, out[i].evidence,
			       out[i].ms);
}

static void report_json(const bool *todo, const struct outcome *out, const unsigned *count)
{
	const char *comma = "";
	printf("{\"version\":\"%s\",\"held\":%u,\"leaked\":%u,\"not_tried\":%u,\"works\":%u,"
	       "\"broken\":%u,\"attempts\":[",
	       CX_VERSION, count[PROBE_HELD], count[PROBE_LEAKED], count[PROBE_NOT_TRIED],
	       count[PROBE_WORKS], count[PROBE_BROKEN]);
	for (size_t i = 0; i < probe_n_attempts; i++) {
		if (!todo[i])
			continue;
		printf("%s\n{\"id\":\"%s\",\"what\":\"%s\",\"verdict\":\"%s\",\"evidence\":\"%s\","
		       "\"ms\":%u}",
		       comma, probe_attempts[i].id, probe_attempts[i].what,
		       verdict_json[out[i].verdict], out[i].evidence, out[i].ms);
		comma = ",";
	}
	printf("]}\n");
}

static int finish(const bool *todo, const struct outcome *out, bool json)
{
	unsigned count[PROBE_BROKEN + 1] = { 0 };
	for (size_t i = 0; i < probe_n_attempts; i++)
		if (todo[i])
			count[out[i].verdict]++;
	if (json)
		report_json(todo, out, count);
	else
		report_text(todo, out);
	if (!json)
		printf("%u held, %u leaked, %u not tried\n", count[PROBE_HELD], count[PROBE_LEAKED],
		       count[PROBE_NOT_TRIED]);
	if (count[PROBE_LEAKED])
		return EXIT_LEAKED;
	if (!count[PROBE_BROKEN] && count[PROBE_HELD])
		return EXIT_HELD;
	fprintf(stderr, "cx-probe: %s: that nothing got out shows nothing\n",
		count[PROBE_BROKEN] ? "what is allowed is not reached" : "nothing was tried");
	return EXIT_SYSTEM;
}

static int probe(const struct probe *p, const char *const *only, unsigned n_only, bool json)
{
	size_t size = probe_n_attempts * sizeof(struct outcome);
	struct outcome *out =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool *todo = calloc(probe_n_attempts, sizeof(*todo));
	if (out == MAP_FAILED || !todo) {
		fprintf(stderr, "cx-probe: %s\n", strerror(errno));
		return EXIT_SYSTEM;
	}
	for (size_t i = 0; i < probe_n_attempts; i++) {
		todo[i] = chosen(only, n_only, &probe_attempts[i]);
		probe_say(&out[i], PROBE_NOT_TRIED, "its process ended early");
	}
	fflush(stdout);
	int rc = EXIT_SYSTEM;
	if (run_all(p, todo, out))
		rc = finish(todo, out, json);
	else
		fprintf(stderr, "cx-probe: attempts could not be run\n");
	free(todo);
	munmap(out, size);
	return rc;
}

/* ---- the command line ---- */

static const char help[] =
	"usage: cx-probe [options]\n"
	"       cx-probe --serve ADDR[,ADDR6]     (the canary, outside)\n"
	"\n"
	"Run inside a guest: tries to get out, and says what held.\n"
	"\n"
	"  -a, --allowed NAME      a name that the policy lists for https\n"
	"  -r, --refused NAME      a name that exists and is not listed (example.com)\n"
	"  -c, --canary ADDR,...   addresses outside, on which `cx-probe --serve` runs\n"
	"  -R, --resolver ADDR     instead of that in /etc/resolv.conf\n"
	"  -g, --gateway ADDR      instead of the default route's\n"
	"  -n, --neighbour ADDR    another guest's address\n"
	"  -s, --spoof ADDR        a source address that is not this guest's\n"
	"  -w, --wait MS           for an answer, each attempt (2000)\n"
	"  -o, --only PATTERN      only attempts of such an id; can be repeated\n"
	"      --list              the attempts, and nothing is tried\n"
	"      --json              one JSON object\n"
	"      --help, --version\n"
	"\n"
	"Exit status: 0 all held, 1 something leaked, 2 usage, 3 it could not be tried.\n";

enum { OPT_LIST = 256, OPT_JSON, OPT_SERVE, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "allowed", required_argument, NULL, 'a' },
	{ "refused", required_argument, NULL, 'r' },
	{ "canary", required_argument, NULL, 'c' },
	{ "resolver", required_argument, NULL, 'R' },
	{ "gateway", required_argument, NULL, 'g' },
	{ "neighbour", required_argument, NULL, 'n' },
	{ "spoof", required_argument, NULL, 's' },
	{ "wait", required_argument, NULL, 'w' },
	{ "only", required_argument, NULL, 'o' },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "serve", required_argument, NULL, OPT_SERVE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static bool give_target(struct probe *p, const char *name, const char *text)
{
	struct addr a;
	bool good = addr_from_text(&a, text, strlen(text));
	if (good)
		set_target(p, name, &a);
	else
		fprintf(stderr, "cx-probe: %s is no address\n", text);
	return good;
}

static bool give_canaries(struct probe *p, const char *text)
{
	for (;;) {
		size_t n = strcspn(text, ",");
		struct addr a;
		if (!addr_from_text(&a, text, n)) {
			fprintf(stderr, "cx-probe: %.*s is no address\n", (int)n, text);
			return false;
		}
		set_target(p, addr_is_v4(&a) ? "canary4" : "canary6", &a);
		if (!text[n])
			return true;
		text += n + 1;
	}
}

static bool give_wait(struct probe *p, const char *text)
{
	char *end;
	errno = 0;
	unsigned long ms = strtoul(text, &end, 10);
	if (errno || *end || ms < 10 || ms > MAX_WAIT_MS) {
		fprintf(stderr, "cx-probe: %s is no time between 10 and %d ms\n", text,
			MAX_WAIT_MS);
		return false;
	}
	p->wait_ms = (unsigned)ms;
	return true;
}

static bool give_name(const char **where, const char *text)
{
	size_t n = strlen(text);
	if (n == 0 || n > 200 ||
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789-_.") != n) {
		fprintf(stderr, "cx-probe: %s is no host name\n", text);
		return false;
	}
	*where = text;
	return true;
}

static int list(void)
{
	for (size_t i = 0; i < probe_n_attempts; i++)
		printf("%-22s %s\n", probe_attempts[i].id, probe_attempts[i].what);
	return EXIT_HELD;
}

static bool give(struct probe *p, int c, const char *text)
{
	switch (c) {
	case 'a':
		return give_name(&p->allowed, text);
	case 'r':
		return give_name(&p->refused, text);
	case 'c':
		return give_canaries(p, text);
	case 'R':
		return give_target(p, "resolver", text);
	case 'g':
		return give_target(p, "gateway", text);
	case 'n':
		return give_target(p, "neighbour", text);
	case 's':
		return give_target(p, "spoof", text);
	case 'w':
		return give_wait(p, text);
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	struct probe p = { .refused = "example.com", .wait_ms = 2000 };
	const char *only[MAX_ONLY], *serve = NULL;
	unsigned n_only = 0;
	bool json = false;
	int c;
	find_resolver(&p);
	find_gateway(&p);
	while ((c = getopt_long(argc, argv, "a:r:c:R:g:n:s:w:o:", options, NULL)) != -1) {
		if (c == OPT_HELP)
			return fputs(help, stdout) < 0;
		if (c == OPT_VERSION)
			return printf("cx-probe %s\n", CX_VERSION) < 0;
		if (c == OPT_LIST)
			return list();
		if (c == OPT_JSON)
			json = true;
		else if (c == OPT_SERVE)
			serve = optarg;
		else if (c == 'o' && n_only < MAX_ONLY)
			only[n_only++] = optarg;
		else if (!give(&p, c, optarg))
			return EXIT_USAGE;
	}
	if (optind != argc) {
		fputs("cx-probe: arguments without an option; see --help\n", stderr);
		return EXIT_USAGE;
	}
	return serve ? probe_serve(serve) : probe(&p, only, n_only, json);
}
