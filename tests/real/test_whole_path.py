"""From a Git repository to an answer over REST: every example, every row of the API, every refusal.

One real daemon serves all of it. When it has stopped, nothing of it may be left on the host.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from skyisland.island import Island
from skyisland.model import FunctionRequest, Verdict
from tests.support.daemon import BRIDGE, HOST, PATIENCE_S, Daemon

pytestmark = [pytest.mark.host, pytest.mark.anywhere, pytest.mark.root]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at what Linux's jails have")

HASH = "vzcxbzvxfxup"
UNKNOWN = "0" * 40
OWN = """package own

import ("io"; "os")

func Read(prefix string) string { data, _ := io.ReadAll(os.Stdin); return prefix + string(data) }
"""


# The examples

ANSWERS = [
    pytest.param("geohash", "Encode(100.1, 80.9)", {}, HASH, id="pure function"),
    pytest.param("geohash", "geohash.Encode(100.1, 80.9)", {}, HASH, id="qualified"),
    pytest.param("geohash", "Encode(-1e1, 0x10)", {}, "kq5rh5dcg0bs", id="literals of other kinds"),
    pytest.param("textkit", 'Number("42")', {}, "42 <nil>", id="several results"),
    pytest.param(
        "textkit",
        'Number("x")',
        {},
        '0 textkit: strconv.Atoi: parsing "x": invalid syntax',
        id="error result",
    ),
    pytest.param("textkit", "Words()", {"stdin": "to be or not"}, "4", id="stdin"),
    pytest.param("textkit", 'Join([]string{"a", "b"}, "-")', {}, "a-b", id="expression"),
    pytest.param("textkit", 'New("ab").Repeat(3).Len()', {}, "6", id="method chain"),
    pytest.param("textkit", 'New("ab").Repeat(2)', {}, "abab", id="fmt.Print asks for String"),
    pytest.param("textkit", "Largest(3, 7, 5)", {}, "7", id="generic"),
    pytest.param("textkit", "Largest(2.5, 1)", {}, "2.5", id="generic, other type"),
    pytest.param("textkit", 'Print("a line")', {}, "a line\n", id="no results"),
    pytest.param("textkit/slug", 'Make("Sky Island, at last")', {}, "sky-island-at-last", id="subfolder"),
    pytest.param("greeting", 'Hello("you")', {}, "Hello, you!", id="no go.mod"),
    pytest.param("numerals", "Year(1984)", {}, "MCMLXXXIV", id="vendored dependency"),
    pytest.param("netkit", "Addresses()", {}, "<nil>", id="no address without ip4"),
    pytest.param("trouble", "Remember()", {}, "false", id="first mark"),
    pytest.param("trouble", "Remember()", {}, "false", id="no mark of the last call"),
    pytest.param("trouble", "Exit(0)", {}, "", id="exit code 0"),
]


@pytest.mark.parametrize(("package", "call", "more", "data"), ANSWERS)
def test_example_answers(serving: Daemon, package: str, call: str, more: dict[str, Any], data: str) -> None:
    answer = serving.call(package, call, **more)
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    assert reply["data"] == data
    assert reply["exit_code"] == 0
    assert reply["stderr"] == ""


MISFORTUNES = [
    pytest.param("Exit(7)", 502, "exited", {"exit_code": 7}, id="exit code"),
    pytest.param('Panic("too bad")', 502, "exited", {"exit_code": 2}, id="panic"),
    pytest.param("Signal(9)", 502, "signaled", {"signal": 9, "exit_code": None}, id="SIGKILL"),
    pytest.param("Signal(15)", 502, "signaled", {"signal": 15, "exit_code": None}, id="SIGTERM"),
    pytest.param("Hog(512)", 502, "out_of_memory", {}, id="out of memory"),
    pytest.param("Flood(2)", 502, "output_limit", {}, id="too much output"),
    pytest.param("Sleep(60000000000)", 504, "timed_out", {}, id="time-out"),
]


@pytest.mark.parametrize(("call", "status", "code", "fields"), MISFORTUNES)
def test_misfortune_of_a_function(
    serving: Daemon, call: str, status: int, code: str, fields: dict[str, Any]
) -> None:
    answer = serving.call("trouble", call)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["code"] == code
    assert problem["error"]
    assert problem["details"]["jail"].startswith("sky-")
    assert {name: problem["details"][name] for name in fields} == fields
    assert "exec;dur=" in answer.headers["Server-Timing"]


def test_panic_is_told_on_stderr(serving: Daemon) -> None:
    details = serving.call("trouble", 'Panic("too bad")').json()["details"]
    assert details["stderr"].startswith("panic: too bad\n")
    assert details["data"] == ""
    cause = serving.admin.get(f"/invocations/{details['id']}").json()["invocation"]["cause"]
    assert (cause["kind"], cause["text"]) == ("exited 2", "exited 2: panic: too bad")
    assert cause["stderr"].startswith("panic: too bad\n")
    assert "trouble.go:" in cause["error"]["trace"][0]
    called = {one["name"]: one for one in serving.admin.get("/functions").json()["functions"]}
    assert called["Panic"]["recent"]["reasons"]["exited 2"] >= 1
    page = serving.admin.get(f"/functions/{called['Panic']['id']}").json()
    assert page["recent"][0]["invocation"] == details["id"]
    assert page["artifacts"][0]["function"] == "Panic"


def test_a_package_that_does_not_compile_is_told_with_the_compilers_lines(serving: Daemon) -> None:
    assert serving.call("trouble", "Nope()").status_code == 422
    (end,) = serving.admin.get("/invocations?limit=1").json()["invocations"]
    assert end["cause"]["compiler"].endswith("call:1:1: undefined: Nope")
    assert serving.admin.get("/snapshot").json()["failed_builds"][0]["cause"] == end["cause"]


def test_output_up_to_its_limit_is_kept(serving: Daemon) -> None:
    details = serving.call("trouble", "Flood(2)").json()["details"]
    assert len(details["data"]) == 1 << 20
    assert details["data"].startswith("sky island\n")


def test_stray_child_delays_no_answer(serving: Daemon) -> None:
    answer = serving.call("trouble", "Stray()").json()
    assert answer["data"] == "started: <nil>"
    assert answer["timings_ms"]["exec"] < 2900, "it waited for the stray's time-out"


def test_phases_are_told_in_body_and_header(serving: Daemon) -> None:
    answer = serving.call("geohash", "EncodeWithPrecision(1.0, 2.0, 5)", cache_bust=True)
    timings = answer.json()["timings_ms"]
    assert list(timings) == ["queue", "resolve", "clone", "build", "jail", "exec", "total"]
    assert timings["build"] > 0
    assert sum(timings.values()) - timings["total"] <= timings["total"]
    header = dict(part.strip().split(";dur=") for part in answer.headers["Server-Timing"].split(","))
    assert {name: float(spent) for name, spent in header.items()} == pytest.approx(timings, abs=0.001)


def test_cache_is_used_until_it_is_busted(serving: Daemon) -> None:
    serving.call("geohash", "Encode(1.0, 1.0)")
    again = serving.call("geohash", "Encode(2.0, 2.0)").json()
    assert again["cached"] is True
    assert again["timings_ms"]["build"] == 0
    busted = serving.call("geohash", "Encode(2.0, 2.0)", cache_bust=True).json()
    assert busted["cached"] is False
    assert busted["timings_ms"]["build"] > 0
    assert busted["data"] == again["data"]


def test_version_is_a_branch_a_tag_or_a_commit(serving: Daemon) -> None:
    latest = serving.call("geohash", "Encode(1.0, 1.0)").json()["version"]
    assert len(latest) == 40
    for version in ("main", latest):
        assert serving.call("geohash", "Encode(1.0, 1.0)", version=version).json()["version"] == latest


@pytest.mark.parametrize(
    ("package", "call"),
    [("numerals", "Year(1984)"), ("textkit", "Largest(3, 7, 5)")],
    ids=["function", "expression"],
)
def test_what_a_receipt_tells_of_builds_to_the_same_bytes(
    serving: Daemon, tmp_path: Path, package: str, call: str
) -> None:
    body = {"url": f"{HOST}/{package}", "call": call}
    answer = serving.request("POST", "/api/v1/function", json=body, headers={"Prefer": "receipt"})
    receipt = serving.request("GET", f"/api/v1/receipts/{answer.json()['id']}")
    made = receipt.json()["receipt"]["made"]
    assert (made["commit"], made["repository"]) == (answer.json()["version"], f"{HOST}/{package}")
    assert made["go_mod_sha256"]
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt.content)
    checked = serving.command("receipt", "check", str(file))
    assert checked.returncode == 0, checked.stderr
    assert f"builds to the same binary: {made['binary_sha256']}" in checked.stdout


def test_folder_of_the_users_own_machine(serving: Daemon, tmp_path: Path) -> None:
    """As it lies there, without a commit; what is piped in is its standard input."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.go").write_text(OWN)
    done = subprocess.run(
        [*serving.words, "invoke", "./own", "Read", "--arg", "a"],
        env=serving.environment,
        cwd=tmp_path,
        input="b",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ab", "")
    assert os.listdir(serving.state / "published") == [".lock"]


def test_bytes_that_are_no_text_come_in_base64(serving: Daemon) -> None:
    reply = serving.call("textkit", r'New("\xff\x00ok")').json()
    assert base64.b64decode(reply["data_base64"]) == b"\xff\x00ok"
    reply = serving.call("textkit", "Words()", stdin_base64=base64.b64encode(b"a \xff b").decode()).json()
    assert reply["data"] == "3"


@linux
def test_function_has_an_unprivileged_place_of_its_own(serving: Daemon) -> None:
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(serving.call, "trouble", "Sleep(2000000000)") for _ in range(3)]
        uids = _uids_of_functions(serving, 3)
        assert all(call.result().json()["data"] == "slept 2s" for call in calls)
    assert len(uids) >= 3


