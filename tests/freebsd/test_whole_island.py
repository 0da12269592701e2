"""The whole island on a real FreeBSD (`make test-freebsd`): addresses of both kinds, many calls, sudden ends.

What it does as on Linux is in the modules that are marked `anywhere`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.daemon import Daemon, host_objects, tag

SUBNET = "10.213.97"
CALLS = int(os.environ.get("SKYISLAND_TEST_CALLS", "50"))
"""How many calls must leave nothing behind."""


@pytest.fixture(scope="module", params=["alias", "vnet"])
def networked(request: pytest.FixtureRequest, make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """Addresses as aliases of the host's loopback, or network stacks of their own on a bridge."""
    ip4 = {
        "interface": "lo0",
        "cidr": f"{SUBNET}.0/29",
        "bridge": "skytest0",
        "vnet": request.param == "vnet",
    }
    with make_daemon(network={"ip4": ip4}, jails={"exec_timeout": "60s"}) as running:
        yield running


def objects(daemon: Daemon) -> list[str]:
    """What the daemon has on the host, without what it keeps for its next jails."""
    kept = ("zfs", "ps")
    return [line for line in host_objects(daemon.state, tag(daemon.state)) if not line.startswith(kept)]


def test_a_function_has_its_address(networked: Daemon) -> None:
    answer = networked.call("netkit", "Addresses()", ip4=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"].startswith(f"{SUBNET}.2/"), answer.text
    networked.wait_for(event="AddressReleased", ip=f"{SUBNET}.2")
    assert set(networked.admin.get("/ips").json().values()) == {None}


def test_first_calls_with_addresses_come_together(networked: Daemon) -> None:
    networked.call("netkit", "Addresses()")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: networked.call("netkit", "Addresses()", ip4=True), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8, [answer.text for answer in answers]


def test_many_calls_leave_nothing(networked: Daemon) -> None:
    def calls(number: int) -> None:
        for count in range(number):
            answer = networked.call("textkit", f'Number("{count}")', ip4=True)
            assert answer.json()["data"] == f"{count} <nil>", answer.text
        networked.quiet()

    calls(2)
    before = objects(networked)
    calls(CALLS)
    assert objects(networked) == before


def test_a_sudden_end_leaves_nothing(networked: Daemon) -> None:
    def sleeping() -> dict[str, Any]:
        started = networked.wait_for(event="InvocationStarted", call="Sleep(50000000000)")
        return networked.jail_of(started["invocation"])

    with ThreadPoolExecutor() as pool:
        pool.submit(networked.call, "trouble", "Sleep(50000000000)", ip4=True)
        jail = sleeping()
        networked.kill()
    assert networked.process is not None
    assert networked.process.returncode == -signal.SIGKILL
    assert any(jail["name"] in line for line in objects(networked)), "there was a jail to take back"
    networked.start()
    assert networked.wait_for(event="IslandStarted")["swept"] >= 1
    assert not any(jail["name"] in line for line in objects(networked))
    assert networked.call("netkit", "Addresses()", ip4=True).status_code == 200
