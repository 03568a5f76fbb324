"""The moment of a source from the field around it."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, crop, dipole_kernel, pad, padded_geometry
from bids_qsm.numerics.moments import fit_moment, fit_moment_to_total, unexplained_field

OBLIQUE = (0.0, np.sin(0.4), np.cos(0.4))


def local_of(field, mask, geometry) -> FieldMap:
    noise = np.where(mask, np.float32(0.004), np.float32(np.inf))
    magnitude = mask.astype(np.float32)
    return FieldMap(np.where(mask, field, 0).astype(np.float32), noise, magnitude, mask, geometry)


def dipole_field(geometry, centre_mm, moment) -> np.ndarray:
    """Mean field in each voxel of a point dipole, by many points in each."""
    b, total, parts = geometry.b0_direction, 0.0, 4
    steps = (np.arange(parts) + 0.5) / parts - 0.5
    for shift in np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3):
        x, y, z = np.ix_(
            *(
                (np.arange(n) + s) * v - c
                for n, s, v, c in zip(
                    geometry.shape, shift, geometry.voxel_mm, centre_mm, strict=True
                )
            )
        )
        squared = np.maximum(x**2 + y**2 + z**2, 0.5)
        along = b[0] * x + b[1] * y + b[2] * z
        total = total + moment / (4 * np.pi) * (3 * along**2 / squared - 1) / squared**1.5
    return total / parts**3


@pytest.mark.parametrize(
    ("voxel_mm", "b0"), [((1.0, 1.0, 1.0), (0.0, 0.0, 1.0)), ((1.0, 1.0, 2.0), OBLIQUE)]
)
def test_a_dipole_in_a_void_is_measured_whatever_the_map_says_there(voxel_mm, b0):
    geometry = Geometry((28, 28, 20), voxel_mm, b0)
    centre = (14.3, 13.6, 9.8 * voxel_mm[2])
    field = dipole_field(geometry, centre, 30.0)
    x, y, z = np.ix_(*(np.arange(n) * v for n, v in zip(geometry.shape, voxel_mm, strict=True)))
    field = field + 0.02 + 0.003 * (x - 14) - 0.002 * (z - 14)
    void = (x - 14.3) ** 2 + (y - 13.6) ** 2 + (z - centre[2]) ** 2 < 2.0**2
    field = np.where(void, 0.3, field)
    local = local_of(field, np.ones(geometry.shape, bool), geometry)
    start = (15.0, 13.0, centre[2] + 0.7)
    zero = np.zeros(geometry.shape, np.float32)
    found = fit_moment(local.field_ppm, zero, local, start, 3.5)
    assert found.ppm_mm3 == pytest.approx(30.0, rel=0.01)
    assert found.centre_mm == pytest.approx(centre, abs=0.05)
    assert found.explained > 0.99
    turned = fit_moment(-local.field_ppm, zero, local, start, 3.5)
    assert turned.ppm_mm3 == pytest.approx(-found.ppm_mm3, rel=1e-6)


def test_what_the_map_explains_elsewhere_does_not_count(rng_seed=3):
    geometry = Geometry((36, 36, 36), (1.0, 1.0, 1.0))
    chi = np.zeros(geometry.shape, np.float32)
    chi[16:19, 16:19, 16:19] = 0.5
    chi[22:25, 16:19, 10:27] = 0.3  # a vessel near by
    padded = padded_geometry(geometry, (36, 36, 36))
    field = crop(convolve(pad(chi, padded.shape), dipole_kernel(padded)), geometry.shape)
    local = local_of(field, np.ones(geometry.shape, bool), geometry)
    # the map shows half of the source and all of the vessel
    seen = chi.copy()
    seen[16:19, 16:19, 16:19] = 0.25
    rest = unexplained_field(local, seen)
    found = fit_moment(rest, seen, local, (17.0, 17.0, 17.0), 3.0)
    assert found.ppm_mm3 == pytest.approx(27 * 0.5, rel=0.03)
    plain = fit_moment(local.field_ppm, 0 * seen, local, (17.0, 17.0, 17.0), 3.0)
    assert abs(plain.ppm_mm3 - 13.5) > 3 * abs(found.ppm_mm3 - 13.5)


def test_a_source_outside_the_mask_is_measured_in_a_curved_background():
    geometry = Geometry((30, 30, 30), (1.0, 1.0, 1.0))
    centre = (15.0, 15.0, 24.0)
    x, y, z = np.ix_(*(np.arange(30) - c for c in centre))
    background = 0.5 + 0.04 * x + 0.1 * z + 0.004 * (2 * z**2 - x**2 - y**2) + 0.006 * x * y
    field = dipole_field(geometry, centre, 80.0) + background
    mask = (z < -3) | ((z < 3) & (x**2 + y**2 + z**2 > 9))
    local = local_of(field, mask, geometry)
    start = (15.8, 14.4, 24.9)
    found = fit_moment_to_total(field.astype(np.float32), local, start, 3.0)
    assert found.ppm_mm3 == pytest.approx(80.0, rel=0.02)
    assert found.centre_mm == pytest.approx(centre, abs=0.1)


def test_too_few_voxels_give_none():
    geometry = Geometry((20, 20, 20), (1.0, 1.0, 1.0))
    mask = np.zeros(geometry.shape, bool)
    mask[9:11, 9:11, 9:11] = True
    local = local_of(np.zeros(geometry.shape), mask, geometry)
    zero = np.zeros(geometry.shape, np.float32)
    assert fit_moment(zero, zero, local, (10.0, 10.0, 10.0), 1.0) is None
    assert fit_moment_to_total(zero, local, (10.0, 10.0, 10.0), 1.0) is None
