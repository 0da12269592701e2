"""sysctl(8), devfs(8), pw(8), tar(1), freebsd-update(8)."""

from __future__ import annotations

import os
import sys

from tests.support.standins.state import State


def sysctl(state: State) -> None:
    with state.locked() as world:
        known = world["sysctl"]
    match state.words:
        case ["-n", name]:
            if name not in known:
                state.die(f"unknown oid '{name}'")
            sys.stdout.write(f"{known[name]}\n")
        case ["-N", prefix]:
            names = [name for name in known if name.startswith(f"{prefix}.")]
            if not names:
                state.die(f"unknown oid '{prefix}'")
            sys.stdout.write("".join(f"{name}\n" for name in names))
        case _:
            state.usage()


def devfs(state: State) -> None:
    with state.locked() as world:
        match state.words:
            case ["rule", "-s", number, "show"]:
                rules = world["devfs"].get(number, [])
                sys.stdout.write("".join(f"{100 * n} {rule}\n" for n, rule in enumerate(rules, 1)))
            case ["rule", "-s", number, "add", *rule] if number.isdigit() and int(number) > 0:
                text = " ".join(rule)
                if text != "hide" and not (
                    len(rule) == 3 and rule[0] == "path" and rule[2] in ("hide", "unhide")
                ):
                    state.die(f"unknown action: {text}")
                if not world.get("devfs_deaf"):
                    world["devfs"].setdefault(number, []).append(text)
            case _:
                state.usage()


def pw(state: State) -> None:
    with state.locked() as world:
        users = world["users"]
        match state.words:
            case ["usershow", "-n", name]:
                if name not in users:
                    state.die(f"no such user `{name}'", 67)
                sys.stdout.write(f"{name}:*:{users[name]}:{users[name]}::0:0::/:/usr/sbin/nologin\n")
            case ["useradd", "-n", name, "-u", uid, "-d", "/", "-s", "/usr/sbin/nologin", "-c", _]:
                if name in users or int(uid) in users.values():
                    state.die(f"login name `{name}' already exists", 74)
                users[name] = int(uid)
            case _:
                state.usage()


def tar(state: State) -> None:
    match state.words:
        case ["-xpf", archive, "-C", folder, "--unlink"]:
            code = os.spawnv(os.P_WAIT, "/bin/tar", ["tar", "-xpf", archive, "-C", folder])
            if code:
                raise SystemExit(code)
        case _:
            state.usage()


def freebsd_update(state: State) -> None:
    """It refuses on its standard output (seen on 15.0)."""
    match state.words:
        case [
            "-b",
            base,
            "-d",
            work,
            "-f",
            config,
            "--not-running-from-cron",
            "--currently-running",
            release,
            verb,
        ]:
            if not (os.path.isdir(work) and os.path.isfile(config) and verb in ("fetch", "install")):
                state.die("cannot be run so")
            if not release.endswith("-RELEASE") or os.environ.get("PAGER") != "cat":
                state.die(f"cannot update {release}")
            with state.locked() as world:
                if world.get("pkgbase"):
                    sys.stdout.write("freebsd-update is incompatible with the use of packaged base.\n")
                    raise SystemExit(1)
                current = world.get("patched")
                if verb == "fetch":
                    world["fetched"] = True
                    sys.stdout.write(
                        "No updates needed to update system to 14.3-RELEASE-p0.\n" if current else ""
                    )
                    return
                if not world.get("fetched") or current:
                    sys.stdout.write("No updates are available to install.\n")
                    sys.stdout.write("Run '/usr/sbin/freebsd-update fetch' first.\n")
                    raise SystemExit(2)
                world["patched"] = True
                with open(f"{base}/etc/patched", "w") as file:
                    file.write("p5\n")
        case _:
            state.usage()
