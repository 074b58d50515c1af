/* SPDX-License-Identifier: Apache-2.0 */
/* Binds, rebinds and unbinds (binding.h). Never says done before the kernel agrees that it is. */
#include "shared/tools/binding.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "shared/policy/overlay.h"
#include "shared/policy/policy.h"
#include "shared/policy/verdict.h"
#include "shared/tools/netlink.h"

struct binding_host {
	struct bind_writer *w;
	struct netlink *nl;
	struct policy *policy;
	struct stat policy_at; /* what was opened */
	const char *policy_path;
	bool no_nft;
};

__attribute__((format(printf, 2, 3))) static bool refuse(char *why, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, BINDING_WHY_SIZE, fmt, ap);
	va_end(ap);
	return false;
}

#define FAIL(r, code, ...) (refuse((r)->why, __VA_ARGS__), (code))

uint64_t binding_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

struct binding_host *binding_open(const struct binding_options *o, char why[BINDING_WHY_SIZE])
{
	struct binding_host *h = calloc(1, sizeof(*h));
	char detail[BIND_WHY_SIZE];
	if (!h) {
		refuse(why, "no memory");
		return NULL;
	}
	h->policy_path = o->policy;
	h->no_nft = o->no_nft;
	h->nl = netlink_open();
	h->w = bind_writer_open(o->dir, o->gid, detail);
	if (h->nl && h->w)
		return h;
	refuse(why, "%s/%s: %s", o->dir, BIND_FILE, h->nl ? detail : strerror(errno));
	binding_close(h);
	return NULL;
}

void binding_close(struct binding_host *h)
{
	if (!h)
		return;
	policy_close(h->policy);
	bind_writer_close(h->w);
	netlink_close(h->nl);
	free(h);
}

struct bind_writer *binding_writer(struct binding_host *h)
{
	return h->w;
}

/* ---- orders ---- */

static bool set_text(char *to, size_t size, const char *text, const char *what, const char *chars,
		     char *why)
{
	size_t n = strlen(text);
	if (n == 0 || n >= size)
		return refuse(why, "%s has 1 to %zu characters", what, size - 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		bool word =
			(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!word && !strchr(chars, c))
			return refuse(why, "%s consists of letters, digits and %s", what, chars);
	}
	memcpy(to, text, n + 1);
	return true;
}

bool binding_set_task(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE])
{
	return set_text(o->task, sizeof(o->task), text, "a task", "-_.:/@+", why);
}

bool binding_set_profile(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE])
{
	return set_text(o->profile, sizeof(o->profile), text, "a profile", "-_.:/@+", why);
}

bool binding_set_ifname(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE])
{
	return set_text(o->ifname, sizeof(o->ifname), text, "a link", "-_.@", why);
}

/* ADDR[,ADDR6/LEN] */
bool binding_set_addrs(struct binding_order *o, const char *text, char why[BINDING_WHY_SIZE])
{
	o->n_addrs = 0;
	for (const char *s = text; *s;) {
		size_t n = strcspn(s, ",");
		struct prefix p;
		if (o->n_addrs == BIND_ADDRS || prefix_from_text(&p, s, n) != PREFIX_OK)
			return refuse(why, "not ADDR[,ADDR6/LEN]: %.100s", text);
		if (prefix_is_v4(&p) ? p.len != 128 : p.len < 48)
			return refuse(
				why,
				"a task has one IPv4 address, or an IPv6 prefix of /48 to /128");
		if (o->n_addrs &&
		    (prefix_contains(&o->addrs[0], &p.a) || prefix_contains(&p, &o->addrs[0].a)))
			return refuse(why, "the two addresses overlap");
		o->addrs[o->n_addrs++] = p;
		s += n + (s[n] == ',');
	}
	return o->n_addrs > 0 || refuse(why, "an address is needed");
}

bool binding_add_entry(struct binding_order *o, const char *text, bool only,
		       char why[BINDING_WHY_SIZE])
{
	struct overlay_entry e;
	char detail[OVERLAY_WHY_SIZE];
	if (!overlay_from_text(&e, text, only, detail))
		return refuse(why, "%.100s: %s", text, detail);
	struct writer w = wr_init(o->overlay, sizeof(o->overlay));
	w.len = o->overlay_len;
	overlay_put(&w, &e);
	if (w.bad)
		return refuse(why, "the entries take more than %d octets", BIND_OVERLAY_SIZE);
	o->overlay_len = (uint16_t)w.len;
	o->has_overlay = true;
	return true;
}

