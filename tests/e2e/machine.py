# SPDX-License-Identifier: Apache-2.0
"""What a guest's machine does, in the namespace of the calling thread: it asks DNS, stops without a word,
and goes on with the connections of one that stopped. It must never be used outside a test's namespace.
"""

import random
import socket
import struct

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECV_QUEUE, SEND_QUEUE = 1, 2


def question(name, ident):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", ident, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def ask(gateway, name, timeout=15):
    """(rcode, answers) of a look-up."""
    ident = random.randrange(65536)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((gateway, 53))
        sock.send(question(name, ident))
        reply = sock.recv(4096)
    return reply[3] & 15, struct.unpack("!H", reply[6:8])[0]


def freeze(sock):
    """The machine stops: its end of the connection is gone without a word. What it knew of it."""
    at, to = sock.getsockname(), sock.getpeername()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    seq = {}
    for which in (RECV_QUEUE, SEND_QUEUE):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, which)
        seq[which] = sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, 4)
    sock.close()
    return at, to, seq


def adopt(frozen):
    """A connection that goes on where the frozen one was, without a handshake."""
    at, to, seq = frozen
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    for which, value in seq.items():
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, which)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, value)
    sock.bind(at)
    sock.connect(to)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    sock.settimeout(0.3)
    return sock
