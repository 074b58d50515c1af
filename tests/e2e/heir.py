# SPDX-License-Identifier: Apache-2.0
"""What the next holder of an address must not inherit: addresses that DNS gave to the task before, what that
task used up of its limits, and its tunnel through the explicit proxy. In each case the same attempts are
made before unbind, where they show the opposite. It must never send anything outside the test's namespaces.
"""

import contextlib
import socket
import struct

import lab as labs
from lab import CONF, GUESTS, wait_for
from machine import adopt, ask, freeze

PINNED, TURN, WIDE = "pinned.example", "turn.example", "wide.example"
TURN_DNS = "203.0.113.55"
ECHO_PORT, PROXY_PORT = 9999, 3128
NAMES, DNS, REQUESTS, CONNECTIONS = 2, 8, 3, 6
PROFILES = f"""  named:
    allowlist:
      - {TURN}
      - {{domain: {PINNED}, protocols: [tcp], ports: [{ECHO_PORT}]}}
  small:
    limits: {{dns: {DNS}/day, dns_names: {NAMES}/day, requests: {REQUESTS}/day, connections: {CONNECTIONS}/day}}
    allowlist:
      - {PINNED}
      - "*.{WIDE}"
      - {{cidr: 198.51.100.0/24, ports: [{ECHO_PORT}]}}
  through:
    allowlist:
      - {{cidr: 198.51.100.0/24, ports: [{ECHO_PORT}]}}
"""
BIND = "named, small, through"
ZONES = "".join(f'stub-zone:\n    name: "{z}"\n    stub-addr: {TURN_DNS}\n' for z in (TURN, WIDE))


class TurnDns:
    """Every name has the one address that it is told, and nobody may keep it."""

    address = "198.51.100.200"

    def run(self, lab):
        lab.enter("internet")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((TURN_DNS, 53))
        while True:
            query, peer = sock.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            is_a = query[end - 4:end] == b"\0\1\0\1"
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(self.address)
            head = query[:2] + struct.pack("!HHHHH", 0x8400, 1, is_a, 0, 0)
            sock.sendto(head + query[12:end] + answer * is_a, peer)


class Address:
    """One address, and the tasks that have it in turn."""

    def __init__(self, lab, batch, turn, place):
        self.lab, self.batch, self.turn, self.guest = lab, batch, turn, GUESTS[place]

    def order(self, **order):
        answer, _ = self.batch.order(**order)
        if not answer["ok"]:
            raise labs.Failure(str(answer))

    @contextlib.contextmanager
    def held(self, task, profile):
        self.order(op="bind", address=self.guest["v4"], task=task, profile=profile, **{"if": self.guest["link"]})
        try:
            yield
        finally:
            self.order(op="unbind", task=task)

    def ask(self, name):
        """The response code."""
        return ask(self.guest["gw4"], name)[0]

    def denied(self, task):
        return [e for e in self.lab.audit("proxy") if e.get("task") == task and e["verdict"] == "deny"]


def echoes(address):
    """Does a raw TCP connection get through?"""
    with contextlib.suppress(ConnectionError), socket.create_connection((address, ECHO_PORT), timeout=15) as sock:
        sock.sendall(b"ping")
        return b"echo:" in sock.recv(100)
    return False


def get(address, host):
    """All that comes back for one request on a connection of its own."""
    out = b""
    with socket.create_connection((address, 80), timeout=15) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(4096):
                out += data
    return out.decode("latin-1")


def status(answer):
    return answer.split(" ")[1] if answer.startswith("HTTP/") else answer


def pins(at, cases):
    """What DNS gave to A is not B's, neither to connect to nor to be preferred."""
    pinned, (old, new) = at.lab.addresses[PINNED][0], (f"198.51.100.{n}" for n in (201, 202))
    for address in (old, new):
        at.lab.ip("internet", "addr", "add", address, "dev", "lo")
    at.turn.address = old
    with at.held("pins-a", "named"):
        cases.check("pins: without a question there is no raw TCP to a name", not echoes(pinned))
        cases.check("pins: A may ask", (at.ask(PINNED), at.ask(TURN)) == (0, 0))
        at.turn.address = new
        dig = ["dig", "+short", "+time=2", "@127.0.0.1", "-p", "5335", TURN]
        wait_for("the name to have moved", lambda: new in at.lab.run("gateway", dig, check=False).stdout)
        cases.check("control: without unbind raw TCP goes to what DNS gave A", echoes(pinned))
        got = get(new, TURN)
        cases.check("control: without unbind a name is where DNS said to A", f'"origin": "{old}"' in got, got)
    with at.held("pins-b", "named"):
        cases.check("B has no raw TCP to what DNS gave A", not echoes(pinned))
        denied = wait_for("the audit log", lambda: at.denied("pins-b"))
        cases.check("and that is written down as B's", [e["reason"] for e in denied] == ["not-listed"], denied)
        got = get(old, TURN)
        cases.check("B's names are where they are now, not where DNS said to A", f'"origin": "{new}"' in got, got)
        cases.check("B has it after a question of its own", at.ask(PINNED) == 0 and echoes(pinned))


