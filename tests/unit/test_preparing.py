"""How a start shows what it prepares."""

from __future__ import annotations

import asyncio
import io
import logging

from rich.console import Console

from skyisland.cli.preparing import Lines, bars, shown


def test_a_line_names_the_work_its_progress_and_its_time() -> None:
    now = [100.0]
    lines = Lines(lambda: now[0])
    now[0] += 2
    assert lines.line() == "preparing: the host, 2 s so far"
    lines.report("compiling what every build needs", 0, 0)
    now[0] += 20.4
    assert lines.line() == "preparing: compiling what every build needs, 22 s so far"
    lines.report("downloading go", 3, 80)
    assert lines.line() == "preparing: downloading go (3 of 80), 22 s so far"


class Told(logging.Handler):
    """Waits for lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())


async def test_without_a_terminal_the_log_tells_it_until_all_is_ready() -> None:
    told, logger = Told(), logging.getLogger("skyisland.cli.preparing")
    logger.addHandler(told)
    logger.setLevel(logging.INFO)
    try:
        async with shown(on_terminal=False, first_s=0, next_s=0) as preparing:
            preparing.report("compiling what every build needs", 0, 0)
            assert "compiling what every build needs" in await told.lines.get()
            await told.lines.get()
            preparing.end()
            await asyncio.sleep(0)
            while not told.lines.empty():
                told.lines.get_nowait()
            await asyncio.sleep(0)
            assert told.lines.empty()
    finally:
        logger.removeHandler(told)
        logger.setLevel(logging.NOTSET)


def test_bars_on_a_terminal_go_when_all_is_ready() -> None:
    screen = io.StringIO()
    with bars(Console(file=screen, force_terminal=True, width=100), transient=True) as preparing:
        preparing.report("compiling the launcher of jails", 0, 0)
        preparing.report("downloading go", 3, 80)
        preparing.end()
        drawn = screen.getvalue()
        assert "compiling the launcher of jails" in drawn
        assert "downloading go" in drawn
        assert drawn.rstrip().endswith("\x1b[2K"), "the last bar is erased"
        preparing.end()
        assert screen.getvalue() == drawn
