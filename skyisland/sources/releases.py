"""The releases of a package in their order. Pure: no disk, no network.

A release is a tag of two or three numbers (`v1.2`, `1.2.3`), with or without a suffix (`-rc1`), ordered as
semver.org has it. A package in a folder has the tags of the nearest folder above that has any
(`sub/v1.2.3`), like a Go module; else the repository's.
"""

from __future__ import annotations

import re

from skyisland.sources.versions import prefixes_of, suffix_parts
from skyisland.wire import PastVersion

_TAG = re.compile(rb"^([0-9a-f]{40})\trefs/tags/([^\n^]{1,255})(\^\{\})?$", re.MULTILINE)
_RELEASE = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")

Order = tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]


def order_of(tag: str) -> Order | None:
    """What releases are sorted by; None if the tag is none."""
    release = _RELEASE.fullmatch(tag)
    if release is None:
        return None
    numbers = (int(release[1]), int(release[2]), int(release[3] or 0))
    return numbers, release[4] is None, suffix_parts(release[4])


def releases_among(listing: bytes, package: str) -> list[PastVersion]:
    """The releases in the output of `git ls-remote` for a package, oldest first."""
    found: dict[str, dict[str, tuple[Order, str]]] = {}
    prefixes = prefixes_of("latest", package)
    for match in _TAG.finditer(listing):
        tag = match[2].decode(errors="replace")
        folder, slash, last = tag.rpartition("/")
        prefix = folder + slash
        if prefix in prefixes and (order := order_of(last)) is not None:
            # The line of the commit that a tag was peeled to follows that of the tag.
            found.setdefault(prefix, {})[last] = order, match[1].decode()
    its = next((found[prefix] for prefix in prefixes if prefix in found), {})
    ordered = sorted(its, key=lambda tag: (its[tag][0], tag))
    return [PastVersion(tag, its[tag][1]) for tag in ordered]
