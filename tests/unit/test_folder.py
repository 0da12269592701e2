"""Folders that are whole or not there, whatever strangers put into them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skyisland.host.folder import delete, partial, remove, size_of, sweep, take_place
from skyisland.host.tasks import aside


def deep(folder: Path, depth: int) -> None:
    """Folders in one another, deeper than Python's stack; the innermost holds three bytes."""
    fds = [os.open(folder, os.O_DIRECTORY)]
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=fds[-1])
            fds.append(os.open("d", os.O_DIRECTORY, dir_fd=fds[-1]))
            os.close(fds.pop(0))
        file = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=fds[-1])
        os.write(file, b"abc")
        os.close(file)
    finally:
        for fd in fds:
            os.close(fd)


def test_the_size_of_a_folder_is_what_it_takes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(bytes(1000))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(24))
    blocks = 3 + 2  # three folders, two files of one block
    assert size_of(tmp_path) == blocks * 4096
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert size_of(tmp_path) == (blocks + 1) * 4096
    (tmp_path / "a" / "one").write_bytes(bytes(4097))
    assert size_of(tmp_path) == (blocks + 2) * 4096
    assert size_of(tmp_path / "nowhere") == 0
    assert size_of(tmp_path / "a" / "one") == 0, "only folders are measured"


def test_a_deep_folder_is_measured_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    deep(tmp_path / "stranger", 1500)
    assert size_of(tmp_path / "stranger") >= 1500 * 4096
    delete(tmp_path / "stranger")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_nobody_may_enter_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "stranger" / "shut").mkdir(parents=True)
    (tmp_path / "stranger" / "shut" / "file").touch()
    (tmp_path / "stranger" / "shut").chmod(0)
    delete(tmp_path / "stranger")
    assert list(tmp_path.iterdir()) == []


async def test_what_is_made_takes_its_place_whole(tmp_path: Path) -> None:
    place = tmp_path / "owner" / "place"

    def make(room: Path, content: str) -> None:
        (room / "made").mkdir()
        (room / "made" / "file").write_text(content)
        take_place(room / "made", place)

    for content in ("first", "second"):
        async with partial(tmp_path) as room:
            await aside(make, room, content)
        assert (place / "file").read_text() == content
        assert list(tmp_path.iterdir()) == [tmp_path / "owner"]


async def test_what_was_not_finished_goes(tmp_path: Path) -> None:
    async def fail() -> None:
        async with partial(tmp_path) as room:
            await aside((room / "half").mkdir)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        await fail()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_life_is_swept(tmp_path: Path) -> None:
    (tmp_path / "sky-0123456789abcdef" / "half").mkdir(parents=True)
    (tmp_path / "sky-0123").mkdir()
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "sky-0123"]
    remove(tmp_path / "sky-0123", tmp_path)
    remove(tmp_path / "sky-0123", tmp_path)
    assert list(tmp_path.iterdir()) == []
