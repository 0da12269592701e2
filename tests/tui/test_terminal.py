"""What the console must survive, on a pseudo terminal that reads, stalls, shrinks and vanishes.

    q · SIGTERM · SIGINT · SIGHUP · a crash in the console · a crash in the API · a terminal that stops
    reading · a terminal that is gone · a storm of resizes · prints of libraries and children

After each: is the API still answering, how fast, is the terminal as it was, what is the exit code?
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyte
import pytest

from skyisland.errors import SettingsError
from tests.support.fake_island import FakeIsland
from tests.support.subject import SECRET
from tui import run_console

HERE = Path(__file__).parent
WIDTH, HEIGHT = 120, 35
PATIENCE_S = 60.0
STALL_S = float(os.environ.get("SKYISLAND_TEST_STALL_S", "4"))
"""For how long the terminal reads nothing."""


class Patient:
    """A process on a pseudo terminal, and everything that the terminal was told."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.master, self.slave = pty.openpty()
        self.resize(WIDTH, HEIGHT)
        self.before = termios.tcgetattr(self.slave)
        self.said = bytearray()
        self.screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self.screen)
        self._reading = threading.Event()
        self._reading.set()
        self._lock = threading.Lock()
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONWARNINGS": "default"}
        environment["XDG_STATE_HOME"] = str(folder / "xdg")
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.subject", *words[:1], str(folder), *words[1:]],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            self._reading.wait()
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self.said += data
                with contextlib.suppress(Exception):
                    self._stream.feed(data)

    @property
    def text(self) -> str:
        with self._lock:
            return "\n".join(self.screen.display)

    def until(self, truth: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not truth():
            assert time.monotonic() < deadline, f"{what} did not come true; the screen:\n{self.text}"
            threading.Event().wait(0.02)

    def reads(self, text: str) -> None:
        self.until(lambda: text in self.text, f"{text!r} on the screen")

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def stall(self) -> None:
        """Stop reading what it draws."""
        self._reading.clear()
        # The reader is inside a read until the next bytes come; those are the last it takes.

    def recover(self) -> None:
        self._reading.set()

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def hang_up(self) -> None:
        """The terminal vanishes, as it does when an SSH connection is cut."""
        os.close(self.slave)
        self.slave = -1
        self._reading.set()
        os.close(self.master)
        self.master = -1

    def ends(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            threading.Event().wait(1)
            pytest.fail(f"it does not end:\n{(self.folder / 'stacks').read_text()}")

    @property
    def port(self) -> int:
        path = self.folder / "port"
        self.until(lambda: path.exists() and path.read_text(), "the API's port")
        return int(path.read_text())

    def ask(self) -> float:
        """Seconds that the API took for a health check, less those in which it or we got no processor."""
        url = f"http://127.0.0.1:{self.port}/healthcheck"
        started, waited = time.perf_counter(), self._waited_s()
        with urllib.request.urlopen(url, timeout=10) as reply:
            assert reply.status == 200
        return time.perf_counter() - started - (self._waited_s() - waited)

    def _waited_s(self) -> float:
        """For how long its first thread and ours were ready to run while others ran (proc(5), schedstat)."""
        threads = (f"/proc/{self.process.pid}/schedstat", "/proc/thread-self/schedstat")
        return sum(int(Path(thread).read_text().split()[1]) for thread in threads) / 1e9

    def ended(self, on: bytes, off: bytes) -> bool:
        """Whether it took back what it had asked of the terminal."""
        return self.said.rfind(off) > self.said.rfind(on)

    def assert_restored(self) -> None:
        """The terminal is as it was: settings, main screen, cursor, mouse, paste."""
        assert termios.tcgetattr(self.slave) == self.before
        for on, off in (
            (b"?1049h", b"?1049l"),
            (b"?25l", b"?25h"),
            (b"?1003h", b"?1003l"),
            (b"?2004h", b"?2004l"),
        ):
            # Its last words may still be on their way to us.
            self.until(partial(self.ended, on, off), f"the end of {on!r}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reading.set()
        for fd in (self.slave, self.master):
            if fd >= 0:
                os.close(fd)


Start = Callable[..., Patient]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    patients: list[Patient] = []

    def begin(*words: str) -> Patient:
        patient = Patient(tmp_path, *words)
        patients.append(patient)
        patient.reads("LIVE")
        return patient

    yield begin
    for patient in patients:
        patient.close()


def test_without_a_terminal_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    with pytest.raises(SettingsError, match="ssh -t"):
        run_console(FakeIsland())


def test_q_asks_then_stops_the_island(start: Start) -> None:
    patient = start("serve")
    patient.ask()
    patient.press("q")
    patient.reads("Stop the island?")
    patient.press("y")
    assert patient.ends() == 0
    patient.assert_restored()


def test_a_detached_island_runs_on(start: Start) -> None:
    patient = start("command")
    patient.port  # noqa: B018 - it answers
    patient.press("Q")
    patient.until(lambda: b"for a shell here" in patient.said, "what to do now")
    assert b"the console was detached; the island runs on without it" in patient.said
    assert f"to see it again   skyisland -c {patient.folder}/skyisland.toml console".encode() in patient.said
    for number in (signal.SIGTSTP, signal.SIGCONT):  # as Ctrl+Z and bg do
        patient.process.send_signal(number)
    assert patient.ask() < 1
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0
    log = patient.folder / "state" / "console.log"
    assert log_lines(log.read_bytes())[-1]["event"] == "IslandStopped"
    assert log_lines(patient.said) == [], "the terminal is the operator's again"
    patient.assert_restored()


def test_q_only_leaves_an_island_elsewhere(start: Start) -> None:
    patient = start("attach")
    patient.press("q")
    assert patient.ends() == 0
    patient.assert_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_island(start: Start, number: signal.Signals) -> None:
    patient = start("serve")
    patient.process.send_signal(number)
    assert patient.ends() == 0
    patient.assert_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_an_attached_console(start: Start, number: signal.Signals) -> None:
    patient = start("attach")
    patient.process.send_signal(number)
    assert patient.ends() == 128 + number
    if number is not signal.SIGHUP:
        patient.assert_restored()


def test_sighup_leaves_a_headless_island(start: Start) -> None:
    patient = start("serve")
    patient.process.send_signal(signal.SIGHUP)
    patient.until(lambda: b"?1049l" in patient.said, "the end of the console")
    assert patient.ask() < 1
    assert patient.process.poll() is None
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0


def test_a_vanished_terminal_stops_an_island_that_is_told_so(start: Start) -> None:
    patient = start("serve", "hangup-stops")
    patient.hang_up()
    assert patient.ends() == 0
    assert not (patient.folder / "headless").exists()


def test_a_vanished_terminal_leaves_a_quiet_headless_island(start: Start) -> None:
    patient = start("serve")
    at = patient.port
    patient.hang_up()
    patient.until((patient.folder / "headless").exists, "the news that it is alone")
    spent = _cpu_s(patient.process.pid)
    for _ in range(10):
        with urllib.request.urlopen(f"http://127.0.0.1:{at}/healthcheck", timeout=10) as reply:
            assert reply.status == 200
        threading.Event().wait(0.05)
    assert _cpu_s(patient.process.pid) - spent < 0.3
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0


def test_an_attached_console_ends_with_its_terminal(start: Start) -> None:
    patient = start("attach")
    patient.hang_up()
    assert patient.ends() == 128 + signal.SIGHUP


def test_a_crash_of_the_console_leaves_the_island(start: Start) -> None:
    patient = start("serve", "crash")
    patient.press("\x07")
    patient.until(lambda: b"the console crashed: RuntimeError: broken on purpose" in patient.said, "the news")
    assert patient.ask() < 1
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 1
    patient.assert_restored()
    log = (patient.folder / "log").read_text()
    assert "broken on purpose" in log
    assert SECRET not in log
    assert SECRET.encode() not in patient.said


def log_lines(text: bytes | bytearray) -> list[dict[str, Any]]:
    """The lines of JSON in what a process printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith(b'{"time"')]


def test_an_island_whose_console_crashed_goes_on_to_log(start: Start) -> None:
    patient = start("command", "crash")
    assert log_lines(patient.said) == [], "the terminal is the console's alone"
    patient.press("\x07")
    patient.until(lambda: b'runs on without it"' in patient.said, "a line of the log")
    call = json.dumps({"url": "https://example.com/a/b", "call": "F()"}).encode()
    with urllib.request.urlopen(
        f"http://127.0.0.1:{patient.port}/api/v1/function", call, timeout=20
    ) as reply:
        invocation = json.load(reply)["id"]
    patient.until(lambda: b'"InvocationFinished"' in patient.said, "the end of the call in the log")
    crash, *facts = log_lines(patient.said)
    assert (crash["level"], crash["logger"]) == ("WARNING", "tui.supervisor")
    assert "the console crashed: RuntimeError: broken on purpose" in crash["message"]
    told = [fact["event"] for fact in facts if fact.get("invocation") == invocation]
    assert told == ["InvocationFinished"]
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 1
    assert log_lines(patient.said)[-1]["event"] == "IslandStopped"
    patient.assert_restored()


def test_an_island_whose_terminal_vanished_logs_where_the_console_did(start: Start) -> None:
    patient = start("command")
    patient.hang_up()
    log = patient.folder / "state" / "console.log"
    patient.until(lambda: b"lost its terminal" in log.read_bytes(), "a line of the log")
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0
    assert log_lines(log.read_bytes())[-1]["event"] == "IslandStopped"


def test_a_crash_of_an_attached_console_tells_the_truth(start: Start) -> None:
    patient = start("attach", "crash")
    patient.press("\x07")
    assert patient.ends() == 1
    patient.assert_restored()
    assert SECRET.encode() not in patient.said


def test_a_crash_of_the_api_ends_the_console(start: Start) -> None:
    patient = start("serve", "crash-api")
    patient.process.send_signal(signal.SIGUSR2)
    assert patient.ends() == 1
    patient.assert_restored()
    assert b"the island failed: RuntimeError: the API broke" in patient.said


def test_a_stalled_terminal_does_not_stall_the_api(start: Start) -> None:
    patient = start("serve")
    reading = _p99(patient, seconds=2)
    patient.stall()
    _p99(patient, seconds=1)  # what the pipe between us still takes
    # The bound is 100 ms. A slow machine takes longer to change views, also beside a terminal that reads.
    assert _p99(patient, seconds=STALL_S) < max(0.1, 1.5 * reading)
    patient.recover()
    patient.press("3")
    patient.reads("ADDRESS")
    patient.reads("IP pool")
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0
    patient.assert_restored()


def test_a_terminal_that_is_stalled_at_the_end_holds_nobody(start: Start) -> None:
    patient = start("serve")
    patient.stall()
    for _ in range(20):
        patient.press("12")
        threading.Event().wait(0.05)
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0


def test_a_storm_of_resizes(start: Start) -> None:
    patient = start("serve")
    for n in range(120):
        patient.resize(40 + n * 7 % 160, 8 + n * 5 % 60)
        os.killpg(patient.process.pid, signal.SIGWINCH)
        if n % 10 == 0:
            patient.ask()
        threading.Event().wait(0.005)
    patient.resize(WIDTH, HEIGHT)
    os.killpg(patient.process.pid, signal.SIGWINCH)
    patient.press("7")
    for text in ("SKY ISLAND", "req/s", "7 Host", "What this host enforces", "q Quit"):
        patient.reads(text)
    assert patient.ask() < 1
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0
    patient.assert_restored()


def test_prints_of_libraries_and_children_stay_off_the_screen(start: Start) -> None:
    patient = start("serve", "noise")
    patient.process.send_signal(signal.SIGUSR2)
    log = patient.folder / "log"
    patient.until(lambda: log.exists() and log.read_text().count("NOISE") > 20, "noise in the log")
    told = log.read_text()
    for origin in ("NOISE from a logger", "NOISE on descriptor 2", "NOISE from a child"):
        assert origin in told
    assert b"NOISE" not in patient.said
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0


def test_nothing_that_a_jail_says_reaches_the_terminal_raw(start: Start) -> None:
    patient = start("serve")
    call = b'{"url": "github.com/u/r", "call": "Sleep(\\"60 \\u009b31m fn[/]x \\u001b]0;owned\\u0007\\")"}'
    request = urllib.request.Request(f"http://127.0.0.1:{patient.port}/api/v1/function", data=call)
    refused = threading.Thread(target=_send, args=(request,), daemon=True)
    refused.start()
    refused.join(PATIENCE_S)
    patient.press("5")
    patient.reads("TIME")
    patient.press("6")
    patient.reads("Logs")
    assert b"]0;owned" not in bytes(patient.said)
    patient.process.send_signal(signal.SIGTERM)
    assert patient.ends() == 0


def _p99(patient: Patient, seconds: float) -> float:
    """How long the API takes while the operator changes views."""
    times: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        patient.press("1" if len(times) % 20 == 0 else "2" if len(times) % 20 == 10 else "")
        times.append(patient.ask())
        threading.Event().wait(0.02)
    return sorted(times)[int(len(times) * 0.99)]


def _send(request: urllib.request.Request) -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
