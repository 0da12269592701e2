"""Private repositories: a real https server that wants a token, a real sshd that wants a key."""

from __future__ import annotations

import base64
import getpass
import logging
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skyisland.errors import SettingsError, SourceRefused, SourceUnavailable
from skyisland.host import outbound
from skyisland.settings import Credential
from skyisland.sources import git
from skyisland.sources.git import GitCommand
from tests.support.places import ROOT
from tests.support.upstream import Repository, Room, Server, backend, room

TOKEN = "not-a-real-token-0123456789"
CERTIFICATE = ROOT / "tests/api/tls/cert.pem"


class TlsServer(Server):
    """A Git server by https that serves `user/repo` to who shows the token, and redirects `user/old` to
    it."""

    def __init__(self, root: Path, away: str = "") -> None:
        """`away`: where `user/away` is redirected to."""
        self.shown: list[str] = []
        shown = self.shown

        class Private(backend(root)):  # type: ignore[misc]
            def do_GET(self) -> None:
                authorization = self.headers.get("Authorization", "Basic ")
                shows = base64.b64decode(authorization.split(" ")[1]).decode()
                shown.extend([shows] if shows else [])
                if self.path.startswith("/user/old"):
                    self.answer(301, Location=self.path.replace("/user/old", "/user/repo"))
                elif self.path.startswith("/user/away"):
                    self.answer(301, Location=self.path.replace("/user/away", f"{away}/user/repo"))
                elif shows != f"x-access-token:{TOKEN}":
                    self.answer(401, authorization.encode(), WWW_Authenticate='Basic realm="x"')
                elif not self.path.startswith("/user/repo"):
                    self.answer(404, TOKEN.encode(), Content_Type="text/plain")
                else:
                    super().do_GET()

            do_POST = do_GET

        super().__init__(Private)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE, ROOT / "tests/api/tls/key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://{self.address}"
        self.rewrite = {"https://git.test/": f"{self.base}/"}


