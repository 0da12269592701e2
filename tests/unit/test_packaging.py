"""What is installed: the command, the service's files, a Debian package. `make test-deb` installs one for
real."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.places import ROOT


def test_the_command_finds_its_python_beside_itself_wherever_it_lies(tmp_path: Path) -> None:
    home = tmp_path / "moved here/lib/skyisland/bin"
    home.mkdir(parents=True)
    command, link = home / "skyisland", tmp_path / "skyisland"
    command.write_bytes((ROOT / "config/launch").read_bytes())
    (home / "python3").write_text('#!/bin/sh\nprintf "%s|" "$0" "$@"\n')
    link.symlink_to(command)
    for path in (command, home / "python3"):
        path.chmod(0o755)
    done = subprocess.run([link, "status", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout.split("|")[:-1] == [str(home / "python3"), str(link), "status", "a b"]
    compile((ROOT / "config/launch").read_text(), "launch", "exec")


@pytest.mark.parametrize("prefix", ["/usr/local", "/usr"])
def test_what_is_installed_is_removed_again(tmp_path: Path, prefix: str) -> None:
    def plan(target: str) -> str:
        words = ["make", "-n", target, f"DESTDIR={tmp_path}", f"PREFIX={prefix}"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    installs, removes = plan("install"), plan("uninstall")
    for file in ("lib/skyisland", "bin/skyisland", "share/man/man1/skyisland.1"):
        assert f"{tmp_path}{prefix}/{file}" in removes
    for unit in ("skyisland.service", "skyisland.socket"):
        assert f"config/systemd/{unit}" in installs
        assert f"{tmp_path}/etc/systemd/system/{unit}" in removes
    assert f"s|/usr/local/bin/skyisland|{prefix}/bin/skyisland|" in installs
    assert "skyisland.toml" not in removes


def test_the_package_depends_on_what_is_not_in_it() -> None:
    control = (ROOT / "config/debian/control").read_text()
    assert "Depends: @PYTHON@, git (>= 1:2.37), util-linux" in control
    marks = set(re.findall("@[A-Z]+@", control))
    build = (ROOT / "config/debian/build").read_text()
    assert all(f"s/{mark}/" in build for mark in marks), marks
    for script in ("build", "postinst", "prerm", "postrm", "../../tests/debian/try.sh"):
        path = ROOT / "config/debian" / script
        assert path.stat().st_mode & 0o111
        subprocess.run(["sh", "-n", path], check=True)


def test_the_units_start_what_is_installed() -> None:
    service, socket = (
        (ROOT / f"config/systemd/skyisland.{kind}").read_text() for kind in ("service", "socket")
    )
    assert "ExecStart=/usr/local/bin/skyisland " in service
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=60"} <= set(service.splitlines())
    defaults = tomllib.loads(re.sub(r"(?m)^#(?=\w)", "", (ROOT / "config/skyisland.toml").read_text()))
    assert f"ListenStream={defaults['listen']}:{defaults['http_port']}" in socket.splitlines()
