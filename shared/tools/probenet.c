/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges of cx-probe over TCP, and how their answers are judged. A wait without an end must never
 * happen here, and an answer is never taken for held because it was cut off.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shared/tools/probe.h"
#include "shared/tools/probenet.h"

enum { SILENCE_MS = 400, PAUSE_MS = 150 };

uint64_t probe_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void probe_say(struct outcome *out, enum verdict v, const char *format, ...)
{
	va_list ap;
	out->verdict = v;
	va_start(ap, format);
	vsnprintf(out->evidence, sizeof(out->evidence), format, ap);
	va_end(ap);
	for (char *c = out->evidence; *c; c++)
		if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
			*c = '.';
}

bool probe_readable(int sock, uint64_t deadline_ms)
{
	for (;;) {
		uint64_t now = probe_now_ms();
		struct pollfd f = { .fd = sock, .events = POLLIN };
		int n = now < deadline_ms ? poll(&f, 1, (int)(deadline_ms - now)) : 0;
		if (n >= 0 || errno != EINTR)
			return n > 0;
	}
}

socklen_t probe_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (addr_is_v4(a)) {
		struct sockaddr_in *s = (struct sockaddr_in *)ss;
		s->sin_family = AF_INET;
		s->sin_port = htons(port);
		memcpy(&s->sin_addr, a->b + 12, 4);
		return sizeof(*s);
	}
	struct sockaddr_in6 *s = (struct sockaddr_in6 *)ss;
	s->sin6_family = AF_INET6;
	s->sin6_port = htons(port);
	memcpy(&s->sin6_addr, a->b, 16);
	return sizeof(*s);
}

/* A connection, or -1 with the error in *error (0: time was up). */
static int connect_to(const struct addr *to, uint16_t port, uint64_t deadline, int *error)
{
	struct sockaddr_storage ss;
	socklen_t len = probe_sockaddr(to, port, &ss);
	int one = 1, sock = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	*error = errno;
	if (sock < 0)
		return -1;
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(sock, (struct sockaddr *)&ss, len) == 0)
		return sock;
	*error = errno;
	if (*error == EINPROGRESS) {
		uint64_t now = probe_now_ms();
		struct pollfd f = { .fd = sock, .events = POLLOUT };
		socklen_t size = sizeof(*error);
		*error = 0;
		if (now < deadline && poll(&f, 1, (int)(deadline - now)) > 0 &&
		    getsockopt(sock, SOL_SOCKET, SO_ERROR, error, &size) == 0 && *error == 0)
			return sock;
	}
	close(sock);
	return -1;
}

static void collect(int sock, uint64_t deadline, struct answer *got)
{
	while (got->len < sizeof(got->data)) {
		uint64_t silence = probe_now_ms() + SILENCE_MS;
		if (!probe_readable(sock, got->len && silence < deadline ? silence : deadline))
			return;
		ssize_t n = recv(sock, got->data + got->len, sizeof(got->data) - got->len, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0) {
			got->error = n < 0 ? errno : 0;
			got->closed = n == 0;
			return;
		}
		got->len += (size_t)n;
	}
}

void probe_exchange(const struct probe *p, const struct addr *to, uint16_t port,
		    const uint8_t *data, size_t n, size_t pause_at, struct answer *got)
{
	uint64_t deadline = probe_now_ms() + p->wait_ms;
	memset(got, 0, offsetof(struct answer, data));
	int sock = connect_to(to, port, deadline, &got->error);
	if (sock < 0)
		return;
	if (pause_at && pause_at < n) {
		struct timespec t = { .tv_nsec = PAUSE_MS * 1000000L };
		(void)!send(sock, data, pause_at, MSG_NOSIGNAL);
		nanosleep(&t, NULL);
		data += pause_at;
		n -= pause_at;
	}
	if (n && send(sock, data, n, MSG_NOSIGNAL) != (ssize_t)n)
		got->error = errno;
	collect(sock, deadline, got);
	close(sock);
}

static bool contains(const struct answer *got, const char *text)
{
	return memmem(got->data, got->len, text, strlen(text)) != NULL;
}

/* How many HTTP answers came that are no refusals (status below 400). */
static unsigned accepted(const struct answer *got)
{
	unsigned n = 0;
	const uint8_t *at = got->data, *end = got->data + got->len;
	while ((at = memmem(at, (size_t)(end - at), "HTTP/1.", 7)) && end - at >= 12) {
		n += at[9] >= '1' && at[9] <= '3';
		at += 12;
		if (end - at < 7)
			break;
	}
	return n;
}

static void describe(const struct answer *got, char *text, size_t room)
{
	if (got->len)
		snprintf(text, room, "answered: %.*s", (int)(got->len > 70 ? 70 : got->len),
			 got->data);
	else if (got->error)
		snprintf(text, room, "%s", strerror(got->error));
	else
		snprintf(text, room, "%s", got->closed ? "closed without an answer" : "no answer");
}

static bool leaks(enum judge judge, const struct answer *got)
{
	if (contains(got, CANARY_TOKEN))
		return true;
	switch (judge) {
	case JUDGE_ANY:
		return got->len > 0;
	case JUDGE_HTTP:
		return accepted(got) > 0;
	case JUDGE_PAIR:
		return accepted(got) > 1;
	case JUDGE_OURS:
		return got->len && !contains(got, "cx: refused") && !contains(got, "400 Bad req");
	default:
		return false;
	}
}

void probe_judge(const struct attempt *a, const struct answer *got, struct outcome *out)
{
	char text[EVIDENCE_SIZE] = { 0 };
	describe(got, text, sizeof(text));
	if (a->judge == JUDGE_WORKS)
		probe_say(out, got->len > 5 && got->data[0] == 22 ? PROBE_WORKS : PROBE_BROKEN,
			  "%s", text);
	else
		probe_say(out, leaks(a->judge, got) ? PROBE_LEAKED : PROBE_HELD, "%s", text);
}

/* ---- rows of octets over TCP ---- */

void probe_tcp(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	static struct answer got;
	static uint8_t data[4096];
	struct addr to;
	if (!probe_target(p, a->to, &to, out))
		return;
	size_t n = probe_expand(p, a->text, data, sizeof(data), out);
	if (!n)
		return;
	probe_exchange(p, &to, a->port, data, n, 0, &got);
	probe_judge(a, &got, out);
}

/* Every port of the row's text, a list of numbers: the worst that comes of them. */
void probe_ports(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	static const char hello[] =
		"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	static struct answer got;
	struct probe quick = *p;
	struct addr to;
	if (!probe_target(p, a->to, &to, out))
		return;
	quick.wait_ms = p->wait_ms / 4;
	for (const char *at = a->text; *at;) {
		char *end;
		unsigned long port = strtoul(at, &end, 10);
		at = *end ? end + 1 : end;
		probe_exchange(&quick, &to, (uint16_t)port, (const uint8_t *)hello,
			       sizeof(hello) - 1, 0, &got);
		probe_judge(a, &got, out);
		if (out->verdict != PROBE_LEAKED)
			continue;
		char text[EVIDENCE_SIZE];
		memcpy(text, out->evidence, sizeof(text));
		probe_say(out, PROBE_LEAKED, "port %lu: %.120s", port, text);
		return;
	}
	probe_say(out, PROBE_HELD, "no answer from ports %.120s", a->text);
}
