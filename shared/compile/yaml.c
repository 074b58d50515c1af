/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libyaml's events -> a tree of nodes (yaml.h). Hostile YAML ends here: must never recurse on the
 * depth of the input, expand anything, or let through what YAML parsers disagree about.
 */
#include "shared/compile/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct frame {
	struct node *node;
	const struct node **tail; /* where the next child is linked */
	bool value;               /* a mapping that waits for the value of a key */
};

struct parse {
	struct arena *a;
	struct diags *d;
	uint32_t file;
	struct frame stack[YAML_MAX_DEPTH];
	unsigned depth;
	const struct node *docs;
	const struct node **docs_tail;
	bool bad;
};

bool node_is_null(const struct node *n)
{
	if (n->type != NODE_SCALAR || !n->plain)
		return false;
	return n->n == 0 || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0 ||
	       strcmp(n->text, "Null") == 0 || strcmp(n->text, "NULL") == 0;
}

const char *node_what(const struct node *n)
{
	if (n->type == NODE_SEQ)
		return "a list";
	if (n->type == NODE_MAP)
		return "a mapping";
	return node_is_null(n) ? "nothing" : "a single value";
}

/* ---- the text before YAML sees it --------------------------------------------------------------- */

/* Octets of the well-formed UTF-8 character (RFC 3629) at s, of which n are there; 0 if it is none. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	size_t len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
	bool beyond = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
	return overlong || beyond ? 0 : len;
}

/* len: of the well-formed character that stands there, 0: none does. */
static bool bad_octet(struct parse *p, const char *text, size_t at, size_t len)
{
	struct pos pos = { p->file, 1, 1 };
	for (size_t i = 0; i < at; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '\n') {
			pos.line++;
			pos.col = 1;
		} else if ((c & 0xc0) != 0x80) {
			pos.col++;
		}
	}
	unsigned char c = (unsigned char)text[at];
	if (at == 0 && (c == 0xff || c == 0xfe))
		diag_error(p->d, pos, "yaml-encoding",
			   "the file is not UTF-8 (it looks like UTF-16)");
	else if (len == 2)
		diag_error(p->d, pos, "yaml-encoding", "control character U+00%02X",
			   (unsigned char)text[at + 1]);
	else if (len)
		diag_error(p->d, pos, "yaml-encoding",
			   c == 0xef ? "a byte order mark inside the text (U+FEFF)"
				     : "a line separator that YAML parsers disagree about "
				       "(U+2028, U+2029)");
	else if (c >= 0x80)
		diag_error(p->d, pos, "yaml-encoding", "octet 0x%02x: not valid UTF-8", c);
	else if (c == '\r')
		diag_error(p->d, pos, "yaml-encoding", "a carriage return without a line feed");
	else
		diag_error(p->d, pos, "yaml-encoding", "control character 0x%02x", c);
	return false;
}

/* What YAML 1.1 and 1.2 disagree about: NEL, LS, PS as line breaks, a byte order mark inside. */
static bool is_odd_space(const unsigned char *s, size_t len)
{
	return (len == 2 && s[0] == 0xc2 && s[1] < 0xa0) ||
	       (len == 3 && s[0] == 0xe2 && s[1] == 0x80 && (s[2] & 0xfe) == 0xa8) ||
	       (len == 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0);
}

static bool check_text(struct parse *p, const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;
	for (size_t i = 0; i < n;) {
		if (s[i] >= 0x20 && s[i] < 0x7f) {
			i++;
			continue;
		}
		if (s[i] == '\n' || s[i] == '\t' ||
		    (s[i] == '\r' && i + 1 < n && s[i + 1] == '\n')) {
			i++;
			continue;
		}
		size_t len = s[i] < 0x80 ? 0 : utf8_len(s + i, n - i);
		if (len == 0 || is_odd_space(s + i, len))
			return bad_octet(p, text, i, len);
		i += len;
	}
	return true;
}

/* ---- events to nodes ---------------------------------------------------------------------------- */

static struct pos mark_pos(const struct parse *p, const yaml_mark_t *m)
{
	return (struct pos){ p->file, (uint32_t)m->line + 1, (uint32_t)m->column + 1 };
}

static void fail(struct parse *p, struct pos at, const char *code, const char *text)
{
	p->bad = true;
	diag_error(p->d, at, code, "%s", text);
}

/* Links a node to what is open: a document, a sequence or a mapping. */
static void link_node(struct parse *p, struct node *n)
{
	if (p->depth == 0) {
		*p->docs_tail = n;
		p->docs_tail = &n->next;
		return;
	}
	struct frame *f = &p->stack[p->depth - 1];
	*f->tail = n;
	f->tail = &n->next;
	if (f->node->type == NODE_SEQ) {
		f->node->n++;
		return;
	}
	if (!f->value) {
		f->node->n++;
		if (n->type != NODE_SCALAR)
			fail(p, n->pos, "yaml-key", "the key of a mapping must be a single value");
		else if (n->plain && strcmp(n->text, "<<") == 0)
			fail(p, n->pos, "yaml-alias", "merge keys (<<) are not supported");
	}
	f->value = !f->value;
}

static struct node *new_node(struct parse *p, const yaml_event_t *e, enum node_type type)
{
	struct node *n = arena_get(p->a, sizeof(*n));
	n->pos = mark_pos(p, &e->start_mark);
	n->type = (uint8_t)type;
	return n;
}

