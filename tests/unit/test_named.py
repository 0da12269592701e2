"""Functions with a name: one suite for all that keep names, secrets in their files, and what is done with
names on an island of fake rooms."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw, structs

from skyisland.drivers.fake import Script
from skyisland.errors import (
    BadRequest,
    BuildFailed,
    DriverError,
    Forbidden,
    NameNotFound,
    NotFound,
    Paused,
    SettingsError,
    StaleRevision,
    TooBusy,
)
from skyisland.fleet.names import NatsNames
from skyisland.model import NamedCall
from skyisland.named.definition import Ceilings, Definition, Egress, Objective, Revision, Warm
from skyisland.named.functions import NamedFunctions
from skyisland.named.names import KEPT, MemoryNames, Names
from skyisland.named.schedule import Fired
from skyisland.named.secrets import Secrets
from skyisland.named.sqlite import SqliteNames
from tests.support.api import World, answers, make_world
from tests.support.fleets import NatsServer, joined

ENCODE = Definition(url="github.com/mmcloughlin/geohash", function="Encode", version="main")
ARGUMENTS = NamedCall(args=Raw(b"[1, 2]"))

# One suite for every driver

Opened = Callable[[], Awaitable[Names]]


@pytest.fixture(params=["memory", "sqlite", "nats"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens the names; but for memory again and again, as the island of the next day does."""
    memory, made = MemoryNames(), AsyncExitStack()

    async def open_names() -> Names:
        names: Names = memory
        if request.param == "sqlite":
            names = await SqliteNames.open(tmp_path / "names.db")
        elif request.param == "nats":
            server: NatsServer = request.getfixturevalue("nats_server")
            line, subjects = await made.enter_async_context(joined(server, fleet))
            names = await NatsNames.open(line, subjects, tmp_path / "names.json")
        made.push_async_callback(names.close)
        return names

    fleet = request.getfixturevalue("fleet_name")
    async with made:
        yield open_names


def revision(number: int, name: str = "encode", **more: Any) -> Revision:
    fields: dict[str, Any] = {"definition": ENCODE, "repository": "github.com/mmcloughlin/geohash"}
    fields |= {"package": "", "commit": f"{number:040x}", "at": float(number), "by": "ada", "why": "defined"}
    return Revision(name=name, revision=number, **fields | more)


async def test_names_are_kept_with_their_revisions(opened: Opened) -> None:
    names = await opened()
    assert (names.get("encode"), names.all(), await names.history("encode")) == (None, [], [])
    full = structs.replace(
        ENCODE, env={"A": "1"}, secrets={"B": "KEY"}, limits=Ceilings(cpus=0.5), warm=Warm(min=2)
    )
    await names.put(revision(1))
    await names.put(revision(2, definition=full, paused=True, named=False))
    await names.put(revision(1, "another"))
    names = await opened()
    assert names.get("encode") == revision(2, definition=full, paused=True, named=False)
    assert [one.name for one in names.all()] == ["another", "encode"]
    assert [one.revision for one in await names.history("encode")] == [2, 1]
    await names.delete("encode", 2)
    names = await opened()
    assert (names.get("encode"), [one.name for one in names.all()]) == (None, ["another"])
    assert await names.history("encode") == []


async def test_a_change_that_follows_another_revision_changes_nothing(opened: Opened) -> None:
    names = await opened()
    await names.put(revision(1))
    for late in (revision(1), revision(3)):
        with pytest.raises(StaleRevision, match='If-Match: "1"') as refused:
            await names.put(late)
        assert refused.value.details["revision"] == 1
    with pytest.raises(NameNotFound):
        await names.put(revision(2, "other"))
    with pytest.raises(StaleRevision):
        await names.delete("encode", 2)
    with pytest.raises(NameNotFound):
        await names.delete("other", 0)
    assert [one.revision for one in await names.history("encode")] == [1]
    done = await asyncio.gather(*(names.put(revision(2, by=by)) for by in "ab"), return_exceptions=True)
    assert [*map(type, done)] == [type(None), StaleRevision]


