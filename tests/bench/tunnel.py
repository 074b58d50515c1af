#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a tunnel through an allowed wildcard carries: iodine in a guest, iodined as the authority of
tunnel.example outside, and the gateway's resolver between them, each in a network namespace of its own,
with the budgets for DNS wide open and as they are when a policy says nothing. Prints one line each; nothing
is asserted but that a tunnel that is open at all works.

Two kinds of tunnel: in CNAME records, which every policy allows, and in NULL records for a policy that
allows them, which is the best that iodine can do.

usage: tunnel.py [--seconds 20] [--setups module,cx-dns] [--types CNAME,NULL]   (environment: BUILD)
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, "..", "integration", "unbound"))

from lab import BUILD, TREES, Failure, Lab, Process, check, read, wait_for, write  # noqa: E402

ZONE = "tunnel.example"
GUEST, GATEWAY, FAR_GATEWAY, OUTSIDE = "10.77.0.2", "10.77.0.1", "10.78.0.1", "10.78.0.2"
INSIDE_FAR = "10.99.0.1"  # within the tunnel
OPEN = "  limits: {dns: 100000/s, dns_names: 100000/s, dns_octets: 1GiB/s}\n"
POLICY = """version: 1
presets_version: "2026.11"
network:
  presets: []
  dns: {query_types: [A, AAAA, CNAME, HTTPS, SVCB, SRV, PTR, TYPE10]}
%s  allowlist:
    - {domain: "*.%s", lint: {allow: [unknown-suffix], why: the zone of the measurement}}
sources: {10.77.0.0/24: default}
"""
SINK = """
import socket
s = socket.create_server(("%s", 7000))
while True:
    c, _ = s.accept()
    n = 0
    while True:
        try:
            d = c.recv(65536)
        except OSError:
            break
        if not d:
            break
        n += len(d)
        print(n, flush=True)
"""
SOURCE = """
import os, socket, time
end = time.monotonic() + %g
while time.monotonic() < end:
    try:
        with socket.create_connection(("%s", 7000), 5) as s:
            s.settimeout(max(0.1, end - time.monotonic()))
            while time.monotonic() < end:
                s.sendall(os.urandom(512))
    except OSError:
        time.sleep(0.2)
"""


def run(*argv, may_fail=False):
    r = subprocess.run(argv, capture_output=True, text=True, check=False)
    check(may_fail or r.returncode == 0, "%s: %s" % (" ".join(argv), r.stderr))
    return r.stdout


class Net:
    """Three namespaces in a row."""

    def __init__(self):
        self.names = ["cxtun%d-%s" % (os.getpid(), n) for n in ("guest", "gateway", "outside")]
        for n in self.names:
            run("ip", "netns", "add", n)
            self.ip(n, "link", "set", "lo", "up")
        guest, gateway, outside = self.names
        self.link(guest, "g0", GUEST, gateway, "g1", GATEWAY)
        self.link(gateway, "o1", FAR_GATEWAY, outside, "o0", OUTSIDE)

    @staticmethod
    def ip(ns, *argv):
        run("ip", "-n", ns, *argv)

    def link(self, a, dev_a, addr_a, b, dev_b, addr_b):
        run("ip", "link", "add", dev_a, "netns", a, "type", "veth", "peer", "name", dev_b, "netns", b)
        for ns, dev, addr in ((a, dev_a, addr_a), (b, dev_b, addr_b)):
            self.ip(ns, "addr", "add", addr + "/24", "dev", dev)
            self.ip(ns, "link", "set", dev, "up")

    def inside(self, which):
        return ["ip", "netns", "exec", self.names[("guest", "gateway", "outside").index(which)]]

    def close(self):
        for n in self.names:
            run("ip", "netns", "del", n, may_fail=True)


def unbound_conf(module, interface, port):
    return """server:
  directory: "/"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  interface: %s@%d
  access-control: 0.0.0.0/0 allow
  module-config: "%siterator"
  do-not-query-localhost: no
  num-queries-per-thread: 4096
  qname-minimisation: no
remote-control:
  control-enable: no
stub-zone:
  name: "%s"
  stub-addr: %s
%s""" % (interface, port, "dynlib " if module else "", ZONE, OUTSIDE,
         "dynlib:\n  dynlib-file: \"%s\"\n" % module if module else "")


