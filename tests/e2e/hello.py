# SPDX-License-Identifier: Apache-2.0
"""ClientHellos, honest and hostile, byte by byte; and a real TLS client whose bytes can be paced."""

import os
import ssl
import struct

GREASE = 0xfafa


def extension(kind, data):
    return struct.pack("!HH", kind, len(data)) + data


def host_name(name):
    name = name.encode("latin-1") if isinstance(name, str) else name
    return b"\x00" + struct.pack("!H", len(name)) + name


def server_name(*names):
    listed = b"".join(map(host_name, names))
    return extension(0, struct.pack("!H", len(listed)) + listed)


def usual():
    """What a TLS 1.3 server wants besides the name."""
    return (extension(10, b"\0\2\0\x1d") + extension(13, b"\0\6\4\3\x08\4\x08\x05") +
            extension(43, b"\4\3\4\3\3") +
            extension(51, struct.pack("!HHH", 36, 0x1d, 32) + os.urandom(32)))


def handshake(extensions):
    body = (b"\3\3" + os.urandom(32) + b"\x20" + os.urandom(32) + b"\0\4\x13\1\xc0\x2b" + b"\1\0" +
            struct.pack("!H", len(extensions)) + extensions)
    return b"\1" + struct.pack("!I", len(body))[1:] + body


def record(data):
    return b"\x16\3\1" + struct.pack("!H", len(data)) + data


def plain(*extensions):
    return record(handshake(b"".join(extensions) + usual()))


def split(shown, real):
    """
    Two records, cut so that a reader which does not take record headers out reads the name `shown`,
    and a TLS server the name `real`: the header fills five octets of an unknown extension, and the
    next one, misread, swallows the true name and the head of another unknown extension.
    """
    true_name = server_name(real)
    bait = extension(GREASE + 1, server_name(shown))
    swallow = struct.pack("!HH", GREASE, 1 + len(true_name) + 4) + b"x"
    filler = b"f" * 16
    first = extension(GREASE, filler + swallow)
    message = handshake(first + true_name + bait + usual())
    cut = message.index(filler) + 4
    return record(message[:cut]) + record(message[cut:])


def hostile(listed, unlisted):
    """{what: bytes} that must be refused whichever of its names is listed."""
    name = listed.encode()
    overrun = struct.pack("!H", len(name) + 3) + b"\0" + struct.pack("!H", len(name) + 40) + name
    short = plain(server_name(listed))
    two = handshake(server_name(listed) + usual())
    return {
        "split into two records, unlisted name inside": split(listed, unlisted),
        "split into two records, listed name only": record(two[:60]) + record(two[60:]),
        "no SNI": plain(),
        "empty SNI": plain(server_name("")),
        "IPv4 literal as SNI": plain(server_name("198.51.100.66")),
        "decimal address as SNI": plain(server_name("3325256770")),
        "IPv6 literal as SNI": plain(server_name("2001:db8:66::66")),
        "NUL in SNI": plain(server_name(listed + "\0." + unlisted)),
        "NUL behind SNI": plain(server_name(listed + "\0")),
        "space in SNI": plain(server_name(listed + " ")),
        "8-bit SNI": plain(server_name("\xe9." + listed)),
        "two SNI extensions": plain(server_name(listed), server_name(unlisted)),
        "two SNI extensions, unlisted first": plain(server_name(unlisted), server_name(listed)),
        "two names in one SNI extension": plain(server_name(listed, unlisted)),
        "name longer than its extension": plain(extension(0, overrun)),
        "record shorter than the hello": short[:3] + struct.pack("!H", len(short) - 40) + short[5:],
        "bytes behind the hello": short + record(b"\1\0\0\0"),
        "a second hello behind the first": short + plain(server_name(unlisted)),
        "unlisted SNI": plain(server_name(unlisted)),
        "ECH": plain(server_name(listed), extension(0xfe0d, b"\0" * 40)),
        "SSLv2 hello": b"\x80\x2e\1\0\2\0\x15\0\0\0\x10" + os.urandom(40),
        "SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP request": f"GET / HTTP/1.1\r\nHost: {listed}\r\n\r\n".encode(),
        "random bytes": b"\x55" + os.urandom(400),
    }


class Client:
    """
    A real TLS client over a socket whose first flight leaves in pieces: `pace(data)` yields them, and
    may sleep between two. Certificates are not checked: who answered is told by the answer.
    """

    def __init__(self, sock, name, pace=None, size=0):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if size:
            context.set_alpn_protocols(["http/1.1"] + [f"{i:03}" + "x" * 60 for i in range(size // 64)])
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.sock, self.pace, self.first = sock, pace, b""

    def flush(self):
        data = self.outgoing.read()
        if not data:
            return
        if self.pace and not self.first:
            self.first = data
            for piece in self.pace(data):
                self.sock.sendall(piece)
        else:
            self.first = self.first or data
            self.sock.sendall(data)

    def drive(self, step):
        while True:
            try:
                result = step()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(16384)
                if not data:
                    raise ConnectionError("closed") from None
                self.incoming.write(data)

    def get(self, host, path="/"):
        """The body of a GET, or what went wrong."""
        try:
            self.drive(self.tls.do_handshake)
            ask = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            self.drive(lambda: self.tls.write(ask.encode()))
            out = b""
            while b"\r\n\r\n" not in out or not out.split(b"\r\n\r\n", 1)[1]:
                out += self.drive(lambda: self.tls.read(16384))
            return out.split(b"\r\n\r\n", 1)[1].decode()
        except (OSError, ValueError) as e:
            return f"{type(e).__name__}: {e}"
