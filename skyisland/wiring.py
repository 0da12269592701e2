"""From settings to an island, with the drivers that fit (`choosing`).

    settings ─▶ state folder, lock ─▶ State ─▶ rooms ─▶ Island

One island at a time runs on a state folder: the lock file is held for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from skyisland import __version__
from skyisland.builds.builds import Builds
from skyisland.choosing import chosen_driver, clone_driver, jail_driver, network_driver, toolchains_for
from skyisland.doctor import Examiner
from skyisland.errors import SettingsError
from skyisland.events import Events
from skyisland.host.load import HostMeter
from skyisland.host.programs import Programs
from skyisland.host.tasks import Progress, silent
from skyisland.host.uids import LOCKS
from skyisland.island import Island
from skyisland.jails.addresses import Addresses
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
    from skyisland.fleet.fleet import Fleet


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


def fleet_examiners(settings: Settings) -> list[Examiner]:
    """The checks of the fleet that the settings name.

    Raises:
        SettingsError: the host's name cannot be a node's, or nats-py is not installed.
    """
    if not settings.fleet.name:
        return []
    try:
        from skyisland.fleet.checks import FleetChecks
    except ModuleNotFoundError as error:
        raise SettingsError("fleet: nats-py is not installed; pip install 'skyisland[fleet]'") from error
    return [FleetChecks(settings, _room(settings.async_))]
