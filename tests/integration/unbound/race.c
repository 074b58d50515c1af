/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load client that knows what every answer must be: two clients ask one resolver for the same names
 * at the same time, over UDP and TCP, and each answer is compared with what that client may get.
 * Sends to loopback only.
 *
 * usage: race PORT QUERIES SEED NAMES ADDR-A ADDR-B UDP-SOCKETS TCP-SOCKETS [PER-SECOND]
 * With PER-SECOND not faster than that, and beyond QUERIES until standard input ends.
 * NAMES: lines of "NAME ADDRESS EXPECT-A EXPECT-B"; ADDRESS is one for both clients, or A's/B's; EXPECT
 * is a list, separated by |, of
 *   ok              NOERROR and exactly this address
 *   nx:REASON:TTL   NXDOMAIN with a SOA of that TTL and minimum, no answer, EDE text REASON
 *   none:REASON     NOERROR with a SOA, no answer, EDE text REASON
 * Prints "sent N answered N lost N wrong N", "seen CLIENT OUTCOME N" for each outcome, and the first
 * wrong answers. Exit 0 if none is wrong (lost ones are for the caller to judge), 1 if some are, 2 on
 * a failure of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_NAMES = 65536,
	MAX_OUTCOMES = 32,
	MAX_SOCKETS = 64,
	SLOTS = 32, /* in flight per socket */

	SHOWN = 10,
	PACKET = 4096
};

struct target {
	uint8_t wire[256];
	size_t wire_len;
	char text[256];
	uint8_t addr[2][4]; /* for each client */
	uint32_t expect[2]; /* a bit per outcome, likewise */
};

struct outcome {
	char text[64]; /* as in NAMES */
	unsigned long seen[2];
};

struct slot {
	bool busy;
	uint16_t id;
	uint32_t target;
	uint64_t at_ns;
	uint8_t qname[256]; /* as sent: the case must come back */
};

struct sock {
	int fd;
	int client;
	bool tcp;
	unsigned busy;
	struct slot slot[SLOTS];
	uint8_t in[2 + 65535];
	size_t in_len;
};

/* how long an answer is waited for */
static const uint64_t LOST_NS = 4000000000ULL;

static struct target *targets;
static unsigned n_targets;
static struct outcome outcomes[MAX_OUTCOMES];
static unsigned n_outcomes;
static struct sock socks[MAX_SOCKETS];
static unsigned n_socks;
static unsigned long sent, answered, lost, wrong;
static uint64_t seed;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static uint32_t roll(void)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(seed >> 33);
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static uint32_t outcome_bit(const char *text, bool add)
{
	for (unsigned i = 0; i < n_outcomes; i++)
		if (strcmp(outcomes[i].text, text) == 0)
			return 1U << i;
	if (!add || n_outcomes == MAX_OUTCOMES)
		return 0;
	snprintf(outcomes[n_outcomes].text, sizeof(outcomes[0].text), "%s", text);
	return 1U << n_outcomes++;
}

static uint32_t parse_expect(char *s)
{
	uint32_t bits = 0;
	char *save = NULL;
	for (char *p = strtok_r(s, "|", &save); p; p = strtok_r(NULL, "|", &save)) {
		uint32_t b = outcome_bit(p, true);
		if (!b) {
			fprintf(stderr, "too many outcomes\n");
			exit(2);
		}
		bits |= b;
	}
	return bits;
}

static size_t to_wire(uint8_t *out, const char *s)
{
	size_t n = 0;
	while (*s) {
		size_t l = strcspn(s, ".");
		out[n++] = (uint8_t)l;
		memcpy(out + n, s, l);
		n += l;
		s += l + (s[l] == '.');
	}
	out[n++] = 0;
	return n;
}

static unsigned long number(const char *s)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);
	if (!*s || *end) {
		fprintf(stderr, "not a number: %s\n", s);
		exit(2);
	}
	return v;
}

static void read_addresses(struct target *t, char *text)
{
	char *second = strchr(text, '/');
	if (second)
		*second++ = '\0';
	if (inet_pton(AF_INET, text, t->addr[0]) != 1 ||
	    inet_pton(AF_INET, second ? second : text, t->addr[1]) != 1)
		die("address");
}

