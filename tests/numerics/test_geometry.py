from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import (
    Geometry,
    crop,
    dipole_kernel,
    hz_per_ppm,
    pad,
    padded_geometry,
    sphere_kernel,
)


def sphere(geometry: Geometry, radius_mm: float, oversampling: int = 3) -> np.ndarray:
    """Partial-volume sphere in the middle of the grid."""
    steps = (np.arange(oversampling) + 0.5) / oversampling - 0.5
    centre = [(n // 2) for n in geometry.shape]
    total = np.zeros(geometry.shape, np.float32)
    axes = [np.arange(n) - c for n, c in zip(geometry.shape, centre, strict=True)]
    for dx in steps:
        for dy in steps:
            for dz in steps:
                x, y, z = (
                    ((a + d) * v).reshape([-1 if i == j else 1 for j in range(3)])
                    for i, (a, d, v) in enumerate(
                        zip(axes, (dx, dy, dz), geometry.voxel_mm, strict=True)
                    )
                )
                total += x**2 + y**2 + z**2 <= radius_mm**2
    return total / oversampling**3


@pytest.mark.parametrize("tilt", [0.0, 0.35, 1.2])
def test_field_of_a_sphere_is_the_analytic_dipole(tilt: float) -> None:
    b0 = (0.0, float(np.sin(tilt)), float(np.cos(tilt)))
    geometry = Geometry((96, 80, 64), (1.0, 1.2, 1.5), b0)
    radius, chi = 8.0, 0.1
    field = convolve(chi * sphere(geometry, radius), dipole_kernel(geometry))
    grid = np.stack(
        np.meshgrid(
            *[
                (np.arange(n) - n // 2) * v
                for n, v in zip(geometry.shape, geometry.voxel_mm, strict=True)
            ],
            indexing="ij",
        )
    )
    r = np.linalg.norm(grid, axis=0)
    cosine = np.tensordot(b0, grid, 1) / np.maximum(r, 1e-6)
    analytic = np.where(
        r > radius, chi / 3 * (radius / np.maximum(r, 1)) ** 3 * (3 * cosine**2 - 1), 0
    )
    shell = (r > radius + 3) & (r < 22)
    # what is left is the ringing of the sphere's band-limited edge
    error = (field - analytic)[shell]
    assert np.abs(error).max() < 0.06 * chi / 3
    assert np.sqrt(np.mean(error**2)) < 0.006 * chi / 3
    assert abs(field[r < radius - 3].mean()) < 0.002 * chi


def test_kernel_is_real_symmetric_operator(oblique_geometry, rng, assert_adjoint) -> None:
    for shape in (oblique_geometry.shape, (32, 28, 24)):
        geometry = oblique_geometry.with_shape(shape)
        kernel = dipole_kernel(geometry)
        x, y = rng.standard_normal((2, *shape)).astype(np.float32)
        assert_adjoint(lambda v, k=kernel: convolve(v, k), lambda v, k=kernel: convolve(v, k), x, y)


def test_kernel_follows_axis_permutation_and_flip(rng) -> None:
    geometry = Geometry((20, 18, 16), (1.0, 1.5, 2.0), (0.6, 0.0, 0.8))
    volume = rng.standard_normal(geometry.shape).astype(np.float32)
    field = convolve(volume, dipole_kernel(geometry))
    turned = Geometry((16, 20, 18), (2.0, 1.0, 1.5), (0.8, 0.6, 0.0))
    permuted = convolve(np.ascontiguousarray(volume.transpose(2, 0, 1)), dipole_kernel(turned))
    np.testing.assert_allclose(permuted, field.transpose(2, 0, 1), atol=1e-5)
    mirrored = Geometry(geometry.shape, geometry.voxel_mm, (-0.6, 0.0, 0.8))
    flipped = convolve(np.ascontiguousarray(volume[::-1]), dipole_kernel(mirrored))
    np.testing.assert_allclose(flipped, field[::-1], atol=1e-5)


def test_sphere_kernel_is_the_spherical_mean(rng) -> None:
    geometry = Geometry((21, 20, 19), (1.0, 1.0, 2.0))
    volume = rng.standard_normal(geometry.shape).astype(np.float32)
    offsets = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"))
    ball = (offsets[0] ** 2 + offsets[1] ** 2 + (2 * offsets[2]) ** 2 <= 16).astype(float)
    naive = ndimage.convolve(volume.astype(float), ball / ball.sum(), mode="wrap")
    fast = convolve(volume, sphere_kernel(geometry, 4.0))
    np.testing.assert_allclose(fast, naive, atol=1e-6)


def test_padding_round_trip_and_size(rng) -> None:
    geometry = Geometry((17, 23, 11), (1, 1, 1))
    padded = padded_geometry(geometry, (5, 5, 5))
    assert all(p >= n + 5 for p, n in zip(padded.shape, geometry.shape, strict=True))
    volume = rng.standard_normal(geometry.shape).astype(np.float32)
    np.testing.assert_array_equal(crop(pad(volume, padded.shape), geometry.shape), volume)


def test_units() -> None:
    assert hz_per_ppm(3.0) == pytest.approx(127.732434)


@pytest.mark.parametrize(
    ("shape", "voxel", "b0"),
    [
        ((0, 2, 2), (1, 1, 1), (0, 0, 1)),
        ((2, 2, 2), (1, 0, 1), (0, 0, 1)),
        ((2, 2, 2), (1, 1, 1), (0, 0, 2)),
    ],
)
def test_impossible_geometry_is_refused(shape, voxel, b0) -> None:
    with pytest.raises(ValueError, match="must be"):
        Geometry(shape, voxel, b0)
