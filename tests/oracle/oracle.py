# SPDX-License-Identifier: Apache-2.0
"""The rules of a policy, slow and obvious: given the YAML, a question and a clock, the verdict and why.

Written from the description of the language, never from the C. Every entry is compared with every question.
It reads what a policy may say about who asks and what is permitted; it refuses a policy whose other
constructs change verdicts (resolvers, bindings' additions, credentials, mesh) rather than guess.

Where the description leaves room, this is what counts (docs/design.md, "Which entry decides"):
 - of several ways to use a CONNECT, raw comes before a hello and a hello before requests;
 - `next` for a port tells what some entry would take there, expired ones too: the next step says so;
 - a path that is not printable ASCII, or has an invalid escape, or an encoded % or ;, is ambiguous too.
"""

import datetime
import ipaddress
import re

import yaml

REASONS = ["no-policy", "unknown-source", "no-binding", "stale-binding", "no-profile", "malformed",
           "ip-literal", "bad-name", "no-sni", "ech", "name-mismatch", "never", "denied-entry", "not-listed",
           "expired", "protocol", "port", "method", "path", "principal", "query-type", "address",
           "private-address", "unresolved", "upstream", "rate-limit", "credential", "internal-error",
           "allowed"]
OBSERVED = {"not-listed", "denied-entry", "expired", "protocol", "port", "method", "path", "query-type"}
DEFAULT_TYPES = ["A", "AAAA", "CNAME", "HTTPS", "SVCB", "SRV", "PTR"]
WAYS = ["raw", "tls", "http"]  # the strongest first
WAY_PROTOCOL = {"raw": "tcp", "tls": "https", "http": "http"}


def nets(*texts):
    return [ipaddress.ip_network(t) for t in texts]


NEVER = nets("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/128", "::1/128", "fe80::/10",
             "fec0::/10", "ff00::/8", "64:ff9b:1::/48",
             # metadata services of clouds
             "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128",
             "fd20:ce::254/128")
PRIVATE = nets("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
CARRIES_AT_END = nets("::/96", "64:ff9b::/96", "::ffff:0:0:0/96")
SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
TEREDO = ipaddress.ip_network("2001::/32")


# ---- reading YAML with line numbers -------------------------------------------------------------------

class Lines(list):
    """A list that knows the line of each of its items."""

    lines = ()


def plain(node):
    if isinstance(node, yaml.MappingNode):
        return {plain(k): plain(v) for k, v in node.value}
    if isinstance(node, yaml.SequenceNode):
        items = Lines(plain(v) for v in node.value)
        items.lines = [v.start_mark.line + 1 for v in node.value]
        return items
    return yaml.SafeLoader("").construct_object(node)


def load(text):
    return plain(yaml.compose(text, Loader=yaml.SafeLoader))


# ---- names and addresses ------------------------------------------------------------------------------

def name_of(text):
    """The labels of a host name as written, root last left out; or the reason why it is none."""
    text = text.lower()
    if text.startswith("["):
        return "ip-literal"
    if text.endswith("."):
        text = text[:-1]
    labels = text.split(".")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]+", labels[-1]):
        return "ip-literal"
    if len(text) > 253 or not all(re.fullmatch(r"[a-z0-9_-]{1,63}", x) for x in labels):
        return "bad-name"
    return labels


def address(text):
    a = ipaddress.ip_address(text)
    return a.ipv4_mapped if a.version == 6 and a.ipv4_mapped else a


def network(text):
    n = ipaddress.ip_network(text)
    if n.version == 6 and n.prefixlen >= 96 and n.network_address.ipv4_mapped:
        return ipaddress.ip_network((n.network_address.ipv4_mapped, n.prefixlen - 96))
    return n


def holds(net, a):
    return net.version == a.version and a in net


