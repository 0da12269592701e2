"""The launcher of jails: how it is compiled, and what its jails must not take from it or from the host."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from skyisland.drivers.linux import launching as launchers
from skyisland.drivers.linux.cgroup.group import Group
from skyisland.drivers.linux.launching import Launcher, LauncherSocket
from skyisland.drivers.linux.namespaces import NamespaceJails, shares
from skyisland.drivers.linux.overlay import OverlayClones
from skyisland.errors import DriverError, HostUnfit
from skyisland.events import Events
from skyisland.fakes import FakeAddresses
from skyisland.host import ownprogram
from skyisland.host.process import Completed
from skyisland.host.toolchain import Toolchains
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Clone, JailSpec, Limits, Mount, Outcome, Purpose, Snapshot, Verdict
from tests.support.gotool import goroot
from tests.support.hostility import heard, processes_of

pytestmark = [pytest.mark.host, pytest.mark.root]

SOURCE = Path(launchers.__file__).parent / "launcher"
UIDS = range(1_953_000_000, 1_953_000_008)
ISLAND = "1a0c"
Go = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shared(state_dir: Path) -> Iterator[Path]:
    """A folder in which a mount shows in other mount namespaces too, as it does on most hosts."""
    place = state_dir / "shared"
    place.mkdir()
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    (place / "within").mkdir()
    yield place / "within"
    subprocess.run(["umount", "--recursive", place], check=True)


@pytest.fixture
def driver(state_dir: Path, shared: Path, launcher: Launcher) -> NamespaceJails:
    return NamespaceJails(ISLAND, state_dir / "run", launcher, probe_uid=UIDS[0])


@pytest.fixture
async def jails(driver: NamespaceJails, base_dir: Path) -> AsyncIterator[Jails]:
    made = Jails(driver, OverlayClones(base_dir), FakeAddresses(), Events(), island=ISLAND, uids=UIDS)
    await made.prepare()
    yield made
    await made.close()
    assert await driver.existing() == []


async def test_clones_that_no_jail_would_see_are_refused(
    state_dir: Path, shared: Path, launcher: Launcher
) -> None:
    driver = NamespaceJails(ISLAND, state_dir / "run", launcher, probe_uid=UIDS[0], clones=shared / "not/yet")
    assert shares(Path("/proc/self/mountinfo").read_text(), shared / "not/yet")
    subprocess.run(["mount", "--make-private", shared.parent], check=True)
    with pytest.raises(HostUnfit, match="mount --make-rshared"):
        await driver.prepare(Snapshot("tank/base@ready", state_dir))


async def perform(
    jails: Jails, *argv: str, mounts: tuple[Mount, ...], order: bytes = b"", cwd: str = "/"
) -> Outcome:
    async with jails.jail(
        JailOrder(
            argv=argv, purpose=Purpose.function, mounts=mounts, limits=Limits(memory_bytes=64 << 20), cwd=cwd
        )
    ) as inmate:
        return await inmate.converse(order, 20)


# The program


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_it_begins_on_either_machine(go: Go, tmp_path: Path, machine: str) -> None:
    words = ("-p", "main", "-I", goroot() / "pkg" / "include", "-o", tmp_path / "made")
    made = go("tool", "asm", *words, f"begin_{machine}.s", cwd=SOURCE, GOARCH=machine)
    assert (made.returncode, made.stderr) == (0, "")


def test_it_has_no_use_for_a_heap(go: Go, tmp_path: Path) -> None:
    """The compiler tells what it would put there; of a program with such a thing it does."""

    def on_the_heap(source: Path) -> list[str]:
        made = go("list", "-export", "-gcflags=-m", "-f", "compiled", ".", cwd=source)
        assert made.stdout == "compiled\n", made.stderr
        return re.findall(r".*(?:escapes to heap|moved to heap).*", made.stderr)

    assert on_the_heap(SOURCE) == []
    twin = tmp_path / "twin"
    shutil.copytree(SOURCE, twin)
    (twin / "wrong.go").write_text(
        "package main\n\nvar kept []byte\n\nfunc wrong(n int) { kept = make([]byte, n) }\n"
    )
    assert on_the_heap(twin) != []


async def test_it_is_compiled_once(launcher: Launcher, state_dir: Path) -> None:
    shutil.copy2(await launcher.program(), state_dir)
    told: list[str] = []
    launcher = Launcher(state_dir, launcher.toolchains, progress=lambda what, *_: told.append(what))
    first = await launcher.program()
    assert first.parent == state_dir
    assert (first.stat().st_uid, first.stat().st_mode & 0o7777) == (0, 0o755)

    toolchain = await launcher.toolchains.present()
    assert toolchain is not None
    first.chmod(0o775)  # another could have written to it
    assert await asyncio.to_thread(launcher.compiled, toolchain) is None
    first.chmod(0o755)
    assert await asyncio.to_thread(launcher.compiled, toolchain) == first
    other = Launcher(state_dir, launcher.toolchains, source=lambda: {"main.go": b"package main"})
    assert await asyncio.to_thread(other.compiled, toolchain) is None
    assert told == []


async def test_a_compiler_that_fails_is_told_with_a_remedy(state_dir: Path) -> None:
    told: list[str] = []
    broken = Launcher(
        state_dir / "launcher",
        Toolchains(state_dir / "go"),
        progress=lambda what, *_: told.append(what),
        source=lambda: {"go.mod": b"module x\n", "main.go": b"package\n"},
    )
    with pytest.raises(HostUnfit, match=r"(?s)cannot compile.*main\.go:1.*jails\.driver = .bubblewrap"):
        await broken.program()
    assert told == ["compiling the launcher of jails"]
    assert list((state_dir / "launcher").iterdir()) == []


async def test_what_was_compiled_on_the_way_is_handed_on(
    launcher: Launcher, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and to its new owner; never is there anything of another's for root to execute."""
    toolchain = await launcher.toolchains.present()
    assert toolchain is not None

    async def compiled(argv: list[str], *, env: dict[str, str], **_: object) -> object:
        def work() -> Completed:
            cache = Path(env["GOCACHE"])
            cache.mkdir()
            (cache / "entry").write_text("compiled")
            Path(argv[argv.index("-o") + 1]).write_text("program")
            return Completed(0, b"", b"")

        return await asyncio.to_thread(work)

    monkeypatch.setattr(ownprogram, "run", compiled)
    library = state_dir / "gocache"
    made = Launcher(state_dir / "launcher", launcher.toolchains, library=library, uid=UIDS[0])
    (made.folder / "sky-compiling-99999999-cut-short").mkdir(parents=True)
    (made.folder / "sky-launcher-of-another-source").touch()
    for _ in range(2):
        program = await made.program()
        assert [path.name for path in made.folder.iterdir()] == [program.name]
        entry = library / toolchain.version / "std" / "entry"
        assert (entry.stat().st_uid, entry.parent.stat().st_uid) == (UIDS[0], UIDS[0])
        assert library.stat().st_uid == 0
        program.unlink()


