"""The commands that show what a running island is and does; they ask its REST API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from skyisland import operations as op
from skyisland.cli import GlobalOptions
from skyisland.cli.completing import functions_called, jail_names, requests_over
from skyisland.cli.gathering import nodes_addresses, nodes_answers, nodes_rows
from skyisland.cli.printing import (
    PAIRS,
    as_json,
    flat,
    line_of_json,
    moment,
    print_fields,
    print_json,
    print_list,
    print_table,
    say,
    size,
    span,
)
from skyisland.errors import FunctionNotFound, JailNotFound
from skyisland.events import InvocationFinished
from skyisland.figures import Figures, Report, Window
from skyisland.model import Artifact
from skyisland.operations import Operation
from skyisland.operations.gathered import ALL
from skyisland.record.lines import LogLine, printable
from skyisland.status import AddressInfo, AddressState, Capability
from skyisland.wire import FunctionPage, Jail, Snapshot, milliseconds

POLL_S = 0.5
"""How often `logs --follow` asks for new lines."""
MOST_LINES = 5000
"""In one answer, and of one pause: an island that logs more between two is said to."""
LEVELS = {"WARNING": "yellow", "ERROR": "red"}
"""Colours of log lines on a terminal; others have none."""


def limit(operation: Operation[Any]) -> Callable[..., Any]:
    """The option --limit, within the bounds of the operation."""
    (bound,) = (parameter for parameter in operation.query if parameter.name == "limit")
    kind = click.IntRange(0, bound.most)
    return click.option(
        "--limit", metavar="N", type=kind, default=bound.default, show_default=True, help=bound.meaning
    )


@click.command()
@as_json
@click.pass_obj
def status(options: GlobalOptions, as_json: bool) -> None:
    """Show the island at this moment.

    --json shows all that it knows of itself.
    """
    columns, texts = ("NAME", "VALUE"), ("VALUE",)
    if nodes_answers(options, op.SNAPSHOT, columns, _summary, as_json=as_json, texts=texts):
        return
    with options.client() as client:
        snapshot = client.snapshot()
    if as_json:
        print_json(snapshot)
    else:
        print_table(PAIRS, _summary(snapshot), "", texts=PAIRS[1:])


def _summary(island: Snapshot) -> list[tuple[str, object]]:
    available = sum(address.state is AddressState.available for address in island.addresses)
    missing = [one.name for one in island.capabilities if one.wanted and not one.enforced]
    binaries = size(sum(artifact.size_bytes for artifact in island.artifacts))
    return [
        ("island", f"{island.island}, version {island.version}"),
        ("up", span(island.at - island.started_at) + (", stopping" if island.draining else "")),
        ("driver", f"{island.driver}, storage {island.storage}"),
        ("calls", f"{island.running} running, {island.queued} queued"),
        ("jails", f"{len(island.jails)}, {island.pool.size} of them warm"),
        ("addresses", f"{available} of {len(island.addresses)} free"),
        ("binaries", f"{len(island.artifacts)}, {binaries}"),
        ("not enforced", ", ".join(missing) or "nothing"),
        *([("meanwhile", island.ahead)] if island.ahead else ()),
    ]


@click.command()
@as_json
@click.pass_obj
def capabilities(options: GlobalOptions, as_json: bool) -> None:
    """Show what the island's host enforces, and what it cannot."""
    with options.client(admin=False) as client:
        known = client.capabilities()
    columns = ("CAPABILITY", "ENFORCED", "HOW", "REMEDY")
    print_list(known, columns, _capability, "none is known", as_json=as_json, texts=("HOW", "REMEDY"))


def _capability(one: Capability) -> tuple[object, ...]:
    word = "yes" if one.enforced else "no" if one.wanted else "not asked for"
    return one.name, word, one.how, one.remedy


@click.command()
@limit(op.INVOCATIONS)
@as_json
@click.pass_obj
def requests(options: GlobalOptions, limit: int, as_json: bool) -> None:
    """List the latest calls that are over, newest first."""
    columns, texts = _REQUEST_COLUMNS, ("FUNCTION", "WHY")
    if nodes_rows(options, op.INVOCATIONS, columns, _request, as_json=as_json, texts=texts, limit=limit):
        return
    with options.client() as client:
        ends = client.invocations(limit)
    print_list(ends, columns, _request, "no call is over", as_json=as_json, texts=texts)


