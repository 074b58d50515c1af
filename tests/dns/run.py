#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Asks the cases of this directory through every set-up; each must give the answer that stands in the
case, or the one that the table of differences has for it. Prints a line per case and set-up and ends
with "N passed, N failed". Sends to loopback only and ends what it started.

usage: run.py [--setups NAME,...] [--module FILE] [--jobs N] [--keep] [PART OF A CASE'S NAME...]"""

import argparse
import concurrent.futures
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "integration", "unbound"))

from authority import head, make_authorities  # noqa: E402
from case import BadCase, expand_policy, read_cases, read_differences  # noqa: E402
from lab import POLICYC, Failure, Lab, check, write  # noqa: E402
from setups import SETUPS  # noqa: E402
from steps import Runner  # noqa: E402


class Score:
    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = 0

    def note(self, name, seconds, wrong, note=""):
        with self.lock:
            self.passed += not wrong
            self.failed += bool(wrong)
            print("%s %s (%.1f s)%s" % ("FAIL" if wrong else "ok  ", name, seconds, note))
            for w in wrong:
                print("     " + w[:1500])
            sys.stdout.flush()


def run_steps(runner, setup, differences):
    """What came out otherwise than it stands in the case or in the table."""
    wrong = []
    for step in runner.case.steps:
        want = step.want
        for d in differences:
            if d.case == runner.case.name and setup.name in d.setups and d.step == step.text.split("=>")[0].strip():
                want = d.want
                d.used.add(setup.name)
        try:
            why = runner.do(step, want)
        except (Failure, OSError, AttributeError, KeyError) as e:
            why = "%s: %s" % (type(e).__name__, e)
        if why:
            wrong.append("%s.case:%d: %s\n       expected %s, got %s" %
                         (runner.case.name, step.number, step.text, want or "no trouble", why))
    return wrong


def emit_zones(lab, source):
    """The forward-zones of a policy with resolvers, as the compiler writes them for Unbound."""
    r = subprocess.run([POLICYC, "--emit", "unbound-forward", source], capture_output=True, text=True,
                       check=True)
    return "include: \"%s\"\n" % write(lab.new("zones.conf"), r.stdout)


def rpz_clauses(lab, case):
    clause = "rpz:\n  name: \"%s\"\n  zonefile: \"%s\"\n"
    return "".join(clause % (name, write(lab.new("rpz"), head(name) + text)) for name, text in case.rpz.items())


def run_setup(lab, case, setup, authorities, anchors, differences, score):
    begun = time.monotonic()
    ports = {name: a.port for name, a in authorities.items()}
    started = None
    for a in authorities.values():
        a.forget()
    try:
        policies = {name: lab.policy(expand_policy(text, ports)) for name, text in case.policies.items()}
        path = lab.new("policy.bin")
        if not case.bare:
            shutil.copyfile(policies["policy.yaml"], path)
        more = rpz_clauses(lab, case)
        if "resolvers:" in case.policies["policy.yaml"]:
            more += emit_zones(lab, write(lab.new("policy.yaml"),
                                         expand_policy(case.policies["policy.yaml"], ports)))
        started = setup.start(lab, case, path, authorities, anchors, more)
        runner = Runner(lab, case, started, authorities, policies)
        wrong = run_steps(runner, setup, differences)
        started.check_alive()
        note = ", %d answers" % runner.answers
    except (Failure, OSError, subprocess.SubprocessError) as e:
        wrong, note = ["%s: %s" % (type(e).__name__, e)], ""
    finally:
        if started:
            started.stop()
    score.note("%s, %s" % (case.name, setup.name), time.monotonic() - begun, wrong, note)


def run_case(lab, case, setups, differences, score):
    try:
        authorities, anchors = make_authorities(lab, case)
    except (Failure, OSError, subprocess.SubprocessError) as e:
        score.note(case.name, 0, ["%s: %s" % (type(e).__name__, e)])
        return
    for setup in setups:
        run_setup(lab, case, setup, authorities, anchors, differences, score)
    for a in authorities.values():
        a.close()


def check_differences(differences, cases, setups, score):
    """Every line of the table must be about a step that there is."""
    known = {(c.name, s.text.split("=>")[0].strip()) for c in cases for s in c.steps}
    wrong = ["%s | %s: no such step" % (d.case, d.step) for d in differences
             if d.case in {c.name for c in cases} and (d.case, d.step) not in known]
    wrong += ["%s: no such set-up" % n for d in differences for n in d.setups if n not in SETUPS]
    score.note("differences: each belongs to a step", 0, wrong)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--setups", default=",".join(SETUPS))
    p.add_argument("--jobs", type=int, default=3)
    p.add_argument("--module", help="in the place of the one of the set-up veto")
    p.add_argument("--keep", action="store_true")
    p.add_argument("only", nargs="*")
    args = p.parse_args()
    score = Score()
    lab = Lab()
    try:
        setups = [SETUPS[n] for n in args.setups.split(",")]
        if args.module:
            SETUPS["veto"].module = os.path.abspath(args.module)
        cases, differences = read_cases(args.only), read_differences()
        check(cases, "no such case")
        cases.sort(key=lambda c: -c.waiting())
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            done = [pool.submit(run_case, lab, c, setups, differences, score) for c in cases]
        for d in done:
            d.result()
        check_differences(differences, cases, setups, score)
    except (BadCase, Failure, KeyError) as e:
        score.note("setting up", 0, ["%s: %s" % (type(e).__name__, e)])
    finally:
        if args.keep:
            for process in lab.processes:
                process.stop()
            print("kept: " + lab.dir)
        else:
            lab.close()
    print("%d passed, %d failed" % (score.passed, score.failed), flush=True)
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
