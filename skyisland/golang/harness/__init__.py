"""The Go main programs that run a call, and the protocol between them and the island.

Three forms, tried in this order; if a build fails, `classify` of its output decides which comes next:

*function*    `call.arguments` is a tuple. The binary is for the function, whatever its arguments: they
              come in the frame, and the harness converts them to the parameters' types by Go's rules for
              constants.
*expression*  `call.arguments` is None. The whole call is compiled. Also for a callee that is not a function
              value (`Complaint.generic`, `Complaint.type`): continue with `as_expression(call)`.
*statement*   an expression without a value (`Complaint.no_value`), compiled with `Form.statement`: it
              prints nothing.

First they wait for one frame on standard input: four bytes of length, big-endian, and a JSON header. They
read not one byte past it: what follows is the function's input. If standard input ends before a frame
begins, they exit 0 and call nothing. They read no environment; Go's runtime does (`runtime`). If the
arguments do not fit, they do not call the function, write one line to standard error, which `rejection`
reads, and exit with `EXIT_REJECTED`.

The header is `{"args":[…],"nonce":…}`, then what a plain call does not have, in this order (`parseHeader` in
frame.go knows no other one):

    ,"want":"text"    nobody wants the results as JSON, so that none is made
    ,"json":N         N bytes follow the header: the arguments as JSON, in place of `args`
    ,"timeout_ms":T   after `json`: so long may the call take; a context.Context ends a little earlier
    ,"many":true      after `timeout_ms`: the JSON is an array of arguments, for one call after another
    ,"env":[…]        after that: names and values of environment variables, in turns. The function finds
                      them by os.Getenv, what runs before main does not; and /proc has nothing of them
    ,"peer":…         last: the address of who sent a handler its request

The answer ends standard output. After what the function printed itself, the harness writes, in one write:

    text      exactly what `fmt.Print(package.Call(…))` prints of the results
    mark      the frame's nonce
    lengths   of the text and of the record, each in eight hexadecimal digits
    record    JSON: {"results":[…],"error":{"message":…,"type":…,"at":…}}, each left out where there is none

`Records` cuts the record off, so that all else stays what it is without it. A trailing result of the type
`error` is no part of `results`; an error is a call that failed, whose process ends with code 0. The error of
a part of the call (`harness.Fail`) has in `at` which part. A process may write several of these, one after
another, one for each input of many; whatever stands behind the last one was printed, too.

The record is the process's last word: it ends with code 0 then. So the island answers as soon as the record
is there, with what was written until then, and takes the jail away; nobody waits for the process's end.

A function can find the nonce in its memory and forge a record, of which its own answer is the only victim.

A main program calls, of the package `harness` (answer.go):

    Answer(F, names…)    waits for the frame, calls the function F with its arguments, answers; the names are
                         those of its parameters, or none if they are not known
    Begin() bool         waits for the frame, of whatever has no arguments to take from it; false: do nothing
    Show(expression)     answers with the values of an expression, one or more: Show(F())
    ShowValue(name)      the same for a name that is not called; refuses functions
    Done()               answers for a statement
    handler.Serve(H)     of the package `handler` beside it (golang/handler): waits for the frame, and has H
                         answer the HTTP request behind it; no record follows
    Must, MustBeTrue     end the call with the error of a link, if there is one (links.go)
    Fail(error, part)    answers with an error of a part of the call, and ends the process

How to build
    Put the rendered main program, by way of `-overlay`, into the folder `FOLDER` *inside the package's own
    folder*, and build that folder from there; put the files of `library` into a folder `LIBRARY` of the
    standard library. With `checkout` and `package` as in `Source`:

        home = checkout / package
        overlay = {"Replace": {
            str(home / FOLDER / "main.go"): …,
            **{str(goroot / "src" / LIBRARY / name): … for name in library()},
        }}
        cd home && go build -trimpath -buildvcs=false -ldflags="-s -w" -overlay FILE -o OUT ./_skyisland

    The harness is a part of the standard library so that Go compiles it once, not with each function: to
    compile it takes three times as long as a main program.

    Inside the package's folder, internal packages (the package itself may be one), nested modules, `vendor`
    and `go.sum` work as for the repository's own code; and wildcards skip a folder whose name begins with an
    underscore. Nothing is written into the checkout, so builds of one checkout can run side by side. If
    there is no go.mod, add `{str(checkout / "go.mod"): FILE}` to the overlay. `import_path` and
    `package_name` are the output of `go list -f '{{.ImportPath}} {{.Name}}' .` in `home`.

The main program imports the package with a dot, so a call is compiled as it stands in `Call.text`. That is
safe: a call declares no name but in function literals, and none of the main program's own (`tokens`); its
brackets match, and around it stand others. What it names of other packages is imported by name. Main
programs need Go 1.24 and get that version of the language even in modules that declare an older one.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec

from skyisland.errors import BadCall, BadRequest, Complaint
from skyisland.golang import links
from skyisland.golang.imports import STANDARD
from skyisland.model import Call, Data, GoError, Outcome, Returned, Verdict

FOLDER = "_skyisland"
"""The folder of the main program, below the folder of the package."""

LIBRARY = "skyisland_harness"
"""The folder of the files of `library`, below `src` in the toolchain: an import path that nobody else has."""

HANDLERS = "skyisland_handler"
"""The same for the file of `handler_library`, which main programs of handlers import in place of that."""

REASON_CHARACTERS = 500
"""So much of the harness's reason reaches the caller: more than any reason of its own has."""
EXIT_REJECTED = 64
"""The harness refused the arguments; `rejection` reads its reason."""
RECORD_BYTES = (1 << 20) + (1 << 17)
"""No record is longer: the results (`maxResults` in results.go), an error's message, each byte of which JSON
may write with six, and what stands around them. So much may follow what the function prints."""
EXIT_TORN = 65
"""Standard input ended inside the frame, or did not begin with one."""

