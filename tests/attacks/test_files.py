"""Cases F: files of others, files for the next call, and traps for the daemon."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from skyisland.builds.store import Store
from skyisland.errors import BuildFailed, DriverError
from skyisland.host.folder import remove, sweep
from skyisland.host.uids import Uids
from skyisland.jails.register import Jails
from skyisland.model import Mount, Verdict
from tests.support.hostility import STRANGER, UIDS, Inside, Outside, Said

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.mark.case("F1")
async def test_f1_what_belongs_to_others_is_not_there(outside: Outside, said: Said, state_dir: Path) -> None:
    secret = state_dir / "admin-token"
    secret.write_text("secret")
    for path in (secret, "/etc/shadow", "/root", "/var/lib", "/home"):
        assert outside("open", "r", path) == "worked", path
        assert await said("open", "r", path) == "ENOENT", path
    for path in (f"/proc/1/root{secret}", f"/proc/self/root{secret}", f"/../../..{secret}"):
        assert await said("open", "r", path) in ("ENOENT", "EACCES"), path


@pytest.mark.case("F2")
async def test_f2_nothing_is_left_for_the_next_call(outside: Outside, said: Said, state_dir: Path) -> None:
    assert outside("disk", state_dir, 1) == "worked"
    assert "fill0" in outside("list", state_dir)
    assert await said("disk", "/tmp", 1) == "worked"
    assert await said("list", "/tmp") == ""


@pytest.mark.case("F3")
async def test_f3_base_system_and_binary_cannot_be_written(
    outside: Outside, said: Said, attacker: Path, base_dir: Path
) -> None:
    (base,) = (path for path in base_dir.iterdir() if path.name.startswith("g"))
    assert outside("open", "w", base / "etc/passwd") == "worked"
    before = (base / "etc/passwd").read_bytes(), attacker.read_bytes()
    for path in ("/etc/passwd", "/etc/resolv.conf", "/function", "/dev/fd", "/proc/self/status"):
        assert await said("open", "w", path) in ("EROFS", "EACCES", "EOVERFLOW", "ETXTBSY", "errno 21"), path
    assert ((base / "etc/passwd").read_bytes(), attacker.read_bytes()) == before


@pytest.mark.case("F3")
async def test_f3_a_mount_for_reading_cannot_be_written(
    outside: Outside, said: Said, state_dir: Path
) -> None:
    """As the toolchain, sources and modules are shown to builds."""
    state_dir.chmod(0o777)
    (state_dir / "tool").write_text("go")
    (state_dir / "tool").chmod(0o666)
    assert outside("open", "w", state_dir / "tool", uid=STRANGER) == "worked"
    assert outside("inodes", state_dir, 1, uid=STRANGER) == "worked"
    (state_dir / "inode0").unlink()
    shown = (Mount(state_dir, "/usr/local/go"),)
    assert await said("open", "w", "/usr/local/go/tool", mounts=shown) == "EROFS"
    assert await said("inodes", "/usr/local/go", 1, mounts=shown) == "EROFS"


def mount_options(path: Path) -> str:
    """Those of the mount that it is on."""
    found = subprocess.run(["findmnt", "-nro", "OPTIONS", "-T", path], capture_output=True, check=True)
    return found.stdout.decode()


TRAPS = ["symlink", "hardlink", "fifo", "socket", "folder"]


@pytest.mark.case("F4")
@pytest.mark.parametrize("trap", TRAPS)
def test_f4_the_daemon_takes_nothing_but_a_plain_file(state_dir: Path, trap: str) -> None:
    """What a build leaves in place of a binary: read naively, it would be a host file, or a wait."""
    secret, left = state_dir / "secret", state_dir / "function"
    secret.write_text("secret")
    match trap:
        case "symlink":
            left.symlink_to(secret)
            assert left.read_text() == "secret"
        case "hardlink":
            os.link(secret, left)
        case "fifo":
            os.mkfifo(left)
        case "socket":
            os.mknod(left, stat.S_IFSOCK | 0o600)
        case "folder":
            left.mkdir()
    store = Store(state_dir / "artifacts")
    store.prepare(())
    if trap == "hardlink":
        # Nobody in a jail can make one to a file of the host: its mounts are others. A copy harms nobody.
        sha256, _ = store.add(left, 100)
        assert store.path(sha256).stat().st_nlink == 1
    else:
        with pytest.raises(BuildFailed):
            store.add(left, 100)
    assert secret.read_text() == "secret"


@pytest.mark.case("F4")
@pytest.mark.case("F5")
def test_f4_f5_deleting_follows_no_link_and_any_depth(start, state_dir: Path) -> None:  # type: ignore[no-untyped-def]
    """A folder that a jail could write is deleted by the daemon afterwards."""
    kept = state_dir / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    doomed = state_dir / "doomed"
    for folder in (doomed, state_dir / "sky-0123456789abcdef"):
        folder.mkdir()
        folder.chmod(0o777)
        os.symlink(kept, folder / "link")
        os.mkfifo(folder / "pipe")
        assert start("tree", folder, 3000, uid=STRANGER).communicate()[0] == b"worked"
    remove(doomed, state_dir)
    assert sweep(state_dir) == 1
    assert sorted(path.name for path in state_dir.iterdir()) == ["kept"]
    assert (kept / "file").read_text() == "kept"


@pytest.mark.case("F4")
async def test_f4_a_jail_cannot_link_to_a_file_of_the_host(
    inside: Inside, jails: Jails, state_dir: Path
) -> None:
    """Of what it sees writable, nothing leads out: the mount's other side is its own folder."""
    mine = state_dir / "mine"
    mine.mkdir()
    os.chown(mine, UIDS[-1], UIDS[-1])
    outcome = await inside("disk", "/mine", 1, mounts=(Mount(mine, "/mine", writable=True),), uid=UIDS[-1])
    assert (outcome.verdict, outcome.stdout) == (Verdict.ok, b"worked")
    assert [path.name for path in mine.iterdir()] == ["fill0"]
    assert (mine / "fill0").stat().st_uid == UIDS[-1]


