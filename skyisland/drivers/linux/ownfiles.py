"""Files that a jail of bubblewrap has to itself, although it could share those of the host.

On an inode that two jails have, a lock of one is seen by the other, and so is each time that it is opened
(inotify(7)): that is a way to tell each other something. So each jail gets, in a folder of its own,

`dev`     device nodes. Only who has CAP_MKNOD can make them; without it jails see the host's, and
          `OwnFiles.capability` says so.
`layer`   a hard link for each file that the jail is shown: as a layer of its overlay it has another inode
          there, with the same pages.

What hides a file of /proc is shared, but nobody can open it (`file`, `folder`: mode 0).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from skyisland.model import Mount
from skyisland.status import Capability

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
"""Names with major and minor number (Documentation/admin-guide/devices.txt)."""
HIDDEN = ("cmdline", "diskstats", "key-users", "keys", "loadavg", "locks", "pressure", "uptime")
"""What a jail does not see in /proc: how the host was started, and what others do on it. Each costs 0.2 ms
or so, because bwrap reads all mounts again for each."""


class OwnFiles:
    """The folders of all jails of one island. Everything here blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "file"
        self.folder = folder / "folder"
        self.hidden: tuple[tuple[str, Path], ...] = ()
        """Paths below /proc that jails are not to see, and what is mounted over each."""
        self.makes_devices = False
        self._why = "not looked at yet"
        self._made: dict[str, list[tuple[Path, bool]]] = {}
        """What was made for each jail, in this order; True: a folder. So it is removed without a descriptor,
        of which the island may have none left."""

    def prepare(self) -> None:
        """Remove what an earlier life left, and find out whether devices can be made here."""
        self.close()
        self._folder.mkdir(mode=0o755, parents=True)
        self._folder.chmod(0o755)
        self.file.touch(mode=0)
        self.folder.mkdir(mode=0)
        paths = [path for name in HIDDEN if (path := Path("/proc", name)).exists()]
        self.hidden = tuple((str(path), self.folder if path.is_dir() else self.file) for path in paths)
        trial = self._folder / "null"
        try:
            _make_device(trial, "null")
            os.close(os.open(trial, os.O_RDWR))
            self.makes_devices = True
        except OSError as error:
            self._why = error.strerror or str(error)

    def devices(self, jail: str) -> Path:
        return self._folder / jail / "dev" if self.makes_devices else Path("/dev")

    def layer(self, jail: str) -> Path:
        return self._folder / jail / "layer"

    def make(self, jail: str, mounts: Iterable[Mount]) -> list[Mount]:
        """Make the folder of a jail. Returns those of its mounts that are in its layer.

        Raises:
            OSError: nothing of it is left.
        """
        place = self._folder / jail
        made = self._made[jail] = []
        files = [mount for mount in mounts if not mount.writable and mount.source.is_file()]
        try:
            for folder in (place, place / "dev", place / "layer"):
                _make_folder(folder, made)
            for name in DEVICES if self.makes_devices else ():
                made.append((place / "dev" / name, False))
                _make_device(place / "dev" / name, name)
            for file in files:
                link = place / "layer" / file.target.lstrip("/")
                _make_folder(link.parent, made)
                made.append((link, False))
                try:
                    os.link(file.source, link)
                except OSError as error:
                    if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                        raise
                    shutil.copy(file.source, link)  # it is on another file system, or somebody else's
                    link.chmod(0o555)
        except OSError:
            self.remove(jail)
            raise
        return files

    def existing(self) -> list[str]:
        """Names of the jails that have a folder."""
        with suppress(FileNotFoundError):
            jails = [path for path in self._folder.iterdir() if path not in (self.file, self.folder)]
            return [path.name for path in jails if (path / "layer").is_dir()]
        return []

    def remove(self, jail: str) -> None:
        """Remove the folder of a jail, of this life or an earlier one; may be repeated."""
        made = self._made.pop(jail, None)
        if made is None:
            with suppress(FileNotFoundError):
                shutil.rmtree(self._folder / jail)
        for path, is_folder in reversed(made or ()):
            with suppress(FileNotFoundError):
                (path.rmdir if is_folder else path.unlink)()

    def close(self) -> None:
        with suppress(FileNotFoundError):
            self.folder.chmod(0o700)  # only root may look into a folder of mode 0, to remove it
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder)

    def capability(self) -> Capability:
        """Whether a jail's devices are its own."""
        if self.makes_devices:
            return Capability(name="devices", enforced=True, how="nodes of each jail's own")
        return Capability(
            name="devices",
            enforced=False,
            how=f"jails share the host's, so they see each other's locks on these; mknod: {self._why}",
            remedy="start the island as root with CAP_MKNOD, its state folder on a file system without nodev",
        )


def _make_folder(folder: Path, made: list[tuple[Path, bool]]) -> None:
    """Make a folder and those above it, and append what was not there."""
    if not folder.is_dir():
        _make_folder(folder.parent, made)
        folder.mkdir(mode=0o755)
        made.append((folder, True))


def _make_device(path: Path, name: str) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*DEVICES[name]))
    path.chmod(0o666)
