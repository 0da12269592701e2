"""Faults of the host: threads that end, memory, disk, descriptors, clocks, and services that are gone."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from skyisland.drivers.linux.bubblewrap import BubblewrapJails
from skyisland.drivers.linux.namespaces import NamespaceJails
from skyisland.drivers.linux.overlay import OverlayClones
from skyisland.errors import DriverError
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.jails.driver import JailDriver
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Limits, Mount, Purpose, Verdict
from tests.support.daemon import HOST, PATIENCE_S, Daemon, copy_of
from tests.support.http2 import FLOODS, GREETING

pytestmark = [pytest.mark.host, pytest.mark.root]

Make = Callable[..., Daemon]
UIDS = range(1_952_000_000, 1_952_000_008)
ISLAND = f"{os.getpid() & 0xFFFF:04x}"


@pytest.fixture(params=["namespaces", "bubblewrap"])
def driver(request: pytest.FixtureRequest, state_dir: Path) -> JailDriver:
    if request.param == "namespaces":
        launcher = request.getfixturevalue("launcher")
        return NamespaceJails(ISLAND, state_dir / "run", launcher, probe_uid=UIDS[0])
    return BubblewrapJails(ISLAND, state_dir / "run", probe_uid=UIDS[0])


@pytest.fixture
async def jails(driver: JailDriver, base_dir: Path) -> AsyncIterator[Jails]:
    made = Jails(driver, OverlayClones(base_dir), FakeAddresses(), Events(), island=ISLAND, uids=UIDS)
    await made.prepare()
    yield made
    await made.close()
    assert await driver.existing() == []


@pytest.mark.case("D2")
async def test_d2_jails_outlive_the_threads_of_the_island(jails: Jails, actor: Path) -> None:
    """A process that a thread started with a death signal dies with that thread (shown first)."""
    victims: list[subprocess.Popen[bytes]] = []
    dying = "import ctypes,time; ctypes.CDLL(None).prctl(1, 9); print('ready', flush=True); time.sleep(60)"

    def spawn() -> None:
        victims.append(subprocess.Popen(["python3", "-c", dying], stdout=subprocess.PIPE))
        assert victims[0].stdout is not None
        assert victims[0].stdout.readline() == b"ready\n"

    thread = threading.Thread(target=spawn)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await asyncio.to_thread(victims[0].wait, 20) == -9
    assert victims[0].stdout is not None
    victims[0].stdout.close()

    async with jails.jail(
        JailOrder(
            argv=("/function",),
            purpose=Purpose.function,
            mounts=(Mount(actor, "/function"),),
            limits=Limits(),
        )
    ) as inmate:
        workers = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(20)]
        for worker in workers:
            worker.start()
        for worker in workers:
            await asyncio.to_thread(worker.join)
        outcome = await inmate.converse(b"say alive", 20)
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"alive")


@pytest.mark.case("D3")
async def test_d3_jails_go_before_the_island(jails: Jails, actor: Path) -> None:
    """A jail's first process begins with this, so it is looked at once the function has spoken."""
    async with jails.jail(
        JailOrder(
            argv=("/function",),
            purpose=Purpose.function,
            mounts=(Mount(actor, "/function"),),
            limits=Limits(),
        )
    ) as inmate:
        assert inmate.jail is not None
        conversing = asyncio.ensure_future(inmate.converse(b"linger", 30))
        while not inmate.jail.process.stdout.data and not conversing.done():
            await asyncio.sleep(0.005)
        jail = Path(f"/proc/{inmate.jail.pid}/oom_score_adj")
        assert int(jail.read_text()) == 1000
        assert int(Path("/proc/self/oom_score_adj").read_text()) < 1000
        await jails.kill_all()
        await conversing


