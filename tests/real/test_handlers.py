"""Handlers: the same requests are answered as by Go's own server, to the byte."""

from __future__ import annotations

import hmac
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support import gotool
from tests.support.daemon import HOST, PATIENCE_S, Daemon
from tests.support.islands import make_repository
from tests.support.places import ROOT

pytestmark = [pytest.mark.host, pytest.mark.root]

MAIN = """package main

import (
	"fmt"
	"net"
	"net/http"

	"examples.skyisland.test/web"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: web.Site}
	server.SetKeepAlivesEnabled(false)
	server.Serve(l)
}
"""
GO = "package pushed\n\n// Two is two.\nfunc Two() int { return %d }\n"
EXAMPLE = """package pushed

import "fmt"

func ExampleTwo() {
	fmt.Println(Two())
	// Output: 2
}
"""
REQUESTS = [
    b"GET /echo HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET /echo?a=1&b=%20%2F&a=2 HTTP/1.1\r\nHost: a.example:8080\r\nX-1: 1\r\nx-1: 2\r\nX_U: u\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: text/x\r\n\r\n\x00\xffabc",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nAuthorization: Basic YT\r\nCookie: c\r\n\r\nabc",
    b"PURGE /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /moved HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /unread HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /items/a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /items/%C3%A4 HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /sum HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //echo HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /echo/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n" + bytes(400000),
    b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
]
FORWARDED = (
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Prefix: /fn/site\r\n"
)