# Its jails


async def test_signals_are_as_the_system_made_them(driver: NamespaceJails, base_dir: Path) -> None:
    """Whatever the island ignores or blocks."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    made = Jails(driver, OverlayClones(base_dir), FakeAddresses(), Events(), island=ISLAND, uids=UIDS)
    try:
        await made.prepare()
        outcome = await perform(made, "/usr/bin/cat", "/proc/self/status", mounts=_programs())
    finally:
        await made.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGPIPE, before[1])
    told = dict(line.split(":\t") for line in outcome.stdout.decode().splitlines())
    assert {int(told[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")} == {0}
    assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (told["NoNewPrivs"], told["Seccomp"], told["Groups"].strip()) == ("1", "2", "")


def _programs() -> tuple[Mount, ...]:
    """The host's programs and what they are linked with."""
    return tuple(
        Mount(folder, str(folder)) for folder in map(Path, ("/usr", "/lib", "/lib64")) if folder.exists()
    )


def pid_of(driver: NamespaceJails) -> int:
    """The launcher's."""
    assert driver.launcher_pid is not None
    return driver.launcher_pid


async def test_memory_and_descriptors_stay_as_they_are(
    jails: Jails, driver: NamespaceJails, actor: Path
) -> None:
    itself = Path(f"/proc/{pid_of(driver)}")

    def look() -> tuple[int, int]:
        return int((itself / "statm").read_text().split()[1]), len(os.listdir(itself / "fd"))

    for rounds in range(3):
        for _ in range(4):
            await asyncio.gather(
                *(perform(jails, "/function", mounts=(Mount(actor, "/function"),)) for _ in range(8))
            )
        await jails.drain()
        if rounds == 0:
            before = look()
    assert look() == before
    assert before[0] * os.sysconf("SC_PAGESIZE") < 1 << 20


async def test_what_the_host_mounts_later_is_seen(jails: Jails, actor: Path, shared: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "sky-late", shared], check=True)
    (shared / "file").write_text("seen")
    mounts = (Mount(actor, "/function"), Mount(shared, "/late"))
    outcome = await perform(jails, "/function", mounts=mounts, order=b"read /late/file")
    assert outcome.stdout == b"seen<nil>"


def spec(base: Snapshot, *argv: str, mounts: tuple[Mount, ...]) -> JailSpec:
    name = f"sky-{ISLAND}-ff"
    return JailSpec(name=name, jid=255, clone=Clone(name, base, None), argv=argv, mounts=mounts, uid=UIDS[1])


