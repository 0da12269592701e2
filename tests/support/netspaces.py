"""A host in network namespaces that a test makes: nothing here touches the real one's.

The thread of the test stands in a namespace of its own that plays the host. It has an uplink to another
one, `outside`, which has a public address, a private network, a metadata service and a name server. The
jails are processes that were started in namespaces of their own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

from skyisland.drivers.linux import rtnetlink
from skyisland.drivers.linux.bridge import BridgeNetwork
from skyisland.drivers.linux.hostnetwork import CLONE_NEWNET, LIBC
from skyisland.model import Address
from skyisland.settings import IP4
from skyisland.status import Capability

T = TypeVar("T")
PORT, DNS = 5000, 53
UPLINK = "203.0.113.2"
NEIGHBOUR = "203.0.113.1"
PUBLIC = "192.31.196.7"  # AS112 (RFC 7535): public, and nobody's
PRIVATE = "192.168.55.7"
NAME_SERVER = "192.168.55.53"
METADATA = "169.254.169.254"
GATEWAY = "10.61.0.1"
ANSWERED_S = 5.0
"""For a connection that should be let through: a packet may be lost, and is sent again after a second."""
DROPPED_S = 0.4
"""One that should not, and takes longer than this with nothing but memory in between, is not let through."""
Target = tuple[str, int]
NOTHING: Set[Target] = frozenset()


def within(netns: int | None, work: Callable[[], T]) -> T:
    """Run `work` in a thread inside a namespace, or inside a new one."""

    def inside() -> T:
        assert (LIBC.unshare(CLONE_NEWNET) if netns is None else LIBC.setns(netns, CLONE_NEWNET)) == 0
        return work()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(inside).result()


def namespace() -> int:
    """An open file of a new network namespace."""
    return within(None, lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def configure(netns: int, work: Callable[[IPRoute], None]) -> None:
    def inside() -> None:
        with IPRoute() as ip:
            work(ip)

    within(netns, inside)


def netfilter(world: World, work: Callable[[rtnetlink.NetlinkSocket], T]) -> T:
    def inside() -> T:
        with closing(rtnetlink.NetlinkSocket(rtnetlink.NETLINK_NETFILTER)) as netlink:
            return work(netlink)

    return within(world.own, inside)


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


class Jail:
    """A process in a network namespace of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = within(None, lambda: subprocess.Popen(["cat"], stdin=subprocess.PIPE))
        self.netns = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        if self.netns == -1:
            return
        os.close(self.netns)
        self.netns = -1
        self.process.kill()
        self.process.communicate()


class World:
    """The host that the test stands in, and what lies around it."""

    def __init__(self, outside: int, own: int, stack: ExitStack) -> None:
        self.outside = outside
        self.own = own
        self.stack = stack
        self.numbers = iter(range(1, 10**6))

    def jail(self, island: str = "t") -> Jail:
        jail = Jail(f"sky-{island}-{next(self.numbers):x}")
        self.stack.callback(jail.end)
        return jail

    def listen(self, netns: int, port: int = PORT) -> socket.socket:
        def inside() -> socket.socket:
            return socket.create_server(("", port))

        server = within(netns, inside)
        server.setblocking(False)
        self.stack.callback(server.close)
        return server


@contextmanager
def made_world() -> Iterator[World]:
    """This thread in a namespace of its own, with the uplink and what lies beyond it."""
    with ExitStack() as stack:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, before)
        assert LIBC.unshare(CLONE_NEWNET) == 0
        stack.callback(lambda: LIBC.setns(before, CLONE_NEWNET))
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, own)
        outside = namespace()
        stack.callback(os.close, outside)

        def host(ip: IPRoute) -> None:
            ip.link("add", ifname="up0", kind="veth", peer={"ifname": "up1", "net_ns_fd": outside})
            for name in ("lo", "up0"):
                ip.link("set", index=socket.if_nametoindex(name), state="up")
            ip.addr("add", index=socket.if_nametoindex("up0"), address=UPLINK, prefixlen=24)

        def beyond(ip: IPRoute) -> None:
            for name in ("lo", "up1"):
                ip.link("set", index=socket.if_nametoindex(name), state="up")
            ip.addr("add", index=socket.if_nametoindex("up1"), address=NEIGHBOUR, prefixlen=24)
            for address in (PUBLIC, PRIVATE, NAME_SERVER, METADATA):
                ip.addr("add", index=1, address=address, prefixlen=32)
            ip.route("add", dst="10.61.0.0/24", gateway=UPLINK)

        configure(own, host)
        configure(outside, beyond)
        configure(own, lambda ip: ip.route("add", dst="default", gateway=NEIGHBOUR))
        Path("/proc/sys/net/ipv4/conf/up0/forwarding").write_text("1")
        yield World(outside, own, stack)


@asynccontextmanager
async def island(ip4: IP4 | None = None, **options: Any) -> AsyncIterator[BridgeNetwork]:
    driver = BridgeNetwork(ip4 or IP4(), island=options.pop("island", "t"), **options)
    try:
        await driver.prepare()
        yield driver
    finally:
        await driver.close()


def address(last: int, network: str = "10.61.0") -> Address:
    return Address(ip=f"{network}.{last}", prefix=24, gateway=f"{network}.1")


async def connect(
    netns: int, ip: str, port: int = PORT, patience_s: float = ANSWERED_S
) -> socket.socket | None:
    """A TCP connection from that namespace, or None if no answer comes."""
    client = within(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.setblocking(False)
    try:
        async with asyncio.timeout(patience_s):
            await asyncio.get_running_loop().sock_connect(client, (ip, port))
    except (TimeoutError, OSError):
        client.close()
        return None
    return client


async def reached(netns: int, *targets: Target, closed: Set[Target] = NOTHING) -> set[Target]:
    """Which of the targets answer, all tried at once; those thought `closed` have less time for it."""
    clients = await asyncio.gather(
        *(connect(netns, *target, DROPPED_S if target in closed else ANSWERED_S) for target in targets)
    )
    for client in clients:
        if client is not None:
            client.close()
    return {target for target, client in zip(targets, clients, strict=True) if client is not None}


def capability(driver: BridgeNetwork, name: str) -> Capability:
    return next(capability for capability in driver.capabilities() if capability.name == name)
