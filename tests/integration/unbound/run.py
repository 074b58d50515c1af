#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The module in real Unbound, before real authorities, on loopback. Prints a line per case and ends
with "N passed, N failed".

usage: run.py [--sanitized TREE] [--only WORD] [--keep]
Without --sanitized: on the Unbound that honours the veto and on the plain one, and with modules that
leak on purpose, which must be found out. With it: a smaller run on one sanitizer build."""

import argparse
import concurrent.futures
import itertools
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

import filtered
import limited
import pinned
from lab import (BUILD, CLIENT_A, CLIENT_B, GATEWAY, IGNORED, STRANGER, TREES, Authority, Failure, Lab,
                 Process, Unbound, addresses, check, describe, ede, expect_address, expect_denied,
                 free_port, read, sanitizer_reports, soa_of, wait_for, write)

N_NAMES = 400
ZONE = "race.example"


# ---- what the world of the tests looks like ----

def address(i):
    return "198.51.%d.%d" % (100 + i // 250, 1 + i % 250)


def ttl(i):
    """Never kept, kept for a second, kept."""
    return (0, 1, 3600)[i // 4 % 3]


def race_zone():
    lines = ["$ORIGIN %s." % ZONE, "@ 300 SOA ns host 1 3600 600 86400 5", "@ 300 NS ns",
             "ns 300 A 127.0.0.1"]
    lines += ["h%d %d A %s" % (i, ttl(i), address(i)) for i in range(N_NAMES)]
    lines += ["rich 300 A 198.51.100.1", "rich 300 A 198.51.100.2", "rich 300 AAAA 2001:db8::1",
              "rich 300 TXT \"text\"", "rich 300 HTTPS 1 . alpn=h2",
              "alias 300 CNAME target", "target 300 A 198.51.100.3",
              "*.wild 300 A 198.51.100.4", "short 1 A 198.51.100.5", "prefetch 10 A 198.51.100.6",
              "_sip._tcp 300 SRV 1 1 443 rich", "onlya 300 A 198.51.100.7"]
    return "\n".join(lines) + "\n"


EXTRA = ["rich", "alias", "short", "prefetch", "_sip._tcp", "onlya", "missing"]


# Cases other than those of limits ask as fast as they can.
ANY_RATE = "{dns: 1000000/s, dns_names: 1000000/s, dns_octets: 1GiB/s}"


def profile(name, classes, ttl_s, extra=(), deny=()):
    names = ["h%d.%s" % (i, ZONE) for i in range(N_NAMES) if i % 4 in classes]
    names += ["%s.%s" % (e, ZONE) if not e.endswith(".") else e[:-1] for e in extra]
    text = "  %s:\n    presets: []\n    limits: %s\n    dns: {deny_ttl: %ds}\n    allowlist:\n" % (name, ANY_RATE, ttl_s)
    text += "".join("      - \"%s\"\n" % n for n in names) if names else "      []\n"
    if deny:
        text += "    deny:\n" + "".join("      - \"%s\"\n" % n for n in deny)
    return text


def policy_text(alpha, beta, revision, ttl_s, extra=(), deny=(), ignore=False):
    return ("version: 1\nrevision: \"%s\"\npresets_version: \"2026.11\"\n"
            "network: {presets: [], allowlist: []}\n"
            "profiles:\n%s%s"
            "sources: {%s/32: alpha, %s/32: beta}\nresolver_clients: [%s/32]\n%s" %
            (revision, profile("alpha", alpha, ttl_s, extra, deny), profile("beta", beta, ttl_s),
             CLIENT_A, CLIENT_B, GATEWAY,
             "unlisted_sources: {ignore: [%s/32]}\n" % IGNORED if ignore else ""))


ALPHA_EXTRA = EXTRA + ["*.wild", "dead.example.", "*.dead.example.", "x.held.example.",
                       "chain.held.example.", "x.counted.example.", "a.bogus.example."]


class World:
    """What the cases share."""

    def __init__(self, lab, args):
        self.lab = lab
        self.args = args
        self.sanitized = args.sanitized
        self.authority = Authority(lab, {ZONE: race_zone()})
        self.signed, self.anchors = self.make_signed()
        self.dead_port = free_port()
        self.stubs = {ZONE: self.authority.port, "dead.example": self.dead_port}
        old = policy_text({0, 1}, {0, 2}, "old", 5, ALPHA_EXTRA)
        new = policy_text({0, 2}, {0, 3}, "new", 7, ALPHA_EXTRA,
                          ["h%d.%s" % (i, ZONE) for i in range(N_NAMES) if i % 4 == 3])
        self.old = lab.policy(old)
        self.new = lab.policy(new)
        self.ignoring = lab.policy(policy_text({0}, set(), "ignoring", 5, ignore=True))
        self.v6 = lab.policy(old.replace("sources: {", "sources: {\"::1/128\": alpha, "))
        self.names = write(lab.path("names"), self.expectations(
            {0: ("ok", "ok"), 1: ("ok", "nx:not-listed:5"), 2: ("nx:not-listed:5", "ok"),
             3: ("nx:not-listed:5", "nx:not-listed:5")}))
        self.swap_names = write(lab.path("swap-names"), self.expectations(
            {0: ("ok", "ok"),
             1: ("ok|nx:not-listed:7", "nx:not-listed:5|nx:not-listed:7"),
             2: ("nx:not-listed:5|ok", "ok|nx:not-listed:7"),
             3: ("nx:not-listed:5|nx:denied-entry:7", "nx:not-listed:5|ok")}))

    def expectations(self, by_class):
        return "".join("h%d.%s %s %s %s\n" % ((i, ZONE, address(i)) + by_class[i % 4])
                       for i in range(N_NAMES))

    def make_signed(self):
        good, anchor = self.lab.sign(ZONE, race_zone())
        bogus, bogus_anchor = self.lab.sign("bogus.example", "$ORIGIN bogus.example.\n"
                                        "@ 300 SOA ns host 1 3600 600 86400 5\n@ 300 NS ns\n"
                                        "ns 300 A 127.0.0.1\na 300 A 198.51.100.8\n")
        bogus = bogus.replace("198.51.100.8", "198.51.100.9")
        return (Authority(self.lab, {ZONE: good, "bogus.example": bogus}),
                "".join("  trust-anchor: \"%s\"\n" % a for a in (anchor, bogus_anchor)))

    # one kind of Unbound with its module: (tree, path of the module)
    def kinds(self):
        if self.sanitized:
            return {"veto": (self.sanitized, BUILD + "/cx_unbound.so"),
                    "own-cache": (self.sanitized, BUILD + "/own-cache/cx_unbound.so")}
        return {"veto": ("unbound", BUILD + "/cx_unbound.so"),
                "own-cache": ("unbound-plain", BUILD + "/plain/cx_unbound.so")}

    def unbound(self, kind, policy=None, validator=False, server="", **more):
        tree, module = self.kinds()[kind]
        stubs = more.pop("stubs", None) or dict(self.stubs)
        if validator:
            stubs.update({ZONE: self.signed.port, "bogus.example": self.signed.port})
            server += self.anchors
        u = Unbound(self.lab, tree, module, policy=policy or self.old, stubs=stubs, server=server,
                    validator=validator, **more)
        mode = "mode=veto" if kind == "veto" else "mode=own-cache"
        if more.get("wait", True):
            check(mode in read(u.log), "not in %s: %s" % (mode, read(u.log)[-1500:]))
        return u


class HeldAuthority(threading.Thread):
    """Answers questions only while open; counts every packet. The keys of `aliases` are CNAMEs. With an
    rcode, each answer is that failure."""

    def __init__(self, aliases=None, rcode=None):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.aliases = aliases or {}
        self.rcode = rcode
        self.open = threading.Event()
        self.packets = []
        self.waiting = []
        self.lock = threading.Lock()
        self.start()

    def run(self):
        while True:
            try:
                wire, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            q = dns.message.from_wire(wire)
            with self.lock:
                self.packets.append(q.question[0].name.to_text().lower())
                self.waiting.append((q, peer))
            if self.open.is_set():
                self.flush()

    def flush(self):
        with self.lock:
            todo, self.waiting = self.waiting, []
        for q, peer in todo:
            r = dns.message.make_response(q)
            r.flags |= dns.flags.AA
            name = q.question[0].name
            target = self.aliases.get(name.to_text().lower())
            if self.rcode is not None:
                r.set_rcode(self.rcode)
            elif target:
                r.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", target))
            elif q.question[0].rdtype == dns.rdatatype.A:
                r.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "198.51.100.77"))
            else:
                r.authority.append(dns.rrset.from_text(name.parent(), 5, "IN", "SOA",
                                                       "ns. host. 1 2 3 4 5"))
            self.sock.sendto(r.to_wire(), peer)

    def release(self):
        self.open.set()
        self.flush()

    def close(self):
        self.sock.close()


class Later:
    """A query on its way: asked in another thread."""

    def __init__(self, u, *args, **more):
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.future = self.pool.submit(u.ask, *args, **more)

    def done(self):
        return self.future.done()

    def result(self):
        try:
            return self.future.result(15)
        finally:
            self.pool.shutdown(wait=False)


# ---- the races ----

RESULT = re.compile(r"sent (\d+) answered (\d+) lost (\d+) wrong (\d+)")


class Race(Process):
    def __init__(self, world, u, queries, names=None, seed=1, per_s=None, udp=6, tcp=2):
        self.u = u
        log = world.lab.new("race")
        argv = [BUILD + "/race", str(u.port), str(queries), str(seed), names or world.names,
                CLIENT_A, CLIENT_B, str(udp), str(tcp)] + ([str(per_s)] if per_s else [])
        r, w = os.pipe()
        os.set_inheritable(r, True)
        self.hold = w
        self.log = log
        with open(log, "ab") as out:
            self.p = subprocess.Popen(argv, stdin=r, stdout=out, stderr=out, cwd=world.lab.dir)
        os.close(r)
        world.lab.processes.append(self)

    def finish(self, seconds=180):
        if self.hold is not None:
            os.close(self.hold)
            self.hold = None
        self.p.wait(seconds)
        text = read(self.log)
        m = RESULT.search(text)
        check(m, "the race broke off: %s; %s" % (text, read(self.u.log)[-500:]))
        out = dict(zip(("sent", "answered", "lost", "wrong"), map(int, m.groups())))
        out["seen"] = {(c, o): int(n) for c, o, n in
                       re.findall(r"^seen (\S) (\S+) (\d+)$", text, re.M)}
        out["text"] = text
        return out


def race_case(world, kind, validator):
    queries = 20000 if world.sanitized else 200000
    u = world.unbound(kind, validator=validator)
    r = Race(world, u, queries, seed=len(kind) + validator).finish()
    u.stop()
    check(r["wrong"] == 0, r["text"])
    # A sanitizer's Unbound is slow enough for a busy machine to lose a packet; another one loses none.
    check(r["sent"] >= queries and r["lost"] <= (queries // 100 if world.sanitized else 0), r["text"])
    check(read(u.log).count("refusing-all") == 0, read(u.log))
    check(all(r["seen"][k] for k in (("a", "ok"), ("b", "ok"), ("a", "nx:not-listed:5"),
                                     ("b", "nx:not-listed:5"))), r["text"])
    return "%d answers" % r["answered"]


def swap_case(world, kind):
    swaps = 30 if world.sanitized else 200
    per_s = 800 if world.sanitized else 5000
    path = world.lab.new("swapped.bin")
    world.lab.replace(path, world.old)
    u = world.unbound(kind, policy=path)
    control = Race(world, u, 3 * per_s, per_s=per_s, seed=3).finish()
    check(control["wrong"] == 0, control["text"])
    race = Race(world, u, int(0.1 * swaps * per_s), names=world.swap_names, per_s=per_s, seed=4)
    loaded = read(u.log).count("policy-loaded")
    for i in range(swaps):
        world.lab.replace(path, world.new if i % 2 == 0 else world.old)
        wait_for("policy %d in force" % i,
                 lambda n=loaded + i + 1: read(u.log).count("policy-loaded") >= n, step=0.005)
    r = race.finish()
    u.stop()
    check(r["wrong"] == 0, r["text"])
    check(r["lost"] <= control["lost"], "%d lost, %d without swaps" % (r["lost"], control["lost"]))
    for seen in (("a", "nx:not-listed:5"), ("a", "nx:not-listed:7"), ("a", "nx:denied-entry:7"),
                 ("b", "nx:not-listed:5"), ("b", "nx:not-listed:7"), ("a", "ok"), ("b", "ok")):
        check(r["seen"][seen] > 0, "never seen: %s %s" % (seen, r["text"]))
    return "%d answers, %d policies" % (r["answered"], swaps)


def leak_case(world, module, what):
    """The suite must be able to fail."""
    u = Unbound(world.lab, "unbound", BUILD + "/leaky/" + module, policy=world.old,
                stubs=world.stubs)
    r = Race(world, u, 40000, seed=5).finish()
    u.stop()
    check(r["wrong"] > 0, "no leak was found with " + what)
    return "%d leaks found, as there must be" % r["wrong"]


# ---- one at a time ----

def case_answers(world, kind):
    """Each kind of answer, over UDP and TCP, fresh and cached."""
    u = world.unbound(kind)
    for tcp in (False, True):
        for _ in range(2):
            expect_address(u.ask("h1." + ZONE, tcp=tcp), address(1))
            expect_denied(u.ask("h1." + ZONE, client=CLIENT_B, tcp=tcp), "not-listed", ttl=5)
            expect_address(u.ask("h2." + ZONE, client=CLIENT_B, tcp=tcp), address(2))
            expect_denied(u.ask("h2." + ZONE, tcp=tcp), "not-listed", ttl=5)
        expect_denied(u.ask("h0." + ZONE, client=STRANGER, tcp=tcp), "unknown-source", 18)
        expect_denied(u.ask("x" + ZONE, tcp=tcp), "not-listed")
        expect_denied(u.ask("com", tcp=tcp), "not-listed")
        expect_denied(u.ask("h1.%s.evil.example" % ZONE, tcp=tcp), "not-listed")
        expect_denied(u.ask("192.0.2.1", tcp=tcp), "ip-literal")
        expect_denied(u.ask("a\\000b." + ZONE, tcp=tcp), "bad-name")
        expect_denied(u.ask("a\\.b." + ZONE, tcp=tcp), "bad-name")
        expect_denied(u.ask(".", "NS", tcp=tcp), "bad-name")
        longest = ".".join(["a" * 63] * 3 + ["b" * 61])
        expect_denied(u.ask(longest, tcp=tcp), "not-listed")
    r = u.ask("H1.RaCe.ExAmPlE")
    expect_address(r, address(1))
    check(r.question[0].name.to_text() == "H1.RaCe.ExAmPlE.", "the case of the question is gone")
    r = u.ask("H2.RaCe.ExAmPlE")
    expect_denied(r, "not-listed")
    check(soa_of(r).name.to_text().lower() == ZONE + ".", "SOA of " + soa_of(r).name.to_text())
    expect_address(u.ask("deep.er.wild." + ZONE), "198.51.100.4")
    expect_denied(u.ask("wild." + ZONE), "not-listed")
    expect_address(u.ask("h1." + ZONE, client=GATEWAY), address(1))
    expect_address(u.ask("h2." + ZONE, client=GATEWAY), address(2))
    expect_denied(u.ask("h3." + ZONE, client=GATEWAY), "not-listed")
    r = u.ask("h2." + ZONE, edns=False)
    check(r.rcode() == dns.rcode.NXDOMAIN and r.edns == -1 and soa_of(r), describe(r))
    r = u.ask("h2." + ZONE, payload=512)
    expect_denied(r, "not-listed")
    check(not r.flags & dns.flags.AA and not r.flags & dns.flags.AD and r.flags & dns.flags.RA,
          "flags " + dns.flags.to_text(r.flags))
    u.stop()


def case_query_types(world, kind):
    u = world.unbound(kind)
    for _ in range(2):
        r = u.ask("rich." + ZONE, "TXT")
        check(r.rcode() == 0 and not r.answer and soa_of(r) and ede(r) == (15, "query-type"),
              describe(r))
        r = u.ask("rich." + ZONE, "ANY")
        check(r.rcode() == 0 and len(r.answer) == 1 and ede(r) == (15, "query-type") and
              r.answer[0].rdtype == dns.rdatatype.HINFO and r.answer[0][0].cpu == b"RFC8482",
              describe(r))
        for qtype in ("MX", "NULL", "NS", "SOA", "DNSKEY", "TYPE65280"):
            r = u.ask("rich." + ZONE, qtype)
            check(r.rcode() == 0 and not r.answer and ede(r) == (15, "query-type"),
                  qtype + " " + describe(r))
        for qtype in ("ANY", "TXT", "NS"):
            expect_denied(u.ask("rich." + ZONE, qtype, client=CLIENT_B), "not-listed")
        r = u.ask("rich." + ZONE, rdclass="CH")
        check(r.rcode() == dns.rcode.REFUSED and ede(r) == (15, "malformed"), describe(r))
        r = u.ask("rich." + ZONE, rdclass="HS")
        check(r.rcode() == dns.rcode.REFUSED, describe(r))
    r = u.ask("rich." + ZONE, rd=False)
    check(r.rcode() == dns.rcode.REFUSED and not r.answer, describe(r))
    u.stop()


def sections(r):
    """What it says, but for the time that has passed."""
    return (r.rcode(), r.flags, [sorted(re.sub(r"^(\S+) \d+ ", r"\1 ", line)
                                        for line in s.to_text().split("\n"))
                                 for part in (r.answer, r.authority, r.additional) for s in part])


def case_like_stock(world, kind):
    """What is listed is answered exactly as Unbound alone answers it."""
    u = world.unbound(kind)
    tree, _ = world.kinds()[kind]
    stock = Unbound(world.lab, tree, None, stubs=world.stubs)
    for name, qtype in (("rich", "A"), ("rich", "AAAA"), ("rich", "HTTPS"), ("alias", "A"),
                        ("alias", "CNAME"), ("_sip._tcp", "SRV"), ("onlya", "AAAA"),
                        ("missing", "A"), ("a.wild", "A")):
        for tcp in (False, True):
            mine = sections(u.ask(name + "." + ZONE, qtype, tcp=tcp))
            theirs = sections(stock.ask(name + "." + ZONE, qtype, tcp=tcp))
            check(mine == theirs, "%s %s: %s, not %s" % (name, qtype, mine, theirs))
    u.stop()
    stock.stop()


def case_failures(world, kind):
    """Failures are cached too: each client's own verdict comes first."""
    broken = HeldAuthority(rcode=dns.rcode.REFUSED)
    broken.release()
    u = world.unbound(kind, validator=True, stubs={"dead.example": broken.port})
    for _ in range(3):
        r = u.ask("www.dead.example", timeout=15)
        check(r.rcode() == dns.rcode.SERVFAIL, describe(r))
        expect_denied(u.ask("www.dead.example", client=CLIENT_B), "not-listed")
        r = u.ask("a.bogus.example", timeout=15)
        check(r.rcode() == dns.rcode.SERVFAIL, "bogus: " + describe(r))
        expect_denied(u.ask("a.bogus.example", client=CLIENT_B), "not-listed")
        expect_address(u.ask("h1." + ZONE), address(1))
        check(u.ask("h1." + ZONE, ad=True).flags & dns.flags.AD, "not validated")
    packets = len(broken.packets)
    check(u.ask("www.dead.example").rcode() == dns.rcode.SERVFAIL and len(broken.packets) == packets,
          "the failure is not cached")
    broken.close()
    u.stop()


