from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bids_qsm.numerics.background import joint, pdf
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, crop, dipole_kernel, pad

HEAD = (23.0, 22.0, 18.0)
# what holds after each iteration needs few of them
FEW = {"far_iterations": 30, "coarse_iterations": 10, "iterations": 4}


def field_of(chi: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Field on a grid of twice the size: no wrap-around."""
    twice = geometry.with_shape(tuple(2 * n for n in geometry.shape))
    return crop(convolve(pad(chi, twice.shape), dipole_kernel(twice)), geometry.shape)


def relative_rms(found: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    found, truth = found[where] - found[where].mean(), truth[where] - truth[where].mean()
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.fixture
def tissue(head_geometry, ball) -> np.ndarray:
    """Susceptibility of a large source inside, whose field resembles that of an outer one."""
    chi = np.zeros(head_geometry.shape, np.float32)
    chi[ball(head_geometry, (23.0, 22.0, 20.0), 17.0)] = 0.05
    chi[ball(head_geometry, (16.0, 22.0, 17.0), 6.0)] = 0.12
    return chi


def test_large_inner_sources_keep_their_field(
    make_total, outer_field, head_geometry, tissue, ball, rng
) -> None:
    local = field_of(tissue, head_geometry)
    total = make_total(local + outer_field + rng.normal(0, 0.0005, local.shape))
    total = dataclasses.replace(total, noise_ppm=0.5 * total.noise_ppm)
    core = ball(head_geometry, HEAD, 21.0)
    errors = [relative_rms(remove(total).field_ppm, local, core) for remove in (joint, pdf)]
    assert errors[0] < 0.25
    assert errors[0] < 0.6 * errors[1]


def test_a_field_of_nothing_but_background_leaves_nothing(make_total, outer_field) -> None:
    total = make_total(outer_field)
    local = joint(total).field_ppm[total.mask]
    assert np.linalg.norm(local) < 0.05 * np.linalg.norm(total.field_ppm[total.mask])


def test_a_field_of_zero_stays_zero(make_total) -> None:
    total = make_total(np.zeros((48, 45, 38), np.float32))
    assert not joint(total).field_ppm.any()


def test_fields_scale(make_total, outer_field, tissue, head_geometry) -> None:
    total = make_total(outer_field + field_of(tissue, head_geometry))
    tripled = dataclasses.replace(
        total, field_ppm=3 * total.field_ppm, noise_ppm=3 * total.noise_ppm
    )
    expected = 3 * joint(total, **FEW).field_ppm
    difference = joint(tripled, **FEW).field_ppm - expected
    assert np.linalg.norm(difference) < 3e-3 * np.linalg.norm(expected)


def test_a_turned_head_has_the_turned_field(make_total, outer_field, tissue, head_geometry) -> None:
    total = make_total(outer_field + field_of(tissue, head_geometry))
    without_blocks = {"far_voxel_mm": 0.1, "coarse_voxel_mm": 0.1, "voxel_mm": 0.1, **FEW}
    local = joint(total, **without_blocks).field_ppm

    def turned(volume: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(volume.transpose(2, 0, 1)[:, ::-1])

    (vx, vy, vz), (bx, by, bz) = head_geometry.voxel_mm, head_geometry.b0_direction
    geometry = Geometry(turned(total.mask).shape, (vz, vx, vy), (bz, -bx, by))
    maps = (turned(v) for v in (total.field_ppm, total.noise_ppm, total.magnitude, total.mask))
    found = joint(FieldMap(*maps, geometry), **without_blocks).field_ppm
    # forward differences see an edge from one side: equal up to the error of the map
    assert relative_rms(found, turned(local), turned(total.mask)) < 0.02


def test_susceptibility_to_start_from_is_given_on_the_full_grid_alone(
    make_total, outer_field, tissue, head_geometry
) -> None:
    total = make_total(outer_field + field_of(tissue, head_geometry))
    start = joint(total, voxel_mm=0.1).chi_start_ppm
    assert start is not None
    assert not start[~total.mask].any()
    nucleus = start[tissue > 0.1].mean() - start[(tissue > 0) & (tissue < 0.1)].mean()
    assert nucleus == pytest.approx(0.07, abs=0.02)
    assert joint(total, voxel_mm=3.0, **FEW).chi_start_ppm is None
