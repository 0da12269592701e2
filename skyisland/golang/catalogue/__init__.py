"""What a package offers, as a program of ours tells it from within the build jail.

The program (`main.go` and the files beside it) runs beside a stranger's code, so what it prints is a
stranger's text: `read` bounds it, checks every field, and takes the control characters out. It has the
compiler's word for names and types, the source's for comments and examples. No code of the package runs.

    schemas      types become JSON Schema by the rules of encoding/json and of the harness; a named type
                 stands in `Catalogue.schemas`, and others refer to it, so that a recursive one has an end
    examples     those of Go's Example functions that only print calls are calls ready to be sent

Where all of it would take more than its bound, long texts go first, then schemas, then functions.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from difflib import SequenceMatcher, get_close_matches
from heapq import nlargest
from importlib import resources
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from skyisland.errors import BuildFailed, IslandError

MOST_BYTES = 1 << 20
"""The longest catalogue. A judgement: the largest packages of the standard library take a quarter of it."""
MOST_NESTED = 100
"""How deep a schema may be nested: deeper than the program makes any."""
MOST_CALLS = 200
"""Calls of examples that are parsed, some milliseconds each at worst; those that come after are left out."""
MOST_LETTERS = 64
"""A longer name is nobody's slip, and to compare such takes long."""
MOST_NAMES = 1000
"""Names that one is compared with, by their letters alone."""
MOST_COMPARED = 50
"""The closest of these, which are compared letter by letter: 1 ms each at worst."""
MOST_HINTS = 3
"""Complaints about one call that get a hint."""

Name = Annotated[str, Meta(max_length=300)]
Type = Annotated[str, Meta(max_length=4000)]
Text = Annotated[str, Meta(max_length=5000)]
Schema = dict[str, Any]


class TypeParameter(Struct, frozen=True):
    """A type parameter of a generic function."""

    name: Name
    constraint: Type


class Parameter(Struct, frozen=True):
    """A parameter of a function."""

    name: Name
    """Its name; `arg1` and so on where it has none."""
    type: Type
    """As Go writes it."""
    schema: Schema | None
    """What JSON gives it; null if JSON cannot, or if it is `given`."""
    variadic: bool = False
    """Any number of values may stand for it; `type` and `schema` are those of one."""
    given: bool = False
    """The island gives it: a context, or what the function writes to."""


class Result(Struct, frozen=True):
    """A result of a function."""

    name: Name
    type: Type
    schema: Schema | None


class ReadyCall(Struct, frozen=True):
    """A call that an example makes, and what the example prints of it."""

    call: Annotated[str, Meta(max_length=400)]
    output: Text


class Example(Struct, frozen=True):
    """One of Go's Example functions."""

    name: Name
    """What tells it from others of the same function; mostly empty."""
    doc: Text
    code: Text
    output: Text
    """What it prints, by its own comment; empty if it tells none."""
    unordered: bool
    """The lines of the output come in any order."""
    calls: list[ReadyCall]
    """If it does nothing but print calls: these."""


class Entry(Struct, frozen=True):
    """One exported name, or a method of one."""

    kind: Literal["function", "method", "variable", "constant", "type"]
    name: Name
    """`Encode`; of a method `Client.Do`."""
    signature: Text
    """How the source declares it."""
    synopsis: Text
    """The first sentence of `doc`."""
    doc: Text
    call: Text
    """A call of it, with names for what parameters want: `NewClient(name).Do(n)`; empty if there is none."""
    type_parameters: list[TypeParameter]
    parameters: list[Parameter]
    results: list[Result]
    """Without a trailing error."""
    fails: bool
    """Its last result is an error."""
    callable: bool
    """There is some form of call for it."""
    why: Text
    """If it cannot be called, or not with arguments as data alone: why."""
    examples: list[Example]

    @property
    def declaration(self) -> str:
        """The signature on one line."""
        return " ".join(self.signature.split())


class Catalogue(Struct, frozen=True, kw_only=True):
    """What a package offers."""

    url: str = ""
    """The repository."""
    package: str = ""
    """Folder of the package below the repository."""
    version: str = ""
    """The commit."""
    stale: bool = False
    """The remote was out of reach, so this is of the last commit that is known."""
    name: Name
    """The package's own."""
    import_path: Type
    synopsis: Text
    doc: Text
    functions: list[Entry]
    examples: list[Example]
    """Those of the package as a whole."""
    schemas: dict[str, Schema]
    """Named types; `{"$ref": "#/schemas/Point"}` refers to one."""
    omitted: int
    """Functions for which there was no room."""

    def find(self, *path: str) -> Entry | None:
        """The function that a chain of calls ends with: `find("NewClient", "Do")` is the method `Client.Do`.
        Each link is a method of the first result of the one before. The package's name may stand in front.
        None if there is no such function."""
        entries = {entry.name: entry for entry in self.functions}
        found = entries.get(path[0].removeprefix(f"{self.name}."))
        for name in path[1:]:
            if found is None:
                return None
            of = found.name if found.kind == "type" else found.results[0].type if found.results else ""
            found = entries.get(f"{_plain(of)}.{name}")
        return found

    def close_to(self, name: str, of: str = "") -> list[str]:
        """Names of the package, or methods of its type `of`, that somebody may have meant by `name`; the
        closest first."""
        if len(name) > MOST_LETTERS:
            return []
        prefix = f"{_plain(of)}." if of else ""
        names = [entry.name.removeprefix(prefix) for entry in self.functions if entry.name.startswith(prefix)]
        names = [one for one in names if len(one) <= MOST_LETTERS and "." not in one][:MOST_NAMES]
        matcher = SequenceMatcher(b=name)

        def likeness(one: str) -> float:
            matcher.set_seq1(one)
            return matcher.quick_ratio()

        same = [one for one in names if one.casefold() == name.casefold()]
        return same or get_close_matches(name, nlargest(MOST_COMPARED, names, likeness), n=3, cutoff=0.7)


