/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tests` -> struct policy_test: what is expected of the policy. Must never drop an expectation
 * without a message.
 */
#include <string.h>

#include "shared/compile/build.h"
#include "shared/policy/verdict.h"

static void skip_key(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)b;
	(void)k;
	(void)v;
	(void)to;
}

static bool is_target(const char *s)
{
	static const char *const schemes[] = { "dns:", "https://", "http://", "connect:", "tcp:" };
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t n = strlen(schemes[i]);
		if (strncmp(s, schemes[i], n) == 0)
			return s[n] != '\0' && strcspn(s, " \t\n") == strlen(s);
	}
	return false;
}

static void add_test(struct build *b, const struct policy_test *like, const struct node *target,
		     bool allow, const char *reason)
{
	if (!want_text(b, target, "a target"))
		return;
	if (!is_target(target->text)) {
		diag_error(b->d, target->pos, "bad-value",
			   "\"%.100s\" is not a target: dns:NAME[/TYPE], https://HOST[:PORT], "
			   "http://HOST[:PORT]/PATH, connect:HOST:PORT or tcp:IP:PORT",
			   target->text);
		return;
	}
	b->tests = arena_grow(b->a, b->tests, b->n_tests, &b->cap_tests, sizeof(*b->tests));
	struct policy_test *t = &b->tests[b->n_tests++];
	*t = *like;
	t->pos = target->pos;
	t->target = target->text;
	t->allow = allow;
	t->reason = reason;
}

static void read_test_allow(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (!want_seq(b, v, k->text))
		return;
	node_for_each(item, v) add_test(b, to, item, true, "");
}

static const char *read_reason(struct build *b, const struct node *v)
{
	static const char *const words[] = {
#define X(name, text) text,
		REASONS(X)
#undef X
			"any"
	};
	int i = -1;
	if (!want_text(b, v, "a reason"))
		return NULL;
	for (size_t j = 0; j < sizeof(words) / sizeof(words[0]); j++)
		if (strcmp(words[j], v->text) == 0)
			i = (int)j;
	if (i >= 0 && strcmp(v->text, "allowed") != 0)
		return words[i];
	diag_error(b->d, v->pos, "bad-value",
		   "\"%.60s\" is not a reason of a denial such as not-listed, or any", v->text);
	return NULL;
}

static void read_test_deny(struct build *b, const struct node *k, const struct node *v, void *to)
{
	if (v->type == NODE_SEQ) {
		node_for_each(item, v) add_test(b, to, item, false, "any");
		return;
	}
	if (!want_map(b, v, k->text))
		return;
	node_for_each_pair(target, value, v)
	{
		const char *reason = read_reason(b, value);
		if (reason)
			add_test(b, to, target, false, reason);
	}
}

static void read_test_profile(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)k;
	if (find_profile(b, v) >= 0)
		((struct policy_test *)to)->profile = v->text;
}

static void read_test_source(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct policy_test *t = to;
	if (want_text(b, v, k->text) && !addr_from_text(&t->source, v->text, v->n))
		diag_error(b->d, v->pos, "bad-value", "\"%.60s\" is not an address", v->text);
}

/* Who asks comes before what is asked, in whatever order the keys stand. */
static void read_test(struct build *b, const struct node *v)
{
	static const struct key who[] = {
		{ "name", read_text, offsetof(struct policy_test, name) },
		{ "profile", read_test_profile, 0 },
		{ "source", read_test_source, 0 },
		{ "allow", skip_key, 0 },
		{ "deny", skip_key, 0 },
	};
	struct policy_test t = {
		.pos = v->pos, .name = "", .profile = "", .target = "", .reason = ""
	};
	if (!read_map(b, v, "a test", KEYS(who), &t))
		return;
	if (!map_get(v, "profile") == !map_get(v, "source"))
		diag_error(b->d, v->pos, "missing-key",
			   "a test needs either `profile` or `source`");
	node_for_each_pair(k, value, v)
	{
		if (strcmp(k->text, "allow") == 0)
			read_test_allow(b, k, value, &t);
		else if (strcmp(k->text, "deny") == 0)
			read_test_deny(b, k, value, &t);
	}
}

void read_tests(struct build *b, const struct node *k, const struct node *v, void *to)
{
	(void)to;
	if (!want_seq(b, v, k->text))
		return;
	node_for_each(item, v) read_test(b, item);
}
