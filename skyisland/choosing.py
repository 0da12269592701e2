"""Which drivers an island has, by its settings and its host: the one place that names them.

clone_driver        the storage that gives jails their roots
jail_driver         what makes jails
network_driver      what gives them interfaces
examiners           what `doctor` tries here
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skyisland.doctor import TRIAL_ISLAND, Examiner, Unusable
from skyisland.errors import HostUnfit
from skyisland.host.programs import Programs
from skyisland.host.tasks import Progress, silent
from skyisland.host.toolchain import Toolchains
from skyisland.jails.addresses import NoInterfaces
from skyisland.jails.driver import CloneDriver, JailDriver, NetworkDriver
from skyisland.settings import Settings

if TYPE_CHECKING:
    from skyisland.drivers.zfs.clones import BaseSystem

LINUX = sys.platform.startswith("linux")
CAP_SYS_ADMIN = 21
"""linux/capability.h"""
FREEBSD = sys.platform.startswith("freebsd")


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
