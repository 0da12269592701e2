"""Receipts: what stands in one, who gets it, and that nothing in it may change."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from msgspec import UNSET, structs

from skyisland.errors import BadRequest, HostUnfit, SettingsError
from skyisland.host.programs import Programs
from skyisland.model import FunctionRequest, Limits, Outcome, Verdict
from skyisland.receipts import receipts
from skyisland.receipts.receipt import Built, canonical, differences, read_file
from skyisland.receipts.receipts import limited
from skyisland.receipts.signing import Signer, verify
from skyisland.settings import Api
from tests.api.test_commands import Here, run
from tests.support.api import ADMIN, CALL, REQUEST, World, answers, make_world

FOLDER = Path(__file__).parent / "receipt"
GOOD, SIGNERS = (FOLDER / "good.json").read_bytes(), (FOLDER / "signers").read_text()
WANTED = {"Prefer": "receipt"}
FLIPS = 40
"""Bytes of a receipt that are changed here, of 1300; each that JSON and form let pass takes a process."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    settings = Api(open=False, callers={"alice": "alice's", "bob": "bob's"})
    made = make_world(settings=settings, signer=Signer(tmp_path / "receipts" / "key", own=True))
    await made.island.start()
    yield made
    await made.island.stop()


def shows(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ALICE, BOB = shows("alice's"), shows("bob's")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def fetched(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    body = {"url": CALL["url"], "call": "Encode", "args": [100.1, 80.9], "stdin": "x"}
    answer = await client.post("/api/v1/function", json=body, headers={**ALICE, **WANTED})
    assert answer.headers["Preference-Applied"] == "receipt"
    return await client.get(f"/api/v1/receipts/{answer.json()['id']}", headers=headers)


async def test_a_receipt_says_what_ran_on_what_and_what_came_of_it(world: World) -> None:
    answers(world, b"", {"results": ["jcc92ytsf8kn"], "text": "jcc92ytsf8kn"})
    async with world.client() as client:
        answer = await fetched(client, **ALICE)
        signed = read_file(answer.content)
        told = signed.receipt
        assert (told.island, told.driver, told.enforced, told.verdict) == ("t", "fake", (), "ok")
        assert told.stdin_sha256 == sha256(b"x")
        assert told.arguments_sha256 == sha256(b"[100.1,80.9]")
        assert told.results_sha256 == sha256(b'["jcc92ytsf8kn"]')
        assert told.limits["timeout_ms"] == 5000
        (artifact,) = world.island.builds.artifacts()
        assert (told.made.binary_sha256, told.made.commit) == (artifact.sha256, artifact.commit)
        signers = (await client.get("/api/v1/receipt-signers")).json()["signers"]
        await verify(canonical(told), signed.signature, signers)
        again = await client.get(f"/api/v1/receipts/{told.id}", headers=ALICE)
        assert again.content == answer.content
        body = {"headers": ALICE, "content": canonical(Built.of(told.made))}
        made = (await client.post("/api/v1/reproduce", **body)).json()  # type: ignore[arg-type]
        assert made["binary_sha256"] == artifact.sha256
        other = canonical(structs.replace(Built.of(told.made), package_name="x" * 3000))
        assert (await client.post("/api/v1/reproduce", headers=ALICE, content=other)).status_code == 400


async def test_a_receipt_is_for_its_caller_and_operators(world: World) -> None:
    async with world.client() as client:
        mine = await fetched(client, **ALICE)
        call = json.loads(mine.content)["receipt"]["id"]
        assert (await client.get(f"/api/v1/receipts/{call}", headers=BOB)).status_code == 404
        assert (await client.get(f"/api/v1/receipts/{call}")).status_code == 401
        assert (await client.get(f"/api/v1/receipts/{call}", headers=ADMIN)).content == mine.content
        plain = await client.post("/api/v1/function", json=CALL, headers=ALICE)
        assert "Preference-Applied" not in plain.headers
        answer = await client.get(f"/api/v1/receipts/{plain.json()['id']}", headers=ALICE)
        assert (answer.status_code, answer.json()["code"]) == (404, "invocation_not_found")
        many = await client.post(
            "/api/v1/function",
            json={"url": CALL["url"], "call": "Encode", "inputs": [[1, 2]]},
            headers={**ALICE, **WANTED},
        )
        assert "Preference-Applied" not in many.headers


async def test_whoever_wants_many_receipts_loses_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "REMEMBERED_BYTES", 4 * receipts.CALL_BYTES)
    kept = world.island.receipts
    first = await world.island.invoke(REQUEST)
    kept.note(first, "modest")
    for n in range(9):
        kept.note(structs.replace(first, id=f"inv-{n}"), "greedy")
    assert [*kept._noted] == [first.id, "inv-7", "inv-8"]
    await asyncio.gather(*(noted.hashes for noted in kept._noted.values()))


async def test_a_receipt_is_refused_after_one_flipped_byte_of_anything() -> None:
    signed = read_file(GOOD)
    await verify(canonical(signed.receipt), signed.signature, SIGNERS)
    rng = random.Random(7)  # noqa: S311 - the same every time
    signature = GOOD.index(b"-----BEGIN")
    places = {*rng.sample(range(signature), FLIPS // 2), *rng.sample(range(signature, len(GOOD)), FLIPS // 2)}
    programs = Programs(timeout_s=60)

    async def refused(place: int) -> None:
        changed = bytearray(GOOD)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(BadRequest):
            await checked(bytes(changed))

    async def checked(content: bytes) -> None:
        other = read_file(content)
        await verify(canonical(other.receipt), other.signature, SIGNERS, programs)

    await asyncio.gather(*map(refused, places))
    for changed in (
        GOOD[:-1],
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b'"at":', b'"at": '),
        b"",
        b"\xff",
        b"[" * 9999,
    ):
        with pytest.raises(BadRequest):
            read_file(changed)
    with pytest.raises(BadRequest, match="no longer than"):
        read_file(b"1" * 300_000)


async def test_another_key_or_another_purpose_is_no_signature(tmp_path: Path) -> None:
    signed = read_file(GOOD)
    other = Signer(tmp_path / "a" / "key", own=True)
    with pytest.raises(BadRequest, match="signature is not good"):
        await verify(canonical(signed.receipt), signed.signature, await other.signers())
    for signers in ("", SIGNERS.replace("receipt@skyisland", "git"), "nonsense\n"):
        with pytest.raises(BadRequest, match="signature is not good"):
            await verify(canonical(signed.receipt), signed.signature, signers)


async def test_the_key_is_private_and_stays(tmp_path: Path) -> None:
    key = tmp_path / "receipts" / "key"
    signers = await Signer(key, own=True).signers()
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert await Signer(key, own=True).signers() == signers
    key.chmod(0o640)
    with pytest.raises(SettingsError, match="others may sign"):
        await Signer(key, own=True).signers()
    with pytest.raises(SettingsError, match="No such file"):
        await Signer(tmp_path / "none", own=False).sign(b"x")
    with pytest.raises(HostUnfit, match="ssh-keygen"):
        await Signer(tmp_path / "b" / "key", own=True, programs=Programs(tmp_path)).sign(b"x")


def test_another_recipe_of_the_same_binary_is_no_difference() -> None:
    made = read_file(GOOD).receipt.made
    assert differences(made, structs.replace(made, recipe="0" * 64)) == []
    other = structs.replace(made, recipe="0" * 64, binary_sha256="1" * 64)
    assert [one.partition(":")[0] for one in differences(made, other)] == ["recipe", "binary_sha256"]


def test_limits_are_told_in_whole_numbers() -> None:
    told = limited(Limits(cpus=0.5, cpu_time_s=1.5, memory_bytes=7, stdout_bytes=1, stderr_bytes=2), 2.5)
    assert told == {
        "timeout_ms": 2500,
        "memory_bytes": 7,
        "millicores": 500,
        "cpu_time_ms": 1500,
        "stdout_bytes": 1,
        "stderr_bytes": 2,
    }


async def test_commands_print_and_check_a_receipt(tmp_path: Path) -> None:
    world = make_world(signer=Signer(tmp_path / "receipts" / "key", own=True))
    await world.island.start()
    file = tmp_path / "receipt.json"
    async with world.served() as server:
        here = Here(server)
        await run(here, "invoke", CALL["url"], CALL["call"], "--receipt", str(file))
        told = read_file(file.read_bytes()).receipt
        assert (await run(here, "receipt", told.id)).stdout_bytes == file.read_bytes()
        result = await run(here, "receipt", "check", str(file))
        assert result.output == (
            f"signed by this island: island t, call {told.id}\n"
            f"builds to the same binary: {told.made.binary_sha256} by go1.0, none/none\n"
        )
        signers = tmp_path / "signers"
        signers.write_text((await run(here, "receipt", "signers")).output)
        more = ("--signers", str(signers), "--no-rebuild", "--json")
        assert json.loads((await run(here, "receipt", "check", str(file), *more)).output)["good"]
        fields = {"binary_sha256": "0" * 64}
        forged = structs.replace(told, made=structs.replace(told.made, **fields))
        signed = {"receipt": forged, "signature": await world.island.receipts._key().sign(canonical(forged))}
        file.write_bytes(canonical(signed) + b"\n")
        result = await run(here, "receipt", "check", str(file))
        assert "binary_sha256: the receipt says 000" in str(result.exception)
        file.write_bytes(file.read_bytes().replace(b'"ok"', b'"no"'))
        result = await run(here, "receipt", "check", str(file))
        assert "signature is not good" in str(result.exception)
    await world.island.stop()


def test_what_is_hashed_is_what_was_sent() -> None:
    request = FunctionRequest(url="u", call="Encode(1)")
    outcome = Outcome(verdict=Verdict.ok, stdout=b"out")
    hashes = receipts._hashes(request, outcome)
    assert request.args is UNSET
    assert hashes["arguments_sha256"] == sha256(b"Encode(1)")
    assert (hashes["output_sha256"], hashes["results_sha256"]) == (sha256(b"out"), "")
