"""Cases R: taking more than the jail's share."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from skyisland.jails.register import Jails
from skyisland.model import Limits, Outcome, Verdict
from tests.support.hostility import MIB, STRANGER, UIDS, Inside, Outside, Said, Start, heard, processes_of

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.fixture
def innards() -> Callable[[], tuple[int, int]]:
    """The daemon's own open descriptors, and its memory in bytes."""

    def look() -> tuple[int, int]:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        return len(os.listdir("/proc/self/fd")), resident

    return look


@pytest.mark.case("R1")
async def test_r1_forks_end_at_the_limit(outside: Outside, said: Said, limits: Limits) -> None:
    more = (limits.pids or 0) + 10
    assert outside("forks", more, uid=STRANGER) == "worked"
    assert await said("forks", more) == "EAGAIN"


@pytest.mark.case("R1")
async def test_r1_a_fork_bomb_ends_with_its_jail(start: Start, inside: Inside, limits: Limits) -> None:
    begun = start("storm", 6, uid=STRANGER)
    assert begun.stdout is not None
    assert await asyncio.to_thread(begun.stdout.read, 5) == b"begun"
    async with asyncio.timeout(10):
        while len(processes_of(range(STRANGER, STRANGER + 1))) < 64:
            await asyncio.sleep(0.01)

    outcome = await inside("storm", 1 << 40, timeout_s=0.5)
    assert (outcome.verdict, outcome.stdout) == (Verdict.timed_out, b"begun")


@pytest.mark.case("R2")
async def test_r2_memory_ends_at_the_limit(outside: Outside, inside: Inside) -> None:
    assert outside("memory", 128) == "worked"
    outcome = await inside("memory", 128)
    assert (outcome.verdict, outcome.stdout) == (Verdict.out_of_memory, b"")


@pytest.mark.case("R2")
async def test_r2_the_whole_jail_ends_not_one_process_of_it(outside: Outside, inside: Inside) -> None:
    assert outside("memory-child", 128) == "worked"
    started = time.monotonic()
    outcome = await inside("memory-child", 128, timeout_s=20)
    assert (outcome.verdict, outcome.stdout) == (Verdict.out_of_memory, b"")
    assert time.monotonic() - started < 10


@pytest.mark.case("R3")
async def test_r3_descriptors_run_out_inside_only(
    outside: Outside, said: Said, limits: Limits, innards: Callable[[], tuple[int, int]]
) -> None:
    most = limits.open_files or 0
    assert outside("fds", most) == f"worked {most}"
    before, _ = innards()
    word, opened = (await said("fds", most)).split()
    assert (word, int(opened) < most) == ("EMFILE", True)
    assert abs(innards()[0] - before) < 10


@pytest.mark.case("R3")
async def test_r3_limits_cannot_be_raised(outside: Outside, said: Said, limits: Limits) -> None:
    files, size, core = map(int, (await said("limits")).split())
    assert (files, size, core) == (limits.open_files, limits.file_bytes, 1)
    assert await said("raise") == "EPERM"


FULL = (b"ENOSPC", b"ENOENT", b"EACCES")
"""What else becomes of a write that is too much, or to where nobody may write."""


@pytest.mark.case("R4")
async def test_r4_a_full_disk_is_the_jails_own(outside: Outside, inside: Inside, state_dir: Path) -> None:
    """What a jail writes is memory: its group bounds it, and frees it."""
    state_dir.chmod(0o777)
    assert outside("disk", state_dir, 96, uid=STRANGER) == "worked"
    for folder in ("/tmp", "/var", "/"):
        outcome = await inside("disk", folder, 96)
        assert outcome.verdict is Verdict.out_of_memory or outcome.stdout in FULL, folder


