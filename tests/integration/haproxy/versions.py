# SPDX-License-Identifier: Apache-2.0
"""The HAProxy releases that are tested: this machine's, and those of later Debian releases in roots of
their own. Runs one suite per release side by side. Never installs anything on this machine."""

import concurrent.futures
import os
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
SUITES = {"3.0": "trixie", "3.2": "testing"}
# Debian testing moves, and takes its time: 3.2 is for `make integration-haproxy-newest`.
ALL = tuple(os.environ.get("HAPROXY_VERSIONS", "2.6 3.0").split())


def binary_of(version):
    """How to run HAProxy of a Debian release on this machine."""
    if version not in SUITES:
        return ("haproxy",)
    made = subprocess.run([HERE / "debian-root", SUITES[version]], check=True, capture_output=True, text=True)
    root = made.stdout.strip()
    libs = ":".join(f"{root}{d}" for d in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"))
    return (f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", libs, f"{root}/usr/sbin/haproxy")


def side_by_side(cases, program, todo):
    """Two at a time: most of the time is spent in waiting for time-outs. Adds to `cases` what each counted."""
    for words in todo:
        for word in words:
            binary_of(word) # made once, before two need it
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        def one(words):
            return subprocess.run([program, *words], capture_output=True, text=True, check=False)
        for words, done in zip(todo, pool.map(one, todo)):
            *lines, last = done.stdout.splitlines() or [""]
            count = re.fullmatch(r"(\d+) passed, (\d+) failed", last)
            print("\n".join(["== HAProxy " + ", ".join(words), *lines]), flush=True)
            cases.passed += int(count[1]) if count else 0
            cases.failed += int(count[2]) if count else 0
            if not count or (done.returncode and count[2] == "0"):
                cases.check(" ".join(words), False, done.stdout[-2000:] + done.stderr[-2000:])
