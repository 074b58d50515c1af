/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-probe's questions to resolvers: names that are not listed, types and classes that carry data, any
 * resolver's address, over UDP and TCP. An answer record is a leak; it never asks twice.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "shared/tools/probe.h"
#include "shared/tools/probenet.h"

enum { CLASS_IN = 1, CLASS_CH = 3, TYPE_VERSION = 0xff10, TYPE_TXT = 16, HEADER = 12 };

/* A name as text to its wire form; false for a label of 0 or more than 63 octets. */
static bool write_name(struct writer *w, const uint8_t *text, size_t n)
{
	size_t start = 0;
	for (size_t i = 0; i <= n; i++) {
		if (i < n && text[i] != '.')
			continue;
		if (i == start || i - start > 63)
			return false;
		wr_u8(w, (uint8_t)(i - start));
		wr_bytes(w, text + start, i - start);
		start = i + 1;
	}
	wr_u8(w, 0);
	return !w->bad;
}

/* The row's question; returns its length. TYPE_VERSION stands for TXT in class CH. */
static size_t question(const struct attempt *a, const uint8_t *name, size_t n, uint16_t id,
		       uint8_t *buf, size_t room)
{
	struct writer w = wr_init(buf, room);
	bool chaos = a->kind == TYPE_VERSION;
	wr_be16(&w, id);
	wr_be16(&w, 0x0100);
	wr_be16(&w, 1);
	wr_be32(&w, 0);
	wr_be16(&w, 0);
	if (!write_name(&w, name, n))
		return 0;
	wr_be16(&w, chaos ? TYPE_TXT : a->kind);
	wr_be16(&w, chaos ? CLASS_CH : CLASS_IN);
	return w.bad ? 0 : w.len;
}

static void judge(const struct attempt *a, const uint8_t *reply, size_t n, uint16_t id,
		  struct outcome *out)
{
	static const char *const rcode[16] = { "NOERROR",  "FORMERR", "SERVFAIL",
					       "NXDOMAIN", "NOTIMP",  "REFUSED" };
	struct reader r = rd_init(reply, n);
	uint16_t got = rd_be16(&r), flags = rd_be16(&r);
	rd_skip(&r, 2);
	uint16_t answers = rd_be16(&r);
	const char *text = rcode[flags & 15] ? rcode[flags & 15] : "an error";
	if (r.bad || got != id || !(flags & 0x8000))
		probe_say(out, PROBE_LEAKED, "an answer that is no DNS, %zu octets", n);
	else if (a->judge == JUDGE_WORKS)
		probe_say(out, answers ? PROBE_WORKS : PROBE_BROKEN, "%s, %u answers", text,
			  answers);
	else
		probe_say(out, answers ? PROBE_LEAKED : PROBE_HELD, "%s, %u answers", text,
			  answers);
}

static void nothing(const struct attempt *a, int error, struct outcome *out)
{
	probe_say(out, a->judge == JUDGE_WORKS ? PROBE_BROKEN : PROBE_HELD, "%s",
		  error ? strerror(error) : "no answer");
}

static void over_udp(const struct probe *p, const struct attempt *a, const struct addr *to,
		     const uint8_t *ask, size_t n, uint16_t id, struct outcome *out)
{
	uint8_t reply[4096];
	struct sockaddr_storage ss;
	socklen_t len = probe_sockaddr(to, a->port, &ss);
	int sock = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t got = -1;
	errno = 0;
	if (sock >= 0 && connect(sock, (struct sockaddr *)&ss, len) == 0 &&
	    send(sock, ask, n, 0) == (ssize_t)n &&
	    probe_readable(sock, probe_now_ms() + p->wait_ms))
		got = recv(sock, reply, sizeof(reply), 0);
	if (got > 0)
		judge(a, reply, (size_t)got, id, out);
	else
		nothing(a, errno, out);
	if (sock >= 0)
		close(sock);
}

static void over_tcp(const struct probe *p, const struct attempt *a, const struct addr *to,
		     const uint8_t *ask, size_t n, uint16_t id, struct outcome *out)
{
	static struct answer got;
	uint8_t framed[512 + 2] = { (uint8_t)(n >> 8), (uint8_t)n };
	if (n > sizeof(framed) - 2)
		return probe_say(out, PROBE_NOT_TRIED, "too long a question");
	memcpy(framed + 2, ask, n);
	probe_exchange(p, to, a->port, framed, n + 2, a->how & DNS_SPLIT ? 1 : 0, &got);
	if (got.len > 2)
		judge(a, got.data + 2, got.len - 2, id, out);
	else
		nothing(a, got.error, out);
}

void probe_dns(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	uint8_t name[256], ask[512];
	struct addr to;
	uint16_t id = (uint16_t)(probe_now_ms() * 31 + (uint64_t)getpid());
	if (!probe_target(p, a->to, &to, out))
		return;
	size_t n = probe_expand(p, a->text, name, sizeof(name), out);
	if (!n)
		return;
	n = question(a, name, n, id, ask, sizeof(ask));
	if (!n)
		probe_say(out, PROBE_NOT_TRIED, "the name is too long for this attempt");
	else if (a->how & DNS_TCP)
		over_tcp(p, a, &to, ask, n, id, out);
	else
		over_udp(p, a, &to, ask, n, id, out);
}
