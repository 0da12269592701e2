"""The types of values in settings: what each permits, and how it is read and written.

Each is a type annotated with a `msgspec.Meta`. Its description says what is permitted, in words for
error messages. msgspec checks its constraints. If the file spells a value differently from memory
(durations, sizes, paths), `extra` has the functions `read` and `write`. Readers raise ValueError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from skyisland.settings.files import CREDENTIALS


class Refused(ValueError):
    """A value contradicts others of its section. `key` is relative to that section."""

    def __init__(self, key: str, found: object, allowed: str) -> None:
        super().__init__(f"{key}: found {found!r}; allowed: {allowed}")
        self.key = key
        self.found = found
        self.allowed = allowed


_NANOSECONDS = {
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ns": 1,
}
DURATION_CHARACTERS = 64
"""Longest text of a duration. A judgement: it bounds the integers that a fraction needs."""
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|ns|[\u00b5\u03bc]s|m|s)")


def read_duration(value: object) -> float:
    """The seconds of a duration in Go's notation (time.ParseDuration), exact to the nanosecond.

    Raises:
        ValueError: not such a duration, not above zero, or longer than Go's 292 years.
    """
    if not isinstance(value, str) or len(value) > DURATION_CHARACTERS:
        raise ValueError
    nanoseconds, end = Fraction(0), 0
    for part in _DURATION_PART.finditer(value):
        if part.start() != end:
            raise ValueError
        nanoseconds += Fraction(part[1]) * _NANOSECONDS[part[2]]
        end = part.end()
    whole = round(nanoseconds)
    if end != len(value) or not 0 < whole < 2**63:
        raise ValueError
    return whole / 10**9


def _read_duration_limit(value: object) -> float:
    return 0.0 if value == "0s" else read_duration(value)


def write_duration(seconds: float) -> str:
    """The shortest notation without fractions that `read_duration` reads as `seconds`."""
    rest, text = round(Fraction(seconds) * 10**9), ""
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, _NANOSECONDS[unit])
        if count:
            text += f"{count}{unit}"
    return text or "0s"


_SIZE = re.compile(r"([0-9]{1,19})([kmgt]?)", re.IGNORECASE)
_POWERS = {"t": 40, "g": 30, "m": 20, "k": 10, "": 0}


def read_size(value: object) -> int:
    """The bytes of `"64k"`, `"256m"`, `"2g"`, `"1t"` (powers of 1024) or of a plain number.

    Raises:
        ValueError: not such a size, or not below 2**63.
    """
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        size = int(match[1]) << _POWERS[match[2].lower()]
    elif type(value) is int:
        size = value
    else:
        raise ValueError
    if not 0 <= size < 2**63:
        raise ValueError
    return size


def write_size(size: int) -> str | int:
    """The notation with the largest unit that needs no fraction."""
    for unit, power in _POWERS.items():
        if power and size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return size


def _read_positive_size(value: object) -> int:
    size = read_size(value)
    if not size:
        raise ValueError
    return size


def _read_path(value: object) -> Path:
    if not isinstance(value, str) or not (path := Path(value)).is_absolute() or ".." in path.parts:
        raise ValueError
    return path


def _text(check: Callable[[str], object]) -> Callable[[object], str]:
    """A reader that returns a text unchanged if `check` accepts it."""

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        check(value)
        return value

    return read


def _subnet(text: str) -> None:
    subnet = IPv4Network(text)
    if str(subnet) != text or not 16 <= subnet.prefixlen <= 30:
        raise ValueError


def _ip(text: str) -> None:
    if "%" in text or not ip_address(text):
        raise ValueError


UNIX = "unix:"
"""What the path of a Unix socket begins with where an address may stand."""
SOCKET_PATH_BYTES = 100
"""A Unix socket's path has 108 at most (unix(7)), on FreeBSD 104; ours is made under a longer name."""


def _listen(text: str) -> None:
    if not text.startswith(UNIX):
        _ip(text)
    elif len(os.fsencode(_read_path(text.removeprefix(UNIX)))) > SOCKET_PATH_BYTES - len(".01234567"):
        raise ValueError


