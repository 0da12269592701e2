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
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from textual import events as ui
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.driver import Driver
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Input

from skyisland import events as ev
from skyisland.errors import Forbidden, IslandError, Unauthorized
from skyisland.events import Event
from skyisland.model import AddressState
from tui.board import Board, Cached, Jail, Request, Slot
from tui.canvas import Canvas
from tui.chrome import VIEWS, Banner, Head, Keys, Meters, Tabs
from tui.dialogs import Ask, AskToken, Choice, FilterBar, Help
from tui.filter import Filter
from tui.invoke import Invoke
from tui.link import Link
from tui.logs import LogRow, Logs
from tui.look import SKY, Look, Spans
from tui.panels import fact
from tui.port import LinkLost, LogLine, Port, Snapshot
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
from tui.words import clean, duration, fit, line

CONFIRM_S = 5.0
"""How long an action may wait for the event that confirms it."""
SNAPSHOT_S = 2.0
"""Between two snapshots, which bring what no event tells: use of processor and memory."""
LOG_LINES = 5000
REFRESH_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Hint(NamedTuple):
    """A key for the line at the bottom."""

    key: str
    word: str
    action: str

    @property
    def width(self) -> int:
        return len(self.key) + len(self.word) + 3


class Console(App[int]):
    """The console on one island."""

    TITLE = "Sky Island"
    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [
        (0, "-tiny"),
        (60, "-w60"),
        (110, "-w110"),
        (160, "-w160"),
    ]
    VERTICAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [
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
        Binding("escape", "back", "back", show=False, id="back"),
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
        ansi: bool = False,
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
        self.log_rows: deque[LogRow] = deque(maxlen=LOG_LINES)
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
        self.theme = "textual-ansi" if ansi else "sky"

    # Time

    @property
    def now(self) -> float:
        """The island's time of what is shown; it stands still while paused or cut off."""
        if self._frozen_at is not None:
            return self._frozen_at
        if self.link.state in ("down", "unauthorized") and self.link.heard_at is not None:
            return self.link.heard_at + self._skew
        return self.clock() + self._skew

    # Building

    def compose(self) -> ComposeResult:
        with Container(id="all"):
            yield Head(id="head")
            yield Meters(id="meters")
            yield Tabs(id="tabs")
            yield Banner(id="banner")
            with ContentSwitcher(initial="overview", id="views"):
                yield Overview(self.board, id="overview")
                yield JailsView(self.board, id="jails")
                yield AddressesView(self.board, id="ips")
                yield CacheView(self.board, id="cache")
                yield RequestsView(self.board, id="requests")
                yield LogsView(self.board, id="logs")
                yield HostView(self.board, id="host")
            yield FilterBar(self._filtered, self._filter_done)
            yield Keys(id="keys")
        yield TooSmall(id="too-small")

    def on_mount(self) -> None:
        if self._ascii:
            self.screen.add_class("-ascii")
            self.add_class("-ascii")
        self.board.watch(self._confirm)
        self._home.query_one("#banner").display = False
        self.shown_view.main.focus()
        if self._follow:
            self.run_worker(self._follow_island(), group="follow", exclusive=True)
            self._timer = self.set_interval(self.refresh_s, self._tick)
        self._home.bindings_updated_signal.subscribe(self, lambda _: self._paint_keys())

    @property
    def _home(self) -> Screen[Any]:
        return self.screen_stack[0]

    @property
    def shown_view(self) -> View:
        return self._home.query_one(f"#{self.view}", View)

    def log_lines(self, jail: str) -> list[LogLine]:
        """The lines of one jail, oldest first."""
        return [row.line for row in self.log_rows if row.line.jail == jail]

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
        for entry in lines:
            jail = entry.jail and line(entry.jail)
            self.log_rows.append(
                LogRow(
                    LogLine(
                        at=entry.at,
                        level=line(entry.level),
                        text=clean(entry.text).rstrip("\n"),
                        jail=jail,
                        seq=entry.seq,
                    )
                )
            )

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
        if not self.is_running:
            return
        self._ticks += 1
        self._after_a_stall()
        modal = len(self.screen_stack) > 1
        slow = self._ticks % max(1, round(1.0 / self.refresh_s)) == 0
        if modal and not slow:
            return
        self._show_banner()
        for canvas in self.shown_view.canvases:
            if slow or isinstance(canvas, (Table, Logs)):
                canvas.paint()
        if slow:
            for canvas in self._home.query("Head, Meters, Tabs, Banner").results(Canvas):
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

    def show_view(self, view: str) -> None:
        self.view = view
        self._home.query_one(ContentSwitcher).current = view
        self.shown_view.main.focus()
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

    def on_table_opened(self, message: Table.Opened) -> None:
        row = message.table.current
        place = {Jail: "jails", Request: "requests", Slot: "ips", Cached: "cache"}[type(row)]
        if self.view == place:
            if isinstance(row, Jail):
                self.action_logs()
            elif isinstance(row, Slot) and row.info.jail in self.board.jails:
                self._go_to("jails", row.info.jail)
            elif isinstance(row, Request) and row.jail in self.board.jails:
                self._go_to("jails", row.jail)
            return
        self._go_to(place, message.table.cursor)

    def _go_to(self, view: str, key: Any) -> None:
        self.show_view(view)
        self.shown_view.main.select(key)

    def on_descendant_focus(self, event: ui.DescendantFocus) -> None:
        if isinstance(event.widget, (Table, Logs)):
            self._focus_before = None
        self._paint_keys()

    # What may be done here

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        focused = self._home.focused if self.screen_stack else None
        row = self.row if focused is not None else None
        match action:
            case "kill" | "kill_now":
                return not self.readonly and isinstance(row, (Jail, Slot, Request))
            case "set_address":
                return not self.readonly and isinstance(row, (Slot, Jail))
            case "rebuild" | "evict":
                return not self.readonly and isinstance(row, Cached)
            case "invoke":
                return not self.readonly
            case "curl":
                return isinstance(row, Request)
            case "retry":
                return self.link.state != "live"
            case "token":
                return self.link.state == "unauthorized"
        return True

    def _may_act(self) -> bool:
        if self.link.good(self.clock()):
            return True
        self.say("the island is out of reach: nothing was done", bad=True)
        return False

    # Actions

    def say(self, text: str, *, bad: bool = False) -> None:
        self.notify(line(text), severity="error" if bad else "information", markup=False, timeout=6 if bad else 4)

    def _confirm(self, event: Event) -> None:
        for matches, arrived in self._waiting:
            if matches(event):
                arrived.set()

    async def _confirmed(self, matches: Callable[[Event], bool], action: Awaitable[None]) -> str:
        """Do it and wait for the event that says it is done; returns what went wrong, or nothing."""
        arrived = asyncio.Event()
        entry = (matches, arrived)
        self._waiting.append(entry)
        try:
            await action
            await asyncio.wait_for(arrived.wait(), CONFIRM_S)
        except TimeoutError:
            return f"the island took it but has not confirmed it within {CONFIRM_S:.0f} s"
        except (IslandError, LinkLost) as failure:
            return str(failure)
        finally:
            self._waiting.remove(entry)
        return ""

    async def _all(self, done: str, work: Sequence[tuple[str, Awaitable[str]]]) -> None:
        """Wait for several actions and say in one sentence what came of them."""
        results = await asyncio.gather(*(each for _, each in work))
        bad = [(name, why) for (name, _), why in zip(work, results, strict=True) if why]
        good = [name for (name, _), why in zip(work, results, strict=True) if not why]
        if good:
            self.say(f"{done} {good[0]}" if len(good) == 1 else f"{done} {len(good)}")
        for name, why in bad[:3]:
            self.say(f"{name}: {why}", bad=True)
        if len(bad) > 3:
            self.say(f"and {len(bad) - 3} more failed", bad=True)
        self.paint_all()

    def action_kill(self) -> None:
        jails = self.chosen_jails()
        if not jails:
            self.say("no living jail is selected", bad=True)
            return
        if not self._may_act():
            return
        rows: list[Spans] = []
        for jail in jails[:6]:
            glyph, tone = self.look.state(jail.state)
            rows.append(
                [
                    (f"{fit(jail.name, 14)} {fit(jail.label, 24, more=self.look['more'])} ", "text"),
                    (fit(glyph, 11), tone),
                    (f"{jail.info.ip4 or '-':<14}", "text"),
                    (jail.request, "dim"),
                ]
            )
        if len(jails) > 6:
            rows.append([(f"and {len(jails) - 6} more", "dim")])
        told = "Each caller is told: killed by the operator."
        if any(jail.info.ip4 for jail in jails):
            told += " Addresses go back to the pool."
        rows += [[], [(told, "dim")]]
        title = f"Kill {len(jails)} jails?" if len(jails) > 1 else "Kill this jail?"
        choices = [Choice("n", "No", "no"), Choice("y", "Kill", "yes", "error")]
        self.push_screen(
            Ask(title, rows, choices, danger=True), lambda answer: self._kill(jails) if answer == "yes" else None
        )

    def action_kill_now(self) -> None:
        jails = self.chosen_jails()[:1]
        if jails and self._may_act():
            self._kill(jails)

    def _kill(self, jails: list[Jail]) -> None:
        for jail in jails:
            jail.killing = True
        if self.table is not None:
            self.table.marks.clear()
        self.paint_all()

        async def kill(jail: Jail) -> str:
            name = jail.info.name
            why = await self._confirmed(
                lambda event: isinstance(event, (ev.JailKilled, ev.JailDestroyed)) and event.jail == name,
                self.port.kill(name),
            )
            if why:
                jail.killing = False
            return why

        self.run_worker(self._all("killed", [(jail.name, kill(jail)) for jail in jails]), group="act")

    def _chosen_slots(self) -> list[Slot]:
        slots = []
        for row in self.chosen:
            if isinstance(row, Slot):
                slots.append(row)
            elif isinstance(row, Jail) and row.info.ip4 in self.board.slots:
                slots.append(self.board.slots[row.info.ip4])
        return slots

    def action_set_address(self) -> None:
        slots = self._chosen_slots()
        if not slots:
            self.say("no address is selected", bad=True)
            return
        if not self._may_act():
            return
        rows: list[Spans] = []
        for slot in slots[:6]:
            glyph, tone = self.look.state(slot.state, str(slot.info.state))
            rows.append([(f"{slot.ip:<16}", "strong"), (fit(glyph, 15), tone), (slot.info.jail or "", "text")])
        if len(slots) > 6:
            rows.append([(f"and {len(slots) - 6} more", "dim")])
        rows += [
            [],
            [("available    ", "strong"), ("jails may lease it", "dim")],
            [("unavailable  ", "strong"), ("out of the pool until an operator gives it back", "dim")],
        ]
        if any(slot.info.jail for slot in slots):
            rows += [[], [("A leased address stays with its jail until that ends.", "warn")]]
        title = f"State of {slots[0].ip}" if len(slots) == 1 else f"State of {len(slots)} addresses"
        choices = [
            Choice("a", "Available", "available"),
            Choice("u", "Unavailable", "unavailable"),
        ]
        if all(slot.info.state is AddressState.available for slot in slots):
            choices.reverse()
        self.push_screen(Ask(title, rows, choices), lambda answer: self._set_addresses(slots, answer))

    def _set_addresses(self, slots: list[Slot], answer: str | None) -> None:
        if answer is None:
            return
        state = AddressState(answer)
        if self.table is not None:
            self.table.marks.clear()
        for slot in slots:
            slot.setting = state
        self.paint_all()

        async def put(ip: str) -> str:
            why = await self._confirmed(
                lambda event: isinstance(event, ev.AddressStateSet) and event.ip == ip,
                self.port.set_address(ip, state),
            )
            if ip in self.board.slots:
                self.board.slots[ip].setting = None
            return why

        work = [(f"{slot.ip}", put(slot.info.ip)) for slot in slots]
        self.run_worker(self._all(f"{answer}:", work), group="act")

    def _chosen_cached(self) -> list[Cached]:
        return [row for row in self.chosen if isinstance(row, Cached)]

    def action_evict(self) -> None:
        rows = [row for row in self._chosen_cached() if row.artifact is not None]
        if not rows:
            self.say("no binary is selected", bad=True)
            return
        if not self._may_act():
            return
        lines: list[Spans] = [
            [(fit(row.label, 44, more=self.look["more"]), "text"), (f"  {row.key[:12]}", "dim")] for row in rows[:6]
        ]
        if len(rows) > 6:
            lines.append([(f"and {len(rows) - 6} more", "dim")])
        lines += [[], [("The next call of each is built anew.", "dim")]]
        title = f"Evict {len(rows)} binaries?" if len(rows) > 1 else "Evict this binary?"
        choices = [Choice("n", "No", "no"), Choice("y", "Evict", "yes", "warning")]
        self.push_screen(Ask(title, lines, choices), lambda answer: self._evict(rows) if answer == "yes" else None)

    def _evict(self, rows: list[Cached]) -> None:
        if self.table is not None:
            self.table.marks.clear()
        for row in rows:
            row.evicting = True
        self.paint_all()

        async def evict(row: Cached) -> str:
            why = await self._confirmed(
                lambda event: isinstance(event, ev.ArtifactEvicted) and event.key == row.key,
                self.port.evict(row.key),
            )
            if why and row.key in self.board.cache:
                self.board.cache[row.key].evicting = False
            return why

        self.run_worker(self._all("evicted", [(row.label, evict(row)) for row in rows]), group="act")

    def action_rebuild(self) -> None:
        rows = self._chosen_cached()
        if not rows or not self._may_act():
            return
        if self.table is not None:
            self.table.marks.clear()

        async def rebuild(row: Cached) -> str:
            try:
                await self.port.rebuild(row.key)
            except (IslandError, LinkLost) as failure:
                return str(failure)
            return ""

        self.say("rebuilding " + (rows[0].label if len(rows) == 1 else f"{len(rows)} binaries"))
        self.run_worker(self._all("rebuilt", [(row.label, rebuild(row)) for row in rows]), group="act")

    def action_invoke(self) -> None:
        row = self.row
        url, call = "", ""
        if isinstance(row, Request):
            url, call = row.url, row.call
        elif isinstance(row, Jail):
            url, call = line(row.info.url), line(row.info.call)
        elif isinstance(row, Cached):
            url, call = row.url, row.function if "(" in row.function else f"{row.function}("
        self.push_screen(Invoke(url, call))

    def action_logs(self) -> None:
        jails = self.chosen_jails()
        row = self.row
        name = jails[0].name if jails else row.jail if isinstance(row, Request) else None
        self.show_view("logs")
        self.shown_view.query_one(Logs).show_jail(name)

    def action_view(self, view: str) -> None:
        self.show_view(view)

    def action_filter(self) -> None:
        pane = self._home.focused
        if isinstance(pane, (Table, Logs)):
            self._focus_before = pane
            self._home.query_one("#keys").display = False
            self._home.query_one(FilterBar).open(pane.filter.text)

    def _filtered(self, text: str) -> None:
        pane = self._focus_before
        if isinstance(pane, (Table, Logs)):
            pane.filter = Filter(text)
            pane.paint()

    def _filter_done(self) -> None:
        pane, self._focus_before = self._focus_before, None
        self._home.query_one("#keys").display = True
        if pane is not None:
            pane.focus()
        self.call_after_refresh(self.paint_all)

    def action_faults(self) -> None:
        pane = self._home.focused
        if isinstance(pane, (Table, Logs)):
            pane.faults_only = not pane.faults_only
            self.paint_all()

    def action_pause(self) -> None:
        """Freeze what is shown; what happens meanwhile is taken in afterwards."""
        if not self.paused:
            self._frozen_at = self.now
            self.paused = True
        else:
            self.paused, self._frozen_at = False, None
            held, self._held = list(self._held), deque(maxlen=self._held.maxlen)
            for news in held:
                if isinstance(news, Snapshot):
                    self.board.load(news)
                else:
                    self.board.fold(news)
        self.paint_all()

    def action_zoom(self) -> None:
        """Give the whole view to the focused pane, or take it back."""
        view, pane = self.shown_view, self._home.focused
        zoomed = not view.has_class("-zoom")
        for node in view.query(".-path"):
            node.remove_class("-path")
        if zoomed and pane is not None:
            for node in pane.ancestors_with_self:
                if node is view:
                    break
                node.add_class("-path")
        view.set_class(zoomed, "-zoom")
        self.call_after_refresh(self.paint_all)

    def action_copy(self) -> None:
        row = self.row
        if row is None:
            return
        text = {
            Jail: lambda: row.info.name,  # type: ignore[union-attr]
            Request: lambda: row.id,  # type: ignore[union-attr]
            Slot: lambda: row.ip,  # type: ignore[union-attr]
            Cached: lambda: row.key,  # type: ignore[union-attr]
        }[type(row)]()
        self.copy_to_clipboard(line(text))
        self.say(f"copied {text}")

    def action_curl(self) -> None:
        if isinstance(self.row, Request):
            from skyisland.model import FunctionRequest

            self.copy_to_clipboard(self.port.curl(FunctionRequest(url=self.row.url, call=self.row.call)))
            self.say("copied as curl")

    def action_pace(self, by: int) -> None:
        paces = sorted({*REFRESH_S, self.refresh_s})
        at = max(0, min(len(paces) - 1, paces.index(self.refresh_s) + by))
        self.refresh_s = paces[at]
        if self._follow:
            self._timer.stop()
            self._timer = self.set_interval(self.refresh_s, self._tick)
        self.say(f"refreshed every {duration(self.refresh_s)}")

    def action_retry(self) -> None:
        self._again.set()

    def action_token(self) -> None:
        if any(isinstance(screen, AskToken) for screen in self.screen_stack):
            return

        def given(token: str | None) -> None:
            if token:
                self.port.authorize(token)
                self._again.set()

        self.push_screen(AskToken(self.link.cause), given)

    def action_picture(self) -> None:
        self.deliver_screenshot()

    def action_back(self) -> None:
        """Undo the last narrowing: marks, filter, faults only, a jail's log, zoom; then go to the overview."""
        pane, view = self._home.focused, self.shown_view
        if isinstance(pane, Table) and pane.marks:
            pane.marks.clear()
        elif isinstance(pane, (Table, Logs)) and (pane.filter or pane.faults_only):
            pane.filter, pane.faults_only = Filter(), False
        elif isinstance(pane, Logs) and pane.jail is not None:
            pane.jail = None
        elif view.has_class("-zoom"):
            self.action_zoom()
        elif self.view != "overview":
            self.show_view("overview")
        self.paint_all()

    def action_help(self) -> None:
        focused = self._home.focused
        groups: list[tuple[str, list[tuple[str, str]]]] = []
        for node, title in ((focused, "This pane"), (self, "Everywhere")):
            if node is None:
                continue
            keys: dict[str, list[str]] = {}
            for active in self._home.active_bindings.values():
                if active.node is node and active.binding.description and not active.binding.system:
                    keys.setdefault(active.binding.description, []).append(self.get_key_display(active.binding))
            if keys:
                groups.append((title, [(" ".join(names), word) for word, names in keys.items()]))
        words = [
            ("encode", "rows that show this word"),
            ("!warm", "rows that do not"),
            ("fn: st: ip:", "in function, state, address"),
            ("code: jail: req:", "in result, jail, request"),
            (">400ms  <2s", "by time: age, or total"),
        ]
        self.push_screen(Help([*groups, ("Filter: all words must match", words)]))

    async def action_quit(self) -> None:
        if self.port.attached or not self._follow:
            self.exit(0)
            return
        count = len(self.board.jails)
        what = "no jail is running" if not count else f"{count} jails are running"
        rows: list[Spans] = [
            [(f"The island ends with this console; {what}.", "text")],
            [("Running calls get some seconds to finish.", "dim")],
        ]
        choices = [Choice("n", "No", "no"), Choice("y", "Stop the island", "yes", "error")]

        def answered(answer: str | None) -> None:
            if answer == "yes":
                self.stopping = True
                self.exit(0)

        self.push_screen(Ask("Stop the island?", rows, choices, danger=True), answered)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
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

    def draw(self, width: int, height: int) -> list[Any]:
        from tui.canvas import Line

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


__all__ = ["Console", "Hint", "Input", "fact"]
