# SPDX-License-Identifier: Apache-2.0
"""What a client sees of an answer: addresses that nothing may connect to, hints, encrypted hellos,
aliases. Two clients with different policies ask for the same names in turn, so that each answer is
once fresh and then comes out of the cache that both share."""

import json
import time

import dns.exception
import dns.flags
import dns.rcode
import dns.rdatatype

from lab import (CLIENT_A, CLIENT_B, GATEWAY, Authority, addresses, check, describe, ede,
                 expect_denied, read, soa_of, wait_for)

ZONE = "filter.example"
NEVER4 = ["0.0.0.0", "127.0.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "224.0.0.1",
          "255.255.255.255"]
NEVER6 = ["::1", "::", "fe80::1", "ff02::1", "fd00:ec2::254", "::ffff:169.254.169.254",
          "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "::127.0.0.1",
          "64:ff9b::a00:1"]
PRIVATE4 = ["10.2.0.1", "10.3.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"]
PRIVATE6 = ["fd12::1"]
MANY = ["198.51.100.%d" % i for i in range(1, 33)]
ECH = "AEX+DQBBWQAgACBmP1hEc1RVdGVzdHRlc3R0ZXN0dGVzdAAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="


def records(name, rtype, values, ttl=300):
    return ["%s %d %s %s" % (name, ttl, rtype, v) for v in values]


def zone():
    lines = ["$ORIGIN %s." % ZONE, "@ 300 SOA ns host 1 3600 600 86400 5", "@ 300 NS ns",
             "ns 300 A 127.0.0.1"]
    lines += records("mixed", "A", ["198.51.100.10"] + NEVER4 + PRIVATE4)
    lines += records("mixed", "AAAA", ["2001:db8:1::1"] + NEVER6 + PRIVATE6)
    lines += records("mixed", "TXT", ["text"])
    lines += records("short", "A", ["198.51.100.10", "169.254.169.254"], 0)
    lines += records("never4", "A", NEVER4) + records("never4", "AAAA", NEVER6)
    lines += records("private", "A", PRIVATE4) + records("lifted", "A", NEVER4 + PRIVATE4)
    lines += records("denied", "A", ["198.51.100.200", "203.0.113.9"])
    lines += records("partly", "A", ["198.51.100.201", "203.0.113.9", "198.51.100.11"])
    lines += records("many", "A", MANY + ["10.4.0.%d" % i for i in range(1, 33)])
    lines += records("clean", "A", ["198.51.100.12"])
    lines += ["svc 300 HTTPS 1 . alpn=h2 ipv4hint=198.51.100.10,10.3.0.1,169.254.169.254 ech=%s "
              "ipv6hint=2001:db8:1::1,fd00:ec2::254" % ECH,
              "hidden 300 HTTPS 1 . mandatory=ipv4hint ipv4hint=10.3.0.1",
              "bare 300 HTTPS 1 . alpn=h2 ipv4hint=10.3.0.1",
              "svcto 300 HTTPS 0 a.never", "svcon 300 HTTPS 1 b.shut alpn=h2",
              "chain 300 CNAME mixed", "hop 300 CNAME chain", "tonever 300 CNAME hop2",
              "hop2 300 CNAME a.never", "todenied 300 CNAME b.shut", "tovoid 300 CNAME void.never",
              "dn 300 DNAME never", "a.never 300 A 198.51.100.13", "b.shut 300 A 198.51.100.14",
              "c.open.shut 300 A 198.51.100.15", "toopen 300 CNAME c.open.shut",
              "_x._tcp 300 SRV 1 1 443 never4", "leaf.deep 300 A 198.51.100.16",
              "lone 300 CNAME unlisted", "unlisted 300 A 198.51.100.17"]
    return "\n".join(lines) + "\n"


def policy():
    lift = "{domain: lifted.%s, private: true}" % ZONE
    names = ["mixed", "short", "never4", "private", "denied", "partly", "many", "clean", "svc", "hidden",
             "bare", "svcto", "svcon", "chain", "hop", "tonever", "todenied", "tovoid", "toopen", "lone",
             "_x._tcp", "leaf.deep", "*.dn"]
    entries = ", ".join("\"%s.%s\"" % (n, ZONE) for n in names)
    return """version: 1
presets_version: "2026.11"
network: {presets: [], allowlist: []}
never: ["*.never.%(z)s", {cidr: 203.0.113.0/24}]
profiles:
  alpha:
    presets: []
    dns: {ancestors: nodata, deny_ttl: 7s}
    allowlist:
      - %(l)s
%(list)s
      - {domain: c.open.shut.%(z)s, lint: {allow: [deny-lifted], why: wanted}}
    deny: ["*.shut.%(z)s", {cidr: 198.51.100.128/25}]
  beta:
    presets: []
    dns: {aaaa: false, private_ranges: [10.2.0.0/16, 10.4.0.0/16]}
    tls: {ech: allow}
    allowlist: [%(e)s, %(l)s]
sources: {%(a)s/32: alpha, %(b)s/32: beta}
resolver_clients: [%(g)s/32]
""" % {"z": ZONE, "e": entries, "l": lift,
       "list": "\n".join("      - \"%s.%s\"" % (n, ZONE) for n in names), "a": CLIENT_A, "b": CLIENT_B, "g": GATEWAY}


