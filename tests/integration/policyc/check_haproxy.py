#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`cxctl check-haproxy`: finds nothing in what is shipped, and each mistake when it is made there."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
CONF = ROOT / "conf/haproxy"
SHIPPED = (("gateway.cfg", "spoe.conf"), ("proxy.cfg", "spoe-proxy.conf"), ("corporate.cfg",),
           ("corporate.cfg", "gateway.cfg", "spoe.conf"))
ALLOW = "reject unless { var(txn.cx.verdict) -m str allow }"
# (code, file, what stands there, what somebody might have written)
MISTAKES = (
    ("deny-test", "gateway.cfg", ALLOW, "reject if { var(txn.cx.verdict) -m str deny }"),
    ("error-test", "gateway.cfg", ALLOW, "reject if { var(txn.cx.error) -m found }"),
    ("no-allow-test", "gateway.cfg", ALLOW, "accept"),
    ("sess-scope", "gateway.cfg", "reject unless { var(txn.cx.verdict)", "reject unless { var(sess.cx.verdict)"),
    ("no-inspect-delay", "gateway.cfg", "tcp-request inspect-delay", "# inspect-delay"),
    ("hdr-host", "spoe.conf", "req.fhdr(host)", "req.hdr(host)"),
    ("hdr-host", "gateway.cfg", "http-request set-var(txn.id) uuid()", "http-request set-var(txn.h) hdr(host)"),
    ("sni-alone", "gateway.cfg", "tcp-request inspect-delay 9s", "tcp-request content accept if { req.ssl_sni -m end .x }"),
    ("sni-alone", "spoe.conf", "hello=req.payload(0,0) ", ""),
    ("agent-mode", "gateway.cfg", "mode spop", "mode tcp"),
    ("no-set-dst", "gateway.cfg", "tcp-request content set-dst var(txn.cx.addr)", "# nothing"),
    ("http-reuse", "gateway.cfg", "http-reuse never", "http-reuse safe"),
    ("http-reuse", "proxy.cfg", "http-reuse never", "# nothing"),
    ("no-unset-var", "gateway.cfg", "unset-var(txn.cx.verdict)", "unset-var(txn.other)"),
    ("no-unset-var", "proxy.cfg", "unset-var(txn.cx.verdict) unless", "unset-var(txn.other) unless"),
    ("refuse-if-over", "gateway.cfg", "tcp-request inspect-delay 9s",
     "tcp-request inspect-delay 9s\n\ttcp-request connection reject if { sc0_conn_cur gt 256 }"),
)


def check(*files):
    done = subprocess.run([BUILD / "cxctl", "check-haproxy", *map(str, files)], capture_output=True, text=True,
                          check=False, timeout=20)
    return done.returncode, done.stdout + done.stderr


def main():
    passed = failed = 0

    def case(what, good, detail):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        print(f"ok   {what}" if good else f"FAIL {what}: {detail}")

    for names in SHIPPED:
        rc, out = check(*(CONF / n for n in names))
        case(f"{' and '.join(names)}: nothing found", rc == 0 and not out, out)
    with tempfile.TemporaryDirectory(prefix="cx-haproxy-") as work:
        for code, name, old, new in MISTAKES:
            names = next(s for s in SHIPPED if name in s)
            text = (CONF / name).read_text()
            changed = pathlib.Path(work) / name
            changed.write_text(text.replace(old, new))
            rc, out = check(*(changed if n == name else CONF / n for n in names))
            line = re.search(rf"^\S+:\d+:\d+: error: .* \[{code}\]$", out, re.M)
            case(f"{name} with {new.split(chr(10))[-1].strip()!r}: {code}", old in text and rc == 1 and line, out)
        rc, out = check(pathlib.Path(work) / "none.cfg")
        case("a file that is not there", rc == 3 and "none.cfg" in out, (rc, out))
        long = pathlib.Path(work) / "long.cfg"
        long.write_text("frontend x\n\t" + "a" * 9000 + "\n\thttp-request set-var(txn.h) req.hdr(host)\n")
        rc, out = check(long)
        case("a line that is too long is said to be", rc == 1 and f"{long}:2:1" in out and f"{long}:3:" in out, out)
    rc, out = check()
    case("no file is a usage error", rc == 2 and "usage" in out, (rc, out))
    rc, out = check("--help")
    case("--help", rc == 0 and "usage" in out, (rc, out))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
