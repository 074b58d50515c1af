#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The containers of docker/, brought up as a user would, with real engine and real servers: what the guest's
log shows, who has which privileges, each service killed and started again, a policy that changes; the same
with cx-dns before Debian's Unbound; and a control through a plain router, where every attempt must leak.
Leaves no container, volume or network behind.

usage: run.py [PART]...      parts: module cx-dns control
environment: BASE_IMAGE, COMPOSE (docker-compose, or "docker compose")
"""

import json
import os

import re
import shlex
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from engine import ROOT, Engine # pylint: disable=wrong-import-position
from lab import Cases, Failure, GUESTS, UNLISTED, UNLISTED_ADDR, permitted, run, wait_for # pylint: disable=wrong-import-position

DOCKER = ROOT / "docker"
MAIN = DOCKER / "docker-compose.yml"
GW = GUESTS["guest"]["gw4"]
EVIL4, EVIL6 = UNLISTED_ADDR

# What must never come back to a guest, asked all at once; each answer is printed.
ESCAPES = f"""
cd "$(mktemp -d)"
page() {{ curl -s -k -m 4 --resolve "$1" "$2" | grep '"origin"' >"$3"; }}
port() {{ timeout 2 bash -c 'exec 3<>"/dev/$0/$1/$2" && echo hello >&3 && head -c 4 <&3' "$1" "$2" "$3" >"$4" 2>/dev/null; }}
page {UNLISTED}:443:{EVIL4} https://{UNLISTED}/ tls4 &
page {UNLISTED}:443:[{EVIL6}] https://{UNLISTED}/ tls6 &
page {UNLISTED}:80:{EVIL4} http://{UNLISTED}/ http &
dig +short +time=2 +tries=1 @8.8.8.8 {UNLISTED} | grep -v '^;' >dns &
port tcp {EVIL4} 22 raw &
port udp {EVIL4} 443 udp4 &
port udp {EVIL6} 1234 udp6 &
wait
for f in *; do [ ! -s "$f" ] || echo "$f: $(tr -d '\\n' <"$f")"; done
"""
ESCAPE_COUNT = 7


def compose_command():
    if os.environ.get("COMPOSE"):
        return shlex.split(os.environ["COMPOSE"])
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if permitted("docker", "compose", "version"):
        return ["docker", "compose"]
    raise Failure("no docker-compose and no `docker compose` (make compose-deps)")


class Stack:
    """One project of compose files, under a name of its own; a context manager that takes all of it down."""

    def __init__(self, name, *more):
        self.project = f"cx-{name}-{os.getpid()}"
        self.command = [*compose_command(), "-p", self.project]
        for path in (MAIN, *more):
            self.command += ["-f", str(path)]

    def compose(self, *words, check=True, timeout=180):
        return run([*self.command, *words], check=check, timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print(self.compose("logs", "--no-color", "--tail", "30", check=False).stdout[-8000:], file=sys.stderr)
        self.compose("down", "-v", "--remove-orphans", "-t", "2", check=False)

    def build(self):
        with open(ROOT / "build/compose-build.log", "ab") as log:
            done = subprocess.run([*self.command, "build"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  check=False, timeout=1800)
        if done.returncode:
            raise Failure("the images do not build; see build/compose-build.log")

    def up(self):
        """As `docker-compose up -d`; also what brings everything back after a failure."""
        self.compose("up", "-d", "--no-build", timeout=300)

    def inside(self, service, *argv, user=None, timeout=60):
        as_user = ["-u", user] if user else []
        return run(["docker", "exec", *as_user, self.number(service), *argv], check=False, timeout=timeout)

    def guest(self, script, timeout=60):
        return self.inside("guest", "bash", "-c", script, timeout=timeout).stdout

    def number(self, service):
        """The container's id, dead or alive."""
        labels = [f"label=com.docker.compose.{key}={value}" for key, value in
                  (("project", self.project), ("service", service), ("oneoff", "False"))]
        found = run(["docker", "ps", "-aq", *(word for label in labels for word in ("--filter", label))]).stdout.split()
        if len(found) != 1:
            raise Failure(f"{len(found)} containers of {service}")
        return found[0]

    def container(self, service):
        return json.loads(run(["docker", "inspect", self.number(service)]).stdout)[0]

    def arrivals(self):
        """What reached the Internet, oldest first."""
        lines = self.inside("internet", "cat", "/run/internet/arrivals").stdout.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def served(self, listed):
        return '"origin"' in self.guest(f"curl -s -m 5 --cacert /ca/ca.pem https://{listed}/")


