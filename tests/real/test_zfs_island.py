"""Whole calls on clones of a real pool: a Git repository, a build, an answer over REST, limits, an address.

Collected where TEST_ZPOOL names a pool and the kernel has all that jails need (`make test-zfs-qemu`).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from skyisland.drivers.linux.base import LinuxBase
from tests.support.daemon import BRIDGE, Daemon, tag
from tests.support.islands import Serve

pytestmark = [pytest.mark.zfs, pytest.mark.host, pytest.mark.root]

POOL = os.environ.get("TEST_ZPOOL", "")
SUBNET = "10.213.96"


def root_of(daemon: Daemon) -> str:
    return f"{POOL}/sky-{tag(daemon.state)}"


def listed(daemon: Daemon, columns: str) -> list[str]:
    argv = ["zfs", "list", "-H", "-o", columns, "-r", root_of(daemon)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def datasets(daemon: Daemon) -> list[str]:
    """What the island has in the pool, below its own dataset."""
    return sorted(name.removeprefix(root_of(daemon)) for name in listed(daemon, "name"))


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces"])
def running(request: pytest.FixtureRequest, make_daemon: Serve) -> Iterator[Daemon]:
    made = make_daemon(
        jails={"driver": request.param, "exec_timeout": "300s", "build_timeout": "30m"},
        filesystem={"storage": "zfs", "zfs_dataset": POOL, "quota": "16m"},
        limits={"memory": "64m", "pids": 64},
        network={"ip4": {"bridge": BRIDGE, "cidr": f"{SUBNET}.0/29"}},
    )
    with made:
        yield made
    assert datasets(made) == ["", "/base", f"/base/{LinuxBase.generation}", "/run"]
    # The base stays for the island's next life. There is none, and its folder is about to be removed.
    for line in reversed(listed(made, "mounted,name")):
        mounted, name = line.split("\t")
        if mounted == "yes":
            subprocess.run(["zfs", "unmount", name], check=True)


def test_everything_is_enforced(running: Daemon) -> None:
    told = running.request("GET", "/api/v1/capabilities").json()["capabilities"]
    assert {one["name"] for one in told if not one["enforced"]} == {"nat"}


def test_a_call_is_built_and_answered(running: Daemon) -> None:
    answer = running.call("geohash", "Encode(100.1, 80.9)").json()
    assert (answer.get("data"), answer.get("cached")) == ("vzcxbzvxfxup", False), answer
    answer = running.call("geohash", "Encode(-1e1, 0x10)").json()
    assert (answer["data"], answer["cached"]) == ("kq5rh5dcg0bs", True)


def test_each_call_has_a_clone_of_its_own(running: Daemon) -> None:
    assert [running.call("trouble", "Remember()").json()["data"] for _ in range(3)] == ["false"] * 3


def test_too_much_memory(running: Daemon) -> None:
    answer = running.call("trouble", "Hog(256)")
    assert (answer.status_code, answer.json()["code"]) == (502, "out_of_memory")


def test_an_address(running: Daemon) -> None:
    answer = running.call("netkit", "Addresses()", ip4=True)
    assert answer.json()["data"] == f"{SUBNET}.2/29\n<nil>"
    running.wait_for(event="AddressReleased", ip=f"{SUBNET}.2")


def test_a_killed_island_leaves_nothing_to_the_next(running: Daemon) -> None:
    running.call("trouble", "Remember()")
    running.kill()
    assert any(name.startswith("/run/") for name in datasets(running)), "clones made ahead, at least"
    running.start()
    assert running.wait_for(event="IslandStarted")["swept"] > 0
    assert running.call("trouble", "Remember()").json()["data"] == "false"
