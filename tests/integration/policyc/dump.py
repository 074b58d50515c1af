#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--dump: what is printed compiles to the same meaning, for every construct and every verdict case, at
any size. BUILD names the build directory."""

import os
import resource
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from case import BUILD, NOW, POLICYC, ROOT, Cases, Place, has, has_not, meaning, policyc

sys.path.insert(0, str(ROOT / "tests/verdict"))
import cases as verdict_cases

HERE = ROOT / "tests/integration/policyc"


def round_trip(place, binary, cwd=None):
    """Dumps, compiles, dumps again; the dump."""
    dumped, _ = policyc("--dump", binary)
    source = place.write("dumped.yaml", dumped)
    again = place.dir / "again.bin"
    policyc(source, "-o", again, "--now", NOW, cwd=cwd)
    assert meaning(again) == meaning(binary), f"another meaning:\n{dumped}"
    second, _ = policyc("--dump", again)
    third = place.dir / "third.bin"
    place.write("second.yaml", second)
    policyc(place.dir / "second.yaml", "-o", third, "--now", NOW)
    assert meaning(third) == meaning(binary)
    strip = [line.split("  # ")[0] for line in dumped.splitlines()]
    assert strip == [line.split("  # ")[0] for line in second.splitlines()], "the dump is not stable"
    return dumped


def everything():
    """every construct of the language comes back"""
    with Place() as p:
        out = p.dir / "all.bin"
        policyc(HERE / "everything.yaml", "-o", out, "--now", NOW)
        text = round_trip(p, out)
        has(text, "owner: build-team", "limits: {connections: 20/s burst 40, requests: 600/min",
            "ancestors: nodata", "extends: \\[right, left, default\\]", "kind: AuthorizationPolicy",
            "header: \"Authorization: Bearer {value}\"", "xn--bcher-kva.example", "mode: observe",
            "# everything.yaml:\\d+$", "unlisted_sources: \\{ignore", "serial: 42",
            "labels: \\{\"a\": \"b=c\", \"ticket\": \"SEC-1\"\\}", "review_by: \"2027-02-21\"")


def order():
    """the order of what has no order leaves the meaning alone; a raised limit does not"""
    one = """version: 1
network:
  presets: [npm, pypi]
  dns: {private_ranges: [10.0.0.0/8, 192.168.0.0/16]}
  resolvers: {a: {servers: [10.0.0.1], zones: [a.example, b.example]}, b: {servers: [10.0.0.2], zones: [c.example]}}
  allowlist: [x.example, {domain: y.example, limits: {requests: 5/s, upload: 1MiB/s}}, {list: names.txt, owner: me}]
  tasks: {entries: 1, within: ["*.x.example", "preset:npm"], max_ttl: 1h}
  credentials: [K, L]
sources: {10.0.0.0/8: default, 11.0.0.0/8: default}
credentials: {K: {source: file, scope: task, hosts: [a.example, b.example]}, L: {source: file, scope: task}}
mesh: {services: {s: {host: s.example, port: 1, principal: p}, t: {host: t.example, port: 1, principal: p}}}
"""
    two = """version: 1
credentials: {L: {scope: task, source: file}, K: {hosts: [b.example, a.example], scope: task, source: file}}
mesh: {services: {t: {port: 1, host: T.example, principal: p}, s: {host: s.example., port: 1, principal: p}}}
sources: {11.0.0.0/8: default, 10.0.0.0/8: default}   # moved
network:
  credentials: [L, K]
  tasks: {within: ["preset:npm", "*.x.example"], max_ttl: 60m, entries: 1}
  allowlist: [{list: names.txt, owner: you}, {domain: Y.example, limits: {upload: 1024KiB/s, requests: 5/s burst 5}}, x.example]
  resolvers: {b: {zones: [c.example], servers: [10.0.0.2]}, a: {servers: [10.0.0.1], zones: [b.example, a.example]}}
  dns: {private_ranges: [192.168.0.0/16, 10.0.0.0/8]}
  presets: [npm, pypi]
