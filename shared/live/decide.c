/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sequence that every plugin runs for an event, and the housekeeping thread behind it (decide.h).
 * Decides nothing itself: verdict() does.
 */
#include "shared/live/decide.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/live/audit.h"
#include "shared/live/budget.h"
#include "shared/live/locals.h"
#include "shared/live/pin.h"
#include "shared/live/subject.h"
#include "shared/policy/slot.h"

enum {
	TICK_MS = 10, /* audit rings are drained this often */
	POLL_TICKS =
		10, /* the policy file, and whether the bindings are still ours, every 100 ms */
	LOCALS_TICKS = 100, /* the gateway's addresses every second */
	PINS_TICKS = 20, /* whether the tables of pins and limits are still theirs, every 200 ms */
	MAX_LOOKUPS = 100, /* of one subject under way at a time */
	MAX_PINNED = 16    /* names that one destination may be judged by */
};

/* The resolvers that may write pins. */
static const char *const pin_writers[] = { "unbound", "dns" };
enum { PIN_WRITERS = sizeof(pin_writers) / sizeof(pin_writers[0]) };

/* A table that was replaced: threads may still read it. */
struct old_pins {
	struct pins *pins;
	struct old_pins *next;
};

/* Tables that were replaced: threads may still read them. */
struct old_table {
	struct bind_table *table;
	struct old_table *next;
};

struct decider {
	struct slot *slot;
	struct audit *audit;
	struct locals *locals;
	decide_log *log;
	void *log_arg;
	char *policy_path;
	char *runtime_dir;
	_Atomic(struct bind_table *) bindings; /* NULL: none that can be trusted */
	pthread_mutex_t map_lock;              /* taken only while there is no table */
	struct old_table *old_tables;
	char bindings_why[BIND_WHY_SIZE]; /* what was said last of why there is none */
	bool writes_pins; /* the first of pins[] is our own table, else they are others' */
	const char *pins_name;
	_Atomic(struct pins *) pins[PIN_WRITERS];
	struct old_pins *old_pins;
	char pins_why[PIN_WHY_SIZE]; /* what was said last of why there are none to write */
	struct budgets *budgets;
	struct subjects *lookups;        /* under way, of each subject ... */
	unsigned max_lookups;            /* ... and how many at most */
	char limits_why[LIMIT_WHY_SIZE]; /* what was said last of why they are not in a file */
	bool denied_only;
	pthread_t thread;
	bool started;
	_Atomic bool stop;
	_Atomic bool reload;
	_Atomic bool ready;
	int audit_error;       /* errno of the last drain, said once per change */
	uint64_t dropped_said; /* audit events lost, as last logged */
};

struct decide_thread {
	struct bind_row row; /* of the decision made last */
	struct binding binding;
	struct name pinned[MAX_PINNED];
	unsigned n_pinned;
	struct decider *of;
	struct slot_reader *reader;
	struct audit_ring *ring;
	struct locals_copy *locals;
};

__attribute__((format(printf, 4, 5))) static void say(const struct decider *d,
						      enum decide_priority prio, const char *event,
						      const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (d->log)
		d->log(d->log_arg, prio, event, text);
}

/* A file's name or an error text, safe to stand in a log line between quotes. */
static const char *clean(char *buf, size_t size, const char *s)
{
	size_t n = 0;
	for (; *s && n + 1 < size; s++) {
		unsigned char c = (unsigned char)*s;
		buf[n++] = c < 0x20 || c >= 0x7f || c == '"' || c == '\\' ? '?' : (char)c;
	}
	buf[n] = '\0';
	return buf;
}

static void copy(char *to, size_t size, const char *s)
{
	size_t n = strnlen(s, size - 1);
	memcpy(to, s, n);
	to[n] = '\0';
}

/* ---- the housekeeping thread ---- */

