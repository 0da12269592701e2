"""The packet filter on the jails' bridge: one nftables table per island, installed in one transaction.

What a jail may send:

    to the host            replies only; DNS too, if the gateway is a configured name server
    to other jails         nothing, not even routed through the host
    outside, without NAT   replies only
    outside, with NAT      IPv4 from the pools' subnets, except to `closed` networks; DNS to configured
                           name servers and anything to `open` networks even there; if `egress` names
                           networks, nothing beside these, `open` ones and the name servers

An address has `connections` connections at one time: each takes a place in a table of the host's that all
share, and when that is full the host itself can open none.

The table does not restrict connections *to* jails: they are what a jail's address is for. Traffic
directly between jails never gets here, because their bridge ports are isolated.

pyroute2 makes the messages. Its own nftables socket does not wait for the kernel's acknowledgement of a
transaction, so we send them over `rtnetlink.NetlinkSocket`. The rule expressions are those of
linux/netfilter/nf_tables.h, as `nft --debug=netlink` prints them.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from msgspec import Struct
from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWTABLE,
    Cmp,
    Meta,
    nft_chain_msg,
    nft_rule_msg,
    nft_set_msg,
    nft_table_msg,
)
from pyroute2.nftables.expressions import genex, masq, verdict

from skyisland.drivers.linux.rtnetlink import NetlinkSocket
from skyisland.host.internet import CLOSED4

Expressions = list[Any]

NFPROTO_INET, NFPROTO_IPV4 = 1, 2
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
HOOKS = {"input": 1, "forward": 2, "postrouting": 4}
FILTER_PRIORITY, SOURCE_NAT_PRIORITY = 0, 100
SOURCE, DESTINATION = 12, 16
"""Offsets of the addresses in an IPv4 header."""
ESTABLISHED_OR_RELATED = 2 | 4
"""Bits of a connection's state (NF_CT_STATE_BIT, linux/netfilter/nf_conntrack_common.h)."""
CT_STATE = 0
"""NFT_CT_STATE: the key that loads this state."""
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
"""NFT_PAYLOAD_…: where the offset of a payload expression begins."""
UDP, TCP, DNS_PORT = 17, 6, 53
DESTINATION_PORT = 2
"""Offset in the headers of TCP and UDP."""
NF_DROP = 0
DROP, ACCEPT = verdict(NF_DROP), verdict(1)
CONNECTIONS = 256
"""A judgement: a pool of 253 addresses takes a quarter of the 262,144 places that a host of 8 GB has."""
COUNTED = "connections"
"""The set of addresses that have connections."""
IPV4_ADDRESS = 7
"""TYPE_IPADDR, a type of nft(8) that the kernel keeps and does not use."""
OVER = frozenset({"NFT_LIMIT_F_INV"})
"""NFT_CONNLIMIT_F_INV, as pyroute2 calls it: go on if there are more."""


class BridgeFilter(Struct, frozen=True, kw_only=True):
    """The content of the table."""

    table: str
    """The table's name."""
    bridge: str
    gateways: tuple[IPv4Interface, ...]
    """Of the subnets of the pools, with their prefixes."""
    dns: tuple[IPv4Address, ...] = ()
    nat: bool = False
    uplink: str = ""
    """The only interface that jails may leave through; any interface if empty."""
    closed: tuple[IPv4Network, ...] = CLOSED4
    open: tuple[IPv4Network, ...] = ()
    """Networks that the operator allows even if they are closed."""
    egress: tuple[IPv4Network, ...] = ()
    """If not empty: the only networks outside that jails may reach, beside `open` and the name servers."""
    connections: int | None = CONNECTIONS
    """How many connections an address may have opened; None where the kernel cannot count them."""


def exists(netlink: NetlinkSocket, table: str) -> bool:
    try:
        netlink.transact([_message(nft_table_msg, NFT_MSG_GETTABLE, 0, {"NFTA_TABLE_NAME": table})])
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def install(netlink: NetlinkSocket, filter_: BridgeFilter) -> None:
    """Install the table in place of one of the same name: all of it or, with an OSError, nothing."""
    name = filter_.table
    messages = [
        _table(NFT_MSG_NEWTABLE, name),  # else the kernel refuses to delete a table that does not exist
        _table(NFT_MSG_DELTABLE, name),
        _table(NFT_MSG_NEWTABLE, name),
    ]
    if filter_.connections is not None:
        messages.append(_set(name))
    messages += [_chain(name, hook) for hook in HOOKS]
    messages += [_rule(name, hook, expressions) for hook, expressions in rules(filter_)]
    _commit(netlink, messages)


def remove(netlink: NetlinkSocket, table: str) -> bool:
    """Delete the table; False if there is none."""
    try:
        _commit(netlink, [_table(NFT_MSG_DELTABLE, table)])
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def tables(netlink: NetlinkSocket) -> list[str]:
    """The names of all tables of the kind that ours is."""
    return [
        str(table.get_attr("NFTA_TABLE_NAME"))
        for table in _dump(netlink, nft_table_msg, NFT_MSG_GETTABLE)
        if table["nfgen_family"] == NFPROTO_INET
    ]