def case_in_flight(world, kind):
    """The same question of two clients while the authority is silent, in both orders; a name that is
    being looked up for somebody else's alias."""
    held = HeldAuthority({"chain.held.example.": "hidden.held.example."})
    u = world.unbound(kind, stubs={"held.example": held.port})
    try:
        first = Later(u, "x.held.example", timeout=12)
        wait_for("the question at the authority", lambda: held.packets)
        for tcp in (False, True):
            expect_denied(u.ask("x.held.example", client=CLIENT_B, tcp=tcp), "not-listed")
            expect_denied(u.ask("x.held.example", client=STRANGER, tcp=tcp), "unknown-source", 18)
        check(not first.done(), "the authority did not hold")
        second = Later(u, "x.held.example", timeout=12)
        chain = Later(u, "chain.held.example", timeout=12)
        wait_for("the alias at the authority", lambda: "chain.held.example." in held.packets)
        held.release()
        for later in (first, second, chain):
            expect_address(later.result(), "198.51.100.77")
        held.open.clear()
        expect_denied(u.ask("hidden.held.example"), "not-listed")
        expect_denied(u.ask("hidden.held.example", client=CLIENT_B), "not-listed")
        expect_denied(u.ask("x.held.example", client=CLIENT_B), "not-listed")
    finally:
        held.close()
        u.stop()


