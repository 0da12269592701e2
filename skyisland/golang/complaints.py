"""Turns the outcome of a failed build into an error: one sentence with the remedy, and the compiler's output.

The output is a stranger's text: it is bounded, its paths are made relative, its control characters go.
"""

from __future__ import annotations

import posixpath
import re
import signal

from skyisland.errors import BadCall, BuildFailed, Complaint, IslandError, Unavailable
from skyisland.golang import harness, links
from skyisland.golang.folders import where_packages_lie
from skyisland.golang.reasons import all_left_out, is_pointer, left_out, missed_names, submodule
from skyisland.host.tree import Tree
from skyisland.model import Call, Limits, Outcome, Source, Verdict

OUTPUT_CHARACTERS = 16_384
"""How much of the compiler's output reaches the caller. A judgement: about 200 lines."""
LINE_CHARACTERS = 1000
"""How much of a line is kept. A judgement: a repository can make the compiler print a line of any length."""


def refusal(
    outcome: Outcome, source: Source | None, given: Limits, timeout_s: float, timeout: str
) -> IslandError:
    """The error for a failed build. `given`: what it had. `timeout`: the setting for `timeout_s`. Without
    `source`, no repository took part.

    The compiler's failures are `BuildFailed`; if somebody killed the jail, `Unavailable`.
    """
    match outcome.verdict:
        case Verdict.timed_out if source is None:
            return BuildFailed(f"the build took longer than {timeout_s:g} s")
        case Verdict.timed_out:
            return _too_much(f"took longer than the {timeout_s:g} s", timeout)
        case Verdict.out_of_memory:
            memory = f"{given.memory_bytes >> 20} MiB of " if given.memory_bytes else ""
            return _too_much(f"needed more than the {memory}memory", "build.memory")
        case Verdict.disk_full:
            settings = "build.disk, build.memory, filesystem.quota"
            return _too_much("needed more than the room for files", settings)
        case Verdict.cpu_time:
            return _too_much("took more than the processor time", "build.cpu_time")
        case Verdict.killed:
            return Unavailable("the build was stopped by the operator", retry_after_s=1)
    if outcome.signal == signal.SIGKILL:
        # A compiler does not kill itself, and each limit has a verdict of its own.
        return Unavailable("the build was killed from outside; try again", retry_after_s=1)
    text = _bounded(outcome.stderr)
    output = clean(text, source)
    if outcome.verdict is Verdict.output_limit:
        return BuildFailed("the compiler printed more than it may (build.stderr)", output=output)
    if outcome.verdict is Verdict.signaled:
        return BuildFailed(f"the compiler was ended by signal {outcome.signal}", output=output)
    complaint = harness.classify(text)
    position = next((offset for offset, _ in harness.call_errors(text)), None)
    return BuildFailed(
        explain(complaint, text, source), output=output, complaint=complaint, position=position
    )


def of_data(call: Call, error: BuildFailed) -> IslandError:
    """What Go says of a call whose arguments are JSON, to a caller who sent a name and perhaps types, and no
    text with positions behind the name."""
    name, generic, _ = call.function.partition("[")
    if error.complaint is Complaint.generic:
        what = "is generic, and `types` does not name all of its type arguments"
        return BadCall(f'call: {name} {what}: "types": ["int", …]', position=0)
    if error.complaint is Complaint.type:
        return BadCall(f"call: {name} is a type; write the conversion as a call: {name}(…)", position=0)
    if generic and f"cannot index {name} (" in error.message:
        return BadCall(f"types: {name} has no type parameters; leave types out", path="types")
    if not error.details.get("position"):
        return error
    message = error.message.replace("the call does not fit", "types do not fit", 1)
    return BuildFailed(message, **error.details | {"complaint": error.complaint, "position": None})


def _too_much(met: str, settings: str) -> BuildFailed:
    """The error for a build that met a limit of the island's."""
    return BuildFailed(
        f"the build {met} that this island gives one; a smaller package or another version may do, or its "
        f"operator can raise {settings}"
    )


def explain(complaint: Complaint, text: str, source: Source | None) -> str:
    """One sentence: why the build failed, and the remedy if there is one."""
    package = shown(source) if source else "the standard library"
    about_call = "; ".join(links.without(message) for _, message in harness.call_errors(text))
    match complaint:
        case Complaint.program:
            return (
                f"{package} is a program (package main), which Go cannot import: leave call out to run it, "
                "or name a package of it in the URL"
            )
        case Complaint.no_go_files if other := _left_out_elsewhere(text, source):
            return (
                f"{package} needs {other}, which has no Go files for this system without cgo, and the island "
                "has no C compiler: a fork in pure Go may do"
            )
        case Complaint.no_go_files if "build constraints" in text:
            return f"no Go files in {package} for this system without cgo"
        case Complaint.no_go_files:
            return f"no Go files in {package}: name the folder of a package in the URL"
        case Complaint.undefined:
            names = ", ".join(re.findall(r"undefined: ([^\s;]+)", about_call))
            return f"{package} has no exported {names}"
        case Complaint.mismatch | Complaint.generic | Complaint.type | Complaint.no_value:
            return f"the call does not fit {package}: {about_call}"
        case Complaint.missing_module:
            missing = ", ".join(_missing_packages(text)[:3]) or "what"
            whence = "which neither its go.mod nor the module proxy provides"
            return f"{package} imports {missing}, {whence}; another version of the repository may do"
        case Complaint.language:
            return f"{package} is written in a later Go than its go.mod tells; another version may do"
    if "checksum mismatch" in text:
        return f"a module that {package} imports does not match go.sum or the checksum database"
    if "file too large" in text:
        return "the binary or one of its parts is too large (build.file_size)"
    if versions := re.search(r"requires go >= (\S+) \(running go (\S+);", text):
        return (
            f"{package} wants Go {versions[1]}; this island has {versions[2]}: an older version may do, "
            "or a newer Go from the operator (go_version, build.goroot)"
        )
    return f"{package} does not compile"


