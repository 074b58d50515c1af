#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The real cx-spoa, spoken to as HAProxy does, and as nobody should. BUILD names the build directory."""

import os
import pwd
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

import spop
from rig import BUILD, Cases, Rig, hello, raw_length, wait_for

MAIN = """
version: 1
revision: main
network:
  limits: {connections: 1000000/s, requests: 1000000/s, dns_names: 1000000/s, dns_octets: 1GiB/s}
  presets: []
  allowlist:
    - a.example
    - "*.wild.example"
    - only4.example
    - only6.example
    - metadata.example
    - mixed.example
    - private.example
    - {domain: inside.example, private: true}
    - {cidr: 192.0.2.0/24, ports: [5432]}
    - {domain: rules.example, protocols: [http], http: [{methods: [GET], paths: ["/v/*"]}]}
    - {domain: odd.example, ports: [8443], protocols: [https]}
  deny: ["*.shut.example"]
never: ["*.never.example"]
sources: {10.0.0.0/8: default, "fd00::/8": default}
unlisted_sources: deny
"""
OTHER = """
version: 1
revision: other
network:
  presets: []
  limits: {connections: 1000000/s, requests: 1000000/s, dns_names: 1000000/s, dns_octets: 1GiB/s}
  allowlist: [b.example]
sources: {10.0.0.0/8: default}
unlisted_sources: deny
"""
TABLE = {
    "a.example": ["198.51.100.1", "198.51.100.2", "2001:db8::1"],
    "b.example": ["198.51.100.3"],
    "only4.example": ["198.51.100.4"],
    "only6.example": ["2001:db8::6"],
    "metadata.example": ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
    "mixed.example": ["127.0.0.1", "198.51.100.5", "10.1.2.3"],
    "private.example": ["172.16.0.9"],
    "inside.example": ["10.20.30.40", "172.16.0.9"],
    "rules.example": ["198.51.100.7"],
    "odd.example": ["198.51.100.8"],
    "alias-1.wild.example": ["198.51.100.9"],
    "alias-shut.wild.example": ["198.51.100.9"],
    "alias-never.wild.example": ["198.51.100.9"],
    "slow-1.wild.example": ["198.51.100.10"],
    "slow-2.wild.example": ["198.51.100.10"],
    "slow-3.wild.example": ["198.51.100.10"],
    "slow-4.wild.example": ["198.51.100.10"],
}
for _i in range(400):
    TABLE[f"n{_i}.wild.example"] = [f"198.51.100.{_i % 200 + 1}"]

SRC, DST, DST6 = (spop.address(a) for a in ("10.0.0.7", "203.0.113.5", "2001:db8:5::5"))


def tls_args(name="a.example", **over):
    args = {"src": SRC, "dst": DST, "dport": 443, "sni": name, "id": "t-1"}
    args["hello"] = hello.plain(hello.server_name(name)) if name else hello.plain()
    args.update(over)
    return {k: v for k, v in args.items() if v is not ...}


def http_args(host="a.example", **over):
    args = {"src": SRC, "dst": DST, "dport": 80, "method": "GET", "url": "/", "host": host,
            "upgrade": None, "version": "1.1", "id": "h-1"}
    args.update(over)
    return {k: v for k, v in args.items() if v is not ...}


def tcp_args(dst="192.0.2.9", port=5432, **over):
    args = {"src": SRC, "dst": spop.address(dst), "dport": port}
    args.update(over)
    return {k: v for k, v in args.items() if v is not ...}


def expect(got, **want):
    for key, value in want.items():
        seen = got.get(key)
        seen = str(seen) if key == "addr" and seen is not None else seen
        if seen != value:
            raise AssertionError(f"{key}: {seen!r}, not {value!r}; {got}")


def denied(got, reason, status=403):
    expect(got, verdict="deny", reason=reason, status=status, addr=None, port=None, name=None)


def gone(client, code):
    """The agent says goodbye with this code and closes."""
    f = client.receive()
    assert f and f.kind == spop.AGENT_DISCONNECT, f"{f and vars(f)}"
    pairs = f.pairs()
    assert pairs["status-code"] == code, pairs
    assert isinstance(pairs["message"], str)
    assert client.receive() is None, "not closed"


def still_serves(rig):
    with rig.client() as c:
        expect(c.ask("cx-tls", tls_args()), verdict="allow")


# ---- questions and answers ---------------------------------------------------------------------


def allows_tls(rig):
    """TLS to a listed name is allowed, to an address of the name"""
    with rig.client() as c:
        got = c.ask("cx-tls", tls_args())
        expect(got, verdict="allow", reason="allowed", port=443, name="a.example",
               upstream="direct", status=None, next=None)
        assert str(got["addr"]) in ("198.51.100.1", "198.51.100.2"), got
        assert len(got["rule"]) == 12, got


