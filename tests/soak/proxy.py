#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A long run of the proxy's half: a thousand SPOP connections ask the agent while its policy is replaced
again and again, and HAProxy, which asks the same agent for clients of its own, is reloaded. Every answer
must be the verdict of one of the two policies, and the agent's memory at the end what it was early on.

usage: proxy.py --build DIR [--requests N] [--replacements N] [--reloads N] [--connections N] [--seconds N]
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
for _part in ("tests/integration/spoa", "tests/integration/haproxy", "tests/bench"):
    sys.path.insert(0, str(ROOT / _part))

import agent as bench  # noqa: E402
import names  # noqa: E402
import rig  # noqa: E402

KEPT, SHUT = 100, 100  # names of both policies, and of the first one only


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, good, detail=""):
        self.passed += bool(good)
        self.failed += not good
        print(("ok   " if good else "FAIL ") + what + (f": {detail}" if detail != "" and not good else ""), flush=True)


class Clients:
    """Clients of HAProxy, on connections that are kept alive: a listed and an unlisted host in turn."""

    def __init__(self, path, good, bad):
        self.path, self.good, self.bad = path, good, bad
        self.answers, self.wrong, self.going = 0, [], True
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(8)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        turn = number
        while self.going:
            try:
                self.connection(turn)
            except OSError as e:
                self.wrong.append(f"{type(e).__name__}: {e}")
            turn += 1

    def connection(self, turn):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(str(self.path))
            first = bench.PROXY % (turn % 250 + 1, 2000 + turn % 60000, 80)
            for i in range(20):
                listed = (turn + i) % 2 == 0
                host = (self.good if listed else self.bad)[(turn + i) % KEPT]
                head = self.exchange(s, first + f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), i > 0)
                if not head:
                    return
                first = b""
                self.answers += 1
                if not head.startswith(b"HTTP/1.1 200" if listed else b"HTTP/1.1 403"):
                    self.wrong.append((host, head[:60]))
                if b"connection: close" in head.lower() or not listed:
                    return
                time.sleep(0.002)

    def exchange(self, sock, ask, idle):
        """A head; b"" where a connection that was idle has ended: an old process may do that."""
        head = b""
        try:
            sock.sendall(ask)
            while b"\r\n\r\n" not in head:
                data = sock.recv(4096)
                if not data:
                    break
                head += data
        except OSError:
            if head or not idle:
                raise
        if b"\r\n\r\n" not in head and (head or not idle):
            raise ConnectionError("closed without an answer")
        return head

    def end(self):
        self.going = False
        for thread in self.threads:
            thread.join()


def frames(path, kept, shut, never):
    with open(path, "wb") as f:
        number = 0
        for group, expect in ((kept, b"a"), (shut, b"?"), (never, b"d")):
            for name in group:
                f.write(expect + bench.question(name, number))
                number += 1


