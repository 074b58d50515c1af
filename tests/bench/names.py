# SPDX-License-Identifier: Apache-2.0
"""Names for benchmarks, from fixed seeds: the same in every run. About 21.7 octets each on the wire."""

import random

TLDS = ("com", "net", "org", "io", "dev", "app")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def label(rng, low, high):
    return "".join(rng.choices(LETTERS, k=rng.randint(low, high - 1))) + rng.choice(LETTERS[:26])


def domains(n, seed):
    rng = random.Random(seed)
    return [label(rng, 4, 8) + "." + rng.choice(TLDS) for _ in range(n)]


def listed(n, seed=1):
    """n names of three labels, two or so below each domain."""
    rng = random.Random(seed)
    under = domains(n // 2 + 1, seed + 1)
    found = set()
    while len(found) < n:
        found.add(label(rng, 5, 13) + "." + rng.choice(under))
    return sorted(found)
