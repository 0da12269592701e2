"""The operator's orders: kill jails, take addresses out, evict binaries and build them anew, call functions.

Every order is one of the island's methods, reached through the port. An order on single rows is done when
the event that follows it says so, an order on everything when the island answers; an error, or some seconds
without that event, is shown to the operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from skyisland import events as ev
from skyisland.errors import IslandError, JailNotFound
from skyisland.model import FunctionRequest
from skyisland.status import AddressState
from tui import questions
from tui.invoke import Invoke
from tui.looking import Looking
from tui.output import Output
from tui.watch.port import LinkLost
from tui.watch.rows import AddressRow, ArtifactRow, FunctionRow, InvocationRow, JailRow


class Orders(Looking):
    """The actions that change the island."""

    stopping = False
    """The island ends with this console."""
    detaching = False
    """The operator leaves the island of this process running."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        focused = self.home.focused if self.screen_stack else None
        kind = self.table.kind if focused is not None and self.table is not None else None
        match action:
            case "kill" | "kill_now":
                return not self.readonly and kind in (JailRow, AddressRow, InvocationRow)
            case "set_address":
                return not self.readonly and kind in (AddressRow, JailRow)
            case "rebuild" | "evict":
                return not self.readonly and kind is ArtifactRow
            case "purge":
                return not self.readonly and self.view == "cache"
            case "output":
                return kind in (JailRow, InvocationRow)
            case "detach":
                return not self.station.port.attached
            case "invoke" | "kill_all":
                return not self.readonly
        return super().check_action(action, parameters)

    def _may_act(self) -> bool:
        if self.station.good:
            return True
        self.say("the island is out of reach: nothing was done", bad=True)
        return False

    def _begin(self) -> None:
        """Clear the marks, and show the rows as being worked on."""
        if self.table is not None:
            self.table.marks.clear()
        self.paint_all()

    async def _all(self, done: str, work: Sequence[tuple[str, Awaitable[str | None]]]) -> None:
        """Wait for several orders and say in one sentence what came of them: a fault, or none.

        Of an order that gives None there is nothing to say.
        """
        results = await asyncio.gather(*(each for _, each in work))
        bad = [(name, fault) for (name, _), fault in zip(work, results, strict=True) if fault]
        good = [name for (name, _), fault in zip(work, results, strict=True) if fault == ""]
        if good:
            self.say(f"{done} {good[0]}" if len(good) == 1 else f"{done} {len(good)}")
        for name, fault in bad[:3]:
            self.say(f"{name}: {fault}", bad=True)
        if len(bad) > 3:
            self.say(f"and {len(bad) - 3} more failed", bad=True)
        self.paint_all()

    async def _everything(self, order: Awaitable[int], done: str, one: str, many: str) -> bool:
        """Wait for an order on everything and say how much it did; False if it failed."""
        try:
            number = await order
        except (IslandError, LinkLost) as failure:
            self.say(str(failure), bad=True)
            return False
        self.say(f"{done} {number} {one if number == 1 else many}")
        return True

    # Jails

    def action_kill(self) -> None:
        jails = self.chosen_jails()
        if not jails:
            self.say("no living jail is selected", bad=True)
        elif self._may_act():
            self.push_screen(
                questions.kill(jails, self.glyphs),
                lambda answer: self._kill(jails) if answer == "yes" else None,
            )

    def action_kill_now(self) -> None:
        jails = self.chosen_jails()[:1]
        if self.table is not None and self.table.floating:
            self.action_kill()  # who knows which row it was when the key was pressed
        elif jails and self._may_act():
            self._kill(jails)

    def _kill(self, jails: list[JailRow]) -> None:
        for jail in jails:
            jail.killing = True
        self._begin()

        async def kill(jail: JailRow) -> str | None:
            name, gone = jail.info.name, False
            if self.board.is_elsewhere(jail):
                fault = await self.station.carry_out_elsewhere(self.station.port.kill(name, jail.node))
                jail.killing = not fault
                return fault

            async def order() -> None:
                nonlocal gone
                try:
                    await self.station.port.kill(name)
                except JailNotFound:
                    gone = True
                    raise

            fault = await self.station.carry_out(
                lambda event: isinstance(event, (ev.JailKilled, ev.JailDestroyed)) and event.jail == name,
                order(),
            )
            if fault:
                jail.killing = False
            if gone or (fault and name not in self.board.jails):
                self.say(f"{name} had ended already")  # which is what was wanted
                return None
            return fault

        self.run_worker(self._all("killed", [(jail.name, kill(jail)) for jail in jails]), group="act")

    def action_kill_all(self) -> None:
        jails = list(self.board.jails.values())
        if not jails:
            self.say("no jail is alive", bad=True)
        elif self._may_act():
            self.push_screen(
                questions.kill_all(jails), lambda answer: self._kill_all() if answer == "yes" else None
            )

    def _kill_all(self) -> None:
        jails = list(self.board.jails.values())
        for jail in jails:
            jail.killing = True
        self._begin()

        async def kill() -> None:
            if not await self._everything(self.station.port.kill_all(), "killed", "jail", "jails"):
                for jail in jails:
                    jail.killing = False
            self.paint_all()

        self.run_worker(kill(), group="act")

    # Addresses

    def _chosen_slots(self) -> list[AddressRow]:
        slots = []
        for row in self.chosen:
            if isinstance(row, AddressRow):
                slots.append(row)
            elif isinstance(row, JailRow):
                slots += [one for one in self.board.every_address if one.info.jail == row.info.name]
        return slots

    def action_set_address(self) -> None:
        slots = self._chosen_slots()
        if not slots:
            self.say("no address is selected", bad=True)
        elif self._may_act():
            self.push_screen(
                questions.address_state(slots, self.glyphs),
                lambda answer: self._set_addresses(slots, AddressState(answer)) if answer else None,
            )

    def _set_addresses(self, slots: list[AddressRow], state: AddressState) -> None:
        for slot in slots:
            slot.setting = state
        self._begin()

        async def put(slot: AddressRow) -> str:
            ip = slot.info.ip
            if self.board.is_elsewhere(slot):
                order = self.station.port.set_address(ip, state, slot.node)
                fault = await self.station.carry_out_elsewhere(order)
                slot.setting = None
                for row in self.board.every_address:
                    row.setting = None if row.key == slot.key else row.setting
                return fault
            fault = await self.station.carry_out(
                lambda event: isinstance(event, ev.AddressStateSet) and event.ip == ip,
                self.station.port.set_address(ip, state),
            )
            if ip in self.board.addresses:
                self.board.addresses[ip].setting = None
            return fault

        done = "gave back" if state is AddressState.available else "took out"
        self.run_worker(self._all(done, [(slot.ip, put(slot)) for slot in slots]), group="act")

    # The build cache

    def _chosen_cached(self) -> list[ArtifactRow]:
        return [row for row in self.chosen if isinstance(row, ArtifactRow)]

    def action_evict(self) -> None:
        rows = [row for row in self._chosen_cached() if row.artifact is not None]
        if not rows:
            self.say("no binary is selected", bad=True)
        elif self._may_act():
            self.push_screen(
                questions.evict(rows, self.glyphs),
                lambda answer: self._evict(rows) if answer == "yes" else None,
            )

    def _evict(self, rows: list[ArtifactRow]) -> None:
        for row in rows:
            row.evicting = True
        self._begin()

        async def evict(row: ArtifactRow) -> str:
            fault = await self.station.carry_out(
                lambda event: isinstance(event, ev.ArtifactEvicted) and event.key == row.key,
                self.station.port.evict(row.key),
            )
            if fault and row.key in self.board.cache:
                self.board.cache[row.key].evicting = False
            return fault

        self.run_worker(self._all("evicted", [(row.label, evict(row)) for row in rows]), group="act")

    def action_rebuild(self) -> None:
        rows = self._chosen_cached()
        if not rows or not self._may_act():
            return
        self._begin()

        async def rebuild(row: ArtifactRow) -> str:
            try:
                await self.station.port.rebuild(row.key)
            except (IslandError, LinkLost) as failure:
                return str(failure)
            return ""

        self.say("rebuilding " + (rows[0].label if len(rows) == 1 else f"{len(rows)} binaries"))
        self.run_worker(self._all("rebuilt", [(row.label, rebuild(row)) for row in rows]), group="act")

    def action_purge(self) -> None:
        ready = [row for row in self.board.cache.values() if row.artifact is not None]
        if not ready:
            self.say("no binary is cached", bad=True)
        elif self._may_act():
            self.push_screen(
                questions.purge(ready), lambda answer: self._purge() if answer == "yes" else None
            )

    def _purge(self) -> None:
        self._begin()
        order = self._everything(self.station.port.purge(), "evicted", "binary", "binaries")
        self.run_worker(order, group="act")

    # Calls, and the island itself

    def action_invoke(self) -> None:
        row = self.row
        request = FunctionRequest(url="")
        if isinstance(row, InvocationRow):
            request = row.again() or FunctionRequest(url=row.url, call=row.call)
        elif isinstance(row, JailRow):
            request = FunctionRequest(url=row.info.url, call=row.info.call)
        elif isinstance(row, ArtifactRow):
            call = row.function if "(" in row.function else f"{row.function}("
            request = FunctionRequest(url=row.url, call=call)
        elif isinstance(row, FunctionRow):
            request = FunctionRequest(url=row.url, call=f"{row.name}(")
        self.push_screen(Invoke(request))

    def action_output(self) -> None:
        """Show what the jail of this row writes, or wrote."""
        row = self.row
        name = row.info.name if isinstance(row, JailRow) else row.id if isinstance(row, InvocationRow) else ""
        if isinstance(row, JailRow) and self.board.is_elsewhere(row):
            self.say(f"what it writes, a console of {row.node} shows", bad=True)
        elif name:
            self.push_screen(Output(name))

    async def action_quit(self) -> None:
        if self.station.port.attached or not self.follows:
            self.exit(0)
            return

        def answered(answer: str | None) -> None:
            if answer == "yes":
                self.stopping = True
                self.exit(0)
            elif answer == "detach":
                self.action_detach()

        self.push_screen(questions.stop_island(self.board.busy, self.command), answered)

    def action_detach(self) -> None:
        """Leave; an island of this process runs on without its console."""
        self.detaching = True
        self.exit(0)
