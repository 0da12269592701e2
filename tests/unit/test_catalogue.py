"""What packages offer: reading a stranger's word of it, hints, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from skyisland.builds.catalogues import Catalogues
from skyisland.drivers.fake import Script
from skyisland.errors import BuildFailed
from skyisland.fakes import CATALOGUE
from skyisland.golang.catalogue import MOST_BYTES, Catalogue, ReadyCall, hint, read
from skyisland.golang.packages import Package
from skyisland.host.fair import FairQueue
from skyisland.host.toolchain import Toolchain
from skyisland.model import JailSpec, Source
from tests.support.workshop import COMMIT, Workshop, complains, opened, refused

WRITTEN = msgspec.json.encode(CATALOGUE)
ENCODE = next(entry for entry in CATALOGUE.functions if entry.name == "Encode")


def written(**changes: Any) -> bytes:
    return msgspec.json.encode(structs.replace(CATALOGUE, **changes))


def test_what_the_program_tells_is_read() -> None:
    assert read(WRITTEN) == CATALOGUE


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        WRITTEN[:-1],
        WRITTEN + b"{}",
        WRITTEN.replace(b'"function"', b'"surprise"'),
        WRITTEN.replace(b'"schemas":{}', b'"schemas":{"A":' + b'{"a":' * 200 + b"1" + b"}" * 201),
        WRITTEN.replace(b'"schemas":{}', b'"schemas":{"A":{"a":' + b"[" * 100_000),
        WRITTEN.replace(b'"omitted":0', b'"omitted":"0"'),
        written(name="x" * 301),
        written(doc="x" * 5001),
        b" " * (MOST_BYTES + 1),
    ],
)
def test_a_stranger_s_word_is_refused(output: bytes) -> None:
    with pytest.raises(BuildFailed, match="what the package offers"):
        read(output)


def test_what_does_not_show_is_replaced_and_no_ready_call_is_changed() -> None:
    calls = [ReadyCall("geohash.Encode(1, 2)", "a\x1b[31m\u202eb\u200d")]
    entry = structs.replace(
        ENCODE,
        doc="one\x07\n\ttwo\x9b three\u2028",
        examples=[structs.replace(ENCODE.examples[0], code="x\x00", calls=calls)],
        parameters=[structs.replace(ENCODE.parameters[0], schema={"\x1btitle": ["\x7f"]})],
    )
    found = read(written(functions=[entry])).functions[0]
    assert found.doc == "one\ufffd\n\ttwo\ufffd three\ufffd"
    assert found.examples[0].calls[0].output == "a\ufffd[31m\ufffdb\u200d"
    assert found.parameters[0].schema == {"\ufffdtitle": ["\ufffd"]}
    for foul in ("geohash.Encode(`\x1b`)", "os.Exit(1)", "F(); G()", "other.Encode(1, 2)"):
        example = structs.replace(ENCODE.examples[0], calls=[ReadyCall(foul, "")])
        told = read(written(functions=[structs.replace(ENCODE, examples=[example])]))
        assert told.functions[0].examples[0].calls == []


@pytest.mark.parametrize(
    ("output", "more"),
    [
        ("call:1:1: undefined: Encod", "; there is Encode"),
        ("call:1:1: undefined: ENCODE", "; there is Encode"),
        ("call:1:1: undefined: geohash.Encoed", "; there is Encode"),
        ("call:1:1: undefined: Xyzzy", ""),
        ("call:1:1: undefined: " + "E" * 70_000, ""),
        (
            "call:1:9: not enough arguments in call to Encode\n\thave (number)\n\twant (float64, float64)",
            "; it is declared as func Encode(lat, lng float64) string",
        ),
        ("geohash.go:1:1: undefined: Encod", ""),
        ("", ""),
    ],
)
def test_hints(output: str, more: str) -> None:
    assert hint(CATALOGUE, "Encode", output) == more


def test_a_chain_is_followed_by_the_types_of_its_results() -> None:
    method = structs.replace(ENCODE, kind="method", name="Client.Do")
    maker = structs.replace(
        ENCODE, name="NewClient", results=[structs.replace(ENCODE.results[0], type="*Client")]
    )
    both = structs.replace(CATALOGUE, functions=[method, maker])
    assert both.find("NewClient", "Do") == method
    assert both.find("geohash.NewClient") == maker
    assert both.find("NewClient", "Undo") is None
    assert both.find("Nobody", "Do") is None
    missing = "call:1:9: x.Doo undefined (type *p.Client has no field or method Doo)"
    assert hint(both, "NewClient", missing) == "; there is Do"
    assert hint(both, "NewClient", missing.replace("Client", "Server")) == ""


def tells(catalogue: Catalogue) -> Any:
    """The fake Go is told what our program prints in its jail."""

    def answer(spec: JailSpec) -> Script | None:
        told = msgspec.json.encode(catalogue)
        return Script(stdout=told) if spec.argv[0].startswith("/helper/catalogue-") else None

    return answer


async def test_a_catalogue_is_made_once_and_outlives_the_daemon(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        shop.go.answers.append(tells(CATALOGUE))
        source = shop.source()
        made = await shop.builds.catalogue(source)
        assert (made.url, made.version, made.functions) == (source.url, COMMIT, CATALOGUE.functions)
        assert await shop.builds.catalogue(source) == made
        (kept,) = shop.layout.catalogues.iterdir()
        (kept.parent / "sky-left").touch()
    async with opened(state_dir) as shop:
        assert await shop.builds.known_catalogue(source) == made
        assert list(kept.parent.iterdir()) == [kept]
    async with opened(state_dir) as shop:
        kept.write_bytes(b"half")
        assert await shop.builds.known_catalogue(source) is None
        assert asked(shop) == 0


def asked(shop: Workshop) -> int:
    return sum(spec.argv[0].startswith("/helper/catalogue-") for spec in shop.go.specs)


class Telling:
    """A compiler that tells of every package the same."""

    toolchain = Toolchain(Path(), "go1.27.3")

    async def catalogue(self, *_: Any, **__: Any) -> Catalogue:
        return CATALOGUE


async def test_the_one_read_longest_ago_makes_room(tmp_path: Path) -> None:
    places = FairQueue("a place", 1, max_waiting=9, timeout_s=9)
    compiler: Any = Telling()
    kept = Catalogues(tmp_path, compiler, places, limit_bytes=2 * len(WRITTEN) + 1000)
    await kept.load()
    package = Package("geo", "m", "readonly", None, requires=False)
    sources = [Source(url="u", package="", commit=f"{n:040x}", checkout=tmp_path) for n in range(3)]
    for source in sources[:2]:
        await kept.of(source, package, client="c")
    await kept.known(sources[0])
    await kept.of(sources[2], package, client="c")
    assert [await kept.known(source) is not None for source in sources] == [True, False, True]
    assert len(list(tmp_path.iterdir())) == 2
    again = Catalogues(tmp_path, compiler, places)
    await again.load()
    assert [await again.known(source) is not None for source in sources] == [True, False, True]


async def test_a_failed_hint_leaves_the_error_as_it_was(state_dir: Path) -> None:
    async with opened(state_dir) as shop:
        shop.go.answers.append(complains("skyisland.call:1:1: undefined: Encod\n", when="Encod"))
        shop.go.answers.append(tells(structs.replace(CATALOGUE, name="x" * 301)))
        error = await refused(shop, shop.source(), "Encod()")
        assert asked(shop) == 0  # its program is not compiled yet: nobody waits for that with an error
        await shop.builds.prepare(whole=True)
        error = await refused(shop, shop.source(), "Encod()")
        assert asked(shop) == 1
        assert error.message.endswith("has no exported Encod")
