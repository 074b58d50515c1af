#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks who may include whom: the borders between the parts of cx (docs/design.md). One line per
# finding, then `N passed, N failed`, where a file that includes only what it may counts as passed.
set -u
cd "$(dirname "$0")/../.." || exit 3

passed=0
failed=0

# What a file of this directory may include: two regular expressions, one over "quoted" paths of ours,
# one over <system> headers that are not libc's.
allowed_ours() {
	case $1 in
	shared/base/*) echo '^shared/base/' ;;
	shared/policy/*) echo '^shared/(base|policy)/' ;;
	shared/live/*) echo '^shared/(base|policy|live)/' ;;
	shared/dns/*) echo '^shared/(base|policy|live|dns)/' ;;
	shared/host/*) echo '^shared/(base|policy|live|host)/' ;;
	shared/compile/*) echo '^shared/(base|policy|compile)/' ;;
	shared/tools/*) echo '^shared/' ;;
	spoa-agent/*) echo '^(shared/base/|shared/policy/(policy|verdict|features)\.h$|shared/(live|host)/|spoa-agent/)' ;;
	unbound-module/module.c) echo '^(shared/base/|shared/policy/(policy|verdict|features)\.h$|shared/(live|dns)/|unbound-module/|config\.h$|(daemon|dynlibmod|iterator|libunbound|services|sldns|util|validator)/)' ;;
	unbound-module/shim/*) echo '^(shared/base/|shared/policy/(policy|verdict|features)\.h$|shared/(live|dns|host)/|unbound-module/shim/)' ;;
	unbound-module/*) echo '^(shared/base/|shared/policy/(policy|verdict|features)\.h$|shared/(live|dns)/|unbound-module/)' ;;
	tests/*) echo '^(shared|spoa-agent|tests)/|^unbound-module/(shim/)?[a-z]*\.h$' ;;
	*) echo '^$' ;;
	esac
}

allowed_libraries() {
	case $1 in
	shared/policy/check.c) echo '^openssl/' ;;
	shared/compile/*) echo '^(openssl/|yaml\.h$|libpsl\.h$|idn2\.h$)' ;;
	shared/tools/*) echo '^(json-c/|openssl/)' ;;
	spoa-agent/*) echo '^(ev\.h$|unbound(-event)?\.h$|microhttpd\.h$)' ;;
	unbound-module/shim/*) echo '^ev\.h$' ;;
	unbound-module/module.c) echo '^(openssl/|syslog\.h$)' ;;
	tests/*) echo '^(openssl/|cmocka\.h$|cdb\.h$|lmdb\.h$|maxminddb\.h$|ev\.h$|unbound\.h$)' ;;
	*) echo '^$' ;;
	esac
}

# Headers that come with the C library, the kernel or the compiler.
libc='^((sys|net|netinet|arpa|linux|linux/netfilter|bits)/[a-z0-9_]+\.h|[a-z0-9_]*intrin\.h|(assert|ctype|dirent|dlfcn|endian|elf|errno|fcntl|fnmatch|getopt|glob|grp|ifaddrs|inttypes|limits|link|locale|malloc|math|netdb|poll|pthread|pwd|sched|setjmp|signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|strings|termios|time|unistd)\.h)$'

complain() { # FILE TEXT
	echo "$1: $2"
	bad=1
}

for f in $(find shared spoa-agent unbound-module docker tests -name '*.[ch]' | LC_ALL=C sort); do
	bad=0
	ours=$(allowed_ours "$f")
	libs=$(allowed_libraries "$f")
	for i in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$f"); do
		echo "$i" | grep -Eq "$ours" || complain "$f" "may not include \"$i\""
	done
	for i in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*<\([^>]*\)>.*/\1/p' "$f"); do
		echo "$i" | grep -Eq "$libc" || echo "$i" | grep -Eq "$libs" ||
			complain "$f" "may not include <$i>"
	done
	case $f in
	shared/base/* | shared/policy/*)
		# neither part prints, logs or looks at a clock
		if grep -Enw '(f|v|vf|d)?printf|f?puts|syslog|clock_gettime|gettimeofday|time' "$f" |
			grep -E '\b((f|v|vf|d)?printf|f?puts|syslog|clock_gettime|gettimeofday|time) ?\(' |
			grep -Ev '^[0-9]+:[[:space:]]*(/?\*|//)'; then
			complain "$f" "may not print, log or look at a clock"
		fi
		;;
	esac
	head -n 1 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
		complain "$f" "does not start with its licence"
	if [ "$bad" -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
