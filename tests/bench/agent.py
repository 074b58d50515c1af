#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B8: CPU per verdict of cx-spoa on a policy of a million names, hellos parsed, against an agent of the
same sockets and protocol that answers a constant. B9: CPU per request and per TLS connection of HAProxy
and its agent, against the same HAProxy with the constant agent, without an agent, and with other means to
keep a list. B10: the policy replaced while half of what saturates the agent is asked. All are asked in turn,
round after round; each round gives one ratio and the medians count. Nothing is asserted but that the answers
are right.

usage: agent.py --build DIR [--rounds N] [--names N] [--swaps N] [b8] [b9] [b10]
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests/integration/spoa"))
sys.path.insert(0, str(ROOT / "tests/integration/haproxy"))
sys.path.insert(0, str(ROOT / "tests/bench"))

import names  # noqa: E402
import rig  # noqa: E402
import spop  # noqa: E402
import versions  # noqa: E402

# What one source may do, far above what is asked: charging is measured, being refused is not.
NO_LIMITS = "connections: 1000000/s, requests: 60000000/min, concurrent: 60000, dns_names: 60000000/min"
WARM = 1000  # names that are looked up once, and then known


def real_hello(name):
    """As OpenSSL's client sends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


class Resolver:
    """What the agent asks for names: an nsd that knows them, so that nothing waits for a program in Python."""

    def __init__(self, table):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cx-nsd-"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        lines = ["$ORIGIN .", "$TTL 86400", ". SOA a. b. 1 3600 600 86400 60", ". NS a."]
        lines += [f"{name}. A {address}" for name, found in table.items() for address in found]
        (self.dir / "zone").write_text("\n".join(lines) + "\n", encoding="ascii")
        (self.dir / "conf").write_text(f"""server:
    ip-address: 127.0.0.1@{self.port}
    username: ""
    chroot: ""
    zonesdir: "{self.dir}"
    pidfile: ""
    xfrdfile: "{self.dir}/xfrd"
    zonelistfile: "{self.dir}/zones"
    xfrdir: "{self.dir}"
    database: ""
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "zone"
""", encoding="ascii")
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen(["nsd", "-d", "-c", self.dir / "conf"], stdout=log, stderr=log)
        rig.wait_for("nsd", self.answers)

    def answers(self):
        query = b"\0\1\1\0\0\1\0\0\0\0\0\0\0\0\6\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            with contextlib.suppress(OSError):
                s.connect(("127.0.0.1", self.port))
                s.send(query)
                return s.recv(512)[3] & 15 == 0
        return False

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)


def cpu_ns(pid):
    """Of all threads that live."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total


def question(name, number):
    src = spop.address(f"10.0.{number % 250}.7")
    args = {"src": src, "sport": 1024 + number % 60000, "dst": spop.address("203.0.113.5"), "dport": 443,
            "hello": real_hello(name), "sni": name, "id": f"bench-{number}"}
    return spop.frame(spop.NOTIFY, spop.message("cx-tls", args), number, 1)


