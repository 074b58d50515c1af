/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks an SPOP agent as HAProxy does, from many connections with a window of questions each, and checks
 * every answer. A generator of load for benches and endurance runs; knows no policy.
 *
 * usage: spop_load SOCKET FRAMES CONNECTIONS WINDOW COUNT [RATE]
 * FRAMES: records of an octet ('a' allow, 'd' deny, '?' either is right) and a NOTIFY whose stream id is
 * the record's place in the file. RATE: questions a second, 0 = as fast as they are answered.
 * Prints a JSON object after each tenth of the questions and at the end; exit 1 if anything was not the answer to a question.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "spoa-agent/spop.h"

enum { IN_SIZE = 65536, OUT_SIZE = 65536, EVENTS = 64 };

struct question {
	char expect;
	const uint8_t *frame;
	size_t n;
};

struct conn {
	int fd;
	bool said_hello;
	size_t next;    /* question */
	uint8_t *asked; /* of each: its answer is outstanding */
	unsigned outstanding;
	size_t in_len, out_at, out_len;
	uint8_t in[IN_SIZE], out[OUT_SIZE];
};

static struct question *questions;
static size_t n_questions;
static unsigned window;
static unsigned long long count, sent, allowed, denied, wrong, broken;
static double rate;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	exit(3);
}

static void read_questions(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (!f || fseek(f, 0, SEEK_END) != 0)
		die(path);
	size_t size = (size_t)ftell(f);
	uint8_t *data = malloc(size);
	rewind(f);
	if (!data || fread(data, 1, size, f) != size)
		die(path);
	fclose(f);
	questions = malloc(size / 8 * sizeof(*questions));
	if (!questions)
		die("questions");
	for (struct reader r = rd_init(data, size); r.left > 0;) {
		struct question *q = &questions[n_questions++];
		q->expect = (char)rd_u8(&r);
		q->frame = r.p;
		q->n = rd_be32(&r) + 4u;
		rd_skip(&r, q->n - 4);
		if (r.bad)
			die("frames");
	}
}

static void say_hello(struct conn *c)
{
	struct writer w = wr_init(c->out, sizeof(c->out));
	struct spop_mark m = spop_begin(&w, SPOP_HAPROXY_HELLO, 0, 0);
	spop_put_kv_string(&w, "supported-versions", "2.0");
	spop_put_kv_u32(&w, "max-frame-size", 16380);
	spop_put_kv_string(&w, "capabilities", "pipelining");
	spop_end(&w, m);
	c->out_len = w.len;
}

static void open_conn(struct conn *c, const char *path, int epoll)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&un, sizeof(un)) != 0)
		die(path);
	c->asked = calloc(n_questions, 1);
	if (!c->asked)
		die("asked");
	say_hello(c);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
		die("epoll_ctl");
}

/* ---- answers ---- */

static bool contains(const uint8_t *p, size_t n, const char *what, size_t len)
{
	return memmem(p, n, what, len) != NULL;
}

static void judge(const struct spop_frame *f)
{
	static const char allow[] = "\7verdict\x08\5allow", deny[] = "\7verdict\x08\4deny";
	bool a = contains(f->payload.p, f->payload.left, allow, sizeof(allow) - 1);
	bool d = contains(f->payload.p, f->payload.left, deny, sizeof(deny) - 1);
	allowed += a;
	denied += d;
	if (a == d) {
		broken++;
		return;
	}
	char want = questions[f->stream].expect;
	if (want != '?' && (want == 'a') != a)
		wrong++;
}

static void take_frame(struct conn *c, const struct spop_frame *f)
{
	if (f->type == SPOP_AGENT_HELLO && !c->said_hello) {
		c->said_hello = true;
	} else if (f->type == SPOP_ACK && f->stream < n_questions && c->asked[f->stream]) {
		c->outstanding--;
		c->asked[f->stream] = 0;
		judge(f);
	} else {
		broken++;
	}
}

static void take(struct conn *c)
{
	struct reader r = rd_init(c->in, c->in_len);
	while (r.left >= 4) {
		struct reader look = r;
		size_t n = rd_be32(&look);
		struct spop_frame f;
		if (look.left < n)
			break;
		if (spop_frame_read(&f, look.p, n))
			take_frame(c, &f);
		else
			broken++;
		rd_skip(&r, 4 + n);
	}
	c->in_len = r.left;
	memmove(c->in, r.p, r.left);
}

