# SPDX-License-Identifier: Apache-2.0
"""Does the steps of a case against a set-up that runs, and says which came out otherwise. Sends to
loopback only."""

import concurrent.futures
import os
import re
import socket
import struct
import subprocess
import sys
import time

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration", "unbound"))
from lab import BUILD, Failure, check, ede, read, wait_for  # noqa: E402
from authority import read_message  # noqa: E402

CLIENTS = {"A": "127.0.0.11", "B": "127.0.0.12", "gateway": "127.0.0.13", "stranger": "127.0.0.14",
           "ignored": "127.0.0.15", "A6": "::1"}
EDE_CODES = {"unknown-source": 18, "no-binding": 18, "no-policy": 14}
FLAGS = {"aa": dns.flags.AA, "ad": dns.flags.AD, "ra": dns.flags.RA, "tc": dns.flags.TC,
         "cd": dns.flags.CD, "rd": dns.flags.RD}
OPTIONS = ("tcp", "do", "cd", "ad", "noedns", "rd0", "mixed", "split")
PATIENCE = 8.0


class Question:
    """CLIENT [proxied] NAME TYPE [(OPTION...)]"""

    def __init__(self, client, text):
        text, _, options = text.partition("(")
        words = text.split()
        self.client = CLIENTS[client]
        self.name, self.qtype = words[0], words[1] if len(words) > 1 else "A"
        check(len(words) <= 2, "not a question: " + text)
        self.options = options.rstrip(") ").split()
        self.values = dict(o.split("=") for o in self.options if "=" in o)
        unknown = [o for o in self.options if "=" not in o and o not in OPTIONS]
        unknown += [k for k in self.values if k not in ("class", "payload", "wait", "option", "version")]
        check(not unknown, "unknown options: %s" % unknown)

    def message(self):
        edns = -1 if "noedns" in self.options else int(self.values.get("version", 0))
        name = self.name
        if "mixed" in self.options:
            name = "".join(c.upper() if i % 2 else c for i, c in enumerate(name))
        q = dns.message.make_query(name, self.qtype, self.values.get("class", "IN"), use_edns=edns,
                                   payload=int(self.values.get("payload", 4096)),
                                   want_dnssec="do" in self.options)
        if "version" in self.values:
            q.use_edns(edns, payload=4096)
        if "option" in self.values:
            code, data = self.values["option"].split(":")
            q.use_edns(0, payload=4096,
                       options=[dns.edns.GenericOption(int(code), bytes.fromhex(data))])
        q.flags |= dns.flags.CD if "cd" in self.options else 0
        q.flags |= dns.flags.AD if "ad" in self.options else 0
        q.flags &= ~dns.flags.RD if "rd0" in self.options else ~0
        return q


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def proxy_header(client, port):
    """PROXY v2, UDP over IPv4."""
    return (b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x12, 12) + socket.inet_aton(client) +
            socket.inet_aton("127.0.0.1") + struct.pack("!HH", 4242, port))


class Exchange:
    """Packets to a set-up and what comes back; None: nothing did."""

    def __init__(self, started):
        self.at = started

    def server(self, client, port=None):
        return ("::1" if ":" in client else "127.0.0.1", port or self.at.port)

    def udp(self, client, wire, wait=PATIENCE):
        with socket.socket(family(client), socket.SOCK_DGRAM) as s:
            s.settimeout(wait)
            if self.at.proxy_port:  # from an address that has no part in the policy
                wire = proxy_header(client, self.at.proxy_port) + wire
                s.sendto(wire, self.server("127.0.0.1", self.at.proxy_port))
            else:
                s.bind((client, 0))
                s.sendto(wire, self.server(client))
            try:
                return s.recv(65535)
            except socket.timeout:
                return None

    def tcp(self, client, wires, wait=PATIENCE, split=False):
        """As many answers as there are questions, in the order that they come in."""
        out = b"".join(struct.pack("!H", len(w)) + w for w in wires)
        with socket.socket(family(client), socket.SOCK_STREAM) as s:
            s.settimeout(wait)
            s.bind((client, 0))
            s.connect(self.server(client))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in ([out[i:i + 1] for i in range(len(out))] if split else [out]):
                s.sendall(piece)
            got = []
            try:
                while len(got) < len(wires):
                    got.append(read_message(s))
            except (EOFError, OSError):
                pass
            return got


