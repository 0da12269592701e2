"""Interfaces for jails, in network namespaces that the tests make (`netspaces`)."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import socket
import struct
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from pyroute2 import IPRoute
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_NEWTABLE, Meta

from skyisland.doctor import TRIAL_ISLAND
from skyisland.drivers.linux import nftables, rtnetlink, xtables
from skyisland.drivers.linux.bridge import BridgeNetwork
from skyisland.drivers.linux.hostnetwork import LIBC, HostNetwork, port_name
from skyisland.drivers.linux.nftables import CONNECTIONS
from skyisland.errors import DriverError, HostUnfit
from skyisland.events import Events
from skyisland.jails.addresses import Addresses
from skyisland.model import Address
from skyisland.settings import IP4, Pool
from skyisland.status import AddressState
from tests.support.netspaces import (
    ANSWERED_S,
    DNS,
    GATEWAY,
    METADATA,
    NAME_SERVER,
    NEIGHBOUR,
    NOTHING,
    PORT,
    PRIVATE,
    PUBLIC,
    UPLINK,
    Jail,
    Target,
    World,
    address,
    capability,
    configure,
    connect,
    island,
    links,
    made_world,
    netfilter,
    reached,
    within,
)

pytestmark = [pytest.mark.host, pytest.mark.root]


@pytest.fixture
def world() -> Iterator[World]:
    with made_world() as world:
        yield world


# What a jail has


async def test_nothing_is_made_before_the_first_lease(world: World) -> None:
    before = links()
    async with island(IP4(nat=True)) as driver:
        assert links() == before
        assert all(capability.enforced for capability in driver.capabilities()), driver.capabilities()
        await driver.open(())
        assert links() == before | {"sky0"}
    assert links() == before


async def test_a_jail_has_an_address_a_route_and_no_ipv6(world: World) -> None:
    jail = world.jail()
    async with island() as driver:
        await driver.open(())
        await driver.attach(address(7), jail.name, jail.pid)
        assert links() >= {"sky0", port_name("t", jail.name)}
        seen: dict[str, Any] = {}

        def look(ip: IPRoute) -> None:
            seen["links"] = {
                link.get("ifname"): (link.get("state"), link.get("address")) for link in ip.get_links()
            }
            seen["addresses"] = {found.get("address") for found in ip.get_addr()}
            seen["routes"] = [route.get("gateway") for route in ip.get_default_routes()]

        configure(jail.netns, look)
        assert seen["links"]["eth0"] == ("up", "02:53:0a:3d:00:07")
        assert seen["links"]["lo"][0] == "up"
        assert seen["addresses"] == {"127.0.0.1", "::1", "10.61.0.7"}
        assert seen["routes"] == [GATEWAY]


async def test_a_number_that_another_process_has_by_now_gets_no_interface(world: World) -> None:
    jail, other = world.jail(), world.jail()
    pidfd = os.pidfd_open(jail.pid)
    world.stack.callback(os.close, pidfd)
    async with island() as driver:
        await driver.open(())
        await driver.attach(address(6), jail.name, jail.pid, pidfd)
        await driver.detach(jail.name)
        jail.end()
        with pytest.raises(DriverError, match="has ended"):
            await driver.attach(address(7), jail.name, other.pid, pidfd)
        assert port_name("t", jail.name) not in links()
        await driver.attach(address(7), jail.name, other.pid)  # nobody looked
        assert port_name("t", jail.name) in links()


@pytest.mark.parametrize("nat", [True, False])
async def test_a_function_that_listens_is_reached_from_host_and_outside(world: World, nat: bool) -> None:
    jail = world.jail()
    async with island(IP4(nat=nat)) as driver:
        await driver.open(())
        await driver.attach(address(2), jail.name, jail.pid)
        world.listen(jail.netns)
        assert await reached(world.own, ("10.61.0.2", PORT))
        if nat:  # the bridge forwards
            assert await reached(world.outside, ("10.61.0.2", PORT))


async def test_the_next_holder_of_an_address_is_reached_at_once(world: World) -> None:
    async with island() as driver:
        await driver.open(())
        for _ in range(3):
            jail = world.jail()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as early:
                early.sendto(b"anybody?", ("10.61.0.2", PORT))
            await driver.attach(address(2), jail.name, jail.pid)
            world.listen(jail.netns)
            assert await reached(world.own, ("10.61.0.2", PORT))
            await driver.detach(jail.name)


async def test_a_function_that_dials_comes_from_the_hosts_address(world: World) -> None:
    jail = world.jail()
    async with island(IP4(nat=True, interface="up0")) as driver:
        await driver.open(())
        await driver.attach(address(2), jail.name, jail.pid)
        server = world.listen(world.outside)
        client = await connect(jail.netns, PUBLIC)
        assert client is not None
        connection, peer = await asyncio.get_running_loop().sock_accept(server)
        assert peer[0] == UPLINK
        connection.close()
        client.close()


# What a jail must not reach

OPEN_WITH_NAT = {(PUBLIC, PORT), (PUBLIC, DNS), (NAME_SERVER, DNS)}
CLOSED = {
    "the host by its gateway": (GATEWAY, PORT),
    "DNS on the host": (GATEWAY, DNS),
    "the host by another address": (UPLINK, PORT),
    "the metadata service": (METADATA, PORT),
    "a private network": (PRIVATE, PORT),
    "the name server's other ports": (NAME_SERVER, PORT),
    "the host's neighbours": (NEIGHBOUR, PORT),
    "another jail": ("10.61.0.3", PORT),
}


EVERYTHING = OPEN_WITH_NAT | set(CLOSED.values())


async def attack(
    world: World,
    ip4: IP4,
    opens: Set[Target],
    *,
    guarded: bool = True,
    network: str = "10.61.0",
    **options: Any,
) -> None:
    """A jail tries everything there is, and reaches what `opens` names and nothing else."""
    jail, other = world.jail(), world.jail()
    async with island(ip4, **options) as driver:
        await driver.open((NAME_SERVER,))
        await driver.attach(address(2, network), jail.name, jail.pid)
        await driver.attach(address(3), other.name, other.pid)
        for netns in (world.own, world.outside, other.netns):
            for port in (PORT, DNS):
                world.listen(netns, port)
        if not guarded:
            _unguard(world, jail, other)
        assert await reached(jail.netns, *EVERYTHING, closed=EVERYTHING - opens) == opens


def _unguard(world: World, *jails: Jail) -> None:
    assert netfilter(world, lambda socket: nftables.remove(socket, "sky_t"))

    together = {
        "attrs": [
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_ISOLATED", 0)]}),
        ]
    }

    def unite() -> None:
        with closing(rtnetlink.NetlinkSocket(rtnetlink.NETLINK_ROUTE)) as netlink:
            names = (port_name("t", jail.name) for jail in jails)
            netlink.transact([rtnetlink.link_up(IFLA_IFNAME=name, IFLA_LINKINFO=together) for name in names])

    within(world.own, unite)


async def test_without_the_guard_a_jail_reaches_everything(world: World) -> None:
    """Else the tests below would prove nothing."""
    await attack(world, IP4(nat=True), EVERYTHING, guarded=False)


async def test_with_nat_a_jail_reaches_the_internet_and_its_name_server_alone(world: World) -> None:
    await attack(world, IP4(nat=True), OPEN_WITH_NAT)


async def test_a_jail_of_the_second_pool_reaches_the_same_and_none_of_the_first(world: World) -> None:
    both = IP4(nat=True, pools=(Pool(cidr="10.62.0.0/24"),))
    await attack(world, both, OPEN_WITH_NAT, network="10.62.0")


async def test_without_nat_a_jail_reaches_nothing(world: World) -> None:
    Path("/proc/sys/net/ipv4/conf/all/forwarding").write_text("1")
    await attack(world, IP4(), NOTHING)


async def test_nat_leaves_through_the_configured_interface_alone(world: World) -> None:
    await attack(world, IP4(nat=True, interface="lo"), NOTHING)


async def test_the_operator_opens_a_network(world: World) -> None:
    opened = (IPv4Network("192.168.55.0/24"),)
    opens = OPEN_WITH_NAT | {(PRIVATE, PORT), (NAME_SERVER, PORT)}
    await attack(world, IP4(nat=True), opens, open_networks=opened)


async def test_the_operator_names_the_networks_outside(world: World) -> None:
    elsewhere = IP4(nat=True, egress=("192.0.2.0/24",))
    await attack(world, elsewhere, {(NAME_SERVER, DNS)})


async def test_the_operator_names_networks_public_and_private(world: World) -> None:
    named = IP4(nat=True, egress=(f"{PUBLIC}/32",), open_networks=(f"{PRIVATE}/32",))
    await attack(world, named, OPEN_WITH_NAT | {(PRIVATE, PORT)})


async def test_the_gateway_answers_dns_where_it_is_the_name_server(world: World) -> None:
    jail = world.jail()
    async with island(IP4(dns=(GATEWAY,))) as driver:
        await driver.open((GATEWAY,))
        await driver.attach(address(2), jail.name, jail.pid)
        for port in (PORT, DNS):
            world.listen(world.own, port)
        closed = {(GATEWAY, PORT)}
        assert await reached(jail.netns, (GATEWAY, DNS), *closed, closed=closed) == {(GATEWAY, DNS)}


def mailbox(world: World, netns: int) -> socket.socket:
    """Where datagrams for that namespace arrive."""
    box = within(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    box.bind(("", PORT))
    box.setblocking(False)
    world.stack.callback(box.close)
    return box


def send(netns: int, text: bytes, ip: str, source: str = "") -> None:
    def inside() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((source, 0))
            client.sendto(text, (ip, PORT))

    within(netns, inside)


async def test_a_jail_that_routes_by_the_host_does_not_reach_another(world: World) -> None:
    jail, other = world.jail(), world.jail()
    async with island(IP4(nat=True), open_networks=[IPv4Network("10.0.0.0/8")]) as driver:
        await driver.open(())
        await driver.attach(address(2), jail.name, jail.pid)
        await driver.attach(address(3), other.name, other.pid)
        box = mailbox(world, other.netns)
        configure(jail.netns, lambda ip: ip.route("add", dst="10.61.0.3/32", gateway=GATEWAY))
        send(jail.netns, b"from the jail", "10.61.0.3")
        send(world.own, b"from the host", "10.61.0.3")
        # The jail's was first; had it passed, it would be the first to arrive.
        assert await asyncio.get_running_loop().sock_recv(box, 64) == b"from the host"


async def test_a_jail_with_a_foreign_address_is_not_heard(world: World) -> None:
    """One that could change its address, which takes rights that no jail has."""
    jail, foreign = world.jail(), "172.20.0.9"
    async with island(IP4(nat=True)) as driver:
        await driver.open(())
        await driver.attach(address(2), jail.name, jail.pid)
        box = mailbox(world, world.outside)
        index = within(jail.netns, lambda: socket.if_nametoindex("eth0"))
        configure(jail.netns, lambda ip: ip.addr("add", index=index, address=foreign, prefixlen=32))
        send(jail.netns, b"as another", PUBLIC, foreign)
        send(jail.netns, b"as itself", PUBLIC, "10.61.0.2")
        assert await asyncio.get_running_loop().sock_recv(box, 64) == b"as itself"


@pytest.mark.parametrize("counted", [True, False])
async def test_a_jail_has_so_many_connections_and_others_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    """Each takes a place in the host's table of connections, which all share."""
    if not counted:
        whole = HostNetwork._filter
        monkeypatch.setattr(
            HostNetwork, "_filter", lambda host, dns: structs.replace(whole(host, dns), connections=None)
        )
    jail, other = world.jail(), world.jail()
    async with island(IP4(nat=True)) as driver:
        assert "256 connections for each address" in capability(driver, "nat").how
        await driver.open(())
        await driver.attach(address(2), jail.name, jail.pid)
        await driver.attach(address(3), other.name, other.pid)
        box, heard = mailbox(world, world.outside), 0
        # Read meanwhile: a box holds some 250.
        for _ in range(CONNECTIONS + 40):
            send(jail.netns, b"of many", PUBLIC)
            with suppress(BlockingIOError):
                heard += len([box.recv(64)])
        send(other.netns, b"of another", PUBLIC)
        async with asyncio.timeout(ANSWERED_S):
            while await asyncio.get_running_loop().sock_recv(box, 64) != b"of another":
                heard += 1
        # Kernels differ in whether the one that is being opened counts, and count late under load.
        assert heard in (range(CONNECTIONS, CONNECTIONS + 10) if counted else (CONNECTIONS + 40,))


