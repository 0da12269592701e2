"""What goes wrong on FreeBSD: each a clear error with its remedy, and nothing half-made left."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from skyisland.drivers.freebsd import commands
from skyisland.drivers.freebsd.network import FreeBSDNetwork, bridge_argv, epair_argv
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.errors import DriverError, HostUnfit
from skyisland.events import Events
from skyisland.host.programs import Programs
from skyisland.jails.driver import Jail
from skyisland.jails.inmate import JailOrder
from skyisland.jails.register import Jails
from skyisland.model import Address, JailSpec, Limits, Mount, Purpose, Snapshot, Verdict
from skyisland.settings import IP4, Pool
from tests.support.standins.base import TinyBase
from tests.support.standins.island import freebsd_driver, freebsd_jails, zfs_clones
from tests.support.standins.world import World

pytestmark = [pytest.mark.host, pytest.mark.root]

Say = Callable[..., Awaitable[bytes]]
LIMITS = Limits(memory_bytes=64 << 20, pids=32, cpus=1.0)
BASE = Snapshot("tank/sky-c0de/base/tiny@ready", Path("/nonexistent"))


@pytest.fixture
def world(state_dir: Path) -> Iterator[World]:
    with World(state_dir / "host") as world:
        yield world


@pytest.fixture(scope="module")
def prepared() -> Iterator[World]:
    """A host on which an island has been before, for all tests that need no fresh one."""
    folder = Path(tempfile.mkdtemp(prefix="sky-", dir="/tmp"))
    folder.chmod(0o755)
    with World(folder / "host") as world:
        asyncio.run(freebsd_jails(world, Events(), ahead=0).prepare())
        (world.folder / "shared").mkdir()
        yield world
    shutil.rmtree(folder)


@pytest.fixture
async def jails(prepared: World) -> AsyncIterator[Jails]:
    before = (prepared.folder / "state").read_bytes()
    made = freebsd_jails(prepared, Events(), ahead=0)
    await made.prepare()
    yield made
    await made.close()
    left = prepared.left()
    (prepared.folder / "state").write_bytes(before)
    (prepared.folder / "faults").unlink(missing_ok=True)
    assert left == {}


@pytest.fixture
def say(jails: Jails, actor: Path) -> Say:
    async def say(text: str = "hello", mounts: tuple[Mount, ...] = ()) -> bytes:
        mounts = (Mount(actor, "/function"), *mounts)
        async with jails.jail(
            JailOrder(argv=("/function",), purpose=Purpose.function, mounts=mounts, limits=LIMITS)
        ) as inmate:
            outcome = await inmate.converse(f"say {text}".encode(), 20)
            assert outcome.verdict is Verdict.ok, outcome
            return outcome.stdout

    return say


# A host that is not fit


async def test_no_such_pool(world: World) -> None:
    clones = ZfsClones(
        "zroot", "c0de", jails=Path("/j"), bases=Path("/b"), base=TinyBase(), programs=Programs(world.bin)
    )
    with pytest.raises(HostUnfit, match=r"no dataset zroot .*filesystem\.zfs_dataset"):
        await clones.prepare()


async def test_a_dataset_of_somebody_else(world: World) -> None:
    with world.change() as state:
        state["datasets"]["tank/sky-c0de"] = {"properties": {}, "mounted": False, "origin": "-"}
    with pytest.raises(HostUnfit, match="not made by this island"):
        await zfs_clones(world).prepare()
    assert "tank/sky-c0de" in world.look()["datasets"]


async def test_no_zfs(world: World) -> None:
    (world.bin / "zfs").unlink()
    with pytest.raises(HostUnfit, match="install OpenZFS"):
        await zfs_clones(world).prepare()


async def test_not_permitted(world: World) -> None:
    world.fail("zfs create", "cannot create 'tank/sky-c0de': permission denied\n")
    with pytest.raises(HostUnfit, match="run the island as root"):
        await zfs_clones(world).prepare()


async def test_not_root(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1001)
    with pytest.raises(HostUnfit, match=r"only root .*run the island as root"):
        await freebsd_driver(world).prepare(BASE)
    assert world.calls() == []


async def test_racct_is_off(world: World) -> None:
    with world.change() as state:
        state["racct"], state["sysctl"]["kern.racct.enable"] = "off", "0"
    driver = freebsd_driver(world)
    await driver.prepare(BASE)
    unlimited = {
        capability.name: capability for capability in driver.capabilities() if not capability.enforced
    }
    assert set(unlimited) == {"memory", "pids", "cpu", "cpu_time"}
    assert "kern.racct.enable=1" in unlimited["memory"].remedy
    assert await driver.existing() == []


async def test_a_kernel_without_racct(world: World) -> None:
    with world.change() as state:
        del state["sysctl"]["kern.racct.enable"]
    driver = freebsd_driver(world)
    await driver.prepare(BASE)
    assert "GENERIC" in next(c.remedy for c in driver.capabilities() if c.name == "memory")


async def test_a_devfs_that_hides_nothing(world: World) -> None:
    with world.change() as state:
        state["devfs_deaf"] = True
    with pytest.raises(HostUnfit, match="ruleset 61 is empty"):
        await freebsd_driver(world).prepare(BASE)


async def test_devfs_rules_that_vanish_later(jails: Jails, prepared: World, say: Say) -> None:
    with prepared.change() as state:
        state["devfs"]["61"] = []
    with pytest.raises(DriverError, match=r"hide \w+ in /dev.*service devfs restart"):
        await say()


async def test_an_older_kernel(world: World) -> None:
    with world.change() as state:
        del state["sysctl"]["security.jail.param.allow.unprivileged_proc_debug"]
    with pytest.raises(HostUnfit, match=r"no jail parameter allow.unprivileged_proc_debug.*14\.3"):
        await freebsd_driver(world).prepare(BASE)


async def test_a_parameter_that_the_kernel_does_not_know(jails: Jails, prepared: World, say: Say) -> None:
    with prepared.change() as state:
        state["sysctl"].pop("security.jail.param.allow.unprivileged_proc_debug")
    with pytest.raises(HostUnfit, match=r"unknown parameter.*14\.3"):
        await say()
    await jails.drain()
    await jails.clones.close()
    assert prepared.left() == {}


async def test_an_account_with_another_uid(world: World) -> None:
    with world.change() as state:
        state["users"]["skyfn"] = 1001
    with pytest.raises(HostUnfit, match="pw userdel skyfn"):
        await freebsd_driver(world).prepare(BASE)


# A step that fails

STEPS = [
    *("zfs clone", "zfs get", "launcher make", "launcher rctl_add_rule", "launcher nmount nullfs"),
    *("launcher nmount devfs", "launcher jail_set", "launcher execve"),
]


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_of_making_fails(jails: Jails, prepared: World, say: Say, step: str) -> None:
    prepared.fail(f"^{step}", "it is broken\n")
    shared = prepared.folder / "shared"
    with pytest.raises(DriverError, match=r"it is broken|not mounted"):
        await say(mounts=(Mount(shared, "/src"),))
    await jails.drain()
    await jails.clones.close()
    assert prepared.left() == {}


@pytest.mark.parametrize(
    "step",
    [
        *("launcher remove", "launcher jail_remove", "launcher unmount .*/src", "launcher unmount .*/dev"),
        *("launcher rctl_remove_rule", "zfs destroy"),
    ],
)
async def test_a_step_of_taking_back_fails_and_the_next_start_does_it(
    jails: Jails, prepared: World, say: Say, step: str
) -> None:
    shared = prepared.folder / "shared"
    prepared.fail(f"^{step}", "it is broken\n")
    assert await say(mounts=(Mount(shared, "/src"),)) == b"hello"
    await jails.drain()
    assert prepared.left() != {}
    await freebsd_jails(prepared, Events(), ahead=0).prepare()
    assert prepared.left() == {}


async def test_a_jail_that_is_gone_needs_no_removal(jails: Jails, prepared: World) -> None:
    """A mount, a rule and a clone of a jail that an earlier life removed."""
    clone = await jails.clones.clone(await jails.clones.prepare(), "sky-c0de-7")
    with prepared.change() as state:
        state["rules"].append("jail:sky-c0de-7:maxproc:deny=9")
        point = f"{clone.path}/dev"
        state["mounts"].append({"type": "devfs", "source": "devfs", "point": point, "options": "rw"})
    await freebsd_jails(prepared, Events(), ahead=0).prepare()
    assert prepared.left() == {}


@pytest.mark.parametrize("code", ["exit 0", "exit 1"])
async def test_a_clone_that_cannot_be_mounted(jails: Jails, prepared: World, say: Say, code: str) -> None:
    """OpenZFS says 1 before 2.4, 0 since; the dataset is there either way."""
    with prepared.change() as state:
        state["mount_fails"] = code
    with pytest.raises(DriverError, match="not mounted"):
        await say()
    await jails.drain()
    await jails.clones.close()
    assert prepared.left() == {}
    with prepared.change() as state:
        state["mount_fails"] = ""


async def test_a_jail_that_stays_dying_for_a_while(jails: Jails, prepared: World, say: Say) -> None:
    with prepared.change() as state:
        state["dying_looks"] = 3
    assert await say() == b"hello"
    await jails.drain()
    assert prepared.left() == {}


async def test_a_jail_that_stays_dying_for_long(jails: Jails, prepared: World, say: Say) -> None:
    with prepared.change() as state:
        state["dying_looks"] = 9
    assert await say() == b"hello"
    await jails.drain()
    assert "clones" in prepared.left(), "nobody waits for that long"
    await jails.clones.close()
    assert prepared.left() == {}


async def test_nobody_shares_a_file(jails: Jails, prepared: World, say: Say) -> None:
    with pytest.raises(DriverError, match="only copied"):
        await say(mounts=(Mount(prepared.folder / "log", "/log", writable=True),))


async def test_a_link_in_the_base_leads_nowhere(jails: Jails, prepared: World, say: Say) -> None:
    inside = jails.clones
    assert isinstance(inside, ZfsClones)
    base = prepared.folder / "snapshots" / "tank+sky-c0de+base+tiny@ready"
    (base / "out").symlink_to(prepared.folder)
    with pytest.raises(DriverError, match="cannot make /out"):
        await say(mounts=(Mount(prepared.folder, "/out"),))
    (base / "out").unlink()


# Addresses

IP = Address(ip="10.61.0.2", prefix=24, gateway="10.61.0.1")


def network(world: World, **more: object) -> FreeBSDNetwork:
    vnet = bool(more.pop("vnet", False))
    ip4 = structs.replace(IP4(), **{"interface": "em0", **more})
    return FreeBSDNetwork(ip4, island="c0de", vnet=vnet, programs=Programs(world.bin))


async def test_an_alias_of_an_earlier_life_is_swept(world: World) -> None:
    with world.change() as state:
        state["interfaces"]["em0"]["inet"] += [["10.61.0.9", 32], ["10.61.0.10", 24], ["10.9.9.9", 32]]
    assert await network(world).prepare() == 1
    assert [ip for ip, _ in world.look()["interfaces"]["em0"]["inet"]] == [
        "192.168.7.2",
        "10.61.0.10",
        "10.9.9.9",
    ]


async def test_no_such_interface(world: World) -> None:
    with pytest.raises(HostUnfit, match="cloned_interfaces"):
        await network(world, interface="lo1").prepare()


async def test_no_default_route(world: World) -> None:
    with world.change() as state:
        state["default_route"] = ""
    with pytest.raises(HostUnfit, match="no default route"):
        await network(world, interface="").prepare()


async def test_no_table_in_pf(world: World) -> None:
    with pytest.raises(HostUnfit, match=r"table <sky> persist"):
        await network(world, nat=True).prepare()


async def test_a_bridge_of_somebody_else(world: World) -> None:
    with world.change() as state:
        state["interfaces"]["sky0"] = {"inet": [], "members": [], "description": "mine"}
    driver = network(world, vnet=True)
    await driver.prepare()
    with pytest.raises(HostUnfit, match="not this island's"):
        await driver.open(())


async def test_the_first_leases_together_make_one_bridge(world: World) -> None:
    driver = network(world, vnet=True, pools=(Pool(cidr="10.62.0.0/24"),))
    await driver.prepare()
    await asyncio.gather(*(driver.open(()) for _ in range(6)))
    assert set(world.look()["interfaces"]) == {"em0", "lo0", "sky0"}
    assert world.look()["interfaces"]["sky0"]["inet"] == [["10.61.0.1", 24], ["10.62.0.1", 24]]
    await driver.close()
    assert world.left() == {}


async def test_bridges_and_epairs_of_an_earlier_life_are_swept(world: World) -> None:
    """Such as that of an island that was killed between making and naming it, beside one with the name."""
    earlier = network(world, vnet=True)
    await earlier.prepare()
    await earlier.open(())
    run = Programs(world.bin).run
    with pytest.raises(DriverError, match="File exists"):
        await run(bridge_argv("sky0", "c0de"))
    await run(epair_argv("c0de"))
    await run(epair_argv("f00d"))
    assert await network(world, vnet=True).prepare() == 3
    assert world.left() == {"interfaces": ["epair1a", "epair1b"]}, "those of another island"


@pytest.mark.parametrize("vnet", [True, False])
async def test_what_the_other_way_left_is_swept(world: World, vnet: bool) -> None:
    earlier = network(world, vnet=True)
    await earlier.prepare()
    await earlier.open(())
    await Programs(world.bin).run(epair_argv("c0de"))
    await network(world).attach(IP, "sky-c0de-1", 0)
    assert world.left()["aliases"] == [IP.ip]
    assert await network(world, vnet=vnet).prepare() == 3
    assert world.left() == {}


async def test_a_vnet_needs_no_interface_of_the_pool(world: World) -> None:
    with world.change() as state:
        state["default_route"] = ""
    assert await network(world, vnet=True, interface="").prepare() == 0


async def test_no_state_of_pf_outlives_its_address(world: World) -> None:
    with world.change() as state:
        state["pf"]["sky"] = []
        state["pf_states"] = [IP.ip, "10.61.0.3"]
    driver = network(world, nat=True)
    await driver.prepare()
    await driver.attach(IP, "sky-c0de-1", 0)
    await driver.detach("sky-c0de-1")
    assert world.look()["pf_states"] == ["10.61.0.3"]
    assert world.left() == {}


@pytest.mark.parametrize("step", ["create group", "addm", "vnet", "inet 10.61.0.2", "route"])
async def test_an_interface_that_cannot_be_made(world: World, step: str) -> None:
    driver = network(world, vnet=True)
    await driver.prepare()
    await driver.open(())
    with world.change() as state:
        jail = {"jid": 1, "path": "/", "holder": 0, "given": {"vnet": ""}, "dying": 0}
        state["jails"]["sky-c0de-1"] = jail
    world.fail(step, "ifconfig: it is broken\n")
    with pytest.raises(DriverError, match="it is broken"):
        await driver.attach(IP, "sky-c0de-1", 0)
    await driver.close()
    with world.change() as state:
        state["jails"].clear()
    assert world.left() == {}


# What programs say, in every version


@pytest.mark.parametrize("version", ["2", "3"])
async def test_both_versions_of_jls(jails: Jails, prepared: World, say: Say, version: str) -> None:
    with prepared.change() as state:
        state["jls_version"] = version
    assert await say() == b"hello"
    await jails.drain()
    assert await jails.driver.existing() == []


async def test_a_jail_has_the_number_that_jls_shows(
    jails: Jails, prepared: World, actor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = (Mount(actor, "/function"),)
    order = JailOrder(argv=("/function",), purpose=Purpose.function, mounts=mounts, limits=LIMITS)
    with prepared.change() as state:
        state["next_jid"] = 2
    async with jails.jail(order) as first:
        shown = prepared.look()["jails"][first.spec.name]["jid"]
        assert first.spec.name.endswith("-1")
        assert [jail.jid for jail in jails.living()] == [shown] == [2]

        # The second one's name has that number, and it is still in the making.
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def create(_: JailSpec) -> Jail:
            begun.set()
            await go_on.wait()
            raise DriverError("it was not to be")

        monkeypatch.setattr(jails.driver, "create", create)
        second = asyncio.ensure_future(jails.make(order))
        await begun.wait()
        assert (await jails.kill(2)).name == first.spec.name
        go_on.set()
        with pytest.raises(DriverError, match="not to be"):
            await second


def test_jls_with_numbers_or_strings() -> None:
    for jid, dying in ((7, True), ("7", "true")):
        jail = {"jid": jid, "name": "sky-1", "path": "/p", "dying": dying}
        text = json.dumps({"__version": "3", "jail-information": {"jail": [jail]}})
        assert commands.parse_jls(text) == [commands.ListedJail(7, "sky-1", "/p", True)]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"jail-information": {"jail": [{"jid": "x"}]}}'])
def test_jls_that_says_something_else(text: str) -> None:
    with pytest.raises(DriverError, match="jls says"):
        commands.parse_jls(text)


async def test_many_ends_at_once_are_one_program(world: World) -> None:
    clones = zfs_clones(world, ahead=0)
    base = await clones.prepare()
    made = [await clones.clone(base, f"sky-c0de-{n}") for n in range(6)]
    await asyncio.gather(*(clones.destroy(clone) for clone in made))
    assert world.left() == {}
    verbs = [words[1] for words in world.calls("zfs")]
    assert "program" in verbs
    assert verbs.count("destroy") <= 1


async def test_without_channel_programs(world: World) -> None:
    clones = zfs_clones(world, ahead=0)
    base = await clones.prepare()
    made = [await clones.clone(base, f"sky-c0de-{n}") for n in range(5)]
    world.fail("^zfs program", "unrecognized command 'program'\n", code=2, times=9)
    await asyncio.gather(*(clones.destroy(clone) for clone in made))
    await asyncio.gather(*(clones.destroy(clone) for clone in made))
    assert world.left() == {}
    assert [words[1] for words in world.calls("zfs")].count("program") == 1
