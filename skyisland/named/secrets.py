"""Secrets: values that functions with a name are given, and nobody is shown.

Each is a file of mode 0600 in a folder of mode 0700, written whole or not at all. They are read once at start
and kept in memory. What leaves is their names, and the values for one frame of a call whose name has them:
no listing, log line, event, error or snapshot has one.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from skyisland.errors import BadRequest, DriverError, NotFound
from skyisland.host.tasks import aside
from skyisland.named.definition import ENVIRONMENT_BYTES, SECRET
from skyisland.settings.files import make_private, write_private

MOST = 1000
"""Secrets that are kept: 64 MiB at the most. A judgement."""
_DRAFT = re.compile(r"\..+\.[0-9a-f]{16}")
"""What a killed island left of a file that it wrote."""


class Secrets:
    """The secrets of one island."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where they lie; None keeps them in memory, for tests."""
        self._folder = folder
        self._values: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<{len(self._values)} secrets>"

    async def load(self) -> None:
        """Read the files, and make the folder if there is none.

        Raises:
            DriverError: it cannot be read, or somebody else may read it.
        """
        if self._folder is None:
            return
        try:
            self._values = await aside(_read, self._folder)
        except (OSError, UnicodeDecodeError) as error:
            raise DriverError(f"cannot read the secrets in {self._folder}: {error}") from None

    def names(self) -> list[str]:
        """Of every secret, sorted."""
        return sorted(self._values)

    def has(self, names: Iterable[str]) -> bool:
        """Whether all of these are there."""
        return all(name in self._values for name in names)

    def values(self, wanted: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Variables with their values. `wanted`: by variable, the secret's name.

        Raises:
            NotFound: one was deleted.
        """
        if missing := [secret for secret in wanted.values() if secret not in self._values]:
            raise secret_not_found(missing[0])
        return tuple((variable, self._values[secret]) for variable, secret in wanted.items())

    async def set(self, name: str, value: str) -> None:
        """Keep a secret, in place of an older value.

        Raises:
            BadRequest: it can be no environment variable, or there are too many.
            DriverError: it cannot be written.
        """
        if not SECRET.fullmatch(name):
            text = "secret: up to 64 letters, digits, dots, dashes and underscores, as STRIPE_KEY"
            raise BadRequest(text, field="secret")
        if not value.strip():
            raise BadRequest("value: it is blank; send the secret itself", field="value")
        if "\0" in value or len(value.encode()) > ENVIRONMENT_BYTES // 2:
            text = f"value: a text of at most {ENVIRONMENT_BYTES // 2} bytes without NUL"
            raise BadRequest(text, field="value")
        if len(self._values) >= MOST and name not in self._values:
            raise BadRequest(f"secret: there are {MOST} already; delete one", field="secret")
        if self._folder is not None:
            try:
                await aside(write_private, self._folder / name, value, replace=True)
            except OSError as error:
                raise DriverError(f"cannot write the secret {name}: {error.strerror}") from None
        self._values[name] = value

    async def delete(self, name: str) -> None:
        """Forget a secret.

        Raises:
            NotFound: there is none of this name.
            DriverError: its file cannot be removed.
        """
        if name not in self._values:
            raise secret_not_found(name)
        if self._folder is not None:
            try:
                await aside(Path(self._folder / name).unlink, missing_ok=True)
            except OSError as error:
                raise DriverError(f"cannot remove the secret {name}: {error.strerror}") from None
        del self._values[name]


def secret_not_found(name: str) -> NotFound:
    """The error of a secret that is not there."""
    return NotFound(f"no secret has the name {name!r}; set it by PUT /api/v1/secrets/{name}", secret=name)


def _read(folder: Path) -> dict[str, str]:
    make_private(folder)
    values = {}
    for path in folder.iterdir():
        if _DRAFT.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise PermissionError(f"{path} is no file that is yours alone; chmod 600 it")
        values[path.name] = path.read_bytes().decode()
    return values
