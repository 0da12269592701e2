"""The trace that a call is a part of (W3C Trace Context, https://www.w3.org/TR/trace-context/).

A caller's tracer names it in the header `traceparent`: a version, the trace, the caller's own part of it
(its *span*), and whether anybody records it. The call is a span of its own, whose number is that of the
invocation.
"""

from __future__ import annotations

import re

VARIABLE = "TRACEPARENT"
"""Where a function finds its span, as OpenTelemetry's processes hand it to their children."""
_HEADER = re.compile(r"([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")


def read(header: str) -> str:
    """What a header `traceparent` says, in the form of version 00.

    Empty if it says nothing sane: the call then is a part of no trace.
    """
    said = _HEADER.fullmatch(header)
    if said is None or said[1] == "ff" or (said[1] == "00" and said[3]):
        return ""
    return f"00-{said[2]}"


def span_of(invocation: str) -> str:
    """The number of an invocation's span: that of its id, in sixteen hexadecimal digits."""
    return invocation.removeprefix("inv-").zfill(16)


def handed(traceparent: str, invocation: str) -> str:
    """What the function of an invocation is told: the caller's trace, and the invocation's span in it."""
    version, trace, _, flags = traceparent.split("-")
    return f"{version}-{trace}-{span_of(invocation)}-{flags}"