@pytest.fixture
def token(state_dir: Path) -> Path:
    return secret(state_dir / "token", TOKEN + "\n")


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What every Git of the test is given, arguments and environment."""
    given: list[str] = []
    make = GitCommand.__init__

    def note(self: GitCommand, *words: Any, **options: Any) -> None:
        make(self, *words, **options)
        given.extend([*self._arguments, *self._environment])

    monkeypatch.setattr(GitCommand, "__init__", note)
    return given


def reason(refusal: pytest.ExceptionInfo[SourceUnavailable]) -> str:
    return refusal.value.for_admins


async def test_a_token_opens_a_private_repository_to_those_with_a_name(
    state_dir: Path,
    repository: Repository,
    token: Path,
    commands: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = TlsServer(state_dir / "srv")
    with server:
        base, rewrite = server.base, server.rewrite

        def shown(**more: Any) -> dict[str, Any]:
            one = Credential(token=str(token), ca=str(CERTIFICATE), **more)
            return {"credentials": {f"{base}/user/": one}}

        async with room(state_dir, rewrite, **shown()) as it:
            url = "git.test/user/repo.git"
            # Nobody asks the server for who may not.
            for nobody in ("192.0.2.1", "2001:db8::/64", ""):
                for asked in (url, "git.test/user/nothing/at/all", "git.test/user/repo/tree/main"):
                    with pytest.raises(SourceRefused, match="served to callers with a token; send yours"):
                        await it.sources.resolve(asked, None, client=nobody)
            assert server.asked == []
            for client in ("alice", "this process"):
                source = await it.sources.checkout(await it.sources.resolve(url, None, client=client), client)
                assert source.commit == repository.git("rev-parse", "HEAD")
            # What is known and on disk is as private.
            with pytest.raises(SourceRefused):
                await it.sources.resolve(url, source.commit, client="192.0.2.1")
            if os.geteuid() == 0:
                assert it.repos.joinpath(next(it.repos.glob("*user_repo"))).stat().st_uid == 0
            with pytest.raises(
                SourceUnavailable, match=r"there is no repository git\.test/user/gone, or"
            ) as gone:
                await it.get("git.test/user/gone.git")
            assert reason(gone).startswith("404: the server has no such repository")
            assert TOKEN not in reason(gone) + gone.value.message
        assert f"x-access-token:{TOKEN}" in server.shown
        assert not [word for word in commands if TOKEN in word]
        async with room(state_dir, rewrite, **shown(callers=("alice",))) as it:
            with pytest.raises(SourceRefused, match="and not to everyone's"):
                await it.sources.resolve(url, None, client="bob")
            await it.sources.resolve(url, None, client="alice")
            secret(token, "wrong-token")
            caplog.set_level(logging.WARNING)
            with pytest.raises(SourceUnavailable, match=r"or it is private$") as refusal:
                await it.get(url, refresh=True)
            assert reason(refusal).startswith("401: the server takes no such token")
            assert "git.test/user/repo cannot be fetched: 401: " in caplog.text
            assert "wrong-token" not in caplog.text + reason(refusal)
        plain = Credential(token=str(token))
        async with room(state_dir, rewrite, credentials={f"{base}/": plain}) as it:
            with pytest.raises(SourceUnavailable) as refusal:
                await it.get(url, refresh=True)
            assert reason(refusal).startswith("certificate: ")


async def test_no_redirect_carries_a_token_nor_borrows_one(
    state_dir: Path, repository: Repository, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    monkeypatch.setattr(outbound, "_certificates", lambda: trusting)
    monkeypatch.setattr(outbound, "is_public", lambda *_: True)
    one = Credential(token=str(token), ca=str(CERTIFICATE))
    anonymous = {"GIT_SSL_CAINFO": str(CERTIFICATE)}
    monkeypatch.setattr("skyisland.sources.git._ENVIRONMENT", {**git._ENVIRONMENT, **anonymous})
    other = TlsServer(state_dir / "srv")
    server = TlsServer(state_dir / "srv", other.base)
    with other, server:
        # Who calls `old`, for which nothing is shown, does not come by what it leads to.
        only = {f"{server.base}/user/repo": one}
        async with room(state_dir, server.rewrite, credentials=only) as it:
            with pytest.raises(SourceUnavailable):
                await it.sources.resolve("git.test/user/old.git", None, client="192.0.2.1")
            assert [line for line in server.asked if "/user/repo/" in line]
            assert server.shown == []
            assert (await it.get("git.test/user/repo.git")).commit == repository.git("rev-parse", "HEAD")
        # A redirect to another server shows it nothing; one to where the prefix leads does.
        async with room(state_dir, server.rewrite, credentials={f"{server.base}/": one}) as it:
            with pytest.raises(SourceUnavailable):
                await it.get("git.test/user/away.git")
            assert [line for line in other.asked if "/user/repo" in line]
            assert other.shown == []
            assert (await it.get("git.test/user/old.git")).commit == repository.git("rev-parse", "HEAD")


def test_files_of_credentials_are_looked_at_when_the_island_starts(state_dir: Path, token: Path) -> None:
    def fault(folder: str = "", *, token: str) -> str:
        one = {"https://x.test/": Credential(token=token)}
        it = Room(state_dir, {}, credentials=one, credentials_dir=folder)
        try:
            it.sources._credentials.check()
        except SettingsError as error:
            return error.message
        return ""

    assert fault(token=str(token)) == ""
    assert fault(str(state_dir), token="$CREDENTIALS_DIRECTORY/token") == ""
    assert "cannot be read: No such file" in fault(token="$CREDENTIALS_DIRECTORY/token")
    token.chmod(0o644)
    assert 'git.credentials."https://x.test/".token: ' in fault(token=str(token))
    assert "every user of this host may read it; chmod 600 it" in fault(token=str(token))
    assert "holds none" in fault(token=str(secret(state_dir / "empty", "\n")))


class Sshd:
    """OpenSSH's server on a loopback port, which lets one key in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        for name in ("host", "key", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        host_key = " ".join((folder / "host.pub").read_text().split()[:2])
        self.known = folder / "known_hosts"
        self.known.write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        options = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": folder / "authorized",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "PermitRootLogin": "prohibit-password",
        }
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
        assert sshd is not None, "tests need OpenSSH's server (apt install openssh-server)"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        words = [
            sshd,
            "-D",
            "-e",
            "-f",
            "/dev/null",
            *(f"-o{name}={value}" for name, value in options.items()),
        ]
        self._process = subprocess.Popen(words, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b"listening" in line:
                break

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


@pytest.fixture
def sshd(state_dir: Path) -> Iterator[Sshd]:
    with Sshd(state_dir / "ssh") as server:
        yield server


async def test_a_key_opens_a_private_repository_by_ssh(
    state_dir: Path, repository: Repository, sshd: Sshd, caplog: pytest.LogCaptureFixture
) -> None:
    base = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}{state_dir}/srv/"
    rewrite = {"https://git.test/": base}
    url = "git.test/user/repo.git"
    strange = secret(state_dir / "ssh/strange", "[127.0.0.1]:1 ssh-ed25519 AAAA\n")
    for key, known, word in (
        ("key", sshd.known, ""),
        ("key", strange, "host key: "),
        ("other", sshd.known, "publickey: "),
    ):
        one = Credential(key=str(sshd.folder / key), known_hosts=str(known))
        async with room(state_dir, rewrite, credentials={base: one}) as it:
            with pytest.raises(SourceRefused):
                await it.sources.resolve(url, None, client="192.0.2.1")
            if not word:
                assert (await it.get(url)).commit == repository.git("rev-parse", "HEAD")
                with pytest.raises(SourceUnavailable) as refusal:
                    await it.get("git.test/user/gone.git")
                assert reason(refusal).startswith("404: ")
                continue
            with pytest.raises(SourceUnavailable) as refusal:
                await it.get(url, refresh=True)
            assert reason(refusal).startswith(word)
            assert word in caplog.text
            assert "127.0.0.1" not in refusal.value.message
            assert word not in refusal.value.message
