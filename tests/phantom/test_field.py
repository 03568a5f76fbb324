"""The forward model on analytic truth; the shim."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.phantom.field import field_ppm, shim


def _unit(vector) -> tuple[float, float, float]:
    x, y, z = np.asarray(vector) / np.linalg.norm(vector)
    return float(x), float(y), float(z)


def _positions(shape, voxel_mm):
    return np.ix_(*((np.arange(n) - n // 2) * v for n, v in zip(shape, voxel_mm, strict=True)))


@pytest.mark.parametrize("direction", [(0, 0, 1), (0.2, -0.3, 0.9)])
def test_sphere_field_is_a_dipole_outside_and_zero_inside(direction):
    geometry = Geometry((64, 72, 60), (1.0, 0.9, 1.1), _unit(direction))
    x, y, z = _positions(geometry.shape, geometry.voxel_mm)
    radius, chi = 9.0, 0.1
    r = np.sqrt(x**2 + y**2 + z**2)
    sphere = (chi * (r < radius)).astype(np.float32)
    field = field_ppm(sphere, geometry, outside_ppm=0.0)

    bx, by, bz = geometry.b0_direction
    cos2 = ((x * bx + y * by + z * bz) / np.maximum(r, 1e-6)) ** 2
    volume = sphere.sum() / chi * geometry.voxel_mm3
    dipole = chi * volume / (4 * np.pi) * (3 * cos2 - 1) / np.maximum(r, 1e-6) ** 3
    outside = (r > radius + 4) & (r < 26)
    error = (field - dipole)[outside]
    assert np.sqrt(np.mean(error**2)) < 0.01 * np.sqrt(np.mean(dipole[outside] ** 2))
    assert np.abs(error).max() < 0.04 * dipole[outside].max()
    assert abs(field[r < radius - 3].mean()) < 0.001


def test_surrounding_value_is_subtracted():
    geometry = Geometry((20, 24, 22), (1.0, 1.0, 1.0))
    chi = np.full(geometry.shape, 9.4, np.float32)
    assert np.abs(field_ppm(chi, geometry, outside_ppm=9.4)).max() < 1e-5


def test_turning_head_and_field_together_turns_the_field():
    rng = np.random.default_rng(1)
    chi = np.zeros((24, 24, 24), np.float32)
    chi[8:16, 9:15, 7:17] = rng.standard_normal((8, 6, 10)).cumsum(axis=0)
    along_z = field_ppm(chi, Geometry(chi.shape, (1, 1, 1), (0, 0, 1)), 0.0)
    turned = np.ascontiguousarray(chi.transpose(2, 1, 0))
    along_x = field_ppm(turned, Geometry(chi.shape, (1, 1, 1), (1, 0, 0)), 0.0)
    np.testing.assert_allclose(along_x.transpose(2, 1, 0), along_z, atol=2e-5)


@pytest.mark.parametrize(("order", "removed"), [(0, 1), (1, 4), (2, 9)])
def test_shim_removes_the_harmonics_up_to_its_order(order, removed):
    shape, voxel_mm = (30, 28, 26), (2.0, 2.5, 3.0)
    x, y, z = (a / 40 for a in _positions(shape, voxel_mm))
    harmonics = [1 + 0 * x, x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2]
    brain = np.broadcast_to(x**2 + y**2 + z**2 < 0.5, shape)
    for index, harmonic in enumerate(harmonics):
        field = np.broadcast_to(50 * harmonic, shape).astype(np.float32)
        shim(field, brain, voxel_mm, order)
        left = np.abs(field[brain]).max()
        assert left < 1e-3 if index < removed else left > 5


def test_no_shim_leaves_the_field_alone():
    field = np.ones((8, 8, 8), np.float32)
    shim(field, np.ones((8, 8, 8), bool), (1.0, 1.0, 1.0), -1)
    assert (field == 1).all()