@pytest.fixture(scope="module")
def native(host_dir: Path) -> Iterator[int]:
    """The port of a server of net/http's with the same handler."""
    folder = host_dir / "native"
    folder.mkdir()
    (folder / "main.go").write_text(MAIN)
    web = ROOT / "examples/web"
    (folder / "go.mod").write_text(
        f"module native\n\ngo 1.24\n\nrequire {HOST}/web v0.0.0\n\nreplace {HOST}/web => {web}\n"
    )
    built = gotool.run("build", "-o", folder / "native", ".", cwd=folder)
    assert built.returncode == 0, built.stderr
    with subprocess.Popen([folder / "native"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


@pytest.fixture(scope="module")
def island(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """With names for the handlers of the example."""
    with make_daemon(jails={"exec_timeout": "10s"}) as running:
        running.admin.put("../secrets/KEY", json={"value": "welcome "})
        for name, handler, more in (
            ("site", "Site", {}),
            ("greet", "Greet", {}),
            ("made", "New", {"secrets": {"GREETING": "KEY"}}),
        ):
            made = running.admin.put(
                f"../names/{name}", json={"url": f"{HOST}/web", "handler": handler} | more
            )
            assert made.status_code == 200, made.text
        yield running


def exchange(port: int, request: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers but those of the server alone, body."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        sock.sendall(request)
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    told = [
        name.lower() + b": " + value for name, _, value in (header.partition(b": ") for header in headers)
    ]
    if b"transfer-encoding: chunked" in told:
        body = unchunked(body)
    ours = (b"date", b"x-call-id", b"connection", b"transfer-encoding")
    status = b" ".join(status.split(b" ")[1:2])
    return status, sorted(header for header in told if not header.startswith(ours)), body


def shown(answer: tuple[bytes, list[bytes], bytes]) -> str:
    status, headers, body = answer
    return f"{status!r} {headers} {body[:900]!r}"


def unchunked(body: bytes) -> bytes:
    whole, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return whole


def test_requests_are_answered_as_by_net_http(island: Daemon, native: int) -> None:
    different = []
    for request in REQUESTS:
        line, _, rest = request.partition(b"\r\n")
        host = re.search(rb"Host: (.*)\r\n", request)
        assert host is not None
        close = b"Connection: close\r\n"
        ours = exchange(island.port, line.replace(b" /", b" /fn/site/", 1) + b"\r\n" + close + rest)
        theirs = exchange(native, line + b"\r\n" + FORWARDED % host[1] + rest)
        if ours != theirs:
            different.append(f"{line!r}\n  island {shown(ours)}\n  native {shown(theirs)}")
    assert different == [], "\n".join(different)


def test_what_a_handler_is_and_what_becomes_of_it(island: Daemon) -> None:
    asked = island.request("GET", "/fn/greet?name=you")
    assert (asked.status_code, asked.text) == (200, "Hello, you!\n")
    assert island.request("GET", "/fn/made/x").text == "welcome /x"
    panicked = island.request("GET", "/fn/site/panic")
    assert (panicked.status_code, panicked.json()["code"]) == (502, "exited")
    for path, status in (("/fn/none", 404), ("/fn/", 404), ("/fn", 404)):
        assert island.request("GET", path).status_code == status
    refused = island.request("POST", "/api/v1/names/site")
    assert "/fn/site" in refused.json()["error"]
    wrong = island.admin.put("../names/wrong", json={"url": f"{HOST}/web", "handler": "Setting"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "bad_call")
    assert "func(string) string is no handler" in wrong.json()["error"]


def test_an_answer_comes_as_it_is_made_and_who_hangs_up_ends_it(island: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", island.port), timeout=PATIENCE_S) as sock:
        sock.sendall(b"GET /fn/site/slow?pause=9s HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while b"piece 0" not in answer:
            answer += sock.recv(1 << 16)
    assert b"piece 1" not in answer
    island.wait_for(event="InvocationFinished", verdict="cancelled")


def test_who_has_the_whole_answer_may_leave_before_the_handler_ends(island: Daemon) -> None:
    answer = island.request("GET", "/fn/site/after?pause=400ms", headers={"Connection": "close"})
    assert answer.text == "ok\n"
    island.wait_for(event="InvocationFinished", invocation=answer.headers["x-call-id"], verdict="ok")


def test_who_has_the_whole_answer_gets_it_again_while_the_handler_runs(island: Daemon) -> None:
    headers = {"Connection": "close", "Idempotency-Key": "key-1"}
    told = [island.request("POST", "/fn/site/after?pause=400ms", headers=headers) for _ in range(3)]
    assert [(one.status_code, one.text) for one in told] == [(200, "ok\n")] * 3
    assert [one.headers.get("idempotent-replayed") for one in told] == [None, "true", "true"]
    assert len({one.headers["x-call-id"] for one in told}) == 1


def test_examples_are_run_before_a_name_moves(island: Daemon) -> None:
    """Beside the handlers, for they share the island."""
    made = island.admin.put(
        "../names/encode", json={"url": f"{HOST}/geohash", "function": "Encode", "verify": True}
    )
    assert (made.status_code, made.json()["verified"]) == (200, 1), made.text
    none = island.admin.put(
        "../names/none", json={"url": f"{HOST}/web", "function": "Setting", "verify": True}
    )
    assert (none.status_code, none.json()["code"]) == (422, "build_failed"), none.text
    assert "no Example" in none.json()["error"]


def test_a_push_moves_a_name_once_its_examples_pass(island: Daemon, repositories: Path) -> None:
    place = repositories / "pushed"

    def write(result: int) -> str:
        files = {"go.mod": f"module {HOST}/pushed\n", "a.go": GO % result, "a_test.go": EXAMPLE}
        return make_repository(place, files)

    def push(commit: str) -> Any:
        body = msgspec.json.encode(
            {
                "ref": "refs/heads/main",
                "after": commit,
                "repository": {"clone_url": f"https://{HOST}/pushed.git"},
            }
        )
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": commit,
            "X-Hub-Signature-256": "sha256=" + hmac.new(b"hushed", body, "sha256").hexdigest(),
        }
        told = island.request("POST", "/api/v1/names/pushed/push", content=body, headers=headers)
        assert told.status_code == 200, told.text
        return told.json()["push"]

    def become(commit: str, state: str) -> Any:
        island.wait_for(message=f"pushed: push {commit} of refs/heads/main: {state}")
        return island.admin.get("../names/pushed").json()

    first = write(2)
    island.admin.put("../secrets/HOOK", json={"value": "hushed"})
    definition = {"url": f"{HOST}/pushed", "function": "Two", "version": "main", "verify": True}
    definition |= {"push": {"scheme": "github", "secret": "HOOK"}}
    made = island.admin.put("../names/pushed", json=definition)
    assert made.json()["commit"] == first, made.text
    plain = {"url": f"{HOST}/pushed", "version": "main", "call": "Two()"}
    assert island.request("POST", "/api/v1/function", json=plain).json()["results"] == [2]
    wrong = write(3)
    assert push(wrong)["state"] == "taken"  # its Example says 2
    stays = become(wrong, "stayed")
    assert (stays["commit"], "ExampleTwo" in stays["pushed"]["why"]) == (first, True)
    # For plain calls the hours are over in which the commit was trusted.
    assert island.request("POST", "/api/v1/function", json=plain).json()["results"] == [3]
    mended = write(2)
    push(mended)
    moved = become(mended, "moved")
    assert (moved["commit"], moved["why"], moved["verified"]) == (mended, "pushed", 1)
    assert push(mended)["again"]
