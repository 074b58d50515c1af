#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Golden tests of the compiler: what cx-policyc says about a policy, word for word.

NNN-what.yaml   the policy. A first line `# golden: ARGS` adds arguments; HOST(preset,n) stands for the
                n-th host of a preset.
NNN-what.d/     files that stand beside it (lists, includes), symbolic links kept
NNN-what.err    expected where it does not compile: `# exit N`, then the diagnostics
NNN-what.ok     expected where it does: the warnings as comments, then --dump of the result, which must
                compile to the same dump again

Policies that cannot be stored (too large, not text, not regular files) are made by GENERATED below.
Each run has bounded memory, time and output; whatever fails must leave an older policy.bin, and the
directory, as they were. --update writes what came as what is expected: read the difference.

Each diagnostic code of the compiler must be shown by a pair.
"""

import argparse
import pathlib
import re
import resource
import shlex
import shutil
import os
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OLD = b"an older policy\n"
MEMORY = 768 << 20  # octets of address space
TIME_S = 20
# What no input brings about: the machine must fail.
NOT_SHOWN = {"memory", "system"}

# ---- policies that are made -----------------------------------------------------------------------

START = "version: 1\nsources: {10.0.0.0/8: default}\nnetwork:\n  presets: []\n"


def text(data):
    def make(here):
        (here / "policy.yaml").write_bytes(data if isinstance(data, bytes) else data.encode())
    return make


def oversize(here):
    with open(here / "policy.yaml", "wb") as f:
        f.write(b"version: 1\n#")
        f.truncate((64 << 20) + 1)


def list_oversize(here):
    text(START + "  allowlist: [{list: huge.txt}]\n")(here)
    with open(here / "huge.txt", "wb") as f:
        f.write(b"a.example.com\n")
        f.truncate(1 << 31)


def fifo(name, policy):
    def make(here):
        text(policy)(here)
        os.mkfifo(here / name)
    return make


def unreadable_list(here):
    text(START + "  allowlist: [{list: sub}]\n")(here)
    (here / "sub").mkdir()


def no_policy(here):
    del here


def directory(here):
    (here / "policy.yaml").mkdir()


def loop(here):
    text("version: 1\ninclude: [a.yaml]\n")(here)
    (here / "a.yaml").symlink_to("b.yaml")
    (here / "b.yaml").symlink_to("a.yaml")


def outside(here):
    text("version: 1\ninclude: [etc/passwd, up.yaml, /etc/passwd]\n" + START.partition("\n")[2])(here)
    (here / "etc").symlink_to("/etc")
    (here / "up.yaml").symlink_to("../../../../../../../etc/passwd")


def list_outside(here):
    text(START + "  allowlist: [{list: link.txt}, {list: /etc/hostname}, {list: ../x.txt}]\n")(here)
    (here / "link.txt").symlink_to("/etc/hostname")


def device(here):
    text(START + "  allowlist: [{list: zero}]\n")(here)
    (here / "zero").symlink_to("/dev/zero")


def chain_of_profiles(n):
    lines = ["  p0: {}"] + [f"  p{i}: {{extends: [p{i - 1}]}}" for i in range(1, n + 1)]
    return START + "profiles:\n" + "\n".join(lines) + "\n"


def rules(n):
    part = ", ".join(f"{{operation: {{paths: [/{i}]}}}}" for i in range(n))
    peer = ", ".join(f"{{source: {{principals: [p{i}]}}}}" for i in range(n))
    return (START + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
            f"metadata: {{name: wide}}\nspec:\n  rules:\n    - to: [{part}]\n      from: [{peer}]\n")


# name -> what makes it
GENERATED = {
    "300-no-file": no_policy,
    "301-directory": directory,
    "302-oversize": oversize,
    "303-nul": text(b"version: 1\n\0network: {}\n"),
    "304-invalid-utf8": text(b"version: 1\nrevision: \"caf\xe9\"\n"),
    "305-overlong-utf8": text(b"version: 1\nrevision: \"\xc0\xaf\"\n"),
    "306-surrogate": text(b"version: 1\nrevision: \"\xed\xa0\x80\"\n"),
    "307-utf16": text("version: 1\n".encode("utf-16")),
    "308-bom": text(b"\xef\xbb\xbf" + START.encode()),
    "309-bom-inside": text("version: 1\n\ufeffnetwork: {}\n"),
    "310-crlf": text(START.replace("\n", "\r\n")),
    "311-lone-cr": text(b"version: 1\rnetwork: {}\r"),
    "312-control-character": text(b"version: 1\nrevision: \"\x1b[31mred\"\n"),
    "313-delete-character": text(b"version: 1\nrevision: \"a\x7fb\"\n"),
    "314-next-line": text("version: 1\nrevision: a\u0085b\n"),
    "315-line-separator": text("version: 1\nrevision: a\u2028b\n"),
    "316-deep-lists": text("version: 1\nnetwork: " + "[" * 100000),
    "317-deep-mappings": text("version: 1\nnetwork: " + "{a: " * 5000 + "1" + "}" * 5000),
    "318-depth-33": text("version: 1\nnetwork: " + "[" * 32 + "]" * 32 + "\n"),
    "319-depth-32": text("version: 1\nnetwork: " + "[" * 31 + "]" * 31 + "\n"),
    "320-hundred-thousand-keys": text("".join(f"k{i}: 1\n" for i in range(100000))),
    "321-same-key-hundred-thousand-times": text("version: 1\n" + "network: {}\n" * 100000),
    "322-long-scalar": text("version: 1\nrevision: \"" + "a" * (16 << 20) + "\n"),
    "323-long-key": text("version: 1\n\"" + "k" * 2000 + "\": 1\n"),
    "324-long-plain-key": text("version: 1\n" + "k" * 1000000 + ": 1\n"),
    "325-long-name": text(START + "  allowlist: [\"" + "a." * 500000 + "example.com\"]\n"),
    "326-anchor-bomb": text("version: 1\na: &a [x, x]\n" +
                            "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in
                                    zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz"))),
    "327-list-of-nothing-but-brackets": text("[" * 1000000),
    "328-many-documents": text("version: 1\n" + "---\nversion: 1\n" * 50),
    "329-only-comments": text("# nothing\n# at all\n"),
    "330-empty": text(""),
    "331-spaces": text("   \n \n"),
    "332-chain-of-64-profiles-and-more": text(chain_of_profiles(66)),
    "333-wide-authorization": text(rules(70)),
    "334-list-with-byte-order-mark": None,
    "335-list-lines-too-long": None,
    "336-list-crlf": None,
    "337-list-without-last-newline": None,
    "338-list-octets": None,
    "339-list-too-many-errors": None,
    "340-list-oversize": list_oversize,
    "341-list-fifo": fifo("pipe", START + "  allowlist: [{list: pipe}]\n"),
    "342-list-directory": unreadable_list,
    "343-list-outside": list_outside,
    "344-list-device": device,
    "345-include-fifo": fifo("pipe.yaml", "version: 1\ninclude: [pipe.yaml]\n"),
    "346-include-outside": outside,
    "347-include-link-loop": loop,
    "348-binary": text(bytes(range(256)) * 16),
    "349-elf": text(b"\x7fELF\x02\x01\x01" + bytes(64)),
    "350-escaped-nul": text(START + "  allowlist: [\"a\\0.example.com\"]\n"),
    "351-escaped-control": text(START + "  allowlist: [\"a\\x1b[2J.example.com\"]\n"),
    "352-escaped-newline-in-name": text(START + "  allowlist: [\"a.example.com\\nb.example.com\"]\n"),
    "353-hundred-thousand-bad-names": text(START + "  allowlist:\n" +
                                           "".join(f"    - x y{i}\n" for i in range(100000))),
}


def of_list(data):
    def make(here):
        text(START + "  allowlist: [{list: names.txt}]\n")(here)
        (here / "names.txt").write_bytes(data)
    return make


GENERATED["334-list-with-byte-order-mark"] = of_list(b"\xef\xbb\xbfa.example.com\n")
GENERATED["335-list-lines-too-long"] = of_list(b"a.example.com\n#" + b"x" * 2000000 + b"\n")
GENERATED["336-list-crlf"] = of_list(b"# names\r\na.example.com\r\n*.b.example.com \t# why\r\n\r\n")
GENERATED["337-list-without-last-newline"] = of_list(b"a.example.com\nb.example.com")
GENERATED["338-list-octets"] = of_list(b"a\0b.example.com\n\xff\xfe\nb\x1b.example.com\nok.example.com\n")
GENERATED["339-list-too-many-errors"] = of_list(b"not a name\n" * 500 + b"a..b\n" * 500)

# All in one run may be many: of that only the first lines are kept.
KEPT_LINES = 12  # of what has more than MOST_LINES
MOST_LINES = 60

# ---- one case -------------------------------------------------------------------------------------


def limits(bounded):
    def apply():
        if bounded:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (TIME_S, TIME_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return apply


class Hosts:
    """Preset hosts stand in their preset only: HOST(preset,n) <-> the host."""

    def __init__(self, policyc):
        self.of = {}
        names = subprocess.run([policyc, "--list-presets"], capture_output=True, text=True, check=True)
        for name in sorted(names.stdout.split(), key=lambda n: (n.startswith("default"), n)):
            done = subprocess.run([policyc, "--preset", name], capture_output=True, text=True, check=True)
            hosts = [line.split()[0] for line in done.stdout.splitlines()
                     if re.match(r"[a-z0-9*-]+(\.[a-z0-9-]+)+\s", line + " ")]
            for i, host in enumerate(hosts):
                self.of.setdefault(host, f"HOST({name},{i + 1})")
        host = "|".join(re.escape(h) for h in sorted(self.of, key=len, reverse=True)) or "(?!)"
        self.hide_re = re.compile(rf"(?<![A-Za-z0-9._-])(?:{host})(?![A-Za-z0-9_-]|\.[A-Za-z0-9])")
        self.back = {v: k for k, v in self.of.items()}

    def hide(self, s):
        return self.hide_re.sub(lambda m: self.of[m.group()], s)

    def show(self, s):
        return re.sub(r"HOST\([a-z-]+,[0-9]+\)", lambda m: self.back[m.group()], s)


class Runner:
    def __init__(self, build):
        self.policyc = build / "cx-policyc"
        self.bounded = "asan" not in build.parts and "tsan" not in build.parts
        self.hosts = Hosts(self.policyc)

    def run(self, here, *args):
        """(exit status, standard output, standard error); raises on a crash or on too much."""
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        for key in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if key in os.environ:
                env[key] = os.environ[key]
        done = subprocess.run([self.policyc, *args], cwd=here, capture_output=True, check=False,
                              timeout=3 * TIME_S, stdin=subprocess.DEVNULL, env=env,
                              preexec_fn=limits(self.bounded))
        if done.returncode < 0:
            raise AssertionError(f"ended by {signal.Signals(-done.returncode).name}")
        err = done.stderr.decode("utf-8", "backslashreplace")
        if done.returncode > 3 or "Sanitizer" in err or "runtime error" in err:
            raise AssertionError(f"exit {done.returncode}: {err[-3000:]}")
        return done.returncode, done.stdout.decode("utf-8", "backslashreplace"), err

    def place(self, name, here):
        """Lays the case's files out; its further arguments."""
        if name in GENERATED:
            GENERATED[name](here)
            return []
        source = (HERE / f"{name}.yaml").read_text(encoding="utf-8")
        beside = HERE / f"{name}.d"
        if beside.is_dir():
            shutil.copytree(beside, here, symlinks=True, dirs_exist_ok=True)
        (here / "policy.yaml").write_text(self.hosts.show(source), encoding="utf-8")
        first = source.partition("\n")[0]
        return shlex.split(first[10:]) if first.startswith("# golden: ") else []

    def dump(self, here, binary):
        rc, out, err = self.run(here, "--dump", binary)
        if rc != 0 or err:
            raise AssertionError(f"--dump: exit {rc}: {err}")
        return out

    def again(self, here, dumped, args):
        """The dump must compile to the same."""
        (here / "dumped.yaml").write_text(dumped, encoding="utf-8")
        strip = [a for a in args if not a.startswith(("--strict", "--test", "--coverage"))]
        rc, _, err = self.run(here, "dumped.yaml", "-o", "again.bin", "--now", "2026-11-21",
                              *[a for a in strip if not a.endswith(".yaml")])
        if rc != 0:
            raise AssertionError(f"the dump does not compile:\n{err}")
        plain = [line.split("  # ")[0] for line in dumped.splitlines()]
        if plain != [line.split("  # ")[0] for line in self.dump(here, "again.bin").splitlines()]:
            raise AssertionError("the dump compiles to something else")

    def case(self, name, here):
        """(ending, text) as they should be kept."""
        args = self.place(name, here)
        binary = here / "policy.bin"
        binary.write_bytes(OLD)
        before = sorted(p.relative_to(here) for p in here.rglob("*"))
        rc, out, err = self.run(here, "policy.yaml", "-o", "policy.bin", "--now", "2026-11-21", *args)
        if sorted(p.relative_to(here) for p in here.rglob("*")) != before:
            raise AssertionError("the directory changed")
        said = self.hosts.hide(err + out).splitlines()
        said = [line if len(line) <= 1200 else f"{line[:1200]}..." for line in said]
        if len(said) > MOST_LINES:
            said = said[:KEPT_LINES] + [f"(and {len(said) - KEPT_LINES} lines more)"]
        if rc != 0:
            if binary.read_bytes() != OLD:
                raise AssertionError("exit 1, but the older policy.bin is gone")
            return ".err", "\n".join([f"# exit {rc}", *said, ""])
        if binary.read_bytes() == OLD:
            dumped = ""
        else:
            dumped = self.dump(here, "policy.bin")
            self.again(here, dumped, args)
        return ".ok", "".join(f"# {line}\n" for line in said) + self.hosts.hide(dumped)