# ---- what came back, in the words of a case ----

def denial(r):
    e = ede(r)
    return " " + e[1] if e and e[1] else ""


def data_of(r, qtype):
    """The data of the answer's records of that type, as zone files write it."""
    return sorted(rr.to_text() for s in r.answer if s.rdtype == qtype for rr in s)


def say(r):
    """One line that says all that a case may ask for."""
    if r is None:
        return "silence"
    if isinstance(r, bytes):
        return "not a DNS message: " + r.hex()
    words = [dns.rcode.to_text(r.rcode())]
    words += ["%s %s" % (dns.rdatatype.to_text(s.rdtype), rr.to_text()) for s in r.answer for rr in s]
    words += ["(authority: %s)" % dns.rdatatype.to_text(s.rdtype) for s in r.authority]
    return "; ".join(words) + " " + dns.flags.to_text(r.flags) + " EDE %s" % (ede(r),)


class Expectation:
    """What stands behind => (README.md). matches() gives the reason why not, or None."""

    def __init__(self, text, qtype, edns):
        self.text, self.edns = text, edns
        self.qtype = dns.rdatatype.from_text(qtype)
        words = text.split()
        self.kind = words[0] if words and (words[0].isupper() or words[0] == "silence") else "DATA"
        if self.kind != "DATA" and self.kind not in ("HINFO",) and self.kind not in (
                "NXDOMAIN", "NODATA", "REFUSED", "SERVFAIL", "FORMERR", "NOTIMP", "BADVERS", "silence",
                "CNAME", "EMPTY"):
            raise Failure("not an expectation: " + text)
        self.flags = [w for w in words if re.fullmatch(r"[+-](aa|ad|ra|rd|cd|tc|sig|ede|cname)", w)]
        self.ttl = next((int(w[4:]) for w in words if w.startswith("ttl=")), None)
        rest = [w for w in words if w not in self.flags and not w.startswith("ttl=")]
        if self.kind == "DATA":
            self.data = self.read_data(" ".join(rest))
        else:
            self.reason = rest[1] if len(rest) > 1 else None

    def read_data(self, text):
        addresses = self.qtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
        items = text.split() if addresses else [s.strip() for s in text.split(" + ")]
        return sorted(dns.rdata.from_text("IN", self.qtype, i).to_text() for i in items)

    def matches(self, r):
        if self.kind == "silence" or r is None:
            return None if r is None and self.kind == "silence" else "not so"
        if isinstance(r, bytes):
            return "not so"
        check = {"DATA": self.is_data, "NODATA": self.is_nodata, "HINFO": self.is_hinfo,
                 "EMPTY": self.is_empty}
        return check.get(self.kind, self.is_rcode)(r) or self.wrong_flags(r)

    def is_data(self, r):
        got = data_of(r, self.qtype)
        return None if r.rcode() == 0 and got == self.data else "data %s" % got

    def is_empty(self, r):
        return None if r.rcode() == 0 and not data_of(r, self.qtype) else "not empty"

    def soa(self, r):
        found = [s for s in r.authority if s.rdtype == dns.rdatatype.SOA]
        if len(found) != 1:
            return "not one SOA"
        if self.reason and found[0].ttl != found[0][0].minimum:
            return "SOA: TTL %d, minimum %d" % (found[0].ttl, found[0][0].minimum)
        if self.ttl is not None and found[0].ttl != self.ttl:
            return "SOA: TTL %d" % found[0].ttl
        return None

    def is_nodata(self, r):
        if r.rcode() != 0 or r.answer:
            return "not NODATA"
        return self.soa(r) or self.wrong_reason(r)

    def is_hinfo(self, r):
        if r.rcode() != 0 or [s.rdtype for s in r.answer] != [dns.rdatatype.HINFO]:
            return "not HINFO"
        return None if r.answer[0][0].cpu == b"RFC8482" and not self.wrong_reason(r) else "not RFC8482"

    def is_rcode(self, r):
        if dns.rcode.to_text(r.rcode()) != self.kind or (r.answer and self.reason):
            return "not " + self.kind
        if self.kind == "NXDOMAIN" and self.reason:
            return self.soa(r) or self.wrong_reason(r)
        return self.wrong_reason(r)

    def wrong_reason(self, r):
        if not self.reason:
            return None
        want = (EDE_CODES.get(self.reason, 15), self.reason) if self.edns else None
        return None if ede(r) == want else "EDE %s, not %s" % (ede(r), want)

    def wrong_flags(self, r):
        has = {"sig": any(s.rdtype == dns.rdatatype.RRSIG for s in r.answer),
               "cname": any(s.rdtype == dns.rdatatype.CNAME for s in r.answer), "ede": ede(r) is not None}
        for f in self.flags:
            is_set = has[f[1:]] if f[1:] in has else bool(r.flags & FLAGS[f[1:]])
            if is_set != (f[0] == "+"):
                return "%s is %sset" % (f[1:], "" if is_set else "not ")
        return None


