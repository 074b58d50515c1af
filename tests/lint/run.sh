#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Everything that can be said about the source without running it. Each check is one case; all are run,
# and what they say is shown for those that fail. Changes nothing.
#
# usage: run.sh BUILD [CHECK...]
#        run.sh BUILD --tidy FILE SYSTEM-INCLUDES    (of itself)
set -u
cd "$(dirname "$0")/../.." || exit 3
build=${1:-build}
shift 2>/dev/null
only=$*
passed=0
failed=0

sources() { # sources PATTERN: files of ours, never what was built
	find shared spoa-agent unbound-module tests conf docs docker .ci -type f -name "$1" | LC_ALL=C sort
}

scripts() { # scripts INTERPRETER: files whose first line names it
	find shared spoa-agent unbound-module tests conf docs docker .ci -type f ! -name '*.[ch]' \
		-exec sh -c 'for f; do head -n 1 "$f" | grep -aEq "^#!.*[/ ]$0( |\$)" && echo "$f"; done' \
		"$1" {} + | LC_ALL=C sort
}

check() { # check NAME COMMAND...
	name=$1
	shift
	case " $only " in
	"  " | *" $name "*) ;;
	*) return ;;
	esac
	if "$@" >"$out" 2>&1; then
		passed=$((passed + 1))
		echo "ok   $name"
	else
		failed=$((failed + 1))
		echo "FAIL $name"
		head -n 200 "$out"
	fi
}

formatted() { # names the files; clang-format -i sets them right
	for f in $(sources '*.[ch]'); do
		clang-format --dry-run -Werror "$f" 2>/dev/null || echo "$f"
	done >"$out.files"
	cat "$out.files"
	[ ! -s "$out.files" ]
	rc=$?
	rm -f "$out.files"
	return $rc
}

exported() {
	nm -D --defined-only "$build/cx_unbound.so" | awk '{ print $3 }' | LC_ALL=C sort >"$out.got"
	printf '%s\n' clear deinit get_mem inform_super init operate >"$out.want"
	diff "$out.want" "$out.got"
	rc=$?
	rm -f "$out.want" "$out.got"
	return $rc
}

run_cppcheck() {
	cppcheck --quiet --error-exitcode=1 --std=c11 --language=c -j 2 --max-configs=2 \
		--enable=warning,performance,portability --inline-suppr \
		--suppressions-list=tests/lint/cppcheck.txt -I. -D_GNU_SOURCE -D__BYTE_ORDER__=1234 \
		-D__ORDER_LITTLE_ENDIAN__=1234 -D__x86_64__ -D__linux__ -DCX_VERSION='""' \
		shared spoa-agent unbound-module docker tests
}

# One file, unless nothing that it could see has changed since it was last found clean. The analyzer, which
# is slow, looks at the product only.
tidy_one() { # tidy_one FILE SYSTEM-INCLUDES
	stamp=$build/lint/$(echo "$1" | tr / _).ok
	[ -n "$(find "$stamp" -newer "$1" -newer "$newest" 2>/dev/null)" ] && return
	case $1 in
	tests/*) checks='-clang-analyzer-*,-cert-err34-c' ;;
	*) checks='' ;;
	esac
	# what clang-tidy has to say stands on standard output
	clang-tidy --quiet --warnings-as-errors='*' ${checks:+--checks="$checks"} "$1" -- -I. -isystem "$2" \
		-D_GNU_SOURCE '-DCX_VERSION=""' '-DCX_UNBOUND_BUILD_ID=""' -std=gnu11 \
		-Wno-unused-parameter 2>/dev/null && : >"$stamp"
}

run_clang_tidy() {
	mkdir -p "$build/lint"
	{
		sources '*.c' | grep -v '^unbound-module/module\.c$' | sed 's/$/ -/'
		echo unbound-module/module.c build/unbound/headers
	} | xargs -P 2 -L 1 tests/lint/run.sh "$build" --tidy
}

run_shellcheck() {
	# shellcheck disable=SC2046
	shellcheck -S warning -s sh $(scripts sh) && shellcheck -S warning -s bash $(scripts bash) /dev/null
}

run_python() { # syntax, and lines that a reviewer can read
	# shellcheck disable=SC2046
	/usr/bin/python3 -c '
import ast, sys
bad = 0
for path in sys.argv[1:]:
    text = open(path, encoding="utf-8").read()
    ast.parse(text, path)
    for n, line in enumerate(text.splitlines(), 1):
        if len(line) > 140:
            print(f"{path}:{n}: too long")
            bad = 1
sys.exit(bad)' $({ sources '*.py'; scripts python3; } | LC_ALL=C sort -u)
}

run_codespell() {
	codespell --quiet-level=2 -I tests/lint/words.txt -S '*.bin,./build,*.pyc,__pycache__,corpus,golden' \
		README.md CONTRIBUTING.md CHANGELOG.md Makefile shared spoa-agent unbound-module conf docker docs tests
}

manuals() {
	pages=$(find docs conf -type f -name '*.[1-9]' | LC_ALL=C sort)
	[ -n "$pages" ] || return 1
	# shellcheck disable=SC2086
	mandoc -T lint -W warning $pages
}

# Presets' hosts stand in the presets' own files: tests and documents take them from there.
preset_hosts() {
	/usr/bin/python3 - "$build" <<'PY'
import os, subprocess, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "tests/verdict")
import cases
build = sys.argv[1]
hosts = set(cases.preset_hosts(build)("npm"))
hosts |= {h for h in cases.preset_hosts(build)("apt") if h.startswith("deb.")}
assert hosts
bad = 0
for top in ("shared", "spoa-agent", "unbound-module", "tests", "conf", "docs", "docker", ".ci", "."):
    for base, dirs, files in os.walk(top):
        dirs[:] = [] if top == "." else [d for d in dirs if d != "presets"]
        for name in files:
            if not os.path.isfile(os.path.join(base, name)):
                continue  # links to nowhere, which tests need
            data = open(os.path.join(base, name), "rb").read()
            for h in hosts:
                if h.encode() in data:
                    print(f"{base}/{name}: spells out {h}")
                    bad = 1
sys.exit(bad)
PY
}

if [ "${1:-}" = --tidy ]; then # for run_clang_tidy
	newest=$({ sources '*.h'; echo .clang-tidy; } | xargs ls -t | head -n 1)
	tidy_one "$2" "$3"
	exit
fi
out=$(mktemp) || exit 3
trap 'rm -f "$out"' EXIT

check formatting formatted
check includes tests/lint/includes.sh
check exports exported
check cppcheck run_cppcheck
check clang-tidy run_clang_tidy
check shellcheck run_shellcheck
check python run_python
check codespell run_codespell
check manuals manuals
check preset-hosts preset_hosts
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
