"""Addresses for jails on FreeBSD, in one of two ways.

*Alias*: the address is an alias on the host's interface, and the jail may use that one address of the
host's network stack. It is the cheaper way. The jail sees the host's interfaces, but not their addresses.

*VNET*: the jail has a network stack of its own, connected to the bridge by an epair(4).

    jail's stack                 the host
    epairNb 10.61.0.7/24 ── epairNa, private ── bridge sky0 (the gateway)

Whatever we make carries the island's name from the moment it exists: the host's end of an epair and the
bridge by their interface groups. An alias can carry no name. So every /32 address of the pool on the pool's
interface is taken for a leftover when the island starts. An earlier life may have worked in the other way, so
each start looks for both.

pf does NAT by the operator's rules. The island only keeps the addresses of living jails in the table `sky`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re

from skyisland.drivers.freebsd.commands import NO_ADDRESS
from skyisland.errors import HostUnfit
from skyisland.host.programs import ProgramFailed, Programs
from skyisland.jails.driver import island_tag
from skyisland.model import Address
from skyisland.settings import IP4
from skyisland.status import Capability

log = logging.getLogger(__name__)

TABLE = "sky"
PF_RULES = "table <sky> persist; nat on $ext_if from <sky> to any -> ($ext_if:0)"
DEFAULT_ROUTE = ("route", "-n", "get", "-inet", "default")
INTERFACES = ("ifconfig", "-l")
FORWARDING = ("sysctl", "-n", "net.inet.ip.forwarding")


# Command lines


def alias_argv(interface: str, ip: str) -> tuple[str, ...]:
    return ("ifconfig", interface, "inet", f"{ip}/32", "alias")


def unalias_argv(interface: str, ip: str) -> tuple[str, ...]:
    return ("ifconfig", interface, "inet", ip, "-alias")


def addresses_argv(interface: str) -> tuple[str, ...]:
    return ("ifconfig", interface, "inet")


def ports(island: str) -> str:
    """The interface group of an island's epairs; its name must not end in a digit (ifconfig(8))."""
    return f"sky{island_tag(island)}p"


def bridges(island: str) -> str:
    """The interface group of an island's bridge."""
    return f"sky{island_tag(island)}b"


def epair_argv(island: str) -> tuple[str, ...]:
    """Make an epair in the island's group, its host's end up. Prints the name of that end, epairNa."""
    return ("ifconfig", "epair", "create", "group", ports(island), "up")


def members_argv(group: str) -> tuple[str, ...]:
    """List the interfaces of a group. Of an epair only the host's end is in it (seen on 15.0)."""
    return ("ifconfig", "-g", group)


def show_argv(interface: str) -> tuple[str, ...]:
    return ("ifconfig", interface)


def bridge_argv(bridge: str, island: str) -> tuple[str, ...]:
    """Make the bridge, marked before it is named: with the name of another it stays as bridgeN."""
    mark = ("group", bridges(island), "description", description(island))
    return ("ifconfig", "bridge", "create", *mark, "name", bridge)


def description(island: str) -> str:
    return f"skyisland {island}"


def join_argv(bridge: str, port: str) -> tuple[str, ...]:
    """Make an interface a port of the bridge. `private` ports cannot send to each other (if_bridge(4))."""
    return ("ifconfig", bridge, "addm", port, "private", port, "up")


def give_argv(interface: str, jail: str) -> tuple[str, ...]:
    """Move an interface into a jail's network stack."""
    return ("ifconfig", interface, "vnet", jail)


def withdraw_argv(interface: str, jail: str) -> tuple[str, ...]:
    """Move an interface back from a jail's network stack to the host's."""
    return ("ifconfig", interface, "-vnet", jail)


def equip_argvs(interface: str, jail: str, address: Address) -> list[tuple[str, ...]]:
    """Set up address, loopback and default route in a jail's stack, from outside (-j: FreeBSD 13.3)."""
    return [
        ("ifconfig", "-j", jail, interface, "inet", f"{address.ip}/{address.prefix}", "up"),
        ("ifconfig", "-j", jail, "lo0", "inet", "127.0.0.1/8", "up"),
        ("route", "-q", "-j", jail, "add", "default", address.gateway),
    ]


def destroy_argv(interface: str) -> tuple[str, ...]:
    return ("ifconfig", interface, "destroy")


def gateway_argv(bridge: str, gateway: str, prefix: int) -> tuple[str, ...]:
    return ("ifconfig", bridge, "inet", f"{gateway}/{prefix}", "up")


def table_argv(verb: str, ip: str) -> tuple[str, ...]:
    return ("pfctl", "-q", "-t", TABLE, "-T", verb, ip)


