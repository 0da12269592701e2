"""The rows of the tables: a jail, an invocation, an address, an artifact.

Each has a unique `key` and what a filter asks for (`filter.Filterable`). The texts of jails and callers are
cleaned when the row is made.
"""

from __future__ import annotations

from itertools import pairwise

from msgspec import UNSET, structs

from skyisland.cause import Cause
from skyisland.events import BuildFinished, BuildStarted, InvocationFinished
from skyisland.figures import FunctionFigures, title
from skyisland.model import Artifact, FunctionRequest, NamedCall, Phase, Purpose, Timings, Verdict
from skyisland.status import AddressInfo, AddressState, JailInfo, JailState
from tui.words import age, label, line, short

NEXT = {
    None: "resolve",
    Phase.resolve: "resolved",
    Phase.clone: "build",
    Phase.build: "queue",
    Phase.queue: "jail",
    Phase.jail: "exec",
    Phase.exec: "ending",
}
"""What an invocation does after each phase. After `resolve` it is not known: that depends on the cache."""
_PHASE_OF = {str(phase): phase for phase in Phase} | {"queued": Phase.queue}


class JailRow:
    """A living jail, as the snapshot or an event describes it (`info`)."""

    def __init__(self, info: JailInfo, node: str = "") -> None:
        self.info = info
        self.node = node
        """Of the fleet, whose it is; empty where the console's island is alone, or does not know yet."""
        self.name = line(info.name)
        self.label = label(info.url, info.call) if info.call else _waiting(info)
        self.title = line(title(info.url, info.package, info.function)) if info.function else ""
        """The function, as the island names it."""
        self.invocation = short(info.invocation)
        self.cpu_percent: float | None = None
        """Of one processor; None where nobody counts it."""
        self.killing = False
        """An order to kill it is under way."""
        self._hay = ""

    @property
    def key(self) -> str:
        return self.info.name

    @property
    def state(self) -> str:
        if self.killing and self.info.state is not JailState.dying:
            return "killing"
        if self.info.purpose is Purpose.build and self.info.state is JailState.running:
            return "building"
        return str(self.info.state)

    def field(self, name: str) -> str:
        info = self.info
        fields = {
            "function": f"{info.url} {info.call}",
            "state": self.state,
            "ip": info.ip4,
            "jail": f"{self.name} {info.jid}",
            "request": info.invocation,
            "node": self.node,
        }
        return fields.get(name) or ""

    def haystack(self) -> str:
        """The text, in lower case, in which a filter without a field looks; see `filter.Row`."""
        info = self.info
        if not self._hay:
            self._hay = " ".join(
                (self.name, info.url, info.call, info.ip4 or "", str(info.pid or ""), info.invocation or "")
            ).lower()
        return f"{self._hay} {self.state} {'hit' if info.cached else 'miss'} {self.node}"

    def seconds(self, now: float) -> float:
        return now - self.info.created_at


def _waiting(info: JailInfo) -> str:
    if info.purpose is not Purpose.function:
        return line(f"{info.purpose} of {info.url}" if info.url else info.purpose)
    return f"waits for {label(info.url, '')}" if info.url else "waits for a call"


def state_of(verdict: str) -> str:
    """The name of the glyph for how an invocation ended."""
    return "ok" if verdict == Verdict.ok else "fault" if verdict == Verdict.failed else "bad"


