/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cx-probe below TCP: datagrams, fragments, options, ICMP, other protocols, and, where the rights are
 * there, packets with a source that is not ours and frames with a VLAN tag. What it sends is addressed
 * to the canary, or asks the link itself; it never floods and never answers for anybody.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/base/bytes.h"
#include "shared/tools/probe.h"
#include "shared/tools/probenet.h"

enum { QUIC_SIZE = 1200, FRAME_SIZE = 2048, PROBE_PORT = 1234 };

/* The source ports of frames, so that an answer belongs to one attempt only. */
enum { TAGGED_PORT = 40001, SPOOFED_PORT };

static void no_right(struct outcome *out, const char *what)
{
	probe_say(out, PROBE_NOT_TRIED, "no %s: %s", what, strerror(errno));
}

/* ---- datagrams ---- */

static void datagram(const struct probe *p, const struct attempt *a, const struct addr *to,
		     int sock, size_t n, struct outcome *out)
{
	static uint8_t data[8192];
	struct sockaddr_storage ss;
	socklen_t len = probe_sockaddr(to, a->port, &ss);
	data[0] = 0xc3; /* as a QUIC Initial begins */
	data[4] = 1;
	ssize_t got = -1;
	errno = 0;
	if (connect(sock, (struct sockaddr *)&ss, len) == 0 &&
	    send(sock, data, n, 0) == (ssize_t)n &&
	    probe_readable(sock, probe_now_ms() + p->wait_ms))
		got = recv(sock, data, sizeof(data) - 1, 0);
	if (got > 0)
		probe_say(out, PROBE_LEAKED, "answered: %.*s", (int)(got > 70 ? 70 : got), data);
	else
		probe_say(out, PROBE_HELD, "%s", errno ? strerror(errno) : "no answer");
}

/* how: the datagram's size in hundreds of octets; 0: as QUIC's first. */
void probe_udp(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	struct addr to;
	if (!probe_target(p, a->to, &to, out))
		return;
	int sock = socket(addr_is_v4(&to) ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return no_right(out, "socket");
	datagram(p, a, &to, sock, a->how ? a->how * 100U : QUIC_SIZE, out);
	close(sock);
}

/* A datagram whose IPv4 header has an option (record route): it takes routers' slow paths. */
void probe_options(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	static const uint8_t record_route[12] = { 1, 7, 11, 4 };
	struct addr to;
	if (!probe_target(p, a->to, &to, out))
		return;
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0 ||
	    setsockopt(sock, IPPROTO_IP, IP_OPTIONS, record_route, sizeof(record_route)) != 0)
		no_right(out, "IP options");
	else
		datagram(p, a, &to, sock, 100, out);
	if (sock >= 0)
		close(sock);
}

/* ---- ICMP and other protocols ---- */

static uint16_t checksum(const uint8_t *data, size_t n)
{
	uint32_t sum = 0;
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)data[i] << 8 | data[i + 1];
	if (n & 1)
		sum += (uint32_t)data[n - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* What an ICMP message must be to count as the answer. */
struct expected {
	bool with_header; /* IPv4's, which raw sockets deliver, too */
	uint8_t type;
	int about; /* the protocol of the packet that an error is about; -1: no error */
};

static bool is_expected(const struct expected *e, const uint8_t *data, size_t n)
{
	struct reader r = rd_init(data, n);
	if (e->with_header)
		rd_skip(&r, n ? (data[0] & 15U) * 4 : 0);
	uint8_t type = rd_u8(&r);
	if (e->about < 0)
		return !r.bad && type == e->type;
	rd_skip(&r, 7 + 9); /* the rest of the ICMP header, and the packet's up to its protocol */
	uint8_t protocol = rd_u8(&r);
	return !r.bad && type == e->type && protocol == e->about;
}

/* Waits for such a message from `from` on a raw or ping socket. */
static bool heard_from(int sock, const struct addr *from, const struct expected *e,
		       uint64_t deadline)
{
	uint8_t data[2048];
	while (probe_readable(sock, deadline)) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		struct addr peer;
		uint16_t port;
		ssize_t n = recvfrom(sock, data, sizeof(data), 0, (struct sockaddr *)&ss, &len);
		if (n > 0 && addr_from_sockaddr(&peer, &port, (struct sockaddr *)&ss, len) &&
		    addr_cmp(&peer, from) == 0 && is_expected(e, data, (size_t)n))
			return true;
	}
	return false;
}

