"""The filter on system calls: as a program run by an interpreter, and for real in a process."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyisland.drivers.linux import seccomp
from skyisland.drivers.linux.seccomp import ALLOWED, BY_ARGUMENTS, MACHINES, REFUSED, compile_filter
from skyisland.errors import HostUnfit
from tests.support.places import ROOT
from tests.support.seccomp_attempts import ATTEMPTS, ORDINARY

ALLOW, KILL = "allow", "kill"
PROGRAMS = {machine: compile_filter(machine) for machine in ("x86_64", "aarch64")}


def verdict(machine: str, number: int, *args: int, entry: int | None = None) -> str | int:
    """What the kernel would do: `allow`, `kill`, or an errno. The instructions are those of bpf(4)."""
    arch = MACHINES[machine] if entry is None else entry
    data = struct.pack("<iIQ6Q", number, arch, 0, *args, *[0] * (6 - len(args)))
    accumulator = at = 0
    program = PROGRAMS[machine]
    while True:
        code, jump, otherwise, k = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code in (0x15, 0x35, 0x45):
            held = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += jump if held else otherwise
        else:
            assert code == 0x06
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(k) or int(k - 0x00050000)


def numbered(machine: str, name: str) -> int:
    return int(pyseccomp.resolve_syscall(MACHINES[machine], name))


@pytest.mark.parametrize("machine", PROGRAMS)
def test_every_number_gets_the_verdict_of_its_name(machine: str) -> None:
    expected: dict[int, str | int] = {}
    for name in ALLOWED.split():
        expected[numbered(machine, name)] = ALLOW
    for name in REFUSED.split():
        expected[numbered(machine, name)] = errno.EPERM
    by_arguments = {numbered(machine, name) for name in BY_ARGUMENTS}
    for number in range(2000):
        if number not in by_arguments:
            assert verdict(machine, number) == expected.get(number, errno.ENOSYS), number


def test_a_name_has_one_verdict() -> None:
    names = [*ALLOWED.split(), *REFUSED.split(), *BY_ARGUMENTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("machine", PROGRAMS)
def test_clone3_and_what_is_not_known_yet_look_like_an_older_kernel(machine: str) -> None:
    assert verdict(machine, numbered(machine, "clone3")) == errno.ENOSYS
    assert verdict(machine, 100_000) == errno.ENOSYS
    assert verdict(machine, -1) == errno.ENOSYS


def test_foreign_entries_end_the_process() -> None:
    assert verdict("x86_64", 20, entry=0x40000003) == KILL
    assert verdict("aarch64", 20, entry=0x40000028) == KILL


@pytest.mark.parametrize("machine", PROGRAMS)
@given(upper=st.integers(0, 2**32 - 1), flags=st.integers(0, 2**32 - 1))
def test_clone_makes_no_namespace(machine: str, upper: int, flags: int) -> None:
    namespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
    expected = errno.EPERM if flags & namespaces else ALLOW
    assert verdict(machine, numbered(machine, "clone"), upper << 32 | flags) == expected


@pytest.mark.parametrize("machine", PROGRAMS)
@given(
    family=st.integers(0, 50) | st.integers(0, 2**64 - 1),
    kind=st.integers(0, 15),
    flags=st.sampled_from((0, 0o4000, 0o2000000, 0o2004000)),
    protocol=st.integers(0, 300) | st.integers(0, 2**64 - 1),
)
def test_sockets_are_local_internet_or_route(
    machine: str, family: int, kind: int, flags: int, protocol: int
) -> None:
    got = verdict(machine, numbered(machine, "socket"), family, kind | flags, protocol)
    protocol &= 0xFFFFFFFF
    match family & 0xFFFFFFFF:
        case 1:
            expected: str | int = ALLOW
        case 2 | 10 if kind > 2:
            expected = errno.EPERM
        case 2 | 10:
            expected = ALLOW if protocol in (0, 1, 6, 17, 58) else errno.EPROTONOSUPPORT
        case 16:
            expected = ALLOW if protocol == 0 else errno.EPROTONOSUPPORT
        case _:
            expected = errno.EAFNOSUPPORT
    assert got == expected


@given(request=st.integers(0, 2**64 - 1) | st.sampled_from((0x5412, 0x1_0000_5412, 0x541C, 0x5423)))
def test_nobody_types_into_a_terminal(request: int) -> None:
    expected = errno.EPERM if request & 0xFFFFFFFF in (0x5412, 0x541C, 0x5423) else ALLOW
    assert verdict("x86_64", numbered("x86_64", "ioctl"), 0, request) == expected


def attempt(*args: str | Path) -> dict[str, int]:
    words = [sys.executable, "-m", "tests.support.seccomp_attempts", *args]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr.decode()
    found: dict[str, int] = json.loads(run.stdout)
    return found


def test_attempts_succeed_outside_and_fail_under_the_filter(tmp_path: Path) -> None:
    program = tmp_path / "filter.bpf"
    program.write_bytes(compile_filter())
    outside, inside = attempt(), attempt(program)
    for name in ORDINARY:
        assert (outside[f"ordinary {name}"], inside[f"ordinary {name}"]) == (0, 0), name
    unproven = set()
    for name, (expected, only_root, _) in ATTEMPTS.items():
        assert inside[name] == expected, name
        if outside[name] == expected or outside[name] in (errno.ENOSYS, errno.EAFNOSUPPORT):
            # This kernel has no such thing, or we are not the one who may do it: proves nothing.
            assert only_root or outside[name] in (errno.ENOSYS, errno.EAFNOSUPPORT), name
            unproven.add(name)
    assert len(unproven) <= (8 if os.geteuid() == 0 else len(ATTEMPTS) // 2 + 8), unproven


def test_without_the_library_there_is_no_filter_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(HostUnfit, match="apt install libseccomp2"):
        compile_filter()


def test_a_machine_without_a_filter_is_unfit() -> None:
    with pytest.raises(HostUnfit, match="riscv64"):
        compile_filter("riscv64")


def test_it_loads_in_little() -> None:
    """The kernel runs the program once for each number there is, twice per jail: keep it small."""
    assert all(len(program) // 8 < 256 for program in PROGRAMS.values())
    assert seccomp.compile_filter() == compile_filter()
