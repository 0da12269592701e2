"""11: a call by name, and a request to a handler, each beside a plain call."""

from __future__ import annotations

import json
from functools import partial

from bench.figures import RATE, Effort, Field, Measured
from bench.load import Http, post
from bench.rows import interleave, raw, row
from bench.stand import GEOHASH
from examples.publish import HOST

PLACE = [57.64911, 10.40744]


def names(on: Field, effort: Effort) -> Measured:
    """Warm calls, one client, at a pace that leaves the pool full."""
    stand = on.stand
    stand.define("encode", url=f"{HOST}/geohash", function="Encode")
    stand.define("greet", url=f"{HOST}/web", handler="Greet")
    plain = stand.http(("Encode", GEOHASH), args=PLACE)
    content = json.dumps({"args": PLACE}).encode()
    named = Http(stand.port, [(post("/api/v1/names/encode", content), f'"data":"{GEOHASH}'.encode())])
    greeted = Http(stand.port, [(post("/fn/greet?name=you", b""), b"Hello, you!")])
    ways = {"plain": plain, "named": named, "handler": greeted}
    samples = interleave(
        {name: on.island(partial(load.paced, effort.calls, RATE)) for name, load in ways.items()},
        effort.rounds,
    )
    at_pace = f"p50; 1 client, {RATE:g} calls/s"
    rows = [
        row("11a", f"call by name, {at_pace}", samples["named"], samples["plain"], "plain call"),
        row("11b", f"request to a handler, {at_pace}", samples["handler"], samples["plain"], "plain call"),
    ]
    return rows, raw(samples)