"""
    with Place() as p:
        p.write("names.txt", "n.example\n*.m.example\n")
        first, second = p.compile(one, name="one"), p.compile(two, name="two")
        assert meaning(first) == meaning(second), policyc("--diff", first, second, rc=1)[0]
        for old, new in (("5/s,", "6/s,"), ("1h", "2h"), ("10.0.0.2", "10.0.0.3"), ("hosts: [a.example, ", "hosts: ["),
                         ("192.168.0.0/16", "172.16.0.0/12")):
            assert meaning(p.compile(one.replace(old, new), name="other")) != meaning(first), new
            policyc("--diff", first, p.dir / "other.bin", rc=1)


def verdicts():
    """every policy of the verdict cases comes back"""
    n = 0
    with Place() as p:
        hosts = verdict_cases.preset_hosts(BUILD)
        for case in verdict_cases.load():
            if not case.has_policy:
                continue
            case.expand(hosts)
            if verdict_cases.prepare(case, str(POLICYC), str(p.dir)):
                continue
            try:
                round_trip(p, p.dir / f"{case.name}.bin")
            except AssertionError as error:
                raise AssertionError(f"{case.name}: {error}") from None
            n += 1
    assert n > 100, n
    print(f"     {n} policies")


def examples():
    """the examples and golden policies that compile come back"""
    with Place() as p:
        n = 0
        for source in sorted([*ROOT.glob("conf/policy/*.yaml"), *ROOT.glob("tests/golden/*.yaml")]):
            out = p.dir / "one.bin"
            out.unlink(missing_ok=True)
            subprocess.run([POLICYC, source.name, "-o", out, "--now", NOW], capture_output=True,
                           timeout=60, check=False, cwd=source.parent)
            if out.exists():
                try:
                    round_trip(p, out)
                except AssertionError as error:
                    raise AssertionError(f"{source.name}: {error}") from None
                n += 1
        print(f"     {n} policies")


def hostile_texts():
    """texts that look like YAML come back as texts, and break nothing"""
    texts = ["a: b", "- x", "# no comment", "\"", "'", "\\", "{", "}", "[]", "a, b", "*a", "&a", "!t",
             "%TAG", "yes", "null", "~", "2026-11-21", "0x10", "---", "...", "| x", "> y",
             "caf\u00e9 \u2713", "a\\nb: c", "${x}", "`id`", "<b>", "]: {", "=", "0",
             "true", "1e3", "x # y"]
    with Place() as p:
        quote = __import__("json").dumps
        entries = "".join(f"    - {{domain: n{i}.example, owner: {quote(t, ensure_ascii=True)}, "
                          f"labels: {{k: {quote(t, ensure_ascii=True)}}}}}\n"
                          for i, t in enumerate(texts))
        out = p.compile("version: 1\nrevision: " + quote(texts[0]) + "\nnetwork:\n  presets: []\n"
                        "  allowlist:\n" + entries + "sources: {}\n", "--now", NOW)
        text = round_trip(p, out)
        yaml = __import__("yaml").safe_load(text)
        got = [e["owner"] for e in yaml["network"]["allowlist"]]
        assert [str(g) for g in got] == texts, got


def bad_files():
    """what is no compiled policy is refused with a word why; nothing is printed"""
    with Place() as p:
        good = p.compile("version: 1\nnetwork: {presets: [], allowlist: [a.example]}\nsources: {}\n")
        data = good.read_bytes()
        for bad in (b"", data[:100], data[:-1], data[:200] + b"x" + data[201:], b"version: 1\n"):
            out, err = policyc("--dump", p.write("bad.bin", bad), rc=1)
            assert out == "" and err.startswith("cx-policyc: "), (out, err)
        policyc("--dump", p.dir / "missing.bin", rc=1)
        policyc("--dump", rc=2)
        policyc("--dump", good, good, rc=2)


def million():
    """a list of a million names comes back, in linear time and memory"""
    with Place() as p:
        names = "".join(f"host-{i}.zone{i % 977}.example\n" for i in range(1000000))
        p.write("names.txt", names)
        out = p.compile("version: 1\nnetwork: {presets: [], allowlist: [{list: names.txt}]}\nsources: {}\n")
        start = time.monotonic()
        with open(p.dir / "dumped.yaml", "wb") as f:
            subprocess.run([POLICYC, "--dump", out], stdout=f, check=True, timeout=120)
        dumped = time.monotonic() - start
        again = p.dir / "again.bin"
        policyc(p.dir / "dumped.yaml", "-o", again)
        assert meaning(again) == meaning(out)
        rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        print(f"     dump {dumped:.1f} s, compile {time.monotonic() - start - dumped:.1f} s, "
              f"largest process {rss} MiB")
        assert dumped < 60


def many_profiles():
    """20,000 profiles that extend one base come back"""
    with Place() as p:
        profiles = "".join(f"  team-{i}: {{extends: [base], allowlist: [t{i}.example]}}\n"
                           for i in range(20000))
        out = p.compile("version: 1\nnetwork: {presets: [], allowlist: []}\nprofiles:\n"
                        "  base: {allowlist: [base.example], limits: {dns: 7/s}}\n" + profiles +
                        "sources: {}\n")
        text = round_trip(p, out)
        has(text, r"^  team-19999:\n    extends: \[base\]")
        assert text.count("limits:") == 1


if __name__ == "__main__":
    assert os.path.exists(POLICYC)
    cases = Cases()
    for case in (everything, examples, order, verdicts, hostile_texts, bad_files, million, many_profiles):
        cases.run(case)
    sys.exit(cases.finish())
