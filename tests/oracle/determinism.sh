#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The same policy gives the same bytes: again, in other locales and time zones, from elsewhere, with
# another compiler of C. The same policy in another order gives the same meaning. Works in BUILD/determinism.
#
# usage: determinism.sh BUILD GCC-CX-POLICYC CLANG-CX-POLICYC
set -u
cd "$(dirname "$0")/../.." || exit 3
build=$(realpath "$1") && gcc=$(realpath "$2") && clang=$(realpath "$3") || exit 2
work=$build/determinism
passed=0
failed=0
rm -rf "$work"
mkdir -p "$work/locale" "$work/a/lists" "$work/a/policy.d" "$work/elsewhere" || exit 3

# A policy with a bit of everything, in several files.
cat >"$work/a/policy.yaml" <<'YAML'
version: 1
revision: "2026-11-21.1 İıß"
serial: 42
presets_version: "2026.11"
include: ["policy.d/*.yaml"]
network:
  presets: [default]
  allowlist:
    - {list: lists/names.txt, owner: "Ünal"}
    - {domain: "*.mirror.example.net", ports: [443, 8443], protocols: [https], expires: 2027-06-01, labels: {b: "2", a: "1", Ä: "3"}}
    - {domain: api.svc.example.com, protocols: [http], http: [{methods: [HEAD, GET], paths: ["/b", "/a*"]}, {paths: ["/I"]}]}
    - {domain: bücher.example.com}
    - {cidr: 192.0.2.0/24, ports: [5432, 1000-2000]}
  deny: ["*.internal.mirror.example.net", {cidr: 192.0.2.128/25}]
never: ["*.prod.example.com", {cidr: 203.0.113.0/24}]
profiles:
  payments: {extends: [default], allowlist: [i.example.com, ix.example.com, IZ.example.com], deny: [z.example.com, a.example.com]}
  zebra: {allowlist: [z.example.com, "*.a.example.com"], dns: {query_types: [TXT, A]}}
sources: {10.9.0.0/24: default, 10.9.0.0/16: payments, "2001:db8::/48": zebra, 10.8.0.0/16: default}
unlisted_sources: deny
YAML
cat >"$work/a/policy.d/b.yaml" <<'YAML'
profiles: {team-b: {extends: [payments, zebra], allowlist: [b.example.org]}}
YAML
cat >"$work/a/policy.d/a.yaml" <<'YAML'
profiles: {team-a: {allowlist: [a.example.org], presets: [npm]}}
sources: {10.7.0.0/16: team-a, 10.6.0.0/16: team-b}
YAML
/usr/bin/python3 - "$work/a/lists/names.txt" <<'PY'
import random, sys
rng = random.Random(1)
with open(sys.argv[1], "w", encoding="utf-8") as f:
    for i in range(20000):
        f.write(rng.choice(["", "*."]) + "%x.%c.example.com\n" % (rng.getrandbits(40), rng.choice("iIabz")))
PY

# The same meaning, written in another order.
mkdir -p "$work/b/lists" "$work/b/policy.d"
/usr/bin/python3 - "$work" <<'PY'
import random, sys, yaml
work, rng = sys.argv[1], random.Random(2)

def mixed(x):
    if isinstance(x, dict):
        keys = list(x)
        rng.shuffle(keys)
        return {k: x[k] if k in ("http", "extends", "include") else mixed(x[k]) for k in keys}
    if isinstance(x, list):
        x = [mixed(v) for v in x]
        rng.shuffle(x)
    return x

for name in ("policy.yaml", "policy.d/a.yaml", "policy.d/b.yaml"):
    with open("%s/a/%s" % (work, name), encoding="utf-8") as f:
        doc = yaml.load(f, Loader=yaml.BaseLoader)
    if "include" in doc:
        doc["include"] = ["policy.d/b.yaml", "policy.d/a.yaml"]
    with open("%s/b/%s" % (work, name), "w", encoding="utf-8") as f:
        yaml.dump(mixed(doc), f, sort_keys=False, allow_unicode=True)
with open(work + "/a/lists/names.txt", encoding="utf-8") as f:
    lines = sorted(f, key=lambda line: line[::-1])
with open(work + "/b/lists/names.txt", "w", encoding="utf-8") as f:
    f.writelines(lines)
PY

say() { # WHAT OK
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok      $1"
	else
		failed=$((failed + 1))
		echo "FAILED  $1"
	fi
}

compile() { # DIRECTORY OUT [COMPILER]
	(cd "$1" && "${3:-$gcc}" policy.yaml -o "$2" --now 2026-11-21 --allow-unenforced >"$2.log" 2>&1)
	rc=$?
	[ "$rc" -eq 0 ] || cat "$2.log"
	return $rc
}

# WHAT COMMAND...: the command writes $out, which must equal the first.
same() {
	what=$1
	shift
	out=$work/out.bin
	rm -f "$out"
	"$@" && cmp -s "$work/first.bin" "$out" && cmp -s "$work/first.bin.log" "$out.log"
	say "$what" $?
}

meaning() { # FILE: the meaning digest of its header, and nothing else
	/usr/bin/python3 -c 'import sys; print(open(sys.argv[1], "rb").read(112)[80:].hex())' "$1"
}

export LC_ALL=C.UTF-8 TZ=UTC
compile "$work/a" "$work/first.bin"
say "compiles" $?
same "again" compile "$work/a" "$work/out.bin"

for name in tr_TR de_DE; do
	localedef -i $name -f UTF-8 "$work/locale/$name.UTF-8" >/dev/null 2>&1 # it warns, and exits 1
	LOCPATH=$work/locale LC_ALL=$name.UTF-8 locale charmap 2>/dev/null | grep -q UTF-8
	say "there is a locale $name" $?
	LOCPATH=$work/locale LC_ALL=$name.UTF-8 LANGUAGE=$name same "locale $name" compile "$work/a" "$work/out.bin"
done
LC_ALL=C same "locale C" compile "$work/a" "$work/out.bin"
for zone in Pacific/Kiritimati America/St_Johns :/nonexistent; do
	TZ=$zone same "time zone $zone" compile "$work/a" "$work/out.bin"
done
same "clang's build" compile "$work/a" "$work/out.bin" "$clang"
cp -r "$work/a" "$work/elsewhere/other"
find "$work/elsewhere/other" -exec touch -d 2001-01-01 {} +
same "another directory, older files" compile "$work/elsewhere/other" "$work/out.bin"
same "another memory layout" env MALLOC_PERTURB_=165 MALLOC_ARENA_MAX=1 setarch -R sh -c \
	"cd '$work/a' && '$gcc' policy.yaml -o '$work/out.bin' --now 2026-11-21 --allow-unenforced >'$work/out.bin.log' 2>&1"
same "one processor" taskset -c 0 sh -c \
	"cd '$work/a' && '$gcc' policy.yaml -o '$work/out.bin' --now 2026-11-21 --allow-unenforced >'$work/out.bin.log' 2>&1"

compile "$work/b" "$work/b.bin"
say "another order compiles" $?
[ "$(meaning "$work/first.bin")" = "$(meaning "$work/b.bin")" ]
say "another order of keys, lists, lines and includes has the same meaning digest" $?
! cmp -s "$work/first.bin" "$work/b.bin"
say "and other bytes, for lines are told" $?
sed -i 's/2027-06-01/2027-06-02/' "$work/b/policy.yaml"
compile "$work/b" "$work/c.bin" && [ "$(meaning "$work/first.bin")" != "$(meaning "$work/c.bin")" ]
say "another date has another meaning digest" $?

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
