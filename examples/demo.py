"""`make demo`: calls functions of Git repositories over REST; each runs in a fresh jail.

Makes repositories of the examples, starts an island with a free port and a temporary state folder, makes
five calls as any client would, stops the island and removes the folder. With `--stay` the island runs on,
with the examples published: on a terminal its console opens, and all ends with that; elsewhere with SIGTERM
or SIGINT.

On FreeBSD, whose jails stand on ZFS, it also makes a pool on a file in that folder, unless `--dataset` names
a dataset to use. The base system comes from the network, unless `--base` names a folder with `base.txz` and
`MANIFEST`, as installation disks have: make demo DEMO="--dataset zroot --base /usr/freebsd-dist"
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w
from publish import HOST, publish, rewrite

URL = f"{HOST}/geohash"
CALLS = (
    ("first call: clone, build, run", {"call": "Encode", "args": [100.1, 80.9]}),
    ("the same again, from the cache", {"call": "Encode", "args": [100.1, 80.9]}),
    ("other arguments, no build", {"call": "Encode", "args": {"latitude": 48.8584, "longitude": 2.2945}}),
    ("many inputs, one jail", {"call": "Encode", "inputs": [[48.8584, 2.2945], [57.64911, 10.40744]]}),
    ("an expression of Go; several results", {"call": 'Decode("u09tunquc")'}),
)
POOL_BYTES = 8 << 30
"""Of the pool on a file, which is sparse: a base system, and what the calls write."""
PHASES = ("queue", "resolve", "clone", "build", "jail", "exec", "total")


def main() -> int:
    options = argparse.ArgumentParser(description="Call functions over REST; each runs in a fresh jail.")
    options.add_argument("--dataset", help="FreeBSD: where clones lie, instead of a pool of our own")
    options.add_argument("--base", help="FreeBSD: a folder with base.txz, instead of the network")
    options.add_argument("--stay", action="store_true", help="go on, and say what there is to call")
    chosen = options.parse_args()
    # Whoever ends us, or closes our terminal, shall find no island and no folder left.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    # Jails run as other users than root, and must reach the state folder.
    folder = Path(tempfile.mkdtemp(prefix="sky-demo-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        with storage(folder, chosen.dataset) as settings:
            if chosen.base:
                settings["base_sys_pkg_dir"] = chosen.base
            return demonstrate(folder, settings, stay=chosen.stay)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)  # noqa: S607 - the user's own
        shutil.rmtree(folder)


@contextlib.contextmanager
def storage(folder: Path, dataset: str | None, system: str = sys.platform) -> Iterator[dict[str, Any]]:
    """The settings of where clones lie. On FreeBSD without a `dataset`, a pool on a file for as long."""
    if dataset or not system.startswith("freebsd"):
        yield {"filesystem": {"zfs_dataset": dataset}} if dataset else {}
        return
    if os.geteuid() != 0:
        sys.exit("only root can make jails on FreeBSD; run as root: make demo")
    pool, file = f"skydemo{os.getpid()}", folder / "pool"
    file.touch()
    os.truncate(file, POOL_BYTES)
    subprocess.run(["zpool", "create", "-m", folder / "zfs", pool, file], check=True)  # noqa: S607
    try:
        yield {"filesystem": {"zfs_dataset": pool}}
    finally:
        subprocess.run(["zpool", "destroy", "-f", pool], check=False)  # noqa: S607


def demonstrate(folder: Path, more: dict[str, Any], *, stay: bool) -> int:
    repositories = folder / "repositories"
    repositories.mkdir()
    urls = publish(repositories)
    settings = folder / "skyisland.toml"
    port = free_port()
    settings.write_text(
        tomli_w.dumps(
            {
                "http_port": port,
                "state_dir": str(folder / "state"),
                "git": {"rewrite": rewrite(repositories)},
                **more,
            }
        )
    )
    skyisland = Path(sys.executable).with_name("skyisland")
    print("Starting an island; a new one first compiles what every build needs.", flush=True)
    # A signal to the terminal's programs is ours to handle: the island ends last.
    island = subprocess.Popen(
        [skyisland, "-c", settings, "serve", "--no-tui"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        failed = call_it(island, port)
        if stay:
            stay_on(island, [skyisland, "-c", settings], port, urls)
        elif sys.stdout.isatty():
            print("\nTo try it yourself, have it stay: make demo DEMO=--stay")
        return failed
    finally:
        island.send_signal(signal.SIGTERM)
        _, errors = island.communicate(timeout=60)
        sys.stderr.write(errors.decode(errors="replace"))


def call_it(island: subprocess.Popen[bytes], port: int) -> int:
    assert island.stdout is not None  # noqa: S101 - Popen got PIPE
    for line in island.stdout:
        told = json.loads(line)
        if told.get("event") == "IslandStarted":
            break
        if told.get("logger") == "skyisland.cli.preparing":
            print(f"  {told['message']}", flush=True)
    else:
        print("the island did not start", file=sys.stderr)
        return 1
    failures = 0
    for what, call in CALLS:
        body = {"url": URL, **call}
        print(f"\n{what}\n  POST /api/v1/function {json.dumps(body)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/api/v1/function", json.dumps(body))
        response = connection.getresponse()
        reply = json.loads(response.read())
        if response.status != 200:
            failures += 1
            print(f"  {response.status} {reply}")
            continue
        timings = reply["timings_ms"]
        phases = "  ".join(f"{phase} {timings[phase]:.1f}" for phase in PHASES if timings.get(phase))
        for answer in reply.get("answers", [reply]):
            print(f"  → {answer['data']}")
        print(f"    from jail {reply['jail']}, commit {reply['version'][:12]}, ms: {phases}")
    return 1 if failures else 0


def stay_on(island: subprocess.Popen[bytes], skyisland: list[str | Path], port: int, urls: list[str]) -> None:
    """Say what there is to call, and keep the island until somebody has seen enough."""
    assert island.stdout is not None  # noqa: S101 - Popen got PIPE
    # Else the island would wait for us as soon as the pipe is full.
    threading.Thread(target=lambda: deque(island.stdout, maxlen=0), daemon=True).start()
    command = shlex.join(map(str, skyisland))
    print(
        f"\nThe island stays at http://127.0.0.1:{port} with these packages:",
        *(f"  {url}" for url in urls),
        "What one offers, a call, and the same by curl:",
        f"  {command} functions {URL}",
        f"  {command} invoke {URL} 'Encode(48.8584, 2.2945)'",
        f"  curl -sS http://127.0.0.1:{port}/api/v1/function -d '{json.dumps({'url': URL, **CALLS[0][1]})}'",
        f"  {command} console",
        sep="\n",
        flush=True,
    )
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(EOFError):
            input("Enter opens the console (i calls a function); the demo ends with it. ")
        subprocess.run([*skyisland, "console"], check=False)
    else:
        print("SIGTERM or Ctrl+C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
