"""`make demo`: calls functions of Git repositories over REST; each runs in a fresh jail.

Makes repositories of the examples, starts an island with a free port and a temporary state folder, makes
four calls as any client would, stops the island and removes the folder.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import tomli_w
from publish import HOST, publish, rewrite

URL = f"{HOST}/geohash"
CALLS = (
    ("first call: clone, build, run", {"call": "Encode(100.1, 80.9)"}),
    ("the same again, from the cache", {"call": "Encode(100.1, 80.9)"}),
    ("other arguments, no build", {"call": "Encode(48.8584, 2.2945)"}),
    ("several results", {"call": 'Decode("u09tunquc")'}),
)
PHASES = ("queue", "resolve", "clone", "build", "jail", "exec", "total")


def main() -> int:
    # Jails run as other users than root, and must reach the state folder.
    folder = Path(tempfile.mkdtemp(prefix="sky-demo-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        return demonstrate(folder)
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False)  # noqa: S607 - the user's own
        shutil.rmtree(folder)


def demonstrate(folder: Path) -> int:
    repositories = folder / "repositories"
    repositories.mkdir()
    publish(repositories)
    settings = folder / "skyisland.toml"
    port = free_port()
    settings.write_text(
        tomli_w.dumps(
            {
                "http_port": port,
                "state_dir": str(folder / "state"),
                "git": {"rewrite": rewrite(repositories)},
            }
        )
    )
    skyisland = Path(sys.executable).with_name("skyisland")
    print("Starting an island; a new one first compiles what every build needs.", flush=True)
    island = subprocess.Popen(
        [skyisland, "-c", settings, "serve", "--no-tui"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        return call_it(island, port)
    finally:
        island.send_signal(signal.SIGTERM)
        _, errors = island.communicate(timeout=60)
        sys.stderr.write(errors.decode(errors="replace"))


def call_it(island: subprocess.Popen[bytes], port: int) -> int:
    assert island.stdout is not None  # noqa: S101 - Popen got PIPE
    if not any(b'"IslandStarted"' in line for line in island.stdout):
        print("the island did not start", file=sys.stderr)
        return 1
    failures = 0
    for what, call in CALLS:
        body = {"url": URL, **call}
        print(f"\n{what}\n  POST /api/v1/function {json.dumps(body)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/api/v1/function", json.dumps(body))
        answer = connection.getresponse()
        reply = json.loads(answer.read())
        if answer.status != 200:
            failures += 1
            print(f"  {answer.status} {reply}")
            continue
        timings = reply["timings_ms"]
        phases = "  ".join(f"{phase} {timings[phase]:.1f}" for phase in PHASES if timings.get(phase))
        print(f"  → {reply['data']}")
        print(f"    from jail {reply['jail']}, commit {reply['version'][:12]}, ms: {phases}")
    return 1 if failures else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
