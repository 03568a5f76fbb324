from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from bids_qsm.errors import UnwritableOutputError
from bids_qsm.execution import environment
from bids_qsm.execution.environment import available_cpus, available_memory_gib, prepare_environment


@pytest.fixture
def surroundings(monkeypatch) -> pytest.MonkeyPatch:
    """Put every variable back after the test."""
    for name in list(os.environ):
        monkeypatch.setenv(name, os.environ[name])
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MPLCONFIGDIR", "HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return monkeypatch


def test_threads_and_home(surroundings, tmp_path) -> None:
    surroundings.setenv("HOME", "/nonexistent")
    surroundings.delenv("MPLCONFIGDIR")
    prepare_environment(3)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "3"
    assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "1"
    assert os.environ["HOME"] != "/nonexistent"
    surroundings.setenv("HOME", str(tmp_path))
    prepare_environment(1)
    assert os.environ["HOME"] == str(tmp_path)


def test_read_only_caches_are_copied(surroundings, tmp_path) -> None:
    warmed = tmp_path / "warmed"
    (warmed / "numerics_1").mkdir(parents=True)
    (warmed / "numerics_1" / "kernel.nbi").write_bytes(b"compiled")
    surroundings.setenv("HOME", str(tmp_path))
    surroundings.setenv("NUMBA_CACHE_DIR", str(warmed))
    prepare_environment(1)
    assert os.environ["NUMBA_CACHE_DIR"] == str(warmed)
    surroundings.setattr(environment, "_is_read_only", lambda folder: folder == warmed)
    prepare_environment(1)
    copy = Path(os.environ["NUMBA_CACHE_DIR"])
    assert copy != warmed
    assert (copy / "numerics_1" / "kernel.nbi").read_bytes() == b"compiled"
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    assert os.access(copy / "numerics_1", os.W_OK)


def test_no_temporary_folder_is_said(surroundings) -> None:
    def refuse(prefix: str) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    surroundings.setenv("HOME", "/nonexistent")
    surroundings.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UnwritableOutputError, match="point TMPDIR to one"):
        prepare_environment(1)


@pytest.mark.parametrize(
    ("line", "cpus"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)]
)
def test_container_limit_of_cores(tmp_path, monkeypatch, line, cpus) -> None:
    (tmp_path / "cpu.max").write_text(line)
    monkeypatch.setattr(environment, "_CGROUP", tmp_path)
    assert available_cpus() == (cpus or len(os.sched_getaffinity(0)))


def test_container_limit_of_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "_CGROUP", tmp_path)
    free = available_memory_gib()
    assert free > 0
    (tmp_path / "memory.max").write_text(str(2**29))
    (tmp_path / "memory.current").write_text(str(2**28))
    assert available_memory_gib() == pytest.approx(min(free, 0.25), rel=0.2)


@pytest.mark.parametrize(("quota", "cpus"), [("-1", None), ("100000", 1), ("50000", 1)])
def test_limits_of_older_control_groups(tmp_path, monkeypatch, quota, cpus) -> None:
    """Version 1, as systems of 2021 and before have it."""
    monkeypatch.setattr(environment, "_CGROUP", tmp_path)
    free = available_memory_gib()
    for name, text in {
        "cpu/cpu.cfs_quota_us": quota,
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(2**29),
        "memory/memory.usage_in_bytes": str(2**28),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert available_cpus() == (cpus or len(os.sched_getaffinity(0)))
    assert available_memory_gib() == pytest.approx(min(free, 0.25), rel=0.2)
