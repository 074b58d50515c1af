/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log (audit.h): events go into rings, one thread turns them into JSON lines. Never makes a
 * hot thread wait, never lets an octet of a name end a line or a string.
 */
#include "shared/live/audit.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	RING_SIZE = 1 << 20, /* octets, a power of two */
	MAX_PATH = 256,
	MAX_METHOD = 32,
	MAX_ID = 64,
	MAX_TEXT = 255,         /* owner, origin, profile, revision */
	MAX_RECORD = 2048,      /* more than any record takes */
	MAX_LINE = 16384,       /* more than any record takes as JSON, every octet escaped */
	WRITE_SIZE = 256 * 1024 /* octets gathered for one write */
};

/* A record in a ring: this, then the texts in this order, then padding to 8. */
struct record {
	uint32_t size; /* all of it; 0 marks that the rest of the ring is skipped */
	uint64_t generation;
	int64_t wall_ns;
	struct addr src, dst;
	uint16_t qtype, port;
	uint8_t layer, action, reason;
	uint8_t observed : 1, has_dst : 1, has_name : 1;
	uint8_t task, profile, rule, owner, origin, revision, policy, method, id; /* lengths */
	uint16_t path;
	uint16_t name;
	uint8_t name_labels;
};

/* One writer, one reader. Positions only grow; the octet at p stands at data[p % RING_SIZE]. */
struct audit_ring {
	_Alignas(64) _Atomic uint64_t head; /* written up to here */
	uint64_t tail_seen;                 /* the writer's last look at tail */
	_Alignas(64) _Atomic uint64_t tail; /* read up to here */
	_Atomic uint64_t dropped;
	_Atomic bool used;
	struct audit *audit;
	struct audit_ring *next;
	_Alignas(64) uint8_t data[RING_SIZE];
};

struct audit {
	_Atomic(struct audit_ring *) rings; /* only ever grows; free ones are used again */
	_Atomic uint64_t lost;              /* lines that the file did not take */
	char *path;
	char component[16];
	char host[65];
	int fd;
	dev_t dev;
	ino_t ino;
	char *out;
	size_t n_out, lines_out;
	bool half_line; /* the last write ended inside a line */
	time_t stamp_s;
	char stamp[64];
};

struct audit *audit_new(const char *component, const char *path)
{
	struct audit *a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->fd = -1;
	a->out = malloc(WRITE_SIZE + MAX_LINE);
	a->path = path ? strdup(path) : NULL;
	if (!a->out || (path && !a->path)) {
		audit_free(a);
		return NULL;
	}
	snprintf(a->component, sizeof(a->component), "%s", component);
	if (gethostname(a->host, sizeof(a->host) - 1) != 0)
		a->host[0] = '\0';
	return a;
}

void audit_free(struct audit *a)
{
	if (!a)
		return;
	audit_drain(a, NULL);
	struct audit_ring *r = atomic_load(&a->rings);
	while (r) {
		struct audit_ring *next = r->next;
		free(r);
		r = next;
	}
	if (a->fd > 2)
		close(a->fd);
	free(a->out);
	free(a->path);
	free(a);
}

struct audit_ring *audit_ring_new(struct audit *a)
{
	for (struct audit_ring *r = atomic_load(&a->rings); r; r = r->next) {
		bool was = false;
		if (atomic_compare_exchange_strong(&r->used, &was, true))
			return r;
	}
	struct audit_ring *r = aligned_alloc(64, sizeof(*r));
	if (!r)
		return NULL;
	memset(r, 0, offsetof(struct audit_ring, data));
	r->audit = a;
	atomic_init(&r->used, true);
	r->next = atomic_load(&a->rings);
	while (!atomic_compare_exchange_weak(&a->rings, &r->next, r))
		;
	return r;
}

void audit_ring_free(struct audit_ring *r)
{
	if (r)
		atomic_store(&r->used, false);
}

/* ---- the hot side ---- */

static size_t text_len(const char *s, size_t max)
{
	return s ? strnlen(s, max) : 0;
}

static uint8_t *put(uint8_t *at, const void *s, size_t n)
{
	if (n)
		memcpy(at, s, n);
	return at + n;
}

