"""A console for the terminal tests to torment: started by them, on a pseudo terminal.

    python -m tests.support.subject serve|attach|command FOLDER [noise|crash|crash-api|hangup-stops]

`serve` is an island of fake rooms with its API and console in one loop; `attach` a console on the
seeded island, which is in this process but says that it is not; `command` is `skyisland serve` itself, with
fake jails. The API's port is written to FOLDER/port. `noise`: from SIGUSR2 on, libraries, children and
threads print. `crash`: ctrl+g breaks the console. `crash-api`: SIGUSR2 breaks the API. `hangup-stops`: the
island ends with its terminal.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import tui

SECRET = "the-token-nobody-may-see"


async def serve(folder: Path, mood: str) -> int:
    from tests.support.operating import World
    from tui.watch.inprocess import InProcessPort

    world = World()
    await world.island.start()
    _disturb(mood)
    async with world.served() as url:
        broken = asyncio.Event()
        port = InProcessPort(world.island, world.ring, url)
        (folder / "port").write_text(url.rpartition(":")[2])

        async def api(shutdown: Callable[[], Awaitable[object]]) -> None:
            wait = asyncio.ensure_future(shutdown())
            breaking = asyncio.ensure_future(broken.wait())
            await asyncio.wait({wait, breaking}, return_when=asyncio.FIRST_COMPLETED)
            if broken.is_set():
                raise RuntimeError("the API broke")

        if mood == "crash-api":
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, broken.set)
        code = await tui.serve_with_console(
            port,
            api,
            refresh_s=0.1,
            hangup_stops=mood == "hangup-stops",
            log=folder / "log",
            headless=lambda: (folder / "headless").touch(),
        )
    await world.island.stop()
    return code


def command(folder: Path) -> None:
    from skyisland.cli import main

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "skyisland.toml"
    config.write_text(f'http_port = {port}\nstate_dir = "{folder / "state"}"\n[jails]\ndriver = "fake"\n')
    (folder / "port").write_text(str(port))
    main(["--config", str(config), "serve"])


def _disturb(mood: str) -> None:
    if mood == "noise":
        logging.basicConfig()

        def shout() -> None:
            while True:
                print("NOISE on stdout", flush=True)
                logging.getLogger("library").warning("NOISE from a logger")
                os.write(2, b"NOISE on descriptor 2\n")
                subprocess.run(["/bin/sh", "-c", "echo NOISE from a child; echo NOISE >&2"], check=False)
                threading.Event().wait(0.1)

        # Not before the console has the terminal: until then it is anybody's.
        shouting = threading.Thread(target=shout, daemon=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, shouting.start)
    elif mood == "crash":
        from textual.binding import Binding

        from tui.console import Console

        def crash(self: Console) -> None:
            token = SECRET
            raise RuntimeError(f"broken on purpose, with a token of {len(token)} letters at hand")

        Console.action_crash = crash  # type: ignore[attr-defined]
        Console.BINDINGS.append(Binding("ctrl+g", "crash", "crash"))
        Console._merged_bindings = Console._merge_bindings()


def main() -> None:
    faulthandler.register(signal.SIGUSR1, file=(Path(sys.argv[2]) / "stacks").open("w"))
    what, folder = sys.argv[1], Path(sys.argv[2])
    mood = sys.argv[3] if len(sys.argv) > 3 else ""
    if what == "serve":
        sys.exit(asyncio.run(serve(folder, mood)))
    from tests.support.fake_island import FakeIsland

    _disturb(mood)
    if what == "command":
        command(folder)
    sys.exit(tui.run_console(FakeIsland(), refresh_s=0.1, log=folder / "log"))


if __name__ == "__main__":
    main()