async def test_how_far_a_schedule_is_is_kept_as_long_as_its_name(opened: Opened) -> None:
    names = await opened()
    fired = Fired(cron="0 8 * * *", zone="UTC", until=2.0, last=1.0, call="call-1", calls=1)
    await names.note_fired("dotted.name", fired)
    assert await names.fired("dotted.name") is None
    await names.put(revision(1, "dotted.name"))
    await names.note_fired("dotted.name", structs.replace(fired, until=1.0))
    await names.note_fired("dotted.name", fired)
    await names.put(revision(2, "dotted.name"))
    names = await opened()
    assert await names.fired("dotted.name") == fired
    await names.note_fired("dotted.name", None)
    assert await names.fired("dotted.name") is None
    await names.note_fired("dotted.name", fired)
    await names.delete("dotted.name", 2)
    await names.put(revision(1, "dotted.name"))
    assert await (await opened()).fired("dotted.name") is None


async def test_the_latest_revisions_are_kept(opened: Opened) -> None:
    names = await opened()
    for number in range(1, KEPT + 4):
        await names.put(revision(number))
    kept = [one.revision for one in await names.history("encode")]
    assert kept == list(range(KEPT + 3, 3, -1))


async def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "names.db"
    names = await SqliteNames.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await names.put(revision(1))
    await names._db.execute("PRAGMA user_version=2")
    await names.close()
    with pytest.raises(SettingsError, match="update Sky Island"):
        await SqliteNames.open(path)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DriverError, match="backup"):
        await SqliteNames.open(path)
    assert path.read_bytes().startswith(b"no database")


# Secrets