# ---- the steps ----

def parse(wire, one_rr_per_rrset=False):
    if wire is None:
        return None
    try:
        return dns.message.from_wire(wire, one_rr_per_rrset=one_rr_per_rrset)
    except dns.exception.DNSException:
        return wire


class Runner:
    def __init__(self, lab, case, started, authorities, policies):
        self.lab, self.case, self.at = lab, case, started
        self.authorities, self.policies = authorities, policies
        self.exchange = Exchange(started)
        self.later = {}
        self.answers = 0

    def do(self, step, want):
        """None, or what was wrong. want: what is expected here, for all set-ups or this one."""
        if step.verb in CLIENTS:
            return self.ask(step.verb, step.what, want)
        return getattr(self, "do_" + step.verb)(step.what, want)

    def put(self, q):
        wire = q.message().to_wire()
        wait = float(q.values.get("wait", PATIENCE))
        if "tcp" in q.options or "split" in q.options:
            got = self.exchange.tcp(q.client, [wire], wait, "split" in q.options)
            return got[0] if got else None
        return self.exchange.udp(q.client, wire, wait)

    def judge(self, q, wire, want):
        r = parse(wire)
        self.answers += 1
        wrong = []
        for one in want.split(" or "):
            e = Expectation(one, q.qtype, "noedns" not in q.options)
            why = e.matches(r)
            if why is None:
                return self.same_question(q, r)
            wrong.append(why)
        return "%s: %s" % ("; ".join(wrong), say(r))

    @staticmethod
    def same_question(q, r):
        """The question comes back letter for letter."""
        if isinstance(r, dns.message.Message) and r.question:
            asked = q.message().question[0].name.to_text()
            if r.question[0].name.to_text() != asked:
                return "the question came back as %s" % r.question[0].name
        return None

    def ask(self, client, what, want):
        q = Question(client, what)
        return self.judge(q, self.put(q), want)

    def do_twice(self, what, want):
        """The same again, so that the second answer comes out of the cache."""
        client, _, question = what.partition(" ")
        return self.ask(client, question, want) or self.ask(client, question, want)

    def do_beside(self, what, want):
        """CLIENT QUESTION => not ADDRESS...: nowhere in the whole message."""
        client, _, question = what.partition(" ")
        r = parse(self.put(Question(client, question)))
        words = want.split()[1:]
        self.answers += 1
        there = r.to_text().split() if isinstance(r, dns.message.Message) and r.answer else words
        found = [w for w in words if w in there]
        return "%s in %s" % (found, say(r)) if found else None

    def do_packet(self, what, want):
        """CLIENT [tcp] of octets in hex, (NAME) for a name."""
        client, _, text = what.partition(" ")
        tcp = text.startswith("tcp ")
        wire = b""
        for part in re.findall(r"\([^)]*\)|[0-9a-f]+", text[4:] if tcp else text):
            wire += dns.name.from_text(part[1:-1]).to_wire() if part[0] == "(" else bytes.fromhex(part)
        wait = 0.5 if "silence" in want else PATIENCE
        if tcp:
            got = self.exchange.tcp(CLIENTS[client], [wire], wait)
            raw = got[0] if got else None
        else:
            raw = self.exchange.udp(CLIENTS[client], wire, wait)
        self.answers += 1
        said = "silence" if raw is None else dns.rcode.to_text(raw[3] & 15) if len(raw) >= 12 else raw.hex()
        # Unbound's FORMERR is a header alone, with the counts of the question
        answers = 0 if raw is None or len(raw) <= 12 else struct.unpack("!H", raw[6:8])[0]
        if answers:
            said += " with answers"
        return None if said in want.split(" or ") else said

    def do_pipeline(self, what, want):
        """CLIENT QUESTION; QUESTION... in one segment of a TCP connection; answers in any order."""
        client, _, text = what.partition(" ")
        questions = [Question(client, s.strip()) for s in text.split(";")]
        wires = []
        for i, q in enumerate(questions):
            m = q.message()
            m.id = 1000 + i
            wires.append(m.to_wire())
        got = {struct.unpack("!H", w[:2])[0]: w for w in self.exchange.tcp(CLIENTS[client], wires)}
        for i, (q, one) in enumerate(zip(questions, want.split(";"))):
            wrong = self.judge(q, got.get(1000 + i), one.strip())
            if wrong:
                return "%s: %s" % (q.name, wrong)
        return None

    def do_begin(self, what, want):
        """LABEL CLIENT QUESTION: asks, and does not wait for the answer."""
        label, client, question = what.split(None, 2)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        q = Question(client, question)
        self.later[label] = (q, pool.submit(self.put, q), pool)

    def do_end(self, what, want):
        q, future, pool = self.later.pop(what)
        try:
            return self.judge(q, future.result(PATIENCE + 2), want)
        finally:
            pool.shutdown(wait=False)

    def do_pending(self, what, want):
        """LABEL: no answer has come yet."""
        return "it was answered" if self.later[what][1].done() else None

    def do_silent(self, what, want):
        self.authorities[what].silent = True

    def do_speaking(self, what, want):
        self.authorities[what].silent = False

    def do_wait(self, what, want):
        """SECONDS: until what was given so long to live has ended."""
        time.sleep(float(what.split()[0]))

    def do_asked(self, what, want):
        """AUTHORITY => none | NAMES | not TEXT | lower: what it was asked since the last look."""
        words = want.split()
        names = self.authorities[what].look()
        if words == ["none"]:
            wrong = names
        elif words == ["lower"]:
            wrong = [n for n in names if n != n.lower()] or ([] if names else ["nothing was asked"])
        elif words[0] == "not":
            wrong = [n for n in names if any(w in n.lower() for w in words[1:])]
        else:
            wrong = [n for n in words if n not in [x.lower() for x in names]]
        return "asked: %s" % (names if names != wrong else sorted(set(names))) if wrong else None

    def do_options(self, what, want):
        """AUTHORITY => none: the EDNS options that came with questions."""
        return "options: %s" % self.authorities[what].options if self.authorities[what].options else None

    def do_arrives(self, what, want):
        """AUTHORITY => NAME: waits until it is asked for the name."""
        a = self.authorities[what]
        wait_for("%s at %s" % (want, what), lambda: want in [n.lower() for n in a.names])

    def do_policy(self, what, want):
        n = read(self.at.log).count("policy-loaded")
        self.lab.replace(self.at.policy, self.policies[what])
        wait_for("the policy", lambda: read(self.at.log).count("policy-loaded") > n)

    def do_race(self, what, want):
        """QUERIES: both clients ask for all names of the section `race` at once, over UDP and TCP."""
        names = self.lab.new("names")
        with open(names, "w", encoding="utf-8") as f:
            f.write("\n".join(self.case.races) + "\n")
        r = subprocess.run([BUILD + "/race", str(self.at.port), what, "7", names, CLIENTS["A"], CLIENTS["B"],
                            "4", "2"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                           timeout=120)
        found = re.search(r"sent (\d+) answered (\d+) lost (\d+) wrong (\d+)", r.stdout)
        if not found or int(found.group(4)) or int(found.group(3)):
            return r.stdout + r.stderr
        self.answers += int(found.group(2))
        unseen = [w for w in want.split() if not re.search(r"^seen %s [1-9]" % re.escape(
            w.replace("/", " ", 1)), r.stdout, re.M)]
        return "never seen: %s; %s" % (unseen, r.stdout) if unseen else None
