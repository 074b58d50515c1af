#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B5: CPU per cached, allowed query of Unbound with the module against the same Unbound without one
and without a policy. All servers run at once and are asked in turn, dnsperf after dnsperf; each round
gives one ratio per server, and the medians count. A time is never asserted."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration",
                                "unbound"))
from lab import BUILD, CLIENT_A, Authority, Lab, Unbound, check, expect_address, write  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "7"))
SECONDS = os.environ.get("SECONDS_EACH", "2")
NAMES = 1000
ZONE = "bench.example"


def zone():
    lines = ["$ORIGIN %s." % ZONE, "@ 86400 SOA ns host 1 3600 600 86400 5", "@ 86400 NS ns",
             "ns 86400 A 127.0.0.1"]
    lines += ["n%d 86400 A 198.51.%d.%d" % (i, 100 + i // 250, 1 + i % 250) for i in range(NAMES)]
    return "\n".join(lines) + "\n"


def policy():
    return ("version: 1\nrevision: bench\npresets_version: \"2026.11\"\n"
            "network:\n  presets: [default]\n  limits: {dns: 10000000/s}\n  allowlist:\n" +
            "".join("    - \"n%d.%s\"\n" % (i, ZONE) for i in range(NAMES)) +
            "sources: {\"%s/32\": default}\n" % CLIENT_A)


def cpu_ticks(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def measure(server, names):
    """CPU seconds per query of one dnsperf run."""
    before = cpu_ticks(server.p.pid)
    out = subprocess.run(["dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-a", CLIENT_A, "-d",
                          names, "-l", SECONDS, "-c", "8", "-q", "64", "-e"],
                         capture_output=True, text=True, check=True).stdout
    after = cpu_ticks(server.p.pid)
    done = int(re.search(r"Queries completed:\s+(\d+)", out).group(1))
    codes = re.search(r"Response codes:\s+(.*)", out).group(1)
    check(re.fullmatch(r"NOERROR \d+ \(100\.00%\)", codes.strip()), "answers: " + codes)
    return (after - before) / os.sysconf("SC_CLK_TCK") / done


def main():
    argparse.ArgumentParser(description=__doc__, epilog="Environment: BUILD, ROUNDS, SECONDS_EACH.").parse_args()
    lab = Lab()
    try:
        authority = Authority(lab, {ZONE: zone()})
        stubs = {ZONE: authority.port}
        path = lab.policy(policy())
        names = write(lab.path("names"), "".join("n%d.%s A\n" % (i, ZONE) for i in range(NAMES)))
        veto, own = BUILD + "/cx_unbound.so", BUILD + "/plain/cx_unbound.so"
        denied = {"CX_AUDIT_ONLY": "denied"}
        audit = {"audit": "on", "threads": 1, "stubs": stubs, "policy": path}
        servers = {
            "stock, no policy": Unbound(lab, "unbound-plain", None, stubs=stubs, threads=1),
            "veto, denials audited": Unbound(lab, "unbound", veto, env=denied, **audit),
            "veto, everything audited": Unbound(lab, "unbound", veto, **audit),
            "own cache, denials audited": Unbound(lab, "unbound-plain", own, env=denied, **audit),
            "own cache, everything audited": Unbound(lab, "unbound-plain", own, **audit),
        }
        for server in servers.values():
            expect_address(server.ask("n0." + ZONE), "198.51.100.1")
            measure(server, names)  # warms the cache
        cost = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, server in servers.items():
                cost[name].append(measure(server, names))
        stock = cost["stock, no policy"]
        print("B5: CPU per cached allowed query, %d rounds of %s s each in turn, dnsperf, "
              "one Unbound thread" % (ROUNDS, SECONDS))
        print("%-32s %10s %8s %17s" % ("", "us/query", "ratio", "spread"))
        for name, costs in cost.items():
            ratios = sorted(c / s for c, s in zip(costs, stock))
            print("%-32s %10.2f %8.3f %8.3f..%.3f" % (name, 1e6 * statistics.median(costs),
                                                      statistics.median(ratios), ratios[0],
                                                      ratios[-1]))
        for name, server in servers.items():
            if server.audit and os.path.exists(server.audit):
                with open(server.audit, "rb") as f:
                    lines = sum(1 for _ in f)
                print("%-32s %d lines of audit" % (name, lines))
        print(json.dumps({k: statistics.median(v) for k, v in cost.items()}))
    finally:
        lab.close()


if __name__ == "__main__":
    main()
