"""The questions before an order, and the help on the keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from textual.screen import Screen
from textual.widget import Widget

from skyisland.named.definition import Revision
from skyisland.status import AddressState
from tui.dialogs import Ask, AskText, Choice, Help
from tui.draw.glyphs import Glyphs
from tui.draw.tones import Spans
from tui.watch.names import NameRow
from tui.watch.rows import AddressRow, ArtifactRow, JailRow
from tui.words import age, fit, line, size

SHOWN = 6
"""Targets that a question lists; of the others it gives the number. More would not fit 24 lines."""
NO = Choice("n", "No", "no")


def listed(rows: Sequence[Spans]) -> list[Spans]:
    """The first of the targets, and how many more there are."""
    more: list[Spans] = [[(f"and {len(rows) - SHOWN} more", "dim")]] if len(rows) > SHOWN else []
    return [*rows[:SHOWN], *more, []]


def kill(jails: Sequence[JailRow], glyphs: Glyphs) -> Ask:
    rows: list[Spans] = []
    for jail in jails:
        glyph, tone = glyphs.state(jail.state)
        rows.append(
            [
                (f"{fit(jail.name, 14)} {fit(jail.label, 24, more=glyphs['more'])} ", "text"),
                (fit(glyph, 11), tone),
                (f"{jail.info.ip4 or '-':<14}", "text"),
                (jail.invocation, "dim"),
            ]
        )
    title = f"Kill {len(jails)} jails?" if len(jails) > 1 else "Kill this jail?"
    choices = (NO, Choice("y", "Kill", "yes", "error"))
    return Ask(title, [*listed(rows), *_consequences(jails)], choices, danger=True)


def _consequences(jails: Sequence[JailRow]) -> list[Spans]:
    lines: list[Spans] = [[("Each caller is told: killed by the operator.", "dim")]]
    if any(jail.info.ip4 for jail in jails):
        lines.append([("Addresses go back to the pool.", "dim")])
    return lines


def kill_all(jails: Sequence[JailRow]) -> Ask:
    states = Counter(jail.state for jail in jails)
    what = ", ".join(f"{number} {state}" for state, number in states.most_common())
    title = f"Kill all {len(jails)} jails?" if len(jails) > 1 else "Kill the only jail?"
    return Ask(
        title,
        [[(what, "text")], [], *_consequences(jails)],
        (NO, Choice("y", "Kill all", "yes", "error")),
        danger=True,
    )


def address_state(slots: Sequence[AddressRow], glyphs: Glyphs) -> Ask:
    """Answered with the name of an `AddressState`."""
    rows: list[Spans] = []
    for slot in slots:
        glyph, tone = glyphs.state(slot.state, slot.word)
        rows.append([(f"{slot.ip:<16}", "strong"), (fit(glyph, 15), tone), (slot.info.jail or "", "text")])
    lines = [
        *listed(rows),
        [("free       ", "strong"), ("jails may lease it", "dim")],
        [("taken out  ", "strong"), ("no jail gets it until an operator gives it back", "dim")],
    ]
    if any(slot.info.jail for slot in slots):
        lines += [[], [("A leased address stays with its jail until that ends.", "warn")]]
    title = f"State of {slots[0].ip}" if len(slots) == 1 else f"State of {len(slots)} addresses"
    choices = [Choice("a", "Give back", "available"), Choice("u", "Take out", "unavailable")]
    if all(slot.info.state is AddressState.available for slot in slots):
        choices.reverse()
    return Ask(title, lines, choices)


def evict(rows: Sequence[ArtifactRow], glyphs: Glyphs) -> Ask:
    names: list[Spans] = [
        [(fit(row.label, 44, more=glyphs["more"]), "text"), (f"  {row.key[:12]}", "dim")] for row in rows
    ]
    title = f"Evict {len(rows)} binaries?" if len(rows) > 1 else "Evict this binary?"
    lines: list[Spans] = [*listed(names), [("The next call of each is built anew.", "dim")]]
    return Ask(title, lines, (NO, Choice("y", "Evict", "yes", "warning")))


def purge(rows: Sequence[ArtifactRow]) -> Ask:
    """`rows`: those with an artifact."""
    used = size(sum(row.artifact.size_bytes for row in rows if row.artifact is not None))
    what = f"{len(rows)} binaries" if len(rows) > 1 else "1 binary"
    lines: list[Spans] = [
        [(f"{what}, {used}", "text")],
        [],
        [("Those that a call is using stay.", "dim")],
        [("The next call of each other is built anew.", "dim")],
    ]
    return Ask("Purge the cache?", lines, (NO, Choice("y", "Purge", "yes", "warning")))


def pause_names(rows: Sequence[NameRow], glyphs: Glyphs) -> Ask:
    names: list[Spans] = [_name(row, glyphs) for row in rows]
    title = f"Pause {len(rows)} names?" if len(rows) > 1 else f"Pause {rows[0].name}?"
    lines: list[Spans] = [
        *listed(names),
        [("Calls are refused until it is resumed; running ones go on.", "dim")],
    ]
    return Ask(title, lines, (NO, Choice("y", "Pause", "yes", "warning")))


def resume_names(rows: Sequence[NameRow], glyphs: Glyphs) -> Ask:
    names: list[Spans] = [_name(row, glyphs) for row in rows]
    title = f"Resume {len(rows)} names?" if len(rows) > 1 else f"Resume {rows[0].name}?"
    return Ask(title, listed(names), (NO, Choice("y", "Resume", "yes", "warning")))


def forget_names(rows: Sequence[NameRow], glyphs: Glyphs) -> Ask:
    names: list[Spans] = [_name(row, glyphs) for row in rows]
    title = f"Forget {len(rows)} names?" if len(rows) > 1 else f"Forget {rows[0].name}?"
    lines: list[Spans] = [
        *listed(names),
        [("Their history goes, too. Whoever calls them is told 404.", "dim")],
    ]
    return Ask(title, lines, (NO, Choice("y", "Forget", "yes", "error")), danger=True)


def _name(row: NameRow, glyphs: Glyphs) -> Spans:
    return [
        (f"{fit(row.name, 24)} {fit(row.function, 40, more=glyphs['more'])}  ", "text"),
        (f"{row.info.running} running", "dim"),
    ]


def revision(row: NameRow, history: Sequence[Revision], other: Revision, now: float) -> AskText:
    """Answered with a number; `other` is the one that is offered."""
    told = [
        f"{one.revision:>4}  {line(one.commit)[:8]}  {age(now - one.at):>5} ago  {line(one.why)}"
        for one in history[:SHOWN]
    ]
    more = [f"      and {len(history) - SHOWN} more"] if len(history) > SHOWN else []
    about = "\n".join([*told, *more, "", "To which revision? It stays there until it is moved."])
    return AskText(f"Roll back {row.name}", about, str(other.revision))


def stop_island(busy: int, command: str) -> Ask:
    """`busy`: jails that have something to do. `command`: what commands to this island begin with."""
    what = {0: "no jail is running", 1: "1 jail is running"}.get(busy, f"{busy} jails are running")
    rows: list[Spans] = [
        [(f"The island ends with this console; {what}.", "text")],
        [("Running calls get some seconds to finish.", "dim")],
        [("Detached, it runs on without a console. To see it again:", "dim")],
        [(f"{command} console", "dim")],
    ]
    choices = (NO, Choice("d", "Detach", "detach"), Choice("y", "Stop the island", "yes", "error"))
    return Ask("Stop the island?", rows, choices, danger=True)


FILTERS = [
    ("encode", "rows that show this word"),
    ("!warm", "rows that do not"),
    ("fn: st: ip:", "in function, state, address"),
    ("code: jail: req:", "in result, jail, request"),
    (">400ms  <2s", "by time: age, or total"),
]

_OWN = {
    "Focus Next": "next pane",
    "Focus Previous": "previous pane",
    "Quit the app and return to the command prompt.": "leave",
}
"""Our words for Textual's own keys."""


def _together(keys: list[str]) -> str:
    """The keys that do the same, and of many digits the first and the last."""
    return f"{keys[0]}-{keys[-1]}" if len(keys) > 2 and all(map(str.isdigit, keys)) else " ".join(keys)


def keys(screen: Screen[Any], pane: Widget | None) -> Help:
    """Every key that works on `screen` now, those of its `pane` first; made from the bindings."""
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    for title, nodes in (("This pane", (pane,)), ("Everywhere", (screen.app, screen))):
        names: dict[str, list[str]] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.action == "screen.copy_text":
                continue  # there is nothing to select here
            if active.node in nodes and binding.description and not binding.system:
                text = binding.tooltip or binding.description
                key = screen.app.get_key_display(binding)
                names.setdefault(_OWN.get(text, text), []).append(key)
        if names:
            groups.append((title, [(_together(each), word) for word, each in names.items()]))
    return Help([*groups, ("Filter: all words must match", FILTERS)])
