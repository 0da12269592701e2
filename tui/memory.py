"""What the console remembers from one time to the next: how it looked, and the calls made by hand.

It lies in `$XDG_STATE_HOME/skyisland-console` (~/.local/state), readable by its owner only, as calls may hold
secrets. What cannot be read or written is not remembered, and nobody is told: the console works without. Of
both files a limited number of bytes is read, and a limited number of calls kept.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from skyisland.codec import encode
from skyisland.model import FunctionRequest

T = TypeVar("T", bound=Struct)

FILE_BYTES = 2 << 20
"""A longer file is not read: it is none of ours."""
CALL_BYTES = 64 << 10
"""A call that takes more is not kept: one of many inputs, or of a file as standard input."""
RECENT, SAVED = 20, 50
"""How many calls are kept; fewer where they would take more than `FILE_BYTES`."""


class Look(Struct):
    """How the console looked."""

    theme: str = ""
    refresh_s: float = 0.0
    orders: dict[str, tuple[str, bool]] = {}
    """By the id of a table: the column that it is sorted by, and whether the largest comes first."""
    filters: dict[str, str] = {}
    """By the id of a table or log."""


class Saved(Struct):
    """A call with a name."""

    name: str
    request: FunctionRequest


class Calls(Struct):
    """Calls made by hand, newest first."""

    recent: list[FunctionRequest] = []
    saved: list[Saved] = []


class Memory:
    """Remembers in `folder`; with None only until the console ends."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.look = self._read("look.json", Look) or Look()
        self.calls = self._read("calls.json", Calls) or Calls()

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> Memory:
        """That of the user who runs us. Root has none in another user's home, which sudo may have kept."""
        base = Path(environ.get("XDG_STATE_HOME", ""))
        if not base.is_absolute():
            home = Path(environ.get("HOME", ""))
            base = home / ".local/state"
        owned = next((path for path in (base, *base.parents) if path.exists()), None)
        if not base.is_absolute() or owned is None or owned.stat().st_uid != os.geteuid():
            return cls()
        return cls(base / "skyisland-console")

    def note_look(self, look: Look) -> None:
        """Remember how it looks now; writes a file if that is new."""
        if look != self.look:
            self.look = look
            self._write("look.json", look)

    def note_call(self, request: FunctionRequest) -> None:
        """Remember that this call was made; writes a file."""
        others = [one for one in self.calls.recent if encode(one) != encode(request)]
        if len(encode(request)) <= CALL_BYTES:
            self.calls.recent = [request, *others][:RECENT]
            self._write_calls()

    def save_call(self, name: str, request: FunctionRequest) -> bool:
        """Keep this call by that name; writes a file. False if it is too long to keep."""
        if len(encode(request)) > CALL_BYTES:
            return False
        others = [one for one in self.calls.saved if one.name != name]
        self.calls.saved = [Saved(name, request), *others][:SAVED]
        self._write_calls()
        return True

    def forget_call(self, request: FunctionRequest) -> None:
        """Keep this call no longer, by whatever name; writes a file."""
        text = encode(request)
        self.calls.recent = [one for one in self.calls.recent if encode(one) != text]
        self.calls.saved = [one for one in self.calls.saved if encode(one.request) != text]
        self._write_calls()

    def _write_calls(self) -> None:
        while len(encode(self.calls)) > FILE_BYTES:
            (self.calls.recent or self.calls.saved).pop()
        self._write("calls.json", self.calls)

    def _read(self, name: str, kind: type[T]) -> T | None:
        if self._folder is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                with (self._folder / name).open("rb") as file:
                    text = file.read(FILE_BYTES + 1)
                if len(text) <= FILE_BYTES:
                    return msgspec.json.decode(text, type=kind)
        return None

    def _write(self, name: str, value: Struct) -> None:
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                file.write(encode(value))
            os.replace(file.name, self._folder / name)
