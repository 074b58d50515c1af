#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--emit: what is printed for Unbound, HAProxy and nftables is checked by their own programs and used by
them. BUILD names the build directory."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading

sys.dont_write_bytecode = True

from case import BUILD, NOW, ROOT, Cases, Place, has, has_not, policyc, wait_for

import dns.rcode
import lab as unbound_lab
from rig import Resolver

HERE = ROOT / "tests/integration/policyc"


def run(*argv, rc=0, **more):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=120, check=False,
                          stdin=subprocess.DEVNULL, **more)
    if done.returncode != rc:
        raise AssertionError(f"{argv}: {done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    return done.stdout + done.stderr


def emit(kind, text, place, *args, rc=0):
    out, err = policyc("--emit", kind, place.write("policy.yaml", text), "--now", NOW, *args, rc=rc)
    return out if rc == 0 else err


# ---- Unbound ----

CUSTOM = """
version: 1
network:
  presets: []
  dns:
    custom_resolvers: ["127.0.0.1@%(a)d"]
    allowlist_additions: [api.internal.company.com, {domain: "*.reg.internal.company.com"}]
  resolvers:
    corp: {servers: ["127.0.0.1@%(b)d"], zones: [corp.company.com, 10.in-addr.arpa]}
  allowlist: [www.corp.company.com]
profiles:
  other: {resolvers: {same: {servers: ["127.0.0.1@%(b)d"], zones: [CORP.company.com.]}}}
sources: {127.0.0.0/8: default}
resolver_clients: []
"""


def unbound():
    """a custom resolver is asked for its names and no others, signed parents notwithstanding"""
    lab = unbound_lab.Lab()
    soa = "@ 300 SOA ns host 1 3600 600 86400 5\n@ 300 NS ns\nns 300 A 127.0.0.1\n"
    try:
        with Place() as place:
            first = unbound_lab.Authority(lab, {
                "internal.company.com": "$ORIGIN internal.company.com.\n" + soa +
                                        "api 300 A 10.1.2.3\nx.reg 300 A 10.1.2.4\nhidden 300 A 10.9.9.9\n"})
            second = unbound_lab.Authority(lab, {
                "corp.company.com": "$ORIGIN corp.company.com.\n" + soa + "www 300 A 10.2.2.3\n",
                "10.in-addr.arpa": "$ORIGIN 10.in-addr.arpa.\n" + soa.replace("127.0.0.1", "127.0.0.1") +
                                   "3.2.1 300 PTR api.internal.company.com.\n"})
            outside = unbound_lab.Authority(lab, {
                "company.com": "$ORIGIN company.com.\n" + soa + "*.internal 300 A 192.0.2.66\n"})
            text = emit("unbound-forward", CUSTOM % {"a": first.port, "b": second.port}, place)
            assert text.count('name: "corp.company.com."') == 1
            # the parent is signed, as far as this resolver knows: below it, nothing unsigned is believed
            anchor = '  trust-anchor: "company.com. DS 1 8 2 ' + "ab" * 32 + '"\n' + \
                     "  private-address: 10.0.0.0/8\n"
            u = unbound_lab.Unbound(lab, "unbound", None, stubs={"company.com": outside.port},
                                    server=anchor, more=text, validator=True)
            run(lab_tree("unbound-checkconf"), u.conf)
            for name, want in (("api.internal.company.com", "10.1.2.3"),
                               ("x.reg.internal.company.com", "10.1.2.4"),
                               ("www.corp.company.com", "10.2.2.3")):
                unbound_lab.expect_address(u.ask(name), want)
            reply = u.ask("3.2.1.10.in-addr.arpa", "PTR")
            assert reply.answer and "api.internal" in str(reply.answer[0]), reply
            # not one of the additions: asked of the world, where the signature is missing
            assert u.ask("hidden.internal.company.com").rcode() == dns.rcode.SERVFAIL
            without = unbound_lab.Unbound(lab, "unbound", None, stubs={"company.com": first.port},
                                          server=anchor, validator=True)
            assert without.ask("api.internal.company.com").rcode() == dns.rcode.SERVFAIL
            u.stop()
            without.stop()
    finally:
        lab.close()


def lab_tree(program):
    return os.path.join(unbound_lab.TREES, "unbound", "sbin", program)


def unbound_nothing():
    """a policy without resolvers gives a file that Unbound takes"""
    with Place() as place:
        text = emit("unbound-forward", "version: 1\nnetwork: {presets: []}\nsources: {}\n", place)
        has_not(text, "forward-zone", "do-not-query")
        run(lab_tree("unbound-checkconf"), place.write("unbound.conf", text))
        path = place.dir / "out.conf"
        policyc("--emit", "unbound-forward", HERE / "everything.yaml", "--now", NOW, "-o", path)
        run(lab_tree("unbound-checkconf"), path)
        has(path.read_text(), r'name: "internal\.company\.com\."', r"forward-addr: 10\.0\.0\.54@5353")


# ---- HAProxy ----

CHAINS = """
version: 1
network:
  presets: []
  proxy: {http: "http://127.0.0.1:%(proxy)d", https: "http://Proxy.Example:%(named)d"}
profiles:
  six: {proxy: {http: "http://[::1]:3128"}}
mesh:
  services:
    api: {host: api.svc.example, port: %(mesh)d, principal: "spiffe://corp.example/api", labels: {app: x}}
sources: {}
"""
FRONTS = """
defaults
	timeout connect 5s
	timeout client 10s
	timeout server 10s
frontend by_key
	mode tcp
	bind 127.0.0.1:%(by_key)d
	tcp-request inspect-delay 5s
	tcp-request content set-var(sess.key) req.payload(0,0),word(1,|) if { req.len gt 0 }
	tcp-request content accept if { req.len gt 0 }
	use_backend %%[var(sess.key),map(%(map)s)]
frontend mesh
	mode http
	bind 127.0.0.1:%(front)d
	use_backend %%[str(api.svc.example:%(mesh)d),map(%(map)s)]
"""


class Server:
    """TCP: answers each connection with `text`, over TLS if given a context."""

    def __init__(self, text, context=None):
        self.text, self.context, self.seen, self.stopping = text, context, [], False
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.sock.settimeout(0.2)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping:
            try:
                c, _ = self.sock.accept()
            except OSError:
                continue
            try:
                c.settimeout(5)
                if self.context:
                    c = self.context.wrap_socket(c, server_side=True)
                self.seen.append(c.recv(4096))
                c.sendall(self.text)
            except OSError as error:
                self.seen.append(repr(error).encode())
            finally:
                c.close()

    def close(self):
        self.stopping = True
        self.thread.join()
        self.sock.close()


def certificates(place):
    """A CA, a server's and a client's certificate."""
    d = place.dir
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
        d / "ca.key", "-out", d / "ca.pem", "-subj", "/CN=ca", "-days", "2")
    for name, san in (("server", "DNS:api.svc.example"), ("client", "URI:spiffe://corp.example/gw"),
                      ("wrong", "DNS:other.example")):
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            d / f"{name}.key", "-out", d / f"{name}.csr", "-subj", f"/CN={name}")
        place.write("ext", f"subjectAltName={san}\n")
        run("openssl", "x509", "-req", "-in", d / f"{name}.csr", "-CA", d / "ca.pem", "-CAkey", d / "ca.key",
            "-CAcreateserial", "-out", d / f"{name}.crt", "-days", "2", "-extfile", d / "ext")
        place.write(f"{name}.pem", (d / f"{name}.crt").read_text() + (d / f"{name}.key").read_text())


