"""Clones by ZFS, on FreeBSD and on Linux.

    <dataset>/sky-<island>                 marked as the island's own
    ├── base/<generation>@ready            laid once, held, then read-only
    └── run/sky-<island>-<random>          one clone per jail, with a quota

Making a dataset waits for a transaction group, so a few clones are made ahead; `destroyer` destroys them. A
clone made ahead belongs to nobody; it bears the jail's name only in our books. A clone that was handed out
is never handed out again, and neither is one that an earlier life left: who knows what ran in it.

The command lines stand in `commands`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from pathlib import Path
from typing import Protocol

from skyisland.drivers.zfs import commands
from skyisland.drivers.zfs.destroyer import Destroyer
from skyisland.errors import DriverError, HostUnfit
from skyisland.host.programs import ProgramFailed, Programs
from skyisland.model import Capability, Clone, Snapshot

log = logging.getLogger(__name__)


class BaseSystem(Protocol):
    """What a generation of the base consists of."""

    @property
    def generation(self) -> str:
        """Names what `lay` lays; another name means other content."""
        ...

    async def lay(self, root: Path) -> None:
        """Fill the empty folder `root`.

        Raises:
            DriverError, HostUnfit
        """
        ...


class ZfsClones:
    """A `CloneDriver` on ZFS."""

    name = "zfs"

    def __init__(
        self,
        dataset: str,
        island: str,
        *,
        jails: Path,
        bases: Path,
        base: BaseSystem,
        compression: bool = False,
        quota_bytes: int | None = 256 << 20,
        ahead: int = 4,
        patience_s: float = 90.0,
        programs: Programs | None = None,
    ) -> None:
        """`dataset`: the operator's, below which the island makes its own. `jails`, `bases`: where clones
        and generations of the base are mounted. `base`: what is cloned, laid once. `ahead`: clones made
        before they are needed.
        `patience_s`: for how long a busy dataset is tried again."""
        self.root = f"{dataset}/sky-{island}"
        self.run_dataset = f"{self.root}/run"
        self.jails = jails
        self.bases = bases
        self.island = island
        self._base = base
        self._compression = "on" if compression else "off"
        self._quota_bytes = quota_bytes
        self._ahead = ahead
        self._programs = programs or Programs()
        self.destroyer = Destroyer(dataset.partition("/")[0], jails, patience_s, self._programs)
        self._snapshot: Snapshot | None = None
        self._stock: list[str] = []
        """Clones made ahead, by their last name."""
        self._making: set[str] = set()
        self._given: dict[str, str] = {}
        """Last name of a clone -> name of the jail that it was handed out for."""
        self._stocking: asyncio.Task[None] | None = None
        self._closed = False

    # The base

    async def prepare(self) -> Snapshot:
        """See `CloneDriver`. What an attempt that was cut short left half-made is made anew."""
        self._closed = False
        self.destroyer.open()
        known = await self._known()
        if self.root not in known:
            await self._make_root()
            known = await self._known()
        mark = known[self.root].mark
        if mark != self.island:
            raise HostUnfit(
                f"the dataset {self.root} exists but was not made by this island ({commands.MARK}={mark}); "
                "rename it, or set filesystem.zfs_dataset to another",
                dataset=self.root,
            )
        for name, properties in self._folders().items():
            if name not in known:
                await self._zfs(commands.create_argv(name, **properties))
        generation = f"{self.root}/base/{self._base.generation}"
        snapshot = f"{generation}@{commands.READY}"
        path = self.bases / self._base.generation
        if snapshot not in known:
            await self._lay(generation, path, half_made=generation in known)
        elif generation in known and not known[generation].mounted:
            await self._zfs(commands.argv("mount", generation))
        await self._hold(snapshot)
        await self._retire(known, keep=generation)
        self._snapshot = Snapshot(snapshot, path)
        return self._snapshot

    async def look(self) -> str:
        """What is there already, in words; nothing is made.

        Raises:
            HostUnfit: there is no such pool or dataset.
        """
        parent = self.root.rpartition("/")[0]
        try:
            await self._zfs(commands.list_argv(parent, depth=0))
        except ProgramFailed as failure:
            raise self._no_parent(failure) from failure
        return f"the dataset {parent}"

    async def _known(self) -> dict[str, commands.Dataset]:
        """What of ours exists: datasets, and the snapshots of generations."""
        try:
            text = await self._zfs(commands.list_argv(self.root, depth=3, types="filesystem,snapshot"))
        except ProgramFailed as failure:
            if commands.gone(failure):
                return {}
            raise
        return {found.name: found for found in commands.parse_list(text)}

    def _folders(self) -> dict[str, dict[str, str]]:
        """The datasets below the root that hold others, with what these inherit."""
        only_a_folder = {"canmount": "off"}
        run = {"sync": "disabled", "atime": "off", "setuid": "off", "exec": "on"}
        if sys.platform == "linux":
            run["devices"] = "off"  # FreeBSD's datasets hold no device nodes
        return {
            f"{self.root}/base": {**only_a_folder, "mountpoint": str(self.bases), "atime": "off"},
            self.run_dataset: {**only_a_folder, "mountpoint": str(self.jails), **run},
        }

    async def _make_root(self) -> None:
        properties = {"canmount": "off", "mountpoint": "none", "compression": self._compression}
        create = commands.create_argv(self.root, **properties, **{commands.MARK: self.island})
        try:
            await self._zfs(create)
        except ProgramFailed as failure:
            if "does not exist" in failure.said or "no such pool" in failure.said:
                raise self._no_parent(failure) from failure
            raise

    def _no_parent(self, failure: ProgramFailed) -> HostUnfit:
        parent = self.root.rpartition("/")[0]
        return HostUnfit(
            f"there is no dataset {parent} ({failure.said}); see `zfs list`, then set "
            f"filesystem.zfs_dataset, or make it: zfs create {parent}",
            dataset=parent,
        )

    async def _lay(self, generation: str, path: Path, *, half_made: bool) -> None:
        if half_made:
            await self._zfs(commands.destroy_argv(generation))
        await self._zfs(commands.create_argv(generation))
        await self._must_be_mounted(generation)
        try:
            await self._base.lay(path)
        except OSError as error:
            raise DriverError(f"cannot lay the base system at {path}: {error}", path=str(path)) from error
        await self._zfs(commands.argv("set", "readonly=on", generation))
        await self._zfs(commands.argv("snapshot", f"{generation}@{commands.READY}"))

    async def _hold(self, snapshot: str) -> None:
        try:
            await self._zfs(commands.argv("hold", commands.HOLD, snapshot))
        except ProgramFailed as failure:
            if "tag already exists" not in failure.said:
                raise

    async def _retire(self, known: dict[str, commands.Dataset], *, keep: str) -> None:
        """Let older generations go; one that still carries clones goes with the last of them."""
        old = [name for name in known if name.startswith(f"{self.root}/base/") and "@" not in name]
        for name in old:
            if name == keep:
                continue
            snapshot = f"{name}@{commands.READY}"
            steps = [
                commands.argv("release", commands.HOLD, snapshot),
                commands.retire_argv(snapshot),
                commands.destroy_argv(name),
            ]
            for step in steps if snapshot in known else steps[-1:]:
                try:
                    await self._zfs(step)
                except ProgramFailed as failure:
                    log.info("the old base %s stays for now: %s", name, failure.said)

    # Clones

    async def clone(self, base: Snapshot, name: str) -> Clone:
        """See `CloneDriver`: one made ahead where there is one."""
        ours = self._snapshot is not None and base.name == self._snapshot.name
        last = self._stock.pop(0) if self._stock and ours else await self._make(base)
        self._given[last] = name
        self._restock(base)
        return Clone(name, base, self.jails / last)

    async def _make(self, base: Snapshot) -> str:
        last = f"sky-{self.island}-{secrets.token_hex(5)}"
        dataset = f"{self.run_dataset}/{last}"
        self._making.add(last)
        try:
            await self._zfs(commands.clone_argv(base.name, dataset, self._quota_bytes))
            await self._must_be_mounted(dataset)
        except BaseException:
            # Since 2.4 an exit code of 0, before it one of 1 leaves a dataset that is not mounted.
            self.destroyer.linger(dataset)
            raise
        finally:
            self._making.discard(last)
        return last

    async def _must_be_mounted(self, dataset: str) -> None:
        mounted = (await self._zfs(commands.mounted_argv(dataset))).strip()
        if mounted != "yes":
            raise DriverError(
                f"{dataset} exists but is not mounted: is something in the way at its mount point? "
                f"try: zfs mount {dataset}",
                dataset=dataset,
            )

    def _restock(self, base: Snapshot) -> None:
        """Make clones ahead, one at a time, in the background."""
        if self._closed or (self._stocking is not None and not self._stocking.done()):
            return
        if self._ahead > len(self._stock):
            self._stocking = asyncio.ensure_future(self._fill(base))

    async def _fill(self, base: Snapshot) -> None:
        try:
            while len(self._stock) < self._ahead and not self._closed:
                last = await self._make(base)
                self._stock.append(last)
        except DriverError as failure:
            log.warning("no clones can be made ahead: %s", failure.message)

    async def existing(self) -> list[Clone]:
        """See `CloneDriver`; without those that wait for a jail or are being made."""
        try:
            text = await self._zfs(commands.list_argv(self.run_dataset, depth=1))
        except ProgramFailed as failure:
            if commands.gone(failure):
                return []
            raise
        found = []
        for dataset in commands.parse_list(text):
            last = dataset.name.removeprefix(f"{self.run_dataset}/")
            if dataset.name != self.run_dataset and last not in {*self._stock, *self._making}:
                origin = Snapshot(dataset.origin, self.bases / self._base.generation)
                found.append(Clone(self._given.get(last, last), origin, self.jails / last))
        return found

    # Destroying

    async def destroy(self, clone: Clone) -> None:
        """See `CloneDriver`.

        Raises:
            DriverError: it stays busy; it is tried again in the background, and at the next start.
        """
        if clone.path is None or clone.path.parent != self.jails:
            return  # it was never made
        await self.destroyer.destroy(f"{self.run_dataset}/{clone.path.name}")
        self._given.pop(clone.path.name, None)

    async def close(self) -> None:
        """Destroy the clones made ahead, and wait for what is being destroyed."""
        self._closed = True
        if self._stocking is not None:
            await self._stocking
        stock, self._stock = self._stock, []
        endings = [self.destroyer.destroy(f"{self.run_dataset}/{last}") for last in stock]
        for failure in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(failure, BaseException):
                log.error("a clone made ahead stays until the next start: %s", failure)
        await self.destroyer.close()

    async def vanish(self) -> None:
        """Take back everything, generations of the base included; none may carry a clone any more.

        Raises:
            HostUnfit, DriverError
        """
        await self.close()
        self._snapshot = None
        for name in sorted(await self._known(), reverse=True):  # what lies deeper comes first
            if name.endswith(f"@{commands.READY}"):
                with contextlib.suppress(ProgramFailed):  # not held: it was cut short before
                    await self._zfs(commands.argv("release", commands.HOLD, name))
            await self._zfs(commands.destroy_argv(name))

    def capabilities(self) -> list[Capability]:
        quota = self._quota_bytes
        return [
            Capability(name="copy_on_write", enforced=True, how=f"ZFS clones in {self.run_dataset}"),
            Capability(
                name="disk",
                enforced=quota is not None,
                how=f"a quota of {quota} bytes on each clone" if quota else "there is no quota",
                remedy="" if quota else "set filesystem.quota",
            ),
        ]

    async def _zfs(self, words: tuple[str, ...]) -> str:
        return await commands.zfs(self._programs, words)