def _mask(text: str) -> None:
    # IPv4Network also accepts host masks such as 0.0.0.255; here one would be a mistake.
    if text and str(IPv4Network(f"0.0.0.0/{text}").netmask) != text:
        raise ValueError


def _proxies(text: str) -> object:
    return text if text == "unix" else ip_network(text)


def _statsd(text: str) -> None:
    host, port = split_host_port(text, 8125)
    if text and not (host and 0 < port < 65536):
        raise ValueError


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port` into host and port.

    Raises:
        ValueError: the text has another form.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*))(?::([0-9]{1,5}))?", text)
    if match is None:
        raise ValueError
    return match[1] or match[2] or "", int(match[3] or default_port)


def names_an_address(host: str) -> bool:
    """Whether a Host header names its server by an address or as `localhost`. Any other name may belong to
    somebody who lets it resolve to this address (DNS rebinding)."""
    try:
        name, _ = split_host_port(host, 0)
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


def _kind(
    allowed: str, read: Callable[[object], object], write: Callable[[Any], object] | None = None
) -> Meta:
    return Meta(description=allowed, extra={"read": read, "write": write})


Duration = Annotated[
    float, _kind('a duration above zero, such as "250ms", "10s", "1h30m"', read_duration, write_duration)
]
"""Seconds."""

DurationLimit = Annotated[
    float,
    _kind('a duration such as "250ms", "10s"; "0s" for no limit', _read_duration_limit, write_duration),
]
"""Seconds; 0 for no limit."""

FunctionTargets = Annotated[
    dict[str, Duration],
    Meta(
        description='a table of functions and durations, {"github.com/user/repo.F" = "50ms"}',
        extra={"write": lambda table: {name: write_duration(each) for name, each in table.items()}},
    ),
]
"""Seconds."""

Size = Annotated[
    int, _kind('a size above zero, such as "64k", "256m", 4096', _read_positive_size, write_size)
]
"""Bytes."""

SizeLimit = Annotated[int, _kind('a size such as "64k", "256m", 4096; 0 for no limit', read_size, write_size)]
"""Bytes; 0 for no limit."""

Count = Annotated[int, Meta(ge=0, lt=2**31, description="a whole number from 0")]
Positive = Annotated[int, Meta(ge=1, lt=2**31, description="a whole number from 1")]
Cores = Annotated[
    float, Meta(ge=0, le=4096, description="a number of cores such as 0.5 or 2; 0 for no limit")
]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
Octet = Annotated[int, Meta(ge=0, le=255, description="a last octet from 0 to 255")]
HostUid = Annotated[int, Meta(ge=1000, lt=2**31, description="an unprivileged uid from 1000")]

Text = Annotated[str, Meta(description="a text")]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_]+\Z", description="a name of letters, digits and _")]
Release = Annotated[
    str,
    Meta(
        pattern=r"\A([0-9A-Za-z][0-9A-Za-z._-]*)?\Z", description='a FreeBSD release such as "14.3-RELEASE"'
    ),
]
GoVersion = Annotated[
    str, Meta(pattern=r"\A([0-9]+(\.[0-9]+)*([a-z]+[0-9]+)?)?\Z", description='a Go version such as "1.25.1"')
]
Token = Annotated[
    str,
    Meta(
        pattern=r"\A[!-~]*\Z",
        description="printable ASCII without spaces, as a header can carry it",
        extra={"secret": True},
    ),
]
Tokens = Annotated[
    dict[
        str,
        Annotated[
            str,
            Meta(
                pattern=r"\A[!-~]{16,}\Z",
                description="16 or more characters of printable ASCII without spaces",
                extra={"secret": True},
            ),
        ],
    ],
    Meta(description="a table of names and tokens", extra={"secret": True}),
]
HeaderName = Annotated[
    str, Meta(pattern=r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", description="the name of an HTTP header")
]
Origin = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[a-z0-9.\[\]:_-]+\Z",
        description='a web page\'s origin, without a slash at its end: "https://island.example.org"',
    ),
]
BasePath = Annotated[
    str,
    Meta(
        pattern=r"\A(/[A-Za-z0-9._~-]+)*\Z",
        description='a path without a slash at its end: "/island"',
    ),
]
Collector = Annotated[
    str,
    Meta(
        pattern=r"\A(https?://[^\s@]+)?\Z",
        description='a URL without a password: "http://127.0.0.1:4318/v1/traces"',
    ),
]
Dataset = Annotated[
    str,
    Meta(
        pattern=r"\A([A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*)?\Z",
        description='a ZFS dataset such as "zroot" or "zroot/skyisland"',
    ),
]
Interface = Annotated[
    str,
    Meta(
        pattern=r"\A([A-Za-z][A-Za-z0-9_.-]{0,14})?\Z",
        description="the name of an interface, 15 characters at most",
    ),
]
GoProxy = Annotated[
    str,
    Meta(
        pattern=r"\A(direct|off|(https?|file)://[^\s,|@]+)([,|](direct|off|(https?|file)://[^\s,|@]+))*\Z",
        description='URLs without credentials, "direct" or "off", separated by commas',
    ),
]
AbsolutePath = Annotated[Path, _kind("an absolute path without ..", _read_path, str)]
OptionalPath = Annotated[
    str, _kind("an absolute path without .., or nothing", _text(lambda text: text and _read_path(text)))
]
CredentialFile = Annotated[
    str,
    _kind(
        "an absolute path without .., which may begin with $CREDENTIALS_DIRECTORY, or nothing",
        _text(lambda text: text and _read_path(text.removeprefix(CREDENTIALS))),
    ),
]
SecretFile = Annotated[
    str,
    Meta(
        pattern=r"\A((\$CREDENTIALS_DIRECTORY)?/(?!.*\.\.)[A-Za-z0-9/._@+-]+)?\Z",
        description="an absolute path of letters, digits and / . _ @ + -, which may begin with "
        "$CREDENTIALS_DIRECTORY, or nothing",
    ),
]
FleetName = Annotated[
    str,
    Meta(
        pattern=r"\A([a-z0-9][a-z0-9_-]{0,31})?\Z",
        description="a name of lower-case letters, digits, _ and -, 32 at most, or nothing",
    ),
]
NatsServer = Annotated[
    str,
    Meta(
        pattern=r"\A(nats|tls)://[A-Za-z0-9.\[\]:_-]+\Z",
        description='a NATS server, without a password: "tls://nats1.example.org:4222"',
    ),
]
UserName = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9._@+-]+\Z", description="a name of letters, digits and . _ @ + -")
]
Listen = Annotated[
    str, _kind('an IP address such as "127.0.0.1" or "::", or "unix:" and an absolute path', _text(_listen))
]
FileMode = Annotated[
    str, Meta(pattern=r"\A0?[0-7]{3}\Z", description='the mode of a file in octal digits, such as "0660"')
]
Group = Annotated[
    str, Meta(pattern=r"\A([A-Za-z_][A-Za-z0-9_-]*)?\Z", description="the name of a group, or nothing")
]
Nameserver = Annotated[str, _kind("an IP address", _text(_ip))]
Address = Annotated[str, _kind("an IPv4 address, or nothing", _text(lambda text: text and IPv4Address(text)))]
Mask = Annotated[str, _kind('a network mask such as "255.255.255.0", or nothing', _text(_mask))]
Subnet = Annotated[
    str, _kind('a network of 16 to 30 bits without host bits, such as "10.61.0.0/24"', _text(_subnet))
]
NetworkOf4 = Annotated[
    str, _kind('a network without host bits, such as "203.0.113.0/24"', _text(IPv4Network))
]
Proxies = Annotated[
    str,
    _kind(
        'a network without host bits, such as "203.0.113.0/24" or "2001:db8::/32", or "unix"', _text(_proxies)
    ),
]
StatsdAddress = Annotated[
    str, _kind('"host" or "host:port" ("[v6]:port" with IPv6), or nothing', _text(_statsd))
]
