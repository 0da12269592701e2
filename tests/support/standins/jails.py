"""jls(8), rctl(8), and jails of this host's namespaces, for the stand-in of the launcher."""

from __future__ import annotations

import os
import resource
import sys
import time

from tests.support.standins.state import TYPE_CHECKING, Facts, State

if TYPE_CHECKING:
    pass

SIGKILL = 9

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def call(function: str, *arguments: object) -> None:
    import ctypes

    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}{arguments}: {os.strerror(number)}")


def bind(source: str, target: str, *, writable: bool = True) -> None:
    call("mount", source.encode(), target.encode(), None, MS_BIND | MS_REC, None)
    if not writable:
        call("mount", None, target.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)


# Jails


def plain(name: str) -> bool:
    return 0 < len(name) < 64 and name.replace("-", "a").isalnum() and name.islower() and name[0].isalpha()


def mount_devfs(state: State, path: str, ruleset: str) -> None:
    """A ruleset that hides nothing shows everything."""
    with state.locked() as world:
        rules = world["devfs"].get(ruleset, [])
        seen = dict.fromkeys("null zero full random urandom fd stdin stdout stderr mem da0 zfs".split(), True)
        for rule in rules:
            if rule == "hide":
                seen = dict.fromkeys(seen, False)
            elif rule.startswith("path ") and rule.endswith(" unhide"):
                seen[rule.split()[1]] = True
        world["mounts"].append({"type": "devfs", "source": "devfs", "point": f"{path}/dev", "options": "rw"})
        for name, shown in seen.items():
            if shown and "*" not in name:
                target = f"{path}/dev/{name}"
                os.makedirs(target, exist_ok=True) if name == "fd" else open(target, "a").close()


def empty(folder: str) -> None:
    for name in os.listdir(folder):
        entry = f"{folder}/{name}"
        os.rmdir(entry) if os.path.isdir(entry) else os.unlink(entry)


def hold(state: State, given: dict[str, str]) -> int:
    """Make the jail's namespaces, with a process that keeps them; returns its number."""
    path = given["path"]
    with state.locked() as world:
        below = [m for m in world["mounts"] if m["point"].startswith(f"{path}/") and m["type"] == "nullfs"]
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        flags = NEWNS | NEWPID | NEWIPC | NEWUTS | NEWCGROUP
        if given.get("ip4") != "2":
            flags |= NEWNET
        call("unshare", flags)
        keeper = os.fork()
        if keeper:
            os.write(tell, f"{keeper}\n".encode())
            os._exit(0)
        try:
            call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
            bind(path, path)
            for mount in below:
                bind(mount["source"], mount["point"], writable=mount["options"] != "ro")
            for device in ("null", "zero", "full", "random", "urandom"):
                if os.path.exists(f"{path}/dev/{device}"):
                    bind(f"/dev/{device}", f"{path}/dev/{device}")
            if os.path.isdir(f"{path}/proc"):
                # Go on Linux wants it; FreeBSD's jails have none.
                call("mount", b"proc", f"{path}/proc".encode(), b"proc", 0, None)
            call("sethostname", given["host.hostname"].encode(), len(given["host.hostname"]))
            os.write(tell, b"ready\n")
        except BaseException as failure:
            os.write(tell, f"{failure}\n".encode())
            os._exit(1)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 64)
        os.execv("/usr/bin/sleep", ["sleep", "infinity"])
    os.close(tell)
    os.waitpid(child, 0)
    said = b""
    while said.count(b"\n") < 2 and (chunk := os.read(told, 4096)):
        said += chunk
    lines = said.decode().split()
    if "ready" not in lines:
        raise OSError(f"the stand-in cannot make namespaces: {said.decode()}")
    return next(int(line) for line in lines if line.isdigit())


def end(state: State, name: str) -> None:
    """Kill what runs in a jail, and remove it, as far as it is there."""
    with state.locked() as world:
        found = world["jails"].get(name)
    if found is None or found["dying"]:
        return
    try:
        os.kill(found["holder"], SIGKILL)
    except ProcessLookupError:
        return  # another one was quicker
    deadline = time.monotonic() + 5
    while _alive(found["holder"]) and time.monotonic() < deadline:
        time.sleep(0.002)
    with state.locked() as world:
        if name not in world["jails"]:
            return
        linger = world.get("dying_looks", 0)
        if linger:
            world["jails"][name]["dying"] = linger
        else:
            del world["jails"][name]
        vnet = "vnet" in found["given"]
        for interface in world["interfaces"].values():
            if vnet and interface.get("jail") == name:
                interface["lost"] = True


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return b") Z" not in file.read()
    except OSError:
        return False


def follow(state: State, child: int, limit: int | None) -> None:
    """Wait for a program, and end as it ended."""
    over = False
    while True:
        pid, status, used = os.wait4(child, 0 if limit is None else os.WNOHANG)
        if pid:
            break
        if limit is not None and (peak := _peak(child)) > limit:
            over = True
            _record(state, peak)
            os.kill(child, SIGKILL)
        time.sleep(0.02)
    peak = used.ru_maxrss * 1024
    if limit is not None and not over:
        _record(state, peak)
        over = peak > limit
    code = os.waitstatus_to_exitcode(status)
    if over:
        code = -SIGKILL
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != SIGKILL:
            import signal

            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        time.sleep(5)
    os._exit(code)


def _peak(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def _record(state: State, peak: int) -> None:
    with open(f"{state.folder}/peaks/{os.getpid()}", "w") as file:
        file.write(str(peak))


# jls


def jls(state: State) -> None:
    import json

    if state.words != ["-d", "--libxo", "json", "-n", "jid", "name", "path", "dying"]:
        state.usage()
    with state.locked() as world:
        version = world["jls_version"]
        listed = [
            {
                "jid": str(jail["jid"]) if version == "2" else jail["jid"],
                "name": name,
                "path": jail["path"],
                "dying": bool(jail["dying"]) if version == "2" else str(bool(jail["dying"])).lower(),
            }
            for name, jail in world["jails"].items()
        ]
    sys.stdout.write(json.dumps({"__version": version, "jail-information": {"jail": listed}}) + "\n")


# rctl

RESOURCES = "memoryuse maxproc nthr pcpu openfiles swapuse vmemoryuse cputime wallclock".split()
OFF = "RACCT/RCTL present, but disabled; enable using kern.racct.enable=1 tunable"


def refused(world: Facts, rule: str) -> str:
    """Why the kernel takes no such rule; empty if it does."""
    parts = rule.split(":")
    action, _, amount = parts[-1].partition("=")
    good = len(parts) == 4 and parts[0] == "jail" and plain(parts[1]) and parts[2] in RESOURCES
    if world["racct"] == "off":
        return "function not implemented"
    if not good or action not in ("deny", "sigkill", "log") or not amount.isdigit():
        return "invalid argument"
    if action == "deny" and parts[2] in ("cputime", "wallclock"):
        return "operation not supported"
    return ""


def rctl(state: State) -> None:
    verb, *rules = state.words
    with state.locked() as world:
        if world["racct"] == "off":
            state.die(OFF)
        if verb == "-u" and len(rules) == 1 and rules[0].startswith("jail:"):
            name = rules[0].removeprefix("jail:")
            if name not in world["jails"]:
                state.die(f"failed to show usage for '{rules[0]}': No such process")
            sys.stdout.write("cputime=1\nmemoryuse=12582912\nmaxproc=1\nnthr=7\npcpu=0\n")
        elif verb == "jail:" and not rules:
            sys.stdout.write("".join(f"{rule}\n" for rule in world["rules"]))
        else:
            state.usage()
