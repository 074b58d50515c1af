/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stub that asks one resolver for A and AAAA; see resolve.h. Each look-up has a socket, and so a
 * port, of its own. Never asks anybody else, never asks for the target of an alias.
 */
#include "spoa-agent/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "shared/host/endpoint.h"

enum {
	WAYS = 8,
	BUCKETS = 256,
	TICKS = 6, /* of a look-up's time; at odd ones the question is repeated */
	TCP_IN_SIZE = 2 + 65535,
	TTL_MAX_S = 300,
	TTL_MAX_EMPTY_S = 60,  /* one family has no address */
	TTL_MAX_NOTHING_S = 5, /* neither has */
	TTL_FAILED_S = 2
};

struct lookup;

/* A question repeated over TCP because its answer did not fit. */
struct tcp_try {
	ev_io io;
	uint8_t *buf; /* the question, then the answer, each behind its length */
	size_t len;
	size_t sent;
};

struct lookup {
	struct resolver *r;
	struct name name;
	uint64_t hash;
	struct resolved answer;
	uint16_t id[2];
	unsigned ticks;
	ev_io io;
	ev_timer timer;
	struct tcp_try tcp[2];
	struct resolve_waiter *waiters;
	struct lookup *next; /* in its bucket, or among the unused */
};

struct entry {
	uint64_t expires_ns; /* 0: empty */
	uint64_t hash;
	uint8_t len;
	uint8_t wire[NAME_MAX_WIRE];
	struct resolved answer;
};

struct resolver {
	struct ev_loop *loop;
	struct resolver_options o;
	uint64_t seed;
	struct entry *cache;
	size_t n_sets;
	struct lookup *lookups;
	struct lookup *unused;
	struct lookup *bucket[BUCKETS];
	struct resolver_stats stats;
};

static const uint16_t types[2] = { DNS_A, DNS_AAAA };

static uint64_t boot_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t hash_name(const struct resolver *r, const struct name *n)
{
	uint64_t h = r->seed;
	for (unsigned i = 0; i < n->len; i++) {
		h = (h ^ n->wire[i]) * UINT64_C(0x9fb21c651e98df25);
		h ^= h >> 29;
	}
	return h;
}

static struct resolve_half *half_of(struct lookup *l, unsigned i)
{
	return i == 0 ? &l->answer.v4 : &l->answer.v6;
}

/* ---- cache --------------------------------------------------------------------------------- */

static struct entry *set_of(struct resolver *r, uint64_t hash)
{
	return r->cache + (hash >> 8) % r->n_sets * WAYS;
}

static bool entry_is(const struct entry *e, const struct name *n, uint64_t hash)
{
	return e->hash == hash && e->len == n->len && memcmp(e->wire, n->wire, n->len) == 0;
}

static const struct entry *cache_find(struct resolver *r, const struct name *n, uint64_t hash)
{
	const struct entry *set = set_of(r, hash);
	for (const struct entry *e = set; e < set + WAYS; e++)
		if (e->expires_ns && entry_is(e, n, hash))
			return e->expires_ns > boot_ns() ? e : NULL;
	return NULL;
}

static uint32_t half_ttl(const struct resolve_half *h)
{
	uint32_t max = h->failed ? TTL_FAILED_S : h->a.n ? TTL_MAX_S : TTL_MAX_EMPTY_S;
	return h->failed || h->a.ttl_s > max ? max : h->a.ttl_s ? h->a.ttl_s : 1;
}

static uint32_t answer_ttl(const struct resolved *a)
{
	uint32_t v4 = half_ttl(&a->v4), v6 = half_ttl(&a->v6);
	uint32_t ttl = v4 < v6 ? v4 : v6;
	bool nothing = a->v4.a.n + a->v6.a.n == 0;
	return nothing && ttl > TTL_MAX_NOTHING_S ? TTL_MAX_NOTHING_S : ttl;
}