/* Fills a record at b, which holds MAX_RECORD octets; returns its size. */
static uint32_t fill(uint8_t *b, const struct audit_event *e)
{
	struct record r = { .generation = e->generation,
			    .wall_ns = e->wall_ns,
			    .src = e->src,
			    .dst = e->dst,
			    .qtype = e->qtype,
			    .port = e->port,
			    .layer = (uint8_t)e->layer,
			    .action = (uint8_t)e->action,
			    .reason = (uint8_t)e->reason,
			    .observed = e->observed,
			    .has_dst = e->has_dst,
			    .has_name = e->name != NULL,
			    .task = (uint8_t)text_len(e->task, MAX_TEXT),
			    .profile = (uint8_t)text_len(e->profile, MAX_TEXT),
			    .rule = (uint8_t)text_len(e->rule, 12),
			    .owner = (uint8_t)text_len(e->owner, MAX_TEXT),
			    .origin = (uint8_t)text_len(e->origin, MAX_TEXT),
			    .revision = (uint8_t)text_len(e->revision, MAX_TEXT),
			    .policy = (uint8_t)text_len(e->policy, 12),
			    .method = (uint8_t)(e->method_len < MAX_METHOD ? e->method_len
									   : MAX_METHOD),
			    .id = (uint8_t)(e->id_len < MAX_ID ? e->id_len : MAX_ID),
			    .name = e->name ? e->name->len : 0,
			    .name_labels = e->name ? e->name->n_labels : 0 };
	size_t path = e->path_len;
	const char *query = path ? memchr(e->path, '?', path) : NULL;
	if (query)
		path = (size_t)(query - e->path);
	r.path = (uint16_t)(path < MAX_PATH ? path : MAX_PATH);
	uint8_t *at = b + sizeof(r);
	at = put(at, e->task, r.task);
	at = put(at, e->profile, r.profile);
	at = put(at, e->rule, r.rule);
	at = put(at, e->owner, r.owner);
	at = put(at, e->origin, r.origin);
	at = put(at, e->revision, r.revision);
	at = put(at, e->policy, r.policy);
	at = put(at, e->method, r.method);
	at = put(at, e->id, r.id);
	at = put(at, e->path, r.path);
	if (e->name)
		at = put(at, e->name->wire, r.name);
	r.size = (uint32_t)((size_t)(at - b) + 7) & ~7u;
	memcpy(b, &r, sizeof(r));
	return r.size;
}

static_assert(sizeof(struct record) + 5 * MAX_TEXT + 12 + 12 + MAX_METHOD + MAX_ID + MAX_PATH +
			      NAME_MAX_WIRE + 8 <
		      MAX_RECORD,
	      "any record fits");

bool audit_put(struct audit_ring *r, const struct audit_event *e)
{
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint64_t at = head % RING_SIZE;
	uint64_t skip = RING_SIZE - at < MAX_RECORD ? RING_SIZE - at : 0;
	if (head + skip + MAX_RECORD - r->tail_seen > RING_SIZE) {
		r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
		if (head + skip + MAX_RECORD - r->tail_seen > RING_SIZE) {
			atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
			return false;
		}
	}
	if (skip) {
		memset(r->data + at, 0, sizeof(uint32_t));
		head += skip;
		at = 0;
	}
	head += fill(r->data + at, e);
	atomic_store_explicit(&r->head, head, memory_order_release);
	return true;
}

/* ---- JSON ---- */

struct line {
	char *p;
	size_t n;
};

static void raw(struct line *l, const char *s, size_t n)
{
	memcpy(l->p + l->n, s, n);
	l->n += n;
}

#define LITERAL(l, s) raw(l, s, sizeof(s) - 1)

/* How many octets from s on stand in a JSON string as they are. */
static size_t plain_run(const uint8_t *s, size_t n)
{
	size_t i = 0;
	while (i < n && s[i] >= 0x20 && s[i] < 0x7f && s[i] != '"' && s[i] != '\\')
		i++;
	return i;
}

/* The octets as a JSON string; what is not printable ASCII as \u00XX, one per octet. */
static void quoted(struct line *l, const uint8_t *s, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	l->p[l->n++] = '"';
	for (size_t i = 0; i < n; i++) {
		size_t run = plain_run(s + i, n - i);
		raw(l, (const char *)s + i, run);
		i += run;
		if (i == n)
			break;
		uint8_t c = s[i];
		LITERAL(l, "\\u00");
		l->p[l->n++] = hex[c >> 4];
		l->p[l->n++] = hex[c & 15];
	}
	l->p[l->n++] = '"';
}

