"""Understands calls whose arguments are data: the bare name of a function, and type arguments.

A name and types enter, a `Call` leaves whose binary takes any arguments: other values never need another
build. The name and the types are checked by `call`, as parts of the call `Name[types]()`; a type besides must
be nothing but a type, because the main program evaluates what stands there before a call comes.
"""

from __future__ import annotations

import re

import msgspec
import tree_sitter_go
from msgspec import UNSET, structs
from tree_sitter import Language, Node, Parser

from skyisland.errors import BadCall, BadRequest
from skyisland.golang.call import parse_call, read_call
from skyisland.model import Call, FunctionRequest

PROGRAM = Call(text="main", function="main", arguments=())
EXAMPLES = Call(text="examples", function="examples", arguments=(), takes_data=True)
"""The package's Example functions, as `go test` compiles them."""
NO_EXAMPLE = "verify: the package has no Example with `// Output:`; write one, or leave verify out"
EXAMPLE_WORDS = ("-test.run=^Example", "-test.v=true", "-test.count=1")
MAX_WORDS, MAX_WORDS_BYTES = 200, 64 << 10
"""Longest command line of a program. The launcher of jails takes 254 words, and 128 KiB with all else."""
MAX_NAME = 200
"""Longest name, in characters. A judgement: names in Go have twenty."""

_PLACE = re.compile(r"^call(?:, byte [0-9]+)?: ")
_NAME = re.compile(r"(?:[^\W\d]\w*\.)?[^\W\d]\w*")
_GO = Language(tree_sitter_go.language())
_TYPES = re.compile(
    "type_identifier|qualified_type|package_identifier|pointer_type|slice_type|array_type|int_literal|map_type"
    "|channel_type|generic_type|type_arguments|type_elem|parenthesized_type|struct_type|field_declaration_list"
    "|field_declaration|field_identifier|interface_type|function_type|parameter_list|parameter_declaration"
    "|variadic_parameter_declaration|identifier"
)


HANDLER = "handler "
"""How the text of a handler's call begins: no Go expression does."""


async def understand(request: FunctionRequest) -> Call:
    """The call of a request.

    Raises:
        BadCall: it is none that runs; names the mistake and the remedy.
        BadRequest: it has types without data.
    """
    if request.call in ("", "main"):
        return PROGRAM
    if request.data is not None:
        return parse_callee(request.call, request.types)
    if request.types:
        message = "types: an expression has them in itself, F[int](1); send these with args or inputs"
        raise BadRequest(message, field="types")
    return await read_call(request.call)


def command_line(request: FunctionRequest) -> tuple[str, ...]:
    """What a program is run with, beside its name.

    Raises:
        BadRequest: `args` is no command line, or there is what a program cannot take.
    """
    for field, there in (("inputs", request.inputs is not UNSET), ("types", bool(request.types))):
        if there:
            message = f"{field}: a program takes args alone; or name a function in call"
            raise BadRequest(message, field=field)
    if request.args is UNSET:
        return ()
    try:
        words: tuple[str, ...] = msgspec.json.decode(request.args, type=tuple[str, ...])
    except msgspec.DecodeError as error:
        element = re.search(r"`\$(\[[0-9]+\])`", str(error))
        where = f"args{element[1]}: this is no text; a" if element else "args: a"
        message = f"{where} program takes an array of texts; or name a function in call"
        raise BadRequest(message, field="args") from None
    if len(words) > MAX_WORDS or sum(len(word.encode()) for word in words) > MAX_WORDS_BYTES:
        message = f"args: more than {MAX_WORDS} words or {MAX_WORDS_BYTES} bytes; send large data as stdin"
        raise BadRequest(message, field="args")
    if any("\0" in word for word in words):
        raise BadRequest("args: a program's words hold no NUL; send such data as stdin", field="args")
    return words


def parse_callee(name: str, types: tuple[str, ...] = ()) -> Call:
    """A call of the function with this name, which will get its arguments as JSON.

    Raises:
        BadCall: this is no name of an exported function, or one of these is no type.
    """
    name = name.strip()
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BadCall(
            "call: with args or inputs, this is the bare name of a function, such as Encode; leave "
            "parentheses out, or write the arguments in call",
            position=0,
        )
    for number, text in enumerate(types):
        _check_type(text, f"types[{number}]")
    call = _parsed(name, (), "call")
    for number, text in enumerate(types):
        _parsed(name, (text,), f"types[{number}]")
    if types:
        call = _parsed(name, types, "types")
    other = call.otherwise and _taking_data(call.otherwise)
    return structs.replace(_taking_data(call), otherwise=other)


def parse_handler(name: str) -> Call:
    """What answers HTTP requests: the handler with this name, or the function that returns one.

    Raises:
        BadCall: this is no exported name.
    """
    call = parse_callee(name)
    other = call.otherwise and _answering_http(call.otherwise)
    return structs.replace(_answering_http(call), otherwise=other)


def _answering_http(call: Call) -> Call:
    return structs.replace(call, text=HANDLER + call.function, serves=True)


def _parsed(name: str, types: tuple[str, ...], field: str) -> Call:
    """The call of a function with nothing in its parentheses.

    Raises:
        BadCall: in the words of `field`, because the caller has not sent this text.
    """
    try:
        return parse_call(f"{name}[{', '.join(types)}]()" if types else f"{name}()")
    except BadCall as refusal:
        reason = _PLACE.sub("", refusal.message)
        if field == "call":
            raise BadCall(f"call: {reason}", position=0) from None
        raise BadCall(f"{field}: {reason}", path=field) from None


def _taking_data(call: Call) -> Call:
    """The call without its empty parentheses."""
    function = call.text.removesuffix("()")
    return structs.replace(call, text=function, function=function, arguments=(), takes_data=True)


def _check_type(text: str, where: str) -> None:
    """Refuse what is not the text of one type.

    Raises:
        BadCall
    """
    refused = BadCall(f'{where}: not a type of Go, such as "int" or "[]string"', path=where)
    if "\n" in text or not text.strip():
        raise refused
    file = Parser(_GO).parse(b"package p\nvar _ " + text.encode(errors="replace") + b"\n").root_node
    if file.has_error or file.named_child_count != 2:
        raise refused
    specification = file.named_children[1].named_children[0]
    kind = specification.child_by_field_name("type")
    if kind is None or specification.named_child_count != 2:
        raise refused
    unchecked: list[Node] = [kind]
    while unchecked:
        node = unchecked.pop()
        if not _TYPES.fullmatch(node.type):
            raise refused
        unchecked += node.named_children