@pytest.mark.case("D5")
async def test_d5_deadlines_do_not_follow_the_clock(
    jails: Jails, actor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at the clock twice, before and after a jump, is off by a day (shown first)."""
    real = time.time
    for jump_s in (-86400.0, 86400.0):
        async with jails.jail(
            JailOrder(
                argv=("/function",),
                purpose=Purpose.function,
                mounts=(Mount(actor, "/function"),),
                limits=Limits(),
            )
        ) as inmate:
            started, by_the_clock = time.monotonic(), time.time()
            conversing = asyncio.ensure_future(inmate.converse(b"sleep", 0.4))
            await asyncio.sleep(0.05)
            with monkeypatch.context() as jumped:
                jumped.setattr(time, "time", lambda jump_s=jump_s: real() + jump_s)
                assert abs(time.time() - by_the_clock) > 80_000
                outcome = await conversing
        assert outcome.verdict is Verdict.timed_out
        assert 0.4 <= time.monotonic() - started < 10


KEPT = 16
"""Cgroups that are kept for the next jails; each holds the alarm of its memory."""


def held() -> tuple[int, int]:
    """How many descriptors are open: all but alarms, and alarms."""
    opened = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    alarms = opened.count("anon_inode:[eventfd]")
    return len(opened) - alarms, alarms


@contextmanager
def descriptors(left: int) -> Iterator[None]:
    """This process can open so many files and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        fillers = []
        with suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for number, filler in enumerate(fillers):
            if number < left:
                os.close(filler)
            else:
                stack.callback(os.close, filler)
        yield


async def test_descriptors_run_out_at_any_step_of_making_a_jail(jails: Jails, actor: Path) -> None:
    limits = Limits(pids=64, cpus=1.0)

    async def call() -> bytes:
        async with jails.jail(
            JailOrder(
                argv=("/function",),
                purpose=Purpose.function,
                mounts=(Mount(actor, "/function"),),
                limits=limits,
            )
        ) as inmate:
            return (await inmate.converse(b"say alive", 20)).stdout

    assert await call() == b"alive"
    await jails.drain()
    before = held()
    refusals = []
    for left in range(30):
        with descriptors(left):
            try:
                assert await call() == b"alive"
            except DriverError as refusal:
                refusals.append((left, refusal.message))
            await jails.drain()
    assert [left for left, _ in refusals] == list(range(len(refusals)))
    assert 4 < len(refusals) < 25
    assert all("Too many open files" in message for _, message in refusals), refusals
    assert held()[0] <= before[0]
    assert held()[1] <= before[1] + KEPT


# With a whole daemon


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder with room for 700 MB and no more."""
    place = Path(tempfile.mkdtemp(prefix="sky-small-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m,mode=755", "sky-small", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            pass
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
    return filler


@pytest.mark.case("D4")
def test_d4_a_full_disk_is_told_and_survived(
    daemon: Make, make_daemon: Make, prepared: Path, small_disk: Path
) -> None:
    """Full at the clone, at the build and in the database; what is compiled still answers."""
    state = small_disk / "state"
    copy_of(prepared, state, share=False)
    running = daemon(state_dir=str(state))
    running.state = state
    running.start()
    assert running.call("textkit", 'Number("1")').json()["data"] == "1 <nil>"
    filler = fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "more").write_bytes(bytes(1 << 16))
    for package, call in (("numerals", "Year(7)"), ("textkit", "Words()")):
        refused = running.call(package, call)
        assert (refused.status_code, refused.json()["code"]) == (500, "driver_error"), refused.text
        assert "space left" in refused.json()["error"]
    for number in range(20):  # their history cannot be written
        assert running.call("textkit", f'Number("{number}")').json()["data"] == f"{number} <nil>"
    filler.unlink()
    (small_disk / "more").unlink(missing_ok=True)
    assert running.call("textkit", "Words()").status_code == 200
    assert running.stop() == 0
    assert sqlite3.connect(state / "island.db").execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    running.start()
    assert running.call("textkit", 'Number("5")').json()["cached"] is True
    assert running.stop() == 0
    running.state = running.folder / "state"  # where it began; that one's disk is gone


@pytest.mark.case("H10")
def test_h10_health_and_admin_answer_under_overload(daemon: Make) -> None:
    """Clients that ask again as soon as they are refused leave it time for others.

    Time that the daemon, or this test, was ready to run and had no processor is the host's, and not counted:
    tests run on every core beside this one.
    """
    running = daemon(jails={"max_running": 2, "max_queued": 4, "exec_timeout": "30s"}).start()
    assert running.call("trouble", "Sleep(1)").status_code == 200
    over, refused = threading.Event(), Counter[str]()

    def flood() -> None:
        body = {"url": f"{HOST}/trouble", "call": "Sleep(300000000)"}
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=PATIENCE_S) as client:
            while not over.is_set():
                answer = client.post("/api/v1/function", json=body)
                refused[answer.headers.get("Retry-After", f"{answer.status_code}")] += 1

    def waited() -> float:
        files = (f"/proc/{running.pid}/schedstat", "/proc/thread-self/schedstat")
        return sum(int(Path(file).read_text().split()[1]) for file in files) / 1e9

    def look(path: str) -> float:
        before, started = waited(), time.monotonic()
        assert admin.get(path).status_code == 200
        return time.monotonic() - started - (waited() - before)

    with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", headers=running.admin.headers) as admin:
        clients = [threading.Thread(target=flood) for _ in range(64)]
        for client in clients:
            client.start()
        try:
            running.wait_for(event="InvocationFinished", verdict="too_busy", times=50)
            times = sorted(look(path) for path in ("/healthcheck", "/api/v1/admin/jails") * 20)
            running.wait_for(event="InvocationFinished", verdict="ok", times=4)
        finally:
            over.set()
            for client in clients:
                client.join()
    assert set(refused) == {"1", "200"}
    assert refused["1"] > 50
    assert times[len(times) // 2] < 0.05, times


@pytest.mark.case("H13")
def test_h13_health_is_answered_beside_floods_of_http2(daemon: Make) -> None:
    running = daemon(api={"http2": True}).start()
    over, closed = threading.Event(), Counter[str]()

    def flood(name: str) -> None:
        while not over.is_set():
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", running.port), PATIENCE_S, ("127.0.0.2", 0)) as loud,
            ):
                loud.sendall(GREETING + FLOODS[name])
                while loud.recv(1 << 16):
                    pass
            closed[name] += 1

    floods = [threading.Thread(target=flood, args=(name,)) for name in FLOODS]
    for thread in floods:
        thread.start()
    try:
        times = []
        while min(closed[name] for name in FLOODS) < 2:
            started = time.monotonic()
            assert running.request("GET", "/healthcheck").status_code == 200
            times.append(time.monotonic() - started)
        assert running.call("textkit", 'Number("7")').json()["data"] == "7 <nil>"
    finally:
        over.set()
        for thread in floods:
            thread.join()
    assert max(times) < 2, sorted(times)[-5:]
    lines = [json.dumps(line) for line in running.log]
    assert any("too many resets" in line for line in lines)
    assert max(map(len, lines)) < 4096


def test_statsd_and_name_servers_that_are_gone_harm_nobody(daemon: Make) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    running = daemon(metrics={"statsd": f"127.0.0.1:{port}"}).start()
    for number in range(5):
        assert running.call("textkit", f'Number("{number}")').json()["data"] == f"{number} <nil>"
    unknown = running.post(url="no-such-host.invalid/user/repo", call="F()")
    assert unknown.status_code in (403, 502)


def test_a_damaged_database_is_kept_aside(daemon: Make) -> None:
    running = daemon().start()
    assert running.call("textkit", 'Number("1")').status_code == 200
    running.kill()
    database = running.state / "island.db"
    whole = bytearray(database.read_bytes())
    whole[100 : len(whole) : 7] = b"x" * len(whole[100 : len(whole) : 7])
    database.write_bytes(whole)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    running.start()
    assert [path.name for path in running.state.glob("island.db.damaged-*")] != []
    assert running.call("textkit", 'Number("2")').json()["data"] == "2 <nil>"


def test_descriptors_run_out_and_come_back(daemon: Make) -> None:
    """More connections than the daemon has descriptors for. None of its clients waits for an answer that
    does not come; once the others are gone, it answers the first as before."""
    running = daemon(warm={"max_jails": 0}).start()
    call = {"url": f"{HOST}/textkit", "call": 'Number("3")'}
    assert running.post(**call).status_code == 200
    used = len(os.listdir(f"/proc/{running.pid}/fd"))
    before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    url = f"http://127.0.0.1:{running.port}"
    with httpx.Client(base_url=url, timeout=20) as early, ExitStack() as held:
        assert early.get("/healthcheck").status_code == 200
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (used + 20, before[1]))
        for _ in range(100):
            held.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=5))
        until = time.monotonic() + PATIENCE_S
        while len(os.listdir(f"/proc/{running.pid}/fd")) < used + 16:  # a call needs more than are left then
            assert time.monotonic() < until, "the daemon does not take the connections"
        refused = early.post("/api/v1/function", json=call)
        assert (refused.status_code, refused.json()["code"]) == (500, "driver_error")
        assert "Too many open files" in refused.json()["error"]
        with suppress(httpx.NetworkError, httpx.ProtocolError):  # cut off, unless the call gave one back
            assert httpx.get(f"{url}/healthcheck", timeout=20).status_code == 200
        held.close()
        until = time.monotonic() + PATIENCE_S
        while len(os.listdir(f"/proc/{running.pid}/fd")) > used + 5:
            assert time.monotonic() < until
        for _ in range(3):
            assert running.post(**call).json()["data"] == "3 <nil>"
            assert early.post("/api/v1/function", json=call).json()["data"] == "3 <nil>"
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)
