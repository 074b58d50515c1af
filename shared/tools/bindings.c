/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cxctl bindings: all of them, listed, ended, restored, or brought to what a file says. Decides nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/policy/overlay.h"
#include "shared/tools/bindcmd.h"
#include "shared/tools/binding.h"
#include "shared/tools/bindopt.h"

/* ---- bindings ---- */

static const char *state_text(const struct bind_row *r, uint64_t now_ns)
{
	if (r->state == BIND_LEAVING)
		return "leaving";
	return r->deadline_ns && now_ns >= r->deadline_ns ? "expired" : "bound";
}

static void addrs_text(const struct bind_row *r, char out[2 * PREFIX_TEXT_SIZE + 2])
{
	size_t n = 0;
	for (unsigned i = 0; i < r->n_addrs; i++) {
		if (i)
			out[n++] = ',';
		bool whole = r->addrs[i].len == 128;
		n += whole ? addr_to_text(&r->addrs[i].a, out + n)
			   : prefix_to_text(&r->addrs[i], out + n);
	}
	out[n] = '\0';
}

static void put_entries(struct json_object *o, const struct bind_row *row)
{
	struct reader r = rd_init(row->overlay, row->overlay_len);
	struct json_object *add = json_object_new_array(), *only = json_object_new_array();
	struct overlay_entry e;
	char text[OVERLAY_TEXT_SIZE];
	while (overlay_next(&r, &e)) {
		overlay_to_text(&e, text);
		json_object_array_add(e.flags & OVERLAY_ONLY ? only : add,
				      json_object_new_string(text));
	}
	json_object_object_add(o, "add", add);
	json_object_object_add(o, "only", only);
}

struct listing {
	bool json;
	bool failed;
	uint64_t now_ns;
};

static bool list_row(void *arg, uint32_t at, const struct bind_row *r)
{
	struct listing *l = arg;
	char addrs[2 * PREFIX_TEXT_SIZE + 2];
	addrs_text(r, addrs);
	uint64_t left = r->deadline_ns > l->now_ns ? (r->deadline_ns - l->now_ns) / 1000000000 : 0;
	if (!l->json) {
		printf("%s if=%s task=%s profile=%s generation=%llu state=%s", addrs, r->ifname,
		       r->task, r->profile, (unsigned long long)r->generation,
		       state_text(r, l->now_ns));
		if (r->deadline_ns)
			printf(" left=%llus", (unsigned long long)left);
		putchar('\n');
		return true;
	}
	struct json_object *o = json_object_new_object();
	bindopt_put_text(o, "address", addrs);
	bindopt_put_text(o, "if", r->ifname);
	bindopt_put_text(o, "task", r->task);
	bindopt_put_text(o, "profile", r->profile);
	bindopt_put_number(o, "generation", r->generation);
	bindopt_put_text(o, "state", state_text(r, l->now_ns));
	if (r->deadline_ns)
		bindopt_put_number(o, "left_s", left);
	put_entries(o, r);
	l->failed = !bindopt_print_line(o);
	return !l->failed;
}

static int list(struct binding_host *h, const struct options *o)
{
	struct listing l = { .json = o->json, .now_ns = binding_now_ns() };
	if (!bind_lock_table(binding_writer(h)))
		return BINDING_SYSTEM;
	bind_each(binding_writer(h), list_row, &l);
	bind_unlock_table(binding_writer(h));
	return bindopt_flushed(l.failed ? BINDING_SYSTEM : BINDING_OK);
}

/* The tasks of rows that a condition picks. */
struct picked {
	char (*v)[BIND_TASK_SIZE];
	size_t n, cap;
	bool no_memory;
	bool (*pick)(void *arg, const struct bind_row *r);
	void *arg;
};

static bool pick_row(void *arg, uint32_t at, const struct bind_row *r)
{
	struct picked *p = arg;
	if (!p->pick(p->arg, r))
		return true;
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 64;
		void *v = realloc(p->v, cap * sizeof(*p->v));
		p->no_memory = !v;
		if (!v)
			return false;
		p->v = v;
		p->cap = cap;
	}
	memcpy(p->v[p->n++], r->task, BIND_TASK_SIZE);
	return true;
}

