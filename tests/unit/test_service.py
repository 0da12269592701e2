"""What a service manager gives a daemon, and is told; the supervisor for those who have none."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyisland.host.service import TELL_S, Manager, passed_on


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that news go to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)
        yield sock


async def test_a_manager_is_told_the_state_and_that_the_loop_turns(heard: socket.socket) -> None:
    manager = Manager({"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "20000"})
    manager.tell(ready=1, status="two\nlines")
    assert heard.recv(100) == b"READY=1\nSTATUS=two lines"
    calls = iter(range(100))
    telling = asyncio.create_task(manager.keep_told(lambda: f"{next(calls)} calls"))
    for count in range(3):
        assert await asyncio.to_thread(heard.recv, 100) == b"WATCHDOG=1\nSTATUS=%d calls" % count
    telling.cancel()
    heard.close()
    manager.tell(stopping=1)  # nobody listens any more


async def test_who_has_no_manager_tells_nothing() -> None:
    nobody = Manager({})
    nobody.tell(ready=1)
    await nobody.keep_told(lambda: "never asked for")
    # Another process's watchdog is not ours.
    assert Manager({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}).tell_s == TELL_S
    assert Manager({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}).tell_s == 2.0


SUPERVISOR = """
import socket, sys
from skyisland.cli import supervising
supervising.AGAIN_S = 0.01
with socket.create_server(("127.0.0.1", 0)) as sock:
    print(sock.getsockname()[1], flush=True)
    sys.exit(supervising.Supervisor(sys.argv[1:], sock).run())
"""
ISLAND = """
import os, signal, sys
from skyisland.host.service import passed_on
print(*[(sock.getsockname()[1], sock.get_inheritable()) for sock in passed_on(os.environ)], flush=True)
if "SKYISLAND_SUCCEEDS" in os.environ:
    os.kill(os.getppid(), signal.SIGUSR2)
if sys.argv[1] == "stay":
    signal.pause()
"""


@pytest.mark.parametrize("life", ["fail", "stay"])
def test_a_supervisor_starts_one_after_another_on_one_socket(life: str) -> None:
    words = [sys.executable, "-c", SUPERVISOR, sys.executable, "-c", ISLAND, life]
    supervisor = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with supervisor:
        assert supervisor.stdout is not None
        port = supervisor.stdout.readline().strip()
        for _ in range(3):
            assert supervisor.stdout.readline().strip() == f"({port}, False)"
            if life == "stay":  # the second time, one may wait already: then it is renewed after that
                supervisor.send_signal(signal.SIGUSR1)
        supervisor.terminate()
        said = supervisor.communicate(timeout=30)[1]
    assert ("it is started again" in said) is (life == "fail")


def test_sockets_that_were_meant_for_another_are_not_taken() -> None:
    assert passed_on({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert passed_on({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}) == []
    assert passed_on({}) == []
