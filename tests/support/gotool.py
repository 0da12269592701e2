"""The Go toolchain that comes with the package, and what `make check` says of the project's own Go.

python -m tests.support.gotool     formatted (gofmt) and in order (go vet), for each system it runs on
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from tests.support.places import CACHE, ROOT

FOLDERS = ("skyisland", "bench", "examples", "tests")
GENERATED = ROOT / "tests/unit/golden"
"""Main programs as the harness writes them; what they import lies in a build's jail."""
BESIDE_HARNESS = "skyisland/golang/handler"
"""It imports the harness from where a build's jail has that; every build of a handler compiles it."""
ELSEWHERE: dict[str, tuple[dict[str, str], ...]] = {
    "skyisland/drivers/freebsd/launcher": ({"GOOS": "freebsd"}, {"GOOS": "freebsd", "GOARCH": "arm64"}),
    "skyisland/drivers/linux/launcher": ({}, {"GOARCH": "arm64"}),
    "skyisland/golang": ({}, {"GOOS": "freebsd"}),
    "tests/arm64": ({"GOARCH": "arm64"},),
    "tests/attacks/attacker": ({}, {"GOARCH": "arm64"}),
}
"""What is compiled not only for the machine at hand."""


def goroot() -> Path:
    if importlib.util.find_spec("go") is None:  # no Linux
        told = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True)
        return Path(told.stdout.strip())
    import go

    return Path(go.__file__).parent


def run(*words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`go` with these words, on a cache that outlives the run; `more`: its environment."""
    cache = CACHE / "go-build"
    environment = {
        "GOROOT": str(goroot()),
        "GOCACHE": str(cache),
        "GOPATH": str(cache / "path"),
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "PATH": os.environ["PATH"],
        **more,
    }
    return subprocess.run(
        [goroot() / "bin" / "go", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def gofmt(files: list[Path]) -> list[str]:
    """The files that are not formatted."""
    words = [str(goroot() / "bin" / "gofmt"), "-l", *map(str, files)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def packages(root: Path = ROOT) -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """Folders of Go, what `go vet` is to be called with in each, and for which system."""
    for folder, files in groupby(sources(root), lambda file: file.parent):
        if folder == root / BESIDE_HARNESS:
            continue
        module = any((above / "go.mod").exists() for above in (folder, *folder.parents))
        words = ["."] if module else [file.name for file in files]
        named = (systems for name, systems in ELSEWHERE.items() if folder.is_relative_to(root / name))
        for system in next(named, ({},)):
            yield folder, words, system


def sources(root: Path = ROOT) -> list[Path]:
    files = (file for name in FOLDERS for file in (root / name).rglob("*.go"))
    return sorted(file for file in files if file.parent != GENERATED)


def vet(folder: Path, words: list[str], system: dict[str, str]) -> str:
    """What is wrong in a folder, if anything."""
    done = run("vet", *words, cwd=folder, **system)
    return f"{' '.join([str(folder), *system.values()])}:\n{done.stderr}" if done.returncode else ""


def main() -> int:
    wrong = [f"{file}: not formatted (gofmt -w)\n" for file in gofmt(sources())]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong += filter(None, pool.map(lambda package: vet(*package), packages()))
    sys.stderr.write("".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
