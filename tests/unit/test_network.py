"""The address pool: leases, the operator's states, and what the host's inability means."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from skyisland.drivers.linux.hostnetwork import bridge_mac, jail_mac, port_name
from skyisland.errors import AddressInUse, AddressNotFound, DriverError, HostUnfit, NoAddress, TooBusy
from skyisland.events import AddressStateSet, Event, Events
from skyisland.jails.addresses import Addresses, NoInterfaces, name_servers
from skyisland.jails.driver import resolv_conf
from skyisland.model import Address
from skyisland.settings import IP4, Jails, Pool
from skyisland.status import AddressInfo, AddressState, Capability

AVAILABLE, UNAVAILABLE = AddressState.available, AddressState.unavailable
FOUR = IP4(start_addr="10.9.0.10", mask="255.255.255.0", range=13, dns=("9.9.9.9",))


class Host:
    """A network driver that remembers what was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, ...]] = []
        self.attached: dict[str, str] = {}
        self.closed = False
        self.unfit: HostUnfit | DriverError | None = None
        self.fail_open: Exception | None = None
        self.fail_detach: Exception | None = None
        self.hold: asyncio.Event | None = None
        """`detach` waits for it."""

    async def prepare(self) -> int:
        if self.unfit is not None:
            raise self.unfit
        return 3

    async def open(self, dns: tuple[str, ...]) -> None:
        await asyncio.sleep(0)
        if self.fail_open is not None:
            raise self.fail_open
        self.opened.append(dns)

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        self.attached[jail] = address.ip

    async def detach(self, jail: str) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if self.fail_detach is not None:
            raise self.fail_detach
        self.attached.pop(jail, None)

    async def close(self) -> None:
        self.closed = True

    def capabilities(self) -> list[Capability]:
        return [Capability(name="network", enforced=True, how="a fake")]


class States:
    """The operator's states, as the database keeps them."""

    def __init__(self) -> None:
        self.kept: dict[str, float | None] = {}

    async def taken_out(self) -> dict[str, float | None]:
        return dict(self.kept)

    async def set_address_state(self, ip: str, state: AddressState) -> None:
        await asyncio.sleep(0)
        self.kept.pop(ip, None)
        if state is UNAVAILABLE:
            self.kept[ip] = time.time()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def states() -> States:
    return States()


AT_ONCE = Jails(max_queued=0)
"""Nobody waits for an address."""


@pytest.fixture
def pool(host: Host, states: States) -> Addresses:
    return Addresses(FOUR, host, states, Events(), calls=AT_ONCE)


async def lease(pool: Addresses, jail: str, client: str = "") -> Address:
    """An address for the jail of a call, of a client of its own if none is named."""
    pool.require()
    await pool.await_turn(jail, client or jail)
    try:
        return await pool.lease(jail, jail)
    finally:
        pool.end_turn(jail)


def info(pool: Addresses, ip: str) -> AddressInfo:
    return next(address for address in pool.addresses() if address.ip == ip)


# The pool from settings


@pytest.mark.parametrize(
    ("ip4", "first", "last", "count"),
    [
        (FOUR, "10.9.0.10", "10.9.0.13", 4),
        (IP4(cidr="10.9.0.0/29"), "10.9.0.2", "10.9.0.6", 5),
        (IP4(cidr="10.9.0.0/29", gateway="10.9.0.3"), "10.9.0.1", "10.9.0.6", 5),
        (
            IP4(start_addr="192.168.0.20", mask="255.255.255.0", range=220, gateway="192.168.0.1"),
            "192.168.0.20",
            "192.168.0.220",
            201,
        ),
    ],
)
def test_pool_is_what_the_settings_say(ip4: IP4, first: str, last: str, count: int, host: Host) -> None:
    ips = [address.ip for address in Addresses(ip4, host, States(), Events()).addresses()]
    assert (ips[0], ips[-1], len(ips)) == (first, last, count)
    assert str(ip4.gateway_address) not in ips


def test_several_pools_are_one_after_another_without_any_gateway(host: Host) -> None:
    pools = (Pool(cidr="10.8.0.0/30"), Pool(start_addr="10.9.0.20", mask="255.255.255.0", range=21))
    both = structs.replace(FOUR, pools=pools)
    ips = [address.ip for address in Addresses(both, host, States(), Events()).addresses()]
    assert ips == [*(f"10.9.0.{n}" for n in range(10, 14)), "10.8.0.2", "10.9.0.20", "10.9.0.21"]
    assert list(map(str, both.gateways)) == ["10.9.0.1/24", "10.8.0.1/30"]


