"""The state that all stand-ins share, faults, and the test's view of both."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
from pathlib import Path

PROGRAMS = (
    "jail jexec jls rctl zfs mount umount devfs sysctl pw ifconfig route pfctl tar freebsd-update freebsd-version"
)
PARAMETERS = (
    "allow.chflags allow.mlock allow.mount allow.quotas allow.raw_sockets allow.read_msgbuf allow.reserved_ports "
    "allow.set_hostname allow.socket_af allow.suser allow.sysvipc allow.unprivileged_proc_debug children.cur "
    "children.max devfs_ruleset enforce_statfs host.hostname ip4 ip4.addr ip6 ip6.addr name path persist "
    "securelevel vnet"
)
FRESH = {
    "jails": {},
    "mounts": [],
    "rules": [],
    "users": {"nobody": 65534},
    "devfs": {"4": ["hide"]},
    "sysctl": {
        "kern.racct.enable": "1",
        "net.inet.ip.forwarding": "1",
        **{f"security.jail.param.{name}": "" for name in PARAMETERS.split()},
    },
    "interfaces": {
        "em0": {"inet": [["192.168.7.2", 24]], "up": True},
        "lo0": {"inet": [["127.0.0.1", 8]], "up": True},
    },
    "default_route": "em0",
    "pf": {},
    "datasets": {"tank": {"mounted": True, "properties": {"mountpoint": None}}},
    "next_jid": 1,
    "next_epair": 0,
    "racct": "on",
    "jls_version": "2",
    "release": "14.3-RELEASE",
}


class KeepAndExit(Exception):  # noqa: N818 - it ends a program, not a mistake
    """Exit code 1, although what was done stays done: so does OpenZFS when it cannot mount."""


class State:
    """What a stand-in works on. `locked` is the only way to it."""

    def __init__(self, folder: Path, program: str, words: list[str]) -> None:
        self.folder = folder
        self.program = program
        self.words = words
        self.root = folder / "root"

    @contextlib.contextmanager
    def locked(self):
        with open(self.folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self.folder / "state.json"
            state = json.loads(path.read_text())
            code = 0
            try:
                yield state
            except KeepAndExit:
                code = 1
            draft = path.with_suffix(".new")
            draft.write_text(json.dumps(state))
            draft.rename(path)
        if code:
            raise SystemExit(code)

    def die(self, text: str, code: int = 1):
        """End as the real program would."""
        sys.stderr.write(f"{self.program}: {text}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        raise SystemExit(code)

    def usage(self):
        """What is not in the manual page is refused, whatever it is."""
        sys.stderr.write(f"usage: {self.program} (a stand-in knows no {' '.join(self.words)!r})\n")
        raise SystemExit(64)

    def step(self, what: str) -> None:
        """A point at which the machine may be struck: the island is killed, and this program with it."""
        with open(self.folder / "steps", "a+") as steps:
            fcntl.flock(steps, fcntl.LOCK_EX)
            steps.write(f"{self.program} {what}\n")
            steps.flush()
            steps.seek(0)
            number = len(steps.readlines())
        strike = self.folder / "strike"
        if strike.exists() and int(strike.read_text()) == number:
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(137)

    def fault(self) -> None:
        """Fail here if the test says so."""
        path = self.folder / "faults.json"
        if not path.exists():
            return
        faults = json.loads(path.read_text())
        line = " ".join([self.program, *self.words])
        for fault in faults:
            if fault["times"] and re.search(fault["match"], line):
                fault["times"] -= 1
                path.write_text(json.dumps(faults))
                sys.stderr.write(fault["stderr"])
                sys.stdout.write(fault["stdout"])
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(fault["exit"])


def main(program: str, folder: str) -> None:
    """Run as `program` with the process's own words."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    state = State(Path(folder), program, sys.argv[1:])
    with open(state.folder / "log", "a") as log:
        log.write(json.dumps([program, *state.words]) + "\n")
    state.fault()
    state.step("begins")
    if program in ("jail", "jexec", "jls", "rctl"):
        from standins import jails as module
    elif program in ("zfs", "mount", "umount"):
        from standins import storage as module
    elif program in ("ifconfig", "route", "pfctl"):
        from standins import network as module
    else:
        from standins import host as module
    getattr(module, program.replace("-", "_"))(state)
    state.step("ends")


class World:
    """A FreeBSD host in a folder, from the test's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "peaks").mkdir()
        (folder / "snapshots").mkdir()
        (folder / "state.json").write_text(json.dumps(FRESH))
        here = Path(__file__).parents[1]
        for name in PROGRAMS.split():
            script = self.bin / name
            script.write_text(
                f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(here)!r})\n"
                f"from standins.world import main\nmain({name!r}, {str(folder)!r})\n"
            )
            script.chmod(0o755)

    @contextlib.contextmanager
    def change(self):
        """The state, to be looked at and changed."""
        with State(self.folder, "test", []).locked() as state:
            yield state

    def look(self) -> dict:
        with self.change() as state:
            return state

    def fail(
        self, match: str, stderr: str = "", *, exit: int = 1, times: int = 1, stdout: str = ""
    ) -> None:
        """The next `times` command lines that match end so, and do nothing."""
        path = self.folder / "faults.json"
        faults = json.loads(path.read_text()) if path.exists() else []
        faults.append({"match": match, "stderr": stderr, "exit": exit, "times": times, "stdout": stdout})
        path.write_text(json.dumps(faults))

    def calls(self, program: str = "") -> list[list[str]]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [words for words in map(json.loads, lines) if program in ("", words[0])]

    def steps(self) -> list[str]:
        path = self.folder / "steps"
        return path.read_text().splitlines() if path.exists() else []

    def strike(self, number: int | None) -> None:
        """Kill the island when step `number` is reached, counted from now on."""
        (self.folder / "steps").unlink(missing_ok=True)
        (self.folder / "strike").unlink(missing_ok=True)
        if number is not None:
            (self.folder / "strike").write_text(str(number))

    def peak_bytes(self, process) -> int:
        path = self.folder / "peaks" / str(process.pid)
        return int(path.read_text()) if path.exists() else 0

    def left(self) -> dict:
        """What an island has made and not taken back; empty when it is gone without trace."""
        state = self.look()
        left = {
            "jails": sorted(name for name, jail in state["jails"].items() if not jail["dying"]),
            "mounts": [mount["point"] for mount in state["mounts"]],
            "rules": sorted(state["rules"]),
            "pf": sorted(ip for ips in state["pf"].values() for ip in ips),
            "interfaces": sorted(set(state["interfaces"]) - {"em0", "lo0"}),
            "aliases": [ip for ip, _ in state["interfaces"]["em0"]["inet"] if ip != "192.168.7.2"],
            "clones": sorted(name for name in state["datasets"] if "/run/" in name),
        }
        return {what: names for what, names in left.items() if names}

    def close(self) -> None:
        """End every process of every jail."""
        for jail in self.look()["jails"].values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(jail["holder"], signal.SIGKILL)
