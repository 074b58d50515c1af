#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B3, B4 and B12: compiling and loading large policies, against Unbound with the same names as local zones;
and finding a client's prefix, against libmaxminddb. Prints one table in the form of run.py; nothing is
asserted. CPU is user and system time of the whole process.

usage: scale.py [--build DIR] [--sizes 1000000,10000000] [--rounds 5]
"""

import argparse
import ipaddress
import multiprocessing
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import mmdb  # noqa: E402
import names  # noqa: E402
from run import Table, human  # noqa: E402

HEAD = "version: 1\nnetwork:\n  presets: []\n"
ALL = "sources: {10.0.0.0/8: default}\n"
TICK = os.sysconf("SC_CLK_TCK")


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


class Cost:
    def __init__(self, cpu, kib):
        self.cpu, self.kib = cpu, kib


class Bench:
    def __init__(self, args, work):
        self.args, self.work, self.table = args, work, Table()

    def path(self, name):
        return os.path.join(self.work, name)

    def write(self, name, text):
        write(self.path(name), text)
        return self.path(name)

    def compile(self, name):
        """NAME.yaml -> NAME.bin: what that costs."""
        cmd = [f"{self.args.build}/cx-policyc", self.path(name + ".yaml"), "-o", self.path(name + ".bin"),
               "--now", "2026-11-21"]
        with subprocess.Popen(cmd, stderr=subprocess.DEVNULL) as p:
            _, status, use = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
        if p.returncode != 0:
            raise SystemExit("%s ended with %d" % (" ".join(cmd), p.returncode))
        return Cost(use.ru_utime + use.ru_stime, use.ru_maxrss)

    def octets(self, name):
        return os.path.getsize(self.path(name + ".bin"))

    def load(self, name, host):
        out = subprocess.run([f"{self.args.build}/bench/load", self.path(name + ".bin"), host], check=True,
                             stdout=subprocess.PIPE, universal_newlines=True, timeout=120).stdout.split()
        return Cost(float(out[0]), int(out[1]))

    def unbound(self, zones):
        """Starts Unbound and waits until it answers. zones: a file to include, or None."""
        port = free_port()
        conf = self.write("unbound.conf", UNBOUND_CONF % (self.work, port) +
                          ("include: %s\n" % zones if zones else ""))
        with subprocess.Popen([f"{self.args.unbound}/sbin/unbound", "-d", "-c", conf],
                              stderr=subprocess.DEVNULL) as p:
            try:
                wait_answer(p, port)
                with open(f"/proc/{p.pid}/stat", encoding="ascii") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                with open(f"/proc/{p.pid}/status", encoding="ascii") as f:
                    kib = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
                return Cost((int(fields[11]) + int(fields[12])) / TICK, kib)
            finally:
                p.send_signal(signal.SIGKILL)


def apart(function, *args):
    """Calls it in a process of its own: what a large parent has in memory counts as its children's peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


UNBOUND_CONF = """server:
  directory: "%s"
  chroot: ""
  username: ""
  pidfile: ""
  interface: 127.0.0.1@%d
  do-daemonize: no
  use-syslog: no
  verbosity: 0
  num-threads: 1
  module-config: "iterator"
  local-zone: "ready.invalid." always_nxdomain
remote-control:
  control-enable: no
"""


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_answer(process, port):
    """Asks until it answers; an answer is all that counts."""
    query = b"\0\7\1\0\0\1\0\0\0\0\0\0\5ready\7invalid\0\0\1\0\1"
    deadline = time.monotonic() + 300
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("127.0.0.1", port))
        s.settimeout(0.2)
        while time.monotonic() < deadline and process.poll() is None:
            try:
                s.send(query)
                s.recv(512)
                return
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.02)
    raise SystemExit("Unbound does not answer")


def write_list(work, name, n):
    """n names as NAME.txt, in parts of a million from different seeds; some of the last of them."""
    with open(os.path.join(work, name + ".txt"), "w", encoding="ascii") as f:
        seed = 1
        while n > 0:
            part = names.listed(min(n, 1000000), seed)
            f.write("\n".join(part) + "\n")
            n -= len(part)
            seed += 10
    write(os.path.join(work, name + ".yaml"), HEAD + "  allowlist: [{list: %s.txt}]\n" % name + ALL)
    return part[:10]