def tls(place, name):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(place.dir / f"{name}.pem")
    c.load_verify_locations(place.dir / "ca.pem")
    c.verify_mode = ssl.CERT_REQUIRED
    return c


def exchange(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := s.recv(4096):
            got += chunk
        return got


def haproxy():
    """HAProxy finds proxies by the map, and speaks to a service over TLS that both sides verify"""
    with Place() as place:
        certificates(place)
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmesh"
        servers = [Server(b"from the proxy"), Server(b"from the named"), Server(answer, tls(place, "server"))]
        names = Resolver({"proxy.example": ["127.0.0.1"], "api.svc.example": ["127.0.0.1"]})
        process = None
        try:
            ports = {"proxy": servers[0].port, "named": servers[1].port, "mesh": servers[2].port,
                     "by_key": unbound_lab.free_port(), "front": unbound_lab.free_port()}
            text = emit("haproxy", CHAINS % ports, place)
            backends = place.write("backends.cfg", text)
            mapped = emit("haproxy-map", CHAINS % ports, place)
            has(mapped, r"^\[::1\]:3128 cx-upstream-::1:3128$")
            ports["map"] = place.write("upstreams.map", mapped)
            fronts = place.write("fronts.cfg", FRONTS % ports)
            env = {**os.environ, "CX_MESH_DIR": str(place.dir), "CX_RESOLVER": f"127.0.0.1:{names.port}"}
            run("haproxy", "-c", "-f", backends, "-f", fronts, env=env)
            with open(place.dir / "log", "wb") as log:
                process = subprocess.Popen(["haproxy", "-db", "-f", backends, "-f", fronts], env=env,
                                           stdout=log, stderr=log, stdin=subprocess.DEVNULL)

            def up():
                try:
                    return exchange(ports["by_key"], b"proxy.example:%d|x" % ports["named"]) == b"from the named"
                except OSError:
                    return False

            wait_for("HAProxy", up)
            assert exchange(ports["by_key"], b"127.0.0.1:%d|x" % ports["proxy"]) == b"from the proxy"
            assert exchange(ports["by_key"], b"stranger:1|x") == b""
            request = b"GET /x HTTP/1.1\r\nhost: api.svc.example\r\nconnection: close\r\n\r\n"
            wait_for("the service", lambda: exchange(ports["front"], request).endswith(b"mesh"))
            # a server with another certificate is no service
            servers[2].context = tls(place, "wrong")
            assert b" 503 " in exchange(ports["front"], request).splitlines()[0] + b" "
        finally:
            if process:
                process.terminate()
                process.wait(20)
            names.close()
            for s in servers:
                s.close()


# ---- nftables ----

NFT = """
version: 1
network: {presets: []}
sources: {10.0.0.0/8: default, 10.2.0.0/16: default, 127.1.0.0/16: {bind: [default]}, "fd00::/8": default}
unlisted_sources: {ignore: [10.3.0.0/16, 127.1.9.0/24]}
resolver_clients: [127.0.0.5/32]
"""


def nftables():
    """nft loads the sets twice over, and a rule that uses them counts whom it should"""
    with Place() as place:
        text = emit("nftables", NFT, place)
        has(text, r"10\.0\.0\.0-10\.2\.255\.255,$", r"10\.4\.0\.0-10\.255\.255\.255", r"^\t127\.0\.0\.5$")
        path = place.write("sets.nft", text)
        rules = place.write("rules.nft", "table inet cx {\n counter from_sources {}\n counter from_ignored {}\n"
                            " chain c { type filter hook output priority 0;\n"
                            "  ip saddr @cx_sources4 counter name from_sources\n"
                            "  ip saddr @cx_ignored4 counter name from_ignored\n }\n}\n")
        send = place.write("send.py", "import socket\nfor a in ('127.1.2.3', '127.1.9.3', '127.2.0.1', '127.0.0.5'):\n"
                           "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    s.bind((a, 0))\n"
                           "    s.sendto(b'x', ('127.0.0.1', 9))\n")
        script = f"ip link set lo up && nft -c -f {path} && nft -f {path} && nft -f {rules} && nft -f {path} && " \
                 f"/usr/bin/python3 {send} && nft -j list counters"
        out = run("unshare", "-n", "sh", "-ec", script)
        got = {c["counter"]["name"]: c["counter"]["packets"] for c in json.loads(out)["nftables"] if "counter" in c}
        # one packet each; the answers of the closed port come from 127.0.0.1, which is in no set
        assert got == {"from_sources": 1, "from_ignored": 1}, got


def nftables_extremes():
    """every client, none, and 20,000 prefixes"""
    with Place() as place:
        for text in ("version: 1\nnetwork: {presets: []}\n", "version: 1\nnetwork: {presets: []}\nsources: {}\n",
                     "version: 1\nnetwork: {presets: []}\nsources:\n" +
                     "".join(f"  10.{i >> 8}.{i & 255}.0/25: default\n" for i in range(20000))):
            path = place.write("sets.nft", emit("nftables", text, place))
            run("unshare", "-n", "nft", "-f", path)


# ---- hostile policies ----

def hostile():
    """strings of a policy that look like configuration are refused, by the model or by the emitter"""
    bad = ["x\\n\\tserver y 1.2.3.4:80", "a b", "a;b", "a#b", "a\\\"b", "a'b", "${HOME}", "a{b", "a\\\\b", "%[src]",
           "a/b", "a\\u2028b", "a\\u00e9\\nb"]
    with Place() as place:
        for s in bad:
            texts = [
                f'mesh: {{services: {{"{s}": {{host: h.example, port: 1, principal: p}}}}}}\n',
                f'mesh: {{services: {{a: {{host: "{s}", port: 1, principal: p}}}}}}\n',
            ]
            for more in texts:
                err = emit("haproxy", "version: 1\nnetwork: {presets: []}\nsources: {}\n" + more, place, rc=1)
                has(err, "error:")
            for net in (f'proxy: {{http: "http://{s}:1"}}', f'proxy: {{http: "http://h.example:1{s}"}}'):
                text = f"version: 1\nnetwork:\n  presets: []\n  {net}\nsources: {{}}\n"
                has(emit("haproxy", text, place, rc=1), "error:")
                has(emit("haproxy-map", text, place, rc=1), "error:")
            for r in (f'{{servers: ["{s}"], zones: [a.example]}}', f'{{servers: [10.0.0.1], zones: ["{s}"]}}'):
                text = f"version: 1\nnetwork:\n  presets: []\n  resolvers: {{c: {r}}}\nsources: {{}}\n"
                has(emit("unbound-forward", text, place, rc=1), "error:")
            # a name that nothing prints may be anything, and must not show
            text = f'version: 1\nnetwork:\n  presets: []\n  resolvers: {{"{s}": {{servers: [10.0.0.1], ' \
                   'zones: [a.example]}}\nsources: {}\n'
            out = emit("unbound-forward", text, place)
            assert out.count("\n") == 9 and "server y" not in out, out
        out = emit("haproxy", 'version: 1\nnetwork: {presets: []}\nsources: {}\nmesh: {services: {a: '
                   '{host: h.example, port: 1, principal: "p # \\" ${X}"}}}\n', place)
        has_not(out, r"p #")


def idn():
    """a proxy with letters beyond a-z is printed in its canonical form, as its address is asked for"""
    with Place() as place:
        text = 'version: 1\nnetwork: {presets: [], proxy: {http: "http://b\u00fccher.example:1"}}\nsources: {}\n'
        out = emit("haproxy", text, place)
        has(out, "xn--bcher-kva\\.example:1")
        assert out.isascii(), out


def conflicts():
    """two profiles with different servers for one zone, in additions too"""
    with Place() as place:
        text = "version: 1\nnetwork: {presets: []}\nprofiles:\n" \
               "  a: {dns: {custom_resolvers: [10.0.0.1], allowlist_additions: [x.example]}}\n" \
               "  b: {dns: {custom_resolvers: [10.0.0.2], allowlist_additions: [x.example]}}\nsources: {}\n"
        has(emit("unbound-forward", text, place, rc=1), r"x\.example is asked of other servers")
        out = place.dir / "kept"
        out.write_text("before")
        policyc("--emit", "unbound-forward", place.dir / "policy.yaml", "-o", out, rc=1)
        assert out.read_text() == "before"
        policyc("--emit", "iptables", place.dir / "policy.yaml", rc=2)


if __name__ == "__main__":
    cases = Cases()
    for case in (unbound, unbound_nothing, haproxy, nftables, nftables_extremes, hostile, idn, conflicts):
        cases.run(case)
    sys.exit(cases.finish())
