"""A fleet on a line in memory: who is there, who is not, and who must not be."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from skyisland.errors import SettingsError
from skyisland.fleet import fleet as fleet_module
from skyisland.fleet.fleet import Fleet, Origin
from skyisland.fleet.frames import FORM, BadFrame, pack, unpack
from skyisland.fleet.line import Message, Nobody, gather, request, serve
from skyisland.fleet.members import SILENT_S, Members, Pulse
from skyisland.fleet.opening import node_name
from skyisland.fleet.subjects import Subjects
from skyisland.model import Invocation
from skyisland.rooms import Errand, Visit
from skyisland.settings import Fleet as FleetSettings
from skyisland.settings import Refused, Settings
from skyisland.status import LineState, Vacancy
from tests.support.fleets import Hub

LINUX = "linux-amd64"


class Island:
    """Says how much room it has."""

    go_version = "go1.25"

    def __init__(self, free: int = 4) -> None:
        self.free = free

    def vacancy(self) -> Vacancy:
        return Vacancy(places=4, free=self.free)

    def has_room(self, client: str, *, ip4: bool = False) -> bool:
        return self.free > 0

    async def receive(self, errand: Errand, visit: Visit) -> Invocation:
        raise AssertionError


@asynccontextmanager
async def member(hub: Hub, node: str, home: Island | None = None, **origin: object) -> AsyncIterator[Fleet]:
    fleet = Fleet(Subjects("f", node), hub.line(node), Origin(platform=LINUX, **origin))  # type: ignore[arg-type]
    await fleet.open()
    await fleet.join(home or Island())
    try:
        yield fleet
    finally:
        await fleet.leave()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "HELLO_S", 0.01)
    monkeypatch.setattr(fleet_module, "SOONEST_S", 0.005)
    monkeypatch.setattr(fleet_module, "PULSE_S", 0.02)


async def test_islands_hear_of_each_other_and_of_who_leaves() -> None:
    hub = Hub()
    async with member(hub, "a") as a, AsyncExitStack() as rest:
        b = await rest.enter_async_context(member(hub, "b", Island(free=2)))
        await hub.until(lambda: a.members.nodes() == b.members.nodes() == ["a", "b"])
        status = a.status()
        assert (status.fleet, status.node, status.state, status.why) == ("f", "a", LineState.joined, "")
        assert [(one.node, one.silent, one.vacancy.free) for one in status.members] == [
            ("a", False, 4),
            ("b", False, 2),
        ]
        assert [one.pulse.node for one in a.members.others()] == ["b"]
        await rest.aclose()
        await hub.until(lambda: a.members.nodes() == ["a"])
    assert not hub.lines[0].listening or hub.seen[-1].subject == "sky.f.pulse.a"


async def test_of_two_islands_with_one_name_the_later_one_stays_out() -> None:
    hub = Hub()
    async with member(hub, "a") as first:
        await hub.until(lambda: first.members.nodes() == ["a"])
        async with member(hub, "a") as second:
            await hub.until(lambda: second.line.state is LineState.refused)
            assert "another island is called a" in second.status().why
        await asyncio.sleep(0)
        assert first.line.state is LineState.joined


LAN = (("10.5.0.2", "10.5.0.9"), ("10.0.0.2", "10.0.0.9"))


@pytest.mark.parametrize(
    ("segment", "pool", "joins"),
    [
        ("lan", ("10.0.0.9", "10.0.0.20"), False),
        ("lan", ("10.0.0.10", "10.0.0.20"), True),
        ("dmz", ("10.0.0.9", "10.0.0.20"), True),
        ("", ("10.0.0.9", "10.0.0.20"), True),
    ],
)
async def test_address_pools_of_one_segment_must_not_overlap(
    segment: str, pool: tuple[str, str], joins: bool
) -> None:
    hub = Hub()
    async with member(hub, "a", segment="lan", pools=LAN) as a:
        await hub.until(lambda: a.members.nodes() == ["a"])
        async with member(hub, "b", segment=segment, pools=(("10.9.0.2", "10.9.0.9"), pool)) as b:
            if joins:
                await hub.until(lambda: a.members.nodes() == ["a", "b"])
            else:
                await hub.until(lambda: b.line.state is LineState.refused)
                assert "a has addresses of this island in segment lan" in b.line.why


async def test_a_line_that_is_cut_is_told_from_one_that_is_quiet() -> None:
    hub = Hub()
    async with member(hub, "a") as a, member(hub, "b") as b:
        await hub.until(lambda: a.members.nodes() == b.members.nodes() == ["a", "b"])
        now = asyncio.get_running_loop().time()
        hub.lines[0].cut = True
        a.members._clock = lambda: now + 2 * SILENT_S
        assert (a.up, a.members.silent(), a.members.nodes()) == (False, ["a", "b"], [])
        assert (a.status().state, a.status().why) == (LineState.away, "the server answers nothing")


def pulse_of(node: str, **more: object) -> Message:
    fields = {"vacancy": Vacancy(places=4, free=3), "platform": LINUX} | more
    made = Pulse(node=node, life=node, started_at=1.0, sent_at=1.0, **fields)  # type: ignore[arg-type]
    return Message(f"sky.f.pulse.{node}", pack(made))


def members_of(count: int, clock: Callable[[], float] = lambda: 0.0) -> Members:
    members = Members("n0", clock)
    for number in range(count):
        members.hear(pulse_of(f"n{number}"))
    return members


def test_a_function_keeps_its_homes_when_islands_come_and_go() -> None:
    """Only the keys of an island that goes move, and each has about its share."""
    keys = [f"key{number}" for number in range(600)]
    ten, nine = members_of(10), members_of(9)
    before = {key: ten.homes(key, LINUX) for key in keys}
    share = sum("n3" in homes for homes in before.values())
    assert 80 < share < 160  # two homes of 600 keys among ten: 120
    for key in keys:
        if "n9" not in before[key]:
            assert nine.homes(key, LINUX) == before[key]
    assert ten.homes("key", "freebsd-amd64") == []


def test_a_call_takes_a_place_until_it_ends() -> None:
    now = 0.0
    members = members_of(2, lambda: now)
    with members.sent_to("n1"):
        assert (members.room_at("n1"), members.room_at("n7")) == (2, 0)
        members.hear(pulse_of("n1", vacancy=Vacancy(places=4, free=1)))
        assert members.room_at("n1") == 1
    assert members.room_at("n1") == 2
    now = SILENT_S + 0.1
    assert (members.room_at("n1"), members.silent(), list(members.others())) == (0, ["n0", "n1"], [])
    members.hear(pulse_of("n1", leaves=True))
    assert members.silent() == ["n0"]


def test_words_that_are_no_pulse_of_their_island_are_counted_and_dropped() -> None:
    members = Members("a")
    forged = Message("sky.f.pulse.b", pulse_of("c").data)
    for message in (forged, Message("sky.f.pulse.b", b""), Message("sky.f.pulse.b", b"\x01" * 5000)):
        assert members.hear(message) is None
    assert (members.bad, members.nodes()) == (3, [])


def test_a_frame_is_read_in_its_own_form_alone() -> None:
    frame = Vacancy(places=4, free=1, load=0.5)
    assert unpack(pack(frame), Vacancy) == frame
    for data, why in (
        (b"", "no form"),
        (bytes((FORM + 1,)) + pack(frame)[1:], f"form {FORM + 1}"),
        (pack(frame)[:-1], "not a frame of Vacancy"),
        (bytes((FORM,)) + b"\x91" * 100_000, "not a frame of Vacancy"),
        (bytes((FORM,)) + msgspec.msgpack.encode({"places": "x", "free": 1}), "Expected `int`"),
        (pack(frame) + b" " * (1 << 20), "the longest is"),
    ):
        with pytest.raises(BadFrame, match=why):
            unpack(data, Vacancy)


async def test_asking_one_and_asking_all() -> None:
    hub = Hub()
    a, b, c = (hub.line(node) for node in "abc")

    def answers(word: bytes) -> Callable[[Message], object]:
        async def answer(message: Message) -> bytes:
            return word + message.data

        return answer

    for line, word in ((b, b"b"), (c, b"c")):
        await serve(line, "all", answers(word))  # type: ignore[arg-type]
    await serve(b, "one", answers(b"1"))  # type: ignore[arg-type]
    assert await request(a, "one", b"?", within_s=1) == b"1?"
    assert sorted(await gather(a, "all", b"!", within_s=1, most=2)) == [b"b!", b"c!"]
    assert await gather(a, "nobody", b"!", within_s=1, most=2) == []
    with pytest.raises(Nobody):
        await request(a, "nobody", b"?", within_s=1)
    assert not a.listening


def test_an_island_alone_loads_nothing_of_a_fleet() -> None:
    code = (
        "import sys; import skyisland.wiring, skyisland.island, skyisland.cli, api.serve\n"
        "print([name for name in sys.modules if name.startswith(('nats', 'skyisland.fleet'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_settings_say_what_is_missing() -> None:
    assert Settings().fleet.name == ""
    for wrong, key in (
        ({"name": "f"}, "servers"),
        ({"servers": ("nats://a",)}, "name"),
        ({"name": "f", "servers": ("tls://a",)}, "tls_ca"),
        ({"name": "f", "servers": ("tls://a",), "tls_ca": "/ca", "tls_cert": "/c"}, "tls_key"),
    ):
        with pytest.raises(Refused) as refused:
            FleetSettings(**wrong)
        assert refused.value.key == key
    assert node_name("Web-3.example.org") == "web-3"
    with pytest.raises(SettingsError, match=r"fleet\.node"):
        node_name("")