/* ---- what the policy says ---- */

/* The policy as it is now; kept open from order to order while the file stays the same. */
static enum binding_code take_policy(struct binding_host *h, struct binding_result *r)
{
	const struct policy_trust trust = { .features = UINT64_MAX, .any_owner = true };
	struct stat st;
	char detail[POLICY_WHY_SIZE];
	if (stat(h->policy_path, &st) != 0)
		return FAIL(r, BINDING_SYSTEM, "%s: %s", h->policy_path, strerror(errno));
	if (h->policy && st.st_ino == h->policy_at.st_ino && st.st_dev == h->policy_at.st_dev &&
	    st.st_size == h->policy_at.st_size &&
	    st.st_ctim.tv_sec == h->policy_at.st_ctim.tv_sec &&
	    st.st_ctim.tv_nsec == h->policy_at.st_ctim.tv_nsec)
		return BINDING_OK;
	struct policy *p = NULL;
	enum policy_err err = policy_open(&p, h->policy_path, &trust, detail);
	if (err != POLICY_OK)
		return FAIL(r, BINDING_SYSTEM, "%s: %s%s%s", h->policy_path, policy_strerror(err),
			    *detail ? ": " : "", detail);
	policy_close(h->policy);
	h->policy = p;
	h->policy_at = st;
	return BINDING_OK;
}

static enum binding_code check_place(const struct policy *p, const struct bind_row *row,
				     uint32_t profile, struct binding_result *r)
{
	char text[PREFIX_TEXT_SIZE];
	for (unsigned i = 0; i < row->n_addrs; i++) {
		struct addr last = row->addrs[i].a;
		for (unsigned b = row->addrs[i].len; b < 128; b++)
			last.b[b / 8] |= (uint8_t)(0x80 >> (b % 8));
		prefix_to_text(&row->addrs[i], text);
		struct source first = policy_source(p, &row->addrs[i].a),
			      end = policy_source(p, &last);
		if (first.kind != SOURCE_BIND || end.kind != SOURCE_BIND)
			return FAIL(r, BINDING_REFUSED, "%s is in no source that `bind` opens",
				    text);
		if (!policy_may_bind(p, first.index, profile) ||
		    !policy_may_bind(p, end.index, profile))
			return FAIL(r, BINDING_REFUSED, "%s may not be bound to the profile %s",
				    text, row->profile);
	}
	return BINDING_OK;
}

/* Would the name be permitted? What `never` or a deny holds cannot be added. */
static bool is_denied(const struct policy *p, const struct bind_row *row,
		      const struct overlay_entry *e, struct now now)
{
	const struct binding b = { .generation = 1, .profile = row->profile };
	const struct facts f = { .now = now, .binding = &b };
	const struct question q = {
		.layer = LAYER_DNS, .src = row->addrs[0].a, .name = &e->name, .qtype = 1
	};
	struct verdict v;
	verdict(p, &q, &f, &v);
	return v.reason == REASON_NEVER || v.reason == REASON_DENIED_ENTRY;
}

static enum binding_code check_additions(const struct policy *p, const struct bind_row *row,
					 uint32_t profile, struct binding_result *r)
{
	struct reader rd = rd_init(row->overlay, row->overlay_len);
	struct overlay_entry e;
	struct timespec t;
	char text[NAME_TEXT_SIZE];
	uint32_t n = 0, most = policy_task_limits(p, profile).entries;
	clock_gettime(CLOCK_REALTIME, &t);
	struct now now = { .wall_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec };
	while (overlay_next(&rd, &e)) {
		if (e.flags & OVERLAY_ONLY)
			continue;
		name_to_text(&e.name, text);
		const char *star = e.flags & OVERLAY_BELOW ? "*." : "";
		if (++n > most)
			return FAIL(r, BINDING_REFUSED, "the profile %s lets a task add %u entries",
				    row->profile, (unsigned)most);
		if (is_denied(p, row, &e, now))
			return FAIL(r, BINDING_REFUSED, "%s%.180s: the policy denies it", star,
				    text);
		if (!verdict_may_add(p, profile, &e, &now))
			return FAIL(r, BINDING_REFUSED,
				    "%s%.120s is not within what the profile %s lets a task add",
				    star, text, row->profile);
	}
	return BINDING_OK;
}

