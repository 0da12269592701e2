"""`python -m bench.fleetscale`: the model of a fleet at 10, 100 and 1,000 nodes, its tables and pictures.

    bench/results/fleet-costs.json   what the parts cost (`python -m bench.fleetcosts`)
    bench/results/fleet-scale.json   what the model says; kept, so that the page can be held against it
    docs/fleet-scale.md              the tables, between their marks; docs/fleet-*.svg, the pictures

`--page` writes the page from what is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bench import pictures
from bench.fleetmodel import Costs, Outcome, Scenario, run

ROOT = Path(__file__).parent.parent
COSTS, SCALE = ROOT / "bench/results/fleet-costs.json", ROOT / "bench/results/fleet-scale.json"
PAGE = ROOT / "docs" / "fleet-scale.md"
SIZES = (10, 100, 1000)
LOADS = (0.5, 0.7, 0.9)
HOMES = (1, 2, 4, 8)
LINK_BYTES_PER_S = 125e6
"""A server's link of 1 Gbit/s."""
SHORT = {1000: {"seconds": 2.0}, 100: {"seconds": 10.0}, 10: {"seconds": 60.0}}
"""Less time for more nodes: about as many calls each."""
COLOURS = {
    "here": "#0b7285",
    "queued": "#66a6b3",
    "home": "#2f9e44",
    "any": "#e0af4c",
    "refused": "#c92a2a",
}
WORDS = {
    "here": "here at once",
    "queued": "here, waited",
    "home": "at a home",
    "any": "at another",
    "refused": "429",
}


WAYS = {
    "alone {nodes} {load}": "each alone",
    "fleet {nodes} {load}": "the roomiest asked",
    "chance {nodes}": "one asked by chance",
}
"""Of a fleet, by the name of the run."""


def costs() -> Costs:
    """Measured where they are."""
    figures = json.loads(COSTS.read_text())["figures"]
    return Costs(pulse_bytes=round(figures["pulse_bytes"]))


def scenarios() -> Iterator[tuple[str, Scenario]]:
    """Every run, by the name under which it is kept."""
    for nodes in SIZES:
        for load in LOADS:
            base = Scenario(nodes=nodes, load=load, built=True, **SHORT[nodes])  # type: ignore[arg-type]
            yield f"fleet {nodes} {load}", base
            yield f"alone {nodes} {load}", msgspec.structs.replace(base, homes=0)
        for homes in HOMES:
            yield f"homes {nodes} {homes}", Scenario(nodes=nodes, homes=homes, built=True, **SHORT[nodes])  # type: ignore[arg-type]
        yield f"chance {nodes}", Scenario(nodes=nodes, built=True, most_room_first=False, **SHORT[nodes])  # type: ignore[arg-type]


def simulate() -> dict[str, Outcome]:
    measured, done = costs(), dict[Scenario, Outcome]()
    kept = {}
    for name, scenario in scenarios():
        if scenario not in done:
            done[scenario] = run(scenario, measured)
        kept[name] = done[scenario]
        print(f"{name:18} {kept[name].went}", flush=True)
    SCALE.write_text(json.dumps(msgspec.to_builtins(kept), indent=1) + "\n")
    return kept


# Tables


def share(outcome: Outcome, where: str) -> float:
    went: Mapping[str, int] = outcome.went  # type: ignore[assignment]
    return went.get(where, 0) / max(1, outcome.calls)


def went(kept: Mapping[str, Outcome], load: float = 0.7) -> list[str]:
    """Where calls ran, with and without a fleet."""
    head = "| nodes | | " + " | ".join(WORDS.values()) + " | p50 | p99 | misled by a pulse |"
    rows = [head, "| ---: | --- |" + " ---: |" * (len(WORDS) + 3)]
    for nodes in SIZES:
        for name, words in WAYS.items():
            one = kept[name.format(nodes=nodes, load=load)]
            cells = [f"{share(one, where):.1%}" for where in WORDS]
            times = [f"{one.p50_s * 1000:.0f} ms", f"{one.p99_s * 1000:.0f} ms"]
            asked = one.went.get("home", 0) + one.went.get("any", 0) + one.misled
            misled = f"{one.misled / asked:.0%}" if asked else ""
            rows.append(f"| {nodes} | {words} | " + " | ".join([*cells, *times, misled]) + " |")
    return rows


def warmth(kept: Mapping[str, Outcome]) -> list[str]:
    """How often a forwarded call found a warm jail, by the number of homes."""
    rows = ["| homes | " + " | ".join(f"{nodes} nodes" for nodes in SIZES) + " |", "| ---: |" + " ---: |" * 3]
    for homes in HOMES:
        cells = []
        for nodes in SIZES:
            one = kept[f"homes {nodes} {homes}"]
            moved = one.went.get("home", 0) + one.went.get("any", 0)
            warm = one.warm.get("home", 0) + one.warm.get("any", 0)
            at_home = one.went.get("home", 0) / max(1, moved)
            cells.append(f"{warm / max(1, moved):.0%} warm, {at_home:.0%} at a home")
        rows.append(f"| {homes} | " + " | ".join(cells) + " |")
    return rows


class Limit(msgspec.Struct, frozen=True):
    """Something that a fleet uses up."""

    what: str
    unit: str
    by_nodes: dict[int, float]
    most: float
    full_at: float
    """Nodes."""