static void say_loaded(struct decider *d, const struct policy *p)
{
	struct policy_info i;
	char rev[128], path[256];
	policy_info(p, &i);
	say(d, DECIDE_NOTICE, "policy-loaded",
	    "file=\"%s\" policy=%s revision=\"%s\" serial=%llu names=%llu",
	    clean(path, sizeof(path), d->policy_path), i.digest,
	    clean(rev, sizeof(rev), i.revision), (unsigned long long)i.serial,
	    (unsigned long long)i.n_names);
}

static void poll_policy(struct decider *d, struct slot_reader *r)
{
	enum policy_err err;
	char why[POLICY_WHY_SIZE], path[256], text[POLICY_WHY_SIZE];
	bool force = atomic_exchange(&d->reload, false);
	switch (slot_poll(d->slot, force, &err, why)) {
	case SLOT_SAME:
		break;
	case SLOT_LOADED:
		say_loaded(d, slot_borrow(r));
		slot_release(r);
		atomic_store(&d->ready, true);
		break;
	case SLOT_REFUSED:
		say(d, DECIDE_ERR, "policy-refused",
		    "file=\"%s\" error=\"%s\" detail=\"%s\" in_force=%s",
		    clean(path, sizeof(path), d->policy_path), policy_strerror(err),
		    clean(text, sizeof(text), why),
		    atomic_load(&d->ready) ? "\"the previous policy\""
					   : "\"none: everything is denied\"");
		break;
	case SLOT_RESTORED:
		say(d, DECIDE_NOTICE, "policy-restored",
		    "file=\"%s\" detail=\"it is again the policy in force\"",
		    clean(path, sizeof(path), d->policy_path));
		break;
	}
}

/* ---- bindings ---- */

static void say_bindings(struct decider *d, const char *why)
{
	char dir[256], text[BIND_WHY_SIZE];
	if (strcmp(d->bindings_why, why) == 0)
		return;
	snprintf(d->bindings_why, sizeof(d->bindings_why), "%s", why);
	if (*why)
		say(d, DECIDE_WARNING, "bindings-unusable", "dir=\"%s\" error=\"%s\"",
		    clean(dir, sizeof(dir), d->runtime_dir), clean(text, sizeof(text), why));
	else
		say(d, DECIDE_NOTICE, "bindings-mapped", "dir=\"%s\"",
		    clean(dir, sizeof(dir), d->runtime_dir));
}

/*
 * Maps the table if there is none yet. Hot threads call it too, when they need a binding and there is
 * no table: what was bound before a question came must be seen by it.
 */
static struct bind_table *map_bindings(struct decider *d, bool housekeeper)
{
	char why[BIND_WHY_SIZE] = "";
	if (!d->runtime_dir)
		return NULL;
	pthread_mutex_lock(&d->map_lock);
	struct bind_table *t = atomic_load(&d->bindings);
	if (!t) {
		t = bind_open(d->runtime_dir, why);
		atomic_store(&d->bindings, t);
	}
	if (housekeeper)
		say_bindings(d, why);
	pthread_mutex_unlock(&d->map_lock);
	return t;
}

/* Does the policy in force need bindings? */
static bool wants_bindings(struct slot_reader *r)
{
	const struct policy *p = slot_borrow(r);
	bool wants = p && policy_has_bindings(p);
	slot_release(r);
	return wants;
}

/* A table that was removed or replaced is no longer asked; what is wrong is said if it matters. */
static void watch_bindings(struct decider *d, struct slot_reader *r)
{
	struct bind_table *t = atomic_load(&d->bindings);
	if (t && !bind_is_current(t, d->runtime_dir)) {
		struct old_table *o = calloc(1, sizeof(*o));
		if (!o)
			return;
		*o = (struct old_table){ t, d->old_tables };
		d->old_tables = o;
		atomic_store(&d->bindings, NULL);
		t = NULL;
	}
	if ((!t || *d->bindings_why) && wants_bindings(r))
		map_bindings(d, true);
}

static void close_bindings(struct decider *d)
{
	bind_close(atomic_load(&d->bindings));
	while (d->old_tables) {
		struct old_table *o = d->old_tables;
		d->old_tables = o->next;
		bind_close(o->table);
		free(o);
	}
}