_SOURCES = {
    file.name: file.read_bytes()
    for file in sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    if file.name.endswith(".go")
}

_HANDLER_SOURCE = resources.files("skyisland.golang").joinpath("handler", "handler.go").read_bytes()

_PROGRAM = """\
// Code generated by Sky Island. DO NOT EDIT.

//go:build go1.24

package main

import (
	{library}
{imports}
)

func main() {{
{body}}}
{functions}"""

_FUNCTION = """\
	harness.Answer({call}{parameters})
"""

_EXPRESSION = """\
	if harness.Begin() {{
		harness.Show({call})
	}}
"""

_HANDLER = """\
	handler.Serve({call})
"""

_BARE = """\
	if harness.Begin() {{
		harness.ShowValue({call})
	}}
"""

_STATEMENT = """\
	if harness.Begin() {{
		({call})
		harness.Done()
	}}
"""

_CALL = links.CALL
"""The file name in the compiler's messages about the call, by the main program's `//line` comments."""


class Form(NamedTuple):
    """How a main program is written, where the call's text alone does not say it."""

    statement: bool = False
    """The expression has no value."""
    links: links.Links = ()
    """Parts of it that give an error beside their value."""


def compiled_text(call: Call) -> str:
    """What of the call is compiled: in function form, the function alone."""
    return call.function if call.arguments is not None else call.text


def render_main(
    call: Call,
    import_path: str,
    package_name: str,
    *,
    form: Form = Form(),  # noqa: B008 - a tuple
    imports: Mapping[str, str] = MappingProxyType({}),
    parameters: Iterable[str] = (),
) -> dict[str, bytes]:
    """The main program of a call: file names and contents. The same input gives the same bytes.

    In function form it does not depend on the arguments, and `form.statement` is ignored: it prints the
    results if there are any. `imports`: import paths of `call.imports`, by name. `parameters`: the names of
    the function's parameters, for arguments by name.

    Raises:
        BadCall, BadRequest: as for `check_package`.
    """
    check_package(call, import_path, package_name)
    library = f'harness "{LIBRARY}"'
    if call.serves:
        body, library = _HANDLER, f'handler "{HANDLERS}"'
    elif call.arguments is not None:
        body = _FUNCTION
    elif form.statement:
        body = _STATEMENT
    else:
        # A function that is named but not called: what its caller means is said where its type is known.
        body = _BARE if re.fullmatch(r"[\w.]+", call.text) else _EXPRESSION
    lines = [] if call.apart else [f'\t. "{import_path}"']
    for name, path in imports.items():
        _check_path(path)
        lines.append(f'\t{name} "{path}"')
    names = "".join(f', "{name}"' for name in parameters if name.isidentifier())
    main = _PROGRAM.format(
        library=library,
        imports="\n".join(("", *lines)),
        body=body.format(call=links.placed(compiled_text(call), form.links), parameters=names),
        functions=links.functions(form.links),
    )
    return {"main.go": main.encode()}


