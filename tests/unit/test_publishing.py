"""A folder of the user's own machine becomes a repository for the island, as long as a command lasts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click
import pytest
from msgspec import structs

from skyisland.cli import GlobalOptions
from skyisland.cli.publishing import found, is_folder
from skyisland.client import Unreachable
from skyisland.errors import SettingsError
from skyisland.settings import Settings, dump
from skyisland.sources.url import parse_url, remote_of


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def options(tmp_path: Path) -> GlobalOptions:
    state = tmp_path / "state"
    state.mkdir(mode=0o711)
    file = tmp_path / "skyisland.toml"
    settings = structs.replace(Settings(), state_dir=state, http_port=1, admin_api_token="a-token")
    file.write_text(dump(settings, secrets=True))
    file.chmod(0o600)
    return GlobalOptions(file)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    (folder / "sub").mkdir(parents=True)
    (folder / "go.mod").write_text("module mine\n")
    (folder / "sub" / "s.go").write_text("package sub\n")
    return folder


def place_of(options: GlobalOptions, url: str) -> Path:
    """Where the island's Git finds what a command published."""
    settings = options.settings()
    repository = parse_url(url, settings.git.allowed_schemes)
    assert repository.depth is None or repository.literal
    remote = remote_of(repository.name(1), settings.repositories.rewrites)
    assert remote.scheme == "file"
    return Path(remote.url.removeprefix("file://"))


@pytest.mark.parametrize("text", [".", "..", "./a", "../a", "/a", "~/a", "~"])
def test_what_is_a_folder(text: str) -> None:
    assert is_folder(text)


@pytest.mark.parametrize("text", ["github.com/user/repo", "a", "https://./a", "file:///a", ".git.example/a"])
def test_what_is_a_url(options: GlobalOptions, text: str) -> None:
    assert not is_folder(text)
    with found(options, text, "v1") as place:
        assert place == (text, "v1")


def test_the_files_as_they_lie_there(
    options: GlobalOptions, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed or not, with their bytes and modes; without what is ignored; and nothing there is run."""
    ran = mine.parent / "ran"
    git(mine.parent, "init", "--quiet", str(mine))
    git(mine, "config", "filter.evil.clean", f"touch {ran}; cat")
    git(mine, "config", "core.fsmonitor", f"touch {ran}")
    (mine / ".gitattributes").write_text("*.txt filter=evil text eol=lf\n")
    (mine / ".gitignore").write_text("secret\n")
    (mine / "secret").write_text("x")
    (mine / "data.txt").write_bytes(b"1\r\n2\n\xff")
    (mine / "tool").write_text("#!/bin/sh\n")
    (mine / "tool").chmod(0o755)
    (mine / "link").symlink_to("tool")
    monkeypatch.setenv("GIT_INDEX_FILE", str(mine / "another"))  # as in a hook of Git
    with found(options, str(mine / "sub"), None) as (url, commit):
        repository, package = url.split("//")
        assert (package, commit is not None) == ("sub", True)
        bare = place_of(options, url)
        monkeypatch.delenv("GIT_INDEX_FILE")
        assert not git(bare, "fsck", "--strict", "--no-dangling")
        listed = git(bare, "ls-tree", "-r", str(commit)).splitlines()
        assert {line.split("\t")[1]: line.split()[0] for line in listed} == {
            ".gitattributes": "100644",
            ".gitignore": "100644",
            "data.txt": "100644",
            "go.mod": "100644",
            "link": "120000",
            "sub/s.go": "100644",
            "tool": "100755",
        }
        shown = subprocess.run(
            ["git", "-C", bare, "show", f"{commit}:data.txt"], capture_output=True, check=True
        )
        assert shown.stdout == b"1\r\n2\n\xff"
        assert f"{commit}\trefs/heads/{commit}" in git(bare, "ls-remote", bare.as_uri())
    assert not ran.exists()
    assert not bare.exists()
    assert not (mine / ".git" / "index").exists(), "the folder's own repository is as it was"
    (mine / "sub" / "s.go").write_text("package sub // another\n")
    with found(options, str(mine), None) as (again, changed):
        assert again == repository, "the same folder has the same name"
        assert changed != commit
    (mine / "sub" / "s.go").write_text("package sub\n")
    with found(options, str(mine), None) as (_, same):
        assert same == commit, "the same files make the same commit"


def test_the_last_command_removes_what_was_published(options: GlobalOptions, mine: Path) -> None:
    with found(options, str(mine), None) as (url, _):
        bare = place_of(options, url)
        with found(options, str(mine), None) as other:
            assert other[0] == url
        assert (bare / "HEAD").exists(), "somebody still calls it"
        assert bare.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in bare.parent.iterdir()] == [".lock"]


def test_no_name_can_be_guessed(options: GlobalOptions, mine: Path) -> None:
    names = set()
    for token in ("one", "two"):
        file = options.file
        assert file is not None
        file.write_text(file.read_text().replace('"a-token"', f'"{token}"').replace('"one"', f'"{token}"'))
        with found(options, str(mine), None) as (url, _):
            names.add(url)
    assert len(names) == 2


def test_what_cannot_be_called(options: GlobalOptions, mine: Path) -> None:
    assert options.file is not None
    with pytest.raises(click.UsageError, match="there is no folder"), found(options, f"{mine}/none", None):
        pass
    with pytest.raises(click.UsageError, match="check that version out"), found(options, str(mine), "v1"):
        pass
    options.file.write_text(options.file.read_text().replace('"a-token"', '""'))
    with pytest.raises(Unreachable), found(options, str(mine), None):
        pass


def test_a_folder_that_the_settings_lead_to(
    options: GlobalOptions, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another user's island, the last commit is called; where it knows no way, the error says how."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    settings = options.settings()
    monkeypatch.setattr(GlobalOptions, "settings", lambda self: settings)
    with pytest.raises(Unreachable), found(options, str(mine), None):
        pass
    monkeypatch.setattr("skyisland.client.Client.capabilities", lambda self: [])
    with pytest.raises(SettingsError) as refused, found(options, str(mine), None):
        pass
    for words in (f'"{mine.parent.as_uri()}/"', "my.example/my project", str(options.file), "another user's"):
        assert words in refused.value.message
    rewrite = {"https://my.example/team/": f"{mine.parent.as_uri()}/"}
    settings = structs.replace(settings, git=structs.replace(settings.git, rewrite=rewrite))
    git(mine.parent, "init", "--quiet", str(mine))
    git(mine, "add", "--all")
    git(mine, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message=First")
    with found(options, str(mine / "sub"), None) as place:
        assert place == ("my.example/team/my project//sub", git(mine, "rev-parse", "HEAD"))
    assert capsys.readouterr().err == ""
    (mine / "go.mod").write_text("module other\n")
    with found(options, str(mine), None):
        assert "changes without a commit" in capsys.readouterr().err
