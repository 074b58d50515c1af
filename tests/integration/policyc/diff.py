#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--diff: what changes between two policies, in a reviewer's words. BUILD names the build directory."""

import json
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from case import NOW, POLICYC, ROOT, Cases, Place, has, has_not, policyc

HERE = ROOT / "tests/integration/policyc"
BASE = """version: 1
network: {presets: [], allowlist: [a.example]}
sources: {10.0.0.0/8: default}
"""


def policy(entries="", deny="", network="", more="", sources="10.0.0.0/8: default"):
    return (f"version: 1\nnetwork:\n  presets: []\n  allowlist: [{entries}]\n  deny: [{deny}]\n"
            f"{network}{more}sources: {{{sources}}}\n")


def changes(place, old, new, rc=1, *args):
    """The changes between two texts as (where, change, subject, effect), and their details."""
    a, b = place.write("old.yaml", old), place.write("new.yaml", new)
    out, _ = policyc("--diff", a, b, "--format", "json", "--now", NOW, *args, rc=rc)
    parsed = json.loads(out)
    got = parsed["changes"]
    assert parsed["widened"] == sum(c["effect"] == "widened" for c in got)
    return [(c["where"], c["change"], c["subject"], c["effect"]) for c in got], \
        [c["detail"] for c in got]


def one(old, new, what, effect, subject="a.example", where="network"):
    with Place() as p:
        got, _ = changes(p, old, new)
        assert got == [(where, what, subject, effect)], got
        policyc("--diff", p.dir / "old.yaml", p.dir / "new.yaml", "--fail-on", "widened", "--now", NOW,
                rc=1 if effect == "widened" else 0)
        policyc("--diff", p.dir / "new.yaml", p.dir / "new.yaml", "--now", NOW, rc=0)


# one change each: name, old, new, word, effect
A = "{domain: a.example, %s}"
ONE = [
    ("an entry added", policy("a.example"), policy("a.example, b.example"), "added", "widened", "b.example"),
    ("an entry removed", policy("a.example, b.example"), policy("a.example"), "removed", "narrowed", "b.example"),
    ("a wildcard added", policy("a.example"), policy("a.example, '*.a.example'"), "added", "widened", "*.a.example"),
    ("a cidr added", policy("a.example"), policy("a.example, {cidr: 192.0.2.0/24, ports: [5432]}"), "added",
     "widened", "192.0.2.0/24"),
    ("a deny added", policy("a.example"), policy("a.example", deny="b.a.example"), "added", "narrowed",
     "b.a.example"),
    ("a deny removed", policy("a.example", deny="b.a.example"), policy("a.example"), "removed", "widened",
     "b.a.example"),
    ("an allow becomes a deny", policy("a.example"), policy("", deny="a.example"), "narrowed", "narrowed", None),
    ("a port more", policy(A % "ports: [443]"), policy(A % "ports: [443, 8443]"), "widened", "widened", None),
    ("a port less", policy(A % "ports: [443, 8443]"), policy(A % "ports: [443]"), "narrowed", "narrowed", None),
    ("another port", policy(A % "ports: [443]"), policy(A % "ports: [444]"), "changed", "widened", None),
    ("the usual ports written out", policy(A % "protocols: [https]"), policy(A % "protocols: [https], ports: [443]"),
     "changed", "none", None),
    ("http as well", policy(A % "protocols: [https]"), policy("a.example"), "widened", "widened", None),
    ("http no more", policy("a.example"), policy(A % "protocols: [https]"), "narrowed", "narrowed", None),
    ("paths ruled", policy(A % "protocols: [http]"), policy(A % "protocols: [http], http: [{paths: [/x]}]"),
     "narrowed", "narrowed", None),
    ("paths no longer ruled", policy(A % "protocols: [http], http: [{paths: [/x]}]"),
     policy(A % "protocols: [http]"), "widened", "widened", None),
    ("one more http rule", policy(A % "protocols: [http], http: [{paths: [/x]}]"),
     policy(A % "protocols: [http], http: [{paths: [/x]}, {methods: [GET]}]"), "widened", "widened", None),
    ("private space", policy("a.example"), policy(A % "private: true"), "widened", "widened", None),
    ("an upgrade", policy("a.example"), policy(A % "upgrade: [websocket]"), "widened", "widened", None),
    ("an end", policy("a.example"), policy(A % "expires: 2027-01-01"), "narrowed", "narrowed", None),
    ("a later end", policy(A % "expires: 2027-01-01"), policy(A % "expires: 2028-01-01"), "widened", "widened", None),
    ("an entry's limit", policy("a.example"), policy(A % "limits: {requests: 5/s}"), "narrowed", "narrowed", None),
    ("an entry's limit raised", policy(A % "limits: {requests: 60/min}"), policy(A % "limits: {requests: 61/min}"),
     "widened", "widened", None),
    ("an owner", policy(A % "owner: x"), policy(A % "owner: y"), "owner", "none", None),
    ("a review date", policy("a.example"), policy(A % "review_by: 2027-01-01"), "review_by", "none", None),
    ("a profile's limits", policy("a.example"), policy("a.example", network="  limits: {dns: 200/s}\n"), "limits",
     "widened", ""),
    ("a profile's limits lowered", policy("a.example"), policy("a.example", network="  limits: {dns: 10/s}\n"),
     "limits", "narrowed", ""),
    ("a preset", policy("a.example"), policy("a.example").replace("presets: []", "presets: [npm]"), "presets",
     "widened", "preset:npm"),
    ("observing", policy("a.example"), policy("a.example", network="  mode: observe\n"), "mode", "widened", ""),
    ("ECH", policy("a.example"), policy("a.example", network="  tls: {ech: allow}\n"), "tls.ech", "widened", ""),
    ("query types", policy("a.example"), policy("a.example", network="  dns: {query_types: [A]}\n"),
     "dns.query_types", "narrowed", ""),
    ("a resolver", policy("a.example"),
     policy("a.example", network="  resolvers: {c: {servers: [10.0.0.1], zones: [c.example]}}\n"), "resolvers",
     "none", ""),
    ("a proxy", policy("a.example"), policy("a.example", network="  proxy: {http: 'http://p.example:1'}\n"), "proxy",
     "none", ""),
]


