"""The command lines of FreeBSD are those of docs/freebsd-commands.md (tests/support/freebsd_commands.py)."""

from __future__ import annotations

import pytest

from skyisland.drivers.zfs import commands as zfs
from tests.support.freebsd_commands import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(
    "words",
    [
        ("destroy", "-r", "tank"),
        ("destroy", "-R", "tank@a"),
        ("destroy", "-rf", "tank"),
        ("snapshot", "-r", "tank@a"),
        ("promote", "tank/a"),
        ("rollback", "tank@a"),
        ("send", "tank@a"),
    ],
)
def test_what_zfs_is_never_told(words: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        zfs.argv(*words)