# Life and death


async def test_detach_may_be_repeated_and_survives_the_jails_own_end(world: World) -> None:
    jail = world.jail()
    async with island() as driver:
        await driver.open(())
        await driver.attach(address(2), jail.name, jail.pid)
        jail.end()
        for _ in range(2):
            await driver.detach(jail.name)
        assert port_name("t", jail.name) not in links()
        await driver.detach("sky-t-fff")


async def test_a_failed_attach_leaves_nothing(world: World) -> None:
    jail = world.jail()
    async with island() as driver:
        await driver.open(())
        before = links()
        configure(jail.netns, lambda ip: ip.link("add", ifname="eth0", kind="bridge"))
        with pytest.raises(DriverError, match="exist"):
            await driver.attach(address(2), jail.name, jail.pid)
        with pytest.raises(DriverError, match="No such file"):
            await driver.attach(address(2), jail.name, 2**22 + 1)
        broken = Address(ip="10.61.0.2", prefix=24, gateway="10.99.0.1")
        clean = world.jail()
        with pytest.raises(DriverError, match="nreachable"):
            await driver.attach(broken, clean.name, clean.pid)
        assert links() == before


async def test_bridge_and_filter_are_mended_when_somebody_took_them(world: World) -> None:
    jail = world.jail()
    async with island(IP4(nat=True)) as driver:
        await driver.open(())
        configure(world.own, lambda ip: ip.link("del", index=socket.if_nametoindex("sky0")))
        assert netfilter(world, lambda socket: nftables.remove(socket, "sky_t"))
        await driver.open(())
        assert netfilter(world, lambda socket: nftables.exists(socket, "sky_t"))
        await driver.attach(address(2), jail.name, jail.pid)
        world.listen(jail.netns)
        assert await reached(world.own, ("10.61.0.2", PORT))


