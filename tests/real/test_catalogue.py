"""What packages offer, told by the real program in real build jails.

To accept another golden: SKYISLAND_ACCEPT=1 .venv/bin/pytest tests/real/test_catalogue.py
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from skyisland.errors import BuildFailed, Complaint
from skyisland.model import NetworkAccess
from tests.support.buildroom import Workshop

pytestmark = [pytest.mark.host, pytest.mark.root]

DESCRIBED = Path(__file__).with_name("described")
GOLDEN = DESCRIBED / "catalogue.json"
PLACES = {path.name: path.read_text() for path in DESCRIBED.iterdir() if path != GOLDEN}


async def test_what_it_tells_its_examples_and_its_hints(shop: Workshop) -> None:
    source = shop.source(PLACES)
    assert await shop.builds.known_catalogue(source) is None
    offered = await shop.builds.catalogue(source)
    told = msgspec.json.format(msgspec.json.encode(offered), indent=1)
    if os.environ.get("SKYISLAND_ACCEPT"):
        GOLDEN.write_bytes(told + b"\n")
    assert told + b"\n" == GOLDEN.read_bytes()
    assert await shop.builds.known_catalogue(source) == offered
    assert {spec.network for spec in shop.driver.specs} == {NetworkAccess.none}

    ready = [call for entry in offered.functions for example in entry.examples for call in example.calls]
    assert len(ready) == 4
    for one in ready:
        assert await shop.run(source, one.call) == one.output.rstrip()

    made = len(shop.driver.specs)
    for call, hint in (
        ("Spilt(`a`, `b`)", "has no exported Spilt; there is Split"),
        ("ENCODE(1, 2)", "; there is Encode"),
        ("Point{}.Mov(1)", "; there is Move"),
        ("Split(`a`, Kind(1))", "; it is declared as func Split(text, by string) []string"),
        ("Xyzzy()", "has no exported Xyzzy"),
    ):
        error = await shop.refused(source, call)
        assert isinstance(error, BuildFailed)
        assert error.message.endswith(hint)
        assert error.details["complaint"] in (Complaint.undefined, Complaint.mismatch)
    assert not [spec for spec in shop.driver.specs[made:] if "catalogue" in spec.argv[0]]
