# SPDX-License-Identifier: Apache-2.0
"""A gateway between guests and an Internet of our own, in network namespaces, for tests and the demo.

It sends nothing outside the namespaces that it makes, ends only what it started, and leaves nothing
behind, however the program that uses it ends.

    guest   10.200.0.2   fd00:200::2 --- cxtap0 --+
                                                  gateway --- 203.0.113.1 Internet: root DNS, origins,
    guest 2 10.200.1.2   fd00:201::2 --- cxtap1 --+                      public resolvers

Forwarding is on in the gateway and the Internet has routes back to the guests: what does not get
through was stopped by the policy and not by a missing route.
"""

import atexit
import contextlib
import ctypes
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
ROOT = pathlib.Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
BUILD = ROOT / "build"
HERE = pathlib.Path(__file__).resolve().parent
# For suites that must fail: another module, another agent, and less patience.
MODULE = pathlib.Path(os.environ.get("CX_LAB_MODULE", BUILD / "cx_unbound.so"))
AGENT = pathlib.Path(os.environ.get("CX_LAB_AGENT", BUILD / "cx-spoa"))
PATIENCE_S = float(os.environ.get("CX_LAB_PATIENCE", 45))

GUESTS = {
    "guest": {"link": "cxtap0", "v4": "10.200.0.2", "v6": "fd00:200::2",
              "gw4": "10.200.0.1", "gw6": "fd00:200::1"},
    "guest2": {"link": "cxtap1", "v4": "10.200.1.2", "v6": "fd00:201::2",
               "gw4": "10.200.1.1", "gw6": "fd00:201::1"},
}
ROOT_DNS = ("203.0.113.53", "2001:db8:53::53")
UNLISTED = "attacker.example"
UNLISTED_ADDR = ("198.51.100.66", "2001:db8:66::66")
PROBE_CANARY = ("198.51.100.77", "2001:db8:77::77") # where `cx-probe --serve` may stand
METADATA = ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
CANARIES = ("8.8.8.8", "1.1.1.1", "2001:4860:4860::8888")


class Failure(Exception):
    """The laboratory could not be set up, or something in it did not happen in time."""


class Cases:
    """Counts and prints the cases of a test; the last line is always `N passed, N failed`."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good, detail=""):
        if good:
            self.passed += 1
            print(f"ok   {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL {name}" + (f": {detail}" if detail != "" else ""), flush=True)
        return good

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


def wait_for(what, condition, timeout=PATIENCE_S):
    """The condition's first true value. A test waits for conditions, never for a time."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"gave up waiting for {what}")
        time.sleep(0.03)


