"""A real `skyisland serve --no-tui`, and what it leaves on the host.

The daemon's log says what it does, one JSON line per fact: tests wait for those lines instead of a clock.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import tomli_w

from skyisland.jails.driver import island_tag
from tests.support import freebsd_host

SKYISLAND = Path(sys.executable).with_name("skyisland")
HOST = "examples.skyisland.test"
BRIDGE = f"skyt{os.getpid() % 100000}"
"""How the bridge of these tests is called: others run beside them, each in a process of its own."""
TOKEN = "0123456789abcdef-host-tests"
PATIENCE_S = float(os.environ.get("TEST_PATIENCE_S", "60"))
"""A busy machine may take so long for anything, an emulated one longer; what takes longer has failed."""


class Daemon:
    """One life of an island on a state folder; a context manager, whose end is an orderly one."""

    def __init__(
        self,
        folder: Path,
        rewrite: dict[str, str],
        *,
        arguments: Sequence[str] = ("serve", "--no-tui"),
        file: str = "skyisland.toml",
        environment: dict[str, str] | None = None,
        uid: int | None = None,
        **settings: Any,
    ) -> None:
        """`folder`: where its settings and, in `state`, its state lie. `settings`: beside what tests need;
        None takes one out."""
        self.folder = folder
        self.state = folder / "state"
        self.port = free_port()
        self.settings = folder / file
        self.words = [*(as_user(uid) if uid is not None else ()), str(SKYISLAND), "-c", str(self.settings)]
        self.arguments = arguments
        self.environment = {**os.environ, "SKYISLAND_ADMIN_API_TOKEN": TOKEN, **(environment or {})}
        steps = {"log": {"level": "debug"}}  # tests wait for the steps of calls
        tables = {"http_port": self.port, "state_dir": str(self.state), **steps, **freebsd_host.settings()}
        tables |= settings
        tables["git"] = {"rewrite": rewrite, **settings.get("git", {})}
        tables = {name: value for name, value in tables.items() if value is not None}
        text = json.dumps(tables) if file.endswith(".json") else tomli_w.dumps(tables)
        self.settings.write_text(text)
        self.settings.chmod(0o644)
        self.log: list[dict[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._family: set[tuple[int, str]] = set()
        self._news = threading.Condition()
        self._readers: list[threading.Thread] = []
        self._said = b""
        # Connections are not kept, so that none of them counts among the daemon's open files.
        options: dict[str, Any] = {
            "timeout": PATIENCE_S,
            "limits": httpx.Limits(max_keepalive_connections=0),
        }
        url = f"http://127.0.0.1:{self.port}"
        self._client = httpx.Client(base_url=url, **options)
        headers = {"X-Sky-Island-Token": TOKEN}
        self.admin = httpx.Client(base_url=f"{url}/api/v1/admin", headers=headers, **options)

    # Life

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        try:
            if self.running:
                assert self.stop() == 0, self.said
                left = self.leftovers()
                assert left == [], left
        finally:
            self.kill()
            self._client.close()
            self.admin.close()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def said(self) -> str:
        """Its standard error."""
        return self._said.decode(errors="replace")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `skyisland` with this daemon's settings to its end."""
        return subprocess.run(
            [*self.words, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def start(self, *, until: str = "IslandStarted") -> Self:
        """Start it, and wait until its log says that it is up."""
        self.log.clear()
        self.process = process = subprocess.Popen(
            [*self.words, *self.arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
        )
        self._readers = [
            threading.Thread(target=self._follow, args=(process,)),
            threading.Thread(target=self._listen, args=(process,)),
        ]
        for reader in self._readers:
            reader.start()
        self.wait_for(event=until)
        return self

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self.log.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self._said = process.stderr.read()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and wait; returns its exit code."""
        if self.running:
            self.signal(number)
        return self.wait()

    def kill(self) -> int:
        """`kill -9`."""
        return self.stop(signal.SIGKILL)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self._family |= family(self.pid)
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        process = self.process
        if process is None:
            return 0
        code = process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        return code

    def wait_for(self, *, times: int = 1, **fields: Any) -> dict[str, Any]:
        """The line of log with these fields, the latest of so many."""

        def fits(line: dict[str, Any]) -> bool:
            return all(line.get(name) == value for name, value in fields.items())

        until = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                found = [line for line in self.log if fits(line)]
                if len(found) >= times:
                    return found[times - 1]
                reading = self._readers[0].is_alive()
                assert reading, f"the daemon ended before {fields}; it said: {self._complaint()}"
                left = until - time.monotonic()
                assert left > 0, f"never in the log: {fields}"
                self._news.wait(left)

    def _complaint(self) -> str:
        self._readers[1].join()
        return self.said

    # Calls

    def post(self, **body: Any) -> httpx.Response:
        """POST /api/v1/function, without a Content-Type as the original's clients do."""
        return self._client.post("/api/v1/function", content=json.dumps(body))

    def call(self, package: str, call: str, **body: Any) -> httpx.Response:
        """A call of a function of one of the test's repositories."""
        return self.post(url=f"{HOST}/{package}", call=call, **body)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._client.request(method, path, **more)

    def jail_of(self, invocation: str) -> dict[str, Any]:
        """The jail in which an invocation runs, once it does."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            for jail in self.admin.get("/jails").json()["jails"]:
                if (jail["invocation"], jail["state"], jail["purpose"]) == (
                    invocation,
                    "running",
                    "function",
                ):
                    found: dict[str, Any] = jail
                    return found
        raise AssertionError("the jail never ran")

    # The host

    def launchers(self) -> list[int]:
        """Its launcher of jails, by pid; none, or one that ends, while another is started."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        children = [int(pid) for task in tasks for pid in task.read_text().split()]
        return [pid for pid in children if "sky-launcher" in _words(pid)]

    def quiet(self) -> None:
        """Have it destroy its warm jails, and wait until no jail is left."""
        assert self.admin.post("/cache/purge").status_code == 200
        until = time.monotonic() + PATIENCE_S
        while jails := self.admin.get("/jails").json()["jails"]:
            assert time.monotonic() < until, jails

    def descriptors(self) -> Counter[str]:
        """How many open files it has, by what they are."""
        found = Counter[str]()
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found[re.sub(r":\[[0-9]+\]", "", os.readlink(fd))] += 1
        return found

    def temporary(self) -> list[str]:
        """Files and folders half-made, or for the life of a jail or build."""
        return sorted(
            str(path.relative_to(self.state))
            for folder in ("run", "repos", "checkouts", "artifacts", "base", "jails", ".")
            for path in (self.state / folder).glob("sky-*")
        )

    def survivors(self) -> list[str]:
        """Processes of its earlier lives."""
        alive = (pid for pid, since in self._family if since and _since(pid) == since)
        return [f"process {pid}: {_words(pid)}" for pid in alive]

    def leftovers(self) -> list[str]:
        """What is on the host of this island while none runs: there must be nothing."""
        island = tag(self.state)
        return [
            *self.survivors(),
            *processes(self.state, island),
            *host_objects(self.state, island),
            *self.temporary(),
        ]


def as_user(uid: int) -> list[str]:
    """What to put in front of a command that root starts as another user.

    Where our Python lies below a folder that is root's alone (/root), a mount namespace shows it nothing
    but the Python there.
    """
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    python = Path(sys.base_prefix)
    closed = [folder for folder in (python, *python.parents) if not folder.stat().st_mode & 0o001]
    if not closed:
        return user
    script = (
        'exec 3<"$1"; mount -t tmpfs -o mode=755 sky "$0"; mkdir -p "$1"; '
        'mount --no-canonicalize --bind /proc/self/fd/3 "$1"; exec 3<&-; shift; exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-ec", script, str(closed[-1]), str(python), *user]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tag(state: Path) -> str:
    """An island's tag, from its database."""
    with closing(sqlite3.connect(f"file:{state / 'island.db'}?mode=ro", uri=True)) as db:
        ((value,),) = db.execute("SELECT value FROM meta WHERE name = 'island'").fetchall()
    return str(value)


def family(pid: int) -> set[tuple[int, str]]:
    """All processes that descend from one, with the time of their start."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int(
                    Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1]
                )
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= more
    return {(child, _since(child)) for child in found}


def _words(pid: int) -> str:
    """A process's command line."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(bytes(1), b" ").decode(errors="replace")
    return ""


def _since(pid: int) -> str:
    """When a process started; nothing if there is none, or nobody but its parent would notice it."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""


def processes(state: Path, island: str, *, but: Collection[int] = ()) -> list[str]:
    """Processes that an island on a state folder started: by command line, environment or cgroup."""
    signs = (str(state).encode(), f"sky-{island}".encode())
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) in but:
            continue
        try:
            texts = [Path(entry.path, name).read_bytes() for name in ("cmdline", "environ", "cgroup")]
        except OSError:
            continue
        if any(sign in text for sign in signs for text in texts):
            found.append(f"process {entry.name}: {_words(int(entry.name))}")
    return found


def host_objects(state: Path, island: str) -> list[str]:
    """Cgroups, mounts and interfaces that bear the name of the island; on FreeBSD whatever else does."""
    if freebsd_host.POOL:
        return freebsd_host.host_objects(state, island)
    ports = f"sky{island_tag(island)}-"
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    # A generation of the base stays mounted for the next life.
    mounts = [line for line in mounts if not (" - zfs " in line and f" {state}/base/" in line)]
    return [
        *(f"cgroup {path}" for path in cgroups(island)),
        *(f"mount {line}" for line in mounts if str(state) in line or f"sky-{island}" in line),
        *(f"interface {name}" for _, name in socket.if_nameindex() if name.startswith((ports, BRIDGE))),
    ]


def cgroups(island: str) -> list[Path]:
    """All of an island's groups, wherever control groups are mounted."""
    # Other islands' groups come and go meanwhile; `os.walk` does not mind.
    walk = os.walk("/sys/fs/cgroup")
    return [Path(parent, name) for parent, names, _ in walk for name in names if f"sky-{island}" in name]


def copy_of(prepared: Path, state: Path, *, share: bool = True) -> None:
    """A state folder like the one that was prepared; with `share`, what is only read are links to that."""
    if not share:
        subprocess.run(["cp", "-a", prepared, state], check=True)
        return
    shared = [*prepared.glob("gocache/*/std"), *prepared.glob("base/*")]
    linked = ("gocache/*/helper/*", "gocache/*/whole", "launcher/*")
    for path in (*shared, *(path for names in linked for path in prepared.glob(names))):
        place = state / path.relative_to(prepared)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path in shared:
            place.symlink_to(path)
        else:
            os.link(path, place)
