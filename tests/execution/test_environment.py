from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from bids_qsm.errors import UnwritableOutputError
from bids_qsm.execution import environment
from bids_qsm.execution.environment import prepare_environment


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
