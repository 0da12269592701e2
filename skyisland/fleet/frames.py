"""What islands of a fleet say to each other: one byte with the form's number, then msgpack.

Binary, because a call's input and output are bytes, and base64 in JSON would be longer than a message may be.
A field that is added needs a default; what is taken away, or means something else, makes a new form. An
island that gets another form than its own says so and does nothing.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from skyisland.errors import BadRequest

FORM = 1
"""Of all frames, together: an island talks to those of its own form alone."""
T = TypeVar("T", bound=Struct)

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Struct], msgspec.msgpack.Decoder[Struct]] = {}


class BadFrame(BadRequest):
    """Another island's words are no frame, too long, or of another form."""


def pack(frame: Struct) -> bytes:
    """The bytes of a frame."""
    return bytes((FORM,)) + _encoder.encode(frame)


def unpack(data: bytes, shape: type[T], *, most_bytes: int = 1 << 20) -> T:
    """The frame that these bytes are. Linear in their number, which is `most_bytes` at the most.

    Raises:
        BadFrame
    """
    if len(data) > most_bytes:
        raise BadFrame(f"a frame of {len(data)} bytes; the longest is {most_bytes}")
    if not data or data[0] != FORM:
        form = f"form {data[0]}" if data else "no form"
        raise BadFrame(f"a frame of {form}, and this island speaks form {FORM}; have all run one version")
    decoder = _decoders.get(shape)
    if decoder is None:
        decoder = _decoders[shape] = msgspec.msgpack.Decoder(shape)
    try:
        frame = decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadFrame(f"not a frame of {shape.__name__}: {error}") from None
    return frame  # type: ignore[return-value] # it is a decoder of this shape