static void open_node(struct parse *p, const yaml_event_t *e, enum node_type type)
{
	struct node *n = new_node(p, e, type);
	link_node(p, n);
	if (p->depth == YAML_MAX_DEPTH) {
		fail(p, n->pos, "yaml-depth", "nested deeper than 32 levels");
		return;
	}
	p->stack[p->depth++] = (struct frame){ n, &n->first, false };
}

static int compare_keys(const void *x, const void *y)
{
	const struct node *a = *(const struct node *const *)x, *b = *(const struct node *const *)y;
	int c = strcmp(a->text, b->text);
	if (c)
		return c;
	if (a->pos.line != b->pos.line)
		return a->pos.line < b->pos.line ? -1 : 1;
	return a->pos.col < b->pos.col ? -1 : a->pos.col > b->pos.col;
}

/* Not the end of the run: all duplicates are reported together with what the model finds. */
static void check_duplicates(struct parse *p, const struct node *map)
{
	if (map->n < 2 || p->bad)
		return;
	const struct node **keys = malloc(map->n * sizeof(const struct node *));
	if (!keys) {
		fail(p, map->pos, "memory", "out of memory");
		return;
	}
	size_t n = 0;
	node_for_each_pair(k, v, map) keys[n++] = k;
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (size_t i = 1; i < n; i++)
		if (strcmp(keys[i]->text, keys[i - 1]->text) == 0)
			diag_error(p->d, keys[i]->pos, "duplicate-key",
				   "key \"%.100s\" stands twice, first at line %u", keys[i]->text,
				   keys[i - 1]->pos.line);
	free(keys);
}

static void close_node(struct parse *p)
{
	struct frame *f = &p->stack[--p->depth];
	if (f->node->type == NODE_MAP)
		check_duplicates(p, f->node);
}

static void add_scalar(struct parse *p, const yaml_event_t *e)
{
	struct node *n = new_node(p, e, NODE_SCALAR);
	const char *text = (const char *)e->data.scalar.value;
	n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	n->n = (uint32_t)e->data.scalar.length;
	n->text = arena_text(p->a, text, e->data.scalar.length);
	link_node(p, n);
	if (memchr(text, 0, e->data.scalar.length))
		fail(p, n->pos, "yaml-encoding", "a string holds a NUL character");
}

static void check_properties(struct parse *p, const yaml_event_t *e, const yaml_char_t *anchor,
			     const yaml_char_t *tag)
{
	struct pos at = mark_pos(p, &e->start_mark);
	if (anchor)
		fail(p, at, "yaml-alias", "anchors (&name) are not supported");
	else if (tag)
		fail(p, at, "yaml-tag", "tags (!name) are not supported");
}

static const char alias_hint[] =
	"a value that begins with * is a YAML alias; quote a wildcard: \"*.example.com\"";

static void take_event(struct parse *p, const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_ALIAS_EVENT:
		fail(p, mark_pos(p, &e->start_mark), "yaml-alias", alias_hint);
		break;
	case YAML_SCALAR_EVENT:
		check_properties(p, e, e->data.scalar.anchor, e->data.scalar.tag);
		add_scalar(p, e);
		break;
	case YAML_SEQUENCE_START_EVENT:
		check_properties(p, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
		open_node(p, e, NODE_SEQ);
		break;
	case YAML_MAPPING_START_EVENT:
		check_properties(p, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
		open_node(p, e, NODE_MAP);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		close_node(p);
		break;
	default:
		break;
	}
}

/* What libyaml says, with its own words where they help and ours where they do not. */
static void parser_error(struct parse *p, const yaml_parser_t *y, const char *text, size_t n)
{
	const char *context = y->context ? y->context : "";
	struct pos at = mark_pos(p, &y->problem_mark);
	if (y->error == YAML_MEMORY_ERROR) {
		fail(p, (struct pos){ p->file, 0, 0 }, "memory", "out of memory");
		return;
	}
	if (strstr(context, "alias")) {
		fail(p, mark_pos(p, &y->context_mark), "yaml-alias", alias_hint);
		return;
	}
	if (y->problem_mark.index < n && text[y->problem_mark.index] == '\t') {
		fail(p, at, "yaml", "a tab cannot be used for indentation in YAML; use spaces");
		return;
	}
	p->bad = true;
	diag_error(p->d, at, "yaml", "%s%s%s", context, *context ? ": " : "",
		   y->problem ? y->problem : "not valid YAML");
}

static void parse_events(struct parse *p, yaml_parser_t *y, const char *text, size_t n)
{
	bool end = false;
	while (!end && !p->bad) {
		yaml_event_t e;
		if (!yaml_parser_parse(y, &e)) {
			parser_error(p, y, text, n);
			return;
		}
		end = e.type == YAML_STREAM_END_EVENT;
		take_event(p, &e);
		yaml_event_delete(&e);
	}
}

bool yaml_parse(struct arena *a, struct diags *d, uint32_t file, const char *text, size_t n,
		const struct node **docs)
{
	struct parse p = { .a = a, .d = d, .file = file };
	p.docs_tail = &p.docs;
	if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		n -= 3;
	}
	if (!check_text(&p, text, n))
		return false;
	yaml_parser_t y;
	if (!yaml_parser_initialize(&y)) {
		fail(&p, (struct pos){ file, 0, 0 }, "memory", "out of memory");
		return false;
	}
	yaml_parser_set_encoding(&y, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&y, (const unsigned char *)text, n);
	parse_events(&p, &y, text, n);
	yaml_parser_delete(&y);
	if (p.bad)
		return false;
	*docs = p.docs;
	return true;
}
