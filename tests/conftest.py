"""Fixtures that several test files use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.anatomy import atlases
from bids_qsm.numerics.geometry import Geometry

# numba's threads wait for each other asleep: awake, those of one worker keep another from working
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Started first, so that the workers that take one file after the other end together.
LONGEST = (
    "test_participant.py",
    "anatomy/test_atlas_import.py",
    "phantom/test_planted_faults.py",
    "phantom/test_anatomy.py",
    "anatomy/test_study_template.py",
    "anatomy/test_brain.py",
    "golden/test_golden.py",
    "test_group.py",
    "benchmarks/test_cohort.py",
    "anatomy/test_warp.py",
    "anatomy/test_rigid.py",
    "numerics/background/test_pdf.py",
    "numerics/background/test_joint.py",
    "report/test_viewer_live.py",
    "report/test_browser.py",
    "test_faults.py",
    "execution/test_slurm.py",
    "anatomy/test_ct.py",
    "numerics/inversion/test_tv.py",
    "benchmarks/test_methods.py",
    "test_uncombined.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest come first."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the project's shared data; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BIDS_QSM_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data, which are not at {folder} (set BIDS_QSM_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def default_atlas_is_read_once() -> Iterator[None]:
    """Keep the default atlas: reading it takes two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlases, "_harvard_oxford", cache(atlases._harvard_oxford))
        yield


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
