#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the unit test programs given, one after the other, each under a timeout, and adds up what they
# report. A program that crashes, hangs or reports nothing counts as a failure.
set -u
passed=0
failed=0
out=$(mktemp) || exit 3
trap 'rm -f "$out"' EXIT

number() { # number WORD: N of "[  WORD  ] N test(s)"
	sed -n "s/^\[  $1  \] \([0-9][0-9]*\) test(s).*/\1/p" "$out" | tail -n 1
}

for t in "$@"; do
	CMOCKA_MESSAGE_OUTPUT=STDOUT timeout 300 "$t" >"$out" 2>&1
	rc=$?
	ok=$(number PASSED)
	bad=$(number FAILED)
	ok=${ok:-0}
	bad=${bad:-0}
	if [ "$rc" -ne 0 ] && [ "$bad" -eq 0 ]; then
		bad=1
	elif [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ]; then
		bad=1
	fi
	if [ "$bad" -ne 0 ]; then
		cat "$out"
		echo "$(basename "$t"): FAILED (exit $rc)"
	fi
	echo "$(basename "$t"): $ok passed, $bad failed"
	passed=$((passed + ok))
	failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
