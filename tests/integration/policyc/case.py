# SPDX-License-Identifier: Apache-2.0
"""What the tests of cx-policyc's further actions share: the program, a directory, a tally of cases."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
POLICYC = BUILD / "cx-policyc"
sys.path.insert(0, str(ROOT / "tests/integration/spoa"))

from rig import Cases, wait_for  # noqa: E402,F401

sys.path.insert(0, str(ROOT / "tests/integration/unbound"))  # whose lab.py is meant by `import lab`

NOW = "2026-11-21"


def policyc(*args, rc=0, cwd=None, text=True):
    """Runs cx-policyc; (standard output, standard error)."""
    done = subprocess.run([POLICYC, *map(str, args)], capture_output=True, text=text, timeout=300,
                          check=False, cwd=cwd, stdin=subprocess.DEVNULL,
                          env={**os.environ, "SOURCE_DATE_EPOCH": "1795219200"})
    if done.returncode != rc:
        raise AssertionError(f"cx-policyc {' '.join(map(str, args))}: {done.returncode}, not {rc}: "
                             f"{str(done.stdout)[-1500:]} {str(done.stderr)[-1500:]}")
    return done.stdout, done.stderr


class Place:
    """A directory of files; use as a context."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cx-policyc-"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir, ignore_errors=True)

    def write(self, name, text):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(text, encoding="utf-8")
        return path

    def compile(self, text, *args, name="policy"):
        """YAML to a compiled policy; its path."""
        source = self.write(f"{name}.yaml", text)
        out = self.dir / f"{name}.bin"
        policyc(source, "-o", out, *args)
        return out

    def key(self, name):
        """An Ed25519 key pair: paths of the private and the public half."""
        private, public = self.dir / f"{name}.pem", self.dir / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True,
                       capture_output=True, timeout=60)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True,
                       capture_output=True, timeout=60)
        os.chmod(public, 0o644)
        return private, public


def has(text, *wanted):
    for w in wanted:
        if not re.search(w, text, re.MULTILINE):
            raise AssertionError(f"no /{w}/ in:\n{text[:4000]}")


def has_not(text, *unwanted):
    for w in unwanted:
        if re.search(w, text, re.MULTILINE):
            raise AssertionError(f"/{w}/ in:\n{text[:4000]}")


def meaning(path):
    """The meaning digest of a compiled policy."""
    return pathlib.Path(path).read_bytes()[80:112].hex()
