# SPDX-License-Identifier: Apache-2.0
"""Origins of our own for real package managers: one small package for each, made here, served by nginx
in the laboratory's Internet under the names that the built-in presets list."""

import base64
import email.utils
import hashlib
import io
import json
import os
import pathlib
import shutil
import tarfile
import time
import zipfile

import lab as labs
from lab import Failure, Lab, preset_hosts, run, wait_for

BIG_MIB = 1024
SSHD = pathlib.Path("/run/sshd") # sshd wants to see it
BIG, WS, WEB = "downloads.example.net", "live.example.net", "web.example.net"


def pick(preset, start=""):
    """The shortest host of a preset that starts so; those of the default policy first."""
    default = set(preset_hosts("default"))
    return min((h for h in preset_hosts(preset) if h.startswith(start)), key=lambda h: (h not in default, len(h)))


HOSTS = {
    "npm": lambda: pick("npm"), "pypi": lambda: pick("pypi", "pypi"), "files": lambda: pick("pypi", "files"),
    "crates": lambda: pick("crates", "crates"), "index": lambda: pick("crates", "index"),
    "static": lambda: pick("crates", "static"), "go": lambda: pick("go", "proxy"),
    "git": lambda: pick("github", "github"), "apt": lambda: pick("apt", "deb"),
}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def tarball(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, text in files.items():
            z.writestr(name, text)
    return out.getvalue()


# ---- what the registries hold --------------------------------------------------------------------

def npm_package(root, host, name="tiny-package", elsewhere=None):
    tgz = tarball({"package/package.json": json.dumps({"name": name, "version": "1.0.0"}),
                   "package/index.js": "module.exports = 'tiny'\n"})
    write(root / name / "-" / "tiny.tgz", tgz)
    digest = base64.b64encode(hashlib.sha512(tgz).digest()).decode()
    dist = {"tarball": f"https://{elsewhere or host}/{name}/-/tiny.tgz", "integrity": "sha512-" + digest}
    version = {"name": name, "version": "1.0.0", "dist": dist}
    write(root / name / "index.json", json.dumps(
        {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}))


def pip_package(root, files, host, name="tinypy"):
    wheel = f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    data = zipped({f"{name}.py": "WHAT = 'tiny'\n", f"{info}/RECORD": "",
                   f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
                   f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n"})
    write(files / "packages" / wheel, data)
    digest = hashlib.sha256(data).hexdigest()
    write(root / "simple" / name / "index.html",
          f'<a href="https://{host}/packages/{wheel}#sha256={digest}">{wheel}</a>\n')


def cargo_package(index, static, host):
    crate = tarball({"tinycrate-1.0.0/Cargo.toml": '[package]\nname = "tinycrate"\nversion = "1.0.0"\n',
                     "tinycrate-1.0.0/src/lib.rs": "pub const WHAT: &str = \"tiny\";\n"})
    write(static / "crates/tinycrate/1.0.0/download", crate)
    write(index / "config.json", json.dumps({"dl": f"https://{host}/crates", "api": f"https://{host}"}))
    write(index / "ti/ny/tinycrate", json.dumps(
        {"name": "tinycrate", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
         "cksum": hashlib.sha256(crate).hexdigest()}) + "\n")


def go_package(root, module="example.net/tinymod"):
    mod = f"module {module}\n"
    at = root / module / "@v"
    write(at / "list", "v1.0.0\n")
    write(at / "v1.0.0.info", '{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}')
    write(at / "v1.0.0.mod", mod)
    write(at / "v1.0.0.zip", zipped({f"{module}@v1.0.0/go.mod": mod,
                                     f"{module}@v1.0.0/tiny.go": "package tinymod\n\nconst What = \"tiny\"\n"}))


def apt_repository(root):
    at = root / "debian/dists/lab"
    packages = b"Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: us\nDescription: tiny\n" \
               b"Filename: tiny.deb\nSize: 1\n\n"
    write(at / "main/binary-amd64/Packages", packages)
    line = f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages"
    write(at / "Release", "Origin: lab\nSuite: lab\nCodename: lab\nArchitectures: amd64\nComponents: main\n"
                          f"Date: {email.utils.formatdate(time.time() - 86400, usegmt=True)}\nSHA256:\n{line}\n")


def git_repository(root):
    """A bare repository with one commit, for https and ssh."""
    bare, work = root / "acme/tiny.git", root / "work"
    who = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(root)}
    for argv in (["git", "init", "-q", "--bare", bare], ["git", "init", "-q", work],
                 ["git", "-C", work, "-c", "user.name=us", "-c", "user.email=us@example.net", "commit", "-q",
                  "--allow-empty", "-m", "tiny"],
                 ["git", "-C", work, "push", "-q", bare, "HEAD:refs/heads/main"],
                 ["git", "-C", bare, "symbolic-ref", "HEAD", "refs/heads/main"]):
        run(argv, env=who)
    return bare


# ---- the laboratory ------------------------------------------------------------------------------

class WorkLab(Lab):
    """nginx in front of the registries; a second place, `attacker.example`, has the same to offer."""

    def __init__(self, **more):
        self.at = {role: find() for role, find in HOSTS.items()}
        names = {*preset_hosts("default"), *self.at.values(), BIG, WS, WEB}
        self.made = []
        super().__init__(hosts=names, **more)

    def close(self):
        super().close()
        while self.made:
            self.made.pop().rmdir()

    def compile_policy(self, text, name="policy"):
        source = self.dir / f"{name}.yaml"
        source.write_text(text)
        return run([labs.BUILD / "cx-policyc", "--allow-unenforced", source, "-o", self.dir / f"{name}.bin"])

    def roots(self):
        """What each host serves: {host: directory}."""
        at, www = self.at, self.dir / "www"
        npm_package(www / "npm", at["npm"])
        npm_package(www / "npm", at["npm"], "far-package", labs.UNLISTED)
        npm_package(www / "evil", labs.UNLISTED)
        npm_package(www / "evil", labs.UNLISTED, "far-package")
        pip_package(www / "pypi", www / "files", at["files"])
        pip_package(www / "pypi", www / "evil", labs.UNLISTED, "farpy")
        pip_package(www / "evil", www / "evil", labs.UNLISTED)
        cargo_package(www / "index", www / "static", at["static"])
        go_package(www / "go")
        go_package(www / "evil")
        apt_repository(www / "apt")
        apt_repository(www / "evil")
        write(www / "evil/index.html", "EVIL\n")
        write(www / "web/index.html", "plain and simple\n")
        (www / "big").mkdir()
        with open(www / "big/image", "wb") as f:
            f.truncate(BIG_MIB << 20)
        roots = {at[role]: www / role for role in ("npm", "pypi", "files", "index", "static", "go", "apt")}
        return {**roots, labs.UNLISTED: www / "evil", WEB: www / "web", BIG: www / "big"}

    def start_origins(self, *address):
        at = self.dir
        self.bare = git_repository(at / "git")
        servers = "".join(f"""
	server {{
		listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;
		server_name {host}; root {root};
		location / {{ try_files $uri $uri/index.json $uri/index.html $uri/ =404; }}
	}}""" for host, root in self.roots().items())
        (at / "nginx.conf").write_text(f"""user root;
worker_processes 1;
pid {at}/nginx.pid;
error_log stderr;
events {{ worker_connections 2048; }}
http {{
	access_log {at}/origins.log;
	default_type application/octet-stream;
	ssl_certificate {at}/origin.pem;
	ssl_certificate_key {at}/origin.key;
	sendfile on;
	client_body_temp_path {at}/n1; proxy_temp_path {at}/n2; fastcgi_temp_path {at}/n3;
	uwsgi_temp_path {at}/n4; scgi_temp_path {at}/n5;{servers}
	server {{
		listen 443 ssl; listen [::]:443 ssl; server_name {self.at['git']};
		location / {{
			fastcgi_pass unix:{at}/fcgi.sock;
			fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
			fastcgi_param GIT_PROJECT_ROOT {at}/git;
			fastcgi_param GIT_HTTP_EXPORT_ALL 1;
			fastcgi_param PATH_INFO $uri;
			fastcgi_param QUERY_STRING $query_string;
			fastcgi_param REQUEST_METHOD $request_method;
			fastcgi_param CONTENT_TYPE $content_type;
			fastcgi_param CONTENT_LENGTH $content_length;
			fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
			fastcgi_param GIT_PROTOCOL $http_git_protocol;
		}}
	}}
	server {{
		listen 443 ssl; listen [::]:443 ssl; server_name {WS};
		location / {{
			proxy_pass http://127.0.0.1:9001;
			proxy_http_version 1.1;
			proxy_set_header upgrade $http_upgrade;
			proxy_set_header connection upgrade;
		}}
	}}
}}
""")
        self.start("fcgi", "internet", ["fcgiwrap", "-f", "-s", f"unix:{at}/fcgi.sock"])
        nginx = self.start("internet", "internet", ["nginx", "-c", at / "nginx.conf", "-g", "daemon off;"])
        wait_for("nginx", lambda: (at / "nginx.pid").exists() or nginx.poll() is not None)
        if nginx.poll() is not None:
            raise Failure("nginx did not start: " + self.log("internet"))
        self.start("websocket", "internet", [labs.HERE / "websocket-echo.py", "9001"])
        wait_for("the websocket", lambda: "ready" in self.log("websocket"))
        self.start_ssh()

    def start_ssh(self):
        at = self.dir
        for name in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at / f"{name}.key"])
        shutil.copy(at / "user.key.pub", at / "authorized")
        (at / "known").write_text(f"{self.at['git']} " + (at / "host.key.pub").read_text())
        if not SSHD.exists():
            SSHD.mkdir()
            self.made.append(SSHD)
        sshd = self.start("ssh", "internet", [
            "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", at / "host.key", "-o", f"AuthorizedKeysFile={at}/authorized",
            "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PermitRootLogin=prohibit-password", "-o", "PidFile=none"])
        wait_for("ssh", lambda: "listening" in self.log("ssh") or sshd.poll() is not None)

    def tool(self, argv, cwd=None, env=None, timeout=120):
        """A guest's program, which trusts the machine's bundle of authorities and ours."""
        files = {"/etc/resolv.conf": self.dir / "resolv.guest", "/etc/hosts": self.dir / "hosts",
                 "/etc/ssl/certs/ca-certificates.crt": self.dir / "bundle.crt"}
        home = self.dir / "home"
        home.mkdir(exist_ok=True)
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin", "HOME": str(home), "LANG": "C.UTF-8",
                 "NODE_EXTRA_CA_CERTS": str(self.dir / "ca.pem"), **(env or {})}
        return run(self.inside("guest", argv, files), check=False, timeout=timeout, cwd=cwd or home, env=clean)

    def bundle(self):
        system = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
        (self.dir / "bundle.crt").write_text(system.read_text() + (self.dir / "ca.pem").read_text())