def policies(build, work, kept, shut):
    out = []
    for n, listed in enumerate((kept + shut, kept)):
        where = work / f"policy{n}"
        where.mkdir()
        text = ("version: 1\npresets_version: \"2026.11\"\nnetwork: {presets: [], allowlist: [{list: names.txt}]}\n"
                "sources: {10.0.0.0/8: {profile}}\n".replace("{profile}", "default"))
        (where / "names.txt").write_text("\n".join(listed) + "\n", encoding="ascii")
        text = text.replace("presets: []", f"presets: [], limits: {{{bench.NO_LIMITS}}}")
        (where / "policy.yaml").write_text(text, encoding="ascii")
        done = subprocess.run([build / "cx-policyc", where / "policy.yaml", "-o", where / "policy.bin",
                               "--allow-unenforced"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        out.append(where / "policy.bin")
    return out


def put(work, source):
    shutil.copy(source, work / "policy.new")
    os.replace(work / "policy.new", work / "policy.bin")


def start_haproxy(work, agent, origin):
    fill = {"agent": agent.socket, "spoe": bench.spoe_file(work)}
    path = work / "soak.http"
    config = ("global\n\tmaxconn 2000\n\tstats socket " + str(work / "admin") + " expose-fd listeners level admin\n"
              "defaults\n\ttimeout connect 5s\n\ttimeout client 30s\n\ttimeout server 30s\n\ttimeout http-keep-alive 5s\n"
              f"frontend http\n\tmode http\n\tbind unix@{path} accept-proxy\n"
              + bench.HTTP_RULES["agent"].format(**fill) + "\tdefault_backend out-http\n"
              f"backend out-http\n\tmode http\n\tserver o unix@{origin.http}\n"
              + bench.AGENT_BACKEND.format(**fill))
    (work / "soak.cfg").write_text(config, encoding="utf-8")
    with open(work / "soak.haproxy.log", "wb") as log:
        process = subprocess.Popen(["haproxy", "-W", "-db", "-f", work / "soak.cfg"],
                                   stdout=log, stderr=log)
    rig.wait_for("HAProxy", path.exists, 60)
    return process, path


def workers(master):
    return subprocess.run(["ps", "-o", "pid=", "--ppid", str(master)], capture_output=True, text=True,
                          check=False).stdout.split()


def reload(master):
    """A new worker is there; how many there are now."""
    before = set(workers(master.pid))
    master.send_signal(signal.SIGUSR2)
    rig.wait_for("a new worker", lambda: set(workers(master.pid)) - before, 60)


def memory_kib(pid):
    """The least of a second: while a policy is taken there are two of them."""
    least = resident_kib(pid)
    for _ in range(20):
        time.sleep(0.05)
        least = min(least, resident_kib(pid))
    return least


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Asker(threading.Thread):
    """spop_load; memory is looked at after each tenth of the questions."""

    def __init__(self, args, agent, path, audit):
        super().__init__()
        self.args, self.agent, self.path, self.audit = args, agent, path, audit
        self.parts, self.memory, self.fds = [], [], []

    def run(self):
        rate = self.args.requests / self.args.seconds
        with subprocess.Popen([self.args.build / "bench/spop_load", self.agent.socket, self.path,
                               str(self.args.connections), "4", str(self.args.requests), str(rate)],
                              stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                self.parts.append(json.loads(line))
                self.memory.append(memory_kib(self.agent.process.pid))
                self.fds.append(descriptors(self.agent.process.pid))
                os.replace(self.audit, f"{self.audit}.old")  # rotated


def loaded(agent):
    return agent.log.read_text(encoding="utf-8").count("policy-loaded")


def replace(args, work, agent, both, asker):
    """Alternates until the number is reached; each policy is in force before the next one comes."""
    done = 0
    while done < args.replacements and asker.is_alive():
        before = loaded(agent)
        put(work, both[done % 2 ^ 1])
        rig.wait_for("the policy in force", lambda before=before: loaded(agent) > before, 60)
        done += 1
    put(work, both[0])
    return done


def reloads(args, haproxy, asker, count):
    pause = args.seconds / (args.reloads + 1)
    for _ in range(args.reloads):
        end = time.monotonic() + pause
        while time.monotonic() < end and asker.is_alive():
            time.sleep(0.1)
        reload(haproxy)
        count.append(1)


def soak(args, work, tally):
    listed = names.listed(20000)
    rng = random.Random(3)
    some = rng.sample(listed, KEPT + SHUT)
    kept, shut, never = some[:KEPT], some[KEPT:], names.listed(KEPT, seed=77)
    both = policies(args.build, work, kept, shut)
    put(work, both[0])
    frames(work / "frames", kept, shut, never)
    resolver = bench.Resolver({n: ["198.51.100.7"] for n in some})
    agent = bench.Agent(work, args.build / "cx-spoa", "soak", work / "policy.bin", resolver, work / "audit.jsonl")
    origin = bench.Origin(("haproxy",), work)
    haproxy, path = start_haproxy(work, agent, origin)
    asker, count = Asker(args, agent, work / "frames", work / "audit.jsonl"), []
    try:
        bench.load(args.build, agent, work / "frames", 4000)  # looked up once
        clients = Clients(path, kept, never)
        asker.start()
        reloader = threading.Thread(target=reloads, args=(args, haproxy, asker, count))
        reloader.start()
        replaced = replace(args, work, agent, both, asker)
        asker.join()
        reloader.join()
        clients.end()
        verdicts(args, tally, asker, clients, replaced, len(count))
        if tally.failed:
            print("reasons:", reasons(work / "audit.jsonl.old"))
        tally.check("the agent lives", agent.process.poll() is None)
    finally:
        for p in (haproxy, agent.process, origin.process):
            with contextlib.suppress(ProcessLookupError):
                p.terminate()
            p.wait(30)
        resolver.close()
    tally.check("and ended as it was told", agent.process.returncode == 0, agent.process.returncode)


def reasons(path):
    """How often each, among the last million lines."""
    found = {}
    with open(path, "rb") as f:
        f.seek(max(0, os.path.getsize(path) - (400 << 20)))
        for line in f:
            at = line.find(b'"reason":"')
            what = line[at + 10:line.find(b'"', at + 10)].decode("latin-1") if at > 0 else "?"
            found[what] = found.get(what, 0) + 1
    return found


def verdicts(args, tally, asker, clients, replaced, reloaded):
    end = asker.parts[-1]
    asked = end["sent"]
    tally.check(f"{asked} questions on {args.connections} connections: none without its verdict",
                asked == args.requests and not end["wrong"] and not end["broken"], end)
    tally.check(f"{replaced} replacements of the policy meanwhile", replaced >= args.replacements, replaced)
    # of three equal groups of names one is always listed, one never, and one half of the time
    tally.check("answers of both policies were among them",
                end["allowed"] > asked * 0.36 and end["denied"] > asked * 0.36, end)
    tally.check(f"{reloaded} reloads of HAProxy, {clients.answers} requests through it: each answered as it must be",
                reloaded == args.reloads and clients.answers > 1000 and not clients.wrong, clients.wrong[:5])
    early, late = asker.memory[1], asker.memory[-1]
    tally.check(f"memory at 20 % and 100 %: {early} and {late} KiB, within 2 %", abs(late - early) <= 0.02 * early,
                asker.memory)
    tally.check("descriptors do not grow", asker.fds[-1] <= asker.fds[1] + 16, asker.fds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--requests", type=int, default=5000000)
    parser.add_argument("--replacements", type=int, default=2000)
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=400)
    args = parser.parse_args()
    args.build = args.build.resolve()
    tally = Tally()
    work = pathlib.Path(tempfile.mkdtemp(prefix="cx-soak-"))
    try:
        soak(args, work, tally)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
