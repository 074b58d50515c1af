#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the fuzz programs given: first each file of tests/fuzz/corpus/NAME (and, for the policy, what the
# compiler wrote), then FUZZ_TIME seconds of new inputs with a fixed seed. New inputs stay under BUILD.
# FUZZ_TIME=0 replays only.
set -u
cd "$(dirname "$0")/../.." || exit 3
build=${BUILD:-build}
seconds=${FUZZ_TIME:-10}
passed=0
failed=0

for program in "$@"; do
	name=$(basename "$program")
	work=$build/fuzz/$name.corpus
	log=$build/fuzz/$name.log
	mkdir -p "$work"
	[ "$name" = fuzz_policy ] || [ "$name" = fuzz_dump ] && cp "$build"/unit/policy-?.bin "$work/"
	set -- "$work"
	[ -d "tests/fuzz/corpus/$name" ] && set -- "$@" "tests/fuzz/corpus/$name"
	inputs=$(find "$@" -type f | wc -l)
	dict=
	[ -f "tests/fuzz/$name.dict" ] && dict=-dict=tests/fuzz/$name.dict
	# with -runs=0 each file of the corpus is run once
	timeout 300 "$program" -runs=0 -artifact_prefix="$build/fuzz/" "$@" >"$log" 2>&1
	rc=$?
	if [ "$rc" -eq 0 ] && [ "$seconds" -gt 0 ]; then
		timeout $((seconds + 60)) "$program" ${dict:+"$dict"} -seed=20261121 -max_total_time="$seconds" -timeout=10 \
			-rss_limit_mb=2048 -max_len=65536 -artifact_prefix="$build/fuzz/" "$@" >>"$log" 2>&1
		rc=$?
	fi
	if [ "$rc" -eq 0 ] && [ "$inputs" -gt 0 ]; then
		passed=$((passed + 1))
		echo "$name: $inputs inputs replayed, then $seconds s: fine"
	else
		failed=$((failed + 1))
		echo "$name: FAILED ($rc); the end of $log:"
		tail -n 40 "$log"
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
