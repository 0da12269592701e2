"""The terminal, kept at arm's length.

Textual's own driver waits for the terminal when that stops reading: in one event loop with the API, a
stalled SSH link would stop the API. `SkyDriver` never waits; it drops what a stalled terminal does not
take and says so (`recovered`), so that the console can draw anew. A terminal that is gone is reported
once (`hung_up`) instead of being read in a circle.

It reaches into private parts of Textual's driver, which is why Textual's version is pinned.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import sys
import termios
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

WAITING = 12
"""Frames that may wait for the terminal before it is called stalled."""
_OFF = (1000, 1003, 1015, 1006, 2004, 1004, 2048)
RESTORE = "".join(f"\x1b[?{mode}l" for mode in _OFF) + "\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h\x1b[0m"
"""Mouse, paste, focus and resize reports off; keys, wrapping, screen, cursor and colours as usual."""


class Terminal:
    """A terminal by its descriptor, for the driver's writing thread; errors end it quietly."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.gone = False
        """It takes nothing any more."""
        self.given_up = False
        """Nobody looks at it any more: the shield stays when the console ends."""

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
        """Give the terminal back as it was, as far as it takes it, without waiting."""
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
    """Where to draw; standard error without it."""
    hung_up: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    """Called on the event loop when the terminal is gone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._terminal = self.terminal or Terminal(2)
        self._file = self._terminal  # type: ignore[assignment]
        self.dropped = False
        """Something was not drawn: the screen is not what the console thinks."""

    def _get_terminal_size(self) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._terminal.fd)
            if size.columns and size.lines:
                return size.columns, size.lines
        return 80, 24

    def write(self, data: str) -> None:
        writer = self._writer_thread
        if writer is None or not writer.is_alive() or writer._queue.qsize() >= WAITING:
            self.dropped = True
            return
        super().write(data)

    def send_message(self, message: Message) -> None:
        """Hand a key to the console, if there still is one; from the reading thread."""
        with contextlib.suppress(RuntimeError):  # the loop may be gone
            self._loop.call_soon_threadsafe(self._app.post_message, message)

    @property
    def stalled(self) -> bool:
        """The terminal does not read, and has not for a while."""
        writer = self._writer_thread
        return writer is not None and writer.is_alive()

    def recovered(self) -> bool:
        """True once, when a terminal that had stalled has taken all that was waiting."""
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
        """Read keys until told to end, or until the terminal is gone."""
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
    """Keep the terminal for the console alone: what anybody else prints goes to `log`.

    Libraries and children write to descriptors 1 and 2; for the length of the block these lead to the
    log (nowhere without one), and the console draws through a copy of its own.
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


def attributes(fd: int = 0) -> list[Any] | None:
    """The terminal's settings, None where there is no terminal."""
    try:
        return termios.tcgetattr(fd)
    except termios.error:
        return None
