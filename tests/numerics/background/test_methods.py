"""What holds for each method that needs the mask's inside only."""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from scipy import fft

from bids_qsm.numerics.background import METHODS

HEAD = (23.0, 22.0, 18.0)
NAMES = ("sharp", "resharp", "ismv", "lbv")


def relative_rms(left: np.ndarray, right: np.ndarray, where: np.ndarray) -> float:
    left, right = left[where] - left[where].mean(), right[where] - right[where].mean()
    return float(np.linalg.norm(left) / np.linalg.norm(right))


@pytest.mark.parametrize("name", NAMES)
def test_field_of_a_sphere_outside_is_removed(
    name, make_total, outer_field, head_geometry, ball
) -> None:
    local = METHODS[name](make_total(outer_field))
    core = ball(head_geometry, HEAD, 20.0)
    assert local.mask[core].all()
    assert relative_rms(local.field_ppm, outer_field, core) < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_field_of_a_sphere_inside_is_kept(
    name, make_total, head_geometry, ball, sphere_field
) -> None:
    centre = (22.0, 23.0, 18.0)
    field = sphere_field(head_geometry, centre, 4.0)
    local = METHODS[name](make_total(field))
    near = ball(head_geometry, centre, 10.0) & ~ball(head_geometry, centre, 5.0)
    slope = np.polyfit(field[near], local.field_ppm[near], 1)[0]
    assert slope == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_result_scales_with_the_field_and_turns_with_the_head(name, make_total, rng) -> None:
    total = make_total(rng.normal(size=(48, 45, 38)))
    local = METHODS[name](total)
    tripled = METHODS[name](dataclasses.replace(total, field_ppm=3 * total.field_ppm))
    size = np.linalg.norm(local.field_ppm)
    assert np.linalg.norm(tripled.field_ppm - 3 * local.field_ppm) < 0.001 * size

    def turned(volume: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(volume.transpose(2, 0, 1)[:, ::-1])

    shape, (vx, vy, vz) = turned(total.mask).shape, total.geometry.voxel_mm
    geometry = dataclasses.replace(
        total.geometry, shape=shape, voxel_mm=(vz, vx, vy), b0_direction=(0.96, 0.0, 0.28)
    )
    maps = (turned(v) for v in (total.field_ppm, total.noise_ppm, total.magnitude, total.mask))
    result = METHODS[name](type(total)(*maps, geometry))
    np.testing.assert_array_equal(result.mask, turned(local.mask))
    assert np.linalg.norm(result.field_ppm - turned(local.field_ppm)) < 0.01 * size


@pytest.mark.parametrize("name", NAMES)
def test_threads_do_not_change_a_bit(name, make_total, rng) -> None:
    total = make_total(rng.normal(size=(48, 45, 38)))
    results = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with fft.set_workers(threads):
            results.append(METHODS[name](total).field_ppm)
    numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_no_numbers_do_not_spread(
    name, make_total, outer_field, head_geometry, ball
) -> None:
    total = make_total(outer_field)
    clean = METHODS[name](total)
    total.field_ppm[20:22, 20, 20] = np.nan
    total.noise_ppm[20:22, 20, 20] = np.nan
    local = METHODS[name](total)
    assert np.isfinite(local.field_ppm).all()
    np.testing.assert_array_equal(local.mask, clean.mask)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_is_refused_with_a_sentence(name, make_total) -> None:
    with pytest.raises(ValueError, match="mask is empty"):
        METHODS[name](make_total(np.zeros((48, 45, 38)), radius=-1.0))


@pytest.mark.parametrize("name", ["sharp", "resharp", "ismv"])
def test_a_sphere_that_fits_nowhere_is_refused_with_a_sentence(name, make_total) -> None:
    with pytest.raises(ValueError, match="fits nowhere"):
        METHODS[name](make_total(np.zeros((48, 45, 38)), radius=4.0))


def test_none_is_the_total_field_itself(make_total, outer_field) -> None:
    total = make_total(outer_field)
    assert METHODS["none"](total) is total