def write_frames(path, good, bad):
    """Listed and unlisted names in turn."""
    with open(path, "wb") as f:
        for i in range(2 * len(good)):
            name = good[i // 2] if i % 2 == 0 else bad[i // 2]
            f.write((b"a" if i % 2 == 0 else b"d") + question(name, i))


class Agent:
    """An agent, of either kind, on one thread."""

    def __init__(self, work, program, name, policy, resolver, audit):
        self.socket = work / f"{name}.sock"
        run = work / f"{name}.run"
        run.mkdir()
        self.log = work / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [program, "-p", policy, "-l", f"unix:{self.socket}", "-t", "1", "-r", run, "-a", audit,
                 "--resolver", f"127.0.0.1@{resolver.port}"], stderr=log)
        rig.wait_for("the agent", lambda: "ready" in self.log.read_text(encoding="utf-8"), 60)

    def cpu_ns(self):
        return cpu_ns(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def show(rows):
    width = [max(len(r[i]) for r in rows) for i in range(4)]
    for r in rows:
        print("  ".join(r[i].ljust(width[i]) for i in range(4)).rstrip(), flush=True)


def ratio(ours, peer):
    """Median and spread of the ratios round by round."""
    r = sorted(a / b for a, b in zip(ours, peer))
    return f"{statistics.median(r):.2f}", f"{r[0]:.2f}..{r[-1]:.2f}"


# ---- B8 ------------------------------------------------------------------------------------------

def load(build, agent, frames, count):
    """CPU ns of the agent per verdict, and what came back."""
    before = agent.cpu_ns()
    done = subprocess.run([build / "bench/spop_load", agent.socket, frames, "4", "32", str(count)],
                          capture_output=True, text=True, check=False, timeout=600)
    spent = agent.cpu_ns() - before
    return spent / count, json.loads(done.stdout.splitlines()[-1])


def compile_policy(build, work, listed):
    (work / "names.txt").write_text("\n".join(listed) + "\n", encoding="ascii")
    (work / "policy.yaml").write_text(
        "version: 1\npresets_version: \"2026.11\"\nnetwork:\n  presets: []\n  allowlist: [{list: names.txt}]\n"
        f"  limits: {{{NO_LIMITS}}}\n"
        "sources: {10.0.0.0/8: default}\n", encoding="ascii")
    subprocess.run([build / "cx-policyc", work / "policy.yaml", "-o", work / "policy.bin",
                    "--allow-unenforced"], check=True, capture_output=True)
    return work / "policy.bin"


def b8(args, work):
    listed = names.listed(args.names)
    rng = random.Random(7)
    good = rng.sample(listed, WARM)
    bad = [n for n in names.listed(WARM, seed=99)]
    policy = compile_policy(args.build, work, listed)
    frames = work / "frames"
    write_frames(frames, good, bad)
    resolver = Resolver({n: ["198.51.100.7"] for n in good})
    program = args.build / "cx-spoa"
    agents = {"no audit log": Agent(work, program, "plain", policy, resolver, ""),
              "everything audited": Agent(work, program, "audited", policy, resolver, work / "audit.jsonl"),
              "constant": Agent(work, args.build / "bench/constant-spoa", "constant", policy, resolver, "")}
    spent = {k: [] for k in agents}
    try:
        for kind, agent in agents.items():
            load(args.build, agent, frames, 2 * WARM)  # looked up once
        for _ in range(args.rounds):
            for kind, agent in agents.items():
                ns, seen = load(args.build, agent, frames, args.count)
                assert not seen["broken"], (kind, seen)
                assert kind == "constant" or not seen["wrong"], (kind, seen)
                spent[kind].append(ns)
    finally:
        for agent in agents.values():
            agent.stop()
        resolver.close()
    rows = [("B8", "against", "ratio of CPU a verdict", "spread")]
    for kind in ("no audit log", "everything audited"):
        rows.append((f"cx-spoa, {args.names} names, half of the hellos listed, {kind}",
                     "an agent that answers a constant", *ratio(spent[kind], spent["constant"])))
    rows.append(("cx-spoa, no audit log: verdicts a CPU second", "-",
                 f"{1e9 / statistics.median(spent['no audit log']):.0f}", ""))
    show(rows)


# ---- B10 ---------------------------------------------------------------------------------------------

def half_load(args, agent, frames, rate, policies, swaps):
    """At half of what saturates: what was lost or wrong, and how long each policy took to be in force."""
    seconds = max(10.0, swaps * 0.15)
    process = subprocess.Popen([args.build / "bench/spop_load", agent.socket, frames, "4", "32",
                                str(int(rate / 2 * seconds)), str(rate / 2)], stdout=subprocess.PIPE, text=True)
    took = []
    while len(took) < swaps and process.poll() is None:
        before = agent.log.read_text(encoding="utf-8").count("policy-loaded")
        shutil.copy(policies[len(took) % 2 ^ 1], agent.policy.with_suffix(".new"))
        begin = time.monotonic()
        os.replace(agent.policy.with_suffix(".new"), agent.policy)
        while agent.log.read_text(encoding="utf-8").count("policy-loaded") == before:
            time.sleep(0.002)
        took.append(time.monotonic() - begin)
    seen = json.loads(process.communicate()[0].splitlines()[-1])
    return seen, took


def b10(args, work):
    """Two policies that differ in a third of the names, replaced in turn under half of the load."""
    some = names.listed(600)
    kept, shut, never = some[:200], some[200:400], names.listed(200, seed=99)
    policies = []
    for n, listed in enumerate((kept + shut, kept)):
        (work / str(n)).mkdir()
        policies.append(compile_policy(args.build, work / str(n), listed))
    frames = work / "frames"
    with open(frames, "wb") as f:
        number = 0
        for group, expect in ((kept, b"a"), (shut, b"?"), (never, b"d")):
            for name in group:
                f.write(expect + question(name, number))
                number += 1
    resolver = Resolver({n: ["198.51.100.7"] for n in kept + shut})
    shutil.copy(policies[0], work / "policy.bin")
    agent = Agent(work, args.build / "cx-spoa", "b10", work / "policy.bin", resolver, "")
    agent.policy = work / "policy.bin"
    rows = [("B10, proxy half", "questions", "lost, or wrong by both policies", "in force after")]
    try:
        load(args.build, agent, frames, 4000)
        saturated = load(args.build, agent, frames, args.count)[1]
        rate = saturated["sent"] / saturated["seconds"]
        for what, swaps in (("control, no replacement", 0), (f"{args.swaps} replacements", args.swaps)):
            seen, took = half_load(args, agent, frames, rate, policies, swaps)
            when = f"{statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f}" if took else ""
            rows.append((f"{what}, half of {rate:.0f}/s", str(seen["sent"]), str(seen["broken"] + seen["wrong"]), when))
    finally:
        agent.stop()
        resolver.close()
    show(rows)


# ---- B9 ------------------------------------------------------------------------------------------

SPOE = """[cx]
spoe-agent cx
\tgroups cx-tls cx-http
\toption var-prefix cx
\ttimeout hello 2s
\ttimeout idle 2m
\ttimeout processing 4s
\tuse-backend agent
"""


def spoe_file(work):
    """The shipped messages."""
    shipped = (ROOT / "conf/haproxy/spoe.conf").read_text(encoding="utf-8")
    path = work / "spoe.conf"
    path.write_text(SPOE + "\n" + shipped[shipped.index("spoe-message cx-tls"):]
                    .replace("messages cx-tcp", "messages cx-tcp"), encoding="utf-8")
    return path


LUA = """local known = {}
for line in io.lines("%s") do known[line] = true end
core.register_fetches("listed", function(txn)
  return known[txn.f:req_fhdr("host")] and "allow" or "deny"
end)
"""

AGENT_BACKEND = """backend agent
.if version_atleast(3.1)
\tmode spop
.else
\tmode tcp
.endif
\tserver a unix@{agent} check
"""

# What decides, in the two kinds of front end.
HTTP_RULES = {
    "none": "",
    "agent": "\tfilter spoe engine cx config {spoe}\n\thttp-request send-spoe-group cx cx-http\n"
             "\thttp-request deny unless {{ var(txn.cx.verdict) -m str allow }}\n",
    "str 10k": "\thttp-request deny unless {{ req.fhdr(host) -m str -f {list10k} }}\n",
    "end 1M": "\thttp-request deny unless {{ req.fhdr(host) -m end -f {list1m} }}\n",
    "lua 10k": "\thttp-request deny unless {{ lua.listed -m str allow }}\n",
}
TLS_RULES = {
    "none": "\ttcp-request inspect-delay 5s\n\ttcp-request content accept if {{ req.ssl_hello_type 1 }}\n",
    "agent": "\tfilter spoe engine cx config {spoe}\n\ttcp-request inspect-delay 5s\n"
             "\ttcp-request content set-var(txn.whole) bool(true) if {{ req.ssl_hello_type 1 }}\n"
             "\ttcp-request content send-spoe-group cx cx-tls\n"
             "\ttcp-request content reject unless {{ var(txn.cx.verdict) -m str allow }}\n",
}


class Haproxy:
    """One HAProxy whose front ends ask in one way."""

    def __init__(self, binary, work, name, kind, agent, files):
        self.http, self.tls = work / f"{name}.http", work / f"{name}.tls"
        rules = "agent" if agent else kind
        fill = {**files, "agent": agent.socket if agent else ""}
        lua = f"\tlua-load {files['lua']}\n" if kind == "lua 10k" else ""
        # HAProxy remembers what a list said of a text, and few texts are asked for here.
        lua += "\ttune.pattern.cache-size 0\n" if kind == "end 1M" else ""
        config = f"global\n{lua}\tmaxconn 500\n\tnbthread 1\ndefaults\n\ttimeout connect 5s\n\ttimeout client 30s\n\ttimeout server 30s\n"
        config += f"frontend http\n\tmode http\n\tbind unix@{self.http} accept-proxy\n"
        config += HTTP_RULES[rules].format(**fill) + "\tdefault_backend out-http\n"
        if rules in TLS_RULES:
            config += f"frontend tls\n\tmode tcp\n\tbind unix@{self.tls} accept-proxy\n"
            config += TLS_RULES[rules].format(**fill) + "\tdefault_backend out\n"
        config += f"backend out-http\n\tmode http\n\tserver o unix@{files['origin']}\n"
        config += f"backend out\n\tmode tcp\n\tserver o unix@{files['echo']}\n"
        if agent:
            config += AGENT_BACKEND.format(**fill)
        path = work / f"{name}.cfg"
        path.write_text(config, encoding="utf-8")
        self.agent = agent
        with open(work / f"{name}.haproxy.log", "wb") as log:
            self.process = subprocess.Popen([*binary, "-db", "-f", path], stdout=log, stderr=log)
        rig.wait_for(f"HAProxy {name}", lambda: self.http.exists() or self.process.poll() is not None, 120)
        if self.process.poll() is not None:
            raise AssertionError((work / f"{name}.haproxy.log").read_text(encoding="utf-8"))

    def cpu_ns(self):
        return cpu_ns(self.process.pid) + (self.agent.cpu_ns() if self.agent else 0)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


PROXY = b"PROXY TCP4 10.1.0.%d 203.0.113.5 %d %d\r\n"


def ask_http(haproxy, hosts, count):
    """Over four kept-alive connections; each answer is 200."""
    socks = []
    for i in range(4):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(haproxy.http))
        s.sendall(PROXY % (i + 1, 2000 + i, 80))
        socks.append(s)
    for i in range(0, count, 4):
        for k, s in enumerate(socks):
            s.sendall(b"GET /x HTTP/1.1\r\nHost: %s\r\n\r\n" % hosts[(i + k) % len(hosts)])
        for s in socks:
            answer = s.recv(4096)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise AssertionError(answer)
    for s in socks:
        s.close()


