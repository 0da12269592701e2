"""An operator at a terminal: the console of a real island with real jails, in tmux."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.daemon import PATIENCE_S, Daemon, family

pytestmark = [pytest.mark.host, pytest.mark.root]

Make = Callable[..., Daemon]


class Terminal:
    """A shell in a tmux of its own: one types, and looks at the screen."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        tmux = shutil.which("tmux")
        assert tmux is not None, "this test wants tmux (apt-get install tmux)"
        self._command = (tmux, "-S", str(folder / "tmux"), "-f", "/dev/null")
        environment = {**environment, "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
        environment["XDG_STATE_HOME"] = str(folder / "xdg")
        # The shell is not the one who leaves: tmux would take the terminal away with it.
        self._do("new-session", "-d", "-x", "120", "-y", "35", "exec sh", env=environment)
        self._shell, tty = self.ask("pane_pid", "pane_tty").split()
        self._tty = os.open(tty, os.O_RDWR | os.O_NOCTTY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """An island that lost its terminal would run on."""
        os.close(self._tty)
        for pid, _ in family(int(self._shell)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self._do("kill-server")

    def _do(self, *words: str, **options: Any) -> str:
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=True, **options)
        return str(done.stdout)

    def ask(self, *names: str) -> str:
        """What tmux knows of the terminal by these names."""
        return self._do("display-message", "-p", " ".join(f"#{{{name}}}" for name in names)).strip()

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._tty)

    @property
    def screen(self) -> str:
        return self._do("capture-pane", "-p")

    def runs(self, *words: str) -> None:
        """A command line, which tells its exit code when it is over."""
        self.writes(f"clear; {shlex.join(words)}; echo it left with $?\r")

    def press(self, *keys: str) -> None:
        self._do("send-keys", *keys)

    def writes(self, text: str) -> None:
        self._do("send-keys", "-l", text)

    def reads(self, *texts: str, gone: str = "\0") -> None:
        """Look until the screen says all of `texts`, and `gone` no longer."""
        until = time.monotonic() + PATIENCE_S
        while not all(text in self.screen for text in texts) or gone in self.screen:
            assert time.monotonic() < until, f"{texts} are not on the screen, or {gone} is:\n{self.screen}"
            threading.Event().wait(0.05)


def test_an_operator_at_a_terminal(daemon: Make) -> None:
    island = daemon(jails={"exec_timeout": "60s"})
    with Terminal(island.folder, island.environment) as terminal, ThreadPoolExecutor() as pool:
        before = terminal.settings()
        terminal.runs(*island.words, "serve")
        terminal.reads("● LIVE", "in process", "no jail is running")

        # The jails of two sleeping functions; one of them is looked for, and killed.
        first = pool.submit(island.call, "trouble", "Sleep(50000000000)")
        second = pool.submit(island.call, "trouble", "Sleep(40000000000)")
        terminal.press("2")
        terminal.reads("trouble.Sleep(50000000000)", "trouble.Sleep(40000000000)", "● running")
        terminal.writes("/fn:sleep(5\r")
        terminal.reads("/fn:sleep(5", "1 of", gone="Sleep(40000000000)")
        terminal.press("K")
        terminal.reads("Kill this jail?", "Each caller is told")
        terminal.press("y")
        told = first.result()
        assert (told.status_code, told.json()["code"]) == (502, "killed")
        assert "admin" in told.json()["error"]
        terminal.reads("no row matches")
        assert not second.done()
        terminal.press("Escape")
        terminal.reads("trouble.Sleep(40000000000)")
        terminal.writes("/fn:sleep(4\r")
        terminal.reads("/fn:sleep(4", "1 of")
        terminal.press("C-k")
        assert second.result().json()["code"] == "killed"

        terminal.press("3")
        terminal.reads("10.61.0.2", "253 shown")
        terminal.press("s")
        terminal.reads("State of 10.61.0.2")
        terminal.press("u")
        terminal.reads("✗ taken out", "took out 10.61.0.2")

        terminal.press("q")
        terminal.reads("Stop the island?", "no jail is running")
        terminal.press("y")
        terminal.reads("it left with 0")
        assert terminal.settings() == before
        assert terminal.ask("alternate_on", "cursor_flag", "mouse_any_flag") == "0 1 0"

        # What was set by key outlives the island; this time the console is a process of its own.
        island.start()
        terminal.runs(*island.words, "console")
        terminal.reads("● LIVE", "attached")
        terminal.press("3")
        terminal.reads("10.61.0.2", "taken out")
        terminal.press("q")
        terminal.reads("it left with 0")
        assert terminal.settings() == before
        assert island.admin.get("/ips", params={"state": "unavailable"}).json() == {
            "unavailable": ["10.61.0.2"]
        }
