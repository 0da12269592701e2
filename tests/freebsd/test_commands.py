"""The commands of an operator, where FreeBSD made them fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from skyisland import choosing
from skyisland.cli import main, serving
from skyisland.host.toolchain import Toolchains
from skyisland.settings import Settings


def test_init_that_is_ended_by_sigterm_takes_back_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    class Slow:
        async def start(self, *_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

        async def stop(self) -> None:
            stopped.append(True)

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Slow]:
        yield Slow()

    monkeypatch.setattr(serving, "opened", opened)
    config = tmp_path / "skyisland.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n')
    done = CliRunner().invoke(main, ["-c", str(config), "init"])
    assert stopped == [True]
    assert done.exit_code == 1
    assert "run it again to go on" in done.output


async def test_doctor_without_a_dataset_has_a_line_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "FREEBSD", True)
    monkeypatch.setattr(choosing, "LINUX", False)
    settings = Settings(state_dir=tmp_path)
    toolchains = Toolchains(tmp_path, goroot="", version="", search_path="")
    (examiner,) = choosing.examiners(settings, None, toolchains, full=True)
    (check,) = await examiner.examine()
    assert (check.name, check.ok, check.vital) == ("zfs", False, True)
    assert check.found == "filesystem.zfs_dataset is not set"
    assert "zroot" in check.remedy
