#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles random policies, asks verdict() and the oracle the same questions, and compares the answers.
A disagreement is cut down to the smallest policy that still shows it. Each policy's dump must mean the same.

usage: run.py [--build DIR] [--ask PROGRAM] [--count N] [--seed N] [--per-policy N] [--stop N]
"""

import argparse
import collections
import copy
import datetime
import json
import os
import random
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import generate  # noqa: E402
import oracle  # noqa: E402

# Findings about a policy as a whole that a random one may well deserve. Anything else is a defect here.
DESERVED = {"inherit", "public-suffix", "environment", "deny-lifted"}


class Tool:
    def __init__(self, args):
        self.compiler = os.path.abspath(os.path.join(args.build, "cx-policyc"))
        self.asker = os.path.abspath(args.ask or os.path.join(args.build, "oracle", "ask"))
        self.box = os.path.abspath(os.path.join(args.build, "oracle", "box-%d" % os.getpid()))
        self.hosts = {}

    def preset_hosts(self, name):
        if name not in self.hosts:
            out = subprocess.run([self.compiler, "--preset", name], check=True, stdout=subprocess.PIPE,
                                 universal_newlines=True, timeout=20).stdout
            self.hosts[name] = [line.split("\t")[0] for line in out.splitlines()]
        return self.hosts[name]

    def compile(self, text, lists):
        """The codes of the errors; none: there is a policy.bin."""
        shutil.rmtree(self.box, ignore_errors=True)
        os.makedirs(os.path.join(self.box, "lists"))
        for name, content in dict(lists, **{"policy.yaml": text}).items():
            with open(os.path.join(self.box, name), "w", encoding="utf-8") as f:
                f.write(content)
        r = subprocess.run([self.compiler, "policy.yaml", "-o", "policy.bin", "--now", "2026-11-21",
                            "--allow-unenforced", "--format", "json"], cwd=self.box, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
        if r.returncode == 0:
            return set()
        if r.returncode != 1:
            raise SystemExit("cx-policyc ended with %d:\n%s\n%s" % (r.returncode, r.stdout, text))
        self.errors = [d for d in findings(r.stdout) if d["severity"] == "error"]
        return {d["code"] for d in self.errors}

    def means_the_same_dumped(self):
        """Is what --dump prints, compiled, a policy of the same meaning digest?"""
        dump = subprocess.run([self.compiler, "--dump", "policy.bin"], cwd=self.box, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        again = os.path.join(self.box, "again")
        os.mkdir(again)
        with open(os.path.join(again, "policy.yaml"), "wb") as f:
            f.write(dump.stdout)
        subprocess.run([self.compiler, "policy.yaml", "-o", "policy.bin", "--now", "2026-11-21",
                        "--allow-unenforced"], cwd=again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=60)
        return dump.returncode == 0 and meaning(self.box) == meaning(again)

    def ask(self, clock, local, questions):
        lines = ["policy\t%s/policy.bin" % self.box, "clock\t%d" % clock, "locals\t" + (",".join(local) or "-")]
        lines += [line_of(q) for q in questions]
        r = subprocess.run([self.asker], input="\n".join(lines) + "\n", stdout=subprocess.PIPE,
                           universal_newlines=True, timeout=120)
        answers = [a.split("\t") for a in r.stdout.splitlines()]
        if r.returncode != 0 or len(answers) != len(questions):
            raise SystemExit("%s ended with %d after %d answers" % (self.asker, r.returncode, len(answers)))
        return answers


def meaning(box):
    """The meaning digest in the header of policy.bin, None if there is no such file."""
    try:
        with open(os.path.join(box, "policy.bin"), "rb") as f:
            return f.read(112)[80:]
    except FileNotFoundError:
        return None


def findings(text):
    found = json.loads(text)
    return found["diagnostics"] if isinstance(found, dict) else found


def target_of(q):
    if q.layer == "dns":
        return "dns:%s/%s" % (q.host, q.qtype)
    if q.layer == "tls":
        return "https://%s:%d" % (q.host, q.port)
    if q.layer == "http":
        return "http://%s:%d%s" % (q.host, q.port, q.path)
    host = q.host
    if host is None:
        host = "[%s]" % q.dst if ":" in q.dst else q.dst
    return "%s:%s:%d" % (q.layer, host, q.port)


def line_of(q):
    flags = ",".join(["ech"] * q.ech + [q.flaw] * bool(q.flaw)) or "-"
    resolved = "-" if q.resolved is None else ",".join(q.resolved) or "="
    return "\t".join(["ask", q.src, target_of(q), q.method or "-", q.upgrade or "-", flags, resolved])


def difference(want, got):
    """What is wrong with an answer of the C, or None."""
    action, next_, reason, addr, _, file, line, pattern = got
    if (action, reason) != (want.action, want.reason):
        return "%s %s" % (action, reason)
    if want.next is not None and next_ != want.next:
        return "next %s" % next_
    if want.action.endswith("allow") and int(addr) != want.addr:
        return "address %s" % addr
    if want.entries is None:
        return None
    may = want.entries if want.one_of else want.entries[:1]
    if not may:
        return None if pattern == "-" or want.reason != "allowed" else "entry %s" % pattern
    for entry, target in may:
        if entry.pattern == pattern and (entry.preset or (target.file, str(target.line)) == (file, line)):
            return None
    return "entry %s at %s:%s" % (pattern, file, line)


class Trial:
    """One policy, its clock, and what is asked."""

    def __init__(self, tool, doc, lists, clock, local):
        self.tool, self.doc, self.lists, self.clock, self.local = tool, doc, lists, clock, local
        self.policy = None

    def compile(self):
        text = generate.render(self.doc)
        codes = self.tool.compile(text, self.lists)
        if not codes:
            self.policy = oracle.Policy(text, self.lists.__getitem__, self.tool.preset_hosts)
        return codes

    def differences(self, questions):
        """[(question, expected, got, what is wrong)]"""
        found = []
        for q, got in zip(questions, self.tool.ask(self.clock, self.local, questions)):
            want = self.policy.ask(q, self.clock, self.local)
            wrong = difference(want, got)
            self.tally[(want.action, want.reason)] += 1
            if wrong:
                found.append((q, want, got, wrong))
        return found

    tally = collections.Counter()


def paths_of(value, at=()):
    """All that could be left out of a document, the largest first: (where, keys)."""
    keys = list(value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ())
    size = len(keys)
    while size > 1:
        size = (size + 1) // 2
        for i in range(0, len(keys), size):
            yield at, keys[i:i + size]
    if len(keys) == 1:
        yield at, keys
    for k in keys:
        yield from paths_of(value[k], at + (k,))


def without(doc, path, keys):
    doc = copy.deepcopy(doc)
    at = doc
    for k in path:
        at = at[k]
    for k in reversed(keys):
        del at[k]
    return doc


def shrink(trial, q):
    """The smallest trial found that still disagrees about q."""

    def still(doc):
        try:
            t = Trial(trial.tool, doc, trial.lists, trial.clock, trial.local)
            return t if not t.compile() and t.differences([q]) else None
        except (KeyError, IndexError, ValueError, SystemExit):
            return None  # no policy any more

    left = 400
    again = True
    while again and left:
        again = False
        for path, keys in list(paths_of(trial.doc)):
            if left == 0:
                break
            left -= 1
            smaller = still(without(trial.doc, path, keys))
            if smaller:
                trial, again = smaller, True
                break
    return trial


def describe(trial, q, want, got, wrong):
    entry = ""
    if want.entries:
        entry = " %s:%d" % (want.entries[0][0].pattern, want.entries[0][1].line)
    print("-- disagreement: %s, expected %s %s %s%s" % (wrong, want.action, want.next or "-", want.reason, entry))
    print("   %s" % line_of(q).replace("\t", " "))
    when = datetime.datetime.fromtimestamp(trial.clock, datetime.timezone.utc)
    print("   clock %s, gateway %s" % (when.strftime("%Y-%m-%dT%H:%M:%SZ"), ",".join(trial.local) or "-"))
    print("".join("   | %s\n" % line for line in generate.render(trial.doc).splitlines()), end="")
    for name, text in trial.lists.items():
        if '"%s"' % name in json.dumps(trial.doc):
            print("".join("   %s| %s\n" % (name, line) for line in text.splitlines()), end="")


def report(trial, q):
    small = shrink(trial, q)
    if small.policy is None:
        small.compile()
    small.compile()
    found = small.differences([q])
    if found:
        describe(small, *found[0])


def one_policy(tool, seed, per_policy):
    rng = random.Random(seed)
    doc, lists = generate.PolicyMaker(rng, tool.preset_hosts).make()
    local = rng.sample(["192.0.2.9", "198.51.100.1", "10.20.30.40", "2001:db8::1"], rng.randint(0, 2))
    trial = Trial(tool, doc, lists, rng.choice(generate.CLOCKS), local)
    codes = trial.compile()
    if codes:
        return trial, codes, []
    maker = generate.QuestionMaker(rng, trial.policy)
    return trial, codes, [maker.make() for _ in range(per_policy)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--ask", help="the program that asks; left out: BUILD/oracle/ask")
    ap.add_argument("--count", type=int, default=60000, help="of questions")
    ap.add_argument("--per-policy", type=int, default=250)
    ap.add_argument("--seed", type=int, default=20261121)
    ap.add_argument("--stop", type=int, default=5, help="give up after so many policies that disagree")
    ap.add_argument("--tally", action="store_true", help="say how often each answer was expected")
    ap.add_argument("--quiet", action="store_true", help="do not cut down what disagrees")
    args = ap.parse_args()
    tool = Tool(args)
    asked = agreed = policies = refused = bad = 0
    started = time.time()
    seed = args.seed
    while asked < args.count and bad < args.stop:
        trial, codes, questions = one_policy(tool, seed, args.per_policy)
        seed += 1
        if codes - DESERVED:
            bad += 1
            print("-- seed %d: does not compile:" % (seed - 1))
            print("".join("   %s\n" % e for e in tool.errors if e["code"] not in DESERVED), end="")
        if codes:
            refused += 1
            continue
        policies += 1
        found = trial.differences(questions)
        if not tool.means_the_same_dumped():
            bad += 1
            print("-- seed %d: its dump means something else\n%s" % (seed - 1, generate.render(trial.doc)))
        asked += len(questions)
        agreed += len(questions) - len(found)
        if found:
            bad += 1
            if not args.quiet:
                print("seed %d: %d disagreements" % (seed - 1, len(found)))
                report(trial, found[0][0])
    shutil.rmtree(tool.box, ignore_errors=True)
    if args.tally:
        for (action, reason), n in sorted(Trial.tally.items(), key=lambda x: -x[1]):
            print("%8d %s %s" % (n, action, reason))
    few = refused > policies
    if few:
        print("more policies were refused (%d) than asked (%d)" % (refused, policies))
    print("oracle: %d policies (%d more refused), %d questions from seed %d, %.0f s"
          % (policies, refused, asked, args.seed, time.time() - started))
    print("%d passed, %d failed" % (agreed, asked - agreed + (1 if few or bad and asked == agreed else 0)))
    return 1 if bad or few or not agreed else 0


if __name__ == "__main__":
    sys.exit(main())
