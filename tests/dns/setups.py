# SPDX-License-Identifier: Apache-2.0
"""The set-ups that the cases run against. Each is a class with a name: start() brings up its servers for
a case and returns where to ask, what it logs, and how to end it."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration", "unbound"))
from lab import BUILD, ROOT, Process, Unbound, check, free_port, read, wait_for  # noqa: E402


class Started:
    """What a case sees of a running set-up."""

    def __init__(self, port, proxy_port, processes, log, policy):
        self.port = port  # for questions, at 127.0.0.1 and ::1
        self.proxy_port = proxy_port  # for questions behind a PROXYv2 header; None: same as without
        self.processes = processes
        self.log = log  # of what judges
        self.policy = policy  # its path

    def stop(self):
        for p in reversed(self.processes):
            p.stop()

    def check_alive(self):
        for p in self.processes:
            check(p.alive(), "ended with %s: %s" % (p.p.returncode, read(p.log)[-1500:]))


def shipped_lines():
    """What conf/unbound/cx.conf sets beside loading the module."""
    text = read(os.path.join(ROOT, "conf", "unbound", "cx.conf"))
    (clause,) = re.findall(r"^server:\n(.*?)^\S", text, re.M | re.S)
    lines = [s for s in clause.split("\n") if s.strip() and not s.lstrip().startswith("#")]
    return [s for s in lines if not s.lstrip().startswith("module-config:")]


def common_lines(case, port):
    lines = ["  interface: ::1@%d" % port, "  access-control: ::1/128 allow"]
    return shipped_lines() + lines + ["  " + s for s in case.server]


def stubs(case, authorities):
    """A race is not watched on its way to the authority: that would be the slowest part."""
    def port(a):
        return a.nsd.port if case.races else a.port

    return {z.name: port(authorities[z.at]) for z in case.zones if not z.hidden}


class Module:
    """cx_unbound.so in an Unbound that can load it."""

    def __init__(self, name, tree, module, mode):
        self.name = name
        self.tree = tree
        self.module = module
        self.mode = mode

    def start(self, lab, case, policy, authorities, anchors, more):
        proxy = free_port() if case.proxy else None
        plain = free_port()
        server = common_lines(case, plain) + ["  interface: 127.0.0.1@%d" % plain]
        server += ["  trust-anchor: \"%s\"" % a for a in anchors]
        if proxy:
            server += ["  interface: 127.0.0.1@%d" % proxy, "  proxy-protocol-port: %d" % proxy]
        u = Unbound(lab, self.tree, self.module, policy=policy, stubs=stubs(case, authorities),
                    server="\n".join(server) + "\n", validator=bool(anchors), more=more,
                    modules=case.modules and "dynlib " + case.modules, env=case.env,
                    audit="on" if case.audit else "off")
        check(self.mode in read(u.log), "not in %s: %s" % (self.mode, read(u.log)[-1500:]))
        return Started(plain, proxy, [u], u.log, policy)


class CxDns(Process):
    """more: further options, which count before those that stand here."""

    def __init__(self, lab, policy, port, upstream, proxy_v2, threads=2, more=()):
        self.dir = lab.new("cx-dns")
        self.port = port
        os.mkdir(self.dir)
        argv = [os.path.join(BUILD, "cx-dns"), "-p", policy, "-l", "127.0.0.1:%d" % port,
                "-l", "[::1]:%d" % port, "--upstream", "127.0.0.1@%d" % upstream, "-t", str(threads),
                "--max-open", "4096", "-r", self.dir, "-a", os.path.join(self.dir, "audit.jsonl"), *more]
        super().__init__(lab, argv + (["--proxy-v2"] if proxy_v2 else []), os.path.join(self.dir, "log"))
        wait_for("cx-dns", self.is_up)

    def is_up(self):
        check(self.alive(), "cx-dns ended: " + read(self.log)[-2000:])
        return "ready" in read(self.log)


class Shim:
    """cx-dns before an Unbound as the distribution packages it."""

    def __init__(self, name, program):
        self.name = name
        self.program = program  # makes the command

    def start(self, lab, case, policy, authorities, anchors, more):
        proxy = free_port() if case.proxy else None
        server = ["  " + s for s in case.server] + ["  trust-anchor: \"%s\"" % a for a in anchors]
        if proxy:
            server += ["  interface: 127.0.0.1@%d" % proxy, "  proxy-protocol-port: %d" % proxy]
        u = Unbound(lab, "unbound", None, stubs=stubs(case, authorities), server="\n".join(server) + "\n",
                    validator=bool(anchors), more=more, modules=case.modules, program=self.program())
        port = free_port()
        c = CxDns(lab, policy, port, proxy or u.port, bool(proxy))
        return Started(port, None, [u, c], c.log, policy)


def bookworm():
    return ["/usr/sbin/unbound"]


def trixie():
    """The package's program with its own loader and libraries, out of the root that they stand in."""
    root = subprocess.run([os.path.join(ROOT, "tests", "integration", "haproxy", "debian-root"), "trixie"],
                          check=True, capture_output=True, text=True).stdout.strip()
    lib = root + "/usr/lib/" + os.uname().machine + "-linux-gnu"
    (loader,) = [os.path.join(lib, f) for f in os.listdir(lib) if f.startswith("ld-linux")]
    return [loader, "--library-path", lib, root + "/usr/sbin/unbound"]


SETUPS = {s.name: s for s in (
    Module("veto", "unbound", BUILD + "/cx_unbound.so", "mode=veto"),
    Module("own-cache", "unbound-plain", BUILD + "/plain/cx_unbound.so", "mode=own-cache"),
    Shim("shim-12", bookworm),
    Shim("shim-13", trixie),
)}
