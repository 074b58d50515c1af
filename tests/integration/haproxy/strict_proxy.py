#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A proxy that knows CONNECT alone and refuses a client that sends anything before it was answered. For a
network namespace of a test; it must never be used as a proxy.

usage: strict_proxy.py ADDRESS PORT
"""

import select
import socket
import socketserver
import sys
import threading


def relay(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Strict(socketserver.BaseRequestHandler):
    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := self.request.recv(1)):
                return
            head += more
        early = bool(select.select([self.request], [], [], 0.3)[0])
        print("early data" if early else head.split(b"\r\n")[0].decode("latin-1"), flush=True)
        if early or not head.startswith(b"CONNECT "):
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), 5) as out:
            # In pieces, and with more than is needed: a head is a head.
            for piece in (b"HTTP/1.1 200 ", b"OK\r\nVia: strict\r\nX-Fill: ", b"y" * 3000, b"\r\n\r", b"\n"):
                self.request.sendall(piece)
                select.select([], [], [], 0.02)
            threading.Thread(target=relay, args=(out, self.request), daemon=True).start()
            relay(self.request, out)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Strict).serve_forever()
