"""A fleet of islands as a discrete-event model: what no two cores can show, of 10, 100 and 1,000 nodes.

    Poisson arrivals, by node and function ─▶ a place here, else a home with room, else any node, else wait

What is modelled: places, queues, pulses of one second's age, the homes of a function, warm jails, binaries
and who builds them, and every message that goes over the server. What is not: the functions' competition for
processors (a place is served as if it had its own), lost packets, and servers that fail. A call's work is
exponential, so that one node is an M/M/c queue, which tests/unit/test_fleetmodel.py works out by hand.

A run is a function of its `Scenario` and `Costs`: the same seed gives the same figures, to the last digit.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from random import Random
from typing import Any, Literal

import simpy
from msgspec import Struct

SAMPLE = 64
"""Of so many nodes the one with most room is chosen. An island looks at all; the model would take an hour."""
Where = Literal["here", "home", "any", "queued", "refused"]
Step = Generator[simpy.Event, Any, None]


class Costs(Struct, frozen=True, kw_only=True):
    """What things cost, measured on two cores over loopback; seconds and bytes."""

    warm_s: float = 0.003
    """A warm call without its work (docs/benchmarks.md, 1a)."""
    jail_s: float = 0.003
    """What a jail adds that must be made first (docs/benchmarks.md, 3a less 1a)."""
    forward_s: float = 0.0008
    """What forwarding adds, both ways together."""
    refusal_s: float = 0.0003
    """A question to a node that turns out to have no room, or to nobody."""
    build_s: float = 1.0
    """A function compiled for the first time (`make demo-fleet`)."""
    fetch_s: float = 0.065
    """A binary brought from the fleet's store (`make demo-fleet`)."""
    pulse_s: float = 1.0
    """Between two pulses of a node."""
    fresh_s: float = 3.0
    """Nobody believes an older pulse."""
    pulse_bytes: int = 237
    """A pulse with its subject, as the server sends it on."""
    call_bytes: int = 1_500
    """A forwarded call with its answer and beats."""
    call_messages: int = 3
    """The question, the beat that it began, the answer."""
    binary_bytes: int = 2_500_000
    """A compiled function."""


class Scenario(Struct, frozen=True, kw_only=True):
    """Who calls what, where, and how much."""

    nodes: int
    places: int = 8
    """Calls that a node runs at one time."""
    work_s: float = 0.05
    """The mean of what a function itself takes."""
    load: float = 0.7
    """Arrivals, of what all places together can do."""
    hot_nodes: float = 0.1
    """So many of the nodes …"""
    hot_share: float = 0.5
    """… get so much of all calls: nobody balances them."""
    functions: int = 200
    zipf: float = 1.0
    """The r-th function is called 1 / r**zipf as often as the first."""
    homes: int = 2
    """Nodes that a function is forwarded to before all others; 0 for a fleet that does not forward."""
    most_room_first: bool = True
    """Whether those are asked that have most room by their pulses, or any that have some."""
    more_asked: int = 2
    """Other nodes that are asked when no home has room."""
    waiting: int = 256
    """Calls that may wait at a node."""
    warm: int = 8
    """Warm jails of a node."""
    built: bool = False
    """Whether all nodes have all binaries from the first: a fleet that has run for a while."""
    seconds: float = 20.0
    settle_s: float = 3.0
    """What happens before is not counted."""
    seed: int = 1


class Outcome(Struct, frozen=True, kw_only=True):
    """What a run showed."""

    calls: int
    went: dict[Where, int]
    """Calls by where they ran, or that they did not."""
    warm: dict[Where, int]
    """Of those, how many found a warm jail."""
    p50_s: float
    p99_s: float
    mean_wait_s: float
    """Of those that ran: waited for a place."""
    busy: float
    """Places in use, on average."""
    misled: int
    """Calls that a pulse sent to a home without room."""
    builds: int
    fetches: int
    messages_per_s: float
    """That the server takes and sends on, pulses apart."""
    bytes_per_s: float
    """That it sends, pulses apart."""
    pulses_per_s: float
    """That it sends: each node's to each other."""


