"""How busy a host is, read from files of the kernel's."""

from __future__ import annotations

from pathlib import Path

from skyisland.host.load import HostMeter

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\nHugePages_Total:   0\n"


def test_processors_are_busy_since_the_last_reading(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    stat = tmp_path / "stat"
    meter = HostMeter(tmp_path, tmp_path)
    stat.write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    first = meter.read()
    assert first.cpu is None
    assert (first.memory_bytes, first.memory_used_bytes) == (1000 << 10, 600 << 10)
    assert first.disk_free_bytes is not None
    assert first.disk_bytes is not None
    assert 0 < first.disk_free_bytes <= first.disk_bytes
    stat.write_text("cpu  150 0 125 715 110 0 0 0 0 0\ncpu0 1 2 3\n")
    assert meter.read().cpu == 0.75


def test_what_a_host_does_not_count_is_not_told(tmp_path: Path) -> None:
    load = HostMeter(tmp_path / "gone", tmp_path / "no-proc").read()
    assert (load.cpu, load.memory_bytes, load.disk_bytes) == (None, None, None)
    assert load.load is not None
