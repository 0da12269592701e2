"""The page of a name: what it stands for, its figures, and what it stood for."""

from __future__ import annotations

import contextlib

from skyisland.errors import IslandError
from skyisland.figures import Figures
from tui.draw.canvas import Line
from tui.draw.charts import wrapped
from tui.draw.details import Detail, counted, facts
from tui.watch.names import NameRow, version_of
from tui.watch.port import LinkLost
from tui.words import age, brief, duration, line, size


class NameDetail(Detail[NameRow]):
    """A name in full."""

    nothing = "no name is selected"
    _asked: tuple[str, int] | None = None
    """The name, and its revision, whose history was asked for."""

    def lines(self, row: NameRow, width: int) -> list[Line]:
        self._ask_for_history(row)
        info, now, glyphs = row.info, self.station.now, self.glyphs
        glyph, tone = glyphs.state("changing" if row.changing else row.state, row.state)
        since = f"{age(now - info.at)}, {info.why}{f' by {info.by}' if info.by else ''}"
        lines = facts([("state", glyph, tone)])
        if row.trouble:
            lines += wrapped(row.trouble, width, "bad", "          ")
        lines += facts(
            [
                ("function", row.function, "strong"),
                ("version", f"{row.version}, at {line(info.commit)[:12]}", "text"),
                ("revision", f"{info.revision}   since {line(since)}", "text"),
                ("calls", self._calls(row), "text"),
                *((name, line(value), "text") for name, value in (*_terms(row), *_by_itself(row, now))),
                *self._slo(row),
            ]
        )
        history = self.board.histories.get(row.key, [])
        if history:
            lines += [Line([]), Line([(" history", "strong")])]
        for one in history:
            lines.append(
                Line(
                    [
                        (f" {one.revision:>8} ", "key" if one.revision == info.revision else "dim"),
                        (f"{line(one.commit)[:8]}  {age(now - one.at):>5} ago  ", "text"),
                        (f"{line(one.why)}{f' by {line(one.by)}' if one.by else ''}  ", "text"),
                        (version_of(one.definition), "dim"),
                    ]
                )
            )
        return lines

    def _calls(self, row: NameRow) -> str:
        """How many run, and the figures of the last five minutes."""
        told = f"{row.info.running} under way"
        recent = self._recent(row)
        if recent is None:
            return told
        times = f"p50 {duration(recent.p50_s)}  p99 {duration(recent.p99_s)}"
        return f"{told}   last 5m: {counted(recent.calls, recent.errors)}  {times}"

    def _recent(self, row: NameRow) -> Figures | None:
        """The figures of the last five minutes; None if it was not called of late."""
        rows = self.board.functions.values()
        return next((one.figures.recent for one in rows if one.title == row.name), None)

    def _slo(self, row: NameRow) -> list[tuple[str, str, str]]:
        """What is wanted of it, and what share of its calls kept that."""
        slo, recent = row.info.definition.slo, self._recent(row)
        if slo is None:
            return []
        told, tone = f"{slo.target:.1%} within {slo.latency_ms:g} ms", "text"
        if recent is not None and recent.kept_share is not None:
            told += f"   last 5m: {recent.kept_share:.1%} kept it"
            tone = "text" if recent.kept_share >= slo.target else "bad"
        return [("slo", told, tone)]

    def _ask_for_history(self, row: NameRow) -> None:
        """Once for each revision: nothing else changes the history."""
        wanted = (row.key, row.info.revision)
        history = self.board.histories.get(row.key)
        if wanted != self._asked and (not history or history[0].revision != row.info.revision):
            self._asked = wanted
            self.run_worker(self._take_history(row.key), group="history", exclusive=True)

    async def _take_history(self, name: str) -> None:
        with contextlib.suppress(IslandError, LinkLost):
            await self.station.fetch_history(name)
            self.paint()

    def name_of(self, row: NameRow) -> str:
        return f"Name  {row.name}"


def _by_itself(row: NameRow, now: float) -> list[tuple[str, str]]:
    """When it is called by itself, what was pushed, and what came of both."""
    schedule, scheduled, pushed = row.info.definition.schedule, row.info.scheduled, row.info.pushed
    pairs = []
    if pushed is not None:
        why = f", {pushed.why}" if pushed.why else ""
        pairs.append(("pushed", f"{age(now - pushed.at)} ago, {pushed.ref}: {pushed.state}{why}"))
    if schedule is not None and scheduled is not None:
        numbers = {"called": scheduled.calls, "missed": scheduled.missed, "skipped": scheduled.skipped}
        pairs += [
            ("schedule", f"{schedule.cron} {schedule.zone}"),
            ("next", "  ".join(f"in {age(max(0.0, at - now))}" for at in scheduled.next[:3])),
            ("last", f"{age(now - scheduled.last)} ago, {scheduled.call}" if scheduled.last else ""),
            ("so far", "  ".join(f"{number} {what}" for what, number in numbers.items() if number)),
            ("waits", scheduled.trouble),
        ]
    return [(name, value) for name, value in pairs if value]


def _terms(row: NameRow) -> list[tuple[str, str]]:
    """What the definition says beside the function, as far as it says anything."""
    definition, info = row.info.definition, row.info
    limits = definition.limits.given() if definition.limits is not None else {}
    told = [
        f"{name.removesuffix('_bytes').replace('_', ' ')} {size(int(value)) if 'bytes' in name else value}"
        for name, value in limits.items()
    ]
    told += [f"time {brief(definition.timeout_s)}"] if definition.timeout_s else []
    told += [f"{definition.concurrency} at a time"] if definition.concurrency else []
    pairs = [
        ("handler", f"/fn/{info.name}" if definition.handler else ""),
        ("webhook", f"signed as {definition.webhook.scheme}" if definition.webhook else ""),
        ("push", f"signed as {definition.push.scheme}" if definition.push else ""),
        ("types", ", ".join(definition.types)),
        ("verified", f"{info.verified} Examples pass" if definition.verify else ""),
        ("env", ", ".join(f"{name}={value}" for name, value in definition.env.items())),
        ("secrets", ", ".join(f"{name} from {secret}" for name, secret in definition.secrets.items())),
        ("limits", ", ".join(told)),
        ("network", "an address of its own" if definition.egress == "address" else ""),
        ("callers", ", ".join(definition.callers)),
        ("warm", f"{definition.warm.min} jails wait" if definition.warm.min else ""),
    ]
    return [(name, value) for name, value in pairs if value]
