"""The island's key, signatures made with it, and their verification: `ssh-keygen -Y` (OpenSSH 8.1 and later).

The key is a private file of the island's own user. Whoever verifies needs the public half alone, as a line of
an allowed_signers file (ssh-keygen(1)).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from pathlib import Path

from skyisland.errors import BadRequest, HostUnfit, SettingsError
from skyisland.host.programs import ProgramFailed, Programs
from skyisland.host.tasks import aside
from skyisland.settings.files import make_private

NAMESPACE = "receipt@skyisland"
"""Keeps a signature from counting as one for something else, such as a commit of Git."""
PRINCIPAL = "skyisland"
"""Who signs, in the line of allowed signers."""
SIGN_S = 10.0
SIGNERS_BYTES = 64 << 10


class Signer:
    """Signs with one key, which it makes where it may and there is none."""

    def __init__(self, key: Path, *, own: bool, programs: Programs | None = None) -> None:
        """`own`: the key is the island's to make; else an operator named it."""
        self._key, self._own = key, own
        self._programs = programs or Programs(timeout_s=SIGN_S)
        self._making = asyncio.Lock()
        self._ready = False

    async def sign(self, message: bytes) -> str:
        """The signature of a message, armored.

        Raises:
            HostUnfit: there is no ssh-keygen, or one that cannot sign.
            SettingsError: there is no such key, or others may read it.
        """
        await self._prepare()
        argv = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(self._key), "-n", NAMESPACE]
        try:
            return await self._programs.run(argv, stdin=message, env={"SSH_ASKPASS_REQUIRE": "never"})
        except ProgramFailed as error:
            raise _unfit(f"ssh-keygen cannot sign: {error.stderr[:300]}") from error

    async def signers(self) -> str:
        """The line of allowed signers that verifies what this island signs."""
        await self._prepare()
        public = await asyncio.to_thread(self._key.with_name(self._key.name + ".pub").read_text)
        return f'{PRINCIPAL} namespaces="{NAMESPACE}" {" ".join(public.split()[:2])}'

    async def _prepare(self) -> None:
        async with self._making:
            if not self._ready:
                if self._own and not await asyncio.to_thread(self._key.exists):
                    await self._make()
                await asyncio.to_thread(check_key, self._key)
                self._ready = True

    async def _make(self) -> None:
        """A new key appears whole: under its name, when it has its public half beside it."""
        folder = self._key.parent
        await asyncio.to_thread(make_private, folder)
        draft = folder / f".{self._key.name}.{os.urandom(4).hex()}"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", PRINCIPAL, "-f", str(draft)]
        try:
            await self._programs.run(argv)
        except ProgramFailed as error:
            raise _unfit(f"ssh-keygen cannot make a key: {error.stderr[:300]}") from error
        public = draft.with_name(draft.name + ".pub")
        await asyncio.to_thread(public.rename, self._key.with_name(self._key.name + ".pub"))
        await asyncio.to_thread(draft.rename, self._key)


def _unfit(text: str) -> HostUnfit:
    return HostUnfit(f"{text}; receipts need OpenSSH 8.1 or later on the island's host")


def check_key(path: Path) -> None:
    """Check that a private key is there, and private. Blocks.

    Raises:
        SettingsError
    """
    for file, secret in ((path, True), (path.with_name(path.name + ".pub"), False)):
        try:
            status = file.stat()
        except OSError as error:
            raise SettingsError(f"receipts.key: {file}: {error.strerror}", origin=str(file)) from error
        fault = ""
        if not stat.S_ISREG(status.st_mode):
            fault = "is no file"
        elif status.st_uid not in (0, os.geteuid()):
            fault = f"belongs to uid {status.st_uid}"
        elif secret and status.st_mode & 0o077:
            fault = f"has mode {status.st_mode & 0o777:04o}, so others may sign with it; chmod 600 it"
        if fault:
            raise SettingsError(f"receipts.key: {file} {fault}", origin=str(file))


async def verify(message: bytes, signature: str, signers: str, programs: Programs | None = None) -> None:
    """Verify that one of `signers` signed the message; they are lines of an allowed_signers file.

    Raises:
        BadRequest: none of them did.
        HostUnfit: there is no ssh-keygen here.
    """
    programs = programs or Programs(timeout_s=SIGN_S)
    folder = await aside(_laid_out, signature, signers)
    try:
        argv = ["ssh-keygen", "-Y", "verify", "-q", "-f", str(folder / "signers"), "-I", PRINCIPAL]
        argv += ["-n", NAMESPACE, "-s", str(folder / "signature")]
        await programs.run(argv, stdin=message)
    except ProgramFailed as error:
        why = (error.stderr or error.printed).splitlines() or ["it does not fit"]
        raise BadRequest(f"the signature is not good: {why[-1][:200]}") from None
    finally:
        await aside(shutil.rmtree, folder)


def _laid_out(signature: str, signers: str) -> Path:
    """A folder with what ssh-keygen reads. Blocks."""
    folder = Path(tempfile.mkdtemp(prefix="skyisland-receipt-"))
    (folder / "signers").write_text(signers + "\n")
    (folder / "signature").write_text(signature)
    return folder
