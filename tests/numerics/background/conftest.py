"""A round head in an oblique field on anisotropic voxels, for all background removals."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry

HEAD = (23.0, 22.0, 18.0)
OUTER_SPHERE = (23.0, 22.0, 38.0)


@pytest.fixture
def head_geometry() -> Geometry:
    return Geometry((48, 45, 38), (1.5, 1.5, 2.0), (0.0, 0.28, 0.96))


@pytest.fixture
def make_total(head_geometry, ball):
    """Field map of a head: field; radius of the head (mm)."""

    def make(field: np.ndarray, radius: float = 27.0) -> FieldMap:
        mask = ball(head_geometry, HEAD, radius) if radius > 0 else np.zeros(field.shape, bool)
        masked = np.where(mask, field, 0).astype(np.float32)
        noise = np.full(mask.shape, 0.001, np.float32)
        return FieldMap(masked, noise, np.ones(mask.shape, np.float32), mask, head_geometry)

    return make


@pytest.fixture
def outer_field(head_geometry, sphere_field) -> np.ndarray:
    """Field of a sphere of air outside the head."""
    return 9 * sphere_field(head_geometry, OUTER_SPHERE, 8.0)
