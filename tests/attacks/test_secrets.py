"""Cases S: what belongs to a function with a name, and to nobody else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import HOST, Daemon

pytestmark = [pytest.mark.host, pytest.mark.root]

SECRET = "s3cret-5be1a7e0"
NAMED: dict[str, Any] = {"url": f"{HOST}/web", "env": {"MODE": "mode-5be1a7e0"}}


@pytest.fixture(scope="module")
def island(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """With a name that has a secret, and one that has none."""
    with make_daemon(jails={"exec_timeout": "20s"}) as running:
        put = running.admin.put
        assert put("../secrets/KEY", json={"value": SECRET}).json() == {"secret": "KEY"}
        for name, function, secrets in (
            ("wait", "Wait", {"TOKEN": "KEY"}),
            ("setting", "Setting", {"TOKEN": "KEY"}),
            ("other", "Setting", {}),
        ):
            made = put(f"../names/{name}", json=NAMED | {"function": function, "secrets": secrets})
            assert made.status_code == 200, made.text
        yield running


def call(island: Daemon, name: str, *args: object) -> Any:
    return island.request("POST", f"/api/v1/names/{name}", json={"args": args}).json()


@pytest.mark.case("S1")
def test_s1_a_secret_is_in_its_function_and_nowhere_else(island: Daemon) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(call, island, "wait", "TOKEN", "1s")
        started = island.wait_for(event="InvocationStarted")
        island.jail_of(started["invocation"])
        seen = [
            file
            for process in Path("/proc").glob("[0-9]*")
            for file in ("environ", "cmdline")
            if any(word in _read(process / file) for word in (SECRET.encode(), b"mode-5be1a7e0"))
        ]
        assert running.result()["results"] == [SECRET]
    assert seen == []
    assert call(island, "setting", "TOKEN")["results"] == [SECRET]
    assert call(island, "setting", "MODE")["results"] == ["mode-5be1a7e0"]
    for path in ("snapshot", "invocations", "logs", "cache", "../names", "../names/wait/revisions"):
        assert SECRET not in island.admin.get(path).text, path
    found = subprocess.run(
        ["grep", "-rlaF", SECRET, island.state.parent], capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == [str(island.state / "secrets/KEY")]
    assert (island.state / "secrets/KEY").stat().st_mode & 0o777 == 0o600
    later = island.request(
        "POST", "/api/v1/names/setting", json={"args": ["TOKEN"]}, headers={"Prefer": "respond-async"}
    ).json()["id"]
    mine = island.request("GET", f"/api/v1/calls/{later}", headers={"Prefer": "wait=20"}).json()
    assert mine["result"]["results"] == [SECRET]  # its caller's; of the rest nobody sees it
    for path in (
        f"jails/{started['invocation']}/output",
        f"jails/{mine['attempts'][0]['id']}/output",
        "../calls",
        f"../calls/{later}",
    ):
        told = island.admin.get(path)
        assert told.status_code == 200, path
        assert SECRET not in told.text, path
    for command in (("calls",), ("output", mine["attempts"][0]["id"])):
        shown = island.command(*command)
        assert (shown.returncode, SECRET in shown.stdout) == (0, False), command
    assert SECRET not in repr(island.log)


@pytest.mark.case("S2")
def test_s2_another_name_and_a_plain_call_have_no_secret_of_it(island: Daemon) -> None:
    assert call(island, "other", "TOKEN")["results"] == [""]
    assert island.call("web", 'Setting("TOKEN")').json()["results"] == [""]
    refused = island.call("web", "Setting", args=["TOKEN"], env={"TOKEN": "KEY"})
    assert refused.json()["details"]["field"] == "env"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended
        return b""
