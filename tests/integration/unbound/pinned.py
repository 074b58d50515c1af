# SPDX-License-Identifier: Apache-2.0
"""The module in real Unbound pins what it answers, a real agent beside it lets a client connect by raw
TCP to what that client was told, and to nothing else; and sends its TLS there before it asks itself."""

import os
import re
import sys
import time

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "spoa"))

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "e2e"))

import hello  # noqa: E402
import spop  # noqa: E402
from lab import (BUILD, CLIENT_A, CLIENT_B, Authority, Process, addresses, check, describe, read,
                 wait_for)  # noqa: E402

ZONE = "pin.example"
RECORDS = """$ORIGIN pin.example.
@ 300 SOA ns host 1 3600 600 86400 5
@ 300 NS ns
ns 300 A 127.0.0.1
git 300 A 198.51.100.20
git 300 A 198.51.100.21
git 300 A 10.0.0.1
git 300 AAAA 2001:db8:7::1
alias 300 CNAME git
web 300 A 198.51.100.30
lure 300 CNAME x.never
x.never 300 A 198.51.100.40
zero 0 A 198.51.100.50
many 300 A 198.51.100.61
many 300 A 198.51.100.62
many 300 A 198.51.100.63
many 300 AAAA 2001:db8:7::61
many 300 AAAA 2001:db8:7::62
"""


def policy(extra=""):
    return """version: 1
presets_version: "2026.11"
network: {presets: [], allowlist: []}
never: ["*.never.pin.example"]
profiles:
  alpha:
    presets: []
    allowlist:
      - {domain: git.pin.example, protocols: [tcp], ports: [22]}
      - {domain: alias.pin.example, protocols: [tcp], ports: [2222]}
      - {domain: lure.pin.example, protocols: [tcp], ports: [22]}
      - {domain: zero.pin.example, protocols: [tcp], ports: [22]}
      - web.pin.example
      - many.pin.example
%s
sources: {%s/32: alpha, %s/32: alpha}
""" % (extra, CLIENT_A, CLIENT_B)


class Agent(Process):
    def __init__(self, lab, policy_path, runtime):
        self.socket = os.path.join(runtime, "spoa.sock")
        super().__init__(lab, [os.path.join(BUILD, "cx-spoa"), "-p", policy_path, "-r", runtime,
                               "-t", "2", "-a", "", "--resolver", "127.0.0.1@9"], lab.new("agent.log"))
        wait_for("the agent", lambda: "ready" in read(self.log))

    def tcp(self, dst, port=22, client=CLIENT_A):
        with spop.Client(self.socket) as c:
            got = c.ask("cx-tcp", {"src": spop.address(client), "dst": spop.address(dst),
                                   "dport": port, "id": "t"})
        return got.get("verdict"), got.get("next") or got.get("reason")

    def tls(self, name, dst="203.0.113.5", client=CLIENT_A):
        """The address that a connection goes to, or why there is none. The agent's own resolver is dead."""
        with spop.Client(self.socket, timeout=10) as c:
            got = c.ask("cx-tls", {"src": spop.address(client), "dst": spop.address(dst), "dport": 443, "sni": name,
                                   "hello": hello.plain(hello.server_name(name)), "id": "t"})
        return str(got["addr"]) if got.get("verdict") == "allow" else got.get("reason")


