"""What the console knows of an island: the last snapshot, and the events since.

`load` takes a snapshot, `fold` one event. Tables and panels read rows and figures here and nowhere else. The
board has no clock: `now` is the island's time, which the station keeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import structs

from skyisland import events as ev
from skyisland.events import Event, InvocationFinished
from skyisland.later.calls import Record
from skyisland.model import Phase
from skyisland.named.definition import Revision
from skyisland.named.functions import Named
from skyisland.status import USAGE_S, AddressInfo, AddressState, JailInfo, JailState, Status
from tui.watch.calls import CallRow
from tui.watch.figures import Figures
from tui.watch.names import NameRow
from tui.watch.nodes import OtherNodes
from tui.watch.port import Snapshot
from tui.watch.rows import NEXT, AddressRow, ArtifactRow, FunctionRow, InvocationRow, JailRow, within
from tui.words import line

MAX_INVOCATIONS = 1000
"""Invocations that are kept, the newest."""
FIRST_SAMPLE_S = 0.05
"""A jail's share of a processor is worked out from this age on: a younger one's would be all start-up."""


class Board:
    """What is known of one island."""

    def __init__(self) -> None:
        self.status: Status | None = None
        self.jails: dict[str, JailRow] = {}
        self.addresses: dict[str, AddressRow] = {}
        self.cache: dict[str, ArtifactRow] = {}
        self.invocations: dict[str, InvocationRow] = {}
        self.tail: deque[Event] = deque(maxlen=200)
        """The last events that are worth a line, oldest first."""
        self.missed = 0
        """Events that this console was too slow for."""
        self.others = OtherNodes()
        """The jails and addresses of the fleet's other islands."""
        self.functions: dict[str, FunctionRow] = {}
        self.names: dict[str, NameRow] = {}
        self.histories: dict[str, list[Revision]] = {}
        """By a name that was asked for: what it stood for, latest first."""
        self.calls: dict[str, CallRow] = {}
        """The calls that answer later, as they were last asked for; no snapshot has them."""
        self.figures = Figures()
        """The calls that ended, as figures."""
        self._cpu_samples: dict[str, tuple[float, float]] = {}
        """By jail: when its processor time was last sampled, and how much it was, in seconds."""
        self._recent: deque[Event] = deque(maxlen=1000)
        """The last events about what a snapshot lists. A snapshot that comes after them may be older."""
        self._watchers: list[Callable[[Event], None]] = []
        self.folds: dict[type[Event], Callable[..., None]] = {
            ev.InvocationStarted: self._started,
            ev.InvocationQueued: self._queued,
            ev.PhaseFinished: self._phase,
            ev.InvocationFinished: self._finish,
            ev.JailCreated: self._jail_created,
            ev.JailClaimed: self._jail_claimed,
            ev.JailKilled: self._jail_killed,
            ev.JailDestroyed: self._jail_destroyed,
            ev.AddressLeased: self._leased,
            ev.AddressReleased: self._released,
            ev.AddressStateSet: self._address_set,
            ev.BuildStarted: self._build_started,
            ev.BuildFinished: self._build_finished,
            ev.ArtifactEvicted: self._evicted,
            ev.Gap: self._gap,
            ev.Pulse: self._pulse,
        }
        """What is done with each kind of event; the other kinds change no table."""

    # Coming in

    def load(self, snapshot: Snapshot) -> None:
        """Take a snapshot: it overrules everything that was folded from earlier events."""
        status = self.status = snapshot
        self._load_jails(status.jails, snapshot.at)
        settings_by_ip = {ip: address.setting for ip, address in self.addresses.items()}
        self.addresses = {info.ip: AddressRow(info) for info in status.addresses}
        for ip, address in self.addresses.items():
            setting = settings_by_ip.get(ip)
            address.setting = setting if setting is not address.info.state else None
            holder = self.jails.get(address.info.jail or "")
            address.function = holder.label if holder else ""
        report = status.report
        self.functions = {figures.id: FunctionRow(figures) for figures in report.functions} if report else {}
        kept = {key: row for key, row in self.cache.items() if row.state != "ready"}
        fresh = {artifact.key: ArtifactRow.of(artifact) for artifact in status.artifacts}
        for key, row in fresh.items():
            before = self.cache.get(key)
            row.evicting = bool(before and before.evicting)
        failed = {end.key: ArtifactRow.of_build(end, "failed") for end in snapshot.failed_builds}
        self.cache = {**failed, **kept, **fresh}
        for event in self._recent:
            if event.at > snapshot.at:
                self.folds[type(event)](event)
        for end in reversed(snapshot.recent):
            invocation = self.invocations.get(end.invocation or "")
            if invocation is None or not invocation.verdict:
                self._finish(end)
        self._adopt_running()
        self._forget_ended(snapshot.at)

    def load_names(self, names: Iterable[Named]) -> None:
        """Take the list of names."""
        before = self.names
        self.names = {info.name: NameRow(info) for info in names}
        for name, row in self.names.items():
            row.changing = before[name].changing if name in before else ""
        self.histories = {name: history for name, history in self.histories.items() if name in self.names}

    def _load_jails(self, infos: Iterable[JailInfo], at: float) -> None:
        jails: dict[str, JailRow] = {}
        for info in map(self._with_url, infos):
            before = self.jails.get(info.name)
            if before is None:
                jail = JailRow(info)
            else:
                jail, jail.info = before, info
                if info.invocation and not jail.invocation:
                    jail = JailRow(info)
                    jail.killing = before.killing
            jails[info.name] = jail
            self._sample_cpu(jail, at)
        self.jails = jails
        self._cpu_samples = {name: sample for name, sample in self._cpu_samples.items() if name in jails}

    def _sample_cpu(self, jail: JailRow, at: float) -> None:
        """Work out the jail's share of a processor since the last sample.

        The island samples usage no more often than every `USAGE_S`, so an earlier figure may be the last one
        once more.
        """
        cpu_s = jail.info.usage.cpu_s
        if cpu_s is None:
            return
        last = self._cpu_samples.get(jail.key)
        last_at, last_cpu_s = last or (jail.info.created_at, 0.0)
        if at - last_at >= (USAGE_S if last else FIRST_SAMPLE_S):
            jail.cpu_percent = max(0.0, 100 * (cpu_s - last_cpu_s) / (at - last_at))
            self._cpu_samples[jail.key] = (at, cpu_s)

    def _with_url(self, info: JailInfo) -> JailInfo:
        """`info`, with the URL of its invocation where it has none: the jail of a build has none."""
        invocation = self.invocations.get(info.invocation or "")
        return structs.replace(info, url=invocation.url) if invocation and not info.url else info

    def _adopt_running(self) -> None:
        """Add the invocations that began before this console did."""
        assert self.status is not None  # noqa: S101 - set by `load`
        for call in self.status.calls:
            if call.invocation not in self.invocations:
                row = self.invocations[call.invocation] = InvocationRow(
                    call.invocation, call.url, call.call, call.started_at
                )
                row.jail, row.client = call.jail and line(call.jail), line(call.client)
                row.by_name(call.name)
                row.since, row.slo_s = call.since, self.slo_of(row.title)
                row.phase = "queued" if call.phase is Phase.queue else str(call.phase or NEXT[None])
        for jail in self.jails.values():
            info = jail.info
            if info.invocation and info.call and info.invocation not in self.invocations:
                row = InvocationRow(
                    info.invocation, within(info.url, info.package), info.call, info.created_at
                )
                row.jail, row.cached = jail.name, info.cached
                row.phase = "exec" if info.state is JailState.running else "jail"
                self.invocations[info.invocation] = row

    def _forget_ended(self, at: float) -> None:
        """Close the invocations whose end was lost in a gap: the island says that none is running."""
        assert self.status is not None  # noqa: S101 - set by `load`
        if self.status.running == 0:
            for invocation in self.invocations.values():
                if not invocation.verdict and at - invocation.at > 2:
                    invocation.verdict = "unknown"
                    invocation.total_s = at - invocation.at

    def take_calls(self, records: Iterable[Record]) -> None:
        """Take the calls that answer later; those that are not among them are gone."""
        before, self.calls = self.calls, {}
        for record in records:
            row = self.calls[record.id] = before.get(record.id) or CallRow(record)
            row.take(record)

    def fold(self, event: Event) -> None:
        """Take one event."""
        fold = self.folds.get(type(event))
        if fold is not None:
            fold(event)
        if isinstance(event, _LISTED):
            self._recent.append(event)
        if not isinstance(event, _QUIET):
            self.tail.append(event)
        for watcher in self._watchers:
            watcher(event)

    def watch(self, watcher: Callable[[Event], None]) -> None:
        """Call `watcher` after every event."""
        self._watchers.append(watcher)

    # Folds

    def _started(self, event: ev.InvocationStarted) -> None:
        key = event.invocation or ""
        if key in self.invocations:
            return
        row = self.invocations[key] = InvocationRow(key, event.url, event.call, event.at)
        row.by_name(event.name)
        row.client, row.slo_s = line(event.client), self.slo_of(row.title)
        while len(self.invocations) > MAX_INVOCATIONS:
            del self.invocations[next(iter(self.invocations))]

    def _queued(self, event: ev.InvocationQueued) -> None:
        invocation = self.invocations.get(event.invocation or "")
        if invocation is not None and not invocation.verdict:
            invocation.phase, invocation.since = "queued", event.at

    def _phase(self, event: ev.PhaseFinished) -> None:
        invocation = self.invocations.get(event.invocation or "")
        if invocation is not None and not invocation.verdict:
            invocation.spent[event.phase] = event.duration_s
            invocation.phase, invocation.since = NEXT[event.phase], event.at

    def _finish(self, event: InvocationFinished) -> None:
        key = event.invocation or ""
        invocation = self.invocations.get(key)
        if invocation is None:
            invocation = self.invocations[key] = InvocationRow.over(event)
            while len(self.invocations) > MAX_INVOCATIONS:
                del self.invocations[next(iter(self.invocations))]
        else:
            invocation.finish(event)
        invocation.slo_s = self.slo_of(invocation.title)
        self.figures.add(invocation, event.at)

    def _jail_created(self, event: ev.JailCreated) -> None:
        if event.jail in self.jails:
            return
        invocation = self.invocations.get(event.invocation or "")
        if invocation is not None:
            invocation.jail = line(event.jail)
        self.jails[event.jail] = JailRow(
            JailInfo(
                jid=event.jid,
                name=event.jail,
                hostname=event.jail,
                path="",
                os_release="",
                state=JailState.running if event.invocation else JailState.warm,
                pid=event.pid,
                created_at=event.at - event.duration_s,
                purpose=event.purpose,
                url=event.url or (invocation.url if invocation else ""),
                call=event.call,
                invocation=event.invocation,
                ip4=event.ip4,
                cached=bool(invocation and Phase.build not in invocation.spent),
            )
        )

    def _jail_claimed(self, event: ev.JailClaimed) -> None:
        jail = self.jails.get(event.jail)
        invocation = self.invocations.get(event.invocation or "")
        if jail is not None:
            call = invocation.call if invocation else jail.info.call
            jail = JailRow(
                # A warm jail was made of a binary that existed before the call.
                structs.replace(
                    jail.info, state=JailState.running, invocation=event.invocation, call=call, cached=True
                )
            )
            self.jails[event.jail] = jail
        if invocation is not None:
            invocation.jail = line(event.jail)

    def _jail_killed(self, event: ev.JailKilled) -> None:
        if jail := self.jails.get(event.jail):
            jail.killing = True

    def _jail_destroyed(self, event: ev.JailDestroyed) -> None:
        self.jails.pop(event.jail, None)
        self._cpu_samples.pop(event.jail, None)

    def _address(self, ip: str, state: AddressState, jail: str | None, at: float) -> AddressRow | None:
        address = self.addresses.get(ip)
        if address is not None:
            address.info = AddressInfo(ip=ip, state=state, jail=jail, since=at)
        return address

    def _leased(self, event: ev.AddressLeased) -> None:
        address = self._address(event.ip, AddressState.unavailable, event.jail, event.at)
        invocation = self.invocations.get(event.invocation or "")
        holder = self.jails.get(event.jail)
        if address is not None:
            address.function = invocation.label if invocation else holder.label if holder else ""

    def _released(self, event: ev.AddressReleased) -> None:
        address = self._address(event.ip, AddressState.available, None, event.at)
        if address is not None:
            address.function = ""

    def _address_set(self, event: ev.AddressStateSet) -> None:
        address = self.addresses.get(event.ip)
        if address is not None:
            self._address(event.ip, AddressState(event.state), address.info.jail, event.at)
            address.setting = None

    def _build_started(self, event: ev.BuildStarted) -> None:
        row = ArtifactRow.of_build(event, "building")
        if before := self.cache.get(event.key):
            row.artifact = before.artifact
        self.cache[event.key] = row

    def _build_finished(self, event: ev.BuildFinished) -> None:
        row = self.cache.get(event.key)
        if row is None:
            row = self.cache[event.key] = ArtifactRow.of_build(event, "")
        row.state = "ready" if event.ok else "failed"
        row.cause = event.cause
        row.at = event.at
        failed = [key for key, other in self.cache.items() if other.state == "failed"]
        for key in failed[:-20]:
            del self.cache[key]

    def _evicted(self, event: ev.ArtifactEvicted) -> None:
        self.cache.pop(event.key, None)

    def _gap(self, event: ev.Gap) -> None:
        self.missed += event.missed

    def _pulse(self, event: ev.Pulse) -> None:
        if self.status is not None:
            self.status = structs.replace(
                self.status,
                running=event.running,
                queued=event.queued,
                draining=event.draining,
                host=event.host or self.status.host,
            )
        for name, usage in event.usage.items():
            if jail := self.jails.get(name):
                jail.info = structs.replace(jail.info, usage=usage)
                self._sample_cpu(jail, event.at)

    # What is asked of it

    def usual_s(self, invocation: InvocationRow) -> float | None:
        """How long calls of the same function take, in seconds; None if none ran lately."""
        figures = next(
            (row.figures for row in self.functions.values() if row.title == invocation.title), None
        )
        usual_s = figures.usual_s if figures is not None else None
        return usual_s if usual_s is not None else self.figures.usual_s(invocation)

    @property
    def slo_s(self) -> float:
        """The target of calls whose function has none of its own, in seconds."""
        return self.status.policy.slo.target_s if self.status is not None else 1.0

    def slo_of(self, title: str) -> float:
        """The target of a function's calls, in seconds."""
        return self.status.policy.slo.of(title) if self.status is not None else 1.0

    @property
    def places(self) -> int:
        """How many calls have a place to run: their jails are being made, or run."""
        return sum(
            not row.verdict and row.phase in ("jail", "exec", "ending") for row in self.invocations.values()
        )

    @property
    def busy(self) -> int:
        """How many jails have a call or a build; warm ones wait for a call."""
        return sum(jail.info.state is not JailState.warm for jail in self.jails.values())

    @property
    def node(self) -> str:
        """The island's name in its fleet; empty where it is alone."""
        return self.status.fleet.node if self.status is not None and self.status.fleet is not None else ""

    @property
    def every_jail(self) -> dict[str, JailRow]:
        """The jails of the whole fleet, this island's first."""
        for jail in self.jails.values():
            jail.node = self.node
        return self.jails | self.others.jails if self.others.jails else self.jails

    @property
    def every_address(self) -> list[AddressRow]:
        """The addresses of the whole fleet."""
        for address in self.addresses.values():
            address.node = self.node
        return [*self.addresses.values(), *self.others.addresses.values()]

    def is_elsewhere(self, row: JailRow | AddressRow) -> bool:
        """Whether it is another island's."""
        return bool(row.node) and row.node != self.node

    def ordered_addresses(self) -> list[AddressRow]:
        """All addresses, in the order of their numbers."""
        return sorted(self.addresses.values(), key=lambda address: address.order)

    def count_addresses(self) -> dict[str, int]:
        counts = {"available": 0, "leased": 0, "out": 0, "setting": 0}
        for address in self.addresses.values():
            counts[address.state] += 1
        return counts


_LISTED = (
    *(ev.JailCreated, ev.JailClaimed, ev.JailKilled, ev.JailDestroyed),
    *(ev.AddressLeased, ev.AddressReleased, ev.AddressStateSet),
    *(ev.BuildStarted, ev.BuildFinished, ev.ArtifactEvicted),
)
"""Events that change what a snapshot lists. To fold one twice does no harm."""
_QUIET = (
    ev.InvocationQueued,
    ev.PhaseFinished,
    ev.CloneCreated,
    ev.CloneDestroyed,
    ev.InvocationStarted,
    ev.Pulse,
)
"""Events that are too many for a line each."""