def ask_tls(haproxy, hellos, count):
    """A connection each, up to the first octets of the origin."""
    for i in range(count):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(haproxy.tls))
            s.sendall(PROXY % (i % 250 + 1, 2000 + i % 60000, 443) + hellos[i % len(hellos)])
            if not s.recv(64):
                raise AssertionError("refused")


def measure(haproxy, act, what, count):
    before = haproxy.cpu_ns()
    act(haproxy, what, count)
    return (haproxy.cpu_ns() - before) / count


class Origin:
    """HTTP answers and an echo, on unix sockets, in an HAProxy and a thread that are not measured."""

    def __init__(self, binary, work):
        self.http, self.echo = work / "origin.http", work / "origin.echo"
        (work / "origin.cfg").write_text(
            "global\n\tmaxconn 500\n\tnbthread 1\ndefaults\n\ttimeout connect 5s\n\ttimeout client 60s\n\ttimeout server 60s\n"
            f"frontend o\n\tmode http\n\tbind unix@{self.http}\n\thttp-request return status 200 content-type text/plain string ok\n",
            encoding="utf-8")
        self.process = subprocess.Popen([*binary, "-db", "-f", work / "origin.cfg"], stderr=subprocess.DEVNULL)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(self.echo))
        self.server.listen(256)
        threading.Thread(target=self.serve, daemon=True).start()
        rig.wait_for("the origin", self.http.exists)

    def serve(self):
        while True:
            try:
                conn, _ = self.server.accept()
            except OSError:
                return
            with conn:
                with contextlib.suppress(OSError):
                    conn.recv(4096)
                    conn.sendall(b"hello")

    def stop(self):
        self.server.close()
        self.process.terminate()
        self.process.wait(20)