def case_no_packet(world, kind):
    """A denied name causes no packet to anybody."""
    held = HeldAuthority()
    held.release()
    u = world.unbound(kind, stubs={"counted.example": held.port})
    for name in ("a.counted.example", "counted.example", "b.x.counted.example"):
        for client in (CLIENT_A, CLIENT_B, STRANGER):
            for qtype in ("A", "AAAA", "ANY", "DS"):
                expect_denied(u.ask(name, qtype, client=client),
                              "unknown-source" if client == STRANGER else "not-listed",
                              18 if client == STRANGER else 15)
    check(held.packets == [], "packets: %s" % held.packets)
    expect_address(u.ask("x.counted.example"), "198.51.100.77")
    check("x.counted.example." in held.packets, "the control question did not arrive")
    held.close()
    u.stop()


CORP = """$ORIGIN corp.example.
@ 300 SOA ns host 1 3600 600 86400 5
@ 300 NS ns
ns 300 A 127.0.0.1
wiki 300 A 10.20.0.1
wiki 300 A 169.254.169.254
far 300 CNAME outside.public.example.
"""


def case_resolvers(world, kind):
    """A zone with resolvers of its own, as the compiler writes it for Unbound: its names go there and
    nowhere else, unsigned below a signed parent as they are; nobody else is led into it."""
    inside = Authority(world.lab, {"corp.example": CORP})
    signed, anchor = world.lab.sign("example", "$ORIGIN example.\n@ 300 SOA ns host 1 3600 600 86400 5\n"
                                "@ 300 NS ns\nns 300 A 127.0.0.1\n")
    parent = Authority(world.lab, {"example": signed})
    public = HeldAuthority({"lure.public.example.": "wiki.corp.example."})
    public.release()
    text = """version: 1
presets_version: "2026.11"
network: {presets: [], allowlist: []}
profiles:
  alpha:
    presets: []
    allowlist: ["*.corp.example", "*.public.example"]
    resolvers: {office: {servers: ["127.0.0.1@%d"], zones: [corp.example]}}
  beta: {presets: [], allowlist: ["*.public.example"]}
sources: {%s/32: alpha, %s/32: beta}
""" % (inside.port, CLIENT_A, CLIENT_B)
    source = write(world.lab.new("policy.yaml"), text)
    zones = subprocess.run([os.path.join(BUILD, "cx-policyc"), "--emit", "unbound-forward", source],
                           capture_output=True, text=True, check=True).stdout
    check("corp.example" in zones, zones)
    u = world.unbound(kind, policy=world.lab.policy(text), validator=True,
                      stubs={"example": parent.port, "public.example": public.port},
                      server="  trust-anchor: \"%s\"\n  domain-insecure: \"public.example\"\n" % anchor,
                      more="include: \"%s\"" % write(world.lab.new("zones.conf"), zones))
    for _ in range(2):
        r = u.ask("wiki.corp.example")
        check(addresses(r) == ["10.20.0.1"], "wiki: %s %s" % (describe(r), addresses(r)))
        expect_denied(u.ask("wiki.corp.example", client=CLIENT_B), "not-listed")
        r = u.ask("far.corp.example")
        check(addresses(r) == ["198.51.100.77"], "far: " + describe(r))
        r = u.ask("lure.public.example")
        check(r.rcode() == 0 and not addresses(r), "the lure's entry lifts nothing: " + describe(r))
        expect_denied(u.ask("lure.public.example", client=CLIENT_B), "denied-entry")
        expect_address(u.ask("x.public.example", client=CLIENT_B), "198.51.100.77")
    check(u.ask("no.corp.example").rcode() == dns.rcode.NXDOMAIN, "no.corp.example")
    check(not [p for p in public.packets if "corp" in p], "packets: %s" % public.packets)
    # the resolvers gone: no other is asked instead
    inside.stop()
    u.unbound_control("flush_zone", "corp.example")
    try:
        check(u.ask("late.corp.example", timeout=3).rcode() == dns.rcode.SERVFAIL, "late.corp.example")
    except dns.exception.Timeout:
        pass
    check(not [p for p in public.packets if "corp" in p], "packets: %s" % public.packets)
    public.close()
    u.stop()


