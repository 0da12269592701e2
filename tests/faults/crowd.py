"""Who calls while chaos reigns, and what: each of these has an address of its own, so a share of its own.

mixed    good calls and hostile ones, as a busy island has them
greedy   more sleepers, builds and stalled Git servers than it may have at one time
bombs    functions and repositories that take whatever they can get
floods   connections that stay half open, long texts to refuse, HTTP/2 requests that are reset
modest   one good call at a time, whose answers are timed
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from examples import publish
from tests.support.daemon import HOST
from tests.support.islands import make_repository

Body = dict[str, Any]
Act = tuple[Callable[[random.Random], Body], set[int], Callable[[Body, str], bool]]
"""What is sent, and what may come of it: statuses, then what is in the data of a good answer."""
Acts = Mapping[str, tuple[int, Act]]
"""Acts by name, with their weights."""

BOMBS_HOST = "bombs.skyisland.test"
STALLED = "stalled.skyisland.test"
MAX_SIZE = 32 << 20
"""The largest repository that the island under test takes."""


def _call(package: str, call: str, **more: Any) -> Body:
    return {"url": f"{HOST}/{package}", "call": call, **more}


def number(chance: random.Random) -> Body:
    return _call("textkit", f'Number("{chance.randrange(10**6)}")')


def same_number(body: Body, data: str) -> bool:
    return data == f"{body['call'][8:-2]} <nil>"


def _fixed(call: str) -> Callable[[random.Random], Body]:
    return lambda _: _call("trouble", call)


def bomb(package: str, call: str, **more: Any) -> Body:
    return {"url": f"{BOMBS_HOST}/{package}", "call": call, **more}


def _refused(package: str) -> Callable[[random.Random], Body]:
    return lambda _: bomb(package, "F()", cache_bust=True)


def _any(_: Body, __: str) -> bool:
    return True


hang_up = _fixed("Sleep(800000000)")

MIXED: Acts = {
    "good call": (30, (number, {200}, same_number)),
    "cold call": (5, (lambda c: {**number(c), "cold": True}, {200}, same_number)),
    "built anew": (1, (lambda c: {**number(c), "cache_bust": True}, {200}, same_number)),
    "panic": (4, (_fixed('Panic("chaos")'), {502}, _any)),
    "exit": (4, (_fixed("Exit(3)"), {502}, _any)),
    "signal": (3, (_fixed("Signal(11)"), {502}, _any)),
    "memory": (3, (_fixed("Hog(256)"), {502}, _any)),
    "flood": (3, (_fixed("Flood(8)"), {502}, _any)),
    "sleep": (3, (_fixed("Sleep(60000000000)"), {504}, _any)),
    "stray": (4, (_fixed("Stray()"), {200}, lambda _, data: data == "started: <nil>")),
    "mark": (4, (_fixed("Remember()"), {200}, lambda _, data: data == "false")),
    "no such function": (2, (lambda _: _call("textkit", "Nothing()"), {422}, _any)),
    "no call": (3, (lambda _: _call("textkit", "X()); os.Exit(0);("), {400}, _any)),
    "no body": (2, (lambda _: {"uri": 1}, {400}, _any)),
    "refused source": (2, (lambda _: {"url": "127.0.0.1/a/b", "call": "F()"}, {403}, _any)),
}
GREEDY: Acts = {
    "greedy sleeper": (5, (_fixed("Sleep(60000000000)"), {504}, _any)),
    "greedy build": (2, (lambda c: {**number(c), "cache_bust": True}, {200}, same_number)),
    "greedy stalled Git": (
        4,
        (lambda c: {"url": f"{STALLED}/r{c.randrange(10**9)}.git", "call": "F()"}, {502}, _any),
    ),
}
"""Its stalled repositories are new ones: what failed is remembered, and answered at once."""
# On a busy host, Git may come to its time-out before it has counted.
BOMBS: Acts = {
    "fork bomb": (2, (lambda _: bomb("bombs", "Fork()"), {502, 504}, _any)),
    "memory bomb": (2, (_fixed("Hog(65536)"), {502}, _any)),
    "inode bomb": (2, (lambda _: bomb("bombs", "Inodes()"), {502, 504}, _any)),
    "disk bomb": (2, (_fixed("Fill(65536)"), {502, 504}, _any)),
    "processor bomb": (1, (_fixed("Spin()"), {504}, _any)),
    "a million files": (2, (_refused("million"), {403, 502}, _any)),
    "zeros, compressed": (2, (_refused("zeros"), {403, 502}, _any)),
    "go.mod of newlines": (2, (_refused("newlines"), {200, 422}, _any)),
}


def make_bombs(folder: Path) -> dict[str, str]:
    """The repositories of `BOMBS`; the `[git] rewrite` that leads to them."""
    source = Path(__file__).with_name("bombs")
    make_repository(folder / "bombs", {path.name: path.read_text() for path in source.iterdir()})
    package = {"f.go": "package f\n\nfunc F() {}\n"}
    make_repository(folder / "newlines", {**package, "go.mod": "module f\n" + "\n" * (1 << 20)})
    make_repository(folder / "zeros", {**package, "zeros": "\0" * (2 * MAX_SIZE)})
    make_repository(folder / "million", package)
    _git(folder / "million", "update-ref", "refs/heads/main", _many_files(folder / "million"))
    return {f"https://{BOMBS_HOST}/": f"{folder.as_uri()}/"}


def _many_files(repository: Path) -> str:
    """A commit of a million files, in a few objects."""
    entry = f"100644 blob {_git(repository, 'hash-object', '-w', 'f.go')}"
    for _ in range(2):
        lines = "".join(f"{entry}\t{name}\n" for name in range(1000))
        entry = f"040000 tree {_git(repository, 'mktree', stdin=lines)}"
    return _git(repository, *publish.IDENTITY, "commit-tree", "-m", "x", entry.split()[-1])


def _git(repository: Path, *words: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["git", *words], cwd=repository, input=stdin, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