def write_forms(work, name):
    """The names of a list as entries of YAML, and as local zones."""
    with open(os.path.join(work, name + ".txt"), encoding="ascii") as f:
        listed = f.read().split()
    write(os.path.join(work, "yaml.yaml"),
          HEAD + "  allowlist:\n" + "".join("    - %s\n" % x for x in listed) + ALL)
    write(os.path.join(work, "zones.conf"),
          "server:\n" + "".join("  local-zone: %s. always_nxdomain\n" % x for x in listed))


def compile_rows(b):
    """B3 and B4 at a million names: all programs in turn."""
    n = 1000000
    some = apart(write_list, b.work, "list", n)
    apart(write_forms, b.work, "list")
    zones = b.path("zones.conf")
    text, yaml, load, full, bare = [], [], [], [], []
    for _ in range(b.args.rounds):
        text.append(b.compile("list"))
        full.append(b.unbound(zones))
        yaml.append(b.compile("yaml"))
        bare.append(b.unbound(None))
        load.append(b.load("list", some[0]))
    data, t = "1M names", b.table
    size = {"list": b.octets("list"), "yaml": b.octets("yaml")}

    def median(costs, what):
        return statistics.median(getattr(c, what) for c in costs)

    for what, costs, name, aim in (("from a text list", text, "list", "<=0.35"), ("from YAML", yaml, "yaml", "<=1.2")):
        t.value("B3 compile " + what, "CPU seconds", data, f"{median(costs, 'cpu'):.2f}", aim)
        t.ratio("B3 compile " + what, "cx-policyc", "Unbound's start", data + ", local-zones",
                [c.cpu / u.cpu for c, u in zip(costs, full)], "<=0.10" if name == "list" else "")
        t.value("B3 peak memory " + what, "of the policy's size", data,
                f"{median(costs, 'kib') * 1024 / size[name]:.1f}", "<=5")
        t.value("B3 octets a name, all sections, " + what, "-", data, f"{size[name] / n:.1f}")
    t.ratio("B4 load, CPU", "policy_open", "Unbound's local-zones", data + ", less a bare start",
            [c.cpu / (u.cpu - z.cpu) for c, u, z in zip(load, full, bare)], "<=0.01")
    t.ratio("B4 load, memory", "policy_open", "Unbound's local-zones", data + ", less a bare start",
            [c.kib / (u.kib - z.kib) for c, u, z in zip(load, full, bare)], "<=0.1")
    return text


