"""The lexical part of a call: its characters and its tokens, by the Go specification
(https://go.dev/ref/spec#Lexical_elements), and the canonical text that they make.

What this pass permits holds however the rest of the text is understood, by us or by Go; the safety of the
harness rests on it:

- Brackets match, so that no text reaches out of the brackets that a main program puts around it.
- No comments, so no directives to the compiler. No `import`, `package`, `type`, `const`, `go`, `goto`,
  `defer`, `select`. Semicolons, assignments and the other words of statements stand within braces only.
- No name of the main program around the call, and behind a dot exported names only.
- Valid UTF-8. Characters that do not show stand in literals only, where flags and families are made of them;
  those that turn the direction of text, nowhere (write an escape such as `\\u202e`).

Line feeds end statements where Go says so; they become semicolons, so that canonical text has none outside
raw strings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

MAX_NESTING = 100
"""Deepest brackets. A judgement: nobody types a tenth of it, and no parser behind us recurses far."""
REMEDY = "do this in a function of the package"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TYPE_WORDS = words("chan interface map struct func")
_BODY_WORDS = words("break case continue default else for if range return switch var")
_REFUSED_WORDS = words("const defer fallthrough go goto import package select type")
KEYWORDS = TYPE_WORDS | _BODY_WORDS | _REFUSED_WORDS
_RESERVED = re.compile(r"main|init|harness|must[0-9]+")
"""Names of the main program around the call (`harness`)."""

# Characters that do not show although Unicode does not count them as control or format characters.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the order in which other characters are shown, and make text lie."""
_NEVER = _TURNING | {"\ufeff"}
"""Go refuses the byte order mark everywhere but at the beginning of a file."""

# Atomic groups and possessive quantifiers throughout: they never backtrack, so the time grows with the length
# alone. A possessive quantifier behind a group is misread by Python 3.11.2 (gh-106052).
_ESCAPE = r"""\\(?:[abfnrtv\\]|[0-3][0-7]{2}|x[0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}
    |U(?:0000(?![dD][89a-fA-F])|000[1-9a-fA-F]|0010)[0-9a-fA-F]{4})"""