void probe_ping(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	struct addr to;
	struct sockaddr_storage ss;
	uint8_t echo[16] = { 0 };
	if (!probe_target(p, a->to, &to, out))
		return;
	bool v4 = addr_is_v4(&to);
	int family = v4 ? AF_INET : AF_INET6, protocol = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	struct expected e = { .with_header = v4, .about = -1 };
	int sock = socket(family, SOCK_RAW | SOCK_CLOEXEC, protocol);
	e.type = v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;
	if (sock < 0) {
		e.with_header = false;
		sock = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, protocol);
	}
	if (sock < 0)
		return no_right(out, "ICMP socket");
	echo[0] = v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
	echo[7] = 1;
	uint16_t sum = checksum(echo, sizeof(echo));
	if (v4) { /* for ICMPv6 the kernel does it */
		echo[2] = (uint8_t)(sum >> 8);
		echo[3] = (uint8_t)sum;
	}
	socklen_t len = probe_sockaddr(&to, 0, &ss);
	bool sent = sendto(sock, echo, sizeof(echo), 0, (struct sockaddr *)&ss, len) > 0;
	bool heard = sent && heard_from(sock, &to, &e, probe_now_ms() + p->wait_ms);
	probe_say(out, heard ? PROBE_LEAKED : PROBE_HELD, "%s",
		  heard  ? "an ICMP answer"
		  : sent ? "no answer"
			 : strerror(errno));
	close(sock);
}

/* A packet of protocol `kind`: its host says by ICMP that it does not speak that. */
void probe_protocol(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	struct addr to;
	struct sockaddr_storage ss;
	uint8_t data[64] = { 0 };
	struct expected e = { .with_header = true, .type = ICMP_DEST_UNREACH, .about = a->kind };
	if (!probe_target(p, a->to, &to, out))
		return;
	int sock = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, a->kind);
	int icmp = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
	if (sock < 0 || icmp < 0) {
		no_right(out, "raw socket");
	} else {
		socklen_t len = probe_sockaddr(&to, 0, &ss);
		bool sent = sendto(sock, data, sizeof(data), 0, (struct sockaddr *)&ss, len) > 0;
		bool heard = sent && heard_from(icmp, &to, &e, probe_now_ms() + p->wait_ms);
		probe_say(out, heard ? PROBE_LEAKED : PROBE_HELD, "%s",
			  heard  ? "its host answered by ICMP"
			  : sent ? "no answer"
				 : strerror(errno));
	}
	if (sock >= 0)
		close(sock);
	if (icmp >= 0)
		close(icmp);
}

/* ---- frames ---- */

struct wire {
	int sock;
	int index;
	uint8_t mac[6];     /* ours */
	uint8_t gateway[6]; /* its */
	struct addr own;
	bool has_own;
};

/* A link's own hardware and IPv4 address. */
static void own_of(int sock, const char *name, struct wire *w)
{
	struct ifreq r = { 0 };
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(sock, SIOCGIFHWADDR, &r) == 0)
		memcpy(w->mac, r.ifr_hwaddr.sa_data, sizeof(w->mac));
	uint16_t port;
	if (ioctl(sock, SIOCGIFADDR, &r) == 0)
		w->has_own =
			addr_from_sockaddr(&w->own, &port, &r.ifr_addr, sizeof(struct sockaddr_in));
}

/* The first link that is up and not loopback, listening; false if there is none or no right. */
static bool open_wire(struct wire *w, struct outcome *out)
{
	memset(w, 0, sizeof(*w));
	w->sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	if (w->sock < 0) {
		no_right(out, "packet socket");
		return false;
	}
	int query = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct if_nameindex *all = if_nameindex(), *i;
	for (i = all; i && i->if_index && query >= 0; i++) {
		struct ifreq r = { 0 };
		snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", i->if_name);
		if (ioctl(query, SIOCGIFFLAGS, &r) != 0 || (r.ifr_flags & IFF_LOOPBACK) ||
		    !(r.ifr_flags & IFF_UP))
			continue;
		w->index = (int)i->if_index;
		own_of(query, i->if_name, w);
		break;
	}
	if (all)
		if_freenameindex(all);
	if (query >= 0)
		close(query);
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_ALL),
				  .sll_ifindex = w->index };
	if (w->index && w->has_own && bind(w->sock, (struct sockaddr *)&at, sizeof(at)) == 0)
		return true;
	probe_say(out, PROBE_NOT_TRIED, "no Ethernet link with an IPv4 address");
	close(w->sock);
	return false;
}

