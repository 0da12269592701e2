"""How values are written: short, aligned, and safe to show.

Everything a jail or a caller made (names, URLs, calls, log lines) passes through `clean` once, when it
enters the console. What `clean` leaves holds no control characters, so no text can move the cursor,
colour the screen or speak to the operator's terminal.
"""

from __future__ import annotations

import re
import time

from rich.cells import cell_len, set_cell_size

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def clean(text: str) -> str:
    """`text` without C0 and C1 controls (but newline and tab), bidi and invisible characters."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub("", text)


def line(text: str) -> str:
    """`text` cleaned and on one line."""
    if text.isascii() and text.isprintable():
        return text
    return clean(text).replace("\n", " ").replace("\t", " ")


def fit(text: str, width: int, align: str = "<", more: str = "…") -> str:
    """`text` in exactly `width` cells, cut with `more` where it is too long."""
    length = len(text) if text.isascii() else cell_len(text)
    if length == width:
        return text
    if length < width:
        return text + " " * (width - length) if align == "<" else " " * (width - length) + text
    if width < 1:
        return ""
    if text.isascii():
        return text[: width - 1] + more
    return set_cell_size(text, width - 1) + more


def tail(text: str, width: int, more: str = "…") -> str:
    """A name that is too long keeps its end, which tells it from its neighbours."""
    return text if len(text) <= width else more + text[len(text) - width + 1 :]


def duration(seconds: float | None) -> str:
    """At most six characters: `3.9ms`, `206ms`, `1.76s`, `41.2s`, `3m05`, `2h07`."""
    if seconds is None:
        return "-"
    if seconds < 0.00995:
        return f"{seconds * 1e3:.1f}ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    if seconds < 6000:
        return f"{int(seconds // 60)}m{int(seconds % 60):02}"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02}"


def brief(seconds: float) -> str:
    """A round time without zeros behind its point: `1s`, `2.5s`, `250ms`."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1e3:g}ms"


def rate(per_s: float) -> str:
    """So many a second: `33`, `3.4`, `0.03`."""
    digits = 0 if per_s >= 9.95 or not per_s else 1 if per_s >= 0.095 else 2
    return f"{per_s:.{digits}f}"


def age(seconds: float | None) -> str:
    """At most five characters: `7s`, `4m`, `3h12`, `12d`."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{int(seconds)}s"
    if seconds < 6000:
        return f"{int(seconds // 60)}m"
    if seconds < 86400:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02}"
    return f"{int(seconds // 86400)}d"


def uptime(seconds: float) -> str:
    """`3d04h`, `4h07m`, `12m05s`, `41s`."""
    whole = int(max(0.0, seconds))
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


def size(count: int | None) -> str:
    """Bytes in at most five characters: `512B`, `4.3K`, `140M`, `1.2G`."""
    if count is None:
        return "-"
    number = float(count)
    for unit in "BKMGT":
        if number < 999.5 or unit == "T":
            return f"{number:.0f}{unit}" if unit == "B" or number >= 99.5 else f"{number:.1f}{unit}"
        number /= 1024
    raise AssertionError


def clock(at: float) -> str:
    """Time of day, UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(at))


def label(url: str, call: str) -> str:
    """What a call is named on the screen: the package's last word and the call, `geohash.Encode(1, 2)`."""
    package = url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
    return line(f"{package}.{call}" if package and call else package or call)


def short(invocation: str | None) -> str:
    """Enough of an invocation's id to tell it from the others on the screen."""
    return line(invocation).removeprefix("inv-")[:8] if invocation else ""