/* Fits the row to the policy: the profile is there, and everything that goes beyond it is permitted. */
static enum binding_code check_policy(struct binding_host *h, struct bind_row *row, bool has_ttl,
				      uint64_t ttl_s, struct binding_result *r)
{
	enum binding_code rc = take_policy(h, r);
	if (rc != BINDING_OK)
		return rc;
	uint32_t profile = policy_find_profile(h->policy, row->profile);
	if (profile == UINT32_MAX)
		return FAIL(r, BINDING_REFUSED, "the policy has no profile %s", row->profile);
	rc = check_place(h->policy, row, profile, r);
	if (rc == BINDING_OK)
		rc = check_additions(h->policy, row, profile, r);
	if (rc != BINDING_OK)
		return rc;
	uint32_t most = policy_task_limits(h->policy, profile).max_ttl_s;
	if (has_ttl && (ttl_s == 0 || (most && ttl_s > most)))
		return FAIL(r, BINDING_REFUSED, "a task of the profile %s lives 1 to %u s",
			    row->profile, most ? (unsigned)most : (unsigned)UINT32_MAX);
	if (!has_ttl)
		ttl_s = most;
	row->deadline_ns = ttl_s ? binding_now_ns() + ttl_s * 1000000000 : 0;
	return BINDING_OK;
}

/* ---- steps ---- */

static bool is_expired(const struct bind_row *row)
{
	return row->deadline_ns && binding_now_ns() >= row->deadline_ns;
}

static uint64_t timeout_ms(const struct bind_row *row)
{
	if (!row->deadline_ns)
		return 0;
	uint64_t now = binding_now_ns();
	return row->deadline_ns > now ? (row->deadline_ns - now) / 1000000 + 1 : 1;
}

static enum binding_code add_elements(struct binding_host *h, const struct bind_row *row,
				      struct binding_result *r)
{
	for (unsigned i = 0; !h->no_nft && i < row->n_addrs; i++) {
		int rc = netlink_add_bound(h->nl, row->ifname, &row->addrs[i], timeout_ms(row));
		if (rc == -ENOENT)
			return FAIL(r, BINDING_SYSTEM,
				    "nftables: no table inet cx with the sets cx_bound4, "
				    "cx_bound6 and cx_bound6_net");
		if (rc < 0)
			return FAIL(r, BINDING_SYSTEM, "nftables: %s", strerror(-rc));
		bind_fault("element-added");
	}
	return BINDING_OK;
}

static enum binding_code delete_elements(struct binding_host *h, const struct bind_row *row,
					 struct binding_result *r)
{
	for (unsigned i = 0; !h->no_nft && i < row->n_addrs; i++) {
		int rc = netlink_delete_bound(h->nl, row->ifname, &row->addrs[i]);
		if (rc < 0)
			return FAIL(r, BINDING_SYSTEM, "nftables: %s", strerror(-rc));
		bind_fault("element-deleted");
	}
	return BINDING_OK;
}

static int destroy_sockets(struct binding_host *h, const struct bind_row *row,
			   struct binding_result *r)
{
	int all = 0;
	for (unsigned i = 0; i < row->n_addrs; i++) {
		int k = netlink_destroy_sockets(h->nl, &row->addrs[i]);
		if (k < 0)
			return k;
		all += k;
		bind_fault("sockets-destroyed");
	}
	r->sockets += (unsigned)all;
	return all;
}

static int forget_flows(struct binding_host *h, const struct bind_row *row,
			struct binding_result *r)
{
	int all = 0;
	for (unsigned i = 0; i < row->n_addrs; i++) {
		int k = netlink_forget_connections(h->nl, &row->addrs[i]);
		if (k < 0)
			return k;
		all += k;
		bind_fault("flows-forgotten");
	}
	r->flows += (unsigned)all;
	return all;
}

/* What ends something of the addresses' and says how much there was. */
typedef int end_fn(struct binding_host *h, const struct bind_row *row, struct binding_result *r);

