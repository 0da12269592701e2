"""The rc.d script, run by this host's sh on a stand-in for rc.subr (tests/support/standins/rc.subr)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.places import ROOT

SCRIPT = ROOT / "config/rc.d/sky_island"
RESERVED = {
    *(
        "audit_user",
        "chdir",
        "chroot",
        "cpuset",
        "env",
        "env_file",
        "fib",
        "flags",
        "group",
        "groups",
        "limits",
    ),
    *("login_class", "nice", "offcmd", "oomprotect", "prepend", "program", "setup", "svcj", "svcj_ipaddrs"),
    *("svcj_options", "umask", "user"),
}
"""What rc.subr reads as ${name}_… (rc.subr(8), 14.3 and 15.0)."""


def service(folder: Path, verb: str, *conf: str) -> subprocess.CompletedProcess[str]:
    settings = folder / "skyisland.toml"
    settings.touch()
    (folder / "rc.conf").write_text("\n".join([f"sky_island_config={settings}", *conf, ""]))
    script = folder / "sky_island"
    script.write_text(
        SCRIPT.read_text().replace("/etc/rc.subr", str(ROOT / "tests/support/standins/rc.subr"))
    )
    return subprocess.run(
        ["/bin/sh", str(script), verb],
        env={"RC_CONF": str(folder / "rc.conf"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_supervisor_is_started_and_starts_the_island(tmp_path: Path) -> None:
    done = service(tmp_path, "start", "sky_island_enable=YES")
    assert done.returncode == 0, done
    env, _, words = done.stdout.splitlines()[1].partition(" /usr/sbin/daemon ")
    assert "LC_ALL=C.UTF-8" in env
    assert words.endswith(f"/usr/local/bin/skyisland -c {tmp_path}/skyisland.toml supervise"), done.stdout
    assert "-P /var/run/sky_island.pid" in words


def test_another_binary_is_started_by_the_supervisor_too(tmp_path: Path) -> None:
    done = service(tmp_path, "start", "sky_island_enable=YES", "sky_island_binary=/opt/sky/bin/skyisland")
    assert " /usr/sbin/daemon -f" in done.stdout, done
    assert " /opt/sky/bin/skyisland -c " in done.stdout


def test_the_island_is_renewed_and_reads_its_settings_again(tmp_path: Path) -> None:
    for verb, sign in (("renew", "USR1"), ("reload", "HUP")):
        done = service(tmp_path, verb, "sky_island_enable=YES")
        assert done.stdout.strip() == f"kill -{sign} $(cat /var/run/sky_island-supervise.pid)"
    assert (
        "-p /var/run/sky_island-supervise.pid" in service(tmp_path, "start", "sky_island_enable=YES").stdout
    )


def test_it_is_off_by_default(tmp_path: Path) -> None:
    done = service(tmp_path, "start")
    assert done.returncode == 1
    assert "Set sky_island_enable to YES" in done.stdout


def test_no_start_without_settings(tmp_path: Path) -> None:
    done = service(tmp_path, "start", "sky_island_enable=YES", f"sky_island_config={tmp_path}/none")
    assert done.returncode == 1
    assert "is not readable" in done.stdout


def test_no_variable_of_rc_subr_has_another_meaning() -> None:
    text = "\n".join(line for line in SCRIPT.read_text().splitlines() if not line.startswith("#"))
    used = set(re.findall(r"sky_island_(\w+)", text))
    assert used & RESERVED == {"env"}, "env is meant as rc.subr means it"
    assert used == {"enable", "config", "binary", "env"}
