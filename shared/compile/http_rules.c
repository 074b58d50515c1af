/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `http` of an entry -> rules about methods and paths. Must never take a path that a server could read
 * as another one.
 */
#include <stdlib.h>
#include <string.h>

#include "shared/compile/build.h"

/* RFC 9110 5.6.2, upper case only: methods are case-sensitive, and all in use are so written. */
static bool is_method(const struct node *v)
{
	if (v->n == 0 || v->n > 32)
		return false;
	for (const char *s = v->text; *s; s++)
		if (!(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') && !strchr("-_", *s))
			return false;
	return true;
}

static bool has_bad_escape(const char *s)
{
	for (s = strchr(s, '%'); s; s = strchr(s + 1, '%')) {
		static const char hex[] = "0123456789abcdefABCDEF";
		if (!s[1] || !s[2] || !strchr(hex, s[1]) || !strchr(hex, s[2]))
			return true;
		if (strncasecmp(s, "%2f", 3) == 0 || strncasecmp(s, "%5c", 3) == 0 ||
		    strncasecmp(s, "%2e", 3) == 0 || strncmp(s, "%00", 3) == 0)
			return true;
	}
	return false;
}

/* A path that no request may have (they are denied before rules apply) permits nothing. */
static bool is_path(const char *s, size_t n)
{
	if (n == 0 || s[0] != '/' || n > 2048)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] <= 0x20 || s[i] >= 0x7f || strchr("?#*\\;\"<>^`{|}", s[i]))
			return false;
	if (strstr(s, "//") || strstr(s, "/./") || strstr(s, "/../") || has_bad_escape(s))
		return false;
	return !(n >= 2 && strcmp(s + n - 2, "/.") == 0) &&
	       !(n >= 3 && strcmp(s + n - 3, "/..") == 0);
}

static uint32_t unique(const char **v, uint32_t n)
{
	uint32_t out = 0;
	qsort(v, n, sizeof(*v), compare_text);
	for (uint32_t i = 0; i < n; i++)
		if (!out || strcmp(v[i], v[out - 1]) != 0)
			v[out++] = v[i];
	return out;
}

static void read_methods(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct http_rule *r = to;
	if (!want_seq(b, v, k->text))
		return;
	if (v->n == 0) {
		diag_error(b->d, v->pos, "bad-value",
			   "an empty list of methods permits nothing; leave it out for any");
		return;
	}
	const char **list = arena_array(b->a, v->n, sizeof(*list));
	uint32_t n = 0;
	node_for_each(item, v)
	{
		if (!want_text(b, item, "a method"))
			continue;
		if (is_method(item))
			list[n++] = item->text;
		else
			diag_error(b->d, item->pos, "bad-value",
				   "\"%.40s\" is not a method such as GET or POST (upper case)",
				   item->text);
	}
	r->n_methods = unique(list, n);
	r->methods = list;
}

static int compare_paths(const void *x, const void *y)
{
	const struct path_rule *a = x, *b = y;
	int c = strcmp(a->text, b->text);
	return c ? c : a->prefix - b->prefix;
}

static void read_paths(struct build *b, const struct node *k, const struct node *v, void *to)
{
	struct http_rule *r = to;
	if (!want_seq(b, v, k->text))
		return;
	if (v->n == 0) {
		diag_error(b->d, v->pos, "bad-value",
			   "an empty list of paths permits nothing; leave it out for any");
		return;
	}
	struct path_rule *list = arena_array(b->a, v->n, sizeof(*list));
	uint32_t n = 0, out = 0;
	node_for_each(item, v)
	{
		if (!want_text(b, item, "a path"))
			continue;
		bool prefix = item->n && item->text[item->n - 1] == '*';
		const char *text = arena_text(b->a, item->text, item->n - prefix);
		if (is_path(text, item->n - prefix))
			list[n++] =
				(struct path_rule){ text, (uint16_t)(item->n - prefix), prefix };
		else
			diag_error(b->d, item->pos, "bad-value",
				   "\"%.100s\" is not a path such as /api/v2/* (from the root; no "
				   "query, no //, "
				   "no . or .. segments, no \\ or ;, * only at the end)",
				   item->text);
	}
	qsort(list, n, sizeof(*list), compare_paths);
	for (uint32_t i = 0; i < n; i++)
		if (!out || compare_paths(&list[i], &list[out - 1]) != 0)
			list[out++] = list[i];
	r->n_paths = out;
	r->paths = list;
}

static const struct key http_keys[] = {
	{ "methods", read_methods, 0 },
	{ "paths", read_paths, 0 },
};

void read_http_rules(struct build *b, const struct node *v, struct terms *t)
{
	if (!want_seq(b, v, "http"))
		return;
	if (v->n == 0)
		diag_error(b->d, v->pos, "bad-value",
			   "an empty list of http rules permits nothing; leave it out for any");
	struct http_rule *rules = arena_array(b->a, v->n + 1, sizeof(*rules));
	uint32_t n = 0;
	node_for_each(item, v) if (read_map(b, item, "an http rule", KEYS(http_keys), &rules[n]))
		n++;
	t->n_http = n;
	t->http = rules;
	use_feature(b, FEATURE_BIT_HTTP_RULES, v->pos);
}