_DECIMAL = r"(?>[0-9](?:_?[0-9])*)"
_HEX = r"(?>[0-9a-fA-F](?:_?[0-9a-fA-F])*)"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\n]++)
    |(?P<comment>//|/\*)
    |(?P<word>[^\W\d]\w*+)
    |(?P<number>(?>(?:
        0[xX](?:_?{_HEX}(?:\.{_HEX}?)?|\.{_HEX})[pP][+-]?{_DECIMAL}
        |0[xX]_?{_HEX}|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+
        |(?:{_DECIMAL}(?:\.{_DECIMAL}?)?|\.{_DECIMAL})(?:[eE][+-]?{_DECIMAL})?
      )i?))
    |(?P<text>"(?>(?:[^"\\\n]|{_ESCAPE}|\\")*)"|`[^`]*+`|'(?:[^'\\\n]|{_ESCAPE}|\\')')
    |(?P<operator>\.\.\.|<-|<<=|>>=|&\^=|<<|>>|&\^|&&|\|\||==|!=|<=|>=|:=|\+\+|--|[-+*/%&|^]=
        |[-+*/%&|^<>!()\[\]{{}},.:;=])""",
    re.VERBOSE,
)
_CLOSES = {")": "(", "]": "[", "}": "{"}
_ASSIGNMENTS = words("= := += -= *= /= %= &= |= ^= <<= >>= &^= ++ --")
_ENDS_STATEMENT = words("break continue fallthrough return ++ -- ) ] }")
"""Behind these words and operators, and behind names and literals, Go takes a line feed for a semicolon."""


class Refused(Exception):
    """The call is refused because of its character at `index`."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class Token(NamedTuple):
    kind: str
    """`word`, `number`, `text` or `operator`."""
    text: str
    start: int
    """Characters from the beginning of the call."""
    spaced: bool
    """White space stands in front."""


def tokens_of(call: str) -> list[Token]:
    """The tokens of a call, checked.

    Raises:
        Refused: it breaks a rule above.
    """
    hidden = _hidden(call)
    tokens = list(_tokens(call, hidden))
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.kind == "word":
            _check_word(token, before, after, hidden)
    return tokens


def exported(name: str) -> bool:
    return unicodedata.category(name[0]) == "Lu"


def clip(name: str) -> str:
    """A name for a message."""
    return name if len(name) <= 40 else f"{name[:39]}…"


def not_exported(name: str) -> str:
    return f"{clip(name)} is not exported; exported names begin with an upper-case letter"


def canonical(tokens: list[Token]) -> tuple[str, list[int]]:
    """The tokens as text, without the spaces that mean nothing; and where in it each of them begins.

    Two texts with the same tokens have the same canonical text. A space stays only where two tokens would
    merge without it; one follows every comma and semicolon.
    """
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    previous = Token("", "", 0, False)
    for token in tokens:
        if previous.text in (",", ";"):
            space = "" if token.text in _CLOSES else " "
        else:
            space = " " if starts and token.spaced and _would_merge(previous, token) else ""
        starts.append(length + len(space))
        length += len(space) + len(token.text)
        parts += (space, token.text)
        previous = token
    return "".join(parts), starts


def without_idle_semicolons(tokens: list[Token]) -> list[Token]:
    """Leave out semicolons before a closing brace: in the body of a function they mean nothing."""
    kept: list[Token] = []
    for token in tokens:
        if token.text == "}" and token.kind == "operator":
            while kept and kept[-1].text == ";":
                kept.pop()
        kept.append(token)
    return kept


def depth_of(text: str) -> int:
    """How many tokens of a text stand in no bracket; what are no tokens of Go are not counted.

    Of all expressions that begin at one place, no two have the same.
    """
    depth = count = index = 0
    while index < len(text):
        match = _TOKEN.match(text, index)
        index = match.end() if match else index + 1
        if match is None or match.lastgroup == "space":
            continue
        depth -= match.group() in _CLOSES
        count += depth <= 0
        depth += match.group() in _CLOSES.values()
    return count


def ends_statement(token: Token) -> bool:
    """Whether Go takes a line feed behind this token for a semicolon."""
    return _ends_statement(token.kind, token.text)


def _ends_statement(kind: str, text: str) -> bool:
    return text in _ENDS_STATEMENT if text in KEYWORDS or kind == "operator" else True


def in_bytes(text: str, starts: list[int]) -> list[int]:
    """Offsets in characters as offsets in bytes."""
    if text.isascii():
        return starts
    offsets, done, count = [], 0, 0
    for start in starts:
        count += len(text[done:start].encode())
        done = start
        offsets.append(count)
    return offsets


def _hidden(call: str) -> frozenset[str]:
    """The characters of the call that do not show, but may stand in literals. Refuses what may not."""
    hidden = {
        c
        for c in set(call) - {"\n", "\t"}
        if c in BLANK or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }
    never = {c for c in hidden if c in _NEVER or unicodedata.category(c) not in ("Cf", "Lo", "Mn")}
    if never:
        index = min(call.index(c) for c in never)
        raise Refused(index, _why_hidden(call[index], "write {} inside a string, or leave it out"))
    return frozenset(hidden)


def _why_hidden(character: str, remedy: str) -> str:
    code = ord(character)
    if unicodedata.category(character) == "Cs":
        return "not valid UTF-8 (half of a surrogate pair)"
    escape = f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return f"U+{code:04X} is invisible; " + remedy.format(escape)


def _tokens(call: str, hidden: frozenset[str]) -> Iterator[Token]:
    """Split the call into tokens; check that brackets match and do not nest too deep."""
    brackets: list[tuple[str, int]] = []
    braces = 0
    index, spaced, ends = 0, False, False
    while index < len(call):
        match = _TOKEN.match(call, index)
        if match is None:
            raise Refused(index, _why_no_token(call[index], hidden))
        kind, text = str(match.lastgroup), match.group()
        inside = brackets[-1][0] if brackets else ""
        if kind == "comment":
            raise Refused(index, "comments are not allowed; leave it out")
        if kind == "number":
            _check_number(call, match)
        elif kind == "space":
            if ends and "\n" in text:
                if inside != "{":
                    raise Refused(
                        index + text.index("\n"),
                        "Go ends the expression at this line feed; break the line behind a comma, a dot or "
                        "an opening bracket, or write the call on one line",
                    )
                yield Token("operator", ";", index, False)
                ends = False
        elif kind == "operator":
            braces += (text == "{") - (text == "}")
            if text in _ASSIGNMENTS and not braces:
                raise Refused(index, "assignments are statements; write one call expression")
            if text == ";" and inside != "{":
                raise Refused(index, "; ends a statement; write exactly one call expression and no semicolon")
            if text in _CLOSES.values():
                brackets.append((text, index))
                if len(brackets) > MAX_NESTING:
                    raise Refused(index, f"nested deeper than {MAX_NESTING}; {REMEDY}")
            elif text in _CLOSES and (not brackets or brackets.pop()[0] != _CLOSES[text]):
                raise Refused(index, f"{text} closes nothing; write exactly one call expression")
        elif text in _BODY_WORDS and not braces:
            raise Refused(index, f"{text} belongs to statements; write one call expression")
        if kind != "space":
            yield Token(kind, text, index, spaced)
            ends = _ends_statement(kind, text)
        spaced = kind == "space"
        index = match.end()
    if brackets:
        opening, index = brackets[-1]
        raise Refused(index, f"{opening} is never closed")


def _why_no_token(character: str, hidden: frozenset[str]) -> str:
    """The reason for the refusal of a text where no token begins with this character."""
    if character in hidden:
        return _why_hidden(character, "it may stand inside a string only; leave it out")
    if character in "\"'`":
        return "this literal is not closed, or has an escape or a number of characters that Go refuses"
    return f"U+{ord(character):04X} cannot be in a Go expression; text belongs in quotes"


