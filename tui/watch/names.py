"""The names of functions as rows: what each stands for, whether it takes calls, and what it stood for."""

from __future__ import annotations

from skyisland.named.definition import Definition, Revision
from skyisland.named.functions import Named, what_runs
from tui.words import line


class NameRow:
    """A name, as the island lists it (`info`)."""

    def __init__(self, info: Named) -> None:
        self.info = info
        self.name = line(info.name)
        self.function = stands_for(info.definition)
        self.trouble = line(info.trouble)
        self.changing = ""
        """What an order is doing with it: `moving`, `pausing`; empty without one."""

    @property
    def key(self) -> str:
        return self.info.name

    @property
    def state(self) -> str:
        if self.changing:
            return self.changing
        return "paused" if self.info.paused else "trouble" if self.info.trouble else "active"

    @property
    def next(self) -> float:
        """When it is called by itself next; 0.0 if it is not."""
        return self.info.scheduled.next[0] if self.info.scheduled and self.info.scheduled.next else 0.0

    @property
    def version(self) -> str:
        return version_of(self.info.definition)

    def field(self, name: str) -> str:
        return {
            "function": f"{self.name} {self.function}",
            "state": self.state,
            "client": self.info.by,
            "code": self.trouble,
        }.get(name, "")

    def haystack(self) -> str:
        return (
            f"{self.name} {self.function} {self.state} {self.version} {self.info.commit} {self.trouble} "
            f"{self.info.by} {self.info.why}"
        ).lower()

    def seconds(self, now: float) -> float:
        return max(0.0, now - self.info.at)


def stands_for(definition: Definition) -> str:
    """Package and function, `github.com/user/repo/sub.Encode`; of a program, the package."""
    called = definition.handler or definition.function
    return line(f"{definition.url}.{called}" if called not in ("", "main") else definition.url)


def version_of(definition: Definition) -> str:
    """What it follows, or where it stays: `main`, `v1.2.0, pinned`."""
    version = line(definition.version or "default branch")
    return f"{version}, pinned" if definition.pin else version


def other_revision(history: list[Revision]) -> Revision | None:
    """The latest one that differs from what runs, where a name goes back to; `history` is latest first."""
    return next((one for one in history if what_runs(one) != what_runs(history[0])), None)