/* Until nothing is left, seen `looks` times in a row, a moment apart. */
static enum binding_code repeat(struct binding_host *h, const struct bind_row *row, end_fn *end_all,
				unsigned looks, uint64_t wait_ms, struct binding_result *r)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	uint64_t end = binding_now_ns() + wait_ms * 1000000;
	for (unsigned empty = 0;;) {
		int left = end_all(h, row, r);
		if (left < 0)
			return FAIL(r, BINDING_SYSTEM, "the kernel did not end the connections: %s",
				    strerror(-left));
		empty = left ? 0 : empty + 1;
		if (empty >= looks)
			return BINDING_OK;
		if (left && binding_now_ns() >= end)
			return FAIL(r, BINDING_SYSTEM,
				    "after %llu ms there are still connections of the address",
				    (unsigned long long)wait_ms);
		if (!left)
			nanosleep(&moment, NULL);
	}
}

/*
 * Sockets first, and twice: a packet that had passed the set before its element was deleted may still
 * have been on its way to a listener. No flow can be new by then.
 */
static enum binding_code clean(struct binding_host *h, const struct bind_row *row, uint64_t wait_ms,
			       struct binding_result *r)
{
	enum binding_code rc = repeat(h, row, destroy_sockets, 2, wait_ms, r);
	return rc == BINDING_OK ? repeat(h, row, forget_flows, 1, wait_ms, r) : rc;
}

static enum binding_code locks_failed(struct binding_result *r)
{
	return FAIL(r, BINDING_SYSTEM, "cannot lock the bindings: %s", strerror(errno));
}

/* ---- unbind ---- */

/* The row of the task, with its addresses locked (and the table not). BIND_NO_ROW: none, or errno. */
static uint32_t lock_task(struct binding_host *h, const char *task, struct bind_row *row)
{
	for (;;) {
		struct bind_row again;
		if (!bind_lock_table(h->w))
			return BIND_NO_ROW;
		errno = 0;
		uint32_t at = bind_row_of_task(h->w, task, row);
		bind_unlock_table(h->w);
		if (at == BIND_NO_ROW || !bind_lock_addrs(h->w, row->addrs, row->n_addrs))
			return BIND_NO_ROW;
		if (!bind_lock_table(h->w))
			return BIND_NO_ROW;
		uint32_t now = bind_row_of_task(h->w, task, &again);
		bind_unlock_table(h->w);
		if (now == at && again.generation == row->generation) {
			*row = again;
			return at;
		}
		bind_unlock_addrs(h->w, row->addrs, row->n_addrs);
	}
}

static enum binding_code leave(struct binding_host *h, uint32_t at, struct bind_row *row,
			       uint64_t wait_ms, struct binding_result *r)
{
	enum binding_code rc = delete_elements(h, row, r);
	if (rc != BINDING_OK)
		return rc;
	if (!bind_lock_table(h->w))
		return locks_failed(r);
	row->state = BIND_LEAVING;
	bind_update(h->w, at, row);
	bind_unlock_table(h->w);
	bind_fault("generation-retired");
	rc = clean(h, row, wait_ms, r);
	if (rc != BINDING_OK)
		return rc;
	if (!bind_lock_table(h->w))
		return locks_failed(r);
	bind_remove(h->w, at);
	bind_unlock_table(h->w);
	bind_fault("row-removed");
	return BINDING_OK;
}

enum binding_code binding_unbind(struct binding_host *h, const char *task, uint64_t wait_ms,
				 struct binding_result *r)
{
	struct bind_row row;
	*r = (struct binding_result){ .found = false };
	uint32_t at = lock_task(h, task, &row);
	if (at == BIND_NO_ROW)
		return errno ? locks_failed(r) : BINDING_OK;
	r->found = true;
	r->generation = row.generation;
	enum binding_code rc = leave(h, at, &row, wait_ms, r);
	bind_unlock_addrs(h->w, row.addrs, row.n_addrs);
	return rc;
}

/* ---- bind ---- */

static bool same_addrs(const struct bind_row *row, const struct binding_order *o)
{
	if (row->n_addrs != o->n_addrs)
		return false;
	for (unsigned i = 0; i < o->n_addrs; i++)
		if (row->addrs[i].len != o->addrs[i].len ||
		    addr_cmp(&row->addrs[i].a, &o->addrs[i].a) != 0)
			return false;
	return true;
}

