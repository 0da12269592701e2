"""What is said to the launcher of jails, and what its stand-in understands: the same as the real one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from skyisland.drivers.freebsd import launching
from skyisland.errors import DriverError
from tests.support.places import ROOT
from tests.support.standins.launcher import KINDS

SOURCE = ROOT / "skyisland/drivers/freebsd/launcher"


def test_the_stand_in_knows_the_words_that_the_launcher_knows() -> None:
    cases = re.findall(r"^\tcase ((?:'.'(?:, )?)+):", (SOURCE / "order.go").read_text(), re.MULTILINE)
    assert {letter for case in cases for letter in re.findall("'(.)'", case)} == KINDS["make"]


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "launcher"
    path.write_text(f"#!/bin/bash\ncat <&$SKY_ORDER >/dev/null\n{text}\n")
    path.chmod(0o755)
    return path


async def make(launcher: Path, *words: str) -> tuple[int, int | None]:
    process, number = await launching.make(launcher, ("make", *words), stdout_bytes=9, stderr_bytes=99)
    return number, await process.wait()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "printf '!mount /a: denied' >&$SKY_ORDER",
            "cannot make the jail: mount /a: denied",
        ),
        ("printf '+7!execute /a: denied' >&$SKY_ORDER; exit 1", "cannot make the jail: execute /a: denied"),
        ("echo its last words >&2; exit 3", "cannot make the jail: its last words"),
        ("exit 3", "cannot make the jail: the launcher ended with 3"),
        ("kill -KILL $$", "cannot make the jail: the launcher ended with -9"),
    ],
)
async def test_a_jail_that_is_not_made(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DriverError, match=f"^{re.escape(told)}$"):
        await make(script(tmp_path, text))


async def test_the_number_comes_before_the_program(tmp_path: Path) -> None:
    launcher = script(tmp_path, 'printf +71 >&$SKY_ORDER; eval "exec $SKY_ORDER>&-"; exit 5')
    assert await make(launcher) == (71, 5)


@pytest.mark.parametrize(("had_much", "number"), [(3, 4), (9, launching.TRIES)])
async def test_a_process_that_had_the_memory_of_the_island_makes_no_jail(
    tmp_path: Path, had_much: int, number: int
) -> None:
    """Its end would be told as out of memory. The last that is tried makes the jail in any case."""
    launcher = tmp_path / "launcher"
    launcher.write_text(f"""#!/bin/bash
echo >> {tmp_path}/started
number=$(wc -l < {tmp_path}/started)
picky=$(tr '\\0' '\\n' <&$SKY_ORDER | grep -x m59)
if [ "$picky" ] && [ $number -le {had_much} ]; then printf '?' >&$SKY_ORDER; exit 1; fi
printf +$number >&$SKY_ORDER
""")
    launcher.chmod(0o755)
    process, made = await launching.make(launcher, ["make"], blamed_bytes=59, stdout_bytes=9, stderr_bytes=99)
    await process.wait()
    assert made == number


async def test_one_that_says_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "TIMEOUT_S", 0.05)
    with pytest.raises(DriverError, match="does not answer"):
        await make(script(tmp_path, "echo $$ > " + str(tmp_path / "pid") + "; exec sleep 1000"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_no_word_of_an_order_holds_another(tmp_path: Path) -> None:
    launcher = script(tmp_path, "exit")
    with pytest.raises(DriverError, match="zero byte"):
        await make(launcher, "eA=b\0u=0")
    with pytest.raises(DriverError, match="too long"):
        await make(launcher, "e" * launching.ORDER_BYTES)


async def test_a_removal_that_fails_is_told(tmp_path: Path) -> None:
    launcher = script(tmp_path, "printf '!unmount FSID:1:2: busy' >&$SKY_ORDER")
    with pytest.raises(DriverError, match=r"^cannot remove the jail: unmount FSID:1:2: busy$"):
        await launching.remove(launcher, ("remove", "nsky-1", "c/a"))
