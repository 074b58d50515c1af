#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--schema: a JSON Schema that takes what the compiler takes, and sees what a schema can see. BUILD names
the build directory."""

import json
import re
import subprocess
import sys

sys.dont_write_bytecode = True

from case import BUILD, NOW, POLICYC, ROOT, Cases, Place, policyc

import jsonschema
import yaml

sys.path.insert(0, str(ROOT / "tests/verdict"))
import cases as verdict_cases

HERE = ROOT / "tests/integration/policyc"
SCHEMA = json.loads(policyc("--schema")[0])
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


class Loader(yaml.SafeLoader):
    """YAML 1.2's core types, as editors read them: a date is a string, `yes` is a string."""


Loader.yaml_implicit_resolvers = {}
for tag, pattern, first in (("null", "^(~|null|)$", "~n\0"), ("bool", "^(true|false)$", "tf"),
                            ("int", "^[-+]?[0-9]+$", "-+0123456789"),
                            ("float", r"^[-+]?[0-9]+\.[0-9]+$", "-+0123456789")):
    for c in first:
        Loader.yaml_implicit_resolvers.setdefault(c if c != "\0" else "", []).append(
            (f"tag:yaml.org,2002:{tag}", re.compile(pattern)))


Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def with_text_keys(value):
    """Keys as JSON has them: a mapping's key is a text, whatever it looks like."""
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k).lower(): with_text_keys(v) for k, v in value.items()}
    return [with_text_keys(v) for v in value] if isinstance(value, list) else value


def errors(text):
    found = []
    for document in map(with_text_keys, yaml.load_all(text, Loader)):
        found += [f"{list(e.absolute_path)}: {e.message}" for e in VALIDATOR.iter_errors(document)]
    return found


def accepts(source):
    found = errors(source.read_text(encoding="utf-8"))
    assert not found, f"{source.name}: {found[:3]}"


def compiles(source):
    return subprocess.run([POLICYC, source.name, "--now", NOW], cwd=source.parent, capture_output=True,
                          timeout=60, check=False, stdin=subprocess.DEVNULL).returncode == 0


def is_a_schema():
    """it is a schema of its draft, and every definition is used and defined"""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    used = set(re.findall(r"#/\$defs/(\w+)", json.dumps(SCHEMA)))
    assert used == set(SCHEMA["$defs"]), used ^ set(SCHEMA["$defs"])


def keys():
    """it has the keys of the compiler's tables, all of them and no others"""
    rows = set()
    for source in set((ROOT / "shared/compile").glob("*.c")) - {ROOT / "shared/compile" / n for n in ("presets.c", "schema.c")}:
        text = source.read_text(encoding="utf-8")
        rows |= {k for k, fn in re.findall(r'\{\s*"([A-Za-z_]+)",\s*([a-z_]+),', text) if fn != "refuse_key"}
    limits = (ROOT / "shared/compile/compile.h").read_text(encoding="utf-8")
    rows |= set(re.findall(r'X\([a-z_]+, "([a-z_]+)", (?:true|false)', limits))
    have = {k for d in SCHEMA["$defs"].values() if isinstance(d, dict) for k in d.get("properties", {})}
    assert len(rows) > 80, rows
    assert have == rows, (have - rows, rows - have)


def everything():
    """it takes every construct, the examples, the golden policies and the dumps"""
    accepts(HERE / "everything.yaml")
    n, unread = 0, []
    for source in sorted([*ROOT.glob("conf/policy/*.yaml"), *ROOT.glob("tests/golden/*.yaml"),
                          *ROOT.glob("tests/unit/policy-*.yaml")]):
        if not compiles(source):
            continue
        try:
            accepts(source)
            n += 1
        except yaml.YAMLError:
            unread.append(source.name)
    # Python's YAML does not take a tab before a value, which YAML allows
    assert len(unread) <= 2, unread
    print(f"     {n} policies; not read by Python's YAML: {unread}")
    with Place() as p:
        out = p.dir / "all.bin"
        policyc(HERE / "everything.yaml", "-o", out, "--now", NOW)
        accepts(p.write("dump.yaml", policyc("--dump", out)[0]))


def verdicts():
    """it takes the policy of every verdict case that compiles"""
    n = 0
    hosts = verdict_cases.preset_hosts(BUILD)
    with Place() as p:
        for case in verdict_cases.load():
            if not case.has_policy:
                continue
            case.expand(hosts)
            if verdict_cases.prepare(case, str(POLICYC), str(p.dir)) is None:
                accepts(p.dir / case.name / "policy.yaml")
                n += 1
    assert n > 100
    print(f"     {n} policies")


