# SPDX-License-Identifier: Apache-2.0
"""Random policies and questions from a seed. Names, ports and addresses come from small sets, so that
entries meet, hide and contradict each other and questions hit them. Knows nothing of verdicts."""

import ipaddress
import json

import oracle

BASES = ["example.com", "example.net"]
LABELS = ["a", "b", "c"]
PORTS = [80, 443, 8080, 8443, 22, 5432, 1, 65535]
METHODS = ["GET", "HEAD", "POST", "PUT", "get"]
PATHS = ["/", "/a", "/a/", "/a/b", "/b", "/a%2fb", "/a/../b", "/a//b", "/a/b?x=/../", "/A", "/a;b", "/a/%2e",
         "/a/.b", "/a/b/c", "/api/v2/x", "/api/v2", "/a/%20b", "/..", "/a\\b", "/a/%5Cb", "/a/b%00", "/a/%zz", "/.a",
         "/a/..b/", "/a%25b", "/?a", "/a#b", "/a/."]
PATTERNS = ["/a", "/a/*", "/b", "/*", "/api/v2/*", "/a/b", "/A*"]
EXPIRES = ["2020-01-01", "2026-11-21", "2026-11-22", "2027-06-01T12:00:00Z", "2099-01-01"]
CLOCKS = [1795219200, 1795219199, 1795262400, 1795305599, 1795305600, 1811851199, 1811851200]
TYPES = ["A", "AAAA", "CNAME", "HTTPS", "SVCB", "SRV", "PTR", "TXT", "MX", "ANY", "NS"]
PRESETS = ["npm", "pypi", "crates", "go", "default-strict"]
LINT = {"allow": ["deny-lifted", "shadowed", "unknown-suffix", "private-suffix"], "why": "random"}

RANGES = ["192.0.2.0/24", "192.0.2.128/25", "192.0.2.128/26", "192.0.2.160/28", "192.0.2.7/32", "198.51.100.0/24",
          "198.51.100.64/26", "203.0.113.0/24", "10.20.0.0/16", "10.20.30.0/24", "172.20.0.0/16", "100.64.0.0/12",
          "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1:2::/64", "2001:db8:1:2::7/128", "64:ff9b::/96",
          "64:ff9b::c000:200/120", "2002:c000:200::/40", "fd00:5::/32", "fd00:5:6::/48", "::ffff:198.51.0.0/112"]
SOURCES = ["0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.0.0/17", "10.9.1.0/24", "10.9.1.128/25", "10.9.1.7/32",
           "127.0.2.0/24", "127.0.0.0/8", "172.16.0.0/12", "172.16.5.4/32", "203.0.113.0/24", "128.0.0.0/1",
           "::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1:2::/64", "2001:db8:1:2::9/128", "8000::/1",
           "fd00:9::/64", "fd00:9::8/125", "::ffff:10.10.0.0/112", "192.0.2.64/27"]
CURIOUS = ["127.0.0.1", "169.254.169.254", "10.20.30.40", "10.1.2.3", "172.20.1.1", "192.168.7.7", "100.64.9.9",
           "100.100.100.200", "224.0.0.1", "0.0.0.0", "255.255.255.255", "8.8.8.8", "192.0.2.7", "192.0.2.130",
           "192.0.2.165", "198.51.100.70", "198.51.100.1", "203.0.113.5", "::", "::1", "fe80::1", "fec0::1",
           "ff02::1", "fd00:ec2::254", "fd00:5:6::1", "2001:db8:1:2::7", "2001:db8:1:2::8", "2001:db8:9::1",
           "64:ff9b::c000:207", "64:ff9b::a14:1e28", "64:ff9b:1::1", "2002:c000:207::1", "2002:7f00:1::",
           "2002:a14:1e28::", "2001:0:c000:201:0:0:5601:5601", "2001:0:808:808:0:0:f7f7:f7f7",
           "2001:db8::200:5efe:7f00:1", "2001:db8::5efe:c000:207", "::ffff:10.20.30.40", "::ffff:0:a14:1e28",
           "::192.0.2.130", "2a00::1", "10.9.1.7", "10.9.1.8", "172.16.5.4", "127.0.2.9"]


