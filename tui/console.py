"""The operations console: what an operator looks at all day.

One `Console` for an island in this process and for one far away: it knows its `Port` only. It follows
the island (a snapshot, then facts, then a snapshot now and then), keeps a `Board`, and paints the view
that is shown at its own pace; keys repaint at once. Every action is an island's method, confirmed by
the event that follows it or answered by an error that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from msgspec import structs
from rich.text import Text
from textual import events as ui
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.driver import Driver
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from skyisland.errors import Forbidden, IslandError, Unauthorized
from skyisland.events import Event
from tui.actions import Actions
from tui.board import Board
from tui.canvas import Canvas, Line, Palette
from tui.chrome import VIEWS, Banner, Head, Keys, Meters, Tabs
from tui.dialogs import FilterBar
from tui.link import Link
from tui.logs import LogRow, Logs
from tui.look import ANSI_VARIABLES, SKY, Look
from tui.port import LinkLost, LogLine, Port, Snapshot
from tui.rows import Cached, Jail, Request, Slot
from tui.table import Table
from tui.views import (
    AddressesView,
    CacheView,
    HostView,
    JailsView,
    LogsView,
    Overview,
    RequestsView,
    View,
)
from tui.words import clean, line

SNAPSHOT_S = 2.0
"""Between two snapshots, which bring what no event tells: use of processor and memory."""
LOG_LINES = 5000


_VIEWS: dict[str, Callable[..., View]] = {
    "jails": JailsView,
    "ips": AddressesView,
    "cache": CacheView,
    "requests": RequestsView,
    "logs": LogsView,
    "host": HostView,
}
"""All but the overview, with which the console starts."""


class Hint(NamedTuple):
    """A key for the line at the bottom."""

    key: str
    word: str
    action: str

    @property
    def width(self) -> int:
        return len(self.key) + len(self.word) + 3


class Console(Actions):
    """The console on one island."""

    TITLE = "Sky Island"
    CSS = Path(__file__).with_name("console.tcss").read_text()  # now, not on the event loop
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - as in Textual's App
        (0, "-tiny"),
        (60, "-w60"),
        (110, "-w110"),
        (135, "-w135"),
        (160, "-w160"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-flat"),
        (15, "-h15"),
        (30, "-h30"),
        (45, "-h45"),
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", id="filter"),
        Binding("K", "kill", "Kill", id="kill"),
        Binding("ctrl+k", "kill_now", "kill without asking", show=False, id="kill_now"),
        Binding("s", "set_address", "IP state", id="set_address"),
        Binding("b", "rebuild", "Rebuild", id="rebuild"),
        Binding("D", "evict", "Evict", id="evict"),
        Binding("l", "logs", "Logs", id="logs"),
        Binding("i", "invoke", "Invoke", id="invoke"),
        Binding("e", "faults", "Faults", id="faults"),
        Binding("p", "pause", "Pause", id="pause"),
        Binding("z", "zoom", "Zoom", id="zoom"),
        Binding("c", "copy", "copy the id", show=False, id="copy"),
        Binding("C", "curl", "copy the request as curl", show=False, id="curl"),
        *(
            Binding(str(n), f"view('{view}')", name, show=False, id=f"view.{view}")
            for n, (view, name, _) in enumerate(VIEWS, 1)
        ),
        Binding("tab", "focus_next", "next pane", show=False, id="next"),
        Binding("shift+tab", "focus_previous", "previous pane", show=False, id="previous"),
        Binding("plus", "pace(-1)", "faster", show=False, id="faster"),
        Binding("minus", "pace(1)", "slower", show=False, id="slower"),
        Binding("R", "retry", "retry now", show=False, id="retry"),
        Binding("T", "token", "give the admin token", show=False, id="token"),
        Binding("S", "picture", "save a picture of the screen", show=False, id="picture"),
        Binding("colon", "command_palette", "commands", show=False, id="palette"),
        Binding("escape", "widen", "back", show=False, id="widen"),
        Binding("question_mark", "help", "Help", key_display="?", id="help"),
        Binding("q", "quit", "Quit", id="quit"),
    ]

    def __init__(
        self,
        port: Port,
        *,
        readonly: bool = False,
        ascii: bool = False,  # noqa: A002 - as the option is named
        refresh_s: float = 0.5,
        clock: Callable[[], float] = time.time,
        follow: bool = True,
        driver_class: type[Driver] | None = None,
        theme: str = "sky",
    ) -> None:
        """`follow`: False leaves the feeding to the caller (`receive`), for pictures and tests."""
        super().__init__(driver_class=driver_class)
        self.port = port
        self.readonly = readonly
        self.refresh_s = refresh_s
        self.clock = clock
        self.look = Look(ascii=ascii)
        self.board = Board()
        self.link = Link()
        self.palette = Palette()
        self.log_rows: deque[LogRow] = deque(maxlen=LOG_LINES)
        self.serving: dict[str, str] = {}
        """Which jail served an invocation, as the log told."""
        self.view = "overview"
        self.paused = False
        self.stopping = False
        """The island ends with this console."""
        self._follow = follow
        self._ascii = ascii
        self._held: deque[Event | Snapshot] = deque(maxlen=50_000)
        self._skew = 0.0
        self._frozen_at: float | None = None
        self._again = asyncio.Event()
        self._waiting: list[tuple[Callable[[Event], bool], asyncio.Event]] = []
        self._ticks = 0
        self._focus_before: Widget | None = None
        self.register_theme(SKY)
        self.theme = theme

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own colours, for themes that do not know them."""
        return ANSI_VARIABLES if self.current_theme.ansi else SKY.variables

    # Time

    @property
    def now(self) -> float:
        """The island's time of what is shown; it stands still while paused or cut off."""
        if self._frozen_at is not None:
            return self._frozen_at
        if self.link.state in ("down", "unauthorized") and self.link.heard_at is not None:
            return self.link.heard_at + self._skew
        return self.time

    @property
    def time(self) -> float:
        """The island's time of day, whatever is shown."""
        return self.clock() + self._skew

    # Building

    def compose(self) -> ComposeResult:
        yield self.palette
        with Container(id="all"):
            yield Head(id="head")
            yield Meters(id="meters")
            yield Tabs(id="tabs")
            yield Banner(id="banner")
            with ContentSwitcher(initial="overview", id="views"):
                yield Overview(self.board, id="overview")
            yield FilterBar(self._filtered, self._filter_done)
            yield Keys(id="keys")
        yield TooSmall(id="too-small")

    def on_mount(self) -> None:
        if self._ascii:
            self.screen.add_class("-ascii")
            self.add_class("-ascii")
        self.board.watch(self._confirm)
        self._home.query_one("#banner").display = False
        self._home.set_focus(self.shown_view.main)
        if self._follow:
            self.run_worker(self._follow_island(), group="follow", exclusive=True)
            self._timer = self.set_interval(self.refresh_s / 2, self._tick)
        self._home.bindings_updated_signal.subscribe(self, lambda _: self._paint_keys())

    @property
    def _home(self) -> Screen[Any]:
        return self.screen_stack[0]

    @property
    def shown_view(self) -> View:
        return self._home.query_one(f"#{self.view}", View)

    def log_lines(self, jail: str) -> list[LogLine]:
        """The lines of one jail, oldest first."""
        return [row.line for row in self.log_rows if row.of(jail, self.serving)]

    # Following the island

    async def _follow_island(self) -> None:
        """Snapshot, then facts, for ever; after a loss again, sooner or later or on R."""
        while True:
            self._again.clear()
            wait: float | None = None
            try:
                self.receive(await self.port.snapshot())
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow_events())
                    group.create_task(self._poll())
            except* (Unauthorized, Forbidden) as refusals:
                self.link.refused(line(str(refusals.exceptions[0])))
                self.action_token()
            except* LinkLost as losses:
                wait = self.link.lost(line(_first(losses)), self.clock())
            except* IslandError as errors:
                wait = self.link.lost(line(_first(errors)), self.clock())
            self.paint_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), wait)

    async def _follow_events(self) -> None:
        async for bunch in self.port.events():
            self.receive(bunch)
        raise LinkLost("the island ended the stream")

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(max(SNAPSHOT_S, self.refresh_s))
            self.receive(await self.port.snapshot())
            if self.view in ("logs", "jails"):
                await self._fetch_logs()

    async def _fetch_logs(self) -> None:
        after = self.log_rows[-1].line.seq if self.log_rows else 0
        self.take_logs(await self.port.logs(after))

    def take_logs(self, lines: Iterable[LogLine]) -> None:
        """Keep lines of the log, cleaned."""
        for entry in lines:
            jail = line(entry.jail) if entry.jail else None
            if jail and entry.invocation:
                self.serving[entry.invocation] = jail
            text = clean(entry.text).rstrip("\n")
            self.log_rows.append(
                LogRow(structs.replace(entry, level=line(entry.level), text=text, jail=jail))
            )
        while len(self.serving) > LOG_LINES:
            del self.serving[next(iter(self.serving))]

    def receive(self, news: Snapshot | Sequence[Event]) -> None:
        """Take a snapshot or some facts; while paused they are kept for later."""
        was_good = self.link.state == "live"
        self.link.heard(self.clock())
        if isinstance(news, Snapshot):
            self._skew = news.at - self.clock()
        if self.paused:
            self._held.extend([news] if isinstance(news, Snapshot) else news)
            if not isinstance(news, Snapshot):
                for event in news:
                    self._confirm(event)
        elif isinstance(news, Snapshot):
            self.board.load(news)
        else:
            for event in news:
                self.board.fold(event)
        if not was_good:
            self.paint_all()

    # Painting

    def _tick(self) -> None:
        """Tables at the pace, all else once a second; in turns, so that no turn of the loop is a long one."""
        if not self.is_running:
            return
        self._ticks += 1
        turn, charts = divmod(self._ticks, 2)
        second = turn % max(1, round(1.0 / self.refresh_s)) == 0
        if len(self.screen_stack) > 1 and not second:
            return
        if charts and second:
            self._show_banner()
            for canvas in self._home.query("Head, Meters, Tabs, Banner").results(Canvas):
                canvas.paint()
        elif not charts:
            self._after_a_stall()
        for canvas in self.shown_view.canvases:
            live = isinstance(canvas, (Table, Logs))
            if (charts and second and not live) or (live and not charts):
                canvas.paint()

    def _after_a_stall(self) -> None:
        """Draw everything anew when the terminal reads again after it had stopped."""
        recovered = getattr(self._driver, "recovered", None)
        if recovered is not None and recovered():
            self.screen.refresh(layout=True)

    def _show_banner(self) -> None:
        banner = self._home.query_one("#banner")
        wanted = bool(self.link.banner(self.look, self.clock()))
        if banner.display != wanted:
            banner.display = wanted
        good = self.link.good(self.clock()) or self.link.state == "connecting"
        self._home.set_class(not good, "-old")

    def paint_all(self) -> None:
        """Paint everything that is shown, now."""
        if not self.is_running:
            return
        self._show_banner()
        for canvas in self.shown_view.canvases:
            canvas.paint()
        for canvas in self._home.query("Head, Meters, Tabs, Banner, Keys").results(Canvas):
            canvas.paint()

    def _paint_keys(self) -> None:
        if self.is_running:
            self._home.query_one("#keys", Keys).paint()

    def hints(self) -> list[Hint]:
        """The keys that do something now, the focused pane's first."""
        hints: list[Hint] = []
        for active in self._home.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.description and not binding.system:
                namespace = "" if active.node is self else "focused."
                hint = Hint(self.get_key_display(binding), binding.description, namespace + binding.action)
                if not any(other.word == hint.word for other in hints):
                    hints.append(hint)
        return hints

    # Where the operator is

    @property
    def table(self) -> Table[Any] | None:
        """The table that has the focus."""
        focused = self._home.focused or self._focus_before
        return focused if isinstance(focused, Table) else None

    @property
    def row(self) -> Jail | Request | Slot | Cached | None:
        return self.table.current if self.table is not None else None

    @property
    def chosen(self) -> list[Any]:
        return self.table.chosen if self.table is not None else []

    def chosen_jails(self) -> list[Jail]:
        """The living jails that the marked rows, or the one under the cursor, stand for."""
        names = []
        for row in self.chosen:
            if isinstance(row, Jail):
                names.append(row.info.name)
            elif isinstance(row, Slot):
                names.append(row.info.jail or "")
            elif isinstance(row, Request) and not row.verdict:
                names.append(row.jail or "")
        return [self.board.jails[name] for name in dict.fromkeys(names) if name in self.board.jails]

    async def show_view(self, view: str) -> None:
        """Show a view; it is made when it is first wanted."""
        switcher = self._home.query_one(ContentSwitcher)
        if not switcher.query(f"#{view}"):
            made = _VIEWS[view](self.board, id=view)
            made.display = False
            await switcher.mount(made)
        self.view = view
        switcher.current = view
        main = self.shown_view.main
        self._home.set_focus(main)
        if isinstance(main, Table):
            main.collect()  # the next key may be meant for its rows already
        if view in ("logs", "jails") and self._follow and self.link.state == "live":
            self.run_worker(self._quietly(self._fetch_logs()), group="logs", exclusive=True)
        self.call_after_refresh(self.paint_all)

    async def _quietly(self, work: Awaitable[None]) -> None:
        with contextlib.suppress(IslandError, LinkLost):
            await work
        self.paint_all()

    def on_table_moved(self, message: Table.Moved) -> None:
        for canvas in self.shown_view.canvases:
            if not isinstance(canvas, Table):
                canvas.paint()

    async def on_table_opened(self, message: Table.Opened) -> None:
        row = message.table.current
        place = {Jail: "jails", Request: "requests", Slot: "ips", Cached: "cache"}[type(row)]
        if self.view == place:
            if isinstance(row, Jail):
                await self.action_logs()
            elif isinstance(row, Slot) and row.info.jail in self.board.jails:
                await self._go_to("jails", row.info.jail)
            elif isinstance(row, Request) and row.jail in self.board.jails:
                await self._go_to("jails", row.jail)
            return
        await self._go_to(place, message.table.cursor)

    async def _go_to(self, view: str, key: Any) -> None:
        await self.show_view(view)
        self.shown_view.main.select(key)

    def on_descendant_focus(self, event: ui.DescendantFocus) -> None:
        if isinstance(event.widget, (Table, Logs)):
            self._focus_before = None
        self._paint_keys()

    # Its end

    @property
    def crash(self) -> str:
        """What the console died of, in a line; empty while it is well."""
        return "" if self._exception is None else line(f"{type(self._exception).__name__}: {self._exception}")

    @property
    def driver_seen(self) -> Driver | None:
        return self._driver

    def _fatal_error(self) -> None:
        """Textual would print every local variable, and a token may be one of them."""
        text = clean("".join(traceback.format_exception(self._exception)))
        self._exit_renderables.append(Text(text))
        self._close_messages_no_wait()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield SystemCommand(
            "Theme", "other colours; ansi-dark and ansi-light are the terminal's own", self.search_themes
        )
        for active in self._home.active_bindings.values():
            binding = active.binding
            if active.node is self and active.enabled and binding.description and not binding.system:
                action = binding.action

                def run(action: str = action) -> Any:
                    return self.run_action(action)

                word = binding.description[0].upper() + binding.description[1:]
                yield SystemCommand(word, f"key {self.get_key_display(binding)}", run)


class TooSmall(Canvas):
    """All that is shown when nothing would fit."""

    def draw(self, width: int, height: int) -> list[Line]:
        size = self.app.size
        return [
            Line([("enlarge the terminal", "strong")]),
            Line([(f"{size.width}x{size.height}, needs 60x15", "dim")]),
        ]


def _first(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
