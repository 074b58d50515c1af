#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Asks every verdict case through every layer that can be asked, and compares the answers.

usage: run.py [--build DIR] [--layers function,explain,agent,module] [CASE...]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import cases  # noqa: E402

LAYERS = ("function", "explain", "agent", "module")


class Score:
    def __init__(self, layer):
        self.layer, self.passed, self.failed, self.cases = layer, 0, 0, set()

    def result(self, q, got):
        """got: (verdict, reason, entry), each None where the layer does not tell."""
        self.cases.add(q.case.name)
        want = (q.verdict, q.reason, q.entry)
        if any(g is not None and w is not None and g != w for g, w in zip(got, want)):
            self.failed += 1
            print(f"{self.layer}: {q.case.name}: {q.line}\n    got {' '.join(str(g) for g in got)}")
        else:
            self.passed += 1

    def error(self, case, text):
        self.failed += 1
        print(f"{self.layer}: {case.name}: {text}")


def ask_function(prepared, args, score):
    files = [os.path.join(args.work, c.name + ".ask") for c in prepared]
    r = subprocess.run([f"{args.build}/verdict/run", *files], stdout=subprocess.PIPE,
                       universal_newlines=True, timeout=120)
    lines = r.stdout.splitlines()
    print("\n".join("function: " + line for line in lines[:-1]), end="\n" if lines[1:] else "")
    words = lines[-1].split() if lines else []
    if len(words) == 4 and words[1] == "passed,":
        score.passed, score.failed = int(words[0]), int(words[2])
        score.cases = {c.name for c in prepared}
    if r.returncode != 0 and not score.failed:
        score.failed = 1
        print(f"function: run ended with {r.returncode}")


def explain(q, args):
    case = q.case
    cmd = [f"{args.build}/cxctl", "explain", "-p", os.path.join(args.work, case.name + ".bin"),
           "--source", q.source, "--now", case.clock or cases.CLOCK, "--json", q.target]
    if q.method:
        cmd += ["--method", q.method]
    if q.resolved is not None:
        cmd += ["--resolved", ",".join(q.resolved)]
    r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       universal_newlines=True, timeout=20)
    if r.returncode not in (0, 1):
        return None, r.stdout.strip()
    o = json.loads(r.stdout)
    verdict = o["verdict"]
    if (verdict == "deny") != (r.returncode == 1):
        return None, f"exit {r.returncode} with {verdict}"
    if verdict == "next":
        verdict = "next-" + o["next"]
    elif verdict == "allow" and o["observed"]:
        verdict = "observe"
    return (verdict, o["reason"], o.get("entry")), None


def ask_explain(prepared, args, score):
    for case in prepared:
        if not case.has_policy or case.locals:
            continue
        for q in case.questions:
            if q.upgrade or q.ech:
                continue
            got, error = explain(q, args)
            if error is not None:
                score.error(case, f"{q.line}: {error}")
            else:
                score.result(q, got)


def askers(layers):
    found = {"function": ask_function, "explain": ask_explain}
    if "agent" in layers:
        import agent
        found["agent"] = agent.ask_agent
    if "module" in layers:
        import module
        found["module"] = module.ask_module
    return found


def prepare(only, args):
    hosts = cases.preset_hosts(args.build)
    prepared, failed = [], 0
    for case in cases.load(only):
        case.expand(hosts)
        error = cases.prepare(case, f"{os.path.abspath(args.build)}/cx-policyc", args.work)
        if error is None:
            prepared.append(case)
        else:
            failed += 1
            print(f"{case.name}: does not compile:\n{error}")
    return prepared, failed


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--layers", default=",".join(LAYERS))
    ap.add_argument("--prepare", action="store_true", help="compile the cases and ask nothing")
    ap.add_argument("case", nargs="*", help="parts of names; left out: all")
    args = ap.parse_args()
    args.work = os.path.join(os.path.abspath(args.build), "verdict", "cases")
    if not args.case:
        shutil.rmtree(args.work, ignore_errors=True)
    os.makedirs(args.work, exist_ok=True)
    layers = [x for x in args.layers.split(",") if x]
    prepared, failed = prepare(args.case, args)
    passed = 0
    if args.prepare:
        layers = []
        passed = len(prepared)
    found = askers(layers)
    for layer in layers:
        score = Score(layer)
        found[layer](prepared, args, score)
        if not score.passed and not args.case:
            score.failed += 1
            print(f"{layer}: nothing was asked")
        print(f"{layer}: {len(score.cases)} cases, {score.passed} answers as expected, {score.failed} not",
              flush=True)
        passed += score.passed
        failed += score.failed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
