#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Signed policies: what the compiler signs and verifies, and what the agent and the module in Unbound
do with policies that they should not take. BUILD names the build directory."""

import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True

from case import BUILD, Cases, Place, has, has_not, policyc, wait_for

import lab as unbound_lab
import spop
from rig import Rig, hello

POLICY = """
version: 1
revision: "%(revision)s"
%(serial)s
%(audience)s
network: {presets: [], allowlist: [%(name)s]}
sources: {10.0.0.0/8: default, 127.0.0.0/8: default}
resolver_clients: []
unlisted_sources: deny
"""


def policy(revision, name, serial=None, audience=None):
    return POLICY % {"revision": revision, "name": name,
                     "serial": f"serial: {serial}" if serial is not None else "",
                     "audience": f"audience: [{audience}]" if audience else ""}


def signs_and_verifies():
    """a policy is signed and verified, and names what was signed"""
    with Place() as p:
        private, public = p.key("ours")
        signed = p.compile(policy("r1", "a.example", 7, "gateways-eu, gateways-us"), "--sign", private)
        out, _ = policyc("--verify", public, signed)
        has(out, r'serial 7, revision "r1", audience gateways-eu gateways-us, digest [0-9a-f]{64}$')
        plain = p.compile(policy("r1", "a.example", 7), name="plain")
        _, err = policyc("--verify", public, plain, rc=1)
        has(err, "the policy is not signed")
        _, other = p.key("theirs")
        _, err = policyc("--verify", other, signed, rc=1)
        has(err, "the signature does not verify")


def same_bytes():
    """the same policy and key give the same bytes, and the signature changes nothing before it"""
    with Place() as p:
        private, _ = p.key("ours")
        text = policy("r1", "a.example", 7)
        first = p.compile(text, "--sign", private, name="policy").read_bytes()
        again = p.compile(text, "--sign", private, name="policy").read_bytes()
        bare = p.compile(text, name="policy").read_bytes()
        assert first == again
        assert first[:-72] == bare and first[-72:-64] == b"CXSIGN01"


def refuses_to_sign():
    """no serial, no key, another kind of key, a key with a passphrase: nothing is written"""
    with Place() as p:
        private, public = p.key("ours")
        out = p.dir / "out.bin"
        out.write_bytes(b"before")
        good = p.write("good.yaml", policy("r1", "a.example", 7))
        without = p.write("without.yaml", policy("r1", "a.example"))
        _, err = policyc(without, "-o", out, "--sign", private, rc=1)
        has(err, "needs `serial`")
        rsa, secret = p.dir / "rsa.pem", p.dir / "secret.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", rsa], check=True,
                       capture_output=True, timeout=60)
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-aes128", "-pass", "pass:x",
                        "-out", secret], check=True, capture_output=True, timeout=60)
        for key in (rsa, secret, public, p.dir / "none.pem", p.write("empty.pem", "")):
            _, err = policyc(good, "-o", out, "--sign", key, rc=3)
            has(err, "not an Ed25519 private key|No such file")
        assert out.read_bytes() == b"before"
        policyc(good, "--sign", "", rc=2)
        policyc("--verify", public, rc=2)


def refuses_to_verify():
    """every flipped octet of a signed policy is found, and what hangs behind the signature"""
    with Place() as p:
        private, public = p.key("ours")
        signed = p.compile(policy("r1", "a.example", 7), "--sign", private)
        good = signed.read_bytes()
        places = [0, 9, 17, 25, 33, 81, 113, 145, len(good) // 2, len(good) - 73, len(good) - 72,
                  len(good) - 64, len(good) - 1]
        for at in places:
            bad = p.write("bad.bin", good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
            policyc("--verify", public, bad, rc=1)
        for bad in (good[:-1], good[:-72], good + b"\0", good + good[-72:], b""):
            policyc("--verify", public, p.write("bad.bin", bad), rc=1)


class Agent(Rig):
    """A Rig whose policies are compiled here."""

    def compile(self, policies):
        pass

    def put(self, name):
        temporary = self.dir / "policy.new"
        shutil.copy(name, temporary)
        os.replace(temporary, self.policy)

    def allows(self, name):
        args = {"src": spop.address("10.0.0.7"), "dst": spop.address("203.0.113.5"), "dport": 443,
                "sni": name, "id": "s-1", "hello": hello.plain(hello.server_name(name))}
        with self.client() as c:
            return c.ask("cx-tls", args).get("verdict") == "allow"


def roll_out(place, put, allows, said, restart):
    """What both plugins owe: `put` replaces the policy, `allows(name)` asks, `said()` is the log."""
    private, public = place.key("ours")
    stranger, _ = place.key("theirs")

    def make(revision, name, serial, key=private, audience="gateways-eu"):
        args = ["--sign", key] if key else []
        return place.compile(policy(revision, name, serial, audience), *args, name=revision)

    first = make("first", "a.example", 10)
    bad = {
        "unsigned": (make("unsigned", "b.example", 11, key=None), "the policy is not signed"),
        "stranger": (make("stranger", "b.example", 11, key=stranger), "the signature does not verify"),
        "older": (make("older", "b.example", 9), "the serial is too low"),
        "elsewhere": (make("elsewhere", "b.example", 11, audience="gateways-us"),
                      "the policy is for other hosts"),
    }
    next_one = make("next", "c.example", 11, audience="gateways-us, gateways-eu")
    everywhere = make("everywhere", "d.example", 11, audience=None)
    restart(public, first)
    assert allows("a.example"), said()
    for what, (path, why) in bad.items():
        before = said().count(why)
        put(path)
        wait_for(f"refusal of the {what} policy", lambda w=why, n=before: said().count(w) > n)
        assert allows("a.example") and not allows("b.example"), what
    put(next_one)
    wait_for("the next policy", lambda: allows("c.example"))
    assert not allows("a.example")
    put(first)
    wait_for("refusal of the former policy", lambda: said().count("the serial is too low") > 1)
    assert allows("c.example")
    put(everywhere)
    wait_for("the policy for every host, of the same serial", lambda: allows("d.example"))


def agent():
    """the agent keeps its policy when offered unsigned, wrongly signed, older or foreign ones"""
    with Place() as place:
        running = []

        def restart(public, first):
            running.append(Agent({}, {n: ["198.51.100.1"] for n in
                                      ("a.example", "b.example", "c.example", "d.example")},
                                 policy=first,
                                 args=("-K", str(public), "--audience", "gateways-eu,edge")))

        try:
            roll_out(place, lambda x: running[0].put(x), lambda n: running[0].allows(n),
                     lambda: running[0].said(), restart)
        finally:
            for r in running:
                r.close()


def agent_at_start():
    """an agent that starts beside a policy it must refuse has no policy"""
    with Place() as place:
        private, public = place.key("ours")
        plain = place.compile(policy("r1", "a.example", 7), name="plain")
        foreign = place.compile(policy("r1", "a.example", 7, "gateways-us"), "--sign", private)
        ours = place.compile(policy("r1", "a.example", 7), "--sign", private, name="ours")
        for path, serial, taken in ((plain, 0, False), (foreign, 0, False), (ours, 8, False), (ours, 7, True)):
            with Agent({}, {"a.example": ["198.51.100.1"]}, policy=path,
                       args=("-K", str(public), "--audience", "gateways-eu", "--min-serial", str(serial))) as a:
                assert ("policy-refused" in a.said()) != taken, a.said()
                assert a.allows("a.example") == taken


def module():
    """the module in Unbound keeps its policy in the same cases"""
    lab = unbound_lab.Lab()
    try:
        with Place() as place:
            os.chmod(place.dir, 0o755)
            zone = "$ORIGIN example.\n@ 300 SOA ns host 1 3600 600 86400 5\n@ 300 NS ns\n" \
                   "ns 300 A 127.0.0.1\n"
            zone += "".join(f"{n} 300 A 198.51.100.1\n" for n in "abcd")
            authority = unbound_lab.Authority(lab, {"example": zone})
            inforce = lab.path("policy.bin")
            running = []

            def restart(public, first):
                lab.replace(inforce, first)
                running.append(unbound_lab.Unbound(
                    lab, "unbound", str(BUILD / "cx_unbound.so"), policy=inforce,
                    stubs={"example": authority.port},
                    env={"CX_PUBKEY": str(public), "CX_AUDIENCE": "gateways-eu"}))

            roll_out(place, lambda x: lab.replace(inforce, x),
                     lambda n: running[0].ask(n).rcode() == 0,
                     lambda: unbound_lab.read(running[0].log), restart)
            has(unbound_lab.read(running[0].log), "policy-refused.*in_force=")
            running[0].stop()
    finally:
        lab.close()


def without_a_key():
    """without a key a lower serial is taken: nobody vouches for the order"""
    with Place() as place:
        high = place.compile(policy("high", "a.example", 9), name="high")
        low = place.compile(policy("low", "b.example", 8), name="low")
        with Agent({}, {"a.example": ["198.51.100.1"], "b.example": ["198.51.100.1"]},
                   policy=high) as a:
            assert a.allows("a.example")
            a.put(low)
            wait_for("the other policy", lambda: a.allows("b.example"))
            has_not(a.said(), "policy-refused")


if __name__ == "__main__":
    cases = Cases()
    for case in (signs_and_verifies, same_bytes, refuses_to_sign, refuses_to_verify, agent,
                 agent_at_start, without_a_key, module):
        cases.run(case)
    sys.exit(cases.finish())