@pytest.mark.case("R4")
async def test_r4_who_fails_on_a_full_disk_is_told_so(
    outside: Outside, inside: Inside, said: Said, jails: Jails, limits: Limits, state_dir: Path
) -> None:
    assert outside("disk", state_dir, 96) == "worked"
    scant = replace(limits, disk_bytes=8 * MIB)
    outcome = await inside("full", "/tmp", 96, limits=scant)
    if jails.driver.name == "namespaces":
        assert (outcome.verdict, outcome.exit_code, outcome.stdout) == (Verdict.disk_full, 1, b"ENOSPC")
    else:
        assert outcome.verdict is Verdict.out_of_memory
    room = await inside("full", "/tmp", 2, limits=scant)
    assert (room.verdict, room.stdout) == (Verdict.exited, b"worked")


@pytest.mark.case("R4")
async def test_r4_no_file_is_larger_than_it_may(
    outside: Outside, said: Said, limits: Limits, state_dir: Path
) -> None:
    more = (limits.file_bytes or 0) // MIB + 1
    assert outside("large", state_dir, more) == "worked"
    assert await said("large", "/tmp", more) == "EFBIG"


@pytest.mark.case("R5")
async def test_r5_inodes_are_memory_too(outside: Outside, inside: Inside, state_dir: Path) -> None:
    """The kernel charges an inode, about a kilobyte, to the group of who makes it."""
    state_dir.chmod(0o777)
    assert outside("inodes", state_dir, 2000, uid=STRANGER) == "worked"
    outcome = await inside("inodes", "/tmp", 1_000_000)
    assert outcome.verdict is Verdict.out_of_memory or outcome.stdout == b"ENOSPC"


@pytest.mark.case("R6")
async def test_r6_endless_output_is_cut(
    start: Start, inside: Inside, limits: Limits, innards: Callable[[], tuple[int, int]]
) -> None:
    free = start("flood")
    assert free.stdout is not None
    assert len(await asyncio.to_thread(free.stdout.read, 8 * limits.stdout_bytes)) == 8 * limits.stdout_bytes
    _, before = innards()
    outcome = await inside("flood")
    assert (outcome.verdict, len(outcome.stdout)) == (Verdict.output_limit, limits.stdout_bytes)
    assert innards()[1] - before < 32 * MIB


@pytest.mark.case("R7")
async def test_r7_a_trickle_ends_at_the_deadline(start: Start, inside: Inside) -> None:
    free = start("trickle")
    assert free.stdout is not None
    assert await asyncio.to_thread(free.stdout.read, 40) == b"." * 40
    outcome = await inside("trickle", timeout_s=0.4)
    assert outcome.verdict is Verdict.timed_out
    assert set(outcome.stdout) == set(b".")


@pytest.mark.case("R8")
async def test_r8_spinning_threads_get_their_share(outside: Outside, said: Said, limits: Limits) -> None:
    assert int(outside("spin", 1000, 4)) > 100
    assert int(await said("spin", 1000, 4, limits=replace(limits, cpus=0.02))) < 60


@pytest.mark.case("R8")
async def test_r8_neighbours_get_theirs(said: Said, inside: Inside, jails: Jails, limits: Limits) -> None:
    spinning = [
        asyncio.ensure_future(inside("spin", 60_000, 4, limits=replace(limits, cpus=0.25), timeout_s=30))
        for _ in range(3)
    ]
    times = []
    for _ in range(10):
        started = time.monotonic()
        assert await said("cwd") == "/"
        times.append(time.monotonic() - started)
    await jails.kill_all()
    assert {outcome.verdict for outcome in await asyncio.gather(*spinning)} == {Verdict.killed}
    assert sorted(times)[-2] < 2.0


@pytest.mark.case("R8")
async def test_r8_processor_time_ends(outside: Outside, inside: Inside, said: Said, limits: Limits) -> None:
    assert int(outside("spin", 1000, 4)) > 200
    scant = replace(limits, cpu_time_s=0.2, cpus=2.0)
    assert (await inside("spin", 60_000, 4, limits=scant)).verdict is Verdict.cpu_time
    assert await said("cwd", limits=scant) == "/"