def expect(reply, want):
    check(reply.rcode() == 0 and addresses(reply) == sorted(want),
          "not %s: %s %s" % (want, describe(reply), addresses(reply)))


def expect_empty(reply, reason):
    check(reply.rcode() == 0 and not reply.answer and soa_of(reply), "not empty: " + describe(reply))
    check(ede(reply) == (15, reason), "EDE %s, not %s" % (ede(reply), reason))


def service(reply):
    """The parameters of the one HTTPS record: {key: text}."""
    check(reply.rcode() == 0 and len(reply.answer) == 1, describe(reply))
    (rr,) = reply.answer[0]
    return {int(k): str(v.to_text()).strip("\"") if v else "" for k, v in rr.params.items()}



def ask_all(u, **how):
    """Both clients, each after the other: expectations do not depend on who came first."""
    def a(name, qtype="A"):
        return u.ask("%s.%s" % (name, ZONE), qtype, client=CLIENT_A, **how)

    def b(name, qtype="A"):
        return u.ask("%s.%s" % (name, ZONE), qtype, client=CLIENT_B, **how)

    expect(a("mixed"), ["198.51.100.10"])
    expect(b("mixed"), ["198.51.100.10", "10.2.0.1"])
    expect(a("mixed", "AAAA"), ["2001:db8:1::1"])
    expect_empty(b("mixed", "AAAA"), "query-type")
    expect(a("short"), ["198.51.100.10"])
    expect_empty(a("never4"), "address")
    expect_empty(b("never4"), "address")
    expect_empty(a("never4", "AAAA"), "address")
    expect_empty(a("private"), "private-address")
    expect(b("private"), ["10.2.0.1"])
    expect(a("lifted"), PRIVATE4)
    expect(b("lifted"), PRIVATE4)
    expect_empty(a("denied"), "address")
    expect(b("denied"), ["198.51.100.200"])
    expect(a("partly"), ["198.51.100.11"])
    expect(b("partly"), ["198.51.100.201", "198.51.100.11"])
    expect(a("many"), MANY)
    expect(b("many"), MANY + ["10.4.0.%d" % i for i in range(1, 33)])
    expect(a("clean"), ["198.51.100.12"])
    # hints, and what would hide the name
    check(service(a("svc", "HTTPS")) == {1: "h2", 4: "198.51.100.10", 6: "2001:db8:1::1"},
          "alpha: %s" % service(a("svc", "HTTPS")))
    seen = service(b("svc", "HTTPS"))
    check(seen.get(4) == "198.51.100.10" and 5 in seen and 6 not in seen, "beta: %s" % seen)
    check(service(a("bare", "HTTPS")) == {1: "h2"}, "%s" % service(a("bare", "HTTPS")))
    expect_empty(a("hidden", "HTTPS"), "private-address")
    # aliases
    expect(a("hop"), ["198.51.100.10"])
    expect(b("chain"), ["198.51.100.10", "10.2.0.1"])
    check([s.name.to_text() for s in a("hop").answer][:2] == ["hop.%s." % ZONE, "chain.%s." % ZONE],
          "the chain is gone")
    expect(a("lone"), ["198.51.100.17"])
    for client in (a, b):
        expect_denied(client("tonever"), "denied-entry")
        expect_denied(client("tovoid"), "denied-entry")
        expect_denied(client("a.dn"), "denied-entry")
        expect_denied(client("svcto", "HTTPS"), "denied-entry")
        expect_denied(client("unlisted"), "not-listed")
    expect_denied(a("todenied"), "denied-entry", ttl=7)
    expect(b("todenied"), ["198.51.100.14"])
    expect_denied(a("svcon", "HTTPS"), "denied-entry")
    check(service(b("svcon", "HTTPS")) == {1: "h2"}, "svcon")
    expect(a("toopen"), ["198.51.100.15"])
    # what stands beside an answer is filtered, too
    r = a("_x._tcp", "SRV")
    check(r.rcode() == 0 and len(r.answer) == 1, describe(r))
    beside = [rr.address for s in r.additional for rr in s
              if s.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)]
    check(not set(beside) & set(NEVER4 + NEVER6), "additional: %s" % beside)
    # names above listed ones
    r = a("deep")
    check(r.rcode() == 0 and not r.answer and ede(r) == (15, "not-listed"), describe(r))
    expect_denied(b("deep"), "not-listed")
    expect_denied(a("deeper"), "not-listed")
    # the gateway's own look-ups see it all: the agent judges for the client
    expect(u.ask("never4." + ZONE, client=GATEWAY), NEVER4)


