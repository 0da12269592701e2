"""Where the demo's clones lie on FreeBSD."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.places import ROOT


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("demo")


@pytest.fixture
def zpool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a zpool(8) that does nothing was called with, a line for each call."""
    said = tmp_path / "said"
    program = tmp_path / "bin" / "zpool"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{said}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return said


def test_a_pool_on_a_file_for_as_long_as_the_demo(
    demo: ModuleType, zpool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def use() -> None:
        with demo.storage(tmp_path, None, "freebsd15") as settings:
            pool = settings["filesystem"]["zfs_dataset"]
            assert zpool.read_text() == f"create -m {tmp_path}/zfs {pool} {tmp_path}/pool\n"
            assert (tmp_path / "pool").stat().st_size == demo.POOL_BYTES
            raise KeyError(pool)

    with pytest.raises(KeyError) as failed:
        use()
    assert zpool.read_text().splitlines()[1:] == [f"destroy -f {failed.value.args[0]}"]


def test_a_dataset_that_is_named_is_used(demo: ModuleType, zpool: Path, tmp_path: Path) -> None:
    with demo.storage(tmp_path, "zroot/demo", "freebsd15") as settings:
        assert settings == {"filesystem": {"zfs_dataset": "zroot/demo"}}
    with demo.storage(tmp_path, None, "linux") as settings:
        assert settings == {}
    assert not zpool.exists()


def test_others_than_root_are_told(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1001)
    with pytest.raises(SystemExit, match="run as root"), demo.storage(tmp_path, None, "freebsd15"):
        pass
