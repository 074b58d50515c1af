# SPDX-License-Identifier: Apache-2.0
"""Asks the DNS questions of verdict cases in a real Unbound with the module, from client addresses of
127.0.0.0/8, with an authority of our own behind it that has an answer for every name. Judges nothing."""

import ipaddress
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import dns.rcode
import dns.rdatatype

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(HERE, "..", "integration", "unbound"))

import lab  # noqa: E402

ZONE = """$TTL 60
. SOA ns. admin. 1 3600 600 86400 60
. NS ns.
ns. A 127.0.0.1
* A 198.18.7.7
* AAAA 2001:db8:99::7
* TXT "text"
* MX 10 mail.
"""


def can_be_asked(case, q):
    """Names, by a client that this host can be."""
    return (q.kind == "dns" and not case.clock and not case.locals and
            ipaddress.ip_address(q.source) in ipaddress.ip_network("127.0.0.0/8"))


def police_everything():
    """The local zones that Unbound answers by itself, switched off as our configuration does."""
    text = lab.read(os.path.join(ROOT, "conf", "unbound", "cx.conf"))
    return "\n".join(re.findall(r"^\s*local-zone:.*nodefault.*$", text, re.M))


def read_answer(q, reply):
    found = lab.ede(reply)
    reason = found[1] if found and found[0] in (14, 15, 18) else None
    rcode = dns.rcode.to_text(reply.rcode())
    if reason is None and rcode == "NOERROR":
        wanted = q.target.rpartition("/")[2]
        if wanted in ("A", "AAAA", "TXT") and not reply.answer:
            return "no answer", None, None
        return (q.verdict if q.verdict == "observe" else "allow"), None, None
    want = {"no-policy": "SERVFAIL", "query-type": "NOERROR"}.get(reason, "NXDOMAIN")
    if rcode != want or any(s.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA) for s in reply.answer):
        return f"{rcode} with {len(reply.answer)} answers", reason, None
    return "deny", reason, None


def ask_case(args, case, authority):
    questions = [q for q in case.questions if can_be_asked(case, q)]
    answers = []
    bench = lab.Lab()
    try:
        unbound = lab.Unbound(bench, "unbound", os.path.join(lab.BUILD, "cx_unbound.so"),
                              policy=os.path.join(args.work, case.name + ".bin"), threads=1,
                              server=police_everything(),
                              more=f"forward-zone:\n  name: \".\"\n  forward-addr: 127.0.0.1@{authority.port}\n")
        for q in questions:
            name, _, qtype = q.target[4:].rpartition("/")
            reply = unbound.ask(name.rstrip(".") + ".", qtype, client=q.source)
            answers.append((q, read_answer(q, reply)))
    finally:
        bench.close()
    return answers


def ask_module(prepared, args, score):
    lab.BUILD = os.path.abspath(args.build)
    asked = [c for c in prepared if any(can_be_asked(c, q) for q in c.questions)]
    outer = lab.Lab()
    try:
        authority = lab.Authority(outer, {".": ZONE})
        with ThreadPoolExecutor(2) as pool:
            running = [(c, pool.submit(ask_case, args, c, authority)) for c in asked]
            for case, future in running:
                try:
                    for q, got in future.result():
                        score.result(q, got)
                except Exception as e:  # whatever happened, the case is not shown
                    score.error(case, f"{type(e).__name__}: {e}")
    finally:
        outer.close()
