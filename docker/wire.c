// SPDX-License-Identifier: Apache-2.0
//
// A cable between containers that share no network: carries the Ethernet frames of TAP devices over unix
// sockets, one end listening, one connecting. It runs without any privilege on devices that were made
// for its user. It must never look into a frame or keep one: a full cable loses frames, as cables do.
//
// usage: cx-wire listen|connect SOCKET TAP [listen|connect SOCKET TAP]...
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_tun.h>

enum { MAX_WIRES = 8, FRAME_MIN = 14, FRAME_MAX = 1518, BURST = 64, RETRY_MS = 100 };

struct wire {
	const char *path;
	const char *device;
	bool listens;
	int tap;
	int waiting; // the listening socket, -1 if this end connects
	int peer;    // -1: nobody there
};

static volatile sig_atomic_t ending;
static sigset_t open_to_signals;

static void end(int number)
{
	ending = number;
}

static _Noreturn void die(const char *what, const char *which)
{
	fprintf(stderr, "cx-wire: %s %s: %s\n", what, which, strerror(errno));
	exit(1);
}

static struct sockaddr_un place(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(at.sun_path)) {
		errno = ENAMETOOLONG;
		die("socket", path);
	}
	memcpy(at.sun_path, path, strlen(path) + 1);
	return at;
}

static int new_socket(void)
{
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static void open_tap(struct wire *w)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };

	if (strlen(w->device) >= sizeof(request.ifr_name)) {
		errno = ENAMETOOLONG;
		die("device", w->device);
	}
	memcpy(request.ifr_name, w->device, strlen(w->device) + 1);
	w->tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (w->tap < 0 || ioctl(w->tap, TUNSETIFF, &request))
		die("device", w->device);
}

static void open_socket(struct wire *w)
{
	struct sockaddr_un at = place(w->path);

	w->peer = -1;
	w->waiting = -1;
	if (!w->listens)
		return;
	if (unlink(w->path) && errno != ENOENT)
		die("socket", w->path);
	w->waiting = new_socket();
	if (w->waiting < 0 || bind(w->waiting, (struct sockaddr *)&at, sizeof(at)) ||
	    chmod(w->path, 0600) || listen(w->waiting, 1))
		die("socket", w->path);
}

static void hang_up(struct wire *w)
{
	fprintf(stderr, "cx-wire: %s: unplugged\n", w->device);
	close(w->peer);
	w->peer = -1;
}

// The other end, if it is there by now.
static void find_peer(struct wire *w)
{
	if (w->listens) {
		w->peer = accept4(w->waiting, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} else {
		struct sockaddr_un at = place(w->path);

		w->peer = new_socket();
		if (w->peer >= 0 && connect(w->peer, (struct sockaddr *)&at, sizeof(at))) {
			close(w->peer);
			w->peer = -1;
		}
	}
	if (w->peer >= 0)
		fprintf(stderr, "cx-wire: %s: plugged in\n", w->device);
}

// Frames of this host. Without a peer they go nowhere.
static void from_tap(struct wire *w)
{
	char frame[FRAME_MAX];
	ssize_t n;

	for (int i = 0; i < BURST && (n = read(w->tap, frame, sizeof(frame))) > 0; i++) {
		if (w->peer >= 0 && n >= FRAME_MIN &&
		    send(w->peer, frame, (size_t)n, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
			hang_up(w);
	}
}

// Frames of the other host: what is no frame is dropped.
static void from_peer(struct wire *w)
{
	char frame[FRAME_MAX];

	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(w->peer, frame, sizeof(frame), MSG_TRUNC);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			hang_up(w);
			return;
		}
		// the device refuses what it cannot take, which is a frame lost
		if (n >= FRAME_MIN && n <= FRAME_MAX && write(w->tap, frame, (size_t)n) < 0)
			continue;
	}
}

static void carry(struct wire *wires, int count)
{
	struct pollfd polled[2 * MAX_WIRES];
	bool missing = false; // an end that has to knock
	const struct timespec retry = { .tv_nsec = RETRY_MS * 1000000L };

	for (int i = 0; i < count; i++) {
		struct wire *w = &wires[i];

		if (w->peer < 0)
			find_peer(w);
		missing |= w->peer < 0 && !w->listens;
		polled[2 * i] = (struct pollfd){ .fd = w->tap, .events = POLLIN };
		polled[2 * i + 1] = (struct pollfd){ .fd = w->peer >= 0 ? w->peer : w->waiting,
						     .events = POLLIN };
	}
	if (ppoll(polled, (nfds_t)(2 * count), missing ? &retry : NULL, &open_to_signals) < 0)
		return;
	for (int i = 0; i < count; i++) {
		if (polled[2 * i].revents & ~POLLIN) {
			errno = ENODEV;
			die("device", wires[i].device);
		}
		if (polled[2 * i].revents)
			from_tap(&wires[i]);
		if (polled[2 * i + 1].revents && wires[i].peer >= 0)
			from_peer(&wires[i]);
	}
}

// Signals to end come while carry() waits, and at no other time.
static void set_signals(void)
{
	struct sigaction act = { .sa_handler = end };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigemptyset(&open_to_signals);
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	signal(SIGCHLD, SIG_IGN); // as process 1 it inherits orphans; the kernel buries them
}

int main(int argc, char **argv)
{
	struct wire wires[MAX_WIRES] = { 0 };
	int count = (argc - 1) / 3;

	if (argc < 4 || (argc - 1) % 3 || count > MAX_WIRES) {
		fprintf(stderr, "usage: cx-wire listen|connect SOCKET TAP...\n");
		return 2;
	}
	set_signals();
	for (int i = 0; i < count; i++) {
		char **words = argv + 1 + 3 * i;

		wires[i].listens = !strcmp(words[0], "listen");
		wires[i].path = words[1];
		wires[i].device = words[2];
		open_tap(&wires[i]);
		open_socket(&wires[i]);
	}
	while (!ending)
		carry(wires, count);
	return 0;
}