def never_and_sources():
    """never, sources, credentials and profiles that come and go"""
    with Place() as p:
        got, _ = changes(p, policy("a.example"), policy("a.example", more="never: [x.example]\n"))
        assert got == [("never", "added", "x.example", "narrowed")], got
        got, _ = changes(p, policy("a.example", more="never: [x.example]\n"), policy("a.example"))
        assert got == [("never", "removed", "x.example", "widened")], got
        team = "profiles: {team: {allowlist: [t.example]}}\n"
        got, _ = changes(p, policy("a.example"), policy("a.example", more=team))
        assert got == [("profile team", "added", "", "widened"),
                       ("profile team", "added", "t.example", "widened")], got
        got, _ = changes(p, policy("a.example"), policy("a.example", sources="10.0.0.0/8: default, 11.0.0.0/8: default"))
        assert got == [("sources", "added", '"11.0.0.0/8": default', "widened")], got
        got, _ = changes(p, policy("a.example", sources="10.0.0.0/8: default, 11.0.0.0/8: default"), policy("a.example"))
        assert got == [("sources", "removed", '"11.0.0.0/8": default', "narrowed")], got
        strict = "profiles: {strict: {}}\n"
        got, _ = changes(p, policy("a.example", more=strict, sources="10.0.0.0/8: default, 10.1.0.0/16: strict"),
                         policy("a.example", more=strict))
        assert got == [("sources", "removed", '"10.1.0.0/16": strict', "widened")], got
        key = "credentials: {K: {source: file, scope: task, hosts: [a.example]}}\n"
        got, _ = changes(p, policy("a.example"), policy("a.example", more=key))
        assert {e for *_, e in got} == {"widened"} and got[-1][0] == "credentials and services", got


def several_rules():
    """two entries for one name: what the second permits comes and goes by itself"""
    with Place() as p:
        got, detail = changes(p, policy("a.example"),
                              policy("a.example, {domain: a.example, ports: [8443]}"))
        assert got == [("network", "added", "a.example", "widened")], got
        assert "8443" in detail[0]


def lists():
    """a list's names are compared one by one; its owner is said once"""
    with Place() as p:
        p.write("x.txt", "".join(f"n{i}.example\n" for i in range(1000)))
        old = p.compile(policy("{list: x.txt, owner: one}"), name="old")
        p.write("x.txt", "".join(f"n{i}.example\n" for i in range(1, 1001)))
        new = p.write("new.yaml", policy("{list: x.txt, owner: two}"))
        out, _ = policyc("--diff", old, new, rc=1)
        has(out, r"^network$", r"\+ added n1000\.example: https on 443, http on 80",
            r"- removed n0\.example", r"~ owner list:x\.txt: one -> two",
            r"^3 changes: 1 widen \(\+\), 1 narrow \(-\)$")


