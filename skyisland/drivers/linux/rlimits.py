"""Resource limits (setrlimit(2)) on a process of another user: a second line behind the cgroups.

prlimit(2) needs CAP_SYS_RESOURCE in the user namespace of the process, and root in a container often lacks
it. But the user who made a user namespace has every capability in it (user_namespaces(7)), and a jail's
user namespace was made by the jail's own host uid. So the calling thread takes that effective uid for the
duration of the call.

It does so by a raw system call, because libc's seteuid changes all threads. The real uid stays 0, so that
no process of that uid can signal or trace the thread meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import resource
from collections.abc import Iterator

from skyisland.model import Limits

SETRESUID = {"x86_64": 117, "aarch64": 147}
"""The system call's number by machine (asm/unistd_64.h, asm-generic/unistd.h)."""
UNCHANGED = -1
"""As an argument of setresuid(2): leave this one of the three uids."""


def limit_process(pid: int, uid: int | None, limits: Limits) -> None:
    """Limit a process in a user namespace that `uid` made, and its future children.

    Takes a few system calls and does not wait.

    Raises:
        PermissionError: even `uid` may not.
    """
    with _as_user(uid):
        for resource_number, maximum in by_number(limits).items():
            resource.prlimit(pid, resource_number, (maximum, maximum))


def by_number(limits: Limits) -> dict[int, int]:
    """The limits of a jail's process: resource number (RLIMIT_…) → maximum, both soft and hard."""
    # 0 does not keep the kernel from starting the host's own core handler, a program of root; 1 does, and is
    # too little for a file (core(5), do_coredump).
    maxima = {resource.RLIMIT_CORE: 1}
    if limits.open_files is not None:
        maxima[resource.RLIMIT_NOFILE] = limits.open_files
    if limits.file_bytes is not None:
        maxima[resource.RLIMIT_FSIZE] = limits.file_bytes
    if limits.cpu_time_s is not None:
        # A second more than the jail's budget, so that the island ends it first, with the right outcome.
        maxima[resource.RLIMIT_CPU] = math.ceil(limits.cpu_time_s) + 1
    return maxima


@contextlib.contextmanager
def _as_user(uid: int | None) -> Iterator[None]:
    """Give the calling thread another effective uid, if we are root."""
    number = SETRESUID.get(platform.machine())
    if uid is None or number is None or os.geteuid() != 0:
        yield
        return
    _set_effective_uid(number, uid)
    try:
        yield
    finally:
        _set_effective_uid(number, 0)


def _set_effective_uid(number: int, uid: int) -> None:
    if _libc().syscall(ctypes.c_long(number), UNCHANGED, ctypes.c_uint(uid), UNCHANGED) == -1:
        raise PermissionError(ctypes.get_errno(), "setresuid")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
