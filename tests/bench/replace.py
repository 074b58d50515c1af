#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B10, DNS: a policy replaced a thousand times under half of the load that saturates the resolver here, and
each answer held against both policies; beside it the same load without any replacement, and with
`unbound-control reload`. Prints a table in the form of run.py; nothing is asserted.

usage: replace.py [--swaps 1000] [--setups veto,shim-12]   (environment: BUILD)
"""

import argparse
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
for where in ("../dns", "../integration/unbound", "."):
    sys.path.insert(0, os.path.join(HERE, where))

from case import Case, Zone  # noqa: E402
from lab import BUILD, CLIENT_A, CLIENT_B, Lab, check, read, wait_for  # noqa: E402
from run import Table  # noqa: E402
from setups import SETUPS  # noqa: E402

SPEC = importlib.util.spec_from_file_location("module_tests", os.path.join(HERE, "../integration/unbound/run.py"))
module_tests = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(module_tests)


class Bed:
    """One set-up with the two policies and the names of the module's own tests."""

    def __init__(self, lab, world, setup):
        self.world = world
        self.path = lab.new("policy.bin")
        lab.replace(self.path, world.old)
        case = Case(os.path.join(HERE, "../dns/001-listed-and-not.case"))
        case.zones = [Zone([module_tests.ZONE])]
        self.started = setup.start(lab, case, self.path, {"public": world.authority}, [], "")
        self.u = self.started.processes[0]
        self.u.port = self.started.port

    def loaded(self):
        return read(self.started.log).count("policy-loaded")

    def saturation(self):
        """Answers a second when as much is asked as it takes."""
        begun = time.monotonic()
        r = subprocess.run([BUILD + "/race", str(self.started.port), "200000", "9", self.world.names, CLIENT_A, CLIENT_B,
                            "6", "2"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        n = int(re.search(r"answered (\d+)", r.stdout).group(1))
        return n / (time.monotonic() - begun)

    def run(self, per_s, names, disturb, tcp=2):
        race = module_tests.Race(self.world, self.u, int(per_s), names=names, per_s=int(per_s), seed=4, tcp=tcp)
        disturb()
        return race.finish()


def swap(lab, bed, n):
    """Replaces the policy n times; the times until each was in force, in ms."""
    took = []
    for i in range(n):
        before, begun = bed.loaded(), time.monotonic()
        lab.replace(bed.path, bed.world.new if i % 2 == 0 else bed.world.old)
        wait_for("policy %d in force" % i, lambda n=before: bed.loaded() > n, step=0.002)
        took.append(1000 * (time.monotonic() - begun))
    return took


def reload_often(bed, n):
    for _ in range(n):
        bed.u.unbound_control("reload")
        time.sleep(1)


def one_setup(lab, world, setup, args, table):
    bed = Bed(lab, world, setup)
    try:
        bed.saturation()  # warms
        per_s = bed.saturation() / 2
        took = []
        swapped = bed.run(per_s, world.swap_names, lambda: took.extend(swap(lab, bed, args.swaps)))
        seconds = swapped["sent"] / per_s
        control = bed.run(per_s, world.swap_names, lambda: time.sleep(seconds))
        reloads = min(20, args.swaps)
        reloaded = bed.run(per_s, world.swap_names, lambda: reload_often(bed, reloads), tcp=0)
        check(bed.started.processes[-1].alive(), "it ended")
    finally:
        bed.started.stop()
    data = "%d/s, half of what saturates it" % per_s
    table.value("B10 lost queries, %d policies" % args.swaps, setup.name, data,
                "%d of %d" % (swapped["lost"], swapped["sent"]), "no more than the control")
    table.value("B10 lost queries, control", setup.name, data, "%d of %d" % (control["lost"], control["sent"]))
    table.value("B10 lost queries, %d times unbound-control reload (UDP alone)" % reloads, setup.name, data,
                "%d of %d" % (reloaded["lost"], reloaded["sent"]))
    table.value("B10 verdicts of neither policy", setup.name, data, "%d" % swapped["wrong"], "0")
    table.value("B10 in force after the file is there, median; longest", setup.name, data,
                "%.0f; %.0f ms" % (statistics.median(took), max(took)), "100 ms and loading")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--swaps", type=int, default=1000)
    p.add_argument("--setups", default="veto,shim-12")
    args = p.parse_args()
    lab, table = Lab(), Table()
    try:
        world = module_tests.World(lab, argparse.Namespace(sanitized=None))
        for name in args.setups.split(","):
            one_setup(lab, world, SETUPS[name], args, table)
        table.show(["Load: build/race, two clients, UDP and TCP, 400 names, every answer checked against both policies.",
                    "A reload throws the cache away, loses what was under way and closes TCP; behind cx-dns it is Unbound's."])
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
