"""Makes a Git repository of each example. The demonstration, the tests and the benchmarks clone them.

As a script, it makes them in a new folder and says how an island finds them:

    python examples/publish.py FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOST = "examples.skyisland.test"
"""The host in the examples' URLs. It does not exist: settings rewrite it to the folder of repositories."""
IDENTITY = ("-c", "user.name=Sky Island", "-c", "user.email=examples@skyisland.test")


def publish(target: Path) -> list[str]:
    """Make a repository with one commit at `target`/NAME for each example; return their URLs."""
    names = sorted(folder.name for folder in HERE.iterdir() if any(folder.glob("*.go")))
    for name in names:
        repository = target / name
        shutil.copytree(HERE / name, repository)
        commit(repository, "First version")
    return [f"{HOST}/{name}" for name in names]


def commit(repository: Path, message: str) -> str:
    """Commit all files of a folder; return the commit. Makes a repository of the folder if it is none."""
    if not (repository / ".git").is_dir():
        _git(repository, "init", "--quiet", "--initial-branch=main")
        # Serve commits by their hashes, as the big hosts do.
        _git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    _git(repository, "add", "--all")
    _git(repository, *IDENTITY, "commit", "--quiet", f"--message={message}")
    return _git(repository, "rev-parse", "HEAD")


def rewrite(target: Path) -> dict[str, str]:
    """The `[git] rewrite` setting that leads to the repositories in `target`."""
    return {f"https://{HOST}/": f"{target.as_uri()}/"}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python examples/publish.py FOLDER", file=sys.stderr)
        return 2
    target = Path(sys.argv[1]).resolve()
    if target.exists() and any(target.iterdir()):
        print(f"{target} is there, and not empty: name a new folder", file=sys.stderr)
        return 1
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)  # also the island's user shall read it
    urls = publish(target)
    ((prefix, folder),) = rewrite(target).items()
    print(
        f'The settings of an island that shall find them:\n\n[git]\nrewrite = {{"{prefix}" = "{folder}"}}\n'
    )
    print("The repositories:", *urls, sep="\n  ")
    print(f"\nskyisland invoke {HOST}/geohash 'Encode(48.8584, 2.2945)'")
    return 0


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words],  # noqa: S607 - the user's own git
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
