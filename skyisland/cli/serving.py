"""`skyisland serve` runs an island, `init` prepares its host, `doctor` examines that."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import click
from rich.console import Console

from skyisland.cli import SUCCEEDS, GlobalOptions, console_options
from skyisland.cli.preparing import bars, shown
from skyisland.cli.reloading import Reloading
from skyisland.events import Events
from skyisland.host.process import open_as_many_as_allowed
from skyisland.host.service import Manager, passed_on
from skyisland.host.tasks import Progress as Report
from skyisland.host.tasks import silent
from skyisland.island import Island
from skyisland.record.logs import LogRing, logging_to
from skyisland.record.metrics import Metrics, StatsD
from skyisland.settings import Settings, admin_token
from skyisland.wiring import opened

log = logging.getLogger(__name__)
T = TypeVar("T")

LINGER_S = 0.5
"""How long a connection that is open may begin another request, where the sockets are kept by another: what
its client sent before it knew of the end is answered. A judgement: packets of a slow network take half of
it."""


@click.command()
@click.option("--no-tui", is_flag=True, help="Headless: log lines on standard output instead of the console.")
@console_options
@click.pass_obj
def serve(options: GlobalOptions, /, no_tui: bool, **console: Any) -> None:
    """Run the island, with a console where there is a terminal.

    SIGTERM and SIGINT drain: running calls finish within jails.drain_timeout, then everything is removed; a
    second SIGINT ends the calls at once. SIGHUP reads the settings again (tokens, TLS files, limits, log
    level; not under a console). Without a terminal, or with --no-tui, one line of JSON per event goes to
    standard output.
    """
    settings = options.settings()
    open_as_many_as_allowed()
    headless = no_tui or not (sys.stdin.isatty() and sys.stdout.isatty())
    if not headless:
        from tui import check_theme

        check_theme(console["theme"])
        console |= {"command": options.line(), "hangup_stops": settings.console.on_hangup == "stop"}
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        sys.exit(runner.run(_serve(settings, None if headless else console, options.settings)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop where it is installed: a call takes some fifteen turns of the loop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings, console: dict[str, Any] | None, load: Callable[[], Settings]) -> int:
    """Run until a signal or the operator stops it; returns the exit code.

    `console`: the options of the console, None for an island without one. `load` reads the settings again.
    """
    signals = _Signals()
    try:
        return await _run(settings, console, load, signals)
    finally:
        signals.ignore()


async def _run(
    settings: Settings, console: dict[str, Any] | None, load: Callable[[], Settings], signals: _Signals
) -> int:
    from api import create_app
    from api.serve import GRACE_S
    from api.serve import serve as serve_api
    from api.sockets import listening, named
    from api.tls import Tls

    token = await asyncio.to_thread(admin_token, settings)
    secrets = [token, *settings.api.tokens]
    tls = Tls(settings.api.tls_cert, settings.api.tls_key) if settings.api.tls_cert else None
    if tls is not None:
        await asyncio.to_thread(tls.check)
    events, ring = Events(), LogRing(secrets=secrets)
    metrics = Metrics(StatsD(*settings.statsd, prefix=settings.metrics.prefix) if settings.statsd else None)
    level = settings.log.level.upper()
    journal = os.environ.get("JOURNAL_STREAM", "")
    async with logging_to(ring, events, level=level, secrets=secrets, journal_stream=journal) as write_lines:
        if console is None:
            write_lines(sys.stdout.buffer)
        manager, kept = Manager(os.environ), passed_on(os.environ)
        async with _on_threads(listening(settings, kept)) as socks:
            metrics.follow(events)
            async with (
                shown(on_terminal=console is not None) as preparing,
                _opened(settings, events, preparing.report, succeeds=_heir()) as island,
                _sending(metrics),
                _tracing(settings, events, island),
            ):
                app = create_app(
                    island,
                    token=token,
                    token_header=settings.admin_token_header,
                    metrics=metrics,
                    logs=ring,
                    settings=settings.api,
                )

                async def serving(stop: Callable[[], Awaitable[object]]) -> None:
                    """Serve until `stop` returns; then answer what runs, and nobody new."""
                    drained = asyncio.Event()
                    server = asyncio.create_task(
                        serve_api(
                            app,
                            socks,
                            drained.wait,
                            grace_s=settings.jails.drain_timeout if kept else GRACE_S,
                            idle_s=settings.api.idle_timeout,
                            tls=tls,
                            per_client=settings.api.connections_per_client,
                            http2=settings.api.http2,
                            linger_s=LINGER_S if kept else 0.0,
                        )
                    )
                    manager.tell(ready=1)
                    async with _running(manager.keep_told(lambda: _told(island))):
                        await _until(stop, server)
                        manager.tell(stopping=1)
                        if kept:
                            # Nobody is refused: who connects from now on waits for the next island.
                            drained.set()
                            await _until(signals.hurry.wait, server)
                            await island.drain(0)
                        else:
                            await drain()
                            drained.set()
                        await server

                async def drain() -> None:
                    draining = asyncio.create_task(island.drain(settings.jails.drain_timeout))
                    await _until(signals.hurry.wait, draining)
                    if not draining.done():
                        draining.cancel()
                        await asyncio.wait({draining})
                        await island.drain(0)

                try:
                    if not await _started(island, signals.stop, preparing.report):
                        return 0
                    preparing.end()
                    where = ", ".join(map(named, socks)) if kept else settings.bind
                    log.info("listening on %s://%s", "https" if tls else "http", where)
                    if console is None:
                        reloading = Reloading(load, settings, island, app, secrets)
                        signals.again = reloading.ask
                        async with _running(reloading.run()):
                            await serving(signals.stop.wait)
                        return 0
                    from tui import serve_with_console
                    from tui.watch.inprocess import InProcessPort

                    return await serve_with_console(
                        InProcessPort(island, ring, settings.url),
                        serving,
                        log=settings.layout.console_log,
                        headless=lambda: write_lines(sys.stdout.buffer),
                        **console,
                    )
                finally:
                    signals.listen()  # a console has handlers of its own, and takes them away with it
                    await island.stop()


@asynccontextmanager
async def _on_threads(blocking: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A context whose beginning and end block."""
    value = await asyncio.to_thread(blocking.__enter__)
    try:
        yield value
    finally:
        await asyncio.to_thread(blocking.__exit__, None, None, None)


