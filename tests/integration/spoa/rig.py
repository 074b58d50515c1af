# SPDX-License-Identifier: Apache-2.0
"""A real cx-spoa with a compiled policy and a resolver of our own, on loopback and in a directory that
is removed; and a tally of cases."""

import json
import os
import pathlib
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
sys.path.insert(0, str(ROOT / "tests/e2e"))

import hello  # noqa: E402,F401
import spop  # noqa: E402


def wait_for(what, condition, timeout=20.0):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen in {timeout} s")


class Cases:
    """Runs functions as cases; an exception is a failure; the last line is `N passed, N failed`."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, function, *args):
        name = function.__doc__ or function.__name__
        start = time.monotonic()
        try:
            function(*args)
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            where = error.__traceback__
            while where.tb_next:
                where = where.tb_next
                print(f"     {where.tb_frame.f_code.co_name}:{where.tb_lineno}", flush=True)
        else:
            self.passed += 1
            print(f"ok   {name} ({time.monotonic() - start:.2f} s)", flush=True)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


class Resolver:
    """DNS over UDP on a loopback port. `table` gives addresses by name; names that start with silent-
    get no answer, fail- SERVFAIL, slow- an answer after `delay`, alias- a chain to another name."""

    def __init__(self, table):
        self.table, self.delay, self.seen, self.ttl = table, 0.3, [], 60
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        self.sock.settimeout(0.2)
        while not self.stopping:
            try:
                data, peer = self.sock.recvfrom(4096)
                self.answer(dns.message.from_wire(data), peer)
            except (socket.timeout, dns.exception.DNSException):
                continue
            except OSError:
                return

    def answer(self, query, peer):
        q = query.question[0]
        name = q.name.to_text(omit_final_dot=True).lower()
        self.seen.append((name, dns.rdatatype.to_text(q.rdtype)))
        reply = dns.message.make_response(query, recursion_available=True)
        if name.startswith("silent-"):
            return
        if name.startswith("fail-"):
            reply.set_rcode(dns.rcode.SERVFAIL)
        else:
            owner = q.name
            if name.startswith("alias-"):
                where = {"alias-shut": "shut", "alias-never": "never"}.get(name.split(".")[0], "elsewhere")
                owner = dns.name.from_text(f"target.{where}.example")
                reply.answer.append(dns.rrset.from_text(q.name, self.ttl, "IN", "CNAME", str(owner)))
            found = [a for a in self.table.get(name, [])
                     if (":" in a) == (q.rdtype == dns.rdatatype.AAAA)]
            if found:
                reply.answer.append(dns.rrset.from_text_list(owner, self.ttl, "IN", q.rdtype, found))
            elif name not in self.table:
                reply.set_rcode(dns.rcode.NXDOMAIN)
        if name.startswith("slow-"):
            threading.Timer(self.delay, self.sock.sendto, (reply.to_wire(), peer)).start()
        else:
            self.sock.sendto(reply.to_wire(), peer)

    def close(self):
        self.stopping = True
        self.thread.join()
        self.sock.close()


class Rig:
    """Use as a context. `policies` maps a name to YAML; the first one is in force unless policy=None."""

    def __init__(self, policies, table=None, threads=2, policy="", files=None, args=(), tcp=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cx-spoa-"))
        self.socket = self.dir / "spoa.sock"
        self.audit = self.dir / "audit.jsonl"
        self.policy = self.dir / "policy.bin"
        self.log = self.dir / "log"
        self.process = self.tcp = None
        self.resolver = Resolver(table or {})
        try:
            self.compile(policies)
            if policy is not None:
                self.put(policy or next(iter(policies)))
            self.start(threads, files, args, tcp)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def compile(self, policies):
        for name, text in policies.items():
            source = self.dir / f"{name}.yaml"
            source.write_text(text, encoding="utf-8")
            done = subprocess.run([BUILD / "cx-policyc", source, "-o", self.dir / f"{name}.bin"],
                                  capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise AssertionError(f"policy {name}: {done.stderr}")

    def put(self, name):
        """Puts a compiled policy in place as a roll-out would."""
        temporary = self.dir / "policy.new"
        shutil.copy(self.dir / f"{name}.bin", temporary)
        os.replace(temporary, self.policy)

    def start(self, threads, files, args, tcp):
        argv = [str(BUILD / "cx-spoa"), "-p", str(self.policy), "-l", f"unix:{self.socket}",
                "-t", str(threads), "-r", str(self.dir), "-a", str(self.audit),
                "--resolver", f"127.0.0.1@{self.resolver.port}", *args]
        if tcp:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                self.tcp = s.getsockname()
            argv += ["-l", f"tcp:127.0.0.1:{self.tcp[1]}"]

        def limit():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=limit)
        wait_for("ready", lambda: "ready" in self.said() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise AssertionError(f"cx-spoa ended: {self.said()}")

    def said(self):
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def client(self, **more):
        return spop.Client(self.socket, **more)

    def events(self, **want):
        """Audit events whose fields have the values given."""
        if not self.audit.exists():
            return []
        with open(self.audit, encoding="utf-8") as f:
            rows = [json.loads(line) for line in f if line.endswith("\n")]
        return [r for r in rows if all(r.get(k) == v for k, v in want.items())]

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        """Ends the agent as systemd would; its exit status."""
        if self.alive():
            self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("cx-spoa did not end") from None

    def close(self):
        try:
            if self.process:
                status = self.stop()
                if status != 0:
                    raise AssertionError(f"cx-spoa ended with {status}: {self.said()[-2000:]}")
        finally:
            self.resolver.close()
            shutil.rmtree(self.dir, ignore_errors=True)


def raw_length(n):
    return struct.pack(">I", n)
