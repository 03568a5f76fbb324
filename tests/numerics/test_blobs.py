"""Blobs at several scales."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.blobs import find_blobs

RADII = [1.5, 2.2, 3.2, 4.6]


def gaussian(shape, voxel_mm, centre, sigmas) -> np.ndarray:
    x, y, z = np.ix_(
        *(
            ((np.arange(n) - c) * v / s) ** 2
            for n, c, v, s in zip(shape, centre, voxel_mm, sigmas, strict=True)
        )
    )
    return np.exp(-(x + y + z) / 2).astype(np.float32)


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0)])
def test_balls_of_both_signs_are_found_and_tubes_are_not(voxel_mm):
    shape = (44, 40, 36)
    values = gaussian(shape, voxel_mm, (12, 20, 18), (1.5, 1.5, 1.5))
    values -= 0.5 * gaussian(shape, voxel_mm, (30, 12, 18), (2.5, 2.5, 2.5))
    values += gaussian(shape, voxel_mm, (34, 32, 18), (1.5, 1.5, 1e6))
    blobs = find_blobs(values, np.ones(shape, bool), voxel_mm, RADII, 0.04)
    # where a tube leaves the mask its end is a blob
    blobs = [blob for blob in blobs if 2 < blob.voxel[2] < 33]
    assert [blob.voxel for blob in blobs] == [(12, 20, 18), (30, 12, 18)]
    assert blobs[0].strength > 0.15 and -0.15 < blobs[1].strength < -0.07
    assert blobs[0].radius_mm < blobs[1].radius_mm


def test_the_strongest_of_neighbours_stays_and_outside_does_not_count():
    shape = (30, 30, 30)
    values = gaussian(shape, (1, 1, 1), (14, 14, 14), (1.2, 1.2, 1.2))
    values += 0.6 * gaussian(shape, (1, 1, 1), (16, 14, 14), (1.0, 1.0, 1.0))
    mask = np.ones(shape, bool)
    mask[:, :, 22:] = False
    values[:, :, 22:] = 5.0
    blobs = find_blobs(values, mask, (1.0, 1.0, 1.0), RADII, 0.05)
    assert len(blobs) == 1
    assert np.abs(np.array(blobs[0].voxel) - (14, 14, 14)).max() <= 1
    assert find_blobs(values, np.zeros(shape, bool), (1.0, 1.0, 1.0), RADII, 0.05) == []


def test_strength_scales_with_the_values():
    shape = (24, 24, 24)
    values = gaussian(shape, (1, 1, 1), (12, 11, 12), (1.5, 1.5, 1.5))
    one = find_blobs(values, np.ones(shape, bool), (1.0, 1.0, 1.0), RADII, 0.05)
    two = find_blobs(-2 * values, np.ones(shape, bool), (1.0, 1.0, 1.0), RADII, 0.05)
    assert two[0].voxel == one[0].voxel
    assert two[0].strength == pytest.approx(-2 * one[0].strength, rel=1e-5)