def case_expired(world, kind, timeout_ms=0):
    """Expired answers: with serve-expired at once, or after a wait for the authority. At once is the
    worker's doing and not to be had with our own cache."""
    held = HeldAuthority()
    held.release()
    server = "  serve-expired: yes\n"
    if timeout_ms:
        server += "  serve-expired-client-timeout: %d\n" % timeout_ms
    server += "  cache-max-ttl: 1\n"
    u = world.unbound(kind, stubs={"held.example": held.port}, server=server)
    expect_address(u.ask("x.held.example"), "198.51.100.77")
    expect_denied(u.ask("x.held.example", client=CLIENT_B), "not-listed")
    held.open.clear()
    time.sleep(2.2)
    for _ in range(4):
        expect_denied(u.ask("x.held.example", client=CLIENT_B), "not-listed")
        if timeout_ms or kind == "veto":
            r = u.ask("x.held.example", timeout=10)
            expect_address(r, "198.51.100.77")
            check(ede(r) is None or ede(r)[0] == 3, describe(r))
        expect_denied(u.ask("x.held.example", client=STRANGER), "unknown-source", 18)
    held.release()
    time.sleep(0.3)
    expect_denied(u.ask("x.held.example", client=CLIENT_B), "not-listed")
    held.close()
    u.stop()


