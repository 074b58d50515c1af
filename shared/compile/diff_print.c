/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The changes between two policies in the forms that people and programs read. Must never let a text of a
 * policy end the line or the field that it stands in.
 */
#include <string.h>

#include "shared/compile/changes.h"

static const char *const effect_words[] = { "none", "narrowed", "widened" };

/* How many profiles see the entries that stand here. */
static uint32_t audience_of(const struct diff *d, const char *where)
{
	const char *name = strcmp(where, "network") == 0 ? "default" : where;
	name += strncmp(name, "profile ", 8) == 0 ? 8 : 0;
	for (uint32_t i = 1; i < d->b.w.p->n_layers; i++)
		if (strcmp(walk_layer_name(&d->b.w, i), name) == 0)
			return d->b.seen_by[i];
	return 0;
}

static char sign_of(const struct change *c)
{
	return c->effect == EFFECT_WIDENED ? '+' : c->effect == EFFECT_NARROWED ? '-' : '~';
}

static bool starts_part(const struct diff *d, size_t i)
{
	return i == 0 || strcmp(d->v[i].where, d->v[i - 1].where) != 0;
}

static void put_escaped(struct out *o, const char *s, const char *special)
{
	for (; *s; s++) {
		if (strchr(special, *s))
			out_text(o, "\\");
		out_bytes(o, s, 1);
	}
}

static void print_text(const struct diff *d, struct out *o)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		uint32_t n = starts_part(d, i) ? audience_of(d, c->where) : 0;
		if (starts_part(d, i))
			out_printf(o, "%s", c->where);
		if (n > 1)
			out_printf(o, " (seen by %u profiles)", n);
		out_printf(o, "%s  %c %s%s%s%s%s\n", starts_part(d, i) ? "\n" : "", sign_of(c),
			   c->what, *c->subject ? " " : "", c->subject, *c->detail ? ": " : "",
			   c->detail);
	}
	if (d->n)
		out_printf(o, "%zu changes: %zu widen (+), %zu narrow (-)\n", d->n,
			   change_count(d, EFFECT_WIDENED), change_count(d, EFFECT_NARROWED));
}

static void put_member(struct out *o, const char *sep, const char *key, const char *value)
{
	out_printf(o, "%s\"%s\":", sep, key);
	out_json(o, value, strlen(value));
}

static void print_json(const struct diff *d, struct out *o)
{
	out_text(o, "{\"changes\":[");
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		put_member(o, i ? ",\n{" : "\n{", "where", c->where);
		put_member(o, ",", "change", c->what);
		put_member(o, ",", "subject", c->subject);
		put_member(o, ",", "detail", c->detail);
		put_member(o, ",", "effect", effect_words[c->effect]);
		out_text(o, "}");
	}
	out_printf(o, "],\n\"widened\":%zu,\"narrowed\":%zu}\n", change_count(d, EFFECT_WIDENED),
		   change_count(d, EFFECT_NARROWED));
}

static void print_markdown(const struct diff *d, struct out *o)
{
	static const char special[] = "\\`*_{}[]<>()#+-.!|~&@:";
	out_printf(o, "**Policy: %zu changes, %zu widen, %zu narrow**\n", d->n,
		   change_count(d, EFFECT_WIDENED), change_count(d, EFFECT_NARROWED));
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		if (starts_part(d, i)) {
			out_text(o, "\n### ");
			put_escaped(o, c->where, special);
			out_text(o, "\n\n");
		}
		out_printf(o, "- %s%s%s", c->effect == EFFECT_WIDENED ? "**" : "", c->what,
			   c->effect == EFFECT_WIDENED ? "**" : "");
		out_text(o, *c->subject ? " " : "");
		put_escaped(o, c->subject, special);
		out_text(o, *c->detail ? ": " : "");
		put_escaped(o, c->detail, special);
		out_text(o, "\n");
	}
}

/* A workflow command ends at the line: nothing in it may bring a line of its own. */
static void put_command_text(struct out *o, const char *s)
{
	for (; *s; s++) {
		if (*s == '%' || *s == '\r' || *s == '\n')
			out_printf(o, "%%%02X", (unsigned char)*s);
		else
			out_bytes(o, s, 1);
	}
}

static void print_github(const struct diff *d, struct out *o)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct change *c = &d->v[i];
		out_printf(o, "::%s title=policy %s::",
			   c->effect == EFFECT_WIDENED ? "warning" : "notice",
			   c->effect == EFFECT_NONE ? "changed" : effect_words[c->effect]);
		put_command_text(o, c->where);
		out_printf(o, ": %s ", c->what);
		put_command_text(o, c->subject);
		out_text(o, " ");
		put_command_text(o, c->detail);
		out_text(o, "\n");
	}
}

void print_changes(const struct diff *d, enum diag_format format, FILE *to)
{
	struct out o = { 0 };
	static void (*const forms[])(const struct diff *d, struct out *o) = {
		[DIAG_TEXT] = print_text,
		[DIAG_JSON] = print_json,
		[DIAG_GITHUB] = print_github,
		[DIAG_MARKDOWN] = print_markdown,
	};
	forms[format](d, &o);
	fwrite(out_get(&o), 1, o.n, to);
	out_fini(&o);
}
