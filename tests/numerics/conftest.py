"""Analytic fields that several numerics tests use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry


def _offsets_mm(geometry: Geometry, centre: tuple[float, float, float]) -> list[np.ndarray]:
    axes = [
        (np.arange(n) - c) * v
        for n, c, v in zip(geometry.shape, centre, geometry.voxel_mm, strict=True)
    ]
    return np.meshgrid(*axes, indexing="ij", sparse=True)


@pytest.fixture
def ball() -> Callable[..., np.ndarray]:
    """Mask of a ball: geometry, centre (voxels), radius (mm)."""

    def make(geometry: Geometry, centre: tuple[float, float, float], radius: float) -> np.ndarray:
        return sum(d**2 for d in _offsets_mm(geometry, centre)) <= radius**2

    return make


@pytest.fixture
def sphere_field() -> Callable[..., np.ndarray]:
    """Field (ppm) of a sphere of 1 ppm, of the Lorentz-corrected kind: zero inside."""

    def make(geometry: Geometry, centre: tuple[float, float, float], radius: float) -> np.ndarray:
        offsets = _offsets_mm(geometry, centre)
        squared = sum(d**2 for d in offsets)
        along = sum(b * d for b, d in zip(geometry.b0_direction, offsets, strict=True))
        outside = squared > radius**2
        squared = np.where(outside, squared, 1.0)
        dipole = (3 * along**2 / squared - 1) / 3 * radius**3 / squared**1.5
        return np.where(outside, dipole, 0).astype(np.float32)

    return make