/* In the place of the same name, else of the entry that expires first: an empty or expired one. */
static void cache_put(struct resolver *r, const struct lookup *l)
{
	struct entry *set = set_of(r, l->hash), *to = set;
	for (struct entry *e = set; e < set + WAYS; e++) {
		if (entry_is(e, &l->name, l->hash)) {
			to = e;
			break;
		}
		if (e->expires_ns < to->expires_ns)
			to = e;
	}
	to->hash = l->hash;
	to->len = l->name.len;
	memcpy(to->wire, l->name.wire, l->name.len);
	to->answer = l->answer;
	to->expires_ns = boot_ns() + (uint64_t)answer_ttl(&l->answer) * 1000000000u;
}

/* ---- waiting ------------------------------------------------------------------------------- */

static void waiter_add(struct lookup *l, struct resolve_waiter *w)
{
	w->next = l->waiters;
	w->link = &l->waiters;
	if (w->next)
		w->next->link = &w->next;
	l->waiters = w;
}

void resolve_cancel(struct resolve_waiter *w)
{
	*w->link = w->next;
	if (w->next)
		w->next->link = w->link;
}

/* Asks each waiter once; those that want more stay. */
static void tell(struct lookup *l, bool final)
{
	struct resolve_waiter *w = l->waiters, *next;
	l->waiters = NULL;
	for (; w; w = next) {
		next = w->next;
		if (!w->ready(w, &l->answer, final) && !final)
			waiter_add(l, w);
	}
}

/* ---- look-ups in flight -------------------------------------------------------------------- */

static void close_watched(struct ev_loop *loop, ev_io *io)
{
	if (io->fd < 0)
		return;
	ev_io_stop(loop, io);
	close(io->fd);
	io->fd = -1;
}

static void tcp_end(struct lookup *l, unsigned i)
{
	close_watched(l->r->loop, &l->tcp[i].io);
	free(l->tcp[i].buf);
	l->tcp[i].buf = NULL;
}

static void lookup_close(struct lookup *l)
{
	ev_timer_stop(l->r->loop, &l->timer);
	close_watched(l->r->loop, &l->io);
	tcp_end(l, 0);
	tcp_end(l, 1);
}

static void finish(struct lookup *l)
{
	struct resolver *r = l->r;
	struct lookup **p = &r->bucket[l->hash % BUCKETS];
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	r->stats.in_flight--;
	lookup_close(l);
	cache_put(r, l);
	tell(l, true);
	l->next = r->unused;
	r->unused = l;
}

/* One half is settled. The look-up may be gone afterwards: true. */
static bool settle(struct lookup *l, unsigned i, bool failed)
{
	struct resolve_half *h = half_of(l, i);
	h->done = true;
	h->failed = failed;
	if (failed)
		l->r->stats.failures++;
	if (half_of(l, 1 - i)->done) {
		finish(l);
		return true;
	}
	tell(l, false);
	return false;
}

static enum dns_result read_half(struct lookup *l, unsigned i, const uint8_t *p, size_t n)
{
	return dns_read(&half_of(l, i)->a, p, n, l->id[i], &l->name, types[i]);
}

/* ---- TCP ----------------------------------------------------------------------------------- */

