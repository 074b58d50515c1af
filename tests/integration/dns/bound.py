#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cx-dns and bindings, on a real link in namespaces of its own: what was asked for one task is never answered
to the next holder of its address. The upstream is scripted, so that an answer comes when the test wants it to.

usage: bound.py [--build DIR]
"""

import argparse
import importlib.util
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[3]

import dns.edns
import dns.message
import dns.rcode
import dns.rrset

spec = importlib.util.spec_from_file_location("bind_suite", ROOT / "tests/integration/bind/run.py")
suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(suite)
from lab import Cases, wait_for # of tests/e2e, by the suite. pylint: disable=wrong-import-position

GATEWAY, PORT = "10.9.0.1", 5353


class Upstream:
    """Answers what it is asked, but holds what is below `held` until it is let go."""

    def __init__(self, bench):
        self.sock = bench.socket("gw", kind=socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.held = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                wire, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            if not wire:
                return
            q = dns.message.from_wire(wire)
            if b"held" in q.question[0].name.labels:
                self.held.append((q, peer))
            else:
                self.answer(q, peer)

    def answer(self, q, peer):
        r = dns.message.make_response(q, recursion_available=True)
        r.answer.append(dns.rrset.from_text(q.question[0].name, 60, "IN", "A", "198.51.100.7"))
        self.sock.sendto(r.to_wire(), peer)

    def let_go(self):
        held, self.held = self.held, []
        for q, peer in held:
            self.answer(q, peer)


class Guest:
    """A socket of whoever holds the address; it lives on when the task changes, as a hostile one would."""

    def __init__(self, bench):
        self.sock = bench.socket("vm", kind=socket.SOCK_DGRAM)
        self.sock.settimeout(8)
        self.sock.connect((GATEWAY, PORT))

    def ask(self, name):
        self.sock.send(dns.message.make_query(name, "A", use_edns=0).to_wire())

    def hears(self, seconds=8.0):
        self.sock.settimeout(seconds)
        try:
            return dns.message.from_wire(self.sock.recv(4096))
        except TimeoutError:
            return None


def reason(reply):
    return [(int(o.code), o.text) for o in reply.options if o.otype == dns.edns.EDE] if reply else None


def audit(b):
    return [json.loads(line) for line in (b.dir / "audit.jsonl").read_text().splitlines()]


def in_flight(b, c, up):
    guest = Guest(b)
    first = suite.generation(b.bind(suite.ADDR, "t1", "--add", "held.staging.example.com"))
    guest.ask("b.example.com")
    r = guest.hears()
    c.check("bound: answered", r is not None and r.rcode() == 0 and len(r.answer) == 1, r)
    guest.ask("held.staging.example.com")
    wait_for("the question upstream", lambda: up.held)
    up.let_go()
    r = guest.hears()
    c.check("the control: a held answer reaches the task that asked", r is not None and len(r.answer) == 1, r)
    guest.ask("held.staging.example.com")
    wait_for("the question upstream", lambda: up.held)
    c.check("the address goes to another task", b.unbind("t1").returncode == 0)
    second = suite.generation(b.bind(suite.ADDR, "t2", "--add", "held.staging.example.com"))
    up.let_go()
    c.check("the answer of the first task does not reach the second", guest.hears(2) is None)
    guest.ask("b.example.com")
    r = guest.hears()
    c.check("which is answered itself", r is not None and len(r.answer) == 1, r)
    wait_for("the log", lambda: any(e["reason"] == "stale-binding" for e in audit(b)), 10)
    stale = [e for e in audit(b) if e["reason"] == "stale-binding"]
    c.check("written down once, as stale", len(stale) == 1 and stale[0]["verdict"] == "deny", stale)
    wait_for("the log", lambda: [e["generation"] for e in audit(b) if e["name"] == "b.example.com"] == [first, second], 10)
    c.check("each task's own questions carry its generation", True)


def failures(b, c, up):
    """A failure is a packet of the old task's, too."""
    guest = Guest(b)
    for what, unbinds in (("the control: a failure reaches the task that asked", False),
                          ("a failure of one task does not reach the next", True)):
        if not b.rows():
            b.bind(suite.ADDR, "t3", "--add", "held.staging.example.com")
        guest.ask("%s.held.staging.example.com" % ("x" if unbinds else "y"))
        c.check("below an addition: refused", reason(guest.hears()) == [(15, "not-listed")])
        guest.ask("held.staging.example.com")
        wait_for("the question upstream", lambda: up.held)
        if unbinds:
            b.unbind(b.rows()[0]["task"])
            b.bind(suite.ADDR, "t4", "--add", "held.staging.example.com")
        r = guest.hears(8)
        c.check(what, (r is None) == unbinds and (unbinds or r.rcode() == dns.rcode.SERVFAIL), r)
        up.held.clear()
        time.sleep(1.2)  # until the failure is forgotten


def connections(b, c, up):
    with b.socket("vm") as s:
        s.settimeout(5)
        s.connect((GATEWAY, PORT))
        wire = dns.message.make_query("b.example.com", "A").to_wire()
        s.sendall(len(wire).to_bytes(2, "big") + wire)
        c.check("over TCP: answered", len(s.recv(4096)) > 20)
        c.check("unbind", b.unbind(b.rows()[0]["task"]).returncode == 0)
        c.check("ends the task's connection with cx-dns", not b.sockets(), b.sockets())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    build = p.parse_args().build.resolve()
    cases = Cases()
    with suite.Bench(build) as b:
        up = Upstream(b)
        log = open(b.dir / "cx-dns.log", "wb")
        shim = subprocess.Popen(b.inside("gw", build / "cx-dns", "-p", b.policy, "-l", "%s:%d" % (GATEWAY, PORT), "-t", "1",
                                         "--upstream", "127.0.0.1@%d" % up.port, "-r", b.run_dir, "-a", b.dir / "audit.jsonl"),
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            b.ctl("bindings", "init")
            wait_for("cx-dns", lambda: b"ready" in (b.dir / "cx-dns.log").read_bytes())
            for case in (in_flight, failures, connections):
                case(b, cases, up)
            shim.terminate()
            cases.check("cx-dns ends well", shim.wait(10) == 0)
        finally:
            shim.kill()
            shim.wait()
            log.close()
    return cases.finish()


if __name__ == "__main__":
    sys.exit(main())
