"""Resource limits on a process that another user owns (setrlimit(2)): a second line behind the cgroups.

prlimit(2) wants CAP_SYS_RESOURCE in the user namespace of the process. Root in a container often lacks
it, but whoever made a user namespace has every capability in it (user_namespaces(7)), and a jail's was
made by the jail's own host uid. So where the capability is missing, the calling thread takes that
effective uid for the length of the call. A system call of its own, because libc's seteuid would change
all threads. The real uid stays root's, so nobody of that uid can signal or trace the thread meanwhile.
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
"""Its number by the machine's name; asm/unistd_64.h, asm-generic/unistd.h."""
UNCHANGED = -1


def limit_process(pid: int, uid: int | None, limits: Limits) -> None:
    """Limit a process in a user namespace that `uid` made, and all its children to come.

    Blocks no longer than a few system calls take.

    Raises:
        PermissionError: not even as `uid`.
    """
    with _as_user(uid):
        for which, most in by_number(limits).items():
            resource.prlimit(pid, which, (most, most))


def by_number(limits: Limits) -> dict[int, int]:
    """What a process of a jail may have at most, by the system's numbers of resources."""
    wanted = {resource.RLIMIT_CORE: 0}
    if limits.open_files is not None:
        wanted[resource.RLIMIT_NOFILE] = limits.open_files
    if limits.file_bytes is not None:
        wanted[resource.RLIMIT_FSIZE] = limits.file_bytes
    if limits.cpu_time_s is not None:
        # A little more, for each process, so that `jail.Budget` is the first to notice.
        wanted[resource.RLIMIT_CPU] = math.ceil(limits.cpu_time_s) + 1
    return wanted


@contextlib.contextmanager
def _as_user(uid: int | None) -> Iterator[None]:
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