def who_drops(netlink: NetlinkSocket, bridge: str) -> str | None:
    """Another's chain that drops whatever is forwarded and has no rule of it, as Docker's and ufw's do: an
    accept of ours decides for our table alone. None if there is none, or its table has rules that name the
    bridge."""
    for chain in _dump(netlink, nft_chain_msg, NFT_MSG_GETCHAIN):
        hook = chain.get_attr("NFTA_CHAIN_HOOK")
        family = chain["nfgen_family"]
        if hook is None or family not in (NFPROTO_INET, NFPROTO_IPV4):
            continue
        forwards = hook.get_attr("NFTA_HOOK_HOOKNUM") == HOOKS["forward"]
        if not forwards or chain.get_attr("NFTA_CHAIN_POLICY") != NF_DROP:
            continue
        table, name = chain.get_attr("NFTA_CHAIN_TABLE"), chain.get_attr("NFTA_CHAIN_NAME")
        asked = _message(nft_rule_msg, NFT_MSG_GETRULE, NLM_F_DUMP, {"NFTA_RULE_TABLE": table})
        asked["nfgen_family"] = family
        if not any(bridge.encode() + b"\0" in rule for rule in netlink.transact([asked])):
            return f"the chain {name} of the nftables table {table}"
    return None


def _dump(netlink: NetlinkSocket, kind: Any, number: int) -> Iterator[Any]:
    """Everything of a kind, of all families."""
    asked = _message(kind, number, NLM_F_DUMP, {})
    asked["nfgen_family"] = 0
    for reply in netlink.transact([asked]):
        found = kind(reply)
        found.decode()
        yield found


def rules(filter_: BridgeFilter) -> Iterator[tuple[str, Expressions]]:
    """Chain and rule, in order: the first rule that matches a packet decides."""
    from_jail = _interface(Meta.NFT_META_IIFNAME, filter_.bridge)

    yield "input", from_jail + _replies() + ACCEPT
    too_many = _too_many(filter_.connections) if filter_.connections is not None else None
    servers = [gateway.ip for gateway in filter_.gateways if gateway.ip in filter_.dns]
    if servers and too_many is not None:
        yield "input", from_jail + too_many + DROP
    for server in servers:
        for protocol in (UDP, TCP):
            yield "input", from_jail + _dns(protocol, server) + ACCEPT
    yield "input", from_jail + DROP

    yield "forward", from_jail + _replies() + ACCEPT
    if not filter_.nat:
        yield "forward", from_jail + DROP
        return
    # To another jail, routed through the host.
    yield "forward", from_jail + _interface(Meta.NFT_META_OIFNAME, filter_.bridge) + DROP
    if filter_.uplink:
        other = _interface(Meta.NFT_META_OIFNAME, filter_.uplink, Cmp.NFT_CMP_NEQ)
        yield "forward", from_jail + other + DROP
    # IPv6, and source addresses that no jail has.
    yield "forward", from_jail + _meta(Meta.NFT_META_NFPROTO, NFPROTO_IPV4, Cmp.NFT_CMP_NEQ) + DROP
    subnets = [gateway.network for gateway in filter_.gateways]
    elsewhere = [part for subnet in subnets for part in _network(SOURCE, subnet, Cmp.NFT_CMP_NEQ)]
    yield "forward", from_jail + elsewhere + DROP
    if too_many is not None:
        yield "forward", from_jail + too_many + DROP
    for server in filter_.dns:
        for protocol in (UDP, TCP):
            yield "forward", from_jail + _dns(protocol, server) + ACCEPT
    for network in (*filter_.open, *filter_.egress):
        yield "forward", from_jail + _network(DESTINATION, network) + ACCEPT
    if filter_.egress:
        yield "forward", from_jail + DROP
    for network in filter_.closed:
        yield "forward", from_jail + _network(DESTINATION, network) + DROP

    # NAT for what passed.
    outside = _interface(Meta.NFT_META_OIFNAME, filter_.bridge, Cmp.NFT_CMP_NEQ)
    for subnet in subnets:
        yield "postrouting", _network(SOURCE, subnet) + outside + masq()


# Each of these is the part of a rule that matches certain packets; with NFT_CMP_NEQ, all others.


def _interface(key: Meta, name: str, op: Cmp = Cmp.NFT_CMP_EQ) -> Expressions:
    """Packets from an interface (NFT_META_IIFNAME) or to one (NFT_META_OIFNAME)."""
    return _load("meta", key=key) + _compare(name.encode().ljust(16, b"\0"), op)


def _meta(key: Meta, value: int, op: Cmp = Cmp.NFT_CMP_EQ) -> Expressions:
    return _load("meta", key=key) + _compare(bytes([value]), op)


