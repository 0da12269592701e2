"""Chains past a second result: which parts of a call give an error beside their value.

In `NewClient("x").Do()`, `NewClient` may give `(*Client, error)`. Go refuses that and says where. The part is
a *link*: the main program puts it into a function of its own, `must1(NewClient("x")).Do()`, which passes the
value on, and ends the call with the error where there is one. `(T, bool)` likewise, and with several values
where they are all the arguments that a function takes. What a function literal holds is left to the caller,
who can write `v, err := F()` there.

The compiler's output enters; links leave. It may be a stranger's word: a link that it invents can make
nothing but a program that Go refuses, or one that asks for an error where there is one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from tree_sitter import Node

from skyisland.golang.names import structure_of
from skyisland.golang.tokens import (
    Token,
    clip,
    depth_of,
    ends_statement,
    in_bytes,
    tokens_of,
)

CALL = "skyisland.call"
"""The file name in the compiler's messages about the call."""
_CHUNK_BYTES = 150
"""Go's compiler does not tell columns of 255 and above."""
_CALLS = ("call_expression", "parenthesized_expression", "type_conversion_expression")
_CANDIDATES = 32
"""Calls that begin at one place and are looked at. A judgement: longer chains are not helped."""
_VALUES = 3
"""Most values before the error. A judgement."""
_BRACKET = re.compile(r"\bmust[0-9]+\(|[()]")
_MESSAGE = re.compile(r"^call:1:([0-9]{1,6}): (.+(?:\n\s.+)*)", re.MULTILINE)
_SEVERAL = re.compile(r"multiple-value (.+) \(value of type \((.+)\)\) in single-value context")
_TOO_MANY = re.compile(r"too many arguments in call to .*\n\s+have \((.+)\)\n\s+want \((.*)\)")
_OF_BUILTIN = re.compile(r"invalid operation: too many arguments for [a-z]+\(")
_SECOND = re.compile(
    r"cannot use .+ \(value of (?:interface )?type (error|bool)\) as .+ value in argument to (?!must[0-9])"
)
_IS_BOOL = re.compile(r"cannot use .+ \(value of type bool\) as error value in argument to must([0-9]+)")


class Link(NamedTuple):
    """A part of a call that gives an error, or false, beside its values."""

    first: int
    """The number of its first token in the call."""
    last: int
    values: int
    """How many values come before the error."""
    truth: bool
    """It is a bool that must be true, no error."""
    name: str
    """Whose error it is: `NewClient`."""


Links = tuple[Link, ...]


def shape_of(text: str) -> str:
    """The call without the values of its literals: in all calls of a shape, the same parts are links."""
    return " ".join(
        token.text if token.kind in ("word", "operator") else token.kind for token in tokens_of(text)
    )


def placed(text: str, links: Links = ()) -> str:
    """The canonical text of a call with its links in their functions, so that Go's messages tell the offsets
    of `text`: line and column of a message, less two, are a byte offset together."""
    tokens, starts = _tokens(text)
    if not links and len(text.encode()) <= _CHUNK_BYTES and "\n" not in text:
        return f"/*line {CALL}:1:1*/{text}"
    written: list[str] = []
    chunk_start, fresh = 0, False

    def place(offset: int) -> None:
        nonlocal chunk_start, fresh
        written.append(f"\n//line {CALL}:{offset + 1}:1\n")
        chunk_start, fresh = offset, True

    place(0)
    for number, token in enumerate(tokens):
        offset = starts[number]
        for link in _beginning_at(number, links):
            if not fresh:
                place(offset)
            written.append(f"must{links.index(link) + 1}(")
            place(offset)
        if not fresh and offset - chunk_start > _CHUNK_BYTES and not ends_statement(tokens[number - 1]):
            place(offset)
        if not fresh and text[: token.start] and text[token.start - 1] == " ":
            written.append(" ")
        written.append(token.text)
        fresh = False
        ending = [link for link in links if link.last == number]
        written.append(")" * len(ending))
        if ending or "\n" in token.text:
            after = offset + len(token.text.encode())
            written.append(f"/*line {CALL}:{after + 1}:1*/")
            chunk_start = after
    return "".join(written)


def functions(links: Links) -> str:
    """The functions of the links, in Go."""
    return "".join(_function(number, link) for number, link in enumerate(links, 1))


def _function(number: int, link: Link) -> str:
    types = [f"T{i}" for i in range(link.values)]
    values = [f"v{i}" for i in range(link.values)]
    parameters = "".join(f"{value} {type_}, " for value, type_ in zip(values, types, strict=True))
    check, kind = ("MustBeTrue", "bool") if link.truth else ("Must", "error")
    return (
        f"\nfunc must{number}[{', '.join(types)} any]({parameters}last {kind}) ({', '.join(types)}) {{\n"
        f'\tharness.{check}(last, "{link.name}")\n'
        f"\treturn {', '.join(values)}\n}}\n"
    )


def offset_of(line: str, column: str | None) -> int:
    """The byte offset in the call of a position in the compiler's output."""
    return int(line) + int(column or 1) - 2


def without(message: str) -> str:
    """A message of the compiler without the functions of links: what the caller wrote."""
    kept: list[str] = []
    ours: list[bool] = []  # of each open bracket, whether it is such a function's
    done = 0
    for bracket in _BRACKET.finditer(message):
        kept.append(message[done : bracket.start()])
        done = bracket.end()
        if bracket[0] != ")":
            ours.append(bracket[0] != "(")
        if not (ours and ours[-1]):
            kept.append(bracket[0])
        if bracket[0] == ")" and ours:
            ours.pop()
    return "".join((*kept, message[done:]))