def _left_out_elsewhere(text: str, source: Source | None) -> str:
    """The module or folder, other than the package itself, of which Go compiles no file; empty if none."""
    excluded = re.search(r"build constraints exclude all Go files in /(?:mod|src)/?(\S*)", text)
    return excluded[1] if excluded and source and excluded[1] != source.package else ""


def _missing_packages(text: str) -> list[str]:
    """Import paths that no module provides, as the go command names them."""
    paths = re.findall(
        r"(?:no required module provides package|cannot find module providing package"
        r"|does not contain package|cannot find package) \"?([\w./~@+-]+?)[\":;.,]*(?:\s|$)"
        r"|package ([\w./~-]+) is not in std|: ([\w./~-]+@[\w.+-]+): reading ",
        text,
    )
    return list(dict.fromkeys("".join(path) for path in paths))


def add_reasons(error: BuildFailed, source: Source) -> None:
    """Add to the message of a failed build what the repository's files tell about its reason. Blocks."""
    output, tree = error.details.get("output", ""), Tree(source.checkout)
    reason = ""
    match error.complaint:
        case Complaint.undefined | Complaint.mismatch | Complaint.package:
            reasons = left_out(tree, source.package, missed_names(output))
            if pointer := next((file for file in _no_go(output) if is_pointer(tree, file)), ""):
                error.message = lfs_refusal(source, pointer)
            elif reasons:
                reason = ": " + "; ".join(f"{name} is in {why}" for name, why in reasons.items())
            elif missing := re.search(r"pattern ([\w./-]+)[^\n:]*: no matching files found", output):
                reason = submodule(tree, posixpath.join(source.package, missing[1]))
        case Complaint.no_go_files if error.message.startswith("no Go files"):
            files = all_left_out(tree, source.package)
            reason = submodule(tree, source.package) or (f": {files}" if files else "")
            reason = reason or where_packages_lie(tree, source)
        case Complaint.missing_module:
            paths = [path.split("/") for path in _missing_packages(output)[:10]]
            tails = ("/".join(path[at:]) for path in paths for at in range(min(len(path), 20)))
            reason = submodule(tree, *tails)
    error.message += reason
    error.args = (error.message,)


def _no_go(output: str) -> list[str]:
    """Files that are no Go from their first word on."""
    return re.findall(
        r"^([\w./-]+\.go):1:1: (?:expected 'package'|syntax error: package)", output, re.MULTILINE
    )


def lfs_refusal(source: Source, file: str) -> str:
    """The message about a file of which there is only a pointer."""
    return (
        f"{shown(source)} needs {file}, which Git LFS keeps elsewhere: the island fetches no such files; a "
        "fork that has it in Git itself would do"
    )


def shown(source: Source) -> str:
    """A package and its commit, for messages."""
    return f"{source.import_path} at {source.commit[:12]}"


def _bounded(stderr: bytes) -> str:
    """The first OUTPUT_CHARACTERS, whatever their bytes, and shortened lines: the patterns search no more."""
    lines = stderr[: 4 * OUTPUT_CHARACTERS].decode(errors="replace").split("\n")
    return "\n".join(map(_shortened, lines))


def _shortened(line: str) -> str:
    """A line without its middle if it is long: its end says what is wrong."""
    half = LINE_CHARACTERS // 2
    return line if len(line) <= LINE_CHARACTERS else f"{line[:half]}…{line[-half:]}"


def clean(text: str, source: Source | None) -> str:
    """Compiler output with paths relative to the repository, without control characters, and bounded."""
    home = posixpath.join("/src", source.package if source else "")

    def relative(match: re.Match[str]) -> str:
        return posixpath.normpath(posixpath.join(home, match[0]))

    text = re.sub(r"^(?!/)[^\s:#][^:\n]*\.(?:go|mod|sum)(?=:)", relative, text, flags=re.MULTILINE)
    text = re.sub(
        rf"^\S*{re.escape(links.CALL)}:([0-9]{{1,7}})(?::([0-9]{{1,7}}))?:",
        lambda place: f"call:1:{links.offset_of(place[1], place[2]) + 1}:",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^/gen/.*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"/(?:src|mod)/(?=\S)", "", text)
    text = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(text) > OUTPUT_CHARACTERS:
        text = text[:OUTPUT_CHARACTERS] + "\n…"
    return text.strip()
