#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The policies of conf/policy and of the README: each compiles as --strict, without a finding, and answers
what its own comments say. BUILD names the build directory."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True

from case import BUILD, NOW, ROOT, Cases, Place, has, policyc

import yaml

EXAMPLES = ROOT / "conf/policy"
ADDITIONS = EXAMPLES / "task-additions.yaml"


def strict(*files, out=None):
    """Compiles; any finding at all is a failure."""
    said = policyc("--strict", "--now", NOW, *files, *(["-o", out] if out else []))
    assert said == ("", ""), said


def explain(policy, source, target):
    """(allowed, reason) of what `cxctl explain` says."""
    done = subprocess.run([BUILD / "cxctl", "explain", "-p", policy, "--now", NOW, "--source", source, target],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done
    return done.returncode == 0, re.search(r"^reason: +(\S+)", done.stdout, re.MULTILINE)[1]


def compiles(name):
    with Place() as p:
        strict(EXAMPLES / name, out=p.dir / "policy.bin")


def tests_of_the_example():
    """the tests of example.yaml are what explain answers, too, and one that is wrong stops the compiler"""
    text = (EXAMPLES / "example.yaml").read_text(encoding="utf-8")
    tests = yaml.safe_load(text)["tests"]
    asked = 0
    with Place() as p:
        strict(EXAMPLES / "example.yaml", out=p.dir / "policy.bin")
        for test in tests:
            for target in test.get("allow", []):
                assert explain(p.dir / "policy.bin", test["source"], target)[0], target
                asked += 1
            for target, reason in test.get("deny", {}).items():
                got = explain(p.dir / "policy.bin", test["source"], target)
                assert got == (False, reason), (target, got)
                asked += 1
        shutil.copytree(EXAMPLES / "lists", p.dir / "lists")
        wrong = text.replace("/healthz\"]", "/admin\"]")
        assert wrong != text
        _, err = policyc("--now", NOW, p.write("policy.yaml", wrong), rc=1)
        assert err.count("\n") == 1, err
        has(err, r"error: .*\[test-failed\]$")
    assert asked >= 14, asked


def additions():
    """the template for a task compiles behind the example, and as an include that may set little"""
    main = "version: 1\npresets_version: '2026.11'\ninclude: [{path: 'policy.d/*.yaml', may: ['profiles.task-*']}]\n" \
        "network: {presets: []}\nsources: {10.200.0.9/32: task-example}\n"
    with Place() as p:
        placed = p.write("placed.yaml", "sources: {10.200.0.9/32: task-example}\n")
        strict(EXAMPLES / "example.yaml", ADDITIONS, placed)
        (p.dir / "policy.d").mkdir()
        shutil.copy(ADDITIONS, p.dir / "policy.d")
        strict(p.write("policy.yaml", main), out=p.dir / "policy.bin")
        assert explain(p.dir / "policy.bin", "10.200.0.9", "https://api.partner.example") == (True, "allowed")
        assert explain(p.dir / "policy.bin", "10.200.0.10", "https://api.partner.example") == (False, "unknown-source")
        p.write("policy.d/more.yaml", "profiles: {other: {}}\nnetwork: {allowlist: [x.example]}\n")
        _, err = policyc(p.dir / "policy.yaml", rc=1)
        has(err, r"more.yaml:1:.*error: .*profiles\.other.*\[may\]$", r"more.yaml:2:.*error: .*network\.allowlist.*\[may\]$")


def commented_keys():
    """what the template holds as comments is valid where it is"""
    text = ADDITIONS.read_text(encoding="utf-8")
    with Place() as p:
        body = text[text.index("profiles:"):]
        for pattern in (r"^(    )# (presets:.*)", r"^(        )# (ports: .*)", r"^(    )# (deny: .*)", r"^(      )# ((?:- |  ).*)"):
            body = re.sub(pattern, r"\1\2", body, flags=re.MULTILINE)
        for key in ("presets: [maven]", "http: [{methods", "cidr: 203.0.113.0/28", 'deny: ["*.mirror'):
            assert re.search(r"^[ -]*" + re.escape(key), body, re.MULTILINE), (key, body)
        main = p.write("policy.yaml", "version: 1\npresets_version: '2026.11'\nnetwork: {presets: [default]}\nsources: {}\n")
        strict(main, p.write("task.yaml", body))


def readme():
    """the README's policy compiles, and its cxctl command prints what it shows"""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    source = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    shown = re.search(r"^\$ cxctl explain .*? --source (\S+) (\S+)\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    with Place() as p:
        said = policyc("--strict", p.write("policy.yaml", source), "-o", "policy.bin", "--now", NOW, cwd=p.dir)
        assert said == ("", ""), said
        done = subprocess.run([BUILD / "cxctl", "explain", "-p", p.dir / "policy.bin", "--source", shown[1], shown[2]],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done
        # but for the digest, which is another one with each version of the presets
        got, want = [re.sub("(?m)^(policy:   )[0-9a-f]{12}$", r"\1", s) for s in (done.stdout, shown[3])]
        assert got == want, (got, want)


def links():
    """what the documents link to is there"""
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), (page.name, link)


def manual():
    """the policies in cx-policy.yaml(5) compile, and its rule id is that of the text it shows"""
    page = (ROOT / "docs/man/cx-policy.yaml.5").read_text(encoding="utf-8")
    blocks = re.findall(r"^\.Bd -literal(?: -offset indent)?\n(.*?)^\.Ed$", page, re.DOTALL | re.MULTILINE)
    first, inline, form, _, canonical = blocks
    with Place() as p:
        strict(p.write("policy.yaml", first), out=p.dir / "policy.bin")
        indented = re.sub("(?m)^", "    ", inline)
        strict(p.write("inline.yaml", f"{first.split('network:')[0]}network:\n  presets: []\n  allowlist:\n{indented}\nsources: {{}}\n"))
        head = 'version: 1\npresets_version: "2026.11"\n'
        _, err = policyc("--now", NOW, p.write("form.yaml", head + form), "-o", p.dir / "form.bin")
        assert all(re.search(r"\[unenforced\]$", line) for line in err.splitlines()), err
        wanted = re.search(r"^\.Li ([0-9a-f]{12}) :$", page, re.MULTILINE)[1]
        assert hashlib.sha256(canonical.encode()).hexdigest()[:12] == wanted, canonical
        done = subprocess.run([BUILD / "cxctl", "explain", "-p", p.dir / "policy.bin", "--source", "10.200.0.7",
                               "https://api.staging.example.com"], capture_output=True, text=True, timeout=60, check=True)
        has(done.stdout, f"^rule: +{wanted}$")


def reasons():
    """cx-policy.yaml(5) lists each reason, in the order of the code"""
    header = (ROOT / "shared/policy/verdict.h").read_text(encoding="utf-8")
    page = (ROOT / "docs/man/cx-policy.yaml.5").read_text(encoding="utf-8")
    listed = page[page.index(".Sh REASONS"):page.index("What the client sees")].split(".El")[0]
    wanted = re.findall(r'^\tX\([A-Z_]+, "([a-z-]+)"\)', header, re.MULTILINE)
    got = [word for line in re.findall(r"^\.It Li (.*)$", listed, re.MULTILINE) for word in line.split(" , ")]
    assert got == wanted and len(wanted) > 20, (got, wanted)


def keys():
    """cx-policy.yaml(5) mentions each key that the compiler reads"""
    page = (ROOT / "docs/man/cx-policy.yaml.5").read_text(encoding="utf-8")
    found = set()
    for source in (ROOT / "shared/compile").glob("*.c"):
        if source.name not in ("presets.c", "schema.c"):
            found |= set(re.findall(r'\{ "([A-Za-z_]+)", (?:read|keep|skip|limit)_?\w*,', source.read_text(encoding="utf-8")))
    missing = {key for key in found if not re.search(rf"\b{key}\b", page)}
    assert not missing and len(found) > 70, (missing, len(found))


def enforced():
    """cx-policy.yaml(5) says of just those constructs that they are not enforced that are not"""
    header = (ROOT / "shared/policy/features.h").read_text(encoding="utf-8")
    page = (ROOT / "docs/man/cx-policy.yaml.5").read_text(encoding="utf-8")
    names = dict(re.findall(r'X\([0-9]+, ([A-Z_]+), "([^"]+)"\)', header))
    done = set(re.findall(r"FEATURE\(([A-Z_]+)\)", header.split("#define FEATURES_ENFORCED")[1]))
    wanted = {text for name, text in names.items() if name not in done}
    part = page[page.index(".Sh WHAT THIS VERSION DOES NOT ENFORCE"):].split("\n.Sh ", 1)[0]
    said = set(re.findall(r'^\.\\" feature: (.*)$', part, re.MULTILINE))
    assert names and done and said == wanted, \
        f"take out of the manual's list: {said - wanted or 'nothing'}; add to it: {wanted - said or 'nothing'}"


def lint_table():
    """code -> (severity, can it be lifted?)"""
    text = (ROOT / "shared/compile/lint.h").read_text(encoding="utf-8")
    rows = re.findall(r'X\([A-Z_]+, "([a-z-]+)", DIAG_(ERROR|WARNING), (true|false)\)', text)
    return {code: (severity.lower(), lifts == "true") for code, severity, lifts in rows}


def lint_items():
    """code -> (what the manual calls it, its example)"""
    page = (ROOT / "docs/man/cx-policy.yaml.5").read_text(encoding="utf-8")
    part = page[page.index(".Sh LINT"):page.index(".Sh REASONS")]
    items = {}
    for heads, body in re.findall(r"^\.It Li (.*)\n((?:(?!\.It |\.El\n).*\n)*)", part, re.MULTILINE):
        example = re.search(r"^\.Bd -literal -compact\n(.*?)^\.Ed$", body, re.DOTALL | re.MULTILINE)[1]
        for code in heads.split(" , "):
            items[code] = body.partition("\n")[0].rstrip(".").lower(), example
    return items


def lint():
    """cx-policy.yaml(5) has each code of lint, and its example brings it about"""
    table, items = lint_table(), lint_items()
    assert set(table) == set(items) and len(table) > 25, set(table) ^ set(items)
    root_keys = {"sources", "never", "profiles", "credentials"}
    with Place() as p:
        for code, (severity, lifts) in table.items():
            called, example = items[code]
            assert called == severity + ("" if lifts else ", not lifted"), (code, called)
            for preset in re.findall(r"FIRST\(([a-z]+)\)", example):
                first = policyc("--preset", preset)[0].split()[0]
                example = example.replace(f"FIRST({preset})", first)
            documents = [d for d in re.split(r"^---\n", example, flags=re.MULTILINE) if d]
            policy = {"version": 1, "presets_version": "2026.11", "sources": {"10.0.0.0/8": "default"},
                      "network": {"presets": []}}
            for key, value in (yaml.safe_load(documents[0]) if not example.startswith("---") else {}).items():
                (policy if key in root_keys else policy["network"])[key] = value
            if policy["sources"] is None:
                del policy["sources"]
            text = json.dumps(policy, default=str) + "".join(f"\n---\n{d}" for d in documents if example.startswith("---"))
            done = subprocess.run([BUILD / "cx-policyc", "--allow-unenforced", "--now", NOW, p.write("policy.yaml", text)],
                                  capture_output=True, text=True, timeout=60, check=False)
            assert re.search(rf": {severity}: .*\[{code}\]$", done.stderr, re.MULTILINE), (code, example, done.stderr)
            assert done.returncode == (severity == "error"), (code, done)
    print(f"     {len(table)} codes")


def codes_and_options():
    """cx-policyc(1) lists each code that the compiler has, and each option"""
    page = (ROOT / "docs/man/cx-policyc.1").read_text(encoding="utf-8")
    listed = {word for line in re.findall(r"^\.It Li (.*)$", page, re.MULTILINE) for word in line.split(" , ")}
    listed |= set(lint_items())
    found = set(lint_table())
    for source in [*(ROOT / "shared/compile").glob("*.c"), ROOT / "shared/tools/policyc.c",
                   ROOT / "shared/tools/trials.c"]:
        text = source.read_text(encoding="utf-8")
        found |= set(re.findall(r'\bdiag(?:_error|_warning)?\([^"]*?"([a-z-]+)"', text))
        if source.name == "yaml.c":
            found |= set(re.findall(r'\bfail\((?:[^"]*?)"([a-z-]+)"', text))
    assert listed == found and len(found) > 50, (listed - found, found - listed)
    out, _ = policyc("--help")
    for option in re.findall(r"--([a-z-]+)", "".join(line[:24] for line in out.splitlines(True))):
        assert re.search(rf"Fl -{option}\b", page), option


if __name__ == "__main__":
    cases = Cases()
    found = sorted(f.name for f in EXAMPLES.glob("*.yaml"))
    assert found == ["example.yaml", "minimal.yaml", "task-additions.yaml"], found
    for name in ("example.yaml", "minimal.yaml"):
        compiles.__doc__ = f"{name} compiles as --strict without a finding"
        cases.run(compiles, name)
    for case in (tests_of_the_example, additions, commented_keys, readme, links, manual, lint, enforced, reasons, keys,
                 codes_and_options):
        cases.run(case)
    sys.exit(cases.finish())
