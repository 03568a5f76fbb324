from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_qsm import limits
from bids_qsm.limits import available_cpus, available_memory_gib, memory_bytes

CORES = len(os.sched_getaffinity(0))
MIB = 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Put control groups into the place of this machine's: ``groups(own lines, files)``."""
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    monkeypatch.setattr(limits, "_OWN_CGROUPS", tmp_path / "own")

    def write(own: str, files: dict[str, object]) -> None:
        for name, text in ({"own": own} | files).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        memory_bytes.cache_clear()

    yield write
    memory_bytes.cache_clear()


def test_without_control_groups(groups) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for own in ("", "0::/", "4:memory:/\n1:cpu:/"):
        groups(own, {})
        assert available_cpus() == CORES
        assert 0 < available_memory_gib() < machine / 2**30
        assert memory_bytes() == machine


@pytest.mark.parametrize(
    ("line", "cpus"), [("max 100000", CORES), ("100000 100000", 1), ("50000 100000", 1)]
)
def test_limit_of_cores(groups, line, cpus) -> None:
    groups("0::/", {"cpu.max": line})
    assert available_cpus() == cpus


@pytest.mark.parametrize(("quota", "cpus"), [(-1, CORES), (100000, 1), (50000, 1)])
def test_limit_of_cores_in_version_1(groups, quota, cpus) -> None:
    files = {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": 100000}
    for own in ("3:cpu,cpuacct:/", "5:cpu:/docker/4f", "0::/\n5:cpu:/../.."):
        groups(own, files)
        assert available_cpus() == cpus


def test_limit_of_memory(groups) -> None:
    groups("0::/", {"memory.max": 512 * MIB, "memory.current": 256 * MIB})
    assert memory_bytes() == 512 * MIB
    assert available_memory_gib() == pytest.approx(0.25)


@pytest.mark.parametrize("version", [1, 2])
def test_cached_files_are_free_memory(groups, version) -> None:
    limit, used = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
    folder, total = ("", "") if version == 2 else ("memory/", "total_")
    stat = (
        f"active_file 0\ninactive_file 1\n{total}active_file {MIB}\n{total}inactive_file {99 * MIB}"
    )
    files = {limit: 512 * MIB, used: 256 * MIB, "stat": stat}
    own = "0::/" if version == 2 else "7:memory:/\n0::/"
    groups(own, {f"{folder}memory.{name}": text for name, text in files.items()})
    assert available_memory_gib() == pytest.approx((512 - 256 + 100) / 1024)
    assert memory_bytes() == 512 * MIB


def test_tightest_of_the_groups_above_counts(groups) -> None:
    """As under SLURM, which limits the job, its steps and their tasks."""
    groups(
        "0::/slurm/job_7/step_0",
        {
            "slurm/memory.max": 900 * MIB,
            "slurm/memory.current": 890 * MIB,
            "slurm/job_7/memory.max": 300 * MIB,
            "slurm/job_7/memory.current": 100 * MIB,
            "slurm/job_7/step_0/memory.max": "max",
            "slurm/job_7/cpu.max": "100000 100000",
            "slurm/job_8/memory.max": 1,
        },
    )
    assert memory_bytes() == 300 * MIB
    assert available_memory_gib() == pytest.approx(10 / 1024)
    assert available_cpus() == 1


@pytest.mark.parametrize(
    ("own", "name", "text"),
    [
        ("0::/", "memory.max", "max"),
        ("2:memory:/", "memory/memory.limit_in_bytes", 9223372036854771712),
    ],
)
def test_group_without_limit_has_all_memory(groups, own, name, text) -> None:
    groups("", {})
    machine = memory_bytes()
    groups(own, {name: text})
    assert memory_bytes() == machine


def test_this_machine() -> None:
    assert Path("/proc/self/cgroup").exists()
    assert 1 <= available_cpus() <= CORES
    assert available_memory_gib() * 2**30 < memory_bytes()