def check_package(call: Call, import_path: str, package_name: str) -> None:
    """Check that a main program can be written for a call of this package.

    Raises:
        BadCall: the caller named another package, or the package is a program.
        BadRequest: Go would not accept the import path.
    """
    if call.qualifier not in (None, package_name):
        message = (
            f"call: the package is {package_name}, not {call.qualifier}; leave the name out or correct it"
        )
        raise BadCall(message, position=0)
    if package_name == "main":
        raise BadCall(
            "call: package main is a program; only packages that can be imported have callable functions"
        )
    _check_path(import_path)


def _check_path(import_path: str) -> None:
    if not re.fullmatch(r"[\w.~+@=:!,/-]+", import_path):
        raise BadRequest(f"url: {import_path!r} is not an import path of Go")


def library() -> dict[str, bytes]:
    """The Go files of the package `harness`, which all main programs import."""
    return dict(_SOURCES)


def handler_library() -> dict[str, bytes]:
    """The Go files of the package `handler`. It is apart, because net/http is in every binary that has it."""
    return {"handler.go": _HANDLER_SOURCE}


@functools.cache
def version() -> str:
    """A hash of all Go code that we compile with a function: if it changes, so do the binaries."""
    programs: list[bytes] = []
    link = links.Link(0, 2, 1, truth=False, name="F")
    for text, arguments in (("F()", ()), ("F()", None), ("F", None)):
        call = Call(text=text, function="F", arguments=arguments)
        for found in ((), (link,), (link._replace(truth=True),)) if text == "F()" else ((),):
            for statement in (False, True):
                form = Form(statement=statement, links=found)
                programs += render_main(call, "p", "p", form=form).values()
    handler = Call(text="handler F", function="F", arguments=(), serves=True)
    programs += render_main(handler, "p", "p").values()
    parts = (programs, sorted(_SOURCES.items()), _HANDLER_SOURCE, sorted(STANDARD.items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def as_expression(call: Call) -> Call:
    """The same call in expression form, to be compiled with its arguments."""
    return msgspec.structs.replace(call, arguments=None)


def frame(
    call: Call,
    nonce: str,
    *,
    text_only: bool = False,
    data: Data | None = None,
    timeout_s: float = 0.0,
    environment: Iterable[tuple[str, str]] = (),
    peer: str = "",
) -> bytes:
    """The frame for the harness; write the function's own input behind it.

    `nonce` must be new for every call and unguessable: it marks what the harness says, see `Records` and
    `rejection`. `text_only`: no results as JSON are wanted. `data`: arguments as JSON, in place of those of
    `call`; the process will be killed after `timeout_s`. `environment`: variables with their values.
    `peer`: who sent a handler its request.
    """
    fields: dict[str, object] = {"args": call.arguments or (), "nonce": nonce}
    if text_only:
        fields["want"] = "text"
    if data is not None:
        fields |= {"json": len(data.json), "timeout_ms": int(timeout_s * 1000)}
        if data.many:
            fields["many"] = True
    if environment:
        fields["env"] = [text for variable in environment for text in variable]
    if peer:
        fields["peer"] = peer
    header = msgspec.json.encode(fields)
    return struct.pack(">I", len(header)) + header + (data.json if data is not None else b"")


class _Record(msgspec.Struct):
    results: msgspec.Raw = msgspec.Raw(b"null")
    error: GoError | None = None


_records = msgspec.json.Decoder(_Record)
_LENGTHS = re.compile(rb"([0-9a-f]{8})([0-9a-f]{8})")


class Records:
    """What the harness says in standard output, as that comes: once, or once for each of many inputs.

    All of it is the jail's word. What is no whole record, as where output was cut off, says nothing, and is
    left out with all that follows it.
    """

    def __init__(self, nonce: str, most: int) -> None:
        """`most`: so many records are read; what looks like one more is output like any other."""
        self._mark = nonce.encode()
        self._left = most
        self._unread = bytearray()
        self._searched = 0
        """So much of `_unread` holds no mark; searched once, so that the time is linear in what comes."""
        self._torn = False

    @property
    def rest(self) -> bytes:
        """What was printed and belongs to no answer, up to a record that is none, or not whole."""
        mark_at = self._unread.find(self._mark) if self._left else -1
        return bytes(self._unread if mark_at < 0 else self._unread[:mark_at])

    def take(self, chunk: bytes) -> list[Returned]:
        """Take more of standard output; returns the answers that are whole now."""
        self._unread += chunk
        answers: list[Returned] = []
        begin = 0
        while self._left and not self._torn:
            at = self._unread.find(self._mark, max(begin, self._searched))
            if at < 0:
                self._searched = max(begin, len(self._unread) - len(self._mark))
                break
            self._searched = at
            record_at = at + len(self._mark) + 16
            lengths = _LENGTHS.fullmatch(self._unread, record_at - 16, record_at)
            if lengths is None:
                self._torn = len(self._unread) >= record_at
                break
            end = record_at + int(lengths[2], 16)
            if end > len(self._unread):
                break
            answer = _answer(bytes(self._unread[begin:at]), lengths, bytes(self._unread[record_at:end]))
            if answer is None:
                self._torn = True
                break
            answers.append(answer)
            self._left -= 1
            begin = self._searched = end
        if begin:
            del self._unread[:begin]
            self._searched -= begin
        return answers


def _answer(before: bytes, lengths: re.Match[bytes], record: bytes) -> Returned | None:
    """What a record says; None if it is none. `before`: all output between the record before and this one."""
    text_at = max(0, len(before) - int(lengths[1], 16))
    try:
        # Decoded first: msgspec does not look whether what it skips is UTF-8.
        said = _records.decode(record.decode())
    except (ValueError, RecursionError):
        return None
    results = bytes(said.results)
    return Returned(
        printed=before[:text_at],
        text=before[text_at:],
        results=results if results.startswith(b"[") else None,
        error=said.error,
    )


class _Rejection(msgspec.Struct):
    argument: Annotated[int, msgspec.Meta(ge=-1, lt=1 << 16)]
    reason: str
    path: str = ""
    """Where in JSON it is: `args[1].lat`."""


def rejection(outcome: Outcome, nonce: str) -> BadCall | None:
    """The caller's mistake, if the harness refused the arguments; else None.

    `details["argument"]` is the argument's number from 0, or -1 if no single argument is wrong.

    It is the jail's word: the nonce keeps a function from saying so by accident, but one that reads its own
    memory finds it. So the text is bounded and printable, and `details["told_by"]` names the jail.
    """
    if outcome.verdict is not Verdict.exited or outcome.exit_code != EXIT_REJECTED:
        return None
    _, mark, line = outcome.stderr.rpartition(nonce.encode() + b" ")
    if not mark:
        return None
    try:
        refused = msgspec.json.decode(line, type=_Rejection)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    reason, path = _printable(refused.reason), _printable(refused.path)
    if path:
        return BadCall(f"{path}: {reason}", path=path, told_by="jail")
    where = "" if refused.argument < 0 else f" argument {refused.argument + 1}:"
    return BadCall(f"call:{where} {reason}", argument=refused.argument, told_by="jail")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:REASON_CHARACTERS])


