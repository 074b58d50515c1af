/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets; see listen.h. Never removes what is not a dead socket. */
#include "spoa-agent/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/host/endpoint.h"

enum { BACKLOG = 1024, SOCKET_MODE = 0660, FIRST_PASSED = 3 };

static bool fails(char *why, const char *what)
{
	snprintf(why, LISTEN_WHY, "%s: %s", what, strerror(errno));
	return false;
}

static bool unix_address(struct sockaddr_un *un, const char *path, char *why)
{
	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	if (path[0] != '/' || strlen(path) >= sizeof(un->sun_path)) {
		snprintf(why, LISTEN_WHY, "a socket needs an absolute path of at most %zu octets",
			 sizeof(un->sun_path) - 1);
		return false;
	}
	memcpy(un->sun_path, path, strlen(path) + 1);
	return true;
}

/* Nothing there, or a socket that refuses: then its place may be taken. */
static bool path_is_free(const struct sockaddr_un *un, bool takeover, char *why)
{
	struct stat st;
	if (lstat(un->sun_path, &st) != 0)
		return errno == ENOENT || fails(why, "lstat");
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, LISTEN_WHY, "something that is not a socket stands there");
		return false;
	}
	if (takeover)
		return true;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fails(why, "socket");
	int rc = connect(fd, (const struct sockaddr *)un, sizeof(*un));
	int e = errno;
	close(fd);
	if (rc != 0 && (e == ECONNREFUSED || e == ENOENT))
		return true;
	snprintf(why, LISTEN_WHY, "another program listens there");
	return false;
}

/* Bound and ready under a name of its own first, and then moved over the path. */
static bool bind_beside(struct listener *l, const struct sockaddr_un *un,
			const struct listen_options *o, char *why)
{
	struct sockaddr_un tmp = *un;
	struct stat st;
	int n = snprintf(tmp.sun_path, sizeof(tmp.sun_path), "%s.%d", un->sun_path, getpid());
	if (n < 0 || (size_t)n >= sizeof(tmp.sun_path)) {
		snprintf(why, LISTEN_WHY, "the path is too long");
		return false;
	}
	unlink(tmp.sun_path);
	mode_t old = umask(0777);
	int rc = bind(l->fd, (const struct sockaddr *)&tmp, sizeof(tmp));
	umask(old);
	if (rc != 0)
		return fails(why, "bind");
	bool owned = o->uid == (uid_t)-1 || lchown(tmp.sun_path, o->uid, o->gid) == 0;
	if (owned && chmod(tmp.sun_path, SOCKET_MODE) == 0 && listen(l->fd, BACKLOG) == 0 &&
	    lstat(tmp.sun_path, &st) == 0 && rename(tmp.sun_path, un->sun_path) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
		return true;
	}
	fails(why, "socket file");
	unlink(tmp.sun_path);
	return false;
}

static bool open_unix(struct listener *l, const struct listen_options *o, char *why)
{
	struct sockaddr_un un;
	if (!unix_address(&un, l->path, why) || !path_is_free(&un, o->takeover, why))
		return false;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return fails(why, "socket");
	return bind_beside(l, &un, o, why);
}

static bool open_tcp(struct listener *l, const char *spec, char *why)
{
	struct endpoint e;
	int one = 1;
	if (!endpoint_from_listen(&e, spec)) {
		snprintf(why, LISTEN_WHY, "not ADDR:PORT or [ADDR6]:PORT");
		return false;
	}
	l->fd = socket(e.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return fails(why, "socket");
	if (setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0)
		return fails(why, "setsockopt");
	if (e.ss.ss_family == AF_INET6 &&
	    setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) != 0)
		return fails(why, "setsockopt");
	if (bind(l->fd, (const struct sockaddr *)&e.ss, e.len) != 0)
		return fails(why, "bind");
	return listen(l->fd, BACKLOG) == 0 || fails(why, "listen");
}

bool listener_open(struct listener *l, const char *spec, const struct listen_options *o, char *why)
{
	bool ok;
	*l = (struct listener){ .fd = -1, .spec = spec };
	if (strncmp(spec, "unix:", 5) == 0) {
		l->path = spec + 5;
		ok = open_unix(l, o, why);
	} else if (strncmp(spec, "tcp:", 4) == 0) {
		ok = open_tcp(l, spec + 4, why);
	} else {
		snprintf(why, LISTEN_WHY, "neither unix:PATH nor tcp:ADDR:PORT");
		return false;
	}
	if (!ok && l->fd >= 0) {
		close(l->fd);
		l->fd = -1;
	}
	return ok;
}

static bool is_listening(int fd)
{
	int on = 0, type = 0;
	socklen_t n = sizeof(on), m = sizeof(type);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &m) == 0 && type == SOCK_STREAM;
}

int listeners_passed(struct listener *l, unsigned max, char *why)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long n = fds ? strtol(fds, NULL, 10) : 0;
	bool ours = pid && strtol(pid, NULL, 10) == getpid();
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (!ours || n <= 0)
		return 0;
	for (int i = 0; i < n; i++) {
		int fd = FIRST_PASSED + i;
		if ((unsigned)i >= max || !is_listening(fd) ||
		    fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
			snprintf(why, LISTEN_WHY, "descriptor %d is not one to listen on", fd);
			return -1;
		}
		l[i] = (struct listener){ .fd = fd, .spec = "systemd" };
	}
	return (int)n;
}

void listener_close(struct listener *l)
{
	struct stat st;
	if (l->fd < 0)
		return;
	if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
	close(l->fd);
	l->fd = -1;
}
