"""What names need of an island, and what a name means to it: the call, the request, the commit."""

from __future__ import annotations

from typing import Protocol

from msgspec import UNSET, Raw

from skyisland.golang.callee import parse_handler, understand
from skyisland.golang.conversation import Heard
from skyisland.host.fair import LOCAL
from skyisland.model import Artifact, Call, FunctionRequest, Invocation, Limits, NamedCall, Resolved, Terms
from skyisland.named.definition import Definition, Egress, Revision

_NO_ARGUMENTS = Raw(b"[]")


class Runner(Protocol):
    """What names need of an island."""

    async def build(
        self, url: str, version: str | None, call: Call, *, refresh: bool, client: str = LOCAL
    ) -> tuple[Resolved, Artifact]:
        """What a version means now, compiled. `refresh`: ask the remote."""
        ...

    async def build_at(self, resolved: Resolved, call: Call) -> Artifact:
        """The binary of a commit that is known."""
        ...

    async def doubt(self, repository: str) -> None:
        """Ask the remote again before what it said of any branch or tag of this repository is used."""
        ...

    async def invoke(
        self,
        request: FunctionRequest,
        *,
        client: str = LOCAL,
        id: str = "",  # noqa: A002
        caller_id: str = "",
        traceparent: str = "",
        text_only: bool = False,
        heard: Heard | None = None,
        terms: Terms | None = None,
        repeatable: bool = False,
        behind: bool = False,
    ) -> Invocation: ...

    def keep_warm(self, name: str, artifact: Artifact | None, limits: Limits | None, number: int) -> None:
        """Have so many warm jails wait for calls of a name, in place of those that waited for it before."""
        ...

    def aim(self, name: str, target_s: float | None) -> None:
        """Calls of a name are slow beyond this time; None for the settings' own."""
        ...

    def resumed(self, name: str) -> None:
        """Calls of a name are taken again, also those that wait for it."""
        ...

    @property
    def limits(self) -> Limits:
        """Of a jail, where a name has none of its own."""
        ...


def request_of(definition: Definition, commit: str, asked: NamedCall) -> FunctionRequest:
    """The plain call that a call by name stands for."""
    args = asked.args
    if definition.handler:
        return FunctionRequest(
            url=definition.url,
            call=definition.handler,
            ip4=definition.egress is Egress.address,
            version=commit,
        )
    if args is UNSET and asked.inputs is UNSET and definition.function not in ("", "main"):
        args = _NO_ARGUMENTS
    return FunctionRequest(
        url=definition.url,
        call=definition.function,
        args=args,
        inputs=asked.inputs,
        types=definition.types,
        ip4=definition.egress is Egress.address,
        version=commit,
        stdin=asked.stdin,
        stdin_base64=asked.stdin_base64,
        cold=asked.cold,
    )


async def call_of(definition: Definition) -> Call:
    if definition.handler:
        return parse_handler(definition.handler)
    return await understand(request_of(definition, "", NamedCall()))


def resolved_of(revision: Revision) -> Resolved:
    """What runs, without asking anybody."""
    return Resolved(
        url=revision.repository,
        package=revision.package,
        commit=revision.commit,
        version=revision.definition.version,
        named=revision.named,
    )