def case_pinned(world, kind):
    """An address, to whom it was given, for the name and port that the policy lists, in time."""
    runtime = world.lab.new("run")
    os.makedirs(os.path.join(runtime, "pins"))
    authority = Authority(world.lab, {ZONE: RECORDS})
    path = world.lab.policy(policy())
    u = world.unbound(kind, policy=path, stubs={ZONE: authority.port}, env={"CX_RUNTIME_DIR": runtime})
    agent = Agent(world.lab, path, runtime)
    raw = ("allow", "raw")

    def eventually(what, want, *args, **more):
        wait_for(what, lambda: agent.tcp(*args, **more) == want, 5, 0.05)

    check(agent.tcp("198.51.100.20") == ("deny", "not-listed"), "before DNS: %s" % (agent.tcp("198.51.100.20"),))
    r = u.ask("git.pin.example")
    check(addresses(r) == ["198.51.100.20", "198.51.100.21"], describe(r))
    eventually("the pin", raw, "198.51.100.20")
    check(agent.tcp("198.51.100.21") == raw, "the other address")
    for what, args, more in (("another port", ("198.51.100.20", 23), {}),
                             ("the alias' port", ("198.51.100.20", 2222), {}),
                             ("another client", ("198.51.100.20",), {"client": CLIENT_B}),
                             ("what was removed", ("10.0.0.1",), {}),
                             ("a neighbour", ("198.51.100.22",), {}),
                             ("what was not asked for", ("2001:db8:7::1",), {})):
        check(agent.tcp(*args, **more)[0] == "deny", what)
    u.ask("git.pin.example", "AAAA")
    check(agent.tcp("2001:db8:7::1") == raw, "IPv6")
    # out of the cache, for the second client; and by the way of an alias
    u.ask("git.pin.example", client=CLIENT_B)
    check(agent.tcp("198.51.100.20", client=CLIENT_B) == raw, "a cached answer is pinned, too")
    u.ask("alias.pin.example")
    check(agent.tcp("198.51.100.20", 2222) == raw, "the name that was asked for counts")
    check(agent.tcp("198.51.100.20", 2222, client=CLIENT_B)[0] == "deny", "alias, another client")
    # no raw TCP for names that are not listed for it, nor for what is refused
    u.ask("web.pin.example")
    check(agent.tcp("198.51.100.30", 22)[0] == "deny", "web")
    u.ask("lure.pin.example")
    check(agent.tcp("198.51.100.40")[0] == "deny", "lure")
    u.ask("zero.pin.example")
    check(agent.tcp("198.51.100.50") == raw, "a TTL of 0")
    # a policy that shrinks holds for what is pinned, too
    world.lab.replace(path, world.lab.policy(policy("    deny: [git.pin.example]")))
    eventually("the new policy", ("deny", "not-listed"), "198.51.100.20")
    check(agent.tcp("198.51.100.50") == raw, "what is still listed")
    world.lab.replace(path, world.lab.policy(policy()))
    eventually("the old policy", raw, "198.51.100.20")
    # both sides start again, and nothing is forgotten
    agent.stop()
    u.stop()
    agent = Agent(world.lab, path, runtime)
    check(agent.tcp("198.51.100.20") == raw, "after the agent's restart")
    u = world.unbound(kind, policy=path, stubs={ZONE: authority.port}, env={"CX_RUNTIME_DIR": runtime})
    check(agent.tcp("198.51.100.20") == raw, "after Unbound's restart")
    check(not re.search("pins-unusable", read(u.log)), read(u.log)[-500:])
    # a table that vanished pins nothing, and comes back
    os.unlink(os.path.join(runtime, "pins", "unbound"))
    eventually("forgetting", ("deny", "not-listed"), "198.51.100.20")
    end = time.monotonic() + 5
    while agent.tcp("198.51.100.20") != raw:
        check(time.monotonic() < end, "no pin in the new table")
        u.ask("git.pin.example")
        time.sleep(0.05)
    agent.stop()
    u.stop()
    authority.stop()


def case_preferred(world, kind):
    """TLS goes to an address that this client was given for the name; the one it tries first of all."""
    runtime = world.lab.new("run")
    os.makedirs(os.path.join(runtime, "pins"))
    authority = Authority(world.lab, {ZONE: RECORDS})
    path = world.lab.policy(policy())
    u = world.unbound(kind, policy=path, stubs={ZONE: authority.port}, env={"CX_RUNTIME_DIR": runtime})
    agent = Agent(world.lab, path, runtime)
    check(agent.tls("web.pin.example") == "unresolved", "before DNS, with a resolver that is dead")
    u.ask("web.pin.example")
    wait_for("the pin", lambda: agent.tls("web.pin.example") == "198.51.100.30", 5, 0.05)
    check(agent.tls("web.pin.example", client=CLIENT_B) == "unresolved", "what another client was given counts for nothing")
    check(agent.tls("web.pin.example", "198.51.100.61") == "198.51.100.30", "another name's address is not taken")
    u.ask("many.pin.example")
    wait_for("the pins", lambda: agent.tls("many.pin.example").startswith("198.51.100.6"), 5, 0.05)
    for n in (61, 62, 63):
        check(agent.tls("many.pin.example", f"198.51.100.{n}") == f"198.51.100.{n}", "the client's choice among its addresses")
    check(agent.tls("many.pin.example", "198.51.100.64").startswith("198.51.100.6"), "a neighbour is no choice")
    check(agent.tls("many.pin.example", "2001:db8:7::61").startswith("198.51.100.6"), "IPv6 was not given yet")
    u.ask("many.pin.example", "AAAA")
    wait_for("IPv6", lambda: agent.tls("many.pin.example", "2001:db8:7::62") == "2001:db8:7::62", 5, 0.05)
    check(agent.tls("many.pin.example", "2001:db8::1").startswith("2001:db8:7::6"), "the client's family first")
    check(agent.tls("many.pin.example").startswith("198.51.100.6"), "and the other one for the other")
    # what is pinned is judged like any other address
    shut = policy("    deny: [{cidr: 198.51.100.61/32}, {cidr: 198.51.100.62/32}]")
    world.lab.replace(path, world.lab.policy(shut))
    wait_for("the new policy", lambda: agent.tls("many.pin.example", "198.51.100.61") == "198.51.100.63", 5, 0.05)
    world.lab.replace(path, world.lab.policy(policy("    deny: [web.pin.example]")))
    wait_for("a denied name", lambda: agent.tls("web.pin.example") == "denied-entry", 5, 0.05)
    agent.stop()
    u.stop()
    authority.stop()


CASES = [case_pinned, case_preferred]
