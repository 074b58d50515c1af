# SPDX-License-Identifier: Apache-2.0
"""Reads the files NNN-what.case and the table of differences (README.md has their form). Every line that
is not understood is an error."""

import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS = ("server", "modules", "proxyv2", "environment", "starts")


class BadCase(Exception):
    pass


def repeat(line):
    """"; each of FIRST-LAST: LINE" with a number for each $."""
    if not line.startswith("; each of "):
        return [line]
    span, _, text = line[10:].partition(": ")
    first, last = map(int, span.split("-"))
    return [text.replace("$", str(i)) for i in range(first, last + 1)]


class Zone:
    def __init__(self, words):
        self.name = words[0]
        self.signed = "signed" in words
        self.hidden = "hidden" in words  # no stub-zone leads to it: the policy's resolvers do
        self.at = next((w[3:] for w in words if w.startswith("at=")), "public")
        self.text = ""
        self.forged = []
        unknown = [w for w in words[1:] if w not in ("signed", "hidden") and not w.startswith("at=")]
        if unknown:
            raise BadCase("unknown: %s" % unknown)


class Step:
    def __init__(self, number, text):
        self.number = number  # of its line
        self.text = text
        self.verb, _, rest = text.partition(" ")
        self.what, _, self.want = (s.strip() for s in rest.partition("=>"))


class Case:
    def __init__(self, path):
        self.name = os.path.basename(path)[:-5]
        self.title = ""
        self.server, self.env, self.modules = [], {}, None
        self.proxy = self.bare = self.audit = False
        self.zones, self.rpz, self.turns, self.policies = [], {}, {}, {}
        self.steps, self.races = [], []
        section = None
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                line = line.rstrip("\n")
                try:
                    if line.startswith("--- "):
                        section = self.open_section(line[4:].split())
                    elif section:
                        section(number, line)
                    else:
                        self.read_head(line)
                except (BadCase, ValueError, IndexError) as e:
                    raise BadCase("%s:%d: %s" % (path, number, e)) from None
        if not (self.title and self.steps and self.policies):
            raise BadCase(path + ": a title, a policy and steps are needed")

    def waiting(self):
        """Seconds that its steps wait for: the slowest begins first."""
        return sum(float(s.what.split()[0]) for s in self.steps if s.verb == "wait")

    def read_head(self, line):
        if line.startswith("# "):
            self.title = (self.title + " " + line[2:]).strip()
            return
        if not line:
            return
        key, colon, value = line.partition(": ")
        if not colon or key not in KEYS:
            raise BadCase("not understood: " + line)
        if key == "server":
            self.server.append(value)
        elif key == "modules":
            self.modules = value
        elif key == "proxyv2":
            self.proxy = value == "yes"
        elif key == "starts":
            self.bare = value == "without a policy"
        else:
            name, _, v = value.partition("=")
            self.env[name] = v

    def open_section(self, words):
        kind = words[0]
        if kind == "zone":
            self.zones.append(Zone(words[1:]))
            return self.read_zone
        if kind == "turns":
            turns = self.turns.setdefault(words[1], [])
            return lambda _, line: line and turns.append([s.strip() for s in line.split(" + ")])
        if kind == "policy.yaml" or re.fullmatch(r"policy-\w+\.yaml", kind):
            self.policies[kind] = ""
            return lambda _, line: self.policies.__setitem__(kind, self.policies[kind] + line + "\n")
        if kind == "rpz":
            self.rpz[words[1]] = ""
            return lambda _, line: self.rpz.__setitem__(words[1], self.rpz[words[1]] + line + "\n")
        if kind == "race":
            return lambda _, line: line and self.races.extend(repeat(line))
        if kind == "steps":
            return lambda n, line: line and not line.startswith("#") and self.steps.append(Step(n, line))
        raise BadCase("unknown section: " + kind)

    def read_zone(self, _, line):
        zone = self.zones[-1]
        if line.startswith("; forged after signing: "):
            old, new = line.split(": ", 1)[1].split(" -> ")
            zone.forged.append((old, new))
        else:
            zone.text += "\n".join(repeat(line)) + "\n"


def expand_policy(text, ports):
    """What every policy of a case has unless it says otherwise."""
    for name, port in ports.items():
        text = text.replace("@{%s}" % name, "127.0.0.1@%d" % port)
    lines = ["version: 1", "presets_version: \"2026.11\""]
    if not re.search(r"^network:", text, re.M):
        lines.append("network: {presets: [], allowlist: []}")
    if not re.search(r"^sources:", text, re.M):
        lines.append("sources: {127.0.0.11/32: alpha, 127.0.0.12/32: beta, \"::1/128\": alpha}")
    if not re.search(r"^resolver_clients:", text, re.M):
        lines.append("resolver_clients: [127.0.0.13/32]")
    return "\n".join(lines) + "\n" + text


class Difference:
    def __init__(self, line):
        parts = [s.strip() for s in line.split("|")]
        if len(parts) != 5 or not all(parts):
            raise BadCase("not CASE | SET-UPS | STEP | ANSWER | WHY: " + line)
        self.case, setups, self.step, self.want, self.why = parts
        self.setups = setups.split()
        self.used = set()


def read_differences():
    out = []
    with open(os.path.join(HERE, "differences"), encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                out.append(Difference(line.rstrip("\n")))
    return out


def read_cases(only=()):
    names = sorted(f for f in os.listdir(HERE) if f.endswith(".case"))
    return [Case(os.path.join(HERE, f)) for f in names if not only or any(o in f for o in only)]
