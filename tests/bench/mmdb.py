# SPDX-License-Identifier: Apache-2.0
"""Writes an IPv4 database in the form that libmaxminddb reads, from prefixes and a name for each. As much as
the benchmark needs: 24-bit records, one string a prefix."""

import ipaddress

MARKER = b"\xab\xcd\xefMaxMind.com"
STRING, UINT16, UINT32, MAP, UINT64, ARRAY = 2, 5, 6, 7, 9, 11


def control(kind, size):
    if size > 28:
        raise ValueError("longer than one octet can say")
    return bytes([size, kind - 7]) if kind > 7 else bytes([kind << 5 | size])


def encode(value, kind=None):
    if isinstance(value, str):
        raw = value.encode()
        return control(STRING, len(raw)) + raw
    if isinstance(value, dict):
        return control(MAP, len(value)) + b"".join(encode(k) + encode(*v) for k, v in value.items())
    if isinstance(value, list):
        return control(ARRAY, len(value)) + b"".join(encode(v) for v in value)
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return control(kind, len(raw)) + raw


class Tree:
    """nodes: [left, right]; a child is None, a node (int), or data (str)."""

    def __init__(self):
        self.nodes = [[None, None]]

    def insert(self, prefix, name):
        """Shorter prefixes must come first."""
        bits, node = int(prefix.network_address), 0
        for i in range(31, 31 - prefix.prefixlen + 1, -1):
            side = bits >> i & 1
            child = self.nodes[node][side]
            if not isinstance(child, int):
                self.nodes.append([child, child])
                child = self.nodes[node][side] = len(self.nodes) - 1
            node = child
        self.nodes[node][bits >> (32 - prefix.prefixlen) & 1] = name


def write(path, prefixes):
    """prefixes: {text: name}, none of length 0."""
    tree = Tree()
    parsed = sorted(((ipaddress.ip_network(p), n) for p, n in prefixes.items()),
                    key=lambda x: (x[0].prefixlen, x[0]))
    for prefix, name in parsed:
        tree.insert(prefix, name)
    count, data, where = len(tree.nodes), b"", {}
    for name in sorted(set(prefixes.values())):
        where[name] = len(data)
        data += encode(name)

    def record(child):
        if child is None:
            return count
        return child if isinstance(child, int) else count + 16 + where[child]

    meta = encode({"binary_format_major_version": (2, UINT16), "binary_format_minor_version": (0, UINT16),
                   "build_epoch": (1795262400, UINT64), "database_type": ("cx-bench",),
                   "description": ({"en": ("bench",)},), "ip_version": (4, UINT16), "languages": (["en"],),
                   "node_count": (count, UINT32), "record_size": (24, UINT16)})
    with open(path, "wb") as f:
        for left, right in tree.nodes:
            f.write(record(left).to_bytes(3, "big") + record(right).to_bytes(3, "big"))
        f.write(bytes(16) + data + MARKER + meta)