/* Unbinds what is picked; goes on after a failure, and returns it. */
static int unbind_picked(struct binding_host *h, struct picked *p, uint64_t wait_ms, unsigned *n)
{
	int rc = BINDING_OK;
	if (!bind_lock_table(binding_writer(h)))
		return BINDING_SYSTEM;
	bind_each(binding_writer(h), pick_row, p);
	bind_unlock_table(binding_writer(h));
	if (p->no_memory)
		rc = BINDING_SYSTEM;
	for (size_t i = 0; i < p->n; i++) {
		struct binding_result r;
		enum binding_code one = binding_unbind(h, p->v[i], wait_ms, &r);
		if (one != BINDING_OK) {
			fprintf(stderr, "cxctl: %s: %s\n", p->v[i], r.why);
			rc = one;
		} else {
			*n += 1;
		}
	}
	free(p->v);
	return rc;
}

static bool is_over(void *arg, const struct bind_row *r)
{
	const uint64_t *now_ns = arg;
	return r->state == BIND_LEAVING || (r->deadline_ns && *now_ns >= r->deadline_ns);
}

static int expire(struct binding_host *h, const struct options *o)
{
	uint64_t now_ns = binding_now_ns();
	struct picked p = { .pick = is_over, .arg = &now_ns };
	unsigned n = 0;
	int rc = unbind_picked(h, &p, o->order.wait_ms, &n);
	printf("expired %u\n", n);
	return bindopt_flushed(rc);
}

static int restore(struct binding_host *h, const struct options *o)
{
	char why[BINDING_WHY_SIZE];
	unsigned n = 0;
	enum binding_code rc = binding_restore(h, &n, why);
	if (rc != BINDING_OK)
		fprintf(stderr, "cxctl: %s\n", why);
	printf("restored %u\n", n);
	return bindopt_flushed(rc);
}

/* ---- sync ---- */

/* What a file wants: one order a line. */
struct wanted {
	struct binding_order *v;
	size_t n, cap;
};

static int by_task(const void *a, const void *b)
{
	return strcmp(((const struct binding_order *)a)->task,
		      ((const struct binding_order *)b)->task);
}

static const struct binding_order *find_wanted(const struct wanted *w, const char *task)
{
	size_t lo = 0, hi = w->n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(w->v[mid].task, task);
		if (c == 0)
			return &w->v[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool read_wanted_line(struct wanted *w, const char *line, char *why)
{
	struct json_object *in = json_tokener_parse(line);
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 64;
		void *v = realloc(w->v, cap * sizeof(*w->v));
		if (v) {
			w->v = v;
			w->cap = cap;
		}
	}
	bool ok = in && w->n < w->cap;
	if (!ok)
		snprintf(why, BINDING_WHY_SIZE, "not JSON");
	ok = ok && bindopt_read_order(&w->v[w->n], in, why);
	if (ok && bindopt_missing_of_bind(&w->v[w->n])) {
		snprintf(why, BINDING_WHY_SIZE, "%s", bindopt_missing_of_bind(&w->v[w->n]));
		ok = false;
	}
	w->n += ok;
	json_object_put(in);
	return ok;
}

/* All lines are read before anything is changed. */
static int read_wanted(struct wanted *w, const char *path)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char *line = NULL, why[BINDING_WHY_SIZE];
	size_t cap = 0, n = 0;
	int rc = BINDING_OK;
	if (!f) {
		fprintf(stderr, "cxctl: %s: %s\n", path, strerror(errno));
		return BINDING_SYSTEM;
	}
	while (rc == BINDING_OK && getline(&line, &cap, f) > 0) {
		n++;
		if (line[strspn(line, " \t\r\n")] && !read_wanted_line(w, line, why)) {
			fprintf(stderr, "cxctl: %s:%zu: %s\n", path, n, why);
			rc = BINDING_USAGE;
		}
	}
	if (rc == BINDING_OK && ferror(f))
		rc = BINDING_SYSTEM;
	free(line);
	if (f != stdin)
		fclose(f);
	if (w->n)
		qsort(w->v, w->n, sizeof(*w->v), by_task);
	for (size_t i = 1; rc == BINDING_OK && i < w->n; i++)
		if (strcmp(w->v[i].task, w->v[i - 1].task) == 0) {
			fprintf(stderr, "cxctl: %s: the task %s stands there twice\n", path,
				w->v[i].task);
			rc = BINDING_USAGE;
		}
	return rc;
}