def with_embedded(a):
    """The address, and every IPv4 address that it carries."""
    found = [a]
    if a.version == 4:
        return found
    b = a.packed
    if any(a in n for n in CARRIES_AT_END):
        found.append(ipaddress.IPv4Address(b[12:]))
    if a in SIX_TO_FOUR:
        found.append(ipaddress.IPv4Address(b[2:6]))
    if a in TEREDO:
        found.append(ipaddress.IPv4Address(b[4:8]))
        found.append(ipaddress.IPv4Address(bytes(255 - x for x in b[12:])))
    if b[8] in (0, 2) and b[9:12] == b"\x00\x5e\xfe":
        found.append(ipaddress.IPv4Address(b[12:]))
    return found


# ---- entries ------------------------------------------------------------------------------------------

class Target:
    """What an entry is about: one name, the names below one, or a range of addresses."""

    def __init__(self, kind, value, line, file):
        self.kind, self.value, self.line, self.file = kind, value, line, file
        if kind == "cidr":
            self.length = value.prefixlen
        else:  # an exact name is longer than any wildcard
            self.length = 1000 if kind == "exact" else len(value)

    def matches(self, labels, addr):
        if self.kind == "cidr":
            return addr is not None and holds(self.value, addr)
        if labels is None:
            return False
        if self.kind == "exact":
            return labels == self.value
        return len(labels) > len(self.value) and labels[-len(self.value):] == self.value


def name_target(text, line, file):
    below = text.startswith("*.")
    return Target("below" if below else "exact", name_of(text[2:] if below else text), line, file)


def epoch(value):
    if isinstance(value, datetime.datetime):
        value = value.strftime("%Y-%m-%dT%H:%M:%SZ")
    value = str(value)
    form = "%Y-%m-%dT%H:%M:%SZ" if "T" in value else "%Y-%m-%d"
    then = datetime.datetime.strptime(value, form).replace(tzinfo=datetime.timezone.utc)
    return int(then.timestamp())


class Entry:
    def __init__(self, item, line, deny=False, preset=False, read_file=None):
        item = {"domain": item} if isinstance(item, str) else item
        self.deny, self.preset = deny, preset
        self.ports = None
        if "ports" in item:
            self.ports = [tuple(int(x) for x in str(p).split("-")) for p in item["ports"]]
        self.protocols = set(item.get("protocols", ["https", "http"]))
        self.http = item.get("http")
        self.expires = epoch(item["expires"]) if "expires" in item else None
        self.private = item.get("private", False)
        self.upgrade = item.get("upgrade", [])
        file = "policy.yaml"
        if "cidr" in item:
            self.pattern = item["cidr"]
            self.protocols = set(item.get("protocols", ["tcp"]))
            self.targets = [Target("cidr", network(item["cidr"]), line, file)]
        elif "list" in item:
            self.pattern = "list:" + item["list"]
            self.targets = []
            for i, text in enumerate(read_file(item["list"]).splitlines()):
                text = text.split("#")[0].strip()
                if text:
                    self.targets.append(name_target(text, i + 1, item["list"]))
        else:
            self.pattern = item["domain"]
            self.targets = [name_target(item["domain"], line, file)]

    def expired(self, now):
        return self.expires is not None and now >= self.expires

    def has_port(self, protocol, port):
        if self.ports is not None:
            return any(p[0] <= port <= p[-1] for p in self.ports)
        return port == {"https": 443, "http": 80}.get(protocol)

    def permits(self, protocol, q):
        """The first reason that stands against this use of the entry, or allowed."""
        if protocol not in self.protocols:
            return "protocol"
        if q.layer == "http" and q.upgrade and q.upgrade.lower() not in self.upgrade:
            return "protocol"
        if not self.has_port(protocol, q.port):
            return "port"
        if q.layer != "http" or self.http is None:
            return "allowed"
        return self.permits_request(q)

    def permits_request(self, q):
        path = q.path.split("?")[0]
        any_method = False
        for rule in self.http:
            if "methods" in rule and q.method not in rule["methods"]:
                continue
            any_method = True
            if "paths" not in rule:
                if not any("paths" in r for r in self.http) or not ambiguous(path):
                    return "allowed"
            elif not ambiguous(path) and any(path_matches(p, path) for p in rule["paths"]):
                return "allowed"
        return "path" if any_method else "method"


