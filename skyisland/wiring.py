"""From settings to an island: the one place that chooses drivers.

    settings ─▶ state folder, lock ─▶ State ─▶ rooms ─▶ Island

One island at a time runs on a state folder: the lock file is held for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from skyisland import __version__
from skyisland.builds.builds import Builds
from skyisland.doctor import TRIAL_ISLAND, Examiner, Unusable
from skyisland.errors import HostUnfit, SettingsError
from skyisland.events import Events
from skyisland.host.load import HostMeter
from skyisland.host.programs import Programs
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchains
from skyisland.host.uids import LOCKS
from skyisland.island import Island
from skyisland.jails.addresses import Addresses, NoInterfaces
from skyisland.jails.driver import CloneDriver, JailDriver, NetworkDriver
from skyisland.jails.register import Jails
from skyisland.later.keeping import NotKept, Store
from skyisland.later.lines import Room
from skyisland.later.sqlite import SqliteStore
from skyisland.named.names import Names
from skyisland.named.secrets import Secrets
from skyisland.named.sqlite import SqliteNames
from skyisland.receipts.signing import Signer
from skyisland.record.state import State
from skyisland.rooms import BuildRoom, SourceRoom
from skyisland.settings import Async, Layout, Settings
from skyisland.settings.files import check_folder, make_private
from skyisland.sources.sources import Sources

if TYPE_CHECKING:
    from skyisland.drivers.zfs.clones import BaseSystem
    from skyisland.fleet.fleet import Fleet

LINUX = sys.platform.startswith("linux")
CAP_SYS_ADMIN = 21
"""linux/capability.h"""
FREEBSD = sys.platform.startswith("freebsd")


@asynccontextmanager
async def opened(
    settings: Settings,
    events: Events,
    *,
    search_path: str = "",
    credentials_dir: str = "",
    progress: Progress = silent,
    succeeds: Callable[[], object] | None = None,
) -> AsyncIterator[Island]:
    """An island made by its settings and not yet started. After the block its database is closed.

    `credentials_dir`: where systemd put the credentials of this service. `succeeds`: called when all is
    ready but the state folder, which another island has; then its end is waited for.

    Raises:
        SettingsError: the state folder cannot be used, or another island runs on it.
        HostUnfit: this system has no driver of that name.
    """
    layout = settings.layout
    # A root that runs bubblewrap gives up its rights before it looks for the folders of a jail.
    driver = await asyncio.to_thread(chosen_driver, settings)
    gives_up = driver == "bubblewrap" and os.geteuid() == 0
    builder = settings.jails.uid_start if gives_up else None
    lock = await asyncio.to_thread(_claim, layout, builder, succeeds)
    try:
        state = await State.open(layout.db)
        try:
            async with _fleet(settings, state) as fleet:
                names, secrets = await _names(settings, fleet), Secrets(layout.secrets)
                store = await _keeping(settings, fleet)
                try:
                    await secrets.load()
                    yield _wire(
                        settings,
                        events,
                        state,
                        names,
                        secrets,
                        store,
                        search_path,
                        credentials_dir,
                        progress,
                        fleet,
                    )
                finally:
                    await names.close()
                    if not isinstance(store, NotKept):
                        await store.close()
        finally:
            await state.close()
    finally:
        os.close(lock)


@asynccontextmanager
async def _fleet(settings: Settings, state: State) -> AsyncIterator[Fleet | None]:
    """The fleet that the settings name, begun and not yet joined; None where they name none. Nothing of it is
    imported then."""
    if not settings.fleet.name:
        yield None
        return
    try:
        from skyisland.fleet.opening import opened as fleet_opened
    except ModuleNotFoundError as error:
        raise SettingsError("fleet: nats-py is not installed; pip install 'skyisland[fleet]'") from error
    async with fleet_opened(settings, state) as fleet:
        yield fleet


async def _names(settings: Settings, fleet: Fleet | None) -> Names:
    """What keeps names: this island, or its fleet."""
    if fleet is None:
        return await SqliteNames.open(settings.layout.names)
    from skyisland.fleet.opening import names_of

    return await names_of(settings, fleet)


async def _keeping(settings: Settings, fleet: Fleet | None) -> Store | NotKept:
    """What keeps calls that answer later; or why nothing does: the island runs the others all the same."""
    own = await _keeping_here(settings)
    if fleet is None:
        return own
    from skyisland.fleet.opening import store_of

    return await store_of(settings, fleet, own, _room(settings.async_))


def _room(bounds: Async) -> Room:
    return Room(
        orders=bounds.max_queued,
        orders_per_client=bounds.queued_per_client or max(1, bounds.max_queued // 2),
        size_bytes=bounds.queue_limit,
        size_bytes_per_client=bounds.queue_limit // 2,
    )


async def _keeping_here(settings: Settings) -> Store | NotKept:
    """What keeps them in files of this island."""
    bounds, layout = settings.async_, settings.layout
    try:
        return await SqliteStore.open(
            layout.calls,
            layout.results,
            _room(bounds),
            keep_s=bounds.keep,
            keep_dead_s=bounds.keep_dead,
            limit_bytes=bounds.results_limit,
        )
    except NotKept as unusable:
        return unusable


def _claim(layout: Layout, builder: int | None, succeeds: Callable[[], object] | None) -> int:
    """Make the state folder and lock it; returns the lock's descriptor.

    Everybody may pass through the folder, because the users of jails own some of what lies below. Secret
    files in it are 0600. Nobody else may enter the folders with what private repositories hold, but the
    group `builder` passes through the checkouts.
    """
    check_folder(layout.state_dir)
    try:
        make_private(layout.state_dir, 0o711)
        for folder in (layout.repos, layout.artifacts, layout.catalogues, layout.checkouts):
            make_private(folder)
        if builder is not None:
            os.chown(layout.checkouts, -1, builder)
            layout.checkouts.chmod(0o710)
        make_private(layout.run, 0o711)
        lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(
            f"state_dir: cannot use {layout.state_dir}: {error.strerror}; choose a folder that is yours"
        ) from error
    if succeeds is not None:
        succeeds()
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SettingsError(
            f"state_dir: another island runs on {layout.state_dir}; stop it, or choose another folder"
        ) from None
    return lock


def _wire(
    settings: Settings,
    events: Events,
    state: State,
    names: Names,
    secrets: Secrets,
    store: Store | NotKept,
    search_path: str,
    credentials_dir: str,
    progress: Progress,
    fleet: Fleet | None,
) -> Island:
    layout = settings.layout
    root = os.geteuid() == 0
    first_uid, uids = settings.jails.uid_start, None
    if root:
        # The first uid of the range is for builds, which own the build caches, the second for Git, which owns
        # the mirrors; jails of calls get the others.
        uids = range(first_uid + 2, first_uid + settings.jails.uid_count)
    toolchains = toolchains_for(settings, search_path)
    programs = Programs()
    network = network_driver(settings, state.island, programs)
    addresses = Addresses(settings.network.ip4, network, state, events, calls=settings.jails)
    jails = Jails(
        jail_driver(settings, state.island, network, toolchains, progress, programs),
        clone_driver(settings, state.island, progress, programs),
        addresses,
        events,
        island=state.island,
        uids=uids,
        uid_locks=LOCKS,
        first_number=state.first_number,
    )
    state.follow(events)
    sources: SourceRoom
    builds: BuildRoom
    if settings.jails.driver == "fake":
        # A build needs a real jail, so with fake ones builds are fake too.
        from skyisland.fakes import FakeBuilds, FakeSources

        sources, builds = FakeSources(), FakeBuilds()
    else:
        sources = Sources(
            settings.repositories,
            layout.repos,
            layout.checkouts,
            trust_s=settings.jails.cache_default_expiration,
            known=state,
            events=events,
            uid=first_uid + 1 if root else None,
            credentials_dir=credentials_dir,
            common=fleet.commits if fleet is not None else None,
        )
        builds = Builds(
            settings.build,
            layout,
            jails=jails,
            records=state,
            events=events,
            toolchains=toolchains,
            timeout_s=settings.jails.build_timeout,
            unused_s=settings.jails.cache_purge_after,
            uid=first_uid if root else None,
            failures_kept_s=settings.jails.failures_expire,
            exchange=fleet.binaries if fleet is not None else None,
        )
    return Island(
        name=state.island,
        version=__version__,
        policy=settings.policy,
        events=events,
        sources=sources,
        builds=builds,
        jails=jails,
        network=addresses,
        history=state,
        names=names,
        secrets=secrets,
        store=store,
        later=settings.async_,
        meter=HostMeter(settings.layout.state_dir),
        signer=Signer(Path(settings.receipts.key or layout.receipts / "key"), own=not settings.receipts.key),
        fleet=fleet,
    )


def clone_driver(
    settings: Settings,
    island: str,
    progress: Progress = silent,
    programs: Programs | None = None,
    *,
    trial: bool = False,
) -> CloneDriver:
    """The storage that gives jails their roots. `programs`: shared with the other drivers. `trial`: for
    `doctor`; does not disturb an island that runs with the same settings.

    Raises:
        HostUnfit: this system has no storage of that name.
    """
    storage = "fake" if settings.jails.driver == "fake" else settings.filesystem.storage
    if storage == "auto":
        storage = "overlay" if LINUX else "zfs"
    if storage == "fake":
        from skyisland.drivers.fake import FakeClones

        return FakeClones()
    if storage == "overlay" and LINUX:
        from skyisland.drivers.linux.overlay import OverlayClones

        return OverlayClones(settings.layout.base)
    if storage == "zfs" and (LINUX or FREEBSD):
        from skyisland.drivers.zfs.clones import ZfsClones

        if not settings.filesystem.zfs_dataset:
            raise HostUnfit(
                'filesystem.zfs_dataset is not set; name the pool or dataset to use, such as "zroot"'
            )
        return ZfsClones(
            settings.filesystem.zfs_dataset,
            island,
            jails=settings.layout.jails,
            bases=settings.layout.base / island if trial else settings.layout.base,
            base=_base_system(settings, progress, update=not trial),
            compression=settings.filesystem.compression,
            quota_bytes=settings.filesystem.quota or None,
            programs=programs,
        )
    raise HostUnfit(f"filesystem.storage: {storage!r} does not work on this system; use 'auto'")


def _base_system(settings: Settings, progress: Progress, *, update: bool) -> BaseSystem:
    """What every clone by ZFS is cloned from. `update`: patch it when it is laid, where it is a release."""
    if FREEBSD:
        from skyisland.drivers.freebsd.base import FreeBSDBase

        release = settings.release or "-".join(os.uname().release.split("-")[:2])
        return FreeBSDBase(
            release,
            cache=settings.layout.archives,
            source=settings.base_sys_pkg_dir,
            update=update,
            progress=progress,
        )
    from skyisland.drivers.linux.base import LinuxBase

    return LinuxBase()


def toolchains_for(settings: Settings, search_path: str) -> Toolchains:
    """Finds the Go toolchain that the settings ask for."""
    return Toolchains(
        settings.layout.toolchain,
        goroot=settings.build.goroot,
        version=settings.go_version,
        search_path=search_path,
    )


def chosen_driver(settings: Settings) -> str:
    """The driver of jails, by its name: for "auto", the first that works with the rights that there are.

    Blocks when it is first asked for "auto".
    """
    if settings.jails.driver != "auto":
        return settings.jails.driver
    if not LINUX:
        return "freebsd"
    return "namespaces" if os.geteuid() == 0 and _administers() else "bubblewrap"


@functools.cache
def _administers() -> bool:
    """Whether this process began with CAP_SYS_ADMIN, which root in a container may lack (proc(5)). Blocks."""
    text = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in text.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


def jail_driver(
    settings: Settings,
    island: str,
    network: NetworkDriver | None,
    toolchains: Toolchains,
    progress: Progress = silent,
    programs: Programs | None = None,
) -> JailDriver:
    """What confines. `network`: None where no jail is to have an address. `toolchains`: for the driver's own
    program, where it has one.

    Raises:
        HostUnfit: this system has no driver of that name.
    """
    driver, root = chosen_driver(settings), os.geteuid() == 0
    if driver == "fake":
        from skyisland.drivers.fake import FakeJails

        return FakeJails()
    if driver == "namespaces" and LINUX:
        from skyisland.drivers.linux.launching import Launcher
        from skyisland.drivers.linux.namespaces import NamespaceJails

        layout, uid = settings.layout, settings.jails.uid_start
        launcher = Launcher(layout.launcher, toolchains, library=layout.gocache, uid=uid, progress=progress)
        clones = layout.jails if settings.filesystem.storage == "zfs" else None
        return NamespaceJails(island, layout.run, launcher, probe_uid=uid, clones=clones)
    if driver == "bubblewrap" and LINUX:
        from skyisland.drivers.linux.bubblewrap import BubblewrapJails

        run = settings.layout.run
        return BubblewrapJails(island, run, probe_uid=settings.jails.uid_start if root else None)
    if driver == "freebsd" and FREEBSD:
        from skyisland.drivers.freebsd.jails import FreeBSDJails
        from skyisland.drivers.freebsd.launching import Launcher as FreeBSDLauncher
        from skyisland.drivers.freebsd.network import FreeBSDNetwork

        layout, uid = settings.layout, settings.jails.uid_start
        return FreeBSDJails(
            island,
            FreeBSDLauncher(layout.launcher, toolchains, library=layout.gocache, uid=uid, progress=progress),
            jails=settings.layout.jails,
            network=network if isinstance(network, FreeBSDNetwork) else None,
            build_uid=uid,
            children_max=settings.jails.children_max,
            programs=programs,
        )
    raise HostUnfit(f"jails.driver: {driver!r} does not work on this system; use 'auto'")


def network_driver(settings: Settings, island: str, programs: Programs | None = None) -> NetworkDriver:
    """The driver that gives jails interfaces on this system."""
    ip4 = settings.network.ip4
    if settings.jails.driver == "fake":
        return NoInterfaces("fake jails have no interfaces", 'set jails.driver = "auto"')
    if LINUX:
        from skyisland.drivers.linux.bridge import BridgeNetwork

        return BridgeNetwork(ip4, island=island)
    if FREEBSD:
        from skyisland.drivers.freebsd.network import FreeBSDNetwork

        return FreeBSDNetwork(ip4, island=island, vnet=ip4.vnet, programs=programs)
    return NoInterfaces("there is no network driver for this system")


def examiners(
    settings: Settings, network: NetworkDriver | None, toolchains: Toolchains, *, full: bool
) -> list[Examiner]:
    """The checks of the drivers that these settings choose. Nothing is touched before they examine.

    `network`: what `doctor` prepares; None beside an island that runs and has it. `full`: try in jails of
    their own what the drivers assume of this system, where that is of use.

    Raises:
        HostUnfit: this system has no driver of that name.
    """
    if FREEBSD:
        from skyisland.drivers.freebsd.checks import FreeBSDChecks
        from skyisland.drivers.freebsd.jails import FreeBSDJails
        from skyisland.drivers.zfs.clones import ZfsClones

        jails = jail_driver(settings, TRIAL_ISLAND, network, toolchains)
        try:
            clones = clone_driver(settings, TRIAL_ISLAND, trial=True)
        except HostUnfit as unfit:
            return [Unusable("zfs", unfit)]
        if isinstance(jails, FreeBSDJails) and isinstance(clones, ZfsClones):
            return [FreeBSDChecks(jails, clones, full=full)]
        return []
    chosen: list[Examiner] = []
    if LINUX:
        from skyisland.drivers.linux.checks import LinuxChecks
        from skyisland.drivers.linux.launching import Launcher

        root, driver = os.geteuid() == 0, chosen_driver(settings)
        launcher = Launcher(settings.layout.launcher, toolchains) if driver == "namespaces" else None
        uid = settings.jails.uid_start if root else None
        lacking = root and settings.jails.driver == "auto" and driver == "bubblewrap"
        chosen.append(LinuxChecks(settings.state_dir, uid=uid, launcher=launcher, lacking=lacking))
    if settings.filesystem.storage == "zfs":
        from skyisland.drivers.zfs.checks import ZfsChecks
        from skyisland.drivers.zfs.clones import ZfsClones

        clones = clone_driver(settings, TRIAL_ISLAND, trial=True)
        if isinstance(clones, ZfsClones):
            chosen.append(ZfsChecks(clones))
    return chosen
