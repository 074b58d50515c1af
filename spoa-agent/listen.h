/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets: unix:PATH and tcp:ADDR:PORT. A unix socket appears at its path only when it is
 * bound, listening and has its mode, and never takes the place of anything but a socket that nobody
 * answers on.
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

/*
 * uid and gid own a unix socket, with mode 0660; (uid_t)-1: as the process. False: why says what, one
 * line.
 */
bool listener_open(struct listener *l, const char *spec, uid_t uid, gid_t gid, char *why);
/* Closes it, and removes the socket from its path if it is still ours and that is permitted. */
void listener_close(struct listener *l);

#endif
