"""What an island remembers, made up."""

from __future__ import annotations

from pathlib import Path

from skyisland.events import InvocationFinished, JailCreated
from skyisland.model import Artifact, Purpose, Timings


def artifact(key: str = "k") -> Artifact:
    return Artifact(
        key=key,
        sha256="ab" * 32,
        path=Path("/store/ab"),
        url="example.com/repo",
        package="",
        commit="c" * 40,
        function="Encode",
        expression=None,
        size_bytes=10,
        build_s=0.5,
        built_at=1.0,
        used_at=2.0,
    )


def finished(number: int) -> InvocationFinished:
    return InvocationFinished(
        invocation=f"inv-{number}", url="u", call="F()", verdict="ok", timings=Timings(total_s=1.5)
    )


def jailed(number: int) -> JailCreated:
    """Of a kernel that gives numbers of its own."""
    return JailCreated(jail=f"sky-0000-{number:x}", jid=7, pid=None, purpose=Purpose.function)