async def test_the_next_life_sweeps_what_a_killed_island_left(world: World) -> None:
    jail, before = world.jail(), links()
    killed = BridgeNetwork(IP4(nat=True), island="t")
    await killed.prepare()
    await killed.open(())
    await killed.attach(address(2), jail.name, jail.pid)
    async with island(IP4(bridge="sky1", cidr="10.62.0.0/24"), island="other"):
        assert links() == before | {"sky0", port_name("t", jail.name)}
    heir = BridgeNetwork(IP4(nat=True), island="t")
    assert await heir.prepare() == 3  # a port, the bridge, the table
    assert links() == before
    assert await heir.prepare() == 0
    await heir.close()
    await killed.close()


async def test_two_hundred_lives_leave_nothing(world: World) -> None:
    jails = [world.jail() for _ in range(4)]
    async with island(IP4(nat=True)) as driver:
        pool = Addresses(IP4(nat=True), driver, Memory(), Events(), resolv_confs=())
        await pool.prepare()

        async def live(jail: Jail, number: int) -> None:
            name = f"sky-t-{number:x}"
            await pool.await_turn(name, name)
            address = await pool.lease(name, name)
            await pool.attach(address, name, jail.pid)
            await pool.release(address, name)

        await live(jails[0], 1)
        gc.collect()
        before, files = links(), len(os.listdir("/proc/self/fd"))
        for round_ in range(50):
            await asyncio.gather(*(live(jail, 16 + 4 * round_ + n) for n, jail in enumerate(jails)))
        gc.collect()
        assert links() == before
        assert len(os.listdir("/proc/self/fd")) == files
        assert all(address.state is AddressState.available for address in pool.addresses())
        for jail in jails:
            assert within(jail.netns, links) == {"lo"}


