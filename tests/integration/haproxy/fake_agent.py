#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An SPOP agent that misbehaves on demand, so that HAProxy's configuration can be tested against it.
It trusts whatever HAProxy tells it and must never be used as a policy.

usage: fake_agent.py SOCKET MODE PLAN    PLAN: JSON {"names": {name: address}, "ports": {port: next}}
"""

import ipaddress
import json
import os
import socket
import socketserver
import struct
import sys

HAPROXY_HELLO, HAPROXY_DISCONNECT, NOTIFY = 1, 2, 3
AGENT_HELLO, AGENT_DISCONNECT, ACK = 101, 102, 103
SESS, TXN = 1, 2


def varint(n):
    if n < 240:
        return bytes((n,))
    out = bytes((n & 0xff | 0xf0,))
    n = (n - 240) >> 4
    while n >= 128:
        out += bytes((n & 0x7f | 0x80,))
        n = (n - 128) >> 7
    return out + bytes((n,))


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return varint(len(s)) + s


def typed(value):
    if isinstance(value, int):
        return b"\x03" + varint(value)
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return b"\x08" + text(value)
    return (b"\x06" if address.version == 4 else b"\x07") + address.packed


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def varint(self):
        n = self.u8()
        shift = 4
        if n < 240:
            return n
        while True:
            byte = self.u8()
            n += byte << shift
            shift += 7
            if byte < 128:
                return n

    def text(self):
        return self.take(self.varint())

    def value(self):
        kind = self.u8()
        readers = {0: lambda: None, 1: lambda: bool(kind & 0x10), 6: lambda: self.address(4),
                   7: lambda: self.address(16), 8: self.text, 9: self.text}
        return readers.get(kind & 15, self.varint)()

    def address(self, n):
        return str(ipaddress.ip_address(self.take(n)))

    def left(self):
        return self.at < len(self.data)


def frame(kind, sid, fid, payload):
    body = struct.pack("!BI", kind, 1) + varint(sid) + varint(fid) + payload
    return struct.pack("!I", len(body)) + body


def pairs(values):
    return b"".join(text(k) + typed(v) for k, v in values.items())


def variables(values, scope=TXN):
    return b"".join(b"\x01\x03" + bytes((scope,)) + text(k) + typed(v) for k, v in values.items())


# What gateway.cfg holds a connection to.
FLOW = {"concurrent": 256, "rate": "52428800"}


def judge(plan, message, args):
    """As naive as can be: HAProxy's own reading of the name is believed."""
    answer = decide(plan, message, args)
    return answer if answer["verdict"] == "deny" else {**plan.get("flow", FLOW), **answer}


def decide(plan, message, args):
    port = args["dport"]
    if message == "cx-tcp":
        kind = plan["ports"].get(str(port))
        if not kind:
            return {"verdict": "deny", "reason": "not-listed"}
        if kind == "raw":
            return {"addr": args["dst"], "port": port, "next": "raw", "upstream": "direct", "verdict": "allow"}
        return {"port": port, "next": kind, "verdict": "next"}
    name = (args.get("sni") or args.get("host") or b"").decode("latin-1").split(":")[0].lower()
    address = plan["names"].get(name)
    if not address:
        return {"reason": "not-listed", "status": 403, "verdict": "deny"}
    if isinstance(address, list):
        address = address[":" in args["dst"]]
    return {"addr": address, "port": port, "name": name, "upstream": "direct", "verdict": "allow"}


# What a mode does with one NOTIFY: bytes to send, or None to close.
def m_normal(a, sid, fid, answer):
    return frame(ACK, sid, fid, variables(answer))


def m_silent(a, sid, fid, answer):
    return b""


def m_empty_ack(a, sid, fid, answer):
    return frame(ACK, sid, fid, b"")


def m_garbage(a, sid, fid, answer):
    return os.urandom(200)


def m_garbage_ack(a, sid, fid, answer):
    return frame(ACK, sid, fid, b"\x01\x03\x02\xff\xff\xff\xff" + os.urandom(64))


def m_close(a, sid, fid, answer):
    return None


def m_disconnect(a, sid, fid, answer):
    return frame(AGENT_DISCONNECT, 0, 0, pairs({"status-code": 99, "message": "bye"}))


def m_truncated(a, sid, fid, answer):
    return frame(ACK, sid, fid, variables(answer))[:-4]


def m_oversized(a, sid, fid, answer):
    return struct.pack("!I", 1 << 30) + b"x" * 64


def m_other_stream(a, sid, fid, answer):
    return frame(ACK, sid + 1000, fid, variables(answer))


def m_other_scope(a, sid, fid, answer):
    return frame(ACK, sid, fid, variables(answer, SESS))


def m_no_address(a, sid, fid, answer):
    return frame(ACK, sid, fid, variables({k: v for k, v in answer.items() if k != "addr"}))


def m_no_port(a, sid, fid, answer):
    return frame(ACK, sid, fid, variables({k: v for k, v in answer.items() if k != "port"}))


def m_wrong_word(a, sid, fid, answer):
    return frame(ACK, sid, fid, variables({**answer, "verdict": "allowed"}))


def m_second_silent(a, sid, fid, answer):
    """An over-eager first answer, and then none: what the first one said must not stand."""
    if a.message == "cx-tcp":
        answer = {"addr": a.args["dst"], "port": a.args["dport"], "name": "x", "upstream": "direct", **answer}
        if a.server.plan.get("eager"):
            answer["verdict"] = "allow"
        return frame(ACK, sid, fid, variables(answer))
    return b""


def m_second_empty(a, sid, fid, answer):
    return m_second_silent(a, sid, fid, answer) or frame(ACK, sid, fid, b"")


def m_normal_then_silent(a, sid, fid, answer):
    a.server.count += 1
    return m_normal(a, sid, fid, answer) if a.server.count == 1 else b""


MODES = {k[2:].replace("_", "-"): v for k, v in globals().items() if k.startswith("m_")}


class Agent(socketserver.StreamRequestHandler):
    message, args = "", {}

    def handle(self):
        if self.server.mode == "garbage-hello":
            self.wfile.write(os.urandom(300))
            return
        while len(head := self.rfile.read(4)) == 4:
            out = self.one(Cursor(self.rfile.read(struct.unpack("!I", head)[0])))
            if out is None:
                return
            self.wfile.write(out)

    def one(self, c):
        kind = c.u8()
        c.take(4)
        sid, fid = c.varint(), c.varint()
        if kind == HAPROXY_HELLO:
            return frame(AGENT_HELLO, 0, 0, pairs(
                {"version": "2.0", "max-frame-size": 16380, "capabilities": "pipelining"}))
        if kind != NOTIFY:
            return None
        self.message = c.text().decode()
        self.args = {}
        for _ in range(c.u8()):
            key = c.text().decode()
            self.args[key] = c.value()
        answer = judge(self.server.plan, self.message, self.args)
        print(json.dumps([self.message, {k: str(v)[:80] for k, v in self.args.items()}, answer]), flush=True)
        return MODES[self.server.mode](self, sid, fid, answer)


class Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass


def main(path, mode, plan):
    if os.path.exists(path):
        os.unlink(path)
    server = Listener(path, Agent)
    os.chmod(path, 0o666)
    server.mode, server.plan, server.count = mode, json.loads(plan), 0
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