def forget_argv(ip: str) -> tuple[str, ...]:
    """Remove pf's states of an address, so that the next jail with it inherits none."""
    return ("pfctl", "-q", "-k", ip)


TABLE_SHOW = ("pfctl", "-q", "-t", TABLE, "-T", "show")


def parse_aliases(text: str) -> list[str]:
    """The /32 addresses in the output of `ifconfig NAME inet`."""
    return re.findall(r"^\s+inet ([\d.]+) netmask 0xffffffff\b", text, re.MULTILINE)


# The driver


class FreeBSDNetwork:
    """The `NetworkDriver` of FreeBSD. The jail driver uses it too: `parameters` and `withdraw`."""

    name = "freebsd"

    def __init__(
        self, ip4: IP4, *, island: str, vnet: bool = False, programs: Programs | None = None
    ) -> None:
        self.vnet = vnet
        self._ip4 = ip4
        self._island = island
        self._programs = programs or Programs()
        self._interface = ip4.interface
        self._ports: dict[str, str] = {}
        """Jail → the host's end of its epair."""
        self._inside: dict[str, str] = {}
        """Jail → the jail's end of its epair, while it is in the jail's stack."""
        self._aliases: dict[str, str] = {}
        """Jail → its address on the host's interface."""
        self._natted: dict[str, str] = {}
        """Jail → its address in pf's table."""
        self._open = False
        """Whether the bridge is set up."""
        self._opening = asyncio.Lock()
        """Held while the bridge is set up or destroyed: two programs that make it at once leave one more."""
        self._unfit = "not looked at yet"
        """Why jails can have no address, with the remedy; empty if they can."""

    async def prepare(self) -> int:
        """See `NetworkDriver`."""
        try:
            if self._ip4.nat:
                await self._check_nat()
            swept = await self._sweep_interfaces() + await self._sweep_aliases()
        except HostUnfit as unfit:
            self._unfit = unfit.message
            raise
        self._unfit = ""
        return swept

    async def _check_nat(self) -> None:
        """Check pf's table and the host's forwarding; empty the table of what an earlier run left."""
        try:
            natted = await self._programs.run(TABLE_SHOW)
        except ProgramFailed as failure:
            raise HostUnfit(
                f"network.ip4.nat: pf has no table <{TABLE}> ({failure.stderr}); put into /etc/pf.conf: "
                f"{PF_RULES}; then: service pf restart"
            ) from failure
        if self.vnet and (await self._programs.run(FORWARDING)).strip() != "1":
            raise HostUnfit("network.ip4.nat: forwarding is off; sysrc gateway_enable=YES, and reboot")
        pool = {str(address) for address in self._ip4.pool()}
        for ip in pool.intersection(natted.split()):
            await self._remove_from_table(ip)

    async def _sweep_aliases(self) -> int:
        try:
            output = await self._addresses()
        except HostUnfit:
            if self.vnet:
                return 0  # no VNET needs that interface
            raise
        pool = {str(address) for address in self._ip4.pool()}
        leftovers = [ip for ip in parse_aliases(output) if ip in pool]
        for ip in leftovers:
            await self._remove(unalias_argv(self._interface, ip), "Can't assign requested address")
        return len(leftovers)

    async def _addresses(self) -> str:
        """What ifconfig says of the addresses on the pool's interface."""
        if not self._interface:
            self._interface = await self._default_interface()
        try:
            return await self._programs.run(addresses_argv(self._interface))
        except ProgramFailed as failure:
            raise HostUnfit(
                f"network.ip4.interface: {failure.stderr}; name one of `ifconfig -l`, or make one: "
                "sysrc cloned_interfaces+=lo1; service netif cloneup"
            ) from failure

    async def _default_interface(self) -> str:
        route = ""
        try:
            route = await self._programs.run(DEFAULT_ROUTE)
        except ProgramFailed as failure:
            log.info("no default route: %s", failure.stderr)
        interface = re.search(r"^\s*interface: (\S+)", route, re.MULTILINE)
        if interface is None:
            raise HostUnfit(
                "network.ip4.interface: there is no default route; name an interface of `ifconfig -l`"
            )
        return interface[1]

    async def _sweep_interfaces(self) -> int:
        """Destroy every epair and bridge of an earlier life; returns how many there were."""
        swept = 0
        for group in (ports(self._island), bridges(self._island)):
            for name in (await self._programs.run(members_argv(group))).split():
                await self._remove(destroy_argv(name), "does not exist")
                swept += 1
        return swept

    async def _interfaces(self) -> list[str]:
        return (await self._programs.run(INTERFACES)).split()

    async def open(self, dns: tuple[str, ...]) -> None:
        """See `NetworkDriver`; sets up the bridge of VNETs."""
        if not self.vnet or self._open:
            return
        async with self._opening:
            if not self._open:
                await self._set_up_bridge()
                self._open = True

    async def _set_up_bridge(self) -> None:
        bridge = self._ip4.bridge
        if bridge in await self._interfaces():
            output = await self._programs.run(show_argv(bridge))
            if f"description: {description(self._island)}\n" not in output:
                raise HostUnfit(f"network.ip4.bridge: {bridge} is not this island's; choose another name")
        else:
            await self._programs.run(bridge_argv(bridge, self._island))
        # The gateway's address is the bridge's own: since FreeBSD 15 a member can have none (if_bridge(4)).
        first, *more = self._ip4.gateways
        await self._programs.run(gateway_argv(bridge, str(first.ip), first.network.prefixlen))
        for gateway in more:
            await self._programs.run(("ifconfig", bridge, "inet", str(gateway), "alias"))

    # For the jail driver

    def parameters(self, address: Address | None) -> tuple[str, ...]:
        """The network parameters of a jail, as words of its order.

        A VNET may get an address later. With an alias, the address is a parameter and never changes.
        """
        if self.vnet:
            return ("ivnet=1",)
        return (f"4ip4.addr={address.ip}", "iip6=0") if address else NO_ADDRESS

    async def withdraw(self, jail: str) -> None:
        """Move a jail's end of its epair back to the host. Do this before the jail is removed: a jail that
        is slow to die would keep the interface for minutes."""
        if (inside := self._inside.pop(jail, None)) is not None:
            await self._remove(withdraw_argv(inside, jail), "not found", "does not exist", "not configured")

    # For the address pool

    async def attach(self, address: Address, jail: str, pid: int, pidfd: int | None = None) -> None:
        """See `NetworkDriver`; `pid` is not used, because a jail has a name.

        The jail driver holds a place while it asks for an alias.
        """
        async with self._programs.places if self.vnet else contextlib.nullcontext():
            try:
                if self.vnet:
                    await self._join(address, jail)
                else:
                    await self._programs.run(alias_argv(self._interface, address.ip))
                    self._aliases[jail] = address.ip
                if self._ip4.nat:
                    self._natted[jail] = address.ip
                    await self._programs.run(table_argv("add", address.ip))
            except BaseException:
                await self._detach(jail)
                raise

    async def _join(self, address: Address, jail: str) -> None:
        port = (await self._programs.run(epair_argv(self._island))).strip()
        self._ports[jail] = port
        inside = port.removesuffix("a") + "b"
        await self._programs.run(join_argv(self._ip4.bridge, port))
        await self._programs.run(give_argv(inside, jail))
        self._inside[jail] = inside
        for argv in equip_argvs(inside, jail, address):
            await self._programs.run(argv)

    async def detach(self, jail: str) -> None:
        """See `NetworkDriver`."""
        if jail in self._natted or jail in self._aliases or jail in self._ports:
            async with self._programs.places:
                await self._detach(jail)

    async def _detach(self, jail: str) -> None:
        """Destroying one end of an epair destroys both."""
        if (ip := self._natted.pop(jail, None)) is not None:
            await self._remove_from_table(ip)
        if (ip := self._aliases.pop(jail, None)) is not None:
            await self._remove(unalias_argv(self._interface, ip), "Can't assign requested address")
        if (port := self._ports.get(jail)) is not None:
            await self.withdraw(jail)
            await self._remove(destroy_argv(port), "does not exist")
            del self._ports[jail]

    async def _remove_from_table(self, ip: str) -> None:
        if self._ip4.nat:
            await self._programs.run(table_argv("delete", ip))
            await self._programs.run(forget_argv(ip))

    async def close(self) -> None:
        """See `NetworkDriver`."""
        async with self._opening:
            if not self._open:
                return
            self._open = False
            await self._remove(destroy_argv(self._ip4.bridge), "does not exist")

    async def _remove(self, argv: tuple[str, ...], *gone: str) -> None:
        """Run a program that removes something. A failure with one of the texts in `gone` is no error: the
        thing does not exist any more."""
        try:
            await self._programs.run(argv)
        except ProgramFailed as failure:
            if not any(words in failure.stderr for words in gone):
                raise

    def capabilities(self) -> list[Capability]:
        if self._unfit:
            why, _, remedy = self._unfit.partition("; ")
            return [Capability(name="network", enforced=False, how=why, remedy=remedy)]
        way = (
            f"a network stack of its own, on bridge {self._ip4.bridge}"
            if self.vnet
            else f"an alias on {self._interface}"
        )
        own = Capability(
            name="isolation",
            enforced=self.vnet,
            how="private bridge ports" if self.vnet else "jails share the host's network stack",
            remedy="" if self.vnet else "set network.ip4.vnet = true",
        )
        return [Capability(name="network", enforced=True, how=way), own]