def prefers_family(rig):
    """the family of the client's destination comes first, the other one serves as well"""
    with rig.client() as c:
        expect(c.ask("cx-tls", tls_args(dst=DST6)), verdict="allow", addr="2001:db8::1")
        expect(c.ask("cx-tls", tls_args("only4.example", dst=DST6)), addr="198.51.100.4")
        expect(c.ask("cx-tls", tls_args("only6.example")), verdict="allow", addr="2001:db8::6")


def denies_by_name(rig):
    """what is not listed is denied, with its reason"""
    with rig.client() as c:
        denied(c.ask("cx-tls", tls_args("evil.example")), "not-listed")
        denied(c.ask("cx-tls", tls_args("wild.example")), "not-listed")
        denied(c.ask("cx-tls", tls_args("x.a.example")), "not-listed")
        denied(c.ask("cx-tls", tls_args(src=spop.address("192.168.1.1"))), "unknown-source")
        denied(c.ask("cx-tls", tls_args(dport=8443)), "port")
        expect(c.ask("cx-tls", tls_args("odd.example", dport=8443)), verdict="allow", port=8443)
        denied(c.ask("cx-http", http_args("odd.example")), "protocol")
    assert not any(name == "evil.example" for name, _ in rig.resolver.seen), "it was looked up"


def denies_hellos(rig):
    """hellos that lie or hide are denied"""
    two = hello.plain(hello.server_name("a.example"), hello.server_name("evil.example"))
    names = hello.plain(hello.server_name("a.example", "evil.example"))
    nul = hello.plain(hello.server_name("a.example\0.evil.example"))
    ech = hello.plain(hello.server_name("a.example"), hello.extension(0xFE0D, b"x" * 32))
    with rig.client() as c:
        for bad in (hello.split("a.example", "evil.example"), two, names, b"", b"\x16",
                    b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"SSH-2.0-x\r\n",
                    hello.plain(hello.server_name("a.example"))[:-1],
                    hello.plain(hello.server_name("a.example")) + b"\x16\3\1\0\1x"):
            denied(c.ask("cx-tls", tls_args(hello=bad)), "malformed")
        denied(c.ask("cx-tls", tls_args(hello=nul)), "bad-name")
        denied(c.ask("cx-tls", tls_args(hello=ech)), "ech")
        denied(c.ask("cx-tls", tls_args(sni="evil.example")), "name-mismatch", 421)
        denied(c.ask("cx-tls", tls_args("evil.example", sni="a.example")), "name-mismatch", 421)
        denied(c.ask("cx-tls", tls_args(sni=None)), "no-sni")
        denied(c.ask("cx-tls", tls_args(None, sni=None)), "no-sni")
        denied(c.ask("cx-tls", tls_args("127.0.0.1")), "ip-literal")
        expect(c.ask("cx-tls", tls_args("A.ExAmPlE.", sni="a.example")), verdict="allow",
               name="a.example")
        big = hello.plain(hello.server_name("a.example"), hello.extension(0xABCD, b"x" * 1800))
        expect(c.ask("cx-tls", tls_args(hello=big)), verdict="allow")


def judges_http(rig):
    """HTTP by Host, target, method and path"""
    with rig.client() as c:
        expect(c.ask("cx-http", http_args("A.example.:80")), verdict="allow", name="a.example",
               port=80)
        expect(c.ask("cx-http", http_args(url="http://a.example/x")), verdict="allow")
        denied(c.ask("cx-http", http_args(url="http://evil.example/x")), "name-mismatch", 421)
        denied(c.ask("cx-http", http_args("a.example:22")), "name-mismatch", 421)
        denied(c.ask("cx-http", http_args("a.example, evil.example")), "bad-name")
        denied(c.ask("cx-http", http_args("a.example/evil")), "bad-name")
        denied(c.ask("cx-http", http_args(None)), "bad-name")
        denied(c.ask("cx-http", http_args(host=...)), "bad-name")
        for literal in ("127.0.0.1", "[::1]", "2852039166", "0x7f.1", "0251.0376.0251.0376"):
            denied(c.ask("cx-http", http_args(literal)), "ip-literal")
        denied(c.ask("cx-http", http_args(method="CONNECT", url="a.example:80")), "malformed")
        denied(c.ask("cx-http", http_args(upgrade="websocket")), "protocol")
        expect(c.ask("cx-http", http_args("rules.example", url="/v/1?x")), verdict="allow")
        denied(c.ask("cx-http", http_args("rules.example", url="/w")), "path")
        denied(c.ask("cx-http", http_args("rules.example", url="/v/../w")), "path")
        denied(c.ask("cx-http", http_args("rules.example", url="/v/1", method="POST")), "method")