_COMPLAINTS: tuple[tuple[Complaint, str], ...] = (
    (Complaint.program, r"is a program, not an importable package"),
    (
        Complaint.no_go_files,
        r"no (?:non-test )?Go files in|build constraints exclude all Go files"
        rf"|{FOLDER}/main\.go\S* (?:no required module provides|cannot find module providing) package",
    ),
    (
        Complaint.missing_module,
        r"no required module provides package|cannot find module providing package|missing go\.sum entry"
        r"|module lookup disabled|updates to go\.mod needed|inconsistent vendoring|is not in std"
        r"|cannot find package|is explicitly required in go\.mod, but not marked"
        r"|: reading (?:https?|file)://|: unrecognized import path|unknown revision"
        r"|\(replaced by \.",
    ),
    (Complaint.language, r"requires go1\.\d+ or later"),
    (
        Complaint.generic,
        rf"{_CALL}:1:1: cannot use generic function|in call to harness\.Answer, .*cannot infer",
    ),
    (Complaint.type, rf"{_CALL}:1:1: (?:\S+ \(type\) is not an expression|cannot use generic type)"),
    (Complaint.no_value, rf"{_CALL}:1:1: .*\(no value\) used as value"),
    (Complaint.undefined, rf"{_CALL}:\d+(?::\d+)?: undefined: "),
    (Complaint.mismatch, rf"{_CALL}:\d+(?::\d+)?: "),
)


def classify(compiler_output: str) -> Complaint:
    """The complaint in the output of a failed `go build`."""
    for complaint, pattern in _COMPLAINTS:
        if re.search(pattern, compiler_output):
            return complaint
    return Complaint.package


def call_errors(compiler_output: str) -> list[tuple[int, str]]:
    """The compiler's errors in the call itself: byte offsets into `Call.text`, and messages."""
    errors = re.findall(rf"{_CALL}:([0-9]{{1,7}})(?::([0-9]{{1,7}}))?: (.+)", compiler_output)
    return [(links.offset_of(line, column), message) for line, column, message in errors]