EXAMPLES = ["""
network:
  proxy:
    http: "http://proxy.internal:3128"
    https: "http://proxy.internal:3128"
    no_proxy: "localhost,127.0.0.1"
  dns:
    custom_resolvers:
      - "10.0.0.53" # Internal DNS for corp domains
  allowlist_additions:
    - "api.internal.company.com"
    - "registry.internal.company.com"
""", """
network:
  allowlist:
    - "api.staging.example.com"      # Staging only
credentials:
  STAGING_API_KEY:
    source: vault
    scope: task
    permissions: read-only
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: codex-sandbox-policy}
spec:
  selector: {matchLabels: {app: codex-sandbox}}
  rules:
    - to: [{operation: {methods: ["GET"], paths: ["/api/v2/*"]}}]
      from: [{source: {principals: ["codex-sa"]}}]
""", "version: 1\nsources: {172.16.0.0/16: {bind: [default]}, '::/0': default}\nunlisted_sources: {ignore: []}\n",
            "version: 1\nnetwork: {allowlist: [a.example]}\n"
            "tests: [{profile: default, allow: ['dns:a.example/A'], deny: ['https://b.example']}]\n",
            "version: 1\nnetwork: {allowlist: [{domain: a.example, ports: 8443}, {domain: b.example, ports: ['1-2', 7]}]}\n",
            "version: 1\nnetwork: {limits: {concurrent: 7, dns: 1/s burst 9, bandwidth: 1MB/s, upload: 5/day}}\n"]


def examples():
    """it takes the documented examples"""
    with Place() as p:
        for i, text in enumerate(EXAMPLES):
            source = p.write(f"{i}.yaml", text)
            assert compiles(source), text
            accepts(source)


# what a schema can see: refused by the compiler and by the schema
BAD = ["what: 1", "version: 2", "network: []", "network: {allowlist: {}}", "network: {allowlist: [{}]}",
       "network: {allowlist: [{domain: a.example, cidr: 10.0.0.0/8}]}", "network: {allowlist: ['*']}",
       "network: {allowlist: ['a.*.example']}", "network: {allowlist: ['https://a.example']}",
       "network: {allowlist: [{domain: a.example, ports: []}]}", "network: {allowlist: [{domain: a.example, ports: [0]}]}",
       "network: {allowlist: [{domain: a.example, ports: [65536]}]}",
       "network: {allowlist: [{domain: a.example, protocols: [udp]}]}",
       "network: {allowlist: [{domain: a.example, privat: true}]}",
       "network: {allowlist: [{domain: a.example, private: yes}]}",
       "network: {allowlist: [{domain: a.example, added: yesterday}]}",
       "network: {allowlist: [{domain: a.example, limits: {requests: 5}}]}",
       "network: {allowlist: [{domain: a.example, limits: {requests: 5 per second}}]}",
       "network: {allowlist: [{domain: a.example, environment: test}]}",
       "network: {allowlist: [{domain: a.example, http: [{methods: []}]}]}",
       "network: {allowlist: [{domain: a.example, protocols: [http], http: [{paths: [x]}]}]}",
       "network: {allowlist: [{cidr: 192.0.2.0/24}]}", "network: {deny: [{domain: a.example, ports: [443]}]}",
       "network: {allowlist: [{domain: a.example, lint: {allow: [duplicate]}}]}",
       "network: {allowlist: [{list: {path: x}}]}", "network: {presets: [nmp]}", "network: {mode: watch}",
       "network: {dns: {deny_ttl: 5}}", "network: {dns: {query_types: [AAAAA]}}", "network: {dns: {ancestors: no}}",
       "network: {tls: {ech: maybe}}", "network: {proxy: {http: 'https://p.example:1'}}", "network: {proxy: {http: 'http://p.example'}}",
       "network: {resolvers: {c: {servers: [ns.example], zones: [a.example]}}}", "network: {resolvers: {c: {servers: [10.0.0.1]}}}",
       "profiles: {default: {}}", "profiles: {'a b': {}}", "profiles: {a: {extends: default}}", "sources: []",
       "sources: {example.com: default}", "sources: {10.0.0.0/8: {}}", "unlisted_sources: allow", "resolver_clients: 127.0.0.1",
       "credentials: {K: {source: env, scope: task}}", "credentials: {K: {source: file}}",
       "credentials: {K: {source: file, scope: task, header: 'X: y'}}", "mesh: {services: {a: {host: h.example}}}",
       "tests: [{allow: ['dns:a.example']}]", "tests: [{profile: default, allow: ['ftp://a.example']}]",
       "tests: [{profile: default, deny: {'dns:a.example': because}}]", "require: [name]", "serial: -1", "include: [{may: [x]}]",
       "apiVersion: v1\nkind: AuthorizationPolicy",
       "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {rules: [{when: []}]}",
       "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {action: AUDIT}",
       "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {rules: [{to: [{operation: {paths: ['a*b']}}]}]}"]


def negatives():
    """what a schema can see is refused by both"""
    with Place() as p:
        for text in BAD:
            whole = text if text.startswith(("version", "apiVersion")) else "version: 1\n" + text
            if text.startswith("apiVersion"):
                whole = "version: 1\n---\n" + text
            source = p.write("bad.yaml", whole + "\n")
            assert errors(whole), f"the schema takes: {text}"
            assert not compiles(source), f"the compiler takes: {text}"
    print(f"     {len(BAD)} policies")


if __name__ == "__main__":
    cases = Cases()
    for case in (is_a_schema, keys, everything, verdicts, examples, negatives):
        cases.run(case)
    sys.exit(cases.finish())