def path_matches(pattern, path):
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def ambiguous(path):
    if not path.startswith("/") or "//" in path or "\\" in path or ";" in path or "#" in path:
        return True
    if any(s in (".", "..") for s in path.split("/")) or re.search(r"[^!-~]", path):
        return True
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        return True
    return re.search(r"%(2f|5c|2e|00|3b|25)", path, re.IGNORECASE) is not None


# ---- the policy ---------------------------------------------------------------------------------------

class Layer:
    """Entries that are seen together: of `never`, of a profile, or of a preset."""

    def __init__(self):
        self.entries = []

    def add(self, items, read_file, deny=False):
        for item, line in zip(items, getattr(items, "lines", [0] * len(items))):
            self.entries.append(Entry(item, line, deny, False, read_file))


class Profile:
    def __init__(self, name, doc, read_file):
        self.name, self.doc = name, doc
        self.own = Layer()
        # the order of the file is that of the keys
        for key, value in doc.items():
            if key in ("allowlist", "deny"):
                self.own.add(value, read_file, key == "deny")
        self.observe = doc.get("mode") == "observe"
        self.layers = []


class Question:
    """layer: dns tls http connect tcp. host: text, for all but tcp (and connect to an address)."""

    def __init__(self, layer, src, host=None, port=None, dst=None, qtype=None, method=None, path=None,
                 upgrade=None, ech=False, flaw=None, resolved=None):
        self.layer, self.src, self.host, self.port, self.dst, self.qtype = layer, src, host, port, dst, qtype
        self.method, self.path, self.upgrade = method, path, upgrade
        self.ech, self.flaw, self.resolved = ech, flaw, resolved


class Answer:
    """What is answered, and by which entry: the first of those found, or (one_of) any of them where the
    description names none; nothing found and None: not said."""

    def __init__(self, action, reason, next_=None, found=None, addr=0):
        self.action, self.reason, self.next, self.addr = action, reason, next_, addr
        self.entries = found.hits if found else None
        self.one_of = found is not None and found.reason in ("never", "expired")


class Found:
    """What the entries say about a name or an address."""

    def __init__(self, reason, hits=(), way=None):
        self.reason, self.hits, self.way = reason, list(hits), way
        # an entry that is not there lifts nothing
        self.private = reason not in ("expired", "never", "denied-entry") and any(
            e.private for e, _ in self.hits)


