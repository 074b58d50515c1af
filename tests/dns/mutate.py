#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks what stands between an answer and a client on purpose, one mistake at a time, in a module of its
own, and runs DNS cases against it in a real Unbound: a mistake that they do not notice is a failure. The
unchanged module must pass.

usage: mutate.py --build DIR --cc "COMPILER FLAGS" --link "FLAGS" --objects "A.o B.o ..." [PART OF A NAME...]
Each mutation stands in `mutations` beside this file, as in tests/mutate; the first line after its name lists
the file and the cases to ask."""

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
        self.name, head, rest = text.split("\n", 2)
        self.file, *self.cases = head.split()
        m = re.fullmatch(r"--- from\n(.*)--- to\n(.*)", rest.rstrip("\n") + "\n", re.S)
        self.old, self.new = m.group(1), m.group(2)


def read_mutations():
    with open(os.path.join(HERE, "mutations"), encoding="utf-8") as f:
        return [Mutation(part) for part in f.read().split("\n=== ")[1:]]


def build(args, work, mutation):
    """The module with one source changed; returns its path."""
    with open(os.path.join(ROOT, mutation.file), encoding="utf-8") as f:
        source = f.read()
    if source.count(mutation.old) != 1:
        raise ValueError("its text stands %d times in %s, not once" % (source.count(mutation.old), mutation.file))
    box = os.path.join(work, re.sub(r"[^a-z0-9]+", "-", mutation.name.lower()))
    os.makedirs(box)
    path = os.path.join(box, os.path.basename(mutation.file))
    with open(path, "w", encoding="utf-8") as f:
        f.write(source.replace(mutation.old, mutation.new))
    mutant, module = os.path.join(box, "mutant.o"), os.path.join(box, "cx_unbound.so")
    subprocess.run(shlex.split(args.cc) + ["-w", "-I", ROOT, "-c", "-o", mutant, path], check=True, timeout=120)
    original = mutation.file[:-2] + ".o"
    objects = args.objects.split()
    if sum(o.endswith("/obj/" + original) for o in objects) != 1:
        raise ValueError(original + " is not in the module")
    objects = [mutant if o.endswith("/obj/" + original) else o for o in objects]
    subprocess.run(["gcc", "-shared", "-o", module, *objects, *shlex.split(args.link)], check=True, timeout=120)
    return module


def ask(args, module, cases):
    """True if the cases pass; and how many did not."""
    r = subprocess.run([os.path.join(HERE, "run.py"), "--setups", "veto", "--module", module, *cases],
                       capture_output=True, text=True, check=False, timeout=300,
                       env=dict(os.environ, BUILD=args.build))
    return r.returncode == 0, re.findall(r"^FAIL (\S+), veto", r.stdout, re.M), r.stdout


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for option in ("--build", "--cc", "--link", "--objects"):
        p.add_argument(option, required=True)
    p.add_argument("part", nargs="*")
    args = p.parse_args()
    args.build = os.path.abspath(args.build)
    os.chdir(ROOT)
    work = os.path.join(args.build, "dns-mutate")
    shutil.rmtree(work, ignore_errors=True)
    chosen = [m for m in read_mutations() if not args.part or any(x in m.name for x in args.part)]
    passed = failed = 0
    good, _, said = ask(args, args.build + "/cx_unbound.so", sorted({c for m in chosen for c in m.cases}))
    if not good:
        print("the unchanged module does not pass:\n" + said[-3000:])
        print("0 passed, 1 failed")
        return 1
    for m in chosen:
        try:
            survived, by, _ = ask(args, build(args, work, m), m.cases)
            caught = not survived and bool(by)
            note = "by " + ", ".join(by)
        except (ValueError, OSError, subprocess.SubprocessError) as e:
            caught, note = False, str(e)
        passed += caught
        failed += not caught
        print("%s %s (%s)" % ("caught  " if caught else "SURVIVED", m.name, note if caught or note != "by " else
                              m.file), flush=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
