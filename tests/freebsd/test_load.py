"""What jails cost, use and see on FreeBSD: host programs at a time, processor time, memory, environment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from skyisland.drivers.freebsd import commands, jails
from skyisland.drivers.freebsd.network import FreeBSDNetwork
from skyisland.events import Events
from skyisland.host.programs import AT_ONCE, Programs
from skyisland.jails.addresses import Addresses
from skyisland.jails.inmate import Inmate, JailOrder
from skyisland.model import Limits, Mount, NetworkAccess, Purpose, Verdict
from skyisland.settings import IP4
from tests.freebsd.lives import Forgetful
from tests.support.standins.island import freebsd_jails
from tests.support.standins.world import World

pytestmark = [pytest.mark.host, pytest.mark.root]

LIMITS = Limits(memory_bytes=64 << 20, pids=32, cpus=1.0)


@pytest.fixture
def world(state_dir: Path) -> Iterator[World]:
    with World(state_dir / "host") as world:
        yield world


class Counting(Programs):
    """Knows how many programs ran at one time."""

    running = most = 0

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await super().run(argv, stdin=stdin, timeout_s=timeout_s, env=env)
        finally:
            self.running -= 1


def order(*argv: str, limits: Limits = LIMITS, **more: object) -> JailOrder:
    return JailOrder(argv=argv, purpose=Purpose.function, limits=limits, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("vnet", [True, False])
async def test_few_host_programs_run_at_a_time(world: World, vnet: bool) -> None:
    programs, events = Counting(world.bin), Events()
    ip4 = IP4(cidr="10.61.0.0/24", interface="em0")
    network = FreeBSDNetwork(ip4, island="c0de", vnet=vnet, programs=programs)
    addresses = Addresses(ip4, network, Forgetful(), events)
    made = freebsd_jails(world, events, ahead=0, network=network, addresses=addresses, programs=programs)
    await made.prepare()
    await addresses.prepare()
    programs.most = 0

    async def make(invocation: str) -> Inmate:
        await addresses.await_turn(invocation, invocation)
        return await made.make(order("/bin/sh", network=NetworkAccess.lease, invocation=invocation))

    inmates = await asyncio.gather(*(make(f"i{number}") for number in range(12)))
    # The bridge is set up by one program at a time, beside those who hold a place.
    assert programs.most <= AT_ONCE + vnet
    for inmate in inmates:
        made.discard(inmate)
    await made.close()
    await addresses.close()
    # Datasets are destroyed by one program at a time, beside those who hold a place.
    assert programs.most <= AT_ONCE + 1
    assert world.left() == {}


async def test_processor_time_is_seen_by_the_watch_over_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds no sample yet; those after it find one that is younger than a second."""
    monkeypatch.setattr(jails, "USAGE_AGE_S", 0.01)
    made = freebsd_jails(world, Events(), ahead=0)
    await made.prepare()
    limits = Limits(memory_bytes=64 << 20, cpus=1.0, cpu_time_s=0.2)
    async with made.jail(order("/bin/sh", "-c", "while :; do :; done", limits=limits)) as inmate:
        outcome = await inmate.converse(b"", 20)
    assert outcome.verdict is Verdict.cpu_time
    await made.close()
    looks = [words for words in world.calls("rctl") if words[1] == "-u"]
    assert len(looks) > 1, "no sample was taken between two looks"
    assert world.left() == {}


GO = "fatal error: runtime: out of memory"
SEEN = """runtime: mmap(0x874000000, 629145600) returned 0x0, 22
fatal error: runtime: cannot map pages in arena address space"""
"""The words of a function that made a slice of 600 MB, on 15.0 with Go 1.27."""


@pytest.mark.parametrize(
    ("script", "peak_mib", "verdict"),
    [
        (f"echo '{GO}' >&2; exit 2", 20, Verdict.out_of_memory),
        (f"echo '{SEEN}' >&2; exit 2", 20, Verdict.out_of_memory),
        (f"echo '{SEEN}' >&2; while :; do echo goroutine 1: >&2; done", 20, Verdict.out_of_memory),
        ("echo 'no room' >&2; exit 1", 65, Verdict.out_of_memory),
        ("echo 'no room' >&2; exit 1", 63, Verdict.exited),
        (f"echo 'we saw {GO}' >&2; exit 2", 20, Verdict.exited),
        ("kill -KILL $$", 20, Verdict.signaled),
    ],
)
async def test_memory_that_was_refused_is_told_as_such(
    world: World, script: str, peak_mib: int, verdict: Verdict
) -> None:
    made = freebsd_jails(world, Events(), ahead=0)
    made.driver.peak_bytes = lambda process: peak_mib << 20  # type: ignore[attr-defined]
    await made.prepare()
    async with made.jail(order("/bin/sh", "-c", script)) as inmate:
        outcome = await inmate.converse(b"", 20)
    await made.close()
    assert outcome.verdict is verdict
    order_words = [word for words in world.calls("launcher") for word in words]
    assert f"qswapuse:deny={320 << 20}" in order_words
    assert f"m{int((64 << 20) * jails.OOM_SHARE)}" in order_words, "one who had as much before is no witness"


async def test_only_functions_have_the_hard_bound(world: World) -> None:
    """A build runs as many compilers as there are cores, each of which reserves much."""
    assert not [rule for rule in commands.limit_rules(LIMITS, hard=False) if "swapuse" in rule]
    made = freebsd_jails(world, Events(), ahead=0)
    await made.prepare()
    build = JailOrder(argv=("/bin/sh",), purpose=Purpose.build, limits=LIMITS, uid=1_950_000_100)
    async with made.jail(build):
        assert not [rule for rule in world.look()["rules"] if "swapuse" in rule]
    await made.close()
    assert world.left() == {}


async def test_the_environment_is_the_jails_own(world: World, actor: Path) -> None:
    """Neither the daemon's, nor what tells the launcher of its order."""
    made = freebsd_jails(world, Events(), ahead=0)
    await made.prepare()
    mounts = (Mount(actor, "/function"),)
    async with made.jail(order("/function", mounts=mounts, env=(("TZ", "UTC"), ("A", "b=c d")))) as inmate:
        outcome = await inmate.converse(b"self", 20)
    await made.close()
    assert b"env=[TZ=UTC A=b=c d]" in outcome.stdout, outcome
