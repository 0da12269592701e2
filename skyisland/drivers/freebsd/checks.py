"""What `skyisland doctor` checks on FreeBSD, and what `--full` tries there.

The drivers were written from sources and manuals. Each assumption about a running FreeBSD is a trial here:
it makes a clone and a jail, tests whether the host behaves as the drivers assume, and removes both. So a
minute on a new host or release tells which assumptions hold.
"""

from __future__ import annotations

import asyncio
import itertools
import platform
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from skyisland.doctor import TRIAL_ISLAND, Check, from_capabilities, vital
from skyisland.drivers.freebsd import commands, launching, network
from skyisland.drivers.freebsd.jails import FreeBSDJail, FreeBSDJails
from skyisland.drivers.zfs.clones import ZfsClones
from skyisland.errors import DriverError, IslandError
from skyisland.host.process import Ended, until_ended
from skyisland.model import Clone, JailSpec, Limits, NetworkAccess, Snapshot

NOT_AS_ASSUMED = "please report what was found, with the output of `freebsd-version -ku` and `zfs version`"
LIMITS = Limits(memory_bytes=64 << 20, pids=64, cpus=1.0, open_files=99, file_bytes=7 << 20)
"""Odd numbers of files and bytes, so that no limit of the host's is taken for ours."""
END_TIMEOUT_S = 20
"""How long a trial's script may take; it takes milliseconds, under emulation a second."""
OOM_TIMEOUT_S = 30
"""How long a growing process may take until it is killed; on an emulated 15.0 it took 2.3 s at most."""
SLOW_S = 0.5
"""A clone that takes longer makes calls wait. On an emulated 15.0 one took 0.35 s at most."""
NO_BASE = Snapshot("none", Path("/nonexistent"))
EMPTY_RULESET = 6061
"""The number of a devfs ruleset that presumably nobody has filled."""


class WrongAssumption(Exception):
    """The host does not behave as the drivers assume."""


