#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The laboratory's Internet: origins (TLS, HTTP, raw TCP, UDP) and public resolvers on every address of
the network namespace it runs in. It writes one JSON line for everything that reaches it, and must
never be run outside such a namespace, but with a loopback address.

usage: internet.py CERTIFICATE KEY LOG [ADDRESS]     with an address: TLS and HTTP there, and no more
"""

import http.server
import json
import re
import socket
import socketserver
import ssl
import struct
import sys
import threading

TLS_PORTS = (443, 8443)
HTTP_PORTS = (80, 8000)
BANNER_PORTS = (22,)
ECHO_PORTS = (25, 853, 5432, 9999)
UDP_PORTS = (443, 1234)
CANARIES = ("8.8.8.8", "1.1.1.1", "2001:4860:4860::8888")
# Fields that a gateway takes out: overrides, and those that are for the next hop only.
ODD = re.compile("x-(http-method|method-override|original-url|rewrite-url|forwarded-host)|forwarded$|proxy-|te$|keep-alive$", re.I)
CANARY_ANSWER = bytes((198, 51, 100, 66))

log_lock = threading.Lock()
log_file = None


def plain(address):
    return address.removeprefix("::ffff:")


def record(kind, sock, **more):
    """One line: what arrived, where, from whom. Behind the gateway that is never a guest's address."""
    local, peer = sock.getsockname(), sock.getpeername()
    line = {"kind": kind, "addr": plain(local[0]), "port": local[1], "peer": plain(peer[0]),
            "peer_port": peer[1], **more}
    with log_lock:
        log_file.write(json.dumps(line) + "\n")
        log_file.flush()


class Web(http.server.BaseHTTPRequestHandler):
    """Says who was reached and what was asked, over a kept-alive connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        if length:
            self.rfile.read(length)
        sni = getattr(self.connection, "cx_sni", None)
        seen = {"origin": plain(self.connection.getsockname()[0]), "sni": sni,
                "host": self.headers.get("host"), "method": self.command, "path": self.path}
        record("https" if sni is not None or self.server.tls else "http", self.connection,
               sni=sni, host=seen["host"], path=self.path, method=self.command,
               odd=[k for k in self.headers if ODD.match(k)])
        body = (json.dumps(seen) + "\n").encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_upgrade(self):
        """Accepts any change of protocol: a gateway that lets one through shows."""
        record("upgrade", self.connection, upgrade=self.headers.get("upgrade"))
        self.send_response(101)
        self.send_header("connection", "upgrade")
        self.send_header("upgrade", self.headers.get("upgrade"))
        self.end_headers()
        self.wfile.write(b"UPGRADED\n")
        self.close_connection = True

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self.close_connection = True

    def do_GET(self):
        if self.headers.get("upgrade"):
            self.do_upgrade()
        else:
            self.answer()

    do_POST = do_PUT = do_HEAD = do_OPTIONS = do_CONNECT = do_GET

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    allow_reuse_port = True # a canary may stand on one of the addresses
    daemon_threads = True
    request_queue_size = 256
    tls = None

    def __init__(self, address, handler):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def finish_request(self, request, client_address):
        record("connect", request)
        if self.tls:
            request.settimeout(10)
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except (OSError, ValueError):
                request.close()
                return
            record("tls", request, sni=getattr(request, "cx_sni", None))
        super().finish_request(request, client_address)
        if self.tls:
            request.close()

    def handle_error(self, request, client_address):
        pass


class Echo(socketserver.BaseRequestHandler):
    """Speaks first where the port is a banner's, then repeats what it hears."""

    def handle(self):
        if self.request.getsockname()[1] in BANNER_PORTS:
            self.request.sendall(b"SSH-2.0-lab\r\n")
        while data := self.request.recv(4096):
            record("bytes", self.request, data=data[:64].decode("latin-1"))
            self.request.sendall(b"echo:" + data)


def udp_echo(port):
    """Answers from the address that was asked, or a client would not take the answer."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("::", port))
    while True:
        data, about, _, peer = sock.recvmsg(4096, 256)
        asked = [(level, kind, info[:16] + bytes(4)) for level, kind, info in about]
        sock.sendmsg([b"echo:", data], asked, 0, peer)


def canary_reply(query):
    """Any question gets an answer, A the address of the unlisted origin: who asks here has left the gateway."""
    end = 12
    while query[end]:
        end += 1 + query[end]
    end += 5
    kind = struct.unpack("!H", query[end - 4:end - 2])[0]
    data = {1: CANARY_ANSWER, 28: bytes(12) + CANARY_ANSWER}.get(kind, b"\6canary")
    answer = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + query[12:end] + answer


def canary_udp(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, 53))
    while True:
        data, peer = sock.recvfrom(4096)
        try:
            sock.sendto(canary_reply(data), peer)
        except (LookupError, struct.error):
            pass


class CanaryTcp(socketserver.StreamRequestHandler):
    def handle(self):
        while len(head := self.rfile.read(2)) == 2:
            reply = canary_reply(self.rfile.read(struct.unpack("!H", head)[0]))
            self.wfile.write(struct.pack("!H", len(reply)) + reply)


def heard(sock, name, _):
    """The name that a real TLS server reads, handshake completed or not."""
    sock.cx_sni = name
    record("hello", sock, sni=name)


def tls_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = heard
    return context


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main(certificate, key, log, address="::"):
    global log_file
    log_file = open(log, "a", encoding="utf-8")
    context = tls_context(certificate, key)
    for port in TLS_PORTS:
        server = Server((address, port), Web)
        server.tls = context
        serve(server)
    for port in HTTP_PORTS:
        serve(Server((address, port), Web))
    if address == "::":
        serve_everything_else()
    print("ready", flush=True)
    threading.Event().wait()


def serve_everything_else():
    for port in BANNER_PORTS + ECHO_PORTS:
        serve(Server(("::", port), Echo))
    for port in UDP_PORTS:
        threading.Thread(target=udp_echo, args=(port,), daemon=True).start()
    for address in CANARIES:
        threading.Thread(target=canary_udp, args=(address,), daemon=True).start()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = type("Canary", (socketserver.ThreadingTCPServer,),
                    {"address_family": family, "allow_reuse_address": True, "daemon_threads": True})
        serve(kind((address, 53), CanaryTcp))


if __name__ == "__main__":
    main(*sys.argv[1:])