def leaked(stack):
    """What came back to the guest, and what the Internet saw of it that it never should see."""
    back = stack.guest(ESCAPES).splitlines()
    guests = {GUESTS["guest"]["v4"], GUESTS["guest"]["v6"]}
    seen = [e for e in stack.arrivals() if e["addr"] in UNLISTED_ADDR or e["peer"] in guests]
    return back, seen


def listed_hosts(stack):
    return stack.inside("guest", "head", "-n", "2", "/etc/cx/listed").stdout.split()


# ---- what a user sees ----------------------------------------------------------------------------

def demo_log(stack, cases, name, expect):
    """Each line of the guest's own log is a case."""
    def table():
        text = stack.compose("logs", "--no-color", "guest").stdout
        return re.findall(r"\| (ok  |FAIL)  (\w+) +(.*)", text), re.search(r"\| (\d+) attempts, (\d+) not", text)

    wait_for("the guest's table", lambda: table()[1], 180)
    rows, last = table()
    for mark, result, text in rows:
        cases.check(f"{name}: {result}: {' '.join(text.split())}", mark == "ok  ")
    shown = {result for _, result, _ in rows}
    cases.check(f"{name}: the guest's log shows {' and '.join(sorted(expect))}, {len(rows)} lines",
                shown == expect and int(last[1]) == len(rows) and last[2] == "0", last[0])


def isolation(stack, cases, services):
    """The guest's one link, and no container on any network of the engine's."""
    links = stack.inside("guest", "ls", "/sys/class/net").stdout.split()
    cases.check("the guest has loopback and its cable, and no other link", sorted(links) == ["eth0", "lo"], links)
    for service in services:
        box = stack.container(service)
        networks = [n for n in box["NetworkSettings"]["Networks"] if n != "none"]
        cases.check(f"{service}: on no network of the engine", not networks, networks)


def privileges(stack, cases, expect):
    """The gateway's processes: none is root, none but the agent's proxy could become it."""
    script = 'for p in /proc/[0-9]*; do [ "$p" = /proc/$$ ] || echo $(cat $p/comm) $(sed -n ' \
             '"s/^Uid:.*\\t\\([0-9]*\\)$/\\1/p; s/^CapEff:\\t//p" $p/status); done'
    found = {}
    for line in stack.inside("gateway", "sh", "-c", script).stdout.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in expect:
            found[words[0]] = (words[1] != "0", int(words[2], 16) == 0)
    for program in expect:
        cases.check(f"{program}: not root, no capability", found.get(program) == (True, True), found)


# ---- what goes wrong -----------------------------------------------------------------------------

def answered(stack, listed):
    return "NOERROR" in stack.guest(f"dig +time=2 +tries=1 @{GW} {listed}")


def dead(stack, cases, service, broken):
    """While it is dead nothing leaks, and what needs it does not work. Started again, all is as before."""
    listed = listed_hosts(stack)[0]
    stack.compose("kill", "-s", "KILL", service)
    wait_for(f"{service} to be dead", lambda: not stack.container(service)["State"]["Running"])
    if service not in ("guest", "internet"):
        back, seen = leaked(stack)
        cases.check(f"{service} killed: nothing leaks", not back and not seen, (back, seen[:3]))
        works = answered(stack, listed) if broken == "dns" else stack.served(listed)
        cases.check(f"{service} killed: {broken} is refused", not works)
    stack.up()
    good = False
    try:
        good = wait_for("service", lambda: answered(stack, listed) and stack.served(listed), 60)
    except Failure:
        pass
    cases.check(f"{service} started again: served as before", good)
    back, seen = leaked(stack)
    cases.check(f"{service} started again: still nothing leaks", not back and not seen, (back, seen[:3]))


def crash(stack, cases, service, program):
    """A server that dies by itself comes back by itself: nobody runs compose."""
    listed = listed_hosts(stack)[0]
    before = stack.container(service)["RestartCount"]
    script = f'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" != {program} ] || stat -c "%u ${{p#/proc/}}" $p; done'
    for line in stack.inside("gateway", "sh", "-c", script).stdout.splitlines():
        user, number = line.split()
        stack.inside("gateway", "sh", "-c", f"kill -9 {number}", user=user) # as itself: root may not
    try:
        wait_for("the engine to notice", lambda: stack.container(service)["RestartCount"] > before, 30)
        wait_for("service", lambda: answered(stack, listed) and stack.served(listed), 60)
        cases.check(f"{service} crashed: back by itself, and serving", True)
    except Failure as e:
        cases.check(f"{service} crashed: back by itself, and serving", False, e)