class Policy:
    KNOWN = {"version", "revision", "presets_version", "network", "never", "profiles", "sources",
             "unlisted_sources", "resolver_clients"}
    KNOWN_PROFILE = {"presets", "allowlist", "deny", "dns", "tls", "mode", "extends"}

    def __init__(self, text, read_file, preset_hosts):
        doc = load(text)
        if set(doc) - self.KNOWN:
            raise ValueError("beyond the oracle: %s" % (set(doc) - self.KNOWN))
        self.never = Layer()
        self.never.add(doc.get("never", []), read_file, True)
        self.profiles = {"default": Profile("default", doc.get("network", {}), read_file)}
        for name, body in doc.get("profiles", {}).items():
            self.profiles[name] = Profile(name, body, read_file)
        self.presets = {}
        for p in self.profiles.values():
            if set(p.doc) - self.KNOWN_PROFILE:
                raise ValueError("beyond the oracle: %s" % (set(p.doc) - self.KNOWN_PROFILE))
            p.layers = self.layers_of(p, preset_hosts)
        self.clients = self.read_clients(doc)
        self.owned = [network(n) for n in doc.get("sources", {}) if network(n).prefixlen > 0]

    # -- inheritance --

    def family(self, p):
        """The profile and all that it extends: itself first, then in the order of `extends`."""
        found = [p]
        for parent in p.doc.get("extends", []):
            for q in self.family(self.profiles[parent]):
                if q not in found:
                    found.append(q)
        return found

    def layers_of(self, p, preset_hosts):
        family = self.family(p)
        layers = [q.own for q in family]
        for q in family:
            left_out = ["default"] if q.name == "default" else []
            for preset in q.doc.get("presets", left_out):
                if preset not in self.presets:
                    layer = Layer()
                    for host in preset_hosts(preset):
                        entry = {"domain": host, "protocols": ["https"]}
                        layer.entries.append(Entry(entry, 0, preset=True))
                    self.presets[preset] = layer
                if self.presets[preset] not in layers:
                    layers.append(self.presets[preset])
        return layers

    def setting(self, p, section, key, default):
        """A scalar: own value, else the parents'."""

        def look(q):
            if key in q.doc.get(section, {}):
                return q.doc[section][key]
            values = [look(self.profiles[x]) for x in q.doc.get("extends", [])]
            values = [v for v in values if v is not None]
            return values[0] if values else None

        value = look(p)
        return default if value is None else value

    # -- who asks --

    def read_clients(self, doc):
        clients = []
        if "sources" in doc:
            for n, who in doc["sources"].items():
                clients.append((network(n), "bind" if isinstance(who, dict) else who))
        unlisted = doc.get("unlisted_sources", "deny")
        if isinstance(unlisted, dict):
            clients += [(network(n), "(ignore)") for n in unlisted.get("ignore", [])]
        for n in doc.get("resolver_clients", ["127.0.0.1/32", "::1/128"]):
            clients.append((network(n), "(resolver)"))
        if "sources" not in doc:  # every client, but whom the policy names
            named = [n for n, _ in clients]
            clients += [(n, "default") for n in nets("0.0.0.0/0", "::/0") if n not in named]
        return clients

    def client(self, src):
        best = max((c for c in self.clients if holds(c[0], src)), key=lambda c: c[0].prefixlen, default=None)
        return best[1] if best else None

    # -- which entry decides --

    def decide(self, layers, labels, addr, now, ways, q, any_profile=False):
        """ways: [(way or None, protocol or None)] of which an entry must permit one."""
        banned = [(e, t) for e in self.never.entries for t in e.targets if t.matches(labels, addr)]
        if banned:
            return Found("never", banned)
        hits = [(e, t) for layer in layers for e in layer.entries for t in e.targets
                if t.matches(labels, addr)]
        if any_profile:  # the denials of one profile do not bind another
            hits = [h for h in hits if not h[0].deny]
        if any(e.deny for e, _ in hits):  # the operator's deny beats presets, whatever the length
            hits = [h for h in hits if not h[0].preset]
        gone = [h for h in hits if h[0].expired(now)]
        hits = [h for h in hits if not h[0].expired(now)]
        if not hits:
            return Found("expired", gone) if gone else Found("not-listed")
        longest = max(t.length for _, t in hits)
        hits = [h for h in hits if h[1].length == longest]
        denies = [h for h in hits if h[0].deny]
        if denies:
            return Found("denied-entry", denies)
        for way, protocol in ways:
            fine = [h for h in hits if protocol is None or h[0].permits(protocol, q) == "allowed"]
            if fine:
                return Found("allowed", fine, way)

        def furthest(h):
            return max(REASONS.index(h[0].permits(protocol, q)) for _, protocol in ways)

        best = max(furthest(h) for h in hits)
        return Found(REASONS[best], [h for h in hits if furthest(h) == best])

    # -- addresses --

    def address_reason(self, profile, addr, private, now, local):
        reasons = [self.one_address(profile, a, private, now, local) for a in with_embedded(addr)]
        return min(reasons, key=REASONS.index)

    def one_address(self, profile, a, private, now, local):
        if any(holds(n, a) for n in NEVER) or a in local or any(holds(n, a) for n in self.owned):
            return "address"
        found = self.decide(profile.layers, None, a, now, [(None, None)], None)
        if found.reason in ("never", "denied-entry"):
            return "address"
        if any(holds(n, a) for n in PRIVATE) and not private:
            return "private-address"
        return "allowed"

    # -- the answer --

    def ask(self, q, now, local=()):
        local = {address(a) for a in local}
        if q.flaw == "internal":
            return Answer("deny", "internal-error")
        who = self.client(address(q.src))
        if who is None:
            return Answer("deny", "unknown-source")
        if who == "bind":
            return Answer("deny", "no-binding")
        if who == "(ignore)":
            return Answer("allow", "allowed") if q.layer == "dns" else Answer("deny", "unknown-source")
        if who == "(resolver)" and q.layer != "dns":
            return Answer("deny", "unknown-source")
        profile = None if who == "(resolver)" else self.profiles[who]
        labels = name_of(q.host) if q.host is not None else None
        flaw = self.flaw(q, labels, profile)
        if flaw:
            return Answer("deny", flaw)
        if q.host is None:
            return self.ask_destination(q, profile, now, local)
        if profile is None:
            return self.ask_gateway(q, labels, now)
        return self.ask_name(q, labels, profile, now, local)

    def flaw(self, q, labels, profile):
        flaws = [labels] if isinstance(labels, str) else []
        if q.flaw:
            flaws.append(q.flaw)
        if q.layer == "tls" and q.ech and profile and self.setting(profile, "tls", "ech", "deny") != "allow":
            flaws.append("ech")
        return min(flaws, key=REASONS.index) if flaws else None

    def ask_gateway(self, q, labels, now):
        """The gateway's own look-ups: address types of names that any profile lists."""
        layers = []
        for p in self.profiles.values():
            layers += [x for x in p.layers if x not in layers]
        found = self.decide(layers, labels, None, now, [(None, None)], q, any_profile=True)
        reason = found.reason
        if reason == "allowed" and q.qtype not in ("A", "AAAA"):
            reason = "query-type"
        return Answer("allow" if reason == "allowed" else "deny", reason)

    def ask_name(self, q, labels, profile, now, local):
        ways = {"dns": [(None, None)], "tls": [(None, "https")], "http": [(None, "http")],
                "connect": [(w, WAY_PROTOCOL[w]) for w in WAYS]}[q.layer]
        found = self.decide(profile.layers, labels, None, now, ways, q)
        reason, way = found.reason, found.way
        if q.layer == "dns" and reason == "allowed":
            if q.qtype not in self.setting(profile, "dns", "query_types", DEFAULT_TYPES):
                reason = "query-type"
        observed = reason != "allowed" and profile.observe and reason in OBSERVED
        if reason != "allowed" and not observed:
            return Answer("deny", reason, found=found)
        if observed and q.layer == "connect":
            way = "http" if q.port == 80 else "tls"
        picked = 0
        if q.resolved is not None:
            reasons = [self.address_reason(profile, address(a), found.private, now, local)
                       for a in q.resolved]
            if "allowed" not in reasons:
                worst = min(reasons, key=REASONS.index) if reasons else "unresolved"
                return Answer("deny", worst, found=found)
            picked = reasons.index("allowed")
        action = "next" if q.layer == "connect" else "allow"
        return Answer("observe-" + action if observed else action, reason, way, found, picked)

    def ask_destination(self, q, profile, now, local):
        """Raw: a listed range; else what to expect on this port."""
        dst = address(q.dst)
        found = self.decide(profile.layers, None, dst, now, [("raw", "tcp")], q)
        action = "next" if q.layer == "connect" else "allow"
        reason = found.reason
        if reason == "allowed":
            reason = self.address_reason(profile, dst, found.private, now, local)
            if reason != "allowed":
                return Answer("deny", reason, found=found)
            return Answer(action, "allowed", "raw", found)
        if q.layer == "tcp" and reason not in ("never", "denied-entry"):
            allows = [e for layer in profile.layers for e in layer.entries if not e.deny]
            for way in ("tls", "http"):
                protocol = WAY_PROTOCOL[way]
                if any(protocol in e.protocols and e.has_port(protocol, q.port) for e in allows):
                    return Answer("next", "allowed", way, Found("not-listed"))
        if q.layer == "connect" and reason == "not-listed":
            reason = "ip-literal"  # an address where a name should stand
        if reason == "port" and profile.observe:  # a listed range, on another port
            why = self.address_reason(profile, dst, found.private, now, local)
            if why != "allowed":
                return Answer("deny", why, found=found)
            return Answer("observe-" + action, reason, "raw", found)
        return Answer("deny", reason, found=found)
