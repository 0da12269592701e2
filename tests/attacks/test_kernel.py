"""Cases K: out of the jail by way of the kernel or of other processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pty
import shutil
import socket
import subprocess
from pathlib import Path

import pyseccomp
import pytest

from skyisland.drivers.linux.bwrap import find_bwrap
from skyisland.drivers.linux.launching import Launcher
from skyisland.jails.register import Jails
from skyisland.model import Verdict
from tests.support.hostility import STRANGER, Inside, Outside, Said, Start, heard

pytestmark = [pytest.mark.host, pytest.mark.root]

IN_NEW_MOUNTS = ("unshare", "--mount")


def number(name: str) -> int:
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


def syscall(name: str, *args: object) -> tuple[object, ...]:
    return ("syscall", number(name), *args)


HOST = os.uname().nodename
AT_FDCWD = -100

ATTEMPTS = [
    # case, what, the attempt, what it comes to outside, and inside
    ("K3", "core_pattern", ("open", "w", "/proc/sys/kernel/core_pattern"), "worked", "EROFS EACCES ENOENT"),
    ("K3", "sysctl", ("open", "w", "/proc/sys/vm/drop_caches"), "worked", "EROFS EACCES ENOENT"),
    ("K3", "hostname", ("open", "w", "/proc/sys/kernel/hostname"), "worked", "EROFS EACCES ENOENT"),
    ("K3", "/sys", ("list", "/sys/kernel"), "", "ENOENT"),
    ("K4", "mount", syscall("mount", ":none", ":/tmp", ":tmpfs", 0, 0), "worked", "EPERM"),
    ("K4", "umount", syscall("umount2", ":/sky-none", 0), "ENOENT", "EPERM"),
    ("K4", "fsopen", syscall("fsopen", ":tmpfs", 0), "worked", "EPERM"),
    ("K4", "open_tree", syscall("open_tree", AT_FDCWD, ":/", 1), "worked", "EPERM"),
    ("K4", "move_mount", syscall("move_mount", -1, ":", -1, ":", 4), "ENOENT", "EPERM"),
    ("K4", "pivot_root", syscall("pivot_root", ":/sky-none", ":/sky-none"), "ENOENT", "EPERM"),
    ("K5", "clone user", ("namespace", 0x10000000), "worked", "EPERM"),
    ("K5", "clone pid and mounts", ("namespace", 0x20020000), "worked", "EPERM"),
    ("K5", "unshare", syscall("unshare", 0x04000000), "worked", "EPERM"),
    ("K5", "clone3", syscall("clone3", 0, 0), "EINVAL", "ENOSYS"),
    ("K6", "add_key", ("keyring", "leave"), "worked", "EPERM"),
    ("K6", "keyctl", syscall("keyctl", 0, -3, 1), "worked", "EPERM"),
    ("K7", "bpf", syscall("bpf", 0, 0, 0), "EINVAL", "EPERM"),
    ("K7", "perf_event_open", syscall("perf_event_open", 0, 0, -1, -1, 0), "EFAULT", "EPERM"),
    ("K8", "userfaultfd", syscall("userfaultfd", 0), "worked", "EPERM"),
    ("K8", "io_uring", syscall("io_uring_setup", 4, 0), "EFAULT", "EPERM"),
    ("K9", "setns", syscall("setns", 0, 0), "EINVAL", "EPERM"),
    ("K9", "open_by_handle_at", ("handle", "/etc/passwd"), "worked", "EPERM"),
    ("K9", "chroot", ("chroot", "/tmp"), "worked", "EPERM"),
    ("K14", "mknod", ("mknod", "/tmp/sky-device"), "worked", "EPERM"),
    ("K17", "hostname", syscall("sethostname", f":{HOST}", len(HOST)), "worked", "EPERM"),
    ("K17", "time of day", syscall("settimeofday", 0, 0), "worked", "EPERM"),
    ("K17", "clock", syscall("clock_settime", 99, 0), "EINVAL", "EPERM"),
    ("N4", "packet", ("socket", 17, 3, 0), "worked", "EAFNOSUPPORT"),
    ("N4", "raw", ("socket", 2, 3, 1), "worked", "EPERM"),
    ("N4", "netlink audit", ("socket", 16, 3, 9), "worked", "EPROTONOSUPPORT"),
    ("N4", "netlink netfilter", ("socket", 16, 3, 12), "worked", "EPROTONOSUPPORT"),
    ("N4", "vsock", ("socket", 40, 1, 0), "worked", "EAFNOSUPPORT"),
]


@pytest.mark.parametrize(
    ("words", "works", "refused"),
    [
        pytest.param(*attempt, id=f"{case} {what}", marks=pytest.mark.case(case))
        for case, what, *attempt in ATTEMPTS
    ],
)
async def test_refused(
    outside: Outside, said: Said, words: tuple[object, ...], works: str, refused: str
) -> None:
    before = outside(*words, before=IN_NEW_MOUNTS)
    assert works in before
    assert not set(before.split()) & set(refused.split())
    assert await said(*words) in refused.split()


async def told(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Wait until it says so."""
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.read, len(word)) == word


