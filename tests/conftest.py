"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the project's shared data; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BIDS_QSM_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data, which are not at {folder} (set BIDS_QSM_SHARED)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same at every run."""
    return np.random.default_rng(20240501)


@pytest.fixture
def oblique_geometry() -> Geometry:
    """Odd, anisotropic grid with a tilted B0."""
    direction = np.array([0.2, 0.3, 0.9])
    x, y, z = direction / np.linalg.norm(direction)
    return Geometry((33, 28, 25), (1.0, 1.2, 1.9), (x, y, z))


@pytest.fixture
def assert_adjoint():
    """Check <A x, y> = <x, A* y> for a linear operator and its adjoint."""

    def check(forward, adjoint, x: np.ndarray, y: np.ndarray, tolerance: float = 1e-5) -> None:
        left = np.vdot(np.asarray(forward(x), np.float64), y.astype(np.float64))
        right = np.vdot(x.astype(np.float64), np.asarray(adjoint(y), np.float64))
        scale = np.linalg.norm(x) * np.linalg.norm(y)
        assert abs(left - right) <= tolerance * scale

    return check