def case_prefetch(world, kind):
    """A refresh in time for one client is no answer for another."""
    u = world.unbound(kind, server="  prefetch: yes\n  prefetch-key: yes\n")
    name = "prefetch." + ZONE
    expect_address(u.ask(name), "198.51.100.6")
    end = time.monotonic() + 10.6
    time.sleep(9.0)
    while time.monotonic() < end:
        expect_denied(u.ask(name, client=CLIENT_B), "not-listed")
        expect_address(u.ask(name), "198.51.100.6")
        expect_denied(u.ask(name, client=CLIENT_B), "not-listed")
    if kind == "veto":
        stats = u.unbound_control("stats_noreset")
        n = int(re.search(r"^total\.num\.prefetch=(\d+)", stats, re.M).group(1))
        check(n > 0, "nothing was prefetched")
    u.stop()


def case_no_policy_keeps_shut(world, kind):
    """The policy is gone after a reload that keeps the cache: no cached or expired answer gets out."""
    path = world.lab.new("gone.bin")
    world.lab.replace(path, world.old)
    u = world.unbound(kind, policy=path, server="  serve-expired: yes\n")
    expect_address(u.ask("h1." + ZONE), address(1))
    expect_address(u.ask("short." + ZONE), "198.51.100.5")
    time.sleep(1.5)
    os.unlink(path)
    u.unbound_control("reload_keep_cache")
    wait_for("the new start", lambda: read(u.log).count("start of service") == 2)
    for name in ("h1", "short"):
        for client in (CLIENT_A, CLIENT_B, GATEWAY):
            r = u.ask(name + "." + ZONE, client=client)
            check(r.rcode() == dns.rcode.SERVFAIL and ede(r) == (14, "no-policy"), describe(r))
    world.lab.replace(path, world.old)
    u.wait_for_log("policy-loaded")
    wait_for("answers", lambda: u.ask("h1." + ZONE).rcode() == 0)
    expect_denied(u.ask("h1." + ZONE, client=CLIENT_B), "not-listed")
    u.stop()


