#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B13: what giving an address to a task and taking it back costs, with 5,000 of 65,536 rows bound. The peer is
the least that could do it: one call of nftables' own library that adds the same element. Both in turn, in a
network namespace of their own; figures are ratios of 99th percentiles. Nothing is asserted.

usage: bind.py [--build DIR] [--rounds 7] [--bound 5000] [--sockets 10000]
"""

import argparse
import ctypes
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EACH = 300 # operations a round
POLICY = """version: 1
network: {presets: [], allowlist: [a.example.com]}
sources: {10.0.0.0/8: {bind: [default]}}
"""


def timed(act):
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def p99(times):
    return sorted(times)[len(times) * 99 // 100]


class Batch:
    """Orders to one `cxctl bind --batch`; the time of an order holds both ways through the pipes."""

    def __init__(self, build, work, *more):
        self.flags = ["-p", work / "policy.bin", "-r", work]
        words = [build / "cxctl", "bind", "--batch", *more, *self.flags]
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def order(self, **order):
        line = json.dumps(order).encode() + b"\n"
        self.process.stdin.write(line)
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if not answer["ok"]:
            raise SystemExit(f"bind.py: {answer}")
        return answer

    def bind(self, address, task):
        return self.order(op="bind", address=address, task=task, profile="default", **{"if": "cxtap0"})

    def unbind(self, task):
        return self.order(op="unbind", task=task, wait="60s")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Nft:
    """nftables' library in this process."""

    def __init__(self):
        self.lib = ctypes.CDLL("libnftables.so.1")
        self.lib.nft_ctx_new.restype = ctypes.c_void_p
        self.lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self.ctx = self.lib.nft_ctx_new(0)

    def run(self, text):
        if self.lib.nft_run_cmd_from_buffer(self.ctx, text.encode()):
            raise SystemExit(f"bind.py: nftables: {text}")

    def element(self, verb, address):
        self.run(f'{verb} element inet cx cx_bound4 {{ "cxtap0" . {address} }}')


def digest(build, work):
    words = [build / "cxctl", "explain", "--json", "-p", work / "policy.bin", "-s", "10.1.0.1", "https://a.example.com"]
    return json.loads(subprocess.run([str(w) for w in words], capture_output=True, text=True).stdout)["policy"]


def rounds(args, batch, nft):
    """Per round: the 99th percentile of a bind, of an unbind, and of the library's add."""
    out = []
    for k in range(args.rounds):
        spare = [f"10.200.{k}.{i % 250 + 1}" if i < 250 else f"10.201.{k}.{i - 249}" for i in range(EACH)]
        peer = [timed(lambda a=a: nft.element("add", a)) for a in spare]
        for a in spare:
            nft.element("delete", a)
        ours = [timed(lambda a=a: batch.bind(a, a)) for a in spare]
        back = [timed(lambda a=a: batch.unbind(a)) for a in spare]
        out.append((p99(ours), p99(back), p99(peer), statistics.median(ours), statistics.median(back),
                    statistics.median(peer)))
    return out


def leaver(args, batch):
    """Seconds to unbind an address with so many connections."""
    for address in ("10.9.0.1/24", "10.9.0.5/24"):
        subprocess.run(["ip", "addr", "add", address, "dev", "lo"], check=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    batch.bind("10.9.0.5", "leaver")
    server = socket.create_server(("10.9.0.1", 5000), backlog=4096)
    child = os.fork()
    if child == 0: # the gateway's side, in a process of its own: that many descriptors
        held = [server.accept()[0] for _ in range(args.sockets)]
        signal.pause()
        os._exit(len(held) == 0)
    try:
        clients = [socket.create_connection(("10.9.0.1", 5000), source_address=("10.9.0.5", 0))
                   for _ in range(args.sockets)]
        begin = time.perf_counter()
        answer = batch.unbind("leaver")
        took = time.perf_counter() - begin
        for s in clients:
            s.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        server.close()
    return took, answer["sockets"]


def show(args, rows, took, sockets, compiled):
    def ratios(a, b):
        r = sorted(row[a] / row[b] for row in rows)
        return f"{statistics.median(r):.2f}", f"{r[0]:.2f}..{r[-1]:.2f}"

    data = f"{args.bound} bound of 65536"
    table = [("what", "ours / peer", "data", "figure", "spread", "aim"),
             ("bind, p99", "cxctl --batch / nft library add", data, *ratios(0, 2), "<=2"),
             ("bind, median", "cxctl --batch / nft library add", data, *ratios(3, 5), ""),
             ("unbind, p99", "cxctl --batch / nft library add", data, *ratios(1, 2), ""),
             ("unbind, median", "cxctl --batch / nft library add", data, *ratios(4, 5), ""),
             ("unbind of a busy leaver", "cxctl --batch", f"{sockets} sockets", f"{took * 1000:.0f} ms", "", ""),
             ("bind, median", "cxctl --batch / cx-policyc again", "a source a task, 5000 tasks",
              f"{statistics.median(r[3] for r in rows) / compiled:.4f}", "", "")]
    widths = [max(len(r[i]) for r in table) for i in range(6)]
    for r in (table[0], tuple("-" * w for w in widths), *table[1:]):
        print("  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip())


def recompile(args, work):
    """Seconds to do the same by compiling: a source for each of the bound tasks."""
    lines = ["version: 1", "network: {presets: [], allowlist: [a.example.com]}", "sources:"]
    lines += [f"  10.{i >> 16}.{i >> 8 & 255}.{i & 255}: default" for i in range(5000)]
    (work / "static.yaml").write_text("\n".join(lines) + "\n")
    words = [str(args.build / "cx-policyc"), str(work / "static.yaml"), "-o", str(work / "static.bin")]
    return statistics.median(timed(lambda: subprocess.run(words, check=True, capture_output=True)) for _ in range(5))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    args.add_argument("--rounds", type=int, default=7)
    args.add_argument("--bound", type=int, default=5000)
    args.add_argument("--sockets", type=int, default=10000)
    args.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = args.parse_args()
    if not args.inside:
        return subprocess.call(["unshare", "-n", "--", sys.executable, *sys.argv, "--inside"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="cx-bench-"))
    try:
        (work / "policy.yaml").write_text(POLICY)
        subprocess.run([args.build / "cx-policyc", work / "policy.yaml", "-o", work / "policy.bin"], check=True)
        subprocess.run(["nft", "-f", ROOT / "conf/nftables/cx-tproxy.nft"], check=True)
        nft, batch, before = Nft(), Batch(args.build, work), digest(args.build, work)
        for i in range(args.bound):
            batch.bind(f"10.{100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}", f"bound-{i}")
        rows = rounds(args, batch, nft)
        took, sockets = leaver(args, batch)
        compiled = recompile(args, work)
        batch.close()
        if digest(args.build, work) != before:
            raise SystemExit("bind.py: the policy changed")
        show(args, rows, took, sockets, compiled)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
