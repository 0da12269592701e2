"""A FreeBSD host in a folder, from the test's side: what it is like, what goes wrong, what is left."""

from __future__ import annotations

import ast
import contextlib
import marshal
import os
import signal
import sys
from pathlib import Path

from standins.state import Locked

PROGRAMS = (
    "jail jexec jls rctl zfs mount umount devfs sysctl pw ifconfig route pfctl tar freebsd-update "
    "freebsd-version"
)
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
    "next_jid": 1,
    "next_epair": 0,
    "racct": "on",
    "jls_version": "2",
    "release": "14.3-RELEASE",
}


class World:
    """A FreeBSD host in a folder, from the test's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "peaks").mkdir()
        (folder / "snapshots").mkdir()
        (folder / "state").write_bytes(marshal.dumps(FRESH))
        here = Path(__file__).parents[1]
        for name in PROGRAMS.split():
            script = self.bin / name
            script.write_text(
                f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(here)!r})\n"
                f"from standins.state import main\nmain({name!r}, {str(folder)!r})\n"
            )
            script.chmod(0o755)

    def change(self) -> Locked:
        """The state, to be looked at and changed."""
        return Locked(str(self.folder))

    def look(self) -> dict:
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

    def peak_bytes(self, process) -> int:
        """Unbuffered, for it is read on the event loop."""
        try:
            with open(self.folder / "peaks" / str(process.pid), "rb", buffering=0) as file:
                return int(file.read())
        except FileNotFoundError:
            return 0

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

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every jail."""
        for jail in self.look()["jails"].values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(jail["holder"], signal.SIGKILL)