# Leases


async def test_each_pool_has_its_gateway(host: Host, states: States) -> None:
    ip4 = IP4(cidr="10.9.0.0/30", pools=(Pool(cidr="10.8.4.0/23", gateway="10.8.4.9"),))
    pool = Addresses(ip4, host, states, Events())
    first, second = await lease(pool, "sky-t-1"), await lease(pool, "sky-t-2")
    assert (first.ip, first.prefix, first.gateway) == ("10.9.0.2", 30, "10.9.0.1")
    assert (second.ip, second.prefix, second.gateway) == ("10.8.4.1", 23, "10.8.4.9")
    await pool.set_state("10.8.5.254", UNAVAILABLE)
    spans = r"10\.9\.0\.2 to 10\.9\.0\.2, 10\.8\.4\.1 to 10\.8\.4\.8, 10\.8\.4\.10 to 10\.8\.5\.254"
    with pytest.raises(AddressNotFound, match=spans + "$"):
        await pool.set_state("10.7.0.1", UNAVAILABLE)
    for gateway in ("10.9.0.1", "10.8.4.9"):
        with pytest.raises(AddressNotFound, match=rf"^{gateway} is the gateway.*; the pool has {spans}$"):
            await pool.set_state(gateway, UNAVAILABLE)


async def test_lease_carries_what_the_interface_needs(pool: Addresses, host: Host) -> None:
    assert await pool.prepare() == 3
    address = await lease(pool, "sky-t-1")
    assert address == Address(ip="10.9.0.10", prefix=24, gateway="10.9.0.1", dns=("9.9.9.9",))
    leased = info(pool, "10.9.0.10")
    assert (leased.state, leased.jail) == (UNAVAILABLE, "sky-t-1")
    assert leased.since is not None
    assert host.opened == [("9.9.9.9",)]


async def test_the_lowest_free_address_is_leased_again(pool: Addresses) -> None:
    first, second, third = [await lease(pool, f"sky-t-{n}") for n in range(3)]
    await pool.release(second, "sky-t-1")
    await pool.release(first, "sky-t-0")
    assert (await lease(pool, "sky-t-3")).ip == first.ip
    assert (await lease(pool, "sky-t-4")).ip == second.ip
    assert info(pool, third.ip).jail == "sky-t-2"


async def test_leases_at_the_same_time_never_share(pool: Addresses) -> None:
    leases = await asyncio.gather(*(lease(pool, f"sky-t-{n}") for n in range(4)))
    assert len({address.ip for address in leases}) == 4


async def test_an_empty_pool_says_when_to_come_back(pool: Addresses) -> None:
    for n in range(4):
        await lease(pool, f"sky-t-{n}")
    with pytest.raises(TooBusy, match="the queue for an address is full") as refused:
        await lease(pool, "sky-t-9")
    assert refused.value.retry_after_s == 1


async def test_a_pool_that_the_operator_emptied_is_not_expected_back_soon(pool: Addresses) -> None:
    for address in pool.addresses():
        await pool.set_state(address.ip, UNAVAILABLE)
    with pytest.raises(NoAddress, match="none of the pool's 4 addresses is free") as refused:
        pool.require()
    assert refused.value.retry_after_s == 60


async def test_release_takes_the_interface_away_before_the_address_is_free(
    pool: Addresses, host: Host
) -> None:
    address = await lease(pool, "sky-t-1")
    await pool.attach(address, "sky-t-1", 4711)
    assert host.attached == {"sky-t-1": address.ip}
    host.hold = asyncio.Event()
    release = asyncio.ensure_future(pool.release(address, "sky-t-1"))
    assert (await lease(pool, "sky-t-2")).ip != address.ip
    host.hold.set()
    await release
    assert host.attached == {}
    assert info(pool, address.ip) == AddressInfo(ip=address.ip, state=AVAILABLE)


async def test_a_late_second_release_leaves_the_next_holder_alone(pool: Addresses) -> None:
    address = await lease(pool, "sky-t-1")
    await asyncio.gather(*(pool.release(address, "sky-t-1") for _ in range(3)))
    assert (await lease(pool, "sky-t-2")).ip == address.ip
    await pool.release(address, "sky-t-1")
    assert info(pool, address.ip).jail == "sky-t-2"


