"""Receipts of calls: whoever made a call fetches its own, and anybody has what it tells of built again."""

from __future__ import annotations

from quart import Quart, Response, request

from api.auth import Gate
from api.function import FunctionEndpoint
from api.routes import answers, responds
from skyisland import operations as op
from skyisland.island import Island
from skyisland.operations import JSON, Role
from skyisland.receipts.receipt import Built, Provenance, file_of


def receipts(app: Quart, island: Island, endpoint: FunctionEndpoint, gate: Gate) -> None:
    """To sign and to build counts as a call does."""

    @responds(app, op.RECEIPT)
    async def receipt(invocation: str) -> Response:
        token = gate.token_of(request.scope["headers"])
        who = gate.who(token) if token else None
        if who is not None and who.role is not Role.caller:
            signed = await island.receipts.get(invocation)
        else:
            with endpoint.admitted(request.scope) as client:
                signed = await island.receipts.get(invocation, client.share)
        return Response(file_of(signed), 200, content_type=JSON)  # to the byte as it was signed

    @answers(app, op.SIGNERS)
    async def signers() -> str:
        return await island.receipts.signers()

    @answers(app, op.REPRODUCE)
    async def reproduce(body: Built) -> Provenance:
        with endpoint.admitted(request.scope) as client:
            return await island.reproduce(body, client=client.share)
