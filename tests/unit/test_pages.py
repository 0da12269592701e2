"""What the pages say of codes, fields, settings, metrics, commands and keys is what the code has."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest
from msgspec import Struct, structs
from textual.binding import Binding

from api.problems import STATUS, ProblemDetails
from bench import fleetscale, report
from skyisland import events
from skyisland.cause import Cause
from skyisland.cli import main
from skyisland.figures import Figures, FunctionFigures, Heat, Report
from skyisland.golang.catalogue import (
    Catalogue,
    Entry,
    Example,
    Parameter,
    ReadyCall,
    Result,
    TypeParameter,
)
from skyisland.later.calls import Attempt, Callback, Delivery, Record
from skyisland.model import Artifact, GoError, Phase, Purpose, Timings
from skyisland.named.definition import Ceilings, Definition
from skyisland.named.functions import Named
from skyisland.named.pushes import Pushed
from skyisland.named.schedule import Scheduled
from skyisland.record.lines import LogLine
from skyisland.record.metrics import Metrics, StatsD
from skyisland.record.traffic import ApiStats
from skyisland.settings import Layout
from skyisland.status import AddressInfo, Capability, Written
from skyisland.wire import Answer, FunctionBody, FunctionPage, Jail, Problem, Version
from tests.support.manual import PAGE, manual
from tests.support.pages import BLOCKS, written
from tests.support.places import ROOT
from tests.support.transcripts import Transcript, transcripts
from tui.console import Console
from tui.draw.logs import Logs
from tui.draw.table import Table


def page(name: str) -> str:
    return (ROOT / name).read_text()


def table(text: str, *columns: str) -> list[list[str]]:
    """The rows of the table with these first columns."""
    head = "| " + " | ".join(columns)
    lines = iter(text.splitlines())
    assert any(line.startswith(head) for line in lines), f"there is no table of {columns}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        rows.append([cell.strip() for cell in cells])
    return rows


def words(cells: Iterable[str]) -> list[str]:
    """What stands between backticks."""
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


# What is written by a command


@pytest.mark.parametrize("name", BLOCKS)
def test_block_is_of_today(name: str) -> None:
    file, make = BLOCKS[name]
    assert page(file) == written(page(file), name, make()), "run `make pages`"


def test_figures_are_those_of_the_kept_results() -> None:
    result = json.loads(report.LATEST.read_text())
    for file, block in ((report.PAGE, report.markdown(result)), (report.README, report.chosen(result))):
        assert f"{report.MARK}\n{block}\n{report.MARK}" in file.read_text(), "run `python -m bench --page`"


def test_figures_of_the_fleets_model_are_those_that_are_kept() -> None:
    text = fleetscale.PAGE.read_text()
    assert fleetscale.written(text) == text, "run `python -m bench.fleetscale --page`"
    for name, picture in fleetscale.drawn().items():
        assert (fleetscale.PAGE.parent / name).read_text() == picture


# REST


def test_every_code_is_told_with_its_status() -> None:
    rows = table(page("docs/rest.md"), "status", "code", "when")
    told = [(words([code])[0], int(status)) for status, code, _ in rows]
    assert sorted(told) == sorted(STATUS.items())


@pytest.mark.parametrize(
    ("columns", "shape"),
    [(("field", "type", "meaning"), FunctionBody), (("field", "meaning"), Answer)],
)
def test_every_field_is_told(columns: tuple[str, ...], shape: type[Struct]) -> None:
    told = words(row[0] for row in table(page("docs/rest.md"), *columns))
    assert sorted(told) == sorted(field.encode_name for field in structs.fields(shape))


def test_every_phase_is_told() -> None:
    paragraph = next(part for part in page("docs/rest.md").split("\n\n") if part.startswith("The phases are"))
    assert set(Phase) <= set(words([paragraph]))


TRANSCRIPTS = list(transcripts())


@pytest.mark.parametrize(
    "transcript", TRANSCRIPTS, ids=lambda transcript: (transcript.command or transcript.situation)[-60:]
)
def test_transcript_has_known_codes_and_fields(transcript: Transcript) -> None:
    if transcript.code is not None:
        assert transcript.status == STATUS[transcript.code]
    elif not transcript.in_background:
        assert transcript.status in (200, 202)
    assert not (strange := transcript.fields - known_fields()), strange


OFFERED = (Catalogue, Entry, Parameter, TypeParameter, Result, Example, ReadyCall)


def test_fields_of_what_a_package_offers_are_told() -> None:
    section = page("docs/rest.md").split("## What a package offers")[1].split("```console")[0]
    told = {name for piece in re.findall(r"`([^`]+)`", section) for name in re.findall(r"\w+", piece)}
    obvious = {"type", "unordered", "constraint"}
    assert {field for shape in OFFERED for field in shape.__struct_fields__} - told <= obvious


def known_fields() -> set[str]:
    """Of all that the API answers with, and the keys of its details."""
    shapes: tuple[type[Struct], ...] = (Answer, Problem, Jail, Artifact, AddressInfo, Capability, LogLine)
    shapes += (ApiStats, Timings, events.InvocationFinished, Cause, GoError, ProblemDetails, *OFFERED)
    shapes += (Named, Definition, Ceilings, Scheduled, Pushed, Written)
    shapes += (Report, Figures, FunctionFigures, Heat, FunctionPage, Version)
    shapes += (Record, Attempt, Callback, Delivery)
    fields = {field.encode_name for shape in shapes for field in structs.fields(shape)}
    around = {
        "status",
        "capabilities",
        "jails",
        "details",
        "deleted",
        "artifacts",
        "rebuilt",
        "evicted",
        "logs",
        "secret",
        "forgotten",
    }
    around |= {"calls", "MODE", "TOKEN", "names", "secrets"}
    around |= {"base64", "invocations", "invocation", "unavailable", "event", *Phase, "total"}
    details = {
        "told_by",
        "position",
        "argument",
        "field",
        "known",
        "key",
        "output",
        "complaint",
        "reason",
        "limit_bytes",
    }
    details |= {"from", "node", "nodes", "silent", "refused"}  # of a fleet
    return fields | around | details


def test_every_code_but_those_of_no_request_has_a_transcript() -> None:
    shown = {transcript.code for transcript in TRANSCRIPTS}
    assert set(STATUS) - shown == {"internal", "bad_settings", "node_lost"}  # this one takes a fleet


# Operating


def test_every_name_of_statsd_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: set[str] = set()
    statsd = StatsD("nowhere.test")
    monkeypatch.setattr(statsd, "count", sent.add)
    monkeypatch.setattr(statsd, "time", lambda name, duration_s: sent.add(name))
    metrics = Metrics(statsd)
    for event in some_events():
        metrics.fold(event)
    told = words(row[0] for row in table(page("docs/operating.md"), "name", "kind", "sent when"))
    by_handlers = {name for name in told if re.fullmatch(r"handlers\.(jail\.\w+|function\.run)", name)}
    patterns = [re.sub(r"<\w+>", ".+", re.escape(name)) for name in told if name not in by_handlers]
    assert not [name for name in sent if not any(re.fullmatch(pattern, name) for pattern in patterns)]
    assert not [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in sent)]
    counted = set(re.findall(r'metrics\.count\("([\w.]+)"\)', "".join(map(Path.read_text, API))))
    assert by_handlers == counted


API = sorted((ROOT / "api").glob("*.py"))


def some_events() -> Iterator[events.Event]:
    """One of each kind that metrics are made of."""
    yield events.PhaseFinished(phase=Phase.exec, duration_s=0.1)
    yield events.SourceFetched(url="github.com/a/b", commit="0" * 40, duration_s=0.1)
    yield events.CloneCreated(clone="c", duration_s=0.1)
    yield events.CloneDestroyed(clone="c", duration_s=0.1)
    yield events.JailCreated(jail="j", jid=1, pid=1, purpose=Purpose.function)
    yield events.JailKilled(jail="j", jid=1, reason="because")
    yield events.JailDestroyed(jail="j", jid=1, duration_s=0.1)
    yield events.AddressLeased(ip="10.61.0.2", jail="j")
    yield events.InvocationFinished(url="u", call="F()", verdict="ok", timings=Timings())


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


def test_every_command_and_option_is_told() -> None:
    told = words(row[0] for row in table(page("docs/operating.md"), "command", ""))
    for name, command in commands(main):
        line = next((one for one in told if one == name or one.startswith((f"{name} ", f"{name} ["))), None)
        if line is None and isinstance(command, click.Group):
            continue  # its commands are there
        assert line is not None, f"skyisland {name} is not told"
        for option in command.params:
            if isinstance(option, click.Option) and "--json" not in option.opts:
                assert option.opts[0] in page("docs/operating.md"), f"skyisland {name} {option.opts[0]}"
    known = {name for name, _ in commands(main)} | {"skyisland"}
    for line in told:
        name = " ".join(re.findall(r"^[a-z]+(?: [a-z]+\b)?", line))
        assert name in known or name.split()[0] in known, f"there is no command {line}"


def test_the_manual_page_is_of_the_commands() -> None:
    text = PAGE.read_text()
    assert text == manual(), "make pages"
    requests = {line.split(" ")[0] for line in text.splitlines() if line.startswith((".", "'"))}
    assert requests == {
        '.\\"',
        ".TH",
        ".SH",
        ".SS",
        ".TP",
        ".IP",
        ".PP",
        ".RS",
        ".RE",
        ".nf",
        ".fi",
        ".B",
        ".BR",
        ".I",
    }
    plain = text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    for name, command in commands(main):
        assert f"\n{name} " in plain
        for option in command.params:
            assert not isinstance(option, click.Option) or f"\n{option.opts[0]}" in plain, (
                f"{name} {option.name}"
            )


@pytest.mark.parametrize(
    ("name", "columns"), [("docs/operating.md", ("command", "")), ("docs/console.md", ("key", "does"))]
)
def test_no_command_and_no_key_has_two_rows(name: str, columns: tuple[str, ...]) -> None:
    rows = [set(words([row[0]])) for row in table(page(name), *columns)]
    commands_of = [{re.sub(r" +[^a-z].*", "", word) for word in row} for row in rows]
    counts = Counter(word for row in commands_of for word in row)
    assert counts
    assert not [word for word, count in counts.items() if count > 1]


def test_everything_in_the_state_folder_is_told() -> None:
    told = {
        name.rstrip("/") for name in words(r[0] for r in table(page("docs/operating.md"), "in it", "what"))
    }
    state = ROOT / "state"
    layout = Layout(state, state / "jails")
    paths = [value for name in dir(Layout) if isinstance(value := getattr(layout, name), Path)]
    assert told | {"lock"} == {str(path.relative_to(state)) for path in paths} - {"."}


# The console

_SYMBOLS = {
    "slash": "/",
    "plus": "+",
    "minus": "-",
    "colon": ":",
    "question_mark": "?",
    "asterisk": "*",
    "less_than_sign": "<",
    "greater_than_sign": ">",
}
_MOVES = {"up", "down", "pageup", "pagedown", "home", "end", "ctrl+u", "ctrl+d", "f"}
"""Told together, as arrows and page keys, or a second key for the same."""


def test_every_key_is_told() -> None:
    text = page("docs/console.md")
    told = set(words(row[0] for row in table(text, "key", "does")))
    told |= set(words(row[0] for row in table(text, "key", "view")))
    bound = {
        _SYMBOLS.get(key, key)
        for widget in (Console, Table, Logs)
        for binding in widget.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    assert told - {"tab"} == bound - _MOVES


# Security


def test_security_page_is_of_its_template() -> None:
    before, after = page("tests/attacks/security.md").split("{cases}")
    text = page("docs/security.md")
    assert text.startswith(before)
    assert text.endswith(after)


def test_every_proof_of_a_case_is_there() -> None:
    proofs = {word for word in words([page("docs/security.md")]) if "::test_" in word}
    assert proofs
    for proof in proofs:
        file, *_, name = proof.split("::")
        assert f"def {name}(" in page(f"tests/{file}"), proof