/* ---- questions ---- */

static void fill(struct conn *c, double may_send)
{
	if (c->out_at > 0) {
		memmove(c->out, c->out + c->out_at, c->out_len);
		c->out_at = 0;
	}
	while (c->said_hello && c->outstanding < window && sent < count &&
	       (double)sent < may_send) {
		if (c->asked[c->next]) { /* an answer that takes long */
			c->next = (c->next + 1) % n_questions;
			continue;
		}
		const struct question *q = &questions[c->next];
		if (c->out_len + q->n > OUT_SIZE)
			return;
		memcpy(c->out + c->out_len, q->frame, q->n);
		c->out_len += q->n;
		c->asked[c->next] = 1;
		c->next = (c->next + 1) % n_questions;
		c->outstanding++;
		sent++;
	}
}

static void gone(struct conn *c)
{
	broken += 1 + c->outstanding;
	close(c->fd);
	c->fd = -1;
}

/* Reads and writes until neither is possible. */
static void drive(struct conn *c, double may_send)
{
	for (bool more = true; more && c->fd >= 0;) {
		more = false;
		ssize_t n = recv(c->fd, c->in + c->in_len, IN_SIZE - c->in_len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			gone(c);
			return;
		}
		if (n > 0) {
			c->in_len += (size_t)n;
			take(c);
			more = true;
		}
		fill(c, may_send);
		n = c->out_len ? send(c->fd, c->out + c->out_at, c->out_len,
				      MSG_DONTWAIT | MSG_NOSIGNAL)
			       : 0;
		if (n < 0 && errno != EAGAIN) {
			gone(c);
			return;
		}
		if (n > 0) {
			c->out_at += (size_t)n;
			c->out_len -= (size_t)n;
			more = true;
		}
	}
}

static bool is_over(const struct conn *conns, unsigned n)
{
	bool any = false;
	for (unsigned i = 0; i < n; i++) {
		any |= conns[i].fd >= 0;
		if (conns[i].fd >= 0 && (sent < count || conns[i].outstanding > 0))
			return false;
	}
	return !any || sent >= count;
}

static void report(double start)
{
	printf("{\"sent\":%llu,\"allowed\":%llu,\"denied\":%llu,\"wrong\":%llu,\"broken\":%llu,"
	       "\"seconds\":%.3f}\n",
	       sent, allowed, denied, wrong, broken, now() - start);
	fflush(stdout);
}

static void run(struct conn *conns, unsigned n, int epoll, double start)
{
	struct epoll_event e[EVENTS];
	unsigned tenth = 1;
	while (!is_over(conns, n)) {
		for (; tenth < 10 && sent >= count / 10 * tenth; tenth++)
			report(start);
		double may_send = rate > 0 ? (now() - start) * rate : 1e300;
		int k = epoll_wait(epoll, e, EVENTS, rate > 0 ? 1 : 1000);
		for (int i = 0; i < k; i++)
			drive(e[i].data.ptr, may_send);
		/* with a rate, who may go on is not told by the kernel */
		for (unsigned i = 0; rate > 0 && i < n; i++)
			if (conns[i].fd >= 0)
				drive(&conns[i], may_send);
	}
}

int main(int argc, char **argv)
{
	if (argc < 6)
		return 2;
	unsigned n = (unsigned)strtoul(argv[3], NULL, 10);
	window = (unsigned)strtoul(argv[4], NULL, 10);
	count = strtoull(argv[5], NULL, 10);
	rate = argc > 6 ? strtod(argv[6], NULL) : 0;
	read_questions(argv[2]);
	if (n_questions < 2 * (size_t)window)
		return 2;
	struct conn *conns = calloc(n, sizeof(*conns));
	int epoll = epoll_create1(0);
	if (!conns || epoll < 0)
		die("start");
	for (unsigned i = 0; i < n; i++) {
		conns[i].next = (size_t)i * 7919 % n_questions;
		open_conn(&conns[i], argv[1], epoll);
	}
	double start = now();
	run(conns, n, epoll, start);
	report(start);
	return wrong || broken || allowed + denied != sent ? 1 : 0;
}
