"""Parses the text of a call: one Go call expression on one package, and nothing else.

A stranger's text enters; a `Call` leaves, which can be compiled or looked up in the cache. Whatever else
the text may be is refused (`BadCall`). Three passes, the cheapest first; each refuses before the next
begins:

1. *Characters.* Valid UTF-8, at most 64 KiB, nothing invisible: no control, bidirectional or zero-width
   characters (inside a literal, write them as an escape such as `\\u200d`). Line feeds are allowed inside
   raw strings only, tabs anywhere.
2. *Tokens*, by the lexical part of the Go specification (https://go.dev/ref/spec#Lexical_elements).
   No comments, semicolons, assignments, statements or function literals; brackets match and nest at
   most 100 deep; every name is permitted.
3. *Structure*, by tree-sitter's Go grammar: exactly one call expression, of known kinds of nodes.

Each name is permitted or refused by itself, without scopes, because the first two passes refuse
everything that could declare a name:

- A name that begins with an upper-case letter belongs to the package, wherever it stands: function,
  type, constant, variable, field or method. The main program imports the package with
  `import . "path"`, so Go itself distinguishes `Option{A: 1}` (a field) from `Palette{Red: 1}` (a
  constant that is a map's key).
- The package's own name may stand in front (`geohash.Encode(…)`); then, and only then, it may stand
  in front of other names too (`geohash.New(geohash.Option{})`). The build checks whether it *is* the
  package's name. It must begin with a lower-case letter, as package names do.
- Predeclared types, constants, and functions with a result (`[]string{"a"}`, `int64(3)`, `len(…)`).
  Any other lower-case name is refused: it is of another package (`os.Exit`) or not exported.

`Call.text` is canonical: two texts with the same tokens have the same canonical text, so it can be a
cache key. A space stays only where two tokens would merge without it; one follows every comma. Outside
literals there are no line feeds, so Go inserts no semicolons and spaces mean nothing.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import tree_sitter_go
from tree_sitter import Language, Node, Parser, Point

from skyisland.errors import BadCall
from skyisland.model import Call

MAX_BYTES = 64 * 1024
"""Longest call. A judgement: larger data belongs on the function's standard input."""
MAX_NESTING = 100
"""Deepest brackets. A judgement: nobody types a tenth of it, and no parser behind us recurses far."""

_MAX_DEPTH = 1000
"""Deepest syntax tree. Chains of operators and selectors go deep without brackets. A judgement: 1000 links
take 10 ms to parse."""
_MAX_PARSE_STEPS = 8000
"""Calls of tree-sitter's progress callback, one per about a hundred of its steps. 64 KiB of valid Go need
fewer than 5000; text that needs more is nonsense that the parser tries to repair."""
_QUICK_BYTES = 256
"""Texts up to this length are parsed on the event loop: they take a few milliseconds at most."""
_CALLS_CACHED = 1000
"""How many short calls are remembered, half a MiB of text at most. A judgement."""

_GO = Language(tree_sitter_go.language())


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREDECLARED = _words(
    """any bool byte complex64 complex128 error float32 float64 int int8 int16 int32 int64 rune string
    uint uint8 uint16 uint32 uint64 uintptr true false nil
    append cap complex copy imag len make max min new real"""
)
_TYPE_WORDS = _words("chan interface map struct")
_STATEMENT_WORDS = _words(
    """break case const continue default defer else fallthrough for go goto if import package range
    return select switch type var"""
)
_NUMBERS = _words("int_literal float_literal imaginary_literal rune_literal")
_LITERALS = _NUMBERS | _words("interpreted_string_literal raw_string_literal true false nil")
_EXPRESSIONS = _LITERALS | _words(
    """argument_list array_type binary_expression call_expression channel_type composite_literal
    field_declaration field_declaration_list field_identifier generic_type identifier
    implicit_length_array_type index_expression interface_type keyed_element literal_element literal_value
    map_type parenthesized_expression parenthesized_type pointer_type selector_expression slice_expression
    slice_type struct_type type_arguments type_assertion_expression type_conversion_expression type_elem
    type_identifier unary_expression variadic_argument
    escape_sequence interpreted_string_literal_content raw_string_literal_content
    package_identifier qualified_type"""
)

# Invisible characters that Unicode does not count as control or format characters.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_WHITE = " \t\r\n"

