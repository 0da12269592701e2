"""jail(8), jexec(8), jls(8), rctl(8), with namespaces of this host for jails."""

from __future__ import annotations

import os
import resource
import sys
import time

from tests.support.standins.state import TYPE_CHECKING, Facts, State

if TYPE_CHECKING:
    from collections.abc import Callable

SIGKILL = 9

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
BOOLEANS = {"persist", "vnet", "mount.devfs"}
INTEGERS = {"securelevel", "children.max", "enforce_statfs", "devfs_ruleset"}
STRINGS = {"name", "path", "host.hostname", "ip4", "ip6", "ip4.addr"}


def call(function: str, *arguments: object) -> None:
    import ctypes

    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}{arguments}: {os.strerror(number)}")


def bind(source: str, target: str, *, writable: bool = True) -> None:
    call("mount", source.encode(), target.encode(), None, MS_BIND | MS_REC, None)
    if not writable:
        call("mount", None, target.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)


# jail


def jail(state: State) -> None:
    words = state.words
    if words[:1] == ["-ic"]:
        _create(state, words[1:])
    elif words[:3] == ["-f", "-", "-r"] and len(words) == 4:
        _remove(state, words[3], _configuration(state, sys.stdin.read()))
    elif words[:4] == ["-q", "-f", "-", "-r"] and len(words) == 5:
        _remove(state, words[4], _configuration(state, sys.stdin.read()), quiet=True)
    elif words[:1] == ["-r"] and len(words) == 2:
        _remove(state, words[1], {})
    else:
        state.usage()


def _create(state: State, words: list[str]) -> None:
    given: dict[str, str] = {}
    with state.locked() as world:
        known = {
            name.removeprefix("security.jail.param.")
            for name in world["sysctl"]
            if name.startswith("security.jail.param.")
        }
    for word in words:
        key, equals, value = word.partition("=")
        plain = key.replace("allow.no", "allow.", 1)
        if key != "mount.devfs" and plain not in known:
            state.die(f"unknown parameter: {key}")
        if key in given:
            state.die(f"{key}: given twice, which a stand-in does not like")
        if key in INTEGERS and not value.lstrip("-").isdigit():
            state.die(f'{key}: non-integer value "{value}"')
        if (key in BOOLEANS or key.startswith("allow.")) and equals:
            state.die(f'{key}: unknown boolean value "{value}"')
        if key in STRINGS and not value:
            state.usage()
        if not (key in BOOLEANS | INTEGERS | STRINGS or key.startswith("allow.")):
            state.die(f"unknown parameter: {key}")
        given[key] = value
    name, path = given["name"], given["path"]
    with state.locked() as world:
        found = world["jails"].get(name)
        if found and not found["dying"]:
            state.die(f'"{found["jid"]}" already exists')  # told by jid (seen on 15.0)
    if name.isdigit():
        state.die(f"a stand-in does not like a name that is a jid: {name}")  # 15.0 makes that jid
    if "." in name:
        state.die(f'jail "{name.rpartition(".")[0]}" not found')
    if not _plain(name):
        state.die(f"a stand-in does not like the name {name!r}")
    if not path.startswith("/") or not os.path.isdir(path):
        state.die(f"path {path}: No such file or directory")
    if "persist" not in given:
        state.die("new jail must persist or attach")
    if "vnet" in given and {"ip4", "ip6", "ip4.addr", "ip6.addr"} & set(given):
        state.die("vnet jails cannot have IP address restrictions")
    undo: list[Callable[[], None]] = []
    try:
        if "ip4.addr" in given:
            with state.locked() as world:
                _must_be_up(state, world, given["ip4.addr"])
        if "mount.devfs" in given:
            if not os.path.isdir(f"{path}/dev") or os.path.islink(f"{path}/dev"):
                state.die(f"mount.devfs: {path}/dev: No such file or directory")
            _mount_devfs(state, path, given.get("devfs_ruleset", "4"))
            undo.append(lambda: unmount_devfs(state, path))
            state.step("devfs mounted")
        holder = _hold(state, given)
    except SystemExit:
        for step in reversed(undo):
            step()
        raise
    with state.locked() as world:
        jid = world["next_jid"]
        world["next_jid"] += 1
        world["jails"][name] = {
            "jid": jid, "path": path, "holder": holder, "given": given, "dying": 0
        }  # fmt: skip
    state.step("jail made")
    sys.stdout.write(f"{jid}\n")