class Memory:
    async def taken_out(self) -> dict[str, float | None]:
        return {}

    async def set_address_state(self, ip: str, state: AddressState) -> None:
        raise NotImplementedError


# Neighbours, and hosts that cannot


async def test_two_islands_live_side_by_side(world: World) -> None:
    ip4 = IP4(nat=True, bridge="sky1", cidr="10.62.0.0/24")
    one, two = world.jail("t"), world.jail("u")
    async with island(IP4(nat=True)) as first:
        async with island(ip4, island="u") as second:
            await first.open(())
            await second.open(())
            await first.attach(address(2), one.name, one.pid)
            await second.attach(address(2, "10.62.0"), two.name, two.pid)
            world.listen(two.netns)
            assert await reached(world.own, ("10.62.0.2", PORT))
            closed = {("10.62.0.2", PORT)}
            assert await reached(one.netns, *closed, closed=closed) == NOTHING
        assert port_name("t", one.name) in links()
        assert "sky1" not in links()


async def test_what_is_somebody_elses_is_refused_and_left_alone(world: World) -> None:
    async with island() as first:
        await first.open(())
        with pytest.raises(HostUnfit, match=r"sky0 is another island's; set network\.ip4\.bridge"):
            async with island(island="u"):
                pass
        with pytest.raises(HostUnfit, match=r"overlaps with .*10\.61\.0\.1/24; set network\.ip4\.cidr"):
            async with island(IP4(bridge="sky1"), island="u"):
                pass
        with pytest.raises(HostUnfit, match="up0 is not the island's"):
            async with island(IP4(bridge="up0", cidr="10.62.0.0/24"), island="u"):
                pass
        with pytest.raises(HostUnfit, match=r"overlaps with .*203\.0\.113\.2/24"):
            async with island(IP4(bridge="sky1", cidr="203.0.113.128/25"), island="u"):
                pass
        assert {"sky0", "up0"} <= links()


