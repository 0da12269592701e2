"""The paths below the state folder."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Layout(Struct, frozen=True):
    """The paths of one island. Pure: it never touches the disk."""

    state_dir: Path
    jails: Path
    """Mount points of clones; with ZFS, of their dataset too."""

    @property
    def repos(self) -> Path:
        """Bare mirrors, one per repository."""
        return self.state_dir / "repos"

    @property
    def checkouts(self) -> Path:
        """Checked-out files of repositories, one folder per commit."""
        return self.state_dir / "checkouts"

    @property
    def artifacts(self) -> Path:
        """Binaries, named by their content's hash."""
        return self.state_dir / "artifacts"

    @property
    def catalogues(self) -> Path:
        """What packages offer, one file for each package and commit."""
        return self.state_dir / "catalogues"

    @property
    def gocache(self) -> Path:
        """Go's build caches."""
        return self.state_dir / "gocache"

    @property
    def gomodcache(self) -> Path:
        """Downloaded modules."""
        return self.state_dir / "gomodcache"

    @property
    def toolchain(self) -> Path:
        """A Go toolchain that `init` downloaded."""
        return self.state_dir / "go"

    @property
    def launcher(self) -> Path:
        """The program that makes jails, compiled for this host."""
        return self.state_dir / "launcher"

    @property
    def base(self) -> Path:
        """Generations of the base system."""
        return self.state_dir / "base"

    @property
    def archives(self) -> Path:
        """Downloaded archives of FreeBSD's base system."""
        return self.state_dir / "archives"

    @property
    def run(self) -> Path:
        """Files that the next daemon deletes: sockets, frames, files of running jails."""
        return self.state_dir / "run"

    @property
    def published(self) -> Path:
        """Repositories of folders that were named in commands, for as long as these last."""
        return self.state_dir / "published"

    @property
    def db(self) -> Path:
        """The SQLite database."""
        return self.state_dir / "island.db"

    @property
    def calls(self) -> Path:
        """The SQLite database of calls that answer later."""
        return self.state_dir / "calls.db"

    @property
    def results(self) -> Path:
        """Their larger results, a file each."""
        return self.state_dir / "results"

    @property
    def fleet_names(self) -> Path:
        """The fleet's names, as this island knew them last."""
        return self.state_dir / "names-fleet.json"

    @property
    def names(self) -> Path:
        """The SQLite database of functions with a name."""
        return self.state_dir / "names.db"

    @property
    def secrets(self) -> Path:
        """Secrets of functions with a name, a private file each."""
        return self.state_dir / "secrets"

    @property
    def receipts(self) -> Path:
        """The key that signs receipts, where the settings name no other."""
        return self.state_dir / "receipts"

    @property
    def console_log(self) -> Path:
        """Output of libraries and children while the console has the terminal, and the reason of its end."""
        return self.state_dir / "console.log"

    @property
    def token(self) -> Path:
        """The admin token made at first start."""
        return self.state_dir / "admin-token"

    @property
    def lock(self) -> Path:
        """The file that the running daemon locks: one daemon per state folder."""
        return self.state_dir / "lock"
