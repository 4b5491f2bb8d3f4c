"""Limits of control groups, read from trees as kernels, container engines, Slurm and systemd make them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.host.cgroup import Limits, limits

MIB = 2**20
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
UNLIMITED = "9223372036854771712"  # version 1, without a limit

Machine = Callable[..., Limits]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """`machine(group, mounts, {file: text})`: limits of a process; files below /sys/fs/cgroup."""

    def read(group: str, mounts: str, files: dict[str, str]) -> Limits:
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "cgroup").write_text(group)
        (proc / "mountinfo").write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mounts}")
        for name, text in files.items():
            file = tmp_path / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return limits(proc, tmp_path)

    return read


def v1(*controllers: str, root: str = "/") -> str:
    return "".join(
        f"{number} 23 0:{number} {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
        for number, name in enumerate(controllers, 30)
    )


def test_no_files_mean_no_limits(machine: Machine) -> None:
    assert machine("0::/\n", V2, {"cpu.max": "max 100000", "memory.max": "max"}) == Limits()


def test_a_machine_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert limits(tmp_path / "nowhere", tmp_path) == Limits()


def test_a_container_sees_its_own_group_as_the_root(machine: Machine) -> None:
    files = {"cpu.max": "250000 100000", "memory.max": str(2048 * MIB), "memory.current": str(1024 * MIB)}
    assert machine("0::/\n", V2, files) == Limits(2048 * MIB, 1024 * MIB, 2.5)


@pytest.mark.parametrize("level", ["slurm", "slurm/job_7", "slurm/job_7/step_0", "slurm/job_7/step_0/task_0"])
def test_a_limit_at_any_level_of_slurm_applies(machine: Machine, level: str) -> None:
    group = "slurm/job_7/step_0/task_0"
    files = {
        f"{group}/memory.max": "max",
        f"{level}/memory.max": str(2048 * MIB),
        f"{level}/cpu.max": "400000 100000",
    }
    found = machine(f"0::/{group}\n", V2, files)
    assert (found.memory, found.cpus) == (2048 * MIB, 4.0)


def test_the_least_limit_and_the_least_free_memory_apply(machine: Machine) -> None:
    files = {
        "user.slice/memory.max": str(4096 * MIB),
        "user.slice/memory.current": str(4000 * MIB),
        "user.slice/run.scope/memory.max": str(2048 * MIB),
        "user.slice/run.scope/memory.current": str(100 * MIB),
        "user.slice/cpu.max": "150000 100000",
        "user.slice/run.scope/cpu.max": "max 100000",
    }
    assert machine("0::/user.slice/run.scope\n", V2, files) == Limits(2048 * MIB, 96 * MIB, 1.5)


def test_page_cache_that_can_be_dropped_counts_as_free(machine: Machine) -> None:
    files = {
        "memory.max": str(100 * MIB),
        "memory.current": str(90 * MIB),
        "memory.stat": f"inactive_file {40 * MIB}",
    }
    assert machine("0::/\n", V2, files).free == 50 * MIB


def test_a_soft_limit_counts_as_a_limit(machine: Machine) -> None:
    assert machine("0::/a\n", V2, {"a/memory.high": str(64 * MIB), "a/memory.max": "max"}).memory == 64 * MIB


def test_version_1_is_read_at_every_level(machine: Machine) -> None:
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED,
        "memory/slurm/uid_0/memory.limit_in_bytes": str(2048 * MIB),
        "memory/slurm/uid_0/memory.usage_in_bytes": str(48 * MIB),
        "memory/slurm/uid_0/job_7/memory.limit_in_bytes": UNLIMITED,
        "cpu/slurm/cpu.cfs_quota_us": "200000",
        "cpu/slurm/cpu.cfs_period_us": "100000",
        "cpu/slurm/uid_0/cpu.cfs_quota_us": "-1",
        "cpu/slurm/uid_0/cpu.cfs_period_us": "100000",
    }
    group = "5:memory:/slurm/uid_0/job_7\n3:cpuset:/x\n2:cpu:/slurm/uid_0\n1:name=systemd:/y\n0::/\n"
    assert machine(group, v1("memory", "cpu", "cpuset"), files) == Limits(2048 * MIB, 2000 * MIB, 2.0)


def test_version_1_with_controllers_together(machine: Machine) -> None:
    mounts = "31 23 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}
    assert machine("4:cpu,cpuacct:/a\n", mounts, files).cpus == 0.5


def test_a_container_of_version_1_with_the_group_names_of_its_host(machine: Machine) -> None:
    files = {"memory/memory.limit_in_bytes": str(512 * MIB)}
    assert machine("5:memory:/docker/ab\n", v1("memory", root="/docker/ab"), files).memory == 512 * MIB


def test_a_limit_above_the_visible_groups_of_version_1_applies(machine: Machine) -> None:
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED,
        "memory/memory.stat": f"cache 0\nhierarchical_memory_limit {256 * MIB}",
    }
    assert machine("5:memory:/\n", v1("memory"), files).memory == 256 * MIB


def test_both_versions_at_once(machine: Machine) -> None:
    mounts = v1("memory") + "41 23 0:41 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = {"memory/a/memory.limit_in_bytes": str(MIB), "unified/b/cpu.max": "300000 100000"}
    assert machine("5:memory:/a\n0::/b\n", mounts, files) == Limits(MIB, MIB, 3.0)


@pytest.mark.parametrize("group", ["0::/../..\n", "0::/elsewhere/entirely\n", "0::/a (deleted)\n"])
def test_a_group_outside_of_the_mount_has_the_limits_of_the_mount(machine: Machine, group: str) -> None:
    assert machine(group, V2, {"memory.max": str(MIB)}).memory == MIB


@pytest.mark.parametrize("text", ["", "max", "-1", "many", "1e9"])
def test_a_value_that_is_no_number_limits_nothing(machine: Machine, text: str) -> None:
    assert machine("0::/\n", V2, {"memory.max": text, "cpu.max": f"{text} 100000"}) == Limits()
