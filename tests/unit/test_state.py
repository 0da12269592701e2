"""What the island remembers, and what it makes of a damaged memory."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from skyisland.errors import DriverError, SettingsError
from skyisland.events import Events
from skyisland.model import KnownCommit
from skyisland.record.state import COMMITS, JID_MARGIN, MIGRATIONS, State
from skyisland.status import AddressState
from tests.support.places import ROOT
from tests.support.records import artifact, finished, jailed


@asynccontextmanager
async def opened(path: Path, history: int = 1000) -> AsyncIterator[State]:
    state = await State.open(path, history=history)
    try:
        yield state
    finally:
        await state.close()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "island.db"


async def test_everything_is_there_after_a_restart(db: Path) -> None:
    async with opened(db) as state:
        name = state.island
        await state.put_artifact(artifact())
        await state.set_address_state("10.0.0.2", AddressState.unavailable)
        await state.put("example.com/repo", "", KnownCommit("c" * 40, 5.0))
        state.note_expression(("example.com/repo", "", "c" * 40, "Map"))
        state.touch_artifact(structs.replace(artifact(), hits=7, used_at=9.0))
    async with opened(db) as state:
        assert state.island == name
        assert await state.artifacts() == [structs.replace(artifact(), hits=7, used_at=9.0)]
        ((ip, since),) = (await state.taken_out()).items()
        assert ip == "10.0.0.2"
        assert since == pytest.approx(time.time(), abs=60)
        await state.set_address_state(ip, AddressState.available)
        assert await state.taken_out() == {}
        assert state.get("example.com/repo", "") == KnownCommit("c" * 40, 5.0)
        assert state.get("example.com/repo", "main") is None
        assert state.is_expression(("example.com/repo", "", "c" * 40, "Map"))
        assert not state.is_expression(("example.com/repo", "", "c" * 40, "Encode"))


async def test_dropped_artifacts_are_gone(db: Path) -> None:
    async with opened(db) as state:
        await state.put_artifact(artifact("a"))
        await state.put_artifact(artifact("b"))
        await state.drop_artifacts(["a", "unknown"])
        assert [a.key for a in await state.artifacts()] == ["b"]
    async with opened(db) as state:
        assert [a.key for a in await state.artifacts()] == ["b"]


async def test_touching_a_dropped_artifact_does_not_bring_it_back(db: Path) -> None:
    async with opened(db) as state:
        await state.put_artifact(artifact())
        await state.drop_artifacts(["k"])
        state.touch_artifact(artifact())
        assert await state.artifacts() == []
    async with opened(db) as state:
        assert await state.artifacts() == []


async def test_the_name_is_four_hex_digits_and_survives_the_loss_of_the_file(db: Path) -> None:
    async with opened(db) as state:
        name = state.island
    assert len(name) == 4
    assert set(name) <= set("0123456789abcdef")
    db.unlink()
    async with opened(db) as state:
        assert state.island == name


async def test_the_name_moves_with_the_file(db: Path) -> None:
    async with opened(db) as state:
        name = state.island
    moved = db.rename(db.with_name("moved.db"))
    async with opened(moved) as state:
        assert state.island == name


async def test_the_files_are_private(db: Path) -> None:
    db.touch(mode=0o644)
    async with opened(db) as state:
        await state.put_artifact(artifact())
        files = list(db.parent.iterdir())
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_the_latest_invocations_newest_first(db: Path) -> None:
    events = Events()
    async with opened(db, history=3) as state:
        state.follow(events)
        for number in range(5):
            events.publish(finished(number))
        assert [e.invocation for e in await state.invocations(10)] == ["inv-4", "inv-3", "inv-2"]
        assert [e.invocation for e in await state.invocations(1)] == ["inv-4"]
    events.publish(finished(9))  # after the end nobody listens
    async with opened(db, history=3) as state:
        loaded = await state.invocations(10)
        assert [e.invocation for e in loaded] == ["inv-4", "inv-3", "inv-2"]
        assert loaded[0].timings.total_s == 1.5
    rows = sqlite3.connect(db)
    assert rows.execute("SELECT count(*) FROM invocations").fetchone() == (3,)
    rows.close()


async def test_a_jail_number_is_never_used_again(db: Path) -> None:
    events = Events()
    async with opened(db) as state:
        assert state.first_number == 1
        state.follow(events)
        events.publish(jailed(3))
        events.publish(jailed(2))
    async with opened(db) as state:
        assert state.first_number == 4


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.support.records import artifact, finished, jailed
from skyisland.events import Events
from skyisland.record.state import State

async def main():
    state = await State.open(Path(sys.argv[1]))
    events = Events()
    state.follow(events)
    for jid in range(1, 2000):
        events.publish(jailed(jid))
        await asyncio.sleep(0)
    await state.put_artifact(artifact())
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_kill_9_loses_no_artifact_and_repeats_no_jail_number(db: Path) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, str(db)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    async with opened(db) as state:
        assert await state.artifacts() == [artifact()]
        assert 2000 <= state.first_number <= 2000 + JID_MARGIN


@pytest.mark.parametrize("damage", ["not SQLite", "torn pages"])
async def test_a_damaged_file_is_kept_aside(db: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(db) as state:
        name = state.island
        for number in range(200):
            await state.put_artifact(artifact(f"k{number}"))
    if damage == "not SQLite":
        db.write_bytes(b"no database at all" * 1000)
    else:
        data = bytearray(db.read_bytes())
        data[4096:] = b"\xa5" * (len(data) - 4096)
        db.write_bytes(data)
    kept = db.read_bytes()
    async with opened(db) as state:
        assert await state.artifacts() == []
        assert state.island == name
        await state.put_artifact(artifact())
    (aside,) = db.parent.glob("island.db.damaged-*Z")
    assert aside.read_bytes() == kept
    assert "is damaged" in caplog.text


async def test_a_record_of_another_form_is_left_out(db: Path) -> None:
    async with opened(db) as state:
        await state.put_artifact(artifact("old"))
        await state.put_artifact(artifact("new"))
    rows = sqlite3.connect(db)
    rows.execute("UPDATE artifacts SET record = '{\"key\":\"old\"}' WHERE key = 'old'")
    rows.commit()
    rows.close()
    async with opened(db) as state:
        assert [a.key for a in await state.artifacts()] == ["new"]


async def test_a_file_of_a_later_version_is_refused_and_untouched(db: Path) -> None:
    async with opened(db) as state:
        await state.put_artifact(artifact())
    rows = sqlite3.connect(db)
    rows.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    rows.close()
    with pytest.raises(SettingsError, match="update Sky Island"):
        await State.open(db)
    assert db.exists()
    assert not list(db.parent.glob("*.damaged-*"))


async def test_a_place_that_cannot_hold_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DriverError, match="cannot use the database"):
        await State.open(tmp_path / "file" / "island.db")


async def test_a_write_that_fails_is_an_error_of_the_one_who_needs_it(db: Path) -> None:
    async with opened(db) as state:
        other = sqlite3.connect(db)
        other.execute("DROP TABLE artifacts")
        other.commit()
        other.close()
        with pytest.raises(DriverError, match="cannot record an artifact"):
            await state.put_artifact(artifact())
        # History goes on whatever happens to it.
        state.touch_artifact(artifact())
        await state.set_address_state("10.0.0.2", AddressState.unavailable)
    async with opened(db) as state:
        assert list(await state.taken_out()) == ["10.0.0.2"]


async def test_old_commits_are_forgotten(db: Path) -> None:
    async with opened(db) as state:
        for number in range(COMMITS + 2):
            await state.put("u", str(number), KnownCommit("c" * 40, float(number)))
        assert state.get("u", "0") is None
        assert state.get("u", "1") is None
        assert state.get("u", "2") is not None
    async with opened(db) as state:
        assert state.get("u", "1") is None
        assert state.get("u", "2") is not None


async def test_closing_twice_is_harmless(db: Path) -> None:
    state = await State.open(db)
    await state.close()
    await state.close()