def _plain(name: str) -> bool:
    return 0 < len(name) < 64 and name.replace("-", "a").isalnum() and name.islower() and name[0].isalpha()


def _must_be_up(state: State, world: Facts, ip: str) -> None:
    if not any(ip == known for found in world["interfaces"].values() for known, _ in found["inet"]):
        state.die(f"a stand-in does not like {ip}, which is on no interface")


def _mount_devfs(state: State, path: str, ruleset: str) -> None:
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


def unmount_devfs(state: State, path: str) -> None:
    with state.locked() as world:
        world["mounts"] = [mount for mount in world["mounts"] if mount["point"] != f"{path}/dev"]
    empty(f"{path}/dev")


def empty(folder: str) -> None:
    for name in os.listdir(folder):
        entry = f"{folder}/{name}"
        os.rmdir(entry) if os.path.isdir(entry) else os.unlink(entry)


def _hold(state: State, given: dict[str, str]) -> int:
    """Make the jail's namespaces, with a process that keeps them; returns its number."""
    path = given["path"]
    with state.locked() as world:
        below = [m for m in world["mounts"] if m["point"].startswith(f"{path}/") and m["type"] == "nullfs"]
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        flags = NEWNS | NEWPID | NEWIPC | NEWUTS | NEWCGROUP
        if given.get("ip4") != "inherit":
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
        state.die(f"the stand-in cannot make namespaces: {said.decode()}")
    return next(int(line) for line in lines if line.isdigit())


def _configuration(state: State, text: str) -> dict[str, str]:
    """jail.conf(5) for one jail, as it is passed to `-f -`."""
    name, _, rest = text.partition(" { ")
    if not (name.startswith('"') and name.endswith('"') and rest.endswith("; }\n")):
        state.die("stdin: line 1: syntax error")
    found = {"name": name.strip('"')}
    for item in rest.removesuffix(" }\n").split(";")[:-1]:
        key, _, value = item.strip().partition("=")
        if key not in {"path", "mount.devfs", "stop.timeout"}:
            state.die(f"unknown parameter: {key}")
        if key == "path" and not (value.startswith('"/') and value.endswith('"') and value.count('"') == 2):
            state.die(f"stdin: line 1: syntax error at {value}")
        found[key] = value.strip('"')
    return found


def _remove(state: State, name: str, told: dict[str, str], *, quiet: bool = False) -> None:
    """With the configuration of the jail: its mounts and addresses too. Without: ten seconds of patience.

    `quiet`: of a jail that is not there it says nothing, and ends with 1 all the same (seen on 15.0; -q in
    usr.sbin/jail/jail.c).
    """

    def absent() -> None:
        if quiet:
            raise SystemExit(1)
        state.die(f'"{name}" not found')

    if told and told["name"] != name:
        absent()
    with state.locked() as world:
        found = world["jails"].get(name)
    if found is None or found["dying"]:
        absent()
    if told.get("stop.timeout") != "0":
        time.sleep(10)
    try:
        os.kill(found["holder"], SIGKILL)
    except ProcessLookupError:
        absent()  # another one was quicker
    deadline = time.monotonic() + 5
    while _alive(found["holder"]) and time.monotonic() < deadline:
        time.sleep(0.002)
    with state.locked() as world:
        if name not in world["jails"]:
            absent()
        linger = world.get("dying_looks", 0)
        if linger:
            world["jails"][name]["dying"] = linger
        else:
            del world["jails"][name]
        vnet = "vnet" in found["given"]
        for interface in world["interfaces"].values():
            if vnet and interface.get("jail") == name:
                interface["lost"] = True
    state.step("jail removed")
    if "mount.devfs" in told:
        with state.locked() as world:
            there = any(mount["point"] == f"{told['path']}/dev" for mount in world["mounts"])
        if there:
            unmount_devfs(state, told["path"])
    if not quiet:
        sys.stdout.write(f"{name}: removed\n")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return b") Z" not in file.read()
    except OSError:
        return False


# jexec


