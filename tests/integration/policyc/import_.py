#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--import: lists of other programs become a part of a policy that means what they meant. BUILD names
the build directory."""

import subprocess
import sys

sys.dont_write_bytecode = True

from case import BUILD, POLICYC, Cases, Place, has, has_not, policyc

import yaml

MAIN = "version: 1\ninclude: [fragment.yaml]\nnetwork: {presets: []}\nsources: {10.0.0.0/8: default}\n"


def imported(place, kind, text):
    """(allowlist, deny, the fragment, the report); the fragment must compile as an include."""
    source = place.write("list.txt", text)
    out, err = policyc("--import", kind, source)
    fragment = yaml.safe_load(out)
    place.write("fragment.yaml", out)
    policyc(place.write("main.yaml", MAIN), "-o", place.dir / "out.bin")
    network = fragment["network"]
    return set(network["allowlist"]), set(network.get("deny", [])), out, err


def allowed(place, target):
    done = subprocess.run([BUILD / "cxctl", "explain", "-p", place.dir / "out.bin", "--source", "10.0.0.1", target],
                          capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done
    return done.returncode == 0


def squid_names():
    """Squid's .x is x and what is below it, x is x alone; so say the verdicts"""
    with Place() as p:
        allow, deny, out, _ = imported(p, "squid", "# ours\n.Example.com\nexact.example.org.  # one\n\n.example.com\n")
        assert allow == {"example.com", "*.example.com", "exact.example.org"} and not deny, out
        for name, want in (("example.com", True), ("a.example.com", True), ("a.b.example.com", True),
                           ("xexample.com", False), ("exact.example.org", True), ("a.exact.example.org", False)):
            assert allowed(p, f"https://{name}") == want, name
        has(out, "^# Imported from .*list.txt")
        has_not(out, "Not kept")


def squid_conf():
    """of squid.conf: names, who is allowed, what is denied, and what cannot be kept"""
    with Place() as p:
        allow, deny, out, err = imported(p, "squid", """
acl localnet src 10.0.0.0/8
acl SSL_ports port 443
acl good dstdomain .good.example exact.example "/etc/squid/more.txt"
acl good dstdomain late.example
acl bad dstdomain -n .bad.good.example
acl night time 22:00-23:00
acl atnight dstdomain night.example
acl forgotten dstdomain forgotten.example
acl rx dstdom_regex -i \\.rx\\.example$ ^one\\.example$ (^|\\.)both\\.example$ ads[0-9]+\\.
acl range dst 192.0.2.0/24
http_access deny bad
http_access allow localnet good
http_access allow rx
http_access allow night atnight
http_access allow localhost
http_access deny all
cache_mem 8 MB
""")
        assert allow == {"good.example", "*.good.example", "exact.example", "late.example", "*.rx.example", "one.example",
                         "both.example", "*.both.example"}, (allow, out)
        assert deny == {"bad.good.example", "*.bad.good.example"}, deny
        for text in (out, err):
            has(text, r'more\.txt"": names of another file', r"ads\[0-9\]\+", "address ranges", "cache_mem",
                "atnight.*conditions that cannot be kept", "localnet.*sources", "order of rules")
        has(out, r'^#     - "night\.example"$', r'^#     - "forgotten\.example"$')
        assert not allowed(p, "https://x.bad.good.example") and allowed(p, "https://x.good.example")
        assert not allowed(p, "https://night.example")


def lists():
    """plain names, wildcards, filter lists and hosts files"""
    with Place() as p:
        allow, _, out, err = imported(p, "list", """
a.example
*.b.example
.c.example
||d.example^
! a comment of filter lists
127.0.0.1 e.example f.example # a hosts file
g.example trailing
||h.example^$third-party
*bad*
/regex/
""")
        assert allow == {"a.example", "*.b.example", "c.example", "*.c.example", "d.example", "*.d.example", "e.example",
                         "f.example", "g.example"}, out
        has(err, r":8: .trailing", "h.example", r"\*bad\*", "/regex/", "^9 names read, 4 not kept")


def refused():
    """wildcards over public suffixes, addresses, IDNs and broken names are reported, not handed on"""
    with Place() as p:
        allow, _, out, err = imported(p, "squid", ".com\n.co.uk\n10.0.0.1\nb\u00fccher.example\na..b\n*.x.example\n.github.io\n")
        assert allow == {"github.io"} or allow <= {"com", "co.uk", "github.io"}, allow
        assert not any(a.startswith("*.") for a in allow)
        has(err, "strangers", "xn-- form", r"Squid has no \*")
        assert err.count("\n") >= 7


def hostile():
    """no line of a list becomes syntax, or an escape on a terminal"""
    with Place() as p:
        nasty = b"a.example\n\x1b[31mred\n\"], deny: []\nx: y\n'\n- z\n\xff\xfe\n" + b"A" * 70000 + b"\n" + b"b.example\0hidden\n" + \
            b" ".join(b"w%d.example" % i for i in range(300)) + b"\n# \x1b]0;t\x07\nlast.example\n"
        for kind in ("squid", "list"):
            source = p.write("nasty.txt", nasty)
            out, err = policyc("--import", kind, source)
            assert "\x1b" not in out + err and "\x07" not in out + err
            parsed = yaml.safe_load(out)
            assert set(parsed) == {"network"} and set(parsed["network"]) <= {"allowlist", "deny"}, out[:500]
            assert "last.example" in parsed["network"]["allowlist"]
            p.write("fragment.yaml", out)
            policyc(p.write("main.yaml", MAIN), "-o", p.dir / "out.bin")


def empty_and_missing():
    """an empty list is an empty fragment; a file that is not there is a system error"""
    with Place() as p:
        allow, _, _, err = imported(p, "list", "# nothing\n")
        assert not allow
        has(err, "0 names read, 0 not kept")
        policyc("--import", "list", p.dir / "none", rc=3)
        policyc("--import", "list", p.dir, rc=3)
        policyc("--import", "dnsmasq", p.dir / "list.txt", rc=2)
        policyc("--import", "list", rc=2)


if __name__ == "__main__":
    cases = Cases()
    for case in (squid_names, squid_conf, lists, refused, hostile, empty_and_missing):
        cases.run(case)
    sys.exit(cases.finish())
