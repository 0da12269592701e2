"""Folders of the user's own machine, named in a command in place of a URL.

    skyisland invoke ./mine 'F()'

Where the island's state folder is the user's, the folder is *published*: a commit of its files as they lie
there, also of those that no commit has yet, goes into a repository in the state folder, and the island
finds it by a URL that nobody can guess. The same files make the same commit, so their binary is found
again. What `.gitignore` names stays out. The last command that ends removes all that was published.

Else the settings may lead the island to the folder (`[git] rewrite` to a `file://` prefix): then its last
commit is called. Where neither is so, the error says what to do.

To publish a folder, Git runs nothing that it finds there: neither hooks, nor its configuration, nor
filters.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from skyisland.cli import GlobalOptions
from skyisland.cli.printing import say
from skyisland.errors import SettingsError
from skyisland.settings import PUBLISHED_HOST, SYSTEM_FILES, Settings, admin_token, find_file

FILES_ALONE = "* -filter -text -ident -export-ignore\n"
"""Attributes over those in the folder: each file as it is, and no program that shall change it."""
PLAIN = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.autocrlf=false"),
    *("-c", "core.fileMode=true", "-c", "core.symlinks=true", "-c", "gc.auto=0"),
)
NOBODY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "skyisland"), ("EMAIL", "skyisland@localhost"), ("DATE", "@0 +0000"))
}
"""Who commits, and when: the same files shall make the same commit."""


def is_folder(url: str) -> bool:
    """Whether a URL names a folder of this machine, by how it begins."""
    return url in (".", "..") or url.startswith(("./", "../", "/", "~"))


@contextmanager
def found(options: GlobalOptions, url: str, version: str | None) -> Iterator[tuple[str, str | None]]:
    """The URL and version by which the island finds a package, for as long as the block lasts.

    What is no folder stays as it is.

    Raises:
        click.UsageError: there is no such folder, or a version of it is asked for.
        SettingsError: the island cannot read it; the text says what to do.
    """
    if not is_folder(url):
        yield url, version
        return
    if version is not None:
        raise click.UsageError(f"--version: {url} is called as it lies there; check that version out first")
    folder = Path(url).expanduser().resolve()
    if not folder.is_dir():
        raise click.UsageError(
            f"there is no folder {url}; a repository elsewhere is named as github.com/user/repo"
        )
    root = _root(folder)
    settings = options.settings()
    if _is_ours(settings.state_dir):
        options.check()
        with _published(settings, root) as (name, commit):
            yield _url(f"{PUBLISHED_HOST}/{name}", root, folder), commit
    else:
        yield _led_to(options, settings, root, folder)


def _root(folder: Path) -> Path:
    """Where the repository of a folder begins; without one its module; else the folder is all."""
    for sign in (".git", "go.mod"):
        for candidate in (folder, *folder.parents):
            if (candidate / sign).exists():
                return candidate
    return folder


def _url(repository: str, root: Path, folder: Path) -> str:
    package = folder.relative_to(root).as_posix()
    return repository if package == "." else f"{repository}//{package}"


def _is_ours(state_dir: Path) -> bool:
    with suppress(OSError):
        return state_dir.stat().st_uid == os.geteuid()
    return False


@contextmanager
def _published(settings: Settings, root: Path) -> Iterator[tuple[str, str]]:
    """The name and commit of a repository with the files below `root`, in the island's folder of such."""
    place = settings.layout.published
    place.mkdir(mode=0o700, exist_ok=True)
    # Without the token nobody can guess it.
    secret = hmac.digest(admin_token(settings, make=False).encode(), os.fsencode(root), hashlib.sha256)
    name = f"{re.sub('[^A-Za-z0-9]+', '-', root.name)[:40].strip('-') or 'root'}-{secret.hex()[:16]}"
    with open(place / ".lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield name, _commit(root, place / name)
        finally:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else's call needs any of them
                for repository in place.glob("*-*"):
                    shutil.rmtree(repository, ignore_errors=True)


def _commit(root: Path, repository: Path) -> str:
    """Commit the files below `root` to a repository of ours; returns the commit."""
    index = repository / f"index-{os.getpid()}"

    def git(*words: str) -> str:
        return _git(*words, GIT_DIR=str(repository), GIT_WORK_TREE=str(root), GIT_INDEX_FILE=str(index))

    if not (repository / "HEAD").exists():
        _git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(repository))
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_text(FILES_ALONE)
    git("add", "--all", "--", str(root))
    commit = git("commit-tree", git("write-tree"), "-m", "As it lies there")
    git("update-ref", f"refs/heads/{commit}", commit)
    index.unlink(missing_ok=True)
    return commit


def _git(*words: str, **environment: str) -> str:
    """The output of a Git command, which heeds nothing of the caller's Git but what is to be ignored.

    Raises:
        click.ClickException: it failed, or is not installed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *PLAIN, *words],  # noqa: S607 - the user's own git
            env=kept | NOBODY | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
    except FileNotFoundError:
        raise click.ClickException("git is not installed; a folder becomes a repository by it") from None
    except subprocess.CalledProcessError as error:
        raise click.ClickException(
            f"git {words[0]}: {error.stderr.decode(errors='replace').strip()}"
        ) from None
    return done.stdout.decode().strip()


def _led_to(options: GlobalOptions, settings: Settings, root: Path, folder: Path) -> tuple[str, str | None]:
    """The URL that the settings rewrite to `root`, and its last commit."""
    for prefix, target in settings.git.rewrites:
        parts = urlsplit(target)
        base = Path(unquote(parts.path))
        if parts.scheme == "file" and root != base and root.is_relative_to(base):
            repository = prefix.removeprefix("https://").rstrip("/") + f"/{root.relative_to(base).as_posix()}"
            if _git("-C", str(root), "status", "--porcelain"):
                say(
                    f"skyisland: {root} has changes without a commit; the call runs the last commit", err=True
                )
            return _url(repository, root, folder), _git("-C", str(root), "rev-parse", "HEAD")
    with options.client(admin=False) as client:
        client.capabilities()  # that no island runs is what the user must hear first
    file = options.file or find_file(os.environ) or SYSTEM_FILES[-1]
    raise SettingsError(
        f"{root} is a folder of this machine, and you cannot publish it, because the island's state folder "
        f"{settings.state_dir} is another user's. Run the command as that user; or push the folder to a Git "
        "server, and name it by its URL there; or have the island's operator name it in "
        f'{file}: [git] rewrite = {{"https://my.example/" = "{root.parent.as_uri()}/"}}, and call its last '
        f"commit as my.example/{root.name}"
    )