static void number(struct line *l, uint64_t v)
{
	char buf[20];
	size_t i = sizeof(buf);
	do {
		buf[--i] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	raw(l, buf + i, sizeof(buf) - i);
}

static void text(struct line *l, const char *s)
{
	raw(l, s, strlen(s));
}

/* RFC 3339 with microseconds; the part down to the second is kept from line to line. */
static void timestamp(struct audit *a, struct line *l, int64_t wall_ns)
{
	time_t s = (time_t)(wall_ns / 1000000000);
	uint32_t us = (uint32_t)(wall_ns % 1000000000 / 1000);
	char digits[6];
	if (s != a->stamp_s || !a->stamp[0]) {
		struct tm tm;
		if (!gmtime_r(&s, &tm))
			memset(&tm, 0, sizeof(tm));
		snprintf(a->stamp, sizeof(a->stamp), "\"%04d-%02d-%02dT%02d:%02d:%02d.",
			 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
			 tm.tm_sec);
		a->stamp_s = s;
	}
	for (unsigned i = 6; i-- > 0; us /= 10)
		digits[i] = (char)('0' + us % 10);
	text(l, a->stamp);
	raw(l, digits, sizeof(digits));
	LITERAL(l, "Z\"");
}

static void address(struct line *l, const struct addr *a)
{
	char buf[ADDR_TEXT_SIZE];
	size_t n = addr_to_text(a, buf);
	quoted(l, (const uint8_t *)buf, n);
}

/* The types that clients ask for; others as TYPEnnn (RFC 3597). */
static void query_type(struct line *l, uint16_t type)
{
	static const struct {
		uint16_t type;
		const char *text;
	} known[] = { { 1, "A" },      { 2, "NS" },     { 5, "CNAME" },   { 6, "SOA" },
		      { 12, "PTR" },   { 15, "MX" },    { 16, "TXT" },    { 28, "AAAA" },
		      { 33, "SRV" },   { 43, "DS" },    { 48, "DNSKEY" }, { 64, "SVCB" },
		      { 65, "HTTPS" }, { 252, "AXFR" }, { 255, "ANY" } };
	LITERAL(l, "\"");
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].type == type) {
			text(l, known[i].text);
			LITERAL(l, "\"");
			return;
		}
	LITERAL(l, "TYPE");
	number(l, type);
	LITERAL(l, "\"");
}

static void name_text(struct line *l, const uint8_t *wire, const struct record *r)
{
	struct name n;
	char text[NAME_TEXT_SIZE];
	uint8_t full[NAME_MAX_WIRE + 1];
	memcpy(full, wire, r->name);
	full[r->name] = 0;
	if (name_from_wire(&n, full, (size_t)r->name + 1, NULL) != NAME_OK)
		return;
	quoted(l, (const uint8_t *)text, name_to_text(&n, text));
}

static void member(struct line *l, const char *key, const uint8_t **at, size_t n)
{
	if (n) {
		raw(l, key, strlen(key));
		quoted(l, *at, n);
	}
	*at += n;
}

static void to_json(struct audit *a, const struct record *r, const uint8_t *at, struct line *l)
{
	LITERAL(l, "{\"v\":1,\"ts\":");
	timestamp(a, l, r->wall_ns);
	LITERAL(l, ",\"layer\":\"");
	text(l, layer_text(r->layer));
	LITERAL(l, "\",\"component\":\"");
	text(l, a->component);
	LITERAL(l, "\",\"src\":");
	address(l, &r->src);
	member(l, ",\"task\":", &at, r->task);
	if (r->generation) {
		LITERAL(l, ",\"generation\":");
		number(l, r->generation);
	}
	member(l, ",\"profile\":", &at, r->profile);
	const uint8_t *rule = at, *name;
	at += r->rule;
	const uint8_t *owner = at, *origin = at + r->owner;
	at = origin + r->origin;
	const uint8_t *revision = at, *policy = at + r->revision;
	at = policy + r->policy;
	const uint8_t *method = at, *id = at + r->method, *path = id + r->id;
	name = path + r->path;
	if (r->has_name) {
		LITERAL(l, ",\"name\":");
		name_text(l, name, r);
	}
	if (r->layer == LAYER_DNS) {
		LITERAL(l, ",\"qtype\":");
		query_type(l, r->qtype);
	} else {
		LITERAL(l, ",\"port\":");
		number(l, r->port);
	}
	if (r->has_dst) {
		LITERAL(l, ",\"dst\":");
		address(l, &r->dst);
	}
	member(l, ",\"method\":", &method, r->method);
	member(l, ",\"path\":", &path, r->path);
	LITERAL(l, ",\"verdict\":\"");
	text(l, r->action == ACTION_ALLOW ? "allow" : r->action == ACTION_NEXT ? "next" : "deny");
	LITERAL(l, "\",\"reason\":\"");
	text(l, reason_text(r->reason));
	LITERAL(l, "\"");
	member(l, ",\"rule\":", &rule, r->rule);
	member(l, ",\"origin\":", &origin, r->origin);
	member(l, ",\"owner\":", &owner, r->owner);
	if (r->observed)
		LITERAL(l, ",\"observed\":true");
	member(l, ",\"revision\":", &revision, r->revision);
	member(l, ",\"policy\":", &policy, r->policy);
	LITERAL(l, ",\"host\":");
	quoted(l, (const uint8_t *)a->host, strlen(a->host));
	LITERAL(l, ",\"pid\":");
	number(l, (uint64_t)getpid());
	member(l, ",\"id\":", &id, r->id);
	LITERAL(l, "}\n");
}