/* True: the look-up may be gone. */
static bool tcp_receive(struct lookup *l, unsigned i)
{
	struct tcp_try *t = &l->tcp[i];
	ssize_t n = recv(t->io.fd, t->buf + t->len, TCP_IN_SIZE - t->len, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	t->len += n > 0 ? (size_t)n : 0;
	struct reader r = rd_init(t->buf, t->len);
	size_t want = rd_be16(&r);
	if (n > 0 && (r.bad || r.left < want))
		return false;
	bool ok = !r.bad && r.left >= want && read_half(l, i, r.p, want) == DNS_ANSWERED;
	tcp_end(l, i);
	return settle(l, i, !ok);
}

static void on_tcp(struct ev_loop *loop, ev_io *w, int events)
{
	struct lookup *l = w->data;
	unsigned i = w == &l->tcp[1].io;
	struct tcp_try *t = &l->tcp[i];
	if (t->sent == t->len) {
		tcp_receive(l, i);
		return;
	}
	ssize_t n = send(w->fd, t->buf + t->sent, t->len - t->sent, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		tcp_end(l, i);
		settle(l, i, true);
		return;
	}
	t->sent += n > 0 ? (size_t)n : 0;
	if (t->sent < t->len)
		return;
	t->len = t->sent = 0;
	ev_io_stop(loop, w);
	ev_io_set(w, w->fd, EV_READ);
	ev_io_start(loop, w);
}

static int open_socket(const struct resolver_options *o, int type)
{
	int fd = socket(o->server.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)&o->server, o->server_len) == 0 ||
	    errno == EINPROGRESS)
		return fd;
	close(fd);
	return -1;
}

/* False: it cannot be asked. */
static bool tcp_start(struct lookup *l, unsigned i)
{
	struct tcp_try *t = &l->tcp[i];
	if (t->buf)
		return true;
	t->buf = malloc(TCP_IN_SIZE);
	if (!t->buf)
		return false;
	t->len = 2 + dns_query(t->buf + 2, l->id[i], &l->name, types[i]);
	t->buf[0] = (uint8_t)((t->len - 2) >> 8);
	t->buf[1] = (uint8_t)(t->len - 2);
	t->sent = 0;
	int fd = open_socket(&l->r->o, SOCK_STREAM);
	if (fd < 0) {
		tcp_end(l, i);
		return false;
	}
	ev_io_init(&t->io, on_tcp, fd, EV_WRITE);
	t->io.data = l;
	ev_io_start(l->r->loop, &t->io);
	return true;
}

/* ---- UDP ----------------------------------------------------------------------------------- */

/* An error here is like a lost packet: the question is repeated until the time is over. */
static void ask(struct lookup *l)
{
	uint8_t q[DNS_QUERY_SIZE];
	for (unsigned i = 0; i < 2; i++) {
		if (half_of(l, i)->done || l->tcp[i].buf)
			continue;
		size_t n = dns_query(q, l->id[i], &l->name, types[i]);
		(void)!send(l->io.fd, q, n, MSG_NOSIGNAL);
	}
}

/* True: the look-up may be gone. */
static bool take_packet(struct lookup *l, const uint8_t *p, size_t n)
{
	for (unsigned i = 0; i < 2; i++) {
		if (half_of(l, i)->done || l->tcp[i].buf)
			continue;
		enum dns_result e = read_half(l, i, p, n);
		if (e == DNS_FOREIGN)
			continue;
		if (e == DNS_TRUNCATED && tcp_start(l, i))
			return false;
		return settle(l, i, e != DNS_ANSWERED);
	}
	return false;
}

static void on_udp(struct ev_loop *loop, ev_io *w, int events)
{
	enum { BURST = 8 };
	struct lookup *l = w->data;
	uint8_t buf[4096];
	for (unsigned i = 0; i < BURST; i++) {
		ssize_t n = recv(w->fd, buf, sizeof(buf), 0);
		if (n < 0 || take_packet(l, buf, (size_t)n))
			return;
	}
}

