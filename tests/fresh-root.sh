#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the README's commands in a fresh Debian 12 with nothing but the committed tree: a root of its own made
# with debootstrap, entered in mount and process namespaces of its own. Never touches the machine's files.
#
# usage: tests/fresh-root.sh [demo] [check]     (root; needs debootstrap; default: both)
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
root=$(mktemp -d "${TMPDIR:-/tmp}/cx-fresh.XXXXXX")
chmod 755 "$root"
trap '[ -n "${KEEP_ROOT:-}" ] && echo "fresh-root: kept $root" || rm -rf --one-file-system "$root"' EXIT
[ $# -gt 0 ] || set -- demo check

# shellcheck disable=SC2016 # apt's own format
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$root.log" 2>&1 || {
	tail -n 20 "$root.log" >&2
	exit 1
}
rm -f "$root.log"
# the machine's own package sources, so that both see the same updates
cp -a /etc/apt/sources.list.d/. "$root/etc/apt/sources.list.d/" 2>/dev/null || true
cp -a /etc/apt/sources.list "$root/etc/apt/" 2>/dev/null || : >"$root/etc/apt/sources.list"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
git -C "$top" archive --prefix=cx/ HEAD | tar -x -C "$root/root"

for command; do
	echo "fresh-root: apt-get install -y make && make $command"
	# shellcheck disable=SC2016 # the inner shell's own arguments
	unshare --mount --pid --fork --propagation private \
		sh -c 'set -e
			mount --rbind "$1" "$1"
			mount -t proc proc "$1/proc"
			mount -t sysfs sysfs "$1/sys"
			mount --rbind /dev "$1/dev"
			mount -t tmpfs tmpfs "$1/run"
			mount -t tmpfs tmpfs "$1/tmp"
			exec chroot "$1" /usr/bin/env -i HOME=/root TERM=dumb LANG=C.UTF-8 \
				PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
				sh -c "cd /root/cx && apt-get update -qq &&
					apt-get install -y -qq make >/dev/null && make $2"' sh "$root" "$command"
done
echo "fresh-root: all as it should be"
