"""Go programs and the Go compiler under the filter on system calls, in the bundled bwrap."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skyisland.drivers.linux.bwrap import find_bwrap
from skyisland.drivers.linux.seccomp import compile_filter

pytestmark = [pytest.mark.host]

Go = Callable[..., "subprocess.CompletedProcess[str]"]

SOURCE = Path(__file__).with_name("demanding")


@pytest.fixture
def confined() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in namespaces and under the filter; `writable` folders are its own."""

    def run(
        *argv: str | Path, writable: tuple[Path, ...] = (), env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        fd = os.memfd_create("sky")
        try:
            os.write(fd, compile_filter())
            os.lseek(fd, 0, os.SEEK_SET)
            jail: list[str | Path] = [
                *(find_bwrap(), "--unshare-all", "--cap-drop", "ALL", "--new-session"),
                *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
                *("--ro-bind", sys.prefix, sys.prefix),  # Go is there, and it may lie below /tmp
                *("--seccomp", str(fd), "--clearenv"),
            ]
            for folder in writable:
                jail += ["--bind", folder, folder]
            for name, value in (env or {}).items():
                jail += ["--setenv", name, value]
            return subprocess.run(
                [*jail, "--", *argv],
                pass_fds=(fd,),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            os.close(fd)

    return run


def test_a_demanding_go_program_is_built_and_runs(go: Go, confined: Go, state_dir: Path) -> None:
    source = state_dir / "demanding"
    shutil.copytree(SOURCE, source)
    outside = go("build", "-o", source / "outside", "main.go", cwd=source)
    assert outside.returncode == 0, outside.stderr

    # Another text of the same program, so that the compiler and the linker have something to do.
    main = source / "main.go"
    main.write_text(main.read_text() + f"\nvar stamp = {os.getpid()}\n\nfunc init() {{ _ = stamp }}\n")
    cache, root = go("env", "GOCACHE", "GOROOT", cwd=source).stdout.split()
    built = confined(
        *(Path(root, "bin", "go"), "build", "-C", source, "-o", source / "inside", "main.go"),
        writable=(source, Path(cache)),
        env={
            "GOROOT": root,
            "GOCACHE": cache,
            "GOTOOLCHAIN": "local",
            "GOENV": "off",
            "CGO_ENABLED": "0",
            "HOME": "/nonexistent",
        },
    )
    assert built.returncode == 0, built.stderr
    ran = confined(source / "inside", writable=(source,))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello child\n", "")


def test_the_filter_is_in_force_in_the_program_and_in_its_init(confined: Go) -> None:
    # The init starts the program and then puts its own filter on, so it may be a moment behind.
    patient = 'while grep -q "^Seccomp:.0$" /proc/1/status; do :; done; exec cat "/proc/$0/status"'
    for process in ("1", "self"):
        told = confined("sh", "-c", patient, process).stdout
        status = dict(line.split(":\t", 1) for line in told.splitlines())
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0


def test_no_namespaces_within_the_jail(confined: Go) -> None:
    refused = confined("unshare", "--user", "true")
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr
