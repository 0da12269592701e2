"""Netlink for jails: a socket that waits for the kernel's acknowledgements, and the network interfaces,
addresses and routes of one network namespace.

pyroute2 encodes and decodes the messages. We do not use its sockets: each brings an event loop of its
own, takes a millisecond to open and most of one per request, and forks to enter a namespace. Ours stays
in the network namespace of the thread that opened it, and sends several requests in one system call.

Every call blocks, for microseconds as a rule, and raises OSError with the kernel's own text.
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
RECEIVE_BYTES = 1 << 17
"""The receive buffer: the kernel fills a datagram of a dump up to 32 KiB at most (netlink_recvmsg)."""
RTMGRP_LINK, NUD_REACHABLE = 1, 2
ANSWER_TIMEOUT_S = 10.0
"""The kernel answers at once, unless another process holds its configuration lock (RTNL). How long to
wait for that is a judgement."""
OUTSIDE_ADDRESS = "198.51.100.1"
"""An address for documentation (RFC 5737). We ask for the route to it and never send to it."""
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1

CREATE = NLM_F_CREATE | NLM_F_EXCL


class NetlinkSocket:
    """A netlink socket of one protocol, in the network namespace of the thread that opens it."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        # An error repeats only the header of its request (CAP_ACK), and may have a text (EXT_ACK).
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._sequence_numbers = itertools.count(1)

    def close(self) -> None:
        self._socket.close()

    def transact(self, messages: Sequence[Any]) -> list[bytes]:
        """Send all messages in one datagram and wait for every acknowledgement that they ask for.

        Returns the replies that are not acknowledgements.

        Raises:
            OSError: the first error, after every acknowledgement has arrived.
        """
        data, unacknowledged, sent = bytearray(), set(), set()
        for message in messages:
            number = next(self._sequence_numbers)
            message["header"]["sequence_number"] = number
            message.encode()
            data += message.data
            sent.add(number)
            if message["header"]["flags"] & NLM_F_ACK:
                unacknowledged.add(number)
        self._socket.send(data)
        first_error: OSError | None = None
        replies = []
        while unacknowledged:
            for kind, number, reply in _split(self._socket.recv(RECEIVE_BYTES)):
                if number not in sent:
                    continue  # a late reply to a transaction that timed out
                if kind == NLMSG_ERROR:
                    error = _error(reply)
                    first_error = first_error or error
                    if error is not None and number not in unacknowledged:
                        unacknowledged.clear()  # the error is about the batch: the kernel ran none of it
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    unacknowledged.discard(number)
                else:
                    replies.append(reply)
        if first_error is not None:
            raise first_error
        return replies


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and bytes, header included, of each message in a datagram."""
    offset = 0
    while offset < len(data):
        length, kind, _, number, _ = HEADER.unpack_from(data, offset)
        yield kind, number, data[offset : offset + length]
        offset += (length + 3) & ~3  # NLMSG_ALIGN


def _error(reply: bytes) -> OSError | None:
    """The error in a struct nlmsgerr, with the kernel's text if it sent one; None for an acknowledgement."""
    (code,) = struct.unpack_from("=i", reply, HEADER.size)
    if code == 0:
        return None
    text = os.strerror(-code)
    offset = 2 * HEADER.size + 4  # behind our header, the code and the header of the request
    while offset < len(reply):
        length, kind = ATTRIBUTE.unpack_from(reply, offset)
        if kind == NLMSGERR_ATTR_MSG:
            text += ": " + reply[offset + ATTRIBUTE.size : offset + length].rstrip(b"\0").decode()
        offset += (length + 3) & ~3  # NLMSG_ALIGN
    return OSError(-code, text)


class Interface(Struct, frozen=True):
    index: int
    name: str
    mac: str


class Interfaces:
    """The interfaces, addresses and routes of one network namespace: that of the thread that makes this.

    `index`, `add_bridge`, `add_port` and `equip` also call if_nametoindex(3), which asks the namespace of
    the *calling* thread: call them in the same namespace.
    """

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(NETLINK_ROUTE)

    def close(self) -> None:
        self._netlink.close()

    def index(self, name: str) -> int | None:
        """The index of an interface, by an ioctl: quicker than `find`."""
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def find(self, name: str) -> Interface | None:
        try:
            (reply,) = self._netlink.transact([_link_message(RTM_GETLINK, 0, IFLA_IFNAME=name)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return _interface(reply)

    def all(self) -> list[Interface]:
        replies = self._netlink.transact([_link_message(RTM_GETLINK, NLM_F_DUMP)])
        return [_interface(reply) for reply in replies]

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """Every IPv4 address with its network, and the index of its interface."""
        replies = self._netlink.transact(
            [_message(ifaddrmsg, RTM_GETADDR, NLM_F_DUMP, family=socket.AF_INET)]
        )
        messages = [_decode(ifaddrmsg, reply) for reply in replies]
        return [
            (message["index"], IPv4Interface((message.get_attr("IFA_LOCAL"), message["prefixlen"])))
            for message in messages
            if message.get_attr("IFA_LOCAL")
        ]

    def uplink(self) -> Interface | None:
        """The interface of the route to the outside; None without such a route."""
        query = _message(rtmsg, RTM_GETROUTE, 0, family=socket.AF_INET, dst_len=32, RTA_DST=OUTSIDE_ADDRESS)
        try:
            (reply,) = self._netlink.transact([query])
        except OSError:
            return None
        index = _decode(rtmsg, reply).get_attr("RTA_OIF")
        return next((interface for interface in self.all() if interface.index == index), None)

    def add_bridge(self, name: str, mac: str, *addresses: IPv4Interface) -> int:
        """Make a bridge with these addresses and set it up; return its index. A failure leaves no bridge."""
        kind = {"attrs": [("IFLA_INFO_KIND", "bridge")]}
        self._netlink.transact(
            [_link_message(RTM_NEWLINK, CREATE, IFLA_IFNAME=name, IFLA_ADDRESS=mac, IFLA_LINKINFO=kind)]
        )
        try:
            index = socket.if_nametoindex(name)
            messages = [_address_message(index, address) for address in addresses]
            self._netlink.transact([*messages, link_up(index=index)])
        except BaseException:
            self.delete(name)
            raise
        return index

    def running(self, index: int) -> bool:
        """Whether the interface passes packets (IFF_RUNNING); being up is not enough."""
        (reply,) = self._netlink.transact([_message(ifinfmsg, RTM_GETLINK, 0, index=index)])
        _, _, _, flags, _ = IFINFOMSG.unpack_from(reply, HEADER.size)
        return bool(flags & IFF_RUNNING)

    def add_port(self, name: str, bridge: int, namespace: int, mac: str, alias: str) -> int:
        """Make a veth pair: `name`, an isolated port of the bridge, and `eth0` in another namespace.

        `bridge` is an interface index, `namespace` an open file descriptor. The bridge passes no packets
        between two isolated ports, only between such a port and its own host. Returns the port's index.
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
        create = _link_message(RTM_NEWLINK, CREATE, IFLA_IFNAME=name, IFLA_MASTER=bridge, IFLA_LINKINFO=pair)
        self._netlink.transact([create])
        try:
            # One message isolates the port and sets it up: the kernel handles IFLA_LINKINFO before the
            # flags, so the port is never up without being isolated.
            self._netlink.transact([link_up(IFLA_IFNAME=name, IFLA_IFALIAS=alias, IFLA_LINKINFO=isolated)])
            return socket.if_nametoindex(name)
        except BaseException:
            self.delete(name)
            raise

    def set_neighbour(self, index: int, ip: str, mac: str) -> None:
        """Enter an address into the ARP table as reachable, in place of any older entry for it."""
        entry = _message(
            ndmsg,
            RTM_NEWNEIGH,
            NLM_F_CREATE | NLM_F_REPLACE,
            family=socket.AF_INET,
            ifindex=index,
            state=NUD_REACHABLE,
            NDA_DST=ip,
            NDA_LLADDR=mac,
        )
        self._netlink.transact([entry])

    def equip(self, name: str, address: IPv4Interface, gateway: str) -> None:
        """Set up an interface with an address and the default route, and set up the loopback interface."""
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
        self._netlink.transact(
            [link_up(IFLA_IFNAME="lo"), _address_message(index, address), link_up(index=index), route]
        )

    def delete(self, name: str) -> bool:
        """Delete an interface, with its peer if it is one of a veth pair; False if there is none."""
        try:
            self._netlink.transact([_link_message(RTM_DELLINK, 0, IFLA_IFNAME=name)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True


class LinkMonitor:
    """Receives the kernel's notices of changed interfaces in this thread's network namespace.

    It loses no change that happens after it is made: make it before the change that is awaited.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))
        self._socket.setblocking(False)
        self._ready = select.poll()
        self._ready.register(self._socket, select.POLLIN)

    def close(self) -> None:
        self._socket.close()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition is true; test it again after each change of an interface.

        Raises:
            TimeoutError
        """
        while not condition():
            if not self._ready.poll(ANSWER_TIMEOUT_S * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "the kernel does not bring the link up")
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._receive()

    def _receive(self) -> None:
        """Take one notice off the socket. Its content does not matter: `condition` asks the kernel."""
        try:
            self._socket.recv(1)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # notices were lost, so something has changed
                raise


def _interface(reply: bytes) -> Interface:
    message = _decode(ifinfmsg, reply)
    return Interface(
        message["index"], message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_ADDRESS") or ""
    )


def _decode(kind: Any, reply: bytes) -> Any:
    message = kind(reply)
    message.decode()
    return message


def _link_message(number: int, extra: int, /, **values: Any) -> Any:
    return _message(ifinfmsg, number, extra, **values)


def link_up(**values: Any) -> Any:
    """A request that turns an interface on, and changes what `values` name of it."""
    return _message(ifinfmsg, RTM_NEWLINK, 0, flags=IFF_UP, change=IFF_UP, **values)


def _address_message(index: int, address: IPv4Interface) -> Any:
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
    """A request of type `number` that asks for an acknowledgement, with `extra` flags.

    In `values`, lower-case names are fields of the message's struct, upper-case names are attributes.
    """
    message = kind()
    for name, value in values.items():
        if name.isupper():
            message["attrs"].append((name, value))
        else:
            message[name] = value
    message["header"]["type"] = number
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | extra
    return message
