"""The admin token: where it comes from, and that nobody else learns it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.pretty import pretty_repr

from skyisland.errors import SettingsError
from skyisland.settings import (
    Settings,
    admin_token,
    dump,
    write_private,
)


def test_the_token_of_the_file_wins_over_the_environment(load_settings: Callable[..., Settings]) -> None:
    assert admin_token(load_settings("", SKYISLAND_ADMIN_API_TOKEN="from-env")) == "from-env"
    settings = load_settings("admin_api_token = 'from-file'", SKYISLAND_ADMIN_API_TOKEN="from-env")
    assert admin_token(settings) == "from-file"


def test_token_and_tls_may_be_credentials_of_systemd(
    load_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    text = (
        "admin_api_token = '$CREDENTIALS_DIRECTORY/admin'\n"
        "[api]\ntls_cert = '$CREDENTIALS_DIRECTORY/cert'\ntls_key = '$CREDENTIALS_DIRECTORY/key'\n"
    )
    (tmp_path / "admin").write_text("hush-hush\n")
    (tmp_path / "admin").chmod(0o400)
    settings = load_settings(text, CREDENTIALS_DIRECTORY=str(tmp_path), SKYISLAND_ADMIN_API_TOKEN="other")
    assert admin_token(settings) == "hush-hush"
    assert (settings.api.tls_cert, settings.api.tls_key) == (f"{tmp_path}/cert", f"{tmp_path}/key")
    command = load_settings(text)  # which is started by hand
    with pytest.raises(SettingsError, match="set SKYISLAND_ADMIN_API_TOKEN"):
        admin_token(command)
    assert command.api.tls_key == "$CREDENTIALS_DIRECTORY/key"
    assert admin_token(load_settings(text, SKYISLAND_ADMIN_API_TOKEN="from-env")) == "from-env"
    (tmp_path / "admin").chmod(0o444)
    with pytest.raises(SettingsError, match="every user of this host"):
        load_settings(text, CREDENTIALS_DIRECTORY=str(tmp_path))
    (tmp_path / "admin").unlink()
    with pytest.raises(SettingsError, match="LoadCredential="):
        load_settings(text, CREDENTIALS_DIRECTORY=str(tmp_path))
    with pytest.raises(SettingsError, match=r'tls_key: found "\$CREDENTIALS_DIRECTORY/../key"'):
        load_settings("[api]\ntls_cert = '/c'\ntls_key = '$CREDENTIALS_DIRECTORY/../key'")


def test_a_bad_token_is_refused_and_not_told(load_settings: Callable[..., Settings]) -> None:
    for text, environ in (
        ("admin_api_token = 'hush hush'", {}),
        ("", {"SKYISLAND_ADMIN_API_TOKEN": "hush\n"}),
    ):
        with pytest.raises(SettingsError, match="admin_api_token: found a value not shown here") as error:
            load_settings(text, **environ)
        assert "hush" not in str(error.value) + repr(error.value.details)
    with pytest.raises(SettingsError) as error:
        load_settings("admin_api_token = 112358")
    assert "112358" not in str(error.value)


def test_the_token_is_never_shown() -> None:
    settings = Settings(admin_api_token="hush")
    assert "hush" not in repr(settings) + str(settings) + pretty_repr(settings) + dump(settings)
    assert "hush" in dump(settings, secrets=True)


def test_the_first_start_makes_a_token_that_stays(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir / "new")
    with pytest.raises(SettingsError, match="holds no admin token yet"):
        admin_token(settings, make=False)
    with pytest.raises(SettingsError, match="cannot be read or stored"):
        admin_token(Settings(state_dir=Path(__file__) / "no folder"))
    token = admin_token(settings)
    assert len(token) >= 40
    assert stat.S_IMODE(settings.layout.token.stat().st_mode) == 0o600
    assert admin_token(settings) == admin_token(settings, make=False) == token
    assert admin_token(Settings(state_dir=state_dir / "other")) != token


def test_two_first_starts_get_one_token(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir / "new")
    start, tokens = threading.Barrier(8), []

    def first_start() -> None:
        start.wait()
        tokens.append(admin_token(settings))

    threads = [threading.Thread(target=first_start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
    assert os.listdir(settings.state_dir) == ["admin-token"]


def test_a_token_that_others_could_know_is_refused(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=state_dir)
    path = settings.layout.token

    def refusal() -> str:
        with pytest.raises(SettingsError) as error:
            admin_token(settings)
        return str(error.value)

    write_private(path, "hush")
    path.chmod(0o640)
    assert "mode 0640" in refusal()
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to uid" in refusal()
    monkeypatch.undo()
    path.unlink()
    for content in ("", "hush hush"):
        write_private(path, content, replace=True)
        assert "holds no token" in refusal()
    path.rename(state_dir / "elsewhere")
    path.symlink_to(state_dir / "elsewhere")
    assert "cannot be read" in refusal()
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "not a regular file" in refusal()


def test_a_private_file_is_not_replaced_by_mistake(state_dir: Path) -> None:
    path = state_dir / "file"
    write_private(path, "one")
    with pytest.raises(FileExistsError):
        write_private(path, "two")
    assert path.read_text() == "one"
    write_private(path, "two", replace=True)
    assert path.read_text() == "two"
    assert os.listdir(state_dir) == ["file"]


def test_who_may_not_read_it_is_told_who_may(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SettingsError, match=r"denied; only the island's own user may, .*sudo -u"):
        admin_token(Settings(state_dir=state_dir), make=False)