class Attempts:
    """One kind of attempt: what it brings while there is something left, and then."""

    def __init__(self, most, served, refused, attempt):
        self.most, self.served, self.refused, self.attempt = most, served, refused, attempt

    def use_up(self):
        """How many were served before one was refused; -1: it ended in another way, or not in time."""
        for n in range(self.most + 1):
            got = self.attempt(n)
            if got != self.served:
                return n if got == self.refused else -1
        return -1


def limits(at, cases):
    """What A used up is not missing to B; to A, it stays so."""
    address = at.lab.addresses[PINNED][0]
    kinds = {
        "dns_names": Attempts(NAMES, 0, 5, lambda n: at.ask(f"n{n}.{WIDE}")),
        "dns": Attempts(DNS, 0, 5, lambda n: at.ask(PINNED)),
        "requests": Attempts(REQUESTS, "200", "429", lambda n: status(get(address, PINNED))),
        "connections": Attempts(CONNECTIONS, True, False, lambda n: echoes(address)),
    }
    with at.held("limits-a", "small"):
        used = {what: kind.use_up() for what, kind in kinds.items()}
        # Names are questions too, and requests are connections, refused or not.
        cases.check("limits: A is refused when it has used up each", used == {
            "dns_names": NAMES, "dns": DNS - NAMES - 1, "requests": REQUESTS,
            "connections": CONNECTIONS - REQUESTS - 1}, used)
        for what, kind in kinds.items():
            got = kind.attempt(100)
            cases.check(f"control: without unbind {what} stays used up", got == kind.refused, got)
    with at.held("limits-b", "small"):
        for what, kind in kinds.items():
            got = kind.attempt(200)
            cases.check(f"B begins with its own {what}", got == kind.served, got)


def tunnel(at):
    """A CONNECT whose origin answers; it is still open."""
    address = at.lab.addresses[PINNED][0]
    sock = socket.create_connection((at.guest["gw4"], PROXY_PORT), timeout=15)
    sock.sendall(f"CONNECT {address}:{ECHO_PORT} HTTP/1.1\r\nHost: {address}:{ECHO_PORT}\r\n\r\n".encode())
    said = sock.recv(4096)
    if b" 200 " not in said:
        raise labs.Failure(f"no tunnel: {said}")
    sock.sendall(b"ping")
    if sock.recv(100) != b"echo:ping":
        raise labs.Failure("nothing at the tunnel's end")
    return sock


def goes_on(frozen, text):
    """What the gateway says to the one who goes on with a connection; "" if it does not know it."""
    with contextlib.suppress(OSError), adopt(frozen) as sock:
        sock.settimeout(5)
        sock.sendall(text)
        return sock.recv(100)
    return b""


def at_origin(at):
    out = at.lab.run("internet", ["ss", "-Htn", "state", "established", "sport", "=", f":{ECHO_PORT}"]).stdout
    return len(out.splitlines())


def proxy(at, cases):
    """A's tunnel through the explicit proxy is closed to B, and at its origin."""
    lab = at.lab
    lab.run("gateway", ["nft", "add", "element", "inet", "cx", "cx_proxy", f"{{ {PROXY_PORT} }}"])
    process = lab.start_haproxy(config=CONF / "haproxy/proxy.cfg", name="proxy", env={
        "CX_BIND": f"{at.guest['gw4']}:{PROXY_PORT}", "CX_SPOE": str(CONF / "haproxy/spoe-proxy.conf"),
        "CX_LUA": str(CONF / "haproxy/proxy.lua")})
    wait_for("the proxy to see the agent", lambda: lab.agent_state("proxy").startswith("UP"))
    with at.held("tunnel-a", "through"):
        frozen = freeze(tunnel(at))
        said = goes_on(frozen, b"stolen-control")
        cases.check("control: without unbind the tunnel serves whoever goes on with it", b"stolen-control" in said, said)
        frozen = freeze(tunnel(at))
        cases.check("control: without unbind its origin keeps it", at_origin(at) > 0)
    with at.held("tunnel-b", "through"):
        said = goes_on(frozen, b"stolen-tunnel")
        cases.check("B does not go on with A's tunnel", not said, said)
        wait_for("the origin's side to be closed", lambda: not at_origin(at))
        cases.check("its origin's side is closed", True)
        got = [e for e in lab.arrivals("bytes") if "stolen-tunnel" in e["data"]]
        cases.check("and got nothing of B's", not got, got)
        with tunnel(at):
            cases.check("B has tunnels of its own", True)
    lab.stop(process)


ALL = (pins, limits, proxy)