def judges_tcp(rig):
    """raw TCP to a listed network and port; elsewhere what to expect, never an allow"""
    with rig.client() as c:
        expect(c.ask("cx-tcp", tcp_args()), verdict="allow", next="raw", addr="192.0.2.9",
               port=5432, name=None)
        denied(c.ask("cx-tcp", tcp_args(port=5433)), "port")
        denied(c.ask("cx-tcp", tcp_args("198.51.100.1", 22)), "not-listed")
        expect(c.ask("cx-tcp", tcp_args("198.51.100.1", 443)), verdict="next", next="tls",
               addr=None)
        expect(c.ask("cx-tcp", tcp_args("198.51.100.1", 8443)), verdict="next", next="tls")
        expect(c.ask("cx-tcp", tcp_args("198.51.100.1", 80)), verdict="next", next="http")


def judges_addresses(rig):
    """addresses that may not be reached are skipped, or deny"""
    with rig.client() as c:
        got = c.ask("cx-tls", tls_args("metadata.example"))
        denied(got, "address")
        denied(c.ask("cx-tls", tls_args("metadata.example", dst=DST6)), "address")
        expect(c.ask("cx-tls", tls_args("mixed.example")), verdict="allow", addr="198.51.100.5")
        denied(c.ask("cx-tls", tls_args("private.example")), "private-address")
        expect(c.ask("cx-tls", tls_args("inside.example")), verdict="allow", addr="172.16.0.9")


def resolves(rig):
    """aliases are the resolver's business; nothing, failure and silence are unresolved"""
    with rig.client(timeout=10) as c:
        expect(c.ask("cx-tls", tls_args("alias-1.wild.example")), verdict="allow",
               addr="198.51.100.9", name="alias-1.wild.example")
        assert not any(n.startswith("target.") for n, _ in rig.resolver.seen), "target was asked"
        for name in ("alias-shut.wild.example", "alias-never.wild.example"):
            for _ in range(2):
                denied(c.ask("cx-tls", tls_args(name)), "denied-entry")
        denied(c.ask("cx-tls", tls_args("nowhere.wild.example")), "unresolved", 503)
        denied(c.ask("cx-tls", tls_args("fail-1.wild.example")), "unresolved", 503)
        start = time.monotonic()
        denied(c.ask("cx-tls", tls_args("silent-1.wild.example")), "unresolved", 503)
        assert 2 < time.monotonic() - start < 4, time.monotonic() - start


def arguments_missing(rig):
    """missing, null, mistyped and doubled arguments are denied, as are unknown messages"""
    with rig.client() as c:
        for key in ("src", "dst", "dport", "hello"):
            for value in (..., None, "text" if key != "hello" else 5, True):
                denied(c.ask("cx-tls", tls_args(**{key: value})), "internal-error"
                       if key != "src" else "internal-error", 503)
        for key in ("method", "url"):
            denied(c.ask("cx-http", http_args(**{key: None})), "internal-error", 503)
        for port in (0, 65536, -1, 2**40):
            denied(c.ask("cx-tcp", tcp_args(port=port)), "internal-error", 503)
        for kind in (2, 3, 4, 5):
            expect(c.ask("cx-tcp", tcp_args(port=spop.Typed(kind, 5432))), verdict="allow")
        denied(c.ask("cx-tcp", list(tcp_args().items()) + [("dport", 22)]), "internal-error", 503)
        for name in ("cx-connect", "cx-tunnel-tls", "tls", "", "cx-tcp\0", "CX-TCP"):
            denied(c.ask(name, tcp_args()), "internal-error", 503)


def payloads_broken(rig):
    """a NOTIFY whose payload breaks off or goes on is answered with a deny"""
    whole = spop.message("cx-tcp", tcp_args())
    with rig.client() as c:
        broken = [whole[:n] for n in range(len(whole))]
        broken += [whole + b"\0", whole + whole, b"\xff" * 64, b"\x08" * 200,
                   spop.string("cx-tcp") + b"\xff", spop.string("cx-tcp") + b"\1" + b"\xff" * 30]
        for payload in broken:
            ids = c.notify(payload)
            f = c.receive()
            assert f and f.kind == spop.ACK and (f.stream, f.number) == ids, vars(f)
            denied(f.variables(), "internal-error", 503)
        expect(c.ask("cx-tcp", tcp_args()), verdict="allow")


# ---- the protocol ------------------------------------------------------------------------------


def hello_variants(rig):
    """HELLO as 2.6, 3.0, 3.2 and stranger ones send it"""
    for over in ({}, {"capabilities": "pipelining"}, {"capabilities": ""},
                 {"supported_versions": "1.0, 2.0"}, {"engine_id": ...},
                 {"max_frame_size": spop.Typed(3, 256)}, {"unknown": spop.Typed(9, b"\0\1")}):
        with rig.client(hello=False) as c:
            c.send(spop.hello_frame(**over))
            pairs = c.receive().pairs()
            assert pairs["version"] == "2.0" and pairs["capabilities"] == "pipelining", pairs
            size = over["max_frame_size"].value if "max_frame_size" in over else 16380
            assert pairs["max-frame-size"] == size, pairs
    for over, code in (({"supported_versions": ...}, 5), ({"max_frame_size": ...}, 6),
                       ({"capabilities": ...}, 7), ({"supported_versions": "1.0"}, 8),
                       ({"supported_versions": None}, 5), ({"max_frame_size": "x"}, 6),
                       ({"max_frame_size": spop.Typed(3, 255)}, 9)):
        with rig.client(hello=False) as c:
            c.send(spop.hello_frame(**over))
            gone(c, code)
    with rig.client() as c:
        c.send(spop.hello_frame())
        gone(c, 4)