_REQUEST_COLUMNS = ("ENDED", "REQUEST", "RESULT", "TOTAL", "BINARY", "JAIL", "FUNCTION", "WHY")


def _request(end: InvocationFinished) -> tuple[object, ...]:
    return (
        moment(end.at),
        end.invocation,
        end.verdict,
        f"{end.timings.total_s * 1000:.1f}ms",
        "cached" if end.cached else "built",
        end.jail,
        f"{end.name}: {end.url} {end.call}" if end.name else f"{end.url} {end.call}",
        end.cause.text if end.cause else "",
    )


@click.command()
@click.argument("request", shell_complete=requests_over)
@as_json
@click.pass_obj
def request(options: GlobalOptions, request: str, as_json: bool) -> None:
    """Show one call that is over.

    By the id of its answer: its times, and why it did not end well, with what the function printed last.
    """
    with options.client() as client:
        end = client.invocation(request)
    if as_json:
        print_json(end)
        return
    print_table(PAIRS, _story(end), "", texts=PAIRS[1:])
    if (cause := end.cause) is None:
        return
    trace = "\n".join(cause.error.trace) if cause.error else ""
    parts = {"compiler": cause.compiler, "trace": trace, "stderr": cause.stderr, "stdout": cause.stdout}
    for name, text in parts.items():
        if text.strip():
            say(f"{name}:", bold=True)
            say(text.rstrip())


def _story(end: InvocationFinished) -> list[tuple[str, object]]:
    spent = {name: f"{ms:g}ms" for name, ms in milliseconds(end.timings).items() if ms}
    return [
        ("request", end.invocation),
        ("ended", moment(end.at)),
        ("function", f"{end.url} {end.call}"),
        ("result", end.cause.text if end.cause else end.verdict),
        ("times", ", ".join(f"{name} {spent[name]}" for name in spent)),
        ("version", end.commit),
        ("jail", f"{end.jail}, warm" if end.warm else end.jail),
        ("client", " ".join(filter(None, (end.client, end.caller_id)))),
    ]


