"""The skeleton of a port asks for what the package asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.places import ROOT

PORT = ROOT / "config/freebsd/port"


def test_it_depends_on_what_the_package_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {line.replace("==", ">=") for line in project["dependencies"] if "linux" not in line}
    makefile = (PORT / "Makefile").read_text()
    always, console = (
        set(re.findall(r"\$\{PYTHON_PKGNAMEPREFIX\}([\w-]+>=[\d.]+):", text))
        for text in makefile.partition("BUILD_DEPENDS")[2]
        .partition("RUN_DEPENDS=")[2]
        .split("OPTIONS_DEFINE")
    )
    assert always | console == needed
    assert console == {line.replace("==", ">=") for line in project["optional-dependencies"]["console"]}


def test_the_page_names_all_that_is_not_pure_python() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    rows = re.findall(
        r"^\| (`[^|]+) \| (all|`skyisland web`) \|", (ROOT / "docs/freebsd.md").read_text(), re.M
    )
    told = {whom: set[str]() for _, whom in rows}
    for names, whom in rows:
        told[whom] |= set(re.findall("`([^`]+)`", names))
    headless = compiled(line for line in needed if not line.startswith("textual"))
    assert told == {"all": headless, "`skyisland web`": compiled(needed) - headless}


def compiled(requirements: Iterable[str]) -> set[str]:
    """What of these and of all that they need on FreeBSD is built for one kind of machine."""
    rest, seen = [Requirement(line) for line in requirements], set[str]()
    while rest:
        requirement = rest.pop()
        name = canonicalize_name(requirement.name)
        extras = [*requirement.extras, ""]
        if name in seen or not any(
            requirement.marker is None
            or requirement.marker.evaluate({"sys_platform": "freebsd15", "extra": extra})
            for extra in extras
        ):
            continue
        seen.add(name)
        for line in metadata.distribution(name).requires or ():
            needs = Requirement(line)
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in extras):
                rest.append(needs)
    return {
        name
        for name in seen
        if "Root-Is-Purelib: false" in (metadata.distribution(name).read_text("WHEEL") or "")
    }


def test_it_installs_files_that_are_there() -> None:
    names = re.findall(r"\$\{WRKSRC\}/(\S+)", (PORT / "Makefile").read_text())
    assert names
    assert all((ROOT / name).is_file() for name in names)
    assert max(map(len, (PORT / "pkg-descr").read_text().splitlines())) <= 80