# ---- all ------------------------------------------------------------------------------------------


def names():
    stored = {p.stem for p in HERE.glob("[0-9]*.yaml")}
    both = stored & set(GENERATED)
    if both:
        sys.exit(f"stored and made: {', '.join(sorted(both))}")
    return sorted(stored | set(GENERATED))


def compare(name, ending, came, update):
    """None, or what is wrong."""
    other = HERE / f"{name}{'.ok' if ending == '.err' else '.err'}"
    path = HERE / f"{name}{ending}"
    if update:
        other.unlink(missing_ok=True)
        path.write_text(came, encoding="utf-8")
        return None
    if other.exists():
        return f"{other.name} was expected; it came\n{came}"
    if not path.exists():
        return f"{path.name} is missing; it came\n{came}"
    want = path.read_text(encoding="utf-8")
    if want == came:
        return None
    a, b = want.splitlines(), came.splitlines()
    return "\n".join([f"- {line}" for line in a if line not in b] +
                     [f"+ {line}" for line in b if line not in a] or ["the order of lines differs"])


def lints():
    """code -> (severity, can it be lifted?), of the table."""
    text = (ROOT / "shared/compile/lint.h").read_text(encoding="utf-8")
    return {m[1]: (m[2].lower(), m[3] == "true") for m in
            re.finditer(r'X\([A-Z_]+, "([a-z-]+)", DIAG_(ERROR|WARNING), (true|false)\)', text)}


