#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bindings for an orchestrator that keeps many microVMs: one `cxctl bind --batch` for all of them.

    with Bindings() as cx:
        with cx.task("job-17", "10.9.0.7", "cxtap7", "payments-ci", add=["x.staging.example.com"]):
            ...   # start the microVM, wait for its end

A task's address may be given away when the `with` block has ended without an exception. If it ended
with AddressNotFree, it must not: unbind again later. Thread-safe.
"""

import contextlib
import json
import subprocess
import threading


class Refused(Exception):
    """The order failed; `code` is cxctl's exit status: 1 policy, 2 usage, 3 system, 4 taken."""

    def __init__(self, answer):
        super().__init__(answer.get("error", "no answer"))
        self.code = answer.get("code", 3)


class AddressNotFree(Refused):
    """Something of the task may still be there: the address must not be given to another one."""


class Bindings:
    def __init__(self, command=("cxctl", "bind", "--batch")):
        self.command = list(command)
        self.lock = threading.Lock()
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with self.lock:
            if self.process:
                self.process.stdin.close()
                self.process.wait()
                self.process = None

    def order(self, **order):
        """One order, one answer. A batch that died is started again; orders may be repeated safely."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                self.process.stdin.write(json.dumps(order) + "\n")
                self.process.stdin.flush()
                line = self.process.stdout.readline()
            except BrokenPipeError:
                line = ""
        answer = json.loads(line) if line else {"ok": False, "code": 3, "error": "cxctl ended"}
        if not answer["ok"]:
            raise Refused(answer)
        return answer

    def bind(self, task, address, link, profile, **more):
        """Returns the generation. more: ttl="10m", add=[...], only=[...]"""
        return self.order(op="bind", task=task, address=address, profile=profile, **{"if": link}, **more)["generation"]

    def rebind(self, task, cut=False, **more):
        """Another profile, other entries or another time for a living task; cut: end what it has open."""
        return self.order(op="rebind", task=task, cut=cut, **more)["generation"]

    def unbind(self, task, wait="5s"):
        try:
            return self.order(op="unbind", task=task, wait=wait)
        except Refused as e:
            raise AddressNotFree({"code": e.code, "error": str(e)}) from e

    @contextlib.contextmanager
    def task(self, task, address, link, profile, **more):
        # an order whose answer was lost may have been carried out: unbind in any case
        try:
            yield self.bind(task, address, link, profile, **more)
        finally:
            self.unbind(task)
