"""The launcher of jails: the program, and what is said to it. `launcher/main.go` says what it does.

Each jail is made by one process of it, which becomes the program in the jail, and taken away by another.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from skyisland.errors import DriverError
from skyisland.host.ownprogram import OwnProgram
from skyisland.host.process import Process, spawn

TIMEOUT_S = 60.0
"""It takes milliseconds; the rest is for a host under load."""
ORDER_BYTES = 1 << 19
"""The longest order: as much as execve(2) takes (ARG_MAX)."""
ANSWER_BYTES = 1 << 12
"""No answer is as long."""
TRIES = 8
"""How many processes of the launcher are tried at most until one has had little memory. Under emulation four
of ten have the daemon's peak (seen on 15.0); few have where a fork takes less than a tick of the clock."""


class Launcher(OwnProgram):
    """The launcher's program."""

    package = "skyisland.drivers.freebsd"
    flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
    remedy = "name another toolchain in build.goroot"


async def make(
    launcher: Path,
    words: Sequence[str],
    *,
    blamed_bytes: int | None = None,
    stdout_bytes: int,
    stderr_bytes: int,
) -> tuple[Process, int]:
    """Have a jail made by an order; returns its process, and the number that the kernel gave it.

    `blamed_bytes`: the peak memory from which the end of the process is blamed on that. To a process FreeBSD
    counts what it had between fork(2) and execve(2), and that is ours; so one that had as much is not used.

    Raises:
        DriverError: it was not made, or its program did not begin; a removal takes away what there is of it.
    """
    for left in reversed(range(TRIES)):
        picky = [f"m{blamed_bytes}"] if left and blamed_bytes is not None else []
        ours, process = _start(launcher, stdout_bytes, stderr_bytes)
        with ours:
            try:
                answer = await _ask(ours, [*words, *picky])
            except BaseException:
                await _end(process)
                raise
        if answer != "?":
            break
        await _end(process)
    made, _, why = answer.partition("!")
    if not made or why:
        await _end(process)
        raise DriverError(f"cannot make the jail: {why or _last_words(process)}")
    return process, int(made.removeprefix("+"))


async def remove(launcher: Path, words: Sequence[str]) -> None:
    """Have a jail removed by an order. One of which nothing exists is no error.

    Raises:
        DriverError: something of it may be left.
    """
    ours, process = _start(launcher, ANSWER_BYTES, ANSWER_BYTES)
    with ours:
        try:
            answer = await _ask(ours, words)
        finally:
            await _end(process)
    if answer != "+":
        raise DriverError(f"cannot remove the jail: {answer.lstrip('!') or _last_words(process)}")


def _start(launcher: Path, stdout_bytes: int, stderr_bytes: int) -> tuple[socket.socket, Process]:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            ours.setblocking(False)
            process = spawn(
                [launcher],
                env={"SKY_ORDER": str(theirs.fileno())},
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdout_bytes=stdout_bytes,
                stderr_bytes=stderr_bytes,
            )
    except BaseException:
        ours.close()
        raise
    return ours, process


async def _ask(ours: socket.socket, words: Sequence[str]) -> str:
    """Say an order; returns the answer, which is empty if the launcher ended without one."""
    order = os.fsencode("".join(f"{word}\0" for word in words))
    if order.count(0) != len(words):
        raise DriverError("a word of the order for the jail has a zero byte")
    if len(order) > ORDER_BYTES:
        raise DriverError("the order for the jail is too long")
    loop, answer = asyncio.get_running_loop(), b""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await loop.sock_sendall(ours, order)
            ours.shutdown(socket.SHUT_WR)
            while len(answer) < ANSWER_BYTES and (chunk := await loop.sock_recv(ours, ANSWER_BYTES)):
                answer += chunk
    except TimeoutError:
        raise DriverError("the launcher of jails does not answer") from None
    except ConnectionError:
        pass
    return answer.decode(errors="replace")


async def _end(process: Process) -> None:
    process.kill()
    await process.wait()


def _last_words(process: Process) -> str:
    text = bytes(process.stderr.data).decode(errors="replace").strip()
    return text or f"the launcher ended with {process.returncode}"