def limits(figures: Mapping[str, float], kept: Mapping[str, Outcome]) -> list[Limit]:
    """What is used at each size, and with how many nodes it is used up; the first to be first."""
    pulse_bytes, read_s = figures["pulse_bytes"], figures["pulse_read_s"]
    fan_out = figures["fan_out_per_s"]
    durable = max(figures["durable_publishes_per_s"], 1 / figures["durable_publish_s"])
    fleets = {nodes: kept[f"fleet {nodes} 0.7"] for nodes in SIZES}
    calls = {nodes: one.calls / SHORT[nodes]["seconds"] for nodes, one in fleets.items()}
    each = calls[10] / 10
    rows = [
        Limit(
            "pulses: the server's link of 1 Gbit/s",
            "MB/s",
            {n: n * (n - 1) * pulse_bytes / 1e6 for n in SIZES},
            LINK_BYTES_PER_S / 1e6,
            (LINK_BYTES_PER_S / pulse_bytes) ** 0.5,
        ),
        Limit(
            "pulses: messages that one server sends on",
            "/s",
            {n: float(n * (n - 1)) for n in SIZES},
            fan_out,
            fan_out**0.5,
        ),
        Limit(
            "pulses: a node's own core, reading them",
            "of a core",
            {n: n * read_s for n in SIZES},
            0.1,
            0.1 / read_s,
        ),
        Limit(
            "asynchronous calls, if one in ten is: messages on the disk (2 for each)",
            "/s",
            {n: 0.2 * calls[n] for n in SIZES},
            durable,
            durable / (0.2 * each),
        ),
        Limit(
            "forwarded calls: messages of one server",
            "/s",
            {n: fleets[n].messages_per_s for n in SIZES},
            fan_out,
            fan_out / (fleets[100].messages_per_s / 100),
        ),
        Limit(
            "a new function that all want within 10 s: the server's link",
            "MB/s",
            {n: n * 2.5 / 10 for n in SIZES},
            LINK_BYTES_PER_S / 1e6,
            LINK_BYTES_PER_S * 10 / 2.5e6,
        ),
    ]
    return sorted(rows, key=lambda row: row.full_at)


def limit_table(rows: Sequence[Limit]) -> list[str]:
    lines = ["| what | 10 | 100 | 1,000 | there is | used up at |", "| --- |" + " ---: |" * 5]
    for row in rows:
        used = [f"{_brief(row.by_nodes[n])} {row.unit}".strip() for n in SIZES]
        most = f"{_brief(row.most)} {row.unit}"
        lines.append(f"| {row.what} | " + " | ".join([*used, most, f"{_round(row.full_at)} nodes"]) + " |")
    return lines


def _brief(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _round(nodes: float) -> str:
    """Two digits: more would be a claim."""
    digits = 10 ** max(0, len(str(int(nodes))) - 2)
    return f"{round(nodes / digits) * digits:,}"


# The page


def blocks() -> dict[str, str]:
    """What stands between the marks of the page, by their names."""
    kept = msgspec.convert(json.loads(SCALE.read_text()), dict[str, Outcome])
    figures = json.loads(COSTS.read_text())["figures"]
    return {
        "went": "\n".join(went(kept)),
        "warmth": "\n".join(warmth(kept)),
        "limits": "\n".join(limit_table(limits(figures, kept))),
    }


def drawn() -> dict[str, str]:
    """The pictures, by the names of their files."""
    kept = msgspec.convert(json.loads(SCALE.read_text()), dict[str, Outcome])
    figures = json.loads(COSTS.read_text())["figures"]
    rows = [
        (
            f"{nodes}: {words}",
            [(share(kept[name.format(nodes=nodes, load=0.7)], where), COLOURS[where]) for where in WORDS],
        )
        for nodes in SIZES
        for name, words in WAYS.items()
    ]
    legend = [(word, COLOURS[where]) for where, word in WORDS.items()]
    slowest = [
        (f"{nodes} nodes, {words}", kept[name.format(nodes=nodes, load=0.7)].p99_s * 1000, "chance" in name)
        for nodes in SIZES
        for name, words in WAYS.items()
    ]
    pulses = {
        "sent on by the server": [
            (n, n * (n - 1) * figures["pulse_bytes"] / 1e6) for n in (10, 30, 100, 300, 1000)
        ],
        "1 Gbit/s": [(10, LINK_BYTES_PER_S / 1e6), (1000, LINK_BYTES_PER_S / 1e6)],
    }
    return {
        "fleet-went.svg": pictures.shares(
            "Where calls run: half of them come to a tenth of the nodes", rows, legend
        ),
        "fleet-p99.svg": pictures.bars("The slowest in a hundred", slowest),
        "fleet-pulses.svg": pictures.curves("Pulses, MB/s, by nodes", pulses, log_x=True, log_y=True),
    }


def written(text: str) -> str:
    """The page with today's blocks."""
    for name, block in blocks().items():
        mark = f"<!-- {name} -->"
        before, _, rest = text.partition(mark)
        _, _, after = rest.partition(mark)
        text = f"{before}{mark}\n{block}\n{mark}{after}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleetscale", description=__doc__)
    parser.add_argument("--page", action="store_true", help="do not simulate: write what is kept to the page")
    if not parser.parse_args().page:
        simulate()
    PAGE.write_text(written(PAGE.read_text()))
    for name, picture in drawn().items():
        (PAGE.parent / name).write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