def _plain(type_text: str) -> str:
    """A type's name: `Client` of `*Client`, `Pair` of `Pair[K, V]`."""
    return type_text.lstrip("*").partition("[")[0]


def sources() -> dict[str, bytes]:
    """The Go files of the program, by name. Blocks."""
    folder = resources.files(__name__)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".go")}


@functools.cache
def version() -> str:
    """A hash of the program: what it told is kept under it. Blocks."""
    return hashlib.sha256(repr(sorted(sources().items())).encode()).hexdigest()[:16]


def read(output: bytes) -> Catalogue:
    """The catalogue that the program printed. Blocks.

    Raises:
        BuildFailed: it is none. Somebody else has printed it, for our program prints no other.
    """
    if len(output) > MOST_BYTES:
        raise BuildFailed(f"what the package offers takes more than {MOST_BYTES} bytes")
    try:
        told = msgspec.json.decode(output, type=Catalogue)
        return msgspec.convert(_clean(_without_foul_calls(told)), Catalogue)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BuildFailed("what the package offers cannot be read") from error


def _without_foul_calls(told: Catalogue) -> Any:
    """Plain values, without calls of examples that the island would refuse."""
    left = MOST_CALLS
    plain = msgspec.to_builtins(told)
    for one in (plain, *plain["functions"]):
        for example in one["examples"]:
            calls, left = example["calls"], left - len(example["calls"])
            if left < 0 or not all(_is_call(ready["call"], told.name) for ready in calls):
                example["calls"] = []
    return plain


def _is_call(text: str, package: str) -> bool:
    if _clean(text) != text:
        return False
    # Clients have the shapes of this module; loading the grammar takes 20 ms, which they should not pay.
    from skyisland.golang.call import parse_call

    try:
        call = parse_call(text)
    except IslandError:
        return False
    of_others = call.otherwise is not None and package in call.otherwise.imports
    return call.qualifier in (None, package) or of_others


_UNSEEN = re.compile(r"[^\n\t\x20-\x7e\u200c\u200d]")
"""What may not show. The two joiners are parts of emoji and of words."""


def _clean(value: Any, depth: int = 0) -> Any:
    """The same without control characters."""
    if depth > MOST_NESTED:
        raise RecursionError
    if isinstance(value, str):
        return _UNSEEN.sub(_visible, value)
    if isinstance(value, dict):
        return {_clean(key): _clean(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_clean(one, depth + 1) for one in value]
    return value


def _visible(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else "\N{REPLACEMENT CHARACTER}"


def hint(catalogue: Catalogue, function: str, output: str) -> str:
    """What to add to a compiler's complaint about a call of `function`: the names that come close to one that
    is not there, the signature where arguments do not fit. Empty if there is nothing to add. Blocks.

    `output`: the compiler's, as `complaints.clean` makes it.
    """
    hints: list[str] = []
    for message in re.findall(r"^call:1:\d+: (.+)", output, re.MULTILINE)[:MOST_HINTS]:
        if missing := re.match(r"undefined: (?:\w+\.)?(\w+)$", message):
            hints.append(_there_is(catalogue.close_to(missing[1])))
        elif missing := re.search(r"type \*?([\w.]+)\b.* has no field or method (\w+)", message):
            hints.append(_there_is(catalogue.close_to(missing[2], missing[1].rpartition(".")[2])))
        elif (entry := catalogue.find(function)) and entry.kind == "function":
            hints.append(f"it is declared as {entry.declaration}")
    return "".join(f"; {one}" for one in dict.fromkeys(filter(None, hints)))


def some_functions(catalogue: Catalogue | None) -> str:
    """The names of the first functions of a package; empty if none is known."""
    functions = [] if catalogue is None else [e.name for e in catalogue.functions if e.kind == "function"]
    return ", ".join(functions[:MOST_HINTS])


def _there_is(names: Sequence[str]) -> str:
    if names[1:]:
        return f"there are {', '.join(names[:-1])} and {names[-1]}"
    return f"there is {names[0]}" if names else ""