def case_bad_policies(world, kind):
    good = open(world.old, "rb").read()
    bad = {"missing": None, "empty": b"", "garbage": b"\x00garbage" * 500,
           "truncated": good[:len(good) // 2], "flipped": good[:-40] + b"\xff" + good[-39:]}
    for what, data in bad.items():
        path = world.lab.new("bad.bin")
        if data is not None:
            with open(path, "wb") as f:
                f.write(data)
        u = world.unbound(kind, policy=path, threads=1)
        r = u.ask("h0." + ZONE)
        check(r.rcode() == dns.rcode.SERVFAIL and ede(r) == (14, "no-policy"),
              what + ": " + describe(r))
        check("policy-refused" in read(u.log), what + ": nothing was said")
        if what == "garbage":
            world.lab.replace(path, world.old)
            u.wait_for_log("policy-loaded")
            expect_address(u.ask("h1." + ZONE), address(1))
        u.stop()


def case_old_stays(world, kind):
    """While running: what is put in the policy's place and is no policy changes nothing."""
    path = world.lab.new("stays.bin")
    world.lab.replace(path, world.old)
    u = world.unbound(kind, policy=path, threads=1)
    garbage = write(world.lab.new("garbage"), "no policy\n" * 100)

    def still_old():
        for _ in range(2):
            expect_address(u.ask("h1." + ZONE), address(1))
            expect_denied(u.ask("h2." + ZONE), "not-listed", ttl=5)
            expect_address(u.ask("h2." + ZONE, client=CLIENT_B), address(2))

    still_old()
    world.lab.replace(path, garbage)
    u.wait_for_log("policy-refused")
    still_old()
    os.unlink(path)
    time.sleep(0.3)
    still_old()
    world.lab.replace(path, world.new, 0o666)
    time.sleep(0.3)
    still_old()
    os.chmod(path, 0o644)
    wait_for("the new policy", lambda: ede(u.ask("h1." + ZONE)) == (15, "not-listed"))
    expect_address(u.ask("h2." + ZONE), address(2))
    with open(path, "r+b") as f:  # in place, as nobody should
        f.truncate(100)
    time.sleep(0.3)
    expect_address(u.ask("h2." + ZONE), address(2))
    expect_denied(u.ask("h1." + ZONE), "not-listed", ttl=7)
    u.stop()


def case_shrinking(world, kind):
    """A name that a new policy no longer lists is denied although it is cached."""
    path = world.lab.new("shrinking.bin")
    world.lab.replace(path, world.old)
    u = world.unbound(kind, policy=path)
    expect_address(u.ask("h9." + ZONE), address(9))
    world.lab.replace(path, world.new)
    wait_for("the new policy", lambda: "revision=\"new\"" in read(u.log))
    for _ in range(5):
        expect_denied(u.ask("h9." + ZONE), "not-listed", ttl=7)
    u.stop()


LOCAL = {
    "local-data": "  local-data: \"x.corp.example. A 192.0.2.1\"\n",
    "local-zone": "  local-zone: \"corp.example\" static\n",
    "redirect": "  local-zone: \"corp.example\" redirect\n  local-data: \"corp.example A 192.0.2.1\"\n",
    "always_null": "  local-zone: \"corp.example\" always_null\n",
    "default changed": "  local-zone: \"localhost.\" static\n"
                       "  local-data: \"localhost. A 192.0.2.1\"\n",
}


def local_case(world, kind, server="", more="", allowed="corp.example", modules=None):
    u = world.unbound(kind, server=server, more=more, threads=1, modules=modules)
    check("refusing-all" in read(u.log), "nothing was said")
    r = u.ask("h1." + ZONE)
    check(r.rcode() == dns.rcode.NXDOMAIN and ede(r) == (15, "internal-error"), describe(r))
    u.stop()
    u = world.unbound(kind, server=server, more=more, threads=1, modules=modules,
                      env={"CX_ALLOW_LOCAL_ZONES": "other.example," + allowed})
    check("refusing-all" not in read(u.log), read(u.log))
    expect_address(u.ask("h1." + ZONE), address(1))
    expect_denied(u.ask("h1." + ZONE, client=CLIENT_B), "not-listed")
    u.stop()


def case_local_zones(world, kind):
    for what, server in LOCAL.items():
        try:
            local_case(world, kind, server, allowed="localhost" if "default" in what
                       else "corp.example")
        except Failure as e:
            raise Failure("%s: %s" % (what, e)) from None
    # what changes nothing is no reason to refuse
    u = world.unbound(kind, server="  local-zone: \"plain.example\" transparent\n"
                      "  local-zone: \"10.in-addr.arpa\" nodefault\n", threads=1)
    expect_address(u.ask("h1." + ZONE), address(1))
    u.stop()


def case_auth_zones(world, kind):
    zone = write(world.lab.new("zone"), "$ORIGIN corp.example.\n@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\n"
                 "ns 60 A 192.0.2.1\n")
    auth = "auth-zone:\n  name: \"corp.example\"\n  zonefile: \"%s\"\n  for-downstream: %s\n"
    local_case(world, kind, more=auth % (zone, "yes"))
    u = world.unbound(kind, more=auth % (zone, "no"), threads=1)
    expect_address(u.ask("h1." + ZONE), address(1))
    u.stop()
    view = "view:\n  name: \"guests\"\n  local-data: \"x.corp.example. A 192.0.2.1\"\n"
    local_case(world, kind, more=view)
    rpz = write(world.lab.new("rpz"), "$ORIGIN rpz.corp.example.\n@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\n"
                "evil.example CNAME .\n")
    local_case(world, kind, modules="dynlib respip iterator",
               more="rpz:\n  name: \"rpz.corp.example\"\n  zonefile: \"%s\"\n" % rpz)


def case_module_order(world, kind):
    """Behind another module we would be asked too late."""
    u = world.unbound(kind, modules="respip dynlib iterator", threads=1, wait=False)
    u.wait_until_up()
    check("refusing-all" in read(u.log), read(u.log))
    r = u.ask("h1." + ZONE)
    check(not addresses(r) and r.rcode() != 0, describe(r))
    u.stop()


def case_log_file(world, kind):
    """What the module says stands in Unbound's log, wherever that is, also when it happens later."""
    path, log = world.lab.new("logged.bin"), world.lab.new("unbound.log")
    world.lab.replace(path, world.old)
    u = world.unbound(kind, policy=path, threads=1, wait=False,
                      server="  logfile: \"%s\"\n  log-identity: \"gateway\"\n" % log)
    wait_for("Unbound", lambda: "start of service" in read(log), 30)
    world.lab.replace(path, world.new)
    wait_for("the new policy", lambda: "revision=\"new\"" in read(log))
    lines = [x for x in read(log).splitlines() if " cx: " in x and " pins-" not in x]
    form = re.compile(r"^\w{3} \d\d \d\d:\d\d:\d\d gateway\[%d:0\] (info|notice|error): cx: \S+ " %
                      u.p.pid)
    check(len(lines) == 3 and all(form.match(line) for line in lines), "lines: %s" % lines)
    u.stop()


def case_settings(world, kind):
    for env in ({"CX_MIN_SERIAL": "many"}, {"CX_PUBKEY": "/nonexistent"},
                {"CX_ALLOW_LOCAL_ZONES": "a..b"}):
        u = world.unbound(kind, env=env, threads=1)
        r = u.ask("h1." + ZONE)
        check(not r.answer and r.rcode() in (dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN),
              "%s: %s" % (env, describe(r)))
        u.stop()


def case_ignored_sources(world, kind):
    u = world.unbound(kind, policy=world.ignoring)
    for _ in range(2):
        for i in (0, 1, 3):
            expect_address(u.ask("h%d.%s" % (i, ZONE), client=IGNORED), address(i))
        expect_denied(u.ask("h1." + ZONE), "not-listed")
        expect_denied(u.ask("h1." + ZONE, client=STRANGER), "unknown-source", 18)
    u.stop()


def proxied(client, server_port, wire):
    """A query behind a PROXY v2 header (UDP, IPv4)."""
    return (b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x12, 12) +
            socket.inet_aton(client) + socket.inet_aton("127.0.0.1") +
            struct.pack("!HH", 4242, server_port) + wire)


def case_proxy_protocol(world, kind):
    """Behind a proxy the client is who the proxy says, also for cached answers."""
    port = free_port()
    u = world.unbound(kind, server="  interface: 127.0.0.1@%d\n  proxy-protocol-port: %d\n" %
                      (port, port))
    for client, peer, works in ((CLIENT_A, STRANGER, True), (CLIENT_B, CLIENT_A, False),
                                (CLIENT_A, CLIENT_B, True), (STRANGER, CLIENT_A, False)):
        for _ in range(2):
            q = dns.message.make_query("h1." + ZONE, "A", use_edns=0)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind((peer, 0))
                s.settimeout(6)
                s.sendto(proxied(client, port, q.to_wire()), ("127.0.0.1", port))
                r = dns.message.from_wire(s.recv(4096))
            if works:
                expect_address(r, address(1))
            else:
                check(r.rcode() == dns.rcode.NXDOMAIN and not r.answer, describe(r))
    u.stop()


def case_tls_and_ipv6(world, kind):
    """DNS over TLS, and clients with IPv6 addresses."""
    port = free_port()
    key, cert = world.lab.new("key.pem"), world.lab.new("cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-subj", "/CN=resolver.example", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    u = world.unbound(kind, policy=world.v6, server="  interface: 127.0.0.1@%d\n  tls-port: %d\n"
                      "  tls-service-key: \"%s\"\n  tls-service-pem: \"%s\"\n"
                      "  interface: ::1@%d\n  access-control: ::1/128 allow\n" %
                      (port, port, key, cert, port + 1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for _ in range(2):
        for name, works in (("h1", True), ("h2", False)):
            q = dns.message.make_query(name + "." + ZONE, "A", use_edns=0)
            answers = [dns.query.tls(q, "127.0.0.1", port=port, source=CLIENT_A, timeout=6,
                                     ssl_context=context),
                       dns.query.udp(q, "::1", port=port + 1, timeout=6),
                       dns.query.tcp(q, "::1", port=port + 1, timeout=6)]
            for r in answers:
                if works:
                    expect_address(r, address(1))
                else:
                    expect_denied(r, "not-listed")
    u.stop()


def case_client_subnet(world, kind):
    """With Unbound's own module that keeps answers by client subnet."""
    u = world.unbound(kind, modules="dynlib subnetcache validator iterator",
                      server="  send-client-subnet: 127.0.0.0/8\n  client-subnet-always-forward: yes\n")
    for _ in range(3):
        expect_address(u.ask("h1." + ZONE), address(1))
        expect_denied(u.ask("h1." + ZONE, client=CLIENT_B), "not-listed")
        expect_address(u.ask("h2." + ZONE, client=CLIENT_B), address(2))
        expect_denied(u.ask("h2." + ZONE), "not-listed")
    u.stop()


def case_snooping(world, kind):
    """RD=0 where the operator allows it: judged with the veto, refused altogether without."""
    u = world.unbound(kind, server="  access-control: 127.0.0.0/8 allow_snoop\n")
    if kind == "veto":
        expect_address(u.ask("h9." + ZONE), address(9))
        for _ in range(2):
            expect_denied(u.ask("h9." + ZONE, client=CLIENT_B, rd=False), "not-listed")
            expect_denied(u.ask("below.h9." + ZONE, client=CLIENT_B, rd=False), "not-listed")
            expect_address(u.ask("h9." + ZONE, rd=False), address(9))
    elif not world.sanitized:
        check("refusing-all" in read(u.log), "nothing was said")
        expect_denied(u.ask("h9." + ZONE), "internal-error")
    u.stop()


def case_loaded_cache(world, kind):
    """Entries from outside: judged with the veto. Without, nearly all are dropped when they come in, and
    the rest with the first query that takes the usual way."""
    donor = Unbound(world.lab, world.kinds()[kind][0], None, stubs=world.stubs)
    names = ["h%d.%s" % (i, ZONE) for i in range(9, N_NAMES, 12)]  # kept, listed for A only
    for name in names:
        check(addresses(donor.ask(name)), name)
    dump = donor.unbound_control("dump_cache")
    check(all(name in dump for name in names), "not all was dumped")
    donor.stop()
    u = world.unbound(kind)
    r = subprocess.run([os.path.join(u.tree, "sbin", "unbound-control"), "-c", u.conf, "load_cache"],
                       input=dump, capture_output=True, text=True, check=False)
    check(r.returncode == 0, r.stdout + r.stderr)
    leaked = sum(1 for name in names if u.ask(name, client=CLIENT_B).answer)
    if kind == "veto" or world.sanitized:
        check(leaked == 0, "%d loaded entries were served" % leaked)
    else:
        check(leaked <= 4, "%d loaded entries were served" % leaked)
        expect_address(u.ask("h0." + ZONE), address(0))
    for name in names:
        expect_denied(u.ask(name, client=CLIENT_B), "not-listed")
    u.stop()


def case_audit(world, kind):
    """One event per verdict, whichever way it took; none lost, none twice."""
    u = world.unbound(kind, audit="on", server="  serve-expired: yes\n")
    want = {}

    def ask(name, client, verdict, reason, n=5, qtype="A"):
        for _ in range(n):
            u.ask(name, qtype, client=client)
        want[(client, name, qtype, verdict, reason)] = n

    ask("h1." + ZONE, CLIENT_A, "allow", "allowed")
    ask("h1." + ZONE, CLIENT_B, "deny", "not-listed")
    ask("h0." + ZONE, CLIENT_A, "allow", "allowed")
    ask("h2." + ZONE, CLIENT_B, "allow", "allowed", 7)
    ask("alias." + ZONE, CLIENT_A, "allow", "allowed")
    ask("rich." + ZONE, CLIENT_A, "deny", "query-type", 3, "TXT")
    ask("rich." + ZONE, STRANGER, "deny", "unknown-source")
    total = sum(want.values())
    wait_for("%d events" % total, lambda: read(u.audit).count("\n") >= total)
    u.stop()
    seen = {}
    for line in read(u.audit).splitlines():
        e = json.loads(line)
        check(e["layer"] == "dns" and e["component"] == "unbound", line)
        key = (e["src"], e["name"], e["qtype"], e["verdict"], e["reason"])
        seen[key] = seen.get(key, 0) + 1
    check(seen == want, "events %s, not %s" % (seen, want))


def case_audit_of_failures(world, kind):
    """Cached failures and broken names: one event each, and lines that stay lines."""
    u = world.unbound(kind, validator=True, audit="on")
    n = 0
    for _ in range(3):
        for name, client in (("a.bogus.example", CLIENT_A), ("a.bogus.example", CLIENT_B),
                             ("ev\\010il\\\"." + ZONE, CLIENT_A), ("\\255\\000x", CLIENT_B)):
            u.ask(name, client=client, timeout=15)
            n += 1
    wait_for("%d events" % n, lambda: read(u.audit).count("\n") >= n)
    u.stop()
    lines = read(u.audit).splitlines()
    check(len(lines) == n, "%d lines for %d queries" % (len(lines), n))
    for line in lines:
        json.loads(line)


def swap_until(world, path, stop):
    for source in itertools.cycle((world.new, world.old)):
        if stop.is_set() and source is world.new:
            return
        world.lab.replace(path, source)
        time.sleep(0.101)


def case_reload(world, kind):
    """unbound-control reload under load: the module comes back as it was."""
    path = world.lab.new("reloaded.bin")
    world.lab.replace(path, world.old)
    u = world.unbound(kind, policy=path, server="  log-identity: \"gateway\"\n")
    for i in range(3):
        laters = [Later(u, "www.dead.example", timeout=0.8) for _ in range(4)]
        wait_for("the old policy", lambda: addresses(u.ask("h1." + ZONE)) == [address(1)])
        expect_denied(u.ask("h1." + ZONE, client=CLIENT_B), "not-listed")
        stop = threading.Event()  # the policy changes meanwhile, and something is logged about it
        swapper = threading.Thread(target=swap_until, args=(world, path, stop))
        swapper.start()
        time.sleep(0.2)
        u.unbound_control("reload")
        time.sleep(0.2)
        stop.set()
        swapper.join()
        wait_for("start %d" % (i + 2), lambda n=i + 2: read(u.log).count("start of service") >= n)
        for later in laters:
            try:
                later.result()
            except (dns.exception.Timeout, concurrent.futures.TimeoutError, OSError):
                pass
    wait_for("the old policy", lambda: addresses(u.ask("h1." + ZONE)) == [address(1)])
    expect_denied(u.ask("h1." + ZONE, client=CLIENT_B), "not-listed")
    check(u.stop() == 0, "Unbound ended with %s: %s" % (u.p.returncode, read(u.log)[-800:]))


def case_wrong_build(world):
    """In another program than its own the module refuses to serve."""
    for tree, module in (("unbound-plain", BUILD + "/cx_unbound.so"),
                         ("unbound", BUILD + "/plain/cx_unbound.so")):
        u = Unbound(world.lab, tree, module, policy=world.old, stubs=world.stubs, wait=False)
        wait_for("the end of Unbound", lambda p=u: not p.alive(), 20)
        check("wrong-build" in read(u.log) and "start of service" not in read(u.log), read(u.log))


def case_exports(world):
    """Six entry points and nothing else."""
    for module in {m for _, m in world.kinds().values()}:
        out = subprocess.run(["nm", "-D", "--defined-only", module], capture_output=True, text=True,
                             check=True).stdout
        names = sorted(line.split()[-1] for line in out.splitlines() if " T " in line or
                       " D " in line or " B " in line or " W " in line)
        names = [n for n in names if not n.startswith(("__asan", "__odr_asan", "__tsan"))]
        check(names == ["clear", "deinit", "get_mem", "inform_super", "init", "operate"],
              "exports %s" % names)


def case_shipped_configuration(world):
    """conf/unbound as it stands is accepted, and only finds the module where it was put."""
    tree = os.path.join(TREES, "unbound", "sbin", "unbound-checkconf")
    conf = os.path.join(os.path.dirname(__file__), "..", "..", "..", "conf", "unbound")
    fragment = os.path.abspath(os.path.join(conf, "cx.conf"))
    gateway = read(os.path.join(conf, "gateway.conf.example"))
    gateway = gateway.replace("/etc/unbound/cx.conf", fragment).replace("\"unbound\"", "\"\"")
    for path in (fragment, write(world.lab.new("gateway.conf"), gateway)):
        r = subprocess.run([tree, path], capture_output=True, text=True, check=False)
        check(r.returncode == 0, r.stdout + r.stderr)
    text = read(fragment).replace("/usr/lib/cx/cx_unbound.so", world.kinds()["veto"][1])
    u = Unbound(world.lab, "unbound", None, policy=world.old, stubs=world.stubs,
                more="include: \"%s\"" % write(world.lab.new("cx.conf"), text),
                modules="dynlib validator iterator")
    check("refusing-all" not in read(u.log) and "mode=veto" in read(u.log), read(u.log))
    expect_address(u.ask("h1." + ZONE), address(1))
    for name in ("localhost", "x.test", "1.0.0.10.in-addr.arpa"):
        expect_denied(u.ask(name), "not-listed")
    u.stop()


# ---- the run ----

EACH_KIND = [case_answers, case_query_types, case_like_stock, case_failures, case_in_flight,
             case_no_packet, case_resolvers, case_expired, case_no_policy_keeps_shut, case_bad_policies, case_old_stays,
             case_shrinking, case_log_file, case_local_zones, case_auth_zones, case_module_order,
             case_settings,
             case_ignored_sources, case_proxy_protocol, case_tls_and_ipv6, case_client_subnet,
             case_snooping, case_loaded_cache, case_audit, case_audit_of_failures, case_reload,
             *filtered.CASES, *limited.CASES, *pinned.CASES]


def quick_cases(world):
    for kind in world.kinds():
        yield "prefetch, " + kind, lambda k=kind: case_prefetch(world, k)
    for kind in world.kinds():
        for f in EACH_KIND:
            yield ("%s, %s" % (f.__name__[5:].replace("_", " "), kind),
                   lambda g=f, k=kind: g(world, k))
        yield ("expired after a wait, " + kind,
               lambda k=kind: case_expired(world, k, timeout_ms=150))
    yield "exports", lambda: case_exports(world)
    if not world.sanitized:
        yield "wrong build", lambda: case_wrong_build(world)
        yield "shipped configuration", lambda: case_shipped_configuration(world)


def heavy_cases(world):
    for kind in world.kinds():
        for validator in (False, True):
            yield ("race, %s, validator %s" % (kind, "on" if validator else "off"),
                   lambda k=kind, v=validator: race_case(world, k, v))
    if not world.sanitized:
        yield ("a leak is found: stock cache",
               lambda: leak_case(world, "cx_unbound_stock_cache.so", "stock cache behaviour"))
        yield ("a leak is found: shared in flight",
               lambda: leak_case(world, "cx_unbound_shared_flight.so", "in-flight sharing"))


def swap_cases(world):
    for kind in world.kinds():
        yield "policies replaced under load, " + kind, lambda k=kind: swap_case(world, k)


class Score:
    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = 0

    def run(self, name, body):
        start = time.monotonic()
        try:
            note = body() or ""
            ok = True
        except Exception as e:  # whatever goes wrong in a case is that case's failure
            note = "%s: %s" % (type(e).__name__, e)
            ok = False
        with self.lock:
            self.passed += ok
            self.failed += not ok
            print("%s  %s (%.1f s)%s" % ("ok  " if ok else "FAIL", name, time.monotonic() - start,
                                         ": " + str(note)[:3000] if note else ""), flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--sanitized", metavar="TREE")
    p.add_argument("--only", default="")
    p.add_argument("--keep", action="store_true")
    args = p.parse_args()
    score = Score()
    lab = Lab()
    try:
        world = World(lab, args)
        for cases, workers in ((quick_cases, 3), (swap_cases, 2), (heavy_cases, 1)):
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                for name, body in cases(world):
                    if args.only in name:
                        pool.submit(score.run, name, body)
        if args.sanitized:
            for process in lab.processes:
                process.stop()
            reports = sanitizer_reports(lab)
            score.run("no report of a sanitizer", lambda: check(not reports, "\n".join(reports)))
    except Failure as e:
        score.failed += 1
        print("FAIL  setting up: %s" % e, flush=True)
    finally:
        if args.keep:
            for process in lab.processes:
                process.stop()
            print("kept: " + lab.dir)
        else:
            lab.close()
    print("%d passed, %d failed" % (score.passed, score.failed), flush=True)
    return 1 if score.failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
