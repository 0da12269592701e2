"""TLS: whom commands and an attached console trust, and certificates that are renewed."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from skyisland.cli import main
from skyisland.client import Client, Unreachable
from skyisland.errors import SettingsError
from skyisland.host.trust import trusting
from tests.support.api import Server, World, make_world
from tests.support.certificates import Signed, signed
from tui.watch.port import LinkLost
from tui.watch.remote import RemotePort

TOKEN = "a-token-for-an-island-with-tls"


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """The island's certificate, for a name that is not the address where commands reach it."""
    return signed(tmp_path_factory.mktemp("island"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return signed(tmp_path_factory.mktemp("stranger"))


def settings_of(folder: Path, server: Server, files: Signed) -> Path:
    file = folder / "skyisland.toml"
    file.write_text(
        f'http_port = {server.port}\nstate_dir = "{folder}"\nadmin_api_token = "{TOKEN}"\n'
        f'[api]\ntls_cert = "{files.certificate}"\ntls_key = "{files.key}"\n'
    )
    file.chmod(0o600)
    return file


async def command(*words: str, **environment: str) -> tuple[int, str]:
    """The exit code of a command line, and all that it says."""
    done = await asyncio.to_thread(CliRunner(env=environment).invoke, main, words)
    return done.exit_code, done.output


async def trust(url: str, own: Signed) -> ssl.SSLContext | None:
    return await asyncio.to_thread(trusting, url, own=str(own.certificate))


async def answered(client: Client) -> bool:
    """Whether the island of this client tells its capabilities."""
    with client:
        return bool(await asyncio.to_thread(client.capabilities))


async def test_commands_and_console_know_their_own_island(
    island: Signed, stranger: Signed, tmp_path: Path
) -> None:
    world = make_world(token=TOKEN)
    await world.island.start()
    async with world.served(tls=island.tls) as server:
        url = server.url.replace("http:", "https:")
        file = settings_of(tmp_path, server, island)
        words = ("-c", str(file))
        code, said = await command(*words, "status")
        assert (code, "t, version 0.1" in said) == (0, True), said

        # Nobody else: neither another certificate for the same name, nor one that another has signed.
        (tmp_path / "other").mkdir()
        foreign = settings_of(tmp_path / "other", server, stranger)
        for more in ((), ("--cacert", str(stranger.certificate))):
            code, said = await command("-c", str(foreign), *more, "capabilities")
            assert code == 3
            assert f"{url}: TLS: its certificate is not trusted (self-signed certificate)" in said
            assert "--cacert or SSL_CERT_FILE" in said
        code, said = await command("-c", str(foreign), "--cacert", str(island.certificate), "capabilities")
        assert code == 0, said

        port = RemotePort(url, token=TOKEN, tls=await trust(url, island))
        assert (await port.snapshot()).island == "t"
        await port.close()
        # A console that watches while the certificate is renewed.
        watched = Signed(tmp_path / "cert.pem", tmp_path / "key.pem")
        shutil.copy(stranger.certificate, watched.certificate)
        port = RemotePort(url, token=TOKEN, tls=await trust(url, watched))
        with pytest.raises(LinkLost, match="TLS: its certificate is not trusted"):
            await port.snapshot()
        shutil.copy(island.certificate, watched.certificate)
        assert (await port.snapshot()).island == "t"
        await port.close()
        with pytest.raises(Unreachable, match="does it speak TLS"):
            await answered(Client(server.url))
    async with world.served() as server:
        url = server.url.replace("http:", "https:")
        client = Client(url, tls=await trust(url, island))
        with pytest.raises(Unreachable, match="TLS: whoever listens there speaks none"):
            await answered(client)
    await world.island.stop()


async def test_authorities_of_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings' certificate cannot be read; this one is for 127.0.0.1."""
    folder = Path(__file__).with_name("tls")
    own = Signed(folder / "cert.pem", folder / "key.pem")
    async with world.served(tls=own.tls) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(Unreachable, match="TLS: its certificate is not trusted"):
            await answered(Client(url, tls=trusting(url, own="/nowhere/cert.pem")))
        monkeypatch.setenv("SSL_CERT_FILE", str(own.certificate))
        client = Client(url, tls=trusting(url, own="/nowhere/cert.pem"))
        assert await answered(client)


def test_a_name_counts_everywhere_but_on_loopback(island: Signed) -> None:
    for host, named in (("127.0.0.1", False), ("[::1]", False), ("localhost", False), ("192.0.2.1", True)):
        context = trusting(f"https://{host}:3280", authorities=island.certificate)
        assert context is not None
        assert (context.check_hostname, context.verify_mode) == (named, ssl.CERT_REQUIRED)
    assert trusting("http://127.0.0.1:3280", own=str(island.certificate)) is None
    with pytest.raises(SettingsError, match=re.escape(f"--cacert: {island.key} is no file of certificates")):
        trusting("https://127.0.0.1", authorities=island.key)


def shown(port: int) -> str:
    """The certificate that the server shows to whoever connects, PEM."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as sock, context.wrap_socket(sock) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


async def test_renewed_files_are_taken_up(
    world: World, island: Signed, stranger: Signed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = Signed(tmp_path / "cert.pem", tmp_path / "key.pem")
    for name in ("cert.pem", "key.pem"):
        shutil.copy(island.key.with_name(name), tmp_path)
    async with world.served(tls=now.tls, look_s=0.001) as server, asyncio.timeout(20):
        assert await asyncio.to_thread(shown, server.port) == island.certificate.read_text()
        shutil.copy(stranger.certificate, tmp_path)  # the key follows: what does not fit yet changes nothing
        while "the certificate of before stays" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert await asyncio.to_thread(shown, server.port) == island.certificate.read_text()
        shutil.copy(stranger.key, tmp_path)
        while await asyncio.to_thread(shown, server.port) != stranger.certificate.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0)