@pytest.mark.case("K1")
async def test_k1_no_signal_leaves_the_jail(
    start: Start, outside: Outside, inside: Inside, jails: Jails
) -> None:
    """Even to a process of the same host uid."""
    victim = start("deaf", uid=STRANGER)
    await told(victim, b"deaf")
    assert await said_by(inside, "kill", victim.pid, 9, uid=STRANGER) == "ESRCH"
    outcome = await inside("kill", -1, 9, uid=STRANGER)
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"ESRCH")
    assert victim.poll() is None
    assert outside("kill", victim.pid, 9, uid=STRANGER) == "worked"
    assert victim.wait(10) == -9


@pytest.mark.case("K1")
async def test_k1_the_jails_own_first_process_hears_no_signal(outside: Outside, inside: Inside) -> None:
    """Whoever outlived it would not be waited for, and the call would have no end."""
    victim = subprocess.Popen(["sleep", "60"])
    assert outside("besiege", victim.pid) == "worked"
    assert await asyncio.to_thread(victim.wait, 20) < 0
    outcome = await inside("besiege", 1)
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"worked")


async def said_by(inside: Inside, *words: object, **options: object) -> str:
    return (await inside(*words, **options)).stdout.decode().strip()


@pytest.mark.case("K2")
@pytest.mark.parametrize(
    ("words", "works"),
    [
        (syscall("pidfd_open", "PID", 0), "worked"),
        (syscall("ptrace", 16, "PID", 0, 0), "worked"),
        (syscall("process_vm_readv", "PID", 0, 0, 0, 0, 0), "worked"),
        (("open", "r", "/proc/PID/mem"), "worked"),
        (("open", "r", "/proc/PID/environ"), "worked"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) and value[0] == "open" else None,
)
async def test_k2_other_processes_cannot_be_looked_into(
    start: Start, outside: Outside, said: Said, words: tuple[object, ...], works: str
) -> None:
    victim = start("deaf")
    await told(victim, b"deaf")
    aimed = [str(word).replace("PID", str(victim.pid)) for word in words]
    assert outside(*aimed) == works
    assert await said(*aimed) in ("EPERM", "ESRCH", "ENOENT", "EINVAL")


@pytest.mark.case("K2")
async def test_k2_the_jails_own_first_process_cannot_be_looked_into(
    outside: Outside, inside: Inside, jails: Jails
) -> None:
    """What it remembers is the launcher's. (bwrap's is a process of the jail like others.)"""
    attempts = [("open", "r", "/proc/{}/mem"), ("open", "r", "/proc/{}/environ"), ("list", "/proc/{}/fd")]
    victim = subprocess.Popen(["sleep", "60"], user=STRANGER, group=STRANGER)
    for words in attempts:
        assert outside(*(word.format(victim.pid) for word in words), uid=STRANGER)[:6] != "EACCES"
        found = await said_by(inside, *(word.format(1) for word in words), uid=STRANGER)
        assert jails.driver.name != "namespaces" or found == "EACCES", words
    victim.kill()
    await asyncio.to_thread(victim.wait)


@pytest.mark.case("K6")
async def test_k6_no_key_waits_for_the_next_call(outside: Outside, said: Said) -> None:
    with_keyring = ("keyctl", "session", "-") if shutil.which("keyctl") else ()
    assert outside("keyring", "leave", before=with_keyring) == "worked"
    assert await said("keyring", "leave") == "EPERM"
    assert await said("keyring", "find") == "EPERM"


@pytest.mark.case("K11")
async def test_k11_the_launcher_cannot_be_rewritten(
    start: Start, outside: Outside, said: Said, state_dir: Path, launcher: Launcher
) -> None:
    """CVE-2019-5736: what runs is opened by /proc/PID/exe, and written to once it has ended."""
    victim_program = state_dir / "victim"
    shutil.copy("/bin/sleep", victim_program)
    victim = subprocess.Popen([victim_program, "60"])
    reaped = asyncio.ensure_future(asyncio.to_thread(victim.wait))
    outcome = await asyncio.to_thread(outside, "rewrite", f"/proc/{victim.pid}/exe", victim.pid)
    await reaped
    assert outcome == "worked"

    programs = [await asyncio.to_thread(find_bwrap), await launcher.program()]
    before = [hashlib.sha256(program.read_bytes()).digest() for program in programs]
    for program in ("/proc/1/exe", "/proc/self/exe", "/function"):
        assert await said("rewrite", program) in ("EACCES", "EROFS", "ETXTBSY", "EPERM"), program
    assert [hashlib.sha256(program.read_bytes()).digest() for program in programs] == before


@pytest.mark.case("K12")
async def test_k12_nothing_is_inherited_and_the_folder_is_inside(
    outside: Outside, said: Said, state_dir: Path
) -> None:
    secret = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        leaked = outside("inherited", pass_fds=(secret,), cwd=state_dir)
        assert str(secret) in leaked.split()
        assert outside("cwd", cwd=state_dir) == str(state_dir)
        assert await said("inherited") == "0 1 2"
        assert await said("cwd") == "/"
    finally:
        os.close(secret)


@pytest.mark.case("K13")
async def test_k13_the_environment_is_empty(
    outside: Outside, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYISLAND_ADMIN_API_TOKEN", "secret")
    assert "SKYISLAND_ADMIN_API_TOKEN=secret" in outside("env")
    assert await said("env") in ("", "PWD=/")


@pytest.mark.case("K14")
async def test_k14_only_harmless_devices(outside: Outside, said: Said) -> None:
    harmless = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr"}
    assert set(outside("list", "/dev").split()) - harmless
    assert set((await said("list", "/dev")).split()) == harmless


@pytest.mark.case("K15")
async def test_k15_there_is_no_terminal(attacker: Path, said: Said) -> None:
    """Outside, whoever starts a program on a terminal hands it the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(attacker, ["attacker", "open", "w", "/dev/tty"])
    heard = await asyncio.to_thread(os.read, terminal, 64)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert heard == b"worked"
    assert await said("open", "w", "/dev/tty") in ("ENOENT", "ENXIO")


@pytest.mark.case("K16")
async def test_k16_system_v_memory_is_not_shared(outside: Outside, said: Said) -> None:
    key = 0x5C1A0000 | os.getpid() & 0xFFFF
    try:
        assert outside("shm", "leave", key) == "worked"
        assert outside("shm", "find", key) == "worked"
        assert await said("shm", "find", key) == "ENOENT"
    finally:
        assert outside("shm", "remove", key) == "worked"
    assert await said("shm", "leave", key) == "worked"
    assert await said("shm", "find", key) == "ENOENT"
    assert outside("shm", "find", key) == "ENOENT"
    assert await said("list", "/dev/shm") == "ENOENT"


@pytest.mark.case("K16")
async def test_k16_locks_on_the_base_system_are_not_shared(
    start: Start, outside: Outside, inside: Inside, jails: Jails
) -> None:
    first = start("lock", "/etc/passwd", "stay")
    await told(first, b"worked")
    assert outside("lock", "/etc/passwd") == "EAGAIN"
    holding = asyncio.ensure_future(inside("lock", "/etc/hosts", "stay"))
    await heard(jails, b"worked")
    assert await said_by(inside, "lock", "/etc/hosts") == "worked"
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding


SHARED = ["/dev/null", "/dev/urandom", "/function"]


@pytest.mark.case("K21")
@pytest.mark.parametrize("path", SHARED)
async def test_k21_no_lock_tells_another_jail_anything(
    start: Start, outside: Outside, inside: Inside, said: Said, jails: Jails, attacker: Path, path: str
) -> None:
    """A value (fcntl), and whether there is a lock at all (flock)."""
    there = path.replace("/function", str(attacker))
    await told(start("tell", there, 4711), b"worked")
    assert outside("hear", there) == "4711"
    await told(start("lock", there, "stay"), b"worked")
    assert outside("lock", there) == "EAGAIN"
    for holder in (("tell", path, 4711), ("lock", path, "stay")):
        holding = asyncio.ensure_future(inside(*holder))
        await heard(jails, b"worked")
        assert await said("hear", path) == "nothing"
        assert await said("lock", path) == "worked"
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        await jails.drain()


@pytest.mark.case("K22")
@pytest.mark.parametrize("path", ["/dev", "/dev/null", "/function"])
async def test_k22_no_watcher_sees_what_another_jail_opens(
    start: Start, outside: Outside, inside: Inside, said: Said, jails: Jails, attacker: Path, path: str
) -> None:
    there = path.replace("/function", str(attacker))
    opened = "/dev/null" if path == "/dev" else path
    watcher = start("watch", there, 10_000)
    await told(watcher, b"watching ")
    assert outside("open", "r", opened.replace("/function", str(attacker))) == "worked"
    assert (await asyncio.to_thread(watcher.communicate))[0] == b"seen"
    watching = asyncio.ensure_future(inside("watch", path, 2_000))
    await heard(jails, b"watching ")
    assert await said("open", "r", opened) == "worked"
    assert (await watching).stdout == b"watching nothing"


OF_THE_HOST = ("cmdline", "diskstats", "key-users", "keys", "loadavg", "locks", "pressure/cpu", "uptime")


@pytest.mark.case("K23")
async def test_k23_proc_tells_nothing_of_the_host(outside: Outside, said: Said, jails: Jails) -> None:
    for name in OF_THE_HOST:
        path = Path("/proc", name)
        if path.exists():
            assert outside("open", "r", path) == "worked", path
            assert await said("open", "r", path) in ("ENOENT", "EACCES"), path
    if jails.driver.name == "namespaces":
        names = (await said("list", "/proc")).split()
        assert {name for name in names if not name.isdigit()} <= {"self", "thread-self"}
        assert await said("open", "r", "/proc/sys/fs/file-nr") == "ENOENT"


@pytest.mark.case("K23")
async def test_k23_a_jail_does_not_learn_where_the_island_keeps_its_files(
    start: Start, outside: Outside, said: Said, jails: Jails, attacker: Path, state_dir: Path, base_dir: Path
) -> None:
    """bwrap's overlays name their layers in mountinfo: a residual risk."""
    victim = start("deaf")
    await told(victim, b"deaf")
    assert str(attacker) in outside("read", f"/proc/{victim.pid}/cmdline")
    paths = (str(attacker.parent), str(state_dir), str(base_dir), "site-packages")
    shown = await said("read", "/proc/1/cmdline")
    if jails.driver.name == "namespaces":
        shown += await said("read", "/proc/self/mountinfo")
        assert "lowerdir=base" in shown
    assert [path for path in paths if path in shown] == []


@pytest.mark.case("K24")
async def test_k24_no_process_changes_what_the_host_keeps_of_it(outside: Outside, said: Said) -> None:
    for name, text in (("oom_score_adj", "0"), ("coredump_filter", "0"), ("loginuid", str(STRANGER))):
        if Path("/proc/self", name).exists():
            assert outside("write", f"/proc/self/{name}", text, uid=None) == "worked", name
            assert await said("write", f"/proc/self/{name}", text) == "EROFS", name
    assert (await said("read", "/proc/self/oom_score_adj")).strip() == "1000"


@pytest.mark.case("K24")
async def test_k24_no_memory_is_handed_to_the_hosts_core_handler(outside: Outside, said: Said) -> None:
    """With a limit of 0 the kernel starts a handler all the same, with 1 it does not (core(5)). No handler is
    set here to see that: kernel.core_pattern is the whole host's."""
    assert outside("limits", before=("prlimit", "--core=0")).split()[-1] == "0"
    assert (await said("limits")).split()[-1] == "1"


@pytest.mark.case("K25")
@pytest.mark.parametrize(
    ("code", "words"), [(1, "bwrap: execvp /function: No such file or directory\n"), (125, "!2 mount /\n")]
)
async def test_k25_no_function_passes_for_what_made_its_jail(
    outside: Outside, inside: Inside, code: int, words: str
) -> None:
    """Believed, that would be an error of ours, with a line in the log. The program outside says the same."""
    bwrap = (await asyncio.to_thread(find_bwrap), "--bind", "/", "/", "--", "/function")
    spoken = await asyncio.to_thread(subprocess.run, bwrap, capture_output=True, check=False)
    assert (spoken.returncode, spoken.stderr) == (1, b"bwrap: execvp /function: No such file or directory\n")
    outcome = await inside("pretend", code, words)
    assert (outcome.verdict, outcome.exit_code) == (Verdict.exited, code)
    assert outcome.stderr == words.encode()


@pytest.mark.case("K18")
async def test_k18_no_folder_is_handed_to_a_sibling(
    start: Start, outside: Outside, inside: Inside, jails: Jails, state_dir: Path
) -> None:
    giver = start("passed", "give", state_dir / "socket", "/etc")
    await told(giver, b"worked")
    assert outside("passed", "take", state_dir / "socket") == "worked"
    for name in ("/tmp/socket", "@sky-hostile"):
        giving = asyncio.ensure_future(inside("passed", "give", name, "/"))
        await heard(jails, b"worked")
        assert await said_by(inside, "passed", "take", name) in ("ENOENT", "ECONNREFUSED")
        giving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving
        await jails.drain()


@pytest.mark.case("N1")
@pytest.mark.case("N2")
@pytest.mark.parametrize("kind", ["tcp", "abstract"])
async def test_what_listens_on_the_host_is_out_of_reach(outside: Outside, said: Said, kind: str) -> None:
    if kind == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        there = ("tcp", f"127.0.0.1:{server.getsockname()[1]}")
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"\0sky-hostile-{os.getpid()}")
        server.listen()
        there = ("unix", f"@sky-hostile-{os.getpid()}")
    with server:
        assert outside("connect", *there) == "worked"
        assert await said("connect", *there) in ("ECONNREFUSED", "ENETUNREACH")


METADATA = "169.254.169.254:80"


@pytest.mark.case("N3")
async def test_n3_metadata_neighbours_and_names(attacker: Path, said: Said) -> None:
    """Outside is a network of its own here, in which the address answers."""
    there = (
        f"ip link set lo up && ip addr add 169.254.169.254/32 dev lo && {{ {attacker} listen tcp {METADATA} "
        f"& there=$!; until {attacker} connect tcp {METADATA} | grep worked; do :; done; kill $there; }}"
    )
    outside = await asyncio.to_thread(
        subprocess.run, ["unshare", "--net", "sh", "-c", there], capture_output=True, timeout=20, check=True
    )
    assert outside.stdout.endswith(b"worked\n")
    for address in (METADATA, "10.0.0.1:80", "192.168.0.1:443", "[fe80::1]:80"):
        assert await said("connect", "tcp", address) in ("ENETUNREACH", "EINVAL"), address
    assert await said("connect", "udp", "8.8.8.8:53") == "ENETUNREACH"
    assert await said("lookup", "example.org") == "unknown"
