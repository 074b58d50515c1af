#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cxctl's bindings on a real kernel: sockets, connection tracking and nftables in namespaces of its own.
Every order is killed at every point and given again; two writers work at once; batches, files and
deadlines do what they say.

usage: run.py [--build DIR] [NAME...]
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import lab as labs # pylint: disable=wrong-import-position
from lab import Cases, Failure, run, wait_for # pylint: disable=wrong-import-position

POLICY = """version: 1
network: {presets: [], allowlist: [a.example.com]}
profiles:
  ci:
    allowlist: [b.example.com]
    deny: ["*.bad.staging.example.com"]
    tasks: {entries: 4, within: ["*.staging.example.com"], max_ttl: 2h}
  other: {allowlist: [c.example.com]}
sources:
  10.9.0.0/16: {bind: [default, ci]}
  "fd00:9::/32": {bind: [default, ci]}
"""
ADDR, ADDR6, LINK = "10.9.0.5", "fd00:9:5::/64", "cxtap5"
# The points of an order at which it can be killed, in their order.
BIND_POINTS = ("sockets-destroyed", "row-stored", "row-indexed", "row-published", "element-added")
UNBIND_POINTS = ("element-deleted", "generation-retired", "sockets-destroyed", "flows-forgotten", "row-retired",
                 "row-unindexed", "row-removed")


