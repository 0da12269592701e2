"""A stand-in for the launcher of jails (skyisland/drivers/freebsd/launcher): it speaks its protocol, in
Python, and makes jails of this host's namespaces. What the kernel would refuse, it refuses.

Each system call is a point where a test may have it fail (`World.fail("^launcher nmount …")`) or be struck.
"""

from __future__ import annotations

import os
import resource
import sys

from tests.support.standins import jails, storage
from tests.support.standins.state import TYPE_CHECKING, Facts, State

if TYPE_CHECKING:
    from typing import NoReturn

PR_SET_PDEATHSIG = 1
LIMITS = {4: resource.RLIMIT_CORE, 8: resource.RLIMIT_NOFILE, 1: resource.RLIMIT_FSIZE}
"""FreeBSD's numbers of resource limits, and this host's."""
KINDS = {"make": set("ncpmsib4qrwtdvluhae"), "remove": set("nc")}
"""The words of each order (`order.take` in launcher/order.go)."""
STRINGS = {"host.hostname"}
INTEGERS = {"securelevel", "children.max", "enforce_statfs", "devfs_ruleset", "ip4", "ip6", "vnet"}


def socket() -> int:
    return int(os.environ["SKY_ORDER"])


def read() -> list[str]:
    """The order, up to the end of the island's side."""
    order = b""
    while chunk := os.read(socket(), 1 << 16):
        order += chunk
    return os.fsdecode(order).split("\0")[:-1]


def answer(text: str) -> None:
    os.write(socket(), text.encode())


def refuse(why: str) -> NoReturn:
    answer(f"!{why}")
    os._exit(1)


def call(state: State, what: str) -> None:
    """Where the real one makes a system call."""
    said, code = state.failure(f"launcher {what}")
    if code:
        refuse(f"{what}: {said}")
    state.step(what)


def launcher(state: State) -> None:
    os.set_inheritable(socket(), False)
    verb, *words = state.words
    order: dict[str, list[str]] = {}
    for word in words:
        order.setdefault(word[0], []).append(word[1:])
    kinds = KINDS.get(verb)
    if kinds is None or not set(order) <= kinds or not order.get("n") or not order["c"][0].startswith("/"):
        refuse("understand the order")
    if verb == "remove":
        _remove(state, order["n"][0], order["c"][0])
    else:
        _make(state, order, words)


# make


def _make(state: State, order: dict[str, list[str]], words: list[str]) -> None:
    jails.call("prctl", PR_SET_PDEATHSIG, jails.SIGKILL, 0, 0, 0)
    if int(order["p"][0]) != state.caller:
        refuse("the island is gone")
    name, clone = order["n"][0], order["c"][0]
    login, _, uid = order["u"][0].partition("=")
    with state.locked() as world:
        known = world["users"].get(login)
    if known != int(uid):
        refuse(f"a stand-in knows no user {login} of this uid")
    call(state, "rctl_add_rule")
    for rule in order.get("q", ()):
        with state.locked() as world:
            if why := jails.refused(world, f"jail:{name}:{rule}"):
                refuse(f"add the rule {rule}: {why}")
            world["rules"].append(f"jail:{name}:{rule}")
    _mount(state, clone, words)
    ruleset = order["d"][-1]
    call(state, "nmount devfs")
    if not os.path.isdir(f"{clone}/dev") or os.path.islink(f"{clone}/dev"):
        refuse(f"mount {clone}/dev: no such file or directory")
    jails.mount_devfs(state, clone, ruleset)
    for seen in os.listdir(f"{clone}/dev"):
        if seen not in order["v"]:
            refuse(f"hide {seen} in /dev")
    given = _parameters(state, words)
    given |= {"name": name, "path": clone}
    call(state, "jail_set")
    with state.locked() as world:
        if why := _impossible(world, given):
            refuse(why)
    holder = jails.hold(state, given)
    with state.locked() as world:
        jid = world["next_jid"]
        world["next_jid"] += 1
        world["jails"][name] = {"jid": jid, "path": clone, "holder": holder, "given": given, "dying": 0}
    if "allow.nosuser" in given:
        refuse("leave all groups: operation not permitted")  # seen on 15.0
    call(state, "execve")
    _become(state, order, jid, holder)


