"""The model of a fleet against what can be worked out by hand."""

from __future__ import annotations

from math import factorial

import pytest
from msgspec import structs

from bench.fleetmodel import Costs, Scenario, homes, quantile, run

FREE = Costs(warm_s=0.0, jail_s=0.0, forward_s=0.0, refusal_s=0.0, fetch_s=0.0)


def erlang_c(servers: int, offered: float) -> float:
    """The share of customers that wait in an M/M/c queue (Erlang, 1917)."""
    last = offered**servers / factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**n / factorial(n) for n in range(servers)) + last)


@pytest.mark.parametrize(("places", "load"), [(1, 0.5), (4, 0.6)])
def test_one_node_is_an_mmc_queue(places: int, load: float) -> None:
    one = Scenario(
        nodes=1, places=places, work_s=0.05, load=load, functions=1, built=True, waiting=10**6, seconds=300
    )
    outcome = run(one, FREE)
    waits_s = erlang_c(places, places * load) * one.work_s / (places * (1 - load))
    assert outcome.mean_wait_s == pytest.approx(waits_s, rel=0.1)
    assert outcome.busy == pytest.approx(load, rel=0.05)
    assert outcome.went == {"here": outcome.went["here"], "queued": outcome.went["queued"]}
    assert outcome.went["queued"] / outcome.calls == pytest.approx(erlang_c(places, places * load), rel=0.1)


def test_the_same_seed_gives_the_same_figures() -> None:
    fleet = Scenario(nodes=5, load=0.8, seconds=2.0)
    assert run(fleet) == run(fleet)
    assert run(fleet) != run(Scenario(nodes=5, load=0.8, seconds=2.0, seed=2))


def test_a_fleet_takes_what_one_node_refuses_and_builds_once() -> None:
    hot = Scenario(nodes=10, load=0.6, seconds=5.0, functions=20, waiting=16)
    alone, together = run(structs.replace(hot, homes=0)), run(hot)
    assert alone.went["refused"] > 0.3 * alone.calls * hot.hot_share
    assert together.went.get("refused", 0) < alone.went["refused"] / 5
    assert together.went["home"] > 0
    assert together.builds == 20
    assert together.pulses_per_s == 90


def test_homes_move_only_where_a_node_comes() -> None:
    before = {f: homes(f, 10, 2) for f in range(500)}
    after = {f: homes(f, 11, 2) for f in range(500)}
    moved = sum(before[f] != after[f] for f in before)
    assert all(10 in after[f] for f in before if before[f] != after[f])
    assert moved / 500 == pytest.approx(2 / 11, abs=0.05)


def test_quantiles() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert quantile([1.0, 2.0], 0.99) == 2.0
