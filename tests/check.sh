#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `make check`: runs the stages given, each a target of the Makefile, one after the other, and adds up
# what they report. A stage that fails, or that should report numbers and does not, fails the whole; the
# later stages run all the same. Each stage's output goes to BUILD/check/STAGE.log and, where it fails,
# to the screen. The last line is `N passed, N failed`.
#
# usage: check.sh BUILD STAGE...
set -u
cd "$(dirname "$0")/.." || exit 3
build=$1
shift
logs=$build/check
mkdir -p "$logs" || exit 3
passed=0
failed=0
start=$(date +%s)

# How the parts of a stage say that a case failed, or that they gave up.
telling='^ *(FAIL|not ok|SURVIVED|BROKEN|-- disagreement|\[  (FAILED|ERROR)|Traceback)|: (FAILED|error|fatal error)\b'
telling="$telling"'|^[A-Za-z_.]*(Error|Failure|Expired)\b|\*\*\*|ERROR: [A-Z]|runtime error:|, [1-9][0-9]* failed$'

# Stages that only make something: they count as one.
counts() {
	case $1 in
	deps | all) return 1 ;;
	*) return 0 ;;
	esac
}

for stage in "$@"; do
	log=$logs/$stage.log
	t=$(date +%s)
	printf '== %-22s ' "$stage"
	${MAKE:-make} --no-print-directory "$stage" >"$log" 2>&1 </dev/null
	rc=$?
	# what each part of the stage reported, added up
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" |
		awk '{ p += $1; f += $3 } END { if (NR) print p, f }')
	if [ -n "$line" ]; then
		ok=${line% *}
		bad=${line#* }
	elif counts "$stage"; then
		ok=0
		bad=1
	else
		ok=$((rc == 0))
		bad=$((rc != 0))
	fi
	[ "$rc" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
	echo "$ok passed, $bad failed   ($(($(date +%s) - t)) s)"
	if [ "$bad" -ne 0 ]; then
		echo "-- $stage ended with $rc; every line of $log that tells of a failure:"
		grep -naE "$telling" "$log" | head -n 100 | cut -c 1-600 | sed 's/^/   /'
		echo "-- its end:"
		tail -n 60 "$log" | sed 's/^/   /'
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
done
echo "all stages: $(($(date +%s) - start)) s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