def policy_changes(stack, cases):
    """The policy service run again, while everything runs."""
    listed = listed_hosts(stack)[0]
    stack.compose("run", "--rm", "-T", "policy", "sh", "-c",
                  "sed 's/presets:.*/presets: []/' /etc/cx/policy.yaml | cx-policyc /dev/stdin -o /var/lib/cx/policy.bin")
    wait_for("DNS to follow", lambda: "NXDOMAIN" in stack.guest(f"dig +time=2 +tries=1 @{GW} {listed}"), 20)
    wait_for("the agent to follow", lambda: not stack.served(listed), 20)
    cases.check("a policy without the name: refused by DNS and proxy, nothing restarted", True)
    stack.compose("run", "--rm", "-T", "policy")
    wait_for("both to follow", lambda: answered(stack, listed) and stack.served(listed), 20)
    cases.check("the policy of policy.yaml again: served", True)


def audit(stack, cases):
    text = stack.compose("logs", "--no-color", "audit").stdout
    events = [json.loads(found) for found in re.findall(r"\| (\{.*\})\s*$", text, re.M)]
    for component in sorted({e["component"] for e in events}):
        verdicts = {e["verdict"] for e in events if e["component"] == component}
        cases.check(f"the log of service audit has what {component} allowed and denied", {"allow", "deny"} <= verdicts)
    cases.check("the log of service audit is of DNS and proxy", len({e["component"] for e in events}) == 2)


# ---- parts ---------------------------------------------------------------------------------------

COMMON = ("gateway", "spoa", "haproxy", "unbound", "internet", "guest", "audit")


def part_module(cases):
    with Stack("module") as stack:
        stack.build()
        stack.up()
        demo_log(stack, cases, "module", {"allowed", "refused"})
        isolation(stack, cases, COMMON)
        privileges(stack, cases, ("cx-wire", "unbound", "cx-spoa", "haproxy"))
        audit(stack, cases)
        policy_changes(stack, cases)
        for service, broken in (("unbound", "dns"), ("spoa", "proxy"), ("haproxy", "proxy"), ("gateway", "proxy"),
                                ("internet", ""), ("guest", "")):
            dead(stack, cases, service, broken)
        for service, program in (("unbound", "unbound"), ("spoa", "cx-spoa"), ("haproxy", "haproxy")):
            crash(stack, cases, service, program)


def part_cx_dns(cases):
    with Stack("dns", DOCKER / "docker-compose.cx-dns.yml") as stack:
        stack.build()
        stack.up()
        demo_log(stack, cases, "cx-dns", {"allowed", "refused"})
        privileges(stack, cases, ("cx-dns", "unbound"))
        audit(stack, cases)
        policy_changes(stack, cases)
        for service in ("dns", "unbound"):
            dead(stack, cases, service, "dns")
        crash(stack, cases, "dns", "cx-dns")


def part_control(cases):
    """Without the gateway's rules: the same attempts get out, or the cases above would show nothing."""
    with Stack("control", ROOT / "tests/compose/control.yml") as stack:
        stack.build()
        stack.up()
        demo_log(stack, cases, "control", {"leaked"})
        back, seen = leaked(stack)
        cases.check(f"control: all {ESCAPE_COUNT} escapes come back", len(back) == ESCAPE_COUNT, back)
        cases.check("control: the Internet sees the guest itself", bool(seen))


PARTS = {"module": part_module, "cx-dns": part_cx_dns, "control": part_control}


def main(words):
    cases = Cases()
    (ROOT / "build").mkdir(exist_ok=True)
    with Engine(ROOT / "build/docker/data"):
        start = time.monotonic()
        os.environ["BASE_IMAGE"] = subprocess.run([DOCKER / "base-image"], check=True, stdout=subprocess.PIPE, text=True,
                                                  timeout=900).stdout.strip()
        os.environ["CX_TAG"] = "test"
        print(f"built upon {os.environ['BASE_IMAGE']}, {time.monotonic() - start:.0f} s", flush=True)
        for name, part in PARTS.items():
            if words and name not in words:
                continue
            start = time.monotonic()
            print(f"== {name}", flush=True)
            try:
                part(cases)
            except (Failure, subprocess.SubprocessError, OSError, ValueError) as e:
                cases.check(f"{name}", False, e)
            print(f"-- {name}: {time.monotonic() - start:.0f} s", flush=True)
    return cases.finish()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
