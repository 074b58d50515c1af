#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the limiter and what charges it on purpose, one mistake at a time (live-mutations), and runs their unit
tests against it: a mistake that they do not notice is a failure. Nothing of the tree is changed."""

import argparse
import os
import shutil
import subprocess
import sys

from run import ROOT, Mutation

TESTS = ("test_limit", "test_charge")


def noticed(build, work, number, mutation):
    """By which test, or None."""
    with open(os.path.join(ROOT, mutation.file), encoding="utf-8") as f:
        source = f.read()
    if source.count(mutation.old) != 1:
        raise ValueError(f"its text stands {source.count(mutation.old)} times in {mutation.file}, not once")
    base = os.path.join(work, str(number))
    with open(base + ".c", "w", encoding="utf-8") as f:
        f.write(source.replace(mutation.old, mutation.new))
    subprocess.run(["gcc", f"-I{ROOT}", "-D_GNU_SOURCE", "-std=gnu11", "-O1", "-w", "-fPIC", "-c", "-o", base + ".o",
                    base + ".c"], check=True, timeout=120)
    for test in TESTS:
        subprocess.run(["gcc", "-o", base, base + ".o", f"{build}/obj/tests/unit/{test}.o", f"{build}/unit/libcx.a",
                        "-lcmocka", "-lcrypto", "-pthread"], check=True, timeout=120)
        try:
            done = subprocess.run([base], capture_output=True, timeout=60, check=False,
                                  env={**os.environ, "CX_BUILD": build})
        except subprocess.TimeoutExpired:
            return test
        if done.returncode != 0:
            return test
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", default="build")
    build = p.parse_args().build
    work = os.path.join(build, "mutate-live")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    with open(os.path.join(ROOT, "tests/mutate/live-mutations"), encoding="utf-8") as f:
        mutations = [Mutation(part) for part in f.read().split("\n=== ")[1:]]
    passed = failed = 0
    for number, mutation in enumerate(mutations):
        by = noticed(build, work, number, mutation)
        print(f"caught    {mutation.name} (by {by})" if by else f"SURVIVED  {mutation.name}", flush=True)
        passed += by is not None
        failed += by is None
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
