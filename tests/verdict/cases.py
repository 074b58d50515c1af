# SPDX-License-Identifier: Apache-2.0
"""Reads the verdict cases, compiles their policies, and says which layers can ask what. Decides nothing."""

import os
import re
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CLOCK = "2026-11-21T12:00:00Z"
VERDICTS = ("allow", "deny", "observe", "next-tls", "next-http", "next-raw")


class Question:
    def __init__(self, case, line):
        self.case = case
        self.line = line
        ask, _, want = line.partition("=>")
        words = ask.split()
        self.source, self.target = words[0], words[1]
        self.method = self.resolved = self.upgrade = None
        self.ech = False
        i = 2
        while i < len(words):
            if words[i] == "--method":
                i += 1
                self.method = words[i]
            elif words[i].startswith("resolved="):
                self.resolved = [a for a in words[i][9:].split(",") if a]
            elif words[i].startswith("upgrade="):
                self.upgrade = words[i][8:]
            elif words[i] == "ech":
                self.ech = True
            else:
                raise ValueError(f"{case.name}: {line}: what is {words[i]}?")
            i += 1
        want = want.split()
        self.verdict, self.reason = want[0], want[1]
        self.entry = want[2] if len(want) > 2 else None
        if self.verdict not in VERDICTS or len(want) > 3:
            raise ValueError(f"{case.name}: {line}")

    @property
    def kind(self):
        return re.match(r"[a-z]+", self.target).group()


class Case:
    def __init__(self, path):
        self.name = os.path.basename(path)[: -len(".case")]
        self.clock = self.locals = self.compile = None
        self.files = {}
        self.questions = []
        section = None
        asked = False
        for line in open(path, encoding="utf-8"):
            if line.startswith("--- "):
                section = line[4:].strip()
                asked |= section == "questions"
                if section != "questions":
                    self.files[section] = ""
            elif section is None:
                key, colon, value = line.partition(":")
                if colon and key in ("clock", "locals", "compile"):
                    setattr(self, key, value.strip())
                elif line.strip() and not line.startswith("#"):
                    raise ValueError(f"{self.name}: {line}")
            elif section != "questions":
                self.files[section] += line
            elif line.strip() and not line.startswith("#"):
                self.questions.append(line.strip())
        if not asked or not self.questions:
            raise ValueError(f"{self.name}: no questions")

    @property
    def has_policy(self):
        return "policy.yaml" in self.files

    def expand(self, hosts):
        """Puts hosts of presets for their macros; hosts(name) gives them."""

        def host(m):
            return hosts(m.group(1))[int(m.group(2))]

        def fill(text):
            return re.sub(r"@\{([a-z-]+):(\d+)\}", host, text)

        self.files = {name: fill(text) for name, text in self.files.items()}
        self.questions = [Question(self, fill(q)) for q in self.questions]


def preset_hosts(build):
    """A function that gives the hosts of a preset, in the order in which the compiler prints them."""
    cache = {}

    def hosts(name):
        if name not in cache:
            out = subprocess.run([f"{build}/cx-policyc", "--preset", name], check=True,
                                 stdout=subprocess.PIPE, universal_newlines=True, timeout=20).stdout
            cache[name] = parse_preset(out)
        return cache[name]

    return hosts


def parse_preset(text):
    """`cx-policyc --preset` prints HOST, what it lets out, and why, apart by tabs."""
    return [line.split("\t")[0] for line in text.splitlines() if line]


def load(only=None):
    cases = []
    for name in sorted(os.listdir(HERE)):
        if name.endswith(".case") and (not only or any(o in name for o in only)):
            cases.append(Case(os.path.join(HERE, name)))
    return cases


def prepare(case, compiler, work):
    """Compiles the case's policy to WORK/NAME.bin; returns an error text or None."""
    box = os.path.join(work, case.name)
    shutil.rmtree(box, ignore_errors=True)
    os.makedirs(box, mode=0o755)
    for name, text in case.files.items():
        path = os.path.join(box, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    write_ask(case, os.path.join(work, case.name + ".ask"))
    binary = os.path.join(work, case.name + ".bin")
    if os.path.exists(binary):
        os.unlink(binary)
    if not case.has_policy:
        return None
    cmd = [compiler, "policy.yaml", "-o", binary, "--now", case.clock or CLOCK]
    cmd += case.compile.split() if case.compile else []
    r = subprocess.run(cmd, cwd=box, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       universal_newlines=True, timeout=20)
    return None if r.returncode == 0 else r.stdout


def write_ask(case, path):
    """The questions in a form that needs no parser to speak of; see run.c."""
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"clock\t{case.clock or CLOCK}\n")
        for a in (case.locals or "").split(","):
            if a.strip():
                f.write(f"local\t{a.strip()}\n")
        for q in case.questions:
            resolved = "-" if q.resolved is None else ",".join(q.resolved)
            f.write("\t".join(["ask", q.source, q.target, q.method or "-", resolved, q.upgrade or "-",
                               "ech" if q.ech else "-", q.verdict, q.reason, q.entry or "-"]) + "\n")