def _mount(state: State, clone: str, words: list[str]) -> None:
    folders = [word for word in words if word[0] in "rwt"]
    if folders:
        call(state, "nmount nullfs")
    for source, target in zip(folders[::2], folders[1::2], strict=True):
        if why := storage.nullfs(state, source[0] == "w", source[1:], f"{clone}{target[1:]}"):
            refuse(f"mount {source[1:]}: {why}")


def _parameters(state: State, words: list[str]) -> dict[str, str]:
    """Of the jail, each of which the kernel must know, in the form that it has there."""
    with state.locked() as world:
        known = {name.removeprefix("security.jail.param.") for name in world["sysctl"]}
    given: dict[str, str] = {}
    for word in words:
        kind, (key, equals, value) = word[0], word[1:].partition("=")
        if kind not in "sib4":
            continue
        if key.replace("allow.no", "allow.", 1) not in known:
            refuse(f"unknown parameter: {key}")
        good = {
            "s": key in STRINGS and value != "",
            "i": key in INTEGERS and value.isdigit(),
            "b": key.startswith("allow.") and not equals,
            "4": key == "ip4.addr" and value.count(".") == 3,
        }[kind]
        if not good or key in given:
            refuse(f"a stand-in does not like the parameter {word}")
        given[key] = value
    return given


def _impossible(world: Facts, given: dict[str, str]) -> str:
    name = given["name"]
    found = world["jails"].get(name)
    if found and not found["dying"]:
        return f'jail "{name}" already exists'
    if not jails.plain(name):
        return f"a stand-in does not like the name {name!r}"
    if "vnet" in given and {"ip4", "ip6", "ip4.addr"} & set(given):
        return "vnet jails cannot have IP address restrictions"
    if (ip := given.get("ip4.addr")) and not any(
        ip == known for interface in world["interfaces"].values() for known, _ in interface["inet"]
    ):
        return f"a stand-in does not like {ip}, which is on no interface"
    return ""


def _become(state: State, order: dict[str, list[str]], jid: int, holder: int) -> None:
    """The real one becomes the program. This one follows it, and ends as it ended."""
    for kind in ("mnt", "net", "ipc", "uts", "pid"):
        fd = os.open(f"/proc/{holder}/ns/{kind}", os.O_RDONLY)
        jails.call("setns", fd, 0)
        os.close(fd)
    memory = [int(rule.partition("=")[2]) for rule in order.get("q", ()) if rule.startswith("memoryuse:")]
    child = os.fork()
    if child == 0:
        jails.call("prctl", PR_SET_PDEATHSIG, jails.SIGKILL, 0, 0, 0)
        for word in order.get("l", ()):
            number, maximum = map(int, word.split("="))
            resource.setrlimit(LIMITS[number], (maximum, maximum))
        os.chroot(order["c"][0])
        os.chdir("/")
        uid = int(order["u"][0].partition("=")[2])
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        try:
            os.chdir(order["h"][0])
        except OSError as error:
            refuse(f"enter {order['h'][0]}: {error.strerror}")
        answer(f"+{jid}")
        environment = dict(word.split("=", 1) for word in order.get("e", ()))
        argv = order["a"]
        try:
            os.execve(argv[0], argv, environment)
        except OSError as error:
            refuse(f"execute {argv[0]}: {error.strerror}")
    os.close(socket())
    jails.follow(state, child, memory[0] if memory else None)


# remove


def _remove(state: State, name: str, clone: str) -> None:
    """It goes on after a failure, and tells the first."""
    told = ""

    def attempt(what: str) -> bool:
        nonlocal told
        said, code = state.failure(f"launcher {what}")
        if code:
            told = told or f"!{what}: {said}"
        else:
            state.step(what)
        return not code

    if attempt("jail_remove"):
        jails.end(state, name)
    with state.locked() as world:
        mounts = [m for m in world["mounts"] if m["point"].startswith(f"{clone}/")]
    for mount in reversed(mounts):
        if attempt(f"unmount {mount['point']}"):
            with state.locked() as world:
                world["mounts"] = [m for m in world["mounts"] if m["point"] != mount["point"]]
            if mount["type"] == "devfs":
                jails.empty(mount["point"])
    if attempt("rctl_remove_rule"):
        with state.locked() as world:
            world["rules"] = [rule for rule in world["rules"] if not rule.startswith(f"jail:{name}:")]
    answer(told or "+")
    sys.exit(1)
