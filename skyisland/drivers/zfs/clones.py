"""Clones by ZFS, on FreeBSD and on Linux.

    <dataset>/sky-<island>                 marked with the island's name
    ├── base/<generation>@ready            filled once, held, then read-only
    └── run/sky-<island>-<random>          one clone per jail, with a quota

Making a dataset waits for a transaction group, so a few clones are made ahead of the jails. Such a clone has
a random name, and only `ZfsClones` knows which jail got it. A clone that was handed out is never handed out
again. Neither is one that an earlier run of the island left, because a function may have run in it.

`destroyer` destroys clones; `commands` has the command lines.
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
from skyisland.model import Clone, Snapshot
from skyisland.status import Capability

log = logging.getLogger(__name__)


class BaseSystem(Protocol):
    """The content of the base that clones are made of."""

    @property
    def generation(self) -> str:
        """The name of this content: a base of another generation is replaced."""
        ...

    async def lay(self, root: Path) -> None:
        """Write the content into the empty folder `root`.

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
        busy_timeout_s: float = 90.0,
        programs: Programs | None = None,
    ) -> None:
        """`dataset`: the operator's dataset, below which the island makes its own. `jails`, `bases`: the
        folders where clones and generations of the base are mounted. `base`: the content of the base.
        `ahead`: how many clones are made ahead. `busy_timeout_s`: for how long a busy dataset is retried; a
        dying jail pins its root while sockets are in TIME_WAIT, twice 30 s."""
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
        self.destroyer = Destroyer(dataset.partition("/")[0], jails, busy_timeout_s, self._programs)
        self._snapshot: Snapshot | None = None
        # In the following, a clone is named by the last part of its dataset's name.
        self._stock: list[str] = []
        """Clones made ahead."""
        self._making: set[str] = set()
        """Clones that are being made."""
        self._jail_of: dict[str, str] = {}
        """Clone → the jail that it was handed out for."""
        self._stocking: asyncio.Task[None] | None = None
        """Makes clones ahead."""
        self._closed = False

    # The base

    async def prepare(self) -> Snapshot:
        """See `CloneDriver`. A base that an interrupted attempt left incomplete is made again."""
        self._closed = False
        self.destroyer.open()
        datasets = await self._datasets()
        if self.root not in datasets:
            await self._make_root()
            datasets = await self._datasets()
        mark = datasets[self.root].mark
        if mark != self.island:
            raise HostUnfit(
                f"the dataset {self.root} exists but was not made by this island ({commands.MARK}={mark}); "
                "rename it, or set filesystem.zfs_dataset to another",
                dataset=self.root,
            )
        for name, properties in self._parents().items():
            if name not in datasets:
                await self._zfs(commands.create_argv(name, **properties))
        generation = f"{self.root}/base/{self._base.generation}"
        snapshot = f"{generation}@{commands.READY}"
        path = self.bases / self._base.generation
        if snapshot not in datasets:
            await self._make_base(generation, path, incomplete=generation in datasets)
        elif generation in datasets and not datasets[generation].mounted:
            await self._zfs(commands.argv("mount", generation))
        await self._hold(snapshot)
        await self._retire(datasets, keep=generation)
        self._snapshot = Snapshot(snapshot, path)
        return self._snapshot

    async def check_dataset(self) -> str:
        """Check that the operator's dataset exists, and name it. Makes nothing.

        Raises:
            HostUnfit: there is no such pool or dataset.
        """
        parent = self.root.rpartition("/")[0]
        try:
            await self._zfs(commands.list_argv(parent, depth=0))
        except ProgramFailed as failure:
            raise self._no_parent(failure) from failure
        return f"the dataset {parent}"

    async def _datasets(self) -> dict[str, commands.Dataset]:
        """The island's datasets and snapshots, by name."""
        try:
            text = await self._zfs(commands.list_argv(self.root, depth=3, types="filesystem,snapshot"))
        except ProgramFailed as failure:
            if commands.is_missing(failure):
                return {}
            raise
        return {dataset.name: dataset for dataset in commands.parse_list(text)}

    def _parents(self) -> dict[str, dict[str, str]]:
        """The datasets below the root that only contain others, with the properties that these inherit."""
        not_mounted = {"canmount": "off"}
        # Clones live for one call, so no write to them needs to survive a crash: sync=disabled.
        run = {"sync": "disabled", "atime": "off", "setuid": "off", "exec": "on"}
        if sys.platform == "linux":
            run["devices"] = "off"  # on FreeBSD only devfs has device nodes
        return {
            f"{self.root}/base": {**not_mounted, "mountpoint": str(self.bases), "atime": "off"},
            self.run_dataset: {**not_mounted, "mountpoint": str(self.jails), **run},
        }

    async def _make_root(self) -> None:
        properties = {"canmount": "off", "mountpoint": "none", "compression": self._compression}
        create = commands.create_argv(self.root, **properties, **{commands.MARK: self.island})
        try:
            await self._zfs(create)
        except ProgramFailed as failure:
            if "does not exist" in failure.stderr or "no such pool" in failure.stderr:
                raise self._no_parent(failure) from failure
            raise

    def _no_parent(self, failure: ProgramFailed) -> HostUnfit:
        parent = self.root.rpartition("/")[0]
        return HostUnfit(
            f"there is no dataset {parent} ({failure.stderr}); see `zfs list`, then set "
            f"filesystem.zfs_dataset, or make it: zfs create {parent}",
            dataset=parent,
        )

    async def _make_base(self, generation: str, path: Path, *, incomplete: bool) -> None:
        if incomplete:
            await self._zfs(commands.destroy_argv(generation))
        await self._zfs(commands.create_argv(generation))
        await self._check_mounted(generation)
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
            if "tag already exists" not in failure.stderr:
                raise

    async def _retire(self, datasets: dict[str, commands.Dataset], *, keep: str) -> None:
        """Destroy all generations but one. A snapshot that still has clones goes with the last of them, and
        its dataset at a later start."""
        generations = [name for name in datasets if name.startswith(f"{self.root}/base/") and "@" not in name]
        for name in generations:
            if name == keep:
                continue
            snapshot = f"{name}@{commands.READY}"
            steps = [
                commands.argv("release", commands.HOLD, snapshot),
                commands.retire_argv(snapshot),
                commands.destroy_argv(name),
            ]
            for step in steps if snapshot in datasets else steps[-1:]:
                try:
                    await self._zfs(step)
                except ProgramFailed as failure:
                    log.info("the old base %s stays for now: %s", name, failure.stderr)

    # Clones

    async def clone(self, base: Snapshot, name: str) -> Clone:
        """See `CloneDriver`; takes a clone made ahead if there is one."""
        current = self._snapshot is not None and base.name == self._snapshot.name
        clone = self._stock.pop(0) if self._stock and current else await self._make(base)
        self._jail_of[clone] = name
        self._restock(base)
        return Clone(name, base, self.jails / clone)

    async def _make(self, base: Snapshot) -> str:
        """Make a clone, and return its name."""
        clone = f"sky-{self.island}-{secrets.token_hex(5)}"
        dataset = f"{self.run_dataset}/{clone}"
        self._making.add(clone)
        try:
            async with self._programs.places:
                await self._zfs(commands.clone_argv(base.name, dataset, self._quota_bytes))
                await self._check_mounted(dataset)
        except BaseException:
            # The dataset may exist all the same: if only mounting fails, `zfs clone` exits with 1 before
            # OpenZFS 2.4 and with 0 since then.
            self.destroyer.retry_in_background(dataset)
            raise
        finally:
            self._making.discard(clone)
        return clone

    async def _check_mounted(self, dataset: str) -> None:
        mounted = (await self._zfs(commands.mounted_argv(dataset))).strip()
        if mounted != "yes":
            raise DriverError(
                f"{dataset} exists but is not mounted: is something in the way at its mount point? "
                f"try: zfs mount {dataset}",
                dataset=dataset,
            )

    def _restock(self, base: Snapshot) -> None:
        """Make the missing clones ahead, one at a time, in the background."""
        if self._closed or (self._stocking is not None and not self._stocking.done()):
            return
        if self._ahead > len(self._stock):
            self._stocking = asyncio.ensure_future(self._fill(base))

    async def stocked(self) -> None:
        """Returns when the clones ahead are made, or cannot be."""
        if self._stocking is not None:
            await self._stocking

    async def _fill(self, base: Snapshot) -> None:
        try:
            while len(self._stock) < self._ahead and not self._closed:
                clone = await self._make(base)
                self._stock.append(clone)
        except DriverError as failure:
            log.warning("no clones can be made ahead: %s", failure.message)

    async def existing(self) -> list[Clone]:
        """See `CloneDriver`; leaves out clones that are made ahead or being made."""
        try:
            text = await self._zfs(commands.list_argv(self.run_dataset, depth=1))
        except ProgramFailed as failure:
            if commands.is_missing(failure):
                return []
            raise
        clones = []
        for dataset in commands.parse_list(text):
            clone = dataset.name.removeprefix(f"{self.run_dataset}/")
            if dataset.name != self.run_dataset and clone not in {*self._stock, *self._making}:
                origin = Snapshot(dataset.origin, self.bases / self._base.generation)
                clones.append(Clone(self._jail_of.get(clone, clone), origin, self.jails / clone))
        return clones

    # Destroying

    async def destroy(self, clone: Clone) -> None:
        """See `CloneDriver`.

        Raises:
            DriverError: it is busy; it is retried in the background, and at the next start.
        """
        if clone.path is None or clone.path.parent != self.jails:
            return  # it was never made
        await self.destroyer.destroy(f"{self.run_dataset}/{clone.path.name}")
        self._jail_of.pop(clone.path.name, None)

    async def close(self) -> None:
        """Destroy the clones made ahead, and wait until no dataset is being destroyed."""
        self._closed = True
        await self.stocked()
        stock, self._stock = self._stock, []
        destructions = [self.destroyer.destroy(f"{self.run_dataset}/{clone}") for clone in stock]
        for failure in await asyncio.gather(*destructions, return_exceptions=True):
            if isinstance(failure, BaseException):
                log.error("a clone made ahead stays until the next start: %s", failure)
        await self.destroyer.close()

    async def remove_everything(self) -> None:
        """Destroy all of the island's datasets, the base included. No clone may exist any more.

        Raises:
            HostUnfit, DriverError
        """
        await self.close()
        self._snapshot = None
        for name in sorted(await self._datasets(), reverse=True):  # children before parents
            if name.endswith(f"@{commands.READY}"):
                with contextlib.suppress(ProgramFailed):  # not held: an earlier attempt got no further
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

    async def _zfs(self, command: tuple[str, ...]) -> str:
        return await commands.zfs(self._programs, command)