async def test_a_bridge_whose_island_is_gone_is_taken_over(world: World) -> None:
    """The state folder is gone, and with it the name that would have told the next island what to sweep."""
    before = links()
    gone = BridgeNetwork(IP4(nat=True), island="gone")
    await gone.prepare()
    await gone.open(())
    with pytest.raises(HostUnfit, match="sky0 is another island's"):
        async with island(IP4(nat=True), island="heir"):
            pass
    assert gone._maker_host is not None
    assert gone._maker_host._alive is not None
    gone._maker_host._alive.close()  # as the end of its process does
    assert netfilter(world, nftables.tables) == ["sky_gone"]
    # Who only looks changes nothing.
    doctor = BridgeNetwork(IP4(nat=True), island=TRIAL_ISLAND)
    with pytest.raises(HostUnfit):
        await doctor.prepare()
    await doctor.close()
    for ip4 in (IP4(nat=True), IP4(nat=True, bridge="sky1")):  # its name is in the way, or its subnet
        heir = BridgeNetwork(ip4, island="heir")
        swept = await heir.prepare()
        assert swept == (2 if ip4.bridge == "sky0" else 0)
        assert links() == before
        assert netfilter(world, nftables.tables) == []
        await heir.open(())
        assert links() == before | {ip4.bridge}
        await heir.close()
    await gone.close()


async def test_a_firewall_that_drops_what_is_forwarded_is_told_with_its_remedy(world: World) -> None:
    """Docker's and ufw's FORWARD has the policy DROP: our accept decides for our table alone."""
    world.listen(world.outside)
    jail, target = world.jail(), (PUBLIC, PORT)

    def firewall(*lets: nftables.Expressions) -> None:
        def install(netlink: rtnetlink.NetlinkSocket) -> None:
            chain = nftables._chain("filter", "forward")
            chain["attrs"].append(("NFTA_CHAIN_POLICY", nftables.NF_DROP))
            rules = [nftables._rule("filter", "forward", let) for let in lets]
            nftables._commit(netlink, [nftables._table(NFT_MSG_NEWTABLE, "filter"), chain, *rules])

        netfilter(world, install)

    async def told() -> tuple[bool, str, bool]:
        async with island(IP4(nat=True)) as driver:
            nat = capability(driver, "nat")
            await driver.open(())
            await driver.attach(address(2), jail.name, jail.pid)
            closed = set() if nat.enforced else {target}
            passes = await reached(jail.netns, target, closed=closed) == {target}
            await driver.detach(jail.name)
            return nat.enforced, nat.how, passes

    assert (await told())[::2] == (True, True)
    firewall()
    enforced, how, passes = await told()
    assert (enforced, passes) == (False, False)
    assert how.startswith("the chain forward of the nftables table filter drops what it has no rule for")
    interface = nftables._interface
    firewall(
        interface(Meta.NFT_META_IIFNAME, "sky0") + nftables.ACCEPT,
        interface(Meta.NFT_META_OIFNAME, "sky0") + nftables.ACCEPT,
    )
    assert (await told())[::2] == (True, True)
    drop_by_legacy_tables()
    enforced, how, passes = await told()
    assert (enforced, passes) == (False, False)
    assert how.startswith("the chain FORWARD of iptables-legacy drops what it has no rule for")