class Bench:
    """A gateway's namespace and a guest's, joined by a link, and cxctl between them."""

    def __init__(self, build):
        self.build = build
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cx-bind-"))
        self.dir.chmod(0o755)
        self.tag = f"cxb{os.getpid()}"
        self.policy = self.dir / "policy.bin"
        self.run_dir = self.dir / "run"
        self.run_dir.mkdir()

    def __enter__(self):
        try:
            self.set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for place in ("gw", "vm"):
            run(["ip", "netns", "del", self.ns(place)], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def ns(self, place):
        return f"{self.tag}-{place}"

    def inside(self, place, *argv):
        return ["nsenter", f"--net=/run/netns/{self.ns(place)}", "--", *map(str, argv)]

    def at(self, place, *argv, check=True):
        return run(self.inside(place, *argv), check)

    def set_up(self):
        (self.dir / "policy.yaml").write_text(POLICY)
        run([self.build / "cx-policyc", self.dir / "policy.yaml", "-o", self.policy])
        for place in ("gw", "vm"):
            run(["ip", "netns", "add", self.ns(place)])
            self.at(place, "ip", "link", "set", "lo", "up")
            for which in ("all", "default"):
                self.at(place, "sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{which}/accept_dad")
        self.at("gw", "ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", self.ns("vm"))
        for place, link, v4, v6 in (("gw", LINK, "10.9.0.1/24", "fd00:9:5::1/64"),
                                    ("vm", "eth0", f"{ADDR}/24", "fd00:9:5::2/64")):
            self.at(place, "ip", "addr", "add", v4, "dev", link)
            self.at(place, "ip", "addr", "add", v6, "dev", link, "nodad")
            self.at(place, "ip", "link", "set", link, "up")
        self.at("gw", "nft", "-f", ROOT / "conf/nftables/cx-tproxy.nft")
        self.at("gw", "nft", "flush set inet cx cx_bound4; flush set inet cx cx_bound6")
        # the gateway's own services, so that the guest has something to be connected with
        self.at("gw", "nft", "insert rule inet cx guest iifname . ip saddr @cx_bound4 ip daddr 10.9.0.1 accept; "
                "insert rule inet cx guest iifname . ip6 saddr @cx_bound6_net ip6 daddr fd00:9:5::1 accept; "
                "insert rule inet cx guest_input ct state new,established accept")

    # ---- cxctl ----

    def words(self, *words, faulty=False):
        program = self.build / ("faulty/cxctl" if faulty else "cxctl")
        return self.inside("gw", program, *words, "-p", self.policy, "-r", self.run_dir)

    def ctl(self, *words, fault=None, text=None):
        env = {**os.environ, **({"CX_FAULT": fault} if fault else {})}
        return subprocess.run(self.words(*words, faulty=fault is not None), env=env, input=text, text=True,
                              capture_output=True, timeout=60)

    def bind(self, addr=f"{ADDR},{ADDR6}", task="t1", *more, link=LINK, profile="ci", fault=None):
        return self.ctl("bind", addr, "--if", link, "--task", task, "--profile", profile, *more, fault=fault)

    def unbind(self, task="t1", *more, fault=None):
        return self.ctl("unbind", "--task", task, *more, fault=fault)

    def rows(self):
        done = self.ctl("bindings", "list", "--json")
        if done.returncode:
            raise Failure(done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def elements(self):
        """What the three sets hold, as the kernel prints it."""
        out = []
        for name in ("cx_bound4", "cx_bound6", "cx_bound6_net"):
            sets = json.loads(self.at("gw", "nft", "-j", "list", "set", "inet", "cx", name).stdout)["nftables"]
            for s in sets:
                for e in s.get("set", {}).get("elem", []):
                    e = e["elem"]["val"] if "elem" in e else e
                    link, addr = e["concat"]
                    out.append((link, addr if isinstance(addr, str) else
                                f"{addr['prefix']['addr']}/{addr['prefix']['len']}"))
        return sorted(out)

    def sockets(self):
        """TCP connections of the gateway with the guest, whatever their state."""
        out = self.at("gw", "ss", "-Htan").stdout.splitlines()
        peers = [(line.split()[4].rsplit(":", 1)[0].strip("[]").removeprefix("::ffff:"), line) for line in out]
        return [line for peer, line in peers if peer in (ADDR, "fd00:9:5::2")]

    def flows(self):
        path = pathlib.Path("/proc/net/nf_conntrack")
        if not path.exists():
            return None
        out = self.at("gw", "cat", path).stdout
        return [line for line in out.splitlines() if f"src={ADDR} " in line]

    # ---- traffic ----

    def socket(self, place, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        return labs.Lab.socket(self, place, family, kind)

    @contextlib.contextmanager
    def traffic(self, n=3):
        """n connections of each kind of the guest with a service on the gateway."""
        held, threads = [], []
        try:
            # the last: an IPv4 client of a socket for both
            for family, at, client_family, addr in ((socket.AF_INET, "10.9.0.1", socket.AF_INET, "10.9.0.1"),
                                                    (socket.AF_INET6, "fd00:9:5::1", socket.AF_INET6, "fd00:9:5::1"),
                                                    (socket.AF_INET6, "::", socket.AF_INET, "10.9.0.1")):
                server = self.socket("gw", family)
                held.append(server)
                server.bind((at, 0))
                server.listen(64)
                for _ in range(n):
                    client = self.socket("vm", client_family)
                    held.append(client)
                    client.settimeout(10)
                    client.connect((addr, server.getsockname()[1]))
                    peer, _ = server.accept()
                    held.append(peer)
                    threads.append((client, peer))
            yield threads
        finally:
            for s in held:
                s.close()


def is_cut(pair):
    """Both ends of a connection learn that it has ended."""
    client, peer = pair
    for s in (client, peer):
        s.settimeout(5)
        try:
            if s.recv(1):
                return False
        except (ConnectionResetError, ConnectionAbortedError):
            pass
        except TimeoutError:
            return False
    return True


def generation(done):
    return int(done.stdout.split("generation=")[1].split()[0])


def is_clean(b):
    return not b.rows() and not b.elements()


# ---- cases ---------------------------------------------------------------------------------------

def statuses(b, c):
    bound = b.bind()
    c.check("bind: exit 0, and a generation", bound.returncode == 0 and generation(bound) > 0, bound.stderr)
    c.check("bind: the elements are in the sets", b.elements() == [(LINK, ADDR), (LINK, ADDR6)], b.elements())
    c.check("bind again: the same generation", generation(b.bind()) == generation(bound))
    c.check("bind of a bound address: exit 4", b.bind(task="t2").returncode == 4)
    c.check("bind of an address of a bound prefix: exit 4", b.bind("fd00:9:5::77", "t2").returncode == 4)
    c.check("bind of a bound task elsewhere: exit 4", b.bind("10.9.0.6", "t1").returncode == 4)
    for name, code, done in (
            ("a profile that the prefix may not have", 1, b.bind("10.9.0.7", "t3", profile="other")),
            ("a profile that is not there", 1, b.bind("10.9.0.7", "t3", profile="nobody")),
            ("an address of nobody", 1, b.bind("10.77.0.7", "t3")),
            ("too long a life", 1, b.bind("10.9.0.7", "t3", "--ttl", "3h")),
            ("an addition beyond the ceiling", 1, b.bind("10.9.0.7", "t3", "--add", "www.example.net")),
            ("an addition that is denied", 1, b.bind("10.9.0.7", "t3", "--add", "x.bad.staging.example.com")),
            ("not an address", 2, b.bind("10.9.0.256", "t3")),
            ("not a task", 2, b.bind("10.9.0.7", "a b")),
            ("an unknown option", 2, b.bind("10.9.0.7", "t3", "--frob")),
            ("no task", 2, b.ctl("bind", "10.9.0.7", "--if", LINK, "--profile", "ci"))):
        c.check(f"bind, {name}: exit {code}", done.returncode == code and done.stderr, done)
    c.check("nothing of these was bound", [r["task"] for r in b.rows()] == ["t1"])
    gone = b.unbind()
    c.check("unbind: exit 0", gone.returncode == 0 and generation(gone) == generation(bound), gone)
    c.check("unbind: nothing is left", is_clean(b))
    c.check("unbind again: exit 0", b.unbind().returncode == 0)
    again = b.bind()
    c.check("the next holder has another generation", generation(again) > generation(bound))
    b.unbind()


def explained(b, c):
    """cxctl explain answers a bound source as the plugins would, and says by which binding."""
    def ask(source, target, *more):
        done = subprocess.run([b.build / "cxctl", "explain", "-p", b.policy, "-s", source, target, *more],
                              text=True, capture_output=True, timeout=60)
        return done, json.loads(done.stdout) if "--json" in more and done.returncode < 2 else {}

    there = ("--json", "--runtime-dir", b.run_dir)
    done, said = ask(ADDR, "https://b.example.com", *there)
    c.check("explain, before bind: no-binding", done.returncode == 1 and said["reason"] == "no-binding" and
            said["bound"] is False and said["why_unbound"], done)
    bound = b.bind(f"{ADDR},{ADDR6}", "t1", "--add", "x.staging.example.com")
    for target, verdict, added in (("https://b.example.com", "allow", False), ("https://a.example.com", "deny", False),
                                   ("https://x.staging.example.com", "allow", True)):
        done, said = ask(ADDR, target, *there)
        c.check(f"explain, bound: {verdict} {target}", said.get("verdict") == verdict and said["added"] is added and
                done.returncode == (verdict == "deny"), done)
    c.check("explain, bound: task, generation and additions", said["task"] == "t1" and said["profile"] == "ci" and
            said["generation"] == generation(bound) and said["add"] == ["x.staging.example.com/https+http"] and
            said["only"] == [], said)
    done, _ = ask(ADDR, "https://x.staging.example.com", "-R", b.run_dir)
    c.check("explain, bound: the same for people", f"task:     t1 (generation {generation(bound)})\n"
            "adds:     x.staging.example.com/https+http\n" in done.stdout and "one that the binding adds" in done.stdout, done)
    done, _ = ask("10.9.0.6", "https://b.example.com", "-R", b.run_dir)
    c.check("explain, another address: none, and why", done.returncode == 1 and "binding:  none in " in done.stdout and
            "nothing is bound to it" in done.stdout, done)
    b.unbind()
    done, said = ask(ADDR, "https://b.example.com", *there)
    c.check("explain, after unbind: no-binding", said["reason"] == "no-binding" and "task" not in said, done)


def without_the_sets(b, c):
    b.at("gw", "nft", "rename", "chain", "inet", "cx", "dns", "dns2")
    ruleset = b.at("gw", "nft", "list", "ruleset").stdout
    b.at("gw", "nft", "delete", "table", "inet", "cx")
    c.check("no table: exit 3", b.bind().returncode == 3)
    c.check("no table: nothing was bound", not b.rows())
    c.check("no table, --no-nft: exit 0", b.bind(f"{ADDR}", "t1", "--no-nft").returncode == 0)
    c.check("no table: unbind works", b.unbind().returncode == 0)
    (b.dir / "ruleset").write_text(ruleset)
    b.at("gw", "nft", "-f", b.dir / "ruleset")
    b.bind()
    b.at("gw", "nft", "flush set inet cx cx_bound4; flush set inet cx cx_bound6_net")
    done = b.ctl("bindings", "restore")
    c.check("restore puts the elements back", done.returncode == 0 and
            b.elements() == [(LINK, ADDR), (LINK, ADDR6)], (done, b.elements()))
    b.unbind()


def connections_end(b, c):
    b.bind()
    with b.traffic() as pairs:
        c.check("the guest is connected", len(b.sockets()) == 9, b.sockets())
        flows = b.flows()
        done = b.unbind()
        c.check("unbind ends every connection", done.returncode == 0 and not b.sockets(), (done, b.sockets()))
        c.check("and counts them", "sockets=9" in done.stdout, done.stdout)
        c.check("and forgets their flows", flows is None or (flows and not b.flows()), (flows, b.flows()))
        # the element is gone: what the gateway says about it never matters to the guest any more
        c.check("the gateway's ends are dead", all(is_cut((p, p)) for _, p in pairs))
    b.bind()
    with b.traffic() as pairs:
        done = b.ctl("rebind", "--task", "t1", "--profile", "default")
        c.check("rebind leaves connections alone", done.returncode == 0 and len(b.sockets()) == 9, done)
        before = generation(done)
        done = b.ctl("rebind", "--task", "t1", "--profile", "ci", "--cut")
        c.check("rebind --cut ends them", done.returncode == 0 and not b.sockets(), done)
        c.check("and the generation is another one", generation(done) > before)
        c.check("both ends know", all(map(is_cut, pairs)))
    b.unbind()
    # an address that was never bound, with connections that somebody left
    b.at("gw", "nft", "add element inet cx cx_bound4", f"{{ \"{LINK}\" . {ADDR} }}")
    b.at("gw", "nft", "add element inet cx cx_bound6_net", f"{{ \"{LINK}\" . {ADDR6} }}")
    with b.traffic():
        done = b.bind()
        c.check("bind ends what it finds", done.returncode == 0 and "sockets=9" in done.stdout and not b.sockets(), done)
    b.unbind()


def thousands_of_connections(b, c):
    b.bind()
    n = 3000
    server = b.socket("gw")
    server.bind(("10.9.0.1", 0))
    server.listen(4096)
    clients, peers = [], []
    for _ in range(n):
        s = b.socket("vm")
        s.connect(server.getsockname())
        clients.append(s)
        peers.append(server.accept()[0])
    begin = time.monotonic()
    done = b.unbind("t1", "--wait", "20s")
    took = time.monotonic() - begin
    c.check(f"unbind ends {n} connections", done.returncode == 0 and f"sockets={n}" in done.stdout, done)
    print(f"     {n} connections in {took * 1000:.0f} ms")
    for s in clients + peers + [server]:
        s.close()


def killed_anywhere(b, c):
    for point in BIND_POINTS:
        done = b.bind(fault=point)
        rows = b.rows()
        whole = not rows or (rows[0]["task"], rows[0]["address"], rows[0]["if"], rows[0]["profile"]) == \
            ("t1", f"{ADDR},{ADDR6}", LINK, "ci")
        c.check(f"bind killed at {point}: the row is old or new", done.returncode == -signal.SIGKILL and whole,
                (done, rows))
        again = b.bind()
        c.check(f"bind killed at {point}: completed by the same again", again.returncode == 0 and
                len(b.rows()) == 1 and b.rows()[0]["state"] == "bound" and
                b.elements() == [(LINK, ADDR), (LINK, ADDR6)], (again, b.rows(), b.elements()))
        if b.unbind().returncode or not is_clean(b):
            c.check(f"bind killed at {point}: unbind", False, (b.rows(), b.elements()))
    for point in UNBIND_POINTS:
        b.bind()
        with b.traffic(1):
            done = b.unbind(fault=point)
            taken = b.bind("10.9.0.99", "t9", link="cxtap9")
            c.check(f"unbind killed at {point}: others go on", done.returncode == -signal.SIGKILL and
                    taken.returncode == 0 and b.unbind("t9").returncode == 0, (done, taken))
            again = b.unbind()
            c.check(f"unbind killed at {point}: completed by the same again", again.returncode == 0 and is_clean(b) and
                    not b.sockets(), (again, b.rows(), b.elements(), b.sockets()))
        b.bind()
        b.unbind(fault=point)
        after = b.bind(task="t2")
        rows = b.rows()
        # the next task may not get in before the old one's row is retired; once it may, all is its own
        c.check(f"unbind killed at {point}: bind for the next task is all or nothing",
                (after.returncode == 4 and [r["task"] for r in rows] == ["t1"]) or
                (after.returncode == 0 and [(r["task"], r["state"]) for r in rows] == [("t2", "bound")]),
                (after, rows))
        b.unbind("t1")
        b.unbind("t2")
        if not is_clean(b):
            c.check(f"unbind killed at {point}: clean", False, (b.rows(), b.elements()))
    b.bind()
    done = b.ctl("rebind", "--task", "t1", "--profile", "default", "--cut", fault="row-updated")
    c.check("rebind killed: the row is new", done.returncode == -signal.SIGKILL and b.rows()[0]["profile"] == "default")
    c.check("rebind killed: completed", b.ctl("rebind", "--task", "t1", "--profile", "default", "--cut").returncode == 0)
    b.unbind()


def two_writers(b, c):
    def work(k, out):
        lines = []
        for i in range(60):
            a = f"10.9.{k + 1}.{i % 20}"
            lines += [{"op": "bind", "address": a, "if": f"cxt{k}", "task": f"w{k}-{i}", "profile": "ci"},
                      {"op": "unbind", "task": f"w{k}-{i}"}]
            if i % 3 == 0:
                # the same address for both
                lines += [{"op": "bind", "address": "10.9.77.7", "if": "cxt7", "task": f"s{k}-{i}", "profile": "ci"},
                          {"op": "unbind", "task": f"s{k}-{i}"}]
        done = b.ctl("bind", "--batch", text="".join(json.dumps(line) + "\n" for line in lines))
        out[k] = [json.loads(line) for line in done.stdout.splitlines()]

    out = {}
    threads = [threading.Thread(target=work, args=(k, out)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    answers = out[0] + out[1]
    own = [a for a in answers if a["task"].startswith("w")]
    shared = [a for a in answers if a["task"].startswith("s") and not a["ok"]]
    bound = [a["generation"] for a in answers if a["op"] == "bind" and a["ok"]]
    c.check("two batches at once: each its own", len(own) == 240 and all(a["ok"] for a in own),
            [a for a in own if not a["ok"]][:3])
    c.check("two batches at once: one address, one task", all(a.get("code") == 4 for a in shared), shared[:3])
    c.check("two batches at once: no generation twice", len(set(bound)) == len(bound))
    c.check("two batches at once: nothing is left", is_clean(b), (b.rows(), b.elements()))


def batch(b, c):
    lines = [
        {"op": "bind", "id": 1, "address": f"{ADDR},{ADDR6}", "if": LINK, "task": "t1", "profile": "ci", "ttl": "10m",
         "add": ["x.staging.example.com"], "only": ["*.staging.example.com"]},
        {"op": "bind", "id": 2, "address": "10.9.0.6", "if": LINK, "task": "t1", "profile": "ci"},
        {"op": "bind", "id": 3, "address": "10.9.0.6", "if": LINK, "task": "t2", "profile": "ci",
         "add": ["www.example.net"]},
        {"op": "rebind", "id": 4, "task": "t1", "only": []},
        {"op": "rebind", "id": 5, "task": "nobody"},
        {"op": "frob", "id": 6, "task": "t1"},
        {"op": "bind", "id": 7, "address": "10.9.0.6", "if": LINK, "task": "t2", "profile": "ci", "frob": 1},
        {"op": "unbind", "id": "last", "task": "t1"},
    ]
    done = b.ctl("bind", "--batch", text="".join(json.dumps(line) + "\n" for line in lines) + "[]\nnot JSON\n\n")
    got = [json.loads(line) for line in done.stdout.splitlines()]
    c.check("batch: exit 0", done.returncode == 0, done)
    c.check("batch: one answer a line, in order", [a.get("id") for a in got] == [1, 2, 3, 4, 5, 6, 7, "last", None, None])
    c.check("batch: codes", [a.get("code", 0) for a in got] == [0, 4, 1, 0, 1, 2, 2, 0, 2, 2], got)
    c.check("batch: the generation of a binding", got[0]["generation"] == got[3]["generation"] == got[7]["generation"])
    # an answer is there before the next order is read
    process = subprocess.Popen(b.words("bind", "--batch"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    answers = []
    for i in range(20):
        process.stdin.write(json.dumps({"op": "bind", "address": f"10.9.3.{i}", "if": f"cxt{i}", "task": f"b{i}",
                                        "profile": "ci"}) + "\n")
        process.stdin.flush()
        answers.append(json.loads(process.stdout.readline()))
    c.check("batch: answers come at once", all(a["ok"] for a in answers) and len(b.rows()) == 20)
    process.stdin.close()
    c.check("batch: ends with its orders", process.wait(10) == 0)


def sync(b, c):
    def want(*tasks, **more):
        lines = [{"address": f"10.9.3.{i}", "if": f"cxt{i}", "task": f"b{i}", "profile": "ci", **more} for i in tasks]
        (b.dir / "want").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return b.ctl("bindings", "sync", b.dir / "want")

    done = want(*range(5, 25))
    c.check("sync applies the difference", done.stdout == "bound=5 rebound=0 unbound=5 unchanged=15\n", done)
    before = {r["task"]: r["generation"] for r in b.rows()}
    done = want(*range(5, 25))
    c.check("sync again changes nothing", done.stdout == "bound=0 rebound=0 unbound=0 unchanged=20\n" and
            {r["task"]: r["generation"] for r in b.rows()} == before, done)
    done = want(*range(5, 10), only=["b.example.com"])
    c.check("sync rebinds what differs", done.stdout == "bound=0 rebound=5 unbound=15 unchanged=0\n", done)
    c.check("sync leaves the generation of a living task", all(before[r["task"]] == r["generation"] for r in b.rows()))
    (b.dir / "want").write_text('{"task":"x"}\n')
    done = b.ctl("bindings", "sync", b.dir / "want")
    c.check("sync of a bad file changes nothing", done.returncode == 2 and len(b.rows()) == 5, done)
    c.check("sync of nothing unbinds all", want().returncode == 0 and is_clean(b))


def deadlines(b, c):
    done = b.bind(f"{ADDR},{ADDR6}", "t1", "--ttl", "1s")
    c.check("bind with a time", done.returncode == 0)
    c.check("a binding without a time gets the profile's longest", b.bind("10.9.0.6", "t2").returncode == 0 and
            7190 <= next(r["left_s"] for r in b.rows() if r["task"] == "t2") <= 7200)
    wait_for("the deadline", lambda: any(r["state"] == "expired" for r in b.rows()))
    wait_for("the kernel's own time-out", lambda: (LINK, ADDR) not in b.elements())
    done = b.ctl("bindings", "expire")
    c.check("expire unbinds what is over", done.stdout == "expired 1\n" and [r["task"] for r in b.rows()] == ["t2"], done)
    b.bind(f"{ADDR},{ADDR6}", "t1", "--ttl", "1s")
    wait_for("the deadline", lambda: any(r["state"] == "expired" for r in b.rows()))
    done = b.bind(f"{ADDR},{ADDR6}", "t3")
    c.check("bind takes over an expired address", done.returncode == 0 and
            sorted(r["task"] for r in b.rows()) == ["t2", "t3"], done)
    b.unbind("t2")
    b.unbind("t3")


def another_boot(b, c):
    first = generation(b.bind())
    with open(b.run_dir / "bindings", "r+b") as f:
        f.seek(24)
        f.write(b"00000000-0000-0000-0000-000000000000")
    c.check("after a reboot nothing is bound", b.rows() == [])
    done = b.bind()
    c.check("after a reboot generations go on", done.returncode == 0 and generation(done) > first, done)
    b.unbind()


# The microVM of the shell example: it is reached, and tells what it saw.
MACHINE = """
ip link set eth9 netns {vm}
nsenter --net=/run/netns/{vm} sh -c 'ip addr add 10.9.9.2/30 dev eth9; ip link set eth9 up'
{ctl} bindings list {flags} >{out}
exit {code}
"""


def orchestrator_in_shell(b, c):
    flags = f"-p {b.policy} -r {b.run_dir}"
    for code in (0, 7):
        out = b.dir / "machine.out"
        machine = MACHINE.format(vm=b.ns("vm"), ctl=b.build / "cxctl", flags=flags, out=out, code=code)
        env = {**os.environ, "CXCTL": str(b.build / "cxctl"), "CXCTL_FLAGS": flags,
               "CX_TAP_UP": str(ROOT / "conf/nftables/cx-tap-up"),
               "CX_MAKE_LINK": "ip link add cxtap9 type veth peer name eth9"}
        done = subprocess.run(b.inside("gw", ROOT / "conf/orchestrator/run-task.sh", "job-9", "ci", "cxtap9", "10.9.9.1/30",
                                       "10.9.9.2", "sh", "-c", machine), env=env, capture_output=True, text=True, timeout=60)
        c.check(f"run-task.sh: exit {code} of its microVM", done.returncode == code, done)
        c.check("run-task.sh: the microVM ran as its task", "task=job-9" in out.read_text() and "if=cxtap9" in out.read_text())
        c.check("run-task.sh: nothing is left", is_clean(b) and
                b.at("gw", "ip", "link", "show", "cxtap9", check=False).returncode != 0)


def orchestrator_in_python(b, c):
    sys.path.insert(0, str(ROOT / "conf/orchestrator"))
    import cx_bindings # pylint: disable=import-outside-toplevel,import-error

    with cx_bindings.Bindings(b.words("bind", "--batch")) as cx:
        with cx.task("job-1", ADDR, LINK, "ci", add=["x.staging.example.com"], ttl="10m") as first:
            c.check("cx_bindings: bound", [r["task"] for r in b.rows()] == ["job-1"])
            try:
                cx.bind("job-2", ADDR, LINK, "ci")
                c.check("cx_bindings: a taken address is refused", False)
            except cx_bindings.Refused as e:
                c.check("cx_bindings: a taken address is refused", e.code == 4)
            c.check("cx_bindings: rebind", cx.rebind("job-1", add=[]) == first < cx.rebind("job-1", cut=True))
            cx.process.kill()
            cx.process.wait()
        c.check("cx_bindings: unbound, although the batch died", is_clean(b))
        with contextlib.suppress(ValueError):
            with cx.task("job-3", ADDR, LINK, "ci"):
                raise ValueError
        c.check("cx_bindings: unbound after a failure", is_clean(b))


CASES = {f.__name__: f for f in (statuses, explained, without_the_sets, connections_end, thousands_of_connections,
                                 killed_anywhere, two_writers, batch, sync, deadlines, another_boot,
                                 orchestrator_in_shell, orchestrator_in_python)}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    args.add_argument("names", nargs="*")
    args = args.parse_args()
    c = Cases()
    with Bench(args.build.resolve()) as b:
        for name in args.names or CASES:
            try:
                CASES[name](b, c)
            except (Failure, OSError, subprocess.SubprocessError, ValueError, LookupError) as e:
                c.check(name, False, f"{type(e).__name__}: {e}")
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
