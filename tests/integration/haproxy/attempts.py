# SPDX-License-Identifier: Apache-2.0
"""What clients of an explicit proxy may try, byte by byte. Everything here but the helpers must fail."""

import pwd
import subprocess

from lab import GUESTS, UNLISTED, UNLISTED_ADDR

GOOD, RULED, SSH = "listed.example.net", "api.example.org", "git.example.org"
EVIL = UNLISTED

# Fields by which some origins or proxies take another method, path or host, and those by which a
# client would have fields removed on the way.
HIDDEN = ("X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n"
          "X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Forwarded-Host: evil.test\r\n"
          "Forwarded: host=evil.test\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n"
          "Proxy-Foo: bar\r\nConnection: authorization, keep-alive\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n")


def opens(path, user):
    """May a local process of this user connect to a unix socket?"""
    who = pwd.getpwnam(user)
    done = subprocess.run(["/usr/bin/python3", "-c", "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])",
                           str(path)], user=who.pw_uid, group=who.pw_gid, extra_groups=[], cwd="/",
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    return done.returncode == 0, done.stderr[-200:]


def only_haproxy_opens(cases, lab, name):
    """The sockets between HAProxy's listeners are HAProxy's user's (nobody, in the laboratory) alone."""
    path = next(p for p in (lab.dir / "jail" / name, lab.dir / name) if p.exists())
    mode = path.stat().st_mode & 0o777
    cases.check(f"{name} is of mode 600", mode == 0o600, oct(mode))
    held, why = opens(path, "daemon")
    cases.check(f"{name}: another local user cannot open it", not held and b"PermissionError" in why, why)
    held, why = opens(path, "nobody")
    cases.check(f"{name}: HAProxy's user can", held, why)


def connect(authority, version="1.1", extra="", host=None):
    host = authority if host is None else host
    return f"CONNECT {authority} HTTP/{version}\r\nHost: {host}\r\n{extra}\r\n".encode("latin-1")


def request(url, host, method="GET", extra="", version="1.1"):
    return f"{method} {url} HTTP/{version}\r\nHost: {host}\r\n{extra}\r\n".encode("latin-1")


def connects():
    to = {
        "an unlisted name": f"{EVIL}:443",
        "an unlisted port of a listed name": f"{GOOD}:22",
        "port 80 with the raw name": f"{SSH}:80",
        "an unlisted address": f"{UNLISTED_ADDR[0]}:443",
        "a listed address on another port": f"{UNLISTED_ADDR[0]}:22",
        "an IPv6 address": f"[{UNLISTED_ADDR[1]}]:443",
        "a decimal address": "3325256770:443",
        "a decimal address of a listed range": "3325256770:5432",
        "a hexadecimal address": "0xc6336442:443",
        "a short address": "198.51.25666:443",
        "an octal address": "0306.063.0144.0102:443",
        "loopback, short": "127.1:443",
        "loopback": "127.0.0.1:3128",
        "loopback, IPv6": "[::1]:3128",
        "the unspecified address": "0.0.0.0:3128",
        "metadata, decimal": "2852039166:80",
        "metadata, octal": "0251.0376.0251.0376:80",
        "metadata, NAT64": "[64:ff9b::a9fe:a9fe]:80",
        "loopback, hexadecimal": "0x7f.1:443",
        "an IPv4-mapped address": f"[::ffff:{UNLISTED_ADDR[0]}]:5432",
        "an IPv4 address in brackets": f"[{UNLISTED_ADDR[0]}]:5432",
        "an address with a zone": "[fe80::1%25eth0]:443",
        "an address with a bare zone": "[fe80::1%eth0]:443",
        "another spelling of a listed IPv6 address": "[2001:0db8:66::66]:5432",
        "the gateway itself": f"{GUESTS['guest']['gw4']}:22",
        "the gateway's other side": "203.0.113.2:5432",
        "another guest": f"{GUESTS['guest2']['v4']}:5432",
        "userinfo": f"{GOOD}@{EVIL}:443",
        "userinfo with port": f"{GOOD}:443@{EVIL}:443",
        "two ports": f"{GOOD}:443:22",
        "an escaped dot": f"{GOOD}%2e{EVIL}:443",
        "an escaped NUL": f"{GOOD}%00.{EVIL}:443",
        "port 0": f"{GOOD}:0",
        "a port with a zero in front": f"{GOOD}:0443",
        "port 65536": f"{GOOD}:65536",
        "port 65979, which is 443 in 16 bits": f"{GOOD}:65979",
        "an empty port": f"{GOOD}:",
        "no port": GOOD,
        "a signed port": f"{GOOD}:+443",
        "no host": ":443",
        "a path": f"{GOOD}:443/",
        "an absolute URL": f"http://{GOOD}:443",
        "a bracketed name": f"[{GOOD}]:443",
        "a wildcard": "*.example.net:443",
        "two hosts": f"{GOOD}:443,{EVIL}:443",
        "an 8-bit name": f"{GOOD}\xe9:443",
        "a name of 64-octet labels": "a" * 64 + f".{GOOD}:443",
        "a longer name": f"x{GOOD}:443",
        "a name behind": f"{GOOD}.{EVIL}:443",
    }
    out = {what: connect(authority) for what, authority in to.items()}
    out |= {
        "another Host field": connect(f"{EVIL}:443", host=f"{GOOD}:443"),
        "listed, with an unlisted Host field": connect(f"{GOOD}:443", host=f"{EVIL}:443"),
        "two Host fields": connect(f"{EVIL}:443", host=f"{GOOD}:443", extra=f"Host: {EVIL}:443\r\n"),
        "a name cut by NUL": connect(f"{GOOD}\0.{EVIL}:443"),
        "HTTP/1.0, unlisted": connect(f"{EVIL}:443", "1.0"),
        "bare line feeds": f"CONNECT {EVIL}:443 HTTP/1.1\nHost: {EVIL}\n\n".encode(),
        "with a body": connect(f"{EVIL}:443", extra="Content-Length: 5\r\n") + b"hello",
        "extended CONNECT": f"CONNECT /chat HTTP/1.1\r\nHost: {EVIL}\r\n:protocol: websocket\r\n\r\n".encode(),
        "a PROXY header in front": f"PROXY TCP4 {GUESTS['guest2']['v4']} 1.2.3.4 5 80\r\n".encode()
                                   + connect(f"{EVIL}:443"),
        "a second CONNECT behind a refused one": connect(f"{EVIL}:443") + connect(f"{EVIL}:22"),
    }
    return out


def tunnelled():
    """Inside a CONNECT to GOOD:8000, where requests are expected."""
    return {
        "another Host": request("/", EVIL),
        "another listed Host": request("/api/v2/x", RULED),
        "another port": request("/", f"{GOOD}:80"),
        "absolute form of another host": request(f"http://{EVIL}/", GOOD),
        "absolute form of another port": request(f"http://{GOOD}:22/", f"{GOOD}:22"),
        "no Host": b"GET / HTTP/1.1\r\n\r\n",
        "a CONNECT inside": connect(f"{GOOD}:8000"),
        "a CONNECT inside, elsewhere": connect(f"{EVIL}:443"),
        "an upgrade": request("/", GOOD, extra="Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        "an SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n",
        "nothing but line feeds": b"\r\n\r\n\r\n\r\n",
        "length and chunks": request("/", EVIL, "POST", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")
                             + b"0\r\n\r\n",
    }


def requests():
    """To the proxy itself, where a URL has to stand."""
    none = "http://"
    h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    plain = {
        "an unlisted name": (f"http://{EVIL}/", EVIL),
        "an unlisted name, listed Host": (f"http://{EVIL}/", GOOD),
        "a listed name, unlisted Host": (f"http://{GOOD}/", EVIL),
        "an unlisted port": (f"http://{GOOD}:9999/", f"{GOOD}:9999"),
        "port 22": (f"http://{GOOD}:22/", f"{GOOD}:22"),
        "port 22 in the URL only": (f"http://{SSH}:22/", SSH),
        "another port in Host only": (f"http://{GOOD}/", f"{GOOD}:8000"),
        "the port of TLS": (f"http://{GOOD}:443/", f"{GOOD}:443"),
        "an address": (f"http://{UNLISTED_ADDR[0]}/", UNLISTED_ADDR[0]),
        "a decimal address": ("http://3325256770/", "3325256770"),
        "an IPv6 address": (f"http://[{UNLISTED_ADDR[1]}]/", f"[{UNLISTED_ADDR[1]}]"),
        "userinfo": (f"http://{GOOD}@{EVIL}/", EVIL),
        "userinfo, listed Host": (f"http://{GOOD}@{EVIL}/", GOOD),
        "userinfo of a listed host": (f"http://u:p@{GOOD}/", GOOD),
        "a backslash": (f"http://{GOOD}\\@{EVIL}/", GOOD),
        "an escaped name": (f"http://{GOOD}%2e{EVIL}/", EVIL),
        "no host in the URL": (f"{none}/", GOOD),
        "another scheme": (f"ftp://{GOOD}/", GOOD),
        "https in clear text": (f"https://{GOOD}/", GOOD),
        "a path alone": ("/", GOOD),
        "a path alone, unlisted": ("/", EVIL),
        "an authority alone": (f"{GOOD}:80", GOOD),
        "two hosts in Host": (f"http://{GOOD}/", f"{GOOD}, {EVIL}"),
        "a bracketed name": (f"http://[{GOOD}]/", f"[{GOOD}]"),
        "port 0": (f"http://{GOOD}:0/", GOOD), "port 0080": (f"http://{GOOD}:0080/", GOOD),
        "port 65616": (f"http://{GOOD}:65616/", GOOD), "two ports": (f"http://{GOOD}:80:22/", GOOD),
    }
    out = {what: request(*pair) for what, pair in plain.items()}
    out |= {
        "two Host fields": request(f"http://{EVIL}/", GOOD, extra=f"Host: {EVIL}\r\n"),
        "no Host field": f"GET http://{EVIL}/ HTTP/1.1\r\n\r\n".encode(),
        "HTTP/1.0, unlisted": request(f"http://{EVIL}/", EVIL, version="1.0"),
        "an upgrade": request(f"http://{GOOD}/", GOOD, extra="Connection: Upgrade\r\nUpgrade: foo\r\n"),
        "a websocket": request(f"http://{GOOD}/", GOOD, extra="Connection: Upgrade\r\nUpgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        "h2c, unlisted": request(f"http://{EVIL}/", EVIL, extra=h2c),
        "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        "SOCKS5": b"\5\1\0\5\1\0\3" + bytes((len(EVIL),)) + EVIL.encode() + b"\0\x50",
        "TLS to the proxy": b"\x16\3\1\0\5hello",
        "length and chunks, unlisted": request(f"http://{EVIL}/", EVIL, "POST",
                                               "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        "bare line feeds, unlisted": f"GET http://{EVIL}/ HTTP/1.1\nHost: {EVIL}\n\n".encode(),
        "OPTIONS *": request("*", GOOD, "OPTIONS"),
    }
    return out


def ruled():
    """To a host of which only GET below /api/v2/ is listed."""
    url = f"http://{RULED}/api/v2/x"
    paths = ("/", "/api/v1/x", "/api/v2/../v1/x", "/api/v2/%2e%2e/x", "/api/v2//x", "/api/v2/.%2e/x", "/api/v2/a%2fb",
             "/api/v2/a%5cb", "/api/v2/a;b", "/api/v2/%00", "/API/v2/x", "/api/v2/\\x", "/api/v2/./x")
    out = {f"path {p}": request(f"http://{RULED}{p}", RULED) for p in paths}
    for method in ("POST", "PUT", "DELETE", "get", "GETX", "PATCH", "TRACE"):
        out[method] = request(url, RULED, method, "Content-Length: 0\r\n")
    out["POST that says it is GET"] = request(url, RULED, "POST", "X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n")
    out["another path in X-Original-URL"] = request(f"http://{RULED}/", RULED, extra="X-Original-URL: /api/v2/x\r\n")
    return out