/* Is the row one that the file does not want, or not there? */
static bool must_go(void *arg, const struct bind_row *r)
{
	const struct binding_order *o = find_wanted(arg, r->task);
	if (!o || r->state != BIND_BOUND || o->n_addrs != r->n_addrs ||
	    strcmp(o->ifname, r->ifname) != 0)
		return true;
	for (unsigned i = 0; i < r->n_addrs; i++)
		if (o->addrs[i].len != r->addrs[i].len ||
		    addr_cmp(&o->addrs[i].a, &r->addrs[i].a) != 0)
			return true;
	return false;
}

struct counts {
	unsigned bound, rebound, unbound, same;
};

static enum binding_code sync_one(struct binding_host *h, const struct binding_order *want,
				  struct counts *c, struct binding_result *r)
{
	struct bind_row row;
	if (!bind_lock_table(binding_writer(h)))
		return BINDING_SYSTEM;
	bool there = bind_row_of_task(binding_writer(h), want->task, &row) != BIND_NO_ROW;
	bind_unlock_table(binding_writer(h));
	enum binding_code rc = BINDING_OK;
	if (there && binding_matches(&row, want)) {
		c->same++;
		return rc;
	}
	struct binding_order o = *want;
	o.has_overlay = true;
	rc = there ? binding_rebind(h, &o, r) : binding_bind(h, &o, r);
	if (rc == BINDING_OK)
		*(there ? &c->rebound : &c->bound) += 1;
	return rc;
}

static int sync_file(struct binding_host *h, const struct options *o, const char *path)
{
	struct wanted w = { .n = 0 };
	struct counts c = { 0 };
	int rc = read_wanted(&w, path);
	struct picked p = { .pick = must_go, .arg = &w };
	if (rc == BINDING_OK)
		rc = unbind_picked(h, &p, o->order.wait_ms, &c.unbound);
	for (size_t i = 0; rc != BINDING_USAGE && i < w.n; i++) {
		struct binding_result r = { .found = false };
		enum binding_code one = sync_one(h, &w.v[i], &c, &r);
		if (one != BINDING_OK) {
			fprintf(stderr, "cxctl: %s: %s\n", w.v[i].task, r.why);
			rc = one;
		}
	}
	free(w.v);
	if (rc != BINDING_USAGE)
		printf("bound=%u rebound=%u unbound=%u unchanged=%u\n", c.bound, c.rebound,
		       c.unbound, c.same);
	return bindopt_flushed(rc);
}

int run_bindings(int argc, char **argv)
{
	struct options o;
	int rc = bindopt_parse(&o, argc, argv);
	if (rc >= 0)
		return rc;
	const char *what = optind < argc ? argv[optind] : "";
	bool sync = strcmp(what, "sync") == 0;
	if (optind + 1 + sync != argc)
		return bindopt_usage(sync ? "bindings sync needs one FILE"
					  : "bindings needs list, sync FILE, expire, "
					    "restore or init",
				     NULL);
	struct binding_host *h = bindopt_open_host(&o);
	if (!h)
		return BINDING_SYSTEM;
	if (strcmp(what, "list") == 0)
		rc = list(h, &o);
	else if (sync)
		rc = sync_file(h, &o, argv[optind + 1]);
	else if (strcmp(what, "expire") == 0)
		rc = expire(h, &o);
	else if (strcmp(what, "restore") == 0)
		rc = restore(h, &o);
	else if (strcmp(what, "init") == 0)
		rc = BINDING_OK; /* opening made the table */
	else
		rc = bindopt_usage("unknown subcommand of bindings", what);
	binding_close(h);
	return rc;
}
