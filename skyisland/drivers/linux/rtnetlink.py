"""Netlink as jails need it: a socket that tells the kernel's verdict, and the links of one namespace.

Messages are encoded and decoded by pyroute2. Its sockets are not used: they bring an event loop each,
cost a millisecond to open and most of one per request, and fork to enter a namespace. Here a socket
belongs to the namespace of the thread that opened it, for good, and several requests are one system call.

Everything blocks, for microseconds mostly, and raises OSError with the kernel's own words.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from msgspec import Struct
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.rtnl import (
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import IFF_RUNNING, IFF_UP, ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
ATTRIBUTE = struct.Struct("=HH")
IFINFOMSG = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
RTMGRP_LINK, NUD_REACHABLE = 1, 2
PATIENCE_S = 10.0
"""The kernel answers at once; only another holder of its configuration lock makes it wait."""
SOMEWHERE_OUTSIDE = "198.51.100.1"
"""An address for documentation (RFC 5737): asked for its route, never sent to."""
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1

CREATE = NLM_F_CREATE | NLM_F_EXCL


class Netlink:
    """A socket for one of the kernel's protocols, in the namespace of the thread that makes it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(PATIENCE_S)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self._socket.close()

    def transact(self, messages: Sequence[Any]) -> list[bytes]:
        """Send all messages at once, wait until those that ask for it are acknowledged; returns the
        other replies.

        Raises:
            OSError: the first refusal, after all were heard.
        """
        data, awaited, mine = bytearray(), set(), set()
        for message in messages:
            number = next(self._numbers)
            message["header"]["sequence_number"] = number
            message.encode()
            data += message.data
            mine.add(number)
            if message["header"]["flags"] & NLM_F_ACK:
                awaited.add(number)
        self._socket.send(data)
        refusal: OSError | None = None
        replies = []
        while awaited:
            for kind, number, reply in _split(self._socket.recv(1 << 17)):
                if number not in mine:
                    continue  # the late answer to a question that was given up
                if kind == NLMSG_ERROR:
                    failure = _refusal(reply)
                    refusal = refusal or failure
                    if failure is not None and number not in awaited:
                        awaited.clear()  # a batch was refused as a whole
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    awaited.discard(number)
                else:
                    replies.append(reply)
        if refusal is not None:
            raise refusal
        return replies


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and whole text of each message in a datagram."""
    offset = 0
    while offset < len(data):
        length, kind, _, number, _ = HEADER.unpack_from(data, offset)
        yield kind, number, data[offset : offset + length]
        offset += (length + 3) & ~3


def _refusal(reply: bytes) -> OSError | None:
    """What struct nlmsgerr says: an error number, the header that it is about, perhaps a text."""
    (code,) = struct.unpack_from("=i", reply, HEADER.size)
    if code == 0:
        return None
    text = os.strerror(-code)
    offset = 2 * HEADER.size + 4
    while offset < len(reply):
        length, kind = ATTRIBUTE.unpack_from(reply, offset)
        if kind == NLMSGERR_ATTR_MSG:
            text += ": " + reply[offset + ATTRIBUTE.size : offset + length].rstrip(b"\0").decode()
        offset += (length + 3) & ~3
    return OSError(-code, text)


class Link(Struct, frozen=True):
    index: int
    name: str
    mac: str


class Links:
    """The links, addresses and routes of one namespace: that of the thread that makes this."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_ROUTE)

    def close(self) -> None:
        self._netlink.close()

    def index(self, name: str) -> int | None:
        """Quicker than `find`; to be called in the namespace."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def find(self, name: str) -> Link | None:
        try:
            (reply,) = self._netlink.transact([_link(RTM_GETLINK, 0, IFLA_IFNAME=name)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return _read_link(reply)

    def all(self) -> list[Link]:
        return [_read_link(reply) for reply in self._netlink.transact([_link(RTM_GETLINK, NLM_F_DUMP)])]

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """Every IPv4 address with its network, and the index of its link."""
        replies = self._netlink.transact(
            [_message(ifaddrmsg, RTM_GETADDR, NLM_F_DUMP, family=socket.AF_INET)]
        )
        found = [_decode(ifaddrmsg, reply) for reply in replies]
        return [
            (message["index"], IPv4Interface((message.get_attr("IFA_LOCAL"), message["prefixlen"])))
            for message in found
            if message.get_attr("IFA_LOCAL")
        ]

    def uplink(self) -> Link | None:
        """The link through which the outside is reached, if there is a route at all."""
        ask = _message(rtmsg, RTM_GETROUTE, 0, family=socket.AF_INET, dst_len=32, RTA_DST=SOMEWHERE_OUTSIDE)
        try:
            (reply,) = self._netlink.transact([ask])
        except OSError:
            return None
        index = _decode(rtmsg, reply).get_attr("RTA_OIF")
        return next((link for link in self.all() if link.index == index), None)

    def add_bridge(self, name: str, mac: str, address: IPv4Interface) -> int:
        """A bridge of this name, up, with this address; returns its index. Nothing is left if that fails.

        To be called in the namespace.
        """
        kind = {"attrs": [("IFLA_INFO_KIND", "bridge")]}
        self._netlink.transact(
            [_link(RTM_NEWLINK, CREATE, IFLA_IFNAME=name, IFLA_ADDRESS=mac, IFLA_LINKINFO=kind)]
        )
        try:
            index = socket.if_nametoindex(name)
            self._netlink.transact([_address(index, address), _up(index=index)])
        except BaseException:
            self.delete(name)
            raise
        return index

    def running(self, index: int) -> bool:
        """Whether packets pass through the link."""
        (reply,) = self._netlink.transact([_message(ifinfmsg, RTM_GETLINK, 0, index=index)])
        _, _, _, flags, _ = IFINFOMSG.unpack_from(reply, HEADER.size)
        return bool(flags & IFF_RUNNING)

    def add_port(self, name: str, bridge: int, namespace: int, mac: str, alias: str) -> int:
        """A pair of links: `name`, an isolated port of the bridge, and `eth0` in another namespace.

        An isolated port exchanges packets with the bridge's own host alone, not with other such ports.
        `bridge` is its index, `namespace` an open file. Returns the port's index. To be called in the
        bridge's namespace.
        """
        peer = [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", mac), ("IFLA_NET_NS_FD", namespace)]
        pair = {
            "attrs": [
                ("IFLA_INFO_KIND", "veth"),
                ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}),
            ]
        }
        isolated = {
            "attrs": [
                ("IFLA_INFO_SLAVE_KIND", "bridge"),
                ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_ISOLATED", 1)]}),
            ]
        }
        created = _link(RTM_NEWLINK, CREATE, IFLA_IFNAME=name, IFLA_MASTER=bridge, IFLA_LINKINFO=pair)
        self._netlink.transact([created])
        try:
            # The kernel sets what concerns the port before it brings the link up.
            self._netlink.transact([_up(IFLA_IFNAME=name, IFLA_IFALIAS=alias, IFLA_LINKINFO=isolated)])
            return socket.if_nametoindex(name)
        except BaseException:
            self.delete(name)
            raise

    def meet(self, index: int, ip: str, mac: str) -> None:
        """Let the host know a neighbour as if it had just answered, whatever it believed of that address."""
        known = _message(
            ndmsg,
            RTM_NEWNEIGH,
            NLM_F_CREATE | NLM_F_REPLACE,
            family=socket.AF_INET,
            ifindex=index,
            state=NUD_REACHABLE,
            NDA_DST=ip,
            NDA_LLADDR=mac,
        )
        self._netlink.transact([known])

    def equip(self, name: str, address: IPv4Interface, gateway: str) -> None:
        """Give this namespace's link its address and the default route, and bring the loopback up.

        To be called in the namespace.
        """
        index = socket.if_nametoindex(name)
        route = _message(
            rtmsg,
            RTM_NEWROUTE,
            CREATE,
            family=socket.AF_INET,
            table=RT_TABLE_MAIN,
            proto=RTPROT_STATIC,
            scope=RT_SCOPE_UNIVERSE,
            type=RTN_UNICAST,
            RTA_GATEWAY=gateway,
            RTA_OIF=index,
        )
        self._netlink.transact([_up(IFLA_IFNAME="lo"), _address(index, address), _up(index=index), route])

    def delete(self, name: str) -> bool:
        """Take a link away, a pair's other end with it; whether it was there."""
        try:
            self._netlink.transact([_link(RTM_DELLINK, 0, IFLA_IFNAME=name)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True


class LinkNews:
    """Hears of changes to links of this thread's namespace, from when it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))
        self._socket.setblocking(False)
        self._ready = select.poll()
        self._ready.register(self._socket, select.POLLIN)

    def close(self) -> None:
        self._socket.close()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds, which is looked at again whenever a link changed.

        Raises:
            TimeoutError
        """
        while not holds():
            if not self._ready.poll(PATIENCE_S * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "the kernel does not bring the link up")
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._hear()

    def _hear(self) -> None:
        try:
            self._socket.recv(1)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # so many news that some were lost is news too
                raise


def _read_link(reply: bytes) -> Link:
    message = _decode(ifinfmsg, reply)
    return Link(message["index"], message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_ADDRESS") or "")


def _decode(kind: Any, reply: bytes) -> Any:
    message = kind(reply)
    message.decode()
    return message


def _link(number: int, extra: int, /, **values: Any) -> Any:
    return _message(ifinfmsg, number, extra, **values)


def _up(**values: Any) -> Any:
    return _message(ifinfmsg, RTM_NEWLINK, 0, flags=IFF_UP, change=IFF_UP, **values)


def _address(index: int, address: IPv4Interface) -> Any:
    ip, subnet = str(address.ip), address.network
    values: dict[str, Any] = {"IFA_LOCAL": ip, "IFA_ADDRESS": ip}
    if subnet.prefixlen < 31:
        values["IFA_BROADCAST"] = str(IPv4Address(subnet.broadcast_address))
    return _message(
        ifaddrmsg,
        RTM_NEWADDR,
        CREATE,
        family=socket.AF_INET,
        prefixlen=subnet.prefixlen,
        index=index,
        **values,
    )


def _message(kind: Any, number: int, extra: int, /, **values: Any) -> Any:
    """A request that wants an acknowledgement: fields in lower case, attributes in upper case."""
    message = kind()
    for name, value in values.items():
        if name.isupper():
            message["attrs"].append((name, value))
        else:
            message[name] = value
    message["header"]["type"] = number
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | extra
    return message
