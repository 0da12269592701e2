"""The operations console.

`run_console` shows an island that runs elsewhere, `serve_with_console` one in this process, `tui.web`
shows the first in a browser. Importing this costs nothing; Textual is loaded by the first that runs.

    supervisor, terminal, web    who runs the console, and on what
    console                      keys and frame, and what operators do: going, looking, orders, naming,
                                 deferred, invoke, defining, questions
    desk, dialogs, keyboard,
    catalogue, answer, calls,
    jump, memory, output, terms  what these are made of
    draw/                        how it is drawn
    watch/                       what is known of the island, and the ways to it
    words                        how values are written

A module uses those below it. The island is behind a `watch.port`: only `watch.inprocess` knows its methods.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from skyisland.errors import SettingsError

if TYPE_CHECKING:
    from tui.supervisor import Serve
    from tui.watch.port import Port


def check_installed(*packages: str) -> None:
    """Check that what the console is drawn with is there: a host without a screen may do without.

    Raises:
        SettingsError: it is not; the text says what to install.
    """
    missing = [package for package in packages or ("textual",) if importlib.util.find_spec(package) is None]
    if missing:
        raise SettingsError(
            f"the console needs {' and '.join(missing)}, not installed here: pip install "
            "'skyisland[console]'; an island without it: skyisland serve --no-tui"
        )


def _save_bandwidth() -> None:
    """Few frames and no animation, for SSH. Textual reads these variables when it is imported."""
    os.environ.setdefault("TEXTUAL_FPS", "15")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")


class Wishes(NamedTuple):
    """How the operator wants the console, by the options of a command; None: as it was last time."""

    readonly: bool = False
    """Watch only: no key changes anything."""
    mouse: bool = True
    ascii: bool | None = None
    """ASCII characters only; None: if the terminal or the locale has no others."""
    refresh_s: float | None = None
    theme: str | None = None
    command: str = "skyisland"
    """What commands to this island begin with."""
    hangup_stops: bool = False
    """An island in this process ends when the terminal is gone."""


def check_theme(name: str | None) -> None:
    """Check that the console is there, and has a theme of this name if one is wanted.

    Raises:
        SettingsError: it is not, or has none; the text says what to install, or the names of its themes.
    """
    check_installed()
    if name is None:
        return
    _save_bandwidth()
    from textual.theme import BUILTIN_THEMES

    names = ("sky", *BUILTIN_THEMES)
    if name not in names:
        raise SettingsError(f"no theme is called {name!r}; there are {', '.join(names)}")


def run_console(port: Port, *, log: Path | None = None, **wishes: Any) -> int:
    """Show the island behind `port` until the operator leaves; returns the exit code.

    `log`: takes what libraries print, and the traceback if the console crashes. `wishes`: fields of `Wishes`.

    Raises:
        SettingsError: there is no terminal.
    """
    _save_bandwidth()
    from tui.supervisor import IN_BROWSER, attach

    if not (IN_BROWSER or (os.isatty(0) and (os.isatty(1) or os.isatty(2)))):
        raise SettingsError("the console needs a terminal; over ssh: ssh -t host skyisland console")
    return asyncio.run(attach(port, Wishes(**wishes), log=log))


async def serve_with_console(
    port: Port,
    serve: Serve,
    *,
    log: Path | None = None,
    headless: Callable[[], object] = lambda: None,
    **wishes: Any,
) -> int:
    """Show the island of this process beside `serve(shutdown)`, its API; see `tui.supervisor`."""
    _save_bandwidth()
    # Importing Textual takes most of a second, during which the API answers.
    supervisor = await asyncio.to_thread(importlib.import_module, "tui.supervisor")
    code: int = await supervisor.serve_with_console(port, serve, Wishes(**wishes), log=log, headless=headless)
    return code
