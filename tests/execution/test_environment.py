from __future__ import annotations

import os

import pytest

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