class Random:
    """What the generators below need of random.Random."""

    def __init__(self, rng):
        self.choice, self.randint, self.sample = rng.choice, rng.randint, rng.sample
        self.random, self.shuffle = rng.random, rng.shuffle

    def chance(self, p):
        return self.random() < p

    def some(self, of, low, high):
        return self.sample(of, min(len(of), self.randint(low, high)))


def deep(g, least=0):
    labels = [g.choice(LABELS) for _ in range(g.choice([least, 1, 1, 2, 2, 3, 4]))]
    return ".".join(labels + [g.choice(BASES)])


def written(g, name):
    """A name as people write it."""
    if g.chance(0.05):
        name = name.upper()
    return name + "." if g.chance(0.03) else name


class PolicyMaker:
    def __init__(self, rng, preset_hosts):
        self.g = Random(rng)
        self.preset_hosts = preset_hosts
        self.lists = {}
        self.hosts = []
        self.allowed = []

    def name(self):
        g = self.g
        if self.hosts and g.chance(0.25):
            labels = g.choice(self.hosts).split(".")
            cut = g.randint(0, len(labels) - 2)
            host = ".".join(labels[cut:])
            return "*." + host if cut and g.chance(0.7) else host
        return written(g, "*." + deep(g) if g.chance(0.5) else deep(g, 1))

    def ports(self):
        g = self.g
        ports = g.some([p for p in PORTS if p not in (80, 443)], 1, 2)
        if g.chance(0.4):
            ports.append("%d-%d" % g.choice([(8000, 8100), (1000, 1001), (5400, 5500), (20, 25)]))
        return ports

    def http_rules(self):
        g = self.g
        rules = []
        for _ in range(g.randint(1, 3)):
            rule = {}
            if g.chance(0.7):
                rule["methods"] = g.some(METHODS[:4], 1, 3)
            if g.chance(0.7) or not rule:
                rule["paths"] = g.some(PATTERNS, 1, 3)
            rules.append(rule)
        return rules

    def allow(self, twin=None):
        """An entry; of what its twin is about, in other terms."""
        g = self.g
        e = {}
        if twin:
            e = {k: v for k, v in twin.items() if k in ("cidr", "domain", "list")}
            if "cidr" in e:
                e["ports"] = self.ports()
        elif g.chance(0.15):
            e["cidr"] = g.choice(RANGES)
            e["ports"] = self.ports()
        elif g.chance(0.12):
            e["list"] = self.add_list()
        else:
            e["domain"] = self.name()
        if "cidr" not in e:
            if g.chance(0.5):
                e["protocols"] = g.some(["https", "http", "tcp"], 1, 3)
            tcp = "tcp" in e.get("protocols", [])
            if tcp or g.chance(0.3):
                e["ports"] = self.ports() + ([] if tcp or g.chance(0.5) else [g.choice([80, 443])])
            protocols = e.get("protocols", ["https", "http"])
            if "http" in protocols and g.chance(0.35):
                e["http"] = self.http_rules()
                if "https" in protocols:
                    e["unseen"] = "allow"
            elif "http" in protocols and g.chance(0.2):
                e["upgrade"] = ["websocket"]
        if g.chance(0.2):
            e["expires"] = g.choice(EXPIRES)
        if g.chance(0.5 if twin else 0.2):
            e["private"] = g.chance(0.9)
        e["lint"] = LINT
        return e

    def add_list(self):
        g = self.g
        file = "lists/%d.txt" % len(self.lists)
        lines = []
        for _ in range(g.randint(1, 5)):
            line = self.name()
            lines.append(line + g.choice(["", "", "  # why", " "]))
            if g.chance(0.2):
                lines.append(g.choice(["# nothing", ""]))
        self.lists[file] = "\n".join(lines) + g.choice(["\n", ""])
        return file

    def deny(self):
        g = self.g
        if g.chance(0.25):
            return {"cidr": g.choice(RANGES)}
        if self.hosts and g.chance(0.3):
            return g.choice(self.hosts)
        return self.name() if g.chance(0.8) else {"domain": self.name()}

    def body(self, names):
        """A profile that may extend those named."""
        g = self.g
        p = {}
        if names is not None and names and g.chance(0.7):
            p["extends"] = g.some(names, 1, 3)
        if names is None or g.chance(0.4):
            p["presets"] = g.some(PRESETS, 0, 2) if g.chance(0.6) else []
            for preset in p["presets"]:
                self.hosts += self.preset_hosts(preset)
        p["allowlist"] = []
        for _ in range(g.choice([0, 1, 2, 4, 6, 9])):
            p["allowlist"].append(self.allow(g.choice(self.allowed) if self.allowed and g.chance(0.25) else None))
        self.allowed += p["allowlist"]
        p["deny"] = [self.deny() for _ in range(g.choice([0, 0, 1, 2, 4]))]
        if g.chance(0.2):
            p["dns"] = {"query_types": g.some([t for t in TYPES if t != "ANY"], 1, 6)}
        if g.chance(0.15):
            p["tls"] = {"ech": g.choice(["allow", "deny"])}
        if g.chance(0.2):
            p["mode"] = g.choice(["observe", "observe", "enforce"])
        return p

    def prefixes(self, n, taken):
        found = []
        for _ in range(n):
            text = self.g.choice(SOURCES)
            if self.g.chance(0.4):
                a = oracle.address(self.g.choice(CURIOUS))
                low, high = (1, 32) if a.version == 4 else (1, 128)
                net = ipaddress.ip_network((a, self.g.randint(low, high)), strict=False)
                if net.version == 6 and net.prefixlen < 97 and oracle.holds(net, ipaddress.ip_address("::ffff:0:0")):
                    continue
                text = str(net)
            if oracle.network(text) not in taken:
                taken.add(oracle.network(text))
                found.append(text)
        return found

    def make(self):
        g = self.g
        doc = {"version": 1, "network": self.body(None)}
        names = ["default"]
        profiles = {}
        for i in range(g.choice([0, 1, 2, 3, 5, 8])):
            name = "p%d" % i
            profiles[name] = self.body(names)
            names.append(name)
        if profiles:
            # the order of the file is not that of inheritance
            order = list(profiles)
            g.shuffle(order)
            doc["profiles"] = {k: profiles[k] for k in order}
        if g.chance(0.6):
            doc["never"] = [self.deny() for _ in range(g.randint(1, 2))]
        taken = {oracle.network("127.0.0.1/32"), oracle.network("::1/128")}
        if g.chance(0.95):
            doc["sources"] = {}
            for text in self.prefixes(g.choice([0, 1, 3, 6, 12, 90]), taken):
                doc["sources"][text] = g.choice(names) if g.chance(0.95) else {"bind": g.some(names, 1, 2)}
        if g.chance(0.2):
            doc["unlisted_sources"] = {"ignore": self.prefixes(2, taken)}
        if g.chance(0.2):
            doc["resolver_clients"] = self.prefixes(2, taken)
        return doc, self.lists


