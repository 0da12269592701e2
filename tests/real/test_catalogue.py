"""What packages offer, told by the real program in real build jails.

To accept another golden: SKYISLAND_ACCEPT=1 .venv/bin/pytest tests/real/test_catalogue.py
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from skyisland.errors import BadCall, BuildFailed, Complaint
from skyisland.golang import harness
from skyisland.golang.callee import PROGRAM, parse_callee
from skyisland.golang.catalogue import MOST_BYTES, read
from skyisland.model import Artifact, Call, Data, Mount, NetworkAccess
from tests.support.buildroom import Workshop

pytestmark = [pytest.mark.host, pytest.mark.root]

DESCRIBED = Path(__file__).with_name("described")
GOLDEN = DESCRIBED / "catalogue.json"
PLACES = {path.name: path.read_text() for path in DESCRIBED.iterdir() if path != GOLDEN}


def hostile(functions: int, nested: int) -> dict[str, str]:
    """A package that is too much for whoever writes all of it out, in every manner at once."""
    many = [f"// F{n} {'y' * 1500}\nfunc F{n}(a, b int) string {{ return `` }}\n" for n in range(functions)]
    embedded = [
        f"type T{n} struct {{ T{n - 1}; *U{n - 1} }}\ntype U{n} struct {{ T{n - 1}; U{n - 1} }}\n"
        for n in range(1, nested)
    ]
    return {
        "go.mod": "module m\n\ngo 1.24\n",
        "x.go": "\n".join(
            (
                f"// {'x ' * 500_000}",
                "package x",
                *many,
                *embedded,
                "type T0 struct { A, B int }\ntype U0 struct { A, C int }",
                "type L []L\ntype M map[string]M\ntype P *P\ntype C[T any] struct { N *C[T] }",
                "type S struct { *S; Next *S; E }\ntype E struct { *E; F func(E) E }",
                f"func A(t T{nested - 1}, l L, m M, p P, c C[C[int]], s S) {{}}",
                f"func {'N' * 50_000}() {{}}",
                f"func Q({', '.join(f'a{n} int' for n in range(5000))}) {{}}",
                f"const B = `{'z' * 100_000}`",
            )
        ),
        "x_test.go": "package x\n\nimport `fmt`\n\nfunc ExampleA() {\n\tfmt.Println("
        f"{'(' * 5000}F1(1, 2){')' * 5000})\n\t// Output: \x1b[31m\n}}\n",
        "broken_test.go": "package x\n\nfunc ExampleA_broken( {\n",
    }


async def test_b15_a_package_that_is_too_much(shop: Workshop) -> None:
    offered = await shop.builds.catalogue(shop.source(hostile(3000, 16)))
    names = [entry.name for entry in offered.functions]
    assert names[0] == "A"
    assert 500 < len(names) < 3000
    assert len(names) + offered.omitted == 3000 + 4 + 2 * 16 + 6
    assert len(msgspec.json.encode(offered)) <= MOST_BYTES
    assert all(len(entry.doc) + len(entry.signature) < 10_000 for entry in offered.functions)
    assert not [text for text in (offered.doc, str(offered.functions)) if "\x1b" in text]
    with pytest.raises(BuildFailed, match="what the package offers"):
        read(b'{"name":"x"}')


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
    assert len(ready) == 5
    for one in ready:
        assert await shop.run(source, one.call) == one.output.rstrip()

    async def build(call: Call) -> Artifact:
        return await shop.builds.build(source, call, refresh=False, invocation=None)

    with pytest.raises(BadCall, match=r"name a function of places, such as \w+, \w+, \w+$"):
        await build(PROGRAM)
    with pytest.raises(BuildFailed, match=r"has no exported K, V$"):
        await build(parse_callee("Look", ("K", "V")))
    await build(parse_callee("Look", ("string", "int")))
    looks = offered.find("Look")
    assert looks
    assert all(one.schema is not None for one in looks.parameters)
    values = [entry for entry in offered.functions if entry.kind in ("constant", "variable")]
    for entry in values:
        if entry.callable and entry.call == entry.name:
            assert await shop.run(source, entry.call)
    assert [entry.name for entry in values if not entry.callable] == ["Far"]
    value = parse_callee("MaxLength")
    frame = harness.frame(value, "nonce", data=Data(json=b"[]", many=False))
    outcome = await shop.enter((Mount((await build(value)).path, "/function"),), frame)
    refusal = harness.rejection(outcome, "nonce")
    assert refusal
    assert refusal.message.startswith("call: this is a value, not a function: leave args out")

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