class FreeBSDChecks:
    """The `Examiner` of FreeBSD."""

    def __init__(self, jails: FreeBSDJails, clones: ZfsClones, *, full: bool = False) -> None:
        """`jails`, `clones`: of an island that exists for this examination only. `full`: make the trials."""
        self.jails = jails
        self.clones = clones
        self.full = full
        self._numbers = itertools.count(1)
        self._base: Snapshot | None = None

    async def examine(self) -> list[Check]:
        """See `Examiner`. With `full` it takes a minute or two, because it unpacks a base system."""
        checks = [await vital("zfs", self.clones.check_dataset), await vital("jails", self._fit)]
        checks += from_capabilities([*self.jails.capabilities(), *self.clones.capabilities()])
        if self.full and all(check.ok for check in checks if check.vital):
            checks.append(await vital("launcher", self._compiled))
            checks.append(await vital("base system", self._sweep))
            for name, trial in self.trials().items() if all(check.ok for check in checks[-2:]) else ():
                checks.append(await self._try(name, trial))
            checks.append(await self._try("everything is taken back", self._remove_everything))
        return checks

    async def _fit(self) -> str:
        await self.jails.check_host()
        return "the kernel has every parameter, and there are users and devfs rules"

    async def _compiled(self) -> str:
        await self.jails.prepare(NO_BASE)
        return f"compiled in {self.jails.launcher.folder}"

    async def _sweep(self) -> str:
        """Make the base, and remove what an interrupted examination left."""
        self._base = await self.clones.prepare()
        for name in await self.jails.existing():
            await self.jails.remove(name)
        for clone in await self.clones.existing():
            await self.clones.destroy(clone)
        return f"{self._base.name}, for these trials"

    async def _remove_everything(self) -> str:
        await self.clones.remove_everything()
        return f"{self.clones.root} is gone"

    async def _try(self, name: str, trial: Callable[[], Awaitable[str]]) -> Check:
        try:
            return Check(name=name, ok=True, found=await trial())
        except WrongAssumption as wrong:
            return Check(name=name, ok=False, found=str(wrong), remedy=NOT_AS_ASSUMED)
        except (IslandError, OSError) as failure:
            return Check(name=name, ok=False, found=f"not known: {failure}", remedy=NOT_AS_ASSUMED)

    def trials(self) -> dict[str, Callable[[], Awaitable[str]]]:
        """What is tried in jails and clones, by name."""
        return {
            "python": self._python,
            "a jail runs a program": self._runs,
            "exit codes and signals come through": self._codes,
            "who a jail is": self._identity,
            "resource limits from inside": self._limits,
            "the environment of a jail": self._environment,
            "the devices of a jail": self._devices,
            "a devfs ruleset without rules hides nothing": self._no_rules,
            "a jail without allow.suser takes no user": self._no_users,
            "jls is understood": self._listing,
            "a jail without address has no network": self._no_network,
            "too much memory is killed, and told": self._memory,
            "a stray process dies with its jail": self._strays,
            "a clone can be destroyed at once": self._destroy_at_once,
            "clones are quick": self._quick,
            "many clones end by one program": self._program,
            "interfaces can be marked as they are made": self._interfaces,
            "nothing is left": self._nothing,
        }

    @asynccontextmanager
    async def _jail(
        self, script: str, network: NetworkAccess = NetworkAccess.none
    ) -> AsyncIterator[FreeBSDJail]:
        """A jail in which the base's sh(1) runs `script`."""
        async with self._clone() as clone:
            jail = await self.jails.create(self._spec(clone, script, network))
            try:
                yield jail
            finally:
                await jail.destroy()

    @asynccontextmanager
    async def _clone(self) -> AsyncIterator[Clone]:
        assert self._base is not None  # noqa: S101 - `examine` prepares first
        clone = await self.clones.clone(self._base, f"{self.jails.prefix}{next(self._numbers):x}")
        try:
            yield clone
        finally:
            await self.clones.destroy(clone)

    def _spec(self, clone: Clone, script: str, network: NetworkAccess = NetworkAccess.none) -> JailSpec:
        argv = ("/bin/sh", "-c", script)
        return JailSpec(name=clone.name, jid=1, clone=clone, argv=argv, limits=LIMITS, network=network)

    async def _output(self, script: str) -> str:
        """What a script prints in a jail, errors included."""
        async with self._jail(script) as jail:
            await until_ended(jail.process, b"", END_TIMEOUT_S)
            jail.ended()
            output = bytes(jail.process.stdout.data) + bytes(jail.process.stderr.data)
            return output.decode(errors="replace").strip()

    async def _runs(self) -> str:
        _expect(await self._output("echo hello"), "hello")
        return "the launcher makes it, and becomes sh"

    async def _codes(self) -> str:
        for script, expected in (("exit 77", (77, None)), ("kill -KILL $$", (None, signal.SIGKILL))):
            async with self._jail(script) as jail:
                await until_ended(jail.process, b"", END_TIMEOUT_S)
                _expect(jail.ended(), expected)
        return "the launcher becomes the program"

    async def _identity(self) -> str:
        host, _, user = (await self._output('hostname; id -u 2>/dev/null || echo "$(id)"')).partition("\n")
        if user == "0":
            raise WrongAssumption("the process is root")
        return f"{host}, uid {user}"

    async def _limits(self) -> str:
        files, size, core = (await self._output("ulimit -n; ulimit -f; ulimit -c")).split()[:3]
        _expect((files, core), ("99", "0"))
        # sh(1) prints file sizes in blocks of 512 bytes.
        _expect(size, str((7 << 20) // 512))
        return "the launcher sets them"

    async def _environment(self) -> str:
        """sh(1) itself sets PWD and a few others, none of which is a user's."""
        environment = await self._output('echo "$HOME$USER$SHELL$MAIL$LANG$BLOCKSIZE$MM_CHARSET"')
        _expect(environment, "")
        return "nothing is added to it"

    async def _devices(self) -> str:
        visible = set((await self._output("cd /dev && echo *")).split())
        if more := visible - commands.VISIBLE:
            raise WrongAssumption(f"it sees {' '.join(sorted(more))}")
        return f"it sees {' '.join(sorted(visible))}"

    async def _no_rules(self) -> str:
        """The reason why the launcher looks at /dev first."""
        if rules := (await self.jails.programs.run(commands.devices_argv(EMPTY_RULESET))).strip():
            raise DriverError(f"ruleset {EMPTY_RULESET} is not empty: {rules[:200]}")
        return await self._refused(f"d{EMPTY_RULESET}", "in /dev")

    async def _no_users(self) -> str:
        """The reason why `allow.nosuser` is not among the parameters."""
        return f"so allow.nosuser cannot be used: {await self._refused('ballow.nosuser', 'not permitted')}"

    async def _refused(self, word: str, expected: str) -> str:
        """What is said of a jail whose order has one word more, with which it is not to be made."""
        async with self._clone() as clone:
            spec = self._spec(clone, "true")
            try:
                process, _ = await launching.make(
                    await self.jails.launcher.program(),
                    [*self.jails.order(spec, []), word],
                    stdout_bytes=0,
                    stderr_bytes=0,
                )
                process.kill()
                await process.wait()
            except DriverError as failure:
                if expected not in failure.message:
                    raise
                return failure.message
            finally:
                await self.jails.undo(spec)
        raise WrongAssumption(f"a jail was made all the same, with {word}")

    async def _listing(self) -> str:
        async with self._jail("sleep 1000") as jail:
            text = await self.jails.programs.run(commands.LIST_JAILS)
        jails = {one.name: (one.jid, one.path, one.dying) for one in commands.parse_jls(text)}
        _expect(jails.get(jail.spec.name), (jail.spec.jid, str(jail.spec.clone.path), False))
        return f"its format is {text[:40]} …"

    async def _no_network(self) -> str:
        interfaces = await self._output("if [ -x /sbin/ifconfig ]; then /sbin/ifconfig; fi")
        if "inet" in interfaces.split():
            raise WrongAssumption(f"it has an address: {interfaces}")
        return "no address inside"

    async def _memory(self) -> str:
        if not self.jails.limits:
            return "not tried: RACCT is off"
        started = time.monotonic()
        async with self._jail('a=x; while :; do a="$a$a"; done') as jail:
            how = await until_ended(jail.process, b"", OOM_TIMEOUT_S)
            if how is Ended.late:
                raise WrongAssumption(f"a process with a limit of 64 MB grew for {OOM_TIMEOUT_S} s")
            if not jail.ran_out_of_memory():
                raise WrongAssumption(f"it ended with {jail.process.returncode}, and nothing tells why")
        return f"after {time.monotonic() - started:.1f} s"

    async def _strays(self) -> str:
        async with self._jail("sleep 1000 & sleep 1000 & exit 0") as jail:
            await until_ended(jail.process, b"", END_TIMEOUT_S)
        jails = commands.parse_jls(await self.jails.programs.run(commands.LIST_JAILS))
        if jail.spec.name in [other.name for other in jails if not other.dying]:
            raise WrongAssumption("the jail is still there")
        return "it is gone"

    async def _destroy_at_once(self) -> str:
        """With an open file in the clone, which keeps a dying jail longest."""
        started = time.perf_counter()
        async with self._jail("exec 3>/tmp/open; sleep 1000"):
            await asyncio.sleep(0.2)
        return f"jail and clone in {(time.perf_counter() - started - 0.2) * 1000:.0f} ms"

    async def _quick(self) -> str:
        assert self._base is not None  # noqa: S101 - `examine` prepares first
        await self.clones.close()
        started = time.perf_counter()
        clone = await self.clones.clone(self._base, f"{self.jails.prefix}quick")
        made_s = time.perf_counter() - started
        await self.clones.destroy(clone)
        gone_s = time.perf_counter() - started - made_s
        text = f"made in {made_s * 1000:.0f} ms, destroyed in {gone_s * 1000:.0f} ms"
        if made_s > SLOW_S:
            raise WrongAssumption(f"{text}: calls wait when the clones made ahead are used up")
        return text

    async def _program(self) -> str:
        assert self._base is not None  # noqa: S101 - `examine` prepares first
        clones = [await self.clones.clone(self._base, f"{self.jails.prefix}m{n}") for n in range(4)]
        await asyncio.gather(*(self.clones.destroy(clone) for clone in clones))
        if not self.clones.destroyer.with_program:
            raise WrongAssumption("zfs program does not work; clones end one by one")
        return "zfs program works"

    async def _interfaces(self) -> str:
        run = self.jails.programs.run
        for argv, group in (
            (network.epair_argv(TRIAL_ISLAND), network.ports(TRIAL_ISLAND)),
            (network.bridge_argv("skydoctor", TRIAL_ISLAND), network.bridges(TRIAL_ISLAND)),
        ):
            name = (await run(argv)).strip()
            try:
                members = (await run(network.members_argv(group))).split()
                if members != [name]:
                    raise WrongAssumption(f"{name} was made, and its group has {members}")
            finally:
                await run(network.destroy_argv(name))
        return "ifconfig puts an epair and a bridge into groups as it makes them"

    async def _nothing(self) -> str:
        if left := await self.jails.existing():
            raise DriverError(f"jails, mounts or rules of {', '.join(left)}")
        if clones := [clone.name for clone in await self.clones.existing()]:
            raise WrongAssumption(f"clones of {', '.join(clones)}: a dying jail holds them")
        return "no jail, mount, rule or clone"

    async def _python(self) -> str:
        return f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"


def _expect(actual: object, expected: object) -> None:
    if actual != expected:
        raise WrongAssumption(f"found {actual!r}, expected {expected!r}")
