#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""cx-unbound as `make install-cx-unbound` lays it out: started as its unit starts it, with its own
configuration, without privileges, beside the distribution's Unbound on its usual port. Everything happens
in namespaces of the test's own, over which the installed files are laid; the machine sees none of it.
Prints a line per case and ends with "N passed, N failed".

usage: run.py            (environment: BUILD)
       run.py --inside DIR   (of itself, in the namespaces)
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unbound"))

from lab import (POLICYC, ROOT, Authority, Lab, Process, addresses, check, describe, ede, read,  # noqa: E402
                 wait_for, write)
import dns.message  # noqa: E402
import dns.query  # noqa: E402

NOBODY = "65534"
ZONES = {"listed.example": "$ORIGIN listed.example.\n@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\nns 60 A 127.0.0.1\n"
                           "www 60 A 198.51.100.7\n"}
POLICY = """version: 1
presets_version: "2026.11"
network: {presets: [], allowlist: [www.listed.example]}
sources: {172.16.0.0/16: default}
"""


def run(*argv, **more):
    return subprocess.run(argv, check=True, capture_output=True, text=True, **more).stdout


def unit(path):
    """{key: [values]} of a unit's lines."""
    out = {}
    for line in read(path).splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            out.setdefault(key, []).append(value)
    return out


# ---- inside ----

def lay_over(dest):
    """The installed files over the machine's, for these processes alone."""
    for where in ("/usr", "/etc"):
        run("mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s%s:%s" % (dest, where, where), where)
    for where in ("/run", "/var/log", "/var/lib"):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", where)
    for where, owner in (("/run/cx", 0), ("/run/cx/pins", int(NOBODY)), ("/run/cx/limits", 0),
                         ("/run/cx/limits/unbound", int(NOBODY)), ("/run/cx-unbound", int(NOBODY)),
                         ("/var/lib/cx", 0), ("/var/log/cx", int(NOBODY))):
        os.mkdir(where)
        os.chown(where, owner, owner)
    run("ip", "link", "set", "lo", "up")
    for address in ("172.16.0.1/16", "172.16.0.2/16", "172.16.0.3/16"):
        run("ip", "addr", "add", address, "dev", "lo")
    run("ip", "addr", "add", "fd00:16::1/128", "dev", "lo", "nodad")


def ask(where, name, client, port=53):
    return dns.query.udp(dns.message.make_query(name, "A", use_edns=0), where, port=port, source=client, timeout=6)


class Beside:
    """Both Unbounds."""

    def __init__(self, lab):
        self.lab = lab
        authority = Authority(lab, ZONES)
        stub = "server:\n  do-not-query-localhost: no\n  domain-insecure: \"example\"\nstub-zone:\n" \
               "  name: \"listed.example\"\n  stub-addr: 127.0.0.1@%d\n" % authority.port
        self.theirs = Process(lab, ["/usr/sbin/unbound", "-d", "-c", write(
            lab.path("theirs.conf"), "server:\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n"
            "  interface: 127.0.0.1\n  module-config: \"iterator\"\n" + stub)], lab.path("theirs.log"))
        write("/var/lib/cx/stub.conf", stub)
        source = write(lab.path("policy.yaml"), POLICY)
        run(POLICYC, source, "-o", "/var/lib/cx/policy.bin")
        self.unit = unit("/usr/lib/systemd/system/cx-unbound.service")
        self.ours = self.start()

    def start(self):
        """As the unit does it: environment, capabilities, no privileges."""
        env = dict(e.split("=", 1) for e in self.unit["Environment"])
        (ready,), (command,) = self.unit["ExecStartPre"], self.unit["ExecStart"]
        bare = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs", "--inh-caps",
                "-all,+net_bind_service", "--ambient-caps", "-all,+net_bind_service", "--bounding-set",
                "-all,+net_bind_service"]
        run(*bare, *shlex.split(ready))
        p = Process(self.lab, bare + shlex.split(command), self.lab.new("ours.log"), env=env)

        def up():
            check(p.alive(), "cx-unbound ended: " + read(p.log)[-2000:])
            return "start of service" in read(p.log)

        wait_for("cx-unbound", up)
        return p


def case_as_installed(b):
    """Its own binary, module, configuration and user."""
    exe = os.readlink("/proc/%d/exe" % b.ours.p.pid)
    check(exe == "/usr/lib/cx/unbound/unbound", exe)
    status = read("/proc/%d/status" % b.ours.p.pid)
    check(re.search(r"^Uid:\s+%s\s+%s" % (NOBODY, NOBODY), status, re.M), status)
    check(re.search(r"^CapEff:\s+0000000000000400$", status, re.M), "capabilities: " + status)
    log = read(b.ours.log)
    check("mode=veto" in log and "policy-loaded" in log and "refusing-all" not in log, log[-1500:])


