"""Runs the stand-ins, each in a fork of one process that has started already: they are called so often.

    bin/zfs ──▶ 127.0.0.1: who calls, where, what ──▶ a fork, on the descriptors of bin/zfs ──▶ exit code

A stand-in that runs here dies with bin/zfs, as a program that is killed would.

    python -m tests.support.standins.server DESCRIPTOR     of the listening socket
"""

from __future__ import annotations

import ctypes
import fcntl
import json  # noqa: F401 - so that no stand-in has to
import os
import re  # noqa: F401 - likewise
import select
import signal
import socket
import sys
import traceback

from tests.support.standins import host, jails, network, storage  # noqa: F401 - likewise
from tests.support.standins.state import main

PR_SET_PDEATHSIG = 1


def serve(listener: socket.socket) -> None:
    while True:
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            perform(link)
        link.close()


def perform(link: socket.socket) -> None:
    pid, caller, folder, program, *words = read(link)
    # SIGIO ends this process when the other end is closed; until now that could go unnoticed.
    fcntl.fcntl(link, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(link, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([link], [], [], 0)[0]:
        os._exit(1)
    for fd, theirs, flags in ((0, 0, os.O_RDONLY), (1, 4, os.O_WRONLY), (2, 2, os.O_WRONLY)):
        os.dup2(os.open(f"/proc/{pid}/fd/{theirs}", flags), fd)
    code = 1
    try:
        main(program, folder, words, int(caller))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(f"{code}\n".encode())
    os._exit(0)


def read(link: socket.socket) -> list[str]:
    """So many words as the first says, each ended by a zero byte."""
    data = b""
    while b"\0" not in data or data.count(b"\0") <= int(data.partition(b"\0")[0]):
        chunk = link.recv(1 << 16)
        if not chunk:
            os._exit(1)
        data += chunk
    return os.fsdecode(data).split("\0")[1:-1]


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
