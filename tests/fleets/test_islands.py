"""Three real islands and a server of NATS, each in a network namespace of its own, 2 ms apart where the
kernel can do that: one build and one answer for all, calls that run where there is room, islands that are
lost, and one that is alone.

Takes a minute, so `make test-fleet` runs it and `make test` does not.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import httpx
import pytest

from tests.support.daemon import HOST, TOKEN, Daemon
from tests.support.fleets import NatsServer, newest_binary
from tests.support.islands import Serve

pytestmark = [pytest.mark.host, pytest.mark.root]

SECOND = 1_000_000_000
"""In Go's durations."""
SERVER = "10.79.0.9"
DELAY = "2ms"
"""Of each packet that leaves a namespace, as between houses of one city."""
ENCODE = {"url": f"{HOST}/geohash", "call": "Encode", "args": [1.5, 2.5]}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture(scope="module")
def spaces() -> Iterator[None]:
    """Namespaces `sky-t-…` on a bridge in one of their own."""
    names = {"a": 1, "b": 2, "c": 3, "nats": 9}
    with ExitStack() as stack:
        for name in ("lan", *names):
            ip("netns", "add", f"sky-t-{name}")
            stack.callback(subprocess.run, ["ip", "netns", "delete", f"sky-t-{name}"], check=False)
            ip("-n", f"sky-t-{name}", "link", "set", "lo", "up")
        ip("-n", "sky-t-lan", "link", "add", "sky0", "type", "bridge")
        ip("-n", "sky-t-lan", "link", "set", "sky0", "up")
        for name, number in names.items():
            space, port = f"sky-t-{name}", f"p{number}"
            ip(
                "link",
                "add",
                "eth0",
                "netns",
                space,
                "type",
                "veth",
                "peer",
                "name",
                port,
                "netns",
                "sky-t-lan",
            )
            ip("-n", space, "address", "add", f"10.79.0.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", "sky-t-lan", "link", "set", port, "master", "sky0", "up")
            delay = ["tc", "-n", space, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", DELAY]
            if subprocess.run(delay, check=False, capture_output=True).returncode:
                print(f"this kernel has no netem: {name} is as near as memory")
        yield


def inside(name: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/sky-t-{name}"]


class Island:
    """A daemon in a namespace; its API is a Unix socket, which is reached from every one."""

    def __init__(self, node: str, daemon: Daemon) -> None:
        self.node, self.daemon = node, daemon
        socket = daemon.folder / "api.sock"
        daemon.settings.write_text(f'listen = "unix:{socket}"\n' + daemon.settings.read_text())
        daemon.words[:0] = inside(node)
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://island", timeout=60
        )

    def admin(self, path: str) -> Any:
        return self.http.get(f"/api/v1/admin{path}", headers={"X-Sky-Island-Token": TOKEN}).json()

    def fleet(self) -> dict[str, Any]:
        status: dict[str, Any] = self.admin("/snapshot")["fleet"]
        return status

    def alive(self) -> set[str]:
        return {one["node"] for one in self.fleet()["members"] if not one["silent"]}

    def call(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post("/api/v1/function", json=body, headers=headers)

    def running(self) -> int:
        """Jails in which a call runs."""
        jails = self.admin("/jails")["jails"]
        return sum(jail["state"] == "running" and jail["purpose"] == "function" for jail in jails)

    def builds(self) -> int:
        """How many it has begun."""
        return sum(line.get("event") == "BuildStarted" for line in [*self.daemon.log])


class Fleet:
    def __init__(self, server: NatsServer, islands: dict[str, Island], threads: ThreadPoolExecutor) -> None:
        self.server, self.islands, self._threads = server, islands, threads
        self.a, self.b, self.c = (islands[node] for node in "abc")

    def sleep(self, at: Island, seconds: float, **headers: str) -> Future[httpx.Response]:
        """A call that takes so long."""
        body = {"url": f"{HOST}/trouble", "call": "Sleep", "args": [int(seconds * SECOND)]}
        return self._threads.submit(at.call, body, **headers)

    def start(self, work: Callable[[], Any]) -> Future[Any]:
        return self._threads.submit(work)

    def gathered(self) -> None:
        until(lambda: all(one.alive() == {"a", "b", "c"} for one in self.islands.values()))


def until(true: Callable[[], object], patience_s: float = 60) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def fleet(spaces: None, make_daemon: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("nats")
    server = NatsServer(newest_binary(), folder, port=4222, prefix=inside("nats"), host=SERVER)
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        islands = {}
        for number, node in enumerate("abc"):
            daemon = make_daemon(
                jails={
                    "max_running": 1,
                    "exec_timeout": "40s",
                    "queue_timeout": "10s",
                    "uid_start": 1_800_000_000 + 10_000 * number,
                },
                warm={"max_jails": 2},
                build={"compile_ahead": False},
                fleet={"name": "t", "node": node, "servers": [f"nats://{SERVER}:4222"]},
            )
            islands[node] = Island(node, daemon)
        for island in islands.values():
            stack.enter_context(island.daemon)
            stack.callback(island.http.close)
        made = Fleet(server, islands, stack.enter_context(ThreadPoolExecutor(16)))
        made.gathered()
        yield made


def test_one_build_and_one_answer_for_all(fleet: Fleet) -> None:
    """Three islands are asked for one function at the same moment."""
    calls = [fleet.start(lambda one=one: one.call(ENCODE)) for one in fleet.islands.values()]  # type: ignore[misc]
    answers = [call.result().json() for call in calls]
    assert len({(one["data"], one["version"]) for one in answers}) == 1
    assert sum(one.builds() for one in fleet.islands.values()) == 1
    fleet.sleep(fleet.a, 0.001).result()


def test_a_call_without_a_place_runs_elsewhere_at_about_the_same_cost(fleet: Fleet) -> None:
    for one in fleet.islands.values():
        one.call(ENCODE)
    long = fleet.sleep(fleet.a, 5)
    until(lambda: fleet.a.running() == 1)
    nodes, spent = [], []
    for _ in range(20):
        started = time.monotonic()
        answer = fleet.a.call(ENCODE).json()
        spent.append(time.monotonic() - started)
        nodes.append(answer["node"])
    assert set(nodes) <= {"b", "c"}
    print(f"forwarded: p50 {sorted(spent)[10] * 1000:.1f} ms")
    assert long.result().status_code == 200


def test_an_island_that_is_killed_with_a_call_is_named_within_two_seconds(fleet: Fleet) -> None:
    filling = fleet.sleep(fleet.a, 20)
    until(lambda: fleet.a.running() == 1)
    lost = fleet.sleep(fleet.a, 30)
    until(lambda: fleet.b.running() + fleet.c.running() == 1)
    doomed = fleet.b if fleet.b.running() else fleet.c
    doomed.daemon.kill()
    killed_at = time.monotonic()
    answer = lost.result()
    took_s = time.monotonic() - killed_at
    assert (answer.status_code, answer.json()["code"]) == (502, "node_lost")
    assert answer.json()["details"]["node"] == doomed.node
    assert took_s < 2.3, took_s  # two, and what this machine is late
    print(f"lost and told after {took_s:.2f} s")
    doomed.daemon.start()
    fleet.gathered()
    # The same with a key is run again.
    again = fleet.sleep(fleet.a, 3, **{"Idempotency-Key": f"k{killed_at}"})
    until(lambda: fleet.b.running() + fleet.c.running() == 1)
    doomed = fleet.b if fleet.b.running() else fleet.c
    doomed.daemon.kill()
    answer = again.result()
    assert (answer.status_code, answer.json()["node"]) == (200, ({"b", "c"} - {doomed.node}).pop())
    doomed.daemon.start()
    fleet.gathered()
    filling.result()


def test_a_caller_who_hangs_up_has_the_jail_killed_elsewhere(fleet: Fleet) -> None:
    filling = fleet.sleep(fleet.a, 4)
    until(lambda: fleet.a.running() == 1)
    body = {"url": f"{HOST}/trouble", "call": "Sleep", "args": [60 * SECOND]}
    with pytest.raises(httpx.ReadTimeout):
        fleet.a.http.post("/api/v1/function", json=body, timeout=1.0)
    until(lambda: fleet.b.running() + fleet.c.running() == 0, 3)
    filling.result()


def test_a_build_is_taken_over_within_three_seconds_of_its_builders_death(fleet: Fleet) -> None:
    body = {"url": f"{HOST}/textkit", "call": "Join", "args": [["x", "y"], "-"]}
    before = {node: one.builds() for node, one in fleet.islands.items()}
    first = fleet.start(lambda: fleet.b.call(body))
    until(lambda: fleet.b.builds() > before["b"])
    second = fleet.start(lambda: fleet.c.call(body))
    fleet.b.daemon.kill()
    killed_at = time.monotonic()
    until(lambda: fleet.c.builds() > before["c"])
    took_s = time.monotonic() - killed_at
    assert second.result().json()["results"] == ["x-y"]
    with pytest.raises(httpx.HTTPError):
        first.result()
    print(f"taken over after {took_s:.2f} s")
    assert took_s < 3.5  # three, and what this machine is late
    fleet.b.daemon.start()
    fleet.gathered()


def test_an_island_whose_server_stops_goes_on_alone_and_joins_again(fleet: Fleet) -> None:
    for stop, go in ((SIGSTOP, SIGCONT), (SIGKILL, None)):
        if go is None:
            fleet.server.stop(stop)
        else:
            fleet.server.tell(stop)
        until(lambda: fleet.a.fleet()["state"] == "away")
        for one in fleet.islands.values():
            answer = one.call(ENCODE)
            assert (answer.status_code, answer.json().get("node")) == (200, None)
        # What nobody has compiled yet, an island compiles by itself.
        call = {"url": f"{HOST}/greeting", "call": f'Hello("{stop}") + "!"'}
        assert fleet.a.call(call).status_code == 200
        if go is None:
            fleet.server.start()
        else:
            fleet.server.tell(go)
        fleet.gathered()