def jexec(state: State) -> None:
    words = state.words
    if words[:1] != ["-u"] or len(words) < 4 or words[2].startswith("-"):
        state.usage()
    user, name, command = words[1], words[2], words[3:]
    with state.locked() as world:
        uid = world["users"].get(user)
        found = world["jails"].get(name)
        limit = next(
            (int(rule.rpartition("=")[2]) for rule in world["rules"]
             if rule.startswith(f"jail:{name}:memoryuse:sigkill=")), None
        )  # fmt: skip
    if uid is None:
        state.die(f"{user}: no such user")
    if found is None:
        state.die(f'jail "{name}" not found')
    if found["dying"]:
        state.die(f"jail_attach({found['jid']}): Invalid argument")
    if "allow.nosuser" in found["given"]:
        state.die("setgid: Operation not permitted")  # seen on 15.0
    holder, path = found["holder"], found["path"]
    for kind in ("mnt", "net", "ipc", "uts", "pid"):
        fd = os.open(f"/proc/{holder}/ns/{kind}", os.O_RDONLY)
        call("setns", fd, 0)
        os.close(fd)
    os.environ.pop("LC_CTYPE", None)  # Python's own idea (PEP 538)
    # setusercontext(3) adds these (seen on 15.0).
    os.environ.update(SHELL="/usr/sbin/nologin", HOME="/", USER=user, BLOCKSIZE="K", MAIL=f"/var/mail/{user}")
    os.environ.update(MM_CHARSET="UTF-8", LANG="C.UTF-8", PATH="/sbin:/bin:/usr/sbin:/usr/bin")
    child = os.fork()
    if child == 0:
        call("prctl", 1, SIGKILL, 0, 0, 0)
        os.chroot(path)
        os.chdir("/")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        program = "jexec"
        if command[0] == "/usr/bin/limits" and os.path.exists("/usr/bin/limits"):
            program, command = "limits", _limits(command[1:])
        try:
            os.execvpe(command[0], command, dict(os.environ))
        except OSError as error:
            prefix = "jexec: execvp: " if program == "jexec" else "limits: "
            os.write(2, f"{prefix}{command[0]}: {error.strerror}\n".encode())
            os._exit(1)
    _follow(state, child, limit)


def _limits(words: list[str]) -> list[str]:
    """limits(1): sets limits and variables and becomes the command; with -E it drops what it inherits."""
    if words[:1] == ["-E"]:
        os.environ.clear()
        words = words[1:]
    kinds = {"-c": resource.RLIMIT_CORE, "-n": resource.RLIMIT_NOFILE, "-f": resource.RLIMIT_FSIZE}
    while words and words[0].startswith("-"):
        flag, value, *words = words
        if flag not in kinds or not value.removesuffix("k").isdigit():
            os.write(2, f"limits: invalid {flag} {value}\n".encode())
            os._exit(1)
        amount = int(value.removesuffix("k")) * (1024 if value.endswith("k") else 1)
        resource.setrlimit(kinds[flag], (amount, amount))
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    return words


def _follow(state: State, child: int, limit: int | None) -> None:
    """The real jexec becomes the command. This one waits, and ends as it ended."""
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


def rctl(state: State) -> None:
    verb, *rules = state.words
    with state.locked() as world:
        if world["racct"] == "off":
            state.die(OFF)
        if verb == "-a" and rules:
            for rule in rules:
                parts = rule.split(":")
                action, _, amount = parts[-1].partition("=")
                good = len(parts) == 4 and parts[0] == "jail" and _plain(parts[1]) and parts[2] in RESOURCES
                if not good or action not in ("deny", "sigkill", "log") or not amount.isdigit():
                    state.die(f"failed to add rule '{rule}': Invalid argument")
                if action == "deny" and parts[2] in ("cputime", "wallclock"):
                    state.die(f"failed to add rule '{rule}': Operation not supported")
                world["rules"].append(rule)
        elif verb == "-r" and len(rules) == 1 and _plain(rules[0].removeprefix("jail:")):
            left = [rule for rule in world["rules"] if not rule.startswith(f"{rules[0]}:")]
            if len(left) == len(world["rules"]):
                state.die(f"failed to remove rule '{rules[0]}': No such process")
            world["rules"] = left
        elif verb == "-u" and len(rules) == 1 and rules[0].startswith("jail:"):
            name = rules[0].removeprefix("jail:")
            if name not in world["jails"]:
                state.die(f"failed to show usage for '{rules[0]}': No such process")
            sys.stdout.write("cputime=1\nmemoryuse=12582912\nmaxproc=1\nnthr=7\npcpu=0\n")
        elif verb == "jail:" and not rules:
            sys.stdout.write("".join(f"{rule}\n" for rule in world["rules"]))
        else:
            state.usage()
