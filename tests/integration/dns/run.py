#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cx-dns with real clients: before the distribution's Unbound, and before an upstream that is slow, dead or
lies.

usage: run.py [--only TEXT] [--sanitized] [--keep]
BUILD names the build directory. The last line is `N passed, N failed`."""

import argparse
import concurrent.futures
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

from rig import (ANSWER, BUILD, CLIENT_A, HERE, Process, Shim, Stock, Upstream, check, frame, good, is_closed,
                 policy, read, read_message, since, wait_for, write)

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rrset

import filtered
import pinned
from lab import (CLIENT_B, STRANGER, Authority, Failure, Lab, addresses, describe, ede, expect_address,
                 expect_denied, sanitizer_reports, soa_of)

spec = importlib.util.spec_from_file_location("module_suite", os.path.join(HERE, "..", "unbound", "run.py"))
module_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module_suite)


def query_of(name="a.ok.example", qtype="A", **more):
    return dns.message.make_query(name, qtype, use_edns=0, **more)


def honest(q, tcp, send):
    wire = good(q).to_wire()
    send(frame(wire) if tcp else wire)


def compiled(world, text):
    """Also what the agent does not enforce yet."""
    source, out = write(world.lab.new("policy.yaml"), text), world.lab.new("policy.bin")
    done = subprocess.run([os.path.join(BUILD, "cx-policyc"), "--allow-unenforced", source, "-o", out], capture_output=True,
                          text=True, check=False)
    check(done.returncode == 0, done.stderr)
    os.chmod(out, 0o644)
    return out


class Set:
    """One cx-dns before one scripted upstream."""

    def __init__(self, world, say=honest, *more, proxy=False, text=None, **options):
        self.upstream = Upstream(say, proxy)
        self.path = compiled(world, text) if text else world.lab.policy(policy())
        self.shim = Shim(world.lab, self.path, self.upstream.port, *(["--proxy-v2"] if proxy else []), *more, **options)
        self.ask = self.shim.ask

    def __enter__(self):
        return self

    def __exit__(self, *_):
        code = self.shim.stop()
        self.upstream.close()
        check(code == 0, "cx-dns ended with %s: %s" % (code, read(self.shim.log)[-1500:]))


class World:
    def __init__(self, lab, sanitized):
        self.lab = lab
        self.sanitized = sanitized


# ---- before the distribution's Unbound ----

def case_stock(world):
    """Listed: Unbound's answer; not listed: refused, and nobody is asked"""
    zone = "$ORIGIN ok.example.\n@ 300 SOA ns host 1 3600 600 86400 5\n@ 300 NS ns\nns 300 A 127.0.0.1\n" \
           "a 300 A 198.51.100.7\na 300 AAAA 2001:db8::7\nc 300 CNAME a\nt 300 TXT \"x\"\n" + \
           "".join("big 300 A 198.51.%d.%d\n" % (100 + i // 250, 1 + i % 250) for i in range(600))
    authority = Authority(world.lab, {"ok.example": zone})
    u = Stock(world.lab, {"ok.example": authority.port})
    path = world.lab.policy(policy())
    s = Shim(world.lab, path, u.port, listen=("127.0.0.1", "::1"))
    for tcp in (False, True):
        expect_address(s.ask("a.ok.example", tcp=tcp), "198.51.100.7")
        expect_address(s.ask("A.oK.Example", "AAAA", tcp=tcp), "2001:db8::7")
        r = s.ask("c.ok.example", tcp=tcp)
        check(addresses(r) == ["198.51.100.7"] and len(r.answer) == 2, describe(r))
        expect_denied(s.ask("a.no.example", tcp=tcp), "not-listed")
        expect_denied(s.ask("a.ok.example", client=STRANGER, tcp=tcp), "unknown-source", 18)
        r = s.ask("missing.ok.example", tcp=tcp)
        check(r.rcode() == dns.rcode.NXDOMAIN and soa_of(r).name.to_text() == "ok.example.", describe(r))
        r = s.ask("a.ok.example", "ANY", tcp=tcp)
        check(r.rcode() == 0 and "RFC8482" in r.answer[0].to_text(), describe(r))
        expect_address(s.ask("a.ok.example", client="::1", server="::1", tcp=tcp), "198.51.100.7")
    # the question comes back as it was written
    check(s.ask("A.oK.Example").question[0].name.to_text() == "A.oK.Example.", "case")
    # large: cut, then whole over TCP
    r = s.ask("big.ok.example")
    check(r.flags & dns.flags.TC and not r.answer, describe(r))
    r = s.ask("big.ok.example", tcp=True)
    check(not r.flags & dns.flags.TC and len(r.answer[0]) == 600, describe(r))
    s.stop()
    u.stop()
    authority.stop()


def case_filtered(world):
    """Answers are filtered for each client as the module does it, from Unbound's cache too"""
    authority = Authority(world.lab, {filtered.ZONE: filtered.zone()})
    u = Stock(world.lab, {filtered.ZONE: authority.port})
    s = Shim(world.lab, world.lab.policy(filtered.policy()), u.port)
    for _ in range(2):
        filtered.ask_all(s)
    filtered.ask_all(s, tcp=True)
    s.stop()
    u.stop()
    authority.stop()


def race_world(world):
    w = module_suite.World.__new__(module_suite.World)
    w.lab = world.lab
    w.sanitized = world.sanitized
    w.old = world.lab.policy(module_suite.policy_text({0, 1}, {0, 2}, "old", 5))
    w.new = world.lab.policy(module_suite.policy_text({0, 2}, {0, 3}, "new", 7, (), [
        "h%d.%s" % (i, module_suite.ZONE) for i in range(module_suite.N_NAMES) if i % 4 == 3]))
    nx5, nx7 = "nx:not-listed:5", "nx:not-listed:7"
    w.names = write(world.lab.new("names"), w.expectations({0: ("ok", "ok"), 1: ("ok", nx5), 2: (nx5, "ok"), 3: (nx5, nx5)}))
    w.swap_names = write(world.lab.new("names"), w.expectations({
        0: ("ok", "ok"), 1: ("ok|" + nx7, nx5 + "|" + nx7), 2: (nx5 + "|ok", "ok|" + nx7),
        3: (nx5 + "|nx:denied-entry:7", nx5 + "|ok")}))
    return w


def case_race(world):
    """Two clients, two policies, the same names at the same time: nothing of the other's; policies swapped meanwhile"""
    w = race_world(world)
    authority = Authority(world.lab, {module_suite.ZONE: module_suite.race_zone()})
    # on a loaded machine the authority is late at times: Unbound is not to give it up for that
    u = Stock(world.lab, {module_suite.ZONE: authority.port}, "  infra-cache-min-rtt: 1000\n  so-rcvbuf: 4m\n")
    path = world.lab.new("swapped.bin")
    world.lab.replace(path, w.old)
    s = Shim(world.lab, path, u.port, "--max-open", "1000", audit=False)
    n = 15000 if world.sanitized else 80000
    r = module_suite.Race(w, s, n, per_s=n // 10).finish()
    check(r["wrong"] == 0 and r["lost"] == 0 and r["sent"] >= n, r["text"])
    check(all(r["seen"].get(k) for k in (("a", "ok"), ("b", "ok"), ("a", "nx:not-listed:5"), ("b", "nx:not-listed:5"))),
          r["text"])
    swaps, per_s = (10, 500) if world.sanitized else (40, 3000)
    race = module_suite.Race(w, s, swaps * per_s // 10, names=w.swap_names, per_s=per_s, seed=4)
    loaded = read(s.log).count("policy-loaded")
    for i in range(swaps):
        world.lab.replace(path, w.new if i % 2 == 0 else w.old)
        wait_for("policy %d" % i, lambda k=loaded + i + 1: read(s.log).count("policy-loaded") >= k, step=0.005)
    swapped = race.finish()
    check(swapped["wrong"] == 0 and swapped["lost"] == 0, swapped["text"])
    check(swapped["seen"].get(("a", "nx:not-listed:7")) and swapped["seen"].get(("a", "nx:not-listed:5")), swapped["text"])
    # the control: with a policy that lists everything for both, the same expectations see it
    world.lab.replace(path, world.lab.policy(module_suite.policy_text({0, 1, 2, 3}, {0, 1, 2, 3}, "open", 5)))
    s.wait_for_log("revision=\"open\"")
    log = world.lab.new("control")
    with open(log, "wb") as out:
        code = subprocess.run([BUILD + "/race", str(s.port), "2000", "9", w.names, CLIENT_A, CLIENT_B, "2", "1"],
                              stdin=subprocess.DEVNULL, stdout=out, timeout=60, check=False).returncode
    check(code == 1 and "wrong 0" not in read(log), "the race does not see a leak: " + read(log))
    s.stop()
    u.stop()
    authority.stop()
    return "%d answers" % (r["answered"] + swapped["answered"])


def case_proxied(world):
    """PROXYv2: Unbound sees the client's own address, over UDP and TCP, and may refuse it"""
    authority = Authority(world.lab, {"ok.example": "$ORIGIN ok.example.\n@ 300 SOA ns host 1 3600 600 86400 5\n"
                                      "@ 300 NS ns\nns 300 A 127.0.0.1\n" +
                                      "".join("a 300 A 198.51.100.%d\n" % (i + 1) for i in range(200))})
    u = Stock(world.lab, {"ok.example": authority.port}, proxy=True,
              more="  log-queries: yes\n  access-control: %s/32 refuse\n" % CLIENT_B)
    s = Shim(world.lab, world.lab.policy(policy()), u.port, "--proxy-v2")
    check(len(addresses(s.ask("a.ok.example", tcp=True))) == 200, "TCP")
    check("info: %s a.ok.example. A IN" % CLIENT_A in read(u.log), read(u.log)[-800:])
    r = s.ask("a.ok.example", client=CLIENT_B)
    check(r.rcode() == dns.rcode.REFUSED, describe(r))
    s.stop()
    u.stop()
    authority.stop()


def case_pinned(world):
    """What cx-dns answers is pinned for the agent, to whom it was answered"""
    runtime = world.lab.new("run")
    os.makedirs(os.path.join(runtime, "pins"))
    authority = Authority(world.lab, {pinned.ZONE: pinned.RECORDS})
    u = Stock(world.lab, {pinned.ZONE: authority.port})
    path = world.lab.policy(pinned.policy())
    s = Shim(world.lab, path, u.port, runtime=runtime)
    agent = pinned.Agent(world.lab, path, runtime)
    check(agent.tcp("198.51.100.20")[0] == "deny", "before DNS")
    check(addresses(s.ask("git.pin.example")) == ["198.51.100.20", "198.51.100.21"], "filtered")
    wait_for("the pin", lambda: agent.tcp("198.51.100.20") == ("allow", "raw"), 5, 0.05)
    check(agent.tcp("198.51.100.20", client=CLIENT_B)[0] == "deny", "another client")
    check(agent.tcp("10.0.0.1")[0] == "deny", "what was removed")
    s.ask("lure.pin.example")
    check(agent.tcp("198.51.100.40")[0] == "deny", "an alias into never")
    s.stop()
    s = Shim(world.lab, path, u.port, runtime=runtime)
    check(agent.tcp("198.51.100.20") == ("allow", "raw"), "after a restart")
    check(os.listdir(os.path.join(runtime, "pins")) == ["dns"], "%s" % os.listdir(os.path.join(runtime, "pins")))
    agent.stop()
    s.stop()
    u.stop()
    authority.stop()


# ---- messages ----

def case_messages(world):
    """What is no question is answered as RFC 1035 and 6891 ask, or not at all"""
    with Set(world) as s:
        def flags_of(wire):
            r = s.shim.raw(wire)
            return None if r is None else (struct.unpack("!H", r[:2])[0], r[2] >> 7, r[3] & 15)

        q = query_of().to_wire()
        plain = dns.message.make_query("a.ok.example", "A").to_wire()
        i = struct.unpack("!H", plain[:2])[0]
        question = plain[12:]
        for what, wire, rcode in (
                ("two questions", plain[:4] + b"\0\2" + plain[6:] + question, 1),
                ("no question", plain[:4] + b"\0\0\0\0\0\0\0\0", 1),
                ("trailing octet", plain + b"\0", 1),
                ("cut", plain[:-1], 1),
                ("an answer in a question", plain[:6] + b"\0\1" + plain[8:] + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4", 1),
                ("pointer as a name", plain[:12] + b"\xc0\x0c\0\1\0\1", 1),
                ("a long label", plain[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1", 1),
                ("a long name", plain[:12] + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1", 1),
                ("TC set", plain[:2] + bytes([plain[2] | 2]) + plain[3:], 1),
                ("too long", plain + b"\0" * 2000, 1)):
            check(flags_of(wire) == (i, 1, rcode), "%s: %s" % (what, flags_of(wire)))
        for opcode in (1, 2, 4, 5, 6, 15):
            check(flags_of(plain[:2] + bytes([plain[2] | opcode << 3]) + plain[3:]) == (i, 1, 4), "opcode %d" % opcode)
        for what, wire in (("a response", plain[:2] + bytes([plain[2] | 0x80]) + plain[3:]), ("nothing", b""),
                           ("half a header", plain[:11])):
            check(s.shim.raw(wire, timeout=0.3) is None, what)
        check(s.ask("a.ok.example", rd=False).rcode() == dns.rcode.REFUSED, "RD=0")
        check(s.ask("version.bind", "TXT", rdclass="CH").rcode() == dns.rcode.REFUSED, "class CH")
        check(s.ask("a.ok.example", rdclass="CH").rcode() == dns.rcode.REFUSED, "class CH of a listed name")
        check(s.ask("a.ok.example", "AXFR").rcode() == dns.rcode.REFUSED, "AXFR")
        check(s.ask("a.ok.example", "TKEY").rcode() == dns.rcode.FORMERR, "TKEY")
        check(q[-11:-8] == b"\0\0\x29", "where the OPT stands")
        r = dns.message.from_wire(s.shim.raw(q[:-5] + b"\1" + q[-4:]))
        check(r.rcode() == dns.rcode.BADVERS and r.edns == 0 and not r.answer, describe(r))
        check(s.shim.raw(q) is not None, "still there")
        check(not s.upstream.asked[1:], "upstream was asked: %d" % len(s.upstream.asked))
        return "%d questions upstream" % len(s.upstream.asked)


def case_edns(world):
    """Our own OPT: no option of a client goes on, DO does; payload sizes count; no OPT without one"""
    def say(q, tcp, send):
        r = good(q, n=40)
        r.use_edns(0, options=[dns.edns.GenericOption(10, b"12345678"), dns.edns.EDEOption(22, "why")])
        wire = r.to_wire(max_size=65535)
        send(frame(wire) if tcp else wire)

    with Set(world, say) as s:
        ecs = dns.edns.ECSOption("203.0.113.0", 24)
        r = s.ask("CASE.ok.example", options=[ecs, dns.edns.GenericOption(10, b"cookie__")], want_dnssec=True, payload=4096)
        check(len(r.answer[0]) == 40 and r.ednsflags & dns.flags.DO, describe(r))
        check([o.otype for o in r.options] == [dns.edns.EDE] and ede(r) == (22, "why"), "%s" % r.options)
        q = dns.message.from_wire(s.upstream.asked[0][0])
        check(not q.options and q.ednsflags & dns.flags.DO, "%s %x" % (q.options, q.ednsflags))
        check(q.question[0].name.to_text() == "case.ok.example.", "asked upstream: %s" % q.question)
        check(r.question[0].name.to_text() == "CASE.ok.example.", "not as it was asked")
        r = s.ask("b.ok.example", edns=False)
        check(r.flags & dns.flags.TC and r.edns == -1 and not r.answer, describe(r))
        check(not dns.message.from_wire(s.upstream.asked[1][0]).ednsflags & dns.flags.DO, "DO")
        check(s.ask("b.ok.example", payload=512).flags & dns.flags.TC, "512")
        check(len(s.ask("b.ok.example", payload=1232).answer[0]) == 40, "1232")
        check(len(s.ask("b.ok.example", payload=100, tcp=True).answer[0]) == 40, "TCP")
        r = s.ask("no.example", edns=False)
        check(r.rcode() == dns.rcode.NXDOMAIN and r.edns == -1, describe(r))


def case_local_address(world):
    """On a wildcard listener the answer leaves from the address that was asked, IPv4 and IPv6"""
    with Set(world, listen=("0.0.0.0", "::")) as s:
        for server in ("127.0.0.1", "127.0.0.53", "127.9.8.7"):
            expect_address(s.ask("a.ok.example", server=server), ANSWER)  # dnspython checks who answers
            expect_denied(s.ask("a.no.example", server=server), "not-listed")
        for tcp in (False, True):
            expect_address(s.ask("a.ok.example", server="::1", client="::1", tcp=tcp), ANSWER)


# ---- a hostile upstream ----

def lies():
    """name: (what the upstream says before, or instead of, the truth; whether the truth follows)"""
    def altered(q, change):
        r = good(q, "203.0.113.66")
        change(r)
        return r.to_wire()

    def other_id(r):
        r.id ^= 0x55aa

    def other_name(r):
        r.question = [dns.rrset.from_text("b.ok.example.", 0, "IN", "A")]
        r.question[0].clear()

    def no_question(r):
        r.question = []

    def query(r):
        r.flags &= ~dns.flags.QR

    wrong = {
        "wrong id": lambda q, send: send(altered(q, other_id)),
        "wrong question": lambda q, send: send(good(query_of("b.ok.example", id=q.id), "203.0.113.66").to_wire()),
        "wrong type": lambda q, send: send(good(query_of(q.question[0].name, "AAAA", id=q.id), "203.0.113.66").to_wire()),
        "no question": lambda q, send: send(altered(q, no_question)),
        "not a response": lambda q, send: send(altered(q, query)),
        "another port": lambda q, send: send(altered(q, lambda r: None), other=True),
        "nothing": lambda q, send: send(b""),
        "noise": lambda q, send: send(os.urandom(40)),
        "half a header": lambda q, send: send(struct.pack("!H", q.id) + b"\x81\x80"),
    }
    return wrong


def case_lies(world):
    """Answers with a wrong id, question, port or form are passed over, and the right one still counts"""
    wrong = lies()

    def say(q, tcp, send):
        label = q.question[0].name.labels[0].decode()
        for i in range(3):
            list(wrong.values())[int(label[1:])](q, send)
        send(good(q).to_wire())

    with Set(world, say) as s:
        for i, what in enumerate(wrong):
            r = s.ask("l%d.ok.example" % i)
            check(addresses(r) == [ANSWER], "%s: %s %s" % (what, describe(r), addresses(r)))
        # the control: the same octets with the right id, question and port are taken
    with Set(world, lambda q, tcp, send: send(good(q, "203.0.113.66").to_wire())) as s:
        expect_address(s.ask("l0.ok.example"), "203.0.113.66")


def case_malformed_answers(world):
    """An answer that is not well-formed is a failure, and nothing of it is passed on"""
    def name_bomb(wire):
        return wire[:6] + b"\0\2" + wire[8:12]

    def say(q, tcp, send):
        wire = good(q).to_wire()
        label = q.question[0].name.labels[0].decode()
        end = 12 + len(q.question[0].name.to_wire()) + 4
        head = lambda n: wire[:6] + struct.pack("!HHH", n, 0, 0) + wire[12:end]  # noqa: E731
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc6\x33\x64\x4d"
        out = {"cut": wire[:-3], "trailing": wire + b"\0", "count": wire[:6] + b"\xff\xff" + wire[8:],
               "loop": head(1) + b"\xc0" + bytes([end]) + record[2:],
               "forward": head(2) + b"\xc0" + bytes([end + 16]) + record[2:] + record,
               "alias": head(1) + b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\2\xc0" + bytes([end + 12]),
               "length": head(1) + record[:10] + b"\0\x40" + record[12:],
               "twoopt": wire[:10] + b"\0\2" + wire[12:] + b"\0\0\x29\x10\0\0\0\0\0\0\0" * 2,
               "extended": good(q).to_wire()[:10] + b"\0\1" + wire[12:] + b"\0\0\x29\x10\0\1\0\0\0\0\0"}[label]
        send(out)

    with Set(world, say) as s:
        for label in ("cut", "trailing", "count", "loop", "forward", "alias", "length", "twoopt", "extended"):
            r = s.ask("%s.ok.example" % label)
            check(r.rcode() == dns.rcode.SERVFAIL and not r.answer, "%s: %s" % (label, describe(r)))


def case_truncated(world):
    """Cut over UDP: clients over TCP get the whole, from the upstream's TCP; lies and ends there are failures"""
    def say(q, tcp, send):
        label = q.question[0].name.labels[0].decode()
        if not tcp:
            r = good(q, "203.0.113.66")
            if label == "huge":
                r = good(q, n=400)  # more than we said that we take
                send(r.to_wire(max_size=65535))
                return
            r.flags |= dns.flags.TC
            send(r.to_wire())
        elif label in ("whole", "huge"):
            wire = frame(good(q, n=3000).to_wire(max_size=65535))
            for at in range(0, len(wire), 9000):
                send(wire[at:at + 9000])
                time.sleep(0.01)
        elif label == "id":
            q.id ^= 1
            send(frame(good(q).to_wire()))
        elif label == "short":
            send(frame(good(q).to_wire())[:-5])
        elif label == "empty":
            send(b"\0\0")

    with Set(world, say) as s:
        for label in ("whole", "huge"):
            r = s.ask(label + ".ok.example")
            check(r.flags & dns.flags.TC and not r.answer, describe(r))
            r = s.ask(label + ".ok.example", tcp=True)
            check(len(r.answer[0]) == 3000 and not r.flags & dns.flags.TC, describe(r))
        # more at once than there are connections
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            for r in pool.map(lambda i: s.ask("whole.ok.example", tcp=True), range(12)):
                check(len(r.answer[0]) == 3000, describe(r))
        for label in ("id", "short", "empty", "closed"):
            r = s.ask(label + ".ok.example", tcp=True)
            check(r.rcode() == dns.rcode.SERVFAIL and not r.answer, "%s: %s" % (label, describe(r)))


def case_silent(world):
    """Silence is a failure in time, remembered for a moment; a late answer reaches nobody; refusals do not wait"""
    held = []

    def say(q, tcp, send):
        if q.question[0].name.labels[0] == b"quick":
            honest(q, tcp, send)
        else:
            held.append((q, send))

    with Set(world, say, threads=1) as s:
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            later = pool.submit(s.ask, "slow.ok.example")
            wait_for("the question upstream", lambda: held)
            expect_denied(s.ask("a.no.example"), "not-listed")
            expect_address(s.ask("quick.ok.example"), ANSWER)
            check(since(start) < 2 and not later.done(), "waited")
            r = later.result(15)
        check(r.rcode() == dns.rcode.SERVFAIL and ede(r) == (23, "upstream"), describe(r))
        check(4 < since(start) < 8, "%.1f s" % since(start))
        check(len(held) == 2, "asked %d times, not twice" % len(held))
        n = len(held)
        r = s.ask("slow.ok.example")
        check(ede(r) == (13, "upstream") and len(held) == n, describe(r))
        for q, send in held:
            send(good(q, "203.0.113.66").to_wire())
        expect_address(s.ask("quick.ok.example"), ANSWER)
        # a client's port that asked hears nothing of a late answer: there is one answer to one question
        wait_for("the failure to be forgotten", lambda: ede(s.ask("slow.ok.example", timeout=15)) != (13, "upstream"), 20, 0.3)


def case_dead(world):
    """Without an upstream: failures soon, refusals at once, said once; and it comes back"""
    with Set(world) as s:
        expect_address(s.ask("a.ok.example"), ANSWER)
        port = s.upstream.port
        s.upstream.close()
        start = time.monotonic()
        for i in range(3):
            r = s.ask("dead%d.ok.example" % i)
            check(r.rcode() == dns.rcode.SERVFAIL, describe(r))
            expect_denied(s.ask("a.no.example"), "not-listed")
        check(since(start) < 10, "%.1f s" % since(start))
        s.upstream = Upstream(honest, port=port)
        wait_for("the upstream", lambda: s.ask("back.ok.example").rcode() == 0, 30, 0.3)
        log = read(s.shim.log)
        check(log.count("upstream-silent") == 1 and log.count("upstream-answers") == 1, log)


def case_late_for_one_port(world):
    """Questions leave from many ports with ids that nobody foresees"""
    with Set(world, threads=1) as s:
        for i in range(120):
            expect_address(s.ask("p%d.ok.example" % i), ANSWER)
        ports = {peer[1] for _, _, peer in s.upstream.asked}
        ids = [struct.unpack("!H", w[:2])[0] for w, _, _ in s.upstream.asked]
        check(len(ports) >= 8, "%d ports" % len(ports))
        check(len(set(ids)) > 110, "%d ids of %d" % (len(set(ids)), len(ids)))
        steps = {(b - a) & 0xffff for a, b in zip(ids, ids[1:])}
        check(len(steps) > 100, "%d steps" % len(steps))


def case_proxy_header(world):
    """The PROXYv2 header names the client, IPv4 and IPv6, datagram and stream"""
    def say(q, tcp, send):
        r = good(q)
        if not tcp:
            r.flags |= dns.flags.TC
        send(frame(r.to_wire()) if tcp else r.to_wire())

    with Set(world, say, proxy=True, listen=("127.0.0.1", "::1")) as s:
        expect_address(s.ask("a.ok.example", tcp=True), ANSWER)
        expect_address(s.ask("a.ok.example", client="::1", server="::1", tcp=True), ANSWER)
        got = [(a, kind) for a, _, kind in s.upstream.clients]
        check(got == [(CLIENT_A, 2), (CLIENT_A, 1), ("::1", 2), ("::1", 1)], "%s" % got)


# ---- one against all ----

def case_outstanding(world):
    """A zone that never answers takes up its asker's share alone"""
    def say(q, tcp, send):
        if b"silent" not in q.question[0].name.labels:
            honest(q, tcp, send)

    with Set(world, say, "--max-open", "50", threads=1) as s:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((CLIENT_A, 0))
            sock.settimeout(1)
            for i in range(300):
                sock.sendto(query_of("n%d.silent.ok.example" % i).to_wire(), ("127.0.0.1", s.shim.port))
                time.sleep(0.0005)
            refused = 0
            try:
                while True:
                    r = dns.message.from_wire(sock.recv(4096))
                    if r.rcode() == dns.rcode.SERVFAIL:
                        break  # the first that was let through, after its time
                    check(r.rcode() == dns.rcode.REFUSED and ede(r) == (15, "rate-limit"), describe(r))
                    refused += 1
            except socket.timeout:
                pass
        check(refused == 250, "%d refused" % refused)
        check(len(set(s.upstream.names())) == 50, "%d asked upstream" % len(set(s.upstream.names())))
        start = time.monotonic()
        for i in range(20):
            expect_address(s.ask("b%d.ok.example" % i, client=CLIENT_B), ANSWER)
        check(since(start) < 2, "the other client waited %.1f s" % since(start))
        wait_for("the share to come back", lambda: s.ask("after.ok.example").rcode() == 0, 15, 0.3)


def case_limits(world):
    """A client beyond its rate is refused, far beyond it not answered; another one is served meanwhile"""
    text = policy().replace("dns: 100000/s", "dns: 20/min")
    with Set(world, text=text, threads=1) as s:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((CLIENT_A, 0))
            sock.settimeout(1)
            for i in range(100):
                sock.sendto(query_of("a.ok.example" if i % 2 else "a.no.example").to_wire(), ("127.0.0.1", s.shim.port))
            seen = {}
            try:
                while True:
                    r = dns.message.from_wire(sock.recv(4096))
                    what = dns.rcode.to_text(r.rcode())
                    check(what != "REFUSED" or ede(r) == (15, "rate-limit"), describe(r))
                    seen[what] = seen.get(what, 0) + 1
            except socket.timeout:
                pass
        # what is not listed stays what it is; beyond twice the rate neither gets an answer
        check(seen == {"NOERROR": 10, "REFUSED": 10, "NXDOMAIN": 20}, "%s" % seen)
        expect_address(s.ask("a.ok.example", client=CLIENT_B), ANSWER)


def case_idle_connections(world):
    """150 idle connections of one client: it keeps 16, another one's are served, and the idle ones are closed"""
    with Set(world, honest, "--tcp-idle", "4") as s:
        held = [s.shim.connect(CLIENT_A) for _ in range(150)]
        wait_for("those beyond its share to be closed", lambda: sum(is_closed(c, 0.01) for c in held) == 134, 10, 0.1)
        start = time.monotonic()
        for i in range(10):
            expect_address(s.ask("a%d.ok.example" % i, client=CLIENT_B, tcp=True), ANSWER)
        check(since(start) < 3, "the other client waited %.1f s" % since(start))
        alive = [c for c in held if not is_closed(c, 0.01)]
        alive[0].settimeout(5)
        alive[0].sendall(frame(query_of().to_wire()))
        check(read_message(alive[0]), "one of its own share")
        wait_for("the idle ones to be closed", lambda: all(is_closed(c, 0.01) for c in held), 15, 0.2)
        expect_address(s.ask("z.ok.example", tcp=True), ANSWER)
        for c in held:
            c.close()


# ---- TCP ----

def case_pipelined(world):
    """60 questions on one connection: all answered, those that need no upstream first"""
    gate = threading.Event()

    def say(q, tcp, send):
        threading.Thread(target=lambda: (gate.wait(5), honest(q, tcp, send)), daemon=True).start()

    with Set(world, say) as s, s.shim.connect() as c:
        ids = {}
        out = b""
        for i in range(60):
            q = query_of("a%d.ok.example" % i if i % 3 == 0 else "a%d.no.example" % i)
            q.id = i
            ids[i] = q
            out += frame(q.to_wire())
        c.sendall(out)
        first = [dns.message.from_wire(read_message(c)) for _ in range(40)]
        check(all(r.id % 3 for r in first), "an answer before its time")
        gate.set()
        rest = [dns.message.from_wire(read_message(c)) for _ in range(20)]
        for r in first + rest:
            check(ids.pop(r.id).is_response(r), "not to that question")
        check(not ids, "unanswered: %s" % list(ids))
        for r in rest:
            expect_address(r, ANSWER)


def case_full_pipeline(world):
    """More questions than a connection may have open wait in it, and are answered in turn"""
    def say(q, tcp, send):
        threading.Timer(0.05, honest, (q, tcp, send)).start()

    with Set(world, say) as s, s.shim.connect() as c:
        n = 200
        sender = threading.Thread(target=lambda: c.sendall(b"".join(
            frame(query_of("a%d.ok.example" % i, id=i).to_wire()) for i in range(n))))
        sender.start()
        seen = {dns.message.from_wire(read_message(c)).id for _ in range(n)}
        sender.join()
        check(seen == set(range(n)), "%d answers" % len(seen))


def case_split(world):
    """Octet by octet, the length too; half a question is closed in time; two in one segment"""
    with Set(world) as s:
        with s.shim.connect() as c:
            for octet in frame(query_of().to_wire()):
                c.sendall(bytes([octet]))
                time.sleep(0.01)
            expect_address(dns.message.from_wire(read_message(c)), ANSWER)
            c.sendall(2 * frame(query_of().to_wire()))
            check(read_message(c) and read_message(c), "two in one")
        for what, data in (("a length alone", b"\0"), ("half a question", frame(query_of().to_wire())[:-1])):
            with s.shim.connect() as c:
                c.sendall(data)
                start = time.monotonic()
                check(is_closed(c, 12), what)
                check(since(start) > 3, "%s: closed after %.1f s" % (what, since(start)))
        for what, data in (("length 0", b"\0\0"), ("less than a header", frame(b"12345")), ("too long", b"\xff\xff" + b"x" * 100)):
            with s.shim.connect() as c:
                c.sendall(data)
                check(is_closed(c, 3), what)
        with s.shim.connect() as c:  # an answer is not answered, and the connection goes on
            q = query_of().to_wire()
            c.sendall(frame(q[:2] + bytes([q[2] | 0x80]) + q[3:]) + frame(q))
            check(dns.message.from_wire(read_message(c)).id == query_of(id=struct.unpack("!H", q[:2])[0]).id, "the second")
        with s.shim.connect() as c:  # closed on the client's side: still answered
            c.sendall(frame(query_of().to_wire()))
            c.shutdown(socket.SHUT_WR)
            expect_address(dns.message.from_wire(read_message(c)), ANSWER)
            check(is_closed(c, 3), "the end")


def case_deaf_client(world):
    """A client that does not read its answers holds up nobody and is closed"""
    whole = {}

    def say(q, tcp, send):
        r = dns.message.make_response(q)
        r.flags |= dns.flags.TC
        if not tcp:
            send(r.to_wire())
            return
        name = q.question[0].name
        if name not in whole:
            whole[name] = good(q, n=1500).to_wire(max_size=65535)
        send(frame(struct.pack("!H", q.id) + whole[name][2:]))

    with Set(world, say, threads=1) as s:
        c = s.shim.connect()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def flood():
            try:
                for i in range(3000):
                    c.sendall(frame(query_of("a.ok.example", id=i).to_wire()))
            except OSError:
                pass

        t = threading.Thread(target=flood, daemon=True)
        t.start()
        for _ in range(5):
            r = s.ask("b.ok.example", client=CLIENT_B, tcp=True)
            check(r.answer and len(r.answer[0]) == 1500, "another client: " + describe(r))
        t.join(40)
        check(not t.is_alive(), "never closed")
        c.close()


# ---- life ----

def case_no_policy(world):
    """No policy: SERVFAIL and EDE 14; one that appears is in force, one that is damaged changes nothing"""
    path = world.lab.new("later.bin")
    upstream = Upstream(honest)
    s = Shim(world.lab, path, upstream.port)
    for tcp in (False, True):
        r = s.ask("a.ok.example", tcp=tcp)
        check(r.rcode() == dns.rcode.SERVFAIL and ede(r) == (14, "no-policy"), describe(r))
    world.lab.replace(path, world.lab.policy(policy()))
    s.wait_for_log("policy-loaded")
    expect_address(s.ask("a.ok.example"), ANSWER)
    write(path, "damaged")
    s.wait_for_log("policy-refused file=\"%s\" error=\"%s" % (path, ""))
    expect_address(s.ask("a.ok.example"), ANSWER)
    os.unlink(path)
    expect_denied(s.ask("a.no.example"), "not-listed")
    check(s.stop() == 0, "exit status")
    upstream.close()


def case_audit(world):
    """Each verdict is written down once, with its outcome; observe passes, and says so"""
    text = policy(more="  mode: observe\n  deny: [shut.ok.example]\n")

    def say(q, tcp, send):
        wire = good(q, "10.0.0.9" if b"in" in q.question[0].name.labels else ANSWER).to_wire()
        send(wire)

    with Set(world, say, text=text, threads=1) as s:
        expect_address(s.ask("a.ok.example"), ANSWER)
        expect_address(s.ask("b.no.example"), ANSWER)
        expect_address(s.ask("shut.ok.example"), ANSWER)
        r = s.ask("in.ok.example")
        check(r.rcode() == 0 and not r.answer and ede(r) == (15, "private-address"), describe(r))

        def lines():
            return [json.loads(line) for line in read(s.shim.audit).splitlines()]

        wait_for("four lines", lambda: len(lines()) == 4, 5)
        got = [(e["component"], e["layer"], e["name"], e["verdict"], e["reason"], e.get("observed", False)) for e in lines()]
        check(got == [("dns", "dns", "a.ok.example", "allow", "allowed", False),
                      ("dns", "dns", "b.no.example", "allow", "not-listed", True),
                      ("dns", "dns", "shut.ok.example", "allow", "denied-entry", True),
                      ("dns", "dns", "in.ok.example", "deny", "private-address", False)], "%s" % got)
        check(lines()[0]["src"] == CLIENT_A and lines()[0]["profile"] == "default", "%s" % lines()[0])


def case_ignored(world):
    """A source that the policy ignores is served as it is, unjudged and unwritten, but for another class"""
    with Set(world, lambda q, tcp, send: send(good(q, "10.0.0.9").to_wire()),
             text=policy() + "unlisted_sources: {ignore: [%s/32]}\n" % STRANGER) as s:
        expect_address(s.ask("any.where.example", client=STRANGER), "10.0.0.9")
        check(s.ask("any.where.example", rdclass="CH", client=STRANGER).rcode() == dns.rcode.REFUSED, "class")
        expect_denied(s.ask("any.where.example"), "not-listed")
        wait_for("the one line", lambda: len(read(s.shim.audit).splitlines()) == 1, 5)


def case_drain(world):
    """SIGTERM: what is under way is still answered"""
    gate = threading.Event()

    def say(q, tcp, send):
        threading.Thread(target=lambda: (gate.wait(5), honest(q, tcp, send)), daemon=True).start()

    with Set(world, say) as s, concurrent.futures.ThreadPoolExecutor(2) as pool:
        later = [pool.submit(s.ask, "a.ok.example", tcp=tcp) for tcp in (False, True)]
        wait_for("both upstream", lambda: len(s.upstream.asked) == 2)
        s.shim.p.send_signal(signal.SIGTERM)
        s.shim.wait_for_log("draining")
        gate.set()
        for f in later:
            expect_address(f.result(10), ANSWER)
        check(s.shim.p.wait(10) == 0, "exit status")


def case_command_line(world):
    """What cannot be is refused before it serves; privileges are given up; a taken port is not shared"""
    def run(*args):
        return subprocess.run([os.path.join(BUILD, "cx-dns"), *args], capture_output=True, text=True, timeout=20, check=False)

    for args in (["-l", "127.0.0.1:1"], ["--upstream", "127.0.0.1@53"], ["-l", "localhost:53", "--upstream", "127.0.0.1"],
                 ["-l", "127.0.0.1:0", "--upstream", "127.0.0.1"], ["-l", "::1:53", "--upstream", "127.0.0.1"],
                 ["-l", "127.0.0.1:53", "--upstream", "127.0.0.1:53"], ["-l", "127.0.0.1:53", "--upstream", "::1", "-t", "0"],
                 ["-l", "127.0.0.1:53", "--upstream", "::1", "--max-open", "x"], ["x"], ["--what"],
                 ["-l", "127.0.0.1:53", "--upstream", "::1", "-u", "nobody-of-this-name"]):
        done = run(*args)
        check(done.returncode == 2 and "Try 'cx-dns --help'" in done.stderr, "%s: %s" % (args, done))
    with Set(world, honest, "-u", "nobody") as s:
        expect_address(s.ask("a.ok.example"), ANSWER)
        status = read("/proc/%d/status" % s.shim.p.pid)
        check("Uid:\t65534\t65534\t65534\t65534" in status and "NoNewPrivs:\t1" in status, status)
        done = run("-l", "127.0.0.1:%d" % s.shim.port, "--upstream", "127.0.0.1@1")
        check(done.returncode == 3 and "listen-failed" in done.stderr, "%s" % done)


CASES = [case_stock, case_filtered, case_proxied, case_pinned, case_messages, case_edns, case_local_address, case_lies,
         case_malformed_answers, case_truncated, case_silent, case_dead, case_late_for_one_port, case_proxy_header,
         case_outstanding, case_limits, case_idle_connections, case_pipelined, case_full_pipeline, case_split, case_deaf_client,
         case_no_policy, case_audit, case_ignored, case_drain, case_command_line]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--only", default="")
    p.add_argument("--sanitized", action="store_true")
    p.add_argument("--keep", action="store_true")
    args = p.parse_args()
    score = module_suite.Score()
    lab = Lab()
    try:
        world = World(lab, args.sanitized)
        for cases, workers in ((CASES, 4), ([case_race], 1)):
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                for case in cases:
                    if args.only in case.__name__ + case.__doc__:
                        pool.submit(score.run, case.__doc__, lambda c=case: c(world))
        for process in lab.processes:
            process.stop()
        if args.sanitized:
            reports = sanitizer_reports(lab)
            score.run("no report of a sanitizer", lambda: check(not reports, "\n".join(reports)))
    except Failure as e:
        score.failed += 1
        print("FAIL  setting up: %s" % e, flush=True)
    finally:
        if args.keep:
            print("kept: " + lab.dir)
        else:
            lab.close()
    print("%d passed, %d failed" % (score.passed, score.failed), flush=True)
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
