/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks verdict() the questions of compiled verdict cases (README.md) and compares the answers. Takes
 * NAME.ask files, made by cases.py, each beside its NAME.bin. Never decides what is right.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shared/policy/features.h"
#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"
#include "shared/tools/target.h"

enum { MAX_ADDRS = 64, N_FIELDS = 9 };

struct addrs {
	struct addr v[MAX_ADDRS];
	unsigned n;
};

struct run {
	const char *name;
	struct policy *policy;
	struct facts facts;
	struct addrs locals;
	unsigned passed, failed;
};

/* The tab-separated fields of one `ask` line, in order. */
struct ask {
	char *source, *target, *method, *resolved, *upgrade, *ech, *verdict, *reason, *entry;
};

static void complain(struct run *r, const struct ask *a, const char *got)
{
	r->failed++;
	printf("%s: %s %s%s%s: expected %s %s %s, got %s\n", r->name, a->source, a->target,
	       *a->method == '-' ? "" : " --method ", *a->method == '-' ? "" : a->method,
	       a->verdict, a->reason, *a->entry == '-' ? "" : a->entry, got);
}

static bool read_addr(struct addrs *to, const char *s, size_t n)
{
	return to->n < MAX_ADDRS && addr_from_text(&to->v[to->n++], s, n);
}

static bool read_addrs(struct addrs *to, const char *s)
{
	while (*s) {
		size_t n = strcspn(s, ",");
		if (!read_addr(to, s, n))
			return false;
		s += n + (s[n] == ',');
	}
	return true;
}

static int by_value(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

static const char *action_word(const struct verdict *v)
{
	static const char *const next[] = { "next-?", "next-tls", "next-http", "next-raw" };
	if (v->action == ACTION_DENY)
		return "deny";
	if (v->action == ACTION_NEXT)
		return next[v->next];
	return v->observed ? "observe" : "allow";
}

static void compare(struct run *r, const struct ask *a, const struct verdict *v)
{
	struct rule_info info = { .pattern = "-" };
	char got[512];
	if (r->policy)
		policy_rule_info(r->policy, v->rule, v->rec, &info);
	snprintf(got, sizeof(got), "%s %s %s", action_word(v), reason_text(v->reason),
		 info.pattern);
	if (strcmp(a->verdict, action_word(v)) != 0 ||
	    strcmp(a->reason, reason_text(v->reason)) != 0 ||
	    (strcmp(a->entry, "-") != 0 && strcmp(a->entry, info.pattern) != 0))
		complain(r, a, got);
	else
		r->passed++;
}

static void ask(struct run *r, const struct ask *a)
{
	struct target t;
	struct addrs resolved = { .n = 0 };
	struct verdict v;
	char why[TARGET_WHY_SIZE];
	if (!target_parse(&t, a->target, why)) {
		complain(r, a, why);
		return;
	}
	if (!addr_from_text(&t.q.src, a->source, strlen(a->source))) {
		complain(r, a, "a source that is no address");
		return;
	}
	if (strcmp(a->method, "-") != 0) {
		t.q.method = a->method;
		t.q.method_len = strlen(a->method);
	}
	if (strcmp(a->upgrade, "-") != 0) {
		t.q.upgrade = a->upgrade;
		t.q.upgrade_len = strlen(a->upgrade);
	}
	t.q.ech = strcmp(a->ech, "ech") == 0;
	if (strcmp(a->resolved, "-") != 0) {
		if (!read_addrs(&resolved, a->resolved)) {
			complain(r, a, "addresses that are none");
			return;
		}
		t.q.resolved = resolved.v;
		t.q.n_resolved = resolved.n;
	}
	verdict(r->policy, &t.q, &r->facts, &v);
	compare(r, a, &v);
}

static bool split(struct ask *a, char *line)
{
	char **field = (char **)a;
	for (unsigned i = 0; i < N_FIELDS; i++) {
		field[i] = strsep(&line, "\t");
		if (!field[i])
			return false;
	}
	return line == NULL;
}

static bool set_clock(struct run *r, const char *s)
{
	struct tm tm = { 0 };
	const char *end = strptime(s, "%Y-%m-%dT%H:%M:%SZ", &tm);
	r->facts.now.wall_ns = (int64_t)timegm(&tm) * 1000000000;
	return end && !*end;
}

static bool read_line(struct run *r, char *line)
{
	struct ask a;
	if (strncmp(line, "clock\t", 6) == 0)
		return set_clock(r, line + 6);
	if (strncmp(line, "local\t", 6) == 0) {
		if (!read_addrs(&r->locals, line + 6))
			return false;
		qsort(r->locals.v, r->locals.n, sizeof(struct addr), by_value);
		r->facts.locals = (struct addr_set){ r->locals.v, r->locals.n };
		return true;
	}
	if (strncmp(line, "ask\t", 4) != 0 || !split(&a, line + 4))
		return false;
	ask(r, &a);
	return true;
}

/* NAME.ask -> NAME.bin; a case without a policy has no such file. */
static bool open_policy(struct run *r, const char *path)
{
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	char bin[1024], why[POLICY_WHY_SIZE];
	int n = (int)strlen(path) - 4;
	if (n < 1 || strcmp(path + n, ".ask") != 0)
		return false;
	snprintf(bin, sizeof(bin), "%.*s.bin", n, path);
	if (access(bin, F_OK) != 0)
		return true;
	enum policy_err e = policy_open(&r->policy, bin, &trust, why);
	if (e != POLICY_OK)
		printf("%s: %s: %s\n", r->name, policy_strerror(e), why);
	return e == POLICY_OK;
}

static bool run_case(const char *path, unsigned *passed, unsigned *failed)
{
	struct run r = { .name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path };
	char line[4096];
	bool ok = open_policy(&r, path);
	FILE *f = ok ? fopen(path, "r") : NULL;
	ok = f != NULL;
	while (ok && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		ok = read_line(&r, line);
		if (!ok)
			printf("%s: cannot read: %s\n", r.name, line);
	}
	if (f)
		fclose(f);
	policy_close(r.policy);
	*passed += r.passed;
	*failed += r.failed + !ok;
	return ok && r.failed == 0;
}

int main(int argc, char **argv)
{
	unsigned passed = 0, failed = 0;
	for (int i = 1; i < argc; i++)
		(void)run_case(argv[i], &passed, &failed);
	printf("%u passed, %u failed\n", passed, failed);
	return failed || !passed;
}