static void drain_audit(struct decider *d)
{
	int err = 0;
	size_t n = audit_drain(d->audit, &err);
	/* without lines to write nothing was tried, and nothing was learned */
	if (err && err != d->audit_error) {
		say(d, DECIDE_ERR, "audit-failing", "error=\"%s\"", strerror(err));
		d->audit_error = err;
	} else if (!err && n > 0 && d->audit_error) {
		say(d, DECIDE_NOTICE, "audit-restored", "dropped=%llu",
		    (unsigned long long)audit_dropped(d->audit));
		d->audit_error = 0;
	}
	uint64_t dropped = audit_dropped(d->audit);
	if (dropped >= 2 * d->dropped_said + 1) { /* once, and then at every doubling */
		say(d, DECIDE_WARNING, "audit-dropped", "dropped=%llu",
		    (unsigned long long)dropped);
		d->dropped_said = dropped;
	}
}

/* ---- pins ---- */

static void say_pins(struct decider *d, const char *why)
{
	char text[PIN_WHY_SIZE], dir[256];
	if (strcmp(d->pins_why, why) == 0)
		return;
	copy(d->pins_why, sizeof(d->pins_why), why);
	clean(dir, sizeof(dir), d->runtime_dir);
	if (*why)
		say(d, DECIDE_WARNING, "pins-unusable", "dir=\"%s\" error=\"%s\"", dir,
		    clean(text, sizeof(text), why));
	else
		say(d, DECIDE_NOTICE, "pins-mapped", "dir=\"%s\"", dir);
}

/* A table is kept as long as it stands at its path; a missing one is looked for again. */
static void watch_table(struct decider *d, unsigned i, const char *name, char *why)
{
	struct pins *p = atomic_load(&d->pins[i]);
	if (p && pins_is_current(p, d->runtime_dir, name))
		return;
	if (p) {
		struct old_pins *o = calloc(1, sizeof(*o));
		if (!o)
			return;
		*o = (struct old_pins){ p, d->old_pins };
		d->old_pins = o;
	}
	p = d->writes_pins ? pins_create(d->runtime_dir, name, why)
			   : pins_open(d->runtime_dir, name, why);
	atomic_store(&d->pins[i], p);
}

static void watch_pins(struct decider *d)
{
	char why[PIN_WHY_SIZE] = "";
	if (!d->runtime_dir)
		return;
	if (d->writes_pins) {
		watch_table(d, 0, d->pins_name, why);
		say_pins(d, why);
		return;
	}
	for (unsigned i = 0; i < PIN_WRITERS; i++)
		watch_table(d, i, pin_writers[i], why);
}

static void watch_limits(struct decider *d)
{
	char why[LIMIT_WHY_SIZE], text[LIMIT_WHY_SIZE], dir[256];
	budgets_watch(d->budgets, why);
	if (strcmp(d->limits_why, why) == 0)
		return;
	copy(d->limits_why, sizeof(d->limits_why), why);
	clean(dir, sizeof(dir), d->runtime_dir);
	if (*why)
		say(d, DECIDE_WARNING, "limits-unsaved",
		    "dir=\"%s\" error=\"%s\" detail=\"limits hold, and are forgotten at the end\"",
		    dir, clean(text, sizeof(text), why));
	else
		say(d, DECIDE_NOTICE, "limits-mapped", "dir=\"%s\"", dir);
}

static void close_pins(struct decider *d)
{
	for (unsigned i = 0; i < PIN_WRITERS; i++)
		pins_close(atomic_load(&d->pins[i]));
	while (d->old_pins) {
		struct old_pins *o = d->old_pins;
		d->old_pins = o->next;
		pins_close(o->pins);
		free(o);
	}
}

