/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks verdict() what stands on standard input, a line a question, and prints a line an answer; the
 * oracle (run.py) compares. Never decides what is right.
 *
 *   policy PATH                       the compiled policy that is asked from here on
 *   clock SECONDS                     since 1970
 *   locals ADDR,...                   the gateway's own addresses, or -
 *   ask SRC TARGET METHOD UPGRADE FLAGS RESOLVED
 *
 * Fields are apart by tabs, - is none. FLAGS: ech, malformed, no-sni, name-mismatch, internal, by
 * commas. RESOLVED: addresses by commas, = for an empty answer. An answer is
 *   ACTION NEXT REASON ADDR PROFILE FILE LINE PATTERN
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"
#include "shared/tools/target.h"

enum { MAX_ADDRS = 64, MAX_FIELDS = 8 };

struct addrs {
	struct addr v[MAX_ADDRS];
	size_t n;
};

struct session {
	struct policy *policy;
	struct facts facts;
	struct addrs locals;
};

static void die(const char *what, const char *line)
{
	fprintf(stderr, "ask: %s: %s\n", what, line);
	exit(3);
}

static unsigned split(char *line, char *field[MAX_FIELDS])
{
	unsigned n = 0;
	for (char *s; n < MAX_FIELDS && (s = strsep(&line, "\t"));)
		field[n++] = s;
	return n;
}

static void read_addrs(struct addrs *to, const char *s)
{
	to->n = 0;
	while (*s) {
		size_t n = strcspn(s, ",");
		if (to->n == MAX_ADDRS || !addr_from_text(&to->v[to->n++], s, n))
			die("no addresses", s);
		s += n + (s[n] == ',');
	}
}

static int by_value(const void *a, const void *b)
{
	return addr_cmp(a, b);
}

static void take_policy(struct session *s, const char *path)
{
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	char why[POLICY_WHY_SIZE];
	policy_close(s->policy);
	s->policy = NULL;
	if (policy_open(&s->policy, path, &trust, why) != POLICY_OK)
		die(why, path);
}

static void take_locals(struct session *s, const char *list)
{
	read_addrs(&s->locals, strcmp(list, "-") == 0 ? "" : list);
	qsort(s->locals.v, s->locals.n, sizeof(struct addr), by_value);
	s->facts.locals = (struct addr_set){ s->locals.v, s->locals.n };
}

static void set_flags(struct question *q, const char *flags)
{
	static const struct {
		const char *text;
		enum question_flaw flaw;
	} flaws[] = { { "malformed", FLAW_MALFORMED },
		      { "no-sni", FLAW_NO_SNI },
		      { "name-mismatch", FLAW_NAME_MISMATCH },
		      { "internal", FLAW_INTERNAL } };
	q->ech = strstr(flags, "ech") != NULL;
	for (size_t i = 0; i < sizeof(flaws) / sizeof(flaws[0]); i++)
		if (strstr(flags, flaws[i].text))
			q->flaw = flaws[i].flaw;
}

static void print_answer(const struct session *s, const struct verdict *v)
{
	static const char *const actions[] = { "deny", "allow", "next" };
	struct rule_info info = { .pattern = "-", .file = "-" };
	policy_rule_info(s->policy, v->rule, v->rec, &info);
	const char *next = next_text(v->next);
	printf("%s%s\t%s\t%s\t%u\t%s\t%s\t%u\t%s\n", v->observed ? "observe-" : "",
	       actions[v->action], *next ? next : "-", reason_text(v->reason), v->addr,
	       v->profile == UINT32_MAX ? "-" : policy_profile_name(s->policy, v->profile),
	       info.file, info.line, info.pattern);
}

static void ask(struct session *s, char *const field[MAX_FIELDS])
{
	struct target t;
	struct addrs resolved;
	struct verdict v;
	char why[TARGET_WHY_SIZE];
	if (!target_parse(&t, field[2], why))
		die(why, field[2]);
	if (!addr_from_text(&t.q.src, field[1], strlen(field[1])))
		die("no address", field[1]);
	if (strcmp(field[3], "-") != 0) {
		t.q.method = field[3];
		t.q.method_len = strlen(field[3]);
	}
	if (strcmp(field[4], "-") != 0) {
		t.q.upgrade = field[4];
		t.q.upgrade_len = strlen(field[4]);
	}
	set_flags(&t.q, field[5]);
	if (strcmp(field[6], "-") != 0) {
		read_addrs(&resolved, strcmp(field[6], "=") == 0 ? "" : field[6]);
		t.q.resolved = resolved.v;
		t.q.n_resolved = (unsigned)resolved.n;
	}
	verdict(s->policy, &t.q, &s->facts, &v);
	print_answer(s, &v);
}

int main(void)
{
	struct session s = { .policy = NULL };
	char *line = NULL, *field[MAX_FIELDS];
	size_t cap = 0;
	for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
		line[n - 1] = '\0';
		unsigned k = split(line, field);
		if (k == 2 && strcmp(field[0], "policy") == 0)
			take_policy(&s, field[1]);
		else if (k == 2 && strcmp(field[0], "clock") == 0)
			s.facts.now.wall_ns = (int64_t)atoll(field[1]) * 1000000000;
		else if (k == 2 && strcmp(field[0], "locals") == 0)
			take_locals(&s, field[1]);
		else if (k == 7 && strcmp(field[0], "ask") == 0)
			ask(&s, field);
		else
			die("cannot read", field[0]);
	}
	policy_close(s.policy);
	free(line);
	return fflush(stdout) != 0;
}
