"""Every command of docs/rest.md, in its order, against a real island."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.support.daemon import BRIDGE, TOKEN, Daemon
from tests.support.transcripts import Transcript, transcripts

pytestmark = [pytest.mark.host, pytest.mark.root]

ON_THE_PAGE, HERE = "10.61.0.", "10.213.98."
"""The subnet: other islands of this host may have the page's."""


@pytest.fixture(scope="module")
def island(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """With a pool of five addresses, and a deadline that lets a call be seen while it runs."""
    with make_daemon(network={"ip4": {"bridge": BRIDGE, "cidr": f"{HERE}0/29"}}) as running:
        yield running


class Reader:
    """Types the commands of the page."""

    def __init__(self, island: Daemon, pool: ThreadPoolExecutor) -> None:
        self.island = island
        self.pool = pool
        self.background: list[Future[httpx.Response]] = []
        self.jail = ""

    def types(self, transcript: Transcript) -> httpx.Response:
        if transcript.in_background:
            known = sum(line.get("event") == "InvocationStarted" for line in self.island.log)
            call = self.pool.submit(self._send, transcript)
            self.background.append(call)
            started = self.island.wait_for(event="InvocationStarted", times=known + 1)
            self.jail = str(self.island.jail_of(started["invocation"])["name"])
            return httpx.Response(0)
        return self._send(transcript)

    def _send(self, transcript: Transcript) -> httpx.Response:
        method, url, headers, body = transcript.request(
            ISLAND="localhost:3280/api/v1",
            TOKEN=f"X-Sky-Island-Token: {TOKEN}",
            JAIL=self.jail,
            KEY=self._latest_key(),
            INVOCATION=self._latest_call(),
            FUNCTION=self._most_called(),
            CALL=self._latest_kept(),
        )
        path = url.removeprefix("localhost:3280")
        return self.island.request(
            method, path, headers=headers, content=body and body.replace(ON_THE_PAGE, HERE)
        )

    def _latest_call(self) -> str:
        over = self.island.admin.get("/invocations?limit=1").json()["invocations"]
        return str(over[0]["invocation"]) if over else ""

    def _most_called(self) -> str:
        called = self.island.admin.get("/functions").json()["functions"]
        return str(called[0]["id"]) if called else ""

    def _latest_kept(self) -> str:
        kept = self.island.request("GET", "/api/v1/calls?limit=1").json()["calls"]
        return str(kept[0]["id"]) if kept else ""

    def _latest_key(self) -> str:
        artifacts = self.island.admin.get("/cache").json()["artifacts"]
        return str(artifacts[-1]["key"]) if artifacts else ""


def test_each_command_is_answered_as_the_page_says(island: Daemon) -> None:
    wrong = []
    with ThreadPoolExecutor() as pool:
        reader = Reader(island, pool)
        for transcript in transcripts():
            if not transcript.command:
                continue
            answer = reader.types(transcript)
            said = answer.text.replace(HERE, ON_THE_PAGE).rstrip("\n")
            told = {name: answer.headers.get(name) for name in transcript.headers}
            if (answer.status_code, told) != (transcript.status, transcript.headers) or not (
                transcript.in_background or transcript.pattern().fullmatch(said)
            ):
                wrong.append(f"$ {transcript.command}\n{answer.status_code} {told}\n{said[:2000]}")
        assert [call.result().json()["code"] for call in reader.background] == ["killed"]
    assert not wrong, "\n".join(wrong)
