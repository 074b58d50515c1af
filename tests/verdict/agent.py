# SPDX-License-Identifier: Apache-2.0
"""Asks verdict cases through a real cx-spoa: NOTIFY frames over a unix socket as HAProxy would send them,
and a resolver of our own that gives the addresses which the case says. Judges nothing."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dns.exception
import dns.message
import dns.rdatatype
import dns.rrset

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "integration", "spoa"))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

import hello  # noqa: E402
import spop  # noqa: E402

DEFAULT_ADDRESSES = ["198.18.7.7", "2001:db8:99::7"]


class Resolver(threading.Thread):
    """Answers A and AAAA of every name: what `table` has for it, else the default addresses."""

    def __init__(self):
        super().__init__(daemon=True)
        self.table = {}
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(0.2)
        self.port = self.sock.getsockname()[1]
        self.stopping = False
        self.start()

    def run(self):
        while not self.stopping:
            try:
                data, peer = self.sock.recvfrom(4096)
                self.sock.sendto(self.answer(dns.message.from_wire(data)).to_wire(), peer)
            except (socket.timeout, dns.exception.DNSException):
                continue
            except OSError:
                return

    def answer(self, query):
        reply = dns.message.make_response(query, recursion_available=True)
        q = query.question[0]
        name = q.name.to_text(omit_final_dot=True).lower()
        v6 = q.rdtype == dns.rdatatype.AAAA
        found = [a for a in self.table.get(name, DEFAULT_ADDRESSES) if (":" in a) == v6]
        if found and q.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            reply.answer.append(dns.rrset.from_text_list(q.name, 60, "IN", q.rdtype, found))
        return reply

    def close(self):
        self.stopping = True
        self.join()
        self.sock.close()


class Agent:
    def __init__(self, args, case, work):
        self.resolver = Resolver()
        self.dir = tempfile.mkdtemp(prefix="cx-verdict-", dir=work)
        self.socket = os.path.join(self.dir, "s")
        self.log = os.path.join(self.dir, "log")
        policy = os.path.join(args.work, case.name + ".bin")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [f"{args.build}/cx-spoa", "-p", policy, "-l", f"unix:{self.socket}", "-t", "1",
                 "-r", self.dir, "-a", os.path.join(self.dir, "audit.jsonl"),
                 "--resolver", f"127.0.0.1@{self.resolver.port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.client = self.dial()

    def dial(self):
        end = time.monotonic() + 10
        while True:
            try:
                return spop.Client(self.socket, timeout=10)
            except (FileNotFoundError, ConnectionError):
                if self.process.poll() is not None or time.monotonic() > end:
                    text = open(self.log, encoding="utf-8").read()
                    self.close()
                    raise ConnectionError("cx-spoa does not answer: " + text) from None
                time.sleep(0.005)

    def close(self):
        if getattr(self, "client", None):
            self.client.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.resolver.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def split_host(text, port):
    """HOST[:PORT] -> (HOST, PORT), an IPv6 literal with its brackets."""
    end = text.find("]") + 1
    colon = text.find(":", end)
    return (text, port) if colon < 0 else (text[:colon], int(text[colon + 1:]))


def host_of(q):
    scheme, rest = q.target.split("://", 1)
    host, port = split_host(rest.partition("/")[0], 443 if scheme == "https" else 80)
    return host, port


def arguments(q):
    args = {"src": spop.address(q.source), "dst": spop.address("203.0.113.99"), "id": q.case.name}
    if q.kind == "tcp":
        host, port = split_host(q.target[4:], 0)
        args.update(dst=spop.address(host.strip("[]")), dport=port)
        return "cx-tcp", args
    if q.kind == "connect":
        return "cx-connect", {k: args[k] for k in ("src", "id")} | {"authority": q.target[8:]}
    host, port = host_of(q)
    args["dport"] = port
    if q.kind == "https":
        more = [hello.extension(0xFE0D, os.urandom(64))] if q.ech else []
        args.update(hello=hello.plain(hello.server_name(host), *more), sni=host)
        return "cx-tls", args
    rest = q.target.split("://", 1)[1]
    authority, slash, path = rest.partition("/")
    args.update(method=q.method or "GET", url=slash + path or "/", host=authority)
    if q.upgrade:
        args["upgrade"] = q.upgrade
    return "cx-http", args


def read_answer(v):
    verdict, reason = v["verdict"], v["reason"]
    if verdict == "next":
        return f"next-{v['next']}", reason, None
    if verdict == "allow":
        # the configuration connects to these, so an allow without them is none
        if "addr" not in v or "port" not in v:
            return "allow without addr and port", reason, None
        return ("allow" if reason == "allowed" else "observe"), reason, None
    return verdict, reason, None


def batches(questions):
    """Groups in which no name needs two different sets of addresses: the agent caches them."""
    groups = []
    for q in questions:
        name = host_of(q)[0].rstrip(".").lower() if "://" in q.target else None
        for table, group in groups:
            if name is None or table.setdefault(name, q.resolved) == q.resolved:
                group.append(q)
                break
        else:
            groups.append(({name: q.resolved} if name else {}, [q]))
    return groups


def ask_case(args, case, work):
    answers = []
    questions = [q for q in case.questions if q.kind in ("https", "http", "tcp", "connect")]
    for table, group in batches(questions):
        agent = Agent(args, case, work)
        try:
            agent.resolver.table = {n: a for n, a in table.items() if a is not None}
            for q in group:
                answers.append((q, read_answer(agent.client.ask(*arguments(q)))))
        finally:
            agent.close()
    return answers


def ask_agent(prepared, args, score):
    asked = [c for c in prepared if not c.clock and not c.locals]
    with tempfile.TemporaryDirectory(prefix="cx-verdict-") as work, ThreadPoolExecutor(2) as pool:
        running = [(c, pool.submit(ask_case, args, c, work)) for c in asked]
        for case, future in running:
            try:
                for q, got in future.result():
                    score.result(q, got)
            except (OSError, ValueError, KeyError) as e:
                score.error(case, f"{type(e).__name__}: {e}")