# Atomic groups and possessive quantifiers throughout: they never backtrack, so the time grows with the length
# alone. A possessive quantifier behind a group is misread by Python 3.11.2 (gh-106052).
_ESCAPE = r"""\\(?:[abfnrtv\\]|[0-3][0-7]{2}|x[0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}
    |U(?:0000(?![dD][89a-fA-F])|000[1-9a-fA-F]|0010)[0-9a-fA-F]{4})"""
_DECIMAL = r"(?>[0-9](?:_?[0-9])*)"
_HEX = r"(?>[0-9a-fA-F](?:_?[0-9a-fA-F])*)"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t]++)
    |(?P<comment>//|/\*)
    |(?P<word>[^\W\d]\w*+)
    |(?P<number>(?>(?:
        0[xX](?:_?{_HEX}(?:\.{_HEX}?)?|\.{_HEX})[pP][+-]?{_DECIMAL}
        |0[xX]_?{_HEX}|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+
        |(?:{_DECIMAL}(?:\.{_DECIMAL}?)?|\.{_DECIMAL})(?:[eE][+-]?{_DECIMAL})?
      )i?))
    |(?P<text>"(?>(?:[^"\\\n]|{_ESCAPE}|\\")*)"|`[^`]*+`|'(?:[^'\\\n]|{_ESCAPE}|\\')')
    |(?P<operator>\.\.\.|<-|<<|>>|&\^|&&|\|\||==|!=|<=|>=|\+\+|--|[-+*/%&|^<>!()\[\]{{}},.:])""",
    re.VERBOSE,
)
_REMEDY = "do this in a function of the package"
_CLOSES = {")": "(", "]": "[", "}": "{"}


class _Refused(Exception):
    """The call is refused because of its character at `index`."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    """Characters from the beginning of the call."""
    spaced: bool
    """White space stands in front."""


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
    except _Refused as refused:
        indent = len(text) - len(text.lstrip(_WHITE))
        position = indent + len(call[: refused.index].encode())
        raise BadCall(f"call, byte {position}: {refused.reason}", position=position) from None


def _parse(text: str) -> Call:
    _check_characters(text)
    tokens = list(_tokens(text))
    qualifier = _qualifier(tokens)
    unqualified = list(_without_qualifier(tokens, qualifier))
    node = _call_node(text)
    arguments = _literals(node, qualifier)
    function = unqualified[0].text
    canonical = _canonical(unqualified) if arguments is None else f"{function}({', '.join(arguments)})"
    return Call(text=canonical, function=function, arguments=arguments, qualifier=qualifier)


def _check_characters(call: str) -> None:
    """Refuse invisible characters, and text that is not UTF-8."""
    invisible = {
        c
        for c in set(call) - {"\n", "\t"}
        if c in BLANK or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }
    if not invisible:
        return
    index = min(call.index(c) for c in invisible)
    code = ord(call[index])
    if unicodedata.category(call[index]) == "Cs":
        raise _Refused(index, "not valid UTF-8 (half of a surrogate pair)")
    escape = f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    raise _Refused(index, f"U+{code:04X} is invisible; write {escape} inside a string, or leave it out")


def _tokens(call: str) -> Iterator[_Token]:
    """Split the call into Go tokens; check that brackets match and do not nest too deep."""
    brackets: list[tuple[str, int]] = []
    index, spaced = 0, False
    while index < len(call):
        match = _TOKEN.match(call, index)
        if match is None:
            raise _Refused(index, _why_no_token(call[index]))
        kind, text = str(match.lastgroup), match.group()
        if kind == "comment":
            raise _Refused(index, "comments are not allowed; leave it out")
        if kind == "number":
            _check_number(call, match)
        elif text in ("++", "--"):
            raise _Refused(index, f"{text} makes a statement; write one call expression")
        elif text in ("(", "[", "{"):
            brackets.append((text, index))
            if len(brackets) > MAX_NESTING:
                raise _Refused(index, f"nested deeper than {MAX_NESTING}; {_REMEDY}")
        elif text in _CLOSES and (not brackets or brackets.pop()[0] != _CLOSES[text]):
            raise _Refused(index, f"{text} closes nothing; write exactly one call expression")
        if kind != "space":
            yield _Token(kind, text, index, spaced)
        spaced = kind == "space"
        index = match.end()
    if brackets:
        opening, index = brackets[-1]
        raise _Refused(index, f"{opening} is never closed")


def _why_no_token(character: str) -> str:
    """The reason for the refusal of a text where no token begins with this character."""
    match character:
        case "\n":
            return "a line feed outside a raw string; write the call on one line"
        case ";":
            return "; ends a statement; write exactly one call expression and no semicolon"
        case "=":
            return "assignments are statements; write one call expression"
        case '"' | "'" | "`":
            return "this literal is not closed, or has an escape or a number of characters that Go refuses"
    return f"U+{ord(character):04X} cannot be in a Go expression; text belongs in quotes"