def _uids_of_functions(serving: Daemon, number: int) -> set[int]:
    """The host uids of this many running jails, none of them root: a jail's first process begins as that,
    and is not for long."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        jails = serving.admin.get("/jails").json()["jails"]
        running = [jail for jail in jails if jail["state"] == "running"]
        uids = {Path(f"/proc/{jail['pid']}").stat().st_uid for jail in running}
        if len(running) >= number and 0 not in uids:
            return uids
    raise AssertionError("the jails never ran as users of their own")


async def test_same_path_in_process(island: Island) -> None:
    told = await island.invoke(FunctionRequest(url=f"{HOST}/geohash", call="Encode(100.1, 80.9)"))
    assert told.outcome.verdict is Verdict.ok
    assert told.outcome.stdout == HASH.encode()
    assert [artifact.function for artifact in island.status().artifacts] == ["Encode"]


# The rows of the API


@pytest.mark.parametrize("path", ["/healthcheck", "/api/v1/healthcheck"])
def test_health_is_open(serving: Daemon, path: str) -> None:
    answer = serving.request("GET", path)
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_capabilities_are_open(serving: Daemon) -> None:
    found = serving.request("GET", "/api/v1/capabilities").json()["capabilities"]
    names = {capability["name"] for capability in found}
    assert {"namespaces", "seccomp", "memory", "pids", "cpu", "copy_on_write", "network", "nat"} <= names
    assert all(capability["enforced"] or capability["how"] for capability in found)


def test_api_stats_have_the_fields_of_the_original(serving: Daemon) -> None:
    stats = serving.admin.get("/api-stats").json()
    assert stats["pid"] == serving.pid
    assert set(stats) >= {
        "pid",
        "uptime",
        "uptime_sec",
        "time",
        "unixtime",
        "status_code_count",
        "total_status_code_count",
        "count",
        "total_count",
        "total_response_time",
        "total_response_time_sec",
        "average_response_time",
        "average_response_time_sec",
    }


def test_jails_are_seen_and_killed(serving: Daemon) -> None:
    with ThreadPoolExecutor() as pool:
        call = pool.submit(serving.call, "trouble", "Sleep(2900000000)")
        started = serving.wait_for(event="InvocationStarted", call="Sleep(2900000000)")["invocation"]
        name = serving.jail_of(started)["name"]
        details = serving.admin.get(f"/jail/{name}").json()["details"]
        assert {"host", "ip4", "ip6", "jid", "name", "OSRelease", "path", "hostname"} <= set(details)
        assert details["hostname"] == details["name"] == name
        assert details["url"] == f"{HOST}/trouble"
        assert serving.admin.get(f"/jail/{details['jid']}").json()["details"]["name"] == name
        assert serving.admin.delete(f"/jail/{details['jid']}").json() == {"deleted": details["jid"]}
        answer = call.result()
    assert answer.status_code == 502
    assert answer.json()["code"] == "killed"


def test_all_jails_are_killed(serving: Daemon) -> None:
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(serving.call, "trouble", "Sleep(2800000000)") for _ in range(2)]
        for number in range(2):
            serving.wait_for(event="InvocationStarted", call="Sleep(2800000000)", times=number + 1)
        _uids_of_functions(serving, 2)
        deleted = serving.admin.delete("/jails").json()["deleted"]
        assert len(deleted) >= 2
        assert all(call.result().json()["code"] == "killed" for call in calls)


def test_hang_up_ends_the_jail(serving: Daemon) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"http://127.0.0.1:{serving.port}/api/v1/function",
            json={"url": f"{HOST}/trouble", "call": "Sleep(2700000000)"},
            timeout=0.5,
        )
    finished = serving.wait_for(event="InvocationFinished", call="Sleep(2700000000)")
    assert finished["verdict"] == "cancelled"
    assert finished["timings"]["total_s"] < 2.7


def test_addresses_are_seen_and_set(serving: Daemon) -> None:
    pool = serving.admin.get("/ips").json()
    ip = next(iter(pool))
    assert pool[ip] is None
    for path, key in (("/ips", "available"), ("/network/ips", "available")):
        assert ip in serving.admin.get(path, params={"state": "available"}).json()[key]
    taken = serving.admin.put("/ips", json={"ip": ip, "state": "unavailable"})
    assert taken.status_code == 200
    assert serving.admin.get("/ips", params={"state": "unavailable"}).json() == {"unavailable": [ip]}
    assert serving.admin.put("/network/ip", json={"ip": ip, "state": "available"}).status_code == 200
    assert serving.admin.get("/ips", params={"state": "unavailable"}).json() == {"unavailable": []}


def test_cache_is_seen_evicted_rebuilt_and_purged(serving: Daemon) -> None:
    assert serving.call("greeting", 'Hello("cache")').status_code == 200
    artifacts = serving.admin.get("/cache").json()["artifacts"]
    (key,) = [one["key"] for one in artifacts if one["url"] == f"{HOST}/greeting"]
    assert serving.admin.post(f"/cache/{key}/rebuild").json() == {"rebuilt": key}
    assert serving.admin.delete(f"/cache/{key}").json() == {"evicted": key}
    assert serving.admin.delete(f"/cache/{key}").json()["code"] == "artifact_not_found"
    assert serving.call("greeting", 'Hello("cache")').json()["cached"] is False
    assert key in serving.admin.post("/cache/purge").json()["evicted"]
    assert serving.admin.get("/cache").json() == {"artifacts": []}


def test_recent_invocations_are_told(serving: Daemon) -> None:
    answer = serving.call("greeting", 'Hello("history")').json()
    (latest,) = serving.admin.get("/invocations", params={"limit": 1}).json()["invocations"]
    assert latest["invocation"] == answer["id"]
    assert latest["verdict"] == "ok"


# Refusals


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    assert told["code"] == code
    assert told["error"]
    return told


@pytest.mark.parametrize(
    ("call", "position"),
    [
        ("Encode(1, 2); Exit(1)", 12),
        ("Encode(1, 2) // why", 13),
        ("encode(1, 2)", 0),
        ("Encode(1, 2", 6),
        ("Encode(func() { go Encode(1, 2) }())", 16),
    ],
)
def test_call_that_is_none(serving: Daemon, call: str, position: int) -> None:
    assert problem(serving.call("geohash", call), 400, "bad_call")["details"]["position"] == position


def test_arguments_that_do_not_fit(serving: Daemon) -> None:
    told = problem(serving.call("geohash", 'Encode("north", 1)'), 400, "bad_call")
    assert told["details"]["argument"] == 0
    assert "argument 1" in told["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"url": "a.test/b", "call": "F()", "colour": "red"}', "'colour'"),
        ('{"url": "a.test/b", "call": 1}', "'call'"),
        ("", "empty"),
        ("no JSON", "JSON"),
        ('["a"]', "object"),
    ],
)
def test_body_that_is_wrong(serving: Daemon, body: str, said: str) -> None:
    answer = serving.request("POST", "/api/v1/function", content=body)
    assert said in problem(answer, 400, "bad_request")["error"]


def test_version_that_is_not_there(serving: Daemon) -> None:
    for version in ("v9.9.9", UNKNOWN):
        told = problem(serving.call("geohash", "Encode(1, 2)", version=version), 400, "bad_request")
        assert told["details"]["field"] == "version"


@pytest.mark.parametrize(
    ("token", "status", "code"), [(None, 401, "unauthorized"), ("wrong", 403, "forbidden")]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api-stats"),
        ("GET", "jails"),
        ("DELETE", "jails"),
        ("DELETE", "jail/1"),
        ("PUT", "ips"),
        ("GET", "network/ips"),
        ("GET", "snapshot"),
        ("POST", "cache/purge"),
    ],
)
def test_admins_alone(
    serving: Daemon, method: str, path: str, token: str | None, status: int, code: str
) -> None:
    headers = {"X-Sky-Island-Token": token} if token else {}
    problem(serving.request(method, f"/api/v1/admin/{path}", headers=headers), status, code)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/geohash",
        "file:///etc",
        f"https://user:secret@{HOST}/geohash",
        "ext::sh -c id",
        "127.0.0.1/user/repo",
        "--upload-pack=id",
    ],
)
def test_source_that_is_refused(serving: Daemon, url: str) -> None:
    answer = serving.post(url=url, call="F()")
    assert answer.status_code in (400, 403), answer.text
    assert answer.json()["code"] in ("bad_request", "source_refused")


def test_scheme_that_is_not_allowed(serving: Daemon) -> None:
    told = problem(serving.post(url=f"http://{HOST}/geohash", call="F()"), 403, "source_refused")
    assert "allowed_schemes" in told["error"]


def test_what_is_not_there(serving: Daemon) -> None:
    problem(serving.request("GET", "/nowhere"), 404, "not_found")
    problem(serving.admin.get("/jail/999999"), 404, "jail_not_found")
    problem(serving.admin.delete("/jail/sky-ffff-1"), 404, "jail_not_found")
    problem(serving.admin.delete("/cache/none"), 404, "artifact_not_found")
    problem(
        serving.admin.put("/ips", json={"ip": "192.0.2.1", "state": "available"}), 404, "address_not_found"
    )


def test_method_that_does_nothing(serving: Daemon) -> None:
    answer = serving.request("GET", "/api/v1/function")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "OPTIONS, POST"


def test_body_that_is_too_long(serving: Daemon) -> None:
    body = json.dumps({"url": "a.test/b", "call": "F()", "stdin": "x" * (1 << 20)})
    problem(serving.request("POST", "/api/v1/function", content=body), 413, "too_large")


@pytest.mark.parametrize(
    ("package", "call", "error", "output"),
    [
        ("broken", "F()", "does not compile", "broken.go:3:23: undefined: x"),
        ("program", "F()", "package main", ""),
        ("empty", "F()", "no Go files", ""),
        ("geohash", "Decrypt(1)", "no exported Decrypt", "call:1:1: undefined: Decrypt"),
        ("textkit/nowhere", "F()", "no folder", ""),
        ("geohash", "Decode(Encode(1.0))", "does not fit", "not enough arguments"),
    ],
)
def test_what_does_not_compile(serving: Daemon, package: str, call: str, error: str, output: str) -> None:
    told = problem(serving.call(package, call), 422, "build_failed")
    assert error in told["error"]
    assert output in told["details"].get("output", "")
    assert "/src" not in json.dumps(told)


def test_state_that_no_address_has(serving: Daemon) -> None:
    ip = next(iter(serving.admin.get("/ips").json()))
    problem(serving.admin.put("/ips", json={"ip": ip, "state": "open"}), 422, "bad_state")
    problem(serving.admin.get("/ips", params={"state": "open"}), 422, "bad_state")


def test_repository_that_is_not_there(serving: Daemon) -> None:
    problem(serving.call("nothing", "F()"), 502, "source_unavailable")


# Addresses

SUBNET = "10.213.97"


@pytest.fixture(scope="module")
def networked(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose jails have addresses on a bridge of their own; a pool of five."""
    with make_daemon(network={"ip4": {"bridge": BRIDGE, "cidr": f"{SUBNET}.0/29"}}) as running:
        yield running


