"""Whatever reads foreign bytes takes linear time: the longest text that its door lets in, at its worst.

A reader that is quadratic takes minutes on these, a linear one milliseconds. So a process of its own reads
them, and the kernel ends it when one text takes seconds of processor time, whoever holds the interpreter.
Parts of the text are read first. The whole is read only where it may take too long: even by the cube of the
length, or by its square where twice the text took three times as long. The readers are those of `make fuzz`.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from skyisland.golang.catalogue import MOST_BYTES
from skyisland.golang.modules import GO_MOD_BYTES
from skyisland.golang.parameters import FILE_BYTES
from skyisland.receipts.receipt import FILE_BYTES as RECEIPT_BYTES
from skyisland.sources.remotes import EVERY_REFERENCE_BYTES
from skyisland.sources.vanity import PAGE_BYTES
from tests.fuzz.fuzz import EMPTY_MEMBER, SEEDS, TARGETS

CPU_S = 5
PATTERNS = (
    b"\n",
    EMPTY_MEMBER,
    b" ",
    b" \t\r\n",
    b"a",
    b"/*",
    b"//\n",
    b"/* */",
    b"*/",
    b'"',
    b"\\",
    b"[",
    b"((",
    b"{}",
    b"-",
    b"0_",
    b"0x0.",
    b"1e9,",
    b"''",
    b"`",
    b"x.",
    b"x(",
    b"a/",
    b"../",
    b"a.",
    b":1:1:",
    b"skyisland.call:1:1: ",
    b"://",
    b"a://",
    b"\tHEAD",
    b"\tHEAD\n",
    b"module m ",
    b"module m\n",
    b"require",
    b"use ./a\n",
    b"use ",
    b"require (\n\tm v1\n",
    b"\tpath = a\n\turl = b\n",
    b'import "C"\n',
    b"//go:build a\n",
    b"func F",
    b"func (",
    b"filter=lfs",
    b": reading ",
    b'{"a":',
    b'"a":1,',
    b" - at `$.",
    b"undefined: ",
    b"\nfunc F(",
    b"\nfunc F(a int) {}",
    b"n0",
    b"n00000000000000002[]",
    b'n00000000000100000{"results":[',
    b"\npanic: ",
    b"\n\ngoroutine ",
    b"\n\ngoroutine 1:\nf(\n\tf.go\n",
    b"repository '",
    b"\xef\xbb\xbf",
    b"x:=1;",
    b"if x{}else ",
    b"{;",
    b";\n",
    b"a,",
    b"func(){",
    b"must1(",
    b"\xe2\x80\x8d",
    b"\xff",
    b"\0",
    b"<!--",
    b"<meta ",
    b"<meta a='",
    b"<meta &#",
    b"@",
    b"%2f",
    b"a=1&",
    b"HTTP/1.1 200 OK\r\na: b\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"t=1,",
    b"v1,A ",
    b"0123456789012345678901234567890123456789\trefs/tags/v1.0.0\n",
)
LONGEST = {
    "call": 1 << 16,
    "body": 1 << 20,
    "packed": 1 << 20,
    "url": 1 << 16,
    "page": PAGE_BYTES,
    "settings": 1 << 16,
    "git": EVERY_REFERENCE_BYTES,
    "freebsd": 1 << 18,
    "zfs": 1 << 18,
    "compiler": 1 << 16,
    "outcome": (2 << 20) + (1 << 17),
    "catalogue": MOST_BYTES,
    "origin": 1 << 16,
    "answer": (2 << 20) + (1 << 17),
    "webhook": 1 << 16,
    "push": 1 << 20,
    "headers": 16 << 10,
    "request": 1 << 16,
    "package": GO_MOD_BYTES,
    "callee": 1 << 10,
    "parameters": FILE_BYTES,
    "watched": (2 << 20) + (1 << 17),
    "receipt": RECEIPT_BYTES,
    "fleet": 4 << 20,  # max_payload of the servers
}
"""Bytes that reach each reader at most; more is refused, or cut off, before."""

READ = """
import signal, sys, time
from tests.fuzz.fuzz import SEEDS, TARGETS
from tests.attacks.test_linear import CPU_S, LONGEST, PATTERNS
name = sys.argv[1]
target, longest = TARGETS[name], LONGEST[name]
for pattern in PATTERNS:
    print(repr(pattern), flush=True)
    around = [(b"", b""), (b'{"call":"', b'"}')]
    if name == "body":
        around.append((b'{"url":"a.b/c","call":"F","args":[', b"0]}"))
    if name == "headers":
        around.append((b"wait", b"x"))
    if name == "call":
        around.append((b"F(func(){", b"})"))
    if name == "fleet":
        around.append((b"\\x01", b""))
    for before, after in around:
        before_s = 0
        for part in (16, 8, 4, 1):
            text = before + pattern * ((longest - 40) // part // len(pattern)) + after
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            target(text)
            took_s = time.process_time() - began
            if took_s * part ** (2 if took_s < 3 * before_s else 3) < CPU_S:
                break
            before_s = took_s
"""


def test_every_reader_has_its_longest_text() -> None:
    assert LONGEST.keys() == TARGETS.keys()


@pytest.mark.case("B12")
@pytest.mark.parametrize("name", LONGEST)
def test_readers_take_linear_time(name: str) -> None:
    read = subprocess.run([sys.executable, "-c", READ, name], capture_output=True, text=True, check=False)
    assert read.returncode == 0, f"{read.stdout.splitlines()[-1:]} {read.stderr[-2000:]}"


@pytest.mark.case("B12")
def test_a_quadratic_reader_would_be_ended() -> None:
    """The guard guards: what `packages` once searched a go.mod with."""
    quadratic = re.compile(rb"^\s*(require|replace)\b", re.MULTILINE)
    script = (
        "import re, signal; signal.setitimer(signal.ITIMER_PROF, 1); "
        f"re.compile({quadratic.pattern!r}, re.M).search(b'\\n' * {GO_MOD_BYTES})"
    )
    read = subprocess.run([sys.executable, "-c", script], check=False)
    assert read.returncode == -signal.SIGPROF


def test_each_reader_has_its_bound_and_seeds_to_begin_with() -> None:
    assert set(TARGETS) == set(LONGEST) == set(SEEDS)
