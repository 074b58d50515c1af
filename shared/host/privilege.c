/* SPDX-License-Identifier: Apache-2.0 */
/* Rights of a daemon; see privilege.h. Never returns true with a way back to root. */
#include "shared/host/privilege.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

void privilege_raise_files(unsigned n)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= n)
		return;
	r.rlim_cur = r.rlim_max < n ? r.rlim_max : n;
	(void)setrlimit(RLIMIT_NOFILE, &r);
}

static bool become(const struct passwd *pw)
{
	if (initgroups(pw->pw_name, pw->pw_gid) != 0 || setgid(pw->pw_gid) != 0 ||
	    setuid(pw->pw_uid) != 0)
		return false;
	if (pw->pw_uid != 0 && (setuid(0) == 0 || seteuid(0) == 0)) {
		errno = EPERM;
		return false;
	}
	return true;
}

bool privilege_drop(const struct passwd *pw)
{
	if (pw && !become(pw))
		return false;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}
