"""What the operator can do: the actions behind the keys.

Every action on the island is one of its methods, reached through the port. It is done when the event
that follows it says so; an error, or five seconds without that event, is told in words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from skyisland import events as ev
from skyisland.errors import IslandError
from skyisland.events import Event
from skyisland.model import AddressState, FunctionRequest
from tui.board import Board
from tui.canvas import Pager
from tui.dialogs import Ask, AskToken, Choice, FilterBar, Help
from tui.filter import Filter
from tui.invoke import Invoke
from tui.keyboard import Keyboard
from tui.link import Link
from tui.logs import Logs
from tui.look import Look, Spans
from tui.port import LinkLost, Port, Snapshot
from tui.rows import Cached, Jail, Request, Slot
from tui.table import Table
from tui.words import duration, fit, line

if TYPE_CHECKING:
    from textual.timer import Timer
    from textual.widget import Widget

    from tui.views import View

CONFIRM_S = 5.0
"""How long an action may wait for the event that confirms it."""
REFRESH_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""The paces that + and - go through."""


class Actions(Keyboard[int]):
    """The console's actions; `Console` gives them what they work on."""

    port: Port
    board: Board
    link: Link
    look: Look
    readonly: bool
    paused: bool
    stopping: bool
    refresh_s: float
    view: str
    clock: Callable[[], float]
    _follow: bool
    _timer: Timer
    _held: deque[Event | Snapshot]
    _frozen_at: float | None
    _again: asyncio.Event
    _waiting: list[tuple[Callable[[Event], bool], asyncio.Event]]
    _focus_before: Widget | None

    if TYPE_CHECKING:

        @property
        def now(self) -> float: ...
        @property
        def _home(self) -> Screen[Any]: ...
        @property
        def shown_view(self) -> View: ...
        @property
        def table(self) -> Table[Any] | None: ...
        @property
        def row(self) -> Jail | Request | Slot | Cached | None: ...
        @property
        def chosen(self) -> list[Any]: ...
        def chosen_jails(self) -> list[Jail]: ...
        async def show_view(self, view: str) -> None: ...
        def paint_all(self) -> None: ...
        def _tick(self) -> None: ...

    # What may be done here

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        focused = self._home.focused if self.screen_stack else None
        kind = self.table.kind if focused is not None and self.table is not None else None
        match action:
            case "kill" | "kill_now":
                return not self.readonly and kind in (Jail, Slot, Request)
            case "set_address":
                return not self.readonly and kind in (Slot, Jail)
            case "rebuild" | "evict":
                return not self.readonly and kind is Cached
            case "invoke":
                return not self.readonly
            case "filter" | "faults":
                return isinstance(focused, (Table, Logs))
            case "zoom":
                return isinstance(focused, (Table, Logs, Pager))
            case "logs":
                return self.view != "logs"
            case "curl":
                return kind is Request
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
        self.notify(
            line(text), severity="error" if bad else "information", markup=False, timeout=6 if bad else 4
        )

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
            Ask(title, rows, choices, danger=True),
            lambda answer: self._kill(jails) if answer == "yes" else None,
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
            rows.append(
                [(f"{slot.ip:<16}", "strong"), (fit(glyph, 15), tone), (slot.info.jail or "", "text")]
            )
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
            [(fit(row.label, 44, more=self.look["more"]), "text"), (f"  {row.key[:12]}", "dim")]
            for row in rows[:6]
        ]
        if len(rows) > 6:
            lines.append([(f"and {len(rows) - 6} more", "dim")])
        lines += [[], [("The next call of each is built anew.", "dim")]]
        title = f"Evict {len(rows)} binaries?" if len(rows) > 1 else "Evict this binary?"
        choices = [Choice("n", "No", "no"), Choice("y", "Evict", "yes", "warning")]
        self.push_screen(
            Ask(title, lines, choices), lambda answer: self._evict(rows) if answer == "yes" else None
        )

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

    async def action_logs(self) -> None:
        jails = self.chosen_jails()
        row = self.row
        name = jails[0].name if jails else row.jail if isinstance(row, Request) else None
        await self.show_view("logs")
        self.shown_view.query_one(Logs).show_jail(name)

    async def action_view(self, view: str) -> None:
        await self.show_view(view)

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
            self._home.set_focus(pane)
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
            for ancestor in pane.ancestors_with_self:
                if ancestor is view:
                    break
                ancestor.add_class("-path")
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
            self.copy_to_clipboard(self.port.curl(FunctionRequest(url=self.row.url, call=self.row.call)))
            self.say("copied as curl")

    def action_pace(self, by: int) -> None:
        paces = sorted({*REFRESH_S, self.refresh_s})
        at = max(0, min(len(paces) - 1, paces.index(self.refresh_s) + by))
        self.refresh_s = paces[at]
        if self._follow:
            self._timer.stop()
            self._timer = self.set_interval(self.refresh_s / 2, self._tick)
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

    async def action_widen(self) -> None:
        """Undo the last narrowing: marks, filter, a jail's log, zoom; then go to the overview."""
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
            await self.show_view("overview")
        self.paint_all()

    def action_help(self) -> None:
        focused = self._home.focused
        groups: list[tuple[str, list[tuple[str, str]]]] = []
        for title, nodes in (("This pane", (focused,)), ("Everywhere", (self, self._home))):
            keys: dict[tuple[str, str], list[str]] = {}
            for active in self._home.active_bindings.values():
                binding = active.binding
                if binding.action == "screen.copy_text":
                    continue  # there is nothing to select here
                if active.node in nodes and binding.description and not binding.system:
                    names = keys.setdefault((binding.description, binding.action), [])
                    names.append(self.get_key_display(binding))
            if keys:
                groups.append((title, [(" ".join(names), word) for (word, _), names in keys.items()]))
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
        count = self.board.busy
        what = {0: "no jail is running", 1: "1 jail is running"}.get(count, f"{count} jails are running")
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