@pytest.mark.case("F7")
async def test_f7_two_islands_of_a_host_never_lend_the_same_uid(state_dir: Path) -> None:
    """Whose jails share a uid could reach each other's files and processes, if nothing else stood between."""
    unguarded = [Uids(UIDS), Uids(UIDS)]
    assert [await uids.take() for uids in unguarded] == [UIDS[0], UIDS[0]]
    one, other = Uids(UIDS, state_dir / "uids"), Uids(UIDS, state_dir / "uids")
    assert one.enter()
    assert not other.enter()
    taken = [await (one, other)[turn % 2].take() for turn in range(len(UIDS))]
    assert sorted(taken) == list(UIDS)
    with pytest.raises(DriverError, match=r"jails\.uid_start"):
        await one.take()
    one.give_back(taken[0])
    assert await other.take() == taken[0]
    other.close()  # as the kernel does for an island that is killed
    assert one.alone()
    assert await one.take() in taken[1::2]
    one.close()


@pytest.mark.case("F7")
async def test_f7_jails_of_two_islands_have_uids_of_their_own(
    inside: Inside, jails: Jails, state_dir: Path
) -> None:
    other = Uids(UIDS, state_dir / "uids")
    jails._uids = Uids(UIDS, state_dir / "uids")
    theirs = await other.take()
    uid = (await inside("ids")).stdout.decode().splitlines()[0].split()[1]
    assert jails.driver.name != "namespaces" or uid == str(UIDS[1])
    assert theirs == UIDS[0]
    await jails.drain()
    other.close()
    jails._uids.close()
    jails._uids = Uids(UIDS)


@pytest.mark.case("F8")
async def test_f8_no_time_of_access_tells_that_another_jail_has_read(
    outside: Outside, inside: Inside, said: Said, attacker: Path, state_dir: Path
) -> None:
    """Of a file that two jails share it would: the kernel notes when it was last read."""
    shared, before = state_dir / "shared", 1_000_000_000
    shared.write_text("shared")
    os.utime(shared, (before, before + 1))
    if outside("read", shared) == "shared" and "noatime" not in mount_options(state_dir):
        assert shared.stat().st_atime > before
    os.utime(attacker, (before, before + 1))
    for _ in range(2):
        assert await said("open", "r", "/function") == "worked"
        assert (await inside("read", "/function")).verdict is Verdict.output_limit
        assert attacker.stat().st_atime == before
