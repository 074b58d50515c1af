# SPDX-License-Identifier: Apache-2.0
"""The container engine for the test: the one that answers already, or else one of our own, which has its data,
sockets and processes to itself, touches neither bridges nor packet filters of the machine, and ends with the
test. An engine that an operator runs is used through its socket and in no other way."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

from lab import Failure, permitted, wait_for # noqa: E402 pylint: disable=wrong-import-position


def answers():
    return permitted("docker", "info")


class Engine:
    """A context manager; inside it DOCKER_HOST leads to an engine that answers."""

    def __init__(self, data):
        self.data = pathlib.Path(data)
        self.place = self.process = None

    def __enter__(self):
        if answers():
            print("the engine that runs here is used", flush=True)
            return self
        if not shutil.which("dockerd"):
            raise Failure("no engine answers, and there is no dockerd to start one (make compose-deps)")
        # A socket's path must be short, wherever the checkout is.
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="cx-engine-"))
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        self.data.mkdir(parents=True, exist_ok=True)
        os.environ["DOCKER_HOST"] = f"unix://{self.place}/docker.sock"
        (self.place / "daemon.json").write_text("{}\n")
        with open(self.data.parent / "dockerd.log", "ab") as log:
            self.process = subprocess.Popen([
                "dockerd", "--config-file", self.place / "daemon.json", "--host", os.environ["DOCKER_HOST"],
                "--pidfile", self.place / "pid", "--data-root", self.data, "--exec-root", self.place / "exec",
                "--cgroup-parent", "/" + self.place.name, "--bridge", "none", "--iptables=false",
                "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false",
            ], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_for("our engine", lambda: self.process.poll() is not None or answers())
        if self.process.poll() is not None:
            raise Failure(f"dockerd did not start; see {self.data.parent}/dockerd.log")

    def close(self):
        """Ends ours, with what runs in it; another's is left as it is."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self.place:
            for name in (self.place / "exec/netns").glob("*"): # dockerd leaves the one it started with mounted
                permitted("umount", name)
            shutil.rmtree(self.place, ignore_errors=True)
            for pattern in (self.place.name, "*/" + self.place.name):
                for group in pathlib.Path("/sys/fs/cgroup").glob(pattern):
                    with contextlib.suppress(OSError):
                        group.rmdir()
            self.place = None
