"""The state folder: who may enter it, and who may put something there."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from skyisland.errors import SettingsError
from skyisland.events import Events
from skyisland.settings import Jails, Settings
from skyisland.settings.files import check_folder
from skyisland.wiring import opened

NOBODY = 65534


def read_as_nobody(path: Path) -> bool:
    """Whether another user of this host reads a file."""
    reading = subprocess.run(
        ["/bin/cat", str(path)], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )
    return reading.returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("driver", ["fake", "bubblewrap"])
async def test_no_other_user_reads_what_private_repositories_hold(state_dir: Path, driver: str) -> None:
    state_dir.chmod(0o755)
    settings = Settings(state_dir=state_dir, jails=Jails(driver=driver))  # type: ignore[arg-type]
    layout = settings.layout
    secrets = [
        layout.checkouts / "0123-example.com_a/file",
        layout.repos / "0123-example.com_a/HEAD",
        layout.artifacts / "ab/abcd",
        layout.catalogues / "abcd.json",
    ]
    for secret in secrets:
        secret.parent.mkdir(parents=True)
        secret.write_text("private")
    assert all(map(read_as_nobody, secrets)), "where nobody closes the folders, everybody reads"
    async with opened(settings, Events()):
        checkouts = layout.checkouts.stat()
    assert not any(map(read_as_nobody, secrets))
    # Build jails of bubblewrap pass through the folder, and see what is bound into them.
    passed = (0o710, settings.jails.uid_start) if driver == "bubblewrap" else (0o700, 0)
    assert (stat.S_IMODE(checkouts.st_mode), checkouts.st_gid) == passed


def test_a_folder_that_others_may_change_is_refused(state_dir: Path) -> None:
    state = state_dir / "above/state"
    check_folder(state)
    state.mkdir(parents=True)
    for folder in (state, state.parent):
        check_folder(state)
        folder.chmod(0o777)
        with pytest.raises(SettingsError, match=rf"{folder} belongs to uid {os.geteuid()} .* mode 0777"):
            check_folder(state)
        folder.chmod(0o755)
    # A sticky folder is as good as one of ours, but for what is kept in it itself.
    state.parent.chmod(0o1777)
    check_folder(state)
    state.chmod(0o1777)
    with pytest.raises(SettingsError, match="mode 1777"):
        check_folder(state)


@pytest.mark.root
async def test_a_folder_of_another_user_is_refused_and_nothing_written(state_dir: Path) -> None:
    (state_dir / "theirs").mkdir()
    os.chown(state_dir / "theirs", NOBODY, NOBODY)
    (state_dir / "link").symlink_to(state_dir / "theirs")
    for state in (state_dir / "theirs", state_dir / "theirs/state", state_dir / "link/state"):
        with pytest.raises(SettingsError, match=f"belongs to uid {NOBODY}"):
            async with opened(Settings(state_dir=state), Events()):
                pass
    assert list((state_dir / "theirs").iterdir()) == []


def test_settings_with_a_token_that_others_read_are_warned_of(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = state_dir / "skyisland.toml"
    path.write_text("[api.operators]\nbob = 'hush-hush-hush-hush'\n")
    path.chmod(0o644)
    Settings.load(path, {"HOME": "/root"})
    assert "mode 0644: every user of this host may read it; chmod 600 it" in caplog.text
    assert "hush" not in caplog.text
    caplog.clear()
    path.chmod(0o600)
    Settings.load(path, {"HOME": "/root"})
    path.write_text("http_port = 1\n")
    path.chmod(0o644)
    Settings.load(path, {"HOME": "/root"})
    assert caplog.text == ""


@pytest.mark.parametrize(("mode", "gid"), [(0o602, 0), (0o666, 0), (0o660, NOBODY)])
def test_settings_that_others_write_are_refused(state_dir: Path, mode: int, gid: int) -> None:
    path = state_dir / "skyisland.toml"
    path.write_text("http_port = 1\n")
    if gid and os.geteuid() != 0:
        pytest.skip("only root gives a file to another group")
    os.chown(path, -1, gid or os.getegid())
    path.chmod(0o644)
    assert Settings.load(path, {"HOME": "/root"}).http_port == 1
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"mode {mode:04o} .* others may change the settings; chmod go-w"):
        Settings.load(path, {"HOME": "/root"})