def _told(island: Island) -> str:
    """The island in a line, for `systemctl status`."""
    status = island.status()
    busy = f"{status.running} calls running, {status.queued} queued"
    busy = f"draining: {busy}" if status.draining else busy
    return f"{busy}; {len(status.jails)} jails, {len(status.artifacts)} binaries"


def _heir() -> Callable[[], object] | None:
    """What tells `supervise` that we are ready to take over, if it said that there is something to."""
    if SUCCEEDS not in os.environ:
        return None
    return lambda: os.kill(os.getppid(), signal.SIGUSR2)


@asynccontextmanager
async def _opened(
    settings: Settings,
    events: Events,
    progress: Report = silent,
    succeeds: Callable[[], object] | None = None,
) -> AsyncIterator[Island]:
    path, credentials = os.environ.get("PATH", ""), os.environ.get("CREDENTIALS_DIRECTORY", "")
    async with opened(
        settings,
        events,
        search_path=path,
        credentials_dir=credentials,
        progress=progress,
        succeeds=succeeds,
    ) as island:
        yield island


@asynccontextmanager
async def _sending(metrics: Metrics) -> AsyncIterator[None]:
    """Send figures to StatsD for the length of the block, if the settings name a server."""
    if metrics.statsd is None:
        yield
        return
    async with _running(metrics.statsd.run()):
        yield


@asynccontextmanager
async def _tracing(settings: Settings, events: Events, island: Island) -> AsyncIterator[None]:
    """Send calls as spans for the length of the block, if the settings name a collector."""
    if not settings.traces.otlp:
        yield
        return
    from skyisland.record.traces import Traces

    make = partial(Traces, settings.traces.otlp, version=island.version, instance=island.name)
    traces = await asyncio.to_thread(make)
    traces.follow(events)
    try:
        yield
    finally:
        await asyncio.to_thread(traces.close)


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do this beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _started(island: Island, stop: asyncio.Event, report: Report) -> bool:
    """Start the island; False if `stop` was set before it had started."""
    starting = asyncio.create_task(island.start(report))
    await _until(stop.wait, starting)
    if starting.done():
        return True
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    return False


class _Signals:
    """What the signals of a daemon ask for. None of them ends the process while something of the island is
    left on the host: whoever cannot wait has SIGKILL, and the next start removes what that leaves."""

    def __init__(self) -> None:
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.again: Callable[[], object] = lambda: log.warning("SIGHUP: not now; send it again")
        """Called on SIGHUP."""
        self.listen()

    def listen(self) -> None:
        """Handle them; may be repeated."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.again())

    def _interrupt(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()

    def ignore(self) -> None:
        """From now on they do nothing: all is done, and the exit code shall say so."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def _until(stop: Callable[[], Awaitable[object]], work: asyncio.Task[None]) -> None:
    """Wait until `stop` returns or `work` ends, whose error is raised here."""
    stopping = asyncio.ensure_future(stop())
    await asyncio.wait({stopping, work}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if work.done():
        work.result()


@click.command()
@click.pass_obj
def init(options: GlobalOptions) -> None:
    """Prepare this host.

    Makes state folder, base system, Go, its compiled standard library and build jail. May be repeated, and
    goes on where it was interrupted. `serve` prepares what is missing, too, but compiles the greater part of
    the standard library while nobody calls (build.compile_ahead).
    """
    settings = options.settings()
    console = Console(stderr=True)
    with bars(console) as preparing:
        try:
            asyncio.run(_init(settings, preparing.report))
        except asyncio.CancelledError:
            sys.exit("interrupted, and taken back; run it again to go on")
    console.print(
        f"ready: state in {settings.state_dir}; start with `{options.line('serve')}`", highlight=False
    )


async def _init(settings: Settings, report: Report) -> None:
    """SIGTERM cancels it, as SIGINT does, so that its build jail goes with it."""
    working, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert working is not None  # noqa: S101 - a coroutine runs in a task
    loop.add_signal_handler(signal.SIGTERM, working.cancel)
    await asyncio.to_thread(admin_token, settings)
    report("state folder", 1, 1)
    ring, events = LogRing(), Events()
    async with logging_to(ring, events), _opened(settings, events, report) as island:
        try:
            await island.start(report, whole=True)
        finally:
            await island.stop()


@click.command()
@click.option("--full", is_flag=True, help="Try in throw-away jails what else is assumed (FreeBSD).")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_obj
def doctor(options: GlobalOptions, full: bool, as_json: bool) -> None:
    """Say what this host can and cannot do, and the remedies.

    Exit code 1 if calls cannot run.
    """
    from skyisland.cli.examining import report

    sys.exit(asyncio.run(report(options.settings(), full=full, as_json=as_json)))


COMMANDS: tuple[click.Command, ...] = (init, serve, doctor)
