"""`make test-freebsd`, with a QEMU that plays the machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.places import ROOT

QEMU = """#!/bin/sh
# Plays a guest that reads its orders and leaves what it is told to on the disk for results.
for word; do case $word in
-no-reboot) exit 1 ;; # the guest boots once more, with resource accounting
file=*out,format=raw,*) disk=${word#file=}; disk=${disk%%,*} ;;
file=*.iso,*) orders=${word#file=}; orders=${orders%%,*} ;;
esac; done
[ -n "$disk" ] || exit 0
tar -xOf "$orders" ./user-data | grep -q run.sh || exit 1
tar -xOf "$orders" ./checkout.tar | tar -t > "$SAW"
tar -xOf "$orders" ./steps
echo booted
[ -z "$LEAVES" ] || tar -cf - -C "$LEAVES" . | dd of="$disk" conv=notrunc status=none
"""
ISO = """#!/bin/sh
# xorrisofs -quiet -V cidata -R -J -o FILE FOLDER
exec tar -cf "$7" -C "$8" .
"""


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """What the guest leaves, unless its status is removed."""
    folder = tmp_path / "leaves"
    folder.mkdir()
    (folder / "status").write_text("3\n")
    (folder / "log").write_text("doctor: right, 7 s\n")
    (folder / "contract.xml").write_text("<testsuites/>")
    return folder


def run(tmp_path: Path, leaves: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in (("qemu-system-x86_64", QEMU), ("xorrisofs", ISO)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return subprocess.run(
        [ROOT / "tests/freebsd/vm.sh"],
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "FREEBSD_OUT": str(tmp_path / "out"),
            "LEAVES": str(leaves),
            "SAW": str(tmp_path / "saw"),
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_an_image_it_says_what_to_do(tmp_path: Path, leaves: Path) -> None:
    done = run(tmp_path, leaves)
    assert done.returncode == 2
    assert "FREEBSD_IMAGE names no image" in done.stderr
    assert "FREEBSD_SHA256" in done.stderr


def test_a_download_needs_its_sum(tmp_path: Path, leaves: Path) -> None:
    for given in ({}, {"FREEBSD_SHA256": "abc"}):
        done = run(tmp_path, leaves, FREEBSD_IMAGE="https://host.invalid/disk.qcow2.xz", **given)
        assert done.returncode == 2
        assert "FREEBSD_SHA256 must say" in done.stderr


def test_what_the_guest_leaves_comes_out(tmp_path: Path, leaves: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a disk")
    done = run(tmp_path, leaves, FREEBSD_IMAGE=str(image), FREEBSD_STEPS="doctor demo")
    assert (done.returncode, done.stdout) == (3, "doctor: right, 7 s\n"), done.stderr
    assert (tmp_path / "out/contract.xml").read_text() == "<testsuites/>"
    assert (tmp_path / "out/console").read_text() == " install pool doctor demo \nbooted\n"
    assert "skyisland/__init__.py" in (tmp_path / "saw").read_text().split()
    assert image.read_bytes() == b"a disk"
    assert not list(tmp_path.glob("sky-freebsd-*"))


def test_a_guest_that_leaves_nothing_is_told_with_its_last_words(tmp_path: Path, leaves: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a disk")
    done = run(tmp_path, leaves, FREEBSD_IMAGE=str(image), LEAVES="")
    assert done.returncode == 2
    assert "the guest left no result" in done.stderr
    assert "booted" in done.stderr


def test_a_report_comes_out_whole_however_slowly_it_is_written() -> None:
    """dd(1) with `bs=` pads each short read of a pipe (so a report came out of a real 15.0 damaged)."""
    text = (ROOT / "tests/freebsd/guest/run.sh").read_text()
    (words,) = re.findall(r"\| dd (of=\$disk .*?) 2>", text)
    assert not re.search(r"\bbs=|\bconv=\S*\bsync", words)
