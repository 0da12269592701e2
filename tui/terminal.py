"""The terminal, and a driver for Textual that never waits for it.

Textual's own driver waits while the terminal does not read: a stalled SSH connection would stop the API,
which shares the event loop. `SkyDriver` drops what a stalled terminal does not take, and reports when the
terminal reads again (`recovered`), so that the console draws everything anew. It reports a terminal that is
gone once (`hung_up`), and stops reading from it.

It uses private parts of Textual's driver; so Textual's version is pinned.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import sys
import termios
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

MAX_WAITING = 12
"""How many frames may wait for the terminal before it counts as stalled: about a second of them."""
_OFF = (1000, 1003, 1015, 1006, 2004, 1004, 2048)
RESTORE = "".join(f"\x1b[?{mode}l" for mode in _OFF) + "\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h\x1b[0m"
"""Ends reports of mouse, paste, focus and size; resets keys, wrapping, screen, cursor and colours."""


class Terminal:
    """A terminal by its descriptor, as the driver's writing thread uses it. An error marks it as gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.gone = False
        """Writing to it failed: it is not written to again."""
        self.given_up = False
        """Nobody sees it any more, so the process' output stays in the log when the console ends."""

    def write(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "replace"))
        while data and not self.gone:
            try:
                data = data[os.write(self.fd, data) :]
            except InterruptedError:
                continue
            except OSError:
                self.gone = True

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self.fd

    def isatty(self) -> bool:
        return True

    def restore(self, attributes: list[Any] | None) -> None:
        """Reset the terminal, and its settings to `attributes`; drops what it does not take at once."""
        with contextlib.suppress(OSError, termios.error):
            if attributes is not None:
                termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
            os.set_blocking(self.fd, False)
            os.write(self.fd, RESTORE.encode())
        with contextlib.suppress(OSError):
            os.set_blocking(self.fd, True)


class SkyDriver(LinuxDriver):
    """A driver that never waits for its terminal."""

    terminal: ClassVar[Terminal | None] = None
    """Where to draw; standard error if it is None."""
    hung_up: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    """Called on the event loop's thread when the terminal is gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._terminal = self.terminal or Terminal(2)
        self._file = self._terminal  # type: ignore[assignment]
        self.dropped = False
        """A frame was dropped, so the screen differs from what Textual assumes."""

    def _get_terminal_size(self) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._terminal.fd)
            if size.columns and size.lines:
                return size.columns, size.lines
        return 80, 24

    def write(self, data: str) -> None:
        writer = self._writer_thread
        if writer is None or not writer.is_alive() or writer._queue.qsize() >= MAX_WAITING:
            self.dropped = True
            return
        super().write(data)

    def send_message(self, message: Message) -> None:
        """Hand a key from the reading thread to the console, if that still runs."""
        with contextlib.suppress(RuntimeError):  # the loop may be gone
            self._loop.call_soon_threadsafe(self._app.post_message, message)

    @property
    def stalled(self) -> bool:
        """The writing thread has not ended, so it still waits for the terminal; ask after `close`."""
        writer = self._writer_thread
        return writer is not None and writer.is_alive()

    def recovered(self) -> bool:
        """True once after a stall, when the terminal has taken all that was waiting."""
        if not self.dropped or self._writer_thread is None or self._writer_thread._queue.qsize():
            return False
        self.dropped = False
        return True

    def close(self) -> None:
        writer = self._writer_thread
        if writer is not None and writer.is_alive():
            with contextlib.suppress(queue.Full):
                writer._queue.put_nowait(None)
            writer.join(0.5)

    def run_input_thread(self) -> None:
        """Read keys until `exit_event` is set or the terminal is gone."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(0.1):
                    try:
                        data = os.read(self.fileno, 4096)
                    except OSError:
                        data = b""
                    if not data:
                        self._loop.call_soon_threadsafe(type(self).hung_up)
                        return
                    for message in parser.feed(decode(data)):
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)


@contextlib.contextmanager
def shielded(log: Path | None) -> Iterator[Terminal]:
    """Keep the terminal for the console alone: in the block, all other output goes to `log`.

    Libraries and children write to descriptors 1 and 2. In the block these lead to the log (to nowhere if it
    is None), and the console draws through a copy of the terminal's descriptor.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    drawn_on = next((fd for fd in (2, 1, 0) if os.isatty(fd)), 2)
    terminal = Terminal(os.dup(drawn_on))
    for fd in (1, 2):
        os.dup2(sink, fd)
    os.close(sink)
    try:
        yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if not (terminal.gone or terminal.given_up):
            os.dup2(out, 1)
            os.dup2(err, 2)
        for fd in (out, err):
            os.close(fd)


PLAIN_TERMINALS = ("dumb", "linux", "vt", "cons25", "ansi", "sun", "wyse")
"""What the names of terminals begin with that draw few characters beside ASCII: text consoles of kernels,
serial lines, editors."""


def plain(environ: Mapping[str, str]) -> bool:
    """Whether the terminal or the locale has ASCII only."""
    if environ.get("TERM", "").startswith(PLAIN_TERMINALS):
        return True
    # Python itself puts C.UTF-8 into LC_CTYPE where it found no other locale than C (PEP 538).
    kind = environ.get("LC_CTYPE", "") if environ.get("LC_CTYPE") != "C.UTF-8" else ""
    locale = environ.get("LC_ALL") or kind or environ.get("LANG", "")
    return "utf" not in locale.lower()


def attributes(fd: int = 0) -> list[Any] | None:
    """The settings of the terminal at `fd`; None if there is no terminal."""
    try:
        return termios.tcgetattr(fd)
    except termios.error:
        return None