async def test_an_address_whose_interface_stays_is_not_leased(pool: Addresses, host: Host) -> None:
    address = await lease(pool, "sky-t-1")
    host.fail_detach = DriverError("device or resource busy")
    with pytest.raises(DriverError):
        await pool.release(address, "sky-t-1")
    assert info(pool, address.ip).jail == "sky-t-1"
    assert (await lease(pool, "sky-t-2")).ip != address.ip
    host.fail_detach = None
    await pool.release(address, "sky-t-1")
    assert info(pool, address.ip).state is AVAILABLE


async def test_a_lease_that_the_host_refuses_is_taken_back(pool: Addresses, host: Host) -> None:
    host.fail_open = DriverError("no bridge today")
    with pytest.raises(DriverError):
        await lease(pool, "sky-t-1")
    assert all(address.state is AVAILABLE for address in pool.addresses())


async def test_a_greedy_client_leaves_half_of_the_addresses(host: Host, states: States) -> None:
    pool = Addresses(FOUR, host, states, Events())
    held = {jail: await lease(pool, jail, "greedy") for jail in ("sky-t-1", "sky-t-2")}
    more = [asyncio.ensure_future(lease(pool, f"sky-t-{n}", "greedy")) for n in range(3, 9)]
    await lease(pool, "sky-t-a", "modest")
    last = await lease(pool, "sky-t-b", "other")
    modest = asyncio.ensure_future(lease(pool, "sky-t-c", "modest"))
    await asyncio.sleep(0)
    await pool.release(last, "sky-t-b")
    assert (await modest).ip == last.ip, "greedy has all that one may have"
    await pool.release(held["sky-t-1"], "sky-t-1")
    await more[0]
    assert not any(call.done() for call in more[1:])
    for call in more:
        call.cancel()
    await asyncio.gather(*more, return_exceptions=True)


async def test_where_all_are_one_client_the_modest_waits_for_all(host: Host, states: States) -> None:
    pool = Addresses(structs.replace(FOUR, leases_per_client=4), host, states, Events())
    held = {f"sky-t-{n}": await lease(pool, f"sky-t-{n}", "alone") for n in range(4)}
    more = [asyncio.ensure_future(lease(pool, f"sky-t-{n}", "alone")) for n in range(4, 7)]
    await asyncio.sleep(0)
    modest = asyncio.ensure_future(lease(pool, "sky-t-c", "alone"))
    await asyncio.sleep(0)
    for n, call in enumerate(more):
        await pool.release(held[f"sky-t-{n}"], f"sky-t-{n}")
        await call
    assert not modest.done()
    await pool.release(held["sky-t-3"], "sky-t-3")
    await modest