class InvocationRow:
    """An invocation, running or finished."""

    __slots__ = (
        "at",
        "cached",
        "call",
        "caller_id",
        "cause",
        "client",
        "commit",
        "error",
        "id",
        "jail",
        "label",
        "name",
        "named",
        "phase",
        "request",
        "short",
        "since",
        "slo_s",
        "spent",
        "title",
        "total_s",
        "url",
        "verdict",
        "warm",
    )

    def __init__(self, id: str, url: str, call: str, at: float) -> None:  # noqa: A002
        self.id = id
        self.url = line(url)
        self.call = line(call)
        self.at = at
        self.label = label(url, call)
        self.named = f"{self.url}.{call.partition('(')[0].rpartition('.')[2]}"
        """The function, by its caller's words."""
        self.short = short(id)
        self.jail: str | None = None
        self.commit = ""
        self.cached = False
        self.warm = False
        self.verdict = ""
        """How it ended; empty while it runs."""
        self.error = ""
        self.cause: Cause | None = None
        """Why it did not end well."""
        self.caller_id = ""
        """What its caller calls it, for who looks for that."""
        self.client = ""
        """Who called."""
        self.name = ""
        """The name that was called; empty for a plain call."""
        self.request: FunctionRequest | None = None
        """What its caller sent; None while it runs, and where that was too long to keep."""
        self.title = self.named
        """The function, as the island names it once the call is over."""
        self.slo_s = 1.0
        """A call of this function that takes longer is slow."""
        self.phase = NEXT[None]
        """What it does: one of `NEXT`, or `queued` while it waits for a place."""
        self.since = at
        """When that began."""
        self.spent: dict[Phase, float] = {}
        self.total_s = 0.0

    @classmethod
    def over(cls, end: InvocationFinished) -> InvocationRow:
        """An invocation of which we saw the end alone."""
        invocation = cls(end.invocation or "", end.url, end.call, end.at - end.timings.total_s)
        invocation.finish(end)
        return invocation

    def finish(self, end: InvocationFinished) -> None:
        self.jail = end.jail and line(end.jail)
        self.commit = end.commit
        self.cached = end.cached
        self.warm = end.warm
        if end.row[0]:
            self.title = line(title(*end.row))
        self.verdict = line(end.verdict)
        self.error = line(end.error)
        self.cause = end.cause
        self.caller_id = line(end.caller_id)
        self.client = line(end.client)
        self.request = end.request
        self.by_name(end.name)
        self.spent = {phase: spent for phase in Phase if (spent := seconds_of(end.timings, phase))}
        self.total_s = end.timings.total_s

    def by_name(self, name: str) -> None:
        """It is a call of this name; empty for none."""
        if name:
            self.name = self.title = line(name)
            self.label = f"{self.name}: {label(self.url, self.call)}"

    @property
    def key(self) -> str:
        return self.id

    @property
    def state(self) -> str:
        """`open`, `ok`, `fault` (it returned an error) or `bad`: the name of its glyph."""
        return state_of(self.verdict) if self.verdict else "open"

    def again(self) -> FunctionRequest | None:
        """The same call, of the very commit that it ran; None where not all of it is known."""
        if self.request is None:
            return None
        return structs.replace(self.request, version=self.commit or self.request.version)

    @property
    def handled(self) -> bool:
        """A handler answered it: else a call by name has its arguments as data, or is of a program."""
        sent = self.request
        return bool(
            self.name
            and sent is not None
            and sent.args is sent.inputs is UNSET
            and sent.call not in ("", "main")
        )

    def again_by_name(self) -> NamedCall | None:
        """The same call of the name, which may stand for another commit by now; None where not all of it is
        known."""
        return NamedCall.of(self.request) if self.request is not None else None

    def field(self, name: str) -> str:
        if name == "function":
            return f"{self.url} {self.call} {self.title}"
        if name == "state":
            return self.verdict or (self.phase if self.phase == "queued" else f"running {self.phase}")
        if name == "code":
            return f"{self.verdict} {self.cause.kind}" if self.cause else self.verdict
        if name == "client":
            return self.client
        if name == "jail":
            return self.jail or ""
        return f"{self.id} {self.caller_id}" if name == "request" else ""

    def haystack(self) -> str:
        cache = "" if not self.verdict else "hit" if self.cached else "miss"
        return (
            f"{self.id} {self.url} {self.call} {self.label} {self.verdict or self.phase} "
            f"{self.error} {self.cause.text if self.cause else ''} {self.jail} {self.commit} {cache} "
            f"{self.caller_id} {self.client} {self.name}"
        ).lower()

    def seconds(self, now: float) -> float:
        return self.total_s if self.verdict else max(0.0, now - self.at)

    def word(self, now: float) -> str:
        """How it ended, or what it does: `exited 2`, `exec`, `queued 2.9s`."""
        if self.verdict:
            return line(self.cause.kind) if self.cause else self.verdict
        if self.phase != "queued":
            return self.phase
        waits_s = max(0.0, now - self.since)
        return f"queued {waits_s:.1f}s" if waits_s < 9.95 else f"queued {age(waits_s)}"

    @property
    def under_way(self) -> Phase | None:
        """The phase that it is in; None where that is not known."""
        return None if self.verdict else _PHASE_OF.get(self.phase)


ADDRESS_WORDS = {"available": "free", "leased": "leased", "out": "taken out", "setting": "setting"}
"""What people call each state of an address."""