def _check_number(call: str, match: re.Match[str]) -> None:
    following = call[match.end() : match.end() + 1]
    if following == "." or following == "_" or following.isalnum():
        raise _Refused(match.start(), "malformed number; Go knows 42, 0x2a, 0b101010, 1_000, 1.5e3 and 2i")
    if re.fullmatch(r"0[0-9_]*[89][0-9_]*", match.group()):
        raise _Refused(match.start(), "a number that begins with 0 is octal, without 8 and 9; drop the 0")


def _exported(name: str) -> bool:
    return unicodedata.category(name[0]) == "Lu"


def _qualifier(tokens: list[_Token]) -> str | None:
    """The package's name in front of the call, or None. Refuses a call whose first token cannot begin one."""
    if not tokens:
        raise _Refused(0, "empty; write one Go call, such as Encode(100.1, 80.9)")
    first = tokens[0]
    if first.kind != "word":
        raise _Refused(first.start, "begin with the name of an exported function, as in Encode(100.1, 80.9)")
    if _exported(first.text) or first.text in _STATEMENT_WORDS | _TYPE_WORDS | {"func"}:
        return None
    if [token.kind for token in tokens[:3]] == ["word", "operator", "word"] and tokens[1].text == ".":
        return first.text
    raise _Refused(first.start, _not_exported(first.text))


def _without_qualifier(tokens: list[_Token], qualifier: str | None) -> Iterator[_Token]:
    """Check every name; leave the qualifier and the dot behind it out."""
    end = _Token("end", "", tokens[-1].start, False)
    previous = end
    pending: _Token | None = None  # a qualifier whose name behind the dot is still to come
    for token, following in zip(tokens, [*tokens[1:], end], strict=True):
        after_dot = previous.text == "."
        previous = token
        if token.text == qualifier and following.text == "." and not after_dot:
            pending = token
        elif pending is None:
            if token.kind == "word":
                _check_name(token, after_dot, foreign=following.text == "." and not after_dot)
            yield token
        elif after_dot:
            if token.kind != "word":
                raise _Refused(token.start, f"write an exported name behind {_clip(pending.text)}.")
            _check_name(token, after_dot, foreign=False)
            yield token._replace(spaced=pending.spaced)
            pending = None
    if pending is not None:
        raise _Refused(end.start, f"write an exported name behind {_clip(pending.text)}.")


def _check_name(token: _Token, after_dot: bool, foreign: bool) -> None:
    """Permit exported and predeclared names, and the keywords of types.

    `foreign`: a dot follows, as behind the name of a package.
    """
    name, clipped = token.text, _clip(token.text)
    if not name.isascii() and not all(_in_name(c) for c in name):
        raise _Refused(token.start, f"{clipped} is not a Go name; a name has letters, digits and _")
    if _exported(name) or (not after_dot and (name in _PREDECLARED or name in _TYPE_WORDS)):
        return
    if name in _STATEMENT_WORDS:
        raise _Refused(token.start, f"{name} belongs to statements; write one call expression")
    if name == "func":
        raise _Refused(token.start, f"function literals and types are not allowed; {_REMEDY}")
    if foreign:
        raise _Refused(
            token.start,
            f"{clipped} is foreign; use names of the called package only. The package's own name may stand "
            "before them if it stands before the first",
        )
    raise _Refused(token.start, _not_exported(name))