bool binding_matches(const struct bind_row *row, const struct binding_order *o)
{
	return row->state == BIND_BOUND && same_addrs(row, o) && strcmp(row->task, o->task) == 0 &&
	       strcmp(row->ifname, o->ifname) == 0 && strcmp(row->profile, o->profile) == 0 &&
	       row->overlay_len == o->overlay_len &&
	       memcmp(row->overlay, o->overlay, o->overlay_len) == 0;
}

/*
 * What stands in the way: another task on one of the addresses, or this task elsewhere. With the
 * table locked. *same: the very binding is there already.
 */
static uint32_t in_the_way(struct binding_host *h, const struct binding_order *o,
			   struct bind_row *row, bool *same)
{
	uint32_t at = bind_row_of_task(h->w, o->task, row);
	*same = at != BIND_NO_ROW && binding_matches(row, o) && !is_expired(row);
	for (unsigned i = 0; at == BIND_NO_ROW && i < o->n_addrs; i++)
		at = bind_row_overlapping(h->w, &o->addrs[i], row);
	return at;
}

/* Takes away what an expired binding or a killed unbind left; BINDING_TAKEN if it is in force. */
static enum binding_code clear_way(struct binding_host *h, const struct binding_order *o,
				   struct bind_row *row, bool *same, struct binding_result *r)
{
	for (unsigned try = 0; try < 8; try++) {
		if (!bind_lock_table(h->w))
			return locks_failed(r);
		uint32_t at = in_the_way(h, o, row, same);
		bind_unlock_table(h->w);
		if (at == BIND_NO_ROW || *same)
			return BINDING_OK;
		if (row->state == BIND_BOUND && !is_expired(row))
			break;
		struct binding_result left;
		enum binding_code rc = binding_unbind(h, row->task, o->wait_ms, &left);
		if (rc != BINDING_OK) {
			memcpy(r->why, left.why, sizeof(r->why));
			return rc;
		}
	}
	if (strcmp(row->task, o->task) == 0)
		return FAIL(r, BINDING_TAKEN,
			    "the task %s is bound otherwise (rebind or unbind it)", o->task);
	return FAIL(r, BINDING_TAKEN, "the address is bound to the task %s", row->task);
}

/* Publishes the row: from here on every new decision sees it. */
static enum binding_code publish(struct binding_host *h, const struct binding_order *o,
				 struct bind_row *row, uint32_t *at, struct binding_result *r)
{
	struct bind_row other;
	bool same;
	if (!bind_lock_table(h->w))
		return locks_failed(r);
	enum binding_code rc = BINDING_OK;
	if (in_the_way(h, o, &other, &same) != BIND_NO_ROW)
		rc = FAIL(r, BINDING_TAKEN, "the address is bound to the task %s", other.task);
	else if ((row->generation = bind_next_generation(h->w)) == 0)
		rc = FAIL(r, BINDING_SYSTEM, "cannot write down the generation");
	else if ((*at = bind_add(h->w, row)) == BIND_NO_ROW)
		rc = FAIL(r, BINDING_SYSTEM, "the table is full: %d addresses are bound",
			  BIND_ROWS);
	bind_unlock_table(h->w);
	return rc;
}

static void withdraw(struct binding_host *h, uint32_t at, const struct bind_row *row)
{
	struct binding_result ignored;
	(void)delete_elements(h, row, &ignored);
	if (!bind_lock_table(h->w))
		return;
	bind_remove(h->w, at);
	bind_unlock_table(h->w);
}

static enum binding_code bind_locked(struct binding_host *h, const struct binding_order *o,
				     struct bind_row *row, struct binding_result *r)
{
	uint32_t at = BIND_NO_ROW;
	enum binding_code rc = repeat(h, row, destroy_sockets, 1, o->wait_ms, r);
	if (rc != BINDING_OK)
		return rc;
	rc = publish(h, o, row, &at, r);
	if (rc != BINDING_OK)
		return rc;
	bind_fault("row-published");
	rc = add_elements(h, row, r);
	if (rc != BINDING_OK)
		withdraw(h, at, row);
	r->generation = row->generation;
	return rc;
}

/* The same again, after a kill or by a careful orchestrator: the element is put back, nothing else. */
static enum binding_code complete(struct binding_host *h, const struct bind_row *row,
				  struct binding_result *r)
{
	r->generation = row->generation;
	return add_elements(h, row, r);
}

