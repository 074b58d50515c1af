# SPDX-License-Identifier: Apache-2.0
"""An authority that remembers every question: it hands them to nsd, which knows the zones, and brings
the answers back. It can fall silent, and it can answer a name otherwise each time. Listens on loopback
only."""

import os
import socket
import struct
import sys
import threading

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration", "unbound"))
from lab import Authority, check  # noqa: E402


def head(zone):
    return ("$ORIGIN %s.\n$TTL 300\n@ SOA ns host 1 3600 600 86400 5\n@ NS ns\nns A 127.0.0.1\n" % zone)


class Recorder:
    """turns: {name: [lists of "TTL TYPE DATA"]}: what the name is answered with, one after the other."""

    def __init__(self, lab, zones, turns):
        self.nsd = Authority(lab, zones)
        self.turns = turns
        self.udp, self.tcp = self.listen()
        self.port = self.udp.getsockname()[1]
        self.lock = threading.Lock()
        self.forget()
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.accept, daemon=True).start()

    @staticmethod
    def listen():
        while True:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
                tcp.listen(64)
                return udp, tcp
            except OSError:
                udp.close()
                tcp.close()

    def forget(self):
        """As new, for the next set-up."""
        with self.lock:
            self.silent = False
            self.names = []  # as they were written, since the last look
            self.options = []  # that came with them
            self.turn = {name: 0 for name in self.turns}

    def look(self):
        with self.lock:
            names, self.names = self.names, []
        return names

    def reply(self, wire, udp):
        """What to answer; None: nothing."""
        q = dns.message.from_wire(wire)
        name = q.question[0].name.to_text()
        with self.lock:
            self.names.append(name.rstrip(".") or ".")
            self.options += [int(o.otype) for o in q.options]
            if self.silent:
                return None
            answers = self.turns.get(name.lower().rstrip("."))
            if answers:
                n = self.turn[name.lower().rstrip(".")]
                self.turn[name.lower().rstrip(".")] = n + 1
                return self.make(q, answers[min(n, len(answers) - 1)])
        return self.ask_nsd(wire, udp)

    @staticmethod
    def make(q, lines):
        r = dns.message.make_response(q)
        r.flags |= dns.flags.AA
        question = q.question[0]
        for line in lines:
            ttl, rtype, data = line.split(None, 2)
            if dns.rdatatype.from_text(rtype) in (question.rdtype, dns.rdatatype.CNAME):
                r.answer.append(dns.rrset.from_text(question.name, int(ttl), "IN", rtype, data))
        if not r.answer:
            r.authority.append(dns.rrset.from_text(question.name.parent(), 5, "IN", "SOA",
                                                   "ns. host. 1 2 3 4 5"))
        return r.to_wire()

    def ask_nsd(self, wire, udp):
        where = ("127.0.0.1", self.nsd.port)
        try:
            if udp:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.settimeout(2)
                    s.connect(where)
                    s.send(wire)
                    return s.recv(65535)
            with socket.create_connection(where, 2) as s:
                s.sendall(struct.pack("!H", len(wire)) + wire)
                return read_message(s)
        except OSError:
            return None

    def serve_udp(self):
        while True:
            try:
                wire, peer = self.udp.recvfrom(65535)
                answer = self.reply(wire, True)
                if answer:
                    self.udp.sendto(answer, peer)
            except OSError:
                return

    def accept(self):
        while True:
            try:
                s, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.serve_tcp, args=(s,), daemon=True).start()

    def serve_tcp(self, s):
        with s:
            try:
                while True:
                    answer = self.reply(read_message(s), False)
                    if answer:
                        s.sendall(struct.pack("!H", len(answer)) + answer)
            except (OSError, EOFError):
                return

    def close(self):
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.udp.close()
        self.tcp.close()
        self.nsd.stop()


def read_message(s):
    """One message with its length before it."""
    def take(n):
        out = b""
        while len(out) < n:
            more = s.recv(n - len(out))
            if not more:
                raise EOFError
            out += more
        return out

    return take(struct.unpack("!H", take(2))[0])


def make_authorities(lab, case):
    """{name: Recorder} for the zones of a case, and lines of trust anchors."""
    zones, anchors = {}, []
    for z in case.zones:
        text = head(z.name) + z.text
        if z.signed:
            text, anchor = lab.sign(z.name, text)
            anchors.append(anchor)
            for old, new in z.forged:
                check(old in text, "nothing to forge: " + old)
                text = text.replace(old, new)
        zones.setdefault(z.at, {})[z.name] = text
    return {at: Recorder(lab, z, case.turns) for at, z in zones.items()}, anchors