def _in_name(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "L" or category == "Nd" or character == "_"


def _clip(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _not_exported(name: str) -> str:
    return f"{_clip(name)} is not exported; exported names begin with an upper-case letter"


def _canonical(tokens: list[_Token]) -> str:
    """Join tokens, without the spaces that mean nothing."""
    parts: list[str] = []
    previous = tokens[0]._replace(text="", kind="")
    for token in tokens:
        if previous.text == ",":
            space = "" if token.text in _CLOSES else " "
        else:
            space = " " if token.spaced and _would_merge(previous, token) else ""
        parts += (space, token.text)
        previous = token
    return "".join(parts)


def _would_merge(left: _Token, right: _Token) -> bool:
    """Whether two tokens would be read as others without a space between them."""
    if {left.kind, right.kind} <= {"word", "number"}:
        return True
    match = _TOKEN.match(left.text + right.text)
    return match is None or match.group() != left.text


def _call_node(call: str) -> Node:
    """Parse the text, and return the node of the one call expression that it consists of."""
    prefix = b"package p\nvar _ = "
    source = prefix + call.encode() + b"\n"

    def refused(node: Node, reason: str) -> _Refused:
        before = source[len(prefix) : max(node.start_byte, len(prefix))].decode()
        return _Refused(min(len(before), len(call) - 1), reason)

    file = _parse_go(source)
    if file.has_error:
        raise refused(_first_error(file), "not a Go expression from here on")
    declarations = file.named_children[1:]
    values = declarations[0].named_children[0].child_by_field_name("value") if declarations else None
    if len(declarations) != 1 or values is None or values.named_child_count != 1:
        raise _Refused(0, "write exactly one call expression")
    root = values.named_children[0]
    generic = root.type == "type_conversion_expression" and root.named_children[0].type == "generic_type"
    if root.type != "call_expression" and not generic:
        raise _Refused(0, "not a call; the whole text must be one call, such as Encode(100.1, 80.9)")
    # A list instead of recursion: a tree may be deeper than Python's stack.
    unchecked = [(root, 0)]
    while unchecked:
        node, depth = unchecked.pop()
        if node.type not in _EXPRESSIONS:
            raise refused(node, f"a {node.type.replace('_', ' ')} cannot be in a call; {_REMEDY}")
        if depth > _MAX_DEPTH:
            raise refused(node, f"a chain of more than {_MAX_DEPTH} links; {_REMEDY}")
        if node.named_child_count:
            unchecked.extend((child, depth + 1) for child in node.named_children)
    return root


def _first_error(node: Node) -> Node:
    """The first node that the parser could not read."""
    while not node.is_error and not node.is_missing:
        inner = next((child for child in node.children if child.has_error), None)
        if inner is None:  # the missing end of a statement has no node: it belongs before the last child
            return node.children[-1] if node.children else node
        node = inner
    return node


def _parse_go(source: bytes) -> Node:
    """Parse with bounded work. The two callbacks let other threads run meanwhile."""
    steps = 0

    def read(offset: int, _: Point) -> bytes:
        return source[offset : offset + 4096]

    def too_many_steps(_: int, __: bool) -> bool:
        nonlocal steps
        steps += 1
        return steps > _MAX_PARSE_STEPS

    try:
        return Parser(_GO).parse(read, progress_callback=too_many_steps).root_node
    except ValueError:
        raise _Refused(0, f"too intricate for the parser; {_REMEDY}") from None


def _literals(call: Node, qualifier: str | None) -> tuple[str, ...] | None:
    """The arguments' source texts, if all are literals and the callee is a plain function; else None."""
    function, arguments = call.child_by_field_name("function"), call.child_by_field_name("arguments")
    if function is None or arguments is None or call.child_by_field_name("type_arguments") is not None:
        return None
    if qualifier is not None and function.type == "selector_expression":
        operand = function.child_by_field_name("operand")
        plain = operand is not None and operand.text == qualifier.encode()
    else:
        plain = function.type == "identifier"
    literals = [_literal(node) for node in arguments.named_children]
    return tuple(text for text in literals if text) if plain and all(literals) else None


def _literal(node: Node) -> str:
    """The text of a literal, with its sign; empty for anything else."""
    sign = ""
    if node.type == "unary_expression" and node.children[0].type in ("+", "-"):
        sign, node = node.children[0].type, node.children[1]
        if node.type not in _NUMBERS:
            return ""
    return sign + (node.text or b"").decode() if node.type in _LITERALS else ""