static void *housekeeping(void *arg)
{
	struct decider *d = arg;
	struct slot_reader *r = slot_reader_new(d->slot);
	const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };
	for (unsigned n = 1; !atomic_load(&d->stop); n++) {
		nanosleep(&tick, NULL);
		if (r && (n % POLL_TICKS == 0 || atomic_load(&d->reload)))
			poll_policy(d, r);
		if (r && n % POLL_TICKS == 0 && d->runtime_dir)
			watch_bindings(d, r);
		if (n % PINS_TICKS == 0) {
			watch_pins(d);
			watch_limits(d);
		}
		if (n % LOCALS_TICKS == 0)
			locals_refresh(d->locals);
		drain_audit(d);
	}
	slot_reader_free(r);
	return NULL;
}

/* ---- life ---- */

static bool start_thread(struct decider *d)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	d->started = pthread_create(&d->thread, NULL, housekeeping, d) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return d->started;
}

static bool first_look(struct decider *d)
{
	struct slot_reader *r = slot_reader_new(d->slot);
	if (!r)
		return false;
	poll_policy(d, r);
	slot_reader_free(r);
	return true;
}

struct decider *decider_start(const struct decider_options *o)
{
	uint8_t key[POLICY_KEY_SIZE];
	char why[POLICY_WHY_SIZE], text[POLICY_WHY_SIZE];
	struct policy_trust trust = { .features = o->features,
				      .min_serial = o->min_serial,
				      .audience = o->audience };
	struct decider *d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->log = o->log;
	d->log_arg = o->log_arg;
	pthread_mutex_init(&d->map_lock, NULL);
	d->denied_only = o->audit_denied_only;
	if (o->pubkey_path) {
		if (!policy_key_read(o->pubkey_path, key, why)) {
			say(d, DECIDE_ERR, "key-unusable", "error=\"%s\"",
			    clean(text, sizeof(text), why));
			free(d);
			return NULL;
		}
		trust.public_key = key;
	}
	d->policy_path = strdup(o->policy_path);
	d->runtime_dir = o->runtime_dir ? strdup(o->runtime_dir) : NULL;
	/* a table that is missing at first is said by the first one who looks again */
	(void)map_bindings(d, false);
	d->writes_pins = o->pins_write != NULL;
	d->pins_name = o->pins_write;
	watch_pins(d);
	d->budgets = budgets_new(d->runtime_dir, o->component);
	d->lookups = subjects_new();
	d->max_lookups = o->max_lookups ? o->max_lookups : MAX_LOOKUPS;
	if (d->budgets)
		watch_limits(d);
	d->slot = slot_new(o->policy_path, &trust);
	d->audit = audit_new(o->component, o->audit_path);
	d->locals = locals_new();
	if (!d->policy_path || !d->budgets || !d->lookups || !d->slot || !d->audit || !d->locals ||
	    !first_look(d) || !start_thread(d)) {
		decider_stop(d);
		return NULL;
	}
	return d;
}

void decider_stop(struct decider *d)
{
	if (!d)
		return;
	atomic_store(&d->stop, true);
	if (d->started)
		pthread_join(d->thread, NULL);
	audit_free(d->audit);
	locals_free(d->locals);
	slot_free(d->slot);
	budgets_free(d->budgets);
	subjects_free(d->lookups);
	close_pins(d);
	close_bindings(d);
	pthread_mutex_destroy(&d->map_lock);
	free(d->runtime_dir);
	free(d->policy_path);
	free(d);
}

void decider_reload(struct decider *d)
{
	atomic_store(&d->reload, true);
}

bool decider_ready(const struct decider *d)
{
	return atomic_load(&d->ready);
}

struct decide_thread *decide_thread_new(struct decider *d)
{
	struct decide_thread *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->of = d;
	t->reader = slot_reader_new(d->slot);
	t->ring = audit_ring_new(d->audit);
	t->locals = locals_copy_new(d->locals);
	if (!t->reader || !t->ring || !t->locals) {
		decide_thread_free(t);
		return NULL;
	}
	return t;
}