def linear_rows(b, million):
    n = 10000000
    apart(write_list, b.work, "list10", n)
    cost = [b.compile("list10") for _ in range(max(1, b.args.rounds // 2))]
    one = statistics.median(c.cpu for c in million)
    b.table.ratio("B3 compile 10M names from a text list", "10M", "ten times 1M", "CPU",
                  [c.cpu / one / 10 for c in cost], "1")
    b.table.ratio("B3 peak memory at 10M names", "10M", "ten times 1M", "peak memory",
                  [c.kib / million[0].kib / 10 for c in cost], "1")


def write_profiles(work, n):
    """Profiles that extend one base, each with five entries of its own."""
    own = names.listed(5 * n, seed=3)
    base = names.listed(1000, seed=4)
    lines = [HEAD + "  allowlist: [" + ", ".join(base) + "]\nprofiles:"]
    lines += ["  p%d: {extends: [default], allowlist: [%s]}" % (i, ", ".join(own[5 * i:5 * i + 5])) for i in range(n)]
    lines += ["sources:"] + ["  10.%d.%d.%d/32: p%d" % (i >> 16, i >> 8 & 255, i & 255, i) for i in range(n)]
    write(os.path.join(work, "profiles.yaml"), "\n".join(lines) + "\n")


def profile_rows(b, n=50000):
    apart(write_profiles, b.work, n)
    row(b, "profiles", "50,000 profiles, 5 entries each", 5 * n, "an entry")


def row(b, name, what, n, each):
    costs = [b.compile(name) for _ in range(b.args.rounds)]
    b.table.value("B3 compile " + what, "CPU seconds", "YAML", f"{statistics.median(c.cpu for c in costs):.2f}")
    b.table.value("B3 peak memory, " + what, "of the policy's size", "YAML",
                  f"{statistics.median(c.kib for c in costs) * 1024 / b.octets(name):.1f}", "<=5")
    b.table.value("B3 octets " + each + ", " + what, "-", "YAML", f"{b.octets(name) / n:.1f}")


def prefixes(n, seed):
    rng = random.Random(seed)
    found = {}
    while len(found) < n:
        length = rng.randint(16, 28)
        net = ipaddress.ip_network((rng.getrandbits(32) >> (32 - length) << (32 - length), length))
        if net.network_address.packed[0] not in (0, 127):
            found[str(net)] = "p%d" % rng.randrange(10)
    return found


def addresses(found, n, seed):
    """Half of them in a prefix, half anywhere."""
    rng = random.Random(seed)
    nets = [ipaddress.ip_network(p) for p in found]
    out = []
    for _ in range(n // 2):
        net = rng.choice(nets)
        out += [net[rng.randrange(net.num_addresses)], ipaddress.IPv4Address(rng.getrandbits(32) | 1 << 31)]
    return out


def write_prefixes(work, n):
    """Prefixes as a policy, as a database, and addresses to ask for."""
    found = prefixes(n, 5)
    write(os.path.join(work, "prefixes.yaml"),
          HEAD + "profiles: {%s}\nsources:\n" % ", ".join("p%d: {}" % i for i in range(10)) +
          "".join("  %s: %s\n" % x for x in found.items()))
    mmdb.write(os.path.join(work, "prefixes.mmdb"), found)
    write(os.path.join(work, "addresses.txt"), "".join("%s\n" % a for a in addresses(found, 200000, 6)))


def prefix_rows(b):
    for n in (10, 1000, 100000):
        apart(write_prefixes, b.work, n)
        if n == 100000:
            row(b, "prefixes", "100,000 source prefixes", n, "a prefix")
        else:
            b.compile("prefixes")
        out = subprocess.run([f"{b.args.build}/bench/prefix", b.path("prefixes.bin"), b.path("prefixes.mmdb"),
                              b.path("addresses.txt"), "2000000", "7"], check=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, universal_newlines=True, timeout=300).stdout
        pairs = [[float(x) for x in line.split("\t")] for line in out.splitlines()]
        b.table.ratio("B12 client prefix", "policy_source", "MMDB_lookup_sockaddr",
                      f"{n} prefixes, 200k addresses", [x / y for x, y in pairs], "<=0.33" if n == 100000 else "")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--unbound", default="build/unbound")
    ap.add_argument("--sizes", default="1000000", help="with 10000000, ten million names too")
    ap.add_argument("--rounds", type=int, default=5)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="cx-scale-") as work:
        b = Bench(args, work)
        steps = [("B12: prefixes", prefix_rows), ("B3: profiles", profile_rows)]
        for what, step in steps:
            print(what + " ...", file=sys.stderr, flush=True)
            step(b)
        print("B3, B4: 1M names ...", file=sys.stderr, flush=True)
        million = compile_rows(b)
        if 10000000 in [int(s) for s in args.sizes.split(",")]:
            print("B3: %s names ..." % human(10000000), file=sys.stderr, flush=True)
            linear_rows(b, million)
        b.table.show([
            "Names: tests/bench/names.py, fixed seeds. CPU: user and system, of the whole process; peak memory: "
            "ru_maxrss, VmHWM.",
            "Unbound: the one of make deps, one thread, local-zone NAME always_nxdomain, from start to the first "
            "answer.",
            f"Command of B12: {args.build}/bench/prefix POLICY MMDB ADDRESSES 2000000 7; both find the same, "
            "which is checked."])
    return 0


if __name__ == "__main__":
    sys.exit(main())
