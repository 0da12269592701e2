"""A FreeBSD host in a folder, from the test's side: what it is like, what goes wrong, what is left."""

from __future__ import annotations

import ast
import contextlib
import marshal
import os
import signal
import socket
import sys
from functools import cache
from pathlib import Path

from skyisland.host.process import Process
from tests.support.places import ROOT
from tests.support.standins.state import Facts, Locked

PROGRAMS = "jls rctl zfs mount umount devfs sysctl pw ifconfig route pfctl tar"
PROCESSES = "launcher freebsd-update"
"""Stand-ins that must be processes of the island's own: what they are given passes through them."""
PARAMETERS = (
    "allow.chflags allow.mlock allow.mount allow.quotas allow.raw_sockets allow.read_msgbuf "
    "allow.reserved_ports allow.set_hostname allow.socket_af allow.suser allow.sysvipc "
    "allow.unprivileged_proc_debug children.cur children.max devfs_ruleset enforce_statfs host.hostname "
    "ip4 ip4.addr ip6 ip6.addr name path persist securelevel vnet"
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
    "datasets": {"tank": {"mounted": True, "properties": {"mountpoint": None}, "origin": "-"}},
    "next_jid": 70,
    "next_epair": 0,
    "racct": "on",
    "jls_version": "2",
}


CALL = """\
#!/bin/bash
# Its work is done by tests/support/standins/server.py.
exec 3<>/dev/tcp/127.0.0.1/{port} 4>&1
printf '%s\\0' $(($# + 4)) $$ $PPID {folder} {program} "$@" >&3
read -r -u 3 code
exit "${{code:-137}}"
"""
PROCESS = """\
#!{python} -IS
import os, sys
sys.path.insert(0, {root!r})
from tests.support.standins.state import main
main({program!r}, {folder!r}, sys.argv[1:], os.getppid())
"""


@cache
def server() -> int:
    """The port of the server of stand-ins, which ends with this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        # Without site packages, for it imports none and is to start soon.
        words = [sys.executable, "-S", "-m", "tests.support.standins.server", str(listener.fileno())]
        os.posix_spawn(sys.executable, words, {**os.environ, "PYTHONPATH": str(ROOT)})
        port: int = listener.getsockname()[1]
    return port


class World:
    """A FreeBSD host in a folder, from the test's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "peaks").mkdir()
        (folder / "snapshots").mkdir()
        (folder / "state").write_bytes(marshal.dumps(FRESH))
        for name in PROGRAMS.split():
            self._program(name, CALL.format(port=server(), folder=folder, program=name))
        for name in PROCESSES.split():
            words = {"python": sys.executable, "root": str(ROOT), "folder": str(folder)}
            self._program(name, PROCESS.format(**words, program=name))

    def _program(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def change(self) -> Locked:
        """The state, to be looked at and changed."""
        return Locked(str(self.folder))

    def look(self) -> Facts:
        with self.change() as state:
            return state

    def fail(self, match: str, stderr: str = "", *, code: int = 1, times: int = 1) -> None:
        """The next `times` command lines that match end so, and do nothing."""
        path = self.folder / "faults"
        faults = marshal.loads(path.read_bytes()) if path.exists() else []
        faults.append({"match": match, "stderr": stderr, "exit": code, "times": times})
        path.write_bytes(marshal.dumps(faults))

    def calls(self, program: str = "") -> list[list[str]]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [words for words in map(ast.literal_eval, lines) if program in ("", words[0])]

    def steps(self) -> list[str]:
        path = self.folder / "steps"
        return path.read_text().splitlines() if path.exists() else []

    def strike(self, number: int | None) -> None:
        """Kill the island when step `number` is reached, counted from now on."""
        (self.folder / "steps").unlink(missing_ok=True)
        (self.folder / "strike").unlink(missing_ok=True)
        if number is not None:
            (self.folder / "strike").write_text(str(number))

    def peak_bytes(self, process: Process) -> int:
        """Unbuffered, for it is read on the event loop."""
        try:
            with open(self.folder / "peaks" / str(process.pid), "rb", buffering=0) as file:
                return int(file.read())
        except FileNotFoundError:
            return 0

    def left(self) -> dict[str, list[str]]:
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

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every jail."""
        for jail in self.look()["jails"].values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(jail["holder"], signal.SIGKILL)