def _network(offset: int, network: IPv4Network, op: Cmp = Cmp.NFT_CMP_EQ) -> Expressions:
    """IPv4 packets whose address at `offset`, `SOURCE` or `DESTINATION`, is in a network."""
    masked = genex(
        "bitwise",
        {"sreg": 1, "dreg": 1, "len": 4, "mask": _data(network.netmask.packed), "xor": _data(bytes(4))},
    )
    return [
        *_meta(Meta.NFT_META_NFPROTO, NFPROTO_IPV4),
        *_load("payload", base=NETWORK_HEADER, offset=offset, len=4),
        masked,
        *_compare(network.network_address.packed, op),
    ]


def _dns(protocol: int, server: IPv4Address) -> Expressions:
    """DNS packets to a name server."""
    return [
        *_network(DESTINATION, IPv4Network(server)),
        *_meta(Meta.NFT_META_L4PROTO, protocol),
        *_load("payload", base=TRANSPORT_HEADER, offset=DESTINATION_PORT, len=2),
        *_compare(DNS_PORT.to_bytes(2, "big")),
    ]


def _replies() -> Expressions:
    """Packets of a connection that the other side opened. The state is in the host's byte order."""
    states = _data(ESTABLISHED_OR_RELATED.to_bytes(4, sys.byteorder))
    masked = genex("bitwise", {"sreg": 1, "dreg": 1, "len": 4, "mask": states, "xor": _data(bytes(4))})
    return [*_load("ct", key=CT_STATE), masked, *_compare(bytes(4), Cmp.NFT_CMP_NEQ)]


def _too_many(connections: int) -> Expressions:
    """First packets of a connection beyond so many of its source address. One that is dropped takes no place:
    the kernel enters a connection when its first packet has passed."""
    count = genex("connlimit", {"count": connections, "flags": OVER})
    return [
        *_meta(Meta.NFT_META_NFPROTO, NFPROTO_IPV4),
        *_load("payload", base=NETWORK_HEADER, offset=SOURCE, len=4),
        genex("dynset", {"set_name": COUNTED, "op": 0, "sreg_key": 1, "expr": count}),
    ]


def _load(expression: str, **attributes: int) -> Expressions:
    """Load a property of the packet into register 1."""
    return [genex(expression, {"dreg": 1, **attributes})]


def _compare(value: bytes, op: Cmp = Cmp.NFT_CMP_EQ) -> Expressions:
    """Go on to the rule's next expression only if register 1 equals the value (or differs, with NEQ)."""
    return [genex("cmp", {"sreg": 1, "op": op, "data": _data(value)})]


def _data(value: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _table(kind: int, name: str) -> Any:
    return _message(nft_table_msg, kind, NLM_F_CREATE, {"NFTA_TABLE_NAME": name})


def _set(table: str) -> Any:
    attributes = {
        "NFTA_SET_TABLE": table,
        "NFTA_SET_NAME": COUNTED,
        "NFTA_SET_FLAGS": {"NFT_SET_EVAL"},
        "NFTA_SET_KEY_TYPE": IPV4_ADDRESS,
        "NFTA_SET_KEY_LEN": 4,
        "NFTA_SET_ID": 1,
    }
    return _message(nft_set_msg, NFT_MSG_NEWSET, NLM_F_CREATE, attributes)


def _chain(table: str, hook: str) -> Any:
    nat = hook == "postrouting"
    priority = SOURCE_NAT_PRIORITY if nat else FILTER_PRIORITY
    registration = {"attrs": [("NFTA_HOOK_HOOKNUM", HOOKS[hook]), ("NFTA_HOOK_PRIORITY", priority)]}
    attributes = {
        "NFTA_CHAIN_TABLE": table,
        "NFTA_CHAIN_NAME": hook,
        "NFTA_CHAIN_HOOK": registration,
        "NFTA_CHAIN_TYPE": "nat" if nat else "filter",
    }
    return _message(nft_chain_msg, NFT_MSG_NEWCHAIN, NLM_F_CREATE, attributes)


def _rule(table: str, chain: str, expressions: Expressions) -> Any:
    attributes = {"NFTA_RULE_TABLE": table, "NFTA_RULE_CHAIN": chain, "NFTA_RULE_EXPRESSIONS": expressions}
    return _message(nft_rule_msg, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attributes)


def _message(kind: Any, number: int, flags: int, attributes: dict[str, Any]) -> Any:
    message = kind()
    message["nfgen_family"] = NFPROTO_INET
    message["attrs"] = list(attributes.items())
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | number
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    return message


def _commit(netlink: NetlinkSocket, messages: list[Any]) -> None:
    """Send the messages as one batch: the kernel applies all of it or nothing."""
    netlink.transact([_batch_mark(NFNL_MSG_BATCH_BEGIN), *messages, _batch_mark(NFNL_MSG_BATCH_END)])


def _batch_mark(kind: int) -> Any:
    """The begin or end of a batch. It asks for no acknowledgement: an error about it is the batch's."""
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST
    return message
