# SPDX-License-Identifier: Apache-2.0
"""Limits in real Unbound: questions, names below a wildcard, look-ups under way, names that never answer. Who
is over one is refused; another client of the same resolver notices nothing."""

import concurrent.futures
import json
import socket
import threading

import dns.edns
import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from lab import CLIENT_A, CLIENT_B, addresses, check, describe, ede, read, wait_for


class Still(threading.Thread):
    """An authority that never answers below `held`, fails below `broken`, and answers all else."""

    def __init__(self):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.seen = []
        self.start()

    def run(self):
        while True:
            try:
                wire, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            q = dns.message.from_wire(wire)
            name = q.question[0].name
            self.seen.append((name.to_text().lower(), q))
            if b"held" in name.labels:
                continue
            r = dns.message.make_response(q)
            if b"broken" in name.labels:
                r.set_rcode(dns.rcode.REFUSED)
            else:
                r.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "198.51.100.7"))
            self.sock.sendto(r.to_wire(), peer)

    def asked(self, what):
        return sum(what in name for name, _ in self.seen)

    def close(self):
        self.sock.close()


def policy(revision, limits):
    listed = """    presets: []
    allowlist: [a.lim.example, "*.wild.lim.example", "*.held.lim.example", "*.broken.lim.example"]
"""
    return ("version: 1\nrevision: %s\npresets_version: \"2026.11\"\nnetwork: {presets: [], allowlist: []}\n"
            "profiles:\n  alpha:\n    limits: %s\n%s  beta:\n    limits: {dns_names: 100000/s}\n%s"
            "sources: {%s/32: alpha, %s/32: beta}\n" % (revision, limits, listed, listed, CLIENT_A, CLIENT_B))


def start(world, kind, limits, **more):
    still = Still()
    path = world.lab.policy(policy("one", limits))
    u = world.unbound(kind, policy=path, stubs={"lim.example": still.port}, **more)
    return still, u, path


def served(u, name, client=CLIENT_A, **more):
    r = u.ask(name, client=client, **more)
    check(addresses(r) == ["198.51.100.7"], describe(r))


def limited(r):
    check(r.rcode() == dns.rcode.REFUSED and ede(r) == (15, "rate-limit"), describe(r))


def silent(u, name):
    try:
        r = u.ask(name, timeout=0.4)
    except dns.exception.Timeout:
        return True
    check(r.rcode() == dns.rcode.REFUSED, describe(r))
    return False


def case_limits(world, kind):
    """Twelve questions at once and one a minute; twice as many are refused, what is beyond is not answered."""
    still, u, path = start(world, kind, "{dns: 1/min burst 12}", audit="on")
    for i in range(12):
        served(u, "a.lim.example", tcp=i % 2 == 1)
    limited(u.ask("a.lim.example"))
    # denied questions have been paid for, too, and another client has its own budget
    for _ in range(20):
        served(u, "a.lim.example", client=CLIENT_B)
    for _ in range(10):
        limited(u.ask("a.lim.example"))
    limited(u.ask("a.lim.example", tcp=True))
    check(silent(u, "a.lim.example"), "far beyond the limit there was an answer")
    served(u, "a.lim.example", client=CLIENT_B)
    # the budget is the subject's, not the policy's
    world.lab.replace(path, world.lab.policy(policy("two", "{dns: 1/min burst 12}")))
    wait_for("the new policy", lambda: read(u.log).count("policy-loaded") >= 2)
    check(silent(u, "a.lim.example"), "a new policy forgave what was used up")
    def said_so():
        events = [json.loads(line) for line in read(u.audit).splitlines()]
        return [e for e in events if e.get("reason") == "rate-limit"]

    wait_for("the audit log", said_so)
    said = said_so()
    check(len(said) == 1 and said[0]["src"] == CLIENT_A, "written down %d times" % len(said))
    # nor is it forgotten when Unbound starts anew
    u.stop()
    u = world.unbound(kind, policy=path, stubs={"lim.example": still.port}, env={"CX_RUNTIME_DIR": u.dir})
    check(silent(u, "a.lim.example"), "a restart forgave what was used up")
    served(u, "a.lim.example", client=CLIENT_B)
    u.stop()
    still.close()