async def test_no_link_in_the_root_leads_out_of_it(
    driver: NamespaceJails, jails: Jails, actor: Path, state_dir: Path
) -> None:
    """A root may be what others have written: a clone on ZFS, a base of another's making."""
    outside = state_dir / "outside"
    outside.mkdir()
    root = state_dir / "root"
    for name in ("dev", "proc", "tmp", str(outside).lstrip("/")):
        (root / name).mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "up").symlink_to("../" * 20 + str(outside).lstrip("/"))
    function = "/link/new/function"
    mounts = (Mount(actor, function), Mount(actor, "/up/file"), Mount(SOURCE, "/link/src"))
    jail = await driver.create(spec(Snapshot("g", root), function, mounts=mounts))
    await jail.process.feed(f"list {outside}".encode())
    assert await jail.process.wait() == 0, jail.process.failure
    await jail.destroy()
    assert jail.process.stdout.data.split() == [b"file", b"new", b"src"]
    assert list(outside.iterdir()) == []


async def test_a_jail_is_born_in_its_cgroup(
    driver: NamespaceJails,
    jails: Jails,
    monkeypatch: pytest.MonkeyPatch,
    base_dir: Path,
    actor: Path,
    shared: Path,
) -> None:
    """Of version 2, where to join one makes the kernel wait; the host itself need not use it."""
    subprocess.run(["mount", "-t", "cgroup2", "sky-cgroup2", shared], check=True)
    place = shared / f"sky-{ISLAND}-born"
    place.mkdir()
    order = driver._order

    async def born(spec: JailSpec, group: Group) -> list[str]:
        return [*await order(spec, group), f"b{place}"]

    monkeypatch.setattr(driver, "_order", born)
    base = await OverlayClones(base_dir).prepare()
    jail = await driver.create(spec(base, "/function", mounts=(Mount(actor, "/function"),)))
    assert str(jail.pid) in (place / "cgroup.procs").read_text().split()
    await jail.process.feed(b"read /proc/self/cgroup")
    assert await jail.process.wait() == 0
    await jail.destroy()
    assert b"0::/\n" in jail.process.stdout.data
    place.rmdir()


@pytest.mark.parametrize("words", [["dx\0u0"], ["a", "e\0"], ["aa", "nx\0"]])
async def test_no_word_of_an_order_holds_another(words: list[str]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        link = LauncherSocket(ours)
        with pytest.raises(DriverError, match="zero byte"):
            await link.order("sky-c0de-1", words, ())
        await link.close()


async def test_what_cannot_be_done_is_told(jails: Jails, actor: Path, state_dir: Path) -> None:
    function = (Mount(actor, "/function"),)
    attempts = [
        ({"mounts": (Mount(state_dir / "nothing", "/x"),)}, f"look at {state_dir}/nothing: No such file"),
        ({"mounts": function, "cwd": "/nowhere"}, "enter /nowhere: No such file"),
        ({"mounts": ()}, "cannot execute /function: Permission denied"),
        (
            {"mounts": (*function, Mount(actor, "/function/below"))},
            "make /function: File exists|Not a directory",
        ),
        ({"mounts": function * 65}, "understand the order: Invalid argument"),
    ]
    for options, said in attempts:
        with pytest.raises(DriverError, match=said):
            await perform(jails, "/function", **options)  # type: ignore[arg-type]
    assert (await perform(jails, "/function", mounts=function)).verdict is Verdict.ok


async def test_nothing_outlives_the_launcher_and_the_next_jail_has_another(
    jails: Jails, driver: NamespaceJails, actor: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call = asyncio.ensure_future(
        perform(jails, "/function", mounts=(Mount(actor, "/function"),), order=b"linger")
    )
    await heard(jails, b"lingering")
    assert len(processes_of(UIDS)) == 2
    before = pid_of(driver)
    os.kill(before, signal.SIGKILL)
    outcome = await call
    assert (outcome.verdict, outcome.signal) == (Verdict.signaled, 9)
    assert processes_of(UIDS) == []
    # A burst, which finds it gone, has one started and no more.
    function = (Mount(actor, "/function"),)
    outcomes = await asyncio.gather(*(perform(jails, "/function", mounts=function) for _ in range(4)))
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ok}
    assert pid_of(driver) != before
    assert caplog.messages.count("the launcher of jails has ended; another is started") == 1


async def test_a_launcher_that_cannot_start_again_is_tried_again(
    jails: Jails, driver: NamespaceJails, actor: Path, launcher: Launcher, state_dir: Path
) -> None:
    function = (Mount(actor, "/function"),)
    program = await launcher.program()
    aside = program.rename(state_dir / "aside")
    try:
        os.kill(pid_of(driver), signal.SIGKILL)
        while driver.launcher_pid is not None:  # noqa: ASYNC110 - the island hears of it in its own time
            await asyncio.sleep(0)
        with pytest.raises(DriverError, match="No such file"):
            await perform(jails, "/function", mounts=function)
    finally:
        aside.rename(program)
    assert (await perform(jails, "/function", mounts=function)).verdict is Verdict.ok


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    mounts = Path("/proc/self/mounts").read_text()
    assert f"sky-{ISLAND}" not in mounts
