#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""B6 and B7: names that are denied, and allowed, with a list of a million: the module in Unbound, and
cx-dns, against Unbound with the list as local zones and dnsdist with it as a set of suffixes. All servers
run at once, each with one thread, and are asked in turn by dnsperf; CPU is user and system time of the
server. Prints one table in the form of run.py; nothing is asserted.

usage: denials.py [--names 1000000] [--rounds 5] [--seconds 2]   (environment: BUILD)
"""

import argparse
import os
import random
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
for where in ("../dns", "../integration/unbound", "."):
    sys.path.insert(0, os.path.join(HERE, where))

import names  # noqa: E402
from lab import BUILD, CLIENT_A, Authority, Lab, Process, Unbound, check, free_port, wait_for, write  # noqa: E402
from run import Table  # noqa: E402
from setups import CxDns, bookworm  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
MANY, FEW = 50000, 1000  # names asked: denied ones, allowed ones


def cpu(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


class Dnsdist(Process):
    """The list as suffixes that may pass; NXDOMAIN for everything else."""

    def __init__(self, lab, listed, upstream):
        self.port = free_port()
        script = write(lab.path("dnsdist.lua"), """
setACL({"127.0.0.0/8"})
setLocal("127.0.0.1:%d")
newServer({address="127.0.0.1:%d", useProxyProtocol=false, healthCheckMode="up"})
listed = newSuffixMatchNode()
for name in io.lines("%s") do listed:add(newDNSName(name)) end
addAction(NotRule(SuffixMatchNodeRule(listed)), RCodeAction(DNSRCode.NXDOMAIN))
""" % (self.port, upstream, listed))
        super().__init__(lab, ["/usr/bin/dnsdist", "--supervised", "--disable-syslog", "-C", script], lab.path("dnsdist.log"))


def policy(listed):
    return ("version: 1\nrevision: bench\npresets_version: \"2026.11\"\n"
            "network: {presets: [], limits: {dns: 10000000/s}, allowlist: [{list: %s}]}\nsources: {%s/32: default}\n" %
            (os.path.basename(listed), CLIENT_A))


def local_zones(listed):
    """The same list for Unbound alone: what is below no name of it does not exist."""
    return "server:\n  local-zone: \".\" always_nxdomain\n" + "".join(
        "  local-zone: \"%s.\" always_transparent\n" % n for n in listed)


class Bed:
    """All servers, and the names to ask for."""

    def __init__(self, lab, args):
        self.lab, self.args = lab, args
        listed = names.listed(args.names)
        path = write(lab.path("listed.txt"), "\n".join(listed) + "\n")
        rng = random.Random(7)
        self.allowed = self.questions("allowed", rng.sample(listed, FEW))
        self.denied = self.questions("denied", names.listed(MANY, seed=99))
        authority = Authority(lab, {".": ". 86400 SOA ns. host. 1 3600 600 86400 5\n. 86400 NS ns.\n"
                                         "ns. 86400 A 127.0.0.1\n*. 86400 A 198.51.100.1\n"})
        more = {"stubs": {".": authority.port}, "threads": 1}
        source = write(lab.path("policy.yaml"), policy(path))
        self.policy = lab.path("policy.bin")
        subprocess.run([BUILD + "/cx-policyc", source, "-o", self.policy], check=True, capture_output=True)
        denied = {"CX_AUDIT_ONLY": "denied"}
        stock = Unbound(lab, "unbound-plain", None, program=bookworm(), **more)
        zones = write(lab.path("zones.conf"), local_zones(listed))
        self.servers = {
            "stock": stock,
            "zones": Unbound(lab, "unbound-plain", None, more="include: \"%s\"" % zones, **more),
            "module": Unbound(lab, "unbound", BUILD + "/cx_unbound.so", policy=self.policy, **more),
            "module, audit": Unbound(lab, "unbound", BUILD + "/cx_unbound.so", policy=self.policy, audit="on", env=denied,
                                     **more),
            "dnsdist": Dnsdist(lab, path, stock.port),
        }
        for audit in (False, True):
            name = "cx-dns, audit" if audit else "cx-dns"
            self.servers[name] = CxDns(lab, self.policy, free_port(), stock.port, False, threads=1,
                                       more=["--audit-only", "denied"] if audit else ["-a", ""])
        wait_for("dnsdist", lambda: self.ask("dnsdist", self.denied, 0.2, None)[1], 300)

    def questions(self, what, chosen):
        return write(self.lab.path(what + ".dnsperf"), "".join("%s A\n" % n for n in chosen))

    def ask(self, who, questions, seconds, codes):
        """CPU seconds a query, and how many were answered."""
        server = self.servers[who]
        before = cpu(server.p.pid)
        out = subprocess.run(["dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-a", CLIENT_A, "-d", questions,
                              "-l", str(seconds), "-c", "8", "-q", "64", "-e"], capture_output=True, text=True,
                             check=False).stdout
        spent = cpu(server.p.pid) - before
        done = int((re.search(r"Queries completed:\s+(\d+)", out) or [0, 0])[1])
        if codes:
            check(re.search(r"Response codes:\s+%s \d+ \(100\.00%%\)" % codes, out), who + ": " + out)
        return (spent / done if done else 0), done

    def round(self, questions, codes, who):
        return {name: self.ask(name, questions, self.args.seconds, codes)[0] for name in who}

    def ratios(self, questions, codes):
        """{server: [CPU of each round]}"""
        who = list(self.servers)
        if codes == "NXDOMAIN":
            who.remove("stock")
        rounds = [self.round(questions, codes, who) for _ in range(self.args.rounds + 1)][1:]  # the first warms
        return {name: [r[name] for r in rounds] for name in who}


def rows(table, figures, what, data, wanted):
    for ours, peer, aim in wanted:
        table.ratio(what, ours, peer, data, [a / b for a, b in zip(figures[ours], figures[peer])], aim)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--names", type=int, default=1000000)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=2)
    args = p.parse_args()
    lab, table = Lab(), Table()
    try:
        bed = Bed(lab, args)
        data = "%d names" % args.names
        denied = bed.ratios(bed.denied, "NXDOMAIN")
        rows(table, denied, "B6 denied, CPU a query", data, [("module", "zones", "<=1"), ("module, audit", "zones", "")])
        rows(table, denied, "B7 denied, CPU a query", data,
             [("cx-dns", "zones", "<=0.33"), ("cx-dns", "dnsdist", "<=0.67"), ("cx-dns, audit", "zones", ""),
              ("cx-dns, audit", "dnsdist", ""), ("cx-dns", "module", "")])
        allowed = bed.ratios(bed.allowed, "NOERROR")
        rows(table, allowed, "B6 allowed and cached, CPU a query", data,
             [("module", "zones", "<=0.67"), ("module", "stock", "")])
        for name, server in bed.servers.items():
            table.value("memory of the process", name, data, "%.0f MiB" % memory_mib(server.p.pid))
        table.show(["stock: Debian's Unbound without a list; zones: the same list as local-zone always_transparent below "
                    "\".\" always_nxdomain; dnsdist: a suffix set, RCodeAction.",
                    "Command: dnsperf -a %s -d NAMES -l %s -c 8 -q 64 -e; %d denied names, %d allowed ones; one thread "
                    "each. cx-dns is counted alone: denials never reach the Unbound behind it." %
                    (CLIENT_A, args.seconds, MANY, FEW)])
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
