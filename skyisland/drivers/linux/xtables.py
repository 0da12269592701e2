"""The tables of iptables-legacy, read: whether they drop what jails send and get.

iptables of today writes into nf_tables, which `nftables` reads. The program from before has tables of its own
in the kernel, and a packet passes only where both let it. They are read as that program does
(linux/netfilter_ipv4/ip_tables.h), from the network namespace of this thread.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path
from typing import Any

FILTER = b"filter"
FORWARD = 2  # NF_INET_FORWARD
GET_INFO, GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES
NAMES = Path("/proc/thread-self/net/ip_tables_names")
INFO = struct.Struct("=32sI5I5III")
"""struct ipt_getinfo: name; hooks; where the rules of each begin, and where its policy stands; how many rules
there are, and their size."""
HEAD = struct.Struct("=32sII")
"""struct ipt_get_entries: name and size of what follows."""
TARGET_OFFSET = 88
"""In struct ipt_entry: where its target begins, after struct ipt_ip (84 bytes) and nfcache."""
VERDICT_OFFSET = 32
"""In a standard target: its verdict, after size, name and revision."""
DROP = -1  # -NF_DROP - 1


def who_drops(bridge: str) -> str | None:
    """The chain that drops whatever is forwarded and has no rule of it; None if there is none, or its table
    has rules that name the bridge. Blocks for a moment.

    Raises:
        OSError: the tables cannot be read.
    """
    if FILTER.decode() not in NAMES.read_text().split():  # to ask for a table makes it
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        info, entries = table(sock)
    policy = info[7 + FORWARD]
    if bridge.encode() + b"\0" in entries:
        return None
    (target,) = struct.unpack_from("=H", entries, policy + TARGET_OFFSET)
    (verdict,) = struct.unpack_from("=i", entries, policy + target + VERDICT_OFFSET)
    return "the chain FORWARD of iptables-legacy" if verdict == DROP else None


def table(sock: socket.socket) -> tuple[tuple[Any, ...], bytes]:
    """The table `filter` as the kernel has it: what `INFO` reads, and its rules.

    Raises:
        OSError: they cannot be read, or were changed meanwhile.
    """
    info = INFO.unpack(_asked(sock, GET_INFO, INFO.pack(FILTER, *[0] * 13)))
    size = info[13]
    return info, _asked(sock, GET_ENTRIES, HEAD.pack(FILTER, size, 0) + bytes(size))[HEAD.size :]


def _asked(sock: socket.socket, option: int, question: bytes) -> bytes:
    """getsockopt(2) of a buffer that says what is asked; Python's takes none."""
    buffer = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw
