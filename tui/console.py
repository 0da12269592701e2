"""The operations console: its keys, its frame, and when it paints.

The `Console` is the same for an island in this process and for one far away, because its `Station` knows a
`Port` only. It is made in layers: a keyboard, a desk with what all parts share, actions that choose what is
shown (`looking`), actions that change the island (`orders`, `deferred`). The console paints the view that is
shown at a steady pace, and at once after a key.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import events as ui
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Container
from textual.driver import Driver
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from skyisland.model import FunctionRequest
from tui.deferred import Deferred
from tui.dialogs import FilterBar
from tui.draw.canvas import Canvas, Hint, Line
from tui.draw.chrome import VIEW_KEYS, VIEWS, Banner, Head, HostStrip, Keys, Meters, Tabs, connection_banner
from tui.draw.details import Detail
from tui.draw.glyphs import Glyphs
from tui.draw.logs import Logs
from tui.draw.table import Table
from tui.draw.tones import SKY, Palette, variables
from tui.draw.views import Overview, View
from tui.memory import Look, Memory
from tui.naming import Naming
from tui.watch.filter import Filter
from tui.watch.port import Port
from tui.watch.rows import InvocationRow
from tui.watch.station import Station
from tui.words import clean, line

_PACE = "paint more often, less often"
_FAULT = "next, previous failure"
USUAL_REFRESH_S = 0.5
"""Between two pictures."""


class Console(Deferred, Naming):
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
        Binding(
            "slash", "filter", "Filter", key_display="/", tooltip="filter the rows or lines", id="filter"
        ),
        Binding("K", "kill", "Kill", tooltip="kill the marked ones; asks", id="kill"),
        Binding("ctrl+k", "kill_now", "kill without asking", show=False, id="kill_now"),
        Binding("X", "kill_all", "kill all jails; asks", show=False, id="kill_all"),
        Binding(
            "s",
            "set_address",
            "IP state",
            tooltip="take an address out, or back",
            id="set_address",
        ),
        Binding("b", "rebuild", "Rebuild", tooltip="build the binary anew", id="rebuild"),
        Binding("D", "evict", "Evict", tooltip="drop the binary; asks", id="evict"),
        Binding("P", "purge", "evict all binaries; asks", show=False, id="purge"),
        Binding("a", "define", "Define", tooltip="have a name stand for a function", id="name.define"),
        Binding("E", "redefine", "define this name anew", show=False, id="name.redefine"),
        Binding(
            "H",
            "pause_name",
            "Pause",
            tooltip="refuse this name's calls, or take them; asks",
            id="name.pause",
        ),
        Binding("M", "move_name", "Move", tooltip="move this name to a version; asks", id="name.move"),
        Binding(
            "U", "roll_back", "Roll back", tooltip="take this name back to a revision; asks", id="name.back"
        ),
        Binding("F", "forget_name", "forget this name; asks", show=False, id="name.forget"),
        Binding("x", "cancel_calls", "Cancel", tooltip="cancel the marked calls; asks", id="cancel_calls"),
        Binding("A", "redrive", "Again", tooltip="run dead or cancelled calls again; asks", id="redrive"),
        Binding("F", "forget_calls", "Forget", tooltip="forget calls that are over; asks", id="forget_calls"),
        Binding("l", "logs", "Logs", tooltip="the log, of this jail", id="logs"),
        Binding("o", "output", "Output", tooltip="what its jail writes, or wrote", id="output"),
        Binding("i", "invoke", "Invoke", tooltip="call a function by hand", id="invoke"),
        Binding("d", "describe", "describe: all about this row", show=False, id="describe"),
        Binding("n", "fault(1)", "next failure", show=False, tooltip=_FAULT, id="fault.next"),
        Binding("N", "fault(-1)", "previous failure", show=False, tooltip=_FAULT, id="fault.previous"),
        Binding("e", "faults", "Faults", tooltip="faults only, or all", id="faults"),
        Binding("p", "pause", "Pause", tooltip="hold what is shown, or go on", id="pause"),
        Binding("z", "zoom", "Zoom", tooltip="all room for this pane", id="zoom"),
        Binding("c", "copy", "copy the id", show=False, id="copy"),
        Binding("C", "curl", "copy the request as curl", show=False, id="curl"),
        *(
            Binding(
                key,
                f"view('{view}')",
                name,
                show=False,
                tooltip="the view with this number",
                id=f"view.{view}",
            )
            for key, (view, name, _) in zip(VIEW_KEYS, VIEWS, strict=True)
        ),
        Binding("plus", "pace(-1)", "faster", show=False, tooltip=_PACE, id="faster"),
        Binding("minus", "pace(1)", "slower", show=False, tooltip=_PACE, id="slower"),
        Binding("R", "retry", "retry now", show=False, id="retry"),
        Binding("T", "token", "give the admin token", show=False, id="token"),
        Binding("S", "picture", "save a picture of the screen", show=False, id="picture"),
        Binding("colon", "jump", "go to a view, a row, a command", show=False, id="jump"),
        Binding("escape", "widen", "back", show=False, id="widen"),
        Binding("question_mark", "help", "Help", key_display="?", tooltip="this help", id="help"),
        Binding("Q", "detach", "leave, the island runs on", show=False, id="detach"),
        Binding("q", "quit", "Quit", tooltip="leave", id="quit"),
    ]

    def __init__(
        self,
        port: Port,
        *,
        readonly: bool = False,
        ascii: bool = False,  # noqa: A002 - as the option is named
        refresh_s: float | None = None,
        clock: Callable[[], float] = time.time,
        follow: bool = True,
        driver_class: type[Driver] | None = None,
        theme: str | None = None,
        memory: Memory | None = None,
        command: str = "skyisland",
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        """`follow`: False for pictures and tests, which feed the station themselves (`station.receive`).
        `refresh_s`, `theme`: None for those that `memory` has, or else the usual. `memory`: of last time, or
        None. `ready`: called when the first picture is on the screen."""
        super().__init__(driver_class=driver_class)
        self.station = Station(port, clock, changed=self.paint_all, refused=self.action_token)
        self.readonly = readonly
        self.command = command
        self.memory = memory or Memory()
        last_s = self.memory.look.refresh_s
        self.refresh_s = refresh_s or (last_s if 0.1 <= last_s <= 60 else USUAL_REFRESH_S)
        self.glyphs = Glyphs(ascii=ascii)
        self.palette = Palette()
        self.last_look = self.memory.look
        """How it looked when it ended, for the memory."""
        self.follows = follow
        self._drawn = ready
        self._ticks = 0
        self.register_theme(SKY)
        wanted = theme or self.memory.look.theme
        self.theme = wanted if wanted in self.available_themes else SKY.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The values of our own colours for themes that do not define them."""
        return variables(self.current_theme)

    # Building

    def compose(self) -> ComposeResult:
        yield self.palette
        with Container(id="all"):
            yield Head(id="head")
            yield Meters(id="meters")
            yield HostStrip(id="strip")
            yield Tabs(id="tabs")
            yield Banner(id="banner")
            with ContentSwitcher(initial="overview", id="views"):
                yield Overview(self.board, id="overview")
            yield FilterBar(self.filtered, self.filter_done)
            yield Keys(id="keys")
        yield TooSmall(id="too-small")

    def on_mount(self) -> None:
        if self.glyphs.ascii:
            self.screen.add_class("-ascii")
            self.add_class("-ascii")
        self.home.query_one("#banner").display = False
        self._furnish(self.shown_view)
        self.home.set_focus(self.shown_view.main)
        if self.follows:
            self.run_worker(self.station.follow(), group="follow", exclusive=True)
            self.keep_pace(self.refresh_s)
        self.home.bindings_updated_signal.subscribe(self, lambda _: self._paint_keys())
        self.home.screen_layout_refresh_signal.subscribe(self, lambda _: self.refocus())

    def on_ready(self) -> None:
        """Textual calls this when the first picture is on the screen."""
        self._drawn()

    # Remembering

    async def show_view(self, view: str) -> None:
        before = set(self.home.query(View))
        await super().show_view(view)
        for pane in set(self.home.query(View)) - before:
            self._furnish(pane)

    def _furnish(self, view: View) -> None:
        """Sort and filter its tables as they were last time; where calls would be, say how to make one."""
        look = self.memory.look
        for table in view.query(Table):
            if table.kind is InvocationRow:
                table.empty = first_steps(self.station.port, self.command, readonly=self.readonly)
            if table.id in look.orders:
                table.order_by(*look.orders[table.id])
            if table.id in look.filters:
                table.filter = Filter(look.filters[table.id])
            table.paint()

    def _look(self) -> Look:
        """How it looks now; of views that were not shown, how they did last time."""
        last = self.memory.look
        shown = {table.id: table for table in self.home.query(Table) if table.id is not None}
        orders = {name: order for name, order in last.orders.items() if name not in shown}
        orders |= {name: table.order for name, table in shown.items() if table.order != table.usual_order}
        filters = {name: text for name, text in last.filters.items() if name not in shown}
        filters |= {name: table.filter.text for name, table in shown.items() if table.filter}
        return Look(self.theme, self.refresh_s, orders, filters)

    def _note_look(self) -> None:
        look = self._look()
        if look != self.memory.look:
            self.run_worker(asyncio.to_thread(self.memory.note_look, look), group="memory")

    def exit(self, *args: Any, **options: Any) -> None:
        if self.is_running and self.screen_stack:
            self.last_look = self._look()
        super().exit(*args, **options)

    # Painting

    def _tick(self) -> None:
        """Paint tables and logs at the chosen pace, charts and frame once a second.

        Called twice per pace, for the two by turns: so each call holds up the event loop, which the API may
        share, for half as long.
        """
        if not self.is_running:
            return
        self._ticks += 1
        turn, charts = divmod(self._ticks, 2)
        second = turn % max(1, round(1.0 / self.refresh_s)) == 0
        if len(self.screen_stack) > 1 and not second:
            return
        if charts and second:
            self._note_look()
            self._show_banner()
            for canvas in self.home.query("Head, Meters, HostStrip, Tabs, Banner").results(Canvas):
                canvas.paint()
        elif not charts:
            self._after_a_stall()
        for canvas in self.shown_view.canvases:
            live = isinstance(canvas, (Table, Logs, Detail))
            if (charts and second and not live) or (live and not charts):
                canvas.paint()

    def _after_a_stall(self) -> None:
        """Draw everything anew once a terminal that had stopped reading reads again."""
        recovered = getattr(self._driver, "recovered", None)
        if recovered is not None and recovered():
            self.screen.refresh(layout=True)

    def _show_banner(self) -> None:
        banner = self.home.query_one("#banner")
        needed = bool(connection_banner(self.station.connection, self.glyphs, self.station.clock()))
        if banner.display != needed:
            banner.display = needed
        good = self.station.good or self.station.connection.state == "connecting"
        self.home.set_class(not good, "-old")

    def paint_all(self) -> None:
        """Paint everything that is shown, now."""
        if not self.is_running:
            return
        self._show_banner()
        for canvas in self.shown_view.canvases:
            canvas.paint()
        for canvas in self.home.query("Head, Meters, HostStrip, Tabs, Banner, Keys").results(Canvas):
            canvas.paint()

    def on_descendant_focus(self, event: ui.DescendantFocus) -> None:
        self._paint_keys()

    def _paint_keys(self) -> None:
        if self.is_running:
            self.home.query_one("#keys", Keys).paint()

    def hints(self) -> list[Hint]:
        """The keys that work now, the focused pane's first."""
        hints: list[Hint] = []
        for active in self.home.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.description and not binding.system:
                namespace = "" if active.node is self else "focused."
                hint = Hint(self.get_key_display(binding), binding.description, namespace + binding.action)
                if not any(other.word == hint.word for other in hints):
                    hints.append(hint)
        return hints

    def get_key_display(self, binding: Binding) -> str:
        """A key as help and key line show it; Textual draws arrows."""
        shown = super().get_key_display(binding)
        return shown if shown.isascii() or not self.glyphs.ascii else binding.key

    # When it ends

    @property
    def crash(self) -> str:
        """Why the console crashed, in a line; empty if it did not."""
        return "" if self._exception is None else line(f"{type(self._exception).__name__}: {self._exception}")

    @property
    def terminal_driver(self) -> Driver | None:
        """Textual's driver, once it runs."""
        return self._driver

    def _fatal_error(self) -> None:
        """Print the traceback alone. Textual would print local variables too, and a token may be one."""
        text = clean("".join(traceback.format_exception(self._exception)))
        self._exit_renderables.append(Text(text))
        self._close_messages_no_wait()

    def action_command_palette(self) -> None:
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            self.push_screen(CommandPalette(placeholder="Search for commands", id="--command-palette"))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield SystemCommand(
            "Theme", "other colours; ansi-dark and ansi-light are the terminal's own", self.search_themes
        )
        for active in self.home.active_bindings.values():
            binding = active.binding
            if active.node is self and active.enabled and binding.description and not binding.system:
                action = binding.action

                def run(action: str = action) -> Any:
                    return self.run_action(action)

                word = binding.description[0].upper() + binding.description[1:]
                yield SystemCommand(word, f"key {self.get_key_display(binding)}", run)


TRIED = FunctionRequest(url="github.com/mmcloughlin/geohash", call="Encode(48.8584, 2.2945)")
"""A first call, of the package that README.md calls."""


def first_steps(port: Port, command: str, *, readonly: bool) -> str:
    """How to make a first call, in commands that are true here."""
    steps = ["no request yet"]
    if not readonly:
        steps.append("i   calls a function by hand; ctrl+f there shows what a package offers")
    return "\n".join(
        [
            *steps,
            f"$ {command} invoke {TRIED.url} '{TRIED.call}'",
            f"$ {port.curl(TRIED)}",
            f"$ {command} invoke ./FOLDER 'F()'   calls a package of your own",
        ]
    )


class TooSmall(Canvas):
    """Shown instead of everything else when the terminal is too small for it."""

    def draw(self, width: int, height: int) -> list[Line]:
        size = self.app.size
        return [
            Line([("enlarge the terminal", "strong")]),
            Line([(f"{size.width}x{size.height}, needs 60x15", "dim")]),
        ]