def case_names(world, kind):
    """Five names a minute below a wildcard; what is one too many is not asked upstream."""
    still, u, _ = start(world, kind, "{dns_names: 5/min, dns_octets: 1KiB/min}")
    for i in range(5):
        served(u, "n%d.wild.lim.example" % i)
    packets = len(still.seen)
    for i in range(5, 10):
        limited(u.ask("n%d.wild.lim.example" % i))
    check(len(still.seen) == packets, "upstream was asked %s" % still.seen[packets:])
    served(u, "n3.wild.lim.example")
    served(u, "a.lim.example")
    for i in range(20):
        served(u, "n%d.wild.lim.example" % i, client=CLIENT_B)
    u.stop()
    # the same by octets
    still2, u, _ = start(world, kind, "{dns_names: 1000/min, dns_octets: 60B/min}")
    served(u, "%s.wild.lim.example" % ("x" * 50))
    limited(u.ask("%s.wild.lim.example" % ("y" * 50)))
    served(u, "z.wild.lim.example")
    u.stop()
    still.close()
    still2.close()


def case_under_way(world, kind):
    """A zone that never answers takes a share of the look-ups, and no more."""
    still, u, _ = start(world, kind, "{dns_names: 100000/s}", env={"CX_MAX_LOOKUPS": "8"})
    served(u, "a.lim.example")

    def ask(i):
        try:
            return u.ask("n%d.held.lim.example" % i, timeout=2.0)
        except dns.exception.Timeout:
            return None

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(ask, i) for i in range(8)]
        wait_for("eight look-ups", lambda: len({n for n, _ in still.seen if "held" in n}) >= 8)
        limited(u.ask("n9.held.lim.example"))
        check(not still.asked("n9.held"), "one too many went upstream")
        # others are served, with names that nobody has asked for before
        for i in range(5):
            served(u, "fresh%d.wild.lim.example" % i, client=CLIENT_B, timeout=2.0)
        for w in waiting:
            w.result()
    u.stop()
    still.close()


def case_failing(world, kind):
    """Who asks below a name that brings nothing but failures is told so without asking there again."""
    still, u, _ = start(world, kind, "{dns_names: 100000/s}")
    for i in range(4):
        r = u.ask("n%d.broken.lim.example" % i, timeout=15)
        check(r.rcode() == dns.rcode.SERVFAIL, describe(r))
    r = u.ask("n9.broken.lim.example")
    check(r.rcode() == dns.rcode.SERVFAIL and ede(r) == (13, "unresolved"), describe(r))
    check(not still.asked("n9.broken"), "it was asked again")
    # that is so for this client and this name alone
    served(u, "n9.wild.lim.example")
    check(u.ask("n9.broken.lim.example", client=CLIENT_B, timeout=15).rcode() == dns.rcode.SERVFAIL, "B")
    check(still.asked("n9.broken"), "another client was refused, too")
    u.stop()
    still.close()


def case_options(world, kind):
    """What a client writes into EDNS options goes no further."""
    still, u, _ = start(world, kind, "{}")
    options = [dns.edns.GenericOption(65001, b"a secret"), dns.edns.ECSOption("203.0.113.0", 24),
               dns.edns.GenericOption(10, b"12345678"), dns.edns.GenericOption(15, b"\0\0hello")]
    q = dns.message.make_query("b.wild.lim.example", "A", use_edns=0, options=options)
    r = dns.query.udp(q, "127.0.0.1", port=u.port, source=CLIENT_A, timeout=6)
    check(addresses(r) == ["198.51.100.7"], describe(r))
    sent = [o.otype for name, q in still.seen if name.startswith("b.wild") for o in q.options]
    check(not sent, "options went upstream: %s" % sent)
    check(any(name.startswith("b.wild") for name, _ in still.seen), "nothing was asked")
    u.stop()
    still.close()


CASES = [case_limits, case_names, case_under_way, case_failing, case_options]