static void read_names(const char *path)
{
	char name[256], addr[64], a[256], b[256];
	FILE *f = fopen(path, "r");
	if (!f)
		die(path);
	targets = calloc(MAX_NAMES, sizeof(*targets));
	if (!targets)
		die("calloc");
	while (n_targets < MAX_NAMES &&
	       fscanf(f, "%250s %63s %255s %255s", name, addr, a, b) == 4) {
		struct target *t = &targets[n_targets++];
		snprintf(t->text, sizeof(t->text), "%s", name);
		t->wire_len = to_wire(t->wire, name);
		read_addresses(t, addr);
		t->expect[0] = parse_expect(a);
		t->expect[1] = parse_expect(b);
	}
	fclose(f);
}

/* ---- sending ---- */

static void open_socket(int client, const char *from, int port, bool tcp)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct sock *s = &socks[n_socks++];
	s->client = client;
	s->tcp = tcp;
	s->fd = socket(AF_INET, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
	if (s->fd < 0 || inet_pton(AF_INET, from, &sa.sin_addr) != 1 ||
	    bind(s->fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
		die("bind");
	sa.sin_port = htons((uint16_t)port);
	inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
	if (connect(s->fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
		die("connect");
}

static size_t build_query(uint8_t *p, struct slot *l, const struct target *t)
{
	static const uint8_t tail[] = { 0, 1, 0, 1, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0 };
	memset(p, 0, 12);
	p[0] = (uint8_t)(l->id >> 8);
	p[1] = (uint8_t)l->id;
	p[2] = 1; /* RD */
	p[5] = 1;
	p[11] = 1;
	memcpy(l->qname, t->wire, t->wire_len);
	for (size_t i = 0; i < t->wire_len; i++) /* lengths are below 'a' */
		if (l->qname[i] >= 'a' && l->qname[i] <= 'z' && roll() & 1)
			l->qname[i] ^= 0x20;
	memcpy(p + 12, l->qname, t->wire_len);
	memcpy(p + 12 + t->wire_len, tail, sizeof(tail));
	return 12 + t->wire_len + sizeof(tail);
}

static void ask(struct sock *s, uint32_t target)
{
	uint8_t buf[512];
	unsigned i = 0;
	while (s->slot[i].busy)
		i++;
	struct slot *l = &s->slot[i];
	*l = (struct slot){ .busy = true, .target = target, .at_ns = now_ns() };
	l->id = (uint16_t)((roll() & 0x7ff) * SLOTS + i);
	size_t n = build_query(buf + 2, l, &targets[target]);
	buf[0] = (uint8_t)(n >> 8);
	buf[1] = (uint8_t)n;
	ssize_t r = s->tcp ? send(s->fd, buf, n + 2, MSG_NOSIGNAL) : send(s->fd, buf + 2, n, 0);
	if (r != (ssize_t)(s->tcp ? n + 2 : n))
		die("send");
	s->busy++;
	sent++;
}

/* A socket of that client and kind with room, or NULL. */
static struct sock *pick(int client, bool tcp)
{
	unsigned start = roll() % n_socks;
	for (unsigned i = 0; i < n_socks; i++) {
		struct sock *s = &socks[(start + i) % n_socks];
		if (s->client == client && s->tcp == tcp && s->busy < SLOTS)
			return s;
	}
	return NULL;
}

static bool ask_pair(bool have_tcp)
{
	bool tcp = have_tcp && roll() % 4 == 0;
	struct sock *a = pick(0, tcp), *b = pick(1, tcp);
	if (!a || !b)
		return false;
	uint32_t t = roll() % n_targets;
	bool a_first = roll() & 1;
	ask(a_first ? a : b, t);
	ask(a_first ? b : a, t);
	return true;
}

/* ---- answers ---- */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* Behind the name at `at`; 0 if it runs out. */
static size_t skip_name(const uint8_t *p, size_t n, size_t at)
{
	while (at < n) {
		if (p[at] >= 0xc0)
			return at + 2 <= n ? at + 2 : 0;
		if (p[at] == 0)
			return at + 1;
		at += 1 + (size_t)p[at];
	}
	return 0;
}

struct reply {
	unsigned rcode, answers;
	bool right_address, other_address, soa;
	uint32_t soa_ttl, soa_minimum;
	char reason[64];
};

static void read_edns(struct reply *r, const uint8_t *p, size_t n)
{
	while (n >= 4 && get16(p + 2) <= n - 4) {
		size_t len = get16(p + 2);
		if (get16(p) == 15 && len >= 2)
			snprintf(r->reason, sizeof(r->reason), "%.*s", (int)(len - 2),
				 (const char *)p + 6);
		p += 4 + len;
		n -= 4 + len;
	}
}

static void read_record(struct reply *r, const uint8_t *address, unsigned section, uint16_t type,
			uint32_t ttl, const uint8_t *rd, size_t len)
{
	if (section == 0 && type == 1 && len == 4) {
		if (memcmp(rd, address, 4) == 0)
			r->right_address = true;
		else
			r->other_address = true;
	}
	if (section == 1 && type == 6 && len >= 20) {
		r->soa = true;
		r->soa_ttl = ttl;
		r->soa_minimum = get32(rd + len - 4);
	}
	if (section == 2 && type == 41)
		read_edns(r, rd, len);
}

static bool read_reply(struct reply *r, const struct target *t, int client, const struct slot *l,
		       const uint8_t *p, size_t n)
{
	memset(r, 0, sizeof(*r));
	r->rcode = p[3] & 15;
	r->answers = get16(p + 6);
	size_t at = 12 + t->wire_len + 4;
	if (get16(p + 4) != 1 || at > n || memcmp(p + 12, l->qname, t->wire_len) != 0)
		return false;
	for (unsigned section = 0; section < 3; section++) {
		for (unsigned i = get16(p + 6 + 2 * section); i > 0; i--) {
			at = skip_name(p, n, at);
			if (!at || n - at < 10 || get16(p + at + 8) > n - at - 10)
				return false;
			size_t len = get16(p + at + 8);
			read_record(r, t->addr[client], section, get16(p + at), get32(p + at + 4),
				    p + at + 10, len);
			at += 10 + len;
		}
	}
	return at == n;
}

static void name_outcome(char *out, size_t size, const struct reply *r)
{
	if (r->rcode == 0 && r->right_address && !r->other_address)
		snprintf(out, size, "ok");
	else if (r->rcode == 3 && r->answers == 0 && r->soa && r->soa_ttl == r->soa_minimum)
		snprintf(out, size, "nx:%s:%u", r->reason, r->soa_ttl);
	else if (r->rcode == 0 && r->answers == 0 && r->soa)
		snprintf(out, size, "none:%s", r->reason);
	else
		snprintf(out, size, "rcode=%u,answers=%u,soa=%d,%s", r->rcode, r->answers, r->soa,
			 r->reason);
}

static void judge(struct sock *s, struct slot *l, const uint8_t *p, size_t n)
{
	const struct target *t = &targets[l->target];
	struct reply r;
	char text[256] = "malformed";
	bool tc = p[2] & 2;
	if (read_reply(&r, t, s->client, l, p, n) && !tc)
		name_outcome(text, sizeof(text), &r);
	uint32_t bit = outcome_bit(text, false);
	answered++;
	if (bit)
		outcomes[__builtin_ctz(bit)].seen[s->client]++;
	if (bit & t->expect[s->client])
		return;
	if (wrong++ < SHOWN)
		printf("wrong client %c %s %s: %s\n", 'a' + s->client, s->tcp ? "tcp" : "udp",
		       t->text, text);
}

static void take(struct sock *s, const uint8_t *p, size_t n)
{
	if (n < 12)
		return;
	struct slot *l = &s->slot[get16(p) % SLOTS];
	if (!l->busy || l->id != get16(p))
		return; /* late, counted as lost */
	judge(s, l, p, n);
	l->busy = false;
	s->busy--;
}

static void take_stream(struct sock *s)
{
	while (s->in_len >= 2 && s->in_len - 2 >= get16(s->in)) {
		size_t n = get16(s->in);
		take(s, s->in + 2, n);
		memmove(s->in, s->in + 2 + n, s->in_len - 2 - n);
		s->in_len -= 2 + n;
	}
}

static void receive(struct sock *s)
{
	uint8_t buf[PACKET];
	if (!s->tcp) {
		for (;;) {
			ssize_t n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT);
			if (n < 0)
				return;
			take(s, buf, (size_t)n);
		}
	}
	ssize_t n = recv(s->fd, s->in + s->in_len, sizeof(s->in) - s->in_len, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN)) {
		fprintf(stderr, "the resolver closed a TCP connection\n");
		exit(2);
	}
	if (n > 0) {
		s->in_len += (size_t)n;
		take_stream(s);
	}
}

static unsigned give_up_old(uint64_t now)
{
	unsigned busy = 0;
	for (unsigned i = 0; i < n_socks; i++)
		for (unsigned k = 0; k < SLOTS; k++) {
			struct slot *l = &socks[i].slot[k];
			if (!l->busy)
				continue;
			if (now - l->at_ns > LOST_NS) {
				l->busy = false;
				socks[i].busy--;
				lost++;
			} else {
				busy++;
			}
		}
	return busy;
}

static bool input_ended(void)
{
	struct pollfd pf = { .fd = 0, .events = POLLIN };
	char c;
	return poll(&pf, 1, 0) > 0 && read(0, &c, 1) <= 0;
}

/* May another pair be sent? per_s 0: as fast as the answers come. */
static bool wanted(unsigned long total, unsigned long per_s, uint64_t start)
{
	if (!per_s)
		return sent < total;
	return (double)sent <= (double)per_s * (double)(now_ns() - start) / 1e9 &&
	       (sent < total || !input_ended());
}

static void run(unsigned long total, unsigned long per_s, bool have_tcp)
{
	struct pollfd pf[MAX_SOCKETS];
	uint64_t start = now_ns();
	for (unsigned i = 0; i < n_socks; i++)
		pf[i] = (struct pollfd){ .fd = socks[i].fd, .events = POLLIN };
	uint64_t checked = now_ns();
	unsigned busy = 1;
	bool done = false;
	while (!done || busy) {
		for (unsigned k = 0; k < 16 && wanted(total, per_s, start); k++)
			if (!ask_pair(have_tcp))
				break;
		done = sent >= total && (!per_s || input_ended());
		if (poll(pf, n_socks, 2) < 0)
			die("poll");
		for (unsigned i = 0; i < n_socks; i++)
			if (pf[i].revents)
				receive(&socks[i]);
		if (done || now_ns() - checked > 100000000ULL) {
			checked = now_ns();
			busy = give_up_old(checked);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 9 && argc != 10) {
		fprintf(stderr, "usage: race PORT QUERIES SEED NAMES A B UDP TCP [PER-SECOND]\n");
		return 2;
	}
	int port = (int)number(argv[1]);
	unsigned long udp, tcp;
	seed = number(argv[3]);
	udp = number(argv[7]);
	tcp = number(argv[8]);
	read_names(argv[4]);
	if (2 * (udp + tcp) > MAX_SOCKETS)
		return 2;
	for (int client = 0; client < 2; client++) {
		for (unsigned long i = 0; i < udp; i++)
			open_socket(client, argv[5 + client], port, false);
		for (unsigned long i = 0; i < tcp; i++)
			open_socket(client, argv[5 + client], port, true);
	}
	if (!n_targets || !n_socks)
		return 2;
	run(number(argv[2]), argc > 9 ? number(argv[9]) : 0, tcp > 0);
	printf("sent %lu answered %lu lost %lu wrong %lu\n", sent, answered, lost, wrong);
	for (unsigned i = 0; i < n_outcomes; i++)
		for (int c = 0; c < 2; c++)
			printf("seen %c %s %lu\n", 'a' + c, outcomes[i].text, outcomes[i].seen[c]);
	return wrong ? 1 : 0;
}
