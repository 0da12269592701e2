"""Uids of jails, and the locks that keep two islands of one host apart."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from skyisland.host.uids import Uids


@pytest.mark.parametrize("of_descriptors", [True, False], ids=["Linux", "FreeBSD"])
async def test_a_uid_that_was_given_back_is_taken_again(
    of_descriptors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FreeBSD has locks of processes alone; there Python's `lockf` refused how one was given up (15.0)."""
    if not of_descriptors:
        for name in ("F_OFD_SETLK", "F_OFD_GETLK"):
            monkeypatch.delattr(fcntl, name, raising=False)
    uids = Uids(range(1_950_000_000, 1_950_000_002), tmp_path / "uids")
    for _ in range(3):
        uid = await uids.take()
        uids.give_back(uid)
    uids.close()