def one_reply_in_one_piece(rig):
    """AGENT-HELLO comes in one piece"""
    for _ in range(20):
        with rig.client(hello=False) as c:
            c.send(spop.hello_frame())
            b = c.sock.recv(65536)
            assert struct.unpack(">I", b[:4])[0] == len(b) - 4, b


def health_check(rig):
    """a health check is answered and closed"""
    with rig.client(hello=False) as c:
        c.send(spop.hello_frame(capabilities="", healthcheck=True))
        assert c.receive().kind == spop.AGENT_HELLO
        assert c.receive() is None


def one_octet_writes(rig):
    """everything in one-octet writes"""
    with rig.client(hello=False) as c:
        data = spop.hello_frame() + spop.frame(
            spop.NOTIFY, spop.message("cx-tls", tls_args()), 5, 1)
        for i in range(len(data)):
            c.send(data[i:i + 1])
        assert c.receive().kind == spop.AGENT_HELLO
        expect(c.receive().variables(), verdict="allow")


def frame_sizes(rig):
    """frames of 0, 1 and 2^31 octets, and too big by one, end the connection"""
    for size, code in ((0, 4), (1, 4), (6, 4), (16381, 3), (2**31, 3), (2**32 - 1, 3)):
        with rig.client() as c:
            c.send(raw_length(size) + b"\3" * min(size, 6))
            gone(c, code)
        with rig.client(hello=False) as c:
            c.send(raw_length(size) + b"\1" * min(size, 6))
            gone(c, code)
    with rig.client() as c:  # the greatest one
        c.send(spop.frame(spop.NOTIFY, b"\0" * (16380 - 7), 1, 1))
        denied(c.receive().variables(), "internal-error", 503)
    still_serves(rig)


def frames_wrong(rig):
    """fragments, aborts, agent frames, endless ids and frames before HELLO end the connection"""
    body = spop.message("cx-tcp", tcp_args())
    for data, code in ((spop.frame(3, body, 1, 1, flags=0), 10),
                       (spop.frame(0, body, 1, 1), 10),
                       (spop.frame(3, body, 1, 1, flags=3), 4),
                       (spop.frame(3, body, 1, 1, flags=2**31 | 1), 4),
                       (spop.frame(101, body), 4), (spop.frame(102, body), 4),
                       (spop.frame(103, body, 1, 1), 4),
                       (raw_length(40) + b"\3\0\0\0\1" + b"\xff" * 35, 4)):
        with rig.client() as c:
            c.send(data)
            gone(c, code)
    for data in (spop.frame(3, body, 1, 1), spop.frame(77, b"", 1, 1)):
        with rig.client(hello=False) as c:
            c.send(data)
            gone(c, 4)
    with rig.client(hello=False) as c:
        c.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gone(c, 3)
    still_serves(rig)


def unknown_types(rig):
    """frames of unknown types are skipped"""
    with rig.client() as c:
        for kind in (4, 50, 100, 104, 255):
            c.send(spop.frame(kind, b"x" * 100, 1, 1))
        expect(c.ask("cx-tls", tls_args()), verdict="allow")


def disconnects(rig):
    """HAPROXY-DISCONNECT is answered"""
    with rig.client() as c:
        c.send(spop.frame(spop.HAPROXY_DISCONNECT, spop.kv(
            {"status-code": spop.Typed(3, 2), "message": "a timeout occurred"})))
        gone(c, 0)


def duplicate_streams(rig):
    """the same ids again while the first answer is outstanding end the connection"""
    with rig.client(timeout=10) as c:
        payload = spop.message("cx-tls", tls_args("silent-2.wild.example"))
        c.notify(payload, 9, 1)
        c.notify(payload, 9, 1)
        gone(c, 4)
    with rig.client() as c:  # one after the other they are fine
        payload = spop.message("cx-tcp", tcp_args())
        for _ in range(3):
            c.notify(payload, 9, 1)
            expect(c.receive().variables(), verdict="allow")


def many_streams(rig):
    """10,000 streams in one flight, some waiting for look-ups: each is answered, with its own"""
    total = 10000
    with rig.client(timeout=30) as c:
        kinds = [("cx-tls", tls_args), ("cx-http", http_args)]
        want, blobs = {}, []
        for i in range(total):
            kind, make = kinds[i % 2]
            name = ("a.example", f"n{i % 400}.wild.example", "evil.example")[i % 3]
            want[i + 1, i % 5] = name
            args = make(name, src=spop.address(f"10.2.{i % 200}.1"))
            blobs.append(spop.frame(spop.NOTIFY, spop.message(kind, args), i + 1, i % 5))
        sender = threading.Thread(target=c.send, args=(b"".join(blobs),), daemon=True)
        sender.start()
        for _ in range(total):
            f = c.receive()
            assert f and f.kind == spop.ACK, f and vars(f)
            name = want.pop((f.stream, f.number))
            got = f.variables()
            if name == "evil.example":
                denied(got, "not-listed")
            else:
                expect(got, verdict="allow", name=name)
        sender.join()
        assert not want


