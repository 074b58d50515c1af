/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of a policy (trials.h). Never decides: verdict() does. */
#include "shared/tools/trials.h"

#include <stdlib.h>
#include <string.h>

#include "shared/policy/image.h"
#include "shared/policy/verdict.h"
#include "shared/tools/target.h"

struct run {
	const struct model *m;
	struct policy p;
	struct facts facts;
	bool *reached; /* by rule */
	struct trials *out;
};

static uint32_t profile_named(const struct model *m, const char *name)
{
	for (uint32_t i = 0; i < m->n_profiles; i++)
		if (strcmp(m->profiles[i].name, name) == 0)
			return i;
	return UINT32_MAX;
}

static bool is_expected(const struct policy_test *t, const struct verdict *v)
{
	if (t->allow)
		return v->action != ACTION_DENY;
	return v->action == ACTION_DENY &&
	       (strcmp(t->reason, "any") == 0 || strcmp(t->reason, reason_text(v->reason)) == 0);
}

/* What came, in the words of `cxctl explain`. */
static void describe(const struct run *r, const struct verdict *v, char *buf, size_t size)
{
	struct rule_info info;
	bool plain = v->action != ACTION_DENY && !v->observed;
	int n = snprintf(buf, size, "%s%s%s%s",
			 v->action == ACTION_DENY ? "denied"
			 : v->observed            ? "allowed only because the profile observes"
						  : "allowed",
			 plain ? "" : " (", plain ? "" : reason_text(v->reason), plain ? "" : ")");
	if (n > 0 && (size_t)n < size && policy_rule_info(&r->p, v->rule, v->rec, &info))
		snprintf(buf + n, size - (size_t)n, ", decided by \"%.100s\" at %.100s:%u",
			 info.pattern, info.file, info.line);
}

static void say_failure(const struct run *r, const struct policy_test *t, const struct verdict *v)
{
	char came[512];
	describe(r, v, came, sizeof(came));
	diag_error(r->m->diags, t->pos, "test-failed", "%.100s%s%.100s must be %s%s%s%s, but is %s",
		   t->name, *t->name ? ": " : "", t->target, t->allow ? "allowed" : "denied",
		   t->allow ? "" : " (", t->allow ? "" : t->reason, t->allow ? "" : ")", came);
}

static bool ask(struct run *r, const struct policy_test *t)
{
	struct target target;
	struct verdict v;
	char why[TARGET_WHY_SIZE];
	if (!target_parse(&target, t->target, why)) {
		diag_error(r->m->diags, t->pos, "bad-value", "\"%.100s\" is not a target: %s",
			   t->target, why);
		return false;
	}
	if (*t->profile) {
		verdict_in(&r->p, profile_named(r->m, t->profile), &target.q, &r->facts, &v);
	} else {
		target.q.src = t->source;
		verdict(&r->p, &target.q, &r->facts, &v);
	}
	if (v.rule < r->p.n_rules)
		r->reached[v.rule] = true;
	if (target.q.layer == LAYER_TCP && v.action == ACTION_NEXT) {
		diag_error(r->m->diags, t->pos, "test-failed",
			   "%.100s is neither allowed nor denied: on this port the %s is read "
			   "first, and its name decides; test that name",
			   t->target, v.next == NEXT_TLS ? "TLS hello" : "HTTP request");
		return false;
	}
	if (is_expected(t, &v))
		return true;
	say_failure(r, t, &v);
	return false;
}

static struct pos pos_of(const struct model *m, const struct rule_info *info)
{
	for (uint32_t i = 0; i < m->n_files; i++)
		if (strcmp(m->files[i], info->file) == 0)
			return (struct pos){ i, info->line, info->col };
	return (struct pos){ 0 };
}

static void say_coverage(const struct run *r)
{
	for (uint32_t i = 0; i < r->p.n_rules; i++) {
		struct rule_info info;
		if (!policy_rule_info(&r->p, i, UINT32_MAX, &info) || info.preset)
			continue;
		r->out->entries++;
		r->out->reached += r->reached[i];
		if (!r->reached[i])
			diag(r->m->diags, pos_of(r->m, &info), DIAG_NOTE, "untested",
			     "no test reaches %s\"%.200s\"", info.deny ? "the deny of " : "",
			     info.pattern);
	}
}

bool trials_run(const struct model *m, const uint8_t *bytes, size_t len, int64_t now_s,
		bool coverage, struct trials *out)
{
	const struct policy_trust any = { .features = UINT64_MAX, .any_owner = true };
	struct run r = { .m = m, .p = { .base = bytes, .size = len }, .out = out };
	char why[POLICY_WHY_SIZE] = "";
	*out = (struct trials){ 0 };
	r.facts.now.wall_ns = now_s * 1000000000;
	enum policy_err e = image_check(&r.p, &any, why);
	r.reached = e == POLICY_OK ? calloc(r.p.n_rules + (size_t)1, sizeof(*r.reached)) : NULL;
	if (!r.reached) {
		diag_error(m->diags, (struct pos){ 0 }, "system",
			   "the compiled policy cannot be tested: %s %s",
			   e == POLICY_OK ? "out of memory" : policy_strerror(e), why);
		return false;
	}
	for (uint32_t i = 0; i < m->n_tests; i++) {
		bool passed = ask(&r, &m->tests[i]);
		out->passed += passed;
		out->failed += !passed;
	}
	if (coverage)
		say_coverage(&r);
	free(r.reached);
	return true;
}
