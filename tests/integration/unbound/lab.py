# SPDX-License-Identifier: Apache-2.0
"""A laboratory on loopback: authorities (nsd), a real Unbound with the module, clients with addresses
of their own. Starts and ends only its own processes, and keeps every file below one directory."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.environ.get("BUILD", "build")
BUILD = BUILD if os.path.isabs(BUILD) else os.path.join(ROOT, BUILD)
TREES = os.path.join(ROOT, "build")  # where the Unbound builds stand, whatever BUILD is
POLICYC = os.environ.get("POLICYC") or os.path.join(BUILD, "cx-policyc")

CLIENT_A = "127.0.0.11"  # profile alpha
CLIENT_B = "127.0.0.12"  # profile beta
GATEWAY = "127.0.0.13"  # resolver_clients
STRANGER = "127.0.0.14"  # in no source
IGNORED = "127.0.0.15"  # unlisted_sources: ignore, where a policy says so


class Failure(Exception):
    """What a case found wrong."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def wait_for(what, condition, seconds=10.0, step=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(step)
    raise Failure("waited %.1f s in vain for %s" % (seconds, what))


def free_port(address="127.0.0.1"):
    """A port that is free for UDP and TCP just now."""
    while True:
        port = random.randrange(20000, 60000)
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as s:
                    s.bind((address, port))
            return port
        except OSError:
            continue


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


class Process:
    """A child that is ended when the laboratory closes."""

    def __init__(self, lab, argv, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                      env=env, cwd=lab.dir)
        lab.processes.append(self)

    def alive(self):
        return self.p.poll() is None

    def stop(self, sig=signal.SIGTERM, seconds=20):
        if self.alive():
            self.p.send_signal(sig)
            try:
                self.p.wait(seconds)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        return self.p.returncode