@linux
def test_function_has_the_lowest_address(networked: Daemon) -> None:
    answer = networked.call("netkit", "Addresses()", ip4=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == f"{SUBNET}.2/29\n<nil>"
    networked.wait_for(event="AddressReleased", ip=f"{SUBNET}.2")
    assert networked.admin.get("/ips").json() == {f"{SUBNET}.{last}": None for last in range(2, 7)}


@linux
def test_function_listens_on_its_address(networked: Daemon) -> None:
    """The other side is this host, at the address that its bridge has."""
    with ThreadPoolExecutor() as pool:
        call = pool.submit(networked.call, "netkit", "Greet(7000, 4000000000)", ip4=True)
        started = networked.wait_for(event="InvocationStarted", call="Greet(7000, 4000000000)")
        jail = networked.jail_of(started["invocation"])
        ip = jail["ip4"]
        assert networked.admin.get("/ips").json()[ip] == jail["name"]
        refused = networked.admin.put("/ips", json={"ip": ip, "state": "available"})
        assert problem(refused, 409, "address_in_use")["details"]["jail"] == jail["name"]
        assert _hear(ip, 7000) == b"hello from a jail\n"
        assert call.result().json()["data"] == f"{SUBNET}.1<nil>"


def _hear(ip: str, port: int) -> bytes:
    """What a server says that may not listen yet."""
    until = time.monotonic() + 4.0
    while True:
        try:
            with socket.create_connection((ip, port), timeout=4.0) as connection:
                return connection.recv(256)
        except ConnectionRefusedError:
            assert time.monotonic() < until


@linux
def test_empty_pool_is_told_before_anything_is_built(networked: Daemon) -> None:
    pool = networked.admin.get("/ips").json()
    for ip in pool:
        assert networked.admin.put("/ips", json={"ip": ip, "state": "unavailable"}).status_code == 200
    answer = networked.call("greeting", 'Hello("nobody")', ip4=True)
    problem(answer, 503, "no_address")
    assert int(answer.headers["Retry-After"]) >= 1
    assert f"{HOST}/greeting" not in {one["url"] for one in networked.admin.get("/cache").json()["artifacts"]}

    networked.stop()
    networked.start()
    assert networked.wait_for(event="IslandStarted")["swept"] == 0, "an orderly end leaves nothing"
    assert networked.admin.get("/ips", params={"state": "available"}).json() == {"available": []}
    for ip in pool:
        assert networked.admin.put("/ips", json={"ip": ip, "state": "available"}).status_code == 200


@linux
def test_addresses_come_back_however_a_jail_ends(networked: Daemon) -> None:
    for call in ("Exit(3)", 'Panic("x")', "Signal(9)", "Remember()"):
        networked.call("trouble", call, ip4=True)
    networked.quiet()
    assert set(networked.admin.get("/ips").json().values()) == {None}
