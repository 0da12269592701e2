"""Remembers calls whose callers want a receipt, and makes it when it is fetched.

What is remembered is in memory, some kilobytes of each: a receipt is fetched soon, or lost when the island
stops. An output is hashed after the answer, on a thread: a mebibyte takes a millisecond.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from msgspec import UNSET, Raw, Struct, structs

from skyisland.errors import InvocationNotFound, NotFound
from skyisland.host.tasks import aside, cancel_all
from skyisland.model import Artifact, FunctionRequest, Invocation, Limits, Outcome
from skyisland.receipts.receipt import Provenance, Receipt, Signed, canonical
from skyisland.receipts.signing import Signer

REMEMBERED_BYTES = 8 << 20
"""Of all calls together: some three thousand. Whose calls take the most, loses the oldest of them first."""
CALL_BYTES = 2500
"""Of one, beside the text of its artifact. A judgement."""

Made = Callable[[Artifact], Awaitable[Provenance]]
"""Tells what a binary was made of."""


class Confinement(Struct, frozen=True):
    """Who answers here, and what confines calls."""

    island: str
    version: str
    driver: str
    enforced: tuple[str, ...]


class Noted(Struct):
    """A call whose caller wants a receipt."""

    client: str
    invocation: Invocation
    """Without what was hashed."""
    hashes: asyncio.Task[dict[str, str]]
    """By the fields of a receipt."""
    signed: Signed | None = None

    @property
    def size(self) -> int:
        artifact = self.invocation.artifact
        assert artifact is not None  # noqa: S101 - only such calls are noted
        return CALL_BYTES + 2 * len(artifact.expression or "") + len(artifact.function)


class Receipts:
    """The receipts of one island. `close` comes last."""

    def __init__(self, signer: Signer | None, made: Made, confinement: Callable[[], Confinement]) -> None:
        self._signer, self._made, self._confinement = signer, made, confinement
        self._noted: dict[str, Noted] = {}
        """By the call's id, oldest first."""
        self._bytes: dict[str, int] = {}
        """Of each client's calls."""

    async def close(self) -> None:
        """Forget all. May be repeated."""
        tasks = [noted.hashes for noted in self._noted.values()]
        self._noted.clear()
        await cancel_all(*tasks)

    def note(self, invocation: Invocation, client: str) -> bool:
        """Remember a call that is over, for its receipt; False if it can have none: it has many inputs, or
        another island of the fleet ran it."""
        if invocation.artifact is None or invocation.node or invocation.request.inputs is not UNSET:
            return False
        hashing = asyncio.create_task(aside(_hashes, invocation.request, invocation.outcome))
        bare = structs.replace(
            invocation,
            request=FunctionRequest(url=invocation.request.url),
            outcome=Outcome(verdict=invocation.outcome.verdict, exit_code=invocation.outcome.exit_code),
        )
        noted = self._noted[invocation.id] = Noted(client, bare, hashing)
        self._bytes[client] = self._bytes.get(client, 0) + noted.size
        while sum(self._bytes.values()) > REMEMBERED_BYTES:
            most = max(self._bytes, key=lambda one: self._bytes[one])
            self._forget(next(call for call, noted in self._noted.items() if noted.client == most))
        return True

    def _forget(self, call: str) -> None:
        noted = self._noted.pop(call)
        noted.hashes.cancel()
        self._bytes[noted.client] -= noted.size
        if not self._bytes[noted.client]:
            del self._bytes[noted.client]

    async def get(self, call: str, client: str = "") -> Signed:
        """The receipt of a call. `client`: whose it must be, empty for anybody's.

        Raises:
            InvocationNotFound: there is none.
            IslandError: its repository cannot be had any more, or nothing can be signed here.
        """
        noted = self._noted.get(call)
        if noted is None or client not in ("", noted.client):
            text = f"no receipt of {call[:64]!r} is kept; send the call with `Prefer: receipt`"
            raise InvocationNotFound(f"{text}, and fetch it soon", invocation=call[:64])
        if noted.signed is None:
            receipt = await self._receipt(noted)
            noted.signed = Signed(receipt=receipt, signature=await self._key().sign(canonical(receipt)))
        return noted.signed

    async def signers(self) -> str:
        """What verifies the receipts of this island: a line of allowed signers (ssh-keygen(1)).

        Raises:
            IslandError: nothing can be signed here.
        """
        return await self._key().signers()

    def _key(self) -> Signer:
        if self._signer is None:
            raise NotFound("this island signs no receipts")
        return self._signer

    async def _receipt(self, noted: Noted) -> Receipt:
        invocation, here = noted.invocation, self._confinement()
        assert invocation.artifact is not None  # noqa: S101 - only such calls are noted
        return Receipt(
            island=here.island,
            island_version=here.version,
            id=invocation.id,
            at=int(invocation.started_at),
            url=invocation.request.url,
            verdict=invocation.outcome.verdict,
            exit_code=invocation.outcome.exit_code,
            made=await self._made(invocation.artifact),
            limits=limited(invocation.limits or Limits(), invocation.timeout_s),
            driver=here.driver,
            enforced=here.enforced,
            **await asyncio.shield(noted.hashes),
        )


def limited(limits: Limits, timeout_s: float) -> dict[str, int]:
    """What was limited, in whole numbers: seconds as milliseconds, cores as thousandths."""
    told: dict[str, int] = {"timeout_ms": round(timeout_s * 1000)}
    for field in Limits.__struct_fields__:
        value = getattr(limits, field)
        if value is None:
            continue
        if field == "cpus":
            told["millicores"] = round(value * 1000)
        elif field.endswith("_s"):
            told[field.removesuffix("_s") + "_ms"] = round(value * 1000)
        else:
            told[field] = int(value)
    return told


def _hashes(request: FunctionRequest, outcome: Outcome) -> dict[str, str]:
    """Blocks."""
    arguments = bytes(request.args) if isinstance(request.args, Raw) else request.call.encode()
    return {
        "arguments_sha256": hashlib.sha256(arguments).hexdigest(),
        "stdin_sha256": hashlib.sha256(request.input).hexdigest(),
        "output_sha256": hashlib.sha256(outcome.stdout).hexdigest(),
        "results_sha256": "" if outcome.results is None else hashlib.sha256(outcome.results).hexdigest(),
    }
