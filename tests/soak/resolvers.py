#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Millions of questions through the module and through cx-dns, from two clients with two policies, over UDP
and TCP, while the policy is replaced and the audit log moved away: each answer is checked, and what the
servers hold of memory and descriptors after a fifth of it they hold at the end. Prints a line per set-up
and ends with "N passed, N failed". Sends to loopback only and ends what it started.

usage: resolvers.py [--queries 5000000] [--setups veto,own-cache,shim-12]   (environment: BUILD)
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
for where in ("../integration/unbound", "../dns"):
    sys.path.insert(0, os.path.join(HERE, where))

from authority import make_authorities  # noqa: E402
from case import Case, expand_policy  # noqa: E402
from lab import BUILD, CLIENT_A, CLIENT_B, Failure, Lab, check, read, write  # noqa: E402
from setups import SETUPS  # noqa: E402

ROUNDS = 5
WITHIN = 0.02


def held(pid):
    """(resident KiB, descriptors) of a process that has nothing to do: sockets towards an authority live
    for as long as a question does."""
    fds = []
    for _ in range(10):
        fds.append(len(os.listdir("/proc/%d/fd" % pid)))
        time.sleep(0.1)
    return int(re.search(r"^VmRSS:\s+(\d+)", read("/proc/%d/status" % pid), re.M).group(1)), min(fds)


class Disturbance(threading.Thread):
    """Replaces the policy by one that says the same, and takes the audit log away, until told to stop."""

    def __init__(self, lab, started, policies, audit):
        super().__init__(daemon=True)
        self.lab, self.started, self.policies, self.audit = lab, started, policies, audit
        self.ended = threading.Event()
        self.swaps = 0
        self.start()

    def run(self):
        while not self.ended.wait(0.5):
            self.lab.replace(self.started.policy, self.policies[self.swaps % 2])
            self.swaps += 1
            for path in self.audit:
                if os.path.exists(path):
                    os.rename(path, path + ".old")
                    os.unlink(path + ".old")

    def stop(self):
        self.ended.set()
        self.join()


def may_fail(line):
    """An authority that is late because the machine is busy is nobody's leak."""
    words = line.split()
    late = "|rcode=2,answers=0,soa=0,|rcode=2,answers=0,soa=0,upstream"
    return " ".join(words[:2] + [w + late for w in words[2:]])


def run_round(port, names, queries, seed):
    """The first one asks more at once than those that follow: what a server needs for its work it then has."""
    sockets = ["8", "1"] if seed == 1 else ["4", "1"]
    r = subprocess.run([BUILD + "/race", str(port), str(queries), str(seed), names, CLIENT_A, CLIENT_B, *sockets],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"sent (\d+) answered (\d+) lost (\d+) wrong (\d+)", r.stdout)
    check(found and found.group(4) == "0", r.stdout + r.stderr)
    return int(found.group(2)), int(found.group(3))


def soak(lab, case, setup, authorities, args):
    ports = {name: a.port for name, a in authorities.items()}
    texts = [expand_policy("revision: \"%s\"\n" % r + case.policies["policy.yaml"], ports) for r in ("one", "two")]
    policies = [lab.policy(t) for t in texts]
    path = lab.new("policy.bin")
    shutil.copyfile(policies[0], path)
    started = setup.start(lab, case, path, authorities, [], "")
    audit = [os.path.join(p.dir, "audit.jsonl") for p in started.processes]
    disturbance = Disturbance(lab, started, policies, audit)
    names = write(lab.new("names"), "".join(may_fail(line) + "\n" for line in case.races))
    seen, answered, lost, begun = [], 0, 0, time.monotonic()
    for i in range(ROUNDS):
        n, m = run_round(started.port, names, args.queries // ROUNDS, i + 1)
        answered, lost = answered + n, lost + m
        seen.append([held(p.p.pid) for p in started.processes])
    disturbance.stop()
    started.check_alive()
    started.stop()
    text = "%d answers, %d lost, %d policies, %.0f s" % (answered, lost, disturbance.swaps, time.monotonic() - begun)
    for p, (first, fds), (last, fds_last) in zip(started.processes, seen[0], seen[-1]):
        text += "; %s: %d KiB at 20 %%, %d KiB at the end (%+.2f %%), %d and %d descriptors" % (
            os.path.basename(p.p.args[0]), first, last, 100 * (last / first - 1), fds, fds_last)
        check(last <= first * (1 + WITHIN), "memory grows: " + text + " " + str(seen))
        check(fds_last <= fds, "descriptors grow: " + text)
    return text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--queries", type=int, default=5000000)
    p.add_argument("--setups", default="veto,own-cache,shim-12")
    args = p.parse_args()
    passed = failed = 0
    lab = Lab()
    try:
        case = Case(os.path.join(HERE, "..", "dns", "050-two-clients.case"))
        case.audit = True
        authorities, _ = make_authorities(lab, case)
        for name in args.setups.split(","):
            try:
                print("ok   soak, %s: %s" % (name, soak(lab, case, SETUPS[name], authorities, args)), flush=True)
                passed += 1
            except (Failure, OSError) as e:
                print("FAIL soak, %s: %s" % (name, e), flush=True)
                failed += 1
    finally:
        lab.close()
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
