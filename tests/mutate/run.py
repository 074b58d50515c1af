#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the matching code on purpose, one mistake at a time, in a copy under BUILD/mutate, and asks the
verdict cases: a mistake that they do not notice is a failure. The unchanged copy must pass.

usage: run.py [--build DIR] [PART OF A NAME...]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SOURCES = ["shared/base/name.c", "shared/base/addr.c", "shared/policy/policy.c", "shared/policy/check.c", "shared/policy/check_records.c",
           "shared/policy/slot.c", "shared/policy/overlay.c", "shared/policy/verdict.c", "shared/policy/seen.c",
           "shared/policy/permit.c", "shared/policy/task.c", "shared/policy/zone.c", "shared/policy/upstream.c",
           "shared/policy/destination.c",
           "shared/tools/target.c", "tests/verdict/run.c"]


class Mutation:
    def __init__(self, text):
        self.name, self.file, rest = text.split("\n", 2)
        m = re.fullmatch(r"--- from\n(.*)--- to\n(.*)", rest.rstrip("\n") + "\n", re.S)
        self.old, self.new = m.group(1), m.group(2)


def read_mutations():
    text = open(os.path.join(HERE, "mutations"), encoding="utf-8").read()
    return [Mutation(part) for part in text.split("\n=== ")[1:]]


def build(work, objects, mutation):
    """Builds the case runner with one source changed; returns its path."""
    box = os.path.join(work, re.sub(r"[^a-z0-9]+", "-", (mutation.name if mutation else "unchanged").lower()))
    os.makedirs(box)
    linked = dict(objects)
    if mutation:
        source = open(os.path.join(ROOT, mutation.file), encoding="utf-8").read()
        if source.count(mutation.old) != 1:
            raise ValueError(f"its text stands {source.count(mutation.old)} times in {mutation.file}, not once")
        path = os.path.join(box, os.path.basename(mutation.file))
        with open(path, "w", encoding="utf-8") as f:
            f.write(source.replace(mutation.old, mutation.new))
        linked[mutation.file] = compile_one(path, os.path.join(box, "mutant.o"))
    program = os.path.join(box, "run")
    subprocess.run(["gcc", "-o", program, *linked.values(), "-lcrypto"], check=True, timeout=120)
    return program


def compile_one(path, out):
    subprocess.run(["gcc", f"-I{ROOT}", "-D_GNU_SOURCE", "-std=gnu11", "-O1", "-w", "-c", "-o", out, path],
                   check=True, timeout=120)
    return out


def ask(program, asks):
    """True if all cases are answered as expected. A crash or a hang is noticed, too."""
    try:
        r = subprocess.run([program, *asks], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        return r.returncode == 0, r.stdout.decode(errors="replace").splitlines()
    except subprocess.TimeoutExpired:
        return False, ["it hangs"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("part", nargs="*")
    args = ap.parse_args()
    os.chdir(ROOT)
    subprocess.run(["tests/verdict/run.py", "--build", args.build, "--prepare"], check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    cases = os.path.join(args.build, "verdict", "cases")
    asks = sorted(os.path.join(cases, f) for f in os.listdir(cases) if f.endswith(".ask"))
    work = os.path.join(args.build, "mutate")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    objects = {s: compile_one(s, os.path.join(work, s.replace("/", "-") + ".o")) for s in SOURCES}
    passed = failed = 0

    good, said = ask(build(work, objects, None), asks)
    if not good:
        print("the unchanged code does not pass:\n" + "\n".join(said[-20:]))
        print("0 passed, 1 failed")
        return 1

    def try_one(m):
        start = time.monotonic()
        try:
            survived, said = ask(build(work, objects, m), asks)
        except (ValueError, subprocess.SubprocessError) as e:
            return m, None, str(e), 0
        noticed = len({line.split(":")[0] for line in said if ": expected " in line})
        return m, not survived, noticed, time.monotonic() - start

    chosen = [m for m in read_mutations() if not args.part or any(p in m.name for p in args.part)]
    with ThreadPoolExecutor(2) as pool:
        for m, caught, detail, seconds in pool.map(try_one, chosen):
            if caught:
                passed += 1
                print(f"caught    {m.name} (by {detail} cases, {seconds:.1f} s)")
            else:
                failed += 1
                print(f"{'SURVIVED' if caught is False else 'BROKEN  '}  {m.name} ({m.file}): {detail}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