def case_filtered(world, kind):
    """Fresh and cached, over UDP and TCP."""
    authority = Authority(world.lab, {ZONE: zone()})
    u = world.unbound(kind, policy=world.lab.policy(policy()), stubs={ZONE: authority.port})
    for tcp in (False, True, False):
        ask_all(u, tcp=tcp, payload=4096)
    u.stop()
    authority.stop()


def case_filtered_signed(world, kind):
    """With a validator and DO: what was altered has neither signatures nor AD, the rest has both."""
    text, anchor = world.lab.sign(ZONE, zone())
    authority = Authority(world.lab, {ZONE: text})
    u = world.unbound(kind, policy=world.lab.policy(policy()), stubs={ZONE: authority.port},
                      validator=True, server="  trust-anchor: \"%s\"\n" % anchor)

    def ask(name):
        r = u.ask("%s.%s" % (name, ZONE), client=CLIENT_A, payload=4096, ad=True, want_dnssec=True)
        sigs = [s for s in r.answer if s.rdtype == dns.rdatatype.RRSIG]
        return r, bool(sigs), bool(r.flags & dns.flags.AD)

    for _ in range(3):
        ask_all(u, payload=4096)
        r, sigs, ad = ask("clean")
        check(addresses(r) == ["198.51.100.12"] and sigs and ad, "clean: " + describe(r))
        r, sigs, ad = ask("mixed")
        check(addresses(r) == ["198.51.100.10"] and not sigs and not ad, "mixed: %s %s" % (sigs, ad))
        r, sigs, ad = ask("never4")
        check(not r.answer and not ad and r.rcode() == 0, "never4: " + describe(r))
    u.stop()
    authority.stop()


def case_filtered_expired(world, kind):
    """Expired answers are filtered like fresh ones, after a wait for the authority. At once they are the
    worker's doing, which cannot filter: what needs it waits for the authority, in vain."""
    for wait_ms in (0, 150):
        authority = Authority(world.lab, {ZONE: zone()})
        server = "  serve-expired: yes\n  cache-max-ttl: 1\n"
        if wait_ms:
            server += "  serve-expired-client-timeout: %d\n" % wait_ms
        u = world.unbound(kind, policy=world.lab.policy(policy()), stubs={ZONE: authority.port},
                          server=server)
        for _ in range(2):
            expect(u.ask("mixed." + ZONE), ["198.51.100.10"])
            expect(u.ask("mixed." + ZONE, client=CLIENT_B), ["198.51.100.10", "10.2.0.1"])
            expect_denied(u.ask("tonever." + ZONE), "denied-entry")
            expect_empty(u.ask("never4." + ZONE), "address")
            time.sleep(2.2)
        authority.stop()
        for _ in range(3):
            for name, client in (("mixed", CLIENT_A), ("mixed", CLIENT_B), ("never4", CLIENT_A),
                                 ("tonever", CLIENT_A)):
                try:
                    r = u.ask("%s.%s" % (name, ZONE), client=client, timeout=10 if wait_ms else 0.3)
                except dns.exception.Timeout:
                    check(not wait_ms, "no answer for " + name)
                    continue
                check(not wait_ms or name != "mixed" or addresses(r), "nothing expired: " + describe(r))
                allowed = {"198.51.100.10"} | ({"10.2.0.1"} if client == CLIENT_B else set())
                check(set(addresses(r)) <= allowed, "%s: %s" % (name, addresses(r)))
                check(name == "mixed" or not r.answer, "%s: %s" % (name, describe(r)))
        u.stop()


def case_filtered_audit(world, kind):
    """One event for each question, with what became of it in the end."""
    authority = Authority(world.lab, {ZONE: zone()})
    u = world.unbound(kind, policy=world.lab.policy(policy()), stubs={ZONE: authority.port}, audit="on")
    want = {}
    for name, verdict, reason in (("mixed", "allow", "allowed"), ("never4", "deny", "address"),
                                  ("private", "deny", "private-address"),
                                  ("tonever", "deny", "denied-entry"), ("clean", "allow", "allowed")):
        for _ in range(3):
            u.ask("%s.%s" % (name, ZONE))
        want[(name + "." + ZONE, verdict, reason)] = 3
    total = sum(want.values())
    wait_for("%d events" % total, lambda: read(u.audit).count("\n") >= total)
    u.stop()
    seen = {}
    for line in read(u.audit).splitlines():
        e = json.loads(line)
        key = (e["name"], e["verdict"], e["reason"])
        seen[key] = seen.get(key, 0) + 1
        check(e["reason"] != "denied-entry" or e.get("rule"), line)
    check(seen == want, "events %s, not %s" % (seen, want))
    authority.stop()


CASES = [case_filtered, case_filtered_signed, case_filtered_expired, case_filtered_audit]