def lifted():
    """The codes that some pair lifts."""
    found = set()
    for path in HERE.glob("*.yaml"):
        for codes in re.findall(r"lint: \{allow: \[([a-z, -]*)\]", path.read_text(encoding="utf-8")):
            shown = path.with_suffix(".ok")
            found |= set(codes.split(", ")) if shown.exists() else set()
    return found


def codes_of_compiler():
    """The table of lint, and the first string of each call that reports."""
    found = dict.fromkeys(lints(), "lint.h")
    call = r"\b(?:diag_error|diag_warning|diag%s)\s*\((?:[^;\"]*?)\"([a-z][a-z0-9-]*)\"\s*,"
    for path in [*sorted((ROOT / "shared/compile").glob("*.c")), *sorted((ROOT / "shared/tools").glob("*.c"))]:
        if path.name in ("diag.c", "diff.c"):
            continue
        pattern = call % ("|fail" if path.name == "yaml.c" else "")
        for m in re.finditer(pattern, path.read_text(encoding="utf-8")):
            found.setdefault(m.group(1), path.name)
    return found


def codes_shown():
    shown = set()
    for path in [*HERE.glob("*.err"), *HERE.glob("*.ok")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            m = re.search(r"(?:error|warning|note): .*\[([a-z][a-z0-9-]*)\]$", line)
            if m:
                shown.add(m.group(1))
    return shown


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    p.add_argument("--update", action="store_true")
    p.add_argument("--slow", action="store_true", help="say which cases took longest")
    p.add_argument("case", nargs="*", help="only those whose name begins so")
    args = p.parse_args()
    r = Runner(args.build.resolve())
    passed, failed, took = 0, 0, []
    for name in names():
        if args.case and not name.startswith(tuple(args.case)):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="cx-golden-") as d:
            here = pathlib.Path(d) / "policy"
            beside = pathlib.Path(d) / "beside"  # what must not be reached
            here.mkdir()
            beside.mkdir()
            for ending in ("conf", "yaml"):
                (beside / f"a.{ending}").write_text("network: {allowlist: [outside.example.com]}\n")
            try:
                wrong = compare(name, *r.case(name, here), args.update)
            except (AssertionError, subprocess.TimeoutExpired) as e:
                wrong = str(e)
        took.append((time.monotonic() - began, name))
        failed += wrong is not None
        passed += wrong is None
        print(f"{'FAIL' if wrong else 'ok  '} {name}", *(wrong or "").splitlines(), sep="\n     ")
    if not args.case:
        stale = {q.name for e in (".ok", ".err") for q in HERE.glob(f"*{e}") if q.stem not in names()}
        missing = {c: f for c, f in codes_of_compiler().items()
                   if c not in codes_shown() and c not in NOT_SHOWN}
        for c in sorted({c for c, (_, lifts) in lints().items() if lifts} - lifted()):
            print(f"FAIL no pair lifts [{c}]")
            failed += 1
        for q in sorted(stale):
            print(f"FAIL {q}: there is no such case")
        for c in sorted(missing):
            print(f"FAIL no pair shows [{c}] of {missing[c]}")
        failed += len(stale) + len(missing)
        passed += not stale and not missing
    if args.slow:
        for seconds, name in sorted(took, reverse=True)[:8]:
            print(f"{seconds:6.2f} s  {name}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