def sides():
    """YAML and compiled policies on either side; order, comments and places are no changes"""
    with Place() as p:
        source = HERE / "everything.yaml"
        binary = p.dir / "all.bin"
        policyc(source, "-o", binary, "--now", NOW)
        for a in (source, binary):
            for b in (source, binary):
                out, _ = policyc("--diff", a, b, "--now", NOW)
                assert out == "", out
        a = p.write("a.yaml", policy("a.example, b.example # x"[:20]))
        b = p.write("b.yaml", "# moved\n\n" + policy("b.example, a.example"))
        policyc("--diff", a, b)
        dumped, _ = policyc("--dump", binary)
        policyc("--diff", binary, p.write("d.yaml", dumped), "--now", NOW)


def cannot():
    """what cannot be read or has errors cannot be compared: 4, and nothing on standard output"""
    with Place() as p:
        good = p.write("good.yaml", BASE)
        bad = p.write("bad.yaml", BASE + "what: 1\n")
        broken = p.write("broken.bin", p.compile(BASE).read_bytes()[:-9])
        for pair in ((good, bad), (bad, good), (good, p.dir / "none"), (good, broken)):
            out, err = policyc("--diff", *pair, rc=4)
            assert out == "" and err, (out, err)
        policyc("--diff", good, rc=2)
        policyc("--diff", good, good, good, rc=2)
        policyc("--diff", good, good, "--fail-on", "nothing", rc=2)


def forms():
    """text, JSON, GitHub and Markdown say the same; texts cannot break out of them"""
    with Place() as p:
        nasty = '"a`*_ %0A::error:: <b> | [x](y)"'
        old, new = p.write("o.yaml", policy(A % "owner: x")), \
            p.write("n.yaml", policy(A % f"owner: {nasty}" + ", b.example"))
        out, _ = policyc("--diff", old, new, rc=1)
        has(out, r"\+ added b\.example", r"~ owner a\.example: x -> a`")
        out, _ = policyc("--diff", old, new, "--format", "json", rc=1)
        assert len(json.loads(out)["changes"]) == 2
        out, _ = policyc("--diff", old, new, "--format", "github", rc=1)
        assert len(out.splitlines()) == 2, out
        has(out, r"^::warning title=policy widened::network: added b\.example", r"x -> a`\*_ %250A::error")
        out, _ = policyc("--diff", old, new, "--format", "markdown", rc=1)
        has(out, r"^- \*\*added\*\* b\\\.example", r"\\`\\\*\\_", r"\\<b\\>", r"\\\[x\\\]\\\(y\\\)")


def large():
    """two policies of 500,000 names and 10,000 profiles are compared in seconds"""
    with Place() as p:
        text = "version: 1\nnetwork: {presets: [], allowlist: [{list: x.txt}]}\nprofiles:\n" + \
            "".join(f"  p{i}: {{extends: [default], allowlist: [p{i}.example]}}\n" for i in range(10000)) + \
            "sources: {}\n"
        p.write("x.txt", "".join(f"n{i}.example\n" for i in range(500000)))
        old = p.compile(text, name="old")
        p.write("x.txt", "".join(f"n{i}.example\n" for i in range(1, 500000)))
        new = p.compile(text.replace("[p77.example]", "[p77.example, q.example]"), name="new")
        start = time.monotonic()
        out, _ = policyc("--diff", old, new, rc=1)
        spent = time.monotonic() - start
        has(out, r"^network \(seen by 10001 profiles\)\n  - removed n0\.example", r"^profile p77\n  \+ added q\.example",
            "^2 changes")
        print(f"     {spent:.1f} s")
        assert spent < 60


if __name__ == "__main__":
    cases = Cases()
    for title, old, new, what, effect, subject in ONE:
        def case(o=old, n=new, w=what, e=effect, s=subject):
            one(o, n, w, e, "a.example" if s is None else s)
        case.__doc__ = title
        cases.run(case)
    for case in (never_and_sources, several_rules, lists, sides, cannot, forms, large):
        cases.run(case)
    sys.exit(cases.finish())