/* At the end of its time a look-up ends with what is there. */
static void on_tick(struct ev_loop *loop, ev_timer *t, int events)
{
	struct lookup *l = t->data;
	if (++l->ticks < TICKS) {
		if (l->ticks % 2 == 1)
			ask(l);
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		if (!half_of(l, i)->done && settle(l, i, true))
			return;
}

static bool lookup_open(struct lookup *l)
{
	struct resolver *r = l->r;
	int fd = open_socket(&r->o, SOCK_DGRAM);
	if (fd < 0)
		return false;
	if (getrandom(l->id, sizeof(l->id), 0) != sizeof(l->id)) {
		close(fd);
		return false;
	}
	ev_io_init(&l->io, on_udp, fd, EV_READ);
	ev_timer_init(&l->timer, on_tick, r->o.deadline_s / TICKS, r->o.deadline_s / TICKS);
	l->io.data = l;
	l->timer.data = l;
	l->tcp[0].io.fd = l->tcp[1].io.fd = -1;
	ev_io_start(r->loop, &l->io);
	ev_now_update(r->loop);
	ev_timer_start(r->loop, &l->timer);
	return true;
}

static struct lookup *lookup_start(struct resolver *r, const struct name *n, uint64_t hash)
{
	struct lookup *l = r->unused;
	if (!l)
		return NULL;
	*l = (struct lookup){ .r = r, .name = *n, .hash = hash, .next = l->next };
	if (!lookup_open(l))
		return NULL;
	r->unused = l->next;
	l->next = r->bucket[hash % BUCKETS];
	r->bucket[hash % BUCKETS] = l;
	r->stats.in_flight++;
	ask(l);
	return l;
}

static struct lookup *lookup_find(struct resolver *r, const struct name *n, uint64_t hash)
{
	struct lookup *l = r->bucket[hash % BUCKETS];
	while (l && (l->hash != hash || !name_equal(&l->name, n)))
		l = l->next;
	return l;
}

const struct resolved *resolver_known(struct resolver *r, const struct name *n)
{
	const struct entry *e = cache_find(r, n, hash_name(r, n));
	r->stats.hits += e != NULL;
	return e ? &e->answer : NULL;
}

bool resolver_wait(struct resolver *r, const struct name *n, struct resolve_waiter *w)
{
	uint64_t hash = hash_name(r, n);
	struct lookup *l = lookup_find(r, n, hash);
	if (l) {
		r->stats.joined++;
	} else {
		l = lookup_start(r, n, hash);
		if (!l) {
			r->stats.refused++;
			return false;
		}
		r->stats.misses++;
	}
	waiter_add(l, w);
	return true;
}

unsigned resolved_list(const struct resolved *r, bool v6_first, struct addr out[RESOLVE_MAX_ADDRS])
{
	const struct dns_answer *first = v6_first ? &r->v6.a : &r->v4.a;
	const struct dns_answer *then = v6_first ? &r->v4.a : &r->v6.a;
	memcpy(out, first->v, first->n * sizeof(*out));
	memcpy(out + first->n, then->v, then->n * sizeof(*out));
	return first->n + then->n;
}

/* ---- set-up -------------------------------------------------------------------------------- */

bool resolver_server(struct resolver_options *o, const char *text)
{
	struct endpoint e;
	if (!endpoint_from_server(&e, text))
		return false;
	o->server = e.ss;
	o->server_len = e.len;
	return true;
}

static bool allocate(struct resolver *r)
{
	r->n_sets = (r->o.cache_names + WAYS - 1) / WAYS;
	if (r->n_sets == 0)
		r->n_sets = 1;
	r->cache = calloc(r->n_sets * WAYS, sizeof(*r->cache));
	r->lookups = calloc(r->o.max_in_flight, sizeof(*r->lookups));
	if (!r->cache || !r->lookups)
		return false;
	for (unsigned i = 0; i < r->o.max_in_flight; i++) {
		r->lookups[i].next = r->unused;
		r->unused = &r->lookups[i];
	}
	return getrandom(&r->seed, sizeof(r->seed), 0) == sizeof(r->seed);
}

struct resolver *resolver_new(struct ev_loop *loop, const struct resolver_options *o)
{
	struct resolver *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->loop = loop;
	r->o = *o;
	if (allocate(r))
		return r;
	resolver_free(r);
	return NULL;
}

void resolver_free(struct resolver *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct lookup *l = r->bucket[i]; l; l = l->next)
			lookup_close(l);
	free(r->cache);
	free(r->lookups);
	free(r);
}

void resolver_stats(const struct resolver *r, struct resolver_stats *out)
{
	*out = r->stats;
}