/* ---- the file ---- */

/* Opens the file, or another one if it was moved away. */
static int reopen(struct audit *a)
{
	struct stat st;
	if (strcmp(a->path, "-") == 0) {
		a->fd = STDERR_FILENO;
		return 0;
	}
	if (a->fd >= 0 && stat(a->path, &st) == 0 && st.st_dev == a->dev && st.st_ino == a->ino)
		return 0;
	int fd = open(a->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
		      0640);
	if (fd < 0)
		return errno;
	if (fstat(fd, &st) != 0) {
		int err = errno;
		close(fd);
		return err;
	}
	if (a->fd >= 0)
		close(a->fd);
	a->fd = fd;
	a->dev = st.st_dev;
	a->ino = st.st_ino;
	a->half_line = false;
	return 0;
}

/* Lines that are wholly in the first n octets. */
static size_t count_lines(const char *s, size_t n)
{
	size_t lines = 0;
	for (const char *at = s; (at = memchr(at, '\n', n - (size_t)(at - s))) != NULL; at++)
		lines++;
	return lines;
}

/*
 * Writes what is gathered, in one write. What the file does not take is lost and counted; if a full
 * disk cut a line in two, its rest is closed by a newline before the next one.
 */
static int flush(struct audit *a, size_t *written)
{
	size_t n = a->n_out, lines = a->lines_out;
	a->n_out = a->lines_out = 0;
	if (n == 0)
		return 0;
	int err = a->path ? reopen(a) : 0;
	ssize_t k = -1;
	if (err == 0 && a->path) {
		if (a->half_line && write(a->fd, "\n", 1) == 1)
			a->half_line = false;
		k = a->half_line ? -1 : write(a->fd, a->out, n);
		if (k < 0)
			err = errno ? errno : EIO;
	}
	size_t got = k > 0 ? count_lines(a->out, (size_t)k) : 0;
	if (k > 0 && a->out[k - 1] != '\n')
		a->half_line = true;
	if (a->path)
		atomic_fetch_add(&a->lost, lines - got);
	*written += got;
	return err ? err : (got < lines && a->path ? ENOSPC : 0);
}

static void drain_ring(struct audit *a, struct audit_ring *r, size_t *written, int *err)
{
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
	while (tail != head) {
		const uint8_t *b = r->data + tail % RING_SIZE;
		struct record rec;
		memcpy(&rec.size, b, sizeof(rec.size));
		if (rec.size == 0) {
			tail += RING_SIZE - tail % RING_SIZE;
			continue;
		}
		memcpy(&rec, b, sizeof(rec));
		if (a->path) {
			struct line l = { .p = a->out + a->n_out };
			to_json(a, &rec, b + sizeof(rec), &l);
			a->n_out += l.n;
			a->lines_out++;
		}
		tail += rec.size;
		if (a->n_out >= WRITE_SIZE) {
			atomic_store_explicit(&r->tail, tail, memory_order_release);
			int e = flush(a, written);
			*err = e ? e : *err;
		}
	}
	atomic_store_explicit(&r->tail, tail, memory_order_release);
}

size_t audit_drain(struct audit *a, int *err)
{
	size_t written = 0;
	int e = 0, f;
	for (struct audit_ring *r = atomic_load(&a->rings); r; r = r->next)
		drain_ring(a, r, &written, &e);
	f = flush(a, &written);
	if (err)
		*err = f ? f : e;
	return written;
}

uint64_t audit_dropped(const struct audit *a)
{
	uint64_t n = atomic_load(&a->lost);
	for (struct audit_ring *r = atomic_load(&a->rings); r; r = r->next)
		n += atomic_load(&r->dropped);
	return n;
}
