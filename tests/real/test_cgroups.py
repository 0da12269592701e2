"""Limits on real processes, with whatever cgroups this host has; needs root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyisland.drivers.linux.cgroup.group import Group
from skyisland.drivers.linux.cgroup.groups import Cgroups
from skyisland.drivers.linux.cgroup.hierarchy import Hierarchy, Kernel, kill_all
from skyisland.model import Limits

pytestmark = [pytest.mark.host, pytest.mark.root]

ISLAND = f"t{os.getpid():x}"
MEMORY = 64 << 20


def folders() -> list[str]:
    return Kernel().find("/sys/fs/cgroup", f"sky-{ISLAND}")


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    made = Cgroups(ISLAND)
    made.prepare()
    assert [c for c in made.capabilities() if not c.enforced] == []
    yield made
    for name in made.existing():
        assert made.remove(name)
    made.close()
    assert folders() == []


class Guest:
    """A Python program that is put into a group before its first line runs."""

    def __init__(self, group: Group, program: str) -> None:
        wait = "import os, sys, time; sys.stdin.readline();"
        self.popen = subprocess.Popen(
            [sys.executable, "-S", "-c", wait + program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        group.attach(self.popen.pid)
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()

    def line(self) -> bytes:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def wait(self) -> int:
        code = self.popen.wait(30)
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        self.popen.stdout.close()
        return code


def destroyed(cgroups: Cgroups, group: Group) -> None:
    """Ask until the kernel has let go of the dead, as the caller of `destroy` does."""
    until = time.monotonic() + 10
    while not cgroups.destroy(group):
        assert time.monotonic() < until, "tasks are left in the group"
        select.select((), (), (), 0.001)


HOG = "print('started', flush=True); x = bytearray(256 << 20); print('got it', flush=True)"


def test_a_memory_hog_is_killed_and_known_for_it(cgroups: Cgroups) -> None:
    free = cgroups.create("sky-free", Limits(memory_bytes=512 << 20))
    outside = Guest(free, HOG)
    assert (outside.line(), outside.line(), outside.wait()) == (b"started", b"got it", 0)
    assert not free.ran_out_of_memory()
    destroyed(cgroups, free)

    group = cgroups.create("sky-hog", Limits(memory_bytes=MEMORY))
    hog = Guest(group, HOG)
    assert (hog.line(), hog.line(), hog.wait()) == (b"started", b"", -9)
    assert group.ran_out_of_memory()
    destroyed(cgroups, group)
    assert not cgroups.create("sky-next", Limits(memory_bytes=MEMORY)).ran_out_of_memory()


def test_files_in_memory_count_as_well(cgroups: Cgroups) -> None:
    group = cgroups.create("sky-files", Limits(memory_bytes=MEMORY))
    hog = Guest(group, "f = os.memfd_create('x'); [os.write(f, bytes(1 << 20)) for _ in range(256)]")
    assert hog.wait() == -9
    assert group.ran_out_of_memory()
    destroyed(cgroups, group)


FORKS = """
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
time.sleep(60)
"""


def test_forks_end_at_the_limit_and_all_are_killed(cgroups: Cgroups) -> None:
    group = cgroups.create("sky-forks", Limits(pids=20))
    bomb = Guest(group, f"exec({FORKS!r})")
    assert bomb.line() == b"19"
    assert group.usage().pids == 20
    group.kill()
    assert bomb.wait() == -9
    destroyed(cgroups, group)


def test_a_racing_fork_bomb_is_killed_whole(cgroups: Cgroups) -> None:
    group = cgroups.create("sky-race", Limits(pids=40, memory_bytes=512 << 20))
    race = "\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    bomb = Guest(group, f"print('go', flush=True); exec({race!r})")
    assert bomb.line() == b"go"
    group.kill()
    assert bomb.wait() == -9
    destroyed(cgroups, group)


BURN = (
    "used, until = time.process_time(), time.time() + 1.0\n"
    "while time.time() < until: pass\n"
    "print(time.process_time() - used)"
)


def test_processor_time_is_bounded(cgroups: Cgroups) -> None:
    group = cgroups.create("sky-burn", Limits(cpus=0.2))
    burner = Guest(group, f"exec({BURN!r})")
    used_s = float(burner.line())
    assert burner.wait() == 0
    assert used_s < 0.6
    destroyed(cgroups, group)


def test_usage_is_told(cgroups: Cgroups) -> None:
    group = cgroups.create("sky-usage", Limits(memory_bytes=512 << 20, pids=10))
    work = (
        "x = bytearray(b'1') * (32 << 20)\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)"
    )
    guest = Guest(group, f"exec({work!r}); time.sleep(60)")
    assert guest.line() == b"done"
    usage = group.usage()
    assert usage.memory_bytes is not None
    assert 32 << 20 < usage.memory_bytes < 64 << 20
    assert usage.cpu_s is not None
    assert 0.25 < usage.cpu_s < 2
    assert usage.pids == 1
    group.kill()
    guest.wait()
    destroyed(cgroups, group)


def test_limits_are_what_the_kernel_says(cgroups: Cgroups) -> None:
    group = cgroups.create("sky-limits", Limits(memory_bytes=MEMORY, pids=7, cpus=1.5))
    said = {}
    for path in group.join_paths:
        for file in path.parent.iterdir():
            if file.name in {
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                "memory.swappiness",
                "memory.max",
                "pids.max",
                "cpu.cfs_quota_us",
                "cpu.max",
            }:
                said[file.name] = file.read_text().strip()
    assert said.pop("pids.max") == "7"
    if "memory.max" in said:
        assert said == {"memory.max": str(MEMORY), "cpu.max": "150000 100000"}
    else:
        assert said.pop("memory.memsw.limit_in_bytes", str(MEMORY)) == str(MEMORY)
        assert said == {
            "memory.limit_in_bytes": str(MEMORY),
            "memory.swappiness": "0",
            "cpu.cfs_quota_us": "150000",
        }


def test_a_group_is_used_again_but_not_while_somebody_is_in_it(cgroups: Cgroups) -> None:
    limits = Limits(memory_bytes=MEMORY, pids=10, cpus=1.0)
    group = cgroups.create("sky-one", limits)
    guest = Guest(group, "time.sleep(60)")
    assert not cgroups.destroy(group)
    group.kill()
    guest.wait()
    destroyed(cgroups, group)
    assert cgroups.existing() == []
    again = cgroups.create("sky-two", limits)
    assert again.join_paths == group.join_paths
    assert again.usage().pids == 0
    assert cgroups.existing() == ["sky-two"]


def test_the_next_life_takes_away_what_the_last_one_left(cgroups: Cgroups) -> None:
    lost = cgroups.create("sky-lost", Limits(pids=10))
    guest = Guest(lost, "os.fork(); time.sleep(60)")
    following = Cgroups(ISLAND)
    following.prepare()
    (left,) = following.existing()
    assert left.startswith(f"sky-{ISLAND}-")
    killed = threading.Thread(target=guest.popen.wait)  # somebody has to reap it
    killed.start()
    assert following.remove(left)
    killed.join()
    assert guest.wait() == -9
    assert following.existing() == []
    assert lost.usage().memory_bytes is None
    assert cgroups.destroy(lost)


def test_cgroup_kill_of_version_2() -> None:
    """Beside version 1 it has no controllers for us, but its `cgroup.kill` is the real one."""
    kernel = Kernel()
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (point,) = [line.split()[4] for line in lines if " - cgroup2 " in line]
    folder = f"{point}/sky-{ISLAND}-kill"
    kernel.make(folder)
    try:
        cgroups = Cgroups(ISLAND)
        cgroups.hierarchies.usable = [Hierarchy(2, folder, frozenset(), counts_cpu=False)]
        group = cgroups.create("sky-two", Limits())
        guest = Guest(group, "os.fork(); os.fork(); time.sleep(60)")
        assert Path(f"/proc/{guest.popen.pid}/cgroup").read_text().count(group.slot) == 1
        kill_all(kernel, str(group.join_paths[0].parent))
        assert guest.wait() == -9
        destroyed(cgroups, group)
        cgroups.close()
    finally:
        with contextlib.suppress(FileNotFoundError):
            kernel.remove(folder)


async def test_nothing_but_making_and_removing_is_seen_by_the_watch_on_the_loop(cgroups: Cgroups) -> None:
    limits = Limits(memory_bytes=MEMORY, pids=10, cpus=1.0)
    group = await asyncio.to_thread(cgroups.create, "sky-loop", limits)
    assert await asyncio.to_thread(cgroups.destroy, group)
    again = cgroups.create("sky-loop", limits)
    assert again.usage().pids == 0
    assert not again.ran_out_of_memory()
    assert cgroups.destroy(again)


async def test_what_the_last_jail_met_as_it_ended_does_not_kill_the_next(cgroups: Cgroups) -> None:
    """The kernel's event (version 1) comes when nobody watches any more; the next jail has the same group."""
    limits = Limits(memory_bytes=64 << 20)
    group = cgroups.create("sky-none-1", limits)
    if group._oom_fd is None:  # version 2 has no such event
        group._oom_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    assert cgroups.set_aside(group)
    os.eventfd_write(group._oom_fd, 1)
    group.watch()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert group.ran_out_of_memory()  # whoever watched the old event would believe it

    group._saw_oom = False
    os.eventfd_write(group._oom_fd, 1)
    assert cgroups.create("sky-none-2", limits) is group
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not group.ran_out_of_memory()
    assert cgroups.destroy(group)