def more_links(text: str, links: Links, output: str) -> Links:
    """The links that the compiler's output shows, with those that are known; the same ones if it shows none.

    `output`: as `complaints.clean` leaves it.
    """
    call = _Written(text, links)
    found = dict.fromkeys(links)
    for position, message in _MESSAGE.findall(output):
        if wrong := _IS_BOOL.search(message):
            links = tuple(found)
            number = int(wrong[1]) - 1
            found = dict.fromkeys(
                link._replace(truth=True) if index == number else link for index, link in enumerate(links)
            )
            continue
        for node, values, truth in _shown(message, int(position) - 1, call):
            found[Link(*call.span(node), values, truth, _name_of(node))] = None
    return tuple(found)


class _Written:
    """A call as it stands in a main program, with its links."""

    def __init__(self, text: str, links: Links) -> None:
        self.tokens, self.starts = _tokens(text)
        self.structure = structure_of(text)
        self.links = links
        self.linked = {(link.first, link.last) for link in links}

    def span(self, node: Node) -> tuple[int, int]:
        """The numbers of a node's first and last token."""
        first = bisect_right(self.starts, self.structure.start_of(node)) - 1
        return first, bisect_left(self.starts, self.structure.end_of(node)) - 1

    def depth(self, node: Node) -> int:
        """As `depth_of` for the text of a node."""
        first, last = self.span(node)
        inside = [link for link in self.links if first <= link.first and link.last <= last]
        written: list[str] = []
        for number in range(first, last + 1):
            written += ["must("] * sum(link.first == number for link in inside)
            written.append(self.tokens[number].text + " ")
            written += [")"] * sum(link.last == number for link in inside)
        return depth_of("".join(written))

    def calls_at(self, offset: int) -> list[Node]:
        """The calls that begin at an offset and are no links yet, nor part of a function literal, the
        innermost first."""
        found: list[Node] = []
        node: Node | None = self.structure.root
        while node is not None and node.type != "func_literal":
            begins = self.structure.start_of(node) == offset
            if begins and node.type in _CALLS and self.span(_unwrapped(node)) not in self.linked:
                found.append(node)
            node = next((child for child in node.named_children if self._holds(child, offset)), None)
        return found[: -_CANDIDATES - 1 : -1]

    def _holds(self, node: Node, offset: int) -> bool:
        return self.structure.start_of(node) <= offset < self.structure.end_of(node)


def _shown(message: str, offset: int, call: _Written) -> Iterator[tuple[Node, int, bool]]:
    """What a message says to give a value too many: its node, how many others, and whether it is a bool."""
    if several := _SEVERAL.search(message):
        kind = re.split(r"[ ,]", several[2])[-1]
        if _count(several[2]) == 2 and kind in ("error", "bool"):
            depth = depth_of(several[1])
            nodes = (node for node in call.calls_at(offset) if call.depth(node) == depth)
            yield from ((_unwrapped(node), 1, kind == "bool") for node in islice(nodes, 1))
    elif too_many := _TOO_MANY.search(message):
        kind = too_many[1].rpartition(", ")[2]
        values = _count(too_many[1]) - 1
        if kind in ("error", "bool") and 0 < values <= _VALUES:
            yield from ((node, values, kind == "bool") for node in _sole_arguments(call, offset))
    elif second := _SECOND.search(message):
        yield from ((node, 1, second[1] == "bool") for node in _sole_arguments(call, offset))
    elif _OF_BUILTIN.search(message):
        arguments = [node.child_by_field_name("arguments") for node in call.calls_at(offset)]
        sole = [one.named_children[0] for one in arguments if one is not None and one.named_child_count == 1]
        yield from ((node, 1, False) for node in sole[:1] if node.type in _CALLS)


def _count(types: str) -> int:
    """How many types a list has."""
    depth, count = 0, 1
    for character in types:
        depth += (character in "([{") - (character in ")]}")
        count += character == "," and depth == 0
    return count


def _sole_arguments(call: _Written, offset: int) -> Iterator[Node]:
    """The call that begins at an offset and is all that another one takes."""
    for node in call.calls_at(offset):
        parent = node.parent
        if parent is not None and parent.type == "argument_list" and parent.named_child_count == 1:
            yield _unwrapped(node)
            return


def _unwrapped(node: Node) -> Node:
    """A call without the parentheses around it."""
    while node.type == "parenthesized_expression":
        node = node.named_children[0]
    return node


def _name_of(call: Node) -> str:
    """The last name of a function in front of its arguments."""
    function = call.child_by_field_name("function") or call.child_by_field_name("type") or call
    fields = ("field", "operand", "name", "type", "function")
    while inner := next((one for field in fields if (one := function.child_by_field_name(field))), None):
        function = inner
    name = (function.text or b"").decode()
    return clip(name) if name.isidentifier() else "a function literal"


def _beginning_at(number: int, links: Links) -> list[Link]:
    """The links that begin with a token, the longest first."""
    return sorted((link for link in links if link.first == number), key=lambda link: -link.last)


def _tokens(text: str) -> tuple[list[Token], list[int]]:
    """The tokens of a canonical text, and their offsets in bytes."""
    tokens = tokens_of(text)
    return tokens, in_bytes(text, [token.start for token in tokens])
