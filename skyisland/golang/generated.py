"""The files that we lay beside a repository for a build: its main program, the harness, a go.mod where one is
missing, and the overlay that shows each to Go where it expects it; and the flags that go with them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path

from skyisland.golang import harness
from skyisland.golang.modules import GO_SUM_BYTES, Way
from skyisland.golang.packages import Package
from skyisland.host.tree import Tree
from skyisland.model import Source

FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
BINARY = "function"
TARGET = ("-o", f"/out/{BINARY}", f"./{harness.FOLDER}")


def flags_of(package: Package) -> tuple[str, ...]:
    """Where Go finds modules and generated files."""
    own = ("-modfile=/out/go.mod",) if package.way is Way.dependency else ()
    return (f"-mod={package.mod}", *own, "-overlay=/gen/overlay.json")


def generated(files: Mapping[str, bytes], source: Source, package: Package) -> dict[str, bytes]:
    """The files of /gen: the main program, a go.mod where the repository has none, one of our own where it is
    a dependency, the harness, the overlay."""
    depends = package.way is Way.dependency
    home = posixpath.join("/gen" if depends else f"/src/{source.package}", harness.FOLDER)
    by_path = {f"{home}/{name}": data for name, data in files.items()}
    if package.go_mod is not None:
        by_path["/src/go.mod"] = package.go_mod.encode()
    # This go.mod shows where our module is. What is in it is read from /out (-modfile).
    return with_overlay(by_path) | ({"go.mod": b"module skyisland.call\n"} if depends else {})


def completed(out: Path, ours: Mapping[str, bytes]) -> dict[str, bytes]:
    """Our module's files as Go has left them in /out, each with its file of sums. Blocks."""
    tree, completed = Tree(out), {}
    for name in ours.keys() | ({"go.sum"} if "go.mod" in ours else set()):
        completed[name] = tree.read(name, GO_SUM_BYTES) or b""
    return completed


def with_overlay(by_path: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of /gen: these, the harness, and an overlay.json that puts each where Go expects it.

    `by_path`: contents by the path at which Go shall see them.
    """
    names = {path: posixpath.basename(path) for path in by_path}
    generated = {names[path]: data for path, data in by_path.items()}
    libraries = {harness.LIBRARY: harness.library(), harness.HANDLERS: harness.handler_library()}
    for package, files in libraries.items():
        for name, data in files.items():
            names[f"/usr/local/go/src/{package}/{name}"] = f"{package}/{name}"
            generated[f"{package}/{name}"] = data
    overlay = {path: f"/gen/{name}" for path, name in names.items()}
    return {**generated, "overlay.json": json.dumps({"Replace": overlay}).encode()}
