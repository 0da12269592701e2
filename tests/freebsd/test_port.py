"""The skeleton of a port asks for what the package asks for."""

from __future__ import annotations

import re
import tomllib

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


def test_it_installs_files_that_are_there() -> None:
    names = re.findall(r"\$\{WRKSRC\}/(\S+)", (PORT / "Makefile").read_text())
    assert names
    assert all((ROOT / name).is_file() for name in names)
    assert max(map(len, (PORT / "pkg-descr").read_text().splitlines())) <= 80
