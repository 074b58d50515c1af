#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the C on purpose, one mistake at a time, in a copy under BUILD/oracle, and lets the oracle ask:
a mistake that it does not notice is a failure. The unchanged code must agree with it.

usage: mutate.py --build DIR --cc "COMPILE COMMAND" --ask "OBJECTS" --policyc "OBJECTS" --libs "LIBS"
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Mutation:
    def __init__(self, text):
        self.name, self.file, rest = text.split("\n", 2)
        m = re.fullmatch(r"--- from\n(.*)--- to\n(.*)", rest.rstrip("\n") + "\n", re.S)
        self.old, self.new = m.group(1), m.group(2)
        self.box = re.sub(r"[^a-z0-9]+", "-", self.name.lower())


def read_mutations():
    with open(os.path.join(HERE, "mutations"), encoding="utf-8") as f:
        return [Mutation(part) for part in f.read().split("\n=== ")[1:]]


def link(args, objects, out, changed, mutant):
    """Links with one object changed."""
    own = os.path.join(args.build, "obj", changed[:-2] + ".o")
    names = [mutant if o == own else o for o in objects.split()]
    if mutant in names:
        subprocess.run(["cc", "-o", out, *names, *args.libs.split()], check=True, timeout=120)
    return mutant in names


def build(args, m):
    """BUILD/oracle/mutants/NAME with cx-policyc and ask, one source changed."""
    box = os.path.join(args.build, "oracle", "mutants", m.box)
    os.makedirs(os.path.join(box, "oracle"))
    with open(os.path.join(ROOT, m.file), encoding="utf-8") as f:
        source = f.read()
    if source.count(m.old) != 1:
        raise ValueError("its text stands %d times in %s, not once" % (source.count(m.old), m.file))
    path = os.path.join(box, os.path.basename(m.file))
    with open(path, "w", encoding="utf-8") as f:
        f.write(source.replace(m.old, m.new))
    mutant = os.path.join(box, "mutant.o")
    subprocess.run([*shlex.split(args.cc), "-w", "-c", "-o", mutant, path], check=True, timeout=120)
    for program, objects in (("cx-policyc", args.policyc), ("oracle/ask", args.ask)):
        out = os.path.join(box, program)
        if not link(args, objects, out, m.file, mutant):
            os.symlink(os.path.abspath(os.path.join(args.build, program)), out)
    return box


def agrees(box, count):
    r = subprocess.run([os.path.join(HERE, "run.py"), "--build", box, "--count", str(count), "--stop", "1",
                        "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                       universal_newlines=True, timeout=300)
    lines = r.stdout.splitlines()
    return r.returncode == 0, lines[-1] if lines else "it cannot be asked"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("--build", "--cc", "--ask", "--policyc", "--libs"):
        ap.add_argument(name, required=True)
    ap.add_argument("--count", type=int, default=20000)
    args = ap.parse_args()
    os.chdir(ROOT)
    shutil.rmtree(os.path.join(args.build, "oracle", "mutants"), ignore_errors=True)
    passed = failed = 0
    same, said = agrees(args.build, args.count)
    if not same:
        print("the unchanged code does not agree with the oracle: " + said)
        failed += 1
    for m in read_mutations():
        try:
            same, said = agrees(build(args, m), args.count)
        except (ValueError, subprocess.SubprocessError) as e:
            same, said = True, str(e)
        print("%s  %s (%s): %s" % ("SURVIVED" if same else "caught  ", m.name, m.file, said))
        passed += not same
        failed += same
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
