"""Files with secrets: written whole and private or not at all, and read only if private; and the folders that
they lie in, where nobody else may put another in their place.

These functions block.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from skyisland.errors import SettingsError

CREDENTIALS = "$CREDENTIALS_DIRECTORY"
"""What the path of a file begins with that lies where systemd chose: `LoadCredential=`, systemd.exec(5)."""


def write_private(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file of mode 0600. It appears at `path` in one step, so a crash leaves no half of it.

    Raises:
        FileExistsError: the file exists, and `replace` is not set.
        OSError: the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(draft, path)
        else:
            os.link(draft, path, follow_symlinks=False)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def check_folder(path: Path) -> None:
    """Check that nobody but root and this user can change what lies at a folder's path, or will lie there.

    Raises:
        SettingsError: somebody can; the text names the folder, its owner, its mode and the remedy.
    """
    real = path.resolve()
    for part in dict.fromkeys((*path.parents, path, *real.parents, real)):
        try:
            status = part.lstat()
        except FileNotFoundError:
            continue
        mode, writable = stat.S_IMODE(status.st_mode), _others_write(status)
        # In a sticky folder others may make names, but not take ours; a link has no mode.
        if (mode & stat.S_ISVTX and part not in (path, real)) or stat.S_ISLNK(status.st_mode):
            writable = False
        if status.st_uid not in (0, os.geteuid()) or writable:
            raise SettingsError(
                f"state_dir: {part} belongs to uid {status.st_uid} and gid {status.st_gid} and has mode "
                f"{mode:04o}, so others may change what the island keeps in {path}; chmod go-w it, or "
                "choose a folder that is yours",
                origin=str(path),
            )


def _others_write(status: os.stat_result) -> bool:
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_gid in (0, os.getegid()):
        writable &= ~stat.S_IWGRP  # on Debian, what is a user's is writable for a group of theirs
    return writable != 0


def check_file(path: Path) -> None:
    """Check that nobody but its owner can write a file.

    Raises:
        SettingsError: somebody can.
    """
    try:
        status = path.stat()
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and _others_write(status):
        raise SettingsError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o} and gid {status.st_gid}, so others may "
            f"change the settings; chmod go-w {path}, and look at what it says",
            origin=str(path),
        )


def make_private(folder: Path, mode: int = 0o700) -> None:
    """Make a folder of this mode, whatever the umask; one that exists gets it."""
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder.chmod(mode)


def others_read(path: Path) -> str:
    """In words, who but this user may read a file; empty if nobody does."""
    try:
        status = path.stat()
    except OSError:
        return ""
    if status.st_mode & stat.S_IROTH:
        return f"has mode {stat.S_IMODE(status.st_mode):04o}: every user of this host may read it"
    if status.st_mode & stat.S_IRGRP and status.st_gid not in (0, os.getegid()):
        return f"has mode {stat.S_IMODE(status.st_mode):04o}: the group {status.st_gid} may read it"
    return ""


def credential(path: Path) -> str:
    """The token in a credential of this service, which systemd made private.

    Raises:
        SettingsError: it cannot be read, others may read it, or it holds no token.
    """
    fault = others_read(path)
    try:
        token = path.read_bytes()[:1024].strip()
    except OSError as error:
        fault = f"cannot be read: {error.strerror}; is there a LoadCredential= for it in the unit?"
    if not fault and re.fullmatch(rb"[!-~]+", token):
        return token.decode()
    raise SettingsError(f"admin_api_token: {path} {fault or 'holds no token'}", origin=str(path))


def stored_token(path: Path, *, make: bool) -> str:
    """The admin token in the file at `path`. `make`: store a new one first, if the file does not exist.

    Two processes that make one at the same time get the same token: the first one's.

    Raises:
        SettingsError: there is none, it cannot be stored, or its file is not private.
    """
    try:
        if make and not os.path.lexists(path):
            check_folder(path.parent)
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                write_private(path, secrets.token_urlsafe(32) + "\n")
        return _read_token(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not make:
            fault = "holds no admin token yet; start the island once, or set SKYISLAND_ADMIN_API_TOKEN"
        else:
            fault = f"the admin token cannot be read or stored: {error.strerror}"
            if isinstance(error, PermissionError) and not make:
                fault += "; only the island's own user may, as whom you can run this (sudo -u …)"
        raise SettingsError(f"{path}: {fault}", origin=str(path)) from error


def _read_token(path: Path) -> str:
    # O_NONBLOCK: to open a pipe that somebody put in its place would block.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        fault = ""
        if not stat.S_ISREG(status.st_mode):
            fault = "is not a regular file; remove it"
        elif status.st_uid not in (0, os.geteuid()):
            fault = f"belongs to uid {status.st_uid}; remove it"
        elif status.st_mode & 0o077:
            fault = (
                f"has mode {status.st_mode & 0o777:04o}, so others may know it; remove it, or chmod 600 it"
            )
        else:
            token = file.read(1024).strip()
            if re.fullmatch(rb"[!-~]+", token):
                return token.decode()
            fault = "holds no token; remove it"
    raise SettingsError(f"{path}: {fault}, and start again", origin=str(path))