def drop_by_legacy_tables() -> None:
    """`iptables-legacy -P FORWARD DROP` (struct ipt_replace)."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        info, entries = xtables.table(sock)
        name, hooks, *places, count, size = info
        policy = places[5 + xtables.FORWARD]
        (target,) = struct.unpack_from("=H", entries, policy + xtables.TARGET_OFFSET)
        rules = bytearray(entries)
        struct.pack_into("=i", rules, policy + target + xtables.VERDICT_OFFSET, xtables.DROP)
        counters = ctypes.create_string_buffer(16 * count)
        head = struct.pack(
            "=32sIII10IIQ", name, hooks, count, size, *places, count, ctypes.addressof(counters)
        )
        sock.setsockopt(socket.IPPROTO_IP, 64, head + bytes(rules))  # IPT_SO_SET_REPLACE


async def test_an_uplink_that_does_not_forward_is_told_with_its_remedy(world: World) -> None:
    Path("/proc/sys/net/ipv4/conf/up0/forwarding").write_text("0")
    async with island(IP4(nat=True)) as driver:
        nat = capability(driver, "nat")
        assert (nat.enforced, nat.remedy) == (False, "sysctl -w net.ipv4.conf.up0.forwarding=1")
        await driver.open(())
        assert Path("/proc/sys/net/ipv4/conf/up0/forwarding").read_text() == "0\n"
    async with island(IP4(nat=True, interface="em0")) as driver:
        assert capability(driver, "nat").how == "there is no interface em0"
    async with island(IP4()) as driver:
        assert capability(driver, "nat").remedy == "set network.ip4.nat = true"


def _give_up_rights() -> None:
    """capset(2) with nothing, for the calling thread and those that it starts."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert LIBC.capset(header, (ctypes.c_uint32 * 6)()) == 0


def test_without_rights_calls_with_ip4_are_refused_with_the_remedy(world: World) -> None:
    """A thread that another one starts has no more rights than that."""

    def powerless() -> None:
        _give_up_rights()
        asyncio.run(_is_refused())

    with ThreadPoolExecutor(1) as threads:
        threads.submit(powerless).result()


async def _is_refused() -> None:
    driver = BridgeNetwork(IP4(), island="t")
    pool = Addresses(IP4(), driver, Memory(), Events(), resolv_confs=())
    assert await pool.prepare() == 0
    with pytest.raises(HostUnfit, match=r"no rights for networking: .*; run the island as root"):
        pool.require()
    with pytest.raises(HostUnfit):
        await pool.lease("sky-t-1", "")
    network = capability(driver, "network")
    assert not network.enforced
    assert "as root" in network.remedy
    await pool.close()


class NoNetfilter(rtnetlink.NetlinkSocket):
    """On a kernel without nf_tables."""

    def __init__(self, protocol: int) -> None:
        if protocol == rtnetlink.NETLINK_NETFILTER:
            raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")
        super().__init__(protocol)


async def test_a_kernel_without_nftables_gives_addresses_but_no_nat_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtnetlink, "NetlinkSocket", NoNetfilter)
    jail, other = world.jail(), world.jail()
    driver = BridgeNetwork(IP4(), island="t")
    await driver.prepare()
    isolation = capability(driver, "isolation")
    assert not isolation.enforced
    assert "nothing keeps them off the host" in isolation.how
    await driver.open(())
    for number, each in enumerate((jail, other), start=2):
        await driver.attach(address(number), each.name, each.pid)
        world.listen(each.netns)
    world.listen(world.own)
    closed = {("10.61.0.3", PORT)}
    assert await reached(jail.netns, (GATEWAY, PORT), *closed, closed=closed) == {(GATEWAY, PORT)}
    await driver.close()
    demanding = BridgeNetwork(IP4(nat=True), island="t")
    with pytest.raises(HostUnfit, match=r"network\.ip4\.nat needs nftables"):
        await demanding.prepare()
    await demanding.close()