def case_answers(b):
    for _ in range(2):
        r = ask("172.16.0.1", "www.listed.example", "172.16.0.2")
        check(addresses(r) == ["198.51.100.7"], describe(r))
        r = ask("172.16.0.1", "other.listed.example", "172.16.0.3")
        check(r.rcode() == 3 and ede(r) == (15, "not-listed"), describe(r))
    r = ask("127.0.0.1", "www.listed.example", "127.0.0.1", 5335)
    check(addresses(r) == ["198.51.100.7"], "the agent's listener: " + describe(r))
    wait_for("the audit log",
             lambda: "\"name\":\"other.listed.example\"" in read("/var/log/cx/audit-unbound.jsonl"))
    check(os.path.exists("/run/cx/pins/unbound") and os.listdir("/run/cx/limits/unbound"), "no pins or limits")


def case_beside(b):
    """The distribution's answers on its own address, without any policy, and neither minds the other's end."""
    def theirs():
        r = ask("127.0.0.1", "www.listed.example", "127.0.0.1")
        check(addresses(r) == ["198.51.100.7"] and ede(r) is None, describe(r))

    theirs()
    control = unit("/usr/lib/systemd/system/cx-unbound.service")["ExecReload"][0]
    run(*shlex.split(control))
    wait_for("the reload", lambda: read(b.ours.log).count("start of service") == 2)
    theirs()
    b.ours.stop()
    theirs()
    b.ours = b.start()
    case_answers(b)
    b.theirs.stop()
    case_answers(b)


def inside(dest):
    lay_over(dest)
    lab, failed, cases = Lab(), 0, [case_as_installed, case_answers, case_beside]
    try:
        b = Beside(lab)
        for case in cases:
            try:
                case(b)
                print("ok   " + case.__name__[5:].replace("_", " "), flush=True)
            except Exception as e:  # whatever goes wrong in a case is that case's failure
                failed += 1
                print("FAIL %s: %s: %s" % (case.__name__[5:].replace("_", " "), type(e).__name__, e), flush=True)
    finally:
        lab.close()
    return len(cases) - failed, failed


# ---- outside ----

def case_files(dest):
    """Nothing that the distribution's package has, and nothing but what is named here."""
    found = sorted(os.path.relpath(os.path.join(d, f), dest) for d, _, files in os.walk(dest) for f in files)
    theirs = set(run("dpkg", "-L", "unbound").split("\n"))
    check(not [f for f in found if "/" + f in theirs], "files of the distribution's package")
    check(all(re.match(r"usr/lib/cx/|etc/cx/unbound/|usr/lib/[\w.]+(/system)?/cx-unbound\.", f) for f in found), found)
    u = unit(os.path.join(dest, "usr/lib/systemd/system/cx-unbound.service"))
    for line in u["ExecStart"] + u["ExecStartPre"] + u["ExecReload"]:
        for word in shlex.split(line):
            check(not word.startswith("/") or word[1:] in found, "the unit names %s, which is not installed" % word)


def main():
    if sys.argv[1:2] == ["--inside"]:
        print("inside %d %d" % inside(sys.argv[2]))
        return 0
    dest, passed, failed = tempfile.mkdtemp(prefix="cx-unbound-dest-"), 0, 0
    os.chmod(dest, 0o755)
    try:
        subprocess.run(["make", "-s", "install-cx-unbound", "DESTDIR=" + dest, "PREFIX=/usr"], cwd=ROOT, check=True)
        try:
            case_files(dest)
            # what an operator may put there; it stands where the namespaces can be written
            os.symlink("/var/lib/cx/stub.conf", dest + "/etc/cx/unbound/conf.d/stub.conf")
            print("ok   files")
            passed += 1
        except Exception as e:  # as above
            failed += 1
            print("FAIL files: %s" % e)
        r = subprocess.run(["unshare", "-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
                            os.path.abspath(__file__), "--inside", dest], capture_output=True, text=True, check=False,
                           timeout=120)
        print(re.sub(r"^inside .*\n", "", r.stdout, flags=re.M), end="")
        m = re.search(r"^inside (\d+) (\d+)$", r.stdout, re.M)
        passed += int(m.group(1)) if m else 0
        failed += int(m.group(2)) if m else 1
        if not m:
            print("FAIL the namespaces: " + r.stderr[-2000:])
    finally:
        shutil.rmtree(dest, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