def slow_reader(rig):
    """a peer that does not read is not read from; memory stays; then everything comes"""
    with rig.client(timeout=30) as c:
        c.ask("cx-tls", tls_args())
        before = rig.rss_kib()
        data = spop.frame(spop.NOTIFY, spop.message("cx-tls", tls_args()), 1, 1)
        c.sock.setblocking(False)
        sent = 0
        end = time.monotonic() + 1.5
        batch = data * 1000
        while time.monotonic() < end and sent < 200 * len(batch):
            try:
                sent += c.sock.send(batch[sent % len(batch):])
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 200 * len(batch), "it took everything"
        assert rig.rss_kib() - before < 8192, "memory grew"
        still_serves(rig)
        c.sock.setblocking(True)
        c.sock.settimeout(30)
        for _ in range(sent // len(data)):
            expect(c.receive().variables(), verdict="allow")


def half_closed(rig):
    """a peer that closes its half still gets its answers"""
    with rig.client(timeout=10) as c:
        for i, name in enumerate(("a.example", "slow-1.wild.example", "evil.example")):
            c.notify(spop.message("cx-tls", tls_args(name)), i + 1, 1)
        c.sock.shutdown(socket.SHUT_WR)
        got = {}
        while (f := c.receive()) is not None:
            got[f.stream] = f.variables()["verdict"]
        assert got == {1: "allow", 2: "allow", 3: "deny"}, got


def dies_while_waiting(rig):
    """a connection may end while its answer is outstanding; the event is recorded all the same"""
    for _ in range(20):
        with rig.client() as c:
            c.notify(spop.message("cx-tls", tls_args("slow-2.wild.example", id="gone")))
    wait_for("20 events", lambda: len(rig.events(id="gone")) == 20)
    still_serves(rig)


def one_lookup(rig):
    """questions about one name share a look-up, over connections"""
    with rig.client(timeout=10) as c:
        for i in range(100):
            c.notify(spop.message("cx-tls", tls_args("slow-3.wild.example")), i + 1, 1)
        for _ in range(100):
            expect(c.receive().variables(), verdict="allow")
    asked = [q for q in rig.resolver.seen if q[0] == "slow-3.wild.example"]
    assert len(asked) == 2, asked


def audited(rig):
    """one event a NOTIFY, with the final outcome"""
    with rig.client(timeout=10) as c:
        c.ask("cx-tls", tls_args(id="audit-allow"))
        c.ask("cx-tls", tls_args("nowhere2.wild.example", id="audit-unresolved"))
        c.ask("cx-http", http_args("rules.example", url="/w?secret", id="audit-path\n\"x"))
    for ident, verdict, reason in (("audit-allow", "allow", "allowed"),
                                   ("audit-unresolved", "deny", "unresolved"),
                                   ("audit-path\n\"x", "deny", "path")):
        rows = wait_for(ident, lambda i=ident: rig.events(id=i))
        assert len(rows) == 1, rows
        expect(rows[0], verdict=verdict, reason=reason, component="spoa", src="10.0.0.7",
               profile="default", revision="main")
    expect(rig.events(reason="path", method="GET")[-1], layer="http")


def over_tcp(rig):
    """the same over a TCP socket"""
    with spop.Client(rig.tcp) as c:
        expect(c.ask("cx-tls", tls_args()), verdict="allow")
    with spop.Client(rig.tcp, hello=False) as c:
        c.send(raw_length(2**31))
        gone(c, 3)


def floods(rig):
    """a full table of waiting answers denies the rest, and frees itself"""
    with rig.client(timeout=15) as c:
        blob = b"".join(spop.frame(spop.NOTIFY, spop.message(
            "cx-tls", tls_args(f"silent-{i}.wild.example",
                               src=spop.address(f"10.1.{i // 250}.{i % 250 + 1}"))), i + 1, 1)
            for i in range(1500))
        threading.Thread(target=c.send, args=(blob,), daemon=True).start()
        reasons = {}
        for _ in range(1500):
            r = c.receive().variables()["reason"]
            reasons[r] = reasons.get(r, 0) + 1
    assert set(reasons) == {"unresolved", "internal-error"}, reasons
    assert reasons["unresolved"] == 1024, reasons
    with rig.client(timeout=10) as c:
        expect(c.ask("cx-tls", tls_args("n399.wild.example")), verdict="allow")


def one_source_floods(rig):
    """one source cannot take all the places where answers wait"""
    with rig.client(timeout=15) as c, rig.client(timeout=15) as other:
        for i in range(600):
            c.notify(spop.message("cx-tls", tls_args(f"silent-s{i}.wild.example")), i + 1, 1)
        refused = sum(c.receive().variables()["reason"] == "internal-error" for _ in range(344))
        assert refused == 344, refused
        got = other.ask("cx-tls", tls_args("n398.wild.example", src=spop.address("10.9.9.9")))
        expect(got, verdict="allow")


def silent_peers(rig):
    """peers that say nothing do not stand in the way"""
    idle = [spop.dial(rig.socket) for _ in range(200)]
    try:
        still_serves(rig)
    finally:
        for s in idle:
            s.close()


class Silent:
    """Connections that say too little from the start; how they ended is asked later."""

    def __init__(self, rig):
        self.start = time.monotonic()
        self.socks = [spop.dial(rig.socket, timeout=15) for _ in range(3)]
        self.socks[1].sendall(raw_length(100))
        self.socks[2].sendall(spop.hello_frame()[:-1])

    def ended(self, rig):
        """a connection that says no HELLO is closed after ten seconds, not before"""
        for s in self.socks:
            with s:
                assert s.recv(1) == b"", "something was said"
        assert 9.5 < time.monotonic() - self.start, "too early"
        still_serves(rig)


# ---- the process -------------------------------------------------------------------------------


def no_descriptors():
    """out of descriptors: no spinning, those connected are served, and it recovers"""
    with Rig({"main": MAIN}, TABLE, threads=1, files=40) as rig:
        with rig.client() as c:
            expect(c.ask("cx-tls", tls_args()), verdict="allow")
            many = [spop.dial(rig.socket) for _ in range(60)]
            wait_for("the message", lambda: "accept-failed" in rig.said())
            before = rig.cpu_s()
            time.sleep(1)
            assert rig.cpu_s() - before < 0.3, "it spins"
            expect(c.ask("cx-tls", tls_args()), verdict="allow")
            expect(c.ask("cx-tls", tls_args("only4.example")), verdict="deny",
                   reason="internal-error")
            for s in many:
                s.close()
        with rig.client(timeout=10) as c:
            expect(c.ask("cx-tls", tls_args("only4.example")), verdict="allow")
        # once per change of state: again only after it had resumed, and never in a flood
        said = rig.said()
        assert said.count("accept-failed") <= said.count("accept-resumed") + 1 <= 4, said


def no_policy():
    """without a policy everything is denied and health checks fail; both end when one appears"""
    with Rig({"main": MAIN}, TABLE, policy=None) as rig:
        with rig.client() as c:
            denied(c.ask("cx-tls", tls_args()), "no-policy", 503)
            denied(c.ask("cx-tcp", tcp_args()), "no-policy", 503)
            with rig.client(hello=False) as h:
                h.send(spop.hello_frame(capabilities="", healthcheck=True))
                gone(h, 100)
            rig.put("main")
            wait_for("the policy", lambda: "policy-loaded" in rig.said())
            expect(c.ask("cx-tls", tls_args()), verdict="allow")
        health_check(rig)


def bad_policies():
    """a policy that is garbage, cut or gone changes nothing; the next good one does"""
    with Rig({"main": MAIN, "other": OTHER}, TABLE) as rig:
        with rig.client() as c:
            whole = (rig.dir / "other.bin").read_bytes()
            for number, bad in enumerate((b"", b"garbage" * 100, whole[:len(whole) // 2],
                                          whole[:100] + b"\xff" + whole[101:], None)):
                if bad is None:
                    rig.policy.unlink()
                else:
                    (rig.dir / "new").write_bytes(bad)
                    os.replace(rig.dir / "new", rig.policy)
                wait_for(f"refusal {number}",
                         lambda n=number: rig.said().count("policy-refused") > n)
                expect(c.ask("cx-tls", tls_args()), verdict="allow")
                denied(c.ask("cx-tls", tls_args("b.example")), "not-listed")
            rig.put("other")
            wait_for("the policy", lambda: rig.said().count("policy-loaded") > 1)
            expect(c.ask("cx-tls", tls_args("b.example")), verdict="allow")
            denied(c.ask("cx-tls", tls_args()), "not-listed")


def swaps_under_load():
    """the policy is replaced 100 times under load: each answer is wholly of one"""
    with Rig({"main": MAIN, "other": OTHER}, TABLE) as rig:
        stop, wrong, seen = threading.Event(), [], set()

        def load():
            with rig.client(timeout=20) as c:
                while not stop.is_set():
                    for i, name in enumerate(("a.example", "b.example") * 50):
                        c.notify(spop.message("cx-tls", tls_args(name)), i + 1, 1)
                    for _ in range(100):
                        v = c.receive().variables()
                        kind = (v["verdict"], v.get("name"), v["reason"])
                        seen.add(kind)
                        if kind not in (("allow", "a.example", "allowed"),
                                        ("allow", "b.example", "allowed"),
                                        ("deny", None, "not-listed")):
                            wrong.append(v)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for t in threads:
            t.start()
        try:
            for i in range(100):
                rig.put("other" if i % 2 == 0 else "main")
                if i % 2:
                    rig.process.send_signal(signal.SIGHUP)
                wait_for("a swap", lambda n=i + 1: rig.said().count("policy-loaded") > n)
        finally:
            stop.set()
            for t in threads:
                t.join(30)
        assert not any(t.is_alive() for t in threads)
        assert not wrong, wrong[:3]
        assert len(seen) == 3, seen
        for row in rig.events(verdict="allow"):
            want = {"a.example": "main", "b.example": "other"}[row["name"]]
            assert row["revision"] == want, row


def drains():
    """SIGTERM: outstanding answers are given, a goodbye is said, the socket goes, exit 0"""
    with Rig({"main": MAIN}, TABLE) as rig:
        with rig.client(timeout=10) as c, rig.client() as idle:
            c.notify(spop.message("cx-tls", tls_args("slow-4.wild.example")), 1, 1)
            wait_for("the question", lambda: rig.resolver.seen)
            rig.process.terminate()
            gone(idle, 0)
            expect(c.receive().variables(), verdict="allow")
            gone(c, 0)
        assert rig.stop() == 0
        assert not rig.socket.exists()


def ends_at_once():
    """a second SIGTERM does not wait"""
    with Rig({"main": MAIN}, TABLE) as rig:
        with rig.client(timeout=10) as c:
            c.notify(spop.message("cx-tls", tls_args("silent-9.wild.example")), 1, 1)
            wait_for("the question", lambda: rig.resolver.seen)
            start = time.monotonic()
            rig.process.terminate()
            wait_for("draining", lambda: "draining" in rig.said())
            rig.process.terminate()
            assert rig.stop() == 0
            assert time.monotonic() - start < 2
        assert rig.events(reason="internal-error"), "what was outstanding is recorded"


def socket_files():
    """the socket: its mode, a dead one replaced, a live one and other files left alone"""
    with Rig({"main": MAIN}, TABLE) as rig:
        mode = os.lstat(rig.socket)
        assert stat.S_ISSOCK(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o660, oct(mode.st_mode)

        def second(path):
            return subprocess.run([BUILD / "cx-spoa", "-p", rig.policy, "-l", f"unix:{path}",
                                   "-a", ""], capture_output=True, text=True, timeout=20,
                                  check=False)
        done = second(rig.socket)
        assert done.returncode == 3 and "another program" in done.stderr, done
        assert os.lstat(rig.socket).st_ino == mode.st_ino
        plain = rig.dir / "file"
        plain.write_text("keep", encoding="ascii")
        assert second(plain).returncode == 3 and plain.read_text(encoding="ascii") == "keep"
        assert second(rig.dir / "no" / "dir").returncode == 3
        assert second("relative").returncode == 3
        still_serves(rig)
        dead = rig.dir / "dead.sock"
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(dead))
        with open(rig.dir / "log2", "wb") as log:
            other = subprocess.Popen([BUILD / "cx-spoa", "-p", rig.policy, "-l", f"unix:{dead}",
                                      "-a", ""], stderr=log)
        try:
            wait_for("ready", lambda: b"ready" in (rig.dir / "log2").read_bytes())
            with spop.Client(dead) as c:
                expect(c.ask("cx-tcp", tcp_args()), verdict="allow")
        finally:
            other.terminate()
            assert other.wait(15) == 0
        assert not dead.exists()
        assert [p.name for p in rig.dir.glob("*.sock*")] == ["spoa.sock"]


def replaced():
    """a second agent takes the socket over while the first one answers: nothing is lost"""
    with Rig({"main": MAIN}, TABLE) as rig:
        mark = os.lstat(rig.socket).st_ino
        argv = [BUILD / "cx-spoa", "-p", rig.policy, "-l", f"unix:{rig.socket}", "-r", rig.dir, "-a", "",
                "--resolver", f"127.0.0.1@{rig.resolver.port}", "--takeover"]
        with rig.client(timeout=10) as old, open(rig.dir / "log2", "wb") as log:
            other = subprocess.Popen(argv, stderr=log)
            try:
                wait_for("ready", lambda: b"ready" in (rig.dir / "log2").read_bytes())
                assert os.lstat(rig.socket).st_ino != mark
                old.notify(spop.message("cx-tls", tls_args("slow-1.wild.example")), 1, 1)
                wait_for("the question", lambda: rig.resolver.seen)
                rig.process.terminate()
                with rig.client() as new:
                    expect(new.ask("cx-tls", tls_args()), verdict="allow")
                expect(old.receive().variables(), verdict="allow")
                gone(old, 0)
                assert rig.stop() == 0
                with rig.client() as new:
                    expect(new.ask("cx-tls", tls_args()), verdict="allow")
            finally:
                other.terminate()
                assert other.wait(15) == 0
        assert not rig.socket.exists()


def socket_activation():
    """sockets from systemd: served, left in place, and nothing else taken for one"""
    with Rig({"main": MAIN}, TABLE) as rig:
        path = rig.dir / "passed.sock"
        holder = socket.socket(socket.AF_UNIX)
        holder.bind(str(path))
        holder.listen(16)
        script = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'

        def start(fd, log):
            return subprocess.Popen(["bash", "-c", script, "bash", str(fd), BUILD / "cx-spoa", "-p", rig.policy,
                                     "-r", rig.dir, "-a", "", "--resolver", f"127.0.0.1@{rig.resolver.port}"],
                                    pass_fds=[fd], stderr=log)
        for turn in range(2):
            with open(rig.dir / f"log{turn}", "wb") as log:
                other = start(holder.fileno(), log)
            # a question may come before anybody listens: it waits
            with spop.Client(path, timeout=15) as c:
                expect(c.ask("cx-tls", tls_args()), verdict="allow")
            other.terminate()
            assert other.wait(15) == 0
            assert path.exists()
        still_serves(rig) # the default path was not touched
        with socket.socket(socket.AF_UNIX) as plain, open(rig.dir / "log3", "wb") as log:
            assert start(plain.fileno(), log).wait(15) == 3
        assert b"listen-failed" in (rig.dir / "log3").read_bytes()
        holder.close()


def drops_privileges():
    """-u: the user's, for good, and the socket with it"""
    assert os.geteuid() == 0, "this case needs root"
    nobody = pwd.getpwnam("nobody")
    with Rig({"main": MAIN}, TABLE, policy=None, args=("-u", "nobody")) as rig:
        os.chmod(rig.dir, 0o755)
        with open(f"/proc/{rig.process.pid}/status", encoding="ascii") as f:
            status = dict(line.rstrip().split(":\t", 1) for line in f if ":\t" in line)
        assert set(status["Uid"].split()) == {str(nobody.pw_uid)}, status["Uid"]
        assert set(status["Gid"].split()) == {str(nobody.pw_gid)}, status["Gid"]
        assert int(status["CapPrm"], 16) == 0 and status["NoNewPrivs"] == "1", status
        assert os.lstat(rig.socket).st_uid == nobody.pw_uid
        rig.put("main")
        wait_for("the policy", lambda: "policy-loaded" in rig.said())
        still_serves(rig)


def usage():
    """usage errors end with 2 and a line; --help and --version with 0"""
    def run(*args):
        return subprocess.run([BUILD / "cx-spoa", *args], capture_output=True, text=True,
                              timeout=20, check=False)
    for args in (["-t", "0"], ["-t", "x"], ["-t", "65"], ["-z"], ["x"], ["-p"], ["--resolver", "x"],
                 ["--resolver", "1.2.3.4@0"], ["-u", "no-such-user-here"], ["--nope"]):
        done = run(*args)
        assert done.returncode == 2 and done.stderr, (args, done)
    for args in (["-l", "bad"], ["-l", "tcp:1.2.3.4"], ["-l", "tcp:localhost:1"],
                 ["-l", "tcp:[127.0.0.1]:1"], ["-l", "unix:x"]):
        done = run(*args)
        assert done.returncode == 3 and "listen-failed" in done.stderr, (args, done)
    for args in (["--help"], ["--version"]):
        done = run(*args)
        assert done.returncode == 0 and done.stdout.count("cx-spoa") and not done.stderr, done
    done = run("-K", "/nonexistent", "-l", "tcp:127.0.0.1:1")
    assert done.returncode == 3, done


SERVED = (allows_tls, prefers_family, denies_by_name, denies_hellos, judges_http, judges_tcp,
          judges_addresses, resolves, arguments_missing, payloads_broken, hello_variants,
          one_reply_in_one_piece, health_check, one_octet_writes, frame_sizes, frames_wrong,
          unknown_types, disconnects, duplicate_streams, many_streams, slow_reader, half_closed,
          dies_while_waiting, one_lookup, audited, over_tcp, silent_peers, one_source_floods)
ALONE = (no_descriptors, no_policy, bad_policies, swaps_under_load, drains, ends_at_once,
         socket_files, replaced, socket_activation, drops_privileges, usage)


def flood_alone():
    """a full table of waiting answers denies the rest, and frees itself"""
    with Rig({"main": MAIN}, TABLE, threads=1) as rig:
        floods(rig)


def main():
    cases = Cases()
    with Rig({"main": MAIN}, TABLE, tcp=True) as rig:
        silent = Silent(rig)
        for case in SERVED:
            cases.run(case, rig)
        cases.run(silent.ended, rig)
        if not rig.alive():
            print(rig.said())
    for case in ALONE + (flood_alone,):
        cases.run(case)
    return cases.finish()


if __name__ == "__main__":
    sys.exit(main())