def b9(args, work):
    listed = names.listed(args.names)
    good = random.Random(7).sample(listed[:10000], 200)
    policy = compile_policy(args.build, work, listed)
    # -m end walks its list from the first line to the one that matches: the names that are asked for must
    # stand anywhere in it.
    shuffled = random.Random(11).sample(listed, len(listed))
    (work / "list1m").write_text("\n".join(shuffled) + "\n", encoding="ascii")
    (work / "list10k").write_text("\n".join(listed[:10000]) + "\n", encoding="ascii")
    (work / "listed.lua").write_text(LUA % (work / "list10k"), encoding="ascii")
    resolver = Resolver({n: ["198.51.100.7"] for n in good})
    hosts, hellos = [n.encode() for n in good], [real_hello(n) for n in good]
    rows = [("B9", "against", "ratio of CPU", "spread")]
    for version in ("2.6", "3.0"):
        here = work / version
        here.mkdir()
        one_version(args, here, version, versions.binary_of(version), rows, policy, resolver, hosts, hellos,
                    {"list1m": work / "list1m", "list10k": work / "list10k", "lua": work / "listed.lua",
                     "spoe": spoe_file(work)})
    resolver.close()
    show(rows)


def one_version(args, work, version, binary, rows, policy, resolver, hosts, hellos, files):
    origin = Origin(binary, work)
    files = {**files, "origin": origin.http, "echo": origin.echo}
    cx = Agent(work, args.build / "cx-spoa", "cx", policy, resolver, work / "audit.jsonl")
    constant = Agent(work, args.build / "bench/constant-spoa", "constant", policy, resolver, "")
    kinds = {"cx": cx, "constant": constant, "none": None, "str 10k": None, "lua 10k": None, "end 1M": None}
    running = {k: Haproxy(binary, work, k.replace(" ", "-"), k, agent, files) for k, agent in kinds.items()}
    spent = {k: [] for k in running}
    tls = {k: [] for k in ("cx", "constant", "none")}
    try:
        time.sleep(0.5)
        for k, haproxy in running.items():
            measure(haproxy, ask_http, hosts, 40 if k == "end 1M" else 800)
        for _ in range(args.rounds):
            for k, haproxy in running.items():
                spent[k].append(measure(haproxy, ask_http, hosts, 40 if k == "end 1M" else args.requests))
            for k in tls:
                tls[k].append(measure(running[k], ask_tls, hellos, args.requests // 4))
    finally:
        for p in (*running.values(), cx, constant, origin):
            p.stop()
    texts = {"constant": "the same with an agent that answers a constant", "none": "no agent",
             "lua 10k": "a Lua table of 10k names", "str 10k": "an ACL, -m str, 10k names",
             "end 1M": "an ACL, -m end, 1M names, none remembered"}
    for k in ("constant", "none", "lua 10k", "str 10k", "end 1M"):
        rows.append((f"HAProxy {version} and cx-spoa, a request", texts[k], *ratio(spent["cx"], spent[k])))
    for k in ("constant", "none"):
        rows.append((f"HAProxy {version} and cx-spoa, a TLS connection", texts[k], *ratio(tls["cx"], tls[k])))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", type=int, default=1000000)
    parser.add_argument("--count", type=int, default=200000)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("what", nargs="*")
    args = parser.parse_args()
    args.build = args.build.resolve()
    for name, act in (("b8", b8), ("b9", b9), ("b10", b10)):
        if args.what and name not in args.what:
            continue
        work = pathlib.Path(tempfile.mkdtemp(prefix="cx-bench-"))
        os.chmod(work, 0o755)
        try:
            act(args, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
