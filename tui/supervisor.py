"""Runs the console, beside an island in one process or alone, and decides who ends when the other does.

    what happens                          console     island      exit code
    q, and yes                            ends        drains      0
    q or Q, and to detach                 ends        runs on     0, when it ends
    SIGTERM, SIGINT                       ends        drains      0
    SIGHUP, or the terminal vanishes      ends        runs on     0, when it ends; or drains (`hangup_stops`)
    the console crashes                   ends        runs on     1, when it ends
    the API ends by itself                ends        has ended   1 if it failed

The terminal gets its settings back in each case in which there still is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tui import Wishes
from tui.console import Console
from tui.memory import Memory
from tui.terminal import SkyDriver, Terminal, attributes, plain, shielded
from tui.watch.port import Port

LEAVE_S = 7.0
"""How long the console may take to end before it is cancelled. A judgement."""

IN_BROWSER = "TEXTUAL_DRIVER" in os.environ
"""textual-serve started us: its driver draws, and standard output is its channel."""

Serve = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]
"""Runs the API until the function that it is given returns, then drains the island."""


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _console(port: Port, wishes: Wishes, memory: Memory, **more: Any) -> Console:
    plainly = wishes.ascii if wishes.ascii is not None else not IN_BROWSER and plain(os.environ)
    return Console(
        port,
        readonly=wishes.readonly,
        ascii=plainly,
        refresh_s=wishes.refresh_s,
        theme=wishes.theme,
        memory=memory,
        command=wishes.command,
        **more,
    )


class _Show:
    """A console on the terminal."""

    def __init__(
        self, console: Console, terminal: Terminal, mouse: bool, hung_up: Callable[[], None]
    ) -> None:
        self.console = console
        self.terminal = terminal
        self._before = attributes()
        SkyDriver.terminal = terminal
        SkyDriver.hung_up = staticmethod(hung_up)
        self.task = asyncio.create_task(console.run_async(mouse=mouse))

    async def end(self) -> int:
        """End the console if it still runs, and give the terminal back; returns its exit code."""
        if not self.task.done():
            self.console.exit(0)
            await asyncio.wait({self.task}, timeout=LEAVE_S)
        driver = self.console.terminal_driver
        untidy = not self.task.done() or (isinstance(driver, SkyDriver) and driver.dropped)
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=1.0)
        if isinstance(driver, SkyDriver) and driver.stalled:
            self.terminal.given_up = True
        failed = self.task.done() and not self.task.cancelled() and self.task.exception() is not None
        if untidy or failed:
            self.terminal.restore(self._before)
        # Textual's driver leaves its handlers: to stop or go on, a process without a console would take hold
        # of the terminal, and be stopped for it.
        for number in (signal.SIGTSTP, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)
        await asyncio.to_thread(self.console.memory.note_look, self.console.last_look)
        return 1 if failed else self.console.return_code or 0


async def serve_with_console(
    port: Port,
    serve: Serve,
    wishes: Wishes,
    *,
    log: Path | None = None,
    headless: Callable[[], object] = lambda: None,
) -> int:
    """Run the console and `serve` side by side; returns the exit code of the whole.

    `log`: where prints of libraries and children go while the console has the terminal, and afterwards if
    the terminal is gone. `headless`: called when the island goes on without its console.
    """
    stop, lost = asyncio.Event(), asyncio.Event()
    handlers: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGTERM: stop.set,
        signal.SIGINT: stop.set,
        signal.SIGHUP: lost.set,
    }
    # What Textual has built by its first picture stays for good. Without `freeze` each full garbage
    # collection would visit all of it, and all calls would wait for some 80 ms.
    memory = await asyncio.to_thread(Memory.of_user, os.environ)
    console = _console(port, wishes, memory, driver_class=SkyDriver, ready=gc.freeze)
    with _handlers(handlers):
        api = asyncio.ensure_future(serve(stop.wait))
        with shielded(log) as terminal:
            show = _Show(console, terminal, wishes.mouse, lost.set)
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, lost)]
            await asyncio.wait({api, show.task, *waits}, return_when=asyncio.FIRST_COMPLETED)
            gone = lost.is_set()
            if gone and wishes.hangup_stops:
                stop.set()
            terminal.given_up = gone
            code = await show.end()
            for wait in waits:
                wait.cancel()
            alone = not console.stopping and not stop.is_set() and not api.done()
            if alone and console.detaching:
                # The terminal is to be the operator's again: what the island logs goes on into `log`.
                terminal.write(_farewell(wishes.command, log))
                terminal.given_up = True
        if alone:
            last_words = f"the console {_end(console, gone)}; the island runs on without it"
            if not gone and not console.detaching:
                _say(last_words)
            headless()
            logging.getLogger(__name__).warning(last_words)
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({api, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        stop.set()
        try:
            await api
        except asyncio.CancelledError:
            raise
        except Exception as failure:
            _say(f"the island failed: {type(failure).__name__}: {failure}")
            code = 1
    return code


def _end(console: Console, gone: bool) -> str:
    """How the console ended while the island did not."""
    if gone:
        return "lost its terminal"
    return "was detached" if console.detaching else f"crashed: {console.crash or 'unknown'}"


def _farewell(command: str, log: Path | None) -> str:
    return (
        "skyisland: the console was detached; the island runs on without it\n"
        f"  to see it again   {command} console\n"
        f"  its log           {log or 'nowhere'}\n"
        f"  to stop it        Ctrl+C, or SIGTERM to process {os.getpid()}\n"
        "  for a shell here  Ctrl+Z, then bg\n"
    )


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"skyisland: {text}", file=sys.stderr, flush=True)


async def attach(port: Port, wishes: Wishes, *, log: Path | None = None) -> int:
    """Run the console on an island elsewhere; returns the exit code, after a signal 128 plus its number."""
    memory = await asyncio.to_thread(Memory.of_user, os.environ)
    if IN_BROWSER:
        return await _behind_browser(_console(port, wishes, memory), port)
    ended = asyncio.Event()
    code_of: list[int] = []

    def by(number: signal.Signals) -> Callable[[], None]:
        def end() -> None:
            code_of.append(128 + number)
            ended.set()

        return end

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    console = _console(port, wishes, memory, driver_class=SkyDriver)
    with _handlers({number: by(number) for number in numbers}):
        with shielded(log) as terminal:
            show = _Show(console, terminal, wishes.mouse, by(signal.SIGHUP))
            waiting = asyncio.ensure_future(ended.wait())
            await asyncio.wait({show.task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            terminal.given_up = code_of == [128 + signal.SIGHUP]
            code = await show.end()
        await port.close()
    if code:
        _say(f"the console crashed: {console.crash or 'unknown'}")
    return code_of[0] if code_of else code


async def _behind_browser(console: Console, port: Port) -> int:
    """Run for one tab of a browser, until the server that started us ends."""
    parent = os.getppid()

    async def end_with_parent() -> None:
        while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(1.0)
        os._exit(1)  # nobody is left to draw for, and the pipe to them is broken

    watching = asyncio.create_task(end_with_parent())
    await console.run_async()
    watching.cancel()
    await asyncio.to_thread(console.memory.note_look, console.last_look)
    await port.close()
    return console.return_code or 0
