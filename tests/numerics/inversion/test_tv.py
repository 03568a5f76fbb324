from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from scipy import fft

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, crop, dipole_kernel, pad
from bids_qsm.numerics.inversion.tv import tv


def local_field(field: np.ndarray, mask: np.ndarray, geometry: Geometry, noise=0.0) -> FieldMap:
    noise_ppm = np.full(mask.shape, noise, np.float32)
    field = np.where(mask, field, 0).astype(np.float32)
    return FieldMap(field, noise_ppm, np.ones_like(noise_ppm), mask, geometry)


def forward(chi: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Field of a map, on a grid of twice the size: no wrap-around."""
    twice = geometry.with_shape(tuple(2 * n for n in geometry.shape))
    return crop(convolve(pad(chi, twice.shape), dipole_kernel(twice)), geometry.shape)


def head(ball, b0_direction=(0.0, 0.0, 1.0)) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """Return a geometry, a mask, and susceptibilities: nuclei in a brain of grey and white."""
    geometry = Geometry((44, 48, 36), (1.5, 1.5, 2.0), b0_direction)
    middle = (21.0, 23.0, 17.0)
    chi = np.zeros(geometry.shape, np.float32)
    chi[ball(geometry, middle, 24.0)] = -0.03
    chi[ball(geometry, NUCLEUS, 6.0)] = 0.12
    chi[ball(geometry, (29.0, 24.0, 18.0), 5.0)] = 0.05
    return geometry, ball(geometry, middle, 29.0), chi


NUCLEUS = (14.0, 22.0, 16.0)


def test_a_sphere_of_a_tenth_ppm_comes_back(oblique_geometry, sphere_field, ball) -> None:
    centre = (16.0, 14.0, 12.0)
    field = 0.1 * sphere_field(oblique_geometry, centre, 6.0)
    mask = ball(oblique_geometry, centre, 13.5)
    chi = tv(local_field(field, mask, oblique_geometry))
    around = mask & ~ball(oblique_geometry, centre, 8.5)
    inside = ball(oblique_geometry, centre, 4.5)
    assert chi[inside].mean() - chi[around].mean() == pytest.approx(0.100, abs=0.005)


def test_a_nucleus_reads_the_same_however_the_head_is_turned(ball) -> None:
    values = []
    for degrees in (0, 17, 35):
        tilt = np.deg2rad(degrees)
        geometry, mask, chi = head(ball, (0.0, float(np.sin(tilt)), float(np.cos(tilt))))
        found = tv(local_field(forward(chi, geometry), mask, geometry))
        inside = ball(geometry, NUCLEUS, 4.5)
        values.append(found[inside].mean() - found[mask].mean())
        truth = chi[inside].mean() - chi[mask].mean()
        assert values[-1] == pytest.approx(truth, abs=0.004)
    assert np.ptp(values) < 0.002


def test_a_strong_source_does_not_streak(ball) -> None:
    geometry, mask, chi = head(ball)
    vein = ball(geometry, (30.0, 12.0, 20.0), 2.5)
    strong = np.where(vein, np.float32(3), chi)
    plain = tv(local_field(forward(chi, geometry), mask, geometry))
    found = tv(local_field(forward(strong, geometry), mask, geometry))
    away = mask & ~ball(geometry, (30.0, 12.0, 20.0), 8.0)
    difference = (found - plain)[away]
    assert difference.std() < 0.01
    assert found[vein].mean() > 2.0


def test_the_map_scales_with_the_field(ball, rng) -> None:
    geometry, mask, chi = head(ball)
    field = forward(chi, geometry) + rng.normal(0, 0.002, chi.shape)
    plain = tv(local_field(field, mask, geometry, 0.002))
    tripled = tv(local_field(3 * field, mask, geometry, 0.006))
    np.testing.assert_allclose(tripled, 3 * plain, atol=3e-5)


@pytest.mark.parametrize(
    ("axes", "signs"), [((0, 1, 2), (-1, 1, 1)), ((0, 1, 2), (1, 1, -1)), ((2, 0, 1), (1, 1, 1))]
)
def test_flips_and_permuted_axes(axes, signs, ball) -> None:
    geometry, mask, chi = head(ball, (0.0, 0.28, 0.96))
    field = forward(chi, geometry)
    plain = tv(local_field(field, mask, geometry))
    view = tuple(slice(None, None, s) for s in signs)
    turned = Geometry(
        tuple(geometry.shape[a] for a in axes),
        tuple(geometry.voxel_mm[a] for a in axes),
        tuple(geometry.b0_direction[a] * s for a, s in zip(axes, signs, strict=True)),
    )
    turn = lambda volume: np.transpose(volume, axes)[view]  # noqa: E731
    found = tv(local_field(turn(field), turn(mask), turned))
    # forward differences see an edge from one side: equal up to the error of the map
    assert np.sqrt(np.mean((found - turn(plain))[turn(mask)] ** 2)) < 0.004


def test_threads_do_not_change_a_bit(ball, rng) -> None:
    geometry, mask, chi = head(ball)
    field = local_field(forward(chi, geometry), mask, geometry, 0.002)
    results = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with fft.set_workers(threads):
            results.append(tv(field))
    numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])


def test_unknown_voxels_and_an_empty_field(ball) -> None:
    geometry, mask, chi = head(ball)
    field = local_field(forward(chi, geometry), mask, geometry, 0.001)
    plain = tv(field)
    field.field_ppm[20:22, 30, 17] = np.nan
    found = tv(field)
    assert np.isfinite(found).all()
    assert np.abs(found - plain)[ball(geometry, NUCLEUS, 5.0)].max() < 0.005
    nothing = dataclasses.replace(field, field_ppm=np.zeros_like(plain))
    assert not tv(nothing).any()