def homes(function: int, nodes: int, count: int) -> tuple[int, ...]:
    """The `count` nodes with the highest hash for this function (rendezvous hashing)."""

    def score(node: int) -> bytes:
        return blake2b(b"%d/%d" % (function, node), digest_size=8).digest()

    return tuple(sorted(range(nodes), key=score, reverse=True)[:count])


class Node:
    """Places with their queue, warm jails and binaries."""

    def __init__(self, env: simpy.Environment, scenario: Scenario) -> None:
        self.places = simpy.Resource(env, scenario.places)
        self.told_free = scenario.places
        """By its last pulse."""
        self.sent: Counter[int] = Counter()
        """Calls of this one that others run now."""
        self.warm: OrderedDict[int, None] = OrderedDict()
        self.binaries = set(range(scenario.functions)) if scenario.built else set[int]()

    @property
    def free(self) -> int:
        return int(self.places.capacity) - self.places.count


class Fleet:
    """One run. `run` gives its outcome."""

    def __init__(self, scenario: Scenario, costs: Costs) -> None:
        self.scenario, self.costs = scenario, costs
        self.env = simpy.Environment()
        self.random = Random(scenario.seed)  # noqa: S311 - a model's, which must be repeatable
        self.nodes = [Node(self.env, scenario) for _ in range(scenario.nodes)]
        self.popularity = _cumulative([1 / rank**scenario.zipf for rank in range(1, scenario.functions + 1)])
        self.arrivals = _cumulative(_weights(scenario))
        self.homes = [homes(f, scenario.nodes, scenario.homes) for f in range(scenario.functions)]
        self.building: dict[int, simpy.Event] = {}
        self.stored = set[int]()
        self.went: Counter[Where] = Counter()
        self.warm: Counter[Where] = Counter()
        self.times: list[float] = []
        self.waited_s = self.busy_s = self.bytes = 0.0
        self.misled = self.builds = self.fetches = self.messages = 0

    def run(self) -> Outcome:
        for number, node in enumerate(self.nodes):
            self.env.process(self._pulses(node, number))
        self.env.process(self._arrive())
        end_s = self.scenario.settle_s + self.scenario.seconds
        self.env.run(end_s)
        self.times.sort()
        seconds, nodes = self.scenario.seconds, self.scenario.nodes
        return Outcome(
            calls=self.went.total(),
            went=dict(self.went),
            warm=dict(self.warm),
            p50_s=quantile(self.times, 0.5),
            p99_s=quantile(self.times, 0.99),
            mean_wait_s=self.waited_s / max(1, len(self.times)),
            busy=self.busy_s / (seconds * nodes * self.scenario.places),
            misled=self.misled,
            builds=self.builds,
            fetches=self.fetches,
            messages_per_s=self.messages / seconds,
            bytes_per_s=self.bytes / seconds,
            pulses_per_s=nodes * (nodes - 1) / self.costs.pulse_s,
        )

    @property
    def _counts(self) -> bool:
        return self.env.now >= self.scenario.settle_s

    def _pulses(self, node: Node, number: int) -> Step:
        yield self.env.timeout(self.costs.pulse_s * number / self.scenario.nodes)
        while True:
            node.told_free = node.free
            yield self.env.timeout(self.costs.pulse_s)

    def _arrive(self) -> Step:
        scenario, random = self.scenario, self.random
        rate = scenario.load * scenario.nodes * scenario.places / (scenario.work_s + self.costs.warm_s)
        while True:
            yield self.env.timeout(random.expovariate(rate))
            node = bisect(self.arrivals, random.random())
            function = bisect(self.popularity, random.random())
            self.env.process(self._call(node, function))

    def _call(self, origin: int, function: int) -> Step:
        began_s = self.env.now
        number, where, asked = self._route(origin, function)
        if asked:
            yield self.env.timeout(asked * self.costs.refusal_s)
        if where in ("home", "any"):
            yield self.env.timeout(self.costs.forward_s)
            self._note(self.costs.call_messages, self.costs.call_bytes)
        self.nodes[origin].sent[number] += number != origin
        yield from self._run(number, where, function, began_s)
        self.nodes[origin].sent[number] -= number != origin

    def _run(self, number: int, where: Where, function: int, began_s: float) -> Step:
        node, counts = self.nodes[number], began_s >= self.scenario.settle_s
        if len(node.places.queue) >= self.scenario.waiting:
            self.went["refused"] += counts
            return
        if where == "here" and not node.free:
            where = "queued"
        with node.places.request() as place:
            waits_s = self.env.now
            yield place
            waited_s, starts_s = self.env.now - waits_s, self.env.now
            yield from self._obtain(node, function)
            is_warm = function in node.warm
            cost_s = self.costs.warm_s + (0.0 if is_warm else self.costs.jail_s)
            yield self.env.timeout(cost_s + self.random.expovariate(1 / self.scenario.work_s))
        node.warm[function] = None
        node.warm.move_to_end(function)
        if len(node.warm) > self.scenario.warm:
            node.warm.popitem(last=False)
        self.busy_s += max(0.0, self.env.now - max(starts_s, self.scenario.settle_s))
        if counts:
            self.went[where] += 1
            self.warm[where] += is_warm
            self.waited_s += waited_s
            self.times.append(self.env.now - began_s)

    def _route(self, origin: int, function: int) -> tuple[int, Where, int]:
        """Which node runs the call, how that is called, and how many were asked in vain."""
        here = self.nodes[origin]
        if here.free or not self.scenario.homes:
            return origin, "here", 0
        asked = 0
        for node, where in self._candidates(origin, function):
            if self.nodes[node].free:
                return node, where, asked
            asked += 1
            self.misled += self._counts
            self._note(2, self.costs.call_bytes)
        return origin, "here", asked

    def _candidates(self, origin: int, function: int) -> Iterator[tuple[int, Where]]:
        """Nodes that seem to have room, by their last pulse and what this node sent there since."""
        sent = self.nodes[origin].sent

        def room(node: int) -> int:
            return 0 if node == origin else self.nodes[node].told_free - sent[node]

        homes = self.homes[function]
        yield from ((home, "home") for home in homes if room(home) > 0)
        count = min(SAMPLE, self.scenario.nodes)
        able = [node for node in self.random.sample(range(self.scenario.nodes), count) if room(node) > 0]
        able = [node for node in able if node not in homes]
        if self.scenario.most_room_first:
            able.sort(key=room, reverse=True)
        yield from ((node, "any") for node in able[: self.scenario.more_asked])

    def _obtain(self, node: Node, function: int) -> Step:
        """The binary is at the node: from the store, or built once for all."""
        if function in node.binaries:
            return
        if function not in self.stored:
            if function in self.building:
                yield self.building[function]
            else:
                done = self.building[function] = self.env.event()
                self.builds += 1
                yield self.env.timeout(self.costs.build_s)
                self.stored.add(function)
                node.binaries.add(function)
                self._note(5, self.costs.binary_bytes)
                done.succeed()
                return
        if self.scenario.nodes > 1 and function not in node.binaries:
            yield self.env.timeout(self.costs.fetch_s)
            self.fetches += self._counts
            self._note(5, self.costs.binary_bytes)
        node.binaries.add(function)

    def _note(self, messages: int, size_bytes: int) -> None:
        if self._counts:
            self.messages += messages
            self.bytes += size_bytes


def run(scenario: Scenario, costs: Costs | None = None) -> Outcome:
    """What such a fleet does."""
    return Fleet(scenario, costs or Costs()).run()


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile of sorted values; 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _cumulative(weights: Sequence[float]) -> list[float]:
    whole = sum(weights)
    return [upto / whole for upto in accumulate(weights)][:-1]


def _weights(scenario: Scenario) -> list[float]:
    """How much of all calls each node gets."""
    hot = max(1, round(scenario.nodes * scenario.hot_nodes))
    if hot >= scenario.nodes:
        return [1.0] * scenario.nodes
    cool = scenario.nodes - hot
    return [scenario.hot_share / hot] * hot + [(1 - scenario.hot_share) / cool] * cool
