"""Which binaries make room for others. A pure function, so that it can be tried without files.

What nobody used lately goes first, the least recently used before others. Of what is in use, the client who
has most room gives some up, and of that the repository that has most: so clients share the room evenly, and
the repositories of a client, however many binaries anybody has made meanwhile. A binary that several clients
use counts to each of them, and is kept for the one who has least.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from skyisland.model import Artifact


def surplus(
    artifacts: Collection[Artifact],
    idle: Sequence[Artifact],
    users: Mapping[str, Collection[str]],
    limit_bytes: int,
) -> list[Artifact]:
    """Those of `idle` that must go, lest all `artifacts` take more than `limit_bytes`.

    `idle`: the least recently used first. `users`: the clients who used an artifact lately, by its key.
    """
    total = sum({a.sha256: a.size_bytes for a in artifacts}.values())
    of_client: Counter[str] = Counter()
    of_repository: Counter[str] = Counter()

    def count(artifact: Artifact, size_bytes: int) -> None:
        of_repository[artifact.url] += size_bytes
        for client in users.get(artifact.key, ()):
            of_client[client] += size_bytes

    def rank(artifact: Artifact) -> tuple[float, int]:
        clients = users.get(artifact.key, ())
        if not clients:
            return math.inf, 0
        return min(of_client[client] for client in clients), of_repository[artifact.url]

    for artifact in artifacts:
        count(artifact, artifact.size_bytes)
    left, doomed = list(idle), []
    while left and total > limit_bytes:
        artifact = left.pop(max(range(len(left)), key=lambda place: rank(left[place])))  # of equals the first
        doomed.append(artifact)
        count(artifact, -artifact.size_bytes)
        total -= artifact.size_bytes
    return doomed
