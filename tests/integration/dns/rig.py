# SPDX-License-Identifier: Apache-2.0
"""cx-dns before the distribution's own Unbound, and before an upstream that does what no Unbound would.
Builds on the laboratory of the module's tests; traffic stays on loopback."""

import os
import socket
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, "..", "unbound"))

import dns.flags  # noqa: E402
import dns.message  # noqa: E402
import dns.query  # noqa: E402
import dns.rrset  # noqa: E402

from lab import (BUILD, CLIENT_A, ROOT, Process, check, free_port, read, sanitizer_options, wait_for,
                 write)  # noqa: E402

UNBOUND = "/usr/sbin/unbound"
ANSWER = "198.51.100.77"


def low_port():
    """Below the ports that the kernel gives out: nobody gets it by chance."""
    while True:
        port = free_port()
        if port < 32000:
            return port


class Stock(Process):
    """The package's Unbound with the package's configuration and conf/unbound/cx-dns.conf, another port in
    it; `more` is what the test needs: stubs instead of the Internet."""

    def __init__(self, lab, stubs=None, more="", proxy=False):
        self.port = low_port()
        self.dir = lab.new("stock")
        os.mkdir(self.dir)
        ours = read(os.path.join(ROOT, "conf/unbound/cx-dns.conf"))
        if proxy:
            ours = ours.replace("#\tproxy-protocol-port", "\tproxy-protocol-port")
            ours = ours.replace("#\taccess-control: 172.16.0.0/16", "\taccess-control: 127.0.0.0/8")
        check(ours.count("5300") == 3, "conf/unbound/cx-dns.conf is another one: %s" % ours)
        write(os.path.join(self.dir, "cx-dns.conf"), ours.replace("5300", str(self.port)))
        # the package's main file takes in a directory; the root's keys in it are of no use here
        conf = read("/etc/unbound/unbound.conf").replace("/etc/unbound/unbound.conf.d/*.conf",
                                                        os.path.join(self.dir, "cx-dns.conf"))
        conf += """
server:
  directory: "%(dir)s"
  username: ""
  pidfile: ""
  use-syslog: no
  verbosity: 1
  do-not-query-localhost: no
  module-config: "iterator"
remote-control:
  control-enable: no
server:
%(more)s
""" % {"dir": self.dir, "more": more}
        for zone, port in (stubs or {}).items():
            conf += "stub-zone:\n  name: \"%s\"\n  stub-addr: 127.0.0.1@%d\n" % (zone, port)
        super().__init__(lab, [UNBOUND, "-d", "-c", write(os.path.join(self.dir, "conf"), conf)],
                         os.path.join(self.dir, "log"))

        def up():
            check(self.alive(), "unbound ended: " + read(self.log)[-2000:])
            return "start of service" in read(self.log)

        wait_for("the stock Unbound", up, 60)


