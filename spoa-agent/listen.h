/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets: unix:PATH and tcp:ADDR:PORT. A unix socket appears at its path only when it is
 * bound, listening and has its mode, and never takes the place of anything but a socket: one that nobody
 * answers on, or, asked to take over, one of a program that is to be followed.
 */
#ifndef CX_LISTEN_H
#define CX_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>

struct listener {
	int fd;
	const char *spec; /* borrowed */
	const char *path; /* of a unix socket, within spec; NULL: TCP */
	dev_t dev;        /* of the socket at the path, so that only ours is removed */
	ino_t ino;
};

enum { LISTEN_WHY = 160 };

struct listen_options {
	uid_t uid; /* with gid, owns a unix socket, whose mode is 0660; -1: the process */
	gid_t gid;
	bool takeover; /* another program may listen at the path: it keeps what it has accepted */
};

/* False: why says what, one line. */
bool listener_open(struct listener *l, const char *spec, const struct listen_options *o, char *why);
/*
 * The listening sockets that systemd has passed (sd_listen_fds(3)), at most max; they are asked for
 * once. Returns how many, -1: one of them is not a listening stream socket, and why says so.
 */
int listeners_passed(struct listener *l, unsigned max, char *why);
/* Closes it, and removes the socket from its path if it is still ours and that is permitted. */
void listener_close(struct listener *l);

#endif
