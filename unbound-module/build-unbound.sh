#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the Unbound that can load the module, from Debian's source package, into BUILD/unbound*.
# Must never change the machine's own package sources, and never touches an installed Unbound.
#
# usage: build-unbound.sh veto|plain|asan|tsan...
#   veto   BUILD/unbound        with the change that honours a reply callback's veto
#   plain  BUILD/unbound-plain  as Debian has it, plus the module loader
#   asan   BUILD/unbound-asan   like veto, with AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan   BUILD/unbound-tsan   like veto, with ThreadSanitizer
# environment: BUILD (build), REFRESH=1 (look for a newer source package)
#
# Each tree holds sbin/, the headers it was built with in include/, and a stamp: a tree whose stamp
# matches (source version, patch, flags) is left alone.
set -eu
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL # Unbound's Makefile has a BUILD of its own

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-build}
mkdir -p "$build"
build=$(cd "$build" && pwd)
apt=$build/apt
src=$build/unbound-source
patch=$here/honour-reply-callback-veto.patch

say() { echo "build-unbound: $*"; }
die() { say "$*" >&2; exit 1; }

# Runs a command with its output kept aside, and shows it only if the command fails.
quietly() {
	log=$1
	shift
	if ! "$@" >"$log" 2>&1; then
		tail -n 40 "$log" >&2
		die "failed: $* (all of it: $log)"
	fi
}

# apt with sources and state of our own: the machine's entries, asked for source packages.
private_apt() {
	apt-get -qq -o Dir::Etc::sourcelist="$apt/sources.list" \
		-o Dir::Etc::sourceparts="$apt/sources.list.d" \
		-o Dir::State="$apt/state" -o Dir::State::status=/var/lib/dpkg/status \
		-o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root \
		-o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

write_sources() {
	mkdir -p "$apt/sources.list.d" "$apt/state/lists/partial" "$apt/cache/archives/partial"
	rm -f "$apt/sources.list.d"/*
	: >"$apt/sources.list"
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$f" ] || continue
		sed -n 's/^[[:space:]]*deb\([[:space:]]\)/deb-src\1/p' "$f" >>"$apt/sources.list"
	done
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -f "$f" ] || continue
		sed 's/^Types:.*/Types: deb-src/' "$f" >"$apt/sources.list.d/${f##*/}"
	done
}

fetch_source() {
	if [ -f "$src/version" ] && [ -d "$src/tree" ] && [ -z "${REFRESH:-}" ]; then
		return
	fi
	say "fetching Debian's source package of Unbound"
	write_sources
	# A third party's entry without source packages makes this fail: what counts is the next step.
	private_apt update >"$apt/update.log" 2>&1 || true
	rm -rf "$src.new"
	mkdir -p "$src.new"
	# The version that this machine would install, so that a backport is not taken by accident.
	candidate=$(LC_ALL=C apt-cache policy unbound | sed -n 's/^ *Candidate: *\([^(]*\)$/\1/p')
	(cd "$src.new" && { { [ -n "$candidate" ] &&
		private_apt source --download-only "unbound=$candidate" >"$apt/source.log" 2>&1; } ||
		quietly "$apt/source.log" private_apt source --download-only unbound; })
	dsc=$(find "$src.new" -name '*.dsc')
	[ -f "$dsc" ] || die "no source package was fetched"
	(cd "$src.new" && quietly "$apt/unpack.log" dpkg-source -x "${dsc##*/}" tree)
	sed -n 's/^Version: //p' "$dsc" | head -n 1 >"$src.new/version"
	rm -rf "$src"
	mv "$src.new" "$src"
}

build_tree() {
	kind=$1
	cflags="-O2 -g -fno-omit-frame-pointer -fstack-protector-strong"
	defs="-D_FORTIFY_SOURCE=2"
	ldflags="-Wl,-z,relro -Wl,-z,now -Wl,--build-id=sha1"
	case $kind in
	veto) dest=$build/unbound ;;
	plain) dest=$build/unbound-plain ;;
	asan)
		dest=$build/unbound-asan
		defs=
		cflags="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=alignment"
		;;
	tsan)
		dest=$build/unbound-tsan
		defs=
		cflags="-O1 -g -fno-omit-frame-pointer -fsanitize=thread"
		;;
	*) die "unknown kind of build: $kind" ;;
	esac
	flags="--disable-rpath --with-dynlibmodule --with-libevent --with-pthreads --enable-subnet
		--enable-dnstap --with-libnghttp2 --enable-tfo-client --enable-tfo-server
		--with-rootkey-file=/usr/share/dns/root.key --disable-flto --enable-shared --disable-static
		--with-chroot-dir= --with-username= --with-pidfile=/run/unbound.pid"
	# shellcheck disable=SC2086 # the flags are words
	stamp=$(
		cat "$src/version"
		[ "$kind" = plain ] || sha256sum <"$patch"
		echo $flags "$cflags" "$defs" "$ldflags" "$dest"
	)
	if [ -x "$dest/sbin/unbound" ] && [ "$(cat "$dest/stamp" 2>/dev/null)" = "$stamp" ]; then
		touch "$dest/stamp" # newer than what it was made from, for make
		return
	fi
	say "building Unbound $(cat "$src/version") ($kind), a minute or two"
	work=$build/unbound-work-$kind
	rm -rf "$work" "$dest"
	cp -a "$src/tree" "$work"
	if [ "$kind" != plain ]; then
		(cd "$work" && quietly "$build/unbound-$kind.log" patch --batch --fuzz=0 -p1 -i "$patch")
	fi
	# shellcheck disable=SC2086 # the flags are words
	(cd "$work" && quietly "$build/unbound-$kind.log" ./configure --prefix="$dest" $flags \
		CFLAGS="$cflags" CPPFLAGS="$defs" LDFLAGS="$ldflags")
	(cd "$work" && quietly "$build/unbound-$kind.log" make -j2 all)
	(cd "$work" && quietly "$build/unbound-$kind.log" make install)
	mkdir -p "$dest/headers"
	(cd "$work" && find . -name '*.h' -exec cp --parents -t "$dest/headers" {} +)
	rm -rf "$work"
	echo "$stamp" >"$dest/stamp"
}

[ $# -gt 0 ] || set -- veto plain
fetch_source
for kind; do
	build_tree "$kind"
done