def render(doc):
    """YAML with each entry on a line of its own."""
    out = []

    def entries(indent, key, items):
        out.append("%s%s:%s" % (indent, key, "" if items else " []"))
        out.extend("%s  - %s" % (indent, json.dumps(e)) for e in items)

    def body(indent, p):
        for key, value in p.items():
            if key in ("allowlist", "deny"):
                entries(indent, key, value)
            else:
                out.append("%s%s: %s" % (indent, key, json.dumps(value)))

    for key, value in doc.items():
        if key == "network":
            out.append("network:")
            body("  ", value)
        elif key == "profiles":
            out.append("profiles:")
            for name, p in value.items():
                out.append("  %s:" % name)
                body("    ", p)
        elif key == "never":
            entries("", key, value)
        else:
            out.append("%s: %s" % (key, json.dumps(value)))
    return "\n".join(out) + "\n"


class QuestionMaker:
    def __init__(self, rng, policy):
        self.g = g = Random(rng)
        self.policy = policy
        self.names, self.addrs = set(), list(CURIOUS)
        entries = list(policy.never.entries)
        for p in policy.profiles.values():
            for layer in p.layers:
                entries += [e for e in layer.entries if e not in entries]
        for e in entries:
            for t in e.targets:
                if t.kind == "cidr":
                    self.addrs += [str(a) for a in edges(t.value)]
                else:
                    name = ".".join(t.value)
                    self.names |= {name, g.choice(LABELS) + "." + name, "x.y." + name}
                    if len(t.value) > 2:
                        self.names.add(".".join(t.value[1:]))
        self.names |= {deep(g) for _ in range(6)}
        self.names = sorted(self.names)
        self.ports = PORTS + [8000, 8100, 8101, 1000, 5400, 25]
        self.sources = ["10.9.9.9", "2001:db8::99", "127.0.0.1"]
        known = []
        for net, who in policy.clients:
            around = [str(a) for a in edges(net)]
            self.sources += around
            if not who.startswith("(") and who != "bind":
                known.append(around[1])
        self.known = known or ["10.9.9.9"]

    def source(self):
        return self.g.choice(self.known) if self.g.chance(0.8) else self.g.choice(self.sources)

    def about(self, src):
        """An entry that this source's profile sees, or None."""
        p = self.policy.profiles.get(self.policy.client(oracle.address(src)))
        entries = [e for layer in p.layers for e in layer.entries] if p else []
        presets = [e for e in entries if e.preset]
        if presets and self.g.chance(0.2):
            return self.g.choice(presets)
        return self.g.choice(entries) if entries and self.g.chance(0.75) else None

    def host(self, entry):
        g = self.g
        host = g.choice(self.names)
        names = [t for t in entry.targets if t.kind != "cidr"] if entry else []
        if names:
            t = g.choice(names)
            host = ".".join([g.choice(LABELS) for _ in range(g.randint(1, 2))] * (t.kind == "below") + t.value)
        if g.chance(0.04):
            host = g.choice(["192.0.2.1", "a..example.com", "2130706433", "a.example.com.1", "-", "*.example.com",
                             "x" * 64 + ".example.com", "a.0x1f", "0x7f.1", "a_b.example.com", "[2001:db8::1]"])
        elif g.chance(0.1):
            host = "".join(c.upper() if g.chance(0.3) else c for c in host) + g.choice(["", "."])
        return host

    def resolved(self):
        g = self.g
        if g.chance(0.55):
            return None
        if g.chance(0.3):
            return [g.choice(["10.1.2.3", "192.168.7.7", "fd00:5:6::1"])]
        return [g.choice(self.addrs) for _ in range(g.choice([0, 1, 1, 2, 3]))]

    def make(self):
        g = self.g
        layer = g.choice(["dns", "dns", "tls", "http", "http", "connect", "tcp"])
        q = oracle.Question(layer, self.source())
        entry = self.about(q.src)
        if entry and entry.targets and entry.targets[0].kind == "cidr":
            layer = q.layer = g.choice(["tcp", "tcp", "connect"])
            q.dst = str(g.choice(edges(entry.targets[0].value)[g.choice([0, 1, 1]):]))
        elif layer == "tcp" or (layer == "connect" and g.chance(0.2)):
            q.dst = g.choice(self.addrs)
        else:
            q.host = self.host(entry)
        if layer == "connect" and q.host and ("[" in q.host or q.host == "192.0.2.1"):
            q.host = "a.example.com"  # an address is another question there
        if layer == "dns":
            q.qtype = g.choice(TYPES) if g.chance(0.5) else "A"
        else:
            q.port = g.choice(self.ports) if g.chance(0.3) else (80 if layer == "http" else 443)
            if entry and entry.ports and g.chance(0.8):
                q.port = g.choice(g.choice(entry.ports))
            if q.host is not None:
                q.resolved = self.resolved()
        if layer == "tls":
            q.ech = g.chance(0.1)
            if g.chance(0.05):
                q.flaw = g.choice(["malformed", "no-sni", "name-mismatch", "internal"])
                q.host = g.choice(self.names)
        if layer == "http":
            q.method, q.path = g.choice(METHODS), g.choice(PATHS)
            if g.chance(0.15):
                q.upgrade = g.choice(["websocket", "WebSocket", "h2c"])
        return q


def edges(net):
    """The last address before a network, two inside, and the first behind."""
    first, last = int(net.network_address), int(net.broadcast_address)
    kind = ipaddress.IPv4Address if net.version == 4 else ipaddress.IPv6Address
    top = 2 ** net.max_prefixlen - 1
    return [kind(max(first - 1, 0)), kind(first), kind((first + last) // 2), kind(last), kind(min(last + 1, top))]