@click.command()
@click.option(
    "--jail", metavar="NAME", shell_complete=jail_names, help="Only the lines of this jail, by its name."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come, until Ctrl-C.")
@limit(op.LOGS)
@as_json
@click.pass_obj
def logs(options: GlobalOptions, jail: str | None, follow: bool, limit: int, as_json: bool) -> None:
    """Print the latest lines of the island's log.

    Oldest first. With --follow, --json prints one line of JSON for each.
    """
    if options.node == ALL and not follow:
        columns, texts = ("TIME", "LEVEL", "FROM", "TEXT"), ("TEXT",)
        nodes_rows(options, op.LOGS, columns, _line, as_json=as_json, texts=texts, jail=jail, limit=limit)
        return
    with options.client() as client:
        lines = client.logs(jail=jail, limit=limit)
        if as_json and not follow:
            print_json(lines)
            return
        _print_log(lines, as_json=as_json)
        last = max((line.seq for line in lines), default=0)
        while follow:
            time.sleep(POLL_S)
            lines = client.logs(jail=jail, after=last, limit=MOST_LINES)
            if lines and jail is None and lines[0].seq > last + 1:
                say(f"{lines[0].seq - last - 1} lines came too fast", err=True)
            _print_log(lines, as_json=as_json)
            last = max((line.seq for line in lines), default=last)


def _line(line: LogLine) -> tuple[object, ...]:
    return moment(line.at), line.level, line.jail or line.logger, line.text


def _print_log(lines: list[LogLine], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            click.echo(line_of_json(line))
        else:
            text = f"{moment(line.at)} {line.level:<7} {line.jail or line.logger}: {line.text}"
            say(printable(text), fg=LEVELS.get(line.level))


@click.command()
@click.argument("function", required=False, shell_complete=functions_called)
@click.option(
    "--window",
    type=click.Choice([window.value for window in Window]),  # of an enum, click takes its members' names
    default=Window.five_minutes.value,
    show_default=True,
    help="Of how long, until now.",
)
@as_json
@click.pass_obj
def top(options: GlobalOptions, function: str | None, window: str, as_json: bool) -> None:
    """List the functions that were called, most calls first.

    With FUNCTION, by its id or as github.com/user/repo.Name, all about one: its errors by cause, commits,
    binaries, jails and latest calls.
    """
    if function is None and nodes_answers(
        options, op.REPORT, _TOP, _tops, as_json=as_json, texts=_TOP[-2:], window=Window(window)
    ):
        return
    with options.client() as client:
        if function is not None and function.startswith("fn-"):
            page = client.function(function, Window(window))
        else:
            report = client.report(Window(window))
            if function is None:
                print_json(report) if as_json else _print_report(report)
                return
            known = [one.id for one in report.functions if one.title == function]
            if not known:
                raise FunctionNotFound(f"no function {function} was called of late; `top` lists those")
            page = client.function(known[0], Window(window))
    print_json(page) if as_json else _print_page(page)


def _print_report(report: Report) -> None:
    print_table(_TOP, _tops(report), "no function was called", texts=_TOP[-2:])
    every = report.every
    told = f"{every.calls} calls in {every.window}, {_rate(every)}, {every.errors} errors"
    say(told, err=True)


def _tops(report: Report) -> list[tuple[object, ...]]:
    return [
        (one.id, *_figures(one.recent), _ms(one.usual_s), one.title, one.last_error)
        for one in report.functions
    ]


_FIGURES = ("CALLS", "RATE", "ERRORS", "P50", "P95", "P99", "COLD")
_TOP = ("ID", *_FIGURES, "USUAL", "FUNCTION", "LAST ERROR")


def _figures(recent: Figures) -> tuple[object, ...]:
    cold = "-" if recent.cold_share is None else f"{recent.cold_share:.0%}"
    times = (recent.p50_s, recent.p95_s, recent.p99_s)
    return (recent.calls, _rate(recent), recent.errors, *map(_ms, times), cold)


def _rate(figures: Figures) -> str:
    return f"{figures.rate:.1f}/s" if figures.rate >= 1 else f"{figures.rate:.2g}/s"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}ms" if seconds < 1 else f"{seconds:.2f}s"


def _print_page(page: FunctionPage) -> None:
    one = page.figures
    say(f"{one.title}  {one.id}", bold=True)
    print_table(_FIGURES, [_figures(one.recent)], "")
    if one.recent.kept_share is not None:
        say(f"{one.recent.kept_share:.1%} of those that ran ended well within {_ms(one.slo_s)}")
    causes = ", ".join(f"{count} x {kind}" for kind, count in one.recent.reasons.items())
    say(f"errors in {one.recent.window}: {causes or 'none'}")
    if one.last_error:
        say(f"last error: {one.last_error} ({one.last_failed})")
    versions = ((one.commit, one.calls, one.errors, moment(one.last_at) if one.last_at else "-")
                for one in page.versions)  # fmt: skip
    print_table(("COMMIT", "CALLS", "ERRORS", "LAST"), versions, "no commit is known")
    print_table(_ARTIFACT_COLUMNS, map(_artifact, page.artifacts), "no binary is kept")
    print_table(_JAIL_COLUMNS, map(_jail, page.jails), "no jail is alive")
    print_table(_REQUEST_COLUMNS, map(_request, page.recent), "no call is over", texts=("FUNCTION", "WHY"))


@click.command()
@as_json
@click.pass_obj
def jails(options: GlobalOptions, as_json: bool) -> None:
    """List the living jails."""
    columns, texts = _JAIL_COLUMNS, ("FUNCTION",)
    if nodes_rows(options, op.JAILS, columns, _jail, as_json=as_json, texts=texts):
        return
    with options.client() as client:
        alive = client.jails()
    print_list(alive, columns, _jail, "no jail is alive", as_json=as_json, texts=texts)


_JAIL_COLUMNS = ("JID", "NAME", "STATE", "PID", "IP4", "AGE", "MEMORY", "FUNCTION")


def _jail(jail: Jail) -> tuple[object, ...]:
    return (
        jail.jid,
        jail.name,
        jail.state,
        jail.pid,
        jail.ip4,
        span(jail.age_s),
        size(jail.memory_bytes),
        f"{jail.url} {jail.call}".strip() or jail.purpose,
    )


@click.command()
@click.argument("jail", shell_complete=jail_names)
@as_json
@click.pass_obj
def jail(options: GlobalOptions, jail: str, as_json: bool) -> None:
    """Show one jail.

    JAIL is its number or name.
    """
    with options.client() as client:
        details = client.jail(jail)
    print_json(details) if as_json else print_fields(details)


@click.command()
@click.argument("jail", metavar="JAIL|CALL", shell_complete=jail_names)
@as_json
@click.pass_obj
def output(options: GlobalOptions, jail: str, as_json: bool) -> None:
    """Print what a jail writes, as it comes.

    Until its end; by its number or name, or by the id of its call. Of a call that is over, the end of what
    it wrote, for as long as that is kept. Of a call that answers later, the latest attempt. Its standard
    error goes to standard error. --json prints a line for each part.
    """
    with options.client() as client:
        if jail.startswith("call-"):
            attempts = client.kept(jail).attempts
            if not attempts:
                raise JailNotFound(f"{jail} was not tried yet; `calls show {jail}` says when it is")
            jail = attempts[-1].id
        for part in client.output(jail):
            if as_json:
                click.echo(line_of_json(part))
                continue
            if part.cut:
                say(f"{part.cut} bytes came before, and are not kept", err=True, dim=True)
            for text, err in ((part.stdout, False), (part.stderr, True)):
                if text:
                    say(text, err=err, nl=False)
            if part.ended and part.verdict:
                say(f"\nended: {part.verdict}", err=True, dim=True)


@click.command()
@click.option("--state", type=click.Choice([*AddressState]), help="Only addresses in this state.")
@as_json
@click.pass_obj
def ips(options: GlobalOptions, state: AddressState | None, as_json: bool) -> None:
    """List the addresses of the pool."""
    columns = ("ADDRESS", "STATE", "JAIL", "SINCE")
    if nodes_addresses(options, columns, lambda pool: _addresses(pool, state), state, as_json=as_json):
        return
    with options.client() as client:
        if as_json:
            print_json(client.addresses() if state is None else client.addresses_in(state))
            return
        pool = client.snapshot().addresses
    print_table(columns, _addresses(pool, state), "no address")


def _addresses(pool: list[AddressInfo], state: AddressState | None) -> list[tuple[object, ...]]:
    return [(one.ip, one.word, one.jail, _since(one.since)) for one in pool if state in (None, one.state)]


def _since(at: float | None) -> str:
    return "" if at is None else moment(at)


@click.command()
@as_json
@click.pass_obj
def stats(options: GlobalOptions, as_json: bool) -> None:
    """Show the HTTP traffic since the island started."""
    columns, texts = ("NAME", "VALUE"), ("VALUE",)
    if nodes_answers(options, op.STATS, columns, flat, as_json=as_json, texts=texts):
        return
    with options.client() as client:
        traffic = client.stats()
    print_json(traffic) if as_json else print_fields(traffic)


@click.command("list")
@as_json
@click.pass_obj
def cache_list(options: GlobalOptions, as_json: bool) -> None:
    """List them, latest use first."""
    columns, texts = _ARTIFACT_COLUMNS, ("FUNCTION",)
    if nodes_rows(options, op.ARTIFACTS, columns, _artifact, as_json=as_json, texts=texts):
        return
    with options.client() as client:
        artifacts = client.artifacts()
    artifacts.sort(key=lambda artifact: -artifact.used_at)
    print_list(artifacts, columns, _artifact, "nothing is cached", as_json=as_json, texts=texts)


_ARTIFACT_COLUMNS = ("KEY", "COMMIT", "SIZE", "BUILD", "HITS", "USED", "FUNCTION")


def _artifact(artifact: Artifact) -> tuple[object, ...]:
    return (
        artifact.key[:12],
        artifact.commit[:12],
        size(artifact.size_bytes),
        f"{artifact.build_s:.2f}s",
        artifact.hits,
        f"{span(time.time() - artifact.used_at)} ago",
        f"{artifact.url} {artifact.expression or artifact.function}",
    )


COMMANDS: tuple[click.Command, ...] = (
    status,
    capabilities,
    requests,
    request,
    top,
    logs,
    jails,
    jail,
    output,
    ips,
    stats,
)