async def test_secrets_lie_in_private_files_and_show_themselves_to_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secrets = Secrets(folder)
    await secrets.load()
    await secrets.set("STRIPE_KEY", "sk_öne\n")
    await secrets.set("STRIPE_KEY", "sk_two")
    await secrets.set("other", "x")
    await secrets.delete("other")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "STRIPE_KEY")] == [0o700, 0o600]
    assert [path.name for path in folder.iterdir()] == ["STRIPE_KEY"]
    (folder / ".STRIPE_KEY.0123456789abcdef").write_text("half")
    again = Secrets(folder)
    await again.load()
    assert again.names() == ["STRIPE_KEY"]
    assert again.values({"KEY": "STRIPE_KEY"}) == (("KEY", "sk_two"),)
    assert "sk_two" not in repr(again)
    with pytest.raises(NotFound, match="PUT /api/v1/secrets/other"):
        again.values({"KEY": "other"})
    (folder / "STRIPE_KEY").chmod(0o644)
    with pytest.raises(DriverError, match="chmod 600"):
        await Secrets(folder).load()


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("../x", "v", "secret"),
        (".", "v", "secret"),
        ("K", "", "value"),
        ("K", " \n", "value"),
        ("K", "a\0", "value"),
    ],
)
async def test_what_can_be_no_secret(name: str, value: str, field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await Secrets().set(name, value)
    assert refused.value.details["field"] == field


# What is done with names


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    await made.island.start()
    yield made
    await made.island.stop()


@pytest.fixture
def named(world: World) -> NamedFunctions:
    return world.island.named


async def test_a_call_by_name_runs_the_commit_that_was_built_on_its_own_terms(
    world: World, named: NamedFunctions
) -> None:
    frames = answers(world, b"", {"results": ["u4pruyd"]})
    await named.secrets.set("KEY", "s3cret")
    definition = structs.replace(
        ENCODE,
        env={"MODE": "test"},
        secrets={"TOKEN": "KEY"},
        timeout_s=7.5,
        limits=Ceilings(memory_bytes=64 << 20),
        egress=Egress.address,
    )
    at = await named.define("encode", definition, by="ada")
    assert (at.revision, at.by, at.why, len(world.builds.store)) == (1, "ada", "defined", 1)
    specs = []
    create = world.driver.create

    async def creating(spec: Any) -> Any:
        specs.append(spec)
        return await create(spec)

    world.driver.create = creating  # type: ignore[method-assign]
    done = await named.calls.call("encode", ARGUMENTS)
    assert (done.commit, done.cached, done.outcome.results) == (at.commit, True, b'["u4pruyd"]')
    assert frames[0]["env"] == ["MODE", "test", "TOKEN", "s3cret"]
    assert frames[0]["timeout_ms"] == 7500
    (spec,) = specs
    assert spec.limits.memory_bytes == 64 << 20
    assert spec.address is not None
    assert dict(spec.env)["GOMEMLIMIT"] == str(int((64 << 20) * 0.9))
    assert "s3cret" not in repr((spec, done, named.all(), await named.history("encode")))
    plain = await world.island.invoke(done.request)
    assert plain.commit == at.commit
    assert "env" not in frames[1]


async def test_a_name_stays_where_it_is_until_what_it_moves_to_is_built(
    world: World, named: NamedFunctions
) -> None:
    with pytest.raises(NameNotFound, match="GET /api/v1/names"):
        await named.calls.call("encode", ARGUMENTS)
    world.builds.fail = BuildFailed("does not compile")
    with pytest.raises(BuildFailed):
        await named.define("encode", ENCODE)
    assert named.all() == []
    first = await named.define("encode", ENCODE)
    world.builds.fail = BuildFailed("does not compile")
    with pytest.raises(BuildFailed):
        await named.move("encode", "v2")
    assert named.get("encode") == first
    second = await named.move("encode", "v2", by="ada")
    assert (second.revision, second.why, second.definition.version) == (2, "moved", "v2")
    assert await named.move("encode") == second  # it is there
    back = await named.roll_back("encode")
    assert (back.revision, back.commit, back.why) == (3, first.commit, "rolled back to 1")
    assert back.definition.pin
    assert (await named.calls.call("encode", ARGUMENTS)).commit == first.commit
    assert (await named.move("encode")) == back  # where its version points now, and it stays pinned
    follows = await named.move("encode", follow=True)
    assert (follows.revision, follows.definition.version, follows.definition.pin) == (4, "main", False)
    assert (await named.roll_back("encode", 3)).definition.pin
    assert not (await named.move("encode", "main")).definition.pin
    assert (await named.roll_back("encode", 2)).commit == second.commit
    with pytest.raises(NotFound, match="revision 9 of encode"):
        await named.roll_back("encode", 9)
    with pytest.raises(StaleRevision):
        await named.define("encode", ENCODE, revision=2)
    with pytest.raises(StaleRevision):
        await named.define("encode", ENCODE, revision=0)
    await named.define("encode", ENCODE, revision=7)
    await named.delete("encode")
    assert named.all() == []


async def test_a_name_follows_its_branch_in_the_background(world: World) -> None:
    now, commits = [100.0], ["a" * 40]
    named = NamedFunctions(MemoryNames(), Secrets(), world.island, clock=lambda: now[0])
    resolve = world.island.sources.resolve

    async def resolving(url: str, version: str | None, **more: Any) -> Any:
        return structs.replace(await resolve(url, version, **more), commit=commits[-1])

    world.island.sources.resolve = resolving  # type: ignore[method-assign]
    await named.define("encode", ENCODE)
    await named.define("pinned", structs.replace(ENCODE, pin=True))
    commits.append("b" * 40)
    assert (await named.calls.call("encode", ARGUMENTS)).commit == "a" * 40  # no call waits for it
    await named._following.close()
    assert (await named.calls.call("encode", ARGUMENTS)).commit == "b" * 40
    assert [one.why for one in await named.history("encode")] == ["followed", "defined"]
    assert (await named.calls.call("pinned", ARGUMENTS)).commit == "a" * 40
    commits.append("c" * 40)
    world.builds.fail = BuildFailed("does not compile")
    now[0] += 100
    await named.calls.call("encode", ARGUMENTS)
    await named._following.close()
    assert (named.get("encode").commit, named.get("encode").trouble) == ("b" * 40, "does not compile")
    await named.roll_back("encode")
    now[0] += 100
    await named.calls.call("encode", ARGUMENTS)
    await named._following.close()
    assert named.get("encode").commit == "a" * 40  # it does not follow right back


async def test_who_may_call_how_often_and_when(world: World, named: NamedFunctions) -> None:
    await named.define("encode", structs.replace(ENCODE, callers=("shop",), concurrency=1))
    for who in ("", "other"):
        with pytest.raises(Forbidden):
            await named.calls.call("encode", ARGUMENTS, who=who)
    release = asyncio.Event()
    invoke = world.island.invoke

    async def slow(*args: Any, **more: Any) -> Any:
        await release.wait()
        return await invoke(*args, **more)

    world.island.invoke = slow
    first = asyncio.create_task(named.calls.call("encode", ARGUMENTS, who="shop"))
    await asyncio.sleep(0)
    assert named.get("encode").running == 1
    with pytest.raises(TooBusy):
        await named.calls.call("encode", ARGUMENTS, who="shop")
    release.set()
    await first
    paused = await named.pause("encode", paused=True, by="ada")
    assert (paused.why, paused.paused, paused.revision) == ("paused", True, 2)
    with pytest.raises(Paused):
        await named.calls.call("encode", ARGUMENTS, who="shop")
    assert (await named.move("encode", "v2")).paused
    await named.pause("encode", paused=False)
    await named.calls.call("encode", ARGUMENTS, who="shop")


async def test_a_secret_that_is_used_is_not_deleted(named: NamedFunctions) -> None:
    definition = structs.replace(ENCODE, secrets={"TOKEN": "KEY"})
    with pytest.raises(NotFound, match="no secret has the name 'KEY'"):
        await named.define("encode", definition)
    await named.secrets.set("KEY", "v")
    await named.define("encode", definition)
    with pytest.raises(BadRequest, match="encode has KEY"):
        await named.delete_secret("KEY")
    await named.define("encode", ENCODE)
    await named.delete_secret("KEY")
    with pytest.raises(NotFound):
        await named.roll_back("encode")  # its secret is gone


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"env": {"A-B": "1"}}, "env"),
        ({"env": {"HOME": "/"}}, "env"),
        ({"env": {"A": "\0"}}, "env"),
        ({"env": {f"A{n}": "x" * (32 << 10) for n in range(3)}}, "env"),
        ({"env": {"A": "1"}, "secrets": {"A": "KEY"}}, "env"),
        ({"secrets": {"A": "../KEY"}}, "secrets"),
        ({"function": "main", "env": {"A": "1"}}, "env"),
        ({"function": "", "secrets": {"A": "KEY"}}, "secrets"),
    ],
)
async def test_a_wrong_definition_names_the_field(
    named: NamedFunctions, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        await named.define("encode", structs.replace(ENCODE, **changes))
    assert refused.value.details["field"] == field
    assert named.all() == []


@pytest.mark.parametrize("name", ["", "A", "-a", "a/b", "a b", "ä", "a" * 65, "a.", "a\n"])
async def test_what_can_be_no_name(named: NamedFunctions, name: str) -> None:
    with pytest.raises(BadRequest, match="name: "):
        await named.define(name, ENCODE)


def test_terms_and_bodies_with_secrets_do_not_show_them() -> None:
    from skyisland.model import Terms
    from skyisland.named.definition import SecretBody

    shown = repr((Terms(name="n", environment=(("K", "s3cret"),)), SecretBody(value="s3cret")))
    assert "s3cret" not in shown
    assert msgspec.json.decode(b"{}", type=Ceilings) == Ceilings()


async def test_calls_of_a_name_are_counted_by_it(world: World, named: NamedFunctions) -> None:
    definition = structs.replace(ENCODE, slo=Objective(latency_ms=250))
    await named.define("encode", definition)
    await named.calls.call("encode", ARGUMENTS)
    plain = (await named.calls.call("encode", ARGUMENTS)).request
    await world.island.invoke(plain)
    figures = world.island.called.function("encode")
    assert (figures.title, figures.calls, figures.slo_s) == ("encode", 2, 0.25)
    (other,) = [one for one in world.island.called.report().functions if one.id != figures.id]
    assert (other.calls, other.title) == (1, "github.com/mmcloughlin/geohash.Encode")
    await named.define("encode", ENCODE)
    assert world.island.called.function("encode").slo_s == world.island.policy.slo.target_s
    ends = await world.island.invocations()
    assert [end.name for end in ends] == ["", "encode", "encode"]
    assert b'function="encode"' in world.metrics.prometheus(world.island.status())


async def test_a_name_that_verifies_moves_only_where_examples_pass(
    world: World, named: NamedFunctions
) -> None:
    printed = [b"=== RUN   ExampleA\n--- PASS: ExampleA (0.00s)\n--- PASS: ExampleB (0.00s)\nPASS\n"]

    def play(data: bytes) -> Script:
        return Script(stdout=printed[-1], exit_code=int(b"FAIL" in printed[-1]))

    world.driver.script = play
    definition = structs.replace(ENCODE, verify=True)
    assert (await named.define("encode", definition)).verified == 2
    printed.append(b"--- FAIL: ExampleA (0.00s)\ngot:\n1\nwant:\n2\nFAIL\n")
    with pytest.raises(BuildFailed, match=r"ExampleA .*\ngot:\n1\nwant:\n2"):
        await named.move("encode", "v2")
    printed.append(b"testing: warning: no tests to run\nPASS\n")
    with pytest.raises(BuildFailed, match="no Example"):
        await named.move("encode", "v2")
    assert (named.get("encode").revision, named.get("encode").definition.version) == (1, "main")
