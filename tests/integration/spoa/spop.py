# SPDX-License-Identifier: Apache-2.0
"""An SPOP 2.0 client as HAProxy would be one, for tests: frames, typed data, HELLO, NOTIFY and ACK,
and the means to send what HAProxy would never send."""

import ipaddress
import socket
import struct

HAPROXY_HELLO, HAPROXY_DISCONNECT, NOTIFY = 1, 2, 3
AGENT_HELLO, AGENT_DISCONNECT, ACK = 101, 102, 103
FIN, ABORT = 1, 2


class Typed:
    """A value with the SPOP type spelled out; plain Python values are typed as HAProxy would."""

    def __init__(self, kind, value):
        self.kind, self.value = kind, value


def varint(v):
    if v < 240:
        return bytes([v])
    out = [(v | 0xF0) & 0xFF]
    v = (v - 240) >> 4
    while v >= 128:
        out.append((v | 0x80) & 0xFF)
        v = (v - 128) >> 7
    out.append(v)
    return bytes(out)


def string(s):
    b = s.encode() if isinstance(s, str) else bytes(s)
    return varint(len(b)) + b


def data(v):
    if isinstance(v, Typed):
        if v.kind in (8, 9):
            return bytes([v.kind]) + string(v.value)
        if v.kind in (2, 3, 4, 5):
            return bytes([v.kind]) + varint(v.value & (2**64 - 1))
        return bytes([v.kind]) + (v.value or b"")
    if v is None:
        return b"\x00"
    if v is True or v is False:
        return b"\x11" if v else b"\x01"
    if isinstance(v, int):
        return b"\x04" + varint(v & (2**64 - 1))
    if isinstance(v, ipaddress.IPv4Address):
        return b"\x06" + v.packed
    if isinstance(v, ipaddress.IPv6Address):
        return b"\x07" + v.packed
    if isinstance(v, str):
        return b"\x08" + string(v)
    return b"\x09" + string(v)


def kv(items):
    pairs = items.items() if isinstance(items, dict) else items
    return b"".join(string(k) + data(v) for k, v in pairs)


def frame(kind, payload=b"", stream=0, number=0, flags=FIN):
    body = bytes([kind]) + struct.pack(">I", flags) + varint(stream) + varint(number) + payload
    return struct.pack(">I", len(body)) + body


def message(name, args):
    pairs = list(args.items()) if isinstance(args, dict) else list(args)
    return string(name) + bytes([len(pairs)]) + kv(pairs)


def hello_frame(**over):
    """As HAProxy 2.6 sends it; keywords replace items (`_` for `-`), `...` leaves one out."""
    items = {"supported-versions": "2.0", "max-frame-size": Typed(3, 16380),
             "capabilities": "pipelining,async", "engine-id": "0123456789abcdef"}
    items.update({k.replace("_", "-"): v for k, v in over.items()})
    return frame(HAPROXY_HELLO, kv([(k, v) for k, v in items.items() if v is not ...]))


def address(text):
    return ipaddress.ip_address(text)


class Cursor:
    def __init__(self, b):
        self.b, self.at = b, 0

    def take(self, n):
        if self.at + n > len(self.b):
            raise ValueError("short")
        self.at += n
        return self.b[self.at - n:self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        v = self.byte()
        if v < 240:
            return v
        shift = 4
        while True:
            c = self.byte()
            v += c << shift
            shift += 7
            if c < 128:
                return v

    def string(self):
        return self.take(self.varint())

    def value(self):
        head = self.byte()
        kind = head & 15
        if kind == 0:
            return None
        if kind == 1:
            return bool(head & 16)
        if kind in (2, 3, 4, 5):
            return self.varint()
        if kind == 6:
            return ipaddress.IPv4Address(self.take(4))
        if kind == 7:
            return ipaddress.IPv6Address(self.take(16))
        if kind == 8:
            return self.string().decode()
        if kind == 9:
            return bytes(self.string())
        raise ValueError(f"type {kind}")

    def more(self):
        return self.at < len(self.b)


class Frame:
    def __init__(self, body):
        c = Cursor(body)
        self.kind = c.byte()
        self.flags = struct.unpack(">I", c.take(4))[0]
        self.stream, self.number = c.varint(), c.varint()
        self.payload = body[c.at:]

    def pairs(self):
        c, out = Cursor(self.payload), {}
        while c.more():
            key = c.string().decode()
            out[key] = c.value()
        return out

    def variables(self):
        """The variables that an ACK sets; only set-var in the scope of the transaction."""
        c, out = Cursor(self.payload), {}
        while c.more():
            if c.take(3) != b"\x01\x03\x02":
                raise ValueError("not set-var of the transaction")
            name = c.string().decode()
            if name in out:
                raise ValueError(f"{name} is set twice")
            out[name] = c.value()
        return out


def dial(where, timeout=5):
    """where: a path of a unix socket, or (address, port)."""
    if isinstance(where, tuple):
        s = socket.create_connection(where, timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(timeout)
        s.connect(str(where))
    s.settimeout(timeout)
    return s


class Client:
    def __init__(self, where, timeout=5, hello=True):
        self.sock = dial(where, timeout)
        self.buf = b""
        self.next = 1
        if hello:
            self.send(hello_frame())
            self.agent = self.receive()
            if self.agent is None or self.agent.kind != AGENT_HELLO:
                raise ConnectionError("no AGENT-HELLO")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, b):
        self.sock.sendall(b)

    def receive(self):
        """The next frame, None at the end of the stream."""
        while True:
            if len(self.buf) >= 4:
                n = struct.unpack(">I", self.buf[:4])[0]
                if len(self.buf) >= 4 + n:
                    body, self.buf = self.buf[4:4 + n], self.buf[4 + n:]
                    return Frame(body)
            try:
                b = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not b:
                return None
            self.buf += b

    def notify(self, payload, stream=None, number=1):
        if stream is None:
            stream, self.next = self.next, self.next + 1
        self.send(frame(NOTIFY, payload, stream, number))
        return stream, number

    def ask(self, name, args):
        """Sends one message and returns the variables of its ACK."""
        ids = self.notify(message(name, args))
        f = self.receive()
        if f is None or f.kind != ACK or (f.stream, f.number) != ids:
            raise ConnectionError(f"no ACK for {ids}: {f and vars(f)}")
        return f.variables()