def whole_lines(path):
    """What a file of JSON lines holds, but a last line that is being written just now."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def run(argv, check=True, timeout=60, **more):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=timeout, errors="replace", **more)
    if check and done.returncode:
        raise Failure(f"{' '.join(map(str, argv))}: exit {done.returncode}: {done.stderr.strip()}")
    return done


def permitted(*argv):
    try:
        return run(argv, check=False, timeout=10).returncode == 0
    except OSError:
        return False


def namespaces_permitted():
    return permitted("unshare", "-n", "sh", "-c", "ip link set lo up && nft list ruleset")


def preset_hosts(preset):
    """The hosts of a built-in preset, as the compiler names them."""
    out = run([BUILD / "cx-policyc", "--preset", preset]).stdout
    return sorted({word for line in out.splitlines() for word in preset_line(line)})


def preset_line(line):
    line = line.split("#")[0].strip()
    name = line.split()[0].rstrip(",:").strip("\"'- ") if line else ""
    if "." in name and "/" not in name:
        yield name.removeprefix("*.")


class Lab:
    """Use as a context manager. `hosts` are the names that exist in this Internet."""

    unbound_more = "" # further configuration of Unbound

    def __init__(self, hosts=(), capture="tproxy", guarded=True, keep=False, dns="unbound"):
        self.capture = capture
        self.dns = dns # who judges names: our Unbound with the module, or "cx-dns" before Debian's
        self.guarded = guarded # False: a plain router, the control that must leak
        self.keep = keep
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cx-lab-"))
        self.dir.chmod(0o755)
        (self.dir / "cx/pins").mkdir(parents=True) # /run/cx of the gateway
        self.tag = f"cx{os.getpid()}"
        self.names = []
        self.processes = []
        self.agent = self.resolver = self.haproxy = None
        # In a plain chroot files cannot be shown to one command alone; what needs that has another way.
        self.mounts = permitted("unshare", "-m", "true")
        self.addresses = {UNLISTED: UNLISTED_ADDR}
        for n, host in enumerate(sorted(set(hosts) - {UNLISTED})):
            self.addresses[host] = (f"198.51.100.{100 + n}", f"2001:db8:100::{n + 1:x}")
        if len(self.addresses) > 140:
            raise Failure("too many hosts for one laboratory")

    # ---- life ----

    def __enter__(self):
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self.interrupted)
        try:
            self.links()
            self.start_internet()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def interrupted(number, _):
        sys.exit(128 + number)

    def close(self):
        atexit.unregister(self.close)
        for process in reversed(self.processes):
            self.end(process)
        self.processes = []
        for name in self.names:
            run(["ip", "netns", "del", name], check=False)
        self.names = []
        if self.keep:
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def end(process):
        """Ends a process that we started, with its children (it leads a session of its own)."""
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None and number != signal.SIGKILL:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            if number == signal.SIGTERM:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(3)
        process.wait()

    @staticmethod
    def freeze(process):
        """Stops a process, and returns when each of its threads has stopped."""
        def states():
            tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
            return {(t / "stat").read_text().rpartition(")")[2].split()[0] for t in tasks}

        os.killpg(process.pid, signal.SIGSTOP)
        wait_for("the process to stop", lambda: states() == {"T"})

    # ---- namespaces ----

    def ns(self, place):
        return f"{self.tag}-{place}"

    def inside(self, place, argv, files=None):
        """argv as it runs in a namespace; files: {path: shown instead}, for that command alone."""
        enter = ["nsenter", f"--net=/run/netns/{self.ns(place)}", "--"]
        if files and self.mounts:
            script = " && ".join(f"mount -o bind,ro {new} {old}" for old, new in files.items())
            enter += ["unshare", "-m", "sh", "-c", script + ' && exec "$@"', "sh"]
        return enter + [str(a) for a in argv]

    def run(self, place, argv, check=True, timeout=60, **more):
        return run(self.inside(place, argv), check, timeout, **more)

    def ip(self, place, *words):
        self.run(place, ["ip", *words])

    def start(self, name, place, argv, files=None, env=None):
        """Starts a process that the laboratory ends; its output is in DIR/name.log."""
        with open(self.dir / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                self.inside(place, argv, files), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(env or {})})
        process.cx_name, process.cx_env = name, {**os.environ, **(env or {})}
        self.processes.append(process)
        return process

    def stop(self, process):
        self.end(process)
        self.processes.remove(process)

    def log(self, name):
        path = self.dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def links(self):
        for place in ("gateway", "internet", *GUESTS):
            run(["ip", "netns", "add", self.ns(place)])
            self.names.append(self.ns(place))
            for which in ("all", "default"):
                self.sysctl(place, f"ipv6/conf/{which}/accept_dad", 0)
            self.ip(place, "link", "set", "lo", "up")
        self.wan()
        if self.guarded:
            self.load_rules()
        for place, guest in GUESTS.items():
            self.guest_link(place, guest)
        (self.dir / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        for place, guest in GUESTS.items():
            (self.dir / f"resolv.{place}").write_text(f"nameserver {guest['gw4']}\n")

    def wan(self):
        self.ip("gateway", "link", "add", "wan0", "type", "veth", "peer", "name", "eth0",
                "netns", self.ns("internet"))
        self.sysctl("gateway", "ipv4/ip_forward", 1)
        self.sysctl("gateway", "ipv6/conf/all/forwarding", 1)
        for place, link, number in (("gateway", "wan0", 2), ("internet", "eth0", 1)):
            self.ip(place, "addr", "add", f"203.0.113.{number}/24", "dev", link)
            self.ip(place, "addr", "add", f"2001:db8:203::{number}/64", "dev", link, "nodad")
            self.ip(place, "link", "set", link, "up")
        self.ip("gateway", "route", "add", "default", "via", "203.0.113.1")
        self.ip("gateway", "-6", "route", "add", "default", "via", "2001:db8:203::1")
        every = [a for pair in self.addresses.values() for a in pair]
        for address in {*every, *ROOT_DNS, *CANARIES, *PROBE_CANARY, *METADATA}:
            self.ip("internet", "addr", "add", address, "dev", "lo", *(["nodad"] * (":" in address)))
        for guest in GUESTS.values():
            self.ip("internet", "route", "add", guest["v4"], "via", "203.0.113.2")
            self.ip("internet", "-6", "route", "add", guest["v6"], "via", "2001:db8:203::2")

    def guest_link(self, place, guest):
        link = guest["link"]
        self.ip("gateway", "link", "add", link, "type", "veth", "peer", "name", "eth0",
                "netns", self.ns(place))
        ours = (f"{guest['gw4']}/30", f"{guest['gw6']}/64")
        if self.guarded:
            self.run("gateway", [CONF / "nftables/cx-tap-up", link, *ours])
        else:
            self.ip("gateway", "addr", "add", ours[0], "dev", link)
            self.ip("gateway", "addr", "add", ours[1], "dev", link, "nodad")
            self.ip("gateway", "link", "set", link, "up")
        self.ip(place, "addr", "add", f"{guest['v4']}/30", "dev", "eth0")
        self.ip(place, "addr", "add", f"{guest['v6']}/64", "dev", "eth0", "nodad")
        self.ip(place, "link", "set", "eth0", "up")
        self.ip(place, "route", "add", "default", "via", guest["gw4"])
        self.ip(place, "-6", "route", "add", "default", "via", guest["gw6"])

    def sysctl(self, place, name, value):
        self.run(place, ["sh", "-c", f"echo {value} >/proc/sys/net/{name}"])

    # ---- the gateway's parts ----

    def load_rules(self):
        """The shipped file, and the second guest as an operator would add it."""
        self.run("gateway", ["nft", "-f", CONF / f"nftables/cx-{self.capture}.nft"])
        for place in list(GUESTS)[1:]:
            guest = GUESTS[place]
            for family in ("4", "6"):
                self.run("gateway", ["nft", "add", "element", "inet", "cx", f"cx_bound{family}",
                                     f"{{ \"{guest['link']}\" . {guest['v' + family]} }}"])

    def counters(self, place, table):
        out = json.loads(self.run(place, ["nft", "-j", "list", "counters", "table", "inet", table]).stdout)
        return {c["counter"]["name"]: c["counter"]["packets"] for c in out["nftables"] if "counter" in c}

    def haproxy_config(self):
        return CONF / "haproxy/gateway.cfg"

    def start_haproxy(self, binary=("haproxy",), config=None, env=None, name="haproxy"):
        """The shipped configuration, in a chroot that shows only the agent's directory."""
        jail = self.dir / "jail"
        (jail / "run/cx").mkdir(parents=True, exist_ok=True)
        admin = self.dir / f"{name}.admin"
        if not self.mounts:
            env = {"CX_CHROOT": str(self.dir), "CX_AGENT": "unix@/cx/spoa.sock", **(env or {})}
        variables = {"CX_CAPTURE": self.capture, "CX_SPOE": str(CONF / "haproxy/spoe.conf"),
                     "CX_CHROOT": str(jail), "CX_LOG": "stdout", "CX_USER": "nobody",
                     "CX_GROUP": "nogroup", "CX_ADMIN": str(admin)}
        process = self.start(name, "gateway",
                             [*binary, "-db", "-f", config or self.haproxy_config()],
                             files={jail / "run/cx": self.dir / "cx"}, env={**variables, **(env or {})})
        wait_for("HAProxy", lambda: admin.exists() or process.poll() is not None)
        if process.poll() is not None:
            raise Failure("HAProxy did not start: " + self.log(name))
        return process

    def compile_policy(self, text, name="policy"):
        """policy.yaml -> policy.bin, replaced as an operator would."""
        source = self.dir / f"{name}.yaml"
        source.write_text(text)
        return run([BUILD / "cx-policyc", source, "-o", self.dir / f"{name}.bin"])

    def start_unbound(self, resolver="127.0.0.1@5335"):
        """Our Unbound with the shipped cx.conf; only paths and addresses are the laboratory's."""
        cx = (CONF / "unbound/cx.conf").read_text()
        cx = cx.replace("/usr/lib/cx/cx_unbound.so", str(MODULE))
        (self.dir / "cx.conf").write_text(cx)
        process = self.unbound(BUILD / "unbound/sbin/unbound", "unbound", self.dns_addresses() + [resolver],
                               f'include: "{self.dir}/cx.conf"')
        self.wait_dns(process, "unbound", resolver)
        return process

    def unbound(self, program, name, addresses, first=""):
        listen = "".join(f"    interface: {a}\n" for a in addresses)
        (self.dir / f"{name}.conf").write_text(f"""{first}
server:
    username: ""
    chroot: ""
    directory: "{self.dir}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    num-threads: 2
    root-hints: "{self.dir}/root.hints"
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
{listen}remote-control:
    control-enable: no
{self.unbound_more}""")
        return self.start(
            name, "gateway", [program, "-d", "-c", self.dir / f"{name}.conf"],
            env={"CX_POLICY": str(self.dir / "policy.bin"), "CX_AUDIT": str(self.dir / "audit.dns"),
                 "CX_RUNTIME_DIR": str(self.dir / "cx")})

    def start_cx_dns(self, resolver="127.0.0.1@5335", behind="127.0.0.1@5336"):
        """cx-dns before Debian's own Unbound, which has nothing of ours."""
        self.stock = self.unbound("/usr/sbin/unbound", "stock", [behind], 'server:\n    module-config: "iterator"')
        self.wait_dns(self.stock, "stock", behind)
        listen = [f"[{a}]:53" if ":" in a else f"{a}:53" for a in self.dns_addresses()] + [resolver.replace("@", ":")]
        process = self.start("cx-dns", "gateway", [
            BUILD / "cx-dns", "-p", self.dir / "policy.bin", "-r", self.dir / "cx", "-a", self.dir / "audit.dns",
            "--upstream", behind, *(word for a in listen for word in ("-l", a))])
        self.wait_dns(process, "cx-dns", resolver)
        return process

    def wait_dns(self, process, name, address):
        ask = ["dig", "+time=1", "+tries=1", "@" + address.split("@")[0], "-p", address.split("@")[1], ".", "NS"]
        wait_for(name, lambda: process.poll() is not None or
                 "status:" in self.run("gateway", ask, check=False).stdout)
        if process.poll() is not None:
            raise Failure(f"{name} did not start: " + self.log(name))

    @staticmethod
    def dns_addresses():
        return [g[k] for g in GUESTS.values() for k in ("gw4", "gw6")]

    def start_agent(self, resolver="127.0.0.1@5335"):
        """cx-spoa as a user that owns nothing, on the socket that HAProxy sees in its chroot."""
        audit = self.dir / "audit.proxy"
        audit.touch()
        shutil.chown(audit, "nobody", "nogroup")
        for its in (self.dir / "cx/streams", self.dir / "cx/limits/spoa"):
            its.mkdir(parents=True, exist_ok=True)
            shutil.chown(its, "nobody", "nogroup")
        sock = self.dir / "cx/spoa.sock"
        process = self.start("agent", "gateway", [
            AGENT, "-p", self.dir / "policy.bin", "-l", f"unix:{sock}", "-r", self.dir / "cx",
            "-a", audit, "--resolver", resolver, "-u", "nobody"])
        wait_for("the agent", lambda: sock.exists() or process.poll() is not None)
        if process.poll() is not None:
            raise Failure("cx-spoa did not start: " + self.log("agent"))
        return process

    def start_gateway(self, policy):
        """Everything, on one compiled policy."""
        self.compile_policy(policy)
        self.resolver = self.start_unbound() if self.dns == "unbound" else self.start_cx_dns()
        self.agent = self.start_agent()
        self.haproxy = self.start_haproxy(config=self.haproxy_config())
        wait_for("HAProxy to see the agent", lambda: self.agent_state().startswith("UP"))

    def audit(self, which):
        """Audit events so far; which: dns or proxy."""
        return whole_lines(self.dir / f"audit.{which}")

    def agent_state(self, name="haproxy"):
        """How HAProxy sees its agent: UP, DOWN ..."""
        try:
            table = self.admin("show stat", name)
        except OSError: # it has made the socket and does not listen yet
            return ""
        for line in table.splitlines():
            cells = line.split(",")
            if cells[:2] == ["cx-agent", "spoa"]:
                return cells[17]
        return ""

    def admin(self, command, name="haproxy"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.dir / f"{name}.admin"))
            sock.sendall(command.encode() + b"\n")
            out = b""
            while data := sock.recv(65536):
                out += data
        return out.decode()

    # ---- the Internet ----

    def start_internet(self):
        self.certificates()
        self.start_root_dns()
        self.start_origins()
        guests = [ipaddress.ip_address(g[k]) for g in GUESTS.values() for k in ("v4", "v6")]
        v4 = ", ".join(str(a) for a in guests if a.version == 4)
        v6 = ", ".join(str(a) for a in guests if a.version == 6)
        rules = f"""table inet canary {{
            counter guest4 {{ }}
            counter guest6 {{ }}
            counter resolver {{ }}
            counter unlisted {{ }}
            chain arrivals {{
                type filter hook prerouting priority raw; policy accept;
                iifname "eth0" ip saddr {{ {v4} }} counter name guest4
                iifname "eth0" ip6 saddr {{ {v6} }} counter name guest6
                iifname "eth0" ip daddr {{ 8.8.8.8, 1.1.1.1 }} counter name resolver
                iifname "eth0" ip6 daddr 2001:4860:4860::8888 counter name resolver
                iifname "eth0" ip daddr {UNLISTED_ADDR[0]} counter name unlisted
                iifname "eth0" ip6 daddr {UNLISTED_ADDR[1]} counter name unlisted
            }}
        }}
        """
        (self.dir / "canary.nft").write_text(rules)
        self.run("internet", ["nft", "-f", self.dir / "canary.nft"])

    def start_origins(self, *address):
        process = self.start("internet", "internet", [
            HERE / "internet.py", self.dir / "origin.pem", self.dir / "origin.key",
            self.dir / "arrivals", *address])
        wait_for("the origins", lambda: "ready" in self.log("internet") or process.poll() is not None)
        if process.poll() is not None:
            raise Failure("the origins did not start: " + self.log("internet"))

    def arrivals(self, kind=None):
        """What reached the Internet, oldest first."""
        return [e for e in whole_lines(self.dir / "arrivals") if kind in (None, e["kind"])]

    def certificates(self):
        at = self.dir
        (at / "san.cnf").write_text("subjectAltName=" + ",".join(f"DNS:{h}" for h in self.addresses))
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run([*new, "-x509", "-days", "2", "-subj", "/CN=cx laboratory", "-keyout", at / "ca.key",
             "-out", at / "ca.pem"])
        run([*new, "-subj", "/CN=origin", "-keyout", at / "origin.key", "-out", at / "origin.csr"])
        run(["openssl", "x509", "-req", "-in", at / "origin.csr", "-CA", at / "ca.pem", "-CAkey",
             at / "ca.key", "-set_serial", "1", "-days", "2", "-extfile", at / "san.cnf", "-out",
             at / "origin.pem"])

    def start_root_dns(self, listen=ROOT_DNS, port=53):
        """One zone, the root, with every name in it: the resolver needs nothing else."""
        at = self.dir / "nsd"
        at.mkdir()
        lines = ["$ORIGIN .", "$TTL 300", ". SOA a.root. hostmaster.root. 1 3600 600 86400 60",
                 ". NS a.root.", f"a.root. A {ROOT_DNS[0]}", f"a.root. AAAA {ROOT_DNS[1]}"]
        for host, (v4, v6) in self.addresses.items():
            lines += [f"{host}. A {v4}", f"{host}. AAAA {v6}"]
        (at / "root.zone").write_text("\n".join(lines) + "\n")
        (self.dir / "root.hints").write_text(
            f". 3600 NS a.root.\na.root. 3600 A {ROOT_DNS[0]}\na.root. 3600 AAAA {ROOT_DNS[1]}\n")
        (at / "nsd.conf").write_text(f"""server:
{"".join(f"    ip-address: {a}@{port}{chr(10)}" for a in listen)}    username: ""
    chroot: ""
    zonesdir: "{at}"
    pidfile: ""
    xfrdfile: "{at}/xfrd"
    zonelistfile: "{at}/zones"
    xfrdir: "{at}"
    database: ""
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "root.zone"
""")
        self.start("nsd", "internet", ["nsd", "-d", "-c", at / "nsd.conf"])
        for server in listen:
            ask = ["dig", "+short", "+time=1", "+tries=1", "-p", port, f"@{server}", UNLISTED]
            wait_for(f"the root DNS at {server}",
                     lambda ask=ask: UNLISTED_ADDR[0] in self.run("gateway", ask, check=False).stdout)

    # ---- a guest's programs ----

    def socket(self, place="guest", family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        """A socket that lives in a namespace, for this process to use."""
        made = []

        def make():
            # The namespace is the thread's own; the socket keeps it.
            with open(f"/run/netns/{self.ns(place)}", "rb") as ns:
                if LIBC.setns(ns.fileno(), CLONE_NEWNET):
                    return
            made.append(socket.socket(family, kind, protocol))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise Failure(f"cannot enter the namespace of {place}")
        return made[0]

    def connect(self, address, port, place="guest", timeout=15):
        """A TCP connection of a guest. On the gateway it always succeeds: look for data."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self.socket(place, family)
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((address, port))
        return sock

    def guest(self, argv, place="guest", timeout=30):
        """A command of a guest, with the guest's resolver."""
        files = {"/etc/resolv.conf": self.dir / f"resolv.{place}", "/etc/hosts": self.dir / "hosts"}
        return run(self.inside(place, argv, files), check=False, timeout=timeout)

    def resolved(self, words, place):
        """As --resolve: what the guest's resolver says of the URL's host; None: there is no such host."""
        url = urllib.parse.urlsplit(words[-1])
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(url.hostname)
            return ()
        kind = "AAAA" if "-6" in words else "A"
        server = GUESTS[place]["gw4"]
        found = self.guest(["dig", "+short", "+time=2", f"@{server}", url.hostname, kind], place).stdout.split()
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        if not found:
            return None
        return "--resolve", f"{url.hostname}:{port}:" + (f"[{found[0]}]" if kind == "AAAA" else found[0])

    def curl(self, *words, place="guest"):
        """(exit code, HTTP status, body) of curl, which trusts the laboratory's CA."""
        mark = "\n@status "
        if not self.mounts and "--resolve" not in words:
            found = self.resolved(words, place)
            if found is None:
                return 6, 0, ""
            words = (*found, *words)
        done = self.guest(["env", "-i", f"PATH={os.environ['PATH']}", "curl", "-sS", "-m", "15",
                           "--cacert", self.dir / "ca.pem", "-w", mark + "%{http_code}", *words], place)
        body, _, status = done.stdout.rpartition(mark)
        return done.returncode, int(status or 0), body


class LoopLab(Lab):
    """
    Where namespaces are not permitted: the same servers on loopback addresses. There is no nftables
    and no original destination; HAProxy connects every allowed client to one origin. It shows the
    verdicts, not the isolation.
    """

    GATEWAY, DNS_PORT, ROOT, ORIGIN, GUEST = "127.0.77.1", 5300, "127.0.77.53", "127.0.77.9", "127.0.77.2"
    unbound_more = f"""server:
    do-not-query-localhost: no
forward-zone:
    name: "."
    forward-addr: {ROOT}@5301
"""

    def __init__(self, hosts=(), **more):
        super().__init__(hosts, **more)
        self.mounts = False

    def links(self):
        pass

    def load_rules(self):
        pass

    def inside(self, place, argv, files=None):
        return [str(a) for a in argv]

    def start_internet(self):
        self.certificates()
        self.start_root_dns([self.ROOT], 5301)
        self.start_origins(self.ORIGIN)

    @classmethod
    def dns_addresses(cls):
        return [f"{cls.GATEWAY}@{cls.DNS_PORT}"]

    def haproxy_config(self):
        """The shipped file with the places changed: where it listens, and the one origin."""
        text = (CONF / "haproxy/gateway.cfg").read_text()
        for place, port in (("8443", "443"), ("8080", "80"), ("8444", "22")):
            text = text.replace(f"bind 127.0.0.1:{place} transparent", f"bind {self.GATEWAY}:{port}")
        text = "\n".join(line for line in text.splitlines() if "bind [::1]" not in line)
        out, http = text.rsplit("0.0.0.0:0", 1)
        out = out.replace("any 0.0.0.0:0", f"any {self.ORIGIN}:443")
        path = self.dir / "gateway.cfg"
        path.write_text(f"{out}{self.ORIGIN}:80{http}\n")
        return path

    def guest(self, argv, place="guest", timeout=30):
        return run(argv, check=False, timeout=timeout)
