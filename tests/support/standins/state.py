"""What all stand-ins share: the state, faults, and the way in. Imports little, for jexec starts often."""

from __future__ import annotations

import fcntl
import marshal
import os
import sys

TYPE_CHECKING = False
"""As in typing, whose import would take longer than all the others."""
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, NoReturn

Facts = dict[str, "Any"]
"""All that the stand-ins know of their host, by subject."""


class KeepAndExit(Exception):
    """Exit code 1, although what was done stays done: so does OpenZFS when it cannot mount."""


class Locked:
    """The state, for the length of a block; kept unless the block ends with an exception."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/state"
        self.lock = open(f"{folder}/lock", "a")  # noqa: SIM115 - for as long as the block

    def __enter__(self) -> Facts:
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        with open(self.path, "rb") as file:
            world: Facts = marshal.load(file)
        self.world = world
        return world

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind in (None, KeepAndExit):
            with open(f"{self.path}.new", "wb") as file:
                marshal.dump(self.world, file)
            os.rename(f"{self.path}.new", self.path)
        self.lock.close()
        if kind is KeepAndExit:
            raise SystemExit(1)


class State:
    """What a stand-in works on. `locked` is the only way to it."""

    def __init__(self, folder: str, program: str, words: list[str], caller: int) -> None:
        self.folder = folder
        self.program = program
        self.words = words
        self.caller = caller
        """The island's process."""

    def locked(self) -> Locked:
        return Locked(self.folder)

    def die(self, text: str, code: int = 1) -> NoReturn:
        """End as the real program would."""
        sys.stderr.write(f"{self.program}: {text}\n")
        raise SystemExit(code)

    def usage(self) -> NoReturn:
        """What is not in the manual page is refused, whatever it is."""
        sys.stderr.write(f"usage: {self.program} (a stand-in knows no {' '.join(self.words)!r})\n")
        raise SystemExit(64)

    def step(self, what: str) -> None:
        """A point at which the machine may be struck: the island is killed, and this program with it."""
        with open(f"{self.folder}/steps", "a+") as steps:
            fcntl.flock(steps, fcntl.LOCK_EX)
            steps.write(f"{self.program} {what}\n")
            steps.flush()
            steps.seek(0)
            number = len(steps.readlines())
        try:
            with open(f"{self.folder}/strike") as strike:
                at = int(strike.read())
        except FileNotFoundError:
            return
        if at == number:
            os.kill(self.caller, 9)
            os._exit(137)

    def fault(self) -> None:
        """Fail here if the test says so."""
        said, code = self.failure(" ".join([self.program, *self.words]))
        if said or code:
            sys.stderr.write(said)
            raise SystemExit(code)

    def failure(self, line: str) -> tuple[str, int]:
        """What a test has this line say and end with."""
        try:
            with open(f"{self.folder}/faults", "rb") as file:
                faults = marshal.load(file)
        except FileNotFoundError:
            return "", 0
        import re

        for fault in faults:
            if fault["times"] and re.search(fault["match"], line):
                fault["times"] -= 1
                with open(f"{self.folder}/faults", "wb") as file:
                    marshal.dump(faults, file)
                return fault["stderr"], fault["exit"]
        return "", 0


def main(program: str, folder: str, words: list[str], caller: int) -> None:
    """Run as `program` with these words, for the process that called it."""
    if program == "launcher":
        from tests.support.standins import launcher

        words = launcher.read()
    state = State(folder, program, words, caller)
    with open(f"{folder}/log", "a") as log:
        log.write(repr([program, *state.words]) + "\n")
    state.fault()
    state.step("begins")
    getattr(_home(program), program.replace("-", "_"))(state)


def _home(program: str) -> ModuleType:
    """The module of a stand-in; no other is imported."""
    if program == "launcher":
        from tests.support.standins import launcher

        return launcher
    if program in ("jls", "rctl"):
        from tests.support.standins import jails

        return jails
    if program in ("zfs", "mount", "umount"):
        from tests.support.standins import storage

        return storage
    if program in ("ifconfig", "route", "pfctl"):
        from tests.support.standins import network

        return network
    from tests.support.standins import host

    return host
