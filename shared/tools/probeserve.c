/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canary of cx-probe: answers whatever reaches it with a token that only an attempt which got out
 * can read, and prints a line for it. It runs outside; it must never be reachable through a listed name.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/tools/probe.h"
#include "shared/tools/probenet.h"

enum { MAX_PLACES = 64, MAX_CONNECTIONS = 256 };

static const uint16_t tcp_ports[] = { 22, 25, 80, 443, 853, 5432, 8080, 8443, 9999 };
static const uint16_t udp_ports[] = { 123, 443, 853, 1234, 5353 };

struct place {
	uint16_t port;
	bool stream; /* listens; else a datagram socket */
};

static struct pollfd fds[MAX_PLACES + MAX_CONNECTIONS];
static struct place places[MAX_PLACES + MAX_CONNECTIONS];
static unsigned n_fds, n_places;

static bool add_place(const struct addr *a, uint16_t port, bool stream)
{
	struct sockaddr_storage ss;
	socklen_t len = probe_sockaddr(a, port, &ss);
	int one = 1,
	    sock = socket(ss.ss_family, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
	if (sock < 0 || n_fds == MAX_PLACES)
		return false;
	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(sock, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	if (bind(sock, (struct sockaddr *)&ss, len) != 0 || (stream && listen(sock, 64) != 0)) {
		fprintf(stderr, "cx-probe: port %u: %s\n", port, strerror(errno));
		return false;
	}
	fds[n_fds] = (struct pollfd){ .fd = sock, .events = POLLIN };
	places[n_fds++] = (struct place){ .port = port, .stream = stream };
	return true;
}

static bool add_places(const char *addresses)
{
	while (*addresses) {
		size_t n = strcspn(addresses, ",");
		struct addr a;
		if (!addr_from_text(&a, addresses, n)) {
			fprintf(stderr, "cx-probe: %.*s is no address\n", (int)n, addresses);
			return false;
		}
		for (size_t i = 0; i < sizeof(tcp_ports) / sizeof(*tcp_ports); i++)
			if (!add_place(&a, tcp_ports[i], true))
				return false;
		for (size_t i = 0; i < sizeof(udp_ports) / sizeof(*udp_ports); i++)
			if (!add_place(&a, udp_ports[i], false))
				return false;
		addresses += n + (addresses[n] == ',');
	}
	n_places = n_fds;
	return n_places > 0;
}

static void tell(const char *how, uint16_t port, const struct sockaddr_storage *peer, socklen_t len,
		 char *text)
{
	struct addr a;
	uint16_t peer_port;
	memcpy(text, "somebody", 9);
	if (addr_from_sockaddr(&a, &peer_port, (const struct sockaddr *)peer, len))
		addr_to_text(&a, text);
	printf("{\"canary\":\"%s\",\"port\":%u,\"peer\":\"%s\"}\n", how, port, text);
	fflush(stdout);
}

/* The token, as an HTTP answer where that is spoken. */
static size_t token(uint16_t port, const char *peer, char *buf, size_t room)
{
	char body[128];
	int n = snprintf(body, sizeof(body), CANARY_TOKEN " saw %s\n", peer);
	if (port == 80 || port == 8080)
		n = snprintf(buf, room, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", n, body);
	else
		n = snprintf(buf, room, "%s", body);
	return (size_t)n;
}

static void datagram(unsigned i)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	char data[8192], who[ADDR_TEXT_SIZE], text[256];
	if (recvfrom(fds[i].fd, data, sizeof(data), 0, (struct sockaddr *)&peer, &len) < 0)
		return;
	tell("udp", places[i].port, &peer, len, who);
	sendto(fds[i].fd, text, token(places[i].port, who, text, sizeof(text)), 0,
	       (struct sockaddr *)&peer, len);
}

static void arrive(unsigned i)
{
	int sock = accept4(fds[i].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (sock < 0)
		return;
	if (n_fds == MAX_PLACES + MAX_CONNECTIONS) {
		close(sock);
		return;
	}
	fds[n_fds] = (struct pollfd){ .fd = sock, .events = POLLIN };
	places[n_fds++] = (struct place){ .port = places[i].port, .stream = true };
}

/* Answers; false when the connection is over. */
static bool speak(unsigned i)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	char data[8192], who[ADDR_TEXT_SIZE], text[256];
	if (recv(fds[i].fd, data, sizeof(data), 0) <= 0 ||
	    getpeername(fds[i].fd, (struct sockaddr *)&peer, &len) != 0)
		return false;
	tell("tcp", places[i].port, &peer, len, who);
	return send(fds[i].fd, text, token(places[i].port, who, text, sizeof(text)), MSG_NOSIGNAL) >
	       0;
}

int probe_serve(const char *addresses)
{
	if (!add_places(addresses))
		return 3;
	printf("{\"canary\":\"ready\"}\n");
	fflush(stdout);
	for (;;) {
		if (poll(fds, n_fds, -1) < 0 && errno != EINTR)
			return 3;
		for (unsigned i = n_fds; i-- > n_places;)
			if (fds[i].revents && !speak(i)) {
				close(fds[i].fd);
				fds[i] = fds[--n_fds];
				places[i] = places[n_fds];
			}
		for (unsigned i = 0; i < n_places; i++) {
			if (!fds[i].revents)
				continue;
			if (places[i].stream)
				arrive(i);
			else
				datagram(i);
		}
	}
}
