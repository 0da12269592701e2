"""Parses the text of a call: one Go expression on one package, and nothing else.

A stranger's text enters; a `Call` leaves, which can be compiled or looked up in the cache. Whatever else
the text may be is refused (`BadCall`). Three passes, the cheapest first; each refuses before the next
begins: characters and tokens (`tokens`), then structure and names (`names`). At most 64 KiB are read.

The name of a package may stand in front: `geohash.Encode(…)`. Which one it names is known as soon as the
called package is: so such a call has two readings. In the first it is the called package's own name, and left
out, so that callers with and without it share one binary. In the other (`Call.otherwise`) it is another
package's: of the standard library, as in `strings.ToUpper(Name())`, or of the same repository.

`Call.text` is canonical: two texts with the same tokens have the same canonical text, so it can be a
cache key.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from functools import lru_cache

import msgspec
from tree_sitter import Node

from skyisland.errors import BadCall
from skyisland.golang.imports import STANDARD, check_standard
from skyisland.golang.names import LITERALS, NUMBERS, Structure, structure_of
from skyisland.golang.tokens import Refused, Token, canonical, in_bytes, tokens_of, without_idle_semicolons
from skyisland.model import Call

MAX_BYTES = 64 * 1024
"""Longest call. A judgement: larger data belongs on the function's standard input."""

_QUICK_BYTES = 256
"""Texts up to this length are parsed on the event loop: they take a few milliseconds at most."""
_CALLS_CACHED = 1000
"""How many short calls are remembered, a MiB of text at most. A judgement."""
_WHITE = " \t\r\n"


async def read_call(text: str) -> Call:
    """Do what `parse_call` does, in a thread if the text is long enough to block the event loop.

    Short calls are cached: most callers repeat theirs.
    """
    if len(text) <= _QUICK_BYTES:
        return _parse_short(text)
    if len(text) > MAX_BYTES:
        return parse_call(text)
    return await asyncio.to_thread(parse_call, text)


@lru_cache(_CALLS_CACHED)
def _parse_short(text: str) -> Call:
    return parse_call(text)


def parse_call(text: str) -> Call:
    """Parse one call.

    White space at both ends is ignored. The time grows with the length of the text and stays below a
    second at 64 KiB; on an event loop use `read_call`.

    Raises:
        BadCall: names the mistake, the remedy, and `details["position"]`, a byte offset into `text`.
    """
    # The characters are counted first: to encode a text of any length would take time.
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        message = f"call: longer than {MAX_BYTES} bytes; pass large data on the function's standard input"
        raise BadCall(message, position=MAX_BYTES)
    call = text.strip(_WHITE)
    try:
        return _parse(call)
    except Refused as refused:
        indent = len(text) - len(text.lstrip(_WHITE))
        position = indent + len(call[: refused.index].encode("utf-8", "surrogatepass"))
        raise BadCall(f"call, byte {position}: {refused.reason}", position=position) from None


def _parse(text: str) -> Call:
    tokens = tokens_of(text)
    if not tokens:
        raise Refused(0, "empty; write one Go call, such as Encode(100.1, 80.9)")
    written = _Written(tokens)
    try:
        return _readings(written, structure_of(written.text))
    except Refused as refused:
        raise Refused(written.index_of(refused.index), refused.reason) from None


class _Written:
    """The tokens of a call, and the canonical text of all of them."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.text, starts = canonical(tokens)
        self.starts = in_bytes(self.text, starts)

    def token_at(self, offset: int) -> int:
        """The number of the token at this byte of the text."""
        return max(0, bisect_right(self.starts, offset) - 1)

    def index_of(self, offset: int) -> int:
        """The same place in the caller's text."""
        return self.tokens[self.token_at(offset)].start

    def canonical(self, without: set[int]) -> str:
        """The canonical text without some tokens, and without semicolons that mean nothing."""
        kept: list[Token] = []
        spaced = False
        for number, token in enumerate(self.tokens):
            spaced = spaced or token.spaced
            if number not in without:
                kept.append(token._replace(spaced=spaced))
                spaced = False
        return canonical(without_idle_semicolons(kept))[0]


def _readings(written: _Written, structure: Structure) -> Call:
    """The call, with its other reading if the name of a package stands in front."""
    first = structure.named[0] if structure.named else None
    if first is None or not first.qualifier:
        return _reading(written, structure, None)
    otherwise = None
    with contextlib.suppress(Refused):
        otherwise = _reading(written, structure, None)
    own = _reading(written, structure, first.qualifier)
    return msgspec.structs.replace(own, otherwise=otherwise)


def _reading(written: _Written, structure: Structure, own: str | None) -> Call:
    """The call, where `own` is the name of the called package."""
    idle: set[int] = set()
    imports: set[str] = set()
    function = ""
    for named in structure.named:
        if named.qualifier and named.qualifier != own:
            check_standard(named)
            imports.add(named.qualifier)
            if named.qualifier not in STANDARD:
                function = function or f"{named.qualifier}.{named.name}"
            continue
        if named.qualifier:
            number = written.token_at(named.start)
            idle |= {number, number + 1}
        function = function if "." not in function and function else named.name
    if not function:
        raise Refused(0, "name a function of the package, as in Encode(100.1, 80.9)")
    arguments = _literal_arguments(structure)
    literal = f"{function}({', '.join(arguments)})" if arguments is not None else None
    return Call(
        text=literal or written.canonical(idle),
        function=function,
        arguments=arguments,
        qualifier=own,
        imports=tuple(sorted(imports)),
        apart=not any(not named.qualifier or named.qualifier == own for named in structure.named),
    )


def _literal_arguments(structure: Structure) -> tuple[str, ...] | None:
    """The arguments' source texts, if all are literals and the callee is a plain function; else None."""
    call = structure.root
    function, arguments = call.child_by_field_name("function"), call.child_by_field_name("arguments")
    if function is None or arguments is None or call.child_by_field_name("type_arguments") is not None:
        return None
    if len(structure.named) != 1 or structure.named[0].start != structure.start_of(function):
        return None
    if function.type != "identifier":
        operand = function.child_by_field_name("operand")
        qualifier = structure.named[0].qualifier
        if function.type != "selector_expression" or operand is None or operand.text != qualifier.encode():
            return None
    literals = [_literal(node, structure) for node in arguments.named_children]
    return tuple(text for text in literals if text) if all(literals) else None


def _literal(node: Node, structure: Structure) -> str:
    """The text of a literal, with its sign; empty for anything else."""
    sign = ""
    if node.type == "unary_expression" and node.children[0].type in ("+", "-"):
        sign, node = node.children[0].type, node.children[1]
        if node.type not in NUMBERS:
            return ""
    return sign + structure.text_of(node) if node.type in LITERALS else ""