class Shim(Process):
    def __init__(self, lab, policy, upstream, *more, listen=("127.0.0.1",), threads=2, audit=True,
                 runtime=None, wait=True, user=None):
        self.port = low_port()
        self.dir = lab.new("shim")
        os.mkdir(self.dir)
        self.runtime = runtime or self.dir
        self.audit = os.path.join(self.dir, "audit.jsonl")
        where = []
        for address in listen:
            where += ["-l", "%s:%d" % ("[%s]" % address if ":" in address else address, self.port)]
        argv = [os.path.join(BUILD, "cx-dns"), "-p", policy, *where, "--upstream", "127.0.0.1@%d" % upstream,
                "-t", str(threads), "-r", self.runtime, "-a", self.audit if audit else "", *more]
        env = {**os.environ, **sanitizer_options(self.dir)}
        super().__init__(lab, argv, os.path.join(self.dir, "log"), env)
        if wait:
            self.wait_for_log("ready")

    def wait_for_log(self, text, seconds=20):
        def there():
            check(self.alive() or text in read(self.log), "cx-dns ended: " + read(self.log)[-2000:])
            return text in read(self.log)

        wait_for("%r in the log of cx-dns" % text, there, seconds)

    def ask(self, name, qtype="A", client=CLIENT_A, tcp=False, edns=True, rd=True, rdclass="IN", timeout=9.0,
            payload=1232, want_dnssec=False, server="127.0.0.1", options=None):
        q = dns.message.make_query(name, qtype, rdclass, use_edns=0 if edns else -1, payload=payload,
                                   want_dnssec=want_dnssec, options=options)
        if not rd:
            q.flags &= ~dns.flags.RD
        f = dns.query.tcp if tcp else dns.query.udp
        return f(q, server, port=self.port, source=client, timeout=timeout)

    def raw(self, wire, client=CLIENT_A, timeout=2.0):
        """The answer to one datagram, or None."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((client, 0))
            s.settimeout(timeout)
            s.sendto(wire, ("127.0.0.1", self.port))
            try:
                return s.recv(65535)
            except socket.timeout:
                return None

    def connect(self, client=CLIENT_A, timeout=5.0):
        s = socket.socket()
        s.bind((client, 0))
        s.settimeout(timeout)
        s.connect(("127.0.0.1", self.port))
        return s


def frame(wire):
    return struct.pack("!H", len(wire)) + wire


def read_exactly(s, n):
    out = b""
    while len(out) < n:
        got = s.recv(n - len(out))
        if not got:
            return None
        out += got
    return out


def read_message(s):
    """The next message of a TCP connection; None at its end."""
    try:
        head = read_exactly(s, 2)
        return read_exactly(s, struct.unpack("!H", head)[0]) if head else None
    except ConnectionResetError:
        return None


def is_closed(s, seconds):
    """Does the other side close within that time?"""
    s.settimeout(seconds)
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False


PROXY = b"\r\n\r\n\0\r\nQUIT\n"


def strip_proxy(data):
    """(client address and port, what follows) of what starts with a PROXYv2 header."""
    check(data[:12] == PROXY and data[12] == 0x21, "no PROXYv2 header: %r" % data[:16])
    family, n = data[13], struct.unpack("!H", data[14:16])[0]
    body = data[16:16 + n]
    size = 4 if family >> 4 == 1 else 16
    check(n == 2 * size + 4, "length %d" % n)
    address = socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, body[:size])
    return (address, struct.unpack("!H", body[2 * size:2 * size + 2])[0], family & 15), data[16 + n:]


def good(q, address=ANSWER, n=1, ttl=60):
    """What an honest upstream says."""
    r = dns.message.make_response(q, recursion_available=True)
    text = [address] if n == 1 else ["198.51.%d.%d" % (100 + i // 250, 1 + i % 250) for i in range(n)]
    r.answer.append(dns.rrset.from_text(q.question[0].name, ttl, "IN", "A", *text))
    return r


class Upstream:
    """A resolver that a test scripts: `say(q, tcp, send)` gets each question and a function to send octets with
    (over UDP also `send(data, other=True)`, from another port). Counts what it was asked."""

    def __init__(self, say, proxy=False, port=0):
        self.say = say
        self.proxy = proxy
        self.asked = []
        self.clients = []
        self.lock = threading.Lock()
        self.port = port or low_port()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind(("127.0.0.1", self.port))
        self.tcp.listen(100)
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.other.bind(("127.0.0.1", 0))
        for body in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=body, daemon=True).start()

    def note(self, wire, tcp, peer):
        with self.lock:
            self.asked.append((wire, tcp, peer))

    def names(self):
        with self.lock:
            return [dns.message.from_wire(w).question[0].name.to_text() for w, _, _ in self.asked]

    def take(self, data):
        if not self.proxy:
            return data
        client, rest = strip_proxy(data)
        with self.lock:
            self.clients.append(client)
        return rest

    def serve_udp(self):
        while True:
            try:
                data, peer = self.udp.recvfrom(65535)
            except OSError:
                return
            if not data:  # shut down
                return
            data = self.take(data)
            self.note(data, False, peer)

            def send(out, other=False, to=peer):
                try:
                    (self.other if other else self.udp).sendto(out, to)
                except OSError:
                    pass

            self.say(dns.message.from_wire(data), False, send)

    def serve_tcp(self):
        while True:
            try:
                s, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.serve_connection, args=(s,), daemon=True).start()

    def serve_connection(self, s):
        s.settimeout(20)
        with s:
            if self.proxy:
                head = read_exactly(s, 16)
                self.take(head + read_exactly(s, struct.unpack("!H", head[14:])[0]))
            data = read_message(s)
            if data is None:
                return
            self.note(data, True, None)
            try:
                self.say(dns.message.from_wire(data), True, s.sendall)
                s.shutdown(socket.SHUT_WR)
                s.recv(1)
            except OSError:  # it had enough
                pass

    def close(self):
        for s in (self.udp, self.tcp, self.other):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()


def policy(names=("*.ok.example", "ok.example"), more=""):
    """CLIENT_A and CLIENT_B see the same names; addresses of their own come by `more`."""
    return """version: 1
presets_version: "2026.11"
network:
  presets: []
  allowlist: [%s]
  limits: {dns: 100000/s, dns_names: 100000/s, dns_octets: 100MiB/s}
%s
sources: {127.0.0.11/32: default, 127.0.0.12/32: default, "::1/128": default}
resolver_clients: [127.0.0.13/32]
""" % (", ".join("\"%s\"" % n for n in names), more)


def since(start):
    return time.monotonic() - start