class Lab:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="cx-unbound-")
        os.chmod(self.dir, 0o755)
        self.processes = []
        self.count = 0

    def path(self, name):
        return os.path.join(self.dir, name)

    def new(self, name):
        self.count += 1
        return self.path("%03d-%s" % (self.count, name))

    def close(self):
        for p in reversed(self.processes):
            p.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def policy(self, text, out=None, may_fail=False):
        """Compiles a policy; returns where it stands."""
        out = out or self.new("policy.bin")
        source = write(self.new("policy.yaml"), text)
        r = subprocess.run([POLICYC, source, "-o", out], capture_output=True, text=True,
                           check=False)
        if r.returncode != 0 and not may_fail:
            raise Failure("cx-policyc: %d %s%s" % (r.returncode, r.stdout, r.stderr))
        os.chmod(out, 0o644)
        return out

    def sign(self, zone, text):
        """A zone signed with a key of its own, and its trust anchor."""
        d = self.new("sign")
        os.mkdir(d)
        path = write(os.path.join(d, "zone"), text)
        key = subprocess.run(["ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone], cwd=d, check=True,
                             capture_output=True, text=True).stdout.strip()
        subprocess.run(["ldns-signzone", path, key], cwd=d, check=True, capture_output=True)
        anchor = read(os.path.join(d, key + ".ds")).strip().replace("\t", " ")
        return read(path + ".signed"), anchor

    def replace(self, path, source, mode=0o644):
        """As a policy is to be replaced: written beside, synced, renamed."""
        with open(source, "rb") as f:
            data = f.read()
        tmp = path + ".new"
        with open(tmp, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(tmp, mode)
        os.rename(tmp, path)


class Authority(Process):
    """nsd with some zones: {name: file text}."""

    def __init__(self, lab, zones, port=None):
        self.port = port or free_port()
        self.dir = lab.new("nsd")
        os.mkdir(self.dir)
        conf = ["server:", "  ip-address: 127.0.0.1", "  port: %d" % self.port, "  username: \"\"",
                "  zonesdir: \"%s\"" % self.dir, "  pidfile: \"%s/pid\"" % self.dir,
                "  database: \"\"", "  xfrdfile: \"%s/xfrd\"" % self.dir,
                "  zonelistfile: \"%s/zones.list\"" % self.dir, "  xfrdir: \"%s\"" % self.dir,
                "  rrl-ratelimit: 0", "  server-count: 1", "  tcp-count: 200",
                "remote-control:", "  control-enable: no"]
        for i, (name, text) in enumerate(zones.items()):
            write(os.path.join(self.dir, "z%d" % i), text)
            conf += ["zone:", "  name: \"%s\"" % name, "  zonefile: \"z%d\"" % i]
        write(os.path.join(self.dir, "conf"), "\n".join(conf) + "\n")
        super().__init__(lab, ["/usr/sbin/nsd", "-d", "-c", os.path.join(self.dir, "conf")],
                         os.path.join(self.dir, "log"))
        zone = next(iter(zones))
        query = dns.message.make_query(zone, "SOA")

        def answers():
            check(self.alive(), "nsd ended: " + read(self.log))
            try:
                return dns.query.udp(query, "127.0.0.1", port=self.port, timeout=0.5).answer
            except (dns.exception.Timeout, OSError):
                return None

        wait_for("nsd", answers)


class Unbound(Process):
    """tree: unbound, unbound-plain, ...; module: the .so, or None for Unbound alone.
    stubs: {zone: port of its authority}. server: further lines for the server clause. program: how to
    start it, where that is not the tree's sbin/unbound."""

    def __init__(self, lab, tree, module, policy=None, stubs=None, server="", more="", env=None,
                 validator=False, threads=2, wait=True, modules=None, audit="off", program=None):
        self.port = free_port()
        self.dir = lab.new(tree)
        self.lab = lab
        self.tree = os.path.join(TREES, tree)
        os.mkdir(self.dir)
        self.control = os.path.join(self.dir, "control")
        modules = modules or (("dynlib " if module else "") +
                              ("validator iterator" if validator else "iterator"))
        conf = """server:
  directory: "%(dir)s"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  log-time-ascii: yes
  verbosity: 1
  interface: 127.0.0.1@%(port)d
  access-control: 127.0.0.0/8 allow
  num-threads: %(threads)d
  so-reuseport: yes
  module-config: "%(modules)s"
  do-not-query-localhost: no
  num-queries-per-thread: 4096
  outgoing-range: 4096
  incoming-num-tcp: 256
  outgoing-num-tcp: 32
  msg-cache-size: 16m
  rrset-cache-size: 32m
  so-rcvbuf: 4m
  ede: yes
%(server)s
remote-control:
  control-enable: yes
  control-use-cert: no
  control-interface: %(dir)s/control
%(more)s
""" % {"dir": self.dir, "port": self.port, "threads": threads, "modules": modules,
       "server": server, "more": more}
        for zone, port in (stubs or {}).items():
            conf += "stub-zone:\n  name: \"%s\"\n  stub-addr: 127.0.0.1@%d\n" % (zone, port)
        if module:
            conf += "dynlib:\n  dynlib-file: \"%s\"\n" % module
        self.conf = write(os.path.join(self.dir, "conf"), conf)
        self.audit = os.path.join(self.dir, "audit.jsonl")
        e = {k: v for k, v in os.environ.items() if not k.startswith("CX_")}
        e.update({"CX_RUNTIME_DIR": self.dir, "CX_POLICY": policy or os.path.join(self.dir, "no-policy.bin"),
                  "CX_AUDIT": self.audit if audit == "on" else audit, "CX_MAX_LOOKUPS": "100000"})
        e.update(sanitizer_options(self.dir))
        e.update(env or {})
        super().__init__(lab, (program or [os.path.join(self.tree, "sbin", "unbound")]) +
                         ["-d", "-c", self.conf], os.path.join(self.dir, "log"), e)
        if wait:
            self.wait_until_up()

    def wait_until_up(self):
        def up():
            check(self.alive(), "unbound ended: " + read(self.log)[-2000:])
            return "start of service" in read(self.log)

        wait_for("Unbound", up, 60)

    def unbound_control(self, *args):
        r = subprocess.run([os.path.join(self.tree, "sbin", "unbound-control"), "-c", self.conf,
                            *args], capture_output=True, text=True, check=False, timeout=60)
        check(r.returncode == 0, "unbound-control %s: %s" % (" ".join(args), r.stdout + r.stderr))
        return r.stdout

    def wait_for_log(self, text, seconds=10):
        wait_for("%r in the log of Unbound" % text, lambda: text in read(self.log), seconds)

    def ask(self, name, qtype="A", client=CLIENT_A, tcp=False, edns=True, rd=True, rdclass="IN",
            timeout=6.0, payload=1232, port=None, ad=False, want_dnssec=False):
        q = dns.message.make_query(name, qtype, rdclass, use_edns=0 if edns else -1,
                                   payload=payload, want_dnssec=want_dnssec)
        if ad:
            q.flags |= dns.flags.AD
        if not rd:
            q.flags &= ~dns.flags.RD
        f = dns.query.tcp if tcp else dns.query.udp
        return f(q, "127.0.0.1", port=port or self.port, source=client, timeout=timeout)


def sanitizer_options(directory):
    log = os.path.join(directory, "sanitizer")
    return {"ASAN_OPTIONS": "log_path=%s:detect_leaks=0:abort_on_error=0:exitcode=99" % log,
            "UBSAN_OPTIONS": "log_path=%s:print_stacktrace=1" % log,
            "TSAN_OPTIONS": "log_path=%s:exitcode=99" % log}


def sanitizer_reports(lab):
    """Text of every sanitizer report below the laboratory's directory."""
    found = []
    for where, _, names in os.walk(lab.dir):
        found += [read(os.path.join(where, n)) for n in names if n.startswith("sanitizer.")]
    return found


def ede(reply):
    """(code, text) of the first Extended DNS Error, or None."""
    for o in reply.options:
        if o.otype == dns.edns.EDE:
            return int(o.code), o.text or ""
    return None


def describe(reply):
    return "%s answer=%d authority=%d ede=%s" % (dns.rcode.to_text(reply.rcode()),
                                                 len(reply.answer), len(reply.authority),
                                                 ede(reply))


def addresses(reply):
    return sorted(r.address for s in reply.answer for r in s
                  if s.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA))


def expect_address(reply, address):
    check(reply.rcode() == 0 and addresses(reply) == [address],
          "not the answer %s: %s %s" % (address, describe(reply), addresses(reply)))


def soa_of(reply):
    found = [s for s in reply.authority if s.rdtype == dns.rdatatype.SOA]
    check(len(found) == 1, "not one SOA: " + describe(reply))
    return found[0]


def expect_denied(reply, reason, code=15, ttl=None):
    check(reply.rcode() == dns.rcode.NXDOMAIN and not reply.answer,
          "not NXDOMAIN: %s %s" % (describe(reply), addresses(reply)))
    soa = soa_of(reply)
    check(soa.ttl == soa[0].minimum, "SOA: TTL %d, minimum %d" % (soa.ttl, soa[0].minimum))
    check(ttl is None or soa.ttl == ttl, "SOA: TTL %d" % soa.ttl)
    check(ede(reply) == (code, reason), "EDE %s, not %s" % (ede(reply), (code, reason)))
