"""A request's body, read whole: within its limit, in time, and unpacked where it came as gzip.

What unpacks to more than the limit is refused as soon as it has, whatever it would have become: a mebibyte of
gzip can hold a gibibyte of zeros.
"""

from __future__ import annotations

import asyncio
import zlib

from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, HTTPScope

from api.problems import RequestTimeout, TooLarge, UnknownCoding
from skyisland.errors import BadRequest

OVERSIZE_READ_FACTOR = 4
"""An oversized body is read up to this many times the limit before we answer, so that the client gets the 413
instead of a reset. Whoever sends still more gets the reset."""
GZIP = (b"gzip", b"x-gzip")  # RFC 9110, section 8.4.1.3
MOST_MEMBERS = 100
"""Members of one body: each has the rest of it copied. A judgement: `cat` joins a few files, `bgzip` begins
a member for each 64 KiB."""
PLAIN = (b"", b"identity")
_OF_PACKED = (b"content-encoding", b"content-length", b"transfer-encoding")


class HungUp(Exception):
    """The caller closed the connection; no answer is sent."""


async def read_body(
    receive: ASGIReceiveCallable, *, limit: int, timeout_s: float, coding: bytes = b""
) -> bytes:
    """The whole of it. `coding`: what the header Content-Encoding says.

    Raises:
        HungUp
        TooLarge, RequestTimeout: it is longer than `limit`, packed or unpacked, or took too long to come.
        UnknownCoding: it is packed by another coding than gzip, or by several.
        BadRequest: it is no gzip.
    """
    coding = coding.strip().lower()
    if coding not in PLAIN and coding not in GZIP:
        raise UnknownCoding("Content-Encoding: send the body as it is, or as gzip", field="Content-Encoding")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while size <= OVERSIZE_READ_FACTOR * limit:
                message = await receive()
                if message["type"] != "http.request":
                    raise HungUp
                chunk = message["body"]
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                if not message["more_body"]:
                    break
    except TimeoutError:
        raise RequestTimeout(f"the body did not come within {timeout_s:g} s") from None
    if size > limit:
        raise too_large(limit)
    body = b"".join(chunks)
    return await asyncio.to_thread(_unpack, body, limit) if coding in GZIP and body else body


def too_large(limit: int) -> TooLarge:
    """The refusal of a body that is longer than `limit` bytes."""
    return TooLarge(f"the body is longer than {limit} bytes; send less", limit_bytes=limit)


def _unpack(packed: bytes, limit: int) -> bytes:
    """All of its members (RFC 1952, section 2.2), one after another."""
    body, rest = bytearray(), packed
    for _ in range(MOST_MEMBERS):
        gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            body += gzip.decompress(rest, limit + 1 - len(body))
        except zlib.error as error:
            raise _no_gzip(str(error)) from None
        if len(body) > limit:
            raise too_large(limit)
        if not gzip.eof:
            raise _no_gzip("it ends too early")
        rest = gzip.unused_data
        if not rest:
            return bytes(body)
    raise _no_gzip(f"it has more than {MOST_MEMBERS} members; pack it in one")


def _no_gzip(why: str) -> BadRequest:
    return BadRequest(f"Content-Encoding: the body is no gzip: {why}", field="Content-Encoding")


async def unpacked(
    scope: HTTPScope, receive: ASGIReceiveCallable, *, limit: int, timeout_s: float
) -> tuple[HTTPScope, ASGIReceiveCallable]:
    """The request as if its body had come without Content-Encoding.

    Raises:
        as `read_body`
    """
    codings = [value for name, value in scope["headers"] if name == b"content-encoding"]
    body = await read_body(receive, limit=limit, timeout_s=timeout_s, coding=b",".join(codings))
    messages: list[ASGIReceiveEvent] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> ASGIReceiveEvent:
        return messages.pop() if messages else await receive()

    headers = [pair for pair in scope["headers"] if pair[0] not in _OF_PACKED]
    return scope | {"headers": headers}, again