def _check_number(call: str, match: re.Match[str]) -> None:
    following = call[match.end() : match.end() + 1]
    if following == "." or following == "_" or following.isalnum():
        raise Refused(match.start(), "malformed number; Go knows 42, 0x2a, 0b101010, 1_000, 1.5e3 and 2i")
    if re.fullmatch(r"0[0-9_]*[89][0-9_]*", match.group()):
        raise Refused(match.start(), "a number that begins with 0 is octal, without 8 and 9; drop the 0")


def _check_word(token: Token, before: Token | None, after: Token | None, hidden: frozenset[str]) -> None:
    name, clipped = token.text, clip(token.text)
    if not name.isascii():
        for index, character in enumerate(name, token.start):
            if character in hidden:
                raise Refused(index, _why_no_token(character, hidden))
            if not _in_name(character):
                raise Refused(token.start, f"{clipped} is not a Go name; a name has letters, digits and _")
    if (
        name == "type"
        and before is not None
        and before.text == "("
        and after is not None
        and after.text == ")"
    ):
        return  # of a type switch
    if name in _REFUSED_WORDS:
        raise Refused(token.start, f"{name} belongs to statements; write one call expression")
    if before is not None and before.text == "." and not exported(name):
        raise Refused(token.start, not_exported(name))
    if _RESERVED.fullmatch(name):
        raise Refused(token.start, f"{clipped} is a name of the program around the call; choose another")


def _in_name(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "L" or category == "Nd" or character == "_"


def _would_merge(left: Token, right: Token) -> bool:
    """Whether two tokens would be read as others without a space between them."""
    if {left.kind, right.kind} <= {"word", "number"} or (left.kind == "number" and right.text[0] == "."):
        return True
    match = _TOKEN.match(left.text + right.text)
    return match is None or match.group() != left.text