async def test_who_hangs_up_in_the_line_takes_no_address(pool: Addresses, host: Host, states: States) -> None:
    pool = Addresses(FOUR, host, states, Events())
    held = [await lease(pool, f"sky-t-{n}") for n in range(4)]
    gone = asyncio.ensure_future(lease(pool, "sky-t-8"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await pool.release(held[0], "sky-t-0")
    assert (await lease(pool, "sky-t-9")).ip == held[0].ip


@given(
    st.lists(st.tuples(st.sampled_from(["lease", "release", "out", "in"]), st.integers(0, 3)), max_size=40)
)
def test_whatever_happens_nobody_shares_and_nothing_is_lost(story: list[tuple[str, int]]) -> None:
    async def live() -> None:
        pool = Addresses(FOUR, Host(), States(), Events(), calls=AT_ONCE)
        ips = [address.ip for address in pool.addresses()]
        held: dict[str, Address] = {}
        out: set[str] = set()
        for number, (deed, which) in enumerate(story):
            ip, jail = ips[which], f"sky-t-{number}"
            if deed == "lease":
                free = [ip for ip in ips if ip not in out and ip not in {a.ip for a in held.values()}]
                if free:
                    held[jail] = await lease(pool, jail)
                    assert held[jail].ip == free[0]
                else:
                    with pytest.raises((NoAddress, TooBusy)):
                        await lease(pool, jail)
            elif deed == "release" and held:
                jail = list(held)[which % len(held)]
                await pool.release(held.pop(jail), jail)
            elif deed == "out":
                await pool.set_state(ip, UNAVAILABLE)
                out.add(ip)
            elif deed == "in" and ip not in out and ip in {a.ip for a in held.values()}:
                with pytest.raises(AddressInUse):
                    await pool.set_state(ip, AVAILABLE)
            elif deed == "in":
                await pool.set_state(ip, AVAILABLE)
                out.discard(ip)
        holders = {address.ip: jail for jail, address in held.items()}
        for address in pool.addresses():
            assert address.jail == holders.get(address.ip)
            assert (address.state is UNAVAILABLE) == (address.ip in out or address.ip in holders)

    asyncio.run(live())


# The operator's states


async def test_an_address_taken_out_is_not_leased_until_it_is_given_back(pool: Addresses) -> None:
    taken = await pool.set_state("10.9.0.10", UNAVAILABLE)
    assert (taken.state, taken.jail) == (UNAVAILABLE, None)
    assert taken.since is not None
    assert (await lease(pool, "sky-t-1")).ip == "10.9.0.11"
    assert (await pool.set_state("10.9.0.10", AVAILABLE)).state is AVAILABLE
    assert (await lease(pool, "sky-t-2")).ip == "10.9.0.10"


async def test_an_address_taken_out_while_leased_leaves_at_release(pool: Addresses) -> None:
    address = await lease(pool, "sky-t-1")
    assert [one.word for one in pool.addresses()][:2] == ["leased", "free"]
    assert (await pool.set_state(address.ip, UNAVAILABLE)).jail == "sky-t-1"
    await pool.release(address, "sky-t-1")
    after = info(pool, address.ip)
    assert (after.state, after.jail) == (UNAVAILABLE, None)
    assert (await lease(pool, "sky-t-2")).ip == "10.9.0.11"


async def test_a_leased_address_cannot_be_made_available(pool: Addresses, states: States) -> None:
    address = await lease(pool, "sky-t-1")
    with pytest.raises(AddressInUse, match="leased to sky-t-1") as refused:
        await pool.set_state(address.ip, AVAILABLE)
    assert refused.value.details == {"ip": address.ip, "jail": "sky-t-1"}
    assert states.kept == {}


async def test_a_leased_address_that_was_taken_out_can_be_given_back(pool: Addresses, states: States) -> None:
    address = await lease(pool, "sky-t-1")
    await pool.set_state(address.ip, UNAVAILABLE)
    assert (await pool.set_state(address.ip, AVAILABLE)).jail == "sky-t-1", "it is still leased"
    assert states.kept == {}
    await pool.release(address, "sky-t-1")
    assert info(pool, address.ip).state is AVAILABLE


@pytest.mark.parametrize("ip", ["10.9.0.9", "10.9.0.1", "10.9.0.14", "nonsense", "", "::1"])
async def test_an_address_outside_the_pool_is_not_found(pool: Addresses, states: States, ip: str) -> None:
    with pytest.raises(AddressNotFound, match=r"10\.9\.0\.10 to 10\.9\.0\.13"):
        await pool.set_state(ip, UNAVAILABLE)
    assert states.kept == {}


async def test_the_operators_word_outlives_the_island(host: Host, states: States) -> None:
    before = Addresses(FOUR, host, states, Events())
    await before.set_state("10.9.0.10", UNAVAILABLE)
    await before.set_state("10.9.0.11", UNAVAILABLE)
    await before.set_state("10.9.0.11", AVAILABLE)
    await lease(before, "sky-t-1")
    states.kept["172.16.0.1"] = 5.0  # of a pool that was
    states.kept["10.9.0.10"] = 7.0

    after = Addresses(FOUR, host, states, Events())
    await after.prepare()
    out = [address for address in after.addresses() if address.state is UNAVAILABLE]
    assert [(address.ip, address.since, address.word) for address in out] == [("10.9.0.10", 7.0, "out")]


async def test_the_state_is_published_once_it_is_on_record(host: Host, states: States) -> None:
    events, told = Events(), []

    def hear(event: Event) -> None:
        told.append((event, dict(states.kept)))

    events.tap(hear)
    await Addresses(FOUR, host, states, events).set_state("10.9.0.12", UNAVAILABLE)
    ((event, kept),) = told
    assert isinstance(event, AddressStateSet)
    assert (event.ip, event.state, list(kept)) == ("10.9.0.12", "unavailable", ["10.9.0.12"])


# The host


@pytest.mark.parametrize("kind", [HostUnfit, DriverError])
async def test_an_unfit_host_refuses_before_anything_is_built(
    kind: type[HostUnfit] | type[DriverError], pool: Addresses, host: Host
) -> None:
    host.unfit = kind("no rights for networking; run the island as root", remedy="run as root")
    assert await pool.prepare() == 0
    for _ in range(2):
        with pytest.raises(HostUnfit, match="run the island as root"):
            pool.require()
    with pytest.raises(HostUnfit):
        await lease(pool, "sky-t-1")
    assert host.opened == []
    host.unfit = None
    await pool.prepare()
    pool.require()


async def test_close_and_capabilities_are_the_drivers(pool: Addresses, host: Host) -> None:
    assert [capability.how for capability in pool.capabilities()] == ["a fake"]
    await pool.close()
    assert host.closed


async def test_where_no_jail_can_have_an_interface_no_address_is_leased() -> None:
    driver = NoInterfaces("there is no network here", "build one")
    pool = Addresses(FOUR, driver, States(), Events())
    assert await pool.prepare() == 0
    with pytest.raises(HostUnfit, match="there is no network here; build one, or leave ip4 out"):
        pool.require()
    with pytest.raises(HostUnfit):
        await lease(pool, "sky-t-1")
    assert {address.state for address in pool.addresses()} == {AVAILABLE}
    (capability,) = pool.capabilities()
    assert capability == Capability(
        name="network", enforced=False, how="there is no network here", remedy="build one"
    )
    await pool.close()


async def test_a_driver_without_interfaces_refuses_every_step_that_makes_one() -> None:
    driver = NoInterfaces("there is no network here")
    address = Address(ip="10.9.0.10", prefix=24, gateway="10.9.0.1")
    for step in (driver.prepare(), driver.open(()), driver.attach(address, "sky-t-1", 1)):
        with pytest.raises(HostUnfit, match="there is no network here; leave ip4 out"):
            await step
    await driver.detach("sky-t-1")


# Name servers


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 9.9.9.9\nnameserver 149.112.112.112\n", ("9.9.9.9", "149.112.112.112")),
        ("# nameserver 1.1.1.1\n; x\nsearch lan\nnameserver\t192.168.0.1 \n", ("192.168.0.1",)),
        ("nameserver 127.0.0.53\noptions edns0\n", ()),
        ("nameserver ::1\nnameserver fe80::1%eth0\nnameserver 2620:fe::fe\n", ()),
        ("nameserver\nnameserver x\nnameserver 0.0.0.0\n", ()),
        ("", ()),
    ],
)
def test_name_servers_that_a_jail_can_reach(text: str, servers: tuple[str, ...]) -> None:
    assert name_servers(text.splitlines()) == servers
    assert name_servers(resolv_conf(servers).decode().splitlines()) == servers


