"""What a program inherits."""

from __future__ import annotations

import os
import subprocess

import pytest

from skyisland.host.pipes import memory_file

BIG = bytes(range(256)) * 4096
"""More than a pipe holds."""


def test_a_program_reads_a_memory_file_to_its_end() -> None:
    fd = memory_file(BIG)
    try:
        assert not os.get_inheritable(fd), "only who is handed it has it"
        done = subprocess.run(["/bin/cat"], stdin=fd, capture_output=True, check=True)
    finally:
        os.close(fd)
    assert done.stdout == BIG


def test_a_memory_file_that_cannot_be_filled_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def full(fd: int, data: bytes) -> int:
        opened.append(fd)
        raise OSError("no memory")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no memory"):
        memory_file(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