enum binding_code binding_bind(struct binding_host *h, const struct binding_order *o,
			       struct binding_result *r)
{
	struct bind_row row = { .state = BIND_BOUND, .n_addrs = o->n_addrs }, there;
	bool same = false;
	*r = (struct binding_result){ .found = false };
	memcpy(row.addrs, o->addrs, sizeof(row.addrs));
	memcpy(row.task, o->task, sizeof(row.task));
	memcpy(row.profile, o->profile, sizeof(row.profile));
	memcpy(row.ifname, o->ifname, sizeof(row.ifname));
	memcpy(row.overlay, o->overlay, o->overlay_len);
	row.overlay_len = o->overlay_len;
	enum binding_code rc = check_policy(h, &row, o->has_ttl, o->ttl_s, r);
	if (rc == BINDING_OK)
		rc = clear_way(h, o, &there, &same, r);
	if (rc != BINDING_OK)
		return rc;
	if (!bind_lock_addrs(h->w, o->addrs, o->n_addrs))
		return locks_failed(r);
	rc = same ? complete(h, &there, r) : bind_locked(h, o, &row, r);
	bind_unlock_addrs(h->w, o->addrs, o->n_addrs);
	return rc;
}

/* ---- rebind ---- */

static enum binding_code rebind_locked(struct binding_host *h, const struct binding_order *o,
				       uint32_t at, struct bind_row *row, struct binding_result *r)
{
	uint64_t deadline = row->deadline_ns;
	if (row->state != BIND_BOUND || is_expired(row))
		return FAIL(r, BINDING_REFUSED, "the task %s has expired, or is being unbound",
			    o->task);
	if (*o->profile)
		memcpy(row->profile, o->profile, sizeof(row->profile));
	if (o->has_overlay) {
		memcpy(row->overlay, o->overlay, o->overlay_len);
		row->overlay_len = o->overlay_len;
	}
	enum binding_code rc = check_policy(h, row, o->has_ttl, o->ttl_s, r);
	if (rc != BINDING_OK)
		return rc;
	/* without a new time the old one holds, unless the new profile permits less */
	if (!o->has_ttl && deadline && (!row->deadline_ns || deadline < row->deadline_ns))
		row->deadline_ns = deadline;
	if (!bind_lock_table(h->w))
		return locks_failed(r);
	if (o->cut)
		row->generation = bind_next_generation(h->w);
	if (row->generation)
		bind_update(h->w, at, row);
	bind_unlock_table(h->w);
	if (!row->generation)
		return FAIL(r, BINDING_SYSTEM, "cannot write down the generation");
	r->generation = row->generation;
	bind_fault("row-updated");
	rc = add_elements(h, row, r);
	if (rc == BINDING_OK && o->cut)
		rc = repeat(h, row, destroy_sockets, 1, o->wait_ms, r);
	return rc;
}

enum binding_code binding_rebind(struct binding_host *h, const struct binding_order *o,
				 struct binding_result *r)
{
	struct bind_row row;
	*r = (struct binding_result){ .found = false };
	uint32_t at = lock_task(h, o->task, &row);
	if (at == BIND_NO_ROW)
		return errno ? locks_failed(r)
			     : FAIL(r, BINDING_REFUSED, "the task %s is not bound", o->task);
	enum binding_code rc = rebind_locked(h, o, at, &row, r);
	bind_unlock_addrs(h->w, row.addrs, row.n_addrs);
	return rc;
}

/* ---- restore ---- */

struct restore {
	struct binding_host *h;
	struct binding_result r;
	enum binding_code rc;
	unsigned n;
};

static bool restore_row(void *arg, uint32_t at, const struct bind_row *row)
{
	struct restore *o = arg;
	if (row->state != BIND_BOUND || is_expired(row))
		return true;
	o->rc = add_elements(o->h, row, &o->r);
	o->n += o->rc == BINDING_OK;
	return o->rc == BINDING_OK;
}

enum binding_code binding_restore(struct binding_host *h, unsigned *n, char why[BINDING_WHY_SIZE])
{
	struct restore o = { .h = h };
	if (!bind_lock_table(h->w)) {
		refuse(why, "cannot lock the bindings: %s", strerror(errno));
		return BINDING_SYSTEM;
	}
	bind_each(h->w, restore_row, &o);
	bind_unlock_table(h->w);
	*n = o.n;
	memcpy(why, o.r.why, sizeof(o.r.why));
	return o.rc;
}