def start_resolver(lab, net, setup, policy):
    """In the gateway, at port 53; returns its processes, what judges last."""
    run_dir = lab.new("run")
    os.makedirs(os.path.join(run_dir, "pins"))
    env = dict(os.environ, CX_POLICY=policy, CX_RUNTIME_DIR=run_dir, CX_AUDIT="off")
    module = BUILD + "/cx_unbound.so" if setup == "module" else None
    conf = write(lab.new("conf"), unbound_conf(module, GATEWAY if module else "127.0.0.1", 53 if module else 5300))
    program = os.path.join(TREES, "unbound", "sbin", "unbound") if module else "/usr/sbin/unbound"
    found = [Process(lab, net.inside("gateway") + [program, "-d", "-c", conf], lab.new("log"), env)]
    wait_for("Unbound", lambda: "start of service" in read(found[0].log))
    if not module:
        argv = [BUILD + "/cx-dns", "-p", policy, "-l", GATEWAY + ":53", "--upstream", "127.0.0.1@5300", "-r", run_dir,
                "-a", "", "-t", "1"]
        found.append(Process(lab, net.inside("gateway") + argv, lab.new("log")))
        wait_for("cx-dns", lambda: "ready" in read(found[1].log))
    return found


def tunnel(lab, net, rtype):
    """Opens the tunnel; (its processes, what went wrong or None)."""
    server = Process(lab, net.inside("outside") + ["iodined", "-f", "-c", "-P", "secret", "-l", OUTSIDE, INSIDE_FAR, ZONE],
                     lab.new("log"))
    wait_for("iodined", lambda: "Listening to dns" in read(server.log))
    client = Process(lab, net.inside("guest") + ["iodine", "-f", "-r", "-P", "secret", "-T", rtype, "-O", "base32",
                                                 GATEWAY, ZONE], lab.new("log"))
    end = time.monotonic() + 60
    while time.monotonic() < end and client.alive() and "Connection setup complete" not in read(client.log):
        time.sleep(0.1)
    up = "Connection setup complete" in read(client.log)
    return [server, client], None if up else read(client.log)[-300:].replace("\n", " / ")


def carried(lab, net, args, client, upload):
    """Octets that arrive within the time."""
    near, far = ("guest", "outside") if upload else ("outside", "guest")
    address = INSIDE_FAR if upload else re.search(r"Setting IP of \S+ to (\S+)", read(client.log)).group(1)
    sink = Process(lab, net.inside(far) + [sys.executable, "-c", SINK % address], lab.new("log"))
    source = Process(lab, net.inside(near) + [sys.executable, "-c", SOURCE % (args.seconds, address)], lab.new("log"))
    source.p.wait(args.seconds + 30)
    sink.stop()
    numbers = re.findall(r"^\d+$", read(sink.log), re.M)
    total, last = 0, 0
    for n in map(int, numbers):
        total += n - last if n >= last else n
        last = n
    return total


def measure(lab, setup, rtype, what, limits, args):
    net = Net()
    begun = len(lab.processes)
    try:
        source, policy = write(lab.new("policy.yaml"), POLICY % (limits, ZONE)), lab.new("policy.bin")
        run(BUILD + "/cx-policyc", "--allow-unenforced", source, "-o", policy)
        start_resolver(lab, net, setup, policy)
        (_, client), wrong = tunnel(lab, net, rtype)
        check(not wrong or not limits, "no tunnel where nothing limits it: %s" % wrong)
        up, down = (0, 0) if wrong else ((carried(lab, net, args, client, up) for up in (True, False)))
        print("%-8s %-6s %-22s up %8.0f octets/s, down %8.0f octets/s%s" %
              (setup, rtype, what, up / args.seconds, down / args.seconds, "  (no tunnel: %s)" % wrong if wrong else ""),
              flush=True)
    finally:
        for p in reversed(lab.processes[begun:]):
            p.stop()
        net.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--setups", default="module,cx-dns")
    p.add_argument("--types", default="CNAME,NULL")
    args = p.parse_args()
    lab = Lab()
    try:
        for setup in args.setups.split(","):
            for rtype in args.types.split(","):
                measure(lab, setup, rtype, "budgets wide open", OPEN, args)
                measure(lab, setup, rtype, "budgets as by default", "", args)
    except Failure as e:
        print("FAIL: %s" % e)
        return 1
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