class FunctionRow:
    """A function that was called, with its figures of the last five minutes."""

    def __init__(self, figures: FunctionFigures) -> None:
        self.figures = figures
        self.url = line(within(figures.repository, figures.package))
        self.name = line(figures.name)
        self.title = self.label = line(figures.title) if figures.repository else self.name
        self.last_error = line(figures.last_error)

    @property
    def key(self) -> str:
        return self.figures.id

    def field(self, name: str) -> str:
        if name == "code":
            return " ".join(self.figures.recent.reasons)
        return {"function": self.title, "state": "failing" if self.figures.recent.errors else "well"}.get(
            name, ""
        )

    def haystack(self) -> str:
        return f"{self.key} {self.title} {self.last_error} {' '.join(self.figures.recent.reasons)}".lower()

    def seconds(self, now: float) -> float:
        return self.figures.recent.p50_s or 0.0

    def trend(self, cells: int) -> tuple[list[int], list[int]]:
        """Calls and failures in each of `cells` equal parts of the window, oldest first."""
        counts, failures = self.figures.recent.counts, self.figures.recent.failures
        if not counts:
            return [0] * cells, [0] * cells
        bounds = [n * len(counts) // cells for n in range(cells + 1)]
        parts = [slice(start, end) for start, end in pairwise(bounds)]
        return [sum(counts[part]) for part in parts], [sum(failures[part]) for part in parts]


class AddressRow:
    """An address of the pool."""

    def __init__(self, info: AddressInfo, node: str = "") -> None:
        """`node`: of the fleet, whose it is."""
        self.info = info
        self.node = node
        self.key = f"{node}/{line(info.ip)}" if node else line(info.ip)
        self.ip = line(info.ip)
        self.order = tuple(int(part) if part.isdigit() else 0 for part in info.ip.split("."))
        self.function = ""
        self.setting: AddressState | None = None
        """The state that an operator ordered and the island has not confirmed yet."""

    @property
    def state(self) -> str:
        if self.setting is not None:
            return "setting"
        if self.info.state is AddressState.available:
            return "available"
        return "leased" if self.info.jail else "out"

    @property
    def word(self) -> str:
        """The state as people call it: `free`, `leased`, `taken out`."""
        return ADDRESS_WORDS[self.state]

    def field(self, name: str) -> str:
        return {
            "ip": self.ip,
            "state": f"{self.info.state} {self.state} {self.word}",
            "jail": self.info.jail or "",
            "function": self.function,
            "node": self.node,
        }.get(name, "")

    def haystack(self) -> str:
        holder = f"{self.info.jail or ''} {self.function} {self.node}"
        return f"{self.ip} {self.info.state} {self.word} {holder}".lower()

    def seconds(self, now: float) -> float:
        return now - self.info.since if self.info.since else 0.0


class ArtifactRow:
    """An artifact of the build cache: built, being built, or failed."""

    def __init__(self, key: str, url: str, function: str, state: str, at: float) -> None:
        self.key = key
        self.url = line(url)
        self.function = line(function)
        self.label = label(url, function)
        self.state = state
        self.at = at
        self.artifact: Artifact | None = None
        self.cause: Cause | None = None
        """Why the latest build failed; None if it did not."""
        self.evicting = False

    @classmethod
    def of(cls, artifact: Artifact) -> ArtifactRow:
        url = within(artifact.url, artifact.package)
        cached = cls(artifact.key, url, artifact.expression or artifact.function, "ready", artifact.built_at)
        cached.artifact = artifact
        return cached

    @classmethod
    def of_build(cls, build: BuildStarted | BuildFinished, state: str) -> ArtifactRow:
        """One that is being built, or was not."""
        row = cls(build.key, within(build.url, build.package), build.function, state, build.at)
        row.cause = build.cause if isinstance(build, BuildFinished) else None
        return row

    @property
    def title(self) -> str:
        """The function, as the island names it."""
        artifact = self.artifact
        return line(title(artifact.url, artifact.package, artifact.function)) if artifact else ""

    @property
    def shown_state(self) -> str:
        return "evicting" if self.evicting else self.state

    def field(self, name: str) -> str:
        return {"function": f"{self.url} {self.function}", "state": self.shown_state}.get(name, "")

    def haystack(self) -> str:
        commit = self.artifact.commit if self.artifact else ""
        return f"{self.key} {self.url} {self.function} {self.label} {self.shown_state} {commit}".lower()

    def seconds(self, now: float) -> float:
        return self.artifact.build_s if self.artifact else max(0.0, now - self.at)


def within(url: str, package: str) -> str:
    """The URL of a package in the repository at `url`."""
    return f"{url}/{package}" if package else url


def seconds_of(timings: Timings, phase: Phase) -> float:
    return float(getattr(timings, f"{phase}_s"))
