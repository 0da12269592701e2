"""Figure 4: the first call of a repository that is new to the island."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from bench import peers
from bench.figures import Field, Measured
from bench.load import output_of
from bench.rows import Samples, Way, interleave, raw, row
from bench.stand import CALL, GEOHASH, Stand
from examples.publish import HOST, commit

MAIN = """\
package main

import (
	"fmt"

	"{module}"
)

func main() {{
	fmt.Print(geohash.{call})
}}
"""


def first_call(on: Field, rounds: int) -> Measured:
    """Clone, build and run over REST, against `git clone` and `go build` by hand.

    Both have the standard library compiled in their build cache. Neither knows the repository: each gets a
    copy under a new name.
    """
    hand = _Hand(on.stand)
    hand.measure(_repository(on.stand, "warm-up"))
    number = iter(range(10**6))

    def ours() -> list[float]:
        name = _repository(on.stand, f"ours-{os.getpid()}-{next(number)}")
        began = time.perf_counter()
        answer = on.stand.call(name, CALL)
        spent = (time.perf_counter() - began) * 1000
        assert answer["data"] == GEOHASH, answer
        assert not answer["cached"], answer
        return [spent]

    def theirs() -> list[float]:
        return [hand.measure(_repository(on.stand, f"hand-{next(number)}"))]

    samples: dict[str, Samples] = interleave(
        {
            "island": on.island(ours),
            "hand": Way(measure=theirs, meter=on.meters["bench"]),
        },
        rounds,
    )
    what = "first call of a new repository, run included"
    by_hand = "git clone + go build"
    return [row("4", what, samples["island"], samples["hand"], by_hand, at_most=1.3)], raw(samples)


class _Hand:
    """Clone and build with the commands that one would type, with the island's flags."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._go = peers.toolchain() / "bin" / "go"
        self._env = peers.go_environment(stand.folder)

    def measure(self, name: str) -> float:
        target = self._stand.folder / "by-hand"
        shutil.rmtree(target, ignore_errors=True)
        url = (self._stand.repositories / name).as_uri()
        began = time.perf_counter()
        output_of(["git", "clone", "--quiet", "--depth", "1", url, str(target)])
        main = target / "skycall" / "main.go"
        main.parent.mkdir()
        main.write_text(MAIN.format(module=f"{HOST}/{name}", call=CALL))
        flags = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
        output_of(
            [str(self._go), "build", *flags, "-o", "skycall.bin", "./skycall"], cwd=target, env=self._env
        )
        spent = (time.perf_counter() - began) * 1000
        assert output_of([str(target / "skycall.bin")]) == GEOHASH
        return spent


def _repository(stand: Stand, name: str) -> str:
    """Make a repository with the code of the geohash example, as a module with its own name."""
    target: Path = stand.repositories / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(stand.repositories / "geohash", target, ignore=shutil.ignore_patterns(".git"))
    module = target / "go.mod"
    module.write_text(module.read_text().replace(f"{HOST}/geohash", f"{HOST}/{name}"))
    commit(target, "First version")
    return name
