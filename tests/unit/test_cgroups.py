"""Cgroups of version 2 on a fake of the kernel's rules; version 1 is tested for real in tests/real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skyisland.drivers.linux.cgroup.group import MAX_RETRIES
from skyisland.drivers.linux.cgroup.groups import Cgroups
from skyisland.drivers.linux.cgroup.hierarchy import CgroupMount
from skyisland.errors import DriverError
from skyisland.model import Limits
from skyisland.status import Capability, Usage
from tests.support.fakekernel import TOP, FakeKernel

LIMITS = Limits(memory_bytes=64 << 20, pids=32, cpus=0.5)


def cgroups(kernel: FakeKernel, **options: int) -> Cgroups:
    made = Cgroups("test", Path("/fake"), Path("/fake/proc"), kernel=kernel, **options)
    made.prepare()
    return made


def by_name(found: Cgroups) -> dict[str, Capability]:
    return {capability.name: capability for capability in found.capabilities()}


@pytest.fixture
def unit() -> FakeKernel:
    """Root in a delegated systemd unit."""
    kernel = FakeKernel()
    kernel.groups[TOP].enabled = {"memory", "pids", "cpu"}
    kernel.group("/system.slice", enabled=("memory", "pids", "cpu"))
    kernel.group("/system.slice/island.service").delegated = True
    kernel.island_in("/system.slice/island.service")
    return kernel


UNIT = f"{TOP}/system.slice/island.service"


# Where the groups come to be


def test_in_a_delegated_unit_the_island_moves_one_level_down(unit: FakeKernel) -> None:
    found = cgroups(unit)
    assert unit.where() == f"{UNIT}/sky-daemon-test"
    assert unit.groups[UNIT].enabled == {"memory", "pids", "cpu"}
    assert unit.groups[f"{UNIT}/sky-test"].enabled == {"memory", "pids", "cpu"}
    assert all(capability.enforced for capability in found.capabilities())
    assert by_name(found)["memory"].how == f"cgroup version 2, in {UNIT}, swap included"


def test_close_takes_everything_back(unit: FakeKernel) -> None:
    before = set(unit.groups)
    found = cgroups(unit)
    assert found.destroy(found.create("sky-test-1", LIMITS))
    found.close()
    assert set(unit.groups) == before
    assert unit.where() == UNIT
    assert unit.groups[UNIT].enabled == set()
    assert not any(capability.enforced for capability in found.capabilities())


def test_prepare_may_be_repeated(unit: FakeKernel) -> None:
    found = cgroups(unit)
    group = found.create("sky-test-1", LIMITS)
    found.prepare()
    assert unit.where() == f"{UNIT}/sky-daemon-test"
    assert found.existing() == ["sky-test-1"]
    assert found.destroy(group)
    found.close()
    assert unit.where() == UNIT


def test_other_processes_in_the_unit_are_named_and_the_move_is_undone(unit: FakeKernel) -> None:
    unit.groups[UNIT].procs.add("7")
    found = cgroups(unit)
    assert unit.where() == UNIT
    assert f"{UNIT}/sky-daemon-test" not in unit.groups
    for capability in found.capabilities():
        assert not capability.enforced
        assert capability.how == f"other processes are in {UNIT}"
        assert "Delegate=yes" in capability.remedy


def test_root_in_a_foreign_group_uses_the_top_without_changing_it() -> None:
    kernel = FakeKernel()
    kernel.groups[TOP].enabled = {"memory", "pids"}
    kernel.group("/user.slice")
    kernel.island_in("/user.slice")
    found = cgroups(kernel)
    assert kernel.where() == f"{TOP}/user.slice"
    assert kernel.groups[TOP].enabled == {"memory", "pids"}
    capabilities = by_name(found)
    assert capabilities["memory"].enforced
    assert capabilities["pids"].enforced
    assert not capabilities["cpu"].enforced
    assert capabilities["cpu"].how == f"the cpu controller is not enabled in {TOP}"
    assert "Delegate=yes" in capabilities["cpu"].remedy


def test_at_the_top_processes_and_controllers_live_together() -> None:
    kernel = FakeKernel()
    kernel.island_in("")
    found = cgroups(kernel)
    assert kernel.where() == TOP
    assert all(capability.enforced for capability in found.capabilities())


def test_in_a_container_the_namespace_is_ours() -> None:
    kernel = FakeKernel()
    kernel.groups[TOP].enabled = {"memory", "pids", "cpu"}
    kernel.group("/box")
    kernel.island_in("/box")
    kernel.namespace = "/box"
    found = cgroups(kernel)
    assert kernel.where() == f"{TOP}/box/sky-daemon-test"
    assert all(capability.enforced for capability in found.capabilities())


def test_an_ordinary_user_in_a_scope_of_his_own() -> None:
    kernel = FakeKernel(user="kim")
    kernel.groups[TOP].enabled = {"memory", "pids"}
    kernel.group("/scope", owner="kim")
    kernel.island_in("/scope")
    found = cgroups(kernel)
    assert [c.enforced for c in found.capabilities()] == [True, True, False]
    assert found.destroy(found.create("sky-test-1", LIMITS))


def test_an_ordinary_user_in_a_session_is_told_what_to_do() -> None:
    kernel = FakeKernel(user="kim")
    kernel.group("/session")
    kernel.island_in("/session")
    before = set(kernel.groups)
    found = cgroups(kernel)
    assert set(kernel.groups) == before
    for capability in found.capabilities():
        assert not capability.enforced
        assert capability.how == f"{TOP}/session is not delegated to this user"
        assert capability.remedy == "systemd-run --user --scope -p Delegate=yes skyisland serve"


def test_a_controller_that_the_kernel_lacks() -> None:
    kernel = FakeKernel(controllers=("pids", "cpu"))
    kernel.island_in("")
    found = cgroups(kernel)
    assert [c.enforced for c in found.capabilities()] == [False, True, True]
    assert "memory" in by_name(found)["memory"].how


def test_without_any_cgroups() -> None:
    found = Cgroups("test", Path("/fake"), Path("/nonexistent"), kernel=FakeKernel())
    assert [c.how for c in found.capabilities()] == ["not looked at yet"] * 3
    found.prepare()
    assert [c.enforced for c in found.capabilities()] == [False] * 3
    group = found.create("sky-test-1", LIMITS)
    group.attach(os.getpid())
    group.kill()
    assert group.join_paths == ()
    assert not group.ran_out_of_memory()
    assert group.usage() == Usage()
    assert found.destroy(group)
    assert found.existing() == []
    found.close()


def test_a_group_outside_of_what_the_mount_shows_is_taken_for_its_root() -> None:
    mount = CgroupMount(2, "/sys/fs/cgroup", "/docker/1", frozenset())
    assert mount.folder("/docker/1") == "/sys/fs/cgroup"
    assert mount.folder("/docker/1/in") == "/sys/fs/cgroup/in"
    assert mount.folder("/elsewhere") == "/sys/fs/cgroup"
    assert CgroupMount(2, "/sys/fs/cgroup", "/", frozenset()).folder("/../../x") == "/sys/fs/cgroup/x"


# Groups


def test_limits_are_written(unit: FakeKernel) -> None:
    group = cgroups(unit).create("sky-test-1", LIMITS)
    (path,) = group.join_paths
    values = unit.groups[str(path.parent)].values
    assert values == {
        "memory.max": str(64 << 20),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": "32",
        "cpu.max": "50000 100000",
    }


def test_no_limit_is_no_write(unit: FakeKernel) -> None:
    group = cgroups(unit).create("sky-test-1", Limits())
    assert unit.groups[str(group.join_paths[0].parent)].values == {}


def test_swap_that_is_not_counted_is_admitted(unit: FakeKernel) -> None:
    unit.lost.add("memory.swap.max")
    found = cgroups(unit)
    found.create("sky-test-1", LIMITS)
    memory = by_name(found)["memory"]
    assert memory.enforced
    assert "swap is not counted" in memory.how
    assert "swapaccount=1" in memory.remedy


def test_attach_kill_destroy(unit: FakeKernel) -> None:
    found = cgroups(unit, spare=0)
    group = found.create("sky-test-1", LIMITS)
    group.attach(4242)
    assert unit.where("4242") == str(group.join_paths[0].parent)
    assert group.usage().pids == 1
    assert not found.destroy(group)
    group.kill()
    assert found.destroy(group)
    assert found.destroy(group)
    assert found.existing() == []
    assert unit.children(f"{UNIT}/sky-test") == []


def test_out_of_memory_is_seen_and_such_a_group_is_never_used_again(unit: FakeKernel) -> None:
    found = cgroups(unit)
    group = found.create("sky-test-1", LIMITS)
    folder = str(group.join_paths[0].parent)
    assert not group.ran_out_of_memory()
    unit.groups[folder].values["memory.events"] = "oom 1\noom_kill 1\n"
    assert group.ran_out_of_memory()
    assert found.destroy(group)
    assert folder not in unit.groups


def test_an_empty_group_serves_the_next_jail_with_the_same_limits(unit: FakeKernel) -> None:
    found = cgroups(unit, spare=1)
    first, second = found.create("sky-test-1", LIMITS), found.create("sky-test-2", LIMITS)
    paths = first.join_paths
    unit.groups[str(paths[0].parent)].values["cpu.stat"] = "usage_usec 2500000\n"
    assert first.usage().cpu_s == 2.5
    assert found.destroy(first)
    assert found.destroy(second)
    assert len(unit.children(f"{UNIT}/sky-test")) == 1
    assert found.existing() == []
    assert found.create("sky-test-3", Limits(memory_bytes=1 << 20)).join_paths != paths
    again = found.create("sky-test-4", LIMITS)
    assert again.join_paths == paths
    assert again.usage().cpu_s == 0.0
    assert found.existing() == ["sky-test-3", "sky-test-4"]


@pytest.mark.parametrize("left", ["process", "memory"])
def test_a_group_with_something_left_in_it_is_not_used_again(unit: FakeKernel, left: str) -> None:
    found = cgroups(unit)
    group = found.create("sky-test-1", LIMITS)
    folder = str(group.join_paths[0].parent)
    if left == "process":
        group.attach(4242)
        assert not found.destroy(group)
        unit.groups[folder].procs.clear()
        assert found.destroy(group)
    else:
        unit.groups[folder].values["memory.current"] = str(32 << 20)
        assert found.destroy(group)
        assert folder not in unit.groups


def test_a_zombie_is_waited_for_but_not_for_long(unit: FakeKernel) -> None:
    found = cgroups(unit)
    quick, slow = found.create("sky-test-1", LIMITS), found.create("sky-test-2", LIMITS)
    for group in (quick, slow):
        unit.groups[str(group.join_paths[0].parent)].zombies = 1
        assert not found.destroy(group)
    unit.groups[str(quick.join_paths[0].parent)].zombies = 0
    assert found.destroy(quick)
    while not found.destroy(slow):
        pass
    assert [path.parent for path in quick.join_paths] == [Path(p) for p in unit.children(f"{UNIT}/sky-test")]


def test_leftovers_of_an_earlier_life_are_found_and_removed(unit: FakeKernel) -> None:
    earlier = cgroups(unit)
    lost = earlier.create("sky-test-1", LIMITS)
    lost.attach(4242)
    unit.group("/elsewhere")
    unit.group("/elsewhere/sky-test")
    unit.group("/elsewhere/sky-test/sky-test-slot-0").procs.add("43")
    found = cgroups(unit)
    assert found.existing() == ["sky-test-slot-0"]
    fresh = found.create("sky-test-2", LIMITS)
    assert fresh.join_paths != lost.join_paths
    assert found.remove("sky-test-slot-0")
    assert found.remove("sky-test-slot-0")
    assert found.existing() == ["sky-test-2"]
    assert not unit.children(f"{TOP}/elsewhere/sky-test")
    assert found.remove("sky-test-2")
    assert found.existing() == []
    found.close()
    assert f"{TOP}/elsewhere/sky-test" not in unit.groups


def test_only_own_names_are_removed(unit: FakeKernel) -> None:
    found = cgroups(unit)
    unit.group("/system.slice/island.service/sky-test/other")
    assert found.existing() == []
    assert found.remove("other")
    assert found.remove("sky-test-/../../sky-daemon-test")
    assert f"{UNIT}/sky-test/other" in unit.groups
    assert f"{UNIT}/sky-daemon-test" in unit.groups


def test_a_refusal_of_the_kernel_leaves_nothing(unit: FakeKernel) -> None:
    found = cgroups(unit)
    unit.lost.add("memory.max")
    with pytest.raises(DriverError, match="sky-test-1"):
        found.create("sky-test-1", LIMITS)
    assert unit.children(f"{UNIT}/sky-test") == []


def test_the_group_of_a_dead_jail_is_put_aside_and_looked_at_when_one_is_wanted(unit: FakeKernel) -> None:
    found = cgroups(unit)
    first = found.create("sky-test-1", LIMITS)
    folder = str(first.join_paths[0].parent)
    unit.groups[folder].zombies = 1
    assert found.set_aside(first)
    assert found.set_aside(first), "it may be repeated"
    assert found.existing() == []
    second = found.create("sky-test-2", LIMITS)
    assert second.join_paths != first.join_paths
    unit.groups[folder].zombies = 0
    assert found.create("sky-test-3", LIMITS).join_paths == first.join_paths


@pytest.mark.parametrize("left", ["memory", "killed", "zombie", "process"])
def test_a_group_that_stays_unfit_is_removed(unit: FakeKernel, left: str) -> None:
    found = cgroups(unit)
    group = found.create("sky-test-1", LIMITS)
    folder = str(group.join_paths[0].parent)
    if left == "memory":
        unit.groups[folder].values["memory.current"] = str(32 << 20)
    elif left == "killed":
        unit.groups[folder].values["memory.events"] = "oom 1\noom_kill 1\n"
    elif left == "zombie":
        unit.groups[folder].zombies = 1
    else:
        group.attach(4242)
    assert found.set_aside(group)
    for number in range(MAX_RETRIES + 1):
        assert found.create(f"sky-test-{number}", LIMITS).join_paths != group.join_paths
    assert (folder in unit.groups) == (left == "process")


def test_no_more_groups_are_kept_than_wanted(unit: FakeKernel) -> None:
    found = cgroups(unit, spare=2)
    groups = [found.create(f"sky-test-{number}", LIMITS) for number in range(4)]
    assert all(found.set_aside(group) for group in groups)
    assert [str(group.join_paths[0].parent) for group in groups[2:]] == unit.children(f"{UNIT}/sky-test")