@pytest.mark.parametrize(
    ("nat", "dns", "leased"),
    [
        (True, (), ("192.168.7.1",)),
        (True, ("9.9.9.9",), ("9.9.9.9",)),
        (False, (), ()),
        (False, ("10.9.0.1",), ("10.9.0.1",)),
    ],
)
async def test_the_hosts_name_servers_serve_where_nat_leads_to_them(
    nat: bool, dns: tuple[str, ...], leased: tuple[str, ...], host: Host, tmp_path: Path
) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("nameserver 192.168.7.1\n")
    files = (tmp_path / "missing", stub, real)
    pool = Addresses(IP4(nat=nat, dns=dns), host, States(), Events(), resolv_confs=files)
    await pool.prepare()
    assert (await lease(pool, "sky-t-1")).dns == leased
    assert host.opened == [leased]


# Names on a Linux host


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=40), st.integers(1, 16**7 - 1))
def test_interface_names_fit_and_tell_jails_and_islands_apart(island: str, number: int) -> None:
    name = port_name(island, f"sky-{island}-{number:x}")
    assert len(name) <= 15
    assert name.startswith(port_name(island, "-"))
    assert name != port_name(island, f"sky-{island}-{number + 1:x}")
    assert not name.startswith(port_name(island + "x", "-"))


def test_hardware_addresses_are_locally_administered_and_never_meet() -> None:
    assert jail_mac("10.61.0.254") == "02:53:0a:3d:00:fe"
    assert bridge_mac("one") != bridge_mac("two")
    for mac in (jail_mac("10.61.0.254"), bridge_mac("one")):
        assert int(mac[:2], 16) & 0b11 == 0b10
    assert jail_mac("10.61.0.254")[:2] != bridge_mac("one")[:2]