/* Who has `addr`? The answer's hardware address. */
static bool who_has(const struct wire *w, const struct addr *addr, uint8_t mac[6],
		    uint64_t deadline)
{
	uint8_t frame[FRAME_SIZE];
	struct writer f = wr_init(frame, sizeof(frame));
	wr_bytes(&f, "\xff\xff\xff\xff\xff\xff", 6);
	wr_bytes(&f, w->mac, 6);
	wr_bytes(&f, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
	wr_bytes(&f, w->mac, 6);
	wr_bytes(&f, w->own.b + 12, 4);
	wr_bytes(&f, "\0\0\0\0\0\0", 6);
	wr_bytes(&f, addr->b + 12, 4);
	if (send(w->sock, frame, f.len, 0) < 0)
		return false;
	while (probe_readable(w->sock, deadline)) {
		ssize_t n = recv(w->sock, frame, sizeof(frame), 0);
		if (n >= 42 && memcmp(frame + 12, "\x08\x06", 2) == 0 && frame[21] == 2 &&
		    memcmp(frame + 28, addr->b + 12, 4) == 0 &&
		    memcmp(frame + 22, w->mac, 6) != 0) {
			memcpy(mac, frame + 22, 6);
			return true;
		}
	}
	return false;
}

/* An IPv4 packet with a datagram, source and destination as given; appended to f. */
static void udp_packet(struct writer *f, const struct addr *from, const struct addr *to,
		       uint16_t port)
{
	size_t at = f->len;
	wr_bytes(f, "\x45\0\0\x24\0\1\0\0\x40\x11\0\0", 12);
	wr_bytes(f, from->b + 12, 4);
	wr_bytes(f, to->b + 12, 4);
	wr_be16(f, port);
	wr_be16(f, PROBE_PORT);
	wr_be16(f, 16);
	wr_be16(f, 0); /* no checksum */
	wr_bytes(f, "cx-probe", 8);
	if (f->bad)
		return;
	uint16_t sum = checksum(f->p + at, 20);
	f->p[at + 10] = (uint8_t)(sum >> 8);
	f->p[at + 11] = (uint8_t)sum;
}

/* Is it an untagged frame with a datagram from `from`, to this port of ours? */
static bool is_answer(const uint8_t *frame, size_t n, const struct addr *from, uint16_t port)
{
	return n >= 38 && memcmp(frame + 12, "\x08\0\x45", 3) == 0 && frame[23] == IPPROTO_UDP &&
	       memcmp(frame + 26, from->b + 12, 4) == 0 && (frame[36] << 8 | frame[37]) == port;
}

static bool comes_from(const struct wire *w, const struct addr *from, uint16_t port,
		       uint64_t deadline)
{
	uint8_t frame[FRAME_SIZE];
	while (probe_readable(w->sock, deadline)) {
		struct sockaddr_ll at = { 0 };
		socklen_t len = sizeof(at);
		ssize_t n =
			recvfrom(w->sock, frame, sizeof(frame), 0, (struct sockaddr *)&at, &len);
		if (n > 0 && at.sll_pkttype != PACKET_OUTGOING &&
		    is_answer(frame, (size_t)n, from, port))
			return true;
	}
	return false;
}

/* Sends a datagram to the canary as a frame of our own making, and looks for its answer. */
static void send_frame(const struct probe *p, const struct attempt *a, bool tagged,
		       const struct addr *from, struct outcome *out)
{
	uint8_t frame[FRAME_SIZE];
	struct writer f = wr_init(frame, sizeof(frame));
	struct wire w;
	struct addr to, gateway;
	uint16_t port = tagged ? TAGGED_PORT : SPOOFED_PORT;
	if (!probe_target(p, a->to, &to, out) || !probe_target(p, "gateway", &gateway, out) ||
	    !open_wire(&w, out))
		return;
	uint64_t deadline = probe_now_ms() + p->wait_ms;
	if (!who_has(&w, &gateway, w.gateway, deadline)) {
		probe_say(out, PROBE_NOT_TRIED, "the gateway does not answer ARP");
		close(w.sock);
		return;
	}
	wr_bytes(&f, w.gateway, 6);
	wr_bytes(&f, w.mac, 6);
	if (tagged)
		wr_bytes(&f, "\x81\0\0\0", 4); /* priority only: what a router takes as untagged */
	wr_bytes(&f, "\x08\0", 2);
	udp_packet(&f, from ? from : &w.own, &to, port);
	bool sent = send(w.sock, frame, f.len, 0) > 0;
	bool heard = sent && comes_from(&w, &to, port, probe_now_ms() + p->wait_ms);
	probe_say(out, heard ? PROBE_LEAKED : PROBE_HELD, "%s",
		  heard  ? "answered on the wire"
		  : sent ? "no answer on the wire"
			 : strerror(errno));
	close(w.sock);
}

void probe_vlan(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	send_frame(p, a, true, NULL, out);
}

void probe_spoof(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	struct addr from;
	if (probe_target(p, "spoof", &from, out))
		send_frame(p, a, false, &from, out);
}

void probe_arp(const struct probe *p, const struct attempt *a, struct outcome *out)
{
	struct wire w;
	struct addr to;
	uint8_t mac[6];
	if (!probe_target(p, a->to, &to, out) || !open_wire(&w, out))
		return;
	if (who_has(&w, &to, mac, probe_now_ms() + p->wait_ms))
		probe_say(out, PROBE_LEAKED, "answered by %02x:%02x:%02x:%02x:%02x:%02x", mac[0],
			  mac[1], mac[2], mac[3], mac[4], mac[5]);
	else
		probe_say(out, PROBE_HELD, "no answer");
	close(w.sock);
}