void decide_thread_free(struct decide_thread *t)
{
	if (!t)
		return;
	slot_reader_free(t->reader);
	audit_ring_free(t->ring);
	locals_copy_free(t->locals);
	free(t);
}

/* ---- events ---- */

static uint64_t clock_ns(clockid_t c)
{
	struct timespec t;
	clock_gettime(c, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct now decide_now(void)
{
	return (struct now){ .boot_ns = clock_ns(CLOCK_BOOTTIME),
			     .wall_ns = (int64_t)clock_ns(CLOCK_REALTIME) };
}

/* FILE:LINE; cut if it does not fit. */
static void put_place(char *to, size_t size, const char *file, uint32_t line)
{
	char digits[12];
	size_t d = sizeof(digits), n = strnlen(file, size - sizeof(digits) - 1);
	do {
		digits[--d] = (char)('0' + line % 10);
		line /= 10;
	} while (line);
	digits[--d] = ':';
	memcpy(to, file, n);
	memcpy(to + n, digits + d, sizeof(digits) - d);
	to[n + sizeof(digits) - d] = '\0';
}

/* What only the audit log wants to know. */
static void describe(struct decision *d, const struct policy *p, const struct policy_info *pi)
{
	struct rule_info i;
	copy(d->profile, sizeof(d->profile), policy_profile_name(p, d->v.profile));
	copy(d->revision, sizeof(d->revision), pi->revision);
	if (d->v.added)
		copy(d->origin, sizeof(d->origin), "binding");
	if (!policy_rule_info(p, d->v.rule, d->v.rec, &i))
		return;
	copy(d->owner, sizeof(d->owner), i.owner);
	if (i.preset)
		copy(d->origin, sizeof(d->origin), i.layer);
	else
		put_place(d->origin, sizeof(d->origin), i.file, i.line);
}

/* Does the audit log want this decision? */
static bool is_audited(const struct decider *d, const struct verdict *v)
{
	return !d->denied_only || v->action == ACTION_DENY || v->observed;
}

/* The binding of an address in force now. */
static bool find_binding(struct decider *d, const struct addr *src, uint64_t boot_ns,
			 struct bind_row *out)
{
	struct bind_table *table = atomic_load_explicit(&d->bindings, memory_order_acquire);
	if (!table)
		table = map_bindings(d, false);
	return table && bind_find(table, src, boot_ns, out);
}

bool decide_still(struct decide_thread *t, const struct addr *src, uint64_t generation)
{
	struct bind_row row;
	if (generation == 0)
		return true;
	return find_binding(t->of, src, clock_ns(CLOCK_BOOTTIME), &row) &&
	       row.generation == generation;
}

/* Adds the source's binding to the facts, where the policy wants one. */
static void add_binding(struct decide_thread *t, const struct policy *p, const struct question *q,
			struct facts *f, struct binding *b, struct bind_row *row)
{
	if (!p || !policy_has_bindings(p) || policy_source(p, &q->src).kind != SOURCE_BIND ||
	    !find_binding(t->of, &q->src, f->now.boot_ns, row))
		return;
	*b = (struct binding){ .generation = row->generation,
			       .profile = row->profile,
			       .overlay = row->overlay,
			       .overlay_len = row->overlay_len };
	f->binding = b;
}

void decide_describe(struct decide_thread *t, const struct policy *p, struct decision *out)
{
	struct policy_info i;
	out->profile[0] = out->rule[0] = '\0';
	out->origin[0] = out->owner[0] = out->revision[0] = '\0';
	if (!p)
		return;
	policy_info(p, &i);
	policy_rule_id(p, out->v.rule, out->rule);
	if (is_audited(t->of, &out->v))
		describe(out, p, &i);
}

static void describe_upstream(const struct policy *p, struct decision *out)
{
	struct proxy_info x = { "", "" };
	if (p && out->v.action == ACTION_ALLOW && out->v.upstream != UINT32_MAX &&
	    !policy_upstream(p, out->v.upstream, &x))
		out->v.action = ACTION_DENY; /* cannot be: the file was checked */
	copy(out->upstream, sizeof(out->upstream), x.endpoint);
	copy(out->upstream_auth, sizeof(out->upstream_auth), x.auth);
}

/* ---- pins of the source ---- */

static void add_pinned(struct decide_thread *t, const struct question *q, struct facts *f)
{
	const struct pin_subject s = { q->src, f->binding ? f->binding->generation : 0 };
	for (unsigned i = 0; i < PIN_WRITERS; i++) {
		struct pins *p = atomic_load_explicit(&t->of->pins[i], memory_order_acquire);
		if (p)
			f->n_pinned +=
				pins_names(p, &s, &q->dst, f->now.boot_ns, t->pinned + f->n_pinned,
					   MAX_PINNED - f->n_pinned);
	}
	f->pinned = t->pinned;
	t->n_pinned = f->n_pinned;
}

const struct name *decide_pinned(const struct decide_thread *t, unsigned *n)
{
	*n = t->n_pinned;
	return t->pinned;
}

unsigned decide_addrs(struct decide_thread *t, const struct question *q, struct now now,
		      struct addr *out, unsigned max)
{
	struct facts f = { .now = now };
	unsigned n = 0;
	add_binding(t, slot_borrow(t->reader), q, &f, &t->binding, &t->row);
	slot_release(t->reader);
	const struct pin_subject s = { q->src, f.binding ? f.binding->generation : 0 };
	for (unsigned i = 0; i < PIN_WRITERS; i++) {
		struct pins *p = atomic_load_explicit(&t->of->pins[i], memory_order_acquire);
		if (p)
			n += pins_addrs(p, &s, q->name, now.boot_ns, out + n, max - n);
	}
	return n;
}

void decide_pin(struct decide_thread *t, const struct question *q, uint64_t generation,
		const struct addr *v, unsigned n, uint32_t ttl_s, uint64_t now_ns)
{
	const struct pin_subject s = { q->src, generation };
	struct pins *p = atomic_load_explicit(&t->of->pins[0], memory_order_acquire);
	if (p && t->of->writes_pins)
		pins_put(p, &s, q->name, v, n, ttl_s, now_ns);
}

/* What is limited of connections as long as they are there. */
static void set_flow(const struct policy *p, struct decision *out)
{
	struct rate at_once = policy_limit(p, out->v.profile, LIMIT_CONCURRENT),
		    octets = policy_limit(p, out->v.profile, LIMIT_BANDWIDTH);
	out->concurrent = at_once.amount < UINT32_MAX ? (uint32_t)at_once.amount : UINT32_MAX;
	out->bandwidth = octets.amount ? octets.amount / octets.period_s : 0;
	if (octets.amount && out->bandwidth == 0)
		out->bandwidth = 1;
}

const struct policy *decide_begin(struct decide_thread *t, const struct question *q, struct now now,
				  struct decision *out, struct facts *f)
{
	*f = (struct facts){ .now = now, .locals = locals_get(t->locals) };
	const struct policy *p = slot_borrow(t->reader);
	add_binding(t, p, q, f, &t->binding, &t->row);
	t->n_pinned = 0;
	if (q->layer == LAYER_TCP && q->has_dst && !q->name)
		add_pinned(t, q, f);
	verdict(p, q, f, &out->v);
	out->generation = f->binding ? t->row.generation : 0;
	copy(out->task, sizeof(out->task), f->binding ? t->row.task : "");
	out->policy[0] = '\0';
	out->deny_ttl_s = 0;
	out->concurrent = 0;
	out->bandwidth = 0;
	out->retry_after_s = 0;
	out->dropped = out->quiet = out->ancestor = false;
	if (p) {
		struct policy_info i;
		policy_info(p, &i);
		copy(out->policy, sizeof(out->policy), i.digest);
		out->deny_ttl_s = policy_deny_ttl_s(p, out->v.profile);
		set_flow(p, out);
		out->ancestor = out->v.action == ACTION_DENY && q->layer == LAYER_DNS && q->name &&
				verdict_is_ancestor(p, out->v.profile, q->name);
	}
	decide_describe(t, p, out);
	describe_upstream(p, out);
	return p;
}

void decide_end(struct decide_thread *t)
{
	slot_release(t->reader);
}

/* ---- limits ---- */

void decide_charge(struct decide_thread *t, const struct question *q, const struct policy *p,
		   struct now now, bool tentative, struct decision *out)
{
	struct decider *d = t->of;
	const struct charge_tables tables = budgets_tables(d->budgets);
	enum reason was = out->v.reason;
	struct charge c = charge_question(&tables, budgets_counts(d->budgets), p, q,
					  out->generation, &now, tentative, &out->v);
	out->dropped = c.dropped;
	out->quiet = c.quiet;
	out->retry_after_s = c.limited ? c.retry_after_s : 0;
	if (out->v.reason != was)
		decide_describe(t, p, out);
}

void decide_ask(struct decide_thread *t, const struct question *q, struct now now,
		struct decision *out)
{
	struct facts f;
	const struct policy *p = decide_begin(t, q, now, out, &f);
	decide_charge(t, q, p, now, false, out);
	decide_end(t);
}

bool decide_lookup_begin(struct decide_thread *t, const struct question *q, struct now now,
			 struct decision *d, struct lookup *out)
{
	const struct charge_tables tables = budgets_tables(t->of->budgets);
	const struct subject who = { q->src, d->generation };
	enum reason why = REASON_UNRESOLVED;
	/* the gateway's own are not counted */
	*out = (struct lookup){ d->generation, d->v.below, !d->v.any_profile && !d->v.unpoliced };
	if (!out->counted)
		return true;
	if (!charge_failing(&tables, q, d->generation, d->v.below, now.boot_ns)) {
		if (subject_take(t->of->lookups, SUBJECT_QUESTIONS, &who, t->of->max_lookups))
			return true;
		why = REASON_RATE_LIMIT;
		d->retry_after_s = 1;
	}
	d->quiet = charge_said(&tables, q, d->generation, now.boot_ns);
	d->v.action = ACTION_DENY;
	d->v.reason = why;
	d->v.observed = false;
	return false;
}

void decide_lookup_end(struct decide_thread *t, const struct question *q, const struct lookup *l,
		       bool answered)
{
	const struct subject who = { q->src, l->generation };
	if (!l->counted)
		return;
	subject_give(t->of->lookups, SUBJECT_QUESTIONS, &who);
	if (answered)
		return;
	const struct charge_tables tables = budgets_tables(t->of->budgets);
	charge_failure(&tables, q, l->generation, l->below, clock_ns(CLOCK_BOOTTIME));
}

void decide_judge(struct decide_thread *t, const struct question *q, struct now now,
		  struct decision *out)
{
	struct facts f;
	decide_begin(t, q, now, out, &f);
	decide_end(t);
}

void decide_record(struct decide_thread *t, const struct question *q, struct now now,
		   const struct decision *d, const char *id, size_t id_len)
{
	if (d->quiet || !is_audited(t->of, &d->v))
		return;
	struct audit_event e = {
		.wall_ns = now.wall_ns,
		.layer = q->layer,
		.action = d->v.action,
		.reason = d->v.reason,
		.observed = d->v.observed,
		.src = q->src,
		.generation = d->generation,
		.task = d->task,
		.name = q->name,
		.qtype = q->qtype,
		.port = q->port,
		.has_dst = q->has_dst,
		.dst = q->dst,
		.profile = d->profile,
		.rule = d->rule,
		.owner = d->owner,
		.origin = d->origin,
		.revision = d->revision,
		.policy = d->policy,
		.method = q->method,
		.method_len = q->method_len,
		.path = q->path,
		.path_len = q->path_len,
		.id = id,
		.id_len = id_len,
	};
	audit_put(t->ring, &e);
}