@pytest.mark.case("R9")
async def test_r9_the_deaf_are_killed(start: Start, inside: Inside) -> None:
    free = start("deaf")
    assert free.stdout is not None
    assert await asyncio.to_thread(free.stdout.read, 4) == b"deaf"
    free.send_signal(signal.SIGTERM)
    free.send_signal(signal.SIGINT)
    outcome = await inside("deaf", timeout_s=0.3)
    assert (outcome.verdict, outcome.stdout) == (Verdict.timed_out, b"deaf")
    assert free.poll() is None


@pytest.mark.case("R10")
async def test_r10_a_stray_daemon_delays_nobody_and_dies(start: Start, inside: Inside, jails: Jails) -> None:
    free = start("stray", uid=STRANGER)
    assert free.stdout is not None
    said = await asyncio.to_thread(free.stdout.read, 8)
    assert said.startswith(b"worked ")
    await asyncio.to_thread(free.wait, 10)
    (left,) = processes_of(range(STRANGER, STRANGER + 1))
    os.kill(left, signal.SIGKILL)

    started = time.monotonic()
    outcome = await inside("stray")
    assert outcome.verdict is Verdict.ok
    assert outcome.stdout.startswith(b"worked")
    assert time.monotonic() - started < 5
    await jails.drain()
    assert processes_of(UIDS) == []


@pytest.mark.case("R11")
async def test_r11_zombies_pile_up_to_the_limit_and_orphans_do_not(
    outside: Outside, said: Said, limits: Limits
) -> None:
    many = 4 * (limits.pids or 0)
    assert outside("zombies", many, uid=STRANGER) == "worked"
    assert await said("zombies", many) == "EAGAIN"
    assert outside("orphans", many, uid=STRANGER) == "worked"
    assert await said("orphans", many) == "worked"


HOARDS = [
    # what, how many, and what becomes of it inside
    ("R12", "memfd", 96, "out of memory"),
    ("R12", "sysv", 96, "out of memory"),
    ("R12", "mqueue", 300, "EMFILE ENOSPC"),
    ("R13", "pipe", 300, "EMFILE"),
    ("R13", "socket", 300, "EMFILE"),
    ("R13", "inotify", 100, "EMFILE worked"),
    ("R13", "timer", 20_000, "worked EAGAIN out of memory"),
]


@pytest.mark.parametrize(
    ("what", "count", "fate"),
    [pytest.param(*hoard, id=f"{case} {hoard[0]}", marks=pytest.mark.case(case)) for case, *hoard in HOARDS],
)
async def test_hoards_are_charged_and_freed(
    outside: Outside, inside: Inside, what: str, count: int, fate: str
) -> None:
    again = ("unlink",) if what == "mqueue" else ()
    assert outside("hoard", what, count, *again) == "worked"
    outcome = await inside("hoard", what, count)
    assert end_of(outcome) in fate
    # What a jail has taken is there for the next one.
    assert end_of(await inside("hoard", what, 8)) == "worked"


def end_of(outcome: Outcome) -> str:
    return "out of memory" if outcome.verdict is Verdict.out_of_memory else outcome.stdout.decode()


@pytest.mark.case("F5")
async def test_f5_a_tree_deeper_than_any_path_goes_with_its_jail(
    start: Start, said: Said, inside: Inside, jails: Jails, state_dir: Path
) -> None:
    state_dir.chmod(0o777)
    free = start("tree", state_dir, 300, uid=STRANGER)
    assert (await asyncio.to_thread(free.communicate))[0] == b"worked"
    assert await said("tree", "/tmp", 3000) == "worked"
    staying = asyncio.ensure_future(inside("deaf"))
    await heard(jails, b"deaf")
    await jails.kill_all()
    assert (await staying).verdict is Verdict.killed
