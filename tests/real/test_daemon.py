"""The life of `skyisland serve`: many calls, orderly ends and sudden ones, other users, other settings."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.daemon import HOST, TOKEN, Daemon, cgroups, family, free_port, host_objects, processes, tag
from tests.support.islands import make_repository

pytestmark = [pytest.mark.host, pytest.mark.root]

Make = Callable[..., Daemon]

CALLS = int(os.environ.get("SKYISLAND_TEST_CALLS", "300"))
"""How many calls must leave nothing behind."""
SPARE_GROUPS = 16
"""So many empty cgroups an island keeps for its next jails."""


# Many calls


def test_many_at_once_want_one_new_function(daemon: Make) -> None:
    running = daemon().start()
    with ThreadPoolExecutor(200) as pool:
        calls = [pool.submit(running.call, "textkit", f'Number("{number}")') for number in range(200)]
        answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200] * 200
    assert [answer.json()["data"] for answer in answers] == [f"{number} <nil>" for number in range(200)]
    told = [line["event"] for line in running.log if "event" in line]
    assert told.count("SourceFetched") == 1
    assert told.count("BuildStarted") == 1
    assert len({answer.json()["jail"] for answer in answers}) == 200


def test_many_one_after_another_leave_nothing(daemon: Make) -> None:
    running = daemon().start()

    def made() -> Counter[str]:
        """All that the daemon has on the host while it has no jail, its cgroups aside."""
        running.quiet()
        island = tag(running.state)
        found = running.descriptors() + Counter(processes(running.state, island) + running.temporary())
        found.update(one for one in host_objects(running.state, island) if not one.startswith("cgroup"))
        found.update(f"{ip} leased" for ip, jail in running.admin.get("/ips").json().items() if jail)
        found["mount"] = len(Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines())
        # On version 1 each group that is kept for the next jail has one.
        assert found.pop("anon_inode:[eventfd]") <= SPARE_GROUPS + 2
        return found

    def answers(calls: int) -> None:
        for number in range(calls):
            answer = running.call("textkit", f'Number("{number}")')
            assert answer.json()["data"] == f"{number} <nil>", answer.text

    answers(20)
    before = made()
    answers(CALLS)
    until = time.monotonic() + 10.0
    while (more := made() - before) and time.monotonic() < until:
        pass  # the last connection is closing
    assert not more
    groups = {path.name for path in cgroups(tag(running.state))} - {f"sky-{tag(running.state)}"}
    assert len(groups) <= SPARE_GROUPS


def test_too_many_at_once_are_told_to_come_back(daemon: Make) -> None:
    running = daemon(jails={"max_running": 1, "max_queued": 0}).start()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(running.call, "trouble", "Sleep(2000000000)")
        started = running.wait_for(event="InvocationStarted", call="Sleep(2000000000)")
        running.jail_of(started["invocation"])
        refused = running.call("trouble", "Sleep(1)")
        assert call.result().json()["data"] == "slept 2s"
    assert (refused.status_code, refused.json()["code"]) == (429, "too_busy")
    assert refused.headers["Retry-After"] == "1"


# Sudden ends


@pytest.fixture(scope="module")
def stalling() -> Iterator[tuple[str, threading.Event]]:
    """The URL of a server that takes connections and never says a word, and whether it has one."""
    listening = socket.create_server(("127.0.0.1", 0))
    called, connections = threading.Event(), []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connections.append(listening.accept()[0])
                called.set()

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/", called
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    for connection in connections:
        connection.close()


@pytest.fixture(scope="module")
def slow_to_build(repositories: Path) -> str:
    """A repository that a compiler is busy with for some seconds."""
    body = "".join(f"\tcase {n}: return fmt.Sprint(x, {n})\n" for n in range(300))
    functions = "".join(
        f'func f{number}(x int) string {{ switch x {{\n{body}\t}}; return "" }}\n' for number in range(8)
    )
    code = f'package slow\n\nimport "fmt"\n\nfunc F(x int) string {{ return f0(x) }}\n\n{functions}'
    make_repository(repositories / "slow", {"go.mod": "module slow\n\ngo 1.24\n", "slow.go": code})
    return "slow"


@pytest.fixture(scope="module")
def victim(make_daemon: Make, stalling: tuple[str, threading.Event]) -> Iterator[Daemon]:
    """A daemon that is killed again and again. It has built one function."""
    url, _ = stalling
    with make_daemon(git={"rewrite": {"https://github.com/": url}}, jails={"exec_timeout": "60s"}) as running:
        assert running.call("geohash", "Encode(100.1, 80.9)").json()["cached"] is False
        yield running


@contextlib.contextmanager
def sudden_end(victim: Daemon) -> Iterator[ThreadPoolExecutor]:
    """Have the daemon killed in the block, whose calls nobody will answer. Its next life sweeps everything,
    and answers from the cache what was built."""
    with ThreadPoolExecutor() as pool:
        yield pool
    assert victim.process is not None
    assert victim.process.returncode == -signal.SIGKILL
    victim.start()
    assert victim.survivors() == []
    alive = {pid for pid, _ in family(victim.pid)}
    assert processes(victim.state, tag(victim.state), but=alive) == []
    assert [
        one for one in victim.temporary() if not re.fullmatch(r"run/sky-[0-9a-f]{4}-root(\.dev)?", one)
    ] == []
    again = victim.call("geohash", "Encode(100.1, 80.9)").json()
    assert again["cached"] is True
    assert again["data"] == "vzcxbzvxfxup"


def test_kill_while_cloning(victim: Daemon, stalling: tuple[str, threading.Event]) -> None:
    _, called = stalling
    with sudden_end(victim) as pool:
        # A full commit needs no question to the remote: what stalls is the fetch.
        pool.submit(victim.post, url="github.com/user/repo", call="F()", version="a" * 40)
        assert called.wait(30)
        victim.kill()
        assert [one for one in victim.survivors() if "git" in one], "Git was at work"
        assert [name for name in victim.temporary() if name.startswith("repos/sky-")] != []


def test_kill_while_building(victim: Daemon, slow_to_build: str) -> None:
    with sudden_end(victim) as pool:
        pool.submit(victim.call, slow_to_build, "F(1)")
        victim.wait_for(event="JailCreated", purpose="build", call="F(1)")
        victim.kill()
        assert [name for name in victim.temporary() if "sky-build-" in name] != []
    assert victim.call(slow_to_build, "F(1)").json()["data"] == "1 1"


def test_kill_while_running(victim: Daemon) -> None:
    with sudden_end(victim) as pool:
        pool.submit(victim.call, "trouble", "Sleep(60000000000)")
        started = victim.wait_for(event="InvocationStarted", call="Sleep(60000000000)")
        victim.jail_of(started["invocation"])
        victim.kill()
        assert cgroups(tag(victim.state)) != []


def test_kill_while_taking_back(victim: Daemon) -> None:
    stubborn = subprocess.Popen(["sleep", "60"])
    try:
        with sudden_end(victim) as pool:
            call = pool.submit(victim.call, "trouble", "Sleep(2000000000)")
            started = victim.wait_for(event="InvocationStarted", call="Sleep(2000000000)")
            jail = victim.jail_of(started["invocation"])
            # The jail dies and its group is kept for another, which it cannot serve with a process in it.
            for group in cgroups(tag(victim.state)):
                if str(jail["pid"]) in (group / "cgroup.procs").read_text().split():
                    (group / "cgroup.procs").write_text(str(stubborn.pid))
            assert call.result().json()["data"] == "slept 2s"
            victim.kill()
            assert stubborn.poll() is None
        assert stubborn.wait(10) == -signal.SIGKILL
    finally:
        stubborn.kill()
        stubborn.wait()


# Orderly ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_drains(daemon: Make, number: int) -> None:
    running = daemon().start()
    running.call("geohash", "Encode(1.0, 1.0)")
    with ThreadPoolExecutor() as pool:
        call = pool.submit(running.call, "trouble", "Sleep(1500000000)")
        started = running.wait_for(event="InvocationStarted", call="Sleep(1500000000)")
        running.jail_of(started["invocation"])
        running.signal(number)
        while (late := running.call("geohash", "Encode(1.0, 1.0)")).status_code == 200:
            pass  # the signal is on its way
        answer = call.result()
    assert (late.status_code, late.json()["code"]) == (503, "draining")
    assert late.headers["Retry-After"] == "5"
    assert answer.status_code == 200
    assert answer.json()["data"] == "slept 1.5s"
    assert running.wait() == 0
    assert running.said == ""
    assert running.leftovers() == []


def test_signals_that_come_again_leave_nothing(daemon: Make) -> None:
    running = daemon(jails={"exec_timeout": "1m"}).start()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(running.call, "trouble", "Sleep(1500000000)")
        running.jail_of(running.wait_for(event="InvocationStarted", call="Sleep(1500000000)")["invocation"])
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            running.signal(number)
            time.sleep(0.02)  # at this distance the second one ended the daemon
        assert call.result().json()["data"] == "slept 1.5s"
    assert running.wait() == 0
    assert running.leftovers() == []


def test_a_second_interrupt_ends_the_calls_and_leaves_nothing(daemon: Make) -> None:
    running = daemon(jails={"exec_timeout": "1m", "drain_timeout": "1m"}).start()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(running.call, "trouble", "Sleep(50000000000)")
        running.jail_of(running.wait_for(event="InvocationStarted", call="Sleep(50000000000)")["invocation"])
        running.signal(signal.SIGINT)
        while running.call("geohash", "Encode(1.0, 1.0)").status_code == 200:
            pass  # the signal is on its way
        running.signal(signal.SIGINT)
        assert call.result().json()["code"] == "killed"
    assert running.wait() == 0
    assert running.leftovers() == []


def test_hangup_reads_the_settings_again(daemon: Make) -> None:
    running = daemon().start()
    before = running.settings.read_text()
    after = before.replace('level = "debug"', 'level = "warning"') + "\n[warm]\nmax_jails = 3\n"
    running.settings.write_text(after)
    running.signal(signal.SIGHUP)
    text = "SIGHUP: settings read again; in force: log.level"
    running.wait_for(level="WARNING", message=text)
    running.wait_for(message="SIGHUP: a restart is needed for: warm.max_jails")
    running.settings.write_text("nonsense = 1\n")
    running.signal(signal.SIGHUP)
    complaint = running.wait_for(level="ERROR", logger="skyisland.cli.reloading")
    assert "everything stays as it is" in complaint["message"]
    running.settings.write_text(before)
    assert running.call("geohash", "Encode(1.0, 1.0)").status_code == 200
    assert running.stop() == 0
    assert running.leftovers() == []


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors_harm_nobody(daemon: Make, closed: str) -> None:
    made = daemon()
    script = f'exec {closed}; exec "$@"'
    words = ["sh", "-c", script, "sh", *made.words, "serve", "--no-tui"]
    process = subprocess.Popen(
        words, env=made.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while True:
        assert time.monotonic() < until
        assert process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", made.port), timeout=1):
            break
    assert made.call("geohash", "Encode(1.0, 1.0)").json()["exit_code"] == 0
    process.terminate()
    assert process.wait(60) == 0
    assert made.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_starting(daemon: Make, number: int) -> None:
    starting = daemon(share=False)
    (helper,) = starting.state.glob("gocache/*/helper/gocache")
    helper.unlink()  # so it has to be compiled
    starting.start(until="JailCreated")
    starting.signal(number)
    assert starting.wait() == 0, starting.said
    assert "IslandStarted" not in {line.get("event") for line in starting.log}
    assert starting.leftovers() == []


def test_stop_waits_no_longer_than_it_may(daemon: Make) -> None:
    running = daemon(jails={"exec_timeout": "1m", "drain_timeout": "500ms"}).start()
    with ThreadPoolExecutor() as pool:
        call = pool.submit(running.call, "trouble", "Sleep(60000000000)")
        started = running.wait_for(event="InvocationStarted", call="Sleep(60000000000)")
        running.jail_of(started["invocation"])
        stopping = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - stopping < 10.0
        answer = call.result()
    assert (answer.status_code, answer.json()["code"]) == (502, "killed")
    assert running.leftovers() == []


# Others on the same host


def test_second_island_on_a_state_folder_is_refused(serving: Daemon) -> None:
    other = serving.folder / "other.toml"
    other.write_text(
        serving.settings.read_text().replace(f"http_port = {serving.port}", f"http_port = {free_port()}")
    )
    refused = serving.command("-c", str(other), "serve", "--no-tui")
    assert refused.returncode == 1
    assert f"another island runs on {serving.state}" in refused.stderr
    assert serving.call("geohash", "Encode(1.0, 1.0)").status_code == 200


def test_the_log_says_where_it_listens(serving: Daemon) -> None:
    serving.wait_for(level="INFO", message=f"listening on http://127.0.0.1:{serving.port}")


def test_port_that_is_taken_is_told(serving: Daemon) -> None:
    other = serving.folder / "other.toml"
    other.write_text(f'http_port = {serving.port}\nstate_dir = "{serving.folder / "other"}"\n')
    refused = serving.command("-c", str(other), "serve", "--no-tui")
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {serving.port}" in refused.stderr


# Settings and users


ORIGINAL = {
    "release": "11.1-RELEASE",
    "admin_api_token": TOKEN,
    "admin_token_header": "X-Sky-Island-Token",
    "go_version": "1.9.2",
    "base_sys_pkg_dir": "/tmp/11.1-RELEASE",
    "filesystem": {"zfs_dataset": "zroot", "compression": False},
    "network": {
        "ip4": {
            "interface": "em0",
            "start_addr": "192.168.0.20",
            "mask": "255.255.255.0",
            "range": 220,
            "gateway": "192.168.0.1",
            "dns": ["4.2.2.1", "4.2.2.2"],
        }
    },
    "jails": {
        "cache_default_expiration": "8h",
        "cache_purge_after": "24h",
        "children_max": 0,
        "monitoring_addr": "127.0.0.1",
        "build_timeout": "10s",
        "exec_timeout": "5s",
    },
}
"""The example of the original, beside what `Daemon` sets: port, folders, where repositories are."""


def test_settings_and_commands_of_the_original(daemon: Make) -> None:
    original = daemon(file="config.json", arguments=(), **ORIGINAL)
    assert set(json.loads(original.settings.read_text())) > set(ORIGINAL)
    prepared = original.command("-i")
    assert prepared.returncode == 0, prepared.stderr
    original.start()
    assert original.call("geohash", "Encode(100.1, 80.9)").json()["data"] == "vzcxbzvxfxup"
    pool = list(original.admin.get("/ips").json())
    assert (pool[0], pool[-1], len(pool)) == ("192.168.0.20", "192.168.0.220", 201)


def test_ordinary_user(daemon: Make, host_dir: Path) -> None:
    uid = 1_234_567
    running = daemon(uid=uid, state_dir=None)
    xdg = running.folder / "xdg"
    xdg.mkdir()
    running.state.rename(xdg / "skyisland")
    os.chown(xdg, uid, uid)
    running.state = xdg / "skyisland"
    running.environment |= {"XDG_STATE_HOME": str(xdg), "HOME": "/nonexistent"}
    running.start()
    assert Path(f"/proc/{running.pid}").stat().st_uid == uid
    assert running.call("geohash", "Encode(100.1, 80.9)").json()["data"] == "vzcxbzvxfxup"
    assert running.call("trouble", "Exit(4)").json()["details"]["exit_code"] == 4
    refused = running.call("greeting", 'Hello("you")', ip4=True)
    assert (refused.status_code, refused.json()["code"]) == (503, "host_unfit")
    assert "no rights for networking" in refused.json()["error"]
    assert f"{HOST}/greeting" not in {one["url"] for one in running.admin.get("/cache").json()["artifacts"]}
    able = {one["name"]: one for one in running.request("GET", "/api/v1/capabilities").json()["capabilities"]}
    assert able["namespaces"]["enforced"]
    assert able["seccomp"]["enforced"]
    assert not able["network"]["enforced"]
    assert able["network"]["remedy"]
