#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B1 and B2: what a look-up costs, and what a name takes in the file. Prints one table, in which each row
names its peer and its data; figures are ratios of programs run in turn in one process, medians of at least
five pairs with their spread, or instructions counted by callgrind. Nothing is asserted.

usage: run.py [--build DIR] [--sizes 10,10000,1000000] [--rounds 7]
"""

import argparse
import os
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import names  # noqa: E402

HEADER, SECTION = 256, struct.Struct("<IIQQII")
SECTIONS = {"gate": (1,), "lines": (2,), "names": (3,), "provenance of list lines": (33,)}
QUESTIONS = 200000


class Table:
    """Rows of ratios. What a command was stands below, once."""

    def __init__(self):
        self.rows = []

    def ratio(self, what, ours, peer, data, pairs, aim=""):
        r = sorted(pairs)
        self.rows.append((what, f"{ours} / {peer}", data, f"{statistics.median(r):.2f}",
                          f"{r[0]:.2f}..{r[-1]:.2f}", aim))

    def value(self, what, whose, data, value, aim=""):
        self.rows.append((what, whose, data, value, "", aim))

    def show(self, commands):
        head = ("what", "ours / peer", "data", "figure", "spread", "aim")
        widths = [max(len(r[i]) for r in [head, *self.rows]) for i in range(len(head))]
        for r in [head, tuple("-" * w for w in widths), *self.rows]:
            print("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip())
        print()
        for c in commands:
            print(c)


class Bench:
    def __init__(self, args, work):
        self.args, self.work, self.table, self.commands = args, work, Table(), []
        self.lookup = f"{args.build}/bench/lookup"

    def path(self, name):
        return os.path.join(self.work, name)

    def write(self, name, lines):
        with open(self.path(name), "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        return self.path(name)

    def compile(self, name, text):
        source = self.write(name + ".yaml", text.splitlines())
        out = self.path(name + ".bin")
        subprocess.run([f"{self.args.build}/cx-policyc", source, "-o", out, "--now", "2026-11-21"],
                       check=True, stderr=subprocess.DEVNULL, timeout=600)
        return out

    def run(self, policy, questions, who, ops, peers=None, profiles=1):
        """{competitor: (share found, [ns per round])}"""
        cmd = [self.lookup, policy, questions, ",".join(who), str(ops), str(self.args.rounds)]
        cmd += [peers, self.work] if peers else ["-", "-"]
        cmd += [str(profiles)]
        out = subprocess.run(cmd, check=True, stdout=subprocess.PIPE, universal_newlines=True,
                             timeout=900).stdout
        found = {}
        for line in out.splitlines():
            words = line.split("\t")
            found[words[0]] = (float(words[1]), [float(w) for w in words[2:]])
        return found

    def instructions(self, policy, questions, function, who, profiles=1):
        """Instructions a call of the function, by callgrind."""
        ops = 20000
        out = self.path("callgrind.out")
        cmd = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={function}",
               self.lookup, policy, questions, who, str(ops), "1", "-", "-", str(profiles)]
        r = subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                           universal_newlines=True, timeout=900)
        total = int(re.search(r"Collected : (\d+)", r.stderr).group(1))
        return total / (ops + ops // 4 + 1)  # the warm-up counts, too


def ratios(a, b):
    return [x / y for x, y in zip(a[1], b[1])]


def questions_for(listed, seed=9):
    """The kinds of questions, as lists of names."""
    rng = random.Random(seed)
    n = min(QUESTIONS, max(2000, len(listed)))
    hit = [rng.choice(listed) for _ in range(n)]
    miss = names.listed(n, seed=seed + 100)
    below = [names.label(rng, 4, 12) + "." + rng.choice(listed) for _ in range(n)]
    deep = [rng.choice(listed) for _ in range(min(n, 20000))]
    deep = ["a." * min(118, (253 - len(d)) // 2) + d for d in deep]  # 121 labels, or as many as fit
    half = [rng.choice(pair) for pair in zip(hit, miss)]
    return {"hit": hit, "random miss": miss, "50/50": half, "label below an entry": below,
            "121 labels below an entry": deep}


def human(n):
    return {10: "10", 10000: "10k", 1000000: "1M", 10000000: "10M"}.get(n, str(n))


def size_rows(b, policy, n):
    with open(policy, "rb") as f:
        head = f.read(HEADER)
        count = struct.unpack_from("<I", head, 64)[0]
        table = [SECTION.unpack(f.read(SECTION.size)) for _ in range(count)]
    sizes = {s[0]: s[3] for s in table}
    total = 0
    data = f"{human(n)} names from a list"
    for what, ids in SECTIONS.items():
        octets = sum(sizes.get(i, 0) for i in ids)
        if what != "provenance of list lines":
            total += octets
        b.table.value("B2 octets a name: " + what, "-", data, f"{octets / n:.2f}")
    b.table.value("B2 octets a name: gate+lines+names", "-", data, f"{total / n:.2f}",
                  "<=32" if n == 1000000 else "")


def lookup_rows(b, n):
    listed = names.listed(n)
    listing = b.write(f"names-{n}.txt", listed)
    policy = b.compile(f"names-{n}", "version: 1\nnetwork:\n  presets: []\n  allowlist: "
                       f"[{{list: names-{n}.txt}}]\nsources: {{10.0.0.0/8: default}}\n")
    if n >= 10000:
        size_rows(b, policy, n)
    data = f"{human(n)} names, "
    ops = 400000
    medians = {}
    for kind, asked in questions_for(listed).items():
        q = b.write("questions.txt", asked)
        deep = kind.startswith("121")
        got = b.run(policy, q, ["policy_find", "tinycdb", "lmdb", "chase", "wire+policy_find"],
                    ops // 20 if deep else ops, listing)
        ours = got["policy_find"]
        medians[kind] = (ours, q)
        big = n == 1000000
        aims = {"hit": ("<=0.67", "<=0.25", "<=2.0"),
                "random miss": ("<=0.25", "<=0.25", "<=0.5")}.get(kind, ("", "", "")) if big else ("", "", "")
        for peer, aim in zip(("tinycdb", "lmdb"), aims):
            b.table.ratio(f"B1 {kind}", "policy_find", peer, data + f"found {ours[0]:.0%}",
                          ratios(ours, got[peer]), aim)
        if kind in ("hit", "random miss"):
            b.table.ratio(f"B1 {kind}", "policy_find", "pointer chase (L)", data + "memory of the file's size",
                          ratios(ours, got["chase"]), aims[2])
        b.table.ratio(f"B1 {kind}, case-mixed wire", "name_from_wire+policy_find", "policy_find", data + "0x20",
                      ratios(got["wire+policy_find"], ours))
        if kind in ("hit", "random miss") and n >= 10000:
            shutil.copy(q, b.path("counted.txt"))
            count = b.instructions(policy, b.path("counted.txt"), "policy_find", "policy_find")
            b.table.value(f"B1 {kind}, instructions", "policy_find", data + "callgrind", f"{count:.0f}",
                          ("<=510" if kind == "hit" else "<=300") if big else "")
        if deep:
            pairs = [x / y for x, y in zip(ours[1], medians["hit"][0][1])]
            b.table.ratio("B1 121 labels against a hit", "policy_find", "policy_find", data.rstrip(", "),
                          pairs, "<=3" if big else "")
    return policy


def verdict_rows(b, n=10000, profiles=50000):
    """The whole verdict and the look-up apart, with one profile and with many."""
    listed = names.listed(n)
    b.write("shared.txt", listed)
    head = "version: 1\nnetwork:\n  presets: []\n  allowlist: [{list: shared.txt}]\n"
    one = b.compile("one-profile", head + "sources: {10.0.0.0/8: default}\n")
    lines = [head + "profiles:"]
    own = names.listed(3 * profiles, seed=77)
    for i in range(profiles):
        three = ", ".join(own[3 * i:3 * i + 3])
        lines.append(f"  p{i}: {{extends: [default], allowlist: [{three}]}}")
    lines.append("sources:")
    for i in range(profiles):
        lines.append(f"  10.{i >> 16}.{i >> 8 & 255}.{i & 255}/32: p{i}")
    many = b.compile("many-profiles", "\n".join(lines) + "\n")
    q = b.write("questions.txt", questions_for(listed)["hit"])
    solo = b.run(one, q, ["policy_find", "verdict"], 400000)
    crowd = b.run(many, q, ["policy_find", "verdict"], 400000, profiles=profiles)
    data = f"{human(n)} names, hit"
    b.table.ratio("B1 verdict, 1 profile", "verdict", "policy_find", data, ratios(solo["verdict"],
                                                                                 solo["policy_find"]))
    b.table.ratio("B1 verdict, 50,000 profiles", "verdict", "policy_find", data + " of all, 3 names each",
                  ratios(crowd["verdict"], crowd["policy_find"]))
    b.table.ratio("B1 verdict, 50,000 against 1", "verdict", "verdict", data + ", two processes",
                  ratios(crowd["verdict"], solo["verdict"]))
    for label, policy, count in (("1 profile", one, 1), ("50,000 profiles", many, profiles)):
        got = b.instructions(policy, q, "verdict", "verdict", count)
        b.table.value(f"B1 verdict, {label}, instructions", "verdict", data + ", callgrind", f"{got:.0f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--sizes", default="10,10000,1000000")
    ap.add_argument("--rounds", type=int, default=7)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="cx-bench-") as work:
        b = Bench(args, work)
        for n in (int(s) for s in args.sizes.split(",")):
            print(f"B1, B2: {human(n)} names ...", file=sys.stderr, flush=True)
            lookup_rows(b, n)
        print("B1: verdict ...", file=sys.stderr, flush=True)
        verdict_rows(b)
        b.table.show([
            "Names: tests/bench/names.py, fixed seeds, three labels. The policy: cx-policyc, one list.",
            f"Command of a row: {args.build}/bench/lookup POLICY QUESTIONS COMPETITORS OPS {args.rounds} LIST "
            "DIR; competitors in turn in one process,",
            f"{args.rounds} rounds, each ratio within a round. Peers hold exact keys and are asked for the name, "
            "then for each name above it.",
            "Instructions: valgrind --tool=callgrind --toggle-collect=FUNCTION, 25,001 calls."])
    return 0


if __name__ == "__main__":
    sys.exit(main())
